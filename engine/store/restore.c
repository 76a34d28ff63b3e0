/*
 * restore.c: the files of a store out of a backup's.
 *
 * Everything is made in TO.restoring, and gets the name TO when it is whole: a store that was not restored to its end
 * is none. Every file that is read is checked against its digest in the manifest, to its last byte, also when only a
 * part of it is used. Thread: the caller's; blocks.
 */
#include "engine/store/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/log/segment.h"

static enum tb_rc write_error(int64_t n, const char *path, struct tb_error *err)
{
    return tb_error_set(err, n == -ENOSPC ? TB_NOSPACE : TB_IO, n < 0 ? (int)-n : EIO, "%s cannot be written", path);
}

static void progress(struct tb_restore *r, uint64_t bytes)
{
    r->done_bytes += bytes;
    if (r->opt->progress != NULL)
        r->opt->progress(r->opt->user, r->done_bytes, r->total_bytes);
}

/* copy_part: the bytes of a part to their place in a file, those at or behind `limit` left out; all of it verified. */
static enum tb_rc copy_part(struct tb_restore *r, const struct tb_part *p, int out, const char *to, uint64_t at,
                            uint64_t limit, struct tb_error *err)
{
    char path[TB_PART_PATH];
    struct tb_sha256 sha;
    uint8_t got[TB_SHA256_BYTES];
    enum tb_rc rc = TB_OK;
    tb_part_path(r->opt->dest, p, path);
    int fd = tb_io_file_open(r->io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_CORRUPT : TB_IO, -fd, "%s cannot be opened", path);
    tb_sha256_init(&sha);
    uint64_t done = 0;
    while (rc == TB_OK && done < p->bytes) {
        int64_t n = tb_io_pread(r->io, fd, r->buf, TB_RESTORE_BUF, done);
        if (n <= 0) {
            rc = tb_error_set(err, n < 0 ? TB_IO : TB_CORRUPT, n < 0 ? (int)-n : 0, "%s is cut or cannot be read",
                              path);
            break;
        }
        if ((uint64_t)n > p->bytes - done)
            n = (int64_t)(p->bytes - done);
        tb_sha256_update(&sha, r->buf, (size_t)n);
        uint64_t room = at + done < limit ? limit - (at + done) : 0;
        size_t want = (uint64_t)n < room ? (size_t)n : (size_t)room;
        if (want > 0) {
            int64_t w = tb_io_pwrite(r->io, out, r->buf, want, at + done);
            if (w != (int64_t)want)
                rc = write_error(w, to, err);
        }
        done += (uint64_t)n;
        progress(r, (uint64_t)n);
    }
    (void)tb_io_file_close(r->io, fd);
    tb_sha256_final(&sha, got);
    if (rc == TB_OK && TB_KEEPS(backupverify) && memcmp(got, p->sha256, sizeof(got)) != 0)
        rc = tb_error_set(err, TB_CORRUPT, 0, "%s does not have its digest: it is damaged", path);
    return rc;
}

/* fill: zeros from an offset to the segment's end; whole: really written, as the log will go on there (R3). */
static enum tb_rc fill(struct tb_restore *r, int fd, const char *path, uint64_t from, bool whole, struct tb_error *err)
{
    uint64_t end = r->m[0].super.segment_bytes, at = whole ? from : end - TB_BLOCK > from ? end - TB_BLOCK : from;
    memset(r->buf, 0, TB_RESTORE_BUF);
    while (at < end) {
        size_t want = end - at < TB_RESTORE_BUF ? (size_t)(end - at) : TB_RESTORE_BUF;
        int64_t n = tb_io_pwrite(r->io, fd, r->buf, want, at);
        if (n != (int64_t)want)
            return write_error(n, path, err);
        at += want;
    }
    int sync = tb_io_sync(r->io, fd);
    return sync < 0 ? write_error(sync, path, err) : TB_OK;
}

static enum tb_rc restore_segment(struct tb_restore *r, uint32_t k, uint32_t segment, struct tb_error *err)
{
    const struct tb_restore_shard *s = &r->shard[k];
    uint64_t sb = r->m[0].super.segment_bytes, at = 0;
    bool last = segment == s->cut / sb, later = segment >= s->head.ckpt.applied / sb;
    uint64_t limit = last ? s->cut % sb : sb;
    char dir[TB_PART_PATH], path[TB_PART_PATH];
    (void)snprintf(dir, sizeof(dir), "%.990s/shard-%02x/log", r->dir, k);
    const struct tb_part *p = tb_restore_part(r, k, segment, 0, s->first, later);
    if (p == NULL) { /* only the segment that the last frame's seal names can be empty */
        struct tb_log_config cfg = {.io = r->io, .dir = dir, .shard = k, .segment_bytes = sb};
        memcpy(cfg.uuid, r->m[0].super.uuid, 16);
        int made = tb_segment_make(r->io, &cfg, segment);
        return made < 0 ? write_error(made, dir, err) : TB_OK;
    }
    (void)snprintf(path, sizeof(path), "%.1000s/%08x.seg", dir, segment);
    int fd = tb_io_file_open(r->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
    if (fd < 0)
        return write_error(fd, path, err);
    enum tb_rc rc = TB_OK;
    while (rc == TB_OK && p != NULL && at < limit) {
        rc = copy_part(r, p, fd, path, at, limit, err);
        at = p->to;
        p = tb_restore_part(r, k, segment, at, s->first, later);
    }
    if (rc == TB_OK)
        rc = fill(r, fd, path, at < limit ? at : limit, last, err);
    (void)tb_io_file_close(r->io, fd); /* synced above */
    return rc;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* restore_log: every segment that the index copy may point into, and those behind it up to the cut. */
static enum tb_rc restore_log(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    const struct tb_restore_shard *s = &r->shard[k];
    const struct tb_manifest *m = &r->m[s->first];
    uint64_t sb = m->super.segment_bytes;
    uint32_t last = (uint32_t)(s->cut / sb), first = (uint32_t)(s->head.ckpt.applied / sb);
    size_t n = 0;
    uint32_t *v = malloc((m->n + last - first + 1) * sizeof(*v));
    if (v == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "%s", r->dir);
    for (size_t i = 0; i < m->n; i++)
        if (m->part[i].kind == TB_PART_LOG && m->part[i].shard == k && m->part[i].from == 0 &&
            m->part[i].number < first)
            v[n++] = m->part[i].number;
    for (uint32_t i = first; i <= last; i++)
        v[n++] = i;
    qsort(v, n, sizeof(*v), by_number);
    enum tb_rc rc = TB_OK;
    for (size_t i = 0; rc == TB_OK && i < n; i++)
        rc = restore_segment(r, k, v[i], err);
    free(v);
    return rc;
}

/* restore_dicts_of: the dictionaries of manifest i that none before it has: they never change. */
static enum tb_rc restore_dicts_of(struct tb_restore *r, uint32_t k, size_t i, struct tb_error *err)
{
    enum tb_rc rc = TB_OK;
    for (size_t n = 0; rc == TB_OK && n < r->m[i].n; n++) {
        const struct tb_part *p = &r->m[i].part[n];
        char path[TB_PART_PATH];
        bool known = p->kind != TB_PART_DICT || p->shard != k;
        for (size_t b = r->shard[k].first; !known && b < i; b++)
            known = tb_manifest_find(&r->m[b], p) != NULL;
        if (known)
            continue;
        (void)snprintf(path, sizeof(path), "%.990s/shard-%02x/dict/%04x", r->dir, k, p->number);
        int fd = tb_io_file_open(r->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
        if (fd < 0)
            return write_error(fd, path, err);
        rc = copy_part(r, p, fd, path, 0, p->bytes, err);
        int sync = rc == TB_OK ? tb_io_sync(r->io, fd) : 0;
        (void)tb_io_file_close(r->io, fd);
        if (sync < 0)
            rc = write_error(sync, path, err);
    }
    return rc;
}

/* restore_dicts: those of the index copy's backup, and what the log behind it may need. */
static enum tb_rc restore_dicts(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    enum tb_rc rc = TB_OK;
    for (size_t i = r->shard[k].first; rc == TB_OK && i < r->n; i++)
        rc = restore_dicts_of(r, k, i, err);
    return rc;
}

static enum tb_rc make_dirs(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    static const char *const sub[] = {"", "/log", "/dict"};
    for (size_t i = 0; i < TB_ARRAY_LEN(sub); i++) {
        char path[TB_PART_PATH];
        (void)snprintf(path, sizeof(path), "%.990s/shard-%02x%s", r->dir, k, sub[i]);
        int rc = tb_io_mkdir(r->io, path);
        if (rc < 0)
            return write_error(rc, path, err);
    }
    return TB_OK;
}

static enum tb_rc sync_dirs(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    static const char *const sub[] = {"/log", "/dict", ""};
    for (size_t i = 0; i < TB_ARRAY_LEN(sub); i++) {
        char path[TB_PART_PATH];
        (void)snprintf(path, sizeof(path), "%.990s/shard-%02x%s", r->dir, k, sub[i]);
        int rc = tb_io_sync_dir(r->io, path);
        if (rc < 0)
            return write_error(rc, path, err);
    }
    return TB_OK;
}

static enum tb_rc restore_shard(struct tb_restore *r, uint32_t k, struct tb_error *err)
{
    struct tb_disk_ckpt ckpt;
    char from[TB_PART_PATH], to[TB_PART_PATH];
    enum tb_rc rc = make_dirs(r, k, err);
    if (rc == TB_OK)
        rc = restore_log(r, k, err);
    if (rc == TB_OK)
        rc = restore_dicts(r, k, err);
    if (rc != TB_OK)
        return rc;
    tb_part_path(r->opt->dest, r->shard[k].index, from);
    (void)snprintf(to, sizeof(to), "%.990s/shard-%02x/index.mdb", r->dir, k);
    rc = tb_copy_restore_to(r->io, from, to, &ckpt, err);
    if (rc != TB_OK)
        return rc;
    progress(r, r->shard[k].index->bytes);
    ckpt.seq = 1;
    tb_ckpt_seal(&ckpt);
    (void)snprintf(to, sizeof(to), "%.990s/shard-%02x/CKPT", r->dir, k);
    rc = tb_slot_write(r->io, to, ckpt.seq, &ckpt, sizeof(ckpt), err);
    return rc == TB_OK ? sync_dirs(r, k, err) : rc;
}

static enum tb_rc restore_super(struct tb_restore *r, struct tb_error *err)
{
    struct tb_disk_super s = r->m[r->n - 1].super; /* the newest: its epoch is above that of every frame */
    char path[TB_PART_PATH];
    s.seq++;
    s.crc = 0;
    s.crc = tb_crc32c(0, &s, sizeof(s));
    (void)snprintf(path, sizeof(path), "%.990s/SUPER", r->dir);
    enum tb_rc rc = tb_slot_write(r->io, path, s.seq, &s, sizeof(s), err);
    int sync = rc == TB_OK ? tb_io_sync_dir(r->io, r->dir) : 0;
    return sync < 0 ? write_error(sync, r->dir, err) : rc;
}

/* count_bytes: what will be read, for the progress. */
static void count_bytes(struct tb_restore *r)
{
    for (uint32_t k = 0; k < r->m[0].super.shards; k++) {
        const struct tb_manifest *m = &r->m[r->shard[k].first];
        for (size_t i = 0; i < m->n; i++)
            if (m->part[i].shard == k)
                r->total_bytes += m->part[i].bytes;
    }
}

static enum tb_rc make_store(struct tb_restore *r, struct tb_restore_result *out, struct tb_error *err)
{
    int there = tb_io_file_open(r->io, r->opt->to, TB_OPEN_READ);
    if (there >= 0)
        (void)tb_io_file_close(r->io, there);
    if (there != -ENOENT)
        return tb_error_set(err, TB_EXISTS, 0, "%s exists; a store is only restored into a folder that does not",
                            r->opt->to);
    int made = tb_io_mkdir(r->io, r->dir);
    if (made == -EEXIST)
        return tb_error_set(err, TB_EXISTS, 0, "%s is left of a restore that did not come to its end; remove it",
                            r->dir);
    if (made < 0)
        return write_error(made, r->dir, err);
    count_bytes(r);
    enum tb_rc rc = TB_OK;
    for (uint32_t k = 0; rc == TB_OK && k < r->m[0].super.shards; k++)
        rc = restore_shard(r, k, err);
    if (rc == TB_OK)
        rc = restore_super(r, err);
    if (rc == TB_OK)
        rc = tb_restore_wake(r, out, err);
    if (rc != TB_OK)
        return rc;
    char parent[TB_PATH];
    (void)snprintf(parent, sizeof(parent), "%s", r->opt->to);
    char *slash = strrchr(parent, '/');
    if (slash != NULL)
        *(slash == parent ? slash + 1 : slash) = '\0';
    made = tb_io_rename(r->io, r->dir, r->opt->to);
    if (made == 0)
        made = tb_io_sync_dir(r->io, slash != NULL ? parent : ".");
    return made < 0 ? write_error(made, r->opt->to, err) : TB_OK;
}

enum tb_rc tb_restore(struct tb_io *io, const struct tb_restore_options *opt, struct tb_restore_result *out,
                      struct tb_error *err)
{
    struct tb_restore *r = calloc(1, sizeof(*r));
    size_t len = strlen(opt->to);
    memset(out, 0, sizeof(*out));
    if (len == 0 || len > 900 || strlen(opt->dest) > 900 || opt->to[len - 1] == '/') {
        free(r);
        return tb_error_set(err, TB_INVALID, 0, "a path of 1 to 900 bytes that does not end with a slash is needed");
    }
    if (r == NULL || (r->buf = malloc(TB_RESTORE_BUF)) == NULL) {
        free(r);
        return tb_error_set(err, TB_LIMIT, ENOMEM, "restore");
    }
    r->io = io;
    r->opt = opt;
    (void)snprintf(r->dir, sizeof(r->dir), "%s.restoring", opt->to);
    enum tb_rc rc = tb_restore_load(r, err);
    if (rc == TB_OK)
        rc = tb_restore_plan(r, err);
    if (rc == TB_OK)
        rc = make_store(r, out, err);
    for (size_t i = 0; i < r->n; i++)
        tb_manifest_free(&r->m[i]);
    free(r->m);
    free(r->buf);
    free(r);
    return rc;
}
