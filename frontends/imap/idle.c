/*
 * idle.c: IDLE: what changes in the selected mailbox is told at once, until DONE.
 *
 * An idle session is the commonest state of all, so it keeps nothing but its tag: the command's arena goes
 * back to the heap, and each push borrows memory for itself only. What the client sends behind DONE is the
 * next command, as ever.
 * Thread: the connection's owner. RFC 2177.
 */
#include "imap_session.h"

#include <stdlib.h>

void imap_on_change(void *session)
{
    struct imap_session *s = session;
    s->changed = true;
    tb_conn_resume(s->conn);
}

static void idle_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    imap_notify_watch(s);
    free(cmd->state);
    cmd->state = NULL;
}

static enum imap_run idle_start(struct imap_session *s, struct imap_cmd *cmd)
{
    char *tag = malloc(cmd->tag.len + 1);
    if (!tag)
        return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
    memcpy(tag, cmd->tag.ptr, cmd->tag.len);
    cmd->tag.ptr = cmd->state = tag;
    cmd->cleanup = idle_cleanup;
    tb_arena_free(&s->arena);
    imap_puts(&s->out, "+ idling\r\n");
    if (s->view)
        tb_view_watch(s->view, imap_on_change, s);
    s->changed = true; /* what came before the watch */
    return RUN_MORE;
}

enum imap_run imap_run_idle(struct imap_session *s, struct imap_cmd *cmd)
{
    enum { DONE_MAX = 64 };
    struct tb_slice line;
    if (!cmd->state)
        return idle_start(s, cmd);
    enum imap_run r = s->notify ? imap_notify_step(s, true) : RUN_DONE; /* RFC 5465 4 */
    if (r != RUN_DONE)
        return r;
    if (!s->notify && (s->changed || s->sync.active) && !imap_contexts_active(s) && !imap_sync(s, SYNC_EXPUNGE))
        return RUN_WAIT;
    if (!imap_contexts_tell(s))
        return RUN_WAIT;
    if (!s->notify && s->changed && s->view && !s->gone)
        return RUN_MORE; /* meanwhile */
    if (s->gone)
        return imap_reply(cmd, "NO The mailbox is gone");
    switch (tb_conn_line(s->conn, DONE_MAX, &line)) {
    case LINE_MORE:
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    case LINE_OK:
        if (tb_slice_ieq(line, TB_SLICE("DONE")))
            return imap_reply(cmd, "OK IDLE terminated");
        break;
    case LINE_LONG:
    case LINE_BARE:
        break;
    }
    return imap_reply(cmd, "BAD Expected DONE");
}
