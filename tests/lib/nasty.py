"""Messages that are hard on a mail store, made here: any of them must come back byte for byte.

generate(n, seed) yields (name, bytes): first the nasty ones, each once, then ordinary ones until there are n.
"""
import base64
import random

MIB = 1 << 20
HEAD = b"From: a@example.test\r\nTo: b@example.test\r\nSubject: %s\r\nMessage-ID: <%s@example.test>\r\n"


def _head(name, extra=b""):
    return HEAD % (name.encode(), name.encode()) + extra


def _lines(data, size):
    """The first bytes of data, cut to size and ending in CRLF; no CR is left alone."""
    out = data[:size - 2]
    return (out[:-1] + b"z" if out.endswith(b"\r") else out) + b"\r\n"


def text(rng, size):
    """Compressible text in lines, size bytes, ending in CRLF."""
    words = b"ledger harbour quipu runner stone bridge llama maize cotton salt road storm letter".split()
    lines, total = [], 0
    while total < size:
        line = b" ".join(rng.choice(words) for _ in range(12)) + b" %d\r\n" % rng.getrandbits(30)
        lines.append(line)
        total += len(line)
    return _lines(b"".join(lines), size)


def noise(rng, size):
    """Lines of base64 of random bytes, size bytes, ending in CRLF: nothing to compress but a quarter."""
    data = base64.b64encode(rng.randbytes(size * 3 // 4 + 3))
    return _lines(b"\r\n".join(data[i:i + 76] for i in range(0, len(data), 76)), size)


def eight_bit(rng, size):
    """Random bytes without NUL, CR and LF in lines of 500, size bytes."""
    data = rng.randbytes(size).translate(bytes(b if b not in (0, 10, 13) else 120 for b in range(256)))
    return _lines(b"\r\n".join(data[i:i + 500] for i in range(0, len(data), 500)), size)


def multipart(rng, name, sizes, kind=noise):
    boundary = b"=_%s_%d" % (name.encode(), rng.getrandbits(40))
    out = [_head(name, b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n" % boundary)]
    out.append(b"--%s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n" % (boundary, text(rng, 700)))
    for i, size in enumerate(sizes):
        out.append(b"--%s\r\nContent-Type: application/octet-stream; name=f%d\r\nContent-Transfer-Encoding: base64\r\n"
                   b"Content-Disposition: attachment; filename=f%d\r\n\r\n" % (boundary, i, i))
        out.append(kind(rng, size) + b"\r\n")
    out.append(b"--%s--\r\n" % boundary)
    return b"".join(out)


def nested(name, depth):
    """multipart in multipart in multipart."""
    out = [_head(name, b"MIME-Version: 1.0\r\n")]
    for i in range(depth):
        out.append(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i))
    out.append(b"Content-Type: text/plain\r\n\r\nthe core\r\n")
    out += [b"--b%d--\r\n" % i for i in reversed(range(depth))]
    return b"".join(out)


def forwarded(name, depth):
    """message/rfc822 in message/rfc822."""
    return b"".join(_head("%s-%d" % (name, i), b"Content-Type: message/rfc822\r\n\r\n") for i in range(depth)) + \
        _head(name) + b"\r\nthe core\r\n"


def _small():
    yield "empty", b""
    yield "crlf only", b"\r\n"
    yield "two crlf", b"\r\n\r\n"
    yield "header only", _head("header-only")
    yield "header, empty body", _head("empty-body") + b"\r\n"
    yield "no header", b"\r\nA body and no header.\r\n"
    yield "no header, no empty line", b"just one line of text\r\n"
    yield "begins with a blank", b" a line that looks folded\r\nSubject: x\r\n\r\nbody\r\n"
    yield "begins with a tab", b"\tfolded\r\n\tfolded\r\n\r\nbody\r\n"
    yield "begins with Received", b"Return-Path: <z@example.test>\r\nReceived: from z\r\n\tby y; now\r\n" + \
        _head("r") + b"\r\nx\r\n"
    yield "mbox From line", b"From someone Thu Jan  1 00:00:00 1970\r\n" + _head("mbox") + \
        b"\r\nFrom here on\r\n>From there\r\n"
    yield "colon at the start", b": no name\r\n:\r\n\r\nbody\r\n"
    yield "no colon", b"Subject without colon\r\nFrom: a\r\n\r\nbody\r\n"
    yield "name with blanks", b"Sub ject : x\r\n\r\nbody\r\n"
    yield "dots", _head("dots") + b"\r\n.\r\n..\r\n...\r\n.x\r\n. \r\n.\r\n"
    yield "dot first", b".\r\n.\r\n"
    yield "dot in the header", b".Subject: x\r\n..From: y\r\n\r\n.\r\n"
    yield "many dots", _head("many-dots") + b"\r\n" + b".\r\n" * 40000
    yield "no final line end", _head("no-end") + b"\r\nthe last line has none"
    yield "no final line end, dot", _head("no-end-dot") + b"\r\n."
    yield "bare lf", _head("lf") + b"\r\nunix\nlines\n.\n\n.\r\nend\r\n"
    yield "bare cr", _head("cr") + b"\r\nmac\rlines\r.\r\r\n\r\n.\r\r\nend\r\n"
    yield "ends in cr", _head("ends-cr") + b"\r\nx\r"
    yield "lf only", b"From: a\nSubject: unix\n\nbody\n.\n"
    yield "cr only", b"From: a\rSubject: mac\r\rbody\r"
    yield "nul", _head("nul") + b"\r\na\0b\0\0\r\n\0\r\nend\0\r\n"
    yield "nul in the header", b"From: a\0b\r\nSubject: \0\0\r\n\0: \0\r\n\r\n\0\r\n"
    yield "only nul", b"\0" * 5000 + b"\r\n"
    yield "nul and bare cr", _head("nul-cr") + b"\r\na\0b\rc\r\n"
    yield "nul and smuggling", _head("nul-dot") + b"\r\n\0.\r\nMAIL FROM:<x@example.test>\r\n"
    yield "control bytes", _head("control") + b"\r\n" + bytes(b for b in range(1, 256) if b not in (10, 13)) + b"\r\n"
    yield "bad utf-8", _head("utf8") + b"Subject: \xff\xfe\xc0\xaf\r\n\r\n\xed\xa0\x80 \xf5\x80 \xc3\r\n"
    yield "utf-8 header", "From: Jürgen <j@example.test>\r\nSubject: Grüße ☃ 𝄞\r\n\r\nKörper\r\n".encode()
    yield "utf-16 body", _head("utf16", b"Content-Type: text/plain; charset=utf-16\r\n\r\n") + \
        "text\r\n".encode("utf-16").replace(b"\0", b"\1") + b"\r\n"
    yield "open quote", b"From: \"open <a@b>\r\nContent-Type: text/plain; name=\"open\r\n\r\nbody\r\n"
    yield "open comment", b"From: (((((((\r\nDate: (((\r\n\r\nbody\r\n"
    yield "open group", b"To: group: a@b, c@d\r\n\r\nbody\r\n"
    yield "wild date", b"Date: Thu, 99 Foo 99999999999 99:99:99 +9999\r\n\r\nbody\r\n"


def _wide(rng):
    yield "header line 1 MB", b"Subject: " + b"s" * MIB + b"\r\n\r\nbody\r\n"
    yield "header 300 KB", _head("h300") + b"".join(
        b"X-%d: %s\r\n" % (i, text(rng, 60)[:-2]) for i in range(4500)) + b"\r\nb\r\n"
    yield "header 300 KB folded", b"To: a@b" + b",\r\n b@example.test" * 17000 + b"\r\n\r\nbody\r\n"
    yield "header without end", b"".join(b"X-%d: y\r\n" % i for i in range(60000))
    yield "10,000 recipients", b"To: " + b", ".join(b"r%d@example.test" % i for i in range(10000)) + b"\r\n\r\nb\r\n"
    yield "150 Received", b"Received: from x by y; now\r\n" * 150 + _head("received") + b"\r\nb\r\n"
    yield "99 Received", b"Received: from x by y; now\r\n" * 99 + _head("received99") + b"\r\nb\r\n"
    yield "line 1 MB", _head("line") + b"\r\n" + b"x" * MIB + b"\r\n"
    yield "line 3 MB random", _head("line3") + b"\r\n" + eight_bit(rng, 3 * MIB).replace(b"\r\n", b"") + b"\r\n"
    yield "empty lines", _head("lines") + b"\r\n" * 300000
    yield "one byte lines", _head("one") + b"\r\n" + b"x\r\n" * 300000
    yield "nested 50", nested("nested50", 50)
    yield "nested 2000", nested("nested2000", 2000)
    yield "forwarded 50", forwarded("forwarded50", 50)
    yield "forwarded 1000", forwarded("forwarded1000", 1000)
    yield "10,000 parts", multipart(rng, "parts", [16] * 10000, text)
    yield "boundary missing", _head("boundary",
                                    b"Content-Type: multipart/mixed; boundary=nowhere\r\n\r\n") + text(rng, 3000)
    yield "boundary empty", _head("boundary0",
                                  b"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----\r\n")
    yield "boundary 1 KB", _head("boundary1k",
                                 b"Content-Type: multipart/mixed; boundary=%s\r\n\r\n" % (b"b" * 1024)) + \
        b"--" + b"b" * 1024 + b"\r\n\r\nx\r\n"
    yield "1,000 parameters", _head("params",
                                    b"Content-Type: text/plain" + b"".join(b";\r\n p%d=v" % i for i in range(1000))) + \
        b"\r\n\r\nx\r\n"


def _large(rng):
    for size in (MIB - 1, MIB, MIB + 1, MIB * 12 // 10, MIB * 13 // 10, 2 * MIB):
        yield "body %d text" % size, _head("body-%d" % size) + b"\r\n" + text(rng, size)
        yield "body %d noise" % size, _head("bodyn-%d" % size) + b"\r\n" + noise(rng, size)
        head = _head("whole-%d" % size) + b"\r\n"
        yield "whole %d 8-bit" % size, head + eight_bit(rng, size - len(head))
    for size in (255 << 10, 256 << 10, 257 << 10, 512 << 10, MIB + (256 << 10)):
        for off in (-1, 0, 1):
            yield "body %d noise" % (size + off), _head("edge-%d" % (size + off)) + b"\r\n" + noise(rng, size + off)
    yield "all the same 2 MB", _head("same") + b"\r\n" + b"\r\n".join([b"A" * 76] * 28000) + b"\r\n"
    yield "10 MB attachment", multipart(rng, "ten", [10 * MIB])
    yield "10 MB in two", multipart(rng, "two", [7 * MIB, 3 * MIB], eight_bit)
    yield "26 MB", multipart(rng, "twentysix", [13 * MIB, 13 * MIB])


def generate(n, seed):
    rng = random.Random(seed)
    count = 0
    for part in (_small(), _wide(rng), _large(rng)):
        for item in part:
            count += 1
            yield item
    for i in range(count, n):
        size = int(400 / max(rng.random(), 0.003))
        kind = rng.random()
        name = "ordinary-%d-%d" % (seed, i)
        if kind < 0.3:
            yield name, multipart(rng, name, [size, 20], rng.choice((noise, text)))
        else:
            yield name, _head(name) + b"\r\n" + (text if kind < 0.8 else eight_bit)(rng, size)
