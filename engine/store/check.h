/*
 * check.h: the inside of a store check: one shard's index and log read without LMDB and without believing them, into a
 * model that is then held against itself. Private to engine/store.
 *
 *   check.c        files, order, what is said
 *   check_index.c  entries of the index into the model, and the model's own contradictions
 *   check_log.c    frames, records and pieces
 *
 * Nothing here writes. Memory: about 24 bytes a piece, 40 a stored message, 4 a row, of one shard at a time. Thread:
 * any, one at a time; of a live shard only a pinned snapshot may be read.
 */
#ifndef TB_STORE_CHECK_H
#define TB_STORE_CHECK_H

#include <tambo/check.h>
#include "engine/index/walk.h"
#include "engine/log/survey.h"
#include "engine/store/shard.h"

struct tb_vec { /* of one kind of thing, zeroed when added; v owned */
    void *v;
    size_t n, cap, size;
};
/* tb_vec_add: NULL without memory. */
void *tb_vec_add(struct tb_vec *v, size_t size);

struct check_acct {
    uint32_t acct;
    struct tb_disk_acct row;
    uint32_t mailboxes;               /* selectable ones, counted */
    uint64_t messages, bytes, modseq; /* counted; highest of its mailboxes */
    uint32_t mbox_max;                /* its highest mailbox number */
    bool grave;                       /* the trash has it */
};
struct check_mbox {
    uint32_t acct, mbox;
    struct tb_disk_mbox row;
    uint64_t leaf; /* hash of the leaf name */
    uint32_t messages, unseen, deleted, uid_max;
    uint64_t bytes, modseq;
    size_t uid_at, uid_n; /* in uids */
    bool in_tree, grave;
};
struct check_blob {
    uint64_t blob, body;
    uint32_t refs, counted, flags;
};
struct check_body {
    uint64_t body;
    uint32_t refs, counted, pieces, listed;
};
#define TB_PIECE_OF_BODY ((uint64_t)1 << 63)
struct check_piece {
    uint64_t lsn, owner; /* a blob, or a body with TB_PIECE_OF_BODY */
    uint32_t clen, crc;
};
struct check_row {
    uint32_t acct, mbox, uid;
};
struct check_seg {
    uint32_t segment;
    bool row;
    uint64_t live, total, counted;
};

struct tb_check_shard { /* what is looked at, and what is found */
    const struct tb_check_options *opt;
    struct tb_check_stat *stat;
    struct tb_io *io;
    uint32_t shard;
    const char *dir; /* of the shard */
    uint64_t segment_bytes;
    uint64_t applied; /* the index holds the log up to here */
    uint64_t log_end; /* 0: found by the survey */
    struct tb_disk_state state;
    uint64_t acl_given, acl_by_user; /* sums over the entries that give rights, and over the rows by user */
    bool state_there, broken; /* broken: the index's pages or values are damaged: the model is not held against it */
    bool no_memory;
    struct tb_vec acct, mbox, blob, body, piece, seg, uid, place;
    struct tb_vec dangling, bad; /* check_row: their blob is missing; check_piece */
    char text[400];
};

/* tb_check_say: one finding. object and what are copied by nobody: the callback prints them. */
void tb_check_say(struct tb_check_shard *c, bool damage, const char *object, const char *what, const char *next);
void tb_check_sayf(struct tb_check_shard *c, bool damage, const char *next, const char *object, const char *fmt, ...)
    TB_PRINTF(5, 6);

/* check.c. tb_check_index: the pages and entries of a shard's index, from its checkpoint record, into c. */
void tb_check_index(struct tb_check_shard *c, const char *dir, const struct tb_disk_ckpt *ckpt);
/* tb_check_log_config: of a shard's log; log_dir holds its folder's name. */
struct tb_log_config tb_check_log_config(struct tb_io *io, const struct tb_disk_super *super, const char *dir,
                                         uint32_t number, char log_dir[TB_PATH + 8]);
/* tb_check_lock: the store's lock, without writing; *fd -1: it was never opened. BUSY: a process has it. */
enum tb_rc tb_check_lock(struct tb_io *io, const char *dir, int *fd, struct tb_error *err) TB_USE_RESULT;

/* check_index.c */
void tb_check_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value);
void tb_check_model(struct tb_check_shard *c);
struct check_blob *tb_check_blob(struct tb_check_shard *c, uint64_t blob);
void tb_check_model_free(struct tb_check_shard *c);

/* check_log.c: frames of every segment; the pieces the index names. *end: where the log ends. */
void tb_check_log(struct tb_check_shard *c, const struct tb_log_config *cfg, const struct tb_disk_ckpt *ckpt,
                  uint64_t *end);

#endif
