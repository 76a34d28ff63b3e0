/*
 * address.c: address lists as RFC 9051 writes them: (name adl mailbox host) with group marks.
 *
 * A scanner over the raw value, one pass, no recursion: comments are skipped with a counter, groups are two marks. It
 * accepts the obsolete forms (routes, phrases with dots, "user@host (Name)") and what mailers get wrong
 * (docs/LENIENCY.md). It never decodes encoded words. RFC 5322 3.4, 4.4; RFC 9051 7.5.2 (ENVELOPE).
 */
#include "engine/mime/mime.h"

struct scan {
    struct tb_buf *out;
    struct tb_mime_scratch *s; /* name: the phrase; spec: the addr-spec; adl: the route; comment: the last comment */
    const char *p, *end;
    size_t max;
    size_t spec_at;    /* position of the last unquoted '@' in spec, or NONE */
    size_t phrase_len; /* of name when the word began that spec now holds */
    bool space;        /* a blank or comment since the last word */
    bool angle;        /* <...> was seen: spec is final */
    bool in_group, full;
};
static const size_t NONE = SIZE_MAX;
enum { GROUP_END_LEN = 17 };

static void scan_reset(struct scan *c)
{
    c->s->name.len = c->s->spec.len = c->s->adl.len = c->s->comment.len = 0;
    c->spec_at = NONE;
    c->phrase_len = 0;
    c->space = c->angle = false;
}

/* One "(name adl mailbox host)"; taken back if it does not fit. */
static void put_address(struct scan *c, struct tb_slice name, struct tb_slice mailbox, struct tb_slice host)
{
    size_t before = c->out->len;
    tb_mime_put_char(c->out, '(');
    if (name.len > 0)
        tb_mime_string(c->out, name);
    else
        tb_mime_put(c->out, "NIL", 3);
    tb_mime_put_char(c->out, ' ');
    if (c->s->adl.len > 0)
        tb_mime_string(c->out, tb_buf_all(&c->s->adl));
    else
        tb_mime_put(c->out, "NIL", 3);
    tb_mime_put_char(c->out, ' ');
    tb_mime_string(c->out, mailbox);
    tb_mime_put_char(c->out, ' ');
    if (host.ptr != NULL)
        tb_mime_string(c->out, host);
    else
        tb_mime_put(c->out, "NIL", 3);
    tb_mime_put_char(c->out, ')');
    if (c->out->len + (c->in_group ? GROUP_END_LEN : 0) > c->max) {
        c->out->len = before;
        c->full = true;
    }
}

static struct tb_slice nonnull(struct tb_slice s)
{
    return s.ptr == NULL ? TB_SLICE("") : s;
}

/* The address gathered so far, if there is anything to it. */
static void emit(struct scan *c)
{
    struct tb_slice name = tb_buf_all(&c->s->name), spec = tb_buf_all(&c->s->spec);
    struct tb_slice mailbox = nonnull(spec), host = TB_SLICE("");
    if (c->spec_at != NONE) {
        mailbox = nonnull(tb_slice_sub(spec, 0, c->spec_at));
        host = nonnull(tb_slice_sub(spec, c->spec_at + 1, spec.len));
        if (!c->angle)
            name.len = c->phrase_len;
    } else if (!c->angle && c->phrase_len > 0) {
        mailbox = TB_SLICE(""); /* words and no address: a name without a mailbox */
    } else if (!c->angle) {
        name.len = 0; /* one word: a mailbox without a host */
    }
    name = tb_slice_trim(name);
    bool any = name.len > 0 || mailbox.len > 0 || host.len > 0; /* a comment alone is no address */
    if (name.len == 0)
        name = tb_slice_trim(tb_buf_all(&c->s->comment));
    if (!c->full && any)
        put_address(c, name, mailbox, host);
    scan_reset(c);
}

static void group_end(struct scan *c)
{
    if (!c->in_group)
        return;
    tb_mime_put(c->out, "(NIL NIL NIL NIL)", GROUP_END_LEN);
    c->in_group = false;
}

static void group_begin(struct scan *c)
{
    struct tb_slice name = nonnull(tb_slice_trim(tb_buf_all(&c->s->name)));
    group_end(c);
    c->in_group = true;
    c->s->adl.len = 0;
    if (!c->full)
        put_address(c, TB_SLICE(""), name, tb_slice(NULL, 0));
    c->in_group = !c->full;
    scan_reset(c);
}

/* Text between the parentheses, quoted pairs undone, kept as the name of last resort. */
static void comment(struct scan *c)
{
    const char *stop = tb_mime_skip_comment(c->p, c->end), *q = c->p + 1;
    const char *last = stop > q && stop[-1] == ')' ? stop - 1 : stop;
    struct tb_buf *b = &c->s->comment;
    b->len = 0;
    c->s->text.len = 0;
    tb_mime_unfold(&c->s->text, tb_slice(q, (size_t)(last - q)));
    for (size_t i = 0; i < c->s->text.len; i++) {
        if (c->s->text.ptr[i] == '\\' && i + 1 < c->s->text.len)
            i++;
        tb_mime_put_char(b, c->s->text.ptr[i]);
    }
    c->p = stop;
    c->space = true;
}

/* A word begins: what it means for the phrase and for the addr-spec. */
static void word_begin(struct scan *c)
{
    struct tb_buf *spec = &c->s->spec, *name = &c->s->name;
    bool glued = spec->len > 0 && (spec->ptr[spec->len - 1] == '@' || spec->ptr[spec->len - 1] == '.');
    if (c->space && spec->len > 0 && !glued && *c->p != '@' && *c->p != '.') {
        if (c->spec_at != NONE) { /* "jane@example.org and more": the address is complete */
            name->len = c->phrase_len;
            c->angle = true;
            return;
        }
        c->phrase_len = name->len; /* "Jane Doe jane@example.org": the last word is the address */
        spec->len = 0;
    }
    if (c->space && name->len > 0)
        tb_mime_put_char(name, ' ');
    c->space = false;
}

static void put_clean(struct tb_buf *b, char ch)
{
    tb_mime_put_char(b, ch == 0 ? '?' : ch);
}

/* A quoted string, quoted pairs undone, into one or two buffers. */
static void quoted(struct scan *c, struct tb_buf *a, struct tb_buf *b)
{
    c->p++;
    while (c->p < c->end && *c->p != '"') {
        if (*c->p == '\\' && c->p + 1 < c->end)
            c->p++;
        if (*c->p != '\r' && *c->p != '\n') {
            put_clean(a, *c->p);
            if (b != NULL)
                put_clean(b, *c->p);
        }
        c->p++;
    }
    if (c->p < c->end)
        c->p++;
}

static bool word_char(char ch)
{
    static const bool ends[256] = {
        [' '] = true, ['\t'] = true, ['\r'] = true, ['\n'] = true, [','] = true,
        [';'] = true, [':'] = true,  ['<'] = true,  ['>'] = true,  ['('] = true,
        [')'] = true, ['"'] = true,  ['@'] = true,  ['['] = true,  [0] = true,
    };
    return !ends[(unsigned char)ch];
}

static void atom(struct scan *c, struct tb_buf *a, struct tb_buf *b)
{
    const char *from = c->p;
    while (c->p < c->end && word_char(*c->p)) {
        if (*c->p == '\\' && c->p + 1 < c->end && c->p[1] != '\r' && c->p[1] != '\n')
            c->p++;
        if (*c->p != 0)
            c->p++;
    }
    size_t n = (size_t)(c->p - from);
    tb_mime_put(a, from, n);
    if (b != NULL)
        tb_mime_put(b, from, n);
    if (n == 0) { /* a NUL, or a special that has no meaning here */
        put_clean(a, *c->p);
        if (b != NULL)
            put_clean(b, *c->p);
        c->p++;
    }
}

/* [1.2.3.4] up to the bracket, or to the next separator if it never closes. */
static void domain_literal(struct scan *c, struct tb_buf *a, struct tb_buf *b)
{
    char ch = 0;
    do {
        ch = *c->p;
        if (!tb_mime_blank(ch)) {
            put_clean(a, ch);
            if (b != NULL)
                put_clean(b, ch);
        }
        c->p++;
    } while (ch != ']' && c->p < c->end && memchr(",;<>()", *c->p, 6) == NULL);
}

/* "@a,@b:" before the address in angle brackets. RFC 5322 4.4 obs-route. */
static void route(struct scan *c)
{
    const char *q = c->p;
    while (q < c->end && *q != ':' && *q != '>' && *q != '<')
        q++;
    if (q == c->end || *q != ':')
        return;
    for (; c->p < q; c->p++) {
        if (!tb_mime_blank(*c->p))
            put_clean(&c->s->adl, *c->p);
    }
    c->p++;
}

static void angle(struct scan *c)
{
    struct tb_buf *spec = &c->s->spec;
    c->p++;
    spec->len = 0;
    c->spec_at = NONE;
    c->angle = true;
    while (c->p < c->end && tb_mime_blank(*c->p))
        c->p++;
    if (c->p < c->end && *c->p == '@')
        route(c);
    while (c->p < c->end && *c->p != '>' && *c->p != ',' && *c->p != '<') {
        char ch = *c->p;
        if (tb_mime_blank(ch)) {
            c->p++;
        } else if (ch == '(') {
            c->p = tb_mime_skip_comment(c->p, c->end);
        } else if (ch == '"') {
            quoted(c, spec, NULL);
        } else if (ch == '[') {
            domain_literal(c, spec, NULL);
        } else if (ch == '@') {
            c->spec_at = spec->len;
            tb_mime_put_char(spec, '@');
            c->p++;
        } else {
            atom(c, spec, NULL);
        }
    }
    if (c->p < c->end && *c->p == '>')
        c->p++;
}

/* One word or special outside of angle brackets. */
static void word(struct scan *c)
{
    struct tb_buf *name = &c->s->name, *spec = &c->s->spec;
    if (!c->angle)
        word_begin(c);
    if (c->angle) { /* nothing belongs to an address after its '>' */
        size_t name_len = name->len, spec_len = spec->len;
        if (*c->p == '"')
            quoted(c, name, NULL);
        else if (*c->p == '@' || *c->p == '[')
            c->p++;
        else
            atom(c, name, NULL);
        name->len = name_len;
        spec->len = spec_len;
        return;
    }
    if (*c->p == '"') {
        quoted(c, name, spec);
    } else if (*c->p == '[') {
        domain_literal(c, name, spec);
    } else if (*c->p == '@') {
        c->spec_at = spec->len;
        tb_mime_put_char(name, '@');
        tb_mime_put_char(spec, '@');
        c->p++;
    } else {
        atom(c, name, spec);
    }
}

void tb_mime_addresses_write(struct tb_buf *out, struct tb_mime_scratch *s, struct tb_slice value, size_t max)
{
    struct scan c = {.out = out, .s = s, .p = value.ptr, .end = value.ptr + value.len, .max = max};
    scan_reset(&c);
    while (c.p < c.end && !c.full) {
        char ch = *c.p;
        if (tb_mime_blank(ch)) {
            c.space = true;
            c.p++;
        } else if (ch == '(') {
            comment(&c);
        } else if (ch == ',') {
            emit(&c);
            c.p++;
        } else if (ch == ';') {
            emit(&c);
            group_end(&c);
            c.p++;
        } else if (ch == '<') {
            if (c.angle)
                emit(&c);
            angle(&c);
        } else if (ch == ':') {
            if (c.spec_at == NONE && !c.angle)
                group_begin(&c);
            c.p++;
        } else {
            word(&c);
        }
    }
    emit(&c);
    group_end(&c);
}
