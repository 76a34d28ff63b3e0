/*
 * test_mixhash.c: the keyed hash that finds bodies which may be equal: it depends on every bit, on the length, on the
 * key and on what came before, and its values stay what they are, for they are stored.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/base.h>

static const uint64_t key[4] = {0x0123456789abcdefu, 0xfedcba9876543210u, 0x5555aaaa5555aaaau, 0x123u};

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void all_different(uint64_t *v, size_t n)
{
    qsort(v, n, sizeof(*v), compare);
    for (size_t i = 1; i < n; i++)
        assert_true(v[i - 1] != v[i]);
}

static void test_every_bit_counts(void **state)
{
    enum { LEN = 1000 };
    static uint8_t bytes[LEN];
    static uint64_t seen[8 * LEN + 1];
    (void)state;
    for (unsigned i = 0; i < LEN; i++)
        bytes[i] = (uint8_t)(i * 37);
    for (unsigned i = 0; i < 8 * LEN; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        seen[i] = tb_mixhash(key, 0, bytes, LEN);
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    seen[8 * LEN] = tb_mixhash(key, 0, bytes, LEN);
    all_different(seen, TB_ARRAY_LEN(seen));
}

static void test_length_counts(void **state)
{
    static uint8_t zeros[5000];
    static uint64_t seen[5000];
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(seen); i++)
        seen[i] = tb_mixhash(key, 0, zeros, i);
    all_different(seen, TB_ARRAY_LEN(seen));
}

static void test_key_and_seed_count(void **state)
{
    uint64_t seen[4 * 64 + 100], k[4];
    char text[300];
    (void)state;
    memset(text, 'x', sizeof(text));
    for (unsigned i = 0; i < 4 * 64; i++) {
        memcpy(k, key, sizeof(k));
        k[i / 64] ^= UINT64_C(1) << i % 64;
        seen[i] = tb_mixhash(k, 0, text, sizeof(text));
    }
    for (unsigned i = 0; i < 100; i++)
        seen[4 * 64 + i] = tb_mixhash(key, i, text, sizeof(text));
    all_different(seen, TB_ARRAY_LEN(seen));
}

static void test_values(void **state)
{
    (void)state;
    assert_true(tb_mixhash(key, 0, "", 0) == UINT64_C(0x06084ad6216310f0));
    assert_true(tb_mixhash(key, 0, "runner", 6) == UINT64_C(0x242acd5a7e6ac421));
    assert_true(tb_mixhash(key, 7, "a storehouse on the road, where runners handed messages over, one by one", 72) ==
                UINT64_C(0x866c3eba55cf9c48));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_length_counts),
        cmocka_unit_test(test_key_and_seed_count),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests_name("mixhash", tests, NULL, NULL);
}
