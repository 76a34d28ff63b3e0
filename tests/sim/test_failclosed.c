/*
 * test_failclosed.c: writes, syncs and reads of the store's disk fail at random moments, once or for a while. The shard
 * they hit goes down, the others serve, and it comes back by itself from what is on the disk (R7).
 *
 * Four clients, two in each shard, deliver to their INBOX and delete from it. The model knows of each message whether
 * it must be there, must not be, or may be (an operation that was answered IO). Checked when every shard serves again,
 * and once more after a power cut that takes everything that is not durable: what was acknowledged is there exactly
 * once, what was deleted stays away, no UID is given twice. One fault takes down one shard at most.
 *
 * Usage: test_failclosed [SEED [COUNT]]. A failure prints its seed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/mailbox.h>
#include "engine/io/sim.h"

enum { SHARDS = 2, CLIENTS = 4, MESSAGES_MAX = 3000, ROUNDS = 12, BACK_TURNS = 400000, ROTTEN_MAX = 16 };

enum fate { THERE, MAYBE, GONE };
struct msg {
    uint32_t uid, seed; /* uid 0: not known */
    enum fate fate;
};
struct client {
    struct world *x;
    struct tb_account_id id;
    struct msg v[MESSAGES_MAX];
    size_t n, at; /* at: of the operation under way */
    uint32_t uid_max;
    bool busy;
    struct tb_op op;
    struct tb_delivery_target target;
    struct tb_account *account;
};
struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io[SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SHARDS];
    struct client client[CLIENTS];
    uint32_t seed;
    unsigned failed[SHARDS], failures; /* since the last fault; in all */
    uint64_t ops, refused;
    uint64_t rotten[ROTTEN_MAX]; /* bytes of the index of shard 1 that rotted below the page cache */
    unsigned rotten_n;
    bool rots; /* they do when the shard fails */
    char wrong[300];
};

/* A process that loses its power frees nothing: what it had under way is no leak. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0";
}

static unsigned long first_seed = 1, seed_count = 10;

static void wrong(struct world *x, const char *what)
{
    if (x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "%s", what);
}

static void turn(struct world *x)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        n += tb_worker_turn(x->w[i], false);
    if (n == 0)
        (void)tb_worker_turn(x->w[0], true);
}

#define KNOTS "a name that nothing else looks like"

/* rot: wherever the index of shard 1 has that name, the first byte behind it, on the disk alone. */
static void rot(struct world *x)
{
    char path[128], *bytes = NULL;
    (void)snprintf(path, sizeof(path), "%s/shard-01/index.mdb", x->dir);
    FILE *f = fopen(path, "rb");
    size_t size = 0, cap = 0;
    for (size_t n = 1; f && n > 0; size += n) {
        cap += 1 << 16;
        bytes = realloc(bytes, cap);
        assert_non_null(bytes);
        n = fread(bytes + size, 1, cap - size, f);
    }
    assert_non_null(f);
    (void)fclose(f); /* read only */
    for (char *at = bytes; x->rotten_n < ROTTEN_MAX; at++) {
        at = memmem(at, size - (size_t)(at - bytes), KNOTS, sizeof(KNOTS) - 1);
        if (!at)
            break;
        uint64_t place = (uint64_t)(at - bytes) + sizeof(KNOTS) - 1;
        if (tb_sim_is_durable(x->sim, path, place, 1)) {
            assert_int_equal(tb_sim_rot_below(x->sim, path, place, 0), 0);
            x->rotten[x->rotten_n++] = place;
        }
    }
    free(bytes);
}

static void shard_failed(void *user, struct tb_worker *w, uint32_t shard, const struct tb_error *err)
{
    struct world *x = user;
    (void)w;
    (void)err;
    if (x->rots && shard == 1)
        rot(x);
    x->rots = x->rots && shard != 1;
    x->failed[shard]++;
    x->failures++;
}

static bool serving(struct world *x)
{
    bool all = true;
    for (uint32_t i = 0; i < SHARDS; i++)
        all = all && tb_store_serves(x->store, (struct tb_account_id){.shard = i});
    return all;
}

static bool world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = x->dir,
                                  .workers = SHARDS,
                                  .checkpoint_log_bytes = 128 << 10,
                                  .checkpoint_ms = 20,
                                  .failed = shard_failed,
                                  .user = x};
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    x->store = NULL;
    memset(x->w, 0, sizeof(x->w));
    enum tb_rc rc = tb_store_open(x->io[0], &cfg, &x->store, &err);
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++)
        rc = tb_worker_open(x->store, i, x->io[i], &x->w[i], &err);
    if (rc != TB_OK) {
        char text[300];
        (void)snprintf(text, sizeof(text), "recovery refused: %.200s", err.text);
        wrong(x, text);
        return false;
    }
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_started(x->w[i]);
    return true;
}

/* ---- operations ---- */

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void settled(struct client *c, enum tb_rc rc, enum fate good)
{
    struct msg *m = &c->v[c->at];
    c->busy = false;
    if (rc == TB_OK)
        m->fate = good;
    else if (rc == TB_IO)
        m->fate = MAYBE; /* the outcome is unknown until the shard is back */
    else if (good == THERE)
        m->fate = GONE; /* refused: not stored */
    c->x->refused += rc != TB_OK;
    if (c->account != NULL)
        tb_account_close(c->account);
    c->account = NULL;
}

static void delivered(struct tb_op *op)
{
    struct client *c = op->user;
    if (op->rc == TB_OK) {
        if (c->target.uid <= c->uid_max)
            wrong(c->x, "a UID was given twice");
        c->uid_max = c->target.uid;
        c->v[c->at].uid = c->target.uid;
    }
    settled(c, op->rc, THERE);
}

static void deleted(struct tb_op *op)
{
    struct client *c = op->user;
    settled(c, op->rc, GONE);
}

static void start_delivery(struct client *c)
{
    struct world *x = c->x;
    struct tb_delivery *d;
    char text[6000];
    size_t n = 100 + tb_sim_choose(x->sim, 5000);
    c->at = c->n++;
    c->v[c->at] = (struct msg){0, ++x->seed, MAYBE};
    memset(text, 'x', sizeof(text));
    int head = snprintf(text, sizeof(text), "Subject: %u\r\n\r\n", x->seed);
    text[head] = 'y';
    assert_int_equal(tb_delivery_begin(x->w[tb_sim_choose(x->sim, SHARDS)], 1 << 20, &d), TB_OK);
    c->target = (struct tb_delivery_target){.id = c->id, .mbox = TB_MBOX_INBOX, .internaldate = x->seed};
    assert_int_equal(tb_delivery_add(d, &c->target), TB_OK);
    assert_true(tb_delivery_write(d, tb_slice(text, (size_t)head + n), &c->op));
    c->op = (struct tb_op){.done = delivered, .user = c};
    c->busy = true;
    tb_delivery_commit(d, tb_sim_choose(x->sim, 2) == 0, &c->op);
}

static void start_delete(struct client *c)
{
    struct world *x = c->x;
    struct tb_view *v = NULL;
    struct tb_uidset set;
    c->at = tb_sim_choose(x->sim, c->n);
    if (c->v[c->at].fate != THERE || c->v[c->at].uid == 0)
        return;
    enum tb_rc rc = tb_account_open(x->w[tb_store_worker_of(x->store, c->id)], c->id, &c->account);
    if (rc == TB_OK)
        rc = tb_view_open(c->account, TB_MBOX_INBOX, &v);
    tb_uidset_init(&set);
    tb_uidset_add(&set, c->v[c->at].uid, c->v[c->at].uid);
    if (rc == TB_OK)
        rc = tb_delete(v, &set);
    tb_uidset_free(&set);
    tb_view_close(v);
    if (rc != TB_OK) {
        settled(c, rc, GONE);
        return;
    }
    c->busy = true;
    c->op = (struct tb_op){.done = deleted, .user = c};
    tb_gate_wait(c->account, tb_account_position(c->account), &c->op);
}

static void run(struct world *x, unsigned turns)
{
    for (unsigned t = 0; t < turns && x->wrong[0] == '\0'; t++) {
        struct client *c = &x->client[tb_sim_choose(x->sim, CLIENTS)];
        if (!c->busy && c->n < MESSAGES_MAX) {
            x->ops++;
            if (c->n > 20 && tb_sim_choose(x->sim, 4) == 0)
                start_delete(c);
            else
                start_delivery(c);
        }
        turn(x);
    }
}

/* ---- checking ---- */

static void check_client(struct world *x, struct client *c)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_row rows[64];
    uint32_t *uid = calloc(x->seed + 2, sizeof(*uid));
    assert_non_null(uid);
    if (tb_account_open(x->w[tb_store_worker_of(x->store, c->id)], c->id, &a) != TB_OK ||
        tb_view_open(a, TB_MBOX_INBOX, &v) != TB_OK) {
        wrong(x, "a mailbox cannot be opened");
        free(uid);
        return;
    }
    for (uint32_t next = 1;;) {
        size_t n = tb_view_scan(v, next, rows, 64);
        for (size_t i = 0; i < n; i++) {
            if (uid[rows[i].internaldate] != 0)
                wrong(x, "a message is there twice");
            uid[rows[i].internaldate] = rows[i].uid;
        }
        if (n < 64)
            break;
        next = rows[n - 1].uid + 1;
    }
    for (size_t i = 0; i < c->n; i++) {
        struct msg *m = &c->v[i];
        uint32_t have = uid[m->seed];
        if (m->fate == THERE && have == 0)
            wrong(x, "an acknowledged message is lost");
        else if (m->fate == GONE && have != 0)
            wrong(x, "a message that was deleted or refused is there");
        else if (have != 0 && m->uid != 0 && m->uid != have)
            wrong(x, "a message changed its UID");
        m->fate = have != 0 ? THERE : GONE;
        m->uid = have;
        c->uid_max = have > c->uid_max ? have : c->uid_max;
    }
    tb_view_close(v);
    tb_account_close(a);
    free(uid);
}

static void check(struct world *x)
{
    for (unsigned i = 0; i < CLIENTS && x->wrong[0] == '\0'; i++)
        check_client(x, &x->client[i]);
}

static bool quiet(const struct world *x)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (x->client[i].busy)
            return false;
    return true;
}

/* back: every shard serves again and every operation is answered. */
static void back(struct world *x)
{
    for (unsigned t = 0; t < BACK_TURNS && !(serving(x) && quiet(x)); t++)
        turn(x);
    if (!quiet(x))
        wrong(x, "an operation was never answered");
    else if (!serving(x))
        wrong(x, "a shard did not come back");
}

/* ---- a world from a seed ---- */

static void create_account(struct world *x, unsigned i, const char *name)
{
    bool done = false;
    struct tb_identity id;
    struct tb_op op = {.done = done_flag, .user = &done};
    tb_account_create(x->w[0], tb_slice_str(name), TB_SLICE(""), &op);
    while (!done)
        turn(x);
    assert_int_equal(op.rc, TB_OK);
    assert_int_equal(tb_directory_find(x->store, tb_slice_str(name), &id), TB_OK);
    x->client[i].x = x;
    x->client[i].id = id.id;
}

static struct world *world_new(uint64_t seed)
{
    struct world *x = calloc(1, sizeof(*x));
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    assert_non_null(x);
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-fail-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    tb_sim_block_bytes(x->sim, seed % 3 == 0 ? 16384 : 512);
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_create(io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    if (!world_open(x))
        fail_msg("%s", x->wrong);
    for (unsigned i = 0, k = 0; i < CLIENTS; k++) { /* two in each shard */
        char name[16];
        (void)snprintf(name, sizeof(name), "u%u", k);
        create_account(x, i, name);
        i += x->client[i].id.shard == i % SHARDS;
        assert_true(k < 64);
    }
    return x;
}

static void world_close(struct world *x)
{
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_close(x->w[i]);
    tb_store_close(x->store);
}

static void world_free(struct world *x)
{
    char cmd[128];
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
    free(x);
}

static void power_cut(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_NONE, TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    for (unsigned i = 0; i < SHARDS; i++)
        tb_sim_fail_nth(x->sim, TB_SIM_DURABLE, 0, 0, false);
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes))]), 0);
    world_close(x);
    for (unsigned i = 0; i < CLIENTS; i++) {
        x->client[i].busy = false;
        x->client[i].account = NULL;
    }
    if (world_open(x))
        check(x);
}

static const enum tb_sim_kind kinds[] = {TB_SIM_DURABLE, TB_SIM_SYNC, TB_SIM_WRITE, TB_SIM_READ, TB_SIM_SYNC_DIR};

/* trouble: one fault, once or until it is taken away; then back to service, and nothing lost. */
static void trouble(struct world *x)
{
    enum tb_sim_kind kind = kinds[tb_sim_choose(x->sim, TB_ARRAY_LEN(kinds))];
    bool sticky = tb_sim_choose(x->sim, 3) == 0;
    memset(x->failed, 0, sizeof(x->failed));
    tb_sim_fail_nth(x->sim, kind, 1 + tb_sim_choose(x->sim, kind == TB_SIM_DURABLE ? 60 : 6), EIO, sticky);
    run(x, 100 + (unsigned)tb_sim_choose(x->sim, 800));
    if (!sticky && x->failed[0] > 0 && x->failed[1] > 0)
        wrong(x, "one fault took down both shards");
    tb_sim_fail_nth(x->sim, kind, 0, 0, false);
    if (x->wrong[0] == '\0')
        back(x);
    if (x->wrong[0] == '\0')
        check(x);
    if (x->wrong[0] == '\0' && tb_sim_choose(x->sim, 2) == 0)
        power_cut(x);
}

static bool run_seed(uint64_t seed, unsigned *failures, uint64_t *ops, uint64_t *refused, char what[300])
{
    struct world *x = world_new(seed);
    run(x, 300);
    for (int i = 0; i < ROUNDS && x->wrong[0] == '\0'; i++)
        trouble(x);
    if (x->wrong[0] == '\0')
        power_cut(x);
    (void)snprintf(what, 300, "%s", x->wrong);
    *failures += x->failures;
    *ops += x->ops;
    *refused += x->refused;
    world_close(x);
    world_free(x);
    return what[0] == '\0';
}

static void test_failures(void **state)
{
    char what[300];
    unsigned failures = 0;
    uint64_t ops = 0, refused = 0;
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + seed_count; s++)
        if (!run_seed(s, &failures, &ops, &refused, what))
            fail_msg("seed %lu: %s", s, what);
    assert_true(failures > 0 && refused > 0);
    print_message("%lu seeds, %u shard failures, %llu operations, %llu of them not acknowledged\n", seed_count,
                  failures, (unsigned long long)ops, (unsigned long long)refused);
}

/* fail_shard: deliveries for one shard, until it has failed. */
static void fail_shard(struct world *x, uint32_t shard, enum tb_sim_kind kind, bool sticky)
{
    tb_sim_fail_nth(x->sim, kind, 1, EIO, sticky);
    for (unsigned t = 0; t < 10000 && x->failed[shard] == 0; t++) {
        for (unsigned i = 0; i < CLIENTS; i++)
            if (x->client[i].id.shard == shard && !x->client[i].busy)
                start_delivery(&x->client[i]);
        turn(x);
    }
    assert_int_equal(x->failed[shard], 1);
}

static enum tb_rc create(struct world *x, const char *name)
{
    bool done = false;
    struct tb_op op = {.done = done_flag, .user = &done};
    tb_account_create(x->w[1], tb_slice_str(name), TB_SLICE(""), &op);
    for (unsigned t = 0; t < BACK_TURNS && !done; t++)
        turn(x);
    assert_true(done);
    return op.rc;
}

/* The directory's shard is away: names are found all the same, changes are refused, and nothing of them sticks. */
static void test_directory(void **state)
{
    struct world *x = world_new(1);
    struct tb_identity id;
    (void)state;
    fail_shard(x, 0, TB_SIM_DURABLE, true);
    assert_false(tb_store_serves(x->store, (struct tb_account_id){.shard = 0}));
    assert_int_equal(create(x, "new"), TB_IO);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("new"), &id), TB_NOTFOUND);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("u0"), &id), TB_OK);
    tb_sim_fail_nth(x->sim, TB_SIM_DURABLE, 0, 0, false);
    back(x);
    assert_string_equal(x->wrong, "");
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("u0"), &id), TB_OK);
    assert_int_equal(create(x, "new"), TB_OK);
    assert_int_equal(create(x, "new"), TB_EXISTS);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("new"), &id), TB_OK);
    world_close(x);
    world_free(x);
}

/* ruin: the shard's index cannot be found, nor made again from its log. */
static void ruin(struct world *x, unsigned shard)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/shard-%02x/CKPT", x->dir, shard);
    for (uint64_t slot = 0; slot < 2; slot++)
        assert_int_equal(tb_sim_flip_bit(x->sim, path, slot * 65536 + 40, 3), 0);
    (void)snprintf(path, sizeof(path), "%s/shard-%02x/log/00000001.seg", x->dir, shard);
    for (uint64_t block = 1; block < 8; block++)
        assert_int_equal(tb_sim_flip_bit(x->sim, path, block * 16384 + 40, 3), 0);
}

/* What the disk holds is damaged beyond what it can make again: the shard stays down and says why; the other one
 * serves. */
static void test_damage(void **state)
{
    struct world *x = world_new(2);
    struct tb_shard_stat stat;
    (void)state;
    run(x, 500);
    ruin(x, 1);
    memset(x->failed, 0, sizeof(x->failed));
    for (unsigned t = 0; t < BACK_TURNS && !quiet(x); t++)
        turn(x);
    fail_shard(x, 1, TB_SIM_DURABLE, false);
    for (unsigned t = 0; t < 2000; t++)
        turn(x);
    tb_shard_stat(x->w[1], 1, &stat);
    assert_string_equal(stat.state, "down");
    assert_non_null(strstr(stat.reason, "CKPT"));
    tb_shard_stat(x->w[0], 0, &stat);
    assert_string_equal(stat.state, "serving");
    assert_true(tb_store_serves(x->store, (struct tb_account_id){.shard = 0}));
    assert_false(tb_store_serves(x->store, (struct tb_account_id){.shard = 1}));
    uint64_t refused = x->refused;
    for (unsigned i = 0; i < CLIENTS; i++)
        if (!x->client[i].busy)
            start_delivery(&x->client[i]);
    for (unsigned t = 0; t < BACK_TURNS && !quiet(x); t++)
        turn(x);
    assert_true(quiet(x));
    assert_int_equal(x->refused, refused + 2); /* the two clients of shard 1 */
    world_close(x);
    world_free(x);
}

static enum tb_rc knots(struct world *x, struct client *c, bool make)
{
    struct tb_account *a;
    struct tb_arena arena;
    struct tb_mailbox m;
    uint32_t mbox;
    tb_arena_init(&arena, 1 << 16);
    enum tb_rc rc = tb_account_open(x->w[1], c->id, &a);
    if (rc == TB_OK) {
        rc = make ? tb_mailbox_create(a, TB_SLICE(KNOTS), 0, &mbox) : tb_mailbox_find(a, TB_SLICE(KNOTS), &arena, &m);
        tb_account_close(a);
    }
    tb_arena_free(&arena);
    return rc;
}

static void rest(struct world *x)
{
    for (unsigned t = 0; t < BACK_TURNS && !(serving(x) && quiet(x)); t++)
        turn(x);
    for (unsigned t = 0; t < 2000; t++) /* and a checkpoint has passed */
        turn(x);
}

/*
 * After a failed sync of the index the disk may hold less than the page cache shows. A rebuilt shard must see that:
 * what it has of its index then is what the disk has, and what is damaged there is met, and made again from the log,
 * while the log is there; not at some later start.
 */
/* reopen: a start, at which shard `number` alone meets its trouble; serve_rest as the daemon has it. */
static enum tb_rc reopen(struct world *x, uint32_t number, int error, bool serve_rest, struct tb_error *err)
{
    struct tb_store_config cfg = {
        .dir = x->dir, .workers = SHARDS, .serve_rest = serve_rest, .failed = shard_failed, .user = x};
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    x->store = NULL;
    memset(x->w, 0, sizeof(x->w));
    tb_sim_fail_nth(x->sim, TB_SIM_READ, 0, 0, false);
    enum tb_rc rc = tb_store_open(x->io[0], &cfg, &x->store, err);
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++) {
        tb_sim_fail_nth(x->sim, TB_SIM_READ, i == number && error ? 1 : 0, error, true);
        rc = tb_worker_open(x->store, i, x->io[i], &x->w[i], err);
    }
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++)
        tb_worker_started(x->w[i]);
    return rc;
}

/* away: clients of shard 1 are refused, those of shard 0 served; the shard says why. */
static void away(struct world *x, const char *state, const char *reason)
{
    struct tb_shard_stat stat;
    tb_shard_stat(x->w[1], 1, &stat);
    assert_string_equal(stat.state, state);
    assert_non_null(strstr(stat.reason, reason));
    assert_true(tb_store_serves(x->store, (struct tb_account_id){.shard = 0}));
    assert_false(tb_store_serves(x->store, (struct tb_account_id){.shard = 1}));
    uint64_t refused = x->refused;
    for (unsigned i = 0; i < CLIENTS; i++)
        start_delivery(&x->client[i]);
    for (unsigned t = 0; t < 10000 && !quiet(x); t++)
        for (unsigned i = 0; i < SHARDS; i++)
            (void)tb_worker_turn(x->w[i], i == 0);
    assert_true(quiet(x));
    assert_int_equal(x->refused, refused + 2);
}

static void down(struct world *x)
{
    tb_sim_restart(x->sim);
    world_close(x);
}

/* A disk that cannot be read under shard 1 at the start: the others serve, and it comes when the disk does. */
static void test_unreadable_at_start(void **state)
{
    struct world *x = world_new(5);
    struct tb_error err = {0};
    (void)state;
    run(x, 300);
    rest(x);
    down(x);
    assert_int_equal(reopen(x, 1, EIO, false, &err), TB_IO);
    down(x);
    assert_int_equal(reopen(x, 0, EIO, true, &err), TB_IO); /* the directory */
    down(x);
    assert_int_equal(reopen(x, 1, EIO, true, &err), TB_OK);
    tb_sim_fail_nth(x->sim, TB_SIM_READ, 0, 0, false);
    back(x);
    check(x);
    assert_string_equal(x->wrong, "");
    world_close(x);
    world_free(x);
}

/* Damage that only a person can decide about: that shard is down, with every restart, and nothing of it is written. */
static void test_damaged_at_start(void **state)
{
    struct world *x = world_new(6);
    struct tb_error err = {0};
    (void)state;
    run(x, 300);
    rest(x);
    down(x);
    ruin(x, 1);
    assert_int_equal(reopen(x, SHARDS, 0, false, &err), TB_CORRUPT);
    down(x);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(reopen(x, SHARDS, 0, true, &err), TB_OK);
        away(x, "down", "CKPT");
        down(x);
    }
    ruin(x, 0);
    assert_int_equal(reopen(x, SHARDS, 0, true, &err), TB_CORRUPT);
    assert_non_null(strstr(err.text, "shard-00/CKPT"));
    world_close(x);
    world_free(x);
}

static void test_page_cache(void **state)
{
    struct world *x = world_new(4);
    char path[128];
    struct client *c = NULL;
    (void)state;
    for (unsigned i = 0; i < CLIENTS && c == NULL; i++)
        c = x->client[i].id.shard == 1 ? &x->client[i] : NULL;
    assert_int_equal(knots(x, c, true), TB_OK);
    run(x, 300);
    rest(x);
    memset(x->failed, 0, sizeof(x->failed));
    x->rots = true;
    fail_shard(x, 1, TB_SIM_SYNC, true);
    tb_sim_fail_nth(x->sim, TB_SIM_SYNC, 0, 0, false);
    back(x);
    assert_string_equal(x->wrong, "");
    assert_true(x->rotten_n > 0);
    (void)snprintf(path, sizeof(path), "%s/shard-01/index.mdb", x->dir);
    for (unsigned i = 0; i < x->rotten_n; i++)
        assert_true(tb_sim_is_durable(x->sim, path, x->rotten[i], 1)); /* it reads what is there */
    assert_int_not_equal(knots(x, c, false), TB_OK);
    turn(x); /* it fails now */
    back(x);
    assert_int_equal(knots(x, c, false), TB_OK); /* from the log */
    check(x);
    unsigned failures = x->failures;
    power_cut(x);
    rest(x);
    assert_string_equal(x->wrong, "");
    assert_int_equal(knots(x, c, false), TB_OK);
    assert_int_equal(x->failures, failures);
    world_close(x);
    world_free(x);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_failures),
                                       cmocka_unit_test(test_directory),
                                       cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_page_cache),
                                       cmocka_unit_test(test_unreadable_at_start),
                                       cmocka_unit_test(test_damaged_at_start)};
    tb_log_level(getenv("TB_TEST_LOG") ? TB_LOG_INFO : (enum tb_level) - 1);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("failclosed", tests, NULL, NULL);
}
