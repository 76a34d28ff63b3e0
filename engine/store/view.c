/*
 * view.c: one session's picture of a mailbox, and the changes a session makes through it.
 *
 * A view is the set of UIDs the session knows, as ranges with running counts: seqno <-> UID is a binary search, and a
 * dense mailbox of any size costs a few dozen bytes. It moves only in tb_view_refresh; removals that may not be told
 * yet wait in `gone`. Watching carries no data (S8): fn means "refresh". Thread: the shard's owner.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

#include "engine/base/rules.h"

enum {
    ROWS = 256,
    FLAGS_PER_RECORD = 4096,
    REFRESH_MAX = 8192, /* removed or changed messages told of at a time: about 1 ms */
    LEARN_MAX = 65536   /* ... and new ones */
};

struct tb_view {
    struct tb_account *account; /* counted */
    struct tb_view *next;       /* in account->views */
    uint32_t mbox, uidvalidity;
    struct tb_uidset live; /* what the session knows */
    uint32_t *before;      /* owned: messages before live.v[i]; valid while before_n == live.n */
    size_t before_n, before_cap;
    uint32_t count;
    struct tb_uidset gone; /* removed, not told yet; part of live */
    uint64_t modseq;       /* changes up to it are in the view */
    uint32_t uidnext;      /* messages below it are in the view */
    uint32_t keywords_n;
    bool deleted, counts_stale;
    void (*fn)(void *user);
    void *user;
    struct tb_op notify;
    bool notifying;
};

/* ---- seqno <-> UID ---- */

static bool counts(struct tb_view *v)
{
    if (!v->counts_stale && v->before_n == v->live.n)
        return true;
    if (v->live.n > v->before_cap) {
        size_t cap = v->live.n + v->live.n / 4 + 4;
        uint32_t *b = realloc(v->before, cap * sizeof(*b));
        if (b == NULL)
            return false;
        v->before = b;
        v->before_cap = cap;
    }
    uint32_t n = 0;
    for (size_t i = 0; i < v->live.n; i++) {
        v->before[i] = n;
        n += v->live.v[i].last - v->live.v[i].first + 1;
    }
    v->before_n = v->live.n;
    v->counts_stale = false;
    return true;
}

static void recount(struct tb_view *v)
{
    v->count = (uint32_t)tb_uidset_count(&v->live);
    v->counts_stale = true;
}

uint32_t tb_view_count(const struct tb_view *v)
{
    return v->count;
}

uint32_t tb_view_uid(const struct tb_view *cv, uint32_t seqno)
{
    struct tb_view *v = (struct tb_view *)(uintptr_t)cv; /* the counts are a cache */
    if (seqno == 0 || seqno > v->count || !counts(v))
        return 0;
    size_t lo = 0, hi = v->live.n;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (v->before[mid] < seqno)
            lo = mid;
        else
            hi = mid;
    }
    return v->live.v[lo].first + (seqno - 1 - v->before[lo]);
}

/* range_ceil: index of the first range whose last >= uid. */
static size_t range_ceil(const struct tb_uidset *s, uint32_t uid)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->v[mid].last < uid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t tb_view_seqno_ceil(const struct tb_view *cv, uint32_t uid)
{
    struct tb_view *v = (struct tb_view *)(uintptr_t)cv;
    size_t i = range_ceil(&v->live, uid);
    if (i == v->live.n || !counts(v))
        return v->count + 1;
    return v->before[i] + 1 + (uid > v->live.v[i].first ? uid - v->live.v[i].first : 0);
}

uint32_t tb_view_seqno(const struct tb_view *v, uint32_t uid)
{
    return uid != 0 && tb_uidset_has(&v->live, uid) ? tb_view_seqno_ceil(v, uid) : 0;
}

uint32_t tb_view_uid_max(const struct tb_view *v)
{
    return v->live.n > 0 ? v->live.v[v->live.n - 1].last : 0;
}

const struct tb_uidset *tb_view_uids(const struct tb_view *v)
{
    return &v->live;
}

const struct tb_uidset *tb_view_gone(const struct tb_view *v)
{
    return &v->gone;
}

uint32_t tb_view_uidnext(const struct tb_view *v)
{
    return v->uidnext;
}

uint64_t tb_view_modseq(const struct tb_view *v)
{
    return v->modseq;
}

uint32_t tb_view_mbox(const struct tb_view *v)
{
    return v->mbox;
}

struct tb_account *tb_view_account(const struct tb_view *v)
{
    return v->account;
}

/* ---- opening ---- */

static enum tb_rc failed(struct tb_view *v, enum tb_rc otherwise)
{
    return tb_shard_sound(v->account->shard) ? otherwise : TB_IO;
}

/* learn: add the mailbox's UIDs from `uid` on, below *end, to the view, some max of them; returns how many. *end: where
 * it stopped. */
static uint32_t learn(struct tb_view *v, uint32_t uid, uint32_t *end, uint32_t max)
{
    return tb_rows_uids(v->account->shard->ix, v->account->acct, v->mbox, uid, end, max, &v->live);
}

enum tb_rc tb_view_open(struct tb_account *a, uint32_t mbox, struct tb_view **out)
{
    struct tb_disk_mbox m;
    if (a->deleted || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL) || m.flags & TB_MBOX_NOSELECT)
        return a->shard->failed ? TB_IO : TB_NOTFOUND;
    struct tb_view *v = calloc(1, sizeof(*v));
    if (v == NULL)
        return TB_LIMIT;
    v->account = a;
    v->mbox = mbox;
    v->uidvalidity = m.uidvalidity;
    v->modseq = m.highestmodseq;
    v->uidnext = m.uidnext;
    v->keywords_n = m.keywords_n;
    tb_uidset_init(&v->live);
    tb_uidset_init(&v->gone);
    if (m.messages > 0 && m.messages == m.uidnext - 1)
        tb_uidset_add(&v->live, 1, m.messages); /* nothing was ever removed */
    else if (m.messages > 0)
        (void)learn(v, 1, &v->uidnext, UINT32_MAX);
    recount(v);
    if (v->count != m.messages && !v->live.failed && failed(v, TB_OK) == TB_OK)
        tb_shard_doubt(a->shard, "a mailbox counts other messages than there are");
    enum tb_rc rc = v->live.failed ? TB_LIMIT : failed(v, TB_OK);
    if (rc != TB_OK) {
        tb_uidset_free(&v->live);
        free(v);
        return rc;
    }
    a->refs++;
    v->next = a->views;
    a->views = v;
    *out = v;
    return TB_OK;
}

void tb_view_close(struct tb_view *v)
{
    if (v == NULL)
        return;
    struct tb_view **at = &v->account->views;
    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    if (v->notifying)
        (void)tb_worker_forget(v->account->shard->worker, &v->notify);
    tb_account_close(v->account);
    tb_uidset_free(&v->live);
    tb_uidset_free(&v->gone);
    free(v->before);
    free(v);
}

/* ---- watching ---- */

static void notify_done(struct tb_op *op)
{
    struct tb_view *v = op->user;
    v->notifying = false;
    if (v->fn != NULL)
        v->fn(v->user);
}

void tb_views_notify(struct tb_account *a, uint32_t mbox)
{
    for (struct tb_view *v = a->views; v != NULL; v = v->next) {
        if (v->fn == NULL || v->notifying || (mbox != 0 && v->mbox != mbox))
            continue;
        v->notifying = true;
        v->notify = (struct tb_op){.done = notify_done, .user = v};
        tb_worker_ready(a->shard->worker, &v->notify, TB_OK);
    }
}

void tb_view_watch(struct tb_view *v, void (*fn)(void *user), void *user)
{
    v->fn = fn;
    v->user = user;
}

/* ---- refreshing ---- */

struct refresh {
    struct tb_view *v;
    struct tb_uidset changed; /* flags */
    uint64_t at, n;           /* the modseq under way; messages collected */
    bool more;                /* the change log goes on behind it */
};

static bool collect(void *user, uint64_t modseq, uint8_t kind, struct tb_range range)
{
    struct refresh *r = user;
    if (modseq != r->at && r->n >= REFRESH_MAX) { /* at a boundary: what is told up to here is whole */
        r->more = true;
        return false;
    }
    r->at = modseq;
    struct tb_uidset *into = kind == TB_CHG_EXPUNGE ? &r->v->gone : &r->changed;
    if (range.first >= r->v->uidnext)
        return true;
    uint32_t last = range.last < r->v->uidnext ? range.last : r->v->uidnext - 1;
    tb_uidset_add(into, range.first, last);
    r->n += last - range.first + 1;
    return !into->failed;
}

/* catch_up: the change log was trimmed past the view: the rows themselves tell (R18). */
static void catch_up(struct refresh *r)
{
    struct tb_view *v = r->v;
    struct tb_disk_row rows[ROWS];
    uint32_t next = 1; /* below it everything that is not a row is gone */
    for (uint32_t uid = 1, full = 1; full;) {
        size_t got = tb_rows_scan(v->account->shard->ix, v->account->acct, v->mbox, uid, rows, ROWS);
        full = got == ROWS && rows[got - 1].uid < UINT32_MAX;
        for (size_t i = 0; i < got && rows[i].uid < v->uidnext; i++) {
            if (rows[i].uid > next)
                tb_uidset_add(&v->gone, next, rows[i].uid - 1);
            if (rows[i].modseq > v->modseq)
                tb_uidset_add(&r->changed, rows[i].uid, rows[i].uid);
            next = rows[i].uid + 1;
        }
        uid = got > 0 && rows[got - 1].uid < UINT32_MAX ? rows[got - 1].uid + 1 : uid;
        full = full && uid < v->uidnext;
    }
    if (next < v->uidnext)
        tb_uidset_add(&v->gone, next, v->uidnext - 1);
}

/* highest: the highest max of a set. */
static void highest(const struct tb_uidset *s, uint64_t max, struct tb_uidset *out)
{
    size_t i = s->n;
    uint64_t n = 0;
    while (i > 0 && n < max) {
        i--;
        n += (uint64_t)s->v[i].last - s->v[i].first + 1;
    }
    for (uint32_t skip = n > max ? (uint32_t)(n - max) : 0; i < s->n; i++, skip = 0)
        tb_uidset_add(out, s->v[i].first + skip, s->v[i].last);
}

/* leave: the messages of set are not in the view any more. */
static bool leave(struct tb_view *v, const struct tb_uidset *set)
{
    struct tb_uidset live, gone;
    tb_uidset_init(&live);
    tb_uidset_init(&gone);
    tb_uidset_subtract(&v->live, set, &live);
    tb_uidset_subtract(&v->gone, set, &gone);
    bool good = !live.failed && !gone.failed;
    if (good) {
        struct tb_uidset was = v->live;
        v->live = live;
        live = was;
        was = v->gone;
        v->gone = gone;
        gone = was;
    }
    tb_uidset_free(&live);
    tb_uidset_free(&gone);
    return good;
}

/* tell_gone: removals into changes, highest first, and out of the view; as many as are told at a time. */
static bool tell_gone(struct tb_view *v, struct tb_arena *arena, struct tb_changes *out)
{
    struct tb_uidset all, hit;
    tb_uidset_init(&all);
    tb_uidset_init(&hit);
    tb_uidset_intersect(&v->gone, &v->live, &all);
    highest(&all, REFRESH_MAX, &hit);
    size_t n = (size_t)tb_uidset_count(&hit);
    bool rest = tb_uidset_count(&all) > n;
    hit.failed |= all.failed;
    tb_uidset_free(&all);
    uint32_t *seqnos = tb_arena_alloc(arena, (n + 1) * sizeof(*seqnos)),
             *uids = tb_arena_alloc(arena, (n + 1) * sizeof(*uids));
    bool good = seqnos != NULL && uids != NULL && !hit.failed && counts(v);
    for (size_t i = hit.n, k = 0; good && i-- > 0;)
        for (uint32_t uid = hit.v[i].last; uid >= hit.v[i].first && uid != 0; uid--) {
            uids[k] = uid;
            seqnos[k++] = tb_view_seqno_ceil(v, uid);
        }
    good = good && leave(v, &hit);
    tb_uidset_free(&hit);
    if (!good)
        return false;
    if (!rest)
        tb_uidset_clear(&v->gone);
    recount(v);
    out->more |= rest;
    out->removed = (uint32_t)n;
    out->removed_seqno = seqnos;
    out->removed_uid = uids;
    return true;
}

/* tell_flags: present flags of the changed messages that the view has and still exist. */
static bool tell_flags(struct tb_view *v, const struct tb_uidset *changed, struct tb_arena *arena,
                       struct tb_changes *out)
{
    size_t max = (size_t)tb_uidset_count(changed), n = 0;
    if (max == 0)
        return true;
    if (max > v->count)
        max = v->count;
    struct tb_change_flags *f = tb_arena_alloc(arena, (max + 1) * sizeof(*f));
    if (f == NULL)
        return false;
    struct tb_disk_row rows[ROWS];
    for (size_t i = 0; i < changed->n; i++)
        for (uint32_t uid = changed->v[i].first;;) {
            size_t want = tb_rows_want(uid, changed->v[i].last, ROWS), k = 0;
            size_t got = tb_rows_scan(v->account->shard->ix, v->account->acct, v->mbox, uid, rows, want);
            for (; k < got && rows[k].uid <= changed->v[i].last; k++) {
                uint32_t seqno = tb_view_seqno(v, rows[k].uid);
                if (seqno != 0 && n < max)
                    f[n++] = (struct tb_change_flags){seqno, rows[k].uid, rows[k].flags, rows[k].keywords,
                                                      rows[k].modseq};
            }
            if (k < want || rows[k - 1].uid >= changed->v[i].last)
                break;
            uid = rows[k - 1].uid + 1;
        }
    out->flags = f;
    out->flags_n = (uint32_t)n;
    return true;
}

static void lost(struct tb_view *v, struct tb_changes *out)
{
    v->deleted = true;
    tb_uidset_clear(&v->live);
    tb_uidset_clear(&v->gone);
    recount(v);
    out->deleted = true;
}

enum tb_rc tb_view_refresh(struct tb_view *v, bool may_expunge, struct tb_arena *arena, struct tb_changes *out)
{
    struct tb_account *a = v->account;
    struct tb_disk_mbox m;
    memset(out, 0, sizeof(*out));
    out->count = v->count;
    bool there = !v->deleted && !a->deleted && tb_mbox_get(a->shard->ix, a->acct, v->mbox, &m, NULL);
    if (!there || m.flags & TB_MBOX_NOSELECT || m.uidvalidity != v->uidvalidity) {
        enum tb_rc rc = failed(v, TB_OK);
        if (rc == TB_OK)
            lost(v, out);
        out->count = 0;
        return rc;
    }
    struct refresh r = {.v = v};
    tb_uidset_init(&r.changed);
    if (v->modseq < m.chg_floor)
        catch_up(&r);
    else if (m.highestmodseq != v->modseq)
        tb_chg_scan(a->shard->ix, a->acct, v->mbox, v->modseq, collect, &r);
    bool good = !r.changed.failed && !v->gone.failed;
    if (good && may_expunge && v->gone.n > 0)
        good = tell_gone(v, arena, out);
    good = good && tell_flags(v, &r.changed, arena, out);
    tb_uidset_free(&r.changed);
    if (!good)
        return TB_LIMIT;
    out->keywords_changed = m.keywords_n != v->keywords_n;
    v->keywords_n = m.keywords_n;
    out->more |= r.more;
    if (!r.more && m.uidnext != v->uidnext) {
        uint32_t end = m.uidnext;
        out->added = learn(v, v->uidnext, &end, LEARN_MAX);
        out->more |= end != m.uidnext;
        v->uidnext = end;
        recount(v);
    }
    out->count = v->count;
    v->modseq = r.more ? r.at : m.highestmodseq;
    return failed(v, v->live.failed ? TB_LIMIT : TB_OK);
}

/* ---- rows ---- */

static void to_row(const struct tb_disk_row *d, struct tb_row *out)
{
    *out = (struct tb_row){.uid = d->uid,
                           .flags = d->flags,
                           .x = d->x,
                           .modseq = d->modseq,
                           .keywords = d->keywords,
                           .internaldate = d->internaldate,
                           .savedate = d->savedate,
                           .blob = d->blob,
                           .size = d->size,
                           .header_size = d->header_size,
                           .thread = d->thread};
}

enum tb_rc tb_view_row(struct tb_view *v, uint32_t uid, struct tb_row *out)
{
    struct tb_disk_row d;
    if (v->deleted || !tb_rows_get(v->account->shard->ix, v->account->acct, v->mbox, uid, &d))
        return failed(v, TB_NOTFOUND);
    to_row(&d, out);
    return TB_OK;
}

size_t tb_view_scan(struct tb_view *v, uint32_t uid, struct tb_row *out, size_t max)
{
    struct tb_disk_row rows[ROWS];
    size_t n = 0;
    while (n < max && !v->deleted) {
        size_t want = max - n < ROWS ? max - n : ROWS;
        size_t got = tb_rows_scan(v->account->shard->ix, v->account->acct, v->mbox, uid, rows, want);
        for (size_t i = 0; i < got; i++) {
            if (rows[i].uid >= v->uidnext)
                return n;
            to_row(&rows[i], &out[n++]);
        }
        if (got < want || rows[got - 1].uid == UINT32_MAX)
            return n;
        uid = rows[got - 1].uid + 1;
    }
    return n;
}

uint32_t tb_view_first_unseen(struct tb_view *v)
{
    struct tb_row rows[ROWS];
    struct tb_disk_mbox m;
    if (!tb_mbox_get(v->account->shard->ix, v->account->acct, v->mbox, &m, NULL) || m.unseen == 0)
        return 0;
    for (uint32_t uid = 1;;) {
        size_t n = tb_view_scan(v, uid, rows, ROWS);
        for (size_t i = 0; i < n; i++)
            if (!(rows[i].flags & TB_FLAG_SEEN))
                return tb_view_seqno(v, rows[i].uid);
        if (n < ROWS)
            return 0;
        uid = rows[n - 1].uid + 1;
    }
}

/* ---- changing messages ---- */

struct pick { /* what a pass over the named rows looks for */
    uint16_t flags;
    uint64_t keywords, unchangedsince;
    enum tb_flags_mode mode;
    bool (*want)(const struct pick *p, const struct tb_disk_row *row);
    struct tb_uidset *modified;
};

static bool want_flags(const struct pick *p, const struct tb_disk_row *row)
{
    if (p->mode == TB_FLAGS_ADD)
        return (row->flags & p->flags) != p->flags || (row->keywords & p->keywords) != p->keywords;
    if (p->mode == TB_FLAGS_REMOVE)
        return (row->flags & p->flags) != 0 || (row->keywords & p->keywords) != 0;
    return row->flags != p->flags || row->keywords != p->keywords;
}

static bool want_deleted(const struct pick *p, const struct tb_disk_row *row)
{
    (void)p;
    return (row->flags & TB_FLAG_DELETED) != 0;
}

static bool want_all(const struct pick *p, const struct tb_disk_row *row)
{
    (void)p;
    (void)row;
    return true;
}

/* pick_rows: the next UIDs, from *uid on, of `uids` (NULL: all) that are wanted: at most max. False when the end was
 * reached. */
static bool pick_rows(struct tb_view *v, const struct tb_uidset *uids, const struct pick *p, uint32_t *uid,
                      uint32_t max, struct tb_uidset *out)
{
    struct tb_disk_row rows[ROWS];
    uint32_t n = 0;
    for (;;) {
        size_t want = ROWS;
        if (uids != NULL) {
            size_t i = range_ceil(uids, *uid);
            if (i == uids->n)
                return false;
            if (uids->v[i].first > *uid)
                *uid = uids->v[i].first;
            want = tb_rows_want(*uid, uids->v[i].last, ROWS);
        }
        size_t got = tb_rows_scan(v->account->shard->ix, v->account->acct, v->mbox, *uid, rows, want);
        for (size_t i = 0; i < got; i++) {
            const struct tb_disk_row *row = &rows[i];
            if (row->uid >= v->uidnext)
                return false;
            if (uids != NULL && !tb_uidset_has(uids, row->uid)) {
                *uid = row->uid; /* jump to the next range */
                break;
            }
            *uid = row->uid + 1;
            if (p->modified != NULL && row->modseq > p->unchangedsince) {
                tb_uidset_add(p->modified, row->uid, row->uid);
                continue;
            }
            if (!p->want(p, row))
                continue;
            tb_uidset_add(out, row->uid, row->uid);
            if (++n == max)
                return true;
        }
        if (got == 0)
            return false;
    }
}

static bool mailbox_there(struct tb_view *v)
{
    struct tb_disk_mbox m;
    return !v->deleted && !v->account->deleted &&
           tb_mbox_get(v->account->shard->ix, v->account->acct, v->mbox, &m, NULL) && !(m.flags & TB_MBOX_NOSELECT) &&
           m.uidvalidity == v->uidvalidity;
}

static uint64_t next_modseq(struct tb_account *a)
{
    struct tb_disk_acct row;
    return tb_acct_get(a->shard->ix, a->acct, &row) ? row.modseq + 1 : 0;
}

static struct tb_slice ranges_slice(const struct tb_uidset *s)
{
    return tb_slice(s->v, s->n * sizeof(s->v[0]));
}

enum tb_rc tb_flags_update(struct tb_view *v, const struct tb_uidset *uids, enum tb_flags_mode mode, uint16_t flags,
                           uint64_t keywords, uint64_t unchangedsince, struct tb_uidset *modified)
{
    struct tb_account *a = v->account;
    if (!mailbox_there(v))
        return failed(v, TB_NOTFOUND);
    struct pick p = {.flags = flags,
                     .keywords = keywords,
                     .mode = mode,
                     .want = want_flags,
                     .unchangedsince = unchangedsince,
                     .modified = unchangedsince == UINT64_MAX ? NULL : modified};
    struct tb_uidset set;
    tb_uidset_init(&set);
    enum tb_rc rc = TB_OK;
    bool more = true;
    for (uint32_t uid = 1; rc == TB_OK && more;) {
        tb_uidset_clear(&set);
        more = pick_rows(v, uids, &p, &uid, TB_KEEPS(batch) ? FLAGS_PER_RECORD : UINT32_MAX, &set);
        if (set.n == 0 && !set.failed)
            continue;
        rc = set.failed
                 ? TB_LIMIT
                 : tb_shard_admit(a->shard, sizeof(struct tb_pay_flags) + set.n * sizeof(set.v[0]), 1, ADMIT_SMALL);
        if (rc != TB_OK)
            break;
        struct tb_pay_flags f = {.mbox = v->mbox,
                                 .mode = (uint8_t)mode,
                                 .flags = flags,
                                 .keywords = keywords,
                                 .modseq = next_modseq(a),
                                 .n = (uint32_t)set.n};
        tb_shard_record(a->shard, TB_REC_FLAGS, 0, a->acct, tb_slice(&f, sizeof(f)), ranges_slice(&set),
                        tb_slice(NULL, 0));
        tb_shard_bulk(a->shard);
        tb_shard_touched(a->shard, a->acct, v->mbox);
    }
    tb_uidset_free(&set);
    return failed(v, rc);
}

enum tb_rc tb_expunge_log(struct tb_shard *s, uint32_t acct, uint32_t mbox, const struct tb_uidset *set)
{
    struct tb_disk_acct row;
    int64_t now = tb_io_wall_s(s->worker->io);
    size_t len = sizeof(struct tb_pay_expunge) + sizeof(now) + set->n * sizeof(set->v[0]);
    enum tb_rc rc = tb_shard_admit(s, len, 1, ADMIT_SMALL);
    if (rc != TB_OK || !tb_acct_get(s->ix, acct, &row))
        return rc != TB_OK ? rc : TB_NOTFOUND;
    struct tb_pay_expunge e = {.mbox = mbox, .n = (uint32_t)set->n, .modseq = row.modseq + 1, .due = tb_due(s)};
    tb_shard_record(s, TB_REC_EXPUNGE, TB_EXPUNGE_WHEN, acct, tb_slice(&e, sizeof(e)), tb_slice(&now, sizeof(now)),
                    ranges_slice(set));
    tb_shard_bulk(s);
    tb_shard_touched(s, acct, mbox);
    return s->failed ? TB_IO : TB_OK;
}

/* ---- for change.c ---- */

bool tb_view_pick(struct tb_view *v, const struct tb_uidset *uids, bool deleted, uint32_t *uid, uint32_t max,
                  struct tb_uidset *out)
{
    struct pick p = {.want = deleted ? want_deleted : want_all};
    return pick_rows(v, uids, &p, uid, max, out);
}

bool tb_view_there(struct tb_view *v)
{
    return mailbox_there(v);
}

enum tb_rc tb_view_rc(struct tb_view *v, enum tb_rc otherwise)
{
    return failed(v, otherwise);
}
