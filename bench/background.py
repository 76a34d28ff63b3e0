#!/usr/bin/env python3
"""What garbage collection and scrubbing cost deliveries: the same load with neither, with each, and with both.

A store is filled, a third of its mail is expunged, and it is copied, so that every daemon begins with the same one. The
daemons are measured in turns; the others are stopped meanwhile (SIGSTOP), with whatever they do in the background. GC
and scrub run by themselves, at the rate they have in service; --asked adds what `tambo gc --all` and `tambo scrub`
cost, which do not wait. A window in which nothing was collected or read is an error: it would prove nothing.
Prints medians and the share of the rate that is lost, bar 20 %. Exit 1 if the bar is missed or an answer was wrong.

  bench/background.py [--corpus DIR] [--seconds N] [--runs N] [--fill N] [--asked] [--dir DIR]
"""
import argparse
import contextlib
import imaplib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
import compare  # noqa: E402

BAR_PERCENT = 20
BEGIN_S = 30
CONNECTIONS = (16, 200)
OFF = {"gc_min_dead": 100, "scrub_days": 0}
# name, settings, what somebody asks for all the time, what must have happened in a window
CONDITIONS = [
    ("nothing", OFF, [], ()),
    ("gc", {**OFF, "gc_min_dead": 1}, [], ("gc",)),
    ("scrub", {**OFF, "scrub_days": 1}, [], ("scrub",)),
    ("both", {"gc_min_dead": 1, "scrub_days": 1}, [], ("gc", "scrub")),
]
ASKED = [
    ("gc asked", OFF, [["gc", "--all"]], ("gc",)),
    ("scrub asked", OFF, [["scrub"]], ("scrub",)),
]


class Server(compare.Tambo):
    def __init__(self, args, work, number, settings):
        super().__init__(args, work)
        self.dir = work / f"store-{number}"
        self.offset = args.port_offset + 7 * number  # no two daemons share a port
        self.settings = {"trash_days": 0, **settings}

    def prepare(self, filled=None):
        """A store, empty or a copy of one, and its configuration."""
        subprocess.run([str(self.bin / "tambo"), "init", str(self.dir), "--hostname", "mail." + compare.DOMAIN,
                        "--port-offset", str(self.offset)], check=True, stdout=subprocess.DEVNULL)
        if filled is not None:
            shutil.rmtree(self.dir / "store")
            shutil.copytree(filled.dir / "store", self.dir / "store")
        with open(self.dir / "tambo.conf", "a", encoding="utf-8") as conf:
            conf.write("".join(f"\n{key} = {value}\n" for key, value in {"dedup": "false", **self.settings}.items()))

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process is not None:
            self.go_on()
        super().stop()

    def look(self):
        """Is GC at work, bytes collected, bytes that a scrub read."""
        stat = json.loads(self.tambo("stat", "--json", stdout=subprocess.PIPE, text=True).stdout)
        return {"busy": any(shard["gc"] != "idle" for shard in stat["shards"]), "scrub": self.read_bytes(),
                "gc": stat["total"]["gc_moved_bytes"]}

    def wait_until(self, complaint, happened):
        end = time.monotonic() + BEGIN_S
        while not happened():
            if time.monotonic() > end:
                compare.fail(f"{complaint} after {BEGIN_S} s")
            time.sleep(0.1)

    def read_bytes(self):
        """Read from the disk: a scrub goes past the page cache, a delivery reads nothing."""
        words = pathlib.Path(f"/proc/{self.pid}/io").read_text(encoding="ascii").split()
        return int(words[words.index("read_bytes:") + 1])


def thin_out(server, users, one_in):
    """One in so many messages of these accounts goes."""
    for n in users:
        with imaplib.IMAP4("127.0.0.1", int(server.imap)) as imap:
            imap.login(f"u{n:04d}@{compare.DOMAIN}", compare.PASSWORD)
            count = int(imap.select("INBOX")[1][0])
            if count >= one_in:
                gone = ",".join(str(i) for i in range(one_in, count + 1, one_in))
                imap.store(gone, "+FLAGS.SILENT", r"(\Deleted)")
                imap.expunge()


@contextlib.contextmanager
def asking(server, commands):
    """Somebody runs these commands again and again."""
    loops = []
    for words in commands:
        line = [str(server.bin / "tambo"), "-c", str(server.dir / "tambo.conf"), *words]
        loops.append(subprocess.Popen(["sh", "-c", 'while "$@" >/dev/null; do :; done', "sh", *line],
                                      start_new_session=True))
    try:
        yield
    finally:
        for loop in loops:
            os.killpg(loop.pid, signal.SIGTERM)
            loop.wait()


class Run:
    def __init__(self, args, work):
        self.args = args
        self.harness = compare.Harness(args, work)
        self.conditions = CONDITIONS + (ASKED if args.asked else [])
        self.servers = {name: Server(args, work, i, settings)
                        for i, (name, settings, _, _) in enumerate(self.conditions)}
        self.reports = {}

    def prepare(self):
        """Every daemon on its own copy of the same store, all of them paused."""
        first, *others = self.servers.values()
        first.prepare()
        first.serve()
        first.import_accounts()
        self.harness.fill(first)
        thin_out(first, range(1, compare.USERS + 1), 3)
        first.stop()
        for server in others:
            server.prepare(first)
        for name, _, commands, must in self.conditions:
            self.servers[name].serve()
            if "gc" in must and not commands:
                # it begins behind a checkpoint, when what was expunged has left the trash
                self.servers[name].wait_until("no garbage is collected", lambda: self.servers[name].look()["busy"])
            self.servers[name].pause()

    def window(self, condition, connections):
        name, _, commands, must = condition
        server = self.servers[name]
        server.go_on()
        with asking(server, commands):
            before = server.look()
            report = self.harness.bench(server, "deliver", ["--connections", str(connections), "--warmup", "1",
                                                            "--seconds", str(self.args.seconds)])
            after = server.look()
        server.pause()
        if report is None:
            compare.fail(f"{name}: no report")
        done = {"scrub": after["scrub"] > before["scrub"],
                "gc": before["busy"] and after["busy"] or after["gc"] > before["gc"]}
        for what in must:
            if not done[what]:
                compare.fail(f"{name}: no {what} went on while deliveries were measured: take a larger --fill")
        self.reports.setdefault((name, connections), []).append(report)

    def measure(self):
        for turn in range(self.args.runs):
            for connections in CONNECTIONS:
                order = self.conditions if turn % 2 == 0 else self.conditions[::-1]
                for condition in order:
                    print(f"run {turn + 1} of {self.args.runs}: {connections} connections, {condition[0]}",
                          file=sys.stderr)
                    self.window(condition, connections)

    def table(self):
        """Prints it; how many rows miss the bar."""
        missed = 0
        print(f"{'connections':>11} {'beside it':12} {'msg/s':>8} {'spread':>7} {'p99 ms':>8} {'us/msg':>8} {'lost':>6}"
              "  bar 20 %")
        for connections in CONNECTIONS:
            base = compare.median(self.reports["nothing", connections], "messages_per_s")
            for name, _, commands, must in self.conditions:
                reports = self.reports[name, connections]
                rate = compare.median(reports, "messages_per_s")
                lost = (1 - rate / base) * 100
                judged = bool(must) and not commands
                missed += judged and lost > BAR_PERCENT
                spread = compare.spread(reports)
                print(f"{connections:>11} {name:12} {rate:8.0f} {compare.cell(spread, '6.0f')}% "
                      f"{compare.median(reports, 'latency_ms', 'p99'):8.1f} "
                      f"{compare.median(reports, 'server_cpu_us_per_message'):8.1f} {lost:5.1f}%  "
                      f"{('missed' if lost > BAR_PERCENT else 'met') if judged else '-'}")
        return missed


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=compare.TOP / "build/release", help="of the programs")
    parser.add_argument("--corpus", default=os.environ.get("CORPUS"), help="folder of *.eml (default: generated mail)")
    parser.add_argument("--messages", type=int, default=8000, help="how many generated messages")
    parser.add_argument("--fill", type=int, default=60000, help="messages delivered before")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--asked", action="store_true", help="also tambo gc --all and tambo scrub")
    parser.add_argument("--port-offset", type=int, default=22100)
    parser.add_argument("--dir", type=pathlib.Path, help="where the stores go, on the disk to be measured (build/)")
    parser.add_argument("--json", type=pathlib.Path, default=compare.TOP / "build/bench/background.json")
    return parser.parse_args()


def main():
    args = parse_arguments()
    (compare.TOP / "build").mkdir(exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix="background.", dir=args.dir or compare.TOP / "build"))
    run = Run(args, work)
    load = os.getloadavg()[0]
    try:
        run.prepare()
        run.measure()
    finally:
        for server in run.servers.values():
            server.stop()
        shutil.rmtree(work)
    print(f"medians of {args.runs} runs of {args.seconds} s; {os.cpu_count()} cores; load average {load:.1f} before, "
          f"{os.getloadavg()[0]:.1f} after (a busy machine gives no figures to quote)")
    missed = run.table()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    figures = [{"condition": name, "connections": connections, "runs": reports}
               for (name, connections), reports in run.reports.items()]
    args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if run.harness.wrong:
        compare.fail(f"{len(run.harness.wrong)} runs had refused or wrong answers")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
