/*
 * copy.c: COPY, UID COPY, MOVE and UID MOVE.
 *
 * No body is read. A COPY is all or nothing; a MOVE that is refused in its midst leaves each message in one place.
 * Messages that another session expunged meanwhile are skipped: the answer is OK with the COPYUID of what was done,
 * because clients that get NO copy again and again. Thread: the connection's owner. RFC 3501 6.4.7; 4315 3 (COPYUID);
 * 6851 3, 4.3 (MOVE: COPYUID untagged, before EXPUNGE).
 */
#include "imap_session.h"

/* What a MOVE takes away it deletes and expunges: RFC 6851 4.1 with RFC 4314 4. */
enum { MOVE_RIGHTS = TB_RIGHT_DELETE | TB_RIGHT_EXPUNGE };

struct copy_args {
    struct imap_set set;
    struct tb_slice mailbox;
    /* run */
    struct tb_uidset uids;    /* arena */
    struct imap_errand *to;   /* owned: finds the destination */
    struct imap_ferry *ferry; /* owned: NULL: the destination is in the same account, and every flag may be set there */
    bool ferried;             /* the ferry is over; what was copied is removed now */
    uint32_t last;            /* the lowest UID moved, if there were too many; else 0 */
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

static void copy_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct copy_args *a = cmd->args;
    if (cmd->state)
        imap_change_end(s, cmd);
    imap_ferry_end(a->ferry);
    imap_errand_end(a->to);
    a->ferry = NULL;
    a->to = NULL;
}

static void work_find(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    (void)imap_errand_find(e, a, TB_RIGHT_INSERT);
}

/* change: start the store's own COPY or MOVE, or the removal of what was ferried. */
static bool change(struct imap_session *s, struct imap_cmd *cmd, enum tb_change_kind kind, const struct tb_uidset *uids,
                   uint32_t dst)
{
    bool good = imap_change_begin(s, cmd, kind, uids, dst);
    cmd->cleanup = copy_cleanup;
    return good;
}

/* resolve: what to copy; RUN_MORE: *a->to is asked for the destination. */
static enum imap_run resolve(struct imap_session *s, struct imap_cmd *cmd, struct copy_args *a, bool move)
{
    struct imap_place where;
    uint32_t limit = s->config->imap_message_limit;
    enum tb_rc rc = imap_set_resolve(s, &a->set, cmd->verb->flags & VERB_UID, &a->uids);
    if (rc == TB_INVALID)
        return imap_reply(cmd, "BAD No such message");
    if (!move && limit == 0)
        limit = s->config->imap_save_limit;
    if (rc == TB_OK)
        rc = imap_limit_keep(s, limit, &a->uids, &a->last);
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (a->last > 0 && !move) /* a COPY is all or nothing */
        return imap_limit_reply(s, cmd, false, limit, a->last, "Too many messages to copy");
    if (move && s->read_only)
        return imap_reply(cmd, "NO [READ-ONLY] The mailbox was opened with EXAMINE");
    if (move && (s->rights & MOVE_RIGHTS) != MOVE_RIGHTS)
        return imap_reply(cmd, IMAP_NOPERM);
    if (!imap_locate(s, a->mailbox, &where))
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    cmd->cleanup = copy_cleanup;
    if (!(a->to = imap_errand_new(s, &where)))
        return imap_reply_rc(cmd, TB_LIMIT);
    imap_errand_start(s, a->to, work_find);
    return RUN_MORE;
}

/* begin: the destination is known; start. RUN_MORE: it goes on, or is over already. */
static enum imap_run begin(struct imap_session *s, struct imap_cmd *cmd, struct copy_args *a, bool move)
{
    const struct imap_errand *to = a->to;
    const uint16_t all = imap_flags_allowed(TB_RIGHTS_ALL);
    enum tb_rc rc = to->rc;
    if (to->refusal)
        return imap_reply(cmd, to->refusal);
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc == TB_OK && to->id.acct == s->seat.acct && imap_flags_allowed(to->rights) == all)
        rc = change(s, cmd, move ? TB_CHANGE_MOVE : TB_CHANGE_COPY, &a->uids, to->mailbox.mbox) ? TB_OK : TB_LIMIT;
    else if (rc == TB_OK)
        rc = (a->ferry = imap_ferry_new(s, &a->uids, to)) ? TB_OK : TB_LIMIT;
    return rc == TB_OK ? RUN_MORE : imap_reply_rc(cmd, rc);
}

/* over: false while it goes on. A ferried MOVE removes what arrived, when all of it has. */
static bool over(struct imap_session *s, struct imap_cmd *cmd, struct copy_args *a, bool move, enum tb_rc *rc,
                 const struct tb_copied **c)
{
    if (!a->ferry)
        return imap_change_over(cmd, rc, c);
    if (!imap_ferry_over(a->ferry, rc, c))
        return false;
    if (!move || *rc != TB_OK || tb_uidset_count(&(*c)->from) == 0)
        return true;
    if (!a->ferried && !change(s, cmd, TB_CHANGE_DELETE, &(*c)->from, 0)) {
        *rc = TB_LIMIT;
        return true;
    }
    a->ferried = true;
    return imap_change_over(cmd, rc, NULL);
}

/* moved: the tagged reply of a MOVE; one code fits into it. */
static enum imap_run moved(struct imap_session *s, struct imap_cmd *cmd, const struct copy_args *a)
{
    uint32_t limit = s->config->imap_message_limit;
    if (a->last > 0 && !(s->enabled & IMAP_QRESYNC))
        return imap_limit_reply(s, cmd, true, limit, a->last, "MOVE completed in part");
    if (a->last > 0)
        imap_limit_tell(s, limit, a->last);
    return imap_reply_modseq(s, cmd, "MOVE completed");
}

static enum imap_run copy(struct imap_session *s, struct imap_cmd *cmd, bool move)
{
    struct copy_args *a = cmd->args;
    const struct tb_copied *c;
    struct tb_buf b;
    enum tb_rc rc;
    enum imap_run r = a->to ? RUN_MORE : resolve(s, cmd, a, move);
    if (r == RUN_MORE && a->to->busy)
        return RUN_WAIT;
    if (r == RUN_MORE && !a->ferry && !cmd->state)
        r = begin(s, cmd, a, move);
    if (r != RUN_MORE)
        return r;
    if (!over(s, cmd, a, move, &rc, &c))
        return RUN_WAIT;
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (tb_uidset_count(&c->from) == 0 && a->last == 0)
        return imap_reply(cmd, "OK No messages");
    imap_notify_own(s, a->to->id.acct, a->to->mailbox.mbox, &c->to);
    if (!(a->to->rights & TB_RIGHT_READ)) /* who may not read there learns no UIDs: RFC 4315 3, RFC 9051 6.4.7 */
        return move ? moved(s, cmd, a) : imap_reply(cmd, "OK COPY completed");
    tb_buf_init(&b, 16 << 20);
    copyuid(&b, c);
    if (!move)
        return imap_reply_buf(s, cmd, &b);
    if (!b.failed && tb_uidset_count(&c->from) > 0) {
        imap_puts(&s->out, "* ");
        imap_put(&s->out, tb_buf_all(&b));
        imap_puts(&s->out, "\r\n");
    }
    tb_buf_free(&b);
    return moved(s, cmd, a);
}

enum imap_run imap_run_copy(struct imap_session *s, struct imap_cmd *cmd)
{
    return copy(s, cmd, false);
}

enum imap_run imap_run_move(struct imap_session *s, struct imap_cmd *cmd)
{
    return copy(s, cmd, true);
}
