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

enum { SHARP_S = 0xdf, DOTLESS_I = 0x131 };

/* The simple titlecase of UnicodeData.txt; utf8proc knows a capital for the sharp s, which that has not. */
static utf8proc_int32_t title_of(uint32_t cp)
{
    return cp == SHARP_S ? SHARP_S : utf8proc_totitle((utf8proc_int32_t)cp);
}

/*
 * One character that is not ASCII: titlecase, then compatibility decomposition with full case folding. What
 * i;unicode-casemap takes for equal is folded to the same, and more ("ss" and a sharp s).
 */
static void fold_char(uint32_t cp, struct tb_buf *out)
{
    utf8proc_int32_t folded[32];
    utf8proc_uint8_t text[4];
    int last = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = utf8proc_decompose_char(title_of(cp), folded, TB_ARRAY_LEN(folded),
                                                 UTF8PROC_CASEFOLD | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, &last);
    if (n < 0 || n > (utf8proc_ssize_t)TB_ARRAY_LEN(folded)) {
        folded[0] = (utf8proc_int32_t)cp;
        n = 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        tb_buf_put(out, text, (size_t)utf8proc_encode_char(folded[i] == DOTLESS_I ? 'i' : folded[i], text));
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

/* One character that is not ASCII: titlecase, then its whole decomposition. */
static void casemap_char(uint32_t cp, struct tb_buf *out)
{
    utf8proc_int32_t parts[32], title = title_of(cp);
    utf8proc_uint8_t text[4];
    int last = UTF8PROC_BOUNDCLASS_START;
    utf8proc_ssize_t n = utf8proc_decompose_char(title, parts, TB_ARRAY_LEN(parts),
                                                 UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE, &last);
    if (n < 0 || n > (utf8proc_ssize_t)TB_ARRAY_LEN(parts)) {
        parts[0] = title;
        n = 1;
    }
    for (utf8proc_ssize_t i = 0; i < n; i++)
        tb_buf_put(out, text, (size_t)utf8proc_encode_char(parts[i], text));
}

void tb_text_casemap(struct tb_slice utf8, struct tb_buf *out)
{
    uint32_t cp;
    bool cut;
    for (size_t i = 0; i < utf8.len;) {
        char c = utf8.ptr[i];
        if ((unsigned char)c < 0x80) {
            tb_mime_put_char(out, c >= 'a' && c <= 'z' ? (char)(c - 32) : c);
            i++;
            continue;
        }
        size_t len = tb_utf8_decode(utf8.ptr + i, utf8.len - i, &cp, &cut);
        casemap_char(len == 0 ? 0xfffd : cp, out);
        i += len == 0 ? 1 : len;
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

/* RFC 3454 B.1: commonly mapped to nothing. U+200B is there and among the spaces; RFC 4013 2.1 maps spaces first. */
static bool mapped_to_nothing(utf8proc_int32_t cp)
{
    return cp == 0xad || cp == 0x34f || cp == 0x1806 || (cp >= 0x180b && cp <= 0x180d) || cp == 0x200c ||
           cp == 0x200d || cp == 0x2060 || (cp >= 0xfe00 && cp <= 0xfe0f) || cp == 0xfeff;
}

static utf8proc_int32_t prepare_char(utf8proc_int32_t cp, void *user)
{
    (void)user;
    if (cp == 0x200b || (cp > 0x7f && utf8proc_category(cp) == UTF8PROC_CATEGORY_ZS)) /* RFC 3454 C.1.2 */
        return ' ';
    return cp;
}

/* without_nothing: s, valid UTF-8, less the characters that are mapped to nothing. */
static void without_nothing(struct tb_slice s, struct tb_buf *out)
{
    while (s.len > 0) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s.ptr, (utf8proc_ssize_t)s.len, &cp);
        if (n <= 0)
            return; /* not with what tb_utf8_valid has let pass */
        if (!mapped_to_nothing(cp))
            tb_buf_put(out, s.ptr, (size_t)n);
        s = tb_slice_sub(s, (size_t)n, SIZE_MAX);
    }
}

static bool has_control(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] < ' ' || s.ptr[i] == 0x7f)
            return true;
    return false;
}

bool tb_utf8_saslprep(struct tb_slice s, struct tb_buf *out)
{
    utf8proc_uint8_t *text = NULL;
    struct tb_buf kept;
    if (s.len == 0 || !tb_utf8_valid(s) || has_control(s))
        return false;
    tb_buf_init(&kept, s.len);
    without_nothing(s, &kept);
    utf8proc_ssize_t n = -1;
    if (kept.len > 0)
        n = utf8proc_map_custom((const utf8proc_uint8_t *)kept.ptr, (utf8proc_ssize_t)kept.len, &text,
                                UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, prepare_char, NULL);
    if (n >= 0) {
        tb_buf_put(out, text, (size_t)n);
        explicit_bzero(text, (size_t)n);
    }
    free(text);
    if (kept.ptr)
        explicit_bzero(kept.ptr, kept.cap);
    tb_buf_free(&kept);
    return n >= 0;
}
