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

/* ---- SELECT and EXAMINE with their parameters (RFC 4466 2.1, RFC 7162 3.1.8, 3.2.5) ---- */

struct select_args {
    struct tb_slice mailbox, given;
    bool condstore, qresync, has_known;
    bool seqnos; /* of what is known: seq-match-data */
    uint32_t uidvalidity;
    uint64_t modseq;
    struct imap_set known;
    /* run */
    bool located, selected;
    bool refused; /* it may be looked up, but not read */
    uint32_t rights;
    struct imap_place where;
    struct tb_uidset known_uids; /* arena */
    struct imap_resync resync;
};

/* known-sequence-set SP known-uid-set: a hint that saves bytes below the change log's floor only; read and not used. */
static void seq_match_data(struct imap_parser *p)
{
    struct imap_set unused;
    imap_expect(p, '(');
    imap_sequence_set(p, &unused);
    imap_sp(p);
    imap_sequence_set(p, &unused);
    imap_expect(p, ')');
}

/* select-param =/ "QRESYNC" SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" */
static void qresync_param(struct imap_parser *p, struct select_args *a)
{
    a->qresync = true;
    imap_sp(p);
    imap_expect(p, '(');
    a->uidvalidity = imap_nz_number(p);
    imap_sp(p);
    a->modseq = imap_modseq(p);
    bool more = !p->failed && imap_try_sp(p);
    if (more && !imap_at(p, '(')) {
        imap_sequence_set(p, &a->known);
        if (a->known.saved)
            imap_fail(p, "BAD No $ among the known UIDs");
        for (uint32_t i = 0; i < a->known.n; i++)
            if (a->known.v[i].first == 0 || a->known.v[i].last == 0)
                imap_fail(p, "BAD No * among the known UIDs");
        a->has_known = true;
        more = !p->failed && imap_try_sp(p);
    }
    a->seqnos = more;
    if (more)
        seq_match_data(p);
    imap_expect(p, ')');
}

void imap_parse_select(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct select_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a)
        return;
    a->mailbox = mailbox;
    a->given = p->given;
    if (p->failed || !imap_try_sp(p))
        return;
    imap_expect(p, '(');
    do {
        struct tb_slice name = imap_word(p);
        if (tb_slice_ieq(name, TB_SLICE("CONDSTORE")))
            a->condstore = true;
        else if (tb_slice_ieq(name, TB_SLICE("QRESYNC")) && !a->qresync)
            qresync_param(p, a);
        else
            imap_fail(p, "BAD No such SELECT parameter");
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

static void put_mailbox(struct imap_session *s, const struct tb_mailbox *m, const struct imap_keywords *k,
                        const struct select_args *a)
{
    imap_put_flags_lists(s, k);
    imap_puts(&s->out, "* ");
    imap_put_u64(&s->out, tb_view_count(s->view));
    imap_puts(&s->out, s->enabled & IMAP_REV2 ? " EXISTS\r\n" : " EXISTS\r\n* 0 RECENT\r\n");
    /* a sequence number: not with UIDONLY (RFC 9586 3) */
    uint32_t unseen = s->enabled & (IMAP_REV2 | IMAP_UIDONLY) ? 0 : tb_view_first_unseen(s->view);
    if (unseen > 0)
        put_ok_number(s, "UNSEEN", unseen, "First unseen");
    put_ok_number(s, "UIDVALIDITY", m->uidvalidity, "UIDs valid");
    put_ok_number(s, "UIDNEXT", m->uidnext, "Predicted next UID");
    put_ok_number(s, "HIGHESTMODSEQ", m->highestmodseq, "Highest");
    imap_puts(&s->out, "* OK [MAILBOXID (");
    imap_put_mailboxid(&s->out, m->mailboxid);
    imap_puts(&s->out, ")] Id\r\n");
    if (s->enabled & IMAP_REV2) /* RFC 9051 6.3.2 */
        imap_put_list(s, m, a->mailbox, a->given);
}

static void select_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct select_args *a = cmd->args;
    (void)s;
    imap_resync_end(&a->resync);
}

/* find_mailbox: in the account where the session sits. Of what it may not look up it is told what it is told of
 * nothing. */
static enum tb_rc find_mailbox(struct imap_session *s, struct select_args *a, struct tb_mailbox *m)
{
    enum tb_rc rc = tb_mailbox_find(s->account, a->where.name, &s->arena, m);
    if (rc == TB_INVALID || (rc == TB_OK && !m->selectable) || (rc == TB_LIMIT && !a->where.own))
        rc = TB_NOTFOUND;
    if (rc != TB_OK)
        return rc;
    a->rights = tb_acl_rights(s->account, m->mbox, s->account_id.acct);
    a->refused = !(a->rights & TB_RIGHT_READ) && a->rights & TB_RIGHT_LOOKUP;
    return a->rights & TB_RIGHT_READ ? TB_OK : TB_NOTFOUND;
}

/* open_mailbox: OK with a->selected: it is open and described. */
static enum tb_rc open_mailbox(struct imap_session *s, struct imap_cmd *cmd, struct select_args *a, bool read_only)
{
    struct tb_mailbox m;
    enum tb_rc rc = find_mailbox(s, a, &m);
    if (rc == TB_OK)
        rc = tb_view_open(s->account, m.mbox, &s->view);
    if (rc != TB_OK)
        return rc;
    struct imap_keywords *k = tb_arena_alloc(&s->arena, sizeof *k);
    struct tb_range *v = tb_arena_alloc(&s->arena, (a->known.n + 1) * sizeof *v);
    size_t n = 0;
    rc = k && v ? imap_keywords_load(s, &s->arena, k) : TB_LIMIT;
    if (rc == TB_OK && a->has_known)
        rc = imap_set_ranges(&a->known, m.uidnext - 1, false, v, &n);
    if (rc != TB_OK) {
        imap_unselect(s);
        return rc;
    }
    a->known_uids = (struct tb_uidset){.v = v, .n = n, .cap = n};
    s->state = IMAP_SELECTED;
    s->read_only = read_only;
    s->rights = a->rights;
    imap_notify_watch(s);
    put_mailbox(s, &m, k, a);
    if (a->condstore || a->qresync)
        s->enabled |= IMAP_CONDSTORE;
    a->qresync = a->qresync && a->uidvalidity == m.uidvalidity;
    cmd->cleanup = select_cleanup;
    a->selected = true;
    return TB_OK;
}

/* go_there: close what was selected, and sit down in the account of the mailbox. False: on the way. */
static bool go_there(struct imap_session *s, struct select_args *a, enum tb_rc *rc)
{
    if (!a->located) {
        bool was = s->view != NULL;
        imap_unselect(s); /* also when what follows fails: RFC 3501 6.3.1 */
        if (was)          /* whatever was enabled: RFC 7162 3.2.11, RFC 9051 6.3.2 */
            imap_puts(&s->out, "* OK [CLOSED] The mailbox before is closed\r\n");
        a->located = true;
        if (!imap_locate(s, a->mailbox, &a->where)) {
            *rc = TB_NOTFOUND;
            return true;
        }
    }
    return imap_sit(s, a->where.id, rc);
}

static enum imap_run run_select(struct imap_session *s, struct imap_cmd *cmd, bool read_only)
{
    /* RFC 4314 5.2 */
    const uint32_t writes = TB_RIGHT_INSERT | TB_RIGHT_EXPUNGE | TB_RIGHT_SEEN | TB_RIGHT_WRITE | TB_RIGHT_DELETE;
    struct select_args *a = cmd->args;
    enum tb_rc rc = TB_OK;
    if (a->qresync && !(s->enabled & IMAP_QRESYNC))
        return imap_reply(cmd, "BAD ENABLE QRESYNC first");
    if (a->seqnos && s->enabled & IMAP_UIDONLY) /* RFC 9586 3.7 */
        return imap_reply(cmd, IMAP_UIDREQUIRED);
    if (!a->selected && !go_there(s, a, &rc))
        return RUN_WAIT;
    if (rc == TB_OK && !a->selected)
        rc = open_mailbox(s, cmd, a, read_only);
    if (rc == TB_OK && a->qresync) {
        enum imap_run r = imap_resync(s, &a->resync, a->modseq, a->has_known ? &a->known_uids : NULL, &rc);
        if (r != RUN_DONE)
            return r;
        if (rc != TB_OK)
            imap_unselect(s);
    }
    if (rc != TB_OK)
        return a->refused ? imap_reply(cmd, IMAP_NOPERM) : imap_reply_rc(cmd, rc);
    if (read_only)
        return imap_reply(cmd, "OK [READ-ONLY] EXAMINE completed");
    return imap_reply(cmd, s->rights & writes ? "OK [READ-WRITE] SELECT completed" : "OK [READ-ONLY] SELECT completed");
}

enum imap_run imap_run_select(struct imap_session *s, struct imap_cmd *cmd)
{
    return run_select(s, cmd, false);
}

enum imap_run imap_run_examine(struct imap_session *s, struct imap_cmd *cmd)
{
    return run_select(s, cmd, true);
}

enum imap_run imap_run_close(struct imap_session *s, struct imap_cmd *cmd)
{
    enum tb_rc rc = TB_OK;
    bool expunges = !s->read_only && s->rights & TB_RIGHT_EXPUNGE; /* without the right: silently not, RFC 4314 4 */
    if (expunges && !cmd->state && !imap_change_begin(s, cmd, TB_CHANGE_EXPUNGE, NULL, 0))
        return imap_reply_rc(cmd, TB_LIMIT);
    if (expunges && !imap_change_over(cmd, &rc, NULL))
        return RUN_WAIT;
    imap_change_end(s, cmd);
    imap_unselect(s);
    if (rc != TB_OK && rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, rc);
    return imap_reply(cmd, "OK CLOSE completed"); /* never HIGHESTMODSEQ: RFC 7162 3.2.8 */
}

enum imap_run imap_run_unselect(struct imap_session *s, struct imap_cmd *cmd)
{
    imap_unselect(s);
    return imap_reply(cmd, "OK UNSELECT completed");
}

struct expunge_args { /* of UID EXPUNGE; EXPUNGE has none */
    struct imap_set set;
    /* run */
    struct tb_uidset uids; /* arena */
    /* with imap_message_limit: which of them are \\Deleted */
    bool resolved, walking;
    struct imap_walk walk;
    struct tb_uidset deleted; /* owned */
    uint32_t last;            /* the lowest UID removed, if there were too many; else 0 */
};

void imap_parse_uid_expunge(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct expunge_args *a = tb_arena_alloc(p->arena, sizeof *a);
    imap_sp(p);
    if (a)
        imap_sequence_set(p, &a->set);
    cmd->args = a;
}

static void expunge_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct expunge_args *a = cmd->args;
    (void)s;
    tb_uidset_free(&a->deleted);
}

/* expunge_limit: leave of a->uids the highest messages that are \\Deleted, as many as are allowed (RFC 9738 3.1).
 * RUN_DONE: *rc says how it ended. */
static enum imap_run expunge_limit(struct imap_session *s, struct imap_cmd *cmd, struct expunge_args *a, enum tb_rc *rc)
{
    enum { TURNS = 16 };
    uint32_t limit = s->config->imap_message_limit, seqno;
    const struct tb_row *row = NULL;
    if (!a->walking) {
        struct tb_uidset all = a->uids;
        *rc = imap_limit_keep(s, limit, &all, &a->last);
        if (*rc != TB_OK || a->last == 0)
            return RUN_DONE;
        tb_uidset_init(&a->deleted);
        cmd->cleanup = expunge_cleanup;
        a->walking = true;
        *rc = imap_walk_init(&a->walk, s, &a->uids) ? TB_OK : TB_LIMIT;
        if (*rc != TB_OK)
            return RUN_DONE;
    }
    for (int i = 0; i < TURNS * IMAP_BATCH; i++) {
        if (!(row = imap_walk_next(&a->walk, &seqno)))
            break;
        if (row->flags & TB_FLAG_DELETED)
            tb_uidset_add(&a->deleted, row->uid, row->uid);
    }
    if (row)
        return RUN_MORE;
    a->uids = a->deleted;
    *rc = a->deleted.failed ? TB_LIMIT : imap_limit_keep(s, limit, &a->uids, &a->last);
    return RUN_DONE;
}

enum imap_run imap_run_expunge(struct imap_session *s, struct imap_cmd *cmd)
{
    struct expunge_args *a = cmd->args; /* NULL: EXPUNGE */
    enum tb_rc rc = TB_OK;
    if (s->read_only)
        return imap_reply(cmd, "NO [READ-ONLY] The mailbox was opened with EXAMINE");
    if (!(s->rights & TB_RIGHT_EXPUNGE))
        return imap_reply(cmd, IMAP_NOPERM);
    if (!cmd->state) {
        rc = a && !a->resolved ? imap_set_resolve(s, &a->set, true, &a->uids) : TB_OK;
        if (a && rc == TB_OK) {
            a->resolved = true;
            if (expunge_limit(s, cmd, a, &rc) != RUN_DONE)
                return RUN_MORE;
        }
        if (rc == TB_OK && !imap_change_begin(s, cmd, TB_CHANGE_EXPUNGE, a ? &a->uids : NULL, 0))
            rc = TB_LIMIT;
        if (a && rc == TB_OK)
            tb_uidset_free(&a->deleted); /* the change has its own, and another cleanup */
        if (rc != TB_OK && rc != TB_NOTFOUND)
            return imap_reply_rc(cmd, rc);
    }
    if (cmd->state && !imap_change_over(cmd, &rc, NULL))
        return RUN_WAIT;
    if (rc != TB_OK && rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, rc);
    if (a && a->last > 0 && !(s->enabled & IMAP_QRESYNC))
        return imap_limit_reply(s, cmd, true, s->config->imap_message_limit, a->last, "UID EXPUNGE completed in part");
    if (a && a->last > 0)
        imap_limit_tell(s, s->config->imap_message_limit, a->last);
    return imap_reply_modseq(s, cmd, a ? "UID EXPUNGE completed" : "EXPUNGE completed");
}
