/*
 * apply_skip.c: the part of tb_apply that makes a restored store skip ahead (R14).
 *
 * What a device saw after the moment a store was restored to is gone, with its numbers. So no number may be given
 * twice: UIDNEXT, MODSEQ, mailbox, account and blob ids jump far ahead, and every row counts as changed at the new
 * MODSEQ, so that CONDSTORE and QRESYNC clients ask for everything. UIDs and UIDVALIDITY stay. Pure (S9). Thread: the
 * shard's owner.
 */
#include "engine/store/apply.h"

static enum tb_edit edit_modseq(void *user, struct tb_disk_row *row)
{
    row->modseq = *(const uint64_t *)user;
    return TB_EDIT_CHANGED;
}

/* uid_after: far ahead, but never past the middle of what is left: a mailbox can be restored again and again. */
static uint32_t uid_after(uint32_t uidnext, uint32_t step)
{
    uint32_t left = (UINT32_MAX - uidnext) / 2;
    return uidnext + (step < left ? step : left);
}

static enum tb_rc skip_mailbox(struct tb_applier *x, const struct tb_pay_skip *p, uint32_t acct, uint32_t mbox,
                               uint64_t modseq)
{
    struct open_mbox m;
    struct tb_range all = {1, UINT32_MAX};
    if (!tb_apply_mbox_load(x, acct, mbox, &m))
        return TB_CORRUPT;
    tb_rows_edit(x->ix, acct, mbox, &all, 1, edit_modseq, &modseq);
    tb_blocks_drop(x->ix, TB_DB_CHG, acct, mbox);
    m.row.uidnext = uid_after(m.row.uidnext, p->uids);
    m.row.highestmodseq = m.row.chg_floor = modseq;
    tb_apply_mbox_save(x, &m);
    x->dirty_pages += 2 * (uint64_t)m.row.messages / TB_ROWS_PER_BLOCK;
    return TB_OK;
}

static enum tb_rc skip_account(struct tb_applier *x, const struct tb_pay_skip *p, uint32_t acct)
{
    struct tb_disk_acct a;
    struct tb_slice k, v;
    if (!tb_acct_get(x->ix, acct, &a))
        return TB_CORRUPT;
    a.modseq += p->modseqs;
    a.next_mbox += p->mailboxes;
    tb_acct_put(x->ix, acct, &a);
    for (uint32_t mbox = 0; mbox < UINT32_MAX; mbox++) {
        struct tb_key key;
        tb_key_begin(&key);
        tb_key_u32(&key, acct);
        tb_key_u32(&key, mbox);
        if (!tb_index_ge(x->ix, TB_DB_MBOX, tb_key_slice(&key), 4, &k, &v) || k.len != 8)
            break;
        mbox = tb_get_be32(k.ptr + 4);
        enum tb_rc rc = skip_mailbox(x, p, acct, mbox, a.modseq);
        if (rc != TB_OK)
            return rc;
    }
    return TB_OK;
}

enum tb_rc tb_apply_skip(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_skip p;
    if (r->payload.len < sizeof(p))
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    if (r->acct != 0)
        return skip_account(x, &p, r->acct);
    x->state.next_blob += p.blobs;
    x->state.next_acct += p.accounts;
    x->state.uidvalidity_max = uid_after(x->state.uidvalidity_max, p.uidvalidities);
    return TB_OK;
}
