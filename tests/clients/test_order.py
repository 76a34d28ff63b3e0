#!/usr/bin/env python3
"""SORT and THREAD of random mailboxes against the model of tests/lib/threads.py, which is RFC 5256 word for word.

Each round has a seed, printed when it fails; --seed N --rounds 1 runs it alone. Subjects, ids, references and dates are
drawn from few, so that loops, duplicates, missing parents and equal subjects are common.

Last line: "N passed, M failed".
"""
import argparse
import base64
import os
import random
import re
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import threads  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

ALGORITHMS = ("ORDEREDSUBJECT", "REFERENCES", "REFS")
KEYS = ("ARRIVAL", "CC", "DATE", "DISPLAYFROM", "DISPLAYTO", "FROM", "SIZE", "SUBJECT", "TO")
PIECES = ("re:", "Re: ", "RE :", "fw:", "Fwd: ", "FWD [x]:", "re[2]: ", "fwd", "[list]", "[a b] ", "[]", "[", "]",
          "[fwd: ", "(fwd)", " (FWD)", " ", "\t", "apple", "Apple", "pear", "äpfel", "Äpfel", "straße",
          "ı", "re", ":", "x")
WORDS = ("apple", "Apple", "äpfel", "Äpfel", "pear", "")
FIRST_S = 946684800  # 1 January 2000


def subject(rng):
    if rng.random() < 0.5:
        return rng.choice(("", "", "Re: ", "re: [x] ", "Fwd: ")) + rng.choice(WORDS) + rng.choice(("", "", " (fwd)"))
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(7)))


def encoded(rng, text):
    """A header value that decodes to text, as an encoded word where it must, or by chance."""
    if text.isascii() and (rng.random() < 0.8 or "=" in text):
        return text
    return "=?utf-8?b?%s?=" % base64.b64encode(text.encode()).decode()


def date_of(seconds, rng):
    zone = rng.choice((0, 0, 60, -480, 330))
    t = time.gmtime(seconds + zone * 60)
    return "%s %+03d%02d" % (time.strftime("%d %b %Y %H:%M:%S", t), int(zone / 60), abs(zone) % 60)


def make(rng, number, ids):
    """A message: what the model sees of it, and its bytes."""
    m = {"number": number, "arrival": FIRST_S + rng.randrange(60), "subject": subject(rng).strip(" \t")}
    m["date"] = None if rng.random() < 0.2 else FIRST_S + rng.randrange(60)
    m["id"] = rng.choice(ids) if rng.random() < 0.9 else ""
    m["refs"] = [rng.choice(ids) for _ in range(rng.randrange(1, 5))] if rng.random() < 0.5 else []
    m["reply_to"] = [rng.choice(ids) for _ in range(rng.randrange(1, 3))] if rng.random() < 0.4 else []
    head = ["X-Fill: " + "x" * rng.randrange(5)]
    for key, name in (("from_", "From"), ("to", "To"), ("cc", "Cc")):
        m[key] = "" if rng.random() < 0.2 else rng.choice(("ann@a.test", "Bob@b.test", "carl@a.test", "bob@a.test"))
        m[key.strip("_") + "_name"] = rng.choice(WORDS) if m[key] else ""
        if m[key]:
            head.append("%s: %s <%s>" % (name, encoded(rng, m[key.strip("_") + "_name"]), m[key]))
    if m["subject"]:
        head.append("Subject: " + encoded(rng, m["subject"]))
    if m["date"] is not None:
        head.append("Date: " + date_of(m["date"], rng))
    if m["id"]:
        head.append("Message-ID: <%s>" % m["id"])
    if m["refs"]:
        head.append("References: " + rng.choice((" ", "\r\n ", "")).join("<%s>" % x for x in m["refs"]))
    if m["reply_to"]:
        head.append("In-Reply-To: " + " ".join("<%s>" % x for x in m["reply_to"]))
    rng.shuffle(head)
    data = ("\r\n".join(head) + "\r\n\r\nbody\r\n").encode()
    m["size"] = len(data)
    return m, data


def one_line(c, command):
    """The one untagged response that answers; what stands behind its name."""
    untagged, _ = c.command(command)
    lines = [b"".join(parts).decode() for parts in untagged if re.match(rb"\* (SORT|THREAD)", parts[0])]
    wire.equal(len(lines), 1, "responses")
    return lines[0].partition(" ")[2].partition(" ")[2]


def some(rng, messages):
    """A search that finds some of them, and those."""
    if rng.random() < 0.6:
        return b"ALL", messages
    chosen = sorted(rng.sample([m["number"] for m in messages], rng.randrange(len(messages))))
    if not chosen:
        return b"NOT ALL", []
    return b"UID %s" % ",".join(map(str, chosen)).encode(), [m for m in messages if m["number"] in chosen]


def criteria(rng):
    return [(key, rng.random() < 0.4) for key in rng.sample(KEYS, rng.randrange(1, 4))]


def expand(text):
    """A sequence set to numbers."""
    out = []
    for piece in text.split(","):
        low, _, high = piece.partition(":")
        out += range(int(low), int(high or low) + 1)
    return out


def play(c, seed):
    rng = random.Random(seed)
    mailbox = b"m%d" % seed
    c.command(b"CREATE " + mailbox)
    ids = ["%d@x" % i for i in range(rng.randrange(2, 60))]
    messages = []
    for number in range(1, rng.randrange(2, 70)):
        m, data = make(rng, number, ids)
        when = time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(m["arrival"])).encode()
        c.command(b'APPEND %s "%s" ' % (mailbox, when), data)
        messages.append(m)
    c.command(b"SELECT " + mailbox)
    for algorithm in ALGORITHMS:
        key, found = some(rng, messages)
        have = one_line(c, b"THREAD %s UTF-8 %s" % (algorithm.encode(), key))
        wire.equal(have, threads.thread(found, algorithm), "seed %d %s %s" % (seed, algorithm, key))
    for _ in range(4):
        key, found = some(rng, messages)
        by = criteria(rng)
        program = " ".join(("REVERSE " if r else "") + k for k, r in by).encode()
        want = threads.sort(found, by)
        what = "seed %d %s %s" % (seed, program, key)
        wire.equal(one_line(c, b"SORT (%s) UTF-8 %s" % (program, key)), " ".join(map(str, want)), what)
        untagged, _ = c.command(b"UID SORT RETURN (ALL COUNT) (%s) UTF-8 %s" % (program, key))
        line = b"".join(untagged[-1]).decode()
        listed = re.search(r" ALL (\S+)", line)
        wire.equal((expand(listed.group(1)) if listed else [], int(re.search(r"COUNT (\d+)", line).group(1))),
                   (want, len(want)), what)


def worst_answer(d, user, stop, out):
    """The longest that a session of the same worker waited for NOOP until stop is set."""
    with wire.Imap(d, user) as c:
        out.append(0.0)
        while not stop.is_set():
            begin = time.monotonic()
            c.command(b"NOOP")
            out[0] = max(out[0], time.monotonic() - begin)
            time.sleep(0.002)


def watched(d, c, command):
    """Run a command; its answer, seconds, the worst NOOP meanwhile, and how far the daemon's memory rose, in MiB."""
    stop, worst = threading.Event(), []
    before = wire.memory_kib(d.process, "VmRSS")
    thread = threading.Thread(target=worst_answer, args=(d, "ann", stop, worst))
    wire.reset_peak(d.process)
    thread.start()
    try:
        begin = time.monotonic()
        answer = one_line(c, command)
        seconds = time.monotonic() - begin
    finally:
        stop.set()
        thread.join()
    return answer, seconds, worst[0], (wire.memory_kib(d.process) - before) / 1024


def big(d, c, checks, n):
    """One large mailbox, made by copying 500 messages onto themselves: right, in slices, in bounded memory."""
    rng = random.Random(n)
    ids = ["%d@x" % i for i in range(400)]
    made = [make(rng, number, ids) for number in range(1, 501)]
    c.command(b"CREATE big")
    for m, data in made:
        when = time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(m["arrival"])).encode()
        c.command(b'APPEND big "%s" ' % when, data)
    c.command(b"SELECT big")
    count = 500
    while count < n:
        c.command(b"COPY 1:%d big" % min(count, n - count))
        count += min(count, n - count)
    c.command(b"NOOP")
    dates = [threads.sent(m) for m, _ in made]
    bases = [threads.collate(threads.base_subject(m["subject"])[0]) for m, _ in made]
    keys = [(bases[i], -dates[i]) for i in range(500)]
    for command, key in ((b"SORT (SUBJECT REVERSE DATE) UTF-8 ALL", keys), (b"SORT (ARRIVAL) UTF-8 ALL", None),
                         (b"THREAD REFERENCES UTF-8 ALL", None)):
        with checks.step("%s of %d messages" % (command.decode(), count)):
            answer, seconds, worst, grown = watched(d, c, command)
            print("     %.2f s; worst NOOP beside it %.1f ms; %.0f MiB" % (seconds, worst * 1000, grown))
            numbers = [int(x) for x in re.findall(r"\d+", answer)]
            wire.equal(sorted(numbers) == list(range(1, count + 1)), True, "every message once")
            if grown > 64 + count * 500 / (1 << 20):
                raise AssertionError("%.0f MiB" % grown)
            if key:
                order = [(key[(x - 1) % 500], x) for x in numbers]
                wire.equal(order == sorted(order), True, "in order")


def progress(d, c, checks, n):
    """INPROGRESS (RFC 9585): between its slices a search says how far it is, and only upwards."""
    with checks.step("progress of a search of %d messages" % n):
        words = b" ".join(b"TEXT nowhere%d" % i for i in range(16))
        untagged, _ = c.command(b"SEARCH " + words)
        told = [re.fullmatch(rb'\* OK \[INPROGRESS \("t\d+" (\d+) (\d+)\)\] .*', x[0]) for x in untagged]
        steps = [(int(m.group(1)), int(m.group(2))) for m in told if m]
        if not steps:
            raise AssertionError("nothing was told")
        wire.equal(steps, sorted(steps), "steps")
        wire.equal({goal for _, goal in steps}, {n}, "goal")
        wire.equal(max(done for done, _ in steps) < n, True, "not done yet")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--big", type=int, default=16000, help="messages of the large mailbox")
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    print("seed %d, %d rounds" % (args.seed, args.rounds))
    config = {"imap_progress_s": "0s"}
    with Daemon(build=args.build, io=args.io, accounts=["ann"], config=config) as d, wire.Imap(d, "ann") as c:
        for seed in range(args.seed, args.seed + args.rounds):
            with checks.step("seed %d" % seed):
                play(c, seed)
        big(d, c, checks, args.big)
        progress(d, c, checks, args.big)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
