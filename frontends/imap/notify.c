/*
 * notify.c: NOTIFY: what the client wants to be told, of the selected mailbox and of others, at any time.
 *
 * Of the selected mailbox it is told as IDLE tells, whenever no command is under way, with what it wants to know of new
 * messages; without SELECTED its picture stands still until it changes something itself. What happens elsewhere comes
 * from watches, one in each account (port.c), is matched with the groups when it is told, and costs nothing while
 * nothing happens. A client that does not read loses its watches, and is told that.
 *
 * Invariants
 * Y1 what cannot be told wholly ends in NOTIFICATIONOVERFLOW, and from then on it is as after NOTIFY NONE (5.8).
 * Y2 a refused NOTIFY leaves what was there before.
 * Thread: the connection's owner; parsing: any. RFC 5465.
 */
#include "imap_fetch.h"
#include "imap_notify.h"

#include <stdlib.h>

struct notify_args {
    bool set, status, unsupported;
    struct notify_group *groups; /* arena */
    size_t groups_n, names_n;
    uint8_t selectors; /* how many SELECTED there are */
    /* run */
    struct imap_notify *fresh; /* owned, until it is the session's */
    struct imap_gather gather;
    bool others, gathering, gathered;
    size_t told;
};

/* ---- parsing ---- */

static const struct {
    const char *name;
    uint8_t event;
} events[] = {{"MessageNew", EVENT_NEW},
              {"MessageExpunge", EVENT_EXPUNGE},
              {"FlagChange", EVENT_FLAGS},
              {"AnnotationChange", EVENT_ANNOTATION},
              {"MailboxName", EVENT_NAME},
              {"SubscriptionChange", EVENT_SUBSCRIPTION},
              {"MailboxMetadataChange", EVENT_METADATA},
              {"ServerMetadataChange", EVENT_SERVER}};
#define BADEVENT \
    "NO [BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange " \
    "ServerMetadataChange)] No such event here"
#define OVERFLOW "NO [NOTIFICATIONOVERFLOW] Too much to watch"

static bool is_selected(const struct notify_group *g)
{
    return g->filter == FILTER_SELECTED || g->filter == FILTER_DELAYED;
}

/* one-or-more-mailbox = mailbox / "(" mailbox *(SP mailbox) ")" */
static void mailboxes(struct imap_parser *p, struct notify_args *a, struct notify_group *g)
{
    bool several = imap_try(p, '(');
    size_t cap = several ? NOTIFY_NAMES_MAX - a->names_n : 1;
    g->names = tb_arena_alloc(p->arena, (cap + 1) * sizeof *g->names);
    do {
        struct tb_slice name = imap_mailbox(p);
        if (!g->names || g->names_n == cap)
            imap_fail(p, OVERFLOW);
        else
            g->names[g->names_n++] = name;
    } while (several && !p->failed && imap_try_sp(p));
    a->names_n += g->names_n;
    if (several)
        imap_expect(p, ')');
}

/* filter-mailboxes = "selected" / "selected-delayed" / "inboxes" / "personal" / "subscribed" / "subtree" SP
 * one-or-more-mailbox / "mailboxes" SP one-or-more-mailbox */
static void filter(struct imap_parser *p, struct notify_args *a, struct notify_group *g)
{
    static const char *const names[] = {
        [FILTER_SELECTED] = "selected",  [FILTER_DELAYED] = "selected-delayed", [FILTER_INBOXES] = "inboxes",
        [FILTER_PERSONAL] = "personal",  [FILTER_SUBSCRIBED] = "subscribed",    [FILTER_SUBTREE] = "subtree",
        [FILTER_MAILBOXES] = "mailboxes"};
    struct tb_slice word = imap_word(p);
    size_t i = 0;
    while (i < TB_ARRAY_LEN(names) && !tb_slice_ieq(word, tb_slice_str(names[i])))
        i++;
    if (i == TB_ARRAY_LEN(names)) {
        imap_fail(p, "BAD No such mailbox specifier");
        return;
    }
    g->filter = (enum notify_filter)i;
    if (g->filter == FILTER_SUBTREE || g->filter == FILTER_MAILBOXES) {
        imap_sp(p);
        mailboxes(p, a, g);
    }
    if (is_selected(g) && ++a->selectors > 1)
        imap_fail(p, "BAD One SELECTED is enough"); /* RFC 5465 6.1 */
}

/* event = "MessageNew" [SP "(" fetch-att *(SP fetch-att) ")"] / the other names / atom */
static void event(struct imap_parser *p, struct notify_args *a, struct notify_group *g, struct tb_slice word)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(events); i++)
        if (tb_slice_ieq(word, tb_slice_str(events[i].name))) {
            g->events |= events[i].event;
            if (events[i].event == EVENT_NEW && p->end - p->p > 2 && p->p[0] == ' ' && p->p[1] == '(') {
                imap_sp(p);
                g->fetch = imap_fetch_atts(p);
            }
            a->unsupported |= events[i].event == EVENT_ANNOTATION;
            return;
        }
    a->unsupported = true;
}

/* check: what goes together (RFC 5465 5, 6.1, 8). */
static void check(struct imap_parser *p, const struct notify_group *g)
{
    uint8_t pair = g->events & (EVENT_NEW | EVENT_EXPUNGE);
    bool both = pair == (EVENT_NEW | EVENT_EXPUNGE);
    if ((pair != 0 && !both) || (g->events & (EVENT_FLAGS | EVENT_ANNOTATION) && !both))
        imap_fail(p, "BAD MessageNew and MessageExpunge belong together");
    else if (is_selected(g) && g->events & ~(EVENT_MESSAGES | EVENT_ANNOTATION))
        imap_fail(p, "BAD Only events of messages for the selected mailbox");
    else if (!is_selected(g) && g->fetch.ptr)
        imap_fail(p, "BAD Items are for the selected mailbox only");
}

/* event-group = "(" filter-mailboxes SP events ")"; events = "(" event *(SP event) ")" / "NONE". The parentheses may be
 * missing, as in the RFC's own examples (docs/LENIENCY.md). */
static void group(struct imap_parser *p, struct notify_args *a, struct notify_group *g)
{
    imap_expect(p, '(');
    filter(p, a, g);
    imap_sp(p);
    bool list = imap_try(p, '(');
    struct tb_slice word = imap_word(p);
    if (list || !tb_slice_ieq(word, TB_SLICE("NONE")))
        for (event(p, a, g, word); !p->failed && imap_try_sp(p);)
            event(p, a, g, imap_word(p));
    if (list)
        imap_expect(p, ')');
    imap_expect(p, ')');
    if (!p->failed)
        check(p, g);
}

/* notify = "NOTIFY" SP ("SET" [SP "STATUS"] SP event-group *(SP event-group) / "NONE") */
void imap_parse_notify(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct notify_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    struct tb_slice word = imap_word(p);
    if (tb_slice_ieq(word, TB_SLICE("NONE")))
        return;
    a->set = true;
    a->groups = tb_arena_alloc(p->arena, NOTIFY_GROUPS_MAX * sizeof *a->groups);
    if (!tb_slice_ieq(word, TB_SLICE("SET")) || !a->groups)
        imap_fail(p, "BAD Expected SET or NONE");
    imap_sp(p);
    if (!p->failed && !imap_at(p, '(')) {
        a->status = tb_slice_ieq(imap_word(p), TB_SLICE("STATUS"));
        if (!a->status)
            imap_fail(p, "BAD Expected STATUS or a group");
        imap_sp(p);
    }
    do {
        if (a->groups_n == NOTIFY_GROUPS_MAX)
            imap_fail(p, OVERFLOW);
        else
            group(p, a, &a->groups[a->groups_n++]);
    } while (!p->failed && imap_try_sp(p));
}

/* ---- what a mailbox is watched for ---- */

static bool is_below(struct tb_slice name, struct tb_slice top)
{
    return name.len >= top.len && memcmp(name.ptr, top.ptr, top.len) == 0 &&
           (name.len == top.len || name.ptr[top.len] == '/');
}

static bool in_group(const struct notify_group *g, struct tb_slice name, bool subscribed)
{
    bool in = false;
    if (g->filter == FILTER_PERSONAL || g->filter == FILTER_INBOXES) /* RFC 5465 6.3: mail comes to any of them */
        return !imap_is_others(name);
    if (g->filter == FILTER_SUBSCRIBED)
        return subscribed;
    for (size_t i = 0; i < g->names_n; i++)
        in = in || (g->filter == FILTER_SUBTREE ? is_below(name, g->names[i]) : tb_slice_eq(name, g->names[i]));
    return in;
}

uint8_t notify_events(const struct imap_notify *n, struct tb_slice name, bool subscribed)
{
    uint8_t all = 0;
    for (size_t i = 0; name.len > 0 && i < n->groups_n; i++)
        if (!is_selected(&n->groups[i]) && in_group(&n->groups[i], name, subscribed))
            all |= n->groups[i].events;
    return all;
}

bool imap_notify_server(const struct imap_session *s)
{
    for (size_t i = 0; i < s->notify->groups_n; i++)
        if (s->notify->groups[i].events & EVENT_SERVER)
            return true;
    return false;
}

/* ---- making and ending it ---- */

static size_t find_sub(const struct imap_notify *n, struct tb_slice name)
{
    size_t i = 0;
    while (i < n->subs_n && !tb_slice_eq(n->subs[i], name))
        i++;
    return i;
}

static bool add_sub(struct imap_notify *n, struct tb_slice name)
{
    if (find_sub(n, name) < n->subs_n)
        return true;
    char *copy = n->subs_n < NOTIFY_SUBS_MAX ? malloc(name.len + 1) : NULL;
    struct tb_slice *v = copy ? realloc(n->subs, (n->subs_n + 1) * sizeof *v) : NULL;
    if (!v) {
        free(copy);
        return false;
    }
    (void)imap_fmt(copy, name.ptr, name.len);
    n->subs = v;
    v[n->subs_n++] = tb_slice(copy, name.len);
    return true;
}

static void copy_group(struct imap_notify *n, const struct notify_group *from, struct notify_group *g)
{
    *g = *from;
    g->names = tb_arena_alloc(&n->arena, (g->names_n + 1) * sizeof *g->names);
    for (size_t i = 0; g->names && i < g->names_n; i++)
        g->names[i] = tb_arena_copy(&n->arena, from->names[i]);
    if (g->fetch.ptr)
        g->fetch = tb_arena_copy(&n->arena, g->fetch);
    if (!is_selected(g))
        return;
    n->selected = g->events & EVENT_MESSAGES;
    n->delayed = g->filter == FILTER_DELAYED;
    n->fetch = g->fetch;
}

static void end(struct imap_session *s, struct imap_notify *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->ports_n; i++)
        notify_port_end(s, n->ports[i]);
    free(n->ports);
    if (n->push.cleanup)
        n->push.cleanup(s, &n->push);
    imap_errand_end(n->find);
    for (size_t i = 0; i < n->subs_n; i++)
        free((char *)(uintptr_t)n->subs[i].ptr);
    free(n->subs);
    tb_uidset_free(&n->fresh);
    tb_uidset_free(&n->own);
    tb_arena_free(&n->scratch);
    tb_arena_free(&n->arena);
    free(n);
}

/* make: what the command says; NULL without memory. */
static struct imap_notify *make(struct imap_session *s, const struct notify_args *a)
{
    struct imap_notify *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    tb_arena_init(&n->arena, NOTIFY_BYTES_MAX);
    tb_arena_init(&n->scratch, NOTIFY_BYTES_MAX);
    tb_uidset_init(&n->fresh);
    tb_uidset_init(&n->own);
    n->here = true;
    n->self = tb_self_new(tb_worker_store(tb_conn_worker(s->conn)));
    n->groups_n = a->groups_n;
    n->groups = tb_arena_alloc(&n->arena, (a->groups_n + 1) * sizeof *n->groups);
    for (size_t i = 0; n->groups && i < a->groups_n; i++)
        copy_group(n, &a->groups[i], &n->groups[i]);
    n->noop = a->set;
    if (!n->arena.overflowed)
        return n;
    end(s, n);
    return NULL;
}

bool notify_watches(const struct imap_notify *n, struct tb_account_id id)
{
    for (size_t i = 0; i < n->ports_n; i++) {
        struct tb_account_id one = notify_port_account(n->ports[i]);
        if (one.acct == id.acct && (id.acct != 0 || one.shard == id.shard))
            return true;
    }
    return false;
}

/* add_port: watch an account, or with acct 0 what begins to be shared in a shard, once. False: there are too many, or
 * no memory. */
static bool add_port(struct imap_session *s, struct imap_notify *n, struct tb_account_id id, struct tb_slice prefix,
                     uint32_t touched)
{
    if (notify_watches(n, id))
        return true;
    struct tb_slice kept = tb_arena_copy(&n->arena, prefix);
    struct notify_port **v = realloc(n->ports, (n->ports_n + 1) * sizeof(struct notify_port *));
    if (v)
        n->ports = v;
    if (!v || !kept.ptr || (id.acct != 0 && n->accounts_n == NOTIFY_PORTS_MAX))
        return false;
    n->accounts_n += id.acct != 0;
    struct notify_port *p = notify_port_new(s, id, kept, n->self, touched);
    if (p)
        n->ports[n->ports_n++] = p;
    return p != NULL;
}

bool notify_add(struct imap_session *s, struct imap_notify *n, struct tb_slice name, uint32_t touched)
{
    struct imap_place where;
    const size_t prefix = sizeof(IMAP_OTHERS) - 1;
    char probe[sizeof(IMAP_OTHERS) + TB_NAME_MAX + 2];
    if (name.len <= prefix)
        return true;
    struct tb_slice rest = tb_slice_sub(name, prefix, SIZE_MAX);
    const char *slash = memchr(rest.ptr, '/', rest.len);
    size_t owner = slash ? (size_t)(slash - rest.ptr) : rest.len;
    if (owner > TB_NAME_MAX)
        return true;
    char *end_of = imap_fmt(probe, name.ptr, prefix + owner);
    end_of = IMAP_FMT(end_of, "/?"); /* any mailbox of that owner's */
    if (!imap_locate(s, tb_slice(probe, (size_t)(end_of - probe)), &where))
        return true;
    return add_port(s, n, where.id, tb_slice(probe, prefix + owner + 1), touched);
}

/* add_shards: watch who begins to share. */
static bool add_shards(struct imap_session *s, struct imap_notify *n)
{
    uint32_t shards = tb_store_shards(tb_worker_store(tb_conn_worker(s->conn)));
    bool good = true;
    for (uint32_t i = 0; good && i < shards; i++)
        good = add_port(s, n, (struct tb_account_id){.shard = i}, TB_SLICE("?"), 0); /* no mailbox's name begins so */
    return good;
}

/* ports_named: the accounts that the command names, and one's own. */
static bool ports_named(struct imap_session *s, struct imap_notify *n, bool *others)
{
    bool good = true;
    *others = false;
    for (size_t i = 0; i < n->groups_n; i++) {
        const struct notify_group *g = &n->groups[i];
        if (is_selected(g) || g->events == 0)
            continue;
        good = good && add_port(s, n, s->account_id, tb_slice("", 0), 0); /* subscriptions are there too */
        *others |= g->filter == FILTER_SUBSCRIBED;
        for (size_t k = 0; good && k < g->names_n; k++)
            if (imap_is_others(g->names[k])) {
                *others = true;
                good = notify_add(s, n, g->names[k], 0);
                if (g->names[k].len < sizeof(IMAP_OTHERS)) /* all of the namespace */
                    good = good && g->filter == FILTER_SUBTREE ? add_shards(s, n) : good;
            }
    }
    return good;
}

/* ports_found: the accounts of what LIST knows that is to be watched. */
static bool ports_found(struct imap_session *s, struct imap_notify *n, const struct imap_gather *g)
{
    bool good = true;
    for (size_t i = 0; good && i < g->n; i++) {
        const struct tb_mailbox *m = &g->v[i];
        if (!imap_is_others(m->name))
            continue;
        if (m->subscribed && !add_sub(n, m->name))
            return false;
        if (notify_events(n, m->name, m->subscribed) != 0)
            good = notify_add(s, n, m->name, 0);
    }
    return good;
}

/* ports_ready: false: on the way. What was deleted meanwhile, or is not in service, cannot be watched. */
static bool ports_ready(struct imap_notify *n, enum tb_rc *rc)
{
    *rc = TB_OK;
    for (size_t i = 0; i < n->ports_n; i++) {
        enum tb_rc one;
        if (!notify_port_ready(n->ports[i], &one))
            return false;
        *rc = *rc == TB_OK ? one : *rc;
    }
    return true;
}

void imap_notify_end(struct imap_session *s)
{
    end(s, s->notify);
    s->notify = NULL;
}

/* overflowed: Y1 */
static void overflowed(struct imap_session *s)
{
    const struct notify_args none = {0};
    imap_puts(&s->out, "* OK [NOTIFICATIONOVERFLOW] Nothing is told any more, until the next NOTIFY\r\n");
    struct imap_notify *n = make(s, &none);
    if (n) {
        end(s, s->notify);
        s->notify = n;
    } else {
        s->farewell = "[UNAVAILABLE] Out of memory";
    }
    imap_notify_watch(s);
}

/* ---- the command ---- */

static void notify_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct notify_args *a = cmd->args;
    end(s, a->fresh);
    a->fresh = NULL;
    imap_gather_end(&a->gather);
}

/* is_here: is it the selected mailbox? */
static bool is_here(struct imap_session *s, const struct tb_mailbox *m)
{
    struct imap_place where;
    return s->view && tb_view_mbox(s->view) == m->mbox && imap_locate(s, m->name, &where) &&
           where.id.acct == s->seat.acct;
}

/* tell_state: one mailbox as it is now: RFC 5465 3.1. */
static void tell_state(struct imap_session *s, const struct notify_args *a, const struct tb_mailbox *m, uint32_t rights)
{
    uint8_t what = notify_events(a->fresh, m->name, m->subscribed);
    if (!m->selectable || what == 0 || !(rights & TB_RIGHT_LOOKUP))
        return;
    if (!(rights & TB_RIGHT_READ))
        imap_put_list_event(s, m, m->name, m->name, LIST_NOACCESS);
    else if (a->status && what & EVENT_MESSAGES && !is_here(s, m))
        notify_put_status(s, m->name, m, what, 0);
}

/* watches: everything that is to be watched is, and a->gather knows what there is, if that is wanted. False: on the
 * way.
 */
static bool watches(struct imap_session *s, struct notify_args *a, enum tb_rc *rc)
{
    while (!a->gathered) {
        if (!ports_ready(a->fresh, rc))
            return false;
        if (*rc != TB_OK || !a->gathering)
            return true;
        if (!imap_gather(s, &a->gather, a->others))
            return false;
        size_t before = a->fresh->ports_n;
        *rc = a->gather.rc;
        if (*rc == TB_OK && !ports_found(s, a->fresh, &a->gather))
            *rc = TB_LIMIT;
        if (*rc != TB_OK)
            return true;
        a->gathered = a->fresh->ports_n == before;
        if (!a->gathered) { /* look again when they are watched: nothing is to fall between */
            imap_gather_end(&a->gather);
            a->gather = (struct imap_gather){0};
        }
    }
    return true;
}

static bool begin(struct imap_session *s, struct imap_cmd *cmd, struct notify_args *a)
{
    cmd->cleanup = notify_cleanup;
    a->fresh = make(s, a);
    if (!a->fresh || !ports_named(s, a->fresh, &a->others))
        return false;
    a->gathering = a->others || (a->status && a->fresh->ports_n > 0);
    return true;
}

enum imap_run imap_run_notify(struct imap_session *s, struct imap_cmd *cmd)
{
    enum { STATES_MAX = 64 };
    struct notify_args *a = cmd->args;
    enum tb_rc rc = TB_OK;
    if (a->unsupported)
        return imap_reply(cmd, BADEVENT);
    if (!a->fresh && !begin(s, cmd, a))
        return imap_reply(cmd, OVERFLOW);
    if (!watches(s, a, &rc))
        return RUN_WAIT;
    if (rc != TB_OK)
        return imap_reply(cmd, rc == TB_LIMIT ? OVERFLOW : "NO [UNAVAILABLE] Not all of it can be watched now");
    for (size_t i = 0; i < STATES_MAX && a->told < a->gather.n; i++, a->told++)
        tell_state(s, a, &a->gather.v[a->told], a->gather.rights[a->told]);
    if (a->told < a->gather.n)
        return RUN_MORE;
    if (imap_notify_busy(s))
        return RUN_WAIT;
    imap_notify_end(s);
    s->notify = a->fresh;
    a->fresh = NULL;
    imap_notify_watch(s);
    return imap_reply(cmd, "OK NOTIFY completed");
}

/* ---- the selected mailbox ---- */

bool imap_notify_how(const struct imap_session *s, const struct imap_verb *verb, uint8_t *how)
{
    const struct imap_notify *n = s->notify;
    if (!n)
        return true;
    if (n->selected == 0)
        return verb && (verb->flags & VERB_CHANGES || n->noop);
    if (n->selected & EVENT_FLAGS)
        *how |= SYNC_UID; /* RFC 5465 5.1 */
    else if (!n->noop)
        *how |= SYNC_NO_FLAGS;
    return true;
}

void imap_notify_added(struct imap_session *s, uint32_t first, uint32_t last)
{
    if (s->notify && s->notify->fetch.ptr)
        tb_uidset_add(&s->notify->fresh, first, last);
}

void imap_notify_own(struct imap_session *s, uint32_t acct, uint32_t mbox, const struct tb_uidset *uids)
{
    bool here = s->view && acct == s->seat.acct && mbox == tb_view_mbox(s->view);
    if (here)
        imap_contexts_own(s, uids);
    for (size_t i = 0; s->notify && s->notify->fetch.ptr && here && i < uids->n; i++)
        tb_uidset_add(&s->notify->own, uids->v[i].first, uids->v[i].last);
}

void imap_notify_watch(struct imap_session *s)
{
    bool watched = s->notify && s->notify->selected != 0;
    if (!s->view)
        return;
    tb_view_watch(s->view, watched ? imap_on_change : NULL, s);
    s->changed = s->changed || watched; /* what came before the watch */
}

static void push_end(struct imap_session *s, struct imap_notify *n)
{
    if (n->push.cleanup)
        n->push.cleanup(s, &n->push);
    n->push = (struct imap_cmd){0};
    if (n->pushing)
        tb_arena_free(&s->arena);
    n->pushing = false;
}

void imap_notify_unselected(struct imap_session *s)
{
    if (!s->notify)
        return;
    push_end(s, s->notify);
    tb_uidset_clear(&s->notify->fresh);
    tb_uidset_clear(&s->notify->own);
}

/* push: what the client asked for of new messages. RUN_DONE: it has been told. */
static enum imap_run push(struct imap_session *s, struct imap_notify *n)
{
    bool good = !n->fresh.failed && !n->own.failed;
    if (!n->pushing) {
        for (size_t i = 0; i < n->own.n; i++) /* RFC 5465 5.2: of its own it knows */
            tb_uidset_remove(&n->fresh, n->own.v[i].first, n->own.v[i].last);
        tb_uidset_clear(&n->own);
        if (n->fresh.n == 0)
            return RUN_DONE;
        n->pushing = true;
        good = good && imap_fetch_unasked(s, &n->push, n->fetch, &n->fresh);
        tb_uidset_clear(&n->fresh);
    }
    enum imap_run r = good ? imap_run_fetch(s, &n->push) : RUN_DONE;
    if (r == RUN_DONE)
        push_end(s, n);
    n->lost = n->lost || !good;
    return r;
}

/* ---- telling ---- */

/* tell_ports: what happened elsewhere. */
static enum imap_run tell_ports(struct imap_session *s, struct imap_notify *n)
{
    for (size_t i = 0; i < n->ports_n; i++) {
        struct notify_port *p = n->ports[i];
        struct notify_news *news;
        enum tb_rc rc;
        if (!notify_port_ready(p, &rc))
            continue;
        if (rc == TB_OK && notify_port_look(s, p, &news, &rc) && rc == TB_OK) {
            if (!notify_tell(s, p, news))
                return RUN_DONE;
            notify_port_told(p);
            return RUN_MORE;
        }
        n->lost = n->lost || rc != TB_OK;
    }
    return RUN_DONE;
}

enum imap_run imap_notify_step(struct imap_session *s, bool idle)
{
    struct imap_notify *n = s->notify;
    uint8_t how = idle || !n->delayed ? SYNC_EXPUNGE : 0;
    n->noop = false;
    if (n->lost) {
        overflowed(s);
        return RUN_MORE;
    }
    bool looks = !n->pushing && s->view && imap_notify_how(s, NULL, &how);
    if (looks && (s->changed || s->sync.active) && !imap_contexts_active(s) && !imap_sync(s, how))
        return RUN_WAIT;
    if (looks && !imap_contexts_tell(s))
        return RUN_WAIT;
    if (s->gone)
        return RUN_DONE;
    enum imap_run r = push(s, n);
    if (r == RUN_DONE)
        r = tell_ports(s, n);
    bool more = n->lost || (looks && s->changed);
    return r == RUN_DONE && more ? RUN_MORE : r;
}

/* ---- subscriptions to others' mailboxes ---- */

bool imap_notify_subs(const struct imap_session *s, struct tb_slice name)
{
    return find_sub(s->notify, name) < s->notify->subs_n;
}

void imap_notify_subscribed(struct imap_session *s, struct tb_slice name, bool on)
{
    struct imap_notify *n = s->notify;
    bool wanted = false;
    for (size_t i = 0; n && imap_is_others(name) && i < n->groups_n; i++)
        wanted = wanted || (n->groups[i].filter == FILTER_SUBSCRIBED && n->groups[i].events != 0);
    if (!wanted)
        return;
    size_t i = find_sub(n, name);
    if (on) {
        n->lost = !add_sub(n, name) || !notify_add(s, n, name, 0) || n->lost;
    } else if (i < n->subs_n) {
        free((char *)(uintptr_t)n->subs[i].ptr);
        n->subs[i] = n->subs[--n->subs_n];
    }
}

/* ---- where the session is ---- */

bool imap_notify_busy(const struct imap_session *s)
{
    bool busy = s->notify && s->notify->find && s->notify->find->busy;
    for (size_t i = 0; s->notify && i < s->notify->ports_n; i++)
        busy = busy || notify_port_busy(s->notify->ports[i]);
    return busy;
}

void imap_notify_leave(struct imap_session *s)
{
    struct tb_store *store = tb_worker_store(tb_conn_worker(s->conn));
    struct tb_worker *to = tb_store_worker(store, tb_store_worker_of(store, s->seat));
    if (!s->notify)
        return;
    s->notify->here = false;
    for (size_t i = 0; i < s->notify->ports_n; i++)
        notify_port_leave(s->notify->ports[i], to);
}

void imap_notify_arrive(struct imap_session *s)
{
    if (!s->notify || s->notify->here)
        return;
    s->notify->here = true;
    for (size_t i = 0; i < s->notify->ports_n; i++)
        notify_port_arrive(s->notify->ports[i]);
}

uint64_t imap_notify_self(const struct imap_session *s)
{
    return s->notify ? s->notify->self : 0;
}
