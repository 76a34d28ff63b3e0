/*
 * frames.c: frames in a piece of memory, checked one after the other. It trusts nothing: lengths, positions, checksums
 * and the chain are all looked at before a byte is believed. Pure. Any thread.
 */
#include "engine/log/frames.h"

uint32_t tb_frames_seed(const uint8_t uuid[16], uint32_t shard)
{
    return tb_crc32c(tb_crc32c(0, uuid, 16), &shard, 4);
}

/* look: the header at the front, if it can be a frame's that lies at f->at. */
static bool look(const struct tb_frames *f, const uint8_t *buf, struct tb_disk_frame *h)
{
    memcpy(h, buf, sizeof(*h));
    return h->magic == TB_FRAME_MAGIC && h->lsn == f->at && h->len >= sizeof(*h) && h->len <= TB_FRAMES_BYTES_MAX &&
           (!f->chained || h->chain == f->chain);
}

/* first_time: does the frame's first record say the time? Its bytes were checked with the frame. */
static bool first_time(const uint8_t *buf, const struct tb_disk_frame *h, int64_t *ms)
{
    struct tb_disk_record r;
    if (h->records == 0 || h->len < sizeof(*h) + sizeof(r) + sizeof(*ms))
        return false;
    memcpy(&r, buf + sizeof(*h), sizeof(r));
    if (r.type != TB_REC_TIME || r.len != sizeof(*ms))
        return false;
    memcpy(ms, buf + sizeof(*h) + sizeof(r), sizeof(*ms));
    return true;
}

bool tb_frames_peek(const struct tb_frames *f, const uint8_t *buf, size_t len, int64_t *time_ms)
{
    struct tb_disk_frame h;
    return len >= sizeof(h) && look(f, buf, &h) && len >= h.len && tb_crc32c(f->seed, buf + 8, h.len - 8) == h.crc &&
           first_time(buf, &h, time_ms);
}

int64_t tb_frames_next(struct tb_frames *f, const uint8_t *buf, size_t len, size_t *need)
{
    struct tb_disk_frame h;
    *need = sizeof(h);
    if (len < sizeof(h))
        return 0;
    if (!look(f, buf, &h))
        return -1;
    *need = h.len;
    if (len < h.len)
        return 0;
    if (tb_crc32c(f->seed, buf + 8, h.len - 8) != h.crc)
        return -1;
    f->last = f->at;
    f->at += h.len;
    f->chain = h.crc;
    f->chained = true;
    f->sealed = h.flags & TB_FRAME_SEALS;
    f->timed = first_time(buf, &h, &f->time_ms);
    return h.len;
}

bool tb_frames_header(const uint8_t *block, const uint8_t uuid[16], uint32_t shard, uint32_t segment,
                      uint64_t segment_bytes)
{
    struct tb_disk_segment h;
    memcpy(&h, block, sizeof(h));
    uint32_t crc = h.crc;
    h.crc = 0;
    return memcmp(h.magic, TB_SEGMENT_MAGIC, 8) == 0 && tb_crc32c(0, &h, sizeof(h)) == crc &&
           h.format >= TB_FORMAT_OLDEST && h.format <= TB_FORMAT && memcmp(h.uuid, uuid, 16) == 0 && h.shard == shard &&
           h.segment == segment && h.segment_bytes == segment_bytes;
}
