/*
 * apply_trash.c: the part of tb_apply that deletes, keeps what was deleted, gives it back and lets it go.
 *
 * A message that is expunged becomes a trash entry and keeps its reference to its blob. A mailbox that is deleted keeps
 * its rows where they are and loses its place in the tree; a deleted account keeps everything and loses its name. Each
 * has one trash entry, ordered by when it is due. Nothing in the trash counts: not in the mailbox, the account (so not
 * against a quota) or the shard. What is due goes in PURGE records, a bounded piece each; only then do references fall
 * and, with the last one, the live bytes of segments. Pure, like all of tb_apply (S9). Thread: the shard's owner.
 */
#include "engine/store/apply.h"

#include <stdlib.h>

/* ---- keys and values ---- */

static struct tb_key key2(uint32_t a, uint32_t b)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, a);
    tb_key_u32(&k, b);
    return k;
}

static bool fixed(struct tb_slice v, void *out, size_t len)
{
    if (v.len < len)
        return false;
    memcpy(out, v.ptr, len);
    return true;
}

struct tb_key tb_trash_key(int64_t due, uint32_t acct, uint32_t mbox, uint32_t uid)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, (uint64_t)due);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    tb_key_u32(&k, uid);
    return k;
}

void tb_trash_put(struct tb_applier *x, const struct open_mbox *m, const struct tb_disk_row *row, int64_t due,
                  int64_t when)
{
    char rest[TB_VALUE_MAX - sizeof(struct tb_disk_trash)];
    struct tb_disk_trash t = {.row = *row, .when = when};
    struct tb_disk_cache head;
    struct tb_slice data;
    size_t len = 0;
    if (due > when && tb_cache_get(x->ix, m->acct, m->mbox, row->uid, &head, &data) &&
        sizeof(head) + data.len <= sizeof(rest)) {
        memcpy(rest, &head, sizeof(head));
        memcpy(rest + sizeof(head), data.ptr, data.len);
        len = sizeof(head) + data.len;
    }
    struct tb_key k = tb_trash_key(due, m->acct, m->mbox, row->uid);
    tb_index_put2(x->ix, TB_DB_TRASH, tb_key_slice(&k), tb_slice(&t, sizeof(t)), tb_slice(rest, len));
    x->dirty_bytes += sizeof(t) + len;
}

bool tb_trash_get(struct tb_index *ix, const struct tb_key *key, struct tb_disk_trash *out, struct tb_slice *cache)
{
    struct tb_slice v;
    memset(out, 0, sizeof(*out));
    if (!tb_index_get(ix, TB_DB_TRASH, tb_key_slice(key), &v) || !fixed(v, &out->row, sizeof(out->row)))
        return false;
    (void)fixed(v, out, sizeof(*out)); /* format 1: a row alone */
    *cache = tb_slice_sub(v, sizeof(*out), v.len);
    return true;
}

static void grave_put(struct tb_applier *x, const struct tb_key *k, int64_t when, uint32_t state, struct tb_slice name)
{
    struct tb_disk_grave g = {.when = when, .state = state};
    tb_index_put2(x->ix, TB_DB_TRASH, tb_key_slice(k), tb_slice(&g, sizeof(g)), name);
}

/* grave_close: its purging begins: what is left of it cannot come back. */
static void grave_close(struct tb_applier *x, const struct tb_key *k)
{
    char name[TB_VALUE_MAX];
    struct tb_disk_grave g;
    struct tb_slice v;
    if (!tb_index_get(x->ix, TB_DB_TRASH, tb_key_slice(k), &v) || !fixed(v, &g, sizeof(g)) || g.state != 0)
        return;
    struct tb_slice rest = tb_slice_sub(v, sizeof(g), v.len);
    memcpy(name, rest.ptr, rest.len);
    grave_put(x, k, g.when, 1, tb_slice(name, rest.len));
}

/* full_name: of a mailbox, from its leaf and its parents' into out; cut to the leaf if it is too long. */
static struct tb_slice full_name(struct tb_applier *x, const struct open_mbox *m, char out[TB_MBOX_NAME_MAX])
{
    size_t at = TB_MBOX_NAME_MAX - m->leaf_len;
    struct tb_disk_mbox up;
    struct tb_slice leaf;
    memcpy(out + at, m->leaf, m->leaf_len);
    for (uint32_t parent = m->row.parent; parent != 0; parent = up.parent) {
        if (!tb_mbox_get(x->ix, m->acct, parent, &up, &leaf) || leaf.len + 1 > at)
            return tb_slice(m->leaf, m->leaf_len);
        out[--at] = '/';
        at -= leaf.len;
        memcpy(out + at, leaf.ptr, leaf.len);
    }
    return tb_slice(out + at, TB_MBOX_NAME_MAX - at);
}

/* ---- mailboxes ---- */

/* adopt: the mailboxes below `from` are below `to` from now on. */
static enum tb_rc adopt(struct tb_applier *x, uint32_t acct, uint32_t from, uint32_t to)
{
    struct tb_key key = key2(acct, from);
    struct tb_slice k, v;
    while (tb_index_ge(x->ix, TB_DB_TREE, tb_key_slice(&key), 8, &k, &v)) {
        struct open_mbox m;
        if (v.len != 4 || !tb_apply_mbox_load(x, acct, tb_get_le32(v.ptr), &m))
            return TB_CORRUPT;
        tb_apply_tree_del(x, acct, from, tb_slice(m.leaf, m.leaf_len));
        tb_apply_tree_put(x, acct, to, tb_slice(m.leaf, m.leaf_len), m.mbox);
        m.row.parent = to;
        tb_apply_mbox_save(x, &m);
    }
    return TB_OK;
}

/* count_mailbox: its messages count (sign 1), or not any more (-1), in the account and the shard. */
static void count_mailbox(struct tb_applier *x, const struct tb_disk_mbox *m, struct tb_disk_acct *a, int64_t sign)
{
    a->messages += (uint64_t)sign * m->messages;
    a->bytes += (uint64_t)sign * m->bytes;
    x->state.messages += (uint64_t)sign * m->messages;
    x->state.raw_bytes += (uint64_t)sign * m->bytes;
    tb_apply_count_mailbox(x, a, (int)sign);
}

/* bury: a mailbox goes to the trash as it is. */
static void bury(struct tb_applier *x, struct open_mbox *m, struct tb_disk_acct *a, int64_t due, int64_t when)
{
    char name[TB_MBOX_NAME_MAX];
    struct tb_key k = tb_trash_key(due, m->acct, m->mbox, 0);
    grave_put(x, &k, when, 0, full_name(x, m, name));
    count_mailbox(x, &m->row, a, -1);
    tb_apply_tree_del(x, m->acct, m->row.parent, tb_slice(m->leaf, m->leaf_len));
    m->row.flags |= TB_MBOX_NOSELECT | TB_MBOX_DELETED;
    m->row.due = due;
    tb_apply_mbox_save(x, m);
}

/* heir_put: what stays of a deleted mailbox with children: its name, under a number of its own. */
static enum tb_rc heir_put(struct tb_applier *x, const struct open_mbox *m, uint32_t heir, struct tb_disk_acct *a)
{
    struct tb_disk_mbox row = {.parent = m->row.parent,
                               .uidvalidity = m->row.uidvalidity,
                               .uidnext = 1,
                               .highestmodseq = a->modseq,
                               .chg_floor = a->modseq,
                               .mailboxid = (uint64_t)m->acct << 32 | heir,
                               .created_modseq = a->modseq,
                               .flags = TB_MBOX_NOSELECT};
    if (heir < a->next_mbox)
        return TB_CORRUPT;
    a->next_mbox = heir + 1;
    tb_mbox_put(x->ix, m->acct, heir, &row, m->leaf, m->leaf_len);
    tb_apply_tree_put(x, m->acct, row.parent, tb_slice(m->leaf, m->leaf_len), heir);
    return adopt(x, m->acct, m->mbox, heir);
}

struct emptying {
    struct tb_applier *x;
    struct open_mbox *m;
    struct tb_disk_acct *a;
    int64_t due;
};

static enum tb_edit empty_row(void *user, struct tb_disk_row *row)
{
    struct emptying *e = user;
    tb_apply_count(e->x, e->m, e->a, row, -1);
    tb_trash_put(e->x, e->m, row, e->due, 0);
    return TB_EDIT_REMOVE;
}

/* delete_format_1: the number stays with the name, so the messages go to the trash one by one. */
static void delete_format_1(struct tb_applier *x, struct open_mbox *m, struct tb_disk_acct *a, int64_t due)
{
    static const enum tb_db rest[] = {TB_DB_CACHE, TB_DB_CHG, TB_DB_KEYWORD, TB_DB_ANNOT};
    struct tb_range all = {1, UINT32_MAX};
    struct emptying e = {x, m, a, due};
    tb_rows_edit(x->ix, m->acct, m->mbox, &all, 1, empty_row, &e);
    for (size_t i = 0; i < TB_ARRAY_LEN(rest); i++)
        tb_blocks_drop(x->ix, rest[i], m->acct, m->mbox);
    tb_acl_drop(x->ix, m->acct, m->mbox);
    m->row.keywords_n = 0;
    m->row.flags |= TB_MBOX_NOSELECT;
    m->row.special = 0;
    m->row.highestmodseq = a->modseq;
    tb_apply_count_mailbox(x, a, -1);
    tb_apply_mbox_save(x, m);
}

enum tb_rc tb_apply_mbox_delete(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_mbox_delete p;
    struct open_mbox m;
    struct tb_disk_acct a;
    int64_t when = 0;
    enum tb_rc rc = TB_OK;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_apply_mbox_load(x, r->acct, p.mbox, &m) ||
        !tb_acct_get(x->ix, r->acct, &a) || m.row.flags & TB_MBOX_DELETED)
        return TB_CORRUPT;
    if (r->flags & TB_DELETE_WHEN && !fixed(tb_slice_sub(r->payload, sizeof(p), SIZE_MAX), &when, sizeof(when)))
        return TB_CORRUPT;
    a.modseq = p.modseq;
    bool keep = r->flags & TB_DELETE_KEEP_NAME;
    if (m.row.flags & TB_MBOX_NOSELECT) {
        if (!keep) { /* a name only: nothing to keep */
            struct tb_key k = key2(r->acct, p.mbox);
            tb_apply_tree_del(x, r->acct, m.row.parent, tb_slice(m.leaf, m.leaf_len));
            tb_index_del(x->ix, TB_DB_MBOX, tb_key_slice(&k));
        }
    } else if (keep && p.heir == 0) {
        delete_format_1(x, &m, &a, p.due);
    } else {
        bury(x, &m, &a, p.due, when);
        rc = keep ? heir_put(x, &m, p.heir, &a) : TB_OK;
    }
    tb_acct_put(x->ix, r->acct, &a);
    x->dirty_pages += 8;
    return rc;
}

/* ---- accounts ---- */

/* count_account: all of its mailboxes that are not in the trash for themselves, in the shard. The account counts them,
 * if it was made since it does; an older one is looked through. */
static void count_account(struct tb_applier *x, uint32_t acct, const struct tb_disk_acct *a, int64_t sign)
{
    uint32_t mailboxes = a->mailboxes != 0 ? a->mailboxes - 1 : tb_quota_count(x->ix, acct);
    x->state.mailboxes += (uint64_t)sign * mailboxes;
    x->state.messages += (uint64_t)sign * a->messages;
    x->state.raw_bytes += (uint64_t)sign * a->bytes;
    x->state.accounts += (uint64_t)sign;
}

enum tb_rc tb_apply_acct_delete(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_acct_delete p = {0};
    struct tb_disk_acct a;
    char name[TB_NAME_MAX];
    struct tb_slice v;
    struct tb_key ka;
    if (!fixed(r->payload, &p.due, sizeof(p.due)) || !tb_acct_get(x->ix, r->acct, &a) || a.flags & TB_ACCT_DELETED)
        return TB_CORRUPT;
    (void)fixed(r->payload, &p, sizeof(p));
    tb_key_begin(&ka);
    tb_key_u32(&ka, r->acct);
    if (!tb_index_get(x->ix, TB_DB_ACCT, tb_key_slice(&ka), &v))
        return TB_CORRUPT;
    v = tb_slice_sub(v, sizeof(a), sizeof(name));
    memcpy(name, v.ptr, v.len);
    struct tb_key k = tb_trash_key(p.due, r->acct, 0, 0);
    grave_put(x, &k, p.when, 0, tb_slice(name, v.len));
    count_account(x, r->acct, &a, -1);
    a.flags |= TB_ACCT_DELETED;
    a.due = p.due;
    tb_acct_put(x->ix, r->acct, &a);
    return TB_OK;
}

enum tb_rc tb_apply_unplace(struct tb_applier *x, const struct tb_record *r)
{
    char place[TB_VALUE_MAX];
    struct tb_pay_unplace p;
    struct tb_slice v;
    struct tb_key ka;
    tb_key_begin(&ka);
    tb_key_u32(&ka, r->acct);
    if (fixed(r->payload, &p, sizeof(p)) && tb_index_get(x->ix, TB_DB_PLACE, tb_key_slice(&ka), &v)) {
        struct tb_key k = tb_trash_key(p.due, r->acct, TB_TRASH_PLACE, 0);
        memcpy(place, v.ptr, v.len);
        grave_put(x, &k, p.when, 0, tb_slice(place, v.len));
    }
    tb_index_del(x->ix, TB_DB_PLACE, tb_key_slice(&ka));
    return TB_OK;
}

/* ---- coming back ---- */

static enum tb_rc undelete_account(struct tb_applier *x, const struct tb_record *r, const struct tb_pay_undelete *p)
{
    struct tb_disk_acct a;
    if (!tb_acct_get(x->ix, r->acct, &a) || !(a.flags & TB_ACCT_DELETED) || a.due != p->due)
        return TB_CORRUPT;
    struct tb_key k = tb_trash_key(p->due, r->acct, 0, 0);
    tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(&k));
    count_account(x, r->acct, &a, 1);
    a.flags &= ~(uint32_t)TB_ACCT_DELETED;
    a.due = 0;
    tb_acct_put(x->ix, r->acct, &a);
    return TB_OK;
}

/* replace: the name that stood in for a deleted mailbox goes; its children come to the mailbox. */
static enum tb_rc replace(struct tb_applier *x, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t mbox)
{
    struct tb_disk_mbox row;
    uint32_t heir;
    if (!tb_tree_get(x->ix, acct, parent, leaf, &heir) || !tb_mbox_get(x->ix, acct, heir, &row, NULL) ||
        !(row.flags & TB_MBOX_NOSELECT))
        return TB_CORRUPT;
    struct tb_key k = key2(acct, heir);
    tb_apply_tree_del(x, acct, parent, leaf);
    tb_index_del(x->ix, TB_DB_MBOX, tb_key_slice(&k));
    return adopt(x, acct, heir, mbox);
}

enum tb_rc tb_apply_undelete(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_undelete p;
    struct open_mbox m;
    struct tb_disk_acct a;
    uint32_t other;
    if (!fixed(r->payload, &p, sizeof(p)))
        return TB_CORRUPT;
    if (p.mbox == 0)
        return undelete_account(x, r, &p);
    struct tb_slice leaf = tb_slice_sub(r->payload, sizeof(p), SIZE_MAX);
    if (leaf.len == 0 || leaf.len > TB_MBOX_LEAF_MAX || !tb_apply_mbox_load(x, r->acct, p.mbox, &m) ||
        !tb_acct_get(x->ix, r->acct, &a) || !(m.row.flags & TB_MBOX_DELETED) || m.row.due != p.due)
        return TB_CORRUPT;
    if (r->flags & TB_UNDELETE_REPLACE && replace(x, r->acct, p.parent, leaf, p.mbox) != TB_OK)
        return TB_CORRUPT;
    if (tb_tree_get(x->ix, r->acct, p.parent, leaf, &other))
        return TB_CORRUPT;
    struct tb_key k = tb_trash_key(p.due, r->acct, p.mbox, 0);
    tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(&k));
    m.row.flags &= (uint16_t) ~(TB_MBOX_NOSELECT | TB_MBOX_DELETED);
    m.row.due = 0;
    m.row.parent = p.parent;
    m.row.special = r->flags & TB_UNDELETE_PLAIN ? 0 : m.row.special;
    m.row.highestmodseq = a.modseq = p.modseq;
    count_mailbox(x, &m.row, &a, 1);
    tb_apply_tree_put(x, r->acct, p.parent, leaf, p.mbox);
    tb_mbox_put(x->ix, r->acct, p.mbox, &m.row, leaf.ptr, leaf.len);
    tb_acct_put(x->ix, r->acct, &a);
    x->dirty_pages += 8;
    return TB_OK;
}

/* unexpunge_row: one message out of the trash and to the end of dst. Its reference comes along. */
static bool unexpunge_row(struct tb_applier *x, const struct tb_pay_unexpunge *p, const struct tb_key *key,
                          struct open_mbox *dst, struct tb_disk_acct *a, uint32_t uid)
{
    char copy[TB_VALUE_MAX];
    struct tb_disk_trash t;
    struct tb_disk_cache head;
    struct tb_slice cache;
    if (!tb_trash_get(x->ix, key, &t, &cache))
        return false;
    memcpy(copy, cache.ptr, cache.len);
    uint64_t keywords = t.row.keywords;
    t.row.uid = uid;
    t.row.modseq = p->modseq;
    t.row.savedate = p->savedate;
    t.row.flags &= (uint16_t)~TB_FLAG_DELETED;
    t.row.keywords = 0;
    for (unsigned bit = 0; bit < 64; bit++)
        if (keywords >> bit & 1 && p->keyword[bit] < 64)
            t.row.keywords |= (uint64_t)1 << p->keyword[bit];
    tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(key));
    tb_apply_count(x, dst, a, &t.row, 1);
    tb_rows_append(x->ix, dst->acct, dst->mbox, &t.row);
    if (fixed(tb_slice(copy, cache.len), &head, sizeof(head)) && head.clen == cache.len - sizeof(head)) {
        head.uid = uid;
        tb_cache_append(x->ix, dst->acct, dst->mbox, &head, copy + sizeof(head));
    }
    x->dirty_bytes += 2 * (sizeof(t) + cache.len);
    return true;
}

enum tb_rc tb_apply_unexpunge(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_unexpunge p;
    struct tb_pay_unexpunged one;
    struct open_mbox dst;
    struct tb_disk_acct a;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_apply_mbox_load(x, r->acct, p.dst, &dst) ||
        !tb_acct_get(x->ix, r->acct, &a) || p.dst_uid < dst.row.uidnext || dst.row.staged != 0 ||
        p.n > UINT32_MAX - p.dst_uid || p.n != (r->payload.len - sizeof(p)) / sizeof(one))
        return TB_CORRUPT;
    for (uint32_t i = 0; i < p.n; i++) {
        memcpy(&one, r->payload.ptr + sizeof(p) + i * sizeof(one), sizeof(one));
        struct tb_key k = tb_trash_key(one.due, r->acct, p.src, one.uid);
        if (one.uid == 0 || !unexpunge_row(x, &p, &k, &dst, &a, p.dst_uid + i))
            return TB_CORRUPT;
    }
    dst.row.uidnext = p.dst_uid + p.n;
    dst.row.highestmodseq = a.modseq = p.modseq;
    tb_apply_mbox_save(x, &dst);
    tb_acct_put(x->ix, r->acct, &a);
    return TB_OK;
}

/* ---- going ---- */

/* has_rule: does it count in state.rules? */
static bool has_rule(const struct tb_disk_mbox *m)
{
    return m->retention != TB_RETENTION_DEFAULT && m->retention != TB_RETENTION_FOREVER;
}

enum tb_rc tb_apply_rule(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_rule p;
    struct open_mbox m;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_apply_mbox_load(x, r->acct, p.mbox, &m))
        return TB_CORRUPT;
    x->state.rules -= has_rule(&m.row);
    m.row.retention = p.days;
    x->state.rules += has_rule(&m.row);
    tb_apply_mbox_save(x, &m);
    return TB_OK;
}

struct purging {
    struct tb_applier *x;
    struct tb_disk_mbox *m;
};

static enum tb_edit purge_row(void *user, struct tb_disk_row *row)
{
    struct purging *p = user;
    if (row->uid < p->m->uidnext) { /* not staged */
        p->m->messages--;
        p->m->unseen -= !(row->flags & TB_FLAG_SEEN);
        p->m->deleted -= (row->flags & TB_FLAG_DELETED) != 0;
        p->m->bytes -= row->size;
    }
    tb_apply_unref(p->x, row->blob);
    p->x->dirty_pages++;
    return TB_EDIT_REMOVE;
}

/* purge_mailbox: a piece of a deleted mailbox, or of a mailbox of a deleted account. */
static enum tb_rc purge_mailbox(struct tb_applier *x, const struct tb_pay_purge *p)
{
    static const enum tb_db rest[] = {TB_DB_CACHE, TB_DB_CHG, TB_DB_KEYWORD, TB_DB_ANNOT};
    struct tb_range upto = {1, p->uid};
    struct tb_disk_row left;
    struct open_mbox m;
    struct tb_key own = tb_trash_key(p->due, p->acct, p->mbox, 0), account = tb_trash_key(p->due, p->acct, 0, 0);
    if (!tb_apply_mbox_load(x, p->acct, p->mbox, &m))
        return TB_CORRUPT;
    grave_close(x, &own);
    grave_close(x, &account);
    struct purging purging = {x, &m.row};
    tb_rows_edit(x->ix, p->acct, p->mbox, &upto, 1, purge_row, &purging);
    tb_cache_remove(x->ix, p->acct, p->mbox, &upto, 1);
    if (tb_rows_scan(x->ix, p->acct, p->mbox, 1, &left, 1) > 0) {
        tb_apply_mbox_save(x, &m);
        return TB_OK;
    }
    x->state.rules -= has_rule(&m.row);
    x->state.staged -= m.row.staged != 0;
    for (size_t i = 0; i < TB_ARRAY_LEN(rest); i++)
        tb_blocks_drop(x->ix, rest[i], p->acct, p->mbox);
    tb_acl_drop(x->ix, p->acct, p->mbox);
    if (!(m.row.flags & TB_MBOX_DELETED))
        tb_apply_tree_del(x, p->acct, m.row.parent, tb_slice(m.leaf, m.leaf_len));
    struct tb_key k = key2(p->acct, p->mbox);
    tb_index_del(x->ix, TB_DB_MBOX, tb_key_slice(&k));
    tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(&own));
    return TB_OK;
}

/* purge_staged: what a COPY that is not going to be completed left behind UID p->uid. */
static enum tb_rc purge_staged(struct tb_applier *x, const struct tb_pay_purge *p)
{
    struct tb_range over = {p->uid + 1, UINT32_MAX};
    struct open_mbox m;
    if (p->uid == UINT32_MAX || !tb_apply_mbox_load(x, p->acct, p->mbox, &m) || m.row.staged == 0 ||
        p->uid + 1 < m.row.uidnext || p->uid + 1 >= m.row.uidnext + m.row.staged)
        return TB_CORRUPT;
    struct purging purging = {x, &m.row};
    tb_rows_edit(x->ix, p->acct, p->mbox, &over, 1, purge_row, &purging);
    tb_cache_remove(x->ix, p->acct, p->mbox, &over, 1);
    m.row.staged = p->uid + 1 - m.row.uidnext;
    x->state.staged -= m.row.staged == 0;
    tb_apply_mbox_save(x, &m);
    return TB_OK;
}

/* purge_account: up to p->uid rows of a deleted account that has no mailbox any more, and with the last one itself. */
static void purge_account(struct tb_applier *x, const struct tb_pay_purge *p)
{
    static const enum tb_db rest[] = {TB_DB_TREE, TB_DB_SUB, TB_DB_KEYWORD, TB_DB_ANNOT};
    struct tb_key key, trash = tb_trash_key(p->due, p->acct, 0, 0);
    struct tb_slice k, v;
    uint32_t n = 0;
    tb_key_begin(&key);
    tb_key_u32(&key, p->acct);
    grave_close(x, &trash);
    for (size_t i = 0; i < TB_ARRAY_LEN(rest); i++)
        while (tb_index_ge(x->ix, rest[i], tb_key_slice(&key), 4, &k, &v)) {
            struct tb_key found;
            if (n++ == p->uid)
                return;
            tb_key_begin(&found);
            tb_key_bytes(&found, k);
            tb_index_del(x->ix, rest[i], tb_key_slice(&found));
        }
    tb_index_del(x->ix, TB_DB_ACCT, tb_key_slice(&key));
    tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(&trash));
}

enum tb_rc tb_apply_purge(struct tb_applier *x, const struct tb_record *r)
{
    struct tb_pay_purge p;
    if (r->flags & (TB_PURGE_MAILBOX | TB_PURGE_ACCOUNT | TB_PURGE_STAGED)) {
        if (!fixed(r->payload, &p, sizeof(p)))
            return TB_CORRUPT;
        if (r->flags & TB_PURGE_STAGED)
            return purge_staged(x, &p);
        if (r->flags & TB_PURGE_MAILBOX)
            return purge_mailbox(x, &p);
        purge_account(x, &p);
        return TB_OK;
    }
    for (size_t at = 0; at + sizeof(p) <= r->payload.len; at += sizeof(p)) {
        memcpy(&p, r->payload.ptr + at, sizeof(p));
        struct tb_key k = tb_trash_key(p.due, p.acct, p.mbox, p.uid);
        struct tb_disk_trash t;
        struct tb_slice cache;
        if (p.uid != 0 && !tb_trash_get(x->ix, &k, &t, &cache))
            continue;
        tb_index_del(x->ix, TB_DB_TRASH, tb_key_slice(&k));
        if (p.uid != 0)
            tb_apply_unref(x, t.row.blob);
        x->dirty_pages += 2;
    }
    return TB_OK;
}
