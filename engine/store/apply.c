/*
 * apply.c: the one pure function from (record, index) to index (S9). The live path, crash replay and every later reader
 * of the log run exactly this: no clock, no randomness, no I/O, nothing but the record and what earlier records left.
 *
 * Bytes of a record were checksummed, but lengths are checked again: a record that contradicts itself or the index is
 * CORRUPT. Thread: the shard's owner.
 */
#include <stdlib.h>

#include "engine/store/apply.h"
#include "engine/store/delivery_format.h"

enum { SCAN_ROWS = 64 };

/* ---- typed rows ---- */

static struct tb_key key2(uint32_t a, uint32_t b)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, a);
    tb_key_u32(&k, b);
    return k;
}

static struct tb_key key_u32(uint32_t a)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, a);
    return k;
}

static struct tb_key key_u64(uint64_t a)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, a);
    return k;
}

static bool fixed(struct tb_slice v, void *out, size_t len)
{
    if (v.len < len)
        return false;
    memcpy(out, v.ptr, len);
    return true;
}

bool tb_acct_get(struct tb_index *ix, uint32_t acct, struct tb_disk_acct *out)
{
    struct tb_key k = key_u32(acct);
    struct tb_slice v;
    return tb_index_get(ix, TB_DB_ACCT, tb_key_slice(&k), &v) && fixed(v, out, sizeof(*out));
}

void tb_acct_put(struct tb_index *ix, uint32_t acct, const struct tb_disk_acct *a)
{
    struct tb_key k = key_u32(acct);
    struct tb_slice v;
    char name[TB_NAME_MAX];
    size_t len = 0;
    if (tb_index_get(ix, TB_DB_ACCT, tb_key_slice(&k), &v) && v.len > sizeof(*a)) {
        len = v.len - sizeof(*a) < sizeof(name) ? v.len - sizeof(*a) : sizeof(name);
        memcpy(name, v.ptr + sizeof(*a), len);
    }
    tb_index_put2(ix, TB_DB_ACCT, tb_key_slice(&k), tb_slice(a, sizeof(*a)), tb_slice(name, len));
}

bool tb_mbox_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, struct tb_disk_mbox *out, struct tb_slice *leaf)
{
    struct tb_key k = key2(acct, mbox);
    struct tb_slice v;
    if (!tb_index_get(ix, TB_DB_MBOX, tb_key_slice(&k), &v) || !fixed(v, out, sizeof(*out)))
        return false;
    if (leaf != NULL)
        *leaf = tb_slice(v.ptr + sizeof(*out), v.len - sizeof(*out));
    return true;
}

void tb_mbox_put(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_mbox *m, const char *leaf,
                 size_t leaf_len)
{
    struct tb_key k = key2(acct, mbox);
    tb_index_put2(ix, TB_DB_MBOX, tb_key_slice(&k), tb_slice(m, sizeof(*m)), tb_slice(leaf, leaf_len));
}

bool tb_tree_get(struct tb_index *ix, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t *mbox)
{
    struct tb_key k = key2(acct, parent);
    struct tb_slice v;
    if (leaf.len > TB_MBOX_LEAF_MAX)
        return false;
    tb_key_bytes(&k, leaf);
    if (!tb_index_get(ix, TB_DB_TREE, tb_key_slice(&k), &v) || v.len != 4)
        return false;
    *mbox = tb_get_le32(v.ptr);
    return true;
}

static void tree_put(struct tb_index *ix, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t mbox)
{
    struct tb_key k = key2(acct, parent);
    tb_key_bytes(&k, leaf);
    char v[4];
    tb_put_le32(v, mbox);
    tb_index_put(ix, TB_DB_TREE, tb_key_slice(&k), tb_slice(v, 4));
}

static void tree_del(struct tb_index *ix, uint32_t acct, uint32_t parent, struct tb_slice leaf)
{
    struct tb_key k = key2(acct, parent);
    tb_key_bytes(&k, leaf);
    tb_index_del(ix, TB_DB_TREE, tb_key_slice(&k));
}

bool tb_body_piece(struct tb_index *ix, uint64_t body, const struct tb_disk_body *b, uint32_t i,
                   struct tb_disk_piece *out)
{
    if (i >= b->pieces)
        return false;
    struct tb_key k = key_u64(body);
    struct tb_slice v;
    tb_key_u32(&k, i / TB_BODYX_PIECES);
    size_t at = (size_t)(i % TB_BODYX_PIECES) * sizeof(*out);
    if (!tb_index_get(ix, TB_DB_BODYX, tb_key_slice(&k), &v) || v.len < at + sizeof(*out))
        return false;
    memcpy(out, v.ptr + at, sizeof(*out));
    return true;
}

/* ---- a mailbox being changed ---- */

static bool mbox_load(struct tb_applier *x, uint32_t acct, uint32_t mbox, struct open_mbox *m)
{
    struct tb_slice leaf;
    if (!tb_mbox_get(x->ix, acct, mbox, &m->row, &leaf) || leaf.len > sizeof(m->leaf))
        return false;
    m->acct = acct;
    m->mbox = mbox;
    m->leaf_len = leaf.len;
    memcpy(m->leaf, leaf.ptr, leaf.len);
    uint32_t *slot = &x->touched_hash[(acct * 2654435761u ^ mbox * 40503u) >> 24];
    if (*slot != (acct ^ mbox << 20)) {
        *slot = acct ^ mbox << 20;
        x->dirty_pages += 10; /* two blocks and the paths to them, the mailbox's and the account's leaf */
    }
    return true;
}

static void mbox_save(struct tb_applier *x, const struct open_mbox *m)
{
    tb_mbox_put(x->ix, m->acct, m->mbox, &m->row, m->leaf, m->leaf_len);
}

/* count: a row enters (sign 1) or leaves (-1) the mailbox's, the account's and the shard's counters. */
static void count(struct tb_applier *x, struct open_mbox *m, struct tb_disk_acct *a, const struct tb_disk_row *r,
                  int sign)
{
    uint32_t one = (uint32_t)sign;
    m->row.messages += one;
    m->row.unseen += r->flags & TB_FLAG_SEEN ? 0 : one;
    m->row.deleted += r->flags & TB_FLAG_DELETED ? one : 0;
    uint64_t bytes = sign > 0 ? r->size : -(uint64_t)r->size;
    m->row.bytes += bytes;
    a->messages += (uint64_t)(int64_t)sign;
    a->bytes += bytes;
    x->state.messages += (uint64_t)(int64_t)sign;
    x->state.raw_bytes += bytes;
}

/* ---- segments ---- */

void tb_seg_add(struct tb_applier *x, uint64_t lsn, int64_t total, int64_t live)
{
    uint32_t segment = (uint32_t)(lsn / x->segment_bytes);
    for (size_t i = x->seg_n; i-- > 0;)
        if (x->seg[i].segment == segment) {
            x->seg[i].total += total;
            x->seg[i].live += live;
            return;
        }
    if (x->seg_n == x->seg_cap) {
        size_t cap = x->seg_cap ? x->seg_cap * 2 : 16;
        struct tb_seg_delta *v = realloc(x->seg, cap * sizeof(*v));
        if (v == NULL)
            return; /* only GC's estimate suffers; it is rebuilt by a check */
        x->seg = v;
        x->seg_cap = cap;
    }
    x->seg[x->seg_n++] = (struct tb_seg_delta){segment, total, live};
}

void tb_apply_flush(struct tb_applier *x, uint64_t applied, uint32_t chain)
{
    for (size_t i = 0; i < x->seg_n; i++) {
        struct tb_key k = key_u32(x->seg[i].segment);
        struct tb_slice v;
        struct tb_disk_seg row = {0};
        if (tb_index_get(x->ix, TB_DB_SEG, tb_key_slice(&k), &v))
            (void)fixed(v, &row, sizeof(row));
        row.total += (uint64_t)x->seg[i].total;
        row.live += (uint64_t)x->seg[i].live;
        tb_index_put(x->ix, TB_DB_SEG, tb_key_slice(&k), tb_slice(&row, sizeof(row)));
    }
    x->seg_n = 0;
    x->state.applied = applied;
    x->state.chain = chain;
    x->state.format = TB_FORMAT;
    tb_index_put(x->ix, TB_DB_STATE, TB_SLICE("state"), tb_slice(&x->state, sizeof(x->state)));
    memset(x->touched_hash, 0, sizeof(x->touched_hash));
    x->dirty_pages = 0;
}

/* ---- hashes of bodies ---- */

static struct tb_key key_of_body(uint64_t body)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, UINT32_MAX);
    tb_key_u64(&k, body);
    return k;
}

bool tb_hash_get(struct tb_index *ix, const uint8_t key[TB_HASH_KEY_MAX], uint64_t *body)
{
    struct tb_slice v;
    if (!tb_index_get(ix, TB_DB_HASH, tb_slice(key, TB_HASH_KEY_MAX), &v) || v.len != 8)
        return false;
    *body = tb_get_le64(v.ptr);
    return true;
}

static void hash_put(struct tb_applier *x, const uint8_t key[TB_HASH_KEY_MAX], uint64_t body)
{
    struct tb_key k = key_of_body(body);
    char v[8];
    tb_put_le64(v, body);
    tb_index_put(x->ix, TB_DB_HASH, tb_slice(key, TB_HASH_KEY_MAX), tb_slice(v, sizeof(v)));
    tb_index_append(x->ix, TB_DB_HASH, tb_key_slice(&k), tb_slice(key, TB_HASH_KEY_MAX));
    x->dirty_pages += 3;
}

/* hash_drop: a body goes: nobody may find it any more. Another body may have taken its place at the key. */
static void hash_drop(struct tb_applier *x, uint64_t body)
{
    struct tb_key k = key_of_body(body);
    struct tb_slice v;
    uint8_t key[TB_HASH_KEY_MAX];
    uint64_t holder;
    if (!tb_index_get(x->ix, TB_DB_HASH, tb_key_slice(&k), &v) || !fixed(v, key, sizeof(key)))
        return;
    tb_index_del(x->ix, TB_DB_HASH, tb_key_slice(&k));
    if (tb_hash_get(x->ix, key, &holder) && holder == body)
        tb_index_del(x->ix, TB_DB_HASH, tb_slice(key, sizeof(key)));
    x->dirty_pages += 3;
}

/* ---- blobs ---- */

/* blob_get: a blob's row as it is stored; *len: its bytes. */
static bool blob_get(struct tb_applier *x, uint64_t blob, struct tb_blob_row *out, size_t *len)
{
    struct tb_key k = key_u64(blob);
    struct tb_slice v;
    if (!tb_index_get(x->ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len < sizeof(out->blob) || v.len > sizeof(*out))
        return false;
    memset(out, 0, sizeof(*out));
    memcpy(out, v.ptr, v.len);
    *len = v.len;
    return true;
}

/* body_put: a row of its own for a body of several pieces. */
static void body_put(struct tb_applier *x, const struct tb_pay_blob *p, const char *list)
{
    struct tb_disk_body body = {.raw_bytes = p->size - p->head.raw_len, .refs = 1, .pieces = p->pieces};
    struct tb_disk_piece piece;
    struct tb_key k;
    for (uint32_t i = 0; i < p->pieces; i++) {
        memcpy(&piece, list + i * sizeof(piece), sizeof(piece));
        body.stored_bytes += piece.clen;
        tb_seg_add(x, piece.lsn, piece.clen, piece.clen);
    }
    for (uint32_t i = 0; i < p->pieces; i += TB_BODYX_PIECES) {
        uint32_t n = p->pieces - i < TB_BODYX_PIECES ? p->pieces - i : TB_BODYX_PIECES;
        k = key_u64(p->body);
        tb_key_u32(&k, i / TB_BODYX_PIECES);
        tb_index_append(x->ix, TB_DB_BODYX, tb_key_slice(&k), tb_slice(list + i * sizeof(piece), n * sizeof(piece)));
    }
    k = key_u64(p->body);
    tb_index_append(x->ix, TB_DB_BODY, tb_key_slice(&k), tb_slice(&body, sizeof(body)));
    x->state.stored_bytes += body.stored_bytes;
}

/* blob_put: the blob's row; with its body when that is one piece or nothing. */
static void blob_put(struct tb_applier *x, const struct tb_pay_blob *p, uint64_t head_lsn, uint64_t body_lsn)
{
    struct tb_blob_row row = {.blob = {.head = p->head, .body = p->body, .refs = p->refs}, .own = p->only};
    bool own = p->pieces <= 1 && !p->shared;
    row.blob.head.lsn = head_lsn;
    row.blob.flags = own ? TB_BLOB_OWN_BODY : 0;
    row.own.lsn = p->pieces == 1 ? body_lsn : 0;
    tb_seg_add(x, head_lsn, p->head.clen, p->head.clen);
    if (p->pieces == 1)
        tb_seg_add(x, body_lsn, p->only.clen, p->only.clen);
    struct tb_key k = key_u64(p->blob);
    tb_index_append(x->ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&row, own ? sizeof(row) : sizeof(row.blob)));
    x->state.stored_raw_bytes += p->shared ? p->head.raw_len : p->size;
    x->state.stored_bytes += p->head.clen + p->only.clen;
}

/* body_own_row: the body that one blob had to itself gets a row, so that others can refer to it. */
static bool body_own_row(struct tb_applier *x, uint64_t id, struct tb_disk_body *out)
{
    struct tb_blob_row row;
    struct tb_key k = key_u64(id);
    size_t len;
    if (!blob_get(x, id, &row, &len) || !(row.blob.flags & TB_BLOB_OWN_BODY) || row.own.lsn == 0)
        return false;
    row.blob.flags &= ~(uint32_t)TB_BLOB_OWN_BODY;
    tb_index_put(x->ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&row, sizeof(row.blob)));
    tb_key_u32(&k, 0);
    tb_index_put(x->ix, TB_DB_BODYX, tb_key_slice(&k), tb_slice(&row.own, sizeof(row.own)));
    *out = (struct tb_disk_body){.raw_bytes = row.own.raw_len, .stored_bytes = row.own.clen, .refs = 1, .pieces = 1};
    x->bodies_moved++;
    x->dirty_pages += 4;
    return true;
}

/* body_share: a new blob refers to a body that is stored already. */
static bool body_share(struct tb_applier *x, uint64_t id, uint64_t raw_bytes)
{
    struct tb_key k = key_u64(id);
    struct tb_slice v;
    struct tb_disk_body body;
    bool there = tb_index_get(x->ix, TB_DB_BODY, tb_key_slice(&k), &v) && fixed(v, &body, sizeof(body));
    if ((!there && !body_own_row(x, id, &body)) || body.raw_bytes != raw_bytes)
        return false;
    body.refs++;
    x->state.shared_raw_bytes += body.raw_bytes;
    tb_index_put(x->ix, TB_DB_BODY, tb_key_slice(&k), tb_slice(&body, sizeof(body)));
    x->dirty_pages += 2;
    return true;
}

static enum tb_rc apply_blob(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_blob p;
    struct tb_slice rest = r->payload;
    if (!tb_blob_decode(&rest, &p) || p.head.clen > rest.len || p.head.raw_len > p.size)
        return TB_CORRUPT;
    uint64_t head_lsn = r->lsn + (uint64_t)(rest.ptr - r->payload.ptr);
    rest = tb_slice_sub(rest, p.head.clen, rest.len);
    size_t list = p.pieces > 1 ? p.pieces * sizeof(struct tb_disk_piece) : 0;
    if (list > rest.len || rest.len - list != (size_t)p.only.clen + p.cache_clen)
        return TB_CORRUPT;
    if (p.shared && !body_share(x, p.body, p.size - p.head.raw_len))
        return TB_CORRUPT;
    if (p.hashed)
        hash_put(x, p.hash, p.body);
    if (list > 0)
        body_put(x, &p, rest.ptr);
    blob_put(x, &p, head_lsn, r->lsn + (uint64_t)(rest.ptr - r->payload.ptr) + list);
    if (p.blob >= x->state.next_blob)
        x->state.next_blob = p.blob + 1;
    x->frame_blob = p.blob;
    x->frame_cache = (struct tb_disk_cache){
        .clen = (uint16_t)p.cache_clen, .dict = p.cache_dict, .raw_len = p.cache_raw};
    x->frame_cache_data = rest.ptr + list + p.only.clen;
    return TB_OK;
}

static bool blob_ref(struct tb_applier *x, uint64_t blob)
{
    struct tb_key k = key_u64(blob);
    struct tb_blob_row row;
    size_t len;
    if (!blob_get(x, blob, &row, &len))
        return false;
    row.blob.refs++;
    tb_index_put(x->ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&row, len));
    return true;
}

static void body_drop(struct tb_applier *x, uint64_t id)
{
    struct tb_key k = key_u64(id);
    struct tb_slice v;
    struct tb_disk_body body;
    if (!tb_index_get(x->ix, TB_DB_BODY, tb_key_slice(&k), &v) || !fixed(v, &body, sizeof(body)))
        return;
    if (--body.refs > 0) {
        x->state.shared_raw_bytes -= body.raw_bytes;
        tb_index_put(x->ix, TB_DB_BODY, tb_key_slice(&k), tb_slice(&body, sizeof(body)));
        return;
    }
    if (body.raw_bytes >= TB_DEDUP_RAW_MIN)
        hash_drop(x, id);
    for (uint32_t i = 0; i < body.pieces; i++) {
        struct tb_disk_piece piece;
        if (tb_body_piece(x->ix, id, &body, i, &piece))
            tb_seg_add(x, piece.lsn, 0, -(int64_t)piece.clen);
    }
    for (uint32_t i = 0; i < body.pieces; i += TB_BODYX_PIECES) {
        struct tb_key kx = key_u64(id);
        tb_key_u32(&kx, i / TB_BODYX_PIECES);
        tb_index_del(x->ix, TB_DB_BODYX, tb_key_slice(&kx));
    }
    tb_index_del(x->ix, TB_DB_BODY, tb_key_slice(&k));
    x->state.stored_bytes -= body.stored_bytes;
    x->state.stored_raw_bytes -= body.raw_bytes;
}

/* bad_put, bad_forget: a stored message enters and leaves quarantine. */
static void bad_put(struct tb_applier *x, uint64_t blob, const struct tb_disk_bad *bad)
{
    struct tb_key k = key_u64(blob);
    struct tb_slice v;
    x->bad += !tb_index_get(x->ix, TB_DB_BAD, tb_key_slice(&k), &v);
    tb_index_put(x->ix, TB_DB_BAD, tb_key_slice(&k), tb_slice(bad, sizeof(*bad)));
}

static void bad_forget(struct tb_applier *x, uint64_t blob)
{
    struct tb_key k = key_u64(blob);
    struct tb_slice v;
    if (x->bad == 0 || !tb_index_get(x->ix, TB_DB_BAD, tb_key_slice(&k), &v))
        return;
    tb_index_del(x->ix, TB_DB_BAD, tb_key_slice(&k));
    x->bad--;
}

static void blob_unref(struct tb_applier *x, uint64_t id)
{
    struct tb_key k = key_u64(id);
    struct tb_blob_row row;
    size_t len;
    if (!blob_get(x, id, &row, &len))
        return;
    if (--row.blob.refs > 0) {
        tb_index_put(x->ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&row, len));
        return;
    }
    tb_index_del(x->ix, TB_DB_BLOB, tb_key_slice(&k));
    bad_forget(x, id);
    tb_seg_add(x, row.blob.head.lsn, 0, -(int64_t)row.blob.head.clen);
    x->state.stored_bytes -= row.blob.head.clen;
    x->state.stored_raw_bytes -= row.blob.head.raw_len;
    if (!(row.blob.flags & TB_BLOB_OWN_BODY)) {
        body_drop(x, row.blob.body);
        return;
    }
    if (row.own.raw_len >= TB_DEDUP_RAW_MIN)
        hash_drop(x, row.blob.body);
    if (row.own.lsn != 0)
        tb_seg_add(x, row.own.lsn, 0, -(int64_t)row.own.clen);
    x->state.stored_bytes -= row.own.clen;
    x->state.stored_raw_bytes -= row.own.raw_len;
}

/* ---- messages ---- */

/* add_cache: the envelope of a new message: its own bytes, or those of the frame's BLOB. */
static void add_cache(struct tb_applier *x, const struct tb_record *r, const struct tb_pay_add *p, struct tb_slice own)
{
    struct tb_disk_cache head = x->frame_cache;
    const void *data = x->frame_cache_data;
    if (r->flags & TB_ADD_CACHE) {
        head = (struct tb_disk_cache){.clen = (uint16_t)own.len, .dict = p->cache_dict, .raw_len = p->cache_raw};
        data = own.ptr;
    } else if (x->frame_blob != p->row.blob) {
        return;
    }
    head.uid = p->row.uid;
    if (head.clen > 0 && head.clen <= TB_CACHE_CLEN_MAX)
        tb_cache_append(x->ix, r->acct, p->mbox, &head, data);
}

static enum tb_rc apply_add(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_add p;
    struct open_mbox m;
    struct tb_disk_acct a;
    struct tb_slice rest = r->payload;
    if (!tb_add_decode(&rest, r->flags, &p) || rest.len > TB_CACHE_CLEN_MAX)
        return TB_CORRUPT;
    if (!mbox_load(x, r->acct, p.mbox, &m) || !tb_acct_get(x->ix, r->acct, &a) || p.row.uid < m.row.uidnext ||
        m.row.staged != 0)
        return TB_CORRUPT;
    if (!(r->flags & TB_ADD_COUNTED) && !blob_ref(x, p.row.blob))
        return TB_CORRUPT;
    m.row.uidnext = p.row.uid + 1;
    m.row.highestmodseq = a.modseq = p.row.modseq;
    count(x, &m, &a, &p.row, 1);
    mbox_save(x, &m);
    tb_acct_put(x->ix, r->acct, &a);
    tb_rows_append(x->ix, r->acct, p.mbox, &p.row);
    add_cache(x, r, &p, rest);
    if (r->flags & TB_ADD_QUEUED)
        tb_index_put(x->ix, TB_DB_DONE, tb_slice(p.delivery, 16), tb_slice(&p.row.savedate, 8));
    return TB_OK;
}

struct edit { /* what a pass over rows carries */
    struct tb_applier *x;
    struct open_mbox *m;
    struct tb_disk_acct *a;
    uint8_t mode;
    uint16_t flags;
    uint64_t keywords, modseq;
    int64_t due, when;
    bool trash;
};

static enum tb_edit edit_flags(void *user, struct tb_disk_row *row)
{
    struct edit *e = user;
    count(e->x, e->m, e->a, row, -1);
    if (e->mode == TB_FLAGS_ADD) {
        row->flags |= e->flags;
        row->keywords |= e->keywords;
    } else if (e->mode == TB_FLAGS_REMOVE) {
        row->flags &= (uint16_t)~e->flags;
        row->keywords &= ~e->keywords;
    } else {
        row->flags = e->flags;
        row->keywords = e->keywords;
    }
    row->modseq = e->modseq;
    count(e->x, e->m, e->a, row, 1);
    return TB_EDIT_CHANGED;
}

/* ranges_of: the n ranges that end a payload, checked; NULL if they are not there. Copied: the record may lie
 * unaligned. */
static struct tb_range *ranges_of(struct tb_slice payload, size_t at, uint32_t n)
{
    if (payload.len < at || n != (payload.len - at) / sizeof(struct tb_range) ||
        (payload.len - at) % sizeof(struct tb_range) != 0)
        return NULL;
    struct tb_range *v = malloc((n + 1) * sizeof(*v));
    if (v != NULL)
        memcpy(v, payload.ptr + at, n * sizeof(*v));
    return v;
}

static enum tb_rc apply_flags(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_flags p;
    struct open_mbox m;
    struct tb_disk_acct a;
    if (!fixed(r->payload, &p, sizeof(p)) || !mbox_load(x, r->acct, p.mbox, &m) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    struct tb_range *v = ranges_of(r->payload, sizeof(p), p.n);
    if (v == NULL)
        return TB_CORRUPT;
    struct edit e = {
        .x = x, .m = &m, .a = &a, .mode = p.mode, .flags = p.flags, .keywords = p.keywords, .modseq = p.modseq};
    tb_rows_edit(x->ix, r->acct, p.mbox, v, p.n, edit_flags, &e);
    m.row.highestmodseq = a.modseq = p.modseq;
    mbox_save(x, &m);
    tb_acct_put(x->ix, r->acct, &a);
    tb_chg_append(x->ix, r->acct, p.mbox, p.modseq, TB_CHG_FLAGS, v, p.n);
    free(v);
    return TB_OK;
}

static enum tb_edit edit_remove(void *user, struct tb_disk_row *row)
{
    struct edit *e = user;
    count(e->x, e->m, e->a, row, -1);
    if (e->trash)
        tb_trash_put(e->x, e->m, row, e->due, e->when);
    return TB_EDIT_REMOVE;
}

/* remove_ranges: messages leave a mailbox as e says: to the trash, or (moved) to nowhere. */
static void remove_ranges(struct edit *e, const struct tb_range *v, size_t n, uint64_t modseq)
{
    struct open_mbox *m = e->m;
    tb_rows_edit(e->x->ix, m->acct, m->mbox, v, n, edit_remove, e);
    tb_cache_remove(e->x->ix, m->acct, m->mbox, v, n);
    m->row.highestmodseq = e->a->modseq = modseq;
    tb_chg_append(e->x->ix, m->acct, m->mbox, modseq, TB_CHG_EXPUNGE, v, n);
}

static enum tb_rc apply_expunge(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_expunge p;
    struct open_mbox m;
    struct tb_disk_acct a;
    size_t at = sizeof(p);
    int64_t when = 0;
    if (!fixed(r->payload, &p, sizeof(p)) || !mbox_load(x, r->acct, p.mbox, &m) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    if (r->flags & TB_EXPUNGE_WHEN) {
        at += sizeof(when);
        if (r->payload.len < at)
            return TB_CORRUPT;
        when = (int64_t)tb_get_le64(r->payload.ptr + sizeof(p));
    }
    struct tb_range *v = ranges_of(r->payload, at, p.n);
    if (v == NULL)
        return TB_CORRUPT;
    struct edit e = {.x = x, .m = &m, .a = &a, .due = p.due, .when = when, .trash = true};
    remove_ranges(&e, v, p.n, p.modseq);
    mbox_save(x, &m);
    tb_acct_put(x->ix, r->acct, &a);
    free(v);
    return TB_OK;
}

/* copy_row: one message into the destination. The blob keeps its id, so EMAILID stays. */
static bool copy_row(struct tb_applier *x, const struct tb_pay_copy *p, const struct tb_record *r,
                     struct open_mbox *dst, struct tb_disk_acct *a, const struct tb_disk_row *from, uint32_t uid)
{
    struct tb_disk_row row = *from;
    struct tb_disk_cache head;
    struct tb_slice data;
    char copy[TB_VALUE_MAX];
    row.uid = uid;
    row.modseq = p->dst_modseq;
    row.savedate = p->savedate;
    row.keywords = 0;
    for (unsigned bit = 0; bit < 64; bit++)
        if (from->keywords >> bit & 1 && p->keyword[bit] < 64)
            row.keywords |= (uint64_t)1 << p->keyword[bit];
    if (!(r->flags & TB_COPY_MOVE) && !blob_ref(x, row.blob))
        return false;
    if (!(r->flags & TB_COPY_STAGED))
        count(x, dst, a, &row, 1);
    tb_rows_append(x->ix, r->acct, p->dst, &row);
    if (tb_cache_get(x->ix, r->acct, p->src, from->uid, &head, &data)) {
        memcpy(copy, data.ptr, data.len);
        head.uid = uid;
        tb_cache_append(x->ix, r->acct, p->dst, &head, copy);
    }
    return true;
}

static bool copy_range(struct tb_applier *x, const struct tb_pay_copy *p, const struct tb_record *r,
                       struct open_mbox *dst, struct tb_disk_acct *a, struct tb_range range, uint32_t *uid)
{
    struct tb_disk_row rows[SCAN_ROWS];
    for (uint32_t from = range.first;;) {
        size_t n = tb_rows_scan(x->ix, r->acct, p->src, from, rows, SCAN_ROWS);
        for (size_t i = 0; i < n; i++) {
            if (rows[i].uid > range.last)
                return true;
            if (!copy_row(x, p, r, dst, a, &rows[i], (*uid)++))
                return false;
        }
        if (n < SCAN_ROWS || rows[n - 1].uid >= range.last)
            return true;
        from = rows[n - 1].uid + 1;
    }
}

static enum tb_edit publish_row(void *user, struct tb_disk_row *row)
{
    struct edit *e = user;
    row->modseq = e->modseq;
    count(e->x, e->m, e->a, row, 1);
    return TB_EDIT_CHANGED;
}

/* publish: all that is staged counts from now on. */
static void publish(struct tb_applier *x, const struct tb_record *r, const struct tb_pay_copy *p, struct open_mbox *dst,
                    struct tb_disk_acct *a, uint32_t end)
{
    struct tb_pay_copy_sums s;
    if (!(r->flags & TB_COPY_SUMS) || !fixed(tb_slice_sub(r->payload, sizeof(*p), SIZE_MAX), &s, sizeof(s))) {
        struct tb_range all = {dst->row.uidnext, end - 1};
        struct edit e = {.x = x, .m = dst, .a = a, .modseq = p->dst_modseq};
        tb_rows_edit(x->ix, r->acct, p->dst, &all, 1, publish_row, &e);
        return;
    }
    dst->row.messages += dst->row.staged;
    dst->row.unseen += s.unseen;
    dst->row.deleted += s.deleted;
    dst->row.bytes += s.bytes;
    a->messages += dst->row.staged;
    a->bytes += s.bytes;
    x->state.messages += dst->row.staged;
    x->state.raw_bytes += s.bytes;
}

/* copied: the messages from the old end of dst to uid are there: visible, or staged, or with them all that is. */
static void copied(struct tb_applier *x, const struct tb_record *r, const struct tb_pay_copy *p, struct open_mbox *dst,
                   struct tb_disk_acct *a, uint32_t uid)
{
    bool was = dst->row.staged != 0;
    if (r->flags & TB_COPY_STAGED)
        dst->row.staged += uid - p->dst_uid;
    if (r->flags & TB_COPY_COMMIT && dst->row.staged > 0) {
        publish(x, r, p, dst, a, uid);
        dst->row.staged = 0;
    }
    x->state.staged += (uint64_t)(dst->row.staged != 0) - was;
    x->dirty_pages += (uid - p->dst_uid) / 8;
    if (r->flags & TB_COPY_STAGED && !(r->flags & TB_COPY_COMMIT))
        return;
    dst->row.uidnext = uid;
    dst->row.highestmodseq = a->modseq = p->dst_modseq;
}

static enum tb_rc apply_copy(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_copy p;
    struct open_mbox dst, src;
    struct tb_disk_acct a;
    if (!fixed(r->payload, &p, sizeof(p)) || !mbox_load(x, r->acct, p.dst, &dst) || !tb_acct_get(x->ix, r->acct, &a) ||
        p.dst_uid < dst.row.uidnext + dst.row.staged || (dst.row.staged != 0 && !(r->flags & TB_COPY_STAGED)) ||
        (dst.row.staged != 0 && p.dst_uid != dst.row.uidnext + dst.row.staged))
        return TB_CORRUPT;
    size_t sums = r->flags & TB_COPY_SUMS ? sizeof(struct tb_pay_copy_sums) : 0;
    struct tb_range *v = ranges_of(r->payload, sizeof(p) + sums, p.n);
    if (v == NULL)
        return TB_CORRUPT;
    uint32_t uid = p.dst_uid;
    bool good = true;
    for (uint32_t i = 0; good && i < p.n; i++)
        good = copy_range(x, &p, r, &dst, &a, v[i], &uid);
    copied(x, r, &p, &dst, &a, uid);
    mbox_save(x, &dst);
    if (good && r->flags & TB_COPY_MOVE) {
        good = mbox_load(x, r->acct, p.src, &src);
        if (good) {
            struct edit e = {.x = x, .m = &src, .a = &a};
            remove_ranges(&e, v, p.n, p.src_modseq);
            mbox_save(x, &src);
        }
    }
    tb_acct_put(x->ix, r->acct, &a);
    free(v);
    return good ? TB_OK : TB_CORRUPT;
}

/* ---- mailboxes ---- */

static enum tb_rc apply_mbox(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_mbox p;
    struct tb_disk_acct a;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    struct tb_slice leaf = tb_slice(r->payload.ptr + sizeof(p), r->payload.len - sizeof(p));
    if (leaf.len > TB_MBOX_LEAF_MAX)
        return TB_CORRUPT;
    struct tb_disk_mbox m = {.parent = p.parent,
                             .uidvalidity = p.uidvalidity,
                             .uidnext = 1,
                             .highestmodseq = p.modseq,
                             .chg_floor = p.modseq,
                             .mailboxid = p.mailboxid,
                             .created_modseq = p.modseq,
                             .special = p.special,
                             .flags = p.flags};
    struct tb_disk_mbox old; /* of a creation that a crash cut short, or the \Noselect name that it replaces */
    bool counted = tb_mbox_get(x->ix, r->acct, p.mbox, &old, NULL) && !(old.flags & TB_MBOX_NOSELECT);
    if (!counted && !(p.flags & TB_MBOX_NOSELECT))
        tb_apply_count_mailbox(x, &a, 1);
    tb_mbox_put(x->ix, r->acct, p.mbox, &m, leaf.ptr, leaf.len);
    tree_put(x->ix, r->acct, p.parent, leaf, p.mbox);
    a.modseq = p.modseq;
    if (p.mbox >= a.next_mbox)
        a.next_mbox = p.mbox + 1;
    tb_acct_put(x->ix, r->acct, &a);
    if (p.uidvalidity > x->state.uidvalidity_max)
        x->state.uidvalidity_max = p.uidvalidity;
    x->dirty_pages += 8;
    return TB_OK;
}

static enum tb_rc apply_rename(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_rename p;
    struct open_mbox m;
    struct tb_disk_acct a;
    if (!fixed(r->payload, &p, sizeof(p)) || !mbox_load(x, r->acct, p.mbox, &m) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    struct tb_slice leaf = tb_slice(r->payload.ptr + sizeof(p), r->payload.len - sizeof(p));
    if (leaf.len > TB_MBOX_LEAF_MAX)
        return TB_CORRUPT;
    tree_del(x->ix, r->acct, m.row.parent, tb_slice(m.leaf, m.leaf_len));
    tree_put(x->ix, r->acct, p.parent, leaf, p.mbox);
    m.row.parent = p.parent;
    m.row.highestmodseq = a.modseq = p.modseq;
    tb_mbox_put(x->ix, r->acct, p.mbox, &m.row, leaf.ptr, leaf.len);
    tb_acct_put(x->ix, r->acct, &a);
    return TB_OK;
}

static enum tb_rc apply_sub(struct tb_applier *x, const struct tb_record *r)
{
    /* A name longer than a key is refused before it is logged: tb_mailbox_subscribe. */
    struct tb_key k = key_u32(r->acct);
    tb_key_bytes(&k, r->payload);
    if (r->flags & TB_SUB_ON)
        tb_index_put(x->ix, TB_DB_SUB, tb_key_slice(&k), tb_slice(NULL, 0));
    else
        tb_index_del(x->ix, TB_DB_SUB, tb_key_slice(&k));
    return TB_OK;
}

static enum tb_rc apply_keyword(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_keyword p;
    struct open_mbox m;
    if (!fixed(r->payload, &p, sizeof(p)) || p.bit >= TB_KEYWORDS_MAX || !mbox_load(x, r->acct, p.mbox, &m))
        return TB_CORRUPT;
    struct tb_key k = key2(r->acct, p.mbox);
    tb_key_u16(&k, (uint16_t)p.bit);
    tb_index_put(x->ix, TB_DB_KEYWORD, tb_key_slice(&k),
                 tb_slice(r->payload.ptr + sizeof(p), r->payload.len - sizeof(p)));
    if (p.bit >= m.row.keywords_n)
        m.row.keywords_n = p.bit + 1;
    mbox_save(x, &m);
    return TB_OK;
}

/* ---- accounts ---- */

static enum tb_rc apply_acct(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_acct p;
    if (!fixed(r->payload, &p, sizeof(p)) || r->payload.len - sizeof(p) > TB_NAME_MAX)
        return TB_CORRUPT;
    struct tb_disk_acct a = {.modseq = p.modseq, .next_mbox = TB_MBOX_INBOX, .mailboxes = 1}, old;
    struct tb_key k = key_u32(r->acct);
    if (tb_acct_get(x->ix, r->acct, &old))
        a.mailboxes = old.mailboxes; /* of a creation that a crash cut short */
    else
        x->state.accounts++;
    tb_index_put2(x->ix, TB_DB_ACCT, tb_key_slice(&k), tb_slice(&a, sizeof(a)),
                  tb_slice(r->payload.ptr + sizeof(p), r->payload.len - sizeof(p)));
    return TB_OK;
}

static enum tb_rc apply_place(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_place p;
    if (!fixed(r->payload, &p, sizeof(p)) || p.name_len + (size_t)p.secret_len != r->payload.len - sizeof(p))
        return TB_CORRUPT;
    struct tb_key k = key_u32(r->acct);
    tb_index_put(x->ix, TB_DB_PLACE, tb_key_slice(&k), r->payload);
    if (r->acct >= x->state.next_acct)
        x->state.next_acct = r->acct + 1;
    return TB_OK;
}

/* ---- queue ---- */

static enum tb_rc apply_queue(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_key k = key_u64(r->lsn);
    char v[4];
    tb_put_le32(v, (uint32_t)r->payload.len);
    tb_index_put(x->ix, TB_DB_QUEUE, tb_key_slice(&k), tb_slice(v, 4));
    return TB_OK;
}

static enum tb_rc apply_queue_done(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_queue_done p;
    if (!fixed(r->payload, &p, sizeof(p)))
        return TB_CORRUPT;
    struct tb_key k = key_u64(p.queue);
    tb_index_del(x->ix, TB_DB_QUEUE, tb_key_slice(&k));
    return TB_OK;
}

static enum tb_rc apply_forget(struct tb_applier *x, const struct tb_record *r)
{
    if (r->payload.len != 16)
        return TB_CORRUPT;
    tb_index_del(x->ix, TB_DB_DONE, r->payload);
    return TB_OK;
}

static enum tb_rc apply_chunk(struct tb_applier *x, const struct tb_record *r)
{
    (void)x;
    return r->payload.len < sizeof(struct tb_pay_chunk) ? TB_CORRUPT : TB_OK;
}

static enum tb_rc apply_dict(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_disk_dict row;
    struct tb_key k;
    bool retired = r->flags & TB_DICT_RETIRED;
    if (!fixed(r->payload, &row, sizeof(row)) || (retired ? 0 : row.len) != r->payload.len - sizeof(row) ||
        row.id < TB_DICT_TRAINED_MIN || row.id > TB_DICT_TRAINED_MAX || row.role >= TB_ROLES)
        return TB_CORRUPT;
    row.lsn = r->lsn + sizeof(row);
    tb_key_begin(&k);
    tb_key_u16(&k, row.id);
    if (retired)
        tb_index_del(x->ix, TB_DB_DICT, tb_key_slice(&k));
    else
        tb_index_put(x->ix, TB_DB_DICT, tb_key_slice(&k), tb_slice(&row, sizeof(row)));
    return TB_OK;
}

static enum tb_rc apply_time(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_time p;
    if (!fixed(r->payload, &p, sizeof(p)))
        return TB_CORRUPT;
    x->state.time_ms = p.ms;
    return TB_OK;
}

static enum tb_rc apply_quarantine(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_quarantine p;
    struct tb_blob_row row;
    size_t len;
    if (!fixed(r->payload, &p, sizeof(p)))
        return TB_CORRUPT;
    if (r->flags & TB_QUARANTINE_LIFTED)
        bad_forget(x, p.blob);
    else if (blob_get(x, p.blob, &row, &len))
        bad_put(x, p.blob, &p.bad);
    return TB_OK;
}

/* ---- for apply_trash.c ---- */

bool tb_apply_mbox_load(struct tb_applier *x, uint32_t acct, uint32_t mbox, struct open_mbox *m)
{
    return mbox_load(x, acct, mbox, m);
}

void tb_apply_mbox_save(struct tb_applier *x, const struct open_mbox *m)
{
    mbox_save(x, m);
}

void tb_apply_count(struct tb_applier *x, struct open_mbox *m, struct tb_disk_acct *a, const struct tb_disk_row *r,
                    int sign)
{
    count(x, m, a, r, sign);
}

void tb_apply_count_mailbox(struct tb_applier *x, struct tb_disk_acct *a, int sign)
{
    x->state.mailboxes += (uint64_t)(int64_t)sign;
    if (a->mailboxes != 0)
        a->mailboxes += (uint32_t)sign;
}

void tb_apply_unref(struct tb_applier *x, uint64_t blob)
{
    blob_unref(x, blob);
}

void tb_apply_tree_put(struct tb_applier *x, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t mbox)
{
    tree_put(x->ix, acct, parent, leaf, mbox);
}

void tb_apply_tree_del(struct tb_applier *x, uint32_t acct, uint32_t parent, struct tb_slice leaf)
{
    tree_del(x->ix, acct, parent, leaf);
}

static enum tb_rc (*const appliers[])(struct tb_applier *x, const struct tb_record *r) = {
    [TB_REC_BLOB] = apply_blob,
    [TB_REC_CHUNK] = apply_chunk,
    [TB_REC_ADD] = apply_add,
    [TB_REC_FLAGS] = apply_flags,
    [TB_REC_EXPUNGE] = apply_expunge,
    [TB_REC_COPY] = apply_copy,
    [TB_REC_MBOX] = apply_mbox,
    [TB_REC_MBOX_DELETE] = tb_apply_mbox_delete,
    [TB_REC_RENAME] = apply_rename,
    [TB_REC_SUB] = apply_sub,
    [TB_REC_KEYWORD] = apply_keyword,
    [TB_REC_ACCT] = apply_acct,
    [TB_REC_ACCT_DELETE] = tb_apply_acct_delete,
    [TB_REC_PLACE] = apply_place,
    [TB_REC_UNPLACE] = tb_apply_unplace,
    [TB_REC_PURGE] = tb_apply_purge,
    [TB_REC_QUEUE] = apply_queue,
    [TB_REC_QUEUE_DONE] = apply_queue_done,
    [TB_REC_FORGET] = apply_forget,
    [TB_REC_TIME] = apply_time,
    [TB_REC_SKIP] = tb_apply_skip,
    [TB_REC_ANNOT] = tb_apply_annot,
    [TB_REC_QUOTA] = tb_apply_quota,
    [TB_REC_DICT] = apply_dict,
    [TB_REC_QUARANTINE] = apply_quarantine,
    [TB_REC_UNEXPUNGE] = tb_apply_unexpunge,
    [TB_REC_UNDELETE] = tb_apply_undelete,
    [TB_REC_RULE] = tb_apply_rule,
    [TB_REC_MOVED] = tb_apply_moved,
    [TB_REC_TRIM] = tb_apply_trim,
    [TB_REC_SEGMENT] = tb_apply_segment,
    [TB_REC_ACL] = tb_apply_acl,
};

enum tb_rc tb_apply(struct tb_applier *x, const struct tb_record *r)
{
    x->dirty_pages += 3;
    if (r->type >= TB_ARRAY_LEN(appliers) || appliers[r->type] == NULL)
        return TB_CORRUPT; /* a type that this format does not have */
    enum tb_rc rc = appliers[r->type](x, r);
    x->dirty_pages += x->dirty_bytes / (TB_BLOCK / 2);
    x->dirty_bytes %= TB_BLOCK / 2;
    return tb_index_rc(x->ix) != TB_OK ? tb_index_rc(x->ix) : rc;
}

void tb_apply_frame_end(struct tb_applier *x)
{
    x->frame_blob = 0;
    x->frame_cache_data = NULL;
    x->frame_cache.clen = 0;
}
