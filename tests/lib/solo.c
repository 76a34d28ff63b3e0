/*
 * solo.c: see solo.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include "engine/io/sim.h"
#include "tests/lib/solo.h"

enum { TURNS_MAX = 100000 };

void solo_done(struct tb_op *op)
{
    *(bool *)op->user = true;
}

void solo_until(struct solo *x, const bool *flag)
{
    for (int i = 0; i < TURNS_MAX && !*flag; i++)
        (void)tb_worker_turn(x->w, true);
    assert_true(*flag);
}

static void io_open(struct solo *x)
{
    struct tb_error err = {0};
    if (x->sim)
        x->io = tb_sim_io(x->sim);
    else if (tb_io_open(TB_IO_POSIX, &x->io, &err) != TB_OK)
        fail_msg("%s", err.text);
}

void solo_new(struct solo *x, bool simulated, uint32_t shards)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = shards};
    *x = (struct solo){0};
    (void)snprintf(x->dir, sizeof(x->dir), "/tmp/tambo-test-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    if (simulated) {
        x->sim = tb_sim_new(1, x->dir);
        assert_non_null(x->sim);
    }
    io_open(x);
    if (tb_store_create(x->io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(x->io);
}

void solo_open(struct solo *x, struct tb_store_config cfg)
{
    struct tb_error err = {0};
    cfg.dir = x->dir;
    cfg.workers = 1;
    io_open(x);
    if (tb_store_open(x->io, &cfg, &x->store, &err) != TB_OK ||
        tb_worker_open(x->store, 0, x->io, &x->w, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_worker_started(x->w);
}

void solo_stop(struct solo *x)
{
    bool stopped = false;
    struct tb_op op = {.done = solo_done, .user = &stopped};
    tb_worker_stop(x->w, &op);
    solo_until(x, &stopped);
    tb_worker_close(x->w);
    tb_store_close(x->store);
    tb_io_close(x->io);
}

void solo_end(struct solo *x)
{
    char cmd[128];
    solo_stop(x);
    if (x->sim)
        tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
}

struct tb_account_id solo_account(struct solo *x, const char *name)
{
    bool flag = false;
    struct tb_identity id;
    struct tb_op op = {.done = solo_done, .user = &flag};
    tb_account_create(x->w, tb_slice_str(name), TB_SLICE("{PLAIN}secret"), &op);
    solo_until(x, &flag);
    assert_int_equal(op.rc, TB_OK);
    assert_int_equal(tb_directory_find(x->store, tb_slice_str(name), &id), TB_OK);
    return id.id;
}

void solo_put(struct solo *x, struct tb_account_id id, const char *mailbox, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct tb_delivery_target t = {.id = id, .mailbox = tb_slice_str(mailbox)};
        struct tb_delivery *d;
        bool flag = false;
        struct tb_op op = {.done = solo_done, .user = &flag};
        assert_int_equal(tb_delivery_begin(x->w, 1 << 20, &d), TB_OK);
        assert_int_equal(tb_delivery_add(d, &t), TB_OK);
        assert_true(tb_delivery_write(d, TB_SLICE("Subject: x\r\n\r\nx\r\n"), &op));
        tb_delivery_commit(d, true, &op);
        solo_until(x, &flag);
        assert_int_equal(t.rc, TB_OK);
    }
}
