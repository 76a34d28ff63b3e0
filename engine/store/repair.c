/*
 * repair.c: what can be put right in a store that nobody has open, in the order of trust: segment headers from their
 * frames, a damaged index from its copy and the log, counters from the rows, and stored messages that are bad into
 * quarantine. What a row names and nobody has is taken out and said.
 *
 * Must never: change a UID, a UIDVALIDITY or a message, or give up log that was acknowledged. Counters are written into
 * the index directly, under a checkpoint: they are derived, so the log has no record of them. Thread: the caller's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/apply.h"
#include "engine/store/check.h"
#include "engine/store/rebuild.h"

enum { PASSES = 3 };

struct repair {
    struct tb_io *io;
    const char *dir;
    const struct tb_check_options *opt;
    struct tb_check_stat *stat; /* of the last look */
};

static void told(const struct repair *r, uint32_t shard, const char *object, const char *what)
{
    struct tb_finding f = {.shard = shard, .object = object, .what = what, .next = "", .repaired = true};
    if (r->opt->found != NULL)
        r->opt->found(r->opt->user, &f);
}

/* ---- the log's headers, the index's pages ---- */

static enum tb_rc mend_headers(const struct repair *r, const struct tb_log_config *cfg)
{
    uint32_t *segments = NULL;
    size_t n = 0;
    if (tb_survey_segments(cfg, &segments, &n) < 0)
        return TB_IO;
    for (size_t i = 0; i < n; i++) {
        struct tb_survey *s = NULL;
        struct tb_error err = {0};
        char object[64];
        enum tb_rc rc = tb_survey_open(cfg, segments[i], 0, 0, false, &s, &err);
        tb_survey_close(s);
        (void)snprintf(object, sizeof(object), "log segment %08x", segments[i]);
        if (rc == TB_CORRUPT && tb_survey_mend(cfg, segments[i], &err) == TB_OK)
            told(r, cfg->shard, object, "its header was written anew");
    }
    free(segments);
    return TB_OK;
}

static enum tb_rc sound_index(const struct repair *r, const struct tb_log_config *cfg, const char *shard_dir,
                              struct tb_error *err)
{
    struct tb_error why = {0};
    if (tb_index_sound(r->io, shard_dir, &why))
        return TB_OK;
    enum tb_rc rc = tb_index_rebuild(r->io, cfg, shard_dir, err);
    if (rc == TB_OK)
        told(r, cfg->shard, "index", "it was made again");
    return rc;
}

/* ---- counters ---- */

static enum tb_edit drop_row(void *user, struct tb_disk_row *row)
{
    (void)user;
    (void)row;
    return TB_EDIT_REMOVE;
}

/* drop_dangling: a row whose stored message is nowhere; the change log tells clients that it went. */
static void drop_dangling(const struct repair *r, struct tb_shard *s, const struct check_row *d)
{
    char object[96];
    struct tb_range one = {d->uid, d->uid};
    struct tb_disk_mbox m;
    struct tb_disk_acct a;
    struct tb_slice leaf;
    char copy[TB_MBOX_LEAF_MAX];
    (void)snprintf(object, sizeof(object), "message %u of mailbox %u of account %u", d->uid, d->mbox, d->acct);
    if (!tb_mbox_get(s->ix, d->acct, d->mbox, &m, &leaf) || !tb_acct_get(s->ix, d->acct, &a) || leaf.len > sizeof(copy))
        return;
    size_t len = leaf.len;
    memcpy(copy, leaf.ptr, len);
    tb_rows_edit(s->ix, d->acct, d->mbox, &one, 1, drop_row, NULL);
    tb_cache_remove(s->ix, d->acct, d->mbox, &one, 1);
    m.highestmodseq = ++a.modseq;
    tb_chg_append(s->ix, d->acct, d->mbox, a.modseq, TB_CHG_EXPUNGE, &one, 1);
    tb_mbox_put(s->ix, d->acct, d->mbox, &m, copy, len);
    tb_acct_put(s->ix, d->acct, &a);
    told(r, s->number, object, "its bytes are nowhere: it was taken out");
}

static void recount_mailbox(struct tb_shard *s, const struct check_mbox *c)
{
    struct tb_disk_mbox m;
    struct tb_slice leaf;
    char copy[TB_MBOX_LEAF_MAX];
    if (!tb_mbox_get(s->ix, c->acct, c->mbox, &m, &leaf) || leaf.len > sizeof(copy))
        return;
    struct tb_disk_mbox was = m;
    size_t len = leaf.len;
    memcpy(copy, leaf.ptr, len);
    m.messages = c->messages;
    m.unseen = c->unseen;
    m.deleted = c->deleted;
    m.bytes = c->bytes;
    m.uidnext = c->uid_max >= m.uidnext ? c->uid_max + 1 : m.uidnext;
    m.highestmodseq = c->modseq > m.highestmodseq ? c->modseq : m.highestmodseq;
    if (m.uidvalidity > s->x.state.uidvalidity_max)
        s->x.state.uidvalidity_max = m.uidvalidity;
    if (memcmp(&was, &m, sizeof(m)) != 0)
        tb_mbox_put(s->ix, c->acct, c->mbox, &m, copy, len);
}

static void recount_accounts(struct tb_shard *s, const struct tb_check_shard *c)
{
    struct tb_disk_state *st = &s->x.state;
    const struct check_acct *v = c->acct.v;
    st->accounts = st->messages = st->raw_bytes = 0;
    for (size_t i = 0; i < c->acct.n; i++) {
        struct tb_disk_acct a;
        if (!tb_acct_get(s->ix, v[i].acct, &a))
            continue;
        struct tb_disk_acct was = a;
        a.modseq = v[i].modseq > a.modseq ? v[i].modseq : a.modseq;
        a.next_mbox = v[i].mbox_max >= a.next_mbox ? v[i].mbox_max + 1 : a.next_mbox;
        if (!(a.flags & TB_ACCT_DELETED)) {
            a.messages = v[i].messages;
            a.bytes = v[i].bytes;
            a.mailboxes = a.mailboxes != 0 ? v[i].mailboxes + 1 : 0;
            st->accounts++;
            st->messages += a.messages;
            st->raw_bytes += a.bytes;
        }
        if (memcmp(&was, &a, sizeof(a)) != 0)
            tb_acct_put(s->ix, v[i].acct, &a);
    }
}

static struct tb_key key_u64(uint64_t v)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, v);
    return k;
}

/* set_u32: a counter inside a value. */
static void set_u32(struct tb_shard *s, enum tb_db db, uint64_t id, size_t at, uint32_t n)
{
    char copy[TB_VALUE_MAX];
    struct tb_key k = key_u64(id);
    struct tb_slice v;
    if (!tb_index_get(s->ix, db, tb_key_slice(&k), &v) || v.len < at + sizeof(n))
        return;
    memcpy(copy, v.ptr, v.len);
    memcpy(copy + at, &n, sizeof(n));
    tb_index_put(s->ix, db, tb_key_slice(&k), tb_slice(copy, v.len));
}

static void recount_blobs(struct tb_shard *s, const struct tb_check_shard *c)
{
    const struct check_blob *b = c->blob.v;
    for (size_t i = 0; i < c->blob.n; i++) {
        if (b[i].blob >= s->x.state.next_blob)
            s->x.state.next_blob = b[i].blob + 1;
        if (b[i].refs == b[i].counted)
            continue;
        set_u32(s, TB_DB_BLOB, b[i].blob, offsetof(struct tb_disk_blob, refs), b[i].counted > 0 ? b[i].counted : 1);
        if (b[i].counted == 0)
            tb_apply_unref(&s->x, b[i].blob); /* nobody's: its space may come back */
    }
    const struct check_body *y = c->body.v;
    for (size_t i = 0; i < c->body.n; i++)
        if (y[i].refs != y[i].counted && y[i].counted > 0)
            set_u32(s, TB_DB_BODY, y[i].body, offsetof(struct tb_disk_body, refs), y[i].counted);
}

static void recount_segments(struct tb_shard *s, const struct tb_check_shard *c)
{
    const struct check_seg *v = c->seg.v;
    for (size_t i = 0; i < c->seg.n; i++) {
        struct tb_key k;
        struct tb_slice value;
        struct tb_disk_seg row;
        tb_key_begin(&k);
        tb_key_u32(&k, v[i].segment);
        if (v[i].live == v[i].counted || !tb_index_get(s->ix, TB_DB_SEG, tb_key_slice(&k), &value) ||
            value.len < sizeof(row))
            continue;
        memcpy(&row, value.ptr, sizeof(row));
        row.live = v[i].counted;
        row.total = row.total > row.live ? row.total : row.live;
        tb_index_put(s->ix, TB_DB_SEG, tb_key_slice(&k), tb_slice(&row, sizeof(row)));
    }
}

/* quarantine_bad: every stored message with a piece that is bad. */
static void quarantine_bad(const struct repair *r, struct tb_shard *s, const struct tb_check_shard *c)
{
    const struct check_piece *p = c->bad.v;
    const struct check_blob *b = c->blob.v;
    for (size_t i = 0; i < c->bad.n; i++)
        for (size_t k = 0; k < c->blob.n; k++) {
            bool body = p[i].owner & TB_PIECE_OF_BODY;
            struct tb_disk_bad known;
            struct tb_bad_seen seen = {.blob = b[k].blob, .lsn = p[i].lsn, .why = TB_BAD_CHECKSUM};
            char object[64];
            if ((body ? b[k].body : b[k].blob) != (p[i].owner & ~TB_PIECE_OF_BODY) || (body && b[k].body == 0) ||
                tb_quarantined(s, b[k].blob, &known))
                continue;
            seen.piece = tb_piece_number(s->ix, b[k].blob, p[i].lsn);
            tb_quarantine(s, &seen);
            (void)snprintf(object, sizeof(object), "stored message %llu", (unsigned long long)b[k].blob);
            told(r, s->number, object, "it is in quarantine");
        }
}

/*
 * recount: hold the shard's confirmed snapshot against itself and write what its rows say, until nothing is left that
 * counting can cure. The shard is open; nothing was changed in it since it was recovered.
 */
static enum tb_rc recount(const struct repair *r, struct tb_shard *s, struct tb_error *err)
{
    struct tb_check_options quiet = {0};
    enum tb_rc rc = TB_OK;
    for (unsigned pass = 0; rc == TB_OK && pass < PASSES; pass++) {
        struct tb_check_stat stat = {0};
        struct tb_check_shard c = {.opt = &quiet,
                                   .stat = &stat,
                                   .io = r->io,
                                   .dir = s->dir,
                                   .shard = s->number,
                                   .segment_bytes = s->x.segment_bytes,
                                   .applied = s->ckpt.applied};
        uint64_t end;
        char log_dir[TB_PATH + 8];
        struct tb_log_config cfg = tb_check_log_config(r->io, &s->store->super, s->dir, s->number, log_dir);
        cfg.epoch = s->epoch;
        tb_check_index(&c, s->dir, &s->ckpt);
        tb_check_model(&c);
        bool wrong = stat.damage > 0 && !c.broken && !c.no_memory;
        const struct check_row *d = c.dangling.v;
        for (size_t i = 0; wrong && i < c.dangling.n; i++)
            drop_dangling(r, s, &d[i]);
        const struct check_mbox *m = c.mbox.v;
        for (size_t i = 0; wrong && c.dangling.n == 0 && i < c.mbox.n; i++)
            recount_mailbox(s, &m[i]);
        if (wrong && c.dangling.n == 0) { /* else in the next pass: what was counted is not there any more */
            recount_accounts(s, &c);
            recount_blobs(s, &c);
            recount_segments(s, &c);
            told(r, s->number, "counters", "they were counted anew");
        }
        if (wrong)
            rc = tb_checkpoint_now(s, s->replayed, err);
        if (wrong && rc == TB_OK && tb_index_begin(s->ix) != TB_OK)
            rc = tb_error_set(err, TB_IO, 0, "shard %s: %s", s->dir, tb_index_error(s->ix));
        if (rc == TB_OK && (!wrong || pass + 1 == PASSES)) {
            tb_check_log(&c, &cfg, &s->ckpt, &end);
            quarantine_bad(r, s, &c);
            pass = PASSES;
        }
        tb_check_model_free(&c);
    }
    return rc;
}

/* ---- the store ---- */

static void stopped(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static enum tb_rc open_and_recount(const struct repair *r, struct tb_error *err)
{
    struct tb_store_config cfg = {.dir = r->dir, .workers = 1};
    struct tb_store *store = NULL;
    struct tb_worker *w = NULL;
    bool done = false;
    struct tb_op op = {.done = stopped, .user = &done};
    enum tb_rc rc = tb_store_open(r->io, &cfg, &store, err);
    if (rc == TB_OK)
        rc = tb_worker_open(store, 0, r->io, &w, err);
    for (uint32_t i = 0; rc == TB_OK && i < store->super.shards; i++)
        rc = recount(r, store->shard[i], err);
    if (rc == TB_OK) {
        tb_worker_stop(w, &op);
        while (!done)
            (void)tb_worker_turn(w, true);
    }
    if (w != NULL)
        tb_worker_close(w);
    tb_store_close(store);
    return rc;
}

enum tb_rc tb_store_repair(struct tb_io *io, const char *dir, const struct tb_check_options *opt, struct tb_error *err)
{
    struct repair r = {.io = io, .dir = dir, .opt = opt};
    struct tb_disk_super super;
    int fd = -1;
    enum tb_rc rc = tb_super_load(io, dir, &super, err);
    if (rc == TB_OK)
        rc = tb_check_lock(io, dir, &fd, err);
    for (uint32_t i = 0; rc == TB_OK && i < super.shards; i++) {
        char shard_dir[TB_PATH], log_dir[TB_PATH + 8];
        (void)snprintf(shard_dir, sizeof(shard_dir), "%.990s/shard-%02x", dir, i);
        struct tb_log_config cfg = tb_check_log_config(io, &super, shard_dir, i, log_dir);
        rc = mend_headers(&r, &cfg);
        if (rc == TB_OK)
            rc = sound_index(&r, &cfg, shard_dir, err);
    }
    if (fd >= 0)
        (void)tb_io_file_close(io, fd); /* and so unlocked */
    return rc == TB_OK ? open_and_recount(&r, err) : rc;
}
