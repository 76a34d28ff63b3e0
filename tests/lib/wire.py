"""Plain clients of the five protocols for tests that need every byte, and a counter of named checks.

    checks = Checks()
    with checks.step("login"):
        Imap(daemon, "ann").command(b"SELECT INBOX")
    return checks.finish()

The clients take what the server says literally: nothing is decoded, nothing forgiven. Standard library only.
"""
import contextlib
import hashlib
import os
import re
import sys
import time
import traceback

from tambo import PASSWORD

# What a delivery puts before a message: these four lines and no others (a text that begins with a blank is kept whole).
TRACE = re.compile(rb"Return-Path: <[^\r\n]*>\r\nReceived: from [^\r\n]*\r\n\tby [^\r\n]*\r\n(?:\tfor <[^\r\n]*>;\r\n)?"
                   rb"\t[^\r\n]* \+0000\r\n")


class Refused(Exception):
    """The server said no, or hung up; the text is what it said."""


class Checks:
    """Counts checks; each says one line."""

    def __init__(self, verbose=False):
        self.passed = self.failed = self.skipped = 0
        self.verbose = verbose

    @contextlib.contextmanager
    def step(self, name):
        """A named check: it fails with any exception inside, and the next one goes on."""
        begin = time.monotonic()
        try:
            yield
        except Exception as e:  # a check may fail in any way at all
            self.failed += 1
            print("FAIL %s: %s: %s" % (name, type(e).__name__, str(e)[:2000]))
            if self.verbose or not isinstance(e, (AssertionError, Refused)):
                print("    " + traceback.format_exc().replace("\n", "\n    "))
        else:
            self.passed += 1
            print("ok   %s (%.1f s)" % (name, time.monotonic() - begin))
        sys.stdout.flush()

    def count(self, name, ok, bad, details=()):
        """Many checks of one kind at once."""
        self.passed += ok
        self.failed += bad
        print("%s %s: %d right, %d wrong" % ("FAIL" if bad else "ok  ", name, ok, bad))
        for line in details:
            print("    " + line)
        sys.stdout.flush()

    def skip(self, reason):
        self.skipped += 1
        print("SKIP %s" % reason)

    def finish(self):
        """The summary line; the exit code."""
        print("%d passed, %d failed%s" % (self.passed, self.failed,
                                          ", %d skipped" % self.skipped if self.skipped else ""))
        return 1 if self.failed else 0


def equal(have, want, what="value"):
    if have != want:
        raise AssertionError("%s: %s, not %s" % (what, repr(have)[:400], repr(want)[:400]))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def without_trace(data):
    """A delivered message as it was sent: without our one block, which must be there."""
    found = TRACE.match(data)
    if not found:
        raise AssertionError("no trace block: %.300r" % data[:300])
    return data[found.end():]


def stuff(message):
    """A message as DATA wants it, with its end. It must end in CRLF, or be empty."""
    return re.sub(rb"(\A|\r\n)\.", rb"\1..", message) + b".\r\n"


def unstuff(text):
    return re.sub(rb"(\A|\r\n)\.", rb"\1", text)


def memory_kib(process, name="VmHWM"):
    """A line of /proc/PID/status, in KiB: VmHWM is the most memory it ever held, VmRSS what it holds now."""
    with open("/proc/%d/status" % process.pid, encoding="ascii") as f:
        return int(re.search(r"^%s:\s+(\d+) kB" % name, f.read(), re.M).group(1))


def reset_peak(process):
    """Let VmHWM begin anew; False where that is not allowed."""
    try:
        with open("/proc/%d/clear_refs" % process.pid, "w", encoding="ascii") as f:
            f.write("5")
        return True
    except OSError:
        return False


class Line:
    """A connection that speaks CRLF lines."""

    def __init__(self, daemon, protocol, tls=False, timeout_s=60, certificate=None):
        self.sock = daemon.connect(protocol, tls=tls, timeout_s=timeout_s, certificate=certificate)
        self.file = self.sock.makefile("rb", 1 << 18)
        self.greeting = self.line()

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise Refused("the connection ended after %r" % line)
        return line[:-2]

    def exactly(self, n):
        data = self.file.read(n)
        if data is None or len(data) != n:
            raise Refused("the connection ended inside %d bytes" % n)
        return data

    def close(self):
        with contextlib.suppress(OSError):
            self.file.close()
            self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Smtp(Line):
    """SMTP or LMTP; protocol is "smtp", "submission" or "lmtp"."""

    def __init__(self, daemon, protocol="lmtp", tls=False, timeout_s=60):
        super().__init__(daemon, protocol, tls, timeout_s)
        self.ask(b"LHLO client.example.test" if protocol == "lmtp" else b"EHLO client.example.test")
        self.lmtp = protocol == "lmtp"

    def reply(self):
        """One reply, its lines joined by LF."""
        lines = [self.line()]
        while lines[-1][3:4] == b"-":
            lines.append(self.line())
        return b"\n".join(lines)

    def ask(self, command, want=b"2"):
        self.send(command + b"\r\n")
        reply = self.reply()
        if not reply.startswith(want):
            raise Refused("%r: %r" % (command[:80], reply))
        return reply

    def deliver(self, recipients, message, sender=b""):
        """The replies to the end of the text: one a recipient with LMTP."""
        self.send(b"MAIL FROM:<%s>\r\n" % sender + b"".join(b"RCPT TO:<%s>\r\n" % r for r in recipients) + b"DATA\r\n")
        replies = [self.reply() for _ in range(len(recipients) + 2)]
        if replies[-1][:3] != b"354":
            self.ask(b"RSET")
            raise Refused(b" / ".join(r for r in replies if r[:1] not in b"23").decode("utf-8", "replace"))
        self.send(stuff(message))
        return [self.reply() for _ in (recipients if self.lmtp else recipients[:1])]


class Imap(Line):
    def __init__(self, daemon, user=None, tls=False, timeout_s=60):
        super().__init__(daemon, "imap", tls, timeout_s)
        self.number = 0
        if user is not None:
            self.command(b'LOGIN "%s" "%s"' % (user.encode(), PASSWORD.encode()))

    def command(self, *parts):
        """
        Send parts joined by literals' heads: command(b"APPEND INBOX ", data). Returns (untagged, tagged): untagged
        responses as lists of line, literal, line...; the tagged text without its tag. NO and BAD are Refused.
        """
        self.number += 1
        tag = b"t%d" % self.number
        text = tag + b" " + parts[0]
        for data in parts[1:]:
            text += b"{%d+}\r\n" % len(data) + data
        self.send(text + b"\r\n")
        return self.answer(tag)

    def response(self):
        parts = [self.line()]
        while True:
            found = re.search(rb"\{(\d+)\}$", parts[-1])
            if not found:
                return parts
            parts += [self.exactly(int(found.group(1))), self.line()]

    def answer(self, tag):
        untagged = []
        while True:
            parts = self.response()
            if parts[0].startswith(tag + b" "):
                if not parts[0].startswith(tag + b" OK"):
                    raise Refused(parts[0].decode("utf-8", "replace"))
                return untagged, parts[0][len(tag) + 1:]
            untagged.append(parts)

    def append(self, mailbox, message, flags=b""):
        """The UID it got."""
        _, tagged = self.command(b"APPEND %s %s" % (mailbox, flags + b" " if flags else b""), message)
        return int(re.search(rb"\[APPENDUID \d+ (\d+)\]", tagged).group(1))

    def bodies(self, what=b"1:*", wanted=b"UID FLAGS BODY.PEEK[]"):
        """Yield (uid, flags, bytes) of the selected mailbox, one by one as they come."""
        self.number += 1
        tag = b"t%d" % self.number
        self.send(tag + b" UID FETCH %s (%s)\r\n" % (what, wanted))
        while True:
            parts = self.response()
            if parts[0].startswith(tag + b" "):
                if not parts[0].startswith(tag + b" OK"):
                    raise Refused(parts[0].decode("utf-8", "replace"))
                return
            if b" FETCH " not in parts[0]:
                continue
            heads = b"".join(parts[::2])
            uid = int(re.search(rb"UID (\d+)", heads).group(1))
            flags = re.search(rb"FLAGS \(([^)]*)\)", heads)
            if len(parts) > 1:
                body = parts[1]
            elif re.search(rb'BODY\[\] ""', heads):
                body = b""
            else:
                continue  # flags that changed
            yield uid, flags.group(1).split() if flags else [], body


class Pop3(Line):
    def __init__(self, daemon, user, tls=False, timeout_s=60):
        super().__init__(daemon, "pop3", tls, timeout_s)
        self.ask(b"USER " + user.encode())
        self.ask(b"PASS " + PASSWORD.encode())

    def ask(self, command):
        self.send(command + b"\r\n")
        line = self.line()
        if not line.startswith(b"+OK"):
            raise Refused("%r: %r" % (command, line))
        return line

    def text(self):
        """A multi-line answer's bytes after its first line, dots taken off."""
        lines = []
        while True:
            line = self.file.readline()
            if line == b".\r\n" and (not lines or lines[-1].endswith(b"\r\n")):
                break
            if not line:
                raise Refused("the connection ended inside an answer")
            lines.append(line)
        return unstuff(b"".join(lines))

    def retr(self, number):
        self.ask(b"RETR %d" % number)
        return self.text()

    def count(self):
        return int(self.ask(b"STAT").split()[1])


def arguments(parser):
    """What every script here takes."""
    parser.add_argument("--build", default=os.environ.get("B") or None, help="folder of the programs")
    parser.add_argument("--io", default="auto", choices=("auto", "uring", "posix"))
    parser.add_argument("-v", dest="verbose", action="store_true", help="tracebacks of all failures")
