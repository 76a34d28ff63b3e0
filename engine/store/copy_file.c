/*
 * copy_file.c: a copy of an index as a file: checked, read, put back.
 *
 * A copy is believed only as a whole: its first block is written last, and names the digest of all the rest. Must
 * never: write to a copy, or hand out a page that was not checked. Thread: any; everything here blocks.
 */
#include "engine/store/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t table_bytes(uint64_t pages)
{
    return (pages * 4 + TB_BLOCK - 1) / TB_BLOCK * TB_BLOCK;
}

void tb_copy_path(const char *shard_dir, unsigned number, char out[TB_COPY_PATH])
{
    (void)snprintf(out, TB_COPY_PATH, "%.1000s/copy-%u", shard_dir, number);
}

void tb_copy_seal(struct tb_disk_copy *h)
{
    memcpy(h->magic, TB_COPY_MAGIC, 8);
    h->format = TB_FORMAT;
    h->crc = 0;
    h->crc = tb_crc32c(0, h, sizeof(*h));
}

/* head_check: is this block a copy's, whole and for a file of this size? */
static enum tb_rc head_check(const uint8_t *block, int64_t size, const char *path, struct tb_disk_copy *out,
                             struct tb_error *err)
{
    struct tb_disk_copy h;
    uint64_t seq;
    memcpy(&h, block, sizeof(h));
    *out = h;
    h.crc = 0;
    size_t zeros = sizeof(h); /* behind the struct there is nothing */
    while (zeros < TB_BLOCK && block[zeros] == 0)
        zeros++;
    if (memcmp(h.magic, TB_COPY_MAGIC, 8) != 0 || tb_crc32c(0, &h, sizeof(h)) != out->crc || zeros < TB_BLOCK)
        return tb_error_set(err, TB_CORRUPT, 0, "%s is no index copy, or its first block is damaged", path);
    if (h.format < TB_FORMAT_OLDEST || h.format > TB_FORMAT)
        return tb_error_set(err, TB_INVALID, 0, "%s has format %u; this program reads %u to %u", path, h.format,
                            TB_FORMAT_OLDEST, TB_FORMAT);
    if (size < 0 || h.pages < 2 || h.pages > (uint64_t)size / TB_COPY_PAGE ||
        TB_BLOCK + h.pages * TB_COPY_PAGE + table_bytes(h.pages) != (uint64_t)size ||
        !tb_ckpt_check((const uint8_t *)&out->ckpt, &seq) || h.pages != tb_index_meta_pages(h.ckpt.meta))
        return tb_error_set(err, TB_CORRUPT, 0, "%s is cut, or contradicts itself", path);
    return TB_OK;
}

/* open_direct: past the page cache where the file system can. */
static int open_direct(struct tb_io *io, const char *path)
{
    int fd = tb_io_file_open(io, path, TB_OPEN_READ | TB_OPEN_DIRECT);
    return fd == -EINVAL ? tb_io_file_open(io, path, TB_OPEN_READ) : fd;
}

static enum tb_rc read_head(struct tb_io *io, int fd, const char *path, struct tb_disk_copy *out, struct tb_error *err)
{
    uint8_t *block = aligned_alloc(TB_BLOCK, TB_BLOCK);
    if (block == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "%s", path);
    int64_t n = tb_io_pread(io, fd, block, TB_BLOCK, 0);
    enum tb_rc rc;
    if (n < 0)
        rc = tb_error_set(err, TB_IO, (int)-n, "%s cannot be read", path);
    else if (n != TB_BLOCK)
        rc = tb_error_set(err, TB_CORRUPT, 0, "%s is cut", path);
    else
        rc = head_check(block, tb_io_file_size(io, fd), path, out, err);
    free(block);
    return rc;
}

enum tb_rc tb_copy_open(struct tb_io *io, const char *path, const uint8_t *uuid, uint32_t shard,
                        struct tb_disk_copy *out, struct tb_error *err)
{
    *out = (struct tb_disk_copy){.shard = shard};
    int fd = open_direct(io, path);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_NOTFOUND : TB_IO, -fd, "%s cannot be opened", path);
    enum tb_rc rc = read_head(io, fd, path, out, err);
    (void)tb_io_file_close(io, fd);
    if (rc == TB_OK && uuid != NULL && (memcmp(out->uuid, uuid, 16) != 0 || out->shard != shard))
        rc = tb_error_set(err, TB_CORRUPT, 0, "%s belongs to another shard or store", path);
    return rc;
}

/* ---- reading all of it ---- */

enum tb_rc tb_copy_reader_open(struct tb_copy_reader *r, struct tb_io *io, const char *path, struct tb_error *err)
{
    r->io = io;
    r->path = path;
    r->fd = open_direct(io, path);
    if (r->fd < 0)
        return tb_error_set(err, r->fd == -ENOENT ? TB_NOTFOUND : TB_IO, -r->fd, "%s cannot be opened", path);
    enum tb_rc rc = read_head(io, r->fd, path, &r->head, err);
    if (rc != TB_OK)
        return rc;
    size_t len = table_bytes(r->head.pages);
    r->table = aligned_alloc(TB_BLOCK, len);
    r->pages = aligned_alloc(TB_BLOCK, (size_t)TB_COPY_SLICE_PAGES * TB_COPY_PAGE);
    if (r->table == NULL || r->pages == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "%s", path);
    int64_t n = tb_io_pread(io, r->fd, r->table, len, TB_BLOCK + r->head.pages * TB_COPY_PAGE);
    if (n != (int64_t)len)
        return tb_error_set(err, TB_IO, n < 0 ? (int)-n : EIO, "%s cannot be read", path);
    tb_sha256_init(&r->sha);
    return TB_OK;
}

static enum tb_rc digest_check(struct tb_copy_reader *r, struct tb_error *err)
{
    uint8_t got[TB_SHA256_BYTES];
    tb_sha256_update(&r->sha, r->table, table_bytes(r->head.pages));
    tb_sha256_final(&r->sha, got);
    if (memcmp(got, r->head.sha256, sizeof(got)) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "%s does not have its digest: it is damaged", r->path);
    return TB_OK;
}

enum tb_rc tb_copy_reader_step(struct tb_copy_reader *r, struct tb_error *err)
{
    uint64_t left = r->head.pages - r->at;
    r->n = left < TB_COPY_SLICE_PAGES ? (size_t)left : TB_COPY_SLICE_PAGES;
    if (r->n == 0)
        return digest_check(r, err);
    size_t len = r->n * TB_COPY_PAGE;
    int64_t n = tb_io_pread(r->io, r->fd, r->pages, len, TB_BLOCK + r->at * TB_COPY_PAGE);
    if (n != (int64_t)len)
        return tb_error_set(err, TB_IO, n < 0 ? (int)-n : EIO, "%s cannot be read", r->path);
    for (size_t i = 0; i < r->n; i++) {
        uint64_t page = r->at + i;
        if (tb_crc32c(0, r->pages + i * TB_COPY_PAGE, TB_COPY_PAGE) != tb_get_le32(r->table + page * 4))
            return tb_error_set(err, TB_CORRUPT, 0, "%s: page %" PRIu64 " is damaged", r->path, page);
    }
    tb_sha256_update(&r->sha, r->pages, len);
    r->at += r->n;
    return TB_OK;
}

void tb_copy_reader_close(struct tb_copy_reader *r)
{
    if (r->fd >= 0 && r->path != NULL)
        (void)tb_io_file_close(r->io, r->fd);
    free(r->table);
    free(r->pages);
    memset(r, 0, sizeof(*r));
}

enum tb_rc tb_copy_verify(struct tb_io *io, const char *path, struct tb_error *err)
{
    struct tb_copy_reader r = {0};
    enum tb_rc rc = tb_copy_reader_open(&r, io, path, err);
    while (rc == TB_OK && (rc = tb_copy_reader_step(&r, err)) == TB_OK && r.n > 0)
        ;
    tb_copy_reader_close(&r);
    return rc;
}

/* ---- putting it back ---- */

static enum tb_rc write_pages(struct tb_copy_reader *r, int fd, const char *index_path, struct tb_error *err)
{
    for (;;) {
        uint64_t at = r->at;
        enum tb_rc rc = tb_copy_reader_step(r, err);
        if (rc != TB_OK)
            return rc;
        if (r->n == 0)
            break;
        int64_t n = tb_io_pwrite(r->io, fd, r->pages, r->n * TB_COPY_PAGE, at * TB_COPY_PAGE);
        if (n != (int64_t)r->n * TB_COPY_PAGE)
            return tb_error_set(err, n == -ENOSPC ? TB_NOSPACE : TB_IO, n < 0 ? (int)-n : EIO, "%s cannot be written",
                                index_path);
    }
    int sync = tb_io_sync(r->io, fd);
    return sync < 0 ? tb_error_set(err, TB_IO, -sync, "%s cannot be synced", index_path) : TB_OK;
}

enum tb_rc tb_copy_restore_to(struct tb_io *io, const char *path, const char *index_path, struct tb_disk_ckpt *ckpt,
                              struct tb_error *err)
{
    struct tb_copy_reader r = {0};
    enum tb_rc rc = tb_copy_reader_open(&r, io, path, err);
    if (rc == TB_OK) {
        int fd = tb_io_file_open(io, index_path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
        if (fd < 0) {
            rc = tb_error_set(err, fd == -ENOSPC ? TB_NOSPACE : TB_IO, -fd, "%s cannot be made", index_path);
        } else {
            rc = write_pages(&r, fd, index_path, err);
            (void)tb_io_file_close(io, fd); /* synced above */
            if (rc != TB_OK)
                (void)tb_io_unlink(io, index_path);
        }
    }
    *ckpt = r.head.ckpt;
    tb_copy_reader_close(&r);
    return rc;
}

enum tb_rc tb_copy_newest(struct tb_io *io, const char *shard_dir, const uint8_t *uuid, uint32_t shard, uint64_t limit,
                          unsigned *number, struct tb_disk_copy *out, struct tb_error *err)
{
    struct tb_disk_copy head[TB_COPIES];
    char path[TB_COPY_PATH];
    bool usable[TB_COPIES];
    enum tb_rc last = TB_NOTFOUND;
    for (unsigned i = 0; i < TB_COPIES; i++) {
        tb_copy_path(shard_dir, i, path);
        last = tb_copy_open(io, path, uuid, shard, &head[i], err);
        usable[i] = last == TB_OK && head[i].ckpt.applied <= limit;
    }
    for (;;) {
        unsigned best = TB_COPIES;
        for (unsigned i = 0; i < TB_COPIES; i++)
            if (usable[i] && (best == TB_COPIES || head[i].ckpt.applied > head[best].ckpt.applied))
                best = i;
        if (best == TB_COPIES)
            return last == TB_OK
                       ? tb_error_set(err, TB_NOTFOUND, 0, "%s has no index copy that is old enough", shard_dir)
                       : TB_NOTFOUND;
        tb_copy_path(shard_dir, best, path);
        last = tb_copy_verify(io, path, err);
        if (last == TB_OK) {
            *number = best;
            *out = head[best];
            return TB_OK;
        }
        usable[best] = false;
    }
}
