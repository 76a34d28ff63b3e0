"""Sixteen clients that change mail and write down what was acknowledged; and the check of a store against that ledger.

Client i owns account u<i>: it delivers by LMTP (sometimes to a second account too), appends, copies, moves, marks and
expunges, one operation at a time, until its connection dies. Every message carries a token from which all its bytes
follow. The ledger says of each (account, mailbox, token): how many copies are acknowledged, how many more or fewer the
one operation under way at the crash may have made. check() reads everything back after a restart:

  every acknowledged copy is there, every acknowledged removal is gone, nothing else is there but what was under way;
  a UID, once seen, means the same message for ever; UIDVALIDITY never changes; UIDNEXT never falls; bytes are equal.
"""
import hashlib
import random
import re
import socket
import threading

CLIENTS = 16
MAILBOXES = ("INBOX", "Box", "Copies")
KEEP = 40  # messages in a mailbox before expunging becomes likely


class Dead(Exception):
    """The connection ended: the server was killed."""


class Broken(Exception):
    """The server answered something it must not."""


class Refused(Broken):
    """It said no: right only when its disk has just died."""


def message(token):
    """The bytes of a token's message: CRLF, a few hundred bytes to 40 KB, now and then 1.5 MB."""
    rng = random.Random(token)
    size = 1500000 if rng.random() < 0.002 else int(300 * (1.0 / max(rng.random(), 0.008)))
    lines = ["From: ledger@example.test", "Subject: token %s" % token, "X-Token: %s" % token, "MIME-Version: 1.0", ""]
    total = 0
    while total < size:
        line = "%s %s" % (token, "%x" % rng.getrandbits(64 * 4))
        lines.append(line)
        total += len(line) + 2
    return ("\r\n".join(lines) + "\r\n").encode()


def digest(token):
    return hashlib.sha256(message(token)).digest()


class Line:
    """A socket that speaks CRLF lines and IMAP literals."""

    def __init__(self, daemon, protocol):
        try:
            self.sock = daemon.connect(protocol, timeout_s=60)
            self.file = self.sock.makefile("rb")
            self.greeting = self.line()
        except OSError as e:
            raise Dead(str(e)) from e

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise Dead(str(e)) from e

    def line(self):
        try:
            line = self.file.readline()
        except (OSError, socket.timeout) as e:
            raise Dead(str(e)) from e
        if not line.endswith(b"\r\n"):
            raise Dead("cut")
        return line[:-2]

    def exactly(self, n):
        data = self.file.read(n)
        if data is None or len(data) != n:
            raise Dead("cut")
        return data

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass


class Imap(Line):
    def __init__(self, daemon, user):
        super().__init__(daemon, "imap")
        self.tag = 0
        self.command('LOGIN "%s" secret' % user)

    def command(self, text, literal=None):
        """The untagged lines (with their literals as a list) and the tagged text; the tagged answer must be OK."""
        self.tag += 1
        tag = b"t%d" % self.tag
        tail = b"" if literal is None else b" {%d+}\r\n" % len(literal) + literal
        self.send(tag + b" " + text.encode() + tail + b"\r\n")
        untagged = []
        while True:
            line = self.line()
            parts = [line]
            while (found := re.search(rb"\{(\d+)\}$", parts[-1])) is not None:
                parts.append(self.exactly(int(found.group(1))))
                parts.append(self.line())
            if line.startswith(tag + b" "):
                if not line.startswith(tag + b" OK"):
                    raise Refused("%s -> %r" % (text, line))
                return untagged, line
            if line.startswith(b"* BYE"):
                raise Dead("bye")
            untagged.append(parts)


class Lmtp(Line):
    def __init__(self, daemon):
        super().__init__(daemon, "lmtp")
        self.send(b"LHLO ledger\r\n")
        while self.line()[3:4] == b"-":
            pass

    def deliver(self, users, data):
        self.send(b"MAIL FROM:<>\r\n" + b"".join(b"RCPT TO:<%s>\r\n" % u.encode() for u in users) + b"DATA\r\n")
        for _ in range(len(users) + 2):
            reply = self.line()
            if reply[:1] not in (b"2", b"3"):
                raise Refused("LMTP %r" % reply)
        self.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
        for _ in users:
            reply = self.line()
            if not reply.startswith(b"250"):
                raise Refused("LMTP %r" % reply)


class Box:
    """What the ledger knows of one mailbox."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sure = {}      # token -> acknowledged copies
        self.maybe = {}     # token -> set of differences the operations under way may make (-1, +1)
        self.uid = {}       # uid -> token, ever seen
        self.live = {}      # uid -> token, as the owner knows it
        self.uidvalidity = None
        self.uidnext = 0

    def under_way(self, token, difference):
        with self.lock:
            self.maybe.setdefault(token, []).append(difference)

    def settled(self, token, difference, done):
        with self.lock:
            self.maybe[token].remove(difference)
            if not self.maybe[token]:
                del self.maybe[token]
            if done:
                self.sure[token] = self.sure.get(token, 0) + difference

    def saw(self, uid, token):
        with self.lock:
            if self.uid.setdefault(uid, token) != token:
                raise Broken("UID %d was %s and is now %s" % (uid, self.uid[uid], token))


class Ledger:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.accounts = ["u%d" % i for i in range(CLIENTS)]
        self.box = {(a, m): Box() for a in self.accounts for m in MAILBOXES}
        self.count = 0
        self.acked = 0
        self.lock = threading.Lock()
        self.more = threading.Condition(self.lock)  # acked has risen
        self.broken = []
        self.dying = False  # the disk is being cut off: refusals are right from now on

    def token(self):
        with self.lock:
            self.count += 1
            return "k%d" % self.count

    def ack(self):
        with self.more:
            self.acked += 1
            self.more.notify_all()

    def go_on(self, operations, timeout_s=60):
        """Wait until so many more are acknowledged."""
        with self.more:
            wanted = self.acked + operations
            if not self.more.wait_for(lambda: self.acked >= wanted, timeout_s):
                self.broken.append("%d operations are missing after %d s" % (wanted - self.acked, timeout_s))


def setup(daemon):
    for i in range(CLIENTS):
        imap = Imap(daemon, "u%d" % i)
        for name in MAILBOXES[1:]:
            imap.command("CREATE %s" % name)
        imap.close()


class Client(threading.Thread):
    def __init__(self, daemon, ledger, number, seed):
        super().__init__(daemon=True)
        self.server, self.ledger, self.number = daemon, ledger, number
        self.account = "u%d" % number
        self.rng = random.Random(seed)

    def box(self, name, account=None):
        return self.ledger.box[(account or self.account, name)]

    def run(self):
        try:
            self.lmtp = Lmtp(self.server)
            self.imap = Imap(self.server, self.account)
            while True:
                self.step()
                self.ledger.ack()
        except Dead:
            pass
        except Broken as e:
            if not (self.ledger.dying and isinstance(e, Refused)):
                self.ledger.broken.append("%s: %s" % (self.account, e))

    def step(self):
        inbox = self.box("INBOX")
        choice = self.rng.random()
        if choice < 0.4 or len(inbox.live) < 3:
            self.deliver()
        elif choice < 0.6:
            self.append()
        elif choice < 0.75:
            self.copy("COPY")
        elif choice < 0.85:
            self.copy("MOVE")
        else:
            self.expunge(self.rng.choice(MAILBOXES))
        for name in MAILBOXES:
            if len(self.box(name).live) > KEEP:
                self.expunge(name)

    def deliver(self):
        token = self.ledger.token()
        users = [self.account]
        if self.rng.random() < 0.3:
            other = "u%d" % self.rng.randrange(CLIENTS)
            if other != self.account:
                users.append(other)
        for u in users:
            self.box("INBOX", u).under_way(token, 1)
        self.lmtp.deliver(users, message(token))
        for u in users:
            self.box("INBOX", u).settled(token, 1, True)

    def append(self):
        token, box = self.ledger.token(), self.box("Box")
        box.under_way(token, 1)
        _, tagged = self.imap.command("APPEND Box (\\Seen)", message(token))
        box.settled(token, 1, True)
        uid = int(re.search(rb"\[APPENDUID \d+ (\d+)\]", tagged).group(1))
        box.saw(uid, token)
        box.live[uid] = token

    def select(self, name):
        """Select and learn the mailbox: other clients deliver to it too."""
        box = self.box(name)
        self.imap.command("SELECT %s" % name)
        box.live = read_tokens(self.imap, box)

    def copy(self, verb):
        source, target = self.box("INBOX"), self.box("Copies")
        self.select("INBOX")
        uids = sorted(self.rng.sample(sorted(source.live), min(len(source.live), self.rng.randrange(1, 6))))
        if not uids:
            return
        tokens = [source.live[u] for u in uids]
        for t in tokens:
            target.under_way(t, 1)
            if verb == "MOVE":
                source.under_way(t, -1)
        untagged, tagged = self.imap.command("UID %s %s Copies" % (verb, ",".join(map(str, uids))))
        told = [p[0] for p in untagged] + [tagged]
        copyuid = [m for m in (re.search(rb"\[COPYUID (\d+) (\S+) (\S+)\]", line) for line in told) if m][0]
        new = expand(copyuid.group(3).decode())
        for t, uid in zip(tokens, new):
            target.settled(t, 1, True)
            target.saw(uid, t)
            target.live[uid] = t
            if verb == "MOVE":
                source.settled(t, -1, True)
        if verb == "MOVE":
            for u in uids:
                source.live.pop(u, None)

    def expunge(self, name):
        box = self.box(name)
        self.select(name)
        n = max(1, len(box.live) // 2)
        uids = sorted(self.rng.sample(sorted(box.live), min(n, len(box.live))))
        if not uids:
            return
        tokens = [box.live[u] for u in uids]
        listed = ",".join(map(str, uids))
        self.imap.command("UID STORE %s +FLAGS.SILENT (\\Deleted)" % listed)
        for t in tokens:
            box.under_way(t, -1)
        self.imap.command("UID EXPUNGE %s" % listed)
        for u, t in zip(uids, tokens):
            box.settled(t, -1, True)
            box.live.pop(u, None)


def expand(text):
    out = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        out.extend(range(int(first), int(last or first) + 1))
    return out


def read_tokens(imap, box):
    """uid -> token of the selected mailbox; every UID must mean what it always meant."""
    untagged, _ = imap.command("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (X-TOKEN)])")
    live = {}
    for parts in untagged:
        found = re.search(rb"FETCH .*UID (\d+)", b"".join(parts))
        token = re.search(rb"X-Token: (\S+)", b"".join(parts))
        if found and token:
            uid = int(found.group(1))
            live[uid] = token.group(1).decode()
            box.saw(uid, live[uid])
    return live


def _check_counts(box, where, live, problems):
    counts = {}
    for token in live.values():
        counts[token] = counts.get(token, 0) + 1
    for token in set(counts) | set(box.sure) | set(box.maybe):
        sure, have = box.sure.get(token, 0), counts.get(token, 0)
        low, high = sure, sure
        for difference in box.maybe.get(token, ()):
            low, high = low + min(difference, 0), high + max(difference, 0)
        if not low <= have <= high:
            problems.append("%s: %s is there %d times, acknowledged %d, under way %s"
                            % (where, token, have, sure, box.maybe.get(token, [])))
    box.sure = counts
    box.maybe = {}


def _check_selected(box, where, untagged, problems):
    text = b"\n".join(p[0] for p in untagged)
    uidvalidity = int(re.search(rb"UIDVALIDITY (\d+)", text).group(1))
    uidnext = int(re.search(rb"UIDNEXT (\d+)", text).group(1))
    if box.uidvalidity not in (None, uidvalidity):
        problems.append("%s: UIDVALIDITY was %s and is %d" % (where, box.uidvalidity, uidvalidity))
    if uidnext < box.uidnext or uidnext <= max(box.uid, default=0):
        problems.append("%s: UIDNEXT is %d, was %d, highest UID seen %d"
                        % (where, uidnext, box.uidnext, max(box.uid, default=0)))
    box.uidvalidity, box.uidnext = uidvalidity, uidnext


def _ranges(uids):
    """UIDs as a sequence-set: a list of thousands one by one is longer than a command may be."""
    out = []
    for uid in sorted(uids):
        if out and out[-1][1] == uid - 1:
            out[-1][1] = uid
        else:
            out.append([uid, uid])
    return ",".join("%d:%d" % (a, b) for a, b in out)


def _check_bytes(imap, where, uids, live, problems):
    if not uids:
        return
    untagged, _ = imap.command("UID FETCH %s (UID BODY.PEEK[])" % _ranges(uids))
    for parts in untagged:
        uid = int(re.search(rb"UID (\d+)", parts[0] + parts[-1]).group(1))
        body = parts[1]
        if body.startswith(b"Return-Path:"):
            body = body[body.index(b"From: ledger@"):]
        if hashlib.sha256(body).digest() != digest(live[uid]):
            problems.append("%s: UID %d (%s) has other bytes than were sent" % (where, uid, live[uid]))


def check(daemon, ledger):
    """Everything against the ledger; the list of what is wrong. What was under way counts as it turned out."""
    problems = list(ledger.broken)
    verified = getattr(ledger, "verified", set())
    for account in ledger.accounts:
        imap = Imap(daemon, account)
        for name in MAILBOXES:
            box, where = ledger.box[(account, name)], "%s/%s" % (account, name)
            untagged, _ = imap.command("SELECT %s" % name)
            try:
                live = read_tokens(imap, box)
            except Broken as e:
                problems.append("%s: %s" % (where, e))
                continue
            _check_selected(box, where, untagged, problems)
            _check_counts(box, where, live, problems)
            box.live = live
            fresh = {u for u in live if (where, u) not in verified}
            _check_bytes(imap, where, fresh, live, problems)
            verified.update((where, u) for u in fresh)
        imap.close()
    ledger.verified = verified
    return problems


def run_clients(daemon, ledger, seed):
    clients = [Client(daemon, ledger, i, "%s-%d" % (seed, i)) for i in range(CLIENTS)]
    for c in clients:
        c.start()
    return clients
