/*
 * revive.c: a shard that failed closed, and its way back into service while the others serve (R7).
 *
 * A failed write or sync is never tried again. What the shard has in memory may be ahead of the disk, so none of it is
 * trusted: output that waits for it is discarded, its sessions end, calls are answered IO, no transaction is committed.
 * When nobody holds anything of it any more, it is rebuilt from disk as at a start: page cache forgotten, a new epoch,
 * meta roll-back, replay, a confirmed checkpoint. That blocks, so a helper thread does it; the owner only opens the
 * transaction. If the disk still fails, it is tried again after 1, 2, 4 ... 60 seconds; damage is left to a person.
 *
 * Invariants
 *   V1 between DRAINING's end and SERVING nothing points into the log or the index of the shard.
 *   V2 while REBUILDING the helper alone looks at the shard; everybody else stops at `failed`.
 * Thread: the shard's owner, but for rebuild_work.
 */
#include "engine/store/rebuild.h"

#include <errno.h>
#include <stdio.h>

enum { PAUSE_MAX_S = 60, HEALTHY_S = 60 };
#define SECOND_NS 1000000000ull

const char *tb_shard_state_text(const struct tb_shard *s)
{
    static const char *const text[] = {
        [SHARD_SERVING] = "serving", [SHARD_TELLING] = "failed",        [SHARD_DRAINING] = "failed",
        [SHARD_PAUSED] = "waiting",  [SHARD_REBUILDING] = "rebuilding", [SHARD_DOWN] = "down",
    };
    return text[s->state];
}

/* ---- failing ---- */

static void told(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    const struct tb_store_config *cfg = &s->store->cfg;
    if (cfg->failed != NULL)
        cfg->failed(cfg->user, s->worker, s->number, &s->reason); /* sessions first: they take their gates away */
    tb_watches_lost(s);
    tb_shard_answer_all(s);
    s->reviving = false;
    s->state = SHARD_DRAINING;
}

void tb_revive_begin(struct tb_shard *s, const struct tb_error *err)
{
    uint64_t now = tb_io_now_ns(s->worker->io);
    s->failed = true;
    atomic_store(&s->away, true);
    s->state = SHARD_TELLING;
    s->reason = *err;
    s->failed_ns = now;
    if (now - s->opened_ns > HEALTHY_S * SECOND_NS)
        s->failures = 0;
    s->failures++;
    if (err->rc == TB_CORRUPT) /* the index failed a checksum or a record: twice in a row, it is made again */
        tb_suspect(s->worker->io, s->dir, s->failures > 1 ? TB_CONDEMNED : TB_SUSPECT);
    atomic_fetch_add(&s->store->queue_unsettled, 1); /* until the queue is resumed: see tb_queue_resume */
    if (s->number == 0)
        s->store->creating = NULL; /* who was creating an account is told IO; the name is free again */
    tb_log(TB_LOG_ERROR,
           "alert: shard=%u failed closed, nothing of it is answered until it has been rebuilt from disk; failures=%u: "
           "%s",
           s->number, s->failures, err->text);
    s->reviving = true;
    s->revive_op = (struct tb_op){.done = told, .user = s};
    tb_worker_ready(s->worker, &s->revive_op, TB_OK);
}

/* ---- rebuilding ---- */

/* forget: the pages of the index that a failed sync left in memory alone. */
static void forget(struct tb_shard *s)
{
    char path[TB_PATH + 16];
    (void)snprintf(path, sizeof(path), "%s/index.mdb", s->dir);
    int fd = tb_io_file_open(s->worker->io, path, TB_OPEN_READ);
    if (fd < 0)
        return; /* the recovery says so */
    tb_io_file_forget(s->worker->io, fd);
    (void)tb_io_file_close(s->worker->io, fd);
}

static void rebuild_work(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    forget(s);
    op->rc = tb_store_raise_epoch(s->store, s->worker->io, &s->epoch, &s->attempt);
    if (op->rc == TB_OK)
        op->rc = tb_shard_recover(s, &s->attempt);
}

static void pause_ended(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    s->reviving = false;
}

/* pause_begin: the first attempt comes at once, later ones after 1, 2, 4 ... seconds. */
static void pause_begin(struct tb_shard *s)
{
    unsigned shift = s->failures > 1 ? s->failures - 2 : 0;
    uint64_t seconds = s->failures <= 1 ? 0 : shift < 6 ? 1u << shift : PAUSE_MAX_S;
    s->state = SHARD_PAUSED;
    if (seconds == 0)
        return;
    s->reviving = true;
    s->revive_op = (struct tb_op){.done = pause_ended, .user = s};
    tb_io_timer(s->worker->io, &s->revive_op, (seconds < PAUSE_MAX_S ? seconds : PAUSE_MAX_S) * SECOND_NS);
}

static void rebuild_failed(struct tb_shard *s, enum tb_rc rc)
{
    tb_shard_drop(s);
    s->failures++;
    if (rc == TB_CORRUPT || rc == TB_INVALID) {
        s->state = SHARD_DOWN;
        tb_log(TB_LOG_ERROR, "alert: shard=%u stays down: %s", s->number, s->reason.text);
        return;
    }
    tb_log(TB_LOG_WARN, "shard=%u cannot be rebuilt yet, it is tried again: %s", s->number, s->reason.text);
    pause_begin(s);
}

void tb_revive_absent(struct tb_shard *s, enum tb_rc rc, const struct tb_error *err)
{
    s->reason = *err;
    s->failed_ns = tb_io_now_ns(s->worker->io);
    rebuild_failed(s, rc);
}

static void rebuilt(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    enum tb_rc rc = op->result == -ECANCELED ? TB_CANCELLED : op->rc;
    s->reviving = false;
    if (rc == TB_OK && !s->stopping && !s->worker->closing)
        rc = tb_shard_serve(s, &s->attempt);
    if (rc != TB_OK) {
        s->reason = s->attempt;
        rebuild_failed(s, rc);
        return;
    }
    if (s->failed) {
        tb_shard_drop(s); /* stopping: the next start opens it */
        s->state = SHARD_PAUSED;
        return;
    }
    tb_log(TB_LOG_WARN, "shard=%u serves again after %llu ms", s->number,
           (unsigned long long)((tb_io_now_ns(s->worker->io) - s->failed_ns) / 1000000));
    if (s->number == 0 && (rc = tb_directory_load(s->store, s->ix)) != TB_OK) {
        struct tb_error err;
        (void)tb_error_set(&err, rc, 0, "the accounts cannot be read");
        atomic_fetch_sub(&s->store->queue_unsettled, 1); /* what fails now adds it again */
        tb_shard_fail(s, &err);
        return;
    }
    tb_queue_resume(s);
}

static void rebuild_begin(struct tb_shard *s)
{
    s->state = SHARD_REBUILDING;
    s->reviving = true;
    s->revive_op = (struct tb_op){.done = rebuilt, .user = s};
    tb_io_offload(s->worker->io, &s->revive_op, rebuild_work);
}

/* let_go: does nobody hold anything of it any more? (V1) */
static bool let_go(const struct tb_shard *s)
{
    return s->gate_first == NULL && s->waiting_first == NULL && s->accounts_open == 0 && s->bodies_open == 0 &&
           s->fanouts == 0 && tb_shard_idle(s);
}

void tb_revive(struct tb_shard *s)
{
    if (s->reviving || s->stopping || s->worker->closing)
        return;
    if (s->state == SHARD_DRAINING && let_go(s)) {
        tb_shard_drop(s);
        pause_begin(s);
    } else if (s->state == SHARD_PAUSED) {
        rebuild_begin(s);
    }
}

void tb_revive_stop(struct tb_shard *s)
{
    if (s->state == SHARD_PAUSED && s->reviving)
        tb_io_cancel(s->worker->io, &s->revive_op);
    if (s->state == SHARD_PAUSED)
        s->state = SHARD_DOWN;
}
