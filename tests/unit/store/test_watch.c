/*
 * test_watch.c: what a watch tells of an account: each kind of change, in order, once; what is left out; what happens
 * when it is not read, and when its shard fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/acl.h>
#include <tambo/annot.h>
#include <tambo/watch.h>
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

enum { BOB = 4711, ALL = 10000 };
struct world {
    struct solo s;
    struct tb_account_id id;
    struct tb_account *a;
    struct tb_watch *w;
    struct tb_arena arena;
    struct tb_watch_news news;
    unsigned fired;
};

static void fired(void *user)
{
    ((struct world *)user)->fired++;
}

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, true, 1);
    solo_open(&x->s, (struct tb_store_config){.trash_days = 5});
    x->id = solo_account(&x->s, "ann");
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
    assert_int_equal(tb_watch_start(x->a, x->id.acct, 7, fired, x, &x->w), TB_OK);
    tb_arena_init(&x->arena, 8 << 20);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct world *x = *state;
    tb_watch_stop(x->w);
    tb_account_close(x->a);
    tb_arena_free(&x->arena);
    solo_end(&x->s);
    free(x);
    return 0;
}

/* take: after the loop has turned; how many mailboxes and events there were. */
static void take(struct world *x, size_t mailboxes, size_t events)
{
    (void)tb_worker_turn(x->s.w, false);
    tb_arena_reset(&x->arena);
    assert_int_equal(tb_watch_take(x->w, ALL, &x->arena, &x->news), TB_OK);
    assert_int_equal(x->news.mailboxes_n, mailboxes);
    assert_int_equal(x->news.events_n, events);
    assert_false(x->news.more);
    assert_int_equal(x->fired > 0, mailboxes + events > 0);
    x->fired = 0;
}

static void is_event(const struct world *x, size_t i, enum tb_watch_kind kind, uint32_t mbox, const char *name)
{
    const struct tb_watch_event *e = &x->news.events[i];
    assert_int_equal(e->kind, kind);
    if (mbox != 0)
        assert_int_equal(e->mbox, mbox);
    assert_true(tb_slice_eq(e->name, tb_slice_str(name)));
}

static void is_mailbox(const struct world *x, size_t i, uint32_t mbox, uint8_t what)
{
    assert_int_equal(x->news.mailboxes[i].mbox, mbox);
    assert_int_equal(x->news.mailboxes[i].what, what);
}

static struct tb_slice name(const char *text)
{
    return tb_slice_str(text);
}

static void test_names(void **state)
{
    struct world *x = *state;
    uint32_t mbox;
    take(x, 0, 0);
    assert_int_equal(tb_mailbox_create(x->a, name("a/b"), 0, &mbox), TB_OK);
    take(x, 0, 2); /* the parent is made too */
    is_event(x, 1, TB_WATCH_CREATED, mbox, "");
    assert_int_equal(tb_mailbox_rename(x->a, name("a/b"), name("a/c")), TB_OK);
    assert_int_equal(tb_mailbox_subscribe(x->a, name("a/c"), true), TB_OK);
    assert_int_equal(tb_mailbox_subscribe(x->a, name("a/c"), true), TB_OK); /* no change */
    assert_int_equal(tb_mailbox_delete(x->a, name("a")), TB_OK);            /* its name stays */
    assert_int_equal(tb_mailbox_delete(x->a, name("a/c")), TB_OK);
    take(x, 0, 4);
    is_event(x, 0, TB_WATCH_RENAMED, mbox, "a/b");
    is_event(x, 1, TB_WATCH_SUBSCRIBED, 0, "a/c");
    assert_true(x->news.events[1].on);
    is_event(x, 2, TB_WATCH_DELETED, 0, "a");
    is_event(x, 3, TB_WATCH_DELETED, mbox, "a/c");
    struct tb_annot v[] = {{name("/shared/x"), name("1")}, {name("/private/y"), {NULL, 0}}};
    assert_int_equal(tb_annot_set(x->a, TB_MBOX_INBOX, v, 2), TB_OK);
    assert_int_equal(tb_annot_set(x->a, 0, v, 1), TB_OK);
    take(x, 0, 3);
    is_event(x, 0, TB_WATCH_ANNOTATED, TB_MBOX_INBOX, "/shared/x");
    is_event(x, 1, TB_WATCH_ANNOTATED, TB_MBOX_INBOX, "/private/y");
    is_event(x, 2, TB_WATCH_ANNOTATED, 0, "/shared/x");
    assert_int_equal(x->news.events[2].mbox, 0);
    assert_true(x->news.events[0].on && !x->news.events[1].on);
}

static void test_messages(void **state)
{
    struct world *x = *state;
    struct tb_view *v;
    struct tb_uidset all;
    struct tb_copied c;
    uint32_t box;
    assert_int_equal(tb_mailbox_create(x->a, name("box"), 0, &box), TB_OK);
    take(x, 0, 1);
    solo_put(&x->s, x->id, "INBOX", 5);
    take(x, 1, 0); /* five messages are one note */
    is_mailbox(x, 0, TB_MBOX_INBOX, TB_WATCH_NEW);
    assert_int_equal(tb_view_open(x->a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&all);
    tb_uidset_add(&all, 1, 2);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_FLAGGED, 0, UINT64_MAX, NULL), TB_OK);
    take(x, 1, 0);
    is_mailbox(x, 0, TB_MBOX_INBOX, TB_WATCH_FLAGS);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_FLAGGED, 0, UINT64_MAX, NULL), TB_OK);
    take(x, 0, 0);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    assert_int_equal(tb_copy(v, &all, box, &c), TB_OK);
    tb_copied_free(&c);
    take(x, 2, 0);
    is_mailbox(x, 0, TB_MBOX_INBOX, TB_WATCH_FLAGS | TB_WATCH_SEEN);
    is_mailbox(x, 1, box, TB_WATCH_NEW);
    assert_int_equal(tb_move(v, &all, box, &c), TB_OK);
    tb_copied_free(&c);
    assert_int_equal(tb_delete(v, NULL), TB_OK);
    take(x, 2, 0);
    is_mailbox(x, 0, TB_MBOX_INBOX, TB_WATCH_GONE);
    is_mailbox(x, 1, box, TB_WATCH_NEW);
    tb_uidset_free(&all);
    tb_view_close(v);
}

/* test_own: what is done under the watch's name is left out, also in slices; what others do is not. */
static void test_own(void **state)
{
    struct world *x = *state;
    tb_self(x->s.w, 7);
    assert_int_equal(tb_mailbox_create(x->a, name("mine"), 0, NULL), TB_OK);
    solo_put(&x->s, x->id, "INBOX", 1);
    take(x, 0, 0);
    tb_self(x->s.w, 8);
    assert_int_equal(tb_mailbox_create(x->a, name("hers"), 0, NULL), TB_OK);
    tb_self(x->s.w, 0);
    solo_put(&x->s, x->id, "INBOX", 1);
    take(x, 1, 1);
    assert_true(tb_self_new(x->s.store) != tb_self_new(x->s.store));
}

/* test_rights: another user is told of the names that it may look up, and of what it may do. */
static void test_rights(void **state)
{
    struct world *x = *state;
    struct tb_acl_entry e = {.user = BOB, .rights = TB_RIGHT_LOOKUP | TB_RIGHT_READ, .name = TB_SLICE("bob")};
    uint32_t mbox;
    tb_watch_stop(x->w);
    assert_int_equal(tb_watch_start(x->a, BOB, 0, fired, x, &x->w), TB_OK);
    assert_int_equal(tb_mailbox_create(x->a, name("box"), 0, &mbox), TB_OK);
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    take(x, 0, 1); /* made, with these rights */
    is_event(x, 0, TB_WATCH_CREATED, mbox, "");
    e.rights = TB_RIGHT_LOOKUP;
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    assert_int_equal(tb_mailbox_rename(x->a, name("box"), name("new")), TB_OK);
    take(x, 0, 2);
    is_event(x, 0, TB_WATCH_RIGHTS, mbox, "");
    assert_int_equal(x->news.events[0].rights, TB_RIGHT_LOOKUP | TB_RIGHT_READ);
    is_event(x, 1, TB_WATCH_RENAMED, mbox, "box");
    e.rights = 0;
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    assert_int_equal(tb_mailbox_rename(x->a, name("new"), name("secret")), TB_OK);
    assert_int_equal(tb_mailbox_delete(x->a, name("secret")), TB_OK);
    take(x, 0, 1);
    is_event(x, 0, TB_WATCH_RIGHTS, mbox, "new"); /* by the name it knew */
}

/* test_shares: of a shard, who begins to share something with a user; nothing else. */
static void test_shares(void **state)
{
    struct world *x = *state;
    struct tb_acl_entry e = {.user = BOB, .rights = TB_RIGHT_LOOKUP, .name = TB_SLICE("bob")};
    uint32_t mbox;
    tb_watch_stop(x->w);
    assert_int_equal(tb_watch_shares(x->s.w, 0, BOB, 7, fired, x, &x->w), TB_OK);
    assert_int_equal(tb_mailbox_create(x->a, name("box"), 0, &mbox), TB_OK);
    solo_put(&x->s, x->id, "INBOX", 1);
    take(x, 0, 0);
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    take(x, 0, 1);
    is_event(x, 0, TB_WATCH_SHARED, mbox, "");
    assert_int_equal(x->news.events[0].acct, x->id.acct);
    e.negative = true; /* less than before, somebody else, and oneself */
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    e = (struct tb_acl_entry){.user = BOB + 1, .rights = TB_RIGHT_LOOKUP, .name = TB_SLICE("eve")};
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    e = (struct tb_acl_entry){.user = BOB, .name = TB_SLICE("bob")};
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    take(x, 0, 0);
    e = (struct tb_acl_entry){.user = TB_ACL_ANYONE, .rights = TB_RIGHT_LOOKUP, .name = TB_SLICE("anyone")};
    assert_int_equal(tb_acl_set(x->a, mbox, &e), TB_OK);
    take(x, 0, 1);
    tb_watch_touch(x->w, mbox);
    take(x, 1, 0);
    is_mailbox(x, 0, mbox, TB_WATCH_NEW | TB_WATCH_GONE | TB_WATCH_FLAGS | TB_WATCH_SEEN);
}

/* test_pieces: what is taken in pieces is all there, in order. */
static void test_pieces(void **state)
{
    struct world *x = *state;
    char text[16];
    for (unsigned i = 0; i < 10; i++) {
        (void)snprintf(text, sizeof(text), "n%u", i);
        assert_int_equal(tb_mailbox_subscribe(x->a, name(text), true), TB_OK);
    }
    solo_put(&x->s, x->id, "INBOX", 1);
    solo_put(&x->s, x->id, "Sent", 1);
    unsigned seen = 0;
    do {
        assert_int_equal(tb_watch_take(x->w, 3, &x->arena, &x->news), TB_OK);
        assert_int_equal(x->news.mailboxes_n, seen == 0 ? 2 : 0);
        for (size_t k = 0; k < x->news.events_n; k++, seen++) {
            (void)snprintf(text, sizeof(text), "n%u", seen < 10 ? seen : 0);
            is_event(x, k, TB_WATCH_SUBSCRIBED, 0, text);
        }
        if (seen == 3) /* what comes meanwhile comes behind */
            assert_int_equal(tb_mailbox_subscribe(x->a, name("n0"), false), TB_OK);
    } while (x->news.more);
    assert_int_equal(seen, 11);
    assert_false(x->news.events[x->news.events_n - 1].on);
}

/* test_full: a watch that nobody reads keeps no more than it says, and tells that it lost something. */
static void test_full(void **state)
{
    struct world *x = *state;
    for (unsigned i = 0; i <= TB_WATCH_EVENTS_MAX; i++)
        assert_int_equal(tb_mailbox_subscribe(x->a, name("n"), i % 2 == 0), TB_OK);
    (void)tb_worker_turn(x->s.w, false);
    assert_true(x->fired > 0);
    assert_int_equal(tb_watch_take(x->w, ALL, &x->arena, &x->news), TB_LIMIT);
    tb_watch_stop(x->w);
    assert_int_equal(tb_watch_start(x->a, x->id.acct, 7, fired, x, &x->w), TB_OK);
    char text[TB_MBOX_LEAF_MAX + 1];
    memset(text, 'x', sizeof(text));
    text[TB_MBOX_LEAF_MAX - 4] = '\0';
    for (unsigned i = 0; i <= TB_WATCH_NAMES_MAX / (TB_MBOX_LEAF_MAX - 4); i++) {
        text[0] = (char)('a' + i % 26);
        assert_int_equal(tb_mailbox_subscribe(x->a, name(text), i % 52 < 26), TB_OK);
    }
    assert_int_equal(tb_watch_take(x->w, ALL, &x->arena, &x->news), TB_LIMIT);
    tb_watch_stop(x->w);
    assert_int_equal(tb_watch_start(x->a, x->id.acct, 7, fired, x, &x->w), TB_OK);
    x->fired = 0;
    take(x, 0, 0); /* a new one begins anew */
}

/* test_lost: when the shard fails the watch ends, and holds nothing that keeps it from being rebuilt. */
static void test_lost(void **state)
{
    struct world *x = *state;
    struct tb_error err;
    tb_account_close(x->a);
    (void)tb_error_set(&err, TB_IO, 0, "a test");
    struct tb_shard *s = tb_shard_of(x->s.w, 0);
    assert_int_equal(s->accounts_open, 1);
    tb_shard_fail(s, &err);
    (void)tb_worker_turn(x->s.w, false);
    (void)tb_worker_turn(x->s.w, false);
    assert_true(x->fired > 0);
    assert_int_equal(s->accounts_open, 0);
    assert_int_equal(s->watches, 0);
    assert_int_equal(tb_watch_take(x->w, ALL, &x->arena, &x->news), TB_IO);
    for (unsigned i = 0; i < 100000 && !tb_store_serves(x->s.store, x->id); i++)
        (void)tb_worker_turn(x->s.w, true);
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
    assert_int_equal(tb_watch_take(x->w, ALL, &x->arena, &x->news), TB_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shares, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
