/* test_date.c: RFC 5322 3.3 and 4.3, RFC 9051 date-time. */
#include "tests/unit/mime/mime_test.h"

static void parse(const char *text, int64_t utc_s, int zone_min)
{
    struct tb_date d;
    if (!tb_date_parse(tb_slice_str(text), &d))
        fail_msg("refused: %s", text);
    assert_int_equal(d.utc_s, utc_s);
    assert_int_equal(d.zone_min, zone_min);
}

static void refuse(const char *text)
{
    struct tb_date d;
    if (tb_date_parse(tb_slice_str(text), &d))
        fail_msg("accepted: %s", text);
}

static void test_forms(void **state)
{
    (void)state;
    parse("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)", 837595405, -420);
    parse("17 Jul 1996 09:23:25 +0000", 837595405, 0);
    parse("Fri, 21 Nov 1997 09:55:06 -0600", 880127706, -360);                                      /* RFC 5322 A.1.1 */
    parse("21 Nov 97 09:55:06 GMT", 880106106, 0);                                                  /* RFC 5322 A.6.2 */
    parse("Thu,\r\n 13\r\n Feb\r\n 1969\r\n 23:32\r\n -0330 (Newfoundland Time)", -27723480, -210); /* A.5 */
    parse("1 Jan 49 0:00 EST", 2493090000, -300);
    parse("1 Jan 50 00:00 Z", -631152000, 0);
    parse("1 Jan 103 00:00:00 +0530", 1041359400, 330);
    parse("Mon Sep 17 00:00:00 2001", 1000684800, 0);
    parse("Mon Sep 17 00:00:00 PDT 2001", 1000710000, -420);
    parse("31 Dec 9999 23:59:60 +0000", 253402300800, 0);
    parse("1 Jan 2000 00:00:00 +9999", 946684800, 0); /* M52 */
    parse("1 Jan 2000 00:00:00", 946684800, 0);
}

static void test_refused(void **state)
{
    (void)state;
    refuse("");
    refuse("x");
    refuse("31 Feb 2026 00:00:00 +0000");
    refuse("29 Feb 1900 00:00:00 +0000");
    refuse("1 Jan 0 00:00:00 +0000");
    refuse("1 Jan 99999 00:00:00 +0000");
    refuse("1 Jan 1899 00:00:00 +0000");
    refuse("1 Jan 2000 24:00:00 +0000");
    refuse("1 Jan 2000 00:60:00 +0000");
    refuse("1 Jan 2000 00 +0000");
    refuse("1 Foo 2000 00:00:00 +0000");
    refuse("32 Jan 2000 00:00:00 +0000");
    refuse("0 Jan 2000 00:00:00 +0000");
    refuse("(((((");
}

static void test_internal(void **state)
{
    (void)state;
    struct tb_buf b;
    int64_t t;
    tb_buf_init(&b, 200);
    tb_date_internal_write(837596665, &b);
    assert_slice(tb_buf_all(&b), "17-Jul-1996 09:44:25 +0000");
    b.len = 0;
    tb_date_internal_write(0, &b);
    assert_slice(tb_buf_all(&b), " 1-Jan-1970 00:00:00 +0000");
    b.len = 0;
    tb_date_rfc5322_write(837596665, &b);
    assert_slice(tb_buf_all(&b), "Wed, 17 Jul 1996 09:44:25 +0000");
    b.len = 0;
    tb_date_rfc5322_write(-1, &b);
    assert_slice(tb_buf_all(&b), "Wed, 31 Dec 1969 23:59:59 +0000");
    b.len = 0;
    tb_date_internal_write(INT64_MAX, &b);
    assert_slice(tb_buf_all(&b), "31-Dec-9999 23:59:59 +0000");
    tb_buf_free(&b);
    assert_true(tb_date_internal_parse(TB_SLICE("17-Jul-1996 02:44:25 -0700"), &t));
    assert_int_equal(t, 837596665);
    assert_true(tb_date_internal_parse(TB_SLICE(" 1-jan-1970 00:00:00 +0000"), &t));
    assert_int_equal(t, 0);
    assert_false(tb_date_internal_parse(TB_SLICE("99-Foo-2026 00:00:00 +0000"), &t));
    assert_false(tb_date_internal_parse(TB_SLICE("31-Feb-2026 00:00:00 +0000"), &t));
    assert_false(tb_date_internal_parse(TB_SLICE("17-Jul-1996 02:44:25 -2400"), &t));
    assert_false(tb_date_internal_parse(TB_SLICE("17-Jul-1996 02:44:25 0700"), &t));
    assert_false(tb_date_internal_parse(TB_SLICE("7-Jul-1996 02:44:25 -0700"), &t));
    assert_false(tb_date_internal_parse(TB_SLICE(""), &t));
}

/* Every day from 1900 on: writing and reading agree, days count up by one. */
static void test_round_trip(void **state)
{
    (void)state;
    struct tb_buf b;
    struct tb_date d;
    int64_t t;
    tb_buf_init(&b, 200);
    for (int64_t day = -25567; day < 60000; day++) {
        int64_t s = day * 86400 + (day * 7919 % 86400 + 86400) % 86400;
        b.len = 0;
        tb_date_internal_write(s, &b);
        assert_true(tb_date_internal_parse(tb_buf_all(&b), &t));
        assert_int_equal(t, s);
        b.len = 0;
        tb_date_rfc5322_write(s, &b);
        assert_true(tb_date_parse(tb_buf_all(&b), &d));
        assert_int_equal(d.utc_s, s);
        assert_int_equal(tb_date_day(s, 0), day);
    }
    tb_buf_free(&b);
}

static void test_days(void **state)
{
    (void)state;
    int32_t day;
    assert_int_equal(tb_date_day(-1, 0), -1);
    assert_int_equal(tb_date_day(86399, 1), 1);
    assert_int_equal(tb_date_day(0, -1), -1);
    (void)tb_date_day(INT64_MIN, -2000);
    assert_true(tb_date_civil_day(2000, 2, 29, &day));
    assert_int_equal(day, 11016);
    assert_false(tb_date_civil_day(2100, 2, 29, &day));
    assert_false(tb_date_civil_day(2000, 13, 1, &day));
    assert_false(tb_date_civil_day(10000, 1, 1, &day));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_refused), cmocka_unit_test(test_internal),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_days),
    };
    (void)setup_scanner;
    (void)free_scanner;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
