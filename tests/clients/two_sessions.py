#!/usr/bin/env python3
"""Several sessions change one mailbox at random; each must see it as it is, by the responses that it got alone.

    two_sessions.py [--steps 3000] [--seed N] [--io auto] [--build DIR]

One session speaks plain IMAP4rev1, one CONDSTORE, one QRESYNC; they take turns with STORE, conditional STORE, EXPUNGE,
UID EXPUNGE, MOVE, COPY, APPEND and FETCH with CHANGEDSINCE and VANISHED, and the QRESYNC one goes away and comes back.
Each keeps its own picture: sequence numbers, UIDs, flags, mod-sequences. A model holds what the mailbox must be. After
each turn the session's picture is looked at for what must never be (a removal told while sequence numbers must hold
still, a mod-sequence that falls, a UID under another number); every few turns it is compared with the model. The seed
is printed; with it the run is the same. Last line: "N passed, M failed".
"""
import argparse
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

FLAGS = [b"\\Seen", b"\\Answered", b"\\Flagged", b"\\Draft", b"$one", b"$two"]
HOLD_STILL = re.compile(rb"(FETCH|STORE|SEARCH) ")


def ranges(numbers):
    """Numbers as a sequence-set."""
    out, numbers = [], sorted(numbers)
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return b",".join(b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in out)


def numbers(text):
    """A sequence-set's numbers."""
    out = []
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        out += range(int(first), int(last or first) + 1)
    return out


class Model:
    """What the mailbox is."""

    def __init__(self):
        self.flags = {}  # by UID
        self.uidnext = 1

    def add(self, flags=frozenset()):
        self.flags[self.uidnext] = frozenset(flags)
        self.uidnext += 1

    def remove(self, uids):
        for uid in uids:
            self.flags.pop(uid, None)


class Session:
    def __init__(self, daemon, kind, model, rng):
        self.daemon, self.kind, self.model, self.rng = daemon, kind, model, rng
        self.uids = []     # by sequence number; None: not told yet
        self.flags = {}    # by UID
        self.modseq = {}   # by UID
        self.high = 0      # everything up to it is known
        self.asked_last = None
        self.told = set()  # UIDs that the last command's FETCH responses were about
        self.imap = None
        self.begin()

    # ---- the wire ----

    def begin(self):
        self.imap = wire.Imap(self.daemon, "ann")
        if self.kind == "qresync":
            self.imap.command(b"ENABLE QRESYNC")
        parameter = b" (CONDSTORE)" if self.kind == "condstore" else b""
        known = {uid for uid in self.uids if uid}
        if self.kind == "qresync" and self.high:
            parameter = b" (QRESYNC (%d %d%s))" % (self.validity, self.high, self.known_set(known))
        self.uids = []
        untagged, _ = self.imap.command(b"SELECT INBOX" + parameter)
        for parts in untagged:
            line = parts[0]
            if line.startswith(b"* OK [UIDVALIDITY "):
                self.validity = int(re.search(rb"\d+", line).group())
            if line.startswith(b"* OK [HIGHESTMODSEQ "):
                high = int(re.search(rb"\d+", line).group())
            if re.match(rb"\* \d+ EXISTS", line):
                self.uids = [None] * int(line.split()[1])
        if self.kind == "qresync" and self.high:
            self.came_back(untagged, known, high)
        else:
            self.learn()
        self.high = high

    def known_set(self, known):
        name = known and self.rng.random() < 0.5
        self.asked_last = max(known) if name else None
        return b" " + ranges(known) if name else b""

    def came_back(self, untagged, known, high):
        """The picture from before, mended by VANISHED (EARLIER) and FETCH, is the picture now."""
        for parts in untagged:
            if parts[0].startswith(b"* VANISHED (EARLIER) "):
                known -= set(numbers(parts[0].split()[3]))
            if b" FETCH (" in parts[0]:
                known.add(self.fetched(parts[0], place=False))
        want = sorted(self.model.flags)
        last = self.asked_last or self.model.uidnext  # of the UIDs named as known; without any: of all
        wire.equal(sorted(known), [uid for uid in want if uid <= last], "UIDs after QRESYNC")
        self.uids = want
        for uid in set(self.flags) | set(self.modseq):
            if uid not in known:
                self.forget(uid)
        if want:
            self.command(b"FETCH 1:* (UID FLAGS)")
        self.high = high

    def command(self, text, *data):
        """A command, its untagged responses taken in; the tagged text: OK, or NO for what others expunged meanwhile."""
        self.told = set()
        self.imap.number += 1
        tag = b"t%d" % self.imap.number
        line = tag + b" " + text + b"".join(b"{%d+}\r\n" % len(d) + d for d in data)
        self.imap.send(line + b"\r\n")
        untagged = []
        while not untagged or not untagged[-1][0].startswith(tag + b" "):
            untagged.append(self.imap.response())
        tagged = untagged.pop()[0][len(tag) + 1:]
        if not tagged.startswith(b"OK") and b"EXPUNGEISSUED" not in tagged and b"NO [MODIFIED" not in tagged:
            raise AssertionError("%s: %s was refused: %s" % (self.kind, text, tagged))
        still = HOLD_STILL.match(text) is not None
        for parts in untagged:
            self.take(parts[0], still, text)
        found = re.search(rb"\[HIGHESTMODSEQ (\d+)\]", tagged)
        if found:
            self.high = max(self.high, int(found.group(1)))
        return tagged

    # ---- the picture ----

    def take(self, line, still, text):
        word = line.split()
        if re.match(rb"\* \d+ EXISTS", line):
            n = int(word[1])
            assert n >= len(self.uids), "%s: EXISTS fell from %d to %d" % (self.kind, len(self.uids), n)
            self.uids += [None] * (n - len(self.uids))
        elif re.match(rb"\* \d+ EXPUNGE", line):
            assert not still, "EXPUNGE during %s" % text
            assert self.kind != "qresync", "EXPUNGE with QRESYNC"
            self.forget(self.uids.pop(int(word[1]) - 1))
        elif line.startswith(b"* VANISHED (EARLIER) "):
            for uid in numbers(word[3]):
                assert uid not in self.model.flags, "UID %d vanished, but it is there" % uid
        elif line.startswith(b"* VANISHED "):
            assert not still, "VANISHED during %s" % text
            assert self.kind == "qresync", "VANISHED without QRESYNC"
            for uid in numbers(word[2]):
                self.vanish(uid, line)
        elif b" FETCH (" in line:
            self.fetched(line)

    def vanish(self, uid, line):
        """UIDs ascend: one that EXISTS counted and nothing named lies behind all that are lower."""
        at = self.uids.index(uid) if uid in self.uids else sum(
            1 for i, u in enumerate(self.uids) if any(v is not None and v < uid for v in self.uids[i:]))
        assert at < len(self.uids) and self.uids[at] in (uid, None), "%s: not in the mailbox: %s" % (self.kind, line)
        del self.uids[at]
        self.forget(uid)

    def forget(self, uid):
        self.flags.pop(uid, None)
        self.modseq.pop(uid, None)

    def fetched(self, line, place=True):
        seqno = int(line.split()[1])
        uid = re.search(rb"UID (\d+)", line)
        uid = int(uid.group(1)) if uid else self.uids[seqno - 1]
        if place:
            assert seqno <= len(self.uids), "%s: %s, but there are %d" % (self.kind, line, len(self.uids))
            assert self.uids[seqno - 1] in (None, uid), "%s: number %d is UID %s, not %d" % (
                self.kind, seqno, self.uids[seqno - 1], uid)
            self.uids[seqno - 1] = uid
        flags, modseq = re.search(rb"FLAGS \(([^)]*)\)", line), re.search(rb"MODSEQ \((\d+)\)", line)
        self.told.add(uid)
        if flags and uid:
            self.flags[uid] = frozenset(flags.group(1).split())
        if modseq and uid:
            modseq = int(modseq.group(1))
            assert modseq >= self.modseq.get(uid, 0), "UID %d: the mod-sequence fell" % uid
            self.modseq[uid] = modseq
        if flags and place and self.kind != "plain":
            assert modseq is not None or b"UID" in line, "FETCH without MODSEQ: %s" % line
        return uid

    def learn(self):
        """UIDs and flags of what was only counted so far."""
        for _ in range(2):
            if None in self.uids:
                self.command(b"FETCH %d:* (UID FLAGS)" % (self.uids.index(None) + 1))
            if None in self.uids:
                self.command(b"NOOP")  # it was expunged before we asked
        assert None not in self.uids, "%s: a message without a UID" % self.kind

    def compare(self):
        self.command(b"NOOP")
        self.learn()
        want = sorted(self.model.flags)
        wire.equal(self.uids, want, self.kind + "'s UIDs")
        for uid in want:
            have = sorted(self.flags.get(uid, ()))
            wire.equal(have, sorted(self.model.flags[uid]), "%s's flags of %d" % (self.kind, uid))

    # ---- turns ----

    def some(self):
        """A few of the messages in the picture: (set by number or by UID, is it UIDs, UIDs)."""
        self.learn()
        if not self.uids:
            return None
        at = self.rng.randrange(len(self.uids))
        chosen = range(at, min(at + self.rng.randint(1, 6), len(self.uids)))
        uids = [self.uids[i] for i in chosen]
        if self.rng.random() < 0.5:
            return ranges(uids), True, uids
        return ranges(i + 1 for i in chosen), False, uids

    def store(self):
        chosen = self.some()
        if not chosen:
            return
        text, by_uid, uids = chosen
        mode, names = self.rng.choice([b"", b"+", b"-"]), frozenset(self.rng.sample(FLAGS, self.rng.randint(1, 3)))
        condition, since = b"", None
        if self.kind != "plain" and self.rng.random() < 0.4:
            since = self.rng.choice(list(self.modseq.values()) or [1])
            condition = b" (UNCHANGEDSINCE %d)" % since
        silent = self.rng.choice([b"", b".SILENT"])
        prefix = b"UID " if by_uid else b""
        line = b"%sSTORE %s%s %sFLAGS%s (%s)" % (prefix, text, condition, mode, silent, b" ".join(names))
        seen_before = list(self.uids)
        tagged = self.command(line)
        modified = re.search(rb"\[MODIFIED ([0-9:,]+)\]", tagged)
        failed = set(numbers(modified.group(1))) if modified else set()
        if modified and not by_uid:
            failed = {seen_before[n - 1] for n in failed}
        for uid in uids:
            if uid in self.model.flags and uid not in failed:
                have = self.model.flags[uid]
                self.model.flags[uid] = {b"": names, b"+": have | names, b"-": have - names}[mode]
                if silent and uid in self.flags:
                    self.flags[uid] = self.model.flags[uid] if uid in self.uids else self.flags[uid]

    def expunge(self):
        chosen = self.some()
        if not chosen:
            return
        _, _, uids = chosen
        self.command(b"UID STORE %s +FLAGS.SILENT (\\Deleted)" % ranges(uids))
        for uid in uids:
            if uid in self.model.flags:
                self.model.flags[uid] |= {b"\\Deleted"}
                if uid in self.flags:
                    self.flags[uid] = self.model.flags[uid]
        if self.rng.random() < 0.5:
            self.command(b"UID EXPUNGE %s" % ranges(uids))
            self.model.remove(u for u in uids if b"\\Deleted" in self.model.flags.get(u, ()))
        else:
            self.command(b"EXPUNGE")
            self.model.remove([u for u, f in self.model.flags.items() if b"\\Deleted" in f])

    def move(self):
        chosen = self.some()
        if chosen:
            self.command(b"UID MOVE %s Archive" % ranges(chosen[2]))
            self.model.remove(chosen[2])

    def copy(self):
        chosen = self.some()
        if not chosen:
            return
        there = [u for u in chosen[2] if u in self.model.flags]
        self.command(b"UID COPY %s INBOX" % ranges(chosen[2]))
        for uid in there:
            self.model.add(self.model.flags[uid])

    def append(self):
        names = self.rng.sample(FLAGS, self.rng.randint(0, 2))
        self.command(b"APPEND INBOX (%s) " % b" ".join(names), b"Subject: %d\r\n\r\nx\r\n" % self.model.uidnext)
        self.model.add(names)

    def look(self):
        self.command(b"NOOP")

    def changed(self):
        """CHANGEDSINCE tells of every message that is newer, and of no other."""
        if self.kind == "plain":
            return
        self.compare()
        if not self.modseq:
            return
        since = self.rng.choice(list(self.modseq.values()))
        vanished = b" VANISHED" if self.kind == "qresync" else b""
        want = sorted(uid for uid, modseq in self.modseq.items() if modseq > since)
        self.command(b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d%s)" % (since, vanished))
        missing = set(want) - self.told
        assert not missing, "%s: CHANGEDSINCE %d left out %s" % (self.kind, since, sorted(missing))
        for uid in self.told:
            assert self.modseq[uid] > since, "%s: CHANGEDSINCE %d told of UID %d" % (self.kind, since, uid)

    def away(self):
        if self.kind == "qresync":
            self.compare()
            self.imap.close()
            return True
        return False


TURNS = (["store"] * 6 + ["append"] * 4 + ["expunge"] * 2 + ["move", "copy", "look", "look", "changed"])


def run(daemon, steps, seed):
    rng, model = random.Random(seed), Model()
    for _ in range(20):
        with wire.Imap(daemon, "ann") as imap:
            model.uidnext = imap.append(b"INBOX", b"Subject: first\r\n\r\nx\r\n")
            model.add()
    sessions = [Session(daemon, kind, model, rng) for kind in ("plain", "condstore", "qresync", "plain")]
    gone = None
    for step in range(steps):
        session = rng.choice(sessions)
        if session is gone:
            if rng.random() < 0.2:
                session.begin()
                gone = None
            continue
        if gone is None and rng.random() < 0.01 and session.away():
            gone = session
            continue
        getattr(session, rng.choice(TURNS))()
        if rng.random() < 0.1:
            session.compare()
        if len(model.flags) > 200:
            session.command(b"UID MOVE %s Archive" % ranges(sorted(model.flags)[:100]))
            model.remove(sorted(model.flags)[:100])
    for session in sessions:
        if session is gone:
            session.begin()
        session.compare()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    print("seed %d" % args.seed)
    with Daemon(build=args.build, io=args.io, accounts=["ann"]) as d:
        with checks.step("%d steps of four sessions, seed %d" % (args.steps, args.seed)):
            run(d, args.steps, args.seed)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
