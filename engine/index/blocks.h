/*
 * blocks.h: packed UID blocks: message rows, cached envelopes, the change log. Values of at most TB_VALUE_MAX bytes
 * keyed by (acct, mbox, first uid or modseq); a block's key stays when its first row goes (it is a lower bound). Errors
 * are sticky in the index (X3). Thread: the shard's owner.
 */
#ifndef TB_BLOCKS_H
#define TB_BLOCKS_H

#include "engine/index/format.h"
#include "engine/index/index.h"

enum { TB_ROWS_PER_BLOCK = (TB_VALUE_MAX - 16) / 64, TB_CACHE_CLEN_MAX = TB_VALUE_MAX - 16 - 12 };

struct tb_key {
    uint8_t bytes[TB_KEY_MAX];
    size_t len;
};
static inline struct tb_slice tb_key_slice(const struct tb_key *k)
{
    return tb_slice(k->bytes, k->len);
}
void tb_key_begin(struct tb_key *k);
void tb_key_u16(struct tb_key *k, uint16_t v);
void tb_key_u32(struct tb_key *k, uint32_t v);
void tb_key_u64(struct tb_key *k, uint64_t v);
void tb_key_bytes(struct tb_key *k, struct tb_slice s); /* cut at TB_KEY_MAX */

/* Rows, in ascending UID. */
void tb_rows_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_row *row);
bool tb_rows_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t uid, struct tb_disk_row *out);
/* tb_rows_scan: rows with UID >= from, up to max of them. Cost: a packed scan. */
size_t tb_rows_scan(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t from, struct tb_disk_row *out,
                    size_t max);
/*
 * tb_rows_uids: add the UIDs of rows from `from` on and below *end to set, until there are max or a block more; returns
 * how many. *end: where it stopped. Cost: the blocks; where UIDs lie close together no row is looked at.
 */
uint32_t tb_rows_uids(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t from, uint32_t *end, uint32_t max,
                      struct tb_uidset *set);
/*
 * tb_rows_newer: the lowest UID from which on every row has a modseq above since; UINT32_MAX if the last one has not.
 * All that arrived after since lies there, for arrivals take ascending UIDs and modseqs. Cost: those rows.
 */
uint32_t tb_rows_newer(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t since);
enum tb_edit { TB_EDIT_KEEP, TB_EDIT_CHANGED, TB_EDIT_REMOVE };
/* tb_rows_edit: pass every row whose UID is in the ranges to fn; each touched block is written once. */
void tb_rows_edit(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_range *ranges, size_t n,
                  enum tb_edit (*fn)(void *user, struct tb_disk_row *row), void *user);

/* Cached envelopes. */
void tb_cache_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_cache *head,
                     const void *data);
/* tb_cache_get: *data in the map, valid until the next write. */
bool tb_cache_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t uid, struct tb_disk_cache *head,
                  struct tb_slice *data);
void tb_cache_remove(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_range *ranges, size_t n);

/* The change log of a mailbox. */
void tb_chg_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t modseq, uint8_t kind,
                   const struct tb_range *ranges, size_t n);
/* tb_chg_scan: changes with modseq > since, ascending; fn returns false to stop. */
void tb_chg_scan(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t since,
                 bool (*fn)(void *user, uint64_t modseq, uint8_t kind, struct tb_range range), void *user);

/* tb_blocks_drop: delete every entry of a database under (acct, mbox). */
void tb_blocks_drop(struct tb_index *ix, enum tb_db db, uint32_t acct, uint32_t mbox);

#endif
