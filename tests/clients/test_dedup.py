#!/usr/bin/env python3
"""The same body by LMTP, SMTP and APPEND is stored once in an account, and comes back byte for byte from each.

Then a kill, a look by tambo check, and a run with dedup = false.

Last line: "N passed, M failed".
"""
import argparse
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import nasty  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

SIZES = {"small": 4000, "medium": 40000, "large": 900000, "pieces": 2500000}


def message(name, number):
    rng = random.Random(name)
    head = b"From: a@example.test\r\nSubject: %s %d\r\n\r\n" % (name.encode(), number)
    return head + nasty.noise(rng, SIZES[name])


def saved(d):
    return json.loads(d.tambo("stat", "--json").stdout)["total"]["shared_raw_bytes"]


def send_all(d, name):
    """Four times the same body to ann: what her INBOX must hold."""
    want = [message(name, i) for i in range(4)]
    d.deliver("ann", want[0])
    with wire.Smtp(d, "smtp") as c:
        c.deliver([b"ann"], want[1])
    with wire.Imap(d, "ann") as c:
        c.append(b"INBOX", want[2])
        c.append(b"INBOX", want[3])
    return want


def check_inbox(d, want):
    with wire.Imap(d, "ann") as c:
        c.command(b"SELECT INBOX")
        have = [wire.without_trace(data) if wire.TRACE.match(data) else data for _, _, data in c.bodies()]
    wire.equal([wire.digest(x) for x in have], [wire.digest(x) for x in want], "messages")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    with Daemon(build=args.build, io=args.io, accounts=["ann", "bob"], init=("--shards", "2")) as d:
        want, total = [], 0
        for name, size in SIZES.items():
            with checks.step("%s: %d bytes four times" % (name, size)):
                before = saved(d)
                want += send_all(d, name)
                total += 3 * size if name != "small" else 0
                wire.equal(saved(d) - before, 3 * size if name != "small" else 0, "saved bytes")
        with checks.step("another account's body is its own"):
            d.deliver("bob", message("medium", 9))
            wire.equal(saved(d), total, "saved bytes")
        with checks.step("every byte comes back"):
            check_inbox(d, want)
        with checks.step("and after a kill"):
            d.kill()
            d.start()
            check_inbox(d, want)
            wire.equal(saved(d), total, "saved bytes")
        with checks.step("tambo check has nothing to say"):
            wire.equal(d.stop(), 0, "exit code")
            d.tambo("check")
        with checks.step("dedup = false"):
            with open(d.conf, encoding="utf-8") as f:
                text = f.read()
            with open(d.conf, "w", encoding="utf-8") as f:
                f.write(text.replace("#dedup", "# dedup") + "\ndedup = false\n")
            d.start()
            want += send_all(d, "medium")
            check_inbox(d, want)
            wire.equal(saved(d), total, "saved bytes")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
