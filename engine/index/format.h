/*
 * format.h: what the index's values look like on disk, without their trailing checksum. Integers in values are
 * little-endian, in keys big-endian. docs/FORMAT.md tells the same to strangers.
 */
#ifndef TB_INDEX_FORMAT_H
#define TB_INDEX_FORMAT_H

#include <tambo/base.h>

struct tb_disk_state { /* counters of the shard; a cache in memory, written at each checkpoint */
    uint64_t applied;  /* log position up to which the index holds everything */
    uint32_t chain;    /* crc of the last frame before `applied` */
    uint32_t format;
    uint64_t next_blob;
    uint32_t next_acct;       /* shard 0 gives account numbers to all */
    uint32_t uidvalidity_max; /* highest ever given in this shard */
    uint64_t accounts, mailboxes, messages, raw_bytes;
    uint64_t stored_raw_bytes, stored_bytes;
    int64_t time_ms;           /* of the last TIME record: since 1970; 0: none yet */
    uint64_t shared_raw_bytes; /* of bodies, for every reference behind the first */
    uint64_t rules;            /* mailboxes, deleted ones too, with a retention of so many days of their own */
    uint64_t staged;           /* mailboxes with messages of a COPY that is not complete */
};
_Static_assert(sizeof(struct tb_disk_state) == 112, "state");

enum { TB_ACCT_DELETED = 1 /* in the trash with all its mailboxes */ };
struct tb_disk_acct { /* then the name */
    uint64_t modseq;  /* last given; one counter per account (R13) */
    uint32_t next_mbox;
    uint32_t flags;
    uint64_t messages, bytes;
    uint64_t quota_bytes, quota_messages; /* 0: none */
    int64_t due;                          /* DELETED: its trash entry's; else 0 */
    uint32_t quota_mailboxes;             /* 0: none */
    uint32_t mailboxes;                   /* selectable ones, plus 1; 0: not counted yet: tb_quota_mailboxes */
};
_Static_assert(sizeof(struct tb_disk_acct) == 64, "acct");

enum { TB_MBOX_NOSELECT = 1, TB_MBOX_DELETED = 2 /* in the trash with its messages: \Noselect too, in no tree */ };
struct tb_disk_mbox { /* then the leaf name */
    uint32_t parent;  /* 0: top level */
    uint32_t uidvalidity;
    uint32_t uidnext;
    uint32_t messages, unseen, deleted;
    uint64_t highestmodseq;
    uint64_t chg_floor; /* changes at or below it are not in the change log */
    uint64_t bytes;
    uint64_t mailboxid;
    uint64_t created_modseq;
    uint16_t special, flags;
    uint32_t keywords_n; /* bits in use */
    int64_t due;         /* DELETED: its trash entry's; else 0 */
    uint32_t retention;  /* days; 0: as its special use says; UINT32_MAX: for ever */
    uint32_t staged;     /* messages from uidnext on that a COPY under way has put there: nobody sees them yet */
};
_Static_assert(sizeof(struct tb_disk_mbox) == 88, "mbox");

struct tb_disk_row { /* of a message block */
    uint32_t uid;
    uint16_t flags, x;
    uint64_t modseq, keywords;
    int64_t internaldate, savedate;
    uint64_t blob;
    uint32_t size, header_size;
    uint64_t thread;
};
_Static_assert(sizeof(struct tb_disk_row) == 64, "row");

/*
 * The trash. uid 0: a mailbox; mbox 0 too: an account; mbox TB_TRASH_PLACE: what UNPLACE took away (shard 0), whose
 * name field is the PLACE payload.
 */
#define TB_TRASH_PLACE UINT32_MAX
struct tb_disk_trash { /* a message; then its tb_disk_cache and those bytes, if it had a cached envelope */
    struct tb_disk_row row;
    int64_t when; /* it was expunged; not in format 1 */
};
_Static_assert(sizeof(struct tb_disk_trash) == 72, "trash");
struct tb_disk_grave { /* a mailbox, then its whole name as it was; an account, then its name */
    int64_t when;
    uint32_t state; /* 1: its purging has begun, it cannot come back */
    uint32_t reserved;
};
_Static_assert(sizeof(struct tb_disk_grave) == 16, "grave");

struct tb_disk_block { /* head of message and cache blocks */
    uint16_t n, reserved;
    uint32_t last_uid;
    uint64_t modseq_max; /* message blocks */
};
_Static_assert(sizeof(struct tb_disk_block) == 16, "block head");

struct tb_disk_cache { /* entry of a cache block; then clen bytes */
    uint32_t uid;
    uint16_t clen, dict;
    uint32_t raw_len;
};
_Static_assert(sizeof(struct tb_disk_cache) == 12, "cache entry");

enum { TB_CHG_FLAGS = 0x46, TB_CHG_EXPUNGE = 0x58, TB_CHG_DAY = 0x44 /* no change: what is before is older */ };
struct tb_disk_chg { /* head of a change block; then entries of varints: modseq delta, kind, first uid, count - 1 */
    uint64_t last_modseq;
};

struct tb_disk_piece { /* where compressed bytes lie */
    uint64_t lsn;
    uint32_t clen, raw_len, crc;
    uint16_t dict;
    uint16_t flags; /* TB_PIECE_ */
};
_Static_assert(sizeof(struct tb_disk_piece) == 24, "piece");
enum { TB_PIECE_PACKED = 1 }; /* GC compressed it anew: it is only copied from now on */

/* The body is this blob's alone and at most one piece: a tb_disk_piece follows and there is no body row. */
enum { TB_BLOB_OWN_BODY = 1 };
struct tb_disk_blob { /* one stored message: own header, a body that may be shared */
    struct tb_disk_piece head;
    uint64_t body;
    uint32_t refs;
    uint32_t flags;
};
_Static_assert(sizeof(struct tb_disk_blob) == 40, "blob");
struct tb_blob_row { /* a whole value */
    struct tb_disk_blob blob;
    struct tb_disk_piece own; /* TB_BLOB_OWN_BODY */
};
_Static_assert(sizeof(struct tb_blob_row) == 64, "blob row");

struct tb_disk_body { /* of several pieces, or shared: the list lies in bodyx */
    uint64_t raw_bytes, stored_bytes;
    uint32_t refs, pieces;
};
_Static_assert(sizeof(struct tb_disk_body) == 24, "body");

/*
 * TB_DB_HASH: acct, 12 bytes of an HMAC -> body u64: the body of that length and hash that the account stored last.
 * And 2^32 - 1 (no account's number), body -> that key, so that it goes with the body.
 */
enum { TB_HASH_KEY_MAX = 16 };

enum { TB_BODYX_PIECES = 160 }; /* pieces per bodyx value */

struct tb_disk_dict { /* a dictionary of the store's own; also the head of a DICT record and in its file (lsn 0 there)
                       */
    uint16_t id;
    uint8_t role, reserved; /* 0 header, 1 body, 2 cache */
    uint32_t len;
    uint64_t lsn;           /* of its bytes in the log; they may be gone: the file has them too */
    int64_t created;        /* seconds since 1970 */
    uint64_t blobs;         /* messages that the shard had ever stored that it was trained on */
    uint64_t before, after; /* bytes of the samples it was tried on, with the one in use before and with this one */
    uint8_t sha256[32];     /* of its bytes */
};
_Static_assert(sizeof(struct tb_disk_dict) == 80, "dict");

struct tb_disk_seg {
    uint64_t total, live; /* bytes of blobs and chunks */
    uint32_t state, reserved;
};
_Static_assert(sizeof(struct tb_disk_seg) == 24, "seg");

struct tb_disk_acl { /* then the identifier's name, without the dash of a negative one */
    uint32_t rights; /* enum tb_right, bits */
    uint32_t reserved;
};
_Static_assert(sizeof(struct tb_disk_acl) == 8, "acl");

enum tb_bad_why { TB_BAD_CHECKSUM = 1, TB_BAD_READ, TB_BAD_INFLATE, TB_BAD_ROW };
struct tb_disk_bad { /* a stored message known to be damaged */
    uint64_t lsn;    /* of the damaged piece, when it was found */
    int64_t when;    /* seconds since 1970 */
    uint32_t piece;  /* 0 the head, then the body's */
    uint16_t why, reserved;
};
_Static_assert(sizeof(struct tb_disk_bad) == 24, "bad");

#endif
