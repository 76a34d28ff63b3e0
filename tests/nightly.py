#!/usr/bin/env python3
"""The long form of the fault tests (docs/RELIABILITY.md), a portion at a time, going on where the last one ended.

    nightly.py                              how far each property is
    nightly.py d1 [--minutes 55]            go on with it for so long (make nightly-d1 MINUTES=55)
    nightly.py all [--minutes 55]           each in turn, for so long

How far it came is kept in build/nightly/NAME.json, what the tests said in NAME.log. A failure ends the portion, is kept
with its seed, and does not count; the next portion goes on behind it. Needs `make all tests`. Exit code: 1 after a
failure.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
STATE = os.path.join(ROOT, "build", "nightly")
SIM, CRASH = "build/release/tests/sim/", "tests/crash/"


class Rounds:
    """Portions of so many rounds, each with its place: command takes {n}, {seed}, {next}, {thousand}, {done}."""

    def __init__(self, what, unit, target, portion, *command):
        self.what, self.unit, self.target, self.portion, self.command = what, unit, target, portion, command

    def step(self, done, minutes, name):
        n = min(self.portion, self.target - done)
        seeds = {"seed": 1000 + done, "next": 1 + done, "thousand": 100000 + done // 1000, "done": done}
        return [c.format(n=n, **seeds) for c in self.command], n


class Own:
    """A program that keeps its own place: command takes {minutes} and {state}; its last words tell how far it is."""

    def __init__(self, what, unit, target, *command):
        self.what, self.unit, self.target, self.command = what, unit, target, command

    def step(self, done, minutes, name):
        state = os.path.join(STATE, name + ".place")
        return [c.format(minutes=max(1, int(minutes)), state=state) for c in self.command], None


PROPERTIES = {
    "d1": Rounds("SIGKILL under load", "kills", 10000, 100,
                 sys.executable, CRASH + "test_kill9.py", "--rounds", "{n}", "--seed", "{seed}"),
    "d2": Rounds("every state a cut could leave, random workloads", "states", 2000000, 20000,
                 SIM + "test_states", "--random", "{n}", "--from", "{thousand}"),
    "d3": Rounds("every flush of all workloads of 3 operations", "workloads", 1728, 64,
                 SIM + "test_states", "--all", "3", "--from", "{done}", "--count", "{n}"),
    "d4": Rounds("power cuts of ext4 and xfs", "cuts", 6000, 60,
                 sys.executable, CRASH + "test_powercut.py", "--rounds", "{n}", "--seed", "{seed}"),
    "d5": Own("the whole server simulated, everything going wrong", "minutes", 240,
              SIM + "test_server", "--minutes", "{minutes}", "--from", "100000", "--state", "{state}"),
    "d6": Rounds("every call to the disk failing", "sweeps", 1, 1, SIM + "test_faults", "--io", "--all"),
    "d7": Rounds("a disk that fails under one shard", "rounds", 200, 20,
                 sys.executable, CRASH + "test_failingdisk.py", "--rounds", "{n}", "--seed", "{seed}"),
    "d7s": Rounds("failing writes, syncs and reads, simulated", "seeds", 2000, 50,
                  SIM + "test_failclosed", "{next}", "{n}"),
    "d8": Rounds("a full disk", "disks", 50, 1, sys.executable, CRASH + "test_fulldisk.py"),
    "d9": Rounds("every allocation failing", "sweeps", 1, 1, SIM + "test_faults", "--memory", "--all"),
    "d10": Rounds("flipped bits, zeroed and swapped pages", "damages", 100000, 1000,
                  SIM + "test_flips", "{seed}", "{n}"),
    "d11": Rounds("restart of 10 GB after SIGKILL", "stores", 1, 1,
                  sys.executable, CRASH + "test_restart.py", "--size", "10"),
    "d12": Rounds("backup and restore under load and kills", "rounds", 20, 1,
                  sys.executable, CRASH + "test_backup.py", "--rounds", "{n}", "--seed", "{seed}"),
}


def load(name):
    try:
        with open(os.path.join(STATE, name + ".json"), encoding="utf-8") as f:
            return json.load(f)
    except OSError:
        return {"done": 0, "seconds": 0, "failures": [], "skipped": 0, "last": ""}


def save(name, state):
    os.makedirs(STATE, exist_ok=True)
    path = os.path.join(STATE, name + ".json")
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(state, f, indent=1)
    os.replace(path + ".new", path)


def show(name):
    p, s = PROPERTIES[name], load(name)
    print("%-4s %-52s %9d of %d %s, %.0f s, %d failures%s" % (
        name, p.what, s["done"], p.target, p.unit, s["seconds"], len(s["failures"]),
        ", %d skipped" % s["skipped"] if s["skipped"] else ""))
    for line in s["failures"][-3:] + ([s["last"]] if s["last"] else []):
        print("       %s" % line)


def amount(p, output, minutes):
    """How far a program with a place of its own says it is."""
    if p.unit == "minutes":
        return minutes
    found = re.findall(r"(\d+) %s" % p.unit, output)
    return int(found[-1]) if found else 0


def portion(name, state, minutes):
    """One portion; did it end well?"""
    p, begin = PROPERTIES[name], time.monotonic()
    command, n = p.step(state["done"], minutes, name)
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              stdin=subprocess.DEVNULL, timeout=7200)
        code, output = done.returncode, done.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        code, output = "no end after 2 hours", ""
    took = time.monotonic() - begin
    with open(os.path.join(STATE, name + ".log"), "a", encoding="utf-8") as f:
        f.write("== %s %s: %s\n%s\n" % (time.strftime("%F %T"), " ".join(command), code, output))
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(("level=", "["))]
    state["last"] = lines[-1][:200] if lines else ""
    state["seconds"] += took
    if code != 0:
        state["failures"].append("%s: exit %s" % (" ".join(command), code))
        state["done"] += n or 0
    elif re.search(r"[1-9]\d* skipped", state["last"]):
        state["skipped"] += 1
        return False  # this machine forbids what it needs: no use to go on
    else:
        state["done"] += n if n is not None else amount(p, output, took / 60)
    return code == 0


def go_on(name, minutes):
    end, p = time.monotonic() + 60 * minutes, PROPERTIES[name]
    state, slowest = load(name), 0
    os.makedirs(STATE, exist_ok=True)
    while state["done"] < p.target and time.monotonic() + slowest < end:
        begin = time.monotonic()
        good = portion(name, state, (end - begin) / 60)
        save(name, state)
        slowest = max(slowest, time.monotonic() - begin)
        if not good:
            break
    show(name)
    return not state["failures"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", choices=[*PROPERTIES, "all"])
    parser.add_argument("--minutes", type=float, default=55)
    args = parser.parse_args()
    if args.name is None:
        for name in PROPERTIES:
            show(name)
        return 0
    names = PROPERTIES if args.name == "all" else [args.name]
    return 0 if all([go_on(name, args.minutes) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
