/*
 * listener.c: a tb_net: accepting, the list of connections whose step is due, deadlines, stopping.
 *
 * Deadlines: a wheel of one-second slots. A connection sits in the slot of its next deadline (or of the furthest slot);
 * activity only stores a time, and the deadline is worked out when its slot comes up: O(1) per activity.
 * Ready list: one op posted to ourselves runs all connections whose step is due, each for a bounded number of steps.
 * When connections_max is reached the oldest connection without a login makes room for the new one.
 * Thread: the worker's; `stopping` and `inbound` are read and counted by others (see tb_net_stop).
 */
#include <errno.h>
#include <stdlib.h>

#include "frontends/net/conn.h"

enum { NET_RESERVE = 64, COMPLAIN_S = 10 };

/* ---- ready list ---- */

static void on_turn(struct tb_op *op)
{
    struct tb_net *n = op->user;
    struct tb_conn *c = n->ready_head;
    n->ready_head = n->ready_tail = NULL;
    n->turning = false;
    while (c) {
        struct tb_conn *next = c->ready_next;
        c->ready = false;
        c->ready_next = NULL;
        if (c->phase == PHASE_OPEN && !c->broken)
            tb_conn_work(c);
        else
            tb_conn_settle(c);
        c = next;
    }
    tb_net_gone(n);
}

void tb_net_ready(struct tb_net *n, struct tb_conn *c)
{
    if (c->ready)
        return;
    c->ready = true;
    c->ready_next = NULL;
    if (n->ready_tail)
        n->ready_tail->ready_next = c;
    else
        n->ready_head = c;
    n->ready_tail = c;
    if (n->turning)
        return;
    n->turning = true;
    n->turn.user = n;
    n->turn.done = on_turn;
    tb_io_post(n->io, n->io, &n->turn);
}

/* ---- the wheel ---- */

static void wheel_put(struct tb_conn *c, uint32_t due)
{
    struct tb_net *n = c->net;
    uint32_t furthest = n->tick_s + TB_NET_WHEEL - 1;
    due = due > n->tick_s ? due : n->tick_s + 1;
    c->due_s = due < furthest ? due : furthest;
    tb_link_remove(&c->wheel);
    tb_link_append(&n->wheel[c->due_s % TB_NET_WHEEL], &c->wheel);
}

void tb_net_due(struct tb_conn *c)
{
    uint32_t due = tb_conn_due(c);
    if (due < c->due_s)
        wheel_put(c, due);
}

void tb_net_link(struct tb_net *n, struct tb_conn *c)
{
    n->connections++;
    wheel_put(c, tb_conn_due(c));
}

void tb_net_unlink(struct tb_conn *c)
{
    tb_link_remove(&c->wheel);
    tb_link_remove(&c->pre);
    c->net->connections--;
}

static void wheel_slot(struct tb_net *n, uint32_t second)
{
    struct tb_link due;
    struct tb_link *slot = &n->wheel[second % TB_NET_WHEEL];
    if (tb_link_empty(slot))
        return;
    due = *slot; /* the list moves to a head of its own: connections leave it one by one */
    due.next->prev = due.prev->next = &due;
    tb_link_init(slot);
    while (!tb_link_empty(&due)) {
        struct tb_conn *c = TB_CONTAINER(due.next, struct tb_conn, wheel);
        uint32_t at = tb_conn_due(c);
        wheel_put(c, at > second ? at : second + 1); /* first: expiring may free it */
        if (at <= second)
            tb_conn_expire(c, second);
    }
}

static void tick_arm(struct tb_net *n);

static void on_tick(struct tb_op *op)
{
    struct tb_net *n = op->user;
    n->ticking = false;
    if (op->result == 0) {
        uint32_t now = tb_net_now_s(n);
        uint32_t behind = now - n->tick_s;
        if (behind > TB_NET_WHEEL) /* asleep for long: each slot once is enough */
            n->tick_s = now - TB_NET_WHEEL;
        while (n->tick_s < now) {
            n->tick_s++;
            wheel_slot(n, n->tick_s);
        }
        if (!n->stop_op || n->connections || atomic_load(&n->inbound))
            tick_arm(n);
    }
    tb_net_gone(n);
}

static void tick_arm(struct tb_net *n)
{
    n->ticking = true;
    n->tick.user = n;
    n->tick.done = on_tick;
    tb_io_timer(n->io, &n->tick, 1000000000u);
}

/* ---- accepting ---- */

static bool make_room(struct tb_net *n)
{
    if (n->connections < n->cfg->connections_max)
        return true;
    if (tb_link_empty(&n->pre))
        return false;
    struct tb_conn *oldest = TB_CONTAINER(n->pre.next, struct tb_conn, pre);
    tb_link_remove(&oldest->pre);
    tb_conn_overload(oldest, "evicted");
    return true;
}

static void complain(struct tb_net *n, const char *what, int sys)
{
    uint32_t now = tb_net_now_s(n);
    if (n->complained_s && now - n->complained_s < COMPLAIN_S)
        return;
    n->complained_s = now;
    struct tb_error err;
    (void)tb_error_set(&err, TB_LIMIT, sys, "%s", what); /* for its text */
    tb_log(TB_LOG_WARN, "accept: %s connections=%u", err.text, n->connections);
}

/* admit: a new connection on this worker. */
static void admit(struct tb_net *n, const struct tb_listener *listener, int fd)
{
    bool stopping = atomic_load_explicit(&n->stopping, memory_order_relaxed);
    bool hopeless = n->connections >= n->cfg->connections_max + n->cfg->connections_max / 8 + NET_RESERVE;
    struct tb_conn *c = NULL;
    if (hopeless)
        complain(n, "too many connections", 0);
    if (!stopping && !hopeless) {
        bool room = make_room(n);
        c = tb_conn_new(n, listener, fd);
        if (c && room)
            tb_conn_start(c);
        else if (c)
            tb_conn_overload(c, "too-many");
    }
    if (!c)
        (void)tb_io_socket_close(n->io, fd);
}

struct offer { /* a connection accepted by one worker on its way to another */
    struct tb_op op;
    struct tb_net *to;
    const struct tb_listener *listener;
    int fd;
};

static void on_offer(struct tb_op *op)
{
    struct offer *o = op->user;
    struct tb_net *n = o->to;
    admit(n, o->listener, o->fd);
    atomic_fetch_sub(&n->inbound, 1);
    free(o);
    tb_net_gone(n);
}

/*
 * deal: connections go to the workers in turn: the kernel wakes one accepting worker for most of them, and a session
 * that never logs in (LMTP, SMTP) would do all its scanning and compressing there. False: it is our own turn.
 */
static bool deal(struct tb_net *n, const struct tb_listener *listener, int fd)
{
    struct tb_net *to = n->peers_n > 1 ? n->peers[n->turn_of++ % n->peers_n] : n;
    struct offer *o = to != n ? malloc(sizeof *o) : NULL;
    if (!o)
        return false;
    *o = (struct offer){.to = to, .listener = listener, .fd = fd};
    o->op.done = on_offer;
    o->op.user = o;
    atomic_fetch_add(&to->inbound, 1); /* before the look: see tb_net_stop */
    if (atomic_load(&to->stopping)) {
        atomic_fetch_sub(&to->inbound, 1);
        free(o);
        return false;
    }
    tb_io_post(n->io, to->io, &o->op);
    return true;
}

static void on_accept(struct tb_op *op)
{
    struct tb_accept *a = op->user;
    struct tb_net *n = a->net;
    if (op->result == -ECANCELED) {
        a->armed = false;
        tb_net_gone(n);
        return;
    }
    if (op->result < 0) {
        complain(n, "cannot take a connection", (int)-op->result);
        return;
    }
    int fd = (int)op->result;
    if (!deal(n, a->listener, fd))
        admit(n, a->listener, fd);
}

/* ---- the net ---- */

static void make_boot(struct tb_net *n)
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    uint8_t random[6];
    tb_io_random(n->io, random, sizeof random);
    size_t len = 0;
    while (len < sizeof random) {
        n->boot[len] = digits[random[len] & 31];
        len++;
    }
    uint32_t w = tb_worker_index(n->worker);
    n->boot[len++] = digits[w / 32 % 32];
    n->boot[len++] = digits[w % 32];
    n->boot[len] = '\0';
}

enum tb_rc tb_net_open(struct tb_worker *w, const struct tb_net_config *cfg, struct tb_tls_context *tls,
                       struct tb_net **out, struct tb_error *err)
{
    struct tb_net *n = calloc(1, sizeof *n);
    struct tb_accept *accepts = calloc(cfg->listeners_n ? cfg->listeners_n : 1, sizeof *accepts);
    if (!n || !accepts) {
        free(n);
        free(accepts);
        return tb_error_set(err, TB_LIMIT, 0, "no memory for the listeners");
    }
    n->worker = w;
    n->io = tb_worker_io(w);
    n->cfg = cfg;
    n->tls = tls ? tb_tls_context_ref(tls) : NULL;
    n->accepts = accepts;
    n->tick_s = tb_net_now_s(n);
    for (size_t i = 0; i < TB_NET_WHEEL; i++)
        tb_link_init(&n->wheel[i]);
    tb_link_init(&n->pre);
    make_boot(n);
    for (size_t i = 0; i < cfg->listeners_n; i++) {
        struct tb_accept *a = &accepts[i];
        a->net = n;
        a->listener = &cfg->listeners[i];
        a->op.done = on_accept;
        a->op.user = a;
        a->armed = true;
        tb_io_accept(n->io, &a->op, a->listener->fd);
    }
    tick_arm(n);
    *out = n;
    return TB_OK;
}

void tb_net_tls_set(struct tb_net *n, struct tb_tls_context *tls)
{
    struct tb_tls_context *old = n->tls;
    n->tls = tls ? tb_tls_context_ref(tls) : NULL;
    if (old)
        tb_tls_context_unref(old);
}

void tb_net_peers(struct tb_net *n, struct tb_net **all, uint32_t count)
{
    n->peers = all;
    n->peers_n = count;
}

uint32_t tb_net_connections(const struct tb_net *n)
{
    return n->connections;
}

/*
 * A connection that is moved here counts in `inbound` first and looks at `stopping` afterwards; we raise `stopping`
 * first and look at `inbound` afterwards: one of us sees the other, so none arrives after a stop is complete.
 */
void tb_net_stop(struct tb_net *n, struct tb_op *op)
{
    atomic_store(&n->stopping, true);
    n->stop_s = tb_net_now_s(n);
    n->stop_op = op;
    for (size_t i = 0; i < n->cfg->listeners_n; i++)
        if (n->accepts[i].armed)
            tb_io_cancel(n->io, &n->accepts[i].op);
    struct tb_link all;
    tb_link_init(&all);
    for (size_t i = 0; i < TB_NET_WHEEL; i++)
        while (!tb_link_empty(&n->wheel[i])) {
            struct tb_link *l = n->wheel[i].next;
            tb_link_remove(l);
            tb_link_append(&all, l);
        }
    while (!tb_link_empty(&all)) {
        struct tb_conn *c = TB_CONTAINER(all.next, struct tb_conn, wheel);
        wheel_put(c, tb_conn_due(c));
        tb_conn_overload(c, "stopping");
    }
    tb_net_gone(n);
}

/* Ending one moves it to another slot, so to be met twice is possible, and to be freed; the others stay. */
void tb_net_lost(struct tb_net *n, uint32_t shard)
{
    uint32_t ended = 0;
    for (size_t i = 0; i < TB_NET_WHEEL; i++)
        for (struct tb_link *l = n->wheel[i].next, *next; l != &n->wheel[i]; l = next) {
            struct tb_conn *c = TB_CONTAINER(l, struct tb_conn, wheel);
            next = l->next;
            if (!tb_conn_holds(c, shard))
                continue;
            tb_conn_lost(c);
            ended++;
        }
    tb_log(TB_LOG_WARN, "shard=%u failed: sessions=%u ended", shard, ended);
}

void tb_net_gone(struct tb_net *n)
{
    struct tb_op *op = n->stop_op;
    if (!op || n->connections || n->turning || atomic_load(&n->inbound))
        return;
    for (size_t i = 0; i < n->cfg->listeners_n; i++)
        if (n->accepts[i].armed)
            return;
    if (n->ticking) {
        if (!n->tick_cancelled)
            tb_io_cancel(n->io, &n->tick); /* its done comes back here */
        n->tick_cancelled = true;
        return;
    }
    n->stop_op = NULL;
    op->result = 0;
    op->rc = TB_OK;
    tb_io_post(n->io, n->io, op);
}

void tb_net_close(struct tb_net *n)
{
    TB_ASSERT(n->connections == 0 && !n->ticking);
    if (n->tls)
        tb_tls_context_unref(n->tls);
    tb_net_pool_free(n);
    free(n->accepts);
    free(n);
}
