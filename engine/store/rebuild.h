/*
 * rebuild.h: an index that cannot be trusted, looked at and made again from what can. Private to engine/store.
 *
 * A shard is *suspect* while the file SUSPECT lies in its folder: its index failed a checksum, contradicted a record,
 * or the process crashed. Whoever opens it next walks the index first (walk.h), and makes it again if it is damaged:
 * from the newest copy that is whole (copy.h), else from the first segment, and in both cases the log from there on.
 * Numbers (UIDs, UIDVALIDITY, MODSEQ) come out as they were, because records carry them.
 */
#ifndef TB_STORE_REBUILD_H
#define TB_STORE_REBUILD_H

#include "engine/store/shard.h"

enum tb_suspicion {
    TB_TRUSTED,
    TB_SUSPECT,  /* look at the index */
    TB_CONDEMNED /* make it again, whatever it looks like */
};
enum tb_suspicion tb_suspicion(struct tb_io *io, const char *shard_dir);
/* tb_suspect: say so; a stronger suspicion stays. Best effort: a disk that cannot take it has worse to tell. */
void tb_suspect(struct tb_io *io, const char *shard_dir, enum tb_suspicion how);
/* tb_suspect_clear: it was opened whole: the mark and the index that was replaced go. */
void tb_suspect_clear(struct tb_io *io, const char *shard_dir);

/*
 * tb_index_sound: walk a closed index from the meta of its checkpoint record. False: err says the first finding.
 * Blocks: about 1.5 GB/s from the page cache.
 */
bool tb_index_sound(struct tb_io *io, const char *shard_dir, struct tb_error *err);
/*
 * tb_index_rebuild: make a closed shard's index again, up to where a copy ends, or empty; the log from there on is then
 * replayed by whoever opens it. cfg: of its log. OK; CORRUPT: the
 * log cannot give what the index held (err says what is missing): nothing was changed; IO, NOSPACE, LIMIT. Blocks.
 */
enum tb_rc tb_index_rebuild(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir,
                            struct tb_error *err) TB_USE_RESULT;
/* tb_index_walks: are all pages and values of a closed index file whole, from this meta body on? */
bool tb_index_walks(struct tb_io *io, const char *path, const uint8_t meta[TB_META_BYTES], struct tb_error *err);
/* tb_index_empty: a new index that holds the log up to `first` and nothing; *ckpt gets txnid, applied and meta. */
enum tb_rc tb_index_empty(struct tb_io *io, const char *path, uint64_t segment_bytes, uint64_t first,
                          struct tb_disk_ckpt *ckpt, struct tb_error *err) TB_USE_RESULT;

#endif
