/*
 * check.c: is a store whole? Its files in the order a start would read them, nothing written.
 *
 * The index is read by its pages from the meta that the checkpoint record keeps: what a start would roll back to
 * (R20), whatever the file's own meta pages say. LMDB is not used, so no byte of the store can crash this. What the
 * log holds beyond the checkpoint is checked as frames and records; its effect is checked after the next start.
 *
 * Thread: the caller's; blocks.
 */
#include "engine/store/check.h"
#include "engine/store/compact.h"
#include "engine/store/copy.h"
#include "engine/store/rebuild.h"
#include "engine/store/salvage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char rebuild[] = "run `tambo rebuild-index`";

struct check_all { /* what is compared across shards */
    struct tb_io *io;
    const char *dir;
    const struct tb_check_options *opt;
    struct tb_check_stat *stat;
    struct tb_disk_super super;
    /* u64: shard << 32 | acct: as shard 0 says; as the shards say; of these, the ones that are not deleted */
    struct tb_vec place, acct, live;
    bool comparable; /* every index holds its whole log */
};

/* ---- the index ---- */

struct index_file {
    struct tb_check_shard *c;
    int fd;
};

static int64_t index_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct index_file *f = user;
    f->c->stat->read_bytes += len;
    return tb_io_pread(f->c->io, f->fd, buf, len, offset);
}

static void index_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    struct index_file *f = user;
    f->c->stat->index_entries++;
    tb_check_entry(f->c, db, key, value);
}

static void index_damage(void *user, enum tb_db db, const char *what)
{
    struct index_file *f = user;
    char object[64];
    (void)snprintf(object, sizeof(object), db < TB_DBS ? "index, database %s" : "index",
                   db < TB_DBS ? tb_index_db_name(db) : "");
    f->c->broken = true;
    f->c->stat->index_damaged = true;
    tb_check_say(f->c, true, object, what, rebuild);
}

/* meta_pages: could a start roll the file back to the checkpoint? */
static void meta_pages(struct tb_check_shard *c, int fd, const struct tb_disk_ckpt *ckpt)
{
    enum { PAGE = 4096, TXNID_AT = 16 + 128 };
    uint8_t txnid[8];
    int64_t n = tb_io_pread(c->io, fd, txnid, 8, (ckpt->txnid & 1) * PAGE + TXNID_AT);
    if (n != 8 || tb_get_le64(txnid) < ckpt->txnid) {
        tb_check_say(c, true, "index", "it is older than its checkpoint record, or cut", rebuild);
        c->broken = c->stat->index_damaged = true;
    }
}

void tb_check_index(struct tb_check_shard *c, const char *dir, const struct tb_disk_ckpt *ckpt)
{
    char path[TB_INDEX_PATH];
    tb_index_place(c->io, dir, ckpt, path);
    struct index_file f = {.c = c, .fd = tb_io_file_open(c->io, path, TB_OPEN_READ)};
    if (f.fd < 0) {
        tb_check_say(c, true, path, strerror(-f.fd), rebuild);
        c->broken = c->stat->index_damaged = true;
        return;
    }
    struct tb_walk_config cfg = {.user = &f, .read = index_read, .entry = index_entry, .damage = index_damage};
    meta_pages(c, f.fd, ckpt);
    struct tb_walk *w = tb_walk_new(&cfg, ckpt->meta);
    if (w == NULL)
        c->no_memory = true;
    while (w != NULL && tb_walk_step(w, 1024))
        ;
    if (w != NULL)
        c->stat->index_pages += tb_walk_stat(w)->used;
    tb_walk_free(w);
    (void)tb_io_file_close(c->io, f.fd); /* read only */
    if (!c->broken && c->state_there && (c->state.applied != ckpt->applied || c->state.chain != ckpt->chain)) {
        tb_check_say(c, true, "index", "it holds another part of the log than its checkpoint record says", rebuild);
        c->broken = c->stat->index_damaged = true;
    }
}

/* ---- one shard ---- */

static bool load_ckpt(struct check_all *a, struct tb_check_shard *c, const char *dir, struct tb_disk_ckpt *out)
{
    char path[TB_PATH + 16];
    uint8_t block[TB_BLOCK];
    struct tb_error err = {0};
    (void)snprintf(path, sizeof(path), "%.990s/CKPT", dir);
    enum tb_rc rc = tb_slot_read(a->io, path, tb_ckpt_check, block, &err);
    memcpy(out, block, sizeof(*out));
    const char *why = NULL;
    if (rc != TB_OK)
        why = err.text;
    else if (out->format < TB_FORMAT_OLDEST || out->format > TB_FORMAT)
        why = "it has another format than this program's";
    else if (out->shard != c->shard || memcmp(out->uuid, a->super.uuid, 16) != 0)
        why = "it belongs to another shard or store";
    if (why != NULL) {
        tb_check_say(c, true, "the checkpoint record", why, rebuild);
        c->stat->index_damaged = true;
    }
    return why == NULL;
}

static void collect(struct check_all *a, struct tb_check_shard *c)
{
    const uint64_t *p = c->place.v;
    for (size_t i = 0; i < c->place.n; i++) {
        uint64_t *to = tb_vec_add(&a->place, sizeof(*to));
        if (to != NULL)
            *to = p[i];
        c->no_memory |= to == NULL;
    }
    const struct check_acct *acct = c->acct.v;
    for (size_t i = 0; i < c->acct.n; i++) {
        bool live = !(acct[i].row.flags & TB_ACCT_DELETED);
        uint64_t *to = tb_vec_add(&a->acct, sizeof(*to)), *also = live ? tb_vec_add(&a->live, sizeof(*also)) : NULL;
        if (to != NULL)
            *to = (uint64_t)c->shard << 32 | acct[i].acct;
        if (also != NULL)
            *also = (uint64_t)c->shard << 32 | acct[i].acct;
        c->no_memory |= to == NULL || (live && also == NULL);
    }
}

struct tb_log_config tb_check_log_config(struct tb_io *io, const struct tb_disk_super *super, const char *dir,
                                         uint32_t number, char log_dir[TB_PATH + 8])
{
    (void)snprintf(log_dir, TB_PATH + 8, "%.1000s/log", dir);
    struct tb_log_config cfg = {.io = io,
                                .dir = log_dir,
                                .shard = number,
                                .epoch = super->epoch,
                                .segment_bytes = super->segment_bytes,
                                .pad_bytes = super->pad_bytes};
    memcpy(cfg.uuid, super->uuid, 16);
    return cfg;
}

/* check_copies: what a rebuild would start from. Not needed to serve: a note. */
static void check_copies(struct tb_check_shard *c, const char *dir)
{
    for (unsigned i = 0; i < TB_COPIES; i++) {
        char path[TB_COPY_PATH], object[32];
        struct tb_error err = {0};
        tb_copy_path(dir, i, path);
        enum tb_rc rc = tb_copy_verify(c->io, path, &err);
        (void)snprintf(object, sizeof(object), "index copy-%u", i);
        if (rc != TB_OK && rc != TB_NOTFOUND)
            tb_check_say(c, false, object, err.text, "it is made again in its turn; delete it to have that sooner");
    }
}

static enum tb_rc check_shard(struct check_all *a, uint32_t number, struct tb_error *err)
{
    char dir[TB_PATH], log_dir[TB_PATH + 8];
    struct tb_disk_ckpt ckpt;
    struct tb_check_shard c = {.opt = a->opt,
                               .stat = a->stat,
                               .io = a->io,
                               .shard = number,
                               .dir = dir,
                               .segment_bytes = a->super.segment_bytes};
    uint64_t end = 0;
    (void)snprintf(dir, sizeof(dir), "%.990s/shard-%02x", a->dir, number);
    struct tb_log_config cfg = tb_check_log_config(a->io, &a->super, dir, number, log_dir);
    if (load_ckpt(a, &c, dir, &ckpt)) {
        c.applied = ckpt.applied;
        tb_check_index(&c, dir, &ckpt);
        if (!c.broken)
            tb_check_model(&c);
    } else {
        memset(&ckpt, 0, sizeof(ckpt));
        c.broken = true;
    }
    tb_check_log(&c, &cfg, &ckpt, &end);
    if (tb_cut_pending(a->io, dir))
        tb_check_say(&c, true, "the log", "cutting it is not done", "run `tambo check --truncate` again");
    check_copies(&c, dir);
    collect(a, &c);
    a->comparable &= !c.broken && end == ckpt.applied;
    if (!c.broken && end > ckpt.applied)
        tb_check_sayf(&c, false, "", "the log", "%llu bytes are not in the index yet: the next start replays them",
                      (unsigned long long)(end - ckpt.applied));
    a->stat->shards++;
    tb_check_model_free(&c);
    return c.no_memory ? tb_error_set(err, TB_LIMIT, ENOMEM, "store %s is too large to be checked", a->dir) : TB_OK;
}

/* ---- across shards ---- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void only_in(struct check_all *a, const struct tb_vec *these, const struct tb_vec *those, bool damage,
                    const char *what)
{
    struct tb_check_shard c = {.opt = a->opt, .stat = a->stat};
    const uint64_t *v = these->v;
    for (size_t i = 0; i < these->n; i++) {
        char object[64];
        if (those->n > 0 && bsearch(&v[i], those->v, those->n, sizeof(*v), by_number) != NULL)
            continue;
        c.shard = (uint32_t)(v[i] >> 32);
        (void)snprintf(object, sizeof(object), "account %u", (uint32_t)v[i]);
        tb_check_say(&c, damage, object, what, damage ? "restore it from a backup, or delete it" : "");
    }
}

static void compare(struct check_all *a)
{
    if (!a->comparable)
        return;
    if (a->place.n > 0)
        qsort(a->place.v, a->place.n, sizeof(uint64_t), by_number);
    if (a->acct.n > 0)
        qsort(a->acct.v, a->acct.n, sizeof(uint64_t), by_number);
    only_in(a, &a->place, &a->acct, true, "it has a name and a place, but its shard does not know it");
    only_in(a, &a->live, &a->place, false, "it has no name: a crash left it half made or half deleted");
}

/* ---- the store ---- */

enum tb_rc tb_check_lock(struct tb_io *io, const char *dir, int *fd, struct tb_error *err)
{
    char path[TB_PATH + 16];
    (void)snprintf(path, sizeof(path), "%.990s/LOCK", dir);
    *fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (*fd == -ENOENT)
        return TB_OK; /* it was never opened */
    if (*fd < 0)
        return tb_error_set(err, TB_IO, -*fd, "%s cannot be opened", path);
    int rc = tb_io_lock(io, *fd);
    return rc == 0 ? TB_OK : tb_error_set(err, rc == -EAGAIN ? TB_BUSY : TB_IO, 0, "store %s is in use", dir);
}

enum tb_rc tb_store_check(struct tb_io *io, const char *dir, const struct tb_check_options *opt,
                          struct tb_check_stat *stat, struct tb_error *err)
{
    struct check_all a = {.io = io, .dir = dir, .opt = opt, .stat = stat, .comparable = true};
    int fd = -1;
    memset(stat, 0, sizeof(*stat));
    enum tb_rc rc = tb_super_load(io, dir, &a.super, err);
    if (rc == TB_OK)
        rc = tb_check_lock(io, dir, &fd, err);
    for (uint32_t i = 0; rc == TB_OK && i < a.super.shards; i++)
        rc = check_shard(&a, i, err);
    if (rc == TB_OK)
        compare(&a);
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    free(a.place.v);
    free(a.acct.v);
    free(a.live.v);
    return rc;
}

/* take_shards: a store of which some shards are worked on: SUPER and the lock. */
static enum tb_rc take_shards(struct tb_io *io, const char *dir, uint32_t shard, struct tb_disk_super *super, int *fd,
                              struct tb_error *err)
{
    enum tb_rc rc = tb_super_load(io, dir, super, err);
    if (rc == TB_OK && shard != TB_EVERY_SHARD && shard >= super->shards)
        rc = tb_error_set(err, TB_INVALID, 0, "store %s has shards 0 to %u", dir, super->shards - 1);
    return rc == TB_OK ? tb_check_lock(io, dir, fd, err) : rc;
}

enum tb_rc tb_store_compact(struct tb_io *io, const char *dir, uint32_t shard, struct tb_compacted *out,
                            struct tb_error *err)
{
    struct tb_disk_super super;
    int fd = -1;
    *out = (struct tb_compacted){0};
    enum tb_rc rc = take_shards(io, dir, shard, &super, &fd, err);
    for (uint32_t i = 0; rc == TB_OK && i < super.shards; i++) {
        char path[TB_PATH];
        if (shard != TB_EVERY_SHARD && i != shard)
            continue;
        (void)snprintf(path, sizeof(path), "%.990s/shard-%02x", dir, i);
        rc = tb_compact_shard(io, path, out, err);
    }
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    return rc;
}

static void quarantined(void *user, const struct tb_finding *f)
{
    struct tb_salvaged *out = user;
    out->quarantined += strncmp(f->object, "stored message", 14) == 0;
    out->lost += strncmp(f->object, "message ", 8) == 0;
}

/* put_right: counters and references as the rows say; messages without bytes out, or in quarantine. */
static enum tb_rc put_right(struct tb_io *io, const char *dir, struct tb_salvaged *out, struct tb_error *err)
{
    struct tb_check_options told = {.user = out, .found = quarantined}, quiet = {0};
    struct tb_check_stat stat;
    enum tb_rc rc = tb_store_repair(io, dir, &told, err);
    if (rc == TB_OK)
        rc = tb_store_check(io, dir, &quiet, &stat, err);
    if (rc == TB_OK)
        out->messages = stat.messages;
    return rc;
}

enum tb_rc tb_store_salvage(struct tb_io *io, const char *dir, uint32_t shard, struct tb_salvaged *out,
                            struct tb_error *err)
{
    struct tb_disk_super super;
    int fd = -1;
    *out = (struct tb_salvaged){0};
    enum tb_rc rc = take_shards(io, dir, shard, &super, &fd, err);
    for (uint32_t i = super.shards; rc == TB_OK && i-- > 0;) { /* the directory's last: it asks the others */
        char path[TB_PATH], log_dir[TB_PATH + 8];
        if (shard != TB_EVERY_SHARD && i != shard)
            continue;
        (void)snprintf(path, sizeof(path), "%.900s/shard-%02x", dir, i);
        struct tb_log_config cfg = tb_check_log_config(io, &super, path, i, log_dir);
        rc = tb_index_rebuild(io, &cfg, path, err);
        struct tb_error found;
        if (rc == TB_CORRUPT && tb_index_sound(io, path, &found))
            rc = TB_OK; /* it cannot be made again, and need not be */
        if (rc == TB_CORRUPT)
            rc = tb_index_salvage(io, &cfg, path, dir, super.shards, out, err);
    }
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    return rc == TB_OK ? put_right(io, dir, out, err) : rc;
}

enum tb_rc tb_store_rebuild(struct tb_io *io, const char *dir, uint32_t shard, struct tb_error *err)
{
    struct tb_disk_super super;
    int fd = -1;
    enum tb_rc rc = take_shards(io, dir, shard, &super, &fd, err);
    for (uint32_t i = 0; rc == TB_OK && i < super.shards; i++) {
        char path[TB_PATH], log_dir[TB_PATH + 8];
        if (shard != TB_EVERY_SHARD && i != shard)
            continue;
        (void)snprintf(path, sizeof(path), "%.990s/shard-%02x", dir, i);
        struct tb_log_config cfg = tb_check_log_config(io, &super, path, i, log_dir);
        rc = tb_index_rebuild(io, &cfg, path, err);
    }
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    return rc;
}
