/* test_deflate.c: raw DEFLATE both ways: any split, hostile input, output as there is room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/codec/deflate.h"

enum { TEXT = 300000 };

static char text[TEXT], back[TEXT];

static void fill_text(void)
{
    uint32_t x = 1;
    for (size_t i = 0; i < TEXT; i++) {
        x = x * 1664525 + 1013904223;
        text[i] = i % 7 < 5 ? (char)('a' + i % 26) : (char)(x >> 24);
    }
}

/* What was written by one end in pieces comes out at the other, in pieces of other sizes. */
static void test_both_ways(void **state)
{
    (void)state;
    fill_text();
    struct tb_deflate *here = tb_deflate_new(), *there = tb_deflate_new();
    size_t got = 0;
    assert_non_null(here);
    assert_non_null(there);
    for (size_t at = 0, step = 1; at < TEXT; at += step, step = step * 3 % 65521 + 1) {
        struct tb_buf wire;
        tb_buf_init(&wire, 1 << 20);
        assert_true(tb_deflate_write(here, tb_slice_sub(tb_slice(text, TEXT), at, step), &wire));
        struct tb_slice in = tb_buf_all(&wire);
        bool more = true;
        while (in.len > 0 || more) {
            size_t n = 0, room = TEXT - got < 1000 ? TEXT - got : 1000;
            struct tb_slice some = tb_slice_sub(in, 0, 777);
            size_t before = some.len;
            assert_int_equal(tb_deflate_read(there, &some, back + got, room, &n, &more), TB_OK);
            in = tb_slice_sub(in, before - some.len, in.len);
            got += n;
            if (room == 0)
                break;
        }
        size_t end = at + step < TEXT ? at + step : TEXT;
        assert_int_equal(got, end); /* every write can be read whole at once */
        tb_buf_free(&wire);
    }
    assert_memory_equal(text, back, TEXT);
    tb_deflate_free(here);
    tb_deflate_free(there);
}

static void test_hostile(void **state)
{
    static const char *const bad[] = {"\xff\xff\xff\xff", "\x01\x01\x02\x03\x04\x05", "\x07zzzz"};
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        struct tb_deflate *d = tb_deflate_new();
        struct tb_slice in = tb_slice_str(bad[i]);
        size_t n = 0;
        bool more = false;
        assert_non_null(d);
        assert_int_equal(tb_deflate_read(d, &in, back, 100, &n, &more), TB_CORRUPT);
        tb_deflate_free(d);
    }
    tb_deflate_free(NULL);
}

/* The end of a stream, wherever the bytes that carry it are cut: what is behind it is not touched. */
static void check_end(size_t step)
{
    for (size_t cut = 0;; cut++) {
        struct tb_deflate *here = tb_deflate_new(), *there = tb_deflate_new();
        struct tb_buf wire;
        size_t n = 0;
        bool more = false;
        tb_buf_init(&wire, 1 << 20);
        assert_true(tb_deflate_write(here, TB_SLICE("a UNAUTHENTICATE\r\n"), &wire));
        bool over = cut > wire.len;
        size_t whole = wire.len;
        tb_buf_str(&wire, "b LOGIN x y\r\n");
        struct tb_slice in = tb_slice_sub(tb_buf_all(&wire), 0, cut), rest = {"", 0};
        if (!over) {
            assert_int_equal(tb_deflate_read(there, &in, back, 100, &n, &more), TB_OK);
            rest = tb_slice_sub(tb_buf_all(&wire), cut, wire.len);
        }
        enum tb_rc rc = over || n < 18 ? TB_OK : TB_BUSY; /* OK: the command is not there yet */
        for (size_t at = 0; rc == TB_BUSY && at <= wire.len; at += step) {
            struct tb_slice left = tb_slice_sub(rest, at, step);
            rc = tb_deflate_end(there, &left);
            if (rc == TB_OK)
                assert_int_equal(left.ptr - wire.ptr, whole);
        }
        assert_int_equal(rc, TB_OK);
        tb_buf_free(&wire);
        tb_deflate_free(here);
        tb_deflate_free(there);
        if (over)
            break;
    }
}

static void test_end(void **state)
{
    (void)state;
    check_end(1);
    check_end(3);
    check_end(100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both_ways), cmocka_unit_test(test_hostile),
                                       cmocka_unit_test(test_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
