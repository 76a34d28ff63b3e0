/*
 * siphash.c: SipHash-2-4 (Aumasson and Bernstein, 2012), 64-bit result.
 *
 * A keyed hash for tables whose keys strangers choose; not a message authentication code for anything stored: that is
 * engine/crypto's HMAC. Pure. Any thread.
 */
#include <tambo/base.h>

struct state {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

static void rounds(struct state *s, unsigned n)
{
    while (n-- > 0) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 = rotate(s->v0, 32) + s->v3;
        s->v2 += s->v1;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 = rotate(s->v2, 32);
    }
}

uint64_t tb_siphash(const uint8_t key[16], const void *ptr, size_t len)
{
    uint64_t k0 = tb_get_le64(key), k1 = tb_get_le64(key + 8);
    struct state s = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                      k1 ^ 0x7465646279746573u};
    const uint8_t *p = ptr;
    uint64_t last = (uint64_t)len << 56;
    size_t rest = len % 8;

    for (const uint8_t *end = p + (len - rest); p != end; p += 8) {
        uint64_t word = tb_get_le64(p);

        s.v3 ^= word;
        rounds(&s, 2);
        s.v0 ^= word;
    }
    for (size_t i = 0; i < rest; i++)
        last |= (uint64_t)p[i] << (8 * i);
    s.v3 ^= last;
    rounds(&s, 2);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    rounds(&s, 4);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
