/*
 * store.h: the store as a whole: opening it, its workers, its accounts' places, the output gate, cross-shard calls.
 *
 * Threads: a store has W workers, each a thread with its own tb_io; shard s belongs to worker s % W for the life of the
 * process. An account lives in one shard; everything about it is done on its owner's thread, through these doors:
 * mailbox.h, delivery.h, fetch.h, search.h. Calls say "owner" when only the account's owner thread may make them.
 *
 * What returns tb_rc never waits for a peer or a disk write: a mutation is applied in memory and logged at once, and is
 * durable when tb_gate says so. Frontends hold their output for it (S7): nothing may reach a client before
 * tb_account_position of the account it read or changed is durable.
 *
 * Invariants S1 to S9: docs/ARCHITECTURE.md.
 */
#ifndef TAMBO_STORE_H
#define TAMBO_STORE_H

#include <tambo/base.h>
#include <tambo/io.h>

struct tb_store;   /* process-wide; thread-safe where said */
struct tb_worker;  /* one thread's part: its io and its shards */
struct tb_account; /* an open account: owner's thread only */

/* ---- making and opening ---- */
/* A file of this name in the store's folder: the last process died of a fault (tb_io_crash_mark). The next
 * tb_store_open has every index looked at before it is believed, and takes the file away. */
#define TB_CRASHED "CRASHED"
struct tb_store_options {
    uint64_t segment_bytes; /* 4 MiB..256 MiB, a power of two; 0: 64 MiB */
    uint32_t shards;        /* 1..256; 0: the number of online cores */
};
/* tb_store_create: an empty store in dir (made if missing). EXISTS if there is one; NOSPACE, IO. Blocks. */
enum tb_rc tb_store_create(struct tb_io *io, const char *dir, const struct tb_store_options *opt,
                           struct tb_error *err) TB_USE_RESULT;

struct tb_store_config {
    const char *dir;               /* borrowed for the call */
    uint32_t workers;              /* 1..shards */
    uint64_t checkpoint_log_bytes; /* 0: 32 MiB */
    uint32_t checkpoint_ms;        /* 0: 5000 */
    bool cut;                      /* open shards whose log is being cut: tb_store_truncate alone */
    bool serve_rest;               /* a shard that cannot be opened is down, and the others serve: tb_worker_open */
    bool no_dedup;                 /* store a body that an account has already once more */
    uint64_t train_after;          /* messages in a shard until a dictionary is first trained on them; 0: 10,000 */
    uint32_t retention_trash_days; /* messages leave mailboxes of this special use after; 0: never */
    uint32_t retention_junk_days;
    uint32_t copy_slice;           /* messages that a COPY or MOVE takes in one go; 0: 2,048. For tests */
    uint32_t trash_days;           /* deleted mail is kept for; 0 = purge at the next turn */
    uint64_t copy_log_bytes;       /* a new copy of the index after so much log; 0: 1 GiB */
    uint32_t copy_hours;           /* and when the newest is so old; 0: not for its age */
    uint32_t scrub_days;           /* everything is read and verified within so many days; 0: never */
    uint64_t gc_rate;              /* bytes a second that a shard's GC reads and writes; 0: 8 MiB */
    uint32_t gc_min_dead;          /* percent of a segment that must be dead before it is rewritten; 0: 40 */
    uint32_t backup_horizon_hours; /* GC keeps log for the next backup so long after the newest one; 0: not at all */
    uint64_t compact_pages; /* a start compacts an index file of so many pages, mostly free; 0: 16,384. For tests; 1:
                               full ones too */
    /*
     * A shard failed closed (R7): from now on everything of it answers IO, until it has been rebuilt from disk. Called
     * from the loop of its worker, never inside another call: whoever holds accounts or bodies of it must let go of
     * them now, or it is never rebuilt. NULL: nobody holds any from one turn to the next.
     */
    void (*failed)(void *user, struct tb_worker *w, uint32_t shard, const struct tb_error *err);
    void *user;
    bool (*counted)(const char *secret); /* which accounts tb_directory_counted counts; any thread. NULL: none */
};
/*
 * tb_store_open: lock the folder, read SUPER, raise the epoch durably. Shards are not open yet.
 * A store of an older format is upgraded in place (docs/FORMAT.md, "Upgrading"). BUSY: another process has it (err says
 * who); NOTFOUND no store; CORRUPT; INVALID a format that this program does not know. Blocks. io outlives the store.
 */
enum tb_rc tb_store_open(struct tb_io *io, const struct tb_store_config *cfg, struct tb_store **out,
                         struct tb_error *err) TB_USE_RESULT;
/* tb_store_formats: the store formats that this program opens; what it writes is the newest. */
void tb_store_formats(uint32_t *oldest, uint32_t *newest);
/*
 * tb_worker_open: recover and open the shards of worker `index` on the calling thread, which owns them from now on.
 * Blocks for at most a second per shard (replay of at most checkpoint_log_bytes). The daemon calls it on each worker
 * thread, the tools in turn. CORRUPT: damage that must not be guessed away (err names the file, the position and the
 * repair). With serve_rest, a shard other than the first that is damaged or cannot be read is no error: it is down, or
 * tried again later, as one that failed while it served (tb_store_serves, tb_shard_stat). The first one holds the
 * directory: without it nobody could be told from a stranger.
 */
enum tb_rc tb_worker_open(struct tb_store *store, uint32_t index, struct tb_io *io, struct tb_worker **out,
                          struct tb_error *err) TB_USE_RESULT;
/* tb_worker_started: once all workers are open: deliveries that a crash left between shards go on. Owner. */
void tb_worker_started(struct tb_worker *w);
/*
 * tb_worker_turn: one turn of a worker's loop: hand the open log groups to the disk, submit, wait if asked, run
 * callbacks. Whoever runs a worker calls this and never tb_io_turn on its io (group commit happens here: everything
 * applied in one turn shares a write). Returns how many callbacks ran.
 */
unsigned tb_worker_turn(struct tb_worker *w, bool wait);
/* tb_worker_stop: accept no new work, make everything durable, write a last checkpoint; op->done when it is. Owner. */
void tb_worker_stop(struct tb_worker *w, struct tb_op *op);
/* tb_worker_close: after tb_worker_stop's done, or to abandon everything un-durable (crash tests). Same thread as open.
 */
void tb_worker_close(struct tb_worker *w);
/* tb_store_close: after all workers are closed. */
void tb_store_close(struct tb_store *store);

/* What a worker is and belongs to; any thread. */
struct tb_io *tb_worker_io(struct tb_worker *w);
uint32_t tb_worker_index(const struct tb_worker *w);
struct tb_store *tb_worker_store(struct tb_worker *w);
uint32_t tb_store_workers(const struct tb_store *store);
uint32_t tb_store_shards(const struct tb_store *store);
/* tb_store_worker: worker `index`, once open. Any thread. */
struct tb_worker *tb_store_worker(struct tb_store *store, uint32_t index);
/* tb_store_secret: an HMAC key of 32 bytes derived from the store's secret for a purpose ("emailid", "enumeration",
 * ...). */
void tb_store_secret(struct tb_store *store, const char *purpose, uint8_t key[32]);

/* ---- the directory: name -> account (any thread; a lock held for the copy) ---- */
struct tb_account_id {
    uint32_t shard;
    uint32_t acct; /* unique in the store, never reused */
};
enum { TB_NAME_MAX = 255, TB_SECRET_MAX = 255 };
struct tb_identity {
    struct tb_account_id id;
    char name[TB_NAME_MAX + 1];     /* as created: user or user@domain, lower-cased */
    char secret[TB_SECRET_MAX + 1]; /* "{SCHEME}hash"; "" = no login */
};
/*
 * tb_directory_find: OK or NOTFOUND. name is compared after lower-casing; "user@default" and "user" are the caller's to
 * map (tb_name_resolve in frontends/auth does).
 */
enum tb_rc tb_directory_find(struct tb_store *store, struct tb_slice name, struct tb_identity *out) TB_USE_RESULT;
/* tb_directory_counted: how many accounts have a secret that the store's `counted` (tb_store_config) is true for. */
uint64_t tb_directory_counted(const struct tb_store *store);
/* tb_directory_next: accounts in name order: the first one after `after` ("" to begin). NOTFOUND at the end. */
enum tb_rc tb_directory_next(struct tb_store *store, struct tb_slice after, struct tb_identity *out) TB_USE_RESULT;
/* tb_store_serves: is the account's shard in service? False while it is down or being rebuilt: answer "try later". Any
 * thread; may be out of date at once. */
bool tb_store_serves(const struct tb_store *store, struct tb_account_id id);
uint32_t tb_store_worker_of(const struct tb_store *store, struct tb_account_id id);

/* ---- accounts: open handles (owner) ---- */
/* tb_account_open: a counted handle. NOTFOUND if it was deleted. */
enum tb_rc tb_account_open(struct tb_worker *w, struct tb_account_id id, struct tb_account **out) TB_USE_RESULT;
void tb_account_close(struct tb_account *a);
/* tb_account_name: as the directory has it; empty when the arena is full, or the account is being deleted. */
struct tb_slice tb_account_name(struct tb_account *a, struct tb_arena *arena);
struct tb_worker *tb_account_worker(struct tb_account *a);
uint32_t tb_account_shard(const struct tb_account *a);
/*
 * tb_account_position: the log position that output about this account, produced now, depends on (R16: this account's
 * last change, not strangers'). tb_gate_open: is it durable? tb_gate_wait: op->done once it is (rc OK), or when the
 * shard failed (rc IO: discard the output). One op waits for one position; order of done follows positions.
 */
uint64_t tb_account_position(const struct tb_account *a);
bool tb_gate_open(struct tb_account *a, uint64_t position);
void tb_gate_wait(struct tb_account *a, uint64_t position, struct tb_op *op);
/* tb_gate_cancel: forget the wait; done does not run. */
void tb_gate_cancel(struct tb_account *a, struct tb_op *op);

/* ---- calls: cross-shard work is a message ---- */
struct tb_call {
    void (*run)(struct tb_call *call, struct tb_worker *owner); /* on the owner's thread; may use every owner door */
    struct tb_op op; /* op.done on the caller's thread, after the shard's log is durable up to what run did (R16) */
    enum tb_rc rc;   /* run's result, the caller's to read in done; IO if the shard failed meanwhile */
    void *user;
    bool always; /* run even if the shard is not serving: run looks only at what says so */
    /* private */
    struct tb_worker *from;
    struct tb_op hop;
    struct tb_op gate;
    uint32_t shard;
    uint64_t position;
};
/*
 * tb_call: run call->run on the owner of `shard`, then call->op.done on w's thread. Works the same when w is the owner
 * (run still happens later, from the loop). call is the caller's and stays alive until done.
 */
void tb_call(struct tb_worker *w, uint32_t shard, struct tb_call *call);

#endif
