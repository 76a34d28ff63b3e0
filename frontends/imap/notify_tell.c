/*
 * notify_tell.c: how NOTIFY tells what happened outside the selected mailbox: LIST, STATUS and METADATA responses.
 *
 * A line is told only to who may look the mailbox up and read it, as the rights are when it is told; that a name went
 * is told to who could look it up before. Thread: the connection's owner. RFC 5465 5.1 to 5.6, 5.9.
 */
#include "imap_notify.h"

/* what is told without the right to read: that it is there, or not any more */
enum { MAY_READ = TB_RIGHT_LOOKUP | TB_RIGHT_READ };

void notify_put_status(struct imap_session *s, struct tb_slice name, const struct tb_mailbox *m, uint8_t events,
                       uint8_t what)
{
    bool condstore = s->enabled & (IMAP_CONDSTORE | IMAP_QRESYNC), first = what == 0;
    bool counts = first || what & (TB_WATCH_NEW | TB_WATCH_GONE);
    bool flags = first ? events & EVENT_FLAGS : events & EVENT_FLAGS && what & TB_WATCH_FLAGS;
    struct imap_status items = {0};
    imap_status_add(&items, "UIDVALIDITY");
    if (counts) {
        imap_status_add(&items, "UIDNEXT");
        imap_status_add(&items, "MESSAGES");
    }
    if (flags && (first || what & TB_WATCH_SEEN))
        imap_status_add(&items, "UNSEEN");
    if (condstore || (first && flags))
        imap_status_add(&items, "HIGHESTMODSEQ");
    if (counts || condstore || what & TB_WATCH_SEEN) /* RFC 5465 5.1: else there is nothing to tell of flags */
        imap_put_status(s, name, m, &items);
}

/* full: the mailbox's name as the client knows it; empty without memory. */
static struct tb_slice full(struct imap_session *s, const struct notify_port *p, struct tb_slice name)
{
    struct tb_slice prefix = notify_port_prefix(p);
    if (prefix.len == 0 || name.len == 0)
        return name;
    char *text = tb_arena_alloc(&s->notify->scratch, prefix.len + name.len);
    if (!text)
        return tb_slice("", 0);
    (void)imap_fmt(imap_fmt(text, prefix.ptr, prefix.len), name.ptr, name.len);
    return tb_slice(text, prefix.len + name.len);
}

static uint8_t events_of(struct imap_session *s, const struct notify_port *p, struct tb_slice name, bool subscribed)
{
    return notify_events(s->notify, name, subscribed || (notify_port_prefix(p).len > 0 && imap_notify_subs(s, name)));
}

static void tell_mailbox(struct imap_session *s, const struct notify_port *p, const struct notify_told *t,
                         const struct tb_watch_mailbox *w)
{
    bool selected = s->view && notify_port_account(p).acct == s->seat.acct && tb_view_mbox(s->view) == w->mbox;
    if (selected || !t->m.selectable || (t->rights & MAY_READ) != MAY_READ)
        return;
    struct tb_slice name = full(s, p, t->m.name);
    uint8_t events = events_of(s, p, name, t->m.subscribed), what = 0;
    what |= events & EVENT_NEW ? w->what & TB_WATCH_NEW : 0;
    what |= events & EVENT_EXPUNGE ? w->what & TB_WATCH_GONE : 0;
    what |= events & EVENT_FLAGS ? w->what & (TB_WATCH_FLAGS | TB_WATCH_SEEN) : 0;
    if (what != 0)
        notify_put_status(s, name, &t->m, events, what);
}

/* tell_above: the name above one that came or went is affected too (RFC 5465 5.4). */
static void tell_above(struct imap_session *s, const struct notify_port *p, const struct notify_told *t)
{
    if (!(t->parent_rights & TB_RIGHT_LOOKUP))
        return;
    struct tb_slice name = full(s, p, t->parent.name);
    if (events_of(s, p, name, t->parent.subscribed) & EVENT_NAME)
        imap_put_list_event(s, &t->parent, name, name, 0);
}

static void tell_name(struct imap_session *s, const struct notify_port *p, const struct notify_told *t,
                      const struct tb_watch_event *e)
{
    bool there = t->rights & TB_RIGHT_LOOKUP;
    struct tb_slice name, old = full(s, p, e->name);
    if (!there && e->kind != TB_WATCH_DELETED)
        return; /* it has gone again, or is not for this client's eyes */
    name = e->kind == TB_WATCH_DELETED ? old : full(s, p, t->m.name);
    uint8_t events = events_of(s, p, name, t->m.subscribed);
    if (e->kind == TB_WATCH_RENAMED)
        events |= events_of(s, p, old, false);
    if (events & EVENT_NAME)
        imap_put_list_event(s, there ? &t->m : NULL, name, e->kind == TB_WATCH_RENAMED ? old : name, 0);
    if (e->kind != TB_WATCH_RENAMED)
        tell_above(s, p, t);
}

/* tell_rights: what another user gave or took: RFC 5465 5.4, 5.9. */
static void tell_rights(struct imap_session *s, const struct notify_port *p, const struct notify_told *t,
                        const struct tb_watch_event *e)
{
    bool had = e->rights & TB_RIGHT_LOOKUP, has = t->rights & TB_RIGHT_LOOKUP;
    bool could = (e->rights & MAY_READ) == MAY_READ, can = (t->rights & MAY_READ) == MAY_READ;
    struct tb_slice name = full(s, p, has ? t->m.name : e->name);
    uint8_t events = name.len > 0 ? events_of(s, p, name, t->m.subscribed) : 0;
    bool messages = events & EVENT_MESSAGES;
    if (had != has && events & EVENT_NAME)
        imap_put_list_event(s, has ? &t->m : NULL, name, name, messages && !can ? LIST_NOACCESS : 0);
    else if (messages && could != can)
        imap_put_list_event(s, has ? &t->m : NULL, name, name, can ? 0 : LIST_NOACCESS);
}

/* tell_shared: of a user who shared nothing before: from now on this account is watched too. */
static void tell_shared(struct imap_session *s, const struct notify_told *t)
{
    struct imap_notify *n = s->notify;
    const size_t prefix = sizeof(IMAP_OTHERS) - 1;
    size_t len = prefix + t->owner.len + 1 + t->m.name.len;
    char *text = t->owner.len > 0 && !notify_watches(n, t->id) ? tb_arena_alloc(&n->scratch, len) : NULL;
    if (!text)
        return; /* nothing to look up, or it tells itself */
    char *p = imap_fmt(IMAP_FMT(text, IMAP_OTHERS), t->owner.ptr, t->owner.len);
    *p++ = '/';
    (void)imap_fmt(p, t->m.name.ptr, t->m.name.len);
    struct tb_slice name = tb_slice(text, len);
    uint8_t events = notify_events(n, name, imap_notify_subs(s, name));
    if (events == 0)
        return;
    if (events & EVENT_NAME)
        imap_put_list_event(s, &t->m, name, name,
                            events & EVENT_MESSAGES && !(t->rights & TB_RIGHT_READ) ? LIST_NOACCESS : 0);
    n->lost = !notify_add(s, n, name, t->m.mbox) || n->lost;
}

static void work_find(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (imap_errand_find(e, a, TB_RIGHT_LOOKUP))
        e->mailbox.special = 0; /* its owner's affair */
}

/*
 * tell_subscription: of one's own mailboxes and of others', whose attributes their owner knows. False: on the way, the
 * step is resumed.
 */
static bool tell_subscription(struct imap_session *s, const struct notify_told *t, const struct tb_watch_event *e)
{
    struct imap_notify *n = s->notify;
    const struct tb_mailbox *m = t->rights & TB_RIGHT_LOOKUP ? &t->m : NULL;
    struct imap_place where;
    imap_notify_subscribed(s, e->name, e->on);
    if (!(notify_events(n, e->name, true) & EVENT_SUBSCRIPTION))
        return true;
    if (!n->find && imap_is_others(e->name) && imap_locate(s, e->name, &where)) {
        n->find = imap_errand_new(s, &where);
        if (n->find)
            imap_errand_start(s, n->find, work_find);
    }
    if (n->find && n->find->busy)
        return false;
    if (n->find)
        m = n->find->rc == TB_OK ? &n->find->mailbox : NULL;
    imap_put_list_event(s, m, e->name, e->name, e->on ? LIST_IS_SUBSCRIBED : 0);
    imap_errand_end(n->find);
    n->find = NULL;
    return true;
}

/* tell_metadata: events[at], and what follows it of the same mailbox, in one response. Returns how many. */
static size_t tell_metadata(struct imap_session *s, const struct notify_port *p, const struct notify_news *n, size_t at)
{
    const struct tb_watch_event *e = &n->news.events[at];
    const struct notify_told *t = &n->events[at];
    bool server = e->mbox == 0, own = notify_port_prefix(p).len == 0, any = false;
    struct tb_slice name = server ? tb_slice("", 0) : full(s, p, t->m.name);
    bool wanted = server
                      ? own && imap_notify_server(s)
                      : (t->rights & MAY_READ) == MAY_READ && events_of(s, p, name, t->m.subscribed) & EVENT_METADATA;
    size_t i = at;
    for (; i < n->news.events_n && n->news.events[i].kind == TB_WATCH_ANNOTATED && n->news.events[i].mbox == e->mbox;
         i++) {
        bool shown = own || tb_slice_istarts(n->news.events[i].name, TB_SLICE("/shared/"));
        if (!wanted || !shown)
            continue;
        if (!any) {
            imap_puts(&s->out, "* METADATA ");
            imap_put_mailbox(&s->out, name);
        }
        any = true;
        imap_putc(&s->out, ' ');
        imap_put_astring(&s->out, n->news.events[i].name);
    }
    if (any)
        imap_puts(&s->out, "\r\n");
    return i - at;
}

/* tell_event: events[at]; returns how many were told with it; 0: none yet. */
static size_t tell_event(struct imap_session *s, const struct notify_port *p, const struct notify_news *n, size_t at)
{
    const struct tb_watch_event *e = &n->news.events[at];
    const struct notify_told *t = &n->events[at];
    switch (e->kind) {
    case TB_WATCH_CREATED:
    case TB_WATCH_DELETED:
    case TB_WATCH_RENAMED:
        tell_name(s, p, t, e);
        break;
    case TB_WATCH_SUBSCRIBED:
        if (notify_port_prefix(p).len == 0) /* others' subscriptions are theirs */
            return tell_subscription(s, t, e);
        break;
    case TB_WATCH_RIGHTS:
        if (notify_port_prefix(p).len > 0)
            tell_rights(s, p, t, e);
        break;
    case TB_WATCH_SHARED:
        tell_shared(s, t);
        break;
    case TB_WATCH_ANNOTATED:
        return tell_metadata(s, p, n, at);
    }
    return 1;
}

bool notify_tell(struct imap_session *s, const struct notify_port *p, struct notify_news *n)
{
    const size_t events = n->news.events_n;
    while (n->at < events + n->news.mailboxes_n) {
        if (imap_put_full(&s->out))
            return false;
        tb_arena_reset(&s->notify->scratch);
        if (n->at < events) {
            size_t told = tell_event(s, p, n, n->at);
            if (told == 0)
                return false;
            n->at += told;
            continue;
        }
        tell_mailbox(s, p, &n->mailboxes[n->at - events], &n->news.mailboxes[n->at - events]);
        n->at++;
    }
    tb_arena_free(&s->notify->scratch);
    return true;
}
