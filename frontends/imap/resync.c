/*
 * resync.c: ENABLE, and what CONDSTORE and QRESYNC change in a session.
 *
 * VANISHED must be exact: one UID too many and a client throws mail away; so it comes from the engine's change log or,
 * below its floor, from what is not there. Thread: the connection's owner; parsing: any. RFC 5161, RFC 7162.
 */
#include "imap_session.h"

/* ---- ENABLE ---- */

struct enable_args {
    uint8_t bits;
};

static const struct {
    const char *name;
    uint8_t bits; /* with what it implies */
} enables[] = {
    {"CONDSTORE", IMAP_CONDSTORE}, {"QRESYNC", IMAP_CONDSTORE | IMAP_QRESYNC}, /* RFC 7162 3.2.3 */
    {"IMAP4rev2", IMAP_REV2},                                                  /* RFC 9051 6.3.1 */
    {"UTF8=ACCEPT", IMAP_UTF8},                                                /* RFC 6855 3 */
    {"UIDONLY", IMAP_UIDONLY},                                                 /* RFC 9586 3.1 */
};

/* enable = "ENABLE" 1*(SP capability); unknown ones are ignored (RFC 5161 3.1) */
void imap_parse_enable(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct enable_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    do {
        struct tb_slice name = imap_atom(p);
        for (size_t i = 0; a && i < TB_ARRAY_LEN(enables); i++)
            if (tb_slice_ieq(name, tb_slice_str(enables[i].name)))
                a->bits |= enables[i].bits;
    } while (!p->failed && imap_try_sp(p));
}

void imap_condstore(struct imap_session *s)
{
    if (!(s->enabled & IMAP_CONDSTORE) && s->view) { /* the client needs a value to begin with */
        imap_puts(&s->out, "* OK [HIGHESTMODSEQ ");
        imap_put_u64(&s->out, tb_view_modseq(s->view));
        imap_puts(&s->out, "] Highest\r\n");
    }
    s->enabled |= IMAP_CONDSTORE;
}

enum imap_run imap_run_enable(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct enable_args *a = cmd->args;
    uint8_t fresh = a->bits & (uint8_t)~s->enabled;
    imap_puts(&s->out, "* ENABLED");
    for (size_t i = 0; i < TB_ARRAY_LEN(enables); i++) {
        if ((enables[i].bits & a->bits) != enables[i].bits || !(enables[i].bits & fresh))
            continue;
        imap_putc(&s->out, ' ');
        imap_puts(&s->out, enables[i].name);
    }
    imap_puts(&s->out, "\r\n");
    if (fresh & IMAP_CONDSTORE)
        imap_condstore(s);
    s->enabled |= a->bits;
    s->out.utf8 = s->enabled & (IMAP_REV2 | IMAP_UTF8);
    return imap_reply(cmd, "OK ENABLE completed");
}

/* ---- modseqs in replies ---- */

uint64_t imap_highestmodseq(struct imap_session *s)
{
    struct tb_mailbox m;
    struct tb_arena arena;
    tb_arena_init(&arena, 64 << 10);
    enum tb_rc rc = tb_mailbox_get(s->account, tb_view_mbox(s->view), &arena, &m);
    tb_arena_free(&arena);
    return rc == TB_OK ? m.highestmodseq : tb_view_modseq(s->view);
}

enum imap_run imap_reply_modseq(struct imap_session *s, struct imap_cmd *cmd, const char *text)
{
    struct tb_buf b;
    tb_buf_init(&b, 256);
    tb_buf_str(&b, "OK ");
    if (s->enabled & IMAP_QRESYNC) {
        tb_buf_str(&b, "[HIGHESTMODSEQ ");
        tb_buf_u64(&b, imap_highestmodseq(s));
        tb_buf_str(&b, "] ");
    }
    tb_buf_str(&b, text);
    return imap_reply_buf(s, cmd, &b);
}

/* ---- VANISHED and what changed ---- */

bool imap_put_vanished(struct imap_session *s, const struct tb_uidset *set, bool earlier, size_t *at)
{
    while (*at < set->n && !s->out.dead) {
        if (imap_put_full(&s->out))
            return false;
        imap_puts(&s->out, earlier ? "* VANISHED (EARLIER) " : "* VANISHED ");
        imap_put_ranges(&s->out, set, at);
        imap_puts(&s->out, "\r\n");
    }
    return true;
}

static enum tb_rc resync_begin(struct imap_session *s, struct imap_resync *r, uint64_t modseq,
                               const struct tb_uidset *known)
{
    enum tb_rc rc = tb_view_since(s->view, modseq, known, true, &r->since);
    r->begun = true;
    r->keywords = tb_arena_alloc(&s->arena, sizeof *r->keywords);
    if (rc == TB_OK)
        rc = r->keywords ? imap_keywords_load(s, &s->arena, r->keywords) : TB_LIMIT;
    if (rc == TB_OK && !imap_walk_init(&r->walk, s, &r->since.changed))
        rc = TB_LIMIT;
    return rc;
}

enum imap_run imap_resync(struct imap_session *s, struct imap_resync *r, uint64_t modseq, const struct tb_uidset *known,
                          enum tb_rc *rc)
{
    if (!r->begun && (*rc = resync_begin(s, r, modseq, known)) != TB_OK)
        return RUN_DONE;
    if (!imap_put_vanished(s, &r->since.vanished, true, &r->at))
        return RUN_WAIT;
    for (int turn = 0; turn < IMAP_BATCH; turn++) {
        uint32_t seqno;
        const struct tb_row *row = imap_walk_next(&r->walk, &seqno);
        if (!row || !imap_put_flags(s, seqno, row, r->keywords, TELL_FLAGS | TELL_UID | TELL_MODSEQ))
            return RUN_DONE;
    }
    return RUN_MORE;
}

void imap_resync_end(struct imap_resync *r)
{
    if (r->begun)
        tb_since_free(&r->since);
    r->begun = false;
}
