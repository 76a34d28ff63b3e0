#!/usr/bin/env python3
"""SASL as clients speak it: SCRAM with and without channel binding, master users, schemes; in every protocol.

    test_sasl.py [--io auto] [--build DIR] [-k WORD]

A client of our own (tests/lib/scram.py), and gsasl, msmtp and mpop where they are installed. Last line: "N passed, M
failed".
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from scram import Sasl, Scram  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402
from wire import Refused, equal  # noqa: E402

CHECKS = []
PROTOCOLS = ("imap", "pop3", "submission")
FAILED = {"imap": "a NO [AUTHENTICATIONFAILED]", "pop3": "-ERR [AUTH]", "submission": "535 5.7.8"}
SSHA = "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA=="  # of "secret"


def check(**settings):
    """A check with a daemon of its own; settings: of its configuration."""
    def keep(function):
        CHECKS.append((function, settings))
        return function
    return keep


def refused(function, want):
    try:
        function()
    except Refused as e:
        assert str(e).startswith(want), (str(e), want)
        return
    raise AssertionError("not refused")


def scheme(d, name):
    rows = [json.loads(line) for line in d.tambo("account", "list", "--json").stdout.splitlines()]
    return {r["account"]: r["scheme"] for r in rows}[name]


def password_of(d, name, text, *options):
    d.tambo("account", "passwd", name, "--password-stdin", *options, stdin=text.encode() + b"\n")


def try_scram(d, protocol, client, tls=False, **how):
    with Sasl(d, protocol, tls) as c:
        c.scram(client, **how)


@check()
def scram_everywhere(d):
    d.tambo("account", "add", "keyed", "--password-stdin", stdin=b"correct horse\n")
    equal(scheme(d, "keyed"), "SCRAM-SHA-256")
    for protocol in PROTOCOLS:
        for tls in (False, True):
            with Sasl(d, protocol, tls) as c:
                want = ["PLAIN", "LOGIN", "SCRAM-SHA-256"] + (["SCRAM-SHA-256-PLUS"] if tls else [])
                equal(c.mechanisms(), want, "mechanisms")
                c.scram(Scram("keyed", "correct horse"))
            try_scram(d, protocol, Scram("ann", PASSWORD), tls)
            refused(lambda: try_scram(d, protocol, Scram("keyed", "wrong"), tls), FAILED[protocol])
            refused(lambda: try_scram(d, protocol, Scram("nobody", "wrong"), tls), FAILED[protocol])
            refused(lambda: try_scram(d, protocol, Scram("keyed", "correct horse"), tls, nonce=b"abc"),
                    FAILED[protocol])
        with Sasl(d, protocol) as c:
            c.plain("keyed", "correct horse")  # the keys verify a password too


@check()
def bound_to_the_channel(d):
    header = b"p=tls-server-end-point,,"
    for protocol in PROTOCOLS:
        with Sasl(d, protocol, True) as c:
            c.scram(Scram("ann", PASSWORD, header, c.end_point()), "SCRAM-SHA-256-PLUS")
        refused(lambda: try_scram(d, protocol, Scram("ann", PASSWORD, header, bytes(32)), True,
                                  mechanism="SCRAM-SHA-256-PLUS"), FAILED[protocol])
        # a client that could and says we do not offer it: somebody has taken it off our list (RFC 5802 6)
        refused(lambda: try_scram(d, protocol, Scram("ann", PASSWORD, b"y,,"), True), FAILED[protocol])
        try_scram(d, protocol, Scram("ann", PASSWORD, b"y,,"))  # without TLS it is so
        for binding in (b"p=tls-unique,,", b"p=tls-exporter2,,", b"n,,"):
            with Sasl(d, protocol, True) as c:
                assert c.begin("SCRAM-SHA-256-PLUS", Scram("ann", PASSWORD, binding).first()) is None
                assert not c.good(), c.ended
        with Sasl(d, protocol) as c:  # not offered without TLS
            assert c.begin("SCRAM-SHA-256-PLUS", Scram("ann", PASSWORD, header).first()) is None, c.ended
    assert open(d.log_path).read().count("reason=binding") == 2 * len(PROTOCOLS)


@check()
def nobody_learns_who_exists(d):
    def told(name):
        with Sasl(d, "imap") as c:
            client = Scram(name, "x")
            client.final(c.begin("SCRAM-SHA-256", client.first()))
            return client.salt, client.rounds

    d.tambo("account", "add", "keyed", "--password-stdin", stdin=b"x\n")
    before = {name: told(name) for name in ("ann", "keyed", "nobody", "nobody2")}
    assert len({salt for salt, _ in before.values()}) == 4, before
    assert {(len(salt), rounds) for salt, rounds in before.values()} == {(16, 32768)}, before
    equal(told("NoBody+x@mail.example.test"), before["nobody"])
    d.stop()
    d.start()
    equal({name: told(name) for name in before}, before, "after a restart")
    password_of(d, "keyed", "y")
    assert told("keyed") != before["keyed"]


@check()
def offered_while_it_can_work(d):
    def offered():
        with Sasl(d, "imap") as c:
            return "SCRAM-SHA-256" in c.mechanisms()

    assert offered()
    path = os.path.join(d.dir, "more")
    with open(path, "w", encoding="utf-8") as f:
        f.write("old:%s::::::\nclosed:*::::::\n" % SSHA)
    d.tambo("account", "import", path)
    assert not offered()
    with Sasl(d, "imap") as c:
        assert c.begin("SCRAM-SHA-256", Scram("ann", PASSWORD).first()) is None
        assert c.ended == b"a NO [CANNOT] No such mechanism", c.ended
    d.stop()
    d.start()
    assert not offered()
    password_of(d, "old", "new")
    assert offered()
    password_of(d, "old", "new", "--scheme", "BLF-CRYPT")
    assert not offered()
    d.tambo("account", "delete", "old", "--yes")
    assert offered()


@check(password_upgrade="true")
def schemes_anew(d):
    path = os.path.join(d.dir, "more")
    with open(path, "w", encoding="utf-8") as f:
        f.write("old:%s::::::\n" % SSHA)
    d.tambo("account", "import", path)
    with Sasl(d, "imap") as c:
        refused(lambda: c.plain("old", "wrong"), FAILED["imap"])
        equal(scheme(d, "old"), "SSHA")
        c.plain("old", "secret")
    equal(scheme(d, "old"), "SCRAM-SHA-256")
    try_scram(d, "imap", Scram("old", "secret"))
    with Sasl(d, "pop3") as c:
        c.plain("old", "secret")
    d.stop()
    d.start()
    try_scram(d, "submission", Scram("old", "secret"))


@check(master_users='{ "bob" }')
def masters(d):
    for protocol in PROTOCOLS:
        with Sasl(d, protocol) as c:
            c.plain("bob", PASSWORD, "ann")
            if protocol == "imap":
                c.line.send(b"x GETQUOTAROOT INBOX\r\n")
        try_scram(d, protocol, Scram("bob", PASSWORD, authzid="ann"))
        for who, whom in (("ann", "bob"), ("ann", "nobody")):
            with Sasl(d, protocol) as c:
                refused(lambda: c.plain(who, PASSWORD, whom),
                        {"imap": "a NO [AUTHORIZATIONFAILED]", "pop3": "-ERR [AUTH]", "submission": "535"}[protocol])
        with Sasl(d, protocol) as c:
            refused(lambda: c.plain("bob", "wrong", "ann"), FAILED[protocol])
    log = open(d.log_path).read()
    equal(len(re.findall(r"login by master proto=\S+ master=bob user=ann rip=127.0.0.1", log)), 6, "log lines")


def run(*command, stdin=b""):
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                          check=False)


@check()
def gsasl(d):
    """GNU SASL with GnuTLS: tls-exporter by another implementation."""
    if not shutil.which("gsasl"):
        return "gsasl is not installed"
    d.tambo("account", "add", "keyed", "--password-stdin", stdin=b"correct horse\n")
    ca = "--x509-ca-file=" + os.path.join(d.dir, "d", "tls.crt")
    for protocol, option in (("imap", "--imap"), ("submission", "--smtp")):
        where = "--connect=localhost:%d" % d.port(protocol)
        for mechanism in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"):
            for tls in ((), ("--priority=NORMAL:-VERS-TLS1.3",)):
                done = run("gsasl", option, where, ca, "-m", mechanism, "-a", "keyed", "-p", "correct horse",
                           "--no-cb" if mechanism == "SCRAM-SHA-256" else "--verbose", *tls)
                assert done.returncode == 0, (mechanism, tls, done.stdout.decode())
        done = run("gsasl", option, where, ca, "-m", "SCRAM-SHA-256-PLUS", "-a", "keyed", "-p", "wrong")
        assert done.returncode != 0, done.stdout.decode()
    return None


@check()
def msmtp_and_mpop(d):
    if not shutil.which("msmtp") or not shutil.which("mpop"):
        return "msmtp or mpop is not installed"
    d.tambo("account", "add", "keyed", "--password-stdin", stdin=b"correct horse\n")
    ca = os.path.join(d.dir, "d", "tls.crt")
    box = os.path.join(d.dir, "box")
    for mechanism in ("on", "scram-sha-256"):  # on: the best that is offered
        done = run("msmtp", "-C", "/dev/null", "--host=localhost", "--port=%d" % d.port("submission"), "--tls=on",
                   "--tls-trust-file=" + ca, "--auth=" + mechanism, "--user=keyed",
                   "--passwordeval=echo correct horse", "--from=keyed@mail.example.test", "keyed@mail.example.test",
                   stdin=b"Subject: by %s\n\ntext\n" % mechanism.encode())
        equal(done.returncode, 0, done.stdout.decode())
        done = run("mpop", "-C", "/dev/null", "--host=localhost", "--port=%d" % d.port("pop3"), "--tls=on",
                   "--tls-trust-file=" + ca, "--auth=" + mechanism, "--user=keyed",
                   "--passwordeval=echo correct horse", "--delivery=mbox," + box, "--uidls-file=" + box + ".uidls")
        equal(done.returncode, 0, done.stdout.decode())
    with open(box, "rb") as f:
        equal(f.read().count(b"Subject: by "), 2, "messages")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("-k", dest="only", default="", help="only checks with this in their name")
    args = parser.parse_args()
    passed = failed = skipped = 0
    for one, settings in CHECKS:
        if args.only not in one.__name__:
            continue
        try:
            with Daemon(io=args.io, build=args.build, accounts=["ann", "bob"], config=settings) as d:
                reason = one(d)
            if reason:
                print("SKIP %s: %s" % (one.__name__, reason))
            skipped += bool(reason)
            passed += not reason
        except Exception:  # whatever it is, it is this check's failure
            failed += 1
            print("FAIL %s" % one.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
