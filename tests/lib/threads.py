"""SORT and THREAD as RFC 5256 tells them, word for word, without a thought for speed: the model of test_order.py.

Messages are dicts: number, size, arrival (seconds), date (seconds or None), subject (decoded), id, refs, reply_to
(lists of ids), from_, to, cc, from_name, to_name (strings; "" is none).
"""
import re
import unicodedata

LEADER = re.compile(r"(?:(?:\[[^\[\]]*\] *)*(?:re|fwd?) *(?:\[[^\[\]]*\] *)?:| )", re.I)
BLOB = re.compile(r"\[[^\[\]]*\] *")


def base_subject(subject):
    """RFC 5256 2.1: the base subject, and whether it was a reply's or a forward's."""
    s, reply = re.sub(" +", " ", re.sub(r"[\t\r\n]", " ", subject)), False
    while True:
        while True:  # (2)
            if s.endswith(" "):
                s = s[:-1]
            elif s.lower().endswith("(fwd)"):
                s, reply = s[:-5], True
            else:
                break
        while True:  # (5)
            m = LEADER.match(s)  # (3)
            if m:
                reply = reply or m.group() != " "
                s = s[m.end():]
                continue
            m = BLOB.match(s)  # (4)
            if m and s[m.end():]:
                s = s[m.end():]
                continue
            break
        if s.lower().startswith("[fwd:") and s.endswith("]"):  # (6)
            s, reply = s[5:-1], True
            continue
        return s, reply


def collate(s):
    """RFC 5051: titlecase each character where that is one character, then decompose it."""
    out = ""
    for c in s:
        title = c.title()
        out += unicodedata.normalize("NFKD", title if len(title) == 1 else c)
    return out.encode()


def sent(m):
    return m["arrival"] if m["date"] is None else m["date"]


# ---- SORT ----

def sort_value(m, key):
    """RFC 5256 3, RFC 5957 3."""
    if key in ("ARRIVAL", "SIZE"):
        return m[key.lower()]
    if key == "DATE":
        return sent(m)
    if key == "SUBJECT":
        return collate(base_subject(m["subject"])[0])
    if key in ("FROM", "TO", "CC"):
        return collate({"FROM": m["from_"], "TO": m["to"], "CC": m["cc"]}[key].partition("@")[0])
    name, address = (m["from_name"], m["from_"]) if key == "DISPLAYFROM" else (m["to_name"], m["to"])
    return collate(name or address)


def sort(messages, criteria):
    """criteria: (key, reverse) pairs, the first counts most."""
    out = sorted(messages, key=lambda m: m["number"])
    for key, reverse in reversed(criteria):
        out.sort(key=lambda m: sort_value(m, key), reverse=reverse)  # equal ones stay in mailbox order either way
    return [m["number"] for m in out]


# ---- THREAD ----

class Container:
    def __init__(self, message=None):
        self.message, self.parent, self.children = message, None, []

    def under(self, other):
        c = self
        while c is not None:
            if c is other:
                return True
            c = c.parent
        return False


def link(parent, child):
    if parent.under(child):
        return
    child.parent = parent
    parent.children.append(child)


def unlink(child):
    if child.parent is not None:
        child.parent.children.remove(child)
    child.parent = None


def containers(messages):
    """REFERENCES (1) and (2)."""
    by_id, own = {}, {}
    for m in messages:
        c = Container(m)
        own[m["number"]] = c
        if m["id"] and m["id"] not in by_id:
            by_id[m["id"]] = c
    for m in messages:
        before = None
        for ref in m["refs"] or m["reply_to"][:1]:
            c = by_id.setdefault(ref, Container())
            if before is not None and c.parent is None:
                link(before, c)
            before = c
        c = own[m["number"]]
        unlink(c)
        if before is not None:
            link(before, c)
    everything = set(by_id.values()) | set(own.values())
    return [c for c in everything if c.parent is None]


def prune(some, at_root):
    """REFERENCES (3), from the leaves up."""
    out = []
    for c in some:
        c.children = prune(c.children, False)
        if c.message is not None:
            out.append(c)
        elif c.children and (not at_root or len(c.children) == 1):
            out += c.children
        elif c.children:
            out.append(c)
    return out


def first(c, key):
    return key(c.message) if c.message is not None else min(first(x, key) for x in c.children)


def arrange(some, key):
    for c in some:
        arrange(c.children, key)
    some.sort(key=lambda c: first(c, key))


def by_sent(m):
    return sent(m), m["number"]


def by_arrival(m):
    return m["arrival"], m["number"]


def subject_of(c):
    m = c.message or min((x.message for x in c.children), key=by_sent)
    return collate(base_subject(m["subject"])[0])


def is_reply(c):
    return c.message is not None and base_subject(c.message["subject"])[1]


def gather(roots):
    """REFERENCES (5)."""
    table = {}
    for c in roots:
        s = subject_of(c)
        if not s:
            continue
        have = table.get(s)
        if have is None or (have.message is not None and
                            (c.message is None or (is_reply(have) and not is_reply(c)))):
            table[s] = c
    out = list(roots)
    for c in roots:
        s = subject_of(c)
        have = table.get(s)
        if not s or have is c:
            continue
        out.remove(c)
        if c.message is None and have.message is None:
            have.children += c.children
        elif have.message is None or (is_reply(c) and not is_reply(have)):
            have.children.append(c)
        else:
            dummy = Container()
            dummy.children = [have, c]
            out[out.index(have)] = dummy
            table[s] = dummy
    return out


def show(c):
    """thread-list of RFC 5256 5."""
    text = "("
    while True:
        if c.message is not None:
            text += str(c.message["number"])
        if not c.children:
            break
        if len(c.children) == 1:
            text, c = text + " ", c.children[0]
            continue
        text += " " if c.message is not None else ""
        text += "".join(show(x) for x in c.children)
        break
    return text + ")"


def newest(c):
    dates = [newest(x) for x in c.children]
    return max(dates + ([by_arrival(c.message)] if c.message is not None else []))


def thread(messages, algorithm):
    """What stands behind "* THREAD "."""
    if algorithm == "ORDEREDSUBJECT":
        groups = {}
        for m in sorted(messages, key=by_sent):
            groups.setdefault(collate(base_subject(m["subject"])[0]), []).append(m)
        roots = []
        for group in sorted(groups.values(), key=lambda g: by_sent(g[0])):
            roots.append(Container(group[0]))
            roots[-1].children = [Container(m) for m in group[1:]]
        return "".join(show(c) for c in roots)
    roots = prune(containers(messages), True)
    if algorithm == "REFS":
        arrange(roots, by_arrival)
        roots.sort(key=newest)
    else:
        arrange(roots, by_sent)
        roots = gather(roots)
        arrange(roots, by_sent)
    return "".join(show(c) for c in roots)
