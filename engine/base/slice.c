/*
 * slice.c: borrowed bytes: cutting, comparing, trimming, reading numbers.
 *
 * Never writes, never allocates, never looks past ptr + len. Knows ASCII only: case folding of other scripts is
 * engine/mime's business. Any thread.
 */
#include <tambo/base.h>

static unsigned char fold(char c)
{
    unsigned char u = (unsigned char)c;

    return u >= 'A' && u <= 'Z' ? (unsigned char)(u + ('a' - 'A')) : u;
}

static bool same_folded(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i] && fold(a[i]) != fold(b[i]))
            return false;
    }
    return true;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct tb_slice tb_slice_sub(struct tb_slice s, size_t offset, size_t len)
{
    if (offset >= s.len)
        return tb_slice(s.ptr ? s.ptr + s.len : NULL, 0);
    if (len > s.len - offset)
        len = s.len - offset;
    return tb_slice(s.ptr + offset, len);
}

bool tb_slice_ieq(struct tb_slice a, struct tb_slice b)
{
    return a.len == b.len && same_folded(a.ptr, b.ptr, a.len);
}

bool tb_slice_istarts(struct tb_slice s, struct tb_slice prefix)
{
    return s.len >= prefix.len && same_folded(s.ptr, prefix.ptr, prefix.len);
}

struct tb_slice tb_slice_trim(struct tb_slice s)
{
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    return s;
}

bool tb_slice_u64(struct tb_slice s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}
