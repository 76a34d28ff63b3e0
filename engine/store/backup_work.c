/*
 * backup_work.c: what of a backup blocks: the folder, the plan for a shard, its log, its dictionaries, the manifest,
 * the removal of what is kept no longer. Each function is one slice of at most a few megabytes.
 *
 * What the folder has of the log is taken as it is only if it is this log's: the frame that the last backup ended with
 * is still in the source, and the chain of checksums proves all that came before it. Thread: a helper; one at a time,
 * and nobody else looks at the backup meanwhile.
 */
#include "engine/store/backup.h"
#include "engine/store/hold.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define REPLAY_MAX (UINT64_C(64) << 20) /* log that an older index copy may be behind and still do */

static bool fail(struct tb_backup *b, enum tb_rc rc, int sys, const char *what, const char *path)
{
    b->rc = tb_error_set(&b->err, rc, sys, "%s: %s", path, what);
    return false;
}

static uint64_t segment_bytes(const struct tb_backup *b)
{
    return b->store->super.segment_bytes;
}

/* ---- the folder ---- */

static bool make_dir(struct tb_backup *b, const char *path)
{
    int rc = tb_io_mkdir(b->w->io, path);
    return rc == 0 || rc == -EEXIST ? true : fail(b, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "cannot be made", path);
}

/* name_durable: a folder that was just made, or what was made in it, is still there after a power cut. */
static bool name_durable(struct tb_backup *b, const char *dir)
{
    int rc = tb_io_sync_dir(b->w->io, dir);
    return rc == 0 ? true : fail(b, TB_IO, -rc, "cannot be synced", dir);
}

/* make_dest: the folder of the backups, with its own name durable if it is new. */
static bool make_dest(struct tb_backup *b)
{
    char parent[TB_PATH];
    int rc = tb_io_mkdir(b->w->io, b->dest);
    if (rc == -EEXIST)
        return true;
    if (rc != 0)
        return fail(b, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "cannot be made", b->dest);
    (void)snprintf(parent, sizeof(parent), "%.1000s", b->dest);
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        slash[slash == parent] = '\0';
    return name_durable(b, slash != NULL ? parent : ".");
}

static bool make_folders(struct tb_backup *b)
{
    static const char *const sub[] = {"", "/log", "/dict"};
    bool good = true;
    for (uint32_t k = 0; k < b->store->super.shards; k++)
        for (size_t i = 0; good && i < TB_ARRAY_LEN(sub); i++) {
            char path[TB_PART_PATH];
            (void)snprintf(path, sizeof(path), "%.1000s/shard-%02x%s", b->dest, k, sub[i]);
            good = make_dir(b, path);
        }
    return good;
}

static bool lock_dest(struct tb_backup *b)
{
    char path[TB_PART_PATH];
    (void)snprintf(path, sizeof(path), "%.1000s/LOCK", b->dest);
    b->lock_fd = tb_io_file_open(b->w->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (b->lock_fd < 0)
        return fail(b, TB_IO, -b->lock_fd, "cannot be made", path);
    int rc = tb_io_lock(b->w->io, b->lock_fd);
    return rc == 0 ? true : fail(b, TB_BUSY, -rc, "another backup into this folder is being made", b->dest);
}

static bool count_name(void *user, const char *name)
{
    (void)name;
    ++*(size_t *)user;
    return true;
}

bool tb_backup_open_dest(struct tb_backup *b)
{
    struct tb_io *io = b->w->io;
    char path[TB_PART_PATH];
    uint32_t *runs;
    size_t n, names = 0;
    if (!make_dest(b))
        return false;
    (void)snprintf(path, sizeof(path), "%.1000s/LOCK", b->dest);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd >= 0)
        (void)tb_io_file_close(io, fd);
    else if (tb_io_list(io, b->dest, count_name, &names) < 0 || names > 0)
        return fail(b, TB_EXISTS, 0, "the folder is not empty and holds no backup", b->dest);
    if (!lock_dest(b) || !name_durable(b, b->dest)) /* before anything else is in it */
        return false;
    b->rc = tb_manifest_runs(io, b->dest, &runs, &n, &b->err);
    if (b->rc != TB_OK)
        return false;
    b->cur.run = n > 0 ? runs[n - 1] + 1 : 1;
    if (n > 0)
        b->rc = tb_manifest_read(io, b->dest, runs[n - 1], &b->prev, &b->err);
    b->have_prev = n > 0 && b->rc == TB_OK;
    free(runs);
    if (b->have_prev &&
        (memcmp(b->prev.super.uuid, b->store->super.uuid, 16) != 0 || b->prev.super.shards != b->store->super.shards ||
         b->prev.super.segment_bytes != b->store->super.segment_bytes))
        return fail(b, TB_CONFLICT, 0, "the folder holds backups of another store", b->dest);
    if (b->rc == TB_OK)
        (void)make_folders(b);
    return false;
}

/* ---- the plan ---- */

static bool has_segment(const struct tb_backup *b, uint32_t n)
{
    for (size_t i = 0; i < b->segments_n; i++)
        if (b->segment[i] == n)
            return true;
    return false;
}

bool tb_backup_wants_index(const struct tb_backup *b)
{
    const struct tb_part *old = b->have_prev ? tb_manifest_index(&b->prev, b->k) : NULL;
    if (old == NULL || b->applied < old->from || b->applied - old->from > REPLAY_MAX)
        return true;
    for (uint64_t n = old->from / segment_bytes(b); n <= b->applied / segment_bytes(b); n++)
        if (!has_segment(b, (uint32_t)n))
            return true;
    return false;
}

/* prev_end: the frame that the last backup ended with: is it in the source? 1 yes, 0 its segment is gone, -1 no. */
static int prev_end(struct tb_backup *b, const char *log_dir)
{
    const struct tb_manifest_shard *p = &b->prev.shard[b->k];
    char path[TB_PART_PATH];
    struct tb_disk_frame h;
    uint32_t segment = (uint32_t)(p->last / segment_bytes(b));
    if (p->end > b->durable)
        return -1;
    if (p->last == 0)
        return 1;
    if (!has_segment(b, segment))
        return 0;
    (void)snprintf(path, sizeof(path), "%.1000s/%08x.seg", log_dir, segment);
    int fd = tb_io_file_open(b->w->io, path, TB_OPEN_READ);
    int64_t n = fd < 0 ? fd : tb_io_pread(b->w->io, fd, &h, sizeof(h), p->last % segment_bytes(b));
    if (fd >= 0)
        (void)tb_io_file_close(b->w->io, fd);
    return n == sizeof(h) && h.magic == TB_FRAME_MAGIC && h.lsn == p->last && h.crc == p->chain ? 1 : -1;
}

static bool add_part(struct tb_backup *b, const struct tb_part *p, bool kept)
{
    if (!tb_manifest_add(&b->cur, p))
        return fail(b, TB_LIMIT, ENOMEM, "no memory", b->dest);
    (void)pthread_mutex_lock(&b->lock);
    if (kept) {
        b->status.kept_bytes += p->bytes;
        b->status.kept_files++;
    } else {
        b->status.copied_bytes += p->bytes;
        b->status.copied_files++;
    }
    (void)pthread_mutex_unlock(&b->lock);
    return true;
}

/* place_index: the copy that was just made gets its name; or the older one goes on to serve, with all that it needs. */
static bool place_index(struct tb_backup *b)
{
    char from[TB_PART_PATH], to[TB_PART_PATH];
    if (b->head.pages == 0) {
        for (size_t i = 0; i < b->prev.n; i++)
            if (b->prev.part[i].shard == b->k && !add_part(b, &b->prev.part[i], true))
                return false;
        return true;
    }
    struct tb_part p = {.kind = TB_PART_INDEX,
                        .shard = b->k,
                        .from = b->head.ckpt.applied,
                        .to = b->head.pages,
                        .bytes = b->head.pages * (TB_COPY_PAGE + 4),
                        .time_ms = b->head.time_ms};
    memcpy(p.sha256, b->head.sha256, sizeof(p.sha256));
    (void)snprintf(from, sizeof(from), "%.1000s/shard-%02x/index.part", b->dest, b->k);
    tb_part_path(b->dest, &p, to);
    int rc = tb_io_rename(b->w->io, from, to);
    return rc < 0 ? fail(b, TB_IO, -rc, "cannot be given its name", from) : add_part(b, &p, false);
}

/* covered: offset up to which the last backup has this segment, from its beginning; its parts become this one's. */
static bool covered(struct tb_backup *b, uint32_t segment, uint64_t *upto)
{
    *upto = 0;
    for (size_t i = 0; b->have_prev && i < b->prev.n; i++) {
        const struct tb_part *p = &b->prev.part[i];
        if (p->kind != TB_PART_LOG || p->shard != b->k || p->number != segment || p->from != *upto)
            continue;
        *upto = p->to;
        if (tb_manifest_find(&b->cur, p) == NULL && !add_part(b, p, true))
            return false;
    }
    return true;
}

static bool plan_segments(struct tb_backup *b, bool proven)
{
    uint32_t last = (uint32_t)(b->durable / segment_bytes(b));
    uint32_t prev_last = b->have_prev ? (uint32_t)(b->prev.shard[b->k].end / segment_bytes(b)) : 0;
    uint64_t upto;
    free(b->todo);
    b->todo_n = b->todo_at = 0;
    b->todo = calloc(b->segments_n + 1, sizeof(*b->todo));
    if (b->todo == NULL)
        return fail(b, TB_LIMIT, ENOMEM, "no memory", b->dest);
    for (size_t i = 0; i < b->segments_n && b->segment[i] <= last; i++) {
        uint32_t n = b->segment[i];
        if (!covered(b, n, &upto))
            return false;
        bool whole = n < last ? upto > 0 && n < prev_last : upto == b->durable % segment_bytes(b);
        if (!whole || !proven)
            b->todo[b->todo_n++] = (struct tb_todo){n, whole ? 0 : upto, whole || (!proven && upto > 0)};
    }
    return true;
}

static void log_dir_of(const struct tb_backup *b, char out[TB_PART_PATH])
{
    (void)snprintf(out, TB_PART_PATH, "%.990s/shard-%02x/log", b->store->dir, b->k);
}

bool tb_backup_plan(struct tb_backup *b)
{
    char path[TB_PART_PATH];
    log_dir_of(b, path);
    int proven = b->have_prev ? prev_end(b, path) : 1;
    if (proven < 0)
        return fail(b, TB_CONFLICT, 0,
                    "the folder holds another history of this store (it was restored to an earlier time, or replaced); "
                    "back it up into a new folder",
                    b->dest);
    struct tb_manifest_shard *s = &b->cur.shard[b->k];
    *s = (struct tb_manifest_shard){.end = b->durable, .time_ms = b->durable_ms};
    if (b->have_prev && proven > 0) {
        s->last = b->prev.shard[b->k].last;
        s->chain = b->prev.shard[b->k].chain;
    }
    b->piece.frames = (struct tb_frames){.seed = tb_frames_seed(b->store->super.uuid, b->k)};
    if (b->durable_ms < b->cur.time_ms)
        b->cur.time_ms = b->durable_ms;
    if (!place_index(b) || !plan_segments(b, proven > 0))
        return false;
    tb_backup_tell(b, 0, b->todo_n * segment_bytes(b));
    return false;
}

/* ---- the log ---- */

/* compare: an older part of a segment against the source, when nothing else proves that it is of the same log. */
static bool compare(struct tb_backup *b, const struct tb_part *p)
{
    struct tb_sha256 sha;
    uint8_t got[TB_SHA256_BYTES];
    int fd = tb_io_file_open(b->w->io, b->piece.source, TB_OPEN_READ);
    uint8_t *buf = malloc(TB_PIECE_BUF);
    tb_sha256_init(&sha);
    int64_t n = fd < 0 ? fd : 1;
    for (uint64_t at = p->from; n > 0 && buf != NULL && at < p->to; at += (uint64_t)n) {
        size_t want = p->to - at < TB_PIECE_BUF ? (size_t)(p->to - at) : TB_PIECE_BUF;
        n = tb_io_pread(b->w->io, fd, buf, want, at);
        if (n > 0)
            tb_sha256_update(&sha, buf, (size_t)n);
    }
    tb_sha256_final(&sha, got);
    if (fd >= 0)
        (void)tb_io_file_close(b->w->io, fd);
    free(buf);
    if (n <= 0)
        return fail(b, TB_IO, n < 0 ? (int)-n : EIO, "cannot be read", b->piece.source);
    return memcmp(got, p->sha256, sizeof(got)) == 0
               ? true
               : fail(b, TB_CONFLICT, 0, "the folder holds another history of this store; back it up into a new folder",
                      b->dest);
}

static bool compare_all(struct tb_backup *b, const struct tb_todo *t)
{
    for (size_t i = 0; i < b->prev.n; i++) {
        const struct tb_part *p = &b->prev.part[i];
        if (p->kind == TB_PART_LOG && p->shard == b->k && p->number == t->segment && !compare(b, p))
            return false;
    }
    return true;
}

/* next_piece: begin the first, or the next one; false: there is none, or it failed. */
static bool next_piece(struct tb_backup *b)
{
    const struct tb_todo *t = &b->todo[b->todo_at];
    const struct tb_manifest_shard *prev = b->have_prev ? &b->prev.shard[b->k] : NULL;
    char dir[TB_PART_PATH];
    uint64_t start = t->segment * segment_bytes(b);
    log_dir_of(b, dir);
    (void)snprintf(b->piece.source, sizeof(b->piece.source), "%.1000s/%08x.seg", dir, t->segment);
    if (t->compare && !compare_all(b, t))
        return false;
    if (t->compare && t->from == 0) /* all of it was there */
        return true;
    struct tb_frames *f = &b->piece.frames;
    bool follows = (f->sealed && f->last / segment_bytes(b) + 1 == t->segment) ||
                   (f->last != 0 && f->at == start + t->from);
    if (prev != NULL && prev->last != 0 && prev->end == start + t->from) {
        f->chain = prev->chain; /* also at a segment's first frame: the last backup ended with a seal */
        f->last = prev->last;
        follows = true;
    }
    f->chained = follows;
    bool last = start / segment_bytes(b) == b->durable / segment_bytes(b);
    b->piece.raw_ok = t->segment < tb_manifest_index(&b->cur, b->k)->from / segment_bytes(b);
    b->rc = tb_piece_begin(&b->piece, b->k, t->segment, t->from, last ? b->durable : 0, &b->err);
    return b->rc == TB_OK;
}

bool tb_backup_log(struct tb_backup *b)
{
    struct tb_piece *p = &b->piece;
    if (b->todo_at == b->todo_n)
        return false;
    const struct tb_todo *t = &b->todo[b->todo_at];
    if (p->in < 0 && p->out < 0 && p->stage != PIECE_DONE) {
        if (!next_piece(b))
            return false;
        if (p->in < 0) { /* nothing to copy of it */
            b->todo_at++;
            return true;
        }
    }
    b->rc = tb_piece_step(p, &b->err);
    b->slice_bytes = p->slice_bytes;
    if (b->rc != TB_OK)
        return false;
    uint64_t done = b->todo_at * segment_bytes(b) + (p->at - t->from) / (p->stage == PIECE_CHECK ? 1 : 2);
    tb_backup_tell(b, done, b->todo_n * segment_bytes(b));
    if (p->stage != PIECE_DONE)
        return true;
    if (p->frames.last != 0) {
        b->cur.shard[b->k].last = p->frames.last;
        b->cur.shard[b->k].chain = p->frames.chain;
    }
    if (!add_part(b, &p->part, p->found))
        return false;
    b->todo[b->todo_at].from = p->part.to;
    bool whole = p->raw || (p->stop != 0 ? p->part.to == p->stop % segment_bytes(b) : p->frames.sealed);
    if (p->raw) {
        tb_log(TB_LOG_WARN, "backup: shard=%u segment %08x is damaged and copied as it is; run `tambo check`", b->k,
               t->segment);
        (void)pthread_mutex_lock(&b->lock);
        b->status.damaged_segments++;
        (void)pthread_mutex_unlock(&b->lock);
    }
    tb_piece_end(p, true);
    p->stage = PIECE_ADOPT;
    b->todo_at += whole;
    return true;
}

/* ---- dictionaries: small files that never change ---- */

struct dict_walk {
    struct tb_backup *b;
    bool good;
};

static bool copy_file(struct tb_backup *b, const char *from, const char *to, struct tb_part *p)
{
    struct tb_io *io = b->w->io;
    char fresh[TB_PART_PATH + 8];
    int fd = tb_io_file_open(io, from, TB_OPEN_READ);
    int64_t size = fd < 0 ? fd : tb_io_file_size(io, fd);
    uint8_t *buf = size >= 0 && size <= TB_PIECE_BUF ? malloc((size_t)size + 1) : NULL;
    int64_t n = buf != NULL ? tb_io_pread(io, fd, buf, (size_t)size, 0) : -EIO;
    if (fd >= 0)
        (void)tb_io_file_close(io, fd);
    bool good = n == size && n >= 0;
    if (!good)
        (void)fail(b, TB_IO, n < 0 ? (int)-n : EIO, "cannot be read", from);
    (void)snprintf(fresh, sizeof(fresh), "%s.new", to);
    fd = good ? tb_io_file_open(io, fresh, TB_OPEN_WRITE | TB_OPEN_CREATE) : -1;
    if (good) {
        struct tb_sha256 sha;
        tb_sha256_init(&sha);
        tb_sha256_update(&sha, buf, (size_t)n);
        tb_sha256_final(&sha, p->sha256);
        p->bytes = p->to = (uint64_t)n;
        int64_t w = fd < 0 ? fd : tb_io_pwrite(io, fd, buf, (size_t)n, 0);
        int rc = w < 0 ? (int)w : w != n ? -EIO : tb_io_sync(io, fd);
        if (rc == 0)
            rc = tb_io_rename(io, fresh, to);
        good = rc == 0 ? true : fail(b, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "cannot be written", to);
    }
    if (fd >= 0)
        (void)tb_io_file_close(io, fd);
    free(buf);
    return good;
}

static bool dict_found(void *user, const char *name)
{
    struct dict_walk *d = user;
    struct tb_backup *b = d->b;
    struct tb_part p = {.kind = TB_PART_DICT, .shard = b->k};
    char from[TB_PART_PATH], to[TB_PART_PATH];
    if (!tb_part_read(name, &p) || p.kind != TB_PART_DICT)
        return true;
    for (size_t i = 0; b->have_prev && i < b->prev.n; i++) {
        const struct tb_part *o = &b->prev.part[i];
        if (o->kind == TB_PART_DICT && o->shard == b->k && o->number == p.number) {
            d->good = tb_manifest_find(&b->cur, o) != NULL || add_part(b, o, true);
            return d->good;
        }
    }
    (void)snprintf(from, sizeof(from), "%.990s/shard-%02x/dict/%.8s", b->store->dir, b->k, name);
    tb_part_path(b->dest, &p, to);
    d->good = copy_file(b, from, to, &p) && add_part(b, &p, false);
    return d->good;
}

bool tb_backup_dicts(struct tb_backup *b)
{
    char path[TB_PART_PATH];
    static const char *const sub[] = {"/log", "/dict", ""};
    struct dict_walk d = {.b = b, .good = true};
    (void)snprintf(path, sizeof(path), "%.990s/shard-%02x/dict", b->store->dir, b->k);
    int rc = tb_io_list(b->w->io, path, dict_found, &d);
    if (rc < 0 && rc != -ENOENT)
        return fail(b, TB_IO, -rc, "cannot be read", path);
    for (size_t i = 0; d.good && i < TB_ARRAY_LEN(sub); i++) {
        (void)snprintf(path, sizeof(path), "%.1000s/shard-%02x%s", b->dest, b->k, sub[i]);
        rc = tb_io_sync_dir(b->w->io, path);
        if (rc < 0)
            return fail(b, TB_IO, -rc, "cannot be synced", path);
    }
    return false;
}

/* ---- the manifest, and what it lets go of ---- */

bool tb_backup_commit(struct tb_backup *b)
{
    int rc = tb_io_sync_dir(b->w->io, b->dest);
    if (rc < 0)
        return fail(b, TB_IO, -rc, "cannot be synced", b->dest);
    b->rc = tb_manifest_write(b->w->io, b->dest, &b->cur, &b->err);
    struct tb_error err;
    if (b->rc == TB_OK && tb_hold_note(b->w->io, b->store, &b->cur, &err) != TB_OK)
        tb_log(TB_LOG_WARN, "backup: %s; after a restart no segment is kept for the next backup", err.text);
    (void)pthread_mutex_lock(&b->lock);
    b->status.time_ms = b->cur.time_ms;
    (void)pthread_mutex_unlock(&b->lock);
    if (b->rc == TB_OK && (b->keep != 0 || b->keep_days != 0))
        tb_backup_prune(b);
    return false;
}
