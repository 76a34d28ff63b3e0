#!/usr/bin/env python3
"""kill -9 at random moments under sixteen clients; after each restart the store is checked by the ledger (load.py).

    test_kill9.py [--rounds 300] [--seed N] [--io auto] [--build DIR]

Also says how long the slowest restart took. Prints the failing seed and round. Last line: "N passed, M failed".
"""
import argparse
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "lib")]
import load  # noqa: E402
from tambo import Daemon  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    ledger = load.Ledger(args.seed)
    slowest = 0.0
    config = {"checkpoint_ms": "300", "checkpoint_log_bytes": "1M", "trash_days": "0"}
    with Daemon(build=args.build, io=args.io, config=config, accounts=ledger.accounts) as daemon:
        load.setup(daemon)
        for number in range(1, args.rounds + 1):
            clients = load.run_clients(daemon, ledger, "%d-%d" % (args.seed, number))
            time.sleep(rng.uniform(0.02, 0.6))  # the random moment
            daemon.kill()
            for c in clients:
                c.join(60)
            begin = time.monotonic()
            daemon.start()
            took = time.monotonic() - begin
            slowest = max(slowest, took)
            problems = load.check(daemon, ledger)
            if problems:
                print("FAIL seed %d round %d:" % (args.seed, number))
                for p in problems[:20]:
                    print("   ", p)
                print("%d passed, 1 failed" % (number - 1))
                return 1
    print("seed %d: %d rounds, %d acknowledged operations, slowest restart %.3f s"
          % (args.seed, args.rounds, ledger.acked, slowest))
    print("%d passed, 0 failed" % args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
