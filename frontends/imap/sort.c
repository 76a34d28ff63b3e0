/*
 * sort.c: SORT and UID SORT: a SEARCH whose answer is in an order.
 *
 * First the search runs, then the sort, both in slices; then "* SORT", or with RETURN one "* ESEARCH" (RFC 5267 3)
 * whose sets keep the order: a range only where numbers rise by one. Equal messages stay in mailbox order.
 * Thread: the connection's owner; parsing: any. RFC 5256 3, 5; RFC 5957; RFC 5267 3; RFC 7162 3.1.6 (MODSEQ).
 */
#include <tambo/sort.h>

#include "imap_search.h"

struct sort_args {
    struct imap_search search; /* first: imap_search_refused */
    struct tb_sort_key key[TB_SORT_KEYS];
    size_t keys;
    struct tb_sort *sort; /* owned */
    bool sorted;
    size_t at, end; /* of the order: what is listed next, and where listing ends */
    bool listed;    /* a number was written */
};

static void sort_criterion(struct imap_parser *p, struct sort_args *a)
{
    static const struct {
        const char *name;
        enum tb_sort_by by;
    } names[] = {
        {"ARRIVAL", TB_SORT_ARRIVAL},
        {"CC", TB_SORT_CC},
        {"DATE", TB_SORT_DATE},
        {"DISPLAYFROM", TB_SORT_DISPLAYFROM},
        {"DISPLAYTO", TB_SORT_DISPLAYTO},
        {"FROM", TB_SORT_FROM},
        {"SIZE", TB_SORT_SIZE},
        {"SUBJECT", TB_SORT_SUBJECT},
        {"TO", TB_SORT_TO},
    };
    struct tb_slice name = imap_word(p);
    bool reverse = tb_slice_ieq(name, TB_SLICE("REVERSE"));
    if (reverse) {
        imap_sp(p);
        name = imap_word(p);
    }
    size_t i = 0;
    while (i < TB_ARRAY_LEN(names) && !tb_slice_ieq(name, tb_slice_str(names[i].name)))
        i++;
    if (i == TB_ARRAY_LEN(names)) {
        imap_fail(p, "BAD No such SORT criterion");
        return;
    }
    for (size_t k = 0; k < a->keys; k++)
        if (a->key[k].by == names[i].by)
            return; /* what was equal by it stays so */
    a->key[a->keys++] = (struct tb_sort_key){.by = names[i].by, .reverse = reverse};
}

/* sort = "SORT" [search-return-opts] SP "(" sort-criterion *(SP sort-criterion) ")" SP charset 1*(SP search-key) */
void imap_parse_sort(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct sort_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->search.tag = cmd->tag;
    a->search.whole = true;
    imap_search_return(p, &a->search, false);
    imap_expect(p, '(');
    do {
        sort_criterion(p, a);
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    imap_sp(p);
    imap_search_criteria(p, &a->search);
    cmd->holds = a->search.seqnos;
}

static void sort_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct sort_args *a = cmd->args;
    s->mid_response = false;
    tb_sort_end(a->sort);
    a->sort = NULL;
    imap_search_end(&a->search);
}

/* sort_found: RUN_DONE: *rc says how it ended. */
static enum imap_run sort_found(struct imap_session *s, struct sort_args *a, enum tb_rc *rc)
{
    *rc = TB_OK;
    if (a->sorted)
        return RUN_DONE;
    if (!a->sort)
        *rc = tb_sort_begin(s->view, tb_search_found(a->search.search), a->key, a->keys, &a->sort);
    else if (a->search.op.rc != TB_OK || a->search.op.result == 0)
        a->sorted = true;
    if (a->sorted)
        *rc = a->search.op.rc;
    if (*rc != TB_OK || a->sorted)
        return RUN_DONE;
    imap_still_working(s, 0, 0);
    tb_sort_step(a->sort, imap_search_op(s, &a->search));
    return RUN_WAIT;
}

static uint32_t number_at(struct imap_session *s, const uint32_t *order, size_t i, bool uid)
{
    return uid ? order[i] : tb_view_seqno(s->view, order[i]);
}

/* put_list: numbers a->at to a->end. ranges: as a sequence set in this order, else each behind a blank. */
static enum imap_run put_list(struct imap_session *s, struct sort_args *a, const uint32_t *order, bool uid, bool ranges)
{
    for (uint32_t turn = 0; a->at < a->end; turn++) {
        char *p = turn < 4 * IMAP_BATCH ? imap_room(&s->out, 2 * (IMAP_U64_ROOM + 1)) : NULL;
        if (!p)
            return RUN_MORE;
        uint32_t first = number_at(s, order, a->at++, uid), last = first;
        while (ranges && a->at < a->end && turn < 4 * IMAP_BATCH && number_at(s, order, a->at, uid) == last + 1) {
            last++;
            a->at++;
            turn++;
        }
        if (!ranges || a->listed)
            *p++ = ranges ? ',' : ' ';
        a->listed = true;
        p = imap_fmt_u64(p, first);
        if (last > first) {
            *p++ = ':';
            p = imap_fmt_u64(p, last);
        }
        imap_wrote(&s->out, p);
    }
    return RUN_DONE;
}

static enum imap_run put_sorted(struct imap_session *s, struct sort_args *a, bool uid)
{
    size_t n;
    const uint32_t *order = tb_sort_order(a->sort, &n);
    if (!a->search.line_begun)
        imap_puts(&s->out, "* SORT");
    a->search.line_begun = s->mid_response = true;
    a->end = n;
    if (put_list(s, a, order, uid, false) != RUN_DONE)
        return RUN_MORE;
    if (a->search.modseq && n > 0) {
        imap_puts(&s->out, " (MODSEQ ");
        imap_put_u64(&s->out, tb_sort_modseq(a->sort));
        imap_putc(&s->out, ')');
    }
    imap_puts(&s->out, "\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

/* ---- ESEARCH (RFC 5267 3.1) ---- */

static uint64_t modseq_of(struct imap_session *s, const struct sort_args *a, const uint32_t *order, size_t n)
{
    struct tb_row row;
    uint64_t highest = 0;
    uint8_t wants = a->search.wants;
    if (wants & (RETURN_ALL | RETURN_COUNT | RETURN_PARTIAL))
        return tb_sort_modseq(a->sort);
    if (wants & RETURN_MIN && tb_view_row(s->view, order[0], &row) == TB_OK)
        highest = row.modseq;
    if (wants & RETURN_MAX && tb_view_row(s->view, order[n - 1], &row) == TB_OK && row.modseq > highest)
        highest = row.modseq;
    return highest;
}

/* save: as of a SEARCH (RFC 5182 2.1, 2.4), with MIN and MAX by the order. */
static bool save(struct imap_session *s, const struct sort_args *a, const uint32_t *order, size_t n)
{
    struct tb_uidset saved;
    uint8_t wants = a->search.wants;
    uint64_t first = 1, last = n;
    tb_uidset_init(&saved);
    if (wants & RETURN_PARTIAL && !imap_search_window(&a->search, n, &first, &last))
        first = last + 1;
    if (wants & (RETURN_ALL | RETURN_COUNT) || !(wants & (RETURN_MIN | RETURN_MAX | RETURN_PARTIAL))) {
        const struct tb_uidset *found = tb_search_found(a->search.search);
        for (size_t i = 0; i < found->n; i++)
            tb_uidset_add(&saved, found->v[i].first, found->v[i].last);
    } else if (wants & RETURN_PARTIAL) {
        for (uint64_t i = first; i <= last; i++)
            tb_uidset_add(&saved, order[i - 1], order[i - 1]);
    } else if (n > 0) {
        if (wants & RETURN_MIN)
            tb_uidset_add(&saved, order[0], order[0]);
        if (wants & RETURN_MAX)
            tb_uidset_add(&saved, order[n - 1], order[n - 1]);
    }
    bool good = !saved.failed;
    if (good) {
        tb_uidset_free(&s->saved);
        s->saved = saved;
    } else {
        tb_uidset_free(&saved);
    }
    return good;
}

static void put_number(struct imap_session *s, const char *name, uint64_t v)
{
    imap_puts(&s->out, name);
    imap_put_u64(&s->out, v);
}

/* put_head: everything but the list. */
static void put_head(struct imap_session *s, struct sort_args *a, const uint32_t *order, size_t n, bool uid)
{
    uint8_t wants = a->search.wants;
    uint64_t first, last;
    imap_esearch_open(s, &a->search, uid);
    if (n > 0 && wants & RETURN_MIN)
        put_number(s, " MIN ", number_at(s, order, 0, uid));
    if (n > 0 && wants & RETURN_MAX)
        put_number(s, " MAX ", number_at(s, order, n - 1, uid));
    if (wants & RETURN_COUNT)
        put_number(s, " COUNT ", n);
    if (a->search.modseq && n > 0)
        put_number(s, " MODSEQ ", modseq_of(s, a, order, n));
    if (wants & RETURN_PARTIAL) {
        imap_esearch_partial(s, &a->search);
        if (imap_search_window(&a->search, n, &first, &last)) {
            a->at = (size_t)first - 1;
            a->end = (size_t)last;
        } else {
            imap_puts(&s->out, "NIL");
        }
    } else if (wants & RETURN_ALL && n > 0) {
        imap_puts(&s->out, " ALL ");
        a->end = n;
    }
}

static enum imap_run put_esort(struct imap_session *s, struct sort_args *a, bool uid)
{
    size_t n;
    const uint32_t *order = tb_sort_order(a->sort, &n);
    if (!a->search.line_begun) {
        if (a->search.wants & RETURN_SAVE && !save(s, a, order, n)) {
            a->search.op.rc = TB_LIMIT;
            return RUN_DONE;
        }
        if (a->search.wants == RETURN_SAVE)
            return RUN_DONE; /* nothing is told */
        put_head(s, a, order, n, uid);
    }
    a->search.line_begun = s->mid_response = true;
    if (put_list(s, a, order, uid, true) != RUN_DONE)
        return RUN_MORE;
    imap_puts(&s->out, a->search.wants & RETURN_PARTIAL ? ")\r\n" : "\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

enum imap_run imap_run_sort(struct imap_session *s, struct imap_cmd *cmd)
{
    struct sort_args *a = cmd->args;
    bool uid = cmd->verb->flags & VERB_UID;
    enum tb_rc rc;
    cmd->cleanup = sort_cleanup;
    enum imap_run r = imap_search_find(s, &a->search, &rc);
    if (r == RUN_DONE && rc == TB_OK)
        r = sort_found(s, a, &rc);
    if (r != RUN_DONE)
        return r;
    if (rc != TB_OK)
        return imap_search_failed(s, cmd, &a->search, rc);
    r = a->search.extended ? put_esort(s, a, uid) : put_sorted(s, a, uid);
    if (r != RUN_DONE)
        return r;
    if (a->search.op.rc != TB_OK)
        return imap_search_failed(s, cmd, &a->search, a->search.op.rc);
    return imap_reply(cmd, "OK SORT completed");
}
