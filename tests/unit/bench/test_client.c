/*
 * test_client.c: the framer gives out the same replies however the bytes are cut, keeps literals only where sampled,
 * and says so when a server breaks the frame.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bench/client.c"

void bench_thread_opened(struct bench_thread *t)
{
    (void)t;
}
void bench_thread_rested(struct bench_thread *t)
{
    (void)t;
}
void bench_thread_closed(struct bench_thread *t)
{
    (void)t;
}
bool bench_thread_next(struct bench_thread *t)
{
    (void)t;
    return false;
}
uint64_t bench_random(uint64_t *state)
{
    (void)state;
    return 0;
}

static struct tb_buf seen; /* the replies, each behind a mark, with its counts */

static void reply(struct bench_client *c)
{
    tb_buf_char(&seen, '|');
    tb_buf_u64(&seen, c->reply.literals);
    tb_buf_char(&seen, ',');
    tb_buf_u64(&seen, c->reply.literal_bytes);
    tb_buf_char(&seen, ':');
    tb_buf_slice(&seen, c->reply.text);
}

static const struct bench_workload workload = {.name = "test", .reply = reply};

struct fixture {
    struct bench bench;
    struct bench_thread thread;
    struct bench_client client;
};
static struct fixture x;

static void begin_feed(bool literals, uint32_t check_every)
{
    memset(&x, 0, sizeof x);
    x.bench.options.workload = &workload;
    x.bench.options.check_every = check_every;
    x.thread.bench = &x.bench;
    x.client.thread = &x.thread;
    x.client.fd = -1;
    x.client.phase = BENCH_BUSY;
    x.client.literals = literals;
    tb_buf_init(&x.client.in, KEPT_BYTES_MAX);
    reply_reset(&x.client);
    seen.len = 0;
}

static void assert_seen(const char *text)
{
    tb_buf_char(&seen, '\0');
    assert_string_equal(seen.ptr, text);
    tb_buf_free(&x.client.in);
}

/* The last literal ends in what looks like a further one, and the line ends behind it. */
static const char stream[] =
    "* OK hi {5}\r\n* 1 FETCH (BODY[] {4}\r\n{3}\r)\r\n* 2 FETCH (A {1}\r\n\n B {0}\r\n C {3}\r\n{5}\r\n"
    "a1 OK done {7}\r\n";

/* Fed in two pieces cut at every place, and in pieces of every small size. */
static void check_cuts(uint32_t check_every, const char *expected)
{
    size_t n = sizeof stream - 1;
    for (size_t cut = 0; cut <= n; cut++) {
        begin_feed(true, check_every);
        bench_client_feed(&x.client, tb_slice(stream, cut));
        bench_client_feed(&x.client, tb_slice(stream + cut, n - cut));
        assert_seen(expected);
    }
    for (size_t piece = 1; piece < 9; piece++) {
        begin_feed(true, check_every);
        for (size_t at = 0; at < n; at += piece)
            bench_client_feed(&x.client, tb_slice_sub(tb_slice(stream, n), at, piece));
        assert_seen(expected);
    }
}

static void test_any_cut_sampled(void **state)
{
    (void)state;
    check_cuts(1,
               "|0,0:* OK hi {5}|1,4:* 1 FETCH (BODY[] {4}\r\n{3}\r)|3,4:* 2 FETCH (A {1}\r\n\n B {0}\r\n C {3}\r\n{5}"
               "|0,0:a1 OK done {7}");
    assert_int_equal(x.thread.result.checked, 4);
}

static void test_any_cut_not_sampled(void **state)
{
    (void)state;
    check_cuts(0, "|0,0:* OK hi {5}|1,4:* 1 FETCH (BODY[] {4}\r\n)|3,4:* 2 FETCH (A {1}\r\n B {0}\r\n C {3}\r\n"
                  "|0,0:a1 OK done {7}");
    assert_int_equal(x.thread.result.checked, 0);
}

static void test_smtp_has_no_literals(void **state)
{
    (void)state;
    begin_feed(false, 1);
    bench_client_feed(&x.client, TB_SLICE("250-a {3}\r\n250 b\r\n"));
    assert_seen("|0,0:250-a {3}|0,0:250 b");
}

static void test_bare_lf_is_wrong(void **state)
{
    (void)state;
    begin_feed(true, 1);
    bench_client_feed(&x.client, TB_SLICE("* OK a\n* OK b\r\n"));
    assert_seen("");
    assert_int_equal(x.thread.result.wrong, 1);
    assert_int_equal(x.client.phase, BENCH_CLOSED);
    assert_string_equal(x.thread.result.first_error, "connection 0: a line ends without CR: * OK a?");
}

static void test_endless_line_is_wrong(void **state)
{
    static char piece[1 << 20];
    (void)state;
    memset(piece, 'x', sizeof piece);
    begin_feed(true, 1);
    for (int i = 0; i < (TEXT_BYTES_MAX >> 20) + 2; i++)
        bench_client_feed(&x.client, tb_slice(piece, sizeof piece));
    assert_int_equal(x.thread.result.wrong, 1);
    assert_seen("");
}

static int free_seen(void **state)
{
    (void)state;
    tb_buf_free(&seen);
    return 0;
}

static int init_seen(void **state)
{
    (void)state;
    tb_buf_init(&seen, 1 << 20);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_cut_sampled),       cmocka_unit_test(test_any_cut_not_sampled),
        cmocka_unit_test(test_smtp_has_no_literals),  cmocka_unit_test(test_bare_lf_is_wrong),
        cmocka_unit_test(test_endless_line_is_wrong),
    };
    return cmocka_run_group_tests(tests, init_seen, free_seen);
}
