#!/usr/bin/env python3
"""A sector of the index that cannot be read ends the process (LMDB maps the file); the next start heals it.

    test_badsector.py [--pages 6] [--seed N] [--io auto] [--build DIR]

Shard 1 lies on an ext4 whose loop device is the file of faultdisk.c (FUSE). For pages of its index, one after the
other: the page's first KiB cannot be read any more, the page cache is emptied, the server starts and everything is
asked for. Either it answers right, or it dies with an alert line and the mark CRASHED; started again on the same disk,
the sector as bad as before, it makes the index again elsewhere, and everything is there. Where FUSE or loop devices
are not allowed it says SKIP and counts it. Last line: "N passed, M failed".
"""
import argparse
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import StartError  # noqa: E402
from test_failingdisk import Forbidden, FuseDisk, Split, run  # noqa: E402

PAGE, MESSAGES = 4096, 300
NAMES = ["u%d" % i for i in range(8)]


class Sectors(FuseDisk):
    """Its blocks are the index's pages: a bad sector is one page's alone."""

    def make(self):
        self.dev = self.device()
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.dev)
        self.mount()


def index(daemon):
    return os.path.join(daemon.dir, "d", "store", "shard-01", "index.mdb")


def pages_in_use(path):
    """Leaf and branch pages whose number is right: most are in use."""
    with open(path, "rb") as f:
        data = f.read()
    found = []
    for at in range(2 * PAGE, len(data) - PAGE + 1, PAGE):
        number, _, flags = struct.unpack_from("<QHH", data, at)
        if flags in (1, 2) and number == at // PAGE:
            found.append(number)
    return found


def on_disk(path, page):
    """Where the page's first byte lies on the device."""
    for line in run("filefrag", "-e", "-b4096", path).splitlines():
        row = re.match(r"\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.", line)
        if row and int(row.group(1)) <= page <= int(row.group(2)):
            return (int(row.group(3)) + page - int(row.group(1))) * PAGE
    raise AssertionError("page %d lies nowhere" % page)


def forget(*paths):
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def everything(daemon):
    out = {}
    for name in NAMES:
        with wire.Imap(daemon, name) as c:
            c.command(b"SELECT INBOX")
            out[name] = sorted((uid, sorted(flags), wire.digest(body)) for uid, flags, body in c.bodies()
                               if b"\\Recent" not in flags)
            c.command(b"UID FETCH 1:* (ENVELOPE BODYSTRUCTURE)")
    return out


def fill(daemon):
    for i in range(MESSAGES):
        text = b"Subject: %d\r\n\r\n" % i + random.Random(i).randbytes(300).hex().encode() + b"\r\n"
        daemon.deliver([NAMES[i % len(NAMES)]], text)


def ask(daemon, want):
    """True: all is right. False: the process died before it had answered everything."""
    try:
        daemon.start()
        have = everything(daemon)
    except (StartError, OSError, EOFError, wire.Refused):
        return False
    wire.equal(have, want, "what is served")
    return True


def one_page(daemon, disk, want, page):
    path = index(daemon)
    at = on_disk(path, page)
    forget(path, os.path.join(disk.fuse, "disk"))
    disk.command("read %d 1024" % at)
    good = ask(daemon, want)
    if good:
        daemon.stop()
    else:
        if daemon.process is not None:  # else it died before it was ready, and its status with it
            wire.equal(daemon.process.wait(20), -signal.SIGBUS, "exit status; " + daemon.log_tail(5))
        wire.equal("alert: the process crashed" in daemon.log_tail(5), True, daemon.log_tail(5))
        wire.equal(os.path.exists(os.path.join(daemon.dir, "d", "store", "CRASHED")), True, "CRASHED")
        wire.equal(ask(daemon, want), True, "the next start; " + daemon.log_tail(12))  # the sector is as bad as before
        daemon.stop()
    found = daemon.tambo("check", check=False).returncode
    if found != 0 and good:  # nobody had asked for it: the check finds it, and a person's rebuild heals it
        wire.equal((found, daemon.tambo("rebuild-index", check=False).returncode), (65, 0), "check, rebuild-index")
        found = daemon.tambo("check", check=False).returncode
    wire.equal(found, 0, "tambo check")
    return not good


def meta_page(daemon, disk, want):
    """Met by a plain read: a disk that cannot be read is tried again, and a person decides."""
    at = on_disk(index(daemon), 1)
    forget(index(daemon), os.path.join(disk.fuse, "disk"))
    disk.command("read %d %d" % (at, PAGE))
    daemon.start()
    states = [s["state"] for s in daemon.stat()]
    daemon.stop()
    wire.equal((states[0], states[1] == "serving"), ("serving", False), "states")
    wire.equal(daemon.tambo("rebuild-index", check=False).returncode, 0, "rebuild-index")
    wire.equal(ask(daemon, want), True, "afterwards; " + daemon.log_tail(12))
    daemon.stop()


def rounds(checks, daemon, disk, args):
    rng = random.Random(args.seed)
    died = 0
    daemon.import_accounts(NAMES)
    fill(daemon)
    want = everything(daemon)
    daemon.stop()
    for i in range(args.pages):
        with checks.step("page %d of %d" % (i + 1, args.pages)):
            disk.heal()
            died += one_page(daemon, disk, want, rng.choice(pages_in_use(index(daemon))))
    with checks.step("a meta page"):
        disk.heal()
        meta_page(daemon, disk, want)
    with checks.step("the process met %d of %d bad pages" % (died, args.pages)):
        wire.equal(died > 0, True, "it met some")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--pages", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.build = args.build or os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "release")
    checks = wire.Checks(args.verbose)
    print("seed %d" % args.seed)
    if os.geteuid() != 0:
        checks.skip("bad sector: only root can mount a disk")
        return checks.finish()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = tempfile.mkdtemp(prefix="tambo-sector-")
    disk = Sectors(folder, os.path.join(args.build, "tests", "crash", "faultdisk"))
    try:
        disk.make()
        with Split(disk, build=args.build, io=args.io, config={"checkpoint_ms": "200"}) as daemon:
            rounds(checks, daemon, disk, args)
    except (Forbidden, OSError) as e:
        checks.skip("bad sector: no disk for it here: %s" % e)
    finally:
        disk.remove()
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
