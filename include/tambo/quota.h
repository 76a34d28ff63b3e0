/*
 * quota.h: the limits of an account and how much of them is used. Owner thread only; nothing here waits.
 *
 * Bytes and messages are those of all its mailboxes, as clients see them: a message in two mailboxes counts twice, what
 * is in the trash does not count. RFC 9208 5.1 to 5.3.
 */
#ifndef TAMBO_QUOTA_H
#define TAMBO_QUOTA_H

#include <tambo/store.h>

struct tb_quota {             /* a limit of 0: none */
    uint64_t bytes, messages; /* at most INT64_MAX */
    uint32_t mailboxes;       /* selectable ones */
};
/* tb_quota_get: NOTFOUND, IO. Cost: O(1); the account's mailboxes once for an account made by an older version. */
enum tb_rc tb_quota_get(struct tb_account *a, struct tb_quota *limit, struct tb_quota *used) TB_USE_RESULT;
/*
 * tb_quota_set: replace all limits of the account. One below what is used takes nothing away; it only refuses more.
 * NOTFOUND; INVALID above INT64_MAX; NOSPACE, IO.
 */
enum tb_rc tb_quota_set(struct tb_account *a, const struct tb_quota *limit) TB_USE_RESULT;
/* tb_quota_room: OK, or OVERQUOTA: so many more messages of so many bytes in all would be refused now. */
enum tb_rc tb_quota_room(struct tb_account *a, uint64_t messages, uint64_t bytes) TB_USE_RESULT;
struct tb_quota_ask { /* the caller's, alive until op.done */
    struct tb_op op;  /* op.done on the caller's thread; op.rc: as tb_quota_room */
    struct tb_account_id id;
    uint64_t messages, bytes;
    struct tb_call call; /* private */
};
/* tb_quota_ask: tb_quota_room of an account that may live on another thread. Any worker may call. */
void tb_quota_ask(struct tb_worker *w, struct tb_quota_ask *q);
/* tb_quota_deleted_bytes: of a mailbox's messages with \Deleted. Cost: nothing if there is none, else its rows up to
 * the last of them, 4 ns each. */
uint64_t tb_quota_deleted_bytes(struct tb_account *a, uint32_t mbox);

#endif
