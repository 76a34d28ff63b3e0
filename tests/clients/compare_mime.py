#!/usr/bin/env python3
"""ENVELOPE and BODYSTRUCTURE against two other readers of mail: Python's email and GMime.

    compare_mime.py [--count N] [--seed S] [--corpus DIR] [--io auto] [--build DIR]

Generated mail (a seed each, printed where it differs) is stored by APPEND; what FETCH tells must be what the others
find: the tree of types, of each leaf the encoding and the size, names and addresses with their groups, Subject,
Message-ID, In-Reply-To. The mail is well-formed but rich: folded fields, comments, quoted names, groups, trees of
multiparts and enclosed messages, preambles, boundaries that begin alike. --corpus compares the messages of a folder
instead, broken ones too, and only counts what differs, by kind; docs/LENIENCY.md explains the kinds.
Last line: "N passed, M failed".
"""
import argparse
import ctypes
import ctypes.util
import email
import email.utils
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)
import wire  # noqa: E402
from bad_rows import Grammar, whole  # noqa: E402
from tambo import Daemon  # noqa: E402

BATCH = 200


# ---- generated mail ----

WORDS = "ledger harbour quipu runner stone bridge llama maize cotton salt road storm letter".split()


def phrase(rng):
    kind = rng.randrange(5)
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 4)))
    if kind == 0:
        return '"%s, %s"' % (words, rng.choice(WORDS))
    if kind == 1:
        return '"a \\"%s\\" \\\\ b"' % words
    if kind == 2:
        return "=?utf-8?q?%s_=C3=A9?=" % words.replace(" ", "_")
    return words


def mailbox(rng):
    spec = "%s%d@%s.example.test" % (rng.choice(WORDS), rng.randrange(100), rng.choice(WORDS))
    kind = rng.randrange(6)
    if kind == 0:
        return spec
    if kind == 1:
        return "<%s>" % spec
    if kind == 2:
        return "%s (%s)" % (spec, rng.choice(WORDS))
    return "%s%s<%s>" % (phrase(rng), rng.choice((" ", "\r\n ", "  ")), spec)


def addresses(rng):
    out = []
    for _ in range(rng.randrange(1, 5)):
        if rng.randrange(6) == 0:
            members = ", ".join(mailbox(rng) for _ in range(rng.randrange(3)))
            out.append("%s: %s;" % (rng.choice(WORDS), members))
        else:
            out.append(mailbox(rng))
    return rng.choice((", ", ",\r\n\t", " , ")).join(out)


def header(rng):
    out = ["From: " + mailbox(rng), "Message-ID: <%d@example.test>" % rng.getrandbits(60),
           "Date: Mon, %d Nov 2026 12:00:%02d +0000" % (rng.randrange(1, 29), rng.randrange(60))]
    out.append("Subject: " + " ".join(rng.choice(WORDS) + rng.choice(("", "\r\n", "")) for _ in range(6)).strip())
    for name in ("To", "Cc", "Bcc", "Reply-To"):
        if rng.randrange(2):
            out.append("%s: %s" % (name, addresses(rng)))
    if rng.randrange(3) == 0:
        out.append("In-Reply-To: <%d@example.test>" % rng.getrandbits(60))
    rng.shuffle(out)
    return "\r\n".join(out) + "\r\n"


def leaf(rng):
    kind = rng.choice(("text/plain", "text/html", "image/png", "application/octet-stream", "Text/X-Own", "audio/basic"))
    more = rng.choice(("", "; charset=utf-8", ';\r\n name="a b.txt"; x=1', "; charset=us-ascii (c)"))
    out = "Content-Type: %s%s\r\n" % (kind, more)
    out += rng.choice(("", "Content-Transfer-Encoding: base64\r\n", "Content-Transfer-Encoding: 8BIT\r\n",
                       "Content-Transfer-Encoding: quoted-printable\r\n"))
    out += rng.choice(("", "Content-ID: <%d@x>\r\n" % rng.getrandbits(30),
                       "Content-Disposition: attachment; filename=f.bin\r\n"))
    lines = [" ".join(rng.choice(WORDS) for _ in range(rng.randrange(12))) for _ in range(rng.randrange(8))]
    return out + "\r\n" + "\r\n".join(lines)


def part(rng, depth, taken):
    kind = rng.randrange(10)
    if depth == 0 or kind < 6:
        return leaf(rng)
    if kind < 8:
        return "Content-Type: message/rfc822\r\n\r\n" + header(rng) + part(rng, depth - 1, taken)
    boundary = rng.choice(("=_%d" % len(taken), "b%s" % ("b" * len(taken)), "a'()+_,-./:=?%d" % len(taken)))
    taken.append(boundary)
    children = [part(rng, depth - 1, taken) for _ in range(rng.randrange(1, 4))]
    out = 'Content-Type: multipart/%s;%s boundary="%s"\r\n\r\n' % (
        rng.choice(("mixed", "alternative", "related", "x-own")), rng.choice(("", "\r\n")), boundary)
    out += rng.choice(("", "a preamble\r\n", "--%sx\r\n" % boundary))
    out += "".join("--%s%s\r\n%s\r\n" % (boundary, rng.choice(("", "  ")), c) for c in children)
    return out + "--%s--\r\n" % boundary + rng.choice(("", "an epilogue\r\n"))


def generated(seed):
    rng = random.Random(seed)
    return (header(rng) + "MIME-Version: 1.0\r\n" + part(rng, 4, [])).encode()


# ---- what each reader finds: (tree, fields) ----
# tree: (type, children or (encoding, size)); fields: {name: value}, addresses as ("group", name) or (name, spec)

def text_of(value):
    return None if value is None else value.decode("utf-8", "surrogateescape")


def our_tree(v):
    if isinstance(v[0], list):
        children = [c for c in v if isinstance(c, list)][:next(i for i, c in enumerate(v) if not isinstance(c, list))]
        return "multipart/" + text_of(v[len(children)]).lower(), [our_tree(c) for c in children]
    kind = (text_of(v[0]) + "/" + text_of(v[1])).lower()
    if kind == "message/rfc822":
        return kind, [our_tree(v[8])]
    return kind, (text_of(v[5]).lower(), v[6])


def our_addresses(v):
    out = []
    for name, _, box, host in v or ():
        if box is None:
            continue
        spec = "%s@%s" % (text_of(box), text_of(host))
        out.append(("group", text_of(box)) if host is None else (text_of(name) or "", spec))
    return out


def ours(imap, uid):
    values = []
    for item in (b"ENVELOPE", b"BODYSTRUCTURE"):
        untagged, _ = imap.command(b"UID FETCH %d (%s)" % (uid, item))
        values.append(Grammar(whole(untagged[0]).split(item + b" ", 1)[1][:-1]).value())
    envelope, structure = values
    fields = {"subject": text_of(envelope[1]), "in-reply-to": text_of(envelope[8]), "message-id": text_of(envelope[9])}
    for name, at in (("from", 2), ("to", 5), ("cc", 6), ("bcc", 7)):
        fields[name] = our_addresses(envelope[at])
    return our_tree(structure), fields


def raw(m, name):
    """The first field of that name, unfolded, 8-bit bytes as they are."""
    value = next((v for k, v in m.raw_items() if k.lower() == name), None)
    return None if value is None else re.sub(r"\r?\n", "", str(value)).strip()


def python_tree(m):
    kind = m.get_content_type()
    if kind == "message/rfc822" and m.is_multipart():
        return kind, [python_tree(m.get_payload()[0])]
    if m.is_multipart():
        return kind, [python_tree(c) for c in m.get_payload()]
    body = m._payload or ""  # pylint: disable=protected-access  # get_payload() would decode it
    encoding = raw(m, "content-transfer-encoding")
    return kind, ((encoding or "7bit").lower(), len(body.encode("utf-8", "surrogateescape")))


def python_finds(data):
    m = email.message_from_bytes(data)
    fields = {name: raw(m, name) for name in ("subject", "in-reply-to", "message-id")}
    return python_tree(m), fields


class GMime:
    """GMime by its C interface; pointers in, bytes out."""

    def __init__(self):
        self.lib = ctypes.CDLL("libgmime-3.0.so.0")
        self.gobject = ctypes.CDLL("libgobject-2.0.so.0")
        self.gobject.g_type_check_instance_is_a.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.gobject.g_object_unref.argtypes = [ctypes.c_void_p]
        self.lib.g_mime_init()
        self.types = {name: self.call(name + "_get_type", ctypes.c_size_t) for name in (
            "g_mime_multipart", "g_mime_message_part", "internet_address_mailbox", "internet_address_group")}

    def call(self, name, result, *args):
        function = getattr(self.lib, name)
        function.restype = result
        return function(*[ctypes.c_void_p(a) if isinstance(a, int) and a > 1 << 20 else a for a in args])

    def is_a(self, instance, name):
        return bool(self.gobject.g_type_check_instance_is_a(instance, self.types[name]))

    def tree(self, part_at):
        kind = self.call("g_mime_object_get_content_type", ctypes.c_void_p, part_at)
        name = (self.call("g_mime_content_type_get_media_type", ctypes.c_char_p, kind) + b"/" +
                self.call("g_mime_content_type_get_media_subtype", ctypes.c_char_p, kind)).decode().lower()
        if self.is_a(part_at, "g_mime_multipart"):
            count = self.call("g_mime_multipart_get_count", ctypes.c_int, part_at)
            children = [self.call("g_mime_multipart_get_part", ctypes.c_void_p, part_at, i) for i in range(count)]
            return name, [self.tree(c) for c in children]
        if self.is_a(part_at, "g_mime_message_part"):
            inner = self.call("g_mime_message_part_get_message", ctypes.c_void_p, part_at)
            return name, [self.tree(self.call("g_mime_message_get_mime_part", ctypes.c_void_p, inner))]
        return name, None

    def addresses(self, at):
        out = []
        for i in range(self.call("internet_address_list_length", ctypes.c_int, at)):
            a = self.call("internet_address_list_get_address", ctypes.c_void_p, at, i)
            name = (self.call("internet_address_get_name", ctypes.c_char_p, a) or b"").decode()
            if self.is_a(a, "internet_address_group"):
                out.append(("group", name))
                members = self.call("internet_address_group_get_members", ctypes.c_void_p, a)
                out += self.addresses(members) if members else []
            else:
                out.append((name, self.call("internet_address_mailbox_get_addr", ctypes.c_char_p, a).decode()))
        return out

    def finds(self, data):
        stream = self.call("g_mime_stream_mem_new_with_buffer", ctypes.c_void_p, data, ctypes.c_size_t(len(data)))
        parser = self.call("g_mime_parser_new_with_stream", ctypes.c_void_p, stream)
        message = self.call("g_mime_parser_construct_message", ctypes.c_void_p, parser, None)
        if not message or not self.call("g_mime_message_get_mime_part", ctypes.c_void_p, message):
            return None  # it finds no message
        fields = {}
        for name, kind in (("from", 1), ("to", 3), ("cc", 4), ("bcc", 5)):  # GMimeAddressType
            fields[name] = self.addresses(self.call("g_mime_message_get_addresses", ctypes.c_void_p, message, kind))
        found = self.tree(self.call("g_mime_message_get_mime_part", ctypes.c_void_p, message))
        for thing in (message, parser, stream):
            self.gobject.g_object_unref(thing)
        return found, fields


# ---- comparing ----

def types_only(tree):
    return tree[0], [types_only(c) for c in tree[1]] if isinstance(tree[1], list) else None


def decoded(addresses_):
    """Names as GMime gives them: encoded words decoded."""
    out = []
    for name, spec in addresses_:
        words = email.header.decode_header(name) if "=?" in name else [(name, None)]
        text = "".join(t if isinstance(t, str) else t.decode(c or "ascii", "replace") for t, c in words)
        out.append((text, spec))
    return out


def differences(mine, python, gmime):
    """[(kind, ours, theirs)]"""
    out = []
    tree, fields = mine
    if tree != python[0]:
        same = types_only(tree) == types_only(python[0])
        out.append(("python: size or encoding" if same else "python: types", tree, python[0]))
    for name, value in python[1].items():
        if fields[name] != value:
            out.append(("python: " + name, fields[name], value))
    if gmime is None:
        return out + [("gmime: finds no message", None, None)]
    if types_only(tree) != gmime[0]:
        out.append(("gmime: types", types_only(tree), gmime[0]))
    for name, value in gmime[1].items():
        if decoded(fields[name]) != value:
            out.append(("gmime: " + name, decoded(fields[name]), value))
    return out


def read_all(daemon, messages):
    """Yield (message, what we tell of it), batch by batch."""
    with wire.Imap(daemon, "u", timeout_s=120) as imap:
        for at in range(0, len(messages), BATCH):
            imap.command(b"CREATE b%d" % at)
            imap.command(b"SELECT b%d" % at)
            for name, data in messages[at:at + BATCH]:
                yield name, data, ours(imap, imap.append(b"b%d" % at, data))


def from_corpus(folder):
    out = []
    for where, _, files in os.walk(folder):
        for file in sorted(f for f in files if f.endswith(".eml")):
            with open(os.path.join(where, file), "rb") as f:
                data = re.sub(rb"\r?\n", b"\r\n", f.read())
            if data and b"\0" not in data and len(data) < 1 << 22:
                out.append((file, data))
    return out


def compare(daemon, checks, messages, strict):
    gmime, kinds = GMime(), {}
    right = 0
    for name, data, mine in read_all(daemon, messages):
        try:
            found = differences(mine, python_finds(data), gmime.finds(data))
        except (ValueError, LookupError, UnicodeError, TypeError, AttributeError, RecursionError,
                ctypes.ArgumentError) as e:
            found = [("another reader gives up: %s" % type(e).__name__, None, None)]
        right += not found
        for kind, a, b in found:
            kinds.setdefault(kind, []).append((name, a, b))
    for kind, cases in sorted(kinds.items()):
        print("     %d differ in %s" % (len(cases), kind))
        for name, a, b in cases[:3]:
            print("       %s: %.300r\n       %s  %.300r" % (name, a, " " * len(str(name)), b))
    wrong = len({name for cases in kinds.values() for name, _, _ in cases})
    checks.count("messages", len(messages) - (wrong if strict else 0), wrong if strict else 0)
    print("     %d of %d messages told alike by all three" % (right, len(messages)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus")
    wire.arguments(parser)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    messages = from_corpus(args.corpus) if args.corpus else [
        ("seed %d" % s, generated(s)) for s in range(args.seed, args.seed + args.count)]
    with Daemon(build=args.build, io=args.io, accounts=["u"]) as daemon:
        compare(daemon, checks, messages, strict=not args.corpus)
        with checks.step("the server still stands"):
            wire.equal(daemon.stop(), 0, "exit code")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
