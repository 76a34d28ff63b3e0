/*
 * watch.c: tells watchers of an account what the records that change it say.
 *
 * Every change of an account is a record, so there is one place to look: tb_watch_before and tb_watch_after, on each
 * side of tb_apply, called only in shards where somebody watches. Names and rights that a record takes away are noted
 * before it is applied. What is noted is bounded (watch.h); past that the watch remembers only that it is past it.
 *
 * Invariants
 * W1 a watch never changes the index and never fails a change: without memory it is full, no more.
 * W2 fn runs from the loop; what is told then is read by the watcher, whose output waits for the account's position.
 * Thread: the shard's owner.
 */
#include <tambo/acl.h>
#include <tambo/watch.h>

#include "engine/store/shard.h"

#include <stdlib.h>

struct event { /* its name lies in names */
    enum tb_watch_kind kind;
    uint32_t acct, mbox, rights;
    size_t name, name_len;
    bool on;
};
struct tb_watch {
    struct tb_worker *worker;
    struct tb_account *account; /* counted; NULL: of the shard, or ended */
    struct tb_shard *shard;     /* NULL: ended */
    struct tb_watch *next;      /* in account->watches, or in shard->share_watches */
    uint32_t user;
    uint64_t self;
    void (*fn)(void *user_data);
    void *user_data;
    struct tb_op notify;
    bool notifying;
    bool full;                          /* something was lost */
    enum tb_rc ended;                   /* why there is no account */
    uint32_t rights;                    /* of user, between before and after */
    struct tb_watch_mailbox *mailboxes; /* owned: by number */
    size_t mailboxes_n, mailboxes_cap;
    struct event *events;                   /* owned */
    size_t events_at, events_n, events_cap; /* before events_at: taken */
    struct tb_buf names;
};

/* ---- who makes the changes ---- */

uint64_t tb_self_new(struct tb_store *store)
{
    return atomic_fetch_add(&store->selves, 1) + 1;
}

void tb_self(struct tb_worker *w, uint64_t self)
{
    w->self = self;
}

/* ---- waking ---- */

static void notify_done(struct tb_op *op)
{
    struct tb_watch *w = op->user;
    w->notifying = false;
    w->fn(w->user_data);
}

static void wake(struct tb_watch *w)
{
    if (w->notifying)
        return;
    w->notifying = true;
    w->notify = (struct tb_op){.done = notify_done, .user = w};
    tb_worker_ready(w->worker, &w->notify, TB_OK);
}

/* is_own: is the change that is being made the watcher's? */
static bool is_own(const struct tb_watch *w)
{
    return w->self != 0 && w->self == w->worker->self;
}

static void overflow(struct tb_watch *w)
{
    w->full = true;
    wake(w);
}

/* ---- noting ---- */

/* room: for one more of n elements, at most max; the new array, or NULL. */
static void *room(void *v, size_t n, size_t *cap, size_t max, size_t bytes)
{
    if (n < *cap)
        return v;
    size_t more = *cap ? *cap * 2 : 16;
    void *grown = n < max ? realloc(v, more * bytes) : NULL;
    if (grown != NULL)
        *cap = more;
    return grown;
}

static void note_messages(struct tb_watch *w, uint32_t mbox, uint8_t what)
{
    size_t lo = 0, hi = w->mailboxes_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (w->mailboxes[mid].mbox < mbox)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo < w->mailboxes_n && w->mailboxes[lo].mbox == mbox) {
        w->mailboxes[lo].what |= what;
        wake(w);
        return;
    }
    struct tb_watch_mailbox *v = room(w->mailboxes, w->mailboxes_n, &w->mailboxes_cap, TB_WATCH_MAILBOXES_MAX,
                                      sizeof(*v));
    if (v == NULL) {
        overflow(w);
        return;
    }
    w->mailboxes = v;
    memmove(v + lo + 1, v + lo, (w->mailboxes_n - lo) * sizeof(*v));
    v[lo] = (struct tb_watch_mailbox){mbox, what};
    w->mailboxes_n++;
    wake(w);
}

static void note_event(struct tb_watch *w, struct event e, struct tb_slice name)
{
    struct event *v = room(w->events, w->events_n, &w->events_cap, TB_WATCH_EVENTS_MAX, sizeof(*v));
    if (v != NULL)
        w->events = v;
    e.name = w->names.len;
    e.name_len = name.len;
    tb_buf_slice(&w->names, name);
    if (v == NULL || w->names.failed) {
        overflow(w);
        return;
    }
    v[w->events_n++] = e;
    wake(w);
}

/* tell_messages: to every watcher but whose change it is. */
static void tell_messages(const struct tb_account *a, uint32_t mbox, uint8_t what)
{
    for (struct tb_watch *w = a->watches; w != NULL; w = w->next)
        if (!w->full && !is_own(w))
            note_messages(w, mbox, what);
}

static void tell_event(const struct tb_account *a, struct event e, struct tb_slice name)
{
    for (struct tb_watch *w = a->watches; w != NULL; w = w->next)
        if (!w->full && !is_own(w))
            note_event(w, e, name);
}

/* ---- records ---- */

static bool head(const struct tb_record *r, void *out, size_t len)
{
    if (r->payload.len < len)
        return false;
    memcpy(out, r->payload.ptr, len);
    return true;
}

/* note_name: the mailbox is about to lose its name: who could look it up is told. */
static void note_name(struct tb_account *a, uint32_t mbox, enum tb_watch_kind kind)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    tb_arena_init(&arena, 64 << 10);
    bool good = tb_mailbox_get(a, mbox, &arena, &m) == TB_OK;
    for (struct tb_watch *w = a->watches; good && w != NULL; w = w->next)
        if (!w->full && !is_own(w) && (w->user == a->acct || tb_acl_rights(a, mbox, w->user) & TB_RIGHT_LOOKUP))
            note_event(w, (struct event){.kind = kind, .mbox = mbox}, m.name);
    tb_arena_free(&arena);
}

void tb_watch_before(struct tb_account *a, const struct tb_record *r)
{
    struct tb_pay_mbox_delete d;
    struct tb_pay_rename n;
    struct tb_pay_acl acl;
    if (r->type == TB_REC_MBOX_DELETE && head(r, &d, sizeof(d)))
        note_name(a, d.mbox, TB_WATCH_DELETED);
    else if (r->type == TB_REC_RENAME && head(r, &n, sizeof(n)))
        note_name(a, n.mbox, TB_WATCH_RENAMED);
    else if (r->type == TB_REC_ACL && head(r, &acl, sizeof(acl)))
        for (struct tb_watch *w = a->watches; w != NULL; w = w->next)
            w->rights = tb_acl_rights(a, acl.mbox, w->user);
}

/* is_fresh: was the last thing noted that the mailbox was made? Its rights, which it inherits, are no news then. */
static bool is_fresh(const struct tb_watch *w, uint32_t mbox)
{
    const struct event *last = w->events_n > 0 ? &w->events[w->events_n - 1] : NULL;
    return last != NULL && last->kind == TB_WATCH_CREATED && last->mbox == mbox;
}

static void after_rights(struct tb_account *a, uint32_t mbox)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    tb_arena_init(&arena, 64 << 10);
    bool good = tb_mailbox_get(a, mbox, &arena, &m) == TB_OK;
    for (struct tb_watch *w = a->watches; good && w != NULL; w = w->next) {
        uint32_t now = tb_acl_rights(a, mbox, w->user);
        struct event e = {.kind = TB_WATCH_RIGHTS, .mbox = mbox, .rights = w->rights};
        if (!w->full && !is_own(w) && w->rights != now && !is_fresh(w, mbox))
            note_event(w, e, now & TB_RIGHT_LOOKUP ? tb_slice(NULL, 0) : m.name);
    }
    tb_arena_free(&arena);
}

static void after_copy(struct tb_account *a, const struct tb_record *r)
{
    struct tb_pay_copy c;
    if (!head(r, &c, sizeof(c)))
        return;
    if (!(r->flags & TB_COPY_STAGED) || r->flags & TB_COPY_COMMIT)
        tell_messages(a, c.dst, TB_WATCH_NEW);
    if (r->flags & TB_COPY_MOVE)
        tell_messages(a, c.src, TB_WATCH_GONE);
}

static void after_messages(struct tb_account *a, const struct tb_record *r)
{
    struct tb_slice payload = r->payload;
    struct tb_pay_add add;
    struct tb_pay_flags f;
    struct tb_pay_expunge x;
    struct tb_pay_unexpunge u;
    if (r->type == TB_REC_ADD && tb_add_decode(&payload, r->flags, &add))
        tell_messages(a, add.mbox, TB_WATCH_NEW);
    else if (r->type == TB_REC_FLAGS && head(r, &f, sizeof(f)))
        tell_messages(a, f.mbox,
                      f.mode == TB_FLAGS_SET || f.flags & TB_FLAG_SEEN ? TB_WATCH_FLAGS | TB_WATCH_SEEN
                                                                       : TB_WATCH_FLAGS);
    else if (r->type == TB_REC_EXPUNGE && head(r, &x, sizeof(x)))
        tell_messages(a, x.mbox, TB_WATCH_GONE);
    else if (r->type == TB_REC_UNEXPUNGE && head(r, &u, sizeof(u)))
        tell_messages(a, u.dst, TB_WATCH_NEW);
    else if (r->type == TB_REC_COPY)
        after_copy(a, r);
}

void tb_watch_after(struct tb_account *a, const struct tb_record *r)
{
    struct tb_slice none = tb_slice(NULL, 0);
    struct tb_pay_mbox m;
    struct tb_pay_undelete u;
    struct tb_pay_annot n;
    struct tb_pay_acl acl;
    if (r->type == TB_REC_MBOX && head(r, &m, sizeof(m)) && !(m.flags & TB_MBOX_NOSELECT)) {
        tell_event(a, (struct event){.kind = TB_WATCH_CREATED, .mbox = m.mbox}, none);
    } else if (r->type == TB_REC_UNDELETE && head(r, &u, sizeof(u)) && u.mbox != 0) {
        tell_event(a, (struct event){.kind = TB_WATCH_CREATED, .mbox = u.mbox}, none);
    } else if (r->type == TB_REC_SUB) {
        tell_event(a, (struct event){.kind = TB_WATCH_SUBSCRIBED, .on = r->flags & TB_SUB_ON}, r->payload);
    } else if (r->type == TB_REC_ANNOT && head(r, &n, sizeof(n))) {
        struct event e = {.kind = TB_WATCH_ANNOTATED, .mbox = n.mbox, .on = !(r->flags & TB_ANNOT_GONE)};
        tell_event(a, e, tb_slice_sub(r->payload, sizeof(n), n.name_len));
    } else if (r->type == TB_REC_ACL && head(r, &acl, sizeof(acl))) {
        after_rights(a, acl.mbox);
    } else if (r->type == TB_REC_ACCT_DELETE) {
        for (struct tb_watch *w = a->watches; w != NULL; w = w->next)
            wake(w);
    } else {
        after_messages(a, r);
    }
}

/* ---- what is shared ---- */

void tb_watch_acl(struct tb_shard *s, const struct tb_record *r)
{
    struct tb_pay_acl p;
    if (!head(r, &p, sizeof(p)) || r->flags & (TB_ACL_NEGATIVE | TB_ACL_INHERIT) || p.rights == 0)
        return; /* what inherits is below what is shared already */
    bool all = p.user == TB_ACL_ANYONE || p.user == TB_ACL_AUTHENTICATED;
    for (struct tb_watch *w = s->share_watches; w != NULL; w = w->next)
        if (!w->full && !is_own(w) && r->acct != w->user && (all || p.user == w->user))
            note_event(w, (struct event){.kind = TB_WATCH_SHARED, .acct = r->acct, .mbox = p.mbox}, tb_slice(NULL, 0));
}

void tb_watch_touch(struct tb_watch *w, uint32_t mbox)
{
    note_messages(w, mbox, TB_WATCH_NEW | TB_WATCH_GONE | TB_WATCH_FLAGS | TB_WATCH_SEEN);
}

/* ---- beginning and end ---- */

static struct tb_watch *watch_new(struct tb_shard *s, uint32_t user, uint64_t self, void (*fn)(void *user_data),
                                  void *user_data)
{
    struct tb_watch *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    w->worker = s->worker;
    w->shard = s;
    w->user = user;
    w->self = self;
    w->fn = fn;
    w->user_data = user_data;
    tb_buf_init(&w->names, TB_WATCH_NAMES_MAX);
    s->watches++;
    return w;
}

enum tb_rc tb_watch_start(struct tb_account *a, uint32_t user, uint64_t self, void (*fn)(void *user_data),
                          void *user_data, struct tb_watch **out)
{
    struct tb_watch *w = watch_new(a->shard, user, self, fn, user_data);
    *out = w;
    if (w == NULL)
        return TB_LIMIT;
    w->account = a;
    a->refs++;
    w->next = a->watches;
    a->watches = w;
    return TB_OK;
}

enum tb_rc tb_watch_shares(struct tb_worker *owner, uint32_t shard, uint32_t user, uint64_t self,
                           void (*fn)(void *user_data), void *user_data, struct tb_watch **out)
{
    struct tb_shard *s = tb_shard_of(owner, shard);
    struct tb_watch *w = s->failed ? NULL : watch_new(s, user, self, fn, user_data);
    *out = w;
    if (w == NULL)
        return s->failed ? TB_IO : TB_LIMIT;
    w->next = s->share_watches;
    s->share_watches = w;
    return TB_OK;
}

/* detach: it sees nothing any more. */
static void detach(struct tb_watch *w)
{
    struct tb_account *a = w->account;
    if (w->shard == NULL)
        return;
    struct tb_watch **at = a != NULL ? &a->watches : &w->shard->share_watches;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    w->shard->watches--;
    w->shard = NULL;
    w->account = NULL;
    tb_account_close(a);
}

void tb_watch_stop(struct tb_watch *w)
{
    if (w == NULL)
        return;
    detach(w);
    if (w->notifying)
        (void)tb_worker_forget(w->worker, &w->notify);
    tb_buf_free(&w->names);
    free(w->mailboxes);
    free(w->events);
    free(w);
}

static void lose(struct tb_watch *w)
{
    w->ended = TB_IO;
    wake(w);
    detach(w);
}

void tb_watches_lost(struct tb_shard *s)
{
    while (s->share_watches != NULL)
        lose(s->share_watches);
    for (size_t i = 0; i < TB_ACCOUNT_BUCKETS && s->watches > 0; i++)
        for (struct tb_account *a = s->bucket[i]; a != NULL;) {
            struct tb_watch *w = a->watches;
            if (w == NULL) {
                a = a->next;
                continue;
            }
            lose(w);
            a = s->bucket[i]; /* it may have been closed with its last watch */
        }
}

/* forget: what was taken; of the rest, nothing moves but the mailboxes. Watchers are many, and mostly have nothing. */
static void forget(struct tb_watch *w, size_t mailboxes, size_t events)
{
    w->mailboxes_n -= mailboxes;
    w->events_at += events;
    if (w->mailboxes_n > 0) {
        memmove(w->mailboxes, w->mailboxes + mailboxes, w->mailboxes_n * sizeof(*w->mailboxes));
    } else {
        free(w->mailboxes);
        w->mailboxes = NULL;
        w->mailboxes_cap = 0;
    }
    if (w->events_at == w->events_n) {
        free(w->events);
        w->events = NULL;
        w->events_at = w->events_n = w->events_cap = 0;
        tb_buf_free(&w->names);
        tb_buf_init(&w->names, TB_WATCH_NAMES_MAX);
    }
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum tb_rc tb_watch_take(struct tb_watch *w, size_t max, struct tb_arena *arena, struct tb_watch_news *out)
{
    size_t mailboxes = least(w->mailboxes_n, max), events = least(w->events_n - w->events_at, max);
    *out = (struct tb_watch_news){0};
    if (w->shard == NULL)
        return w->ended;
    if (w->account != NULL && w->account->deleted)
        return TB_NOTFOUND;
    if (w->full)
        return TB_LIMIT;
    out->mailboxes = tb_arena_alloc(arena, (mailboxes + 1) * sizeof(*out->mailboxes));
    out->events = tb_arena_alloc(arena, (events + 1) * sizeof(*out->events));
    for (size_t i = 0; out->events != NULL && i < events; i++) {
        const struct event *e = &w->events[w->events_at + i];
        out->events[i] = (struct tb_watch_event){
            .kind = e->kind, .acct = e->acct, .mbox = e->mbox, .rights = e->rights, .on = e->on};
        out->events[i].name = tb_arena_copy(arena, tb_slice_sub(tb_buf_all(&w->names), e->name, e->name_len));
    }
    if (out->mailboxes == NULL || arena->overflowed) {
        w->full = true;
        return TB_LIMIT;
    }
    if (mailboxes > 0)
        memcpy(out->mailboxes, w->mailboxes, mailboxes * sizeof(*w->mailboxes));
    out->mailboxes_n = mailboxes;
    out->events_n = events;
    forget(w, mailboxes, events);
    out->more = w->mailboxes_n > 0 || w->events_n > 0;
    return tb_shard_sound(w->shard) ? TB_OK : TB_IO;
}
