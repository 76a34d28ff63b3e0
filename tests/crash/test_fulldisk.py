#!/usr/bin/env python3
"""A disk that fills up: mail is refused for now, everything else goes on, and service returns by itself.

    test_fulldisk.py [--size 80] [--io auto] [--build DIR]

The store lies on a small ext4 file system of its own (a loop device; needs root, skipped where mounting is forbidden).
It is filled by LMTP, SMTP and APPEND at once. Every message that was acknowledged, and no other, must be there at the
end, byte for byte; so must it be after SIGKILL in the full state. Last line: "N passed, M failed[, K skipped]".
"""
import argparse
import collections
import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

MIB = 1 << 20
FILLER_MIB = 24
MESSAGE = 100 * 1000
ACCOUNTS = ["full0", "full1", "full2", "full3"]
RETURN_S = 10


class Ledger:
    """Per account: the sums of the messages acknowledged and not expunged since."""

    def __init__(self):
        self.lock = threading.Lock()
        self.there = {a: collections.Counter() for a in ACCOUNTS}
        self.made = self.refused = 0
        self.words = collections.Counter()  # how it was refused

    def message(self):
        with self.lock:
            self.made += 1
            number = self.made
        rng = random.Random(number)
        size = MESSAGE if number % 4 else 3000 if number % 8 else 1500000
        noise = rng.randbytes(size).translate(bytes(b if b not in (0, 10, 13, 46) else 120 for b in range(256)))
        lines = b"\r\n".join(noise[i:i + 900] for i in range(0, size, 900))
        return b"From: a@example.test\r\nSubject: full %d\r\n\r\n%s\r\n" % (number, lines)

    def acknowledged(self, account, data):
        with self.lock:
            self.there[account][wire.digest(data)] += 1

    def no(self, text):
        with self.lock:
            self.refused += 1
            self.words[text] += 1

    def total(self):
        return sum(sum(c.values()) for c in self.there.values())


def offer(daemon, ledger, account, way, data=None):
    """Offer a message; was it taken? Any answer but the two right ones is an error."""
    data = data or ledger.message()
    if way == "append":
        with wire.Imap(daemon, account) as imap:
            try:
                imap.append(b"INBOX", data)
            except wire.Refused as e:
                if not re.match(r"t\d+ NO \[(UNAVAILABLE|OVERQUOTA)\]", str(e)):
                    raise
                ledger.no("NO [%s]" % str(e).split("[")[1].split("]")[0])
                return False
    else:
        with wire.Smtp(daemon, way) as conn:
            try:
                reply, = conn.deliver([account.encode()], data)
            except wire.Refused as e:
                reply = str(e).encode()
        if not reply.startswith(b"250"):
            wire.equal(reply[:9], b"452 4.3.1", "reply by %s" % way)
            ledger.no("452 4.3.1 by %s" % way)
            return False
    ledger.acknowledged(account, data)
    return True


def fill(daemon, ledger, problems):
    """Four clients fill the disk until each is refused ten times in a row."""
    def one(account, ways):
        try:
            in_a_row = 0
            for i in range(4000):
                in_a_row = 0 if offer(daemon, ledger, account, ways[i % len(ways)]) else in_a_row + 1
                if in_a_row == 10:
                    return
            problems.append("%s: never refused" % account)
        except Exception as e:  # shown by the caller
            problems.append("%s: %s: %s" % (account, type(e).__name__, e))
    ways = (["lmtp"], ["append"], ["smtp"], ["lmtp", "append", "smtp"])
    threads = [threading.Thread(target=one, args=(a, w), daemon=True) for a, w in zip(ACCOUNTS, ways)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)


def check_all(daemon, ledger):
    """Everything acknowledged is there, byte for byte, and nothing else; by IMAP and by POP3."""
    for account in ACCOUNTS:
        have = collections.Counter()
        with wire.Imap(daemon, account) as imap:
            imap.command(b"EXAMINE INBOX")
            for _, _, data in imap.bodies():
                have[wire.digest(untraced(data))] += 1
        wire.equal(sorted((have - ledger.there[account]).items()), [],
                   "%s: stored without being acknowledged" % account)
        wire.equal(sorted((ledger.there[account] - have).items()), [], "%s: acknowledged and gone" % account)
    with wire.Pop3(daemon, ACCOUNTS[0]) as pop:
        have = collections.Counter(wire.digest(untraced(pop.retr(i))) for i in range(1, pop.count() + 1))
        pop.ask(b"QUIT")
    wire.equal(have == ledger.there[ACCOUNTS[0]], True, "by POP3: the same messages")


def untraced(data):
    found = wire.TRACE.match(data)
    return data[found.end():] if found else data


def small_changes(daemon, ledger, rounds, expunge):
    """What a full disk must not prevent: flags, expunging, reading."""
    account = ACCOUNTS[1]
    with wire.Imap(daemon, account) as imap:
        imap.command(b"SELECT INBOX")
        for i in range(rounds):
            imap.command(b"STORE 1:* %sFLAGS.SILENT (\\Flagged)" % (b"-" if i % 2 else b"+"))
        imap.command(b"STORE 1:* +FLAGS.SILENT (\\Flagged)")
        for _, flags, _ in imap.bodies(b"1:5", b"UID FLAGS BODY.PEEK[]"):
            wire.equal(b"\\Flagged" in flags, True, "\\Flagged")
        gone = {uid: wire.digest(untraced(data)) for uid, _, data in imap.bodies(b"1:*") if uid}
        gone = dict(sorted(gone.items())[:expunge])
        imap.command(b"UID STORE %s +FLAGS.SILENT (\\Deleted)" % b",".join(b"%d" % u for u in gone))
        imap.command(b"EXPUNGE")
        for d in gone.values():
            ledger.there[account][d] -= 1
        ledger.there[account] = +ledger.there[account]
    with wire.Pop3(daemon, ACCOUNTS[2]) as pop:
        seen = wire.digest(untraced(pop.retr(1)))
        pop.ask(b"DELE 1")
        pop.ask(b"QUIT")
    ledger.there[ACCOUNTS[2]][seen] -= 1
    ledger.there[ACCOUNTS[2]] = +ledger.there[ACCOUNTS[2]]


def change_until_refused(daemon):
    """Flags, until even those are refused. How many changes were taken?"""
    taken, batch = 0, 2000
    with wire.Imap(daemon, ACCOUNTS[1]) as imap:
        imap.command(b"SELECT INBOX")
        for _ in range(100):
            imap.send(b"".join(b"s STORE 1 %sFLAGS.SILENT (\\Answered)\r\n" %
                               (b"-" if i % 2 else b"+") for i in range(batch)))
            answers = [imap.line() for _ in range(batch)]
            taken += sum(a.startswith(b"s OK") for a in answers)
            no = [a for a in answers if not a.startswith(b"s OK")]
            if no:
                wire.equal({a[:18] for a in no}, {b"s NO [UNAVAILABLE]"}, "how a flag is refused")
                return taken
    return taken


def log_position(daemon):
    return json.loads(daemon.tambo("--json", "stat").stdout)["shards"][0]["position"]


def free_kib(path):
    s = os.statvfs(path)
    return s.f_bavail * s.f_frsize // 1024


def take_the_rest(path):
    """Write until not one block is left."""
    with open(path, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError as e:
            if e.errno != errno.ENOSPC:
                raise


def large():
    """6 MB, more than a segment."""
    return b"Subject: large\r\n\r\n" + os.urandom(3 * MIB).hex().encode() + b"\r\n"


def still_full(daemon, ledger):
    """Large mail is refused in every way."""
    for way in ("lmtp", "smtp", "append"):
        if offer(daemon, ledger, ACCOUNTS[3], way, large()):
            raise AssertionError("%s took a large message although the disk is full" % way)


def run(daemon, checks, ledger, mount, filler, size_mib):
    with checks.step("filled: mail is refused with 452 4.3.1 and NO [UNAVAILABLE]"):
        problems = []
        fill(daemon, ledger, problems)
        wire.equal(problems, [], "problems")
        print("     %d messages taken, %d refused (%s); %d KiB free" % (
            ledger.total(), ledger.refused, dict(ledger.words), free_kib(mount)))
        wire.equal(len([w for w in ledger.words if w.startswith("452")]), 2, "kinds of 452")
        wire.equal(len([w for w in ledger.words if w.startswith("NO")]) > 0, True, "NO by IMAP")
        used = sum(f.stat().st_blocks * 512 for f in os.scandir(os.path.join(mount, "d", "store", "shard-00", "log")))
        print("     %d MiB of log on a disk of %d MiB with %d MiB of other files" % (used // MIB, size_mib, FILLER_MIB))
        wire.equal(used > (size_mib - FILLER_MIB) * MIB // 2, True, "most of the disk is used for mail")
        refused_at = log_position(daemon)
    with checks.step("another program takes what is left: everything acknowledged is there, nothing else"):
        take_the_rest(filler + "2")
        print("     %d KiB free" % free_kib(mount))
        check_all(daemon, ledger)
    with checks.step("full: flags and expunging go on"):
        small_changes(daemon, ledger, 50, 5)
        check_all(daemon, ledger)
    for i in range(5):
        with checks.step("full: SIGKILL and restart, %d" % (i + 1)):
            daemon.kill()
            begin = time.monotonic()
            daemon.start()
            print("     ready after %.2f s, %d KiB free" % (time.monotonic() - begin, free_kib(mount)))
            check_all(daemon, ledger)
            small_changes(daemon, ledger, 10, 2)
            check_all(daemon, ledger)
            still_full(daemon, ledger)
    with checks.step("full to the last byte: flags until even those are refused; restarts"):
        taken = change_until_refused(daemon)
        kept = log_position(daemon) - refused_at
        print("     %d more changes taken, %d KiB of log since mail was refused" % (taken, kept // 1024))
        wire.equal(kept >= min(size_mib * MIB // 100, 8 * MIB), True, "1 % of the disk or 8 MiB kept for small changes")
        check_all(daemon, ledger)
        for end in (daemon.kill, daemon.stop, daemon.kill):
            end()
            daemon.start()
            check_all(daemon, ledger)
            change_until_refused(daemon)
    with checks.step("full: SIGTERM and restart"):
        wire.equal(daemon.stop(), 0, "exit code")
        daemon.start()
        check_all(daemon, ledger)
    with checks.step("space is freed: service returns by itself"):
        still_full(daemon, ledger)
        os.unlink(filler)
        os.unlink(filler + "2")
        begin = time.monotonic()
        while not offer(daemon, ledger, ACCOUNTS[0], "lmtp", large()):
            if time.monotonic() - begin > RETURN_S:
                raise AssertionError("mail is still refused %d s after space was freed" % RETURN_S)
            time.sleep(0.1)
        print("     after %.1f s" % (time.monotonic() - begin))
        for way in ("lmtp", "smtp", "append"):
            for _ in range(5):
                wire.equal(offer(daemon, ledger, ACCOUNTS[3], way), True, "taken by %s" % way)
        check_all(daemon, ledger)
    with checks.step("filled again, SIGKILL while filling: what was acknowledged is there"):
        problems = []
        thread = threading.Thread(target=fill, args=(daemon, ledger, problems), daemon=True)
        thread.start()
        thread.join(300)
        wire.equal(problems, [], "problems")
        daemon.kill()
        daemon.start()
        check_all(daemon, ledger)
        print("     %d messages" % ledger.total())
    with checks.step("the end: it stops and starts cleanly"):
        wire.equal(daemon.stop(), 0, "exit code")
        daemon.start()
        check_all(daemon, ledger)
        wire.equal(daemon.stop(), 0, "exit code")


def make_disk(folder, size_mib):
    """A mounted file system, or the reason why not."""
    image, mount = os.path.join(folder, "image"), os.path.join(folder, "disk")
    os.mkdir(mount)
    with open(image, "wb") as f:
        f.truncate(size_mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["mount", "-o", "loop", image, mount], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return mount, done.stdout.decode("utf-8", "replace").strip() if done.returncode else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=80, help="MiB of the disk")
    wire.arguments(parser)
    args = parser.parse_args()
    checks, ledger = wire.Checks(args.verbose), Ledger()
    if os.geteuid() != 0:
        checks.skip("full disk: only root can mount a disk")
        return checks.finish()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = tempfile.mkdtemp(prefix="tambo-full-")
    mounted = False
    try:
        mount, why = make_disk(folder, args.size)
        if why is not None:
            checks.skip("full disk: mounting is not allowed here (%s)" % why)
            return checks.finish()
        mounted = True
        filler = os.path.join(mount, "filler")
        with open(filler, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, FILLER_MIB * MIB)
        daemon = Daemon(build=args.build, io=args.io, accounts=ACCOUNTS, directory=mount,
                        config={"checkpoint_ms": "500"},
                        init=["--shards", "1", "--segment-size", "4M"])
        daemon.log_path = os.path.join(folder, "tambod.log")
        with daemon:
            run(daemon, checks, ledger, mount, filler, args.size)
        if checks.failed:
            with open(daemon.log_path, encoding="utf-8", errors="replace") as f:
                told = [line for line in f if not re.search(r"^level=info (?!session end .* cause=(?!eof|done))", line)]
            print("".join(told[-30:]))
    finally:
        if mounted:
            subprocess.run(["umount", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
