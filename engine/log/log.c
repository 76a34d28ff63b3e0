/*
 * log.c: group commit. Records gather in the open group; once a turn, if no write is in flight, the group is closed
 * into one frame and written by one durable write. The partial last block of a write is rewritten by the next one with
 * identical bytes.
 *
 *   open --tb_log_room (full), tb_log_flush--> closed queue --write_next--> in flight --write_done--> durable
 *
 * Segments: the next one is made on a helper thread as soon as the current one is entered, from a freed one if there
 * is a spare. A frame after which no whole group fits carries TB_FRAME_SEALS, and the log goes on in the next segment
 * (R4). Invariants L1 to L4: log.h. Thread: the shard's owner.
 */
#include "engine/log/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/log/segment.h"

enum {
    GROUP_BYTES_MAX = 2 << 20,
    GROUP_BYTES_SMALL = 3 << 19, /* for segments under 16 MiB */
    GROUP_RECORDS_MAX = 60000,
    QUEUE_BUSY = 4,  /* closed groups waiting: deliveries wait */
    QUEUE_HARD = 64, /* nothing more is taken */
    POOL_MAX = 3,
    WINDOW_READ = 512 << 10, /* recovery reads so much at once, or a whole frame */
    SPARES_MAX = 8,          /* that are known of; freeing keeps at most SPARES_KEPT */
    SPARES_KEPT = 1,
    RETRY_NS = 1000000000
};

struct group {
    struct group *next;
    uint8_t *mem;     /* owned; block-aligned; the frame begins at mem + lead */
    uint32_t lead;    /* lsn % TB_BLOCK */
    uint32_t len;     /* frame bytes so far, with the header */
    uint32_t written; /* bytes of the write */
    uint64_t lsn;
    uint16_t records;
    bool seals;
};

enum next_state { NEXT_NONE, NEXT_MAKING, NEXT_READY, NEXT_FAILED };

enum { MEND_MAX = 8 };

struct tb_log {
    struct tb_log_config cfg;
    char dir[TB_PATH_MAX];
    uint32_t seed, group_max;
    bool failed, writing;
    uint64_t end, durable; /* end: after the last closed frame */
    uint64_t last_frame;   /* where it begins */
    uint32_t scanned;      /* bytes of it, if the scan found it; 0: it found none */
    uint32_t chain;        /* its crc */
    struct group *open, *first, **last, *inflight, *pool;
    unsigned queued, pooled;
    uint8_t *adding;        /* record header under construction */
    uint8_t tail[TB_BLOCK]; /* the block that holds `end`, as last submitted */
    struct tb_op write_op, make_op;
    int write_fd;
    uint32_t write_segment; /* the segment write_fd is */
    uint32_t segment;       /* the segment `end` lies in */
    enum next_state next;
    uint64_t next_tried_ns;
    int next_result;
    uint32_t next_number, next_spare;
    uint32_t made;       /* the last segment that exists */
    bool short_of_space; /* the last attempt to make a segment failed */
    int *read_fd;        /* by segment number - read_base; -1 closed */
    uint32_t read_base, read_n;
    uint32_t *have; /* owned: the segments that exist, ascending */
    size_t have_n, have_cap;
    uint32_t spare[SPARES_MAX]; /* old numbers of freed segments that wait to be used again */
    uint32_t spares;
    struct tb_op free_op;
    struct tb_op *freeing; /* the caller's; NULL: none under way */
    uint32_t free_number;
    bool free_keep, seal_asked;
    uint32_t mend[MEND_MAX]; /* segments met by the scan whose headers are damaged */
    unsigned mend_n;
    struct tb_log_stat stat;
};

static void make_next(struct tb_log *log);
static void write_next(struct tb_log *log);

/* ---- open, format ---- */

/* have_at: where a segment stands, or would stand, among those that exist. */
static size_t have_at(const struct tb_log *log, uint32_t segment)
{
    size_t lo = 0, hi = log->have_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (log->have[mid] < segment)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool have_add(struct tb_log *log, uint32_t segment)
{
    size_t at = have_at(log, segment);
    if (at < log->have_n && log->have[at] == segment)
        return true;
    if (log->have_n == log->have_cap) {
        size_t cap = log->have_cap ? 2 * log->have_cap : 64;
        uint32_t *v = realloc(log->have, cap * sizeof(*v));
        if (v == NULL)
            return false;
        log->have = v;
        log->have_cap = cap;
    }
    memmove(log->have + at + 1, log->have + at, (log->have_n - at) * sizeof(*log->have));
    log->have[at] = segment;
    log->have_n++;
    return true;
}

bool tb_log_next_segment(const struct tb_log *log, uint32_t from, uint32_t *segment)
{
    size_t at = have_at(log, from);
    if (at == log->have_n)
        return false;
    *segment = log->have[at];
    return true;
}

static bool count_segment(void *user, const char *name)
{
    struct tb_log *log = user;
    uint32_t number;
    bool spare;
    if (!tb_segment_number(name, &number, &spare))
        return true;
    if (!spare)
        return have_add(log, number);
    if (log->spares < SPARES_MAX)
        log->spare[log->spares++] = number;
    return true;
}

enum tb_rc tb_log_open(const struct tb_log_config *cfg, struct tb_log **out, struct tb_error *err)
{
    struct tb_log *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "log %s", cfg->dir);
    log->cfg = *cfg;
    (void)snprintf(log->dir, sizeof(log->dir), "%s", cfg->dir);
    log->cfg.dir = log->dir;
    log->seed = tb_crc32c(tb_crc32c(0, cfg->uuid, 16), &cfg->shard, 4);
    log->group_max = cfg->segment_bytes >= 16u << 20 ? GROUP_BYTES_MAX : GROUP_BYTES_SMALL;
    log->last = &log->first;
    log->write_fd = -1;
    int rc = tb_io_list(cfg->io, log->dir, count_segment, log);
    if (rc < 0) {
        enum tb_rc result = tb_error_set(err, TB_IO, -rc, "log folder %s cannot be read", log->dir);
        free(log);
        return result;
    }
    log->read_base = log->have_n > 0 ? log->have[0] : 0;
    *out = log;
    return TB_OK;
}

/* first_frame: where a segment's frames begin: behind its header, on a block of its own. */
static uint64_t first_frame(const struct tb_log *log, uint32_t segment)
{
    uint32_t skip = log->cfg.pad_bytes > TB_BLOCK ? log->cfg.pad_bytes : TB_BLOCK;
    return (uint64_t)segment * log->cfg.segment_bytes + skip;
}

enum tb_rc tb_log_format(struct tb_log *log, uint64_t *first, struct tb_error *err)
{
    int rc = tb_segment_make(log->cfg.io, &log->cfg, 1);
    if (rc < 0)
        return tb_error_set(err, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "the first log segment in %s cannot be made",
                            log->dir);
    *first = first_frame(log, 1);
    return TB_OK;
}

static uint32_t segment_of(const struct tb_log *log, uint64_t lsn)
{
    return (uint32_t)(lsn / log->cfg.segment_bytes);
}

static uint64_t segment_end(const struct tb_log *log, uint32_t segment)
{
    return (uint64_t)(segment + 1) * log->cfg.segment_bytes;
}

/* ---- reading ---- */

static int read_fd(struct tb_log *log, uint32_t segment)
{
    if (segment < log->read_base)
        return -ENOENT;
    uint32_t i = segment - log->read_base;
    if (i >= log->read_n) {
        if (i > (1u << 20))
            return -EINVAL;
        int *grown = realloc(log->read_fd, (i + 16) * sizeof(int));
        if (grown == NULL)
            return -ENOMEM;
        for (uint32_t k = log->read_n; k < i + 16; k++)
            grown[k] = -1;
        log->read_fd = grown;
        log->read_n = i + 16;
    }
    if (log->read_fd[i] < 0) {
        char path[TB_PATH_MAX];
        tb_segment_path(log->dir, segment, path);
        log->read_fd[i] = tb_io_file_open(log->cfg.io, path, TB_OPEN_READ);
    }
    return log->read_fd[i];
}

static bool in_one_segment(const struct tb_log *log, uint64_t lsn, uint64_t len)
{
    uint64_t offset = lsn % log->cfg.segment_bytes;
    return len <= log->cfg.segment_bytes && offset + len <= log->cfg.segment_bytes;
}

void tb_log_read(struct tb_log *log, struct tb_op *op, void *buf, uint32_t len, uint64_t lsn)
{
    int fd = in_one_segment(log, lsn, len) ? read_fd(log, segment_of(log, lsn)) : -EINVAL;
    if (fd < 0) {
        op->result = fd;
        tb_io_post(log->cfg.io, log->cfg.io, op);
        return;
    }
    tb_io_read(log->cfg.io, op, fd, buf, len, lsn % log->cfg.segment_bytes);
}

int64_t tb_log_read_now(struct tb_log *log, void *buf, size_t len, uint64_t lsn, bool direct)
{
    if (!in_one_segment(log, lsn, len))
        return -EINVAL;
    uint64_t offset = lsn % log->cfg.segment_bytes;
    if (!direct) {
        int fd = read_fd(log, segment_of(log, lsn));
        return fd < 0 ? fd : tb_io_pread(log->cfg.io, fd, buf, len, offset);
    }
    char path[TB_PATH_MAX];
    tb_segment_path(log->dir, segment_of(log, lsn), path);
    uint64_t from = offset & ~(uint64_t)(TB_BLOCK - 1);
    uint64_t to = (offset + len + TB_BLOCK - 1) & ~(uint64_t)(TB_BLOCK - 1);
    int fd = tb_io_file_open(log->cfg.io, path, TB_OPEN_READ | TB_OPEN_DIRECT);
    if (fd < 0)
        return fd;
    uint8_t *block = aligned_alloc(TB_BLOCK, to - from);
    int64_t n = block == NULL ? -ENOMEM : tb_io_pread(log->cfg.io, fd, block, to - from, from);
    (void)tb_io_file_close(log->cfg.io, fd);
    if (n >= 0) {
        n = n < (int64_t)(offset - from + len) ? -EIO : (int64_t)len;
        if (n > 0)
            memcpy(buf, block + (offset - from), len);
    }
    free(block);
    return n;
}

static bool group_has(const struct group *g, uint64_t lsn, uint32_t len, struct tb_slice *out)
{
    if (g == NULL || lsn < g->lsn || lsn + len > g->lsn + g->len)
        return false;
    *out = tb_slice(g->mem + g->lead + (lsn - g->lsn), len);
    return true;
}

bool tb_log_peek(struct tb_log *log, uint64_t lsn, uint32_t len, struct tb_slice *out)
{
    if (group_has(log->inflight, lsn, len, out) || group_has(log->open, lsn, len, out))
        return true;
    for (struct group *g = log->first; g != NULL; g = g->next)
        if (group_has(g, lsn, len, out))
            return true;
    return false;
}

/* ---- scanning (recovery) ---- */

struct window { /* a sliding window over one segment */
    const struct tb_log *log;
    int fd;
    uint8_t *buf;
    size_t cap, len;
    uint64_t at; /* offset in the segment of buf[0] */
};

/* window_get: n bytes at offset, or NULL past the end of the segment or after a read error (*failed). */
static const uint8_t *window_get(struct window *w, uint64_t offset, size_t n, bool *failed)
{
    if (n > w->cap || offset + n > w->log->cfg.segment_bytes)
        return NULL;
    if (offset < w->at || offset + n > w->at + w->len) {
        uint64_t left = w->log->cfg.segment_bytes - offset;
        size_t want = n > WINDOW_READ ? n : WINDOW_READ;
        want = left < want ? (size_t)left : want < w->cap ? want : w->cap;
        int64_t got = tb_io_pread(w->log->cfg.io, w->fd, w->buf, want, offset);
        w->at = offset;
        w->len = got > 0 ? (size_t)got : 0;
        if (got < 0)
            *failed = true;
        if (w->len < n)
            return NULL;
    }
    return w->buf + (offset - w->at);
}

/* frame_at: the valid frame at an offset, or NULL. */
static const uint8_t *frame_at(struct window *w, uint32_t segment, uint64_t offset, struct tb_disk_frame *h,
                               bool *failed)
{
    const uint8_t *p = window_get(w, offset, sizeof(*h), failed);
    if (p == NULL)
        return NULL;
    memcpy(h, p, sizeof(*h));
    if (h->magic != TB_FRAME_MAGIC || h->lsn != segment * w->log->cfg.segment_bytes + offset || h->len < sizeof(*h))
        return NULL;
    p = window_get(w, offset, h->len, failed);
    if (p == NULL || tb_crc32c(w->log->seed, p + 8, h->len - 8) != h->crc)
        return NULL;
    return p;
}

/* frame_surely: the same; what looks invalid is read a second time, from the disk, before it is believed (R19). */
static const uint8_t *frame_surely(struct window *w, uint32_t segment, uint64_t offset, struct tb_disk_frame *h,
                                   bool *failed)
{
    const uint8_t *p = frame_at(w, segment, offset, h, failed);
    if (p != NULL || *failed)
        return p;
    w->len = 0;
    tb_io_file_forget(w->log->cfg.io, w->fd);
    return frame_at(w, segment, offset, h, failed);
}

static enum tb_rc records_each(const struct tb_log *log, const uint8_t *p, const struct tb_disk_frame *h,
                               enum tb_rc (*each)(void *, const struct tb_record *), void *user, struct tb_error *err)
{
    size_t at = sizeof(*h);
    for (unsigned i = 0; i < h->records; i++) {
        struct tb_disk_record r;
        if (h->len - at < sizeof(r))
            return tb_error_set(err, TB_CORRUPT, 0, "log %s: record list of frame %llu is cut", log->dir,
                                (unsigned long long)h->lsn);
        memcpy(&r, p + at, sizeof(r));
        uint32_t want = r.crc;
        r.crc = 0;
        if (r.len > h->len - at - sizeof(r) ||
            tb_crc32c(tb_crc32c(0, &r, sizeof(r)), p + at + sizeof(r), r.len) != want)
            return tb_error_set(err, TB_CORRUPT, 0, "log %s: record %u of frame %llu is damaged", log->dir, i,
                                (unsigned long long)h->lsn);
        struct tb_record rec = {
            r.type, r.flags, r.dict, r.acct, tb_slice(p + at + sizeof(r), r.len), h->lsn + at + sizeof(r)};
        enum tb_rc rc = each(user, &rec);
        if (rc != TB_OK)
            return err->text[0] ? rc
                                : tb_error_set(err, rc, 0, "log %s: record %u of frame %llu cannot be applied",
                                               log->dir, i, (unsigned long long)h->lsn);
        at += sizeof(r) + r.len;
    }
    return TB_OK;
}

/* no_frame_after: CORRUPT if a valid frame lies anywhere behind the end (R2): then the end is a hole, not a torn write.
 */
static enum tb_rc no_frame_after(struct window *w, uint32_t segment, uint64_t offset, struct tb_error *err)
{
    bool failed = false;
    if (!TB_KEEPS(gap))
        return TB_OK;
    for (uint64_t at = offset; at + sizeof(struct tb_disk_frame) <= w->log->cfg.segment_bytes;) {
        uint64_t left = w->log->cfg.segment_bytes - at, end = w->at + w->len;
        size_t n = left < WINDOW_READ ? (size_t)left : WINDOW_READ;
        if (at >= w->at && at + sizeof(struct tb_disk_frame) <= end) /* what was read is looked at once, not per hit */
            n = (size_t)(end - at);
        const uint8_t *p = window_get(w, at, n, &failed);
        if (p == NULL)
            break;
        const uint8_t *hit = memchr(p, (int)(TB_FRAME_MAGIC & 0xff), n);
        if (hit == NULL) {
            at += n;
            continue;
        }
        at += (uint64_t)(hit - p);
        struct tb_disk_frame h;
        if (frame_at(w, segment, at, &h, &failed) != NULL)
            return tb_error_set(
                err, TB_CORRUPT, 0,
                "log %s is damaged: segment %08x has a valid frame at offset %llu behind an invalid one; "
                "run `tambo check`",
                w->log->dir, segment, (unsigned long long)at);
        at++;
    }
    return failed ? tb_error_set(err, TB_IO, EIO, "log %s: segment %08x cannot be read", w->log->dir, segment) : TB_OK;
}

static enum tb_rc window_open(struct tb_log *log, struct window *w, uint32_t segment, struct tb_error *err)
{
    struct tb_error why = {0};
    enum tb_rc rc = tb_segment_check(log->cfg.io, &log->cfg, segment, &why);
    if (rc == TB_CORRUPT) { /* frames prove themselves: whether they are ours shows below */
        tb_log(TB_LOG_WARN, "%s: it is read all the same", why.text);
        if (log->mend_n < MEND_MAX)
            log->mend[log->mend_n++] = segment;
    } else if (rc != TB_OK) {
        *err = why;
        return rc;
    }
    w->fd = read_fd(log, segment);
    w->len = 0;
    if (w->fd >= 0)
        tb_io_file_forget(log->cfg.io, w->fd); /* what a failed sync left in memory alone is not there */
    return w->fd < 0 ? tb_error_set(err, TB_IO, -w->fd, "log %s: segment %08x cannot be opened", log->dir, segment)
                     : TB_OK;
}

/* later_segments: the segments behind the log's end must hold no frame, and none may be missing between them. */
static enum tb_rc later_segments(struct tb_log *log, struct window *w, uint32_t segment, struct tb_error *err)
{
    for (uint32_t s = segment + 1, there;; s++) {
        if (!tb_log_next_segment(log, s, &there))
            return TB_OK;
        if (there != s)
            return tb_error_set(err, TB_CORRUPT, 0,
                                "log %s: segment %08x is there, but %08x is missing; run `tambo check`", log->dir,
                                there, s);
        enum tb_rc rc = window_open(log, w, s, err);
        if (rc == TB_OK)
            rc = no_frame_after(w, s, TB_BLOCK, err);
        if (rc != TB_OK)
            return rc;
        log->made = s;
    }
}

static struct tb_log_mark mark_of(const struct tb_log *log)
{
    return (struct tb_log_mark){log->end, log->last_frame, log->chain};
}

/* mark_found: does the marked frame lie where it should, and the log go on where the mark says? (R1) */
static enum tb_rc mark_found(struct tb_log *log, struct window *w, struct tb_log_mark m, struct tb_error *err)
{
    struct tb_disk_frame h;
    bool failed = false;
    if (m.last == 0)
        return TB_OK;
    uint32_t segment = segment_of(log, m.last), there = 0;
    /* A copy keeps the log from where it ends: the frame before that may lie in a segment that was freed since. Then
     * the next frame's chain proves it. */
    if (segment < segment_of(log, m.end) && (!tb_log_next_segment(log, segment, &there) || there != segment))
        return TB_OK;
    enum tb_rc rc = window_open(log, w, segment, err);
    if (rc == TB_OK &&
        (frame_surely(w, segment, m.last % log->cfg.segment_bytes, &h, &failed) == NULL || h.crc != m.chain ||
         (h.flags & TB_FRAME_SEALS ? first_frame(log, segment + 1) : m.last + h.len) != m.end))
        rc = tb_error_set(err, failed ? TB_IO : TB_CORRUPT, 0,
                          "log %s ends before position %llu, which the index already holds; run `tambo check`",
                          log->dir, (unsigned long long)m.end);
    return rc;
}

enum tb_rc tb_log_scan(struct tb_log *log, struct tb_log_mark from,
                       enum tb_rc (*each)(void *user, const struct tb_record *r),
                       void (*frame_end)(void *user, struct tb_log_mark mark), void *user, struct tb_error *err)
{
    struct tb_error unused;
    if (err == NULL)
        err = &unused;
    err->text[0] = '\0';
    struct window w = {.log = log, .cap = 8u << 20, .fd = -1};
    w.buf = malloc(w.cap);
    if (w.buf == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "log %s: no memory to scan", log->dir);
    log->end = from.end;
    log->last_frame = from.last;
    log->chain = from.chain;
    log->segment = segment_of(log, from.end);
    bool failed = false;
    enum tb_rc rc = mark_found(log, &w, from, err);
    if (rc == TB_OK)
        rc = window_open(log, &w, log->segment, err);
    while (rc == TB_OK) {
        struct tb_disk_frame h;
        uint64_t offset = log->end - (uint64_t)log->segment * log->cfg.segment_bytes;
        const uint8_t *p = frame_surely(&w, log->segment, offset, &h, &failed);
        if (p == NULL || (h.chain != log->chain && TB_KEEPS(chain)) || h.epoch > log->cfg.epoch) {
            rc = failed ? tb_error_set(err, TB_IO, EIO, "log %s: segment %08x cannot be read", log->dir, log->segment)
                        : no_frame_after(&w, log->segment, offset, err);
            if (rc == TB_OK)
                rc = later_segments(log, &w, log->segment, err);
            break;
        }
        rc = records_each(log, p, &h, each, user, err);
        if (rc != TB_OK)
            break;
        log->last_frame = log->end;
        log->scanned = h.len;
        log->end += h.len;
        log->chain = h.crc;
        log->stat.used_bytes += h.len;
        if (h.flags & TB_FRAME_SEALS) {
            log->segment++;
            log->end = first_frame(log, log->segment);
            rc = window_open(log, &w, log->segment, err);
            if (rc == TB_NOTFOUND)
                rc = TB_CORRUPT; /* R3: it was there before the seal was written */
        }
        frame_end(user, mark_of(log));
    }
    log->durable = log->end;
    free(w.buf);
    return rc;
}

/* ---- walking one segment ---- */

struct tb_log_walk {
    struct window w; /* of the log only what never changes is used: its configuration and seed */
    uint32_t segment;
    uint64_t offset;
    bool ended;
};

enum tb_rc tb_log_walk_open(const struct tb_log *log, uint32_t segment, struct tb_log_walk **out, struct tb_error *err)
{
    char path[TB_PATH_MAX];
    enum tb_rc rc = tb_segment_check(log->cfg.io, &log->cfg, segment, err);
    if (rc != TB_OK)
        return rc;
    struct tb_log_walk *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "log %s: no memory to read a segment", log->dir);
    k->w = (struct window){.log = log, .cap = 4u << 20, .fd = -1};
    k->segment = segment;
    k->offset = first_frame(log, segment) % log->cfg.segment_bytes;
    k->w.buf = malloc(k->w.cap);
    tb_segment_path(log->dir, segment, path);
    k->w.fd = tb_io_file_open(log->cfg.io, path, TB_OPEN_READ);
    if (k->w.buf == NULL || k->w.fd < 0) {
        rc = tb_error_set(err, k->w.buf == NULL ? TB_LIMIT : TB_IO, k->w.fd < 0 ? -k->w.fd : ENOMEM,
                          "log segment %s cannot be read", path);
        tb_log_walk_close(k);
        return rc;
    }
    *out = k;
    return TB_OK;
}

enum tb_rc tb_log_walk_some(struct tb_log_walk *k, uint64_t bytes,
                            enum tb_rc (*each)(void *user, const struct tb_record *r), void *user, struct tb_error *err)
{
    uint64_t until = k->offset + bytes;
    while (!k->ended && k->offset < until) {
        struct tb_disk_frame h;
        bool failed = false;
        const uint8_t *p = frame_at(&k->w, k->segment, k->offset, &h, &failed);
        if (p == NULL)
            return tb_error_set(err, failed ? TB_IO : TB_CORRUPT, failed ? EIO : 0,
                                "log %s: segment %08x has no valid frame at offset %llu", k->w.log->dir, k->segment,
                                (unsigned long long)k->offset);
        err->text[0] = '\0';
        enum tb_rc rc = records_each(k->w.log, p, &h, each, user, err);
        if (rc != TB_OK)
            return rc;
        k->offset += h.len;
        k->ended = h.flags & TB_FRAME_SEALS;
    }
    return k->ended ? TB_NOTFOUND : TB_OK;
}

void tb_log_walk_close(struct tb_log_walk *k)
{
    if (k == NULL)
        return;
    if (k->w.fd >= 0)
        (void)tb_io_file_close(k->w.log->cfg.io, k->w.fd); /* read only */
    free(k->w.buf);
    free(k);
}

/* ---- groups ---- */

static struct group *group_new(struct tb_log *log)
{
    struct group *g = log->pool;
    if (g != NULL) {
        log->pool = g->next;
        log->pooled--;
        return g;
    }
    g = calloc(1, sizeof(*g));
    if (g == NULL)
        return NULL;
    g->mem = aligned_alloc(TB_BLOCK, log->group_max + 2 * TB_BLOCK + log->cfg.pad_bytes);
    if (g->mem == NULL) {
        free(g);
        return NULL;
    }
    return g;
}

static void group_free(struct tb_log *log, struct group *g)
{
    if (g == NULL)
        return;
    if (log->pooled < POOL_MAX) {
        g->next = log->pool;
        log->pool = g;
        log->pooled++;
        return;
    }
    free(g->mem);
    free(g);
}

static void group_begin(struct tb_log *log, struct group *g)
{
    g->next = NULL;
    g->lsn = log->end;
    g->lead = (uint32_t)(log->end % TB_BLOCK);
    g->len = sizeof(struct tb_disk_frame);
    g->records = 0;
    log->open = g;
}

/* group_close: finish the frame and queue it; decides whether it seals its segment. */
static void group_close(struct tb_log *log)
{
    struct group *g = log->open;
    uint8_t *p = g->mem + g->lead;
    if (log->cfg.pad_bytes != 0 && TB_KEEPS(pad)) {
        uint32_t padded = (g->len + log->cfg.pad_bytes - 1) / log->cfg.pad_bytes * log->cfg.pad_bytes;
        memset(p + g->len, 0, padded - g->len);
        g->len = padded;
    }
    uint64_t after = g->lsn + g->len;
    bool seals = log->seal_asked || segment_end(log, log->segment) - after <
                                        (TB_KEEPS(room) ? (uint64_t)log->group_max + log->cfg.pad_bytes : TB_BLOCK);
    struct tb_disk_frame h = {.magic = TB_FRAME_MAGIC,
                              .len = g->len,
                              .records = g->records,
                              .lsn = g->lsn,
                              .flags = seals && TB_KEEPS(seal) ? TB_FRAME_SEALS : 0,
                              .epoch = log->cfg.epoch,
                              .chain = log->chain};
    memcpy(p, &h, sizeof(h));
    h.crc = tb_crc32c(log->seed, p + 8, g->len - 8);
    memcpy(p, &h, sizeof(h));
    log->chain = h.crc;
    log->last_frame = g->lsn;
    log->end = after;
    g->seals = seals;
    log->stat.frames++;
    log->stat.used_bytes += g->len;
    if (seals) {
        log->segment++;
        log->end = first_frame(log, log->segment);
        log->seal_asked = false;
    }
    log->open = NULL;
    *log->last = g;
    log->last = &g->next;
    log->queued++;
    log->cfg.events.boundary(log->cfg.events.user, mark_of(log));
}

/* ---- segments ahead ---- */

static void make_work(struct tb_op *op)
{
    struct tb_log *log = op->user;
    log->next_result = -ENOENT;
    if (log->next_spare != 0)
        log->next_result = tb_segment_reuse(log->cfg.io, &log->cfg, log->next_spare, log->next_number);
    if (log->next_result != 0)
        log->next_result = tb_segment_make(log->cfg.io, &log->cfg, log->next_number);
}

static void make_done(struct tb_op *op)
{
    struct tb_log *log = op->user;
    if (log->next_result == 0 && !have_add(log, log->next_number))
        log->next_result = -ENOMEM;
    if (log->next_result == 0) {
        log->next = NEXT_READY;
        log->made = log->next_number;
        log->short_of_space = false;
        log->cfg.events.durable(log->cfg.events.user, log->durable); /* whoever waited for room looks again */
        return;
    }
    if (log->next_tried_ns == 0 || log->next_result != -ENOSPC)
        tb_log(TB_LOG_WARN, "log=%s the next segment cannot be made: %s; deliveries are refused until there is space",
               log->dir, strerror(-log->next_result));
    log->next = NEXT_FAILED;
    log->short_of_space = true;
    log->next_tried_ns = tb_io_now_ns(log->cfg.io);
    log->cfg.events.durable(log->cfg.events.user, log->durable);
}

/* make_next: have the segment after the one `end` lies in made, unless it is there or was refused less than a second
 * ago. */
static void make_next(struct tb_log *log)
{
    if (log->next == NEXT_MAKING || log->made > log->segment)
        return;
    if (log->next == NEXT_FAILED && tb_io_now_ns(log->cfg.io) - log->next_tried_ns < RETRY_NS)
        return;
    log->next = NEXT_MAKING;
    log->next_number = log->made + 1;
    log->next_spare = log->spares > 0 ? log->spare[--log->spares] : 0;
    log->make_op = (struct tb_op){.done = make_done, .user = log};
    tb_io_offload(log->cfg.io, &log->make_op, make_work);
}

/* ---- freeing segments ---- */

static void free_work(struct tb_op *op)
{
    struct tb_log *log = op->user;
    op->result = tb_segment_free(log->cfg.io, &log->cfg, log->free_number, log->free_keep);
}

static void free_done(struct tb_op *op)
{
    struct tb_log *log = op->user;
    struct tb_op *caller = log->freeing;
    log->freeing = NULL;
    if (op->result == 1 && log->spares < SPARES_MAX)
        log->spare[log->spares++] = log->free_number;
    if (op->result >= 0 && log->next == NEXT_FAILED) { /* there is room again */
        log->next = NEXT_NONE;
        make_next(log);
    }
    caller->result = op->result < 0 ? op->result : 0;
    caller->done(caller);
}

void tb_log_free(struct tb_log *log, uint32_t segment, struct tb_op *op)
{
    size_t at = have_at(log, segment);
    TB_ASSERT(log->freeing == NULL && segment < log->write_segment && at < log->have_n && log->have[at] == segment);
    memmove(log->have + at, log->have + at + 1, (log->have_n - at - 1) * sizeof(*log->have));
    log->have_n--;
    if (segment >= log->read_base && segment - log->read_base < log->read_n) {
        int *fd = &log->read_fd[segment - log->read_base];
        if (*fd >= 0)
            (void)tb_io_file_close(log->cfg.io, *fd); /* read only */
        *fd = -1;
    }
    log->freeing = op;
    log->free_number = segment;
    log->free_keep = log->spares < SPARES_KEPT;
    log->free_op = (struct tb_op){.done = free_done, .user = log};
    tb_io_offload(log->cfg.io, &log->free_op, free_work);
}

int tb_log_segment_open(const struct tb_log *log, uint32_t segment)
{
    char path[TB_PATH_MAX];
    tb_segment_path(log->dir, segment, path);
    return tb_io_file_open(log->cfg.io, path, TB_OPEN_READ);
}

enum tb_rc tb_log_seal(struct tb_log *log)
{
    if (log->end == first_frame(log, log->segment) && (log->open == NULL || log->open->records == 0))
        return TB_OK; /* nothing in it yet */
    enum tb_rc rc = tb_log_room(log, 0, 1, 0, true);
    if (rc != TB_OK)
        return rc;
    if (log->made <= log->segment)
        return log->short_of_space ? TB_NOSPACE : TB_BUSY; /* there must be somewhere to go on */
    log->seal_asked = true;
    group_close(log);
    return TB_OK;
}

/* segment_ready: does the segment exist, so that it can be written? */
static bool segment_ready(const struct tb_log *log, uint32_t segment)
{
    return segment <= log->made;
}

/* current_ready: the segment that `end` lies in. */
static bool current_ready(const struct tb_log *log)
{
    return segment_ready(log, log->segment);
}

/* last_frame_read: blocks of which the last frame is bytes `at` on, as they are on the disk: the frame is checked, its
 * own checksum field too, and what of the one before lies in its first block is read until it is certain. 0 or -errno.
 */
static int64_t last_frame_read(struct tb_log *log, int fd, uint8_t *block, size_t len, uint64_t from, size_t at)
{
    enum { TRIES = 3 };
    struct tb_disk_frame h;
    uint8_t lead[TB_BLOCK];
    int64_t n = -EIO;
    for (int i = 0; i < TRIES; i++) {
        n = tb_io_pread(log->cfg.io, fd, block, len, from);
        if (n < 0)
            return n;
        memcpy(&h, block + at, sizeof(h));
        if (n == (int64_t)len && h.magic == TB_FRAME_MAGIC && h.crc == log->chain &&
            tb_crc32c(log->seed, block + at + 8, log->scanned - 8) == log->chain)
            break;
        n = -EIO;
    }
    int plain = n < 0 || at == 0 ? -1 : read_fd(log, segment_of(log, log->last_frame));
    if (plain >= 0)
        n = tb_io_pread_sure(log->cfg.io, plain, lead, TB_BLOCK, from);
    if (plain >= 0 && n == TB_BLOCK)
        memcpy(block, lead, at);
    return n < 0 ? n : 0;
}

/* rewrite: the blocks from..to again, with the bytes they hold. */
static int64_t rewrite(struct tb_log *log, int fd, uint64_t from, uint64_t to)
{
    uint8_t *block = aligned_alloc(TB_BLOCK, to - from);
    int64_t n = block == NULL ? -ENOMEM : last_frame_read(log, fd, block, to - from, from, log->last_frame % TB_BLOCK);
    if (n == 0)
        n = tb_io_pwrite(log->cfg.io, fd, block, to - from, from);
    free(block);
    return n < 0 ? n : n == (int64_t)(to - from) ? 0 : -EIO;
}

enum tb_rc tb_log_harden(struct tb_log *log, struct tb_error *err)
{
    int named = tb_io_sync_dir(log->cfg.io, log->dir); /* R3: of a segment that was just being made */
    if (named < 0)
        return tb_error_set(err, TB_IO, -named, "log folder %s cannot be synced", log->dir);
    if (log->scanned == 0 || !TB_KEEPS(harden))
        return TB_OK; /* nothing behind the checkpoint, and that is durable */
    char path[TB_PATH_MAX];
    tb_segment_path(log->dir, segment_of(log, log->last_frame), path);
    uint64_t offset = log->last_frame % log->cfg.segment_bytes;
    int fd = tb_io_file_open(log->cfg.io, path, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    int64_t rc = fd;
    /* R6: where a cut may destroy what is being written, what is there is only flushed */
    if (fd >= 0)
        rc = log->cfg.pad_bytes != 0 ? 0
                                     : rewrite(log, fd, offset & ~(uint64_t)(TB_BLOCK - 1),
                                               (offset + log->scanned + TB_BLOCK - 1) & ~(uint64_t)(TB_BLOCK - 1));
    if (fd >= 0 && rc == 0)
        rc = tb_io_sync(log->cfg.io, fd);
    if (fd >= 0)
        (void)tb_io_file_close(log->cfg.io, fd); /* synced, or failed already */
    return rc < 0 ? tb_error_set(err, TB_IO, (int)-rc, "log segment %s: its last frame cannot be made durable", path)
                  : TB_OK;
}

enum tb_rc tb_log_start(struct tb_log *log, struct tb_error *err)
{
    char path[TB_PATH_MAX];
    for (; log->mend_n > 0; log->mend_n--) { /* the scan found nothing but ours in them */
        int mended = tb_segment_mend(log->cfg.io, &log->cfg, log->mend[log->mend_n - 1]);
        if (mended < 0)
            return tb_error_set(err, TB_IO, -mended, "log %s: the header of segment %08x cannot be written", log->dir,
                                log->mend[log->mend_n - 1]);
    }
    tb_segment_path(log->dir, log->segment, path);
    log->write_fd = tb_io_file_open(log->cfg.io, path, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    if (log->write_fd < 0)
        return tb_error_set(err, TB_IO, -log->write_fd, "log segment %s cannot be written", path);
    log->write_segment = log->segment;
    if (log->made < log->segment)
        log->made = log->segment;
    uint64_t offset = log->end - (uint64_t)log->segment * log->cfg.segment_bytes;
    if (offset % TB_BLOCK != 0) {
        /* the next frame's write begins with these bytes: a mistake here would destroy what is durable */
        int fd = read_fd(log, log->segment);
        int64_t n = fd < 0 ? fd : tb_io_pread_sure(log->cfg.io, fd, log->tail, TB_BLOCK, offset - offset % TB_BLOCK);
        if (n != TB_BLOCK)
            return tb_error_set(err, TB_IO, n < 0 ? (int)-n : EIO, "log segment %s: its last block cannot be read",
                                path);
    }
    return TB_OK;
}

void tb_log_prepare(struct tb_log *log)
{
    make_next(log);
}

/* ---- adding ---- */

uint64_t tb_log_group_bytes_max(const struct tb_log *log)
{
    return log->group_max - 2 * sizeof(struct tb_disk_frame);
}

/* space_left: log bytes that surely exist: in the current segment, and in the next one when it is made. */
static uint64_t space_left(const struct tb_log *log)
{
    uint64_t at = log->open != NULL ? log->open->lsn + log->open->len : log->end;
    uint64_t left = current_ready(log) ? segment_end(log, log->segment) - at : 0;
    if (log->made > log->segment)
        left += log->cfg.segment_bytes - TB_BLOCK;
    return left;
}

uint64_t tb_log_space(const struct tb_log *log, bool *short_of_space)
{
    *short_of_space = log->short_of_space;
    return space_left(log);
}

/* seal_room: what must stay free in the last segment that exists, or the frame would seal it with nowhere to go on. */
static uint64_t seal_room(const struct tb_log *log)
{
    if (log->made > log->segment)
        return 0;
    return log->group_max + 2 * (uint64_t)log->cfg.pad_bytes + sizeof(struct tb_disk_frame);
}

enum tb_rc tb_log_room(struct tb_log *log, size_t bytes, uint32_t records, uint64_t reserve, bool patient)
{
    size_t need = bytes + (size_t)records * sizeof(struct tb_disk_record);
    if (need > tb_log_group_bytes_max(log) || records > GROUP_RECORDS_MAX)
        return TB_LIMIT;
    if (log->failed)
        return TB_IO;
    make_next(log);
    if (log->queued >= (patient ? QUEUE_BUSY : QUEUE_HARD))
        return TB_BUSY;
    /* Who can't wait may gather for a segment that is still being made: the write, so the answer, waits for it. */
    if (reserve < seal_room(log))
        reserve = seal_room(log);
    bool there = current_ready(log) && space_left(log) >= need + reserve;
    if (!there && (patient || log->short_of_space))
        return log->short_of_space ? TB_NOSPACE : TB_BUSY;
    if (log->open != NULL &&
        (log->open->len + need > tb_log_group_bytes_max(log) || log->open->records + records > GROUP_RECORDS_MAX))
        group_close(log);
    if (log->open == NULL) {
        make_next(log);
        if (!current_ready(log) && (patient || log->short_of_space)) /* the close sealed the last segment there is */
            return log->short_of_space ? TB_NOSPACE : TB_BUSY;
        struct group *g = group_new(log);
        if (g == NULL)
            return TB_NOSPACE; /* not BUSY: nothing would tell whoever waits that there is memory again */
        group_begin(log, g);
        make_next(log);
    }
    return TB_OK;
}

uint8_t *tb_log_add(struct tb_log *log, uint8_t type, uint8_t flags, uint16_t dict, uint32_t acct, size_t payload_len,
                    uint64_t *lsn)
{
    struct group *g = log->open;
    TB_ASSERT(g != NULL && log->adding == NULL &&
              g->len + sizeof(struct tb_disk_record) + payload_len <= log->group_max);
    struct tb_disk_record r = {.type = type, .flags = flags, .dict = dict, .len = (uint32_t)payload_len, .acct = acct};
    log->adding = g->mem + g->lead + g->len;
    memcpy(log->adding, &r, sizeof(r));
    if (lsn != NULL)
        *lsn = g->lsn + g->len + sizeof(r);
    return log->adding + sizeof(r);
}

struct tb_record tb_log_added(struct tb_log *log)
{
    struct group *g = log->open;
    struct tb_disk_record r;
    memcpy(&r, log->adding, sizeof(r));
    r.crc = tb_crc32c(tb_crc32c(0, &r, sizeof(r)), log->adding + sizeof(r), r.len);
    memcpy(log->adding, &r, sizeof(r));
    struct tb_record out = {
        r.type, r.flags, r.dict, r.acct, tb_slice(log->adding + sizeof(r), r.len), g->lsn + g->len + sizeof(r)};
    g->len += (uint32_t)sizeof(r) + r.len;
    g->records++;
    log->adding = NULL;
    return out;
}

bool tb_log_fresh(const struct tb_log *log)
{
    return log->open == NULL || log->open->records == 0;
}

uint64_t tb_log_end(const struct tb_log *log)
{
    return log->open != NULL && log->open->records > 0 ? log->open->lsn + log->open->len : log->end;
}

uint64_t tb_log_durable(const struct tb_log *log)
{
    return log->durable;
}

/* ---- writing ---- */

static void log_fail(struct tb_log *log, int sys, const char *what)
{
    struct tb_error err;
    log->failed = true;
    (void)tb_error_set(&err, TB_IO, sys, "log %s: %s; nothing un-synced was answered", log->dir, what);
    log->cfg.events.failed(log->cfg.events.user, &err);
}

static void write_done(struct tb_op *op)
{
    struct tb_log *log = op->user;
    struct group *g = log->inflight;
    log->writing = false;
    if (op->result != g->written && TB_KEEPS(failwrite)) {
        log_fail(log, op->result < 0 ? (int)-op->result : EIO, "a write failed");
        return;
    }
    log->inflight = NULL;
    /* sealing moves `end` to the next segment's first frame: a position in between is durable with it */
    log->durable = log->first != NULL ? log->first->lsn : log->open != NULL ? log->open->lsn : log->end;
    group_free(log, g);
    log->cfg.events.durable(log->cfg.events.user, log->durable);
}

static bool enter_segment(struct tb_log *log, uint32_t segment)
{
    if (segment == log->write_segment)
        return true;
    char path[TB_PATH_MAX];
    tb_segment_path(log->dir, segment, path);
    int fd = tb_io_file_open(log->cfg.io, path, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    if (fd < 0) {
        log_fail(log, -fd, "the next segment cannot be opened");
        return false;
    }
    (void)tb_io_file_close(log->cfg.io, log->write_fd); /* every write to it was durable */
    log->write_fd = fd;
    log->write_segment = segment;
    return true;
}

static void write_next(struct tb_log *log)
{
    struct group *g = log->first;
    if (!enter_segment(log, segment_of(log, g->lsn)))
        return;
    log->first = g->next;
    if (log->first == NULL)
        log->last = &log->first;
    log->queued--;
    g->next = NULL;
    log->inflight = g;
    memcpy(g->mem, log->tail, g->lead);
    uint32_t used = g->lead + g->len;
    g->written = (used + TB_BLOCK - 1) & ~(uint32_t)(TB_BLOCK - 1);
    memset(g->mem + used, 0, g->written - used);
    if (used % TB_BLOCK != 0)
        memcpy(log->tail, g->mem + (used & ~(uint32_t)(TB_BLOCK - 1)), TB_BLOCK);
    log->writing = true;
    log->stat.writes++;
    log->stat.written_bytes += g->written;
    log->write_op = (struct tb_op){.done = write_done, .user = log};
    tb_io_write(log->cfg.io, &log->write_op, log->write_fd, g->mem, g->written,
                (g->lsn - g->lead) % log->cfg.segment_bytes, true);
}

void tb_log_flush(struct tb_log *log)
{
    if (log->failed || log->writing)
        return;
    if (log->first == NULL && log->open != NULL && log->open->records > 0)
        group_close(log);
    if (log->first == NULL)
        return;
    /* R3: a frame that names the next segment is written when that exists */
    if (segment_ready(log, segment_of(log, log->first->lsn) + log->first->seals))
        write_next(log);
    else
        make_next(log); /* make_done wakes the loop; a refused one is tried again after a second */
}

/* ---- the rest ---- */

void tb_log_boundary(struct tb_log *log)
{
    if (log->open != NULL && log->open->records > 0 && TB_KEEPS(boundary))
        group_close(log);
    else
        log->cfg.events.boundary(log->cfg.events.user, mark_of(log));
}

bool tb_log_idle(const struct tb_log *log)
{
    return log == NULL || (!log->writing && log->next != NEXT_MAKING && log->freeing == NULL);
}

bool tb_log_quiet(const struct tb_log *log)
{
    return tb_log_idle(log) && log->first == NULL && (log->open == NULL || log->open->records == 0);
}

void tb_log_close(struct tb_log *log)
{
    if (log == NULL)
        return;
    if (log->write_fd >= 0)
        (void)tb_io_file_close(log->cfg.io, log->write_fd);
    for (uint32_t i = 0; i < log->read_n; i++)
        if (log->read_fd[i] >= 0)
            (void)tb_io_file_close(log->cfg.io, log->read_fd[i]);
    free(log->read_fd);
    free(log->have);
    for (struct group *g = log->first, *next; g != NULL; g = next) {
        next = g->next;
        free(g->mem);
        free(g);
    }
    for (struct group *g = log->pool, *next; g != NULL; g = next) {
        next = g->next;
        free(g->mem);
        free(g);
    }
    struct group *rest[] = {log->open, log->inflight};
    for (size_t i = 0; i < TB_ARRAY_LEN(rest); i++)
        if (rest[i] != NULL) {
            free(rest[i]->mem);
            free(rest[i]);
        }
    free(log);
}

void tb_log_stat(const struct tb_log *log, struct tb_log_stat *out)
{
    *out = log->stat;
    out->segments = log->have_n;
    out->spares = log->spares;
    out->file_bytes = (log->have_n + log->spares) * log->cfg.segment_bytes;
    /* every byte of a sealed segment is in use, but for its seal gap, and of the last one what has been written */
    uint64_t end = tb_log_end(log);
    out->used_bytes = have_at(log, segment_of(log, end)) * log->cfg.segment_bytes + end % log->cfg.segment_bytes;
}
