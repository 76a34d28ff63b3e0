/*
 * name.c: mailbox names between the wire's modified UTF-7 and the store's UTF-8. Pure; one pass; nothing recurses.
 *
 * Only the one canonical spelling of a name is accepted: no printable ASCII in a shift, no empty or
 * back-to-back shifts, no stray bits at a shift's end, no lone surrogates. So two spellings never reach one
 * mailbox. RFC 3501 5.1.3, RFC 2152.
 */
#include "imap_session.h"

static const char base64_mutf7[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == ',' ? 63 : -1;
}

static char *utf8_put(char *o, uint32_t c)
{
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 0x3f));
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    }
    return o;
}

/* shift_decode: the base64 between "&" and "-"; *p stands behind the "&" and ends behind the "-". NULL: malformed. */
static char *shift_decode(const char **p, const char *end, char *o)
{
    uint32_t bits = 0, high = 0;
    int have = 0, v;
    const char *s = *p;
    for (; s < end && *s != '-'; s++) {
        if ((v = base64_value(*s)) < 0)
            return NULL;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have < 16)
            continue;
        have -= 16;
        uint32_t unit = bits >> have & 0xffff;
        bits &= (1u << have) - 1;
        if (high) {
            if (unit < 0xdc00 || unit > 0xdfff)
                return NULL;
            o = utf8_put(o, 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00));
            high = 0;
        } else if (unit >= 0xd800 && unit <= 0xdbff) {
            high = unit;
        } else if ((unit >= 0xdc00 && unit <= 0xdfff) || (unit >= 0x20 && unit <= 0x7e) || unit == 0) {
            return NULL;
        } else {
            o = utf8_put(o, unit);
        }
    }
    if (s == end || high || have >= 6 || bits != 0)
        return NULL;
    *p = s + 1;
    return o;
}

bool imap_name_decode(struct tb_slice wire, struct tb_arena *arena, struct tb_slice *utf8)
{
    /* 8 base64 characters make at most three units, so at most 9 bytes of UTF-8: twice the length is always enough. */
    char *buf = tb_arena_alloc(arena, wire.len * 2 + 1);
    char *o = buf;
    const char *p = wire.ptr, *end = wire.len > 0 ? p + wire.len : p;
    bool shifted = false; /* the character before was a shift */
    if (!buf)
        return false;
    while (p < end) {
        uint8_t c = (uint8_t)*p++;
        if (c < 0x20 || c > 0x7e)
            return false;
        if (c != '&') {
            *o++ = (char)c;
            shifted = false;
        } else if (p < end && *p == '-') {
            *o++ = '&';
            p++;
            shifted = false;
        } else {
            char *start = o;
            if (shifted || !(o = shift_decode(&p, end, o)) || o == start)
                return false;
            shifted = true;
        }
    }
    *utf8 = tb_slice(buf, (size_t)(o - buf));
    return true;
}

/* utf8_get: the next code point, U+FFFD for a byte that begins none; advances. */
static uint32_t utf8_get(const uint8_t **p, const uint8_t *end)
{
    uint32_t c = *(*p)++, min;
    int more;
    if (c < 0x80)
        return c;
    if (c >= 0xc2 && c <= 0xdf)
        more = 1, c &= 0x1f, min = 0x80;
    else if (c >= 0xe0 && c <= 0xef)
        more = 2, c &= 0x0f, min = 0x800;
    else if (c >= 0xf0 && c <= 0xf4)
        more = 3, c &= 0x07, min = 0x10000;
    else
        return 0xfffd;
    const uint8_t *s = *p;
    for (; more > 0 && s < end && (*s & 0xc0) == 0x80; more--)
        c = c << 6 | (*s++ & 0x3f);
    if (more > 0 || c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0xfffd;
    *p = s;
    return c;
}

struct shift { /* an open base64 run being written */
    uint32_t bits;
    int have;
    bool open;
};

static void shift_unit(struct shift *s, struct tb_buf *out, uint32_t unit)
{
    if (!s->open)
        tb_buf_char(out, '&');
    s->open = true;
    s->bits = s->bits << 16 | unit;
    s->have += 16;
    while (s->have >= 6) {
        s->have -= 6;
        tb_buf_char(out, base64_mutf7[s->bits >> s->have & 0x3f]);
        s->bits &= (1u << s->have) - 1;
    }
}

static void shift_close(struct shift *s, struct tb_buf *out)
{
    if (!s->open)
        return;
    if (s->have > 0)
        tb_buf_char(out, base64_mutf7[s->bits << (6 - s->have) & 0x3f]);
    tb_buf_char(out, '-');
    *s = (struct shift){0};
}

void imap_name_encode(struct tb_slice utf8, struct tb_buf *out)
{
    const uint8_t *p = (const uint8_t *)utf8.ptr, *end = utf8.len > 0 ? p + utf8.len : p;
    struct shift s = {0};
    while (p < end) {
        uint32_t c = utf8_get(&p, end);
        if (c >= 0x20 && c <= 0x7e) {
            shift_close(&s, out);
            tb_buf_char(out, (char)c);
            if (c == '&')
                tb_buf_char(out, '-');
        } else if (c >= 0x10000) {
            shift_unit(&s, out, 0xd800 + ((c - 0x10000) >> 10));
            shift_unit(&s, out, 0xdc00 + ((c - 0x10000) & 0x3ff));
        } else {
            shift_unit(&s, out, c);
        }
    }
    shift_close(&s, out);
}
