/*
 * apply_gc.c: the part of tb_apply that GC's records need: bytes that moved, segments counted anew or gone, change logs
 * that were trimmed. As apply.c: nothing but the record and the index (S9).
 *
 * A MOVED that finds the index naming another place is without effect, but for its bytes being there: whoever logged it
 * looked first, and so does every replay. Thread: the shard's owner.
 */
#include "engine/store/shard.h"

static struct tb_key key_u64(uint64_t a)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, a);
    return k;
}

/* ---- MOVED ---- */

/* move_piece: a piece of a row from one place to another; the segments' counters and the shard's follow. */
static void move_piece(struct tb_applier *x, struct tb_disk_piece *at, const struct tb_disk_piece *to, uint64_t lsn)
{
    tb_seg_add(x, at->lsn, 0, -(int64_t)at->clen);
    tb_seg_add(x, lsn, 0, to->clen);
    x->state.stored_bytes += to->clen - (uint64_t)at->clen;
    *at = *to;
    at->lsn = lsn;
}

static void moved_blob(struct tb_applier *x, const struct tb_pay_moved *p, uint64_t head_lsn, uint64_t own_lsn)
{
    struct tb_key k = key_u64(p->blob);
    struct tb_slice v;
    struct tb_blob_row row = {0};
    if (!tb_index_get(x->ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len < sizeof(row.blob) || v.len > sizeof(row))
        return;
    size_t len = v.len;
    memcpy(&row, v.ptr, len);
    if (row.blob.head.lsn != p->head_from)
        return;
    move_piece(x, &row.blob.head, &p->head, head_lsn);
    if (p->own_from != 0 && row.blob.flags & TB_BLOB_OWN_BODY && row.own.lsn == p->own_from)
        move_piece(x, &row.own, &p->own, own_lsn);
    tb_index_put(x->ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&row, len));
}

static void moved_piece(struct tb_applier *x, const struct tb_pay_moved *p, uint64_t lsn)
{
    struct tb_key k = key_u64(p->body), kx = k;
    struct tb_slice v;
    struct tb_disk_body body;
    struct tb_disk_piece list[TB_BODYX_PIECES];
    size_t i = p->index % TB_BODYX_PIECES;
    tb_key_u32(&kx, p->index / TB_BODYX_PIECES);
    if (!tb_index_get(x->ix, TB_DB_BODY, tb_key_slice(&k), &v) || v.len < sizeof(body))
        return;
    memcpy(&body, v.ptr, sizeof(body));
    if (!tb_index_get(x->ix, TB_DB_BODYX, tb_key_slice(&kx), &v) || v.len > sizeof(list) ||
        v.len < (i + 1) * sizeof(list[0]))
        return;
    size_t len = v.len;
    memcpy(list, v.ptr, len);
    if (list[i].lsn != p->own_from)
        return;
    body.stored_bytes += p->own.clen - (uint64_t)list[i].clen;
    move_piece(x, &list[i], &p->own, lsn);
    tb_index_put(x->ix, TB_DB_BODYX, tb_key_slice(&kx), tb_slice(list, len));
    tb_index_put(x->ix, TB_DB_BODY, tb_key_slice(&k), tb_slice(&body, sizeof(body)));
}

enum tb_rc tb_apply_moved(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_moved p;
    struct tb_slice rest = r->payload;
    if (!tb_moved_decode(&rest, r->flags, &p) || p.pieces > rest.len / sizeof(struct tb_disk_piece))
        return TB_CORRUPT;
    rest = tb_slice_sub(rest, p.pieces * sizeof(struct tb_disk_piece), rest.len);
    if (p.rows_len > rest.len)
        return TB_CORRUPT;
    rest = tb_slice_sub(rest, p.rows_len, rest.len);
    if (rest.len != (size_t)p.head.clen + p.own.clen)
        return TB_CORRUPT;
    uint64_t lsn = r->lsn + (uint64_t)(rest.ptr - r->payload.ptr);
    tb_seg_add(x, lsn, (int64_t)rest.len, 0);
    x->dirty_pages += 3;
    if (r->flags & TB_MOVED_PIECE)
        moved_piece(x, &p, lsn + p.head.clen);
    else
        moved_blob(x, &p, lsn, lsn + p.head.clen);
    return TB_OK;
}

/* ---- SEGMENT ---- */

enum tb_rc tb_apply_segment(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_segment p;
    if (r->payload.len < sizeof(p))
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    for (size_t i = 0; i < x->seg_n; i++) /* what is counted there is counted anew */
        if (x->seg[i].segment == p.segment)
            x->seg[i].total = x->seg[i].live = 0;
    struct tb_key k;
    struct tb_disk_seg row = {.total = p.total, .live = p.live};
    tb_key_begin(&k);
    tb_key_u32(&k, p.segment);
    if (r->flags & TB_SEGMENT_FREED)
        tb_index_del(x->ix, TB_DB_SEG, tb_key_slice(&k));
    else
        tb_index_put(x->ix, TB_DB_SEG, tb_key_slice(&k), tb_slice(&row, sizeof(row)));
    return TB_OK;
}

/* ---- TRIM ---- */

/* trim_blocks: blocks of changes that lie wholly at or below the floor. */
static void trim_blocks(struct tb_applier *x, uint32_t acct, uint32_t mbox, uint64_t floor)
{
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u32(&key, acct);
    tb_key_u32(&key, mbox);
    while (tb_index_ge(x->ix, TB_DB_CHG, tb_key_slice(&key), 8, &k, &v) && v.len >= sizeof(struct tb_disk_chg)) {
        struct tb_disk_chg h;
        struct tb_key found;
        memcpy(&h, v.ptr, sizeof(h));
        if (h.last_modseq > floor)
            return;
        tb_key_begin(&found);
        tb_key_bytes(&found, k);
        tb_index_del(x->ix, TB_DB_CHG, tb_key_slice(&found));
        x->dirty_pages += 2;
    }
}

enum tb_rc tb_apply_trim(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_trim p;
    struct tb_disk_mbox m;
    struct tb_slice leaf;
    char name[TB_MBOX_LEAF_MAX];
    if (r->payload.len < sizeof(p))
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    if (!tb_mbox_get(x->ix, r->acct, p.mbox, &m, &leaf) || leaf.len > sizeof(name))
        return TB_CORRUPT;
    size_t len = leaf.len;
    memcpy(name, leaf.ptr, len);
    if (p.floor > m.chg_floor) {
        trim_blocks(x, r->acct, p.mbox, p.floor);
        m.chg_floor = p.floor;
    }
    tb_mbox_put(x->ix, r->acct, p.mbox, &m, name, len);
    struct tb_range day = {p.day, p.day};
    if (p.day != 0)
        tb_chg_append(x->ix, r->acct, p.mbox, m.highestmodseq, TB_CHG_DAY, &day, 1);
    return TB_OK;
}
