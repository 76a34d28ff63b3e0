#!/usr/bin/env python3
"""Stores that rebuild-index refuses: the index and its copies are gone or rotten, and early segments were collected, or
lost with the mail in them. rebuild-index --salvage makes of it what is left.

    test_salvage.py [--io auto] [--build DIR] [--seed N] [--kills N]

Copies made by COPY are told by its record and the index alone: they are lost where both are gone. All else that is
left must be there byte for byte, with its flags, under its UID, in its mailbox or in one called Recovered-N;
no UIDVALIDITY may come with other UIDs than it had; tambo check finds the result clean and it takes the next message.
Killed with SIGKILL at any moment, a salvage can be begun again. Last line: "N passed, M failed".
"""
import argparse
import glob
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import nasty  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

SIZE, MESSAGES = 300 << 10, 64  # some 19 MB: at least four segments of 4 MiB
BOXES = [b"INBOX", b"Work", b"Work/Deep", b"Sent"]
PAGE = 4096


def store(d):
    return os.path.join(d.dir, "d", "store")


def message(number):
    head = b"From: a@example.test\r\nSubject: number %d\r\n\r\n" % number
    return head + nasty.noise(random.Random(number), SIZE if number % 3 else 2000)


def fill(d, first):
    """Messages all over the place, most of which go again, so that their segments are collected."""
    with wire.Imap(d, "ann") as c:
        for box in BOXES:
            c.command(b"SELECT %s" % box)
            for i in range(first, first + MESSAGES // 4):
                uid = c.append(box, message(i))
                if i % 4 == 0:
                    c.command(b"UID STORE %d +FLAGS.SILENT (\\Flagged $Kept)" % uid)
                elif i % 4 != 1 or i % 8 == 1:
                    c.command(b"UID STORE %d +FLAGS.SILENT (\\Deleted)" % uid)
            first += MESSAGES // 4
            c.command(b"EXPUNGE")
    return first


def make(d):
    with wire.Imap(d, "ann") as c:
        c.command(b"CREATE Work")
        c.command(b"CREATE Work/Deep")
    n = fill(d, 0)
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        c.command(b"COPY 1:* Work")
        c.command(b"SELECT Work")
        copies = {uid for uid, _, _ in c.bodies()} - {uid for uid in range(MESSAGES // 4 + 1)}
    n = fill(d, n)
    d.tambo("gc", "--all")
    with wire.Imap(d, "ann") as c:
        for box in BOXES:  # behind everything that was collected
            c.command(b"SELECT %s" % box)
            c.append(box, message(n))
            c.command(b"STORE 1 +FLAGS (\\Answered)")
    return copies


def lines(answer):
    untagged, tagged = answer
    return [parts[0] for parts in untagged] + [tagged]


def boxes(d, name="ann"):
    """name -> (UIDVALIDITY, {uid: (flags, digest)})."""
    out = {}
    with wire.Imap(d, name) as c:
        for line in lines(c.command(b'LIST "" *')):
            found = re.match(rb'\* LIST \([^)]*\) "/" "?([^"]+)"?$', line)
            if not found:
                continue
            said = b" ".join(lines(c.command(b'EXAMINE "%s"' % found.group(1))))
            valid = int(re.search(rb"UIDVALIDITY (\d+)", said).group(1))
            out[found.group(1).decode()] = (valid, {
                uid: (frozenset(f for f in flags if f != b"\\Recent"), wire.digest(body))
                for uid, flags, body in c.bodies()})
    return out


def drop(d, *patterns):
    for pattern in patterns:
        for path in glob.glob(os.path.join(store(d), pattern)):
            os.unlink(path)


def rot(d):
    """One bit in the last entry of every leaf page of every index, and in every copy of one."""
    for path in glob.glob(os.path.join(store(d), "shard-*", "index.mdb")):
        with open(path, "r+b") as f:
            data = bytearray(f.read())
            for at in range(2 * PAGE, len(data) - PAGE + 1, PAGE):
                number, _, flags = struct.unpack_from("<QHH", data, at)
                if flags == 2 and number == at // PAGE:
                    data[at + PAGE - 1] ^= 1
            f.seek(0)
            f.write(data)
    for path in glob.glob(os.path.join(store(d), "shard-*", "copy-?")):
        with open(path, "r+b") as f:
            f.seek(PAGE + 100)
            byte = f.read(1)
            f.seek(PAGE + 100)
            f.write(bytes([byte[0] ^ 1]))


def command(d):
    return [os.path.join(d.build, "tambo"), "-c", d.conf, "--json", "rebuild-index", "--salvage"]


def salvage(d, kills, rng):
    """To its end, after so many that were killed; what it says."""
    took = 0.3
    for _ in range(kills):
        begun = time.monotonic()
        with subprocess.Popen(command(d), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
            try:
                p.wait(rng.random() * took * 1.2)
                took = max(0.05, time.monotonic() - begun)
            except subprocess.TimeoutExpired:
                p.kill()
    done = d.tambo("--json", "rebuild-index", "--salvage", check=False)
    wire.equal(done.returncode, 0, done.stderr.decode()[-500:])
    return json.loads(done.stdout.splitlines()[-1])


def account(d):
    """Whatever ann is called now; her password anew."""
    said = [json.loads(line) for line in d.tambo("--json", "account", "list").stdout.splitlines()]
    names = [o["account"] for o in said if o.get("account") not in (None, "postmaster")]
    name = "ann" if "ann" in names else names[0]  # postmaster's name may be gone too
    d.tambo("account", "passwd", name, "--password-stdin", stdin=b"secret\n")
    return name


def compare(want, have, may_lack=False, copies=()):
    """Every message of `want` under its UID in one mailbox; the same UIDVALIDITY only with the same name or number."""
    kept = 0
    for box, (valid, rows) in want.items():
        homes = [b for b, (v, r) in have.items() if b == box or (b.startswith("Recovered") and set(r) & set(rows))]
        found = {}
        for home in homes:
            found.update({u: x for u, x in have[home][1].items() if rows.get(u, (0, 0))[1] == x[1]})
        lacking = {u for u in rows if u not in found and not (box == "Work" and u in copies)}
        if lacking and not may_lack:
            raise AssertionError("%s: UIDs %s are nowhere, in %s" % (box, sorted(lacking), homes))
        wrong = {u: (rows[u][0], found[u][0]) for u in found if rows[u][0] != found[u][0]}
        if not may_lack:
            wire.equal(wrong, {}, "%s: flags" % box)
        for home in have:  # the old UIDVALIDITY promises that no UID means another message
            if have[home][0] == valid and home in homes:
                for uid, x in have[home][1].items():
                    if uid in rows:
                        wire.equal(x[1], rows[uid][1], "%s: UID %d" % (home, uid))
        kept += any(have[h][0] == valid for h in homes)
    return kept


def afterwards(d, want, valid_max, may_lack=False, copies=()):
    d.start()
    name = account(d)
    have = boxes(d, name)
    kept = compare(want, have, may_lack, copies)
    for box, (valid, _) in have.items():
        if valid not in {v for v, _ in want.values()} and valid <= valid_max:
            raise AssertionError("%s: UIDVALIDITY %d is new and not above %d" % (box, valid, valid_max))
    with wire.Imap(d, name) as c:
        uid = c.append(b"INBOX", message(7))
    before = max([0] + list(want["INBOX"][1]))
    wire.equal(uid > before, True, "UID %d after %d" % (uid, before))
    d.stop()
    wire.equal(d.tambo("check", check=False).returncode, 0, "tambo check")
    return kept, len(have)


def run(d, checks, args):
    rng = random.Random(args.seed)
    base = store(d) + ".base"
    with checks.step("a store whose early segments were collected"):
        copies = make(d)
        want = boxes(d)
        valid_max = max(v for v, _ in want.values())
        d.stop()
        segments = sorted(glob.glob(os.path.join(store(d), "shard-*", "log", "*.seg")))
        wire.equal(os.path.join(store(d), "shard-00", "log", "00000001.seg") in segments, False, "segment 1")
        os.rename(store(d), base)
        print("     %d messages in %d mailboxes, %d segments" % (sum(len(r) for _, r in want.values()), len(want),
                                                                len(segments)))

    def again():
        if d.process is not None and d.process.poll() is None:
            d.stop()  # a step failed
        shutil.rmtree(store(d), ignore_errors=True)
        shutil.copytree(base, store(d))

    with checks.step("an index that is whole is only made again"):
        again()
        wire.equal(salvage(d, 0, rng)["shards"], 0, "shards salvaged")
        afterwards(d, want, valid_max)
    with checks.step("rotten index, no whole copy: names and UIDVALIDITY are kept"):
        again()
        rot(d)
        wire.equal(d.tambo("rebuild-index", check=False).returncode, 65, "without --salvage")
        told = salvage(d, 0, rng)
        kept, _ = afterwards(d, want, valid_max)
        print("     %d of %d UIDVALIDITYs kept, %s" % (kept, len(want), told))
        wire.equal((told["shards"], kept >= len(want) - 2), (1, True), "shards, UIDVALIDITYs")
    with checks.step("no index at all: every message is there, and no UIDVALIDITY is guessed"):
        again()
        drop(d, "shard-*/index.mdb*", "shard-*/copy-*", "shard-*/CKPT")
        wire.equal(d.tambo("rebuild-index", check=False).returncode, 65, "without --salvage")
        told = salvage(d, 0, rng)
        kept, _ = afterwards(d, want, valid_max, copies=copies)
        print("     %d UIDVALIDITYs kept, %s" % (kept, told))
        wire.equal(told["messages_brought"] > 0, True, "messages told by GC alone")
    with checks.step("killed again and again"):
        again()
        drop(d, "shard-*/index.mdb*", "shard-*/copy-*")
        salvage(d, args.kills, rng)
        afterwards(d, want, valid_max, copies=copies)
    for i in range(len(segments)):
        with checks.step("segment %d of %d is lost too" % (i + 1, len(segments))):
            again()
            rot(d)
            os.unlink(segments[i])
            salvage(d, 1, rng)
            afterwards(d, want, valid_max, may_lack=True)
    shutil.rmtree(base)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=8)
    args = parser.parse_args()
    print("seed %d" % args.seed)
    checks = wire.Checks(args.verbose)
    config = {"trash_days": "0", "gc_rate": "64M"}
    with Daemon(build=args.build, io=args.io, accounts=["ann"], config=config,
                init=("--shards", "1", "--segment-size", "4M")) as d:
        run(d, checks, args)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
