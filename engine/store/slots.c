/*
 * slots.c: SUPER and CKPT: small truths in two alternating slots. A torn write loses at most the slot being written;
 * the other one is the truth before it. Blocks: start-up only, but for the checkpoint's own writes in checkpoint.c.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdlib.h>

enum tb_rc tb_slot_read(struct tb_io *io, const char *path, tb_slot_check check, uint8_t block[TB_BLOCK],
                        struct tb_error *err)
{
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_NOTFOUND : TB_IO, -fd, "%s cannot be opened", path);
    tb_io_file_forget(io, fd); /* a slot whose sync failed is not there, whatever the page cache thinks */
    uint8_t slot[TB_BLOCK];
    uint64_t best = 0;
    bool found = false;
    int64_t n = 0;
    for (unsigned i = 0; i < 2 && n >= 0; i++) {
        uint64_t seq = 0;
        n = tb_io_pread_sure(io, fd, slot, TB_BLOCK, (uint64_t)i * TB_SLOT_STRIDE);
        if (n == TB_BLOCK && check(slot, &seq) && (!found || seq > best)) {
            memcpy(block, slot, TB_BLOCK);
            best = seq;
            found = true;
        }
    }
    (void)tb_io_file_close(io, fd);
    if (n < 0) /* a torn slot is told by its checksum; one that cannot be read may be the newer truth */
        return tb_error_set(err, TB_IO, (int)-n, "%s cannot be read", path);
    return found ? TB_OK : tb_error_set(err, TB_CORRUPT, 0, "%s: neither of its two copies is valid", path);
}

enum tb_rc tb_slot_write(struct tb_io *io, const char *path, uint64_t seq, const void *data, size_t len,
                         struct tb_error *err)
{
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOSPC ? TB_NOSPACE : TB_IO, -fd, "%s cannot be written", path);
    uint8_t block[TB_BLOCK] = {0};
    memcpy(block, data, len);
    int64_t n = 0;
    if (tb_io_file_size(io, fd) < TB_SLOT_STRIDE + TB_BLOCK) { /* a new file: the other slot is written as zeros */
        uint8_t zero[TB_BLOCK] = {0};
        n = tb_io_pwrite(io, fd, zero, TB_BLOCK, (~seq & 1) * TB_SLOT_STRIDE);
    }
    if (n >= 0)
        n = tb_io_pwrite(io, fd, block, TB_BLOCK, (seq & 1) * TB_SLOT_STRIDE);
    int rc = n == TB_BLOCK ? tb_io_sync(io, fd) : n < 0 ? (int)n : -EIO;
    (void)tb_io_file_close(io, fd);
    return rc < 0 ? tb_error_set(err, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "%s cannot be written", path) : TB_OK;
}

void tb_ckpt_seal(struct tb_disk_ckpt *c)
{
    memcpy(c->magic, TB_CKPT_MAGIC, 8);
    c->format = TB_FORMAT;
    c->crc = 0;
    c->crc = tb_crc32c(0, c, sizeof(*c));
}

bool tb_ckpt_check(const uint8_t *block, uint64_t *seq)
{
    struct tb_disk_ckpt c;
    memcpy(&c, block, sizeof(c));
    uint32_t want = c.crc;
    c.crc = 0;
    *seq = c.seq;
    return memcmp(c.magic, TB_CKPT_MAGIC, 8) == 0 && tb_crc32c(0, &c, sizeof(c)) == want;
}
