/*
 * posix.c: the backend for where io_uring is forbidden: epoll, an eventfd, and a small pool of threads for files.
 *
 * Sockets: an op is tried in the turn after its submit; if it would block, its descriptor is armed in epoll, one shot,
 * for what its ops want. One-shot arming costs a system call each wait, and in return nothing is remembered about a
 * descriptor: it may move to another thread's io or be closed and its number reused without this one knowing.
 * Receives use one shared buffer, filled just before done runs; so does every accept and send run in the turn itself.
 * Files: pread, pwritev2 and fdatasync on pool threads; the finished op comes back through the inbox.
 *
 * Invariants
 * P1 a waiting socket op is in exactly one place: the try list, or its descriptor's slot (reader or writer).
 * P2 at most one reader (recv, accept) and one writer (send, connect) wait on a descriptor here.
 * Must never: block but in epoll_wait; leave O_NONBLOCK to the caller (MSG_DONTWAIT is used instead).
 * Thread: the one that opened it; tb_io_post from any.
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 256
#define RECV_BYTES 65536
#define ACCEPTS_PER_TURN 64

struct slot {
    struct tb_op *reader, *writer; /* borrowed */
};

struct posix {
    struct tb_io base;
    int epoll_fd;
    struct tb_list try; /* ops to be tried in this or the next turn */
    struct slot *slots; /* owned; by descriptor number */
    size_t slots_n;
    bool coarse; /* this kernel has no epoll_pwait2: whole milliseconds */
    char recv[RECV_BYTES];
};

static struct posix *posix_of(struct tb_io *io)
{
    return TB_CONTAINER(io, struct posix, base);
}

/* ---- waiting for descriptors ---- */

static bool is_reader(const struct tb_op *op)
{
    return op->kind == TB_OP_RECV || op->kind == TB_OP_ACCEPT;
}

static struct slot *slot_of(struct posix *p, int fd)
{
    size_t i = (size_t)fd;
    if (i >= p->slots_n) {
        size_t n = (i + 256) & ~(size_t)255;
        struct slot *v = realloc(p->slots, n * sizeof(*v));
        if (!v)
            return NULL;
        memset(v + p->slots_n, 0, (n - p->slots_n) * sizeof(*v));
        p->slots = v;
        p->slots_n = n;
    }
    return &p->slots[i];
}

/* One event for what the slot's ops want; 0 or -errno. */
static int arm(struct posix *p, int fd, const struct slot *s)
{
    struct epoll_event ev = {.events = EPOLLONESHOT, .data.fd = fd};
    ev.events |= s->reader ? (uint32_t)(EPOLLIN | EPOLLRDHUP) : 0;
    ev.events |= s->writer ? (uint32_t)EPOLLOUT : 0;
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, fd, &ev) == 0)
        return 0;
    if (errno != ENOENT)
        return -errno;
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

/* op would block: wait for its descriptor. 0, or -errno and it does not wait. */
static int wait_for(struct posix *p, struct tb_op *op)
{
    struct slot *s = slot_of(p, op->fd);
    if (!s)
        return -ENOMEM;
    struct tb_op **mine = is_reader(op) ? &s->reader : &s->writer;
    TB_ASSERT(*mine == NULL);
    *mine = op;
    int rc = arm(p, op->fd, s);
    if (rc < 0)
        *mine = NULL;
    return rc;
}

static bool stop_waiting(struct posix *p, struct tb_op *op)
{
    if ((size_t)op->fd >= p->slots_n)
        return false;
    struct slot *s = &p->slots[op->fd];
    struct tb_op **mine = is_reader(op) ? &s->reader : &s->writer;
    if (*mine != op)
        return false;
    *mine = NULL;
    return true;
}

/* The descriptor said something: try whatever waits on it; what still blocks arms it again. */
static void wake_slot(struct posix *p, int fd)
{
    if (fd < 0 || (size_t)fd >= p->slots_n)
        return;
    struct slot *s = &p->slots[fd];
    struct tb_op *both[2] = {s->reader, s->writer};
    *s = (struct slot){0};
    for (int i = 0; i < 2; i++) {
        if (both[i])
            tb_list_push(&p->try, both[i]);
    }
}

/* ---- trying; each returns how many done ran ---- */

static unsigned finish(struct tb_op *op, int64_t result)
{
    tb_op_finish(op, result);
    return 1;
}

static unsigned block(struct posix *p, struct tb_op *op)
{
    int rc = wait_for(p, op);
    return rc < 0 ? finish(op, rc) : 0;
}

static unsigned try_recv(struct posix *p, struct tb_op *op)
{
    ssize_t n = recv(op->fd, p->recv, sizeof(p->recv), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return block(p, op);
    if (n < 0)
        return finish(op, -errno);
    op->data = n > 0 ? tb_slice(p->recv, (size_t)n) : (struct tb_slice){NULL, 0};
    return finish(op, n);
}

static unsigned try_send(struct posix *p, struct tb_op *op)
{
    while (op->result < (int64_t)op->len) {
        ssize_t n = send(op->fd, (char *)op->buf + op->result, op->len - (size_t)op->result,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return block(p, op);
        if (n < 0)
            return finish(op, -errno);
        op->result += n;
    }
    return finish(op, op->result);
}

static unsigned pause_accept(struct posix *p, struct tb_op *op)
{
    op->due_ns = p->base.now_ns + TB_ACCEPT_PAUSE_NS;
    op->state = TB_OP_PAUSED;
    if (!tb_timers_add(&p->base.timers, op)) {
        op->state = TB_OP_WAITING;
        tb_list_push(&p->try, op);
    }
    return 0;
}

static unsigned try_accept(struct posix *p, struct tb_op *op)
{
    for (unsigned ran = 0;;) {
        if (op->flags & TB_OPF_CANCEL)
            return ran + finish(op, -ECANCELED);
        if (ran >= ACCEPTS_PER_TURN) {
            tb_list_push(&p->try, op);
            return ran;
        }
        int64_t fd = accept4(op->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN) {
            int rc = wait_for(p, op);
            if (rc == 0)
                return ran;
            fd = rc;
        } else if (fd < 0) {
            fd = -errno;
            if (tb_accept_ignores(fd))
                continue;
        }
        op->result = fd;
        op->done(op); /* may cancel op, but not free it: its last result is still to come */
        ran++;
        if (fd < 0 && !(op->flags & TB_OPF_CANCEL))
            return ran + pause_accept(p, op);
    }
}

static unsigned try_connect(struct posix *p, struct tb_op *op)
{
    if (op->result == 0) { /* just submitted: wait until it is writable, once */
        op->result = 1;
        int rc = wait_for(p, op);
        if (rc == 0)
            return 0;
        (void)close(op->fd); /* never connected */
        return finish(op, rc);
    }
    int rc = tb_real_connected(op->fd);
    if (rc < 0)
        (void)close(op->fd); /* never connected */
    return finish(op, rc < 0 ? rc : op->fd);
}

static unsigned try_op(struct posix *p, struct tb_op *op)
{
    switch (op->kind) {
    case TB_OP_RECV:
        return try_recv(p, op);
    case TB_OP_SEND:
        return try_send(p, op);
    case TB_OP_ACCEPT:
        return try_accept(p, op);
    default:
        return try_connect(p, op);
    }
}

static unsigned try_all(struct posix *p)
{
    struct tb_list now = p->try;
    p->try = (struct tb_list){0};
    unsigned ran = 0;
    for (struct tb_op *op; (op = tb_list_pop(&now)) != NULL;) {
        if (op->flags & TB_OPF_CANCEL && op->kind != TB_OP_ACCEPT) {
            if (op->kind == TB_OP_CONNECT)
                (void)close(op->fd); /* never connected */
            ran += finish(op, -ECANCELED);
        } else {
            ran += try_op(p, op);
        }
    }
    return ran;
}

/* ---- submit and cancel ---- */

/* On a pool thread. */
static void file_work(struct tb_op *op)
{
    if (op->kind == TB_OP_READ)
        op->result = tb_real_read(op->fd, op->buf, op->len, op->offset);
    else if (op->kind == TB_OP_WRITE)
        op->result = tb_real_write(op->fd, op->buf, op->len, op->offset, op->flags & TB_OPF_DURABLE);
    else
        op->result = tb_real_datasync(op->fd);
}

static void to_pool(struct tb_io *io, enum tb_pool_id id, struct tb_op *op)
{
    if (tb_pool_submit(id, op))
        return;
    op->flags |= TB_OPF_INLINE; /* no thread can be had: slow is better than not at all */
    tb_ready_push(io, op, 0);
}

static void submit_connect(struct posix *p, struct tb_op *op)
{
    bool pending = false;
    op->fd = tb_real_connect(op->buf, (uint16_t)op->len, &pending);
    if (op->fd >= 0 && pending) {
        tb_list_push(&p->try, op);
        return;
    }
    int rc = op->fd < 0 ? op->fd : tb_real_connected(op->fd);
    tb_ready_push(&p->base, op, rc < 0 ? rc : op->fd);
}

static void posix_submit(struct tb_io *io, struct tb_op *op)
{
    struct posix *p = posix_of(io);
    switch (op->kind) {
    case TB_OP_OFFLOAD:
        to_pool(io, tb_offload_pool(op), op);
        break;
    case TB_OP_READ:
    case TB_OP_WRITE:
    case TB_OP_DATASYNC:
        op->work = file_work;
        to_pool(io, TB_POOL_FILES, op);
        break;
    case TB_OP_CONNECT:
        submit_connect(p, op);
        break;
    case TB_OP_ACCEPT:
        (void)fcntl(op->fd, F_SETFL, fcntl(op->fd, F_GETFL) | O_NONBLOCK); /* a bad fd shows in accept */
        tb_list_push(&p->try, op);
        break;
    default:
        tb_list_push(&p->try, op);
    }
}

static void posix_cancel(struct tb_io *io, struct tb_op *op)
{
    struct posix *p = posix_of(io);
    switch (op->kind) {
    case TB_OP_OFFLOAD:
        if (tb_pool_remove(tb_offload_pool(op), op))
            tb_ready_push(io, op, -ECANCELED);
        break;
    case TB_OP_READ:
    case TB_OP_WRITE:
    case TB_OP_DATASYNC:
        if (tb_pool_remove(TB_POOL_FILES, op))
            tb_ready_push(io, op, -ECANCELED);
        break;
    default:
        if (op->state == TB_OP_PAUSED) {
            tb_timers_remove(&io->timers, op);
            tb_ready_push(io, op, -ECANCELED);
        } else if (stop_waiting(p, op)) {
            tb_list_push(&p->try, op); /* which sees the flag; an op in the try list is seen there anyhow */
        }
    }
}

static void posix_post(struct tb_io *from, struct tb_io *to, struct tb_op *op)
{
    tb_inbox_push(from, to, op, tb_event_ring);
}

/* ---- the turn ---- */

static void fire_timers(struct posix *p)
{
    struct tb_io *io = &p->base;
    uint64_t limit = io->timers.seq;
    for (struct tb_op *op; (op = tb_timers_pop(&io->timers, io->now_ns, limit)) != NULL;) {
        if (op->kind == TB_OP_ACCEPT) {
            op->state = TB_OP_WAITING;
            tb_list_push(&p->try, op);
        } else {
            tb_ready_push(io, op, 0);
        }
    }
}

/* epoll_wait until the first timer is due. */
static int wait_events(struct posix *p, struct epoll_event *ev, bool wait)
{
    struct tb_io *io = &p->base;
    uint64_t left = UINT64_MAX;
    if (wait && io->timers.n > 0)
        left = io->timers.v[0].due_ns > io->now_ns ? io->timers.v[0].due_ns - io->now_ns : 0;
    if (wait && left != UINT64_MAX && !p->coarse) {
        struct timespec ts = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        int n = epoll_pwait2(p->epoll_fd, ev, EVENTS_MAX, &ts, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n < 0 ? -errno : n;
        p->coarse = true;
    }
    int timeout_ms = -1;
    if (!wait)
        timeout_ms = 0;
    else if (left != UINT64_MAX)
        timeout_ms = left > 86400000000000u ? 86400000 : (int)((left + 999999) / 1000000);
    int n = epoll_wait(p->epoll_fd, ev, EVENTS_MAX, timeout_ms);
    return n < 0 ? -errno : n;
}

static void take_events(struct posix *p, bool wait)
{
    struct epoll_event ev[EVENTS_MAX];
    int n = wait_events(p, ev, wait);
    TB_ASSERT(n >= 0 || n == -EINTR);
    p->base.interrupted = wait && n == -EINTR;
    for (int i = 0; i < n; i++) {
        uint64_t ignored;
        if (ev[i].data.fd == p->base.event_fd)
            (void)eventfd_read(p->base.event_fd, &ignored); /* only a wake-up */
        else
            wake_slot(p, ev[i].data.fd);
    }
}

static unsigned posix_turn(struct tb_io *io, bool wait)
{
    struct posix *p = posix_of(io);
    io->now_ns = tb_real_clock.now_ns(io);
    fire_timers(p);
    tb_inbox_take(io);
    /* new ops are tried first: most need no waiting, and a wait would not know of them */
    unsigned ran = try_all(p);
    bool sleep = wait && ran == 0 && !io->ready.head && !p->try.head && tb_sleep_begin(io);
    take_events(p, sleep);
    if (sleep) {
        tb_sleep_end(io);
        io->now_ns = tb_real_clock.now_ns(io);
        fire_timers(p);
    }
    tb_inbox_take(io);
    ran += try_all(p);
    return ran + tb_ready_run(io);
}

/* ---- opening and closing ---- */

static void posix_free(struct posix *p)
{
    if (p->epoll_fd >= 0)
        (void)close(p->epoll_fd); /* nothing to lose */
    tb_io_base_free(&p->base);
    free(p->slots);
    free(p);
}

static void posix_close(struct tb_io *io)
{
    tb_post_wait(io);
    posix_free(posix_of(io));
    tb_pools_drop();
}

static const struct tb_backend posix_backend = {
    .name = "posix",
    .files = &tb_real_files,
    .sockets = &tb_real_sockets,
    .clock = &tb_real_clock,
    .close = posix_close,
    .turn = posix_turn,
    .submit = posix_submit,
    .cancel = posix_cancel,
    .post = posix_post,
};

enum tb_rc tb_posix_open(struct tb_io **out, struct tb_error *err)
{
    struct posix *p = calloc(1, sizeof(*p));
    if (!p)
        return tb_error_set(err, TB_IO, ENOMEM, "cannot make an I/O context");
    p->epoll_fd = -1;
    tb_io_base_init(&p->base, &posix_backend);
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    p->base.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = p->base.event_fd};
    if (p->epoll_fd < 0 || p->base.event_fd < 0 || epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->base.event_fd, &ev) < 0) {
        int e = errno;
        posix_free(p);
        return tb_error_set(err, TB_IO, e, "cannot make an epoll context");
    }
    tb_pools_hold();
    *out = &p->base;
    return TB_OK;
}
