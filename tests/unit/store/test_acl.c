/*
 * test_acl.c: rights as entries add up, who sees which mailbox, and that entries stay with their mailbox: through
 * renaming, deleting, coming back, a restart, and an index made again from the log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/acl.h>
#include <tambo/trash.h>
#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

enum { LR = TB_RIGHT_LOOKUP | TB_RIGHT_READ, BOB = 1000, EVE = 1001 };

struct world {
    struct solo s;
    struct tb_account_id ann, joe;
    struct tb_account *a; /* ann's */
};

static void world_open(struct world *x)
{
    solo_open(&x->s, (struct tb_store_config){.trash_days = 5});
}

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, true, 1);
    world_open(x);
    x->ann = solo_account(&x->s, "ann");
    x->joe = solo_account(&x->s, "joe");
    assert_int_equal(tb_account_open(x->s.w, x->ann, &x->a), TB_OK);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct world *x = *state;
    tb_account_close(x->a);
    solo_end(&x->s);
    free(x);
    return 0;
}

static uint32_t number(struct world *x, const char *name)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    tb_arena_init(&arena, 1 << 16);
    enum tb_rc rc = tb_mailbox_find(x->a, tb_slice_str(name), &arena, &m);
    tb_arena_free(&arena);
    return rc == TB_OK ? m.mbox : 0;
}

static uint32_t create(struct world *x, const char *name)
{
    uint32_t mbox;
    assert_int_equal(tb_mailbox_create(x->a, tb_slice_str(name), 0, &mbox), TB_OK);
    return mbox;
}

static void give(struct world *x, uint32_t mbox, uint32_t user, bool negative, uint32_t rights)
{
    struct tb_acl_entry e = {.user = user, .negative = negative, .rights = rights, .name = TB_SLICE("somebody")};
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
}

/* shared: how many mailboxes the user sees, looked for `step` entries at a time; the last one's name in `last`. */
static unsigned shared(struct world *x, uint32_t user, size_t step, char last[64])
{
    struct tb_shared v[8];
    struct tb_shared_at at = {0};
    unsigned total = 0;
    while (!at.end) {
        struct tb_arena arena;
        size_t n;
        tb_arena_init(&arena, 1 << 20);
        assert_int_equal(tb_acl_shared(x->s.w, 0, user, &at, &arena, step, v, &n), TB_OK);
        for (size_t i = 0; i < n; i++)
            snprintf(last, 64, "%.*s/%.*s", (int)v[i].owner.len, v[i].owner.ptr, (int)v[i].mailbox.name.len,
                     v[i].mailbox.name.ptr);
        total += (unsigned)n;
        tb_arena_free(&arena);
    }
    return total;
}

static void test_rights_add_up(void **state)
{
    struct world *x = *state;
    uint32_t mbox = number(x, "INBOX");
    assert_int_equal(tb_acl_rights(x->a, mbox, x->ann.acct), TB_RIGHTS_ALL);
    assert_int_equal(tb_acl_rights(x->a, mbox, BOB), 0);
    give(x, mbox, BOB, false, LR);
    assert_int_equal(tb_acl_rights(x->a, mbox, BOB), LR);
    assert_int_equal(tb_acl_rights(x->a, mbox, EVE), 0);
    give(x, mbox, TB_ACL_ANYONE, false, TB_RIGHT_LOOKUP | TB_RIGHT_INSERT);
    assert_int_equal(tb_acl_rights(x->a, mbox, BOB), LR | TB_RIGHT_INSERT);
    give(x, mbox, TB_ACL_AUTHENTICATED, false, TB_RIGHT_POST);
    assert_int_equal(tb_acl_rights(x->a, mbox, EVE), TB_RIGHT_LOOKUP | TB_RIGHT_INSERT | TB_RIGHT_POST);
    give(x, mbox, BOB, true, TB_RIGHT_READ | TB_RIGHT_INSERT); /* RFC 4314 2: whatever gave them */
    assert_int_equal(tb_acl_rights(x->a, mbox, BOB), TB_RIGHT_LOOKUP | TB_RIGHT_POST);
    give(x, mbox, TB_ACL_ANYONE, true, TB_RIGHTS_ALL);
    assert_int_equal(tb_acl_rights(x->a, mbox, EVE), 0);
    assert_int_equal(tb_acl_rights(x->a, mbox, x->ann.acct), TB_RIGHTS_ALL); /* the owner's are nobody's to take */
    struct tb_acl_entry own = {.user = x->ann.acct, .rights = LR, .name = TB_SLICE("ann")};
    assert_int_equal(tb_acl_set(x->a, mbox, &own), TB_INVALID);
    assert_int_equal(tb_acl_rights(x->a, 999, BOB), 0);
    assert_int_equal(tb_acl_set(x->a, 999, &own), TB_NOTFOUND);
}

static void test_entries_are_bounded(void **state)
{
    struct world *x = *state;
    struct tb_arena arena;
    struct tb_acl_entry *v, one = {.user = 5000, .rights = LR, .name = TB_SLICE("one more")};
    size_t n;
    for (uint32_t i = 0; i < TB_ACL_MAX; i++)
        give(x, number(x, "Sent"), 2000 + i, i % 2 == 1, LR);
    assert_int_equal(tb_acl_set(x->a, number(x, "Sent"), &one), TB_LIMIT);
    one.user = 2000;
    one.rights = TB_RIGHT_READ;
    assert_int_equal(tb_acl_set(x->a, number(x, "Sent"), &one), TB_OK);
    tb_arena_init(&arena, 1 << 20);
    assert_int_equal(tb_acl_list(x->a, number(x, "Sent"), &arena, &v, &n), TB_OK);
    assert_int_equal(n, TB_ACL_MAX);
    assert_int_equal(v[0].user, 2000);
    assert_true(tb_slice_eq(v[0].name, TB_SLICE("one more")));
    assert_true(v[1].negative);
    tb_arena_free(&arena);
}

static void test_what_is_shared(void **state)
{
    struct world *x = *state;
    char last[64] = "";
    assert_int_equal(shared(x, x->joe.acct, 3, last), 0);
    give(x, number(x, "INBOX"), x->joe.acct, false, LR);
    give(x, number(x, "INBOX"), TB_ACL_ANYONE, false, LR);
    give(x, number(x, "Sent"), TB_ACL_AUTHENTICATED, false, TB_RIGHT_LOOKUP);
    give(x, number(x, "Trash"), x->joe.acct, false, TB_RIGHT_READ); /* not to be looked up */
    for (size_t step = 1; step <= 8; step++)
        assert_int_equal(shared(x, x->joe.acct, step, last), 2);
    assert_string_equal(last, "ann/Sent");
    assert_int_equal(shared(x, EVE, 8, last), 2);
    assert_int_equal(shared(x, x->ann.acct, 8, last), 0); /* her own are not shared with her */
    give(x, number(x, "INBOX"), x->joe.acct, true, TB_RIGHT_LOOKUP);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 1);
}

static void test_they_stay_with_the_mailbox(void **state)
{
    struct world *x = *state;
    char last[64];
    uint32_t mbox = create(x, "Team");
    give(x, mbox, x->joe.acct, false, LR);
    uint32_t child = create(x, "Team/2026/May"); /* RFC 4314 4: inherits */
    assert_int_equal(tb_acl_rights(x->a, child, x->joe.acct), LR);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 3);
    give(x, child, x->joe.acct, false, 0);
    assert_int_equal(tb_acl_rights(x->a, mbox, x->joe.acct), LR);
    assert_int_equal(tb_mailbox_rename(x->a, TB_SLICE("Team"), TB_SLICE("Club")), TB_OK);
    assert_int_equal(tb_acl_rights(x->a, number(x, "Club"), x->joe.acct), LR);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 2);
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("Club")), TB_OK); /* its children stay, and so does its name */
    assert_int_equal(tb_acl_rights(x->a, mbox, x->joe.acct), 0);
    assert_int_equal(tb_acl_rights(x->a, number(x, "Club"), x->joe.acct), 0);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 1);
    assert_string_equal(last, "ann/Club/2026");
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("Club/2026/May")), TB_OK);
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("Club/2026")), TB_OK);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 0);
    create(x, "Club/2026"); /* a new one: nothing of the old one's */
    assert_int_equal(shared(x, x->joe.acct, 8, last), 0);
}

/* reopen: as a restart does, or with the index made again from the log alone. */
static void reopen(struct world *x)
{
    tb_account_close(x->a);
    solo_stop(&x->s);
    world_open(x);
    assert_int_equal(tb_account_open(x->s.w, x->ann, &x->a), TB_OK);
}

static void test_restart_and_purge(void **state)
{
    struct world *x = *state;
    char last[64];
    struct tb_slice k, v;
    assert_false(tb_acl_any(x->s.store, 0));
    give(x, create(x, "Team"), x->joe.acct, false, LR);
    create(x, "Team/sub");
    give(x, number(x, "Team"), EVE, true, LR);
    reopen(x);
    assert_true(tb_acl_any(x->s.store, 0));
    assert_int_equal(tb_acl_rights(x->a, number(x, "Team/sub"), x->joe.acct), LR);
    assert_int_equal(tb_acl_get(x->a, number(x, "Team"), EVE, true), LR);
    assert_int_equal(shared(x, x->joe.acct, 8, last), 2);
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("Team/sub")), TB_OK);
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("Team")), TB_OK);
    tb_sim_set_wall(x->s.sim, tb_io_wall_s(x->s.io) + 6 * 86400);
    for (unsigned i = 0; i < 100; i++) {
        tb_sim_advance(x->s.sim, 1000000000u);
        for (unsigned t = 0; t < 5; t++)
            (void)tb_worker_turn(x->s.w, false);
    }
    assert_false(tb_index_ge(x->s.store->shard[0]->ix, TB_DB_ACL, tb_slice("\0", 1), 0, &k, &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rights_add_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_they_stay_with_the_mailbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_and_purge, setup, teardown),
    };
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("acl", tests, NULL, NULL);
}
