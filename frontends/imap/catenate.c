/*
 * catenate.c: what an IMAP URL names, for CATENATE: a message of a mailbox that this session's user may read, or a part
 * of one, byte for byte as FETCH BODY.PEEK[...] has it.
 *
 * The URL is looked up by an errand on the owner of its mailbox (place.c); the body it opens there is read from here,
 * through messages if that is another worker, 1 MiB at most at a time. \Seen is not set, and P3 holds: what may not be
 * looked up is answered as what is not there. Invariant: struct imap_source outlives the session while a read is under
 * way (I4). Thread: the connection's owner; work_open: the account's. RFC 4469 3, 4.1; 5092 5, 7, 11 (URLs).
 */
#include "imap_fetch.h"

#include <stdlib.h>

/* ---- the URL ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* unescaped: %xx undone. ptr NULL: it is not well formed, or there is no memory. */
static struct tb_slice unescaped(struct tb_slice s, struct tb_arena *arena)
{
    char *buf = tb_arena_alloc(arena, s.len + 1), *o = buf;
    for (size_t i = 0; buf && i < s.len; i++) {
        if (s.ptr[i] != '%') {
            *o++ = s.ptr[i];
            continue;
        }
        int high = s.len - i > 2 ? hex(s.ptr[i + 1]) : -1, low = s.len - i > 2 ? hex(s.ptr[i + 2]) : -1;
        if (high < 0 || low < 0 || high + low == 0)
            return (struct tb_slice){0};
        *o++ = (char)(high * 16 + low);
        i += 2;
    }
    return tb_slice(buf, buf ? (size_t)(o - buf) : 0);
}

/* take: text from the beginning of *s, in any case. */
static bool take(struct tb_slice *s, const char *text)
{
    size_t n = strlen(text);
    if (!tb_slice_istarts(*s, tb_slice_str(text)))
        return false;
    *s = tb_slice_sub(*s, n, s->len);
    return true;
}

/* take_until: what stands before the first ';', with one '/' directly before it left out; the ';' stays. */
static struct tb_slice take_until(struct tb_slice *s)
{
    const char *semi = s->len > 0 ? memchr(s->ptr, ';', s->len) : NULL;
    size_t n = semi ? (size_t)(semi - s->ptr) : s->len;
    struct tb_slice head = tb_slice_sub(*s, 0, n);
    *s = tb_slice_sub(*s, n, s->len);
    if (head.len > 0 && head.ptr[head.len - 1] == '/')
        head.len--;
    return head;
}

/* take_number: nz-number, or number with zero. */
static bool take_number(struct tb_slice *s, bool zero, uint32_t *out)
{
    size_t n = 0;
    uint64_t v;
    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    if (n == 0 || !tb_slice_u64(tb_slice_sub(*s, 0, n), UINT32_MAX, &v) || (v == 0 && !zero))
        return false;
    *s = tb_slice_sub(*s, n, s->len);
    *out = (uint32_t)v;
    return true;
}

/* section: enc-section, and a partial-range behind it: read as FETCH reads "[section]". */
static bool section(struct tb_slice spec, bool partial, uint32_t offset, uint32_t count, struct tb_arena *arena,
                    struct imap_url *out)
{
    struct imap_parser p;
    struct tb_buf b;
    tb_buf_init(&b, 64 << 10);
    tb_buf_char(&b, '[');
    tb_buf_slice(&b, spec);
    tb_buf_char(&b, ']');
    struct tb_slice text = b.failed ? (struct tb_slice){0} : tb_arena_copy(arena, tb_buf_all(&b));
    tb_buf_free(&b);
    out->section = tb_arena_alloc(arena, sizeof *out->section);
    if (!text.ptr || !out->section)
        return false;
    imap_parser_init(&p, text, arena);
    imap_section_parse(&p, WANT_BODY, true, out->section);
    out->section->partial = partial;
    out->section->offset = offset;
    out->section->count = count;
    return !p.failed && p.p == p.end;
}

/* mailbox_of: the name of a path; relative ones lie beside the base (RFC 3986 5.2.3). */
static bool mailbox_of(struct tb_slice path, bool absolute, struct tb_slice base, struct tb_arena *arena,
                       struct tb_slice *out)
{
    struct imap_parser p;
    *out = (struct tb_slice){"", 0};
    if (path.len == 0)
        return true;
    struct tb_slice name = unescaped(path, arena);
    if (!name.ptr)
        return false;
    const char *slash = !absolute && base.len > 0 ? memrchr(base.ptr, '/', base.len) : NULL;
    if (slash) {
        size_t n = (size_t)(slash - base.ptr) + 1;
        char *joined = tb_arena_alloc(arena, n + name.len);
        if (!joined)
            return false;
        memcpy(joined, base.ptr, n);
        memcpy(joined + n, name.ptr, name.len);
        name = tb_slice(joined, n + name.len);
    }
    imap_parser_init(&p, name, arena);
    p.utf8 = true; /* RFC 5092 5: names are UTF-8 in URLs */
    *out = imap_mailbox_of(&p, name);
    return !p.failed;
}

bool imap_url_parse(struct tb_slice text, struct tb_slice base, struct tb_arena *arena, struct imap_url *out)
{
    struct tb_slice s = text, spec = {"", 0};
    uint32_t offset = 0, count = UINT32_MAX;
    *out = (struct imap_url){0};
    bool absolute = take(&s, "imap:///") || (!tb_slice_istarts(s, TB_SLICE("//")) && take(&s, "/"));
    struct tb_slice path = take_until(&s);
    const char *slash = path.len > 0 ? memchr(path.ptr, '/', path.len) : NULL;
    if (!absolute && path.len > 0 && memchr(path.ptr, ':', slash ? (size_t)(slash - path.ptr) : path.len))
        return false; /* another scheme: RFC 3986 4.2 */
    if (!mailbox_of(path, absolute, base, arena, &out->mailbox) || (path.len == 0 && base.len == 0))
        return false;
    if (path.len > 0 && take(&s, ";UIDVALIDITY=") && (!take_number(&s, false, &out->uidvalidity) || !take(&s, "/")))
        return false;
    if (!take(&s, ";UID=") || !take_number(&s, false, &out->uid))
        return false;
    bool has_section = take(&s, "/;SECTION=");
    if (has_section) {
        spec = take_until(&s);
        if (s.len > 0)
            s = tb_slice(s.ptr - 1, s.len + 1); /* the '/' before ";PARTIAL" */
        spec = unescaped(spec, arena);
    }
    bool partial = take(&s, "/;PARTIAL=");
    if (partial && (!take_number(&s, true, &offset) || (take(&s, ".") && !take_number(&s, false, &count))))
        return false;
    if (s.len > 0 || (has_section && spec.len == 0))
        return false;
    return !(has_section || partial) || section(spec, partial, offset, count, arena, out);
}

/* ---- the source ---- */

struct found { /* what work_open says; errand's arena */
    struct imap_url url;
    struct imap_piece piece;
    bool scan; /* the table of parts is not kept: the message must be scanned */
};
enum source_phase { SOURCE_FIND, SOURCE_SCAN, SOURCE_GATHER, SOURCE_SIZED, SOURCE_READ, SOURCE_OVER };
struct imap_source {
    struct imap_session *s; /* borrowed; NULL: the connection is gone */
    struct tb_worker *w;
    struct imap_errand *e; /* owned: with the body */
    struct found *found;   /* e's */
    struct tb_mime *mime;  /* owned, while scanning */
    struct tb_buf fields;  /* of HEADER.FIELDS: the header, then what was asked for of it */
    struct tb_reach reach;
    struct tb_op op;
    bool reading, got; /* got: op says what was read, from at */
    uint64_t at;       /* of the piece */
    enum source_phase phase;
    bool bad;
};

static void source_free(struct imap_source *x)
{
    imap_errand_end(x->e);
    tb_mime_free(x->mime);
    tb_buf_free(&x->fields);
    free(x);
}

void imap_source_end(struct imap_source *x)
{
    if (x && x->reading)
        x->s = NULL; /* read_done frees it */
    else if (x)
        source_free(x);
}

static void read_done(struct tb_op *op)
{
    struct imap_source *x = op->user;
    x->reading = false;
    x->got = true;
    if (x->s)
        tb_conn_resume(x->s->conn);
    else
        source_free(x);
}

/* work_open: the message, if it may be read; and where in it the section lies. */
static void work_open(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct found *f = e->data;
    struct tb_cached texts = {0};
    struct tb_view *v;
    (void)w;
    if (!imap_errand_find(e, a, TB_RIGHT_READ))
        return;
    if (f->url.uidvalidity != 0 && f->url.uidvalidity != e->mailbox.uidvalidity)
        e->rc = TB_NOTFOUND;
    else
        e->rc = tb_view_open(a, e->mailbox.mbox, &v);
    if (e->rc != TB_OK)
        return;
    const struct imap_section *c = f->url.section;
    if (c && c->path_n > 0) {
        e->rc = tb_cached_get(v, f->url.uid, &texts);
        f->scan = e->rc == TB_BUSY || e->rc == TB_CORRUPT;
        e->rc = f->scan ? TB_OK : e->rc;
    }
    if (e->rc == TB_OK)
        e->rc = tb_body_open(v, f->url.uid, &e->body);
    if (e->rc != TB_OK)
        e->body = NULL;
    else if (!c)
        f->piece.size = tb_body_size(e->body);
    else if (!f->scan)
        imap_section_find(c, texts.parts, tb_body_header_size(e->body), tb_body_size(e->body), &f->piece);
    tb_view_close(v);
}

/* locate: whose mailbox; false: nobody's. */
static bool locate(struct imap_session *s, const struct imap_url *url, struct imap_place *where)
{
    if (url->mailbox.len > 0)
        return imap_locate(s, url->mailbox, where);
    *where = (struct imap_place){.id = s->seat, .own = imap_at_home(s)};
    return true;
}

/* selected_name: of the selected mailbox, as this user calls it; empty: there is none. */
static struct tb_slice selected_name(struct imap_session *s, struct tb_arena *arena)
{
    struct tb_mailbox m;
    if (!s->view || tb_mailbox_get(tb_view_account(s->view), tb_view_mbox(s->view), arena, &m) != TB_OK)
        return (struct tb_slice){"", 0};
    return m.name;
}

struct imap_source *imap_source_new(struct imap_session *s, struct tb_slice url)
{
    struct imap_source *x = calloc(1, sizeof *x);
    struct imap_place where = {.id = s->seat};
    if (!x)
        return NULL;
    x->s = s;
    x->w = tb_conn_worker(s->conn);
    tb_buf_init(&x->fields, 2 * TB_MIME_HEADER_MAX);
    if (!(x->e = imap_errand_new(s, &where)) || !(x->found = tb_arena_alloc(&x->e->arena, sizeof *x->found))) {
        source_free(x);
        return NULL;
    }
    *x->found = (struct found){0};
    struct imap_url *u = &x->found->url;
    struct tb_slice base = selected_name(s, &x->e->arena);
    bool beside = url.len > 0 && url.ptr[0] != '/' && !tb_slice_istarts(url, TB_SLICE("imap:///"));
    x->bad = !imap_url_parse(url, base, &x->e->arena, u) || !locate(s, u, &where) ||
             (beside && u->mailbox.len > 0 && !imap_at_home(s)); /* base is the owner's name of it */
    if (x->bad)
        return x;
    x->e->data = x->found;
    x->e->id = where.id;
    x->e->own = where.own;
    x->e->name = tb_arena_copy(&x->e->arena, u->mailbox.len > 0 ? where.name : base);
    if (x->e->arena.overflowed) {
        source_free(x);
        return NULL;
    }
    imap_errand_start(s, x->e, work_open);
    return x;
}

/* bytes_at: of the message; false: they are being read. */
static bool bytes_at(struct imap_source *x, uint64_t at, struct tb_slice *out, enum tb_rc *rc)
{
    if (!x->got) {
        x->reading = true;
        x->op = (struct tb_op){.done = read_done, .user = x};
        tb_body_reach(x->w, x->e->body, at, &x->reach, &x->op);
        return false;
    }
    x->got = false;
    *rc = x->op.rc == TB_OK && x->op.data.len == 0 ? TB_CORRUPT : x->op.rc;
    *out = x->op.data;
    return true;
}

/* scan: the whole message through the scanner, then the section is known. False: WAIT, or *rc. */
static bool scan(struct imap_source *x, enum tb_rc *rc)
{
    struct found *f = x->found;
    struct tb_mime_result r;
    struct tb_slice bytes;
    uint64_t size = tb_body_size(x->e->body);
    if (!x->mime && !(x->mime = tb_mime_new())) {
        *rc = TB_LIMIT;
        return false;
    }
    if (x->at < size) {
        if (!bytes_at(x, x->at, &bytes, rc) || *rc != TB_OK)
            return false;
        bytes = tb_slice_sub(bytes, 0, (size_t)(size - x->at < bytes.len ? size - x->at : bytes.len));
        tb_mime_feed(x->mime, bytes);
        x->at += bytes.len;
        return x->at < size;
    }
    if (tb_mime_finish(x->mime, &r) != TB_OK) {
        *rc = TB_LIMIT;
        return false;
    }
    imap_section_find(f->url.section, r.parts, r.header_size, size, &f->piece);
    f->scan = false;
    x->at = 0;
    return true;
}

/* gather: a header, whole; then what of it was asked for. False: WAIT, or *rc. */
static bool gather(struct imap_source *x, enum tb_rc *rc)
{
    const struct imap_section *c = x->found->url.section;
    const struct imap_piece *p = &x->found->piece;
    struct tb_slice bytes;
    struct tb_buf subset;
    if (x->fields.len < p->size) {
        if (!bytes_at(x, p->offset + x->fields.len, &bytes, rc) || *rc != TB_OK)
            return false;
        tb_buf_slice(&x->fields, tb_slice_sub(bytes, 0, (size_t)(p->size - x->fields.len)));
        *rc = x->fields.failed ? TB_LIMIT : TB_OK;
        return *rc == TB_OK;
    }
    tb_buf_init(&subset, 2 * TB_MIME_HEADER_MAX);
    tb_header_subset(tb_buf_all(&x->fields), c->fields, c->fields_n, c->kind == SECTION_FIELDS_NOT, &subset);
    tb_buf_free(&x->fields);
    x->fields = subset;
    if (c->partial) {
        tb_buf_consume(&x->fields, c->offset < x->fields.len ? c->offset : x->fields.len);
        x->fields.len = x->fields.len < c->count ? x->fields.len : c->count;
    }
    *rc = subset.failed ? TB_LIMIT : TB_OK;
    x->phase = SOURCE_SIZED;
    return *rc == TB_OK;
}

static bool is_fields(const struct imap_source *x)
{
    const struct imap_section *c = x->found->url.section;
    return c && (c->kind == SECTION_FIELDS || c->kind == SECTION_FIELDS_NOT);
}

/* found: the errand is over. */
static enum imap_source_said found(struct imap_source *x, enum tb_rc *rc)
{
    *rc = x->e->rc;
    x->phase = SOURCE_OVER;
    if (x->e->refusal || *rc == TB_NOTFOUND || *rc == TB_INVALID || x->found->piece.nil) {
        *rc = TB_OK;
        return SOURCE_BAD;
    }
    x->phase = x->found->scan ? SOURCE_SCAN : is_fields(x) ? SOURCE_GATHER : SOURCE_SIZED;
    return *rc == TB_OK ? SOURCE_SIZE : SOURCE_BAD;
}

static enum imap_source_said read_on(struct imap_source *x, struct tb_slice *bytes, enum tb_rc *rc)
{
    const struct imap_piece *p = &x->found->piece;
    x->phase = SOURCE_OVER;
    if (is_fields(x)) {
        *bytes = tb_buf_all(&x->fields);
        return bytes->len > 0 ? SOURCE_BYTES : SOURCE_END;
    }
    if (x->at >= p->size)
        return SOURCE_END;
    x->phase = SOURCE_READ;
    if (!bytes_at(x, p->offset + x->at, bytes, rc))
        return SOURCE_WAIT;
    if (*rc != TB_OK)
        return SOURCE_BAD;
    uint64_t left = p->size - x->at;
    *bytes = tb_slice_sub(*bytes, 0, left < bytes->len ? (size_t)left : bytes->len);
    x->at += bytes->len;
    return SOURCE_BYTES;
}

enum imap_source_said imap_source_next(struct imap_source *x, struct tb_slice *bytes, uint64_t *size, enum tb_rc *rc)
{
    *rc = TB_OK;
    if (x->bad)
        return SOURCE_BAD;
    for (;;) {
        if (x->reading || x->e->busy)
            return SOURCE_WAIT;
        switch (x->phase) {
        case SOURCE_FIND:
            if (found(x, rc) == SOURCE_BAD)
                return SOURCE_BAD;
            break;
        case SOURCE_SCAN:
            if (!scan(x, rc) && *rc != TB_OK)
                return SOURCE_BAD;
            if (!x->found->scan) {
                if (x->found->piece.nil)
                    return SOURCE_BAD;
                x->phase = is_fields(x) ? SOURCE_GATHER : SOURCE_SIZED;
            }
            break;
        case SOURCE_GATHER:
            if (!gather(x, rc) && *rc != TB_OK)
                return SOURCE_BAD;
            break;
        case SOURCE_SIZED:
            *size = is_fields(x) ? x->fields.len : x->found->piece.size;
            x->phase = SOURCE_READ;
            return SOURCE_SIZE;
        case SOURCE_READ:
            return read_on(x, bytes, rc);
        case SOURCE_OVER:
            return SOURCE_END;
        }
    }
}
