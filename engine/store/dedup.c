/*
 * dedup.c: a body that an account has already is not stored again (R11).
 *
 *   image made: a hash of the body, keyed by the store (bodies under TB_DEDUP_RAW_MIN have none)
 *   owner:  key = HMAC(secret, account, length, hash) -> is there a body with that key, of that length? No: stored.
 *   owner:  both bodies read and inflated piece by piece, compared -> equal: the BLOB refers to the body that is there
 *
 * A hash that matches proves nothing, the bytes do. The key holds the account, so nobody can learn what others have;
 * accounts share a body only when it came with one delivery. Between the comparison and the record the body may have
 * gone: that is looked up again, by its id, which is never given twice. Whatever goes wrong here only means that the
 * body is stored once more.
 *
 * Memory: four pieces for each of at most COMPARES_MAX comparisons a shard. Thread: the shard's owner; the asker's
 * thread where said. At most one piece of each (1 MiB) is inflated in a turn: 2 ms.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/crypto/crypto.h"
#include "engine/store/delivery_format.h"

enum { COMPARES_MAX = 16, MAC_BYTES = 12 };

/* ---- hash and key ---- */

void tb_dedup_keys(struct tb_store *st)
{
    uint8_t mix[32];
    tb_store_secret(st, "dedup", st->dedup_secret);
    tb_store_secret(st, "mixhash", mix);
    memcpy(st->mix_key, mix, sizeof(st->mix_key));
}

uint64_t tb_dedup_hash(const struct tb_store *st, uint64_t before, struct tb_slice raw)
{
    return tb_mixhash(st->mix_key, before, raw.ptr, raw.len);
}

void tb_dedup_mark(struct tb_pay_blob *head, uint64_t hash)
{
    uint64_t raw_len = head->size - head->head.raw_len;
    head->hashed = raw_len >= TB_DEDUP_RAW_MIN;
    tb_put_le64(head->hash, raw_len);
    tb_put_le64(head->hash + 8, hash);
}

void tb_dedup_key(const struct tb_store *st, uint32_t acct, const struct tb_pay_blob *head,
                  uint8_t key[TB_HASH_KEY_MAX])
{
    uint8_t in[4 + TB_HASH_KEY_MAX], mac[32];
    tb_put_be32(in, acct);
    memcpy(in + 4, head->hash, TB_HASH_KEY_MAX);
    tb_hmac_sha256(st->dedup_secret, sizeof(st->dedup_secret), in, sizeof(in), mac);
    memcpy(key, in, 4);
    memcpy(key + 4, mac, MAC_BYTES);
}

/* ---- looking ---- */

struct list {                    /* the pieces of a stored body */
    struct tb_disk_piece *piece; /* owned */
    uint32_t n;
    uint64_t raw_bytes;
};

/* body_head: length and number of pieces of a stored body; own: its piece if it has no row. */
static bool body_head(struct tb_index *ix, uint64_t id, struct tb_disk_body *body, struct tb_blob_row *own)
{
    struct tb_key k;
    struct tb_slice v;
    tb_key_begin(&k);
    tb_key_u64(&k, id);
    memset(own, 0, sizeof(*own));
    if (tb_index_get(ix, TB_DB_BODY, tb_key_slice(&k), &v) && v.len >= sizeof(*body)) {
        memcpy(body, v.ptr, sizeof(*body));
        return true;
    }
    if (!tb_index_get(ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len != sizeof(*own))
        return false;
    memcpy(own, v.ptr, sizeof(*own));
    *body = (struct tb_disk_body){.raw_bytes = own->own.raw_len, .refs = 1, .pieces = 1};
    return own->blob.flags & TB_BLOB_OWN_BODY && own->own.lsn != 0;
}

static bool list_get(struct tb_index *ix, uint64_t id, struct list *out)
{
    struct tb_disk_body body;
    struct tb_blob_row own;
    if (!body_head(ix, id, &body, &own) || body.pieces == 0)
        return false;
    out->n = body.pieces;
    out->raw_bytes = body.raw_bytes;
    out->piece = malloc(body.pieces * sizeof(*out->piece));
    if (out->piece == NULL)
        return false;
    out->piece[0] = own.own;
    for (uint32_t i = 0; own.own.lsn == 0 && i < out->n; i++)
        if (!tb_body_piece(ix, id, &body, i, &out->piece[i])) {
            free(out->piece);
            out->piece = NULL;
            return false;
        }
    return true;
}

static uint64_t raw_bytes_of(const struct tb_image *img)
{
    return img->head.size - img->head.head.raw_len;
}

uint64_t tb_dedup_find(struct tb_shard *s, const struct tb_image *img, struct tb_delivery_target *const *targets,
                       size_t n)
{
    uint8_t key[TB_HASH_KEY_MAX];
    uint64_t id;
    struct tb_disk_body body;
    struct tb_blob_row own;
    if (!img->head.hashed || s->store->cfg.no_dedup || s->compares >= COMPARES_MAX)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (targets[i]->id.acct != targets[0]->id.acct)
            return 0;
    tb_dedup_key(s->store, targets[0]->id.acct, &img->head, key);
    if (!tb_hash_get(s->ix, key, &id) || !body_head(s->ix, id, &body, &own))
        return 0;
    return body.raw_bytes == raw_bytes_of(img) ? id : 0;
}

bool tb_dedup_holds(struct tb_shard *s, const uint8_t key[TB_HASH_KEY_MAX], uint64_t id, uint64_t raw_bytes)
{
    uint64_t now;
    struct tb_disk_body body;
    struct tb_blob_row own;
    return tb_hash_get(s->ix, key, &now) && now == id && body_head(s->ix, id, &body, &own) &&
           body.raw_bytes == raw_bytes && body.refs < UINT32_MAX;
}

/* ---- comparing ---- */

struct side { /* one of the two bodies: its piece at hand */
    struct tb_disk_piece piece;
    char *comp, *raw; /* owned */
    const char *at;   /* the compressed bytes: comp, or borrowed from the image */
};

struct compare {
    struct tb_dedup *asked;
    struct tb_shard *s;
    struct list old;
    uint32_t i;      /* the piece being compared */
    uint32_t pinned; /* pieces of old, in the log */
    struct side side[2];
    unsigned reading;
    struct tb_op read[2];
};

static void answer(struct tb_shard *s, struct tb_dedup *x, enum tb_rc rc)
{
    x->op.rc = rc;
    if (x->from == s->worker)
        tb_worker_ready(x->from, &x->op, rc);
    else
        tb_io_post(s->worker->io, x->from->io, &x->op);
}

static void compare_end(struct compare *c, enum tb_rc rc)
{
    struct tb_dedup *x = c->asked;
    struct tb_shard *s = c->s;
    while (c->pinned > 0)
        tb_pin_segment_remove(&s->pins, c->old.piece[--c->pinned].lsn);
    for (unsigned i = 0; i < 2; i++) {
        free(c->side[i].comp);
        free(c->side[i].raw);
    }
    free(c->old.piece);
    free(c);
    s->compares--;
    answer(s, x, rc);
}

/* inflate: the piece at hand; its compressed bytes are checked first. */
static bool inflate(struct compare *c, struct side *d)
{
    const struct tb_disk_piece *p = &d->piece;
    free(d->raw);
    d->raw = malloc(p->raw_len);
    return d->raw != NULL && tb_crc32c(0, d->at, p->clen) == p->crc &&
           tb_codec_decompress(c->s->worker->codec, p->dict, tb_slice(d->at, p->clen), d->raw, p->raw_len) == TB_OK;
}

static bool same_piece(struct compare *c)
{
    struct side *a = &c->side[0], *b = &c->side[1];
    if (!inflate(c, a) || !inflate(c, b))
        return false;
    return memcmp(a->raw, b->raw, a->piece.raw_len) == 0 || !TB_KEEPS(dedupcompare);
}

static void piece_start(struct compare *c);

static void piece_read(struct tb_op *op)
{
    struct compare *c = op->user;
    struct side *d = &c->side[op - c->read];
    if (op->result != d->piece.clen)
        d->piece.raw_len = 0; /* it cannot be told */
    if (--c->reading > 0)
        return;
    if (c->s->failed || c->side[0].piece.raw_len != c->side[1].piece.raw_len || c->side[0].piece.raw_len == 0 ||
        !same_piece(c))
        compare_end(c, TB_NOTFOUND);
    else if (++c->i == c->old.n)
        compare_end(c, TB_OK);
    else
        piece_start(c);
}

/* side_load: get the compressed bytes of a piece: from the image, from memory, or from the log. False: impossible. */
static bool side_load(struct compare *c, unsigned i, const struct tb_disk_piece *p, const char *have)
{
    struct side *d = &c->side[i];
    d->piece = *p;
    d->at = have;
    if (p->raw_len == 0 || p->raw_len > TB_PIECE_RAW_MAX || p->clen > TB_PIECE_CLEN_MAX)
        return false;
    if (have != NULL)
        return true;
    free(d->comp);
    d->at = d->comp = malloc(p->clen);
    return d->comp != NULL;
}

static void piece_start(struct compare *c)
{
    const struct tb_image *img = c->asked->img;
    struct tb_disk_piece fresh = img->head.only;
    const char *have = img->rest.ptr;
    if (img->head.pieces > 1) {
        memcpy(&fresh, img->list.ptr + c->i * sizeof(fresh), sizeof(fresh));
        have = NULL;
    }
    if (!side_load(c, 0, &c->old.piece[c->i], NULL) || !side_load(c, 1, &fresh, have) ||
        c->side[0].piece.raw_len != c->side[1].piece.raw_len) {
        compare_end(c, TB_NOTFOUND);
        return;
    }
    c->reading = have == NULL ? 2 : 1;
    for (unsigned i = 0; i < 2; i++) {
        struct side *d = &c->side[i];
        if (d->at != d->comp)
            continue;
        c->read[i] = (struct tb_op){.done = piece_read, .user = c};
        tb_log_read(c->s->log, &c->read[i], d->comp, d->piece.clen, d->piece.lsn);
    }
}

/* old_get: the stored body's pieces, and their segments kept until the end, wherever GC moves the body. */
static bool old_get(struct compare *c)
{
    if (!list_get(c->s->ix, c->asked->body, &c->old) || c->old.raw_bytes != raw_bytes_of(c->asked->img) ||
        c->old.n != c->asked->img->head.pieces)
        return false;
    while (c->pinned < c->old.n && tb_pin_segment_add(&c->s->pins, c->old.piece[c->pinned].lsn))
        c->pinned++;
    return c->pinned == c->old.n;
}

static void compare_arrived(struct tb_op *hop)
{
    struct tb_dedup *x = TB_CONTAINER(hop, struct tb_dedup, hop);
    struct tb_shard *s = hop->user;
    bool busy = s->failed || s->stopping || s->compares >= COMPARES_MAX;
    struct compare *c = busy ? NULL : calloc(1, sizeof(*c));
    if (c == NULL) {
        answer(s, x, TB_NOTFOUND);
        return;
    }
    s->compares++;
    c->asked = x;
    c->s = s;
    if (old_get(c))
        piece_start(c);
    else
        compare_end(c, TB_NOTFOUND);
}

void tb_dedup_compare(struct tb_worker *from, uint32_t shard, struct tb_dedup *x)
{
    struct tb_shard *s = from->store->shard[shard];
    x->from = from;
    x->hop = (struct tb_op){.done = compare_arrived, .user = s};
    if (s->worker == from)
        tb_worker_ready(from, &x->hop, TB_OK);
    else
        tb_io_post(from->io, s->worker->io, &x->hop);
}
