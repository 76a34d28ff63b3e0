/*
 * store.c: STORE and UID STORE.
 *
 * Flags are changed in slices of a few thousand messages, so that neither a log record, nor a refresh, nor
 * this session's turn grows with the mailbox. Each slice: what others changed is told (settle), the update is
 * made in the same turn, its own changes are taken out of the view silently, and the rows of the slice are
 * answered, unless .SILENT.
 * Thread: the connection's owner. RFC 3501 6.4.6; RFC 2180 4.2 (expunged messages: the rest is done, then NO;
 * OK if .SILENT); RFC 5530 3.
 */
#include "imap_session.h"

enum { STORE_SLICE = 2048 };
enum store_phase { STORE_START, STORE_SLICES, STORE_ROWS };

struct store_args {
    struct imap_set set;
    struct imap_flags flags;
    enum tb_flags_mode mode;
    bool silent, conditional;
    uint64_t unchangedsince;
    /* run */
    enum store_phase phase;
    uint64_t keywords;
    uint16_t may; /* system flags that the user's rights let it change */
    bool may_keywords;
    struct tb_uidset uids, slice, modified; /* uids: arena; the others: owned */
    struct imap_walk walk, rows;
    struct imap_keywords *names;
    bool end;      /* the walk is at its end */
    uint32_t last; /* the lowest UID worked on, if there were too many; else 0 */
};

/* store-att-flags = (["+" / "-"] "FLAGS" [".SILENT"]) SP (flag-list / (flag *(SP flag))) */
static void store_att(struct imap_parser *p, struct store_args *a)
{
    a->mode = TB_FLAGS_SET;
    if (imap_try(p, '+'))
        a->mode = TB_FLAGS_ADD;
    else if (imap_try(p, '-'))
        a->mode = TB_FLAGS_REMOVE;
    struct tb_slice name = imap_word(p);
    a->silent = tb_slice_ieq(name, TB_SLICE("FLAGS.SILENT"));
    if (!p->failed && !a->silent && !tb_slice_ieq(name, TB_SLICE("FLAGS")))
        imap_fail(p, "BAD Expected FLAGS, +FLAGS or -FLAGS");
    imap_sp(p);
    if (imap_at(p, '('))
        imap_flag_list(p, &a->flags);
    else
        imap_flags_bare(p, &a->flags);
}

/* store-modifier = "UNCHANGEDSINCE" SP mod-sequence-valzer (RFC 7162 3.1.3); the opening parenthesis is taken */
static void store_modifiers(struct imap_parser *p, struct store_args *a)
{
    do {
        if (!tb_slice_ieq(imap_word(p), TB_SLICE("UNCHANGEDSINCE")))
            imap_fail(p, "BAD No such STORE modifier");
        imap_sp(p);
        a->unchangedsince = imap_modseq(p);
        a->conditional = true;
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    imap_sp(p);
}

/* store = "STORE" SP sequence-set [SP "(" store-modifier *(SP store-modifier) ")"] SP store-att-flags */
void imap_parse_store(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct store_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    imap_sequence_set(p, &a->set);
    imap_sp(p);
    a->unchangedsince = UINT64_MAX;
    if (imap_try(p, '('))
        store_modifiers(p, a);
    store_att(p, a);
}

static void store_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct store_args *a = cmd->args;
    (void)s;
    tb_uidset_free(&a->slice);
    tb_uidset_free(&a->modified);
}

/* keyword_bits: names to bits; new ones are made, but not for taking away. */
static enum tb_rc keyword_bits(struct imap_session *s, struct store_args *a)
{
    if (a->flags.keywords_n > TB_KEYWORDS_MAX)
        return TB_LIMIT;
    for (uint32_t i = 0; i < a->flags.keywords_n; i++) {
        uint32_t bit = 0;
        enum tb_rc rc = tb_keyword(s->account, tb_view_mbox(s->view), a->flags.keywords[i], a->mode != TB_FLAGS_REMOVE,
                                   &bit);
        if (rc == TB_OK)
            a->keywords |= 1ull << bit;
        else if (rc == TB_INVALID)
            return TB_LIMIT; /* an atom, but too long for us */
        else if (rc != TB_NOTFOUND || a->mode != TB_FLAGS_REMOVE)
            return rc;
    }
    return TB_OK;
}

/* allowed: leave of the flags what the user's rights let it change; false: nothing is left of what was asked for. */
static bool allowed(const struct imap_session *s, struct store_args *a)
{
    bool asked = a->mode == TB_FLAGS_SET || a->flags.flags != 0 || a->flags.keywords_n > 0;
    a->may = imap_flags_allowed(s->rights);
    a->may_keywords = s->rights & TB_RIGHT_WRITE;
    a->flags.flags &= a->may;
    if (!a->may_keywords)
        a->flags.keywords_n = 0;
    if (a->mode == TB_FLAGS_SET)
        return a->may != 0;
    return !asked || a->flags.flags != 0 || a->flags.keywords_n > 0;
}

/* update: the slice's flags. Where not all may be set, those that may are given and the others of them taken away. */
static enum tb_rc update(struct imap_session *s, struct store_args *a)
{
    const uint16_t all = imap_flags_allowed(TB_RIGHTS_ALL);
    if (a->mode != TB_FLAGS_SET || a->may == all)
        return tb_flags_update(s->view, &a->slice, a->mode, a->flags.flags, a->keywords, a->unchangedsince,
                               &a->modified);
    enum tb_rc rc = tb_flags_update(s->view, &a->slice, TB_FLAGS_ADD, a->flags.flags, a->keywords, a->unchangedsince,
                                    &a->modified);
    for (size_t i = 0; i < a->modified.n; i++)
        tb_uidset_remove(&a->slice, a->modified.v[i].first, a->modified.v[i].last);
    if (rc != TB_OK)
        return rc;
    return tb_flags_update(s->view, &a->slice, TB_FLAGS_REMOVE, (uint16_t)(a->may & ~a->flags.flags),
                           a->may_keywords ? ~a->keywords : 0, UINT64_MAX, NULL);
}

static enum imap_run store_start(struct imap_session *s, struct imap_cmd *cmd, struct store_args *a)
{
    cmd->cleanup = store_cleanup;
    tb_uidset_init(&a->slice);
    tb_uidset_init(&a->modified);
    if (a->conditional)
        imap_condstore(s);
    if (s->read_only)
        return imap_reply(cmd, "NO [READ-ONLY] The mailbox was opened with EXAMINE");
    if (!allowed(s, a))
        return imap_reply(cmd, IMAP_NOPERM);
    enum tb_rc rc = imap_set_resolve(s, &a->set, cmd->verb->flags & VERB_UID, &a->uids);
    if (rc == TB_INVALID)
        return imap_reply(cmd, "BAD No such message");
    if (rc == TB_OK)
        rc = imap_limit_keep(s, s->config->imap_message_limit, &a->uids, &a->last);
    if (rc == TB_OK && !imap_walk_init(&a->walk, s, &a->uids))
        rc = TB_LIMIT;
    if (rc == TB_OK)
        rc = keyword_bits(s, a);
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    a->phase = STORE_SLICES;
    return RUN_MORE;
}

/* store_end: MODIFIED names, by the command's own kind of number, what had changed before (RFC 7162 3.1.3). */
static enum imap_run store_end(struct imap_session *s, struct imap_cmd *cmd, struct store_args *a)
{
    bool uid = cmd->verb->flags & VERB_UID, gone = a->walk.gone && !a->silent && !uid;
    const char *text = gone ? "Some messages were expunged meanwhile" : "STORE completed";
    struct tb_uidset seqnos;
    struct tb_buf b;
    if (a->last > 0 && a->modified.n == 0 && !gone)
        return imap_limit_reply(s, cmd, true, s->config->imap_message_limit, a->last, "STORE completed in part");
    if (a->last > 0)
        imap_limit_tell(s, s->config->imap_message_limit, a->last);
    if (a->modified.n == 0 && gone)
        return imap_reply(cmd, "NO [EXPUNGEISSUED] Some messages were expunged meanwhile");
    if (a->modified.n == 0)
        return imap_reply(cmd, "OK STORE completed");
    tb_uidset_init(&seqnos);
    for (size_t i = 0; !uid && i < a->modified.n; i++) {
        const struct tb_range *r = &a->modified.v[i]; /* neighbours in UID are neighbours in the view */
        uint32_t first = tb_view_seqno(s->view, r->first);
        if (first > 0)
            tb_uidset_add(&seqnos, first, first + (r->last - r->first));
    }
    tb_buf_init(&b, 16 << 20);
    tb_buf_str(&b, gone ? "NO [MODIFIED " : "OK [MODIFIED ");
    tb_uidset_write(uid ? &a->modified : &seqnos, &b);
    tb_buf_str(&b, "] ");
    tb_buf_str(&b, gone ? text : "Some had changed, the others are done");
    b.failed = b.failed || seqnos.failed || a->modified.failed;
    tb_uidset_free(&seqnos);
    if (b.failed) {
        tb_buf_free(&b);
        return imap_reply(cmd, "NO [LIMIT] Some had changed, too many to name");
    }
    return imap_reply_buf(s, cmd, &b);
}

/* store_slice: change the next slice's flags. RUN_MORE: its rows come next; RUN_DONE: it was the last. */
static enum imap_run store_slice(struct imap_session *s, struct imap_cmd *cmd, struct store_args *a, uint8_t how)
{
    uint32_t seqno;
    const struct tb_row *row;
    if (a->end)
        return store_end(s, cmd, a);
    if (!imap_settle(s, how))
        return RUN_WAIT;
    tb_uidset_clear(&a->slice);
    uint32_t n = 0;
    for (; n < STORE_SLICE && (row = imap_walk_next(&a->walk, &seqno)); n++)
        tb_uidset_add(&a->slice, row->uid, row->uid);
    a->end = n < STORE_SLICE;
    if (n == 0)
        return RUN_MORE;
    enum tb_rc rc = a->slice.failed ? TB_LIMIT : update(s, a);
    if (rc != TB_OK && rc != TB_NOTFOUND)
        return imap_reply_rc(cmd, rc);
    (void)imap_sync(s, how | SYNC_NO_FLAGS); /* nothing of it can pause but flags */
    if (s->gone || (a->silent && !(s->enabled & IMAP_CONDSTORE)))
        return imap_yield(s);
    for (size_t i = 0; i < a->modified.n; i++) /* they are named in MODIFIED */
        tb_uidset_remove(&a->slice, a->modified.v[i].first, a->modified.v[i].last);
    if (!a->names && !(a->names = tb_arena_alloc(&s->arena, sizeof *a->names)))
        return imap_reply_rc(cmd, TB_LIMIT);
    if (imap_keywords_load(s, &s->arena, a->names) != TB_OK || !imap_walk_init(&a->rows, s, &a->slice))
        return imap_reply_rc(cmd, TB_LIMIT);
    a->phase = STORE_ROWS;
    return RUN_MORE;
}

static enum imap_run store_rows(struct imap_session *s, struct imap_cmd *cmd, struct store_args *a)
{
    for (int turn = 0; turn < IMAP_BATCH; turn++) {
        uint32_t seqno;
        const struct tb_row *row = imap_walk_next(&a->rows, &seqno);
        uint8_t what = (a->silent ? 0 : TELL_FLAGS) | (cmd->verb->flags & VERB_UID ? TELL_UID : 0);
        if (!row || !imap_put_flags(s, seqno, row, a->names, what)) {
            a->phase = STORE_SLICES;
            break;
        }
    }
    return RUN_MORE;
}

enum imap_run imap_run_store(struct imap_session *s, struct imap_cmd *cmd)
{
    struct store_args *a = cmd->args;
    uint8_t how = cmd->verb->flags & VERB_UID ? SYNC_UID : 0;
    switch (a->phase) {
    case STORE_START:
        return store_start(s, cmd, a);
    case STORE_SLICES:
        return store_slice(s, cmd, a, how);
    case STORE_ROWS:
        return store_rows(s, cmd, a);
    }
    return RUN_DONE;
}
