/*
 * backend.h: what the parts of engine/io share: the backend's vtable, struct tb_io, the ready list, the timer heap, the
 * inbox for other threads, the helper pools. Included by engine/io alone.
 *
 * The life of an op: IDLE -> WAITING (in the kernel, a queue, a heap or a pool) -> READY (finished, in the ready list)
 * -> IDLE, and then done runs. An op that a backend finishes straight from its own queue skips READY.
 *
 * Invariants
 * B1 op->state is IDLE whenever done is called, but for the connections of an accept that goes on.
 * B2 op->next belongs to exactly one list at a time: ready list, inbox, pool queue, or a backend's own.
 * B3 only the inbox, the asleep flag and the posting count are touched by other threads.
 */
#ifndef TAMBO_IO_BACKEND_H
#define TAMBO_IO_BACKEND_H

#include <tambo/io.h>

#include <stdatomic.h>

enum tb_op_kind {
    TB_OP_READ,
    TB_OP_WRITE,
    TB_OP_DATASYNC,
    TB_OP_ACCEPT,
    TB_OP_CONNECT,
    TB_OP_RECV,
    TB_OP_SEND,
    TB_OP_TIMER,
    TB_OP_POST,
    TB_OP_OFFLOAD,
};

enum tb_op_state { TB_OP_IDLE, TB_OP_WAITING, TB_OP_PAUSED, TB_OP_READY };

enum {
    TB_OPF_DURABLE = 1, /* a write that returns on stable storage */
    TB_OPF_CANCEL = 2,  /* the caller asked for its end */
    TB_OPF_MORE = 4,    /* kept from the last recv on this op: more bytes were waiting */
    TB_OPF_INLINE = 8,  /* offload without a helper thread: work runs just before done */
    TB_OPF_IDLE = 16,   /* offload: only while nothing else wants the processor */
};

/* How long an accept rests after the process ran out of descriptors or memory. */
#define TB_ACCEPT_PAUSE_NS 100000000u

struct tb_list {
    struct tb_op *head, *tail; /* borrowed: callers own ops */
};

struct tb_timer {
    uint64_t due_ns;
    uint64_t seq; /* equal due times fire in the order of submission */
    struct tb_op *op;
};

/* A binary heap; op->slot is the op's index in it. */
struct tb_timers {
    struct tb_timer *v; /* owned */
    uint32_t n, cap;
    uint64_t seq;
};

/* Names and files; each as its tb_io_ namesake. */
struct tb_file_calls {
    int (*open)(struct tb_io *io, const char *path, unsigned flags);
    int (*close)(struct tb_io *io, int fd);
    int64_t (*size)(struct tb_io *io, int fd);
    int (*reserve)(struct tb_io *io, int fd, uint64_t bytes);
    int (*mkdir)(struct tb_io *io, const char *path);
    int (*rename)(struct tb_io *io, const char *from, const char *to);
    int (*unlink)(struct tb_io *io, const char *path);
    int (*links)(struct tb_io *io, int fd);
    int (*sync_dir)(struct tb_io *io, const char *path);
    int (*list)(struct tb_io *io, const char *path, bool (*each)(void *user, const char *name), void *user);
    int (*lock)(struct tb_io *io, int fd);
    int64_t (*pread)(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset);
    int64_t (*pwrite)(struct tb_io *io, int fd, const void *buf, size_t len, uint64_t offset);
    int (*sync)(struct tb_io *io, int fd);
    uint32_t (*block_bytes)(struct tb_io *io, const char *path);
    void (*forget)(struct tb_io *io, int fd);
};

struct tb_socket_calls {
    int (*listen)(struct tb_io *io, const char *address, uint16_t port);
    void (*shutdown)(struct tb_io *io, int fd);
    int (*close)(struct tb_io *io, int fd);
    bool (*peer)(struct tb_io *io, int fd, char text[64]);
    uint16_t (*local_port)(struct tb_io *io, int fd);
};

struct tb_clock_calls {
    uint64_t (*now_ns)(struct tb_io *io);
    int64_t (*wall_ms)(struct tb_io *io);
    void (*random)(struct tb_io *io, void *buf, size_t len);
};

struct tb_backend {
    const char *name;
    const struct tb_file_calls *files;
    const struct tb_socket_calls *sockets;
    const struct tb_clock_calls *clock;
    void (*close)(struct tb_io *io);
    unsigned (*turn)(struct tb_io *io, bool wait);
    void (*submit)(struct tb_io *io, struct tb_op *op); /* op is filled in, WAITING; may end in tb_ready_push */
    void (*cancel)(struct tb_io *io, struct tb_op *op); /* op is WAITING or PAUSED, CANCEL just set */
    void (*post)(struct tb_io *from, struct tb_io *to, struct tb_op *op);
};

struct tb_io {
    const struct tb_backend *backend;
    uint64_t now_ns;
    struct tb_list ready;
    struct tb_timers timers;
    int event_fd;
    bool in_turn;
    bool interrupted;              /* the turn ended without an event on purpose: do not wait again */
    _Atomic(struct tb_op *) inbox; /* newest first */
    atomic_bool asleep;            /* the owner waits, or is about to: ring */
    atomic_uint posting;           /* threads between push and the end of ring */
};

/* ---- ready list (ready.c) ---- */
void tb_list_push(struct tb_list *l, struct tb_op *op);
struct tb_op *tb_list_pop(struct tb_list *l);
/* tb_list_remove: take op out if it is there. O(length). */
bool tb_list_remove(struct tb_list *l, struct tb_op *op);
/* tb_ready_push: op is finished; its done runs from the next tb_ready_run. */
void tb_ready_push(struct tb_io *io, struct tb_op *op, int64_t result);
/* tb_op_finish: op is finished and done runs now. Only from a turn. The op may be gone afterwards. */
void tb_op_finish(struct tb_op *op, int64_t result);
/* tb_ready_run: run the done of what was ready at entry; returns how many. */
unsigned tb_ready_run(struct tb_io *io);

/* ---- timers (timers.c) ---- */
/* tb_timers_add: op fires at op->due_ns; false without memory. */
bool tb_timers_add(struct tb_timers *t, struct tb_op *op);
void tb_timers_remove(struct tb_timers *t, struct tb_op *op);
/* tb_timers_pop: the earliest op with due <= now and seq < limit, taken out; NULL if there is none. */
struct tb_op *tb_timers_pop(struct tb_timers *t, uint64_t now_ns, uint64_t seq_limit);
void tb_timers_free(struct tb_timers *t);

/* ---- inbox: ops from other threads (ready.c) ---- */
/* tb_inbox_push: any thread. ring(from, to) is called if the owner sleeps. */
void tb_inbox_push(struct tb_io *from, struct tb_io *to, struct tb_op *op,
                   void (*ring)(struct tb_io *from, struct tb_io *to));
/* tb_inbox_take: move what came to the ready list, in the order it came. */
void tb_inbox_take(struct tb_io *io);
/* tb_sleep_begin: from now on posters ring; false if something came meanwhile. tb_sleep_end: no more need to ring. */
bool tb_sleep_begin(struct tb_io *io);
void tb_sleep_end(struct tb_io *io);
/* tb_event_ring: wake the owner of `to` by its eventfd. */
void tb_event_ring(struct tb_io *from, struct tb_io *to);
/* tb_post_wait: until no other thread is inside a post to io; before its memory goes. */
void tb_post_wait(struct tb_io *io);

/* ---- helper threads (pool.c) ---- */
enum tb_pool_id { TB_POOL_HELPERS, TB_POOL_FILES, TB_POOL_IDLE, TB_POOLS };
static inline enum tb_pool_id tb_offload_pool(const struct tb_op *op)
{
    return op->flags & TB_OPF_IDLE ? TB_POOL_IDLE : TB_POOL_HELPERS;
}
/* tb_pools_hold, tb_pools_drop: one of each per open io; the last drop stops and joins the threads. */
void tb_pools_hold(void);
void tb_pools_drop(void);
/* tb_pool_submit: op->work(op) on a thread of the pool, then op to the inbox of op->io. false: no thread can be had. */
bool tb_pool_submit(enum tb_pool_id id, struct tb_op *op);
/* tb_pool_remove: op is taken back if no thread has begun it. */
bool tb_pool_remove(enum tb_pool_id id, struct tb_op *op);

/* ---- the real system (file.c, socket.c, clock.c), shared by uring and posix ---- */
extern const struct tb_file_calls tb_real_files;
extern const struct tb_socket_calls tb_real_sockets;
extern const struct tb_clock_calls tb_real_clock;
/* tb_real_read, tb_real_write: all of it, through EINTR and short counts; bytes (a read may end early at EOF) or
 * -errno. */
int64_t tb_real_read(int fd, void *buf, size_t len, uint64_t offset);
int64_t tb_real_write(int fd, const void *buf, size_t len, uint64_t offset, bool durable);
int tb_real_datasync(int fd);
/* tb_real_eof: a read that had moved `got` bytes and then failed with -EINVAL met the unaligned end of an O_DIRECT
 * file. */
bool tb_real_eof(int64_t got, int64_t result);
/* tb_real_connect: start connecting; fd or -errno. *pending: wait until it is writable, then tb_real_connected. */
int tb_real_connect(const char *address, uint16_t port, bool *pending);
/* tb_real_connected: how the connect ended: 0 or -errno. The fd is made blocking again. */
int tb_real_connected(int fd);
/* tb_accept_ignores: one connection went wrong before we had it; the next may be fine. */
bool tb_accept_ignores(int64_t result);

/* ---- the backends ---- */
enum tb_rc tb_uring_open(struct tb_io **out, struct tb_error *err);
enum tb_rc tb_posix_open(struct tb_io **out, struct tb_error *err);
/* tb_io_base_init, tb_io_base_free: the part of tb_io that every backend has. */
void tb_io_base_init(struct tb_io *io, const struct tb_backend *backend);
void tb_io_base_free(struct tb_io *io);

#endif
