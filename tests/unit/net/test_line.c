/*
 * test_line.c: the input buffer and the line framer: every split of the same bytes gives the same lines; limits; no
 * heap when nothing is left (N2).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/net/conn.h"

enum { MAX = 20 };

/* Feed bytes in pieces of the sizes that `seed` makes; append what the framer says to out. */
static void run(const char *bytes, size_t len, uint32_t seed, struct tb_buf *out)
{
    struct tb_conn *c = calloc(1, sizeof *c);
    c->input_max = TB_CONN_INPUT_MAX;
    size_t at = 0;
    bool dead = false;
    while (at < len && !dead) {
        seed = seed * 1103515245u + 12345u;
        size_t n = seed >> 16 & 7;
        n = n == 0 ? 1 : n;
        n = n < len - at ? n : len - at;
        char *piece = malloc(n); /* exactly as long as valid: a reader past it is caught by asan */
        memcpy(piece, bytes + at, n);
        at += n;
        assert_true(tb_input_add(c, piece, n));
        for (bool more = true; more && !dead;) {
            struct tb_slice line;
            switch (tb_conn_line(c, MAX, &line)) {
            case LINE_OK:
                tb_buf_str(out, "ok:");
                tb_buf_slice(out, line);
                tb_buf_char(out, '|');
                break;
            case LINE_BARE:
                tb_buf_str(out, "bare:");
                tb_buf_slice(out, line);
                tb_buf_char(out, '|');
                break;
            case LINE_LONG:
                tb_buf_str(out, "long");
                dead = true;
                break;
            case LINE_MORE:
                more = false;
                break;
            }
        }
        tb_input_keep(c);
        free(piece);
        assert_true(c->view.len > 0 || c->heap == NULL);
    }
    tb_input_free(c);
    free(c);
}

static void check(const char *bytes, size_t len, const char *expect, size_t expect_len)
{
    for (uint32_t seed = 0; seed < 200; seed++) {
        struct tb_buf out;
        tb_buf_init(&out, 4096);
        run(bytes, len, seed, &out);
        assert_int_equal(out.len, expect_len);
        assert_memory_equal(out.ptr, expect, expect_len);
        tb_buf_free(&out);
    }
}
#define CHECK(bytes, expect) check(bytes, sizeof(bytes) - 1, expect, sizeof(expect) - 1)

static void test_lines(void **state)
{
    (void)state;
    CHECK("a\r\n\r\nbc d\r\nrest", "ok:a|ok:|ok:bc d|");
    CHECK("12345678901234567890\r\nx\r\n", "ok:12345678901234567890|ok:x|");
}

static void test_bare(void **state)
{
    (void)state;
    CHECK("a\nb\r\n", "bare:a|ok:b|");
    CHECK("\n", "bare:|");
    CHECK("a\rb\r\nc\r\n", "bare:a\rb|ok:c|");
    CHECK("a\r\r\n", "bare:a\r|");
    CHECK("a\0b\r\nc\r\n", "bare:a\0b|ok:c|");
}

static void test_long(void **state)
{
    (void)state;
    CHECK("x\r\n123456789012345678901\r\n", "ok:x|long");
    CHECK("123456789012345678901234567890", "long");
}

static void test_steady_memory(void **state)
{
    (void)state;
    struct tb_conn *c = calloc(1, sizeof *c);
    char piece[64];
    memset(piece, 'x', sizeof piece);
    assert_true(tb_input_add(c, piece, 10));
    tb_input_keep(c);
    for (int i = 0; i < 10000; i++) { /* one comes, one goes: the buffer does not grow */
        assert_true(tb_input_add(c, piece, sizeof piece));
        tb_conn_consume(c, sizeof piece);
        tb_input_keep(c);
        assert_int_equal(c->view.len, 10);
        assert_true(c->heap_cap <= 1024);
    }
    tb_conn_consume(c, 10);
    tb_input_keep(c);
    assert_null(c->heap);
    free(c);
}

static void test_shrinks(void **state)
{
    (void)state;
    struct tb_conn *c = calloc(1, sizeof *c);
    char *big = calloc(1, 60000);
    assert_true(tb_input_add(c, big, 60000));
    tb_input_keep(c);
    tb_conn_consume(c, 59990);
    tb_input_keep(c);
    assert_int_equal(c->view.len, 10);
    assert_true(c->heap_cap <= 1024);
    tb_input_free(c);
    free(big);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),         cmocka_unit_test(test_bare),    cmocka_unit_test(test_long),
        cmocka_unit_test(test_steady_memory), cmocka_unit_test(test_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
