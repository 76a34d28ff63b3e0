/*
 * backup.c: a backup on its way through the shards, while they serve.
 *
 *   OPEN folder --> for each shard { LOOK (owner: pin all segments, note what there is) --> INDEX (owner: a copy,
 * unless an older one and the log will do) --> LOOK again --> PLAN --> LOG, slice by slice --> DICTS --> LET GO (owner:
 * unpin) }
 *   --> COMMIT: the manifest gets its name --> what keep lets go of is removed
 *
 * Invariants
 * B1 a manifest names only files that were synced and read again before it got its name. B2 a file under its final name
 * is never changed, so older backups stay what they were whatever happens to this one. B3 the index copy holds nothing
 * that the copied log has not. B4 no segment is freed while its shard is being copied. Thread: the loop of `w`; work()
 * on a helper; the calls on each shard's owner.
 */
#include "engine/store/backup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void shard_next(struct tb_backup *b);

/* ---- status ---- */

void tb_backup_tell(struct tb_backup *b, uint64_t done, uint64_t total)
{
    (void)pthread_mutex_lock(&b->lock);
    b->status.shard = b->k;
    b->status.done_bytes = done;
    b->status.total_bytes = total;
    (void)pthread_mutex_unlock(&b->lock);
}

void tb_backup_status(struct tb_store *store, struct tb_backup_status *out)
{
    struct tb_backup *b = store->backup;
    (void)pthread_mutex_lock(&b->lock);
    *out = b->status;
    (void)pthread_mutex_unlock(&b->lock);
}

void tb_backup_cancel(struct tb_store *store)
{
    atomic_store(&store->backup->cancel, true);
}

/* ---- its end ---- */

static void unpin_run(struct tb_call *call, struct tb_worker *owner)
{
    struct tb_backup *b = call->user;
    tb_pin_remove(&tb_shard_of(owner, b->k)->pins, 0);
    call->rc = TB_OK;
}

static void end(struct tb_backup *b)
{
    tb_piece_end(&b->piece, false);
    tb_manifest_free(&b->prev);
    tb_manifest_free(&b->cur);
    free(b->segment);
    free(b->todo);
    b->segment = NULL;
    b->todo = NULL;
    b->segments_cap = 0;
    if (b->lock_fd >= 0)
        (void)tb_io_file_close(b->w->io, b->lock_fd);
    b->lock_fd = -1;
    (void)pthread_mutex_lock(&b->lock);
    b->status.running = false;
    b->status.rc = b->rc;
    b->status.err = b->err;
    (void)pthread_mutex_unlock(&b->lock);
    if (b->rc == TB_OK)
        tb_log(TB_LOG_INFO, "backup run=%u copied_bytes=%llu kept_bytes=%llu", b->status.run,
               (unsigned long long)b->status.copied_bytes, (unsigned long long)b->status.kept_bytes);
    else
        tb_log(TB_LOG_WARN, "backup not made: %s", b->err.text);
}

static void unpinned(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    b->pinned = false;
    if (b->rc != TB_OK)
        end(b);
    else
        shard_next(b);
}

static bool stopping(const struct tb_backup *b)
{
    return b->w->stop_op != NULL || b->w->closing;
}

/* let_go: shard k is done with, for good or not. */
static void let_go(struct tb_backup *b)
{
    if (!b->pinned || stopping(b)) { /* the pin ends with the shard; its owner may be gone already */
        end(b);
        return;
    }
    b->call = (struct tb_call){.run = unpin_run, .user = b, .op = {.done = unpinned, .user = b}};
    tb_call(b->w, b->k, &b->call);
}

static bool ended(struct tb_backup *b)
{
    if (b->rc == TB_OK && (atomic_load(&b->cancel) || stopping(b)))
        b->rc = tb_error_set(&b->err, TB_CANCELLED, 0, "it was told to stop; what it copied stays for the next one");
    if (b->rc == TB_OK)
        return false;
    let_go(b);
    return true;
}

/* ---- slices on a helper ---- */

static void slice_run(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    b->slice_bytes = 0;
    b->more = b->work(b);
}

static void slice_start(struct tb_op *op);

static void slice_done(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    uint64_t spent = tb_io_now_ns(b->w->io) - b->slice_began_ns;
    uint64_t due = b->rate_bytes != 0 ? b->slice_bytes * 1000000000u / b->rate_bytes : 0;
    b->slicing = false;
    if (ended(b))
        return;
    if (!b->more) {
        b->then(b);
        return;
    }
    b->op = (struct tb_op){.done = slice_start, .user = b};
    if (due <= spent) {
        slice_start(&b->op);
        return;
    }
    b->resting = true;
    tb_io_timer(b->w->io, &b->op, due - spent);
}

static void slice_start(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    b->resting = false;
    if (ended(b))
        return;
    b->slicing = true;
    b->slice_began_ns = tb_io_now_ns(b->w->io);
    b->op = (struct tb_op){.done = slice_done, .user = b};
    tb_io_offload(b->w->io, &b->op, slice_run);
}

static void work(struct tb_backup *b, bool (*what)(struct tb_backup *b), void (*then)(struct tb_backup *b))
{
    b->work = what;
    b->then = then;
    b->op.user = b;
    slice_start(&b->op);
}

/* ---- a shard ---- */

/* look_run: what there is, as of now. Durable is what has been answered. */
static void look_run(struct tb_call *call, struct tb_worker *owner)
{
    struct tb_backup *b = call->user;
    struct tb_shard *s = tb_shard_of(owner, b->k);
    b->applied = s->confirmed;
    b->durable = tb_log_durable(s->log);
    b->durable_ms = tb_io_wall_ms(owner->io);
    b->segments_n = 0;
    call->rc = TB_LIMIT;
    for (uint32_t n = 0; tb_log_next_segment(s->log, n, &n); n++) {
        if (b->segments_n == b->segments_cap) {
            size_t cap = b->segments_cap ? 2 * b->segments_cap : 64;
            uint32_t *v = realloc(b->segment, cap * sizeof(*v));
            if (v == NULL)
                return;
            b->segment = v;
            b->segments_cap = cap;
        }
        b->segment[b->segments_n++] = n;
    }
    if (!b->pinned && !tb_pin_add(&s->pins, 0))
        return;
    b->pinned = true;
    call->rc = TB_OK;
}

static void planned(struct tb_backup *b);
static void logged(struct tb_backup *b);
static void index_start(struct tb_backup *b);

static void looked(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    if (op->rc != TB_OK)
        b->rc = tb_error_set(&b->err, op->rc, 0, "shard %u does not answer: %s", b->k, tb_rc_text(op->rc));
    if (!ended(b))
        b->then(b);
}

static void look(struct tb_backup *b, void (*then)(struct tb_backup *b))
{
    b->then = then;
    b->call = (struct tb_call){.run = look_run, .user = b, .op = {.done = looked, .user = b}};
    tb_call(b->w, b->k, &b->call);
}

static void plan(struct tb_backup *b)
{
    work(b, tb_backup_plan, planned);
}

static void planned(struct tb_backup *b)
{
    work(b, tb_backup_log, logged);
}

static void dicts_done(struct tb_backup *b)
{
    let_go(b);
}

static void logged(struct tb_backup *b)
{
    work(b, tb_backup_dicts, dicts_done);
}

/* ---- the index ---- */

static void copy_or_call_done(struct tb_backup *b)
{
    if (--b->waiting > 0)
        return;
    b->head = b->copy.head;
    if (b->copy.op.rc != TB_OK && b->rc == TB_OK) {
        b->rc = b->copy.op.rc;
        b->err = b->copy.err;
        if (b->copy.err.text[0] == '\0')
            (void)tb_error_set(&b->err, b->rc, 0, "shard %u: the copy of its index ended: %s", b->k, tb_rc_text(b->rc));
    }
    if (!ended(b))
        look(b, plan); /* B3 */
}

static void copy_home(struct tb_op *op)
{
    copy_or_call_done(op->user);
}

/* copy_done: on the owner's thread. */
static void copy_done(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    b->hop = (struct tb_op){.done = copy_home, .user = b};
    tb_io_post(b->store->shard[b->k]->worker->io, b->w->io, &b->hop);
}

static void copy_run(struct tb_call *call, struct tb_worker *owner)
{
    struct tb_backup *b = call->user;
    struct tb_shard *s = tb_shard_of(owner, b->k);
    b->copy = (struct tb_copy_job){.op = {.done = copy_done, .user = b}, .rate_bytes = b->rate_bytes};
    (void)snprintf(b->copy.path, sizeof(b->copy.path), "%.990s/shard-%02x/index.part", b->dest, b->k);
    tb_copy_start(s, &b->copy);
    call->rc = TB_OK;
}

static void copy_called(struct tb_op *op)
{
    struct tb_backup *b = op->user;
    if (op->rc != TB_OK && b->rc == TB_OK) {
        b->rc = tb_error_set(&b->err, op->rc, 0, "shard %u does not answer: %s", b->k, tb_rc_text(op->rc));
        if (b->copy.op.user == NULL) /* it never began */
            b->waiting = 1;
    }
    copy_or_call_done(b);
}

static void index_start(struct tb_backup *b)
{
    if (!tb_backup_wants_index(b)) {
        b->head.pages = 0;
        plan(b);
        return;
    }
    b->waiting = 2;
    b->copy.op.user = NULL;
    b->copy.err.text[0] = '\0';
    b->call = (struct tb_call){.run = copy_run, .user = b, .op = {.done = copy_called, .user = b}};
    tb_call(b->w, b->k, &b->call);
}

static void shard_begin(struct tb_backup *b)
{
    tb_backup_tell(b, 0, 0);
    look(b, index_start);
}

/* ---- all of it ---- */

static void committed(struct tb_backup *b)
{
    end(b);
}

static void shard_next(struct tb_backup *b)
{
    b->k++;
    if (b->k < b->store->super.shards) {
        shard_begin(b);
        return;
    }
    (void)pthread_mutex_lock(&b->store->super_lock);
    b->cur.super = b->store->super;
    (void)pthread_mutex_unlock(&b->store->super_lock);
    work(b, tb_backup_commit, committed);
}

static void opened(struct tb_backup *b)
{
    (void)pthread_mutex_lock(&b->lock);
    b->status.run = b->cur.run;
    (void)pthread_mutex_unlock(&b->lock);
    shard_begin(b);
}

enum tb_rc tb_backup_start(struct tb_worker *w, const struct tb_backup_options *opt, struct tb_error *err)
{
    struct tb_store *store = w->store;
    struct tb_backup *b = store->backup;
    size_t len = strlen(opt->dest);
    if (len == 0 || len > 900)
        return tb_error_set(err, TB_INVALID, 0, "a backup needs a folder, with a path of at most 900 bytes");
    (void)pthread_mutex_lock(&b->lock);
    bool running = b->status.running;
    if (!running)
        b->status = (struct tb_backup_status){.running = true, .shards = store->super.shards};
    (void)pthread_mutex_unlock(&b->lock);
    if (running)
        return tb_error_set(err, TB_BUSY, 0, "a backup is being made already");
    memcpy(b->dest, opt->dest, len + 1);
    while (len > 1 && b->dest[len - 1] == '/')
        b->dest[--len] = '\0';
    b->rate_bytes = opt->rate_bytes;
    b->keep = opt->keep;
    b->keep_days = opt->keep_days;
    b->w = w;
    b->rc = TB_OK;
    b->err.text[0] = '\0';
    b->have_prev = b->pinned = false;
    b->k = 0;
    b->piece = (struct tb_piece){.io = w->io, .dest = b->dest, .in = -1, .out = -1};
    memset(&b->prev, 0, sizeof(b->prev));
    memset(&b->cur, 0, sizeof(b->cur));
    b->cur.super = store->super;
    b->piece.super = store->super;
    b->cur.time_ms = INT64_MAX;
    atomic_store(&b->cancel, false);
    work(b, tb_backup_open_dest, opened);
    return TB_OK;
}

/* ---- the store's door to it ---- */

struct tb_backup *tb_backup_new(struct tb_store *store)
{
    struct tb_backup *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return NULL;
    b->store = store;
    b->lock_fd = b->piece.in = b->piece.out = -1;
    (void)pthread_mutex_init(&b->lock, NULL);
    return b;
}

void tb_backup_free(struct tb_backup *b)
{
    if (b == NULL)
        return;
    free(b->piece.buf);
    tb_manifest_free(&b->prev);
    tb_manifest_free(&b->cur);
    free(b->segment);
    free(b->todo);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

bool tb_backup_stop(struct tb_worker *w)
{
    struct tb_backup *b = w->store->backup;
    if (b->w != w)
        return true;
    if (b->resting)
        tb_io_cancel(w->io, &b->op);
    return !b->resting && !b->slicing;
}
