#!/usr/bin/env python3
"""Every case of the public IMAP suites has a dialogue of ours: docs/IMAP-CASES.md says which.

    cases.py [-v]

Each section of that file heads a suite and says how many cases it has; each row names one case and the dialogues of
tests/proto/imap that cover it. Checked: as many rows as the heading says, no case twice, every dialogue there, none
named twice in a row, and no dialogue cases_*.txt that no row names. Each case is counted.
Last line: "N passed, M failed".
"""
import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
DOC = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "IMAP-CASES.md")
HEADING = re.compile(r"## (.+) \((\d+) cases\)")
ROW = re.compile(r"\| `([^`|]+)` \| ([^|]+) \| ?([^|]*)\|")


def sections(text):
    """[(suite, cases it says it has, [(line, case, dialogues)])]"""
    out = []
    for number, line in enumerate(text.split("\n"), 1):
        heading, row = HEADING.fullmatch(line), ROW.fullmatch(line)
        if heading:
            out.append((heading.group(1), int(heading.group(2)), []))
        elif line.startswith("## "):
            raise SystemExit("%s:%d: a heading without its number of cases" % (DOC, number))
        elif row and out:
            out[-1][2].append((number, row.group(1), row.group(2).split()))
        elif line.startswith("| `"):
            raise SystemExit("%s:%d: not a row: %s" % (DOC, number, line))
    return out


def problems_of(dialogues):
    if not dialogues or len(set(dialogues)) != len(dialogues):
        return "no dialogue, or one twice"
    gone = [d for d in dialogues if not os.path.exists(os.path.join(HERE, "imap", d + ".txt"))]
    return "no such dialogue: %s" % " ".join(gone) if gone else None


def main():
    with open(DOC, encoding="utf-8") as f:
        found = sections(f.read())
    passed, failed, named = 0, 0, set()
    for suite, says, rows in found:
        seen = set()
        for number, case, dialogues in rows:
            problem = "a second row" if case in seen else problems_of(dialogues)
            seen.add(case)
            named.update(dialogues)
            if problem:
                failed += 1
                print("FAIL %s:%d: %s: %s" % (os.path.basename(DOC), number, case, problem))
            else:
                passed += 1
                if "-v" in sys.argv[1:]:
                    print("ok   %s %s: %s" % (suite, case, " ".join(dialogues)))
        print("%s: %d cases" % (suite, len(rows)))
        if len(rows) != says:
            failed += 1
            print("FAIL %s: the heading says %d cases" % (suite, says))
    for path in sorted(glob.glob(os.path.join(HERE, "imap", "cases_*.txt"))):
        name = os.path.basename(path)[:-4]
        if name not in named:
            failed += 1
            print("FAIL %s: no row of %s names it" % (name, os.path.basename(DOC)))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
