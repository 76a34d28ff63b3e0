#!/usr/bin/env python3
"""Open the golden store of every format with today's program: nothing may have changed but the format's number.

For each store-vN: with io_uring and with plain system calls: unpacked, opened by tambod, compared line by line with
its list; what is stored meanwhile and everything else is there after a kill and after a stop; the number in SUPER,
CKPT and the index is today's; its index is made again; what it holds of deleted mail comes back. The same with a store
that make.py makes with today's program, so that it can make the next golden one. A store of a newer or an unknown
format is refused with a clear text, and not touched.

Last line: "N passed, M failed".
"""
import argparse
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
import make  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon, StartError  # noqa: E402

SLOTS = (0, 65536)


def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    crc = 0xffffffff
    for b in data:
        crc = table[(crc ^ b) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


def unpack(folder, number, d):
    """The golden store in place of the daemon's own."""
    store = os.path.join(d.dir, "d", "store")
    shutil.rmtree(store)
    path = os.path.join(folder, "store-v%d.tar.zst" % number)
    with subprocess.Popen(["zstd", "-dcq", "--long=24", path], stdout=subprocess.PIPE) as zstd:
        with tarfile.open(fileobj=zstd.stdout, mode="r|") as tar:
            tar.extractall(os.path.join(d.dir, "d"))
    return store


def formats_of(store):
    """The format in every slot that is written, of SUPER and the CKPTs: the newest of each file."""
    found = {}
    for path in [os.path.join(store, "SUPER"), *glob.glob(os.path.join(store, "shard-*", "CKPT"))]:
        best = -1
        with open(path, "rb") as f:
            data = f.read()
        for at in SLOTS:
            form, _, seq = struct.unpack_from("<IIQ", data, at + 8)
            if data[at:at + 5] == b"TAMBO" and seq > best:
                best, found[os.path.relpath(path, store)] = seq, form
    return found


def fake_format(store, number):
    """Both slots of SUPER say another format, with right checksums."""
    path = os.path.join(store, "SUPER")
    with open(path, "r+b") as f:
        for at in SLOTS:
            f.seek(at)
            slot = bytearray(f.read(128))
            if slot[:8] == b"TAMBOSUP":
                struct.pack_into("<II", slot, 8, number, 0)
                struct.pack_into("<I", slot, 12, crc32c(bytes(slot)))
                f.seek(at)
                f.write(slot)


def listed(folder, number):
    with open(os.path.join(folder, "store-v%d.txt" % number), encoding="utf-8") as f:
        return f.read().splitlines()


def compare(d, number, want):
    have = make.everything(d, number)
    missing, extra = [x for x in want if x not in have], [x for x in have if x not in want]
    if missing or extra or have != want:
        raise AssertionError("missing: %s\nnot expected: %s" % ("\n".join(missing[:10]), "\n".join(extra[:10])))
    return len(want)


def today(build):
    done = subprocess.run([os.path.join(build, "tambo"), "--json", "version"], stdout=subprocess.PIPE, check=True)
    said = json.loads(done.stdout)
    return said["store_format_oldest"], said["store_format"]


def open_golden(checks, name, folder, number, newest, args, io):
    """One golden store of that folder, through everything that is said above."""
    name = "%s (%s)" % (name, io)
    want = listed(folder, number)
    d = Daemon(build=args.build, io=io)
    try:
        d.init()
        store = unpack(folder, number, d)
        with checks.step(name + ": everything is there"):
            d.start()
            assert compare(d, number, want) > 20
        with checks.step(name + ": tambo says today's format"):
            total = json.loads(d.tambo("stat", "--json").stdout)
            wire.equal(total["format"], newest, "format")
            wire.equal([s["format"] for s in total["shards"]], [newest] * 2, "formats of shards")
        with checks.step(name + ": it takes mail, which a kill leaves"):
            with wire.Imap(d, "dora") as c:
                uid = c.append(b"Drafts", make.plain(b"new"), b"(\\Seen)")
                c.command(b"SELECT INBOX")
                c.command(b"COPY 1 Archive")
            d.kill()
            d.start()
            with wire.Imap(d, "dora") as c:
                c.command(b"SELECT Drafts")
                wire.equal([(u, data) for u, _, data in c.bodies()], [(uid, make.plain(b"new"))])
                c.command(b"STORE 1 +FLAGS (\\Deleted)")
                c.command(b"EXPUNGE")
                c.command(b"SELECT Archive")
                c.command(b"STORE 1 +FLAGS (\\Deleted)")
                c.command(b"EXPUNGE")
        with checks.step(name + ": a stop, and the rest is as before"):
            wire.equal(d.stop(), 0, "exit code")
            wire.equal(set(formats_of(store).values()), {newest}, "formats on disk")
            d.start()
            as_before(d, number, want)
            wire.equal(d.stop(), 0, "exit code")
        with checks.step(name + ": the check finds nothing, the index is made again and is the same"):
            d.tambo("check")
            d.tambo("rebuild-index")
            d.start()
            as_before(d, number, want)
        if number > 1:
            with checks.step(name + ": what was deleted comes back"):
                come_back(d)
        wire.equal(d.stop(), 0, "exit code")
    finally:
        d.remove()


def as_before(d, number, want):
    touched = re.compile(r"(mailbox dora (Drafts|Archive)|undelete dora) ")
    have = [x for x in make.everything(d, number) if not touched.match(x)]
    wire.equal(have, [x for x in want if not touched.match(x)])


def come_back(d):
    """The account, a mailbox and a message that the golden store's trash holds."""
    d.tambo("account", "undelete", "gone")
    d.tambo("undelete", "ann", "--all")
    want = (("gone", b"INBOX", b"comes back"), ("ann", b"old", b"lost"), ("ann", b"INBOX", b"gone"))
    for account, name, text in want:
        with wire.Imap(d, account) as c:
            c.command(b"EXAMINE " + name)
            wire.equal([data for _, _, data in c.bodies()].count(make.plain(text)), 1, "%s in %s" % (text, name))


def refuse(checks, oldest, newest, args):
    for number in (newest + 1, 0, 0xffffffff):
        with checks.step("a store of format %d is refused and not touched" % number):
            d = Daemon(build=args.build, io="posix")
            try:
                d.init()
                store = os.path.join(d.dir, "d", "store")
                fake_format(store, number)
                with open(os.path.join(store, "SUPER"), "rb") as f:
                    before = f.read()
                want = "has format %d; this program reads %d to %d" % (number, oldest, newest)
                try:
                    d.start()
                    raise AssertionError("it was opened")
                except StartError as e:
                    assert want in str(e), e
                said = d.tambo("stat", check=False)
                assert said.returncode != 0 and want in said.stderr.decode(), said
                with open(os.path.join(store, "SUPER"), "rb") as f:
                    wire.equal(f.read(), before, "SUPER")
            finally:
                d.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    args = parser.parse_args()
    args.build = args.build or os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "release")
    checks = wire.Checks(args.verbose)
    oldest, newest = today(args.build)
    numbers = sorted(int(re.search(r"store-v(\d+)", p).group(1)) for p in glob.glob(os.path.join(HERE, "*.tar.zst")))
    with checks.step("every format that is opened has its golden store, but perhaps today's"):
        assert set(range(oldest, newest)) <= set(numbers), numbers
    for number in numbers:
        for io in ("uring", "posix") if args.io == "auto" else (args.io,):
            try:
                open_golden(checks, "v%d" % number, HERE, number, newest, args, io)
            except StartError as e:
                if io != "uring" or "io_uring" not in str(e):
                    raise
                checks.skip("v%d with io_uring: it is not available here" % number)
    with tempfile.TemporaryDirectory(prefix="tambo-golden-") as folder:
        with checks.step("make.py makes one with today's program"):
            make.make(args.build, newest, folder)
        open_golden(checks, "today's", folder, newest, newest, args, "posix")
    refuse(checks, oldest, newest, args)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
