/*
 * fetch.h: reading messages. Owner thread only.
 */
#ifndef TAMBO_FETCH_H
#define TAMBO_FETCH_H

#include <tambo/mailbox.h>

struct tb_cached { /* a worker's scratch: valid until the next tb_cached_get on this worker */
    struct tb_slice envelope, bodystructure, parts;
    struct tb_slice subject_base, references, message_id; /* as in struct tb_mime_result */
};
/*
 * tb_cached_get: the stored envelope, bodystructure and parts of a message. Never waits; about 1 us.
 * NOTFOUND: the message is gone; BUSY: not kept for this message (enormous): read its bytes and run the scanner;
 * CORRUPT: the entry is damaged, treat as BUSY.
 */
enum tb_rc tb_cached_get(struct tb_view *v, uint32_t uid, struct tb_cached *out) TB_USE_RESULT;

struct tb_body; /* opaque: a reader of one message; pins its bytes, so it outlives an expunge */

/* tb_body_open: NOTFOUND the message is gone; LIMIT without memory. */
enum tb_rc tb_body_open(struct tb_view *v, uint32_t uid, struct tb_body **out) TB_USE_RESULT;
uint64_t tb_body_size(const struct tb_body *b);
uint64_t tb_body_header_size(const struct tb_body *b);
/*
 * tb_body_read: make the bytes from `offset` on available: op->done, then op->data is the longest run at hand (at least
 * one byte, at most 1 MiB; valid until the next tb_body_read or close). Offsets may jump. Only what is needed is read:
 * a header costs the header's frame. op->rc: OK; CORRUPT checksum or frame damaged after a second read past the page
 * cache (R19); IO. op->result: bytes at hand. One read in flight per body. Several bodies may be in flight at once.
 */
void tb_body_read(struct tb_body *b, uint64_t offset, struct tb_op *op);
/* tb_body_whole: the reader is going to read all of it: a small message then comes in one read. Before the first read.
 */
void tb_body_whole(struct tb_body *b);
/* tb_body_close: a read in flight is cancelled; its done does not run. */
void tb_body_close(struct tb_body *b);

/*
 * A body opened by its owner, read elsewhere: on worker w. tb_body_reach: as tb_body_read, op->done runs on w; r is the
 * caller's until then, and nothing calls it off. tb_body_release: as tb_body_close; no read is under way. Cost: a
 * message there and back, if w is not the owner.
 */
struct tb_reach {
    struct tb_worker *from;
    struct tb_body *body;
    uint64_t offset;
    struct tb_op *op;
    struct tb_op hop, read;
};
void tb_body_reach(struct tb_worker *w, struct tb_body *b, uint64_t offset, struct tb_reach *r, struct tb_op *op);
void tb_body_release(struct tb_worker *w, struct tb_body *b);

/* tb_email_id: RFC 8474 EMAILID of a message: unguessable-looking, unique in the store; NUL-terminated. */
void tb_email_id(struct tb_account *a, uint64_t blob, char out[32]);
/* tb_email_id_read: the blob an EMAILID of this account stands for; false: it is none. */
bool tb_email_id_read(struct tb_account *a, struct tb_slice id, uint64_t *blob);

#endif
