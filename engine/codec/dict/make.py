#!/usr/bin/env python3
"""Make the built-in dictionaries: engine/codec/builtin_{header,body,cache}_1.c.

    python3 engine/codec/dict/make.py [--raw DIR]

Reads header.txt, body.txt and cache.txt beside this file: text of our own in the forms that mail takes, with
{placeholders} where mail differs from mail. Each dictionary is that text written out once with neutral values, and in
front of it zstd's entropy tables, taken from samples: random choices of the same text with random values. The random
numbers are our own generator's with a fixed seed and the tables come from libzstd 1.5.4, so the outcome is the same
every time. Released dictionaries never change: give a better one a new number.

--raw DIR also writes the dictionaries as files, for `zstd -D`.

The form of a text file: blocks between lines of "%% WEIGHT [kind]". A sample takes each block with probability
WEIGHT/100. Kinds: "text" (the default): lines end in CRLF; "flow": prose,
line ends become spaces; "word": a list of words; "code": base64 of the text at its three alignments. Later blocks lie
nearer to the data, so the most common forms come last.
"""
import base64
import ctypes
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = {"header": 64 << 10, "body": 110 << 10, "cache": 64 << 10}
IDS = {"header": 0x54420001, "body": 0x54420002, "cache": 0x54420003}
SAMPLES = {"header": 1500, "body": 1500, "cache": 3000}
LEVEL = 1

B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
HEX = "0123456789abcdef"
DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
ZONES = "+0000 -0700 +0200 -0400 +0100 -0800 -0500 +0530 +0800 +0900".split()
TOPS = ".com .org .net .de .com .co.uk .com .io .edu .fr".split()


class Random:
    """xorshift64*: the same numbers on every machine and for ever."""

    def __init__(self, seed):
        self.x = seed

    def below(self, n):
        self.x ^= self.x >> 12
        self.x = (self.x ^ self.x << 25) & 0xFFFFFFFFFFFFFFFF
        self.x ^= self.x >> 27
        return (self.x * 0x2545F4914F6CDD1D & 0xFFFFFFFFFFFFFFFF) * n >> 64

    def pick(self, seq):
        return seq[self.below(len(seq))]

    def chars(self, alphabet, n):
        return "".join(self.pick(alphabet) for _ in range(n))


def word(r):
    out = ""
    for _ in range(1 + r.below(3)):
        out += r.pick("bcdfghklmnprstvw") + r.pick("aeiou") + r.pick(["", "n", "r", "s", "l", "t"])
    return out


def host(r):
    return r.pick(["mail", "mx", "smtp", "mx1", "out", "lists", "mail2", "relay"]) + "." + word(r) + r.pick(TOPS)


def value(r, name, arg):
    """A random value for a placeholder."""
    n = int(arg) if arg and arg.isdigit() else 0
    if name == "b64":
        return r.chars(B64, n)
    if name == "b64url":
        return r.chars(B64[:62] + "-_", n)
    if name == "b32":
        return r.chars(B64[:26] + "234567", n)
    if name == "hex":
        return r.chars(HEX, n)
    if name == "HEX":
        return r.chars(HEX.upper(), n)
    if name == "num":
        return str(1 + r.below(9)) + r.chars("0123456789", n - 1)
    if name == "alnum":
        return r.chars(B64[:62], n)
    if name == "host":
        return host(r)
    if name == "dom":
        return word(r) + r.pick(TOPS)
    if name == "word":
        return word(r)
    if name == "Word":
        return word(r).capitalize()
    if name == "user":
        return r.pick([word(r), word(r) + "." + word(r), word(r)[0] + word(r), word(r) + r.chars("0123456789", 2)])
    if name == "addr":
        return value(r, "user", "") + "@" + value(r, "dom", "")
    if name == "name":
        return word(r).capitalize() + " " + word(r).capitalize()
    if name == "ip":
        return ".".join(str(r.below(256)) for _ in range(4))
    if name == "ip6":
        return ":".join(r.chars(HEX, 1 + r.below(4)) for _ in range(8))
    if name == "uuid":
        return "-".join(r.chars(HEX, k) for k in (8, 4, 4, 4, 12))
    if name == "time":
        return "%02d:%02d:%02d" % (r.below(24), r.below(60), r.below(60))
    if name == "date":
        return "%s, %d %s %d %s %s" % (r.pick(DAYS), 1 + r.below(28), r.pick(MONTHS), 2019 + r.below(9),
                                       value(r, "time", ""), r.pick(ZONES))
    if name == "words":
        return " ".join(word(r) for _ in range(max(1, n)))
    raise SystemExit("unknown placeholder {%s}" % name)


# What stands for them in a dictionary: the first, then the next one each time, so that neighbours vary.
NEUTRAL = {
    "host": ["mail.example.com", "lists.example.com"],
    "dom": ["example.com", "lists.example.com"],
    "addr": ["user@example.com", "user@lists.example.com"],
    "word": ["example"], "Word": ["Example"], "user": ["user"], "name": ["Example"],
    "ip": ["192.168.1.10"], "ip6": ["2001:db8::1"], "words": ["example"], "uuid": ["0"],
    "time": ["12:00:00"], "date": ["Mon, 1 Jan 2026 12:00:00 +0000"],
}


def render(text, r):
    """Fill the placeholders: with random values, or (r None) with neutral ones."""
    used = {}

    def fill(m):
        name = m.group(1)
        if r is not None:
            return value(r, name, m.group(2))
        used[name] = used.get(name, -1) + 1
        return NEUTRAL[name][used[name] % len(NEUTRAL[name])] if name in NEUTRAL else ""
    return re.sub(r"\{(\w+)(?::(\d+))?\}", fill, text)


def base64_of(text, shift):
    return base64.b64encode(b"   "[:shift] + text)[2 * (shift > 0):-4]


def write_out(block):
    """A block as it stands in the dictionary."""
    weight, kind, lines = block
    if kind == "word":
        return (" " + " ".join(" ".join(lines).split())).encode()
    if kind == "flow":
        return render(" ".join(lines), None).encode()
    text = render("".join(line + "\r\n" for line in lines), None).encode()
    return b"".join(base64_of(text, shift) for shift in range(3)) if kind == "code" else text


def prose(r, words):
    """Runs of words as they stand, other words between them, in lines of mail."""
    out, line = [], r.pick(["", "", "", "> "])
    for _ in range(4 + r.below(120)):
        at = r.below(len(words))
        for w in words[at:at + 1 + r.below(4)] + ([word(r)] if r.below(3) == 0 else []):
            line += w + " "
            if len(line) > 66:
                out.append(line.rstrip())
                line = out[0][:2] if out[0].startswith("> ") else ""
    return "\r\n".join(out) + "\r\n\r\n"


def sample_of(block, r):
    """A block as it may stand in a mail."""
    weight, kind, lines = block
    if kind in ("word", "flow"):
        return prose(r, render(" ".join(lines), r).split()).encode()
    text = render("".join(line + "\r\n" for line in lines), r).encode()
    return base64_of(text, r.below(3)) if kind == "code" else text


def read_blocks(role):
    blocks = []
    with open(os.path.join(HERE, role + ".txt"), encoding="utf-8") as f:
        for line in f.read().split("\n")[:-1]:
            if line.startswith("%%"):
                parts = line[2:].split()
                blocks.append((int(parts[0]), parts[1] if len(parts) > 1 else "text", []))
            else:
                blocks[-1][2].append(line)
    return blocks


def sample(blocks, r):
    return b"".join(sample_of(b, r) for b in blocks if r.below(100) < b[0])


class Params(ctypes.Structure):
    _fields_ = [("level", ctypes.c_int), ("notify", ctypes.c_uint), ("id", ctypes.c_uint)]


def finalize(role, content, samples):
    zstd = ctypes.CDLL("libzstd.so.1")
    zstd.ZDICT_finalizeDictionary.restype = ctypes.c_size_t
    zstd.ZDICT_finalizeDictionary.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
                                              ctypes.c_char_p, ctypes.POINTER(ctypes.c_size_t), ctypes.c_uint, Params]
    zstd.ZDICT_isError.argtypes = [ctypes.c_size_t]
    out = ctypes.create_string_buffer(len(content) + 4096)
    sizes = (ctypes.c_size_t * len(samples))(*map(len, samples))
    n = zstd.ZDICT_finalizeDictionary(out, len(out), content, len(content), b"".join(samples), sizes, len(samples),
                                      Params(LEVEL, 0, IDS[role]))
    if zstd.ZDICT_isError(n):
        raise SystemExit(role + ": libzstd refuses the dictionary")
    return out.raw[:n]


def c_text(role, data):
    """The bytes as C string literals, broken at line ends so that a change can be read."""
    lines, line = [], ""
    for i, byte in enumerate(data):
        c = chr(byte)
        after_octal = line[-4:-3] == "\\" and line[-3:].isdigit()
        if c == "\n":
            line += "\\n"
        elif c == "\r":
            line += "\\r"
        elif c == "\t":
            line += "\\t"
        elif c in '"\\':
            line += "\\" + c
        elif c == "?" and line.endswith("?"):
            line += "\\?"
        elif 32 <= byte < 127 and not (after_octal and c.isdigit()):
            line += c
        else:
            line += "\\%03o" % byte
        if c == "\n" or len(line) > 100 or i + 1 == len(data):
            lines.append('    "%s"' % line)
            line = ""
    name = "tb_dict_%s_1" % role
    return ("/*\n * builtin_%s_1.c: made by engine/codec/dict/make.py; do not edit. Released bytes never change.\n */\n"
            '#include "engine/codec/builtin.h"\n\nconst char %s[] =\n%s;\nconst size_t %s_len = sizeof(%s) - 1;\n'
            % (role, name, "\n".join(lines), name, name))


def main():
    raw = sys.argv[2] if len(sys.argv) == 3 and sys.argv[1] == "--raw" else None
    for role in SIZES:
        r = Random(0x7462 + IDS[role])
        blocks = read_blocks(role)
        content = b"".join(write_out(b) for b in blocks)
        data = finalize(role, content, [sample(blocks, r) for _ in range(SAMPLES[role])])
        if len(data) > SIZES[role]:
            raise SystemExit("%s: %d bytes, allowed %d" % (role, len(data), SIZES[role]))
        with open(os.path.join(HERE, "..", "builtin_%s_1.c" % role), "w", encoding="ascii") as f:
            f.write(c_text(role, data))
        if raw:
            with open(os.path.join(raw, role + ".dict"), "wb") as f:
                f.write(data)
        print("%s: %d bytes (%d text)" % (role, len(data), len(content)))


if __name__ == "__main__":
    main()
