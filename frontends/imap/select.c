/*
 * select.c: SELECT, EXAMINE, CLOSE, UNSELECT, EXPUNGE and UID EXPUNGE.
 *
 * \Recent is not kept: always "0 RECENT" (docs/LENIENCY.md). Thread: the connection's owner.
 * RFC 3501 6.3.1, 6.3.2, 6.4.2, 6.4.3; 3691 (UNSELECT); 4315 2.1 (UID EXPUNGE).
 */
#include "imap_session.h"

static void put_ok_number(struct imap_session *s, const char *code, uint64_t v, const char *text)
{
    imap_puts(&s->out, "* OK [");
    imap_puts(&s->out, code);
    imap_putc(&s->out, ' ');
    imap_put_u64(&s->out, v);
    imap_puts(&s->out, "] ");
    imap_puts(&s->out, text);
    imap_puts(&s->out, "\r\n");
}

static enum imap_run open_mailbox(struct imap_session *s, struct imap_cmd *cmd, bool read_only)
{
    const struct tb_slice *name = cmd->args;
    struct tb_mailbox m;
    imap_unselect(s); /* also when what follows fails: RFC 3501 6.3.1 */
    enum tb_rc rc = tb_mailbox_find(s->account, *name, &s->arena, &m);
    if (rc == TB_INVALID || (rc == TB_OK && !m.selectable))
        rc = TB_NOTFOUND;
    if (rc == TB_OK)
        rc = tb_view_open(s->account, m.mbox, &s->view);
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    struct imap_keywords *k = tb_arena_alloc(&s->arena, sizeof *k);
    rc = k ? imap_keywords_load(s, &s->arena, k) : TB_LIMIT;
    if (rc != TB_OK) {
        imap_unselect(s);
        return imap_reply_rc(cmd, rc);
    }
    s->state = IMAP_SELECTED;
    s->read_only = read_only;

    imap_put_flags_lists(s, k);
    imap_puts(&s->out, "* ");
    imap_put_u64(&s->out, tb_view_count(s->view));
    imap_puts(&s->out, " EXISTS\r\n* 0 RECENT\r\n");
    uint32_t unseen = tb_view_first_unseen(s->view);
    if (unseen > 0)
        put_ok_number(s, "UNSEEN", unseen, "First unseen");
    put_ok_number(s, "UIDVALIDITY", m.uidvalidity, "UIDs valid");
    put_ok_number(s, "UIDNEXT", m.uidnext, "Predicted next UID");
    return imap_reply(cmd, read_only ? "OK [READ-ONLY] EXAMINE completed" : "OK [READ-WRITE] SELECT completed");
}

enum imap_run imap_run_select(struct imap_session *s, struct imap_cmd *cmd)
{
    return open_mailbox(s, cmd, false);
}

enum imap_run imap_run_examine(struct imap_session *s, struct imap_cmd *cmd)
{
    return open_mailbox(s, cmd, true);
}

enum imap_run imap_run_close(struct imap_session *s, struct imap_cmd *cmd)
{
    enum tb_rc rc = s->read_only ? TB_OK : tb_expunge(s->view, NULL, NULL);
    imap_unselect(s);
    if (rc != TB_OK && rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, rc);
    return imap_reply(cmd, "OK CLOSE completed");
}

enum imap_run imap_run_unselect(struct imap_session *s, struct imap_cmd *cmd)
{
    imap_unselect(s);
    return imap_reply(cmd, "OK UNSELECT completed");
}

void imap_parse_uid_expunge(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_set *set = tb_arena_alloc(p->arena, sizeof *set);
    imap_sp(p);
    if (set)
        imap_sequence_set(p, set);
    cmd->args = set;
}

enum imap_run imap_run_expunge(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct imap_set *set = cmd->args; /* NULL: EXPUNGE */
    struct tb_uidset uids;
    if (s->read_only)
        return imap_reply(cmd, "NO [READ-ONLY] The mailbox was opened with EXAMINE");
    enum tb_rc rc = set ? imap_set_resolve(s, set, true, &uids) : TB_OK;
    if (rc == TB_OK)
        rc = tb_expunge(s->view, set ? &uids : NULL, NULL);
    if (rc != TB_OK && rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, rc);
    return imap_reply(cmd, set ? "OK UID EXPUNGE completed" : "OK EXPUNGE completed");
}
