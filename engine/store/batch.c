/*
 * batch.c: messages that are stored together or not at all (MULTIAPPEND), and a message that takes another's place
 * (REPLACE).
 *
 * Each is compressed as it comes and kept here, until one call puts all of them into one frame (S2, image.c). The frame
 * is what bounds a batch: bodies that it has no room for go to the log before, as CHUNKs. So nobody sees any of them
 * before all are durable, a crash leaves all or none, and no mailbox waits for a client that is slow. An equal body is
 * not looked for: each is stored.
 *
 * Thread: the worker that began it; the call runs on the shard's owner.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/store/delivery_format.h"

enum {
    INLINE_BYTES_MAX = 512 << 10, /* of bodies before compression: the rest is for headers */
    INLINE_SMALL = 1 << 10        /* as small as a list of chunks */
};

struct tb_batch {
    struct tb_worker *worker;
    uint32_t shard;
    struct tb_letter *letter[TB_BATCH_MAX]; /* owned */
    size_t n, bytes;
    uint64_t inline_bytes;
    struct tb_replaced old;
    uint64_t self; /* who began it */
    struct tb_call call;
    struct tb_op *op;
};

static void batch_free(struct tb_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        tb_chunks_unpin(b->worker, b->shard, b->letter[i]->pin);
        free(b->letter[i]);
    }
    free(b);
}

enum tb_rc tb_batch_begin(struct tb_worker *w, uint32_t shard, struct tb_batch **out)
{
    struct tb_batch *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return TB_LIMIT;
    b->worker = w;
    b->shard = shard;
    b->self = w->self;
    *out = b;
    return TB_OK;
}

bool tb_batch_inline(struct tb_batch *b, uint64_t body)
{
    if (body > INLINE_SMALL && body > INLINE_BYTES_MAX - b->inline_bytes)
        return false;
    b->inline_bytes += body <= INLINE_BYTES_MAX - b->inline_bytes ? body : 0;
    return true;
}

/* keep: bytes of a slice behind *at; the slice is there from now on. */
static void keep(struct tb_slice *s, char **at)
{
    if (s->len > 0)
        memcpy(*at, s->ptr, s->len);
    s->ptr = *at;
    *at += s->len;
}

enum tb_rc tb_batch_take(struct tb_batch *b, const struct tb_image *img, struct tb_delivery_target *target,
                         uint64_t pin)
{
    size_t len = img->header.len + img->list.len + img->rest.len, bytes = tb_image_bytes(img);
    if (b->n == TB_BATCH_MAX || bytes > TB_BATCH_BYTES_MAX - b->bytes)
        return TB_LIMIT;
    struct tb_letter *l = malloc(sizeof(*l) + len);
    if (l == NULL)
        return TB_LIMIT;
    char *at = l->bytes;
    l->image = *img;
    l->target = target;
    l->pin = pin;
    keep(&l->image.header, &at);
    keep(&l->image.list, &at);
    keep(&l->image.rest, &at);
    b->letter[b->n++] = l;
    b->bytes += bytes;
    return TB_OK;
}

void tb_batch_replace(struct tb_batch *b, struct tb_account_id id, uint32_t mbox, uint32_t uid)
{
    TB_ASSERT(id.shard == b->shard);
    b->old = (struct tb_replaced){.acct = id.acct, .mbox = mbox, .uid = uid};
}

static void commit_run(struct tb_call *call, struct tb_worker *owner)
{
    struct tb_batch *b = call->user;
    struct tb_shard *s = tb_shard_of(owner, b->shard);
    owner->self = b->self;
    call->rc = tb_letters_deliver(s, b->letter, b->n, &b->old);
    owner->self = 0;
    for (size_t i = 0; i < b->n && call->rc != TB_BUSY; i++) {
        if (b->letter[i]->pin != 0)
            tb_pin_chunk_remove(&s->pins, b->letter[i]->pin);
        b->letter[i]->pin = 0;
    }
}

static void commit_done(struct tb_op *op)
{
    struct tb_batch *b = op->user;
    enum tb_rc rc = b->call.rc;
    for (size_t i = 0; i < b->n; i++) {
        if (rc == TB_IO)
            b->letter[i]->target->rc = TB_IO; /* the log write failed after they were added */
        else if (rc == TB_OK)
            rc = b->letter[i]->target->rc;
    }
    struct tb_op *asked = b->op;
    struct tb_worker *w = b->worker;
    batch_free(b);
    tb_worker_ready(w, asked, rc);
}

void tb_batch_commit(struct tb_batch *b, struct tb_op *op)
{
    TB_ASSERT(b->n > 0);
    b->op = op;
    b->call = (struct tb_call){.run = commit_run, .user = b, .op = {.done = commit_done, .user = b}};
    tb_call(b->worker, b->shard, &b->call);
}

void tb_batch_abort(struct tb_batch *b)
{
    if (b != NULL)
        batch_free(b);
}
