#!/usr/bin/env python3
"""Power cuts under sixteen clients; after each one the store is checked against the ledger (load.py).

    test_powercut.py [--rounds 60] [--fs ext4,xfs] [--seed N] [--io auto] [--build DIR] [--expect-loss]

The disk has a volatile write cache: the store lives on an ext4 (xfs) whose loop device is a file on a second one; the
rounds are shared between the kinds of file system. Cutting the power is the shutdown ioctl without log flush on the
OUTER one: what was not flushed through the inner device (fsync, RWF_DSYNC) and the outer journal is gone, and
everything above gets EIO. Then kill -9, unmount, mount again (journal recovery), restart, check.
--expect-loss: for builds without a safety rule: passes when the check finds a loss, fails when all rounds are clean.
Needs root and loop devices; where they are forbidden it says SKIP and counts it.
Last line: "N passed, M failed[, K skipped]".
"""
import argparse
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]
import load  # noqa: E402
from tambo import Daemon  # noqa: E402

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
OUTER_MB, INNER_MB = 1000, 800


def run(*command, check=True):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=check, timeout=120)


class Disk:
    """inner.img on outer: two file systems on loop devices, in one temporary folder."""

    def __init__(self, fs):
        self.fs = fs
        self.base = tempfile.mkdtemp(prefix="tambo-power-")
        self.outer, self.inner = os.path.join(self.base, "outer"), os.path.join(self.base, "inner")
        self.image = os.path.join(self.base, "outer.img")
        os.mkdir(self.outer)
        os.mkdir(self.inner)
        self.mounted = []
        self.loop = {}

    def make(self):
        with open(self.image, "wb") as f:
            f.truncate(OUTER_MB << 20)
        self.format(self.image)
        self.attach(self.image, self.outer)
        inner = os.path.join(self.outer, "inner.img")
        with open(inner, "wb") as f:  # written through, so that only contents can be lost, not allocations
            for _ in range(INNER_MB):
                f.write(b"\0" * (1 << 20))
            os.fsync(f.fileno())
        self.format(inner)
        self.attach(inner, self.inner)
        run("sync")

    def format(self, image):
        if shutil.which("mkfs." + self.fs) is None:
            raise OSError("mkfs.%s is not installed" % self.fs)
        run("mkfs." + self.fs, "-q", "-F" if self.fs == "ext4" else "-f", image)

    def attach(self, image, where):
        loop = run("losetup", "--find", "--show", image).stdout.decode().strip()
        self.loop[where] = loop
        run("mount", "-t", self.fs, *(["-o", "nouuid"] if self.fs == "xfs" else []), loop, where)
        self.mounted.append(where)

    def cut(self):
        """The power goes."""
        fd = os.open(self.outer, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def detach(self):
        for where in reversed(self.mounted):
            for _ in range(100):  # the kernel lets go of a dead process's files a moment after it ended
                if run("umount", where, check=False).returncode == 0:
                    break
                time.sleep(0.02)
            else:
                run("umount", "-l", where, check=False)
            run("losetup", "-d", self.loop[where], check=False)
        self.mounted = []

    def again(self):
        self.detach()
        self.attach(self.image, self.outer)
        self.attach(os.path.join(self.outer, "inner.img"), self.inner)

    def remove(self):
        self.detach()
        shutil.rmtree(self.base, ignore_errors=True)


def one_round(daemon, disk, ledger, rng, name):
    clients = load.run_clients(daemon, ledger, name)
    time.sleep(rng.uniform(0.1, 0.8))  # the random moment
    ledger.dying = True
    disk.cut()
    daemon.kill()
    for c in clients:
        c.join(60)
    ledger.dying = False
    disk.again()
    begin = time.monotonic()
    daemon.start()
    took = time.monotonic() - begin
    return took, load.check(daemon, ledger)


def rounds(args, disk, count):
    """count power cuts of a store on this disk; (how many there were, what was found)."""
    rng = random.Random(args.seed)
    ledger = load.Ledger(args.seed)
    config = {"checkpoint_ms": "300", "checkpoint_log_bytes": "1M", "trash_days": "0"}
    slowest, problems, number = 0.0, [], 0
    daemon = Daemon(build=args.build, io=args.io, config=config, accounts=ledger.accounts, directory=disk.inner)
    daemon.log_path = os.path.join(disk.base, "tambod.log")
    with daemon:
        load.setup(daemon)
        for number in range(1, count + 1):
            try:
                took, problems = one_round(daemon, disk, ledger, rng, "%d-%d" % (args.seed, number))
            except Exception as e:  # the store does not start: that is a loss, too
                took, problems = 0.0, ["%s: %s" % (type(e).__name__, e)]
            slowest = max(slowest, took)
            if problems:
                break
        daemon.kill()
    print("seed %d, %s: %d power cuts, %d acknowledged operations, slowest restart %.3f s"
          % (args.seed, disk.fs, number, ledger.acked, slowest))
    for p in problems[:20]:
        print("   ", p)
    return number, problems


def one_fs(args, fs, count):
    """(cuts, problems), or None where this file system cannot be had."""
    disk = Disk(fs)
    try:
        try:
            disk.make()
        except (OSError, subprocess.CalledProcessError) as e:
            said = getattr(e, "stdout", None) or b""
            print("SKIP power cuts on %s: %s %s" % (fs, e, said.decode("utf-8", "replace").strip()))
            return None
        return rounds(args, disk, count)
    finally:
        disk.remove()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--fs", default="ext4,xfs")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("--expect-loss", action="store_true")
    args = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    kinds, cuts, skipped, problems = args.fs.split(","), 0, 0, []
    for i, fs in enumerate(kinds):
        done = one_fs(args, fs, args.rounds // len(kinds) + (i < args.rounds % len(kinds)))
        skipped += done is None
        if done is not None:
            cuts += done[0]
            problems += done[1]
        if problems:
            break
    if args.expect_loss:
        passed, failed = bool(problems), not problems and not skipped
    else:
        passed, failed = cuts - bool(problems), bool(problems)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
