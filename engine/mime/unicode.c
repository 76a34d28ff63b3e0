/*
 * unicode.c: case folding for search and normalisation for names. The only file that includes utf8proc.h.
 *
 * Folding goes character by character, without context, so that folding in windows gives the same as folding at once.
 * Pure. RFC 9051 6.4.4; RFC 5051 (its decomposition is why "e" with an accent is found in either spelling).
 */
#include "engine/mime/mime.h"

#include <stdlib.h>
#include <utf8proc.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* One character that is not ASCII: compatibility decomposition with full case folding. */
static void fold_char(uint32_t cp, struct tb_buf *out)
{
    utf8proc_int32_t folded[32];
    utf8proc_uint8_t text[4];
    int last = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, folded, TB_ARRAY_LEN(folded),
                                                 UTF8PROC_CASEFOLD | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, &last);
    if (n < 0 || n > (utf8proc_ssize_t)TB_ARRAY_LEN(folded)) {
        folded[0] = (utf8proc_int32_t)cp;
        n = 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        tb_buf_put(out, text, (size_t)utf8proc_encode_char(folded[i], text));
}

/* Lower the ASCII bytes at the front into out, which has room for n. Returns how many there were. */
static size_t lower_ascii(const char *p, size_t n, char *out)
{
    size_t i = 0;
#ifdef __SSE2__
    const __m128i before = _mm_set1_epi8('A' - 1), behind = _mm_set1_epi8('Z' + 1), bit = _mm_set1_epi8(0x20);
    for (; i + 16 <= n; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        if (_mm_movemask_epi8(v) != 0)
            break;
        __m128i capital = _mm_and_si128(_mm_cmpgt_epi8(v, before), _mm_cmplt_epi8(v, behind));
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm_or_si128(v, _mm_and_si128(capital, bit)));
    }
#endif
    for (; i < n && (unsigned char)p[i] < 0x80; i++)
        out[i] = tb_mime_lower(p[i]);
    return i;
}

void tb_text_fold(struct tb_slice utf8, struct tb_buf *out)
{
    uint32_t cp;
    bool cut;
    while (utf8.len > 0) {
        char *room = tb_buf_reserve(out, utf8.len);
        if (room == NULL)
            return;
        size_t n = lower_ascii(utf8.ptr, utf8.len, room);
        out->len += n;
        if (n < utf8.len) {
            size_t len = tb_utf8_decode(utf8.ptr + n, utf8.len - n, &cp, &cut);
            fold_char(len == 0 ? 0xfffd : cp, out);
            n += len == 0 ? 1 : len;
        }
        utf8 = tb_slice(utf8.ptr + n, utf8.len - n);
    }
}

bool tb_utf8_nfc(struct tb_slice s, struct tb_buf *out)
{
    utf8proc_uint8_t *text = NULL;
    if (!tb_utf8_valid(s))
        return false;
    if (s.len == 0)
        return true;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s.ptr, (utf8proc_ssize_t)s.len, &text,
                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n >= 0)
        tb_buf_put(out, text, (size_t)n);
    free(text);
    return n >= 0;
}
