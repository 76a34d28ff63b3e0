/*
 * piece.h: one stretch of a log segment on its way into a backup: walked frame by frame, written, read again. Private
 * to engine/store. Any thread, one at a time; every call blocks for a few milliseconds of work.
 */
#ifndef TB_PIECE_H
#define TB_PIECE_H

#include "engine/log/frames.h"
#include "engine/store/manifest.h"

enum tb_piece_stage { PIECE_ADOPT, PIECE_COPY, PIECE_CHECK, PIECE_DONE };
struct tb_piece {
    struct tb_io *io;
    const char *dest; /* borrowed */
    struct tb_disk_super super;
    char source[TB_PATH + 64]; /* the segment's file */
    struct tb_part part;       /* part.to is 0 until its end is met */
    uint64_t stop;           /* position where the log of this backup ends, or 0: at the frame that seals the segment */
    struct tb_frames frames; /* where the walk is; carries the chain from one piece to the next */
    struct tb_frames begin;  /* where it began */
    enum tb_piece_stage stage;
    bool raw_ok; /* no replay needs this segment: if a frame is damaged, its bytes are copied as they are */
    bool raw;    /* it came to that */
    bool found;  /* it was in the folder already: a backup that did not come to its end left it */
    int in, out;
    uint64_t base, limit; /* offset in the segment of the first byte of `in`, and behind its last */
    uint64_t at;          /* offset in the segment */
    struct tb_sha256 sha;
    uint8_t *buf;         /* owned, aligned, TB_PIECE_BUF */
    uint64_t slice_bytes; /* moved by the last step */
};
enum { TB_PIECE_BUF = 4 << 20 };

/*
 * tb_piece_begin: a piece of a segment from offset `from`. frames: chain, chained, last and seed as they stand behind
 * the byte before; kept in the piece. buf is allocated at the first one and reused. IO, LIMIT.
 */
enum tb_rc tb_piece_begin(struct tb_piece *p, uint32_t shard, uint32_t segment, uint64_t from, uint64_t stop,
                          struct tb_error *err) TB_USE_RESULT;
/*
 * tb_piece_step: some more of it. When stage is PIECE_DONE afterwards, part describes a file that lies under its final
 * name, synced and read again. CORRUPT: a frame of the source is damaged, or its chain is another log's.
 */
enum tb_rc tb_piece_step(struct tb_piece *p, struct tb_error *err) TB_USE_RESULT;
/* tb_piece_end: close files; keep: the buffer is kept for the next one. */
void tb_piece_end(struct tb_piece *p, bool keep);

#endif
