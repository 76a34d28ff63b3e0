/* test_write.c: numbers, dates and flags as the writer puts them into memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "frontends/imap/imap_session.h"

static void test_numbers(void **state)
{
    (void)state;
    for (uint64_t v = 1, k = 0; k < 64; k++, v <<= 1) {
        for (uint64_t d = v - 2; d != v + 3; d++) {
            char want[32], got[IMAP_U64_ROOM];
            int n = snprintf(want, sizeof want, "%llu", (unsigned long long)d);
            assert_int_equal(imap_fmt_u64(got, d) - got, n);
            assert_memory_equal(got, want, (size_t)n);
        }
    }
}

static void date(int64_t utc_s, const char *want)
{
    char got[IMAP_DATE_ROOM];
    size_t n = (size_t)(imap_fmt_date(got, utc_s) - got);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(got, want, n);
}

static void test_dates(void **state)
{
    (void)state;
    date(0, "\" 1-Jan-1970 00:00:00 +0000\"");
    date(837596665, "\"17-Jul-1996 09:44:25 +0000\"");
    date(951782399, "\"28-Feb-2000 23:59:59 +0000\"");
    date(951782400, "\"29-Feb-2000 00:00:00 +0000\"");
    date(-1, "\"31-Dec-1969 23:59:59 +0000\"");
    date(253402300799, "\"31-Dec-9999 23:59:59 +0000\"");
    date(253402300800, "\" 1-Jan-1970 00:00:00 +0000\""); /* five digits: no date-year */
    date(INT64_MIN, "\" 1-Jan-1970 00:00:00 +0000\"");
    for (int64_t t = -2208988800; t < 253402300800; t += 86400 * 37 + 12345) {
        struct tb_buf b;
        char got[IMAP_DATE_ROOM];
        int64_t back;
        size_t n = (size_t)(imap_fmt_date(got, t) - got);
        assert_int_equal(n, 28);
        tb_buf_init(&b, 100);
        tb_buf_put(&b, got + 1, n - 2);
        assert_true(tb_date_internal_parse(tb_buf_all(&b), &back));
        assert_true(back == t);
        tb_buf_free(&b);
    }
}

static void test_flags(void **state)
{
    struct imap_keywords k = {.names = {TB_SLICE("one"), {0}, TB_SLICE("$three")}, .n = 3};
    char got[IMAP_FLAGS_ROOM + 100];
    (void)state;
    *imap_fmt_flags(got, 0, 0, &k) = '\0';
    assert_string_equal(got, "()");
    *imap_fmt_flags(got, TB_FLAG_SEEN, 0, &k) = '\0';
    assert_string_equal(got, "(\\Seen)");
    *imap_fmt_flags(got, 31, 7 | 1ull << 63, &k) = '\0'; /* a free slot and one not known yet say nothing */
    assert_string_equal(got, "(\\Answered \\Flagged \\Deleted \\Seen \\Draft one $three)");
    assert_true(strlen("(\\Answered \\Flagged \\Deleted \\Seen \\Draft ") + 1 <= IMAP_FLAGS_ROOM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
