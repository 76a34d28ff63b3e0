/*
 * base64.c: base64 and hex.
 *
 * Decoding is strict (RFC 4648 section 4, and 3.5: the bits behind the last byte are zero): one text for one value,
 * so nothing can be said in two ways. Never writes part of a malformed text. Pure. Any thread.
 */
#include "engine/crypto/crypto.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters to bits; pad of them are '=' at the end. */
static bool decode_group(const char *in, size_t pad, uint32_t *bits)
{
    *bits = 0;
    for (size_t i = 0; i < 4; i++) {
        int v = i < 4 - pad ? value_of(in[i]) : 0;

        if (v < 0)
            return false;
        *bits = *bits << 6 | (uint32_t)v;
    }
    return (*bits & ((1u << (8 * pad)) - 1)) == 0;
}

bool tb_base64_decode(struct tb_slice text, struct tb_buf *out)
{
    size_t pad = 0, size;
    char *to;

    if (text.len % 4 != 0)
        return false;
    if (text.len > 0 && text.ptr[text.len - 1] == '=')
        pad = text.ptr[text.len - 2] == '=' ? 2 : 1;
    size = text.len / 4 * 3 - pad;
    to = tb_buf_reserve(out, size);
    if (!to)
        return false;
    for (size_t at = 0; at < text.len; at += 4) {
        size_t group_pad = at + 4 == text.len ? pad : 0;
        uint32_t bits;

        if (!decode_group(text.ptr + at, group_pad, &bits))
            return false;
        for (size_t i = 0; i < 3 - group_pad; i++)
            *to++ = (char)(bits >> (16 - 8 * i));
    }
    out->len += size;
    return true;
}

void tb_base64_encode(struct tb_slice bytes, struct tb_buf *out)
{
    const uint8_t *p = (const uint8_t *)bytes.ptr;
    size_t size = bytes.len / 3 * 4 + (bytes.len % 3 ? 4 : 0);
    char *to = tb_buf_reserve(out, size);

    if (!to)
        return;
    for (size_t at = 0; at < bytes.len; at += 3) {
        size_t n = bytes.len - at < 3 ? bytes.len - at : 3;
        uint32_t bits = (uint32_t)p[at] << 16 | (n > 1 ? (uint32_t)p[at + 1] << 8 : 0) | (n > 2 ? p[at + 2] : 0);

        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = n > 1 ? digits[bits >> 6 & 63] : '=';
        *to++ = n > 2 ? digits[bits & 63] : '=';
    }
    out->len += size;
}

void tb_hex(const void *ptr, size_t len, char *out)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *p = ptr;

    for (size_t i = 0; i < len; i++) {
        *out++ = hex[p[i] >> 4];
        *out++ = hex[p[i] & 15];
    }
    *out = '\0';
}
