#!/usr/bin/env python3
"""Power cuts under sixteen clients; after each one the store is checked against the ledger (load.py).

    test_powercut.py [--rounds 60] [--seed N] [--io auto] [--build DIR] [--expect-loss]

The disk has a volatile write cache: the store lives on an ext4 whose loop device is a file on a second ext4. Cutting
the power is the shutdown ioctl without log flush on the OUTER one: what was not flushed through the inner device
(fsync, RWF_DSYNC) and the outer journal is gone, and everything above gets EIO. Then kill -9, unmount, mount again
(journal recovery), restart, check.
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

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2
OUTER_MB, INNER_MB = 1000, 800


def run(*command, check=True):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=check, timeout=120)


class Disk:
    """inner.img on outer: two file systems on loop devices, in one temporary folder."""

    def __init__(self):
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
        run("mkfs.ext4", "-q", "-F", self.image)
        self.attach(self.image, self.outer)
        inner = os.path.join(self.outer, "inner.img")
        with open(inner, "wb") as f:  # written through, so that only contents can be lost, not allocations
            for _ in range(INNER_MB):
                f.write(b"\0" * (1 << 20))
            os.fsync(f.fileno())
        run("mkfs.ext4", "-q", "-F", inner)
        self.attach(inner, self.inner)
        run("sync")

    def attach(self, image, where):
        loop = run("losetup", "--find", "--show", image).stdout.decode().strip()
        self.loop[where] = loop
        run("mount", "-t", "ext4", loop, where)
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


def rounds(args, disk):
    rng = random.Random(args.seed)
    ledger = load.Ledger(args.seed)
    config = {"checkpoint_ms": "300", "checkpoint_log_bytes": "1M", "trash_days": "0"}
    slowest, problems, number = 0.0, [], 0
    daemon = Daemon(build=args.build, io=args.io, config=config, accounts=ledger.accounts, directory=disk.inner)
    daemon.log_path = os.path.join(disk.base, "tambod.log")
    with daemon:
        load.setup(daemon)
        for number in range(1, args.rounds + 1):
            try:
                took, problems = one_round(daemon, disk, ledger, rng, "%d-%d" % (args.seed, number))
            except Exception as e:  # the store does not start: that is a loss, too
                took, problems = 0.0, ["%s: %s" % (type(e).__name__, e)]
            slowest = max(slowest, took)
            if problems:
                break
        daemon.kill()
    print("seed %d: %d power cuts, %d acknowledged operations, slowest restart %.3f s"
          % (args.seed, number, ledger.acked, slowest))
    for p in problems[:20]:
        print("   ", p)
    return number, problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("--expect-loss", action="store_true")
    args = parser.parse_args()
    disk = Disk()
    try:
        try:
            disk.make()
        except (OSError, subprocess.CalledProcessError) as e:
            print("SKIP power cuts: no loop device or no right to mount: %s" % e)
            print("0 passed, 0 failed, 1 skipped")
            return 0
        number, problems = rounds(args, disk)
    finally:
        disk.remove()
    if args.expect_loss:
        print("%d passed, %d failed" % (bool(problems), not problems))
        return 0 if problems else 1
    print("%d passed, %d failed" % (number - bool(problems), bool(problems)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
