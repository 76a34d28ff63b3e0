/*
 * charset.c: charsets and transfer encodings undone, as a stream, to UTF-8.
 *
 * Charset names come from strangers: only those of the list below ever reach iconv. What cannot be converted becomes
 * U+FFFD; the stream never fails and holds a few bytes. US-ASCII, UTF-8 and ISO-8859-1 (read as windows-1252) are done
 * here, without iconv. RFC 2045 6 (encodings), RFC 2978 (charset names), RFC 3629 (UTF-8).
 */
#include "engine/mime/mime.h"

#include <errno.h>
#include <stdatomic.h>

enum charset_how { HOW_UTF8, HOW_WINDOWS_1252, HOW_ICONV };
struct tb_charset {
    const char *name, *iconv_name;
    enum charset_how how;
};

/* The names mail uses, by the IANA registry, and what mailers write instead. Lower case. */
static const struct tb_charset charsets[] = {
    {"us-ascii", NULL, HOW_UTF8},
    {"ascii", NULL, HOW_UTF8},
    {"ansi_x3.4-1968", NULL, HOW_UTF8},
    {"utf-8", NULL, HOW_UTF8},
    {"utf8", NULL, HOW_UTF8},
    {"unicode-1-1-utf-8", NULL, HOW_UTF8},
    {"iso-8859-1", NULL, HOW_WINDOWS_1252},
    {"iso8859-1", NULL, HOW_WINDOWS_1252},
    {"iso_8859-1", NULL, HOW_WINDOWS_1252},
    {"latin1", NULL, HOW_WINDOWS_1252},
    {"l1", NULL, HOW_WINDOWS_1252},
    {"windows-1252", NULL, HOW_WINDOWS_1252},
    {"cp1252", NULL, HOW_WINDOWS_1252},
    {"ibm819", NULL, HOW_WINDOWS_1252},
    {"cp819", NULL, HOW_WINDOWS_1252},
    {"iso-8859-2", "ISO-8859-2", HOW_ICONV},
    {"iso8859-2", "ISO-8859-2", HOW_ICONV},
    {"latin2", "ISO-8859-2", HOW_ICONV},
    {"iso-8859-3", "ISO-8859-3", HOW_ICONV},
    {"iso-8859-4", "ISO-8859-4", HOW_ICONV},
    {"iso-8859-5", "ISO-8859-5", HOW_ICONV},
    {"iso-8859-6", "ISO-8859-6", HOW_ICONV},
    {"iso-8859-6-i", "ISO-8859-6", HOW_ICONV},
    {"iso-8859-6-e", "ISO-8859-6", HOW_ICONV},
    {"iso-8859-7", "ISO-8859-7", HOW_ICONV},
    {"iso8859-7", "ISO-8859-7", HOW_ICONV},
    {"iso-8859-8", "ISO-8859-8", HOW_ICONV},
    {"iso-8859-8-i", "ISO-8859-8", HOW_ICONV},
    {"iso-8859-8-e", "ISO-8859-8", HOW_ICONV},
    {"iso-8859-9", "ISO-8859-9", HOW_ICONV},
    {"iso8859-9", "ISO-8859-9", HOW_ICONV},
    {"latin5", "ISO-8859-9", HOW_ICONV},
    {"iso-8859-10", "ISO-8859-10", HOW_ICONV},
    {"iso-8859-11", "ISO-8859-11", HOW_ICONV},
    {"iso-8859-13", "ISO-8859-13", HOW_ICONV},
    {"iso-8859-14", "ISO-8859-14", HOW_ICONV},
    {"iso-8859-15", "ISO-8859-15", HOW_ICONV},
    {"iso8859-15", "ISO-8859-15", HOW_ICONV},
    {"latin9", "ISO-8859-15", HOW_ICONV},
    {"latin-9", "ISO-8859-15", HOW_ICONV},
    {"iso-8859-16", "ISO-8859-16", HOW_ICONV},
    {"windows-1250", "CP1250", HOW_ICONV},
    {"cp1250", "CP1250", HOW_ICONV},
    {"windows-1251", "CP1251", HOW_ICONV},
    {"cp1251", "CP1251", HOW_ICONV},
    {"windows-1253", "CP1253", HOW_ICONV},
    {"cp1253", "CP1253", HOW_ICONV},
    {"windows-1254", "CP1254", HOW_ICONV},
    {"cp1254", "CP1254", HOW_ICONV},
    {"windows-1255", "CP1255", HOW_ICONV},
    {"cp1255", "CP1255", HOW_ICONV},
    {"windows-1256", "CP1256", HOW_ICONV},
    {"cp1256", "CP1256", HOW_ICONV},
    {"windows-1257", "CP1257", HOW_ICONV},
    {"cp1257", "CP1257", HOW_ICONV},
    {"windows-1258", "CP1258", HOW_ICONV},
    {"cp1258", "CP1258", HOW_ICONV},
    {"ibm437", "CP437", HOW_ICONV},
    {"cp437", "CP437", HOW_ICONV},
    {"ibm850", "CP850", HOW_ICONV},
    {"cp850", "CP850", HOW_ICONV},
    {"ibm852", "CP852", HOW_ICONV},
    {"cp852", "CP852", HOW_ICONV},
    {"ibm866", "CP866", HOW_ICONV},
    {"cp866", "CP866", HOW_ICONV},
    {"koi8-r", "KOI8-R", HOW_ICONV},
    {"koi8-u", "KOI8-U", HOW_ICONV},
    {"koi8-ru", "KOI8-U", HOW_ICONV},
    {"macintosh", "MACINTOSH", HOW_ICONV},
    {"gb2312", "GBK", HOW_ICONV},
    {"gb_2312-80", "GBK", HOW_ICONV},
    {"x-gbk", "GBK", HOW_ICONV},
    {"gbk", "GBK", HOW_ICONV},
    {"cp936", "GBK", HOW_ICONV},
    {"ms936", "GBK", HOW_ICONV},
    {"gb18030", "GB18030", HOW_ICONV},
    {"big5", "BIG5-HKSCS", HOW_ICONV},
    {"big5-hkscs", "BIG5-HKSCS", HOW_ICONV},
    {"cp950", "CP950", HOW_ICONV},
    {"euc-tw", "EUC-TW", HOW_ICONV},
    {"shift_jis", "CP932", HOW_ICONV},
    {"shift-jis", "CP932", HOW_ICONV},
    {"sjis", "CP932", HOW_ICONV},
    {"x-sjis", "CP932", HOW_ICONV},
    {"windows-31j", "CP932", HOW_ICONV},
    {"cp932", "CP932", HOW_ICONV},
    {"euc-jp", "EUC-JP", HOW_ICONV},
    {"iso-2022-jp", "ISO-2022-JP", HOW_ICONV},
    {"iso-2022-jp-1", "ISO-2022-JP-2", HOW_ICONV},
    {"iso-2022-jp-2", "ISO-2022-JP-2", HOW_ICONV},
    {"iso-2022-jp-ms", "CP932", HOW_ICONV},
    {"euc-kr", "CP949", HOW_ICONV},
    {"ks_c_5601-1987", "CP949", HOW_ICONV},
    {"ks_c_5601", "CP949", HOW_ICONV},
    {"windows-949", "CP949", HOW_ICONV},
    {"cp949", "CP949", HOW_ICONV},
    {"uhc", "CP949", HOW_ICONV},
    {"iso-2022-kr", "ISO-2022-KR", HOW_ICONV},
    {"tis-620", "TIS-620", HOW_ICONV},
    {"windows-874", "CP874", HOW_ICONV},
    {"cp874", "CP874", HOW_ICONV},
    {"viscii", "VISCII", HOW_ICONV},
    {"armscii-8", "ARMSCII-8", HOW_ICONV},
    {"georgian-ps", "GEORGIAN-PS", HOW_ICONV},
    {"utf-7", "UTF-7", HOW_ICONV},
    {"unicode-1-1-utf-7", "UTF-7", HOW_ICONV},
    {"utf-16", "UTF-16", HOW_ICONV},
    {"utf-16le", "UTF-16LE", HOW_ICONV},
    {"utf-16be", "UTF-16BE", HOW_ICONV},
    {"utf-32", "UTF-32", HOW_ICONV},
};

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

const struct tb_charset *tb_charset_find(struct tb_slice name)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(charsets); i++) {
        if (tb_slice_ieq(name, tb_slice_str(charsets[i].name)))
            return &charsets[i];
    }
    return NULL;
}

bool tb_charset_known(struct tb_slice name)
{
    return tb_charset_find(name) != NULL;
}

/* ---- UTF-8 ---- */

size_t tb_utf8_decode(const char *s, size_t n, uint32_t *cp, bool *cut)
{
    const unsigned char *p = (const unsigned char *)s;
    static const unsigned char lead_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    size_t want = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    *cut = false;
    if (want == 0)
        return 0;
    uint32_t v = p[0] & lead_bits[want];
    for (size_t i = 1; i < want; i++) {
        if (i == n) {
            *cut = true;
            return 0;
        }
        unsigned char lo = 0x80, hi = 0xbf;
        if (i == 1) { /* RFC 3629 4: no overlong forms, no surrogates, nothing above U+10FFFF */
            lo = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
            hi = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
        }
        if (p[i] < lo || p[i] > hi)
            return 0;
        v = v << 6 | (p[i] & 0x3f);
    }
    *cp = v;
    return want;
}

/* How many of the bytes at the front are ASCII. */
static size_t ascii_run(const char *p, size_t n)
{
    size_t i = 0;
    uint64_t w;
    for (; i + 8 <= n; i += 8) {
        memcpy(&w, p + i, 8);
        if (w & 0x8080808080808080u)
            break;
    }
    while (i < n && (unsigned char)p[i] < 0x80)
        i++;
    return i;
}

bool tb_utf8_valid(struct tb_slice s)
{
    uint32_t cp;
    bool cut;
    for (size_t i = 0; i < s.len;) {
        i += ascii_run(s.ptr + i, s.len - i);
        if (i == s.len)
            break;
        size_t n = tb_utf8_decode(s.ptr + i, s.len - i, &cp, &cut);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* ---- conversion ---- */

static void put_char(struct tb_buf *out, uint32_t cp)
{
    char t[3] = {(char)(0xe0 | cp >> 12), (char)(0x80 | (cp >> 6 & 0x3f)), (char)(0x80 | (cp & 0x3f))};
    if (cp < 0x800) {
        t[1] = (char)(0xc0 | cp >> 6);
        tb_buf_put(out, t + 1, 2);
    } else {
        tb_buf_put(out, t, 3);
    }
}

static void convert_windows_1252(struct tb_slice s, struct tb_buf *out)
{
    static const uint16_t high[32] = {0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
                                      0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0xfffd, 0x017d, 0xfffd,
                                      0xfffd, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                      0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd, 0x017e, 0x0178};
    for (size_t i = 0; i < s.len;) {
        size_t n = ascii_run(s.ptr + i, s.len - i);
        tb_buf_put(out, s.ptr + i, n);
        i += n;
        if (i < s.len) {
            unsigned char c = (unsigned char)s.ptr[i++];
            put_char(out, c < 0xa0 ? high[c - 0x80] : c);
        }
    }
}

/* Returns the bytes used; fewer than s.len only when a character is cut short and more may come. */
static size_t convert_utf8(struct tb_slice s, bool last, struct tb_buf *out)
{
    uint32_t cp;
    bool cut;
    for (size_t i = 0; i < s.len;) {
        size_t n = ascii_run(s.ptr + i, s.len - i);
        tb_buf_put(out, s.ptr + i, n);
        i += n;
        if (i == s.len)
            break;
        n = tb_utf8_decode(s.ptr + i, s.len - i, &cp, &cut);
        if (n > 0) {
            tb_buf_put(out, s.ptr + i, n);
            i += n;
        } else if (cut && !last) {
            return i;
        } else {
            tb_buf_put(out, replacement, 3);
            i++;
        }
    }
    return s.len;
}

static size_t convert_iconv(struct tb_text_stream *t, struct tb_slice s, bool last, struct tb_buf *out)
{
    char room[1024];
    char *from = (char *)(uintptr_t)s.ptr; /* iconv's prototype is not const; it does not write there */
    size_t left = s.len;
    while (left > 0 && !out->failed) {
        char *to = room;
        size_t space = sizeof(room);
        size_t r = iconv(t->cd, &from, &left, &to, &space);
        int why = errno;
        tb_buf_put(out, room, sizeof(room) - space);
        if (r != (size_t)-1 || why == E2BIG)
            continue;
        if (why == EINVAL && !last && left < sizeof(t->carry))
            break;
        tb_buf_put(out, replacement, 3);
        from++;
        left--;
    }
    return s.len - left;
}

/* A run of decoded bytes, with what an earlier run left unfinished. */
static size_t convert_some(struct tb_text_stream *t, struct tb_slice s, bool last, struct tb_buf *out)
{
    if (t->cd_open)
        return convert_iconv(t, s, last, out);
    if (t->charset != NULL && t->charset->how == HOW_WINDOWS_1252) {
        convert_windows_1252(s, out);
        return s.len;
    }
    return convert_utf8(s, last, out);
}

static void convert(struct tb_text_stream *t, struct tb_slice s, struct tb_buf *out)
{
    if (t->raw) {
        tb_buf_slice(out, s);
        return;
    }
    while (t->carry_n > 0 && s.len > 0) { /* byte by byte until the unfinished character is done */
        t->carry[t->carry_n++] = *s.ptr++;
        s.len--;
        size_t used = convert_some(t, tb_slice(t->carry, t->carry_n), t->carry_n == sizeof(t->carry), out);
        t->carry_n = (uint8_t)(t->carry_n - used);
        memmove(t->carry, t->carry + used, t->carry_n);
    }
    if (s.len == 0)
        return;
    size_t used = convert_some(t, s, false, out);
    t->carry_n = (uint8_t)(s.len - used < sizeof(t->carry) ? s.len - used : 0);
    memcpy(t->carry, s.ptr + used, t->carry_n);
}

/* ---- transfer encodings ---- */

enum { DECODED_BYTES = 2048 };

/* The value + 1 of each base64 character; 0 = no such character. RFC 2045 6.8, table 1. */
static const uint8_t base64_values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,
    ['I'] = 9,  ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16,
    ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24,
    ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32,
    ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48,
    ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56,
    ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
};

/* Whole groups of four good characters, while room is left. Returns the characters used; *n grows by three bytes a
 * group. */
static size_t base64_groups(struct tb_slice s, char *room, size_t cap, size_t *n)
{
    size_t i = 0;
    for (; s.len - i >= 4 && cap - *n >= 8; i += 4) {
        const unsigned char *p = (const unsigned char *)s.ptr + i;
        uint32_t a = base64_values[p[0]], b = base64_values[p[1]], c = base64_values[p[2]], d = base64_values[p[3]];
        if (a == 0 || b == 0 || c == 0 || d == 0)
            break;
        uint32_t bits = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
        room[(*n)++] = (char)(bits >> 16);
        room[(*n)++] = (char)(bits >> 8);
        room[(*n)++] = (char)bits;
    }
    return i;
}

/* Bad characters are skipped; a pad forgets the unfinished bits and decoding goes on behind it. RFC 2045 6.8. */
static void put_base64(struct tb_text_stream *t, struct tb_slice s, struct tb_buf *out)
{
    char room[DECODED_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (t->base64_n == 0)
            i += base64_groups(tb_slice(s.ptr + i, s.len - i), room, sizeof(room), &n);
        if (n > sizeof(room) - 4) {
            convert(t, tb_slice(room, n), out);
            n = 0;
        }
        if (i == s.len)
            break;
        unsigned v = base64_values[(unsigned char)s.ptr[i]];
        if (v == 0) {
            if (s.ptr[i] == '=')
                t->base64_n = 0;
            continue;
        }
        t->base64_bits = t->base64_bits << 6 | (v - 1);
        if (t->base64_n++ > 0)
            room[n++] = (char)(t->base64_bits >> (2 * (4 - t->base64_n)));
        t->base64_n &= 3;
    }
    convert(t, tb_slice(room, n), out);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = tb_mime_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum { QP_TEXT, QP_EQUALS, QP_DIGIT, QP_CR };

/* One byte; writes up to three to room. What is no valid escape stays as it is. RFC 2045 6.7. */
static size_t qp_byte(struct tb_text_stream *t, char c, char *room)
{
    size_t n = 0;
    if (t->qp_state == QP_CR) { /* "=\r" was a soft line break whatever follows */
        t->qp_state = QP_TEXT;
        if (c == '\n')
            return 0;
    }
    if (t->qp_state == QP_EQUALS) {
        if (hex_value(c) >= 0) {
            t->qp_digit = c;
            t->qp_state = QP_DIGIT;
            return 0;
        }
        t->qp_state = c == '\r' ? QP_CR : QP_TEXT;
        if (c == '\r' || c == '\n')
            return 0;
        room[n++] = '=';
    } else if (t->qp_state == QP_DIGIT) {
        t->qp_state = QP_TEXT;
        if (hex_value(c) >= 0) {
            room[n++] = (char)(hex_value(t->qp_digit) << 4 | hex_value(c));
            return n;
        }
        room[n++] = '=';
        room[n++] = t->qp_digit;
    }
    if (c == '=')
        t->qp_state = QP_EQUALS;
    else
        room[n++] = c;
    return n;
}

static void put_qp(struct tb_text_stream *t, struct tb_slice s, struct tb_buf *out)
{
    char room[DECODED_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < s.len;) {
        if (t->qp_state == QP_TEXT && s.ptr[i] != '=') { /* a run without escapes */
            size_t most = s.len - i < sizeof(room) - n ? s.len - i : sizeof(room) - n;
            const char *equals = memchr(s.ptr + i, '=', most);
            size_t run = equals == NULL ? most : (size_t)(equals - (s.ptr + i));
            memcpy(room + n, s.ptr + i, run);
            n += run;
            i += run;
        } else {
            n += qp_byte(t, s.ptr[i++], room + n);
        }
        if (n > sizeof(room) - 4) {
            convert(t, tb_slice(room, n), out);
            n = 0;
        }
    }
    convert(t, tb_slice(room, n), out);
}

/* ---- the stream ---- */

/*
 * hold_module: the C library loads a charset's converter when it is opened and unloads it soon after it is closed,
 * tens of microseconds each time. One descriptor of each charset ever met stays open: at most one a row of the list.
 */
static void hold_module(const struct tb_charset *charset)
{
    static _Atomic(iconv_t) held[TB_ARRAY_LEN(charsets)];
    _Atomic(iconv_t) *mine = &held[charset - charsets];
    iconv_t none = NULL;

    if (atomic_load_explicit(mine, memory_order_relaxed) != NULL)
        return;
    iconv_t cd = iconv_open("UTF-8", charset->iconv_name);
    if (cd != (iconv_t)-1 && !atomic_compare_exchange_strong(mine, &none, cd))
        iconv_close(cd); /* another thread was first */
}

void tb_text_stream_begin(struct tb_text_stream *t, enum tb_encoding encoding, struct tb_slice charset)
{
    *t = (struct tb_text_stream){.encoding = encoding, .charset = tb_charset_find(charset)};
    if (t->charset == NULL || t->charset->how != HOW_ICONV)
        return;
    t->cd = iconv_open("UTF-8", t->charset->iconv_name);
    t->cd_open = t->cd != (iconv_t)-1;
    if (t->cd_open)
        hold_module(t->charset);
    else
        t->charset = NULL;
}

void tb_text_stream_put(struct tb_text_stream *t, struct tb_slice bytes, struct tb_buf *out)
{
    if (out->failed || bytes.len == 0)
        return;
    if (t->encoding == TB_ENC_BASE64)
        put_base64(t, bytes, out);
    else if (t->encoding == TB_ENC_QP)
        put_qp(t, bytes, out);
    else
        convert(t, bytes, out);
}

void tb_text_stream_end(struct tb_text_stream *t, struct tb_buf *out)
{
    if (t->qp_state == QP_EQUALS || t->qp_state == QP_DIGIT) {
        char room[2] = {'=', t->qp_digit};
        convert(t, tb_slice(room, t->qp_state == QP_DIGIT ? 2 : 1), out);
    }
    if (t->carry_n > 0)
        (void)convert_some(t, tb_slice(t->carry, t->carry_n), true, out); /* last: nothing is left over */
    if (t->cd_open)
        iconv_close(t->cd);
    t->cd_open = false;
    t->carry_n = 0;
}

void tb_text_decode(enum tb_encoding enc, struct tb_slice charset, struct tb_slice bytes, struct tb_buf *out)
{
    struct tb_text_stream t;
    tb_text_stream_begin(&t, enc, charset);
    tb_text_stream_put(&t, bytes, out);
    tb_text_stream_end(&t, out);
}
