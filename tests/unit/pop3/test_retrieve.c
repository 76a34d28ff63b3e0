/*
 * test_retrieve.c: RETR and TOP against bodies that come in random pieces: what a client unstuffs is what was stored;
 * the framing holds for any bytes; damage is an -ERR or a cut, never a message that looks whole.
 *
 * The doors of net and store that retrieve.c uses are defined here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/pop3/session.h"

static struct {
    struct tb_buf out;
    struct tb_slice message, input;
    uint64_t header_size;
    uint64_t fails_at; /* a read at this offset or later is CORRUPT */
    uint32_t dice;
    unsigned bodies;
    bool aborted, choke;
    struct tb_op *reading;
    uint64_t offset;
} w;

static uint32_t roll(uint32_t n)
{
    w.dice = w.dice * 1664525u + 1013904223u;
    return (w.dice >> 8) % n;
}

/* ---- net ---- */
void tb_conn_put(struct tb_conn *c, struct tb_slice s)
{
    (void)c;
    tb_buf_slice(&w.out, s);
}
void tb_conn_puts(struct tb_conn *c, const char *s)
{
    (void)c;
    tb_buf_str(&w.out, s);
}
void tb_conn_printf(struct tb_conn *c, const char *fmt, ...)
{
    (void)c;
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tb_buf_str(&w.out, text);
}
bool tb_conn_full(const struct tb_conn *c)
{
    (void)c;
    return w.choke && roll(2);
}
struct tb_slice tb_conn_input(struct tb_conn *c)
{
    (void)c;
    return w.input;
}
void tb_conn_abort(struct tb_conn *c)
{
    (void)c;
    w.aborted = true;
}
const char *tb_conn_id(const struct tb_conn *c)
{
    (void)c;
    return "test";
}
void tb_conn_resume(struct tb_conn *c)
{
    (void)c;
}

/* ---- store ---- */
uint32_t tb_view_uid(const struct tb_view *v, uint32_t seqno)
{
    (void)v;
    return seqno;
}
uint32_t tb_view_count(const struct tb_view *v)
{
    (void)v;
    return 9;
}
enum tb_rc tb_body_open(struct tb_view *v, uint32_t uid, struct tb_body **out)
{
    (void)v;
    if (uid == 9)
        return TB_NOTFOUND;
    w.bodies++;
    *out = (struct tb_body *)(void *)&w;
    return TB_OK;
}
uint64_t tb_body_size(const struct tb_body *b)
{
    (void)b;
    return w.message.len;
}
void tb_body_whole(struct tb_body *b)
{
    (void)b; /* a hint */
}
uint64_t tb_body_header_size(const struct tb_body *b)
{
    (void)b;
    return w.header_size;
}
void tb_body_read(struct tb_body *b, uint64_t offset, struct tb_op *op)
{
    (void)b;
    w.reading = op;
    w.offset = offset;
}
void tb_body_close(struct tb_body *b)
{
    (void)b;
    w.bodies--;
    w.reading = NULL;
}
bool pop3_message(struct tb_conn *c, struct pop3 *p, struct tb_slice arg, uint32_t *seqno)
{
    (void)c;
    (void)p;
    uint64_t n;
    assert_true(tb_slice_u64(arg, 9, &n));
    *seqno = (uint32_t)n;
    return true;
}

static void finish_read(void)
{
    struct tb_op *op = w.reading;
    w.reading = NULL;
    assert_true(w.offset < w.message.len);
    op->rc = w.offset >= w.fails_at ? TB_CORRUPT : TB_OK;
    op->data = tb_slice_sub(w.message, (size_t)w.offset, 1 + roll(40));
    op->done(op);
}

/* ---- a command, to its end ---- */

static void reset(uint32_t seed, const char *bytes, size_t len, size_t header)
{
    tb_buf_free(&w.out);
    memset(&w, 0, sizeof w);
    tb_buf_init(&w.out, 1 << 20);
    w.dice = seed;
    w.choke = seed & 1;
    w.message = tb_slice(bytes, len);
    w.header_size = header;
    w.fails_at = UINT64_MAX;
}

static void run(pop3_run *verb, const char *arg)
{
    struct pop3 p = {.state = POP3_TRANSACTION};
    enum tb_step s = verb(NULL, &p, tb_slice_str(arg));
    for (int i = 0; i < 100000 && p.state == POP3_BODY && s != STEP_DONE; i++) {
        s = pop3_body_step(NULL, &p);
        if (w.reading && roll(3) == 0)
            finish_read();
    }
    pop3_fetch_free(&p.fetch);
    pop3_fetch_free(&p.ahead);
    assert_int_equal(w.bodies, 0);
    assert_true(p.state == POP3_TRANSACTION || w.aborted);
}

/* What a client makes of the answer: the reply line, then the unstuffed message; everything must be used up. */
static void client(struct tb_buf *message, char reply[64])
{
    struct tb_slice all = tb_buf_all(&w.out);
    const char *end = memmem(all.ptr, all.len, "\r\n", 2);
    assert_non_null(end);
    size_t at = (size_t)(end - all.ptr);
    assert_true(at < 64);
    memcpy(reply, all.ptr, at);
    reply[at] = '\0';
    at += 2;
    if (reply[0] == '-') {
        assert_int_equal(at, all.len);
        return;
    }
    for (;;) {
        end = memmem(all.ptr + at, all.len - at, "\r\n", 2);
        assert_non_null(end);
        size_t len = (size_t)(end - all.ptr) - at;
        if (len == 1 && all.ptr[at] == '.')
            break;
        bool dot = len && all.ptr[at] == '.';
        tb_buf_put(message, all.ptr + at + dot, len - dot + 2);
        at += len + 2;
    }
    assert_int_equal(at + 3, all.len);
}

static void test_retr_any_bytes(void **state)
{
    (void)state;
    static const char letters[] = "..\r\n\r\n\nx\0";
    for (uint32_t seed = 1; seed < 4000; seed++) {
        char bytes[200], reply[64], want[64];
        reset(seed, bytes, 0, 0);
        size_t len = roll(sizeof bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = letters[roll(sizeof letters - 1)];
        w.message.len = len;
        run(pop3_retr, "1");
        struct tb_buf got;
        tb_buf_init(&got, 4096);
        client(&got, reply);
        snprintf(want, sizeof want, "+OK %zu octets", len);
        assert_string_equal(reply, want);
        bool whole = len == 0 || (len >= 2 && memcmp(bytes + len - 2, "\r\n", 2) == 0);
        assert_int_equal(got.len, len + (whole ? 0 : 2));
        assert_memory_equal(got.ptr ? got.ptr : "", bytes, len);
        tb_buf_free(&got);
    }
}

static void check_top(const char *text, size_t header, const char *arg, const char *expect)
{
    for (uint32_t seed = 1; seed < 200; seed++) {
        char reply[64];
        reset(seed, text, strlen(text), header);
        run(pop3_top, arg);
        struct tb_buf got;
        tb_buf_init(&got, 4096);
        client(&got, reply);
        assert_string_equal(reply, "+OK top of message follows");
        assert_int_equal(got.len, strlen(expect));
        assert_memory_equal(got.ptr ? got.ptr : "", expect, got.len);
        tb_buf_free(&got);
    }
}

static void test_top(void **state)
{
    (void)state;
    const char *text = "A: b\r\nC: d\r\n\r\n.1\r\n2\r\n3";
    check_top(text, 14, "1 0", "A: b\r\nC: d\r\n\r\n");
    check_top(text, 14, "1 1", "A: b\r\nC: d\r\n\r\n.1\r\n");
    check_top(text, 14, "1 2", "A: b\r\nC: d\r\n\r\n.1\r\n2\r\n");
    check_top(text, 14, "1 3", "A: b\r\nC: d\r\n\r\n.1\r\n2\r\n3\r\n");
    check_top(text, 14, "1 4000000000", "A: b\r\nC: d\r\n\r\n.1\r\n2\r\n3\r\n");
    check_top("A: b\r\n", 6, "1 5", "A: b\r\n");
    check_top("", 0, "1 5", "");
}

static void test_damage(void **state)
{
    (void)state;
    char bytes[500], reply[64];
    memset(bytes, 'x', sizeof bytes);
    for (uint32_t seed = 1; seed < 100; seed++) {
        reset(seed, bytes, sizeof bytes, 0);
        w.fails_at = 0;
        run(pop3_retr, "1");
        assert_false(w.aborted);
        client(NULL, reply);
        assert_string_equal(reply, "-ERR [SYS/PERM] the stored message is damaged");
        reset(seed, bytes, sizeof bytes, 0);
        w.fails_at = 1 + roll(400);
        run(pop3_retr, "1");
        assert_true(w.aborted);
        assert_null(memmem(w.out.ptr, w.out.len, "\r\n.\r\n", 5));
    }
    reset(1, bytes, sizeof bytes, 0);
    run(pop3_retr, "9");
    client(NULL, reply);
    assert_string_equal(reply, "-ERR message 9 was removed by another session");
}

/* The next pipelined RETR is begun early, and only that. */
static void test_read_ahead(void **state)
{
    (void)state;
    static const struct {
        const char *input;
        unsigned bodies;
    } cases[] = {{"RETR 2\r\n", 2}, {"retr 3\r\nRETR 4\r\n", 2}, {"RETR 2", 1},   {"RETR 10\r\n", 1},
                 {"RETR 0\r\n", 1}, {"RETR 2x\r\n", 1},          {"NOOP\r\n", 1}, {"", 1},
                 {"RETR 9\r\n", 1}};
    for (size_t i = 0; i < TB_ARRAY_LEN(cases); i++) {
        struct pop3 p = {.state = POP3_TRANSACTION};
        reset(2, "x\r\n", 3, 0);
        w.input = tb_slice_str(cases[i].input);
        assert_int_equal(pop3_retr(NULL, &p, TB_SLICE("1")), STEP_MORE);
        assert_int_equal(pop3_body_step(NULL, &p), STEP_WAIT);
        assert_int_equal(w.bodies, cases[i].bodies);
        pop3_fetch_free(&p.fetch);
        if (p.ahead) { /* its turn: no second open */
            char arg[] = {w.input.ptr[5], '\0'};
            p.state = POP3_TRANSACTION;
            assert_int_equal(pop3_retr(NULL, &p, tb_slice_str(arg)), STEP_MORE);
            assert_null(p.ahead);
            assert_int_equal(w.bodies, 1);
        }
        pop3_fetch_free(&p.fetch);
        assert_int_equal(w.bodies, 0);
    }
    tb_buf_free(&w.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retr_any_bytes),
        cmocka_unit_test(test_top),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_read_ahead),
    };
    tb_log_level(TB_LOG_ERROR - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
