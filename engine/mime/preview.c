/*
 * preview.c: the beginning of a text as a line to show in a list: decoded, without markup, quotes and runs of blanks.
 *
 * A text that begins with a tag is HTML: tags, comments, style, script and head go, common entities are undone. Of
 * other text, lines that quote another message (">") are left out, unless nothing else is there. Linear; no recursion;
 * writes at most TB_PREVIEW_CHARS characters. Pure. RFC 8970 3.3.
 */
#include "engine/mime/mime.h"

enum { DECODED_MAX = 4 * TB_PREVIEW_BYTES };

struct writer {
    struct tb_buf *out;
    size_t chars;
    bool blank; /* one is due before the next character */
};

/* Characters that mailers fill a preview with and nobody sees. */
static bool invisible(uint32_t cp)
{
    return cp == 0xad || cp == 0x34f || cp == 0x61c || cp == 0x180e || (cp >= 0x200b && cp <= 0x200f) ||
           (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff || cp == 0xfffd;
}

static bool is_blank(uint32_t cp)
{
    return cp <= ' ' || cp == 0x7f || (cp >= 0x80 && cp <= 0xa0) || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static void put_char(struct writer *w, uint32_t cp)
{
    char text[4];
    if (is_blank(cp)) {
        w->blank = w->chars > 0;
        return;
    }
    if (invisible(cp) || w->chars + w->blank >= TB_PREVIEW_CHARS)
        return;
    if (w->blank)
        tb_buf_char(w->out, ' ');
    w->chars += 1 + (size_t)w->blank;
    w->blank = false;
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        text[i] = (char)(0x80 | (cp & 0x3f));
    text[0] = n == 1 ? (char)cp : (char)((0xf00u >> n & 0xff) | cp);
    tb_buf_put(w->out, text, n);
}

static bool is_full(const struct writer *w)
{
    return w->chars >= TB_PREVIEW_CHARS || w->out->failed;
}

/* The next character of s, which is not empty. */
static uint32_t take(struct tb_slice *s)
{
    uint32_t cp = (unsigned char)s->ptr[0];
    bool cut;
    size_t n = cp < 0x80 ? 1 : tb_utf8_decode(s->ptr, s->len, &cp, &cut);
    if (n == 0) {
        cp = 0xfffd;
        n = 1;
    }
    *s = tb_slice(s->ptr + n, s->len - n);
    return cp;
}

/* ---- HTML ---- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_html(struct tb_slice s)
{
    while (s.len > 0 && is_blank((unsigned char)s.ptr[0]))
        s = tb_slice(s.ptr + 1, s.len - 1);
    if (s.len > 3 && memcmp(s.ptr, "\xef\xbb\xbf", 3) == 0)
        s = tb_slice(s.ptr + 3, s.len - 3);
    bool tag = s.len > 2 && s.ptr[0] == '<' && (is_letter(s.ptr[1]) || s.ptr[1] == '!' || s.ptr[1] == '?');
    const char *end = tag ? memchr(s.ptr, '>', s.len) : NULL;
    if (end == NULL)
        return false;
    /* "<ann@example.org> wrote:" is no tag */
    return memchr(s.ptr, '@', (size_t)(end - s.ptr)) == NULL && memchr(s.ptr, ':', 9 < s.len ? 9 : s.len) == NULL;
}

/* An entity at the front of s, which begins behind "&"; false: it is none. */
static bool entity(struct tb_slice *s, uint32_t *cp)
{
    static const struct {
        const char *name;
        uint32_t cp;
    } known[] = {{"amp", '&'},      {"lt", '<'},        {"gt", '>'},       {"quot", '"'},     {"apos", '\''},
                 {"nbsp", ' '},     {"zwnj", 0x200c},   {"zwj", 0x200d},   {"shy", 0xad},     {"ndash", 0x2013},
                 {"mdash", 0x2014}, {"hellip", 0x2026}, {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"ldquo", 0x201c},
                 {"rdquo", 0x201d}, {"bull", 0x2022},   {"middot", 0xb7},  {"copy", 0xa9},    {"reg", 0xae},
                 {"euro", 0x20ac},  {"auml", 0xe4},     {"ouml", 0xf6},    {"uuml", 0xfc},    {"Auml", 0xc4},
                 {"Ouml", 0xd6},    {"Uuml", 0xdc},     {"szlig", 0xdf},   {"eacute", 0xe9},  {"egrave", 0xe8},
                 {"agrave", 0xe0},  {"ccedil", 0xe7},   {"aacute", 0xe1},  {"iacute", 0xed},  {"oacute", 0xf3},
                 {"uacute", 0xfa},  {"ntilde", 0xf1}};
    enum { NAME_MAX = 10 };
    const char *end = s->len > 0 ? memchr(s->ptr, ';', s->len < NAME_MAX ? s->len : NAME_MAX) : NULL;
    if (end == NULL)
        return false;
    struct tb_slice name = tb_slice(s->ptr, (size_t)(end - s->ptr));
    uint32_t value = 0;
    if (name.len > 1 && name.ptr[0] == '#') {
        bool hex = tb_mime_lower(name.ptr[1]) == 'x';
        for (size_t i = hex ? 2 : 1; i < name.len; i++) {
            char c = tb_mime_lower(name.ptr[i]);
            uint32_t digit = c >= '0' && c <= '9'          ? (uint32_t)(c - '0')
                             : hex && c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                                                           : 99;
            if (digit == 99)
                return false;
            value = value * (hex ? 16 : 10) + digit;
        }
        if (value == 0 || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
            return false;
    }
    for (size_t i = 0; value == 0 && i < TB_ARRAY_LEN(known); i++)
        if (tb_slice_eq(name, tb_slice_str(known[i].name)))
            value = known[i].cp;
    if (value == 0)
        return false;
    *cp = value;
    *s = tb_slice(end + 1, s->len - name.len - 1);
    return true;
}

/* Behind the next `end`, compared without case; the end of s if there is none. */
static struct tb_slice behind(struct tb_slice s, struct tb_slice end)
{
    while (s.len >= end.len) {
        const char *p = memchr(s.ptr, end.ptr[0], s.len - end.len + 1);
        if (p == NULL)
            break;
        s = tb_slice(p, s.len - (size_t)(p - s.ptr));
        if (tb_slice_istarts(s, end))
            return tb_slice(s.ptr + end.len, s.len - end.len);
        s = tb_slice(s.ptr + 1, s.len - 1);
    }
    return tb_slice(s.ptr + s.len, 0);
}

/* Behind a tag, or an element that shows nothing. s begins behind "<". */
static struct tb_slice skip_tag(struct tb_slice s)
{
    static const struct {
        const char *name, *end;
    } hidden[] = {{"style", "</style"}, {"script", "</script"}, {"head", "</head"}, {"title", "</title"}};
    if (tb_slice_istarts(s, TB_SLICE("!--")))
        return behind(s, TB_SLICE("-->"));
    for (size_t i = 0; i < TB_ARRAY_LEN(hidden); i++) {
        struct tb_slice name = tb_slice_str(hidden[i].name);
        if (tb_slice_istarts(s, name) && s.len > name.len && !is_letter(s.ptr[name.len]))
            return behind(behind(s, tb_slice_str(hidden[i].end)), TB_SLICE(">"));
    }
    return behind(s, TB_SLICE(">"));
}

/* Does a tag part words? All but those within a line. */
static bool is_block(struct tb_slice s)
{
    static const char *const inline_tags[] = {"a",    "b",    "i",     "u",   "em",  "strong",
                                              "span", "font", "small", "big", "sub", "sup"};
    size_t n = 0;
    if (s.len > 0 && s.ptr[0] == '/')
        s = tb_slice(s.ptr + 1, s.len - 1);
    while (n < s.len && is_letter(s.ptr[n]))
        n++;
    for (size_t i = 0; i < TB_ARRAY_LEN(inline_tags); i++)
        if (tb_slice_ieq(tb_slice(s.ptr, n), tb_slice_str(inline_tags[i])))
            return false;
    return true;
}

static void put_html(struct writer *w, struct tb_slice s)
{
    while (s.len > 0 && !is_full(w)) {
        uint32_t cp = take(&s);
        if (cp == '<' && s.len > 0 && (is_letter(s.ptr[0]) || strchr("/!?", s.ptr[0]) != NULL) && s.ptr[0] != 0) {
            if (is_block(s))
                put_char(w, ' ');
            s = skip_tag(s);
            continue;
        }
        if (cp == '&')
            (void)entity(&s, &cp); /* else it stands for itself */
        put_char(w, cp == 0 ? ' ' : cp);
    }
}

/* ---- plain text ---- */

static void put_plain(struct writer *w, struct tb_slice s, bool quotes)
{
    while (s.len > 0 && !is_full(w)) {
        const char *lf = memchr(s.ptr, '\n', s.len);
        size_t n = lf != NULL ? (size_t)(lf - s.ptr) + 1 : s.len;
        struct tb_slice line = tb_slice(s.ptr, n);
        s = tb_slice(s.ptr + n, s.len - n);
        if (line.ptr[0] == '>' && !quotes)
            continue;
        while (line.len > 0 && !is_full(w))
            put_char(w, take(&line));
        put_char(w, ' ');
    }
}

void tb_text_preview(enum tb_encoding enc, struct tb_slice charset, struct tb_slice bytes, struct tb_buf *out)
{
    struct tb_buf text;
    struct writer w = {.out = out};
    tb_buf_init(&text, DECODED_MAX);
    tb_text_decode(enc, charset, tb_slice_sub(bytes, 0, TB_PREVIEW_BYTES), &text);
    if (is_html(tb_buf_all(&text))) {
        put_html(&w, tb_buf_all(&text));
    } else {
        put_plain(&w, tb_buf_all(&text), false);
        if (w.chars == 0)
            put_plain(&w, tb_buf_all(&text), true);
    }
    tb_buf_free(&text);
}
