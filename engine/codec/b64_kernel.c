/*
 * b64_kernel.c: the inner loops of b64.c, once in plain C and once with AVX2, where the processor has it.
 *
 * Both give the same answers for the same bytes (tested). The AVX2 forms turn 32 characters into 24 bytes and back,
 * after W. Mula and D. Lemire, "Faster Base64 Encoding and Decoding Using AVX2 Instructions" (2018); a line's last
 * vector overlaps the one before it, so lines of every width go without a scalar rest. Pure. Any thread.
 */
#include "engine/codec/b64.h"

enum { STEP = 128, WINDOW = 32 };

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Value of a digit; 64 for CR and LF; 128 for all else. */
#define V8(x) x, (x) + 1, (x) + 2, (x) + 3, (x) + 4, (x) + 5, (x) + 6, (x) + 7
#define N8 128, 128, 128, 128, 128, 128, 128, 128
static const uint8_t values[256] = {
    /* 00 */ 128,    128, 128, 128, 128, 128, 128, 128, 128,    128, 64, 128, 128, 64, 128, 128,
    /* 10 */ N8,     N8,
    /* 20 */ N8,     128, 128, 128, 62,  128, 128, 128, 63,
    /* 30 */ V8(52), 60,  61,  128, 128, 128, 128, 128, 128,
    /* 40 */ 128,    0,   1,   2,   3,   4,   5,   6,   V8(7),
    /* 50 */ V8(15), 23,  24,  25,  128, 128, 128, 128, 128,
    /* 60 */ 128,    26,  27,  28,  29,  30,  31,  32,  V8(33),
    /* 70 */ V8(41), 49,  50,  51,  128, 128, 128, 128, 128,
    /* 80 */ N8,     N8,  N8,  N8,  N8,  N8,  N8,  N8,  N8,     N8,  N8, N8,  N8,  N8, N8,  N8,
};

/* ---- plain C ---- */

static size_t portable_find(const char *p, size_t at, size_t len)
{
    for (; at < len && len - at >= WINDOW; at += STEP) {
        unsigned seen = 0;
        for (size_t i = 0; i < WINDOW && seen < 128; i += 8)
            for (size_t k = 0; k < 8; k++)
                seen |= values[(uint8_t)p[at + i + k]];
        if (seen < 128)
            return at;
    }
    return len;
}

static bool portable_line(const char *p, size_t chars, char *out)
{
    unsigned seen = 0;
    for (size_t i = 0; i < chars; i += 4) {
        unsigned a = values[(uint8_t)p[i]], b = values[(uint8_t)p[i + 1]], c = values[(uint8_t)p[i + 2]],
                 d = values[(uint8_t)p[i + 3]];
        seen |= a | b | c | d;
        *out++ = (char)(a << 2 | b >> 4);
        *out++ = (char)(b << 4 | c >> 2);
        *out++ = (char)(c << 6 | d);
    }
    return seen < 64;
}

static size_t portable_decode(const char *p, const char *end, size_t chars, char *out)
{
    size_t n = 0;
    while ((size_t)(end - p) >= chars + 2 && p[chars] == '\r' && p[chars + 1] == '\n' && portable_line(p, chars, out)) {
        p += chars + 2;
        out += chars / 4 * 3;
        n++;
    }
    return n;
}

static void portable_encode(const char *in, size_t lines, size_t chars, char *out)
{
    for (; lines > 0; lines--) {
        for (size_t i = 0; i < chars; i += 4, in += 3) {
            uint32_t v = (uint32_t)(uint8_t)in[0] << 16 | (uint32_t)(uint8_t)in[1] << 8 | (uint8_t)in[2];
            *out++ = digits[v >> 18];
            *out++ = digits[v >> 12 & 63];
            *out++ = digits[v >> 6 & 63];
            *out++ = digits[v & 63];
        }
        *out++ = '\r';
        *out++ = '\n';
    }
}

const struct tb_b64_kernel tb_b64_portable = {"portable", portable_find, portable_decode, portable_encode};

/* ---- AVX2 ---- */

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2"), always_inline)) static inline
#define AVX2_FN __attribute__((target("avx2"))) static

/* Which bytes are outside the alphabet: their bits of *lo & *hi are not 0; and the high nibbles. */
AVX2 __m256i classify(__m256i v, __m256i *lo, __m256i *hi)
{
    const __m256i lut_lo = _mm256_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A,
                                            0x1B, 0x1B, 0x1B, 0x1A, 0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                            0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A);
    const __m256i lut_hi = _mm256_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10,
                                            0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08,
                                            0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10);
    const __m256i mask = _mm256_set1_epi8(0x2f);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi32(v, 4), mask);
    *lo = _mm256_shuffle_epi8(lut_lo, _mm256_and_si256(v, mask));
    *hi = _mm256_shuffle_epi8(lut_hi, high);
    return high;
}

AVX2_FN size_t avx2_find(const char *p, size_t at, size_t len)
{
    for (; at < len && len - at >= WINDOW; at += STEP) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(p + at)), lo, hi;
        (void)classify(v, &lo, &hi);
        __m256i good = _mm256_cmpeq_epi8(_mm256_and_si256(lo, hi), _mm256_setzero_si256());
        good = _mm256_or_si256(good, _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\r')));
        good = _mm256_or_si256(good, _mm256_cmpeq_epi8(v, _mm256_set1_epi8('\n')));
        if (_mm256_movemask_epi8(good) == -1)
            return at;
    }
    return len;
}

/* 32 characters to 24 bytes (32 are written); false if one is outside the alphabet. */
AVX2 bool decode32(const char *p, char *out)
{
    const __m256i lut_roll = _mm256_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 19, 4,
                                              -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i bytes = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1, 2, 1, 0, 6, 5, 4, 10,
                                           9, 8, 14, 13, 12, -1, -1, -1, -1);
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p), lo, hi;
    __m256i high = classify(v, &lo, &hi);
    bool good = _mm256_testz_si256(lo, hi);
    __m256i slash = _mm256_cmpeq_epi8(v, _mm256_set1_epi8('/'));
    v = _mm256_add_epi8(v, _mm256_shuffle_epi8(lut_roll, _mm256_add_epi8(slash, high)));
    v = _mm256_maddubs_epi16(v, _mm256_set1_epi32(0x01400140));
    v = _mm256_madd_epi16(v, _mm256_set1_epi32(0x00011000));
    v = _mm256_shuffle_epi8(v, bytes);
    v = _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7));
    _mm256_storeu_si256((__m256i *)(void *)out, v);
    return good;
}

AVX2_FN size_t avx2_decode(const char *p, const char *end, size_t chars, char *out)
{
    size_t n = 0, bytes = chars / 4 * 3;
    while ((size_t)(end - p) >= chars + 2 && p[chars] == '\r' && p[chars + 1] == '\n') {
        bool good = true;
        for (size_t i = 0, o = 0; i + WINDOW < chars; i += WINDOW, o += 24)
            good &= decode32(p + i, out + o);
        good &= decode32(p + chars - WINDOW, out + bytes - 24);
        if (!good)
            break;
        p += chars + 2;
        out += bytes;
        n++;
    }
    return n;
}

/* 24 bytes (28 are read) to 32 characters. */
AVX2 void encode24(const char *in, char *out)
{
    const __m256i order = _mm256_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 1, 0, 2, 1, 4, 3, 5, 4, 7,
                                           6, 8, 7, 10, 9, 11, 10);
    const __m256i shift = _mm256_setr_epi8(65, 71, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 0, 0, 65, 71, -4,
                                           -4, -4, -4, -4, -4, -4, -4, -4, -4, -19, -16, 0, 0);
    __m256i v = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)in));
    v = _mm256_inserti128_si256(v, _mm_loadu_si128((const __m128i *)(const void *)(in + 12)), 1);
    v = _mm256_shuffle_epi8(v, order);
    __m256i a = _mm256_mulhi_epu16(_mm256_and_si256(v, _mm256_set1_epi32(0x0FC0FC00)), _mm256_set1_epi32(0x04000040));
    __m256i b = _mm256_mullo_epi16(_mm256_and_si256(v, _mm256_set1_epi32(0x003F03F0)), _mm256_set1_epi32(0x01000010));
    v = _mm256_or_si256(a, b);
    __m256i kind = _mm256_subs_epu8(v, _mm256_set1_epi8(51));
    kind = _mm256_sub_epi8(kind, _mm256_cmpgt_epi8(v, _mm256_set1_epi8(25)));
    v = _mm256_add_epi8(v, _mm256_shuffle_epi8(shift, kind));
    _mm256_storeu_si256((__m256i *)(void *)out, v);
}

AVX2_FN void avx2_encode(const char *in, size_t lines, size_t chars, char *out)
{
    size_t bytes = chars / 4 * 3;
    for (; lines > 0; lines--) {
        for (size_t i = 0, o = 0; o + WINDOW < chars; i += 24, o += WINDOW)
            encode24(in + i, out + o);
        encode24(in + bytes - 24, out + chars - WINDOW);
        out[chars] = '\r';
        out[chars + 1] = '\n';
        in += bytes;
        out += chars + 2;
    }
}

static const struct tb_b64_kernel avx2 = {"avx2", avx2_find, avx2_decode, avx2_encode};

const struct tb_b64_kernel *tb_b64_avx2(void)
{
    return __builtin_cpu_supports("avx2") ? &avx2 : NULL;
}
#else
const struct tb_b64_kernel *tb_b64_avx2(void)
{
    return NULL;
}
#endif

const struct tb_b64_kernel *tb_b64_best(void)
{
    const struct tb_b64_kernel *k = tb_b64_avx2();
    return k ? k : &tb_b64_portable;
}
