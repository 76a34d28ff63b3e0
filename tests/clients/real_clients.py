#!/usr/bin/env python3
"""The clients that people use, against a real tambod, in the clear, with STARTTLS and with TLS from the first byte.

    real_clients.py [-k WORD] [--io auto] [--build DIR]

mbsync, fetchmail, getmail, curl, swaks and Python's own imaplib, poplib and smtplib, each on an account of its own
whose mail is known byte for byte. Certificates are checked against the daemon's own. A program that is not installed is
a failure.
Last line: "N passed, M failed".
"""
import argparse
import email.message
import email.policy
import hashlib
import imaplib
import os
import poplib
import re
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import nasty  # noqa: E402
import wire  # noqa: E402
from tambo import PASSWORD, Daemon  # noqa: E402

PROGRAMS = ("mbsync", "fetchmail", "getmail", "curl", "swaks")
KINDS = ("plain", "starttls", "tls")


def sample(name):
    """Some mail that ends in CRLF and has a header, as real mail does."""
    rng = nasty.random.Random(name)
    head = (b"From: Ann <ann@example.test>\r\nTo: %s@mail.example.test\r\nSubject: %s %%d\r\n"
            b"Message-ID: <%s-%%d@example.test>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n"
            % ((name.encode(),) * 3))
    text = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    bodies = [text + b"hello\r\n", text + b".\r\n..\r\n.end\r\n", text, text + "Grüße ☃\r\n".encode(),
              text + nasty.text(rng, 70000), text + b"x" * 5000 + b"\r\n",
              b"X-Long: " + b"y" * 900 + b"\r\n" + text + b"\r\n\r\n\r\n"]
    made = [head % (i, i) + b for i, b in enumerate(bodies)]
    return made + [nasty.multipart(rng, name, [1500000]), nasty.forwarded(name, 5)]


def run(command, folder, want=0, env=None):
    """Run a client in folder; its output, both streams."""
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          timeout=60, check=False,
                          env={**os.environ, "HOME": folder, "LC_ALL": "C", "SSL_CERT_FILE": "/dev/null",
                               **(env or {})})
    said = done.stdout.decode("utf-8", "replace")
    if want is not None and done.returncode != want:
        raise AssertionError("%s: exit %d: %s" % (" ".join(command[:3]), done.returncode, said[-700:]))
    return said


def write(path, text, mode=0o600):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, mode)


def lf(data):
    return data.replace(b"\r\n", b"\n")


def same_set(have, want, what):
    """Multi-set comparison of messages."""
    a, b = sorted(map(wire.digest, have)), sorted(map(wire.digest, want))
    if a != b:
        raise AssertionError("%s: %d messages, %d of them as they should be; wanted %d; the odd ones begin: %r" % (
            what, len(a), len(set(a) & set(b)), len(b), [h[:200] for h in have if wire.digest(h) not in b][:2]))


class World:
    """The daemon and what the checks share."""

    def __init__(self, daemon, checks, folder, only):
        self.daemon, self.checks, self.folder, self.only = daemon, checks, folder, only
        self.ca = os.path.join(daemon.dir, "d", "tls.crt")
        self.number = 0

    def room(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.join(path, "in"))
        # getmail installs its handler for the child's end after the fork: a child that is done at once hangs it
        write(os.path.join(path, "mda"), "#!/bin/sh\nsleep 0.03\nexec cat >\"$(mktemp %s/in/XXXXXX)\"\n" % path, 0o700)
        return path

    def account(self):
        """A fresh account."""
        self.number += 1
        name = "r%02d" % self.number
        self.daemon.tambo("account", "add", name, "--password-stdin", "--scheme", "PLAIN",
                          stdin=PASSWORD.encode() + b"\n")
        return name

    def filled(self):
        """A fresh account with the sample in its INBOX, by LMTP. (name, messages)"""
        name = self.account()
        messages = sample(name)
        with wire.Smtp(self.daemon) as lmtp:
            for m in messages:
                replies = lmtp.deliver([name.encode()], m, b"ann@example.test")
                wire.equal(replies[0][:3], b"250", "LMTP")
        return name, messages

    def bodies(self, name, mailbox=b"INBOX"):
        """What a mailbox holds: [(uid, flags, bytes)]."""
        with wire.Imap(self.daemon, name) as imap:
            imap.command(b"EXAMINE " + mailbox)
            return list(imap.bodies())

    def port(self, protocol, kind):
        twin = {"imap": "imaps", "pop3": "pop3s", "submission": "submissions"}
        return self.daemon.port(twin[protocol] if kind == "tls" else protocol)


# ---- mbsync ----

MBSYNC = """IMAPAccount far
Host localhost
Port {port}
User {name}
Pass {password}
SSLType {ssl}
CertificateFile {ca}
AuthMechs {mech}

IMAPStore far
Account far

MaildirStore near
Path {room}/mail/
Inbox {room}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
Sync All
SyncState *
"""


def maildir(path):
    """file name without its flags -> (flags, bytes), of one Maildir."""
    out = {}
    for sub in ("new", "cur"):
        where = os.path.join(path, sub)
        for file in sorted(os.listdir(where)) if os.path.isdir(where) else ():
            stem, _, flags = file.partition(":2,")
            with open(os.path.join(where, file), "rb") as f:
                out[stem] = (flags, f.read())
    return out


def mark(path, uid, flags):
    """Set a message's flags in a Maildir of mbsync's, as a mail program does."""
    for sub in ("new", "cur"):
        for file in os.listdir(os.path.join(path, sub)):
            stem, _, _ = file.partition(":2,")
            if stem.endswith(",U=%d" % uid):
                os.rename(os.path.join(path, sub, file), os.path.join(path, "cur", stem + ":2," + flags))
                return
    raise AssertionError("no message with UID %d in %s" % (uid, path))


def tree(path):
    """Everything in a folder that a second run must leave alone."""
    out = {}
    for where, _, files in os.walk(path):
        for file in files:
            full = os.path.join(where, file)
            with open(full, "rb") as f:
                out[os.path.relpath(full, path)] = hashlib.sha256(f.read()).hexdigest()
    return out


def mbsync(world, kind, mech):
    daemon, checks = world.daemon, world.checks
    label = "mbsync %s %s" % (kind, mech)
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    extra = sample(name + "x")[:3]
    umlaut = b"Entw&APw-rfe"
    with wire.Imap(daemon, name) as imap:
        imap.command(b"CREATE Work/2026")
        imap.command(b"CREATE " + umlaut)
        for m in extra:
            imap.append(b"Work/2026", m, b"(\\Seen \\Flagged)")
        imap.append(umlaut, extra[0])
    os.mkdir(os.path.join(room, "mail"))
    rc = os.path.join(room, "rc")
    write(rc,
          MBSYNC.format(port=world.port("imap", kind), name=name, password=PASSWORD, ca=world.ca, room=room, mech=mech,
                            ssl={"plain": "None", "starttls": "STARTTLS", "tls": "IMAPS"}[kind]))
    box = os.path.join(room, "mail", "INBOX")

    def sync():
        return run(["mbsync", "-c", rc, "-V", "all"], room)

    def near(mailbox):
        return [re.sub(rb"(?m)^X-TUID: [^\n]*\n", b"", data, count=1) for _, data in maildir(mailbox).values()]

    with checks.step(label + ": full sync, every byte"):
        sync()
        have = [d[re.match(wire.TRACE.pattern.replace(rb"\r\n", rb"\n"), d).end():] for d in near(box)]
        same_set(have, [lf(m) for m in messages], "INBOX")
        same_set(near(os.path.join(room, "mail", "Work", "2026")), [lf(m) for m in extra], "Work/2026")
        same_set(near(os.path.join(room, "mail", umlaut.decode())), [lf(extra[0])], "a name in modified UTF-7")
        flags = {f for f, _ in maildir(os.path.join(room, "mail", "Work", "2026")).values()}
        wire.equal(flags, {"FS"}, "flags that came down")
    with checks.step(label + ": a second run changes nothing"):
        before, server = tree(room), world.bodies(name)
        sync()
        wire.equal(tree(room), before, "the Maildir and its state")
        wire.equal(world.bodies(name), server, "the INBOX on the server")
    with checks.step(label + ": a new message and a flag go up"):
        pushed = sample(name + "up")[4]
        for sub in ("new", "cur", "tmp"):
            os.makedirs(os.path.join(box, sub), exist_ok=True)
        with open(os.path.join(box, "cur", "%d.1_1.here:2,S" % time.time()), "wb") as f:
            f.write(lf(pushed))
        mark(box, 1, "RF")
        sync()
        there = world.bodies(name)
        wire.equal(len(there), len(messages) + 1, "messages on the server")
        wire.equal(set(there[0][1]) & {b"\\Answered", b"\\Flagged"}, {b"\\Answered", b"\\Flagged"}, "flags of UID 1")
        got = re.sub(rb"(?m)^X-TUID: [^\r\n]*\r\n", b"", there[-1][2], count=1)
        wire.equal(wire.digest(got), wire.digest(pushed), "the pushed message")
        wire.equal(b"\\Seen" in there[-1][1], True, "its \\Seen")
    with checks.step(label + ": expunge, both ways"):
        with wire.Imap(daemon, name) as imap:
            imap.command(b"SELECT INBOX")
            imap.command(b"UID STORE 2 +FLAGS.SILENT (\\Deleted)")
            imap.command(b"EXPUNGE")
        mark(box, 3, "T")
        sync()
        uids = [u for u, _, _ in world.bodies(name)]
        wire.equal(2 in uids or 3 in uids, False, "UID 2 or 3 still there")
        wire.equal(len(near(box)), len(uids), "messages here and there")
    with checks.step(label + ": a new mailbox goes up"):
        for sub in ("new", "cur", "tmp"):
            os.makedirs(os.path.join(room, "mail", "Fresh", sub))
        with open(os.path.join(room, "mail", "Fresh", "new", "1.1_1.here"), "wb") as f:
            f.write(lf(pushed))
        sync()
        wire.equal(len(world.bodies(name, b"Fresh")), 1, "messages in the new mailbox")


# ---- fetchmail ----

def handed_over(room):
    """What a client gave to the mda of its room: LF form, without our block and what getmail does to a header."""
    out = []
    for file in sorted(os.listdir(os.path.join(room, "in"))):
        with open(os.path.join(room, "in", file), "rb") as f:
            data = f.read().replace(b"\r", b"")
        data = data.replace(b"X-Long: \n y", b"X-Long: y")  # it folds long fields
        data = re.sub(rb"(?m)^X-getmail-retrieved-from-mailbox: [^\n]*\n", b"", data, count=1)
        found = re.match(wire.TRACE.pattern.replace(rb"\r\n", rb"\n"), data)
        if not found:
            raise AssertionError("no trace block: %r" % data[:300])
        out.append(data[found.end():])
    return out


FETCHMAIL = """set no bouncemail
set invisible
poll localhost proto {protocol} service {port} {uidl} auth password
  user '{name}' password '{password}' is 'root' here
  {options}
  keep nofetchall pass8bits no rewrite no mimedecode mda '{room}/mda'
"""


def fetchmail(world, protocol, kind):
    checks = world.checks
    label = "fetchmail %s %s" % (protocol, kind)
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    options = {"plain": "sslproto ''", "starttls": "sslproto tls1.2+ sslcertck sslcertfile '%s'" % world.ca,
               "tls": "ssl sslcertck sslcertfile '%s'" % world.ca}[kind]
    rc = os.path.join(room, "rc")
    write(rc, FETCHMAIL.format(protocol=protocol, port=world.port(protocol.lower(), kind), name=name, password=PASSWORD,
                               uidl="uidl" if protocol == "POP3" else "", options=options, room=room))

    def poll(want, *more):
        return run(["fetchmail", "-f", rc, "--nosyslog", "--nodetach", "-i", os.path.join(room, "ids"), "--pidfile",
                    os.path.join(room, "pid"), *more], room, want=want)

    with checks.step(label + ": all mail, every byte"):
        poll(0)
        same_set(handed_over(room), [lf(m) for m in messages], "fetched")
    with checks.step(label + ": a second poll has nothing new"):
        poll(1)
        wire.equal(len(handed_over(room)), len(messages), "files")
        with wire.Smtp(world.daemon) as lmtp:
            lmtp.deliver([name.encode()], messages[0])
        poll(0)
        wire.equal(len(handed_over(room)), len(messages) + 1, "files after one more")
    with checks.step(label + ": fetched and removed"):
        poll(0, "--all", "--nokeep")
        wire.equal(world.bodies(name), [], "what is left")


# ---- getmail ----

GETMAIL = """[retriever]
type = Simple{protocol}{ssl}Retriever
server = localhost
port = {port}
username = {name}
password = {password}
{ca}
[destination]
type = MDA_external
path = {room}/mda
allow_root_commands = true
[options]
read_all = {all}
delete = {delete}
received = false
delivered_to = false
message_log = {room}/log
"""


def getmail(world, protocol, kind):
    checks = world.checks
    label = "getmail %s %s" % (protocol, kind)
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()

    def fetch(everything, delete):
        rc = os.path.join(room, "rc-%s-%s" % (everything, delete))
        write(rc,
              GETMAIL.format(protocol=protocol, ssl="SSL" if kind == "tls" else "",
                             port=world.port(protocol.lower(), kind),
                                 name=name, password=PASSWORD, room=room, all=everything, delete=delete,
                                 ca="ca_certs = %s\n" % world.ca if kind == "tls" else ""))
        return run(["getmail", "--getmaildir", room, "--rcfile", rc], room)

    with checks.step(label + ": all mail, every byte"):
        fetch("false", "false")
        same_set(handed_over(room), [lf(m) for m in messages], "fetched")
    with checks.step(label + ": a second run has nothing new"):
        fetch("false", "false")
        wire.equal(len(handed_over(room)), len(messages), "files")
    with checks.step(label + ": fetched and removed"):
        fetch("true", "true")
        wire.equal(world.bodies(name), [], "what is left")


# ---- curl ----

def curl_options(world, kind, name):
    return ["curl", "-sS", "--max-time", "30", "-u", "%s:%s" % (name, PASSWORD), "--cacert", world.ca] + \
        (["--ssl-reqd"] if kind == "starttls" else [])


def curl_imap(world, kind):
    checks = world.checks
    label = "curl imap %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    base = "%s://localhost:%d" % ("imaps" if kind == "tls" else "imap", world.port("imap", kind))
    options = curl_options(world, kind, name)

    def curl(path, *more):
        return run(options + [base + path, *more], room)

    with checks.step(label + ": list"):
        said = curl("/")
        for mailbox in ("INBOX", "Sent", "Trash"):
            wire.equal('"/" %s' % mailbox in said.replace('"%s"' % mailbox, mailbox), True,
                       "%s in %r" % (mailbox, said))
    with checks.step(label + ": fetch, every byte"):
        for i, m in enumerate(messages, 1):
            out = os.path.join(room, "m%d" % i)
            curl("/INBOX;UID=%d" % i, "-o", out)
            with open(out, "rb") as f:
                wire.equal(wire.digest(wire.without_trace(f.read())), wire.digest(m), "UID %d" % i)
    with checks.step(label + ": fetch a section"):
        out = os.path.join(room, "section")
        curl("/INBOX;UID=1;SECTION=TEXT", "-o", out)
        with open(out, "rb") as f:
            wire.equal(f.read(), b"hello\r\n", "BODY[TEXT]")
    with checks.step(label + ": search"):
        wire.equal(curl("/INBOX?ALL").split(), ["*", "SEARCH"] + [str(i) for i in range(1, len(messages) + 1)],
                   "SEARCH ALL")
        wire.equal(curl("/INBOX?SUBJECT%20%22" + name + "%203%22").split(), ["*", "SEARCH", "4"], "SEARCH SUBJECT")
        wire.equal(curl("/INBOX", "-X", "UID SEARCH LARGER 1000000").split(), ["*", "SEARCH", "8"], "SEARCH LARGER")
    with checks.step(label + ": append"):
        for i in (0, 6, 7):
            path = os.path.join(room, "up%d" % i)
            with open(path, "wb") as f:
                f.write(messages[i])
            curl("/Sent", "--upload-file", path)
        there = world.bodies(name, b"Sent")
        wire.equal([wire.digest(d) for _, _, d in there], [wire.digest(messages[i]) for i in (0, 6, 7)], "Sent")
    with checks.step(label + ": store, expunge, create, delete"):
        curl("/INBOX", "-X", "STORE 1 +FLAGS (\\Deleted)")
        curl("/INBOX", "-X", "EXPUNGE")
        wire.equal([u for u, _, _ in world.bodies(name)], list(range(2, len(messages) + 1)), "UIDs left")
        curl("/", "-X", "CREATE Made")
        wire.equal("Made" in curl("/"), True, "Made is listed")
        curl("/", "-X", "DELETE Made")
        wire.equal("Made" in curl("/"), False, "Made is listed")
    with checks.step(label + ": wrong password, no such message"):
        run([o if o != "%s:%s" % (name, PASSWORD) else name + ":wrong" for o in options] + [base + "/"], room, want=67)
        run(options + [base + "/INBOX;UID=999"], room, want=78)
    if kind != "plain":
        with checks.step(label + ": an unknown certificate is refused"):
            run([o for o in options if o not in ("--cacert", world.ca)] + [base + "/"], room, want=60,
                env={"CURL_CA_BUNDLE": ""})


def curl_pop3(world, kind):
    checks = world.checks
    label = "curl pop3 %s" % kind
    room = world.room(label.replace(" ", "-"))
    name, messages = world.filled()
    base = "%s://localhost:%d" % ("pop3s" if kind == "tls" else "pop3", world.port("pop3", kind))
    options = curl_options(world, kind, name)

    def curl(path, *more):
        return run(options + [base + path, *more], room)

    with checks.step(label + ": list"):
        listed = [line.split() for line in curl("/").splitlines()]
        sizes = [len(d) for _, _, d in world.bodies(name)]
        wire.equal([int(n) for _, n in listed], sizes, "sizes")
    with checks.step(label + ": retr, every byte"):
        for i, m in enumerate(messages, 1):
            out = os.path.join(room, "m%d" % i)
            curl("/%d" % i, "-o", out)
            with open(out, "rb") as f:
                wire.equal(wire.digest(wire.without_trace(f.read())), wire.digest(m), "message %d" % i)
    with checks.step(label + ": uidl, top, dele"):
        uids = {line.split()[1] for line in curl("/", "-X", "UIDL").splitlines()}
        wire.equal(len(uids), len(messages), "different UIDs")
        wire.equal("hello" in curl("/", "-X", "TOP 1 0"), False, "body in TOP 1 0")
        curl("/1", "-X", "DELE", "-I")
        wire.equal(len(world.bodies(name)), len(messages) - 1, "messages left")


def curl_smtp(world, service, kind):
    checks = world.checks
    label = "curl %s %s" % (service, kind)
    room = world.room(label.replace(" ", "-"))
    name, other = world.account(), world.account()
    base = "%s://localhost:%d/client.example.test" % ("smtps" if kind == "tls" else "smtp", world.port(service, kind))
    options = curl_options(world, kind, name)
    if service == "smtp":
        options = options[:4] + options[6:]  # no login
    messages = sample(name)
    with checks.step(label + ": send, every byte"):
        for i, m in enumerate(messages):
            path = os.path.join(room, "m%d" % i)
            with open(path, "wb") as f:
                f.write(m)
            run(options + [base, "--mail-from", name + "@mail.example.test", "--mail-rcpt", name + "@mail.example.test",
                           "--mail-rcpt", other + "@mail.example.test", "--upload-file", path], room)
        for account in (name, other):
            have = [wire.without_trace(d) for _, _, d in world.bodies(account)]
            wire.equal([wire.digest(d) for d in have], [wire.digest(m) for m in messages], account)
    with checks.step(label + ": an unknown recipient is refused"):
        run(options + [base, "--mail-from", name + "@mail.example.test", "--mail-rcpt", "nobody@mail.example.test",
                       "--upload-file", os.path.join(room, "m0")], room, want=55)
        wire.equal(len(world.bodies(name)), len(messages), "messages")


# ---- swaks ----

def swaks(world, label, service, options, login=True):
    checks = world.checks
    room = world.room("swaks-" + label.replace(" ", "-"))
    name = world.account()
    messages = sample(name)
    address = name + "@mail.example.test"
    base = ["swaks", "--server", "localhost", "--port", str(world.daemon.port(service)), "--helo",
            "client.example.test",
            "--from", address, "--no-info-hints", *options] + (["-au", name, "-ap", PASSWORD] if login else [])
    with checks.step("swaks %s: send, every byte" % label):
        for i, m in enumerate(messages):
            path = os.path.join(room, "m%d" % i)
            with open(path, "wb") as f:
                f.write(wire.stuff(m))
            run(base + ["--to", address, "--data", "@" + path, "--no-data-fixup"], room)
        have = [wire.without_trace(d) for _, _, d in world.bodies(name)]
        wire.equal([wire.digest(d) for d in have], [wire.digest(m) for m in messages], "INBOX")
    with checks.step("swaks %s: an unknown recipient is refused" % label):
        said = run(base + ["--to", "nobody@mail.example.test"], room, want=24)
        wire.equal("550 5.1.1" in said, True, "550 5.1.1 in %r" % said[-500:])


# ---- Python's own ----

def tls(world):
    context = ssl.create_default_context(cafile=world.ca)
    context.check_hostname = True
    return context


def open_imap(world, kind):
    if kind == "tls":
        return imaplib.IMAP4_SSL("localhost", world.port("imap", kind), ssl_context=tls(world))
    client = imaplib.IMAP4("localhost", world.port("imap", kind))
    if kind == "starttls":
        client.starttls(tls(world))
    return client


def ok(answer):
    if answer[0] != "OK":
        raise AssertionError("answer is %r" % (answer,))
    return answer[1]


def python_imap(world, kind):
    checks = world.checks
    label = "imaplib %s" % kind
    name, messages = world.filled()
    client = open_imap(world, kind)
    with checks.step(label + ": capability, login"):
        wire.equal("IMAP4REV1" in client.capabilities, True, "IMAP4rev1 offered")
        wire.equal("STARTTLS" in client.capabilities, kind == "plain", "STARTTLS offered")
        if kind == "plain":
            ok(client.login(name, PASSWORD))
        else:
            ok(client.authenticate("PLAIN", lambda _: b"\0%s\0%s" % (name.encode(), PASSWORD.encode())))
        ok(client.capability())
        ok(client.namespace())
    with checks.step(label + ": list, select, status"):
        names = {line.decode().split(' "/" ')[1].strip('"') for line in ok(client.list())}
        wire.equal({"INBOX", "Drafts", "Sent", "Junk", "Trash", "Archive"} <= names, True,
                   "the usual mailboxes in %r" % names)
        wire.equal(int(ok(client.select("INBOX"))[0]), len(messages), "messages")
        wire.equal(b"MESSAGES %d" % len(messages) in ok(client.status("INBOX", "(MESSAGES UIDNEXT UNSEEN)"))[0], True,
                   "STATUS")
    with checks.step(label + ": fetch, every byte"):
        for i, m in enumerate(messages, 1):
            wire.equal(wire.digest(wire.without_trace(ok(client.fetch(str(i), "(BODY.PEEK[])"))[0][1])),
                       wire.digest(m), str(i))
        header = email.message_from_bytes(ok(client.fetch("4", "(BODY.PEEK[HEADER])"))[0][1])
        wire.equal(header["subject"], "%s 3" % name, "subject")
        wire.equal(ok(client.fetch("4", "(ENVELOPE)"))[0].count(b"%s 3" % name.encode()), 1, "subject in the envelope")
        wire.equal(b"RFC822.SIZE" in ok(client.fetch("1:*", "(FLAGS INTERNALDATE RFC822.SIZE BODYSTRUCTURE)"))[0],
                   True, "all")
    with checks.step(label + ": search"):
        wire.equal(ok(client.search(None, "SUBJECT", '"%s 2"' % name)), [b"3"], "SUBJECT")
        wire.equal(ok(client.uid("SEARCH", None, "UNSEEN"))[0].split(),
                   [b"%d" % i for i in range(1, len(messages) + 1)], "UNSEEN")
        client.literal = "Grüße".encode()
        wire.equal(ok(client.uid("SEARCH", "CHARSET", "UTF-8", "BODY")), [b"4"], "BODY, in UTF-8")
    with checks.step(label + ": store, copy, append, expunge, close"):
        ok(client.store("1", "+FLAGS", "(\\Seen $Later)"))
        wire.equal(b"$Later" in ok(client.fetch("1", "(FLAGS)"))[0], True, "a keyword")
        ok(client.copy("1:2", "Archive"))
        ok(client.append("Sent", "(\\Seen)", imaplib.Time2Internaldate(1600000000), messages[5]))
        ok(client.uid("STORE", "1:2", "+FLAGS", "(\\Deleted)"))
        wire.equal(len(ok(client.expunge())), 2, "EXPUNGE responses")
        wire.equal(int(ok(client.select("Archive"))[0]), 2, "copies")
        ok(client.close())
        wire.equal(int(ok(client.select("Sent", readonly=True))[0]), 1, "appended")
        got = ok(client.fetch("1", "(BODY.PEEK[] INTERNALDATE)"))
        wire.equal(wire.digest(got[0][1]), wire.digest(messages[5]), "appended bytes")
        wire.equal(time.mktime(imaplib.Internaldate2tuple(got[0][0] + got[1])), 1600000000.0, "internaldate")
        ok(client.unselect())
    with checks.step(label + ": create, rename, subscribe, delete"):
        ok(client.create("One/Two"))
        ok(client.subscribe("One/Two"))
        wire.equal(any(b"One/Two" in x for x in ok(client.lsub())), True, "subscribed")
        ok(client.rename("One", "Uno"))
        wire.equal(any(b"Uno/Two" in x for x in ok(client.list('""', "Uno*"))), True, "renamed with what is below")
        ok(client.unsubscribe("One/Two"))
        ok(client.delete("Uno/Two"))
        ok(client.delete("Uno"))
        wire.equal(ok(client.list('""', "Uno*")), [None], "what is left")
    with checks.step(label + ": noop sees new mail"):
        ok(client.select("INBOX"))
        with wire.Smtp(world.daemon) as lmtp:
            lmtp.deliver([name.encode()], messages[0])
        ok(client.noop())
        wire.equal(client.response("EXISTS")[1][-1], b"%d" % (len(messages) - 1), "EXISTS")
    with checks.step(label + ": logout, wrong password"):
        wire.equal(client.logout()[0], "BYE", "logout")
        again = open_imap(world, kind)
        try:
            again.login(name, "wrong")
        except imaplib.IMAP4.error as e:
            wire.equal("AUTHENTICATIONFAILED" in str(e), True, "AUTHENTICATIONFAILED in %s" % e)
        else:
            raise AssertionError("a wrong password was taken")
        again.logout()


def python_pop3(world, kind):
    checks = world.checks
    label = "poplib %s" % kind
    name, messages = world.filled()
    if kind == "tls":
        client = poplib.POP3_SSL("localhost", world.port("pop3", kind), context=tls(world))
    else:
        client = poplib.POP3("localhost", world.port("pop3", kind))
    with checks.step(label + ": capa, login"):
        wire.equal({"UIDL", "TOP", "PIPELINING"} <= set(client.capa()), True, "capabilities")
        if kind == "starttls":
            client.stls(context=tls(world))
        client.user(name)
        client.pass_(PASSWORD)
    with checks.step(label + ": stat, list, uidl, retr, top"):
        count, total = client.stat()
        wire.equal(count, len(messages), "messages")
        wire.equal(sum(int(x.split()[1]) for x in client.list()[1]), total, "bytes")
        wire.equal(len({x.split()[1] for x in client.uidl()[1]}), count, "different UIDs")
        for i in (1, 2, 3, 4):
            text = b"".join(x + b"\r\n" for x in client.retr(i)[1])
            wire.equal(wire.digest(wire.without_trace(text)), wire.digest(messages[i - 1]), "message %d" % i)
        wire.equal(b"hello" in client.top(1, 0)[1], False, "body in TOP 1 0")
        wire.equal(client.top(1, 1)[1][-1], b"hello", "last line of TOP 1 1")
    with checks.step(label + ": dele, rset, quit"):
        client.dele(1)
        client.rset()
        client.dele(2)
        client.noop()
        client.quit()
        wire.equal([u for u, _, _ in world.bodies(name)], [1] + list(range(3, len(messages) + 1)), "UIDs left")


def python_smtp(world, service, kind):
    checks = world.checks
    label = "smtplib %s %s" % (service, kind)
    name, other = world.account(), world.account()
    address = name + "@mail.example.test"
    if kind == "tls":
        client = smtplib.SMTP_SSL("localhost", world.port(service, kind), context=tls(world))
    else:
        client = smtplib.SMTP("localhost", world.port(service, kind))
    with checks.step(label + ": ehlo, login"):
        client.ehlo()
        if kind == "starttls":
            client.starttls(context=tls(world))
            client.ehlo()
        for word in ("size", "pipelining", "8bitmime", "enhancedstatuscodes"):
            wire.equal(client.has_extn(word), True, word)
        if service == "submission":
            client.login(name, PASSWORD)
    with checks.step(label + ": send"):
        messages = sample(name)[:6]
        for m in messages:
            client.sendmail(address, [address, other + "@mail.example.test"], m)
        for account in (name, other):
            have = [wire.without_trace(d) for _, _, d in world.bodies(account)]
            wire.equal([wire.digest(d) for d in have], [wire.digest(m) for m in messages], account)
    with checks.step(label + ": send_message"):
        m = email.message.EmailMessage(policy=email.policy.SMTP)
        m["From"], m["To"], m["Subject"] = address, address, "Grüße"
        m.set_content("ein Text\n")
        m.add_attachment(b"\x00\x01\x02" * 5000, maintype="application", subtype="octet-stream", filename="f")
        client.send_message(m)
        got = email.message_from_bytes(world.bodies(name)[-1][2], policy=email.policy.default)
        wire.equal(got["subject"], "Grüße", "subject")
        wire.equal(list(got.iter_attachments())[0].get_content(), b"\x00\x01\x02" * 5000, "attachment")
    with checks.step(label + ": one recipient of two is refused; noop, rset, vrfy, quit"):
        refused = client.sendmail(address, [address, "nobody@mail.example.test"], messages[0])
        wire.equal({k: v[0] for k, v in refused.items()}, {"nobody@mail.example.test": 550}, "refused")
        wire.equal(client.noop()[0], 250, "noop")
        wire.equal(client.rset()[0], 250, "rset")
        wire.equal(client.verify(address)[0], 252, "vrfy")
        wire.equal(client.quit()[0], 221, "quit")


def python_lmtp(world):
    name, other = world.account(), world.account()
    with world.checks.step("smtplib lmtp: send"):
        client = smtplib.LMTP("localhost", world.daemon.port("lmtp"))
        m = sample(name)[7]
        client.sendmail("ann@example.test", [name, other + "@mail.example.test"], m)
        for account in (name, other):
            wire.equal([wire.digest(wire.without_trace(d)) for _, _, d in world.bodies(account)], [wire.digest(m)],
                       account)
        client.quit()


# ---- all of it ----

def plan(world):
    """(name, function, arguments) of every group of checks."""
    out = []
    for kind in KINDS:
        out.append(("mbsync " + kind, mbsync, (world, kind, "LOGIN" if kind != "tls" else "PLAIN")))
    for protocol in ("POP3", "IMAP"):
        for kind in KINDS:
            out.append(("fetchmail %s %s" % (protocol, kind), fetchmail, (world, protocol, kind)))
        for kind in ("plain", "tls"):
            out.append(("getmail %s %s" % (protocol, kind), getmail, (world, protocol, kind)))
    for kind in KINDS:
        out += [("curl imap " + kind, curl_imap, (world, kind)), ("curl pop3 " + kind, curl_pop3, (world, kind))]
    smtp = [("smtp", "plain"), ("smtp", "starttls"), ("submission", "plain"), ("submission", "starttls"),
            ("submission", "tls")]
    for service, kind in smtp:
        out.append(("curl %s %s" % (service, kind), curl_smtp, (world, service, kind)))
    out += [("swaks " + label, swaks, (world, label, service, options, login)) for label, service, options, login in (
        ("smtp", "smtp", [], False), ("smtp starttls", "smtp", ["--tls"], False),
        ("submission starttls plain", "submission", ["--tls", "--auth", "PLAIN"], True),
        ("submission starttls login", "submission", ["--tls", "--auth", "LOGIN"], True),
        ("submissions", "submissions", ["--tlsc", "--auth", "PLAIN"], True),
        ("pipelined", "smtp", ["--pipeline"], False), ("lmtp", "lmtp", ["--protocol", "LMTP"], False))]
    for kind in KINDS:
        out += [("imaplib " + kind, python_imap, (world, kind)), ("poplib " + kind, python_pop3, (world, kind))]
    for service, kind in smtp:
        out.append(("smtplib %s %s" % (service, kind), python_smtp, (world, service, kind)))
    out.append(("smtplib lmtp", python_lmtp, (world,)))
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
    folder = tempfile.mkdtemp(prefix="tambo-real-")
    try:
        with Daemon(build=args.build, io=args.io) as daemon:
            world = World(daemon, checks, folder, args.only)
            for name, group, arguments in plan(world):
                if args.only in name:
                    begin = checks.passed + checks.failed
                    try:
                        group(*arguments)
                    except Exception as e:  # outside a check: the group could not even be set up
                        with checks.step(name):
                            raise AssertionError("%s: %s (after %d checks)" % (
                                type(e).__name__, e, checks.passed + checks.failed - begin)) from e
            with checks.step("the server still stands"):
                wire.equal(daemon.stop(), 0, "exit code")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
