/*
 * compact.c: see compact.h.
 *
 *   make: index.mdb.compact written and synced, read back --rename, folder synced--> index.mdb.next
 *   take: CKPT with TB_CKPT_NEXT --rename over index.mdb, folder synced--> done; the next CKPT is without it
 *
 * Must never: touch index.mdb before CKPT names the other file, durably; take a file over whose entries were not
 * counted and verified. Thread: whoever recovers the shard (its owner at start, a helper later), or a tool; blocks.
 */
#include "engine/store/compact.h"

#include <errno.h>
#include <stdio.h>

#include "engine/base/rules.h"
#include "engine/index/walk.h"

enum {
    PAGES_MIN = 16384,     /* 64 MiB: below it there is little to give back */
    USED_MAX = 16384,      /* 64 MiB take about 0.3 s, which a start may wait; more is for a person to ask for */
    USED_SHARE = 4,        /* one page in so many is used, or fewer: else the next day's work makes the file as large */
    COMMIT_BYTES = 8 << 20 /* LMDB's list of dirty pages stays short */
};

static void path_of(const char *dir, const char *name, char out[TB_INDEX_PATH])
{
    (void)snprintf(out, TB_INDEX_PATH, "%.990s/%s", dir, name);
}

bool tb_compact_due(uint64_t min, uint64_t used, uint64_t high)
{
    return high >= (min != 0 ? min : PAGES_MIN) && used <= USED_MAX && (used <= high / USED_SHARE || min == 1);
}

/* ---- which file is the index ---- */

/* named: does CKPT say that index.mdb.next is the index, and is that the very file? */
static bool named(struct tb_io *io, const char *next, const struct tb_disk_ckpt *ckpt)
{
    enum { PAGE = 4096, META_LEAD = 16 };
    uint8_t meta[TB_META_BYTES];
    if (!(ckpt->flags & TB_CKPT_NEXT))
        return false;
    int fd = tb_io_file_open(io, next, TB_OPEN_READ);
    if (fd < 0)
        return false;
    int64_t n = tb_io_pread_sure(io, fd, meta, sizeof(meta), (ckpt->txnid & 1) * PAGE + META_LEAD);
    (void)tb_io_file_close(io, fd); /* read only */
    return n == sizeof(meta) && memcmp(meta, ckpt->meta, sizeof(meta)) == 0;
}

void tb_index_place(struct tb_io *io, const char *shard_dir, const struct tb_disk_ckpt *ckpt, char path[TB_INDEX_PATH])
{
    path_of(shard_dir, "index.mdb.next", path);
    if (!named(io, path, ckpt))
        path_of(shard_dir, "index.mdb", path);
}

static enum tb_rc ckpt_load(struct tb_io *io, const char *shard_dir, struct tb_disk_ckpt *out, struct tb_error *err)
{
    char path[TB_INDEX_PATH];
    uint8_t block[TB_BLOCK];
    path_of(shard_dir, "CKPT", path);
    enum tb_rc rc = tb_slot_read(io, path, tb_ckpt_check, block, err);
    if (rc == TB_OK)
        memcpy(out, block, sizeof(*out));
    return rc;
}

static void drop(struct tb_io *io, const char *shard_dir, const char *name)
{
    char path[TB_INDEX_PATH];
    path_of(shard_dir, name, path);
    (void)tb_io_unlink(io, path); /* usually not there; what comes back after a crash is debris again */
}

enum tb_rc tb_index_settle(struct tb_io *io, const char *shard_dir, struct tb_error *err)
{
    char next[TB_INDEX_PATH], index[TB_INDEX_PATH];
    struct tb_disk_ckpt ckpt;
    struct tb_error why = {0};
    path_of(shard_dir, "index.mdb.next", next);
    path_of(shard_dir, "index.mdb", index);
    enum tb_rc rc = ckpt_load(io, shard_dir, &ckpt, &why);
    if (rc == TB_IO) {
        *err = why;
        return rc;
    }
    if (rc != TB_OK)
        return TB_OK; /* whoever makes an index and a record without that flag leaves the file as debris */
    int done = 0;
    if (named(io, next, &ckpt)) {
        drop(io, shard_dir, "index.mdb-lock");
        done = tb_io_rename(io, next, index);
    } else {
        drop(io, shard_dir, "index.mdb.next");
    }
    if (done == 0 && ckpt.flags & TB_CKPT_NEXT) /* before a record without the flag is written */
        done = tb_io_sync_dir(io, shard_dir);
    return done < 0 ? tb_error_set(err, TB_IO, -done, "%s cannot take its place", next) : TB_OK;
}

/* ---- making it ---- */

struct making {
    struct tb_io *io;
    int fd;              /* the file that is read */
    struct tb_index *ix; /* NULL: only looking */
    uint64_t put_bytes;  /* since the last commit */
    enum tb_rc rc;
    char wrong[200]; /* first finding */
};

static int64_t read_old(void *user, void *buf, size_t len, uint64_t offset)
{
    struct making *m = user;
    return tb_io_pread(m->io, m->fd, buf, len, offset);
}

static void on_damage(void *user, enum tb_db db, const char *what)
{
    struct making *m = user;
    if (m->wrong[0] == '\0')
        (void)snprintf(m->wrong, sizeof(m->wrong), "%s%s%.150s", db < TB_DBS ? tb_index_db_name(db) : "",
                       db < TB_DBS ? ": " : "", what);
}

static void on_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    struct making *m = user;
    uint64_t txnid;
    if (m->rc != TB_OK || m->wrong[0] != '\0')
        return;
    if (value.len > TB_VALUE_MAX || key.len > TB_KEY_MAX || key.len == 0) {
        on_damage(m, db, "an entry is too long");
        return;
    }
    tb_index_append(m->ix, db, key, value);
    m->put_bytes += key.len + value.len;
    m->rc = tb_index_rc(m->ix);
    if (m->rc != TB_OK || m->put_bytes < COMMIT_BYTES)
        return;
    m->put_bytes = 0;
    m->rc = tb_index_commit(m->ix, &txnid);
    if (m->rc == TB_OK)
        m->rc = tb_index_begin(m->ix);
}

/* walk: all of a snapshot, with on_entry if m->ix is there. OK: nothing is wrong with it; *stat: what it has. */
static enum tb_rc walk(struct making *m, const char *path, const uint8_t meta[TB_META_BYTES], struct tb_walk_stat *stat,
                       struct tb_error *err)
{
    struct tb_walk_config cfg = {
        .user = m, .read = read_old, .entry = m->ix != NULL ? on_entry : NULL, .damage = on_damage};
    m->fd = tb_io_file_open(m->io, path, TB_OPEN_READ);
    if (m->fd < 0)
        return tb_error_set(err, TB_IO, -m->fd, "%s cannot be opened", path);
    struct tb_walk *w = tb_walk_new(&cfg, meta);
    while (w != NULL && tb_walk_step(w, 4096) && m->rc == TB_OK && m->wrong[0] == '\0')
        ;
    enum tb_rc rc = w != NULL ? m->rc : TB_LIMIT;
    if (w != NULL)
        *stat = *tb_walk_stat(w);
    tb_walk_free(w);
    (void)tb_io_file_close(m->io, m->fd); /* read only */
    if (rc == TB_OK && m->wrong[0] != '\0')
        return tb_error_set(err, TB_CORRUPT, 0, "%s: %s", path, m->wrong);
    return rc == TB_OK ? rc : tb_error_set(err, rc, 0, "%s: %s", path, m->ix ? tb_index_error(m->ix) : "no memory");
}

/* fill: every entry of the old index into a new file, synced; what CKPT says of that file. */
static enum tb_rc fill(struct making *m, const char *old, const char *path, const struct tb_disk_ckpt *ckpt,
                       struct tb_disk_ckpt *fresh, struct tb_walk_stat *stat, struct tb_error *err)
{
    int fd = tb_io_file_open(m->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE), sync = 0;
    if (fd < 0)
        return tb_error_set(err, fd == -ENOSPC ? TB_NOSPACE : TB_IO, -fd, "%s cannot be made", path);
    enum tb_rc rc = tb_index_open(path, true, &m->ix, err);
    if (rc == TB_OK && tb_index_begin(m->ix) != TB_OK)
        rc = tb_error_set(err, TB_IO, 0, "%s: %s", path, tb_index_error(m->ix));
    if (rc == TB_OK)
        rc = walk(m, old, ckpt->meta, stat, err);
    *fresh = *ckpt;
    if (rc == TB_OK) {
        rc = tb_index_commit(m->ix, &fresh->txnid);
        if (rc == TB_OK)
            rc = tb_index_meta(m->ix, m->io, fd, fresh->txnid, fresh->meta);
        if (rc != TB_OK)
            rc = tb_error_set(err, rc, 0, "%s: %s", path, tb_index_error(m->ix));
    }
    tb_index_close(m->ix);
    m->ix = NULL;
    if (rc == TB_OK && TB_KEEPS(compactsync))
        sync = tb_io_sync(m->io, fd);
    if (sync < 0)
        rc = tb_error_set(err, sync == -ENOSPC ? TB_NOSPACE : TB_IO, -sync, "%s cannot be synced", path);
    (void)tb_io_file_close(m->io, fd); /* it was synced */
    return rc;
}

/* read_back: is the new file whole, and does it have as many entries of each kind? */
static enum tb_rc read_back(struct tb_io *io, const char *path, const struct tb_disk_ckpt *fresh,
                            const struct tb_walk_stat *had, struct tb_error *err)
{
    struct making m = {.io = io};
    struct tb_walk_stat has = {0};
    enum tb_rc rc = walk(&m, path, fresh->meta, &has, err);
    for (int db = 0; rc == TB_OK && db < TB_DBS; db++)
        if (has.entries[db] != had->entries[db])
            rc = tb_error_set(err, TB_CORRUPT, 0, "%s: %s has %llu entries instead of %llu", path,
                              tb_index_db_name((enum tb_db)db), (unsigned long long)has.entries[db],
                              (unsigned long long)had->entries[db]);
    return rc;
}

enum tb_rc tb_compact_make(struct tb_io *io, const char *shard_dir, const struct tb_disk_ckpt *ckpt,
                           struct tb_disk_ckpt *fresh, struct tb_error *err)
{
    char old[TB_INDEX_PATH], part[TB_INDEX_PATH], next[TB_INDEX_PATH];
    struct making m = {.io = io};
    struct tb_walk_stat had = {0};
    path_of(shard_dir, "index.mdb", old);
    path_of(shard_dir, "index.mdb.compact", part);
    path_of(shard_dir, "index.mdb.next", next);
    drop(io, shard_dir, "index.mdb.compact");
    drop(io, shard_dir, "index.mdb.compact-lock");
    enum tb_rc rc = fill(&m, old, part, ckpt, fresh, &had, err);
    drop(io, shard_dir, "index.mdb.compact-lock");
    if (rc == TB_OK)
        rc = read_back(io, part, fresh, &had, err);
    int named_rc = rc == TB_OK ? tb_io_rename(io, part, next) : 0;
    if (rc == TB_OK && named_rc == 0)
        named_rc = tb_io_sync_dir(io, shard_dir);
    if (named_rc < 0)
        rc = tb_error_set(err, TB_IO, -named_rc, "%s cannot be made", next);
    if (rc != TB_OK) {
        drop(io, shard_dir, "index.mdb.compact");
        drop(io, shard_dir, "index.mdb.next");
    }
    return rc;
}

enum tb_rc tb_compact_take(struct tb_io *io, const char *shard_dir, struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    char path[TB_INDEX_PATH], next[TB_INDEX_PATH], index[TB_INDEX_PATH];
    path_of(shard_dir, "CKPT", path);
    path_of(shard_dir, "index.mdb.next", next);
    path_of(shard_dir, "index.mdb", index);
    if (!TB_KEEPS(compactorder) && tb_io_rename(io, next, index) < 0)
        return TB_IO;
    ckpt->seq++;
    ckpt->flags |= TB_CKPT_NEXT;
    tb_ckpt_seal(ckpt);
    enum tb_rc rc = tb_slot_write(io, path, ckpt->seq, ckpt, sizeof(*ckpt), err);
    return rc == TB_OK ? tb_index_settle(io, shard_dir, err) : rc;
}

enum tb_rc tb_compact_install(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir,
                              const char *path, uint64_t seq, struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    char next[TB_INDEX_PATH];
    path_of(shard_dir, "index.mdb.next", next);
    int rc = tb_io_rename(io, path, next);
    if (rc == 0)
        rc = tb_io_sync_dir(io, shard_dir);
    if (rc < 0)
        return tb_error_set(err, TB_IO, -rc, "%s cannot be made", next);
    ckpt->seq = seq;
    ckpt->epoch = cfg->epoch;
    ckpt->shard = cfg->shard;
    memcpy(ckpt->uuid, cfg->uuid, sizeof(ckpt->uuid));
    return tb_compact_take(io, shard_dir, ckpt, err);
}

enum tb_rc tb_compact_shard(struct tb_io *io, const char *shard_dir, struct tb_compacted *out, struct tb_error *err)
{
    enum { PAGE = 4096 };
    struct tb_disk_ckpt was, now = {0};
    enum tb_rc rc = tb_index_settle(io, shard_dir, err);
    if (rc == TB_OK)
        rc = ckpt_load(io, shard_dir, &was, err);
    if (rc == TB_OK && (was.format < TB_FORMAT_OLDEST || was.format > TB_FORMAT))
        rc = tb_error_set(err, TB_INVALID, 0, "%s has format %u; this program reads %u to %u", shard_dir, was.format,
                          TB_FORMAT_OLDEST, TB_FORMAT);
    if (rc == TB_OK)
        rc = tb_compact_make(io, shard_dir, &was, &now, err);
    if (rc == TB_OK)
        rc = tb_compact_take(io, shard_dir, &now, err);
    if (rc != TB_OK)
        return rc;
    out->shards++;
    out->was_bytes += tb_index_meta_pages(was.meta) * PAGE;
    out->now_bytes += tb_index_meta_pages(now.meta) * PAGE;
    return rc;
}
