/*
 * test_base.c: slices, errors, arena, buffers, numbers, checksums, histogram: known answers and edges.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void slices(void **state)
{
    struct tb_slice s = TB_SLICE("hello");
    uint64_t v = 7;

    (void)state;
    assert_true(tb_slice_eq(tb_slice_sub(s, 1, 3), TB_SLICE("ell")));
    assert_true(tb_slice_eq(tb_slice_sub(s, 3, SIZE_MAX), TB_SLICE("lo")));
    assert_int_equal(tb_slice_sub(s, 5, 1).len, 0);
    assert_int_equal(tb_slice_sub(s, SIZE_MAX, SIZE_MAX).len, 0);
    assert_int_equal(tb_slice_sub(tb_slice(NULL, 0), 1, 1).len, 0);
    assert_true(tb_slice_ieq(TB_SLICE("[INBOX]"), TB_SLICE("[inbox]")));
    assert_false(tb_slice_ieq(TB_SLICE("["), TB_SLICE("{"))); /* differ by the case bit, are no letters */
    assert_false(tb_slice_ieq(TB_SLICE("@"), TB_SLICE("`")));
    assert_false(tb_slice_ieq(TB_SLICE("\xc3\xa4"), TB_SLICE("\xc3\x84")));
    assert_true(tb_slice_ieq(tb_slice(NULL, 0), TB_SLICE("")));
    assert_true(tb_slice_istarts(TB_SLICE("Content-Type: x"), TB_SLICE("CONTENT-")));
    assert_false(tb_slice_istarts(TB_SLICE("Con"), TB_SLICE("CONTENT-")));
    assert_true(tb_slice_eq(tb_slice_trim(TB_SLICE(" \t\r\na b\r\n ")), TB_SLICE("a b")));
    assert_int_equal(tb_slice_trim(TB_SLICE(" \r\n ")).len, 0);
    assert_true(tb_slice_u64(TB_SLICE("18446744073709551615"), UINT64_MAX, &v));
    assert_true(v == UINT64_MAX);
    assert_false(tb_slice_u64(TB_SLICE("18446744073709551616"), UINT64_MAX, &v));
    assert_true(tb_slice_u64(TB_SLICE("0009"), 9, &v));
    assert_int_equal(v, 9);
    assert_false(tb_slice_u64(TB_SLICE("10"), 9, &v));
    assert_false(tb_slice_u64(TB_SLICE(""), 9, &v));
    assert_false(tb_slice_u64(TB_SLICE("+1"), 9, &v));
    assert_false(tb_slice_u64(TB_SLICE("1 "), 9, &v));
    assert_false(tb_slice_u64(TB_SLICE("1/"), 99, &v));
    assert_false(tb_slice_u64(TB_SLICE("1:"), 99, &v));
    assert_int_equal(v, 9);
}

static void errors(void **state)
{
    struct tb_error err;
    char longer[600];

    (void)state;
    assert_string_equal(tb_rc_text(TB_OK), "ok");
    assert_string_equal(tb_rc_text(TB_CANCELLED), "cancelled");
    assert_string_equal(tb_rc_text((enum tb_rc)99), "unknown result");
    assert_int_equal(tb_error_set(NULL, TB_IO, ENOENT, "x"), TB_IO);
    assert_int_equal(tb_error_set(&err, TB_IO, ENOENT, "open %s", "a"), TB_IO);
    assert_string_equal(err.text, "open a: No such file or directory");
    assert_int_equal(err.sys, ENOENT);
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(tb_error_set(&err, TB_LIMIT, ENOENT, "%s", longer), TB_LIMIT);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void arena_limits(void **state)
{
    struct tb_arena a;
    char *first, *p;

    (void)state;
    tb_arena_init(&a, 10000);
    first = tb_arena_alloc(&a, 1);
    assert_non_null(first);
    assert_int_equal((uintptr_t)first % 16, 0);
    p = tb_arena_alloc(&a, 9000); /* a chunk of its own; the first goes on being filled */
    assert_non_null(p);
    memset(p, 'x', 9000);
    assert_ptr_equal(tb_arena_alloc(&a, 16), first + 16);
    assert_false(a.overflowed);
    assert_null(tb_arena_alloc(&a, 5000));
    assert_true(a.overflowed);
    assert_null(tb_arena_alloc(&a, 1)); /* sticky */
    tb_arena_reset(&a);
    assert_false(a.overflowed);
    p = tb_arena_alloc(&a, 64);
    assert_ptr_equal(p, first); /* the chunk was kept */
    for (int i = 0; i < 64; i++)
        assert_int_equal(p[i], 0);
    assert_null(tb_arena_alloc(&a, SIZE_MAX));
    tb_arena_free(&a);
    assert_null(a.chunks);
}

static void arena_many(void **state)
{
    struct tb_arena a;
    struct tb_slice copies[2000];
    char text[64];

    (void)state;
    tb_arena_init(&a, 1 << 20);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2000; i++) {
            int n = snprintf(text, sizeof(text), "%0*d", 1 + i % 50, i);

            copies[i] = tb_arena_copy(&a, tb_slice(text, (size_t)n));
            assert_non_null(copies[i].ptr);
        }
        for (int i = 0; i < 2000; i++) {
            assert_int_equal(atoi(copies[i].ptr), i);
            assert_int_equal(copies[i].ptr[copies[i].len], '\0');
        }
        tb_arena_reset(&a);
    }
    tb_arena_free(&a);
    tb_arena_init(&a, 8);
    assert_null(tb_arena_copy(&a, TB_SLICE("12345678")).ptr);
    assert_true(a.overflowed);
    assert_int_equal(tb_arena_copy(&a, tb_slice("", SIZE_MAX)).len, 0);
    tb_arena_free(&a);
}

static void buffers(void **state)
{
    struct tb_buf b;

    (void)state;
    tb_buf_init(&b, 1000);
    assert_null(b.ptr);
    tb_buf_str(&b, "n=");
    tb_buf_u64(&b, 0);
    tb_buf_char(&b, ' ');
    tb_buf_u64(&b, UINT64_MAX);
    assert_true(tb_slice_eq(tb_buf_all(&b), TB_SLICE("n=0 18446744073709551615")));
    tb_buf_consume(&b, 4);
    assert_true(tb_slice_eq(tb_buf_all(&b), TB_SLICE("18446744073709551615")));
    for (int i = 0; i < 98; i++)
        tb_buf_str(&b, "0123456789");
    assert_int_equal(b.len, 1000);
    assert_false(b.failed);
    tb_buf_consume(&b, 1);
    tb_buf_str(&b, "xy"); /* one too many: nothing is written */
    assert_true(b.failed);
    assert_int_equal(b.len, 999);
    tb_buf_char(&b, 'x'); /* sticky */
    assert_int_equal(b.len, 999);
    assert_null(tb_buf_reserve(&b, 0));
    tb_buf_free(&b);
    assert_false(b.failed);
    assert_non_null(tb_buf_reserve(&b, 1000));
    assert_null(tb_buf_reserve(&b, SIZE_MAX));
    tb_buf_free(&b);
    tb_buf_init(&b, SIZE_MAX);
    for (size_t i = 0; i < 100000; i++)
        tb_buf_char(&b, (char)('a' + i % 26));
    assert_int_equal(b.len, 100000);
    for (size_t i = 0; i < 100000; i++)
        assert_int_equal(b.ptr[i], 'a' + (int)(i % 26));
    tb_buf_free(&b);
}

static void numbers(void **state)
{
    static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX};
    uint8_t p[16];

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(values); i++) {
        size_t n = tb_put_varint(p, values[i]);

        for (size_t cut = 0; cut <= n; cut++) {
            struct tb_slice s = tb_slice(p, cut);
            uint64_t v = 42;

            assert_int_equal(tb_get_varint(&s, &v), cut == n);
            assert_true(v == (cut == n ? values[i] : 42));
            assert_int_equal(s.len, cut == n ? 0 : cut);
        }
    }
    memset(p, 0xff, sizeof(p));
    for (int last = 0; last < 4; last++) {
        struct tb_slice s = tb_slice(p, 12);
        uint64_t v;

        p[9] = (uint8_t)last;
        assert_int_equal(tb_get_varint(&s, &v), last < 2);
    }
    p[9] = 0x81; /* continues past 64 bits */
    {
        struct tb_slice s = tb_slice(p, 16);
        uint64_t v;

        assert_false(tb_get_varint(&s, &v));
    }
    tb_put_be32(p, 0x01020304);
    assert_memory_equal(p, "\1\2\3\4", 4);
    assert_int_equal(tb_get_be32(p), 0x01020304);
    tb_put_le64(p, 0x0102030405060708u);
    assert_memory_equal(p, "\10\7\6\5\4\3\2\1", 8);
    assert_int_equal(tb_get_be16(p), 0x0807);
}

static void crc(void **state)
{
    uint8_t bytes[2000]; /* longer than the longest stride of the fast form */

    (void)state;
    /* RFC 3720 appendix B.4 */
    memset(bytes, 0, 32);
    assert_int_equal(tb_crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_int_equal(tb_crc32c(0, bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(tb_crc32c(0, bytes, 32), 0x46dd794eu);
    assert_int_equal(tb_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(tb_crc32c_portable(0, "123456789", 9), 0xe3069283u);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 167 + 13);
    for (size_t n = 0; n < sizeof(bytes); n++) {
        uint32_t whole = tb_crc32c(0, bytes, n);

        assert_int_equal(whole, tb_crc32c_portable(0, bytes, n));
        assert_int_equal(whole, tb_crc32c(tb_crc32c(0, bytes, n / 3), bytes + n / 3, n - n / 3));
    }
}

static void siphash(void **state)
{
    /* from the reference implementation: key 00..0f, input 00..n-1 */
    static const struct {
        size_t len;
        uint64_t hash;
    } known[] = {{0, 0x726fdb47dd0e0e31u}, {1, 0x74f839c593dc67fdu},  {7, 0xab0200f58b01d137u},
                 {8, 0x93f5f5799a932462u}, {15, 0xa129ca6149be45e5u}, {63, 0x958a324ceb064572u}};
    uint8_t key[16], input[64];

    (void)state;
    for (uint8_t i = 0; i < 64; i++) {
        input[i] = i;
        key[i % 16] = i % 16;
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(known); i++)
        assert_true(tb_siphash(key, input, known[i].len) == known[i].hash);
}

static void histogram(void **state)
{
    static struct tb_histogram h, other;
    static const double quantiles[] = {0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999};

    (void)state;
    memset(&h, 0, sizeof(h));
    memset(&other, 0, sizeof(other));
    assert_int_equal(tb_histogram_quantile(&h, 0.5), 0);
    for (uint64_t i = 1; i <= 100000; i++)
        tb_histogram_add(i % 2 ? &h : &other, i * 977);
    tb_histogram_merge(&h, &other);
    assert_int_equal(h.count, 100000);
    assert_int_equal(h.max, 97700000);
    assert_int_equal(h.sum, (uint64_t)977 * 50000 * 100001);
    for (size_t i = 0; i < TB_ARRAY_LEN(quantiles); i++) {
        double exact = (quantiles[i] * 100000 + 1) * 977;
        double got = (double)tb_histogram_quantile(&h, quantiles[i]);

        assert_true(got > exact * 0.99 && got < exact * 1.01);
    }
    assert_int_equal(tb_histogram_quantile(&h, 1.0), 97700000);
    for (uint64_t v = 0; v < 128; v++) { /* exact */
        memset(&h, 0, sizeof(h));
        tb_histogram_add(&h, v);
        tb_histogram_add(&h, 1000);
        assert_int_equal(tb_histogram_quantile(&h, 0.1), v);
    }
    for (int bit = 0; bit < 64; bit++) { /* every size has its bucket */
        tb_histogram_add(&h, (uint64_t)1 << bit);
        tb_histogram_add(&h, ((uint64_t)1 << bit) - 1);
        tb_histogram_add(&h, UINT64_MAX >> bit);
    }
    assert_true(h.max == UINT64_MAX);
    assert_true(tb_histogram_quantile(&h, 1) == UINT64_MAX);
}

static void log_lines(void **state)
{
    static const char start[] = "level=warn name=a?level=error??\xc3\xa4\nlevel=debug this one\nlevel=info xxx";
    int ends[2], kept = dup(2);
    char text[8192];
    char longer[4000];
    ssize_t n;

    (void)state;
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[1], 2), 2);
    tb_log(TB_LOG_WARN, "name=%s", "a\nlevel=error\x7f\t\xc3\xa4");
    tb_log(TB_LOG_DEBUG, "not this one");
    tb_log_level(TB_LOG_DEBUG);
    tb_log(TB_LOG_DEBUG, "this one");
    tb_log_level(TB_LOG_INFO);
    tb_log(TB_LOG_INFO, "%s", longer);
    (void)dup2(kept, 2);
    (void)close(ends[1]);
    n = read(ends[0], text, sizeof(text) - 1);
    (void)close(ends[0]);
    (void)close(kept);
    assert_true(n > 0);
    text[n] = '\0';
    assert_memory_equal(text, start, sizeof(start) - 1);
    assert_int_equal(text[n - 1], '\n');
    assert_string_equal(text + n - 5, "x...\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices),     cmocka_unit_test(errors),  cmocka_unit_test(arena_limits),
        cmocka_unit_test(arena_many), cmocka_unit_test(buffers), cmocka_unit_test(numbers),
        cmocka_unit_test(crc),        cmocka_unit_test(siphash), cmocka_unit_test(histogram),
        cmocka_unit_test(log_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
