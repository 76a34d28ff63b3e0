#!/usr/bin/env python3
"""Switch each safety rule off, one build each, and run the test that guards it: it must fail.

    sabotage.py [--make make] [--jobs N] [RULE ...]

The table is tests/sabotage.txt; every TB_KEEPS in the sources must stand there. Only the files that name the rule are
compiled anew. Each test is first seen to pass with nothing switched off. A test that ends by a signal or an assertion
counts as failing, one that runs out of time does not. Last line: "N passed, M failed[, K skipped]".
"""
import argparse
import os
import re
import shlex
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
TIME_S = 120


class Row:
    def __init__(self, line):
        left, self.what = (part.strip() for part in line.split("|", 1))
        self.rule, self.law, test = left.split(None, 2)
        self.mount = test.startswith("!")
        self.unguarded = test.startswith("?")
        self.program, *self.arguments = shlex.split(test.lstrip("!?"))
        self.script = self.program.endswith(".py")

    def targets(self, build):
        if self.script:
            return ["%s/%s" % (build, p) for p in ("tambod", "tambo", "tambo-bench")]
        return ["%s/tests/%s" % (build, self.program)]

    def command(self, build):
        if self.script:
            return [sys.executable, os.path.join(HERE, self.program), "--build", build, *self.arguments]
        return ["%s/tests/%s" % (build, self.program), *self.arguments]

    def key(self):
        return (self.program, *self.arguments)


def table():
    with open(os.path.join(HERE, "sabotage.txt"), encoding="utf-8") as f:
        return [Row(line) for line in f if line.strip() and not line.startswith("#")]


def rules_in_sources():
    found = {}
    for folder, _, files in [w for top in ("engine", "frontends") for w in os.walk(os.path.join(ROOT, top))]:
        for name in (n for n in files if n.endswith(".c")):
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                for rule in re.findall(r"TB_KEEPS\((\w+)\)", f.read()):
                    found.setdefault(rule, os.path.relpath(os.path.join(folder, name), ROOT))
    return found


def run(command):
    """(exit code or None after too long, output)"""
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=TIME_S, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        return None, ""


def said(output):
    """What the test had to say about it: one line."""
    lines = [re.sub(r"/\S*/(tambo-\w+-\w+|shard)", r"\1", line.strip()) for line in output.splitlines()]
    for pattern in (r"^ERROR: ", r"^\[  ERROR   \] --- ", r"assert|Assert", r"^seed .*", r"error:"):
        for line in lines:
            if re.search(pattern, line):
                return re.sub(r"^(ERROR: |\[  ERROR   \] --- )", "", line)[:90]
    return lines[-1][:90] if lines else "no word"


class Checks:
    def __init__(self, make, jobs):
        self.make = [*shlex.split(make), "--no-print-directory", "-j%d" % jobs]
        self.passed = self.failed = self.skipped = 0
        self.sound = {}  # test: does it pass as it is?

    def build(self, rule, targets):
        code, output = run([*self.make, *(["SABOTAGE=%s" % rule] if rule else []), *targets])
        if code != 0:
            print(output[-3000:])
        return code == 0

    def passes_as_it_is(self, row):
        if row.key() not in self.sound:
            command = row.command("build/release")
            self.sound[row.key()] = self.build(None, row.targets("build/release")) and (
                row.script or run(command)[0] == 0)  # the crash tests run by themselves
        return self.sound[row.key()]

    def one(self, row):
        begin = time.monotonic()
        build = "build/release-without-%s" % row.rule
        if row.mount and os.geteuid() != 0:
            self.skipped += 1
            return "SKIP", "needs root and loop devices"
        if row.unguarded:
            self.skipped += 1
            return "SKIP", "no test notices this in every run"
        if not self.passes_as_it_is(row):
            self.failed += 1
            return "FAIL", "the test does not pass as it is"
        if not self.build(row.rule, row.targets(build)):
            self.failed += 1
            return "FAIL", "it does not build"
        code, output = run(row.command(build))
        if row.script and "skipped" in output and code == 0:
            self.skipped += 1
            return "SKIP", "no loop devices here"
        caught = code == 0 if row.script else code is not None and code != 0  # a script expects the loss itself
        self.passed += caught
        self.failed += not caught
        return ("ok" if caught else "FAIL"), "%s (%.0f s)" % (
            said(output) if caught else "NOT NOTICED" if code is not None else "no end", time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--make", default="make")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("rules", nargs="*")
    args = parser.parse_args()
    rows, checks = table(), Checks(args.make, args.jobs)
    inside, named = rules_in_sources(), {r.rule for r in rows}
    for rule in sorted(set(inside) ^ named):
        checks.failed += 1
        print("FAIL %-13s %s" % (rule, "no line in sabotage.txt: %s" % inside[rule] if rule in inside else
                                 "no TB_KEEPS(%s) in the sources" % rule))
    for row in rows:
        if row.rule not in inside or (args.rules and row.rule not in args.rules):
            continue
        verdict, why = checks.one(row)
        print("%-4s %-13s %-4s %-24s %s" % (verdict, row.rule, row.law, os.path.basename(row.program), why))
        sys.stdout.flush()
    print("%d passed, %d failed%s" % (checks.passed, checks.failed,
                                      ", %d skipped" % checks.skipped if checks.skipped else ""))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
