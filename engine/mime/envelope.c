/*
 * envelope.c: the ENVELOPE of a header block as text, and that text taken apart again.
 *
 * Writing cannot fail but for memory: strings are cut at MIME_STRING_MAX and address lists end at a whole address when
 * the text would pass its bound. Reading trusts nothing. RFC 9051 7.5.2 (ENVELOPE) and section 9.
 */
#include "engine/mime/mime.h"

/* ---- writing ---- */

static void put_nstring(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f,
                        enum tb_mime_field id)
{
    if (f->value[id].ptr == NULL)
        tb_mime_put(out, "NIL", 3);
    else
        tb_mime_raw_string(out, &s->text, f->value[id]);
}

/* All fields of that name, one after the other: To, Cc and Bcc may be repeated (docs/LENIENCY.md). */
static void put_all(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f,
                    enum tb_mime_field id, size_t max)
{
    struct tb_slice rest = f->header, field, name, value;
    while (out->len < max && tb_header_next(&rest, &field, &name, &value)) {
        if (tb_mime_field_of(name) == id)
            tb_mime_addresses_write(out, s, value, max);
    }
}

/* "(" addresses ")" or NIL. max bounds the addresses; two bytes more may follow. */
static void put_list(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f,
                     enum tb_mime_field id, size_t max, bool repeated)
{
    size_t before = out->len;
    tb_mime_put_char(out, '(');
    if (f->count[id] > 1 && repeated)
        put_all(out, s, f, id, max);
    else if (f->count[id] > 0)
        tb_mime_addresses_write(out, s, f->value[id], max);
    if (out->len == before + 1) {
        out->len = before;
        tb_mime_put(out, "NIL", 3);
    } else {
        tb_mime_put_char(out, ')');
    }
}

/* sender and reply-to: from's text where the field is absent or empty. */
static void put_list_or(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f,
                        enum tb_mime_field id, size_t max, size_t from_at, size_t from_len)
{
    size_t before = out->len;
    put_list(out, s, f, id, max, false);
    if (out->len != before + 3 || out->failed)
        return;
    out->len = before;
    if (tb_buf_reserve(out, from_len) != NULL) {
        memcpy(out->ptr + before, out->ptr + from_at, from_len);
        out->len += from_len;
    }
}

void tb_mime_envelope_write(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f, size_t max)
{
    size_t limit = out->len + max, share = max / 16;
    s->value.len = 0; /* the two strings at the end come first, so that their room is known */
    tb_mime_put_char(&s->value, ' ');
    put_nstring(&s->value, s, f, MIME_IN_REPLY_TO);
    tb_mime_put_char(&s->value, ' ');
    put_nstring(&s->value, s, f, MIME_MESSAGE_ID);
    tb_mime_put_char(&s->value, ')');
    if (s->value.len > max / 4) {
        s->value.len = 0;
        tb_buf_str(&s->value, " NIL NIL)");
    }
    tb_mime_put_char(out, '(');
    for (int i = 0; i < 2; i++) {
        size_t before = out->len;
        put_nstring(out, s, f, i == 0 ? MIME_DATE : MIME_SUBJECT);
        if (out->len - before > max / 4) {
            out->len = before;
            tb_mime_put(out, "NIL", 3);
        }
        tb_mime_put_char(out, ' ');
    }
    size_t from_at = out->len;
    put_list(out, s, f, MIME_FROM, from_at + share, false);
    size_t from_len = out->len - from_at;
    tb_mime_put_char(out, ' ');
    put_list_or(out, s, f, MIME_SENDER, out->len + share, from_at, from_len);
    tb_mime_put_char(out, ' ');
    put_list_or(out, s, f, MIME_REPLY_TO, out->len + share, from_at, from_len);
    size_t lists_max = limit - s->value.len - 32; /* three lists' blanks, parentheses, NILs and a group's end */
    for (enum tb_mime_field id = MIME_TO; id <= MIME_BCC; id++) {
        tb_mime_put_char(out, ' ');
        put_list(out, s, f, id, lists_max, true);
    }
    tb_buf_slice(out, tb_buf_all(&s->value));
    out->failed |= s->value.failed || s->text.failed || s->name.failed || s->spec.failed || s->adl.failed ||
                   s->comment.failed;
}

/* ---- reading ---- */

struct reader {
    char *p, *end; /* in the arena's copy */
    struct tb_arena *arena;
    enum tb_rc rc; /* the first failure */
};

static bool fail(struct reader *r, enum tb_rc rc)
{
    if (r->rc == TB_OK)
        r->rc = rc;
    return false;
}

static bool expect(struct reader *r, char c)
{
    if (r->rc != TB_OK || r->p == r->end || *r->p != c)
        return fail(r, TB_CORRUPT);
    r->p++;
    return true;
}

static bool at_nil(const struct reader *r)
{
    return r->end - r->p >= 3 && memcmp(r->p, "NIL", 3) == 0;
}

/* Unescapes in place. */
static bool read_quoted(struct reader *r, struct tb_slice *out)
{
    char *from = ++r->p, *to = from;
    while (r->p < r->end && *r->p != '"') {
        if (*r->p == '\\' && ++r->p == r->end)
            break;
        *to++ = *r->p++;
    }
    *out = tb_slice(from, (size_t)(to - from));
    return expect(r, '"');
}

static bool read_literal(struct reader *r, struct tb_slice *out)
{
    char *close = memchr(r->p, '}', (size_t)(r->end - r->p));
    uint64_t n;
    if (close == NULL || !tb_slice_u64(tb_slice(r->p + 1, (size_t)(close - r->p - 1)), UINT32_MAX, &n))
        return fail(r, TB_CORRUPT);
    r->p = close + 1;
    if (!expect(r, '\r') || !expect(r, '\n'))
        return false;
    if ((uint64_t)(r->end - r->p) < n)
        return fail(r, TB_CORRUPT);
    *out = tb_slice(r->p, (size_t)n);
    r->p += n;
    return true;
}

/* nstring; NIL is a NULL pointer. */
static struct tb_slice read_nstring(struct reader *r)
{
    struct tb_slice s = {NULL, 0};
    if (r->rc != TB_OK)
        return s;
    if (r->p < r->end && *r->p == '"')
        (void)read_quoted(r, &s); /* failure is sticky in r->rc */
    else if (r->p < r->end && *r->p == '{')
        (void)read_literal(r, &s);
    else if (at_nil(r))
        r->p += 3;
    else
        (void)fail(r, TB_CORRUPT);
    return s;
}

static struct tb_address *read_addresses(struct reader *r)
{
    struct tb_address *first = NULL, **tail = &first;
    if (r->rc != TB_OK || at_nil(r)) {
        r->p += r->rc == TB_OK ? 3 : 0;
        return NULL;
    }
    if (!expect(r, '('))
        return NULL;
    while (r->rc == TB_OK && r->p < r->end && *r->p == '(') {
        struct tb_address *a = tb_arena_alloc(r->arena, sizeof(*a));
        if (a == NULL) {
            (void)fail(r, TB_LIMIT);
            return NULL;
        }
        r->p++;
        a->name = read_nstring(r);
        (void)expect(r, ' ');
        a->adl = read_nstring(r);
        (void)expect(r, ' ');
        a->mailbox = read_nstring(r);
        (void)expect(r, ' ');
        a->host = read_nstring(r);
        (void)expect(r, ')');
        *tail = a;
        tail = &a->next;
    }
    (void)expect(r, ')');
    return first;
}

enum tb_rc tb_envelope_read(struct tb_slice text, struct tb_arena *arena, struct tb_envelope *out)
{
    *out = (struct tb_envelope){0};
    char *copy = tb_arena_alloc(arena, text.len + 1);
    if (copy == NULL)
        return TB_LIMIT;
    if (text.len > 0)
        memcpy(copy, text.ptr, text.len);
    struct reader r = {.p = copy, .end = copy + text.len, .arena = arena, .rc = TB_OK};
    (void)expect(&r, '(');
    out->date = read_nstring(&r);
    (void)expect(&r, ' ');
    out->subject = read_nstring(&r);
    struct tb_address **lists[] = {&out->from, &out->sender, &out->reply_to, &out->to, &out->cc, &out->bcc};
    for (size_t i = 0; i < TB_ARRAY_LEN(lists); i++) {
        (void)expect(&r, ' ');
        *lists[i] = read_addresses(&r);
    }
    (void)expect(&r, ' ');
    out->in_reply_to = read_nstring(&r);
    (void)expect(&r, ' ');
    out->message_id = read_nstring(&r);
    if (expect(&r, ')') && r.p != r.end)
        (void)fail(&r, TB_CORRUPT);
    return r.rc;
}
