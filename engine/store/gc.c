/*
 * gc.c: segment garbage collection of one shard: messages move out of segments that are mostly dead, and the segments
 * are freed.
 *
 *   IDLE --victims found--> SCAN: which rows point into them? --> READ (helper): what did the log say about those?
 *     ^                      |  nothing does: "clean"             --> COPY: batches (helper), each logged as MOVED
 *     '--none left-----------'<--------- the next pass's scan proves that the last one's victims are empty ------'
 *   clean --confirmed past the scan, no pin--> SEGMENT logged and durable --> freed
 *
 * The index decides what is live, never the counters: those only say where to look, and are put right when they are
 * wrong. A row is changed only if it still points to the old place. Copies keep the order of mailboxes, so a mailbox
 * that was read in pieces is read in one go afterwards, and are compressed better than a delivery has time for.
 *
 * Invariants
 * G1 a segment is freed only when a scan of every row that can name a log position found none in it, no unfinished
 * upload had chunks in it when the scan began, the confirmed checkpoint is at or past the scan's end, it lies below the
 * frame that checkpoint names, and no pin holds it (S6). So no row comes to point there after the scan: new rows name
 * what is being written, or chunks. G2 what cannot be read stays where it is, and its segment with it. G3 each MOVED
 * stands alone: a checkpoint or a crash may fall between any two. Thread: the shard's owner; gc_copy.c runs on a helper
 * while nothing here does.
 */
#include "engine/store/gc.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/store/hold.h"

enum {
    SCAN_ROWS = 512,
    MIN_DEAD = 40, /* percent */
    ROWS_BYTES_MAX = 4096,
    TIGHT_BYTES = 256 << 10,
    KEPT_S = 600,
    KEPT_CHUNKS_S = 5,
    KEPT_TIGHT_S = 1,
    KEPT_BAD_S = 86400,
    CLEAN_MAX = 1024, /* segments that are empty, and kept for the next backup */
    LIST_MAX = 4096   /* pieces of a body that are listed in a MOVED */
};
#define RATE (UINT64_C(8) << 20)
#define SCAN_PAUSE_NS UINT64_C(1000000)
#define BUSY_NS UINT64_C(2000000)
#define SECOND_NS UINT64_C(1000000000)
#define HELD_NS (20 * SECOND_NS) /* a run on demand waits so long for whoever holds segments */

static void pass_begin(struct tb_gc *gc);
static void copy_next(struct tb_gc *gc);
static void free_clean(struct tb_gc *gc);

/* ---- life ---- */

enum tb_rc tb_gc_open(struct tb_shard *s, struct tb_error *err)
{
    struct tb_gc *gc = calloc(1, sizeof(*gc));
    if (gc == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %u", s->number);
    gc->s = s;
    tb_buf_init(&gc->batch.out, 16u << 20);
    tb_buf_init(&gc->batch.comp, 4u << 20);
    tb_buf_init(&gc->batch.raw, 4u << 20);
    tb_buf_init(&gc->batch.check, 4u << 20);
    s->gc = gc;
    return TB_OK;
}

static void victims_close(struct tb_gc *gc)
{
    tb_log_walk_close(gc->walk);
    gc->walk = NULL;
    for (size_t i = 0; i < gc->victims; i++)
        if (gc->victim[i].fd >= 0)
            (void)tb_io_file_close(gc->s->worker->io, gc->victim[i].fd); /* read only */
    gc->victims = 0;
}

/* rest: nothing is under way: what a pass needed is given back. */
static void rest(struct tb_gc *gc)
{
    struct tb_buf *buf[] = {&gc->batch.out, &gc->batch.comp, &gc->batch.raw, &gc->batch.check};
    victims_close(gc);
    for (size_t i = 0; i < TB_ARRAY_LEN(buf); i++)
        tb_buf_free(buf[i]);
    free(gc->item);
    free(gc->hint);
    gc->item = NULL;
    gc->hint = NULL;
    gc->items = gc->items_cap = gc->hints = gc->hints_cap = gc->cursor = 0;
    gc->moved_n = 0;
    tb_codec_free(gc->codec);
    gc->codec = NULL;
    gc->phase = TB_GC_IDLE;
}

void tb_gc_close(struct tb_shard *s)
{
    struct tb_gc *gc = s->gc;
    if (gc == NULL)
        return;
    rest(gc);
    free(gc->clean);
    free(gc->kept);
    free(gc);
    s->gc = NULL;
}

void tb_gc_cancel(struct tb_shard *s)
{
    if (s->gc != NULL && s->gc->busy)
        tb_io_cancel(s->worker->io, &s->gc->op);
}

bool tb_gc_quiet(const struct tb_shard *s)
{
    return s->gc == NULL || (!s->gc->busy && !s->gc->freeing); /* its ops are in its own memory */
}

/* resumed: an op came back: may GC go on? */
static bool resumed(struct tb_gc *gc)
{
    gc->busy = false;
    if (!gc->s->failed && !gc->s->stopping && tb_index_rc(gc->s->ix) == TB_OK)
        return true;
    rest(gc);
    return false;
}

static void later(struct tb_gc *gc, uint64_t ns, void (*done)(struct tb_op *op))
{
    gc->busy = true;
    gc->op = (struct tb_op){.done = done, .user = gc};
    tb_io_timer(gc->s->worker->io, &gc->op, ns);
}

static void offload(struct tb_gc *gc, void (*work)(struct tb_op *op), void (*done)(struct tb_op *op))
{
    gc->busy = true;
    gc->op = (struct tb_op){.done = done, .user = gc};
    tb_io_offload(gc->s->worker->io, &gc->op, work);
}

static bool short_of_space(const struct tb_gc *gc)
{
    bool yes;
    (void)tb_log_space(gc->s->log, &yes);
    return yes;
}

/* throttle: how long to wait after the bytes of the last step. */
static uint64_t throttle(struct tb_gc *gc)
{
    uint64_t now = tb_io_now_ns(gc->s->worker->io), rate = gc->s->store->cfg.gc_rate;
    if (gc->until != 0 || short_of_space(gc))
        return 0;
    if (gc->next_ns < now)
        gc->next_ns = now;
    gc->next_ns += gc->step_bytes * SECOND_NS / (rate != 0 ? rate : RATE);
    return gc->next_ns - now;
}

/* ---- which segments ---- */

static uint32_t segment_of(const struct tb_gc *gc, uint64_t lsn)
{
    uint64_t segment = lsn / gc->s->x.segment_bytes;
    return segment < UINT32_MAX ? (uint32_t)segment : UINT32_MAX;
}

/* seg_get: the counters as they stand, what is not flushed yet included. */
static struct tb_disk_seg seg_get(const struct tb_gc *gc, uint32_t segment)
{
    const struct tb_applier *x = &gc->s->x;
    struct tb_disk_seg row = {0};
    struct tb_key k;
    struct tb_slice v;
    tb_key_begin(&k);
    tb_key_u32(&k, segment);
    if (tb_index_get(x->ix, TB_DB_SEG, tb_key_slice(&k), &v) && v.len >= sizeof(row))
        memcpy(&row, v.ptr, sizeof(row));
    for (size_t i = 0; i < x->seg_n; i++)
        if (x->seg[i].segment == segment) {
            row.total += (uint64_t)x->seg[i].total;
            row.live += (uint64_t)x->seg[i].live;
        }
    return row;
}

static bool is_clean(const struct tb_gc *gc, uint32_t segment)
{
    for (size_t i = 0; i < gc->clean_n; i++)
        if (gc->clean[i].segment == segment)
            return true;
    return gc->freeing && gc->freeing_segment == segment;
}

static bool is_victim(const struct tb_gc *gc, uint32_t segment)
{
    for (size_t i = 0; i < gc->victims; i++)
        if (gc->victim[i].segment == segment)
            return true;
    return false;
}

/* is_kept: it was tried, and could not be emptied, a while ago. */
static bool is_kept(struct tb_gc *gc, uint32_t segment)
{
    uint64_t now = tb_io_now_ns(gc->s->worker->io);
    for (size_t i = 0; i < gc->kept_n; i++) {
        if (gc->kept[i].until_ns <= now)
            gc->kept[i--] = gc->kept[--gc->kept_n];
        else if (gc->kept[i].segment == segment)
            return true;
    }
    return false;
}

static void keep(struct tb_gc *gc, uint32_t segment, uint64_t seconds)
{
    if (gc->kept_n == gc->kept_cap) {
        size_t cap = gc->kept_cap ? 2 * gc->kept_cap : 16;
        struct gc_kept *v = realloc(gc->kept, cap * sizeof(*v));
        if (v == NULL)
            return; /* it is tried again too soon */
        gc->kept = v;
        gc->kept_cap = cap;
    }
    gc->kept[gc->kept_n++] = (struct gc_kept){segment, tb_io_now_ns(gc->s->worker->io) + seconds * SECOND_NS};
}

static void victim_add(struct tb_gc *gc, uint32_t segment, uint64_t live)
{
    gc->victim[gc->victims++] = (struct gc_victim){.segment = segment, .live = live, .fd = -1};
}

struct candidate {
    uint32_t segment;
    uint64_t live;
    double score;
};

/* held_back: the next backup needs it: emptied now it would give no space back; later, less is left to move. */
static bool held_back(const struct tb_gc *gc, uint32_t segment)
{
    return !short_of_space(gc) && tb_hold_keeps(gc->s, segment);
}

/* worth: is it worth rewriting? *score: what is gained for what is read and written, older first. */
static bool worth(struct tb_gc *gc, uint32_t segment, uint64_t live, double *score)
{
    uint32_t min = gc->s->store->cfg.gc_min_dead;
    double u = (double)live / (double)gc->s->x.segment_bytes;
    double age = (double)(segment_of(gc, tb_log_end(gc->s->log)) - segment);
    *score = live == 0 ? 1e30 : (1 - u) * age / (1 + u);
    return live == 0 || gc->all || (1 - u) * 100 >= (min != 0 ? min : MIN_DEAD);
}

/* offer: the best so far, in order. */
static void offer(struct candidate *best, size_t *n, struct candidate c)
{
    size_t i = *n;
    if (i == GC_VICTIMS_MAX && best[i - 1].score >= c.score)
        return;
    if (i == GC_VICTIMS_MAX)
        i--;
    else
        (*n)++;
    for (; i > 0 && best[i - 1].score < c.score; i--)
        best[i] = best[i - 1];
    best[i] = c;
}

/*
 * room_left: how many live bytes may be moved now. *tight: there is no whole segment ahead, for the disk is full or the
 * next one is still being made: what is begun must end within the room, or it has moved for nothing.
 */
static uint64_t room_left(const struct tb_gc *gc, bool *tight)
{
    const struct tb_shard *s = gc->s;
    uint64_t space = tb_log_space(s->log, tight), reserve = tb_log_group_bytes_max(s->log) + TIGHT_BYTES;
    uint64_t room = space > reserve ? space - reserve : 0;
    *tight = *tight || space < s->x.segment_bytes;
    return room < s->x.segment_bytes ? room : s->x.segment_bytes;
}

/* pick: the next victims: at most a segment's worth of live bytes, and no more than there is room to write. */
static void pick(struct tb_gc *gc)
{
    struct tb_shard *s = gc->s;
    struct candidate best[GC_VICTIMS_MAX], c;
    size_t n = 0;
    bool tight, full = short_of_space(gc);
    uint64_t floor = tb_pin_floor(&s->pins) / s->x.segment_bytes, room = room_left(gc, &tight);
    uint32_t end = segment_of(gc, s->confirmed); /* those behind are written to, or recovery would read them */
    gc->left = false;
    gc->backs = 0;
    if (gc->until != 0 && segment_of(gc, gc->until) < end)
        end = segment_of(gc, gc->until);
    for (uint32_t at = 0; tb_log_next_segment(s->log, at, &c.segment) && c.segment < end; at = c.segment + 1) {
        uint64_t live = seg_get(gc, c.segment).live;
        c.live = live < s->x.segment_bytes ? live : s->x.segment_bytes;
        if (!worth(gc, c.segment, c.live, &c.score) || is_clean(gc, c.segment) || is_kept(gc, c.segment) ||
            is_victim(gc, c.segment))
            continue;
        if ((c.live != 0 || gc->clean_n >= CLEAN_MAX) && held_back(gc, c.segment)) {
            gc->backs++;
            continue;
        }
        if (c.live == 0 || (!full && gc->clean_n < GC_VICTIMS_MAX) || floor > c.segment)
            offer(best, &n, c);
        else {
            gc->left = true;
            tb_rotation_want(s); /* newer copies of the index need less of the log */
        }
    }
    for (size_t i = 0; i < n && gc->victims < GC_VICTIMS_MAX; i++) {
        if (best[i].live > room && (tight || gc->victims > gc->moved_n)) {
            gc->left = gc->left || tight;
            continue;
        }
        room -= best[i].live < room ? best[i].live : room;
        victim_add(gc, best[i].segment, best[i].live);
    }
}

/* ---- scanning: which rows point into the victims? ---- */

static struct gc_victim *victim_of(struct tb_gc *gc, uint64_t lsn)
{
    uint32_t segment = segment_of(gc, lsn);
    for (size_t i = 0; i < gc->victims; i++)
        if (gc->victim[i].segment == segment)
            return &gc->victim[i];
    return NULL;
}

/* found: piece p of an item lies in a victim. */
static void found(struct tb_gc *gc, const struct tb_disk_piece *p, bool taken)
{
    struct gc_victim *v = victim_of(gc, p->lsn);
    if (v == NULL)
        return;
    v->found += p->clen;
    v->items++;
    v->more = v->more || !taken;
}

static bool item_add(struct tb_gc *gc, const struct gc_item *item)
{
    if (gc->items == gc->items_cap) {
        size_t cap = gc->items_cap ? 2 * gc->items_cap : 1024;
        struct gc_item *v = cap <= GC_ITEMS_MAX ? realloc(gc->item, cap * sizeof(*v)) : NULL;
        if (v == NULL)
            return false;
        gc->item = v;
        gc->items_cap = cap;
    }
    gc->item[gc->items++] = *item;
    return true;
}

static void look_blob(struct tb_gc *gc, struct tb_slice k, struct tb_slice v)
{
    struct tb_blob_row row = {0};
    if (k.len != 8 || v.len < sizeof(row.blob) || v.len > sizeof(row))
        return;
    memcpy(&row, v.ptr, v.len);
    bool own = row.blob.flags & TB_BLOB_OWN_BODY && row.own.lsn != 0;
    if (victim_of(gc, row.blob.head.lsn) == NULL && (!own || victim_of(gc, row.own.lsn) == NULL))
        return;
    struct gc_item item = {.id = tb_get_be64(k.ptr), .head = row.blob.head, .whole = row.blob.flags & TB_BLOB_OWN_BODY};
    if (own)
        item.own = row.own;
    bool taken = item_add(gc, &item);
    found(gc, &item.head, taken);
    if (own)
        found(gc, &item.own, taken);
}

static void look_pieces(struct tb_gc *gc, struct tb_slice k, struct tb_slice v)
{
    struct gc_item item = {.piece = true};
    if (k.len != 12)
        return;
    item.id = tb_get_be64(k.ptr);
    for (uint32_t i = 0; (i + 1) * sizeof(item.own) <= v.len; i++) {
        memcpy(&item.own, v.ptr + i * sizeof(item.own), sizeof(item.own));
        item.index = tb_get_be32(k.ptr + 8) * TB_BODYX_PIECES + i;
        if (victim_of(gc, item.own.lsn) != NULL)
            found(gc, &item.own, item_add(gc, &item));
    }
}

static void look(struct tb_gc *gc, struct tb_slice k, struct tb_slice v)
{
    if (gc->scan_db == TB_DB_BLOB)
        look_blob(gc, k, v);
    else if (gc->scan_db == TB_DB_BODYX)
        look_pieces(gc, k, v);
    else if (k.len == 8 && victim_of(gc, tb_get_be64(k.ptr)) != NULL)
        victim_of(gc, tb_get_be64(k.ptr))->queued = true;
}

/* recount: a segment whose counter says other than its rows do is counted anew. What changed while the scan went on is
 * left to the next one; so is everything if a body went from its blob's row to its own (dedup.c): it was seen twice. */
static void recount(struct tb_gc *gc, const struct gc_victim *v)
{
    struct tb_shard *s = gc->s;
    struct tb_disk_seg now = seg_get(gc, v->segment);
    if (v->more || now.live != v->live || now.live == v->found || s->x.bodies_moved != gc->bodies_moved)
        return;
    struct tb_pay_segment p = {.segment = v->segment, .total = now.total, .live = v->found};
    if (tb_shard_admit(s, sizeof(p), 1, ADMIT_SMALL) != TB_OK)
        return;
    tb_log(TB_LOG_WARN, "shard=%u gc: segment %08x holds %llu live bytes, its counter said %llu: put right", s->number,
           v->segment, (unsigned long long)v->found, (unsigned long long)now.live);
    tb_shard_record(s, TB_REC_SEGMENT, 0, 0, tb_slice(&p, sizeof(p)), tb_slice(NULL, 0), tb_slice(NULL, 0));
    gc->repaired++;
}

static void clean_add(struct tb_gc *gc, uint32_t segment)
{
    if (gc->clean_n == gc->clean_cap) {
        size_t cap = gc->clean_cap ? 2 * gc->clean_cap : 16;
        struct gc_clean *v = realloc(gc->clean, cap * sizeof(*v));
        if (v == NULL)
            return; /* it is found again */
        gc->clean = v;
        gc->clean_cap = cap;
    }
    gc->clean[gc->clean_n++] = (struct gc_clean){segment, tb_log_end(gc->s->log)};
}

static void read_next(struct tb_op *op);

/* items_keep: only those in a victim: of the others there is no room, and nobody reads what the log said of them. */
static void items_keep(struct tb_gc *gc)
{
    size_t n = 0;
    for (size_t i = 0; i < gc->items; i++)
        if ((!gc->item[i].piece && victim_of(gc, gc->item[i].head.lsn) != NULL) ||
            (gc->item[i].own.lsn != 0 && victim_of(gc, gc->item[i].own.lsn) != NULL))
            gc->item[n++] = gc->item[i];
    gc->items = n;
}

/* scan_end: what is empty is clean; the others are emptied, as far as there is room. */
static void scan_end(struct tb_gc *gc)
{
    size_t n = 0;
    bool tight;
    uint64_t room = room_left(gc, &tight);
    gc->to_move = 0;
    for (size_t i = 0; i < gc->victims; i++) {
        struct gc_victim *v = &gc->victim[i];
        v->chunks = segment_of(gc, gc->chunk_floor) <= v->segment;
        recount(gc, v);
        if (v->items == 0 && !v->queued && !v->chunks)
            clean_add(gc, v->segment);
        else if (v->items == 0)
            keep(gc, v->segment, v->chunks ? KEPT_CHUNKS_S : KEPT_S);
        else if (tight && v->found > room)
            keep(gc, v->segment, KEPT_TIGHT_S);
        else {
            room -= v->found < room ? v->found : room;
            gc->to_move += v->found;
            gc->victim[n++] = *v;
        }
    }
    gc->victims = n;
    free_clean(gc);
    if (n == 0) {
        pass_begin(gc);
        return;
    }
    items_keep(gc);
    gc->phase = TB_GC_READ;
    gc->walking = 0;
    later(gc, 0, read_next);
}

static void scan_slice(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    struct tb_index *ix = gc->s->ix;
    struct tb_slice k, v;
    if (!resumed(gc))
        return;
    bool more = tb_index_ge(ix, gc->scan_db, tb_key_slice(&gc->scan_key), 0, &k, &v);
    for (int i = 0; more && i < SCAN_ROWS; i++) {
        look(gc, k, v);
        tb_key_begin(&gc->scan_key);
        tb_key_bytes(&gc->scan_key, k);
        more = tb_index_next(ix, gc->scan_db, 0, &k, &v);
    }
    tb_key_bytes(&gc->scan_key, tb_slice("\0", 1)); /* the very next key there could be */
    if (!more) {
        if (gc->scan_db == TB_DB_QUEUE) {
            scan_end(gc);
            return;
        }
        gc->scan_db = gc->scan_db == TB_DB_BLOB ? TB_DB_BODYX : TB_DB_QUEUE;
        tb_key_begin(&gc->scan_key);
        tb_key_bytes(&gc->scan_key, tb_slice("\0", 1));
    }
    later(gc, gc->until != 0 ? 0 : SCAN_PAUSE_NS, scan_slice);
}

/* pass_begin: the victims of the last pass are looked at once more, together with new ones. */
static void pass_begin(struct tb_gc *gc)
{
    victims_close(gc);
    for (size_t i = 0; i < gc->moved_n; i++)
        victim_add(gc, gc->moved[i], seg_get(gc, gc->moved[i]).live);
    pick(gc);
    gc->moved_n = 0;
    gc->items = gc->hints = gc->cursor = 0;
    if (gc->codec == NULL && gc->victims > 0)
        gc->codec = tb_codec_new();
    if (gc->victims == 0 || gc->codec == NULL) {
        rest(gc);
        gc->looked = gc->until != 0 && !gc->purging && !gc->sealing && gc->s->confirmed >= gc->until;
        free_clean(gc);
        return;
    }
    gc->phase = TB_GC_SCAN;
    gc->chunk_floor = atomic_load(&gc->s->store->queue_unsettled) != 0 ? 0 : tb_pin_chunk_floor(&gc->s->pins);
    gc->scan_db = TB_DB_BLOB;
    gc->bodies_moved = gc->s->x.bodies_moved;
    tb_key_begin(&gc->scan_key);
    tb_key_bytes(&gc->scan_key, tb_slice("\0", 1));
    later(gc, 0, scan_slice);
}

/* ---- reading, copying ---- */

static void read_done(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    int64_t all = op->result;
    if (!resumed(gc))
        return;
    if (all != 1) {
        later(gc, throttle(gc), read_next);
        return;
    }
    gc->phase = TB_GC_COPY;
    copy_next(gc);
}

static void read_next(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    if (resumed(gc))
        offload(gc, tb_gc_read_work, read_done);
}

/* hold: an item stays where it is, so its segments do. */
static void hold(struct tb_gc *gc, const struct gc_item *item)
{
    struct gc_victim *v[] = {victim_of(gc, item->head.lsn), victim_of(gc, item->own.lsn)};
    for (size_t i = 0; i < TB_ARRAY_LEN(v); i++)
        if (v[i] != NULL)
            v[i]->kept = true;
}

/* damaged: a stored piece cannot be read: it stays, and goes to quarantine. A body has the number of its first blob. */
static void damaged(struct tb_gc *gc, const struct gc_item *item)
{
    struct tb_bad_seen seen = {.blob = item->id, .lsn = item->bad_lsn, .why = item->bad_why, .acct = item->acct};
    struct tb_key k;
    seen.mbox = item->mbox;
    seen.uid = item->uid;
    seen.piece = item->piece ? item->index + 1 : item->bad_lsn == item->own.lsn;
    gc->bad++;
    tb_key_begin(&k);
    tb_key_u64(&k, item->id);
    if (tb_index_get(gc->s->ix, TB_DB_BLOB, tb_key_slice(&k), &(struct tb_slice){0}))
        tb_quarantine(gc->s, &seen);
    else
        tb_log(TB_LOG_ERROR, "shard=%u gc: body %llu is damaged at log position %llu; it stays there", gc->s->number,
               (unsigned long long)item->id, (unsigned long long)item->bad_lsn);
}

/* still_there: does the index name the item's old place? *own: also that of its body. */
static bool still_there(struct tb_gc *gc, const struct gc_item *item, bool *own, uint64_t *body)
{
    struct tb_key k;
    struct tb_slice v;
    struct tb_blob_row row = {0};
    struct tb_disk_body b;
    struct tb_disk_piece p;
    tb_key_begin(&k);
    tb_key_u64(&k, item->id);
    *own = true;
    *body = item->id;
    if (item->piece) {
        if (!tb_index_get(gc->s->ix, TB_DB_BODY, tb_key_slice(&k), &v) || v.len < sizeof(b))
            return false;
        memcpy(&b, v.ptr, sizeof(b));
        return tb_body_piece(gc->s->ix, item->id, &b, item->index, &p) && p.lsn == item->own.lsn;
    }
    if (!tb_index_get(gc->s->ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len < sizeof(row.blob) || v.len > sizeof(row))
        return false;
    memcpy(&row, v.ptr, v.len);
    *own = item->own.lsn != 0 && row.blob.flags & TB_BLOB_OWN_BODY && row.own.lsn == item->own.lsn;
    *body = row.blob.body;
    return row.blob.head.lsn == item->head.lsn;
}

/* keywords: a row's keywords as names, behind it. */
static void keywords(struct tb_gc *gc, const struct tb_moved_row *r, uint64_t bits, struct tb_buf *out, uint32_t *n)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        struct tb_key k;
        struct tb_slice name;
        tb_key_begin(&k);
        tb_key_u32(&k, r->acct);
        tb_key_u32(&k, r->mbox);
        tb_key_u16(&k, (uint16_t)bit);
        if (!(bits >> bit & 1) || !tb_index_get(gc->s->ix, TB_DB_KEYWORD, tb_key_slice(&k), &name) || name.len > 255)
            continue;
        tb_buf_char(out, (char)name.len);
        tb_buf_slice(out, name);
        (*n)++;
    }
}

/* rows: the messages that refer to a blob, of those that the log told of; what moved on since is not found. */
static void rows(struct tb_gc *gc, uint64_t blob, struct tb_buf *out, uint32_t *n)
{
    size_t lo = 0, hi = gc->hints;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (gc->hint[mid].blob < blob)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < gc->hints && gc->hint[lo].blob == blob && *n < TB_MOVED_ROWS_MAX && out->len < ROWS_BYTES_MAX; lo++) {
        const struct gc_hint *h = &gc->hint[lo];
        struct tb_moved_row r = {.acct = h->acct, .mbox = h->mbox};
        if (!tb_rows_get(gc->s->ix, h->acct, h->mbox, h->uid, &r.row) || r.row.blob != blob)
            continue;
        struct tb_buf names;
        uint8_t head[TB_MOVED_ROW_MAX];
        tb_buf_init(&names, 64 * 256);
        keywords(gc, &r, r.row.keywords, &names, &r.keywords_n);
        tb_buf_put(out, head, tb_moved_row_encode(&r, head));
        tb_buf_slice(out, tb_buf_all(&names));
        tb_buf_free(&names);
        (*n)++;
    }
}

/* list: where the pieces of a body that is not the blob's alone lie. */
static void list(struct tb_gc *gc, uint64_t body, struct tb_buf *out, uint32_t *n)
{
    struct tb_key k;
    struct tb_slice v;
    struct tb_disk_body b;
    struct tb_disk_piece p;
    tb_key_begin(&k);
    tb_key_u64(&k, body);
    if (!tb_index_get(gc->s->ix, TB_DB_BODY, tb_key_slice(&k), &v) || v.len < sizeof(b))
        return;
    memcpy(&b, v.ptr, sizeof(b));
    for (uint32_t i = 0; i < b.pieces && i < LIST_MAX && tb_body_piece(gc->s->ix, body, &b, i, &p); i++, (*n)++)
        tb_buf_put(out, &p, sizeof(p));
}

/* log_moved: one MOVED record. BUSY: the log is behind; NOSPACE, IO. */
static enum tb_rc log_moved(struct tb_gc *gc, size_t i, bool own, uint64_t body)
{
    const struct gc_batch *b = &gc->batch;
    const struct gc_item *item = b->item[i];
    uint8_t head[TB_MOVED_ENCODED_MAX],
        flags = (uint8_t)((item->piece ? TB_MOVED_PIECE : 0) | (item->hashed ? TB_MOVED_HASHED : 0));
    struct tb_pay_moved p = {.blob = item->piece ? 0 : item->id, .body = body, .index = item->index};
    struct tb_buf front;
    tb_buf_init(&front, 1u << 20);
    p.head_from = item->head.lsn;
    p.head = b->head[i];
    if (own) {
        p.own_from = item->own.lsn;
        p.own = b->own[i];
    }
    memcpy(p.sha256, item->sha256, sizeof(p.sha256));
    if (!item->piece && !item->whole)
        list(gc, body, &front, &p.pieces);
    size_t listed = front.len;
    if (!item->piece)
        rows(gc, item->id, &front, &p.rows);
    p.rows_len = (uint32_t)(front.len - listed);
    size_t head_len = tb_moved_encode(&p, flags, head), len = head_len + front.len + p.head.clen + p.own.clen;
    enum tb_rc rc = front.failed ? TB_LIMIT : tb_shard_admit(gc->s, len, 1, ADMIT_GC);
    if (rc == TB_OK) {
        uint8_t *out = tb_shard_fill(gc->s, TB_REC_MOVED, flags, 0, len, NULL);
        memcpy(out, head, head_len);
        if (front.len > 0)
            memcpy(out + head_len, front.ptr, front.len);
        memcpy(out + head_len + front.len, b->out.ptr + b->at[i], (size_t)p.head.clen + p.own.clen);
        tb_shard_filled(gc->s);
        gc->moved_bytes += (uint64_t)p.head.clen + p.own.clen;
    }
    tb_buf_free(&front);
    return rc;
}

static enum tb_rc log_item(struct tb_gc *gc, size_t i)
{
    const struct gc_item *item = gc->batch.item[i];
    bool own;
    uint64_t body;
    if (item->bad || item->skipped) {
        if (item->bad && still_there(gc, item, &own, &body))
            damaged(gc, item);
        hold(gc, item);
        return TB_OK;
    }
    return still_there(gc, item, &own, &body) ? log_moved(gc, i, own, body) : TB_OK;
}

/* moved_on: an item is done with: so much less of the victims is left to move. */
static void moved_on(struct tb_gc *gc, const struct gc_item *item)
{
    uint64_t n = (victim_of(gc, item->head.lsn) != NULL ? item->head.clen : 0) +
                 (victim_of(gc, item->own.lsn) != NULL ? item->own.clen : 0);
    gc->to_move -= n < gc->to_move ? n : gc->to_move;
}

/* in_vain: the disk became full on the way, and what is left does not fit: no segment would be emptied, and the room
 * is what deletions live on. */
static bool in_vain(const struct tb_gc *gc)
{
    bool tight;
    return short_of_space(gc) && gc->to_move > room_left(gc, &tight);
}

/* stop_moving: there is no space to move anything to: the pass ends, and what it looked at is looked at again. */
static void stop_moving(struct tb_gc *gc)
{
    rest(gc);
    gc->left = true;
    gc->looked = false;
}

static void copy_step(struct tb_op *op);

/* log_batch: what the helper made goes to the log, as far as that takes it. */
static void log_batch(struct tb_gc *gc)
{
    struct gc_batch *b = &gc->batch;
    while (b->done < b->n) {
        if (in_vain(gc)) {
            stop_moving(gc);
            return;
        }
        enum tb_rc rc = log_item(gc, b->done);
        if (rc == TB_BUSY) {
            later(gc, BUSY_NS, copy_step);
            return;
        }
        if (rc == TB_LIMIT)
            hold(gc, b->item[b->done]);
        else if (rc != TB_OK) {
            stop_moving(gc);
            return;
        }
        moved_on(gc, b->item[b->done]);
        b->done++;
    }
    later(gc, throttle(gc), copy_step);
}

static void copied(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    if (resumed(gc))
        log_batch(gc);
}

static void copy_step(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    if (!resumed(gc))
        return;
    if (gc->batch.done < gc->batch.n)
        log_batch(gc);
    else
        copy_next(gc);
}

/* copy_next: the next batch; or all are done. */
static void copy_next(struct tb_gc *gc)
{
    if (gc->cursor < gc->items) {
        tb_dicts_teach(gc->s->store, gc->codec);
        tb_dicts_use(gc->s->store, gc->codec);
        offload(gc, tb_gc_copy_work, copied);
        return;
    }
    for (size_t i = 0; i < gc->victims; i++) {
        const struct gc_victim *v = &gc->victim[i];
        if (v->kept || v->queued)
            keep(gc, v->segment, v->kept ? KEPT_BAD_S : KEPT_S);
        else
            gc->moved[gc->moved_n++] = v->segment;
    }
    pass_begin(gc);
}

/* ---- freeing ---- */

/* may_free: G1, but for the scan. */
static bool may_free(const struct tb_gc *gc, const struct gc_clean *c)
{
    const struct tb_shard *s = gc->s;
    if (TB_KEEPS(gcwait) && (s->confirmed < c->position || c->segment >= segment_of(gc, s->confirmed_last)))
        return false;
    return !tb_pins_hold(&s->pins, c->segment) && atomic_load(&s->store->queue_unsettled) == 0 &&
           !held_back(gc, c->segment);
}

static void freed(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    gc->freeing = false;
    if (op->result < 0)
        tb_log(TB_LOG_WARN, "shard=%u gc: segment %08x: %s; it may be there again after a power cut", gc->s->number,
               gc->freeing_segment, strerror((int)-op->result));
    gc->freed++;
    if (!gc->s->failed && !gc->s->stopping)
        free_clean(gc);
}

static void freed_durable(struct tb_op *op)
{
    struct tb_gc *gc = op->user;
    uint32_t there;
    if (op->rc != TB_OK || !tb_log_next_segment(gc->s->log, gc->freeing_segment, &there) ||
        there != gc->freeing_segment || tb_pins_hold(&gc->s->pins, there)) {
        gc->freeing = false; /* somebody pinned it meanwhile: it is found again */
        return;
    }
    gc->free_op = (struct tb_op){.done = freed, .user = gc};
    tb_log_free(gc->s->log, gc->freeing_segment, &gc->free_op);
}

/* free_one: the index forgets the segment, durably, and then it goes. */
static bool free_one(struct tb_gc *gc, uint32_t segment)
{
    struct tb_shard *s = gc->s;
    struct tb_pay_segment p = {.segment = segment};
    if (tb_shard_admit(s, sizeof(p), 1, ADMIT_SMALL) != TB_OK)
        return false;
    if (tb_hold_keeps(s, segment))
        tb_log(
            TB_LOG_WARN,
            "shard=%u the disk is full: segment %08x is freed before a backup has it: no moment behind its beginning "
            "can be restored until the next backup",
            s->number, segment);
    tb_shard_record(s, TB_REC_SEGMENT, TB_SEGMENT_FREED, 0, tb_slice(&p, sizeof(p)), tb_slice(NULL, 0),
                    tb_slice(NULL, 0));
    gc->freeing = true;
    gc->freeing_segment = segment;
    gc->gate_op = (struct tb_op){.done = freed_durable, .user = gc};
    if (TB_KEEPS(gcwait))
        tb_gate_insert(s, tb_log_end(s->log), &gc->gate_op);
    else
        tb_worker_ready(s->worker, &gc->gate_op, TB_OK);
    return true;
}

/* frame_on: a frame more, which says nothing new. */
static bool frame_on(struct tb_gc *gc)
{
    struct tb_disk_seg row = seg_get(gc, gc->clean[0].segment);
    struct tb_pay_segment p = {.segment = gc->clean[0].segment, .total = row.total, .live = row.live};
    if (tb_shard_admit(gc->s, sizeof(p), 1, ADMIT_SMALL) != TB_OK)
        return false;
    tb_shard_record(gc->s, TB_REC_SEGMENT, 0, 0, tb_slice(&p, sizeof(p)), tb_slice(NULL, 0), tb_slice(NULL, 0));
    return true;
}

/* held_by: who keeps a segment that nothing is left in; 0: nobody does, it may go. */
static uint32_t held_by(const struct tb_gc *gc, const struct gc_clean *c)
{
    const struct tb_shard *s = gc->s;
    const struct tb_pins *p = &s->pins;
    uint32_t held = 0;
    if (may_free(gc, c))
        return 0;
    if (s->confirmed < c->position || c->segment >= segment_of(gc, s->confirmed_last))
        held |= TB_GC_HELD_INDEX;
    if (segment_of(gc, tb_pin_chunk_floor(p)) <= c->segment || atomic_load(&s->store->queue_unsettled) != 0)
        held |= TB_GC_HELD_UPLOAD;
    if (p->floors.n > 0 && segment_of(gc, p->floors.v[0].at) <= c->segment)
        held |= p->floors.v[0].at == 0 ? TB_GC_HELD_BACKUP : TB_GC_HELD_COPY;
    if (held_back(gc, c->segment))
        held |= TB_GC_HELD_NEXT;
    return tb_pins_read(p, c->segment) ? held | TB_GC_HELD_READER : held;
}

/* run_over: a run on demand found nothing more to do: what is left is held by others, and goes when they are done. */
static void run_over(struct tb_gc *gc)
{
    gc->until = 0;
    gc->all = gc->looked = false;
}

/* ask: who holds the clean segments is asked to be quick; a run on demand waits for them, for a while. */
static void ask(struct tb_gc *gc, uint32_t held)
{
    struct tb_shard *s = gc->s;
    uint64_t now = tb_io_now_ns(s->worker->io);
    bool unconfirmed = held & TB_GC_HELD_INDEX;
    if (held & TB_GC_HELD_COPY)
        tb_rotation_want(s); /* newer copies of the index need less of the log */
    if (!(held & ~(uint32_t)(TB_GC_HELD_INDEX | TB_GC_HELD_NEXT)))
        gc->held_ns = 0;
    else if (gc->held_ns == 0)
        gc->held_ns = now;
    if (unconfirmed && s->confirmed == tb_log_end(s->log))
        unconfirmed = frame_on(gc); /* the last frame lies in it: there must be a later one */
    if (unconfirmed && (gc->until != 0 || short_of_space(gc)))
        s->want_checkpoint = true; /* the next boundary makes one */
    else if (gc->looked && gc->phase == TB_GC_IDLE && (gc->held_ns == 0 || now - gc->held_ns > HELD_NS))
        run_over(gc);
}

/* free_clean: free what may be freed, one at a time. */
static void free_clean(struct tb_gc *gc)
{
    struct tb_shard *s = gc->s;
    uint32_t held = gc->left ? TB_GC_HELD_COPY : 0;
    if (gc->freeing || s->failed || s->stopping)
        return;
    for (size_t i = 0; i < gc->clean_n; i++) {
        uint32_t segment = gc->clean[i].segment, by = held_by(gc, &gc->clean[i]);
        if (by & TB_GC_HELD_READER)
            tb_scrub_leave(s, segment);
        held |= by;
        if (by != 0)
            continue;
        if (!free_one(gc, segment))
            return;
        gc->clean[i] = gc->clean[--gc->clean_n];
        gc->held_ns = 0;
        return;
    }
    ask(gc, held);
}

/* ---- when ---- */

static void go(struct tb_gc *gc)
{
    free_clean(gc);
    if (gc->phase == TB_GC_IDLE && !gc->busy && !gc->s->failed && !gc->s->stopping)
        pass_begin(gc);
}

void tb_gc_confirmed(struct tb_shard *s)
{
    if (s->gc != NULL && !s->failed && !s->stopping)
        go(s->gc);
}

/* purge: a run on demand begins by letting go of what is due in the trash: until then its bytes count as live. */
static void purge(struct tb_gc *gc)
{
    if (tb_trash_purge(gc->s))
        return; /* more at the next tick */
    gc->purging = false;
    gc->until = tb_log_end(gc->s->log);
    gc->s->want_checkpoint = true;
}

/* seal: a run over everything begins by ending the segment that is being written. */
static void seal(struct tb_gc *gc)
{
    enum tb_rc rc = tb_log_seal(gc->s->log);
    if (rc == TB_BUSY)
        return; /* at the next tick */
    gc->sealing = false;
    gc->until = tb_log_end(gc->s->log);
    gc->s->want_checkpoint = true;
}

void tb_gc_tick(struct tb_shard *s)
{
    struct tb_gc *gc = s->gc;
    if (gc == NULL || s->stopping)
        return;
    if (gc->purging)
        purge(gc);
    if (gc->sealing && !gc->purging)
        seal(gc);
    free_clean(gc);
    tb_gc_trim(gc);
    if (gc->until != 0 || short_of_space(gc))
        go(gc);
    if (s->want_checkpoint && s->ckpt_phase == CKPT_IDLE)
        tb_log_boundary(s->log);
}

void tb_gc_start(struct tb_worker *owner, uint32_t shard, bool all)
{
    struct tb_shard *s = tb_shard_of(owner, shard);
    if (s == NULL || s->failed || s->stopping)
        return;
    struct tb_gc *gc = s->gc;
    gc->kept_n = 0;
    gc->all = all;
    gc->sealing = all;
    gc->looked = false;
    gc->purging = true;
    gc->until = tb_log_end(s->log);
    tb_gc_tick(s);
}

void tb_gc_stat(struct tb_shard *s, struct tb_shard_stat *out)
{
    struct tb_gc *gc = s->gc;
    uint32_t segment, end = segment_of(gc, tb_log_end(s->log));
    out->gc_phase = gc->phase;
    out->gc_running = gc->until != 0;
    out->gc_waiting = gc->clean_n + gc->freeing + gc->backs;
    out->gc_held = gc->backs > 0 ? TB_GC_HELD_NEXT : 0;
    for (size_t i = 0; i < gc->clean_n; i++)
        out->gc_held |= held_by(gc, &gc->clean[i]);
    out->gc_moved_bytes = gc->moved_bytes;
    out->gc_freed_segments = gc->freed;
    out->gc_bad = gc->bad;
    out->gc_repaired = gc->repaired;
    for (uint32_t at = 0; tb_log_next_segment(s->log, at, &segment) && segment < end; at = segment + 1) {
        uint64_t live = seg_get(gc, segment).live;
        out->gc_dead_bytes += live < s->x.segment_bytes ? s->x.segment_bytes - live : 0;
    }
}
