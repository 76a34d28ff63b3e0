/*
 * test_change.c: removing, copying and moving many messages goes in slices, one a turn, with others' work in between;
 * the outcome is that of one go, and a change that is given up leaves every message in one place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

struct world {
    struct solo s;
    struct tb_account_id id;
};

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, true, 1);
    solo_open(&x->s, (struct tb_store_config){.trash_days = 5});
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

/* fill: INBOX gets 40 messages and copies of them until there are `count`. */
static void fill(struct world *x, struct tb_account *a, uint32_t count)
{
    put(x, "INBOX", 40);
    for (uint32_t n = 40; n < count; n = status(x, "INBOX").messages) {
        struct tb_view *v;
        struct tb_uidset set;
        struct tb_copied c;
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        tb_uidset_init(&set);
        tb_uidset_add(&set, 1, count - n < n ? count - n : n);
        assert_int_equal(tb_copy(v, &set, TB_MBOX_INBOX, &c), TB_OK);
        tb_copied_free(&c);
        tb_uidset_free(&set);
        tb_view_close(v);
    }
}

struct under_way {
    struct tb_change *change;
    struct tb_op op;
    bool done;
};

static void change_done(struct tb_op *op)
{
    ((struct under_way *)op->user)->done = true;
}

/* go: start a change; the number of turns it took. */
static unsigned go(struct world *x, struct under_way *u, struct tb_view *v, enum tb_change_kind kind, uint32_t dst)
{
    unsigned turns = 0;
    *u = (struct under_way){.op = {.done = change_done, .user = u}};
    u->done = tb_change_start(v, kind, NULL, dst, &u->op, &u->change);
    for (; !u->done && turns < 1000; turns++)
        (void)tb_worker_turn(x->s.w, false);
    assert_true(u->done);
    return turns;
}

static void test_move_and_expunge(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct under_way u;
    struct tb_view *v;
    uint32_t archive = status(x, "Archive").mbox;
    fill(x, a, 10000);
    put(x, "Archive", 5);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_true(go(x, &u, v, TB_CHANGE_MOVE, archive) >= 4); /* 1,024 in each */
    assert_int_equal(u.op.rc, TB_OK);
    const struct tb_copied *c = tb_change_copied(u.change);
    assert_int_equal(tb_uidset_count(&c->from), 10000);
    assert_int_equal(c->to.n, 1);
    assert_int_equal(c->to.v[0].first, 6);
    assert_int_equal(c->to.v[0].last, 10005);
    tb_change_free(u.change);
    tb_view_close(v);
    assert_int_equal(status(x, "INBOX").messages, 0);
    assert_int_equal(status(x, "Archive").messages, 10005);

    assert_int_equal(tb_view_open(a, archive, &v), TB_OK);
    assert_int_equal(go(x, &u, v, TB_CHANGE_EXPUNGE, 0), 0); /* none is \\Deleted */
    tb_change_free(u.change);
    assert_int_equal(status(x, "Archive").messages, 10005);
    assert_true(go(x, &u, v, TB_CHANGE_DELETE, 0) >= 2); /* 2,048 in each */
    assert_int_equal(u.op.rc, TB_OK);
    assert_int_equal(tb_uidset_count(&tb_change_copied(u.change)->from), 10005);
    tb_change_free(u.change);
    tb_view_close(v);
    assert_int_equal(status(x, "Archive").messages, 0);
    tb_account_close(a);
}

static void test_given_up(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct under_way u = {.op = {.done = change_done, .user = &u}};
    struct tb_view *v;
    fill(x, a, 5000);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_false(tb_change_start(v, TB_CHANGE_MOVE, NULL, status(x, "Archive").mbox, &u.op, &u.change));
    tb_change_free(u.change);
    for (unsigned i = 0; i < 20; i++)
        (void)tb_worker_turn(x->s.w, false);
    assert_false(u.done);
    assert_int_equal(status(x, "Archive").messages, 1024);
    assert_int_equal(status(x, "INBOX").messages, 5000 - 1024);
    tb_view_close(v);
    tb_account_close(a);
}

static void test_mailbox_goes_meanwhile(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct under_way u = {.op = {.done = change_done, .user = &u}};
    struct tb_view *v;
    fill(x, a, 5000);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_false(tb_change_start(v, TB_CHANGE_MOVE, NULL, status(x, "Archive").mbox, &u.op, &u.change));
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("Archive")), TB_OK);
    for (unsigned i = 0; i < 20; i++)
        (void)tb_worker_turn(x->s.w, false);
    assert_true(u.done);
    assert_int_equal(u.op.rc, TB_NOTFOUND);
    assert_int_equal(status(x, "INBOX").messages, 5000 - 1024);
    tb_change_free(u.change);
    tb_view_close(v);
    tb_account_close(a);
}

/* A COPY of several slices: nobody sees it before it is whole, and what is delivered meanwhile comes behind it. */
static void test_copy_is_staged(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct under_way u = {.op = {.done = change_done, .user = &u}}, late = {.done = false};
    struct tb_view *v, *other;
    uint32_t archive = status(x, "Archive").mbox;
    struct tb_delivery_target t = {.id = x->id, .mailbox = TB_SLICE("Archive")};
    struct tb_delivery *d;
    fill(x, a, 10000);
    put(x, "Archive", 5);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_false(tb_change_start(v, TB_CHANGE_COPY, NULL, archive, &u.op, &u.change));
    late.op = (struct tb_op){.done = change_done, .user = &late};
    assert_int_equal(tb_delivery_begin(x->s.w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    (void)tb_delivery_write(d, TB_SLICE("Subject: late\r\n\r\nx\r\n"), &late.op);
    late.done = false;
    tb_delivery_commit(d, true, &late.op);
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("Archive")), TB_BUSY);
    unsigned turns = 0;
    for (; !u.done && turns < 1000; turns++) {
        assert_false(late.done);
        assert_int_equal(status(x, "Archive").messages, 5);
        assert_int_equal(status(x, "Archive").uidnext, 6);
        assert_int_equal(tb_view_open(a, archive, &other), TB_OK);
        assert_int_equal(tb_view_count(other), 5);
        tb_view_close(other);
        (void)tb_worker_turn(x->s.w, false);
        if (status(x, "Archive").messages != 5)
            break;
    }
    assert_true(turns >= 3);
    solo_until(&x->s, &u.done);
    assert_int_equal(u.op.rc, TB_OK);
    assert_int_equal(tb_change_copied(u.change)->to.v[0].first, 6);
    assert_int_equal(tb_change_copied(u.change)->to.v[0].last, 10005);
    solo_until(&x->s, &late.done);
    assert_int_equal(late.op.rc, TB_OK);
    assert_int_equal(t.uid, 10006);
    assert_int_equal(status(x, "Archive").messages, 10006);
    assert_int_equal(status(x, "INBOX").messages, 10000);
    tb_change_free(u.change);
    tb_view_close(v);
    tb_account_close(a);
}

/* A COPY that is given up leaves nothing, and the mailbox is free again. */
static void test_copy_given_up(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct under_way u = {.op = {.done = change_done, .user = &u}};
    struct tb_view *v;
    uint64_t rows = 0;
    fill(x, a, 7000);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_false(tb_change_start(v, TB_CHANGE_COPY, NULL, status(x, "Archive").mbox, &u.op, &u.change));
    (void)tb_worker_turn(x->s.w, false);
    assert_int_equal(x->s.store->shard[0]->x.state.staged, 1);
    tb_change_free(u.change);
    for (unsigned i = 0; i < 100; i++) {
        tb_sim_advance(x->s.sim, 100000000u);
        (void)tb_worker_turn(x->s.w, false);
    }
    assert_false(u.done);
    struct tb_disk_row row;
    rows = tb_rows_scan(x->s.store->shard[0]->ix, x->id.acct, status(x, "Archive").mbox, 1, &row, 1);
    assert_int_equal(rows, 0);
    assert_int_equal(x->s.store->shard[0]->x.state.staged, 0);
    put(x, "Archive", 1);
    assert_int_equal(status(x, "Archive").uidnext, 2);
    tb_view_close(v);
    tb_account_close(a);
}

/* counted: the mailbox's counters are those of its rows, and every row has its MODSEQ or a lower one. */
static void counted(struct world *x, const char *name)
{
    struct tb_index *ix = x->s.store->shard[0]->ix;
    uint32_t mbox = status(x, name).mbox, messages = 0, unseen = 0, deleted = 0;
    struct tb_disk_mbox m;
    struct tb_disk_row row;
    uint64_t bytes = 0;
    assert_true(tb_mbox_get(ix, x->id.acct, mbox, &m, NULL));
    for (uint32_t uid = 1; tb_rows_scan(ix, x->id.acct, mbox, uid, &row, 1) == 1; uid = row.uid + 1) {
        messages++;
        unseen += !(row.flags & TB_FLAG_SEEN);
        deleted += (row.flags & TB_FLAG_DELETED) != 0;
        bytes += row.size;
        assert_true(row.modseq <= m.highestmodseq);
    }
    assert_int_equal(m.messages, messages);
    assert_int_equal(m.unseen, unseen);
    assert_int_equal(m.deleted, deleted);
    assert_int_equal(m.bytes, bytes);
}

/* A COPY in many slices counts what it brings, and all of it is newer than what anybody was told of. caught_up: the
 * account has given as many MODSEQs meanwhile as the COPY had gone ahead. */
static void copy_counts(struct world *x, bool caught_up)
{
    struct tb_account *a = account(x);
    struct under_way u = {.op = {.done = change_done, .user = &u}};
    struct tb_index *ix = x->s.store->shard[0]->ix;
    struct tb_view *v;
    struct tb_uidset some;
    struct tb_disk_acct row;
    struct tb_row first;
    fill(x, a, 5000);
    put(x, "Archive", 3);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&some);
    tb_uidset_add(&some, 100, 3000);
    assert_int_equal(tb_flags_update(v, &some, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    tb_uidset_clear(&some);
    tb_uidset_add(&some, 2000, 4500);
    assert_int_equal(tb_flags_update(v, &some, TB_FLAGS_ADD, TB_FLAG_DELETED, 0, UINT64_MAX, NULL), TB_OK);
    tb_uidset_free(&some);
    assert_false(tb_change_start(v, TB_CHANGE_COPY, NULL, status(x, "Archive").mbox, &u.op, &u.change));
    (void)tb_worker_turn(x->s.w, false);
    assert_false(u.done);
    if (caught_up) {
        assert_true(tb_acct_get(ix, x->id.acct, &row));
        row.modseq += 1u << 25;
        tb_acct_put(ix, x->id.acct, &row);
    }
    assert_true(tb_acct_get(ix, x->id.acct, &row)); /* another session may be told of up to here */
    solo_until(&x->s, &u.done);
    assert_int_equal(u.op.rc, TB_OK);
    tb_change_free(u.change);
    tb_view_close(v);
    assert_int_equal(status(x, "Archive").messages, 5003);
    counted(x, "Archive");
    counted(x, "INBOX");
    assert_int_equal(tb_view_open(a, status(x, "Archive").mbox, &v), TB_OK);
    for (uint32_t uid = 4; uid <= 5003; uid++) {
        assert_int_equal(tb_view_row(v, uid, &first), TB_OK);
        assert_true(first.modseq > row.modseq);
    }
    assert_true(tb_acct_get(ix, x->id.acct, &row));
    assert_int_equal(row.modseq, first.modseq);
    assert_int_equal(row.messages, 5000 + 5003);
    tb_view_close(v);
    tb_account_close(a);
}

static void test_copy_counts(void **state)
{
    copy_counts(*state, false);
}

static void test_copy_counts_caught_up(void **state)
{
    copy_counts(*state, true);
}

/* RENAME of INBOX in slices: a step moves some, what is not moved yet is in INBOX, what arrives meanwhile stays. */
static void test_rename_inbox(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct tb_renaming left;
    struct tb_view *v;
    uint32_t bit, steps = 0;
    struct tb_uidset one;
    fill(x, a, 5000);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_keyword(a, TB_MBOX_INBOX, TB_SLICE("$Work"), true, &bit), TB_OK);
    tb_uidset_init(&one);
    tb_uidset_add(&one, 4000, 4000);
    assert_int_equal(tb_flags_update(v, &one, TB_FLAGS_ADD, 0, 1ull << bit, UINT64_MAX, NULL), TB_OK);
    tb_uidset_free(&one);
    tb_view_close(v);
    assert_int_equal(tb_mailbox_rename_start(a, TB_SLICE("INBOX"), TB_SLICE("2025/Old"), &left), TB_OK);
    assert_int_equal(left.mbox, status(x, "2025/Old").mbox);
    put(x, "INBOX", 3);
    for (; left.mbox != 0; steps++) {
        uint32_t there = status(x, "2025/Old").messages;
        assert_int_equal(tb_mailbox_rename_step(a, &left), TB_OK);
        assert_in_range(status(x, "2025/Old").messages - there, 0, 1024);
        assert_int_equal(status(x, "2025/Old").messages + status(x, "INBOX").messages, 5003);
        (void)tb_worker_turn(x->s.w, false);
    }
    assert_true(steps > 3);
    assert_int_equal(status(x, "INBOX").messages, 3);
    assert_int_equal(status(x, "2025/Old").messages, 5000);
    struct tb_row row;
    assert_int_equal(tb_view_open(a, status(x, "2025/Old").mbox, &v), TB_OK);
    assert_int_equal(tb_view_row(v, 4000, &row), TB_OK);
    assert_int_not_equal(row.keywords, 0);
    tb_view_close(v);

    put(x, "INBOX", 2000);
    assert_int_equal(tb_mailbox_rename_start(a, TB_SLICE("INBOX"), TB_SLICE("Other"), &left), TB_OK);
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("Other")), TB_OK);
    assert_int_equal(tb_mailbox_rename_step(a, &left), TB_NOTFOUND);
    assert_int_equal(status(x, "INBOX").messages, 2003);
    tb_account_close(a);
}

/* told: refresh until all is told; how many refreshes it took. None tells much more than 8,192 messages. */
static unsigned told(struct tb_view *v, uint32_t *removed, uint32_t *flags)
{
    struct tb_arena arena;
    struct tb_changes c;
    unsigned parts = 0;
    tb_arena_init(&arena, 1 << 20);
    *removed = *flags = 0;
    do {
        assert_int_equal(tb_view_refresh(v, true, &arena, &c), TB_OK);
        assert_in_range(c.removed, 0, 8192);
        assert_in_range(c.flags_n, 0, 8192 + 4096);
        for (uint32_t i = 1; i < c.removed; i++)
            assert_true(c.removed_seqno[i] < c.removed_seqno[i - 1]);
        *removed += c.removed;
        *flags += c.flags_n;
        parts++;
        tb_arena_reset(&arena);
    } while (c.more);
    assert_int_equal(tb_view_count(v), c.count);
    tb_arena_free(&arena);
    return parts;
}

static void test_told_in_parts(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct tb_view *v, *other;
    struct tb_uidset odd;
    uint32_t removed, flags;
    fill(x, a, 30000);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &other), TB_OK);
    assert_int_equal(tb_flags_update(v, NULL, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    assert_true(told(other, &removed, &flags) >= 3);
    assert_int_equal(removed, 0);
    assert_int_equal(flags, 30000);
    assert_int_equal(told(other, &removed, &flags), 1);
    assert_int_equal(flags, 0);
    tb_uidset_init(&odd);
    for (uint32_t uid = 1; uid <= 30000; uid += 2)
        tb_uidset_add(&odd, uid, uid);
    assert_int_equal(tb_delete(v, &odd), TB_OK);
    put(x, "INBOX", 7);
    assert_true(told(other, &removed, &flags) >= 2);
    assert_int_equal(removed, 15000);
    assert_int_equal(tb_view_count(other), 15007);
    assert_int_equal(tb_view_uid(other, 1), 2);
    assert_int_equal(tb_view_uid(other, 15000), 30000);
    assert_int_equal(tb_view_modseq(other), status(x, "INBOX").highestmodseq);
    tb_uidset_free(&odd);
    tb_view_close(v);
    tb_view_close(other);
    tb_account_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_move_and_expunge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_is_staged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mailbox_goes_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_counts_caught_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rename_inbox, setup, teardown),
        cmocka_unit_test_setup_teardown(test_told_in_parts, setup, teardown),
    };
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("change", tests, NULL, NULL);
}
