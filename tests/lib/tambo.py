"""A tambod of one's own for a test: store in a temporary folder, free ports, accounts, start, stop, crash.

    with Daemon(io="posix", accounts=["ann", "bob"]) as d:
        sock = d.connect("imap")

Nothing here ends a process but the one it started. Standard library only.
"""
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOSTNAME = "mail.example.test"
PASSWORD = "secret"
PORTS = {"lmtp": 24, "smtp": 25, "pop3": 110, "imap": 143, "submissions": 465, "submission": 587,
         "imaps": 993, "pop3s": 995, "metrics": 9090}
TLS_TWIN = {"imap": "imaps", "pop3": "pop3s", "submission": "submissions"}

_taken = set()
_taken_lock = threading.Lock()


class StartError(Exception):
    """tambod or tambo said no; the text is what it said."""


def _is_free(port):
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((address, port))
        except OSError as e:
            if family == socket.AF_INET6 and e.errno in (97, 99):  # no IPv6 here
                continue
            return False
    return True


def free_offset():
    """A port offset at which every port of a tambod is free, and none is another daemon's of this process."""
    with _taken_lock:
        for _ in range(200):
            offset = random.randrange(11000, 23600)  # all below the ports that the kernel gives to clients
            ports = {p + offset for p in PORTS.values()}
            if not ports & _taken and all(_is_free(p) for p in ports):
                _taken.update(ports)
                return offset
    raise StartError("no free ports")


def set_config(text, key, value):
    """The configuration text with key = value, whatever stood there before."""
    if not re.fullmatch(r"\d+[A-Za-z]*|\{.*\}|\".*\"", value):
        value = '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')
    kept = [line for line in text.splitlines() if not re.match(r"#?\s*%s\s*=" % re.escape(key), line)]
    return "%s = %s\n%s\n" % (key, value, "\n".join(kept))


class Daemon:
    """One tambod. build: the folder with the programs; config: a dict of settings; init: options of tambo init."""

    def __init__(self, build=None, io="auto", config=None, accounts=(), directory=None, ready_s=60, init=()):
        self.build = build or os.path.join(ROOT, "build", "release")
        self.io = io
        self.config = dict(config or {})
        self.accounts = list(accounts)
        self.ready_s = ready_s
        self.init_arguments = list(init)
        self._own_dir = directory is None
        self.dir = directory or tempfile.mkdtemp(prefix="tambo-test-")
        self.conf = os.path.join(self.dir, "d", "tambo.conf")
        self.log_path = os.path.join(self.dir, "tambod.log")
        self.offset = None
        self.process = None
        self._reader = None

    # ---- the programs ----

    def tambo(self, *args, stdin=b"", check=True):
        """Run tambo -c CONF args; the finished process."""
        done = subprocess.run([os.path.join(self.build, "tambo"), "-c", self.conf, *args], input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, check=False)
        if check and done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace")
            raise StartError("tambo %s: exit %d: %s" % (" ".join(args), done.returncode, said))
        return done

    def init(self):
        self.offset = free_offset()
        where = os.path.join(self.dir, "d")
        command = [os.path.join(self.build, "tambo"), "init", where, "--hostname", HOSTNAME]
        done = subprocess.run(command + ["--port-offset", str(self.offset), *self.init_arguments],
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, check=False)
        if done.returncode != 0:
            raise StartError("tambo init: %s" % done.stdout.decode("utf-8", "replace"))
        with open(self.conf, encoding="utf-8") as f:
            text = f.read()
        for key, value in {"io": self.io, **self.config}.items():
            text = set_config(text, key, str(value))
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write(text)

    def import_accounts(self, names):
        path = os.path.join(self.dir, "passwd")
        with open(path, "w", encoding="utf-8") as f:
            for name in names:
                f.write("%s:{PLAIN}%s::::::\n" % (name, PASSWORD))
        self.tambo("account", "import", path)

    def start(self):
        """Start it and wait for its "ready" line."""
        ready = threading.Event()
        self._said_ready = False
        self.process = subprocess.Popen([os.path.join(self.build, "tambod"), "-c", self.conf], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=self._follow, args=(self.process.stderr, ready), daemon=True)
        self._reader.start()
        if not ready.wait(self.ready_s) or not self._said_ready:
            self.kill()
            raise StartError("tambod did not start:\n" + self.log_tail())

    def _follow(self, pipe, ready):
        with open(self.log_path, "ab") as log:
            for line in pipe:
                log.write(line)
                log.flush()
                if re.search(rb"(^|\s)ready(\s|$)", line):
                    self._said_ready = True
                    ready.set()
        ready.set()

    def log_tail(self, lines=30):
        try:
            with open(self.log_path, "rb") as f:
                return b"\n".join(f.read().splitlines()[-lines:]).decode("utf-8", "replace")
        except OSError:
            return ""

    def stop(self, timeout_s=40):
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self):
        """SIGKILL, as a crash."""
        return self._end(signal.SIGKILL, 10)

    def end(self, sig):
        """Another signal, as a fault would send; the exit code."""
        return self._end(sig, 20)

    def _end(self, sig, timeout_s):
        if not self.process:
            return None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "did not end within %d s" % timeout_s
        self._reader.join(10)
        self.process = None
        return code

    def __enter__(self):
        try:
            for last in (False, False, True):
                try:
                    self._begin()
                    return self
                except StartError as e:  # another process may have taken a port since we looked
                    if last or "cannot listen" not in str(e):
                        raise
                    shutil.rmtree(os.path.join(self.dir, "d"))
        except BaseException:
            self.remove()
            raise

    def _begin(self):
        self.init()
        if self.accounts:
            self.import_accounts(self.accounts)
        self.start()

    def __exit__(self, *exc):
        try:
            self.stop()
        finally:
            self.remove()

    def remove(self):
        self.kill()
        if self._own_dir and not os.environ.get("TAMBO_TEST_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    # ---- talking to it ----

    def port(self, name):
        return PORTS[name] + self.offset

    def connect(self, name, tls=False, timeout_s=10, certificate=None):
        """A socket to that protocol's listener; tls: its implicit-TLS twin; certificate: ours, (file, key file)."""
        sock = socket.create_connection(("127.0.0.1", self.port(TLS_TWIN[name] if tls else name)), timeout_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not tls:
            return sock
        context = tls_context()
        if certificate:
            context.load_cert_chain(*certificate)
        return context.wrap_socket(sock, server_hostname="localhost")

    def deliver(self, recipients, message, sender=""):
        """Deliver by LMTP; the reply for each recipient must be 250."""
        if isinstance(recipients, str):
            recipients = [recipients]
        with self.connect("lmtp") as sock, sock.makefile("rb") as replies:
            _lmtp_expect(replies, b"220")
            head = "LHLO client.example.test\r\nMAIL FROM:<%s>\r\n" % sender
            head += "".join("RCPT TO:<%s>\r\n" % r for r in recipients) + "DATA\r\n"
            sock.sendall(head.encode())
            for want in [b"250", b"250"] + [b"250"] * len(recipients) + [b"354"]:
                _lmtp_expect(replies, want)
            if not message.endswith(b"\r\n"):
                message += b"\r\n"
            sock.sendall(re.sub(rb"(?:(?<=\r\n)|\A)\.", b"..", message) + b".\r\nQUIT\r\n")
            for _ in recipients:
                _lmtp_expect(replies, b"250")

    def append(self, user, mailbox, message, password=PASSWORD):
        """Store these bytes exactly, by IMAP APPEND."""
        with self.connect("imap") as sock, sock.makefile("rb") as replies:
            replies.readline()
            sock.sendall(b'a login "%s" "%s"\r\n' % (user.encode(), password.encode()))
            _imap_expect(replies, b"a ")
            sock.sendall(b'b append "%s" {%d}\r\n' % (mailbox.encode(), len(message)))
            if not replies.readline().startswith(b"+"):
                raise StartError("APPEND: no go-ahead")
            sock.sendall(message + b"\r\n")
            _imap_expect(replies, b"b ")
            sock.sendall(b"c logout\r\n")
            _imap_expect(replies, b"c ")


def tls_context(alpn=None):
    """A client context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def _lmtp_expect(replies, code):
    while True:
        line = replies.readline()
        if line[3:4] != b"-":
            break
    if not line.startswith(code):
        raise StartError("LMTP: wanted %s, got %r" % (code.decode(), line))


def _imap_expect(replies, tag):
    while True:
        line = replies.readline()
        if line.startswith(tag) or not line:
            break
    if not line.startswith(tag + b"OK"):
        raise StartError("IMAP: wanted %sOK, got %r" % (tag.decode(), line))
