/*
 * b64.c: finds base64 runs in a piece and lays the piece out as a table, its text, and the runs decoded; and the way
 * back.
 *
 * A run is lines of one width (a multiple of 4 characters) ended by CRLF, then perhaps one more line that is shorter or
 * padded. Only canonical base64 counts (no other character, the bits behind the last byte zero), so that encoding the
 * bytes again gives the text. Looks at 32 bytes in every 128; text without base64 is not touched otherwise.
 *
 * Invariants
 * (1) tb_b64_unpack(tb_b64_pack(x)) = x; tb_b64_pack's output is shorter than its input.
 * (2) every byte is looked at a bounded number of times: a position that a rejected run ended at is never gone behind.
 * (3) unpacking checks the whole table before it writes: lengths come to exactly the bytes there are and that are
 * wanted. Pure. Any thread. RFC 4648 4 and 3.5, RFC 2045 6.8.
 */
#include "engine/codec/b64.h"

enum {
    CHARS_MIN = 32,
    BYTES_MIN = CHARS_MIN / 4 * 3,
    CHARS_MAX = 1024, /* RFC 5322 2.1.1 has 998 */
    RUN_MIN = 384,    /* characters in whole lines; from 128 to 800 the ratio is the same */
    RUNS_MAX = 1000,
    ROW_MAX = 3 + 2 + 3 + 2, /* varints of at most 2^20, 256, 2^20 and 768 */
    TABLE_MAX = 2 + RUNS_MAX * ROW_MAX,
    BACK_MAX = 8
};

struct run {
    uint64_t text;  /* bytes between the run before and this one */
    uint64_t quads; /* a whole line's characters / 4 */
    uint64_t lines; /* whole ones */
    uint64_t tail;  /* bytes of the last line; 0: there is none */
};

struct packing {
    const struct tb_b64_kernel *k;
    const char *p;
    size_t len, done;         /* of the input: all; laid out */
    char *rows, *text, *data; /* the table without its count; what is no base64; what base64 stood for */
    size_t rows_len, text_len, data_len, runs;
};

static size_t tail_chars(size_t bytes)
{
    return (bytes + 2) / 3 * 4;
}

/* ---- packing ---- */

/* A shorter or padded last line at `at`: its bytes to out, its characters to *chars; 0: there is none. */
static size_t take_tail(const struct packing *s, size_t at, size_t width, char *out, size_t *chars)
{
    size_t max = s->len - at < width + 2 ? s->len - at : width + 2, n, pad;
    const char *p = s->p + at, *lf = memchr(p, '\n', max);
    char line[CHARS_MIN + 2];

    if (!lf || lf - p < 5 || lf[-1] != '\r' || (lf - p - 1) % 4 != 0)
        return 0;
    n = (size_t)(lf - p - 1);
    pad = p[n - 1] != '=' ? 0 : p[n - 2] != '=' ? 1 : 2;
    *chars = n;
    line[CHARS_MIN] = '\r';
    line[CHARS_MIN + 1] = '\n';
    for (size_t i = 0; i < n; i += CHARS_MIN, out += BYTES_MIN) {
        size_t part = n - i < CHARS_MIN ? n - i : CHARS_MIN;

        memset(line, 'A', CHARS_MIN); /* a digit of zero bits: what the padding stands for */
        memcpy(line, p + i, i + part < n ? part : part - pad);
        if (s->k->decode(line, line + sizeof(line), CHARS_MIN, out) != 1)
            return 0;
        for (size_t b = part / 4 * 3 - (i + part < n ? 0 : pad); b < part / 4 * 3; b++)
            if (out[b] != 0)
                return 0; /* not canonical: bits behind the last byte */
    }
    return n / 4 * 3 - pad;
}

/* The run whose first line begins at `at`, and the text before it. Returns its end, or `at` if it is small. */
static size_t take_run(struct packing *s, size_t at, size_t width)
{
    size_t text = at - s->done, tail_width = 0;
    char *out = s->data + s->data_len;
    size_t lines = s->k->decode(s->p + at, s->p + s->len, width, out);
    size_t end = at + lines * (width + 2), bytes = lines * (width / 4 * 3), tail;

    if (lines * width < RUN_MIN)
        return at;
    tail = take_tail(s, end, width, out + bytes, &tail_width);
    if (tail > 0)
        end += tail_width + 2;
    memcpy(s->text + s->text_len, s->p + s->done, text);
    s->text_len += text;
    s->data_len += bytes + tail;
    s->done = end;
    s->rows_len += tb_put_varint(s->rows + s->rows_len, text);
    s->rows_len += tb_put_varint(s->rows + s->rows_len, width / 4);
    s->rows_len += tb_put_varint(s->rows + s->rows_len, lines);
    s->rows_len += tb_put_varint(s->rows + s->rows_len, tail);
    s->runs++;
    return end;
}

/*
 * A look at the line that holds position `at`, not before `floor`. Returns where to look next, past this line or its
 * run; *floor: what need not be looked at again.
 */
static size_t look(struct packing *s, size_t at, size_t *floor)
{
    size_t low = at - *floor > CHARS_MAX ? at - CHARS_MAX : *floor;
    size_t max = s->len - at < CHARS_MAX + 2 ? s->len - at : CHARS_MAX + 2, start, end, width, run;
    const char *before = memrchr(s->p + low, '\n', at - low), *lf = memchr(s->p + at, '\n', max);
    char spoilt[CHARS_MAX / 4 * 3 + TB_B64_SLACK];

    if (!lf)
        return at + max;
    end = (size_t)(lf + 1 - s->p);
    start = before ? (size_t)(before + 1 - s->p) : low;
    width = end - start < 2 ? 0 : end - start - 2;
    if (width < CHARS_MIN || width > CHARS_MAX || width % 4 != 0 ||
        s->k->decode(s->p + start, s->p + end, width, spoilt) != 1)
        return end;
    for (int i = 0; i < BACK_MAX && start - *floor >= width + 2; i++) {
        if (s->k->decode(s->p + start - width - 2, s->p + start, width, spoilt) != 1)
            break;
        start -= width + 2;
    }
    run = take_run(s, start, width);
    *floor = run > end ? run : end;
    return *floor;
}

size_t tb_b64_room(size_t len)
{
    return len > TB_B64_RAW_MAX ? 0 : TABLE_MAX + len + len / 4 * 3 + TB_B64_SLACK;
}

bool tb_b64_pack(const struct tb_b64_kernel *kernel, struct tb_slice src, char *scratch, struct tb_slice *out)
{
    if (src.len > TB_B64_RAW_MAX)
        return false;
    char rows[RUNS_MAX * ROW_MAX], count[10];
    struct packing s = {.k = kernel,
                        .p = src.ptr,
                        .len = src.len,
                        .rows = rows,
                        .text = scratch + TABLE_MAX,
                        .data = scratch + TABLE_MAX + src.len};
    size_t at, floor = 0, n, rest;
    char *start;

    at = kernel->find(src.ptr, 0, src.len);
    while (at < src.len && s.runs < RUNS_MAX)
        at = kernel->find(src.ptr, look(&s, at, &floor), src.len);
    if (s.runs == 0)
        return false;
    rest = src.len - s.done;
    memcpy(s.text + s.text_len, src.ptr + s.done, rest);
    s.text_len += rest;
    memmove(s.text + s.text_len, s.data, s.data_len);
    n = tb_put_varint(count, s.runs);
    start = s.text - s.rows_len - n;
    memcpy(start, count, n);
    memcpy(start + n, rows, s.rows_len);
    *out = tb_slice(start, n + s.rows_len + s.text_len + s.data_len);
    return true;
}

/* ---- unpacking ---- */

static bool get_run(struct tb_slice *table, struct run *r)
{
    return tb_get_varint(table, &r->text) && tb_get_varint(table, &r->quads) && tb_get_varint(table, &r->lines) &&
           tb_get_varint(table, &r->tail) && r->quads >= CHARS_MIN / 4 && r->quads <= CHARS_MAX / 4 &&
           r->text <= TB_B64_RAW_MAX && r->lines <= TB_B64_RAW_MAX && r->tail <= r->quads * 3;
}

/* The table's rows and what they describe: false unless they come to all of `text` and `data` and all of raw_len. */
static bool sound(struct tb_slice table, uint64_t runs, size_t raw_len, struct tb_slice *text, struct tb_slice *data)
{
    uint64_t written = 0, bytes = 0, raw = 0; /* text between runs; decoded bytes; the piece without its rest */
    struct run r;

    for (uint64_t i = 0; i < runs; i++) {
        if (!get_run(&table, &r))
            return false;
        written += r.text;
        bytes += r.lines * r.quads * 3 + r.tail;
        raw += r.text + r.lines * (r.quads * 4 + 2) + (r.tail ? tail_chars((size_t)r.tail) + 2 : 0);
        if (written + bytes > table.len || raw > raw_len)
            return false;
    }
    if (table.len < bytes || table.len - bytes - written != raw_len - raw)
        return false;
    *text = tb_slice(table.ptr, table.len - (size_t)bytes);
    *data = tb_slice(table.ptr + text->len, (size_t)bytes);
    return true;
}

static char *put_tail(const struct tb_b64_kernel *k, const char *in, size_t bytes, char *out)
{
    char part[BYTES_MIN + TB_B64_SLACK], line[CHARS_MIN + 2];
    size_t chars = tail_chars(bytes), pad = chars / 4 * 3 - bytes;

    for (size_t i = 0, o = 0; i < bytes; i += BYTES_MIN, o += CHARS_MIN) {
        memset(part, 0, sizeof(part));
        memcpy(part, in + i, bytes - i < BYTES_MIN ? bytes - i : BYTES_MIN);
        k->encode(part, 1, CHARS_MIN, line);
        memcpy(out + o, line, chars - o < CHARS_MIN ? chars - o : CHARS_MIN);
    }
    memset(out + chars - pad, '=', pad);
    out[chars] = '\r';
    out[chars + 1] = '\n';
    return out + chars + 2;
}

enum tb_rc tb_b64_unpack(const struct tb_b64_kernel *kernel, struct tb_slice in, char *dst, size_t raw_len)
{
    struct tb_slice text, data;
    uint64_t runs;
    char *end = dst + raw_len;

    if (!tb_get_varint(&in, &runs) || runs > RUNS_MAX || !sound(in, runs, raw_len, &text, &data))
        return TB_CORRUPT;
    for (struct run r; runs > 0 && get_run(&in, &r); runs--) {
        memcpy(dst, text.ptr, (size_t)r.text);
        text.ptr += r.text;
        dst += r.text;
        kernel->encode(data.ptr, (size_t)r.lines, (size_t)r.quads * 4, dst);
        data.ptr += r.lines * r.quads * 3;
        dst += r.lines * (r.quads * 4 + 2);
        if (r.tail > 0)
            dst = put_tail(kernel, data.ptr, (size_t)r.tail, dst);
        data.ptr += r.tail;
    }
    memcpy(dst, text.ptr, (size_t)(end - dst));
    return TB_OK;
}
