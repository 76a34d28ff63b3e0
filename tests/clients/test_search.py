#!/usr/bin/env python3
"""SEARCH of random mailboxes against the model of tests/lib/finder.py; ESEARCH and kept searches against the same.

    test_search.py [--seed N] [--rounds N] [--steps N]

A round makes two mailboxes of random mail (encoded words, charsets, transfer encodings, parts, enclosed messages) with
random flags, takes some away, and asks --steps random programs of each kind. Meanwhile a second session follows some
searches by ADDTO and REMOVEFROM alone (RFC 5267), and must know the same. At the end clients go away in the midst of
an ESEARCH of mailboxes on another thread. Seeds are printed. Last line: "N passed, M failed".
"""
import argparse
import base64
import os
import quopri
import random
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import finder  # noqa: E402
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

WORDS = ("apple", "Äpfel", "straße", "ﬁsh", "ΣΊΣΥΦΟΣ", "naïve", "Ａbc", "pear", "x-y", "日本語", "Dvořák",
         "100%", "re:")
NEEDLES = WORDS + ("APPLE", "äpfel", "STRASSE", "fish", "σίσυφος", "abc", "ear", "apple pear", "本", "zzz", "a",
                   "%", "-", "", "file-", "octet-stream", "base64")
CHARSETS = ("utf-8", "utf-16", "iso-8859-1", "iso-2022-jp", "koi8-r", "shift_jis", "windows-1252")
PEOPLE = ("ann@a.test", "Bob@b.test", "carl.x@c.test")
FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Junk", "work")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
HOUR_S = 3600


def phrase(rng):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 5)))


def encode(rng, text):
    """A header's text: plain if it can be, or encoded words, now and then a character each."""
    if text.isascii() and rng.random() < 0.7:
        return text
    pieces = [text] if rng.random() < 0.5 else list(text)
    out = []
    for piece in pieces:
        data = piece.encode()
        if rng.random() < 0.5:
            out.append("=?utf-8?B?%s?=" % base64.b64encode(data).decode())
        else:
            out.append("=?UTF-8?q?%s?=" % "".join("=%02X" % b for b in data))
    return rng.choice((" ", "\r\n ")).join(out)


def body(rng, text):
    """A text part: its header's fields, its bytes."""
    charset = rng.choice(CHARSETS)
    try:
        data = text.encode(charset)
    except UnicodeEncodeError:
        charset, data = "utf-8", text.encode()
    kind = rng.choice(("plain", "html"))
    how = rng.choice(("base64", "quoted-printable", "8bit"))
    if charset == "utf-16":
        how = "base64"
    if how == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    elif how == "quoted-printable":
        data = quopri.encodestring(data).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return ["Content-Type: text/%s; charset=%s" % (kind, charset), "Content-Transfer-Encoding: " + how], data


def head(rng):
    """Fields as they are sent and as they are meant."""
    fields = []
    for name in ("From", "To", "Cc", "Bcc"):
        if rng.random() < 0.6:
            who, title = rng.choice(PEOPLE), rng.choice(WORDS[:8])
            fields.append((name, "%s <%s>" % (encode(rng, title), who), "%s <%s>" % (title, who)))
    for name in ("Subject", "X-Note", "X-Note"):
        if rng.random() < 0.7:
            text = phrase(rng)
            fields.append((name, encode(rng, text), text))
    return fields


def lines(fields, meant):
    return "".join("%s: %s\r\n" % (f[0], f[2 if meant else 1]) for f in fields)


def date_field(rng):
    """A Date field and its day as written."""
    at = time.gmtime(rng.randrange(946684800, 1700000000))
    zone = rng.choice(("+0000", "-1100", "+1300", "GMT"))
    day = int(time.mktime(time.struct_time(at[:3] + (12, 0, 0, 0, 0, 0))) // finder.DAY_S)
    text = "%d %s %d %02d:%02d:%02d %s" % (at[2], MONTHS[at[1] - 1], at[0], at[3], at[4], at[5], zone)
    return ("Date", text, text), day


def make(rng):
    """A message: what the model knows of it, and its bytes."""
    fields, texts, part_headers = head(rng), [], []
    m = {"sent_day": None}
    if rng.random() < 0.8:
        field, m["sent_day"] = date_field(rng)
        fields.insert(rng.randrange(len(fields) + 1), field)
    shape = rng.choice(("single", "single", "mixed", "enclosed", "attached"))
    one = phrase(rng) + "\r\n" + phrase(rng)
    own, data = body(rng, one)
    texts.append(one)
    if shape == "single":
        more, content = own, data
    else:
        more = ['Content-Type: multipart/mixed; boundary="=b="']
        parts = [(own, data)]
        if shape == "enclosed":
            inner, text = head(rng), phrase(rng)
            texts += [lines(inner, True), text]
            parts.append((["Content-Type: message/rfc822"],
                          (lines(inner, False) + "Content-Type: text/plain; charset=utf-8\r\n\r\n" + text).encode()))
            texts.append("Content-Type: text/plain; charset=utf-8\r\n")
        elif shape == "attached":
            name = "file-%d.bin" % rng.randrange(5)
            parts.append((["Content-Type: application/octet-stream; name=" + name,
                           "Content-Transfer-Encoding: base64"], base64.b64encode(phrase(rng).encode())))
        content = b""
        for h, d in parts:
            text = "\r\n".join(h) + "\r\n"
            part_headers.append(text)
            content += b"--=b=\r\n" + text.encode() + b"\r\n" + d + b"\r\n"
        content += b"--=b=--\r\n"
    fields += [("MIME-Version", "1.0", "1.0")] + [tuple(x.split(": ", 1)) + (x.split(": ", 1)[1],) for x in more]
    m.update(fields=[(f[0], f[2]) for f in fields], header=lines(fields, True), texts=texts, part_headers=part_headers)
    data = lines(fields, False).encode() + b"\r\n" + content
    m["size"] = len(data)
    return m, data


def day_text(day):
    at = time.gmtime(day * finder.DAY_S)
    return "%d-%s-%d" % (at[2], MONTHS[at[1] - 1], at[0])


def number_set(rng, top):
    return tuple((rng.randrange(0, top + 3), rng.randrange(0, top + 3)) for _ in range(rng.randrange(1, 4)))


def leaf(rng, messages, now):
    """A random key that is no branch."""
    any_of = rng.choice(messages)
    word = rng.choice(("text", "text", "text", "head", "head", "flag", "flag", "day", "day", "size", "set", "misc"))
    if word == "text":
        return rng.choice(("TEXT", "BODY", "SUBJECT")), rng.choice(NEEDLES)
    if word == "head":
        name = rng.choice(("FROM", "TO", "CC", "BCC", "HEADER", "HEADER"))
        needle = rng.choice(NEEDLES + PEOPLE + ("<ann@a", "B.TEST>"))
        return (name, rng.choice(("X-Note", "x-note", "To", "X-None", "Date")), needle) if name == "HEADER" else (
            name, needle)
    if word == "flag":
        flag = rng.choice(FLAGS + ("nowhere",))
        if flag[0] != "\\":
            return rng.choice(("KEYWORD", "UNKEYWORD")), rng.choice((flag, flag.upper()))
        return (rng.choice(("", "UN")) + flag[1:].upper(),)
    if word == "day":
        kind = rng.choice(("", "SENT", "SAVED"))
        day = any_of[{"": "arrival", "SENT": "sent_day", "SAVED": "saved"}[kind]]
        day = day if kind == "SENT" else day // finder.DAY_S
        return kind + rng.choice(("BEFORE", "ON", "SINCE")), day + rng.choice((-1, 0, 0, 1))
    if word == "size":
        return rng.choice(("LARGER", "SMALLER")), any_of["size"] + rng.choice((-1, 0, 1))
    if word == "set":
        kind = rng.choice(("SET", "UID"))
        return (kind, *number_set(rng, len(messages) if kind == "SET" else messages[-1]["uid"]))
    if rng.random() < 0.5:
        return rng.choice(("YOUNGER", "OLDER")), now - any_of["arrival"] + rng.choice((-HOUR_S // 2, HOUR_S // 2))
    return rng.choice((("ALL",), ("OLD",), ("NEW",), ("RECENT",), ("$",), ("MODSEQ", any_of["modseq"]),
                       ("EMAILID", any_of["emailid"])))


def program(rng, messages, now, depth=0):
    roll = rng.random()
    if depth > 4 or roll < 0.5:
        return leaf(rng, messages, now)
    sub = [program(rng, messages, now, depth + 1) for _ in range(3)]
    return ("NOT", sub[0]) if roll < 0.65 else ("OR", sub[0], sub[1]) if roll < 0.85 else ("AND", *sub)


def spell(key):
    """A key as a client sends it: parts between which literals stand."""
    word, args = key[0], key[1:]
    if word == "AND":
        inner = [spell(k) for k in args]
        return ["("] + sum(([" "] * (i > 0) + x for i, x in enumerate(inner)), []) + [")"]
    if word in ("NOT", "OR"):
        return [word] + sum(([" "] + spell(k) for k in args), [])
    if word in ("SET", "UID"):
        text = ",".join("%s:%s" % (a or "*", b or "*") for a, b in args)
        return [text if word == "SET" else "UID " + text]
    if word in ("BEFORE", "ON", "SINCE") or word[:4] == "SENT" or (word[:5] == "SAVED" and args):
        return ["%s %s" % (word, day_text(args[0]))]
    out = [word]
    for x in args:
        quoted = isinstance(x, str) and word not in ("KEYWORD", "UNKEYWORD", "EMAILID")
        out += [" ", ("literal", x) if quoted else str(x)]
    return out


def send(c, before, key):
    """Run a command that ends in a program; strings go as literals."""
    parts, text = [], before.encode()
    for piece in spell(key):
        if isinstance(piece, tuple):
            parts, text = parts + [text, piece[1].encode()], b""
        else:
            text += piece.encode()
    flat = b""
    for i, x in enumerate(parts):
        flat += x if i % 2 == 0 else b"{%d+}\r\n" % len(x) + x
    return c.command(flat + text)


def expand(text):
    out = []
    for piece in text.split(","):
        low, _, high = piece.partition(":")
        out += range(int(low), int(high or low) + 1)
    return out


class Box:
    """A mailbox and what the model knows of it."""

    def __init__(self, c, rng, name, n):
        self.c, self.rng, self.name, self.messages = c, rng, name, []
        c.command(b"CREATE " + name)
        for _ in range(n):
            self.add()

    def add(self):
        m, data = make(self.rng)
        m["arrival"] = int(time.time()) // HOUR_S * HOUR_S - self.rng.randrange(1, 60 * 24) * HOUR_S
        m["flags"] = {f.lower() for f in FLAGS if self.rng.random() < 0.25}
        if m["sent_day"] is None:
            m["sent_day"] = m["arrival"] // finder.DAY_S
        when = time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(m["arrival"]))
        flags = " ".join(f for f in FLAGS if f.lower() in m["flags"])
        _, tagged = self.c.command(b'APPEND %s (%s) "%s" ' % (self.name, flags.encode(), when.encode()), data)
        m.update(saved=int(time.time()), modseq=0, emailid="", number=0, now=int(time.time()))  # learn() knows better
        m["uid"] = int(re.search(rb"APPENDUID \d+ (\d+)", tagged).group(1))
        self.messages.append(m)

    def change(self):
        """Something random happens to it; it is selected."""
        roll = self.rng.random()
        if roll < 0.3 or len(self.messages) < 3:
            self.add()
        elif roll < 0.85:
            chosen = self.rng.sample(self.messages, self.rng.randrange(1, 4))
            flag, on = self.rng.choice(FLAGS), self.rng.random() < 0.5
            self.c.command(b"UID STORE %s %cFLAGS (%s)" % (",".join(str(m["uid"]) for m in chosen).encode(),
                                                           b"+" if on else b"-", flag.encode()))
            for m in chosen:
                m["flags"] = m["flags"] | {flag.lower()} if on else m["flags"] - {flag.lower()}
        else:
            m = self.rng.choice(self.messages)
            self.c.command(b"UID STORE %d +FLAGS (\\Deleted)" % m["uid"])
            self.c.command(b"UID EXPUNGE %d" % m["uid"])
            self.messages.remove(m)

    def learn(self):
        """What only the server can know: numbers, MODSEQ, save date, EMAILID."""
        self.c.command(b"SELECT " + self.name)
        untagged, _ = self.c.command(b"UID FETCH 1:* (MODSEQ SAVEDATE EMAILID)")
        told = {}
        for line in (x[0] for x in untagged):
            found = re.match(rb"\* (\d+) FETCH .*?UID (\d+)", line)
            saved = re.search(rb'SAVEDATE "([^"]*) \+0000"', line)
            if not found or not saved:
                continue
            at = time.strptime(saved.group(1).decode().strip() + " UTC", "%d-%b-%Y %H:%M:%S %Z")
            told[int(found.group(2))] = (int(found.group(1)), int(re.search(rb"MODSEQ \((\d+)", line).group(1)),
                                         int(time.mktime(at)), re.search(rb"EMAILID \(([^)]*)", line).group(1).decode())
        wire.equal(sorted(told), sorted(m["uid"] for m in self.messages), "messages of the mailbox")
        for m in self.messages:
            m["number"], m["modseq"], m["saved"], m["emailid"] = told[m["uid"]]
            m["now"] = int(time.time())


def ask(c, rng, box, key, saved, what):
    """One program in one of the forms of SEARCH."""
    found = finder.search(box.messages, key, saved)
    form = rng.randrange(4)
    of = "number" if form in (0, 2) else "uid"
    want = [m[of] for m in found]
    if form < 2:
        untagged, _ = send(c, ("" if form == 0 else "UID ") + "SEARCH CHARSET UTF-8 ", key)
        line = [x[0] for x in untagged if x[0].startswith(b"* SEARCH")][0].decode()
        wire.equal([int(x) for x in line.partition(" (")[0].split()[2:]], want, what)
        return
    untagged, _ = send(c, ("" if form == 2 else "UID ") + "SEARCH RETURN (MIN MAX COUNT ALL) ", key)
    line = [x[0] for x in untagged if x[0].startswith(b"* ESEARCH")][0].decode()
    value = {k: v for k, v in re.findall(r" (MIN|MAX|COUNT|ALL) (\S+)", line)}
    listed = expand(value["ALL"]) if "ALL" in value else []
    have = (int(value["COUNT"]), listed, [int(value[k]) for k in ("MIN", "MAX") if k in value])
    wire.equal(have, (len(want), want, [want[0], want[-1]] if want else []), what)


def ask_many(c, boxes, key, what):
    """The same of both mailboxes at once; nothing is selected."""
    untagged, _ = send(c, "ESEARCH IN (mailboxes (%s)) RETURN (ALL) " % " ".join(b.name.decode() for b in boxes), key)
    have = {}
    for line in (x[0].decode() for x in untagged if x[0].startswith(b"* ESEARCH")):
        have[re.search(r'MAILBOX "([^"]*)"', line).group(1)] = expand(line.rpartition(" ")[2])
    want = {b.name.decode(): [m["uid"] for m in finder.search(b.messages, key)] for b in boxes}
    wire.equal(have, {name: uids for name, uids in want.items() if uids}, what)


class Follower:
    """A session that knows the results of some searches by what it is told of them, and nothing else."""

    def __init__(self, d, box, keys):
        self.c, self.keys, self.know = wire.Imap(d, "ann"), {}, {}
        self.c.command(b"SELECT " + box.name)
        for key in keys:
            untagged, _ = send(self.c, "UID SEARCH RETURN (UPDATE ALL) ", key)
            tag = "t%d" % self.c.number
            self.keys[tag], self.know[tag] = key, set()
            self.hear(untagged)

    def hear(self, untagged):
        for line in (x[0].decode() for x in untagged):
            if "NOUPDATE" in line:
                raise AssertionError(line)
            found = re.match(r'\* ESEARCH \(TAG "(\w+)"\) UID (?:(ALL) (\S+)|(ADDTO|REMOVEFROM) \(0 (\S+)\))', line)
            if not found:
                continue
            uids = set(expand(found.group(3) or found.group(5)))
            known = self.know[found.group(1)]
            if found.group(4) == "REMOVEFROM":
                wire.equal(uids <= known, True, "removed what was there: " + line)
                self.know[found.group(1)] = known - uids
            else:
                wire.equal(uids & known, set(), "added what was not there: " + line)
                self.know[found.group(1)] = known | uids

    def check(self, box, what):
        self.hear(self.c.command(b"NOOP")[0])
        for tag, key in self.keys.items():
            want = {m["uid"] for m in finder.search(box.messages, key)}
            wire.equal(self.know[tag], want, "%s kept %s" % (what, key))


def stable(rng, box, now):
    """A program whose result changes only with what happens to messages, and means no numbers of today."""
    while True:
        key = program(rng, box.messages, now)
        if not re.search(r"'(SET|\$|MODSEQ|YOUNGER|OLDER|EMAILID|SAVED\w+)'", repr(key)):
            return key


def play(d, seed, steps):
    rng = random.Random(seed)
    with wire.Imap(d, "ann") as c:
        boxes = [Box(c, rng, b"s%d%c" % (seed, x), rng.randrange(3, 30)) for x in b"ab"]
        for box in boxes:
            c.command(b"SELECT " + box.name)
            for _ in range(6):
                box.change()
            box.learn()
        now = int(time.time())
        for n in range(steps):
            key = program(rng, boxes[1].messages, now)
            if n % 8 == 0:
                send(c, "SEARCH RETURN (SAVE) ", ("KEYWORD", "work"))
            saved = [m["uid"] for m in boxes[1].messages if "work" in m["flags"]]
            ask(c, rng, boxes[1], key, saved, "seed %d step %d %s" % (seed, n, key))
        c.command(b"UNSELECT")
        for n in range(steps // 4):
            key = program(rng, boxes[0].messages, now)
            ask_many(c, boxes, key, "seed %d many %d %s" % (seed, n, key))
        c.command(b"SELECT " + boxes[0].name)
        follower = Follower(d, boxes[0], [stable(rng, boxes[0], now) for _ in range(12)])
        with follower.c:
            for n in range(steps // 4):
                for _ in range(rng.randrange(1, 4)):
                    boxes[0].change()
                follower.check(boxes[0], "seed %d change %d" % (seed, n))


def vanish(d, rng, n):
    """Clients that go away while mailboxes of another user, on another thread too, are searched for them."""
    with wire.Imap(d, "bob") as b:
        b.command(b"CREATE big")
        for _ in range(20):
            b.append(b"big", b"Subject: x\r\n\r\n" + b"some text\r\n" * 2000)
        b.command(b"SELECT big")
        for _ in range(4):
            b.command(b"COPY 1:* big")
            b.command(b"NOOP")
        b.command(b"SETACL big ann lr")
    for _ in range(n):
        c = wire.Imap(d, "ann")
        c.send(b'x ESEARCH IN (subtree "Other Users" personal) TEXT nowhere\r\n')
        time.sleep(rng.random() * 0.03)
        c.close()
    with wire.Imap(d, "ann") as c:
        untagged, _ = c.command(b'ESEARCH IN (subtree "Other Users") RETURN (COUNT) TEXT "me tex"')
        wire.equal(b"COUNT 320" in untagged[-1][0], True, "the answer after all that: %r" % untagged)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wire.arguments(parser)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=60, help="programs a round")
    args = parser.parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    checks = wire.Checks(args.verbose)
    print("seed %d, %d rounds" % (args.seed, args.rounds))
    with Daemon(build=args.build, io=args.io, accounts=["ann", "bob", "carl"], config={"workers": "2"}) as d:
        for seed in range(args.seed, args.seed + args.rounds):
            with checks.step("seed %d" % seed):
                play(d, seed, args.steps)
        with checks.step("clients that go away"):
            vanish(d, random.Random(args.seed), 30)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
