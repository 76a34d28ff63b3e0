/*
 * word.c: a header value as text: unfolded, encoded words decoded, everything UTF-8.
 *
 * The result holds no CR, LF or NUL, whatever an encoded word decodes to. Words of one charset that follow each other
 * are decoded as one, since some mailers cut characters between them. At most OPENS_MAX charset changes are followed,
 * because each may load a table. Linear. RFC 2047 2, 5, 6; RFC 2231 5 (language).
 */
#include "engine/mime/mime.h"

enum { OPENS_MAX = 64, CHARSET_MAX = 63 };

struct word { /* =?charset?encoding?text?= */
    struct tb_slice charset, text;
    enum tb_encoding encoding;
    size_t len;
};

/*
 * The encoded word at s, if there is one. Blanks inside and any length are tolerated. *hopeless is set once no "?=" is
 * left in the value: then nobody needs to look again, and a value full of openings stays linear.
 */
static bool word_at(struct tb_slice s, struct word *w, bool *hopeless)
{
    if (s.len < 8 || *hopeless || s.ptr[0] != '=' || s.ptr[1] != '?')
        return false;
    const char *p = s.ptr + 2, *end = s.ptr + s.len;
    const char *q = memchr(p, '?', (size_t)(end - p) < CHARSET_MAX + 16 ? (size_t)(end - p) : CHARSET_MAX + 16);
    if (q == NULL || q == p || end - q < 5 || q[2] != '?')
        return false;
    const char *star = memchr(p, '*', (size_t)(q - p));
    w->charset = tb_slice(p, (size_t)((star != NULL ? star : q) - p));
    char kind = tb_mime_lower(q[1]);
    if (kind != 'b' && kind != 'q')
        return false;
    w->encoding = kind == 'b' ? TB_ENC_BASE64 : TB_ENC_QP;
    p = q + 3;
    for (q = p; (q = memchr(q, '?', (size_t)(end - q))) != NULL; q++) {
        if (q + 1 < end && q[1] == '=')
            break;
        if (kind == 'b')
            return false; /* a Q word may hold a stray question mark; a B word never does */
    }
    if (q == NULL) {
        *hopeless = true;
        return false;
    }
    w->text = tb_slice(p, (size_t)(q - p));
    w->len = (size_t)(q + 2 - s.ptr);
    return true;
}

/* The position behind the blanks at the front. */
static size_t blanks(struct tb_slice s)
{
    size_t n = 0;
    while (n < s.len && tb_mime_blank(s.ptr[n]))
        n++;
    return n;
}

/* The word's bytes into the stream: in Q text '_' is a space. RFC 2047 4.2. */
static void put_word(struct tb_text_stream *t, const struct word *w, struct tb_buf *out)
{
    t->encoding = w->encoding;
    t->base64_n = t->qp_state = 0;
    struct tb_slice s = w->text;
    while (w->encoding == TB_ENC_QP && s.len > 0) {
        const char *under = memchr(s.ptr, '_', s.len);
        size_t n = under == NULL ? s.len : (size_t)(under - s.ptr);
        tb_text_stream_put(t, tb_slice(s.ptr, n), out);
        if (under == NULL)
            return;
        tb_text_stream_put(t, TB_SLICE(" "), out);
        s = tb_slice(under + 1, s.len - n - 1);
    }
    tb_text_stream_put(t, s, out);
}

/* A run of encoded words of one charset; the blanks between words vanish. Returns the bytes used. */
static size_t put_run(struct tb_slice s, struct word w, bool *hopeless, struct tb_buf *out)
{
    struct tb_text_stream t;
    struct word next;
    size_t used = 0;
    tb_text_stream_begin(&t, w.encoding, w.charset);
    for (;;) {
        put_word(&t, &w, out);
        used += w.len;
        struct tb_slice rest = tb_slice_sub(s, used, s.len);
        size_t gap = blanks(rest);
        if (!word_at(tb_slice_sub(rest, gap, rest.len), &next, hopeless))
            break;
        used += gap;
        if (!tb_slice_ieq(next.charset, w.charset))
            break;
        w = next;
    }
    tb_text_stream_end(&t, out);
    return used;
}

/* Text between encoded words: valid UTF-8 stays, line ends go. */
static void put_plain(struct tb_slice s, struct tb_buf *out)
{
    for (size_t i = 0; i < s.len;) {
        uint32_t cp;
        bool cut;
        size_t from = i;
        while (i < s.len && (unsigned char)s.ptr[i] < 0x80 && s.ptr[i] != '\r' && s.ptr[i] != '\n')
            i++;
        tb_mime_put(out, s.ptr + from, i - from);
        if (i == s.len)
            return;
        size_t n = 1;
        if ((unsigned char)s.ptr[i] < 0x80) {
            if (s.ptr[i] == '\r' && (i + 1 == s.len || s.ptr[i + 1] != '\n'))
                tb_mime_put_char(out, ' ');
        } else if ((n = tb_utf8_decode(s.ptr + i, s.len - i, &cp, &cut)) > 0) {
            tb_mime_put(out, s.ptr + i, n);
        } else {
            tb_mime_put(out, "\xef\xbf\xbd", 3);
            n = 1;
        }
        i += n;
    }
}

void tb_header_text(struct tb_slice value, struct tb_buf *out)
{
    struct tb_slice s = tb_slice_trim(value);
    size_t before = out->len, opens = 0;
    bool hopeless = false;
    while (s.len > 0 && !out->failed) {
        struct word w;
        const char *p = s.ptr, *end = s.ptr + s.len;
        while ((p = memchr(p, '=', (size_t)(end - p))) != NULL &&
               !word_at(tb_slice(p, (size_t)(end - p)), &w, &hopeless))
            p++;
        if (p == NULL || opens++ == OPENS_MAX) {
            put_plain(s, out);
            break;
        }
        put_plain(tb_slice(s.ptr, (size_t)(p - s.ptr)), out);
        size_t used = put_run(tb_slice(p, (size_t)(end - p)), w, &hopeless, out);
        s = tb_slice(p + used, (size_t)(end - p) - used);
    }
    for (size_t i = before; i < out->len; i++) {
        if (out->ptr[i] == '\r' || out->ptr[i] == '\n' || out->ptr[i] == 0)
            out->ptr[i] = ' ';
    }
}
