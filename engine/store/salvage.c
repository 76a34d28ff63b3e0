/*
 * salvage.c: see salvage.h. Facts, then the log twice: once for what MOVED records tell, once to apply it; then what
 * the rest of the store needs of the shard, numbers far ahead (R14), and the new index in its place (compact.h).
 *
 * A frame is believed by its checksum, position and store alone: the chain from the one before may be broken. Must
 * never change anything before the new index is whole, but for an empty segment where the log must go on. Thread: the
 * caller's; blocks.
 */
#include "engine/store/salvage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/compact.h"
#include "engine/store/rebuild.h"

enum { COMMIT_PAGES = 8192 };

/* ---- the log, as far as it is there ---- */

struct passing {
    struct tb_salvage *g;
    enum tb_rc (*each)(void *user, const struct tb_record *r);
    bool applies;                 /* the second pass */
    struct tb_survey_frame last;  /* of all; bytes unused */
    struct tb_log_mark recovered; /* where the log goes on */
    const struct tb_log_config *cfg;
};

/* keep: what was applied so far leaves memory. */
static enum tb_rc keep(struct tb_salvage *g, bool now)
{
    uint64_t txnid;
    if (!now && g->x.dirty_pages < COMMIT_PAGES)
        return TB_OK;
    tb_apply_flush(&g->x, 0, 0);
    enum tb_rc rc = tb_index_commit(g->x.ix, &txnid);
    return rc == TB_OK ? tb_index_begin(g->x.ix) : rc;
}

static enum tb_rc one_frame(struct passing *p, const struct tb_survey_frame *f, struct tb_error *err)
{
    struct tb_error why = {0};
    if (p->applies && !p->g->index_done && f->lsn >= p->g->index_at)
        tb_salvage_indexed(p->g);
    enum tb_rc rc = tb_survey_records(f, p->each, p->g, &why);
    p->last = *f;
    if (p->applies) {
        tb_apply_frame_end(&p->g->x);
        p->g->out->unusable += rc == TB_CORRUPT;
        rc = rc == TB_CORRUPT || rc == TB_OK ? keep(p->g, false) : rc;
    }
    if (rc == TB_CORRUPT) /* a frame that contradicts itself: its other records count */
        rc = TB_OK;
    return rc == TB_OK ? rc : tb_error_set(err, rc, 0, "%s: %s", p->g->shard_dir, tb_rc_text(rc));
}

static enum tb_rc one_segment(struct passing *p, uint32_t segment, struct tb_error *err)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    struct tb_salvaged *out = p->g->out;
    enum tb_rc rc = tb_survey_open(p->cfg, segment, 0, 0, false, &s, err);
    if (s == NULL)
        return rc == TB_IO || rc == TB_NOTFOUND ? TB_OK : rc; /* it counts as missing */
    rc = TB_OK;
    while (rc == TB_OK) {
        enum tb_rc found = tb_survey_next(s, &f);
        if (found == TB_OK)
            rc = one_frame(p, &f, err);
        else if (found == TB_CORRUPT && p->applies) {
            out->holes++;
            out->hole_bytes += f.len;
        } else if (found == TB_LIMIT)
            rc = tb_error_set(err, TB_LIMIT, ENOMEM, "%s", p->g->shard_dir);
        if (found == TB_NOTFOUND)
            break;
    }
    tb_survey_close(s);
    return rc;
}

static enum tb_rc pass(struct passing *p, struct tb_error *err)
{
    uint32_t *segments = NULL;
    size_t n = 0;
    int listed = tb_survey_segments(p->cfg, &segments, &n);
    enum tb_rc rc = listed < 0 ? tb_error_set(err, TB_IO, -listed, "%s cannot be listed", p->cfg->dir) : TB_OK;
    for (size_t i = 0; rc == TB_OK && i < n; i++) {
        if (p->applies) {
            p->g->out->segments++;
            p->g->out->missing += segments[i] - (i > 0 ? segments[i - 1] : 0) - 1;
        }
        rc = one_segment(p, segments[i], err);
    }
    free(segments);
    return rc;
}

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

/* make_way: every segment from the last frame's on that recovery will look for: those that are missing are made. */
static enum tb_rc make_way(struct passing *p, struct tb_error *err)
{
    uint32_t *segments = NULL, first = (uint32_t)(p->last.lsn / p->cfg->segment_bytes) + 1, next = first;
    size_t n = 0;
    enum tb_rc rc = TB_OK;
    int listed = tb_survey_segments(p->cfg, &segments, &n);
    if (listed < 0)
        return tb_error_set(err, TB_IO, -listed, "%s cannot be listed", p->cfg->dir);
    for (size_t i = 0; rc == TB_OK && i < n; i++)
        for (; rc == TB_OK && next <= segments[i]; next++)
            rc = next < segments[i] ? tb_survey_make(p->cfg, next, err) : TB_OK;
    if (rc == TB_OK && p->last.head.flags & TB_FRAME_SEALS && next == first) /* it names one that is not there */
        rc = tb_survey_make(p->cfg, first, err);
    free(segments);
    return rc;
}

/* find_end: where the log goes on: as recovery will find it from the last frame. */
static enum tb_rc find_end(struct passing *p, struct tb_error *err)
{
    struct tb_log *log = NULL;
    struct tb_log_mark from = {.end = p->last.lsn, .chain = p->last.head.chain};
    enum tb_rc rc = make_way(p, err);
    if (rc == TB_OK)
        rc = tb_log_open(p->cfg, &log, err);
    if (rc == TB_OK)
        rc = tb_log_scan(log, from, any_record, frame_end, &p->recovered, err);
    tb_log_close(log);
    return rc;
}

/* ---- closing ---- */

static struct tb_key key_u32(uint32_t v)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, v);
    return k;
}

/* place: a name of shard 0's directory for an account that has none, without a password. */
static void place(struct tb_salvage *g, uint32_t shard, uint32_t acct, struct tb_slice name)
{
    struct tb_key k = key_u32(acct);
    struct tb_slice v;
    struct tb_pay_place p = {.shard = shard, .name_len = (uint16_t)name.len};
    char payload[sizeof(p) + TB_NAME_MAX], copy[TB_NAME_MAX];
    if (name.len == 0 || name.len > TB_NAME_MAX || tb_index_get(g->x.ix, TB_DB_PLACE, tb_key_slice(&k), &v))
        return;
    memcpy(copy, name.ptr, name.len);
    memcpy(payload, &p, sizeof(p));
    memcpy(payload + sizeof(p), copy, name.len);
    (void)tb_salvage_apply(g, TB_REC_PLACE, 0, acct, tb_slice(payload, sizeof(p) + name.len));
}

/* placed_here: accounts that the directory has in this shard are there, perhaps empty. */
static void placed_here(struct tb_salvage *g)
{
    const struct tb_salvage_fact *f = g->facts.v;
    struct tb_pay_place p;
    for (size_t i = 0; i < g->facts.n; i++) {
        if (f[i].db == TB_DB_ACCT && g->cfg->shard == 0 && f[i].shard != 0 && f[i].len > sizeof(struct tb_disk_acct)) {
            struct tb_disk_acct a;
            memcpy(&a, g->texts.ptr + f[i].at, sizeof(a));
            if (!(a.flags & TB_ACCT_DELETED))
                place(g, f[i].shard, (uint32_t)(f[i].key >> 32),
                      tb_slice(g->texts.ptr + f[i].at + sizeof(a), f[i].len - sizeof(a)));
        }
        if (f[i].db != TB_DB_PLACE || f[i].shard != 0 || f[i].len < sizeof(p))
            continue;
        memcpy(&p, g->texts.ptr + f[i].at, sizeof(p));
        if (p.shard == g->cfg->shard)
            (void)tb_salvage_account(g, (uint32_t)(f[i].key >> 32));
        if (g->cfg->shard == 0 &&
            p.name_len <= f[i].len - sizeof(p)) { /* with its secret, if that is not known better */
            struct tb_key k = key_u32((uint32_t)(f[i].key >> 32));
            struct tb_slice v, old = tb_slice(g->texts.ptr + f[i].at, f[i].len);
            if (!tb_index_get(g->x.ix, TB_DB_PLACE, tb_key_slice(&k), &v))
                (void)tb_salvage_apply(g, TB_REC_PLACE, 0, (uint32_t)(f[i].key >> 32), old);
        }
    }
}

static struct tb_slice account_name(struct tb_salvage *g, uint32_t acct)
{
    struct tb_key k = key_u32(acct);
    struct tb_slice v;
    if (!tb_index_get(g->x.ix, TB_DB_ACCT, tb_key_slice(&k), &v))
        return tb_slice(NULL, 0);
    return tb_slice_sub(v, sizeof(struct tb_disk_acct), TB_NAME_MAX);
}

/* uids_ahead: UIDNEXT as the old index had it, if that is more than the log says. */
static void uids_ahead(struct tb_salvage *g, uint32_t acct, uint32_t mbox)
{
    struct tb_disk_mbox was, m;
    struct tb_slice leaf, v;
    char name[TB_MBOX_LEAF_MAX];
    if (tb_salvage_fact(g, TB_DB_MBOX, (uint64_t)acct << 32 | mbox, &v) == NULL || v.len < sizeof(was))
        return;
    memcpy(&was, v.ptr, sizeof(was));
    if (!tb_mbox_get(g->x.ix, acct, mbox, &m, &leaf) || m.uidnext >= was.uidnext || leaf.len > sizeof(name))
        return;
    size_t len = leaf.len;
    memcpy(name, leaf.ptr, len);
    m.uidnext = was.uidnext;
    tb_mbox_put(g->x.ix, acct, mbox, &m, name, len);
}

static void each_mailbox(struct tb_salvage *g, uint32_t acct)
{
    struct tb_slice found, v;
    for (uint32_t mbox = 1; mbox != 0; mbox++) {
        struct tb_key k = key_u32(acct);
        tb_key_u32(&k, mbox);
        if (!tb_index_ge(g->x.ix, TB_DB_MBOX, tb_key_slice(&k), 4, &found, &v) || found.len != 8)
            return;
        mbox = tb_get_be32(found.ptr + 4);
        tb_salvage_publish(g, acct, mbox);
        uids_ahead(g, acct, mbox);
    }
}

/* each_account: INBOX, a place, and numbers far ahead. */
static void each_account(struct tb_salvage *g)
{
    const struct tb_pay_skip one = TB_SKIP_ACCOUNT;
    struct tb_slice found, v;
    for (uint32_t acct = 1; acct != 0; acct++) {
        struct tb_key k = key_u32(acct);
        struct tb_disk_acct a;
        if (!tb_index_ge(g->x.ix, TB_DB_ACCT, tb_key_slice(&k), 0, &found, &v) || found.len != 4)
            return;
        acct = tb_get_be32(found.ptr);
        if (!tb_acct_get(g->x.ix, acct, &a))
            return;
        (void)tb_salvage_mailbox(g, acct, TB_MBOX_INBOX);
        if (g->cfg->shard == 0 && !(a.flags & TB_ACCT_DELETED))
            place(g, 0, acct, account_name(g, acct));
        each_mailbox(g, acct);
        (void)tb_salvage_apply(g, TB_REC_SKIP, 0, acct, tb_slice(&one, sizeof(one)));
        g->acct_max = acct > g->acct_max ? acct : g->acct_max;
    }
}

/* drop_segments: counters of segments that are not there. */
static void drop_segments(struct tb_salvage *g)
{
    uint32_t *segments = NULL;
    size_t n = 0, i = 0;
    struct tb_slice found, v;
    if (tb_survey_segments(g->cfg, &segments, &n) < 0)
        return; /* GC finds out */
    for (uint32_t s = 1; s != 0; s++) {
        struct tb_key k = key_u32(s);
        if (!tb_index_ge(g->x.ix, TB_DB_SEG, tb_key_slice(&k), 0, &found, &v) || found.len != 4)
            break;
        s = tb_get_be32(found.ptr);
        while (i < n && segments[i] < s)
            i++;
        k = key_u32(s);
        if (i == n || segments[i] != s)
            tb_index_del(g->x.ix, TB_DB_SEG, tb_key_slice(&k));
    }
    free(segments);
}

/* count_homeless: stored messages that GC kept, and that nothing names. */
static void count_homeless(struct tb_salvage *g)
{
    const struct tb_salvage_blob *b = g->blobs.v;
    for (size_t i = 0; i < g->blobs.n; i++) {
        struct tb_key k;
        struct tb_slice v;
        tb_key_begin(&k);
        tb_key_u64(&k, b[i].blob);
        if ((i == 0 || b[i].blob != b[i - 1].blob) && !tb_index_get(g->x.ix, TB_DB_BLOB, tb_key_slice(&k), &v))
            g->out->homeless++;
    }
}

static enum tb_rc close_up(struct tb_salvage *g)
{
    const struct tb_pay_skip whole = TB_SKIP_SHARD;
    if (!g->index_done)
        tb_salvage_indexed(g);
    count_homeless(g);
    placed_here(g);
    each_account(g);
    if (g->uidvalidity > g->x.state.uidvalidity_max)
        g->x.state.uidvalidity_max = g->uidvalidity;
    if (g->acct_max >= g->x.state.next_acct)
        g->x.state.next_acct = g->acct_max + 1;
    (void)tb_salvage_apply(g, TB_REC_SKIP, 0, 0, tb_slice(&whole, sizeof(whole)));
    enum tb_rc rc = keep(g, true); /* the counters of segments are rows now */
    if (rc == TB_OK)
        drop_segments(g);
    return rc == TB_OK ? tb_index_rc(g->x.ix) : rc;
}

/* ---- all of it ---- */

/* write_index: the new file, synced. */
static enum tb_rc write_index(struct passing *p, const char *path, struct tb_disk_ckpt *ckpt, struct tb_error *err)
{
    struct tb_salvage *g = p->g;
    uint64_t next_blob = g->x.state.next_blob;
    enum tb_rc rc = tb_index_open(path, true, &g->x.ix, err);
    if (rc != TB_OK)
        return rc;
    tb_index_any_order(g->x.ix);
    rc = tb_index_begin(g->x.ix);
    p->applies = true;
    p->each = tb_salvage_record;
    if (rc == TB_OK)
        rc = pass(p, err);
    g->x.state.next_blob = g->x.state.next_blob > next_blob ? g->x.state.next_blob : next_blob;
    if (rc == TB_OK)
        rc = close_up(g);
    if (rc == TB_OK)
        rc = find_end(p, err);
    if (rc != TB_OK)
        return rc;
    tb_apply_flush(&g->x, p->recovered.end, p->recovered.chain);
    int fd = tb_io_file_open(g->io, path, TB_OPEN_WRITE), sync = fd < 0 ? fd : 0;
    *ckpt = (struct tb_disk_ckpt){.applied = p->recovered.end, .last = p->recovered.last, .chain = p->recovered.chain};
    rc = tb_index_commit(g->x.ix, &ckpt->txnid);
    if (rc == TB_OK && sync == 0)
        rc = tb_index_meta(g->x.ix, g->io, fd, ckpt->txnid, ckpt->meta);
    if (rc == TB_OK && sync == 0)
        sync = tb_io_sync(g->io, fd);
    if (fd >= 0)
        (void)tb_io_file_close(g->io, fd); /* it was synced */
    return sync < 0 ? tb_error_set(err, TB_IO, -sync, "%s cannot be written", path) : rc;
}

static void drop_lock(struct tb_io *io, const char *shard_dir)
{
    char path[TB_INDEX_PATH];
    (void)snprintf(path, sizeof(path), "%.990s/index.mdb.new-lock", shard_dir);
    (void)tb_io_unlink(io, path); /* LMDB's, disposable */
}

static void salvage_free(struct tb_salvage *g)
{
    tb_index_close(g->x.ix);
    free(g->x.seg);
    free(g->rows.v);
    free(g->blobs.v);
    free(g->lists.v);
    free(g->facts.v);
    tb_buf_free(&g->texts);
}

/* numbers: UIDVALIDITYs are given from above every one that can have been given: they follow the clock, or the highest
 * one by one, and a restore skips as far as this. */
static void numbers(struct tb_salvage *g)
{
    int64_t now = tb_io_wall_s(g->io);
    if (now > g->uidvalidity && now < UINT32_MAX)
        g->uidvalidity = (uint32_t)now;
    uint32_t left = (UINT32_MAX - g->uidvalidity) / 2, far = TB_SKIP_SHARD.uidvalidities;
    g->uidvalidity += far < left ? far : left;
}

enum tb_rc tb_index_salvage(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir, const char *dir,
                            uint32_t shards, struct tb_salvaged *out, struct tb_error *err)
{
    char path[TB_INDEX_PATH];
    uint8_t block[TB_BLOCK];
    struct tb_disk_ckpt was = {0}, ckpt;
    struct tb_error why;
    struct tb_salvage g = {.io = io, .cfg = cfg, .shard_dir = shard_dir, .dir = dir, .shards = shards, .out = out};
    struct passing p = {.g = &g, .cfg = cfg, .each = tb_salvage_told};
    g.x = (struct tb_applier){.segment_bytes = cfg->segment_bytes, .state = {.next_blob = 1, .next_acct = 1}};
    (void)tb_io_turn(io, false); /* the clock */
    (void)snprintf(path, sizeof(path), "%.990s/CKPT", shard_dir);
    if (tb_slot_read(io, path, tb_ckpt_check, block, &why) == TB_OK)
        memcpy(&was, block, sizeof(was));
    tb_salvage_facts(&g);
    enum tb_rc rc = pass(&p, err);
    if (rc == TB_OK && p.last.lsn == 0)
        rc = tb_error_set(err, TB_CORRUPT, 0, "log %s: nothing is left of it; restore a backup", cfg->dir);
    tb_salvage_sort(&g);
    numbers(&g);
    (void)snprintf(path, sizeof(path), "%.990s/index.mdb.new", shard_dir);
    (void)tb_io_unlink(io, path); /* debris of an attempt that a crash ended */
    if (rc == TB_OK && g.no_memory)
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "%s", shard_dir);
    if (rc == TB_OK) {
        err->text[0] = '\0';
        rc = write_index(&p, path, &ckpt, err);
        if (rc != TB_OK && err->text[0] == '\0')
            (void)tb_error_set(err, rc, 0, "%s: %s", path, g.x.ix ? tb_index_error(g.x.ix) : tb_rc_text(rc));
    }
    salvage_free(&g);
    drop_lock(io, shard_dir);
    if (rc == TB_OK && !tb_index_walks(io, path, ckpt.meta, err))
        rc = TB_CORRUPT;
    if (rc == TB_OK)
        rc = tb_compact_install(io, cfg, shard_dir, path, was.seq, &ckpt, err);
    out->shards += rc == TB_OK;
    return rc;
}
