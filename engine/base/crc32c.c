/*
 * crc32c.c: CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, as in RFC 3720 appendix B.4.
 *
 * Both forms give the same answer for the same bytes however they are cut. Pure. Any thread.
 */
#include "engine/base/crc32c.h"

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
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *ptr, size_t len)
{
    const uint8_t *p = ptr;
    uint64_t wide = (uint32_t)~crc;

    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;

        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; len > 0; p++, len--)
        crc = __builtin_ia32_crc32qi(crc, *p);
    return ~crc;
}

uint32_t tb_crc32c(uint32_t crc, const void *ptr, size_t len)
{
    if (__builtin_cpu_supports("sse4.2"))
        return crc32c_sse42(crc, ptr, len);
    return tb_crc32c_portable(crc, ptr, len);
}
#else
uint32_t tb_crc32c(uint32_t crc, const void *ptr, size_t len)
{
    return tb_crc32c_portable(crc, ptr, len);
}
#endif
