/*
 * payload.h: what is in a record's payload, by type. Little-endian, packed by hand (every struct's size is asserted);
 * variable parts follow in the order told. BLOB and ADD, of which there is one a message, are varints. Records carry
 * results, not requests: numbers and times were chosen before logging (S9). docs/FORMAT.md tells the same to strangers.
 */
#ifndef TB_PAYLOAD_H
#define TB_PAYLOAD_H

#include "engine/index/format.h"
#include "engine/log/format.h"

/*
 * BLOB, taken apart (payload.c encodes it in varints). Behind it: head bytes; if pieces > 1 that many tb_disk_piece;
 * the body's bytes if pieces is 1; cache bytes. shared: the body is one that is stored already: pieces is 0.
 */
struct tb_pay_blob {
    uint64_t blob, body;       /* 0 in a queue: given where it is stored */
    uint64_t size;             /* of the message as the client sees it */
    struct tb_disk_piece head; /* lsn unused: the bytes follow */
    struct tb_disk_piece only; /* the body if it is one piece; lsn unused: the bytes follow */
    uint32_t pieces;
    uint32_t refs;                  /* ADD records of this blob in this frame that are flagged TB_ADD_COUNTED */
    uint32_t cache_clen, cache_raw; /* clen 0: not cached */
    uint16_t cache_dict;
    uint32_t header_size;
    uint8_t sha256[32];            /* of the message's bytes */
    bool shared;                   /* body is another blob's; not in a queue */
    bool hashed;                   /* hash is there; never with shared */
    uint8_t hash[TB_HASH_KEY_MAX]; /* key of the body in TB_DB_HASH; in a queue: what dedup.c makes the key from */
};
enum { TB_BLOB_ENCODED_MAX = 32 + 16 * 10 + 8 + TB_HASH_KEY_MAX };
/* Flags above the 32 bits of `pieces`, so that a blob without them is encoded as in format 1. */
#define TB_BLOB_HASHED (UINT64_C(1) << 32)
#define TB_BLOB_SHARED (UINT64_C(1) << 33)
/* tb_blob_encode: at most TB_BLOB_ENCODED_MAX bytes; returns how many. */
size_t tb_blob_encode(const struct tb_pay_blob *p, uint8_t *out);
/* tb_blob_decode: from the front of *s, which advances; false if it is cut or a number is too large. */
bool tb_blob_decode(struct tb_slice *s, struct tb_pay_blob *out);

/* CHUNK: then clen bytes. No effect until a BLOB lists it. */
struct tb_pay_chunk {
    uint32_t clen, raw_len, crc;
    uint16_t dict, reserved;
};
_Static_assert(sizeof(struct tb_pay_chunk) == 16, "chunk payload");

/* Record flags. CACHE: cache bytes follow instead of the frame's BLOB's. QUEUED: it came through a queue (R17). */
enum { TB_ADD_COUNTED = 1, TB_ADD_CACHE = 2, TB_ADD_QUEUED = 4 };
struct tb_pay_add { /* taken apart */
    uint32_t mbox;
    struct tb_disk_row row;
    uint8_t delivery[16]; /* QUEUED */
    uint32_t cache_raw;   /* CACHE; the bytes are the rest of the payload */
    uint16_t cache_dict;
};
enum { TB_ADD_ENCODED_MAX = 14 * 10 + 16 };
/* tb_add_encode: at most TB_ADD_ENCODED_MAX bytes, without the cache bytes; returns how many. */
size_t tb_add_encode(const struct tb_pay_add *p, uint8_t flags, uint8_t *out);
/* tb_add_decode: from the front of *s, which advances to the cache bytes; false if it is cut. */
bool tb_add_decode(struct tb_slice *s, uint8_t flags, struct tb_pay_add *out);

struct tb_pay_flags { /* then n x tb_range */
    uint32_t mbox;
    uint8_t mode, reserved;
    uint16_t flags;
    uint64_t keywords, modseq;
    uint32_t n, reserved2;
};
_Static_assert(sizeof(struct tb_pay_flags) == 32, "flags payload");

enum { TB_EXPUNGE_WHEN = 1 }; /* record flag: the time it was done, i64, stands before the ranges */
struct tb_pay_expunge {       /* then n x tb_range */
    uint32_t mbox, n;
    uint64_t modseq;
    int64_t due; /* kept in the trash until then */
};
_Static_assert(sizeof(struct tb_pay_expunge) == 24, "expunge payload");

/* Record flags. MOVE: the source messages go, without trash (R18). STAGED: the copies are not to be seen yet. COMMIT,
 * with STAGED: with these, perhaps none, the COPY is complete: all that is staged becomes visible. SUMS, with COMMIT:
 * what is staged has dst_modseq already, and what it adds to the counters stands in the record: no row is looked at. */
enum { TB_COPY_MOVE = 1, TB_COPY_STAGED = 2, TB_COPY_COMMIT = 4, TB_COPY_SUMS = 8 };
struct tb_pay_copy { /* then, with SUMS, tb_pay_copy_sums; then n x tb_range of source UIDs; destination UIDs are
                        consecutive from dst_uid */
    uint32_t src, dst, dst_uid, n;
    uint64_t dst_modseq, src_modseq;
    int64_t savedate;
    uint8_t keyword[64]; /* source bit -> destination bit, 255: dropped */
};
_Static_assert(sizeof(struct tb_pay_copy) == 104, "copy payload");
struct tb_pay_copy_sums { /* of all that is staged, the record's own messages too */
    uint32_t unseen, deleted;
    uint64_t bytes;
};
_Static_assert(sizeof(struct tb_pay_copy_sums) == 16, "copy sums payload");

struct tb_pay_mbox { /* then the leaf name */
    uint32_t mbox, parent, uidvalidity;
    uint16_t special, flags;
    uint64_t mailboxid, modseq;
};
_Static_assert(sizeof(struct tb_pay_mbox) == 32, "mbox payload");

/* Record flags: it has children, so a \\Noselect name stays; the time it was done, i64, follows. */
enum { TB_DELETE_KEEP_NAME = 1, TB_DELETE_WHEN = 2 };
struct tb_pay_mbox_delete {
    uint32_t mbox;
    uint32_t heir; /* KEEP_NAME: the number that the name and its children get; 0: format 1, it keeps its own */
    uint64_t modseq;
    int64_t due; /* kept, with its messages, in the trash until then */
};
_Static_assert(sizeof(struct tb_pay_mbox_delete) == 24, "mbox delete payload");

struct tb_pay_rename { /* then the new leaf name */
    uint32_t mbox, parent;
    uint64_t modseq;
};
_Static_assert(sizeof(struct tb_pay_rename) == 16, "rename payload");

enum { TB_SUB_ON = 1 }; /* record flag of SUB; the payload is the name */

struct tb_pay_keyword { /* then the name */
    uint32_t mbox, bit;
};
_Static_assert(sizeof(struct tb_pay_keyword) == 8, "keyword payload");

struct tb_pay_acct { /* then the name */
    uint64_t modseq;
};
struct tb_pay_acct_delete {
    int64_t due;
    int64_t when; /* not in format 1 */
};
struct tb_pay_unplace { /* empty in format 1: nothing is kept */
    int64_t due, when;
};

struct tb_pay_place { /* then name, then secret */
    uint32_t shard;
    uint16_t name_len, secret_len;
};
_Static_assert(sizeof(struct tb_pay_place) == 8, "place payload");

/*
 * PURGE: any number of these. Record flags, each with one entry alone: MAILBOX: messages of the deleted mailbox (or of
 * the deleted account's mailbox) with UIDs up to uid, and the mailbox itself if none is left; ACCOUNT: up to uid names
 * and other rows of the deleted account, and the account itself if none is left. STAGED: messages with UIDs over uid
 * that a COPY which was not completed left in the mailbox.
 */
enum { TB_PURGE_MAILBOX = 1, TB_PURGE_ACCOUNT = 2, TB_PURGE_STAGED = 4 };
struct tb_pay_purge { /* uid 0: the trash entry alone */
    int64_t due;
    uint32_t acct, mbox, uid, reserved;
};
_Static_assert(sizeof(struct tb_pay_purge) == 24, "purge payload");

struct tb_pay_unexpunge { /* then n x tb_pay_unexpunged: they get UIDs dst_uid, dst_uid + 1, ... */
    uint32_t src, dst, dst_uid, n;
    uint64_t modseq;
    int64_t savedate;
    uint8_t keyword[64]; /* as in COPY */
};
_Static_assert(sizeof(struct tb_pay_unexpunge) == 96, "unexpunge payload");
struct tb_pay_unexpunged {
    int64_t due;
    uint32_t uid, reserved;
};
_Static_assert(sizeof(struct tb_pay_unexpunged) == 16, "unexpunged");

/* Record flags: its special use is taken by now; a \Noselect name stands in its place, which goes. */
enum { TB_UNDELETE_PLAIN = 1, TB_UNDELETE_REPLACE = 2 };
struct tb_pay_undelete {   /* then the leaf name */
    uint32_t mbox, parent; /* mbox 0: the account */
    uint64_t modseq;
    int64_t due;
};
_Static_assert(sizeof(struct tb_pay_undelete) == 24, "undelete payload");

struct tb_pay_rule {     /* the retention of a mailbox */
    uint32_t mbox, days; /* 0: as its special use says; UINT32_MAX: for ever */
};
_Static_assert(sizeof(struct tb_pay_rule) == 8, "rule payload");

enum { TB_ANNOT_GONE = 1 };   /* record flag: there is no value any more */
enum { TB_ANNOT_ROW = 3840 }; /* bytes of a value in one row */
struct tb_pay_annot {         /* then the name, then the value */
    uint32_t mbox;            /* 0: the account's own */
    uint16_t name_len, reserved;
};
_Static_assert(sizeof(struct tb_pay_annot) == 8, "annot payload");

struct tb_pay_quota { /* the limits of an account, each 0: none */
    uint64_t bytes, messages;
    uint32_t mailboxes, reserved;
};
_Static_assert(sizeof(struct tb_pay_quota) == 24, "quota payload");

/* QUEUE: head, then parts x (part head, targets x (target, mailbox name, keywords: n x (u8 length, bytes)), BLOB
 * payload image). */
struct tb_pay_queue {
    uint8_t delivery[16];
    uint32_t parts, reserved;
};
_Static_assert(sizeof(struct tb_pay_queue) == 24, "queue payload");
struct tb_pay_queue_part {
    uint32_t shard, targets, image_len, reserved;
};
_Static_assert(sizeof(struct tb_pay_queue_part) == 16, "queue part");
struct tb_pay_queue_target {
    uint32_t acct, mbox;
    int64_t internaldate;
    uint16_t flags, mailbox_len;
    uint32_t reserved;
};
_Static_assert(sizeof(struct tb_pay_queue_target) == 24, "queue target");
struct tb_pay_queue_done {
    uint64_t queue;
};

/* SKIP: of an account, its record's acct: mailboxes, uids, modseqs. Of the shard (acct 0): the rest. */
struct tb_pay_skip {
    uint64_t modseqs, blobs;
    uint32_t uids, mailboxes, accounts, uidvalidities;
};
_Static_assert(sizeof(struct tb_pay_skip) == 32, "skip payload");
/* How far a restore and a salvage skip: further than anything that was lost can have gone. */
#define TB_SKIP_SHARD \
    (struct tb_pay_skip) \
    { \
        .blobs = UINT64_C(1) << 32, .accounts = 1 << 16, .uidvalidities = 1 << 16 \
    }
#define TB_SKIP_ACCOUNT \
    (struct tb_pay_skip) \
    { \
        .modseqs = UINT64_C(1) << 32, .uids = 1 << 20, .mailboxes = 1 << 16 \
    }
enum { TB_DICT_RETIRED = 1 }; /* record flag: nothing needs it any more; no bytes follow */
/* DICT: a tb_disk_dict (lsn 0), then len bytes. */

struct tb_pay_time { /* TIME: the first record of its frame */
    int64_t ms;      /* since 1970; may be less than the one before, if the clock was set back */
};

enum { TB_QUARANTINE_LIFTED = 1 }; /* record flag: it reads well again */
struct tb_pay_quarantine {
    uint64_t blob;
    struct tb_disk_bad bad;
};
_Static_assert(sizeof(struct tb_pay_quarantine) == 32, "quarantine payload");
/*
 * MOVED, taken apart (varints, as BLOB): GC wrote compressed bytes again, somewhere else. It counts only where the
 * index still names the old place. Two kinds: a blob (head piece, and the body if that is its own), or with the flag
 * TB_MOVED_PIECE piece `index` of a body. Behind it: list pieces (where a body of several pieces lies now), rows, head
 * bytes, body bytes.
 */
enum { TB_MOVED_PIECE = 1, TB_MOVED_HASHED = 2 }; /* record flags; HASHED: sha256 is there */
enum { TB_MOVED_ROWS_MAX = 32 };
struct tb_pay_moved {
    uint64_t blob, body;
    uint32_t index;
    uint64_t head_from, own_from; /* the old places; own_from 0: no body of its own is moved */
    struct tb_disk_piece head;    /* lsn unused: the bytes follow */
    struct tb_disk_piece own;     /* the body, or the piece; lsn unused: the bytes follow */
    uint32_t pieces;              /* in the list */
    uint32_t rows, rows_len;      /* messages that refer to the blob, as far as was known; their bytes in all */
    uint8_t sha256[32];           /* of the message */
};
enum { TB_MOVED_ENCODED_MAX = 18 * 10 + 8 + 32 };
size_t tb_moved_encode(const struct tb_pay_moved *p, uint8_t flags, uint8_t *out);
bool tb_moved_decode(struct tb_slice *s, uint8_t flags, struct tb_pay_moved *out);
/* A row of MOVED: so that what a message was can be told without the index. keywords: names. */
struct tb_moved_row {
    uint32_t acct, mbox;
    struct tb_disk_row row; /* keywords and blob unused */
    uint32_t keywords_n;    /* then n times: length u8, name */
};
enum { TB_MOVED_ROW_MAX = 12 * 10 };
size_t tb_moved_row_encode(const struct tb_moved_row *r, uint8_t *out); /* without the names */
bool tb_moved_row_decode(struct tb_slice *s, struct tb_moved_row *out);
/* tb_moved_keyword: the next of a row's names; false if it is cut. */
bool tb_moved_keyword(struct tb_slice *s, struct tb_slice *name);

/* Record flags. NEGATIVE: rights that are taken away. INHERIT: the mailbox gets all that `from` has; user, rights and
 * name mean nothing. */
enum { TB_ACL_NEGATIVE = 1, TB_ACL_INHERIT = 2 };
struct tb_pay_acl { /* then the name */
    uint32_t mbox, user;
    uint32_t rights; /* 0: the entry goes */
    uint32_t from;
};
_Static_assert(sizeof(struct tb_pay_acl) == 16, "acl payload");

struct tb_pay_trim { /* TRIM: the change log of a mailbox begins behind floor; day: not 0: mark it with this */
    uint32_t mbox, day;
    uint64_t floor;
};
_Static_assert(sizeof(struct tb_pay_trim) == 16, "trim payload");

enum { TB_SEGMENT_FREED = 1 }; /* record flag: it is gone, or about to go */
struct tb_pay_segment {        /* SEGMENT: what is live in a segment, counted from the index */
    uint32_t segment, reserved;
    uint64_t total, live;
};
_Static_assert(sizeof(struct tb_pay_segment) == 24, "segment payload");

#endif
