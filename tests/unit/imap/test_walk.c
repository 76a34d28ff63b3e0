/* test_walk.c: sequence sets to ranges: "*", reversed and overlapping ranges, bounds; against a plain list of numbers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "frontends/imap/imap_session.h"

static struct tb_arena arena;

static enum tb_rc ranges(const char *text, uint32_t last, bool strict, struct tb_range *v, size_t *n)
{
    struct imap_parser p;
    struct imap_set set;
    tb_arena_reset(&arena);
    imap_parser_init(&p, tb_slice_str(text), &arena);
    imap_sequence_set(&p, &set);
    assert_false(p.failed);
    assert_true(p.p == p.end);
    return imap_set_ranges(&set, last, strict, v, n);
}

static void expect(const char *text, uint32_t last, const char *want)
{
    struct tb_range v[64];
    struct tb_uidset s = {.v = v};
    struct tb_buf b;
    assert_int_equal(ranges(text, last, false, v, &s.n), TB_OK);
    tb_buf_init(&b, 1000);
    tb_uidset_write(&s, &b);
    if (!tb_slice_eq(tb_buf_all(&b), tb_slice_str(want)))
        fail_msg("%s up to %u: %.*s, not %s", text, last, (int)b.len, b.ptr, want);
    tb_buf_free(&b);
}

static void test_sets(void **state)
{
    (void)state;
    expect("1", 5, "1");
    expect("*", 5, "5");
    expect("3:*", 5, "3:5");
    expect("*:3", 5, "3:5");
    expect("7:*", 5, "5"); /* RFC 3501 6.4.8: always the last message */
    expect("*:*", 5, "5");
    expect("4:2", 5, "2:4");
    expect("5,1,3", 5, "1,3,5");
    expect("1:2,3:4", 5, "1:4");
    expect("2:4,1:3", 5, "1:4");
    expect("1:5,2:3", 5, "1:5");
    expect("1:4294967295", 5, "1:5");
    expect("6:9", 5, "");
    expect("4294967295", 4294967295, "4294967295");
    expect("1:4294967295", 4294967295, "1:4294967295");
    expect("4294967295,4294967294", 4294967295, "4294967294:4294967295");
    expect("1:*", 0, "");
    expect("*", 0, "");
}

static void test_strict(void **state)
{
    static const char *const bad[] = {"6", "1:6", "6:*", "1,6", "6:1"};
    struct tb_range v[8];
    size_t n;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_int_equal(ranges(bad[i], 5, true, v, &n), TB_INVALID);
    assert_int_equal(ranges("1:5,*", 5, true, v, &n), TB_OK);
    assert_int_equal(ranges("1:*", 0, true, v, &n), TB_INVALID);
    assert_int_equal(ranges("*", 0, true, v, &n), TB_INVALID);
}

static void test_against_bits(void **state)
{
    uint32_t seed = 99;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct imap_set_range in[6];
        struct imap_set set = {.v = in};
        struct tb_range v[6];
        uint64_t want = 0, got = 0;
        size_t n = 0;
        seed = seed * 1664525 + 1013904223;
        uint32_t last = (seed >> 8) % 20;
        for (uint32_t k = (seed >> 16) % 6 + 1; k > 0; k--) {
            seed = seed * 1664525 + 1013904223;
            struct imap_set_range r = {(seed >> 8) % 25, (seed >> 16) % 25};
            uint32_t a = r.first ? r.first : last, b = r.last ? r.last : last;
            for (uint32_t x = a < b ? a : b; x <= (a < b ? b : a); x++)
                want |= x > 0 && x <= last ? 1ull << x : 0;
            in[set.n++] = r;
        }
        assert_int_equal(imap_set_ranges(&set, last, false, v, &n), TB_OK);
        for (size_t i = 0; i < n; i++) {
            assert_true(v[i].first <= v[i].last && (i == 0 || v[i].first > v[i - 1].last + 1));
            for (uint32_t x = v[i].first; x <= v[i].last; x++)
                got |= 1ull << x;
        }
        assert_true(got == want);
    }
}

static void test_many(void **state)
{
    enum { N = 100000 };
    struct imap_set_range *in = calloc(N, sizeof *in);
    struct tb_range *v = calloc(N, sizeof *v);
    struct imap_set set = {.v = in, .n = N};
    size_t n;
    (void)state;
    for (uint32_t i = 0; i < N; i++)
        in[i].first = in[i].last = 2 * (N - i); /* descending: the worst for an inserting set */
    clock_t start = clock();
    assert_int_equal(imap_set_ranges(&set, UINT32_MAX, false, v, &n), TB_OK);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 0.1); /* I39 */
    assert_int_equal(n, N);
    free(in);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_strict),
        cmocka_unit_test(test_against_bits),
        cmocka_unit_test(test_many),
    };
    tb_arena_init(&arena, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tb_arena_free(&arena);
    return failed;
}
