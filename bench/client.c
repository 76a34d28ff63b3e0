/*
 * client.c: one connection to the server under test: connect, send, frame replies, count, close.
 *
 * The framer finds the end of a reply: one line, or for IMAP a line with the literals in it. The bytes of a literal are
 * kept only in replies sampled for the full check; the others are counted and passed over, so that the load generator
 * costs little. All operations run on the thread that owns the client (B2).
 *
 * RFC 9051 4.3 (literals), RFC 5321 4.2 (replies).
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

enum { TEXT_BYTES_MAX = 16 << 20, KEPT_BYTES_MAX = 512 << 20 };

static void finish_close(struct bench_client *c)
{
    if (c->phase != BENCH_CLOSED || c->connecting || c->receiving || c->sending || c->fd < 0)
        return;
    (void)tb_io_socket_close(c->thread->io, c->fd); /* nothing is lost by a failing close */
    c->fd = -1;
    if (c->thread->bench->options.workload->close != NULL)
        c->thread->bench->options.workload->close(c);
    tb_buf_free(&c->in);
    tb_buf_free(&c->out);
    tb_buf_free(&c->flying);
    bench_thread_closed(c->thread);
}

void bench_client_drop(struct bench_client *c)
{
    enum bench_phase was = c->phase;
    if (was == BENCH_CLOSED)
        return;
    c->phase = BENCH_CLOSED;
    if (c->fd >= 0) {
        tb_io_shutdown(c->thread->io, c->fd);
        finish_close(c);
    } else if (!c->connecting) {
        bench_thread_closed(c->thread);
    } else {
        tb_io_cancel(c->thread->io, &c->connect_op);
    }
    if (was == BENCH_OPENING)
        bench_thread_opened(c->thread);
    else if (was == BENCH_BUSY)
        bench_thread_rested(c->thread);
}

/* Keep the first failure's words for the report, one printable line. */
static void remember(struct bench_client *c, const char *what, struct tb_slice reply)
{
    char *text = c->thread->result.first_error;
    if (text[0] != '\0')
        return;
    int n = snprintf(text, sizeof c->thread->result.first_error, "connection %u: %s%s%.*s", c->index, what,
                     reply.len > 0 ? ": " : "", (int)(reply.len < 120 ? reply.len : 120),
                     reply.len > 0 ? reply.ptr : "");
    for (int i = 0; i < n && text[i] != '\0'; i++) {
        if ((unsigned char)text[i] < 0x20 || (unsigned char)text[i] >= 0x7f)
            text[i] = '?';
    }
}

void bench_client_note(struct bench_client *c, const char *what, struct tb_slice reply)
{
    remember(c, what, reply);
    c->thread->result.refused++;
    atomic_fetch_add_explicit(&c->thread->live_errors, 1, memory_order_relaxed);
}

void bench_client_lost(struct bench_client *c, const char *what, struct tb_slice reply)
{
    bench_client_note(c, what, reply);
    bench_client_drop(c);
}

void bench_client_wrong(struct bench_client *c, const char *what, struct tb_slice reply)
{
    remember(c, what, reply);
    c->thread->result.wrong++;
    atomic_fetch_add_explicit(&c->thread->live_errors, 1, memory_order_relaxed);
    bench_client_drop(c);
}

/* ---- sending ---- */

static void send_done(struct tb_op *op)
{
    struct bench_client *c = op->user;
    c->sending = false;
    if (c->phase == BENCH_CLOSED) {
        finish_close(c);
        return;
    }
    if (op->result < 0) {
        bench_client_lost(c, "send failed", tb_slice_str(strerror((int)-op->result)));
        return;
    }
    if (c->out.len > 0) {
        bench_client_send(c);
    } else if (c->queued.len > 0) {
        struct tb_slice bytes = c->queued;
        c->queued = (struct tb_slice){0};
        bench_client_send_bytes(c, bytes);
    }
}

void bench_client_send_bytes(struct bench_client *c, struct tb_slice bytes)
{
    if (c->sending) {
        c->queued = bytes;
        return;
    }
    c->sending = true;
    tb_io_send(c->thread->io, &c->send_op, c->fd, bytes.ptr, (uint32_t)bytes.len);
}

void bench_client_send(struct bench_client *c)
{
    if (c->out.failed) {
        bench_client_wrong(c, "no memory for a command", (struct tb_slice){0});
        return;
    }
    if (c->sending)
        return;
    struct tb_buf swap = c->flying;
    c->flying = c->out;
    c->out = swap;
    c->out.len = 0;
    bench_client_send_bytes(c, tb_buf_all(&c->flying));
}

/* ---- receiving ---- */

/* Does this line of a reply announce a literal? Only responses with data do; a "{5}" at the end of free text is text.
 */
static bool announces_literal(struct tb_slice whole, struct tb_slice line, uint64_t *len)
{
    if (line.len < 5 || line.ptr[line.len - 3] != '}' || line.ptr[line.len - 2] != '\r')
        return false;
    if (whole.len < 3 || whole.ptr[0] != '*' || tb_slice_istarts(whole, TB_SLICE("* OK ")) ||
        tb_slice_istarts(whole, TB_SLICE("* NO ")) || tb_slice_istarts(whole, TB_SLICE("* BAD ")) ||
        tb_slice_istarts(whole, TB_SLICE("* BYE ")))
        return false;
    size_t from = line.len - 3;
    while (from > 0 && line.ptr[from - 1] >= '0' && line.ptr[from - 1] <= '9')
        from--;
    if (from == 0 || line.ptr[from - 1] != '{')
        return false;
    return tb_slice_u64(tb_slice(line.ptr + from, line.len - 3 - from), UINT32_MAX, len);
}

static void reply_reset(struct bench_client *c)
{
    const struct bench_options *o = &c->thread->bench->options;
    c->in.len = 0;
    c->text_from = 0;
    c->reply = (struct bench_reply){0};
    c->reply.sampled = o->check_every > 0 && bench_random(&c->thread->random) % o->check_every == 0;
}

/* A line has ended; line includes its LF and begins behind the last literal. Begins a literal or gives the reply out.
 */
static void line_complete(struct bench_client *c, struct tb_slice line)
{
    if (c->in.len > 0) {
        tb_buf_slice(&c->in, line);
        line = tb_slice_sub(tb_buf_all(&c->in), c->text_from, c->in.len);
    }
    struct tb_slice whole = c->in.len > 0 ? tb_buf_all(&c->in) : line;
    uint64_t len = 0;
    if (c->literals && announces_literal(whole, line, &len)) {
        if (c->in.len == 0)
            tb_buf_slice(&c->in, line);
        c->reply.literals++;
        c->reply.literal_bytes += len;
        c->literal_left = len;
        c->text_from = c->in.len;
        return;
    }
    if (c->in.failed) {
        bench_client_wrong(c, "a reply is too long", (struct tb_slice){0});
        return;
    }
    if (line.len < 2 || line.ptr[line.len - 2] != '\r') {
        bench_client_wrong(c, "a line ends without CR", tb_slice_sub(whole, 0, 80));
        return;
    }
    c->reply.text = tb_slice(whole.ptr, whole.len - 2);
    if (c->reply.sampled)
        c->thread->result.checked++;
    if (c->phase != BENCH_LEAVING)
        c->thread->bench->options.workload->reply(c);
    reply_reset(c);
}

/* Take what belongs to the current literal; returns how much that is. */
static size_t take_literal(struct bench_client *c, struct tb_slice in)
{
    size_t n = in.len < c->literal_left ? in.len : (size_t)c->literal_left;
    if (c->reply.sampled) {
        tb_buf_put(&c->in, in.ptr, n);
        c->text_from = c->in.len;
    }
    c->literal_left -= n;
    return n;
}

void bench_client_feed(struct bench_client *c, struct tb_slice in)
{
    while (in.len > 0 && c->phase != BENCH_CLOSED) {
        size_t n;
        if (c->literal_left > 0) {
            n = take_literal(c, in);
        } else {
            const char *nl = memchr(in.ptr, '\n', in.len);
            n = nl != NULL ? (size_t)(nl - in.ptr) + 1 : in.len;
            if (nl != NULL)
                line_complete(c, tb_slice(in.ptr, n));
            else if (c->in.len - c->text_from < TEXT_BYTES_MAX)
                tb_buf_put(&c->in, in.ptr, n);
            else
                bench_client_wrong(c, "a line has no end", (struct tb_slice){0});
        }
        in = tb_slice(in.ptr + n, in.len - n);
    }
}

static void recv_done(struct tb_op *op)
{
    struct bench_client *c = op->user;
    c->receiving = false;
    if (c->phase == BENCH_CLOSED) {
        finish_close(c);
        return;
    }
    if (op->result <= 0) {
        if (c->phase == BENCH_LEAVING)
            bench_client_drop(c);
        else
            bench_client_lost(c, "the server closed the connection",
                              op->result < 0 ? tb_slice_str(strerror((int)-op->result)) : (struct tb_slice){0});
        return;
    }
    c->thread->result.received += (uint64_t)op->result;
    bench_client_feed(c, op->data);
    if (c->phase == BENCH_CLOSED) {
        finish_close(c);
        return;
    }
    c->receiving = true;
    tb_io_recv(c->thread->io, &c->recv_op, c->fd);
}

static void connect_done(struct tb_op *op)
{
    struct bench_client *c = op->user;
    c->connecting = false;
    if (op->result < 0) {
        if (c->phase == BENCH_CLOSED)
            bench_thread_closed(c->thread);
        else
            bench_client_lost(c, "cannot connect", tb_slice_str(strerror((int)-op->result)));
        return;
    }
    c->fd = (int)op->result;
    if (c->phase == BENCH_CLOSED) {
        finish_close(c);
        return;
    }
    c->receiving = true;
    tb_io_recv(c->thread->io, &c->recv_op, c->fd);
}

void bench_client_open(struct bench_client *c)
{
    const struct bench_options *o = &c->thread->bench->options;
    c->phase = BENCH_OPENING;
    c->fd = -1;
    c->connect_op.done = connect_done;
    c->recv_op.done = recv_done;
    c->send_op.done = send_done;
    c->connect_op.user = c->recv_op.user = c->send_op.user = c;
    tb_buf_init(&c->in, KEPT_BYTES_MAX);
    tb_buf_init(&c->out, TEXT_BYTES_MAX);
    tb_buf_init(&c->flying, TEXT_BYTES_MAX);
    reply_reset(c);
    c->thread->open++;
    o->workload->open(c);
    c->connecting = true;
    tb_io_connect(c->thread->io, &c->connect_op, o->host, o->port);
}

/* ---- operations ---- */

static void begin(struct bench_client *c)
{
    c->phase = BENCH_BUSY;
    c->began_ns = tb_io_now_ns(c->thread->io);
    c->thread->bench->options.workload->begin(c);
}

void bench_client_ready(struct bench_client *c)
{
    c->phase = BENCH_RESTING;
    bench_thread_opened(c->thread);
}

void bench_client_next(struct bench_client *c)
{
    if (bench_thread_next(c->thread)) {
        begin(c);
        return;
    }
    c->phase = BENCH_RESTING;
    bench_thread_rested(c->thread);
}

void bench_client_start(struct bench_client *c)
{
    if (c->phase == BENCH_RESTING && bench_thread_next(c->thread)) {
        c->thread->busy++;
        begin(c);
    }
}

void bench_client_done(struct bench_client *c, uint64_t messages, uint64_t bytes)
{
    struct bench_thread *t = c->thread;
    if (t->measuring && c->began_ns >= t->measured_from_ns) {
        t->result.operations++;
        t->result.messages += messages;
        t->result.bytes += bytes;
        tb_histogram_add(&t->result.latency, tb_io_now_ns(t->io) - c->began_ns);
        atomic_fetch_add_explicit(&t->live_messages, messages, memory_order_relaxed);
        atomic_fetch_add_explicit(&t->live_bytes, bytes, memory_order_relaxed);
    }
    bench_client_next(c);
}

void bench_client_leave(struct bench_client *c)
{
    if (c->phase != BENCH_RESTING) {
        bench_client_drop(c);
        return;
    }
    c->phase = BENCH_LEAVING;
    c->thread->bench->options.workload->leave(c);
    bench_client_send(c);
}
