#!/usr/bin/env python3
"""Guessing at accounts: what a stranger learns of which there are, and how often anybody may be wrong.

    test_guessing.py [--io auto] [--build DIR] [--tries 60] [-k WORD]

Answers to known and unknown names are compared byte for byte, and medians of how long they take; the times are figures
to be read, and a failure only when they differ by more than a millisecond and by more than such medians vary.
Last line: "N passed, M failed".
"""
import argparse
import os
import random
import re
import statistics
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from scram import Sasl, Scram  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402
from wire import Line, equal  # noqa: E402

CHECKS = []
FREE = {"login_failures_account": 0, "login_failures_network": 0}
# all of "secret": doveadm pw, but for the first
SECRETS = {
    "PLAIN": "{PLAIN}secret",
    "SCRAM-SHA-256": "{SCRAM-SHA-256}4096,/vk79Q5WxN3a7Q/WdPEEUw==,b5SD0R6CREwpTXoVk74slbh6o3ZztWZ5s6l34XNJe5U=,"
                     "XHE6lQtACCM1DBOxeftfuv4LiMfTjHDQtt2w7314Kuk=",
    "BLF-CRYPT": "{BLF-CRYPT}$2y$05$96SOCea9q62dZvZm.6xEWezSJPy5g1iZ9kGE.EEOhfvAwNhxa1TE6",
    "SHA512-CRYPT": "{SHA512-CRYPT}$6$rounds=10000$h5C.qIlm7ipAUjSF$"
                    "u3Zg4x0d4K3EJrNBgX32tgOGknzemoFo9uQNuCIahVqYlPv2yIUAhKOiviOTQk3rg7cngeudFmuezB0FWI6Jq.",
}


def check(**settings):
    """A check with a daemon of its own; settings: of its configuration."""
    def keep(function):
        CHECKS.append((function, settings))
        return function
    return keep


def accounts(d, schemes, each=8):
    """Some accounts of each scheme; their names."""
    names = ["%s%d" % (name, i) for i in range(each) for name in ("ann", "joe", "max", "zoe")]
    path = os.path.join(d.dir, "more")
    with open(path, "w", encoding="utf-8") as f:
        for i, name in enumerate(names):
            f.write("%s:%s::::::\n" % (name, SECRETS[schemes[i % len(schemes)]]))
    d.tambo("account", "import", path)
    return names


def imap_login(c, name):
    c.line.send(b"a LOGIN %s wrong\r\n" % name.encode())
    return [c.line.line()]


def pop3_user(c, name):
    c.line.send(b"USER %s\r\n" % name.encode())
    first = c.line.line()
    c.line.send(b"PASS wrong\r\n")
    return [first, c.line.line()]


def plain(c, name):
    c.begin("PLAIN", b"\0%s\0wrong" % name.encode())
    return [c.ended]


def login(c, name):
    said = [c.begin("LOGIN"), c.say(name.encode()), c.say(b"wrong")]
    return said + [c.ended]


def scram(c, name):
    """The server's first word without what differs between any two: nonce and salt, but for its length."""
    client = Scram(name, "wrong")
    challenge = c.begin("SCRAM-SHA-256", client.first())
    answer = client.final(challenge)
    c.last_sent = time.perf_counter()
    c.say(answer)
    return [re.sub(rb"r=[^,]*,s=([^,]*)", lambda m: b"r,s%d" % len(m.group(1)), challenge), c.ended]


WAYS = [("imap", imap_login), ("imap", plain), ("imap", login), ("imap", scram), ("pop3", pop3_user), ("pop3", plain),
        ("pop3", scram), ("submission", plain), ("submission", login), ("submission", scram)]


def ask(d, protocol, way, name):
    """(answers, seconds from the last thing said to the answer)."""
    with Sasl(d, protocol) as c:
        c.last_sent = time.perf_counter()
        said = way(c, name)
        return said, time.perf_counter() - c.last_sent


def noise(times):
    """How far a median of so many is off, about."""
    rng = random.Random(1)
    return statistics.pstdev([statistics.median(rng.choices(times, k=len(times))) for _ in range(100)])


def compare(d, known, tries, label, exact):
    """exact: every account is of one kind, so that every single answer is the same, and times have one middle."""
    unknown = ["%s%d" % (name, i) for i in range(50, 58) for name in ("ann", "joe", "max", "zoe")]
    rng = random.Random(2)
    worst = []
    for protocol, way in WAYS:
        if way is scram and "SCRAM" not in label:
            continue
        answers, times = {True: set(), False: set()}, {True: [], False: []}
        for _ in range(tries):
            for there in rng.sample((True, False), 2):
                said, took = ask(d, protocol, way, rng.choice(known if there else unknown))
                answers[there].add(tuple(said))
                times[there].append(took * 1000)
        equal(answers[True], answers[False], "answers: %s %s %s" % (label, protocol, way.__name__))
        if exact:
            equal(len(answers[True]), 1, "kinds of answers")
        a, b = statistics.median(times[True]), statistics.median(times[False])
        off = noise(times[True]) + noise(times[False])
        print("    %-24s %-10s %-10s known %7.3f ms  unknown %7.3f ms  difference %+7.3f, noise %.3f"
              % (label, protocol, way.__name__, a, b, b - a, off))
        if exact and abs(a - b) > 1 and abs(a - b) > 4 * off:
            worst.append((label, protocol, way.__name__, a, b))
    assert not worst, worst


@check(**FREE, scram="always")
def same_for_stored_passwords(d, tries):
    compare(d, accounts(d, ["PLAIN"]), tries, "PLAIN, and SCRAM", True)


@check(**FREE)
def same_for_scram_keys(d, tries):
    for name in ("ann", "bob"):
        d.tambo("account", "delete", name, "--yes")
    compare(d, accounts(d, ["SCRAM-SHA-256"]), tries, "SCRAM keys of 4096", True)


@check(**FREE)
def same_for_hashes(d, tries):
    for name in ("ann", "bob"):
        d.tambo("account", "delete", name, "--yes")
    compare(d, accounts(d, ["BLF-CRYPT"]), tries, "BLF-CRYPT", True)


@check(**FREE, scram="always")
def same_for_all_kinds(d, tries):
    """Of many kinds: unknown names are of them too. What one name is answered tells nothing; so the sets are equal."""
    compare(d, accounts(d, ["PLAIN", "SCRAM-SHA-256"]), 2 * tries, "PLAIN and SCRAM keys", False)


@check(**FREE, scram="always")
def a_name_keeps_its_face(d, _tries):
    """Rounds and the salt's length of a name that does not exist, over restarts and other accounts' changes."""
    def faces():
        out = {}
        for i in range(60):
            with Sasl(d, "imap") as c:
                client = Scram("nobody%d" % i, "x")
                client.final(c.begin("SCRAM-SHA-256", client.first()))
                out[i] = (client.salt, client.rounds)
        return out

    accounts(d, ["PLAIN", "SCRAM-SHA-256"])
    before = faces()
    rounds = [r for _, r in before.values()]
    assert 5 < rounds.count(4096) < 55, rounds
    d.stop()
    d.start()
    equal(faces(), before)
    d.tambo("account", "passwd", "ann", "--password-stdin", stdin=b"other\n")
    changed = [i for i, face in faces().items() if face != before[i]]
    assert len(changed) <= 15, changed  # those it stands in for
    equal({i: s for i, (s, _) in faces().items()}, {i: s for i, (s, _) in before.items()}, "salts")


class Guessers:
    """Threads that guess as fast as they can, each answer counted by its code."""

    def __init__(self, d, count, names, peer="127.0.0.1"):
        self.d, self.names, self.over, self.peer = d, names, False, peer
        self.answers, self.lock = {}, threading.Lock()
        self.threads = [threading.Thread(target=self._guess, args=(i,), daemon=True) for i in range(count)]
        for t in self.threads:
            t.start()

    def _guess(self, seed):
        rng = random.Random(seed)
        while not self.over:
            try:
                with Line(self.d, "imap") as line:
                    while not self.over:
                        line.send(b"a LOGIN %s guess%d\r\n" % (rng.choice(self.names), rng.randrange(10 ** 9)))
                        answer = line.line()
                        if not answer.startswith(b"a "):
                            break
                        with self.lock:
                            code = answer.split(b"]")[0]
                            self.answers[code] = self.answers.get(code, 0) + 1
            except OSError:
                pass

    def end(self):
        self.over = True
        for t in self.threads:
            t.join(30)
        return self.answers


def logs_in(d, name, password=PASSWORD):
    """(answer, seconds)"""
    begin = time.perf_counter()
    with Line(d, "imap") as line:
        line.send(b"a LOGIN %s \"%s\"\r\n" % (name, password.encode()))
        return line.line(), time.perf_counter() - begin


@check()
def one_account_is_guessed_at(d, _tries):
    d.tambo("account", "passwd", "ann", "--password-stdin", stdin=b"right one\n")  # a hash that takes its time
    begin = time.monotonic()
    guessers = Guessers(d, 8, [b"ann"])
    times = []
    while time.monotonic() < begin + 5:
        answer, took = logs_in(d, b"bob")
        assert answer.startswith(b"a OK"), answer
        times.append(took)
    answer, _ = logs_in(d, b"ann", "right one")
    answers = guessers.end()
    wrong, later = answers.pop(b"a NO [AUTHENTICATIONFAILED"), answers.pop(b"a NO [UNAVAILABLE")
    equal(answers, {}, "other answers")
    print("    %d guesses answered wrong, %d turned away, in %.1f s; another's login: median %.1f ms, worst %.1f ms"
          % (wrong, later, time.monotonic() - begin, 1000 * statistics.median(times), 1000 * max(times)))
    assert 10 <= wrong <= 12 and later > 20, (wrong, later)  # half of 20 at once, one more every 6 s
    assert answer.startswith(b"a NO [UNAVAILABLE]"), answer  # the right one is not told from a wrong one
    assert max(times) < 2, max(times)
    assert "reason=throttled" in open(d.log_path, encoding="utf-8").read()


@check(**FREE)
def many_names_are_guessed_at(d, _tries):
    """As from many networks: nothing is counted against any; helpers are all that is short."""
    for name in ("ann", "bob"):
        d.tambo("account", "passwd", name, "--password-stdin", stdin=b"right one\n")
    guessers = Guessers(d, 100, [b"nobody%d" % i for i in range(1000)])
    times, begin = [], time.monotonic()
    while time.monotonic() < begin + 5:
        answer, took = logs_in(d, b"bob", "right one")
        assert answer.startswith(b"a OK"), answer
        times.append(took)
    answers = guessers.end()
    print("    %s; a login among them: median %.0f ms, worst %.0f ms"
          % (answers, 1000 * statistics.median(times), 1000 * max(times)))
    assert sum(answers.values()) > 100, answers
    assert max(times) < 5, max(times)  # 2 s on a machine that does nothing else


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("--tries", type=int, default=60, help="of known and of unknown names each, for each mechanism")
    parser.add_argument("-k", dest="only", default="", help="only checks with this in their name")
    args = parser.parse_args()
    passed = failed = 0
    for one, settings in CHECKS:
        if args.only not in one.__name__:
            continue
        try:
            with Daemon(io=args.io, build=args.build, accounts=["ann", "bob"], config=settings) as d:
                print(one.__name__)
                one(d, args.tries)
            passed += 1
        except Exception:  # whatever it is, it is this check's failure
            failed += 1
            print("FAIL %s" % one.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
