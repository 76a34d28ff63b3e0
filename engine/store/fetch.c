/*
 * fetch.c: reading what is stored: cached envelopes from the index, bodies from the log.
 *
 * A body's pieces are copied out of the index when it is opened, so it can be read to its end whatever happens to the
 * message meanwhile. Every piece is checked against its CRC32C before it is inflated, and read once more past the page
 * cache before a mismatch is believed (R19). Memory: one compressed and one inflated span. Thread: the shard's owner.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/base/rules.h"
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
    if (!part_of(&rest, &out->envelope) || !part_of(&rest, &out->bodystructure) || !part_of(&rest, &out->parts) ||
        !part_of(&rest, &out->subject_base) || !part_of(&rest, &out->references) || !part_of(&rest, &out->message_id))
        return TB_CORRUPT;
    return TB_OK;
}

/* ---- bodies ---- */

enum { TB_WHOLE_MAX = 256 << 10 }; /* header and body are read together if neither is larger */

struct span {          /* a run of pieces, read in one go */
    uint32_t first, n; /* n 0: none */
    uint64_t offset;   /* of its first byte in the message */
    uint32_t clen, raw_len;
};

struct tb_body {
    struct tb_shard *shard;
    uint64_t size, header_size;
    uint32_t acct, mbox, uid;
    uint64_t blob;
    bool suspect;                /* it is in quarantine: the bad piece must read well before anything is told */
    uint32_t bad_piece;          /* suspect */
    struct tb_disk_piece *piece; /* owned: head, then the body's pieces in order */
    uint32_t pieces;
    struct span have, load; /* in raw; on its way there */
    char *comp, *raw;       /* owned */
    size_t comp_cap, raw_cap;
    uint64_t want;
    struct tb_op io, ready, hop; /* hop: its release */
    enum tb_rc rc;
    struct tb_op *op; /* the reader's, while a read is under way */
    bool whole, in_flight, closed;
};

/* pieces_pin: their segments stay until the body is closed, wherever GC moves the message meanwhile. */
static bool pieces_pin(struct tb_body *b)
{
    for (uint32_t i = 0; i < b->pieces; i++)
        if (!tb_pin_segment_add(&b->shard->pins, b->piece[i].lsn)) {
            while (i-- > 0)
                tb_pin_segment_remove(&b->shard->pins, b->piece[i].lsn);
            return false;
        }
    return true;
}

static void body_free(struct tb_body *b)
{
    for (uint32_t i = 0; i < b->pieces; i++)
        tb_pin_segment_remove(&b->shard->pins, b->piece[i].lsn);
    b->shard->bodies_open--;
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

uint32_t tb_piece_number(struct tb_index *ix, uint64_t blob, uint64_t lsn)
{
    struct tb_disk_piece *v;
    uint32_t n, found = 0;
    if (pieces_of(ix, blob, &v, &n) != TB_OK)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        if (v[i].lsn == lsn && v[i].clen > 0)
            found = i;
    free(v);
    return found;
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
    if (rc == TB_CORRUPT && tb_index_rc(s->ix) == TB_OK)
        tb_shard_doubt(s, "a message's row names a stored message that is not there");
    if (rc != TB_OK) {
        free(b);
        return rc;
    }
    b->shard = s;
    if (!pieces_pin(b)) {
        free(b->piece);
        free(b);
        return TB_LIMIT;
    }
    s->bodies_open++;
    b->size = row.size;
    b->header_size = row.header_size;
    b->acct = tb_view_account(v)->acct;
    b->mbox = tb_view_mbox(v);
    b->uid = uid;
    b->blob = row.blob;
    struct tb_disk_bad bad;
    b->suspect = tb_quarantined(s, row.blob, &bad);
    b->bad_piece = b->suspect && bad.piece < b->pieces ? bad.piece : 0;
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

/* locate: the span to load for an offset; false past the end. */
static bool locate(const struct tb_body *b, uint64_t offset, struct span *out)
{
    uint64_t at = 0;
    uint32_t i = 0;
    while (i < b->pieces && offset >= at + b->piece[i].raw_len)
        at += b->piece[i++].raw_len;
    if (i == b->pieces)
        return false;
    const struct tb_disk_piece *p = &b->piece[i];
    *out = (struct span){.first = i, .n = 1, .offset = at, .clen = p->clen, .raw_len = p->raw_len};
    /* a small message's body lies right behind its header: who wants it all gets it in one read */
    if (b->whole && i == 0 && b->pieces == 2 && p[1].raw_len > 0 && p[1].lsn == p->lsn + p->clen &&
        p->raw_len < TB_WHOLE_MAX && p[1].raw_len < TB_WHOLE_MAX && p[1].clen < TB_WHOLE_MAX) {
        out->n = 2;
        out->clen += p[1].clen;
        out->raw_len += p[1].raw_len;
    }
    return true;
}

static void answered(struct tb_op *ready)
{
    struct tb_body *b = ready->user;
    struct tb_op *op = b->op;
    b->op = NULL;
    op->rc = b->rc;
    op->result = 0;
    op->data = tb_slice(NULL, 0);
    if (b->rc == TB_OK && b->have.n > 0) {
        size_t skip = (size_t)(b->want - b->have.offset);
        op->data = tb_slice(b->raw + skip, b->have.raw_len - skip);
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

static void submit(struct tb_body *b);
static void load(struct tb_body *b);

/* refuse: the piece is damaged: remember it, and answer for this message alone. */
static void refuse(struct tb_body *b, uint32_t piece, enum tb_bad_why why)
{
    struct tb_bad_seen seen = {.blob = b->blob,
                               .lsn = b->piece[piece].lsn,
                               .piece = piece,
                               .why = why,
                               .acct = b->acct,
                               .mbox = b->mbox,
                               .uid = b->uid};
    tb_quarantine(b->shard, &seen);
    answer(b, why == TB_BAD_READ ? TB_IO : TB_CORRUPT);
}

/* broken: the first piece of the span whose checksum is wrong; -1: none. */
static int64_t broken(const struct tb_body *b, const char *comp)
{
    for (uint32_t i = b->load.first; i < b->load.first + b->load.n; i++) {
        const struct tb_disk_piece *p = &b->piece[i];
        if (tb_crc32c(0, comp, p->clen) != p->crc && TB_KEEPS(checksum))
            return i;
        comp += p->clen;
    }
    return -1;
}

/* inflate: the checked compressed bytes of the span into raw, and the answer. */
static void inflate(struct tb_body *b, const char *comp)
{
    char *raw = b->raw;
    for (uint32_t i = b->load.first; i < b->load.first + b->load.n; i++) {
        const struct tb_disk_piece *p = &b->piece[i];
        enum tb_rc rc = tb_codec_decompress(b->shard->worker->codec, p->dict, tb_slice(comp, p->clen), raw, p->raw_len);
        if (rc == TB_CORRUPT) {
            refuse(b, i, TB_BAD_INFLATE);
        } else if (rc == TB_NOTFOUND) { /* not damaged: it can be read again when the dictionary is put back */
            tb_log(TB_LOG_ERROR, "shard=%u acct=%u mbox=%u uid=%u cannot be read: dictionary %04x is missing",
                   b->shard->number, b->acct, b->mbox, b->uid, p->dict & 0x7fffu);
            answer(b, TB_CORRUPT);
        } else if (rc != TB_OK) {
            answer(b, rc);
        }
        if (rc != TB_OK)
            return;
        comp += p->clen;
        raw += p->raw_len;
    }
    b->have = b->load;
    if (b->suspect) { /* the piece that was bad reads well: now what the reader wants */
        b->suspect = false;
        tb_quarantine_lift(b->shard, b->blob);
        load(b);
    } else {
        answer(b, TB_OK);
    }
}

/* again_work: past the page cache: what is on the disk decides (R19). On a helper: a bad disk takes its time. */
static void again_work(struct tb_op *op)
{
    struct tb_body *b = op->user;
    op->result = tb_log_read_now(b->shard->log, b->comp, b->load.clen, b->piece[b->load.first].lsn, true);
}

static void again_done(struct tb_op *op)
{
    struct tb_body *b = op->user;
    b->in_flight = false;
    if (b->closed) {
        body_free(b);
        return;
    }
    int64_t bad = op->result == b->load.clen ? broken(b, b->comp) : -1;
    if (op->result != b->load.clen && b->load.n > 1) { /* which of the two? the reader asks for the second later */
        b->whole = false;
        b->load.n = 1;
        b->load.clen = b->piece[b->load.first].clen;
        b->load.raw_len = b->piece[b->load.first].raw_len;
        submit(b);
    } else if (op->result != b->load.clen) {
        refuse(b, b->load.first, TB_BAD_READ);
    } else if (bad >= 0) {
        refuse(b, (uint32_t)bad, TB_BAD_CHECKSUM);
    } else {
        inflate(b, b->comp);
    }
}

static void read_done(struct tb_op *op)
{
    struct tb_body *b = op->user;
    b->in_flight = false;
    if (b->closed) {
        body_free(b);
    } else if (op->result == b->load.clen && broken(b, b->comp) < 0) {
        inflate(b, b->comp);
    } else {
        b->in_flight = true;
        b->io = (struct tb_op){.done = again_done, .user = b};
        tb_io_offload(b->shard->worker->io, &b->io, again_work);
    }
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

static void submit(struct tb_body *b)
{
    b->in_flight = true;
    b->io = (struct tb_op){.done = read_done, .user = b};
    tb_log_read(b->shard->log, &b->io, b->comp, b->load.clen, b->piece[b->load.first].lsn);
}

/* load: bring in the span that holds what is wanted; first, the piece that was bad. */
static void load(struct tb_body *b)
{
    struct tb_slice mem;
    b->have.n = 0;
    if (b->suspect) {
        const struct tb_disk_piece *p = &b->piece[b->bad_piece];
        b->load = (struct span){.first = b->bad_piece, .n = 1, .clen = p->clen, .raw_len = p->raw_len};
    } else if (!locate(b, b->want, &b->load)) {
        answer(b, TB_OK); /* at or past the end: nothing */
        return;
    }
    const struct tb_disk_piece *p = &b->piece[b->load.first];
    if (p->raw_len > TB_PIECE_RAW_MAX || p->clen > TB_PIECE_CLEN_MAX) {
        refuse(b, b->load.first, TB_BAD_ROW);
        return;
    }
    if (!room(&b->raw, &b->raw_cap, b->load.raw_len) || !room(&b->comp, &b->comp_cap, b->load.clen)) {
        answer(b, TB_LIMIT);
        return;
    }
    /* on its way to the disk: still in memory, or written in the meantime */
    if (p->lsn + b->load.clen > tb_log_durable(b->shard->log) &&
        tb_log_peek(b->shard->log, p->lsn, b->load.clen, &mem)) {
        if (broken(b, mem.ptr) >= 0)
            answer(b, TB_CORRUPT);
        else
            inflate(b, mem.ptr);
        return;
    }
    submit(b);
}

void tb_body_read(struct tb_body *b, uint64_t offset, struct tb_op *op)
{
    TB_ASSERT(b->op == NULL);
    b->op = op;
    b->want = offset;
    bool at_hand = b->have.n > 0 && offset >= b->have.offset && offset - b->have.offset < b->have.raw_len;
    if (at_hand)
        answer(b, TB_OK);
    else
        load(b);
}

void tb_body_whole(struct tb_body *b)
{
    b->whole = true;
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

/* ---- read by another worker ---- */

static void reach_back(struct tb_op *hop)
{
    struct tb_reach *r = hop->user;
    struct tb_op *op = r->op;
    op->rc = r->read.rc;
    op->data = r->read.data;
    op->result = r->read.result;
    op->done(op);
}

static void reach_read(struct tb_op *read)
{
    struct tb_reach *r = read->user;
    r->hop = (struct tb_op){.done = reach_back, .user = r};
    tb_io_post(r->body->shard->worker->io, r->from->io, &r->hop);
}

static void reach_arrived(struct tb_op *hop)
{
    struct tb_reach *r = hop->user;
    r->read = (struct tb_op){.done = reach_read, .user = r};
    tb_body_read(r->body, r->offset, &r->read);
}

void tb_body_reach(struct tb_worker *w, struct tb_body *b, uint64_t offset, struct tb_reach *r, struct tb_op *op)
{
    if (b->shard->worker == w) {
        tb_body_read(b, offset, op);
        return;
    }
    *r = (struct tb_reach){.from = w, .body = b, .offset = offset, .op = op};
    r->hop = (struct tb_op){.done = reach_arrived, .user = r};
    tb_io_post(w->io, b->shard->worker->io, &r->hop);
}

static void released(struct tb_op *hop)
{
    tb_body_close(hop->user);
}

void tb_body_release(struct tb_worker *w, struct tb_body *b)
{
    if (b == NULL || b->shard->worker == w) {
        tb_body_close(b);
        return;
    }
    b->hop = (struct tb_op){.done = released, .user = b};
    tb_io_post(w->io, b->shard->worker->io, &b->hop);
}

/* An EMAILID: "M", then 128 bits in 26 digits of five bits, lowest first. */
static const char id_digits[] = "0123456789abcdefghijklmnopqrstuv";
enum { ID_DIGITS = 26 };

void tb_email_id(struct tb_account *a, uint64_t blob, char out[32])
{
    uint8_t key[32], in[16] = {0}, id[16];
    tb_store_secret(a->shard->store, "emailid", key);
    tb_put_le64(in, blob);
    tb_put_le32(in + 8, a->acct);
    tb_aes128_block(key, in, id);
    out[0] = 'M';
    for (unsigned i = 0; i < ID_DIGITS; i++) {
        unsigned bit = i * 5, byte = bit / 8, shift = bit % 8;
        unsigned v = (unsigned)id[byte] >> shift | (byte + 1 < 16 ? (unsigned)id[byte + 1] << (8 - shift) : 0);
        out[1 + i] = id_digits[v & 31];
    }
    out[1 + ID_DIGITS] = '\0';
}

bool tb_email_id_read(struct tb_account *a, struct tb_slice id, uint64_t *blob)
{
    uint8_t key[32], sealed[18] = {0}, plain[16];
    if (id.len != 1 + ID_DIGITS || id.ptr[0] != 'M')
        return false;
    for (unsigned i = 0; i < ID_DIGITS; i++) {
        const char *digit = memchr(id_digits, id.ptr[1 + i], sizeof(id_digits) - 1);
        if (digit == NULL)
            return false;
        unsigned v = (unsigned)(digit - id_digits) << i * 5 % 8, byte = i * 5 / 8;
        sealed[byte] |= (uint8_t)v;
        sealed[byte + 1] |= (uint8_t)(v >> 8);
    }
    tb_store_secret(a->shard->store, "emailid", key);
    tb_aes128_unblock(key, sealed, plain);
    *blob = tb_get_le64(plain);
    return sealed[16] == 0 && tb_get_le32(plain + 8) == a->acct && tb_get_le32(plain + 12) == 0;
}
