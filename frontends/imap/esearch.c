/*
 * esearch.c: ESEARCH: one search of many mailboxes, each answered by an ESEARCH response of its own.
 *
 * The source options become a list of mailboxes: from LIST's names (shared.c) for all that are not named one by one.
 * Each is probed where it lives (probe.c), one after the other; the selected one is searched last, through the
 * session's own view, so that "$" and sequence numbers mean there what they mean to the client. What may not be read,
 * or is not there, is passed over without a word. UPDATE and SAVE are about the selected mailbox.
 *
 * Thread: the connection's owner; parsing: any. RFC 7377; RFC 5465 6, 8 (filter-mailboxes).
 */
#include "imap_search.h"

#include <stdlib.h>

enum {
    ESEARCH_NAMES_MAX = 1000,      /* in the source options */
    ESEARCH_MAILBOXES_MAX = 10000, /* searched */
    RETURN_SELECTED = RETURN_SAVE | RETURN_UPDATE
};
enum source_kind { SOURCE_MAILBOXES, SOURCE_SUBTREE, SOURCE_SUBTREE_ONE };
enum esearch_phase { ESEARCH_START, ESEARCH_GATHER, ESEARCH_NEXT, ESEARCH_PROBE, ESEARCH_PUT, ESEARCH_SELECTED };

struct source {
    enum source_kind kind;
    struct tb_slice name;
};
struct target {
    struct tb_slice name; /* as this session knows it */
    bool named;           /* one by one: the right to look it up is not asked for */
};
struct esearch_args {
    struct imap_search search;
    bool selected, personal, subscribed, others; /* sources; others: some may be mailboxes of others */
    struct source source[ESEARCH_NAMES_MAX];
    size_t sources;
    /* run */
    enum esearch_phase phase;
    struct imap_gather gather;
    struct target *target; /* arena */
    size_t targets, cap, at;
    struct imap_probe *probe; /* owned */
    struct imap_search put;   /* the response that is written */
    bool is_selected;         /* the selected mailbox is among the targets */
    bool partly;              /* a mailbox was left out: it has more messages than one command may look at */
};

/* ---- the grammar ---- */

static void source_name(struct imap_parser *p, struct esearch_args *a, enum source_kind kind)
{
    struct tb_slice name = imap_mailbox(p);
    if (p->failed)
        return;
    if (a->sources == ESEARCH_NAMES_MAX) {
        imap_fail(p, "NO [LIMIT] Too many names");
        return;
    }
    a->others |= kind != SOURCE_MAILBOXES && imap_is_others(name);
    a->source[a->sources++] = (struct source){kind, name};
}

/* one-or-more-mailbox = mailbox / many-mailboxes; many-mailboxes = "(" mailbox *(SP mailbox) ")" (RFC 5465 8) */
static void source_names(struct imap_parser *p, struct esearch_args *a, enum source_kind kind)
{
    imap_sp(p);
    if (!imap_try(p, '(')) {
        source_name(p, a, kind);
        return;
    }
    do
        source_name(p, a, kind);
    while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

/*
 * filter-mailboxes = "selected" / "inboxes" / "personal" / "subscribed" / "subtree" SP one-or-more-mailbox /
 * "subtree-one" SP ... / "mailboxes" SP ... (RFC 7377 4). Mail may be addressed to any mailbox of an account, so
 * inboxes are all personal ones (RFC 5465 6.3).
 */
static void filter_mailboxes(struct imap_parser *p, struct esearch_args *a)
{
    struct tb_slice word = imap_word(p);
    if (tb_slice_ieq(word, TB_SLICE("selected")))
        a->selected = true;
    else if (tb_slice_ieq(word, TB_SLICE("personal")) || tb_slice_ieq(word, TB_SLICE("inboxes")))
        a->personal = true;
    else if (tb_slice_ieq(word, TB_SLICE("subscribed")))
        a->subscribed = a->others = true;
    else if (tb_slice_ieq(word, TB_SLICE("subtree")))
        source_names(p, a, SOURCE_SUBTREE);
    else if (tb_slice_ieq(word, TB_SLICE("subtree-one")))
        source_names(p, a, SOURCE_SUBTREE_ONE);
    else if (tb_slice_ieq(word, TB_SLICE("mailboxes")))
        source_names(p, a, SOURCE_MAILBOXES);
    else
        imap_fail(p, "BAD No such source of mailboxes");
}

/* esearch-source-opts = "IN" SP "(" source-mbox [SP "(" scope-options ")"] ")"; there are no scope options yet */
static void source_options(struct imap_parser *p, struct esearch_args *a)
{
    imap_sp(p);
    imap_expect(p, '(');
    do
        filter_mailboxes(p, a);
    while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    imap_sp(p);
}

/* esearch = "ESEARCH" [SP esearch-source-opts] [SP search-return-opts] SP search-program (RFC 7377 4) */
void imap_parse_esearch(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct esearch_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->search.tag = cmd->tag;
    struct imap_parser look = *p;
    if (tb_slice_ieq(imap_word(&look), TB_SLICE("IN")) && imap_at(&look, ' ')) {
        source_options(&look, a);
        *p = look;
    } else {
        a->selected = true;
    }
    imap_search_return(p, &a->search, true);
    a->search.extended = true;
    if (a->search.wants == 0)
        a->search.wants = RETURN_ALL;
    imap_search_program(p, &a->search);
}

/* ---- which mailboxes ---- */

static bool add_target(struct imap_session *s, struct esearch_args *a, struct tb_slice name, bool named)
{
    if (a->targets == a->cap) {
        size_t cap = a->cap == 0 ? 64 : 2 * a->cap;
        struct target *v = tb_arena_alloc(&s->arena, cap * sizeof *v);
        if (!v)
            return false;
        if (a->targets > 0)
            memcpy(v, a->target, a->targets * sizeof *v);
        a->target = v;
        a->cap = cap;
    }
    a->target[a->targets++] = (struct target){name, named};
    return true;
}

static bool is_below(const struct source *x, struct tb_slice name)
{
    struct tb_slice top = x->name;
    if (x->kind == SOURCE_MAILBOXES || name.len < top.len || memcmp(name.ptr, top.ptr, top.len) != 0)
        return false;
    if (name.len == top.len)
        return true;
    struct tb_slice rest = tb_slice_sub(name, top.len + 1, SIZE_MAX);
    bool deeper = rest.len > 0 && memchr(rest.ptr, '/', rest.len);
    return name.ptr[top.len] == '/' && (x->kind == SOURCE_SUBTREE || !deeper);
}

/* wanted: is a name of LIST among the sources? */
static bool wanted(const struct esearch_args *a, const struct tb_mailbox *m)
{
    if (!m->selectable)
        return false;
    if ((a->personal && !imap_is_others(m->name)) || (a->subscribed && m->subscribed))
        return true;
    size_t i = 0;
    while (i < a->sources && !is_below(&a->source[i], m->name))
        i++;
    return i < a->sources;
}

static int by_name(const void *a, const void *b)
{
    struct tb_slice x = ((const struct target *)a)->name, y = ((const struct target *)b)->name;
    int c = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return c != 0 ? c : x.len < y.len ? -1 : x.len > y.len;
}

/* collect: the targets, in order of their names, each once. LIMIT. */
static enum tb_rc collect(struct imap_session *s, struct esearch_args *a)
{
    bool good = true;
    for (size_t i = 0; good && i < a->gather.n; i++)
        if (wanted(a, &a->gather.v[i]))
            good = add_target(s, a, a->gather.v[i].name, false);
    for (size_t i = 0; good && i < a->sources; i++)
        if (a->source[i].kind == SOURCE_MAILBOXES)
            good = add_target(s, a, a->source[i].name, true);
    if (!good)
        return TB_LIMIT;
    if (a->targets > 1)
        qsort(a->target, a->targets, sizeof *a->target, by_name);
    size_t n = 0;
    for (size_t i = 0; i < a->targets; i++) {
        if (n > 0 && tb_slice_eq(a->target[n - 1].name, a->target[i].name))
            a->target[n - 1].named |= a->target[i].named;
        else
            a->target[n++] = a->target[i];
    }
    a->targets = n;
    return n <= ESEARCH_MAILBOXES_MAX ? TB_OK : TB_LIMIT;
}

/* lists: must names be asked for? */
static bool lists(const struct esearch_args *a)
{
    bool below = false;
    for (size_t i = 0; i < a->sources; i++)
        below |= a->source[i].kind != SOURCE_MAILBOXES;
    return a->personal || a->subscribed || below;
}

/* ---- running ---- */

static void esearch_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct esearch_args *a = cmd->args;
    s->mid_response = false;
    imap_probe_end(a->probe);
    a->probe = NULL;
    imap_gather_end(&a->gather);
    imap_search_end(&a->search);
    imap_search_end(&a->put);
}

/* start: what is no good whatever is found. RUN_MORE: go on. */
static enum imap_run start(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    struct imap_search *x = &a->search;
    bool elsewhere = a->personal || a->subscribed || a->sources > 0;
    if (a->selected && !s->view)
        return imap_reply(cmd, "BAD No mailbox is selected");
    if (x->wants & RETURN_SAVE && elsewhere)
        return imap_reply(cmd, "BAD SAVE is for the selected mailbox alone"); /* RFC 7377 2.2 */
    if (x->wants & RETURN_UPDATE && !a->selected)
        return imap_reply(cmd, "BAD UPDATE is for the selected mailbox");
    if (x->wants & RETURN_UPDATE && imap_context_known(s, x->tag))
        return imap_reply(cmd, "BAD Tag reuse");
    if (x->charset && s->enabled & IMAP_UTF8)
        return imap_reply(cmd, "BAD No CHARSET with UTF8=ACCEPT"); /* RFC 6855 3 */
    if (x->seqnos && s->enabled & IMAP_UIDONLY)
        return imap_reply(cmd, IMAP_UIDREQUIRED);
    if (x->modseq)
        imap_condstore(s);
    a->is_selected = a->selected;
    a->phase = lists(a) ? ESEARCH_GATHER : ESEARCH_NEXT;
    return a->phase == ESEARCH_GATHER || collect(s, a) == TB_OK ? RUN_MORE : imap_reply_rc(cmd, TB_LIMIT);
}

static enum imap_run gather(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    if (!imap_gather(s, &a->gather, a->others))
        return RUN_WAIT;
    enum tb_rc rc = a->gather.rc == TB_OK ? collect(s, a) : a->gather.rc;
    a->phase = ESEARCH_NEXT;
    return rc == TB_OK ? RUN_MORE : imap_reply_rc(cmd, rc);
}

/* next: ask for the next mailbox. */
static enum imap_run next(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    imap_still_working(s, a->at, a->targets);
    for (uint32_t turn = 0; a->at < a->targets; turn++) {
        const struct target *t = &a->target[a->at++];
        struct imap_probe_where where = {.named = t->named};
        if (turn == IMAP_BATCH)
            return RUN_MORE;
        if (!imap_locate(s, t->name, &where.place))
            continue;
        a->probe = imap_probe_new(s, &a->search, &where);
        a->phase = ESEARCH_PROBE;
        return a->probe ? RUN_MORE : imap_reply_rc(cmd, TB_LIMIT);
    }
    a->phase = ESEARCH_SELECTED;
    return RUN_MORE;
}

/* probed: what came of it. */
static enum imap_run probed(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    const struct imap_probe_result *r = imap_probe_over(a->probe);
    if (!r)
        return RUN_WAIT;
    a->is_selected |= r->selected;
    a->partly |= r->over_limit;
    if (r->rc != TB_OK && r->rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, r->rc);
    bool found = r->rc == TB_OK && r->found.n > 0;
    imap_search_end(&a->put);
    a->put = (struct imap_search){.tag = a->search.tag,
                                  .wants = a->search.wants & (uint8_t)~RETURN_SELECTED,
                                  .from_end = a->search.from_end,
                                  .partial_first = a->search.partial_first,
                                  .partial_last = a->search.partial_last,
                                  .modseq = a->search.modseq};
    if (found && !imap_search_correlate(s, &a->put, a->target[a->at - 1].name, r->mailbox.uidvalidity))
        return imap_reply_rc(cmd, TB_LIMIT);
    a->phase = found ? ESEARCH_PUT : ESEARCH_NEXT;
    if (!found) {
        imap_probe_end(a->probe);
        a->probe = NULL;
    }
    return RUN_MORE;
}

static enum imap_run put(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    const struct imap_probe_result *r = imap_probe_over(a->probe);
    enum imap_run run = imap_put_esearch(s, &a->put, &r->found, r->highest, true);
    if (run != RUN_DONE)
        return run;
    imap_probe_end(a->probe);
    a->probe = NULL;
    a->phase = ESEARCH_NEXT;
    return a->put.op.rc == TB_OK ? RUN_MORE : imap_reply_rc(cmd, a->put.op.rc);
}

/* name_selected: the correlator of the selected mailbox, by the name it has now. */
static enum tb_rc name_selected(struct imap_session *s, struct imap_search *x)
{
    struct tb_mailbox m;
    enum tb_rc rc = tb_mailbox_get(s->account, tb_view_mbox(s->view), &s->arena, &m);
    if (rc != TB_OK)
        return rc;
    if (!imap_at_home(s)) {
        struct tb_slice owner = tb_account_name(s->account, &s->arena);
        size_t n = sizeof(IMAP_OTHERS) - 1 + owner.len + 1 + m.name.len;
        char *name = tb_arena_alloc(&s->arena, n);
        if (!name)
            return TB_LIMIT;
        char *p = IMAP_FMT(name, IMAP_OTHERS);
        p = imap_fmt(p, owner.ptr, owner.len);
        *p++ = '/';
        (void)imap_fmt(p, m.name.ptr, m.name.len);
        m.name = tb_slice(name, n);
    }
    return imap_search_correlate(s, x, m.name, m.uidvalidity) ? TB_OK : TB_LIMIT;
}

/* selected: the last one, and the end. */
static enum imap_run selected(struct imap_session *s, struct imap_cmd *cmd, struct esearch_args *a)
{
    struct imap_search *x = &a->search;
    const char *ok = a->partly ? "OK [LIMIT] Done, but for mailboxes with too many messages" : "OK ESEARCH completed";
    enum tb_rc rc = TB_OK;
    if (!a->is_selected || !s->view)
        return imap_reply(cmd, ok);
    if (!x->correlator.ptr)
        rc = name_selected(s, x);
    enum imap_run r = rc == TB_OK ? imap_search_find(s, x, &rc) : RUN_DONE;
    if (r != RUN_DONE)
        return r;
    if (rc != TB_OK)
        return imap_search_failed(s, cmd, x, rc);
    const struct tb_uidset *found = tb_search_found(x->search);
    uint64_t highest = x->modseq && !x->line_begun ? imap_search_highest(x, s->view, x->search) : 0;
    if (found->n > 0)
        r = imap_put_esearch(s, x, found, highest, true);
    else if (x->wants & RETURN_SAVE)
        tb_uidset_free(&s->saved);
    if (r != RUN_DONE)
        return r;
    if (x->op.rc != TB_OK)
        return imap_search_failed(s, cmd, x, x->op.rc);
    bool updates = x->wants & RETURN_UPDATE && imap_context_add(s, x, true);
    if (x->last > 0)
        return imap_limit_reply(s, cmd, true, s->config->imap_message_limit, x->last, "ESEARCH completed in part");
    if (x->wants & RETURN_UPDATE && !a->partly)
        ok = updates ? "OK ESEARCH completed, will notify" : "OK ESEARCH completed, will not notify";
    return imap_reply(cmd, ok);
}

enum imap_run imap_run_esearch(struct imap_session *s, struct imap_cmd *cmd)
{
    static enum imap_run (*const phases[])(struct imap_session * s, struct imap_cmd * cmd, struct esearch_args * a) = {
        [ESEARCH_START] = start,  [ESEARCH_GATHER] = gather, [ESEARCH_NEXT] = next,
        [ESEARCH_PROBE] = probed, [ESEARCH_PUT] = put,       [ESEARCH_SELECTED] = selected,
    };
    struct esearch_args *a = cmd->args;
    cmd->cleanup = esearch_cleanup;
    return phases[a->phase](s, cmd, a);
}
