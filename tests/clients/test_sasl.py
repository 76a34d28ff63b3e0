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
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import jwt  # noqa: E402
from scram import Sasl, Scram  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402
from wire import Refused, equal  # noqa: E402

CHECKS = []
PROTOCOLS = ("imap", "pop3", "submission")
FAILED = {"imap": "a NO [AUTHENTICATIONFAILED]", "pop3": "-ERR [AUTH]", "submission": "535 5.7.8"}
# RFC 8037 A.2
SOME_KEY = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
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


def imported(d, lines, *options):
    path = os.path.join(d.dir, "more")
    with open(path, "w", encoding="utf-8") as f:
        f.write("".join(line + "::::::\n" for line in lines))
    return d.tambo("account", "import", path, *options, check=False)


@check()
def imported_for_scram(d):
    """What comes in clear is hashed when that is asked for; by a running daemon and without one."""
    lines = ["c%d:{PLAIN}pass word %d" % (i, i) for i in range(100)]
    done = imported(d, lines + ["old:" + SSHA, "ann:{PLAIN}fresh"], "--scheme", "SCRAM-SHA-256")
    equal(done.stdout, b"101 added, 1 updated, 0 skipped, 0 failed\n", done.stderr)
    for name, want in (("c0", "SCRAM-SHA-256"), ("c99", "SCRAM-SHA-256"), ("ann", "SCRAM-SHA-256"), ("old", "SSHA"),
                       ("bob", "PLAIN")):
        equal(scheme(d, name), want, name)
    d.tambo("account", "delete", "old", "--yes")
    for protocol in PROTOCOLS:
        try_scram(d, protocol, Scram("c99", "pass word 99"))
        refused(lambda: try_scram(d, protocol, Scram("c98", "pass word 99")), FAILED[protocol])
    try_scram(d, "imap", Scram("ann", "fresh"))
    d.stop()
    equal(imported(d, ["ann:{PLAIN}again"], "--scheme", "ARGON2ID").returncode, 0)
    equal(scheme(d, "ann"), "ARGON2ID")
    done = imported(d, ["ann:{PLAIN}x", "bob:{PLAIN}y"], "--scheme", "ROT13")
    assert done.returncode == 65 and b"more:2: the scheme is not known" in done.stderr, done.stderr
    equal(imported(d, ["ann:{PLAIN}again"]).returncode, 0)
    equal(scheme(d, "ann"), "PLAIN")
    d.start()
    try_scram(d, "imap", Scram("ann", "again"))


def secrets():
    """Those of the unit test, all of "secret"; and what the tools that are here make of it now."""
    with open(os.path.join(os.path.dirname(HERE), "unit", "auth", "test_password.c"), encoding="utf-8") as f:
        text = f.read()
    out = []
    for literals in re.findall(r'((?:"[^"\n]*"\s*)+),', text[text.index("good[] = {"):text.index("bad[] = {")]):
        out.append("".join(re.findall(r'"([^"]*)"', literals)))
    methods = ("yescrypt", "scrypt", "bcrypt", "sha512crypt", "sha256crypt", "md5crypt")
    for method in methods if shutil.which("mkpasswd") else ():
        cost = ["-R", "6"] if method in ("scrypt", "bcrypt") else []
        out.append("{CRYPT}" + run("mkpasswd", "-m", method, *cost, "secret").stdout.decode().strip())
    for name in ("ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT", "PBKDF2", "SCRAM-SHA-256", "SSHA512",
                 "CRAM-MD5") if shutil.which("doveadm") else ():
        out.append(run("doveadm", "-O", "pw", "-s", name, "-p", "secret").stdout.decode().strip())
    return out


@check()
def schemes_of_others(d):
    """Imported as they are, each logs in; and as SCRAM's own keys by SCRAM."""
    found = secrets()
    assert len(found) > 55, len(found)
    done = imported(d, ["s%d:%s" % (i, secret) for i, secret in enumerate(found)])
    equal(done.stdout, b"%d added, 0 updated, 0 skipped, 0 failed\n" % len(found), done.stderr)
    for i, secret in enumerate(found):
        try:
            with Sasl(d, PROTOCOLS[i % 3]) as c:
                c.plain("s%d" % i, "secret")
            with Sasl(d, PROTOCOLS[i % 3]) as c:
                refused(lambda: c.plain("s%d" % i, "Secret"), FAILED[PROTOCOLS[i % 3]])
        except Refused as e:
            raise AssertionError("%s: %s" % (secret, e)) from e


@check(scram="always")
def scram_of_doveadm(d):
    keys = [s for s in secrets() if s.startswith("{SCRAM-SHA-256}")]
    assert keys
    imported(d, ["s%d:%s" % (i, secret) for i, secret in enumerate(keys)])
    for i in range(len(keys)):
        for protocol in PROTOCOLS:
            try_scram(d, protocol, Scram("s%d" % i, "secret"))
        refused(lambda: try_scram(d, "imap", Scram("s%d" % i, "Secret")), FAILED["imap"])


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


ISSUER, AUDIENCE = "https://id.example.test", "mail"


def claims(**more):
    now = int(time.time())
    all_of_them = {"iss": ISSUER, "aud": AUDIENCE, "email": "ann@mail.example.test", "iat": now, "nbf": now - 5,
                   "exp": now + 600, **more}
    return {k: v for k, v in all_of_them.items() if v is not None}


def bearer(token, user="ann"):
    authzid = b"a=" + user.encode() if user else b""
    return b"n,%s,\1host=localhost\1port=143\1auth=Bearer %s\1\1" % (authzid, token.encode())


def xoauth2(token, user="ann"):
    return b"user=%s\1auth=Bearer %s\1\1" % (user.encode(), token.encode())


def try_token(d, message, mechanism="OAUTHBEARER", protocol="imap"):
    """Refused with the last line, and what the server said before it."""
    with Sasl(d, protocol) as c:
        said = c.begin(mechanism)
        assert said == b"", (said, c.ended)
        said = c.say(message)
        if said is not None:
            assert c.say(b"\1") is None
        if not c.good():
            raise Refused((c.ended + b" | " + (said or b"")).decode())


@check(oauth_issuer=ISSUER, oauth_audience=AUDIENCE, oauth_jwks="../keys.json", master_users='{ "bob" }')
def tokens(d):
    if not shutil.which("openssl"):
        return "openssl is not installed"
    keys = {alg: jwt.Key(alg, "k" + alg) for alg in ("RS256", "PS256", "ES256", "ES384", "EdDSA")}
    path = os.path.join(d.dir, "keys.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(jwt.key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "kES256"}, *(k.jwk() for k in keys.values())))
    d.kill()
    d.start()
    for protocol in PROTOCOLS:
        with Sasl(d, protocol) as c:
            equal(c.mechanisms()[-2:], ["OAUTHBEARER", "XOAUTH2"])
        for key in keys.values():
            try_token(d, bearer(key.token(claims())), protocol=protocol)
        try_token(d, xoauth2(keys["RS256"].token(claims())), "XOAUTH2", protocol)
    key = keys["ES256"]
    try_token(d, bearer(key.token(claims(aud=["other", AUDIENCE])), ""))
    try_token(d, bearer(key.token(claims(exp=int(time.time()) + 9.5, nbf=None), kid=None)))
    try_token(d, bearer(key.token(claims(email="bob")), "ann"))  # a master
    good = key.token(claims())
    head, body, sign = good.split(".")
    bad = {
        "none": key.token(claims(), alg="none"), "hmac": key.token(claims(), alg="HS256"),
        "another key's name": key.token(claims(), kid="kEdDSA"), "no such key": key.token(claims(), kid="x"),
        "another algorithm": key.token(claims(), alg="RS256"), "crit": key.token(claims(), crit=["x"]),
        "issuer": key.token(claims(iss="https://evil.example")), "no issuer": key.token(claims(iss=None)),
        "audience": key.token(claims(aud="web")), "no audience": key.token(claims(aud=None)),
        "audiences": key.token(claims(aud=["web", 1])), "no exp": key.token(claims(exp=None)),
        "exp text": key.token(claims(exp="9999999999")), "not yet": key.token(claims(nbf=int(time.time()) + 900)),
        "no name": key.token(claims(email=None)), "empty name": key.token(claims(email="")),
        "nobody": key.token(claims(email="nobody")), "stranger's key": jwt.Key("ES256", "kES256").token(claims()),
        "changed": head + "." + jwt.b64url(json.dumps(claims(email="bob")).encode()) + "." + sign,
        "cut": good[:-4], "two parts": head + "." + body, "rubbish": "x.y.z", "no signature": head + "." + body + ".",
    }
    for name, token in bad.items():
        for text, mechanism in ((bearer(token), "OAUTHBEARER"), (xoauth2(token), "XOAUTH2")):
            try:
                try_token(d, text, mechanism)
            except Refused as e:
                want = '{"status":"401"' if mechanism == "XOAUTH2" else '{"status":"invalid_token"'
                code = "a NO [CONTACTADMIN]" if name == "nobody" else "a NO [AUTHENTICATIONFAILED]"
                assert code in str(e) and want in str(e), (name, str(e))
                if mechanism == "OAUTHBEARER":
                    error = json.loads(str(e).split(" | ")[1])
                    equal(error["openid-configuration"], ISSUER + "/.well-known/openid-configuration")
            else:
                raise AssertionError("taken: " + name)
    refused(lambda: try_token(d, bearer(key.token(claims(exp=int(time.time()) - 100)))), "a NO [EXPIRED]")
    refused(lambda: try_token(d, bearer(good, "bob")), "a NO [AUTHORIZATIONFAILED]")
    for text in (b"", b"\1", b"n,,", b"n,,\1", b"n,,\1\1", b"n,,\1auth=Bearer \1\1", b"n,,\1auth=Basic x\1\1",
                 b"n,,\1auth=Bearer x\1", b"p=x,,\1auth=Bearer x\1\1", b"n,,\1auth=Bearer x\1auth=Bearer y\1\1"):
        refused(lambda: try_token(d, text), "a NO [AUTHENTICATIONFAILED]")
    # other keys, without a restart
    other = jwt.Key("ES256", "new")
    with open(path, "w", encoding="utf-8") as f:
        f.write(jwt.key_set(other.jwk(alg=None, use=None)))
    refused(lambda: try_token(d, bearer(other.token(claims()))), "a NO")
    with open(path, "a", encoding="utf-8") as f:
        f.write("rubbish")
    reload(d, "reload failed")
    try_token(d, bearer(good))
    with open(path, "w", encoding="utf-8") as f:
        f.write(jwt.key_set(other.jwk(alg=None, use=None)))
    reload(d, "reloaded")
    try_token(d, bearer(other.token(claims())))
    refused(lambda: try_token(d, bearer(good)), "a NO")
    return None


def reload(d, want):
    before = open(d.log_path).read().count(want)
    d.process.send_signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while open(d.log_path).read().count(want) == before:
        assert time.monotonic() < until, "no line \"%s\"" % want
        time.sleep(0.02)


@check(oauth_issuer=ISSUER, oauth_audience=AUDIENCE, oauth_jwks="../keys.json")
def curl_with_a_token(d):
    if not shutil.which("openssl") or not shutil.which("curl"):
        return "openssl or curl is not installed"
    key = jwt.Key("ES256", "k")
    with open(os.path.join(d.dir, "keys.json"), "w", encoding="utf-8") as f:
        f.write(jwt.key_set(key.jwk()))
    reload(d, "reloaded")
    d.deliver("ann", b"Subject: for curl\r\n\r\ntext\r\n")
    for mechanism in ("OAUTHBEARER", "XOAUTH2"):
        common = ["curl", "-sS", "--user", "ann", "--login-options", "AUTH=" + mechanism, "--oauth2-bearer"]
        good, bad = key.token(claims()), key.token(claims(aud="web"))
        for url in ("imap://127.0.0.1:%d/INBOX;UID=1" % d.port("imap"), "pop3://127.0.0.1:%d/1" % d.port("pop3")):
            done = run(*common, good, url)
            assert done.returncode == 0 and b"Subject: for curl" in done.stdout, done.stdout
            assert run(*common, bad, url).returncode == 67, url
        url = "smtp://127.0.0.1:%d" % d.port("submission")
        send = ["--mail-from", "ann@mail.example.test", "--mail-rcpt", "ann@mail.example.test", "-T", "-"]
        done = run(*common, good, url, *send, stdin=b"Subject: by curl\r\n\r\ntext\r\n")
        equal(done.returncode, 0, done.stdout)
        assert run(*common, bad, url, *send, stdin=b"x\r\n").returncode == 67
    return None


class Certificates:
    """An authority and what it signs, made with openssl."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                  self.path(name + ".key"), "-out", self.path(name + ".crt"), "-subj", "/CN=" + name, "-days", "2")

    def path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def _run(*args):
        subprocess.run(("openssl",) + args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=True)

    def client(self, name, names, subject="/CN=somebody"):
        """(certificate, key) with these alternative names."""
        with open(self.path("ext"), "w", encoding="utf-8") as f:
            f.write("extendedKeyUsage=clientAuth\n" + ("subjectAltName=%s\n" % names if names else ""))
        self._run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                  self.path(name + ".key"), "-out", self.path("csr"), "-subj", subject)
        self._run("x509", "-req", "-in", self.path("csr"), "-CA", self.path(self.name + ".crt"), "-CAkey",
                  self.path(self.name + ".key"), "-CAcreateserial", "-days", "2", "-extfile", self.path("ext"), "-out",
                  self.path(name + ".crt"))
        return self.path(name + ".crt"), self.path(name + ".key")


def with_certificate(d, protocol, pair, authzid=b""):
    """Refused with the last line; ConnectionError or ssl.SSLError when the certificate is not taken."""
    with Sasl(d, protocol, certificate=pair) as c:
        if "EXTERNAL" not in c.mechanisms():
            raise Refused("not offered")
        if c.begin("EXTERNAL") == b"":
            c.say(authzid)
        if not c.good():
            raise Refused(c.ended.decode())


@check(tls_client_ca="../ca.crt", master_users='{ "bob" }')
def certificates(d):
    ours, theirs = Certificates(d.dir, "ca"), Certificates(d.dir, "other")
    reload(d, "reloaded")
    ann = ours.client("ann", "email:ann@mail.example.test,DNS:x.example")
    bob = ours.client("bob", "email:bob@mail.example.test")
    for protocol in PROTOCOLS:
        with Sasl(d, protocol, True) as c:
            assert "EXTERNAL" not in c.mechanisms()
            c.plain("ann", PASSWORD)  # nobody needs one
        with_certificate(d, protocol, ann)
        with_certificate(d, protocol, ann, b"Ann")
        with_certificate(d, protocol, bob, b"ann")  # a master
        refused(lambda: with_certificate(d, protocol, ann, b"bob"),
                {"imap": "a NO [AUTHORIZATIONFAILED]", "pop3": "-ERR [AUTH]", "submission": "535"}[protocol])
        for bad in (ours.client("two", "email:ann@mail.example.test,email:bob@mail.example.test"),
                    ours.client("cn", "DNS:ann", "/CN=ann"), ours.client("nothing", "")):
            refused(lambda: with_certificate(d, protocol, bad), "not offered")
        refused(lambda: with_certificate(d, protocol, ours.client("nobody", "email:nobody@mail.example.test")),
                {"imap": "a NO [CONTACTADMIN]", "pop3": "-ERR [SYS/PERM]", "submission": "535"}[protocol])
        try:
            with_certificate(d, protocol, theirs.client("liar", "email:ann@mail.example.test"))
        except (ssl.SSLError, ConnectionError, Refused) as e:
            assert "not offered" not in str(e), e
        else:
            raise AssertionError("another authority's certificate was taken")
    log = open(d.log_path).read()
    assert log.count("reason=unknown") == len(PROTOCOLS)
    done = run("curl", "-sSk", "--user", "ann:", "--login-options", "AUTH=EXTERNAL", "--cert", ann[0], "--key", ann[1],
               "imaps://localhost:%d/" % d.port("imaps"))
    assert done.returncode == 0 and b"LIST" in done.stdout, done.stdout


@check(tls_client_ca="../ca.crt", tls_client_name="cn")
def certificates_by_common_name(d):
    ours = Certificates(d.dir, "ca")
    reload(d, "reloaded")
    with_certificate(d, "imap", ours.client("a", "email:bob@mail.example.test", "/O=x/CN=ann"))
    for subject in ("/O=x", "/CN=ann/CN=bob"):
        refused(lambda: with_certificate(d, "imap", ours.client("b", "", subject)), "not offered")


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
            folder = tempfile.mkdtemp(prefix="tambo-test-")
            with open(os.path.join(folder, "keys.json"), "w", encoding="utf-8") as f:
                f.write(SOME_KEY)
            if "tls_client_ca" in settings and not shutil.which("openssl"):
                print("SKIP %s: openssl is not installed" % one.__name__)
                skipped += 1
                continue
            if "tls_client_ca" in settings:
                Certificates(folder, "ca")
            settings = {"login_failures_account": 0, **settings}  # test_guessing.py has what this would mix in
            with Daemon(io=args.io, build=args.build, accounts=["ann", "bob"], config=settings, directory=folder) as d:
                reason = one(d)
            shutil.rmtree(folder)
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
