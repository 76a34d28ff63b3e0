/*
 * mailbox.c: names, creation, deletion, renaming, subscriptions, keywords. A name is a path of leaves in the tree
 * database, so that renaming a subtree moves one row.
 *
 * Every change is: check, admit, one frame of records, tell watchers. Thread: the shard's owner.
 */
#include <tambo/message.h>
#include "engine/store/shard.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- names ---- */

struct path {
    struct tb_slice leaf[TB_MBOX_DEPTH_MAX];
    size_t n;
    char bytes[TB_MBOX_NAME_MAX]; /* the normalised name */
    size_t len;
};

static bool leaf_valid(struct tb_slice leaf)
{
    if (leaf.len == 0 || tb_slice_eq(leaf, TB_SLICE(".")) || tb_slice_eq(leaf, TB_SLICE("..")))
        return false;
    for (size_t i = 0; i < leaf.len; i++) {
        unsigned char c = (unsigned char)leaf.ptr[i];
        if (c < 0x20 || c == 0x7f || c == '*' || c == '%')
            return false;
        if (c == 0xc2 && i + 1 < leaf.len && (unsigned char)leaf.ptr[i + 1] < 0xa0) /* C1 controls */
            return false;
    }
    return true;
}

static bool ascii(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return false;
    return true;
}

static enum tb_rc path_normalise(struct tb_slice name, struct path *p)
{
    if (name.len > 0 && name.ptr[name.len - 1] == '/')
        name.len--; /* CREATE "a/" announces children; the name is "a" (RFC 9051 6.3.4) */
    if (name.len == 0)
        return TB_INVALID;
    if (name.len > TB_MBOX_NAME_MAX)
        return TB_LIMIT;
    if (ascii(name)) {
        memcpy(p->bytes, name.ptr, name.len);
        p->len = name.len;
        return TB_OK;
    }
    struct tb_buf nfc;
    tb_buf_init(&nfc, sizeof(p->bytes));
    bool good = tb_utf8_nfc(name, &nfc);
    enum tb_rc rc = !good ? TB_INVALID : nfc.failed ? TB_LIMIT : TB_OK;
    if (rc == TB_OK) {
        memcpy(p->bytes, nfc.ptr, nfc.len);
        p->len = nfc.len;
    }
    tb_buf_free(&nfc);
    return rc;
}

static enum tb_rc path_parse(struct tb_slice name, struct path *p)
{
    enum tb_rc rc = path_normalise(name, p);
    p->n = 0;
    for (size_t at = 0; rc == TB_OK && at <= p->len;) {
        const char *slash = memchr(p->bytes + at, '/', p->len - at);
        size_t end = slash != NULL ? (size_t)(slash - p->bytes) : p->len;
        struct tb_slice leaf = tb_slice(p->bytes + at, end - at);
        if (!leaf_valid(leaf))
            return TB_INVALID;
        if (leaf.len > TB_MBOX_LEAF_MAX || p->n == TB_MBOX_DEPTH_MAX)
            return TB_LIMIT;
        if (p->n == 0 && tb_slice_ieq(leaf, TB_SLICE("INBOX")))
            memcpy(p->bytes + at, "INBOX", 5);
        p->leaf[p->n++] = leaf;
        at = end + 1;
    }
    return rc;
}

static bool is_inbox(const struct path *p)
{
    return p->n == 1 && tb_slice_eq(p->leaf[0], TB_SLICE("INBOX"));
}

/* path_walk: how many leaves exist from the top; *mbox: the deepest one found, 0 = the root; *parent: the one above it.
 */
static size_t path_walk(struct tb_account *a, const struct path *p, uint32_t *mbox, uint32_t *parent)
{
    uint32_t at = 0, above = 0, next;
    size_t i = 0;
    for (; i < p->n && tb_tree_get(a->shard->ix, a->acct, at, p->leaf[i], &next); i++) {
        above = at;
        at = next;
    }
    *mbox = at;
    if (parent != NULL)
        *parent = above;
    return i;
}

/* ---- reading ---- */

static bool has_children(struct tb_account *a, uint32_t mbox)
{
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u32(&key, a->acct);
    tb_key_u32(&key, mbox);
    return tb_index_ge(a->shard->ix, TB_DB_TREE, tb_key_slice(&key), 8, &k, &v);
}

static struct tb_key sub_key(uint32_t acct, struct tb_slice name)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_bytes(&k, name);
    return k;
}

static void fill(const struct tb_account *a, struct tb_mailbox *out, uint32_t mbox, const struct tb_disk_mbox *m)
{
    out->mbox = mbox;
    out->uidvalidity = m->uidvalidity;
    out->uidnext = m->uidnext;
    out->messages = m->messages;
    out->unseen = m->unseen;
    out->deleted = m->deleted;
    out->highestmodseq = m->highestmodseq;
    out->bytes = m->bytes;
    out->special = m->special;
    out->mailboxid = m->mailboxid;
    out->selectable = !(m->flags & TB_MBOX_NOSELECT);
    out->retention = m->retention;
    out->retention_days = tb_retention_days(a->shard->store, m);
}

static enum tb_rc index_failed(struct tb_account *a, enum tb_rc otherwise)
{
    if (a->shard->failed)
        return TB_IO;
    enum tb_rc rc = tb_index_rc(a->shard->ix);
    if (rc == TB_OK)
        return otherwise;
    struct tb_error err;
    (void)tb_error_set(&err, rc, 0, "shard %s: %s", a->shard->dir, tb_index_error(a->shard->ix));
    tb_shard_fail(a->shard, &err);
    return rc;
}

enum tb_rc tb_mailbox_find(struct tb_account *a, struct tb_slice name, struct tb_arena *arena, struct tb_mailbox *out)
{
    struct path p;
    struct tb_disk_mbox m;
    uint32_t mbox;
    memset(out, 0, sizeof(*out));
    enum tb_rc rc = path_parse(name, &p);
    if (rc != TB_OK)
        return rc;
    if (a->deleted || path_walk(a, &p, &mbox, NULL) != p.n || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL))
        return index_failed(a, TB_NOTFOUND);
    fill(a, out, mbox, &m);
    out->name = tb_arena_copy(arena, tb_slice(p.bytes, p.len));
    out->has_children = has_children(a, mbox);
    struct tb_key k = sub_key(a->acct, tb_slice(p.bytes, p.len));
    struct tb_slice v;
    out->subscribed = tb_index_get(a->shard->ix, TB_DB_SUB, tb_key_slice(&k), &v);
    return out->name.ptr == NULL ? TB_LIMIT : index_failed(a, TB_OK);
}

uint32_t tb_mailbox_number(struct tb_shard *s, uint32_t acct, struct tb_slice name)
{
    struct tb_account a = {.shard = s, .acct = acct};
    struct path p;
    struct tb_disk_mbox m;
    uint32_t mbox;
    if (path_parse(name, &p) != TB_OK || path_walk(&a, &p, &mbox, NULL) != p.n ||
        !tb_mbox_get(s->ix, acct, mbox, &m, NULL))
        return 0;
    return m.flags & TB_MBOX_NOSELECT ? 0 : mbox;
}

enum tb_rc tb_mailbox_get(struct tb_account *a, uint32_t mbox, struct tb_arena *arena, struct tb_mailbox *out)
{
    char name[TB_MBOX_NAME_MAX + TB_MBOX_LEAF_MAX + 1];
    size_t at = sizeof(name);
    struct tb_disk_mbox m;
    struct tb_slice leaf;
    memset(out, 0, sizeof(*out));
    if (a->deleted || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, &leaf) || m.flags & TB_MBOX_DELETED)
        return index_failed(a, TB_NOTFOUND);
    fill(a, out, mbox, &m);
    for (;;) { /* the name grows from its end */
        if (leaf.len + 1 > at)
            return TB_LIMIT;
        at -= leaf.len;
        memcpy(name + at, leaf.ptr, leaf.len);
        if (m.parent == 0)
            break;
        name[--at] = '/';
        if (!tb_mbox_get(a->shard->ix, a->acct, m.parent, &m, &leaf))
            return index_failed(a, TB_CORRUPT);
    }
    out->name = tb_arena_copy(arena, tb_slice(name + at, sizeof(name) - at));
    out->has_children = has_children(a, mbox);
    return out->name.ptr == NULL ? TB_LIMIT : TB_OK;
}

/* ---- listing ---- */

struct edge { /* a tree row */
    uint32_t parent, mbox;
    struct tb_slice leaf;
};
struct listing {
    struct tb_account *a;
    struct tb_arena *arena;
    struct edge *edges; /* by parent, leaf */
    size_t edges_n;
    struct tb_slice *subs; /* in byte order */
    bool *sub_used;
    size_t subs_n;
    struct tb_mailbox *v;
    size_t n;
};

static size_t count_prefix(struct tb_index *ix, enum tb_db db, struct tb_slice key)
{
    struct tb_slice k, v;
    size_t n = 0;
    for (bool more = tb_index_ge(ix, db, key, key.len, &k, &v); more; more = tb_index_next(ix, db, key.len, &k, &v))
        n++;
    return n;
}

static bool collect(struct listing *l)
{
    struct tb_index *ix = l->a->shard->ix;
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u32(&key, l->a->acct);
    size_t edges = count_prefix(ix, TB_DB_TREE, tb_key_slice(&key)),
           subs = count_prefix(ix, TB_DB_SUB, tb_key_slice(&key));
    l->edges = tb_arena_alloc(l->arena, (edges + 1) * sizeof(*l->edges));
    l->subs = tb_arena_alloc(l->arena, (subs + 1) * sizeof(*l->subs));
    l->sub_used = tb_arena_alloc(l->arena, subs + 1);
    l->v = tb_arena_alloc(l->arena, (edges + subs + 1) * sizeof(*l->v));
    if (l->edges == NULL || l->subs == NULL || l->sub_used == NULL || l->v == NULL)
        return false;
    bool more = tb_index_ge(ix, TB_DB_TREE, tb_key_slice(&key), 4, &k, &v);
    for (; more && l->edges_n < edges; more = tb_index_next(ix, TB_DB_TREE, 4, &k, &v))
        if (k.len > 8 && v.len == 4)
            l->edges[l->edges_n++] = (struct edge){tb_get_be32(k.ptr + 4), tb_get_le32(v.ptr),
                                                   tb_arena_copy(l->arena, tb_slice(k.ptr + 8, k.len - 8))};
    more = tb_index_ge(ix, TB_DB_SUB, tb_key_slice(&key), 4, &k, &v);
    for (; more && l->subs_n < subs; more = tb_index_next(ix, TB_DB_SUB, 4, &k, &v))
        l->subs[l->subs_n++] = tb_arena_copy(l->arena, tb_slice(k.ptr + 4, k.len - 4));
    return !l->arena->overflowed;
}

static size_t edges_of(const struct listing *l, uint32_t parent)
{
    size_t lo = 0, hi = l->edges_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (l->edges[mid].parent < parent)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool subscribed(struct listing *l, struct tb_slice name)
{
    size_t lo = 0, hi = l->subs_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        size_t n = l->subs[mid].len < name.len ? l->subs[mid].len : name.len;
        int c = n > 0 ? memcmp(l->subs[mid].ptr, name.ptr, n) : 0;
        if (c == 0 && l->subs[mid].len == name.len) {
            l->sub_used[mid] = true;
            return true;
        }
        if (c < 0 || (c == 0 && l->subs[mid].len < name.len))
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

static bool emit(struct listing *l, const struct edge *e, struct tb_slice parent_name)
{
    struct tb_disk_mbox m;
    struct tb_mailbox *out = &l->v[l->n];
    if (!tb_mbox_get(l->a->shard->ix, l->a->acct, e->mbox, &m, NULL))
        return false;
    fill(l->a, out, e->mbox, &m);
    if (parent_name.len == 0) {
        out->name = e->leaf;
    } else {
        char *p = tb_arena_alloc(l->arena, parent_name.len + 1 + e->leaf.len);
        if (p == NULL)
            return false;
        memcpy(p, parent_name.ptr, parent_name.len);
        p[parent_name.len] = '/';
        memcpy(p + parent_name.len + 1, e->leaf.ptr, e->leaf.len);
        out->name = tb_slice(p, parent_name.len + 1 + e->leaf.len);
    }
    size_t child = edges_of(l, e->mbox);
    out->has_children = child < l->edges_n && l->edges[child].parent == e->mbox;
    out->subscribed = subscribed(l, out->name);
    l->n++;
    return true;
}

/* walk: depth first from one parent, with a stack of positions in the edge list. */
static bool walk(struct listing *l, size_t first, bool one)
{
    struct {
        size_t at;
        uint32_t parent;
        struct tb_slice name;
    } stack[TB_MBOX_DEPTH_MAX + 1];
    size_t depth = 1;
    stack[0].at = first;
    stack[0].parent = 0;
    stack[0].name = tb_slice(NULL, 0);
    while (depth > 0) {
        size_t at = stack[depth - 1].at++;
        if (at >= l->edges_n || l->edges[at].parent != stack[depth - 1].parent || (one && depth == 1 && at != first)) {
            depth--;
            continue;
        }
        if (!one && depth == 1 && l->edges[at].mbox == TB_MBOX_INBOX)
            continue; /* listed first, by its own walk */
        if (!emit(l, &l->edges[at], stack[depth - 1].name))
            return false;
        if (l->v[l->n - 1].has_children && depth <= TB_MBOX_DEPTH_MAX) {
            stack[depth].at = edges_of(l, l->edges[at].mbox);
            stack[depth].parent = l->edges[at].mbox;
            stack[depth].name = l->v[l->n - 1].name;
            depth++;
        }
    }
    return true;
}

/* tree_order: INBOX and what is below it first; else level by level in byte order, a parent before its children. */
static int tree_order(const void *a, const void *b)
{
    const struct tb_mailbox *x = a, *y = b;
    struct tb_slice m = x->name, n = y->name;
    bool in_m = tb_slice_istarts(m, TB_SLICE("INBOX")) && (m.len == 5 || m.ptr[5] == '/');
    bool in_n = tb_slice_istarts(n, TB_SLICE("INBOX")) && (n.len == 5 || n.ptr[5] == '/');
    if (in_m != in_n)
        return in_m ? -1 : 1;
    size_t i = 0, least = m.len < n.len ? m.len : n.len;
    while (i < least && m.ptr[i] == n.ptr[i])
        i++;
    if (i == least)
        return m.len < n.len ? -1 : m.len > n.len;
    int c = m.ptr[i] == '/' ? -1 : (uint8_t)m.ptr[i], d = n.ptr[i] == '/' ? -1 : (uint8_t)n.ptr[i];
    return c < d ? -1 : 1;
}

enum tb_rc tb_mailbox_list(struct tb_account *a, struct tb_arena *arena, struct tb_mailbox **v, size_t *n)
{
    struct listing l = {.a = a, .arena = arena};
    *v = NULL;
    *n = 0;
    if (a->deleted)
        return TB_OK;
    bool good = collect(&l);
    for (size_t i = 0; good && i < l.edges_n && l.edges[i].parent == 0; i++)
        if (l.edges[i].mbox == TB_MBOX_INBOX)
            good = walk(&l, i, true);
    good = good && walk(&l, 0, false);
    if (!good)
        return index_failed(a, arena->overflowed ? TB_LIMIT : TB_CORRUPT);
    size_t there = l.n;
    for (size_t i = 0; i < l.subs_n; i++)
        if (!l.sub_used[i])
            l.v[l.n++] = (struct tb_mailbox){.name = l.subs[i], .subscribed = true};
    if (l.n > there)
        qsort(l.v, l.n, sizeof(*l.v), tree_order);
    *v = l.v;
    *n = l.n;
    return index_failed(a, TB_OK);
}

/* ---- changing ---- */

static uint32_t new_uidvalidity(struct tb_shard *s)
{
    int64_t now = tb_io_wall_s(s->worker->io);
    uint32_t v = now > 0 && now < UINT32_MAX ? (uint32_t)now : 1;
    return v > s->x.state.uidvalidity_max ? v : s->x.state.uidvalidity_max + 1;
}

static uint64_t next_modseq(struct tb_account *a, struct tb_disk_acct *row)
{
    return tb_acct_get(a->shard->ix, a->acct, row) ? row->modseq + 1 : 0;
}

static void log_mbox(struct tb_account *a, uint32_t mbox, uint32_t parent, struct tb_slice leaf, uint16_t special,
                     uint16_t flags, uint64_t modseq)
{
    struct tb_pay_mbox p = {.mbox = mbox,
                            .parent = parent,
                            .uidvalidity = new_uidvalidity(a->shard),
                            .special = special,
                            .flags = flags,
                            .mailboxid = (uint64_t)a->acct << 32 | mbox,
                            .modseq = modseq};
    tb_shard_record(a->shard, TB_REC_MBOX, 0, a->acct, tb_slice(&p, sizeof(p)), leaf, tb_slice(NULL, 0));
}

/* admit_path: room for a path of p's leaves, from index `have` on, below `at`: each inherits the entries of its
 * parent's ACL. */
static enum tb_rc admit_path(struct tb_account *a, const struct path *p, size_t have, uint32_t at, size_t more)
{
    uint32_t entries = at != 0 ? tb_acl_entries(a->shard, a->acct, at) : 0;
    size_t each = sizeof(struct tb_pay_mbox) + sizeof(struct tb_pay_acl);
    return tb_shard_admit(a->shard, p->len + (p->n + 1) * each + more,
                          (uint32_t)p->n + 2 + (uint32_t)(p->n - have + 1) * (entries + 1), ADMIT_GROW);
}

/* make_path: log MBOX records for the leaves of p from index `have` on, below `at`. Admitted by the caller. */
static uint32_t make_path(struct tb_account *a, const struct path *p, size_t have, uint32_t at, size_t upto,
                          uint16_t special, uint16_t flags)
{
    for (size_t i = have; i < upto; i++) {
        struct tb_disk_acct row;
        uint64_t modseq = next_modseq(a, &row);
        log_mbox(a, row.next_mbox, at, p->leaf[i], i + 1 == p->n ? special : 0, flags, modseq);
        if (at != 0 && !(flags & TB_MBOX_NOSELECT))
            tb_acl_inherit(a->shard, a->acct, at, row.next_mbox);
        at = row.next_mbox;
    }
    return at;
}

enum tb_rc tb_mailbox_create(struct tb_account *a, struct tb_slice name, uint16_t special, uint32_t *mbox)
{
    struct path p;
    uint32_t at, parent;
    struct tb_disk_mbox m;
    struct tb_disk_acct row;
    enum tb_rc rc = path_parse(name, &p);
    if (rc != TB_OK)
        return rc;
    if (a->deleted || next_modseq(a, &row) == 0)
        return index_failed(a, TB_NOTFOUND);
    size_t have = path_walk(a, &p, &at, &parent);
    bool revive = have == p.n && tb_mbox_get(a->shard->ix, a->acct, at, &m, NULL) && m.flags & TB_MBOX_NOSELECT;
    if (have == p.n && !revive)
        return index_failed(a, TB_EXISTS);
    rc = tb_quota_mailboxes(a->shard, a->acct, revive ? 1 : p.n - have);
    if (rc == TB_OK)
        rc = admit_path(a, &p, have, revive ? parent : at, 0);
    if (rc != TB_OK)
        return rc;
    if (revive) {
        log_mbox(a, at, parent, p.leaf[p.n - 1], special, 0, row.modseq + 1);
        tb_acl_inherit(a->shard, a->acct, parent, at);
    } else {
        at = make_path(a, &p, have, at, p.n, special, 0);
    }
    if (mbox != NULL)
        *mbox = at;
    tb_shard_touched(a->shard, a->acct, at);
    return index_failed(a, TB_OK);
}

enum tb_rc tb_mailbox_delete(struct tb_account *a, struct tb_slice name)
{
    struct path p;
    uint32_t mbox;
    struct tb_disk_mbox m;
    struct tb_disk_acct row;
    enum tb_rc rc = path_parse(name, &p);
    if (rc != TB_OK)
        return rc;
    if (is_inbox(&p))
        return TB_INVALID;
    if (a->deleted || path_walk(a, &p, &mbox, NULL) != p.n || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL))
        return index_failed(a, TB_NOTFOUND);
    if (m.staged != 0)
        return TB_BUSY; /* a COPY is on its way there */
    bool keep = has_children(a, mbox);
    if (keep && m.flags & TB_MBOX_NOSELECT)
        return TB_EXISTS;
    rc = tb_shard_admit(a->shard, sizeof(struct tb_pay_mbox_delete) + sizeof(int64_t), 1, ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    struct tb_pay_mbox_delete d = {.mbox = mbox, .modseq = next_modseq(a, &row), .due = tb_due(a->shard)};
    d.heir = keep ? row.next_mbox : 0;
    int64_t now = tb_io_wall_s(a->shard->worker->io);
    tb_shard_record(a->shard, TB_REC_MBOX_DELETE, (uint8_t)(TB_DELETE_WHEN | (keep ? TB_DELETE_KEEP_NAME : 0)), a->acct,
                    tb_slice(&d, sizeof(d)), tb_slice(&now, sizeof(now)), tb_slice(NULL, 0));
    tb_shard_touched(a->shard, a->acct, mbox);
    return index_failed(a, TB_OK);
}

/* rename_inbox: its messages are to move to a new mailbox; INBOX stays, empty (RFC 9051 6.3.6). */
static enum tb_rc rename_inbox(struct tb_account *a, const struct path *to, struct tb_renaming *left)
{
    uint32_t at;
    struct tb_disk_mbox inbox;
    if (!tb_mbox_get(a->shard->ix, a->acct, TB_MBOX_INBOX, &inbox, NULL))
        return index_failed(a, TB_NOTFOUND);
    size_t have = path_walk(a, to, &at, NULL);
    enum tb_rc rc = tb_quota_mailboxes(a->shard, a->acct, to->n - have);
    if (rc == TB_OK)
        rc = admit_path(a, to, have, at, 64);
    if (rc != TB_OK)
        return rc;
    left->mbox = make_path(a, to, have, at, to->n, 0, 0);
    left->below = inbox.uidnext;
    tb_shard_touched(a->shard, a->acct, 0);
    return index_failed(a, TB_OK);
}

/* inbox_slice: the next of the messages that move, and their keywords. */
static uint32_t inbox_slice(struct tb_account *a, uint32_t below, struct tb_uidset *set, uint64_t *keywords)
{
    enum { SLICE = 1024, ROWS = 256 };
    struct tb_disk_row rows[ROWS];
    uint32_t n = 0;
    for (uint32_t uid = 1; n < SLICE;) {
        size_t got = tb_rows_scan(a->shard->ix, a->acct, TB_MBOX_INBOX, uid, rows, ROWS), i = 0;
        for (; i < got && rows[i].uid < below; i++, n++) {
            tb_uidset_add(set, rows[i].uid, rows[i].uid);
            *keywords |= rows[i].keywords;
        }
        if (i < ROWS)
            break;
        uid = rows[i - 1].uid + 1;
    }
    return n;
}

/* log_move: one COPY record that moves these messages of INBOX. */
static enum tb_rc log_move(struct tb_account *a, uint32_t to, const struct tb_uidset *set, uint64_t keywords)
{
    enum { KEYWORDS_BYTES = TB_KEYWORDS_MAX * (TB_KEYWORD_NAME_MAX + 8) };
    struct tb_slice ranges = tb_slice(set->v, set->n * sizeof(set->v[0]));
    struct tb_disk_mbox dst;
    struct tb_disk_acct row;
    if (!tb_mbox_get(a->shard->ix, a->acct, to, &dst, NULL) || dst.flags & TB_MBOX_NOSELECT)
        return TB_NOTFOUND;
    if (dst.staged != 0)
        return TB_OK; /* a COPY is on its way there: another time */
    enum tb_rc rc = tb_shard_admit(a->shard, sizeof(struct tb_pay_copy) + ranges.len + KEYWORDS_BYTES,
                                   1 + TB_KEYWORDS_MAX, ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    struct tb_pay_copy c = {.src = TB_MBOX_INBOX,
                            .dst = to,
                            .dst_uid = dst.uidnext,
                            .n = (uint32_t)set->n,
                            .savedate = tb_io_wall_s(a->shard->worker->io)};
    tb_keyword_map(a, TB_MBOX_INBOX, to, keywords, c.keyword);
    c.dst_modseq = next_modseq(a, &row);
    c.src_modseq = c.dst_modseq + 1;
    tb_shard_record(a->shard, TB_REC_COPY, TB_COPY_MOVE, a->acct, tb_slice(&c, sizeof(c)), ranges, tb_slice(NULL, 0));
    tb_shard_bulk(a->shard);
    tb_shard_touched(a->shard, a->acct, to);
    tb_shard_touched(a->shard, a->acct, TB_MBOX_INBOX);
    return TB_OK;
}

enum tb_rc tb_mailbox_rename_step(struct tb_account *a, struct tb_renaming *left)
{
    struct tb_uidset set;
    uint64_t keywords = 0;
    tb_uidset_init(&set);
    enum tb_rc rc = TB_OK;
    if (a->deleted)
        rc = TB_NOTFOUND;
    else if (inbox_slice(a, left->below, &set, &keywords) == 0)
        left->mbox = 0;
    else
        rc = set.failed ? TB_LIMIT : log_move(a, left->mbox, &set, keywords);
    tb_uidset_free(&set);
    return index_failed(a, rc);
}

/* is_inside: is mbox `inner` equal to or below `outer`? */
static bool is_inside(struct tb_account *a, uint32_t inner, uint32_t outer)
{
    struct tb_disk_mbox m;
    for (unsigned depth = 0; inner != 0 && depth <= TB_MBOX_DEPTH_MAX; depth++) {
        if (inner == outer)
            return true;
        if (!tb_mbox_get(a->shard->ix, a->acct, inner, &m, NULL))
            return false;
        inner = m.parent;
    }
    return false;
}

enum tb_rc tb_mailbox_rename_start(struct tb_account *a, struct tb_slice from, struct tb_slice to,
                                   struct tb_renaming *left)
{
    *left = (struct tb_renaming){0};
    struct path *pf = malloc(
        2 * sizeof(*pf)); /* two names of 4 KB and their leaves: too much for the stack of a deep call */
    if (pf == NULL)
        return TB_LIMIT;
    struct path *pt = pf + 1;
    uint32_t mbox = 0, at = 0;
    struct tb_disk_acct row;
    enum tb_rc rc = path_parse(from, pf);
    if (rc == TB_OK)
        rc = path_parse(to, pt);
    if (rc == TB_OK && (a->deleted || path_walk(a, pf, &mbox, NULL) != pf->n))
        rc = index_failed(a, TB_NOTFOUND);
    size_t have = rc == TB_OK ? path_walk(a, pt, &at, NULL) : 0;
    if (rc == TB_OK && have == pt->n)
        rc = TB_EXISTS;
    if (rc == TB_OK && is_inbox(pf)) {
        rc = is_inside(a, at, TB_MBOX_INBOX) ? TB_INVALID : rename_inbox(a, pt, left);
        free(pf);
        return rc;
    }
    if (rc == TB_OK && is_inside(a, at, mbox))
        rc = TB_INVALID;
    if (rc == TB_OK)
        rc = tb_quota_mailboxes(a->shard, a->acct, pt->n - 1 - have);
    if (rc == TB_OK)
        rc = admit_path(a, pt, have, at, 0);
    if (rc == TB_OK) {
        at = make_path(a, pt, have, at, pt->n - 1, 0, 0);
        struct tb_pay_rename r = {.mbox = mbox, .parent = at, .modseq = next_modseq(a, &row)};
        tb_shard_record(a->shard, TB_REC_RENAME, 0, a->acct, tb_slice(&r, sizeof(r)), pt->leaf[pt->n - 1],
                        tb_slice(NULL, 0));
        tb_shard_touched(a->shard, a->acct, mbox);
        rc = index_failed(a, TB_OK);
    }
    free(pf);
    return rc;
}

enum tb_rc tb_mailbox_rename(struct tb_account *a, struct tb_slice from, struct tb_slice to)
{
    struct tb_renaming left;
    enum tb_rc rc = tb_mailbox_rename_start(a, from, to, &left);
    while (rc == TB_OK && left.mbox != 0)
        rc = tb_mailbox_rename_step(a, &left);
    return rc;
}

/* ---- coming back from the trash ---- */

/* special_taken: does a mailbox of the account have one of these special uses? */
static bool special_taken(struct tb_account *a, uint16_t special)
{
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u32(&key, a->acct);
    bool more = special != 0 && tb_index_ge(a->shard->ix, TB_DB_MBOX, tb_key_slice(&key), 4, &k, &v);
    for (; more; more = tb_index_next(a->shard->ix, TB_DB_MBOX, 4, &k, &v)) {
        struct tb_disk_mbox m;
        if (v.len < sizeof(m))
            continue;
        memcpy(&m, v.ptr, sizeof(m));
        if (!(m.flags & TB_MBOX_NOSELECT) && m.special & special)
            return true;
    }
    return false;
}

/* free_name: p becomes a name that is free: itself, or with " (restored)", " (restored 2)" ... behind it. *replace: a
 * \\Noselect name that may go is there. */
static enum tb_rc free_name(struct tb_account *a, struct tb_slice name, struct path *p, bool *replace, bool *renamed)
{
    char text[2 * TB_MBOX_NAME_MAX + 32];
    struct tb_disk_mbox m;
    uint32_t at;
    *renamed = false;
    for (unsigned i = 0; i < 1000; i++) {
        char suffix[24] = "";
        if (i > 0)
            (void)snprintf(suffix, sizeof(suffix), i == 1 ? " (restored)" : " (restored %u)", i);
        int n = snprintf(text, sizeof(text), "%.*s%s", (int)name.len, name.ptr, suffix);
        enum tb_rc rc = path_parse(tb_slice(text, (size_t)n), p);
        if (rc != TB_OK)
            return rc;
        bool there = path_walk(a, p, &at, NULL) == p->n;
        *replace = there && tb_mbox_get(a->shard->ix, a->acct, at, &m, NULL) && m.flags & TB_MBOX_NOSELECT;
        *renamed = i > 0;
        if (!there || *replace)
            return TB_OK;
    }
    return TB_LIMIT;
}

enum tb_rc tb_mailbox_undelete(struct tb_account *a, uint32_t mbox, int64_t due, struct tb_slice name, bool *renamed)
{
    struct path p;
    struct tb_disk_mbox m;
    struct tb_disk_acct row;
    bool replace;
    uint32_t at;
    if (!tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL))
        return index_failed(a, TB_NOTFOUND);
    enum tb_rc rc = free_name(a, name, &p, &replace, renamed);
    if (rc == TB_OK)
        rc = tb_shard_admit(a->shard, p.len + (p.n + 1) * sizeof(struct tb_pay_mbox), (uint32_t)p.n + 1, ADMIT_GROW);
    if (rc != TB_OK)
        return rc;
    size_t have = path_walk(a, &p, &at, NULL);
    uint32_t parent = 0;
    if (replace) /* the name itself is there: its parent is the last but one */
        (void)path_walk(a, &p, &at, &parent);
    else
        parent = make_path(a, &p, have, at, p.n - 1, 0, TB_MBOX_NOSELECT);
    struct tb_pay_undelete u = {.mbox = mbox, .parent = parent, .modseq = next_modseq(a, &row), .due = due};
    uint8_t flags = (uint8_t)((special_taken(a, m.special) ? TB_UNDELETE_PLAIN : 0) |
                              (replace ? TB_UNDELETE_REPLACE : 0));
    tb_shard_record(a->shard, TB_REC_UNDELETE, flags, a->acct, tb_slice(&u, sizeof(u)), p.leaf[p.n - 1],
                    tb_slice(NULL, 0));
    tb_shard_touched(a->shard, a->acct, 0);
    return index_failed(a, TB_OK);
}

enum tb_rc tb_mailbox_subscribe(struct tb_account *a, struct tb_slice name, bool on)
{
    struct path p;
    struct tb_slice v;
    enum tb_rc rc = path_parse(name, &p);
    if (rc != TB_OK)
        return rc;
    if (a->deleted)
        return TB_NOTFOUND;
    if (p.len > TB_KEY_MAX - 4)
        return TB_LIMIT;
    struct tb_key k = sub_key(a->acct, tb_slice(p.bytes, p.len));
    if (tb_index_get(a->shard->ix, TB_DB_SUB, tb_key_slice(&k), &v) == on)
        return index_failed(a, TB_OK);
    rc = tb_shard_admit(a->shard, p.len, 1, on ? ADMIT_GROW : ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    tb_shard_record(a->shard, TB_REC_SUB, on ? TB_SUB_ON : 0, a->acct, tb_slice(p.bytes, p.len), tb_slice(NULL, 0),
                    tb_slice(NULL, 0));
    tb_shard_touched(a->shard, a->acct, UINT32_MAX);
    return index_failed(a, TB_OK);
}

/* ---- keywords ---- */

static struct tb_key keyword_key(uint32_t acct, uint32_t mbox)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    return k;
}

static bool keyword_find(struct tb_index *ix, uint32_t acct, uint32_t mbox, struct tb_slice name, uint32_t *bit,
                         uint32_t *next)
{
    struct tb_key key = keyword_key(acct, mbox);
    struct tb_slice k, v;
    *next = 0;
    bool more = tb_index_ge(ix, TB_DB_KEYWORD, tb_key_slice(&key), 8, &k, &v);
    for (; more && k.len == 10; more = tb_index_next(ix, TB_DB_KEYWORD, 8, &k, &v)) {
        *bit = tb_get_be16(k.ptr + 8);
        *next = *bit + 1;
        if (tb_slice_ieq(v, name))
            return *bit < TB_KEYWORDS_MAX;
    }
    return false;
}

static bool keyword_valid(struct tb_slice name) /* RFC 9051 9: flag-keyword is an atom */
{
    if (name.len == 0 || name.len > TB_KEYWORD_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];
        if (c <= 0x20 || c >= 0x7f || strchr("(){%*\"\\]", c) != NULL)
            return false;
    }
    return true;
}

static void keyword_log(struct tb_shard *s, uint32_t acct, uint32_t mbox, uint32_t bit, struct tb_slice name)
{
    struct tb_pay_keyword p = {mbox, bit};
    tb_shard_record(s, TB_REC_KEYWORD, 0, acct, tb_slice(&p, sizeof(p)), name, tb_slice(NULL, 0));
}

enum tb_rc tb_keyword(struct tb_account *a, uint32_t mbox, struct tb_slice name, bool create, uint32_t *bit)
{
    uint32_t next;
    if (keyword_find(a->shard->ix, a->acct, mbox, name, bit, &next))
        return TB_OK;
    if (!create)
        return index_failed(a, TB_NOTFOUND);
    if (!keyword_valid(name))
        return TB_INVALID;
    if (next >= TB_KEYWORDS_MAX)
        return TB_LIMIT;
    enum tb_rc rc = tb_shard_admit(a->shard, name.len + sizeof(struct tb_pay_keyword), 1, ADMIT_GROW);
    if (rc != TB_OK)
        return rc;
    keyword_log(a->shard, a->acct, mbox, next, name);
    *bit = next;
    tb_shard_touched(a->shard, a->acct, mbox);
    return index_failed(a, TB_OK);
}

enum tb_rc tb_keyword_bits(struct tb_shard *s, uint32_t acct, uint32_t mbox, const struct tb_slice *names, size_t n,
                           uint64_t *bits)
{
    *bits = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bit, next;
        if (!keyword_find(s->ix, acct, mbox, names[i], &bit, &next)) {
            if (!keyword_valid(names[i]))
                return TB_INVALID;
            if (next >= TB_KEYWORDS_MAX)
                return TB_LIMIT;
            keyword_log(s, acct, mbox, next, names[i]);
            bit = next;
        }
        *bits |= (uint64_t)1 << bit;
    }
    return TB_OK;
}

size_t tb_keywords(struct tb_account *a, uint32_t mbox, struct tb_arena *arena, struct tb_slice names[TB_KEYWORDS_MAX])
{
    struct tb_key key = keyword_key(a->acct, mbox);
    struct tb_slice k, v;
    size_t n = 0;
    memset(names, 0, TB_KEYWORDS_MAX * sizeof(names[0]));
    bool more = tb_index_ge(a->shard->ix, TB_DB_KEYWORD, tb_key_slice(&key), 8, &k, &v);
    for (; more && k.len == 10; more = tb_index_next(a->shard->ix, TB_DB_KEYWORD, 8, &k, &v)) {
        uint32_t bit = tb_get_be16(k.ptr + 8);
        if (bit >= TB_KEYWORDS_MAX)
            break;
        names[bit] = tb_arena_copy(arena, v);
        n = bit + 1;
    }
    return n;
}

void tb_keyword_map(struct tb_account *a, uint32_t src, uint32_t dst, uint64_t used, uint8_t map[64])
{
    struct tb_arena arena;
    struct tb_slice names[TB_KEYWORDS_MAX];
    tb_arena_init(&arena, 64 << 10);
    size_t n = tb_keywords(a, src, &arena, names);
    memset(map, 255, 64);
    for (size_t bit = 0; bit < n; bit++) {
        uint64_t to;
        if (!(used >> bit & 1) || names[bit].len == 0)
            continue;
        if (dst == src)
            map[bit] = (uint8_t)bit;
        else if (tb_keyword_bits(a->shard, a->acct, dst, &names[bit], 1, &to) == TB_OK)
            map[bit] = (uint8_t)__builtin_ctzll(to);
    }
    tb_arena_free(&arena);
}
