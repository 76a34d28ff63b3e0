/*
 * buf.c: growing bytes with a limit.
 *
 * Never holds more than limit bytes, never reports failure but by the sticky flag. Invariant: len <= cap <= limit
 * (cap may be 1 when limit is 0). One thread at a time.
 */
#include <tambo/base.h>

#include <stdlib.h>

enum { FIRST_BYTES = 256 };

void tb_buf_init(struct tb_buf *b, size_t limit)
{
    *b = (struct tb_buf){.limit = limit};
}

void tb_buf_free(struct tb_buf *b)
{
    free(b->ptr);
    *b = (struct tb_buf){.limit = b->limit};
}

static bool grow(struct tb_buf *b, size_t need)
{
    size_t cap = b->cap < FIRST_BYTES ? FIRST_BYTES : b->cap;
    char *p;

    while (cap < need)
        cap = cap > b->limit / 2 ? b->limit : cap * 2;
    if (cap > b->limit)
        cap = b->limit > 0 ? b->limit : 1;
    p = realloc(b->ptr, cap);
    if (!p)
        return false;
    b->ptr = p;
    b->cap = cap;
    return true;
}

char *tb_buf_reserve(struct tb_buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (b->ptr && n <= b->cap - b->len)
        return b->ptr + b->len;
    if (b->len > b->limit || n > b->limit - b->len || !grow(b, b->len + n)) {
        b->failed = true;
        return NULL;
    }
    return b->ptr + b->len;
}

void tb_buf_put(struct tb_buf *b, const void *ptr, size_t len)
{
    char *to;

    if (len == 0)
        return;
    to = tb_buf_reserve(b, len);
    if (to) {
        memcpy(to, ptr, len);
        b->len += len;
    }
}

void tb_buf_slice(struct tb_buf *b, struct tb_slice s)
{
    tb_buf_put(b, s.ptr, s.len);
}

void tb_buf_str(struct tb_buf *b, const char *s)
{
    tb_buf_put(b, s, strlen(s));
}

void tb_buf_char(struct tb_buf *b, char c)
{
    tb_buf_put(b, &c, 1);
}

void tb_buf_u64(struct tb_buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    tb_buf_put(b, digits + at, sizeof(digits) - at);
}

void tb_buf_consume(struct tb_buf *b, size_t n)
{
    TB_ASSERT(n <= b->len);
    b->len -= n;
    if (b->len > 0 && n > 0)
        memmove(b->ptr, b->ptr + n, b->len);
}
