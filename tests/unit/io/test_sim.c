/*
 * test_sim.c: the simulated world keeps its promises: what was durable survives every cut, what was not can be lost,
 * torn and kept; names too; faults come when ordered; same seed, same run; several ios and clients live in one world.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/io/sim.h"
#include <tambo/io.h>

#define SECTOR 512

struct call {
    struct tb_op op;
    int done;
    int64_t result;
    int order;
    char text[64];
    size_t len;
};

static int done_order;

static void on_done(struct tb_op *op)
{
    struct call *c = TB_CONTAINER(op, struct call, op);
    c->done++;
    c->result = op->result;
    c->order = done_order++;
    if (op->result > 0 && op->data.len > 0) { /* a recv: its bytes end with this call */
        c->len = op->data.len < sizeof(c->text) ? op->data.len : sizeof(c->text);
        memcpy(c->text, op->data.ptr, c->len);
    }
}

static struct call fresh(void)
{
    return (struct call){.op.done = on_done};
}

static char root[64];

static int make_root(void **state)
{
    (void)state;
    snprintf(root, sizeof(root), "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    return where->level == 0 ? 0 : remove(path);
}

static int clear_root(void)
{
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int remove_root(void **state)
{
    (void)state;
    return clear_root() || rmdir(root);
}

static const char *at(const char *name)
{
    static char path[4][128];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", root, name);
    return p;
}

static struct tb_sim *world(uint64_t seed, struct tb_io **io)
{
    assert_int_equal(clear_root(), 0);
    struct tb_sim *sim = tb_sim_new(seed, root);
    assert_non_null(sim);
    *io = tb_sim_io(sim);
    assert_non_null(*io);
    return sim;
}

static int64_t finish(struct tb_io *io, struct call *c)
{
    for (int i = 0; c->done == 0; i++) {
        assert_true(i < 100000);
        tb_io_turn(io, true);
    }
    return c->result;
}

static int make_file(struct tb_io *io, const char *name)
{
    int fd = tb_io_file_open(io, at(name), TB_OPEN_WRITE | TB_OPEN_CREATE);
    assert_true(fd >= 0);
    return fd;
}

static int64_t put(struct tb_io *io, int fd, const void *bytes, uint32_t len, uint64_t offset, bool durable)
{
    struct call c = fresh();
    tb_io_write(io, &c.op, fd, bytes, len, offset, durable);
    return finish(io, &c);
}

static int64_t datasync(struct tb_io *io, int fd)
{
    struct call c = fresh();
    tb_io_datasync(io, &c.op, fd);
    return finish(io, &c);
}

/* The first bytes of a file as they are on the real disk; -1: no file. */
static int64_t look(const char *name, char *out, size_t len)
{
    int fd = open(at(name), O_RDONLY);
    if (fd < 0)
        return -1;
    int64_t n = pread(fd, out, len, 0);
    close(fd);
    return n;
}

static bool exists(const char *name)
{
    return access(at(name), F_OK) == 0;
}

/* ---- bytes ---- */

static void test_unsynced_is_lost_durable_is_not(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(1, &io);
    char b[2048];
    int fd = make_file(io, "f");
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(put(io, fd, "durable", 7, 0, true), 7);
    assert_int_equal(put(io, fd, "DURABLE", 7, 0, false), 7);
    assert_int_equal(put(io, fd, "later", 5, 1000, false), 5);
    assert_true(!tb_sim_is_durable(sim, at("f"), 0, 7));
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("f", b, sizeof(b)), 7);
    assert_memory_equal(b, "durable", 7);
    io = tb_sim_io(sim);
    fd = make_file(io, "f");
    assert_int_equal(put(io, fd, "DURABLE", 7, 0, false), 7);
    assert_int_equal(datasync(io, fd), 0);
    assert_true(tb_sim_is_durable(sim, at("f"), 0, 7));
    assert_false(tb_sim_is_durable(sim, at("f"), 0, 8));
    assert_int_equal(put(io, fd, "more", 4, 600, false), 4);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("f", b, sizeof(b)), 7);
    assert_memory_equal(b, "DURABLE", 7);
    io = tb_sim_io(sim);
    fd = make_file(io, "f");
    assert_int_equal(put(io, fd, "kept", 4, 600, false), 4);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_ALL), 0);
    assert_int_equal(look("f", b, sizeof(b)), 604);
    assert_memory_equal(b + 600, "kept", 4);
    tb_sim_free(sim);
}

static void test_sync_covers_others_writes(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(2, &io);
    char b[16];
    int lib = open(at("db"), O_RDWR | O_CREAT, 0600); /* as LMDB does: behind our back */
    assert_int_equal(pwrite(lib, "page", 4, 0), 4);
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(datasync(io, lib), 0); /* by the library's own descriptor */
    assert_int_equal(pwrite(lib, "PAGE", 4, 0), 4);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("db", b, 4), 4);
    assert_memory_equal(b, "page", 4);
    assert_int_equal(pwrite(lib, "dead", 4, 0), 4); /* the dead process writes into nothing */
    assert_int_equal(look("db", b, 4), 4);
    assert_memory_equal(b, "page", 4);
    close(lib);
    tb_sim_free(sim);
}

/* A sync vouches for what was there when it was submitted, no more. */
static void test_sync_covers_the_past_only(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(3, &io);
    char b[8];
    int fd = make_file(io, "f");
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(put(io, fd, "before", 6, 0, false), 6);
    struct call s = fresh();
    tb_sim_latency(sim, 1000000, 1000000);
    tb_io_datasync(io, &s.op, fd);
    tb_sim_latency(sim, 1, 1);
    assert_int_equal(put(io, fd, "AFTER!", 6, 0, false), 6);
    assert_int_equal(s.done, 0);
    assert_int_equal(finish(io, &s), 0);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("f", b, 6), 6);
    assert_memory_equal(b, "before", 6);
    tb_sim_free(sim);
}

static void test_old_sync_brings_nothing_back(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(4, &io);
    char b[8];
    int fd = make_file(io, "f");
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    for (int with_sync = 0; with_sync < 2; with_sync++) {
        assert_int_equal(put(io, fd, "old", 3, 0, false), 3);
        struct call s = fresh();
        tb_sim_latency(sim, 1000000, 1000000);
        tb_io_datasync(io, &s.op, fd);
        tb_sim_latency(sim, 1, 1);
        assert_int_equal(put(io, fd, "new", 3, 0, !with_sync), 3);
        if (with_sync)
            assert_int_equal(datasync(io, fd), 0);
        assert_int_equal(s.done, 0);
        assert_int_equal(finish(io, &s), 0);
        assert_true(tb_sim_is_durable(sim, at("f"), 0, 3));
    }
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("f", b, 3), 3);
    assert_memory_equal(b, "new", 3);
    tb_sim_free(sim);
}

/* How many of n sectors hold the byte. */
static int count_sectors(const char *b, int64_t len, char want, bool *whole)
{
    int n = 0;
    for (int64_t o = 0; o + SECTOR <= len; o += SECTOR) {
        n += b[o] == want;
        for (int i = 1; i < SECTOR; i++)
            *whole &= b[o + i] == b[o];
    }
    return n;
}

static void test_torn_writes(void **state)
{
    enum { SECTORS = 16, LEN = SECTORS * SECTOR };
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    (void)state;
    for (size_t m = 0; m < 4; m++) {
        int none = 0, all = 0, torn = 0;
        for (uint64_t seed = 0; seed < 60; seed++) {
            struct tb_io *io;
            struct tb_sim *sim = world(seed, &io);
            char b[LEN], old[LEN], in[LEN];
            memset(old, 'o', LEN);
            memset(in, 'n', LEN);
            int fd = make_file(io, "f");
            assert_int_equal(tb_io_sync_dir(io, root), 0);
            assert_int_equal(put(io, fd, old, LEN, 0, true), LEN);
            struct call c = fresh();
            tb_io_write(io, &c.op, fd, in, LEN, 0, m < 2);
            if (m >= 2) /* finished, but not durable */
                assert_int_equal(finish(io, &c), LEN);
            assert_int_equal(tb_sim_power_cut(sim, modes[m % 2]), 0);
            assert_int_equal(c.done, m >= 2);
            assert_int_equal(look("f", b, LEN), LEN);
            bool whole = true;
            int n = count_sectors(b, LEN, 'n', &whole);
            assert_true(whole); /* a sector is the old one or the new one */
            assert_int_equal(n + count_sectors(b, LEN, 'o', &whole), SECTORS);
            none += n == 0;
            all += n == SECTORS;
            torn += n > 0 && n < SECTORS;
            tb_sim_free(sim);
        }
        assert_true(torn > 10);
        if (modes[m % 2] == TB_SIM_CUT_RANDOM)
            assert_true(none > 0);
        assert_true(all < 50);
    }
}

static void test_trash(void **state)
{
    (void)state;
    int strange = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct tb_io *io;
        struct tb_sim *sim = world(seed, &io);
        char b[8192], old[8192], in[4096];
        memset(old, 'o', sizeof(old));
        memset(in, 'n', sizeof(in));
        int fd = make_file(io, "f");
        assert_int_equal(tb_io_sync_dir(io, root), 0);
        assert_int_equal(put(io, fd, old, sizeof(old), 0, true), sizeof(old));
        struct call c = fresh();
        tb_io_write(io, &c.op, fd, in, sizeof(in), 4096, true);
        assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_TRASH), 0);
        assert_int_equal(look("f", b, sizeof(b)), sizeof(b));
        assert_memory_equal(b, old, 4096); /* what was not being written is as it was */
        for (size_t i = 4096; i < sizeof(b); i += SECTOR)
            strange += b[i] != 'o' && b[i] != 'n';
        tb_sim_free(sim);
    }
    assert_true(strange > 10);
}

/* ---- the property: durable bytes survive any cut ---- */

enum { P_SECTORS = 32, P_FLIGHT = 6, P_BYTES = P_SECTORS * SECTOR };

struct flight {
    struct tb_op op;
    bool busy, sync, durable;
    unsigned first, n;          /* sectors written */
    uint32_t version;           /* written there */
    uint32_t covers[P_SECTORS]; /* a sync: what had finished when it was submitted */
    char bytes[8 * SECTOR];
    struct model *model;
};

struct model {
    struct flight flight[P_FLIGHT];
    uint32_t submitted[P_SECTORS], finished[P_SECTORS], promised[P_SECTORS];
    bool writing[P_SECTORS];
    uint32_t version;
};

static void on_flight(struct tb_op *op)
{
    struct flight *f = TB_CONTAINER(op, struct flight, op);
    struct model *m = f->model;
    assert_true(op->result >= 0);
    f->busy = false;
    for (unsigned s = 0; s < P_SECTORS; s++) {
        if (f->sync && m->promised[s] < f->covers[s])
            m->promised[s] = f->covers[s];
        if (f->sync || s < f->first || s >= f->first + f->n)
            continue;
        m->writing[s] = false;
        m->finished[s] = f->version;
        if (f->durable)
            m->promised[s] = f->version;
    }
}

static void start_flight(struct tb_sim *sim, struct tb_io *io, struct model *m, struct flight *f, int fd)
{
    f->op = (struct tb_op){.done = on_flight};
    f->model = m;
    f->sync = tb_sim_choose(sim, 4) == 0;
    if (f->sync) {
        f->busy = true;
        memcpy(f->covers, m->finished, sizeof(f->covers));
        tb_io_datasync(io, &f->op, fd);
        return;
    }
    f->first = (unsigned)tb_sim_choose(sim, P_SECTORS);
    f->n = 1 + (unsigned)tb_sim_choose(sim, 8);
    if (f->first + f->n > P_SECTORS)
        f->n = P_SECTORS - f->first;
    for (unsigned s = f->first; s < f->first + f->n; s++) {
        if (m->writing[s])
            return; /* two writes at once to one place promise nothing */
    }
    f->busy = true;
    f->durable = tb_sim_choose(sim, 2);
    f->version = ++m->version;
    for (unsigned s = f->first; s < f->first + f->n; s++) {
        m->writing[s] = true;
        m->submitted[s] = f->version;
        for (unsigned i = 0; i < SECTOR; i += 4)
            memcpy(f->bytes + (size_t)(s - f->first) * SECTOR + i, &f->version, 4);
    }
    tb_io_write(io, &f->op, fd, f->bytes, f->n * SECTOR, (uint64_t)f->first * SECTOR, f->durable);
}

/* After a cut: how many sectors are older than promised. A sector of two versions fails at once. */
static int count_broken(const struct model *m)
{
    static char b[P_BYTES];
    memset(b, 0, sizeof(b));
    assert_true(look("f", b, sizeof(b)) >= 0);
    int broken = 0;
    for (unsigned s = 0; s < P_SECTORS; s++) {
        uint32_t first, v;
        memcpy(&first, b + (size_t)s * SECTOR, 4);
        for (unsigned i = 4; i < SECTOR; i += 4) {
            memcpy(&v, b + (size_t)s * SECTOR + i, 4);
            assert_int_equal(v, first);
        }
        assert_true(first <= m->submitted[s]);
        broken += first < m->promised[s];
    }
    return broken;
}

static int property_run(uint64_t seed, enum tb_sim_cut mode, bool lie_durable, bool lie_sync, uint64_t *digest)
{
    struct tb_io *io;
    struct tb_sim *sim = world(seed, &io);
    struct model *m = calloc(1, sizeof(*m));
    int fd = make_file(io, "f");
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    tb_sim_split(sim, seed % 2);
    tb_sim_lie(sim, lie_durable, lie_sync);
    for (uint64_t steps = 5 + tb_sim_choose(sim, 80); steps > 0; steps--) {
        struct flight *f = &m->flight[tb_sim_choose(sim, P_FLIGHT)];
        if (f->busy)
            tb_io_turn(io, true);
        else
            start_flight(sim, io, m, f, fd);
    }
    assert_int_equal(tb_sim_power_cut(sim, mode), 0);
    int broken = count_broken(m);
    if (digest)
        *digest = tb_sim_digest(sim);
    tb_sim_free(sim);
    free(m);
    return broken;
}

static void test_durable_survives(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++)
        assert_int_equal(property_run(seed, (enum tb_sim_cut)(seed % 4), false, false, NULL), 0);
}

/* The same check finds a disk that lies, so it is a check. */
static void test_lies_are_found(void **state)
{
    (void)state;
    int durable = 0, sync = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        durable += property_run(seed, TB_SIM_CUT_NONE, true, false, NULL) > 0;
        sync += property_run(seed, TB_SIM_CUT_RANDOM, false, true, NULL) > 0;
    }
    assert_true(durable > 10);
    assert_true(sync > 10);
}

static void test_same_seed_same_run(void **state)
{
    (void)state;
    uint64_t first, again, other;
    for (uint64_t seed = 100; seed < 110; seed++) {
        property_run(seed, TB_SIM_CUT_RANDOM, false, false, &first);
        char b1[P_BYTES] = {0}, b2[P_BYTES] = {0};
        int64_t n1 = look("f", b1, sizeof(b1));
        int unused = open("/dev/null", O_RDONLY); /* other descriptors, other inodes: no difference */
        property_run(seed, TB_SIM_CUT_RANDOM, false, false, &again);
        close(unused);
        assert_int_equal(n1, look("f", b2, sizeof(b2)));
        assert_memory_equal(b1, b2, sizeof(b1));
        assert_true(first == again);
        property_run(seed + 1000, TB_SIM_CUT_RANDOM, false, false, &other);
        assert_true(first != other);
    }
}

/* ---- names ---- */

static void test_names_need_sync_dir(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(5, &io);
    assert_int_equal(tb_io_mkdir(io, at("d")), 0);
    int fd = make_file(io, "d/f");
    assert_int_equal(put(io, fd, "x", 1, 0, true), 1);
    assert_int_equal(tb_io_sync_dir(io, at("d")), 0);
    assert_false(tb_sim_is_durable(sim, at("d/f"), 0, 1)); /* the folder's own name is not */
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_false(exists("d"));
    io = tb_sim_io(sim);
    assert_int_equal(tb_io_mkdir(io, at("d")), 0);
    fd = make_file(io, "d/f");
    assert_int_equal(put(io, fd, "x", 1, 0, true), 1);
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_true(exists("d"));
    assert_false(exists("d/f")); /* its bytes were durable, its name was not */
    io = tb_sim_io(sim);
    fd = make_file(io, "d/f");
    assert_int_equal(put(io, fd, "x", 1, 0, true), 1);
    assert_int_equal(tb_io_sync_dir(io, at("d")), 0);
    assert_true(tb_sim_is_durable(sim, at("d/f"), 0, 1));
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_true(exists("d/f"));
    io = tb_sim_io(sim);
    assert_int_equal(tb_io_unlink(io, at("d/f")), 0);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    char b[4];
    assert_int_equal(look("d/f", b, 4), 1); /* back again, with its byte */
    assert_int_equal(b[0], 'x');
    tb_sim_free(sim);
}

static void test_renames(void **state)
{
    (void)state;
    int olds = 0, news = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct tb_io *io;
        struct tb_sim *sim = world(seed, &io);
        char b[4];
        int old = make_file(io, "current"), new = make_file(io, "current.new");
        assert_int_equal(put(io, old, "1", 1, 0, true), 1);
        assert_int_equal(put(io, new, "2", 1, 0, true), 1);
        assert_int_equal(tb_io_sync_dir(io, root), 0);
        assert_int_equal(tb_io_rename(io, at("current.new"), at("current")), 0);
        if (seed % 3 == 0)
            assert_int_equal(tb_io_sync_dir(io, root), 0);
        assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_RANDOM), 0);
        assert_int_equal(look("current", b, 4), 1); /* one of the two, never none */
        assert_int_equal(b[0] == '1', exists("current.new"));
        if (seed % 3 == 0)
            assert_int_equal(b[0], '2');
        else
            *(b[0] == '1' ? &olds : &news) += 1;
        tb_sim_free(sim);
    }
    assert_true(olds > 5 && news > 5);
}

static void test_rename_between_folders(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(6, &io);
    assert_int_equal(tb_io_mkdir(io, at("a")), 0);
    assert_int_equal(tb_io_mkdir(io, at("b")), 0);
    assert_int_equal(tb_io_mkdir(io, at("a/sub")), 0);
    int fd = make_file(io, "a/sub/f");
    assert_int_equal(put(io, fd, "x", 1, 0, true), 1);
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(tb_io_sync_dir(io, at("a")), 0);
    assert_int_equal(tb_io_sync_dir(io, at("a/sub")), 0);
    assert_int_equal(tb_io_rename(io, at("a/sub"), at("b/sub")), 0);
    assert_int_equal(tb_io_sync_dir(io, at("b")), 0); /* as a whole, though only one side was synced */
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_true(exists("b/sub/f"));
    assert_false(exists("a/sub"));
    tb_sim_free(sim);
}

static void test_cut_of_nothing_changes_nothing(void **state)
{
    (void)state;
    for (int mode = TB_SIM_CUT_NONE; mode <= TB_SIM_CUT_TRASH; mode++) {
        struct tb_io *io;
        struct tb_sim *sim = world(7, &io);
        char b[5000] = {0}, big[5000];
        memset(big, 'b', sizeof(big));
        int fd = make_file(io, "f");
        assert_int_equal(put(io, fd, big, sizeof(big), 0, true), sizeof(big));
        assert_int_equal(tb_io_sync_dir(io, root), 0);
        for (int round = 0; round < 3; round++) {
            assert_int_equal(tb_sim_power_cut(sim, (enum tb_sim_cut)mode), 0);
            assert_int_equal(look("f", b, sizeof(b)), sizeof(b));
            assert_memory_equal(b, big, sizeof(b));
        }
        tb_sim_free(sim);
    }
}

/* ---- faults ---- */

static void test_faults(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(8, &io);
    int fd = make_file(io, "f");
    assert_int_equal(put(io, fd, "a", 1, 0, true), 1);
    tb_sim_fail_nth(sim, TB_SIM_DURABLE, 2, EIO, false);
    assert_int_equal(put(io, fd, "b", 1, 0, true), 1);
    assert_int_equal(put(io, fd, "c", 1, 0, false), 1); /* another kind does not count */
    assert_int_equal(put(io, fd, "c", 1, 0, true), -EIO);
    assert_int_equal(put(io, fd, "d", 1, 0, true), 1);
    assert_int_equal(tb_sim_count(sim, TB_SIM_DURABLE), 4);
    tb_sim_fail_nth(sim, TB_SIM_WRITE, 1, ENOSPC, true);
    assert_int_equal(put(io, fd, "e", 1, 0, false), -ENOSPC);
    assert_int_equal(tb_io_pwrite(io, fd, "e", 1, 0), -ENOSPC);
    tb_sim_fail_nth(sim, TB_SIM_WRITE, 0, 0, false);
    assert_int_equal(tb_io_pwrite(io, fd, "e", 1, 0), 1);
    tb_sim_fail_nth(sim, TB_SIM_OPEN, 1, EMFILE, false);
    assert_int_equal(tb_io_file_open(io, at("f"), TB_OPEN_READ), -EMFILE);
    tb_sim_fail_nth(sim, TB_SIM_RESERVE, 1, ENOSPC, false);
    assert_int_equal(tb_io_file_reserve(io, fd, 4096), -ENOSPC);
    tb_sim_fail_nth(sim, TB_SIM_NAMES, 1, EIO, false);
    assert_int_equal(tb_io_unlink(io, at("f")), -EIO);
    tb_sim_fail_nth(sim, TB_SIM_SYNC_DIR, 1, EIO, false);
    assert_int_equal(tb_io_sync_dir(io, root), -EIO);
    char b[1];
    tb_sim_fail_nth(sim, TB_SIM_READ, 1, EIO, false);
    assert_int_equal(tb_io_pread(io, fd, b, 1, 0), -EIO);
    assert_int_equal(tb_io_file_open(io, "/etc/passwd", TB_OPEN_READ), -EACCES);
    assert_int_equal(tb_io_file_close(io, fd), 0);
    tb_sim_free(sim);
}

/* After a failed sync the next one succeeds and is worth nothing for the old bytes. */
static void test_failed_sync_is_final(void **state)
{
    (void)state;
    int lost = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct tb_io *io;
        struct tb_sim *sim = world(seed, &io);
        char b[16384], in[16384];
        memset(in, 'n', sizeof(in));
        int fd = make_file(io, "f");
        assert_int_equal(tb_io_sync_dir(io, root), 0);
        assert_int_equal(put(io, fd, in, sizeof(in), 0, false), sizeof(in));
        tb_sim_fail_nth(sim, TB_SIM_SYNC, 1, EIO, false);
        assert_int_equal(datasync(io, fd), -EIO);
        assert_int_equal(put(io, fd, "fresh", 5, sizeof(in), false), 5);
        assert_int_equal(datasync(io, fd), 0);
        assert_true(tb_sim_is_durable(sim, at("f"), sizeof(in), 5)); /* new bytes are written as ever */
        lost += !tb_sim_is_durable(sim, at("f"), 0, sizeof(in));
        assert_int_equal(look("f", b, sizeof(b)), sizeof(b)); /* and in the cache all looks well */
        assert_memory_equal(b, in, sizeof(b));
        tb_sim_free(sim);
    }
    assert_true(lost > 10);
}

static void test_flip_bit(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(9, &io);
    char b[3];
    int fd = make_file(io, "f");
    assert_int_equal(put(io, fd, "abc", 3, 0, true), 3);
    assert_int_equal(tb_io_sync_dir(io, root), 0);
    assert_int_equal(tb_sim_flip_bit(sim, at("f"), 1, 0), 0);
    assert_int_equal(tb_sim_flip_bit(sim, at("f"), 3, 0), -ERANGE);
    assert_int_equal(tb_io_pread(io, fd, b, 3, 0), 3);
    assert_memory_equal(b, "acc", 3);
    assert_int_equal(tb_sim_power_cut(sim, TB_SIM_CUT_NONE), 0);
    assert_int_equal(look("f", b, 3), 3);
    assert_memory_equal(b, "acc", 3);
    tb_sim_free(sim);
}

static void test_direct_wants_alignment(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(10, &io);
    int fd = tb_io_file_open(io, at("f"), TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_DIRECT);
    char *buf = aligned_alloc(4096, 8192);
    memset(buf, 0, 8192);
    assert_int_equal(put(io, fd, buf, 4096, 0, true), 4096);
    assert_int_equal(put(io, fd, buf, 4096, 512, true), -EINVAL);
    assert_int_equal(put(io, fd, buf, 100, 0, true), -EINVAL);
    assert_int_equal(put(io, fd, buf + 512, 4096, 0, true), -EINVAL);
    free(buf);
    tb_sim_free(sim);
}

/* ---- processes ---- */

static void test_restart(void **state)
{
    (void)state;
    int happened = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct tb_io *io;
        struct tb_sim *sim = world(seed, &io);
        char b[8];
        int fd = make_file(io, "f");
        assert_int_equal(tb_io_lock(io, fd), 0);
        assert_int_equal(put(io, fd, "cached", 6, 0, false), 6);
        struct call c = fresh(), timer = fresh();
        tb_io_write(io, &c.op, fd, "flight", 6, 0, true);
        tb_io_timer(io, &timer.op, 1000);
        int l = tb_io_listen(io, "127.0.0.1", 25);
        struct call a = fresh();
        tb_io_accept(io, &a.op, l);
        tb_sim_restart(sim);
        /* the dead process's memory is taken down: nothing happens, nothing fails */
        tb_io_cancel(io, &c.op);
        tb_io_cancel(io, &timer.op);
        tb_io_cancel(io, &a.op);
        tb_io_timer(io, &timer.op, 1);
        tb_io_cancel(io, &timer.op);
        assert_int_equal(tb_io_turn(io, true), 0);
        assert_int_equal(tb_io_file_close(io, fd), 0);
        assert_int_equal(tb_io_socket_close(io, l), 0);
        assert_true(tb_io_file_open(io, at("f"), TB_OPEN_READ) < 0);
        assert_int_equal(c.done + timer.done + a.done, 0);
        tb_io_close(io);
        io = tb_sim_io(sim);
        fd = make_file(io, "f");
        assert_int_equal(tb_io_lock(io, fd), 0); /* the lock died with its holder */
        assert_int_equal(look("f", b, 6), 6);
        assert_true(memcmp(b, "cached", 6) == 0 || memcmp(b, "flight", 6) == 0);
        happened += b[0] == 'f';
        assert_true(tb_io_listen(io, "127.0.0.1", 25) >= 0);
        tb_sim_free(sim);
    }
    assert_true(happened > 2 && happened < 18);
}

static void test_clock(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(11, &io);
    uint64_t began = tb_sim_now_ns(sim);
    assert_int_equal(tb_io_turn(io, true), 0); /* nothing to wait for */
    assert_int_equal(tb_sim_turn(sim), 0);
    assert_true(tb_sim_now_ns(sim) == began);
    struct call t = fresh();
    tb_io_timer(io, &t.op, 3600000000000u);
    assert_int_equal(tb_io_turn(io, false), 0);
    tb_sim_advance(sim, 3599999999999u);
    assert_int_equal(tb_io_turn(io, false), 0);
    tb_sim_advance(sim, 1);
    assert_int_equal(tb_io_turn(io, false), 1);
    assert_int_equal(t.done, 1);
    tb_sim_set_wall(sim, 5000);
    assert_int_equal(tb_io_wall_s(io), 5000);
    tb_sim_advance(sim, 2000000000u);
    assert_int_equal(tb_io_wall_s(io), 5002);
    char a[16], b[16];
    tb_io_random(io, a, sizeof(a));
    tb_io_random(io, b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    tb_sim_free(sim);
}

static void test_completions_change_places(void **state)
{
    (void)state;
    int swapped = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct tb_io *io;
        struct tb_sim *sim = world(seed, &io);
        int fd = make_file(io, "f");
        struct call a = fresh(), b = fresh();
        tb_io_write(io, &a.op, fd, "a", 1, 0, false);
        tb_io_write(io, &b.op, fd, "b", 1, 1000, false);
        finish(io, &a);
        finish(io, &b);
        swapped += b.order < a.order;
        tb_sim_free(sim);
    }
    assert_true(swapped > 3 && swapped < 17);
}

static void test_workers_and_posts(void **state)
{
    enum { N = 50 };
    (void)state;
    struct tb_io *io[3];
    struct tb_sim *sim = world(12, &io[0]);
    io[1] = tb_sim_io(sim);
    io[2] = tb_sim_io(sim);
    struct call *c = calloc(2 * N, sizeof(*c));
    for (int i = 0; i < 2 * N; i++) {
        c[i] = fresh();
        tb_io_post(io[i % 2], io[2], &c[i].op);
    }
    while (tb_sim_turn(sim) > 0)
        ;
    for (int i = 0; i < 2 * N; i++) {
        assert_int_equal(c[i].done, 1);
        assert_ptr_equal(c[i].op.io, io[2]);
        if (i >= 2)
            assert_true(c[i].order > c[i - 2].order);
    }
    free(c);
    tb_sim_free(sim);
}

/* ---- network ---- */

struct accepted {
    struct tb_op op;
    int fd[8];
    int n, errors;
};

static void on_accept(struct tb_op *op)
{
    struct accepted *a = TB_CONTAINER(op, struct accepted, op);
    if (op->result >= 0)
        a->fd[a->n++] = (int)op->result;
    else
        a->errors++;
}

static void test_clients(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(13, &io);
    assert_int_equal(tb_sim_connect(sim, "127.0.0.1", 143), -ECONNREFUSED);
    int l = tb_io_listen(io, "127.0.0.1", 143);
    struct accepted a = {.op.done = on_accept};
    tb_io_accept(io, &a.op, l);
    tb_sim_fail_nth(sim, TB_SIM_ACCEPT, 1, EMFILE, false);
    int c1 = tb_sim_connect(sim, "127.0.0.1", 143), c2 = tb_sim_connect_from(sim, "127.0.0.1", 143, "192.0.2.7");
    while (a.n < 2)
        assert_true(tb_io_turn(io, true) > 0);
    assert_int_equal(a.errors, 1);
    char text[64], b[64];
    assert_true(tb_io_peer(io, a.fd[0], text));
    assert_false(tb_io_peer(io, a.fd[1], text));
    assert_string_equal(text, "192.0.2.7");
    struct call r = fresh(), s = fresh();
    tb_io_recv(io, &r.op, a.fd[0]);
    assert_int_equal(tb_io_turn(io, true), 0); /* silence */
    assert_int_equal(tb_sim_client_send(sim, c1, "a1 NOOP\r\n", 9), 0);
    assert_int_equal(finish(io, &r), 9);
    assert_memory_equal(r.text, "a1 NOOP\r\n", 9);
    assert_int_equal(tb_sim_client_recv(sim, c1, b, sizeof(b)), -EAGAIN);
    tb_io_send(io, &s.op, a.fd[0], "a1 OK\r\n", 7);
    assert_int_equal(finish(io, &s), 7);
    assert_int_equal(tb_sim_client_recv(sim, c1, b, sizeof(b)), 7);
    /* a client that does not read */
    tb_sim_client_window(sim, c1, 4);
    s = fresh();
    tb_io_send(io, &s.op, a.fd[0], "0123456789", 10);
    tb_io_turn(io, true);
    assert_int_equal(s.done, 0);
    assert_int_equal(tb_sim_client_recv(sim, c1, b, sizeof(b)), 4);
    tb_io_turn(io, true);
    assert_int_equal(tb_sim_client_recv(sim, c1, b, sizeof(b)), 4);
    assert_int_equal(finish(io, &s), 10);
    /* ends: in peace, by reset, by the server */
    r = fresh();
    tb_io_recv(io, &r.op, a.fd[0]);
    tb_sim_client_close(sim, c1, false);
    assert_int_equal(finish(io, &r), 0);
    r = fresh();
    tb_io_recv(io, &r.op, a.fd[1]);
    tb_sim_client_close(sim, c2, true);
    assert_int_equal(finish(io, &r), -ECONNRESET);
    s = fresh();
    tb_io_send(io, &s.op, a.fd[1], "x", 1);
    assert_int_equal(finish(io, &s), -ECONNRESET);
    c1 = tb_sim_connect(sim, "127.0.0.1", 143);
    while (a.n < 3)
        assert_true(tb_io_turn(io, true) > 0);
    assert_int_equal(tb_io_socket_close(io, a.fd[2]), 0);
    assert_int_equal(tb_sim_client_recv(sim, c1, b, sizeof(b)), 0);
    assert_int_equal(tb_sim_client_send(sim, c1, "x", 1), -EPIPE);
    tb_sim_free(sim);
}

static void test_split_receives(void **state)
{
    (void)state;
    struct tb_io *io;
    struct tb_sim *sim = world(14, &io);
    int l = tb_io_listen(io, "unix:/run/x", 0), pieces = 0;
    struct accepted a = {.op.done = on_accept};
    tb_io_accept(io, &a.op, l);
    int c = tb_sim_connect(sim, "unix:/run/x", 0);
    tb_sim_split(sim, true);
    char all[1000], got[1000];
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)(i * 7);
    while (a.n == 0)
        assert_true(tb_io_turn(io, true) > 0);
    assert_int_equal(tb_sim_client_send(sim, c, all, 40), 0);
    for (int64_t n = 0; n < 40; pieces++) {
        struct call r = fresh();
        tb_io_recv(io, &r.op, a.fd[0]);
        int64_t len = finish(io, &r);
        assert_true(len > 0 && n + len <= 40);
        memcpy(got + n, r.text, (size_t)len);
        n += len;
    }
    assert_memory_equal(all, got, 40);
    assert_true(pieces > 1);
    tb_sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsynced_is_lost_durable_is_not),
        cmocka_unit_test(test_sync_covers_others_writes),
        cmocka_unit_test(test_sync_covers_the_past_only),
        cmocka_unit_test(test_old_sync_brings_nothing_back),
        cmocka_unit_test(test_torn_writes),
        cmocka_unit_test(test_trash),
        cmocka_unit_test(test_durable_survives),
        cmocka_unit_test(test_lies_are_found),
        cmocka_unit_test(test_same_seed_same_run),
        cmocka_unit_test(test_names_need_sync_dir),
        cmocka_unit_test(test_renames),
        cmocka_unit_test(test_rename_between_folders),
        cmocka_unit_test(test_cut_of_nothing_changes_nothing),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_failed_sync_is_final),
        cmocka_unit_test(test_flip_bit),
        cmocka_unit_test(test_direct_wants_alignment),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_completions_change_places),
        cmocka_unit_test(test_workers_and_posts),
        cmocka_unit_test(test_clients),
        cmocka_unit_test(test_split_receives),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
