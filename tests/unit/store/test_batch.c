/*
 * test_batch.c: messages stored together: all of them, in order, byte for byte, however their bodies are cut; none,
 * when one cannot be; in the place of another; nothing of what was never committed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include <tambo/quota.h>
#include "tests/lib/solo.h"

enum { MANY = TB_BATCH_MAX + 1 };

static const struct tb_store_config config = {.trash_days = 1};
static struct tb_delivery_target target[MANY];

static void world_new(struct solo *x)
{
    solo_new(x, false, 1);
    solo_open(x, config);
}

/* message: deterministic text of about n bytes. */
static struct tb_buf message(unsigned seed, size_t n)
{
    struct tb_buf b;
    char line[128];
    tb_buf_init(&b, n + 4096);
    (void)snprintf(line, sizeof(line), "Subject: message %u\r\n\r\n", seed);
    tb_buf_str(&b, line);
    while (b.len < n) {
        (void)snprintf(line, sizeof(line), "%08x %08x\r\n", (unsigned)rand_r(&seed), (unsigned)rand_r(&seed));
        tb_buf_str(&b, line);
    }
    assert_false(b.failed);
    return b;
}

/* add: a message to the batch; what it said. */
static enum tb_rc add(struct solo *x, struct tb_batch *b, struct tb_account_id id, unsigned k, size_t bytes)
{
    struct tb_delivery *d;
    struct tb_buf m = message(k, bytes);
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    target[k] = (struct tb_delivery_target){.id = id, .mbox = TB_MBOX_INBOX, .is_append = true, .internaldate = k};
    assert_int_equal(tb_delivery_begin(x->w, 20 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &target[k]), TB_OK);
    for (size_t at = 0; at < m.len; at += 50000) {
        struct tb_op write = {.done = solo_done, .user = &flag};
        flag = false;
        if (!tb_delivery_write(d, tb_slice_sub(tb_buf_all(&m), at, 50000), &write))
            solo_until(x, &flag);
    }
    flag = false;
    tb_batch_add(b, d, &op);
    solo_until(x, &flag);
    tb_buf_free(&m);
    return op.rc;
}

static enum tb_rc commit(struct solo *x, struct tb_batch *b)
{
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    tb_batch_commit(b, &op);
    solo_until(x, &flag);
    return op.rc;
}

static uint32_t count(struct solo *x, struct tb_account_id id)
{
    struct tb_account *a;
    struct tb_view *v;
    assert_int_equal(tb_account_open(x->w, id, &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    uint32_t n = tb_view_count(v);
    tb_view_close(v);
    tb_account_close(a);
    return n;
}

static void check_bytes(struct solo *x, struct tb_account_id id, uint32_t uid, unsigned seed, size_t bytes)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_body *b;
    struct tb_buf m = message(seed, bytes);
    assert_int_equal(tb_account_open(x->w, id, &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_body_open(v, uid, &b), TB_OK);
    assert_int_equal(tb_body_size(b), m.len);
    for (size_t at = 0; at < m.len;) {
        bool flag = false;
        struct tb_op op = {.done = solo_done, .user = &flag};
        tb_body_read(b, at, &op);
        solo_until(x, &flag);
        assert_int_equal(op.rc, TB_OK);
        assert_true(op.data.len > 0 && op.data.len <= m.len - at);
        assert_memory_equal(op.data.ptr, m.ptr + at, op.data.len);
        at += op.data.len;
    }
    tb_body_close(b);
    tb_view_close(v);
    tb_account_close(a);
    tb_buf_free(&m);
}

/* Sizes from nothing to several chunks: in the frame until it has no room for bodies, ahead of it from then on. */
static void test_sizes(void **state)
{
    static const size_t size[] = {10,  30,   300000, 200000, 100000,          3000,    1 << 20, (1 << 20) + 300,
                                  100, 1500, 20000,  262144, (256 << 10) + 9, 3 << 20, 25,      700000};
    struct solo x;
    struct tb_batch *b;
    (void)state;
    world_new(&x);
    struct tb_account_id id = solo_account(&x, "ann");
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    for (unsigned i = 0; i < TB_ARRAY_LEN(size); i++) {
        assert_int_equal(add(&x, b, id, i, size[i]), TB_OK);
        assert_int_equal(count(&x, id), 0);
    }
    assert_int_equal(commit(&x, b), TB_OK);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(count(&x, id), TB_ARRAY_LEN(size));
        for (unsigned i = 0; i < TB_ARRAY_LEN(size); i++) {
            assert_int_equal(target[i].rc, TB_OK);
            assert_int_equal(target[i].uid, i + 1);
            check_bytes(&x, id, i + 1, i, size[i]);
        }
        tb_worker_close(x.w); /* a crash: no last checkpoint */
        tb_store_close(x.store);
        tb_io_close(x.io);
        solo_open(&x, config);
    }
    solo_end(&x);
}

/* At the limit the batch says so, and what it had can still be forgotten or stored. */
static void test_limits(void **state)
{
    struct solo x;
    struct tb_batch *b;
    (void)state;
    world_new(&x);
    struct tb_account_id id = solo_account(&x, "ann");
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    for (unsigned i = 0; i < TB_BATCH_MAX; i++)
        assert_int_equal(add(&x, b, id, i, 40), TB_OK);
    assert_int_equal(add(&x, b, id, TB_BATCH_MAX, 40), TB_LIMIT);
    assert_int_equal(commit(&x, b), TB_OK);
    assert_int_equal(count(&x, id), TB_BATCH_MAX);
    assert_int_equal(target[TB_BATCH_MAX - 1].uid, TB_BATCH_MAX);
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    assert_int_equal(add(&x, b, id, 0, 2 << 20), TB_OK);
    tb_batch_abort(b);
    tb_batch_abort(NULL);
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    assert_int_equal(add(&x, b, id, 0, 21 << 20), TB_LIMIT); /* larger than the delivery may be */
    assert_int_equal(add(&x, b, id, 0, 100), TB_OK);
    assert_int_equal(commit(&x, b), TB_OK);
    assert_int_equal(count(&x, id), TB_BATCH_MAX + 1);
    solo_end(&x);
}

static enum tb_rc replace(struct solo *x, struct tb_account_id id, uint32_t uid, size_t bytes)
{
    struct tb_batch *b;
    assert_int_equal(tb_batch_begin(x->w, id.shard, &b), TB_OK);
    tb_batch_replace(b, id, TB_MBOX_INBOX, uid);
    assert_int_equal(add(x, b, id, 0, bytes), TB_OK);
    return commit(x, b);
}

/* What is replaced goes with what comes, and makes room for it; when it is gone already, nothing comes. */
static void test_replace(void **state)
{
    struct solo x;
    struct tb_batch *b;
    struct tb_account *a;
    struct tb_quota limit, used;
    (void)state;
    world_new(&x);
    struct tb_account_id id = solo_account(&x, "ann");
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    assert_int_equal(add(&x, b, id, 0, 5000), TB_OK);
    assert_int_equal(add(&x, b, id, 1, 5000), TB_OK);
    assert_int_equal(commit(&x, b), TB_OK);
    assert_int_equal(tb_account_open(x.w, id, &a), TB_OK);
    assert_int_equal(tb_quota_set(a, &(struct tb_quota){.bytes = 11000, .messages = 2}), TB_OK);
    assert_int_equal(replace(&x, id, 1, 5500), TB_OK);
    assert_int_equal(target[0].uid, 3);
    assert_int_equal(count(&x, id), 2);
    assert_int_equal(replace(&x, id, 1, 10), TB_CONFLICT);
    assert_int_equal(replace(&x, id, 3, 9000), TB_OVERQUOTA);
    assert_int_equal(tb_quota_get(a, &limit, &used), TB_OK);
    assert_int_equal(used.messages, 2);
    assert_int_equal(count(&x, id), 2);
    check_bytes(&x, id, 3, 0, 5500);
    /* several: the limit counts them all */
    assert_int_equal(tb_quota_set(a, &(struct tb_quota){.messages = 4}), TB_OK);
    assert_int_equal(tb_batch_begin(x.w, id.shard, &b), TB_OK);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(add(&x, b, id, i, 100), TB_OK);
    assert_int_equal(commit(&x, b), TB_OVERQUOTA);
    assert_int_equal(target[0].rc, TB_OVERQUOTA);
    assert_int_equal(count(&x, id), 2);
    tb_account_close(a);
    solo_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_replace)};
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
