#!/usr/bin/env python3
"""How soon a store of this size serves again after kill -9 under load, and that it does not read itself to find out.

    test_restart.py [--size 1] [--warm 3] [--cold 2] [--build DIR] [--io auto]     size: GB of mail

tambo-bench fills it by LMTP; the kill falls into such a run. Then from the start of tambod to the answer of the first
LOGIN and SELECT: at most 1 s with what was in the page cache, 3 s with nothing (drop_caches; skipped where that is
forbidden). What the process has read by then is bounded by the checkpoint interval and the segments around the end of
the log, whatever the size of the store. No message counted before the run is missing. Last line: "N passed, M failed".
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

WARM_S, COLD_S = 1.0, 3.0
ACCOUNTS = ["r%d" % i for i in range(1, 51)]
SHARDS, SEGMENT_MB, CHECKPOINT_MB = 2, 64, 32
# for each shard: the replay twice (header and frames), the rest of its segment and one made ahead, the index's pages
READ_MB_MAX = SHARDS * (2 * CHECKPOINT_MB + 2 * SEGMENT_MB + 16)


def bench(daemon, *more):
    """tambo-bench deliver, under way."""
    return subprocess.Popen([os.path.join(daemon.build, "tambo-bench"), "deliver", "--port", str(daemon.port("lmtp")),
                             "--user-pattern", "r%d", "--user-count", str(len(ACCOUNTS)), "--connections", "32",
                             "--seeded", "11", "--messages", "400", "--check-every", "0", "--pipelined", "--json", "-",
                             *more], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def totals(daemon):
    return json.loads(daemon.tambo("--json", "stat").stdout)["total"]


def fill(daemon, want_bytes):
    begin = time.monotonic()
    while totals(daemon)["raw_bytes"] < want_bytes:
        load = bench(daemon, "--seconds", "5")
        load.communicate(timeout=120)
        if load.returncode != 0:
            raise AssertionError("tambo-bench ended with %d" % load.returncode)
    now = totals(daemon)
    print("     %d messages, %.2f GB of mail, %.2f GB on disk, %.0f s" % (
        now["messages"], now["raw_bytes"] / 1e9, (now["log_used_bytes"] + now["index_used_bytes"]) / 1e9,
        time.monotonic() - begin))


def cold():
    """Nothing of any file in memory; False where that is forbidden."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
            f.write("3")
        return True
    except OSError:
        return False


def read_mb(process):
    with open("/proc/%d/io" % process.pid, encoding="ascii") as f:
        return int(re.search(r"^rchar: (\d+)", f.read(), re.M).group(1)) / 1e6


def one(daemon, limit_s, prepare):
    """Kill it under load, start it; seconds to the first login."""
    before = totals(daemon)["messages"]
    load = bench(daemon, "--seconds", "20")
    time.sleep(1.5)
    daemon.kill()
    load.kill()
    load.communicate(timeout=60)
    if prepare is not None and not prepare():
        return False
    begin = time.monotonic()
    daemon.start()
    with wire.Imap(daemon, ACCOUNTS[0]) as imap:
        imap.command(b"SELECT INBOX")
        took = time.monotonic() - begin
        read = read_mb(daemon.process)
    now = totals(daemon)["messages"]
    print("     first login after %.2f s, %.0f MB read, %d messages more" % (took, read, now - before))
    wire.equal(now >= before, True, "messages")
    wire.equal(took <= limit_s, True, "%.2f s to the first login, at most %.0f" % (took, limit_s))
    wire.equal(read <= READ_MB_MAX, True, "%.0f MB read, at most %d" % (read, READ_MB_MAX))
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=float, default=1, help="GB of mail")
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--cold", type=int, default=2)
    parser.add_argument("--dir", help="where the store is made")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    if args.dir and shutil.disk_usage(args.dir).free < 2e9 * args.size:
        checks.skip("restart: not enough room for %.0f GB" % args.size)
        return checks.finish()
    # every message is to be stored: a store of this size has its bytes
    config = {"checkpoint_log_bytes": "%dM" % CHECKPOINT_MB, "dedup": "false"}
    with Daemon(build=args.build, io=args.io, accounts=ACCOUNTS, config=config, directory=args.dir,
                init=["--shards", str(SHARDS), "--segment-size", "%dM" % SEGMENT_MB]) as daemon:
        with checks.step("filled"):
            fill(daemon, args.size * 1e9)
        for i in range(args.warm):
            with checks.step("warm %d" % (i + 1)):
                one(daemon, WARM_S, None)
        for i in range(args.cold):
            name = "cold %d" % (i + 1)
            with checks.step(name):
                if not one(daemon, COLD_S, cold):
                    checks.skip("%s: the page cache cannot be dropped here" % name)
                    checks.passed -= 1
                    daemon.start()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
