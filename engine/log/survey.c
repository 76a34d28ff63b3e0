/*
 * survey.c: one segment read to its end through a sliding window. A read error makes zeros of the blocks it hits, so a
 * frame with an unreadable block is a hole like any other and what lies behind it is still found.
 *
 * Thread: any, one at a time.
 */
#include "engine/log/survey.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/log/segment.h"

enum { WINDOW = 4 << 20, SEARCH_STEP = 4 << 20, FRAME_MAX = 3 << 20 };

struct tb_survey {
    struct tb_log_config cfg;
    char dir[TB_PATH_MAX];
    uint32_t segment, seed;
    int fd;
    uint64_t at, end;  /* offsets in the segment */
    uint64_t hole;     /* where the hole under search begins; 0: none */
    uint64_t searched; /* no valid frame begins before it */
    uint8_t *buf;      /* owned, aligned */
    uint64_t buf_at;   /* offset of buf[0] */
    size_t buf_len;
    int sys; /* the first read error since the last valid frame */
    uint64_t read_bytes;
};

/* ---- segments ---- */

struct listing {
    uint32_t *v;
    size_t n, cap;
    bool failed;
};

static bool list_one(void *user, const char *name)
{
    struct listing *l = user;
    uint32_t number;
    bool spare;
    if (!tb_segment_number(name, &number, &spare) || spare)
        return true;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        uint32_t *v = realloc(l->v, cap * sizeof(*v));
        if (v == NULL) {
            l->failed = true;
            return false;
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = number;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int tb_survey_segments(const struct tb_log_config *cfg, uint32_t **out, size_t *n)
{
    struct listing l = {0};
    int rc = tb_io_list(cfg->io, cfg->dir, list_one, &l);
    if (rc < 0 || l.failed) {
        free(l.v);
        return rc < 0 ? rc : -ENOMEM;
    }
    if (l.n > 0)
        qsort(l.v, l.n, sizeof(*l.v), by_number);
    *out = l.v;
    *n = l.n;
    return 0;
}

/* ---- open ---- */

enum tb_rc tb_survey_open(const struct tb_log_config *cfg, uint32_t segment, uint64_t from, uint64_t end, bool direct,
                          struct tb_survey **out, struct tb_error *err)
{
    char path[TB_PATH_MAX];
    struct tb_survey *s = calloc(1, sizeof(*s));
    if (s == NULL || (s->buf = aligned_alloc(TB_BLOCK, WINDOW)) == NULL) {
        free(s);
        return tb_error_set(err, TB_LIMIT, ENOMEM, "log %s: no memory to read it", cfg->dir);
    }
    uint64_t base = (uint64_t)segment * cfg->segment_bytes;
    uint64_t first = cfg->pad_bytes > TB_BLOCK ? cfg->pad_bytes : TB_BLOCK;
    s->cfg = *cfg;
    (void)snprintf(s->dir, sizeof(s->dir), "%s", cfg->dir);
    s->cfg.dir = s->dir;
    s->segment = segment;
    s->seed = tb_crc32c(tb_crc32c(0, cfg->uuid, 16), &cfg->shard, 4);
    s->at = from > base + first ? from - base : first;
    s->end = end > base && end - base < cfg->segment_bytes ? end - base : cfg->segment_bytes;
    tb_segment_path(s->dir, segment, path);
    s->fd = tb_io_file_open(cfg->io, path, TB_OPEN_READ | (direct ? TB_OPEN_DIRECT : 0));
    if (s->fd < 0) {
        enum tb_rc rc = tb_error_set(err, s->fd == -ENOENT ? TB_NOTFOUND : TB_IO, -s->fd,
                                     "log segment %s cannot be opened", path);
        tb_survey_close(s);
        return rc;
    }
    *out = s;
    return tb_segment_check(cfg->io, &s->cfg, segment, err);
}

void tb_survey_close(struct tb_survey *s)
{
    if (s == NULL)
        return;
    if (s->fd >= 0)
        (void)tb_io_file_close(s->cfg.io, s->fd); /* read only */
    free(s->buf);
    free(s);
}

uint64_t tb_survey_read_bytes(const struct tb_survey *s)
{
    return s->read_bytes;
}

/* ---- the window ---- */

/* by_blocks: what a failed read can still get; zeros for the rest. */
static void by_blocks(struct tb_survey *s, uint64_t from, size_t len)
{
    for (size_t at = 0; at < len; at += TB_BLOCK) {
        int64_t n = tb_io_pread(s->cfg.io, s->fd, s->buf + at, TB_BLOCK, from + at);
        if (n == TB_BLOCK)
            continue;
        memset(s->buf + at, 0, TB_BLOCK);
        if (n < 0 && s->sys == 0)
            s->sys = (int)-n;
    }
}

/* bytes_at: n bytes at an offset; NULL past the segment's end. */
static const uint8_t *bytes_at(struct tb_survey *s, uint64_t offset, size_t n)
{
    if (n > WINDOW - TB_BLOCK || offset + n > s->cfg.segment_bytes)
        return NULL;
    if (offset < s->buf_at || offset + n > s->buf_at + s->buf_len) {
        uint64_t from = offset & ~(uint64_t)(TB_BLOCK - 1), left = s->cfg.segment_bytes - from;
        size_t want = left < WINDOW ? (size_t)left : WINDOW;
        int64_t got = tb_io_pread(s->cfg.io, s->fd, s->buf, want, from);
        if (got < (int64_t)want) /* an unreadable block, or a file that was cut */
            by_blocks(s, from, want);
        s->buf_at = from;
        s->buf_len = want;
        s->read_bytes += want;
    }
    return s->buf + (offset - s->buf_at);
}

/* frame_at: the valid frame at an offset, or NULL. */
static const uint8_t *frame_at(struct tb_survey *s, uint64_t offset, struct tb_disk_frame *h)
{
    if (offset + sizeof(*h) > s->end)
        return NULL;
    const uint8_t *p = bytes_at(s, offset, sizeof(*h));
    if (p == NULL)
        return NULL;
    memcpy(h, p, sizeof(*h));
    if (h->magic != TB_FRAME_MAGIC || h->lsn != (uint64_t)s->segment * s->cfg.segment_bytes + offset ||
        h->len < sizeof(*h) || h->len > FRAME_MAX || offset + h->len > s->end)
        return NULL;
    p = bytes_at(s, offset, h->len);
    return p != NULL && tb_crc32c(s->seed, p + 8, h->len - 8) == h->crc ? p : NULL;
}

/* search: the next offset >= searched where a frame may begin, or the end of this step. */
static bool search(struct tb_survey *s, uint64_t stop)
{
    static const uint8_t magic[4] = {0x54, 0x42, 0x46, 0x31}; /* TB_FRAME_MAGIC, little-endian */
    struct tb_disk_frame h;
    while (s->searched + sizeof(h) <= stop) {
        uint64_t left = stop - s->searched;
        size_t n = left < WINDOW / 2 ? (size_t)left : WINDOW / 2;
        const uint8_t *p = bytes_at(s, s->searched, n);
        if (p == NULL)
            return false;
        const uint8_t *hit = memmem(p, n, magic, sizeof(magic));
        if (hit == NULL) {
            s->searched += n - (sizeof(magic) - 1);
            continue;
        }
        s->searched += (uint64_t)(hit - p);
        if (frame_at(s, s->searched, &h) != NULL)
            return true;
        s->searched++;
    }
    return false;
}

enum tb_rc tb_survey_next(struct tb_survey *s, struct tb_survey_frame *out)
{
    uint64_t base = (uint64_t)s->segment * s->cfg.segment_bytes;
    memset(out, 0, sizeof(*out));
    if (s->hole == 0) {
        const uint8_t *p = frame_at(s, s->at, &out->head);
        out->lsn = base + s->at;
        if (p != NULL) {
            out->len = out->head.len;
            out->bytes = p;
            s->at += out->head.len;
            s->sys = 0;
            return TB_OK;
        }
        s->hole = s->at;
        s->searched = s->at + 1;
    }
    uint64_t stop = s->searched + SEARCH_STEP < s->end ? s->searched + SEARCH_STEP : s->end;
    bool found = search(s, stop);
    if (!found && stop < s->end)
        return TB_BUSY;
    out->lsn = base + s->hole;
    out->len = (found ? s->searched : s->end) - s->hole;
    out->sys = s->sys;
    s->at = found ? s->searched : s->hole;
    s->hole = 0;
    s->sys = 0;
    return found ? TB_CORRUPT : TB_NOTFOUND;
}

enum tb_rc tb_survey_mend(const struct tb_log_config *cfg, uint32_t segment, struct tb_error *err)
{
    struct tb_survey *s = NULL;
    struct tb_survey_frame f;
    enum tb_rc rc = tb_survey_open(cfg, segment, 0, 0, false, &s, err);
    if (s == NULL || rc != TB_CORRUPT) { /* it is good, or cannot be opened */
        tb_survey_close(s);
        return rc;
    }
    while ((rc = tb_survey_next(s, &f)) == TB_BUSY)
        ;
    tb_survey_close(s);
    if (rc != TB_OK && rc != TB_CORRUPT) /* a hole has a frame behind it */
        return TB_CORRUPT;
    int mended = tb_segment_mend(cfg->io, cfg, segment);
    return mended < 0 ? tb_error_set(err, TB_IO, -mended, "log segment %08x cannot be written", segment) : TB_OK;
}

enum tb_rc tb_survey_make(const struct tb_log_config *cfg, uint32_t segment, struct tb_error *err)
{
    int made = tb_segment_make(cfg->io, cfg, segment);
    if (made == 0)
        return TB_OK;
    return tb_error_set(err, made == -ENOSPC ? TB_NOSPACE : TB_IO, -made, "log segment %08x cannot be made", segment);
}

/* ---- records ---- */

enum tb_rc tb_survey_records(const struct tb_survey_frame *f, enum tb_rc (*each)(void *user, const struct tb_record *r),
                             void *user, struct tb_error *err)
{
    size_t at = sizeof(struct tb_disk_frame);
    for (unsigned i = 0; i < f->head.records; i++) {
        struct tb_disk_record r;
        if (f->len - at < sizeof(r))
            return tb_error_set(err, TB_CORRUPT, 0, "its list of records is cut at record %u", i);
        memcpy(&r, f->bytes + at, sizeof(r));
        uint32_t want = r.crc;
        r.crc = 0;
        at += sizeof(r);
        if (r.len > f->len - at || tb_crc32c(tb_crc32c(0, &r, sizeof(r)), f->bytes + at, r.len) != want)
            return tb_error_set(err, TB_CORRUPT, 0, "its record %u is damaged", i);
        struct tb_record rec = {r.type, r.flags, r.dict, r.acct, tb_slice(f->bytes + at, r.len), f->lsn + at};
        enum tb_rc rc = each(user, &rec);
        if (rc != TB_OK)
            return rc;
        at += r.len;
    }
    return TB_OK;
}
