/*
 * restore_plan.c: from which index copy, and up to which frame of the log, a store is made again.
 *
 * A shard at moment T: the newest copy whose last TIME is not after T, and the log behind it up to the first frame that
 * begins with a TIME after T. Must never guess: a stretch of log that is not in the folder is a refusal, with what is
 * covered said. Thread: the caller's; blocks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/log/frames.h"
#include "engine/store/restore.h"

const char *tb_restore_when(int64_t ms, char text[40])
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;
    if (gmtime_r(&s, &tm) == NULL || strftime(text, 40, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0)
        (void)snprintf(text, 40, "%" PRId64 " ms", ms);
    return text;
}

enum tb_rc tb_restore_load(struct tb_restore *r, struct tb_error *err)
{
    uint32_t *runs;
    size_t n;
    enum tb_rc rc = tb_manifest_runs(r->io, r->opt->dest, &runs, &n, err);
    if (rc == TB_OK && n == 0)
        rc = tb_error_set(err, TB_NOTFOUND, 0, "%s holds no backup", r->opt->dest);
    if (rc == TB_OK && (r->m = calloc(n, sizeof(*r->m))) == NULL)
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "%s", r->opt->dest);
    for (size_t i = 0; rc == TB_OK && r->m != NULL && i < n; i++) {
        enum tb_rc read = tb_manifest_read(r->io, r->opt->dest, runs[i], &r->m[r->n], err);
        if (read == TB_OK && r->n > 0 &&
            (memcmp(r->m[r->n].super.uuid, r->m[0].super.uuid, 16) != 0 ||
             r->m[r->n].super.shards != r->m[0].super.shards))
            read = tb_error_set(err, TB_CORRUPT, 0, "%s mixes backups of several stores", r->opt->dest);
        if (read == TB_OK)
            r->n++;
        else if (i + 1 == n && r->opt->at_ms == INT64_MAX)
            rc = read; /* never an older one in silence */
        else
            tb_log(TB_LOG_WARN, "restore: %s; it is left out", err->text);
    }
    free(runs);
    if (rc == TB_OK && r->n == 0)
        rc = TB_CORRUPT;
    return rc;
}

const struct tb_part *tb_restore_part(const struct tb_restore *r, uint32_t shard, uint32_t segment, uint64_t offset,
                                      size_t first, bool later)
{
    for (size_t i = first; i < (later ? r->n : first + 1); i++)
        for (size_t k = 0; k < r->m[i].n; k++) {
            const struct tb_part *p = &r->m[i].part[k];
            if (p->kind == TB_PART_LOG && p->shard == shard && p->number == segment && p->from <= offset &&
                offset < p->to)
                return p;
        }
    return NULL;
}

/* choose: the shard's index copy. */
static bool choose(struct tb_restore *r, uint32_t k, int64_t at_ms)
{
    struct tb_restore_shard *s = &r->shard[k];
    s->index = NULL;
    for (size_t i = at_ms == INT64_MAX ? r->n - 1 : 0; i < r->n; i++) {
        const struct tb_part *p = tb_manifest_index(&r->m[i], k);
        if (p->time_ms <= at_ms && (s->index == NULL || p->from >= s->index->from)) {
            s->index = p;
            s->first = i;
        }
    }
    return s->index != NULL;
}

static enum tb_rc not_covered(const struct tb_restore *r, uint32_t k, int64_t last_ms, struct tb_error *err)
{
    char at[40], from[40];
    return tb_error_set(
        err, TB_INVALID, 0,
        "%s: the log of shard %u is not whole from %s to %s; the moments before and behind that gap can "
        "be restored",
        r->opt->dest, k, tb_restore_when(last_ms, from), tb_restore_when(r->opt->at_ms, at));
}

struct walk {
    struct tb_restore *r;
    uint32_t k;
    struct tb_frames f;
    int64_t at_ms;
    bool cut; /* a frame after the moment was met */
};

/* walk_part: the frames of one file from f.at on. */
static enum tb_rc walk_part(struct walk *w, const struct tb_part *p, struct tb_error *err)
{
    struct tb_io *io = w->r->io;
    uint64_t sb = w->r->m[0].super.segment_bytes, base = p->number * sb;
    char path[TB_PART_PATH];
    tb_part_path(w->r->opt->dest, p, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_CORRUPT : TB_IO, -fd, "%s cannot be opened", path);
    enum tb_rc rc = TB_OK;
    while (rc == TB_OK && !w->cut && !w->f.sealed && w->f.at < base + p->to) {
        uint64_t left = base + p->to - w->f.at;
        size_t want = left < TB_RESTORE_BUF ? (size_t)left : TB_RESTORE_BUF, used = 0, need;
        int64_t n = tb_io_pread(io, fd, w->r->buf, want, w->f.at - base - p->from), step = 1;
        while (n >= 0 && used < (size_t)n && !w->f.sealed) {
            int64_t ms;
            if (tb_frames_peek(&w->f, w->r->buf + used, (size_t)n - used, &ms) && ms > w->at_ms) {
                w->cut = true;
                break;
            }
            step = tb_frames_next(&w->f, w->r->buf + used, (size_t)n - used, &need);
            if (step <= 0)
                break;
            used += (size_t)step;
        }
        if (n < 0)
            rc = tb_error_set(err, TB_IO, (int)-n, "%s cannot be read", path);
        else if (!w->cut && (step < 0 || used == 0))
            rc = tb_error_set(err, TB_CORRUPT, 0, "%s is damaged at byte %" PRIu64, path, w->f.at - base - p->from);
    }
    (void)tb_io_file_close(io, fd);
    return rc;
}

/* find_cut: walk the log from the index copy to the moment. */
static enum tb_rc find_cut(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    struct tb_restore_shard *s = &r->shard[k];
    const struct tb_disk_super *super = &r->m[0].super;
    const struct tb_manifest_shard *newest = &r->m[r->n - 1].shard[k];
    uint64_t sb = super->segment_bytes, first = super->pad_bytes > TB_BLOCK ? super->pad_bytes : TB_BLOCK;
    struct walk w = {.r = r,
                     .k = k,
                     .at_ms = r->opt->at_ms,
                     .f = {.seed = tb_frames_seed(super->uuid, k),
                           .at = s->head.ckpt.applied,
                           .last = s->head.ckpt.last,
                           .chain = s->head.ckpt.chain,
                           .chained = true,
                           .time_ms = s->head.time_ms}};
    while (!w.cut && w.f.at < newest->end) {
        const struct tb_part *p = tb_restore_part(r, k, (uint32_t)(w.f.at / sb), w.f.at % sb, s->first, true);
        if (p == NULL)
            return not_covered(r, k, w.f.time_ms, err);
        enum tb_rc rc = walk_part(&w, p, err);
        if (rc != TB_OK)
            return rc;
        if (w.f.sealed) {
            w.f.at = (w.f.at / sb + 1) * sb + first;
            w.f.sealed = false;
        }
    }
    s->cut = w.f.at;
    s->time_ms = w.f.time_ms;
    return TB_OK;
}

static enum tb_rc plan_shard(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    struct tb_restore_shard *s = &r->shard[k];
    int64_t at_ms = r->opt->at_ms, newest = r->m[r->n - 1].shard[k].time_ms;
    char path[TB_PART_PATH], text[40];
    if (at_ms != INT64_MAX && at_ms > newest)
        return tb_error_set(err, TB_INVALID, 0, "%s: the newest backup ends at %s; without --at that is restored",
                            r->opt->dest, tb_restore_when(newest, text));
    if (!choose(r, k, at_ms)) {
        const struct tb_part *oldest = tb_manifest_index(&r->m[0], k);
        return tb_error_set(err, TB_INVALID, 0, "%s: the earliest moment that can be restored is %s", r->opt->dest,
                            tb_restore_when(oldest->time_ms, text));
    }
    tb_part_path(r->opt->dest, s->index, path);
    enum tb_rc rc = tb_copy_open(r->io, path, r->m[0].super.uuid, k, &s->head, err);
    if (rc == TB_NOTFOUND)
        return TB_CORRUPT;
    if (rc != TB_OK)
        return rc;
    if (s->head.ckpt.applied != s->index->from || memcmp(s->head.sha256, s->index->sha256, sizeof(s->head.sha256)) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "%s is not the file that the backup was made with", path);
    s->cut = r->m[s->first].shard[k].end;
    s->time_ms = r->m[s->first].shard[k].time_ms;
    return at_ms == INT64_MAX ? TB_OK : find_cut(r, k, err);
}

enum tb_rc tb_restore_plan(struct tb_restore *r, struct tb_error *err)
{
    enum tb_rc rc = TB_OK;
    for (uint32_t k = 0; rc == TB_OK && k < r->m[0].super.shards; k++)
        rc = plan_shard(r, k, err);
    return rc;
}

/* ---- what there is ---- */

enum tb_rc tb_backup_list(struct tb_io *io, const char *dest, void (*each)(void *user, const struct tb_backup_run *run),
                          void *user, struct tb_error *err)
{
    struct tb_restore_options opt = {.dest = dest, .at_ms = INT64_MAX};
    struct tb_restore r = {.io = io, .opt = &opt};
    enum tb_rc rc = tb_restore_load(&r, err);
    for (size_t i = 0; rc == TB_OK && i < r.n; i++) {
        const struct tb_manifest *m = &r.m[i];
        struct tb_backup_run run = {
            .run = m->run, .shards = m->super.shards, .time_ms = m->time_ms, .files = (uint32_t)m->n};
        for (size_t k = 0; k < m->n; k++)
            run.bytes += m->part[k].bytes;
        for (uint32_t k = 0; k < m->super.shards; k++) {
            const struct tb_part *p = tb_manifest_index(m, k);
            run.from_ms = p->time_ms > run.from_ms ? p->time_ms : run.from_ms;
        }
        each(user, &run);
    }
    for (size_t i = 0; i < r.n; i++)
        tb_manifest_free(&r.m[i]);
    free(r.m);
    return rc;
}
