/*
 * test_net.c: connections over real sockets on each I/O backend, with a protocol of our own and a gate that we open by
 * hand.
 *
 * The store's doors that net uses are defined here, so nothing of the store is linked.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontends/net/conn.h"

enum { WORKERS = 2, TURNS = 4000 };

/* ---- the store, as far as net looks ---- */

struct tb_worker {
    struct tb_io *io;
    uint32_t index;
};
struct tb_account {
    uint64_t position, durable;
    struct tb_op *waiting;
    uint64_t waits_for;
};
struct tb_io *tb_worker_io(struct tb_worker *w)
{
    return w->io;
}
uint32_t tb_worker_index(const struct tb_worker *w)
{
    return w->index;
}
uint32_t tb_account_shard(const struct tb_account *a)
{
    (void)a;
    return 3;
}
uint64_t tb_account_position(const struct tb_account *a)
{
    return a->position;
}
bool tb_gate_open(struct tb_account *a, uint64_t position)
{
    return position <= a->durable;
}
void tb_gate_wait(struct tb_account *a, uint64_t position, struct tb_op *op)
{
    assert_null(a->waiting);
    a->waiting = op;
    a->waits_for = position;
}
void tb_gate_cancel(struct tb_account *a, struct tb_op *op)
{
    assert_ptr_equal(a->waiting, op);
    a->waiting = NULL;
}

static void gate(struct tb_account *a, uint64_t durable, enum tb_rc rc)
{
    a->durable = durable;
    struct tb_op *op = a->waiting;
    if (!op || (rc == TB_OK && a->waits_for > durable))
        return;
    a->waiting = NULL;
    op->rc = rc;
    op->done(op);
}

/* ---- the world ---- */

static struct world {
    struct tb_worker worker[WORKERS];
    struct tb_net *net[WORKERS];
    struct tb_listener listener;
    struct tb_net_config cfg;
    struct tb_account account;
    struct tb_tls_context *server_tls, *client_tls;
    uint16_t port;
    enum tb_io_kind kind;
    unsigned opened, closed;
    int dialed; /* the client's end of the last connection */
    uint64_t pending_max, input_max;
    struct tb_conn *last;
    bool stopped;
} w;

static void turn(void)
{
    for (int i = 0; i < WORKERS; i++)
        tb_io_turn(w.worker[i].io, false);
}

/* Until the last client has something to read, or the time is over. */
static void client_waits(int ms)
{
    struct pollfd p = {.fd = w.dialed, .events = POLLIN};
    (void)poll(&p, 1, ms); /* either is fine */
}

/* A turn; a loop of them gives the other side time after a while. */
static void turn_slowly(int i)
{
    turn();
    if (i > 200)
        client_waits(1);
}

static void turns(int n)
{
    while (n--)
        turn();
    client_waits(2); /* what is under way inside the kernel arrives */
    turn();
    turn();
}

/* ---- the protocol: one word a line ---- */

struct session {
    bool middle;
    uint64_t left; /* of BIG */
    uint32_t at;
    bool open, hold, gone;
};

static void echo_open(struct tb_conn *c)
{
    w.opened++;
    ((struct session *)tb_conn_session(c))->open = true;
    w.last = c;
    tb_conn_puts(c, "hello\r\n");
}

static enum tb_step echo_big(struct tb_conn *c, struct session *s)
{
    if (tb_output_pending(c) > w.pending_max)
        w.pending_max = tb_output_pending(c);
    if (tb_conn_full(c))
        return STEP_WAIT;
    size_t n = s->left < 3000 ? (size_t)s->left : 3000;
    char *p = tb_conn_reserve(c, n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)('a' + s->at++ % 23);
    tb_conn_commit(c, n);
    s->left -= n;
    return STEP_MORE;
}

static enum tb_step echo_word(struct tb_conn *c, struct session *s, struct tb_slice line)
{
    uint64_t n;
    if (tb_slice_eq(line, TB_SLICE("QUIT"))) {
        tb_conn_puts(c, "bye\r\n");
        return STEP_DONE;
    }
    if (tb_slice_eq(line, TB_SLICE("HOLD"))) {
        s->hold = true;
    } else if (tb_slice_eq(line, TB_SLICE("TLS"))) {
        tb_conn_puts(c, "go\r\n");
        tb_conn_starttls(c);
        return STEP_WAIT;
    } else if (tb_slice_eq(line, TB_SLICE("MOVE"))) {
        tb_conn_move(c, 1);
        tb_conn_timeout(c, 0, true);
        s->gone = true;
        return STEP_WAIT;
    } else if (tb_slice_eq(line, TB_SLICE("ABORT"))) {
        tb_conn_puts(c, "never\r\n");
        tb_conn_abort(c);
    } else if (tb_slice_eq(line, TB_SLICE("ACCOUNT"))) {
        tb_conn_account(c, &w.account);
    } else if (tb_slice_eq(line, TB_SLICE("CHANGE"))) {
        w.account.position++;
        tb_conn_puts(c, "changed\r\n");
    } else if (tb_slice_eq(line, TB_SLICE("MIDDLE"))) {
        s->middle = true;
        tb_conn_puts(c, "half a response");
    } else if (tb_slice_istarts(line, TB_SLICE("BIG ")) && tb_slice_u64(tb_slice_sub(line, 4, 20), 1u << 30, &n)) {
        s->left = n;
    } else {
        tb_conn_puts(c, "you said ");
        tb_conn_put(c, line);
        tb_conn_printf(c, " on %u%s\r\n", tb_worker_index(tb_conn_worker(c)), tb_conn_secure(c) ? " safely" : "");
    }
    return STEP_MORE;
}

static enum tb_step echo_step(struct tb_conn *c)
{
    struct session *s = tb_conn_session(c);
    struct tb_slice line;
    if (tb_conn_input(c).len > w.input_max)
        w.input_max = tb_conn_input(c).len;
    if (s->left)
        return echo_big(c, s);
    if (s->hold)
        return STEP_WAIT;
    if (s->gone) {
        s->gone = false;
        tb_conn_puts(c, "moved\r\n");
    }
    switch (tb_conn_line(c, 1000, &line)) {
    case LINE_OK:
        return echo_word(c, s, line);
    case LINE_BARE:
        tb_conn_puts(c, "bare\r\n");
        return STEP_MORE;
    case LINE_LONG:
        tb_conn_puts(c, "long\r\n");
        return STEP_DONE;
    case LINE_MORE:
        break;
    }
    return tb_conn_eof(c) ? STEP_DONE : STEP_WAIT;
}

static void echo_timeout(struct tb_conn *c)
{
    tb_conn_puts(c, "too slow\r\n");
}
static void echo_overload(struct tb_conn *c)
{
    tb_conn_puts(c, "no room\r\n");
}
static void echo_close(struct tb_conn *c)
{
    if (((struct session *)tb_conn_session(c))->open) /* or it was turned away at the door */
        w.closed++;
}

static void echo_lost(struct tb_conn *c)
{
    tb_conn_puts(c, "storage trouble\r\n");
}

static bool echo_middle(const struct tb_conn *c)
{
    return ((struct session *)tb_conn_session((struct tb_conn *)(uintptr_t)c))->middle;
}

static const struct tb_proto echo = {.name = "echo",
                                     .alpn = "imap",
                                     .session_bytes = sizeof(struct session),
                                     .open = echo_open,
                                     .step = echo_step,
                                     .timeout = echo_timeout,
                                     .overload = echo_overload,
                                     .lost = echo_lost,
                                     .middle = echo_middle,
                                     .close = echo_close};

/* ---- set-up ---- */

static void make_tls(void)
{
    struct tb_buf certificate, key;
    struct tb_error err;
    tb_buf_init(&certificate, 1 << 16);
    tb_buf_init(&key, 1 << 16);
    assert_int_equal(tb_tls_selfsigned("localhost", tb_io_wall_s(w.worker[0].io), &certificate, &key), TB_OK);
    assert_int_equal(tb_tls_context_load(tb_buf_all(&certificate), tb_buf_all(&key), &w.server_tls, &err), TB_OK);
    assert_int_equal(tb_tls_context_client(&w.client_tls), TB_OK);
    tb_buf_free(&certificate);
    tb_buf_free(&key);
}

static int setup_kind(enum tb_io_kind kind)
{
    struct tb_error err;
    memset(&w, 0, sizeof w);
    w.dialed = -1;
    w.kind = kind;
    for (uint32_t i = 0; i < WORKERS; i++) {
        w.worker[i].index = i;
        if (tb_io_open(kind, &w.worker[i].io, &err) != TB_OK)
            return -1;
    }
    make_tls();
    w.listener = (struct tb_listener){.proto = &echo, .address = "127.0.0.1", .tls = TB_TLS_STARTTLS};
    w.listener.fd = tb_io_listen(w.worker[0].io, "127.0.0.1", 0);
    assert_true(w.listener.fd >= 0);
    w.port = tb_io_local_port(w.worker[0].io, w.listener.fd);
    w.cfg = (struct tb_net_config){
        .listeners = &w.listener, .listeners_n = 1, .connections_max = 100, .pre_auth_timeout_s = 60};
    for (uint32_t i = 0; i < WORKERS; i++) { /* only worker 0 accepts, so that moves go one way */
        static struct tb_net_config deaf;
        deaf = w.cfg;
        deaf.listeners_n = 0;
        assert_int_equal(tb_net_open(&w.worker[i], i ? &deaf : &w.cfg, w.server_tls, &w.net[i], &err), TB_OK);
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        tb_net_peers(w.net[i], w.net, WORKERS);
    return 0;
}

static void on_stopped(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < WORKERS; i++) {
        bool stopped = false;
        struct tb_op op = {.done = on_stopped, .user = &stopped};
        if (!w.stopped)
            tb_net_stop(w.net[i], &op);
        for (int k = 0; k < TURNS && !stopped && !w.stopped; k++)
            turn_slowly(k);
        assert_true(stopped || w.stopped);
    }
    assert_int_equal(w.opened, w.closed);
    for (int i = 0; i < WORKERS; i++)
        tb_net_close(w.net[i]);
    tb_io_socket_close(w.worker[0].io, w.listener.fd);
    for (int i = 0; i < WORKERS; i++)
        tb_io_close(w.worker[i].io);
    tb_tls_context_unref(w.server_tls);
    tb_tls_context_unref(w.client_tls);
    return 0;
}

static int setup_posix(void **state)
{
    (void)state;
    return setup_kind(TB_IO_POSIX);
}
static int setup_uring(void **state)
{
    (void)state;
    return setup_kind(TB_IO_URING);
}

/* ---- the client ---- */

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        window = 256 << 10; /* it may grow to tens of MiB by itself */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window), 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(w.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    w.dialed = fd;
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Read until want has come; anything else fails. */
static void hear(int fd, const char *want)
{
    char got[2048];
    size_t len = 0, need = strlen(want);
    for (int i = 0; i < TURNS && len < need; i++) {
        turn_slowly(i);
        ssize_t n = recv(fd, got + len, need - len, MSG_DONTWAIT);
        if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    got[len] = '\0';
    assert_string_equal(got, want);
}

static void hear_nothing(int fd)
{
    char b;
    turns(50);
    assert_int_equal(recv(fd, &b, 1, MSG_DONTWAIT), -1);
    assert_true(errno == EAGAIN);
}

static void hear_end(int fd)
{
    char b;
    ssize_t n = -1;
    for (int i = 0; i < TURNS; i++) {
        turn_slowly(i);
        n = recv(fd, &b, 1, MSG_DONTWAIT);
        if (n >= 0 || errno != EAGAIN)
            break;
    }
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
    turns(20);
}

/* ---- tests ---- */

static void test_dialogue(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "one\r\ntwo\r\n");
    hear(fd, "you said one on 0\r\nyou said two on 0\r\n");
    for (const char *p = "three\r\n"; *p; p++) {
        send(fd, p, 1, MSG_NOSIGNAL);
        turns(3);
    }
    hear(fd, "you said three on 0\r\n");
    say(fd, "a\nQUIT\r\n");
    hear(fd, "bare\r\nbye\r\n");
    hear_end(fd);
    assert_int_equal(tb_net_connections(w.net[0]), 0);
}

static void test_half_close(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "one\r\ntwo\r\nthr");
    shutdown(fd, SHUT_WR);
    hear(fd, "hello\r\nyou said one on 0\r\nyou said two on 0\r\n");
    hear_end(fd);
}

/* N2: an idle connection holds no buffer; a partial line a small one. */
static void test_idle_memory(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "word\r\n");
    hear(fd, "you said word on 0\r\n");
    turns(20);
    assert_null(w.last->heap);
    assert_null(w.last->head);
    assert_true(sizeof(struct tb_conn) <= 1024);
    say(fd, "par");
    turns(20);
    assert_true(w.last->heap_cap <= 1024);
    say(fd, "tial\r\n");
    hear(fd, "you said partial on 0\r\n");
    turns(20);
    assert_null(w.last->heap);
    close(fd);
}

/* N1: no byte before its position is durable; earlier bytes do not wait for later changes. */
static void test_gate(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "ACCOUNT\r\nfree\r\n");
    hear(fd, "you said free on 0\r\n");
    say(fd, "CHANGE\r\n");
    hear_nothing(fd);
    for (int i = 0; i < 10; i++) { /* more changes than there are marks */
        uint64_t before = w.account.position;
        say(fd, "CHANGE\r\n");
        for (int k = 0; k < TURNS && w.account.position == before; k++)
            turn_slowly(k);
    }
    hear_nothing(fd);
    gate(&w.account, 1, TB_OK);
    hear(fd, "changed\r\n");
    hear_nothing(fd);
    gate(&w.account, 2, TB_OK);
    hear(fd, "changed\r\n");
    hear_nothing(fd);
    gate(&w.account, w.account.position, TB_OK);
    for (int i = 0; i < 9; i++)
        hear(fd, "changed\r\n");
    say(fd, "CHANGE\r\nQUIT\r\n");
    hear_nothing(fd);
    gate(&w.account, w.account.position, TB_OK);
    hear(fd, "changed\r\nbye\r\n");
    hear_end(fd);
}

static void test_gate_fails(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "ACCOUNT\r\nCHANGE\r\n");
    hear_nothing(fd);
    gate(&w.account, 0, TB_IO);
    hear(fd, "storage trouble\r\n");
    hear_end(fd);
    assert_int_equal(w.closed, 1);
}

/* R7: what is held is discarded, the session is closed before its farewell is out, and the others are left alone. */
static void test_lost(void **state)
{
    (void)state;
    int stranger = dial();
    hear(stranger, "hello\r\n");
    for (int held = 0; held < 2; held++) {
        int fd = dial();
        hear(fd, "hello\r\n");
        say(fd, "ACCOUNT\r\nfree\r\n");
        hear(fd, tb_worker_index(tb_conn_worker(w.last)) ? "you said free on 1\r\n" : "you said free on 0\r\n");
        if (held) {
            say(fd, "CHANGE\r\n");
            hear_nothing(fd);
        }
        for (int i = 0; i < WORKERS; i++) {
            tb_net_lost(w.net[i], 2);
            assert_int_equal(w.closed, (unsigned)held);
        }
        for (int i = 0; i < WORKERS; i++)
            tb_net_lost(w.net[i], 3);
        assert_int_equal(w.closed, (unsigned)held + 1);
        assert_null(w.account.waiting); /* cancelled */
        hear(fd, "storage trouble\r\n");
        hear_end(fd);
    }
    say(stranger, "still\r\n");
    hear(stranger, "you said still on 0\r\n");
}

/* A farewell never falls into a response that was cut. */
static void test_lost_in_the_middle(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "ACCOUNT\r\nMIDDLE\r\n");
    hear(fd, "half a response");
    for (int i = 0; i < WORKERS; i++)
        tb_net_lost(w.net[i], 3);
    hear_end(fd);
    assert_int_equal(w.closed, 1);
}

static void test_gate_peer_leaves(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "ACCOUNT\r\nCHANGE\r\nABORT\r\n");
    hear_end(fd);
    assert_null(w.account.waiting); /* cancelled */
}

/* N4: output is bounded while the peer does not read, and complete when it does. */
static void test_back_pressure(void **state)
{
    (void)state;
    enum { BYTES = 30 << 20 };
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "BIG 31457280\r\nafter\r\n");
    for (int i = 0; i < TURNS && tb_output_pending(w.last) < TB_CONN_HIGH_WATER; i++)
        turn_slowly(i); /* until the socket's own buffers are full */
    turns(300);
    assert_true(tb_output_pending(w.last) >= TB_CONN_HIGH_WATER);
    assert_true(w.pending_max < TB_CONN_HIGH_WATER + 3000);
    char *buf = malloc(1 << 20);
    uint32_t at = 0;
    for (int idle = 0; at < BYTES && idle < TURNS;) {
        turn_slowly(idle);
        size_t want = BYTES - at < 1 << 20 ? BYTES - at : 1 << 20;
        ssize_t n = recv(fd, buf, want, MSG_DONTWAIT);
        idle = n > 0 ? 0 : idle + 1;
        for (ssize_t i = 0; i < n; i++, at++)
            if (buf[i] != (char)('a' + at % 23))
                fail_msg("byte %u is wrong", at);
    }
    free(buf);
    assert_int_equal(at, BYTES);
    hear(fd, "you said after on 0\r\n");
    assert_true(w.pending_max < TB_CONN_HIGH_WATER + 3000);
    close(fd);
}

static void test_input_is_bounded(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "HOLD\r\n");
    turns(20);
    char *line = malloc(1002);
    memset(line, 'x', 1000);
    memcpy(line + 1000, "\r\n", 2);
    size_t sent = 0;
    for (int i = 0; i < 500; i++) {
        ssize_t n = send(fd, line + sent % 1002, 1002 - sent % 1002, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        turns(2);
    }
    assert_true(sent > 128 << 10);
    assert_true(w.last->view.len <= 2 * TB_CONN_INPUT_MAX);
    ((struct session *)tb_conn_session(w.last))->hold = false;
    tb_conn_resume(w.last);
    char reply[1100];
    snprintf(reply, sizeof reply, "you said %.1000s on 0\r\n", line);
    for (size_t i = 0; i < sent / 1002; i++)
        hear(fd, reply);
    free(line);
    close(fd);
}

static void test_move(void **state)
{
    (void)state;
    int fd = dial();
    say(fd, "MOVE\r\none\r\npar");
    hear(fd, "hello\r\nmoved\r\nyou said one on 1\r\n");
    assert_int_equal(tb_net_connections(w.net[0]), 0);
    assert_int_equal(tb_net_connections(w.net[1]), 1);
    say(fd, "tial\r\n");
    hear(fd, "you said partial on 1\r\n");
    say(fd, "QUIT\r\n");
    hear(fd, "bye\r\n");
    hear_end(fd);
    assert_int_equal(tb_net_connections(w.net[1]), 0);
}

static void test_timeouts(void **state)
{
    (void)state;
    tb_net_peers(w.net[0], w.net, 1); /* every connection stays on this worker */
    int idle = dial();
    hear(idle, "hello\r\n");
    tb_conn_timeout(w.last, 1, true);
    int busy = dial();
    hear(busy, "hello\r\n");
    tb_conn_timeout(w.last, 30, true);
    hear(idle, "too slow\r\n");
    hear_end(idle);
    say(busy, "here\r\n");
    hear(busy, "you said here on 0\r\n");
    close(busy);
}

static void test_pre_auth(void **state)
{
    (void)state;
    w.cfg.pre_auth_timeout_s = 1;
    int fd = dial();
    hear(fd, "hello\r\n");
    char got[4096];
    ssize_t len = 0;
    for (int i = 0; i < TURNS && len == 0; i++) { /* talking does not help */
        if (i % 10 == 0)
            say(fd, "x");
        turn();
        client_waits(1);
        ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
        len = n > 0 ? n : 0;
    }
    assert_int_equal(len, 10);
    assert_memory_equal(got, "too slow\r\n", 10);
    hear_end(fd);
}

/* Connections go to the workers in turn, whichever accepted them. */
static void test_dealing(void **state)
{
    (void)state;
    int fd[4];
    for (int i = 0; i < 4; i++) {
        fd[i] = dial();
        hear(fd[i], "hello\r\n");
    }
    for (int i = 0; i < WORKERS; i++)
        assert_int_equal(tb_net_connections(w.net[i]), 4 / WORKERS);
    for (int i = 0; i < 4; i++)
        close(fd[i]);
}

static void test_eviction(void **state)
{
    (void)state;
    tb_net_peers(w.net[0], w.net, 1); /* every connection stays on this worker */
    w.cfg.connections_max = 2;
    int known = dial();
    hear(known, "hello\r\n");
    tb_conn_timeout(w.last, 0, true);
    int oldest = dial();
    hear(oldest, "hello\r\n");
    int newest = dial();
    hear(newest, "hello\r\n");
    hear(oldest, "no room\r\n");
    hear_end(oldest);
    tb_conn_timeout(w.last, 0, true);
    int refused = dial(); /* nobody to make room */
    hear(refused, "no room\r\n");
    hear_end(refused);
    say(known, "still\r\n");
    hear(known, "you said still on 0\r\n");
    close(known);
    close(newest);
}

static void test_abort(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "ABORT\r\n");
    hear_end(fd);
}

/* A farewell is read even when input behind it was never consumed. */
static void test_farewell_over_unread(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    char junk[3000];
    memset(junk, 'x', sizeof junk);
    assert_int_equal(send(fd, junk, sizeof junk, MSG_NOSIGNAL), (ssize_t)sizeof junk);
    hear(fd, "long\r\n");
    char b;
    ssize_t n = -1;
    for (int i = 0; i < TURNS && n < 0; i++) {
        turn_slowly(i);
        n = recv(fd, &b, 1, MSG_DONTWAIT);
        if (n < 0)
            assert_true(errno == EAGAIN); /* never a reset */
    }
    assert_int_equal(n, 0);
    close(fd);
}

static void test_stop(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    bool stopped[WORKERS] = {0};
    struct tb_op op[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        op[i] = (struct tb_op){.done = on_stopped, .user = &stopped[i]};
        tb_net_stop(w.net[i], &op[i]);
    }
    hear(fd, "no room\r\n");
    hear_end(fd);
    for (int i = 0; i < TURNS && !(stopped[0] && stopped[1]); i++)
        turn_slowly(i);
    assert_true(stopped[0] && stopped[1]);
    w.stopped = true;
}

/* ---- TLS ---- */

struct client {
    int fd;
    struct tb_tls *tls;
    struct tb_buf out;
    bool closed;
};

static void client_pump(struct client *k, char *got, size_t room, size_t *len)
{
    char raw[4096];
    turn();
    tb_tls_drain(k->tls, &k->out);
    if (k->out.len)
        assert_int_equal(send(k->fd, k->out.ptr, k->out.len, MSG_NOSIGNAL), (ssize_t)k->out.len);
    k->out.len = 0;
    ssize_t n = recv(k->fd, raw, sizeof raw, MSG_DONTWAIT);
    if (n == 0)
        k->closed = true;
    if (n > 0 && !tb_tls_feed(k->tls, tb_slice(raw, (size_t)n)))
        k->closed = true;
    bool closed = false;
    *len += tb_tls_read(k->tls, got + *len, room - *len, &closed);
    k->closed = k->closed || closed;
}

static void client_hear(struct client *k, const char *want)
{
    char got[2048];
    size_t len = 0;
    for (int i = 0; i < TURNS && len < strlen(want) && !k->closed; i++) {
        client_pump(k, got, strlen(want), &len);
        turn_slowly(i);
    }
    got[len] = '\0';
    assert_string_equal(got, want);
}

static void client_begin(struct client *k, int fd, const char *alpn)
{
    memset(k, 0, sizeof *k);
    k->fd = fd;
    tb_buf_init(&k->out, 1 << 20);
    k->tls = tb_tls_new(w.client_tls, false, alpn);
    assert_non_null(k->tls);
    char none[1];
    size_t len = 0;
    for (int i = 0; i < TURNS && !tb_tls_established(k->tls) && !k->closed; i++) {
        client_pump(k, none, 0, &len);
        turn_slowly(i);
    }
}

static void client_say(struct client *k, const char *text)
{
    assert_true(tb_tls_write(k->tls, tb_slice_str(text), &k->out));
}

static void client_end(struct client *k)
{
    close(k->fd);
    tb_tls_free(k->tls);
    tb_buf_free(&k->out);
    turns(20);
}

static void test_starttls(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "TLS\r\n");
    hear(fd, "go\r\n");
    struct client k;
    client_begin(&k, fd, "imap");
    assert_true(tb_tls_established(k.tls));
    client_say(&k, "one\r\nMOVE\r\ntwo\r\n");
    client_hear(&k, "you said one on 0 safely\r\nmoved\r\nyou said two on 1 safely\r\n");
    assert_string_not_equal(tb_conn_tls_text(w.last), "");
    client_say(&k, "QUIT\r\n");
    client_hear(&k, "bye\r\n");
    client_end(&k);
}

static void test_tls_big(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    w.listener.tls = TB_TLS_IMPLICIT;
    struct client k;
    client_begin(&k, dial(), NULL);
    assert_true(tb_tls_established(k.tls));
    client_hear(&k, "hello\r\n");
    client_say(&k, "BIG 4194304\r\n");
    char *got = malloc(BYTES);
    size_t len = 0;
    for (int i = 0; i < 100000 && len < BYTES && !k.closed; i++)
        client_pump(&k, got, BYTES, &len);
    assert_int_equal(len, BYTES);
    for (size_t i = 0; i < BYTES; i++)
        if (got[i] != (char)('a' + i % 23))
            fail_msg("byte %zu is wrong", i);
    free(got);
    client_end(&k);
}

static void test_tls_stop(void **state)
{
    (void)state;
    w.listener.tls = TB_TLS_IMPLICIT;
    struct client k;
    client_begin(&k, dial(), NULL);
    client_hear(&k, "hello\r\n");
    tb_conn_overload(w.last, "test");
    client_hear(&k, "no room\r\n");
    client_end(&k);
}

/* N3: bytes in one piece with the word, and bytes before the answer is out: no answer to them, no handshake. */
static void test_injection(void **state)
{
    (void)state;
    int fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "TLS\r\nevil\r\n");
    hear_end(fd);
    fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "TLS\r\n\x16\x03\x01"); /* even if it looks like a handshake */
    hear_end(fd);
    fd = dial();
    hear(fd, "hello\r\n");
    say(fd, "TLS\r\n");
    hear(fd, "go\r\n");
    say(fd, "evil\r\n"); /* no TLS record */
    char got[64];
    ssize_t n = -1;
    for (int i = 0; i < TURNS && n != 0; i++) {
        turn_slowly(i);
        n = recv(fd, got, sizeof got, MSG_DONTWAIT);
        for (ssize_t k = 0; k < n; k++)
            assert_true(got[k] != 'y'); /* an alert may come, an answer may not */
        if (n < 0 && errno != EAGAIN)
            break;
    }
    assert_true(n <= 0);
    close(fd);
    turns(20);
    assert_int_equal(w.closed, 3);
}

static void test_alpn_mismatch(void **state)
{
    (void)state;
    w.listener.tls = TB_TLS_IMPLICIT;
    struct client k;
    client_begin(&k, dial(), "http/1.1");
    assert_true(k.closed);
    client_end(&k);
    assert_int_equal(w.opened, 0);
}

#define ALL(kind) \
    cmocka_unit_test_setup_teardown(test_dialogue, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_half_close, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_idle_memory, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_gate, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_gate_fails, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_lost, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_lost_in_the_middle, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_gate_peer_leaves, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_back_pressure, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_input_is_bounded, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_move, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_timeouts, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_pre_auth, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_dealing, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_eviction, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_abort, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_farewell_over_unread, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_stop, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_starttls, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_tls_big, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_tls_stop, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_injection, kind, teardown), \
        cmocka_unit_test_setup_teardown(test_alpn_mismatch, kind, teardown)

int main(void)
{
    const struct CMUnitTest posix[] = {ALL(setup_posix)};
    const struct CMUnitTest uring[] = {ALL(setup_uring)};
    tb_log_level(TB_LOG_WARN);
    int failed = cmocka_run_group_tests_name("net over posix", posix, NULL, NULL);
    struct tb_io *io;
    if (tb_io_open(TB_IO_URING, &io, NULL) != TB_OK) {
        puts("io_uring is not available here: its half is skipped");
        return failed;
    }
    tb_io_close(io);
    return failed + cmocka_run_group_tests_name("net over uring", uring, NULL, NULL);
}
