/* test_frame.c: where commands end: lines, literals, limits, and that no split of the input changes the answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frontends/imap/imap_session.h"

static const struct imap_frame_limits wide = {1000, 100, 3, UINT32_MAX};

/* run: feed text `step` bytes at a time, taking every literal as an argument; the result and where it was found. */
static enum imap_frame_result run(const char *text, size_t len, size_t step, const struct imap_frame_limits *limits,
                                  struct imap_frame *f, struct imap_literal *l)
{
    *f = (struct imap_frame){0};
    for (size_t have = 0;;) {
        enum imap_frame_result r = imap_frame_next(f, limits, tb_slice(text, have), l);
        if (r == FRAME_LITERAL && !l->over) {
            imap_frame_literal(f, l);
        } else if (r != FRAME_MORE) {
            return r;
        } else if (have == len) {
            return FRAME_MORE;
        } else {
            have = have + step < len ? have + step : len;
        }
    }
}

static void expect_len(const char *text, size_t len, enum imap_frame_result want, size_t scanned)
{
    for (size_t step = 1; step <= len; step++) {
        struct imap_frame f;
        struct imap_literal l;
        assert_int_equal(run(text, len, step, &wide, &f, &l), want);
        assert_int_equal(f.scanned, scanned);
    }
}

static void expect(const char *text, enum imap_frame_result want, size_t scanned)
{
    expect_len(text, strlen(text), want, scanned);
}

static void test_lines(void **state)
{
    (void)state;
    expect("a NOOP\r\n", FRAME_COMMAND, 8);
    expect("a NOOP\r\nb NOOP\r\n", FRAME_COMMAND, 8);
    expect("\r\nb NOOP\r\n", FRAME_COMMAND, 2);
    expect("a NOOP\n", FRAME_BARE, 7);
    expect("\n", FRAME_BARE, 1);
    expect("a NO\rOP\r\n", FRAME_COMMAND, 9);
    expect("a NOOP", FRAME_MORE, 6);
    expect("a NOOP\r", FRAME_MORE, 7);
    expect_len("a\0b\r\n", 5, FRAME_COMMAND, 5);
}

static void test_literals(void **state)
{
    (void)state;
    expect("a LOGIN {3}\r\nabc {2}\r\nde\r\nb NOOP\r\n", FRAME_COMMAND, 26);
    expect("a LOGIN {3+}\r\n\r\n\n x\r\n", FRAME_COMMAND, 21);
    expect("a LOGIN {0}\r\n x\r\n", FRAME_COMMAND, 17);
    expect("a LOGIN {5}\r\nabc", FRAME_MORE, 16);
    expect("a X {03}\r\nabc\r\n", FRAME_COMMAND, 15);
    /* no literals: signs, blanks, nothing, hexadecimal, in quotes */
    expect("a LOGIN {-1}\r\nb\r\n", FRAME_COMMAND, 14);
    expect("a LOGIN {+5}\r\nb\r\n", FRAME_COMMAND, 14);
    expect("a LOGIN {}\r\nb\r\n", FRAME_COMMAND, 12);
    expect("a LOGIN {+}\r\nb\r\n", FRAME_COMMAND, 13);
    expect("a LOGIN {0x10}\r\nb\r\n", FRAME_COMMAND, 16);
    expect("a LOGIN { 1}\r\nb\r\n", FRAME_COMMAND, 14);
    expect("a LOGIN 5}\r\nb\r\n", FRAME_COMMAND, 12);
    expect("a LOGIN \"x{5}\r\nb\r\n", FRAME_COMMAND, 15);
    expect("a LOGIN \"x\\\"{5}\r\nb\r\n", FRAME_COMMAND, 17);
    expect("a LOGIN \"x\" {1}\r\nb\r\n", FRAME_COMMAND, 20);
    expect("}\r\n", FRAME_COMMAND, 3);
    expect("{1}\r\nx\r\n", FRAME_COMMAND, 8);
}

static void over(const char *text, const struct imap_frame_limits *limits, bool sync)
{
    struct imap_frame f;
    struct imap_literal l;
    assert_int_equal(run(text, strlen(text), 1, limits, &f, &l), FRAME_LITERAL);
    assert_true(l.over);
    assert_int_equal(l.sync, sync);
}

static void test_limits(void **state)
{
    static const struct imap_frame_limits minus = {1000, 8000, 3, 4096};
    struct imap_frame f;
    struct imap_literal l;
    (void)state;
    over("a LOGIN {4294967295}\r\n", &wide, true);
    over("a LOGIN {18446744073709551616}\r\n", &wide, true);
    over("a LOGIN {99999999999999999999999999999999}\r\n", &wide, true);
    over("a LOGIN {101+}\r\n", &wide, false);
    over("a {1}\r\nx {1}\r\nx {1}\r\nx {1}\r\n", &wide, true); /* the fourth */
    over("a {4097+}\r\n", &minus, false);
    assert_int_equal(run("a {4096+}\r\n", 11, 1, &minus, &f, &l), FRAME_MORE);
    assert_int_equal(run("a {4097}\r\n", 10, 1, &minus, &f, &l), FRAME_MORE);
    over("a {60}\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx {41}\r\n", &wide,
         true); /* their sum */
    over("a APPEND x ~{500}\r\n", &wide, true);
    assert_true((run("a x ~{5}\r\n", 10, 1, &wide, &f, &l), l.literal8));
}

static void test_long(void **state)
{
    static const struct imap_frame_limits small = {16, 100, 3, UINT32_MAX};
    struct imap_frame f;
    struct imap_literal l;
    (void)state;
    assert_int_equal(run("a234567890123\r\n", 15, 1, &small, &f, &l), FRAME_COMMAND);
    assert_int_equal(run("a2345678901234\r\n", 16, 16, &small, &f, &l), FRAME_COMMAND);
    for (size_t step = 1; step < 20; step++)
        assert_int_equal(run("a23456789012345\r\n", 17, step, &small, &f, &l), FRAME_LONG);
    /* what stands before a literal counts, the literal does not */
    assert_int_equal(run("a {9}\r\n123456789 b\r\n", 20, 1, &small, &f, &l), FRAME_COMMAND);
    assert_int_equal(run("a {9}\r\n123456789 bcdefghij\r\n", 28, 1, &small, &f, &l), FRAME_LONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_literals),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
