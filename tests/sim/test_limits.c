/*
 * test_limits.c: what is refused or split before it can hurt: mail while the index has no room to grow (R8), changes of
 * very many messages (R9).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/mailbox.h>
#include "engine/io/sim.h"

enum { DOUBLINGS = 13 }; /* 8,192 messages */

struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io;
    struct tb_store *store;
    struct tb_worker *w;
    struct tb_account_id id;
};

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void turn_until(struct world *x, const bool *flag)
{
    for (int i = 0; i < 1000000 && !*flag; i++)
        (void)tb_worker_turn(x->w, true);
    assert_true(*flag);
}

static void wait_s(struct world *x, unsigned seconds)
{
    bool flag = false;
    struct tb_op op = {.done = done_flag, .user = &flag};
    tb_io_timer(x->io, &op, seconds * 1000000000ull);
    turn_until(x, &flag);
}

static void world_new(struct world *x)
{
    struct tb_error err = {0};
    struct tb_identity id;
    bool flag = false;
    struct tb_op op = {.done = done_flag, .user = &flag};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = 1};
    memset(x, 0, sizeof(*x));
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-lim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(1, x->dir);
    x->io = tb_sim_io(x->sim);
    struct tb_store_config cfg = {.dir = x->dir, .workers = 1, .checkpoint_ms = 100};
    if (tb_store_create(x->io, x->dir, &opt, &err) != TB_OK || tb_store_open(x->io, &cfg, &x->store, &err) != TB_OK ||
        tb_worker_open(x->store, 0, x->io, &x->w, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_worker_started(x->w);
    tb_account_create(x->w, TB_SLICE("u"), TB_SLICE(""), &op);
    turn_until(x, &flag);
    assert_int_equal(tb_directory_find(x->store, TB_SLICE("u"), &id), TB_OK);
    x->id = id.id;
}

static void world_end(struct world *x)
{
    char cmd[128];
    bool flag = false;
    struct tb_op op = {.done = done_flag, .user = &flag};
    tb_worker_stop(x->w, &op);
    turn_until(x, &flag);
    tb_worker_close(x->w);
    tb_store_close(x->store);
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
}

static enum tb_rc deliver(struct world *x)
{
    struct tb_delivery *d;
    bool flag = false;
    struct tb_op op = {.done = done_flag, .user = &flag};
    struct tb_delivery_target t = {.id = x->id, .mbox = TB_MBOX_INBOX};
    assert_int_equal(tb_delivery_begin(x->w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    assert_true(tb_delivery_write(d, TB_SLICE("Subject: one\r\n\r\nof many\r\n"), &op));
    tb_delivery_commit(d, true, &op);
    turn_until(x, &flag);
    return op.rc;
}

static void test_no_room_for_the_index(void **state)
{
    struct world x;
    struct tb_account *a;
    struct tb_view *v;
    struct tb_uidset all;
    (void)state;
    world_new(&x);
    assert_int_equal(deliver(&x), TB_OK);
    tb_sim_fail_nth(x.sim, TB_SIM_RESERVE, 1, ENOSPC, true);
    for (int i = 0; i < 3; i++) { /* what is reserved already may be used up to the next checkpoint */
        (void)deliver(&x);
        wait_s(&x, 2);
    }
    assert_int_equal(deliver(&x), TB_NOSPACE);
    assert_int_equal(tb_account_open(x.w, x.id, &a), TB_OK); /* reading and small changes go on */
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&all);
    tb_uidset_add(&all, 1, 1);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    tb_uidset_free(&all);
    tb_view_close(v);
    tb_account_close(a);
    tb_sim_fail_nth(x.sim, TB_SIM_RESERVE, 0, 0, false);
    wait_s(&x, 3);
    assert_int_equal(deliver(&x), TB_OK); /* service returns by itself */
    world_end(&x);
}

static void test_many_messages_in_portions(void **state)
{
    struct world x;
    struct tb_account *a;
    struct tb_view *v;
    struct tb_uidset all;
    struct tb_copied copied;
    struct tb_shard_stat before, after;
    (void)state;
    world_new(&x);
    assert_int_equal(deliver(&x), TB_OK);
    assert_int_equal(tb_account_open(x.w, x.id, &a), TB_OK);
    tb_uidset_init(&all);
    for (int i = 0; i < DOUBLINGS; i++) {
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        tb_uidset_clear(&all);
        tb_uidset_add(&all, 1, tb_view_uid_max(v));
        assert_int_equal(tb_copy(v, &all, TB_MBOX_INBOX, &copied), TB_OK);
        tb_copied_free(&copied);
        tb_view_close(v);
    }
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_view_count(v), 1 << DOUBLINGS);
    tb_uidset_clear(&all);
    tb_uidset_add(&all, 1, UINT32_MAX);
    tb_shard_stat(x.w, 0, &before);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    tb_shard_stat(x.w, 0, &after);
    assert_true(after.records - before.records >= (1 << DOUBLINGS) / 4096); /* and perhaps the time of day */
    tb_shard_stat(x.w, 0, &before);
    assert_int_equal(tb_flags_update(v, &all, TB_FLAGS_ADD, TB_FLAG_FLAGGED, 0, UINT64_MAX, NULL), TB_OK);
    tb_shard_stat(x.w, 0, &after);
    assert_int_equal(after.records - before.records, (1 << DOUBLINGS) / 4096);
    tb_uidset_free(&all);
    tb_view_close(v);
    tb_account_close(a);
    world_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_room_for_the_index),
                                       cmocka_unit_test(test_many_messages_in_portions)};
    tb_log_level(TB_LOG_ERROR);
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
