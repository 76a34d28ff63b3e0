/*
 * test_corpus.c: what is sent is the message in CRLF form with dots stuffed; what comes back is recognised behind a
 * trace block, and nothing else is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/corpus.c"

static void add(struct bench_corpus *c, const char *text, size_t len)
{
    assert_int_equal(bench_corpus_add(c, tb_slice(text, len)), TB_OK);
}

#define ADD(c, text) add(c, text, sizeof(text) - 1)
#define HAS(c, text) bench_corpus_has(c, tb_slice(text, sizeof(text) - 1))

static void assert_slice(struct tb_slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.ptr, text, s.len);
}

static void test_wire_form(void **state)
{
    struct bench_corpus c = {0};
    (void)state;
    ADD(&c, "A: b\n\n.one\ntwo.\n..three");
    assert_int_equal(c.n, 1);
    assert_slice(c.v[0].content, "A: b\r\n\r\n.one\r\ntwo.\r\n..three\r\n");
    assert_slice(c.v[0].wire, "A: b\r\n\r\n..one\r\ntwo.\r\n...three\r\n.\r\n");
    assert_false(c.v[0].eight_bit);
    ADD(&c, "A: b\r\n\r\nh\xc3\xa9\r\n");
    assert_slice(c.v[1].content, "A: b\r\n\r\nh\xc3\xa9\r\n");
    assert_slice(c.v[1].wire, "A: b\r\n\r\nh\xc3\xa9\r\n.\r\n");
    assert_true(c.v[1].eight_bit);
    bench_corpus_free(&c);
}

static void test_unsendable_is_left_out(void **state)
{
    struct bench_corpus c = {0};
    (void)state;
    ADD(&c, "A: b\n\nbare\rcr\n");
    ADD(&c, "A: b\n\nend\r");
    ADD(&c, "A: b\n\nnul\0\n");
    ADD(&c, "");
    assert_int_equal(c.n, 0);
    assert_int_equal(c.skipped, 4);
    bench_corpus_free(&c);
}

static void test_found_behind_trace(void **state)
{
    struct bench_corpus c = {0};
    (void)state;
    ADD(&c, "Received: x\n\nbody one\n");
    ADD(&c, "Subject: y\n\nbody two\n");
    ADD(&c, "Subject: y\n\nbody too\n"); /* as long as the one before */
    assert_int_equal(bench_corpus_finish(&c, 5), TB_OK);
    assert_true(HAS(&c, "Received: x\r\n\r\nbody one\r\n"));
    assert_true(
        HAS(&c, "Return-Path: <a@b>\r\nReceived: from q\r\n\tby z\r\n for u\r\nReceived: x\r\n\r\nbody one\r\n"));
    assert_true(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\r\n\r\nbody two\r\n"));
    assert_true(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\r\n\r\nbody too\r\n"));
    bench_corpus_free(&c);
}

static void test_altered_is_not_found(void **state)
{
    struct bench_corpus c = {0};
    (void)state;
    ADD(&c, "Subject: y\n\nbody two\n");
    assert_int_equal(bench_corpus_finish(&c, 5), TB_OK);
    assert_false(HAS(&c, ""));
    assert_false(HAS(&c, "Return-Path: <a@b>\r\n"));
    assert_false(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\r\n\r\nbody twx\r\n"));
    assert_false(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\r\n\r\nbody two\r\n\r\n"));
    assert_false(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\r\n\r\nbody two"));
    assert_false(HAS(&c, "Return-Path: <a@b>\r\nSubject: y\n\nbody two\n"));
    assert_false(HAS(&c, "garbage\r\n\r\nSubject: y\r\n\r\nbody two\r\n")); /* behind the header it is no field */
    bench_corpus_free(&c);
}

static void test_many_fields_end(void **state)
{
    struct bench_corpus c = {0};
    struct tb_buf b;
    (void)state;
    ADD(&c, "Subject: y\n\nbody\n");
    assert_int_equal(bench_corpus_finish(&c, 5), TB_OK);
    tb_buf_init(&b, 1 << 20);
    for (int i = 0; i < TRACE_FIELDS_MAX; i++)
        tb_buf_str(&b, "X: y\r\n");
    size_t most = b.len;
    tb_buf_str(&b, "Subject: y\r\n\r\nbody\r\n");
    assert_true(bench_corpus_has(&c, tb_buf_all(&b)));
    b.len = most;
    tb_buf_str(&b, "X: y\r\nSubject: y\r\n\r\nbody\r\n");
    assert_false(bench_corpus_has(&c, tb_buf_all(&b)));
    tb_buf_free(&b);
    bench_corpus_free(&c);
}

/* finish loses no message and orders by size. */
static void test_shuffle_keeps_all(void **state)
{
    struct bench_corpus c = {0};
    uint64_t seen = 0;
    (void)state;
    for (int i = 0; i < 40; i++) {
        char text[64];
        int n = snprintf(text, sizeof text, "A: %0*d\n\n", i % 7 + 1, i);
        add(&c, text, (size_t)n);
    }
    assert_int_equal(bench_corpus_finish(&c, 99), TB_OK);
    for (size_t i = 0; i < c.n; i++) {
        seen |= (uint64_t)1 << atoi(c.v[i].content.ptr + 3);
        if (i > 0)
            assert_true(c.v[c.by_size[i - 1]].content.len <= c.v[c.by_size[i]].content.len);
        assert_true(bench_corpus_has(&c, c.v[i].content));
    }
    assert_true(seen == ((uint64_t)1 << 40) - 1);
    bench_corpus_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wire_form),          cmocka_unit_test(test_unsendable_is_left_out),
        cmocka_unit_test(test_found_behind_trace), cmocka_unit_test(test_altered_is_not_found),
        cmocka_unit_test(test_many_fields_end),    cmocka_unit_test(test_shuffle_keeps_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
