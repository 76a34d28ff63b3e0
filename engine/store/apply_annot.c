/*
 * apply_annot.c: the part of tb_apply that keeps annotations.
 *
 * A value longer than a row lies in several, numbered behind the name and a NUL, which no name has; an empty value is
 * one empty row. Pure (S9). Thread: the shard's owner.
 */
#include <tambo/annot.h>

#include "engine/store/apply.h"

struct tb_key tb_annot_key(uint32_t acct, uint32_t mbox, struct tb_slice name)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    tb_key_bytes(&k, name);
    return k;
}

enum tb_rc tb_apply_annot(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_annot p;
    struct tb_disk_acct a;
    struct tb_disk_mbox m;
    struct tb_slice k, v;
    if (r->payload.len < sizeof(p) || !tb_acct_get(x->ix, r->acct, &a))
        return TB_CORRUPT;
    memcpy(&p, r->payload.ptr, sizeof(p));
    struct tb_slice name = tb_slice_sub(r->payload, sizeof(p), p.name_len);
    struct tb_slice value = tb_slice_sub(r->payload, sizeof(p) + p.name_len, r->payload.len);
    if (p.name_len == 0 || name.len != p.name_len || name.len > TB_ANNOT_NAME_MAX ||
        memchr(name.ptr, '\0', name.len) != NULL || value.len > TB_ANNOT_VALUE_MAX ||
        (p.mbox != 0 && !tb_mbox_get(x->ix, r->acct, p.mbox, &m, NULL)))
        return TB_CORRUPT;
    struct tb_key head = tb_annot_key(r->acct, p.mbox, name);
    tb_key_bytes(&head, tb_slice("", 1));
    while (tb_index_ge(x->ix, TB_DB_ANNOT, tb_key_slice(&head), tb_key_slice(&head).len, &k, &v)) {
        char copy[TB_KEY_MAX];
        size_t len = k.len < sizeof(copy) ? k.len : sizeof(copy);
        memcpy(copy, k.ptr, len);
        tb_index_del(x->ix, TB_DB_ANNOT, tb_slice(copy, len));
    }
    x->dirty_pages += 2 + value.len / (TB_BLOCK / 2);
    for (size_t at = 0, n = 0; !(r->flags & TB_ANNOT_GONE) && (n == 0 || at < value.len); at += TB_ANNOT_ROW, n++) {
        struct tb_key row = head;
        tb_key_u16(&row, (uint16_t)n);
        tb_index_put(x->ix, TB_DB_ANNOT, tb_key_slice(&row), tb_slice_sub(value, at, TB_ANNOT_ROW));
    }
    return TB_OK;
}
