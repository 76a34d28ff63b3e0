#!/usr/bin/env python3
"""What was deleted comes back: messages, mailboxes, accounts, as an administrator asks and as IMAP clients see it.

    test_undelete.py [--io auto] [--build DIR] [-k WORD]

Every check runs with the daemon up and, where that makes a difference, without it. Last line: "N passed, M failed".
"""
import argparse
import json
import os
import re
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
from tambo import Daemon  # noqa: E402
from wire import Imap  # noqa: E402

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def message(n, size=300):
    return (b"From: =?utf-8?q?Zo=C3=AB?= <zoe%d@example.test>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe_%d?=\r\n"
            b"Date: Mon, 7 Feb 1994 21:52:25 -0800\r\n\r\n%s\r\n" % (n, n, b"x%d " % n * (size // 5)))


def rows(d, *args):
    return [json.loads(line) for line in d.tambo(*args, "--json").stdout.splitlines()]


def uids(c, mailbox):
    """UIDVALIDITY and {UID: body} of a mailbox."""
    said = ask(c, b"EXAMINE " + quoted(mailbox))
    validity = int(re.search(rb"UIDVALIDITY (\d+)", b"".join(said)).group(1))
    found = {}
    if not any(re.match(rb"\* 0 EXISTS", line) for line in said):
        for line in ask(c, b"FETCH 1:* (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])"):
            m = re.search(rb"UID (\d+) .*_(\d+)\?=", line, re.S)
            if m:
                found[int(m.group(1))] = int(m.group(2))
    return validity, found


def quoted(name):
    return b'"%s"' % name.encode()


def ask(c, command, want=b"OK"):
    """A command's untagged lines; the answer must begin with `want`."""
    said, status = c.say(command)
    assert status.startswith(want), (command, status)
    return said


class Client(Imap):
    def say(self, command):
        """Untagged responses, each in one piece, and the tagged text."""
        self.number += 1
        self.send(b"t%d %s\r\n" % (self.number, command))
        lines = []
        while True:
            parts = self.response()
            if parts[0].startswith(b"t%d " % self.number):
                return lines, parts[0].split(b" ", 1)[1]
            lines.append(b"".join(parts))


def fill(d, user, mailbox, count, first=1):
    with Client(d, user) as c:
        if mailbox != "INBOX":
            c.say(b"CREATE " + quoted(mailbox))
        for n in range(first, first + count):
            c.append(quoted(mailbox), message(n), b"(\\Seen keep%d)" % (n % 3))


def expunge(c, mailbox, which):
    ask(c, b"SELECT " + quoted(mailbox))
    ask(c, b"UID STORE %s +FLAGS.SILENT (\\Deleted)" % which)
    ask(c, b"EXPUNGE")
    ask(c, b"UNSELECT")


@check
def messages_come_back_under_new_uids(d):
    fill(d, "ann", "INBOX", 10)
    with Client(d, "ann") as c, Client(d, "ann") as watcher:
        ids = ask(c, b"SELECT INBOX")
        ids = ask(c, b"UID FETCH 3:7 (FLAGS INTERNALDATE ENVELOPE)")
        ask(c, b"UNSELECT")
        expunge(c, "INBOX", b"3:7")
        listed = rows(d, "undelete", "ann", "--list")
        assert [(r["kind"], r["mailbox"], r["uid"]) for r in listed] == [("message", "INBOX", u) for u in range(3, 8)]
        assert listed[0]["subject"] == "Grüße 3" and listed[0]["from"] == "zoe3@example.test", listed[0]
        assert listed[0]["bytes"] == len(message(3)) and listed[0]["until"] > listed[0]["deleted"]
        assert rows(d, "undelete", "ann", "--list", "--mailbox", "Sent") == []
        ask(watcher, b"SELECT INBOX")
        watcher.send(b"i IDLE\r\n")
        assert watcher.line().startswith(b"+")
        said = json.loads(d.tambo("undelete", "ann", "--all", "--json").stdout)
        assert said == {"mailboxes": 0, "messages": 5, "renamed": 0}, said
        assert watcher.line() == b"* 10 EXISTS"  # nobody had to ask
        watcher.send(b"DONE\r\n")
        validity, found = uids(c, "INBOX")
        assert found == {1: 1, 2: 2, 8: 8, 9: 9, 10: 10, 11: 3, 12: 4, 13: 5, 14: 6, 15: 7}, found
        again = ask(c, b"UID FETCH 11:15 (FLAGS INTERNALDATE ENVELOPE)")
        for before, after in zip(ids, again):  # all but the numbers
            strip = re.compile(rb"^\* \d+ FETCH \(UID \d+ ")
            assert sorted(strip.sub(b"", before).split()) == sorted(strip.sub(b"", after).split()), (before, after)
        assert rows(d, "undelete", "ann", "--list") == []
        assert json.loads(d.tambo("undelete", "ann", "--all", "--json").stdout)["messages"] == 0


@check
def some_of_them(d):
    fill(d, "ann", "Work", 6)
    with Client(d, "ann") as c:
        expunge(c, "Work", b"1:6")
        fill(d, "ann", "INBOX", 2, first=50)
        expunge(c, "INBOX", b"1")
        assert json.loads(d.tambo("undelete", "ann", "--mailbox", "Work", "--uid", "2,4:5", "--json").stdout) == \
            {"mailboxes": 0, "messages": 3, "renamed": 0}
        assert sorted(uids(c, "Work")[1].values()) == [2, 4, 5]
        assert d.tambo("undelete", "ann", "--uid", "1", check=False).returncode == 64  # of which mailbox?
        assert d.tambo("undelete", "ann", check=False).returncode == 64
        assert d.tambo("undelete", "ann", "--since", "yesterday", check=False).returncode == 64
        assert d.tambo("undelete", "nobody", "--all", check=False).returncode == 67
        assert d.tambo("undelete", "ann", "--all", "--to", "a//b", check=False).returncode == 65
        assert json.loads(d.tambo("undelete", "ann", "--since", "2999-01-01T00:00", "--json").stdout)["messages"] == 0
        assert json.loads(d.tambo("undelete", "ann", "--since", "1h", "--to", "Found/Again", "--json").stdout) == \
            {"mailboxes": 0, "messages": 4, "renamed": 0}
        assert sorted(uids(c, "Found/Again")[1].values()) == [1, 3, 6, 50]
        flags = b"".join(ask(c, b"FETCH 1:* (FLAGS)"))
        assert b"\\Deleted" not in flags and b"keep1" in flags and b"keep0" in flags, flags


@check
def mailboxes_come_back_whole(d):
    fill(d, "ann", "Work", 5)
    fill(d, "ann", "Work/Old", 3, first=20)
    with Client(d, "ann") as c:
        before, before_old = uids(c, "Work"), uids(c, "Work/Old")
        ask(c, b"DELETE Work/Old")
        ask(c, b"DELETE Work")
        assert b"Work" not in b"".join(ask(c, b'LIST "" "*"'))
        listed = rows(d, "undelete", "ann", "--list")
        assert sorted((r["mailbox"], r["messages"]) for r in listed) == [("Work", 5), ("Work/Old", 3)], listed
        assert d.tambo("undelete", "ann", "--all").stdout == b"2 mailboxes and 0 messages are back\n"
        assert uids(c, "Work") == before and uids(c, "Work/Old") == before_old
        assert not re.search(rb"Noselect|NoSelect", b"".join(ask(c, b'LIST "" "Work*"')))
        ask(c, b"DELETE Work")  # its child stays, and its name for that
        assert re.search(rb"Noselect", b"".join(ask(c, b'LIST "" "Work"')), re.I)
        assert uids(c, "Work/Old") == before_old
        d.tambo("undelete", "ann", "--mailbox", "Work", "--all")
        assert uids(c, "Work") == before and uids(c, "Work/Old") == before_old
        ask(c, b"DELETE Work/Old")
        fill(d, "ann", "Work/Old", 1, first=70)
        newer = uids(c, "Work/Old")
        assert newer[0] > before_old[0]
        done = d.tambo("undelete", "ann", "--all")
        assert b'as "NAME (restored)"' in done.stderr, done
        assert uids(c, "Work/Old") == newer and uids(c, "Work/Old (restored)") == before_old


@check
def a_mailbox_of_many(d):
    with Client(d, "ann") as c:
        ask(c, b"CREATE Big")
        for n in range(50):
            c.append(b"Big", message(n))
        for _ in range(7):  # 6,400 messages
            ask(c, b"SELECT Big")
            ask(c, b"COPY 1:* Big")
        validity, found = uids(c, "Big")
        assert len(found) == 6400
        ask(c, b"UNSELECT")
        expunge(c, "Big", b"1:3000")
        assert len(rows(d, "undelete", "ann", "--list")) == 3000
        ask(c, b"DELETE Big")
        begin = time.monotonic()
        assert json.loads(d.tambo("undelete", "ann", "--all", "--json").stdout) == \
            {"mailboxes": 1, "messages": 3000, "renamed": 0}
        assert time.monotonic() - begin < 30
        again = uids(c, "Big")
        assert again[0] == validity and len(again[1]) == 6400 and min(again[1]) == 3001


@check
def accounts_come_back(d):
    fill(d, "ann", "Work", 3)
    with Client(d, "ann") as c:
        before = uids(c, "Work")
    d.tambo("account", "delete", "ann", "--yes")
    listed = rows(d, "account", "list", "--deleted")
    assert [r["account"] for r in listed] == ["ann"], listed
    assert d.tambo("undelete", "ann", "--all", check=False).returncode == 67
    assert d.tambo("account", "undelete", "bob", check=False).returncode == 67
    d.kill()
    d.start()
    assert rows(d, "account", "list", "--deleted") == listed
    assert d.stop() == 0
    assert rows(d, "account", "list", "--deleted") == listed  # without a daemon
    d.start()
    assert d.tambo("account", "undelete", "Ann").stdout == b"ann: back\n"
    with Client(d, "ann") as c:  # with its password
        assert uids(c, "Work") == before
    assert rows(d, "account", "list", "--deleted") == []
    d.tambo("account", "delete", "ann", "--yes")
    d.tambo("account", "add", "ann", "--password-stdin", stdin=b"secret\n")
    assert d.tambo("account", "undelete", "ann", check=False).returncode == 73  # the name is taken


@check
def retention_is_set(d):
    def shown(mailbox):
        return [r for r in rows(d, "mailbox", "list", "ann") if r["name"] == mailbox][0]

    assert shown("Trash")["retention_days"] == 0 and shown("Trash")["retention_rule"] == "default"
    assert d.tambo("mailbox", "retention", "ann", "Trash", "--days", "30").stdout == \
        b"Trash: messages are expunged after 30 days\n"
    assert shown("Trash")["retention_days"] == 30 and shown("Trash")["retention_rule"] == "days"
    assert d.stop() == 0
    with open(d.conf, "a", encoding="utf-8") as f:
        f.write("retention_junk_days = 14\n")
    assert shown("Trash")["retention_days"] == 30 and shown("Junk")["retention_days"] == 14
    assert d.tambo("mailbox", "retention", "ann", "Junk", "--none").stdout == b"Junk: messages are kept\n"
    d.start()
    assert shown("Junk")["retention_days"] == 0 and shown("Junk")["retention_rule"] == "none"
    d.tambo("mailbox", "retention", "ann", "Junk", "--default")
    assert shown("Junk")["retention_days"] == 14
    for bad in (["--days", "0"], ["--days", "x"], ["--days", "40000"], [], ["--none", "--default"]):
        assert d.tambo("mailbox", "retention", "ann", "Junk", *bad, check=False).returncode == 64, bad
    assert d.tambo("mailbox", "retention", "ann", "Nowhere", "--none", check=False).returncode == 67


@check
def the_same_without_a_daemon(d):
    fill(d, "ann", "Work", 4)
    with Client(d, "ann") as c:
        expunge(c, "Work", b"1:2")
        ask(c, b"CREATE Gone")
        ask(c, b"DELETE Gone")
        live = rows(d, "undelete", "ann", "--list")
    assert d.stop() == 0
    assert rows(d, "undelete", "ann", "--list") == live and len(live) == 3
    assert d.tambo("undelete", "ann", "--all").stdout == b"1 mailboxes and 2 messages are back\n"
    d.start()
    with Client(d, "ann") as c:
        assert sorted(uids(c, "Work")[1].values()) == [1, 2, 3, 4] and uids(c, "Gone")[1] == {}


@check
def nothing_is_kept_for_no_days(d):
    assert d.stop() == 0
    with open(d.conf, "a", encoding="utf-8") as f:
        f.write("trash_days = 0\n")
    d.start()
    empty = json.loads(d.tambo("stat", "--json").stdout)["total"]
    fill(d, "ann", "Work", 20)
    with Client(d, "ann") as c:
        expunge(c, "Work", b"1:10")
        ask(c, b"DELETE Work")
    d.tambo("account", "delete", "bob", "--yes")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        total = json.loads(d.tambo("stat", "--json").stdout)["total"]
        if total["stored_raw_bytes"] == empty["stored_raw_bytes"]:
            break
    assert total["stored_raw_bytes"] == empty["stored_raw_bytes"], total
    assert rows(d, "undelete", "ann", "--list") == [] and rows(d, "account", "list", "--deleted") == []
    assert json.loads(d.tambo("undelete", "ann", "--all", "--json").stdout)["messages"] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--io", default="auto")
    parser.add_argument("--build")
    parser.add_argument("-k", dest="only", default="", help="only checks with this in their name")
    args = parser.parse_args()
    passed = failed = 0
    for one in CHECKS:
        if args.only not in one.__name__:
            continue
        try:
            with Daemon(io=args.io, build=args.build, accounts=["ann", "bob"]) as d:
                one(d)
            passed += 1
        except Exception:  # whatever it is, it is this check's failure
            failed += 1
            print("FAIL %s" % one.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
