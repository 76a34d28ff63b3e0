/*
 * mailbox.h: an account's mailboxes and one session's view of one of them. Owner thread only; nothing here waits.
 *
 * Names are UTF-8, NFC, hierarchy separator '/'. "INBOX" in any case is the inbox; all other names are case-sensitive.
 * A mailbox that was deleted while it has children stays as a \Noselect name.
 */
#ifndef TAMBO_MAILBOX_H
#define TAMBO_MAILBOX_H

#include <tambo/store.h>

enum { TB_MBOX_INBOX = 1 }; /* every account's INBOX has this number */
enum { TB_MBOX_NAME_MAX = 4000, TB_MBOX_LEAF_MAX = 500, TB_MBOX_DEPTH_MAX = 100 };

enum tb_special { /* RFC 6154, bits */
                  TB_SPECIAL_ALL = 1,
                  TB_SPECIAL_ARCHIVE = 2,
                  TB_SPECIAL_DRAFTS = 4,
                  TB_SPECIAL_FLAGGED = 8,
                  TB_SPECIAL_JUNK = 16,
                  TB_SPECIAL_SENT = 32,
                  TB_SPECIAL_TRASH = 64
};

struct tb_mailbox {
    uint32_t mbox;        /* 0: a name without a mailbox (only subscribed, or only a parent) */
    struct tb_slice name; /* full name, arena */
    uint32_t uidvalidity, uidnext;
    uint32_t messages, unseen, deleted;
    uint64_t highestmodseq;
    uint64_t bytes; /* sum of message sizes */
    uint16_t special;
    uint32_t retention;      /* its own rule: enum tb_retention, or days */
    uint32_t retention_days; /* what holds: after so many days messages are expunged; 0: never */
    bool selectable, subscribed, has_children;
    uint64_t mailboxid; /* unique in the store; never reused */
};

/*
 * tb_mailbox_find: by name. NOTFOUND; INVALID for a name that cannot exist (empty level, control character, not UTF-8).
 * A \Noselect name is found (selectable false). Cost: one index seek per level.
 */
enum tb_rc tb_mailbox_find(struct tb_account *a, struct tb_slice name, struct tb_arena *arena,
                           struct tb_mailbox *out) TB_USE_RESULT;
/* tb_mailbox_get: by number. */
enum tb_rc tb_mailbox_get(struct tb_account *a, uint32_t mbox, struct tb_arena *arena,
                          struct tb_mailbox *out) TB_USE_RESULT;
/*
 * tb_mailbox_list: every mailbox and every subscribed name, parents before children, INBOX first, siblings in byte
 * order. LIMIT arena full. Cost: the account's mailboxes.
 */
enum tb_rc tb_mailbox_list(struct tb_account *a, struct tb_arena *arena, struct tb_mailbox **v,
                           size_t *n) TB_USE_RESULT;
/* tb_mailbox_create: with missing parents. EXISTS; INVALID name; LIMIT leaf, depth or length; NOSPACE. RFC 9051 6.3.4.
 */
enum tb_rc tb_mailbox_create(struct tb_account *a, struct tb_slice name, uint16_t special,
                             uint32_t *mbox) TB_USE_RESULT;
/* tb_mailbox_delete: INVALID for INBOX; EXISTS for a \Noselect name with children; NOTFOUND. Messages go to the trash.
 */
enum tb_rc tb_mailbox_delete(struct tb_account *a, struct tb_slice name) TB_USE_RESULT;
/*
 * tb_mailbox_rename: a subtree costs one row. From INBOX: its messages move to the new mailbox, INBOX stays (RFC
 * 9051 6.3.6). EXISTS target; NOTFOUND; INVALID bad name or into its own child; LIMIT. In one go, however long it
 * takes.
 */
enum tb_rc tb_mailbox_rename(struct tb_account *a, struct tb_slice from, struct tb_slice to) TB_USE_RESULT;
struct tb_renaming { /* messages of INBOX that are on their way */
    uint32_t mbox;   /* the mailbox they go to; 0: they are all there */
    uint32_t below;  /* those with lower UIDs; what arrived since stays */
};
/*
 * tb_mailbox_rename_start: the same, but messages of INBOX move in slices: while left->mbox is not 0, call
 * tb_mailbox_rename_step in another turn. Each message is in one place or the other at any time; what was not moved
 * when somebody stops stays in INBOX. The step's NOTFOUND: the new mailbox was deleted meanwhile; NOSPACE.
 */
enum tb_rc tb_mailbox_rename_start(struct tb_account *a, struct tb_slice from, struct tb_slice to,
                                   struct tb_renaming *left) TB_USE_RESULT;
enum tb_rc tb_mailbox_rename_step(struct tb_account *a, struct tb_renaming *left) TB_USE_RESULT;
/* tb_mailbox_subscribe: names need not exist (RFC 9051 6.3.7). INVALID, LIMIT, NOSPACE. */
enum tb_rc tb_mailbox_subscribe(struct tb_account *a, struct tb_slice name, bool on) TB_USE_RESULT;

enum { TB_RETENTION_DEFAULT = 0, TB_RETENTION_DAYS_MAX = 36500 };
#define TB_RETENTION_FOREVER UINT32_MAX
/*
 * tb_mailbox_retention: the mailbox's rule: messages are expunged, into the trash, when they have been in it for so
 * many days. DEFAULT: what the configuration says of its special use; FOREVER: never. NOTFOUND; INVALID too many days.
 */
enum tb_rc tb_mailbox_retention(struct tb_account *a, uint32_t mbox, uint32_t days) TB_USE_RESULT;

/* ---- flags ---- */
enum tb_flag { /* RFC 9051 2.3.2, bits of tb_row.flags */
               TB_FLAG_SEEN = 1,
               TB_FLAG_ANSWERED = 2,
               TB_FLAG_FLAGGED = 4,
               TB_FLAG_DELETED = 8,
               TB_FLAG_DRAFT = 16
};
enum { TB_KEYWORDS_MAX = 64, TB_KEYWORD_NAME_MAX = 100 };
/*
 * tb_keyword: the bit number of a keyword in a mailbox; with create, a new one is logged if there is none.
 * Case-insensitive, first spelling kept. NOTFOUND; LIMIT 64 are in use; INVALID not an atom.
 */
enum tb_rc tb_keyword(struct tb_account *a, uint32_t mbox, struct tb_slice name, bool create,
                      uint32_t *bit) TB_USE_RESULT;
/* tb_keywords: names by bit number, arena; names[i].len 0 = free. Returns how many slots are in use (highest bit + 1).
 */
size_t tb_keywords(struct tb_account *a, uint32_t mbox, struct tb_arena *arena, struct tb_slice names[TB_KEYWORDS_MAX]);

/* ---- rows ---- */
struct tb_row {
    uint32_t uid;
    uint16_t flags, x;
    uint64_t modseq, keywords;
    int64_t internaldate, savedate; /* seconds since 1970 */
    uint64_t blob;
    uint32_t size, header_size;
    uint64_t thread;
};

/* ---- views ---- */
struct tb_view; /* opaque: seqno <-> UID as one session sees it; moves only in tb_view_refresh */

/* tb_view_open: NOTFOUND if the mailbox is gone. on_change fires (watch semantics, S8) from the loop after any change;
 * may be NULL. */
enum tb_rc tb_view_open(struct tb_account *a, uint32_t mbox, struct tb_view **out) TB_USE_RESULT;
void tb_view_close(struct tb_view *v);
uint32_t tb_view_mbox(const struct tb_view *v);
struct tb_account *tb_view_account(const struct tb_view *v);
uint32_t tb_view_count(const struct tb_view *v);               /* messages in the view */
uint32_t tb_view_uid(const struct tb_view *v, uint32_t seqno); /* 0 if out of range */
uint32_t tb_view_seqno(const struct tb_view *v, uint32_t uid); /* 0 if not in the view */
uint32_t tb_view_uid_max(const struct tb_view *v);             /* 0 if empty */
/* tb_view_uids: the UIDs in the view; the view's own, until its next refresh. */
const struct tb_uidset *tb_view_uids(const struct tb_view *v);
/* tb_view_gone: of these, the ones that were removed and may not be told yet; until the next refresh too. */
const struct tb_uidset *tb_view_gone(const struct tb_view *v);
/* tb_view_uidnext: every message below it is or was in the view. */
uint32_t tb_view_uidnext(const struct tb_view *v);
/* tb_view_modseq: every change up to it is in the view: RFC 7162's HIGHESTMODSEQ as this session knows it. */
uint64_t tb_view_modseq(const struct tb_view *v);
/* tb_view_seqno_ceil: the seqno of the first message with UID >= uid; count + 1 if none. */
uint32_t tb_view_seqno_ceil(const struct tb_view *v, uint32_t uid);
/* tb_view_watch: call fn from the loop (never nested) soon after the mailbox changed; merges; may be spurious. NULL
 * stops. */
void tb_view_watch(struct tb_view *v, void (*fn)(void *user), void *user);

struct tb_change_flags {
    uint32_t seqno, uid;
    uint16_t flags;
    uint64_t keywords, modseq;
};
struct tb_changes {                /* arena-owned */
    bool deleted;                  /* the mailbox is gone: the view is empty from now on */
    bool more;                     /* this is a part: refresh again, in another turn */
    bool keywords_changed;         /* new keywords exist: FLAGS and PERMANENTFLAGS are due */
    uint32_t added;                /* messages appended to the view's end (new count = old - removed + added) */
    uint32_t count;                /* messages in the view afterwards */
    const uint32_t *removed_seqno; /* highest first, each valid at its moment when sent in this order */
    const uint32_t *removed_uid;
    uint32_t removed;
    const struct tb_change_flags *flags; /* ascending seqno after removals; not of added messages */
    uint32_t flags_n;
};
/*
 * tb_view_refresh: learn what changed since this view last looked.
 *   may_expunge  false while seqnos must hold still: removals stay pending (RFC 9051 7.5.1)
 * OK (changes may be empty); LIMIT arena full: view unchanged. Tells of some 8,192 messages at a time. Cost:
 * proportional to changes, not to the mailbox.
 */
enum tb_rc tb_view_refresh(struct tb_view *v, bool may_expunge, struct tb_arena *arena,
                           struct tb_changes *out) TB_USE_RESULT;
struct tb_since {              /* owned by the caller: tb_since_free */
    struct tb_uidset changed;  /* messages of the view that arrived or changed after the given modseq */
    struct tb_uidset vanished; /* UIDs that were removed after it; below the change log's floor: every one not there */
};
/*
 * tb_view_since: what changed after modseq `since`, as the view stands (RFC 7162 3.1.4, 3.2.5).
 *   known     the UIDs to speak of; NULL: all below the mailbox's UIDNEXT
 *   vanished  whether to fill out->vanished
 * OK; LIMIT without memory. out is initialised here. Cost: O(changes), unless the change log was trimmed above since:
 * then the mailbox's rows.
 */
enum tb_rc tb_view_since(struct tb_view *v, uint64_t since, const struct tb_uidset *known, bool vanished,
                         struct tb_since *out) TB_USE_RESULT;
void tb_since_free(struct tb_since *s);

/* tb_view_recent_claim: \Recent is not kept: always 0 (docs/LENIENCY.md). First unseen seqno, 0 if none: */
uint32_t tb_view_first_unseen(struct tb_view *v);

/* tb_view_row: NOTFOUND if it is not in the mailbox any more (it may still be in the view). */
enum tb_rc tb_view_row(struct tb_view *v, uint32_t uid, struct tb_row *out) TB_USE_RESULT;
/*
 * tb_view_scan: rows of the view's mailbox with UID >= uid, in order, into out[0..max). Returns how many. Includes only
 * messages the view knows. Cost: a packed scan, about 4 ns a row.
 */
size_t tb_view_scan(struct tb_view *v, uint32_t uid, struct tb_row *out, size_t max);

/* ---- changing messages. uids may name messages that are gone: they are skipped. ---- */
enum tb_flags_mode { TB_FLAGS_ADD, TB_FLAGS_REMOVE, TB_FLAGS_SET };
/*
 * tb_flags_update: one record; rows that would not change are left alone.
 *   unchangedsince  UINT64_MAX: no condition; else messages with a higher modseq are left and put in *modified
 *   modified        may be NULL; initialised by the caller
 * NOSPACE, NOTFOUND (mailbox gone). The changed flags come back through tb_view_refresh, for this session too: see own.
 */
enum tb_rc tb_flags_update(struct tb_view *v, const struct tb_uidset *uids, enum tb_flags_mode mode, uint16_t flags,
                           uint64_t keywords, uint64_t unchangedsince, struct tb_uidset *modified) TB_USE_RESULT;
struct tb_copied {
    uint32_t uidvalidity;
    struct tb_uidset from, to; /* k-th lowest of from became k-th lowest of to */
};
void tb_copied_free(struct tb_copied *c);
enum tb_change_kind {
    TB_CHANGE_EXPUNGE, /* of these messages remove those that are \\Deleted */
    TB_CHANGE_DELETE,  /* remove them whatever their flags (POP3 QUIT) */
    TB_CHANGE_COPY,    /* all or nothing */
    TB_CHANGE_MOVE     /* each message is in one place or in the other; so also if the rest is refused */
};
struct tb_change; /* opaque: a change under way */
/*
 * tb_change_start: change the messages of uids (copied; NULL: all) in slices, one in each turn of the loop, so that no
 * number of them holds the thread. Copies keep flags, keywords and internaldate (keywords that the destination has no
 * room for are dropped).
 *   v    stays open until tb_change_free
 *   dst  COPY, MOVE: the destination's number
 *   op   its rc is the result. true: it is finished now, done does not run; false: done runs later
 *   out  to be freed by tb_change_free in any case
 * op->rc: OK applied (gate for durable); NOTFOUND the mailbox or the destination is gone; LIMIT UIDs or memory;
 * OVERQUOTA: a COPY over the account's limits, nothing is copied; NOSPACE, BUSY, IO.
 */
bool tb_change_start(struct tb_view *v, enum tb_change_kind kind, const struct tb_uidset *uids, uint32_t dst,
                     struct tb_op *op, struct tb_change **out) TB_USE_RESULT;
/* tb_change_copied: what was copied or moved; from alone: what was removed. */
const struct tb_copied *tb_change_copied(const struct tb_change *c);
/* tb_change_free: a change that is not finished ends where it is; done does not run. */
void tb_change_free(struct tb_change *c);

/* The same in one go, however long it takes. gone: may be NULL; what was removed. out: initialised here, for
 * tb_copied_free. */
enum tb_rc tb_expunge(struct tb_view *v, const struct tb_uidset *uids, struct tb_uidset *gone) TB_USE_RESULT;
enum tb_rc tb_delete(struct tb_view *v, const struct tb_uidset *uids) TB_USE_RESULT;
enum tb_rc tb_copy(struct tb_view *v, const struct tb_uidset *uids, uint32_t dst_mbox,
                   struct tb_copied *out) TB_USE_RESULT;
enum tb_rc tb_move(struct tb_view *v, const struct tb_uidset *uids, uint32_t dst_mbox,
                   struct tb_copied *out) TB_USE_RESULT;

#endif
