/*
 * copy.c: COPY, UID COPY, MOVE and UID MOVE.
 *
 * All or nothing, no body is read. Messages that another session expunged meanwhile are skipped: the answer
 * is OK with the COPYUID of what was done, because clients that get NO copy again and again.
 * Thread: the connection's owner. RFC 3501 6.4.7; 4315 3 (COPYUID); 6851 3, 4.3 (MOVE: COPYUID untagged,
 * before EXPUNGE).
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

static enum imap_run copy(struct imap_session *s, struct imap_cmd *cmd, bool move)
{
    const struct copy_args *a = cmd->args;
    struct tb_mailbox m;
    struct tb_uidset uids;
    struct tb_copied c;
    struct tb_buf b;
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
    if (rc == TB_OK)
        rc = move ? tb_move(s->view, &uids, m.mbox, &c) : tb_copy(s->view, &uids, m.mbox, &c);
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (tb_uidset_count(&c.from) == 0) {
        tb_copied_free(&c);
        return imap_reply(cmd, "OK No messages");
    }
    tb_buf_init(&b, 16 << 20);
    copyuid(&b, &c);
    tb_copied_free(&c);
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
