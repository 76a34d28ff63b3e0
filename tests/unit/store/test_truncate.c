/*
 * test_truncate.c: a log that is damaged in the middle ends in front of the damage when a person says so: what came
 * before is served, what was behind is kept aside, no number is given twice, and nobody can open the shard in between,
 * wherever the cutting itself is cut short.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/check.h>
#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/solo.h"
#include "tests/lib/whole.h"

enum { SEGMENT = 4 << 20, FIRST = 2, MESSAGES = 30, A_SEGMENT = 10, FAR = 1 << 19, STEPS_MAX = 200 };

static const struct tb_store_config config = {.checkpoint_ms = 3600000, .trash_days = 1};

struct world {
    struct solo s;
    struct tb_account_id id;
};

/* ---- a store with a log that its index does not hold yet ---- */

static char master[64];
static uint64_t position[MESSAGES + 1]; /* in front of each message's frame */
static uint32_t uidnext;                /* of INBOX, when the process died */

static void run_shell(const char *fmt, const char *a, const char *b)
{
    char cmd[200];
    (void)snprintf(cmd, sizeof(cmd), fmt, a, b);
    assert_int_equal(system(cmd), 0);
}

static struct tb_log *log_of(const struct world *x)
{
    return x->s.store->shard[0]->log;
}

static uint32_t inbox(const struct world *x, uint32_t *messages)
{
    struct tb_disk_mbox m;
    assert_true(tb_mbox_get(x->s.store->shard[0]->ix, x->id.acct, TB_MBOX_INBOX, &m, NULL));
    *messages = m.messages;
    return m.uidnext;
}

/* seal: the next message goes to the next segment. */
static void seal(struct world *x)
{
    enum tb_rc rc;
    while ((rc = tb_log_seal(log_of(x))) == TB_BUSY)
        (void)tb_worker_turn(x->s.w, true);
    assert_int_equal(rc, TB_OK);
}

/* make_master: what a process leaves that dies with three segments of messages in the log, and FIRST in the index. */
static int make_master(void **state)
{
    struct world x;
    uint32_t messages;
    (void)state;
    solo_new(&x.s, true, 1);
    solo_open(&x.s, config);
    x.id = solo_account(&x.s, "u");
    solo_put(&x.s, x.id, "INBOX", FIRST - 1);
    solo_stop(&x.s);
    solo_open(&x.s, config);
    solo_put(&x.s, x.id, "INBOX", 1); /* a checkpoint follows the first change, and then none for an hour */
    while (x.s.store->shard[0]->confirmed != tb_log_end(log_of(&x)))
        (void)tb_worker_turn(x.s.w, true);
    for (int i = 0; i < MESSAGES; i++) {
        if (i > 0 && i % A_SEGMENT == 0)
            seal(&x);
        position[i] = tb_log_end(log_of(&x));
        solo_put(&x.s, x.id, "INBOX", 1);
    }
    position[MESSAGES] = tb_log_end(log_of(&x));
    uidnext = inbox(&x, &messages);
    assert_int_equal(messages, FIRST + MESSAGES);
    (void)snprintf(master, sizeof(master), "/tmp/tambo-cut-XXXXXX");
    assert_non_null(mkdtemp(master));
    assert_int_equal(tb_sim_image(x.s.sim, TB_SIM_CUT_NONE, 1, master), 0);
    solo_end(&x.s);
    return 0;
}

static int remove_master(void **state)
{
    (void)state;
    run_shell("rm -rf %s%s", master, "");
    return 0;
}

static void world_new(struct world *x)
{
    memset(x, 0, sizeof(*x));
    (void)snprintf(x->s.dir, sizeof(x->s.dir), "/tmp/tambo-test-XXXXXX");
    assert_non_null(mkdtemp(x->s.dir));
    run_shell("cp -r %s/. %s", master, x->s.dir);
}

/* world_begin: the damage is done: from here on it is a simulated disk. */
static void world_begin(struct world *x)
{
    x->s.sim = tb_sim_new(1, x->s.dir);
    assert_non_null(x->s.sim);
}

static void world_end(struct world *x)
{
    if (x->s.sim != NULL)
        tb_sim_free(x->s.sim);
    run_shell("rm -rf %s%s", x->s.dir, "");
}

static void segment_path(const struct world *x, const char *folder, uint32_t segment, char out[160])
{
    (void)snprintf(out, 160, "%s/shard-00/%s/%08x.seg", x->s.dir, folder, segment);
}

/* spoil: a byte within the frame of message i. */
static void spoil(const struct world *x, int i)
{
    char path[160];
    segment_path(x, "log", (uint32_t)(position[i] / SEGMENT), path);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)(position[i] % SEGMENT) + 60, SEEK_SET), 0);
    int c = fgetc(f);
    assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(c ^ 0x40, f), c ^ 0x40);
    assert_int_equal(fclose(f), 0);
}

static void told(void *user, const struct tb_finding *f)
{
    *(unsigned *)user += f->repaired ? 100 : 1;
}

static enum tb_rc truncate_it(struct world *x, bool write, struct tb_truncated *sum, unsigned *said,
                              struct tb_error *err)
{
    struct tb_io *io = tb_sim_io(x->s.sim);
    *said = 0;
    struct tb_check_options opt = {.user = said, .found = told};
    enum tb_rc rc = tb_store_truncate(io, x->s.dir, write, &opt, sum, err);
    tb_io_close(io);
    return rc;
}

/* opens: OK, or why a start refuses it. */
static enum tb_rc opens(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store *store = NULL;
    struct tb_worker *w = NULL;
    struct tb_store_config cfg = config;
    struct tb_io *io = tb_sim_io(x->s.sim);
    cfg.dir = x->s.dir;
    cfg.workers = 1;
    assert_int_equal(tb_store_open(io, &cfg, &store, &err), TB_OK);
    enum tb_rc rc = tb_worker_open(store, 0, io, &w, &err);
    if (rc == TB_OK) {
        x->s.io = io;
        x->s.store = store;
        x->s.w = w;
        tb_worker_started(w);
        return rc;
    }
    tb_store_close(store);
    tb_io_close(io);
    return rc;
}

/* serves: it opens with these messages, takes another one, far ahead of every number given before, and is whole. */
static void serves(struct world *x, uint32_t want)
{
    char what[300];
    struct tb_identity id;
    uint32_t messages;
    assert_int_equal(opens(x), TB_OK);
    assert_int_equal(tb_directory_find(x->s.store, TB_SLICE("u"), &id), TB_OK);
    x->id = id.id;
    assert_true(inbox(x, &messages) >= uidnext + FAR);
    assert_int_equal(messages, want);
    solo_put(&x->s, x->id, "INBOX", 1);
    solo_stop(&x->s);
    struct tb_io *io = tb_sim_io(x->s.sim);
    if (!store_whole(io, x->s.dir, what))
        fail_msg("%s", what);
    tb_io_close(io);
}

/* ---- tests ---- */

static void test_a_sound_log_is_left_alone(void **state)
{
    struct world x;
    struct tb_truncated sum;
    struct tb_error err;
    uint32_t messages;
    unsigned said;
    (void)state;
    world_new(&x);
    world_begin(&x);
    assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
    assert_int_equal(sum.shards, 0);
    assert_int_equal(said, 0);
    assert_int_equal(opens(&x), TB_OK);
    x.id = (struct tb_account_id){.shard = 0, .acct = 1};
    assert_int_equal(inbox(&x, &messages), uidnext);
    assert_int_equal(messages, FIRST + MESSAGES);
    solo_stop(&x.s);
    world_end(&x);
}

/* A torn write at the very end is no damage: the start handles it. */
static void test_a_torn_end_is_left_alone(void **state)
{
    struct world x;
    struct tb_truncated sum;
    struct tb_error err;
    unsigned said;
    (void)state;
    world_new(&x);
    spoil(&x, MESSAGES - 1);
    world_begin(&x);
    assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
    assert_int_equal(sum.shards, 0);
    assert_int_equal(opens(&x), TB_OK);
    solo_stop(&x.s);
    world_end(&x);
}

/* Any frame of any segment. */
static void test_the_log_ends_in_front_of_the_damage(void **state)
{
    static const int at[] = {0, 3, A_SEGMENT - 1, A_SEGMENT, A_SEGMENT + 4, 2 * A_SEGMENT - 1, MESSAGES - 2};
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(at); i++) {
        struct world x;
        struct tb_truncated sum;
        struct tb_error err;
        unsigned said;
        world_new(&x);
        spoil(&x, at[i]);
        world_begin(&x);
        assert_int_equal(opens(&x), TB_CORRUPT);
        assert_int_equal(truncate_it(&x, false, &sum, &said, &err), TB_OK);
        assert_int_equal(sum.messages, MESSAGES - at[i] - 1); /* the damaged frame's own is not readable */
        assert_int_equal(said, 1);
        assert_int_equal(opens(&x), TB_CORRUPT); /* nothing was written */
        assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
        assert_int_equal(sum.shards, 1);
        assert_int_equal(said, 100);
        serves(&x, (uint32_t)(FIRST + at[i]));
        assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
        assert_int_equal(sum.shards, 0);
        world_end(&x);
    }
}

static void test_what_was_behind_is_kept(void **state)
{
    struct world x;
    struct tb_truncated sum;
    struct tb_error err;
    unsigned said;
    char folder[64], cut[160];
    (void)state;
    world_new(&x);
    spoil(&x, 4);
    run_shell("cp -r %s/shard-00/log %s/was", x.s.dir, x.s.dir);
    world_begin(&x);
    assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
    (void)snprintf(folder, sizeof(folder), "cut-%016llx", (unsigned long long)position[4]);
    for (uint32_t segment = 1; segment <= 3; segment++) {
        char was[160], cmd[400];
        segment_path(&x, folder, segment, cut);
        (void)snprintf(was, sizeof(was), "%s/was/%08x.seg", x.s.dir, segment);
        (void)snprintf(cmd, sizeof(cmd), "cmp -s %s %s", was, cut);
        assert_int_equal(system(cmd), 0);
    }
    world_end(&x);
}

static void test_a_missing_segment(void **state)
{
    struct world x;
    struct tb_truncated sum;
    struct tb_error err;
    unsigned said;
    char path[160];
    (void)state;
    world_new(&x);
    segment_path(&x, "log", (uint32_t)(position[A_SEGMENT] / SEGMENT), path);
    assert_int_equal(remove(path), 0);
    world_begin(&x);
    assert_int_equal(opens(&x), TB_CORRUPT);
    assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
    assert_int_equal(sum.messages, MESSAGES - 2 * A_SEGMENT);
    serves(&x, FIRST + A_SEGMENT);
    world_end(&x);
}

static void test_what_the_index_holds_is_not_cut(void **state)
{
    struct world x;
    struct tb_truncated sum;
    struct tb_error err;
    unsigned said;
    char path[160];
    (void)state;
    world_new(&x);
    segment_path(&x, "log", 1, path);
    FILE *f = fopen(path, "r+b"); /* all that is in front of the checkpoint's end */
    assert_non_null(f);
    assert_int_equal(fseek(f, 4096, SEEK_SET), 0);
    for (uint64_t at = 4096; at < position[0] % SEGMENT; at++)
        assert_int_equal(fputc(0, f), 0);
    assert_int_equal(fclose(f), 0);
    world_begin(&x);
    assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_CORRUPT);
    assert_non_null(strstr(err.text, "rebuild-index"));
    world_end(&x);
}

/* Every call to the disk fails once, and from then on: the next attempt comes to the same end. */
static void test_cut_short_anywhere_it_goes_on(void **state)
{
    unsigned steps = 0;
    enum tb_rc rc = TB_IO;
    (void)state;
    for (unsigned n = 1; n < STEPS_MAX && rc != TB_OK; n++) {
        struct world x;
        struct tb_truncated sum;
        struct tb_error err;
        unsigned said;
        uint32_t kinds = 1u << TB_SIM_WRITE | 1u << TB_SIM_SYNC | 1u << TB_SIM_SYNC_DIR | 1u << TB_SIM_NAMES |
                         1u << TB_SIM_DURABLE | 1u << TB_SIM_RESERVE;
        world_new(&x);
        spoil(&x, A_SEGMENT + 4);
        world_begin(&x);
        tb_sim_fail_any(x.s.sim, kinds, n, EIO, true);
        rc = truncate_it(&x, true, &sum, &said, &err);
        tb_sim_fail_any(x.s.sim, kinds, 0, 0, false);
        tb_sim_restart(x.s.sim);
        assert_int_equal(tb_sim_power_cut(x.s.sim, TB_SIM_CUT_NONE), 0);
        if (rc != TB_OK) {
            assert_int_equal(opens(&x), TB_CORRUPT);
            assert_int_equal(truncate_it(&x, true, &sum, &said, &err), TB_OK);
            steps++;
        }
        serves(&x, FIRST + A_SEGMENT + 4);
        world_end(&x);
    }
    assert_int_equal(rc, TB_OK);
    assert_true(steps > 10);
    print_message("cut short at %u places\n", steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sound_log_is_left_alone),
        cmocka_unit_test(test_a_torn_end_is_left_alone),
        cmocka_unit_test(test_the_log_ends_in_front_of_the_damage),
        cmocka_unit_test(test_what_was_behind_is_kept),
        cmocka_unit_test(test_a_missing_segment),
        cmocka_unit_test(test_what_the_index_holds_is_not_cut),
        cmocka_unit_test(test_cut_short_anywhere_it_goes_on),
    };
    return cmocka_run_group_tests_name("truncate", tests, make_master, remove_master);
}
