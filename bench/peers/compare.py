#!/usr/bin/env python3
"""Tambo and Dovecot side by side: the same machine, the same mail, the same run.

Starts both on fresh stores (200 accounts with {PLAIN} passwords), fills both with the same messages, then runs every
workload --runs times, the servers taking turns, and prints medians with Tambo's ratio to Dovecot and its bar. Writes
all figures to build/bench/peers.json. Dovecot needs root (its mail belongs to another user). Exit 1 if an answer was
wrong.

  bench/peers/compare.py [--corpus DIR] [--seconds N] [--runs N] [--servers tambo,dovecot] [--only NAME,...]
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
READY_S = 30
USERS = 200
DOMAIN = "example.test"
PASSWORD = "secret"

# name, workload, arguments, bars: x times Dovecot's rate; latencies in ms; server CPU per message in us
MATRIX = [
    ("deliver-1", "deliver", ["--connections", "1"], {"x": 4, "p50": 0.5, "cpu": 80}),
    ("deliver-1-pipelined", "deliver", ["--connections", "1", "--pipelined"], {"x": 6, "cpu": 80}),
    ("deliver-16", "deliver", ["--connections", "16"], {"x": 10, "cpu": 80}),
    ("deliver-200", "deliver", ["--connections", "200"], {"x": 20, "p99": 50, "cpu": 80}),
    ("deliver-16-10rcpt", "deliver", ["--connections", "16", "--recipients", "10"], {"x": 25}),
    ("fetch-headers-16", "fetch-headers", ["--connections", "16"], {"x": 2, "cpu": 1.5}),
    ("fetch-bodies-16", "fetch-bodies", ["--connections", "16"], {"x": 4}),
    ("random-body-16", "random-body", ["--connections", "16"], {"x": 2.5, "cpu": 30}),
]
DELIVERS = [row for row in MATRIX if row[1] == "deliver"]
READS = [row for row in MATRIX if row[1] != "deliver"]


def fail(text):
    sys.exit(f"compare.py: {text}")


def disk_bytes(path):
    """Blocks in use below path."""
    total = 0
    for root, _, files in os.walk(path):
        for name in files:
            total += os.lstat(os.path.join(root, name)).st_blocks * 512
    return total


def device_of(path):
    """The block device below path, as named in /sys/block; None where there is none (tmpfs, overlay)."""
    number = os.stat(path).st_dev
    node = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not node.exists():
        return None
    node = node.resolve()
    return node.parent.name if (node / "partition").exists() else node.name


class Dovecot:
    name = "dovecot"

    def __init__(self, args, work):
        self.dir = work / "dovecot"
        self.env = dict(os.environ, PORT_BASE="21000", PASSWORD=PASSWORD, DOMAIN=DOMAIN,
                        PREFIX=str(TOP / "build/bench/dovecot"))
        self.script = str(TOP / "bench/peers/dovecot.sh")

    def start(self):
        command = [self.script, "start", str(self.dir), str(USERS)]
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            fail("Dovecot does not start")
        facts = dict(word.split("=", 1) for word in done.stdout.splitlines()[-1].split())
        self.pid, self.lmtp, self.imap = int(facts["pid"]), facts["lmtp"], facts["imap"]

    def stop(self):
        subprocess.run([self.script, "stop", str(self.dir)], env=self.env, check=False)

    def stored_bytes(self):
        os.sync()
        return disk_bytes(self.dir / "mail")


class Tambo:
    name = "tambo"
    offset = 22000

    def __init__(self, args, work):
        self.dir = work / "tambo"
        self.bin = args.bin
        self.process = None

    def tambo(self, *words, **more):
        return subprocess.run([str(self.bin / "tambo"), "-c", str(self.dir / "tambo.conf"), *words], check=True, **more)

    def start(self):
        subprocess.run([str(self.bin / "tambo"), "init", str(self.dir), "--hostname", "mail." + DOMAIN,
                        "--port-offset", str(self.offset)], check=True, stdout=subprocess.DEVNULL)
        # Every round sends the same mail to the same accounts: each message is to be stored, not recognised.
        with open(self.dir / "tambo.conf", "a", encoding="utf-8") as conf:
            conf.write("\ndedup = false\n")
        self.serve()
        self.import_accounts()

    def import_accounts(self):
        accounts = self.dir / "accounts.passwd"
        accounts.write_text("".join(f"u{n:04d}@{DOMAIN}:{{PLAIN}}{PASSWORD}::::::\n" for n in range(1, USERS + 1)))
        self.tambo("account", "import", str(accounts), stdout=subprocess.DEVNULL)

    def serve(self):
        """The daemon, when it is ready."""
        (self.dir / "ready").unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.dir / "log", "a") as log:
            ready.bind(str(self.dir / "ready"))
            ready.settimeout(READY_S)
            self.process = subprocess.Popen([str(self.bin / "tambod"), "-c", str(self.dir / "tambo.conf")], stderr=log,
                                            env={**os.environ, "NOTIFY_SOCKET": str(self.dir / "ready")})
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
            except TimeoutError:
                fail(f"tambod does not start, see {self.dir}/log")
        self.pid, self.lmtp, self.imap = self.process.pid, str(24 + self.offset), str(143 + self.offset)

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def stored_bytes(self):
        stat = json.loads(self.tambo("stat", "--json", stdout=subprocess.PIPE, text=True).stdout)
        return stat["total"]["log_used_bytes"] + stat["total"]["index_used_bytes"]


SERVERS = {"tambo": Tambo, "dovecot": Dovecot}


class Harness:
    def __init__(self, args, work):
        self.args = args
        self.work = work
        self.device = device_of(work)
        self.mail = ["--corpus", args.corpus] if args.corpus else ["--seeded", "1", "--messages", str(args.messages)]
        self.wrong = []

    def bench(self, server, workload, words):
        report = self.work / "report.json"
        report.unlink(missing_ok=True)
        port = server.lmtp if workload == "deliver" else server.imap
        command = [str(self.args.bin / "tambo-bench"), workload, "--port", port, "--user-count", str(USERS),
                   "--user-pattern", f"u%04d@{DOMAIN}", "--password", PASSWORD, "--pid", str(server.pid),
                   "--label", server.name, "--json", str(report), *self.mail, *words]
        if self.device:
            command += ["--device", self.device]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            self.wrong.append(f"{server.name}: {' '.join(command)}\n{done.stdout}")
            print(done.stdout, file=sys.stderr)
        return json.loads(report.read_text()) if report.exists() else None

    def fill(self, server):
        words = ["--connections", "16", "--count", str(self.args.fill), "--seconds", "3600"]
        result = self.bench(server, "deliver", words)
        if result is None or result["messages"] < self.args.fill:
            fail(f"{server.name} could not be filled")
        return result["bytes"] / server.stored_bytes()

    def rounds(self, servers, rows, results):
        for turn in range(self.args.runs):
            for name, workload, words, _ in rows:
                order = servers if turn % 2 == 0 else servers[::-1]
                for server in order:
                    print(f"run {turn + 1} of {self.args.runs}: {name}, {server.name}", file=sys.stderr)
                    report = self.bench(server, workload, [*words, "--seconds", str(self.args.seconds)])
                    if report:
                        results.setdefault(name, {}).setdefault(server.name, []).append(report)


def median(reports, *keys):
    values = []
    for report in reports:
        for key in keys:
            report = report.get(key) if report is not None else None
        if report is not None:
            values.append(report)
    return statistics.median(values) if values else None


def cell(value, form):
    return format(value, form) if value is not None else "-"


HEAD = ("workload", "server", "msg/s", "spread", "MB/s", "p50 ms", "p99 ms", "server us/msg", "own us/msg", "flush/msg",
        "x dovecot", "below its bar")
WIDTHS = (20, 8, 10, 8, 8, 8, 8, 13, 10, 9, 9, 0)


def print_row(cells):
    left = (0, 1, len(WIDTHS) - 1)
    padded = [f"{text:{'<' if at in left else '>'}{WIDTHS[at]}}" for at, text in enumerate(cells)]
    print(" ".join(padded).rstrip())


def spread(reports):
    rates = [report["messages_per_s"] for report in reports]
    return (max(rates) - min(rates)) / statistics.median(rates) * 100 if len(rates) > 1 and min(rates) > 0 else None


def below(bars, figures):
    """The bars that are missed, in words; "none" if all are met."""
    missed = []
    for what, bar in bars.items():
        value = figures[what]
        if value is not None and (value < bar if what == "x" else value > bar):
            missed.append({"x": f"{bar}x", "cpu": f"CPU {bar} us"}.get(what, f"{what} {bar} ms"))
    return ", ".join(missed) if missed else "none"


def print_table(results, rows):
    print_row(HEAD)
    for name, _, _, bars in rows:
        base = median(results.get(name, {}).get("dovecot", []), "messages_per_s")
        for server, reports in results.get(name, {}).items():
            rate = median(reports, "messages_per_s")
            figures = {"x": rate / base if base else None, "cpu": median(reports, "server_cpu_us_per_message"),
                       "p50": median(reports, "latency_ms", "p50"), "p99": median(reports, "latency_ms", "p99")}
            print_row((name, server, cell(rate, ".0f"), cell(spread(reports), ".0f") + "%",
                       cell(median(reports, "mb_per_s"), ".1f"), cell(figures["p50"], ".3f"),
                       cell(figures["p99"], ".3f"), cell(figures["cpu"], ".2f"),
                       cell(median(reports, "own_cpu_us_per_message"), ".2f"),
                       cell(median(reports, "device_flushes_per_message"), ".4f"), cell(figures["x"], ".2f"),
                       below(bars, figures) if server == "tambo" else ""))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=TOP / "build/release", help="folder of the programs")
    parser.add_argument("--corpus", default=os.environ.get("CORPUS"), help="folder of *.eml (default: generated mail)")
    parser.add_argument("--messages", type=int, default=8000, help="how many generated messages")
    parser.add_argument("--fill", type=int, default=10000, help="messages delivered to each server before the reads")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--servers", default="tambo,dovecot")
    parser.add_argument("--only", help="names of workloads, with commas")
    parser.add_argument("--dir", type=pathlib.Path, help="where the stores go, on the disk to be measured (build/)")
    parser.add_argument("--json", type=pathlib.Path, default=TOP / "build/bench/peers.json")
    args = parser.parse_args()
    known = {row[0] for row in MATRIX}
    args.only = set(args.only.split(",")) if args.only else known
    if args.only - known:
        fail(f"no such workload: {', '.join(sorted(args.only - known))}; there are {', '.join(sorted(known))}")
    if set(args.servers.split(",")) - set(SERVERS):
        fail(f"servers are {', '.join(SERVERS)}")
    if "dovecot" in args.servers and os.geteuid() != 0:
        fail("Dovecot needs root, to run with users of its own")
    return args


def main():
    args = parse_arguments()
    (TOP / "build").mkdir(exist_ok=True)
    parent = args.dir or TOP / "build"
    work = pathlib.Path(tempfile.mkdtemp(prefix="peers.", dir=parent))
    work.chmod(0o755)
    harness = Harness(args, work)
    servers = [SERVERS[name](args, work) for name in args.servers.split(",")]
    results, ratios = {}, {}
    load = os.getloadavg()[0]
    try:
        for server in servers:
            server.start()
            ratios[server.name] = harness.fill(server)
        harness.rounds(servers, [row for row in READS if row[0] in args.only], results)
        harness.rounds(servers, [row for row in DELIVERS if row[0] in args.only], results)
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work)
    print(f"medians of {args.runs} runs of {args.seconds} s; {os.cpu_count()} cores; load average {load:.1f} before, "
          f"{os.getloadavg()[0]:.1f} after (a busy machine gives no figures to quote)")
    print_table(results, [row for row in MATRIX if row[0] in args.only])
    for name, ratio in ratios.items():
        print(f"raw/disk {name} {ratio:.2f}" + (" (bar 2.0 once trained on its own mail)" if name == "tambo" else ""))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    figures = {"raw_per_disk": ratios, "runs": results, "failed": harness.wrong}
    args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if harness.wrong:
        fail(f"{len(harness.wrong)} runs had refused or wrong answers")


if __name__ == "__main__":
    main()
