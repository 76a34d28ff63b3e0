#!/usr/bin/env python3
"""The house rules that a machine can check: include arrows, third-party headers, banned calls, sizes, comments.

Prints one line a finding, "file:line: rule: what", and exits 1 if there is any. Exceptions stand in the tables below,
each with its reason; there is no way to switch a rule off from inside a source file.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS_MAX = 120
FUNCTION_LINES_MAX = 70

# A room includes only its own headers and those of lower floors (docs/ARCHITECTURE.md).
FLOORS = {
    "engine/base": 0,
    "engine/io": 1, "engine/crypto": 1,
    "engine/mime": 2, "engine/codec": 2, "engine/log": 2, "engine/index": 2,
    "engine/store": 3,
    "frontends/config": 4,
    "frontends/net": 5, "frontends/auth": 5,
    "frontends/imap": 6, "frontends/pop3": 6, "frontends/smtp": 6, "frontends/relay": 6, "frontends/ctl": 6,
    "frontends/http": 6,
    "frontends": 7,
    "tools": 8, "bench": 8, "bench/workloads": 8,
    "tests": 9,
}
DOORS = {
    "base.h": 0, "io.h": 1, "message.h": 2,
    "store.h": 3, "mailbox.h": 3, "delivery.h": 3, "fetch.h": 3, "search.h": 3, "sort.h": 3, "admin.h": 3,
    "trash.h": 3, "acl.h": 3, "backup.h": 3, "check.h": 3,
    "quota.h": 3, "annot.h": 3, "watch.h": 3,
}

# Each third-party header is included in exactly one folder (more where the others only print what the first reads).
THIRD_PARTY = {
    "liburing.h": ["engine/io"], "openssl/": ["engine/crypto"], "zstd.h": ["engine/codec"],
    "zdict.h": ["engine/codec"], "zlib.h": ["engine/codec"], "lmdb.h": ["engine/index"],
    "confuse.h": ["frontends/config"], "crypt.h": ["frontends/auth"],
    "argon2.h": ["frontends/auth"], "jansson.h": ["frontends/ctl", "tools", "bench"],
    "utf8proc.h": ["engine/mime"], "iconv.h": ["engine/mime"], "microhttpd.h": ["frontends/http"],
    "cmocka.h": ["tests"],
}

# Calls that only engine/io may make: the world is injectable (clock, randomness, files, sockets).
IO_CALLS = set("""
    open openat creat read pread pwrite preadv pwritev write writev fsync fdatasync ftruncate fallocate rename unlink
    mkdir rmdir opendir socket accept accept4 connect bind listen send sendto sendmsg recv recvfrom recvmsg poll ppoll
    epoll_wait select time gettimeofday clock_gettime rand random srand srandom getrandom getentropy fopen freopen mmap
    fork popen
""".split())
# Calls that nobody may make.
SLEEPS = {"usleep", "sleep", "nanosleep"}
NEVER_CALLS = SLEEPS | set("strcpy strcat sprintf vsprintf gets strtok alloca tmpnam mktemp system atoi atol".split())
CALL_EXCEPTIONS = {
    ("frontends/notify.c", "socket"): "the supervisor's datagram, before and after any tb_io",
    ("frontends/notify.c", "sendto"): "the same",
    ("frontends/daemon.c", "clock_gettime"): "a condition variable's deadline on main, which turns no loop",
    ("frontends/config/config.c", "fopen"): "libconfuse reads the file itself, at start and SIGHUP",
    ("engine/base/log.c", "write"): "the log line is one write to stderr",
}
# Tools and the load generator are programs of their own at the process's edge: stdio is theirs, sleeping is not.
EDGE = ("tools/", "bench/")

findings = []


def found(path, line, rule, what):
    findings.append(f"{path.relative_to(ROOT)}:{line}: {rule}: {what}")


def room_of(rel):
    """The longest known room that holds this file, or None."""
    folder = str(rel.parent)
    while folder and folder != ".":
        if folder in FLOORS:
            return folder
        folder = str(pathlib.PurePosixPath(folder).parent)
    return None


def strip(text):
    """Source without comments, strings and character constants, line numbers kept."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group())
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def check_includes(path, rel, lines):
    room = room_of(rel)
    for n, line in enumerate(lines, 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        name = m.group(2)
        for header, rooms in THIRD_PARTY.items():
            if (name == header or (header.endswith("/") and name.startswith(header))) and room is not None:
                if not any(str(rel).startswith(r + "/") for r in rooms):
                    found(path, n, "third-party", f"<{name}> belongs in {' or '.join(rooms)}")
        if room is None or room == "tests":
            continue
        if name.startswith("tambo/"):
            floor = DOORS.get(name[6:])
            if floor is None or floor > FLOORS[room]:
                found(path, n, "arrow", f"<{name}> is above {room}")
        elif "/" in name and room_of(pathlib.PurePosixPath(name)) in FLOORS:
            other = room_of(pathlib.PurePosixPath(name))
            if other.split("/")[0] == room.split("/")[0] == "bench":
                continue
            if other != room and FLOORS[other] >= FLOORS[room]:
                found(path, n, "arrow", f"{room} (floor {FLOORS[room]}) includes {name} (floor {FLOORS[other]})")


def check_calls(path, rel, code):
    if str(rel).startswith("engine/io/"):
        banned = NEVER_CALLS - {"nanosleep"}
    elif str(rel).startswith("tests/"):
        banned = SLEEPS
    elif str(rel).startswith(EDGE):
        banned = NEVER_CALLS
    else:
        banned = NEVER_CALLS | IO_CALLS
    for m in re.finditer(r"(?<![\w.>])([a-z_0-9]+)\s*\(", code):
        name = m.group(1)
        if name not in banned or (str(rel), name) in CALL_EXCEPTIONS:
            continue
        before = code[:m.start()]
        last = before.rsplit("\n", 1)[-1]
        if last.strip() and re.search(r"[\w*]\s+\**$", last) and not re.search(r"\b(return|else|do|case)\s+$", last):
            continue  # a declaration or definition of that name
        found(path, before.count("\n") + 1, "call", f"{name}() is not for this room")


def check_functions(path, code_lines):
    start = None
    for n, line in enumerate(code_lines, 1):
        if line.startswith("{"):
            start = n
        elif line.startswith("}") and start:
            if n - start - 1 > FUNCTION_LINES_MAX:
                found(path, start, "long function", f"{n - start - 1} lines, {FUNCTION_LINES_MAX} are allowed")
            start = None


def check_text(path, rel, text, lines):
    for n, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX:
            found(path, n, "long line", f"{len(line)} columns, {COLUMNS_MAX} are allowed")
        if "\t" in line and path.suffix in (".c", ".h", ".py"):
            found(path, n, "tab", "blanks are used here")
        if line != line.rstrip():
            found(path, n, "blank", "blanks at the end of the line")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line) and rel.name != "tidy.py":
            found(path, n, "unfinished", line.strip()[:60])
    if path.suffix in (".c", ".h") and not text.startswith("/*"):
        found(path, 1, "head", "a file opens with a comment that says what it is for")


def check_comments(path, lines):
    """A public function has a comment above it, alone or as one of a group, or behind it."""
    for n, line in enumerate(lines, 1):
        m = re.match(r"(?!static|typedef|#|return)[A-Za-z_][\w ]*[\w*] ?\**(tb_\w+)\(", line)
        if not m or re.search(r"_(init|free|clear|close|has)$", m.group(1)):
            continue
        end = n - 1
        while end < len(lines) and not re.search(r"[;{]\s*(/\*.*)?$", lines[end]):
            end += 1
        above = n - 2
        commented = any("/*" in x for x in lines[n - 1:end + 1])
        while not commented and above >= 0 and lines[above].strip():
            commented = "*/" in lines[above]
            above -= 1
        if not commented:
            found(path, n, "comment", f"{m.group(1)} has none")


def check_manual():
    """Every key of the configuration has its paragraph in the manual page, with its default."""
    table = ROOT / "frontends/config/table.c"
    manual = (ROOT / "docs/man/tambo.conf.5").read_text()
    rows = re.finditer(r'\{"(\w+)", CONFIG_\w+, AT\(\w+\), "([^"]*)"', table.read_text())
    for m in rows:
        key, fallback = m.groups()
        paragraph = re.search(rf"^\.It Ic {key}\n(.*?)(?=^\.It |^\.El)", manual, flags=re.S | re.M)
        line = table.read_text()[:m.start()].count("\n") + 1
        if not paragraph:
            found(table, line, "manual", f"{key} is not in tambo.conf(5)")
        elif (f".Cm {fallback}" if fallback else "empty") not in paragraph.group(1):
            found(table, line, "manual", f"tambo.conf(5) does not say that {key} is \"{fallback}\" by default")


def main():
    folders = ("include", "engine", "frontends", "tools", "bench", "tests")
    sources = sorted(p for folder in folders for p in (ROOT / folder).rglob("*")
                     if p.suffix in (".c", ".h", ".py", ".sh") and p.is_file())
    for path in sources:
        rel = pathlib.PurePosixPath(path.relative_to(ROOT))
        text = path.read_text(errors="replace")
        lines = text.splitlines()
        check_text(path, rel, text, lines)
        if path.suffix not in (".c", ".h"):
            continue
        code = strip(text)
        check_includes(path, rel, lines)
        check_calls(path, rel, code)
        check_functions(path, code.splitlines())
        if path.suffix == ".h" and (str(rel).startswith("include/") or rel.stem == rel.parent.name):
            check_comments(path, lines)
    check_manual()
    sys.stdout.write("".join(line + "\n" for line in findings))
    print(f"tidy: {len(sources)} files, {len(findings)} findings", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
