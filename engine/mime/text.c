/*
 * text.c: strings as the two stored texts hold them: quoted or literal, unfolded, without NUL.
 *
 * Never decodes anything. Pure. RFC 9051 section 9 (string, quoted, literal), RFC 5322 2.2.3 (unfolding).
 */
#include "engine/mime/mime.h"

enum { CLASS_SPECIAL = 1, CLASS_EIGHT = 2, CLASS_LINE = 4, CLASS_NUL = 8 };

static const uint8_t classes[256] = {
    [0] = CLASS_NUL,       ['\r'] = CLASS_LINE,    ['\n'] = CLASS_LINE,
    ['"'] = CLASS_SPECIAL, ['\\'] = CLASS_SPECIAL, [0x80 ... 0xff] = CLASS_EIGHT,
};

static unsigned string_class(struct tb_slice s)
{
    unsigned seen = 0;
    for (size_t i = 0; i < s.len; i++)
        seen |= classes[(unsigned char)s.ptr[i]];
    return seen;
}

static void string_put(struct tb_buf *out, struct tb_slice s, unsigned seen)
{
    if (seen & (CLASS_EIGHT | CLASS_LINE)) {
        tb_mime_put_char(out, '{');
        tb_buf_u64(out, s.len);
        tb_mime_put(out, "}\r\n", 3);
        tb_buf_slice(out, s);
        return;
    }
    char *p = tb_buf_reserve(out, 2 * s.len + 2);
    if (p == NULL)
        return;
    char *q = p;
    *q++ = '"';
    if (seen & CLASS_SPECIAL) {
        for (size_t i = 0; i < s.len; i++) {
            if (s.ptr[i] == '"' || s.ptr[i] == '\\')
                *q++ = '\\';
            *q++ = s.ptr[i];
        }
    } else if (s.len > 0) {
        memcpy(q, s.ptr, s.len);
        q += s.len;
    }
    *q++ = '"';
    out->len += (size_t)(q - p);
}

void tb_mime_string(struct tb_buf *out, struct tb_slice s)
{
    string_put(out, s, string_class(s));
}

void tb_mime_unfold(struct tb_buf *out, struct tb_slice raw)
{
    char *p = tb_buf_reserve(out, raw.len);
    if (p == NULL)
        return;
    char *q = p;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.ptr[i];
        if (c == '\n' || (c == '\r' && i + 1 < raw.len && raw.ptr[i + 1] == '\n'))
            continue;
        *q++ = c == '\r' ? ' ' : c == 0 ? '?' : c;
    }
    out->len += (size_t)(q - p);
}

void tb_mime_raw_string(struct tb_buf *out, struct tb_buf *scratch, struct tb_slice raw)
{
    raw = tb_slice_sub(tb_slice_trim(raw), 0, MIME_STRING_MAX);
    unsigned seen = string_class(raw);
    if (seen & (CLASS_LINE | CLASS_NUL)) {
        scratch->len = 0;
        tb_mime_unfold(scratch, raw);
        raw = tb_buf_all(scratch);
        seen &= (unsigned)(CLASS_SPECIAL | CLASS_EIGHT);
    }
    string_put(out, raw, seen);
}

const char *tb_mime_skip_comment(const char *p, const char *end)
{
    size_t depth = 0;
    while (p < end) {
        char c = *p++;
        if (c == '\\' && p < end)
            p++;
        else if (c == '(')
            depth++;
        else if (c == ')' && --depth == 0)
            break;
    }
    return p;
}

void tb_mime_scratch_init(struct tb_mime_scratch *s)
{
    enum { LIMIT = 4 << 20 };
    tb_buf_init(&s->text, LIMIT);
    tb_buf_init(&s->name, LIMIT);
    tb_buf_init(&s->adl, LIMIT);
    tb_buf_init(&s->spec, LIMIT);
    tb_buf_init(&s->comment, LIMIT);
    tb_buf_init(&s->value, LIMIT);
    tb_buf_init(&s->params, LIMIT);
}

static void each_buf(struct tb_mime_scratch *s, void (*fn)(struct tb_buf *b))
{
    fn(&s->text);
    fn(&s->name);
    fn(&s->adl);
    fn(&s->spec);
    fn(&s->comment);
    fn(&s->value);
    fn(&s->params);
}

void tb_mime_scratch_free(struct tb_mime_scratch *s)
{
    each_buf(s, tb_buf_free);
}

static void trim_buf(struct tb_buf *b)
{
    size_t limit = b->limit;
    if (b->cap > MIME_KEEP_BYTES || b->failed) {
        tb_buf_free(b);
        tb_buf_init(b, limit);
    }
    b->len = 0;
}

void tb_mime_scratch_trim(struct tb_mime_scratch *s)
{
    each_buf(s, trim_buf);
}
