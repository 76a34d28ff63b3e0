#!/usr/bin/env python3
"""Who may do what: every IMAP command against own mailboxes and those of another user, by the tables below.

    authz.py [--io auto] [--build DIR] [-v]

bob asks; the mailboxes are his own, or ann's. What he may not look up must be answered, to the byte, as what is not
there (RFC 4314 6), and nothing that is told may name it or tell its UIDVALIDITY, id or number of messages. The first
table is run with nothing selected and again with one of ann's mailboxes selected. Every verb of frontends/imap/verbs.c
is in a table or in the list of those that know no mailbox. At the end rights must outlive a restart, a backup and its
restore, and an index made anew. Last line: "N passed, M failed".
"""
import argparse
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import ROOT, Daemon  # noqa: E402

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"
HIDDEN_MESSAGES = 37

# A column: the mailbox as bob names it, and what ann gave him there.
COLUMNS = {
    "own":    (b"Box", None),
    "nobody": (b'"Other Users/nobody/Box"', None),   # there is no such user
    "none":   (b'"Other Users/ann/Nowhere"', None),  # there is no such mailbox
    "hidden": (b'"Other Users/ann/Hidden"', None),   # there is one, without any right
    "look":   (b'"Other Users/ann/Look"', "l"),
    "read":   (b'"Other Users/ann/Read"', "lr"),
    "full":   (b'"Other Users/ann/Full"', "lrswipkxtea"),
}
ABSENT = ("nobody", "none", "hidden")  # must be one and the same


def table(text):
    """Rows of cells. The first is the command, in it {m} the mailbox, {m/x} one below it, {url} its first message. The
    others, a column each, are what comes back: OK, the code of a NO, or BAD; with +NAME for each kind of untagged
    response there must be."""
    codes = {"NE": "NONEXISTENT", "NP": "NOPERM", "TC": "TRYCREATE"}
    rows = [[cell.strip() for cell in line.split("| ")] for line in text.strip().split("\n")[1:]]
    return [(command, *(codes.get(cell, cell) for cell in cells)) for command, *cells in rows]


AUTHENTICATED = table(r"""
command                              | own             | absent | look            | read            | full
MYRIGHTS {m}                         | OK+MYRIGHTS     | NE     | OK+MYRIGHTS     | OK+MYRIGHTS     | OK+MYRIGHTS
LISTRIGHTS {m} carol                 | OK+LISTRIGHTS   | NE     | NP              | NP              | OK+LISTRIGHTS
GETACL {m}                           | OK+ACL          | NE     | NP              | NP              | OK+ACL
SETACL {m} carol l                   | OK              | NE     | NP              | NP              | OK
DELETEACL {m} carol                  | OK              | NE     | NP              | NP              | OK
STATUS {m} (UIDVALIDITY MAILBOXID)   | OK+STATUS       | NE     | NP              | OK+STATUS       | OK+STATUS
STATUS {m} (MESSAGES)                | OK+STATUS       | NE     | NP              | OK+STATUS       | OK+STATUS
ESEARCH IN (mailboxes {m}) ALL      | OK+ESEARCH      | OK     | OK              | OK+ESEARCH      | OK+ESEARCH
ESEARCH IN (subtree {m}) ALL        | OK+ESEARCH      | OK     | OK              | OK+ESEARCH      | OK+ESEARCH
LIST "" {m}                          | OK+LIST         | OK     | OK+LIST         | OK+LIST         | OK+LIST
LIST "" {m} RETURN (MYRIGHTS)        | OK+LIST+MYRIGHTS| OK     | OK+LIST+MYRIGHTS| OK+LIST+MYRIGHTS| OK+LIST+MYRIGHTS
LIST "" {m} RETURN (STATUS (UNSEEN)) | OK+LIST+STATUS  | OK     | OK+LIST         | OK+LIST+STATUS  | OK+LIST+STATUS
XLIST "" {m}                         | OK+XLIST        | OK     | OK+XLIST        | OK+XLIST        | OK+XLIST
GETQUOTAROOT {m}                     | OK+QUOTAROOT    | NE     | NP              | OK+QUOTAROOT    | OK+QUOTAROOT
SETMETADATA {m} (/shared/comment "x")| OK              | NE     | NP              | NP              | OK
GETMETADATA {m} /shared/comment      | OK+METADATA     | NE     | NP              | OK+METADATA     | OK+METADATA
SUBSCRIBE {m}                        | OK              | OK     | OK              | OK              | OK
LSUB "" {m}                          | OK+LSUB         | OK+LSUB| OK+LSUB         | OK+LSUB         | OK+LSUB
UNSUBSCRIBE {m}                      | OK              | OK     | OK              | OK              | OK
APPEND {m} {message}                 | OK              | TC     | NP              | NP              | OK
CREATE {m}                           | ALREADYEXISTS   | NP     | NP              | NP              | NP
CREATE {m/x}                         | OK              | NP     | NP              | NP              | OK
RENAME {m/x} {m/y}                   | OK              | NE     | NE              | NE              | OK
RENAME {m/y} Stolen                  | OK              | CANNOT | CANNOT          | CANNOT          | CANNOT
DELETE {m/y}                         | NE              | NE     | NE              | NE              | OK
DELETE {m/x}                         | NE              | NE     | NE              | NE              | NE
RENAME {m} {mm}                      | OK              | NE     | NP              | NP              | NP
RENAME {mm} {m}                      | OK              | NE     | NE              | NE              | NE
""")
# These leave another mailbox selected, or none: run alone, not with one selected before.
SELECTING = table(r"""
command    | own     | absent| look| read    | full
EXAMINE {m}| OK+FLAGS| NE    | NP  | OK+FLAGS| OK+FLAGS
SELECT {m} | OK+FLAGS| NE    | NP  | OK+FLAGS| OK+FLAGS
""")
# With one's own INBOX selected: where to.
TARGET = table(r"""
command                    | own| absent| look| read| full
COPY 1 {m}                 | OK | TC    | NP  | NP  | OK
UID COPY 1 {m}             | OK | TC    | NP  | NP  | OK
MOVE 1 {m}                 | OK | TC    | NP  | NP  | OK
UID MOVE 1:* {m}           | OK | TC    | NP  | NP  | OK
REPLACE 1 {m} {message}    | OK | TC    | NP  | NP  | OK
UID REPLACE * {m} {message}| OK | TC    | NP  | NP  | OK
""")
LAST = table(r"""
command   | own| absent| look| read| full
DELETE {m}| OK | NE    | NP  | NP  | OK
""")
# With a session of its own: what it is told goes on.
WATCHED = table(r"""
command                                                         | own      | absent| look   | read     | full
NOTIFY SET STATUS (mailboxes {m} (MessageNew MessageExpunge))   | OK+STATUS| OK    | OK+LIST| OK+STATUS| OK+STATUS
NOTIFY SET STATUS (subtree {m} (MailboxName))                   | OK       | OK    | OK+LIST| OK       | OK
""")
# Of what is selected.
SELECTED = table(r"""
command                        | own      | read     | full
CHECK                          | OK       | OK       | OK
FETCH 1 (FLAGS BODY[])         | OK+FETCH | OK+FETCH | OK+FETCH
UID FETCH 1 (FLAGS)            | OK+FETCH | OK+FETCH | OK+FETCH
SEARCH ALL                     | OK+SEARCH| OK+SEARCH| OK+SEARCH
UID SEARCH ALL                 | OK+SEARCH| OK+SEARCH| OK+SEARCH
ESEARCH ALL                    | OK+ESEARCH| OK+ESEARCH| OK+ESEARCH
SORT (SUBJECT) UTF-8 ALL       | OK+SORT  | OK+SORT  | OK+SORT
UID SORT (SUBJECT) UTF-8 ALL   | OK+SORT  | OK+SORT  | OK+SORT
THREAD REFERENCES UTF-8 ALL    | OK+THREAD| OK+THREAD| OK+THREAD
UID THREAD REFERENCES UTF-8 ALL| OK+THREAD| OK+THREAD| OK+THREAD
STORE 1 +FLAGS (\Flagged)      | OK+FETCH | NP       | OK+FETCH
STORE 1 +FLAGS ($Keyword)      | OK+FETCH | NP       | OK+FETCH
UID STORE 1 FLAGS (\Seen)      | OK+FETCH | NP       | OK+FETCH
MOVE 1 Archive                 | OK       | NP       | OK
COPY 1 Archive                 | OK       | OK       | OK
REPLACE 1 Archive {message}    | OK       | NP       | OK
UID REPLACE * INBOX {message}  | OK       | NP       | OK
STORE 1 +FLAGS (\Deleted)      | OK+FETCH | NP       | OK+FETCH
UID EXPUNGE 1                  | OK       | NP       | OK
EXPUNGE                        | OK       | NP       | OK
CLOSE                          | OK       | OK       | OK
""")
NO_MAILBOX = {
    "AUTHENTICATE", "CAPABILITY", "COMPRESS", "ENABLE", "ID", "LOGIN", "LOGOUT", "NAMESPACE", "NOOP", "STARTTLS",
    "UNAUTHENTICATE",
    "IDLE", "UNSELECT",                 # they say what sync says: dialogue shared.txt
    "CANCELUPDATE",                     # of searches in what is selected
    "GETQUOTA", "SETQUOTA",             # of quota roots, which are accounts
}


def ask(imap, text):
    """(what came: as in the tables, all of it as one text)."""
    imap.number += 1
    tag = b"t%d" % imap.number
    imap.send(tag + b" " + text + b"\r\n")
    lines, names = [], set()
    while True:
        line = b"".join(imap.response())
        if line.startswith(tag + b" "):
            break
        lines.append(line)
        found = re.match(rb"\* (?:\d+ )?([A-Z]+)", line)
        names.add(found.group(1).decode() if found else line.decode())
    lines.append(line[len(tag) + 1:])
    code = re.match(rb"(OK|BAD|NO(?: \[([A-Z]+))?)", lines[-1])
    word = (code.group(2) or code.group(1)).decode()
    return word, names, b"\r\n".join(lines)


def matches(wanted, word, names):
    first, *more = wanted.split("+")
    kinds = {"MYRIGHTS", "LISTRIGHTS", "ACL", "STATUS", "LIST", "XLIST", "LSUB", "QUOTAROOT", "QUOTA", "METADATA",
             "SEARCH", "ESEARCH", "SORT", "THREAD"}
    return word == first and set(more) <= names and not (names & kinds) - set(more) - {"QUOTA"}


def url_of(name):
    return b"/%s/;UID=1" % name.strip(b'"').replace(b" ", b"%20")


def fill(command, name):
    bare = name.strip(b'"')
    quoted = {b"{m}": bare, b"{m/x}": bare + b"/x", b"{m/y}": bare + b"/y", b"{mm}": bare + b"2"}
    text = command.encode()
    for slot, full in quoted.items():
        text = text.replace(slot, b'"%s"' % full)
    text = text.replace(b"{url}", b'"%s"' % url_of(name))
    return text.replace(b"{message}", b"{%d+}\r\n" % len(MESSAGE) + MESSAGE)


class World:
    def __init__(self, daemon, checks):
        self.daemon, self.checks = daemon, checks
        self.ann, self.bob = wire.Imap(daemon, "ann"), wire.Imap(daemon, "bob")
        for column, (name, rights) in COLUMNS.items():
            box = name.strip(b'"').split(b"/")[-1]
            if column == "own":
                self.bob.command(b"CREATE Box")
                self.bob.append(b"Box", MESSAGE)
            elif column not in ("nobody", "none"):
                self.ann.command(b"CREATE " + box)
                for _ in range(HIDDEN_MESSAGES if column == "hidden" else 3):
                    self.ann.append(box, MESSAGE)
                if rights:
                    self.ann.command(b"SETACL %s bob %s" % (box, rights.encode()))
        for _ in range(4):
            self.bob.append(b"INBOX", MESSAGE)
        status = self.ann.command(b"STATUS Hidden (UIDVALIDITY MAILBOXID)")[0][0][0]
        self.secrets = [b"Hidden", re.search(rb"UIDVALIDITY (\d+)", status).group(1),
                        re.search(rb"MAILBOXID \((\w+)\)", status).group(1), b"%d" % HIDDEN_MESSAGES]

    def leaks(self, text, name):
        """Which secret is told; the name that was asked for comes back, and numbers only count as whole ones."""
        text = text.replace(url_of(name), b"").replace(name.strip(b'"'), b"")
        return [s for s in self.secrets if re.search(rb"\b%s\b" % re.escape(s), text)]

    def row(self, row, where, before=None, columns=tuple(COLUMNS)):
        command, own, absent, look, read, full = row
        wanted = {"own": own, "look": look, "read": read, "full": full, **dict.fromkeys(ABSENT, absent)}
        said = {}
        for column in columns:
            name = COLUMNS[column][0]
            if before:
                before()
            word, names, text = ask(self.bob, fill(command, name))
            text = re.sub(rb"\* OK \[CLOSED\] [^\r]*\r\n", b"", text)  # of the mailbox before
            said[column] = text.replace(url_of(name), b"?").replace(name.strip(b'"'), b"?")
            bad = [s.decode() for s in self.leaks(text, name)] if column in ABSENT else []
            label = "%s: %s: %s" % (where, command, column)
            self.verdict(label, matches(wanted[column], word, names) and not bad, "wanted %s, got %s%s" % (
                wanted[column], text.decode("utf-8", "replace"), " which tells " + ", ".join(bad) if bad else ""))
        if set(ABSENT) <= set(columns):
            same = len({said[c] for c in ABSENT}) == 1
            self.verdict("%s: %s: hidden is as absent" % (where, command), same, repr({c: said[c] for c in ABSENT}))

    def verdict(self, label, good, why):
        if good:
            self.checks.passed += 1
            if self.checks.verbose:
                print("ok   " + label)
        else:
            self.checks.failed += 1
            print("FAIL %s: %s" % (label, why))

    # ---- the parts ----

    def authenticated(self):
        for row in AUTHENTICATED + SELECTING:
            self.row(row, "authenticated")

    def abroad(self):
        """The same with one of ann's mailboxes selected: answers do not depend on where the session is."""
        self.bob.command(b'SELECT "Other Users/ann/Read"')
        self.bob.command(b"DELETE Stolen")
        for row in AUTHENTICATED:
            self.row(row, "abroad")
        for row in SELECTING:
            self.row(row, "abroad", before=lambda: self.bob.command(b'SELECT "Other Users/ann/Read"'))
        self.bob.command(b"UNSELECT")

    def watched(self):
        """NOTIFY; and what happens in a hidden mailbox is not told."""
        bob, self.bob = self.bob, wire.Imap(self.daemon, "bob")
        for row in WATCHED:
            self.row(row, "watched")
        word, _, text = ask(self.bob, b'NOTIFY SET STATUS (subtree "Other Users" (MessageNew MessageExpunge FlagChange '
                                      b'MailboxName MailboxMetadataChange))')
        self.verdict("watched: everything", word == "OK" and not self.leaks(text, b"?"), repr(text))
        for command in (b"CREATE Hidden/Hidden2", b"RENAME Hidden/Hidden2 Hidden3", b"DELETE Hidden3",
                        b"SETMETADATA Hidden (/shared/comment \"x\")", b"SETACL Hidden carol lr",
                        b"DELETEACL Hidden carol",
                        b"SELECT Hidden", b"STORE 1 +FLAGS (\\Seen)", b"COPY 1 Hidden", b"UNSELECT",
                        b"SETMETADATA Read (/shared/comment \"x\")"):
            self.ann.command(command)
        text = b"\r\n".join(b"".join(line) for line in [self.bob.response()])
        self.verdict("watched: hidden changes are not told, others are",
                     b'METADATA "Other Users/ann/Read" /shared/comment' in text, repr(text))
        self.bob = bob

    def everything(self):
        """Whole lists, and what is not asked for by name."""
        for command in (b'LIST "" *', b'LSUB "" *', b'LIST "" "Other Users/%"', b'LIST "" "Other Users/ann/%"',
                        b'LIST (SUBSCRIBED RECURSIVEMATCH) "" *', b'LIST "Other Users/" * RETURN (STATUS (MESSAGES))',
                        b"NAMESPACE"):
            text = ask(self.bob, command)[2]
            self.verdict("everything: %s" % command.decode(), not self.leaks(text, b'"?"'), repr(text))

    def targets(self):
        self.bob.command(b"SELECT INBOX")
        for row in TARGET:
            def fresh():
                while not re.search(rb"^\* SEARCH 1", ask(self.bob, b"SEARCH ALL")[2], re.M):
                    self.bob.append(b"INBOX", MESSAGE)
                    self.bob.command(b"NOOP")
            if row[0].startswith("UID"):  # of messages that are not there any more, nothing is copied: the rights count
                row = (row[0].replace(" 1 ", " 1:* "),) + row[1:]
            self.row(row, "target", before=fresh)

    def selected(self):
        for at, column in enumerate(("own", "read", "full"), 1):
            name = COLUMNS[column][0]
            for row in SELECTED:
                if column == "own" or row[0] == "CHECK":
                    if column == "own":
                        self.bob.append(b"Box", MESSAGE)
                    self.bob.command(b"SELECT " + name)
                elif row[0] == "MOVE 1 Archive" and column == "full":
                    self.bob.append(name, MESSAGE)
                    self.bob.command(b"NOOP")
                word, names, text = ask(self.bob, fill(row[0], name))
                self.verdict("selected: %s: %s" % (row[0], column), matches(row[at], word, names),
                             "wanted %s, got %s" % (row[at], text.decode("utf-8", "replace")))
        state = self.ann.command(b"STATUS Read (MESSAGES UNSEEN DELETED)")[0][0][0]
        self.verdict("selected: who may read only has changed nothing", b"(MESSAGES 3 UNSEEN 3 DELETED 0)" in state,
                     repr(state))

    def verbs(self):
        """Every verb there is stands in a table."""
        with open(os.path.join(ROOT, "frontends", "imap", "verbs.c"), encoding="utf-8") as f:
            there = set(re.findall(r'^    \{"([A-Z ]+)", (?:ANY|OUT|IN|SEL)', f.read(), re.M))
        rows = AUTHENTICATED + SELECTING + TARGET + WATCHED + SELECTED + LAST
        told = {" ".join(re.match(r"(UID )?([A-Z]+)", row[0]).group(0).split()) for row in rows} | NO_MAILBOX
        self.verdict("every verb stands in a table", there <= told, "not there: %s" % sorted(there - told))


def acl_of(daemon):
    out = {}
    for box in ("Look", "Read", "Full", "Renamed", "Hidden"):
        out[box] = json.loads(daemon.tambo("mailbox", "acl", "ann", box, "--json").stdout)["acl"]
    return out


def survives(daemon, world):
    """A rename, a deletion and what comes after it; a restart; a backup; an index made anew."""
    world.ann.command(b"CREATE Before")
    world.ann.command(b"SETACL Before bob lr")
    world.ann.command(b"SETACL Before -anyone a")
    world.ann.command(b"RENAME Before Renamed")
    admin = daemon.tambo("mailbox", "acl", "ann", "Renamed", "carol", "lrs").stdout
    assert sorted(admin.split(b"\n")) == [b"", b"-anyone a", b"bob lr", b"carol lrs"], admin
    assert daemon.tambo("mailbox", "acl", "ann", "Renamed", "dave", "lr", check=False).returncode == 67
    assert daemon.tambo("mailbox", "acl", "ann", "Nowhere", check=False).returncode == 67
    assert daemon.tambo("mailbox", "acl", "ann", "Renamed", "carol", "q", check=False).returncode == 64
    before = acl_of(daemon)
    daemon.stop()
    assert acl_of(daemon) == before, "offline"
    checked = daemon.tambo("check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    backup, store = os.path.join(daemon.dir, "backup"), os.path.join(daemon.dir, "d", "store")
    daemon.tambo("backup", backup)
    daemon.tambo("rebuild-index")
    assert acl_of(daemon) == before, "after rebuild-index"
    os.rename(store, store + ".old")
    daemon.tambo("restore", backup, "--to", store)
    assert acl_of(daemon) == before, "after restore"
    checked = daemon.tambo("check", check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    daemon.start()
    bob = wire.Imap(daemon, "bob")
    bob.command(b'SELECT "Other Users/ann/Renamed"')
    # a name that is given to another person gives that person nothing
    daemon.tambo("account", "delete", "bob", "--yes")
    daemon.tambo("account", "add", "bob", "--password-stdin", stdin=b"secret\n")
    word = ask(wire.Imap(daemon, "bob"), b'SELECT "Other Users/ann/Renamed"')[0]
    assert word == "NONEXISTENT", word
    assert b" bob " not in b"".join(wire.Imap(daemon, "ann").command(b"GETACL Renamed")[0][0])


def where(daemon):
    """Do ann's account and bob's belong to one worker? Sessions move between two."""
    accounts = [json.loads(line) for line in daemon.tambo("account", "list", "--json").stdout.splitlines()]
    shard = {a["account"]: a["shard"] for a in accounts}
    return "on one thread" if shard["ann"] % 2 == shard["bob"] % 2 else "on two threads"


def run(daemon, checks, name):
    world = World(daemon, checks)
    for part in (world.verbs, world.authenticated, world.abroad, world.everything, world.watched, world.targets,
                 world.selected):
        with checks.step("%s, %s" % (part.__name__, name)):
            part()
    for row in LAST:
        world.row(row, "last")
    if name == "on two threads":
        with checks.step("rights outlive a restart, a backup and a new index"):
            world.ann.command(b"CREATE Full")
            survives(daemon, world)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--io", default="auto")
    options.add_argument("--build")
    options.add_argument("-v", action="store_true")
    options = options.parse_args()
    checks = wire.Checks(options.v)
    wanted = {"on two threads", "on one thread"}
    for _ in range(60):  # where an account lies is drawn anew with each store
        with Daemon(build=options.build, io=options.io, accounts=["ann", "bob", "carol"], config={"workers": "2"},
                    init=["--shards", "4"]) as daemon:
            found = where(daemon)
            if found in wanted:
                run(daemon, checks, found)
                wanted.remove(found)
        if not wanted:
            break
    with checks.step("both ways were met"):
        assert not wanted, wanted
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
