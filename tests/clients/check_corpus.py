#!/usr/bin/env python3
"""Store messages, read every one back by mbsync, POP3 and IMAP, and compare all bytes.

    check_corpus.py [CORPUS_DIR] [--generated 300] [--accounts N] [--io auto] [--build DIR] [--keep DIR]

CORPUS_DIR: every *.eml and *.mbox in it, and in every *.tar.zst in it, as one message each. Without it, messages made
by tests/lib/nasty.py, each twice: by LMTP and by APPEND. The messages are spread over the accounts; per account the
multi-set of SHA-256 sums of what comes back must be that of what was acknowledged.

What is sent: a file's lone LF become CRLF, as an MTA does, and a last line end is added where none is (generated
messages go as they are). How: by LMTP where SMTP's rules allow it, else by APPEND: a CR or LF alone (refused as
smuggling), 100 or more Received fields (a loop), no line end at the end. What neither may take (NUL, which no IMAP
literal holds, together with one of those; an empty APPEND) must be refused by both and is counted.
What is compared: LMTP's messages without the one block that delivery prepends; with POP3, without the line end that it
must add before its final dot; with mbsync, without any CR, which it drops, and without the X-TUID field that it adds.
It skips, with a warning, messages whose header has no end; those are counted.

Last line: "N passed, M failed", a message and a way to read it counting as one.
"""
import argparse
import collections
import concurrent.futures
import os
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import nasty  # noqa: E402
import wire  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402

RECEIVED_MAX = 100
MESSAGES = (".eml", ".mbox")
SHOWN = 40
TRACE_LF = re.compile(wire.TRACE.pattern.replace(rb"\r\n", rb"\n"))
LIMBO_LINE = re.compile(rb"(?:\A|\n)(?=[^\n]*\.)(?=[^\n]*\0)[.\0]+\r")  # a dot and NULs: another server's end of DATA


class Mailbag:
    """What one account must hold: sums of whole messages and of their LF form, with the names behind them."""

    def __init__(self):
        self.exact = collections.Counter()
        self.loose = collections.Counter()
        self.names = {}
        self.skipped = 0  # by mbsync
        self.lock = threading.Lock()

    def add(self, name, data, traced):
        exact, loose = wire.digest(data), wire.digest(loosen(data))
        with self.lock:
            self.exact[exact] += 1
            for d in {exact, loose}:
                self.names.setdefault(d, []).append("%s (%d bytes)" % (name, len(data)))
            if header_ends((b"x\r\n" if traced else b"") + data):
                self.loose[loose] += 1
            else:
                self.skipped += 1


def header_ends(data):
    """Is there an empty line? mbsync leaves a message alone where there is none."""
    return re.search(rb"(?:\A|\n)\r*\n", data)


def loosen(data):
    """A message as mbsync keeps it: without any CR, and without X-TUID fields."""
    data = data.replace(b"\r", b"")
    found = header_ends(data)
    head = data[:found.end()] if found else data
    return re.sub(rb"(?mi)^X-TUID: [^\n]*\n", b"", head) + data[len(head):]


def as_mta(data):
    """Lone LF to CRLF; a last line end."""
    data = re.sub(rb"(?<!\r)\n", b"\r\n", data)
    return data if not data or data.endswith(b"\r\n") else data + b"\r\n"


def ways(data):
    """How this message may come in: a subset of {"lmtp", "append"}."""
    out = set()
    header = data[:data.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in data else data
    received = len(re.findall(rb"(?im)^received:", header))
    bare = re.search(rb"\r(?!\n)|(?<!\r)\n", data)
    whole = not data or data.endswith(b"\r\n")
    if whole and not bare and received < RECEIVED_MAX and not LIMBO_LINE.search(data):
        out.add("lmtp")
    if data and b"\0" not in data:
        out.add("append")
    return out


# ---- where messages come from ----

def corpus(folder):
    """(name, bytes) of every message under folder."""
    for path, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            full = os.path.join(path, file)
            if file.endswith(MESSAGES):
                with open(full, "rb") as f:
                    yield os.path.relpath(full, folder), as_mta(f.read())
            elif file.endswith(".tar.zst"):
                yield from archive(full, os.path.relpath(full, folder))


def archive(path, label):
    unpack = subprocess.Popen(["zstd", "-dcq", "--long=27", path], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=unpack.stdout, mode="r|") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(MESSAGES):
                yield "%s:%s" % (label, member.name), as_mta(tar.extractfile(member).read())
    unpack.stdout.read()
    if unpack.wait() != 0:
        raise RuntimeError("zstd failed on %s" % path)


# ---- in ----

class Sender(threading.Thread):
    """Takes (way, account, name, data) from the queue; a message counts once it is acknowledged."""

    def __init__(self, daemon, bags, jobs):
        super().__init__(daemon=True)
        self.server, self.bags, self.jobs = daemon, bags, jobs
        self.problems, self.taken, self.refused = [], collections.Counter(), 0
        self.lmtp = None

    def run(self):
        while True:
            job = self.jobs.get()
            if job is None:
                break
            way, account, name, data = job
            try:
                self.send(way, account, name, data)
            except Exception as e:  # noted with the message's name; the next one goes on
                self.problems.append("%s by %s: %s: %s" % (name, way, type(e).__name__, str(e)[:300]))
                self.lmtp = None
        if self.lmtp:
            self.lmtp.close()

    def send(self, way, account, name, data):
        if way == "refused":
            self.must_refuse(account, data)
            self.refused += 1
            return
        if way == "lmtp":
            self.deliver(account, data)
        else:
            with wire.Imap(self.server, account, timeout_s=120) as imap:
                imap.append(b"INBOX", data)
        self.bags[account].add(name, data, way == "lmtp")
        self.taken[way] += 1

    def deliver(self, account, data):
        self.lmtp = self.lmtp or wire.Smtp(self.server, "lmtp", timeout_s=120)
        reply, = self.lmtp.deliver([account.encode()], data, b"sender@example.test")
        if not reply.startswith(b"250"):
            raise wire.Refused(reply.decode("utf-8", "replace"))

    def must_refuse(self, account, data):
        """Neither way may take it; and nothing is stored (the comparison would see it)."""
        whole = data if not data or data.endswith(b"\r\n") else None
        for attempt in ([lambda: self.deliver(account, whole)] if whole else []) + [lambda: self.append(account, data)]:
            try:
                attempt()
            except wire.Refused:
                continue
            raise AssertionError("was taken, and must not be")

    def append(self, account, data):
        with wire.Imap(self.server, account, timeout_s=120) as imap:
            imap.append(b"INBOX", data)


def send_all(daemon, bags, accounts, messages, both, connections):
    """Returns the senders, done."""
    jobs = queue.Queue(maxsize=2 * connections)
    senders = [Sender(daemon, bags, jobs) for _ in range(connections)]
    for s in senders:
        s.start()
    for i, (name, data) in enumerate(messages):
        possible = ways(data)
        chosen = sorted(possible) if both else ["lmtp"] if "lmtp" in possible else sorted(possible)
        for j, way in enumerate(chosen or ["refused"]):
            jobs.put((way, accounts[(i + 7 * j) % len(accounts)], name, data))
    for _ in senders:
        jobs.put(None)
    for s in senders:
        s.join()
    return senders


# ---- out ----

def untraced(data, known, pattern=wire.TRACE):
    """data, or data without the block of a delivery: whichever was sent."""
    found = pattern.match(data)
    cut = data[found.end():] if found else None
    if cut is not None and known(cut):
        return cut
    return data


def by_imap(daemon, account, bag):
    """Yield (where, bytes, sum)."""
    with wire.Imap(daemon, account, timeout_s=120) as imap:
        imap.command(b"SELECT INBOX")
        sizes = {}
        for parts in imap.command(b"UID FETCH 1:* (RFC822.SIZE)")[0]:
            found = re.search(rb"UID (\d+)", parts[0]), re.search(rb"RFC822.SIZE (\d+)", parts[0])
            if found[0] and found[1]:
                sizes[int(found[0].group(1))] = int(found[1].group(1))
        for uid, _, data in imap.bodies():
            if sizes.get(uid) != len(data):
                raise AssertionError("UID %d: RFC822.SIZE is %s, the body %d bytes" % (uid, sizes.get(uid), len(data)))
            data = untraced(data, lambda d: wire.digest(d) in bag.exact)
            yield "UID %d" % uid, data, wire.digest(data)


def by_pop3(daemon, account, bag):
    def known(data):
        return wire.digest(data) in bag.exact or wire.digest(data[:-2]) in bag.exact
    with wire.Pop3(daemon, account, timeout_s=120) as pop:
        for i in range(1, pop.count() + 1):
            data = untraced(pop.retr(i), known)
            if wire.digest(data) not in bag.exact and data.endswith(b"\r\n") and wire.digest(data[:-2]) in bag.exact:
                data = data[:-2]
            yield "message %d" % i, data, wire.digest(data)
        pop.ask(b"QUIT")


MBSYNC = """IMAPAccount {a}
Host 127.0.0.1
Port {port}
User {a}
Pass {password}
SSLType None
AuthMechs LOGIN

IMAPStore {a}-far
Account {a}

MaildirStore {a}-near
Path {folder}/{a}/
Inbox {folder}/{a}/INBOX

Channel {a}
Far :{a}-far:
Near :{a}-near:
Patterns INBOX
Create Near
Sync Pull
SyncState *

"""


def mbsync_all(daemon, folder, accounts):
    """One mbsync run for all accounts, a Maildir each under folder."""
    rc = os.path.join(folder, "rc")
    with open(rc, "w", encoding="ascii") as f:
        os.chmod(rc, 0o600)
        for a in accounts:
            os.mkdir(os.path.join(folder, a))
            f.write(MBSYNC.format(a=a, port=daemon.port("imap"), password=PASSWORD, folder=folder))
    done = subprocess.run(["mbsync", "-c", rc, "-q", "-a"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=1500, check=False)
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        raise AssertionError("mbsync: exit %d: %s" % (done.returncode, said[-1500:]))
    return said


def by_maildir(folder, account, bag):
    for sub in ("new", "cur"):
        path = os.path.join(folder, account, "INBOX", sub)
        for file in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            with open(os.path.join(path, file), "rb") as f:
                data = loosen(f.read())
            data = untraced(data, lambda d: wire.digest(d) in bag.loose, TRACE_LF)
            yield file, data, wire.digest(data)


def compare(how, accounts, bags, read, expected, keep):
    """Read all accounts with read(account, bag); returns (right, wrong, what is wrong)."""
    def one(account):
        bag, wrong, right = bags[account], [], 0
        left = collections.Counter(getattr(bag, expected))
        try:
            for where, data, seen in read(account, bag):
                if left[seen] > 0:
                    left[seen] -= 1
                    right += 1
                    continue
                wrong.append("%s %s %s: not what was stored (%d bytes, begins %r)" %
                             (how, account, where, len(data), data[:60]))
                if keep:
                    with open(os.path.join(keep, "%s-%s-%s" % (how, account, where.replace(" ", ""))), "wb") as f:
                        f.write(data)
        except Exception as e:  # all that this account still lacks is then missing
            wrong.append("%s %s: %s: %s" % (how, account, type(e).__name__, str(e)[:300]))
        for d, n in left.items():
            wrong += ["%s %s: missing: %s" % (how, account, " or ".join(bag.names[d]))] * n
        return right, wrong

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, accounts))
    return sum(r for r, _ in results), [w for _, ws in results for w in ws]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("corpus", nargs="?", help="folder with *.eml and *.tar.zst")
    parser.add_argument("--generated", type=int, default=300, help="how many messages to make without a corpus")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accounts", type=int, help="default: 200 with a corpus, 20 without")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--restart", action="store_true", help="stop and start the server before reading back")
    parser.add_argument("--keep", help="write what differs into this folder")
    wire.arguments(parser)
    args = parser.parse_args()
    if args.corpus and not os.path.isdir(args.corpus):
        parser.error("%s is no folder" % args.corpus)
    accounts = ["c%03d" % i for i in range(args.accounts or (200 if args.corpus else 20))]
    bags = {a: Mailbag() for a in accounts}
    messages = corpus(args.corpus) if args.corpus else nasty.generate(args.generated, args.seed)
    checks = wire.Checks(args.verbose)
    folder = tempfile.mkdtemp(prefix="tambo-corpus-")
    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
    try:
        with Daemon(build=args.build, io=args.io, accounts=accounts) as daemon:
            begin = time.monotonic()
            senders = send_all(daemon, bags, accounts, messages, not args.corpus, args.connections)
            taken = sum((s.taken for s in senders), collections.Counter())
            problems = [p for s in senders for p in s.problems]
            print("stored %d by LMTP, %d by APPEND, %d refused by both as they must be; %.1f s" %
                  (taken["lmtp"], taken["append"], sum(s.refused for s in senders), time.monotonic() - begin))
            checks.count("in", sum(taken.values()) + sum(s.refused for s in senders), len(problems), problems[:SHOWN])
            if args.restart:
                daemon.stop()
                daemon.start()

            def report(how, read, expected):
                start = time.monotonic()
                right, wrong = compare(how, accounts, bags, read, expected, args.keep)
                checks.count("%s (%.1f s)" % (how, time.monotonic() - start), right, len(wrong), wrong[:SHOWN])

            report("IMAP", lambda a, bag: by_imap(daemon, a, bag), "exact")
            report("POP3", lambda a, bag: by_pop3(daemon, a, bag), "exact")
            with checks.step("mbsync runs"):
                said = mbsync_all(daemon, folder, accounts)
                wire.equal(said.count("has incomplete header; skipping"), sum(b.skipped for b in bags.values()),
                           "messages skipped for want of a header's end")
                other = [x for x in said.splitlines() if "incomplete header" not in x and "in the clear" not in x]
                wire.equal(other, [], "what mbsync says")
            report("mbsync", lambda a, bag: by_maildir(folder, a, bag), "loose")
            with checks.step("the server still stands"):
                wire.equal(daemon.stop(), 0, "exit code")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
