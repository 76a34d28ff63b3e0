/*
 * apply_acl.c: the part of tb_apply that keeps access control lists.
 *
 * An entry is one row under its mailbox. What gives rights has a second row under its user, so that a user's list of
 * shared mailboxes is one scan; both come and go together. A mailbox in the trash keeps its entries, which mean nothing
 * until it comes back. Pure (S9). Thread: the shard's owner.
 */
#include "engine/store/apply.h"

#include <tambo/acl.h>

struct tb_key tb_acl_key(uint32_t acct, uint32_t mbox, uint32_t user, bool negative)
{
    struct tb_key k;
    uint8_t sign = negative;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    tb_key_u32(&k, user);
    tb_key_bytes(&k, tb_slice(&sign, 1));
    return k;
}

static struct tb_key user_key(uint32_t user, uint32_t acct, uint32_t mbox)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, UINT32_MAX);
    tb_key_u32(&k, user);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    return k;
}

static void entry_put(struct tb_applier *x, uint32_t acct, const struct tb_pay_acl *p, bool negative,
                      struct tb_slice name)
{
    struct tb_key k = tb_acl_key(acct, p->mbox, p->user, negative), u = user_key(p->user, acct, p->mbox);
    struct tb_disk_acl row = {.rights = p->rights};
    if (p->rights == 0)
        tb_index_del(x->ix, TB_DB_ACL, tb_key_slice(&k));
    else
        tb_index_put2(x->ix, TB_DB_ACL, tb_key_slice(&k), tb_slice(&row, sizeof(row)), name);
    if (!negative && p->rights == 0)
        tb_index_del(x->ix, TB_DB_ACL, tb_key_slice(&u));
    else if (!negative)
        tb_index_put(x->ix, TB_DB_ACL, tb_key_slice(&u), tb_slice(NULL, 0));
    x->dirty_pages += 4;
}

/* inherit: a mailbox gets the entries of another; one after the other, because a write ends a scan. */
static enum tb_rc inherit(struct tb_applier *x, uint32_t acct, const struct tb_pay_acl *p)
{
    struct tb_key at = tb_acl_key(acct, p->from, 0, false);
    struct tb_slice k, v;
    for (unsigned n = 0; n < TB_ACL_MAX && tb_index_ge(x->ix, TB_DB_ACL, tb_key_slice(&at), 8, &k, &v); n++) {
        struct tb_disk_acl row;
        char name[TB_NAME_MAX];
        if (k.len != TB_ACL_KEY || v.len < sizeof(row) || v.len - sizeof(row) > sizeof(name))
            return TB_CORRUPT;
        memcpy(&row, v.ptr, sizeof(row));
        size_t len = v.len - sizeof(row);
        memcpy(name, v.ptr + sizeof(row), len);
        struct tb_pay_acl one = {.mbox = p->mbox, .user = tb_get_be32(k.ptr + 8), .rights = row.rights};
        bool negative = k.ptr[TB_ACL_KEY - 1] != 0;
        tb_key_begin(&at);
        tb_key_bytes(&at, k);
        tb_key_bytes(&at, tb_slice("", 1)); /* the next key there can be */
        entry_put(x, acct, &one, negative, tb_slice(name, len));
    }
    return TB_OK;
}

enum tb_rc tb_apply_acl(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_acl p;
    struct tb_disk_mbox m;
    if (r->payload.len < sizeof(p) || r->payload.len - sizeof(p) > TB_NAME_MAX)
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    if (!tb_mbox_get(x->ix, r->acct, p.mbox, &m, NULL))
        return TB_CORRUPT;
    if (r->flags & TB_ACL_INHERIT)
        return p.from == p.mbox ? TB_CORRUPT : inherit(x, r->acct, &p);
    entry_put(x, r->acct, &p, r->flags & TB_ACL_NEGATIVE, tb_slice_sub(r->payload, sizeof(p), SIZE_MAX));
    return TB_OK;
}

void tb_acl_drop(struct tb_index *ix, uint32_t acct, uint32_t mbox)
{
    struct tb_key key = tb_acl_key(acct, mbox, 0, false);
    struct tb_slice k, v;
    while (tb_index_ge(ix, TB_DB_ACL, tb_key_slice(&key), 8, &k, &v)) {
        struct tb_key found;
        tb_key_begin(&found);
        tb_key_bytes(&found, k);
        if (k.len == TB_ACL_KEY && found.bytes[TB_ACL_KEY - 1] == 0) {
            struct tb_key u = user_key(tb_get_be32(found.bytes + 8), acct, mbox);
            tb_index_del(ix, TB_DB_ACL, tb_key_slice(&u));
        }
        tb_index_del(ix, TB_DB_ACL, tb_key_slice(&found));
    }
}
