#!/usr/bin/env python3
"""Run the dialogues of tests/proto/{imap,pop3,smtp}/*.txt against a real tambod.

Each dialogue is run whole (consecutive client lines in one write), byte by byte, and over implicit TLS where the
listener has such a twin, on each I/O backend. The format of the files is described in README.md beside this file.
"""
import argparse
import base64
import concurrent.futures
import glob
import os
import re
import select
import socket
import ssl
import sys
import threading
import time
import traceback
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import tambo  # noqa: E402

MODES = ("whole", "byte", "tls")
PORT_OF_FOLDER = {"imap": "imap", "pop3": "pop3", "smtp": "smtp"}
LINE = re.compile(r"(\d*)([CS])([:\-*~?!]) ?(.*)", re.S)
SLOT = re.compile(r"\{\{(.*?)\}\}(?!\})", re.S)
POLL_S = 0.3  # how long an optional line that nothing follows is waited for


class Failure(Exception):
    def __init__(self, item, text):
        super().__init__(text)
        self.item = item


class Item:
    """One line of a dialogue: kind "C:", "C-", "C*", "S:", "S*", "S~", "S?", "S!" or "="."""

    def __init__(self, number, conn, kind, text):
        self.number, self.conn, self.kind, self.text = number, conn, kind, text


class Dialogue:
    def __init__(self, path):
        self.path = path
        self.name = os.path.relpath(path, HERE)[:-4]
        self.port = PORT_OF_FOLDER.get(os.path.basename(os.path.dirname(path)), "imap")
        self.modes, self.config, self.items, self.own_daemon = None, {}, [], False
        self.accounts = 2
        with open(path, encoding="utf-8", newline="\n") as f:
            for number, line in enumerate(f.read().split("\n"), 1):
                self._line(number, line)

    def _line(self, number, line):
        if not line.strip() or line.startswith("#"):
            return
        if line.startswith("="):
            self._directive(Item(number, 0, "=", line[1:].strip()))
            return
        m = LINE.fullmatch(line)
        if not m:
            raise SystemExit("%s:%d: not a dialogue line: %s" % (self.path, number, line))
        self.items.append(Item(number, int(m.group(1) or 1), m.group(2) + m.group(3), m.group(4)))

    def _directive(self, item):
        word, _, rest = item.text.partition(" ")
        if word == "modes":
            self.modes = rest.split()
        elif word == "config":
            key, _, value = rest.partition(" ")
            self.config[key] = value.strip().replace("{{here}}", os.path.dirname(self.path))
            self.own_daemon = True
        elif word == "alone":
            self.own_daemon = True
        elif word == "port" and not self.items:
            self.port = rest
        elif word in ("port", "starttls", "compress", "account", "deliver", "append", "shutdown", "close", "restart",
                      "crash"):
            self.own_daemon = self.own_daemon or word in ("restart", "crash")
            self.accounts += word == "account"
            self.items.append(item)
        else:
            raise SystemExit("%s:%d: unknown directive: %s" % (self.path, item.number, word))

    def runs_in(self, mode):
        if self.modes is not None:
            return mode in self.modes
        if mode != "tls":
            return True
        by_itself = any(i.kind == "=" and i.text.startswith("starttls") for i in self.items)
        return self.port in tambo.TLS_TWIN and not by_itself


# ---- text with escapes and slots ----

_ESCAPES = {"r": b"\r", "n": b"\n", "0": b"\0", "t": b"\t", "\\": b"\\"}


def unescape(text):
    out, i = b"", 0
    for m in re.finditer(r"\\(x[0-9A-Fa-f]{2}|.)", text, re.S):
        out += text[i:m.start()].encode()
        code, i = m.group(1), m.end()
        if len(code) == 3:
            out += bytes([int(code[1:], 16)])
        elif code in _ESCAPES:
            out += _ESCAPES[code]
        else:
            raise ValueError("unknown escape \\%s" % code)
    return out + text[i:].encode()


def fill(text, variables):
    """A client line's bytes."""
    out, i = b"", 0
    for m in SLOT.finditer(text):
        if m.group(1) not in variables:
            raise ValueError("unknown variable {{%s}}" % m.group(1))
        out += unescape(text[i:m.start()]) + variables[m.group(1)]
        i = m.end()
    return out + unescape(text[i:])


def compile_pattern(text, variables):
    """A server line's regular expression and the names of its groups."""
    out, i, names = b"", 0, []
    for m in SLOT.finditer(text):
        out += re.escape(unescape(text[i:m.start()]))
        i = m.end()
        slot = m.group(1)
        name, colon, rest = slot.partition(":")
        if slot == "*":
            out += b".*?"
        elif colon and name == "re":
            flags = re.match(r"\(\?([a-z]+)\)", rest)  # "(?i)..." holds for this slot
            letters, rest = (flags.group(1), rest[flags.end():]) if flags else ("", rest)
            out += b"(?%s:%s)" % (letters.encode(), rest.encode())
        elif colon and name.startswith("!"):  # "{{!name:REGEX}}": anything of the form but what name captured
            out += b"(?!" + re.escape(variables[name[1:]]) + rb"(?!\w))(?:" + rest.encode() + b")"
        elif colon:
            names.append(name)
            out += b"(?P<g%d>" % len(names) + rest.encode() + b")"
        elif name in variables:
            out += re.escape(variables[name])
        else:
            raise ValueError("unknown variable {{%s}}" % name)
    out += re.escape(unescape(text[i:]))
    return re.compile(out, re.S), names


def show(data):
    return data.decode("latin-1").encode("unicode_escape").decode()


# ---- a connection ----


class Connection:
    def __init__(self, number, daemon, port, mode, timeout_s, transcript):
        self.number, self.port, self.mode = number, port, mode
        self.timeout_s, self.transcript = timeout_s, transcript
        self.sock = daemon.connect(port, tls=mode == "tls" and port in tambo.TLS_TWIN, timeout_s=timeout_s)
        self.received, self.unsent = bytearray(), b""
        self.eof = False
        self.deflate = self.inflate = None

    def note(self, who, data):
        self.transcript.append("%s%s: %s" % (self.number if self.number > 1 else "", who, show(data)))

    def flush(self):
        data, self.unsent = self.unsent, b""
        if not data:
            return
        shown = data if len(data) < 600 else data[:300] + b" ... " + data[-100:]
        self.note("C", shown)
        if self.deflate:
            data = self.deflate.compress(data) + self.deflate.flush(zlib.Z_SYNC_FLUSH)
        try:
            if self.mode == "byte" and not isinstance(self.sock, ssl.SSLSocket):
                single = data[:4000]
                for i in range(len(single)):
                    self.sock.sendall(single[i:i + 1])
                for i in range(4000, len(data), 7):
                    self.sock.sendall(data[i:i + 7])
            else:
                self.sock.sendall(data)
        except socket.timeout:
            self.note("!", b"the server does not read")
        except OSError as e:
            self.note("!", str(e).encode())  # the server may have hung up; what it said before counts

    def _more(self, timeout_s):
        """Receive once; False at the end of the stream or when nothing comes in time."""
        if self.eof:
            return False
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not pending and not select.select([self.sock], [], [], timeout_s)[0]:
            return False
        try:
            data = self.sock.recv(65536)
        except socket.timeout:
            return False
        except OSError:
            data = b""
        self.eof = not data
        self.received += self.inflate.decompress(data) if self.inflate else data
        return bool(data)

    def _complete(self):
        """Length of the first logical line in received, or None."""
        at = 0
        while True:
            end = self.received.find(b"\r\n", at)
            if end < 0:
                return None
            literal = re.search(rb"\{(\d+)\}\Z", self.received[at:end]) if self.port.startswith("imap") else None
            if not literal:
                return end
            at = end + 2 + int(literal.group(1))
            if len(self.received) < at:
                return None

    def peek(self, timeout_s=None):
        """The next logical line without its CRLF, left in place; None if none comes."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            n = self._complete()
            if n is not None:
                return bytes(self.received[:n])
            left = deadline - time.monotonic()
            if left <= 0 or not self._more(left):
                if self.eof or time.monotonic() >= deadline:
                    return None

    def take(self, line):
        del self.received[:len(line) + 2]
        self.note("S", line)

    def wait_eof(self):
        deadline = time.monotonic() + self.timeout_s
        while not self.eof and time.monotonic() < deadline:
            self._more(max(0.01, deadline - time.monotonic()))
        return self.eof

    def compress(self, on=True):
        self.deflate = zlib.compressobj(wbits=-15) if on else None
        self.inflate = zlib.decompressobj(wbits=-15) if on else None

    def starttls(self, alpn):
        self.sock = tambo.tls_context(alpn).wrap_socket(self.sock, server_hostname="localhost")

    def close(self):
        self.received.clear()
        self.sock.close()


# ---- one run of one dialogue ----


UNCOUNTED = {"login_failures_account": 0}  # dialogues that share a daemon are wrong about the same names


class Run:
    def __init__(self, dialogue, mode, daemon, names, timeout_s):
        self.dialogue, self.mode, self.daemon, self.timeout_s = dialogue, mode, daemon, timeout_s
        self.names = list(names)
        self.port = dialogue.port
        self.connections, self.transcript = {}, []
        self.last = None
        self.variables = {"host": tambo.HOSTNAME.encode()}
        for key in ("u", "u2"):
            self._account(key)
        self.variables["plain_as"] = base64.b64encode(self.variables["u2"] + b"\0" + self.variables["u"] + b"\0" +
                                                      tambo.PASSWORD.encode())

    def _account(self, key):
        name = self.names.pop(0).encode()
        secret = tambo.PASSWORD.encode()
        suffix = key[1:]
        self.variables[key] = name
        self.variables["plain" + suffix] = base64.b64encode(b"\0" + name + b"\0" + secret)
        self.variables[key + "_b64"] = base64.b64encode(name)
        self.variables["secret_b64"] = base64.b64encode(secret)

    def connection(self, number):
        if number not in self.connections:
            self.connections[number] = Connection(number, self.daemon, self.port, self.mode, self.timeout_s,
                                                  self.transcript)
        self.last = self.connections[number]
        return self.last

    def run(self):
        items = self.dialogue.items
        try:
            i = 0
            while i < len(items):
                i += self._step(items, i)
            self._leftovers(items[-1] if items else None)
        finally:
            for c in self.connections.values():
                c.close()

    def _step(self, items, i):
        """Do items[i] and perhaps those after it; how many."""
        item = items[i]
        try:
            if item.kind == "=":
                self._flush_all()
                self._directive(item)
                return 1
            c = self.connection(item.conn)
            if item.kind[0] == "C":
                self._client(c, item)
                following = items[i + 1] if i + 1 < len(items) else None
                if not following or following.kind[0] != "C" or following.conn != item.conn:
                    c.flush()
                return 1
            if item.kind == "S~":
                return self._any_order(c, items, i)
            self._server(c, item, items[i + 1] if i + 1 < len(items) else None)
            return 1
        except (ValueError, OSError, re.error, tambo.StartError) as e:
            raise Failure(item, "%s: %s" % (type(e).__name__, e)) from e

    def _flush_all(self):
        for c in self.connections.values():
            c.flush()

    def _client(self, c, item):
        if item.kind == "C*":
            count, _, text = item.text.partition(" ")
            c.unsent += fill(text, self.variables) * int(count)
        else:
            c.unsent += fill(item.text, self.variables) + (b"\r\n" if item.kind == "C:" else b"")

    # ---- what the server says ----

    def _match(self, item, line):
        pattern, names = compile_pattern(item.text, self.variables)
        m = pattern.fullmatch(line)
        if m:
            for k, name in enumerate(names, 1):
                self.variables[name] = m.group("g%d" % k)
        return bool(m)

    def _server(self, c, item, following):
        if item.kind == "S!":
            if not c.wait_eof():
                raise Failure(item, "the server did not close the connection")
            if c.received and "any" not in item.text:
                raise Failure(item, "before closing it said: %s" % show(c.received))
            c.received.clear()
            return
        if item.kind == "S?":
            waits = following and following.kind[0] == "S" and following.conn == item.conn
            line = c.peek(None if waits else POLL_S)
            if line is not None and self._match(item, line):
                c.take(line)
            return
        count = 1
        if item.kind == "S*":
            count, _, text = item.text.partition(" ")
            item = Item(item.number, item.conn, item.kind, text)
        for _ in range(int(count)):
            line = self._next(c, item)
            if not self._match(item, line):
                raise Failure(item, "the server said: %s" % show(line))

    def _next(self, c, item):
        line = c.peek()
        if line is None:
            rest = " (unfinished: %s)" % show(c.received) if c.received else ""
            raise Failure(item, ("the server closed the connection" if c.eof else "nothing came") + rest)
        c.take(line)
        return line

    def _any_order(self, c, items, i):
        group = []
        for item in items[i:]:
            if item.kind != "S~" or item.conn != c.number:
                break
            group.append(item)
        left = list(group)
        while left:
            line = self._next(c, left[0])
            hit = next((g for g in left if self._match(g, line)), None)
            if not hit:
                raise Failure(left[0], "in any order; the server said: %s" % show(line))
            left.remove(hit)
        return len(group)

    def _leftovers(self, item):
        self._flush_all()
        for c in self.connections.values():
            if c.received:
                raise Failure(item, "at the end the server has said more: %s" % show(c.received))

    # ---- directives ----

    def _directive(self, item):
        word, _, rest = item.text.partition(" ")
        rest = rest.strip()
        if word == "port":
            self.port = rest
        elif word == "account":
            self._account(rest.strip("{}"))
        elif word == "deliver":
            who, _, what = rest.partition(" ")
            self.daemon.deliver(fill(who, self.variables).decode(), self._message(what))
        elif word == "append":
            who, mailbox, what = rest.split(" ", 2)
            self.daemon.append(fill(who, self.variables).decode(), mailbox, self._message(what))
        elif word == "starttls":
            self._starttls(item, rest.split())
        elif word == "compress":
            self.last.compress(rest != "off")
            self.transcript.append("-- DEFLATE " + rest)
        elif word in ("shutdown", "close"):
            c = self.connections.pop(int(rest)) if word == "close" and rest else self.last
            if word == "shutdown":
                socket.socket.shutdown(c.sock, socket.SHUT_WR)  # SSLSocket's own would throw TLS away
            else:
                c.close()
                self.connections = {k: v for k, v in self.connections.items() if v is not c}
        elif word in ("restart", "crash"):
            self._restart(item, word)

    def _message(self, what):
        what = what.strip()
        if what.startswith('"') and what.endswith('"'):
            return fill(what[1:-1], self.variables)
        with open(os.path.join(os.path.dirname(self.dialogue.path), what), "rb") as f:
            return re.sub(rb"(?<!\r)\n", b"\r\n", f.read())

    def _starttls(self, item, words):
        c = self.last
        if c.received:
            raise Failure(item, "bytes before TLS: %s" % show(c.received))
        alpn = next((w[5:] for w in words if w.startswith("alpn=")), None)
        try:
            c.starttls(alpn)
        except (OSError, ssl.SSLError) as e:
            if "fail" not in words:
                raise Failure(item, "the handshake failed: %s" % e) from e
            c.eof = True
            return
        if "fail" in words:
            raise Failure(item, "the handshake went well")
        self.transcript.append("-- TLS")

    def _restart(self, item, word):
        for c in self.connections.values():
            c.close()
        self.connections = {}
        code = self.daemon.stop() if word == "restart" else self.daemon.kill()
        if word == "restart" and code != 0:
            raise Failure(item, "tambod ended with %s" % code)
        self.daemon.start()
        self.transcript.append("-- %s" % word)


# ---- all runs ----


class Report:
    def __init__(self, verbose):
        self.passed, self.failed, self.verbose = 0, 0, verbose
        self.lock = threading.Lock()

    def result(self, label, seconds, problem=None):
        with self.lock:
            if problem is None:
                self.passed += 1
                if self.verbose:
                    print("ok   %s (%.2f s)" % (label, seconds), flush=True)
                return
            self.failed += 1
            print("FAIL %s\n%s" % (label, problem), flush=True)


def run_one(dialogue, mode, daemon, names, options, report, io):
    label = "%s [%s, %s]" % (dialogue.name, mode, io)
    begun = time.monotonic()
    run, problem = None, None
    try:
        run = Run(dialogue, mode, daemon, names, options.timeout)
        run.run()
    except Failure as f:
        where = "%s:%d: %s %s" % (dialogue.path, f.item.number, f.item.kind, f.item.text) if f.item else dialogue.path
        problem = "  %s\n  %s" % (where, f)
    except Exception:  # noqa: BLE001 - a broken dialogue or runner is a failure like any other
        problem = "  " + traceback.format_exc().replace("\n", "\n  ")
    if problem:
        tail = run.transcript[-options.lines:] if run else []
        problem += "".join("\n    | " + line for line in tail)
        if daemon.process and daemon.process.poll() is not None:
            problem += "\n  tambod is gone (%s). Its last words:\n%s" % (daemon.process.returncode, daemon.log_tail())
    report.result(label, time.monotonic() - begun, problem)


def run_own(dialogue, mode, options, report, io):
    """On a daemon of its own, with its settings."""
    names = ["u%d" % i for i in range(dialogue.accounts)]
    try:
        with tambo.Daemon(options.build, io, {**UNCOUNTED, **dialogue.config}, names) as daemon:
            run_one(dialogue, mode, daemon, names, options, report, io)
    except tambo.StartError as e:
        report.result("%s [%s, %s]" % (dialogue.name, mode, io), 0, "  %s" % e)


def run_backend(dialogues, io, options, report):
    jobs = [(d, m) for d in dialogues for m in options.modes if d.runs_in(m)]
    shared = [(d, m) for d, m in jobs if not d.own_daemon]
    names, lots = [], []
    for d, _ in shared:
        lots.append(["t%d" % (len(names) + i) for i in range(d.accounts)])
        names += lots[-1]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        if shared:
            with tambo.Daemon(options.build, io, UNCOUNTED, names) as daemon:
                todo = [pool.submit(run_one, d, m, daemon, lot, options, report, io)
                        for (d, m), lot in zip(shared, lots)]
                concurrent.futures.wait(todo)
                code = daemon.stop()
                if code != 0:
                    report.result("tambod's end [%s]" % io, 0, "  exit %s\n%s" % (code, daemon.log_tail()))
        own = [pool.submit(run_own, d, m, options, report, io) for d, m in jobs if d.own_daemon]
        concurrent.futures.wait(own)


def find(paths, only):
    files = []
    for path in paths or [os.path.join(HERE, d) for d in PORT_OF_FOLDER]:
        files += sorted(glob.glob(os.path.join(path, "*.txt"))) if os.path.isdir(path) else [path]
    return [Dialogue(os.path.abspath(f)) for f in files if not only or only in f]


def main():
    parser = argparse.ArgumentParser(description="Run protocol dialogues against tambod.")
    parser.add_argument("paths", nargs="*", help="files or folders (default: imap pop3 smtp)")
    parser.add_argument("--io", default="uring,posix", help="backends, comma-separated (default: %(default)s)")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--build", default=os.path.join(tambo.ROOT, "build", "release"), help="folder of the programs")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=15, help="seconds to wait for a line")
    parser.add_argument("--lines", type=int, default=40, help="transcript lines shown on failure")
    parser.add_argument("-k", dest="only", default="", help="only files with this in their path")
    parser.add_argument("-v", dest="verbose", action="store_true")
    options = parser.parse_args()
    options.modes = [m for m in options.modes.split(",") if m]
    options.build = os.path.abspath(options.build)
    dialogues = find(options.paths, options.only)
    if not dialogues:
        print("no dialogues found", file=sys.stderr)
        return 2
    report = Report(options.verbose)
    for io in options.io.split(","):
        try:
            run_backend(dialogues, io, options, report)
        except tambo.StartError as e:
            if io == "uring" and "io_uring" in str(e):
                print("uring: not available here, skipped")
            else:
                report.result("tambod's start [%s]" % io, 0, "  %s" % e)
    print("%d passed, %d failed" % (report.passed, report.failed))
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
