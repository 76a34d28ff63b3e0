#!/usr/bin/env python3
"""One session is told by NOTIFY what others do; the picture it makes of that must be what there is.

    notified.py [--steps 800] [--seed N] [--io auto] [--build DIR]

ann's mailboxes are made, renamed, deleted, subscribed to, filled and emptied by two of her sessions and by
bob, who shares some of his with her: on one thread, and on two. The watcher asks for everything, and does
nothing itself but what moves it (EXAMINE of a mailbox of bob's, or of its own); every few turns its picture
of names and counts is compared with LIST and STATUS of a session that asks. Then a client that does not read
is told that it lost something, and nothing more. The seed is printed; with it the run is the same. Last line:
"N passed, M failed".
"""
import argparse
import json
import os
import random
import re
import socket
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

MESSAGE = b"Subject: x\r\n\r\nx\r\n"
LIST = re.compile(rb'\* LIST \(([^)]*)\) "/" ("[^"]*"|\S+)(?: \("OLDNAME" \(("[^"]*"|\S+)\)\))?$')
STATUS = re.compile(rb'\* STATUS ("[^"]*"|\S+) \((.*)\)$')
NUMBERS = (b"UIDVALIDITY", b"UIDNEXT", b"MESSAGES")
OTHERS = b"Other Users/"
NAMES = ["bob%d" % i for i in range(16)]


def bare(name):
    return name.strip(b'"')


def counts(text):
    words = text.split()
    return {k: int(v) for k, v in zip(words[::2], words[1::2])}


def is_below(name, top):
    return name == top or name.startswith(top + b"/")


class Picture:
    """What the watcher was told: which mailboxes there are, their counts, and what is subscribed to."""

    def __init__(self):
        self.boxes, self.subscribed, self.looked = {}, set(), set()

    def take(self, line):
        found = STATUS.match(line)
        if found:
            self.boxes.setdefault(bare(found.group(1)), {}).update(counts(found.group(2)))
            return
        found = LIST.match(line)
        if not found:
            return
        flags, name, old = found.group(1).split(), bare(found.group(2)), bare(found.group(3) or b"")
        if old:  # with everything below it
            for box in [b for b in self.boxes if is_below(b, old)]:
                self.boxes[name + box[len(old):]] = self.boxes.pop(box)
                if box in self.looked:
                    self.looked.add(name + box[len(old):])
        if b"\\NonExistent" in flags:
            self.boxes.pop(name, None)
        elif name.startswith(OTHERS):  # it may have been there, and filled, before it could be read
            self.boxes[name] = {}
        else:
            self.boxes.setdefault(name, {b"UIDNEXT": 1, b"MESSAGES": 0})
        if b"\\Subscribed" in flags:
            self.subscribed.add(name)


class World:
    def __init__(self, daemon, seed, bob):
        self.rng = random.Random(seed)
        self.theirs = OTHERS + bob.encode() + b"/"
        self.one, self.two = wire.Imap(daemon, "ann"), wire.Imap(daemon, "ann")
        self.bob = wire.Imap(daemon, bob)
        self.ask = wire.Imap(daemon, "ann")
        self.bob.command(b"CREATE Shared")
        self.bob.command(b"SETACL Shared ann lrswitekx")
        self.watcher = wire.Imap(daemon, "ann")
        self.picture = Picture()
        events = b"MessageNew MessageExpunge FlagChange MailboxName"
        self.watch(b"NOTIFY SET STATUS (personal (" + events + b" SubscriptionChange)) "
                   b'(subtree "%s" (MessageNew MessageExpunge MailboxName))' % self.theirs[:-1])
        for box in self.names(self.ask):  # what is there, but that may not be read
            self.picture.boxes.setdefault(box, {})

    def names(self, session, pattern=b"*", returns=b""):
        out = []
        for line in session.command(b'LIST "" "%s"%s' % (pattern, returns))[0]:
            found = LIST.match(line[0])
            if found and b"\\Noselect" not in found.group(1) and b"\\NonExistent" not in found.group(1):
                out.append(bare(found.group(2)))
        return out

    def own(self):
        return [n for n in self.names(self.ask) if not n.startswith(OTHERS)]

    # ---- turns ----

    def some(self, session):
        return self.one if session else self.two

    def create(self, who):
        base = self.rng.choice(self.own() + [b""] * 3)
        name = (base + b"/" if base else b"") + b"n%d" % self.rng.randrange(30)
        who.command(b'CREATE "%s"' % name)

    def rename(self, who):
        who.command(b'RENAME "%s" "r%d"' % (self.rng.choice(self.own()), self.rng.randrange(40)))

    def delete(self, who):
        who.command(b'DELETE "%s"' % self.rng.choice(self.own()))

    def append(self, who):
        who.append(b'"%s"' % self.rng.choice(self.own()), MESSAGE)

    def copy(self, who):
        who.command(b'SELECT "%s"' % self.rng.choice(self.own()))
        verb = self.rng.choice((b"UID COPY", b"UID MOVE"))
        try:
            who.command(b'%s 1:* "%s"' % (verb, self.rng.choice(self.own())))
        finally:
            who.command(b"UNSELECT")  # who has deleted mailboxes selected is sent away

    def expunge(self, who):
        who.command(b'SELECT "%s"' % self.rng.choice(self.own()))
        who.command(b"UID STORE %d +FLAGS.SILENT (\\Deleted)" % self.rng.randrange(1, 20))
        who.command(b"CLOSE")

    def subscribe(self, who):
        who.command(b'SUBSCRIBE "%s"' % self.rng.choice(self.own()))

    def share(self, _):
        """bob makes, shares, takes back, fills and deletes."""
        name = b"Shared/s%d" % self.rng.randrange(6)
        if self.rng.random() < 0.5:
            name = b"other%d" % self.rng.randrange(4)
        turn = self.rng.choice((b'CREATE "%s"', b'DELETE "%s"', b'SETACL "%s" ann lr', b'SETACL "%s" ann l',
                                b'DELETEACL "%s" ann', b"append"))
        if turn == b"append":
            self.bob.append(b'"%s"' % name, MESSAGE)
        else:
            self.bob.command(turn % name)

    def move(self, _):
        """The watcher goes to bob's worker, or comes home: what happens at home and abroad is told all the same."""
        self.look(self.theirs + b"Shared" if self.rng.random() < 0.5 else b"Archive")

    def look(self, box):
        """Of what is selected nothing is told: SELECTED was not asked for."""
        self.picture.looked.add(box)
        self.watch(b'EXAMINE "%s"' % box)

    def watch(self, command):
        """The watcher's own command, whose answer may be NO: it is told things before that."""
        self.watcher.send(b"w " + command + b"\r\n")
        line = self.watcher.response()[0]
        while not line.startswith(b"w "):
            self.picture.take(line)
            line = self.watcher.response()[0]

    def turn(self):
        acts = (self.create, self.rename, self.delete, self.append, self.append, self.append, self.copy, self.expunge,
                self.subscribe, self.share, self.share, self.move)
        try:
            self.rng.choice(acts)(self.some(self.rng.random() < 0.5))
        except wire.Refused as e:
            if "ended" in str(e):
                raise

    # ---- comparing ----

    def compare(self):
        """What was done before is durable, so it is told before the answer to what is asked after it."""
        self.look(b"INBOX")
        mark = b"mark%d" % self.rng.randrange(1 << 30)
        self.one.command(b'SUBSCRIBE "%s"' % mark)  # each account's notes come in order: wait for the last ones
        name = b"Shared/z%d" % self.rng.randrange(1 << 30)
        self.bob.command(b'CREATE "%s"' % name)
        self.bob.command(b'DELETE "%s"' % name)
        waiting = {mark, self.theirs + name}
        while waiting:
            line = self.watcher.response()[0]
            self.picture.take(line)
            found = LIST.match(line)
            if found and (bare(found.group(2)) == mark or b"\\NonExistent" in found.group(1)):
                waiting.discard(bare(found.group(2)))
        self.watch(b"NOOP")  # counts come behind names
        self.one.command(b'UNSUBSCRIBE "%s"' % mark)
        there = {}
        for box in self.names(self.ask):
            try:
                status = self.ask.command(b'STATUS "%s" (UIDVALIDITY UIDNEXT MESSAGES)' % box)[0][0][0]
            except wire.Refused:  # it may be looked up and not read
                status = b"* STATUS x ()"
            there[box] = counts(STATUS.match(status).group(2))
        told = self.picture.boxes
        assert set(told) == set(there), "names: not told %s, told %s" % (
            sorted(set(there) - set(told)), sorted(set(told) - set(there)))
        for box, want in there.items():
            if box in self.picture.looked:
                told[box].update(want)
            have = {k: told[box].get(k, want.get(k)) for k in want}
            assert have == want, "%r: told %r, there is %r" % (box, have, want)
        self.picture.looked = {b"INBOX"}


def partners(daemon):
    """Two accounts that may be called bob: one on ann's worker, one on another."""
    accounts = [json.loads(line) for line in daemon.tambo("account", "list", "--json").stdout.splitlines()]
    shard = {a["account"]: a["shard"] for a in accounts}
    same = [n for n in NAMES if shard[n] % 2 == shard["ann"] % 2]
    return (("one thread", same[0]), ("two threads", next(n for n in NAMES if n not in same)))


def run(daemon, steps, seed, bob):
    world = World(daemon, seed, bob)
    for step in range(steps):
        world.turn()
        if step % 25 == 24:
            world.compare()
    world.compare()


def overflow(daemon):
    """A client that does not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", daemon.port("imap")))
    sock.settimeout(60)
    lines = sock.makefile("rb")
    lines.readline()
    sock.sendall(b"a LOGIN ann secret\r\nb NOTIFY SET (personal (SubscriptionChange))\r\n")
    while not lines.readline().startswith(b"b OK"):
        pass
    other, names = wire.Imap(daemon, "ann"), [b"%d" % i + b"x" * 450 for i in range(10)]
    for _ in range(30):
        other.send(b"".join(b"s %sSUBSCRIBE %s\r\n" % (b"UN" if i % 2 else b"", names[i // 2 % 10])
                            for i in range(1000)))
        for _ in range(1000):
            assert other.line().startswith(b"s OK")
    told = 0
    while True:
        line = lines.readline()
        if line.startswith(b"* OK [NOTIFICATIONOVERFLOW]"):
            break
        assert line.startswith(b"* LIST "), line
        told += 1
    assert 0 < told < 30000, told
    other.command(b"SUBSCRIBE after")
    sock.sendall(b"c NOOP\r\nd NOTIFY SET (personal (SubscriptionChange))\r\n")
    assert lines.readline().startswith(b"c OK")
    assert lines.readline().startswith(b"d OK")
    other.command(b"UNSUBSCRIBE after")
    assert lines.readline() == b'* LIST (\\NonExistent) "/" after\r\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    print("seed %d" % args.seed)
    with Daemon(build=args.build, io=args.io, accounts=["ann"] + NAMES) as d:
        for where, bob in partners(d):
            with checks.step("%d steps on %s, seed %d" % (args.steps, where, args.seed)):
                run(d, args.steps, args.seed, bob)
        with checks.step("a client that does not read"):
            overflow(d)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
