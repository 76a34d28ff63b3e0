/*
 * shard.h: the inside of the store. Private to engine/store.
 *
 *   store    process-wide: SUPER, the directory, the table of workers and shards
 *   worker   a thread: its io, its shards, scratch memory, the list of ops that are ready to run
 *   shard    log + index + what is open in it; the mutation path is always: admit, build record, apply, tell watchers
 *
 * Invariants S1 to S9: docs/ARCHITECTURE.md. Thread: worker and shard belong to one thread; of the store only the
 * directory is shared.
 */
#ifndef TB_SHARD_H
#define TB_SHARD_H

#include <pthread.h>
#include <stdatomic.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include "engine/codec/codec.h"
#include "engine/index/blocks.h"
#include "engine/log/log.h"
#include "engine/store/dict.h"
#include "engine/store/payload.h"
#include "engine/store/pins.h"

enum { TB_SLOT_STRIDE = 64 << 10 }; /* the two slots never share a device block */
enum { TB_PATH = 1024, TB_SHARDS_MAX = 256, TB_ACCOUNT_BUCKETS = 4096 };

/* ---- SUPER and CKPT ---- */
#define TB_SUPER_MAGIC "TAMBOSUP"
#define TB_CKPT_MAGIC "TAMBOCKP"
struct tb_disk_super { /* two slots of one block each, written in turn */
    char magic[8];
    uint32_t format, crc; /* crc32c of this struct with crc = 0 */
    uint64_t seq;
    uint8_t uuid[16];
    uint32_t epoch, shards;
    uint64_t segment_bytes;
    int64_t created;
    uint8_t secret[32];
    uint32_t pad_bytes; /* R6: the device's block if it is over 4 KiB, else 0 */
    uint32_t reserved[7];
};
_Static_assert(sizeof(struct tb_disk_super) == 128, "super");
struct tb_disk_ckpt {
    char magic[8];
    uint32_t format, crc;
    uint64_t seq;
    uint64_t txnid;   /* confirmed LMDB transaction */
    uint64_t applied; /* log position */
    uint64_t last;    /* position of the frame before it; 0: none */
    uint32_t chain, epoch;
    uint8_t uuid[16];
    uint32_t shard, flags;
    uint8_t meta[TB_META_BYTES];
};
_Static_assert(sizeof(struct tb_disk_ckpt) == 216, "ckpt");
enum { TB_CKPT_NEXT = 1 }; /* flag: the index it names is index.mdb.next, while that is there: compact.h */

/* slots.c: read the newest valid of two slots (NOTFOUND: none), write the other one. Blocks. */
typedef bool (*tb_slot_check)(const uint8_t *block, uint64_t *seq);
enum tb_rc tb_slot_read(struct tb_io *io, const char *path, tb_slot_check check, uint8_t block[TB_BLOCK],
                        struct tb_error *err);
enum tb_rc tb_slot_write(struct tb_io *io, const char *path, uint64_t seq, const void *data, size_t len,
                         struct tb_error *err);
void tb_ckpt_seal(struct tb_disk_ckpt *c);
bool tb_ckpt_check(const uint8_t *block, uint64_t *seq);

/* store.c: the newest valid SUPER of a folder, its values checked; nothing is locked. */
enum tb_rc tb_super_load(struct tb_io *io, const char *dir, struct tb_disk_super *out, struct tb_error *err);

/* ---- apply.c: record -> index ---- */
struct tb_seg_delta {
    uint32_t segment;
    int64_t total, live;
};
struct tb_applier { /* everything apply() may look at and change (S9) */
    struct tb_index *ix;
    struct tb_disk_state state;
    uint64_t segment_bytes;
    struct tb_seg_delta *seg; /* owned */
    size_t seg_n, seg_cap;
    /* the BLOB of the frame being applied: ADD records take their cache bytes from it */
    uint64_t frame_blob;
    struct tb_disk_cache frame_cache;
    const void *frame_cache_data; /* borrowed from the record */
    uint32_t touched_hash[256];   /* (acct, mbox) pairs met since the last checkpoint, lossy: feeds dirty_pages */
    uint64_t bad;                 /* stored messages in quarantine */
    uint64_t bodies_moved;        /* from their blob's row to rows of their own, since it was opened */
    uint64_t dirty_pages;         /* upper estimate of index pages dirtied since the last checkpoint */
    uint64_t dirty_bytes;         /* of entries that lie side by side; becomes dirty_pages at the record's end */
};
/*
 * tb_apply: the one function that changes the index: live, replay, restore and replicas alike. OK; CORRUPT: the record
 * contradicts the index; or the index's sticky code.
 */
enum tb_rc tb_apply(struct tb_applier *x, const struct tb_record *r) TB_USE_RESULT;
void tb_apply_frame_end(struct tb_applier *x);
/* tb_seg_add: bytes that a segment holds, and bytes of them that a row names, change. */
void tb_seg_add(struct tb_applier *x, uint64_t lsn, int64_t total, int64_t live);
/* apply_gc.c: what GC logs. */
enum tb_rc tb_apply_moved(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_trim(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_segment(struct tb_applier *x, const struct tb_record *r);
/* tb_apply_flush: write the cached state and segment counters into the transaction, before a commit. */
void tb_apply_flush(struct tb_applier *x, uint64_t applied, uint32_t chain);

/* typed rows; false: none (or sticky error) */
bool tb_acct_get(struct tb_index *ix, uint32_t acct, struct tb_disk_acct *out);
void tb_acct_put(struct tb_index *ix, uint32_t acct, const struct tb_disk_acct *a); /* keeps the name */
bool tb_mbox_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, struct tb_disk_mbox *out, struct tb_slice *leaf);
void tb_mbox_put(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_mbox *m, const char *leaf,
                 size_t leaf_len);
bool tb_tree_get(struct tb_index *ix, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t *mbox);
/* tb_hash_get: the body at a key of TB_DB_HASH. */
bool tb_hash_get(struct tb_index *ix, const uint8_t key[TB_HASH_KEY_MAX], uint64_t *body);
/* tb_body_piece: piece i of a body. */
bool tb_body_piece(struct tb_index *ix, uint64_t body, const struct tb_disk_body *b, uint32_t i,
                   struct tb_disk_piece *out);
/* apply_trash.c: the key of a trash entry; and a message in the trash, with its cached envelope (head and bytes, in the
 * map; empty if there is none). */
struct tb_key tb_trash_key(int64_t due, uint32_t acct, uint32_t mbox, uint32_t uid);
bool tb_trash_get(struct tb_index *ix, const struct tb_key *key, struct tb_disk_trash *out, struct tb_slice *cache);

/* ---- shard ---- */
struct tb_account {
    struct tb_account *next; /* hash chain */
    struct tb_shard *shard;
    uint32_t acct;
    uint32_t refs;
    uint64_t position;     /* of the last change of this account */
    struct tb_view *views; /* open ones */
    struct tb_watch *watches;
    bool deleted;
};

enum tb_ckpt_phase { CKPT_IDLE, CKPT_SYNCING, CKPT_WAITING, CKPT_WRITING };
/*
 * SERVING --tb_shard_fail--> TELLING --sessions told, gates and calls answered IO--> DRAINING --nobody holds anything
 * of it--> PAUSED (0 to 60 s) --> REBUILDING --> SERVING; from REBUILDING back to PAUSED if the disk still fails, to
 * DOWN if what it holds is damaged.
 */
enum tb_shard_state { SHARD_SERVING, SHARD_TELLING, SHARD_DRAINING, SHARD_PAUSED, SHARD_REBUILDING, SHARD_DOWN };
struct tb_shard {
    struct tb_store *store;
    struct tb_worker *worker;
    uint32_t number;
    char dir[TB_PATH];
    struct tb_log *log; /* NULL with ix while nothing of the shard is in memory (PAUSED to DOWN) */
    struct tb_index *ix;
    struct tb_applier x;
    struct tb_pins pins;   /* what of the log is needed though no row points there */
    uint32_t epoch;        /* of this recovery */
    bool failed, stopping; /* failed: not SERVING */
    _Atomic(bool) away;    /* the same for other threads */
    _Atomic(bool) shares;  /* some mailbox may have an ACL; read by any thread */
    /* revive.c */
    enum tb_shard_state state;
    struct tb_error reason;  /* why it is not serving */
    struct tb_error attempt; /* the rebuilder's */
    unsigned failures;       /* since it last served for a while */
    uint64_t opened_ns, failed_ns;
    struct tb_op revive_op;
    bool reviving;                       /* revive_op is under way */
    unsigned accounts_open, bodies_open; /* handles that point into what is rebuilt */
    unsigned watches;                    /* of its accounts, and share_watches */
    struct tb_watch *share_watches;
    struct tb_account *bucket[TB_ACCOUNT_BUCKETS];
    struct tb_op *gate_first; /* waiting for a position (op->offset), ascending */
    struct tb_op *gate_last;
    struct tb_call *waiting_first, *waiting_last; /* calls that met TB_BUSY */
    /* checkpoint.c */
    enum tb_ckpt_phase ckpt_phase;
    struct tb_disk_ckpt ckpt; /* the one being made, or the last confirmed */
    uint64_t confirmed_last;  /* the frame that the confirmed checkpoint names: its segment is needed */
    uint64_t confirmed, checkpoints, ckpt_started_ns, ckpt_log_end;
    struct tb_log_mark replayed; /* recovery: how far */
    struct tb_op ckpt_op, reserve_op;
    uint8_t *ckpt_block; /* owned, block-aligned */
    int ckpt_fd, index_fd;
    bool reserving, index_full, want_checkpoint;
    uint64_t reserve_pages, reserve_want, index_high, reserve_tried_ns;
    int reserve_result;
    uint64_t records, deliveries;
    bool doubted;              /* once: tb_shard_doubt */
    uint64_t bad_reads;        /* of damaged pieces, since start */
    unsigned fanouts;          /* queued deliveries under way */
    struct tb_change *staging; /* change.c: copies under way in several slices */
    struct {
        uint32_t acct, mbox;
    } stage_at; /* where tb_stage_step goes on */
    struct {
        uint32_t acct, mbox; /* the next mailbox to look at */
        uint64_t next_ns;    /* when the next round begins */
    } rules_at;
    uint32_t swept_accts;         /* trash.c: accounts up to it were looked at; UINT32_MAX: all */
    int64_t ckpt_time_ms;         /* the last TIME record in ckpt's snapshot */
    struct tb_copy_run *copies;   /* copies of the index being made: copy.h */
    struct tb_rotation *rotation; /* owned */
    unsigned compares;            /* bodies being compared with stored ones: dedup.c */
    struct tb_gc *gc;             /* owned */
    struct tb_scrub *scrub;       /* owned */
    struct tb_retire *retire;     /* owned; NULL: there is no dictionary */
    /* train.c */
    struct tb_train_job *train;          /* under way here */
    unsigned train_ops;                  /* its reads and its helper's work, in flight */
    uint64_t train_tried, train_tick_ns; /* messages ever stored at the last attempt; when */
};

struct tb_worker {
    struct tb_store *store;
    uint32_t index;
    struct tb_io *io;
    struct tb_codec *codec;
    struct tb_op *ready_first, *ready_last; /* ops whose done is due */
    struct tb_op tick_op;
    bool ticking, closing, started;
    struct tb_delivery *idle_deliveries;
    unsigned idle_n;
    struct tb_op *stop_op;
    char *scratch; /* owned: inflated cache entries */
    size_t scratch_cap;
    uint64_t self; /* who makes the changes of this moment; 0: nobody in particular */
};

struct tb_spare_name {
    struct tb_identity id; /* first: it becomes an entry of the directory, and is freed as one */
    struct tb_spare_name *next;
};

struct tb_store {
    char dir[TB_PATH];
    struct tb_store_config cfg;
    struct tb_disk_super super;
    struct tb_io *io; /* borrowed: of whoever opened the store */
    int lock_fd;
    uint8_t dedup_secret[32];
    uint64_t mix_key[4];
    struct tb_creating *creating; /* accounts between their first record and their PLACE; shard 0's owner only */
    uint32_t next_acct;           /* the next number to give, above every one in a record; shard 0's owner only */
    atomic_uint queued;           /* deliveries between their QUEUE and their QUEUE_DONE */
    atomic_uint queue_unsettled;  /* shards, then queued deliveries, that have not told yet which chunks they need */
    uint32_t first_acct;          /* accounts below it were there when the store was opened */
    struct tb_worker *worker[TB_SHARDS_MAX];
    struct tb_shard *shard[TB_SHARDS_MAX];
    pthread_mutex_t super_lock; /* of writing SUPER */
    struct tb_backup *backup;   /* owned: the one under way, or how the last one ended */
    struct {                    /* hold.c: what the newest backup has */
        _Atomic(uint64_t) end[TB_SHARDS_MAX];
        _Atomic(int64_t) time_ms; /* when it was done, since 1970; 0: there is none */
        uint64_t seq;             /* of the file BACKUP; whoever makes a backup */
    } backed_up;
    pthread_rwlock_t lock; /* of the directory */
    struct tb_dicts dicts;
    struct tb_identity **names; /* sorted by name; owned */
    size_t names_n, names_cap;
    _Atomic(uint64_t) selves;    /* names given by tb_self_new */
    _Atomic(uint64_t) counted;   /* names whose secret cfg.counted is true for */
    struct tb_spare_name *spare; /* owned; room reserved for names about to be logged */
    size_t spares;
};

/* shard.c */
enum tb_rc tb_shard_create(struct tb_io *io, const struct tb_store *store, uint32_t number, struct tb_error *err);
enum tb_rc tb_shard_open(struct tb_worker *w, uint32_t number, struct tb_shard **out, struct tb_error *err);
void tb_shard_close(struct tb_shard *s);
/* tb_shard_recover: from disk to a confirmed checkpoint; the index has no transaction yet. Blocks. Any thread, as long
 * as no other looks at the shard. CORRUPT, INVALID: it is no use to try again. */
enum tb_rc tb_shard_recover(struct tb_shard *s, struct tb_error *err) TB_USE_RESULT;
/* tb_shard_serve: what recovery leaves to the owner: the transaction, the next segment, pages ahead. */
enum tb_rc tb_shard_serve(struct tb_shard *s, struct tb_error *err) TB_USE_RESULT;
/* tb_shard_drop: throw away what it has in memory; nothing is committed. Nothing may be in flight. */
void tb_shard_drop(struct tb_shard *s);
/* tb_shard_idle: is nothing of it in flight? (Whoever starts something in the background adds a term.) */
bool tb_shard_idle(const struct tb_shard *s);
struct tb_shard *tb_shard_of(struct tb_worker *w, uint32_t number);
/*
 * tb_shard_admit: may an operation of so many payload bytes and records be logged now? OK, NOSPACE, BUSY, LIMIT, IO.
 *   ADMIT_SMALL  flags, deletions: may use the reserve that ADMIT_GROW and ADMIT_CALL must leave
 *   ADMIT_GROW   needs space for good (copies, new names); never told to wait
 *   ADMIT_CALL   the same, in a tb_call: BUSY puts the call off until there is room
 *   ADMIT_GC     frees more than it takes: may use a part of that reserve; BUSY: later
 */
enum tb_admit { ADMIT_SMALL, ADMIT_GROW, ADMIT_CALL, ADMIT_GC };
enum tb_rc tb_shard_admit(struct tb_shard *s, size_t bytes, uint32_t records, enum tb_admit kind) TB_USE_RESULT;
/* tb_shard_record: log and apply one record whose payload is head, then a, then b. Only after tb_shard_admit; cannot
 * fail for space. */
void tb_shard_record(struct tb_shard *s, uint8_t type, uint8_t flags, uint32_t acct, struct tb_slice head,
                     struct tb_slice a, struct tb_slice b);
/* tb_shard_fill / tb_shard_filled: the same for a payload that is written in place. */
uint8_t *tb_shard_fill(struct tb_shard *s, uint8_t type, uint8_t flags, uint32_t acct, size_t len, uint64_t *lsn);
void tb_shard_filled(struct tb_shard *s);
/* tb_shard_touched: the account changed: its position moves, the views of mbox (0: all) are told. */
void tb_shard_touched(struct tb_shard *s, uint32_t acct, uint32_t mbox);
/*
 * tb_shard_sound: false if the shard failed, or fails now because its index has met an error: the index then says that
 * nothing is there, and neither a reply nor a decision may rest on that. Asked by admit, gates, calls and every turn.
 */
bool tb_shard_sound(struct tb_shard *s);
/* tb_shard_fail: R7: nothing of it is answered or written any more; once nobody holds anything of it, it is rebuilt.
 * May be called anywhere on the owner's thread: who holds something is told from the loop. */
void tb_shard_fail(struct tb_shard *s, const struct tb_error *err);
/*
 * tb_shard_doubt: the index contradicts itself in what was just read. The first time, the shard fails closed, and its
 * index is looked at and made again if it is damaged; if that finds nothing, later doubts are one message's alone.
 */
void tb_shard_doubt(struct tb_shard *s, const char *what);
void tb_shard_answer_all(struct tb_shard *s); /* gates and calls that wait: IO */
struct tb_account *tb_shard_account(struct tb_shard *s, uint32_t acct);
void tb_gate_insert(struct tb_shard *s, uint64_t position, struct tb_op *op);
void tb_worker_ready(struct tb_worker *w, struct tb_op *op, enum tb_rc rc);
/* tb_worker_forget: take op off the ready list if it is there. */
bool tb_worker_forget(struct tb_worker *w, struct tb_op *op);
int64_t tb_due(const struct tb_shard *s); /* when what is deleted now leaves the trash */

/* revive.c: a failed shard's way back. tb_revive_begin: it fails now, for the first time. tb_revive: once a turn while
 * it is not serving. tb_revive_stop: no further attempt. */
void tb_revive_begin(struct tb_shard *s, const struct tb_error *err);
void tb_revive(struct tb_shard *s);
void tb_revive_stop(struct tb_shard *s);
/* tb_revive_absent: it could not be opened at the start, for this reason: down, or tried again. */
void tb_revive_absent(struct tb_shard *s, enum tb_rc rc, const struct tb_error *err);
const char *tb_shard_state_text(const struct tb_shard *s);

/* store.c: R2: a new epoch, durable. Any thread. */
enum tb_rc tb_store_raise_epoch(struct tb_store *store, struct tb_io *io, uint32_t *epoch,
                                struct tb_error *err) TB_USE_RESULT;

/* truncate.c: was the log cut, and have the numbers not skipped ahead yet? */
bool tb_cut_pending(struct tb_io *io, const char *shard_dir);

/* checkpoint.c */
void tb_checkpoint_boundary(struct tb_shard *s, struct tb_log_mark mark);
void tb_checkpoint_durable(struct tb_shard *s);
void tb_checkpoint_tick(struct tb_shard *s);
enum tb_rc tb_checkpoint_now(struct tb_shard *s, struct tb_log_mark mark,
                             struct tb_error *err); /* blocks: recovery; leaves no transaction */
bool tb_checkpoint_quiet(const struct tb_shard *s);
void tb_checkpoint_reserve(struct tb_shard *s);

/*
 * trash.c. tb_trash_purge: let go of a piece of what is due; true if there is more. tb_trash_sweep: look at a few
 * accounts, once each after the start: was one left half deleted, or half brought back?
 */
bool tb_trash_purge(struct tb_shard *s);
/* rules.c: tb_rules_step: expunge a few of what the rules say; true if there is more to look at in this round.
 * tb_retention_days: of a mailbox, by its own rule or its special use's; 0: for ever. */
bool tb_rules_step(struct tb_shard *s);
/* change.c: tb_stage_step: take away a piece of what a COPY that will not be completed left; true if there is more. */
bool tb_stage_step(struct tb_shard *s);
uint32_t tb_retention_days(const struct tb_store *store, const struct tb_disk_mbox *m);
/*
 * tb_shard_bulk: after each slice of a change of many messages: with this many pages of the index changed, a checkpoint
 * is due, since its commit writes all of them in one go.
 */
static inline void tb_shard_bulk(struct tb_shard *s)
{
    enum { PAGES = 4096 }; /* about 3 ms */
    s->want_checkpoint |= s->x.dirty_pages >= PAGES;
}
/* tb_rows_want: how many rows to scan for the UIDs uid to last, at most max: no more blocks are read than they may be
 * in.
 */
static inline size_t tb_rows_want(uint32_t uid, uint32_t last, size_t max)
{
    return (uint64_t)last - uid + 1 < max ? (size_t)(last - uid) + 1 : max;
}
/*
 * view.c, for change.c. tb_view_pick: the next messages of uids (NULL: all), from *uid on, or only those that are
 * \\Deleted, at most max; false when the end was reached. tb_view_there: is the mailbox? tb_view_rc: the shard's
 * failure, or otherwise.
 */
bool tb_view_pick(struct tb_view *v, const struct tb_uidset *uids, bool deleted, uint32_t *uid, uint32_t max,
                  struct tb_uidset *out);
bool tb_view_there(struct tb_view *v);
enum tb_rc tb_view_rc(struct tb_view *v, enum tb_rc otherwise);
/* view.c: tb_expunge_log: messages that are there leave a mailbox for the trash, in one record; watchers are told. */
enum tb_rc tb_expunge_log(struct tb_shard *s, uint32_t acct, uint32_t mbox, const struct tb_uidset *set);
/* tb_place_read: a PLACE payload taken apart; false: it contradicts itself. */
bool tb_place_read(struct tb_slice payload, uint32_t acct, struct tb_identity *out);
void tb_trash_sweep(struct tb_shard *s);

/* copy.c: a checkpoint was confirmed: copies that waited begin; end them all soon; forget them, their io is dead. */
void tb_copies_confirmed(struct tb_shard *s);
void tb_copies_cancel(struct tb_shard *s);
void tb_copies_drop(struct tb_shard *s);
/* rotate.c: the shard's own two copies. */
enum tb_rc tb_rotation_open(struct tb_shard *s, struct tb_error *err) TB_USE_RESULT;
void tb_rotation_close(struct tb_shard *s);
void tb_rotation_tick(struct tb_shard *s);
/* tb_rotation_want: newer copies would let space be freed (their pins hold it): make one at the next tick. */
void tb_rotation_want(struct tb_shard *s);

/* scrub.c: reading everything, slowly. */
enum tb_rc tb_scrub_open(struct tb_shard *s, struct tb_error *err) TB_USE_RESULT;
void tb_scrub_close(struct tb_shard *s);
void tb_scrub_tick(struct tb_shard *s);
void tb_scrub_cancel(struct tb_shard *s); /* the shard stops: end soon */
bool tb_scrub_quiet(const struct tb_shard *s);
void tb_scrub_stat(struct tb_shard *s, struct tb_shard_stat *out);
/* tb_scrub_leave: no message lies in this segment any more and it is to be freed: do not read it to its end. */
void tb_scrub_leave(struct tb_shard *s, uint32_t segment);

/* gc.c: segment garbage collection. */
enum tb_rc tb_gc_open(struct tb_shard *s, struct tb_error *err) TB_USE_RESULT;
void tb_gc_close(struct tb_shard *s);
void tb_gc_confirmed(struct tb_shard *s); /* a checkpoint was confirmed */
void tb_gc_tick(struct tb_shard *s);
void tb_gc_cancel(struct tb_shard *s); /* the shard stops: end soon */
bool tb_gc_quiet(const struct tb_shard *s);
void tb_gc_stat(struct tb_shard *s, struct tb_shard_stat *out);

/* backup.c: made with the store; tb_backup_stop: end it if it runs on w; true: nothing of it is in flight. */
struct tb_backup *tb_backup_new(struct tb_store *store);
void tb_backup_free(struct tb_backup *b);
bool tb_backup_stop(struct tb_worker *w);

/* view.c */
void tb_views_notify(struct tb_account *a, uint32_t mbox);

/*
 * watch.c: around tb_apply, for records of an account that somebody watches. tb_watches_lost: the shard failed: its
 * watches hold no account of it any more.
 */
void tb_watch_before(struct tb_account *a, const struct tb_record *r);
void tb_watch_after(struct tb_account *a, const struct tb_record *r);
void tb_watch_acl(struct tb_shard *s, const struct tb_record *r); /* of any account; share_watches are told */
void tb_watches_lost(struct tb_shard *s);

/* directory.c */
/* tb_directory_reserve: LIMIT without memory for one more name. Before a new name is logged: once it is durable it must
 * be findable. tb_directory_set: a name, known or reserved. */
enum tb_rc tb_directory_reserve(struct tb_store *store) TB_USE_RESULT;
void tb_directory_set(struct tb_store *store, const struct tb_identity *id);
void tb_directory_remove(struct tb_store *store, struct tb_slice name);
/* tb_directory_load: what shard 0's index says replaces what is in memory. LIMIT, or the index's code: nothing does. */
enum tb_rc tb_directory_load(struct tb_store *store, struct tb_index *ix) TB_USE_RESULT;
void tb_directory_free(struct tb_store *store);

/* delivery.c: a message ready to be stored: a BLOB payload in four parts, without its ids */
struct tb_image {
    struct tb_pay_blob head; /* blob, body and refs are filled where it is stored */
    struct tb_slice header;  /* compressed */
    struct tb_slice list;    /* pieces of the body, if there are several */
    struct tb_slice rest;    /* the inline body, the cache entry */
    uint64_t share;          /* a stored body that was compared and is the same; 0: none */
};
size_t tb_image_bytes(const struct tb_image *img); /* of the payload */
void tb_image_write(const struct tb_image *img, uint8_t *out);
bool tb_image_read(struct tb_slice payload, struct tb_image *out); /* false: it contradicts itself */
/*
 * tb_image_deliver: store an image once and add it to every target that can take it, in one frame. Each target's rc,
 * uid, uidvalidity and position are set. all: if one target cannot, none is done. queue: payload of a QUEUE record to
 * log in the same frame (len 0: none). delivery: not NULL: mark the ADD records with it. OK; BUSY (nothing done, try
 * again); NOSPACE, LIMIT, NOTFOUND (nothing done).
 */
enum tb_rc tb_image_deliver(struct tb_shard *s, const struct tb_image *img, struct tb_delivery_target **targets,
                            size_t n, bool all, const uint8_t *delivery, struct tb_slice queue,
                            uint64_t *queue_id) TB_USE_RESULT;
/* tb_chunks_unpin: chunks that came to nothing need not be kept; pin 0: there are none. Without memory they are, until
 * the next start. Any worker. */
void tb_chunks_unpin(struct tb_worker *w, uint32_t shard, uint64_t pin);
/* batch.c: several messages ready to be stored together */
struct tb_letter {
    struct tb_image image;
    struct tb_delivery_target *target; /* the caller's */
    uint64_t pin;                      /* of its chunks; 0: none */
    char bytes[];                      /* what image's slices borrow */
};
struct tb_replaced { /* a message that goes with the arrival of another; uid 0: none */
    uint32_t acct, mbox, uid;
};
/* tb_batch_take: a copy of the image, and its pin, for the batch. LIMIT: no more fit. tb_batch_inline: may a body of so
 * many bytes be in its BLOB? */
enum tb_rc tb_batch_take(struct tb_batch *b, const struct tb_image *img, struct tb_delivery_target *target,
                         uint64_t pin) TB_USE_RESULT;
bool tb_batch_inline(struct tb_batch *b, uint64_t body);
/*
 * tb_letters_deliver: store n messages for one mailbox and expunge what they replace, all in one frame. Each target's
 * rc, uid, uidvalidity and position are set. OK; BUSY (again later); NOTFOUND, CONFLICT (what was to be replaced is
 * gone), OVERQUOTA, LIMIT, NOSPACE: nothing done. Cost: about 10 us a message.
 */
enum tb_rc tb_letters_deliver(struct tb_shard *s, struct tb_letter *const *v, size_t n,
                              const struct tb_replaced *old) TB_USE_RESULT;
/* tb_cache_write: the text of a cache entry; false if it is too long for out. */
struct tb_mime_result;
bool tb_cache_write(const struct tb_mime_result *r, struct tb_buf *out);
void tb_delivery_pool_free(struct tb_worker *w);

/* quarantine.c: stored messages known to be damaged */
struct tb_bad_seen { /* what a reader met */
    uint64_t blob, lsn;
    uint32_t piece;
    enum tb_bad_why why;
    uint32_t acct, mbox, uid; /* 0: nobody's in particular */
};
/* tb_quarantine: say and remember it, once. Logs a record: never inside another operation. */
void tb_quarantine(struct tb_shard *s, const struct tb_bad_seen *b);
void tb_quarantine_lift(struct tb_shard *s, uint64_t blob);
/* tb_quarantined: what is known about a stored message; false: nothing bad. Costs nothing while there is none. */
bool tb_quarantined(struct tb_shard *s, uint64_t blob, struct tb_disk_bad *out);
/* dedup.c: a body that an account has already is not stored again (R11) */
void tb_dedup_keys(struct tb_store *st); /* once, when the store is opened */
/* tb_dedup_hash: of the raw bytes of a body, or of its next chunk with `before` the result so far (0: none). */
uint64_t tb_dedup_hash(const struct tb_store *st, uint64_t before, struct tb_slice raw);
/* tb_dedup_mark: note the hash in the image; nothing for a short body. Its sizes are set. */
void tb_dedup_mark(struct tb_pay_blob *head, uint64_t hash);
/* tb_dedup_key: where such a body of the account is found. head->hashed. */
void tb_dedup_key(const struct tb_store *st, uint32_t acct, const struct tb_pay_blob *head,
                  uint8_t key[TB_HASH_KEY_MAX]);
/* tb_dedup_find: a stored body of the targets' one account that may be the image's; 0: none. Owner. */
uint64_t tb_dedup_find(struct tb_shard *s, const struct tb_image *img, struct tb_delivery_target *const *targets,
                       size_t n);
/* tb_dedup_holds: is that body still there, under that key? Owner. */
bool tb_dedup_holds(struct tb_shard *s, const uint8_t key[TB_HASH_KEY_MAX], uint64_t id, uint64_t raw_bytes);
struct tb_dedup {
    const struct tb_image *img; /* borrowed until op.done; what it lists is durable */
    uint64_t body;              /* from tb_dedup_find */
    struct tb_op op; /* done on the asker's thread: OK: the same bytes; NOTFOUND: not, or it cannot be told */
    /* private */
    struct tb_worker *from;
    struct tb_op hop;
};
/* tb_dedup_compare: read both bodies on the shard's owner and compare them. x: the caller's until op.done. */
void tb_dedup_compare(struct tb_worker *from, uint32_t shard, struct tb_dedup *x);

/* tb_piece_number: fetch.c: which of a stored message's pieces lies at a position; 0 if none does. */
uint32_t tb_piece_number(struct tb_index *ix, uint64_t blob, uint64_t lsn);

/* quota.c. tb_quota_fits: OK, or OVERQUOTA: so much more than the account has would be over one of its limits.
 * tb_quota_mailboxes: the same for so many more mailboxes. Cost: O(1). */
enum tb_rc tb_quota_fits(const struct tb_disk_acct *row, uint64_t messages, uint64_t bytes,
                         uint64_t mailboxes) TB_USE_RESULT;
uint32_t tb_quota_count(struct tb_index *ix,
                        uint32_t acct); /* apply_quota.c: of the selectable mailboxes, by looking */
enum tb_rc tb_quota_mailboxes(struct tb_shard *s, uint32_t acct, size_t more) TB_USE_RESULT;

/* apply_annot.c: the key that all rows of a name begin with. */
struct tb_key tb_annot_key(uint32_t acct, uint32_t mbox, struct tb_slice name);

/* queue.c: deliveries for several shards (R17) */
void tb_queue_resume(struct tb_shard *s);
void tb_queue_start(struct tb_shard *s, uint64_t queue_id, uint32_t len);

/* acl.c: how many entries a mailbox has; the mailbox `to` gets those of `from`, within what the caller had admitted. */
uint32_t tb_acl_entries(struct tb_shard *s, uint32_t acct, uint32_t mbox);
void tb_acl_inherit(struct tb_shard *s, uint32_t acct, uint32_t from, uint32_t to);

/* mailbox.c: used by delivery too */
enum tb_rc tb_keyword_bits(struct tb_shard *s, uint32_t acct, uint32_t mbox, const struct tb_slice *names, size_t n,
                           uint64_t *bits);
/*
 * tb_mailbox_undelete: a mailbox in the trash, with its due second, comes back as `name`, or as "name (restored)" if
 * that is taken (*renamed). Missing parents become \Noselect names. NOTFOUND, INVALID, LIMIT, NOSPACE, BUSY.
 */
enum tb_rc tb_mailbox_undelete(struct tb_account *a, uint32_t mbox, int64_t due, struct tb_slice name, bool *renamed);
/* tb_keyword_map: source bits (of those used) to destination bits, 255: dropped; keywords that the destination lacks
 * are made, within what the caller had admitted. */
void tb_keyword_map(struct tb_account *a, uint32_t src, uint32_t dst, uint64_t used, uint8_t map[64]);
/* tb_mailbox_number: a selectable mailbox by name; 0: none. */
uint32_t tb_mailbox_number(struct tb_shard *s, uint32_t acct, struct tb_slice name);

#endif
