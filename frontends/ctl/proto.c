/*
 * proto.c: the control socket: one request a line, one answer a line, one at a time on each connection.
 *
 * It must never outlive its connection: a request whose connection closes goes on as an orphan, and frees itself when
 * it is done. Who may connect is the socket file's mode (0600). Thread: the worker's that accepted the connection; it
 * never moves.
 */
#include <stdlib.h>

#include "frontends/config/config.h"
#include "frontends/ctl/ctl.h"

enum { LINE_BYTES_MAX = 1 << 20, PIECE = 64 << 10 };

struct running {
    struct tb_ctl_request request;
    struct tb_conn *c; /* borrowed; NULL: the connection went away */
    bool done;
    size_t sent;
};
struct session {
    struct running *running; /* owned */
};

static void running_free(struct running *r)
{
    tb_buf_free(&r->request.reply);
    free(r);
}

static void request_done(struct tb_op *op)
{
    struct running *r = op->user;

    r->done = true;
    if (r->c)
        tb_conn_resume(r->c);
    else
        running_free(r);
}

/* send_reply: as much as the output takes; true when all of it is there. */
static bool send_reply(struct tb_conn *c, struct running *r)
{
    while (r->sent < r->request.reply.len && !tb_conn_full(c)) {
        struct tb_slice piece = tb_slice_sub(tb_buf_all(&r->request.reply), r->sent, PIECE);
        tb_conn_put(c, piece);
        r->sent += piece.len;
    }
    return r->sent == r->request.reply.len;
}

static void ctl_open(struct tb_conn *c)
{
    tb_conn_input_max(c, LINE_BYTES_MAX + 2);
    tb_conn_timeout(c, 0, true);
}

static enum tb_step start(struct tb_conn *c, struct session *s, struct tb_slice line)
{
    struct running *r = calloc(1, sizeof(*r));

    if (!r)
        return STEP_DONE;
    r->c = c;
    r->request.op = (struct tb_op){.done = request_done, .user = r};
    s->running = r;
    tb_ctl_run(tb_conn_worker(c), tb_conn_config(c)->user, tb_slice_trim(line), &r->request);
    return STEP_WAIT;
}

static enum tb_step ctl_step(struct tb_conn *c)
{
    struct session *s = tb_conn_session(c);
    struct tb_slice line;

    if (s->running) {
        if (!s->running->done || !send_reply(c, s->running))
            return STEP_WAIT;
        running_free(s->running);
        s->running = NULL;
        return STEP_MORE;
    }
    switch (tb_conn_line(c, LINE_BYTES_MAX, &line)) {
    case LINE_OK:
    case LINE_BARE: /* a line that ends with LF alone is welcome here */
        return start(c, s, line);
    case LINE_LONG:
        tb_conn_puts(c, "{\"ok\":false,\"exit\":64,\"error\":\"the request is longer than 1 MiB\"}\n");
        return STEP_DONE;
    case LINE_MORE:
        break;
    }
    return tb_conn_eof(c) ? STEP_DONE : STEP_WAIT;
}

static void ctl_farewell(struct tb_conn *c)
{
    tb_conn_puts(c, "{\"ok\":false,\"exit\":75,\"error\":\"the daemon is stopping or has too many connections\"}\n");
}

static void ctl_close(struct tb_conn *c)
{
    struct session *s = tb_conn_session(c);

    if (s->running && !s->running->done)
        s->running->c = NULL;
    else if (s->running)
        running_free(s->running);
    s->running = NULL;
}

const struct tb_proto tb_ctl_proto = {
    .name = "control",
    .session_bytes = sizeof(struct session),
    .open = ctl_open,
    .step = ctl_step,
    .timeout = ctl_farewell,
    .overload = ctl_farewell,
    .close = ctl_close,
};
