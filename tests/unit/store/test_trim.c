/*
 * test_trim.c: a change log that is too long or too old is trimmed, and nobody is told anything wrong because of it:
 * neither a session that was there all the while, nor a client that comes back from before the floor.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/whole.h"

enum { MESSAGES = 12, CHANGES = 3000 };
#define SECOND UINT64_C(1000000000)
#define DAY_S 86400

struct world {
    char dir[64];
    struct tb_sim *sim;
    struct tb_io *io;
    struct tb_store *store;
    struct tb_worker *w;
    struct tb_account *a;
};

static void finished(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void await(struct world *x, const bool *done)
{
    while (!*done)
        (void)tb_worker_turn(x->w, true);
}

static void store_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = x->dir, .workers = 1, .trash_days = 0};
    x->io = tb_sim_io(x->sim);
    if (tb_store_open(x->io, &cfg, &x->store, &err) != TB_OK ||
        tb_worker_open(x->store, 0, x->io, &x->w, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_worker_started(x->w);
}

static void store_close(struct world *x)
{
    bool done = false;
    struct tb_op op = {.done = finished, .user = &done};
    tb_worker_stop(x->w, &op);
    await(x, &done);
    tb_worker_close(x->w);
    tb_store_close(x->store);
    tb_io_close(x->io);
}

static void deliver(struct world *x, struct tb_account_id id)
{
    bool done = false;
    struct tb_delivery *d;
    struct tb_op op = {.done = finished, .user = &done};
    struct tb_delivery_target t = {.id = id, .mbox = TB_MBOX_INBOX, .is_append = true, .internaldate = 1};
    assert_int_equal(tb_delivery_begin(x->w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    assert_true(tb_delivery_write(d, TB_SLICE("Subject: x\r\n\r\nbody\r\n"), &op));
    tb_delivery_commit(d, true, &op);
    await(x, &done);
    assert_int_equal(op.rc, TB_OK);
}

static void world_new(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = 1};
    struct tb_identity id;
    bool done = false;
    struct tb_op op = {.done = finished, .user = &done};
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-trim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(1, x->dir);
    tb_sim_set_wall(x->sim, 20000 * (int64_t)DAY_S);
    struct tb_io *io = tb_sim_io(x->sim);
    assert_int_equal(tb_store_create(io, x->dir, &opt, &err), TB_OK);
    tb_io_close(io);
    store_open(x);
    tb_account_create(x->w, TB_SLICE("u"), TB_SLICE(""), &op);
    await(x, &done);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("u"), &id), TB_OK);
    for (int i = 0; i < MESSAGES; i++)
        deliver(x, id.id);
    assert_int_equal(tb_account_open(x->w, id.id, &x->a), TB_OK);
}

static void world_free(struct world *x)
{
    char cmd[128], what[300];
    tb_account_close(x->a);
    store_close(x);
    struct tb_io *io = tb_sim_io(x->sim);
    if (!store_whole(io, x->dir, what))
        fail_msg("%s", what);
    tb_io_close(io);
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
}

/* hours: ticks over a time, so that every mailbox was looked at. */
static void hours(struct world *x, unsigned n)
{
    for (unsigned i = 0; i < 2 * n + 2; i++) {
        tb_sim_advance(x->sim, 1800 * SECOND);
        for (int k = 0; k < 50; k++)
            (void)tb_worker_turn(x->w, false);
    }
}

static struct tb_disk_mbox inbox(struct world *x)
{
    struct tb_disk_mbox m;
    assert_true(tb_mbox_get(x->a->shard->ix, x->a->acct, TB_MBOX_INBOX, &m, NULL));
    return m;
}

static void flag(struct world *x, struct tb_view *v, uint32_t uid, bool on)
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    tb_uidset_add(&set, uid, uid);
    enum tb_rc rc;
    while ((rc = tb_flags_update(v, &set, on ? TB_FLAGS_ADD : TB_FLAGS_REMOVE, TB_FLAG_FLAGGED, 0, UINT64_MAX, NULL)) ==
           TB_BUSY)
        (void)tb_worker_turn(x->w, true);
    assert_int_equal(rc, TB_OK);
    tb_uidset_free(&set);
}

static void expunge(struct tb_view *v, uint32_t uid)
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    tb_uidset_add(&set, uid, uid);
    assert_int_equal(tb_delete(v, &set), TB_OK);
    tb_uidset_free(&set);
}

static bool count_change(void *user, uint64_t modseq, uint8_t kind, struct tb_range range)
{
    (void)modseq;
    (void)range;
    assert_true(kind == TB_CHG_FLAGS || kind == TB_CHG_EXPUNGE); /* marks are nobody's business */
    ++*(unsigned *)user;
    return true;
}

static unsigned changes(struct world *x)
{
    unsigned n = 0;
    tb_chg_scan(x->a->shard->ix, x->a->acct, TB_MBOX_INBOX, 0, count_change, &n);
    return n;
}

/* told: a session learns by its next refresh that `gone` messages went and that uid has changed flags. */
static void told(struct tb_view *v, unsigned gone, uint32_t uid)
{
    struct tb_arena arena;
    struct tb_changes c;
    bool found = false;
    tb_arena_init(&arena, 1 << 16);
    assert_int_equal(tb_view_refresh(v, true, &arena, &c), TB_OK);
    assert_int_equal(c.removed, gone);
    for (uint32_t i = 0; i < c.flags_n; i++)
        found = found || c.flags[i].uid == uid;
    assert_true(found);
    assert_int_equal(tb_view_count(v), MESSAGES - gone);
    tb_arena_free(&arena);
}

static void test_too_long(void **state)
{
    struct world x;
    struct tb_view *v, *other;
    struct tb_since since;
    (void)state;
    world_new(&x);
    assert_int_equal(tb_view_open(x.a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_view_open(x.a, TB_MBOX_INBOX, &other), TB_OK);
    uint64_t before = inbox(&x).highestmodseq;
    expunge(v, 3);
    expunge(v, 7);
    for (unsigned i = 0; i < CHANGES; i++)
        flag(&x, v, 5, i % 2 == 0);
    assert_int_equal(changes(&x), CHANGES + 2);
    hours(&x, 3);
    assert_true(inbox(&x).chg_floor > before);
    assert_true(changes(&x) < CHANGES * 3 / 4 && changes(&x) > 0);
    told(other, 2, 5); /* it never looked in between */
    assert_int_equal(tb_view_since(other, before, NULL, true, &since), TB_OK);
    assert_true(tb_uidset_has(&since.vanished, 3) && tb_uidset_has(&since.vanished, 7));
    assert_int_equal(tb_uidset_count(&since.vanished), 2);
    assert_int_equal(tb_uidset_count(&since.changed), 1);
    assert_true(tb_uidset_has(&since.changed, 5));
    tb_since_free(&since);
    tb_view_close(v);
    tb_view_close(other);
    world_free(&x);
}

static void test_too_old(void **state)
{
    struct world x;
    struct tb_view *v;
    (void)state;
    world_new(&x);
    assert_int_equal(tb_view_open(x.a, TB_MBOX_INBOX, &v), TB_OK);
    for (unsigned i = 0; i < 1500; i++) /* more than a block of them, less than is too much */
        flag(&x, v, 5, i % 2 == 0);
    uint64_t floor = inbox(&x).chg_floor;
    hours(&x, 3);
    assert_int_equal(inbox(&x).chg_floor, floor);
    unsigned had = changes(&x);
    tb_sim_set_wall(x.sim, 20029 * (int64_t)DAY_S);
    hours(&x, 3);
    assert_int_equal(changes(&x), had); /* 29 days */
    for (unsigned i = 0; i < 10; i++)
        flag(&x, v, 6, i % 2 == 0);
    tb_sim_set_wall(x.sim, 20031 * (int64_t)DAY_S);
    hours(&x, 3);
    assert_true(inbox(&x).chg_floor > floor);
    assert_true(changes(&x) < had && changes(&x) >= 10); /* the new ones stay */
    tb_view_close(v);
    world_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_too_long), cmocka_unit_test(test_too_old)};
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("trim", tests, NULL, NULL);
}
