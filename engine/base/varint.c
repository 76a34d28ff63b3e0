/*
 * varint.c: LEB128 numbers, seven bits a byte, lowest first.
 *
 * Reading accepts what a padded writer would produce ("80 00" is 0), but never more than ten bytes or 64 bits.
 * Pure. Any thread.
 */
#include <tambo/base.h>

enum { VARINT_BYTES_MAX = 10 };

size_t tb_put_varint(void *p, uint64_t v)
{
    uint8_t *to = p;
    size_t n = 0;

    while (v >= 0x80) {
        to[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    to[n++] = (uint8_t)v;
    return n;
}

bool tb_get_varint(struct tb_slice *s, uint64_t *v)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < s->len && i < VARINT_BYTES_MAX; i++) {
        uint8_t byte = (uint8_t)s->ptr[i];

        if (i == VARINT_BYTES_MAX - 1 && byte > 1)
            return false;
        sum |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *v = sum;
            s->ptr += i + 1;
            s->len -= i + 1;
            return true;
        }
    }
    return false;
}
