#!/usr/bin/env python3
"""A server that crashed, over an index that rotted meanwhile, heals at its next start, and while it serves.

    test_heal.py [--io auto] [--build DIR]

Every message must be there byte for byte under its UID; tambo check, check --repair, scrub and rebuild-index say what
they found. A log that is damaged in the middle is refused, and ends there once --truncate was said.
Last line: "N passed, M failed".
"""
import argparse
import glob
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

MESSAGES = 40
PAGE = 4096
SEGMENT = 4 << 20


def message(n):
    return b"From: a@b\r\nSubject: number %d\r\n\r\nbody of number %d %s\r\n" % (n, n, os.urandom(600).hex().encode())


def store(daemon):
    return os.path.join(daemon.dir, "d", "store")


def rot_index(daemon):
    """One bit in the last entry of every leaf page of every index: no part of it can be trusted any more."""
    rotten = 0
    for path in glob.glob(os.path.join(store(daemon), "shard-*", "index.mdb")):
        with open(path, "r+b") as f:
            data = bytearray(f.read())
            for at in range(2 * PAGE, len(data) - PAGE + 1, PAGE):
                number, _, flags = struct.unpack_from("<QHH", data, at)
                if flags == 2 and number == at // PAGE:
                    data[at + PAGE - 1] ^= 1
                    rotten += 1
            f.seek(0)
            f.write(data)
    return rotten


def served(daemon, want):
    """All that is told is right, and nothing is missing."""
    with wire.Imap(daemon, "ann") as imap:
        imap.command(b"SELECT INBOX")
        wire.equal({uid: body for uid, _, body in imap.bodies()}, want, "INBOX")


def crash(daemon):
    """As a fault would: the process marks the store and dies of the signal."""
    wire.equal(daemon.end(signal.SIGSEGV), -signal.SIGSEGV, "exit status")


def said(done, code, word):
    wire.equal(done.returncode, code, "exit status")
    if word not in done.stdout:
        raise AssertionError("%r is not in %r" % (word, done.stdout[-2000:]))


def run(daemon, checks):
    want = {}
    mark = os.path.join(store(daemon), "CRASHED")
    with checks.step("all is served"):
        for n in range(1, MESSAGES + 1):
            want[n] = message(n)
            daemon.append("ann", "INBOX", want[n])
        served(daemon, want)
    with checks.step("a crash leaves its mark, and the next start finds a sound index"):
        crash(daemon)
        wire.equal(os.path.exists(mark), True, "CRASHED")
        daemon.start()
        served(daemon, want)
        wire.equal(os.path.exists(mark), False, "CRASHED")
    with checks.step("an index that rots before the start after a crash is made again"):
        crash(daemon)
        wire.equal(rot_index(daemon) > 0, True, "rotten pages")
        daemon.start()
        served(daemon, want)
    with checks.step("scrub reads everything"):
        said(daemon.tambo("scrub", check=False), 0, b"reads well")
    with checks.step("an index that rots under the server is made again while it serves"):
        rot_index(daemon)
        done = daemon.tambo("scrub", check=False)
        wire.equal(done.returncode, 74, "exit status")  # the shard that it was found in does not answer for a moment
    daemon.stop()
    daemon.start()
    with checks.step("and nothing is missing"):
        served(daemon, want)
    daemon.stop()
    with checks.step("check is clean"):
        said(daemon.tambo("check", check=False), 0, b"clean")
    with checks.step("check finds what rots, --repair heals it"):
        rot_index(daemon)
        said(daemon.tambo("check", check=False), 65, b"DAMAGE")
        said(daemon.tambo("check", "--repair", check=False), 0, b"repaired")
    with checks.step("rebuild-index makes a sound index again too"):
        said(daemon.tambo("rebuild-index", check=False), 0, b"rebuilt")
        daemon.start()
        served(daemon, want)
        daemon.stop()


def spoil(daemon, shard):
    """Both slots of the shard's CKPT and the start of its log: nothing of it can be opened or made again."""
    folder = os.path.join(store(daemon), "shard-%02x" % shard)
    for name, places in (("CKPT", (40, 65536 + 40)), ("log/00000001.seg", range(4096, 16384, 64))):
        with open(os.path.join(folder, name), "r+b") as f:
            for at in places:
                f.seek(at)
                byte = f.read(1)
                f.seek(at)
                f.write(bytes([byte[0] ^ 0x10]))


def refused(daemon, name):
    """Its login and mail to it: later."""
    with wire.Imap(daemon) as c:
        try:
            c.command(b"LOGIN %s secret" % name.encode())
            raise AssertionError("%s is logged in" % name)
        except wire.Refused as e:
            assert "NO [UNAVAILABLE]" in str(e), e
    with wire.Smtp(daemon, "lmtp") as c:
        try:
            answer = c.deliver([name.encode()], message(1))[0]
        except wire.Refused as e:
            answer = str(e).encode()
        wire.equal(answer[:3], b"451", answer)


def inbox(daemon, name):
    with wire.Imap(daemon, name) as c:
        c.command(b"SELECT INBOX")
        return {uid: body for uid, _, body in c.bodies()}


def away(daemon, checks):
    """What a damaged shard does at the start: one of the others, and the one with the directory."""
    shard = {}
    for line in daemon.tambo("--json", "account", "list").stdout.splitlines():
        one = json.loads(line)
        if one["account"].startswith("u"):
            shard[one["account"]] = one["shard"]
    for name in shard:
        daemon.append(name, "INBOX", message(7))
    want = {name: inbox(daemon, name) for name in shard}
    wire.equal(set(shard.values()), {0, 1}, "shards with accounts")
    daemon.stop()
    kept = os.path.join(daemon.dir, "kept")
    shutil.copytree(os.path.join(store(daemon), "shard-01"), kept)
    with checks.step("a shard that is damaged at the start is down and says why, the other one serves"):
        spoil(daemon, 1)
        for _ in range(2):
            daemon.start()
            for name, number in shard.items():
                if number == 0:
                    wire.equal(inbox(daemon, name), want[name], name)
                    daemon.append(name, "INBOX", message(8))
                    want[name] = inbox(daemon, name)
                else:
                    refused(daemon, name)
            told = json.loads(daemon.tambo("--json", "stat").stdout)["shards"]
            wire.equal([s["state"] for s in told], ["serving", "down"], "states")
            assert "CKPT" in told[1]["reason"], told
            wire.equal(daemon.stop(), 0, "exit status")
    with checks.step("put back, it has everything"):
        shutil.rmtree(os.path.join(store(daemon), "shard-01"))
        shutil.copytree(kept, os.path.join(store(daemon), "shard-01"))
        daemon.start()
        for name, number in shard.items():
            if number == 1:
                wire.equal(inbox(daemon, name), want[name], name)
        daemon.stop()
    with checks.step("damage to the shard with the directory keeps the server from starting: nobody is a stranger"):
        spoil(daemon, 0)
        done = subprocess.run([os.path.join(daemon.build, "tambod"), "-c", daemon.conf], stderr=subprocess.PIPE,
                              timeout=60, check=False)
        wire.equal(done.returncode, 65, "exit status")
        assert b"shard-00/CKPT" in done.stderr, done.stderr


def applied(folder):
    """Up to where the index holds the log, as the newest slot of CKPT says: segment, offset."""
    with open(os.path.join(folder, "CKPT"), "rb") as f:
        data = f.read()
    slots = [struct.unpack_from("<QQQ", data, at + 16) for at in (0, 65536) if data[at:at + 8] == b"TAMBOCKP"]
    return max(slots)[2] // SEGMENT, max(slots)[2] % SEGMENT


def start_refused(daemon):
    """The exit status of a start, once the killed process has let go of the store (75 until then)."""
    for _ in range(100):
        done = subprocess.run([os.path.join(daemon.build, "tambod"), "-c", daemon.conf], stderr=subprocess.PIPE,
                              timeout=60, check=False)
        if done.returncode != 75:
            break
        time.sleep(0.05)
    return done.returncode


def next_uid(daemon):
    with wire.Imap(daemon, "ann") as c:
        return int(re.search(rb"UIDNEXT (\d+)", c.command(b"STATUS INBOX (UIDNEXT)")[0][0][0]).group(1))


def truncate(daemon, checks):
    """A byte of the log is damaged behind the checkpoint, and acknowledged mail lies behind that."""
    folder = os.path.join(store(daemon), "shard-00")
    with checks.step("a log that is damaged in the middle keeps the server from starting"):
        daemon.append("ann", "INBOX", message(1))
        want = inbox(daemon, "ann")
        daemon.stop()
        daemon.start()
        for n in range(2, 12):
            daemon.append("ann", "INBOX", message(n))
        last = next_uid(daemon)
        daemon.kill()
        segment, at = applied(folder)
        with open(os.path.join(folder, "log", "%08x.seg" % segment), "r+b") as f:
            f.seek(at + 60)
            byte = f.read(1)
            f.seek(at + 60)
            f.write(bytes([byte[0] ^ 1]))
        wire.equal(start_refused(daemon), 65, "exit status")
        said(daemon.tambo("check", check=False), 65, b"check --truncate")
    with checks.step("--truncate asks first, then says what went and where it lies"):
        done = daemon.tambo("check", "--truncate", check=False)
        wire.equal(done.returncode, 64, "exit status without --yes")
        said(daemon.tambo("check", check=False), 65, b"DAMAGE")
        done = daemon.tambo("--json", "check", "--truncate", "--yes", check=False)
        wire.equal(done.returncode, 0, "exit status")
        told = [json.loads(line) for line in done.stdout.splitlines()]
        cut = [line for line in told if line.get("finding") == "repaired"]
        wire.equal([len(cut), told[-1]["clean"]], [1, True], "what is told")
        wire.equal(os.path.isdir(cut[0]["next"]), True, cut[0]["next"])
    with checks.step("what came before is served, and no UID comes twice"):
        daemon.start()
        have = inbox(daemon, "ann")
        wire.equal({uid: have.get(uid) for uid in want}, want, "INBOX")
        wire.equal(len(have) < 11, True, "%d messages" % len(have))
        wire.equal(next_uid(daemon) > last + (1 << 19), True, "UIDNEXT")
        daemon.append("ann", "INBOX", message(99))
        wire.equal(daemon.stop(), 0, "exit status")
        said(daemon.tambo("check", check=False), 0, b"clean")
        said(daemon.tambo("check", "--truncate", check=False), 0, b"clean")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    args = parser.parse_args()
    checks = wire.Checks()
    with Daemon(build=args.build, io=args.io, accounts=["ann"]) as daemon:
        run(daemon, checks)
    with Daemon(build=args.build, io=args.io, accounts=["u%d" % i for i in range(24)],  # by lot: some in each shard
                init=("--shards", "2", "--segment-size", "4M")) as daemon:
        away(daemon, checks)
    with Daemon(build=args.build, io=args.io, accounts=["ann"], config={"checkpoint_ms": "3600000"},
                init=("--shards", "1", "--segment-size", "4M")) as daemon:
        truncate(daemon, checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
