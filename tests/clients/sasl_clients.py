#!/usr/bin/env python3
"""Programs that people use, logging in with SCRAM and with tokens.

    sasl_clients.py [-k WORD] [--io auto] [--build DIR]

mbsync (Cyrus SASL) and NeoMutt (GNU SASL) with SCRAM-SHA-256, imapflow and msmtp with OAUTHBEARER, OfflineIMAP with
XOAUTH2, curl with whatever of these it was built with. That each did use its mechanism is read from what it writes, or
follows from its having nothing else. A program that is not installed is skipped, with a word. Last line: "N passed, M
failed".
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
import argparse  # noqa: E402
import jwt  # noqa: E402
import wire  # noqa: E402
from real_clients import lf, maildir, run, same_set, sample, write  # noqa: E402
from sync_clients import IMAPFLOW, on_terminal  # noqa: E402
from tambo import Daemon  # noqa: E402
from test_sasl import AUDIENCE, ISSUER, SOME_KEY, claims  # noqa: E402

CHECKS = []
SECRET = "correct horse"


def check(*programs):
    def keep(function):
        CHECKS.append((function, programs))
        return function
    return keep


class Room:
    """A daemon with mail for ann, whose password is kept as SCRAM keys, and a key that tokens are signed with."""

    def __init__(self, daemon, folder):
        self.daemon, self.folder = daemon, folder
        self.ca = os.path.join(daemon.dir, "d", "tls.crt")
        self.messages = sample("ann")[:4]
        self.key = jwt.Key("ES256", "k")
        with open(os.path.join(folder, "keys.json"), "w", encoding="utf-8") as f:
            f.write(jwt.key_set(self.key.jwk()))
        daemon.stop()
        daemon.start()
        daemon.tambo("account", "passwd", "ann", "--password-stdin", stdin=SECRET.encode() + b"\n")
        for m in self.messages:
            daemon.deliver("ann", m)

    def token(self, **more):
        return self.key.token(claims(**more))

    def work(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path)
        return path

    def logins(self):
        with open(self.daemon.log_path, encoding="utf-8") as f:
            return f.read().count("level=info login ")


MBSYNC = """IMAPAccount far
Host localhost
Port {port}
User ann
Pass "{password}"
SSLType {ssl}
CertificateFile {ca}
AuthMechs SCRAM-SHA-256

IMAPStore far
Account far

MaildirStore near
Path {room}/mail/
Inbox {room}/mail/INBOX

Channel all
Far :far:
Near :near:
Create Near
SyncState *
"""


@check("mbsync")
def mbsync(room):
    """By way of Cyrus SASL."""
    for kind, ssl, port in (("plain", "None", "imap"), ("starttls", "STARTTLS", "imap"), ("tls", "IMAPS", "imaps")):
        where = room.work("mbsync-" + kind)
        os.mkdir(os.path.join(where, "mail"))
        rc = os.path.join(where, "rc")

        def sync(password, want=0):
            write(rc, MBSYNC.format(port=room.daemon.port(port), password=password, ssl=ssl, ca=room.ca, room=where))
            return run(["mbsync", "-c", rc, "-D", "all"], where, want=want)

        said = sync("wrong", want=1)
        assert "AUTHENTICATIONFAILED" in said, said[-700:]
        said = sync(SECRET)
        assert "AUTHENTICATE SCRAM-SHA-256" in said or "mechanism SCRAM-SHA-256" in said, said[:3000]
        assert SECRET not in said
        have = [data for _, data in maildir(os.path.join(where, "mail", "INBOX")).values()]
        trace = wire.TRACE.pattern.replace(rb"\r\n", rb"\n")
        have = [re.sub(rb"(?m)^X-TUID: [^\n]*\n", b"", data, count=1) for data in have]  # its own mark
        same_set([data[re.match(trace, data).end():] for data in have], [lf(m) for m in room.messages], "INBOX")


NEOMUTT = """set imap_user = "ann"
set imap_pass = "{password}"
set pop_user = "ann"
set pop_pass = "{password}"
set folder = "."
set spool_file = "{url}"
set record = ""
set certificate_file = "{ca}"
set ssl_verify_dates = no
set ssl_starttls = no
set ssl_force_tls = no
set header_cache = ""
set wait_key = no
set quit = yes
set delete = yes
set confirm_append = no
set confirm_create = no
set timeout = 1
{more}
push "<tag-pattern>~A<enter><tag-prefix><copy-message>{room}/all<enter><quit>"
"""


def neomutt(room, name, protocol, more=""):
    """Every message, read and saved; what it wrote of what it did."""
    where = room.work("neomutt-%s-%s" % (name, protocol))
    rc = os.path.join(where, "rc")
    url = "%s://localhost:%d/" % (protocol.replace("3", ""), room.daemon.port(protocol))
    write(rc, NEOMUTT.format(password=SECRET, url=url, ca=room.ca, room=where, more=more))
    on_terminal(["neomutt", "-n", "-F", rc, "-d", "2", "-l", os.path.join(where, "debug")], where)
    with open(os.path.join(where, "all"), "rb") as f:
        saved = f.read()
    for m in room.messages:
        assert lf(m).split(b"\n\n", 1)[1].strip(b"\n") in saved
    with open(os.path.join(where, "debug0"), encoding="utf-8", errors="replace") as f:
        return f.read()


@check("neomutt")
def neomutt_scram(room):
    """By POP3 its GNU SASL takes the best that is offered (-PLUS too, which it cannot do: hence the setting); by IMAP
    it comes after PLAIN, and cannot be named."""
    for protocol in ("pop3", "pop3s"):
        said = neomutt(room, "scram", protocol)
        assert re.search(r"AUTH SCRAM-SHA-256", said), said[:3000]


@check("neomutt")
def neomutt_token(room):
    """It asks a program for the token."""
    for mechanism in ("oauthbearer", "xoauth2"):
        neomutt(room, mechanism, "imaps", 'set imap_authenticators = "%s"\nset imap_oauth_refresh_command = "echo %s"'
                % (mechanism, room.token()))


@check("node")
def imapflow(room):
    if not os.path.isdir(IMAPFLOW):
        return "imapflow is not in build/imapflow (make deps-test)"
    with open(room.ca, encoding="utf-8") as f:
        ca = f.read()
    for token, want in ((room.token(), 0), (room.token(aud="web"), 1)):
        settings = {"port": room.daemon.port("imaps"), "secure": True, "ca": ca, "name": "ann", "token": token}
        done = subprocess.run(["node", os.path.join(HERE, "imapflow", "token.js")], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60, check=False,
                              env={**os.environ, "NODE_PATH": IMAPFLOW, "CHECK": json.dumps(settings)})
        wire.equal(done.returncode, want, "exit of imapflow: %s" % done.stderr.decode()[-600:])
        if want == 0:
            wire.equal(json.loads(done.stdout)["exists"], len(room.messages), "messages")
        else:
            assert b"AUTHENTICATIONFAILED" in done.stderr, done.stderr
    return None


@check("msmtp")
def msmtp_token(room):
    for mechanism in ("oauthbearer", "xoauth2"):
        for token, want in ((room.token(), 0), (room.token(iss="https://evil.example"), 77)):
            done = subprocess.run(["msmtp", "-C", "/dev/null", "--host=localhost", "--tls=on",
                                   "--port=%d" % room.daemon.port("submission"), "--tls-trust-file=" + room.ca,
                                   "--auth=" + mechanism, "--user=ann", "--passwordeval=echo " + token,
                                   "--from=ann@mail.example.test", "bob@mail.example.test"],
                                  input=b"Subject: by %s\n\ntext\n" % mechanism.encode(), stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=60, check=False)
            wire.equal(done.returncode, want, done.stdout)


OFFLINEIMAP = """[general]
accounts = A
metadata = {room}/meta
ui = basic
[Account A]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {room}/mail
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = ann
auth_mechanisms = XOAUTH2
oauth2_access_token = {token}
starttls = no
ssl = yes
sslcacertfile = {ca}
"""


@check("offlineimap")
def offlineimap_token(room):
    where = room.work("offlineimap")
    rc = os.path.join(where, "rc")
    write(rc, OFFLINEIMAP.format(room=where, port=room.daemon.port("imaps"), ca=room.ca, token=room.token()))
    run(["offlineimap", "-c", rc, "-o", "-1"], where)
    wire.equal(len(maildir(os.path.join(where, "mail", "INBOX"))), len(room.messages), "messages")


@check("curl")
def curl_scram(room):
    """Only where curl has a SASL library: Debian's own has none."""
    version = run(["curl", "-V"], room.folder)
    if "gsasl" not in version:
        return "this curl knows no SCRAM"
    for mechanism in ("SCRAM-SHA-256",):
        for url in ("imap://127.0.0.1:%d/INBOX;UID=1" % room.daemon.port("imap"),
                    "pop3://127.0.0.1:%d/1" % room.daemon.port("pop3")):
            said = run(["curl", "-sS", "--user", "ann:" + SECRET, "--login-options", "AUTH=" + mechanism, url],
                       room.folder)
            assert "ann 0" in said, said
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("-k", dest="only", default="", help="only checks with this in their name")
    args = parser.parse_args()
    passed = failed = skipped = 0
    folder = tempfile.mkdtemp(prefix="tambo-test-")
    with open(os.path.join(folder, "keys.json"), "w", encoding="utf-8") as f:
        f.write(SOME_KEY)
    settings = {"scram_plus": "false", "oauth_issuer": ISSUER, "oauth_audience": AUDIENCE, "oauth_jwks": "../keys.json"}
    with Daemon(io=args.io, build=args.build, accounts=["ann", "bob"], config=settings, directory=folder) as d:
        room = Room(d, folder)
        for one, programs in CHECKS:
            if args.only not in one.__name__:
                continue
            reason = next(("%s is not installed" % p for p in programs + ("openssl",) if not shutil.which(p)), None)
            try:
                before = room.logins()
                reason = reason or one(room)
                assert reason or room.logins() > before, "nobody has logged in"
                if reason:
                    print("SKIP %s: %s" % (one.__name__, reason))
                skipped += bool(reason)
                passed += not reason
            except Exception:  # whatever it is, it is this check's failure
                failed += 1
                print("FAIL %s" % one.__name__)
                traceback.print_exc(file=sys.stdout)
    shutil.rmtree(folder)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
