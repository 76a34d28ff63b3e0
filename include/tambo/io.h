/*
 * io.h: the only way out of the process: files, sockets, clock, randomness, other threads.
 *
 * One tb_io per thread. It is used by that thread alone, but for tb_io_post (any thread). Every waiting call takes a
 * caller-owned tb_op, allocates nothing and returns at once; op->done runs later from tb_io_turn, never inside the
 * call that submitted it and never nested in another done. Backends: uring, posix (epoll and a small thread pool),
 * sim (seeded, single-threaded; engine/io/sim.h has its controls).
 *
 * Invariants
 * IO1 an op is submitted at most once at a time; between submit and done its memory and its buffer belong to tb_io.
 * IO2 done runs exactly once per submit (once per result for tb_io_accept until it is cancelled), also after a cancel.
 * IO3 a durable write that reports success survives power loss; a failed one has unknown effect and is not retried.
 */
#ifndef TAMBO_IO_H
#define TAMBO_IO_H

#include <tambo/base.h>

struct tb_io; /* opaque */

/* Zeroed before its first submit. */
struct tb_op {
    void (*done)(struct tb_op *op); /* set by the caller before submitting */
    void *user;                     /* the caller's */
    int64_t result;                 /* bytes, an fd, or -errno */
    enum tb_rc rc;                  /* used by the store's ops; I/O ops set result only */
    struct tb_slice data;           /* tb_io_recv: the bytes, valid until done returns */
    /* the backend's, from submit to done */
    struct tb_op *next;
    struct tb_io *io;
    void *buf;
    uint64_t offset;
    uint64_t due_ns;
    void (*work)(struct tb_op *op);
    uint32_t len;
    int fd;
    uint32_t slot;
    uint8_t kind, state, flags;
};

enum tb_io_kind { TB_IO_URING, TB_IO_POSIX };

/*
 * tb_io_open: an I/O context for the calling thread.
 * OK; IO with err if the backend is not available here (io_uring forbidden: try TB_IO_POSIX).
 */
enum tb_rc tb_io_open(enum tb_io_kind kind, struct tb_io **out, struct tb_error *err) TB_USE_RESULT;
/* tb_io_close: no op may be in flight. */
void tb_io_close(struct tb_io *io);
/* tb_io_name: "uring", "posix" or "sim". */
const char *tb_io_name(const struct tb_io *io);

/*
 * tb_io_turn: submit what is queued, wait until something completes if wait is set, run the done callbacks of what has
 * completed. Returns how many ran. With wait set and nothing in flight it still waits for a post.
 */
unsigned tb_io_turn(struct tb_io *io, bool wait);

/* ---- clock and randomness ---- */
uint64_t tb_io_now_ns(struct tb_io *io); /* monotonic; cached at each turn's start */
int64_t tb_io_wall_s(struct tb_io *io);  /* seconds since 1970, UTC */
int64_t tb_io_wall_ms(struct tb_io *io); /* milliseconds since 1970, UTC */
void tb_io_random(struct tb_io *io, void *buf, size_t len);

/*
 * ---- names and files; these return at once from the caller's view and may touch the disk's directories: not for hot
 * paths. They return 0 or a value >= 0, or -errno. Paths are NUL strings. ----
 */
enum { TB_OPEN_READ = 0, TB_OPEN_WRITE = 1, TB_OPEN_CREATE = 2, TB_OPEN_DIRECT = 4, TB_OPEN_EXCL = 8 };
int tb_io_file_open(struct tb_io *io, const char *path, unsigned flags); /* fd; mode 0600 when created */
int tb_io_file_close(struct tb_io *io, int fd);
int64_t tb_io_file_size(struct tb_io *io, int fd);
/* tb_io_file_reserve: blocks for [0,bytes) without changing the size; -ENOSPC. */
int tb_io_file_reserve(struct tb_io *io, int fd, uint64_t bytes);
int tb_io_mkdir(struct tb_io *io, const char *path); /* mode 0700 */
int tb_io_rename(struct tb_io *io, const char *from, const char *to);
int tb_io_unlink(struct tb_io *io, const char *path);
/* tb_io_links: how many names the open file has. */
int tb_io_links(struct tb_io *io, int fd);
/* tb_io_block_bytes: the physical block of the device under a path; 512 if unknown. */
uint32_t tb_io_block_bytes(struct tb_io *io, const char *path);
int tb_io_sync_dir(struct tb_io *io, const char *path); /* names in it are durable */
/* tb_io_list: call each(user, name) for every entry but . and .. ; stops early if each returns false. */
int tb_io_list(struct tb_io *io, const char *path, bool (*each)(void *user, const char *name), void *user);
/* tb_io_lock: an exclusive advisory lock until the descriptor is closed; -EAGAIN if another descriptor has it. */
int tb_io_lock(struct tb_io *io, int fd);
/* Waiting forms for start-up, before the loop runs: bytes or -errno. */
int64_t tb_io_pread(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset);
int64_t tb_io_pwrite(struct tb_io *io, int fd, const void *buf, size_t len, uint64_t offset);
int tb_io_sync(struct tb_io *io, int fd);
/*
 * tb_io_pread_sure: as tb_io_pread, of something small that no checksum covers, or whose checksum is to be believed
 * when it is wrong: read until two readings agree, past the page cache, at most four times. -EIO: they never do.
 */
int64_t tb_io_pread_sure(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset);
/* tb_io_file_forget: what the page cache holds of the file and thinks clean is dropped: the next read sees the disk.
 * After a failed sync the two may differ. Advice: nothing to check. */
void tb_io_file_forget(struct tb_io *io, int fd);

/* ---- files, in the loop ---- */
void tb_io_read(struct tb_io *io, struct tb_op *op, int fd, void *buf, uint32_t len, uint64_t offset);
/*
 * tb_io_write: durable = one RWF_DSYNC write: done means on stable storage. O_DIRECT fds need 4 KiB alignment of all
 * three. result = len, or -errno with any part of it written.
 */
void tb_io_write(struct tb_io *io, struct tb_op *op, int fd, const void *buf, uint32_t len, uint64_t offset,
                 bool durable);
/* tb_io_datasync: fdatasync. */
void tb_io_datasync(struct tb_io *io, struct tb_op *op, int fd);

/* ---- sockets ---- */
/*
 * tb_io_listen: a listening fd for "127.0.0.1", "::1", "unix:/path" ...; port 0 picks one. IPv6 sockets are v6-only. A
 * UNIX socket that nobody listens on any more is replaced; its mode is the umask's. -errno.
 */
int tb_io_listen(struct tb_io *io, const char *address, uint16_t port);
/*
 * tb_io_accept: done runs for every connection (result = fd, close-on-exec, TCP_NODELAY set) until cancelled
 * (-ECANCELED, last). Another -errno (-EMFILE ...) is a report, not the end: accepting goes on after a pause.
 */
void tb_io_accept(struct tb_io *io, struct tb_op *op, int listen_fd);
/* tb_io_connect: a TCP or UNIX stream; result = fd or -errno. For the bench and relays. */
void tb_io_connect(struct tb_io *io, struct tb_op *op, const char *address, uint16_t port);
/*
 * tb_io_recv: wait for bytes; result = count, 0 at end of stream, -errno. op->data is the backend's shared buffer:
 * valid until done returns. A waiting connection holds no buffer.
 */
void tb_io_recv(struct tb_io *io, struct tb_op *op, int fd);
/* tb_io_send: all of it: result = len, or -errno with an unknown part sent. */
void tb_io_send(struct tb_io *io, struct tb_op *op, int fd, const void *buf, uint32_t len);
/* tb_io_shutdown: no more in either direction; a pending recv ends with 0. */
void tb_io_shutdown(struct tb_io *io, int fd);
int tb_io_socket_close(struct tb_io *io, int fd);
/* tb_io_peer: the peer's numeric address, "unix" for UNIX sockets. true if it is loopback or UNIX. */
bool tb_io_peer(struct tb_io *io, int fd, char text[64]);
/* tb_io_local_port: the port a listening fd was given. */
uint16_t tb_io_local_port(struct tb_io *io, int fd);

/* ---- time, threads ---- */
/* tb_io_timer: done after delay_ns (result 0, or -ECANCELED). */
void tb_io_timer(struct tb_io *io, struct tb_op *op, uint64_t delay_ns);
/* tb_io_cancel: ask an in-flight op to end; its done runs soon with -ECANCELED or with its result if that came first.
 */
void tb_io_cancel(struct tb_io *io, struct tb_op *op);
/*
 * tb_io_post: run op->done on the thread of io `to`. Any thread may call it. Keeps order between one sender and one
 * receiver. Can't be cancelled. from: the calling thread's own io (lets uring use MSG_RING), or NULL.
 */
void tb_io_post(struct tb_io *from, struct tb_io *to, struct tb_op *op);
/*
 * tb_io_offload: run work(op) on a helper thread, then done(op) here. For what blocks or burns: password hashes,
 * zero-filling. result is 0 unless work sets it; -ECANCELED if cancelled before work began.
 */
void tb_io_offload(struct tb_io *io, struct tb_op *op, void (*work)(struct tb_op *op));
/*
 * tb_io_offload_idle: the same, for what can wait for hours: one thread of the process does it while nothing else wants
 * the processor (SCHED_IDLE).
 */
void tb_io_offload_idle(struct tb_io *io, struct tb_op *op, void (*work)(struct tb_op *op));

/*
 * tb_io_crash_mark: from now on a process that dies of a fault (SIGSEGV, SIGBUS, SIGABRT ...) makes an empty file of
 * this name first. Once, before threads start.
 */
void tb_io_crash_mark(const char *path);

#endif
