#!/usr/bin/env python3
"""Backups under load and kill -9, and the way back: the newest state, any earlier moment, one account, one message.

    test_backup.py [--rounds 1] [--seed N] [--io auto] [--build DIR] [--gc [--no-hold]] [--expect-loss]

Sixteen clients with a ledger (load.py) change mail while backups are made into one folder, at a rate that lets us kill
the daemon, or the backup's own process, in the middle. Then, each round:

  a restore of the newest backup is the ledger's state, message for message, with the same UIDs and UIDVALIDITY;
  a restore to a moment when nothing changed is what the ledger said then; a restore to a moment in the middle of the
  load has all that was acknowledged before it and nothing that was begun after it; UIDNEXT and HIGHESTMODSEQ lie far
  ahead; `tambo check` finds nothing; a changed byte in any file is named and refused; a missing stretch of the log is
  refused for the moments in it, and only for those; --keep removes what no kept backup needs, and nothing else.

--gc: deleted mail is let go of at once, so that segments are freed; but none before a backup has it, so every moment
can be restored all the same. --no-hold: without that (backup_horizon_hours 0): moments in between may be refused.
--expect-loss: the build does not compare digests (make SABOTAGE=backupverify): the test must notice. Prints the seed.
Last line: "N passed, M failed".
"""
import argparse
import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]
import load  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon, set_config  # noqa: E402

AXIS_S = 1.2  # the log's time axis has steps of a second
FAR = 1 << 19
SEGMENT = 4 << 20
BEHIND = 100  # operations behind the last backup of a burst
FILLERS = ["filler%d" % i for i in range(8)]


class TimedBox(load.Box):
    """A mailbox that remembers when each change was begun, and when it was acknowledged."""

    def __init__(self):
        super().__init__()
        self.events = []  # [token, difference, begun, acknowledged or None]

    def under_way(self, token, difference):
        super().under_way(token, difference)
        with self.lock:
            self.events.append([token, difference, time.time(), None])

    def settled(self, token, difference, done):
        super().settled(token, difference, done)
        with self.lock:
            for e in reversed(self.events):
                if e[0] == token and e[1] == difference and e[3] is None:
                    e[3] = time.time()
                    break


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def note(self, name, problems):
        if problems:
            self.failed += 1
            print("FAIL %s" % name)
            for p in problems[:12]:
                print("    %s" % p)
        else:
            self.passed += 1


class Backup(threading.Thread):
    """tambo backup in a process of its own."""

    def __init__(self, daemon, dest, *options):
        super().__init__(daemon=True)
        command = [os.path.join(daemon.build, "tambo"), "-c", daemon.conf, "--json", "backup", dest, *options]
        self.begun = time.time()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.start()

    def run(self):
        self.out, self.err = self.process.communicate()
        self.ended = time.time()

    def finish(self):
        """Wait; the answer, or None when it did not come to its end."""
        self.join(120)
        return json.loads(self.out) if self.process.returncode == 0 else None


def snapshot(ledger):
    """What the ledger knows for sure, when nothing is under way."""
    return {k: (dict(b.live), b.uidvalidity, b.uidnext) for k, b in ledger.box.items()}


def use_store(daemon, path):
    with open(daemon.conf, encoding="utf-8") as f:
        text = f.read()
    with open(daemon.conf, "w", encoding="utf-8") as f:
        f.write(set_config(text, "store", path))


def look(imap, name):
    """uid -> token, UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ of a mailbox as it is served."""
    untagged, _ = imap.command("SELECT %s" % name)
    text = b"\n".join(p[0] for p in untagged)
    number = {k: int(m.group(1)) for k in ("UIDVALIDITY", "UIDNEXT", "HIGHESTMODSEQ")
              if (m := re.search(k.encode() + rb" (\d+)", text))}
    return load.read_tokens(imap, TimedBox()), number


def restored_problems(daemon, store, judge):
    """Serve a restored store and let judge(account, mailbox, live, numbers, imap) say what is wrong."""
    problems = []
    original = os.path.join(daemon.dir, "d", "store")
    use_store(daemon, store)
    try:
        done = daemon.tambo("check", check=False)
        if done.returncode != 0:
            problems.append("tambo check: %s" % done.stdout.decode()[-600:])
        daemon.start()
        for account in ["u%d" % i for i in range(load.CLIENTS)]:
            imap = load.Imap(daemon, account)
            for name in load.MAILBOXES:
                live, number = look(imap, name)
                problems += judge(account, name, live, number, imap)
            imap.close()
        daemon.stop()
    finally:
        daemon.kill()
        use_store(daemon, original)
    return problems


def exactly(wanted, whole_bytes):
    """A judge: every mailbox is what the snapshot says, with its UIDs; what comes next lies far ahead."""
    def judge(account, name, live, number, imap):
        want, uidvalidity, uidnext = wanted[(account, name)]
        where, problems = "%s/%s" % (account, name), []
        if live != want:
            extra, missing = set(live.items()) - set(want.items()), set(want.items()) - set(live.items())
            problems.append("%s: too many %s, missing %s" % (where, sorted(extra)[:5], sorted(missing)[:5]))
        if uidvalidity is not None and number["UIDVALIDITY"] != uidvalidity:
            problems.append("%s: UIDVALIDITY was %d and is %d" % (where, uidvalidity, number["UIDVALIDITY"]))
        if number["UIDNEXT"] < uidnext + FAR:
            problems.append("%s: UIDNEXT was %d and is only %d" % (where, uidnext, number["UIDNEXT"]))
        if number.get("HIGHESTMODSEQ", 0) < 1 << 32:
            problems.append("%s: HIGHESTMODSEQ is only %s" % (where, number.get("HIGHESTMODSEQ")))
        if live:
            changed, _ = imap.command("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)" % (1 << 31))
            if len([p for p in changed if b" FETCH " in p[0]]) != len(live):
                problems.append("%s: not every message counts as changed" % where)
        if whole_bytes and live == want:
            load._check_bytes(imap, where, set(live), live, problems)
        return problems
    return judge


def between(ledger, moment_s):
    """A judge: all that was acknowledged before the moment, nothing that was begun well after it."""
    def judge(account, name, live, number, imap):
        box, where, problems = ledger.box[(account, name)], "%s/%s" % (account, name), []
        low, high, have = {}, {}, {}
        for token in live.values():
            have[token] = have.get(token, 0) + 1
        for token, difference, begun, acknowledged in box.events:
            sure = acknowledged is not None and acknowledged < moment_s - 0.002
            if sure or begun < moment_s + AXIS_S:
                low[token] = low.get(token, 0) + (difference if sure else min(difference, 0))
                high[token] = high.get(token, 0) + (difference if sure else max(difference, 0))
        for token in set(low) | set(high) | set(have):
            if not low.get(token, 0) <= have.get(token, 0) <= high.get(token, 0):
                problems.append("%s: %s is there %d times, not %d to %d"
                                % (where, token, have.get(token, 0), low.get(token, 0), high.get(token, 0)))
        for uid, token in live.items():
            if box.uid.get(uid, token) != token:
                problems.append("%s: UID %d is %s, was %s" % (where, uid, token, box.uid[uid]))
        return problems
    return judge


class Test:
    def __init__(self, args):
        self.args, self.rng, self.checks = args, random.Random(args.seed), Checks()
        self.ledger = load.Ledger(args.seed)
        for key in self.ledger.box:
            self.ledger.box[key] = TimedBox()
        self.gc = args.gc  # space is given back at once
        self.gaps = args.no_hold  # log between two backups may be gone
        config = {"checkpoint_ms": "300", "checkpoint_log_bytes": "1M", "trash_days": "0" if self.gc else "1",
                  "index_copy_log_bytes": "1M", "backup_horizon_hours": "0" if self.gaps else "26"}
        self.daemon = Daemon(build=args.build, io=args.io, config=config, accounts=self.ledger.accounts,
                             init=["--segment-size", "4M", "--shards", "2"])
        self.moments = []  # (time, snapshot)
        self.number = 0

    def restore(self, dest, *options):
        """A new store out of the folder; (its path, the finished process)."""
        self.number += 1
        to = os.path.join(self.daemon.dir, "restored-%d" % self.number)
        done = self.daemon.tambo("restore", dest, "--to", to, *options, check=False)
        return to, done

    def collected(self):
        """Has GC freed a segment? Then what it held of the log may be in no backup."""
        store = os.path.join(self.daemon.dir, "d", "store")
        return any(not os.path.exists(os.path.join(store, shard, "log", "00000001.seg"))
                   for shard in ("shard-00", "shard-01"))

    def judge_restore(self, name, judge, *options):
        to, done = self.restore(self.dest, *options)
        if self.gaps and done.returncode == 69 and self.collected() and b"is not whole" in done.stderr:
            self.checks.note(name + ": not covered, and refused", [])
            return
        if done.returncode != 0:
            self.checks.note(name, ["exit %d: %s" % (done.returncode, done.stderr.decode())])
            return
        self.checks.note(name, restored_problems(self.daemon, to, judge))
        shutil.rmtree(to)

    def quiet_moment(self):
        """Nothing changes: what the ledger knows is what is there, now and on the log's axis."""
        problems = load.check(self.daemon, self.ledger)
        self.checks.note("the store after the load", problems)
        time.sleep(AXIS_S)
        self.moments.append((time.time(), snapshot(self.ledger)))
        time.sleep(AXIS_S)

    def burst(self, number):
        """Load, backups and kills; moments at which backups were taken."""
        clients = load.run_clients(self.daemon, self.ledger, "%d-%d" % (self.args.seed, number))
        made, kills = [], 0
        for turn in range(5):
            backup = Backup(self.daemon, self.dest, "--rate", "8M")
            what = self.rng.choice(["let", "let", "kill backup", "kill daemon"]) if turn else "kill daemon"
            if what != "let":
                time.sleep(self.rng.uniform(0.02, 0.5))
            if what == "kill backup":
                backup.process.kill()
            if what == "kill daemon":
                kills += 1
                self.daemon.kill()
                backup.join(60)
                for c in clients:
                    c.join(60)
                self.daemon.start()
                self.checks.note("round %d: the store after kill -9" % number, load.check(self.daemon, self.ledger))
                clients = load.run_clients(self.daemon, self.ledger, "%d-%d-%d" % (self.args.seed, number, turn))
            answer = backup.finish()
            if answer:
                made.append(answer["time_ms"] / 1000.0)
            if self.gc:
                self.daemon.tambo("gc")
        self.ledger.go_on(BEHIND)
        self.daemon.kill()
        for c in clients:
            c.join(60)
        self.daemon.start()
        return made

    def manifest(self, back):
        """The newest backup's list of files, or that of one before it, as words; the ends of its shards' logs."""
        runs = sorted(f for f in os.listdir(self.dest) if f.startswith("manifest-"))
        with open(os.path.join(self.dest, runs[-1 - back]), encoding="ascii") as f:
            lines = [tuple(line.split()) for line in f]
        return {w for w in lines if w[0] in ("index", "log")}, {w[1]: int(w[2]) for w in lines if w[0] == "shard"}

    def copied_again(self):
        """What the newest backup copied though the one before it had it. GC may log, and free, something in between."""
        (old, ends), (new, _) = self.manifest(1), self.manifest(0)
        log = {w for w in new - old if w[0] == "log" and int(w[2]) * SEGMENT + int(w[3]) < ends[w[1]]}
        segments = [{w[1:3] for w in files if w[0] == "log"} for files in (old, new)]
        freed = {shard for shard, _ in segments[0] - segments[1]}
        return [" ".join(w) for w in log | {w for w in new - old if w[0] == "index" and w[1] not in freed}]

    def damage(self):
        """A byte changed anywhere in what the newest backup needs is named."""
        runs = sorted(f for f in os.listdir(self.dest) if f.startswith("manifest-"))
        with open(os.path.join(self.dest, runs[-1]), encoding="ascii") as f:
            lines = [line.split() for line in f]
        names = []
        for words in lines:
            if words[0] == "log":
                names.append("shard-%02x/log/%08x-%08x-%08x" % tuple(int(w) for w in words[1:5]))
            if words[0] == "index":
                names.append("shard-%02x/index-%016x" % (int(words[1]), int(words[3])))
        problems, tries = [], 6
        for name in [runs[-1]] + self.rng.sample(names, min(tries, len(names))):
            path = os.path.join(self.dest, name)
            at = self.rng.randrange(os.path.getsize(path))
            self.flip(path, at)
            to, done = self.restore(self.dest)
            self.flip(path, at)
            said = done.stderr.decode()
            if done.returncode == 0 or os.path.exists(to):
                problems.append("%s, byte %d: restored as if nothing were wrong" % (name, at))
            elif name not in said:
                problems.append("%s, byte %d: not named: %s" % (name, at, said))
            for path in (to, to + ".restoring"):
                shutil.rmtree(path, ignore_errors=True)
        self.checks.note("a changed byte is found", problems)

    @staticmethod
    def flip(path, at):
        with open(path, "r+b") as f:
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 0x20]))

    def gap(self):
        """Without a stretch of the log, the moments in it are refused."""
        logs = os.path.join(self.dest, "shard-00", "log")
        with open(os.path.join(self.dest, max(f for f in os.listdir(self.dest) if f[0] == "m")), encoding="ascii") as f:
            parts = [tuple(int(w) for w in line.split()[2:5]) for line in f if line.startswith("log 0 ")]
        hidden = "%08x-%08x-%08x" % max(parts)
        os.rename(os.path.join(logs, hidden), os.path.join(self.dest, "hidden"))
        to, done = self.restore(self.dest)
        os.rename(os.path.join(self.dest, "hidden"), os.path.join(logs, hidden))
        said = done.stderr.decode()
        problems = []
        if done.returncode == 0 or hidden not in said or os.path.exists(to):
            problems.append("exit %d: %s" % (done.returncode, said))
        shutil.rmtree(to + ".restoring", ignore_errors=True)
        for when, text in ((int(time.time()) + 86400, "ends at"), (1000000000, "earliest")):
            _, done = self.restore(self.dest, "--at", str(when))
            if done.returncode == 0 or text not in done.stderr.decode():
                problems.append("--at %d: exit %d: %s" % (when, done.returncode, done.stderr.decode()))
        self.checks.note("what is not there is refused", problems)

    def outgrow(self, enough):
        """Mail to accounts of its own, at least one of them in each shard, until there is enough."""
        self.daemon.start()
        self.daemon.import_accounts(FILLERS)
        with wire.Smtp(self.daemon, "lmtp") as lmtp:
            for _ in range(1000):
                if enough():
                    break
                text = base64.encodebytes(self.rng.randbytes(75000)).replace(b"\n", b"\r\n")
                lmtp.deliver([name.encode() for name in FILLERS], b"Subject: filler\r\n\r\n" + text)
        self.daemon.stop()

    def damaged_source(self):
        """A damaged frame in an old segment: it is copied as it is and said; in a new one: refused."""
        logs, problems = os.path.join(self.daemon.dir, "d", "store", "shard-00", "log"), []

        def segments():
            return sorted(f for f in os.listdir(logs) if re.fullmatch(r"[0-9a-f]{8}\.seg", f))
        self.outgrow(lambda: len(segments()) >= 4)  # the first one is old then
        old = os.path.join(logs, segments()[0])
        fresh = os.path.join(self.daemon.dir, "fresh")
        self.flip(old, 70000)
        done = self.daemon.tambo("--json", "backup", fresh, check=False)
        self.flip(old, 70000)
        if self.gc and done.returncode == 74 and b"no valid frame" in done.stderr:
            pass  # the older segments were freed: this one is needed to replay
        elif done.returncode != 0 or json.loads(done.stdout)["damaged_segments"] != 1:
            problems.append("exit %d: %s" % (done.returncode, done.stdout.decode() + done.stderr.decode()))
        shutil.rmtree(fresh, ignore_errors=True)
        self.checks.note("a damaged segment is copied as it is, and counted", problems)

    def narrow(self):
        """One account; one mailbox; one message."""
        _, state = self.moments[-1]
        problems = []
        account, name = self.rng.choice([k for k, v in state.items() if v[0] and k[1] != "INBOX"])
        uid = self.rng.choice(sorted(state[(account, name)][0]))
        options = (("--account", account), ("--account", account, "--mailbox", name),
                   ("--account", account, "--mailbox", name, "--uid", str(uid)))
        for given in options:
            to, done = self.restore(self.dest, *given)
            if done.returncode != 0:
                problems.append("%s: %s" % (" ".join(given), done.stderr.decode()))
                continue
            want = {box: dict(state[(account, box)][0]) for box in load.MAILBOXES}
            if len(given) > 2:
                want = {box: live if box == name else {} for box, live in want.items()}
            if len(given) > 4:
                want[name] = {uid: want[name][uid]}
            problems += self.narrow_problems(to, account, want, " ".join(given))
            shutil.rmtree(to)
        _, done = self.restore(self.dest, "--account", account, "--mailbox", name, "--uid", "999999")
        if done.returncode == 0:
            problems.append("a message that is not there was restored")
        self.checks.note("one account, mailbox, message", problems)

    def narrow_problems(self, store, account, want, given):
        problems = []
        use_store(self.daemon, store)
        try:
            self.daemon.start()
            rows = self.daemon.tambo("--json", "account", "list").stdout.splitlines()
            names = [json.loads(row)["account"] for row in rows]
            if names != [account]:
                problems.append("%s: accounts are %s" % (given, names))
            imap = load.Imap(self.daemon, account)
            for box, live in want.items():
                try:
                    have, _ = look(imap, box)
                except load.Refused:  # the mailbox is gone
                    have = {}
                if have != live:
                    problems.append("%s: %s has %s, not %s" % (given, box, sorted(have)[:9], sorted(live)[:9]))
            imap.close()
            self.daemon.stop()
        finally:
            self.daemon.kill()
            use_store(self.daemon, os.path.join(self.daemon.dir, "d", "store"))
        return problems

    def keep(self):
        """--keep 1: one backup is left, whole, and the folder holds nothing else."""
        done = self.daemon.tambo("--json", "backup", self.dest, "--keep", "1")
        problems, answer = [], json.loads(done.stdout)
        runs = [f for f in os.listdir(self.dest) if f.startswith("manifest-")]
        if len(runs) != 1 or answer["removed_runs"] == 0:
            problems.append("manifests are %s, the answer %s" % (runs, answer))
        files = sum(len([f for f in files if f[0] in "0123456789i"]) for _, _, files in os.walk(self.dest))
        if files != answer["copied_files"] + answer["kept_files"]:
            problems.append("%d files are left: %s" % (files, answer))
        self.checks.note("--keep 1", problems)

    def round(self, number):
        made = self.burst(number)
        self.quiet_moment()
        first = self.moments[-2] if len(self.moments) > 1 else None
        self.daemon.tambo("backup", self.dest)
        self.daemon.tambo("backup", self.dest)
        self.checks.note("a second backup copies only what is new", self.copied_again())
        self.daemon.stop()
        self.judge_restore("round %d: the newest state" % number, exactly(self.moments[-1][1], True))
        if first:
            self.judge_restore("round %d: the state before the load" % number, exactly(first[1], False), "--at",
                               str(int(first[0])))
        for moment in self.rng.sample(made, min(2, len(made))):
            whole = int(moment)
            if first is None or whole > first[0]:
                self.judge_restore("round %d: a moment in the middle" % number, between(self.ledger, whole), "--at",
                                   str(whole))

    def run(self):
        self.dest = os.path.join(self.daemon.dir, "backup")
        with self.daemon:
            load.setup(self.daemon)
            self.quiet_moment()
            self.checks.note("the first backup", [] if Backup(self.daemon, self.dest).finish() else ["it failed"])
            for number in range(1, self.args.rounds + 1):
                self.round(number)
                self.damage()
                if number == 1:
                    self.gap()
                    self.narrow()
                    self.damaged_source()
                if number == self.args.rounds:
                    self.keep()
                    self.judge_restore("after --keep", exactly(self.moments[-1][1], False))
                self.daemon.start()
            if self.gc:
                self.daemon.tambo("gc")
                self.checks.note("segments were freed", [] if self.collected() else ["none was: nothing was tested"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("--gc", action="store_true")
    parser.add_argument("--no-hold", action="store_true")
    parser.add_argument("--expect-loss", action="store_true")
    args = parser.parse_args()
    test = Test(args)
    test.run()
    checks = test.checks
    print("seed %d: %d rounds, %d acknowledged operations" % (args.seed, args.rounds, test.ledger.acked))
    if args.expect_loss:
        print("%d passed, %d failed" % ((1, 0) if checks.failed else (0, 1)))
        return 0 if checks.failed else 1
    print("%d passed, %d failed" % (checks.passed, checks.failed))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
