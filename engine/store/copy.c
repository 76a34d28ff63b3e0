/*
 * copy.c: making a copy of a shard's index while it serves.
 *
 *   WAITING --nothing committed is unconfirmed: begin the snapshot--> COPYING --all pages--> CLOSING --table, first
 *   block, sync--> VERIFYING --read again, all of it--> WALKING --its pages are a sound index--> NAMING --rename,
 *   folder synced--> done
 *
 * Invariants
 * C1 only a confirmed snapshot is copied, and its pages are kept by a read transaction until the last one was read
 * (R10). C2 a file bears its final name only after it was synced, read again and found right, and its pages read as an
 * index: a bit that a read of the live index got wrong would have a right checksum in the copy. C3 the owner only
 * begins and ends the snapshot; the rest is done in slices of 1 MiB on a helper thread, one at a time. C4 LMDB's two
 * meta pages both read as the copied snapshot's. Thread: the shard's owner, but for slice().
 */
#include "engine/store/copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/index/walk.h"

enum phase { WAITING, COPYING, CLOSING, VERIFYING, WALKING, NAMING };
enum { META_LEAD = 16, SLICE = TB_COPY_SLICE_PAGES * TB_COPY_PAGE };

struct tb_copy_run {
    struct tb_copy_run *next; /* of the shard's */
    struct tb_shard *shard;   /* borrowed */
    struct tb_copy_job *job;  /* borrowed: the caller's until done */
    enum phase phase;
    bool cancel, resting;
    struct tb_op op;          /* the slice on a helper, or the pause between two */
    struct tb_snapshot *snap; /* owned while COPYING */
    struct tb_disk_copy head; /* under construction */
    uint64_t at;              /* the next page */
    int in, out;              /* index.mdb, PATH.new */
    uint8_t *table, *pages;   /* owned, aligned */
    size_t table_len;
    struct tb_sha256 sha;
    struct tb_copy_reader reader;
    struct tb_walk *walk; /* owned, while WALKING */
    int walk_fd;
    bool walked;
    uint64_t slice_bytes, slice_began_ns;
    enum tb_rc rc;
};

static void path_new(const struct tb_copy_run *r, char out[TB_COPY_PATH_NEW])
{
    (void)snprintf(out, TB_COPY_PATH_NEW, "%s.new", r->job->path);
}

static enum tb_rc run_error(struct tb_copy_run *r, int64_t n, const char *what)
{
    return tb_error_set(&r->job->err, n == -ENOSPC ? TB_NOSPACE : TB_IO, n < 0 ? (int)-n : EIO, "index copy %s: %s",
                        r->job->path, what);
}

/* ---- slices, on a helper thread ---- */

/* roll_metas: C4: the live file's meta pages may have moved on since. */
static void roll_metas(struct tb_copy_run *r)
{
    for (uint64_t i = 0; i < 2; i++)
        memcpy(r->pages + i * TB_COPY_PAGE + META_LEAD, r->head.ckpt.meta, TB_META_BYTES);
}

static enum tb_rc copy_slice(struct tb_copy_run *r)
{
    struct tb_io *io = r->shard->worker->io;
    uint64_t left = r->head.pages - r->at;
    size_t n = left < TB_COPY_SLICE_PAGES ? (size_t)left : TB_COPY_SLICE_PAGES, len = n * TB_COPY_PAGE;
    int64_t got = tb_io_pread(io, r->in, r->pages, len, r->at * TB_COPY_PAGE);
    if (got < 0)
        return run_error(r, got, "the index cannot be read");
    memset(r->pages + got, 0, len - (size_t)got); /* pages at the end that were given out and never written */
    if (r->at == 0)
        roll_metas(r);
    for (size_t i = 0; i < n; i++)
        tb_put_le32(r->table + (r->at + i) * 4, tb_crc32c(0, r->pages + i * TB_COPY_PAGE, TB_COPY_PAGE));
    tb_sha256_update(&r->sha, r->pages, len);
    got = tb_io_pwrite(io, r->out, r->pages, len, TB_BLOCK + r->at * TB_COPY_PAGE);
    if (got != (int64_t)len)
        return run_error(r, got, "it cannot be written");
    r->at += n;
    r->slice_bytes = len;
    return TB_OK;
}

static enum tb_rc close_slice(struct tb_copy_run *r)
{
    struct tb_io *io = r->shard->worker->io;
    tb_sha256_update(&r->sha, r->table, r->table_len);
    tb_sha256_final(&r->sha, r->head.sha256);
    tb_copy_seal(&r->head);
    int64_t n = tb_io_pwrite(io, r->out, r->table, r->table_len, TB_BLOCK + r->head.pages * TB_COPY_PAGE);
    if (n != (int64_t)r->table_len)
        return run_error(r, n, "it cannot be written");
    memset(r->pages, 0, TB_BLOCK);
    memcpy(r->pages, &r->head, sizeof(r->head));
    n = tb_io_pwrite(io, r->out, r->pages, TB_BLOCK, 0);
    int sync = n == TB_BLOCK ? tb_io_sync(io, r->out) : -EIO;
    return sync < 0 ? run_error(r, n < 0 ? n : sync, "it cannot be written") : TB_OK;
}

static enum tb_rc verify_slice(struct tb_copy_run *r)
{
    struct tb_error *err = &r->job->err;
    char path[TB_COPY_PATH_NEW];
    path_new(r, path);
    enum tb_rc rc = TB_OK;
    if (r->reader.path == NULL)
        rc = tb_copy_reader_open(&r->reader, r->shard->worker->io, path, err);
    if (rc == TB_OK)
        rc = tb_copy_reader_step(&r->reader, err);
    r->slice_bytes = r->reader.n * TB_COPY_PAGE;
    r->reader.path = r->job->path; /* path dies with this call */
    return rc;
}

static int64_t walk_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct tb_copy_run *r = user;
    r->slice_bytes += len;
    return tb_io_pread(r->shard->worker->io, r->walk_fd, buf, len, TB_BLOCK + offset);
}

static void walk_damage(void *user, enum tb_db db, const char *what)
{
    struct tb_copy_run *r = user;
    if (r->rc == TB_OK)
        r->rc = tb_error_set(&r->job->err, TB_CORRUPT, 0, "index copy %s: it is no sound index: %s%s%s", r->job->path,
                             db < TB_DBS ? tb_index_db_name(db) : "", db < TB_DBS ? ": " : "", what);
}

static enum tb_rc walk_slice(struct tb_copy_run *r)
{
    struct tb_walk_config cfg = {.user = r, .read = walk_read, .damage = walk_damage};
    r->rc = TB_OK;
    if (r->walk == NULL) {
        char path[TB_COPY_PATH_NEW];
        path_new(r, path);
        r->walk_fd = tb_io_file_open(r->shard->worker->io, path, TB_OPEN_READ);
        if (r->walk_fd < 0)
            return run_error(r, r->walk_fd, "it cannot be read");
        r->walk = tb_walk_new(&cfg, r->head.ckpt.meta);
        if (r->walk == NULL)
            return tb_error_set(&r->job->err, TB_LIMIT, ENOMEM, "index copy %s", r->job->path);
    }
    r->walked = !tb_walk_step(r->walk, TB_COPY_SLICE_PAGES);
    return r->rc;
}

static enum tb_rc name_slice(struct tb_copy_run *r)
{
    struct tb_io *io = r->shard->worker->io;
    char fresh[TB_COPY_PATH_NEW], dir[TB_COPY_PATH];
    path_new(r, fresh);
    (void)snprintf(dir, sizeof(dir), "%s", r->job->path);
    char *slash = strrchr(dir, '/');
    if (slash != NULL)
        *slash = '\0';
    int rc = tb_io_rename(io, fresh, r->job->path);
    if (rc == 0)
        rc = tb_io_sync_dir(io, slash != NULL ? dir : ".");
    return rc < 0 ? run_error(r, rc, "it cannot be given its name") : TB_OK;
}

static void slice(struct tb_op *op)
{
    struct tb_copy_run *r = op->user;
    r->slice_bytes = 0;
    if (r->phase == COPYING)
        r->rc = copy_slice(r);
    else if (r->phase == CLOSING)
        r->rc = close_slice(r);
    else if (r->phase == VERIFYING)
        r->rc = verify_slice(r);
    else if (r->phase == WALKING)
        r->rc = walk_slice(r);
    else
        r->rc = name_slice(r);
}

/* ---- the owner's side ---- */

static void run_free(struct tb_copy_run *r)
{
    tb_index_snapshot_end(r->snap);
    if (r->in >= 0)
        (void)tb_io_file_close(r->shard->worker->io, r->in);
    if (r->out >= 0)
        (void)tb_io_file_close(r->shard->worker->io, r->out);
    if (r->walk_fd >= 0)
        (void)tb_io_file_close(r->shard->worker->io, r->walk_fd); /* read only */
    tb_walk_free(r->walk);
    tb_copy_reader_close(&r->reader);
    free(r->table);
    free(r->pages);
    free(r);
}

static void run_unlink(const struct tb_copy_run *r)
{
    struct tb_copy_run **at = &r->shard->copies;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
}

static void finish(struct tb_copy_run *r, enum tb_rc rc)
{
    struct tb_copy_job *job = r->job;
    struct tb_worker *w = r->shard->worker;
    char fresh[TB_COPY_PATH_NEW];
    path_new(r, fresh);
    if (rc != TB_OK && r->out >= 0)
        (void)tb_io_unlink(w->io, fresh); /* what stays of it is only debris: the next one writes over it */
    job->head = r->head;
    job->run = NULL;
    run_unlink(r);
    run_free(r);
    tb_worker_ready(w, &job->op, rc);
}

static void rest_done(struct tb_op *op);
static void slice_done(struct tb_op *op);

static bool unwanted(const struct tb_copy_run *r)
{
    return r->cancel || r->shard->failed || r->shard->stopping;
}

static void next_slice(struct tb_copy_run *r)
{
    if (unwanted(r)) {
        finish(r, TB_CANCELLED);
        return;
    }
    r->slice_began_ns = tb_io_now_ns(r->shard->worker->io);
    r->op = (struct tb_op){.done = slice_done, .user = r};
    tb_io_offload(r->shard->worker->io, &r->op, slice);
}

static void rest_done(struct tb_op *op)
{
    struct tb_copy_run *r = op->user;
    r->resting = false;
    next_slice(r);
}

/* rest: as long as the rate asks for after what was just moved. */
static void rest(struct tb_copy_run *r)
{
    uint64_t rate = r->job->rate_bytes, spent = tb_io_now_ns(r->shard->worker->io) - r->slice_began_ns;
    uint64_t due = rate != 0 ? r->slice_bytes * 1000000000u / rate : 0;
    if (due <= spent) {
        next_slice(r);
        return;
    }
    r->resting = true;
    r->op = (struct tb_op){.done = rest_done, .user = r};
    tb_io_timer(r->shard->worker->io, &r->op, due - spent);
}

static void slice_done(struct tb_op *op)
{
    struct tb_copy_run *r = op->user;
    if (r->rc != TB_OK || r->phase == NAMING) {
        finish(r, r->rc);
        return;
    }
    if (r->phase != WALKING)
        r->job->done_bytes += r->slice_bytes;
    if (r->phase == COPYING && r->at == r->head.pages) {
        tb_index_snapshot_end(r->snap);
        r->snap = NULL;
        r->phase = CLOSING;
    } else if (r->phase == CLOSING) {
        r->phase = VERIFYING;
    } else if (r->phase == VERIFYING && r->reader.n == 0) {
        r->phase = WALKING;
    } else if (r->phase == WALKING && r->walked) {
        r->phase = NAMING;
    }
    rest(r);
}

static enum tb_rc open_files(struct tb_copy_run *r)
{
    struct tb_io *io = r->shard->worker->io;
    char path[TB_COPY_PATH_NEW];
    (void)snprintf(path, sizeof(path), "%s/index.mdb", r->shard->dir);
    r->in = tb_io_file_open(io, path, TB_OPEN_READ);
    if (r->in < 0)
        return run_error(r, r->in, "the index cannot be opened");
    path_new(r, path);
    (void)tb_io_unlink(io, path); /* debris of an earlier one, usually absent */
    r->out = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_DIRECT);
    if (r->out == -EINVAL) /* a file system without O_DIRECT */
        r->out = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (r->out < 0)
        return run_error(r, r->out, "it cannot be made");
    r->table_len = (r->head.pages * 4 + TB_BLOCK - 1) / TB_BLOCK * TB_BLOCK;
    r->table = aligned_alloc(TB_BLOCK, r->table_len);
    r->pages = aligned_alloc(TB_BLOCK, SLICE);
    if (r->table == NULL || r->pages == NULL)
        return tb_error_set(&r->job->err, TB_LIMIT, ENOMEM, "index copy %s", r->job->path);
    memset(r->table, 0, r->table_len);
    return TB_OK;
}

/* begin: C1: nothing is committed that is not confirmed. */
static void begin(struct tb_copy_run *r)
{
    struct tb_shard *s = r->shard;
    r->head.shard = s->number;
    memcpy(r->head.uuid, s->store->super.uuid, sizeof(r->head.uuid));
    r->head.ckpt = s->ckpt;
    r->head.pages = tb_index_meta_pages(s->ckpt.meta);
    r->head.made_ms = tb_io_wall_ms(s->worker->io);
    r->head.time_ms = s->ckpt_time_ms;
    tb_ckpt_seal(&r->head.ckpt);
    r->job->total_bytes = 2 * r->head.pages * TB_COPY_PAGE;
    r->snap = tb_index_snapshot_begin(s->ix, s->ckpt.txnid);
    enum tb_rc rc = r->snap != NULL ? open_files(r) : run_error(r, -EAGAIN, "no snapshot of the index can be had");
    if (rc != TB_OK) {
        finish(r, rc);
        return;
    }
    if (!TB_KEEPS(copypin)) {
        tb_index_snapshot_end(r->snap);
        r->snap = NULL;
    }
    tb_sha256_init(&r->sha);
    r->phase = COPYING;
    next_slice(r);
}

void tb_copy_start(struct tb_shard *s, struct tb_copy_job *job)
{
    struct tb_copy_run *r = calloc(1, sizeof(*r));
    job->run = r;
    if (r == NULL) {
        tb_worker_ready(s->worker, &job->op, tb_error_set(&job->err, TB_LIMIT, ENOMEM, "index copy %s", job->path));
        return;
    }
    r->shard = s;
    r->job = job;
    r->in = r->out = r->walk_fd = -1;
    r->next = s->copies;
    s->copies = r;
    if (s->ckpt_phase == CKPT_IDLE || unwanted(r))
        unwanted(r) ? finish(r, TB_CANCELLED) : begin(r);
}

void tb_copy_cancel(struct tb_copy_job *job)
{
    struct tb_copy_run *r = job->run;
    if (r == NULL)
        return;
    r->cancel = true;
    if (r->phase == WAITING)
        finish(r, TB_CANCELLED);
    else if (r->resting)
        tb_io_cancel(r->shard->worker->io, &r->op);
}

void tb_copies_confirmed(struct tb_shard *s)
{
    for (struct tb_copy_run *r = s->copies, *next; r != NULL; r = next) {
        next = r->next;
        if (r->phase == WAITING)
            begin(r);
    }
}

void tb_copies_cancel(struct tb_shard *s)
{
    for (struct tb_copy_run *r = s->copies, *next; r != NULL; r = next) {
        next = r->next;
        if (!r->cancel)
            tb_copy_cancel(r->job);
    }
}

void tb_copies_drop(struct tb_shard *s)
{
    struct tb_copy_run *r = s->copies;
    s->copies = NULL;
    while (r != NULL) {
        struct tb_copy_run *next = r->next;
        run_free(r);
        r = next;
    }
}
