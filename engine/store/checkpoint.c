/*
 * checkpoint.c: turning the open transaction into a confirmed snapshot without stopping the world.
 *
 *   IDLE --boundary, due: commit (page cache only), begin the next--> SYNCING --fdatasync done-->
 *   WAITING --log durable past `applied`--> WRITING --CKPT slot durable--> IDLE, confirmed
 *
 * S5: nothing is committed outside IDLE, so transaction T+1 never reaches the file before T is confirmed. R1: a commit
 * happens only at a frame boundary. R8: the pages that the open transaction may need are reserved on disk ahead
 * (fallocate beyond the end). Thread: the shard's owner; the reservation runs on a helper.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdio.h>

#include "engine/base/rules.h"

enum {
    PAGE = 4096,
    DIRTY_MAX = 16384,   /* pages: beyond it LMDB's dirty list gets slow */
    RESERVE_MAX = 32768, /* pages: 128 MiB */
    RESERVE_MIN = 512,
    CKPT_LOG_BYTES = 32 << 20,
    CKPT_MS = 5000
};
#define RETRY_NS 1000000000ull

static void checkpoint_fail(struct tb_shard *s, int sys, const char *what)
{
    struct tb_error err;
    (void)tb_error_set(&err, TB_IO, sys, "shard %s: %s", s->dir, what);
    tb_shard_fail(s, &err);
}

/* ---- reserving index pages ---- */

/* reserve_max: pages; a store with small segments lives on a small disk, most of which is for mail. */
static uint64_t reserve_max(const struct tb_shard *s)
{
    uint64_t pages = 2 * s->store->super.segment_bytes / PAGE;
    return pages < RESERVE_MAX ? pages : RESERVE_MAX;
}

static void reserve_work(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    if (TB_KEEPS(reserve))
        s->reserve_result = tb_io_file_reserve(s->worker->io, s->index_fd, (s->index_high + s->reserve_want) * PAGE);
}

static void reserve_done(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    s->reserving = false;
    if (s->failed)
        return;
    s->reserve_tried_ns = tb_io_now_ns(s->worker->io);
    if (s->reserve_result == 0) {
        s->reserve_pages = s->reserve_want;
        s->index_full = false;
    } else if (s->reserve_want > RESERVE_MIN) {
        s->reserve_want /= 4;
        tb_checkpoint_reserve(s);
        return;
    } else {
        if (!s->index_full)
            tb_log(TB_LOG_WARN, "shard=%s no space to grow the index: %s; deliveries are refused until there is",
                   s->dir, strerror(-s->reserve_result));
        s->index_full = true;
    }
    s->reserve_want = reserve_max(s);
}

void tb_checkpoint_reserve(struct tb_shard *s)
{
    uint64_t used;
    if (s->reserving)
        return;
    if (s->reserve_want == 0)
        s->reserve_want = reserve_max(s);
    tb_index_pages(s->ix, &used, &s->index_high);
    s->reserving = true;
    s->reserve_op = (struct tb_op){.done = reserve_done, .user = s};
    tb_io_offload(s->worker->io, &s->reserve_op, reserve_work);
}

/* ---- checkpoints ---- */

static void write_done(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    s->ckpt_phase = CKPT_IDLE;
    if (s->failed)
        return;
    if (op->result != TB_BLOCK) {
        checkpoint_fail(s, op->result < 0 ? (int)-op->result : EIO, "the checkpoint record cannot be written");
        return;
    }
    s->confirmed = s->ckpt.applied;
    s->confirmed_last = s->ckpt.last;
    s->checkpoints++;
    tb_checkpoint_reserve(s);
    tb_copies_confirmed(s);
    tb_gc_confirmed(s);
}

void tb_checkpoint_durable(struct tb_shard *s)
{
    if (s->ckpt_phase != CKPT_WAITING || (tb_log_durable(s->log) < s->ckpt.applied && TB_KEEPS(confirm)))
        return;
    s->ckpt_phase = CKPT_WRITING;
    s->ckpt.seq++;
    tb_ckpt_seal(&s->ckpt);
    memset(s->ckpt_block, 0, TB_BLOCK);
    memcpy(s->ckpt_block, &s->ckpt, sizeof(s->ckpt));
    s->ckpt_op = (struct tb_op){.done = write_done, .user = s};
    tb_io_write(s->worker->io, &s->ckpt_op, s->ckpt_fd, s->ckpt_block, TB_BLOCK, (s->ckpt.seq & 1) * TB_SLOT_STRIDE,
                true);
}

static void sync_done(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    s->ckpt_phase = CKPT_WAITING;
    if (s->failed)
        return;
    if (op->result < 0 && TB_KEEPS(syncfail)) {
        checkpoint_fail(s, (int)-op->result, "the index cannot be synced");
        return;
    }
    tb_checkpoint_durable(s);
}

/* commit: the snapshot goes to the page cache; fills s->ckpt but for its sequence number. */
static enum tb_rc commit(struct tb_shard *s, struct tb_log_mark mark)
{
    uint64_t txnid;
    tb_apply_flush(&s->x, mark.end, mark.chain);
    enum tb_rc rc = tb_index_commit(s->ix, &txnid);
    if (rc == TB_OK)
        rc = tb_index_meta(s->ix, s->worker->io, s->index_fd, txnid, s->ckpt.meta);
    if (rc != TB_OK)
        return rc;
    s->ckpt.txnid = txnid;
    s->ckpt.applied = mark.end;
    s->ckpt.last = mark.last;
    s->ckpt.chain = mark.chain;
    s->ckpt.epoch = s->epoch;
    s->ckpt_time_ms = s->x.state.time_ms;
    s->ckpt_log_end = mark.end;
    s->want_checkpoint = false;
    return TB_OK;
}

static bool due(const struct tb_shard *s, uint64_t end)
{
    const struct tb_store_config *cfg = &s->store->cfg;
    uint64_t pages = s->reserve_pages / 2 < DIRTY_MAX ? s->reserve_pages / 2 : DIRTY_MAX;
    uint64_t bytes = cfg->checkpoint_log_bytes ? cfg->checkpoint_log_bytes : CKPT_LOG_BYTES;
    uint64_t ms = cfg->checkpoint_ms ? cfg->checkpoint_ms : CKPT_MS;
    return s->want_checkpoint || s->x.dirty_pages >= pages || end - s->ckpt_log_end >= bytes ||
           tb_io_now_ns(s->worker->io) - s->ckpt_started_ns >= ms * 1000000;
}

void tb_checkpoint_boundary(struct tb_shard *s, struct tb_log_mark mark)
{
    tb_apply_frame_end(&s->x);
    if (s->failed || s->ckpt_phase != CKPT_IDLE || mark.end == s->x.state.applied || !due(s, mark.end))
        return;
    if (commit(s, mark) != TB_OK || tb_index_begin(s->ix) != TB_OK) {
        checkpoint_fail(s, 0, tb_index_error(s->ix));
        return;
    }
    s->ckpt_started_ns = tb_io_now_ns(s->worker->io);
    if (!TB_KEEPS(ckptsync)) {
        s->ckpt_phase = CKPT_WAITING;
        tb_checkpoint_durable(s);
        return;
    }
    s->ckpt_phase = CKPT_SYNCING;
    s->ckpt_op = (struct tb_op){.done = sync_done, .user = s};
    tb_io_datasync(s->worker->io, &s->ckpt_op, s->index_fd);
}

void tb_checkpoint_tick(struct tb_shard *s)
{
    uint64_t end = tb_log_end(s->log);
    if (s->ckpt_phase == CKPT_IDLE && end != s->x.state.applied && due(s, end))
        tb_log_boundary(s->log);
    if (s->index_full && tb_io_now_ns(s->worker->io) - s->reserve_tried_ns >= RETRY_NS)
        tb_checkpoint_reserve(s);
}

bool tb_checkpoint_quiet(const struct tb_shard *s)
{
    return s->ckpt_phase == CKPT_IDLE && !s->reserving;
}

enum tb_rc tb_checkpoint_now(struct tb_shard *s, struct tb_log_mark mark, struct tb_error *err)
{
    char path[TB_PATH + 8];
    (void)snprintf(path, sizeof(path), "%s/CKPT", s->dir);
    if (commit(s, mark) != TB_OK)
        return tb_error_set(err, tb_index_rc(s->ix), 0, "shard %s: %s", s->dir, tb_index_error(s->ix));
    int rc = tb_io_sync(s->worker->io, s->index_fd);
    if (rc < 0)
        return tb_error_set(err, TB_IO, -rc, "shard %s: the index cannot be synced", s->dir);
    s->ckpt.seq++;
    tb_ckpt_seal(&s->ckpt);
    enum tb_rc result = tb_slot_write(s->worker->io, path, s->ckpt.seq, &s->ckpt, sizeof(s->ckpt), err);
    if (result == TB_OK) {
        s->confirmed = mark.end;
        s->confirmed_last = mark.last;
    }
    return result;
}
