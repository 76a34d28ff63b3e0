/*
 * truncate.c: a log that is damaged in the middle is cut there, because a person said so: what lies behind the damage
 * is given up, and everything before it can be served again.
 *
 *   find the end --> note CUT, durable --> copy the damaged segment aside --> move the later ones aside, the last first
 *   --> zeros behind the end --> open, replay, SKIP records (R14) --> CUT goes
 *
 * Must never: cut what the index already holds, cut a log that a start would open, or destroy the bytes that are given
 * up: they lie in cut-POSITION, beside the log. Each step leaves a store that says no to everybody else (the log is
 * still damaged, or CUT is there) and that the next attempt goes on with. Thread: the caller's; blocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/log/segment.h"
#include "engine/store/check.h"
#include "engine/store/restore.h"

enum { COPY_BYTES = 1 << 20 };

struct cut { /* one shard's */
    struct tb_io *io;
    struct tb_log_config cfg;
    struct tb_disk_ckpt ckpt;
    char dir[TB_PATH], log_dir[TB_PATH + 8], aside[TB_PATH + 40];
    uint32_t *segment; /* owned: those that exist, ascending */
    size_t n;
    uint64_t end; /* where the log will end */
    uint32_t chain;
    bool needed; /* a start refuses it as it is */
    struct tb_truncated lost;
};

static uint64_t first_frame(const struct cut *c, uint32_t segment)
{
    uint64_t pad = c->cfg.pad_bytes > TB_BLOCK ? c->cfg.pad_bytes : TB_BLOCK;
    return segment * c->cfg.segment_bytes + pad;
}

static bool has_segment(const struct cut *c, uint32_t segment)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->segment[i] == segment)
            return true;
    return false;
}

static void mark_path(const char *shard_dir, char out[TB_PATH + 16])
{
    (void)snprintf(out, TB_PATH + 16, "%.1000s/CUT", shard_dir);
}

bool tb_cut_pending(struct tb_io *io, const char *shard_dir)
{
    char path[TB_PATH + 16];
    mark_path(shard_dir, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* read only */
    return fd != -ENOENT;
}

/* ---- where it ends ---- */

static enum tb_rc io_error(int rc, const char *path, struct tb_error *err)
{
    return tb_error_set(err, rc == -ENOSPC ? TB_NOSPACE : TB_IO, rc < 0 ? -rc : EIO, "%s", path);
}

/* next_frame: the next thing of a survey, whole MiB of nothing passed over. */
static enum tb_rc next_frame(struct tb_survey *s, struct tb_survey_frame *f)
{
    enum tb_rc rc;
    while ((rc = tb_survey_next(s, f)) == TB_BUSY)
        ;
    return rc;
}

/* mark_there: the frame that the checkpoint names, or proof that it was freed since. */
static enum tb_rc mark_there(const struct cut *c, struct tb_error *err)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    struct tb_error why;
    uint32_t segment = (uint32_t)(c->ckpt.last / c->cfg.segment_bytes);
    if (c->ckpt.last == 0 || (segment < c->ckpt.applied / c->cfg.segment_bytes && !has_segment(c, segment)))
        return TB_OK;
    enum tb_rc rc = tb_survey_open(&c->cfg, segment, c->ckpt.last, 0, true, &s, &why);
    bool found = s != NULL && next_frame(s, &f) == TB_OK && f.lsn == c->ckpt.last && f.head.crc == c->ckpt.chain;
    tb_survey_close(s);
    if (found)
        return TB_OK;
    return tb_error_set(err, rc == TB_IO ? TB_IO : TB_CORRUPT, 0,
                        "shard %u: the log is damaged in front of position %" PRIu64
                        ", which the index already holds: cutting it is no help; run `tambo rebuild-index`, or restore",
                        c->cfg.shard, c->ckpt.applied);
}

/* walk: frames of one segment that continue the log. True: it was sealed, and the next segment goes on. */
static bool walk(struct cut *c, struct tb_survey *s)
{
    struct tb_survey_frame f;
    while (next_frame(s, &f) == TB_OK && f.lsn == c->end && f.head.chain == c->chain && f.head.epoch <= c->cfg.epoch) {
        c->end += f.len;
        c->chain = f.head.crc;
        if (f.head.flags & TB_FRAME_SEALS) {
            c->end = first_frame(c, (uint32_t)(f.lsn / c->cfg.segment_bytes) + 1);
            return true;
        }
    }
    return false;
}

static enum tb_rc find_end(struct cut *c, struct tb_error *err)
{
    enum tb_rc rc = mark_there(c, err);
    bool more = rc == TB_OK;
    c->end = c->ckpt.applied;
    c->chain = c->ckpt.chain;
    while (more) {
        struct tb_survey *s = NULL;
        struct tb_error why;
        rc = tb_survey_open(&c->cfg, (uint32_t)(c->end / c->cfg.segment_bytes), c->end, 0, true, &s, &why);
        if (s == NULL && rc != TB_NOTFOUND) {
            *err = why;
            return rc;
        }
        c->needed = s == NULL; /* the segment that a seal named is missing */
        more = s != NULL && walk(c, s);
        tb_survey_close(s);
        rc = TB_OK;
    }
    return rc;
}

/* ---- what lies behind ---- */

static enum tb_rc count_record(void *user, const struct tb_record *r)
{
    struct tb_truncated *lost = user;
    int64_t ms;
    lost->records++;
    lost->messages += r->type == TB_REC_ADD;
    if (r->type != TB_REC_TIME || r->payload.len < sizeof(ms))
        return TB_OK;
    memcpy(&ms, r->payload.ptr, sizeof(ms));
    lost->from_ms = lost->from_ms == 0 || ms < lost->from_ms ? ms : lost->from_ms;
    lost->to_ms = ms > lost->to_ms ? ms : lost->to_ms;
    return TB_OK;
}

static enum tb_rc count_segment(struct cut *c, uint32_t segment, struct tb_error *err)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    struct tb_error why = {0};
    uint64_t base = segment * c->cfg.segment_bytes;
    enum tb_rc rc = tb_survey_open(&c->cfg, segment, c->end > base ? c->end : 0, 0, true, &s, err);
    if (s == NULL)
        return rc;
    while ((rc = next_frame(s, &f)) == TB_OK || rc == TB_CORRUPT) {
        if (rc != TB_OK)
            continue;
        c->needed = true;
        c->lost.frames++;
        c->lost.bytes += f.len;
        if (tb_survey_records(&f, count_record, &c->lost, &why) != TB_OK)
            c->lost.records++; /* a damaged list: counted up to there, and as one */
    }
    tb_survey_close(s);
    return rc == TB_NOTFOUND ? TB_OK : rc;
}

static enum tb_rc look_behind(struct cut *c, struct tb_error *err)
{
    uint32_t last = (uint32_t)(c->end / c->cfg.segment_bytes);
    enum tb_rc rc = TB_OK;
    for (size_t i = 0; rc == TB_OK && i < c->n; i++) {
        if (c->segment[i] < last)
            continue;
        if (c->segment[i] > last && !has_segment(c, c->segment[i] - 1))
            c->needed = true;
        rc = count_segment(c, c->segment[i], err);
    }
    return rc;
}

/* ---- cutting ---- */

static enum tb_rc make_mark(const struct cut *c, struct tb_error *err)
{
    char path[TB_PATH + 16];
    mark_path(c->dir, path);
    int fd = tb_io_file_open(c->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (fd < 0)
        return io_error(fd, path, err);
    int rc = tb_io_sync(c->io, fd);
    (void)tb_io_file_close(c->io, fd); /* synced */
    if (rc == 0)
        rc = tb_io_mkdir(c->io, c->aside);
    if (rc == 0 || rc == -EEXIST)
        rc = tb_io_sync_dir(c->io, c->dir);
    return rc < 0 ? io_error(rc, c->aside, err) : TB_OK;
}

/* copy_bytes: a segment as it is; what cannot be read becomes zeros. 0 or -errno. */
static int copy_bytes(const struct cut *c, int in, int out)
{
    uint8_t *buf = malloc(COPY_BYTES);
    int rc = buf != NULL ? 0 : -ENOMEM;
    for (uint64_t at = 0; rc == 0 && at < c->cfg.segment_bytes; at += COPY_BYTES) {
        int64_t n = tb_io_pread(c->io, in, buf, COPY_BYTES, at);
        if (n < COPY_BYTES)
            memset(buf + (n > 0 ? n : 0), 0, COPY_BYTES - (size_t)(n > 0 ? n : 0));
        n = tb_io_pwrite(c->io, out, buf, COPY_BYTES, at);
        rc = n == COPY_BYTES ? 0 : n < 0 ? (int)n : -EIO;
    }
    free(buf);
    return rc == 0 ? tb_io_sync(c->io, out) : rc;
}

/* keep_damaged: a copy of the segment that will be written over; one that is there is of an earlier attempt, whole. */
static enum tb_rc keep_damaged(const struct cut *c, uint32_t segment, struct tb_error *err)
{
    char from[TB_PATH_MAX], to[TB_PATH_MAX], fresh[TB_PATH_MAX + 4];
    tb_segment_path(c->log_dir, segment, from);
    tb_segment_path(c->aside, segment, to);
    (void)snprintf(fresh, sizeof(fresh), "%s.new", to);
    int out = tb_io_file_open(c->io, to, TB_OPEN_READ);
    if (out >= 0) {
        (void)tb_io_file_close(c->io, out); /* read only */
        return TB_OK;
    }
    int in = tb_io_file_open(c->io, from, TB_OPEN_READ);
    out = in < 0 ? in : tb_io_file_open(c->io, fresh, TB_OPEN_WRITE | TB_OPEN_CREATE);
    int rc = out < 0 ? out : copy_bytes(c, in, out);
    if (in >= 0)
        (void)tb_io_file_close(c->io, in); /* read only */
    if (out >= 0)
        (void)tb_io_file_close(c->io, out); /* synced */
    if (rc == 0)
        rc = tb_io_rename(c->io, fresh, to);
    if (rc == 0)
        rc = tb_io_sync_dir(c->io, c->aside);
    return rc < 0 ? io_error(rc, to, err) : TB_OK;
}

/* move_later: the segments behind, the last first: those that are left have none missing between them. */
static enum tb_rc move_later(const struct cut *c, struct tb_error *err)
{
    uint32_t last = (uint32_t)(c->end / c->cfg.segment_bytes);
    for (size_t i = c->n; i-- > 0 && c->segment[i] > last;) {
        char from[TB_PATH_MAX], to[TB_PATH_MAX];
        tb_segment_path(c->log_dir, c->segment[i], from);
        tb_segment_path(c->aside, c->segment[i], to);
        int rc = tb_io_rename(c->io, from, to);
        if (rc == 0)
            rc = tb_io_sync_dir(c->io, c->aside);
        if (rc == 0)
            rc = tb_io_sync_dir(c->io, c->log_dir);
        if (rc < 0)
            return io_error(rc, to, err);
    }
    return TB_OK;
}

static enum tb_rc zeros_behind(const struct cut *c, uint32_t segment, struct tb_error *err)
{
    char path[TB_PATH_MAX];
    uint8_t *zero = calloc(1, COPY_BYTES);
    tb_segment_path(c->log_dir, segment, path);
    int fd = zero != NULL ? tb_io_file_open(c->io, path, TB_OPEN_WRITE) : -ENOMEM, rc = fd < 0 ? fd : 0;
    for (uint64_t at = c->end % c->cfg.segment_bytes; rc == 0 && at < c->cfg.segment_bytes;) {
        uint64_t left = c->cfg.segment_bytes - at;
        size_t want = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        int64_t n = tb_io_pwrite(c->io, fd, zero, want, at);
        rc = n == (int64_t)want ? 0 : n < 0 ? (int)n : -EIO;
        at += want;
    }
    if (rc == 0)
        rc = tb_io_sync(c->io, fd);
    if (fd >= 0)
        (void)tb_io_file_close(c->io, fd); /* synced */
    free(zero);
    return rc < 0 ? io_error(rc, path, err) : TB_OK;
}

static enum tb_rc cut_log(const struct cut *c, struct tb_error *err)
{
    uint32_t segment = (uint32_t)(c->end / c->cfg.segment_bytes);
    bool there = has_segment(c, segment);
    enum tb_rc rc = make_mark(c, err);
    if (rc == TB_OK && there)
        rc = keep_damaged(c, segment, err);
    if (rc == TB_OK)
        rc = move_later(c, err);
    if (rc == TB_OK && there)
        return zeros_behind(c, segment, err);
    int made = rc == TB_OK ? tb_segment_make(c->io, &c->cfg, segment) : 0;
    return made < 0 ? io_error(made, c->log_dir, err) : rc;
}

/* ---- one shard ---- */

static void tell(const struct cut *c, const struct tb_check_options *opt, bool done)
{
    char object[96], what[300], from[40], to[40];
    (void)snprintf(object, sizeof(object), "log segment %08x at offset %" PRIu64,
                   (unsigned)(c->end / c->cfg.segment_bytes), c->end % c->cfg.segment_bytes);
    int n = snprintf(what, sizeof(what),
                     "%" PRIu64 " frames behind it, %" PRIu64 " bytes, %" PRIu64 " records, %" PRIu64
                     " of them messages that came%s",
                     c->lost.frames, c->lost.bytes, c->lost.records, c->lost.messages, done ? ", were cut off" : "");
    if (c->lost.from_ms != 0 && n > 0 && (size_t)n < sizeof(what))
        (void)snprintf(what + n, sizeof(what) - (size_t)n, "; written from %s to %s",
                       tb_restore_when(c->lost.from_ms, from), tb_restore_when(c->lost.to_ms, to));
    struct tb_finding f = {.repaired = done,
                           .damage = !done,
                           .shard = c->cfg.shard,
                           .object = object,
                           .what = what,
                           .next = done ? c->aside : "cutting gives them up"};
    if (opt->found != NULL)
        opt->found(opt->user, &f);
}

static enum tb_rc load(struct cut *c, const struct tb_disk_super *super, struct tb_error *err)
{
    char path[TB_PATH + 16];
    uint8_t block[TB_BLOCK];
    (void)snprintf(path, sizeof(path), "%.990s/CKPT", c->dir);
    enum tb_rc rc = tb_slot_read(c->io, path, tb_ckpt_check, block, err);
    if (rc != TB_OK)
        return rc;
    memcpy(&c->ckpt, block, sizeof(c->ckpt));
    if (c->ckpt.shard != c->cfg.shard || memcmp(c->ckpt.uuid, super->uuid, sizeof(c->ckpt.uuid)) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "%s belongs to another shard or store", path);
    int listed = tb_survey_segments(&c->cfg, &c->segment, &c->n);
    return listed < 0 ? io_error(listed, c->log_dir, err) : TB_OK;
}

static enum tb_rc truncate_shard(struct tb_io *io, const char *dir, const struct tb_disk_super *super, uint32_t shard,
                                 const struct tb_check_options *opt, bool write, struct tb_truncated *sum,
                                 struct tb_error *err)
{
    struct cut *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "%s", dir);
    c->io = io;
    (void)snprintf(c->dir, sizeof(c->dir), "%.990s/shard-%02x", dir, shard);
    c->cfg = tb_check_log_config(io, super, c->dir, shard, c->log_dir);
    enum tb_rc rc = load(c, super, err);
    if (rc == TB_OK)
        rc = find_end(c, err);
    if (rc == TB_OK)
        rc = look_behind(c, err);
    (void)snprintf(c->aside, sizeof(c->aside), "%.1000s/cut-%016" PRIx64, c->dir, c->end);
    if (rc == TB_OK && c->needed && write)
        rc = cut_log(c, err);
    if (rc == TB_OK && c->needed) {
        tell(c, opt, write);
        sum->shards++;
        sum->frames += c->lost.frames;
        sum->messages += c->lost.messages;
    } else if (rc == TB_OK && tb_cut_pending(io, c->dir)) {
        sum->shards++;
    }
    free(c->segment);
    free(c);
    return rc;
}

/* ---- numbers skip ahead ---- */

static void stopped(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static enum tb_rc take_marks(struct tb_io *io, const char *dir, uint32_t shards, struct tb_error *err)
{
    for (uint32_t i = 0; i < shards; i++) {
        char shard_dir[TB_PATH], path[TB_PATH + 16];
        (void)snprintf(shard_dir, sizeof(shard_dir), "%.990s/shard-%02x", dir, i);
        mark_path(shard_dir, path);
        int rc = tb_io_unlink(io, path);
        if (rc == 0)
            rc = tb_io_sync_dir(io, shard_dir);
        if (rc < 0 && rc != -ENOENT)
            return io_error(rc, path, err);
    }
    return TB_OK;
}

static enum tb_rc open_and_skip(struct tb_io *io, const char *dir, struct tb_error *err)
{
    struct tb_store_config cfg = {.dir = dir, .workers = 1, .cut = true};
    struct tb_store *store = NULL;
    struct tb_worker *w = NULL;
    bool done = false;
    struct tb_op op = {.done = stopped, .user = &done};
    enum tb_rc rc = tb_store_open(io, &cfg, &store, err);
    if (rc == TB_OK)
        rc = tb_worker_open(store, 0, io, &w, err);
    for (uint32_t i = 0; rc == TB_OK && i < store->super.shards; i++)
        if (tb_cut_pending(io, store->shard[i]->dir) && (rc = tb_skip_ahead(w, store->shard[i])) != TB_OK)
            (void)tb_error_set(err, rc, 0, "shard %u: its numbers cannot skip ahead: %s", i, tb_rc_text(rc));
    if (w != NULL) {
        tb_worker_stop(w, &op); /* with a checkpoint: the records are durable */
        while (!done)
            (void)tb_worker_turn(w, true);
        if (rc == TB_OK && op.rc != TB_OK)
            rc = tb_error_set(err, op.rc, 0, "%s cannot be closed: %s", dir, tb_rc_text(op.rc));
        tb_worker_close(w);
    }
    uint32_t shards = store != NULL ? store->super.shards : 0;
    tb_store_close(store);
    return rc == TB_OK ? take_marks(io, dir, shards, err) : rc;
}

enum tb_rc tb_store_truncate(struct tb_io *io, const char *dir, bool write, const struct tb_check_options *opt,
                             struct tb_truncated *sum, struct tb_error *err)
{
    struct tb_disk_super super;
    int fd = -1;
    memset(sum, 0, sizeof(*sum));
    enum tb_rc rc = tb_super_load(io, dir, &super, err);
    if (rc == TB_OK)
        rc = tb_check_lock(io, dir, &fd, err);
    for (uint32_t i = 0; rc == TB_OK && i < super.shards; i++)
        rc = truncate_shard(io, dir, &super, i, opt, write, sum, err);
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    return rc == TB_OK && write && sum->shards > 0 ? open_and_skip(io, dir, err) : rc;
}
