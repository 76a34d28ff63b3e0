#!/usr/bin/env python3
"""Write the seeds of the fuzz targets: tests/fuzz/corpus/NAME/*, small inputs that mean something.

    seeds.py [FOLDER]       default: tests/fuzz/corpus

Where they come from: the protocols' own dialogues (tests/proto), the golden store (tests/golden: real frames, records,
slots), and tables below. A file that is there already and is not made here (found-*: what once failed) is left alone.
Run again when a target's form of input changes; the result is the same for the same tree.
"""
import base64
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
PER_TARGET = 100
BYTES_MAX = 3000


class Corpus:
    def __init__(self, folder):
        self.folder = folder
        self.seen = {}

    def add(self, target, data):
        """A seed, unless there are enough or it is large."""
        names = self.seen.setdefault(target, set())
        name = hashlib.sha256(data).hexdigest()[:12]
        if len(names) >= PER_TARGET or len(data) > BYTES_MAX or name in names:
            return
        names.add(name)
        os.makedirs(os.path.join(self.folder, target), exist_ok=True)
        with open(os.path.join(self.folder, target, name), "wb") as f:
            f.write(data)

    def clean(self):
        """What an earlier run made and this one did not."""
        for target, names in self.seen.items():
            for name in os.listdir(os.path.join(self.folder, target)):
                if re.fullmatch(r"[0-9a-f]{12}", name) and name not in names:
                    os.remove(os.path.join(self.folder, target, name))


# ---- dialogues ----

def client_lines(path):
    """What the client says in a dialogue, with its literals; patterns and directives are left out."""
    out = []
    with open(path, "rb") as f:
        for line in f.read().split(b"\n"):
            if line.startswith(b"C: ") and b"{{" not in line:
                out.append(line[3:] + b"\r\n")
    return b"".join(out)


def dialogues(corpus):
    for protocol, target, head in (("imap", "session", b"\x02"), ("imap", "session", b"\x00"),
                                   ("pop3", "pop3", b"\x01"), ("pop3", "pop3", b"\x00"),
                                   ("smtp", "delivery", b"\x00"), ("smtp", "delivery", b"\x05"),
                                   ("smtp", "delivery", b"\x02")):
        folder = os.path.join(TESTS, "proto", protocol)
        for name in sorted(os.listdir(folder)):
            text = client_lines(os.path.join(folder, name))
            if name.endswith(".txt") and len(text) > 10:
                corpus.add(target, head + text[:BYTES_MAX - 1])


IMAP = [
    "SEARCH ALL", "UID SEARCH OR FROM a SUBJECT b NOT SEEN", 'SEARCH CHARSET UTF-8 TEXT gr\xc3\xbc',
    "SEARCH 1:*,3,*:2 UNDELETED", "SEARCH SINCE 1-Jan-2024 BEFORE 31-Dec-2030 LARGER 1 SMALLER 99999",
    "SEARCH (KEYWORD $Work (UNKEYWORD x (NOT (1))))", "SEARCH HEADER Message-ID <a@b> UID 1:3",
    "UID SEARCH RETURN (UPDATE CONTEXT COUNT) DELETED KEYWORD $Junk", 'CANCELUPDATE "B01" "B02"',
    'ESEARCH IN (mailboxes "folder1" subtree-one (a b) selected personal) RETURN (COUNT) CHARSET UTF-8 UNSEEN 1:*',
    "SEARCH RETURN (MIN MAX COUNT) ALL", "SEARCH SENTON 7-Feb-1994 ON 7-Feb-1994",
    "FETCH 1:* (FLAGS UID INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)",
    "FETCH 1 BODY[HEADER.FIELDS.NOT (From To)]<0.20>", "FETCH 2 (BODY.PEEK[1.MIME] BODY[2.TEXT] BODY.PEEK[2.1])",
    "FETCH 4294967295:1 FULL", "UID FETCH *:1 BODY[]<4294967295.1>", "STORE 1:* +FLAGS.SILENT (\\Seen $x)",
    "UID STORE 1 FLAGS ()", "COPY 1:2 Archive", "UID MOVE 3 \"Trash\"", "EXPUNGE",
    "APPEND INBOX (\\Draft a) \"17-Jul-1996 02:44:25 -0700\" {5}\r\nhello", "APPEND x {3+}\r\nabc", "CREATE a/b/c/",
    "APPEND x {3+}\r\nabc (\\Seen) \" 7-Feb-1994 22:43:04 -0800\" ~{2+}\r\nde {1+}\r\nf",
    "APPEND x CATENATE (URL \"/INBOX;UIDVALIDITY=1/;UID=1/;SECTION=1.MIME\" TEXT {2+}\r\nab URL /;UID=1) {1+}\r\nc",
    "APPEND x (\\Draft) CATENATE (URL \"/INBOX/;UID=1/;SECTION=HEADER.FIELDS%20(A)/;PARTIAL=2.3\")",
    "REPLACE 1 x (\\Seen) {3+}\r\nabc", "UID REPLACE * x CATENATE (URL {4+}\r\n;UID TEXT {1+}\r\na)",
    "CREATE &ZeVnLIqe-", "RENAME INBOX old", "RENAME a/b d/e", 'LIST "" "*%*"',
    "LIST (SUBSCRIBED) \"\" (a% INBOX) RETURN (CHILDREN)", "LSUB \"\" %", "STATUS INBOX (MESSAGES UIDNEXT UNSEEN)",
    "NAMESPACE", "ID (\"name\" NIL)", "IDLE\r\nDONE", "NOTIFY NONE",
    "NOTIFY SET STATUS (selected (MessageNew (UID BODY.PEEK[HEADER.FIELDS (From)]) MessageExpunge FlagChange)) "
    "(subtree (a \"b c\") (MailboxName SubscriptionChange)) (mailboxes INBOX NONE) (personal ServerMetadataChange)",
    "AUTHENTICATE PLAIN\r\nAGFubgBzZWNyZXQ=",
    "SELECT {5+}\r\nINBOX", "UNSELECT", "CLOSE", "ENABLE X", "LOGOUT",
]
NAMES = [
    "INBOX", "&ZeVnLIqe-", "a&-b", "&Jjo!", "&AOkA6Q-", "&2D3eAA-", "&-", "~peter/mail/&U,BTFw-/&ZeVnLIqe-",
    "&AAA-", "&gh",
]
PATTERNS = [("*", "a/b"), ("%/%", "a/b"), ("a*b%c", "axxbyc"), ("*" * 20, "x" * 40), ("inb%", "INBOX")]


def imap(corpus):
    for i in range(0, len(IMAP), 2):
        lines = b"".join(b"%c%d %s\r\n" % (97 + k, i, c.encode("latin-1")) for k, c in enumerate(IMAP[i:i + 2]))
        corpus.add("session", b"\x02" + lines)
    for name in NAMES:
        corpus.add("imap", b"\x02" + name.encode())
    for pattern, name in PATTERNS:
        corpus.add("imap", b"\x03" + bytes([len(pattern)]) + pattern.encode() + name.encode())
    for command in IMAP:
        corpus.add("imap", b"\x00a " + command.encode("latin-1") + b"\r\n")
    for command in IMAP:
        if command.startswith(("APPEND", "REPLACE", "UID REPLACE")):
            corpus.add("imap", b"\x01a " + command.encode("latin-1").split(b"\r\n")[0] + b"\r\n")
    for where, text in ((1, " (\\Seen) {5}\r\n"), (1, "\r\n"), (2, ") {3}\r\n"),
                        (3, " URL \"/a/;UID=1\" TEXT {1}\r\n"), (3, ") CATENATE (URL x)\r\n"),
                        (1, " CATENATE (URL {4}\r\nabcd TEXT {1}\r\n")):
        corpus.add("imap", b"\x04" + bytes([where]) + text.encode())
    for url in ("/INBOX;UIDVALIDITY=1/;UID=1/;SECTION=1.MIME", ";UID=1", "/;UID=4294967295/;PARTIAL=1.2",
                "a/b%20c/;UID=1", "imap:///a;UIDVALIDITY=3/;UID=7/;SECTION=HEADER.FIELDS%20(A)/;PARTIAL=0",
                "//x/;UID=1", "%00/;UID=1"):
        corpus.add("imap", b"\x05" + bytes([len("A/B")]) + b"A/B" + url.encode())


DELIVERY = [
    (4, "BDAT 5\r\nhelloBDAT 0 LAST\r\n"), (4, "BDAT 12 LAST\r\nSubject: x\r\n"), (4, "BDAT 99999999999 LAST\r\n"),
    (5, "BDAT 3\r\nabcRSET\r\nBDAT 2 LAST\r\nxy"), (4, "DATA\r\n..dot\r\n.\r\n"), (5, "DATA\r\na\n.\nb\r\n.\r\n"),
    (5, "DATA\r\na\r\n.\rb\r\n.\r\nQUIT\r\n"), (2, "EHLO x\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n"),
    (2, "EHLO x\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\n"),
    (6, "MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<bob>\r\nDATA\r\nx\r\n.\r\n"),
    (0, 'LHLO [127.0.0.1]\r\nMAIL FROM:<@a,@b:c@d> SMTPUTF8\r\nRCPT TO:<"q \\" s"@mail.example.test>\r\n'),
    (1, "EHLO x\r\nMAIL FROM:<> RET=HDRS\r\nRCPT TO:<postmaster>\r\nVRFY ann\r\nEXPN x\r\nHELP\r\nNOOP\r\n"),
    (12, "BDAT 5\r\nhelloBDAT 0 LAST\r\n"), (20, "DATA\r\n..dot\r\n.\r\n"), (4, "STARTTLS\r\n"),
]
POP3 = [
    "STAT", "LIST", "LIST 1", "UIDL", "UIDL 2", "RETR 1", "TOP 1 0", "TOP 2 4294967295", "DELE 1", "RSET", "NOOP",
    "QUIT", "CAPA", "AUTH PLAIN AGFubgBzZWNyZXQ=", "AUTH", "USER ann\r\nPASS secret", "APOP a b", "RETR 0",
    "RETR 99999999999", "STLS",
]
CTL = [
    '{"verb": "stat"}', '{"verb": "account add", "args": {"name": "carl", "secret": "{PLAIN}x"}}',
    '{"verb": "account list", "args": {}}', '{"verb": "mailbox create", "args": {"account": "ann", "name": "a/b"}}',
    '{"verb": "mailbox list", "args": {"account": "ann"}}',
    '{"verb": "mailbox delete", "args": {"account": "ann", "name": "Junk"}}',
    '{"verb": "account import", "args": {"lines": "x:{PLAIN}y::::::\\n"}}',
    '{"verb": "account delete", "args": {"name": "bob"}}',
    '{"verb": "account passwd", "args": {"name": "ann", "password": "x", "scheme": "PLAIN"}}', "{\"verb\": 1}",
    "[]", '{"verb": "stat", "args": [[[[]]]]}', '{"a":{"b":{"c":"\\ud83d\\ude00"}}}', "nonsense",
    '{"verb":"stat"}{"verb":"stat"}',
]
PASSWD = [
    "ann:{PLAIN}secret::::::", "bob:$6$salt$hash:1:1:gecos:/h:/s:x=y", "x@y:{SHA512-CRYPT}$6$a$b", "a:*", "b:!x",
    "c", "#x", ":", "a:{ROT13}x", "d:{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaA",
    "e:{SSHA256.HEX}00", "f:{PLAIN.B64}eA==",
]
CONFIG = [
    "hostname = \"mail.example.test\"\n", "message_bytes_max = 100M\nworkers = 2\n",
    'local_domains = {"a.example", "b.example"}\n',
    'listen { protocol = "imap" address = "127.0.0.1" port = 143 tls = "starttls" }\n', "listen imap {\n}\n",
    "hostnam = \"x\"\n", "dedup = false\ntrash_days = 30\nplain_login = \"always\"\n",
    'io = "uring"\nio = "posix"\n', "checkpoint_ms = -1\n", "# comment\n/* c */\n", "store = \"\\x41\\n\"\n",
    "hostname = \"${HOME}\"\n", "include(\"/dev/null\")\n", "workers = 99999999999999999999\n", "listen {",
    "hostname = 'a'",
]
SASL = [
    "PLAIN\nAGFubgBzZWNyZXQ=\n", "PLAIN\n-\nAGFubgBzZWNyZXQ=\n", "LOGIN\n-\nYW5u\nc2VjcmV0\n",
    "LOGIN\nYW5u\nc2VjcmV0\n", "PLAIN\n=\n", "PLAIN\n-\n*\n", "plain\nYm9iAGFubgBzZWNyZXQ=\n", "X\n-\n",
    "PLAIN\n-\nAAA\n", "LOGIN\n-\n\n\n", "PLAIN\nYW5uAGFubgBzZWNyZXQ=\n",
    "SCRAM-SHA-256\nbiwsbj1hbm4scj1yT3ByTkdmd0ViZVJXZ2JORWtxTw==\n\n",
    "SCRAM-SHA-256\n-\nbixhPWJvYixuPWFubixyPXgseD0x\n",
    "OAUTHBEARER\nbixhPWFubiwBaG9zdD1oAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHgueS56AQE=\nAQ==\n",
    "XOAUTH2\n-\ndXNlcj1hbm4BYXV0aD1CZWFyZXIgeC55LnoBAQ==\nAQ==\n",
    "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "p=tls-exporter,a=x,n=u=2C=3D,r=x,z=1", "y,,m=1,n=u,r=x",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    "4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    "I\u00adX \u2168 e\u0301\u00a0\u200b",
]
JWT = [
    (0, '{"keys":[1,"two",{"a":null}],"x":-1.5e3}'), (0, '[true,[],{},"\\u00e9\\ud83d\\ude00"]'),
    (0, '"a\\n\\/"'), (0, "12.5"),
    (1, "eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ.e30.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt"
        "9g7sVvpAr_MuM0KAg"), (1, "eyJhbGciOiJub25lIn0.e30."), (1, "e30.e30.e30"),
    (2, "n,a=user@example.com,\1host=h\1port=143\1auth=Bearer x.y.z\1\1"), (2, "user=a\1auth=Bearer x\1\1"),
    (3, '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'),
    (3, '{"keys":[{"kty":"EC","crv":"P-256","kid":"1","use":"sig","alg":"ES256",'
        '"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}'),
    (3, '{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"AAAA"}]}'),
]
CERTIFICATES = [  # of openssl, in DER: names of every kind; two of a kind
    "MIIBsDCCAVagAwIBAgIUQo1ohWdWkZcn+U9duIlGQpeazmUwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EwHhcNMjYxMTIzMjMxMTU1WhcN"
    "MjYxMTI1MjMxMTU1WjAaMQowCAYDVQQKDAF4MQwwCgYDVQQDDANhbm4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATA0qkhCKp9GFM3dWY0"
    "Lf3W6IZVwtgY9UdTCSUJ9KsSlIlUubCllAzymzDqsbq7vviyOuW6b0HnORIiwjlhY1sXo4GGMIGDMBMGA1UdJQQMMAoGCCsGAQUFBwMCMCwG"
    "A1UdEQQlMCOBEGFubkBleGFtcGxlLnRlc3SCCXguZXhhbXBsZYcEfwAAATAdBgNVHQ4EFgQUa+bUdyR1ZR+T39wdznhcpsOl1MYwHwYDVR0j"
    "BBgwFoAUtyTSJLXumsDYUnck6LdSMD1yil8wCgYIKoZIzj0EAwIDSAAwRQIgZJPYIwV2bcytWK5m/8ynttZyt57M5/kpEviI3+haF4kCIQCG"
    "ocqy4qZwtW1a1dwYM3zHKRctuoDEsiINf01VdQvHLA==",
    "MIIBlDCCATmgAwIBAgIUQo1ohWdWkZcn+U9duIlGQpeazmYwCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2EwHhcNMjYxMTIzMjMxMTU1WhcN"
    "MjYxMTI1MjMxMTU1WjAYMQowCAYDVQQDDAFhMQowCAYDVQQDDAFiMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESKCZ6x7vF0z/rkbD7ndO"
    "qnXRLh8MZtKiNT5S1G/5hzuj+Gr7OZRjz+/fDWPqIUa1D/eLaGj6hn1sRXAv69WlnKNsMGowEwYDVR0lBAwwCgYIKwYBBQUHAwIwEwYDVR0R"
    "BAwwCoEDYUBigQNjQGQwHQYDVR0OBBYEFB+XpW+whP6sgpkqXCci8pfnEDs9MB8GA1UdIwQYMBaAFLck0iS17prA2FJ3JOi3UjA9copfMAoG"
    "CCqGSM49BAMCA0kAMEYCIQD8I6shuGpH76StdOtorWsBFp6nmIbx7CaRaJeutqSkBgIhAJF9cMSdKMBn5Kg7joIgPRYrTjd0t3mnHKv5t4ev"
    "sXn3",
]
MAILTEXT = [
    (0, "=?utf-8?Q?gr=C3=BC=C3=9Fe?= and =?iso-8859-1?B?4Pbk?="), (0, "=?utf-8*en?q?a?=\r\n =?UTF-8?b?4pyT?="),
    (0, "=?x?q?a?= =?utf-8?x?a?= =?utf-8?q?=?="), (1, "Mon, 7 Feb 1994 21:52:25 -0800 (PST)"),
    (1, "1 Jan 70 0:0 GMT"), (1, "(c (n)) Thu , 31 Feb 2024 25:61:61 EDT"), (1, "17-Jul-1996 02:44:25 -0700"),
    (1, "29 Feb 2000 23:59:60 +2400"), (2, "Ann <ann@example.test>, \"B, C\" <@x,@y:b@c>"),
    (2, "group: a@b, c@d;, (x) e@f (g)"), (2, "<>,,;:a@[1.2.3.4] \"\\"),
    (3, "Re: [list] Fwd: re(2): =?utf-8?q?x?= (fwd)"), (3, "[Fwd: [a] subject]"), (3, "Re: Re: Re:"),
    (4, "<a@b> <c@[1.2.3.4]> (x) <\"q\"@d>"), (4, "<<a@b>> <no at> <"),
    (5, "text/plain; charset=\"utf-8\"; name*0*=utf-8'en'%C3%BC; name*1=b; (c) x=y"),
    (5, 'multipart/mixed; boundary="a\\"b"; boundary=c'), (5, "x; ;=; a*=b; a*99=c"),
    (6, '\x03\x00\x02gr=C3=BC=\r\n=ZZ'), (6, '\x04\x01\x03GyRCJDIbKEI='), (6, '\x01\x02\x01\x83e\x83X'),
    (6, '\x00\x03\x02+AGEAYg-+2D3eAA-'), (6, '\x01\x06\x00\xfe\xff\xd8'),
]


def secrets():
    """The strings of the unit test's tables of password secrets."""
    with open(os.path.join(TESTS, "unit", "auth", "test_password.c"), encoding="utf-8") as f:
        text = f.read()
    for literals in re.findall(r'((?:"[^"\n]*"\s*)+),', text[:text.index("static void others")]):
        yield "".join(re.findall(r'"([^"]*)"', literals))


def tables(corpus):
    for head, text in DELIVERY:
        corpus.add("delivery", bytes([head]) + text.encode())
    for i in range(0, len(POP3), 2):
        corpus.add("pop3", b"\x01" + "".join(c + "\r\n" for c in POP3[i:i + 2]).encode())
    corpus.add("pop3", b"\x00" + "".join(c + "\r\n" for c in POP3).encode())
    for line in CTL:
        corpus.add("ctl", b"\x00" + line.encode() + b"\n")
    corpus.add("ctl", b"\x07" + "\n".join(CTL[:6]).encode() + b"\n")
    for line in PASSWD:
        corpus.add("ctl", b"\x00" + line.encode())
    for text in CONFIG:
        corpus.add("config", text.encode())
    corpus.add("config", "".join(CONFIG[:4]).encode())
    for text in SASL:
        corpus.add("sasl", text.encode())
    for text in secrets():
        corpus.add("password", text.encode() + b"\nsecret")
    for way, text in JWT:
        corpus.add("jwt", bytes([way]) + text.encode())
    for text in CERTIFICATES:
        corpus.add("certificate", base64.b64decode(text))
    for way, text in MAILTEXT:
        corpus.add("mailtext", bytes([way]) + text.encode("latin-1"))


MESSAGES = [
    "Subject: x\r\n\r\nbody\r\n",
    "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\na\r\n--b\r\n"
    "Content-Type: text/html\r\n\r\n<p>\r\n--b--\r\nend",
    "Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx",
    "\r\n",
    "no header at all",
    "Content-Type: multipart/digest; boundary=\"\"\r\n\r\n--\r\n\r\n--\r\n",
    "From: a@b\r\nTo: c@d,\r\n e@f\r\nDate: x\r\n: y\r\n\r\n",
    "Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n"
    "Content-Type: multipart/mixed; boundary=ab\r\n\r\n--ab\r\n\r\n1\r\n--a\r\n\r\n2\r\n--ab--\r\n--a--",
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    "4pyTIGdyw7zDn2U=\r\n",
]
PATHS = ["<a@b>", "<>", "<@a,@b:c@d>", "<\"a b\\\"\"@[127.0.0.1]> SIZE=5 BODY=8BITMIME", "<a@[IPv6:::1]>",
         "<" + "a" * 65 + "@b>", "<a@b", "a@b"]
DATA = [
    "a\r\n.\r\n", "..a\r\n.\r\n", ".\r\n", "a\n.\r\n", "a\r\n.\n", "Received: x\r\nReceived: y\r\n\r\n.\r\n",
    "a\r.\r\n.\r\n", "\r\n.\r\nMAIL",
]


def older(corpus):
    for text in MESSAGES:
        corpus.add("mime", b"\x01\x02" + text.encode())
    for text in PATHS:
        corpus.add("smtp", b"\x01" + text.encode())
    for i, text in enumerate(MESSAGES):
        corpus.add("codec", bytes([0, 0, len(text) & 255, 0, i % 6]) + text.encode())
    corpus.add("codec", b"\x00\x00\x40\xff\x03" + b"QUJDREVGR0hJSktMTU5P\r\n" * 20)
    for i, text in enumerate(DATA):
        corpus.add("smtp", bytes([2 * (i % 2), i]) + text.encode())


# ---- what a store holds ----

def golden():
    """{name: bytes} of the newest golden store."""
    paths = sorted(os.listdir(os.path.join(TESTS, "golden")))
    path = os.path.join(TESTS, "golden", [p for p in paths if p.endswith(".tar.zst")][-1])
    tar = subprocess.run(["zstd", "-dcq", "--long=24", path], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as t:
        return {m.name: t.extractfile(m).read() for m in t.getmembers() if m.isfile() and not m.name.endswith(".mdb")}


def frames_of(segment):
    at = 4096
    while True:
        magic, _, size, records = struct.unpack_from("<IIIH", segment, at)
        if magic != 0x31464254:
            return
        yield records, segment[at + 32:at + size]
        at += size


def records_of(content):
    at = 0
    while at + 16 <= len(content):
        kind, flags, _, size, _, acct = struct.unpack_from("<BBHIII", content, at)
        yield kind, flags, acct, content[at + 16:at + 16 + size]
        at += 16 + size


def piece(data):
    return struct.pack(">H", len(data)) + data


def stored(corpus):
    files = golden()
    slots = [files["store/SUPER"], files["store/shard-00/CKPT"]]
    for how in (0, 5, 15):
        both = [slots[0][:128], slots[0][65536:65664], slots[1][:216], slots[1][65536:65752]]
        corpus.add("slots", bytes([how]) + b"".join(both))
    kinds = {}
    for name in sorted(files):
        if not name.endswith(".seg"):
            continue
        for count, content in frames_of(files[name]):
            records = list(records_of(content))
            if len(content) < BYTES_MAX - 10:
                corpus.add("scan", b"\x01" + bytes([count - 1]) + piece(content))
                corpus.add("scan", b"\x02" + bytes([len(records) - 1]) + b"".join(
                    bytes([k, f, a & 255]) + piece(p) for k, f, a, p in records))
                corpus.add("apply", b"".join(bytes([k, f, a & 255]) + piece(p) for k, f, a, p in records))
            for kind, flags, _, payload in records:
                kinds.setdefault((kind, flags), []).append(payload)
                way = {1: 0, 3: 1}.get(kind)
                if way is not None:
                    corpus.add("payload", bytes([way, flags]) + payload)
                    if kind == 1 and len(payload) < 1000:
                        corpus.add("payload", bytes([2, 0]) + payload)
    for (kind, flags), payloads in sorted(kinds.items()):
        small = min(payloads, key=len)
        corpus.add("apply", bytes([kind, flags, 1]) + piece(small[:BYTES_MAX - 10]))


def row(uid, flags=0):
    return struct.pack("<IHHQQqqQIIQ", uid, flags, 0, uid, 0, 1, 1, uid, 100, 50, 0)


def blocks(corpus):
    rows = struct.pack("<HHIQ", 3, 0, 3, 3) + row(1) + row(2, 1) + row(3)
    cache = struct.pack("<HHIQ", 2, 0, 2, 0)
    cache += struct.pack("<IHHI", 1, 4, 0xffff, 4) + b"abcd" + struct.pack("<IHHI", 2, 1, 0xffff, 1) + b"x"
    change = struct.pack("<Q", 9) + bytes([1, 0x46, 1, 2]) + bytes([3, 0x58, 5, 0])
    steps = b"".join(struct.pack(">HHBB", i, 10, 3, i) for i in range(1, 10))
    for db, key, value in ((0, b"\x01", rows), (1, b"\x01", cache), (2, b"\x01\x00", change)):
        for cut in (len(value), len(value) - 1, 16, 9):
            corpus.add("blocks", bytes([db]) + key + piece(value[:cut]) + steps)
    corpus.add("blocks", b"\x00\x01" + piece(rows) + b"\x00\x03" + piece(rows) + b"\x01\x01" + piece(cache) + steps)


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def entry(*strings):
    return b"".join(varint(len(s)) + s for s in strings)


def later(corpus):
    """Records that the golden store has none of yet, against the seeds of fuzz_apply: type, flags, payload."""
    head = varint(5) + varint(5) + varint(0xffff) + b"\0\0\0\0" + varint(1)
    body = varint(4) + varint(8192) + varint(1) + b"\0\0\0\0" + varint(0)
    none = varint(0) + varint(0) + varint(0) + b"\0\0\0\0" + varint(0)
    row_1 = b"".join(varint(n) for n in (1, 1, 1, 1, 0, 3, 2, 2, 8197, 5, 0, 1)) + b"\x05$Work"
    whole = varint(1) + varint(1) + varint(0) + varint(4194400) + varint(4194405) + head + body
    whole += varint(0) + varint(1) + varint(len(row_1)) + row_1
    part = varint(0) + varint(1) + varint(0) + varint(0) + varint(4194405) + none + body + varint(0) * 3
    dictionary = struct.pack("<HBBIQqQQQ32s", 16, 0, 0, 8, 0, 5, 100, 90, 80, bytes(32))
    records = [
        (21, 0, dictionary + b"8 bytes!"), (21, 1, dictionary),
        (20, 0, whole + b"head bodyX"), (20, 1, part + b"body"), (20, 2, whole + bytes(32)),
        (23, 0, struct.pack("<IIIIQq", 1, 1, 9, 1, 20, 0) + bytes(64) + struct.pack("<qII", 5, 1, 0)),
        (24, 0, struct.pack("<q", 1700000000000)), (25, 0, struct.pack("<IIQq", 2, 0, 20, 5) + b"box"),
        (26, 0, struct.pack("<II", 1, 30)), (27, 0, struct.pack("<QQqIHH", 1, 4194400, 5, 0, 1, 0)),
        (27, 1, struct.pack("<QQqIHH", 1, 4194400, 5, 0, 1, 0)), (28, 0, struct.pack("<IIQ", 1, 20000, 4)),
        (29, 0, struct.pack("<IIQQ", 1, 0, 100, 50)), (29, 1, struct.pack("<IIQQ", 1, 0, 0, 0)),
        (22, 0, struct.pack("<IHH", 1, 9, 0) + b"/shared/xvalue"), (22, 1, struct.pack("<IHH", 1, 9, 0) + b"/shared/x"),
        (22, 0, struct.pack("<IHH", 0, 9, 0) + b"/shared/x" + b"v" * 4000),
        (32, 0, struct.pack("<QQII", 1 << 30, 1000, 50, 0)),
        (30, 0, struct.pack("<QQIIII", 1000, 1000, 1000, 10, 10, 10)),
        (31, 0, struct.pack("<IIII", 1, 7, 3, 0) + b"bob"), (31, 1, struct.pack("<IIII", 1, 0, 2047, 0) + b"anyone"),
        (31, 0, struct.pack("<IIII", 1, 7, 0, 0)), (31, 2, struct.pack("<IIII", 2, 0, 0, 1)),
    ]
    expunge = bytes([5, 0, 1]) + piece(struct.pack("<IIQqII", 1, 1, 10, 5, 1, 1))
    for kind, flags, payload in records:
        for acct in (1, 0):
            corpus.add("apply", bytes([kind, flags, acct]) + piece(payload))
        corpus.add("apply", expunge + bytes([kind, flags, 1]) + piece(payload))
        if kind == 20:
            corpus.add("payload", bytes([3, flags]) + payload)
    acl = [(flags, payload) for kind, flags, payload in records if kind == 31]
    corpus.add("apply", b"".join(bytes([31, flags, 1]) + piece(payload) for flags, payload in acl))
    corpus.add("payload", b"\x04\x00" + row_1 + row_1)
    corpus.add("apply", expunge + bytes([16, 0, 0]) + piece(struct.pack("<qIIII", 5, 1, 1, 1, 0)))
    corpus.add("apply", bytes([8, 0, 1]) + piece(struct.pack("<IIQq", 2, 0, 10, 5)) +
               bytes([25, 0, 1]) + piece(struct.pack("<IIQq", 2, 0, 20, 5) + b"box"))


def cached(corpus):
    envelope = (b'("Mon, 7 Feb 1994 21:52:25 -0800" "x" (("A" NIL "a" "b")) NIL NIL ((NIL NIL "c" "d")) NIL NIL NIL '
                b'"<a@b>")')
    text = b'"TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "7BIT" 4 1 NIL NIL NIL NIL'
    leaf = bytes([1 | 0 << 2 | 1 << 5]) + varint(0) + varint(12) + varint(6) + varint(1) + varint(5) + b"utf-8"
    multi = bytes([2]) + varint(0) + varint(60) + varint(90) + varint(9) + varint(2)
    inner = bytes([3]) + varint(80) + varint(34) + varint(20) + varint(3)
    parts = b"\x01" + multi + bytes([1]) + varint(65) + varint(2) + varint(3) + varint(1) + inner
    parts += bytes([1]) + varint(114) + varint(18) + varint(5) + varint(1)
    both = b"((" + text + b")(" + text + b') "MIXED" NIL NIL NIL NIL)'
    for structure, table in ((b"(" + text + b")", b"\x01" + leaf), (both, parts)):
        corpus.add("cached", entry(envelope, structure, table, b"x", b"", b"a@b"))
        corpus.add("cached", entry(envelope, structure, table[:-2], b"x", b"", b"a@b"))
        corpus.add("cached", entry(envelope[:40], structure[:20], table, b"", b"", b""))
    corpus.add("cached", entry(b"(" * 300, b"(" * 300, b"\x01", b"", b"", b""))
    literal = b"({5}\r\nhello NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    corpus.add("cached", entry(literal, b"({999999}\r\n", b"\x02", b"", b"", b""))
    corpus.add("cached", varint(2 ** 63) + b"x")


def main():
    corpus = Corpus(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "corpus"))
    for make in (imap, tables, older, later, stored, blocks, cached, dialogues):
        make(corpus)
    corpus.clean()
    for target, names in sorted(corpus.seen.items()):
        print("%-10s %3d seeds" % (target, len(names)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
