/*
 * test_io.c: tambo/io.h as its callers see it, run over every backend: files, sockets, timers, cancel, posts, offload.
 *
 * The same test bodies run over uring, posix and sim; what needs real threads or a real kernel runs over the first two.
 * Sockets are on 127.0.0.1 or in a folder made for the run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/io/sim.h"
#include <tambo/io.h>

enum which { URING, POSIX, SIM };

struct env {
    enum which which;
    struct tb_io *io;
    struct tb_sim *sim;
    char dir[64];
};

/* One op that remembers how it ended. */
struct call {
    struct tb_op op;
    int done; /* how often */
    int64_t result;
    uint64_t at_ns;
    int order; /* position among all calls of the test */
};

static int done_order;
static bool inside_submit;

static void on_done(struct tb_op *op)
{
    struct call *c = TB_CONTAINER(op, struct call, op);
    assert_false(inside_submit);
    c->done++;
    c->result = op->result;
    c->at_ns = op->io ? tb_io_now_ns(op->io) : 0;
    c->order = done_order++;
}

static void prepare(struct call *c)
{
    memset(c, 0, sizeof(*c));
    c->op.done = on_done;
}

static void finish_calls(struct env *e, struct call *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (int turns = 0; c[i].done == 0; turns++) {
            assert_true(turns < 1000000);
            tb_io_turn(e->io, true);
        }
    }
}

static int64_t finish(struct env *e, struct call *c)
{
    finish_calls(e, c, 1);
    return c->result;
}

static int setup(void **state)
{
    const enum which *which = *state;
    struct env *e = calloc(1, sizeof(*e));
    struct tb_error err = {0};
    e->which = *which;
    snprintf(e->dir, sizeof(e->dir), "/tmp/tambo-io-XXXXXX");
    if (!mkdtemp(e->dir))
        return -1;
    if (e->which == SIM) {
        e->sim = tb_sim_new(7, e->dir);
        e->io = e->sim ? tb_sim_io(e->sim) : NULL;
        if (!e->io)
            return -1;
    } else if (tb_io_open(e->which == URING ? TB_IO_URING : TB_IO_POSIX, &e->io, &err) != TB_OK) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    done_order = 0;
    *state = e;
    return 0;
}

static int teardown(void **state)
{
    struct env *e = *state;
    tb_io_close(e->io);
    if (e->sim)
        tb_sim_free(e->sim);
    char cmd[128];
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", e->dir);
    int rc = system(cmd);
    free(e);
    return rc;
}

static const char *path_in(struct env *e, const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", e->dir, name);
    return p;
}

static void fill(char *p, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (char)(seed >> 24);
    }
}

/* ---- files ---- */

static void test_file_round_trip(void **state)
{
    struct env *e = *state;
    int fd = tb_io_file_open(e->io, path_in(e, "f"), TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
    assert_true(fd >= 0);
    assert_int_equal(tb_io_file_open(e->io, path_in(e, "f"), TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL), -EEXIST);
    assert_int_equal(tb_io_file_open(e->io, path_in(e, "none"), TB_OPEN_READ), -ENOENT);
    char out[10000], in[16384];
    fill(out, sizeof(out), 1);
    struct call c;
    for (int durable = 0; durable < 2; durable++) {
        prepare(&c);
        inside_submit = true;
        tb_io_write(e->io, &c.op, fd, out, sizeof(out), (uint64_t)durable * sizeof(out), durable);
        inside_submit = false;
        assert_int_equal(finish(e, &c), sizeof(out));
    }
    assert_int_equal(tb_io_file_size(e->io, fd), 2 * sizeof(out));
    prepare(&c);
    tb_io_datasync(e->io, &c.op, fd);
    assert_int_equal(finish(e, &c), 0);
    prepare(&c); /* ends at the end of the file */
    tb_io_read(e->io, &c.op, fd, in, sizeof(in), 10000);
    assert_int_equal(finish(e, &c), 10000);
    assert_memory_equal(in, out, 10000);
    prepare(&c); /* past the end */
    tb_io_read(e->io, &c.op, fd, in, sizeof(in), 1 << 20);
    assert_int_equal(finish(e, &c), 0);
    prepare(&c);
    tb_io_read(e->io, &c.op, fd, in, 0, 0);
    assert_int_equal(finish(e, &c), 0);
    struct stat st;
    assert_int_equal(stat(path_in(e, "f"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
}

static void test_file_waiting_forms(void **state)
{
    struct env *e = *state;
    int fd = tb_io_file_open(e->io, path_in(e, "w"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    assert_true(fd >= 0);
    assert_int_equal(tb_io_pwrite(e->io, fd, "hello", 5, 3), 5);
    char in[16];
    assert_int_equal(tb_io_pread(e->io, fd, in, sizeof(in), 0), 8);
    assert_memory_equal(in, "\0\0\0hello", 8);
    assert_int_equal(tb_io_sync(e->io, fd), 0);
    assert_int_equal(tb_io_file_reserve(e->io, fd, 1 << 20), 0);
    assert_int_equal(tb_io_file_size(e->io, fd), 8);
    struct stat st;
    assert_int_equal(stat(path_in(e, "w"), &st), 0);
    if (e->which != SIM)
        assert_true(st.st_blocks * 512 >= 1 << 20);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
}

static void test_file_errors(void **state)
{
    struct env *e = *state;
    int fd = tb_io_file_open(e->io, path_in(e, "r"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
    fd = tb_io_file_open(e->io, path_in(e, "r"), TB_OPEN_READ);
    assert_true(fd >= 0);
    struct call c;
    prepare(&c);
    tb_io_write(e->io, &c.op, fd, "x", 1, 0, true);
    assert_int_equal(finish(e, &c), -EBADF);
    assert_true(tb_io_pwrite(e->io, fd, "x", 1, 0) < 0);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
}

static void test_file_direct(void **state)
{
    struct env *e = *state;
    int fd = tb_io_file_open(e->io, path_in(e, "d"), TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL | TB_OPEN_DIRECT);
    assert_true(fd >= 0);
    char *buf = aligned_alloc(4096, 8192), *back = aligned_alloc(4096, 16384);
    fill(buf, 8192, 5);
    struct call c;
    prepare(&c);
    tb_io_write(e->io, &c.op, fd, buf, 8192, 4096, true);
    assert_int_equal(finish(e, &c), 8192);
    prepare(&c);
    tb_io_read(e->io, &c.op, fd, back, 16384, 4096);
    assert_int_equal(finish(e, &c), 8192);
    assert_memory_equal(buf, back, 8192);
    /* a file whose end is not aligned: the read stops there */
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
    fd = tb_io_file_open(e->io, path_in(e, "d"), TB_OPEN_WRITE);
    assert_int_equal(tb_io_pwrite(e->io, fd, "tail", 4, 12288), 4);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
    fd = tb_io_file_open(e->io, path_in(e, "d"), TB_OPEN_READ | TB_OPEN_DIRECT);
    prepare(&c);
    tb_io_read(e->io, &c.op, fd, back, 16384, 8192);
    assert_int_equal(finish(e, &c), 4100);
    assert_memory_equal(back + 4096, "tail", 4);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
    free(buf);
    free(back);
}

static void test_many_file_ops(void **state)
{
    enum { N = 3000 }; /* more than any queue of the backend */
    struct env *e = *state;
    int fd = tb_io_file_open(e->io, path_in(e, "m"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    struct call *c = calloc(N, sizeof(*c));
    uint32_t *v = calloc(N, sizeof(*v)), *back = calloc(N, sizeof(*back));
    for (uint32_t i = 0; i < N; i++) {
        prepare(&c[i]);
        v[i] = i * 2654435761u;
        tb_io_write(e->io, &c[i].op, fd, &v[i], 4, i * 4, false);
    }
    finish_calls(e, c, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(c[i].result, 4);
        assert_int_equal(c[i].done, 1);
        prepare(&c[i]);
        tb_io_read(e->io, &c[i].op, fd, &back[i], 4, i * 4);
    }
    finish_calls(e, c, N);
    assert_memory_equal(v, back, N * 4);
    assert_int_equal(tb_io_file_close(e->io, fd), 0);
    free(c);
    free(v);
    free(back);
}

static bool count_name(void *user, const char *name)
{
    assert_true(strcmp(name, "a") == 0 || strcmp(name, "c") == 0);
    return ++*(int *)user < 10;
}

static bool stop_at_once(void *user, const char *name)
{
    (void)name;
    ++*(int *)user;
    return false;
}

static void test_names(void **state)
{
    struct env *e = *state;
    assert_int_equal(tb_io_mkdir(e->io, path_in(e, "sub")), 0);
    assert_int_equal(tb_io_mkdir(e->io, path_in(e, "sub")), -EEXIST);
    int a = tb_io_file_open(e->io, path_in(e, "sub/a"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    int b = tb_io_file_open(e->io, path_in(e, "sub/b"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    assert_true(a >= 0 && b >= 0);
    assert_int_equal(tb_io_rename(e->io, path_in(e, "sub/b"), path_in(e, "sub/c")), 0);
    assert_int_equal(tb_io_rename(e->io, path_in(e, "sub/b"), path_in(e, "sub/c")), -ENOENT);
    assert_int_equal(tb_io_sync_dir(e->io, path_in(e, "sub")), 0);
    int n = 0;
    assert_int_equal(tb_io_list(e->io, path_in(e, "sub"), count_name, &n), 0);
    assert_int_equal(n, 2);
    n = 0;
    assert_int_equal(tb_io_list(e->io, path_in(e, "sub"), stop_at_once, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(tb_io_unlink(e->io, path_in(e, "sub/c")), 0);
    assert_int_equal(tb_io_unlink(e->io, path_in(e, "sub/c")), -ENOENT);
    assert_int_equal(tb_io_list(e->io, path_in(e, "nowhere"), count_name, &n), -ENOENT);
    assert_int_equal(tb_io_sync_dir(e->io, path_in(e, "nowhere")), -ENOENT);
    /* a lock: one holder, whichever descriptor asks */
    int again = tb_io_file_open(e->io, path_in(e, "sub/a"), TB_OPEN_WRITE);
    assert_int_equal(tb_io_lock(e->io, a), 0);
    assert_int_equal(tb_io_lock(e->io, again), -EAGAIN);
    assert_int_equal(tb_io_file_close(e->io, a), 0);
    assert_int_equal(tb_io_lock(e->io, again), 0);
    assert_int_equal(tb_io_file_close(e->io, again), 0);
    assert_int_equal(tb_io_file_close(e->io, b), 0);
}

/* ---- time, offload, post ---- */

static void test_timers(void **state)
{
    struct env *e = *state;
    const uint64_t ms[] = {20, 5, 10, 5, 1, 0};
    struct call c[6];
    uint64_t began = tb_io_now_ns(e->io);
    for (int i = 0; i < 6; i++) {
        prepare(&c[i]);
        tb_io_timer(e->io, &c[i].op, ms[i] * 1000000);
    }
    assert_int_equal(c[5].done, 0);
    finish_calls(e, c, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(c[i].done, 1);
        assert_int_equal(c[i].result, 0);
        assert_true(c[i].at_ns >= began + ms[i] * 1000000);
    }
    assert_true(c[5].order < c[4].order && c[4].order < c[1].order && c[1].order < c[3].order);
    assert_true(c[3].order < c[2].order && c[2].order < c[0].order);
}

static void test_timer_cancel(void **state)
{
    enum { N = 500 };
    struct env *e = *state;
    struct call *c = calloc(N, sizeof(*c));
    for (size_t i = 0; i < N; i++) {
        prepare(&c[i]);
        tb_io_timer(e->io, &c[i].op, i % 3 ? 3600000000000u + i * 7919 % 1000 : 1000000 + i * 7919 % 1000);
    }
    for (size_t i = 0; i < N; i++) {
        if (i % 3)
            tb_io_cancel(e->io, &c[i].op);
    }
    assert_int_equal(c[1].done, 0);
    finish_calls(e, c, N);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(c[i].result, i % 3 ? -ECANCELED : 0);
    tb_io_cancel(e->io, &c[0].op); /* not in flight: nothing happens */
    tb_io_turn(e->io, false);
    assert_int_equal(c[0].done, 1);
    free(c);
}

static void test_turn_without_wait(void **state)
{
    struct env *e = *state;
    struct call c;
    prepare(&c);
    tb_io_timer(e->io, &c.op, 3600000000000u);
    assert_int_equal(tb_io_turn(e->io, false), 0);
    tb_io_cancel(e->io, &c.op);
    assert_int_equal(finish(e, &c), -ECANCELED);
}

static void square(struct tb_op *op)
{
    op->result = (int64_t)((uintptr_t)op->user * (uintptr_t)op->user);
}

static void test_offload(void **state)
{
    enum { N = 300 };
    struct env *e = *state;
    struct call *c = calloc(N, sizeof(*c));
    for (uintptr_t i = 0; i < N; i++) {
        prepare(&c[i]);
        c[i].op.user = (void *)i;
        (i % 2 ? tb_io_offload_idle : tb_io_offload)(e->io, &c[i].op, square);
    }
    assert_int_equal(c[0].done, 0);
    finish_calls(e, c, N);
    for (int64_t i = 0; i < N; i++)
        assert_int_equal(c[i].result, i * i);
    free(c);
}

static sem_t hold;

static void wait_here(struct tb_op *op)
{
    (void)op;
    sem_wait(&hold);
}

static void test_offload_cancel(void **state)
{
    enum { N = 40 };
    struct env *e = *state;
    struct call c[N];
    sem_init(&hold, 0, 0);
    for (int i = 0; i < N; i++) {
        prepare(&c[i]);
        tb_io_offload(e->io, &c[i].op, wait_here);
    }
    for (int i = 0; i < N; i++)
        tb_io_cancel(e->io, &c[i].op);
    for (int i = 0; i < N; i++)
        sem_post(&hold); /* those that had begun can't be taken back */
    finish_calls(e, c, N);
    int cancelled = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(c[i].done, 1);
        assert_true(c[i].result == 0 || c[i].result == -ECANCELED);
        cancelled += c[i].result != 0;
    }
    assert_true(cancelled >= N / 2);
    sem_destroy(&hold);
}

static void test_post_self(void **state)
{
    struct env *e = *state;
    struct call c[5];
    for (int i = 0; i < 5; i++) {
        prepare(&c[i]);
        tb_io_post(i % 2 ? e->io : NULL, e->io, &c[i].op);
    }
    assert_int_equal(c[0].done, 0);
    finish_calls(e, c, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(c[i].order, i);
}

/* ---- sockets ---- */

/* A listener, and connections from the same io to itself. */
struct accepts {
    struct tb_op op;
    int fds[4096];
    int n, errors;
    bool ended;
};

static void on_accept(struct tb_op *op)
{
    struct accepts *a = TB_CONTAINER(op, struct accepts, op);
    assert_false(a->ended);
    if (op->result >= 0)
        a->fds[a->n++] = (int)op->result;
    else if (op->result == -ECANCELED)
        a->ended = true;
    else
        a->errors++;
}

static void stop_accepting(struct env *e, struct accepts *a)
{
    tb_io_cancel(e->io, &a->op);
    for (int i = 0; !a->ended && i < 1000; i++)
        tb_io_turn(e->io, true);
    assert_true(a->ended);
}

static struct accepts *start_accepting(struct env *e, int listen_fd)
{
    struct accepts *a = calloc(1, sizeof(*a));
    a->op.done = on_accept;
    tb_io_accept(e->io, &a->op, listen_fd);
    return a;
}

static int connect_to(struct env *e, const char *address, uint16_t port)
{
    struct call c;
    prepare(&c);
    tb_io_connect(e->io, &c.op, address, port);
    return (int)finish(e, &c);
}

/* Two connected sockets. */
static void make_pair(struct env *e, int fd[2])
{
    int l = tb_io_listen(e->io, "127.0.0.1", 0);
    assert_true(l >= 0);
    struct accepts *a = start_accepting(e, l);
    fd[0] = connect_to(e, "127.0.0.1", tb_io_local_port(e->io, l));
    assert_true(fd[0] >= 0);
    while (a->n == 0)
        tb_io_turn(e->io, true);
    fd[1] = a->fds[0];
    stop_accepting(e, a);
    free(a);
    assert_int_equal(tb_io_socket_close(e->io, l), 0);
}

static void close_pair(struct env *e, const int fd[2])
{
    assert_int_equal(tb_io_socket_close(e->io, fd[0]), 0);
    assert_int_equal(tb_io_socket_close(e->io, fd[1]), 0);
}

/* A receiver that keeps receiving until EOF and checks what comes. */
struct sink {
    struct tb_op op;
    int fd;
    const char *want;
    size_t got, len;
    bool ended;
};

static void on_bytes(struct tb_op *op)
{
    struct sink *s = TB_CONTAINER(op, struct sink, op);
    assert_true(op->result >= 0);
    assert_int_equal(op->data.len, op->result);
    if (op->result == 0) {
        s->ended = true;
        return;
    }
    assert_true(s->got + op->data.len <= s->len);
    assert_memory_equal(op->data.ptr, s->want + s->got, op->data.len);
    s->got += op->data.len;
    tb_io_recv(op->io, op, s->fd);
}

static void test_ten_megabytes(void **state)
{
    enum { LEN = 10 << 20 };
    struct env *e = *state;
    int fd[2];
    make_pair(e, fd);
    char *bytes[2] = {malloc(LEN), malloc(LEN)};
    struct sink s[2];
    struct call c[2];
    for (int i = 0; i < 2; i++) {
        fill(bytes[i], LEN, (uint32_t)i + 3);
        s[i] = (struct sink){.op.done = on_bytes, .fd = fd[i], .want = bytes[1 - i], .len = LEN};
        tb_io_recv(e->io, &s[i].op, fd[i]);
        prepare(&c[i]);
        tb_io_send(e->io, &c[i].op, fd[i], bytes[i], LEN);
    }
    finish_calls(e, c, 2);
    assert_int_equal(c[0].result, LEN);
    assert_int_equal(c[1].result, LEN);
    while (s[0].got < LEN || s[1].got < LEN)
        tb_io_turn(e->io, true);
    tb_io_shutdown(e->io, fd[0]); /* a pending recv ends with 0, at both ends */
    while (!s[0].ended || !s[1].ended)
        tb_io_turn(e->io, true);
    close_pair(e, fd);
    free(bytes[0]);
    free(bytes[1]);
}

static void test_accept_many(void **state)
{
    enum { N = 600 };
    struct env *e = *state;
    int l = tb_io_listen(e->io, "127.0.0.1", 0), *fd = calloc(N, sizeof(*fd));
    uint16_t port = tb_io_local_port(e->io, l);
    assert_true(l >= 0 && port != 0);
    struct accepts *a = start_accepting(e, l);
    struct call *c = calloc(N, sizeof(*c));
    for (int i = 0; i < N; i++) {
        prepare(&c[i]);
        tb_io_connect(e->io, &c[i].op, "127.0.0.1", port);
    }
    finish_calls(e, c, N);
    while (a->n < N)
        tb_io_turn(e->io, true);
    /* every one of them gets bytes while nobody looks: more than there are receive buffers */
    struct sink *s = calloc(N, sizeof(*s));
    for (int i = 0; i < N; i++) {
        assert_true(c[i].result >= 0);
        fd[i] = (int)c[i].result;
        s[i] = (struct sink){.op.done = on_bytes, .fd = a->fds[i], .want = "ping", .len = 4};
        tb_io_recv(e->io, &s[i].op, a->fds[i]);
        prepare(&c[i]);
        tb_io_send(e->io, &c[i].op, fd[i], "ping", 4);
    }
    finish_calls(e, c, N);
    for (int i = 0; i < N; i++) {
        while (s[i].got < 4)
            tb_io_turn(e->io, true);
        tb_io_socket_close(e->io, fd[i]);
    }
    for (int i = 0; i < N; i++) {
        while (!s[i].ended)
            tb_io_turn(e->io, true);
        tb_io_socket_close(e->io, a->fds[i]);
    }
    stop_accepting(e, a);
    tb_io_socket_close(e->io, l);
    free(a);
    free(c);
    free(s);
    free(fd);
}

static void test_socket_facts(void **state)
{
    struct env *e = *state;
    int fd[2];
    make_pair(e, fd);
    char text[64];
    assert_true(tb_io_peer(e->io, fd[1], text));
    assert_string_equal(text, "127.0.0.1");
    if (e->which != SIM) {
        for (int i = 0; i < 2; i++) {
            int on = 0;
            socklen_t len = sizeof(on);
            assert_int_equal(getsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
            assert_int_not_equal(on, 0);
        }
    }
    close_pair(e, fd);
    assert_true(tb_io_listen(e->io, "not an address", 1) < 0);
    int l = tb_io_listen(e->io, "127.0.0.1", 0);
    uint16_t port = tb_io_local_port(e->io, l);
    assert_int_equal(tb_io_listen(e->io, "127.0.0.1", port), -EADDRINUSE);
    assert_int_equal(tb_io_socket_close(e->io, l), 0);
    assert_int_equal(connect_to(e, "127.0.0.1", port), -ECONNREFUSED);
}

static void test_cancel_sockets(void **state)
{
    struct env *e = *state;
    int fd[2];
    make_pair(e, fd);
    struct call r, s;
    prepare(&r);
    tb_io_recv(e->io, &r.op, fd[0]);
    tb_io_turn(e->io, false);
    tb_io_cancel(e->io, &r.op);
    tb_io_cancel(e->io, &r.op); /* twice is once */
    assert_int_equal(finish(e, &r), -ECANCELED);
    prepare(&r); /* cancelled before its first turn */
    tb_io_recv(e->io, &r.op, fd[0]);
    tb_io_cancel(e->io, &r.op);
    assert_int_equal(finish(e, &r), -ECANCELED);
    assert_int_equal(r.done, 1);
    /* a send that nobody reads */
    size_t len = 64 << 20;
    char *big = calloc(1, len);
    prepare(&s);
    tb_io_send(e->io, &s.op, fd[0], big, (uint32_t)len);
    for (int i = 0; i < 50; i++)
        tb_io_turn(e->io, false);
    assert_int_equal(s.done, 0);
    tb_io_cancel(e->io, &s.op);
    assert_int_equal(finish(e, &s), -ECANCELED);
    /* the op can be used again at once, and what was cancelled does not hit it */
    prepare(&r);
    tb_io_recv(e->io, &r.op, fd[0]);
    prepare(&s);
    tb_io_send(e->io, &s.op, fd[1], "still", 5);
    assert_int_equal(finish(e, &s), 5);
    assert_int_equal(finish(e, &r), 5);
    close_pair(e, fd);
    free(big);
}

static void test_peer_gone(void **state)
{
    struct env *e = *state;
    int fd[2];
    make_pair(e, fd);
    assert_int_equal(tb_io_socket_close(e->io, fd[1]), 0);
    struct call c;
    int64_t r = 0;
    for (int i = 0; i < 10 && r >= 0; i++) { /* the first may still be taken */
        prepare(&c);
        tb_io_send(e->io, &c.op, fd[0], "x", 1);
        r = finish(e, &c);
    }
    assert_true(r == -EPIPE || r == -ECONNRESET);
    assert_int_equal(tb_io_socket_close(e->io, fd[0]), 0);
}

static void test_recv_ready_data(void **state)
{
    struct env *e = *state;
    int fd[2];
    make_pair(e, fd);
    struct call s;
    char want[3000];
    fill(want, sizeof(want), 11);
    prepare(&s);
    tb_io_send(e->io, &s.op, fd[0], want, sizeof(want));
    assert_int_equal(finish(e, &s), sizeof(want));
    struct sink k = {.op.done = on_bytes, .fd = fd[1], .want = want, .len = sizeof(want)};
    tb_io_recv(e->io, &k.op, fd[1]);
    while (k.got < sizeof(want))
        tb_io_turn(e->io, true);
    tb_io_socket_close(e->io, fd[0]);
    while (!k.ended)
        tb_io_turn(e->io, true);
    tb_io_socket_close(e->io, fd[1]);
}

static void test_unix_socket(void **state)
{
    struct env *e = *state;
    char address[128];
    snprintf(address, sizeof(address), "unix:%s/sock", e->dir);
    int l = tb_io_listen(e->io, address, 0);
    assert_true(l >= 0);
    assert_int_equal(tb_io_listen(e->io, address, 0), -EADDRINUSE); /* somebody listens */
    struct accepts *a = start_accepting(e, l);
    int fd = connect_to(e, address, 0);
    assert_true(fd >= 0);
    while (a->n == 0)
        tb_io_turn(e->io, true);
    char text[64];
    assert_true(tb_io_peer(e->io, a->fds[0], text));
    assert_string_equal(text, "unix");
    stop_accepting(e, a);
    tb_io_socket_close(e->io, fd);
    tb_io_socket_close(e->io, a->fds[0]);
    free(a);
    assert_int_equal(tb_io_socket_close(e->io, l), 0);
    l = tb_io_listen(e->io, address, 0); /* the name was left behind: taken over */
    assert_true(l >= 0);
    tb_io_socket_close(e->io, l);
    if (e->which == SIM)
        return;
    int plain = tb_io_file_open(e->io, path_in(e, "plain"), TB_OPEN_WRITE | TB_OPEN_CREATE);
    tb_io_file_close(e->io, plain);
    snprintf(address, sizeof(address), "unix:%s/plain", e->dir);
    assert_int_equal(tb_io_listen(e->io, address, 0), -EADDRINUSE); /* not a socket: never taken away */
    assert_int_equal(access(path_in(e, "plain"), F_OK), 0);
}

static void test_ipv6(void **state)
{
    struct env *e = *state;
    int l6 = tb_io_listen(e->io, "::1", 0);
    if (l6 == -EADDRNOTAVAIL || l6 == -EAFNOSUPPORT)
        skip(); /* no IPv6 on this machine */
    assert_true(l6 >= 0);
    uint16_t port = tb_io_local_port(e->io, l6);
    int l4 = tb_io_listen(e->io, "127.0.0.1", port); /* v6-only: the same port is free for IPv4 */
    assert_true(l4 >= 0);
    struct accepts *a = start_accepting(e, l6);
    int fd = connect_to(e, "::1", port);
    assert_true(fd >= 0);
    while (a->n == 0)
        tb_io_turn(e->io, true);
    char text[64];
    assert_true(tb_io_peer(e->io, a->fds[0], text));
    assert_string_equal(text, "::1");
    stop_accepting(e, a);
    tb_io_socket_close(e->io, fd);
    tb_io_socket_close(e->io, a->fds[0]);
    tb_io_socket_close(e->io, l6);
    tb_io_socket_close(e->io, l4);
    free(a);
}

/* ---- real kernel and threads only ---- */

static void test_accept_out_of_fds(void **state)
{
    struct env *e = *state;
    int l = tb_io_listen(e->io, "127.0.0.1", 0), s = socket(AF_INET, SOCK_STREAM, 0);
    struct accepts *a = start_accepting(e, l);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(tb_io_local_port(e->io, l)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = (rlim_t)s + 1; /* not one more */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(connect(s, (struct sockaddr *)&to, sizeof(to)), 0);
    while (a->errors == 0)
        tb_io_turn(e->io, true);
    int first = a->errors;
    for (int i = 0; i < 20; i++)
        tb_io_turn(e->io, false);
    assert_true(a->errors <= first + 1); /* it does not spin */
    assert_int_equal(a->n, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    while (a->n == 0)
        tb_io_turn(e->io, true); /* and goes on by itself */
    tb_io_socket_close(e->io, a->fds[0]);
    close(s);
    stop_accepting(e, a);
    tb_io_socket_close(e->io, l);
    free(a);
}

enum { SENDERS = 3, POSTS = 20000 };

struct mail {
    struct tb_op op;
    int sender, number;
};

struct mailbox {
    int next[SENDERS];
    int total;
};

struct sender {
    pthread_t thread;
    enum which which;
    bool own_io;
    struct tb_io *to;
    struct mail *mail;
    struct mailbox *box;
    int number;
};

static void on_mail(struct tb_op *op)
{
    struct mail *m = TB_CONTAINER(op, struct mail, op);
    struct mailbox *b = op->user;
    assert_int_equal(b->next[m->sender], m->number);
    b->next[m->sender]++;
    b->total++;
}

static void on_tick(struct tb_op *op)
{
    struct sender *s = op->user; /* posts from inside a turn, where uring can use its ring */
    for (int i = 0; i < 100 && s->number < POSTS; i++) {
        struct mail *m = &s->mail[s->number];
        *m = (struct mail){.op = {.done = on_mail, .user = s->box}, .sender = m->sender, .number = s->number};
        s->number++;
        tb_io_post(s->own_io ? op->io : NULL, s->to, &m->op);
    }
    if (s->number < POSTS)
        tb_io_timer(op->io, op, s->number % 1000 == 0 ? 100000 : 0);
}

static void *sender_main(void *arg)
{
    struct sender *s = arg;
    struct tb_io *io = NULL;
    struct tb_error err;
    assert_int_equal(tb_io_open(s->which == URING ? TB_IO_URING : TB_IO_POSIX, &io, &err), TB_OK);
    struct tb_op tick = {.done = on_tick, .user = s};
    tb_io_timer(io, &tick, 0);
    while (s->number < POSTS)
        tb_io_turn(io, true);
    tb_io_close(io);
    return NULL;
}

static void test_post_threads(void **state)
{
    struct env *e = *state;
    struct mailbox box = {0};
    struct sender s[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        /* one of them has another kind of io than the receiver */
        enum which other = e->which == URING ? POSIX : URING;
        s[i] = (struct sender){.which = i == 2 ? other : e->which, .own_io = i != 1, .to = e->io, .box = &box};
        s[i].mail = calloc(POSTS, sizeof(struct mail));
        for (int k = 0; k < POSTS; k++)
            s[i].mail[k].sender = i;
        assert_int_equal(pthread_create(&s[i].thread, NULL, sender_main, &s[i]), 0);
    }
    while (box.total < SENDERS * POSTS)
        tb_io_turn(e->io, true);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(s[i].thread, NULL);
        free(s[i].mail);
    }
    assert_int_equal(tb_io_turn(e->io, false), 0);
}

/* Ping-pong of one op between two threads: every post must wake a sleeper. */
struct rally {
    struct tb_op op;
    struct tb_io *side[2];
    int hits;
    bool over[2];
};

static void on_hit(struct tb_op *op)
{
    struct rally *r = TB_CONTAINER(op, struct rally, op);
    int me = op->io == r->side[0] ? 0 : 1;
    if (r->hits >= 4000)
        r->over[me] = true;
    if (r->hits++ <= 4000)
        tb_io_post(r->side[me], r->side[1 - me], op);
}

struct rally_arg {
    struct rally *rally;
    enum which which;
    pthread_barrier_t *ready;
};

static void *rally_main(void *arg)
{
    struct rally_arg *a = arg;
    struct tb_error err;
    assert_int_equal(tb_io_open(a->which == URING ? TB_IO_URING : TB_IO_POSIX, &a->rally->side[1], &err), TB_OK);
    struct tb_io *io = a->rally->side[1];
    pthread_barrier_wait(a->ready);
    while (!a->rally->over[1])
        tb_io_turn(io, true);
    tb_io_close(io);
    return NULL;
}

static void test_post_rally(void **state)
{
    struct env *e = *state;
    struct rally r = {.op.done = on_hit, .side[0] = e->io};
    pthread_barrier_t ready;
    pthread_barrier_init(&ready, NULL, 2);
    struct rally_arg a = {&r, e->which, &ready};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, rally_main, &a), 0);
    pthread_barrier_wait(&ready);
    tb_io_post(e->io, e->io, &r.op);
    while (!r.over[0])
        tb_io_turn(e->io, true);
    pthread_join(t, NULL);
    assert_int_equal(r.hits, 4002);
    pthread_barrier_destroy(&ready);
}

/* A connection accepted by one io and served by another, whose numbers are used again. */
static void test_fd_moves(void **state)
{
    struct env *e = *state;
    struct tb_io *other = NULL;
    struct tb_error err;
    assert_int_equal(tb_io_open(e->which == URING ? TB_IO_URING : TB_IO_POSIX, &other, &err), TB_OK);
    for (int round = 0; round < 20; round++) {
        int fd[2];
        make_pair(e, fd);
        struct tb_io *reader = round % 3 == 2 ? e->io : other, *first = round % 3 == 2 ? other : e->io;
        struct call r, s;
        prepare(&r); /* waits in the first io, and is taken away from there */
        tb_io_recv(first, &r.op, fd[1]);
        tb_io_turn(first, false);
        tb_io_cancel(first, &r.op);
        while (!r.done)
            tb_io_turn(first, true);
        assert_int_equal(r.result, -ECANCELED);
        prepare(&r);
        tb_io_recv(reader, &r.op, fd[1]);
        tb_io_turn(reader, false);
        prepare(&s);
        tb_io_send(e->io, &s.op, fd[0], "moved", 5);
        assert_int_equal(finish(e, &s), 5);
        while (!r.done)
            tb_io_turn(reader, true);
        assert_int_equal(r.result, 5);
        tb_io_socket_close(reader, fd[1]);
        tb_io_socket_close(e->io, fd[0]);
    }
    tb_io_close(other);
}

/* As in a container that forbids io_uring: said plainly, and posix still works. */
static void test_uring_forbidden(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog prog = {TB_ARRAY_LEN(code), code};
        struct tb_io *io = NULL;
        struct tb_error err = {0};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
            _exit(2);
        if (tb_io_open(TB_IO_URING, &io, &err) != TB_IO || io || err.sys != EPERM || err.text[0] == 0)
            _exit(3);
        if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK || strcmp(tb_io_name(io), "posix") != 0)
            _exit(4);
        tb_io_close(io);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define ON(test, kind) \
    { \
#test "/" #kind, test, setup, teardown, &(enum which) \
        { \
            kind \
        } \
    }
#define EVERYWHERE(test) ON(test, URING), ON(test, POSIX), ON(test, SIM)
#define ON_REAL(test) ON(test, URING), ON(test, POSIX)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EVERYWHERE(test_file_round_trip),
        EVERYWHERE(test_file_waiting_forms),
        EVERYWHERE(test_file_errors),
        EVERYWHERE(test_file_direct),
        EVERYWHERE(test_many_file_ops),
        EVERYWHERE(test_names),
        EVERYWHERE(test_timers),
        EVERYWHERE(test_timer_cancel),
        EVERYWHERE(test_turn_without_wait),
        EVERYWHERE(test_offload),
        ON_REAL(test_offload_cancel),
        EVERYWHERE(test_post_self),
        EVERYWHERE(test_ten_megabytes),
        EVERYWHERE(test_accept_many),
        EVERYWHERE(test_socket_facts),
        EVERYWHERE(test_cancel_sockets),
        EVERYWHERE(test_peer_gone),
        EVERYWHERE(test_recv_ready_data),
        EVERYWHERE(test_unix_socket),
        EVERYWHERE(test_ipv6),
        ON_REAL(test_accept_out_of_fds),
        ON_REAL(test_post_threads),
        ON_REAL(test_post_rally),
        ON_REAL(test_fd_moves),
        cmocka_unit_test(test_uring_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
