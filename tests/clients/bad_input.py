#!/usr/bin/env python3
"""Input that no honest client sends, in amounts that a dialogue cannot hold: the server stays up, small and in order.

    bad_input.py [-k WORD] [--io auto] [--build DIR]

Floods, endless lines and literals, NULs, slow writers and readers that never read, thousands of silent connections,
huge messages, verbs in the wrong order. After each: memory has a bound, a well-behaved client is served at once, and
only what was acknowledged is in the store. Memory is VmHWM of /proc/PID/status, the most the server ever held. Last
line: "N passed, M failed".
"""
import argparse
import base64
import contextlib
import hashlib
import os
import random
import re
import resource
import select
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402

MIB = 1 << 20
GROWTH_MIB = 48        # what one check may add to the server's peak, whatever it sends
PROMPT_S = 2.0         # what a well-behaved client waits at most, on a busy machine
SILENT = 2000
HELLO = b"From: a@example.test\r\nSubject: hello\r\n\r\nhello\r\n"


class World:
    def __init__(self, daemon, checks):
        self.daemon, self.checks = daemon, checks
        self.stored = {name: 0 for name in daemon.accounts}  # messages acknowledged

    @contextlib.contextmanager
    def step(self, name, growth_mib=GROWTH_MIB):
        """A check with what holds after every one: bounded memory, prompt service, nothing stored that was not said."""
        with self.checks.step(name):
            process = self.daemon.process
            wire.reset_peak(process)
            before = wire.memory_kib(process)
            yield
            grown = (wire.memory_kib(process) - before) / 1024
            print("     memory: %.1f MiB before, %+.1f MiB" % (before / 1024, grown))
            if grown > growth_mib:
                raise AssertionError("memory grew by %.1f MiB, %d are allowed" % (grown, growth_mib))
            self.serves()

    def serves(self):
        """A well-behaved client is served, promptly, and finds exactly what was acknowledged."""
        begin = time.monotonic()
        with wire.Smtp(self.daemon) as lmtp:
            wire.equal(lmtp.deliver([b"good"], HELLO)[0][:3], b"250", "a good client's delivery")
        self.stored["good"] += 1
        with wire.Imap(self.daemon, "good") as imap:
            imap.command(b"SELECT INBOX")
            imap.command(b"FETCH * (FLAGS ENVELOPE)")
        took = time.monotonic() - begin
        if took > PROMPT_S:
            raise AssertionError("a good client waited %.2f s" % took)
        for name, count in self.stored.items():
            wire.equal(self.count(name), count, "messages of %s" % name)

    def count(self, name):
        with wire.Imap(self.daemon, name) as imap:
            untagged, _ = imap.command(b"STATUS INBOX (MESSAGES)")
        return int(re.search(rb"MESSAGES (\d+)", untagged[0][0]).group(1))


def pour(sock, piece, limit, within_s=20):
    """Send piece again and again until the server hangs up: the bytes it let us send. AssertionError at the limit."""
    sock.settimeout(within_s)
    sent = 0
    try:
        while sent < limit:
            sock.sendall(piece)
            sent += len(piece)
    except (ConnectionError, socket.timeout, OSError) as e:
        if isinstance(e, socket.timeout):
            raise AssertionError("neither read nor closed after %d bytes" % sent) from e
        return sent
    try:
        while sock.recv(1 << 16):
            pass
    except socket.timeout as e:
        raise AssertionError("still open after %d bytes" % sent) from e
    except ConnectionError:
        pass
    return sent


def logged_in(daemon, protocol, name="victim"):
    """A connection past its login, with what it said read."""
    if protocol == "imap":
        return wire.Imap(daemon, name)
    if protocol == "pop3":
        return wire.Pop3(daemon, name)
    conn = wire.Smtp(daemon, protocol)
    if protocol == "submission":
        conn.ask(b"AUTH PLAIN " + base64.b64encode(b"\0%s\0%s" % (name.encode(), PASSWORD.encode())))
    return conn


# ---- lines and literals ----

def long_lines(world):
    for protocol in ("imap", "pop3", "smtp", "submission", "lmtp"):
        for piece, what in ((b"A" * 65536, "a line without end"), (b"\0" * 65536, "NULs without end"),
                            (b"\r" * 65536, "CRs without end"), (b"\n" * 65536, "LFs without end"),
                            (b"\xff\xfe\x80\x00" * 16384, "noise without end")):
            with world.step("%s: %s" % (protocol, what)):
                sent = pour(world.daemon.connect(protocol), piece, 64 * MIB)
                print("     closed after %d KiB" % (sent >> 10))
        with world.step("%s: a line without end after login" % protocol):
            with logged_in(world.daemon, protocol) as conn:
                sent = pour(conn.sock, b"A" * 65536, 64 * MIB)
                print("     closed after %d KiB" % (sent >> 10))
    for protocol in ("imap", "pop3", "submission"):
        with world.step("%s over TLS: noise instead of a handshake" % protocol):
            twin = {"imap": "imaps", "pop3": "pop3s", "submission": "submissions"}[protocol]
            pour(socket.create_connection(("127.0.0.1", world.daemon.port(twin)), 10),
                 b"\x16\x03\x01\xff\xff" * 10000, 64 * MIB)
        with world.step("%s over TLS: a line without end" % protocol):
            pour(world.daemon.connect(protocol, tls=True), b"A" * 65536, 64 * MIB)


def literals(world):
    daemon = world.daemon
    with world.step("imap: literals larger than anything, before and after login"):
        for prefix, name in ((b"a LOGIN ", None), (b"a SEARCH SUBJECT ", "victim"), (b"a CREATE ", "victim")):
            for size in (5000000, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 64, 10 ** 40):
                with wire.Imap(daemon, name) as imap:
                    imap.send(prefix + b"{%d}\r\n" % size)
                    wire.equal(imap.line()[:5], b"a BAD", "answer to {%d}" % size)
                with wire.Imap(daemon, name) as imap:  # unasked: it cannot be told from commands
                    imap.send(prefix + b"{%d+}\r\n" % size)
                    wire.equal(imap.line()[:5], b"a BAD", "answer to {%d+}" % size)
                    wire.equal(imap.line()[:5], b"* BYE", "what follows {%d+}" % size)
    with world.step("imap: 20,000 literals in one command"):
        with wire.Imap(daemon, "victim") as imap:
            pour(imap.sock, b"a SEARCH" + b" SUBJECT {1+}\r\nx" * 20000, 2 * MIB)
    with world.step("imap: 100 connections, each with the largest literals it may send, never complete",
                    growth_mib=128):  # 1 MiB a connection that has logged in
        held = []
        for _ in range(100):
            imap = wire.Imap(daemon, "victim")
            imap.send(b"a SEARCH SUBJECT {1000000+}\r\n" + b"x" * 999999)
            held.append(imap)
        world.serves()
        for imap in held:
            imap.close()
    with world.step("imap: an APPEND cut off at every stage stores nothing"):
        for size, part in ((1000, 0), (1000, 999), (1000, 1000), (3 * MIB, 2 * MIB), (30 * MIB, 29 * MIB),
                           (3 * MIB, 3 * MIB)):
            with wire.Imap(daemon, "victim") as imap:
                imap.send(b"a APPEND INBOX {%d+}\r\n" % size + b"x" * part)
                imap.send(b"" if part < size else b"\r")  # its CRLF is never complete
    with world.step("imap: a message over the limit is refused before and after it is sent"):
        with wire.Imap(daemon, "victim") as imap:
            imap.send(b"a APPEND INBOX {%d}\r\n" % (101 * MIB))
            wire.equal(imap.line()[:13], b"a NO [TOOBIG]", "answer")
            imap.send(b"a APPEND INBOX {%d+}\r\n" % (101 * MIB))
            wire.equal(imap.line()[:13], b"a NO [TOOBIG]", "answer to an unasked one")
            wire.equal(imap.line()[:5], b"* BYE", "end")
    with world.step("imap: deep and wide nonsense"):
        for text in (b"a SEARCH " + b"NOT " * 10000 + b"ALL", b"a SEARCH " + b"(" * 30000, b"a FETCH 1 " + b"(" * 5000,
                     b"a FETCH " + b"1," * 30000 + b"1 FLAGS", b"a LIST \"\" \"" + b"*%" * 15000 + b"\"",
                     b"a STORE 1 FLAGS (" + b"$x " * 20000 + b")", b"a FETCH 1 BODY[" + b"1." * 20000 + b"MIME]",
                     b"a UID FETCH " + b",".join(b"%d:*" % i for i in range(9000)) + b" FLAGS"):
            with wire.Imap(daemon, "victim") as imap:
                imap.command(b"SELECT INBOX")
                begin = time.monotonic()
                imap.send(text + b"\r\n")
                while not imap.line().startswith(b"a "):
                    pass
                imap.command(b"NOOP")
                if time.monotonic() - begin > PROMPT_S:
                    raise AssertionError("%r took %.1f s" % (text[:20], time.monotonic() - begin))


# ---- messages ----

class Bulk:
    """A message of n bytes that nobody ever holds: lines of noise that do not compress."""

    def __init__(self, size, head=b"From: a@example.test\r\nSubject: big\r\n\r\n"):
        rng = random.Random(size)
        table = bytes(b if b not in (0, 10, 13, 46) else 120 for b in range(256))
        block = rng.randbytes(MIB).translate(table)
        self.block = b"".join(block[i:i + 998] + b"\r\n" for i in range(0, MIB - 1000, 998))
        self.head, self.size = head, size
        self.digest = hashlib.sha256()
        for piece in self.pieces():
            self.digest.update(piece)

    def pieces(self):
        left = self.size - len(self.head) - 2
        yield self.head
        while left > 0:
            piece = self.block[:left]
            if piece.endswith(b"\r"):
                piece = piece[:-1] + b"x"
            left -= len(piece)
            yield piece
        yield b"\r\n"


def read_hash(file, size):
    """The SHA-256 of the next size bytes, and of them without a trace block."""
    whole, bare, first = hashlib.sha256(), hashlib.sha256(), True
    left = size
    while left > 0:
        data = file.read(min(left, MIB))
        if not data:
            raise AssertionError("the connection ended %d bytes early" % left)
        left -= len(data)
        whole.update(data)
        found = wire.TRACE.match(data) if first else None
        bare.update(data[found.end():] if found else data)
        first = False
    return whole.hexdigest(), bare.hexdigest()


def big_in(world, bulk, name):
    daemon = world.daemon
    with world.step("a message of %d MB in by LMTP" % (bulk.size // 1000000)):
        with wire.Smtp(daemon, timeout_s=120) as lmtp:
            for command, want in ((b"MAIL FROM:<>", b"2"), (b"RCPT TO:<%s>" % name.encode(), b"2"), (b"DATA", b"354")):
                lmtp.ask(command, want)
            for piece in bulk.pieces():
                lmtp.send(piece)
            lmtp.send(b".\r\n")
            wire.equal(lmtp.reply()[:3], b"250", "reply")
            world.stored[name] += 1
    with world.step("a message of %d MB in by APPEND" % (bulk.size // 1000000)):
        with wire.Imap(daemon, name, timeout_s=120) as imap:
            imap.send(b"a APPEND INBOX {%d}\r\n" % bulk.size)
            wire.equal(imap.line()[:1], b"+", "go-ahead")
            for piece in bulk.pieces():
                imap.send(piece)
            imap.send(b"\r\n")
            wire.equal(imap.line()[:4], b"a OK", "answer")
            world.stored[name] += 1


def big_out(world, bulk, name):
    daemon = world.daemon
    with world.step("and out by FETCH"):
        with wire.Imap(daemon, name, timeout_s=120) as imap:
            imap.command(b"SELECT INBOX")
            for i in (1, 2):
                imap.send(b"f FETCH %d BODY.PEEK[]\r\n" % i)
                size = int(re.search(rb"\{(\d+)\}$", imap.line()).group(1))
                wire.equal(read_hash(imap.file, size)[1], bulk.digest.hexdigest(), "bytes of message %d" % i)
                while not imap.line().startswith(b"f OK"):
                    pass
    with world.step("and out by POP3"):
        with wire.Pop3(daemon, name, timeout_s=120) as pop:
            for i in (1, 2):
                size = int(pop.ask(b"LIST %d" % i).split()[2])
                pop.ask(b"RETR %d" % i)  # no line of it begins with a dot
                wire.equal(read_hash(pop.file, size)[1], bulk.digest.hexdigest(), "bytes of message %d" % i)
                wire.equal(pop.line(), b".", "end")
    with world.step("and in parts, the last bytes first"):
        with wire.Imap(daemon, name, timeout_s=120) as imap:
            imap.command(b"SELECT INBOX")
            for offset in (bulk.size - 1000, 75000000, 0):
                untagged, _ = imap.command(b"FETCH 2 BODY.PEEK[]<%d.1000>" % offset)
                wire.equal(len(untagged[0][1]), 1000, "bytes at %d" % offset)
    with world.step("and searched, while others are served"):
        with wire.Imap(daemon, name, timeout_s=120) as imap:
            imap.command(b"SELECT INBOX")
            imap.send(b"s SEARCH 2 TEXT nothing-like-this\r\n")
            rounds = 0
            while not select.select([imap.sock], [], [], 0.05)[0]:
                world.serves()
                rounds += 1
            said = imap.line()
            while said.startswith(b"* OK [INPROGRESS"):
                said = imap.line()
            wire.equal(said, b"* SEARCH", "what was found")
            print("     %d rounds of a good client meanwhile" % rounds)


def over_limit(world):
    with world.step("smtp and lmtp: a message over the limit is refused, announced or not"):
        for protocol in ("smtp", "lmtp"):
            with wire.Smtp(world.daemon, protocol) as conn:
                conn.ask(b"MAIL FROM:<> SIZE=%d" % (101 * MIB), b"552")
                for command, want in ((b"MAIL FROM:<>", b"2"), (b"RCPT TO:<victim>", b"2"), (b"DATA", b"354")):
                    conn.ask(command, want)
                for piece in Bulk(101 * MIB).pieces():
                    conn.send(piece)
                conn.send(b".\r\n")
                wire.equal(conn.reply()[:3], b"552", "reply to the end of the text")
                conn.ask(b"NOOP")
    with world.step("lmtp: a header of 60 MB"):
        bulk = Bulk(60 * MIB, head=b"Subject: ")
        bulk.block = bulk.block.replace(b"\r\n", b"zz")
        digest = hashlib.sha256()
        with wire.Smtp(world.daemon, timeout_s=120) as lmtp:
            for command, want in ((b"MAIL FROM:<>", b"2"), (b"RCPT TO:<wide>", b"2"), (b"DATA", b"354")):
                lmtp.ask(command, want)
            for piece in bulk.pieces():
                digest.update(piece)
                lmtp.send(piece)
            lmtp.send(b".\r\n")
            wire.equal(lmtp.reply()[:3], b"250", "reply")
            world.stored["wide"] += 1
        with wire.Imap(world.daemon, "wide", timeout_s=120) as imap:
            imap.command(b"SELECT INBOX")
            imap.command(b"FETCH * (ENVELOPE BODYSTRUCTURE)")
            imap.send(b"f FETCH * BODY.PEEK[]\r\n")
            size = int(re.search(rb"\{(\d+)\}$", imap.line()).group(1))
            wire.equal(read_hash(imap.file, size)[1], digest.hexdigest(), "bytes")
    with world.step("smtp and lmtp: a message cut off at every stage stores nothing"):
        for protocol in ("smtp", "lmtp"):
            for text in (b"", b"Subject: x\r\n", HELLO, HELLO + b".", HELLO + b".\r", HELLO + b"x" * (3 * MIB),
                         HELLO + b"..\r\n"):
                with wire.Smtp(world.daemon, protocol) as conn:
                    conn.send(b"MAIL FROM:<>\r\nRCPT TO:<victim>\r\nDATA\r\n")
                    while conn.reply()[:3] != b"354":
                        pass
                    conn.send(text)
    with world.step("smtp: BDAT larger than anything; BDAT cut off"):
        for protocol in ("smtp", "lmtp"):
            with wire.Smtp(world.daemon, protocol) as conn:
                conn.send(b"MAIL FROM:<>\r\nRCPT TO:<victim>\r\n")
                conn.reply(), conn.reply()
                conn.ask(b"BDAT 99999999999999999999999 LAST", b"5")
                conn.send(b"BDAT 900000000000000000 LAST\r\n" + b"x\r\n" * 100000)


# ---- time ----

def slow(world):
    """Before login a connection has pre_auth_s, here 4 s, whatever it sends."""
    daemon = world.daemon
    with world.step("slow writers: a byte a second, and half a handshake; they are sent away in time"):
        hello = {"imap": b"a LOGIN victim secret\r\n", "pop3": b"USER victim\r\n", "smtp": b"EHLO x.example.test\r\n",
                 "lmtp": b"LHLO x.example.test\r\n",
                 "imaps": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"r" * 100}
        socks = []
        for protocol, text in hello.items():
            for _ in range(20):
                socks.append((protocol, text, socket.create_connection(("127.0.0.1", daemon.port(protocol)), 10)))
        begin, gone, i = time.monotonic(), {}, 0
        must = {k for k, (protocol, _, _) in enumerate(socks) if protocol not in ("smtp", "lmtp")}  # no login there
        while must - set(gone) and time.monotonic() - begin < 12:
            for key, (protocol, text, sock) in enumerate(socks):
                if key in gone:
                    continue
                try:
                    sock.setblocking(False)
                    while sock.recv(4096):
                        pass
                    gone[key] = time.monotonic() - begin
                except BlockingIOError:
                    with contextlib.suppress(OSError):
                        sock.send(text[i % len(text):i % len(text) + 1])
                except ConnectionError:
                    gone[key] = time.monotonic() - begin
            i += 1
            if i == 2:
                world.serves()
            time.sleep(0.5)
        wire.equal({socks[k][0] for k in must - set(gone)}, set(), "protocols that held on")
        print("     sent away after %.1f to %.1f s" % (min(gone.values()), max(gone.values())))
        for _, _, sock in socks:
            sock.close()


def silent(world):
    daemon = world.daemon
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(SILENT + 500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
                                                resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with world.step("%d silent connections" % SILENT, growth_mib=SILENT * 16 // 1024 + 16):
        socks, kinds = [], ("imap", "pop3", "smtp", "lmtp", "submission")
        for i in range(SILENT):
            socks.append(socket.create_connection(("127.0.0.1", daemon.port(kinds[i % len(kinds)])), 10))
        for sock in socks:
            sock.settimeout(10)
            if not sock.recv(200)[:1] in (b"*", b"+", b"2"):
                raise AssertionError("no greeting")
        times = []
        for _ in range(30):
            begin = time.monotonic()
            world.serves()
            times.append(time.monotonic() - begin)
        print("     a good client's rounds meanwhile: median %.3f s, worst %.3f s" % (sorted(times)[15], max(times)))
        for sock in socks:
            sock.close()
    with world.step("2,000 connections opened and reset at once"):
        for i in range(2000):
            sock = socket.create_connection(("127.0.0.1", daemon.port(kinds[i % len(kinds)])), 10)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()


def never_reads(world):
    daemon = world.daemon
    body = b"From: a@example.test\r\nSubject: x\r\n\r\n" + b"0123456789abcdef" * (8 * MIB // 16) + b"\r\n"
    daemon.append("deaf", "INBOX", body)
    world.stored["deaf"] += 1
    with world.step("50 clients ask for 8 MB a hundred times and read nothing", growth_mib=96):
        held = []
        for i in range(50):
            if i % 2:
                conn = wire.Imap(daemon, "deaf")
                conn.command(b"SELECT INBOX")
                conn.send(b"".join(b"x%d FETCH 1 BODY.PEEK[]\r\n" % k for k in range(100)))
            else:
                conn = wire.Line(daemon, "imap")
                conn.send(b"a LOGIN deaf secret\r\n")
                conn.line()
                conn.send(b"a EXAMINE INBOX\r\n" +
                          b"".join(b"x%d FETCH 1 (BODY.PEEK[] BODY.PEEK[TEXT])\r\n" % k for k in range(100)))
            held.append(conn)
        for _ in range(5):
            world.serves()
            time.sleep(0.2)
        for conn in held:
            conn.close()
    with world.step("a client that sends commands and never reads the answers"):
        sock = daemon.connect("imap")
        sock.settimeout(3)
        sent = 0
        try:
            sock.sendall(b"a LOGIN deaf secret\r\n")
            while sent < 64 * MIB:
                sock.sendall(b"b LIST \"\" *\r\n" * 2000)
                sent += 26000
        except (socket.timeout, ConnectionError):
            pass
        print("     %d KiB of commands taken" % (sent >> 10))
        if sent >= 64 * MIB:
            raise AssertionError("it reads on although nobody reads its answers")
        sock.close()


# ---- order ----

ORDER = {
    "smtp": [(b"MAIL FROM:<>", b"503"), (b"RCPT TO:<victim>", b"503"), (b"DATA", b"503"), (b"BDAT 0 LAST", b"503"),
             (b"EHLO x.example.test", b"250"), (b"RCPT TO:<victim>", b"503"), (b"DATA", b"503"),
             (b"MAIL FROM:<>", b"250"),
             (b"DATA", b"503"), (b"MAIL FROM:<>", b"503"), (b"RCPT TO:<nobody>", b"550"), (b"DATA", b"503"),
             (b"RCPT TO:<victim@elsewhere.test>", b"550"), (b"DATA", b"503"), (b"LHLO x", b"5"), (b"RSET", b"250"),
             (b"RCPT TO:<victim>", b"503"), (b"FROB", b"500"), (b"MAIL", b"501"), (b"QUIT", b"221")],
    "lmtp": [(b"MAIL FROM:<>", b"503"), (b"EHLO x.example.test", b"5"), (b"HELO x.example.test", b"5"),
             (b"LHLO x.example.test", b"250"), (b"DATA", b"503"), (b"MAIL FROM:<>", b"250"),
             (b"RCPT TO:<nobody>", b"550"),
             (b"DATA", b"503"), (b"RCPT TO:<>", b"501"), (b"QUIT", b"221")],
    "submission": [(b"EHLO x.example.test", b"250"), (b"MAIL FROM:<victim@mail.example.test>", b"530"),
                   (b"DATA", b"503"),
                   (b"QUIT", b"221")],
    "pop3": [(b"STAT", b"-ERR"), (b"RETR 1", b"-ERR"), (b"PASS secret", b"-ERR"), (b"DELE 1", b"-ERR"),
             (b"USER victim", b"+OK"),
             (b"STAT", b"-ERR"), (b"PASS secret", b"+OK"), (b"USER victim", b"-ERR"), (b"PASS secret", b"-ERR"),
             (b"RETR 0", b"-ERR"),
             (b"RETR 99999999999999999999", b"-ERR"), (b"DELE -1", b"-ERR"), (b"QUIT", b"+OK")],
    "imap": [(b"a SELECT INBOX", b"a BAD"), (b"a FETCH 1 FLAGS", b"a BAD"), (b"a IDLE", b"a BAD"),
             (b"a LOGIN victim secret", b"a OK"), (b"a LOGIN victim secret", b"a BAD"), (b"a FETCH 1 FLAGS", b"a BAD"),
             (b"a EXPUNGE", b"a BAD"), (b"a CLOSE", b"a BAD"), (b"a STARTTLS", b"a BAD"),
             (b"a AUTHENTICATE PLAIN", b"a BAD"),
             (b"DONE", b"DONE BAD"), (b"a LOGOUT", b"* BYE")],
}


def order(world):
    for protocol, dialogue in ORDER.items():
        with world.step("%s: verbs in the wrong order" % protocol):
            with wire.Line(world.daemon, protocol) as conn:
                for command, want in dialogue:
                    conn.send(command + b"\r\n")
                    line = conn.line()
                    while line[3:4] == b"-" and protocol in ("smtp", "lmtp", "submission") or line.startswith(b"* CAP"):
                        line = conn.line()
                    wire.equal(line[:len(want)], want, "answer to %r (%r)" % (command, line))
    with world.step("lmtp: an unknown recipient among known ones"):
        with wire.Smtp(world.daemon) as lmtp:
            lmtp.ask(b"MAIL FROM:<>")
            for r, want in ((b"victim", b"250"), (b"nobody", b"550"), (b"wide", b"250"),
                            (b"nobody@elsewhere.test", b"550")):
                lmtp.ask(b"RCPT TO:<%s>" % r, want)
            lmtp.ask(b"DATA", b"354")
            lmtp.send(HELLO + b".\r\n")
            wire.equal([lmtp.reply()[:3], lmtp.reply()[:3]], [b"250", b"250"], "one reply a recipient taken")
            lmtp.ask(b"NOOP")
        world.stored["victim"] += 1
        world.stored["wide"] += 1
    with world.step("smtp: ten thousand unknown recipients end the connection"):
        sock = world.daemon.connect("smtp")
        sock.sendall(b"EHLO x.example.test\r\nMAIL FROM:<>\r\n")
        pour(sock, b"".join(b"RCPT TO:<n%d>\r\n" % i for i in range(1000)), 64 * MIB)
    with world.step("floods of bad commands end the connection"):
        for protocol, command in (("imap", b"a FROB\r\n"), ("pop3", b"FROB\r\n"), ("smtp", b"FROB\r\n"),
                                  ("lmtp", b"FROB\r\n"),
                                  ("submission", b"FROB\r\n")):
            pour(world.daemon.connect(protocol), command * 1000, 64 * MIB)


def crowd(world):
    """Bad clients all at once, while a good one works."""
    stop = threading.Event()

    def bad(seed):
        rng = random.Random(seed)
        while not stop.is_set():
            protocol = rng.choice(("imap", "pop3", "smtp", "lmtp", "submission"))
            with contextlib.suppress(OSError, AssertionError, wire.Refused):
                sock = world.daemon.connect(protocol, timeout_s=2)
                for _ in range(rng.randrange(1, 6)):
                    sock.sendall(rng.choice((rng.randbytes(rng.randrange(1, 9000)),
                                             b"a LOGIN {5+}\r\nxxxxx {1000+}\r\n",
                                             b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<victim>\r\nDATA\r\nx\r\n",
                                             b"a LOGIN victim secret\r\na SELECT INBOX\r\na FETCH 1:* (BODY[])\r\n"
                                             b"a APPEND INBOX {99999+}\r\n",
                                             b"USER victim\r\nPASS secret\r\nRETR 1\r\nTOP 1 99999\r\n",
                                             b"\r\n" * 100)))
                sock.close()

    with world.step("8 bad clients at once for 5 s"):
        threads = [threading.Thread(target=bad, args=(i,), daemon=True) for i in range(8)]
        for t in threads:
            t.start()
        end, worst = time.monotonic() + 5, 0.0
        while time.monotonic() < end:
            begin = time.monotonic()
            world.serves()
            worst = max(worst, time.monotonic() - begin)
        stop.set()
        for t in threads:
            t.join(10)
        print("     a good client's worst round %.3f s" % worst)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-k", dest="only", default="",
                        help="only these: lines, literals, order, limit, silent, deaf, crowd, slow, big")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    accounts = ["good", "victim", "wide", "deaf", "big"]
    plan = [({},
             [("lines", long_lines), ("literals", literals), ("order", order), ("limit", over_limit),
              ("silent", silent),
                  ("deaf", never_reads), ("crowd", crowd)]),
            ({"pre_auth_s": "4"}, [("slow", slow)]),
            ({"message_bytes_max": "200M"}, [("big", None)])]
    for config, groups in plan:
        groups = [(name, run) for name, run in groups if args.only in name]
        if not groups:
            continue
        with Daemon(build=args.build, io=args.io, accounts=accounts, config=config) as daemon:
            world = World(daemon, checks)
            world.serves()
            for name, run in groups:
                if run:
                    run(world)
                else:
                    bulk = Bulk(150000000)
                    big_in(world, bulk, "big")
                    big_out(world, bulk, "big")
            with checks.step("the server still stands %s" % (config or "")):
                wire.equal(daemon.process.poll(), None, "exit code")
                wire.equal(daemon.stop(), 0, "exit code")
                with open(daemon.log_path, encoding="utf-8", errors="replace") as f:
                    wire.equal([line for line in f if "level=error" in line][:3], [], "errors in the log")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
