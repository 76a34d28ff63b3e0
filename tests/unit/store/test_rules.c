/*
 * test_rules.c: retention on a simulated clock: what is over goes, into the trash, and watchers are told; what is not
 * stays; rules of a mailbox win over those of its special use; nothing happens to others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/trash.h>
#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

#define DAY 86400

struct world {
    struct solo s;
    struct tb_account_id id;
};

static void world_open(struct world *x, uint32_t trash, uint32_t junk)
{
    solo_open(&x->s,
              (struct tb_store_config){.trash_days = 5, .retention_trash_days = trash, .retention_junk_days = junk});
}

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, true, 1);
    world_open(x, 0, 0);
    x->id = solo_account(&x->s, "ann");
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct world *x = *state;
    solo_end(&x->s);
    free(x);
    return 0;
}

static struct tb_account *account(struct world *x)
{
    struct tb_account *a;
    assert_int_equal(tb_account_open(x->s.w, x->id, &a), TB_OK);
    return a;
}

static void put(struct world *x, const char *mailbox, unsigned count)
{
    solo_put(&x->s, x->id, mailbox, count);
}

static struct tb_mailbox status(struct world *x, const char *name)
{
    struct tb_account *a = account(x);
    struct tb_arena arena;
    struct tb_mailbox m;
    tb_arena_init(&arena, 1 << 16);
    assert_int_equal(tb_mailbox_find(a, tb_slice_str(name), &arena, &m), TB_OK);
    tb_arena_free(&arena);
    tb_account_close(a);
    return m;
}

static void rule(struct world *x, const char *name, uint32_t days, enum tb_rc want)
{
    struct tb_account *a = account(x);
    assert_int_equal(tb_mailbox_retention(a, status(x, name).mbox, days), want);
    tb_account_close(a);
}

/* days: so many pass, and a round of the rules with them. */
static void days(struct world *x, double n)
{
    tb_sim_set_wall(x->s.sim, tb_io_wall_s(x->s.io) + (int64_t)(n * DAY));
    for (unsigned i = 0; i < 700; i++) {
        tb_sim_advance(x->s.sim, 1000000000u);
        for (unsigned k = 0; k < 5; k++)
            (void)tb_worker_turn(x->s.w, false);
    }
}

static void told(void *user)
{
    ++*(unsigned *)user;
}

static void test_days(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct tb_view *v;
    struct tb_arena arena;
    struct tb_changes changes;
    struct tb_trash_item items[64];
    struct tb_trash_cursor c = {0};
    struct tb_trash_filter f = {.since = 0};
    unsigned woken = 0;
    size_t n;
    tb_arena_init(&arena, 1 << 20);
    put(x, "INBOX", 2);
    put(x, "Archive", 3);
    days(x, 2);
    put(x, "Archive", 4);
    rule(x, "Archive", 4, TB_OK);
    assert_int_equal(status(x, "Archive").retention_days, 4);
    days(x, 1.5);
    assert_int_equal(status(x, "Archive").messages, 7);
    assert_int_equal(tb_view_open(a, status(x, "Archive").mbox, &v), TB_OK);
    tb_view_watch(v, told, &woken);
    days(x, 1);
    assert_int_equal(status(x, "Archive").messages, 4);
    assert_true(woken > 0);
    assert_int_equal(tb_view_refresh(v, true, &arena, &changes), TB_OK);
    assert_int_equal(changes.removed, 3);
    assert_int_equal(changes.removed_uid[0], 3);
    assert_int_equal(tb_trash_list(a, &f, &c, &arena, items, 64, &n), TB_OK);
    assert_int_equal(n, 3);
    days(x, 2);
    assert_int_equal(status(x, "Archive").messages, 0);
    assert_int_equal(status(x, "INBOX").messages, 2);
    tb_view_close(v);
    tb_account_close(a);
    tb_arena_free(&arena);
}

static void test_special_uses(void **state)
{
    struct world *x = *state;
    put(x, "Trash", 3);
    put(x, "Junk", 3);
    put(x, "Archive", 3);
    days(x, 100);
    assert_int_equal(status(x, "Trash").messages, 3); /* the default is never */
    solo_stop(&x->s);
    world_open(x, 30, 10);
    assert_int_equal(status(x, "Trash").retention_days, 30);
    rule(x, "Junk", TB_RETENTION_FOREVER, TB_OK);
    days(x, 0);
    assert_int_equal(status(x, "Trash").messages, 0);
    assert_int_equal(status(x, "Junk").messages, 3);
    assert_int_equal(status(x, "Archive").messages, 3);
    rule(x, "Junk", TB_RETENTION_DEFAULT, TB_OK);
    days(x, 0);
    assert_int_equal(status(x, "Junk").messages, 0);
    rule(x, "Junk", 100000, TB_INVALID);
}

static void test_rules_are_counted(void **state)
{
    struct world *x = *state;
    const struct tb_shard *s = x->s.store->shard[0];
    struct tb_account *a;
    assert_int_equal(s->x.state.rules, 0);
    rule(x, "Archive", 4, TB_OK);
    rule(x, "Archive", 5, TB_OK);
    rule(x, "Sent", 9, TB_OK);
    rule(x, "INBOX", TB_RETENTION_FOREVER, TB_OK);
    assert_int_equal(s->x.state.rules, 2);
    solo_stop(&x->s);
    world_open(x, 0, 0);
    s = x->s.store->shard[0];
    assert_int_equal(s->x.state.rules, 2);
    a = account(x);
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("Sent")), TB_OK);
    tb_account_close(a);
    days(x, 6); /* purged */
    assert_int_equal(s->x.state.rules, 1);
    rule(x, "Archive", TB_RETENTION_DEFAULT, TB_OK);
    assert_int_equal(s->x.state.rules, 0);
}

static void test_many(void **state)
{
    struct world *x = *state;
    put(x, "Archive", 1500); /* more than go in one step */
    days(x, 3);
    put(x, "Archive", 10);
    rule(x, "Archive", 2, TB_OK);
    days(x, 0);
    assert_int_equal(status(x, "Archive").messages, 10);
    assert_int_equal(status(x, "Archive").uidnext, 1511);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_days, setup, teardown),
        cmocka_unit_test_setup_teardown(test_special_uses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rules_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
    };
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("rules", tests, NULL, NULL);
}
