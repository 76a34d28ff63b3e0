/*
 * delivery.h: a message on its way in, from LMTP, SMTP or APPEND, into one or many mailboxes of one or many shards.
 *
 * Use: begin; add each target; trace (not for APPEND); write the message in any number of slices; commit or abort.
 * The message is scanned, hashed and compressed on the calling worker as its bytes pass; memory stays under 4 MiB
 * whatever its size (bodies over 1 MiB go to the owners' logs in independent 256 KiB frames while they arrive, R5).
 * Byte for byte: what was traced and written is what comes back. Line ends are the caller's business (SMTP hands over
 * CRLF text).
 */
#ifndef TAMBO_DELIVERY_H
#define TAMBO_DELIVERY_H

#include <tambo/mailbox.h>

struct tb_delivery; /* opaque; bound to the worker that began it */

struct tb_delivery_target {
    struct tb_account_id id;
    uint32_t mbox;           /* 0: by `mailbox`, falling back to INBOX if that name does not exist */
    struct tb_slice mailbox; /* borrowed until the delivery ends; used if mbox is 0 */
    uint16_t flags;
    const struct tb_slice *keywords; /* borrowed until the delivery ends; created in the mailbox as needed */
    size_t keywords_n;
    int64_t internaldate;
    bool is_append; /* the mailbox must exist: no falling back */
    /* results, after commit's done */
    enum tb_rc rc; /* OK: durable. NOTFOUND account or mailbox; NOSPACE; OVERQUOTA; LIMIT UIDs are used up; IO outcome
                      unknown: no positive reply */
    uint32_t uid, uidvalidity;
    uint64_t position; /* log position in the target's shard */
};

enum { TB_DELIVERY_TARGETS_MAX = 2000 };

/* tb_delivery_begin: on any worker. size_max: message bytes allowed in tb_delivery_write. LIMIT without memory. */
enum tb_rc tb_delivery_begin(struct tb_worker *w, uint64_t size_max, struct tb_delivery **out) TB_USE_RESULT;
/* tb_delivery_add: target is the caller's, alive until commit's done or abort. LIMIT: too many. Before the first byte.
 */
enum tb_rc tb_delivery_add(struct tb_delivery *d, struct tb_delivery_target *target) TB_USE_RESULT;
/*
 * tb_delivery_write: the next bytes (at most 512 KiB; copied or consumed before it returns). True: go on. False: wait
 * for op->done before the next write, commit or abort-with-op (a frame is on its way to the logs). Failures are kept
 * and reported by commit. tb_delivery_over: more than size_max was written; the rest is swallowed.
 */
bool tb_delivery_write(struct tb_delivery *d, struct tb_slice bytes, struct tb_op *op);
bool tb_delivery_over(const struct tb_delivery *d);
/* tb_delivery_trace: a block before the message, as tb_delivery_write but not counted against size_max. Small: never
 * waits. */
void tb_delivery_trace(struct tb_delivery *d, struct tb_slice block);
/*
 * tb_delivery_commit: make it visible in every target that can take it; op->done when each target's rc is known and,
 * for OK, durable. atomic  false (LMTP): each target for itself. true (SMTP, APPEND): all or none; recipients in
 * several shards go through one shard's durable queue first (R17), so OK for one is OK for all. d is consumed. op->rc:
 * OK if all targets are OK, else the first failure.
 */
void tb_delivery_commit(struct tb_delivery *d, bool atomic, struct tb_op *op);
/* tb_delivery_abort: forget it; nothing is stored. A write still waiting for its op must have completed or be
 * abandoned: its op's done does not run any more. */
void tb_delivery_abort(struct tb_delivery *d);

/* ---- several messages for one mailbox, all of them or none (RFC 3502) ---- */

struct tb_batch;                                           /* opaque; bound to the worker that began it */
enum { TB_BATCH_MAX = 500, TB_BATCH_BYTES_MAX = 1 << 20 }; /* messages; what they take in the batch's one frame */

/* tb_batch_begin: for a mailbox of that shard. LIMIT without memory. */
enum tb_rc tb_batch_begin(struct tb_worker *w, uint32_t shard, struct tb_batch **out) TB_USE_RESULT;
/*
 * tb_batch_add: the message is whole: keep it, compressed, until the batch's commit. d is consumed; it has one target,
 * alive until commit's done or abort, whose mbox is set. Bodies for which the one frame has no room go to the log now
 * (R5): in memory stay at most TB_BATCH_BYTES_MAX. op->rc: OK; LIMIT: too many, or too much; IO, NOSPACE: as commit.
 */
void tb_batch_add(struct tb_batch *b, struct tb_delivery *d, struct tb_op *op);
/* tb_batch_replace: with the commit this message of an account in the same shard is expunged (RFC 8508). */
void tb_batch_replace(struct tb_batch *b, struct tb_account_id id, uint32_t mbox, uint32_t uid);
/* tb_batch_commit: all messages become visible, in the order they were added, with ascending UIDs. b is consumed;
 * op->rc as tb_delivery_commit's, or CONFLICT: what was to be replaced is gone. */
void tb_batch_commit(struct tb_batch *b, struct tb_op *op);
/* tb_batch_abort: forget them. No add may be under way. */
void tb_batch_abort(struct tb_batch *b);

#endif
