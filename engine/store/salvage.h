/*
 * salvage.h: an index out of what is left of a log, when rebuild.h refuses: there is no whole copy, and segments are
 * missing or damaged. Private to engine/store.
 *
 *   salvage.c         the order of it: facts, two passes over the log, closing
 *   salvage_facts.c   what damaged indexes still say, and what GC's records say of messages
 *   salvage_record.c  one record of the log, and what must be there before it can be applied
 *
 * Each record that is left goes through tb_apply, in the order of the log, into an empty index; what it refers to and
 * is not there is made up first, from facts (values of the old index whose checksums are right), from MOVED records,
 * which tell a message by themselves, or by a name of its own (Recovered-7). When the log comes to where the old index
 * ended, what that says of messages is taken over.
 *
 * G1 a UIDVALIDITY is kept where a record or a verified value says it, with its UIDs, and UIDNEXT and MODSEQ then skip
 * far ahead (R14); else the mailbox gets one above every one that can have been given. G2 nothing in the store but the
 * index and CKPT changes, and these by compact.h's order. G3 what was acknowledged and is not in what is left cannot
 * come back, and is counted as far as that is known; deletions that only the lost part told are undone.
 *
 * Memory: about 200 bytes for each message that GC moved and each mailbox. Thread: the caller's; blocks.
 */
#ifndef TB_STORE_SALVAGE_H
#define TB_STORE_SALVAGE_H

#include "engine/log/survey.h"
#include "engine/store/check.h"

struct tb_salvage_row { /* a message as a MOVED record tells it, or a block of the old index */
    uint32_t acct, mbox;
    struct tb_disk_row row; /* of a MOVED record: keywords 0, they come with the record itself */
    bool indexed;           /* it was so at index_at */
};
struct tb_salvage_blob { /* where a MOVED record has put a blob's bytes */
    uint64_t blob, body, order;
    struct tb_disk_piece head, own; /* own: if own_there */
    bool own_there;
    uint32_t pieces; /* of a body that others may share: in lists, from list on */
    size_t list;
};
struct tb_salvage_fact { /* a verified value of an index */
    enum tb_db db;
    uint32_t shard;
    uint64_t key; /* acct << 32, and the mailbox */
    uint16_t bit; /* of a keyword */
    size_t at;    /* in texts */
    uint32_t len;
};
struct tb_salvage {
    struct tb_io *io;
    const struct tb_log_config *cfg;
    const char *shard_dir, *dir; /* of the shard, of the store */
    uint32_t shards;
    struct tb_applier x;
    struct tb_vec rows, blobs, lists, facts; /* sorted once they are complete */
    struct tb_buf texts;
    bool no_memory;
    uint64_t index_at;    /* position up to which the old index held the log; 0: that is not known */
    bool index_done;      /* what it says of messages was taken over */
    uint32_t uidvalidity; /* the last one given */
    uint32_t acct_max;
    struct tb_salvaged *out;
};

/* ---- salvage_facts.c ---- */
/* tb_salvage_facts: read the indexes of all shards as far as they can be read. */
void tb_salvage_facts(struct tb_salvage *g);
/* tb_salvage_told: note what one record says of messages and numbers, before anything is applied. */
enum tb_rc tb_salvage_told(void *user, const struct tb_record *r);
void tb_salvage_sort(struct tb_salvage *g);
/* tb_salvage_fact: of this shard, or with TB_DB_PLACE of the first; NULL. *value: valid as long as g. */
const struct tb_salvage_fact *tb_salvage_fact(const struct tb_salvage *g, enum tb_db db, uint64_t key,
                                              struct tb_slice *value);
/* tb_salvage_row_at: the first message of the mailbox with a UID of at least uid; NULL: none. */
const struct tb_salvage_row *tb_salvage_row_at(const struct tb_salvage *g, uint32_t acct, uint32_t mbox, uint32_t uid);
/* tb_salvage_blob: where the last MOVED record has put it; NULL. */
const struct tb_salvage_blob *tb_salvage_blob(const struct tb_salvage *g, uint64_t blob);

/* ---- salvage_record.c ---- */
/* tb_salvage_record: apply one record, mended. OK, also if it could not be used; LIMIT, NOSPACE, IO: no use to go on.
 */
enum tb_rc tb_salvage_record(void *user, const struct tb_record *r);
/* tb_salvage_account, tb_salvage_mailbox: make it up if it is not there. False: the index failed. */
bool tb_salvage_account(struct tb_salvage *g, uint32_t acct);
bool tb_salvage_mailbox(struct tb_salvage *g, uint32_t acct, uint32_t mbox);
/* tb_salvage_publish: a COPY into the mailbox whose last slice is gone: what it had staged is seen. */
void tb_salvage_publish(struct tb_salvage *g, uint32_t acct, uint32_t mbox);
/* tb_salvage_indexed: what the old index says of messages is how they were at index_at. */
void tb_salvage_indexed(struct tb_salvage *g);
/* tb_salvage_apply: a record made up here. */
bool tb_salvage_apply(struct tb_salvage *g, uint8_t type, uint8_t flags, uint32_t acct, struct tb_slice payload);

/* ---- salvage.c ---- */
/*
 * tb_index_salvage: for a shard whose index tb_index_rebuild cannot make. dir, shards: of the store. OK: the index is
 * in place; counters, references and messages without bytes are for tb_store_repair. CORRUPT: the log holds not one
 * frame; LIMIT, NOSPACE, IO: nothing was changed, but for an empty segment at the log's end. Blocks.
 */
enum tb_rc tb_index_salvage(struct tb_io *io, const struct tb_log_config *cfg, const char *shard_dir, const char *dir,
                            uint32_t shards, struct tb_salvaged *out, struct tb_error *err) TB_USE_RESULT;

#endif
