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
#include "tests/lib/solo.h"
#include "tests/lib/whole.h"

enum { MESSAGES = 12, CHANGES = 3000 };
#define SECOND UINT64_C(1000000000)
#define DAY_S 86400

struct world {
    struct solo s;
    struct tb_account *a;
};

static void store_open(struct world *x)
{
    solo_open(&x->s, (struct tb_store_config){.trash_days = 0});
}

static void world_new(struct world *x)
{
    solo_new(&x->s, true, 1);
    tb_sim_set_wall(x->s.sim, 20000 * (int64_t)DAY_S);
    store_open(x);
    struct tb_account_id id = solo_account(&x->s, "u");
    solo_put(&x->s, id, "INBOX", MESSAGES);
    assert_int_equal(tb_account_open(x->s.w, id, &x->a), TB_OK);
}

static void world_free(struct world *x)
{
    char cmd[128], what[300];
    tb_account_close(x->a);
    solo_stop(&x->s);
    struct tb_io *io = tb_sim_io(x->s.sim);
    if (!store_whole(io, x->s.dir, what))
        fail_msg("%s", what);
    tb_io_close(io);
    tb_sim_free(x->s.sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->s.dir);
    assert_int_equal(system(cmd), 0);
}

/* hours: ticks over a time, so that every mailbox was looked at. */
static void hours(struct world *x, unsigned n)
{
    for (unsigned i = 0; i < 2 * n + 2; i++) {
        tb_sim_advance(x->s.sim, 1800 * SECOND);
        for (int k = 0; k < 50; k++)
            (void)tb_worker_turn(x->s.w, false);
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
        (void)tb_worker_turn(x->s.w, true);
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
    tb_sim_set_wall(x.s.sim, 20029 * (int64_t)DAY_S);
    hours(&x, 3);
    assert_int_equal(changes(&x), had); /* 29 days */
    for (unsigned i = 0; i < 10; i++)
        flag(&x, v, 6, i % 2 == 0);
    tb_sim_set_wall(x.s.sim, 20031 * (int64_t)DAY_S);
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
