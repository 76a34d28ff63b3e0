/*
 * copy.c: COPY, UID COPY, MOVE and UID MOVE.
 *
 * No body is read. A COPY is all or nothing; a MOVE that is refused in its midst leaves each message in one place.
 * Messages that another session expunged meanwhile are skipped: the answer is OK with the COPYUID of what was done,
 * because clients that get NO copy again and again. Thread: the connection's owner. RFC 3501 6.4.7; 4315 3 (COPYUID);
 * 6851 3, 4.3 (MOVE: COPYUID untagged, before EXPUNGE).
 */
#include "imap_session.h"

struct copy_args {
    struct imap_set set;
    struct tb_slice mailbox;
};

/* copy = "COPY" SP sequence-set SP mailbox */
void imap_parse_copy(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct copy_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    imap_sequence_set(p, &a->set);
    imap_sp(p);
    a->mailbox = imap_mailbox(p);
}

static void copyuid(struct tb_buf *b, const struct tb_copied *c)
{
    tb_buf_str(b, "OK [COPYUID ");
    tb_buf_u64(b, c->uidvalidity);
    tb_buf_char(b, ' ');
    tb_uidset_write(&c->from, b);
    tb_buf_char(b, ' ');
    tb_uidset_write(&c->to, b);
    tb_buf_str(b, "] Done");
}

/* begin: resolve the names and start; RUN_MORE: it goes on, or is over already. */
static enum imap_run begin(struct imap_session *s, struct imap_cmd *cmd, bool move)
{
    const struct copy_args *a = cmd->args;
    struct tb_mailbox m;
    struct tb_uidset uids;
    enum tb_rc rc = imap_set_resolve(s, &a->set, cmd->verb->flags & VERB_UID, &uids);
    if (rc == TB_INVALID)
        return imap_reply(cmd, "BAD No such message");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (move && s->read_only)
        return imap_reply(cmd, "NO [READ-ONLY] The mailbox was opened with EXAMINE");
    rc = tb_mailbox_find(s->account, a->mailbox, &s->arena, &m);
    if (rc == TB_NOTFOUND || (rc == TB_OK && !m.selectable))
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc == TB_OK && !imap_change_begin(s, cmd, move ? TB_CHANGE_MOVE : TB_CHANGE_COPY, &uids, m.mbox))
        rc = TB_LIMIT;
    return rc == TB_OK ? RUN_MORE : imap_reply_rc(cmd, rc);
}

static enum imap_run copy(struct imap_session *s, struct imap_cmd *cmd, bool move)
{
    const struct tb_copied *c;
    struct tb_buf b;
    enum tb_rc rc;
    enum imap_run r = cmd->state ? RUN_MORE : begin(s, cmd, move);
    if (r != RUN_MORE)
        return r;
    if (!imap_change_over(cmd, &rc, &c))
        return RUN_WAIT;
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (tb_uidset_count(&c->from) == 0)
        return imap_reply(cmd, "OK No messages");
    tb_buf_init(&b, 16 << 20);
    copyuid(&b, c);
    if (!move)
        return imap_reply_buf(s, cmd, &b);
    if (!b.failed) {
        imap_puts(&s->out, "* ");
        imap_put(&s->out, tb_buf_all(&b));
        imap_puts(&s->out, "\r\n");
    }
    tb_buf_free(&b);
    return imap_reply_modseq(s, cmd, "MOVE completed");
}

enum imap_run imap_run_copy(struct imap_session *s, struct imap_cmd *cmd)
{
    return copy(s, cmd, false);
}

enum imap_run imap_run_move(struct imap_session *s, struct imap_cmd *cmd)
{
    return copy(s, cmd, true);
}
