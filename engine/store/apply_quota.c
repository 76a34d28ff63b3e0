/*
 * apply_quota.c: what of an account is limited, in the index. The counters themselves move with the records that move
 * messages and mailboxes (apply.c, apply_trash.c).
 *
 * Accounts of a store from before the count of mailboxes do not have one: the first QUOTA record counts them, once.
 * Thread: the shard's owner.
 */
#include "engine/store/apply.h"

uint32_t tb_quota_count(struct tb_index *ix, uint32_t acct)
{
    struct tb_key key;
    struct tb_slice k, v;
    uint32_t n = 0;
    tb_key_begin(&key);
    tb_key_u32(&key, acct);
    bool more = tb_index_ge(ix, TB_DB_MBOX, tb_key_slice(&key), 4, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_MBOX, 4, &k, &v)) {
        struct tb_disk_mbox m;
        if (v.len < sizeof(m))
            continue;
        memcpy(&m, v.ptr, sizeof(m));
        n += !(m.flags & TB_MBOX_NOSELECT);
    }
    return n;
}

enum tb_rc tb_apply_quota(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_quota p;
    struct tb_disk_acct a;
    if (r->payload.len < sizeof(p) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    a.quota_bytes = p.bytes;
    a.quota_messages = p.messages;
    a.quota_mailboxes = p.mailboxes;
    if (a.mailboxes == 0)
        a.mailboxes = tb_quota_count(x->ix, r->acct) + 1;
    tb_acct_put(x->ix, r->acct, &a);
    return TB_OK;
}
