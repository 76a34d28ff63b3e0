/*
 * since.c: what changed in a mailbox after a modseq: the answer to a client that was away (RFC 7162).
 *
 * The change log holds flag changes and removals above its floor; arrivals are the rows at the end whose modseq is
 * higher. Below the floor the rows themselves are asked, and everything that is not there counts as removed: a client
 * is told to forget what it has not got, never to forget what is there. Thread: the shard's owner.
 */
#include "engine/store/shard.h"

enum { ROWS = 256 };

struct gather {
    struct tb_uidset flags, gone;
};

static bool gather_change(void *user, uint64_t modseq, uint8_t kind, struct tb_range range)
{
    struct gather *g = user;
    struct tb_uidset *into = kind == TB_CHG_EXPUNGE ? &g->gone : &g->flags;
    (void)modseq;
    tb_uidset_add(into, range.first, range.last);
    return !into->failed;
}

/* add_rows: UIDs from `from` on, up to last, whose row is newer than since. */
static void add_rows(struct tb_view *v, uint32_t from, uint32_t last, uint64_t since, struct tb_uidset *out)
{
    struct tb_row rows[ROWS];
    while (from <= last && !out->failed) {
        size_t n = tb_view_scan(v, from, rows, ROWS);
        for (size_t i = 0; i < n; i++) {
            if (rows[i].uid > last)
                return;
            if (rows[i].modseq > since)
                tb_uidset_add(out, rows[i].uid, rows[i].uid);
        }
        if (n < ROWS || rows[n - 1].uid == UINT32_MAX)
            return;
        from = rows[n - 1].uid + 1;
    }
}

/* absent: out = what of known (NULL: all UIDs below uidnext) the view has not. */
static void absent(const struct tb_view *v, const struct tb_uidset *known, uint32_t uidnext, struct tb_uidset *out)
{
    const struct tb_uidset *live = tb_view_uids(v);
    if (known != NULL)
        for (size_t i = 0; i < known->n && known->v[i].first < uidnext; i++)
            tb_uidset_add(out, known->v[i].first, known->v[i].last < uidnext ? known->v[i].last : uidnext - 1);
    else if (uidnext > 1)
        tb_uidset_add(out, 1, uidnext - 1);
    for (size_t i = 0; i < live->n; i++)
        tb_uidset_remove(out, live->v[i].first, live->v[i].last);
}

/* keep: set = set and known. */
static void keep(struct tb_uidset *set, const struct tb_uidset *known)
{
    struct tb_uidset both;
    if (known == NULL)
        return;
    tb_uidset_init(&both);
    tb_uidset_intersect(set, known, &both);
    both.failed = both.failed || set->failed;
    tb_uidset_free(set);
    *set = both;
}

/* from_log: the changes of the log and the rows behind them. */
static void from_log(struct tb_view *v, uint64_t since, struct tb_since *out)
{
    struct tb_account *a = tb_view_account(v);
    struct gather g;
    tb_uidset_init(&g.flags);
    tb_uidset_init(&g.gone);
    tb_chg_scan(a->shard->ix, a->acct, tb_view_mbox(v), since, gather_change, &g);
    uint32_t arrived = tb_rows_newer(a->shard->ix, a->acct, tb_view_mbox(v), since);
    for (size_t i = 0; i < g.flags.n && g.flags.v[i].first < arrived; i++)
        add_rows(v, g.flags.v[i].first, g.flags.v[i].last < arrived ? g.flags.v[i].last : arrived - 1, since,
                 &out->changed);
    if (arrived != UINT32_MAX)
        add_rows(v, arrived, UINT32_MAX, since, &out->changed);
    out->changed.failed = out->changed.failed || g.flags.failed || g.gone.failed;
    tb_uidset_free(&g.flags);
    tb_uidset_free(&out->vanished);
    out->vanished = g.gone;
}

enum tb_rc tb_view_since(struct tb_view *v, uint64_t since, const struct tb_uidset *known, bool vanished,
                         struct tb_since *out)
{
    struct tb_account *a = tb_view_account(v);
    struct tb_disk_mbox m;
    tb_uidset_init(&out->changed);
    tb_uidset_init(&out->vanished);
    if (!tb_mbox_get(a->shard->ix, a->acct, tb_view_mbox(v), &m, NULL))
        return TB_OK; /* deleted meanwhile: the next refresh says so */
    if (since >= m.chg_floor) {
        from_log(v, since, out);
        keep(&out->changed, known);
        keep(&out->vanished, known);
        for (size_t i = 0; i < tb_view_uids(v)->n; i++) /* removed, but the session was not told yet */
            tb_uidset_remove(&out->vanished, tb_view_uids(v)->v[i].first, tb_view_uids(v)->v[i].last);
    } else {
        add_rows(v, 1, UINT32_MAX, since, &out->changed);
        keep(&out->changed, known);
        if (vanished)
            absent(v, known, m.uidnext, &out->vanished);
    }
    return out->changed.failed || out->vanished.failed ? TB_LIMIT : TB_OK;
}

void tb_since_free(struct tb_since *s)
{
    tb_uidset_free(&s->changed);
    tb_uidset_free(&s->vanished);
}
