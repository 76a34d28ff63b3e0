/*
 * compact.h: an index file that is mostly free pages, written anew without them. Private to engine/store.
 *
 * LMDB uses free pages again and never gives them back. Compaction copies every entry of the confirmed snapshot, in key
 * order, into a new file; the log is not touched, and all numbers are what they were. It happens to a closed index: at
 * a start, where little is in use, or when a person asks for it.
 *
 *   index.mdb.compact  being written: debris after a crash
 *   index.mdb.next     whole, read back and synced, under a durable name
 *
 * C1 the file takes index.mdb's place only when CKPT says so, durably (TB_CKPT_NEXT): until then index.mdb.next is
 * debris, from then on index.mdb is. C2 whoever wants the index calls tb_index_settle first, or reads what
 * tb_index_place names. C3 nothing damaged is carried over: a walk (walk.h) reads the old file and then the new one.
 */
#ifndef TB_STORE_COMPACT_H
#define TB_STORE_COMPACT_H

#include <tambo/check.h>
#include "engine/store/shard.h"

enum { TB_INDEX_PATH = TB_PATH + 32 };

/*
 * tb_index_settle: finish or drop a compaction that a crash ended (C1). Before anything opens the index for writing.
 * OK: index.mdb is what CKPT names, as far as that can be told; IO. Blocks. Cost without debris: one open.
 */
enum tb_rc tb_index_settle(struct tb_io *io, const char *shard_dir, struct tb_error *err) TB_USE_RESULT;
/* tb_index_place: where the index lies that the checkpoint record names, for those who may not settle. */
void tb_index_place(struct tb_io *io, const char *shard_dir, const struct tb_disk_ckpt *ckpt, char path[TB_INDEX_PATH]);

/* tb_compact_due: is it worth while a start waits? used, high: pages. min: of the configuration. */
bool tb_compact_due(uint64_t min, uint64_t used, uint64_t high);
/*
 * tb_compact_make: write index.mdb.next from the snapshot that ckpt names. *fresh: the checkpoint record that goes with
 * it, not sealed. OK; CORRUPT the index is damaged; NOSPACE, IO, LIMIT: nothing was changed, no file is left. Blocks:
 * about 0.3 s for each 100 MB in use.
 */
enum tb_rc tb_compact_make(struct tb_io *io, const char *shard_dir, const struct tb_disk_ckpt *ckpt,
                           struct tb_disk_ckpt *fresh, struct tb_error *err) TB_USE_RESULT;
/*
 * tb_compact_take: write CKPT, and so make index.mdb.next the index. *ckpt: what tb_compact_make gave; sealed here. OK;
 * IO: which of both is the index is known after the next tb_index_settle alone. Blocks.
 */
enum tb_rc tb_compact_take(struct tb_io *io, const char *shard_dir, struct tb_disk_ckpt *ckpt,
                           struct tb_error *err) TB_USE_RESULT;
/*
 * tb_compact_install: an index made elsewhere (the file at `path`, whole, synced and closed) takes the place of what
 * there is. *ckpt tells its txnid, applied, last, chain and meta, and is completed here; seq: of the record before. OK;
 * IO, as tb_compact_take. Blocks.
 */
enum tb_rc tb_compact_install(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir,
                              const char *path, uint64_t seq, struct tb_disk_ckpt *ckpt,
                              struct tb_error *err) TB_USE_RESULT;
/* tb_compact_shard: both, on a shard that nobody has open; counts into out. */
enum tb_rc tb_compact_shard(struct tb_io *io, const char *shard_dir, struct tb_compacted *out,
                            struct tb_error *err) TB_USE_RESULT;

#endif
