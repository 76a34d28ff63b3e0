/*
 * uring.c: the io_uring backend; the only file that knows liburing.
 *
 * A turn: due timers and posts go to the ready list; one system call submits, runs the kernel's deferred work and
 * waits if there is nothing to do; up to RING_BATCH completions are copied out; then callbacks run. So a callback may
 * submit as it likes: what it causes waits for the next batch.
 *
 * Receives take their buffer from a ring of provided buffers only when bytes are there, and give it back when done
 * returns: a waiting connection holds none. If all are taken the kernel says ENOBUFS and the receive is submitted
 * again, behind the callbacks that return buffers. Timers are a heap whose earliest entry is the wait's timeout: no
 * kernel timer each. Posts go through the inbox; a sleeping receiver is woken by MSG_RING from the sender's ring (one
 * system call at the end of the turn for all), or by its eventfd where there is no ring to send from or the kernel
 * refuses.
 *
 * Invariants
 * U1 an op has at most one request in the kernel; a cancel request goes into the queue before any later use of the op,
 *    and the queue is first in, first out, so it can't hit that later use.
 * U2 user_data is an op's address with tag 0 in the low three bits, or a tag of this file.
 * Must never: block but in the turn's one wait; retry a failed durable write or fsync.
 * Thread: the one that opened it (SINGLE_ISSUER); tb_io_post from any.
 */
#include "backend.h"
#include "engine/base/rules.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define RING_SQ_ENTRIES 512
#define RING_CQ_ENTRIES 4096
#define RING_BATCH 256
#define RING_IOWQ_BOUNDED 4 /* kernel worker threads for files */
#define RING_IOWQ_UNBOUNDED 4
#define RECV_BUFFERS 128
#define RECV_BUFFER_BYTES 16384u
#define RECV_GROUP 0

enum { TAG_OP, TAG_EVENT, TAG_DOORBELL, TAG_UNRUNG, TAG_IGNORE, TAG_MASK = 7 };

struct completion {
    uint64_t data;
    int32_t res;
    uint32_t flags;
};

struct uring {
    struct tb_io base;
    struct io_uring ring;
    struct io_uring_buf_ring *buffers; /* owned: with the buffers behind it, one mapping */
    char *buffer_bytes;
    size_t mapped_bytes;
    uint64_t event_value;
    struct uring *next_open;
    bool task_flag; /* the kernel tells by a flag when it has deferred work */
    bool no_msg_ring;
    bool rang; /* doorbells are queued: they leave with this turn, for the caller may never make another */
    struct completion batch[RING_BATCH];
};

/* All open rings, so that a doorbell that failed can be rung by other means while its target is sure to exist. */
static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct uring *open_rings;

static struct uring *uring_of(struct tb_io *io)
{
    return TB_CONTAINER(io, struct uring, base);
}

/* ---- submission ---- */

/* A free queue entry. A full queue is submitted; the kernel refuses that only while it is out of memory. */
static struct io_uring_sqe *get_sqe(struct uring *u)
{
    for (;;) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        if (sqe)
            return sqe;
        int rc = io_uring_submit_and_get_events(&u->ring);
        TB_ASSERT(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR);
    }
}

static void set_tag(struct io_uring_sqe *sqe, uint64_t value, unsigned tag)
{
    sqe->user_data = value | tag;
}

static void watch_event(struct uring *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    io_uring_prep_read(sqe, u->base.event_fd, &u->event_value, sizeof(u->event_value), 0);
    set_tag(sqe, 0, TAG_EVENT);
}

/* What is left of a read, write or send. */
static void prep_transfer(struct io_uring_sqe *sqe, struct tb_op *op)
{
    char *at = (char *)op->buf + op->result;
    uint32_t left = op->len - (uint32_t)op->result;
    uint64_t offset = op->offset + (uint64_t)op->result;
    if (op->kind == TB_OP_READ) {
        io_uring_prep_read(sqe, op->fd, at, left, offset);
    } else if (op->kind == TB_OP_WRITE) {
        io_uring_prep_write(sqe, op->fd, at, left, offset);
        sqe->rw_flags = op->flags & TB_OPF_DURABLE && TB_KEEPS(dsync) ? RWF_DSYNC : 0;
    } else {
        io_uring_prep_send(sqe, op->fd, at, left, MSG_NOSIGNAL | MSG_WAITALL);
    }
}

static void prep_recv(struct io_uring_sqe *sqe, struct tb_op *op)
{
    io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = RECV_GROUP;
    if (!(op->flags & TB_OPF_MORE)) /* most likely nothing is there yet: do not try in vain */
        sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
}

static void request(struct uring *u, struct tb_op *op)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    switch (op->kind) {
    case TB_OP_DATASYNC:
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
        break;
    case TB_OP_ACCEPT:
        io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
        break;
    case TB_OP_CONNECT:
        io_uring_prep_poll_add(sqe, op->fd, POLLOUT);
        break;
    case TB_OP_RECV:
        prep_recv(sqe, op);
        break;
    default:
        prep_transfer(sqe, op);
    }
    set_tag(sqe, (uintptr_t)op, TAG_OP);
}

static void uring_submit(struct tb_io *io, struct tb_op *op)
{
    struct uring *u = uring_of(io);
    bool pending = true;
    switch (op->kind) {
    case TB_OP_OFFLOAD:
        if (!tb_pool_submit(tb_offload_pool(op), op)) {
            op->flags |= TB_OPF_INLINE;
            tb_ready_push(io, op, 0);
        }
        return;
    case TB_OP_CONNECT:
        op->fd = tb_real_connect(op->buf, (uint16_t)op->len, &pending);
        if (op->fd < 0 || !pending) {
            int rc = op->fd < 0 ? op->fd : tb_real_connected(op->fd);
            tb_ready_push(io, op, rc < 0 ? rc : op->fd);
            return;
        }
        break;
    default:
        if (op->len == 0 && (op->kind == TB_OP_READ || op->kind == TB_OP_WRITE || op->kind == TB_OP_SEND)) {
            tb_ready_push(io, op, 0);
            return;
        }
    }
    request(u, op);
}

static void uring_cancel(struct tb_io *io, struct tb_op *op)
{
    struct uring *u = uring_of(io);
    if (op->kind == TB_OP_OFFLOAD) {
        if (tb_pool_remove(tb_offload_pool(op), op))
            tb_ready_push(io, op, -ECANCELED);
        return;
    }
    if (op->state == TB_OP_PAUSED) {
        tb_timers_remove(&io->timers, op);
        tb_ready_push(io, op, -ECANCELED);
        return;
    }
    struct io_uring_sqe *sqe = get_sqe(u);
    io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    set_tag(sqe, 0, TAG_IGNORE);
}

/* ---- doorbells ---- */

static void uring_ring(struct tb_io *from, struct tb_io *to)
{
    if (!from || !from->in_turn || from->backend != to->backend || uring_of(from)->no_msg_ring) {
        tb_event_ring(from, to);
        return;
    }
    struct io_uring_sqe *sqe = get_sqe(uring_of(from));
    int fd = uring_of(to)->ring.ring_fd;
    io_uring_prep_msg_ring(sqe, fd, 0, TAG_DOORBELL, 0);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    set_tag(sqe, (uint64_t)fd << 3, TAG_UNRUNG);
    uring_of(from)->rang = true;
}

static void uring_post(struct tb_io *from, struct tb_io *to, struct tb_op *op)
{
    tb_inbox_push(from, to, op, uring_ring);
}

/* The kernel would not pass the doorbell on. If its target still exists: the eventfd, for this one and from now on. */
static void ring_again(struct uring *u, int ring_fd)
{
    pthread_mutex_lock(&open_mutex);
    for (struct uring *o = open_rings; o; o = o->next_open) {
        if (o->ring.ring_fd != ring_fd)
            continue;
        u->no_msg_ring = true;
        tb_event_ring(NULL, &o->base);
    }
    pthread_mutex_unlock(&open_mutex);
}

/* ---- completion; each returns how many done ran ---- */

static unsigned finish(struct tb_op *op, int64_t result)
{
    tb_op_finish(op, result);
    return 1;
}

static unsigned again(struct uring *u, struct tb_op *op)
{
    if (op->flags & TB_OPF_CANCEL)
        return finish(op, -ECANCELED);
    request(u, op);
    return 0;
}

static unsigned done_transfer(struct uring *u, struct tb_op *op, int res)
{
    if (res == -EINTR || res == -EAGAIN)
        return again(u, op);
    if (res == 0 || (op->kind == TB_OP_READ && tb_real_eof(op->result, res)))
        return finish(op, op->kind == TB_OP_READ ? op->result : -EIO);
    if (res < 0)
        return finish(op, res);
    op->result += res;
    return op->result < (int64_t)op->len ? again(u, op) : finish(op, op->result);
}

static unsigned done_recv(struct uring *u, struct tb_op *op, int res, uint32_t flags)
{
    bool buffer = flags & IORING_CQE_F_BUFFER;
    uint32_t bid = flags >> IORING_CQE_BUFFER_SHIFT;
    char *bytes = u->buffer_bytes + (size_t)bid * RECV_BUFFER_BYTES;
    unsigned ran;
    if (res == -ENOBUFS || res == -EINTR || res == -EAGAIN) {
        op->flags |= TB_OPF_MORE;
        ran = again(u, op);
    } else {
        op->flags = flags & IORING_CQE_F_SOCK_NONEMPTY ? TB_OPF_MORE : 0;
        op->data = res > 0 && buffer ? tb_slice(bytes, (size_t)res) : (struct tb_slice){NULL, 0};
        ran = finish(op, res);
    }
    if (buffer) {
        io_uring_buf_ring_add(u->buffers, bytes, RECV_BUFFER_BYTES, (unsigned short)bid,
                              io_uring_buf_ring_mask(RECV_BUFFERS), 0);
        io_uring_buf_ring_advance(u->buffers, 1);
    }
    return ran;
}

static unsigned done_accept(struct uring *u, struct tb_op *op, int res, uint32_t flags)
{
    bool more = flags & IORING_CQE_F_MORE;
    if (!more && res < 0 && op->flags & TB_OPF_CANCEL)
        return finish(op, -ECANCELED);
    unsigned ran = 0;
    if (res >= 0 || !(tb_accept_ignores(res) || res == -ECANCELED)) {
        op->result = res;
        op->done(op); /* may cancel op, but not free it: its last result is still to come */
        ran = 1;
    }
    if (more)
        return ran;
    if (op->flags & TB_OPF_CANCEL)
        return ran + finish(op, -ECANCELED);
    if (res < 0 && !tb_accept_ignores(res)) {
        op->due_ns = u->base.now_ns + TB_ACCEPT_PAUSE_NS;
        op->state = TB_OP_PAUSED;
        if (tb_timers_add(&u->base.timers, op))
            return ran;
        op->state = TB_OP_WAITING;
    }
    request(u, op);
    return ran;
}

static unsigned done_connect(struct tb_op *op, int res)
{
    int rc = res < 0 ? res : tb_real_connected(op->fd);
    if (rc < 0)
        (void)close(op->fd); /* never connected */
    return finish(op, rc < 0 ? rc : op->fd);
}

static unsigned done_op(struct uring *u, struct tb_op *op, int res, uint32_t flags)
{
    if (res == -EINTR && op->flags & TB_OPF_CANCEL)
        res = -ECANCELED; /* the worker thread was interrupted on our behalf */
    switch (op->kind) {
    case TB_OP_ACCEPT:
        return done_accept(u, op, res, flags);
    case TB_OP_CONNECT:
        return done_connect(op, res);
    case TB_OP_RECV:
        return done_recv(u, op, res, flags);
    case TB_OP_DATASYNC:
        return res == -EINTR || res == -EAGAIN ? again(u, op) : finish(op, res);
    default:
        return done_transfer(u, op, res);
    }
}

static unsigned complete(struct uring *u, const struct completion *c)
{
    switch (c->data & TAG_MASK) {
    case TAG_OP:
        return done_op(u, (struct tb_op *)(uintptr_t)c->data, c->res, c->flags);
    case TAG_EVENT:
        watch_event(u);
        return 0;
    case TAG_UNRUNG:
        ring_again(u, (int)(c->data >> 3));
        return 0;
    default: /* a doorbell, or a cancel that came too late: the turn it began is what it was for */
        return 0;
    }
}

static unsigned reap(struct uring *u)
{
    struct io_uring_cqe *cqe[RING_BATCH];
    unsigned n = io_uring_peek_batch_cqe(&u->ring, cqe, RING_BATCH), ran = 0;
    for (unsigned i = 0; i < n; i++)
        u->batch[i] = (struct completion){cqe[i]->user_data, cqe[i]->res, cqe[i]->flags};
    io_uring_cq_advance(&u->ring, n);
    for (unsigned i = 0; i < n; i++)
        ran += complete(u, &u->batch[i]);
    return ran;
}

/* ---- the turn ---- */

/* Due timers to the ready list; an accept that rested starts again. */
static void fire_timers(struct uring *u)
{
    struct tb_io *io = &u->base;
    if (io->timers.n == 0)
        return;
    uint64_t limit = io->timers.seq;
    for (struct tb_op *op; (op = tb_timers_pop(&io->timers, io->now_ns, limit)) != NULL;) {
        if (op->kind == TB_OP_ACCEPT) {
            op->state = TB_OP_WAITING;
            request(u, op);
        } else {
            tb_ready_push(io, op, 0);
        }
    }
}

static bool kernel_has_work(struct uring *u)
{
    unsigned flags = IO_URING_READ_ONCE(*u->ring.sq.kflags);
    return io_uring_sq_ready(&u->ring) > 0 || flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN) ||
           (!u->task_flag && u->ring.flags & IORING_SETUP_DEFER_TASKRUN);
}

/* The turn's one system call: submit, let the kernel finish what it deferred, wait if asked to. */
static void enter(struct uring *u, bool wait)
{
    struct tb_io *io = &u->base;
    int rc = 0;
    if (wait) {
        struct io_uring_cqe *first;
        struct __kernel_timespec ts = {0}, *timeout = NULL;
        if (io->timers.n > 0) {
            uint64_t due = io->timers.v[0].due_ns, left = due > io->now_ns ? due - io->now_ns : 0;
            ts.tv_sec = (int64_t)(left / 1000000000u);
            ts.tv_nsec = (int64_t)(left % 1000000000u);
            timeout = &ts;
        }
        rc = io_uring_submit_and_wait_timeout(&u->ring, &first, 1, timeout, NULL);
        io->interrupted = rc == -EINTR;
    } else if (kernel_has_work(u)) {
        rc = io_uring_submit_and_get_events(&u->ring);
    }
    /* anything else would be a ring that lost completions, or used by the wrong thread */
    TB_ASSERT(rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
}

static void flush_doorbells(struct uring *u)
{
    int rc = io_uring_submit(&u->ring);
    TB_ASSERT(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR);
    u->rang = rc < 0; /* refused for lack of memory: with the next turn, or at close */
}

static unsigned uring_turn(struct tb_io *io, bool wait)
{
    struct uring *u = uring_of(io);
    io->now_ns = tb_real_clock.now_ns(io);
    fire_timers(u);
    tb_inbox_take(io);
    bool sleep = wait && !io->ready.head && io_uring_cq_ready(&u->ring) == 0 && tb_sleep_begin(io);
    enter(u, sleep);
    if (sleep) {
        tb_sleep_end(io);
        io->now_ns = tb_real_clock.now_ns(io);
        fire_timers(u);
    }
    tb_inbox_take(io);
    unsigned ran = reap(u);
    ran += tb_ready_run(io);
    if (u->rang)
        flush_doorbells(u);
    return ran;
}

/* ---- opening and closing ---- */

/* The best set of flags this kernel knows; 0 or -errno. */
static int setup_ring(struct uring *u)
{
    const unsigned base = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    const unsigned wanted[] = {
        base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER |
            IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        base | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
        base,
    };
    int rc = -EINVAL;
    for (size_t i = 0; i < TB_ARRAY_LEN(wanted) && rc == -EINVAL; i++) {
        struct io_uring_params p = {.flags = wanted[i], .cq_entries = RING_CQ_ENTRIES};
        rc = io_uring_queue_init_params(RING_SQ_ENTRIES, &u->ring, &p);
        u->task_flag = wanted[i] & IORING_SETUP_TASKRUN_FLAG;
    }
    if (rc < 0)
        return rc;
    const unsigned needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP | IORING_FEAT_CQE_SKIP;
    if ((u->ring.features & needed) != needed) {
        io_uring_queue_exit(&u->ring);
        return -ENOSYS;
    }
    return 0;
}

static int setup_buffers(struct uring *u)
{
    size_t ring_bytes = 4096 * ((RECV_BUFFERS * sizeof(struct io_uring_buf) + 4095) / 4096);
    u->mapped_bytes = ring_bytes + (size_t)RECV_BUFFERS * RECV_BUFFER_BYTES;
    char *p = mmap(NULL, u->mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    u->buffers = (struct io_uring_buf_ring *)(void *)p;
    u->buffer_bytes = p + ring_bytes;
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)p, .ring_entries = RECV_BUFFERS, .bgid = RECV_GROUP};
    int rc = io_uring_register_buf_ring(&u->ring, &reg, 0);
    if (rc < 0)
        return rc;
    io_uring_buf_ring_init(u->buffers);
    for (int i = 0; i < RECV_BUFFERS; i++)
        io_uring_buf_ring_add(u->buffers, u->buffer_bytes + (size_t)i * RECV_BUFFER_BYTES, RECV_BUFFER_BYTES,
                              (unsigned short)i, io_uring_buf_ring_mask(RECV_BUFFERS), i);
    io_uring_buf_ring_advance(u->buffers, RECV_BUFFERS);
    return 0;
}

static void uring_free(struct uring *u)
{
    io_uring_queue_exit(&u->ring);
    if (u->buffers)
        (void)munmap(u->buffers, u->mapped_bytes); /* our own mapping */
    tb_io_base_free(&u->base);
    free(u);
}

static void uring_close(struct tb_io *io)
{
    struct uring *u = uring_of(io);
    (void)io_uring_submit(
        &u->ring); /* doorbells still queued; refused if another thread closes, which then sent none */
    tb_post_wait(io);
    pthread_mutex_lock(&open_mutex);
    struct uring **at = &open_rings;
    while (*at != u)
        at = &(*at)->next_open;
    *at = u->next_open;
    pthread_mutex_unlock(&open_mutex);
    uring_free(u);
    tb_pools_drop();
}

static const struct tb_backend uring_backend = {
    .name = "uring",
    .files = &tb_real_files,
    .sockets = &tb_real_sockets,
    .clock = &tb_real_clock,
    .close = uring_close,
    .turn = uring_turn,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .post = uring_post,
};

enum tb_rc tb_uring_open(struct tb_io **out, struct tb_error *err)
{
    struct uring *u = calloc(1, sizeof(*u));
    if (!u)
        return tb_error_set(err, TB_IO, ENOMEM, "cannot make an I/O ring");
    tb_io_base_init(&u->base, &uring_backend);
    int rc = setup_ring(u);
    if (rc < 0) {
        free(u);
        return tb_error_set(err, TB_IO, -rc, "io_uring is not available here");
    }
    u->base.event_fd = eventfd(0, EFD_CLOEXEC);
    rc = u->base.event_fd < 0 ? -errno : setup_buffers(u);
    if (rc < 0) {
        uring_free(u);
        return tb_error_set(err, TB_IO, -rc, "io_uring here lacks what Tambo needs (Linux 5.19 or later)");
    }
    unsigned workers[2] = {RING_IOWQ_BOUNDED, RING_IOWQ_UNBOUNDED};
    (void)io_uring_register_iowq_max_workers(&u->ring, workers); /* only a bound on threads */
    (void)io_uring_register_ring_fd(&u->ring);                   /* only a faster system call */
    watch_event(u);
    pthread_mutex_lock(&open_mutex);
    u->next_open = open_rings;
    open_rings = u;
    pthread_mutex_unlock(&open_mutex);
    tb_pools_hold();
    *out = &u->base;
    return TB_OK;
}
