/*
 * crc32c.c: CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, as in RFC 3720 appendix B.4.
 *
 * Both forms give the same answer for the same bytes however they are cut. Pure. Any thread.
 */
#include "engine/base/crc32c.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* The table is linear over XOR: its entry for a byte is the sum of the entries of its bits. */
#define T1(i) \
    (((i)&1 ? 0xf26b8303u : 0u) ^ ((i)&2 ? 0xe13b70f7u : 0u) ^ ((i)&4 ? 0xc79a971fu : 0u) ^ \
     ((i)&8 ? 0x8ad958cfu : 0u) ^ ((i)&16 ? 0x105ec76fu : 0u) ^ ((i)&32 ? 0x20bd8edeu : 0u) ^ \
     ((i)&64 ? 0x417b1dbcu : 0u) ^ ((i)&128 ? 0x82f63b78u : 0u))
#define T4(i) T1(i), T1((i) + 1), T1((i) + 2), T1((i) + 3)
#define T16(i) T4(i), T4((i) + 4), T4((i) + 8), T4((i) + 12)
#define T64(i) T16(i), T16((i) + 16), T16((i) + 32), T16((i) + 48)

static const uint32_t table[256] = {T64(0), T64(64), T64(128), T64(192)};

uint32_t tb_crc32c_portable(uint32_t crc, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;

    crc = ~crc;
    for (size_t i = 0; i < len; i++)
        crc = (crc >> 8) ^ table[(crc ^ p[i]) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
/*
 * The instruction takes three cycles but one may start every cycle, so three stretches of n bytes run side by side.
 * Their sums join at the last word: moving a sum past m bytes multiplies it by x^(8m) mod P; the instruction itself
 * gives x^32 and the reflected product one more x, so the factors are x^(8n - 33) and x^(16n - 33) mod P, reflected.
 * (Gopal and others, "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel 2011.)
 */
struct stride {
    size_t n;
    uint64_t past_one, past_two;
};
static const struct stride strides[] = {{512, 0xdd7e3b0c, 0x170076fa}, {64, 0x9e4addf8, 0x0d3b6092}};

__attribute__((target("sse4.2,pclmul"))) static uint64_t three(uint64_t sum, const uint8_t *p, const struct stride *s)
{
    uint64_t a = sum, b = 0, c = 0, x, y, z = 0;
    size_t n = s->n;

    for (size_t i = 0; i < n; i += 8) {
        memcpy(&x, p + i, 8);
        memcpy(&y, p + n + i, 8);
        memcpy(&z, p + 2 * n + i, 8);
        a = __builtin_ia32_crc32di(a, x);
        b = __builtin_ia32_crc32di(b, y);
        if (i + 8 < n)
            c = __builtin_ia32_crc32di(c, z);
    }
    __m128i moved_a = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)a), _mm_cvtsi64_si128((int64_t)s->past_two), 0);
    __m128i moved_b = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)b), _mm_cvtsi64_si128((int64_t)s->past_one), 0);
    return __builtin_ia32_crc32di(c, z ^ (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(moved_a, moved_b)));
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_fast(uint32_t crc, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;
    uint64_t sum = (uint32_t)~crc;

    for (size_t i = 0; i < TB_ARRAY_LEN(strides); i++)
        for (size_t step = 3 * strides[i].n; len >= step; p += step, len -= step)
            sum = three(sum, p, &strides[i]);
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;

        memcpy(&word, p, 8);
        sum = __builtin_ia32_crc32di(sum, word);
    }
    crc = (uint32_t)sum;
    for (; len > 0; p++, len--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return ~crc;
}

uint32_t tb_crc32c(uint32_t crc, const void *ptr, size_t len)
{
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
        return crc32c_fast(crc, ptr, len);
    return tb_crc32c_portable(crc, ptr, len);
}
#else
uint32_t tb_crc32c(uint32_t crc, const void *ptr, size_t len)
{
    return tb_crc32c_portable(crc, ptr, len);
}
#endif
