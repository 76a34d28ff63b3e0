/*
 * segment.h: one log file: its name, its making, its header. Private to the log.
 */
#ifndef TB_SEGMENT_H
#define TB_SEGMENT_H

#include "engine/log/log.h"

enum { TB_PATH_MAX = 1024 };

/* tb_segment_path: "DIR/00000007.seg". */
void tb_segment_path(const char *dir, uint32_t number, char out[TB_PATH_MAX]);
/* tb_segment_spare_path: "DIR/00000007.seg.free": a segment that was freed and waits to be used again. */
void tb_segment_spare_path(const char *dir, uint32_t number, char out[TB_PATH_MAX + 8]);
/* tb_segment_number: the number in a file's name; false if it is not a segment's. *spare: a freed one's. */
bool tb_segment_number(const char *name, uint32_t *number, bool *spare);
/*
 * tb_segment_make: a whole pre-written segment under its final name, durable (R3). Blocks; runs on a helper thread.
 * Pre-writing real zeros halves the cost of every later durable write: no extent changes, so no journal commit.
 * Returns 0 or -errno (-ENOSPC: nothing is left behind).
 */
int tb_segment_make(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number);
/*
 * tb_segment_free: take a segment's name away, durably. keep: rename it to a spare instead of removing it, unless
 * something else links it (R3: a backup's bytes must not be written over). Blocks; runs on a helper thread. Returns 1:
 * kept as a spare; 0: gone; -errno: it may or may not come back after a power cut.
 */
int tb_segment_free(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number, bool keep);
/*
 * tb_segment_reuse: a spare becomes a whole segment under its final name, durable (R3). Its blocks are written already,
 * and what they hold are frames of another position: stale. Blocks. 0 or -errno (the spare is gone, or still there).
 */
int tb_segment_reuse(struct tb_io *io, const struct tb_log_config *cfg, uint32_t spare, uint32_t number);
/* tb_segment_check: does the file begin with our header for this number? OK, CORRUPT with err, IO. */
enum tb_rc tb_segment_check(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number,
                            struct tb_error *err) TB_USE_RESULT;

/*
 * tb_segment_mend: write a segment's header anew, durably. Only where its frames are known to be ours: they carry the
 * store, the shard and their position in their checksums, so the header adds nothing but an early word. Blocks. 0 or
 * -errno.
 */
int tb_segment_mend(struct tb_io *io, const struct tb_log_config *cfg, uint32_t number);

#endif
