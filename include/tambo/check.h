/*
 * check.h: is a store whole? Reading all of it without believing it, and putting right what can be.
 */
#ifndef TAMBO_CHECK_H
#define TAMBO_CHECK_H

#include <tambo/store.h>

struct tb_finding {
    bool repaired; /* tb_store_repair did this */
    bool damage;   /* else a note: worth knowing, nothing is wrong */
    uint32_t shard;
    const char *object; /* "mailbox 3 of account 7", "segment 00000002 at 4096" */
    const char *what;
    const char *next; /* what to do; "" for nothing */
};

struct tb_check_stat {
    uint64_t shards, damage, notes;
    uint64_t index_pages, index_entries, log_segments, log_frames, log_records, read_bytes;
    uint64_t accounts, mailboxes, messages, blobs, pieces, bad_pieces;
    bool index_damaged; /* pages or values of an index: only a rebuild helps */
    bool log_damaged;   /* frames of a log are missing behind the last checkpoint: the store cannot be opened */
};

struct tb_check_options {
    void *user;
    void (*found)(void *user, const struct tb_finding *f);
};

/*
 * tb_store_check: read a store that no process has open, and say what is wrong. Nothing is written, not even what a
 * start would roll back or replay: the confirmed snapshot is read as it is. OK: it was read (stat->damage says how it
 * is); BUSY: a process has it; NOTFOUND no store; INVALID a newer format; IO, LIMIT. Blocks. Memory: about 100 bytes a
 * message of the largest shard. Cost: reads every byte once.
 */
enum tb_rc tb_store_check(struct tb_io *io, const char *dir, const struct tb_check_options *opt,
                          struct tb_check_stat *stat, struct tb_error *err) TB_USE_RESULT;

enum { TB_EVERY_SHARD = UINT32_MAX };
/*
 * tb_store_rebuild: make the index of a shard (TB_EVERY_SHARD) again on a store that no process has open: from its
 * newest whole copy, or from nothing if the log is there from its beginning; the next tb_worker_open replays the log
 * from there on. UIDs and UIDVALIDITY come out as they were. BUSY, NOTFOUND; INVALID no such shard; CORRUPT: the log
 * cannot give what the index held, nothing was changed; IO, NOSPACE. Blocks.
 */
enum tb_rc tb_store_rebuild(struct tb_io *io, const char *dir, uint32_t shard, struct tb_error *err) TB_USE_RESULT;

struct tb_salvaged {            /* what a salvage met; zero where nothing was missing */
    uint64_t shards;            /* salvaged, not just rebuilt */
    uint64_t segments, missing; /* of the log: there, and not */
    uint64_t holes, hole_bytes; /* in those that are there */
    uint64_t records, unusable; /* unusable: what they speak of is not there */
    uint64_t accounts_made;     /* whose own record is gone */
    uint64_t accounts_unnamed;  /* and of these, called recovered-N */
    uint64_t mailboxes_made;    /* whose own record is gone */
    uint64_t mailboxes_new;     /* and of these, with a new UIDVALIDITY */
    uint64_t mailboxes_renamed; /* because another one has their name */
    uint64_t brought;           /* messages whose own record is gone, told by GC */
    uint64_t homeless;          /* stored messages that nothing names any more: deleted, or whose is not known */
    uint64_t lost;              /* messages known by number, whose bytes are nowhere */
    uint64_t messages;          /* in the store afterwards */
    uint64_t quarantined;       /* of these, refused: not all of their bytes are there */
};
/*
 * tb_store_salvage: as tb_store_rebuild; and where that is CORRUPT and the index damaged, an index out of what is left
 * of the log and of the old index, then counted and put right (tb_store_repair). UIDs and UIDVALIDITY stay where a
 * record or a verified value says them, and UIDNEXT and MODSEQ skip far ahead; a mailbox whose UIDVALIDITY nothing says
 * gets a new one, and if nothing says its name, Recovered-N, or INBOX. What is missing cannot come back, and deletions
 * told only there are undone: out counts it. BUSY, NOTFOUND, INVALID; CORRUPT: a log holds nothing at all; IO, NOSPACE,
 * LIMIT. Blocks.
 */
enum tb_rc tb_store_salvage(struct tb_io *io, const char *dir, uint32_t shard, struct tb_salvaged *out,
                            struct tb_error *err) TB_USE_RESULT;

struct tb_compacted { /* index files, before and after */
    uint64_t shards, was_bytes, now_bytes;
};
/*
 * tb_store_compact: write the index of a shard (TB_EVERY_SHARD) anew without its free pages, on a store that no process
 * has open. Nothing in it changes; the log is not touched. out: added up over the shards. BUSY, NOTFOUND; INVALID no
 * such shard; CORRUPT: an index is damaged, it was left as it is (tb_store_rebuild); NOSPACE it needs as much room as
 * is in use; IO, LIMIT. Shards that were done stay so. Blocks: about 0.3 s for each 100 MB in use.
 */
enum tb_rc tb_store_compact(struct tb_io *io, const char *dir, uint32_t shard, struct tb_compacted *out,
                            struct tb_error *err) TB_USE_RESULT;

/*
 * tb_store_repair: put right what can be, on a store that no process has open: segment headers, indexes (as
 * tb_store_rebuild), what a start does, counters, rows without a stored message (taken out), bad messages (into
 * quarantine). opt->found hears each. OK: check again to see what is left; else as tb_store_rebuild and tb_worker_open.
 */
enum tb_rc tb_store_repair(struct tb_io *io, const char *dir, const struct tb_check_options *opt,
                           struct tb_error *err) TB_USE_RESULT;

struct tb_truncated { /* what lies behind the damage */
    uint64_t shards;  /* whose log is cut */
    uint64_t frames, bytes, records, messages;
    int64_t from_ms, to_ms; /* when it was written, since 1970; 0: not known */
};
/*
 * tb_store_truncate: a shard's log that is damaged in the middle, so that a start refuses it, ends in front of the
 * damage from now on: what lies behind is given up for good, though it was acknowledged. A person decides that; write
 * false: only tell opt->found. The bytes are kept beside the log (cut-POSITION). Numbers skip ahead (R14). No process
 * may have the store open. OK: sum says what was, or would be, cut: no shard, if none needs it; CORRUPT: the index
 * already holds what is damaged: nothing was changed; BUSY, NOTFOUND, IO, NOSPACE. Cut short at any point, it goes on
 * when called again, and nobody can open the shard until then. Blocks. Cost: reads the log behind the checkpoint twice.
 */
enum tb_rc tb_store_truncate(struct tb_io *io, const char *dir, bool write, const struct tb_check_options *opt,
                             struct tb_truncated *sum, struct tb_error *err) TB_USE_RESULT;

#endif
