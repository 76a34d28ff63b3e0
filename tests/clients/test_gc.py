#!/usr/bin/env python3
"""tambo gc against whoever still needs a segment: it waits for a reader, passes a scrub by, names a holder that stays.

The index copies are made as the newest log needs them, so they never stand in the way for long. Nothing that was not
expunged changes by a byte.

Last line: "N passed, M failed".
"""
import argparse
import json
import os
import random
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import nasty  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

SIZE, MESSAGES = 700 << 10, 24  # some 17 MB: at least four segments of 4 MiB
SCRUB_S = (4 << 20) // (256 << 10)  # a scrub that nobody asked for takes so long for a segment


def message(name, number):
    head = b"From: a@example.test\r\nSubject: %s %d\r\n\r\n" % (name.encode(), number)
    return head + nasty.noise(random.Random("%s %d" % (name, number)), SIZE)


def fill(d, name):
    """Messages for ann, one in eight of which stays; what stays."""
    kept = []
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        for i in range(MESSAGES):
            text = message(name, i)
            uid = c.append(b"INBOX", text)
            if i % 8 == 0:
                kept.append(wire.digest(text))
            else:
                c.command(b"UID STORE %d +FLAGS.SILENT (\\Deleted)" % uid)
    return kept


def expunge(d):
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        c.command(b"EXPUNGE")


def check_inbox(d, kept):
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        wire.equal([wire.digest(data) for _, _, data in c.bodies()], kept, "messages")


class Gc(threading.Thread):
    """tambo gc --json, under way."""

    def __init__(self, d):
        super().__init__()
        self.d = d
        self.begun = time.monotonic()
        self.start()

    def run(self):
        done = self.d.tambo("--json", "gc", check=False)
        self.took = time.monotonic() - self.begun
        self.result = json.loads(done.stdout)


def collect(d):
    gc = Gc(d)
    gc.join()
    return gc


def wait_purged(d, kept):
    """Until the trash has let go: its messages are dead then."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if json.loads(d.tambo("--json", "stat").stdout)["total"]["stored_raw_bytes"] < (len(kept) + 1) * SIZE:
            return
        time.sleep(0.1)
    raise AssertionError("expunged messages stay in the trash")


def slow_reader(d):
    """A session in the middle of all messages of INBOX, that does not read on."""
    c = wire.Imap(d, "ann")
    c.command(b"SELECT INBOX")
    c.send(b"r UID FETCH 1:* (BODY.PEEK[])\r\n")
    c.line()
    return c


def read_on(c):
    """The rest of the answer."""
    while not c.line().startswith(b"r OK"):
        pass
    c.close()


def compact_index(d, kept):
    wire.equal(d.tambo("compact-index", check=False).returncode, 75, "while a daemon runs")
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        before = c.command(b"UID FETCH 1:* (FLAGS MODSEQ)")
    d.stop()
    done = json.loads(d.tambo("--json", "compact-index").stdout)
    wire.equal(0 < done["now_bytes"] < done["was_bytes"], True, "%s" % done)
    print("     %(was_bytes)d -> %(now_bytes)d bytes" % done)
    wire.equal(d.tambo("compact-index", "--shard", "99", check=False).returncode, 64, "no such shard")
    wire.equal(d.tambo("check", check=False).returncode, 0, "tambo check")
    d.start()
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        wire.equal(c.command(b"UID FETCH 1:* (FLAGS MODSEQ)"), before, "flags")
    check_inbox(d, kept)


def run(d, checks):
    kept = []
    with checks.step("a scrub that reads slowly is passed by"):
        kept += fill(d, "scrub")
        expunge(d)
        wait_purged(d, kept)
        gc = collect(d)
        wire.equal((gc.result["waiting_segments"], gc.result["waiting_for"]), (0, []), "gc")
        wire.equal(gc.result["freed_segments"] > 2, True, "segments freed")
        wire.equal(gc.took < SCRUB_S / 2, True, "%.1f s" % gc.took)
        print("     %d segments freed in %.1f s" % (gc.result["freed_segments"], gc.took))
        check_inbox(d, kept)
    with checks.step("a reader is waited for"):
        kept += fill(d, "reader")
        reader = slow_reader(d)
        expunge(d)
        wait_purged(d, kept)
        gc = Gc(d)
        gc.join(3)
        wire.equal(gc.is_alive(), True, "gc waits")
        read_on(reader)
        gc.join()
        wire.equal((gc.result["waiting_segments"], gc.result["waiting_for"]), (0, []), "gc")
        wire.equal(gc.took < SCRUB_S / 2, True, "%.1f s" % gc.took)
        check_inbox(d, kept)
    with checks.step("and named when it takes too long"):
        kept += fill(d, "slow")
        reader = slow_reader(d)
        expunge(d)
        wait_purged(d, kept)
        gc = collect(d)
        wire.equal((gc.result["waiting_segments"] > 0, gc.result["waiting_for"]), (True, ["reader"]), "gc")
        read_on(reader)
        gc = collect(d)
        wire.equal((gc.result["waiting_segments"], gc.result["waiting_for"]), (0, []), "gc afterwards")
        check_inbox(d, kept)
    with checks.step("compact-index gives the index's free pages back"):
        compact_index(d, kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    config = {"trash_days": "0", "scrub_days": "14", "gc_rate": "64K"}
    with Daemon(build=args.build, io=args.io, accounts=["ann"], config=config,
                init=("--shards", "1", "--segment-size", "4M")) as d:
        run(d, checks)
        with checks.step("tambo check has nothing to say"):
            wire.equal(d.stop(), 0, "exit code")
            d.tambo("check")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
