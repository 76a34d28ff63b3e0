/*
 * change.c: EXPUNGE, COPY, MOVE and CLOSE of many messages: the command waits while the store works in slices.
 *
 * Must never outlive the view it works on: cleanup frees it before the view closes. Thread: the connection's owner.
 */
#include "imap_session.h"

struct imap_change {
    struct imap_session *s;
    struct tb_change *change; /* owned */
    struct tb_op op;
    bool busy;
};

static void change_done(struct tb_op *op)
{
    struct imap_change *x = op->user;
    x->busy = false;
    tb_conn_resume(x->s->conn);
}

void imap_change_end(struct imap_session *s, struct imap_cmd *cmd)
{
    struct imap_change *x = cmd->state;
    (void)s;
    cmd->state = NULL;
    cmd->cleanup = NULL;
    if (x)
        tb_change_free(x->change);
}

bool imap_change_begin(struct imap_session *s, struct imap_cmd *cmd, enum tb_change_kind kind,
                       const struct tb_uidset *uids, uint32_t dst)
{
    struct imap_change *x = tb_arena_alloc(&s->arena, sizeof *x);
    if (!x)
        return false;
    *x = (struct imap_change){.s = s, .op = {.done = change_done, .user = x}};
    cmd->state = x;
    cmd->cleanup = imap_change_end;
    x->busy = !tb_change_start(s->view, kind, uids, dst, &x->op, &x->change);
    return true;
}

bool imap_change_over(const struct imap_cmd *cmd, enum tb_rc *rc, const struct tb_copied **copied)
{
    const struct imap_change *x = cmd->state;
    if (x->busy)
        return false;
    *rc = x->op.rc;
    if (copied)
        *copied = x->change ? tb_change_copied(x->change) : NULL;
    return true;
}
