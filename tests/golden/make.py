#!/usr/bin/env python3
"""Make the golden store of a format: a tiny store with something of every kind, and the list of what is in it.

    make.py --build DIR --format N      writes store-vN.tar.zst and store-vN.txt beside this file

Run it once, with the last program of a format, before the format moves on; the files then never change again:
test_golden.py opens them with every later program. What is in it: two shards; plain, multipart, 8-bit and empty
messages; a body of several pieces; a delivery to many accounts of both shards (the queue); flags and keywords; COPY,
MOVE, EXPUNGE; nested, renamed, deleted and \\Noselect mailboxes; subscriptions; a deleted account. Half of it lies
behind a clean stop, half in the log alone, as after a kill.

From format 2 on also: EMAILID and MAILBOXID; what was deleted and can come back, for ten years; dictionaries
of its own; decoded base64; bodies stored once; retention, rights, quotas and annotations; messages that collection
moved, and freed segments; copies of the index.
"""
import argparse
import glob
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import wire  # noqa: E402
from tambo import Daemon  # noqa: E402

ACCOUNTS = ["ann", "bob", "carl@other.example", "dora"]
TAUGHT = 600  # messages that dictionaries are trained on, in an account of their own
CONFIG = {"trash_days": "3650", "checkpoint_ms": "300", "index_copy_log_bytes": "1M"}
HEAD = b"From: x@example.test\r\nTo: y@example.test\r\nSubject: %s\r\nMessage-ID: <%s@example.test>\r\n"


def plain(name, text=b"A line.\r\n"):
    return HEAD % (name, name) + b"Date: Mon, 1 Jan 2024 10:00:00 +0000\r\n\r\n" + text


def multipart(name):
    return (HEAD % (name, name) + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
            b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntext\r\n"
            b"--b\r\nContent-Type: application/octet-stream; name=f\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
            b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\r\n" * 400 + b"--b--\r\n")


def long_text(size):
    """Text that compresses to nearly nothing, every line another."""
    return b"".join(b"line %07d of a message that is longer than one piece may be\r\n" % i
                    for i in range(size // 66 + 1))[:size - 2] + b"\r\n"


def first_half(d):
    """Everything that a clean stop puts into the index."""
    with wire.Imap(d, "ann") as c:
        c.append(b"INBOX", plain(b"first"), b"(\\Seen)")
        c.append(b"INBOX", multipart(b"parts"), b"(\\Flagged $Work)")
        c.append(b"INBOX", plain(b"latin", b"gr\xfc\xdfe\r\n" * 20))
        c.append(b"INBOX", plain(b"headonly", b""))
        c.append(b"INBOX", plain(b"long", long_text(1400000)))
        c.append(b"INBOX", plain(b"gone"))
        c.append(b"INBOX", plain(b"dated"), b'(\\Answered) "17-Jul-1996 02:44:25 -0700"')
        for name in (b"lists", b"lists/quipu", b"lists/quipu/2024", b"parent/child", b"old", b"Entw&APw-rfe"):
            c.command(b"CREATE " + name)
        c.command(b"SELECT INBOX")
        c.command(b"UID COPY 1:3,5 lists/quipu")
        c.command(b"UID MOVE 2 Archive")
        c.command(b"UID STORE 3 +FLAGS (\\Draft Tango)")
        c.command(b"UID STORE 6 +FLAGS (\\Deleted)")
        c.command(b"EXPUNGE")
        c.append(b"old", plain(b"lost"))
        c.command(b"DELETE old")
        c.command(b"RENAME lists/quipu lists/knots")
        c.command(b"SUBSCRIBE lists/knots")
        c.command(b"SUBSCRIBE gone/for/ever")
        c.command(b"UNSUBSCRIBE INBOX")
    d.deliver(["bob", "carl@other.example"], plain(b"two", b"to two\r\n" * 300))
    d.deliver(ACCOUNTS, multipart(b"all"))


def second_half(d):
    """What the log alone tells: replayed when it is opened next."""
    with wire.Smtp(d, "smtp") as c:
        c.deliver([b"ann", b"bob", b"carl@other.example", b"dora"], plain(b"queued", b"through the queue\r\n" * 50))
    with wire.Imap(d, "bob") as c:
        c.append(b"Sent", plain(b"sent"), b"(\\Seen $Forwarded)")
        c.append(b"Sent", plain(b"longer", long_text(1100000)))
        c.command(b"CREATE parent/one")
        c.append(b"parent/one", plain(b"kept"))
        c.append(b"parent", plain(b"lost"))
        c.command(b"DELETE parent")
        c.command(b"SELECT Sent")
        c.command(b"COPY 1:2 parent/one")
        c.command(b"STORE 1 FLAGS (Alpha Beta)")
        c.command(b"SELECT INBOX")
        c.command(b"MOVE 1 Junk")
    with wire.Imap(d, "carl@other.example") as c:
        c.append(b"Drafts", plain(b"draft"), b"(\\Draft)")
        c.command(b"SELECT INBOX")
        c.command(b"STORE 1 +FLAGS (\\Deleted)")
        c.command(b"CLOSE")


# ---- from format 2 on ----

def taught(number):
    """A message of a store whose mail is alike: the words, the headers."""
    rng = random.Random(number)
    words = [w * 3 for w in ("quipu", "runner", "bridge", "terrace", "llama", "maize", "wool", "stone", "knot", "road")]
    lines = [" ".join(rng.choice(words) for _ in range(9)).encode() for _ in range(rng.randrange(4, 12))]
    return (b"Received: from chaski.example.test by tambo.example.test; Mon, 1 Jan 2024 10:%02d:00 +0000\r\n" %
            (number % 60) + plain(b"report %d" % number, b"\r\n".join(lines) + b"\r\n"))


def noise(name, size=12000):
    return plain(name, b"\r\n".join(b"%060x" % random.Random(b"%s %d" % (name, i)).getrandbits(240)
                                    for i in range(size // 62)) + b"\r\n")


def share(d):
    """Rights, quotas, annotations, retention."""
    with wire.Imap(d, "ann") as c:
        c.command(b"CREATE team")
        c.command(b"CREATE team/plans")
        c.append(b"team", plain(b"shared"))
        c.command(b"SETACL team bob lrswi")
        c.command(b"SETACL team anyone l")
        c.command(b"SETACL team -dora r")
        c.command(b'SETMETADATA "" (/private/comment "mine")')
        c.command(b'SETMETADATA team (/private/vendor/x "of the mailbox" /shared/comment "ours")')
        c.command(b'SETMETADATA INBOX (/private/comment "%s")' % (b"of several rows " * 500))
    d.tambo("quota", "ann", "--storage", "50M", "--messages", "1000", "--mailboxes", "40")
    d.tambo("quota", "dora", "--storage", "2M")
    d.tambo("mailbox", "retention", "ann", "team/plans", "--days", "3000")
    d.tambo("mailbox", "retention", "bob", "Trash", "--none")


def first_more(d):
    """Format 2, before the stop."""
    with wire.Imap(d, "gone") as c:
        c.append(b"INBOX", plain(b"comes back"))
    d.import_accounts(["taught"])
    with wire.Imap(d, "taught") as c:
        for i in range(TAUGHT):
            c.append(b"INBOX", taught(i))
    said = json.loads(d.tambo("--json", "dict", "train").stdout)
    assert any(role["adopted"] for role in said["roles"]), said
    with wire.Imap(d, "ann") as c:
        for name in (b"twin", b"twin", b"other"):
            c.append(b"Archive", HEAD % (b"copy", b"copy") + noise(name)[200:])
        for i in range(3):
            c.append(b"Archive", taught(TAUGHT + i))
    share(d)
    with wire.Imap(d, "taught") as c:  # most of what the log holds dies
        c.command(b"SELECT INBOX")
        c.command(b"STORE 1:%d +FLAGS.SILENT (\\Deleted)" % (TAUGHT - 20))
        c.command(b"EXPUNGE")
    said = json.loads(d.tambo("--json", "gc", "--all").stdout)
    assert said["moved_bytes"] > 0 and said["freed_segments"] > 0, said


def second_more(d):
    """Format 2, in the log alone."""
    with wire.Imap(d, "ann") as c:
        c.append(b"Archive", HEAD % (b"copy", b"copy") + noise(b"twin")[200:])
        c.append(b"Archive", taught(TAUGHT + 3))
        c.append(b"Archive", multipart(b"more"))
        c.command(b"SETACL team/plans bob lr")
        c.command(b"DELETEACL team anyone")
        c.command(b'SETMETADATA team (/shared/comment "theirs" /private/vendor/x NIL)')
    with wire.Imap(d, "bob") as c:
        c.command(b'SELECT "Other Users/ann/team"')
        c.command(b"STORE 1 +FLAGS (\\Seen)")
        c.command(b'SETMETADATA "" (/private/comment "of bob")')
    d.tambo("quota", "carl@other.example", "--messages", "77")
    d.tambo("mailbox", "retention", "carl@other.example", "Junk", "--days", "3")


def copied(d):
    """Wait until an index was copied, with the log of the second half behind it."""
    end = time.monotonic() + 60
    while not glob.glob(os.path.join(d.dir, "d", "store", "shard-*", "copy-[01]")):
        assert time.monotonic() < end, "no index is copied"
        time.sleep(0.1)


def mailboxes_of(c):
    """[(name as on the wire, attributes)], in order."""
    found = []
    for parts in c.command(b'LIST "" "*"')[0]:
        got = re.fullmatch(rb'\* LIST \(([^)]*)\) "/" (.*)', parts[0])
        if got:
            found.append((got.group(2), b" ".join(sorted(got.group(1).split()))))
    return sorted(found)


def messages_of(c, account, name):
    _, said = c.command(b"EXAMINE " + name)
    lines = []
    dates = {}
    for parts in c.command(b"UID FETCH 1:* (INTERNALDATE RFC822.SIZE)")[0]:
        got = re.search(rb'UID (\d+) INTERNALDATE "([^"]*)" RFC822.SIZE (\d+)', parts[0])
        if got:
            dates[int(got.group(1))] = (got.group(2), int(got.group(3)))
    for uid, flags, data in c.bodies():
        date, size = dates[uid]
        wire.equal(len(data), size, "size")
        flags = b" ".join(sorted(f for f in flags if f != b"\\Recent"))
        lines.append("message %s %s uid=%d date=\"%s\" flags=(%s) sha256=%s" % (
            account, name.decode(), uid, date.decode(), flags.decode(), wire.digest(data)))
    return lines, said


def listing(d):
    """Everything a client can see, as lines of text."""
    lines = []
    for account in ACCOUNTS:
        with wire.Imap(d, account) as c:
            subscribed = c.command(b'LSUB "" "*"')[0]
            lines += sorted("subscribed %s %s" % (account, p[0].decode().split(' "/" ')[1]) for p in subscribed)
            for name, attributes in mailboxes_of(c):
                if b"\\Noselect" in attributes:
                    lines.append("mailbox %s %s (%s)" % (account, name.decode(), attributes.decode()))
                    continue
                said = c.command(b"STATUS %s (MESSAGES UNSEEN UIDNEXT UIDVALIDITY)" % name)[0][0][0]
                lines.append("mailbox %s %s (%s) %s" % (account, name.decode(), attributes.decode(),
                                                        said[said.rindex(b"("):].decode()))
                lines += messages_of(c, account, name)[0]
        with wire.Pop3(d, account) as c:
            c.ask(b"UIDL")
            lines += ["uidl %s %s" % (account, line) for line in c.text().decode().split("\r\n") if line]
    return lines


def more(d):
    """What format 2 added, as lines of text."""
    lines = []
    for account in ACCOUNTS:
        with wire.Imap(d, account) as c:
            lines += ["quota %s %s" % (account, p[0].decode()) for p in c.command(b"GETQUOTAROOT INBOX")[0]]
            told = c.command(b'GETMETADATA (DEPTH infinity) "" /private')[0]
            for name, attributes in mailboxes_of(c):
                if b"\\Noselect" in attributes:
                    continue
                said = c.command(b"STATUS %s (MAILBOXID)" % name)[0][0][0]
                lines.append("mailboxid %s %s" % (account, said.decode()))
                if not name.startswith(b'"Other Users'):
                    lines += ["acl %s %s" % (account, p[0].decode()) for p in c.command(b"GETACL %s" % name)[0]]
                told += c.command(b'GETMETADATA (DEPTH infinity) %s (/private /shared)' % name)[0]
                c.command(b"EXAMINE " + name)
                lines += ["ids %s %s %s" % (account, name.decode(), p[0].decode())
                          for p in c.command(b"UID FETCH 1:* (EMAILID)")[0] if b"FETCH" in p[0]]
            lines += ["annotation %s %s" % (account, [part.decode() for part in p]) for p in told]
        lines += told_by(d, account, ("undelete", account, "--list", "--all"), "mailbox", "uid", "uidvalidity", "until")
        lines += told_by(d, account, ("mailbox", "list", account), "name", "retention_rule", "retention_days")
    return lines


def told_by(d, account, command, *keys):
    """These keys of what tambo says: it may say more one day."""
    rows = d.tambo("--json", *command, check=False).stdout.splitlines()
    return ["%s %s %s" % (command[0], account, " ".join("%s=%s" % (k, json.loads(row).get(k)) for k in keys))
            for row in rows]


def everything(d, number):
    """All lines of a store that was made with this format."""
    return listing(d) + (more(d) if number > 1 else [])


def pack(store, path):
    """The folder as a tar, owner and times left out, compressed as far as zstd goes."""
    def plain_info(info):
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info
    with tempfile.NamedTemporaryFile(suffix=".tar") as f:
        with tarfile.open(f.name, "w", format=tarfile.GNU_FORMAT) as tar:
            for name in ("SUPER", *sorted(n for n in os.listdir(store) if n.startswith("shard-"))):
                tar.add(os.path.join(store, name), os.path.join("store", name), filter=lambda i: (
                    None if i.name.endswith(("-lock", ".new", ".free")) else plain_info(i)))
        subprocess.run(["zstd", "-q", "-f", "--ultra", "-22", "--long=24", f.name, "-o", path], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--format", type=int, required=True)
    parser.add_argument("--to", default=HERE, help="the folder to write to")
    args = parser.parse_args()
    make(args.build, args.format, args.to)
    return 0


def make(build, number, folder):
    """store-vNUMBER.tar.zst and .txt in the folder, by the programs of build."""
    d = Daemon(build=build, io="posix", accounts=[*ACCOUNTS, "gone"], config=CONFIG if number > 1 else {},
               init=("--shards", "2", "--segment-size", "4M"))
    with d:
        first_half(d)
        if number > 1:
            first_more(d)
            copied(d)
        d.tambo("account", "delete", "gone", "--yes")
        d.stop()
        d.start()
        second_half(d)
        if number > 1:
            second_more(d)
        lines = everything(d, number)
        d.kill()
        path = os.path.join(folder, "store-v%d" % number)
        pack(os.path.join(d.dir, "d", "store"), path + ".tar.zst")
    with open(path + ".txt", "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    print("%s.tar.zst: %d bytes, %d lines" % (path, os.path.getsize(path + ".tar.zst"), len(lines)))


if __name__ == "__main__":
    sys.exit(main())
