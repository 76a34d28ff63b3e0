/*
 * trash.h: what was deleted and can still come back: expunged messages, deleted mailboxes, deleted accounts. Owner
 * thread only, but for tb_account_undelete. Nothing here waits.
 *
 * Listing and restoring go in steps, each short enough for an owner's thread: call again with the same cursor until it
 * says end.
 */
#ifndef TAMBO_TRASH_H
#define TAMBO_TRASH_H

#include <tambo/mailbox.h>

struct tb_trash_filter {          /* everything must match */
    struct tb_slice mailbox;      /* full name as it is, or was when it was deleted; len 0: any */
    const struct tb_uidset *uids; /* NULL: any; else messages alone, by the UIDs that they had */
    int64_t since;                /* deleted then or later */
    struct tb_slice to;           /* restoring: the mailbox for what comes back; len 0: where it was */
};

struct tb_trash_cursor { /* zeroed to begin; mailboxes first, then messages */
    int64_t due;
    uint32_t mbox, uid;
    bool messages, end;
};

struct tb_trash_item {
    uint32_t mbox, uid;             /* uid 0: a mailbox */
    struct tb_slice mailbox;        /* arena; len 0: its mailbox is gone for good */
    int64_t when, until;            /* deleted (0: not known); kept until */
    uint64_t bytes;                 /* of the message, or of all of the mailbox */
    uint32_t messages, uidvalidity; /* a mailbox */
    int64_t internaldate;           /* a message */
    struct tb_slice envelope;       /* arena; len 0: not kept */
};
/*
 * tb_trash_list: the next items, up to max. *n may be 0 before the end. Cost: at most some thousand entries of the
 * trash are looked at; an account skips the others' by seeking. LIMIT arena full. NOTFOUND the account is gone.
 */
enum tb_rc tb_trash_list(struct tb_account *a, const struct tb_trash_filter *f, struct tb_trash_cursor *c,
                         struct tb_arena *arena, struct tb_trash_item *v, size_t max, size_t *n) TB_USE_RESULT;

struct tb_restored {
    uint64_t mailboxes, messages; /* given back; messages: one by one */
    uint64_t renamed;             /* mailboxes that came back as "NAME (restored)", because NAME was taken */
};
/*
 * tb_trash_restore: give back the next of what matches, adding to *sum: a mailbox with its UIDVALIDITY and UIDs;
 * messages under new UIDs, to the mailbox they were in, or to "Restored" if that is gone. Watchers are told. Quotas do
 * not stop it. NOSPACE, BUSY: nothing of this step was done. INVALID, LIMIT: f->to is no name for a mailbox.
 */
enum tb_rc tb_trash_restore(struct tb_account *a, const struct tb_trash_filter *f, struct tb_trash_cursor *c,
                            struct tb_restored *sum) TB_USE_RESULT;

struct tb_trash_account {
    uint32_t acct;
    struct tb_slice name; /* arena */
    int64_t when, until;
};
/* tb_trash_accounts: the next deleted accounts, earliest first. Shard 0's owner. As tb_trash_list. */
enum tb_rc tb_trash_accounts(struct tb_worker *owner, struct tb_trash_cursor *c, struct tb_arena *arena,
                             struct tb_trash_account *v, size_t max, size_t *n) TB_USE_RESULT;
/*
 * tb_account_undelete: a deleted account with all that it had comes back under its name, with its secret. Any worker.
 * op->rc: OK durable; NOTFOUND it is not there any more, or has less than a minute left; EXISTS the name is taken;
 * NOSPACE, BUSY, IO.
 */
void tb_account_undelete(struct tb_worker *w, uint32_t acct, int64_t until, struct tb_op *op);

#endif
