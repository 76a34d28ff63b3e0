/*
 * rebuild.c: from suspicion to a sound index. See rebuild.h.
 *
 * Must never: give up what was acknowledged. The log must be whole from the base on, and reach at least as far as the
 * last confirmed checkpoint says; otherwise nothing is changed and a person decides. The new index, whole and synced,
 * takes the old one's place as a compacted one does (C1), and is suspect until the log behind it is replayed. Thread: a
 * shard's owner at start, a helper later; blocks.
 */
#include "engine/store/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/index/walk.h"
#include "engine/log/survey.h"
#include "engine/store/compact.h"
#include "engine/store/copy.h"

#define PATH_LONG (TB_PATH + 32)

static void path_of(const char *dir, const char *name, char out[PATH_LONG])
{
    (void)snprintf(out, PATH_LONG, "%.990s/%s", dir, name);
}

/* ---- suspicion ---- */

enum tb_suspicion tb_suspicion(struct tb_io *io, const char *shard_dir)
{
    char path[PATH_LONG], how = 0;
    path_of(shard_dir, "SUSPECT", path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return TB_TRUSTED;
    int64_t n = tb_io_pread(io, fd, &how, 1, 0);
    (void)tb_io_file_close(io, fd); /* read only */
    return n == 1 && how == 'c' ? TB_CONDEMNED : TB_SUSPECT;
}

void tb_suspect(struct tb_io *io, const char *shard_dir, enum tb_suspicion how)
{
    char path[PATH_LONG];
    if (how <= tb_suspicion(io, shard_dir))
        return;
    path_of(shard_dir, "SUSPECT", path);
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    const char *text = how == TB_CONDEMNED ? "c\n" : "s\n";
    int64_t n = fd >= 0 ? tb_io_pwrite(io, fd, text, 2, 0) : fd;
    int rc = n == 2 ? tb_io_sync(io, fd) : (int)n;
    if (fd >= 0)
        (void)tb_io_file_close(io, fd);
    if (rc == 0)
        rc = tb_io_sync_dir(io, shard_dir);
    if (rc < 0)
        tb_log(TB_LOG_WARN, "%s cannot be written: %s", path, strerror(-rc));
}

void tb_suspect_clear(struct tb_io *io, const char *shard_dir)
{
    char path[PATH_LONG];
    path_of(shard_dir, "SUSPECT", path);
    int rc = tb_io_unlink(io, path);
    if (rc == 0)
        rc = tb_io_sync_dir(io, shard_dir);
    if (rc < 0 && rc != -ENOENT)
        tb_log(TB_LOG_WARN, "%s cannot be removed: %s; the next start looks again", path, strerror(-rc));
}

/* ---- looking ---- */

struct looking {
    struct tb_io *io;
    int fd;
    char first[200];  /* finding */
    uint64_t applied; /* of the state row, once it was met */
};

static int64_t look_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct looking *l = user;
    return tb_io_pread(l->io, l->fd, buf, len, offset);
}

static void look_damage(void *user, enum tb_db db, const char *what)
{
    struct looking *l = user;
    if (l->first[0] == '\0')
        (void)snprintf(l->first, sizeof(l->first), "%s%s%.150s", db < TB_DBS ? tb_index_db_name(db) : "",
                       db < TB_DBS ? ": " : "", what);
}

static void look_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    struct looking *l = user;
    struct tb_disk_state state;
    if (db != TB_DB_STATE || value.len < sizeof(state) || key.len != 5 || memcmp(key.ptr, "state", 5) != 0)
        return;
    memcpy(&state, value.ptr, sizeof(state));
    l->applied = state.applied;
}

/*
 * index_reach: how far the log was in the index, by the older of its two snapshots: that one was confirmed (S5). For
 * when the checkpoint record does not say it. 0: the index does not either.
 */
static uint64_t index_reach(struct tb_io *io, const char *shard_dir)
{
    enum { PAGE = 4096, META_LEAD = 16, TXNID_AT = 128 };
    uint8_t meta[2][TB_META_BYTES];
    char path[PATH_LONG];
    path_of(shard_dir, "index.mdb", path);
    struct looking l = {.io = io, .fd = tb_io_file_open(io, path, TB_OPEN_READ)};
    struct tb_walk_config cfg = {.user = &l, .read = look_read, .entry = look_entry, .damage = look_damage};
    bool there = l.fd >= 0;
    for (uint64_t i = 0; i < 2; i++)
        there = there && tb_io_pread(io, l.fd, meta[i], TB_META_BYTES, i * PAGE + META_LEAD) == TB_META_BYTES;
    size_t older = there && tb_get_le64(meta[0] + TXNID_AT) > tb_get_le64(meta[1] + TXNID_AT);
    for (size_t i = 0; there && i < 2 && l.applied == 0; i++) {
        struct tb_walk *w = tb_walk_new(&cfg, meta[older ^ i]);
        while (w != NULL && tb_walk_step(w, 4096) && l.applied == 0)
            ;
        tb_walk_free(w);
    }
    if (l.fd >= 0)
        (void)tb_io_file_close(io, l.fd); /* read only */
    return l.applied;
}

bool tb_index_walks(struct tb_io *io, const char *path, const uint8_t meta[TB_META_BYTES], struct tb_error *err)
{
    struct looking l = {.io = io, .fd = tb_io_file_open(io, path, TB_OPEN_READ)};
    struct tb_walk_config cfg = {.user = &l, .read = look_read, .damage = look_damage};
    if (l.fd < 0) {
        (void)tb_error_set(err, TB_CORRUPT, -l.fd, "%s cannot be opened", path);
        return false;
    }
    struct tb_walk *w = tb_walk_new(&cfg, meta);
    while (w != NULL && tb_walk_step(w, 4096) && l.first[0] == '\0')
        ;
    if (w == NULL)
        (void)snprintf(l.first, sizeof(l.first), "no memory to look at it");
    tb_walk_free(w);
    (void)tb_io_file_close(io, l.fd); /* read only */
    if (l.first[0] != '\0')
        (void)tb_error_set(err, TB_CORRUPT, 0, "%s: %s", path, l.first);
    return l.first[0] == '\0';
}

static enum tb_rc ckpt_read(struct tb_io *io, const char *shard_dir, struct tb_disk_ckpt *out, struct tb_error *err)
{
    char path[PATH_LONG];
    uint8_t block[TB_BLOCK];
    path_of(shard_dir, "CKPT", path);
    enum tb_rc rc = tb_slot_read(io, path, tb_ckpt_check, block, err);
    if (rc == TB_OK)
        memcpy(out, block, sizeof(*out));
    return rc;
}

bool tb_index_sound(struct tb_io *io, const char *shard_dir, struct tb_error *err)
{
    char path[TB_INDEX_PATH];
    struct tb_disk_ckpt ckpt;
    return ckpt_read(io, shard_dir, &ckpt, err) == TB_OK &&
           (tb_index_place(io, shard_dir, &ckpt, path), tb_index_walks(io, path, ckpt.meta, err));
}

/* ---- the base ---- */

static enum tb_rc any_record(void *user, const struct tb_record *r)
{
    (void)user;
    (void)r;
    return TB_OK;
}

static void frame_end(void *user, struct tb_log_mark mark)
{
    *(struct tb_log_mark *)user = mark;
}

/* log_gives: is the log whole from the mark on, and does it reach `need`? As a replay would read it. */
static enum tb_rc log_gives(const struct tb_log_config *cfg, struct tb_log_mark from, uint64_t need,
                            struct tb_error *err)
{
    struct tb_log *log = NULL;
    struct tb_log_mark end = from;
    enum tb_rc rc = tb_log_open(cfg, &log, err);
    if (rc == TB_OK)
        rc = tb_log_scan(log, from, any_record, frame_end, &end, err);
    tb_log_close(log);
    if (rc == TB_OK && end.end < need)
        rc = tb_error_set(err, TB_CORRUPT, 0,
                          "log %s ends at position %llu, but it went on to %llu at least: what is missing was "
                          "acknowledged; restore a backup",
                          cfg->dir, (unsigned long long)end.end, (unsigned long long)need);
    return rc;
}

/* from_copy: the newest copy that the log goes on from. NOTFOUND: there is none. */
static enum tb_rc from_copy(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir, const char *fresh,
                            uint64_t need, struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    uint64_t limit = UINT64_MAX;
    for (unsigned tries = 0; tries < TB_COPIES; tries++) {
        struct tb_disk_copy head;
        char path[TB_COPY_PATH];
        unsigned number;
        enum tb_rc rc = tb_copy_newest(io, shard_dir, cfg->uuid, cfg->shard, limit, &number, &head, err);
        if (rc != TB_OK)
            return rc;
        struct tb_log_mark from = {head.ckpt.applied, head.ckpt.last, head.ckpt.chain};
        rc = log_gives(cfg, from, need, err);
        if (rc == TB_OK) {
            tb_copy_path(shard_dir, number, path);
            tb_log(TB_LOG_WARN, "shard=%u its index is made again from copy-%u and the log from position %llu on",
                   cfg->shard, number, (unsigned long long)from.end);
            return tb_copy_restore_to(io, path, fresh, ckpt, err);
        }
        if (head.ckpt.applied == 0)
            return rc;
        limit = head.ckpt.applied - 1;
    }
    return TB_NOTFOUND;
}

/* from_nothing: an empty index, if the log is there from its first segment on. */
static enum tb_rc from_nothing(struct tb_io *io, const struct tb_log_config *cfg, const char *fresh, uint64_t need,
                               struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    uint32_t *segments = NULL;
    size_t n = 0;
    int listed = tb_survey_segments(cfg, &segments, &n);
    bool complete = listed == 0 && n > 0 && segments[0] == 1;
    for (size_t i = 1; i < n; i++)
        complete = complete && (segments[i] == segments[i - 1] + 1 ||
                                (uint64_t)segments[i - 1] * cfg->segment_bytes > need); /* made ahead */
    free(segments);
    if (!complete)
        return tb_error_set(err, TB_CORRUPT, listed < 0 ? -listed : 0,
                            "log %s: there is no index copy that is whole, and early segments were freed; restore a "
                            "backup",
                            cfg->dir);
    struct tb_log_mark from = {.end = cfg->segment_bytes + (cfg->pad_bytes > TB_BLOCK ? cfg->pad_bytes : TB_BLOCK)};
    /* if nothing says how far it went, one frame at least: an empty log cannot be told from a lost one */
    enum tb_rc rc = log_gives(cfg, from, need > 0 ? need : from.end + 1, err);
    if (rc != TB_OK)
        return rc;
    tb_log(TB_LOG_WARN, "shard=%u its index is made again from the whole log", cfg->shard);
    return tb_index_empty(io, fresh, cfg->segment_bytes, from.end, ckpt, err);
}

enum tb_rc tb_index_empty(struct tb_io *io, const char *path, uint64_t segment_bytes, uint64_t first,
                          struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    struct tb_applier x = {.segment_bytes = segment_bytes, .state = {.next_blob = 1, .next_acct = 1}};
    uint64_t txnid = 0;
    enum tb_rc rc = tb_index_open(path, true, &x.ix, err);
    if (rc != TB_OK)
        return rc;
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE);
    if (fd < 0) {
        tb_index_close(x.ix);
        return tb_error_set(err, TB_IO, -fd, "%s cannot be opened", path);
    }
    rc = tb_index_begin(x.ix);
    if (rc == TB_OK)
        tb_apply_flush(&x, first, 0);
    if (rc == TB_OK)
        rc = tb_index_commit(x.ix, &txnid);
    if (rc == TB_OK)
        rc = tb_index_meta(x.ix, io, fd, txnid, ckpt->meta);
    if (rc != TB_OK)
        rc = tb_error_set(err, rc, 0, "%s: %s", path, tb_index_error(x.ix));
    int sync = rc == TB_OK ? tb_io_sync(io, fd) : 0;
    if (sync < 0)
        rc = tb_error_set(err, TB_IO, -sync, "%s cannot be synced", path);
    (void)tb_io_file_close(io, fd);
    tb_index_close(x.ix);
    ckpt->txnid = txnid;
    ckpt->applied = first;
    ckpt->last = 0;
    ckpt->chain = 0;
    return rc;
}

/* ---- putting it in place ---- */

static void forget_lock(struct tb_io *io, const char *shard_dir, const char *name)
{
    char path[PATH_LONG];
    path_of(shard_dir, name, path);
    (void)tb_io_unlink(io, path); /* LMDB's, disposable */
}

enum tb_rc tb_index_rebuild(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir,
                            struct tb_error *err)
{
    char fresh[PATH_LONG];
    struct tb_disk_ckpt was = {0}, ckpt = {0};
    struct tb_error why = {0};
    enum tb_rc rc = tb_index_settle(io, shard_dir, err);
    if (rc != TB_OK)
        return rc;
    path_of(shard_dir, "index.mdb.new", fresh);
    (void)tb_io_unlink(io, fresh); /* debris of an attempt that a crash ended */
    forget_lock(io, shard_dir, "index.mdb.new-lock");
    if (ckpt_read(io, shard_dir, &was, &why) != TB_OK) {
        memset(&was, 0, sizeof(was));
        was.applied = index_reach(io, shard_dir);
    }
    rc = from_copy(io, cfg, shard_dir, fresh, was.applied, &ckpt, err);
    if (rc == TB_NOTFOUND || rc == TB_CORRUPT)
        rc = from_nothing(io, cfg, fresh, was.applied, &ckpt, err);
    if (rc == TB_OK && !tb_index_walks(io, fresh, ckpt.meta, err))
        rc = TB_CORRUPT;
    if (rc != TB_OK)
        return rc;
    forget_lock(io, shard_dir, "index.mdb.new-lock");
    tb_suspect(io, shard_dir, TB_SUSPECT);
    return tb_compact_install(io, cfg, shard_dir, fresh, was.seq, &ckpt, err);
}
