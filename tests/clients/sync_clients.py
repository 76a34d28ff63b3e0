#!/usr/bin/env python3
"""Programs that keep or sort mail for their users, against a real tambod, in the clear and over TLS.

    sync_clients.py [-k WORD] [--io auto] [--build DIR]

OfflineIMAP both ways, NeoMutt on a terminal of its own, imapfilter and imapflow, each on an account whose mail is known
byte for byte. Certificates are checked against the daemon's own. A program that is not installed is a failure; imapflow
lies in build/imapflow (make deps-test). Last line: "N passed, M failed".
"""
import argparse
import json
import os
import pty
import select
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
import wire  # noqa: E402
from real_clients import World, lf, maildir, run, same_set, sample, tree, write  # noqa: E402
from tambo import PASSWORD, ROOT, Daemon  # noqa: E402

PROGRAMS = ("offlineimap", "neomutt", "imapfilter", "node")
IMAPFLOW = os.path.join(ROOT, "build", "imapflow", "node_modules")
KINDS = ("plain", "tls")


# ---- OfflineIMAP ----

OFFLINEIMAP = """[general]
accounts = A
metadata = {room}/meta
ui = basic
[Account A]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {room}/mail
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = {name}
remotepass = {password}
starttls = no
{ssl}
"""


def offlineimap(world, kind):
    checks = world.checks
    label = "offlineimap %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    rc = os.path.join(room, "rc")
    write(rc, OFFLINEIMAP.format(room=room, port=world.port("imap", kind), name=name, password=PASSWORD,
                                 ssl="ssl = yes\nsslcacertfile = %s" % world.ca if kind == "tls" else "ssl = no"))
    box = os.path.join(room, "mail", "INBOX")

    def sync():
        return run(["offlineimap", "-c", rc, "-o", "-1"], room)

    def near():
        return [data for _, data in maildir(box).values()]

    with checks.step(label + ": full sync, every byte"):
        sync()
        same_set(near(), [lf(data) for _, _, data in world.bodies(name)], "INBOX")
        wire.equal(len(near()), len(messages), "messages")
    with checks.step(label + ": a second run changes nothing"):
        before, server = tree(os.path.join(room, "mail")), world.bodies(name)
        sync()
        wire.equal(tree(os.path.join(room, "mail")), before, "the Maildir")
        wire.equal(world.bodies(name), server, "the INBOX on the server")
    with checks.step(label + ": a new message, a flag and a removal go up"):
        pushed = sample(name + "up")[0]
        with open(os.path.join(box, "cur", "%d.1_1.here:2,S" % time.time()), "wb") as f:
            f.write(lf(pushed))
        stems = {os.path.join(box, sub, file) for sub in ("new", "cur") for file in os.listdir(os.path.join(box, sub))}
        for path in stems:
            if ",U=1," in path:
                os.rename(path, os.path.join(box, "cur", os.path.basename(path).partition(":2,")[0] + ":2,RF"))
            elif ",U=2," in path:
                os.unlink(path)
        sync()
        there = {uid: (flags, data) for uid, flags, data in world.bodies(name)}
        wire.equal(set(there[1][0]) >= {b"\\Answered", b"\\Flagged"}, True, "flags of UID 1: %r" % (there[1][0],))
        wire.equal(2 in there, False, "UID 2 still there")
        wire.equal(wire.digest(there[max(there)][1]), wire.digest(pushed), "the pushed message")
        wire.equal(b"\\Seen" in there[max(there)][0], True, "its \\Seen")
    with checks.step(label + ": a removal and a new mailbox come down"):
        with wire.Imap(world.daemon, name) as imap:
            imap.command(b"SELECT INBOX")
            imap.command(b"UID STORE 3 +FLAGS.SILENT (\\Deleted)")
            imap.command(b"EXPUNGE")
            imap.command(b"CREATE Work/2026")
            imap.append(b"Work/2026", messages[0], b"(\\Flagged)")
        sync()
        wire.equal(len(near()), len(world.bodies(name)), "messages here and there")
        work = maildir(os.path.join(room, "mail", "Work.2026"))
        wire.equal([(f, d) for f, d in work.values()], [("F", lf(messages[0]))], "Work/2026")


# ---- NeoMutt ----

NEOMUTT = """set imap_user = "{name}"
set imap_pass = "{password}"
set folder = "{url}"
set spool_file = "{url}INBOX"
set record = ""
set certificate_file = "{ca}"
set ssl_verify_dates = no
set ssl_starttls = no
set ssl_force_tls = no
set header_cache = ""
set wait_key = no
set quit = yes
set delete = yes
set confirm_append = no
set confirm_create = no
set imap_check_subscribed = no
set pager_stop = yes
set mail_check = 1
set timeout = 1
push "{keys}"
"""


def on_terminal(command, folder, within_s=40):
    """Run a program on a pseudo-terminal until it ends; what it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update({"HOME": folder, "TERM": "xterm", "LC_ALL": "C.UTF-8", "LINES": "40", "COLUMNS": "100"})
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    said, end = b"", time.monotonic() + within_s
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal, 65536)
            except OSError:
                data = b""
            if not data:
                _, status = os.waitpid(pid, 0)
                pid = 0
                wire.equal(os.waitstatus_to_exitcode(status), 0, "exit code; it wrote %r" % said[-400:])
                return said
            said += data
        raise AssertionError("%s does not end; it wrote %r" % (command[0], said[-800:]))
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        os.close(terminal)


def neomutt(world, kind):
    checks = world.checks
    label = "neomutt %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    url = "%s://localhost:%d/" % ("imaps" if kind == "tls" else "imap", world.port("imap", kind))
    rc = os.path.join(room, "rc")

    def press(keys):
        write(rc, NEOMUTT.format(name=name, password=PASSWORD, url=url, ca=world.ca, keys=keys))
        return on_terminal(["neomutt", "-n", "-F", rc], room)

    with checks.step(label + ": flag, copy, delete, and leave"):
        press("<first-entry><flag-message><first-entry><copy-message>=Archive<enter>"
              "<delete-pattern>~s '%s 1$'<enter><sync-mailbox><quit>" % name)
        there = {uid: flags for uid, flags, _ in world.bodies(name)}
        wire.equal(2 in there, False, "UID 2 still there")
        wire.equal(len(there), len(messages) - 1, "messages")
        wire.equal(b"\\Flagged" in there[1], True, "flags of UID 1: %r" % (there[1],))
        wire.equal([wire.digest(wire.without_trace(d)) for _, _, d in world.bodies(name, b"Archive")],
                   [wire.digest(messages[0])], "Archive")
    with checks.step(label + ": save every message to a folder of its own, byte for byte"):
        press("<tag-pattern>~A<enter><tag-prefix><copy-message>%s/all<enter><quit>" % room)
        with open(os.path.join(room, "all"), "rb") as f:
            saved = f.read()
        for i, m in enumerate(messages):
            if i != 1:
                wire.equal(lf(m).split(b"\n\n", 1)[1].strip(b"\n") in saved, True, "text of message %d" % i)
    with checks.step(label + ": search on the server"):
        said = press("<limit>=b ledger<enter><tag-pattern>~A<enter><tag-prefix><set-flag>!<quit>")
        flagged = {uid for uid, flags, _ in world.bodies(name) if b"\\Flagged" in flags}
        with wire.Imap(world.daemon, name) as imap:
            imap.command(b"EXAMINE INBOX")
            found, _ = imap.command(b"UID SEARCH BODY ledger")
        want = {int(n) for n in found[0][0].split()[2:]}
        wire.equal(flagged - {1}, want - {1}, "flagged after =b ledger (%r)" % said[-200:])


# ---- imapfilter ----

IMAPFILTER = """options.timeout = 20
options.subscribe = true
options.create = true
options.certificates = {certificates}
options.starttls = {starttls}
a = IMAP {{ server = 'localhost', port = {port}, username = '{name}', password = '{password}'{ssl} }}
all, folders = a:list_all()
print('mailboxes', #all)
print('status', a.INBOX:check_status())
print('all', #a.INBOX:select_all())
print('subject', #a.INBOX:contain_subject('{name} 3'))
print('either', #(a.INBOX:contain_subject('{name} 3') + a.INBOX:is_larger(1000000)))
print('both', #(a.INBOX:is_unseen() * a.INBOX:contain_from('ann@example.test')))
print('not', #(a.INBOX:select_all() - a.INBOX:contain_subject('{name} 3')))
print('match', #a.INBOX:match_subject('.* [0-2]$'))
a.INBOX:contain_subject('{name} 0'):mark_flagged()
a.INBOX:contain_subject('{name} 3'):add_flags({{ '$Filtered' }})
a.INBOX:contain_subject('{name} 0'):copy_messages(a['Archive'])
a.INBOX:contain_subject('{name} 1'):move_messages(a['Sorted/Here'])
a.INBOX:contain_subject('{name} 2'):delete_messages()
a:create_mailbox('Made')
a:rename_mailbox('Made', 'Renamed')
a:delete_mailbox('Renamed')
print('done')
"""


def imapfilter(world, kind):
    checks = world.checks
    label = "imapfilter %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    rc = os.path.join(room, "config.lua")
    trusted = os.path.join(room, ".imapfilter")
    os.makedirs(trusted)
    shutil.copy(world.ca, os.path.join(trusted, "certificates"))
    write(rc, IMAPFILTER.format(name=name, password=PASSWORD, port=world.port("imap", kind),
                                certificates="true" if kind == "tls" else "false", starttls="false",
                                ssl=", ssl = 'auto'" if kind == "tls" else ""))
    with checks.step(label + ": search, flag, copy, move, delete"):
        said = dict(line.split("\t", 1) if "\t" in line else (line, "") for line in
                    run(["imapfilter", "-c", rc, "-t", world.ca], room, env={"SSL_CERT_FILE": world.ca}).splitlines())
        wire.equal("done" in said, True, "the end of %r" % said)
        wire.equal({k: said[k] for k in ("all", "subject", "either", "both", "not", "match")},
                   {"all": "9", "subject": "1", "either": "2", "both": "7", "not": "8", "match": "3"}, "what it found")
        there = {uid: flags for uid, flags, _ in world.bodies(name)}
        wire.equal(sorted(there), [1, 4, 5, 6, 7, 8, 9], "UIDs left")
        wire.equal(b"\\Flagged" in there[1], True, "flags of UID 1")
        wire.equal(b"$Filtered" in there[4], True, "flags of UID 4")
        for mailbox, i in ((b"Archive", 0), (b"Sorted/Here", 1)):
            wire.equal([wire.digest(wire.without_trace(d)) for _, _, d in world.bodies(name, mailbox)],
                       [wire.digest(messages[i])], mailbox.decode())


# ---- imapflow ----

def imapflow(world, kind):
    checks = world.checks
    label = "imapflow %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    with open(world.ca, encoding="ascii") as f:
        ca = f.read()
    settings = {"port": world.port("imap", kind), "secure": kind == "tls", "starttls": kind == "starttls", "ca": ca,
                "name": name, "password": PASSWORD, "message": messages[3].decode()}
    with checks.step(label + ": connect, list, read, change, watch"):
        out = run(["node", os.path.join(HERE, "imapflow", "check.js")], room,
                  env={"CHECK": json.dumps(settings), "NODE_PATH": IMAPFLOW})
        said = json.loads(out.strip().splitlines()[-1])
        wire.equal(said["secure"], kind != "plain", "TLS")
        wire.equal({tuple(m) for m in said["mailboxes"]} >= {("INBOX", "\\Inbox"), ("Sent", "\\Sent"),
                                                             ("Trash", "\\Trash")}, True, "mailboxes")
        wire.equal(said["status"]["messages"], len(messages), "STATUS")
        wire.equal(said["exists"], len(messages), "EXISTS")
        have = [m["source"].encode("latin-1") for m in said["messages"]]
        same_set([wire.without_trace(m) for m in have], messages, "sources")
        wire.equal(len({m["emailId"] for m in said["messages"]} - {None}), len(messages), "EMAILIDs")
        wire.equal(said["found"], [4], "SEARCH")
        wire.equal(said["part"], "text/plain", "type of part 1")
        wire.equal((said["flagged"], said["copied"], said["moved"], said["deleted"]), (True, 2, 1, True), "changes")
        wire.equal(said["told"], len(messages) - 1, "EXISTS after APPEND")
        wire.equal(set(said["changed"]) >= {1, 2, said["appended"]}, True, "changed: %r" % said["changed"])
        wire.equal(said["deeper"], 2, "messages in the renamed mailbox")
        there = {uid: (flags, data) for uid, flags, data in world.bodies(name)}
        wire.equal(set(there[1][0]) >= {b"\\Flagged", b"$Work"}, True, "flags of UID 1: %r" % (there[1][0],))
        wire.equal(sorted(there), [1, 2, 5, 6, 7, 8, 9, said["appended"]], "UIDs left")
        wire.equal(wire.digest(there[said["appended"]][1]), wire.digest(messages[3]), "the appended message")


def plan(world):
    """(name, function, arguments) of every group of checks."""
    out = []
    for kind in KINDS:
        out += [("offlineimap " + kind, offlineimap, (world, kind)), ("neomutt " + kind, neomutt, (world, kind)),
                ("imapfilter " + kind, imapfilter, (world, kind))]
    for kind in ("plain", "starttls", "tls"):
        out.append(("imapflow " + kind, imapflow, (world, kind)))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-k", dest="only", default="", help="only groups with this in their name")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    for program in PROGRAMS:
        if not shutil.which(program):
            with checks.step(program):
                raise AssertionError("not installed")
    if not os.path.isdir(os.path.join(IMAPFLOW, "imapflow")):
        with checks.step("imapflow"):
            raise AssertionError("not installed: make deps-test")
    folder = tempfile.mkdtemp(prefix="tambo-sync-")
    try:
        with Daemon(build=args.build, io=args.io) as daemon:
            world = World(daemon, checks, folder, args.only)
            for name, group, arguments in plan(world):
                if args.only in name:
                    try:
                        group(*arguments)
                    except Exception as e:  # outside a check: the group could not even be set up
                        with checks.step(name):
                            raise AssertionError("%s: %s" % (type(e).__name__, e)) from e
            with checks.step("the server still stands"):
                wire.equal(daemon.stop(), 0, "exit code")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
