/*
 * json.c: reading JSON in place: find a member, go through an array, take a string.
 *
 * Nothing is built and nothing recurses: a value is skipped with a small stack of brackets, at most DEPTH_MAX. A text
 * is looked at from its beginning for each member: those that come here are a few kilobytes. Pure. Any thread. RFC
 * 8259.
 */
#include "frontends/auth/json.h"

enum { DEPTH_MAX = 32 };

static char peek(struct tb_slice s)
{
    return s.len > 0 ? s.ptr[0] : '\0';
}

static void advance(struct tb_slice *s, size_t n)
{
    *s = tb_slice_sub(*s, n, SIZE_MAX);
}

static void blanks(struct tb_slice *s)
{
    while (s->len > 0 && memchr(" \t\r\n", s->ptr[0], 4))
        advance(s, 1);
}

static bool take(struct tb_slice *s, char c)
{
    blanks(s);
    if (s->len == 0 || s->ptr[0] != c)
        return false;
    advance(s, 1);
    return true;
}

/* A string with its quotes; escapes are judged when it is read. */
static bool skip_string(struct tb_slice *s)
{
    if (peek(*s) != '"')
        return false;
    for (size_t i = 1; i < s->len; i++) {
        if ((unsigned char)s->ptr[i] < ' ')
            return false;
        if (s->ptr[i] == '"') {
            advance(s, i + 1);
            return true;
        }
        i += s->ptr[i] == '\\';
    }
    return false;
}

static size_t digits(struct tb_slice s)
{
    size_t n = 0;

    while (n < s.len && s.ptr[n] >= '0' && s.ptr[n] <= '9')
        n++;
    return n;
}

/* number = [ minus ] int [ frac ] [ exp ] */
static bool skip_number(struct tb_slice *s)
{
    size_t n;

    if (peek(*s) == '-')
        advance(s, 1);
    n = digits(*s);
    if (n == 0 || (n > 1 && s->ptr[0] == '0'))
        return false;
    advance(s, n);
    if (peek(*s) == '.') {
        advance(s, 1);
        n = digits(*s);
        advance(s, n);
        if (n == 0)
            return false;
    }
    if (peek(*s) == 'e' || peek(*s) == 'E') {
        advance(s, 1);
        if (peek(*s) == '+' || peek(*s) == '-')
            advance(s, 1);
        n = digits(*s);
        advance(s, n);
        return n > 0;
    }
    return true;
}

/* What is neither object nor array. */
static bool skip_scalar(struct tb_slice *s)
{
    static const char *const words[] = {"true", "false", "null"};

    if (peek(*s) == '"')
        return skip_string(s);
    for (size_t i = 0; i < TB_ARRAY_LEN(words); i++) {
        size_t n = strlen(words[i]);

        if (s->len >= n && memcmp(s->ptr, words[i], n) == 0) {
            advance(s, n);
            return true;
        }
    }
    return skip_number(s);
}

static bool skip_name(struct tb_slice *s)
{
    blanks(s);
    return skip_string(s) && take(s, ':');
}

/* Any value, with all that is in it. */
static bool skip_value(struct tb_slice *s)
{
    char open[DEPTH_MAX];
    size_t depth = 0;

    for (;;) {
        char c;

        blanks(s);
        c = peek(*s);
        if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX)
                return false;
            open[depth++] = c;
            advance(s, 1);
            if (!take(s, c == '{' ? '}' : ']')) {
                if (c == '{' && !skip_name(s))
                    return false;
                continue;
            }
            depth--;
        } else if (!skip_scalar(s)) {
            return false;
        }
        while (depth > 0 && take(s, open[depth - 1] == '{' ? '}' : ']'))
            depth--;
        if (depth == 0)
            return true;
        if (!take(s, ',') || (open[depth - 1] == '{' && !skip_name(s)))
            return false;
    }
}

static bool value_of(struct tb_slice *s, struct tb_slice *value)
{
    struct tb_slice before;

    blanks(s);
    before = *s;
    if (!skip_value(s))
        return false;
    *value = tb_slice_sub(before, 0, before.len - s->len);
    return true;
}

bool tb_json_member(struct tb_slice object, const char *name, struct tb_slice *value)
{
    unsigned found = 0;
    struct tb_slice s = object;

    if (!take(&s, '{'))
        return false;
    do {
        struct tb_slice key, have;
        char text[64];
        size_t len;

        blanks(&s);
        key = s;
        if (!skip_string(&s))
            return false;
        key = tb_slice_sub(key, 0, key.len - s.len);
        if (!take(&s, ':') || !value_of(&s, &have))
            return false;
        if (tb_json_text(key, sizeof(text) - 1, text, &len) && strcmp(text, name) == 0) {
            *value = have;
            found++;
        }
    } while (take(&s, ','));
    if (!take(&s, '}'))
        return false;
    blanks(&s);
    return s.len == 0 && found == 1;
}

bool tb_json_element(struct tb_slice array, size_t *at, struct tb_slice *value)
{
    struct tb_slice s = tb_slice_sub(array, *at, SIZE_MAX);

    if (!take(&s, *at == 0 ? '[' : ',') || !value_of(&s, value))
        return false;
    *at = array.len - s.len;
    return true;
}

/* ---- strings ---- */

static bool hex4(struct tb_slice s, uint32_t *out)
{
    *out = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = i < s.len ? s.ptr[i] : 'x';
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;

        if (v < 0)
            return false;
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

static size_t encode(uint32_t cp, char out[4])
{
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;

    if (n == 1) {
        out[0] = (char)cp;
        return 1;
    }
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf0 << (4 - n)) | cp);
    return n;
}

/* escape: what follows a backslash, taken from *s. Returns its bytes in out; 0: malformed, or NUL. */
static size_t escape(struct tb_slice *s, char out[4])
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = s->len > 0 && s->ptr[0] ? strchr(names, s->ptr[0]) : NULL;
    uint32_t cp, low;

    if (name) {
        advance(s, 1);
        out[0] = values[name - names];
        return 1;
    }
    if (peek(*s) != 'u' || !hex4(tb_slice_sub(*s, 1, 4), &cp))
        return 0;
    advance(s, 5);
    if (cp >= 0xd800 && cp < 0xdc00) {
        if (s->len < 6 || s->ptr[0] != '\\' || s->ptr[1] != 'u' || !hex4(tb_slice_sub(*s, 2, 4), &low) ||
            low < 0xdc00 || low > 0xdfff)
            return 0;
        advance(s, 6);
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    } else if ((cp >= 0xdc00 && cp <= 0xdfff) || cp == 0) {
        return 0;
    }
    return encode(cp, out);
}

bool tb_json_text(struct tb_slice value, size_t max, char *out, size_t *len)
{
    struct tb_slice s = value;
    size_t n = 0;

    if (value.len < 2 || value.ptr[0] != '"' || !skip_string(&s) || s.len != 0)
        return false;
    s = tb_slice_sub(value, 1, value.len - 2);
    while (s.len > 0) {
        char bytes[4] = {s.ptr[0]};
        size_t count = 1;

        advance(&s, 1);
        if (bytes[0] == '\\')
            count = escape(&s, bytes);
        if (count == 0 || count > max - n)
            return false;
        memcpy(out + n, bytes, count);
        n += count;
    }
    out[n] = '\0';
    *len = n;
    return true;
}

bool tb_json_seconds(struct tb_slice value, int64_t *out)
{
    size_t whole = digits(value), fraction = 0;
    uint64_t n;

    if (whole < value.len && value.ptr[whole] == '.')
        fraction = 1 + digits(tb_slice_sub(value, whole + 1, SIZE_MAX));
    if (whole + fraction != value.len || !tb_slice_u64(tb_slice_sub(value, 0, whole), INT64_MAX, &n))
        return false;
    *out = (int64_t)n;
    return true;
}
