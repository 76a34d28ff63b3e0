/*
 * context.c: searches whose results are kept up to date: SEARCH RETURN (UPDATE), CANCELUPDATE.
 *
 * A context is a search program of its own memory and the UIDs that it found. Every refresh of the selected mailbox
 * (sync.c) says which messages are to be looked at again: new ones, those whose flags changed, those that are gone.
 * Before the next tagged reply, or in IDLE at once, the program is run over these messages alone, in slices as any
 * search, and what came in or fell out is told with ADDTO and REMOVEFROM. Positions are always 0: mailbox order
 * (RFC 5267 4.3.3). What OLDER and YOUNGER say changes by itself: such a program is run over the whole mailbox when its
 * last run is CONTEXT_AGE_S old.
 *
 * Invariants
 * C1 a result is part of the view: what an EXPUNGE is about to tell is told with REMOVEFROM before it (RFC 5267 4.3.4).
 * C2 all contexts of a session keep at most CONTEXT_RANGES_MAX ranges and CONTEXTS_MAX programs; what is more gets
 *    NO [NOUPDATE], also later, when a result has grown past it; so does a search of a part of the mailbox (RFC 9738).
 * C3 while the program runs the view stands still.
 * Thread: the connection's owner. RFC 5267 4; RFC 5465 7 (UPDATE with items); RFC 5032 2 (dynamic evaluation).
 */
#include "imap_fetch.h"
#include "imap_search.h"

#include <stdlib.h>

enum {
    CONTEXTS_MAX = 16,
    CONTEXT_PROGRAM_MAX = 64 << 10, /* bytes of one search program and its name */
    CONTEXT_RANGES_MAX = 512 << 10, /* of all results: 4 MiB */
    CONTEXT_AGE_S = 5,
    PENDING_RANGES_MAX = 4096, /* more are looked at as one range */
    CANCEL_TAGS_MAX = 100
};

struct context {
    struct tb_arena arena;            /* of the program and the correlator */
    struct tb_slice tag, correlator;  /* arena; "(TAG ...)" */
    struct tb_slice items;            /* arena: what to fetch of new messages; ptr NULL: nothing */
    struct tb_search_key all, within; /* AND of within, the messages looked at, and the program */
    bool uid, timed;
    int64_t ran_s;            /* over the whole mailbox */
    struct tb_uidset result;  /* owned */
    struct tb_uidset leaving; /* owned: numbers to be told before their EXPUNGE */
};

struct imap_contexts {
    struct context *v[CONTEXTS_MAX]; /* owned */
    size_t n;
    struct tb_uidset pending;      /* owned: messages to look at again */
    struct tb_uidset arrived, own; /* owned: ... of them those that are new; that this session stored */
    uint32_t uidnext;              /* of the view, when pending was looked after last */
    uint32_t uid_max;
    /* the run that is under way */
    bool active;
    struct tb_uidset now;   /* owned: messages that it looks at */
    struct tb_uidset whole; /* owned: ... and programs that age: all of the view */
    size_t at;              /* the context */
    struct tb_search *search;
    struct tb_op op;
    bool stepping, found;
    struct tb_uidset out[2]; /* owned: numbers to tell: REMOVEFROM, ADDTO */
    struct tb_uidset fresh;  /* owned: new messages that it looks at, of other sessions */
    struct tb_uidset news;   /* owned: ... that came into the result */
    struct imap_cmd push;    /* the FETCH of these */
    bool pushing;
    size_t side, range; /* what of these is written next */
};

/* ---- life ---- */

static void context_free(struct context *c)
{
    tb_arena_free(&c->arena);
    tb_uidset_free(&c->result);
    tb_uidset_free(&c->leaving);
    free(c);
}

static void push_end(struct imap_session *s, struct imap_contexts *x)
{
    if (x->push.cleanup)
        x->push.cleanup(s, &x->push);
    x->push = (struct imap_cmd){0};
    if (x->pushing && !s->cmd.reply.ptr) /* in IDLE, or between commands */
        tb_arena_free(&s->arena);
    x->pushing = false;
}

static void run_end(struct imap_session *s, struct imap_contexts *x)
{
    push_end(s, x);
    tb_uidset_free(&x->fresh);
    tb_uidset_free(&x->news);
    tb_search_end(x->search);
    x->search = NULL;
    x->active = x->stepping = x->found = false;
    tb_uidset_free(&x->now);
    tb_uidset_free(&x->whole);
    tb_uidset_free(&x->out[0]);
    tb_uidset_free(&x->out[1]);
}

void imap_contexts_end(struct imap_session *s)
{
    struct imap_contexts *x = s->contexts;
    if (!x)
        return;
    run_end(s, x);
    for (size_t i = 0; i < x->n; i++)
        context_free(x->v[i]);
    tb_uidset_free(&x->pending);
    tb_uidset_free(&x->arrived);
    tb_uidset_free(&x->own);
    free(x);
    s->contexts = NULL;
}

/* drop: a context ends; nothing is said of it any more. */
static void drop(struct imap_contexts *x, size_t i)
{
    context_free(x->v[i]);
    x->n--;
    for (; i < x->n; i++)
        x->v[i] = x->v[i + 1];
}

static size_t find(const struct imap_contexts *x, struct tb_slice tag)
{
    size_t i = 0;
    while (i < x->n && !tb_slice_eq(x->v[i]->tag, tag))
        i++;
    return i;
}

bool imap_context_known(const struct imap_session *s, struct tb_slice tag)
{
    return s->contexts && find(s->contexts, tag) < s->contexts->n;
}

static void put_noupdate(struct imap_session *s, struct tb_slice tag)
{
    imap_puts(&s->out, "* NO [NOUPDATE ");
    imap_put_string(&s->out, tag);
    imap_puts(&s->out, "] Too many contexts, or too large ones\r\n");
}

/* ranges: of all results, but for those that i has. */
static size_t ranges(const struct imap_contexts *x, size_t i)
{
    size_t n = 0;
    for (size_t k = 0; k < x->n; k++)
        n += k == i ? 0 : x->v[k]->result.n;
    return n;
}

/* ---- beginning ---- */

static struct context *context_new(const struct imap_search *a, bool uid)
{
    struct context *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    tb_arena_init(&c->arena, CONTEXT_PROGRAM_MAX);
    tb_uidset_init(&c->result);
    tb_uidset_init(&c->leaving);
    c->uid = uid;
    c->tag = tb_arena_copy(&c->arena, a->tag);
    c->correlator = tb_arena_copy(&c->arena, a->correlator);
    if (a->items.ptr)
        c->items = tb_arena_copy(&c->arena, a->items);
    struct tb_search_key *root = imap_search_copy(a->root, &c->arena);
    if (!root || c->arena.overflowed) {
        context_free(c);
        return NULL;
    }
    c->within = (struct tb_search_key){.op = TB_SEARCH_UID, .next = root->first};
    c->all = (struct tb_search_key){.op = TB_SEARCH_AND, .first = &c->within};
    c->timed = imap_search_has(root, TB_SEARCH_YOUNGER, TB_SEARCH_OLDER);
    return c;
}

static int64_t now_s(const struct imap_session *s)
{
    return tb_io_wall_s(tb_worker_io(tb_conn_worker(s->conn)));
}

bool imap_context_add(struct imap_session *s, const struct imap_search *a, bool uid)
{
    const struct tb_uidset *found = tb_search_found(a->search);
    struct imap_contexts *x = s->contexts;
    if (!x && !(x = s->contexts = calloc(1, sizeof *x))) {
        put_noupdate(s, a->tag);
        return false;
    }
    if (x->n == 0) {
        x->uidnext = tb_view_uidnext(s->view);
        x->uid_max = tb_view_uid_max(s->view);
    }
    bool room = a->last == 0 && x->n < CONTEXTS_MAX && ranges(x, x->n) + found->n <= CONTEXT_RANGES_MAX;
    struct context *c = room ? context_new(a, uid) : NULL;
    if (c)
        tb_uidset_intersect(found, tb_view_uids(s->view), &c->result);
    if (!c || c->result.failed) {
        if (c)
            context_free(c);
        put_noupdate(s, a->tag);
        return false;
    }
    c->ran_s = now_s(s);
    x->v[x->n++] = c;
    return true;
}

/* in_uids: as the search was asked, or because there are no sequence numbers any more (RFC 9586 3). */
static bool in_uids(const struct imap_session *s, const struct context *c)
{
    return c->uid || s->enabled & IMAP_UIDONLY;
}

/* ---- what changed ---- */

static void look_at(struct imap_contexts *x, uint32_t first, uint32_t last)
{
    struct tb_uidset *pending = &x->pending;
    tb_uidset_add(pending, first, last);
    if (pending->n > PENDING_RANGES_MAX)
        tb_uidset_add(pending, pending->v[0].first, pending->v[pending->n - 1].last);
}

/* leave: of what is about to be told as expunged, take a context's part out of its result; it is told first. */
static void leave(const struct imap_session *s, struct context *c, const struct tb_changes *changes)
{
    for (uint32_t i = changes->removed; i-- > 0;) { /* they come highest first: each number is the one before all */
        uint32_t uid = changes->removed_uid[i];
        if (!tb_uidset_has(&c->result, uid))
            continue;
        uint32_t number = in_uids(s, c) ? uid : changes->removed_seqno[i];
        tb_uidset_add(&c->leaving, number, number);
    }
    struct tb_uidset gone, rest;
    tb_uidset_init(&gone);
    tb_uidset_init(&rest);
    for (uint32_t i = changes->removed; i-- > 0;)
        tb_uidset_add(&gone, changes->removed_uid[i], changes->removed_uid[i]);
    tb_uidset_subtract(&c->result, &gone, &rest);
    tb_uidset_free(&gone);
    tb_uidset_free(&c->result);
    c->result = rest;
}

/* going: what is gone but may not be told as expunged yet falls out of the results none the less. */
static void going(struct imap_contexts *x, const struct tb_uidset *gone)
{
    struct tb_uidset hit;
    tb_uidset_init(&hit);
    for (size_t i = 0; i < x->n && gone->n > 0; i++) {
        tb_uidset_intersect(gone, &x->v[i]->result, &hit);
        for (size_t k = 0; k < hit.n; k++)
            look_at(x, hit.v[k].first, hit.v[k].last);
        x->pending.failed |= hit.failed;
    }
    tb_uidset_free(&hit);
}

void imap_contexts_changed(struct imap_session *s, const struct tb_changes *changes)
{
    struct imap_contexts *x = s->contexts;
    uint32_t uidnext = tb_view_uidnext(s->view), max = tb_view_uid_max(s->view);
    for (size_t i = 0; i < x->n && changes->removed > 0; i++)
        leave(s, x->v[i], changes);
    for (uint32_t i = 0; i < changes->flags_n; i++)
        look_at(x, changes->flags[i].uid, changes->flags[i].uid);
    if (uidnext > x->uidnext) {
        look_at(x, x->uidnext, uidnext - 1);
        tb_uidset_add(&x->arrived, x->uidnext, uidnext - 1);
    }
    if (max != x->uid_max && max > 0) /* "*" is another message now */
        look_at(x, max, max);
    if (max > x->uid_max && x->uid_max > 0)
        look_at(x, x->uid_max, x->uid_max);
    going(x, tb_view_gone(s->view));
    x->uidnext = uidnext;
    x->uid_max = max;
}

void imap_contexts_own(struct imap_session *s, const struct tb_uidset *uids)
{
    for (size_t i = 0; s->contexts && i < uids->n; i++)
        tb_uidset_add(&s->contexts->own, uids->v[i].first, uids->v[i].last);
}

/* ---- telling ---- */

/* put_side: "* ESEARCH correlator REMOVEFROM (0 numbers)", in lines; *at moves on. False: the output is full. */
static bool put_side(struct imap_session *s, const struct context *c, bool add, const struct tb_uidset *numbers,
                     size_t *at)
{
    while (*at < numbers->n) {
        if (imap_put_full(&s->out))
            return false;
        imap_puts(&s->out, "* ESEARCH ");
        imap_put(&s->out, c->correlator);
        imap_puts(&s->out, in_uids(s, c) ? " UID" : "");
        imap_puts(&s->out, add ? " ADDTO (0 " : " REMOVEFROM (0 ");
        imap_put_ranges(&s->out, numbers, at);
        imap_puts(&s->out, ")\r\n");
    }
    return true;
}

bool imap_contexts_leaving(struct imap_session *s)
{
    struct imap_contexts *x = s->contexts;
    for (size_t i = 0; i < x->n; i++) {
        struct context *c = x->v[i];
        if (!put_side(s, c, false, &c->leaving, &x->range))
            return false;
        x->range = 0;
        bool good = !c->leaving.failed && !c->result.failed;
        tb_uidset_free(&c->leaving);
        if (!good) {
            put_noupdate(s, c->tag);
            drop(x, i--);
        }
    }
    return true;
}

static void step_done(struct tb_op *op)
{
    struct imap_session *s = op->user;
    s->contexts->stepping = false;
    tb_conn_resume(s->conn);
}

static void step(struct imap_session *s, struct imap_contexts *x)
{
    x->stepping = true;
    x->op = (struct tb_op){.done = step_done, .user = s};
    tb_search_step(x->search, &x->op);
}

/* numbers: of messages of the view, in the context's own kind. */
static void numbers(struct imap_session *s, const struct context *c, const struct tb_uidset *uids,
                    struct tb_uidset *out)
{
    tb_uidset_clear(out);
    for (size_t i = 0; i < uids->n; i++) {
        const struct tb_range *r = &uids->v[i]; /* neighbours in UID are neighbours in the view */
        uint32_t first = in_uids(s, c) ? r->first : tb_view_seqno(s->view, r->first);
        if (first > 0)
            tb_uidset_add(out, first, first + (r->last - r->first));
    }
    out->failed |= uids->failed;
}

/* compare: what the run found with what was known: the numbers to tell, and the new result. */
static bool compare(struct imap_session *s, struct imap_contexts *x, struct context *c)
{
    const struct tb_uidset *looked = c->within.set;
    struct tb_uidset was, hits, out, in, rest;
    struct tb_uidset *const sets[] = {&was, &hits, &out, &in, &rest};
    for (size_t i = 0; i < TB_ARRAY_LEN(sets); i++)
        tb_uidset_init(sets[i]);
    tb_uidset_intersect(looked, &c->result, &was);
    tb_uidset_intersect(tb_search_found(x->search), tb_view_uids(s->view), &hits);
    tb_uidset_subtract(&was, &hits, &out);
    tb_uidset_subtract(&hits, &was, &in);
    tb_uidset_clear(&x->news);
    if (c->items.ptr)
        tb_uidset_intersect(&in, &x->fresh, &x->news);
    numbers(s, c, &out, &x->out[0]);
    numbers(s, c, &in, &x->out[1]);
    tb_uidset_subtract(&c->result, &out, &rest);
    tb_uidset_unite(&rest, &in, &c->result);
    bool good = !x->out[0].failed && !x->out[1].failed && !c->result.failed && !x->news.failed;
    for (size_t i = 0; i < TB_ARRAY_LEN(sets); i++)
        tb_uidset_free(sets[i]);
    return good && ranges(x, x->at) + c->result.n <= CONTEXT_RANGES_MAX;
}

/* begin: run the next context's program. */
static enum tb_rc begin(struct imap_session *s, struct imap_contexts *x, struct context *c)
{
    int64_t now = now_s(s);
    bool aged = c->timed && now - c->ran_s >= CONTEXT_AGE_S;
    tb_uidset_clear(&x->whole);
    c->within.set = aged ? &x->whole : &x->now;
    if (aged) {
        c->ran_s = now;
        tb_uidset_add(&x->whole, 1, UINT32_MAX);
    }
    x->found = false;
    x->side = x->range = 0;
    enum tb_rc rc = x->whole.failed ? TB_LIMIT : imap_search_resolve(c->within.next, s->view, NULL, true, &c->arena);
    if (rc == TB_OK)
        rc = tb_search_begin(s->view, &c->all, now, &x->search);
    return rc;
}

/* over: a context's part of the run is done. */
static void over(struct imap_session *s, struct imap_contexts *x, bool good)
{
    tb_search_end(x->search);
    x->search = NULL;
    if (good) {
        x->at++;
        return;
    }
    put_noupdate(s, x->v[x->at]->tag);
    drop(x, x->at);
}

/* push: what the client wants to know of new messages, before ADDTO names them (RFC 5465 7). RUN_WAIT: call again;
 * RUN_CLOSE: no memory. */
static enum imap_run push(struct imap_session *s, struct imap_contexts *x, const struct context *c)
{
    if (!x->pushing && x->news.n == 0)
        return RUN_DONE;
    if (!x->pushing) {
        x->pushing = true;
        if (!imap_fetch_unasked(s, &x->push, c->items, &x->news)) {
            push_end(s, x);
            return RUN_CLOSE;
        }
        tb_uidset_clear(&x->news);
    }
    enum imap_run r = RUN_MORE;
    while (r == RUN_MORE && !imap_put_full(&s->out))
        r = imap_run_fetch(s, &x->push);
    if (r != RUN_DONE)
        return RUN_WAIT;
    push_end(s, x);
    return RUN_DONE;
}

/* look: one context. False: wait, and call again. */
static bool look(struct imap_session *s, struct imap_contexts *x)
{
    struct context *c = x->v[x->at];
    if (!x->search) {
        if (begin(s, x, c) == TB_OK)
            step(s, x);
        else
            over(s, x, false);
        return !x->stepping;
    }
    if (!x->found && x->op.rc == TB_OK && x->op.result != 0) {
        step(s, x);
        return false;
    }
    if (!x->found && (x->op.rc != TB_OK || !compare(s, x, c))) {
        over(s, x, false);
        return true;
    }
    x->found = true;
    enum imap_run r = push(s, x, c);
    if (r == RUN_WAIT)
        return false;
    if (r == RUN_CLOSE) {
        over(s, x, false);
        return true;
    }
    for (; x->side < 2; x->side++, x->range = 0)
        if (!put_side(s, c, x->side == 1, &x->out[x->side], &x->range))
            return false;
    over(s, x, true);
    return true;
}

/* due: is there anything to look at? */
static bool due(struct imap_session *s, const struct imap_contexts *x)
{
    bool aged = false;
    for (size_t i = 0; i < x->n; i++)
        aged |= x->v[i]->timed && now_s(s) - x->v[i]->ran_s >= CONTEXT_AGE_S;
    return x->pending.n > 0 || aged;
}

bool imap_contexts_tell(struct imap_session *s)
{
    struct imap_contexts *x = s->contexts;
    if (!x || s->gone || !s->view)
        return true;
    if (x->stepping)
        return false;
    if (!x->active) {
        if (!due(s, x))
            return true;
        x->now = x->pending;
        tb_uidset_init(&x->pending);
        tb_uidset_subtract(&x->arrived, &x->own, &x->fresh);
        tb_uidset_clear(&x->arrived);
        tb_uidset_clear(&x->own);
        x->at = 0;
        x->active = true;
    }
    if (x->now.failed) { /* without memory nobody knows what changed */
        while (x->n > 0) {
            put_noupdate(s, x->v[0]->tag);
            drop(x, 0);
        }
    }
    while (x->at < x->n)
        if (!look(s, x))
            return false;
    run_end(s, x);
    return true;
}

bool imap_contexts_active(const struct imap_session *s)
{
    return s->contexts && s->contexts->active;
}

/* ---- CANCELUPDATE ---- */

struct cancel_args {
    struct tb_slice tag[CANCEL_TAGS_MAX];
    size_t n;
};

/* command-select =/ "CANCELUPDATE" 1*(SP quoted) (RFC 5267 5) */
void imap_parse_cancelupdate(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct cancel_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    do {
        if (a->n == CANCEL_TAGS_MAX) {
            imap_fail(p, "NO [LIMIT] Too many tags");
            return;
        }
        a->tag[a->n++] = imap_string(p);
    } while (!p->failed && imap_try_sp(p));
}

enum imap_run imap_run_cancelupdate(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct cancel_args *a = cmd->args;
    struct imap_contexts *x = s->contexts;
    bool all = true;
    for (size_t i = 0; i < a->n; i++) {
        size_t at = x ? find(x, a->tag[i]) : 0;
        bool known = x && at < x->n;
        if (known)
            drop(x, at);
        all &= known;
    }
    if (x && x->n == 0)
        imap_contexts_end(s);
    return imap_reply(cmd, all ? "OK No further updates" : "NO Not all of these are updated");
}
