/*
 * payload.c: BLOB, ADD and MOVED payloads as varints (LEB128; signed numbers zigzag). There are two such records a
 * message: 150 bytes less than as structs, which is 2 % of an average stored message.
 *
 * Pure. A payload was checksummed before it comes here; a decoder that still finds it cut or a number too large says
 * so.
 */
#include "engine/store/payload.h"

static uint64_t zigzag(int64_t v)
{
    return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static int64_t unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

struct writer {
    uint8_t *at;
};

static void put(struct writer *w, uint64_t v)
{
    w->at += tb_put_varint(w->at, v);
}

static void put_bytes(struct writer *w, const void *ptr, size_t len)
{
    memcpy(w->at, ptr, len);
    w->at += len;
}

static void put_piece(struct writer *w, const struct tb_disk_piece *p)
{
    put(w, p->clen);
    put(w, p->raw_len);
    put(w, p->dict);
    put_bytes(w, &p->crc, 4);
}

struct reader {
    struct tb_slice s;
    bool bad; /* sticky: every later number is 0 */
};

static uint64_t get(struct reader *r, uint64_t max)
{
    uint64_t v = 0;
    r->bad = r->bad || !tb_get_varint(&r->s, &v) || v > max;
    return r->bad ? 0 : v;
}

static uint32_t get_u32(struct reader *r)
{
    return (uint32_t)get(r, UINT32_MAX);
}

static uint16_t get_u16(struct reader *r)
{
    return (uint16_t)get(r, UINT16_MAX);
}

static void get_bytes(struct reader *r, void *out, size_t len)
{
    r->bad = r->bad || r->s.len < len;
    if (r->bad)
        return;
    memcpy(out, r->s.ptr, len);
    r->s = tb_slice_sub(r->s, len, r->s.len);
}

static void get_piece(struct reader *r, struct tb_disk_piece *p)
{
    p->clen = get_u32(r);
    p->raw_len = get_u32(r);
    p->dict = get_u16(r);
    get_bytes(r, &p->crc, 4);
}

size_t tb_blob_encode(const struct tb_pay_blob *p, uint8_t *out)
{
    struct writer w = {out};
    put(&w, p->blob);
    put(&w, p->body);
    put(&w, p->size);
    put(&w, p->header_size);
    put(&w, p->refs);
    put_piece(&w, &p->head);
    put(&w, p->pieces | (p->hashed ? TB_BLOB_HASHED : 0) | (p->shared ? TB_BLOB_SHARED : 0));
    if (p->pieces == 1)
        put_piece(&w, &p->only);
    put(&w, p->cache_clen);
    put(&w, p->cache_raw);
    put(&w, p->cache_dict);
    put_bytes(&w, p->sha256, sizeof(p->sha256));
    if (p->hashed)
        put_bytes(&w, p->hash, sizeof(p->hash));
    return (size_t)(w.at - out);
}

bool tb_blob_decode(struct tb_slice *s, struct tb_pay_blob *out)
{
    struct reader r = {*s, false};
    memset(out, 0, sizeof(*out));
    out->blob = get(&r, UINT64_MAX);
    out->body = get(&r, UINT64_MAX);
    out->size = get_u32(&r);
    out->header_size = get_u32(&r);
    out->refs = get_u32(&r);
    get_piece(&r, &out->head);
    uint64_t pieces = get(&r, UINT32_MAX | TB_BLOB_HASHED | TB_BLOB_SHARED);
    out->pieces = (uint32_t)pieces;
    out->hashed = pieces & TB_BLOB_HASHED;
    out->shared = pieces & TB_BLOB_SHARED;
    r.bad = r.bad || (out->shared && (out->hashed || out->pieces != 0));
    if (out->pieces == 1)
        get_piece(&r, &out->only);
    out->cache_clen = get_u16(&r);
    out->cache_raw = get_u32(&r);
    out->cache_dict = get_u16(&r);
    get_bytes(&r, out->sha256, sizeof(out->sha256));
    if (out->hashed)
        get_bytes(&r, out->hash, sizeof(out->hash));
    *s = r.s;
    return !r.bad;
}

size_t tb_add_encode(const struct tb_pay_add *p, uint8_t flags, uint8_t *out)
{
    struct writer w = {out};
    const struct tb_disk_row *row = &p->row;
    put(&w, p->mbox);
    put(&w, row->uid);
    put(&w, row->flags);
    put(&w, row->x);
    put(&w, row->modseq);
    put(&w, row->keywords);
    put(&w, zigzag(row->internaldate));
    put(&w, zigzag((int64_t)((uint64_t)row->savedate - (uint64_t)row->internaldate)));
    put(&w, row->blob);
    put(&w, row->size);
    put(&w, row->header_size);
    put(&w, row->thread);
    if (flags & TB_ADD_QUEUED)
        put_bytes(&w, p->delivery, sizeof(p->delivery));
    if (flags & TB_ADD_CACHE) {
        put(&w, p->cache_raw);
        put(&w, p->cache_dict);
    }
    return (size_t)(w.at - out);
}

bool tb_add_decode(struct tb_slice *s, uint8_t flags, struct tb_pay_add *out)
{
    struct reader r = {*s, false};
    struct tb_disk_row *row = &out->row;
    memset(out, 0, sizeof(*out));
    out->mbox = get_u32(&r);
    row->uid = get_u32(&r);
    row->flags = get_u16(&r);
    row->x = get_u16(&r);
    row->modseq = get(&r, UINT64_MAX);
    row->keywords = get(&r, UINT64_MAX);
    row->internaldate = unzigzag(get(&r, UINT64_MAX));
    row->savedate = (int64_t)((uint64_t)unzigzag(get(&r, UINT64_MAX)) + (uint64_t)row->internaldate);
    row->blob = get(&r, UINT64_MAX);
    row->size = get_u32(&r);
    row->header_size = get_u32(&r);
    row->thread = get(&r, UINT64_MAX);
    if (flags & TB_ADD_QUEUED)
        get_bytes(&r, out->delivery, sizeof(out->delivery));
    if (flags & TB_ADD_CACHE) {
        out->cache_raw = get_u32(&r);
        out->cache_dict = get_u16(&r);
    }
    *s = r.s;
    return !r.bad;
}

static void put_moved_piece(struct writer *w, const struct tb_disk_piece *p)
{
    put_piece(w, p);
    put(w, p->flags);
}

static void get_moved_piece(struct reader *r, struct tb_disk_piece *p)
{
    get_piece(r, p);
    p->flags = get_u16(r);
}

size_t tb_moved_encode(const struct tb_pay_moved *p, uint8_t flags, uint8_t *out)
{
    struct writer w = {out};
    put(&w, p->blob);
    put(&w, p->body);
    put(&w, p->index);
    put(&w, p->head_from);
    put(&w, p->own_from);
    put_moved_piece(&w, &p->head);
    put_moved_piece(&w, &p->own);
    put(&w, p->pieces);
    put(&w, p->rows);
    put(&w, p->rows_len);
    if (flags & TB_MOVED_HASHED)
        put_bytes(&w, p->sha256, sizeof(p->sha256));
    return (size_t)(w.at - out);
}

bool tb_moved_decode(struct tb_slice *s, uint8_t flags, struct tb_pay_moved *out)
{
    struct reader r = {*s, false};
    memset(out, 0, sizeof(*out));
    out->blob = get(&r, UINT64_MAX);
    out->body = get(&r, UINT64_MAX);
    out->index = get_u32(&r);
    out->head_from = get(&r, UINT64_MAX);
    out->own_from = get(&r, UINT64_MAX);
    get_moved_piece(&r, &out->head);
    get_moved_piece(&r, &out->own);
    out->pieces = get_u32(&r);
    out->rows = get_u32(&r);
    out->rows_len = get_u32(&r);
    if (flags & TB_MOVED_HASHED)
        get_bytes(&r, out->sha256, sizeof(out->sha256));
    *s = r.s;
    return !r.bad;
}

size_t tb_moved_row_encode(const struct tb_moved_row *m, uint8_t *out)
{
    struct writer w = {out};
    const struct tb_disk_row *row = &m->row;
    put(&w, m->acct);
    put(&w, m->mbox);
    put(&w, row->uid);
    put(&w, row->flags);
    put(&w, row->x);
    put(&w, row->modseq);
    put(&w, zigzag(row->internaldate));
    put(&w, zigzag((int64_t)((uint64_t)row->savedate - (uint64_t)row->internaldate)));
    put(&w, row->size);
    put(&w, row->header_size);
    put(&w, row->thread);
    put(&w, m->keywords_n);
    return (size_t)(w.at - out);
}

bool tb_moved_row_decode(struct tb_slice *s, struct tb_moved_row *out)
{
    struct reader r = {*s, false};
    struct tb_disk_row *row = &out->row;
    memset(out, 0, sizeof(*out));
    out->acct = get_u32(&r);
    out->mbox = get_u32(&r);
    row->uid = get_u32(&r);
    row->flags = get_u16(&r);
    row->x = get_u16(&r);
    row->modseq = get(&r, UINT64_MAX);
    row->internaldate = unzigzag(get(&r, UINT64_MAX));
    row->savedate = (int64_t)((uint64_t)unzigzag(get(&r, UINT64_MAX)) + (uint64_t)row->internaldate);
    row->size = get_u32(&r);
    row->header_size = get_u32(&r);
    row->thread = get(&r, UINT64_MAX);
    out->keywords_n = (uint32_t)get(&r, 64);
    *s = r.s;
    return !r.bad;
}

bool tb_moved_keyword(struct tb_slice *s, struct tb_slice *name)
{
    if (s->len == 0 || s->len - 1 < (uint8_t)s->ptr[0])
        return false;
    *name = tb_slice(s->ptr + 1, (uint8_t)s->ptr[0]);
    *s = tb_slice_sub(*s, 1 + name->len, s->len);
    return true;
}
