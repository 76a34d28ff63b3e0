/*
 * frames.h: frames in a piece of memory, checked one after the other: for whoever reads a log that is not open here (a
 * backup, what is about to become one). Pure. Any thread.
 */
#ifndef TB_FRAMES_H
#define TB_FRAMES_H

#include "engine/log/format.h"

struct tb_frames {
    uint32_t seed; /* tb_frames_seed */
    uint64_t at;   /* position of the next frame */
    uint64_t last; /* of the one before; 0: none yet */
    uint32_t chain;
    bool chained;    /* chain is known: the next frame must name it */
    bool sealed;     /* the frame before was its segment's last: `at` is behind it */
    bool timed;      /* the frame before began with a TIME */
    int64_t time_ms; /* the last TIME met */
};
/* tb_frames_seed: of the frames' checksums in this store and shard. */
uint32_t tb_frames_seed(const uint8_t uuid[16], uint32_t shard);
enum { TB_FRAMES_BYTES_MAX = 3 << 20 }; /* no frame is longer */
/*
 * tb_frames_next: check the frame at the front of buf, whose first byte lies at f->at. > 0: its length; f has moved on
 * (at stays in its segment, also behind a seal). 0: all of it must be there: *need bytes. -1: this is no valid frame.
 */
int64_t tb_frames_next(struct tb_frames *f, const uint8_t *buf, size_t len, size_t *need);
/* tb_frames_peek: the TIME of the valid frame at the front of buf, before tb_frames_next takes it: false if it has
 * none. */
bool tb_frames_peek(const struct tb_frames *f, const uint8_t *buf, size_t len, int64_t *time_ms);
/* tb_frames_header: is this a segment's first block, of this store, shard and number? */
bool tb_frames_header(const uint8_t *block, const uint8_t uuid[16], uint32_t shard, uint32_t segment,
                      uint64_t segment_bytes);

#endif
