/*
 * test_copy.c: copies of the index: one that is made while mail arrives gives, with the log behind it, the very index
 * that the store has; a changed byte anywhere is noticed; the two rotating ones take turns; the log carries the time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/sim.h"
#include "engine/store/copy.h"
#include "engine/store/rebuild.h"
#include "tests/lib/solo.h"

struct world {
    struct solo s;
    struct tb_account_id ann;
};

static void world_open(struct world *x)
{
    solo_open(&x->s, (struct tb_store_config){.trash_days = 1, .checkpoint_ms = 50});
}

static void run_shell(const char *fmt, const char *a, const char *b)
{
    char cmd[512];
    (void)snprintf(cmd, sizeof(cmd), fmt, a, b);
    assert_int_equal(system(cmd), 0);
}

static void world_new(struct world *x)
{
    solo_new(&x->s, false, 1);
    world_open(x);
    x->ann = solo_account(&x->s, "ann");
}

static void deliver(struct world *x, unsigned seed)
{
    char text[700];
    int n = snprintf(text, sizeof(text), "Subject: message %u\r\n\r\n%0*u\r\n", seed, 1 + (int)(seed * 37 % 600), seed);
    struct tb_delivery *d;
    struct tb_delivery_target t = {.id = x->ann, .mailbox = TB_SLICE("INBOX")};
    bool flag = false;
    struct tb_op op = {.done = solo_done, .user = &flag};
    assert_int_equal(tb_delivery_begin(x->s.w, 1 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    assert_true(tb_delivery_write(d, tb_slice(text, (size_t)n), &op));
    tb_delivery_commit(d, true, &op);
    solo_until(&x->s, &flag);
    assert_int_equal(op.rc, TB_OK);
}

/* copy_now: a copy at path, with mail arriving meanwhile; returns how many messages came. */
static unsigned copy_now(struct world *x, const char *path, unsigned seed)
{
    bool flag = false;
    unsigned n = 0;
    struct tb_copy_job *job = calloc(1, sizeof(*job));
    job->op = (struct tb_op){.done = solo_done, .user = &flag};
    job->rate_bytes = 2 << 20; /* several checkpoints pass meanwhile */
    (void)snprintf(job->path, sizeof(job->path), "%s", path);
    tb_copy_start(x->s.store->shard[0], job);
    while (!flag)
        deliver(x, seed + n++);
    if (job->op.rc != TB_OK)
        fail_msg("%s", job->err.text);
    assert_true(job->done_bytes == job->total_bytes && job->total_bytes > 0);
    free(job);
    return n;
}

/* index_digest: every entry of every database. */
static void index_digest(struct world *x, uint8_t out[TB_SHA256_BYTES])
{
    struct tb_index *ix = x->s.store->shard[0]->ix;
    struct tb_sha256 sha;
    tb_sha256_init(&sha);
    for (int db = 0; db < TB_DBS; db++) {
        struct tb_slice k, v;
        for (bool more = tb_index_ge(ix, (enum tb_db)db, tb_slice("\0", 1), 0, &k, &v); more;
             more = tb_index_next(ix, (enum tb_db)db, 0, &k, &v)) {
            uint64_t head[] = {(uint64_t)db, k.len, v.len};
            tb_sha256_update(&sha, head, sizeof(head));
            tb_sha256_update(&sha, k.ptr, k.len);
            tb_sha256_update(&sha, v.ptr, v.len);
        }
    }
    assert_int_equal(tb_index_rc(ix), TB_OK);
    tb_sha256_final(&sha, out);
}

static void put_back(struct world *x, const char *copy)
{
    struct tb_error err = {0};
    struct tb_disk_ckpt ckpt;
    char path[128];
    assert_int_equal(tb_io_open(TB_IO_POSIX, &x->s.io, &err), TB_OK);
    run_shell("rm %s/shard-00/index.mdb %s/shard-00/CKPT", x->s.dir, x->s.dir);
    (void)snprintf(path, sizeof(path), "%s/shard-00/index.mdb", x->s.dir);
    if (tb_copy_restore_to(x->s.io, copy, path, &ckpt, &err) != TB_OK)
        fail_msg("%s", err.text);
    assert_int_equal(tb_copy_restore_to(x->s.io, copy, path, &ckpt, &err), TB_IO); /* never over a file */
    ckpt.seq = 7;
    tb_ckpt_seal(&ckpt);
    (void)snprintf(path, sizeof(path), "%s/shard-00/CKPT", x->s.dir);
    assert_int_equal(tb_slot_write(x->s.io, path, ckpt.seq, &ckpt, sizeof(ckpt), &err), TB_OK);
    (void)snprintf(path, sizeof(path), "%s/shard-00", x->s.dir);
    if (!tb_index_sound(x->s.io, path, &err)) /* else a start would make it again from the log alone */
        fail_msg("%s", err.text);
    tb_io_close(x->s.io);
}

static void test_copy_and_log_give_the_index(void **state)
{
    enum { FIRST = 6000 }; /* an index of several slices */
    (void)state;
    struct world x;
    uint8_t before[TB_SHA256_BYTES], after[TB_SHA256_BYTES];
    char copy[128];
    world_new(&x);
    for (unsigned i = 0; i < FIRST; i++)
        deliver(&x, i);
    (void)snprintf(copy, sizeof(copy), "%s/shard-00/copy-x", x.s.dir);
    unsigned more = copy_now(&x, copy, FIRST);
    assert_true(more > 10);
    for (unsigned i = 0; i < 50; i++)
        deliver(&x, 50000 + i);
    solo_stop(&x.s);
    world_open(&x);
    index_digest(&x, before);
    uint64_t messages = x.s.store->shard[0]->x.state.messages;
    assert_int_equal(messages, FIRST + more + 50);
    solo_stop(&x.s);
    put_back(&x, copy);
    world_open(&x);
    assert_int_equal(x.s.store->shard[0]->x.state.messages, messages);
    index_digest(&x, after);
    assert_memory_equal(before, after, sizeof(before));
    solo_stop(&x.s);
    run_shell("rm -rf %s%s", x.s.dir, "");
}

/* churn: every row of the mailbox is written anew, and a checkpoint confirms it. */
static void churn(struct world *x, bool seen)
{
    struct tb_shard *s = x->s.store->shard[0];
    uint64_t before = s->checkpoints;
    struct tb_account *a;
    struct tb_view *v;
    struct tb_uidset all;
    assert_int_equal(tb_account_open(x->s.w, x->ann, &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&all);
    tb_uidset_add(&all, 1, tb_view_uid_max(v));
    assert_int_equal(tb_flags_update(v, &all, seen ? TB_FLAGS_ADD : TB_FLAGS_REMOVE, TB_FLAG_SEEN, 0, UINT64_MAX, NULL),
                     TB_OK);
    tb_uidset_free(&all);
    tb_view_close(v);
    tb_account_close(a);
    s->want_checkpoint = true;
    tb_log_boundary(s->log);
    for (int i = 0; i < 100000 && s->checkpoints == before; i++)
        (void)tb_worker_turn(x->s.w, true);
    assert_true(s->checkpoints > before);
}

/* double_up: copies of all its messages in the mailbox itself: a larger index soon. */
static void double_up(struct world *x)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_uidset all;
    struct tb_copied copied;
    assert_int_equal(tb_account_open(x->s.w, x->ann, &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&all);
    tb_uidset_add(&all, 1, tb_view_uid_max(v));
    assert_int_equal(tb_copy(v, &all, TB_MBOX_INBOX, &copied), TB_OK);
    tb_copied_free(&copied);
    tb_uidset_free(&all);
    tb_view_close(v);
    tb_account_close(a);
}

/*
 * The pages of the snapshot stay as they are until the last one is copied, though every change frees some and later
 * checkpoints would use them again: between two slices of the copy most rows change several times.
 */
static void test_the_snapshot_stays(void **state)
{
    enum { FIRST = 2000, ROUNDS = 6 };
    (void)state;
    struct world x;
    uint8_t before[TB_SHA256_BYTES], after[TB_SHA256_BYTES];
    char copy[128];
    bool flag = false;
    unsigned rounds = 0;
    solo_new(&x.s, true, 1); /* its clock waits for the slices */
    world_open(&x);
    x.ann = solo_account(&x.s, "ann");
    for (unsigned i = 0; i < FIRST; i++)
        deliver(&x, i);
    for (unsigned i = 0; i < 3; i++)
        double_up(&x);
    churn(&x, true);
    (void)snprintf(copy, sizeof(copy), "%s/shard-00/copy-x", x.s.dir);
    struct tb_copy_job *job = calloc(1, sizeof(*job));
    job->op = (struct tb_op){.done = solo_done, .user = &flag};
    job->rate_bytes = 64 << 10;
    (void)snprintf(job->path, sizeof(job->path), "%s", copy);
    tb_copy_start(x.s.store->shard[0], job);
    while (!flag) {
        if (rounds < ROUNDS && job->done_bytes > 0) {
            assert_true(job->done_bytes <= (uint64_t)TB_COPY_SLICE_PAGES * TB_COPY_PAGE);
            churn(&x, rounds++ & 1);
        } else {
            (void)tb_worker_turn(x.s.w, true);
        }
    }
    assert_int_equal(job->op.rc, TB_OK);
    assert_true(job->total_bytes > 2 * TB_COPY_SLICE_PAGES * TB_COPY_PAGE &&
                rounds == ROUNDS); /* else this tested nothing */
    free(job);
    solo_stop(&x.s);
    world_open(&x);
    index_digest(&x, before);
    solo_stop(&x.s);
    put_back(&x, copy);
    world_open(&x);
    index_digest(&x, after);
    assert_memory_equal(before, after, sizeof(before));
    solo_end(&x.s);
}

/* wrong_read: a copy during which one read of the live index gets a bit wrong; its result. */
static enum tb_rc wrong_read(unsigned messages)
{
    struct world x;
    struct tb_copy_job *job = calloc(1, sizeof(*job));
    bool flag = false;
    assert_non_null(job);
    solo_new(&x.s, true, 1);
    world_open(&x);
    x.ann = solo_account(&x.s, "ann");
    for (unsigned i = 0; i < messages; i++)
        deliver(&x, i);
    for (unsigned i = 0; i < 4; i++)
        double_up(&x);
    churn(&x, true);
    job->op = (struct tb_op){.done = solo_done, .user = &flag};
    (void)snprintf(job->path, sizeof(job->path), "%s/shard-00/copy-x", x.s.dir);
    tb_copy_start(x.s.store->shard[0], job);
    while (job->run != NULL && job->done_bytes == 0) {
        tb_sim_flip_reads(x.s.sim, 1);
        (void)tb_worker_turn(x.s.w, true);
    }
    tb_sim_flip_reads(x.s.sim, 0);
    solo_until(&x.s, &flag);
    enum tb_rc rc = job->op.rc;
    assert_true(tb_sim_flipped(x.s.sim) > 0);
    assert_true(rc == TB_OK || rc == TB_CORRUPT);
    assert_int_equal(access(job->path, F_OK) == 0, rc == TB_OK);
    free(job);
    solo_end(&x.s);
    return rc;
}

/* A bit that a read of the live index gets wrong would be copied with a right checksum: such a copy gets no name. */
static void test_a_wrong_read_is_not_copied(void **state)
{
    enum { WORLDS = 8 };
    unsigned caught = 0;
    (void)state;
    for (unsigned i = 0; i < WORLDS; i++)
        caught += wrong_read(100 + 17 * i) == TB_CORRUPT;
    assert_true(caught > WORLDS / 4); /* the others hit free pages, or room that nothing fills */
}

static void flip(const char *path, uint64_t at)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    (void)fseek(f, (long)at, SEEK_SET);
    int c = fgetc(f);
    (void)fseek(f, (long)at, SEEK_SET);
    (void)fputc(c ^ 0x10, f);
    (void)fclose(f);
}

static void test_every_changed_byte_is_noticed(void **state)
{
    (void)state;
    struct world x;
    struct tb_error err;
    struct tb_disk_copy h;
    char copy[128], out[128];
    world_new(&x);
    for (unsigned i = 0; i < 100; i++)
        deliver(&x, i);
    (void)snprintf(copy, sizeof(copy), "%s/shard-00/copy-x", x.s.dir);
    (void)snprintf(out, sizeof(out), "%s/out", x.s.dir);
    (void)copy_now(&x, copy, 100);
    assert_int_equal(tb_copy_open(x.s.io, copy, x.s.store->super.uuid, 0, &h, &err), TB_OK);
    assert_int_equal(tb_copy_open(x.s.io, copy, x.s.store->super.uuid, 1, &h, &err), TB_CORRUPT);
    uint64_t size = TB_BLOCK + h.pages * TB_COPY_PAGE + (h.pages * 4 + TB_BLOCK - 1) / TB_BLOCK * TB_BLOCK;
    unsigned seed = 4711;
    for (unsigned i = 0; i < 60; i++) {
        uint64_t at = i < 20   ? i * sizeof(h) / 20
                      : i < 25 ? i * 150
                               : TB_BLOCK + (uint64_t)rand_r(&seed) % (size - TB_BLOCK);
        struct tb_disk_ckpt ckpt;
        flip(copy, at);
        if (tb_copy_verify(x.s.io, copy, &err) != TB_CORRUPT)
            fail_msg("byte %llu of %llu changed unnoticed", (unsigned long long)at, (unsigned long long)size);
        assert_int_equal(tb_copy_restore_to(x.s.io, copy, out, &ckpt, &err), TB_CORRUPT);
        assert_int_not_equal(access(out, F_OK), 0);
        flip(copy, at);
    }
    assert_int_equal(tb_copy_verify(x.s.io, copy, &err), TB_OK);
    assert_int_equal(truncate(copy, (off_t)size - TB_BLOCK), 0);
    assert_int_equal(tb_copy_verify(x.s.io, copy, &err), TB_CORRUPT);
    solo_stop(&x.s);
    run_shell("rm -rf %s%s", x.s.dir, "");
}

static void wait_rotated(struct world *x, uint64_t beyond)
{
    unsigned number;
    struct tb_disk_copy h = {0};
    struct tb_error err;
    struct tb_shard *s = x->s.store->shard[0];
    for (int i = 0; i < 10000 && h.ckpt.applied <= beyond; i++) {
        (void)tb_worker_turn(x->s.w, true);
        if (s->copies == NULL &&
            tb_copy_newest(x->s.io, s->dir, x->s.store->super.uuid, 0, UINT64_MAX, &number, &h, &err))
            h.ckpt.applied = 0;
    }
    assert_true(h.ckpt.applied > beyond);
}

static void test_two_copies_in_turn(void **state)
{
    (void)state;
    struct world x;
    world_new(&x);
    struct tb_shard *s = x.s.store->shard[0];
    uint64_t floor = 0, newest = 0;
    assert_true(tb_pin_floor(&s->pins) < s->store->super.segment_bytes); /* no copy yet: nothing may go */
    for (unsigned i = 0; i < 3; i++) {
        deliver(&x, i);
        tb_rotation_want(s);
        wait_rotated(&x, newest);
        uint64_t older = tb_pin_floor(&s->pins);
        if (i > 0)
            assert_true(older >= floor && older <= newest);
        newest = newest > older ? newest : s->confirmed;
        floor = older;
    }
    solo_stop(&x.s);
    world_open(&x);
    assert_int_equal(tb_pin_floor(&x.s.store->shard[0]->pins), floor);
    solo_stop(&x.s);
    run_shell("test -e %s/shard-00/copy-0 -a -e %s/shard-00/copy-1", x.s.dir, x.s.dir);
    run_shell("rm -rf %s%s", x.s.dir, "");
}

static void test_the_log_carries_the_time(void **state)
{
    (void)state;
    struct world x;
    world_new(&x);
    deliver(&x, 1);
    struct tb_shard *s = x.s.store->shard[0];
    int64_t now = tb_io_wall_ms(x.s.io), logged = s->x.state.time_ms;
    assert_true(logged > now - 5000 && logged <= now);
    int64_t kept = s->x.state.time_ms = tb_io_wall_ms(x.s.io);
    deliver(&x, 2); /* within a second */
    assert_int_equal(s->x.state.time_ms, kept);
    s->x.state.time_ms -= 2000;
    deliver(&x, 3);
    assert_true(s->x.state.time_ms >= kept);
    solo_stop(&x.s);
    world_open(&x);
    assert_true(x.s.store->shard[0]->x.state.time_ms >= kept);
    solo_stop(&x.s);
    run_shell("rm -rf %s%s", x.s.dir, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_and_log_give_the_index), cmocka_unit_test(test_the_snapshot_stays),
        cmocka_unit_test(test_a_wrong_read_is_not_copied),  cmocka_unit_test(test_every_changed_byte_is_noticed),
        cmocka_unit_test(test_two_copies_in_turn),          cmocka_unit_test(test_the_log_carries_the_time),
    };
    tb_log_level(TB_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
