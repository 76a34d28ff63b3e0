/*
 * shared.c: which names LIST may tell: the session's own mailboxes, and those that others share with it.
 *
 * Own ones come from the account, others' from every shard that has access control lists at all, 256 entries at a time.
 * Of a shared mailbox the levels above it are told as mere names, whether or not there are mailboxes of these names
 * (RFC 4314 4, LIST). Its special use is its owner's affair and is not told. A shard that is not in service has no
 * shared mailboxes for the while. Thread: the connection's owner; work functions: the shard's. RFC 2342; RFC 4314 4.
 */
#include "imap_session.h"

#include <stdlib.h>

enum { SHARED_STEP = 256 };

static void work_own(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    e->rc = tb_mailbox_list(a, &e->arena, &e->list, &e->n);
}

static void work_shared(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)a;
    e->n = 0;
    e->shared = tb_arena_alloc(&e->arena, SHARED_STEP * sizeof *e->shared);
    e->rc = e->shared ? tb_acl_shared(w, e->id.shard, e->user, &e->at, &e->arena, SHARED_STEP, e->shared, &e->n)
                      : TB_LIMIT;
}

/* keep: what a step brought, behind what the steps before it brought. */
static bool keep(struct imap_gather *g)
{
    if (g->shared_n + g->e->n > g->shared_cap) {
        size_t cap = 2 * (g->shared_n + g->e->n);
        struct tb_shared *v = tb_arena_alloc(&g->e->arena, cap * sizeof *v);
        if (!v)
            return false;
        if (g->shared_n > 0)
            memcpy(v, g->shared, g->shared_n * sizeof *v);
        g->shared = v;
        g->shared_cap = cap;
    }
    if (g->e->n > 0)
        memcpy(g->shared + g->shared_n, g->e->shared, g->e->n * sizeof *g->shared);
    g->shared_n += g->e->n;
    return true;
}

/* ---- one list of both ---- */

struct listed {
    struct tb_mailbox m;
    uint32_t rights;
};

/* by_level: byte order, level by level: what is below a name follows it. */
static int by_level(const void *a, const void *b)
{
    struct tb_slice m = ((const struct listed *)a)->m.name, n = ((const struct listed *)b)->m.name;
    size_t i = 0, least = m.len < n.len ? m.len : n.len;
    while (i < least && m.ptr[i] == n.ptr[i])
        i++;
    if (i == least)
        return m.len < n.len ? -1 : m.len > n.len;
    int c = m.ptr[i] == '/' ? -1 : (uint8_t)m.ptr[i], d = n.ptr[i] == '/' ? -1 : (uint8_t)n.ptr[i];
    return c < d ? -1 : 1;
}

static bool is_at_or_below(struct tb_slice name, struct tb_slice level)
{
    return level.len > 0 && name.len >= level.len && memcmp(name.ptr, level.ptr, level.len) == 0 &&
           (name.len == level.len || name.ptr[level.len] == '/');
}

static struct tb_slice full_name(struct tb_arena *arena, const struct tb_shared *x)
{
    size_t prefix = sizeof(IMAP_OTHERS) - 1, n = prefix + x->owner.len + 1 + x->mailbox.name.len;
    char *name = tb_arena_alloc(arena, n);
    if (!name)
        return (struct tb_slice){0};
    char *p = IMAP_FMT(name, IMAP_OTHERS);
    p = imap_fmt(p, x->owner.ptr, x->owner.len);
    *p++ = '/';
    (void)imap_fmt(p, x->mailbox.name.ptr, x->mailbox.name.len);
    return tb_slice(name, n);
}

/* put: one more name in the result; first the levels above it that it is the first below. */
static void put(struct imap_gather *g, const struct listed *x)
{
    struct tb_slice before = g->n > 0 ? g->v[g->n - 1].name : (struct tb_slice){0};
    for (size_t i = 0; x->rights != 0 && i < x->m.name.len; i++) {
        struct tb_slice level = tb_slice_sub(x->m.name, 0, i);
        if (x->m.name.ptr[i] == '/' && !is_at_or_below(before, level))
            g->v[g->n++] = (struct tb_mailbox){.name = level, .has_children = true};
    }
    for (size_t i = g->n; i-- > 0 && is_at_or_below(x->m.name, g->v[i].name);)
        g->v[i].has_children = true;
    g->rights[g->n] = x->rights;
    g->v[g->n++] = x->m;
}

/* merge: own names, then the others' in order; a subscription to one of these is an own name, and becomes a mark. */
static bool merge(struct imap_gather *g)
{
    struct tb_arena *arena = &g->e->arena;
    size_t n = 0, room = g->own_n + 1, most = g->own_n + g->shared_n;
    struct listed *x = tb_arena_alloc(arena, (most + 1) * sizeof *x);
    for (size_t i = 0; x && i < g->shared_n; i++, n++) {
        x[n] = (struct listed){g->shared[i].mailbox, g->shared[i].rights};
        x[n].m.name = full_name(arena, &g->shared[i]);
        x[n].m.special = 0;
        x[n].m.subscribed = x[n].m.has_children = false;
        for (size_t k = 0; k < x[n].m.name.len; k++)
            room += x[n].m.name.ptr[k] == '/';
    }
    if (!x || arena->overflowed)
        return false;
    g->v = tb_arena_alloc(arena, (room + most) * sizeof *g->v);
    g->rights = tb_arena_alloc(arena, (room + most) * sizeof *g->rights);
    if (!g->v || !g->rights)
        return false;
    for (size_t i = 0; i < g->own_n; i++) {
        if (g->own[i].mbox == 0 && imap_is_others(g->own[i].name)) {
            x[n++] = (struct listed){.m = g->own[i]};
            continue;
        }
        g->rights[g->n] = TB_RIGHTS_ALL;
        g->v[g->n++] = g->own[i];
    }
    qsort(x, n, sizeof *x, by_level);
    for (size_t i = 0; i < n; i++) {
        bool twice = i + 1 < n && tb_slice_eq(x[i].m.name, x[i + 1].m.name);
        if (twice) { /* a mailbox and its subscription */
            struct listed *there = x[i].rights != 0 ? &x[i] : &x[i + 1];
            there->m.subscribed = true;
            x[i + 1] = *there;
            continue;
        }
        put(g, &x[i]);
    }
    return true;
}

/* ---- gathering ---- */

/* next_errand: the account first, then shard by shard. False: all is there. */
static bool next_errand(struct imap_session *s, struct imap_gather *g, bool others)
{
    const struct tb_store *store = tb_worker_store(tb_conn_worker(s->conn));
    struct imap_errand *e = g->e;
    if (!g->own_done) {
        imap_errand_start(s, e, work_own);
        return true;
    }
    if (e->id.acct != 0 || e->at.end) { /* the account's, or a shard's last step */
        while (others && g->shard < tb_store_shards(store) && !tb_acl_any(store, g->shard))
            g->shard++;
        if (!others || g->shard == tb_store_shards(store))
            return false;
        e->id = (struct tb_account_id){.shard = g->shard++};
        e->at = (struct tb_shared_at){0};
    }
    imap_errand_start(s, e, work_shared);
    return true;
}

/* take: what an errand brought. */
static bool take(struct imap_session *s, struct imap_gather *g)
{
    struct imap_errand *e = g->e;
    if (!g->own_done) {
        g->own = e->list;
        g->own_n = e->n;
        g->own_done = true;
        return e->rc == TB_OK;
    }
    if (e->rc == TB_IO) {
        tb_log(TB_LOG_WARN, "list user=%s id=%s shard=%u: not in service, what it shares is left out", s->user,
               tb_conn_id(s->conn), e->id.shard);
        e->at.end = true;
        return true;
    }
    return e->rc == TB_OK && keep(g);
}

bool imap_gather(struct imap_session *s, struct imap_gather *g, bool others)
{
    const struct imap_place home = {.id = s->account_id, .own = true};
    if (!g->e) {
        g->e = imap_errand_new(s, &home);
        g->rc = g->e ? TB_OK : TB_LIMIT;
        if (!g->e || !next_errand(s, g, others))
            return true;
    }
    for (;;) {
        if (g->e->busy)
            return false;
        if (!take(s, g)) {
            g->rc = g->e->rc != TB_OK ? g->e->rc : TB_LIMIT;
            return true;
        }
        if (!next_errand(s, g, others))
            break;
    }
    g->rc = merge(g) ? TB_OK : TB_LIMIT;
    return true;
}

void imap_gather_end(struct imap_gather *g)
{
    imap_errand_end(g->e);
    g->e = NULL;
}
