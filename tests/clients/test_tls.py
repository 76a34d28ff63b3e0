#!/usr/bin/env python3
"""What TLS offers, asked by sslscan: versions, suites, groups, renegotiation, on every port in its own way.

    test_tls.py [--io auto] [--build DIR]

What must be: TLS 1.2 and 1.3 alone, forward secrecy and AEADs alone, no renegotiation, no weak group. Also tried by
hand: a version too old, suites without either, early data, a name of another protocol (ALPACA).
Last line: "N passed, M failed".
"""
import argparse
import os
import re
import shutil
import ssl
import subprocess
import sys
import warnings
import xml.etree.ElementTree as xml

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from tambo import Daemon  # noqa: E402
from wire import Checks, equal  # noqa: E402

PORTS = (("imaps", None), ("pop3s", None), ("submissions", None), ("imap", "--starttls-imap"),
         ("pop3", "--starttls-pop3"), ("smtp", "--starttls-smtp"), ("submission", "--starttls-smtp"))
SUITES = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
          "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"}
GROUPS = {"x25519", "secp256r1 (NIST P-256)", "secp384r1 (NIST P-384)"}


def scan(port, how):
    command = ["sslscan", "--xml=-", "--no-colour"] + ([how] if how else [])
    done = subprocess.run(command + ["127.0.0.1:%d" % port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=120, check=True)
    return xml.fromstring(re.sub(rb"^[^<]*", b"", done.stdout)).find("ssltest")


def judge(found):
    equal({(p.get("type") + p.get("version"), p.get("enabled")) for p in found.iter("protocol")} - {("ssl2", "0")},
          {("ssl3", "0"), ("tls1.0", "0"), ("tls1.1", "0"), ("tls1.2", "1"), ("tls1.3", "1")}, "versions")
    equal({c.get("cipher") for c in found.iter("cipher")}, SUITES, "suites")
    equal({g.get("name") for g in found.iter("group")}, GROUPS, "groups")
    equal([r.get("supported") for r in found.iter("renegotiation")], ["0"], "renegotiation")
    equal({h.get("vulnerable") for h in found.iter("heartbleed")}, {"0"}, "heartbleed")


def refused(d, settings):
    """A handshake that must fail."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    settings(context)
    with d.connect("imaps", tls=False) as sock:
        try:
            context.wrap_socket(sock)
        except (ssl.SSLError, ConnectionError):
            return
    raise AssertionError("the handshake went well")


def old(context):
    warnings.simplefilter("ignore", DeprecationWarning)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1


def early_data(d):
    """A session that could be resumed with early data says how much (RFC 8446 4.2.10)."""
    path = os.path.join(d.dir, "session")
    subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % d.port("imaps"), "-tls1_3", "-ign_eof",
                    "-sess_out", path], input=b"a LOGOUT\r\n", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   timeout=60, check=False)
    said = subprocess.run(["openssl", "sess_id", "-in", path, "-noout", "-text"], stdout=subprocess.PIPE, timeout=60,
                          check=True).stdout
    assert b"TLS session ticket:" in said and b"Max Early Data: 0" in said, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    args = parser.parse_args()
    checks = Checks()
    with Daemon(io=args.io, build=args.build, accounts=["ann"]) as d:
        with checks.step("a version before 1.2"):
            refused(d, old)
        with checks.step("no forward secrecy"):
            refused(d, lambda c: (c.set_ciphers("kRSA"), setattr(c, "maximum_version", ssl.TLSVersion.TLSv1_2)))
        with checks.step("no AEAD"):
            refused(d, lambda c: (c.set_ciphers("ECDHE+AES:!AESGCM:!AESCCM"),
                                  setattr(c, "maximum_version", ssl.TLSVersion.TLSv1_2)))
        with checks.step("another protocol's name"):
            refused(d, lambda c: c.set_alpn_protocols(["http/1.1"]))
        with checks.step("no early data"):
            early_data(d)
        if shutil.which("sslscan"):
            for protocol, how in PORTS:
                with checks.step("sslscan %s" % protocol):
                    judge(scan(d.port(protocol), how))
        else:
            checks.skip("sslscan is not installed")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
