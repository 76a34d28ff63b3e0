/*
 * admin.h: what an administrator does to accounts and learns about the store. Any worker may call; op->done on that
 * worker, when durable.
 */
#ifndef TAMBO_ADMIN_H
#define TAMBO_ADMIN_H

#include <tambo/mailbox.h>

/*
 * tb_account_create: an account with INBOX, Drafts, Sent, Junk, Trash, Archive (special uses set, all subscribed).
 *   name    lower-cased here; "user" or "user@domain", 1..255 bytes of printable ASCII or UTF-8 without blanks, '/' or
 * control bytes secret  "{SCHEME}hash" as in a Dovecot passwd-file, or "" (no login) op->rc: OK durable; EXISTS;
 * INVALID; NOSPACE; IO. Both slices are copied.
 */
void tb_account_create(struct tb_worker *w, struct tb_slice name, struct tb_slice secret, struct tb_op *op);
/* tb_account_secret: replace the stored secret. NOTFOUND. */
void tb_account_secret(struct tb_worker *w, struct tb_slice name, struct tb_slice secret, struct tb_op *op);
/* tb_account_delete: the account and all its mail; open sessions see every mailbox deleted. NOTFOUND. */
void tb_account_delete(struct tb_worker *w, struct tb_slice name, struct tb_op *op);

enum { TB_GC_IDLE, TB_GC_SCAN, TB_GC_READ, TB_GC_COPY };
enum { /* why a segment that nothing is left in is not free yet */
       TB_GC_HELD_BACKUP = 1,
       TB_GC_HELD_COPY = 2,   /* the index copies need the log from there on, until there are newer ones */
       TB_GC_HELD_UPLOAD = 4, /* a message on its way in, or between shards */
       TB_GC_HELD_READER = 8, /* a message in it is being read */
       TB_GC_HELD_INDEX = 16, /* the next checkpoint is to come */
       TB_GC_HELD_NEXT = 32   /* no backup has it yet, and the next one is waited for */
};
/* ---- dictionaries: what the store has learned to compress its own mail with ---- */
enum { TB_DICT_ROLES = 3 };
struct tb_dict_info {
    uint32_t id;
    const char *role; /* "header", "body", "cache" */
    uint32_t bytes;
    int64_t created;        /* seconds since 1970 */
    uint64_t before, after; /* bytes of mail it was not trained on: with the dictionary before, with this one */
    uint32_t shards;        /* that have it */
    bool in_use;            /* for writing */
};
/* tb_dict_list: up to max of them, in order of ids; returns how many. Any thread. */
size_t tb_dict_list(struct tb_store *store, struct tb_dict_info *out, size_t max);

struct tb_dict_trained {
    const char *role;
    uint64_t samples, held_out, raw, before, after; /* as tb_dict_info; raw: those held out, uncompressed */
    uint32_t id;                                    /* adopted as; 0: it is no better by 3 %, or could not be trained */
};
struct tb_dict_training { /* the caller's, alive until op.done */
    struct tb_op op;      /* op.done on the caller's thread */
    struct tb_dict_trained result[TB_DICT_ROLES];
    uint64_t messages; /* read */
    /* private */
    struct tb_worker *from;
    struct tb_op hop;
    uint32_t shard;
    enum tb_rc rc;
};
/*
 * tb_dict_train: read a sample of a shard's mail, train a dictionary for each role on it, and adopt those that save
 * more than 3 % of mail they have not seen. It also runs by itself as a shard grows. op.rc: OK; BUSY: one is under way;
 * NOTFOUND: too little mail; NOSPACE, LIMIT, IO. Any worker may call; takes about a second of a helper thread.
 */
void tb_dict_train(struct tb_worker *w, uint32_t shard, struct tb_dict_training *t);

struct tb_shard_stat {
    uint32_t shard;
    uint64_t accounts, mailboxes, messages, raw_bytes; /* raw: as the clients see them, each message once per mailbox */
    uint64_t stored_raw_bytes;                         /* raw bytes of what the log holds, each body once */
    uint64_t shared_raw_bytes;                         /* raw bytes of bodies that were not stored again */
    uint64_t log_used_bytes;                           /* frames written in the segments that exist */
    uint64_t log_file_bytes;
    uint64_t index_used_bytes; /* pages in use */
    uint64_t index_file_bytes;
    uint64_t log_writes, log_frames, checkpoints, records, deliveries; /* since start */
    uint64_t position, durable, applied_confirmed;
    bool scrub_running;
    uint32_t scrub_percent;              /* of the round under way */
    uint64_t scrub_damage, scrub_rounds; /* findings, whole rounds, since start */
    int64_t scrub_finished;              /* when the last whole round ended, since 1970; 0: never */
    uint64_t quarantined;                /* stored messages known to be damaged */
    uint64_t bad_reads, bad_cached;      /* damage met since start: pieces of messages; cached envelopes */
    uint32_t epoch, format;
    uint32_t gc_phase;      /* TB_GC_ */
    bool gc_running;        /* on demand: not over yet */
    uint64_t gc_dead_bytes; /* of sealed segments: what no message needs */
    uint64_t gc_waiting;    /* segments that nothing is left in, or will be once they need not be kept; not free yet */
    uint32_t gc_held;       /* TB_GC_HELD_: why */
    uint64_t gc_moved_bytes, gc_freed_segments, gc_bad, gc_repaired; /* since start */
    uint32_t failures;                                               /* in a row */
    const char *state; /* "serving"; else what is done about it, and why: all numbers above are 0 then */
    char reason[256];
};
/*
 * tb_gc_start: collect garbage in a shard now, without throttle; tb_shard_stat tells how it goes: it is over when
 * gc_running is false; gc_waiting segments are then held by what gc_held says, and go by themselves when that is done.
 * all: compress every message anew that was not yet, however little of its segment is dead. Owner of that shard only.
 */
void tb_gc_start(struct tb_worker *owner, uint32_t shard, bool all);
/* tb_shard_stat: numbers of one shard. Owner of that shard only (reach it by tb_call, always set). */
void tb_shard_stat(struct tb_worker *owner, uint32_t shard, struct tb_shard_stat *out);

/*
 * tb_scrub_start: read all of a shard now, at full speed: every frame, page and value. Owner of that shard only;
 * tb_shard_stat tells how it goes (scrub_running ends).
 */
void tb_scrub_start(struct tb_worker *owner, uint32_t shard);

#endif
