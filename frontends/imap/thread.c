/*
 * thread.c: THREAD and UID THREAD: a SEARCH whose answer is a forest.
 *
 * First the search runs, then the threads are made, both in slices; then they are written node by node, without
 * recursion, however deep they are. Thread: the connection's owner; parsing: any. RFC 5256 3, 5.
 */
#include <tambo/sort.h>

#include "imap_search.h"

struct thread_args {
    struct imap_search search;
    enum tb_thread_by by;
    struct tb_thread *thread; /* owned */
    bool made;
    uint32_t at; /* the node to be written next */
};

/* thread = "THREAD" SP thread-alg SP charset 1*(SP search-key) */
void imap_parse_thread(struct imap_parser *p, struct imap_cmd *cmd)
{
    static const struct {
        const char *name;
        enum tb_thread_by by;
    } names[] = {
        {"ORDEREDSUBJECT", TB_THREAD_ORDEREDSUBJECT}, {"REFERENCES", TB_THREAD_REFERENCES}, {"REFS", TB_THREAD_REFS}};
    struct thread_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->search.tag = cmd->tag;
    a->search.whole = true;
    struct tb_slice name = imap_word(p);
    size_t i = 0;
    while (i < TB_ARRAY_LEN(names) && !tb_slice_ieq(name, tb_slice_str(names[i].name)))
        i++;
    if (i < TB_ARRAY_LEN(names))
        a->by = names[i].by;
    else
        imap_fail(p, "BAD No such THREAD algorithm");
    imap_sp(p);
    imap_search_criteria(p, &a->search);
    cmd->holds = a->search.seqnos;
}

static void thread_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct thread_args *a = cmd->args;
    s->mid_response = false;
    tb_thread_end(a->thread);
    a->thread = NULL;
    imap_search_end(&a->search);
}

/* thread_found: RUN_DONE: *rc says how it ended. */
static enum imap_run thread_found(struct imap_session *s, struct thread_args *a, enum tb_rc *rc)
{
    *rc = TB_OK;
    if (a->made)
        return RUN_DONE;
    if (!a->thread) {
        *rc = tb_thread_begin(s->view, tb_search_found(a->search.search), a->by, &a->thread);
    } else if (a->search.op.rc != TB_OK || a->search.op.result == 0) {
        a->made = true;
        *rc = a->search.op.rc;
        a->at = *rc == TB_OK ? tb_thread_first(a->thread) : 0;
    }
    if (*rc != TB_OK || a->made)
        return RUN_DONE;
    imap_still_working(s, 0, 0);
    tb_thread_step(a->thread, imap_search_op(s, &a->search));
    return RUN_WAIT;
}

/* begins_list: does the node stand in parentheses of its own? All do but an only child. */
static bool begins_list(const struct tb_thread *t, struct tb_thread_node x)
{
    if (x.parent == 0)
        return true;
    struct tb_thread_node up = tb_thread_node(t, x.parent);
    return up.uid == 0 || tb_thread_node(t, up.child).next != 0;
}

/* put_node: a node, and the parentheses that end with it. Returns the next one; 0: it was the last. */
static uint32_t put_node(struct imap_session *s, const struct tb_thread *t, uint32_t at, bool uid)
{
    struct tb_thread_node x = tb_thread_node(t, at);
    bool list = begins_list(t, x);
    if (x.parent != 0) {
        struct tb_thread_node up = tb_thread_node(t, x.parent);
        if (up.uid != 0 && up.child == at)
            imap_putc(&s->out, ' ');
    }
    if (list)
        imap_putc(&s->out, '(');
    if (x.uid != 0)
        imap_put_u64(&s->out, uid ? x.uid : tb_view_seqno(s->view, x.uid));
    if (x.child != 0)
        return x.child;
    for (;;) { /* up to the next one that has a sibling */
        if (list)
            imap_putc(&s->out, ')');
        if (x.next != 0)
            return x.next;
        if (x.parent == 0)
            return 0;
        x = tb_thread_node(t, x.parent);
        list = begins_list(t, x);
    }
}

static enum imap_run put_threads(struct imap_session *s, struct thread_args *a, bool uid)
{
    if (!a->search.line_begun) {
        imap_puts(&s->out, "* THREAD");
        if (a->at != 0)
            imap_putc(&s->out, ' ');
    }
    a->search.line_begun = s->mid_response = true;
    for (int turn = 0; a->at != 0; turn++) {
        if (turn == 4 * IMAP_BATCH || s->out.dead)
            return RUN_MORE;
        a->at = put_node(s, a->thread, a->at, uid);
    }
    imap_puts(&s->out, "\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

enum imap_run imap_run_thread(struct imap_session *s, struct imap_cmd *cmd)
{
    struct thread_args *a = cmd->args;
    enum tb_rc rc;
    cmd->cleanup = thread_cleanup;
    enum imap_run r = imap_search_find(s, &a->search, &rc);
    if (r == RUN_DONE && rc == TB_OK)
        r = thread_found(s, a, &rc);
    if (r != RUN_DONE)
        return r;
    if (rc != TB_OK)
        return imap_search_failed(s, cmd, &a->search, rc);
    r = put_threads(s, a, cmd->verb->flags & VERB_UID);
    return r == RUN_DONE ? imap_reply(cmd, "OK THREAD completed") : r;
}
