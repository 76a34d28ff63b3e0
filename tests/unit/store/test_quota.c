/*
 * test_quota.c: what an account counts is what it holds, after any history, a restart, and an index made anew from the
 * log; and no history gets over a limit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/check.h>
#include <tambo/quota.h>
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

struct world {
    struct solo s;
    struct tb_account_id id;
    uint64_t seed;
};

static const struct tb_store_config config = {.trash_days = 5, .copy_slice = 2};

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, false, 1);
    solo_open(&x->s, config);
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

static void limit(struct world *x, uint64_t bytes, uint64_t messages, uint32_t mailboxes)
{
    struct tb_account *a = account(x);
    struct tb_quota q = {bytes, messages, mailboxes};
    assert_int_equal(tb_quota_set(a, &q), TB_OK);
    tb_account_close(a);
}

/* used: what the account counts; it is what its mailboxes hold, and within its limits. */
static struct tb_quota used(struct world *x)
{
    struct tb_account *a = account(x);
    struct tb_quota max, now, sum = {0};
    struct tb_arena arena;
    struct tb_mailbox *v;
    size_t n;
    tb_arena_init(&arena, 1 << 20);
    assert_int_equal(tb_mailbox_list(a, &arena, &v, &n), TB_OK);
    for (size_t i = 0; i < n; i++) {
        sum.messages += v[i].messages;
        sum.bytes += v[i].bytes;
        sum.mailboxes += v[i].selectable;
    }
    assert_int_equal(tb_quota_get(a, &max, &now), TB_OK);
    assert_int_equal(now.messages, sum.messages);
    assert_int_equal(now.bytes, sum.bytes);
    assert_int_equal(now.mailboxes, sum.mailboxes);
    assert_true(max.messages == 0 || now.messages <= max.messages);
    assert_true(max.bytes == 0 || now.bytes <= max.bytes);
    assert_true(max.mailboxes == 0 || now.mailboxes <= max.mailboxes);
    tb_arena_free(&arena);
    tb_account_close(a);
    return now;
}

/* put: one message of about 40 bytes into each of the mailboxes. */
static enum tb_rc put(struct world *x, const char *const *mailbox, size_t n, bool atomic, enum tb_rc *rc)
{
    struct tb_delivery_target t[4];
    struct tb_delivery *d;
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    memset(t, 0, sizeof(t));
    assert_int_equal(tb_delivery_begin(x->s.w, 1 << 20, &d), TB_OK);
    for (size_t i = 0; i < n; i++) {
        t[i].id = x->id;
        t[i].mailbox = tb_slice_str(mailbox[i]);
        assert_int_equal(tb_delivery_add(d, &t[i]), TB_OK);
    }
    assert_true(tb_delivery_write(d, TB_SLICE("Subject: quota\r\n\r\nforty bytes or so.\r\n"), &op));
    tb_delivery_commit(d, atomic, &op);
    solo_until(&x->s, &flag);
    for (size_t i = 0; rc != NULL && i < n; i++)
        rc[i] = t[i].rc;
    return op.rc;
}

static uint32_t number(struct world *x, struct tb_account *a, const char *name)
{
    (void)x;
    return tb_mailbox_number(a->shard, a->acct, tb_slice_str(name));
}

static uint32_t dice(struct world *x, uint32_t n)
{
    x->seed = x->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(x->seed >> 33) % n;
}

static const char *const names[] = {"INBOX", "a", "a/b", "c", "c/d/e", "f"};

/* change: messages of one mailbox into another, or away. */
static void change(struct world *x, enum tb_change_kind kind)
{
    struct tb_account *a = account(x);
    struct tb_view *v;
    uint32_t src = number(x, a, names[dice(x, 6)]), dst = number(x, a, names[dice(x, 6)]);
    if (src != 0 && dst != 0 && src != dst && tb_view_open(a, src, &v) == TB_OK) {
        struct tb_copied c = {0};
        enum tb_rc rc = kind == TB_CHANGE_COPY   ? tb_copy(v, tb_view_uids(v), dst, &c)
                        : kind == TB_CHANGE_MOVE ? tb_move(v, tb_view_uids(v), dst, &c)
                                                 : tb_delete(v, tb_view_uids(v));
        assert_true(rc == TB_OK || rc == TB_OVERQUOTA || rc == TB_BUSY);
        tb_copied_free(&c);
        tb_view_close(v);
    }
    tb_account_close(a);
}

static void rename_or_create(struct world *x, bool create)
{
    struct tb_account *a = account(x);
    struct tb_slice from = tb_slice_str(names[dice(x, 6)]), to = tb_slice_str(names[dice(x, 6)]);
    enum tb_rc rc = create ? tb_mailbox_create(a, to, 0, NULL) : tb_mailbox_rename(a, from, to);
    assert_true(rc == TB_OK || rc == TB_OVERQUOTA || rc == TB_EXISTS || rc == TB_NOTFOUND || rc == TB_INVALID);
    tb_account_close(a);
}

static void step(struct world *x)
{
    const char *one = names[dice(x, 6)];
    struct tb_account *a;
    switch (dice(x, 8)) {
    case 0:
    case 1:
    case 2:
        assert_true(put(x, &one, 1, true, NULL) != TB_LIMIT);
        break;
    case 3:
        change(x, TB_CHANGE_COPY);
        break;
    case 4:
        change(x, dice(x, 2) ? TB_CHANGE_MOVE : TB_CHANGE_DELETE);
        break;
    case 5:
        rename_or_create(x, false);
        break;
    case 6:
        rename_or_create(x, true);
        break;
    default:
        a = account(x);
        if (dice(x, 3) == 0)
            assert_true(tb_mailbox_delete(a, tb_slice_str(one)) != TB_LIMIT);
        tb_account_close(a);
        break;
    }
}

static void found(void *user, const struct tb_finding *f)
{
    (void)user;
    print_message("%s: %s\n", f->object, f->what);
}

/* again: stop, let the checker look, and open; fresh: with an index made anew from the whole log. */
static void again(struct world *x, bool fresh)
{
    struct tb_quota before = used(x);
    struct tb_check_options opt = {.found = found};
    struct tb_check_stat stat = {0};
    struct tb_error err = {0};
    struct tb_io *io;
    solo_stop(&x->s);
    assert_int_equal(tb_io_open(TB_IO_POSIX, &io, &err), TB_OK);
    assert_int_equal(tb_store_check(io, x->s.dir, &opt, &stat, &err), TB_OK);
    assert_int_equal(stat.damage, 0);
    if (fresh)
        assert_int_equal(tb_store_rebuild(io, x->s.dir, TB_EVERY_SHARD, &err), TB_OK);
    tb_io_close(io);
    solo_open(&x->s, config);
    struct tb_quota after = used(x);
    assert_int_equal(before.messages, after.messages);
    assert_int_equal(before.bytes, after.bytes);
    assert_int_equal(before.mailboxes, after.mailboxes);
}

static void test_any_history(void **state)
{
    struct world *x = *state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        x->seed = seed;
        print_message("seed %llu\n", (unsigned long long)seed);
        limit(x, 0, 0, 0);
        for (unsigned i = 0; i < 40; i++) {
            step(x);
            (void)used(x);
        }
        struct tb_quota now = used(x);
        limit(x, now.bytes + 300, now.messages + 6, now.mailboxes + 1);
        for (unsigned i = 0; i < 120; i++) {
            step(x);
            (void)used(x);
        }
        again(x, seed % 2 == 0);
    }
}

static void test_one_message_twice(void **state)
{
    struct world *x = *state;
    static const char *const three[] = {"INBOX", "Sent", "Junk"};
    enum tb_rc rc[3];
    limit(x, 0, 2, 0);
    assert_int_equal(put(x, three, 3, true, rc), TB_OVERQUOTA);
    assert_int_equal(used(x).messages, 0);
    assert_int_equal(put(x, three, 3, false, rc), TB_OVERQUOTA);
    assert_int_equal(rc[0], TB_OK);
    assert_int_equal(rc[1], TB_OK);
    assert_int_equal(rc[2], TB_OVERQUOTA);
    assert_int_equal(used(x).messages, 2);
}

/* Of a COPY in slices none is visible until all are: one that gets over the limit in its midst leaves nothing. */
static void test_copy_in_slices(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct tb_view *v;
    struct tb_copied c;
    solo_put(&x->s, x->id, "INBOX", 7);
    limit(x, 0, 13, 0);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_copy(v, tb_view_uids(v), number(x, a, "Sent"), &c), TB_OVERQUOTA);
    tb_copied_free(&c);
    assert_int_equal(used(x).messages, 7);
    limit(x, 0, 14, 0);
    for (unsigned i = 0; i < 200 && a->shard->x.state.staged > 0; i++)
        (void)tb_worker_turn(x->s.w, false);
    while (a->shard->x.state.staged > 0)
        (void)tb_worker_turn(x->s.w, true);
    assert_int_equal(tb_copy(v, tb_view_uids(v), number(x, a, "Sent"), &c), TB_OK);
    tb_copied_free(&c);
    assert_int_equal(used(x).messages, 14);
    tb_view_close(v);
    tb_account_close(a);
    again(x, true);
}

/* An account of a store from before mailboxes were counted: its first limits count them. */
static void test_not_counted_yet(void **state)
{
    struct world *x = *state;
    struct tb_account *a = account(x);
    struct tb_disk_acct row;
    assert_true(tb_acct_get(a->shard->ix, a->acct, &row));
    row.mailboxes = 0;
    tb_acct_put(a->shard->ix, a->acct, &row);
    assert_int_equal(tb_mailbox_create(a, TB_SLICE("new"), 0, NULL), TB_OK);
    assert_int_equal(used(x).mailboxes, 7);
    limit(x, 0, 0, 8);
    assert_int_equal(tb_mailbox_create(a, TB_SLICE("newer"), 0, NULL), TB_OK);
    assert_int_equal(tb_mailbox_create(a, TB_SLICE("newest"), 0, NULL), TB_OVERQUOTA);
    assert_int_equal(used(x).mailboxes, 8);
    tb_account_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_history, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_message_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy_in_slices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_counted_yet, setup, teardown),
    };
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
