/*
 * sim_net.c: the simulated network: streams between two endpoints in memory, listeners, and the clients a test drives.
 *
 * Each endpoint holds the bytes that were sent to it and not yet received. A send moves bytes while the peer's window
 * has room and waits while it has none; a receive waits until there are bytes, an end or a reset. Descriptors are
 * numbers from SIM_FD_FIRST up, the lowest free one first, as a kernel gives them. Closing with bytes unread resets the
 * peer, as TCP does (RFC 9293 3.10.4, RFC 1122 4.2.2.13).
 * Invariant: an endpoint's recv and send point at the ops in flight on it, waiting here or as an event.
 * Thread: the world's.
 */
#include "sim_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WINDOW_BYTES (256u << 10)
#define BACKLOG 4096

/* ---- descriptors ---- */

static size_t new_fd(struct sim_net *net)
{
    size_t i = 0;
    while (i < net->cap && (net->end[i] || net->listener[i]))
        i++;
    if (i == net->cap) {
        size_t cap = net->cap ? net->cap * 2 : 64;
        net->end = sim_realloc(net->end, cap * sizeof(struct sim_end *));
        net->listener = sim_realloc(net->listener, cap * sizeof(struct sim_listener *));
        memset(net->end + net->cap, 0, (cap - net->cap) * sizeof(struct sim_end *));
        memset(net->listener + net->cap, 0, (cap - net->cap) * sizeof(struct sim_listener *));
        net->cap = cap;
    }
    return i;
}

static struct sim_end *end_at(struct tb_sim *sim, int fd)
{
    size_t i = (size_t)(fd - SIM_FD_FIRST);
    return fd >= SIM_FD_FIRST && i < sim->net.cap ? sim->net.end[i] : NULL;
}

static struct sim_listener *listener_at(struct tb_sim *sim, int fd)
{
    size_t i = (size_t)(fd - SIM_FD_FIRST);
    return fd >= SIM_FD_FIRST && i < sim->net.cap ? sim->net.listener[i] : NULL;
}

static struct sim_end *new_end(struct tb_sim *sim, const char *from)
{
    struct sim_end *e = sim_calloc(1, sizeof(*e));
    size_t i = new_fd(&sim->net);
    sim->net.end[i] = e;
    e->fd = SIM_FD_FIRST + (int)i;
    e->window = WINDOW_BYTES;
    (void)snprintf(e->from, sizeof(e->from), "%s", strncmp(from, "unix:", 5) == 0 ? "unix" : from);
    return e;
}

/* ---- what moves an op on ---- */

static void wake(struct tb_op *op)
{
    if (op && op->state == TB_OP_PAUSED)
        sim_schedule(op);
}

static bool can_recv(const struct sim_end *e)
{
    return e->rx_len > 0 || e->eof || e->reset || e->shut;
}

static bool can_send(const struct sim_end *e)
{
    return !e->peer || e->shut || e->reset || e->peer->rx_len < e->peer->window;
}

static void free_end(struct tb_sim *sim, struct sim_end *e)
{
    if (e->peer) {
        struct sim_end *p = e->peer;
        p->peer = NULL;
        p->eof = true;
        p->reset |= e->rx_len > 0;
        wake(p->recv);
        wake(p->send);
    }
    sim->net.end[e->fd - SIM_FD_FIRST] = NULL;
    free(e->rx);
    free(e);
}

static void append(struct sim_end *e, const char *bytes, size_t len)
{
    if (e->rx_at > 0) {
        memmove(e->rx, e->rx + e->rx_at, e->rx_len);
        e->rx_at = 0;
    }
    if (e->rx_len + len > e->rx_cap) {
        e->rx_cap = e->rx_cap * 2 > e->rx_len + len ? e->rx_cap * 2 : e->rx_len + len;
        e->rx = sim_realloc(e->rx, e->rx_cap);
    }
    memcpy(e->rx + e->rx_len, bytes, len);
    e->rx_len += len;
    wake(e->recv);
}

static size_t take(struct sim_end *e, char *out, size_t len)
{
    size_t n = e->rx_len < len ? e->rx_len : len;
    if (n == 0)
        return 0;
    memcpy(out, e->rx + e->rx_at, n);
    e->rx_at += n;
    e->rx_len -= n;
    if (e->peer)
        wake(e->peer->send);
    return n;
}

/* ---- listeners ---- */

static bool known_address(const char *address)
{
    char parsed[16];
    return (strncmp(address, "unix:", 5) == 0 && address[5]) || inet_pton(AF_INET, address, parsed) == 1 ||
           inet_pton(AF_INET6, address, parsed) == 1;
}

static struct sim_listener *find_listener(struct tb_sim *sim, const char *address, uint16_t port)
{
    for (size_t i = 0; i < sim->net.cap; i++) {
        struct sim_listener *l = sim->net.listener[i];
        if (l && strcmp(l->address, address) == 0 && (l->port == port || strncmp(address, "unix:", 5) == 0))
            return l;
    }
    return NULL;
}

static struct sim_listener *find_listener_id(struct tb_sim *sim, uint64_t id)
{
    for (size_t i = 0; i < sim->net.cap; i++) {
        if (sim->net.listener[i] && sim->net.listener[i]->id == id)
            return sim->net.listener[i];
    }
    return NULL;
}

/* One of the accepts that wait here gets to see the queue. */
static void wake_accept(struct tb_sim *sim, struct sim_listener *l)
{
    if (l->queued > 0 && l->accepts > 0)
        wake(l->accept[tb_sim_choose(sim, l->accepts)]);
}

/* Two connected ends, one of them in the listener's queue; the other one, or NULL: refused. */
static struct sim_end *new_connection(struct tb_sim *sim, struct sim_listener *l, const char *from)
{
    if (!l || l->queued == BACKLOG)
        return NULL;
    struct sim_end *near = new_end(sim, l->address), *far = new_end(sim, from);
    near->peer = far;
    far->peer = near;
    struct sim_end **at = &l->queue;
    while (*at)
        at = &(*at)->next;
    *at = far;
    l->queued++;
    wake_accept(sim, l);
    return near;
}

static int sim_listen(struct tb_io *io, const char *address, uint16_t port)
{
    struct tb_sim *sim = sim_of(io);
    if (sim_io_of(io)->dead)
        return -EIO;
    if (!known_address(address))
        return -EINVAL;
    while (port == 0 && strncmp(address, "unix:", 5) != 0) {
        uint16_t p = sim->net.next_port++;
        port = p >= 20000 && !find_listener(sim, address, p) ? p : 0;
    }
    if (strlen(address) >= sizeof(((struct sim_listener *)0)->address))
        return -ENAMETOOLONG;
    if (find_listener(sim, address, port))
        return -EADDRINUSE;
    struct sim_listener *l = sim_calloc(1, sizeof(*l));
    size_t i = new_fd(&sim->net);
    sim->net.listener[i] = l;
    l->fd = SIM_FD_FIRST + (int)i;
    l->id = ++sim->net.next_id;
    l->port = port;
    (void)snprintf(l->address, sizeof(l->address), "%s", address);
    return l->fd;
}

static void free_listener(struct tb_sim *sim, struct sim_listener *l)
{
    for (struct sim_end *e; (e = l->queue) != NULL;) {
        l->queue = e->next;
        if (e->peer)
            e->peer->reset = true;
        free_end(sim, e);
    }
    sim->net.listener[l->fd - SIM_FD_FIRST] = NULL;
    free(l);
}

static void park_accept(struct tb_sim *sim, struct sim_listener *l, struct tb_op *op)
{
    TB_ASSERT(l->accepts < TB_ARRAY_LEN(l->accept));
    l->accept[l->accepts++] = op;
    op->state = TB_OP_PAUSED;
    wake_accept(sim, l);
}

static void unpark_accept(struct sim_listener *l, const struct tb_op *op)
{
    for (size_t i = 0; i < l->accepts; i++) {
        if (l->accept[i] == op) {
            l->accept[i] = l->accept[--l->accepts];
            return;
        }
    }
}

/* ---- ops ---- */

static void submit_stream(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_end *e = end_at(sim, op->fd);
    if (!e || e->client) {
        tb_ready_push(op->io, op, -EBADF);
        return;
    }
    struct tb_op **mine = op->kind == TB_OP_RECV ? &e->recv : &e->send;
    TB_ASSERT(*mine == NULL);
    *mine = op;
    op->state = TB_OP_PAUSED;
    if (op->kind == TB_OP_SEND || can_recv(e))
        sim_schedule(op);
}

void sim_net_submit(struct tb_sim *sim, struct tb_op *op)
{
    if (op->kind == TB_OP_RECV || op->kind == TB_OP_SEND) {
        submit_stream(sim, op);
    } else if (op->kind == TB_OP_ACCEPT) {
        struct sim_listener *l = listener_at(sim, op->fd);
        if (l)
            park_accept(sim, l, op);
        else
            sim_schedule(op); /* reports EBADF, again and again, as a real one would */
    } else {
        const char *address = op->buf; /* dead after this call: keep whom it meant */
        struct sim_listener *l = find_listener(sim, address, (uint16_t)op->len);
        op->offset = l ? l->id : 0;
        op->due_ns = 0;
        op->fd = known_address(address) ? 0 : -EINVAL;
        sim_schedule(op);
    }
}

static unsigned complete_recv(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_end *e = end_at(sim, op->fd);
    struct sim_io *io = sim_io_of(op->io);
    int error = sim_fault(sim, TB_SIM_RECV);
    size_t want = sizeof(io->recv);
    if (sim->split && e->rx_len > 1 && sim_chance(sim, 70))
        want = 1 + tb_sim_choose(sim, e->rx_len < 100 || sim_chance(sim, 50) ? e->rx_len : 100);
    want = want < sizeof(io->recv) ? want : sizeof(io->recv);
    if (error == TB_SIM_SHORT) {
        want = 1;
        error = 0;
    }
    size_t n = error ? 0 : take(e, io->recv, want);
    e->recv = NULL;
    if (error)
        return sim_finish(op, -error);
    op->data = n > 0 ? tb_slice(io->recv, n) : (struct tb_slice){NULL, 0};
    return sim_finish(op, n == 0 && e->reset && !e->shut ? -ECONNRESET : (int64_t)n);
}

static unsigned complete_send(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_end *e = end_at(sim, op->fd);
    struct sim_end *p = e->peer;
    int error = op->result == 0 ? sim_fault(sim, TB_SIM_SEND) : 0;
    if (!error && (e->reset || !p || e->shut))
        error = e->reset ? ECONNRESET : EPIPE;
    if (!error && p->rx_len < p->window) {
        size_t left = op->len - (size_t)op->result, room = p->window - p->rx_len, n = left < room ? left : room;
        if (sim->split && n > 1 && sim_chance(sim, 70))
            n = 1 + tb_sim_choose(sim, n);
        if (n > 0)
            append(p, (char *)op->buf + op->result, n);
        op->result += (int64_t)n;
    }
    bool all = op->result == (int64_t)op->len;
    if (!error && !all && op->flags & TB_OPF_CANCEL)
        error = ECANCELED;
    if (!error && !all) {
        op->state = TB_OP_PAUSED;
        if (can_send(e))
            sim_schedule(op);
        return 0;
    }
    e->send = NULL;
    return sim_finish(op, error ? -error : op->result);
}

static unsigned complete_accept(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_io *io = sim_io_of(op->io);
    struct sim_listener *l = listener_at(sim, op->fd);
    unsigned ran = 0;
    if (l)
        unpark_accept(l, op);
    if (!l || l->queued > 0) {
        int error = l ? sim_fault(sim, TB_SIM_ACCEPT) : EBADF;
        if (!error) {
            struct sim_end *e = l->queue;
            l->queue = e->next;
            l->queued--;
            op->result = e->fd;
        } else {
            op->result = -error;
        }
        sim_note(sim, io->number * 16 + op->kind, (uint64_t)op->result);
        io->firing = op;
        op->done(op); /* may cancel op, but not free it: its last result is still to come */
        io->firing = NULL;
        ran = 1;
    }
    if (op->flags & TB_OPF_CANCEL)
        return ran + sim_finish(op, -ECANCELED);
    l = listener_at(sim, op->fd);
    if (l)
        park_accept(sim, l, op);
    else
        sim_schedule(op);
    return ran;
}

unsigned sim_net_complete(struct tb_sim *sim, struct tb_op *op)
{
    switch (op->kind) {
    case TB_OP_RECV:
        return complete_recv(sim, op);
    case TB_OP_SEND:
        return complete_send(sim, op);
    case TB_OP_ACCEPT:
        return complete_accept(sim, op);
    default: {
        int error = sim_fault(sim, TB_SIM_CONNECT);
        if (error || op->fd < 0)
            return sim_finish(op, error ? -error : op->fd);
        struct sim_listener *l = find_listener_id(sim, op->offset);
        struct sim_end *e = new_connection(sim, l, l ? l->address : "");
        return sim_finish(op, e ? e->fd : -ECONNREFUSED);
    }
    }
}

void sim_net_forget(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_end *e = end_at(sim, op->fd);
    struct sim_listener *l = listener_at(sim, op->fd);
    if (op->kind == TB_OP_ACCEPT && l) {
        unpark_accept(l, op);
        wake_accept(sim, l);
    }
    if (e && e->recv == op)
        e->recv = NULL;
    if (e && e->send == op)
        e->send = NULL;
}

/* ---- the calls ---- */

static void sim_shutdown(struct tb_io *io, int fd)
{
    struct sim_end *e = sim_io_of(io)->dead ? NULL : end_at(sim_of(io), fd);
    if (!e)
        return;
    e->shut = true;
    wake(e->recv);
    wake(e->send);
    if (e->peer) {
        e->peer->eof = true;
        wake(e->peer->recv);
    }
}

static int sim_close_socket(struct tb_io *io, int fd)
{
    struct tb_sim *sim = sim_of(io);
    struct sim_end *e = end_at(sim, fd);
    struct sim_listener *l = listener_at(sim, fd);
    if (sim_io_of(io)->dead)
        return 0;
    if (l) {
        TB_ASSERT(l->accepts == 0);
        free_listener(sim, l);
        return 0;
    }
    if (!e || e->client)
        return -EBADF;
    TB_ASSERT(!e->recv && !e->send);
    free_end(sim, e);
    return 0;
}

static bool sim_peer(struct tb_io *io, int fd, char text[64])
{
    struct sim_end *e = sim_io_of(io)->dead ? NULL : end_at(sim_of(io), fd);
    (void)snprintf(text, 64, "%s", e ? e->from : "unknown");
    return e && (strncmp(text, "127.", 4) == 0 || strcmp(text, "::1") == 0 || strcmp(text, "unix") == 0);
}

static uint16_t sim_local_port(struct tb_io *io, int fd)
{
    struct sim_listener *l = sim_io_of(io)->dead ? NULL : listener_at(sim_of(io), fd);
    return l && strncmp(l->address, "unix:", 5) != 0 ? l->port : 0;
}

const struct tb_socket_calls sim_sockets = {sim_listen, sim_shutdown, sim_close_socket, sim_peer, sim_local_port};

static void forget_op(struct tb_op *op)
{
    if (op)
        op->state = TB_OP_IDLE;
}

void sim_net_free(struct tb_sim *sim)
{
    struct sim_net *net = &sim->net;
    for (size_t i = 0; i < net->cap; i++) {
        for (size_t a = 0; net->listener[i] && a < net->listener[i]->accepts; a++)
            forget_op(net->listener[i]->accept[a]);
        free(net->listener[i]);
        if (!net->end[i])
            continue;
        forget_op(net->end[i]->recv);
        forget_op(net->end[i]->send);
        free(net->end[i]->rx);
        free(net->end[i]);
    }
    free(net->end);
    free(net->listener);
    net->end = NULL;
    net->listener = NULL;
    net->cap = 0;
}

/* ---- clients ---- */

int tb_sim_connect_from(struct tb_sim *sim, const char *address, uint16_t port, const char *from)
{
    struct sim_end *e = new_connection(sim, find_listener(sim, address, port), from);
    if (!e)
        return -ECONNREFUSED;
    e->client = true;
    return e->fd;
}

int tb_sim_connect(struct tb_sim *sim, const char *address, uint16_t port)
{
    return tb_sim_connect_from(sim, address, port, address);
}

static struct sim_end *client_at(struct tb_sim *sim, int client)
{
    struct sim_end *e = end_at(sim, client);
    return e && e->client ? e : NULL;
}

int tb_sim_client_send(struct tb_sim *sim, int client, const void *bytes, size_t len)
{
    struct sim_end *e = client_at(sim, client);
    if (!e)
        return -EBADF;
    if (!e->peer || e->eof)
        return -EPIPE;
    if (len > 0)
        append(e->peer, bytes, len);
    return 0;
}

int64_t tb_sim_client_recv(struct tb_sim *sim, int client, void *buf, size_t len)
{
    struct sim_end *e = client_at(sim, client);
    if (!e)
        return -EBADF;
    size_t n = take(e, buf, len);
    if (n > 0)
        return (int64_t)n;
    return e->reset ? -ECONNRESET : e->eof ? 0 : -EAGAIN;
}

void tb_sim_client_window(struct tb_sim *sim, int client, size_t bytes)
{
    struct sim_end *e = client_at(sim, client);
    if (!e)
        return;
    e->window = bytes;
    if (e->peer && can_send(e->peer))
        wake(e->peer->send);
}

void tb_sim_client_close(struct tb_sim *sim, int client, bool reset)
{
    struct sim_end *e = client_at(sim, client);
    if (!e)
        return;
    if (e->peer)
        e->peer->reset |= reset;
    e->rx_len = reset ? e->rx_len : 0; /* a client that leaves in peace is not one that did not read */
    free_end(sim, e);
}
