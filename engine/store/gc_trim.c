/*
 * gc_trim.c: change logs do not grow for ever: what is older than 30 days goes, and what makes a mailbox's change log
 * longer than 16 bytes a message. A client that was away for longer is answered from the rows (RFC 7162 3.2.5.2,
 * since.c).
 *
 * Changes bear no time. So the log of a busy mailbox is marked with the day now and then, and what stands before a mark
 * is at least as old. Each hour all mailboxes are looked at, a few a tick. Thread: the shard's owner.
 */
#include "engine/store/gc.h"

enum {
    MAILBOXES = 64, /* a tick */
    BLOCKS = 512,   /* a tick, and of one mailbox */
    DROP_MAX = 64,  /* blocks a record */
    KEEP_DAYS = 30,
    MARK_DAYS = 5,
    BYTES_MIN = 2 * TB_VALUE_MAX,
    BYTES_A_MESSAGE = 16
};
#define SWEEP_NS UINT64_C(3600000000000)

struct changes { /* of one mailbox */
    uint32_t today;
    uint64_t bytes;
    size_t blocks;
    uint64_t old;    /* changes up to it are old enough to go */
    uint32_t marked; /* the last day found */
};

/* marks: the days in a block. */
static void marks(struct changes *c, struct tb_slice k, struct tb_slice v)
{
    uint64_t modseq = tb_get_be64(k.ptr + 8), delta, first, more;
    struct tb_slice rest = tb_slice_sub(v, sizeof(struct tb_disk_chg), v.len);
    while (tb_get_varint(&rest, &delta) && rest.len > 0) {
        uint8_t kind = (uint8_t)rest.ptr[0];
        rest = tb_slice_sub(rest, 1, rest.len);
        if (!tb_get_varint(&rest, &first) || !tb_get_varint(&rest, &more))
            return;
        modseq += delta;
        if (kind != TB_CHG_DAY)
            continue;
        if (first + KEEP_DAYS <= c->today && modseq > c->old)
            c->old = modseq;
        if (first > c->marked)
            c->marked = (uint32_t)first;
    }
}

static struct tb_key prefix(uint32_t acct, uint32_t mbox)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    return k;
}

static void survey(struct tb_index *ix, uint32_t acct, uint32_t mbox, struct changes *c)
{
    struct tb_key key = prefix(acct, mbox);
    struct tb_slice k, v;
    bool more = tb_index_ge(ix, TB_DB_CHG, tb_key_slice(&key), key.len, &k, &v);
    for (; more && c->blocks < BLOCKS && k.len >= 16; more = tb_index_next(ix, TB_DB_CHG, key.len, &k, &v)) {
        marks(c, k, v);
        c->bytes += v.len;
        c->blocks++;
    }
    if (!more)
        return;
    tb_key_u64(&key, UINT64_MAX); /* the newest mark of a long log is in its last block, or there is none soon enough */
    if (tb_index_le(ix, TB_DB_CHG, tb_key_slice(&key), 8, &k, &v) && k.len >= 16)
        marks(c, k, v);
}

/* new_floor: up to where blocks may go: the oldest ones, as many as are old or too much. 0: none. */
static uint64_t new_floor(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct changes *c, uint64_t limit)
{
    struct tb_key key = prefix(acct, mbox);
    struct tb_slice k, v;
    uint64_t floor = 0, bytes = c->bytes;
    bool more = tb_index_ge(ix, TB_DB_CHG, tb_key_slice(&key), key.len, &k, &v);
    for (int i = 0; more && i < DROP_MAX && v.len >= 8; i++, more = tb_index_next(ix, TB_DB_CHG, key.len, &k, &v)) {
        uint64_t last = tb_get_le64(v.ptr);
        if (bytes <= limit && last > c->old)
            break;
        floor = last;
        bytes -= v.len < bytes ? v.len : bytes;
    }
    return floor;
}

/* look: one mailbox: is there anything to trim or to mark? Returns how many blocks were read. */
static size_t look(struct tb_gc *gc, uint32_t acct, uint32_t mbox, const struct tb_disk_mbox *m)
{
    struct tb_shard *s = gc->s;
    struct changes c = {.today = (uint32_t)(tb_io_wall_s(s->worker->io) / 86400)};
    survey(s->ix, acct, mbox, &c);
    uint64_t limit = (uint64_t)m->messages * BYTES_A_MESSAGE;
    struct tb_pay_trim p = {.mbox = mbox};
    p.floor = new_floor(s->ix, acct, mbox, &c, limit > BYTES_MIN ? limit : BYTES_MIN);
    if (c.blocks > 0 && c.marked + MARK_DAYS <= c.today && m->highestmodseq > p.floor)
        p.day = c.today;
    if ((p.floor <= m->chg_floor && p.day == 0) || tb_shard_admit(s, sizeof(p), 1, ADMIT_SMALL) != TB_OK)
        return c.blocks;
    tb_shard_record(s, TB_REC_TRIM, 0, acct, tb_slice(&p, sizeof(p)), tb_slice(NULL, 0), tb_slice(NULL, 0));
    return c.blocks;
}

void tb_gc_trim(struct tb_gc *gc)
{
    struct tb_shard *s = gc->s;
    struct tb_slice k, v;
    struct tb_disk_mbox m;
    size_t blocks = 0;
    uint64_t now = tb_io_now_ns(s->worker->io);
    if (now < gc->trim_ns)
        return;
    for (int i = 0; i < MAILBOXES && blocks < BLOCKS; i++) {
        struct tb_key key = prefix(gc->trim_acct, gc->trim_mbox);
        if (!tb_index_ge(s->ix, TB_DB_MBOX, tb_key_slice(&key), 0, &k, &v) || k.len != 8 || v.len < sizeof(m)) {
            gc->trim_acct = gc->trim_mbox = 0;
            gc->trim_ns = now + SWEEP_NS;
            return;
        }
        memcpy(&m, v.ptr, sizeof(m));
        uint32_t acct = tb_get_be32(k.ptr), mbox = tb_get_be32(k.ptr + 4);
        gc->trim_acct = mbox == UINT32_MAX ? acct + 1 : acct;
        gc->trim_mbox = mbox == UINT32_MAX ? 0 : mbox + 1;
        if (!(m.flags & TB_MBOX_NOSELECT))
            blocks += look(gc, acct, mbox, &m);
    }
}
