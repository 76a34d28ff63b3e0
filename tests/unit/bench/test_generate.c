/*
 * test_generate.c: generated mail is sendable as it is, the same for the same seed, and of the size that real mail has.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bench/generate.c"

enum { MESSAGES = 3000 };
static uint64_t total_bytes, longest_line, checksum, multiparts;

uint64_t bench_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 17;
}

/* In the place of the corpus: look at what is made. */
enum tb_rc bench_corpus_add(struct bench_corpus *c, struct tb_slice raw)
{
    size_t line = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char b = raw.ptr[i];
        assert_true(b == '\t' || b == '\r' || b == '\n' || (b >= 0x20 && b < 0x7f));
        if (b == '\n')
            assert_true(i > 0 && raw.ptr[i - 1] == '\r');
        if (b == '\r')
            assert_true(i + 1 < raw.len && raw.ptr[i + 1] == '\n');
        line = b == '\n' ? 0 : line + 1;
        longest_line = line > longest_line ? line : longest_line;
    }
    assert_int_equal(line, 0);
    assert_non_null(memmem(raw.ptr, raw.len, "\r\n\r\n", 4));
    multiparts += memmem(raw.ptr, raw.len, "multipart/", 10) != NULL;
    total_bytes += raw.len;
    checksum = checksum * 31 + tb_crc32c(0, raw.ptr, raw.len);
    c->n++;
    return TB_OK;
}

static uint64_t make(uint64_t seed)
{
    struct bench_corpus c = {0};
    struct tb_error err;
    total_bytes = longest_line = checksum = multiparts = 0;
    assert_int_equal(bench_corpus_generate(&c, seed, MESSAGES, &err), TB_OK);
    assert_int_equal(c.n, MESSAGES);
    return checksum;
}

static void test_shape(void **state)
{
    (void)state;
    (void)make(1); /* the checksum is another test's */
    assert_in_range(total_bytes / MESSAGES, 9000, 20000);
    assert_in_range(multiparts, MESSAGES * 15 / 100, MESSAGES * 35 / 100);
    assert_in_range(longest_line, 60, 998); /* RFC 5322 2.1.1 */
}

static void test_same_seed_same_mail(void **state)
{
    uint64_t first = make(42);
    (void)state;
    assert_true(make(42) == first);
    assert_true(make(43) != first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape),
        cmocka_unit_test(test_same_seed_same_mail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
