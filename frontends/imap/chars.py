#!/usr/bin/env python3
"""Writes chars.h: one 256-entry table of IMAP character classes, from the ABNF of RFC 3501 section 9.

Run: python3 frontends/imap/chars.py > frontends/imap/chars.h
"""

CHAR = set(range(0x01, 0x80))
CTL = set(range(0x00, 0x20)) | {0x7F}
DIGIT = set(b"0123456789")
ALPHA = set(range(0x41, 0x5B)) | set(range(0x61, 0x7B))

quoted_specials = set(b'"\\')
list_wildcards = set(b"%*")
resp_specials = set(b"]")
atom_specials = set(b"(){ ") | CTL | list_wildcards | quoted_specials | resp_specials
atom_char = CHAR - atom_specials
astring_char = atom_char | resp_specials
list_char = atom_char | list_wildcards | resp_specials
tag_char = astring_char - set(b"+")
text_char = CHAR - set(b"\r\n")
# RFC 9051 lets UTF-8 stand in quoted strings; whoever must not accept it (mailbox names) looks again.
quoted_char = (text_char - quoted_specials) | set(range(0x80, 0x100))
word_char = ALPHA | DIGIT | set(b".-+_")

CLASSES = [
    ("ATOM", atom_char, "ATOM-CHAR"),
    ("ASTRING", astring_char, "ASTRING-CHAR"),
    ("LIST", list_char, "list-char"),
    ("TAG", tag_char, 'tag: any ASTRING-CHAR except "+"'),
    ("QUOTED", quoted_char, "QUOTED-CHAR without an escape; with UTF-8 (RFC 9051)"),
    ("DIGIT", DIGIT, "DIGIT"),
    ("WORD", word_char, "what names of verbs, FETCH items and SEARCH keys are made of"),
]

print("/*")
print(" * chars.h: IMAP character classes. Written by chars.py from the ABNF of RFC 3501 section 9; do not edit.")
print(" */")
print("#ifndef TB_IMAP_CHARS_H")
print("#define TB_IMAP_CHARS_H")
print()
print("#include <stdint.h>")
print()
print("// clang-format off")
print("enum imap_char {")
for bit, (name, _, text) in enumerate(CLASSES):
    print(f"    IMAP_C_{name} = {1 << bit}, /* {text} */")
print("};")
print()
print("static const uint8_t imap_chars[256] = {")
for row in range(0, 256, 16):
    cells = []
    for c in range(row, row + 16):
        cells.append("0x%02x" % sum(1 << b for b, (_, s, _t) in enumerate(CLASSES) if c in s))
    print("    " + ", ".join(cells) + ",")
print("};")
print("// clang-format on")
print()
print("#endif")
