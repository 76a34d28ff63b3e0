/*
 * search.c: SEARCH and UID SEARCH: the keys' grammar into the engine's tree, a search in steps, the one
 * untagged answer.
 *
 * The answer is "* SEARCH", or with RETURN one "* ESEARCH" (RFC 4731), which may also be kept as "$" (RFC 5182).
 * The tree's depth is bounded by the parser, so the walks over it may recurse. A new key is a row in `keys`.
 * Thread: the connection's owner; parsing: any. RFC 3501 6.4.4, 7.2.5, 9 (search-key); RFC 5530 3 (LIMIT).
 */
#include "imap_fetch.h"
#include "imap_search.h"

enum { SEARCH_KEYS_MAX = 4096, SEARCH_STRING_MAX = 8 << 10 };
static const char badcharset[] = "NO [BADCHARSET (US-ASCII UTF-8)] Only US-ASCII and UTF-8";
static const char too_large[] = "NO [LIMIT] Search too large";

/* A sequence set as it was sent, and what it means now. */
struct unresolved {
    struct tb_uidset set; /* key->set points here; its memory is an arena's */
    size_t room;          /* ranges that set.v has room for */
    struct imap_set wire;
};

/* ---- the grammar ---- */

static struct tb_search_key *search_key(struct imap_parser *p, struct imap_search *a);

static struct tb_search_key *new_key(struct imap_parser *p, struct imap_search *a, enum tb_search_op op)
{
    struct tb_search_key *k = tb_arena_alloc(p->arena, sizeof *k);
    if (!k || ++a->keys > SEARCH_KEYS_MAX) {
        imap_fail(p, too_large);
        return NULL;
    }
    k->op = op;
    return k;
}

static void key_set(struct imap_parser *p, struct tb_search_key *k)
{
    struct unresolved *u = tb_arena_alloc(p->arena, sizeof *u);
    if (!u) {
        imap_fail(p, too_large);
        return;
    }
    imap_sequence_set(p, &u->wire);
    k->set = &u->set;
}

static struct tb_slice key_text(struct imap_parser *p)
{
    imap_sp(p);
    struct tb_slice s = imap_astring(p);
    if (s.len > SEARCH_STRING_MAX)
        imap_fail(p, too_large);
    if (!p->failed && !tb_utf8_valid(s))
        imap_fail(p, badcharset);
    return s;
}

static void arg_none(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)p;
    (void)a;
    (void)k;
}
static void arg_text(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    k->text = key_text(p);
}
static void arg_header(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    k->name = key_text(p);
    k->text = key_text(p);
}
static void arg_date(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    int32_t day = 0;
    (void)a;
    imap_sp(p);
    (void)imap_date(p, &day);
    k->number = day;
}
static void arg_number(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    k->number = imap_number(p);
}
static void arg_uids(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    key_set(p, k);
}
/* uidset_key: UIDs first to last, none if that is nothing. */
static void uidset_key(struct imap_parser *p, struct tb_search_key *k, uint32_t first, uint32_t last)
{
    struct unresolved *u = tb_arena_alloc(p->arena, sizeof *u);
    struct imap_set_range *v = tb_arena_alloc(p->arena, sizeof *v);
    if (!u || !v) {
        imap_fail(p, too_large);
        return;
    }
    *v = (struct imap_set_range){first, last};
    u->wire = (struct imap_set){.v = v, .n = first <= last};
    k->set = &u->set;
}
/* RFC 9738 3.2: messages with a greater, or a lower, UID; "*" means nothing here */
static void arg_uidafter(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    uint32_t uid = imap_nz_number(p);
    uidset_key(p, k, uid < UINT32_MAX ? uid + 1 : UINT32_MAX, uid < UINT32_MAX ? UINT32_MAX : 0);
}
static void arg_uidbefore(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    uint32_t uid = imap_nz_number(p);
    uidset_key(p, k, 1, uid > 0 ? uid - 1 : 0);
}
static void arg_keyword(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    k->text = imap_atom(p);
}
static void arg_key(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    imap_sp(p);
    k->first = search_key(p, a);
}
static void arg_two_keys(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    arg_key(p, a, k);
    imap_sp(p);
    struct tb_search_key *second = search_key(p, a);
    if (k->first)
        k->first->next = second;
}

/* search-modsequence = "MODSEQ" [SP entry-name SP entry-type-req] SP mod-sequence-valzer (RFC 7162 3.1.5); every entry
 * shares one mod-sequence */
static void arg_modseq(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    imap_sp(p);
    if (imap_at(p, '"')) {
        (void)imap_string(p);
        imap_sp(p);
        struct tb_slice type = imap_word(p);
        if (!p->failed && !tb_slice_ieq(type, TB_SLICE("priv")) && !tb_slice_ieq(type, TB_SLICE("shared")) &&
            !tb_slice_ieq(type, TB_SLICE("all")))
            imap_fail(p, "BAD Expected priv, shared or all");
        imap_sp(p);
    }
    k->number = (int64_t)imap_modseq(p);
    a->modseq = true;
}

/* RFC 8474 6: objectid */
static void arg_emailid(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    k->text = imap_astring(p);
}
static void arg_threadid(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    arg_emailid(p, a, k);
    k->text = (struct tb_slice){0}; /* no message is in a thread */
}
/* RFC 5032 3: nz-number of seconds */
static void arg_interval(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k)
{
    (void)a;
    imap_sp(p);
    k->number = imap_nz_number(p);
}

typedef void arg_fn(struct imap_parser *p, struct imap_search *a, struct tb_search_key *k);

static const struct search_word {
    const char *name;
    enum tb_search_op op;
    bool negated;
    uint16_t flags;
    const char *field;
    arg_fn *arg;
} words[] = {
    {"ALL", TB_SEARCH_ALL, false, 0, NULL, arg_none},
    {"ANSWERED", TB_SEARCH_FLAGS, false, TB_FLAG_ANSWERED, NULL, arg_none},
    {"BCC", TB_SEARCH_HEADER, false, 0, "Bcc", arg_text},
    {"BEFORE", TB_SEARCH_BEFORE, false, 0, NULL, arg_date},
    {"BODY", TB_SEARCH_BODY, false, 0, NULL, arg_text},
    {"CC", TB_SEARCH_HEADER, false, 0, "Cc", arg_text},
    {"DELETED", TB_SEARCH_FLAGS, false, TB_FLAG_DELETED, NULL, arg_none},
    {"DRAFT", TB_SEARCH_FLAGS, false, TB_FLAG_DRAFT, NULL, arg_none},
    {"EMAILID", TB_SEARCH_BLOB, false, 0, NULL, arg_emailid},
    {"FLAGGED", TB_SEARCH_FLAGS, false, TB_FLAG_FLAGGED, NULL, arg_none},
    {"FROM", TB_SEARCH_HEADER, false, 0, "From", arg_text},
    {"HEADER", TB_SEARCH_HEADER, false, 0, NULL, arg_header},
    {"KEYWORD", TB_SEARCH_KEYWORD, false, 0, NULL, arg_keyword},
    {"LARGER", TB_SEARCH_LARGER, false, 0, NULL, arg_number},
    {"MODSEQ", TB_SEARCH_MODSEQ, false, 0, NULL, arg_modseq},
    {"NEW", TB_SEARCH_ALL, true, 0, NULL, arg_none}, /* RECENT UNSEEN; nothing is \Recent */
    {"NOT", TB_SEARCH_NOT, false, 0, NULL, arg_key},
    {"OLD", TB_SEARCH_ALL, false, 0, NULL, arg_none}, /* NOT RECENT */
    {"OLDER", TB_SEARCH_OLDER, false, 0, NULL, arg_interval},
    {"ON", TB_SEARCH_ON, false, 0, NULL, arg_date},
    {"OR", TB_SEARCH_OR, false, 0, NULL, arg_two_keys},
    {"RECENT", TB_SEARCH_ALL, true, 0, NULL, arg_none},
    {"SAVEDATESUPPORTED", TB_SEARCH_ALL, false, 0, NULL, arg_none},
    {"SAVEDBEFORE", TB_SEARCH_SAVEDBEFORE, false, 0, NULL, arg_date},
    {"SAVEDON", TB_SEARCH_SAVEDON, false, 0, NULL, arg_date},
    {"SAVEDSINCE", TB_SEARCH_SAVEDSINCE, false, 0, NULL, arg_date},
    {"SEEN", TB_SEARCH_FLAGS, false, TB_FLAG_SEEN, NULL, arg_none},
    {"SENTBEFORE", TB_SEARCH_SENTBEFORE, false, 0, NULL, arg_date},
    {"SENTON", TB_SEARCH_SENTON, false, 0, NULL, arg_date},
    {"SENTSINCE", TB_SEARCH_SENTSINCE, false, 0, NULL, arg_date},
    {"SINCE", TB_SEARCH_SINCE, false, 0, NULL, arg_date},
    {"SMALLER", TB_SEARCH_SMALLER, false, 0, NULL, arg_number},
    {"SUBJECT", TB_SEARCH_HEADER, false, 0, "Subject", arg_text},
    {"TEXT", TB_SEARCH_TEXT, false, 0, NULL, arg_text},
    {"THREADID", TB_SEARCH_BLOB, false, 0, NULL, arg_threadid},
    {"TO", TB_SEARCH_HEADER, false, 0, "To", arg_text},
    {"UID", TB_SEARCH_UID, false, 0, NULL, arg_uids},
    {"UIDAFTER", TB_SEARCH_UID, false, 0, NULL, arg_uidafter},
    {"UIDBEFORE", TB_SEARCH_UID, false, 0, NULL, arg_uidbefore},
    {"UNANSWERED", TB_SEARCH_FLAGS, true, TB_FLAG_ANSWERED, NULL, arg_none},
    {"UNDELETED", TB_SEARCH_FLAGS, true, TB_FLAG_DELETED, NULL, arg_none},
    {"UNDRAFT", TB_SEARCH_FLAGS, true, TB_FLAG_DRAFT, NULL, arg_none},
    {"UNFLAGGED", TB_SEARCH_FLAGS, true, TB_FLAG_FLAGGED, NULL, arg_none},
    {"UNKEYWORD", TB_SEARCH_KEYWORD, true, 0, NULL, arg_keyword},
    {"UNSEEN", TB_SEARCH_FLAGS, true, TB_FLAG_SEEN, NULL, arg_none},
    {"YOUNGER", TB_SEARCH_YOUNGER, false, 0, NULL, arg_interval},
};

static struct tb_search_key *word_key(struct imap_parser *p, struct imap_search *a, const struct search_word *w)
{
    struct tb_search_key *k = new_key(p, a, w->op);
    if (!k)
        return NULL;
    k->flags = w->flags;
    if (w->field)
        k->name = tb_slice_str(w->field);
    w->arg(p, a, k);
    if (!w->negated)
        return k;
    struct tb_search_key *inverse = new_key(p, a, TB_SEARCH_NOT);
    if (inverse)
        inverse->first = k;
    return inverse;
}

/* search-key *(SP search-key), all of which must hold; ends at ")" or the end of the line. */
static struct tb_search_key *key_list(struct imap_parser *p, struct imap_search *a)
{
    struct tb_search_key *all = new_key(p, a, TB_SEARCH_AND);
    if (!all)
        return NULL;
    for (struct tb_search_key **last = &all->first; !p->failed; last = &(*last)->next) {
        *last = search_key(p, a);
        if (!*last || !imap_try_sp(p))
            break;
    }
    return p->failed ? NULL : all;
}

/* search-key = "ALL" / ... / sequence-set / "(" search-key *(SP search-key) ")" */
static struct tb_search_key *search_key(struct imap_parser *p, struct imap_search *a)
{
    struct tb_search_key *k = NULL;
    if (p->failed || !imap_deeper(p))
        return NULL;
    if (imap_try(p, '(')) {
        k = key_list(p, a);
        imap_expect(p, ')');
    } else if (imap_at(p, '*') || imap_at(p, '$') || (p->p < p->end && *p->p >= '0' && *p->p <= '9')) {
        k = new_key(p, a, TB_SEARCH_SEQ);
        a->seqnos |= !imap_at(p, '$'); /* which holds UIDs, whoever asks */
        if (k)
            key_set(p, k);
    } else {
        struct tb_slice name = imap_word(p);
        size_t i = 0;
        while (i < TB_ARRAY_LEN(words) && !tb_slice_ieq(name, tb_slice_str(words[i].name)))
            i++;
        if (i < TB_ARRAY_LEN(words))
            k = word_key(p, a, &words[i]);
        else
            imap_fail(p, "BAD No such SEARCH key");
    }
    p->depth--;
    return p->failed ? NULL : k;
}

/* partial-range = nz-number ":" nz-number / "-" nz-number ":" "-" nz-number (RFC 9394 3.1) */
static void partial_range(struct imap_parser *p, struct imap_search *a)
{
    imap_sp(p);
    a->from_end = imap_try(p, '-');
    uint32_t x = imap_nz_number(p);
    imap_expect(p, ':');
    if (a->from_end)
        imap_expect(p, '-');
    uint32_t y = imap_nz_number(p);
    a->partial_first = x < y ? x : y;
    a->partial_last = x < y ? y : x;
}

/* modifier-update = "UPDATE" ["(" fetch-att *(SP fetch-att) ")"] (RFC 5465 8), with a blank, as in its section 7. */
static void update_items(struct imap_parser *p, struct imap_search *a)
{
    if (!p->failed && p->end - p->p > 2 && p->p[0] == ' ' && p->p[1] == '(')
        imap_sp(p);
    if (imap_at(p, '('))
        a->items = imap_fetch_atts(p);
}

/* search-return-opts = SP "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")"; () means ALL (RFC 4731 3.1)
 */
static void return_options(struct imap_parser *p, struct imap_search *a, bool contexts)
{
    static const struct {
        const char *name;
        uint8_t bit;
    } options[] = {{"MIN", RETURN_MIN},       {"MAX", RETURN_MAX},        {"ALL", RETURN_ALL},
                   {"COUNT", RETURN_COUNT},   {"SAVE", RETURN_SAVE},      {"PARTIAL", RETURN_PARTIAL},
                   {"UPDATE", RETURN_UPDATE}, {"CONTEXT", RETURN_CONTEXT}};
    a->extended = true;
    imap_sp(p);
    imap_expect(p, '(');
    while (!p->failed && !imap_at(p, ')')) {
        if (a->wants)
            imap_sp(p);
        struct tb_slice name = imap_word(p);
        size_t i = 0;
        while (i < TB_ARRAY_LEN(options) && !tb_slice_ieq(name, tb_slice_str(options[i].name)))
            i++;
        if (i == TB_ARRAY_LEN(options) || (!contexts && options[i].bit & (RETURN_UPDATE | RETURN_CONTEXT))) {
            imap_fail(p, "BAD No such return option");
            return;
        }
        a->wants |= options[i].bit;
        if (options[i].bit == RETURN_PARTIAL)
            partial_range(p, a);
        if (options[i].bit == RETURN_UPDATE)
            update_items(p, a);
    }
    imap_expect(p, ')');
    imap_sp(p);
    if ((a->wants & RETURN_ALL) && (a->wants & RETURN_PARTIAL))
        imap_fail(p, "BAD ALL and PARTIAL exclude each other"); /* RFC 9394 3.1 */
    if (a->wants == 0)
        a->wants = RETURN_ALL;
}

void imap_search_return(struct imap_parser *p, struct imap_search *a, bool contexts)
{
    struct imap_parser opts = *p;
    if (tb_slice_ieq(imap_word(&opts), TB_SLICE("RETURN")) && imap_at(&opts, ' ')) {
        return_options(&opts, a, contexts);
        *p = opts;
    }
}

static void known_charset(struct imap_parser *p, struct tb_slice charset)
{
    if (!p->failed && !tb_slice_ieq(charset, TB_SLICE("UTF-8")) && !tb_slice_ieq(charset, TB_SLICE("US-ASCII")))
        imap_fail(p, badcharset);
}

void imap_search_criteria(struct imap_parser *p, struct imap_search *a)
{
    known_charset(p, imap_astring(p));
    imap_sp(p);
    a->root = key_list(p, a);
}

/* search-program = ["CHARSET" SP charset SP] search-key *(SP search-key); RFC 4466 2.6.1 */
void imap_search_program(struct imap_parser *p, struct imap_search *a)
{
    struct imap_parser look = *p;
    if (tb_slice_ieq(imap_word(&look), TB_SLICE("CHARSET"))) {
        imap_sp(&look);
        struct tb_slice charset = imap_astring(&look);
        a->charset = true;
        imap_sp(&look);
        *p = look;
        known_charset(p, charset);
    }
    a->root = key_list(p, a);
}

/* search = "SEARCH" [search-return-opts] SP search-program */
void imap_parse_search(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_search *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->tag = cmd->tag;
    imap_search_return(p, a, true);
    imap_search_program(p, a);
    cmd->holds = a->seqnos;
}

/* ---- running ---- */

/* ranges_room: memory for n ranges in a set, made once. */
static bool ranges_room(struct unresolved *u, size_t n, struct tb_arena *arena)
{
    if (n > u->room || !u->set.v) {
        struct tb_range *v = tb_arena_alloc(arena, (n + 1) * sizeof *v);
        if (!v)
            return false;
        u->set.v = v;
        u->room = u->set.cap = n;
    }
    u->set.n = 0;
    return true;
}

/* add_saved: "$" to what is there, what is left of it in the view; none is no error (RFC 5182 2.1). */
static enum tb_rc add_saved(struct unresolved *u, struct tb_view *v, const struct tb_uidset *saved,
                            struct tb_arena *arena)
{
    struct tb_uidset all;
    tb_uidset_init(&all);
    if (saved)
        tb_uidset_intersect(saved, tb_view_uids(v), &all);
    for (size_t i = 0; i < u->set.n; i++)
        tb_uidset_add(&all, u->set.v[i].first, u->set.v[i].last);
    bool good = !all.failed && ranges_room(u, all.n, arena);
    if (good && all.n > 0)
        memcpy(u->set.v, all.v, all.n * sizeof *all.v);
    u->set.n = good ? all.n : 0;
    tb_uidset_free(&all);
    return good ? TB_OK : TB_LIMIT;
}

/* set_resolve: numbers beyond the end of the mailbox are no error in a search (RFC 7377 2). */
static enum tb_rc set_resolve(struct unresolved *u, bool uid, struct tb_view *v, const struct tb_uidset *saved,
                              struct tb_arena *arena)
{
    if (!ranges_room(u, u->wire.n, arena))
        return TB_LIMIT;
    enum tb_rc rc = imap_set_ranges(&u->wire, uid ? tb_view_uid_max(v) : tb_view_count(v), false, u->set.v, &u->set.n);
    for (size_t i = 0; i < u->set.n && !uid; i++)
        u->set.v[i] = (struct tb_range){tb_view_uid(v, u->set.v[i].first), tb_view_uid(v, u->set.v[i].last)};
    return rc == TB_OK && u->wire.saved ? add_saved(u, v, saved, arena) : rc;
}

enum tb_rc imap_search_resolve(struct tb_search_key *k, struct tb_view *v, const struct tb_uidset *saved, bool again,
                               struct tb_arena *arena)
{
    for (; k; k = k->next) {
        enum tb_rc rc = TB_OK;
        if (k->op == TB_SEARCH_SEQ || k->op == TB_SEARCH_UID) {
            struct unresolved *u = TB_CONTAINER(k->set, struct unresolved, set);
            if (!again || (k->op == TB_SEARCH_UID && !u->wire.saved))
                rc = set_resolve(u, k->op == TB_SEARCH_UID, v, saved, arena);
        }
        uint64_t blob;
        if (k->op == TB_SEARCH_BLOB && !again)
            k->number = tb_email_id_read(tb_view_account(v), k->text, &blob) ? (int64_t)blob : -1;
        if (rc == TB_OK && k->first)
            rc = imap_search_resolve(k->first, v, saved, again, arena);
        if (rc != TB_OK)
            return rc;
    }
    return TB_OK;
}

static struct tb_uidset *set_copy(const struct tb_uidset *set, struct tb_arena *arena)
{
    const struct unresolved *from = TB_CONTAINER(set, struct unresolved, set);
    struct unresolved *u = tb_arena_alloc(arena, sizeof *u);
    struct imap_set_range *wire = tb_arena_alloc(arena, (from->wire.n + 1) * sizeof *wire);
    if (!u || !wire || !ranges_room(u, from->wire.n > set->n ? from->wire.n : set->n, arena))
        return NULL;
    u->wire = from->wire;
    u->wire.v = wire;
    if (from->wire.n > 0)
        memcpy(wire, from->wire.v, from->wire.n * sizeof *wire);
    if (set->n > 0)
        memcpy(u->set.v, set->v, set->n * sizeof *set->v);
    u->set.n = set->n;
    return &u->set;
}

struct tb_search_key *imap_search_copy(const struct tb_search_key *k, struct tb_arena *arena)
{
    struct tb_search_key *first = NULL;
    for (struct tb_search_key **last = &first; k; k = k->next, last = &(*last)->next) {
        struct tb_search_key *copy = *last = tb_arena_alloc(arena, sizeof *copy);
        if (!copy)
            return NULL;
        *copy = *k;
        copy->next = NULL;
        copy->name = tb_arena_copy(arena, k->name);
        copy->text = tb_arena_copy(arena, k->text);
        copy->set = k->set ? set_copy(k->set, arena) : NULL;
        copy->first = k->first ? imap_search_copy(k->first, arena) : NULL;
    }
    return arena->overflowed ? NULL : first;
}

bool imap_search_has(const struct tb_search_key *k, enum tb_search_op from, enum tb_search_op to)
{
    for (; k; k = k->next)
        if ((k->op >= from && k->op <= to) || imap_search_has(k->first, from, to))
            return true;
    return false;
}

void imap_search_end(struct imap_search *a)
{
    if (a->search)
        tb_search_end(a->search);
    a->search = NULL;
    tb_uidset_free(&a->told);
}

static void search_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    s->mid_response = false;
    imap_search_end(cmd->args);
}

static void step_done(struct tb_op *op)
{
    struct imap_search *a = op->user;
    a->stepping = false;
    tb_conn_resume(a->s->conn);
}

struct tb_op *imap_search_op(struct imap_session *s, struct imap_search *a)
{
    a->s = s;
    a->stepping = true;
    a->op = (struct tb_op){.done = step_done, .user = a};
    return &a->op;
}

static enum imap_run search_step(struct imap_session *s, struct imap_search *a)
{
    uint32_t at = tb_search_at(a->search), goal = tb_view_count(s->view);
    imap_still_working(s, at == UINT32_MAX ? goal : tb_view_seqno_ceil(s->view, at) - 1, goal);
    tb_search_step(a->search, imap_search_op(s, a));
    return RUN_WAIT;
}

/* put_found: "* SEARCH" and the numbers, as far as the peer reads. RUN_DONE: all of them. */
static enum imap_run put_found(struct imap_session *s, struct imap_search *a, bool uid)
{
    const struct tb_uidset *found = tb_search_found(a->search);
    if (!a->line_begun)
        imap_puts(&s->out, "* SEARCH");
    a->line_begun = s->mid_response = true;
    for (; a->range < found->n; a->range++, a->uid = 0) {
        const struct tb_range *r = &found->v[a->range];
        if (a->uid == 0)
            a->uid = r->first;
        /* UIDs next to each other are next to each other in the view too. */
        uint32_t seqno = uid ? 0 : tb_view_seqno(s->view, (uint32_t)a->uid);
        for (uint32_t turn = 0; a->uid <= r->last; a->uid++, turn++) {
            char *p = turn < 4 * IMAP_BATCH ? imap_room(&s->out, IMAP_U64_ROOM + 1) : NULL;
            if (!p)
                return RUN_MORE;
            *p++ = ' ';
            imap_wrote(&s->out, imap_fmt_u64(p, uid ? (uint32_t)a->uid : seqno++));
        }
    }
    if (a->modseq && found->n > 0) {
        imap_puts(&s->out, " (MODSEQ ");
        imap_put_u64(&s->out, tb_search_modseq(a->search));
        imap_putc(&s->out, ')');
    }
    imap_puts(&s->out, "\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

/* ---- ESEARCH ---- */

/* numbers: the UIDs found, or their sequence numbers. */
static void numbers(struct imap_session *s, const struct tb_uidset *found, bool uid, struct tb_uidset *out)
{
    for (size_t i = 0; i < found->n; i++) {
        const struct tb_range *r = &found->v[i]; /* UIDs next to each other are next to each other in the view too */
        uint32_t first = uid ? r->first : tb_view_seqno(s->view, r->first);
        if (first > 0)
            tb_uidset_add(out, first, first + (r->last - r->first));
    }
}

/* pick: the numbers at places first..last, counted from 1. */
static void pick(const struct tb_uidset *from, uint64_t first, uint64_t last, struct tb_uidset *out)
{
    uint64_t before = 0;
    for (size_t i = 0; i < from->n && before < last; i++) {
        uint64_t n = (uint64_t)from->v[i].last - from->v[i].first + 1;
        uint64_t a = first > before + 1 ? first - before - 1 : 0, b = last - before < n ? last - before : n;
        if (a < b)
            tb_uidset_add(out, from->v[i].first + (uint32_t)a, from->v[i].first + (uint32_t)b - 1);
        before += n;
    }
}

bool imap_search_window(const struct imap_search *a, uint64_t count, uint64_t *first, uint64_t *last)
{
    *first = a->partial_first;
    *last = a->partial_last;
    if (*first > count)
        return false;
    if (*last > count)
        *last = count;
    if (a->from_end) {
        uint64_t low = count - *last + 1;
        *last = count - *first + 1;
        *first = low;
    }
    return true;
}

static void pick_partial(const struct imap_search *a, const struct tb_uidset *from, struct tb_uidset *out)
{
    uint64_t first, last;
    if (imap_search_window(a, tb_uidset_count(from), &first, &last))
        pick(from, first, last, out);
}

/* ends_only: MIN and MAX are all that is asked: they alone are saved and tell the mod-sequence (RFC 5182 2.4,
 * 7162 3.1.10). */
static bool ends_only(const struct imap_search *a)
{
    return (a->wants & (RETURN_MIN | RETURN_MAX)) && !(a->wants & (RETURN_ALL | RETURN_COUNT | RETURN_PARTIAL));
}

/* subject: the UIDs that SAVE and MODSEQ are about. */
static void subject(const struct imap_search *a, const struct tb_uidset *found, struct tb_uidset *out)
{
    uint64_t count = tb_uidset_count(found);
    if (a->wants & RETURN_PARTIAL) {
        pick_partial(a, found, out);
        return;
    }
    bool ends = ends_only(a);
    if (!ends)
        pick(found, 1, count, out);
    if (ends && count > 0 && a->wants & RETURN_MIN)
        pick(found, 1, 1, out);
    if (ends && count > 0 && a->wants & RETURN_MAX)
        pick(found, count, count, out);
}

static uint64_t highest_of(struct tb_view *v, const struct tb_uidset *uids)
{
    uint64_t highest = 0;
    struct tb_row row;
    for (size_t i = 0; i < uids->n; i++)
        for (uint64_t uid = uids->v[i].first; uid <= uids->v[i].last; uid++)
            if (tb_view_row(v, (uint32_t)uid, &row) == TB_OK && row.modseq > highest)
                highest = row.modseq;
    return highest;
}

uint64_t imap_search_highest(const struct imap_search *a, struct tb_view *v, const struct tb_search *search)
{
    struct tb_uidset about;
    if (!ends_only(a) && !(a->wants & RETURN_PARTIAL))
        return tb_search_modseq(search);
    tb_uidset_init(&about);
    subject(a, tb_search_found(search), &about);
    uint64_t highest = highest_of(v, &about);
    tb_uidset_free(&about);
    return highest;
}

static void put_number(struct imap_session *s, const char *name, uint64_t v)
{
    imap_puts(&s->out, name);
    imap_put_u64(&s->out, v);
}

void imap_esearch_open(struct imap_session *s, const struct imap_search *a, bool uid)
{
    imap_puts(&s->out, "* ESEARCH ");
    imap_put(&s->out, a->correlator);
    imap_puts(&s->out, uid ? " UID" : "");
}

void imap_esearch_partial(struct imap_session *s, const struct imap_search *a)
{
    const char *sign = a->from_end ? "-" : "";
    imap_puts(&s->out, " PARTIAL (");
    put_number(s, sign, a->partial_first);
    imap_puts(&s->out, ":");
    put_number(s, sign, a->partial_last);
    imap_puts(&s->out, " ");
}

/* esearch_begin: everything but the list; false without memory. */
static bool esearch_begin(struct imap_session *s, struct imap_search *a, const struct tb_uidset *found,
                          uint64_t highest, bool uid)
{
    struct tb_uidset all, about;
    tb_uidset_init(&all);
    tb_uidset_init(&about);
    numbers(s, found, uid, &all);
    subject(a, found, &about);
    if (a->wants & RETURN_PARTIAL)
        pick_partial(a, &all, &a->told);
    bool good = !all.failed && !about.failed && !a->told.failed;
    uint64_t count = tb_uidset_count(&all);
    if (good && (a->wants & ~RETURN_SAVE) != 0) {
        imap_esearch_open(s, a, uid);
        if (count > 0 && a->wants & RETURN_MIN)
            put_number(s, " MIN ", all.v[0].first);
        if (count > 0 && a->wants & RETURN_MAX)
            put_number(s, " MAX ", all.v[all.n - 1].last);
        if (a->wants & RETURN_COUNT)
            put_number(s, " COUNT ", count);
        if (a->modseq && count > 0)
            put_number(s, " MODSEQ ", highest);
    }
    if (good && a->wants & RETURN_PARTIAL) {
        imap_esearch_partial(s, a);
        if (a->told.n == 0)
            imap_puts(&s->out, "NIL");
    } else if (good && a->wants & RETURN_ALL && count > 0) {
        imap_puts(&s->out, " ALL ");
        a->told = all;
        tb_uidset_init(&all);
    }
    if (good && a->wants & RETURN_SAVE) {
        tb_uidset_free(&s->saved);
        s->saved = about;
        tb_uidset_init(&about);
    }
    tb_uidset_free(&all);
    tb_uidset_free(&about);
    return good;
}

enum imap_run imap_put_esearch(struct imap_session *s, struct imap_search *a, const struct tb_uidset *found,
                               uint64_t highest, bool uid)
{
    if (!a->line_begun && !esearch_begin(s, a, found, highest, uid)) {
        a->op.rc = TB_LIMIT;
        return RUN_DONE;
    }
    a->line_begun = s->mid_response = true;
    while (a->range < a->told.n) {
        if (a->range > 0)
            imap_putc(&s->out, ',');
        imap_put_ranges(&s->out, &a->told, &a->range);
        if (a->range < a->told.n)
            return RUN_MORE;
    }
    if (a->wants & RETURN_PARTIAL)
        imap_putc(&s->out, ')');
    if (a->wants & ~RETURN_SAVE)
        imap_puts(&s->out, "\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

enum imap_run imap_search_failed(struct imap_session *s, struct imap_cmd *cmd, const struct imap_search *a,
                                 enum tb_rc rc)
{
    if (rc == TB_INVALID) /* BAD leaves what was saved: RFC 5182 2.1 */
        return imap_reply(cmd, IMAP_UIDREQUIRED);
    if (a->wants & RETURN_SAVE)
        tb_uidset_free(&s->saved);
    if (a->last > 0 && a->whole) /* RFC 9738 3.3 */
        return imap_limit_reply(s, cmd, false, s->config->imap_message_limit, 0, "Too many messages to be ordered");
    return imap_reply_rc(cmd, rc);
}

void imap_search_refused(struct imap_session *s, const struct imap_cmd *cmd)
{
    const struct imap_search *a = cmd->args; /* SORT's begin with it */
    bool saves = cmd->verb && (cmd->verb->parse == imap_parse_search || cmd->verb->parse == imap_parse_sort);
    if (saves && a && a->wants & RETURN_SAVE)
        tb_uidset_free(&s->saved);
}

/* limit: if more messages than are allowed would be looked at, look at the highest of them only (RFC 9738 3.1). Those
 * are looked at that are in every set which must hold. */
static enum tb_rc limit(struct imap_session *s, struct imap_search *a)
{
    struct tb_uidset sets[2];
    unsigned to = 0;
    const struct tb_uidset *all = tb_view_uids(s->view);
    struct tb_search_key *k = tb_arena_alloc(&s->arena, sizeof *k);
    struct unresolved *u = tb_arena_alloc(&s->arena, sizeof *u);
    struct imap_set_range *wire = tb_arena_alloc(&s->arena, sizeof *wire);
    if (!k || !u || !wire)
        return TB_LIMIT;
    tb_uidset_init(&sets[0]);
    tb_uidset_init(&sets[1]);
    for (const struct tb_search_key *x = a->root->first; x; x = x->next) {
        if (x->op != TB_SEARCH_UID && x->op != TB_SEARCH_SEQ)
            continue;
        tb_uidset_intersect(all, x->set, &sets[to]);
        all = &sets[to];
        to = 1 - to;
    }
    struct tb_uidset uids = *all;
    enum tb_rc rc = sets[0].failed || sets[1].failed
                        ? TB_LIMIT
                        : imap_limit_keep(s, s->config->imap_message_limit, &uids, &a->last);
    tb_uidset_free(&sets[0]);
    tb_uidset_free(&sets[1]);
    if (rc != TB_OK || a->last == 0)
        return rc;
    *wire = (struct imap_set_range){a->last, UINT32_MAX}; /* for a search that is kept up to date */
    *u = (struct unresolved){.set = uids, .room = uids.n, .wire = {.v = wire, .n = 1}};
    *k = (struct tb_search_key){.op = TB_SEARCH_UID, .set = &u->set, .next = a->root->first};
    a->root->first = k;
    return a->whole ? TB_LIMIT : TB_OK;
}

/* quoted: tags and names of mailboxes are always fit for it, escaped. */
static void quoted(struct tb_buf *b, struct tb_slice text)
{
    tb_buf_char(b, '"');
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '"' || text.ptr[i] == '\\')
            tb_buf_char(b, '\\');
        tb_buf_char(b, text.ptr[i]);
    }
    tb_buf_char(b, '"');
}

bool imap_search_correlate(struct imap_session *s, struct imap_search *a, struct tb_slice mailbox, uint32_t uidvalidity)
{
    enum { CORRELATOR_MAX = 64 << 10 };
    struct tb_buf b, name;
    tb_buf_init(&b, CORRELATOR_MAX);
    tb_buf_init(&name, CORRELATOR_MAX);
    tb_buf_str(&b, "(TAG ");
    quoted(&b, a->tag);
    if (mailbox.ptr) {
        if (!s->out.utf8)
            imap_name_encode(mailbox, &name);
        tb_buf_str(&b, " MAILBOX ");
        quoted(&b, s->out.utf8 ? mailbox : tb_buf_all(&name));
        tb_buf_str(&b, " UIDVALIDITY ");
        tb_buf_u64(&b, uidvalidity);
    }
    tb_buf_char(&b, ')');
    a->correlator = b.failed || name.failed ? (struct tb_slice){0} : tb_arena_copy(&s->arena, tb_buf_all(&b));
    tb_buf_free(&b);
    tb_buf_free(&name);
    return a->correlator.ptr != NULL;
}

static enum tb_rc search_start(struct imap_session *s, struct imap_search *a)
{
    tb_uidset_init(&a->told);
    if (!a->correlator.ptr && !imap_search_correlate(s, a, (struct tb_slice){0}, 0))
        return TB_LIMIT;
    if (a->seqnos && s->enabled & IMAP_UIDONLY)
        return TB_INVALID; /* RFC 9586 3.5 */
    if (a->modseq)
        imap_condstore(s);
    enum tb_rc rc = imap_search_resolve(a->root, s->view, &s->saved, false, &s->arena);
    if (rc == TB_OK && s->config->imap_message_limit > 0)
        rc = limit(s, a);
    if (rc == TB_OK)
        rc = tb_search_begin(s->view, a->root, tb_io_wall_s(tb_worker_io(tb_conn_worker(s->conn))), &a->search);
    return rc;
}

enum imap_run imap_search_find(struct imap_session *s, struct imap_search *a, enum tb_rc *rc)
{
    if (a->stepping)
        return RUN_WAIT;
    *rc = TB_OK;
    if (!a->search) {
        *rc = search_start(s, a);
        return *rc == TB_OK ? search_step(s, a) : RUN_DONE;
    }
    if (a->found)
        return RUN_DONE;
    *rc = a->op.rc;
    if (*rc == TB_OK && a->op.result != 0)
        return search_step(s, a);
    a->found = true;
    return RUN_DONE;
}

static enum imap_run put_esearch(struct imap_session *s, struct imap_search *a, bool uid)
{
    uint64_t highest = a->modseq && !a->line_begun ? imap_search_highest(a, s->view, a->search) : 0;
    return imap_put_esearch(s, a, tb_search_found(a->search), highest, uid);
}

enum imap_run imap_run_search(struct imap_session *s, struct imap_cmd *cmd)
{
    struct imap_search *a = cmd->args;
    bool uid = cmd->verb->flags & VERB_UID;
    enum tb_rc rc;
    cmd->cleanup = search_cleanup;
    if (a->wants & RETURN_UPDATE && !a->search && imap_context_known(s, a->tag))
        return imap_reply(cmd, "BAD Tag reuse"); /* RFC 5267 4.3 */
    if (a->charset && s->enabled & IMAP_UTF8)
        return imap_reply(cmd, "BAD No CHARSET with UTF8=ACCEPT"); /* RFC 6855 3 */
    if (!a->extended && s->enabled & IMAP_REV2) {                  /* RFC 9051 6.4.4 */
        a->extended = true;
        a->wants = RETURN_ALL;
    }
    enum imap_run r = imap_search_find(s, a, &rc);
    if (r != RUN_DONE)
        return r;
    if (rc != TB_OK)
        return imap_search_failed(s, cmd, a, rc);
    r = a->extended ? put_esearch(s, a, uid) : put_found(s, a, uid);
    if (r != RUN_DONE)
        return r;
    if (a->op.rc != TB_OK)
        return imap_search_failed(s, cmd, a, a->op.rc);
    bool updates = a->wants & RETURN_UPDATE && imap_context_add(s, a, uid);
    if (a->last > 0)
        return imap_limit_reply(s, cmd, true, s->config->imap_message_limit, a->last, "SEARCH completed in part");
    if (a->wants & RETURN_UPDATE)
        return imap_reply(cmd, updates ? "OK SEARCH completed, will notify" : "OK SEARCH completed, will not notify");
    return imap_reply(cmd, "OK SEARCH completed");
}
