/*
 * io.c: the doors of tambo/io.h: fill in the caller's op and hand it to the backend. Timers, posts and offloads are the
 * same for uring and posix and live here; the simulator takes them over through its vtable.
 *
 * Must never: run done inside a submit, or allocate for one (the timer heap's growth apart).
 * Thread: the io's owner, but for tb_io_post.
 */
#include "backend.h"

#include <errno.h>
#include <unistd.h>

#include "engine/base/rules.h"

enum tb_rc tb_io_open(enum tb_io_kind kind, struct tb_io **out, struct tb_error *err)
{
    *out = NULL;
    return kind == TB_IO_URING ? tb_uring_open(out, err) : tb_posix_open(out, err);
}

void tb_io_base_init(struct tb_io *io, const struct tb_backend *backend)
{
    io->backend = backend;
    io->event_fd = -1;
    io->now_ns = backend->clock->now_ns(io);
}

void tb_io_base_free(struct tb_io *io)
{
    tb_timers_free(&io->timers);
    if (io->event_fd >= 0)
        (void)close(io->event_fd); /* an eventfd has nothing to lose */
    io->event_fd = -1;
}

void tb_io_close(struct tb_io *io)
{
    if (!io)
        return;
    TB_ASSERT(!io->in_turn);
    io->backend->close(io);
}

const char *tb_io_name(const struct tb_io *io)
{
    return io->backend->name;
}

unsigned tb_io_turn(struct tb_io *io, bool wait)
{
    TB_ASSERT(!io->in_turn);
    io->in_turn = true;
    io->interrupted = false;
    unsigned ran;
    do {
        ran = io->backend->turn(io, wait);
    } while (wait && ran == 0 && !io->interrupted);
    io->in_turn = false;
    return ran;
}

/* ---- clock, names, files ---- */

uint64_t tb_io_now_ns(struct tb_io *io)
{
    return io->now_ns;
}

int64_t tb_io_wall_s(struct tb_io *io)
{
    return io->backend->clock->wall_ms(io) / 1000;
}

int64_t tb_io_wall_ms(struct tb_io *io)
{
    return io->backend->clock->wall_ms(io);
}

void tb_io_random(struct tb_io *io, void *buf, size_t len)
{
    io->backend->clock->random(io, buf, len);
}

int tb_io_file_open(struct tb_io *io, const char *path, unsigned flags)
{
    return io->backend->files->open(io, path, flags);
}

int tb_io_file_close(struct tb_io *io, int fd)
{
    return io->backend->files->close(io, fd);
}

int64_t tb_io_file_size(struct tb_io *io, int fd)
{
    return io->backend->files->size(io, fd);
}

int tb_io_file_reserve(struct tb_io *io, int fd, uint64_t bytes)
{
    return io->backend->files->reserve(io, fd, bytes);
}

int tb_io_mkdir(struct tb_io *io, const char *path)
{
    return io->backend->files->mkdir(io, path);
}

int tb_io_rename(struct tb_io *io, const char *from, const char *to)
{
    return io->backend->files->rename(io, from, to);
}

int tb_io_unlink(struct tb_io *io, const char *path)
{
    return io->backend->files->unlink(io, path);
}

int tb_io_links(struct tb_io *io, int fd)
{
    return io->backend->files->links(io, fd);
}

int tb_io_sync_dir(struct tb_io *io, const char *path)
{
    return io->backend->files->sync_dir(io, path);
}

int tb_io_list(struct tb_io *io, const char *path, bool (*each)(void *user, const char *name), void *user)
{
    return io->backend->files->list(io, path, each, user);
}

int tb_io_lock(struct tb_io *io, int fd)
{
    return io->backend->files->lock(io, fd);
}

int64_t tb_io_pread(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
    return io->backend->files->pread(io, fd, buf, len, offset);
}

int64_t tb_io_pwrite(struct tb_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
    return io->backend->files->pwrite(io, fd, buf, len, offset);
}

int tb_io_sync(struct tb_io *io, int fd)
{
    return io->backend->files->sync(io, fd);
}

int64_t tb_io_pread_sure(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
    enum { SMALL = 4096, TRIES = 4 };
    char other[SMALL];
    TB_ASSERT(len <= SMALL);
    int64_t n = tb_io_pread(io, fd, buf, len, offset);
    for (int i = 1; i < TRIES && n >= 0; i++) {
        tb_io_file_forget(io, fd);
        int64_t again = tb_io_pread(io, fd, other, len, offset);
        if (again < 0 || (again == n && memcmp(buf, other, (size_t)n) == 0))
            return again;
        memcpy(buf, other, (size_t)again);
        n = again;
    }
    return n < 0 ? n : -EIO;
}

void tb_io_file_forget(struct tb_io *io, int fd)
{
    if (TB_KEEPS(forget))
        io->backend->files->forget(io, fd);
}

uint32_t tb_io_block_bytes(struct tb_io *io, const char *path)
{
    return io->backend->files->block_bytes(io, path);
}

/* ---- ops ---- */

/* What every submit has in common. The bytes are written to only by reads. */
static void submit(struct tb_io *io, struct tb_op *op, enum tb_op_kind kind, int fd, const void *buf, uint32_t len,
                   uint64_t offset)
{
    op->kind = (uint8_t)kind;
    op->io = io;
    op->fd = fd;
    op->buf = (void *)(uintptr_t)buf;
    op->len = len;
    op->offset = offset;
    op->result = 0;
    op->next = NULL;
    op->state = TB_OP_WAITING;
    io->backend->submit(io, op);
}

void tb_io_read(struct tb_io *io, struct tb_op *op, int fd, void *buf, uint32_t len, uint64_t offset)
{
    op->flags = 0;
    submit(io, op, TB_OP_READ, fd, buf, len, offset);
}

void tb_io_write(struct tb_io *io, struct tb_op *op, int fd, const void *buf, uint32_t len, uint64_t offset,
                 bool durable)
{
    op->flags = durable ? TB_OPF_DURABLE : 0;
    submit(io, op, TB_OP_WRITE, fd, buf, len, offset);
}

void tb_io_datasync(struct tb_io *io, struct tb_op *op, int fd)
{
    op->flags = 0;
    submit(io, op, TB_OP_DATASYNC, fd, NULL, 0, 0);
}

int tb_io_listen(struct tb_io *io, const char *address, uint16_t port)
{
    return io->backend->sockets->listen(io, address, port);
}

void tb_io_accept(struct tb_io *io, struct tb_op *op, int listen_fd)
{
    op->flags = 0;
    submit(io, op, TB_OP_ACCEPT, listen_fd, NULL, 0, 0);
}

void tb_io_connect(struct tb_io *io, struct tb_op *op, const char *address, uint16_t port)
{
    op->flags = 0;
    submit(io, op, TB_OP_CONNECT, -1, address, port, 0); /* the address is read before submit returns */
}

void tb_io_recv(struct tb_io *io, struct tb_op *op, int fd)
{
    op->flags &= TB_OPF_MORE;
    op->data = (struct tb_slice){NULL, 0};
    submit(io, op, TB_OP_RECV, fd, NULL, 0, 0);
}

void tb_io_send(struct tb_io *io, struct tb_op *op, int fd, const void *buf, uint32_t len)
{
    op->flags = 0;
    submit(io, op, TB_OP_SEND, fd, buf, len, 0);
}

void tb_io_shutdown(struct tb_io *io, int fd)
{
    io->backend->sockets->shutdown(io, fd);
}

int tb_io_socket_close(struct tb_io *io, int fd)
{
    return io->backend->sockets->close(io, fd);
}

bool tb_io_peer(struct tb_io *io, int fd, char text[64])
{
    return io->backend->sockets->peer(io, fd, text);
}

uint16_t tb_io_local_port(struct tb_io *io, int fd)
{
    return io->backend->sockets->local_port(io, fd);
}

void tb_io_timer(struct tb_io *io, struct tb_op *op, uint64_t delay_ns)
{
    uint64_t now = io->backend->clock->now_ns(io);
    op->flags = 0;
    op->due_ns = delay_ns > UINT64_MAX - now ? UINT64_MAX : now + delay_ns;
    op->kind = TB_OP_TIMER;
    op->io = io;
    op->state = TB_OP_WAITING;
    if (!tb_timers_add(&io->timers, op))
        tb_ready_push(io, op, -ENOMEM);
}

void tb_io_offload(struct tb_io *io, struct tb_op *op, void (*work)(struct tb_op *op))
{
    op->work = work;
    op->flags = 0;
    submit(io, op, TB_OP_OFFLOAD, -1, NULL, 0, 0);
}

void tb_io_offload_idle(struct tb_io *io, struct tb_op *op, void (*work)(struct tb_op *op))
{
    op->work = work;
    op->flags = TB_OPF_IDLE;
    submit(io, op, TB_OP_OFFLOAD, -1, NULL, 0, 0);
}

void tb_io_post(struct tb_io *from, struct tb_io *to, struct tb_op *op)
{
    op->kind = TB_OP_POST;
    op->io = to;
    op->flags = 0;
    op->state = TB_OP_WAITING;
    to->backend->post(from, to, op);
}

void tb_io_cancel(struct tb_io *io, struct tb_op *op)
{
    if ((op->state != TB_OP_WAITING && op->state != TB_OP_PAUSED) || op->flags & TB_OPF_CANCEL)
        return;
    if (op->kind == TB_OP_POST)
        return; /* already on its way */
    op->flags |= TB_OPF_CANCEL;
    if (op->kind == TB_OP_TIMER) {
        tb_timers_remove(&io->timers, op);
        tb_ready_push(io, op, -ECANCELED);
        return;
    }
    io->backend->cancel(io, op);
}
