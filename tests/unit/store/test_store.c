/*
 * test_store.c: the store through its doors on a real folder: what was acknowledged is there, byte for byte, after a
 * stop and after a crash (everything un-stopped thrown away); flags, copies, moves, expunges, names; a message far over
 * a chunk; several shards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include "tests/lib/solo.h"

static const struct tb_store_config config = {.trash_days = 1};

static void world_new(struct solo *x, uint32_t shards)
{
    solo_new(x, false, shards);
    solo_open(x, config);
}

static struct tb_account *open_account(struct solo *x, struct tb_account_id id)
{
    struct tb_account *a;
    assert_int_equal(tb_account_open(x->w, id, &a), TB_OK);
    return a;
}

/* message: deterministic text of about n bytes, CRLF, different for every seed. */
static struct tb_buf message(unsigned seed, size_t n)
{
    struct tb_buf b;
    char line[128];
    tb_buf_init(&b, n + 4096);
    (void)snprintf(line, sizeof(line),
                   "From: a%u@example.test\r\nSubject: message %u\r\nDate: Mon, 7 Feb 1994 21:52:25 -0800\r\n\r\n",
                   seed, seed);
    tb_buf_str(&b, line);
    for (unsigned i = 0; b.len < n; i++) {
        (void)snprintf(line, sizeof(line), "line %u of %u, %08x %08x\r\n", i, seed, (unsigned)rand_r(&seed),
                       (unsigned)rand_r(&seed));
        tb_buf_str(&b, line);
    }
    assert_false(b.failed);
    return b;
}

static enum tb_rc deliver(struct solo *x, struct tb_delivery_target *t, size_t n, struct tb_slice msg, bool atomic)
{
    struct tb_delivery *d;
    assert_int_equal(tb_delivery_begin(x->w, 200 << 20, &d), TB_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tb_delivery_add(d, &t[i]), TB_OK);
    for (size_t at = 0; at < msg.len; at += 50000) {
        bool flag = false;
        struct tb_op op = {.done = solo_done, .user = &flag};
        if (!tb_delivery_write(d, tb_slice_sub(msg, at, 50000), &op))
            solo_until(x, &flag);
    }
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    tb_delivery_commit(d, atomic, &op);
    solo_until(x, &flag);
    return op.rc;
}

static void check_bytes(struct solo *x, struct tb_view *v, uint32_t uid, struct tb_slice want)
{
    struct tb_body *b;
    assert_int_equal(tb_body_open(v, uid, &b), TB_OK);
    assert_int_equal(tb_body_size(b), want.len);
    for (size_t at = 0; at < want.len;) {
        bool flag = false;
        struct tb_op op = {.done = solo_done, .user = &flag};
        tb_body_read(b, at, &op);
        solo_until(x, &flag);
        assert_int_equal(op.rc, TB_OK);
        assert_true(op.data.len > 0 && op.data.len <= want.len - at);
        assert_memory_equal(op.data.ptr, want.ptr + at, op.data.len);
        at += op.data.len;
    }
    tb_body_close(b);
}

static void deliver_one(struct solo *x, struct tb_account_id id, unsigned seed, size_t n, uint32_t *uid)
{
    struct tb_buf m = message(seed, n);
    struct tb_delivery_target t = {.id = id, .mbox = TB_MBOX_INBOX, .internaldate = 1000 + seed};
    assert_int_equal(deliver(x, &t, 1, tb_buf_all(&m), false), TB_OK);
    *uid = t.uid;
    tb_buf_free(&m);
}

static void check_inbox(struct solo *x, struct tb_account_id id, unsigned n, size_t bytes)
{
    struct tb_account *a = open_account(x, id);
    struct tb_view *v;
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_view_count(v), n);
    for (unsigned i = 1; i <= n; i++) {
        struct tb_buf m = message(i, bytes);
        struct tb_cached c;
        check_bytes(x, v, i, tb_buf_all(&m));
        assert_int_equal(tb_cached_get(v, i, &c), TB_OK);
        assert_true(c.envelope.len > 20 && c.envelope.ptr[0] == '(');
        tb_buf_free(&m);
    }
    tb_view_close(v);
    tb_account_close(a);
}

static void test_stop_and_crash(void **state)
{
    struct solo x;
    uint32_t uid;
    (void)state;
    world_new(&x, 2);
    struct tb_account_id id = solo_account(&x, "Alice");
    for (unsigned i = 1; i <= 50; i++) {
        deliver_one(&x, id, i, 9000, &uid);
        assert_int_equal(uid, i);
    }
    check_inbox(&x, id, 50, 9000);
    solo_stop(&x);
    solo_open(&x, config);
    check_inbox(&x, id, 50, 9000);
    for (unsigned i = 51; i <= 80; i++)
        deliver_one(&x, id, i, 9000, &uid);
    assert_int_equal(uid, 80);
    tb_worker_close(x.w); /* a crash: no last checkpoint; the log has it all */
    tb_store_close(x.store);
    tb_io_close(x.io);
    solo_open(&x, config);
    check_inbox(&x, id, 80, 9000);
    solo_end(&x);
}

/* check_edges: the sizes around which a body is cut differently. */
static void check_edges(struct solo *x)
{
    static const size_t edges[] = {
        256 << 10, (1 << 20) - 90, 1 << 20, (1 << 20) + 90, (1 << 20) + (200 << 10), (1 << 20) + (256 << 10), 2 << 20};
    struct tb_account_id id = solo_account(x, "edges");
    struct tb_account *a = open_account(x, id);
    struct tb_buf m;
    for (unsigned i = 0; i < TB_ARRAY_LEN(edges); i++) {
        struct tb_view *v;
        m = message(100 + i, edges[i]);
        struct tb_delivery_target one = {.id = id, .mbox = TB_MBOX_INBOX};
        assert_int_equal(deliver(x, &one, 1, tb_buf_all(&m), true), TB_OK);
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        check_bytes(x, v, one.uid, tb_buf_all(&m));
        tb_view_close(v);
        tb_buf_free(&m);
    }
    tb_account_close(a);
}

static void test_large(void **state)
{
    struct solo x;
    (void)state;
    world_new(&x, 2);
    struct tb_delivery_target t[2] = {{.id = solo_account(&x, "one"), .mbox = TB_MBOX_INBOX}, {.mbox = TB_MBOX_INBOX}};
    for (int i = 0; t[1].id.acct == 0 || t[1].id.shard == t[0].id.shard; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "two%d", i);
        t[1].id = solo_account(&x, name);
    }
    struct tb_buf m = message(7, 9 << 20);
    for (int atomic = 0; atomic < 2; atomic++) {
        assert_int_equal(deliver(&x, t, 2, tb_buf_all(&m), atomic), TB_OK);
        for (int k = 0; k < 2; k++) {
            struct tb_account *a = open_account(&x, t[k].id);
            struct tb_view *v;
            for (int i = 0; i < 1000; i++) { /* an atomic one arrives through the queue a few turns later */
                struct tb_arena arena;
                struct tb_mailbox box;
                tb_arena_init(&arena, 4096);
                assert_int_equal(tb_mailbox_find(a, TB_SLICE("inbox"), &arena, &box), TB_OK);
                tb_arena_free(&arena);
                if (box.messages == (uint32_t)atomic + 1)
                    break;
                (void)tb_worker_turn(x.w, true);
            }
            assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
            assert_int_equal(tb_view_count(v), atomic + 1);
            check_bytes(&x, v, (uint32_t)atomic + 1, tb_buf_all(&m));
            tb_view_close(v);
            tb_account_close(a);
        }
    }
    tb_buf_free(&m);
    check_edges(&x);
    solo_end(&x);
}

/* check_names: a subtree renamed, a mailbox deleted. */
static void check_names(struct tb_account *a, struct tb_arena *arena)
{
    struct tb_mailbox *list, box;
    size_t n;
    assert_int_equal(tb_mailbox_rename(a, TB_SLICE("Projects"), TB_SLICE("Old/Work")), TB_OK);
    assert_int_equal(tb_mailbox_list(a, arena, &list, &n), TB_OK);
    assert_int_equal(n, 9);
    assert_true(tb_slice_eq(list[0].name, TB_SLICE("INBOX")));
    assert_int_equal(list[0].messages, 187);
    assert_int_equal(tb_mailbox_find(a, TB_SLICE("Old/Work/\xc3\xa4"), arena, &box), TB_OK);
    assert_int_equal(box.messages, 13);
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("inbox")), TB_INVALID);
    assert_int_equal(tb_mailbox_delete(a, TB_SLICE("Old/Work/\xc3\xa4")), TB_OK);
    assert_int_equal(tb_mailbox_find(a, TB_SLICE("Old/Work/\xc3\xa4"), arena, &box), TB_NOTFOUND);
}

static void test_flags_copy_expunge(void **state)
{
    struct solo x;
    uint32_t uid, work, bit;
    (void)state;
    world_new(&x, 1);
    struct tb_account_id id = solo_account(&x, "bob@example.test");
    for (unsigned i = 1; i <= 200; i++)
        deliver_one(&x, id, i, 500, &uid);
    struct tb_account *a = open_account(&x, id);
    struct tb_view *v, *other;
    struct tb_arena arena;
    struct tb_changes ch;
    struct tb_uidset set;
    tb_arena_init(&arena, 1 << 20);
    tb_uidset_init(&set);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &other), TB_OK);
    assert_int_equal(tb_keyword(a, TB_MBOX_INBOX, TB_SLICE("$Work"), true, &bit), TB_OK);
    tb_uidset_add(&set, 10, 19);
    assert_int_equal(tb_flags_update(v, &set, TB_FLAGS_ADD, TB_FLAG_DELETED, 1u << bit, UINT64_MAX, NULL), TB_OK);
    assert_int_equal(tb_view_refresh(other, false, &arena, &ch), TB_OK);
    assert_int_equal(ch.flags_n, 10);
    assert_int_equal(ch.flags[0].uid, 10);
    assert_int_equal(ch.flags[0].flags, TB_FLAG_DELETED);
    assert_true(ch.keywords_changed);
    assert_int_equal(tb_mailbox_create(a, TB_SLICE("Projects/\xc3\xa4"), 0, &work), TB_OK);
    assert_int_equal(tb_mailbox_create(a, TB_SLICE("Projects/a\xcc\x88"), 0, &work), TB_EXISTS); /* the same in NFC */
    struct tb_copied c;
    tb_uidset_clear(&set);
    tb_uidset_add(&set, 15, 24);
    assert_int_equal(tb_copy(v, &set, work, &c), TB_OK);
    assert_int_equal(tb_uidset_count(&c.from), 10);
    assert_int_equal(c.to.v[0].first, 1);
    tb_copied_free(&c);
    assert_int_equal(tb_expunge(v, NULL, NULL), TB_OK);
    assert_int_equal(tb_view_refresh(other, false, &arena, &ch), TB_OK);
    assert_int_equal(ch.count, 200);
    assert_int_equal(tb_view_refresh(other, true, &arena, &ch), TB_OK);
    assert_int_equal(ch.removed, 10);
    assert_int_equal(ch.removed_seqno[0], 19);
    assert_int_equal(ch.removed_seqno[9], 10);
    assert_int_equal(tb_view_seqno(other, 20), 10);
    assert_int_equal(tb_view_uid(other, 10), 20);
    tb_uidset_clear(&set);
    tb_uidset_add(&set, 1, 3);
    assert_int_equal(tb_move(v, &set, work, &c), TB_OK);
    tb_copied_free(&c);
    tb_view_close(v);
    tb_view_close(other);
    assert_int_equal(tb_view_open(a, work, &v), TB_OK);
    assert_int_equal(tb_view_count(v), 13);
    struct tb_buf m = message(15, 500);
    check_bytes(&x, v, 1, tb_buf_all(&m));
    tb_buf_free(&m);
    m = message(3, 500);
    check_bytes(&x, v, 13, tb_buf_all(&m));
    tb_buf_free(&m);
    struct tb_row row;
    assert_int_equal(tb_view_row(v, 1, &row), TB_OK);
    assert_int_equal(row.flags, TB_FLAG_DELETED);
    assert_int_equal(row.keywords, 1);
    tb_view_close(v);
    check_names(a, &arena);
    tb_account_close(a);
    tb_uidset_free(&set);
    tb_arena_free(&arena);
    solo_end(&x);
}

/* ---- what changed since (RFC 7162), against what was done ---- */

enum { SINCE_STEPS = 400, SINCE_UIDS = 600 };
struct history {
    uint64_t expunged[SINCE_UIDS]; /* modseq of it; 0: not (yet) */
    uint64_t then[SINCE_STEPS];    /* the mailbox's modseq after each step */
    uint32_t uidnext;
};

static void check_since(struct tb_view *v, const struct history *h, uint64_t since, const struct tb_uidset *known)
{
    struct tb_since got;
    assert_int_equal(tb_view_since(v, since, known, true, &got), TB_OK);
    for (uint32_t uid = 1; uid < h->uidnext; uid++) {
        struct tb_row row;
        bool asked = known == NULL || tb_uidset_has(known, uid), there = tb_view_row(v, uid, &row) == TB_OK;
        if (tb_uidset_has(&got.changed, uid) != (asked && there && row.modseq > since))
            fail_msg("uid %u since %llu: changed is %d", uid, (unsigned long long)since,
                     (int)tb_uidset_has(&got.changed, uid));
        if (tb_uidset_has(&got.vanished, uid) != (asked && h->expunged[uid] > since))
            fail_msg("uid %u since %llu: vanished is %d", uid, (unsigned long long)since,
                     (int)tb_uidset_has(&got.vanished, uid));
    }
    assert_false(tb_uidset_has(&got.vanished, h->uidnext));
    tb_since_free(&got);
}

static uint64_t modseq_now(struct tb_account *a, struct tb_arena *arena)
{
    struct tb_mailbox m;
    assert_int_equal(tb_mailbox_get(a, TB_MBOX_INBOX, arena, &m), TB_OK);
    return m.highestmodseq;
}

static void since_step(struct solo *x, struct tb_account_id id, struct tb_view *v, struct history *h, unsigned *seed)
{
    struct tb_uidset some, gone;
    uint32_t uid, first = 1 + (uint32_t)rand_r(seed) % h->uidnext;
    tb_uidset_init(&some);
    tb_uidset_init(&gone);
    tb_uidset_add(&some, first, first + (uint32_t)rand_r(seed) % 5);
    switch (rand_r(seed) % 4) {
    case 0:
    case 1:
        deliver_one(x, id, h->uidnext, 300, &uid);
        assert_int_equal(uid, h->uidnext++);
        break;
    case 2:
        assert_int_equal(tb_flags_update(v, &some, rand_r(seed) % 2 ? TB_FLAGS_ADD : TB_FLAGS_REMOVE, TB_FLAG_FLAGGED,
                                         0, UINT64_MAX, NULL),
                         TB_OK);
        break;
    default:
        assert_int_equal(tb_flags_update(v, &some, TB_FLAGS_ADD, TB_FLAG_DELETED, 0, UINT64_MAX, NULL), TB_OK);
        assert_int_equal(tb_expunge(v, &some, &gone), TB_OK);
    }
    struct tb_arena arena;
    tb_arena_init(&arena, 1 << 20);
    uint64_t now = modseq_now(tb_view_account(v), &arena);
    for (uid = 1; uid < h->uidnext; uid++)
        if (tb_uidset_has(&gone, uid))
            h->expunged[uid] = now;
    tb_arena_free(&arena);
    tb_uidset_free(&some);
    tb_uidset_free(&gone);
}

static void test_since(void **state)
{
    struct solo x;
    struct tb_view *v;
    struct tb_changes c;
    struct tb_arena arena;
    static struct history h;
    unsigned seed = (unsigned)time(NULL);
    (void)state;
    print_message("seed %u\n", seed);
    tb_arena_init(&arena, 1 << 20);
    world_new(&x, 1);
    h = (struct history){.uidnext = 1};
    struct tb_account_id id = solo_account(&x, "anna");
    struct tb_account *a = open_account(&x, id);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    for (int i = 0; i < SINCE_STEPS; i++) {
        since_step(&x, id, v, &h, &seed);
        assert_int_equal(tb_view_refresh(v, true, &arena, &c), TB_OK);
        h.then[i] = modseq_now(a, &arena);
        tb_arena_reset(&arena);
        struct tb_uidset known;
        tb_uidset_init(&known);
        tb_uidset_add(&known, 1 + (uint32_t)rand_r(&seed) % 50, 60 + (uint32_t)rand_r(&seed) % 100);
        check_since(v, &h, h.then[rand_r(&seed) % (i + 1)], rand_r(&seed) % 2 ? &known : NULL);
        tb_uidset_free(&known);
    }
    check_since(v, &h, h.then[SINCE_STEPS - 1] + 1000, NULL);
    tb_view_close(v);
    tb_account_close(a);
    tb_arena_free(&arena);
    solo_end(&x);
}

static void test_accounts(void **state)
{
    struct solo x;
    struct tb_identity id;
    (void)state;
    world_new(&x, 3);
    for (int i = 0; i < 20; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "user%d", i);
        (void)solo_account(&x, name);
    }
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    tb_account_create(x.w, TB_SLICE("USER3"), TB_SLICE(""), &op);
    solo_until(&x, &flag);
    assert_int_equal(op.rc, TB_EXISTS);
    flag = false;
    tb_account_secret(x.w, TB_SLICE("user4"), TB_SLICE("{PLAIN}new"), &op);
    solo_until(&x, &flag);
    flag = false;
    tb_account_delete(x.w, TB_SLICE("user5"), &op);
    solo_until(&x, &flag);
    assert_int_equal(op.rc, TB_OK);
    solo_stop(&x);
    solo_open(&x, config);
    assert_int_equal(tb_directory_find(x.store, TB_SLICE("user4"), &id), TB_OK);
    assert_string_equal(id.secret, "{PLAIN}new");
    assert_int_equal(tb_directory_find(x.store, TB_SLICE("user5"), &id), TB_NOTFOUND);
    assert_int_equal(tb_directory_find(x.store, TB_SLICE("user19"), &id), TB_OK);
    solo_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_and_crash),     cmocka_unit_test(test_large),
        cmocka_unit_test(test_flags_copy_expunge), cmocka_unit_test(test_since),
        cmocka_unit_test(test_accounts),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
