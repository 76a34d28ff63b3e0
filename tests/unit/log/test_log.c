/*
 * test_log.c: what the log says when it is read again: everything that was durable, in order; the end at a torn frame;
 * and a refusal, never a guess, when bytes before a valid frame are damaged, a segment is missing, or the log ends
 * before what a checkpoint says. And segments that go: freed, kept as spares, used again, linked by somebody else.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/log/log.h"

enum { SEGMENT = 4 << 20 };

struct world {
    char dir[64];
    struct tb_io *io;
    struct tb_log *log;
    uint64_t durable, first;
    struct tb_log_mark mark; /* of the last boundary */
    unsigned seen, base;     /* records seen; the number of the first that a scan should see */
    uint32_t epoch, pad, segment_bytes;
};

static void on_boundary(void *user, struct tb_log_mark mark)
{
    ((struct world *)user)->mark = mark;
}

static void on_durable(void *user, uint64_t position)
{
    ((struct world *)user)->durable = position;
}

static void on_failed(void *user, const struct tb_error *err)
{
    (void)user;
    fail_msg("%s", err->text);
}

static enum tb_rc log_open(struct world *x)
{
    struct tb_error err;
    struct tb_log_config cfg = {.io = x->io,
                                .dir = x->dir,
                                .shard = 1,
                                .epoch = ++x->epoch,
                                .segment_bytes = x->segment_bytes,
                                .pad_bytes = x->pad,
                                .events = {x, on_boundary, on_durable, on_failed}};
    memcpy(cfg.uuid, "0123456789abcdef", 16);
    return tb_log_open(&cfg, &x->log, &err);
}

/* record i: its length and bytes follow from i. */
static size_t record_len(unsigned i)
{
    return i * 7919u % 60000;
}

static enum tb_rc see(void *user, const struct tb_record *r)
{
    struct world *x = user;
    unsigned i = x->base + x->seen;
    size_t len = record_len(i);
    assert_int_equal(r->type, TB_REC_CHUNK);
    assert_int_equal(r->acct, i);
    assert_int_equal(r->payload.len, len);
    for (size_t k = 0; k < len; k += 997)
        assert_int_equal((uint8_t)r->payload.ptr[k], (uint8_t)(i + k));
    x->seen++;
    return TB_OK;
}

static void frame_end(void *user, struct tb_log_mark mark)
{
    ((struct world *)user)->mark = mark;
}

static enum tb_rc scan(struct world *x, struct tb_log_mark from)
{
    struct tb_error err;
    x->seen = 0;
    enum tb_rc rc = tb_log_scan(x->log, from, see, frame_end, x, &err);
    if (rc != TB_OK)
        print_message("    %s\n", err.text);
    return rc;
}

static void start(struct world *x)
{
    struct tb_error err;
    assert_int_equal(tb_log_start(x->log, &err), TB_OK);
}

static void wait_quiet(struct world *x)
{
    tb_log_flush(x->log);
    while (!tb_log_quiet(x->log)) {
        (void)tb_io_turn(x->io, true);
        tb_log_flush(x->log);
    }
}

static enum tb_rc add_one(struct world *x, unsigned i, bool patient)
{
    size_t len = record_len(i);
    enum tb_rc rc;
    while ((rc = tb_log_room(x->log, len, 1, 0, patient)) == TB_BUSY) {
        tb_log_flush(x->log);
        (void)tb_io_turn(x->io, true);
    }
    if (rc != TB_OK)
        return rc;
    uint8_t *p = tb_log_add(x->log, TB_REC_CHUNK, 0, 0, i, len, NULL);
    for (size_t k = 0; k < len; k++)
        p[k] = (uint8_t)(i + k);
    (void)tb_log_added(x->log);
    return TB_OK;
}

static void add(struct world *x, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        assert_int_equal(add_one(x, i, true), TB_OK);
        if (i % 3 == 0)
            tb_log_flush(x->log);
    }
    wait_quiet(x);
    assert_int_equal(x->durable, tb_log_end(x->log));
}

static void world_new_sized(struct world *x, uint32_t pad, uint32_t segment_bytes)
{
    struct tb_error err;
    memset(x, 0, sizeof(*x));
    x->pad = pad;
    x->segment_bytes = segment_bytes;
    (void)snprintf(x->dir, sizeof(x->dir), "/tmp/tambo-log-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    assert_int_equal(tb_io_open(TB_IO_POSIX, &x->io, &err), TB_OK);
    assert_int_equal(log_open(x), TB_OK);
    assert_int_equal(tb_log_format(x->log, &x->first, &err), TB_OK);
    tb_log_close(x->log);
    assert_int_equal(log_open(x), TB_OK);
    assert_int_equal(scan(x, (struct tb_log_mark){x->first, 0, 0}), TB_OK);
    start(x);
}

static void world_new(struct world *x, uint32_t pad)
{
    world_new_sized(x, pad, SEGMENT);
}

static void world_again(struct world *x)
{
    wait_quiet(x);
    tb_log_close(x->log);
    assert_int_equal(log_open(x), TB_OK);
}

static void world_end(struct world *x)
{
    char cmd[96];
    tb_log_close(x->log);
    tb_io_close(x->io);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
}

/* damage: flip one bit at a log position. */
static void damage(struct world *x, uint64_t lsn)
{
    char path[96], byte;
    (void)snprintf(path, sizeof(path), "%s/%08x.seg", x->dir, (unsigned)(lsn / SEGMENT));
    int fd = tb_io_file_open(x->io, path, TB_OPEN_WRITE);
    assert_true(fd >= 0);
    assert_int_equal(tb_io_pread(x->io, fd, &byte, 1, lsn % SEGMENT), 1);
    byte ^= 0x10;
    assert_int_equal(tb_io_pwrite(x->io, fd, &byte, 1, lsn % SEGMENT), 1);
    assert_int_equal(tb_io_file_close(x->io, fd), 0);
}

static void read_again(uint32_t pad)
{
    struct world x;
    world_new(&x, pad);
    add(&x, 0, 700); /* about 20 MB: over several segments */
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, 700);
    start(&x);
    add(&x, 700, 800); /* goes on in the middle of a block, under a new epoch */
    struct tb_log_mark mark = x.mark;
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, 800);
    world_again(&x);
    assert_int_equal(scan(&x, mark), TB_OK); /* from the last boundary: nothing */
    assert_int_equal(x.seen, 0);
    world_end(&x);
}

static void test_read_again(void **state)
{
    (void)state;
    read_again(0);
}

static void test_read_again_padded(void **state)
{
    (void)state;
    read_again(16384);
}

static void test_torn_end(void **state)
{
    struct world x;
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 40);
    struct tb_log_mark before = x.mark;
    add(&x, 40, 41);
    damage(&x, x.mark.end - 1); /* the last frame only: as if its write was torn */
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, 40);
    assert_int_equal(x.mark.end, before.end);
    start(&x);
    add(&x, 40, 60); /* written over what was torn */
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, 60);
    world_end(&x);
}

/* bytes_read: by this process so far, from wherever. */
static uint64_t bytes_read(void)
{
    unsigned long long n = 0;
    FILE *f = fopen("/proc/self/io", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "rchar: %llu", &n), 1);
    assert_int_equal(fclose(f), 0);
    return n;
}

/* What lies behind the end is looked at once, however often it looks like the beginning of a frame. */
static void test_torn_end_read_once(void **state)
{
    struct world x;
    char path[96];
    (void)state;
    world_new_sized(&x, 0, 4 * SEGMENT);
    add(&x, 0, 40);
    uint64_t end = x.mark.end % (4 * SEGMENT);
    static char text[64 << 10];
    memset(text, TB_FRAME_MAGIC & 0xff, sizeof(text));
    (void)snprintf(path, sizeof(path), "%s/%08x.seg", x.dir, (unsigned)(x.mark.end / (4 * SEGMENT)));
    int fd = tb_io_file_open(x.io, path, TB_OPEN_WRITE);
    assert_true(fd >= 0);
    assert_true(end + sizeof(text) <= 4 * SEGMENT);
    assert_int_equal(tb_io_pwrite(x.io, fd, text, sizeof(text), end), sizeof(text));
    assert_int_equal(tb_io_file_close(x.io, fd), 0);
    world_again(&x);
    uint64_t before = bytes_read();
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, 40);
    assert_true(bytes_read() - before < 32 * SEGMENT);
    world_end(&x);
}

static void test_damage_is_refused(void **state)
{
    struct world x;
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 10);
    struct tb_log_mark inner = x.mark;
    add(&x, 10, 40);
    struct tb_log_mark mark = x.mark;
    damage(&x, inner.end + 40); /* frames follow */
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_CORRUPT);
    damage(&x, inner.end + 40); /* mended */
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    damage(&x, mark.end - 1);
    world_again(&x);
    assert_int_equal(scan(&x, mark), TB_CORRUPT); /* R1: the index holds more than the log */
    world_end(&x);
}

static void test_missing_segment(void **state)
{
    struct world x;
    char path[96];
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 400);
    wait_quiet(&x);
    (void)snprintf(path, sizeof(path), "%s/%08x.seg", x.dir, 2);
    assert_int_equal(tb_io_unlink(x.io, path), 0);
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_CORRUPT);
    world_end(&x);
}

/* No segment can be made: what was made is used, no frame names one that is not there, and it goes on later. */
static void test_no_space(void **state)
{
    struct world x;
    char path[96];
    unsigned n = 0;
    (void)state;
    world_new(&x, 0);
    wait_quiet(&x); /* segment 2 is there */
    (void)snprintf(path, sizeof(path), "%s/%08x.seg.new", x.dir, 3);
    assert_int_equal(tb_io_mkdir(x.io, path), 0); /* in the way of the third */
    for (enum tb_rc rc = TB_OK; rc == TB_OK; n += rc == TB_OK) {
        rc = add_one(&x, n, false);
        if (rc != TB_OK)
            assert_int_equal(rc, TB_NOSPACE);
        wait_quiet(&x);
    }
    assert_true(x.mark.end > 2 * (uint64_t)SEGMENT && x.mark.end < 3 * (uint64_t)SEGMENT);
    assert_int_equal(x.durable, x.mark.end);
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, n);
    assert_int_equal(remove(path), 0);
    start(&x);
    add(&x, n, n + 300);
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_OK);
    assert_int_equal(x.seen, n + 300);
    world_end(&x);
}

/* ---- segments that go ---- */

static void freed(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static int64_t free_segment(struct world *x, uint32_t segment)
{
    bool done = false;
    struct tb_op op = {.done = freed, .user = &done};
    tb_log_free(x->log, segment, &op);
    while (!done)
        (void)tb_io_turn(x->io, true);
    return op.result;
}

static bool there(struct world *x, uint32_t segment, const char *ending)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/%08x.seg%s", x->dir, segment, ending);
    return access(path, F_OK) == 0;
}

/* first_of: the first segment from a number on; 0: none. */
static uint32_t first_of(struct world *x, uint32_t from)
{
    uint32_t segment = 0;
    return tb_log_next_segment(x->log, from, &segment) ? segment : 0;
}

/* seal_and_wait: the records so far are in sealed segments, and the next one is there. */
static void seal_and_wait(struct world *x)
{
    enum tb_rc rc;
    while ((rc = tb_log_seal(x->log)) == TB_BUSY)
        (void)tb_io_turn(x->io, true);
    assert_int_equal(rc, TB_OK);
    wait_quiet(x);
}

static void test_free_and_holes(void **state)
{
    struct world x;
    struct tb_log_stat st;
    uint8_t byte;
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 700); /* segments 1 to 5 or so */
    struct tb_log_mark mark = x.mark;
    assert_true(mark.last > 4 * (uint64_t)SEGMENT);
    tb_log_stat(x.log, &st);
    uint64_t used = st.used_bytes;
    assert_int_equal(tb_log_read_now(x.log, &byte, 1, 2 * (uint64_t)SEGMENT, false), 1);
    assert_int_equal(free_segment(&x, 2), 0);
    assert_false(there(&x, 2, ""));
    assert_true(there(&x, 2, ".free"));
    assert_int_equal(tb_log_read_now(x.log, &byte, 1, 2 * (uint64_t)SEGMENT, false), -2);
    assert_int_equal(free_segment(&x, 3), 0); /* a second spare is not kept */
    assert_false(there(&x, 3, ".free"));
    assert_int_equal(first_of(&x, 1), 1);
    assert_int_equal(first_of(&x, 2), 4);
    tb_log_stat(x.log, &st);
    assert_int_equal(st.used_bytes, used - 2 * (uint64_t)SEGMENT);
    assert_int_equal(st.spares, 1);
    add(&x, 700, 900); /* the next segments: the first of them is the spare */
    assert_false(there(&x, 2, ".free"));
    world_again(&x);
    assert_int_equal(first_of(&x, 2), 4);
    x.base = 700;
    assert_int_equal(scan(&x, mark), TB_OK);
    assert_int_equal(x.seen, 200);
    world_end(&x);
}

/* A spare's old frames are not taken for new ones, torn end or not. */
static void test_reused_segment(void **state)
{
    struct world x;
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 400);
    assert_int_equal(free_segment(&x, 1), 0);
    struct tb_log_mark mark = x.mark;
    uint32_t now = (uint32_t)(mark.last / SEGMENT);
    while (there(&x, 1, ".free")) { /* until the spare is the next segment */
        seal_and_wait(&x);
        add(&x, 400, 401);
        now = (uint32_t)(x.mark.last / SEGMENT);
    }
    seal_and_wait(&x); /* and into it */
    mark = x.mark;
    add(&x, 0, 3);
    assert_true(x.mark.last / SEGMENT > now);
    world_again(&x);
    assert_int_equal(scan(&x, mark), TB_OK);
    assert_int_equal(x.seen, 3);
    damage(&x, x.mark.end - 1);
    world_again(&x);
    assert_int_equal(scan(&x, mark), TB_OK); /* torn: the end, though stale frames lie behind it */
    assert_int_equal(x.seen, 1);             /* 1 and 2 are in one frame */
    world_end(&x);
}

/* A segment that a backup links is not written over (R3). */
static void test_linked_segment(void **state)
{
    struct world x;
    char path[96], other[96];
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 400);
    (void)snprintf(path, sizeof(path), "%s/%08x.seg", x.dir, 1);
    (void)snprintf(other, sizeof(other), "%s/kept", x.dir);
    assert_int_equal(link(path, other), 0);
    assert_int_equal(free_segment(&x, 1), 0);
    assert_false(there(&x, 1, ""));
    assert_false(there(&x, 1, ".free"));
    assert_int_equal(access(other, F_OK), 0);
    world_end(&x);
}

/* Behind the end no segment may be missing between others (R2). */
static void test_gap_behind_the_end(void **state)
{
    struct world x;
    char from[96], to[96];
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 10);
    wait_quiet(&x);
    (void)snprintf(from, sizeof(from), "%s/%08x.seg", x.dir, 2);
    (void)snprintf(to, sizeof(to), "%s/%08x.seg", x.dir, 3);
    assert_int_equal(tb_io_rename(x.io, from, to), 0);
    world_again(&x);
    assert_int_equal(scan(&x, (struct tb_log_mark){x.first, 0, 0}), TB_CORRUPT);
    world_end(&x);
}

static enum tb_rc count_record(void *user, const struct tb_record *r)
{
    (void)r;
    ++*(unsigned *)user;
    return TB_OK;
}

static void no_frame_end(void *user, struct tb_log_mark mark)
{
    (void)user;
    (void)mark;
}

static void segment_bytes(struct world *x, char *buf, uint64_t from, size_t len, bool write)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/%08x.seg", x->dir, 1);
    int fd = tb_io_file_open(x->io, path, TB_OPEN_WRITE);
    assert_true(fd >= 0);
    int64_t n = write ? tb_io_pwrite(x->io, fd, buf, len, from) : tb_io_pread(x->io, fd, buf, len, from);
    assert_int_equal(n, len);
    assert_int_equal(tb_io_file_close(x->io, fd), 0);
}

/* A whole frame of another history, at the right position: it names another frame before it, so it is no part of this
 * log (R2). */
static void test_frame_of_another_history(void **state)
{
    enum { SAME_LENGTH = 60000, I = 10 };
    struct world x;
    unsigned seen = 0;
    struct tb_error err;
    char *before = malloc(SEGMENT), *other = malloc(SEGMENT);
    (void)state;
    assert_true(before != NULL && other != NULL);
    world_new(&x, 0);
    add(&x, 0, I);
    struct tb_log_mark fork = x.mark;
    segment_bytes(&x, before, 0, SEGMENT, false);
    add(&x, I, I + 1);
    struct tb_log_mark second = x.mark;
    add(&x, I + 1, I + 2);
    struct tb_log_mark third = x.mark;
    segment_bytes(&x, other, 0, SEGMENT, false);
    segment_bytes(&x, before, 0, SEGMENT, true); /* back to the fork, and on another way */
    tb_log_close(x.log);
    x.epoch--;
    assert_int_equal(log_open(&x), TB_OK);
    assert_int_equal(scan(&x, fork), TB_OK);
    assert_int_equal(x.seen, 0);
    start(&x);
    add(&x, I + SAME_LENGTH, I + SAME_LENGTH + 1);
    assert_int_equal(x.mark.end, second.end);
    segment_bytes(&x, other + second.end % SEGMENT, second.end % SEGMENT, third.end - second.end, true);
    world_again(&x);
    enum tb_rc rc = tb_log_scan(x.log, fork, count_record, no_frame_end, &seen, &err);
    assert_true(rc == TB_CORRUPT || rc == TB_OK);
    assert_int_equal(seen, 1);
    free(before);
    free(other);
    world_end(&x);
}

static void test_walk(void **state)
{
    struct world x;
    struct tb_log_walk *walk;
    struct tb_error err;
    unsigned n = 0, steps = 0;
    enum tb_rc rc;
    (void)state;
    world_new(&x, 0);
    add(&x, 0, 40);
    uint64_t middle = x.mark.end;
    add(&x, 40, 80);
    seal_and_wait(&x);
    assert_int_equal(tb_log_walk_open(x.log, 1, &walk, &err), TB_OK);
    while ((rc = tb_log_walk_some(walk, 100000, count_record, &n, &err)) == TB_OK)
        steps++;
    assert_int_equal(rc, TB_NOTFOUND);
    assert_int_equal(n, 80);
    assert_true(steps > 0);
    tb_log_walk_close(walk);
    damage(&x, middle + 40);
    n = 0;
    assert_int_equal(tb_log_walk_open(x.log, 1, &walk, &err), TB_OK);
    assert_int_equal(tb_log_walk_some(walk, SEGMENT, count_record, &n, &err), TB_CORRUPT);
    assert_int_equal(n, 40);
    tb_log_walk_close(walk);
    world_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_again),
        cmocka_unit_test(test_read_again_padded),
        cmocka_unit_test(test_torn_end),
        cmocka_unit_test(test_torn_end_read_once),
        cmocka_unit_test(test_damage_is_refused),
        cmocka_unit_test(test_missing_segment),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_free_and_holes),
        cmocka_unit_test(test_reused_segment),
        cmocka_unit_test(test_linked_segment),
        cmocka_unit_test(test_gap_behind_the_end),
        cmocka_unit_test(test_frame_of_another_history),
        cmocka_unit_test(test_walk),
    };
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
