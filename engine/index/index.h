/*
 * index.h: the mailbox index of one shard: an LMDB environment, one open write transaction as memtable, checksummed
 * values. The only folder that includes <lmdb.h>.
 *
 * Invariants
 * X1 one transaction is open from tb_index_begin to tb_index_commit; its owner reads and writes through it; there are
 * no others but snapshots that are copied, and nobody reads through those. X2 every value carries a CRC32C over its
 * database, key and bytes; a mismatch is an error, never data; in the cache, which is derived, it is no entry. X3 the
 * first error is kept (tb_index_rc): later calls do nothing and find nothing; the shard then fails closed (R8). X4
 * values are at most TB_VALUE_MAX bytes: one LMDB overflow page. Thread: the shard's owner.
 */
#ifndef TB_INDEX_H
#define TB_INDEX_H

#include <tambo/io.h>

enum { TB_VALUE_MAX = 4076, TB_KEY_MAX = 511 }; /* + 4 bytes of checksum = 4080 */

enum tb_db {
    TB_DB_STATE,   /* "state" -> tb_disk_state */
    TB_DB_ACCT,    /* acct -> tb_disk_acct, name */
    TB_DB_MBOX,    /* acct, mbox -> tb_disk_mbox, leaf name */
    TB_DB_TREE,    /* acct, parent, leaf name -> mbox */
    TB_DB_MSG,     /* acct, mbox, first uid -> block of rows */
    TB_DB_CACHE,   /* acct, mbox, first uid -> block of compressed envelopes */
    TB_DB_CHG,     /* acct, mbox, first modseq -> block of changes */
    TB_DB_BLOB,    /* blob -> tb_disk_blob */
    TB_DB_BODY,    /* body -> tb_disk_body, chunk list in BODYX when long */
    TB_DB_BODYX,   /* body, piece -> chunk list pieces */
    TB_DB_HASH,    /* acct, hmac -> body; 2^32 - 1, body -> that key */
    TB_DB_TRASH,   /* due, acct, mbox, uid -> row */
    TB_DB_SEG,     /* segment -> tb_disk_seg */
    TB_DB_DICT,    /* dictionary id -> description (later) */
    TB_DB_SUB,     /* acct, name -> nothing */
    TB_DB_KEYWORD, /* acct, mbox, bit -> name */
    TB_DB_ANNOT,   /* acct, mbox (0: of the account), entry, NUL, n -> value from 3840 * n on */
    TB_DB_PLACE,   /* acct -> shard, name, secret: shard 0 only */
    TB_DB_QUEUE,   /* queue id -> position and length of the QUEUE record */
    TB_DB_DONE,    /* delivery id -> time: deliveries that arrived through another shard's queue */
    TB_DB_BAD,     /* blob -> tb_disk_bad: quarantined */
    TB_DB_ACL,     /* acct, mbox, user, negative u8 -> tb_disk_acl, name; 2^32 - 1, user, acct, mbox -> nothing */
    TB_DBS
};

struct tb_index; /* opaque */

/* tb_index_db_name: a database's name in the environment. */
const char *tb_index_db_name(enum tb_db db);
/* tb_index_value_crc: the checksum that ends a value. */
uint32_t tb_index_value_crc(enum tb_db db, struct tb_slice key, struct tb_slice value);

enum { TB_META_BYTES = 136 }; /* an LMDB 0.9 meta page's body: MDB_DATA_VERSION 1 */

/*
 * tb_index_open: open (or with create, make) the environment. roll_back must have run first (R20). Blocks.
 */
enum tb_rc tb_index_open(const char *path, bool create, struct tb_index **out, struct tb_error *err) TB_USE_RESULT;
void tb_index_close(struct tb_index *ix); /* an open transaction is thrown away */
/*
 * tb_index_roll_back: put the confirmed meta page in place of a newer one, on the closed file, and remove the stale
 * lock file. txnid, meta  of the checkpoint record. CORRUPT: the file does not hold that transaction. LMDB never
 * overwrites pages of the last two snapshots, and T+1 is not committed before T is confirmed (S5): so the confirmed
 * snapshot is whole whatever of T+1 reached the disk.
 */
enum tb_rc tb_index_roll_back(struct tb_io *io, const char *path, uint64_t txnid, const uint8_t meta[TB_META_BYTES],
                              struct tb_error *err) TB_USE_RESULT;

/* tb_index_begin: open the one transaction (X1). */
enum tb_rc tb_index_begin(struct tb_index *ix) TB_USE_RESULT;
/* tb_index_commit: to the page cache only (NOSYNC): *txnid is what a later sync confirms. Ends the transaction. */
enum tb_rc tb_index_commit(struct tb_index *ix, uint64_t *txnid) TB_USE_RESULT;
/* tb_index_meta: the meta body of the last committed transaction, read through fd, an io's descriptor of the same file.
 */
enum tb_rc tb_index_meta(struct tb_index *ix, struct tb_io *io, int fd, uint64_t txnid,
                         uint8_t meta[TB_META_BYTES]) TB_USE_RESULT;
enum tb_rc tb_index_rc(const struct tb_index *ix);
const char *tb_index_error(const struct tb_index *ix);
/* tb_index_pages: pages in use by the trees, and the file's high-water mark in pages. */
void tb_index_pages(struct tb_index *ix, uint64_t *used, uint64_t *high);

/* tb_index_entries: how many a database has. */
uint64_t tb_index_entries(struct tb_index *ix, enum tb_db db);
/* tb_index_soft: damaged entries of the cache that were met: each is as good as not there. */
uint64_t tb_index_soft(const struct tb_index *ix);
/*
 * tb_index_snapshot_begin: keep the pages of the last committed transaction from being written over until
 * tb_index_snapshot_end (a read transaction; X1's other one). They may be read from the file by any thread. NULL: that
 * is not the last one, or there is no reader slot. The file grows meanwhile: end it soon.
 */
struct tb_snapshot;
struct tb_snapshot *tb_index_snapshot_begin(struct tb_index *ix, uint64_t txnid);
void tb_index_snapshot_end(struct tb_snapshot *snap);
/* tb_index_meta_pages: how many pages a snapshot has, by its meta body. */
uint64_t tb_index_meta_pages(const uint8_t meta[TB_META_BYTES]);

/* tb_index_get: false if there is none (or X3). *value: in the map, valid until the next write. */
bool tb_index_get(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice *value);
void tb_index_put(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice value);
/* tb_index_put2: a value in two parts. */
void tb_index_put2(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice a, struct tb_slice b);
/* tb_index_append: as put, for a key above every other in the database (fills pages to the brim). */
void tb_index_append(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice value);
/* tb_index_any_order: from now on keys that are appended may come in any order: a salvage finds older ones later. */
void tb_index_any_order(struct tb_index *ix);
void tb_index_del(struct tb_index *ix, enum tb_db db, struct tb_slice key);
/*
 * tb_index_ge: the first entry with key >= key; tb_index_le: the last with key <= key; tb_index_next: the one after the
 * last found in this database (which must not have been written to since). The results are in the map, valid until the
 * next write. prefix: bytes that the found key must share with the given one, else false.
 */
bool tb_index_ge(struct tb_index *ix, enum tb_db db, struct tb_slice key, size_t prefix, struct tb_slice *k,
                 struct tb_slice *v);
bool tb_index_le(struct tb_index *ix, enum tb_db db, struct tb_slice key, size_t prefix, struct tb_slice *k,
                 struct tb_slice *v);
bool tb_index_next(struct tb_index *ix, enum tb_db db, size_t prefix, struct tb_slice *k, struct tb_slice *v);

#endif
