/*
 * scrub.c: reading everything a shard keeps, slowly and for ever, so that what rots is found while a copy of it is
 * still good: every frame of every segment, then every page and value of the index's confirmed snapshot, past the page
 * cache.
 *
 *   IDLE --due or asked--> LOG --a hole--> FIND (whose bytes were those?) --> PROVE each --> LOG --last segment-->
 *   INDEX --> IDLE
 *
 * A hole in the log costs only what still lies in it: rows that point there are looked up, each piece is read and
 * checked by itself, and bad ones go into quarantine. Damage in the index fails the shard closed, so that it is made
 * again (rebuild.h). Reads run on a helper, at most a MiB at a time; the rate follows from scrub_days. Where a round
 * stands is kept in a file, not synced: losing it costs reading a part twice. Never: a write to what it reads; a
 * snapshot held longer than an index takes to read at INDEX_RATE. Thread: the shard's owner, but for *_work.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/index/walk.h"
#include "engine/log/survey.h"
#include "engine/store/check.h"

enum {
    SLICE = 1 << 20,
    INDEX_PAGES = 256,
    INDEX_RATE = 32 << 20,
    RATE_MIN = 256 << 10,
    FIND_ROWS = 400,
    SUSPECTS_MAX = 4096,
    DAY_S = 86400,
    WAIT_NS = 50000000
};
#define SECOND_NS 1000000000ull
#define SCRUB_MAGIC "TAMBOSCR"

struct disk_scrub { /* the file: a hint, believed if its checksum is right */
    char magic[8];
    uint32_t crc, segment;
    int64_t started, finished; /* this round, the last whole one; seconds since 1970 */
};

enum scrub_phase { SCRUB_IDLE, SCRUB_LOG, SCRUB_FIND, SCRUB_PROVE, SCRUB_INDEX };

struct suspect {
    struct tb_disk_piece piece;
    uint64_t blob;
    uint32_t number;
};

struct tb_scrub {
    struct tb_shard *s;
    enum scrub_phase phase;
    bool busy, asked, again; /* an op is under way; somebody waits for this round; and for one more */
    struct tb_op op;
    uint64_t next_ns, step_bytes, round_bytes;
    struct disk_scrub at;
    uint64_t damage, rounds;
    /* LOG */
    struct tb_survey *survey; /* owned */
    uint64_t pinned;          /* a position in the segment that is pinned; 0: none */
    uint64_t end;             /* of what is looked at in it */
    bool seals, sealed_segment;
    bool leave, paced; /* the segment is not worth reading on; the op under way is a pause of log_step's */
    struct tb_survey_frame frame;
    enum tb_rc rc;
    /* FIND, PROVE */
    uint64_t from, to, next_blob;
    struct suspect *suspect; /* owned */
    size_t suspects, proved;
    bool too_many;
    char *buf; /* owned */
    /* INDEX */
    struct tb_snapshot *snap;
    struct tb_walk *walk; /* owned */
    int fd;
    uint8_t meta[TB_META_BYTES];
    char first[200]; /* finding */
};

static void step(struct tb_scrub *c);

/* ---- the file ---- */

static void at_path(const struct tb_scrub *c, char out[TB_PATH + 16])
{
    (void)snprintf(out, TB_PATH + 16, "%.990s/SCRUB", c->s->dir);
}

static void at_load(struct tb_scrub *c)
{
    char path[TB_PATH + 16];
    struct tb_io *io = c->s->worker->io;
    struct disk_scrub d;
    at_path(c, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return; /* the first round */
    int64_t n = tb_io_pread(io, fd, &d, sizeof(d), 0);
    (void)tb_io_file_close(io, fd); /* read only */
    uint32_t want = d.crc;
    d.crc = 0;
    if (n == (int64_t)sizeof(d) && memcmp(d.magic, SCRUB_MAGIC, 8) == 0 && tb_crc32c(0, &d, sizeof(d)) == want)
        c->at = d;
}

static void at_save(struct tb_scrub *c)
{
    char path[TB_PATH + 16];
    struct tb_io *io = c->s->worker->io;
    memcpy(c->at.magic, SCRUB_MAGIC, 8);
    c->at.crc = 0;
    c->at.crc = tb_crc32c(0, &c->at, sizeof(c->at));
    at_path(c, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (fd < 0)
        return; /* a hint: the next round begins at its beginning */
    (void)tb_io_pwrite(io, fd, &c->at, sizeof(c->at), 0);
    (void)tb_io_file_close(io, fd);
}

/* ---- life ---- */

enum tb_rc tb_scrub_open(struct tb_shard *s, struct tb_error *err)
{
    s->scrub = calloc(1, sizeof(*s->scrub));
    if (s->scrub == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %s", s->dir);
    s->scrub->s = s;
    s->scrub->fd = -1;
    at_load(s->scrub);
    return TB_OK;
}

/* rest: nothing is held any more: no segment, no snapshot, no memory of a round. */
static void rest(struct tb_scrub *c)
{
    tb_survey_close(c->survey);
    c->survey = NULL;
    if (c->pinned != 0)
        tb_pin_segment_remove(&c->s->pins, c->pinned);
    c->pinned = 0;
    tb_walk_free(c->walk);
    c->walk = NULL;
    if (c->snap != NULL)
        tb_index_snapshot_end(c->snap);
    c->snap = NULL;
    if (c->fd >= 0)
        (void)tb_io_file_close(c->s->worker->io, c->fd); /* read only */
    c->fd = -1;
    free(c->suspect);
    c->suspect = NULL;
    free(c->buf);
    c->buf = NULL;
    c->phase = SCRUB_IDLE;
}

void tb_scrub_close(struct tb_shard *s)
{
    if (s->scrub == NULL)
        return;
    rest(s->scrub);
    free(s->scrub);
    s->scrub = NULL;
}

void tb_scrub_cancel(struct tb_shard *s)
{
    if (s->scrub != NULL && s->scrub->busy)
        tb_io_cancel(s->worker->io, &s->scrub->op);
}

bool tb_scrub_quiet(const struct tb_shard *s)
{
    return s->scrub == NULL || !s->scrub->busy;
}

/* over: may nothing more be begun? */
static bool over(struct tb_scrub *c)
{
    c->busy = false;
    if (!c->s->failed && !c->s->stopping && !c->s->worker->closing)
        return false;
    rest(c);
    return true;
}

static void later_done(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    c->paced = false;
    if (!over(c))
        step(c);
}

static void later(struct tb_scrub *c, uint64_t ns)
{
    c->busy = true;
    c->op = (struct tb_op){.done = later_done, .user = c};
    tb_io_timer(c->s->worker->io, &c->op, ns);
}

static void offload(struct tb_scrub *c, void (*work)(struct tb_op *op), void (*done)(struct tb_op *op))
{
    c->busy = true;
    c->op = (struct tb_op){.done = done, .user = c};
    tb_io_offload(c->s->worker->io, &c->op, work);
}

/* pace: go on when the bytes of the last step have been paid for. */
static void pace(struct tb_scrub *c, uint64_t rate_min)
{
    uint64_t now = tb_io_now_ns(c->s->worker->io), days = c->s->store->cfg.scrub_days;
    uint64_t rate = days > 0 ? 2 * c->round_bytes / (days * DAY_S) : 0;
    rate = rate > rate_min ? rate : rate_min;
    if (c->next_ns < now)
        c->next_ns = now;
    if (!c->asked && !c->leave)
        c->next_ns += c->step_bytes * SECOND_NS / rate;
    c->step_bytes = 0;
    c->paced = true;
    later(c, c->next_ns - now);
}

/* ---- the log ---- */

static void survey_work(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    uint64_t before = tb_survey_read_bytes(c->survey), now;
    do {
        c->rc = tb_survey_next(c->survey, &c->frame);
        if (c->rc == TB_OK)
            c->seals = c->frame.head.flags & TB_FRAME_SEALS;
        now = tb_survey_read_bytes(c->survey);
    } while ((c->rc == TB_OK || c->rc == TB_BUSY) && now - before < SLICE && !c->seals);
    c->step_bytes = now - before;
    op->result = 0;
}

static void segment_done(struct tb_scrub *c)
{
    tb_survey_close(c->survey);
    c->survey = NULL;
    tb_pin_segment_remove(&c->s->pins, c->pinned);
    c->pinned = 0;
    c->at.segment++;
    c->leave = false;
    at_save(c);
}

/* hole: bytes that should be frames and are not. */
static void hole(struct tb_scrub *c, uint64_t from, uint64_t to)
{
    uint64_t segment_bytes = c->s->x.segment_bytes, end = (to - 1) % segment_bytes + 1;
    c->damage++;
    tb_log(TB_LOG_ERROR,
           "alert: shard=%u log segment %08x is damaged: bytes %llu to %llu hold no valid frame%s%s; messages that lie "
           "there are looked for; next: run `tambo check`, look at the disk",
           c->s->number, (unsigned)(from / segment_bytes), (unsigned long long)(from % segment_bytes),
           (unsigned long long)end, c->frame.sys ? ": " : "", c->frame.sys ? strerror(c->frame.sys) : "");
    c->from = from;
    c->to = to;
    c->next_blob = 0;
    c->suspects = c->proved = 0;
    c->too_many = false;
    c->phase = SCRUB_FIND;
}

static void survey_done(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    if (over(c))
        return;
    if (c->rc == TB_CORRUPT) {
        hole(c, c->frame.lsn, c->frame.lsn + c->frame.len);
    } else if (c->rc == TB_NOTFOUND || c->rc == TB_LIMIT || c->seals) {
        uint64_t reached = c->seals && c->rc == TB_OK ? c->end : c->frame.lsn;
        bool short_of = c->rc == TB_NOTFOUND && (c->sealed_segment ? !c->seals : reached < c->end);
        uint64_t end = c->end;
        segment_done(c);
        if (short_of)
            hole(c, reached, end);
    }
    pace(c, RATE_MIN);
}

static void index_begin(struct tb_scrub *c);

static void log_step(struct tb_scrub *c)
{
    struct tb_shard *s = c->s;
    char dir[TB_PATH + 8];
    struct tb_error err = {0};
    uint32_t segment;
    uint64_t durable = tb_log_durable(s->log);
    if (c->survey != NULL && c->leave)
        segment_done(c);
    if (c->survey != NULL) {
        offload(c, survey_work, survey_done);
        return;
    }
    if (!tb_log_next_segment(s->log, c->at.segment, &segment) || (uint64_t)segment * s->x.segment_bytes >= durable) {
        index_begin(c);
        return;
    }
    c->at.segment = segment;
    c->pinned = (uint64_t)segment * s->x.segment_bytes;
    if (!tb_pin_segment_add(&s->pins, c->pinned)) {
        c->pinned = 0;
        later(c, SECOND_NS);
        return;
    }
    uint64_t base = c->pinned;
    c->sealed_segment = durable >= base + s->x.segment_bytes;
    c->end = c->sealed_segment ? base + s->x.segment_bytes : durable;
    c->seals = false;
    struct tb_log_config cfg = tb_check_log_config(s->worker->io, &s->store->super, s->dir, s->number, dir);
    enum tb_rc rc = tb_survey_open(&cfg, segment, 0, c->sealed_segment ? 0 : c->end, true, &c->survey, &err);
    if (rc != TB_OK) {
        c->damage++;
        tb_log(TB_LOG_ERROR, "alert: shard=%u %s; next: run `tambo check --repair`", s->number, err.text);
    }
    if (c->survey == NULL)
        segment_done(c);
    later(c, 0);
}

/* ---- whose bytes were those? ---- */

static void suspect_add(struct tb_scrub *c, uint64_t blob, uint32_t number, const struct tb_disk_piece *p)
{
    if (p->clen == 0 || p->lsn >= c->to || p->lsn + p->clen <= c->from)
        return;
    if (c->suspect == NULL)
        c->suspect = malloc(SUSPECTS_MAX * sizeof(*c->suspect));
    if (c->suspect == NULL || c->suspects == SUSPECTS_MAX) {
        c->too_many = true;
        return;
    }
    c->suspect[c->suspects++] = (struct suspect){*p, blob, number};
}

/* find_step: a few rows of the blobs; all of them, when the last has been seen. */
static void find_step(struct tb_scrub *c)
{
    struct tb_index *ix = c->s->ix;
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u64(&key, c->next_blob);
    unsigned rows = 0;
    bool more = tb_index_ge(ix, TB_DB_BLOB, tb_key_slice(&key), 0, &k, &v);
    for (; more && rows < FIND_ROWS && k.len == 8; rows++) {
        struct tb_blob_row row = {0};
        uint64_t blob = tb_get_be64(k.ptr);
        memcpy(&row, v.ptr, v.len < sizeof(row) ? v.len : sizeof(row));
        suspect_add(c, blob, 0, &row.blob.head);
        if (row.blob.flags & TB_BLOB_OWN_BODY) {
            suspect_add(c, blob, 1, &row.own);
        } else {
            struct tb_disk_body body = {0};
            struct tb_disk_piece p;
            tb_key_begin(&key);
            tb_key_u64(&key, row.blob.body);
            if (tb_index_get(ix, TB_DB_BODY, tb_key_slice(&key), &v) && v.len >= sizeof(body))
                memcpy(&body, v.ptr, sizeof(body));
            for (uint32_t i = 0; i < body.pieces && tb_body_piece(ix, row.blob.body, &body, i, &p); i++, rows++)
                suspect_add(c, blob, i + 1, &p);
        }
        c->next_blob = blob + 1;
        more = tb_index_next(ix, TB_DB_BLOB, 0, &k, &v);
    }
    if (!more)
        c->phase = SCRUB_PROVE;
    later(c, 0);
}

static void prove_work(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    const struct suspect *x = &c->suspect[c->proved];
    free(c->buf);
    c->buf = malloc(x->piece.clen);
    op->result = c->buf == NULL ? -ENOMEM : tb_log_read_now(c->s->log, c->buf, x->piece.clen, x->piece.lsn, true);
    c->rc = op->result == -ENOMEM                                 ? TB_LIMIT
            : op->result != (int64_t)x->piece.clen                ? TB_IO
            : tb_crc32c(0, c->buf, x->piece.clen) != x->piece.crc ? TB_CORRUPT
                                                                  : TB_OK;
}

static void prove_done(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    if (over(c))
        return;
    const struct suspect *x = &c->suspect[c->proved++];
    struct tb_bad_seen seen = {.blob = x->blob,
                               .lsn = x->piece.lsn,
                               .piece = x->number,
                               .why = c->rc == TB_IO ? TB_BAD_READ : TB_BAD_CHECKSUM};
    if (c->rc == TB_IO || c->rc == TB_CORRUPT)
        tb_quarantine(c->s, &seen);
    c->step_bytes = x->piece.clen;
    pace(c, RATE_MIN);
}

static void prove_step(struct tb_scrub *c)
{
    if (c->proved < c->suspects) {
        offload(c, prove_work, prove_done);
        return;
    }
    if (c->too_many)
        tb_log(TB_LOG_WARN,
               "shard=%u there are more stored messages in that place than are looked at: run `tambo check`",
               c->s->number);
    free(c->suspect);
    c->suspect = NULL;
    c->suspects = c->proved = 0;
    c->phase = SCRUB_LOG;
    later(c, 0);
}

/* ---- the index ---- */

static int64_t index_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct tb_scrub *c = user;
    return tb_io_pread(c->s->worker->io, c->fd, buf, len, offset);
}

static void index_damage(void *user, enum tb_db db, const char *what)
{
    struct tb_scrub *c = user;
    c->damage++;
    if (c->first[0] == '\0')
        (void)snprintf(c->first, sizeof(c->first), "%s%s%.150s", db < TB_DBS ? tb_index_db_name(db) : "",
                       db < TB_DBS ? ": " : "", what);
}

static void index_begin(struct tb_scrub *c)
{
    struct tb_shard *s = c->s;
    char path[TB_PATH + 16];
    c->phase = SCRUB_INDEX;
    if (s->ckpt_phase != CKPT_IDLE || (c->snap = tb_index_snapshot_begin(s->ix, s->ckpt.txnid)) == NULL) {
        c->phase = SCRUB_LOG; /* again shortly: a checkpoint is under way */
        later(c, WAIT_NS);
        return;
    }
    memcpy(c->meta, s->ckpt.meta, sizeof(c->meta));
    (void)snprintf(path, sizeof(path), "%.990s/index.mdb", s->dir);
    c->fd = tb_io_file_open(s->worker->io, path, TB_OPEN_READ | TB_OPEN_DIRECT);
    if (c->fd == -EINVAL)
        c->fd = tb_io_file_open(s->worker->io, path, TB_OPEN_READ);
    struct tb_walk_config cfg = {.user = c, .read = index_read, .damage = index_damage};
    c->first[0] = '\0';
    c->walk = c->fd >= 0 ? tb_walk_new(&cfg, c->meta) : NULL;
    if (c->walk == NULL) {
        tb_log(TB_LOG_WARN, "shard=%u its index cannot be looked at now", s->number);
        rest(c);
        return;
    }
    later(c, 0);
}

static void walk_work(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    uint64_t before = tb_walk_stat(c->walk)->read_bytes;
    op->result = tb_walk_step(c->walk, INDEX_PAGES);
    c->step_bytes = tb_walk_stat(c->walk)->read_bytes - before;
}

static void round_done(struct tb_scrub *c)
{
    struct tb_shard *s = c->s;
    struct tb_error err;
    bool damaged = c->first[0] != '\0';
    rest(c);
    c->rounds++;
    c->asked = c->again;
    c->again = false;
    c->at.segment = 0;
    c->at.finished = tb_io_wall_s(s->worker->io);
    at_save(c);
    if (!damaged)
        return;
    (void)tb_error_set(&err, TB_CORRUPT, 0, "shard %s: a scrub found its index damaged: %s", s->dir, c->first);
    tb_shard_fail(s, &err);
}

static void walk_done(struct tb_op *op)
{
    struct tb_scrub *c = op->user;
    if (over(c))
        return;
    if (op->result)
        pace(c, INDEX_RATE);
    else
        round_done(c);
}

/* ---- driving ---- */

static void step(struct tb_scrub *c)
{
    switch (c->phase) {
    case SCRUB_IDLE:
        return;
    case SCRUB_LOG:
        log_step(c);
        return;
    case SCRUB_FIND:
        find_step(c);
        return;
    case SCRUB_PROVE:
        prove_step(c);
        return;
    case SCRUB_INDEX:
        offload(c, walk_work, walk_done);
        return;
    }
}

void tb_scrub_tick(struct tb_shard *s)
{
    struct tb_scrub *c = s->scrub;
    struct tb_log_stat log;
    uint64_t used, high;
    int64_t now = tb_io_wall_s(s->worker->io), days = s->store->cfg.scrub_days;
    if (c == NULL || c->busy || c->phase != SCRUB_IDLE || s->stopping)
        return;
    bool unfinished = c->at.started > c->at.finished;
    if (!c->asked && (days == 0 || (!unfinished && now < c->at.started + days * DAY_S)))
        return;
    if (!unfinished || c->asked) {
        c->at.segment = 0;
        c->at.started = now;
    }
    tb_log_stat(s->log, &log);
    tb_index_pages(s->ix, &used, &high);
    c->round_bytes = log.used_bytes + used * TB_BLOCK;
    c->phase = SCRUB_LOG;
    later(c, 0);
}

void tb_scrub_start(struct tb_worker *owner, uint32_t shard)
{
    struct tb_shard *s = tb_shard_of(owner, shard);
    if (s == NULL || s->failed || s->scrub == NULL)
        return;
    if (s->scrub->phase != SCRUB_IDLE) { /* who asks gets a whole round: after the one under way */
        s->scrub->again = !s->scrub->asked;
        s->scrub->asked = true;
        return;
    }
    s->scrub->asked = true;
    tb_scrub_tick(s);
}

void tb_scrub_leave(struct tb_shard *s, uint32_t segment)
{
    struct tb_scrub *c = s->scrub;
    if (c == NULL || c->phase != SCRUB_LOG || c->pinned == 0 || c->pinned / s->x.segment_bytes != segment || c->leave)
        return;
    c->leave = true;
    if (c->paced) {
        c->next_ns = 0; /* what was read of it need not be paid for first */
        tb_io_cancel(s->worker->io, &c->op);
    }
}

void tb_scrub_stat(struct tb_shard *s, struct tb_shard_stat *out)
{
    const struct tb_scrub *c = s->scrub;
    if (c == NULL)
        return;
    uint64_t at = (uint64_t)c->at.segment * s->x.segment_bytes, end = tb_log_end(s->log);
    out->scrub_running = c->asked || c->phase != SCRUB_IDLE;
    out->scrub_damage = c->damage;
    out->scrub_rounds = c->rounds;
    out->scrub_finished = c->at.finished;
    bool most = c->phase == SCRUB_INDEX || at >= end;
    out->scrub_percent = c->phase == SCRUB_IDLE ? 0 : most ? 99 : (uint32_t)(at * 99 / end);
}
