/*
 * check.h: is a store whole? Reading all of it without believing it, and putting right what can be.
 */
#ifndef TAMBO_CHECK_H
#define TAMBO_CHECK_H

#include <tambo/store.h>

struct tb_finding {
    bool damage; /* else a note: worth knowing, nothing is wrong */
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

#endif
