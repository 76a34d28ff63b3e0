/*
 * fetch.c: reading what is stored: cached envelopes from the index, bodies from the log.
 *
 * A body's pieces are copied out of the index when it is opened, so it can be read to its end whatever happens to the
 * message meanwhile. Every piece is checked against its CRC32C before it is inflated, and read once more past the page
 * cache before a mismatch is believed (R19). Memory: one compressed and one inflated piece. Thread: the shard's owner.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/crypto/crypto.h"
#include "engine/store/delivery_format.h"

/* ---- cached envelopes ---- */

static bool part_of(struct tb_slice *rest, struct tb_slice *out)
{
    uint64_t len;
    if (!tb_get_varint(rest, &len) || len > rest->len)
        return false;
    *out = tb_slice(rest->ptr, (size_t)len);
    rest->ptr += len;
    rest->len -= (size_t)len;
    return true;
}

enum tb_rc tb_cached_get(struct tb_view *v, uint32_t uid, struct tb_cached *out)
{
    struct tb_account *a = tb_view_account(v);
    struct tb_worker *w = a->shard->worker;
    struct tb_disk_cache head;
    struct tb_slice data;
    struct tb_row row;
    if (!tb_cache_get(a->shard->ix, a->acct, tb_view_mbox(v), uid, &head, &data))
        return tb_view_row(v, uid, &row) == TB_OK ? TB_BUSY : TB_NOTFOUND;
    if (head.raw_len > w->scratch_cap) {
        if (head.raw_len > TB_CACHE_RAW_MAX)
            return TB_CORRUPT;
        char *grown = realloc(w->scratch, head.raw_len);
        if (grown == NULL)
            return TB_BUSY;
        w->scratch = grown;
        w->scratch_cap = head.raw_len;
    }
    if (tb_codec_decompress(w->codec, head.dict, data, w->scratch, head.raw_len) != TB_OK)
        return TB_CORRUPT;
    struct tb_slice rest = tb_slice(w->scratch, head.raw_len);
    if (!part_of(&rest, &out->envelope) || !part_of(&rest, &out->bodystructure) || !part_of(&rest, &out->parts))
        return TB_CORRUPT;
    return TB_OK;
}

/* ---- bodies ---- */

struct tb_body {
    struct tb_shard *shard;
    uint64_t size, header_size;
    uint32_t acct, mbox, uid;
    struct tb_disk_piece *piece; /* owned: head, then the body's pieces in order */
    uint32_t pieces;
    uint32_t at;        /* the piece in `raw`; UINT32_MAX none */
    uint64_t at_offset; /* of its first byte in the message */
    char *comp, *raw;   /* owned */
    size_t comp_cap, raw_cap;
    uint64_t want;
    uint32_t loading;
    uint64_t loading_offset;
    struct tb_op io, ready;
    enum tb_rc rc;
    struct tb_op *op; /* the reader's, while a read is under way */
    bool in_flight, closed;
};

static void body_free(struct tb_body *b)
{
    free(b->piece);
    free(b->comp);
    free(b->raw);
    free(b);
}

/* pieces_of: where a stored message lies: its head piece and its body's, in a new array. */
static enum tb_rc pieces_of(struct tb_index *ix, uint64_t id, struct tb_disk_piece **out, uint32_t *n)
{
    struct tb_key k;
    struct tb_slice v;
    struct tb_blob_row row = {0};
    struct tb_disk_body body = {.pieces = 1};
    tb_key_begin(&k);
    tb_key_u64(&k, id);
    if (!tb_index_get(ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len < sizeof(row.blob) || v.len > sizeof(row))
        return TB_CORRUPT;
    memcpy(&row, v.ptr, v.len);
    bool own = row.blob.flags & TB_BLOB_OWN_BODY;
    if (!own) {
        tb_key_begin(&k);
        tb_key_u64(&k, row.blob.body);
        if (!tb_index_get(ix, TB_DB_BODY, tb_key_slice(&k), &v) || v.len < sizeof(body))
            return TB_CORRUPT;
        memcpy(&body, v.ptr, sizeof(body));
    }
    struct tb_disk_piece *p = malloc((body.pieces + (size_t)1) * sizeof(*p));
    if (p == NULL)
        return TB_LIMIT;
    p[0] = row.blob.head;
    p[1] = row.own;
    for (uint32_t i = 0; !own && i < body.pieces; i++)
        if (!tb_body_piece(ix, row.blob.body, &body, i, &p[i + 1])) {
            free(p);
            return TB_CORRUPT;
        }
    *out = p;
    *n = body.pieces + 1;
    return TB_OK;
}

enum tb_rc tb_body_open(struct tb_view *v, uint32_t uid, struct tb_body **out)
{
    struct tb_shard *s = tb_view_account(v)->shard;
    struct tb_row row;
    enum tb_rc rc = tb_view_row(v, uid, &row);
    if (rc != TB_OK)
        return rc;
    struct tb_body *b = calloc(1, sizeof(*b));
    if (b == NULL)
        return TB_LIMIT;
    rc = pieces_of(s->ix, row.blob, &b->piece, &b->pieces);
    if (rc != TB_OK) {
        free(b);
        return rc;
    }
    b->shard = s;
    b->size = row.size;
    b->header_size = row.header_size;
    b->acct = tb_view_account(v)->acct;
    b->mbox = tb_view_mbox(v);
    b->uid = uid;
    b->at = UINT32_MAX;
    *out = b;
    return TB_OK;
}

uint64_t tb_body_size(const struct tb_body *b)
{
    return b->size;
}

uint64_t tb_body_header_size(const struct tb_body *b)
{
    return b->header_size;
}

/* locate: the piece that holds an offset, and where it begins; false past the end. */
static bool locate(const struct tb_body *b, uint64_t offset, uint32_t *piece, uint64_t *begin)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < b->pieces; i++) {
        if (offset < at + b->piece[i].raw_len) {
            *piece = i;
            *begin = at;
            return true;
        }
        at += b->piece[i].raw_len;
    }
    return false;
}

static void answered(struct tb_op *ready)
{
    struct tb_body *b = ready->user;
    struct tb_op *op = b->op;
    b->op = NULL;
    op->rc = b->rc;
    op->result = 0;
    op->data = tb_slice(NULL, 0);
    if (b->rc == TB_OK && b->at != UINT32_MAX) {
        size_t skip = (size_t)(b->want - b->at_offset);
        op->data = tb_slice(b->raw + skip, b->piece[b->at].raw_len - skip);
        op->result = (int64_t)op->data.len;
    }
    op->done(op);
}

static void answer(struct tb_body *b, enum tb_rc rc)
{
    b->rc = rc;
    b->ready = (struct tb_op){.done = answered, .user = b};
    tb_worker_ready(b->shard->worker, &b->ready, rc);
}

static void complain(const struct tb_body *b, const struct tb_disk_piece *p, const char *what)
{
    tb_log(TB_LOG_ERROR, "shard=%u acct=%u mbox=%u uid=%u a stored message is damaged: %s at log position %llu",
           b->shard->number, b->acct, b->mbox, b->uid, what, (unsigned long long)p->lsn);
}

/* inflate: from checked compressed bytes into raw. */
static enum tb_rc inflate(struct tb_body *b, const struct tb_disk_piece *p, struct tb_slice comp)
{
    enum tb_rc rc = tb_codec_decompress(b->shard->worker->codec, p->dict, comp, b->raw, p->raw_len);
    if (rc != TB_OK) {
        complain(b, p, "it does not inflate");
        return rc;
    }
    b->at = b->loading;
    b->at_offset = b->loading_offset;
    return TB_OK;
}

static void read_done(struct tb_op *op)
{
    struct tb_body *b = op->user;
    b->in_flight = false;
    if (b->closed) {
        body_free(b);
        return;
    }
    const struct tb_disk_piece *p = &b->piece[b->loading];
    if (op->result != p->clen || tb_crc32c(0, b->comp, p->clen) != p->crc) {
        int64_t n = tb_log_read_now(b->shard->log, b->comp, p->clen, p->lsn, true);
        if (n != p->clen) {
            complain(b, p, n < 0 ? "it cannot be read" : "it is cut");
            answer(b, TB_IO);
            return;
        }
        if (tb_crc32c(0, b->comp, p->clen) != p->crc) {
            complain(b, p, "its checksum is wrong");
            answer(b, TB_CORRUPT);
            return;
        }
    }
    answer(b, inflate(b, p, tb_slice(b->comp, p->clen)));
}

static bool room(char **buf, size_t *cap, size_t need)
{
    if (need <= *cap)
        return true;
    free(*buf);
    *buf = malloc(need);
    *cap = *buf != NULL ? need : 0;
    return *buf != NULL;
}

void tb_body_read(struct tb_body *b, uint64_t offset, struct tb_op *op)
{
    struct tb_slice mem;
    TB_ASSERT(b->op == NULL);
    b->op = op;
    b->want = offset;
    if (!locate(b, offset, &b->loading, &b->loading_offset)) {
        b->at = UINT32_MAX;
        answer(b, TB_OK); /* at or past the end: nothing */
        return;
    }
    if (b->loading == b->at) {
        answer(b, TB_OK);
        return;
    }
    const struct tb_disk_piece *p = &b->piece[b->loading];
    b->at = UINT32_MAX;
    if (p->raw_len > TB_PIECE_RAW_MAX || p->clen > TB_PIECE_CLEN_MAX || !room(&b->raw, &b->raw_cap, p->raw_len)) {
        complain(b, p, "its row has an impossible size");
        answer(b, TB_CORRUPT);
        return;
    }
    if (p->lsn + p->clen > tb_log_durable(b->shard->log)) {
        /* on its way to the disk: still in memory, or written in the meantime */
        if (tb_log_peek(b->shard->log, p->lsn, p->clen, &mem)) {
            answer(b, tb_crc32c(0, mem.ptr, mem.len) == p->crc ? inflate(b, p, mem) : TB_CORRUPT);
            return;
        }
    }
    if (!room(&b->comp, &b->comp_cap, p->clen)) {
        answer(b, TB_LIMIT);
        return;
    }
    b->in_flight = true;
    b->io = (struct tb_op){.done = read_done, .user = b};
    tb_log_read(b->shard->log, &b->io, b->comp, p->clen, p->lsn);
}

void tb_body_close(struct tb_body *b)
{
    if (b == NULL)
        return;
    if (b->op != NULL && !b->in_flight)
        (void)tb_worker_forget(b->shard->worker, &b->ready);
    if (b->in_flight)
        b->closed = true; /* read_done frees it */
    else
        body_free(b);
}

void tb_email_id(struct tb_account *a, uint64_t blob, char out[32])
{
    static const char alphabet[] = "0123456789abcdefghijklmnopqrstuv";
    uint8_t key[32], in[16] = {0}, id[16];
    tb_store_secret(a->shard->store, "emailid", key);
    tb_put_le64(in, blob);
    tb_put_le32(in + 8, a->acct);
    tb_aes128_block(key, in, id);
    out[0] = 'M';
    for (unsigned i = 0; i < 26; i++) {
        unsigned bit = i * 5, byte = bit / 8, shift = bit % 8;
        unsigned v = (unsigned)id[byte] >> shift | (byte + 1 < 16 ? (unsigned)id[byte + 1] << (8 - shift) : 0);
        out[1 + i] = alphabet[v & 31];
    }
    out[27] = '\0';
}
