/*
 * conn.c: the life of a connection: its steps, what happens between them, its move to another worker, its end.
 *
 * Every completion (bytes, sent, gate, resume, tick) ends in tb_conn_settle, the one place that decides what is sent,
 * received or next. A step is never run inside another, nor inside a call from a step.
 * A connection is freed when it is CLOSED, none of its ops is in flight and it is not in the ready list: no op ever
 * completes into freed memory.
 * Thread: the owner's; a moving connection belongs to nobody while its op is posted.
 */
#include <errno.h>
#include <stdlib.h>

#include "frontends/net/conn.h"

/* ---- birth ---- */

/* Session ids: six random characters of this start, the worker, a counter. */
static void make_id(struct tb_net *n, char out[24])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    char text[16];
    size_t len = 0;
    uint64_t v = ++n->counter;
    do
        text[len++] = digits[v & 31];
    while ((v >>= 5) && len < 13);
    size_t used = strlen(n->boot);
    memcpy(out, n->boot, used);
    while (len)
        out[used++] = text[--len];
    out[used] = '\0';
}

static void on_recv(struct tb_op *op);

struct tb_conn *tb_conn_new(struct tb_net *n, const struct tb_listener *l, int fd)
{
    struct tb_conn *c = calloc(1, sizeof *c + l->proto->session_bytes);
    if (!c)
        return NULL;
    c->net = n;
    c->listener = l;
    c->fd = fd;
    c->recv.done = on_recv;
    c->recv.user = c;
    c->input_max = TB_CONN_INPUT_MAX;
    c->loopback = tb_io_peer(n->io, fd, c->peer);
    c->opened_s = c->anonymous_s = c->active_s = c->out_s = tb_net_now_s(n);
    make_id(n, c->id);
    tb_link_init(&c->wheel);
    tb_link_init(&c->pre);
    tb_link_append(&n->pre, &c->pre);
    tb_net_link(n, c);
    return c;
}

void tb_conn_start(struct tb_conn *c)
{
    if (c->listener->tls == TB_TLS_IMPLICIT) {
        if (!tb_conn_tls_begin(c))
            tb_conn_close(c, "no-tls");
        else
            tb_conn_settle(c);
        return;
    }
    c->phase = PHASE_OPEN;
    c->opened = true;
    c->listener->proto->open(c);
    tb_conn_settle(c);
}

/* ---- steps ---- */

static void take_wishes(struct tb_conn *c)
{
    if (c->want_tls) {
        c->want_tls = false;
        c->phase = PHASE_SWITCH;
    } else if (c->want_move) {
        c->want_move = false;
        c->phase = PHASE_MOVE;
    }
}

/* True: the step waits, and more input may be what it waits for. */
static bool run_steps(struct tb_conn *c)
{
    for (unsigned i = 0; i < TB_NET_STEPS_MAX; i++) {
        c->again = false;
        c->running = true;
        enum tb_step s = c->listener->proto->step(c);
        c->running = false;
        if (c->broken)
            return false;
        if (s == STEP_DONE) {
            tb_conn_last(c, c->eof ? "eof" : "done");
            return false;
        }
        take_wishes(c);
        if (c->phase != PHASE_OPEN)
            return false;
        if (tb_conn_full(c))
            c->choked = true;
        if (s == STEP_WAIT && c->yield)
            break;
        if (s == STEP_WAIT && !c->again)
            return true;
    }
    c->yield = false;
    tb_net_ready(c->net, c);
    return false;
}

void tb_conn_work(struct tb_conn *c)
{
    for (unsigned rounds = 0; c->phase == PHASE_OPEN && run_steps(c); rounds++) {
        if (!tb_conn_zip_input(c) && !tb_conn_tls_input(c))
            break;
        if (c->zip && rounds == TB_NET_ZIP_ROUNDS) {
            tb_net_ready(c->net, c);
            break;
        }
    }
    tb_conn_settle(c);
}

void tb_conn_resume(struct tb_conn *c)
{
    if (c->running)
        c->again = true;
    else if (c->phase == PHASE_OPEN)
        tb_net_ready(c->net, c);
}

void tb_conn_yield(struct tb_conn *c)
{
    c->yield = true;
}

/* ---- between steps ---- */

static void receive(struct tb_conn *c)
{
    if (c->receiving)
        return;
    c->receiving = true;
    c->recv_cancelled = false;
    tb_io_recv(c->net->io, &c->recv, c->fd);
}

static void receive_stop(struct tb_conn *c)
{
    if (!c->receiving || c->recv_cancelled)
        return;
    c->recv_cancelled = true;
    tb_io_cancel(c->net->io, &c->recv);
}

static bool wants_input(const struct tb_conn *c)
{
    if (c->eof || c->ready)
        return false;
    if (c->phase == PHASE_HANDSHAKE)
        return true;
    return c->phase == PHASE_OPEN && !c->choked && c->view.len < c->input_max && !(c->tls && c->tls->more) &&
           !(c->zip && c->zip->more);
}

/* STARTTLS: every byte that came before our answer left is an injection (N3). */
static void settle_switch(struct tb_conn *c)
{
    if (c->view.len) {
        tb_conn_close(c, "bytes-before-tls");
        return;
    }
    if (c->receiving) {
        receive_stop(c); /* first know what has come, then answer: the peer's handshake cannot come before */
        return;
    }
    tb_output_gate(c);
    tb_output_flush(c);
    if (c->broken || (!c->sending && tb_output_pending(c) == 0 && !tb_conn_tls_begin(c)))
        tb_conn_close(c, "no-tls");
    else if (c->phase == PHASE_HANDSHAKE)
        receive(c);
}

/*
 * The last word: once it is out, swallow what the peer still sent (a close over unread input would reset it), then
 * close.
 */
static void settle_last(struct tb_conn *c)
{
    if (c->tls && !tb_tls_established(c->tls->tls)) {
        tb_output_free(c);
        c->inflight = 0;
    }
    tb_output_gate(c);
    if (c->tls && tb_output_pending(c) == 0)
        tb_conn_tls_bye(c);
    tb_output_flush(c);
    if (c->broken) {
        tb_conn_close(c, "memory");
    } else if (!c->sending && tb_output_pending(c) == 0) {
        if (c->eof || (c->view.len == 0 && !c->unread)) {
            tb_conn_close(c, "done");
            return;
        }
        tb_input_free(c);
        c->phase = PHASE_DRAIN;
        receive(c);
        tb_net_ready(c->net, c); /* by then the receive was tried: stop it if there was nothing */
    }
}

static void on_arrive(struct tb_op *op)
{
    struct tb_conn *c = op->user;
    struct tb_net *n = c->net;
    tb_net_link(n, c);
    atomic_fetch_sub(&n->inbound, 1);
    c->phase = PHASE_OPEN;
    if (!c->authenticated)
        tb_link_append(&n->pre, &c->pre);
    if (atomic_load(&n->stopping))
        tb_conn_overload(c, "stopping");
    else
        tb_conn_work(c);
}

static void leave(struct tb_conn *c)
{
    if (c->listener->proto->leave)
        c->listener->proto->leave(c);
    c->account = NULL;
}

static void settle_move(struct tb_conn *c)
{
    struct tb_net *from = c->net;
    TB_ASSERT(c->move_to < from->peers_n);
    struct tb_net *to = from->peers[c->move_to];
    tb_output_gate(c);
    tb_output_flush(c); /* what was answered leaves now: the peer need not wait for the move */
    if (c->broken) {
        tb_conn_close(c, "memory");
        return;
    }
    if (to == from) {
        if (c->account && c->marks_n)
            return;
        leave(c);
        c->phase = PHASE_OPEN;
        tb_net_ready(from, c);
        return;
    }
    receive_stop(c);
    if (c->receiving || c->sending || c->ready || c->marks_n)
        return;
    atomic_fetch_add(&to->inbound, 1); /* before the look: see tb_net_stop */
    if (atomic_load(&to->stopping)) {
        atomic_fetch_sub(&to->inbound, 1);
        c->phase = PHASE_OPEN;
        tb_conn_overload(c, "stopping");
        return;
    }
    leave(c);
    tb_net_unlink(c);
    c->net = to;
    c->send.done = on_arrive;
    c->send.user = c;
    tb_io_post(from->io, to->io, &c->send);
    tb_net_gone(from);
}

static void settle_open(struct tb_conn *c)
{
    tb_output_gate(c);
    tb_output_flush(c);
    if (c->broken) {
        tb_conn_close(c, "memory");
        return;
    }
    if (tb_conn_full(c))
        c->choked = true;
    if (wants_input(c))
        receive(c);
    tb_net_due(c);
}

void tb_conn_settle(struct tb_conn *c)
{
    if (c->phase == PHASE_CLOSED) {
        tb_conn_release(c);
        return;
    }
    tb_input_keep(c);
    tb_output_mark(c);
    if (c->broken) {
        tb_conn_close(c, "memory");
        return;
    }
    switch ((enum tb_phase)c->phase) {
    case PHASE_HANDSHAKE:
    case PHASE_OPEN:
        settle_open(c);
        break;
    case PHASE_SWITCH:
        settle_switch(c);
        break;
    case PHASE_MOVE:
        settle_move(c);
        break;
    case PHASE_LAST:
        settle_last(c);
        break;
    case PHASE_DRAIN:
        receive_stop(c);
        break;
    case PHASE_CLOSED:
        break;
    }
}

/* ---- input arrives ---- */

static void on_data(struct tb_conn *c, struct tb_slice data)
{
    if (c->phase == PHASE_SWITCH) {
        tb_conn_close(c, "bytes-before-tls");
    } else if (c->phase == PHASE_DRAIN) {
        if (++c->drains >= TB_CONN_DRAIN_MAX) {
            tb_conn_close(c, "done");
            return;
        }
        receive(c);
        tb_net_ready(c->net, c);
    } else if (c->phase == PHASE_LAST) {
        c->unread = true;
        tb_conn_settle(c);
    } else if (c->tls) {
        tb_conn_tls_feed(c, data);
    } else if (!tb_conn_take(c, data.ptr, data.len)) {
        tb_conn_close(c, "memory");
    } else {
        tb_conn_work(c);
    }
}

/* heard: count c among those heard from in this second. */
static void heard(struct tb_conn *c, uint32_t now_s)
{
    struct tb_net *n = c->net;
    if (n->heard_s != now_s) {
        n->heard_before = n->heard_s + 1 == now_s ? n->heard_n : 0;
        n->heard_s = now_s;
        n->heard_n = 0;
    }
    if (c->heard_s != now_s)
        n->heard_n++;
    c->heard_s = c->active_s = now_s;
}

uint32_t tb_conn_company(const struct tb_conn *c)
{
    const struct tb_net *n = c->net;
    return n->heard_n > n->heard_before ? n->heard_n : n->heard_before;
}

static void on_recv(struct tb_op *op)
{
    struct tb_conn *c = op->user;
    c->receiving = false;
    if (c->phase == PHASE_CLOSED) {
        tb_conn_release(c);
    } else if (op->result > 0) {
        heard(c, tb_net_now_s(c->net));
        on_data(c, tb_slice(op->data.ptr, (size_t)op->result));
    } else if (op->result == -ECANCELED && c->phase != PHASE_DRAIN) {
        tb_conn_settle(c);
    } else if (op->result < 0 || c->phase == PHASE_DRAIN) {
        tb_conn_close(c, "reset");
    } else {
        c->eof = true;
        if (c->phase == PHASE_HANDSHAKE || c->phase == PHASE_SWITCH)
            tb_conn_close(c, "eof");
        else
            tb_conn_work(c);
    }
}

/* ---- the end ---- */

void tb_conn_last(struct tb_conn *c, const char *cause)
{
    if (c->phase >= PHASE_LAST)
        return;
    c->phase = PHASE_LAST;
    c->out_s = tb_net_now_s(c->net);
    if (!c->cause)
        c->cause = cause;
    tb_link_remove(&c->pre);
    tb_net_due(c);
}

static void farewell(struct tb_conn *c, void (*say)(struct tb_conn *c), const char *cause)
{
    if (!c->opened || c->phase == PHASE_HANDSHAKE || c->phase == PHASE_SWITCH) {
        tb_conn_close(c, cause);
        return;
    }
    if (c->phase >= PHASE_LAST)
        return;
    say(c);
    tb_conn_last(c, cause);
    tb_conn_settle(c);
}

void tb_conn_overload(struct tb_conn *c, const char *cause)
{
    if (c->phase >= PHASE_LAST)
        return;
    if (!c->opened && c->listener->tls != TB_TLS_IMPLICIT) {
        c->phase = PHASE_OPEN; /* refused at the door: the farewell is its greeting */
        c->opened = true;
    }
    farewell(c, c->listener->proto->overload, cause);
}

bool tb_conn_holds(const struct tb_conn *c, uint32_t shard)
{
    bool holds = c->account && tb_account_shard(c->account) == shard;
    for (uint32_t i = 0; i < c->marks_n; i++)
        holds = holds || tb_account_shard(c->marks[i].account) == shard;
    return holds;
}

/* tb_conn_lost: R7. The session is closed before the farewell is out: its shard is not to wait for a slow peer. */
void tb_conn_lost(struct tb_conn *c)
{
    if (c->phase == PHASE_CLOSED || !c->opened)
        return;
    bool open = c->phase == PHASE_OPEN ||
                (c->phase == PHASE_LAST && c->total > c->released); /* its last word is held */
    if (c->gating)
        tb_gate_cancel(c->marks[0].account, &c->gate);
    c->gating = false;
    tb_output_drop(c);
    c->account = NULL;
    if (open && !c->middle && c->listener->proto->lost)
        c->listener->proto->lost(c);
    c->listener->proto->close(c);
    c->opened = false;
    tb_conn_last(c, "shard-failed");
    tb_conn_settle(c);
}

void tb_conn_close(struct tb_conn *c, const char *cause)
{
    if (c->phase == PHASE_CLOSED)
        return;
    c->phase = PHASE_CLOSED;
    if (!c->cause)
        c->cause = cause;
    if (c->gating)
        tb_gate_cancel(c->marks[0].account, &c->gate);
    c->gating = false;
    if (c->opened)
        c->listener->proto->close(c);
    c->account = NULL;
    receive_stop(c);
    if (c->sending)
        tb_io_cancel(c->net->io, &c->send);
    tb_conn_release(c);
}

static void log_end(const struct tb_conn *c)
{
    tb_log(TB_LOG_INFO, "session end id=%s proto=%s peer=%s user=%s tls=\"%s\" in=%llu out=%llu seconds=%u cause=%s",
           c->id, c->listener->proto->name, c->peer, c->name ? c->name : "-", tb_conn_tls_text(c),
           (unsigned long long)c->in, (unsigned long long)c->sent, tb_net_now_s(c->net) - c->opened_s, c->cause);
}

void tb_conn_release(struct tb_conn *c)
{
    if (c->receiving || c->sending || c->ready || c->running)
        return;
    struct tb_net *n = c->net;
    log_end(c);
    tb_net_unlink(c);
    (void)tb_io_socket_close(n->io, c->fd); /* nothing is left to be said or read */
    tb_input_free(c);
    tb_output_free(c);
    tb_conn_tls_free(c);
    tb_conn_zip_free(c);
    free(c->name);
    free(c);
    tb_net_gone(n);
}

/* ---- deadlines ---- */

static uint32_t sooner(uint32_t a, uint32_t from, uint32_t add)
{
    return add && from + add < a ? from + add : a;
}

uint32_t tb_conn_due(const struct tb_conn *c)
{
    uint32_t due = UINT32_MAX;
    bool last = c->phase >= PHASE_LAST;
    if (!c->authenticated && !last)
        due = sooner(due, c->anonymous_s, c->net->cfg->pre_auth_timeout_s);
    if (!last)
        due = sooner(due, c->active_s, c->timeout_s);
    if (last)
        due = sooner(due, c->out_s, TB_NET_FAREWELL_S);
    else if (tb_output_pending(c) || c->sending)
        due = sooner(due, c->out_s, TB_NET_STUCK_S);
    if (atomic_load_explicit(&c->net->stopping, memory_order_relaxed))
        due = sooner(due, c->net->stop_s, TB_NET_STOP_S);
    return due;
}

void tb_conn_expire(struct tb_conn *c, uint32_t now_s)
{
    bool stopping = atomic_load_explicit(&c->net->stopping, memory_order_relaxed);
    bool stuck = (tb_output_pending(c) || c->sending) && c->out_s + TB_NET_STUCK_S <= now_s;
    if (c->phase >= PHASE_LAST || stuck)
        tb_conn_close(c, "stuck");
    else if (stopping)
        tb_conn_close(c, "stopping");
    else
        farewell(c, c->listener->proto->timeout, "timeout");
}

void tb_conn_timeout(struct tb_conn *c, uint32_t seconds, bool authenticated)
{
    c->timeout_s = seconds;
    if (authenticated && !c->authenticated) {
        c->authenticated = true;
        tb_link_remove(&c->pre);
    }
    tb_net_due(c);
}

void tb_conn_anonymous(struct tb_conn *c)
{
    c->anonymous_s = tb_net_now_s(c->net);
    c->timeout_s = 0;
    if (c->authenticated)
        tb_link_append(&c->net->pre, &c->pre);
    c->authenticated = false;
    tb_conn_set_name(c, NULL);
    tb_net_due(c);
}

/* ---- what protocols ask and wish ---- */

void *tb_conn_session(struct tb_conn *c)
{
    return c->session;
}

struct tb_worker *tb_conn_worker(struct tb_conn *c)
{
    return c->net->worker;
}

const struct tb_net_config *tb_conn_config(struct tb_conn *c)
{
    return c->net->cfg;
}

const struct tb_listener *tb_conn_listener(struct tb_conn *c)
{
    return c->listener;
}

const char *tb_conn_id(const struct tb_conn *c)
{
    return c->id;
}

const char *tb_conn_peer(const struct tb_conn *c)
{
    return c->peer;
}

bool tb_conn_loopback(const struct tb_conn *c)
{
    return c->loopback;
}

bool tb_conn_secure(const struct tb_conn *c)
{
    return c->tls && tb_tls_established(c->tls->tls);
}

const char *tb_conn_tls_text(const struct tb_conn *c)
{
    return tb_conn_secure(c) ? tb_tls_describe(c->tls->tls) : "";
}

const struct tb_tls *tb_conn_tls(const struct tb_conn *c)
{
    return tb_conn_secure(c) ? c->tls->tls : NULL;
}

struct tb_conn_traffic tb_conn_traffic(const struct tb_conn *c)
{
    return (struct tb_conn_traffic){c->in, c->total};
}

void tb_conn_set_name(struct tb_conn *c, const char *name)
{
    free(c->name);
    c->name = name ? strdup(name) : NULL; /* without memory: the log line says "-" */
}

void tb_conn_starttls(struct tb_conn *c)
{
    c->want_tls = true;
}

void tb_conn_move(struct tb_conn *c, uint32_t worker)
{
    c->move_to = worker;
    c->want_move = true;
}

void tb_conn_abort(struct tb_conn *c)
{
    if (!c->cause)
        c->cause = "abort";
    c->broken = true;
    if (!c->running)
        tb_net_ready(c->net, c);
}
