/*
 * gc.h: the inside of segment garbage collection. Private to engine/store.
 *
 *   gc.c       the owner's side: what to do next, what the index says, what is logged, what is freed
 *   gc_copy.c  the helper's side: reading a segment, compressing its messages anew, proving the round trip
 *   gc_trim.c  change logs
 *
 * While a helper works (gc->busy with an offload) it alone uses items, hints, victims' descriptors and the batch; at
 * all other times the owner does.
 */
#ifndef TB_STORE_GC_H
#define TB_STORE_GC_H

#include "engine/store/shard.h"

enum {
    GC_VICTIMS_MAX = 16,
    GC_ITEMS_MAX = 64 << 10,
    GC_HINTS_MAX = 256 << 10,
    GC_BATCH_ITEMS = 64,
    GC_BATCH_RAW = 1 << 20, /* a batch ends with the item that reaches it: at most this and one item */
    GC_LEVEL = 6,           /* 51 MB/s, -13 % of what deliveries wrote */
    GC_LEVEL_ALL = 9        /* when somebody asks for everything: 29 MB/s, -14 % */
};

struct gc_item { /* compressed bytes that lie in a victim, and a row names */
    uint64_t id; /* blob; or body: piece */
    uint32_t index;
    bool piece; /* of a body of several pieces, or shared */
    bool whole; /* head and own are the whole message */
    bool hashed;
    bool bad; /* it cannot be read: why, and where */
    uint8_t bad_why;
    uint64_t bad_lsn;
    bool skipped;                   /* there was no memory for it */
    struct tb_disk_piece head, own; /* own.lsn 0: there is none */
    uint32_t acct, mbox, uid;       /* a message that refers to it, as far as the log says: the order of writing */
    uint8_t sha256[32];
};

struct gc_hint { /* the log said that this message refers to the blob */
    uint64_t blob;
    uint32_t acct, mbox, uid;
};

struct gc_victim {
    uint32_t segment;
    uint64_t live; /* as counted, when the scan began */
    uint64_t found;
    uint32_t items;
    bool queued;   /* a queued delivery lies in it */
    bool chunks;   /* an unfinished upload may have chunks in it, that a row names tomorrow */
    bool more;     /* not all of it is in items */
    bool kept;     /* something in it could not be moved */
    bool was_read; /* for hints; as far as it can be */
    int fd;        /* for reading pieces; -1: not open */
};

struct gc_clean { /* no row points into it any more */
    uint32_t segment;
    uint64_t position; /* since here in the log: free it when that is confirmed */
};

struct gc_kept { /* tried, and not empty */
    uint32_t segment;
    uint64_t until_ns;
};

struct gc_batch {
    struct gc_item *item[GC_BATCH_ITEMS];
    struct tb_disk_piece head[GC_BATCH_ITEMS], own[GC_BATCH_ITEMS]; /* as they are to be written; lsn unused */
    size_t at[GC_BATCH_ITEMS];                                      /* in out: head bytes, then own bytes */
    size_t n, done;                                                 /* done: logged already */
    struct tb_buf out, comp, raw, check;
    uint64_t bytes; /* read and written, for the throttle */
};

struct tb_gc {
    struct tb_shard *s;
    unsigned phase;  /* TB_GC_ */
    struct tb_op op; /* the timer or offload under way */
    bool busy;
    struct gc_victim victim[GC_VICTIMS_MAX];
    size_t victims;
    uint32_t moved[GC_VICTIMS_MAX]; /* emptied by the last pass: the next one's scan proves it */
    size_t moved_n;
    struct gc_clean *clean; /* owned */
    size_t clean_n, clean_cap;
    struct gc_kept *kept; /* owned */
    size_t kept_n, kept_cap;
    enum tb_db scan_db;
    uint64_t bodies_moved; /* when the scan began */
    uint64_t chunk_floor;  /* chunks of unfinished uploads, when the scan began */
    struct tb_key scan_key;
    struct gc_item *item; /* owned */
    size_t items, items_cap, cursor;
    struct gc_hint *hint; /* owned */
    size_t hints, hints_cap;
    uint64_t to_move; /* bytes of the victims that are yet to be moved */
    struct tb_log_walk *walk;
    size_t walking;         /* victim */
    struct tb_codec *codec; /* owned; made when first used */
    struct gc_batch batch;
    uint64_t step_bytes; /* of the last offload */
    uint64_t next_ns;    /* not before, for the throttle */
    bool left;         /* the disk is full, and a segment was left alone: no room to move it, or a pin would keep it */
    uint64_t held_ns;  /* since when pins alone keep clean segments, or one was left; 0: none is */
    uint64_t until;    /* a run on demand: segments below this position; 0: none */
    bool looked;       /* on demand: everything that could be looked at was */
    bool all, sealing; /* on demand: every one of them, however little is dead */
    bool purging;      /* on demand: what is due in the trash goes first */
    struct tb_op free_op, gate_op;
    bool freeing;
    uint32_t freeing_segment;
    uint64_t backs; /* segments that wait for the next backup before they are emptied */
    uint64_t moved_bytes, freed, bad, repaired;
    uint32_t trim_acct, trim_mbox; /* gc_trim.c: the next mailbox to look at */
    uint64_t trim_ns;              /* not before */
};

/* gc_copy.c: work of an offload; step_bytes says how much was read and written. */
void tb_gc_read_work(struct tb_op *op);
void tb_gc_copy_work(struct tb_op *op);

/* gc_trim.c: look at the next few mailboxes' change logs; once a tick. */
void tb_gc_trim(struct tb_gc *gc);

#endif
