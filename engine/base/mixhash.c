/*
 * mixhash.c: a fast keyed hash of many bytes, to find what may be equal: four lanes of 64 x 64 bit multiplications,
 * each folded to 64 bits (the construction of wyhash).
 *
 * Equal bytes give equal results; different bytes nearly always different ones, and nobody without the key can aim for
 * the same. It proves nothing: whoever finds two equal hashes compares the bytes. Pure. Any thread.
 */
#include <tambo/base.h>

static uint64_t mix(uint64_t a, uint64_t b)
{
    unsigned __int128 r = (unsigned __int128)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

struct lanes {
    uint64_t v[4];
};

static void stripe(struct lanes *l, const uint64_t key[4], const uint8_t *p)
{
    for (unsigned i = 0; i < 4; i++)
        l->v[i] = mix(tb_get_le64(p + 16 * i) ^ key[i], tb_get_le64(p + 16 * i + 8) ^ l->v[i]);
}

uint64_t tb_mixhash(const uint64_t key[4], uint64_t seed, const void *ptr, size_t len)
{
    enum { STRIPE = 64 };
    const uint8_t *p = ptr;
    uint8_t last[STRIPE] = {0};
    struct lanes l;
    for (unsigned i = 0; i < 4; i++)
        l.v[i] = key[3 - i] + seed + i;
    for (size_t n = len / STRIPE; n > 0; n--, p += STRIPE)
        stripe(&l, key, p);
    if (len % STRIPE > 0) {
        memcpy(last, p, len % STRIPE);
        stripe(&l, key, last);
    }
    uint64_t a = mix(l.v[0] ^ key[1], l.v[1] ^ len), b = mix(l.v[2] ^ key[0], l.v[3] ^ seed);
    return mix(a ^ key[2], b ^ key[3]);
}
