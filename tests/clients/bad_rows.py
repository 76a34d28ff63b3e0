#!/usr/bin/env python3
"""Bad input, row by row: I1 to I76, what a client should not say by IMAP, and M1 to M71, what a message should not be.

    bad_rows.py [-k ROW] [--io auto] [--build DIR]

IMAP: each row is a connection, what is sent and what must come back. Messages: each row is stored by APPEND and must
come back byte for byte, with an ENVELOPE and a BODYSTRUCTURE that an independent reader of the grammar understands,
within 50 ms and 10 ms a MB of processor time (times SLOW) and 16 MiB of memory beyond its size. After each row a good
client is served.
A row of an extension that is not there says so. Last lines: how many rows there are; "N passed, M failed".
"""
import argparse
import base64
import os
import random
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import PASSWORD, Daemon, tls_context  # noqa: E402

MIB = 1 << 20
SLOW = 4.0           # of the daemon's processor time, which a busy machine and a debug build stretch
GROWTH_MIB = 16
IMAP_ROWS, MESSAGE_ROWS = 76, 71
HELLO = b"Subject: hello\r\n\r\nhello\r\n"


# ---- IMAP ----

class Talk:
    """A connection of one row."""

    def __init__(self, world):
        self.world, self.daemon = world, world.daemon
        self.line = wire.Line(world.daemon, "imap", timeout_s=20)

    def say(self, data, want=None):
        """Send it; with want, the tagged (or untagged BAD or BYE) line that answers must match it."""
        try:
            self.line.send(data)
        except OSError:
            pass  # it has hung up; what it said before counts
        return self.hear(want) if want is not None else None

    def hear(self, want):
        rest = []
        while True:
            line = self.response()
            if line is None or re.match(rb"(?!\* (?!BAD|BYE))", line):
                break
            rest.append(line)
        if not re.match(want, line if line is not None else b"EOF"):
            raise AssertionError("%r, not %r" % (line, want))
        return rest

    def response(self):
        """A response with its literals, or None at the end."""
        out = b""
        while True:
            try:
                line = self.line.line()
            except (wire.Refused, OSError):
                return None
            out += line
            found = re.search(rb"\{(\d+)\}$", line)
            if not found:
                return out
            out += b"\r\n" + self.line.exactly(int(found.group(1)))

    def ends(self):
        """The server says BYE, perhaps, and hangs up."""
        while self.response() is not None:
            pass

    def login(self):
        self.say(b"l LOGIN victim %s\r\n" % PASSWORD.encode(), rb"l OK")
        return self

    def selected(self):
        self.login().say(b"s SELECT box\r\n", rb"s OK")
        return self

    def close(self):
        self.line.close()


def dialogue(state, *pairs, then=None):
    """A row made of (sent, wanted) pairs; state: "new", "in" or "selected"."""
    def run(world):
        talk = Talk(world)
        if state == "in":
            talk.login()
        if state == "selected":
            talk.selected()
        for sent, want in pairs:
            talk.say(sent, want)
        if then == "closed":
            talk.ends()
        elif then == "alive":
            talk.say(b"z NOOP\r\n", rb"z OK")
        talk.close()
    return run


def bad(state, *lines):
    """Each line by itself is answered with the tag's BAD, and the connection goes on."""
    return dialogue(state, *[(b"a " + line + b"\r\n", rb"a BAD") for line in lines], then="alive")


def refused(state, what, *lines):
    return dialogue(state, *[(b"a " + line + b"\r\n", rb"a NO " + what) for line in lines], then="alive")


def needs(capability, row):
    """A row of an extension: skipped, and said so, where it is not offered."""
    def run(world):
        if capability not in world.capabilities:
            return "%s is not offered" % capability.decode()
        return row(world)
    return run


def slowly(world):
    """I22, I75: cut off, and too slow."""
    for text in (b"a LOGIN {5}\r\n", b"a LOGIN {5+}\r\nab", b"a APPEND x {10+}\r\nabc"):
        talk = Talk(world)
        talk.say(text)
        talk.close()


def too_late(world):
    with Daemon(build=world.build, io=world.io, config={"pre_auth_s": "2"}) as daemon:
        sock = daemon.connect("imap", timeout_s=15)
        begin = time.monotonic()
        said = b""
        try:
            while time.monotonic() - begin < 10:
                sock.sendall(b"a")
                time.sleep(0.4)
                sock.settimeout(0.01)
                try:
                    data = sock.recv(4096)
                except TimeoutError:
                    continue
                if not data:
                    break
                said += data
        except OSError:
            pass
        wire.equal(1.5 < time.monotonic() - begin < 8, True, "hung up in time")


def many_ranges(world):
    """I39: 30,000 ranges, as many as a line holds, at once and not quadratic."""
    talk = Talk(world).selected()
    begin = cpu_s(world.daemon.process)
    talk.say(b"a UID FETCH " + b",".join(b"%d" % (2 * i + 1) for i in range(9000)) + b" FLAGS\r\n", rb"a (OK|BAD|NO)")
    wire.equal(cpu_s(world.daemon.process) - begin < 0.1 * SLOW, True, "in time")
    talk.close()


def cpu_s(process):
    """The processor time that a process has used."""
    with open("/proc/%d/stat" % process.pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def aborted_sasl(world):
    """
    I65: four times 1,000 aborted exchanges, ten a connection. What each leaves behind grows each time; what else the
    server does meanwhile (a checkpoint, a dictionary's training) does not, so the smallest growth counts.
    """
    held = []
    for _ in range(4):
        for _ in range(100):
            talk = Talk(world)
            for _ in range(10):
                talk.say(b"a AUTHENTICATE PLAIN\r\n", rb"\+")
                talk.say(b"*\r\n", rb"a BAD")
            talk.close()
        held.append(wire.memory_kib(world.daemon.process, "VmRSS"))
    grown = min(after - before for before, after in zip(held, held[1:]))
    wire.equal(grown < 512, True, "memory held: %d KiB more for each thousand" % grown)


def starttls_injected(world):
    """I67: bytes in the packet of STARTTLS: the connection ends, and nothing of it is answered."""
    talk = Talk(world)
    talk.say(b"a STARTTLS\r\nb LOGIN victim secret\r\n")
    wire.equal(talk.response(), None, "answer")
    talk.close()


def starttls(world):
    """I69 (and I68): capabilities are told anew, without STARTTLS; a second one is BAD."""
    talk = Talk(world)
    talk.say(b"a STARTTLS\r\n", rb"a OK")
    with tls_context().wrap_socket(talk.line.sock, server_hostname="localhost") as sock:
        sock.settimeout(5)
        for command, want in ((b"b CAPABILITY", rb"\* CAPABILITY (?!.*STARTTLS)"), (b"c STARTTLS", rb"c BAD")):
            sock.sendall(command + b"\r\n")
            said = sock.recv(4096)
            wire.equal(re.match(want, said) is not None, True, "answer to %r: %r" % (command, said))


def scram(world):
    """I66: a wrong nonce, no proof, a wrong binding."""
    first = b"n,,n=victim,r=abcdef"
    for last in (b"c=biws,r=wrong,p=AAAA", b"c=biws,r=%s", b"c=eSws,r=%s,p=AAAA", b"c=biws,r=%s,p=AAAA", b"", b","):
        talk = Talk(world)
        talk.line.send(b"a AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(first) + b"\r\n")
        answer = talk.line.line()
        if answer.startswith(b"+"):
            nonce = re.search(rb"r=([^,]*)", base64.b64decode(answer[2:])).group(1)
            talk.say(base64.b64encode(last % nonce if b"%s" in last else last) + b"\r\n", rb"a (NO|BAD)")
        else:
            wire.equal(answer[:4], b"a NO", "answer")
        talk.close()


def compress_twice(world):
    """I72: the second COMPRESS; then 1 MB of nothing, deflated to 1 KB: a line without end."""
    import zlib  # pylint: disable=import-outside-toplevel
    talk = Talk(world).login()
    talk.say(b"a COMPRESS DEFLATE\r\n", rb"a OK")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    inflate = zlib.decompressobj(-15)
    sock = talk.line.sock

    def send(data):
        sock.sendall(deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))

    send(b"b COMPRESS DEFLATE\r\n")
    said = b""
    while b"\r\n" not in said:
        said += inflate.decompress(sock.recv(4096))
    wire.equal(said.startswith(b"b BAD [COMPRESSIONACTIVE] "), True, "answer to a second COMPRESS: %r" % said[:80])
    send(b"A" * MIB * 64 + b"\r\n")
    said = b""
    try:
        while True:
            data = sock.recv(4096)
            if not data:
                break
            said += inflate.decompress(data)
    except OSError:
        pass
    wire.equal(re.match(rb"(\* BAD|A+ BAD|A+ NO|\* BYE)", said) is not None, True, "answer to a bomb: %r" % said[:80])


def in_the_clear(world):
    """Every peer of this script is this machine, which may; the one of that script is not."""
    script = [sys.executable, os.path.join(HERE, "cleartext.py"), "--io", world.io]
    done = subprocess.run(script + (["--build", world.build] if world.build else []), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = done.stdout.decode("utf-8", "replace")
    wire.equal(done.returncode, 0, "exit code of cleartext.py: " + said)
    return said.split("SKIP ")[1].split("\n")[0] if "SKIP " in said else None


def name_lines(*names):
    return tuple(b"CREATE " + n for n in names)


MANY = b"*%" * 500
IMAP = {
    1: ("empty line", dialogue("new", (b"\r\n", rb"\* BAD"), then="alive")),
    2: ("tag only", dialogue("new", (b"A1\r\n", rb"A1 BAD"), then="alive")),
    3: ("tag * or +", dialogue("new", (b"* NOOP\r\n", rb"\* BAD"), (b"+ NOOP\r\n", rb"\* BAD"), then="alive")),
    4: ("two spaces", dialogue("new", (b"a  NOOP\r\n", rb"a BAD"), then="alive")),
    5: ("trailing space", dialogue("new", (b"a NOOP \r\n", rb"a BAD"), then="alive")),
    6: ("bare LF", dialogue("new", (b"a NOOP\n", rb"a BAD"), then="alive")),
    7: ("NUL in a command", bad("new", b"NO\0OP")),
    8: ("NUL in a quoted string", bad("new", b'LOGIN x "a\0b"')),
    9: ("CR or LF in a quoted string", dialogue("new", (b'a LOGIN x "a\rb"\r\n', rb"a BAD"),
                                                  (b'b LOGIN x "a\nc NOOP\r\n', rb"b BAD"))),
    10: ("unterminated quote", bad("new", b'LOGIN x "ab')),
    11: ("a quoted pair that is none", bad("new", b'LOGIN x "a\\x"')),
    12: ("8 KiB and no CRLF before login", dialogue("new", (b"a" * 8193, rb"(\* BAD|\* BYE)"), then="closed")),
    13: ("8-bit command name", bad("new", b"N\xc3\x96P")),
    14: ("unknown commands", dialogue("new", *[(b"a FOO\r\n", rb"a BAD")] * 20, then="closed")),
    15: ("binary noise", dialogue("new", *[(b"\x80\xff\x01\x02\r\n", rb"(\* BAD|\* BYE)")] * 3, then="closed")),
    16: ("another protocol", dialogue("new", (b"GET / HTTP/1.1\r\n", rb"\* BYE"), then="closed")),
    17: ("a TLS hello", dialogue("new", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 60, None),
         then="closed")),
    18: ("4 GiB literal", bad("new", b"LOGIN {4294967295}")),
    19: ("2^64 literal", bad("new", b"LOGIN {18446744073709551616}")),
    20: ("literals that are none", bad("new", b"LOGIN {-1}", b"LOGIN {+5}", b"LOGIN {}", b"LOGIN {0x10}")),
    21: ("literal over LITERAL-", dialogue("new", (b"a LOGIN {5000+}\r\nb NOOP\r\n", rb"a BAD"), then="closed")),
    22: ("literal cut off", slowly),
    23: ("2,000 literals", dialogue("in", (b"a SEARCH" + b" SUBJECT {1+}\r\nx" * 2000 + b"\r\n", rb"a BAD"))),
    24: ("junk behind a literal", bad("in", b"CREATE {3+}\r\nabcjunk {1+}\r\nx y", b"SELECT {3+}\r\nboxx")),
    25: ("literal8, NUL in a literal", bad("in", b"SELECT {3+}\r\na\0b", b"CREATE ~{3}")),
    26: ("APPEND over the limit", refused("in", rb"\[TOOBIG\]", b"APPEND box {104857601}")),
    27: ("APPEND of nothing", refused("in", rb"", b"APPEND box {0}", b"APPEND box {0+}\r\n")),
    28: ("APPEND with a bad date", bad("in", b'APPEND box "99-Foo-2026 00:00:00 +0000" {3}',
                                       b'APPEND box "31-Feb-2026 00:00:00 +0000" {3}')),
    29: ("APPEND to no mailbox", refused("in", rb"\[TRYCREATE\]", b"APPEND nowhere {3}",
         b"APPEND nowhere {3+}\r\nabc")),
    30: ("APPEND \\Recent", bad("in", b"APPEND box (\\Recent) {3}")),
    31: ("10,000 parentheses", dialogue("in", (b"a SEARCH " + b"(" * 10000 + b"\r\n", rb"a BAD"),
                                        (b"a FETCH " + b")" * 10000 + b"\r\n", rb"a BAD"), then="alive")),
    32: ("SEARCH nested", bad("selected", b"SEARCH " + b"(" * 200 + b"ALL", b"SEARCH " + b"NOT " * 5000 + b"ALL",
                              b"SEARCH " + b"OR ALL " * 5000 + b"ALL")),
    33: ("SEARCH of many keys", refused("selected", rb"\[LIMIT\]", b"SEARCH " + b"ALL " * 16000 + b"ALL")),
    34: ("SEARCH in no charset", refused("selected", rb"\[BADCHARSET", b"SEARCH CHARSET X-NONE ALL")),
    35: ("SEARCH for 1 MiB", refused("selected", rb"\[LIMIT\]", b"SEARCH BODY {1000000+}\r\n" + b"x" * 1000000)),
    36: ("SEARCH on no day", bad("selected", b"SEARCH SINCE 31-Feb-2026")),
    37: ("sets that are none", bad("selected", *(b"FETCH %s UID" % t for t in (
        b"0", b"1:0", b"4294967296", b"1,,2", b"-1", b"*:*:*", b"", b"1:", b":1", b"1;2")))),
    38: ("a set of 2^32", dialogue("selected", (b"a UID FETCH 1:4294967295 UID\r\n", rb"a OK"), then="alive")),
    39: ("many ranges", many_ranges),
    40: ("numbers past the end", dialogue("selected", (b"a FETCH 99 UID\r\n", rb"a BAD"),
                                          (b"a UID FETCH 99 UID\r\n", rb"a OK"))),
    41: ("a section 500 deep", dialogue("selected", (b"a FETCH 1 BODY.PEEK[" + b".".join([b"1"] * 500) + b"]\r\n",
                                                     rb"a (OK|BAD)"), then="alive")),
    42: ("partials", dialogue("selected", (b"a FETCH 1 BODY.PEEK[]<4294967295.1>\r\n", rb"a OK"),
                              (b"a FETCH 1 BODY.PEEK[]<5.0>\r\n", rb"a BAD"), then="alive")),
    43: ("no field names", bad("selected", b"FETCH 1 BODY[HEADER.FIELDS ()]", b"FETCH 1 BODY[HEADER.FIELDS]")),
    44: ("an unclosed list", bad("selected", b"FETCH 1 (FLAGS", b"STORE 1 FLAGS (\\Seen")),
    45: ("sections that are none", bad("selected", b"FETCH 1 BODY[0]", b"FETCH 1 BODY[1.0]", b"FETCH 1 BODY[MIME]")),
    46: ("BINARY of an unknown encoding", needs(b"BINARY", dialogue("selected", (
        b"a FETCH 2 BINARY.PEEK[1]\r\n", rb"a NO \[UNKNOWN-CTE\]"), then="alive"))),
    47: ("flags that are none, too many keywords", dialogue(
        "selected", (b"a STORE 1 FLAGS (\\Foo)\r\n", rb"a BAD"),
        (b"a STORE 1 FLAGS (" + b" ".join(b"k%d" % i for i in range(1000)) + b")\r\n", rb"a NO \[LIMIT\]"))),
    48: ("UNCHANGEDSINCE at its ends", dialogue(
        "selected", (b"a STORE 1 (UNCHANGEDSINCE 9223372036854775808) FLAGS ()\r\n", rb"a BAD"),
        (b"a STORE 1 (UNCHANGEDSINCE 0) FLAGS ()\r\n", rb"a (OK|NO) \[MODIFIED 1\]"), then="alive")),
    49: ("THREAD in a loop", needs(b"THREAD=REFERENCES", dialogue("selected", (
        b"a THREAD REFERENCES UTF-8 ALL\r\n", rb"a OK"), then="alive"))),
    50: ("paths as names", refused("in", rb"\[CANNOT\]", *name_lines(b"../../etc/x", b"/abs", b"a//b", b".", b".."))),
    51: ("/ and NUL in modified UTF-7", refused("in", rb"\[CANNOT\]", *name_lines(b"&AC8-", b"&AAA-"))),
    52: ("broken modified UTF-7", refused("in", rb"\[CANNOT\]", *name_lines(b"&", b"&Jjo", b"&Jjo!-", b"&Jjo-&Jjo-"))),
    53: ("a lone surrogate", refused("in", rb"\[CANNOT\]", *name_lines(b"&2AA-"))),
    54: ("raw 8-bit names", bad("in", *name_lines(b"\xc3\xa9", b'"\xff\xfe"'))),
    55: ("long and deep names", refused("in", rb"\[LIMIT\]", *name_lines(b"x" * 10240, b"x" + b"/x" * 300))),
    56: ("INBOX made or removed", refused("in", rb"", b"CREATE iNbOx", b"DELETE iNbOx")),
    57: ("RENAME into itself; of INBOX", dialogue("in", (b"a RENAME box box/b\r\n", rb"a NO"),
                                                  (b"a RENAME INBOX was-inbox\r\n", rb"a OK"),
                                                  (b"a STATUS INBOX (MESSAGES)\r\n", rb"a OK"),
                                                  (b"a DELETE was-inbox\r\n", rb"a OK"))),
    58: ("LIST of many wildcards", dialogue("in", (b'a LIST "" "' + MANY + b'zz"\r\n', rb"a OK"), then="alive")),
    59: ("another's mailbox", refused("in", rb"\[NONEXISTENT\]", b"SELECT user/good/INBOX", b"SELECT good",
         b"SELECT none")),
    60: ("made again", dialogue("in", (b"a CREATE again\r\n", rb"a OK"), (b"a DELETE again\r\n", rb"a OK"),
                                (b"a CREATE again\r\n", rb"a OK"), (b"a DELETE again\r\n", rb"a OK"))),
    61: ("the wrong state", dialogue("new", (b"a SELECT box\r\n", rb"a BAD"), (b"a LOGIN victim secret\r\n", rb"a OK"),
                                     (b"a LOGIN victim secret\r\n", rb"a BAD"))),
    62: ("LOGIN in the clear", in_the_clear),
    63: ("PLAIN that is none", dialogue("new", (b"a AUTHENTICATE PLAIN !!!\r\n", rb"a BAD"),
                                        (b"a AUTHENTICATE PLAIN\r\n", rb"\+"), (b"*\r\n", rb"a BAD"),
                                        (b"a AUTHENTICATE PLAIN dGVzdA==\r\n", rb"a NO"),
                                        (b"a AUTHENTICATE PLAIN " + b"A" * MIB, rb"(a|\*) (BAD|BYE|NO)"),
                                        then="closed")),
    64: ("no mechanism, no user, no password", dialogue(
        "new", (b"a AUTHENTICATE X-NONE\r\n", rb"a NO"), (b"a LOGIN none wrong\r\n", rb"a NO \[AUTHENTICATIONFAILED\]"),
        (b"a LOGIN victim wrong\r\n", rb"a NO \[AUTHENTICATIONFAILED\]"))),
    65: ("aborted exchanges", aborted_sasl),
    66: ("SCRAM that is none", needs(b"AUTH=SCRAM-SHA-256", scram)),
    67: ("bytes behind STARTTLS", starttls_injected),
    68: ("STARTTLS after login", dialogue("in", (b"a STARTTLS\r\n", rb"a BAD"), then="alive")),
    69: ("capabilities told anew", starttls),
    70: ("ID too large", bad("new", b"ID (" + b" ".join([b'"k" NIL'] * 31) + b")",
                             b'ID ("' + b"k" * 31 + b'" "v")', b'ID ("k" "' + b"v" * 1025 + b'")')),
    71: ("IDLE and not DONE", dialogue("in", (b"a IDLE\r\n", rb"\+"), (b"b NOOP\r\n", rb"a BAD"), then="alive")),
    72: ("COMPRESS twice, and a bomb", needs(b"COMPRESS=DEFLATE", compress_twice)),
    73: ("ENABLE of nothing known", dialogue("in", (b"a ENABLE X-JUNK JUNK\r\n", rb"a OK"), then="alive")),
    74: ("others' rights and quotas", needs(b"ACL", refused("in", rb"", b"MYRIGHTS user/good/INBOX",
                                                           b"GETACL user/good/INBOX"))),
    75: ("one byte at a time", too_late),
    76: ("CLOSE, UNSELECT, MOVE of nothing", bad("in", b"CLOSE", b"UNSELECT", b"MOVE 1 box")),
}


# ---- messages ----

def head(*lines):
    return b"From: a@example.test\r\nSubject: row\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def multi(boundary, body, kind=b"mixed"):
    return head(b"MIME-Version: 1.0", b"Content-Type: multipart/%s; boundary=%s" % (kind, boundary)) + body


def depth(n, wrap=b"multipart/mixed"):
    out = [head(b"MIME-Version: 1.0")[:-2]]
    for i in range(n):
        out.append(b"Content-Type: %s; boundary=b%d\r\n\r\n--b%d\r\n" % (wrap, i, i))
    return b"".join(out) + b"\r\nleaf\r\n"


def nested_mail(n):
    return head(b"MIME-Version: 1.0")[:-2] + b"Content-Type: message/rfc822\r\n\r\n" * n + b"\r\nleaf\r\n"


def parts(n):
    return multi(b"b", b"--b\r\n\r\nx\r\n" * n + b"--b--\r\n")


def text_part(encoding, body):
    return head(b"Content-Type: text/plain", b"Content-Transfer-Encoding: " + encoding) + body


def colliding(n):
    rng = random.Random(71)
    return b"".join(b"X-%08x: %d\r\n" % (rng.getrandbits(32), i) for i in range(n)) + b"\r\nx\r\n"


MESSAGES = {  # row: (what, messages, what BODYSTRUCTURE or ENVELOPE must match)
    1: ("multiparts 100, 1,000 and 100,000 deep", lambda: [depth(100), depth(1000), depth(100000)], None),
    2: ("a message in a message, 10,000 deep", lambda: [nested_mail(10000)], None),
    3: ("10,001 and 500,000 parts", lambda: [parts(10001), parts(500000)], rb'"mixed"'),
    4: ("multipart without a boundary", lambda:
         [head(b"Content-Type: multipart/mixed") + b"x\r\n"], rb'"text" "plain"'),
    5: ("boundary empty", lambda: [multi(b'""', b"--\r\n\r\nx\r\n----\r\n")], None),
    6: ("boundary of 71 to 10,000 letters", lambda:
         [multi(b"b" * n, b"--%s\r\n\r\nx\r\n--%s--\r\n" % (b"b" * n, b"b" * n))
                                                     for n in (71, 1000, 10000)], None),
    7: ("boundary with blanks and signs", lambda:
         [multi(b'".*+?[a "', b"--.*+?[a\r\n\r\nx\r\n--.*+?[a--\r\n")], rb'"mixed"'),
    8: ("boundaries a and ab", lambda: [multi(b"a", b"--a\r\n\r\nx\r\n--ab\r\n\r\ny\r\n--a--\r\n")], rb'"mixed"'),
    9: ("inner and outer boundary the same", lambda: [multi(
        b"b", b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n--b--\r\n")], None),
    10: ("no close", lambda: [multi(b"b", b"--b\r\n\r\nx\r\n")], rb'"mixed"'),
    11: ("close only", lambda: [multi(b"b", b"--b--\r\n")], None),
    12: ("no empty line after a part's header", lambda:
         [multi(b"b", b"--b\r\nContent-Type: text/html\r\n--b--\r\n")], None),
    13: ("boundary lines end in LF", lambda: [multi(b"b", b"--b\n\nx\n--b--\n")], rb'"mixed"'),
    14: ("two Content-Types", lambda:
         [head(b"Content-Type: text/html", b"Content-Type: image/png") + b"x"], rb'"text" "html"'),
    15: ("two boundary parameters", lambda: [multi(b"b; boundary=c", b"--b\r\n\r\nx\r\n--b--\r\n")], rb'"mixed"'),
    16: ("only signs", lambda: [head(b"Content-Type: ;;;=") + b"x"], rb'"text" "plain"'),
    17: ("no subtype", lambda:
         [head(b"Content-Type: text") + b"x", head(b"Content-Type: image/") + b"x"], rb'"text" "plain"'),
    18: ("a token of 10 KB", lambda: [head(b"Content-Type: text/" + b"x" * 10240) + b"x"], rb'"text" "plain"'),
    19: ("an open quote", lambda: [head(b'Content-Type: text/plain; name="abc') + b"x"], rb'"abc"'),
    20: ("100,000 nested comments", lambda:
         [head(b"Content-Type: text/plain " + b"(" * 100000) + b"x"], rb'"text" "plain"'),
    21: ("a comment that ends in a backslash", lambda: [b"Content-Type: text/plain (a\\"], rb'"text" "plain"'),
    22: ("unknown encoding; base64 of a multipart", lambda: [text_part(b"x-unknown", b"x"), head(
        b"Content-Type: multipart/mixed; boundary=b",
         b"Content-Transfer-Encoding: base64") + b"--b\r\n\r\nx\r\n--b--\r\n"],
         None),
    23: ("bad base64", lambda: [text_part(b"base64", b"aGVs*bG8=\xff==aGVsbG8=\r\n")], rb'"base64"'),
    24: ("one character of base64", lambda: [text_part(b"base64", b"a")], rb'"base64"'),
    25: ("bad quoted-printable", lambda:
         [text_part(b"quoted-printable", b) for b in (b"a=", b"a=X", b"a=\0b", b"a=\r")], None),
    26: ("a soft break at the end", lambda: [text_part(b"quoted-printable", b"abc=\r\n")], rb'"quoted-printable"'),
    27: ("a quoted-printable line of 1 MB", lambda: [text_part(b"quoted-printable", b"=41" * 350000)], None),
    28: ("uuencode", lambda: [text_part(b"x-uuencode", b"begin 644 a\r\n#86)C\r\nend\r\n")], rb'"x-uuencode"'),
    29: ("no colon", lambda: [b"From: a@b\r\nno colon here\r\nSubject: s\r\n\r\nx"], rb'"s"'),
    30: ("names with blanks, 8-bit, NUL", lambda:
         [b"X Y: 1\r\n\xc3\xa9: 2\r\nSub\xffject: n\r\nSubject: s\r\n\r\nx"], rb'"s"'),
    31: ("100,000 folds", lambda: [b"X:" + b"\r\n " * 100000 + b"\r\nSubject: s\r\n\r\nx"], rb'"s"'),
    32: ("the first line folded", lambda: [b" folded\r\nSubject: s\r\n\r\nx"], rb'"s"'),
    33: ("a header of 10 MB", lambda: [b"Subject: s\r\nX: " + b"x" * (10 * MIB) + b"\r\n\r\nx"], rb'"s"'),
    34: ("500,000 header lines", lambda: [b"Subject: s\r\n" + b"X: y\r\n" * 500000 + b"\r\nx"], rb'"s"'),
    35: ("100,000 addresses", lambda: [head(b"To: " + b"a@b, " * 100000 + b"c@d")], None),
    36: ("an open group", lambda: [head(b"To: a:b,c")], rb'NIL NIL NIL NIL'),
    37: ("<>, @, an empty group", lambda: [head(b"To: <>"), head(b"To: @"), head(b"To: a:;")], None),
    38: ("an address that ends in a backslash or a comment", lambda: [head(b"To: a@b\\"), head(b"To: a@b (c")], None),
    39: ("an open <", lambda: [head(b"To: X <a@b")], rb'"X" NIL "a" "b"'),
    40: ("a route", lambda: [head(b"To: <@r,@s:a@b>")], rb'"@r,@s" "a" "b"'),
    41: ("broken UTF-8", lambda: [b"Subject: \xc3\x28 \xe2\x82\r\n\r\nx", b"Subject: \xe2\x82"], None),
    42: ("overlong, surrogate, five bytes", lambda:
         [b"Subject: \xc0\xaf \xed\xa0\x80 \xf8\x88\x80\x80\x80\r\n\r\nx"], None),
    43: ("an unknown charset", lambda: [b"Subject: =?x-none?q?a?=\r\n\r\nx"], rb"=\?x-none\?q\?a\?="),
    44: ("an encoded word cut off", lambda: [b"Subject: =?utf-8?b?\r\n\r\nx"], None),
    45: ("100,000 encoded words", lambda: [b"Subject: " + b"=?utf-8?q?a?= " * 100000 + b"\r\n\r\nx"], None),
    46: ("a long encoded word", lambda: [b"Subject: =?utf-8?q?" + b"a" * 5000 + b"?=\r\n\r\nx"], None),
    47: ("encoded CRLF and NUL", lambda: [b"Subject: =?utf-8?q?a=0D=0Ab=00c?=\r\n\r\nx"], rb"=0D=0Ab=00c"),
    48: ("100,000 sections of a parameter", lambda: [head(b"Content-Type: text/plain" + b"".join(
        b"; a*%d*=x" % i for i in range(100000))) + b"x"], rb'"text" "plain"'),
    49: ("sections with gaps, in disorder, twice", lambda:
         [head(b"Content-Type: text/plain; a*2=c; a*0=a; a*0=z; a*5=f") + b"x"],
         None),
    50: ("a section of a large number", lambda: [head(b"Content-Type: text/plain; a*99999999999=x") + b"x"], None),
    51: ("bad percents, no charset", lambda: [head(b"Content-Type: text/plain; a*=%zz; b*=x'y") + b"x"], None),
    52: ("impossible dates", lambda: [head(b"Date: " + d) for d in (
        b"Mon, 1 Jan 0 00:00:00 +0000", b"1 Jan 99999 00:00:00 +9999", b"x", b"", b"31 Feb 2026 25:61:61 -9999")],
         None),
    53: ("a Date of 1 MB", lambda: [head(b"Date: " + b"1" * MIB)], None),
    54: ("Message-IDs: none, 1 MB, NUL, two", lambda: [head(), head(b"Message-ID: <" + b"x" * MIB + b"@y>"), head(
        b"Message-ID: <a\0b@c>"), head(b"Message-ID: <1@x>", b"Message-ID: <2@x>")], None),
    55: ("100,000 References, its own among them", lambda:
         [head(b"Message-ID: <s@x>", b"References: <s@x> " + b" ".join(
        b"<%d@x>" % i for i in range(100000)))], None),
    56: ("message/partial, external-body", lambda:
         [head(b"Content-Type: message/partial; id=1; number=1; total=2") + b"x", head(
        b"Content-Type: message/external-body; access-type=local-file; name=/etc/passwd") + b"\r\nx"], rb'"message"'),
    57: ("message/rfc822 in base64", lambda:
         [head(b"Content-Type: message/rfc822", b"Content-Transfer-Encoding: base64") +
                                              b"U3ViamVjdDogeA0KDQp4DQo=\r\n"], rb'"application" "octet-stream"'),
    58: ("a digest", lambda:
         [multi(b"b", b"--b\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n", b"digest")], rb'"message" "rfc822"'),
    59: ("one byte; a header alone; no header", lambda: [b"x", b"Subject: s\r\n", b"\r\nbody only\r\n"], None),
    60: ("only CR, only LF, mixed", lambda:
         [b"\r" * 1000, b"\n" * 1000, b"Subject: s\rX: y\n\r\n\rbody\n\r\r\n"], None),
    61: ("a part of no length", lambda: [multi(b"b", b"--b\r\n\r\n--b\r\n\r\n\r\n--b--\r\n")], rb'"mixed"'),
    62: ("a line of 10 MB", lambda: [head() + b"x" * (10 * MIB)], None),
    63: ("sizes that lie", lambda:
         [head(b"Content-Disposition: attachment; size=4294967296", b"Content-Length: 2147483647") +
                                    b"x"], rb'"4294967296"'),
    64: ("From of an mbox", lambda: [b"From a@b Mon Jan  1 00:00:00 2026\r\nSubject: s\r\n\r\nFrom here\r\n"], rb'"s"'),
    65: ("Content-Length too small", lambda: [head(b"Content-Length: 1") + b"xyz\r\n"], None),
    66: ("ISO-2022-JP and UTF-7 cut inside", lambda:
         [head(b"Content-Type: text/plain; charset=iso-2022-jp") + b"\x1b$B$3",
                                                      head(b"Content-Type: text/plain; charset=utf-7") + b"+AGE"],
                                                      None),
    67: ("HTML of a million <", lambda: [head(b"Content-Type: text/html") + b"<" * 1000000,
                                         head(b"Content-Type: text/html") + b"&amp;" * 200000], rb'"text" "html"'),
    68: ("a bomb in zip", lambda: [head(b"Content-Type: application/zip", b"Content-Transfer-Encoding: base64") +
                                   base64.encodebytes(__import__("zlib").compress(b"\0" * (64 * MIB), 9))], rb'"zip"'),
    69: ("100 copies of one attachment", lambda: [multi(b"b", (
        b"--b\r\nContent-Type: application/pdf\r\n\r\n" + b"%PDF" * 5000 + b"\r\n") * 100 + b"--b--\r\n")], rb'"pdf"'),
    70: ("a file name that is a path", lambda: [head(b'Content-Disposition: attachment; filename="../../x"') + b"x"],
         rb'"../../x"'),
    71: ("100,000 header names", lambda: [colliding(100000)], None),
}


class Grammar:
    """Reads a parenthesised IMAP value: strings, literals, numbers, NIL, lists. Anything else is an error."""

    def __init__(self, text):
        self.text = text

    def value(self):
        """The value that ends exactly at the text's end; iterative, since it may be deep."""
        stack, text = [[]], self.text
        token = re.compile(rb'(\()|(\))|( )|"((?:[^"\\\r\n\0\x80-\xff]|\\["\\])*)"|\{(\d+)\}\r\n|(NIL)|(\d+)')
        at = 0
        while at < len(text):
            m = token.match(text, at)
            if not m:
                raise AssertionError("not the grammar at %d: %r" % (at, text[at:at + 60]))
            at = m.end()
            if m.group(1):
                stack.append([])
            elif m.group(2):
                done = stack.pop()
                stack[-1].append(done)
            elif m.group(5):
                size = int(m.group(5))
                stack[-1].append(text[at:at + size])
                at += size
            elif m.group(6):
                stack[-1].append(None)
            elif m.group(7):
                stack[-1].append(int(m.group(7)))
            elif not m.group(3):
                stack[-1].append(re.sub(rb"\\(.)", rb"\1", m.group(4)))
        if len(stack) != 1 or len(stack[0]) != 1:
            raise AssertionError("unbalanced")
        return stack[0][0]


def whole(parts_of):
    """A response of wire.Imap in one piece of bytes."""
    out = parts_of[0]
    for i in range(1, len(parts_of), 2):
        out += b"\r\n" + parts_of[i] + parts_of[i + 1]
    return out


def described(world, imap, uid):
    """(ENVELOPE, BODYSTRUCTURE) as told, each read by the grammar."""
    out = []
    for item in (b"ENVELOPE", b"BODYSTRUCTURE"):
        untagged, _ = imap.command(b"UID FETCH %d (%s)" % (uid, item))
        text = whole(untagged[0])
        value = re.fullmatch(rb"\* \d+ FETCH \(UID \d+ " + item + rb" (.*)\)", text, re.S)
        if not value:
            raise AssertionError("%r" % text[:200])
        Grammar(value.group(1)).value()
        out.append(value.group(1))
    wire.equal(len(Grammar(out[0]).value()), 10, "fields of the ENVELOPE")
    return out


def store(world, imap, message):
    """(UID, the bytes that must come back, behind a trace block?) of it. NULs come by LMTP, and end in a line end."""
    if b"\0" not in message:
        return imap.append(b"rows", message), message, False
    with wire.Smtp(world.daemon) as lmtp:
        text = message if message.endswith(b"\r\n") else message + b"\r\n"
        wire.equal(lmtp.deliver([b"victim+rows"], text)[0][:3], b"250", "LMTP")
    untagged, _ = imap.command(b"UID SEARCH *")
    uid = int(untagged[-1][0].split()[-1])
    imap.command(b"NOOP")
    return uid, text, True


def message_row(world, make, must):
    messages = make()
    total = sum(len(m) for m in messages)
    wire.reset_peak(world.daemon.process)
    before = wire.memory_kib(world.daemon.process)
    begin = cpu_s(world.daemon.process)
    with wire.Imap(world.daemon, "victim") as imap:
        imap.command(b"SELECT rows")
        for message in messages:
            uid, stored, traced = store(world, imap, message)
            envelope, structure = described(world, imap, uid)
            if must and not re.search(must, structure) and not re.search(must, envelope):
                raise AssertionError("%r is neither in %r nor in %r" % (must, envelope[:300], structure[:300]))
            bodies = list(imap.bodies(b"%d" % uid))
            data = wire.without_trace(bodies[0][2]) if traced else bodies[0][2]
            wire.equal(data == stored, True, "BODY[] as it was stored")
        imap.command(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
        imap.command(b"EXPUNGE")
    took, allowed = cpu_s(world.daemon.process) - begin, SLOW * (0.05 * len(messages) + 0.01 * total / MIB)
    grown = (wire.memory_kib(world.daemon.process) - before) / 1024 - 3 * total / MIB
    wire.equal(took < allowed, True, "%.2f s of %.2f s" % (took, allowed))
    wire.equal(grown < GROWTH_MIB, True, "memory: %.1f MiB beyond the message" % grown)


# ---- both ----

class World:
    def __init__(self, daemon, args):
        self.daemon, self.build, self.io = daemon, args.build, args.io
        said = set()
        for user in (None, "good"):
            with wire.Imap(daemon, user) as imap:
                said |= set(imap.command(b"CAPABILITY")[0][0][0].split())
        self.capabilities = said
        with wire.Imap(daemon, "victim") as imap:
            imap.command(b"CREATE rows")
            imap.command(b"CREATE box")
            for m in (HELLO, text_part(b"x-unknown", b"x"), head(b"Message-ID: <a@x>", b"References: <b@x>"),
                      head(b"Message-ID: <b@x>", b"References: <a@x>")):
                imap.append(b"box", m)

    def serves(self):
        """A good client is served."""
        with wire.Imap(self.daemon, "good") as imap:
            imap.append(b"INBOX", HELLO)
            imap.command(b"SELECT INBOX")
            imap.command(b"FETCH * (FLAGS ENVELOPE)")


def rows(world, checks, only):
    for letter, table in (("I", IMAP), ("M", MESSAGES)):
        for number in sorted(table):
            row = "%s%d" % (letter, number)
            if only and row != only:
                continue
            name = "%s %s" % (row, table[number][0])
            skipped = None
            with checks.step(name):
                if letter == "I":
                    skipped = table[number][1](world)
                else:
                    message_row(world, *table[number][1:])
                world.serves()
            if isinstance(skipped, str):
                checks.passed -= 1
                checks.skip("%s: %s" % (name, skipped))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-k", dest="only", default="", help="only this row, as I17 or M3")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    with checks.step("every row is there"):
        wire.equal((sorted(IMAP), sorted(MESSAGES)),
                   (list(range(1, IMAP_ROWS + 1)), list(range(1, MESSAGE_ROWS + 1))), "rows")
    with Daemon(build=args.build, io=args.io, accounts=["good", "victim"]) as daemon:
        world = World(daemon, args)
        rows(world, checks, args.only)
        with checks.step("the server still stands"):
            wire.equal(daemon.stop(), 0, "exit code")
    print("%d rows of IMAP, %d of messages" % (len(IMAP), len(MESSAGES)))
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
