#!/usr/bin/env python3
"""A disk that fails under one of two shards: that shard fails closed and comes back, the other one serves on.

    test_failingdisk.py [--rounds 10] [--seed N] [--io auto] [--build DIR]

Shard 1 lies on an ext4 of its own, whose loop device is the file of faultdisk.c (FUSE): on command its writes or its
flushes fail, once or until told otherwise. Every fifth round it lies on a zram that runs out of memory instead. In each
round mail goes to both shards while the disk fails. What was answered 250 is there in the end, whatever happened; the
shard is away with 451 4.3.0, NO [UNAVAILABLE], -ERR [SYS/TEMP] and its reason in `tambo stat`; its IMAP sessions ended
with BYE; one line "alert:" is logged; the other shard's clients notice nothing. Then the disk is well again (mounted
again, if its journal had given up), and service returns by itself, or after kill -9 and a restart.
Where FUSE, loop devices or zram are not allowed it says SKIP and counts it. Last line: "N passed, M failed".
"""
import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

MIB = 1 << 20
DISK_MIB = 300
BACK_S = 40  # two failed attempts to rebuild it are 1 + 2 seconds of pause, then 4
BAD, GOOD = 1, 0


class Forbidden(Exception):
    """This machine does not allow what a test needs."""


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120)
    if done.returncode != 0:
        raise Forbidden("%s: %s" % (" ".join(command), done.stdout.decode("utf-8", "replace").strip()))
    return done.stdout.decode().strip()


def until(what, seconds, ask):
    """Ask until the answer is true; how long it took."""
    begin = time.monotonic()
    while not ask():
        if time.monotonic() - begin > seconds:
            raise AssertionError("%s: not within %d s" % (what, seconds))
        time.sleep(0.02)
    return time.monotonic() - begin


class Disk:
    """An ext4 on a device that can fail. Subclasses: device(), fail(how), heal(), gone()."""

    def __init__(self, folder):
        self.folder = folder
        self.where = os.path.join(folder, "mount")
        self.mounted = False
        os.makedirs(self.where)

    def make(self):
        self.dev = self.device()
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.dev)
        self.mount()

    def mount(self):
        run("mount", self.dev, self.where)
        self.mounted = True

    def read_only(self):
        """Has the file system given up?"""
        probe = os.path.join(self.where, "probe")
        try:
            with open(probe, "wb") as f:
                f.write(b"x")
                os.fsync(f.fileno())
            os.unlink(probe)
            return False
        except OSError:
            return True

    def again(self):
        """Mount it afresh: the journal is replayed. Refused while somebody has a file open there."""
        def unmounted():
            return subprocess.run(["umount", self.where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  check=False).returncode == 0
        until("a shard that is away lets go of its files", 20, unmounted)
        self.mounted = False
        self.mount()

    def remove(self):
        with contextlib.suppress(Exception):
            self.heal()
        for _ in range(50):
            if not self.mounted or subprocess.run(["umount", self.where], check=False,
                                                  stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        self.gone()


class FuseDisk(Disk):
    name = "fuse"
    ways = ("write -1", "flush -1", "write 1", "flush 1")

    def __init__(self, folder, program):
        super().__init__(folder)
        self.program = program
        self.process = self.loop = None
        self.fuse = os.path.join(folder, "fuse")
        os.mkdir(self.fuse)

    def device(self):
        if not os.path.exists(self.program):
            raise Forbidden("%s was not built: no libfuse3" % self.program)
        backing = os.path.join(self.folder, "backing")
        with open(backing, "wb") as f:
            f.truncate(DISK_MIB * MIB)
        self.process = subprocess.Popen([self.program, backing, self.fuse], stdin=subprocess.DEVNULL)
        begin = time.monotonic()
        while not os.path.exists(os.path.join(self.fuse, "disk")):
            if self.process.poll() is not None or time.monotonic() - begin > 10:
                raise Forbidden("FUSE cannot be mounted here")
            time.sleep(0.02)
        self.loop = run("losetup", "--find", "--show", os.path.join(self.fuse, "disk"))
        return self.loop

    def command(self, text):
        with open(os.path.join(self.fuse, "control"), "wb", buffering=0) as f:
            f.write(text.encode() + b"\n")

    def fail(self, how):
        self.command(how)

    def heal(self):
        self.command("off")

    def hits(self):
        with open(os.path.join(self.fuse, "control"), "rb") as f:
            words = f.read().split()
        return int(words[2]) + int(words[4])

    def gone(self):
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], check=False)
        if self.process:
            subprocess.run(["umount", self.fuse], check=False, stderr=subprocess.DEVNULL)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class ZramDisk(Disk):
    """A compressed disk in memory: with its memory used up, every write of something new fails."""
    name = "zram"
    ways = ("no memory",)

    def __init__(self, folder):
        super().__init__(folder)
        self.number = None

    def attribute(self, name):
        return "/sys/block/zram%d/%s" % (self.number, name)

    def device(self):
        try:
            with open("/sys/class/zram-control/hot_add", encoding="ascii") as f:
                self.number = int(f.read())
            with open(self.attribute("disksize"), "w", encoding="ascii") as f:
                f.write("%d" % (DISK_MIB * MIB))
        except OSError as e:
            raise Forbidden("zram: %s" % e) from e
        return "/dev/zram%d" % self.number

    def limit(self, value):
        with open(self.attribute("mem_limit"), "w", encoding="ascii") as f:
            f.write(value)

    def fail(self, how):
        self.limit("1K")  # less than it has already

    def heal(self):
        self.limit("0")

    def hits(self):
        with open(self.attribute("io_stat"), encoding="ascii") as f:
            return int(f.read().split()[1])

    def gone(self):
        if self.number is None:
            return
        with contextlib.suppress(OSError):
            with open(self.attribute("reset"), "w", encoding="ascii") as f:
                f.write("1")
            with open("/sys/class/zram-control/hot_remove", "w", encoding="ascii") as f:
                f.write("%d" % self.number)


class Split(Daemon):
    """A tambod whose shard 1 lies on a disk of its own."""

    def __init__(self, disk, **kw):
        super().__init__(init=["--shards", "2", "--segment-size", "4M"], **kw)
        self.disk = disk

    def init(self):
        super().init()
        shard = os.path.join(self.dir, "d", "store", "shard-01")
        shutil.move(shard, os.path.join(self.disk.where, "shard-01"))
        os.symlink(os.path.join(self.disk.where, "shard-01"), shard)

    def stat(self):
        return json.loads(self.tambo("--json", "stat").stdout)["shards"]

    def alerts(self):
        with open(self.log_path, "rb") as f:
            return sum(b" alert: shard=1 failed closed" in line for line in f)


class World:
    def __init__(self, daemon, rng):
        self.daemon, self.rng = daemon, rng
        self.account = {}  # shard: its account
        self.sure = collections.defaultdict(collections.Counter)
        self.maybe = collections.defaultdict(set)
        self.made = 0

    def make_accounts(self):
        for i in range(40):
            if len(self.account) == 2:
                return
            name, before = "disk%d" % i, [s["accounts"] for s in self.daemon.stat()]
            self.daemon.import_accounts([name])
            after = [s["accounts"] for s in self.daemon.stat()]
            self.account.setdefault(BAD if after[BAD] > before[BAD] else GOOD, name)

    def message(self):
        self.made += 1
        size = self.rng.choice((300, 3000, 30000, 200000))
        return b"Subject: %d\r\n\r\n%s\r\n" % (self.made, self.rng.randbytes(size).hex().encode())

    def offer(self, lmtp, shards):
        """One message for these shards' accounts; {shard: reply}."""
        data, replies, there = self.message(), {}, []
        for shard in shards:
            self.maybe[shard].add(wire.digest(data))
        lmtp.ask(b"MAIL FROM:<>")
        for shard in shards:
            lmtp.send(b"RCPT TO:<%s>\r\n" % self.account[shard].encode())
            replies[shard] = lmtp.reply()
            if replies[shard].startswith(b"250"):
                there.append(shard)
        if there:
            lmtp.ask(b"DATA", b"354")
            lmtp.send(wire.stuff(data))
            for shard in there:
                replies[shard] = lmtp.reply()
        else:
            lmtp.ask(b"RSET")
        for shard in shards:
            if replies[shard].startswith(b"250"):
                self.sure[shard][wire.digest(data)] += 1
                self.maybe[shard].discard(wire.digest(data))
        return replies

    def check(self):
        """What was acknowledged is there; of the rest, what was under way may be. Then that is known, too."""
        for shard, account in self.account.items():
            have = collections.Counter()
            with wire.Imap(self.daemon, account) as imap:
                imap.command(b"EXAMINE INBOX")
                for _, _, data in imap.bodies():
                    have[wire.digest(wire.without_trace(data))] += 1
            wire.equal(sorted((self.sure[shard] - have).items()), [], "shard %d: acknowledged and gone" % shard)
            more = have - self.sure[shard]
            wire.equal([d for d, n in more.items() if n > 1 or d not in self.maybe[shard]], [],
                       "shard %d: there without reason, or twice" % shard)
            self.sure[shard] = have
            self.maybe[shard] = set()


def refused(world, user, kind):
    """How a login is refused."""
    try:
        (wire.Imap if kind == "imap" else wire.Pop3)(world.daemon, user).close()
    except wire.Refused as e:
        return str(e)
    return "logged in"


def away(world):
    """Shard 1 is down for as long as the disk fails: what its clients are told."""
    daemon, bad = world.daemon, world.account[BAD]
    state = daemon.stat()[BAD]
    wire.equal(state["state"] in ("failed", "waiting", "rebuilding"), True, "state %r" % state["state"])
    wire.equal(bool(state["reason"]), True, "a reason")
    with wire.Smtp(daemon) as lmtp:
        replies = world.offer(lmtp, (BAD, GOOD))
        wire.equal(replies[BAD][:9], b"451 4.3.0", "RCPT of the shard that is away")
        wire.equal(replies[GOOD][:3], b"250", "the other recipient of the same transaction")
    wire.equal("NO [UNAVAILABLE]" in refused(world, bad, "imap"), True, "IMAP login")
    wire.equal("-ERR [SYS/TEMP]" in refused(world, bad, "pop3"), True, "POP3 login")


def provoke(world, alerts, sticky, disk, hits):
    """Deliver to both shards until the first has failed; a single fault may also hit something harmless."""
    begin, after = time.monotonic(), 0
    with wire.Smtp(world.daemon) as lmtp:
        while world.daemon.alerts() == alerts:
            replies = world.offer(lmtp, (BAD, GOOD))
            wire.equal(replies[GOOD][:3], b"250", "the other shard's reply")
            wire.equal(replies[BAD][:1] in b"24", True, "reply %r" % replies[BAD])
            after += disk.hits() > hits
            if not sticky and after > 60:
                return False
            if time.monotonic() - begin > 30:
                raise AssertionError("the shard did not fail within 30 s")
    return True


def one_round(world, disk, way, restart):
    daemon = world.daemon
    sticky = not way.endswith(" 1")
    with wire.Smtp(daemon) as lmtp:
        for _ in range(5):
            wire.equal({r[:3] for r in world.offer(lmtp, (BAD, GOOD)).values()}, {b"250"}, "before the fault")
    idler, other = wire.Imap(daemon, world.account[BAD]), wire.Imap(daemon, world.account[GOOD])
    with idler, other:
        idler.command(b"SELECT INBOX")
        idler.send(b"i IDLE\r\n")
        wire.equal(idler.line()[:1], b"+", "IDLE")
        other.command(b"SELECT INBOX")
        alerts, hits = daemon.alerts(), disk.hits()
        disk.fail(way)
        hit = provoke(world, alerts, sticky, disk, hits)
        if hit:
            said = b""
            while not said.startswith(b"* BYE"):
                said = idler.line()
            wire.equal(said[:19], b"* BYE [UNAVAILABLE]", "the farewell")
        if hit and sticky:
            away(world)
        other.command(b"NOOP")
    if restart:
        daemon.kill()
    disk.heal()
    took = 0.0
    if restart or (hit and disk.read_only()):
        disk.again()
    if restart:
        daemon.start()
    else:
        took = until("the shard serves again", BACK_S, lambda: daemon.stat()[BAD]["state"] == "serving")
    wire.equal(daemon.alerts() - alerts, int(hit), "alert lines")
    world.check()
    print("     %s: %s, %s" % (way, "failed closed" if hit else "met nothing that matters",
                               "restarted" if restart else "back after %.1f s" % took))
    return hit


def rounds_on(checks, disk, args, numbers, rng):
    try:
        disk.make()
    except (Forbidden, OSError) as e:
        checks.skip("failing disk: no %s here: %s" % (disk.name, e))
        disk.remove()
        return
    try:
        with Split(disk, build=args.build, io=args.io, config={"checkpoint_ms": "200"}) as daemon:
            world = World(daemon, rng)
            world.make_accounts()
            hits = 0
            for i, n in enumerate(numbers):
                way = disk.ways[i % len(disk.ways)]
                with checks.step("round %d, %s, %s" % (n, disk.name, way)):
                    hits += one_round(world, disk, way, (i + i // 4) % 2 == 1)
                if checks.failed:
                    print(daemon.log_tail(25))
                    return
            with checks.step("%s: the shard failed in %d of %d rounds" % (disk.name, hits, len(numbers))):
                wire.equal(2 * hits >= len(numbers), True, "most rounds hit something")
    finally:
        disk.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    wire.arguments(parser)
    args = parser.parse_args()
    args.build = args.build or os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "release")
    checks = wire.Checks(args.verbose)
    if os.geteuid() != 0:
        checks.skip("failing disk: only root can mount one")
        return checks.finish()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    print("seed %d" % args.seed)
    folder = tempfile.mkdtemp(prefix="tambo-failing-")
    try:
        on_zram = list(range(4, args.rounds, 5))
        on_fuse = [n for n in range(args.rounds) if n not in on_zram]
        program = os.path.join(args.build, "tests", "crash", "faultdisk")
        rng = random.Random(args.seed)
        rounds_on(checks, FuseDisk(os.path.join(folder, "f"), program), args, on_fuse, rng)
        if on_zram:
            rounds_on(checks, ZramDisk(os.path.join(folder, "z")), args, on_zram, rng)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
