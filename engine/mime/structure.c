/*
 * structure.c: what an entity is, told from its header; the bodystructure text; its non-extensible form.
 *
 * The text grows in two steps: pieces per entity while the message passes, joined at the end when sizes are known. Its
 * size is bounded by promise: part.c asks for each piece's cost before it keeps it (TB_MIME_TEXT_MAX). No recursion:
 * the tree is an array in preorder and a stack of open entities. RFC 9051 7.5.2 (BODYSTRUCTURE) and section 9, RFC
 * 2045, RFC 2046.
 */
#include "engine/mime/mime.h"

/* ---- pieces ---- */

static enum tb_encoding encoding_of(struct tb_slice token)
{
    static const struct {
        const char *name;
        enum tb_encoding encoding;
    } known[] = {{"7bit", TB_ENC_7BIT},
                 {"8bit", TB_ENC_8BIT},
                 {"binary", TB_ENC_BINARY},
                 {"quoted-printable", TB_ENC_QP},
                 {"base64", TB_ENC_BASE64}};
    if (token.len == 0)
        return TB_ENC_7BIT;
    for (size_t i = 0; i < TB_ARRAY_LEN(known); i++) {
        if (tb_slice_ieq(token, tb_slice_str(known[i].name)))
            return known[i].encoding;
    }
    return TB_ENC_UNKNOWN;
}

static void put_lower(struct tb_buf *out, struct tb_mime_scratch *s, struct tb_slice token)
{
    s->text.len = 0;
    for (size_t i = 0; i < token.len; i++)
        tb_mime_put_char(&s->text, tb_mime_lower(token.ptr[i]));
    tb_mime_string(out, tb_buf_all(&s->text));
}

/* " value" of a field, NIL if it is absent or empty. */
static void put_field(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f,
                      enum tb_mime_field id)
{
    tb_mime_put_char(out, ' ');
    if (f->value[id].ptr == NULL || tb_slice_trim(f->value[id]).len == 0)
        tb_mime_put(out, "NIL", 3);
    else
        tb_mime_raw_string(out, &s->text, f->value[id]);
}

/* body-fld-dsp */
static void put_disposition(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f)
{
    struct tb_slice rest = f->value[MIME_CONTENT_DISPOSITION], token = {NULL, 0};
    tb_mime_put_char(out, ' ');
    if (rest.ptr != NULL)
        token = tb_mime_token(&rest);
    if (token.len == 0 || token.len > MIME_TOKEN_MAX) {
        tb_mime_put(out, "NIL", 3);
        return;
    }
    tb_mime_put_char(out, '(');
    put_lower(out, s, token);
    tb_mime_put_char(out, ' ');
    tb_mime_params_write(out, s, tb_mime_params_read(s, rest));
    tb_mime_put_char(out, ')');
}

/* body-fld-lang: one tag is a string, several are a list. RFC 3282. */
static void put_language(struct tb_buf *out, const struct tb_mime_fields *f)
{
    struct tb_slice rest = f->value[MIME_CONTENT_LANGUAGE];
    size_t begin = out->len + 1, n = 0;
    tb_mime_put(out, " (", 2);
    while (rest.len > 0 && n < MIME_PARAMS_MAX) {
        struct tb_slice token = tb_mime_token(&rest);
        if (token.len > 0 && token.len <= MIME_TOKEN_MAX) {
            if (n++ > 0)
                tb_mime_put_char(out, ' ');
            tb_mime_string(out, token);
        } else if (token.len == 0 && rest.len > 0) {
            rest = tb_slice_sub(rest, 1, rest.len);
        }
    }
    if (out->failed)
        return;
    if (n == 0) {
        out->len = begin;
        tb_mime_put(out, "NIL", 3);
    } else if (n == 1) {
        memmove(out->ptr + begin, out->ptr + begin + 1, out->len - begin - 1);
        out->len--;
    } else {
        tb_mime_put_char(out, ')');
    }
}

static void put_extension(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_fields *f)
{
    put_disposition(out, s, f);
    put_language(out, f);
    put_field(out, s, f, MIME_CONTENT_LOCATION);
}

struct media {                           /* a Content-Type as it will be told */
    struct tb_slice type, subtype, rest; /* rest: the parameters' text */
    bool charset_default;                /* no usable field: text/plain; charset=us-ascii, RFC 2045 5.2 */
};

static struct media media_default(bool message)
{
    if (message)
        return (struct media){TB_SLICE("message"), TB_SLICE("rfc822"), TB_SLICE(""), false};
    return (struct media){TB_SLICE("text"), TB_SLICE("plain"), TB_SLICE(""), true};
}

static struct media media_of(const struct tb_mime_fields *f, bool by_default_message)
{
    struct tb_slice rest = f->value[MIME_CONTENT_TYPE];
    if (rest.ptr == NULL)
        return media_default(by_default_message);
    struct media m = {.type = tb_mime_token(&rest)};
    bool bare_text = tb_slice_ieq(m.type, TB_SLICE("text"));
    struct tb_slice after = rest, none = tb_mime_token(&after); /* skips blanks and comments before the slash */
    if (none.len == 0 && after.len > 0 && after.ptr[0] == '/') {
        rest = tb_slice_sub(after, 1, after.len);
        m.subtype = tb_mime_token(&rest);
    }
    if (m.subtype.len == 0 && bare_text)
        m.subtype = TB_SLICE("plain");
    if (m.type.len == 0 || m.subtype.len == 0 || m.type.len > MIME_TOKEN_MAX || m.subtype.len > MIME_TOKEN_MAX)
        return media_default(false);
    m.rest = rest;
    return m;
}

static void set_charset(struct tb_mime *m, struct tb_mime_part *part, size_t params)
{
    struct tb_buf *value = &m->scratch.value;
    value->len = 0;
    if (!tb_mime_param_get(&m->scratch, params, TB_SLICE("charset"), value))
        return;
    struct tb_slice name = tb_slice_trim(tb_buf_all(value));
    if (name.len == 0 || name.len > MIME_CHARSET_MAX)
        return;
    part->charset = (struct tb_mime_piece){(uint32_t)m->pieces.len, (uint32_t)name.len};
    for (size_t i = 0; i < name.len; i++)
        tb_mime_put_char(&m->pieces, tb_mime_lower(name.ptr[i]));
}

/* The boundary, or empty if there is none that can be used. Left in scratch->value. */
static struct tb_slice boundary_of(struct tb_mime_scratch *s, size_t params)
{
    s->value.len = 0;
    if (!tb_mime_param_get(s, params, TB_SLICE("boundary"), &s->value))
        return TB_SLICE("");
    struct tb_slice b = tb_buf_all(&s->value);
    while (b.len > 0 && (b.ptr[b.len - 1] == ' ' || b.ptr[b.len - 1] == '\t'))
        b.len--;
    return b.len > MIME_BOUNDARY_MAX ? TB_SLICE("") : b;
}

/* type subtype params id description encoding */
static void put_head(struct tb_mime *m, const struct tb_mime_fields *f, const struct media *media, size_t params,
                     struct tb_slice encoding)
{
    struct tb_buf *out = &m->pieces;
    put_lower(out, &m->scratch, media->type);
    tb_mime_put_char(out, ' ');
    put_lower(out, &m->scratch, media->subtype);
    tb_mime_put_char(out, ' ');
    if (media->charset_default)
        tb_buf_str(out, "(\"charset\" \"us-ascii\")");
    else
        tb_mime_params_write(out, &m->scratch, params);
    put_field(out, &m->scratch, f, MIME_CONTENT_ID);
    put_field(out, &m->scratch, f, MIME_CONTENT_DESCRIPTION);
    tb_mime_put_char(out, ' ');
    put_lower(out, &m->scratch, encoding);
}

/* Which kind the entity is, once it is known whether it may have children; media and encoding change for opaque leaves.
 */
static enum tb_part_kind kind_of(struct media *media, enum tb_encoding encoding, bool may_nest,
                                 struct tb_slice boundary)
{
    if (tb_slice_ieq(media->type, TB_SLICE("multipart"))) {
        if (boundary.len > 0 && may_nest)
            return TB_PART_MULTIPART;
        if (boundary.len == 0) {
            *media = media_default(false);
            return TB_PART_TEXT;
        }
    } else if (tb_slice_ieq(media->type, TB_SLICE("message")) &&
               (tb_slice_ieq(media->subtype, TB_SLICE("rfc822")) || tb_slice_ieq(media->subtype, TB_SLICE("global")))) {
        if (may_nest && encoding <= TB_ENC_BINARY)
            return TB_PART_MESSAGE;
    } else {
        return tb_slice_ieq(media->type, TB_SLICE("text")) ? TB_PART_TEXT : TB_PART_LEAF;
    }
    media->type = TB_SLICE("application");
    media->subtype = TB_SLICE("octet-stream");
    return TB_PART_LEAF;
}

static struct tb_slice encoding_token(const struct tb_mime_fields *f)
{
    struct tb_slice rest = f->value[MIME_CONTENT_ENCODING];
    struct tb_slice token = rest.ptr == NULL ? TB_SLICE("") : tb_mime_token(&rest);
    if (token.len == 0 || token.len > MIME_TOKEN_MAX)
        token = TB_SLICE("7bit");
    return token;
}

void tb_mime_describe(struct tb_mime *m, const struct tb_mime_fields *f, bool by_default_message, bool may_nest,
                      struct tb_mime_part *part, struct tb_mime_content *out)
{
    struct tb_slice encoding = encoding_token(f), boundary = TB_SLICE("");
    struct media media = media_of(f, by_default_message);
    size_t params = tb_mime_params_read(&m->scratch, media.rest);
    *out = (struct tb_mime_content){.encoding = encoding_of(encoding)};
    if (tb_slice_ieq(media.type, TB_SLICE("multipart")))
        boundary = boundary_of(&m->scratch, params);
    out->kind = kind_of(&media, out->encoding, may_nest, boundary);
    out->digest = out->kind == TB_PART_MULTIPART && tb_slice_ieq(media.subtype, TB_SLICE("digest"));
    struct tb_buf *b = &m->pieces;
    if (out->kind == TB_PART_TEXT && !media.charset_default)
        set_charset(m, part, params);
    part->head.at = (uint32_t)b->len;
    if (out->kind != TB_PART_MULTIPART)
        put_head(m, f, &media, params, encoding);
    part->head.len = (uint32_t)b->len - part->head.at;
    part->tail.at = (uint32_t)b->len;
    if (out->kind == TB_PART_MULTIPART) {
        tb_mime_put_char(b, ' ');
        put_lower(b, &m->scratch, media.subtype);
        tb_mime_put_char(b, ' ');
        tb_mime_params_write(b, &m->scratch, params);
    } else {
        put_field(b, &m->scratch, f, MIME_CONTENT_MD5);
    }
    put_extension(b, &m->scratch, f);
    part->tail.len = (uint32_t)b->len - part->tail.at;
    if (out->kind == TB_PART_MULTIPART) { /* the writers above used the scratch: read the boundary again */
        params = tb_mime_params_read(&m->scratch, media.rest);
        out->boundary = boundary_of(&m->scratch, params);
    }
}

void tb_mime_describe_opaque(struct tb_mime *m, struct tb_mime_part *part)
{
    static const char head[] = "\"application\" \"octet-stream\" NIL NIL NIL \"7bit\"", tail[] = " NIL NIL NIL NIL";
    part->charset = (struct tb_mime_piece){0, 0};
    part->head = (struct tb_mime_piece){(uint32_t)m->pieces.len, sizeof(head) - 1};
    tb_mime_put(&m->pieces, head, sizeof(head) - 1);
    part->tail = (struct tb_mime_piece){(uint32_t)m->pieces.len, sizeof(tail) - 1};
    tb_mime_put(&m->pieces, tail, sizeof(tail) - 1);
}

size_t tb_mime_text_cost(const struct tb_mime_part *part)
{
    /* Two parentheses, four blanks, octets and lines of 10 digits; a childless multipart becomes text/plain of under
     * 128 bytes. */
    enum { AROUND = 26, CHILDLESS = 128 };
    size_t own = (size_t)part->head.len + part->tail.len;
    if (part->kind == TB_PART_MULTIPART && own < CHILDLESS)
        own = CHILDLESS;
    return own + part->envelope.len + AROUND;
}

/* ---- the whole text ---- */

static void put_piece(struct tb_mime *m, struct tb_mime_piece p)
{
    tb_mime_put(&m->bodystructure, m->pieces.ptr + p.at, p.len);
}

static void put_number(struct tb_mime *m, uint64_t v)
{
    tb_mime_put_char(&m->bodystructure, ' ');
    tb_buf_u64(&m->bodystructure, v);
}

static void open_part(struct tb_mime *m, const struct tb_mime_part *p)
{
    struct tb_buf *out = &m->bodystructure;
    uint64_t octets = p->end - p->body_offset;
    tb_mime_put_char(out, '(');
    if (p->kind == TB_PART_MULTIPART)
        return;
    put_piece(m, p->head);
    put_number(m, octets > UINT32_MAX ? UINT32_MAX : octets); /* body-fld-octets = number: 32 bits */
    if (p->kind == TB_PART_MESSAGE) {
        tb_mime_put_char(out, ' ');
        put_piece(m, p[1].envelope);
        tb_mime_put_char(out, ' ');
        return;
    }
    if (p->kind == TB_PART_TEXT)
        put_number(m, p->lines);
    put_piece(m, p->tail);
    tb_mime_put_char(out, ')');
}

static void close_part(struct tb_mime *m, const struct tb_mime_part *p)
{
    if (p->kind == TB_PART_MESSAGE)
        put_number(m, p->lines);
    put_piece(m, p->tail);
    tb_mime_put_char(&m->bodystructure, ')');
}

void tb_mime_structure_write(struct tb_mime *m)
{
    uint32_t open[TB_MIME_DEPTH_MAX], depth = 0;
    m->bodystructure.len = 0;
    for (uint32_t i = 0; i < m->parts_n; i++) {
        const struct tb_mime_part *p = &m->parts[i];
        while (depth > 0 && open[depth - 1] != p->parent)
            close_part(m, &m->parts[open[--depth]]);
        open_part(m, p);
        if (p->children > 0)
            open[depth++] = i;
    }
    while (depth > 0)
        close_part(m, &m->parts[open[--depth]]);
}

/* ---- BODY from BODYSTRUCTURE ---- */

struct walker {
    const char *p, *end;
    struct tb_buf *out; /* NULL: skip */
    bool bad;
};

static void step(struct walker *w, size_t n)
{
    if ((size_t)(w->end - w->p) < n) {
        w->bad = true;
        w->p = w->end;
        return;
    }
    if (w->out != NULL)
        tb_mime_put(w->out, w->p, n);
    w->p += n;
}

static char peek(const struct walker *w)
{
    return w->p < w->end ? *w->p : 0;
}

static void expect(struct walker *w, char c)
{
    if (peek(w) != c)
        w->bad = true;
    else
        step(w, 1);
}

static void copy_literal(struct walker *w)
{
    const char *close = memchr(w->p, '}', (size_t)(w->end - w->p));
    uint64_t n;
    if (close == NULL || w->end - close < 3 || close[1] != '\r' || close[2] != '\n' ||
        !tb_slice_u64(tb_slice(w->p + 1, (size_t)(close - w->p - 1)), UINT32_MAX, &n))
        w->bad = true;
    else
        step(w, (size_t)(close + 3 - w->p) + (size_t)n);
}

static void copy_quoted(struct walker *w)
{
    const char *q = w->p + 1;
    while (q < w->end && *q != '"')
        q += *q == '\\' ? 2 : 1;
    if (q >= w->end)
        w->bad = true;
    else
        step(w, (size_t)(q + 1 - w->p));
}

/* One atom, string or parenthesised list of anything: lists by counting. */
static void copy_value(struct walker *w)
{
    size_t depth = 0;
    do {
        char c = peek(w);
        if (c == '(') {
            depth++;
            step(w, 1);
        } else if (c == ')' && depth > 0) {
            depth--;
            step(w, 1);
        } else if (c == '"') {
            copy_quoted(w);
        } else if (c == '{') {
            copy_literal(w);
        } else if (c == ' ' && depth > 0) {
            step(w, 1);
        } else {
            const char *q = w->p;
            while (q < w->end && memchr(" ()\"{", *q, 5) == NULL)
                q++;
            if (q == w->p)
                w->bad = true;
            step(w, (size_t)(q - w->p));
        }
    } while (depth > 0 && !w->bad);
}

static void copy_more(struct walker *w, int values)
{
    while (values-- > 0 && !w->bad) {
        expect(w, ' ');
        copy_value(w);
    }
}

/* Extension data up to the ')' that closes the body; only the ')' is copied. */
static void close_body(struct walker *w)
{
    struct tb_buf *out = w->out;
    w->out = NULL;
    while (peek(w) == ' ' && !w->bad)
        copy_more(w, 1);
    w->out = out;
    expect(w, ')');
}

/* The type or subtype at s, quoted as this room writes it, is this word. */
static bool quoted_is(struct tb_slice s, struct tb_slice word)
{
    return s.len == word.len + 2 && tb_slice_ieq(tb_slice(s.ptr + 1, word.len), word);
}

/* "type" "subtype" params id desc enc octets [lines]; true: a message, whose body is still to come. */
static bool copy_single(struct walker *w)
{
    const char *at = w->p;
    copy_value(w);
    struct tb_slice type = tb_slice(at, (size_t)(w->p - at));
    expect(w, ' ');
    at = w->p;
    copy_value(w);
    struct tb_slice subtype = tb_slice(at, (size_t)(w->p - at));
    bool message = quoted_is(type, TB_SLICE("message")) &&
                   (quoted_is(subtype, TB_SLICE("rfc822")) || quoted_is(subtype, TB_SLICE("global")));
    copy_more(w, message ? 6 : quoted_is(type, TB_SLICE("text")) ? 6 : 5);
    return message && !w->bad;
}

enum tb_rc tb_body_write(struct tb_slice bodystructure, struct tb_buf *out)
{
    struct walker w = {.p = bodystructure.ptr, .end = bodystructure.ptr + bodystructure.len, .out = out};
    enum { MULTIPART = 1, MESSAGE = 2 };
    uint8_t open[TB_MIME_DEPTH_MAX];
    uint32_t depth = 0;
    size_t before = out->len;
    do {
        if (peek(&w) == '(' && depth < TB_MIME_DEPTH_MAX) {
            step(&w, 1);
            if (peek(&w) == '(') {
                open[depth++] = MULTIPART;
            } else if (copy_single(&w)) {
                expect(&w, ' ');
                open[depth++] = MESSAGE;
            } else {
                close_body(&w);
            }
        } else if (depth > 0 && open[depth - 1] == MULTIPART && peek(&w) == ' ') {
            copy_more(&w, 1); /* the subtype */
            close_body(&w);
            depth--;
        } else {
            w.bad = true;
        }
        while (depth > 0 && !w.bad && open[depth - 1] == MESSAGE && peek(&w) == ' ') {
            copy_more(&w, 1); /* the lines */
            close_body(&w);
            depth--;
        }
    } while (depth > 0 && !w.bad);
    if (!w.bad && w.p == w.end)
        return TB_OK;
    out->len = before;
    return TB_CORRUPT;
}
