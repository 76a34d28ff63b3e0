/*
 * delivery.c: a message on its way in. Its bytes are scanned, hashed and gathered on the worker that receives them;
 * compressed there; stored by the owners of its targets' shards.
 *
 *   gathering --over 1 MiB of body--> chunking (256 KiB pieces go to every target shard's log as they come, R5)
 *       \--commit--> [last piece] --> one call per shard: image.c --all answered--> op->done
 *
 * Memory: at most TB_HEAD_RAW_MAX + TB_BODY_ONE_MAX raw bytes and as many compressed ones.
 * Thread: the worker that began it; a part's call runs on its owner while this side waits.
 */
#include <tambo/message.h>
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/crypto/crypto.h"
#include "engine/base/rules.h"
#include "engine/store/delivery_format.h"

enum { GATHER_MAX = TB_HEAD_RAW_MAX + TB_BODY_ONE_MAX, KEEP_BYTES = 64 << 10, IDLE_MAX = 256 };

struct part { /* one shard's share */
    struct tb_call call;
    struct tb_delivery *d;
    uint32_t shard;
    struct tb_delivery_target **targets; /* a run of d->sorted */
    size_t n;
    struct tb_disk_piece *list; /* owned: chunks in this shard's log */
    uint64_t pin;               /* of the first one, in this shard; 0: none */
    struct tb_image image;
    struct tb_slice queue; /* a QUEUE payload to log with it */
    uint64_t queue_id;
    enum tb_rc rc; /* of its chunks: what went wrong in this shard */
    struct tb_dedup dedup;
    bool looked; /* for a stored body like this one */
};

struct tb_delivery {
    struct tb_delivery *next_idle;
    struct tb_worker *worker;
    uint64_t self; /* who began it */
    struct tb_mime *mime;
    struct tb_sha256 sha;
    uint64_t size_max, written, size;    /* size: with the trace */
    struct tb_delivery_target **targets; /* owned array of the caller's */
    size_t n, cap;
    struct part *parts; /* owned */
    size_t parts_n;
    struct tb_buf raw;  /* not stored yet */
    struct tb_buf comp; /* header | body or chunk | cache */
    bool chunking, over, atomic, committing, aborted;
    enum tb_rc failed;
    struct tb_disk_piece head; /* of the compressed header at comp[0] */
    uint32_t chunks, chunks_cap;
    size_t chunk_raw;       /* bytes of a whole chunk */
    struct tb_batch *batch; /* borrowed: where it goes instead of being stored; NULL: nowhere */
    uint64_t hash;          /* of the body */
    struct tb_slice chunk;  /* compressed, being stored */
    struct tb_pay_chunk chunk_head;
    size_t waiting; /* calls under way */
    struct tb_op *op;
    struct tb_mime_result info;
    struct tb_buf queue; /* QUEUE payload */
};

/* ---- life ---- */

struct unpin {
    struct tb_call call;
    uint64_t lsn;
};

static void unpin_run(struct tb_call *call, struct tb_worker *owner)
{
    struct unpin *u = call->user;
    tb_pin_chunk_remove(&tb_shard_of(owner, call->shard)->pins, u->lsn);
    call->rc = TB_OK;
}

static void unpin_done(struct tb_op *op)
{
    free(op->user);
}

void tb_chunks_unpin(struct tb_worker *w, uint32_t shard, uint64_t pin)
{
    struct unpin *u = pin != 0 ? calloc(1, sizeof(*u)) : NULL;
    if (u == NULL)
        return;
    u->lsn = pin;
    u->call = (struct tb_call){.run = unpin_run, .user = u, .always = true, .op = {.done = unpin_done, .user = u}};
    tb_call(w, shard, &u->call);
}

static void delivery_clear(struct tb_delivery *d)
{
    for (size_t i = 0; i < d->parts_n; i++) {
        tb_chunks_unpin(d->worker, d->parts[i].shard, d->parts[i].pin);
        free(d->parts[i].list);
    }
    free(d->parts);
    d->parts = NULL;
    d->parts_n = 0;
    d->n = 0;
    tb_buf_free(&d->queue);
    struct tb_buf *kept[] = {&d->raw, &d->comp};
    for (size_t i = 0; i < TB_ARRAY_LEN(kept); i++) {
        kept[i]->len = 0;
        if (kept[i]->cap > KEEP_BYTES || kept[i]->failed) {
            size_t limit = kept[i]->limit;
            tb_buf_free(kept[i]);
            tb_buf_init(kept[i], limit);
        }
    }
}

static void delivery_free(struct tb_delivery *d)
{
    delivery_clear(d);
    free(d->targets);
    tb_buf_free(&d->raw);
    tb_buf_free(&d->comp);
    tb_mime_free(d->mime);
    free(d);
}

static void delivery_end(struct tb_delivery *d)
{
    struct tb_worker *w = d->worker;
    if (w->idle_n >= IDLE_MAX) {
        delivery_free(d);
        return;
    }
    delivery_clear(d);
    d->next_idle = w->idle_deliveries;
    w->idle_deliveries = d;
    w->idle_n++;
}

void tb_delivery_pool_free(struct tb_worker *w)
{
    while (w->idle_deliveries != NULL) {
        struct tb_delivery *d = w->idle_deliveries;
        w->idle_deliveries = d->next_idle;
        delivery_free(d);
    }
    w->idle_n = 0;
}

static struct tb_delivery *delivery_new(void)
{
    struct tb_delivery *d = calloc(1, sizeof(*d));
    if (d == NULL || (d->mime = tb_mime_new()) == NULL) {
        free(d);
        return NULL;
    }
    tb_buf_init(&d->raw, GATHER_MAX + (1u << 20));
    tb_buf_init(&d->comp, 2u * GATHER_MAX);
    return d;
}

enum tb_rc tb_delivery_begin(struct tb_worker *w, uint64_t size_max, struct tb_delivery **out)
{
    struct tb_delivery *d = w->idle_deliveries;
    if (d != NULL) {
        w->idle_deliveries = d->next_idle;
        w->idle_n--;
    } else if ((d = delivery_new()) == NULL) {
        return TB_LIMIT;
    }
    d->worker = w;
    d->self = w->self;
    d->size_max = size_max;
    d->written = d->size = 0;
    d->chunking = d->over = d->atomic = d->committing = d->aborted = false;
    d->failed = TB_OK;
    d->chunks = d->chunks_cap = 0;
    d->chunk_raw = TB_CHUNK_RAW;
    d->batch = NULL;
    d->hash = 0;
    d->waiting = 0;
    d->op = NULL;
    tb_mime_reset(d->mime);
    tb_sha256_init(&d->sha);
    tb_buf_init(&d->queue, 0);
    *out = d;
    return TB_OK;
}

enum tb_rc tb_delivery_add(struct tb_delivery *d, struct tb_delivery_target *target)
{
    if (d->n == TB_DELIVERY_TARGETS_MAX)
        return TB_LIMIT;
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 8;
        struct tb_delivery_target **v = realloc(d->targets, cap * sizeof(struct tb_delivery_target *));
        if (v == NULL)
            return TB_LIMIT;
        d->targets = v;
        d->cap = cap;
    }
    target->rc = TB_CANCELLED;
    d->targets[d->n++] = target;
    return TB_OK;
}

/* ---- parts: the targets by shard ---- */

static int by_shard(const void *a, const void *b)
{
    const struct tb_delivery_target *x = *(struct tb_delivery_target *const *)a,
                                    *y = *(struct tb_delivery_target *const *)b;
    return x->id.shard < y->id.shard ? -1 : x->id.shard > y->id.shard;
}

static bool parts_make(struct tb_delivery *d)
{
    if (d->parts != NULL)
        return true;
    if (d->n > 1)
        qsort(d->targets, d->n, sizeof(struct tb_delivery_target *), by_shard);
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += i == 0 || d->targets[i]->id.shard != d->targets[i - 1]->id.shard;
    d->parts = calloc(n + 1, sizeof(*d->parts));
    if (d->parts == NULL)
        return false;
    for (size_t i = 0; i < d->n; i++) {
        if (i == 0 || d->targets[i]->id.shard != d->targets[i - 1]->id.shard) {
            struct part *p = &d->parts[d->parts_n++];
            p->d = d;
            p->shard = d->targets[i]->id.shard;
            p->targets = &d->targets[i];
        }
        d->parts[d->parts_n - 1].n++;
    }
    return true;
}

/* parts_call: run on the owners of the first n parts, but for those that failed; at least one has not. */
static void parts_call(struct tb_delivery *d, size_t n, void (*run)(struct tb_call *call, struct tb_worker *owner),
                       void (*done)(struct tb_op *op))
{
    d->waiting = 0;
    for (size_t i = 0; i < n; i++)
        d->waiting += d->parts[i].rc == TB_OK;
    for (size_t i = 0; i < n; i++) {
        struct part *p = &d->parts[i];
        if (p->rc != TB_OK)
            continue;
        p->call.run = run;
        p->call.user = p;
        p->call.op = (struct tb_op){.done = done, .user = p};
        tb_call(d->worker, p->shard, &p->call);
    }
}

/* ---- compressing ---- */

/* squeeze: compress src to the end of comp; what it became is in *piece, its bytes at *at. */
static bool squeeze(struct tb_delivery *d, enum tb_codec_role role, struct tb_slice src, struct tb_disk_piece *piece,
                    size_t *at)
{
    memset(piece, 0, sizeof(*piece));
    *at = d->comp.len;
    if (src.len == 0)
        return true;
    char *dst = tb_buf_reserve(&d->comp, tb_codec_bound(src.len));
    if (dst == NULL)
        return false;
    piece->clen = (uint32_t)tb_codec_compress(d->worker->codec, role, 0, src, dst, &piece->dict);
    piece->raw_len = (uint32_t)src.len;
    piece->crc = tb_crc32c(0, dst, piece->clen);
    d->comp.len += piece->clen;
    return true;
}

/* head_end: bytes of the head piece: to the end of the first empty line, at most TB_HEAD_RAW_MAX. */
static size_t head_end(struct tb_slice raw)
{
    size_t max = raw.len < TB_HEAD_RAW_MAX ? raw.len : TB_HEAD_RAW_MAX;
    const char *p = raw.ptr, *end = raw.ptr + max;
    bool line_start = true;
    while (p < end) {
        if (line_start && *p == '\n')
            return (size_t)(p + 1 - raw.ptr);
        if (line_start && *p == '\r' && p + 1 < end && p[1] == '\n')
            return (size_t)(p + 2 - raw.ptr);
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        if (lf == NULL)
            break;
        p = lf + 1;
        line_start = true;
    }
    return max;
}

/* ---- chunks ---- */

static void chunk_run(struct tb_call *call, struct tb_worker *owner)
{
    struct part *p = call->user;
    struct tb_delivery *d = p->d;
    struct tb_shard *s = tb_shard_of(owner, p->shard);
    size_t len = sizeof(d->chunk_head) + d->chunk.len;
    call->rc = tb_shard_admit(s, len, 1, ADMIT_CALL);
    if (call->rc != TB_OK)
        return;
    uint64_t lsn;
    uint8_t *out = tb_shard_fill(s, TB_REC_CHUNK, 0, 0, len, &lsn);
    memcpy(out, &d->chunk_head, sizeof(d->chunk_head));
    memcpy(out + sizeof(d->chunk_head), d->chunk.ptr, d->chunk.len);
    tb_shard_filled(s);
    p->list[d->chunks] = (struct tb_disk_piece){.lsn = TB_KEEPS(pieces) ? lsn + sizeof(d->chunk_head) : 0,
                                                .clen = d->chunk_head.clen,
                                                .crc = d->chunk_head.crc,
                                                .raw_len = d->chunk_head.raw_len,
                                                .dict = d->chunk_head.dict};
    if (d->chunks > 0)
        return;
    if (tb_pin_chunk_add(&s->pins, p->list[0].lsn)) /* R5: until a BLOB lists them */
        p->pin = p->list[0].lsn;
    else
        call->rc = TB_LIMIT;
}

/* parts_failed: the delivery fails with its last part, or with any if it is all or nothing. */
static void parts_failed(struct tb_delivery *d, bool any)
{
    enum tb_rc worst = TB_OK;
    size_t bad = 0;
    for (size_t i = 0; i < d->parts_n; i++) {
        bad += d->parts[i].rc != TB_OK;
        worst = worst == TB_OK ? d->parts[i].rc : worst;
    }
    if (d->failed == TB_OK && bad > 0 && (any || bad == d->parts_n))
        d->failed = worst;
}

static void commit_send(struct tb_delivery *d);
static bool chunk_start(struct tb_delivery *d);

static void chunk_done(struct tb_op *op)
{
    struct part *p = op->user;
    struct tb_delivery *d = p->d;
    p->rc = p->call.rc;
    if (--d->waiting > 0)
        return;
    if (d->aborted) {
        delivery_end(d);
        return;
    }
    parts_failed(d, d->atomic);
    d->chunks++;
    if (chunk_start(d))
        return;
    if (d->committing) {
        commit_send(d);
        return;
    }
    tb_worker_ready(d->worker, d->op, TB_OK);
    d->op = NULL;
}

static bool lists_grow(struct tb_delivery *d)
{
    if (d->chunks < d->chunks_cap)
        return true;
    uint32_t cap = d->chunks_cap ? d->chunks_cap * 2 : 16;
    for (size_t i = 0; i < d->parts_n; i++) {
        struct tb_disk_piece *v = realloc(d->parts[i].list, cap * sizeof(*v));
        if (v == NULL)
            return false;
        d->parts[i].list = v;
    }
    d->chunks_cap = cap;
    return true;
}

/* chunk_start: store the next whole chunk (when committing: also the last, short one); false: there is none. */
static bool chunk_start(struct tb_delivery *d)
{
    size_t n = d->raw.len < d->chunk_raw ? d->raw.len : d->chunk_raw;
    if (d->failed != TB_OK || n == 0 || (n < d->chunk_raw && !d->committing))
        return false;
    struct tb_disk_piece piece;
    size_t at;
    d->comp.len = d->head.clen; /* the header stays in front */
    if (!lists_grow(d) || !squeeze(d, TB_ROLE_BODY, tb_slice(d->raw.ptr, n), &piece, &at)) {
        d->failed = TB_LIMIT;
        return false;
    }
    d->hash = tb_dedup_hash(d->worker->store, d->hash, tb_slice(d->raw.ptr, n));
    tb_buf_consume(&d->raw, n);
    d->chunk = tb_slice(d->comp.ptr + at, piece.clen);
    d->chunk_head = (struct tb_pay_chunk){
        .clen = piece.clen, .raw_len = piece.raw_len, .crc = piece.crc, .dict = piece.dict};
    parts_call(d, d->parts_n, chunk_run, chunk_done);
    return true;
}

static void chunking_begin(struct tb_delivery *d)
{
    size_t at, head = head_end(tb_buf_all(&d->raw));
    d->chunking = true;
    d->comp.len = 0;
    if (!parts_make(d) || !squeeze(d, TB_ROLE_HEADER, tb_slice(d->raw.ptr, head), &d->head, &at)) {
        d->failed = TB_LIMIT;
        return;
    }
    tb_buf_consume(&d->raw, head);
}

/* ---- writing ---- */

static void take(struct tb_delivery *d, struct tb_slice bytes)
{
    tb_mime_feed(d->mime, bytes);
    tb_sha256_update(&d->sha, bytes.ptr, bytes.len);
    tb_buf_slice(&d->raw, bytes);
    d->size += bytes.len;
}

void tb_delivery_trace(struct tb_delivery *d, struct tb_slice block)
{
    take(d, block);
}

bool tb_delivery_over(const struct tb_delivery *d)
{
    return d->over;
}

bool tb_delivery_write(struct tb_delivery *d, struct tb_slice bytes, struct tb_op *op)
{
    d->written += bytes.len;
    if (d->written > d->size_max)
        d->over = true;
    if (d->over || d->failed != TB_OK)
        return true; /* swallowed: commit tells */
    take(d, bytes);
    if (d->raw.failed) {
        d->failed = TB_LIMIT;
        return true;
    }
    if (!d->chunking && d->raw.len > GATHER_MAX)
        chunking_begin(d);
    if (!d->chunking)
        return true;
    d->op = op;
    if (chunk_start(d))
        return false;
    d->op = NULL;
    return true;
}

/* ---- commit ---- */

static bool put_part(struct tb_buf *b, struct tb_slice s)
{
    char v[10];
    tb_buf_put(b, v, tb_put_varint(v, s.len));
    tb_buf_slice(b, s);
    return !b->failed;
}

bool tb_cache_write(const struct tb_mime_result *r, struct tb_buf *out)
{
    const struct tb_slice part[] = {r->envelope,     r->bodystructure, r->parts,
                                    r->subject_base, r->references,    r->message_id};
    bool good = true;
    for (size_t i = 0; good && i < TB_ARRAY_LEN(part); i++)
        good = put_part(out, part[i]);
    return good;
}

/* squeeze_cache: the entry FETCH is answered from; clen 0 if it is too long to keep. */
static bool squeeze_cache(struct tb_delivery *d, struct tb_disk_piece *cache)
{
    struct tb_buf raw;
    size_t at;
    tb_buf_init(&raw, TB_CACHE_RAW_MAX);
    bool good = tb_cache_write(&d->info, &raw);
    memset(cache, 0, sizeof(*cache));
    bool stored = !good || squeeze(d, TB_ROLE_CACHE, tb_buf_all(&raw), cache, &at);
    if (stored && cache->clen > TB_CACHE_CLEN_MAX) {
        d->comp.len = at;
        memset(cache, 0, sizeof(*cache));
    }
    tb_buf_free(&raw);
    return stored;
}

/* image_make: what every part shares; the chunk lists are the parts' own. */
static bool image_make(struct tb_delivery *d, struct tb_image *img)
{
    struct tb_disk_piece cache, only = {0};
    size_t at, body_at;
    memset(img, 0, sizeof(*img));
    if (d->chunking) {
        d->comp.len = d->head.clen;
        body_at = d->comp.len;
    } else {
        d->comp.len = 0;
        size_t head = head_end(tb_buf_all(&d->raw));
        struct tb_slice body = tb_slice(d->raw.ptr + head, d->raw.len - head);
        if (!squeeze(d, TB_ROLE_HEADER, tb_slice(d->raw.ptr, head), &d->head, &at) ||
            !squeeze(d, TB_ROLE_BODY, body, &only, &body_at))
            return false;
        if (body.len >= TB_DEDUP_RAW_MIN)
            d->hash = tb_dedup_hash(d->worker->store, 0, body);
    }
    if (!squeeze_cache(d, &cache))
        return false;
    struct tb_pay_blob *h = &img->head;
    h->size = d->size;
    h->head = d->head;
    h->header_size = d->info.header_size < UINT32_MAX ? (uint32_t)d->info.header_size : UINT32_MAX;
    h->cache_clen = cache.clen;
    h->cache_raw = cache.raw_len;
    h->cache_dict = cache.dict;
    h->pieces = d->chunking ? d->chunks : only.raw_len > 0;
    h->only = only;
    tb_sha256_final(&d->sha, h->sha256);
    tb_dedup_mark(h, d->hash);
    img->header = tb_slice(d->comp.ptr, d->head.clen);
    img->rest = tb_slice(d->comp.ptr + body_at, d->comp.len - body_at);
    return true;
}

static void commit_end(struct tb_delivery *d)
{
    enum tb_rc rc = d->failed;
    for (size_t i = 0; i < d->n; i++) {
        struct tb_delivery_target *t = d->targets[i];
        if (d->failed != TB_OK)
            t->rc = d->failed;
        if (rc == TB_OK)
            rc = t->rc;
    }
    struct tb_op *op = d->op;
    struct tb_worker *w = d->worker;
    delivery_end(d);
    if (op != NULL)
        tb_worker_ready(w, op, rc);
}

static void store_run(struct tb_call *call, struct tb_worker *owner)
{
    struct part *p = call->user;
    struct tb_shard *s = tb_shard_of(owner, p->shard);
    if (!p->looked) {
        p->looked = true;
        p->dedup.body = tb_dedup_find(s, &p->image, p->targets, p->n);
        if (p->dedup.body != 0)
            return; /* store_done compares first */
    }
    owner->self = p->d->self;
    call->rc = tb_image_deliver(s, &p->image, p->targets, p->n, p->d->atomic, NULL, p->queue, &p->queue_id);
    owner->self = 0;
    if (call->rc == TB_OK && p->queue.len > 0) {
        /* once durable, the owner fans out what the queue holds; this delivery's part of the story ends there */
        tb_queue_start(s, p->queue_id, (uint32_t)p->queue.len);
        for (size_t i = 1; i < p->d->parts_n; i++)
            p->d->parts[i].pin = 0; /* the fan-out's from now on */
    }
    if (call->rc != TB_BUSY && p->pin != 0) {
        tb_pin_chunk_remove(&s->pins, p->pin);
        p->pin = 0;
    }
}

static void store_done(struct tb_op *op);

static void compared(struct tb_op *op)
{
    struct part *p = op->user;
    if (op->rc == TB_OK)
        p->image.share = p->dedup.body;
    p->dedup.body = 0;
    p->call.op = (struct tb_op){.done = store_done, .user = p};
    tb_call(p->d->worker, p->shard, &p->call);
}

static void store_done(struct tb_op *op)
{
    struct part *p = op->user;
    struct tb_delivery *d = p->d;
    if (p->dedup.body != 0 && p->call.rc == TB_OK) {
        p->dedup.img = &p->image;
        p->dedup.op = (struct tb_op){.done = compared, .user = p};
        tb_dedup_compare(d->worker, p->shard, &p->dedup);
        return;
    }
    bool failed = p->call.rc == TB_IO;
    for (size_t i = 0; failed && i < p->n; i++)
        p->targets[i]->rc = TB_IO; /* the log write failed after they were added */
    if (--d->waiting > 0)
        return;
    if (d->atomic && d->parts_n > 1)
        for (size_t i = p->n; i < d->n; i++)
            d->targets[i]->rc = p->targets[0]->rc; /* one queue: all or none (R17) */
    commit_end(d);
}

static void queue_target(struct tb_buf *b, const struct tb_delivery_target *t)
{
    struct tb_pay_queue_target q = {.acct = t->id.acct,
                                    .mbox = t->mbox,
                                    .internaldate = t->internaldate,
                                    .flags = t->flags,
                                    .mailbox_len = (uint16_t)t->mailbox.len};
    tb_buf_put(b, &q, sizeof(q));
    tb_buf_slice(b, t->mailbox);
}

/* queue_make: the QUEUE payload for every part but the first. */
static bool queue_make(struct tb_delivery *d)
{
    struct tb_pay_queue head = {.parts = (uint32_t)d->parts_n - 1};
    tb_buf_init(&d->queue, (size_t)64 << 20);
    tb_io_random(d->worker->io, head.delivery, sizeof(head.delivery));
    tb_buf_put(&d->queue, &head, sizeof(head));
    for (size_t i = 1; i < d->parts_n; i++) {
        struct part *p = &d->parts[i];
        struct tb_pay_queue_part q = {
            .shard = p->shard, .targets = (uint32_t)p->n, .image_len = (uint32_t)tb_image_bytes(&p->image)};
        tb_buf_put(&d->queue, &q, sizeof(q));
        for (size_t k = 0; k < p->n; k++)
            queue_target(&d->queue, p->targets[k]);
        char *out = tb_buf_reserve(&d->queue, q.image_len);
        if (out == NULL)
            return false;
        tb_image_write(&p->image, (uint8_t *)out);
        d->queue.len += q.image_len;
    }
    d->parts[0].queue = tb_buf_all(&d->queue);
    return !d->queue.failed;
}

/* batch_send: the message is not stored yet, but kept for a batch. */
static void batch_send(struct tb_delivery *d)
{
    struct tb_image img;
    struct tb_worker *w = d->worker;
    struct tb_op *op = d->op;
    if (d->failed == TB_OK && !image_make(d, &img))
        d->failed = TB_LIMIT;
    if (d->failed == TB_OK) {
        struct part *p = d->parts;
        img.list = tb_slice(p->list, d->chunking ? d->chunks * sizeof(*p->list) : 0);
        d->failed = tb_batch_take(d->batch, &img, d->targets[0], p->pin);
        p->pin = d->failed == TB_OK ? 0 : p->pin;
    }
    enum tb_rc rc = d->failed;
    delivery_end(d);
    if (op != NULL)
        tb_worker_ready(w, op, rc);
}

static void commit_send(struct tb_delivery *d)
{
    struct tb_image img;
    if (d->batch != NULL) {
        batch_send(d);
        return;
    }
    if (d->failed == TB_OK && !image_make(d, &img))
        d->failed = TB_LIMIT;
    if (d->failed != TB_OK) {
        commit_end(d);
        return;
    }
    for (size_t i = 0; i < d->parts_n; i++) {
        struct part *p = &d->parts[i];
        for (size_t k = 0; p->rc != TB_OK && k < p->n; k++)
            p->targets[k]->rc = p->rc;
        p->image = img;
        p->image.list = tb_slice(p->list, d->chunking && d->chunks > 1 ? d->chunks * sizeof(*p->list) : 0);
    }
    if (d->atomic && d->parts_n > 1) {
        if (!queue_make(d)) {
            d->failed = TB_LIMIT;
            commit_end(d);
            return;
        }
        parts_call(d, 1, store_run, store_done);
        return;
    }
    parts_call(d, d->parts_n, store_run, store_done);
}

/* body_chunks: does the body go to the log before the BLOB? Of a batch, what its one frame has no room for does; in two
 * chunks at least: a body of one piece is the BLOB's own. */
static bool body_chunks(struct tb_delivery *d)
{
    uint64_t body = d->raw.len - head_end(tb_buf_all(&d->raw));
    if (d->batch == NULL || body > TB_BODY_ONE_MAX)
        return body > TB_BODY_ONE_MAX;
    if (tb_batch_inline(d->batch, body))
        return false;
    d->chunk_raw = body > TB_CHUNK_RAW ? TB_CHUNK_RAW : (size_t)(body + 1) / 2;
    return true;
}

static void finish(struct tb_delivery *d, bool atomic, struct tb_op *op)
{
    d->op = op;
    d->atomic = atomic;
    d->committing = true;
    if (d->over || d->n == 0)
        d->failed = TB_LIMIT;
    if (d->failed == TB_OK && (!parts_make(d) || tb_mime_finish(d->mime, &d->info) != TB_OK))
        d->failed = TB_LIMIT;
    if (d->failed == TB_OK && !d->chunking && (d->batch != NULL || d->raw.len > TB_BODY_ONE_MAX) && body_chunks(d))
        chunking_begin(d);
    parts_failed(d, atomic);
    if (d->chunking && chunk_start(d))
        return; /* chunk_done goes on */
    commit_send(d);
}

void tb_delivery_commit(struct tb_delivery *d, bool atomic, struct tb_op *op)
{
    finish(d, atomic, op);
}

void tb_batch_add(struct tb_batch *b, struct tb_delivery *d, struct tb_op *op)
{
    TB_ASSERT(d->n == 1);
    d->batch = b;
    finish(d, true, op);
}

void tb_delivery_abort(struct tb_delivery *d)
{
    if (d == NULL)
        return;
    d->op = NULL;
    if (d->waiting > 0)
        d->aborted = true; /* chunk_done ends it */
    else
        delivery_end(d);
}
