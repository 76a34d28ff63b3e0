/*
 * test_hold.c: what no backup has yet is kept for the next one, within the horizon: a moment between two backups can be
 * restored though everything that was there then has been expunged and collected since. A full disk comes first.
 *
 * Built with SABOTAGE=backuphold, nothing is kept: it must fail.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/backup.h>
#include "engine/io/sim.h"
#include "engine/store/hold.h"
#include "tests/lib/solo.h"

enum { HORIZON_HOURS = 10, MESSAGES = 20, SIZE = 600 << 10, TURNS = 2000000 }; /* 12 MB: three segments at least */
#define HOUR UINT64_C(3600000000000)

struct world {
    struct solo s;
    struct tb_account *a;
    struct tb_account_id id;
    char backup[80];
    uint64_t noise;
};

static void store_open(struct world *x)
{
    solo_open(&x->s,
              (struct tb_store_config){
                  .trash_days = 0, .checkpoint_ms = 100, .backup_horizon_hours = HORIZON_HOURS, .scrub_days = 0});
}

static void world_new(struct world *x)
{
    memset(x, 0, sizeof(*x));
    solo_new(&x->s, true, 1);
    tb_sim_set_wall(x->s.sim, 1800000000);
    (void)snprintf(x->backup, sizeof(x->backup), "%s/backup", x->s.dir);
    x->noise = 88172645463325252u;
    store_open(x);
    x->id = solo_account(&x->s, "u");
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
}

static void world_end(struct world *x)
{
    tb_account_close(x->a);
    solo_end(&x->s);
}

static void restart(struct world *x)
{
    tb_account_close(x->a);
    solo_stop(&x->s);
    store_open(x);
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
}

static void hours(struct world *x, unsigned n)
{
    tb_sim_advance(x->s.sim, n * HOUR);
    for (int i = 0; i < 100; i++)
        (void)tb_worker_turn(x->s.w, false);
}

/* put: a message of bytes that do not compress. The delivery's code. */
static enum tb_rc put(struct world *x)
{
    static uint64_t text[SIZE / 8];
    struct tb_delivery_target t = {.id = x->id, .mailbox = TB_SLICE("INBOX")};
    struct tb_delivery *d;
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    for (size_t i = 0; i < TB_ARRAY_LEN(text); i++) {
        x->noise ^= x->noise << 13;
        x->noise ^= x->noise >> 7;
        x->noise ^= x->noise << 17;
        text[i] = x->noise | 0x8080808080808080u; /* no line ends */
    }
    assert_int_equal(tb_delivery_begin(x->s.w, 2 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    if (!tb_delivery_write(d, TB_SLICE("Subject: x\r\n\r\n"), &op) || !tb_delivery_write(d, tb_slice(text, SIZE), &op))
        solo_until(&x->s, &flag);
    flag = false;
    tb_delivery_commit(d, true, &op);
    solo_until(&x->s, &flag);
    return t.rc;
}

static void fill(struct world *x)
{
    for (int i = 0; i < MESSAGES; i++)
        assert_int_equal(put(x), TB_OK);
}

static void empty(struct world *x)
{
    struct tb_view *v;
    assert_int_equal(tb_view_open(x->a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_delete(v, tb_view_uids(v)), TB_OK);
    tb_view_close(v);
    hours(x, 0);
}

/* collect: what tambo gc does, to its end. */
static struct tb_shard_stat collect(struct world *x)
{
    struct tb_shard_stat st = {.gc_running = true};
    tb_gc_start(x->s.w, 0, false);
    for (int i = 0; i < TURNS && st.gc_running; i++) {
        (void)tb_worker_turn(x->s.w, true);
        tb_shard_stat(x->s.w, 0, &st);
    }
    assert_false(st.gc_running);
    return st;
}

static void back_up(struct world *x)
{
    struct tb_backup_options opt = {.dest = x->backup};
    struct tb_backup_status st = {.running = true};
    struct tb_error err;
    assert_int_equal(tb_backup_start(x->s.w, &opt, &err), TB_OK);
    for (int i = 0; i < TURNS && st.running; i++) {
        (void)tb_worker_turn(x->s.w, true);
        tb_backup_status(x->s.store, &st);
    }
    if (st.running || st.rc != TB_OK)
        fail_msg("%s", st.err.text);
}

static uint32_t segments(const struct world *x)
{
    uint32_t n = 0;
    for (uint32_t at = 0; tb_log_next_segment(x->s.store->shard[0]->log, at, &at); at++)
        n++;
    return n;
}

/* messages_at: what a restore to that moment has. */
static uint64_t messages_at(struct world *x, const char *name, int64_t at_ms)
{
    char to[100];
    struct tb_restore_result result;
    struct tb_error err;
    (void)snprintf(to, sizeof(to), "%s/%s", x->s.dir, name);
    struct tb_restore_options opt = {.dest = x->backup, .to = to, .at_ms = at_ms};
    struct tb_io *io = tb_sim_io(x->s.sim);
    if (tb_restore(io, &opt, &result, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    return result.messages;
}

static void test_nothing_is_held_without_a_backup(void **state)
{
    struct world x;
    (void)state;
    world_new(&x);
    fill(&x);
    empty(&x);
    struct tb_shard_stat st = collect(&x);
    assert_true(st.gc_freed_segments >= 2);
    assert_int_equal(st.gc_waiting, 0);
    world_end(&x);
}

static void test_the_next_backup_gets_everything(void **state)
{
    struct world x;
    (void)state;
    world_new(&x);
    assert_int_equal(put(&x), TB_OK);
    back_up(&x);
    fill(&x);
    hours(&x, 1);
    int64_t full_ms = tb_io_wall_ms(x.s.io);
    hours(&x, 1);
    empty(&x);
    uint32_t n = segments(&x);
    struct tb_shard_stat st = collect(&x);
    assert_int_equal(st.gc_freed_segments, 0);
    assert_true(st.gc_waiting >= 2 && st.gc_held & TB_GC_HELD_NEXT);
    restart(&x); /* it is known from the file */
    st = collect(&x);
    assert_int_equal(st.gc_freed_segments, 0);
    assert_true(st.gc_waiting >= 2 && segments(&x) >= n);
    back_up(&x);
    st = collect(&x);
    assert_true(st.gc_freed_segments >= 2);
    assert_int_equal(messages_at(&x, "full", full_ms), MESSAGES + 1);
    assert_int_equal(messages_at(&x, "newest", INT64_MAX), 0);
    world_end(&x);
}

static void test_the_horizon_ends_it(void **state)
{
    struct world x;
    (void)state;
    world_new(&x);
    back_up(&x);
    fill(&x);
    empty(&x);
    hours(&x, HORIZON_HOURS - 1);
    assert_int_equal(collect(&x).gc_freed_segments, 0);
    hours(&x, 2);
    struct tb_shard_stat st = collect(&x);
    assert_true(st.gc_freed_segments >= 2);
    assert_int_equal(st.gc_waiting, 0);
    back_up(&x);
    assert_int_equal(messages_at(&x, "newest", INT64_MAX), 0);
    world_end(&x);
}

static void test_a_clock_far_off_holds_nothing(void **state)
{
    struct world x;
    (void)state;
    world_new(&x);
    back_up(&x);
    struct tb_shard *s = x.s.store->shard[0];
    assert_true(tb_hold_keeps(s, UINT32_MAX));
    tb_sim_set_wall(x.s.sim, 1800000000 - 1800); /* half an hour back */
    assert_true(tb_hold_keeps(s, UINT32_MAX));
    tb_sim_set_wall(x.s.sim, 1800000000 - (HORIZON_HOURS + 1) * 3600);
    assert_false(tb_hold_keeps(s, UINT32_MAX));
    world_end(&x);
}

static void test_a_full_disk_comes_first(void **state)
{
    struct world x;
    enum tb_rc rc = TB_OK;
    (void)state;
    world_new(&x);
    back_up(&x);
    fill(&x);
    empty(&x);
    assert_int_equal(collect(&x).gc_freed_segments, 0);
    tb_sim_fail_nth(x.s.sim, TB_SIM_WRITE, 1, ENOSPC, true); /* no new segment can be made */
    for (int i = 0; i < 2 * MESSAGES && rc == TB_OK; i++)
        rc = put(&x);
    struct tb_shard_stat st = {0};
    for (int i = 0; i < TURNS && st.gc_freed_segments == 0; i++) {
        (void)tb_worker_turn(x.s.w, true);
        tb_shard_stat(x.s.w, 0, &st);
    }
    assert_true(st.gc_freed_segments > 0);
    tb_sim_fail_nth(x.s.sim, TB_SIM_WRITE, 0, 0, false);
    world_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_held_without_a_backup),
        cmocka_unit_test(test_the_next_backup_gets_everything),
        cmocka_unit_test(test_the_horizon_ends_it),
        cmocka_unit_test(test_a_clock_far_off_holds_nothing),
        cmocka_unit_test(test_a_full_disk_comes_first),
    };
    tb_log_level(TB_LOG_ERROR);
    return cmocka_run_group_tests_name("hold", tests, NULL, NULL);
}
