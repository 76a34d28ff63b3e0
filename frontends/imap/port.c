/*
 * port.c: a watch in one account (tambo/watch.h), told to a session wherever it sits.
 *
 * The watch lives on the thread of the account's owner, the session on that of its seat, and it moves. When the watch
 * has something, a wake-up is posted to the session's worker, and follows it if it has left; the session then fetches
 * what there is by an errand, which comes back when it is durable (R16). In the account where the session sits, all
 * of this is plain calls.
 *
 * Invariants
 * O1 one wake-up is under way at most; the errand that follows it says that it arrived (e->on).
 * O2 `at`, the session's worker, is changed by the session's own thread, before it leaves; all else of the session's
 * side belongs to the thread of that worker, the watch to the account's owner. O3 the memory stays as long as the
 * session, the watch's end or a wake-up needs it (refs). O4 no errand is under way while the session moves (imap_sit
 * waits). Thread: as said; notify_port_ calls: the connection's owner.
 */
#include "imap_notify.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { TAKE_MAX = 256 /* mailboxes, and events, looked up in one go: about 5 ms */ };

struct notify_port {
    atomic_uint refs;
    _Atomic(struct tb_worker *) at;
    struct tb_account_id id;
    uint32_t user;
    uint64_t self;
    uint32_t touched;
    struct tb_slice prefix; /* borrowed: lives as long as the session's side */
    struct tb_worker *owner;
    /* the owner's side */
    struct tb_watch *watch; /* owned */
    bool posted;            /* the session is about to look */
    struct tb_op wake;
    struct tb_worker *wake_to;
    struct tb_call stop;
    /* the session's side */
    struct imap_session *s;     /* borrowed; NULL: it ended */
    struct imap_errand *errand; /* owned */
    enum tb_rc rc;              /* of the watch's beginning */
    bool here, started, woken, more;
};

static void unref(struct notify_port *p)
{
    if (atomic_fetch_sub(&p->refs, 1) == 1)
        free(p);
}

/* ---- waking ---- */

static void woken(struct tb_op *op)
{
    struct notify_port *p = op->user;
    struct tb_worker *here = p->wake_to, *at = atomic_load(&p->at);
    if (at != here) {
        p->wake_to = at;
        tb_io_post(tb_worker_io(here), tb_worker_io(at), op);
        return;
    }
    p->woken = true;
    if (p->here && p->s)
        tb_conn_resume(p->s->conn);
    unref(p);
}

/* fired: the watch has something. On the account's owner. */
static void fired(void *user_data)
{
    struct notify_port *p = user_data;
    if (p->posted)
        return;
    p->posted = true;
    p->wake_to = atomic_load(&p->at);
    p->wake = (struct tb_op){.done = woken, .user = p};
    atomic_fetch_add(&p->refs, 1);
    if (p->wake_to == p->owner)
        woken(&p->wake);
    else
        tb_io_post(tb_worker_io(p->owner), tb_worker_io(p->wake_to), &p->wake);
}

/* ---- on the account's owner ---- */

static void work_start(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct notify_port *p = e->data;
    e->rc = a ? tb_watch_start(a, p->user, p->self, fired, p, &p->watch)
              : tb_watch_shares(w, p->id.shard, p->user, p->self, fired, p, &p->watch);
    if (e->rc == TB_OK && p->touched != 0)
        tb_watch_touch(p->watch, p->touched);
}

/* look: a mailbox as it is now, and what the session's user may do there. */
static void look(struct imap_errand *e, struct tb_account *a, uint32_t mbox, struct notify_told *t)
{
    struct tb_mailbox m;
    if (mbox == 0 || tb_mailbox_get(a, mbox, &e->arena, &m) != TB_OK ||
        tb_mailbox_find(a, m.name, &e->arena, &t->m) != TB_OK)
        return;
    t->rights = tb_acl_rights(a, mbox, e->user);
    if (!e->own)
        t->m.special = 0, t->m.subscribed = false; /* its owner's affairs */
}

/* look_name: by name, and the name above it. */
static void look_name(struct imap_errand *e, struct tb_account *a, struct tb_slice name, struct tb_mailbox *m,
                      uint32_t *rights)
{
    if (name.len == 0 || tb_mailbox_find(a, name, &e->arena, m) != TB_OK)
        return;
    *rights = m->selectable || e->own ? tb_acl_rights(a, m->mbox, e->user) : 0;
    if (!e->own)
        m->special = 0, m->subscribed = false;
}

static struct tb_slice above(struct tb_slice name)
{
    const char *slash = name.len > 0 ? memrchr(name.ptr, '/', name.len) : NULL;
    return tb_slice_sub(name, 0, slash ? (size_t)(slash - name.ptr) : 0);
}

static void look_shared(struct imap_errand *e, struct tb_worker *w, const struct tb_watch_event *v,
                        struct notify_told *t)
{
    struct tb_shared x;
    if (!tb_acl_shared_one(w, e->id.shard, e->user, v->acct, v->mbox, &e->arena, &x))
        return;
    t->id = x.id;
    t->m = x.mailbox;
    t->m.special = 0;
    t->rights = x.rights;
    t->owner = x.owner;
}

static void look_event(struct imap_errand *e, struct tb_account *a, const struct tb_watch_event *v,
                       struct notify_told *t)
{
    if (v->kind == TB_WATCH_DELETED || v->kind == TB_WATCH_SUBSCRIBED)
        look_name(e, a, v->name, &t->m, &t->rights);
    else
        look(e, a, v->mbox, t);
    if (v->kind == TB_WATCH_CREATED || v->kind == TB_WATCH_DELETED)
        look_name(e, a, above(v->kind == TB_WATCH_CREATED ? t->m.name : v->name), &t->parent, &t->parent_rights);
}

static void work_take(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct notify_port *p = e->data;
    struct notify_news *n = tb_arena_alloc(&e->arena, sizeof *n);
    if (e->on) /* O1 */
        p->posted = false;
    e->rc = n ? tb_watch_take(p->watch, TAKE_MAX, &e->arena, &n->news) : TB_LIMIT;
    e->data = n;
    if (e->rc != TB_OK)
        return;
    n->mailboxes = tb_arena_alloc(&e->arena, (n->news.mailboxes_n + 1) * sizeof *n->mailboxes);
    n->events = tb_arena_alloc(&e->arena, (n->news.events_n + 1) * sizeof *n->events);
    for (size_t i = 0; n->events && i < n->news.events_n; i++)
        if (a)
            look_event(e, a, &n->news.events[i], &n->events[i]);
        else
            look_shared(e, w, &n->news.events[i], &n->events[i]);
    for (size_t i = 0; n->mailboxes && i < n->news.mailboxes_n; i++)
        look(e, a, n->news.mailboxes[i].mbox, &n->mailboxes[i]);
    if (e->arena.overflowed)
        e->rc = TB_LIMIT;
}

static void stop_run(struct tb_call *call, struct tb_worker *owner)
{
    struct notify_port *p = call->user;
    (void)owner;
    tb_watch_stop(p->watch);
    p->watch = NULL;
}

static void stop_done(struct tb_op *op)
{
    unref(op->user);
}

/* ---- the session's side ---- */

static bool errand(struct imap_session *s, struct notify_port *p,
                   void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *a))
{
    const struct imap_place where = {.id = p->id, .own = p->id.acct == p->user};
    p->errand = imap_errand_new(s, &where);
    if (!p->errand)
        return false;
    p->errand->data = p;
    p->errand->on = p->woken;
    p->woken = p->more = false;
    imap_errand_start(s, p->errand, work);
    return true;
}

struct notify_port *notify_port_new(struct imap_session *s, struct tb_account_id id, struct tb_slice prefix,
                                    uint64_t self, uint32_t touched)
{
    struct tb_worker *w = tb_conn_worker(s->conn);
    struct tb_store *store = tb_worker_store(w);
    struct notify_port *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->refs = 1;
    p->at = w;
    p->owner = tb_store_worker(store, tb_store_worker_of(store, id));
    p->id = id;
    p->user = s->account_id.acct;
    p->self = self;
    p->touched = touched;
    p->prefix = prefix;
    p->s = s;
    p->here = true;
    if (errand(s, p, work_start))
        return p;
    free(p);
    return NULL;
}

bool notify_port_ready(struct notify_port *p, enum tb_rc *rc)
{
    if (!p->started && p->errand->busy)
        return false;
    if (!p->started) {
        p->rc = p->errand->rc;
        p->started = true;
        imap_errand_end(p->errand);
        p->errand = NULL;
    }
    *rc = p->rc;
    return true;
}

bool notify_port_look(struct imap_session *s, struct notify_port *p, struct notify_news **news, enum tb_rc *rc)
{
    *rc = TB_OK;
    if (!p->errand && !p->woken && !p->more)
        return false;
    if (!p->errand && !errand(s, p, work_take)) {
        *rc = TB_LIMIT;
        return true;
    }
    if (p->errand->busy)
        return false;
    *rc = p->errand->rc;
    *news = *rc == TB_OK ? p->errand->data : NULL;
    return true;
}

void notify_port_told(struct notify_port *p)
{
    const struct notify_news *n = p->errand->data;
    p->more = n->news.more;
    imap_errand_end(p->errand);
    p->errand = NULL;
}

void notify_port_end(struct imap_session *s, struct notify_port *p)
{
    imap_errand_end(p->errand);
    p->errand = NULL;
    p->s = NULL;
    p->stop = (struct tb_call){.run = stop_run, .user = p, .always = true, .op = {.done = stop_done, .user = p}};
    tb_call(tb_conn_worker(s->conn), p->id.shard, &p->stop);
}

bool notify_port_busy(const struct notify_port *p)
{
    return p->errand && p->errand->busy;
}

void notify_port_leave(struct notify_port *p, struct tb_worker *to)
{
    p->here = false;
    atomic_store(&p->at, to);
}

void notify_port_arrive(struct notify_port *p)
{
    p->here = true;
}

struct tb_account_id notify_port_account(const struct notify_port *p)
{
    return p->id;
}

struct tb_slice notify_port_prefix(const struct notify_port *p)
{
    return p->prefix;
}
