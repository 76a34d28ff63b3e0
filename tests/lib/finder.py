"""SEARCH as RFC 9051 6.4.4 tells it, without a thought for speed: the model of test_search.py.

Messages are dicts: number, uid, flags (a set, lower case), size, arrival, saved, now (seconds), modseq, emailid,
sent_day (days since 1970; of the Date field as written), fields (a list of name and decoded value), header (the whole
header, decoded), texts (decoded text parts and headers of enclosed messages), part_headers (headers of MIME parts).
A key is a tuple: its name, then its arguments; NOT, OR and AND have keys among these.
"""
import unicodedata

DAY_S = 86400


def fold(s):
    """The same after decoding, full case folding and compatibility decomposition (docs/LENIENCY.md)."""
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", s).casefold())


def holds(text, needle):
    return fold(needle) in fold(text)


def field_holds(m, name, needle):
    return any(n.lower() == name.lower() and holds(value, needle) for n, value in m["fields"])


def day_holds(word, day, wanted):
    return day < wanted if word == "BEFORE" else day == wanted if word == "ON" else day >= wanted


def matches(m, key, messages, saved):
    """Is the message found? messages: all of the mailbox; saved: the UIDs of "$"."""
    word, args = key[0], key[1:]
    if word == "AND":
        return all(matches(m, k, messages, saved) for k in args)
    if word == "OR":
        return any(matches(m, k, messages, saved) for k in args)
    if word == "NOT":
        return not matches(m, args[0], messages, saved)
    if word in ("SET", "UID"):
        of = "number" if word == "SET" else "uid"
        last = max(x[of] for x in messages)
        return any(min(a or last, b or last) <= m[of] <= max(a or last, b or last) for a, b in args)
    if word == "$":
        return m["uid"] in saved
    if word in ("BODY", "TEXT"):
        texts = m["texts"] + ([m["header"]] + m["part_headers"] if word == "TEXT" else [])
        return any(holds(t, args[0]) for t in texts)
    if word == "HEADER":
        return field_holds(m, *args)
    if word in ("FROM", "TO", "CC", "BCC", "SUBJECT"):
        return field_holds(m, word, args[0])
    for prefix, day in (("SENT", m["sent_day"]), ("SAVED", m["saved"] // DAY_S), ("", m["arrival"] // DAY_S)):
        if word in (prefix + "BEFORE", prefix + "ON", prefix + "SINCE"):
            return day_holds(word[len(prefix):], day, args[0])
    if word in ("YOUNGER", "OLDER"):
        return m["arrival"] >= m["now"] - args[0] if word == "YOUNGER" else m["arrival"] <= m["now"] - args[0]
    if word in ("KEYWORD", "UNKEYWORD"):
        return (args[0].lower() in m["flags"]) == (word == "KEYWORD")
    simple = {"ALL": True, "OLD": True, "NEW": False, "RECENT": False, "SAVEDATESUPPORTED": True}
    if word in simple:
        return simple[word]
    if word in ("LARGER", "SMALLER"):
        return m["size"] > args[0] if word == "LARGER" else m["size"] < args[0]
    if word == "MODSEQ":
        return m["modseq"] >= args[0]
    if word == "EMAILID":
        return m["emailid"] == args[0]
    if word.startswith("UN"):
        return "\\" + word[2:].lower() not in m["flags"]
    return "\\" + word.lower() in m["flags"]


def search(messages, key, saved=()):
    return [m for m in messages if matches(m, key, messages, saved)]
