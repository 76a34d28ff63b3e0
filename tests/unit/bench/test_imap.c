/*
 * test_imap.c: FETCH responses are taken apart as RFC 9051 writes them, and what deviates is refused: a load generator
 * that is lenient would praise a broken server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bench/imap.c"

/* The session half of imap.c is run against servers; here its doors are closed. */
void bench_client_send(struct bench_client *c)
{
    (void)c;
    fail();
}
void bench_client_ready(struct bench_client *c)
{
    (void)c;
    fail();
}
void bench_client_next(struct bench_client *c)
{
    (void)c;
    fail();
}
static void refuse(struct bench_client *c)
{
    (void)c;
    fail();
}
void bench_client_note(struct bench_client *c, const char *w, struct tb_slice r)
{
    (void)w;
    (void)r;
    refuse(c);
}
void bench_client_lost(struct bench_client *c, const char *w, struct tb_slice r)
{
    (void)w;
    (void)r;
    refuse(c);
}
void bench_client_wrong(struct bench_client *c, const char *w, struct tb_slice r)
{
    (void)w;
    (void)r;
    refuse(c);
}

static bool parse(const char *text, struct bench_fetch *f)
{
    return bench_imap_parse_fetch(tb_slice_str(text), f);
}

static void assert_item(struct tb_slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.ptr, text, s.len);
}

static void test_headers(void **state)
{
    (void)state;
    struct bench_fetch f;
    static const char good[] =
        "* 12 FETCH (UID 7 FLAGS (\\Seen $x) RFC822.SIZE 44827 ENVELOPE (\"Wed\" \"a \\\"b\\\" {3}\" "
        "((\"T\" NIL {2}\r\n)( \"h\")) NIL NIL ((NIL NIL \"x\" \"y\")(NIL NIL \"z\" \"y\")) NIL NIL NIL \"<B@c>\") "
        "BODYSTRUCTURE ((\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 3 1)(\"TEXT\" \"HTML\" NIL) \"MIXED\"))";
    assert_true(parse(good, &f));
    assert_item(f.uid, "7");
    assert_item(f.flags, "(\\Seen $x)");
    assert_item(f.size, "44827");
    assert_int_equal(bench_imap_list_count(f.envelope), 10);
    assert_int_equal(bench_imap_list_count(f.bodystructure), 3);
    assert_false(f.has_body);
}

static void test_bodies(void **state)
{
    struct bench_fetch f;
    (void)state;
    assert_true(parse("* 1 FETCH (UID 3 BODY[] {7}\r\na)\r\n\"{9)", &f));
    assert_true(f.has_body);
    assert_item(f.body, "a)\r\n\"{9");
    assert_true(parse("* 1 FETCH (BODY[] \"\" UID 3)", &f));
    assert_true(f.has_body);
    assert_int_equal(f.body.len, 0);
    assert_true(parse("* 1 FETCH (BODY[HEADER.FIELDS (TO \"x\")]<0> ~{2}\r\nab UID 3)", &f));
    assert_false(f.has_body);
    assert_item(f.uid, "3");
}

static void test_malformed(void **state)
{
    static const char *const bad[] = {
        "",
        "* 1 FETCH",
        "* 0 FETCH (UID 1)",
        "* 4294967296 FETCH (UID 1)",
        "* 1 FETCH ()",
        "* 1 FETCH (UID 1",
        "* 1 FETCH (UID 1))",
        "* 1 FETCH (UID 1) ",
        "* 1 FETCH (UID  1)",
        "* 1 FETCH (UID)",
        "* 1 FETCH (UID 1 )",
        "* 1 FETCH (FLAGS (\\Seen)",
        "* 1 FETCH (FLAGS ( \\Seen))",
        "* 1 FETCH (FLAGS (\\Seen ))",
        "* 1 FETCH (ENVELOPE (\"a\"\"b\"))",
        "* 1 FETCH (ENVELOPE (\"a))",
        "* 1 FETCH (ENVELOPE (\"a\r\nb\"))",
        "* 1 FETCH (ENVELOPE (\"a\\",
        "* 1 FETCH (ENVELOPE ({1}\r\n)\r \"z\"))",
        "* 1 FETCH (BODY[] {3}\r\nab)",
        "* 1 FETCH (BODY[] {9}\r\nab)",
        "* 1 FETCH (BODY[] {1}\r\nab)",
        "* 1 FETCH (BODY[] {99999999999999999999}\r\nab)",
        "* 1 FETCH (BODY[] {2}ab)",
        "* 1 FETCH (BODY[ {2}\r\nab)",
    };
    struct bench_fetch f;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        if (parse(bad[i], &f))
            fail_msg("taken as good: %s", bad[i]);
    }
}

/* Every prefix of a good response is malformed and is read without passing its end (the sanitizers watch). */
static void test_every_prefix(void **state)
{
    static const char good[] = "* 2 FETCH (UID 9 ENVELOPE (\"a\" NIL ((NIL NIL {1}\r\nx \"y\"))) BODY[] {3}\r\nabc)";
    struct bench_fetch f;
    (void)state;
    assert_true(parse(good, &f));
    for (size_t n = 0; n < sizeof good - 1; n++) {
        char *copy = test_malloc(n + 1);
        memcpy(copy, good, n);
        assert_false(bench_imap_parse_fetch(tb_slice(copy, n), &f));
        test_free(copy);
    }
}

static void test_deep_nesting(void **state)
{
    enum { DEPTH = 200000 };
    struct tb_buf b;
    struct bench_fetch f;
    (void)state;
    tb_buf_init(&b, 4 << 20);
    tb_buf_str(&b, "* 1 FETCH (ENVELOPE ");
    for (int i = 0; i < DEPTH; i++)
        tb_buf_char(&b, '(');
    for (int i = 0; i < DEPTH; i++)
        tb_buf_char(&b, ')');
    assert_false(bench_imap_parse_fetch(tb_buf_all(&b), &f));
    tb_buf_char(&b, ')');
    assert_true(bench_imap_parse_fetch(tb_buf_all(&b), &f));
    tb_buf_free(&b);
}

static void test_list_count(void **state)
{
    (void)state;
    assert_int_equal(bench_imap_list_count(TB_SLICE("()")), 0);
    assert_int_equal(bench_imap_list_count(TB_SLICE("(a \"b\" (c d) NIL)")), 4);
    assert_int_equal(bench_imap_list_count(TB_SLICE("((a)(b) \"c\")")), 3);
    assert_int_equal(bench_imap_list_count(TB_SLICE("NIL")), -1);
    assert_int_equal(bench_imap_list_count(TB_SLICE("(a")), -1);
    assert_int_equal(bench_imap_list_count(TB_SLICE("(a) ")), -1);
    assert_int_equal(bench_imap_list_count((struct tb_slice){0}), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),      cmocka_unit_test(test_bodies),       cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_every_prefix), cmocka_unit_test(test_deep_nesting), cmocka_unit_test(test_list_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
