#!/usr/bin/env python3
"""A client of another machine may not send a password in the clear (RFC 9051 6.2.3, 11.2; RFC 2595 6).

    cleartext.py [--io auto] [--build DIR]

Runs itself in a network namespace, whose loopback device has an address that is not a loopback address: connections
from there to 127.0.0.1 come from somewhere else, as far as the server can see.
"""
import argparse
import os
import re
import socket
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402

ELSEWHERE = "192.0.2.1"  # RFC 5737
INSIDE = "TAMBO_TEST_NAMESPACE"
IN_THE_CLEAR = "good %s" % PASSWORD
DIALOGUES = {  # client, what the server must say
    "imap": [
        ("a CAPABILITY", r"\* CAPABILITY (?=.* LOGINDISABLED( |\r))(?!.* AUTH=(PLAIN|LOGIN))"),
        ("b LOGIN " + IN_THE_CLEAR, r"b NO \[PRIVACYREQUIRED\] "),
        ("c AUTHENTICATE PLAIN", r"c NO \[PRIVACYREQUIRED\] "),
        ("d AUTHENTICATE LOGIN", r"d NO \[PRIVACYREQUIRED\] "),
    ],
    "pop3": [
        ("CAPA", r"(?s)\+OK (?!.*\r\nUSER)(?!.*\r\nSASL[^\r]* PLAIN).*\r\n\.\r\n"),
        ("USER good", r"-ERR "),
        ("AUTH PLAIN", r"-ERR "),
    ],
    "submission": [
        ("EHLO x.test", r"(?s)(?!.*AUTH[^\r]* PLAIN).*250 "),
        ("AUTH PLAIN", r"538 5\.7\.11 "),  # RFC 4954 6
    ],
}


def dialogue(daemon, protocol, lines):
    with socket.create_connection(("127.0.0.1", daemon.port(protocol)), 20, source_address=(ELSEWHERE, 0)) as sock:
        wire.equal(sock.getsockname()[0], ELSEWHERE, "where it comes from")
        sock.recv(4096)
        for line, must in lines:
            sock.sendall(line.encode() + b"\r\n")
            said = ""
            while not re.match(must, said):
                data = sock.recv(4096)
                said += data.decode()
                if not data or re.search(r"\A\w+ (OK|NO|BAD)|^(-ERR|[45]\d\d )", said) and not re.match(must, said):
                    raise AssertionError("%s: %s: %r, not %r" % (protocol, line, said, must))


def inside(args):
    for command in ("ip link set lo up", "ip addr add %s/32 dev lo" % ELSEWHERE):
        subprocess.run(command.split(), check=True)
    checks = wire.Checks(args.verbose)
    with Daemon(build=args.build, io=args.io, accounts=["good"]) as daemon:
        for protocol, lines in DIALOGUES.items():
            with checks.step("%s: no password in the clear from another machine" % protocol):
                dialogue(daemon, protocol, lines)
    return checks.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    wire.arguments(parser)
    args = parser.parse_args()
    if INSIDE in os.environ:
        return inside(args)
    if subprocess.run(["unshare", "-r", "-n", "true"], check=False, stderr=subprocess.DEVNULL).returncode != 0:
        checks = wire.Checks()
        checks.skip("no network namespaces here")
        return checks.finish()
    return subprocess.run(["unshare", "-r", "-n", sys.executable, os.path.abspath(__file__), *sys.argv[1:]],
                          env={**os.environ, INSIDE: "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
