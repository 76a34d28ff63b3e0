#!/usr/bin/env python3
"""tambod and tambo as an administrator meets them: init, checks, verbs with and without a daemon, reload, stop.

    test_admin.py [--io auto] [--build DIR] [-k WORD]

Last line: "N passed, M failed".
"""
import argparse
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from tambo import HOSTNAME, Daemon, set_config  # noqa: E402

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def run(build, *command, stdin=b""):
    return subprocess.run([os.path.join(build, command[0]), *command[1:]], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120, check=False)


def expect(done, code, out=None, err=None):
    """The exit code, and patterns that the whole of stdout and stderr match."""
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == code, "exit %d, wanted %d: %s" % (done.returncode, code, said)
    for pattern, text in ((out, done.stdout), (err, done.stderr)):
        if pattern is not None:
            assert re.fullmatch(pattern, text.decode(), re.S), "%r does not match %r" % (text.decode(), pattern)


def wait_log(d, pattern, since=0, seconds=20):
    """Until the daemon's log says it; the log is the event's only witness outside the daemon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(d.log_path, "rb") as f:
            text = f.read()[since:].decode("utf-8", "replace")
        if re.search(pattern, text):
            return text
        d.process.poll()
        time.sleep(0.02)
    raise AssertionError("the log never says %r:\n%s" % (pattern, d.log_tail()))


def edit(d, key, value):
    with open(d.conf, encoding="utf-8") as f:
        text = f.read()
    with open(d.conf, "w", encoding="utf-8") as f:
        f.write(set_config(text, key, value))


def fingerprint(d):
    with d.connect("imap", tls=True) as sock:
        return hashlib.sha256(sock.getpeercert(binary_form=True)).hexdigest()


@check
def init_touches_nothing(d):
    expect(run(d.build, "tambo", "init", os.path.dirname(d.conf)), 73, "", ".*is there already, nothing was touched.*")
    with tempfile.TemporaryDirectory() as where:
        for name in ("tambo.conf", "tls.key", "store"):
            mine = os.path.join(where, name)
            with open(mine, "w", encoding="utf-8") as f:
                f.write("mine")
            expect(run(d.build, "tambo", "init", where), 73, "")
            with open(mine, encoding="utf-8") as f:
                assert f.read() == "mine" and os.listdir(where) == [name]
            os.unlink(mine)
        for bad in ("--shards=0", "--shards=257", "--segment-size=3M", "--segment-size=5M", "--port-offset=65000",
                    "--hostname=a b"):
            expect(run(d.build, "tambo", "init", where, bad), 64, "")
        assert not os.listdir(where)


@check
def usage_errors(d):
    expect(d.tambo(check=False), 64)
    expect(d.tambo("account", check=False), 64, "", ".*there is no command.*")
    expect(d.tambo("account", "add", "x", check=False), 64, "", ".*--password-stdin.*")
    expect(d.tambo("account", "add", "--password-stdin", check=False), 64, "", ".*usage: tambo account add NAME\n")
    expect(d.tambo("stat", "--yes", check=False), 64)
    expect(d.tambo("account", "delete", "nobody", check=False), 64, "", ".*Say --yes to mean it\n")
    expect(d.tambo("account", "add", "x", "--password-stdin", check=False), 65, "", ".*no password on stdin.*")
    expect(run(d.build, "tambod"), 64)
    expect(run(d.build, "tambod", "-V"), 0, r"tambod \d+\.\d+\.\d+\n", "")


@check
def configuration_check(d):
    expect(run(d.build, "tambod", "-c", d.conf, "-t"), 0, ".*: good\n", "")
    with tempfile.TemporaryDirectory() as where:
        bad = os.path.join(where, "bad.conf")
        for text, said in (("\nprot = 1\n", r'%s:2: unknown key "prot".*'),
                           ("listen imap {\n prot = 1\n}", r'%s:2: unknown key "prot"; did you mean "port"\?\n'),
                           ("tls_certificate = none.crt\ntls_key = none.key\n", r".*none\.crt: cannot be read.*")):
            with open(bad, "w", encoding="utf-8") as f:
                f.write(text)
            pattern = said.replace("%s", re.escape(bad))
            expect(run(d.build, "tambod", "-c", bad, "-t"), 78, "", pattern)
            expect(run(d.build, "tambod", "-c", bad), 78, "", pattern)
        with open(bad, "w", encoding="utf-8") as f:
            f.write("")
        expect(run(d.build, "tambod", "-c", bad, "-t"), 0)
        expect(run(d.build, "tambod", "-c", bad), 66)  # no store there
    rows = [json.loads(line) for line in d.tambo("config", "dump", "--json").stdout.splitlines()]
    values = {r["key"]: (r["value"], r["origin"]) for r in rows}
    assert values["hostname"] == (HOSTNAME, "file") and values["imap_idle_s"] == ("1800", "default"), values


def verbs(d):
    """A round of every verb; what it said."""
    said = []

    def ask(*args, stdin=b"", code=0):
        done = d.tambo(*args, stdin=stdin, check=False)
        assert done.returncode == code, (args, done)
        said.append((done.stdout, done.stderr))

    ask("account", "add", "Ann@other.example", "--password-stdin", stdin=b"open\n")
    ask("account", "add", "ann@other.example", "--password-stdin", stdin=b"open\n", code=73)
    ask("account", "passwd", "ann@other.example", "--password-stdin", "--scheme", "PLAIN", stdin=b"closed\n")
    ask("account", "passwd", "nobody", "--password-stdin", "--scheme", "PLAIN", stdin=b"closed\n", code=67)
    ask("account", "add", "bob@" + HOSTNAME, "--password-stdin", "--scheme", "SHA512-CRYPT", stdin=b"x\n")
    ask("account", "add", "bob", "--password-stdin", stdin=b"x\n", code=73)
    ask("account", "import", "-", stdin=b"# x\ncarl:{PLAIN}a:::\nbob:{PLAIN}y\nbad:{ROT13}y\n\xff:{PLAIN}y\n", code=65)
    ask("account", "list", "--json")
    ask("mailbox", "create", "bob", "Été/2026")
    ask("mailbox", "create", "bob", "Été/2026", code=73)
    ask("mailbox", "delete", "bob", "Été/2026", "--yes")
    ask("mailbox", "delete", "bob", "INBOX", "--yes", code=65)
    ask("mailbox", "list", "nobody", code=67)
    ask("--json", "mailbox", "delete", "bob", "Été", "--yes")
    for name in ("ann@other.example", "bob", "carl"):
        ask("account", "delete", name, "--yes")
    ask("account", "delete", "bob", "--yes", code=67)
    said = [(re.sub(rb'"shard":\d+', b'"shard":N', out), err) for out, err in said]
    return said


@check
def the_same_with_and_without_a_daemon(d):
    live = verbs(d)
    numbers = json.loads(d.tambo("stat", "--json").stdout)
    assert numbers["total"]["accounts"] == 1 and numbers["total"]["messages"] == 0, numbers  # postmaster
    assert d.stop() == 0
    assert verbs(d) == live
    offline = json.loads(d.tambo("stat", "--json").stdout)
    assert offline.keys() == numbers.keys() and offline["total"].keys() == numbers["total"].keys()
    d.start()


@check
def dictionaries(d):
    assert not d.tambo("dict", "list", "--json").stdout
    expect(d.tambo("dict", "train", check=False), 67, "", ".*too little mail.*")
    assert d.stop() == 0
    assert not d.tambo("dict", "list", "--json").stdout
    expect(d.tambo("dict", "train", check=False), 67, "", ".*too little mail.*")
    d.start()


@check
def many_accounts_come_over(d):
    lines = b"".join(b"u%05d@bulk.example:{PLAIN}secret::::::\n" % i for i in range(5000))
    expect(d.tambo("account", "import", "-", stdin=lines), 0, "5000 added, 0 updated, 0 skipped, 0 failed\n", "")
    expect(d.tambo("account", "import", "-", stdin=lines), 0, "0 added, 5000 updated, 0 skipped, 0 failed\n", "")
    names = [json.loads(line)["account"] for line in d.tambo("account", "list", "--json").stdout.splitlines()]
    assert names == sorted(names) and len([n for n in names if n.endswith("@bulk.example")]) == 5000


@check
def one_daemon_a_store(d):
    expect(run(d.build, "tambod", "-c", d.conf), 75, "", ".*in use.*")
    expect(d.tambo("stat"), 0)


@check
def reload(d):
    before = fingerprint(d)
    with tempfile.TemporaryDirectory() as where:
        other = os.path.join(where, "x")
        expect(run(d.build, "tambo", "init", other, "--hostname", "new.example.test"), 0)
        since = os.path.getsize(d.log_path)
        for name in ("tls.crt", "tls.key"):
            os.replace(os.path.join(other, name), os.path.join(os.path.dirname(d.conf), name))
    edit(d, "log_level", "debug")
    edit(d, "recipients_max", "7")
    d.process.send_signal(signal.SIGHUP)
    text = wait_log(d, r"reloaded file=", since)
    assert "needs a restart key=recipients_max" in text and "changed key=log_level" in text, text
    after = fingerprint(d)
    assert after != before
    since = os.path.getsize(d.log_path)
    with open(os.path.join(os.path.dirname(d.conf), "tls.crt"), "a", encoding="utf-8") as f:
        f.write("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")
    with open(d.conf, "a", encoding="utf-8") as f:
        f.write("prot = 1\n")
    d.process.send_signal(signal.SIGHUP)
    wait_log(d, r'reload failed, everything stays as it was: \S+:\d+: unknown key "prot"', since)
    assert fingerprint(d) == after


@check
def stop_is_clean_and_quick(d):
    with d.connect("imap") as idle, d.connect("pop3") as other, d.connect("imap", tls=True) as secret:
        for sock in (idle, other, secret):
            assert sock.recv(1000)
        begin = time.monotonic()
        assert d.stop() == 0
        assert time.monotonic() - begin < 10
        assert idle.recv(1000).startswith(b"* BYE") and other.recv(1000).startswith(b"-ERR")
        assert secret.recv(1000).startswith(b"* BYE")
    assert not [n for n in os.listdir(os.path.dirname(d.conf)) if n.endswith(".sock")]
    d.start()


@check
def the_supervisor_is_told(d):
    assert d.stop() == 0
    with tempfile.TemporaryDirectory() as where, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        path = os.path.join(where, "notify")
        supervisor.bind(path)
        supervisor.settimeout(60)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            d.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert supervisor.recv(100) == b"READY=1"
        d.process.send_signal(signal.SIGHUP)
        assert supervisor.recv(100) == b"RELOADING=1" and supervisor.recv(100) == b"READY=1"
        assert d.stop() == 0
        assert supervisor.recv(100) == b"STOPPING=1"
    d.start()


@check
def the_control_socket_takes_any_bytes(d):
    path = os.path.join(os.path.dirname(d.conf), "control.sock")
    assert os.stat(path).st_mode & 0o777 == 0o600
    for junk in (b"\n", b"\0\n", b"{\n", b"[" * 100000 + b"\n", b"\xff\xfe\r\n", b'{"verb":"stat"}' * 2 + b"\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(20)
            s.connect(path)
            s.sendall(junk)
            answer = json.loads(s.makefile("rb").readline())
            assert answer["ok"] is False and answer["exit"] == 64, answer
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:  # a line without an end
        s.settimeout(20)
        s.connect(path)
        try:
            for _ in range(64):
                s.sendall(b"x" * 65536)
        except BrokenPipeError:
            pass
        assert b"longer than 1 MiB" in s.recv(1000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:  # hangs up while its answer is being made
        s.connect(path)
        s.sendall(b'{"verb":"account passwd","args":{"name":"postmaster","password":"x"}}\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:  # two at once, answered in order
        s.settimeout(20)
        s.connect(path)
        s.sendall(b'{"verb":"stat"}\n{"verb":"account list","args":{"limit":1}}\r\n')
        replies = s.makefile("rb")
        assert "total" in json.loads(replies.readline())["result"]
        assert "accounts" in json.loads(replies.readline())["result"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("-k", dest="only", default="", help="only checks with this in their name")
    args = parser.parse_args()
    passed = failed = 0
    for one in CHECKS:
        if args.only not in one.__name__:
            continue
        try:
            with Daemon(io=args.io, build=args.build) as d:
                one(d)
            passed += 1
        except Exception:  # whatever it is, it is this check's failure
            failed += 1
            print("FAIL %s" % one.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
