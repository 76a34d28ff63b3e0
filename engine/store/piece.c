/*
 * piece.c: log bytes into a backup.
 *
 *   ADOPT --a file of this piece lies there and is right--> DONE
 *     '--none, or it is not--> COPY --end met: synced--> CHECK --read again, past the page cache: the same--> DONE
 *
 * Invariants: every frame is checked, and linked to the one before, as it is copied (but for a damaged segment that
 * only bodies point into: that is copied as it is, each body having its own checksum); a file gets its final name only
 * when what was read back has the digest of what was read; a file under its final name is never written to. Thread:
 * any, one at a time.
 */
#include "engine/store/piece.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void name_new(const struct tb_piece *p, char out[TB_PART_PATH])
{
    (void)snprintf(out, TB_PART_PATH, "%.1000s/shard-%02x/log/%08x.new", p->dest, p->part.shard, p->part.number);
}

static uint64_t segment_at(const struct tb_piece *p)
{
    return p->part.number * p->super.segment_bytes;
}

static void close_in(struct tb_piece *p)
{
    if (p->in >= 0)
        (void)tb_io_file_close(p->io, p->in);
    p->in = -1;
}

void tb_piece_end(struct tb_piece *p, bool keep)
{
    close_in(p);
    if (p->out >= 0)
        (void)tb_io_file_close(p->io, p->out);
    p->out = -1;
    if (!keep) {
        free(p->buf);
        p->buf = NULL;
    }
}

/* ---- a file that an earlier backup left ---- */

struct search {
    uint32_t segment;
    uint64_t from, to, to_max;
};

static bool search_name(void *user, const char *name)
{
    struct search *s = user;
    struct tb_part p;
    if (tb_part_read(name, &p) && p.kind == TB_PART_LOG && p.number == s->segment && p.from == s->from &&
        p.to > s->to && p.to <= s->to_max)
        s->to = p.to;
    return true;
}

/* find: the longest file of this piece; false: there is none. */
static bool find(struct tb_piece *p)
{
    char dir[TB_PART_PATH];
    struct search s = {.segment = p->part.number, .from = p->part.from};
    s.to_max = p->stop != 0 ? p->stop - segment_at(p) : p->super.segment_bytes;
    (void)snprintf(dir, sizeof(dir), "%.1000s/shard-%02x/log", p->dest, p->part.shard);
    if (tb_io_list(p->io, dir, search_name, &s) < 0 || s.to == 0)
        return false;
    p->part.to = s.to;
    tb_part_path(p->dest, &p->part, dir);
    p->in = tb_io_file_open(p->io, dir, TB_OPEN_READ);
    if (p->in < 0 || tb_io_file_size(p->io, p->in) != (int64_t)(s.to - p->part.from)) {
        close_in(p);
        return false;
    }
    p->base = p->part.from;
    p->limit = s.to;
    return true;
}

/* same_source: does the source have the very frame that the found file ends with? */
static bool same_source(struct tb_piece *p)
{
    struct tb_disk_frame h;
    if (p->frames.last < segment_at(p)) /* the header alone */
        return true;
    int fd = tb_io_file_open(p->io, p->source, TB_OPEN_READ);
    int64_t n = fd < 0 ? fd : tb_io_pread(p->io, fd, &h, sizeof(h), p->frames.last - segment_at(p));
    if (fd >= 0)
        (void)tb_io_file_close(p->io, fd);
    return n == sizeof(h) && h.lsn == p->frames.last && h.crc == p->frames.chain;
}

/* ---- walking ---- */

static enum tb_rc start_copy(struct tb_piece *p, struct tb_error *err)
{
    char path[TB_PART_PATH];
    close_in(p);
    p->stage = PIECE_COPY;
    p->found = false;
    p->part.to = 0;
    p->at = p->part.from;
    p->base = 0;
    p->limit = p->stop != 0 ? p->stop - segment_at(p) : p->super.segment_bytes;
    tb_sha256_init(&p->sha);
    p->in = tb_io_file_open(p->io, p->source, TB_OPEN_READ);
    if (p->in < 0)
        return tb_error_set(err, TB_IO, -p->in, "%s cannot be opened", p->source);
    name_new(p, path);
    (void)tb_io_unlink(p->io, path); /* debris of an earlier one, usually absent */
    p->out = tb_io_file_open(p->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (p->out < 0)
        return tb_error_set(err, p->out == -ENOSPC ? TB_NOSPACE : TB_IO, -p->out, "%s cannot be made", path);
    return TB_OK;
}

enum tb_rc tb_piece_begin(struct tb_piece *p, uint32_t shard, uint32_t segment, uint64_t from, uint64_t stop,
                          struct tb_error *err)
{
    tb_piece_end(p, true);
    if (p->buf == NULL && (p->buf = aligned_alloc(TB_BLOCK, TB_PIECE_BUF)) == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "backup");
    p->part = (struct tb_part){.kind = TB_PART_LOG, .shard = shard, .number = segment, .from = from};
    p->stop = stop;
    p->frames.at = segment_at(p) + from;
    p->frames.sealed = p->raw = false;
    p->begin = p->frames;
    p->at = from;
    tb_sha256_init(&p->sha);
    if (find(p)) {
        p->stage = PIECE_ADOPT;
        p->found = true;
        return TB_OK;
    }
    return start_copy(p, err);
}

/* take: the frames in buf[0..n), which lies at p->at. *used: bytes of them; *end: that was the last one. False: no
 * frame where one must be. */
static bool take(struct tb_piece *p, size_t n, size_t *used, bool *end)
{
    size_t need;
    *used = 0;
    if (p->at == 0) {
        size_t first = p->super.pad_bytes > TB_BLOCK ? p->super.pad_bytes : TB_BLOCK;
        if (n < first ||
            !tb_frames_header(p->buf, p->super.uuid, p->part.shard, p->part.number, p->super.segment_bytes))
            return false;
        *used = first;
        p->frames.at = segment_at(p) + first;
    }
    for (;;) {
        *end = p->frames.sealed || p->at + *used == p->limit;
        if (*end)
            return true;
        int64_t k = tb_frames_next(&p->frames, p->buf + *used, n - *used, &need);
        if (k < 0)
            return false;
        if (k == 0) /* the rest comes with the next slice; if there is more to come, and it can be a frame's */
            return p->at + n < p->limit && need <= TB_FRAMES_BYTES_MAX && *used > 0;
        *used += (size_t)k;
    }
}

static enum tb_rc walk(struct tb_piece *p, bool *end, struct tb_error *err)
{
    uint64_t left = p->limit - p->at;
    size_t want = left < TB_PIECE_BUF ? (size_t)left : TB_PIECE_BUF, used;
    int64_t n = tb_io_pread(p->io, p->in, p->buf, want, p->at - p->base);
    if (n < 0)
        return tb_error_set(err, TB_IO, (int)-n, "segment %08x of shard %u cannot be read", p->part.number,
                            p->part.shard);
    bool good = !p->raw && take(p, (size_t)n, &used, end);
    if (!good && p->raw_ok && p->stage == PIECE_COPY && n > 0) {
        p->raw = true;
        used = (size_t)n;
        *end = p->at + used == p->limit;
    } else if (!good)
        return tb_error_set(err, TB_CORRUPT, 0,
                            "segment %08x of shard %u: no valid frame at %" PRIu64 "; run `tambo check`",
                            p->part.number, p->part.shard, p->frames.at - segment_at(p));
    tb_sha256_update(&p->sha, p->buf, used);
    if (p->out >= 0) {
        n = tb_io_pwrite(p->io, p->out, p->buf, used, p->at - p->part.from);
        if (n != (int64_t)used)
            return tb_error_set(err, n == -ENOSPC ? TB_NOSPACE : TB_IO, n < 0 ? (int)-n : EIO,
                                "the backup of segment %08x cannot be written", p->part.number);
    }
    p->at += used;
    p->slice_bytes = used;
    return TB_OK;
}

static void finish_part(struct tb_piece *p)
{
    if (p->raw)
        p->frames.chained = p->frames.sealed = false; /* what comes next cannot be linked to it */
    p->part.to = p->at;
    p->part.bytes = p->part.to - p->part.from;
    tb_sha256_final(&p->sha, p->part.sha256);
}

static enum tb_rc adopt_step(struct tb_piece *p, struct tb_error *err)
{
    bool end = false;
    struct tb_error why;
    if (walk(p, &end, &why) == TB_OK && (!end || (p->at == p->limit && same_source(p)))) {
        if (end) {
            finish_part(p);
            p->stage = PIECE_DONE;
        }
        return TB_OK;
    }
    p->frames = p->begin; /* not what it should be: as if it were not there */
    return start_copy(p, err);
}

static enum tb_rc copy_step(struct tb_piece *p, struct tb_error *err)
{
    char path[TB_PART_PATH];
    bool end = false;
    enum tb_rc rc = walk(p, &end, err);
    if (rc != TB_OK || !end)
        return rc;
    finish_part(p);
    name_new(p, path);
    int sync = tb_io_sync(p->io, p->out);
    (void)tb_io_file_close(p->io, p->out);
    p->out = -1;
    close_in(p);
    if (sync < 0)
        return tb_error_set(err, TB_IO, -sync, "%s cannot be synced", path);
    p->in = tb_io_file_open(p->io, path, TB_OPEN_READ | TB_OPEN_DIRECT);
    if (p->in == -EINVAL) /* a file system without O_DIRECT */
        p->in = tb_io_file_open(p->io, path, TB_OPEN_READ);
    if (p->in < 0)
        return tb_error_set(err, TB_IO, -p->in, "%s cannot be read again", path);
    p->stage = PIECE_CHECK;
    p->at = p->part.from;
    tb_sha256_init(&p->sha);
    return TB_OK;
}

static enum tb_rc check_step(struct tb_piece *p, struct tb_error *err)
{
    char fresh[TB_PART_PATH], path[TB_PART_PATH];
    uint8_t got[TB_SHA256_BYTES];
    name_new(p, fresh);
    int64_t n = tb_io_pread(p->io, p->in, p->buf, TB_PIECE_BUF, p->at - p->part.from);
    if (n <= 0)
        return tb_error_set(err, TB_IO, n < 0 ? (int)-n : EIO, "%s cannot be read again", fresh);
    tb_sha256_update(&p->sha, p->buf, (size_t)n);
    p->at += (uint64_t)n;
    p->slice_bytes = (uint64_t)n;
    if (p->at < p->part.to)
        return TB_OK;
    tb_sha256_final(&p->sha, got);
    close_in(p);
    if (p->at != p->part.to || memcmp(got, p->part.sha256, sizeof(got)) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "%s is not what was written to it", fresh);
    tb_part_path(p->dest, &p->part, path);
    int rc = tb_io_rename(p->io, fresh, path);
    if (rc < 0)
        return tb_error_set(err, TB_IO, -rc, "%s cannot be given its name", path);
    p->stage = PIECE_DONE;
    return TB_OK;
}

enum tb_rc tb_piece_step(struct tb_piece *p, struct tb_error *err)
{
    p->slice_bytes = 0;
    if (p->stage == PIECE_ADOPT)
        return adopt_step(p, err);
    return p->stage == PIECE_COPY ? copy_step(p, err) : check_step(p, err);
}
