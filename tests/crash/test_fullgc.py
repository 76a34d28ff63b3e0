#!/usr/bin/env python3
"""A full disk on which people delete mail: the space comes back by itself, though every segment still has mail in it.

    test_fullgc.py [--size 64] [--io auto] [--build DIR]

The store lies on a small ext4 file system of its own (a loop device; needs root, skipped where mounting is forbidden)
and keeps no trash. It is filled until mail is refused; then two of three messages are expunged, all over the store.
Nothing else is freed. Mail must be taken again soon, about as much as was expunged, through SIGKILLs too; and what was
acknowledged, and no other, must be there byte for byte. Last line: "N passed, M failed[, K skipped]".
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
import test_fulldisk as full  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

BACK_S = 30


def thin_out(daemon, ledger):
    """Expunge two of three messages of every account; how many bytes are left of how many?"""
    before = after = 0
    for account in full.ACCOUNTS:
        with wire.Imap(daemon, account) as imap:
            imap.command(b"SELECT INBOX")
            gone = {}
            for i, (uid, _, data) in enumerate(imap.bodies(b"1:*")):
                before += len(data)
                if i % 3:
                    gone[uid] = wire.digest(full.untraced(data))
                else:
                    after += len(data)
            imap.command(b"UID STORE %s +FLAGS.SILENT (\\Deleted)" % b",".join(b"%d" % u for u in gone))
            imap.command(b"EXPUNGE")
        for d in gone.values():
            ledger.there[account][d] -= 1
        ledger.there[account] = +ledger.there[account]
    return after, before


def wait_for_room(daemon, ledger):
    begin = time.monotonic()
    while not full.offer(daemon, ledger, full.ACCOUNTS[0], "lmtp"):
        if time.monotonic() - begin > BACK_S:
            raise AssertionError("mail is still refused %d s after two thirds of it were expunged" % BACK_S)
        time.sleep(0.2)
    return time.monotonic() - begin


def statistics(daemon):
    return json.loads(daemon.tambo("stat", "--json").stdout)["total"]


def fill(daemon, ledger):
    problems = []
    full.fill(daemon, ledger, problems)
    wire.equal(problems, [], "filling")


def run(daemon, checks, ledger):
    first = 0
    with checks.step("the disk fills up"):
        fill(daemon, ledger)
        first = statistics(daemon)["raw_bytes"]
        print("     %d messages" % ledger.total())
    for turn in range(3):
        with checks.step("two of three messages are expunged: mail is taken again, round %d" % (turn + 1)):
            left, all_of_it = thin_out(daemon, ledger)
            if turn == 1:
                daemon.kill()
                daemon.start()
            print("     %d of %d KiB left; room after %.1f s" % (left // 1024, all_of_it // 1024,
                                                                wait_for_room(daemon, ledger)))
            full.check_all(daemon, ledger)
        with checks.step("and about as much as before, round %d" % (turn + 1)):
            daemon.tambo("gc")  # until there is nothing left to do
            fill(daemon, ledger)
            s = statistics(daemon)
            print("     %d of %d KiB, %d segments freed, %d MiB moved" %
                  (s["raw_bytes"] >> 10, first >> 10, s["gc_freed_segments"], s["gc_moved_bytes"] >> 20))
            wire.equal(s["raw_bytes"] > first // 2, True, "most of the room is there again")
            full.check_all(daemon, ledger)
    with checks.step("SIGKILL, and once more: it is all there"):
        daemon.kill()
        daemon.start()
        full.check_all(daemon, ledger)
        wire.equal(daemon.stop(), 0, "exit code")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=64, help="MiB of the disk")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks()
    ledger = full.Ledger()
    if os.geteuid() != 0:
        checks.skip("full disk: only root can mount a disk")
        return checks.finish()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    folder = tempfile.mkdtemp(prefix="tambo-fullgc-")
    mounted = False
    try:
        mount, why = full.make_disk(folder, args.size)
        if why is not None:
            checks.skip("full disk: mounting is not allowed here (%s)" % why)
            return checks.finish()
        mounted = True
        daemon = Daemon(build=args.build, io=args.io, accounts=full.ACCOUNTS, directory=mount,
                        config={"checkpoint_ms": "500", "trash_days": "0"},
                        init=["--shards", "1", "--segment-size", "4M"])
        daemon.log_path = os.path.join(folder, "tambod.log")
        with daemon:
            run(daemon, checks, ledger)
        if checks.failed:
            print(daemon.log_tail(20))
    finally:
        if mounted:
            subprocess.run(["umount", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
