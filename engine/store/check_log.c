/*
 * check_log.c: every segment from end to end: frames, their chain, their records; and every piece that the index names,
 * against its own checksum, while its frame is at hand.
 *
 * Thread: the checker's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/check.h"

static const char restore[] = "restore it from a backup, or delete it";

struct log_check {
    struct tb_check_shard *c;
    const struct tb_log_config *cfg;
    const struct tb_disk_ckpt *ckpt;
    size_t next;          /* of the pieces, ascending by position */
    uint64_t end;         /* behind the last frame seen */
    uint32_t chain;       /* its crc */
    bool chained, sealed; /* the next frame must name it; it was its segment's last */
    uint32_t segment;     /* of the last frame */
    bool last_found;      /* the frame that the checkpoint names */
    uint64_t unfinished;  /* a segment without a seal ended here; 0: none did */
    char *buf;            /* owned: a piece read by itself */
};

static int by_lsn(const void *a, const void *b)
{
    const struct check_piece *x = a, *y = b;
    return x->lsn < y->lsn ? -1 : x->lsn > y->lsn;
}

static const char *object_at(char out[96], uint64_t lsn, uint64_t segment_bytes)
{
    (void)snprintf(out, 96, "log segment %08x at offset %llu", (unsigned)(lsn / segment_bytes),
                   (unsigned long long)(lsn % segment_bytes));
    return out;
}

/* ---- pieces ---- */

static void piece_bad(struct log_check *l, const struct check_piece *p, const char *why)
{
    char object[96];
    bool body = p->owner & TB_PIECE_OF_BODY;
    (void)snprintf(object, sizeof(object), "%s %llu", body ? "body" : "stored message",
                   (unsigned long long)(p->owner & ~TB_PIECE_OF_BODY));
    struct check_piece *kept = tb_vec_add(&l->c->bad, sizeof(*kept));
    l->c->stat->bad_pieces++;
    if (kept != NULL)
        *kept = *p;
    l->c->no_memory |= kept == NULL;
    tb_check_sayf(l->c, true, restore, object, "%s: %u bytes at log position %llu", why, p->clen,
                  (unsigned long long)p->lsn);
}

/* piece_alone: its frame is damaged or missing; is the piece itself still whole? */
static void piece_alone(struct log_check *l, const struct check_piece *p)
{
    char path[TB_PATH + 32];
    uint64_t segment = p->lsn / l->cfg->segment_bytes;
    (void)snprintf(path, sizeof(path), "%.990s/%08x.seg", l->cfg->dir, (unsigned)segment);
    int fd = tb_io_file_open(l->c->io, path, TB_OPEN_READ);
    if (fd < 0) {
        piece_bad(l, p, "its log segment cannot be opened");
        return;
    }
    free(l->buf);
    l->buf = malloc(p->clen);
    int64_t n = l->buf != NULL ? tb_io_pread(l->c->io, fd, l->buf, p->clen, p->lsn % l->cfg->segment_bytes) : 0;
    (void)tb_io_file_close(l->c->io, fd); /* read only */
    if (l->buf == NULL)
        l->c->no_memory = true;
    else if (n != p->clen)
        piece_bad(l, p, "it cannot be read");
    else if (tb_crc32c(0, l->buf, p->clen) != p->crc)
        piece_bad(l, p, "its checksum is wrong");
}

/* pieces_until: pieces that begin before a position: inside bytes (if there are any), or on their own. */
static void pieces_until(struct log_check *l, uint64_t stop, uint64_t lsn, const uint8_t *bytes)
{
    const struct check_piece *v = l->c->piece.v;
    for (; l->next < l->c->piece.n && v[l->next].lsn < stop; l->next++) {
        const struct check_piece *p = &v[l->next];
        if (bytes == NULL || p->lsn < lsn || p->lsn + p->clen > stop)
            piece_alone(l, p);
        else if (tb_crc32c(0, bytes + (p->lsn - lsn), p->clen) != p->crc)
            piece_bad(l, p, "its checksum is wrong");
    }
}

/* ---- frames ---- */

static enum tb_rc record_seen(void *user, const struct tb_record *r)
{
    struct log_check *l = user;
    (void)r;
    l->c->stat->log_records++;
    return TB_OK;
}

static const char *next_of(const struct log_check *l, uint64_t lsn)
{
    return lsn >= l->ckpt->applied
               ? "keep a copy of the store; restore the newest backup (tambo restore), it loses least; without one, "
                 "`tambo check --truncate` gives up what lies behind"
               : "the index holds what it said; see its messages";
}

static void frame_seen(struct log_check *l, const struct tb_survey_frame *f)
{
    char object[96];
    struct tb_error err = {0};
    (void)object_at(object, f->lsn, l->cfg->segment_bytes);
    if (l->unfinished != 0) {
        tb_check_say(l->c, true, object_at(object, l->unfinished, l->cfg->segment_bytes),
                     "the end of the segment is missing, and the log goes on behind it", next_of(l, l->unfinished));
        l->c->stat->log_damaged |= l->unfinished >= l->ckpt->applied;
        l->chained = false;
        l->unfinished = 0;
    }
    if (l->chained && f->head.chain != l->chain) {
        tb_check_say(l->c, true, object, "the frame does not continue the one before it", next_of(l, f->lsn));
        l->c->stat->log_damaged |= f->lsn >= l->ckpt->applied;
    }
    if (tb_survey_records(f, record_seen, l, &err) != TB_OK)
        tb_check_say(l->c, true, object, err.text, next_of(l, f->lsn));
    l->c->stat->log_frames++;
    pieces_until(l, f->lsn + f->len, f->lsn, f->bytes);
    l->last_found |= f->lsn == l->ckpt->last && f->head.crc == l->ckpt->chain;
    l->chain = f->head.crc;
    l->chained = true;
    l->sealed = f->head.flags & TB_FRAME_SEALS;
    l->end = f->lsn + f->len;
    l->segment = (uint32_t)(f->lsn / l->cfg->segment_bytes);
}

static void hole_seen(struct log_check *l, const struct tb_survey_frame *f)
{
    char object[96];
    tb_check_sayf(l->c, true, next_of(l, f->lsn), object_at(object, f->lsn, l->cfg->segment_bytes),
                  "%llu bytes hold no valid frame%s%s", (unsigned long long)f->len, f->sys ? ": " : "",
                  f->sys ? strerror(f->sys) : "");
    l->c->stat->log_damaged |= f->lsn >= l->ckpt->applied;
    pieces_until(l, f->lsn + f->len, 0, NULL);
    l->chained = false;
}

/* segment_end: no valid frame any more in this segment. */
static void segment_end(struct log_check *l, const struct tb_survey_frame *f, uint32_t segment)
{
    char object[96];
    if (f->sys != 0)
        tb_check_sayf(l->c, true, "look at the disk", object_at(object, f->lsn, l->cfg->segment_bytes),
                      "it cannot be read: %s", strerror(f->sys));
    if (l->unfinished == 0 && (l->segment != segment || !l->sealed))
        l->unfinished = l->segment == segment ? l->end : f->lsn;
}

static void segment_check(struct log_check *l, uint32_t segment)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    struct tb_error err = {0};
    char object[96];
    enum tb_rc rc = tb_survey_open(l->cfg, segment, 0, l->c->log_end, false, &s, &err);
    (void)object_at(object, (uint64_t)segment * l->cfg->segment_bytes, l->cfg->segment_bytes);
    if (rc != TB_OK)
        tb_check_say(l->c, true, object, err.text, "run `tambo check --repair`");
    if (s == NULL)
        return;
    l->c->stat->log_segments++;
    while ((rc = tb_survey_next(s, &f)) != TB_NOTFOUND && rc != TB_LIMIT)
        if (rc == TB_OK)
            frame_seen(l, &f);
        else if (rc == TB_CORRUPT)
            hole_seen(l, &f);
    if (rc == TB_NOTFOUND)
        segment_end(l, &f, segment);
    l->c->stat->read_bytes += tb_survey_read_bytes(s);
    tb_survey_close(s);
}

/* log_end: what must have been met on the way. */
static void log_end(struct log_check *l)
{
    char object[96];
    uint64_t pad = l->cfg->pad_bytes > TB_BLOCK ? l->cfg->pad_bytes : TB_BLOCK;
    if (l->sealed)
        l->end = (uint64_t)(l->segment + 1) * l->cfg->segment_bytes + pad;
    if (l->ckpt->last != 0 && (!l->last_found || l->end < l->ckpt->applied)) {
        tb_check_sayf(l->c, true, "run `tambo rebuild-index`", object_at(object, l->end, l->cfg->segment_bytes),
                      "the log ends here, the index already holds it up to position %llu",
                      (unsigned long long)l->ckpt->applied);
        l->c->stat->log_damaged = true;
    }
}

/* gap: a segment that is not there has been freed, which no checkpoint may still need. */
static void gap(struct log_check *l, uint32_t segment)
{
    char object[96];
    l->chained = false;
    if (segment < l->ckpt->applied / l->cfg->segment_bytes)
        return;
    tb_check_say(l->c, true, object_at(object, (uint64_t)segment * l->cfg->segment_bytes, l->cfg->segment_bytes),
                 "the segment is missing, and there are later ones",
                 next_of(l, (uint64_t)segment * l->cfg->segment_bytes));
    l->c->stat->log_damaged = true;
}

void tb_check_log(struct tb_check_shard *c, const struct tb_log_config *cfg, const struct tb_disk_ckpt *ckpt,
                  uint64_t *end)
{
    struct log_check l = {.c = c, .cfg = cfg, .ckpt = ckpt};
    uint32_t *segments = NULL;
    size_t n = 0;
    int rc = tb_survey_segments(cfg, &segments, &n);
    if (rc < 0)
        tb_check_say(c, true, cfg->dir, strerror(-rc), "look at the disk");
    if (c->piece.n > 0)
        qsort(c->piece.v, c->piece.n, sizeof(struct check_piece), by_lsn);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && segments[i] != segments[i - 1] + 1)
            gap(&l, segments[i - 1] + 1);
        pieces_until(&l, (uint64_t)segments[i] * cfg->segment_bytes, 0, NULL);
        segment_check(&l, segments[i]);
    }
    pieces_until(&l, UINT64_MAX, 0, NULL);
    log_end(&l);
    *end = l.end;
    free(l.buf);
    free(segments);
}
