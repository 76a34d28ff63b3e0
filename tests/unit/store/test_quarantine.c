/*
 * test_quarantine.c: a stored message whose bytes went bad answers for itself alone: it is refused before a byte of it
 * is told, remembered over a crash, and served again when its bytes are good again. A scrub finds it unasked, and an
 * index that rots is made again.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/store/shard.h"
#include "tests/lib/solo.h"

enum { MESSAGES = 6, LARGE = 3, LARGE_BYTES = 1500000 };

struct world {
    struct solo s;
    struct tb_account_id id;
    struct tb_account *a;
    struct tb_view *v;
};

static void world_open(struct world *x)
{
    solo_open(&x->s, (struct tb_store_config){.trash_days = 0});
}

static void box_open(struct world *x)
{
    struct tb_identity id;
    assert_int_equal(tb_directory_find(x->s.store, TB_SLICE("ann"), &id), TB_OK);
    x->id = id.id;
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
    assert_int_equal(tb_view_open(x->a, TB_MBOX_INBOX, &x->v), TB_OK);
}

static void crash(struct world *x)
{
    tb_view_close(x->v);
    tb_account_close(x->a);
    tb_worker_close(x->s.w);
    tb_store_close(x->s.store);
    tb_io_close(x->s.io);
}

static struct tb_buf message(unsigned seed)
{
    struct tb_buf b;
    char line[80];
    size_t want = seed == LARGE ? LARGE_BYTES : 3000;
    tb_buf_init(&b, LARGE_BYTES + 200);
    tb_buf_str(&b, "From: a@b\r\nSubject: x\r\n\r\n");
    while (b.len < want) {
        (void)snprintf(line, sizeof(line), "%08x %08x\r\n", (unsigned)rand_r(&seed), (unsigned)rand_r(&seed));
        tb_buf_str(&b, line);
    }
    return b;
}

static void deliver(struct world *x, unsigned seed)
{
    struct tb_delivery *d;
    struct tb_buf m = message(seed);
    struct tb_delivery_target t = {.id = x->id, .mbox = TB_MBOX_INBOX};
    bool committed = false;
    struct tb_op op = {.done = solo_done, .user = &committed};
    assert_int_equal(tb_delivery_begin(x->s.w, 10 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &t), TB_OK);
    for (size_t at = 0; at < m.len; at += 65536) {
        bool go = false;
        struct tb_op written = {.done = solo_done, .user = &go};
        if (!tb_delivery_write(d, tb_slice_sub(tb_buf_all(&m), at, 65536), &written))
            solo_until(&x->s, &go);
    }
    tb_delivery_commit(d, true, &op);
    solo_until(&x->s, &committed);
    assert_int_equal(op.rc, TB_OK);
    tb_buf_free(&m);
}

static void world_new(struct world *x)
{
    solo_new(&x->s, false, 1);
    world_open(x);
    (void)solo_account(&x->s, "ann");
    box_open(x);
    for (unsigned i = 1; i <= MESSAGES; i++)
        deliver(x, i);
    crash(x);
    world_open(x);
    box_open(x);
}

/* read_at: what a reader is told at an offset; its bytes, if it is told any, are the right ones. */
static enum tb_rc read_at(struct world *x, struct tb_body *b, unsigned seed, uint64_t at)
{
    struct tb_buf m = message(seed);
    bool done = false;
    struct tb_op op = {.done = solo_done, .user = &done};
    tb_body_read(b, at, &op);
    solo_until(&x->s, &done);
    if (op.rc == TB_OK) {
        assert_true(op.data.len > 0 && at + op.data.len <= m.len);
        assert_memory_equal(op.data.ptr, m.ptr + at, op.data.len);
    }
    tb_buf_free(&m);
    return op.rc;
}

static enum tb_rc read_from(struct world *x, unsigned uid, uint64_t at)
{
    struct tb_body *b;
    assert_int_equal(tb_body_open(x->v, uid, &b), TB_OK);
    enum tb_rc rc = read_at(x, b, uid, at);
    tb_body_close(b);
    return rc;
}

/* flip: one bit in the middle of a message's last piece, on the disk. */
static void flip(struct world *x, unsigned uid)
{
    struct tb_shard *s = x->s.store->shard[0];
    struct tb_key k;
    struct tb_slice v;
    struct tb_row row;
    struct tb_blob_row blob = {0};
    struct tb_disk_piece p;
    char path[200];
    uint8_t byte;
    assert_int_equal(tb_view_row(x->v, uid, &row), TB_OK);
    tb_key_begin(&k);
    tb_key_u64(&k, row.blob);
    assert_true(tb_index_get(s->ix, TB_DB_BLOB, tb_key_slice(&k), &v));
    memcpy(&blob, v.ptr, v.len);
    p = blob.own;
    if (!(blob.blob.flags & TB_BLOB_OWN_BODY)) {
        struct tb_disk_body body;
        tb_key_begin(&k);
        tb_key_u64(&k, blob.blob.body);
        assert_true(tb_index_get(s->ix, TB_DB_BODY, tb_key_slice(&k), &v));
        memcpy(&body, v.ptr, sizeof(body));
        assert_true(tb_body_piece(s->ix, blob.blob.body, &body, body.pieces - 1, &p));
    }
    (void)snprintf(path, sizeof(path), "%s/shard-00/log/%08x.seg", x->s.dir, (unsigned)(p.lsn >> 22));
    int fd = open(path, O_RDWR);
    off_t at = (off_t)(p.lsn % (4 << 20) + p.clen / 2);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static uint64_t quarantined(struct world *x)
{
    struct tb_shard_stat st;
    tb_shard_stat(x->s.w, 0, &st);
    return st.quarantined;
}

static void world_end(struct world *x)
{
    char cmd[128];
    crash(x);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->s.dir);
    assert_int_equal(system(cmd), 0);
}

static void test_small(void **state)
{
    struct world x = {0};
    (void)state;
    world_new(&x);
    flip(&x, 2);
    for (unsigned uid = 1; uid <= MESSAGES; uid++)
        assert_int_equal(read_from(&x, uid, 1000), uid == 2 ? TB_CORRUPT : TB_OK);
    assert_int_equal(quarantined(&x), 1);
    for (int i = 0; i < 20; i++) /* the record becomes durable */
        (void)tb_worker_turn(x.s.w, false);
    crash(&x);
    world_open(&x);
    box_open(&x);
    assert_int_equal(quarantined(&x), 1);
    assert_int_equal(read_from(&x, 2, 0), TB_CORRUPT); /* the head is good, and is not told either */
    flip(&x, 2);
    assert_int_equal(read_from(&x, 2, 0), TB_OK);
    assert_int_equal(read_from(&x, 2, 1000), TB_OK);
    assert_int_equal(quarantined(&x), 0);
    world_end(&x);
}

static void test_large(void **state)
{
    struct world x = {0};
    struct tb_body *b;
    (void)state;
    world_new(&x);
    flip(&x, LARGE);
    assert_int_equal(tb_body_open(x.v, LARGE, &b), TB_OK);
    assert_int_equal(read_at(&x, b, LARGE, 0), TB_OK);
    assert_int_equal(read_at(&x, b, LARGE, LARGE_BYTES - 10), TB_CORRUPT);
    assert_int_equal(read_at(&x, b, LARGE, 0), TB_OK); /* this reader has begun */
    tb_body_close(b);
    assert_int_equal(read_from(&x, LARGE, 0), TB_CORRUPT); /* the next one is told at once */
    assert_int_equal(quarantined(&x), 1);
    flip(&x, LARGE);
    assert_int_equal(read_from(&x, LARGE, 0), TB_OK);
    assert_int_equal(quarantined(&x), 0);
    world_end(&x);
}

/* test_gone: with the message, its quarantine goes. */
static void test_gone(void **state)
{
    struct world x = {0};
    struct tb_uidset set;
    (void)state;
    world_new(&x);
    flip(&x, 1);
    assert_int_equal(read_from(&x, 1, 1000), TB_CORRUPT);
    assert_int_equal(quarantined(&x), 1);
    tb_uidset_init(&set);
    tb_uidset_add(&set, 1, 1);
    assert_int_equal(tb_delete(x.v, &set), TB_OK);
    tb_uidset_free(&set);
    for (int i = 0; i < 400 && quarantined(&x) > 0; i++) /* the trash is emptied once a second */
        (void)tb_worker_turn(x.s.w, true);
    assert_int_equal(quarantined(&x), 0);
    world_end(&x);
}

static void scrub(struct world *x)
{
    struct tb_shard_stat st = {.scrub_running = true};
    tb_scrub_start(x->s.w, 0);
    for (int i = 0; i < 10000 && st.scrub_running && !x->s.store->shard[0]->failed; i++) {
        (void)tb_worker_turn(x->s.w, true);
        tb_shard_stat(x->s.w, 0, &st);
    }
    assert_true(!st.scrub_running || x->s.store->shard[0]->failed);
}

/* test_scrub_log: what no reader has asked for is found by the scrub, and its neighbours are left alone. */
static void test_scrub_log(void **state)
{
    struct world x = {0};
    struct tb_shard_stat st;
    (void)state;
    world_new(&x);
    scrub(&x);
    tb_shard_stat(x.s.w, 0, &st);
    assert_int_equal(st.scrub_damage, 0);
    assert_int_equal(st.scrub_rounds, 1);
    flip(&x, 4);
    flip(&x, LARGE);
    scrub(&x);
    tb_shard_stat(x.s.w, 0, &st);
    assert_int_equal(st.scrub_damage, 2);
    assert_int_equal(st.scrub_rounds, 2);
    assert_int_equal(st.quarantined, 2);
    for (unsigned uid = 1; uid <= MESSAGES; uid++)
        assert_int_equal(read_from(&x, uid, 0), uid == 4 || uid == LARGE ? TB_CORRUPT : TB_OK);
    world_end(&x);
}

/* rot: the last byte of every leaf page of the index, free ones included. */
static void rot(struct world *x)
{
    char path[100];
    uint8_t page[4096];
    (void)snprintf(path, sizeof(path), "%s/shard-00/index.mdb", x->s.dir);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (off_t at = 2 * 4096; pread(fd, page, sizeof(page), at) == sizeof(page); at += 4096) {
        if (tb_get_le16(page + 10) != 2 || tb_get_le64(page) != (uint64_t)at / 4096)
            continue;
        page[4095] ^= 1;
        assert_int_equal(pwrite(fd, page + 4095, 1, at + 4095), 1);
    }
    close(fd);
}

/* test_scrub_index: damage in the index: the shard fails closed, its index is made again, and nothing is missing. */
static void test_scrub_index(void **state)
{
    struct world x = {0};
    (void)state;
    world_new(&x);
    tb_view_close(x.v);
    tb_account_close(x.a);
    rot(&x);
    scrub(&x);
    struct tb_shard *s = x.s.store->shard[0];
    assert_true(s->failed);
    for (int i = 0; i < 10000 && s->failed; i++)
        (void)tb_worker_turn(x.s.w, true);
    assert_false(s->failed);
    box_open(&x);
    for (unsigned uid = 1; uid <= MESSAGES; uid++)
        assert_int_equal(read_from(&x, uid, 0), TB_OK);
    world_end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),     cmocka_unit_test(test_large),       cmocka_unit_test(test_gone),
        cmocka_unit_test(test_scrub_log), cmocka_unit_test(test_scrub_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
