"""JSON Web Tokens and key sets for tests, made with the openssl program (another implementation than the server's)."""
import base64
import hashlib
import hmac
import json
import os
import subprocess
import tempfile


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _openssl(*args, stdin=b""):
    return subprocess.run(("openssl",) + args, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          check=True).stdout


def _raw(der, size):
    """An ECDSA signature in DER as R and S of so many bytes each."""
    at = 3 if der[1] & 0x80 else 2
    out = b""
    for _ in range(2):
        n = der[at + 1]
        out += int.from_bytes(der[at + 2:at + 2 + n], "big").to_bytes(size, "big")
        at += 2 + n
    return out


class Key:
    """alg: RS256 PS256 ES256 ES384 EdDSA."""

    def __init__(self, alg, kid, bits=2048):
        self.alg, self.kid = alg, kid
        kind = {"RS": ["RSA", "-pkeyopt", "rsa_keygen_bits:%d" % bits], "PS": ["RSA"],
                "ES": ["EC", "-pkeyopt", "ec_paramgen_curve:P-" + alg[2:]], "Ed": ["ED25519"]}[alg[:2]]
        self.pem = _openssl("genpkey", "-algorithm", *kind)
        self.public = _openssl("pkey", "-pubout", "-outform", "DER", stdin=self.pem)

    def jwk(self, **more):
        j = {"kid": self.kid, "use": "sig", "alg": self.alg}
        if self.alg[:2] in ("RS", "PS"):
            modulus = _openssl("rsa", "-modulus", "-noout", stdin=self.pem).decode().strip().split("=")[1]
            j.update(kty="RSA", n=b64url(bytes.fromhex(modulus)), e="AQAB")
        elif self.alg[:2] == "ES":
            size = int(self.alg[2:]) // 8
            j.update(kty="EC", crv="P-" + self.alg[2:], x=b64url(self.public[-2 * size:-size]),
                     y=b64url(self.public[-size:]))
        else:
            j.update(kty="OKP", crv="Ed25519", x=b64url(self.public[-32:]))
        j.update(more)
        return {k: v for k, v in j.items() if v is not None}

    def sign(self, text):
        with tempfile.TemporaryDirectory() as folder:
            key, data = os.path.join(folder, "key"), os.path.join(folder, "data")
            with open(key, "wb") as f:
                f.write(self.pem)
            with open(data, "wb") as f:
                f.write(text)
            if self.alg == "EdDSA":
                return _openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", data)
            options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"] if self.alg[0] == "P" else []
            made = _openssl("dgst", "-sha" + self.alg[2:], "-sign", key, *options, data)
            return _raw(made, int(self.alg[2:]) // 8) if self.alg[0] == "E" else made

    def token(self, claims, **header):
        head = {"typ": "JWT", "alg": self.alg, "kid": self.kid, **header}
        text = (b64url(json.dumps({k: v for k, v in head.items() if v is not None}).encode()) + "." +
                b64url(json.dumps(claims).encode()))
        if head["alg"] == "none":
            return text + "."
        if head["alg"] == "HS256":  # signed with what everybody knows: the public key
            return text + "." + b64url(hmac.digest(self.public, text.encode(), hashlib.sha256))
        return text + "." + b64url(self.sign(text.encode()))


def key_set(*jwks):
    return json.dumps({"keys": list(jwks)})
