/*
 * segment.c: log files. A segment exists under its final name only when every block of it has been written and synced,
 * so a crash while one is made leaves at most a *.new file, which the next making overwrites.
 *
 *   (nothing) --make: *.new, filled, synced, renamed--> NNN.seg --free--> nothing, or NNN.seg.free --reuse--> MMM.seg
 *
 * A spare is written to only after its old name is durably gone, so no crash shows its new header under the old name.
 * Thread: any (all but the names run on a helper); touches no shared state.
 */
#include "engine/log/segment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"

enum { FILL_BYTES = 1 << 20 };

void tb_segment_path(const char *dir, uint32_t number, char out[TB_PATH_MAX])
{
    (void)snprintf(out, TB_PATH_MAX, "%s/%08x.seg", dir, number);
}

void tb_segment_spare_path(const char *dir, uint32_t number, char out[TB_PATH_MAX + 8])
{
    (void)snprintf(out, TB_PATH_MAX + 8, "%s/%08x.seg.free", dir, number);
}

bool tb_segment_number(const char *name, uint32_t *number, bool *spare)
{
    if (strlen(name) < 12 || (strcmp(name + 8, ".seg") != 0 && strcmp(name + 8, ".seg.free") != 0))
        return false;
    *spare = name[12] != '\0';
    uint32_t n = 0;
    for (int i = 0; i < 8; i++) {
        char c = name[i];
        if (c >= '0' && c <= '9')
            n = n << 4 | (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            n = n << 4 | (uint32_t)(c - 'a' + 10);
        else
            return false;
    }
    *number = n;
    return true;
}

static void header_fill(const struct tb_log_config *cfg, uint32_t number, uint32_t format, struct tb_disk_segment *h)
{
    memset(h, 0, sizeof(*h));
    memcpy(h->magic, TB_SEGMENT_MAGIC, 8);
    h->format = format;
    memcpy(h->uuid, cfg->uuid, 16);
    h->shard = cfg->shard;
    h->segment = number;
    h->segment_bytes = cfg->segment_bytes;
    h->crc = tb_crc32c(0, h, sizeof(*h));
}

static int fill(struct tb_io *io, const struct tb_log_config *cfg, int fd, uint8_t *block, uint32_t number)
{
    int rc = tb_io_file_reserve(io, fd, cfg->segment_bytes);
    if (rc < 0)
        return rc;
    for (uint64_t at = 0; at < cfg->segment_bytes; at += FILL_BYTES) {
        struct tb_disk_segment h;
        memset(block, 0, sizeof(h));
        if (at == 0) {
            header_fill(cfg, number, TB_FORMAT, &h);
            memcpy(block, &h, sizeof(h));
        }
        int64_t n = tb_io_pwrite(io, fd, block, FILL_BYTES, at);
        if (n != FILL_BYTES)
            return n < 0 ? (int)n : -EIO;
    }
    return TB_KEEPS(segsync) ? tb_io_sync(io, fd) : 0;
}

int tb_segment_make(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number)
{
    char final[TB_PATH_MAX], fresh[TB_PATH_MAX + 4];
    tb_segment_path(cfg->dir, number, final);
    (void)snprintf(fresh, sizeof(fresh), "%s.new", final);
    (void)tb_io_unlink(io, fresh); /* debris of an earlier crash, usually absent */
    uint8_t *block = aligned_alloc(TB_BLOCK, FILL_BYTES);
    if (block == NULL)
        return -ENOMEM;
    memset(block, 0, FILL_BYTES);
    int rc = tb_io_file_open(io, fresh, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_DIRECT);
    if (rc >= 0) {
        int fd = rc;
        rc = fill(io, cfg, fd, block, number);
        (void)tb_io_file_close(io, fd); /* synced above: nothing is left to report */
        if (rc == 0)
            rc = tb_io_rename(io, fresh, final);
        if (rc == 0 && TB_KEEPS(segname))
            rc = tb_io_sync_dir(io, cfg->dir);
        if (rc < 0)
            (void)tb_io_unlink(io, fresh);
    }
    free(block);
    return rc < 0 ? rc : 0;
}

int tb_segment_free(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number, bool keep)
{
    char path[TB_PATH_MAX], spare[TB_PATH_MAX + 8];
    tb_segment_path(cfg->dir, number, path);
    tb_segment_spare_path(cfg->dir, number, spare);
    if (keep) {
        int fd = tb_io_file_open(io, path, TB_OPEN_READ);
        keep = fd >= 0 && tb_io_links(io, fd) == 1;
        if (fd >= 0)
            (void)tb_io_file_close(io, fd); /* read only */
    }
    int rc = keep ? tb_io_rename(io, path, spare) : tb_io_unlink(io, path);
    if (rc == 0)
        rc = tb_io_sync_dir(io, cfg->dir);
    return rc < 0 ? rc : keep;
}

/* reheader: the spare begins with the new number's header, durably. */
static int reheader(struct tb_io *io, const struct tb_log_config *cfg, int fd, uint32_t number)
{
    uint8_t *block = aligned_alloc(TB_BLOCK, TB_BLOCK);
    struct tb_disk_segment h;
    if (block == NULL)
        return -ENOMEM;
    header_fill(cfg, number, TB_FORMAT, &h);
    memset(block, 0, TB_BLOCK);
    memcpy(block, &h, sizeof(h));
    int64_t n = tb_io_file_size(io, fd) == (int64_t)cfg->segment_bytes ? tb_io_pwrite(io, fd, block, TB_BLOCK, 0)
                                                                       : -EINVAL;
    free(block);
    if (n != TB_BLOCK)
        return n < 0 ? (int)n : -EIO;
    return tb_io_sync(io, fd);
}

int tb_segment_reuse(struct tb_io *io, const struct tb_log_config *cfg, uint32_t spare, uint32_t number)
{
    char from[TB_PATH_MAX + 8], to[TB_PATH_MAX];
    tb_segment_spare_path(cfg->dir, spare, from);
    tb_segment_path(cfg->dir, number, to);
    int fd = tb_io_file_open(io, from, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    if (fd < 0)
        return fd;
    int rc = reheader(io, cfg, fd, number);
    (void)tb_io_file_close(io, fd); /* synced above: nothing is left to report */
    if (rc == 0)
        rc = tb_io_rename(io, from, to);
    if (rc == 0)
        rc = tb_io_sync_dir(io, cfg->dir);
    else
        (void)tb_io_unlink(io, from);
    return rc;
}

enum tb_rc tb_segment_check(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number, struct tb_error *err)
{
    char path[TB_PATH_MAX];
    tb_segment_path(cfg->dir, number, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_NOTFOUND : TB_IO, -fd, "log segment %s cannot be opened", path);
    struct tb_disk_segment h, want;
    int64_t n = tb_io_pread_sure(io, fd, &h, sizeof(h), 0);
    int64_t size = tb_io_file_size(io, fd);
    (void)tb_io_file_close(io, fd);
    if (n < 0)
        return tb_error_set(err, TB_IO, (int)-n, "log segment %s cannot be read", path);
    bool known = n == (int64_t)sizeof(h) && h.format >= TB_FORMAT_OLDEST && h.format <= TB_FORMAT;
    header_fill(cfg, number, known ? h.format : TB_FORMAT, &want);
    if (!known || memcmp(&h, &want, sizeof(h)) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "log segment %s has a damaged or foreign header", path);
    if (size != (int64_t)cfg->segment_bytes)
        return tb_error_set(err, TB_CORRUPT, 0, "log segment %s has a wrong size", path);
    return TB_OK;
}

int tb_segment_mend(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number)
{
    char path[TB_PATH_MAX];
    tb_segment_path(cfg->dir, number, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    if (fd < 0)
        return fd;
    int rc = reheader(io, cfg, fd, number);
    (void)tb_io_file_close(io, fd); /* synced above: nothing is left to report */
    return rc;
}
