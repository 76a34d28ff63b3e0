/*
 * test_stage.c: a COPY of many slices under power cuts: all of it or nothing.
 *
 * An INBOX of some messages is copied again and again, in slices of four, to one mailbox to which others deliver
 * meanwhile. After every cut, and after what it left was taken away, each message of INBOX must be there equally
 * often: as often as copies were acknowledged, or once more. Deliveries that were acknowledged are there; UIDs rise in
 * the order in which things became visible; each blob's references are the rows that name it; the checker finds nothing
 * in the store as the cut left it.
 *
 * Usage: test_stage [SEED [COUNT]]. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/check.h>
#include "engine/io/sim.h"
#include "engine/store/shard.h"

enum { MESSAGES = 30, CYCLES = 12, LATE = 1000, BLOBS_MAX = 4096 };

struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io;
    struct tb_store *store;
    struct tb_worker *w;
    struct tb_account_id id;
    uint32_t box;
    struct tb_account *account;
    struct tb_view *view;
    struct tb_change *change;
    struct tb_op copy_op, gate_op, late_op;
    bool copying, gating, delivering;
    struct tb_delivery_target target;
    uint64_t copies, lates, cuts, half; /* acknowledged; half: cuts that left something staged */
    uint64_t untold;                    /* copies that were complete and given up */
    uint32_t late_next;
    char wrong[200];
};

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0"; /* a process that loses its power frees nothing */
}

static unsigned long first_seed = 1, seed_count = 6;

static void wrong(struct world *x, const char *what, uint64_t a, uint64_t b)
{
    if (x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "%s (%llu, %llu)", what, (unsigned long long)a,
                       (unsigned long long)b);
}

static void world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = x->dir,
                                  .workers = 1,
                                  .checkpoint_log_bytes = 16 << 10,
                                  .checkpoint_ms = 5,
                                  .trash_days = 1,
                                  .copy_slice = 4};
    x->io = tb_sim_io(x->sim);
    if (tb_store_open(x->io, &cfg, &x->store, &err) != TB_OK ||
        tb_worker_open(x->store, 0, x->io, &x->w, &err) != TB_OK)
        fail_msg("recovery refused: %s", err.text);
    tb_worker_started(x->w);
}

static void turn(struct world *x)
{
    if (tb_worker_turn(x->w, false) == 0)
        (void)tb_worker_turn(x->w, true);
}

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void deliver(struct world *x, uint32_t mbox, uint32_t number)
{
    char text[200];
    bool done = false;
    struct tb_op op = {.done = done_flag, .user = &done};
    struct tb_delivery_target t = {.id = x->id, .mbox = mbox, .internaldate = number};
    struct tb_delivery *d;
    int n = snprintf(text, sizeof(text), "Subject: %u\r\n\r\n%080u\r\n", number, number);
    assert_int_equal(tb_delivery_begin(x->w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    (void)tb_delivery_write(d, tb_slice(text, (size_t)n), &op);
    done = false;
    tb_delivery_commit(d, true, &op);
    while (!done)
        turn(x);
    assert_int_equal(op.rc, TB_OK);
}

static void open_account(struct world *x)
{
    assert_int_equal(tb_account_open(x->w, x->id, &x->account), TB_OK);
    assert_int_equal(tb_view_open(x->account, TB_MBOX_INBOX, &x->view), TB_OK);
    if (tb_view_count(x->view) != MESSAGES)
        wrong(x, "INBOX is not as it was", tb_view_count(x->view), MESSAGES);
}

/* ---- what goes on ---- */

static void gate_opened(struct tb_op *op)
{
    struct world *x = op->user;
    x->gating = false;
    x->copies++;
}

static void copied(struct tb_op *op)
{
    struct world *x = op->user;
    if (op->rc != TB_OK)
        wrong(x, "a copy was refused", op->rc, 0);
    x->copying = false;
    tb_change_free(x->change);
    x->change = NULL;
    x->gating = true;
    x->gate_op = (struct tb_op){.done = gate_opened, .user = x};
    tb_gate_wait(x->account, tb_account_position(x->account), &x->gate_op);
}

static void start_copy(struct world *x)
{
    x->copy_op = (struct tb_op){.done = copied, .user = x};
    x->copying = true;
    if (tb_change_start(x->view, TB_CHANGE_COPY, NULL, x->box, &x->copy_op, &x->change))
        wrong(x, "a copy of many slices was done in one", 0, 0);
}

static void late_done(struct tb_op *op)
{
    struct world *x = op->user;
    x->delivering = false;
    x->lates += op->rc == TB_OK;
}

static void start_late(struct world *x)
{
    struct tb_delivery *d;
    x->delivering = true;
    x->late_op = (struct tb_op){.done = late_done, .user = x};
    x->target = (struct tb_delivery_target){.id = x->id, .mbox = x->box, .internaldate = LATE + x->late_next++};
    assert_int_equal(tb_delivery_begin(x->w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &x->target), TB_OK);
    (void)tb_delivery_write(d, TB_SLICE("Subject: late\r\n\r\nx\r\n"), &x->late_op);
    tb_delivery_commit(d, true, &x->late_op);
}

/* give_up: as when a connection is lost in the midst of its COPY. */
static void give_up(struct world *x)
{
    x->untold += x->store->shard[0]->x.state.staged == 0; /* it was complete: only its done was still to come */
    tb_change_free(x->change);
    x->change = NULL;
    x->copying = false;
}

static void run_until_cut(struct world *x)
{
    for (uint64_t t = 10 + tb_sim_choose(x->sim, 120); t > 0; t--) {
        if (!x->copying && !x->gating)
            start_copy(x);
        else if (x->copying && tb_sim_choose(x->sim, 40) == 0)
            give_up(x);
        if (!x->delivering && tb_sim_choose(x->sim, 10) == 0)
            start_late(x);
        turn(x);
    }
}

/* ---- looking ---- */

static void found(void *user, const struct tb_finding *f)
{
    struct world *x = user;
    if (f->damage && x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "the checker: %s: %s", f->object, f->what);
}

static void inspect(struct world *x)
{
    struct tb_check_options opt = {.user = x, .found = found};
    struct tb_check_stat stat = {0};
    struct tb_error err = {0};
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_check(io, x->dir, &opt, &stat, &err) != TB_OK)
        fail_msg("the checker: %s", err.text);
    tb_io_close(io);
}

static void check_refs(struct world *x, const uint64_t *blob, size_t n)
{
    struct tb_slice k, v;
    struct tb_index *ix = x->store->shard[0]->ix;
    bool more = tb_index_ge(ix, TB_DB_BLOB, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_BLOB, 0, &k, &v)) {
        struct tb_disk_blob b;
        uint32_t refs = 0;
        memcpy(&b, v.ptr, sizeof(b));
        for (size_t i = 0; i < n; i++)
            refs += blob[i] == tb_get_be64(k.ptr);
        if (refs != b.refs)
            wrong(x, "a blob's references are not its rows", b.refs, refs);
    }
}

static void check(struct world *x)
{
    static uint64_t blob[BLOBS_MAX];
    struct tb_disk_row rows[64];
    uint32_t count[MESSAGES + 1] = {0};
    uint64_t late = 0;
    size_t blobs = 0;
    for (unsigned k = 0; k < 2; k++)
        for (uint32_t uid = 1;;) {
            size_t n = tb_rows_scan(x->store->shard[0]->ix, x->id.acct, k ? x->box : TB_MBOX_INBOX, uid, rows, 64);
            for (size_t i = 0; i < n && blobs < BLOBS_MAX; i++) {
                blob[blobs++] = rows[i].blob;
                if (k && rows[i].internaldate >= LATE)
                    late++;
                else if (k)
                    count[rows[i].internaldate]++;
            }
            if (n < 64)
                break;
            uid = rows[n - 1].uid + 1;
        }
    assert_true(blobs < BLOBS_MAX);
    for (unsigned i = 2; i <= MESSAGES; i++)
        if (count[i] != count[1])
            wrong(x, "a copy is half there", count[1], count[i]);
    if (count[1] < x->copies || count[1] > x->copies + x->untold + 1)
        wrong(x, "an acknowledged copy is lost, or one too many is there", count[1], x->copies);
    if (late < x->lates || late > x->lates + 1)
        wrong(x, "a delivery is lost, or there twice", late, x->lates);
    x->copies = count[1];
    x->untold = 0;
    x->lates = late;
    check_refs(x, blob, blobs);
}

static void cycle(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    run_until_cut(x);
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes))]), 0);
    tb_worker_close(x->w); /* with what was under way in it */
    tb_store_close(x->store);
    x->change = NULL;
    x->copying = x->gating = x->delivering = false;
    x->cuts++;
    inspect(x);
    world_open(x);
    x->half += x->store->shard[0]->x.state.staged != 0;
    for (unsigned i = 0; i < 400 && x->store->shard[0]->x.state.staged != 0; i++) {
        tb_sim_advance(x->sim, 100000000u);
        turn(x);
    }
    if (x->store->shard[0]->x.state.staged != 0)
        wrong(x, "what was staged stays", x->store->shard[0]->x.state.staged, 0);
    open_account(x);
    check(x);
}

static void world_begin(struct world *x, uint64_t seed)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = 1};
    struct tb_identity id;
    bool done = false;
    struct tb_op op = {.done = done_flag, .user = &done};
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    struct tb_io *io = tb_sim_io(x->sim);
    assert_int_equal(tb_store_create(io, x->dir, &opt, &err), TB_OK);
    tb_io_close(io);
    world_open(x);
    tb_account_create(x->w, TB_SLICE("ann"), TB_SLICE(""), &op);
    while (!done)
        turn(x);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("ann"), &id), TB_OK);
    x->id = id.id;
    x->box = tb_mailbox_number(x->store->shard[0], x->id.acct, TB_SLICE("Archive"));
    for (uint32_t i = 1; i <= MESSAGES; i++)
        deliver(x, TB_MBOX_INBOX, i);
    open_account(x);
}

static void test_all_or_nothing(void **state)
{
    uint64_t cuts = 0, half = 0, copies = 0;
    (void)state;
    for (unsigned long seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct world *x = calloc(1, sizeof(*x));
        char cmd[128];
        assert_non_null(x);
        world_begin(x, seed);
        for (unsigned i = 0; i < CYCLES && x->wrong[0] == '\0'; i++)
            cycle(x);
        if (x->wrong[0] != '\0')
            fail_msg("seed %lu: %s", seed, x->wrong);
        cuts += x->cuts;
        half += x->half;
        copies += x->copies;
        tb_view_close(x->view);
        tb_account_close(x->account);
        tb_worker_close(x->w);
        tb_store_close(x->store);
        tb_sim_free(x->sim);
        (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
        assert_int_equal(system(cmd), 0);
        free(x);
    }
    print_message("%lu seeds, %llu power cuts, %llu in the midst of a copy, %llu copies whole\n", seed_count,
                  (unsigned long long)cuts, (unsigned long long)half, (unsigned long long)copies);
    assert_true(half > 0 && copies > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_or_nothing)};
    tb_log_level(TB_LOG_ERROR);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("stage", tests, NULL, NULL);
}
