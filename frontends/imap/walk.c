/*
 * walk.c: from a sequence set to the rows it means: sets resolved against the selected view, and a walk over
 * their messages in order, a packed batch at a time, each with its sequence number.
 *
 * Invariants: seqnos do not move while a walk lives (its command has no VERB_SHIFTS until its reply); the
 * cost is the messages found plus the ranges, whatever numbers the client wrote ("1:4294967295").
 * Thread: the connection's owner. RFC 3501 6.4.8, 9 (sequence-set); RFC 2180 4.1 (messages expunged by others).
 */
#include "imap_session.h"

#include <stdlib.h>

static int by_first(const void *a, const void *b)
{
    const struct tb_range *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

enum tb_rc imap_set_ranges(const struct imap_set *set, uint32_t last, bool strict, struct tb_range *v, size_t *n)
{
    size_t out = 0;
    for (uint32_t i = 0; i < set->n; i++) {
        uint32_t a = set->v[i].first ? set->v[i].first : last, b = set->v[i].last ? set->v[i].last : last;
        if (strict && (a == 0 || b == 0 || a > last || b > last))
            return TB_INVALID;
        if (a > b) {
            uint32_t t = a;
            a = b;
            b = t;
        }
        if (a == 0 || a > last) /* nothing there: an empty mailbox, or above the highest UID */
            continue;
        v[out++] = (struct tb_range){a, b < last ? b : last};
    }
    if (out > 1)
        qsort(v, out, sizeof *v, by_first);
    size_t merged = 0;
    for (size_t i = 0; i < out; i++) {
        if (merged > 0 && v[i].first <= (uint64_t)v[merged - 1].last + 1) {
            if (v[i].last > v[merged - 1].last)
                v[merged - 1].last = v[i].last;
        } else {
            v[merged++] = v[i];
        }
    }
    *n = merged;
    return TB_OK;
}

/* add_saved: "$", what is left of it in the view; none is no error (RFC 5182 2.1). */
static enum tb_rc add_saved(struct imap_session *s, struct tb_uidset *out)
{
    struct tb_uidset left;
    tb_uidset_init(&left);
    tb_uidset_intersect(&s->saved, tb_view_uids(s->view), &left);
    for (size_t i = 0; i < out->n; i++)
        tb_uidset_add(&left, out->v[i].first, out->v[i].last);
    struct tb_range *v = tb_arena_alloc(&s->arena, (left.n + 1) * sizeof *v);
    bool good = v && !left.failed;
    if (good && left.n > 0)
        memcpy(v, left.v, left.n * sizeof *v);
    *out = (struct tb_uidset){.v = v, .n = good ? left.n : 0, .cap = good ? left.n : 0};
    tb_uidset_free(&left);
    return good ? TB_OK : TB_LIMIT;
}

enum tb_rc imap_set_resolve(struct imap_session *s, const struct imap_set *set, bool uid, struct tb_uidset *out)
{
    uint32_t last = uid ? tb_view_uid_max(s->view) : tb_view_count(s->view);
    struct tb_range *v = tb_arena_alloc(&s->arena, (set->n + 1) * sizeof *v);
    size_t n = 0;
    *out = (struct tb_uidset){0};
    if (!v)
        return TB_LIMIT;
    enum tb_rc rc = imap_set_ranges(set, last, !uid, v, &n);
    for (size_t i = 0; i < n && !uid; i++)
        v[i] = (struct tb_range){tb_view_uid(s->view, v[i].first), tb_view_uid(s->view, v[i].last)};
    *out = (struct tb_uidset){.v = v, .n = n, .cap = n};
    return rc == TB_OK && set->saved ? add_saved(s, out) : rc;
}

bool imap_walk_init(struct imap_walk *w, struct imap_session *s, const struct tb_uidset *set)
{
    *w = (struct imap_walk){.view = s->view, .set = set};
    uint64_t most = 0;
    for (size_t i = 0; i < set->n && most < IMAP_BATCH; i++)
        most += (uint64_t)set->v[i].last - set->v[i].first + 1;
    w->rows_max = most < IMAP_BATCH ? (uint32_t)most : IMAP_BATCH;
    w->rows = tb_arena_alloc(&s->arena, (w->rows_max + 1) * sizeof *w->rows);
    return w->rows != NULL;
}

/* range_end: the range is done: were there messages in the view after the last row? */
static void range_end(struct imap_walk *w)
{
    uint32_t last = w->set->v[w->range].last;
    uint32_t next = last == UINT32_MAX ? tb_view_count(w->view) + 1 : tb_view_seqno_ceil(w->view, last + 1);
    if (w->seqno < next)
        w->gone = true;
    w->range++;
    w->uid = 0;
}

/* more: the next rows of the present range, or of one of the next. */
static bool more(struct imap_walk *w)
{
    for (; w->range < w->set->n; range_end(w)) {
        const struct tb_range *r = &w->set->v[w->range];
        if (w->uid == 0) {
            w->uid = r->first;
            w->seqno = tb_view_seqno_ceil(w->view, r->first);
        }
        if (w->uid > r->last || w->uid == UINT32_MAX)
            continue;
        uint64_t span = (uint64_t)r->last - w->uid + 1;
        w->i = 0;
        w->n = tb_view_scan(w->view, w->uid, w->rows, span < w->rows_max ? (size_t)span : w->rows_max);
        size_t got = w->n;
        while (w->n > 0 && w->rows[w->n - 1].uid > r->last)
            w->n--;
        if (w->n == 0)
            continue;
        w->uid = got > w->n || w->rows[w->n - 1].uid == UINT32_MAX ? UINT32_MAX : w->rows[w->n - 1].uid + 1;
        return true;
    }
    return false;
}

const struct tb_row *imap_walk_next(struct imap_walk *w, uint32_t *seqno)
{
    if (w->i >= w->n && !more(w))
        return NULL;
    const struct tb_row *row = &w->rows[w->i++];
    while (tb_view_uid(w->view, w->seqno) < row->uid && w->seqno < tb_view_count(w->view)) {
        w->gone = true;
        w->seqno++;
    }
    *seqno = w->seqno++;
    return row;
}
