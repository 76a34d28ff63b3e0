/*
 * param.c: tokens and parameters of Content-Type, Content-Disposition and their kin.
 *
 * Continuations are joined (RFC 2231 3); percent encodings are kept, marked by a '*' behind the name (RFC 2231 4),
 * because IMAP clients decode them. At most MIME_PARAMS_MAX parameters are looked at. Pure. RFC 2045 5.1.
 */
#include "engine/mime/mime.h"

#include <stdlib.h>

enum { SECTION_MAX = 9999 };

static struct tb_slice skip_cfws(struct tb_slice s)
{
    const char *p = s.ptr, *end = p + s.len;
    while (p < end && (tb_mime_blank(*p) || *p == '('))
        p = *p == '(' ? tb_mime_skip_comment(p, end) : p + 1;
    return tb_slice(p, (size_t)(end - p));
}

/* RFC 2045 5.1 token. */
static bool token_char(char c)
{
    return c > ' ' && c < 127 && memchr("()<>@,;:\\\"/[]?=", c, 15) == NULL;
}

struct tb_slice tb_mime_token(struct tb_slice *s)
{
    *s = skip_cfws(*s);
    size_t n = 0;
    while (n < s->len && token_char(s->ptr[n]))
        n++;
    struct tb_slice token = tb_slice(s->ptr, n);
    *s = tb_slice_sub(*s, n, s->len);
    return token;
}

/* ---- reading ---- */

static bool all_digits(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    }
    return s.len > 0;
}

/* "name*3*" -> name, section 3, extended. Anything else stays as it is, its stars included. RFC 2231 3. */
static void split_name(struct tb_mime_param *p)
{
    struct tb_slice n = p->name;
    bool extended = n.len > 1 && n.ptr[n.len - 1] == '*';
    if (extended)
        n.len--;
    const char *star = n.len > 0 ? memrchr(n.ptr, '*', n.len) : NULL;
    uint64_t section;
    p->section = -1;
    if (star == NULL || star == n.ptr)
        return;
    struct tb_slice digits = tb_slice(star + 1, (size_t)(n.ptr + n.len - star - 1));
    if (!all_digits(digits) || (digits.ptr[0] == '0' && digits.len > 1) || !tb_slice_u64(digits, SECTION_MAX, &section))
        return;
    p->name.len = (size_t)(star - n.ptr);
    p->section = (int32_t)section;
    p->extended = extended;
}

/* The value behind '=': a quoted string, or everything up to ';' but for a comment set off by a blank. */
static void read_value(struct tb_slice *s, struct tb_mime_param *p)
{
    *s = skip_cfws(*s);
    const char *from = s->ptr, *q = from, *end = from + s->len;
    if (q < end && *q == '"') {
        for (q++; q < end && *q != '"'; q++)
            q += *q == '\\' && q + 1 < end;
        p->value = tb_slice(from + 1, (size_t)(q - from - 1));
        p->quoted = true;
        q += q < end;
    } else {
        while (q < end && *q != ';' && !(*q == '(' && q > from && tb_mime_blank(q[-1])))
            q++;
        p->value = tb_slice_trim(tb_slice(from, (size_t)(q - from)));
    }
    *s = tb_slice(q, (size_t)(end - q));
}

/* Behind the next ';' outside of comments and quotes. */
static struct tb_slice next_param(struct tb_slice s)
{
    const char *p = s.ptr, *end = p + s.len;
    while (p < end && *p != ';') {
        if (*p == '(') {
            p = tb_mime_skip_comment(p, end);
        } else if (*p++ == '"') {
            while (p < end && *p != '"')
                p += *p == '\\' && p + 1 < end ? 2 : 1;
            p += p < end;
        }
    }
    p += p < end;
    return tb_slice(p, (size_t)(end - p));
}

size_t tb_mime_params_read(struct tb_mime_scratch *scratch, struct tb_slice s)
{
    size_t n = 0;
    scratch->params.len = 0;
    if (s.len > 0 && s.ptr[0] != ';')
        s = next_param(s);
    while (s.len > 0 && n < MIME_PARAMS_MAX) {
        if (s.ptr[0] == ';')
            s = tb_slice(s.ptr + 1, s.len - 1);
        struct tb_mime_param p = {.section = -1, .order = (uint32_t)n};
        s = skip_cfws(s);
        size_t len = 0;
        while (len < s.len && !tb_mime_blank(s.ptr[len]) && memchr("=;(\"", s.ptr[len], 4) == NULL)
            len++;
        p.name = tb_slice(s.ptr, len);
        s = skip_cfws(tb_slice(s.ptr + len, s.len - len));
        if (len == 0 || s.len == 0 || s.ptr[0] != '=') {
            s = next_param(s);
            continue;
        }
        s = tb_slice(s.ptr + 1, s.len - 1);
        read_value(&s, &p);
        s = next_param(s);
        split_name(&p);
        tb_buf_put(&scratch->params, &p, sizeof(p));
        n++;
    }
    return scratch->params.failed ? 0 : n;
}

static const struct tb_mime_param *params_of(const struct tb_mime_scratch *s)
{
    return (const void *)s->params.ptr;
}

/* Append the value: unfolded, quoted pairs undone. */
static void put_value(struct tb_buf *out, const struct tb_mime_param *p)
{
    size_t before = out->len;
    tb_mime_unfold(out, tb_slice_sub(p->value, 0, MIME_STRING_MAX));
    if (!p->quoted || out->failed)
        return;
    size_t to = before;
    for (size_t i = before; i < out->len; i++) {
        if (out->ptr[i] == '\\' && i + 1 < out->len)
            i++;
        out->ptr[to++] = out->ptr[i];
    }
    out->len = to;
}

bool tb_mime_param_get(const struct tb_mime_scratch *s, size_t n, struct tb_slice name, struct tb_buf *out)
{
    const struct tb_mime_param *v = params_of(s);
    for (size_t i = 0; i < n; i++) {
        if (v[i].section < 0 && tb_slice_ieq(v[i].name, name)) {
            put_value(out, &v[i]);
            return true;
        }
    }
    return false;
}

/* ---- writing ---- */

static void put_name(struct tb_buf *out, struct tb_mime_scratch *s, struct tb_slice name, bool star)
{
    s->text.len = 0;
    for (size_t i = 0; i < name.len && i < MIME_STRING_MAX; i++)
        tb_mime_put_char(&s->text, name.ptr[i] == 0 ? '?' : tb_mime_lower(name.ptr[i]));
    if (star)
        tb_mime_put_char(&s->text, '*');
    tb_mime_string(out, tb_buf_all(&s->text));
    tb_mime_put_char(out, ' ');
}

/* RFC 2231 7 attribute-char. */
static bool attribute_char(char c)
{
    return token_char(c) && c != '*' && c != '\'' && c != '%';
}

/* A plain section among encoded ones is encoded too, or the join would not mean the same. */
static void put_encoded(struct tb_buf *out, struct tb_buf *scratch, const struct tb_mime_param *p)
{
    static const char hex[] = "0123456789ABCDEF";
    scratch->len = 0;
    put_value(scratch, p);
    for (size_t i = 0; i < scratch->len; i++) {
        unsigned char c = (unsigned char)scratch->ptr[i];
        char text[3] = {'%', hex[c >> 4], hex[c & 15]};
        if (attribute_char((char)c))
            tb_mime_put_char(out, (char)c);
        else
            tb_mime_put(out, text, 3);
    }
}

static int compare_sections(const void *a, const void *b)
{
    const struct tb_mime_param *x = a, *y = b;
    if ((x->section < 0) != (y->section < 0))
        return x->section < 0 ? -1 : 1; /* ordinary ones first, in their order */
    if (x->section >= 0) {
        if (x->name.len != y->name.len)
            return x->name.len < y->name.len ? -1 : 1;
        for (size_t i = 0; i < x->name.len; i++) {
            int d = (unsigned char)tb_mime_lower(x->name.ptr[i]) - (unsigned char)tb_mime_lower(y->name.ptr[i]);
            if (d != 0)
                return d;
        }
        if (x->section != y->section)
            return x->section < y->section ? -1 : 1;
    }
    return x->order < y->order ? -1 : 1;
}

/* The sections 0, 1, 2... at v[0..]: joined up to the first gap; a repeated number's first one counts. */
static void put_sections(struct tb_buf *out, struct tb_mime_scratch *s, const struct tb_mime_param *v, size_t n)
{
    bool extended = false;
    size_t used = 0;
    int32_t next = 0;
    for (; used < n && v[used].section <= next; used++) {
        if (v[used].section == next) {
            extended |= v[used].extended;
            next++;
        }
    }
    if (next == 0)
        return; /* without a first section nothing can be said about the others */
    put_name(out, s, v[0].name, extended);
    s->value.len = 0;
    if (extended && !v[0].extended)
        tb_mime_put(&s->value, "''", 2);
    next = 0;
    for (size_t i = 0; i < used; i++) {
        if (v[i].section != next || s->value.len > MIME_STRING_MAX)
            continue;
        next++;
        if (extended && !v[i].extended)
            put_encoded(&s->value, &s->text, &v[i]);
        else
            put_value(&s->value, &v[i]);
    }
    tb_mime_string(out, tb_buf_all(&s->value));
}

static size_t run_of_name(const struct tb_mime_param *v, size_t n)
{
    size_t run = 1;
    while (run < n && tb_slice_ieq(v[run].name, v[0].name))
        run++;
    return run;
}

void tb_mime_params_write(struct tb_buf *out, struct tb_mime_scratch *s, size_t n)
{
    struct tb_mime_param *v = (void *)s->params.ptr;
    size_t before = out->len, i = 0;
    bool continued = false;
    for (size_t k = 0; k < n; k++)
        continued |= v[k].section >= 0;
    if (continued)
        qsort(v, n, sizeof(*v), compare_sections);
    tb_mime_put_char(out, '(');
    while (i < n) {
        size_t at = out->len, run = 1;
        if (at > before + 1)
            tb_mime_put_char(out, ' ');
        size_t begin = out->len;
        if (v[i].section < 0) {
            put_name(out, s, v[i].name, false);
            s->value.len = 0;
            put_value(&s->value, &v[i]);
            tb_mime_string(out, tb_buf_all(&s->value));
        } else {
            run = run_of_name(v + i, n - i);
            put_sections(out, s, v + i, run);
        }
        if (out->len == begin)
            out->len = at;
        i += run;
    }
    tb_mime_put_char(out, ')');
    if (out->len == before + 2) {
        out->len = before;
        tb_mime_put(out, "NIL", 3);
    }
}
