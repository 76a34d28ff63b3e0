"""A SCRAM-SHA-256 client (RFC 5802, RFC 7677), and SASL exchanges over IMAP, POP3 and submission.

Channel binding: Python's ssl tells no exported keys, so -PLUS is bound by tls-server-end-point (RFC 5929 4) here; what
GnuTLS exports (tls-exporter) is tried with gsasl.
"""
import base64
import hashlib
import hmac
import os

from wire import Line, Refused


def b64(data):
    return base64.b64encode(data)


class Scram:
    """One exchange: first(), final(server-first), then the server's verifier is checked by verify()."""

    def __init__(self, user, password, header=b"n,,", binding=b"", authzid=""):
        self.password = password.encode()
        self.header = header[:-1] + (b"a=" + authzid.encode() if authzid else b"") + b","
        self.binding = binding
        self.nonce = b64(os.urandom(18))
        name = user.replace("=", "=3D").replace(",", "=2C").encode()
        self.bare = b"n=" + name + b",r=" + self.nonce
        self.salt = self.rounds = None
        self.server_signature = b""

    def first(self):
        return self.header + self.bare

    def final(self, challenge, nonce=None):
        fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
        assert fields[b"r"].startswith(self.nonce) and len(fields[b"r"]) > len(self.nonce) + 16, challenge
        self.salt, self.rounds = base64.b64decode(fields[b"s"], validate=True), int(fields[b"i"])
        salted = hashlib.pbkdf2_hmac("sha256", self.password, self.salt, self.rounds)
        client = hmac.digest(salted, b"Client Key", "sha256")
        bare = b"c=" + b64(self.header + self.binding) + b",r=" + (nonce or fields[b"r"])
        auth = self.bare + b"," + challenge + b"," + bare
        signature = hmac.digest(hashlib.sha256(client).digest(), auth, "sha256")
        self.server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth, "sha256")
        return bare + b",p=" + b64(bytes(a ^ b for a, b in zip(client, signature)))

    def verify(self, message):
        assert message == b"v=" + b64(self.server_signature), message


class Sasl:
    """A connection that has not logged in; protocol: imap, pop3 or submission."""

    def __init__(self, daemon, protocol, tls=False, certificate=None):
        self.protocol = protocol
        self.line = Line(daemon, protocol, tls or bool(certificate), certificate=certificate)
        self.ended = None
        if protocol == "submission":
            self.line.send(b"EHLO client.example.test\r\n")
            while self.line.line()[3:4] == b"-":
                pass

    def mechanisms(self):
        """The list that is offered."""
        if self.protocol == "imap":
            self.line.send(b"c CAPABILITY\r\n")
            words = self.line.line().split()
            self.line.line()
            return [w[5:].decode() for w in words if w.startswith(b"AUTH=")]
        if self.protocol == "pop3":
            self.line.send(b"CAPA\r\n")
            lines = []
            while (line := self.line.line()) != b".":
                lines.append(line)
            return [w.decode() for line in lines if line.startswith(b"SASL ") for w in line.split()[1:]]
        self.line.send(b"EHLO client.example.test\r\n")
        lines = []
        while True:
            lines.append(self.line.line())
            if lines[-1][3:4] != b"-":
                break
        return [w.decode() for line in lines if line[4:].startswith(b"AUTH ") for w in line[4:].split()[1:]]

    def begin(self, mechanism, initial=None):
        """The server's first word: a challenge, decoded; or what ends it in self.ended, and None."""
        verb = {"imap": b"a AUTHENTICATE ", "pop3": b"AUTH ", "submission": b"AUTH "}[self.protocol]
        text = verb + mechanism.encode()
        if initial is not None:
            if self.protocol == "pop3":  # a line of at most 255 octets (RFC 5034 4): wait to be asked
                self.line.send(text + b"\r\n")
                answer = self._answer()
                return answer if answer is None else self.say(initial)
            text += b" " + (b64(initial) or b"=")
        self.line.send(text + b"\r\n")
        return self._answer()

    def say(self, message):
        self.line.send(b64(message) + b"\r\n")
        return self._answer()

    def _answer(self):
        line = self.line.line()
        head = b"334 " if self.protocol == "submission" else b"+ "
        if line.startswith(head):
            return base64.b64decode(line[len(head):], validate=True)
        self.ended = line
        return None

    def good(self):
        return bool(self.ended) and self.ended.startswith(
            {"imap": b"a OK", "pop3": b"+OK", "submission": b"235"}[self.protocol])

    def scram(self, client, mechanism="SCRAM-SHA-256", nonce=None):
        """A whole exchange; Refused with the server's last line."""
        challenge = self.begin(mechanism, client.first())
        if challenge is not None:
            challenge = self.say(client.final(challenge, nonce))
        if challenge is not None:
            client.verify(challenge)
            challenge = self.say(b"")
        if not self.good():
            raise Refused(self.ended.decode())

    def plain(self, user, password, authzid=""):
        assert self.begin("PLAIN", "\0".join((authzid, user, password)).encode()) is None
        if not self.good():
            raise Refused(self.ended.decode())

    def end_point(self):
        """tls-server-end-point of a certificate that is signed with SHA-256."""
        return hashlib.sha256(self.line.sock.getpeercert(binary_form=True)).digest()

    def close(self):
        self.line.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
