/*
 * imap.c: the IMAP side of a client: greeting, LOGIN, SELECT, FETCH 1:* (UID); and the strict reading of FETCH
 * responses.
 *
 * The parser accepts the grammar and nothing else: a server that is tested gets no leniency. It is a pure function over
 * a complete response, needs no memory and no recursion. RFC 9051 7.5.2 and 9.
 */
#include <stdlib.h>

#include "bench/bench.h"

enum { UIDS_MAX = 64 << 20 };

/* ---- reading ---- */

static bool take(struct tb_slice *s, const char *text)
{
    size_t n = strlen(text);
    if (s->len < n || memcmp(s->ptr, text, n) != 0)
        return false;
    *s = tb_slice(s->ptr + n, s->len - n);
    return true;
}

static bool take_number(struct tb_slice *s, uint64_t *out)
{
    size_t n = 0;
    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (!tb_slice_u64(tb_slice(s->ptr, n), UINT64_MAX, out))
        return false;
    *s = tb_slice(s->ptr + n, s->len - n);
    return true;
}

/* quoted = DQUOTE *QUOTED-CHAR DQUOTE */
static bool take_quoted(struct tb_slice *s)
{
    for (size_t i = 1; i < s->len; i++) {
        char c = s->ptr[i];
        if (c == '"') {
            *s = tb_slice(s->ptr + i + 1, s->len - i - 1);
            return true;
        }
        if (c == '\\')
            i++;
        if (i >= s->len || s->ptr[i] == '\r' || s->ptr[i] == '\n')
            return false;
    }
    return false;
}

/* literal = "{" number64 "}" CRLF *CHAR8; literal8 has "~" in front */
static bool take_literal(struct tb_slice *s, struct tb_slice *bytes)
{
    uint64_t n;
    (void)take(s, "~"); /* optional */
    if (!take(s, "{") || !take_number(s, &n) || !take(s, "}\r\n") || n > s->len)
        return false;
    *bytes = tb_slice(s->ptr, (size_t)n);
    *s = tb_slice(s->ptr + n, s->len - (size_t)n);
    return true;
}

static bool is_atom_char(char c)
{
    return c > 0x20 && c < 0x7f && c != '(' && c != ')' && c != '{' && c != '"';
}

static bool take_atom(struct tb_slice *s)
{
    size_t n = 0;
    while (n < s->len && is_atom_char(s->ptr[n]))
        n++;
    *s = tb_slice(s->ptr + n, s->len - n);
    return n > 0;
}

/* A string or atom; bytes: its content, quotes and length marks taken off. */
static bool take_scalar(struct tb_slice *s, struct tb_slice *bytes)
{
    struct tb_slice start = *s;
    if (s->len == 0)
        return false;
    if (*s->ptr == '{' || (*s->ptr == '~' && s->len > 1 && s->ptr[1] == '{'))
        return take_literal(s, bytes);
    if (*s->ptr == '"') {
        bool ok = take_quoted(s);
        *bytes = tb_slice(start.ptr + 1, ok ? (size_t)(s->ptr - start.ptr) - 2 : 0);
        return ok;
    }
    bool ok = take_atom(s);
    *bytes = tb_slice(start.ptr, (size_t)(s->ptr - start.ptr));
    return ok;
}

/* Any value, lists of lists included. In a list: no space behind "(" or before ")"; between elements one space, or none
 * between lists. */
static bool take_value(struct tb_slice *s)
{
    uint64_t depth = 0;
    bool first = true; /* just behind "(" */
    do {
        struct tb_slice bytes;
        if (s->len > 0 && *s->ptr == ')' && depth > 0) {
            *s = tb_slice(s->ptr + 1, s->len - 1);
            depth--;
            first = false;
            continue;
        }
        if (depth > 0 && !first && !take(s, " ") && (s->len == 0 || *s->ptr != '(' || s->ptr[-1] != ')'))
            return false;
        if (take(s, "(")) {
            depth++;
            first = true;
            continue;
        }
        if (!take_scalar(s, &bytes))
            return false;
        first = false;
    } while (depth > 0);
    return true;
}

int bench_imap_list_count(struct tb_slice s)
{
    int n = 0;
    if (!take(&s, "("))
        return -1;
    while (!take(&s, ")")) {
        if (n > 0 && !take(&s, " ") && (s.len == 0 || *s.ptr != '('))
            return -1;
        if (!take_value(&s))
            return -1;
        n++;
    }
    return s.len == 0 ? n : -1;
}

/* The name of a FETCH item, BODY[...] with its section and partial (those hold spaces and parentheses). */
static bool take_item_name(struct tb_slice *s, struct tb_slice *name)
{
    struct tb_slice start = *s;
    size_t n = 0;
    while (n < s->len && is_atom_char(s->ptr[n]) && s->ptr[n] != '[')
        n++;
    if (n < s->len && s->ptr[n] == '[') {
        const char *close = memchr(s->ptr + n, ']', s->len - n);
        if (close == NULL)
            return false;
        n = (size_t)(close - s->ptr) + 1;
        while (n < s->len && is_atom_char(s->ptr[n])) /* <origin> */
            n++;
    }
    *name = tb_slice(start.ptr, n);
    *s = tb_slice(s->ptr + n, s->len - n);
    return n > 0;
}

static struct tb_slice *item_slot(struct bench_fetch *f, struct tb_slice name)
{
    if (tb_slice_ieq(name, TB_SLICE("UID")))
        return &f->uid;
    if (tb_slice_ieq(name, TB_SLICE("FLAGS")))
        return &f->flags;
    if (tb_slice_ieq(name, TB_SLICE("RFC822.SIZE")))
        return &f->size;
    if (tb_slice_ieq(name, TB_SLICE("ENVELOPE")))
        return &f->envelope;
    if (tb_slice_ieq(name, TB_SLICE("BODYSTRUCTURE")))
        return &f->bodystructure;
    return NULL;
}

static bool take_fetch_start(struct tb_slice *s)
{
    uint64_t seqno;
    return take(s, "* ") && take_number(s, &seqno) && seqno > 0 && seqno <= UINT32_MAX && take(s, " FETCH (");
}

bool bench_imap_is_fetch(struct tb_slice text)
{
    return take_fetch_start(&text) && text.len > 0 && text.ptr[text.len - 1] == ')';
}

bool bench_imap_parse_fetch(struct tb_slice s, struct bench_fetch *f)
{
    *f = (struct bench_fetch){0};
    if (!take_fetch_start(&s))
        return false;
    do {
        struct tb_slice name, start;
        if (!take_item_name(&s, &name) || !take(&s, " "))
            return false;
        start = s;
        if (tb_slice_ieq(name, TB_SLICE("BODY[]"))) {
            if (!take_scalar(&s, &f->body))
                return false;
            f->has_body = true;
            continue;
        }
        if (!take_value(&s))
            return false;
        struct tb_slice *slot = item_slot(f, name);
        if (slot != NULL)
            *slot = tb_slice(start.ptr, (size_t)(s.ptr - start.ptr));
    } while (take(&s, " "));
    return take(&s, ")") && s.len == 0;
}

/* ---- the session ---- */

static void put_quoted(struct tb_buf *out, const char *text)
{
    tb_buf_char(out, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            tb_buf_char(out, '\\');
        tb_buf_char(out, *text);
    }
    tb_buf_char(out, '"');
}

static void put_tag(struct bench_client *c)
{
    c->imap.tag++;
    tb_buf_char(&c->out, 'a');
    tb_buf_u64(&c->out, c->imap.tag);
    tb_buf_char(&c->out, ' ');
}

void bench_imap_command(struct bench_client *c, const char *text)
{
    put_tag(c);
    tb_buf_str(&c->out, text);
    tb_buf_str(&c->out, "\r\n");
    bench_client_send(c);
}

void bench_imap_open(struct bench_client *c)
{
    c->literals = true;
    c->imap = (struct bench_imap){.state = BENCH_IMAP_GREETING};
}

void bench_imap_close(struct bench_client *c)
{
    free(c->imap.uids);
    c->imap = (struct bench_imap){0};
}

void bench_imap_leave(struct bench_client *c)
{
    put_tag(c);
    tb_buf_str(&c->out, "LOGOUT\r\n");
}

/* The reply begins with our tag: what comes behind it. */
static bool own_tag(const struct bench_client *c, struct tb_slice *rest)
{
    uint64_t tag;
    struct tb_slice s = c->reply.text;
    if (!take(&s, "a") || !take_number(&s, &tag) || tag != c->imap.tag || !take(&s, " "))
        return false;
    *rest = s;
    return true;
}

bool bench_imap_tagged(const struct bench_client *c)
{
    struct tb_slice rest;
    return own_tag(c, &rest) && tb_slice_istarts(rest, TB_SLICE("OK"));
}

static bool add_uid(struct bench_imap *m, uint64_t uid)
{
    if (m->uid_n == m->uid_cap) {
        size_t cap = m->uid_cap ? m->uid_cap * 2 : 1024;
        uint32_t *v = cap <= UIDS_MAX ? realloc(m->uids, cap * sizeof *v) : NULL;
        if (v == NULL)
            return false;
        m->uids = v;
        m->uid_cap = cap;
    }
    m->uids[m->uid_n++] = (uint32_t)uid;
    return true;
}

static bool read_uid(struct bench_client *c)
{
    struct bench_fetch f;
    uint64_t uid;
    return bench_imap_parse_fetch(c->reply.text, &f) && tb_slice_u64(f.uid, UINT32_MAX, &uid) && uid > 0 &&
           add_uid(&c->imap, uid);
}

static void read_untagged(struct bench_client *c)
{
    struct tb_slice s = c->reply.text;
    uint64_t n;
    (void)take(&s, "* "); /* the caller saw it */
    if (bench_imap_is_fetch(c->reply.text)) {
        if (!read_uid(c))
            bench_client_wrong(c, "malformed FETCH response", tb_slice_sub(c->reply.text, 0, 80));
    } else if (take_number(&s, &n) && tb_slice_ieq(s, TB_SLICE(" EXISTS"))) {
        c->imap.exists = (uint32_t)n;
    }
}

static void next_state(struct bench_client *c)
{
    const struct bench_options *o = &c->thread->bench->options;
    switch (c->imap.state++) {
    case BENCH_IMAP_GREETING:
        put_tag(c);
        tb_buf_str(&c->out, "LOGIN ");
        put_quoted(&c->out, c->user->name);
        tb_buf_char(&c->out, ' ');
        put_quoted(&c->out, c->user->password);
        break;
    case BENCH_IMAP_LOGIN:
        put_tag(c);
        tb_buf_str(&c->out, "SELECT ");
        put_quoted(&c->out, o->mailbox);
        break;
    case BENCH_IMAP_SELECT:
        if (c->imap.exists == 0) {
            bench_client_lost(c, "the mailbox is empty; run deliver first", tb_slice_str(c->user->name));
            return;
        }
        put_tag(c);
        tb_buf_str(&c->out, "FETCH 1:* (UID)");
        break;
    default:
        if (c->imap.uid_n != c->imap.exists)
            bench_client_wrong(c, "fewer or more messages than EXISTS says", (struct tb_slice){0});
        else
            bench_client_ready(c);
        return;
    }
    tb_buf_str(&c->out, "\r\n");
    bench_client_send(c);
}

bool bench_imap_common(struct bench_client *c)
{
    struct tb_slice text = c->reply.text, rest;
    bool opening = c->imap.state != BENCH_IMAP_READY;
    if (tb_slice_istarts(text, TB_SLICE("* BYE"))) {
        bench_client_lost(c, "the server said", text);
    } else if (c->imap.state == BENCH_IMAP_GREETING) {
        if (tb_slice_istarts(text, TB_SLICE("* OK")))
            next_state(c);
        else
            bench_client_lost(c, "no IMAP greeting", text);
    } else if (tb_slice_istarts(text, TB_SLICE("* "))) {
        if (opening)
            read_untagged(c);
        return opening;
    } else if (!own_tag(c, &rest)) {
        bench_client_wrong(c, "neither untagged nor our tag", tb_slice_sub(text, 0, 80));
    } else if (!tb_slice_istarts(rest, TB_SLICE("OK"))) {
        if (opening) {
            bench_client_lost(c, "refused", text);
        } else {
            bench_client_note(c, "refused", text);
            bench_client_next(c);
        }
    } else if (opening) {
        next_state(c);
    } else {
        return false;
    }
    return true;
}
