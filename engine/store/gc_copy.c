/*
 * gc_copy.c: what GC does off the owner's thread: read a segment's frames for what they say about its messages, and
 * make new compressed pieces of old ones.
 *
 * Nothing is believed: a piece must match its checksum (read again past the page cache before a mismatch counts, R19)
 * and inflate; what is compressed anew must inflate to the same bytes, else the old bytes are kept. What cannot be read
 * is marked bad and stays where it is. Touches no index and no log state; files are read only. Thread: a helper, one at
 * a time for each shard.
 */
#include "engine/store/gc.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/crypto/crypto.h"
#include "engine/store/delivery_format.h"

enum { READ_SLICE = 4 << 20 };

/* ---- hints: which messages refer to which blob, as the log said when it was written ---- */

static int by_blob(const void *a, const void *b)
{
    const struct gc_item *x = a, *y = b;
    if (x->piece != y->piece)
        return x->piece ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* item_of: the blob's item; items of blobs come first and ascend, as the index gave them. */
static struct gc_item *item_of(struct tb_gc *gc, uint64_t blob)
{
    struct gc_item want = {.id = blob};
    return gc->items == 0 ? NULL : bsearch(&want, gc->item, gc->items, sizeof(want), by_blob);
}

static void hint_add(struct tb_gc *gc, uint64_t blob, uint32_t acct, uint32_t mbox, uint32_t uid)
{
    struct gc_item *item = item_of(gc, blob);
    if (item == NULL || gc->hints == GC_HINTS_MAX)
        return;
    if (gc->hints == gc->hints_cap) {
        size_t cap = gc->hints_cap ? 2 * gc->hints_cap : 1024;
        struct gc_hint *v = realloc(gc->hint, cap * sizeof(*v));
        if (v == NULL)
            return; /* only the order of writing suffers, and what can be told without the index */
        gc->hint = v;
        gc->hints_cap = cap;
    }
    gc->hint[gc->hints++] = (struct gc_hint){blob, acct, mbox, uid};
    if (item->acct == 0) {
        item->acct = acct;
        item->mbox = mbox;
        item->uid = uid;
    }
}

static void hints_of_moved(struct tb_gc *gc, const struct tb_record *r)
{
    struct tb_pay_moved p;
    struct tb_slice rest = r->payload;
    if (!tb_moved_decode(&rest, r->flags, &p) || r->flags & TB_MOVED_PIECE ||
        p.pieces > rest.len / sizeof(struct tb_disk_piece))
        return;
    struct gc_item *item = item_of(gc, p.blob);
    if (item == NULL)
        return;
    if (r->flags & TB_MOVED_HASHED) {
        memcpy(item->sha256, p.sha256, sizeof(item->sha256));
        item->hashed = true;
    }
    rest = tb_slice_sub(rest, p.pieces * sizeof(struct tb_disk_piece), p.rows_len);
    for (uint32_t i = 0; i < p.rows; i++) {
        struct tb_moved_row row;
        struct tb_slice name;
        if (!tb_moved_row_decode(&rest, &row))
            return;
        for (uint32_t k = 0; k < row.keywords_n; k++)
            if (!tb_moved_keyword(&rest, &name))
                return;
        hint_add(gc, p.blob, row.acct, row.mbox, row.row.uid);
    }
}

static enum tb_rc hint_record(void *user, const struct tb_record *r)
{
    struct tb_gc *gc = user;
    struct tb_slice rest = r->payload;
    struct tb_pay_add add;
    struct tb_pay_blob blob;
    if (r->type == TB_REC_ADD && tb_add_decode(&rest, r->flags, &add))
        hint_add(gc, add.row.blob, r->acct, add.mbox, add.row.uid);
    else if (r->type == TB_REC_MOVED)
        hints_of_moved(gc, r);
    else if (r->type == TB_REC_BLOB && tb_blob_decode(&rest, &blob)) {
        struct gc_item *item = item_of(gc, blob.blob);
        if (item != NULL) {
            memcpy(item->sha256, blob.sha256, sizeof(item->sha256));
            item->hashed = true;
        }
    }
    return TB_OK;
}

static int by_hint(const void *a, const void *b)
{
    const struct gc_hint *x = a, *y = b;
    return x->blob < y->blob ? -1 : x->blob > y->blob;
}

static int by_message(const void *a, const void *b)
{
    const struct gc_item *x = a, *y = b;
    if (x->acct != y->acct)
        return x->acct < y->acct ? -1 : 1;
    if (x->mbox != y->mbox)
        return x->mbox < y->mbox ? -1 : 1;
    if (x->uid != y->uid)
        return x->uid < y->uid ? -1 : 1;
    uint64_t xl = x->piece ? x->own.lsn : x->head.lsn, yl = y->piece ? y->own.lsn : y->head.lsn;
    return xl < yl ? -1 : xl > yl;
}

/* order: everything was read: items in the order of mailboxes, hints by blob. */
static void order(struct tb_gc *gc)
{
    if (gc->items > 1)
        qsort(gc->item, gc->items, sizeof(*gc->item), by_message);
    if (gc->hints > 1)
        qsort(gc->hint, gc->hints, sizeof(*gc->hint), by_hint);
}

/* tb_gc_read_work: one slice of one victim; op->result 1 when all were read. */
void tb_gc_read_work(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    struct tb_error err = {0};
    enum tb_rc rc = TB_OK;
    gc->step_bytes = 0;
    while (gc->walking < gc->victims && (gc->victim[gc->walking].items == 0 || gc->victim[gc->walking].was_read))
        gc->walking++;
    op->result = gc->walking == gc->victims;
    if (op->result == 1) {
        order(gc);
        return;
    }
    struct gc_victim *v = &gc->victim[gc->walking];
    if (gc->walk == NULL)
        rc = tb_log_walk_open(gc->s->log, v->segment, &gc->walk, &err);
    if (rc == TB_OK)
        rc = tb_log_walk_some(gc->walk, READ_SLICE, hint_record, gc, &err);
    gc->step_bytes = READ_SLICE;
    if (rc == TB_OK)
        return;
    /* Its messages are found through the index, so a frame that cannot be read costs only what it would have told. */
    if (rc != TB_NOTFOUND)
        tb_log(TB_LOG_ERROR, "shard=%u gc: %s", gc->s->number, err.text);
    v->was_read = true;
    tb_log_walk_close(gc->walk);
    gc->walk = NULL;
}

/* ---- copying ---- */

/* read_at: bytes of a piece, wherever it lies. */
static int64_t read_at(struct tb_gc *gc, void *buf, size_t len, uint64_t lsn, bool direct)
{
    struct tb_shard *s = gc->s;
    uint64_t segment_bytes = s->x.segment_bytes;
    for (size_t i = 0; i < gc->victims && !direct; i++) {
        struct gc_victim *v = &gc->victim[i];
        if (v->segment != lsn / segment_bytes || lsn % segment_bytes + len > segment_bytes)
            continue;
        if (v->fd < 0)
            v->fd = tb_log_segment_open(s->log, v->segment);
        return v->fd < 0 ? v->fd : tb_io_pread(s->worker->io, v->fd, buf, len, lsn % segment_bytes);
    }
    return tb_log_read_now(s->log, buf, len, lsn, true);
}

/* fetch: the piece's compressed bytes, checked; NULL: they cannot be had, or there is no memory. */
static const char *fetch(struct tb_gc *gc, const struct tb_disk_piece *p, uint8_t *why)
{
    struct gc_batch *b = &gc->batch;
    *why = TB_BAD_ROW;
    if (p->clen > TB_PIECE_CLEN_MAX || p->raw_len > TB_PIECE_RAW_MAX)
        return NULL;
    b->comp.len = 0;
    char *comp = tb_buf_reserve(&b->comp, p->clen + 1u);
    if (comp == NULL)
        return NULL;
    for (int again = 0; again < 2; again++) { /* R19: past the page cache before it is believed */
        int64_t n = read_at(gc, comp, p->clen, p->lsn, again);
        if (n == (int64_t)p->clen && tb_crc32c(0, comp, p->clen) == p->crc)
            return comp;
        *why = n == (int64_t)p->clen ? TB_BAD_CHECKSUM : TB_BAD_READ;
    }
    return NULL;
}

/* squeeze: raw compressed anew to the end of out, if that is smaller and gives the same bytes again; else as it was. */
static bool squeeze(struct tb_gc *gc, enum tb_codec_role role, struct tb_slice raw, const char *comp,
                    const struct tb_disk_piece *was, struct tb_disk_piece *now)
{
    struct gc_batch *b = &gc->batch;
    size_t bound = tb_codec_bound(raw.len);
    char *out = tb_buf_reserve(&b->out, bound > was->clen ? bound : was->clen);
    b->check.len = 0;
    char *check = tb_buf_reserve(&b->check, raw.len + 1);
    if (out == NULL || check == NULL)
        return false;
    *now = *was;
    now->lsn = 0;
    now->flags |= TB_PIECE_PACKED;
    bool packed = was->flags & TB_PIECE_PACKED || raw.len == 0;
    size_t n = packed ? 0 : tb_codec_compress(gc->codec, role, gc->all ? GC_LEVEL_ALL : GC_LEVEL, raw, out, &now->dict);
    if (!packed && n < was->clen &&
        tb_codec_decompress(gc->codec, now->dict, tb_slice(out, n), check, raw.len) == TB_OK &&
        memcmp(check, raw.ptr, raw.len) == 0) {
        now->clen = (uint32_t)n;
        now->crc = tb_crc32c(0, out, n);
    } else {
        now->dict = was->dict;
        memcpy(out, comp, was->clen);
    }
    b->out.len += now->clen;
    return true;
}

/* one_piece: the piece's bytes behind those in raw, and its new form behind those in out. */
static bool one_piece(struct tb_gc *gc, struct gc_item *item, enum tb_codec_role role, const struct tb_disk_piece *was,
                      struct tb_disk_piece *now)
{
    struct gc_batch *b = &gc->batch;
    item->bad_lsn = was->lsn;
    const char *comp = fetch(gc, was, &item->bad_why);
    item->bad_why = comp != NULL ? TB_BAD_INFLATE : item->bad_why;
    char *raw = comp != NULL ? tb_buf_reserve(&b->raw, was->raw_len + 1u) : NULL;
    enum tb_rc rc = raw == NULL
                        ? TB_CORRUPT
                        : tb_codec_decompress(gc->codec, was->dict, tb_slice(comp, was->clen), raw, was->raw_len);
    item->skipped = rc == TB_NOTFOUND || rc == TB_LIMIT; /* its dictionary is missing: it is not bad, and stays */
    if (rc != TB_OK)
        return false;
    b->raw.len += was->raw_len;
    b->bytes += was->clen;
    return squeeze(gc, role, tb_slice(raw, was->raw_len), comp, was, now);
}

static bool one_item(struct tb_gc *gc, struct gc_item *item, size_t i)
{
    struct gc_batch *b = &gc->batch;
    b->raw.len = 0;
    b->head[i] = b->own[i] = (struct tb_disk_piece){0};
    if (!item->piece && !one_piece(gc, item, TB_ROLE_HEADER, &item->head, &b->head[i]))
        return false;
    if (item->own.lsn != 0 && !one_piece(gc, item, TB_ROLE_BODY, &item->own, &b->own[i]))
        return false;
    if (item->whole) { /* the whole message is at hand: its hash need not be believed */
        struct tb_sha256 sha;
        tb_sha256_init(&sha);
        tb_sha256_update(&sha, b->raw.ptr, b->raw.len);
        tb_sha256_final(&sha, item->sha256);
        item->hashed = true;
    }
    return true;
}

void tb_gc_copy_work(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    struct gc_batch *b = &gc->batch;
    uint64_t raw = 0;
    b->n = b->done = 0;
    b->out.len = 0;
    b->bytes = 0;
    while (gc->cursor < gc->items && b->n < GC_BATCH_ITEMS && raw < GC_BATCH_RAW) {
        struct gc_item *item = &gc->item[gc->cursor++];
        size_t before = b->out.len;
        raw += item->head.raw_len + (uint64_t)item->own.raw_len;
        if (!one_item(gc, item, b->n)) {
            b->out.len = before;
            item->skipped = item->skipped || b->out.failed || b->comp.failed || b->raw.failed || b->check.failed;
            item->bad = !item->skipped;
        }
        b->comp.failed = b->raw.failed = b->check.failed = b->out.failed = false;
        b->at[b->n] = before;
        b->item[b->n++] = item;
    }
    b->bytes += b->out.len;
    gc->step_bytes = b->bytes;
    op->result = 0;
}
