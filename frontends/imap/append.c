/*
 * append.c: APPEND: everything is decided before the message is asked for ("+"), then its bytes go from the
 * connection's input straight into a delivery; they are never held whole.
 *
 * Invariants
 * A1 OK is said only after the delivery's commit said durable; any other end stores nothing (RFC 3501 6.3.11:
 * all or nothing).
 * A2 a refused literal that comes unasked ("{n+}") is swallowed, never read as commands; one over the size
 *    limit ends the connection instead (RFC 7888 4).
 * A3 the message is stored byte for byte; NUL is refused: no literal may hold it (RFC 3501 9 CHAR8), and what a
 * literal8 brings has to come back by BODY[] too, which would need another transfer encoding (RFC 3516 4.4, 6). A4
 * struct append outlives the session while a commit is in flight (I4). Thread: the connection's owner. RFC 3501 6.3.11;
 * 4315 3 (APPENDUID); 7889 4 (TOOBIG); 3502 6.3.11 (an empty message: NO).
 */
#include "imap_session.h"

#include <tambo/delivery.h>
#include <tambo/quota.h>

#include <stdlib.h>

enum append_phase { APPEND_FIND, APPEND_DATA, APPEND_TAIL, APPEND_COMMIT, APPEND_REFUSED };

struct append {
    struct imap_session *s;       /* borrowed; NULL: the connection is gone */
    struct tb_delivery *delivery; /* owned; NULL: refused, or handed to its commit */
    struct tb_delivery_target target;
    struct imap_errand *find; /* owned: the mailbox, and what may be done there */
    struct tb_op op;
    struct tb_arena arena; /* what target borrows */
    uint64_t left;         /* literal bytes still to come */
    enum append_phase phase;
    bool busy; /* op is in flight */
    bool sync; /* the client waits to be asked for the message */
    bool nul, literal8;
    bool utf8;           /* a ")" follows the literal */
    const char *refusal; /* static; what to answer instead of storing */
};

/* append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP (literal / literal8); the text ends with the literal's
 * head. */
void imap_parse_append(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_append_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    imap_sp(p);
    if (!a)
        return;
    a->mailbox = mailbox;
    a->given = p->given;
    if (imap_at(p, '(')) {
        imap_flag_list(p, &a->flags);
        imap_sp(p);
    }
    if (imap_at(p, '"')) {
        a->internaldate = imap_date_time(p);
        a->has_date = true;
        imap_sp(p);
    }
    struct imap_parser look = *p;
    if (imap_at(p, 'U') || imap_at(p, 'u')) { /* append-data =/ "UTF8" SP "(" literal8 ")" */
        a->utf8 = tb_slice_ieq(imap_word(&look), TB_SLICE("UTF8"));
        imap_sp(&look);
        imap_expect(&look, '(');
        if (!a->utf8 || look.failed || !imap_at(&look, '~'))
            imap_fail(p, "BAD Expected UTF8 and a literal8 in parentheses");
        else
            p->p = look.p;
    }
    (void)imap_try(p, '~');
    if (!p->failed && !imap_at(p, '{'))
        imap_fail(p, "BAD Expected a literal");
    while (p->p < p->end && *p->p != '\n')
        p->p++;
    imap_expect(p, '\n');
}

static void append_free(struct append *a)
{
    if (a->delivery)
        tb_delivery_abort(a->delivery);
    imap_errand_end(a->find);
    tb_arena_free(&a->arena);
    free(a);
}

static void append_done(struct tb_op *op)
{
    struct append *a = op->user;
    a->busy = false;
    if (a->s)
        tb_conn_resume(a->s->conn);
    else
        append_free(a);
}

static void append_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct append *a = cmd->state;
    (void)s;
    cmd->state = NULL;
    if (a && a->busy && !a->delivery)
        a->s = NULL; /* its commit still runs: append_done frees it */
    else if (a)
        append_free(a);
}

/* copy_keywords: into a's own arena. */
static bool copy_keywords(struct append *a, const struct imap_flags *flags)
{
    struct tb_slice *v = tb_arena_alloc(&a->arena, (flags->keywords_n + 1) * sizeof *v);
    for (uint32_t i = 0; v && i < flags->keywords_n; i++)
        v[i] = tb_arena_copy(&a->arena, flags->keywords[i]);
    a->target.keywords = v;
    a->target.keywords_n = flags->keywords_n;
    return v && !a->arena.overflowed;
}

/* prepare: everything that can be said before the message comes. NULL: it may come. */
static const char *prepare(struct imap_session *s, struct append *a, const struct imap_append_args *args, uint64_t size)
{
    const struct imap_errand *e = a->find;
    enum tb_rc rc = e->rc;
    if (e->refusal)
        return e->refusal;
    if (rc == TB_NOTFOUND || (rc == TB_OK && !e->mailbox.selectable))
        return "NO [TRYCREATE] No such mailbox";
    if (rc == TB_IO)
        return "NO [UNAVAILABLE] Storage trouble, try later";
    if (rc != TB_OK)
        return "NO [CANNOT] Not a mailbox";
    if (args->utf8 && !s->out.utf8)
        return "NO [CANNOT] ENABLE UTF8=ACCEPT first"; /* RFC 6855 4 */
    if (size > s->config->message_bytes_max)
        return "NO [TOOBIG] Message too large";
    if (size == 0)
        return "NO Nothing to append";
    if (e->full)
        return "NO [OVERQUOTA] Over quota";
    for (uint32_t i = 0; i < args->flags.keywords_n; i++) {
        if (args->flags.keywords[i].len > TB_KEYWORD_NAME_MAX)
            return "NO [LIMIT] Keyword too long";
    }
    if (args->flags.keywords_n > TB_KEYWORDS_MAX || !copy_keywords(a, &args->flags))
        return "NO [LIMIT] Too many keywords";
    struct tb_worker *w = tb_conn_worker(s->conn);
    a->target.id = e->id;
    a->target.mbox = e->mailbox.mbox;
    a->target.flags = args->flags.flags & imap_flags_allowed(e->rights); /* RFC 4314 4 */
    if (!(e->rights & TB_RIGHT_WRITE))
        a->target.keywords_n = 0;
    a->target.internaldate = args->has_date ? args->internaldate : tb_io_wall_s(tb_worker_io(w));
    a->target.is_append = true;
    if (tb_delivery_begin(w, s->config->message_bytes_max, &a->delivery) != TB_OK) {
        a->delivery = NULL;
        return "NO [UNAVAILABLE] Out of memory, try later";
    }
    return tb_delivery_add(a->delivery, &a->target) == TB_OK ? NULL : "NO [UNAVAILABLE] Out of memory, try later";
}

static void give_up(struct append *a, const char *refusal)
{
    if (a->delivery)
        tb_delivery_abort(a->delivery);
    a->delivery = NULL;
    a->refusal = refusal;
}

static void work_find(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (e->own) {
        e->rights = TB_RIGHTS_ALL;
        e->rc = tb_mailbox_find(a, e->name, &e->arena, &e->mailbox);
    } else {
        (void)imap_errand_find(e, a, TB_RIGHT_INSERT);
    }
    e->full = e->rc == TB_OK && tb_quota_room(a, 1, e->size) == TB_OVERQUOTA;
}

/* answer_literal: ask for the message, or refuse it. */
static void answer_literal(struct imap_session *s, struct append *a, const char *refusal)
{
    a->phase = APPEND_DATA;
    if (refusal)
        give_up(a, refusal);
    if (refusal && a->sync)
        a->phase = APPEND_REFUSED; /* it will not be sent */
    else if (refusal && a->left > s->config->message_bytes_max) {
        a->phase = APPEND_REFUSED;
        s->farewell = "[TOOBIG] Message too large";
    } else if (a->sync) {
        imap_puts(&s->out, "+ OK\r\n");
    }
}

void imap_append_begin(struct imap_session *s, struct imap_cmd *cmd, const struct imap_literal *l, const char *refusal)
{
    const struct imap_append_args *args = cmd->args;
    struct imap_place where;
    struct append *a = calloc(1, sizeof *a);
    cmd->state = a;
    cmd->cleanup = append_cleanup;
    if (!a) {
        s->farewell = l->sync ? NULL : "[UNAVAILABLE] Out of memory";
        return;
    }
    a->s = s;
    a->left = l->size;
    a->literal8 = l->literal8;
    a->utf8 = !refusal && ((const struct imap_append_args *)cmd->args)->utf8;
    tb_arena_init(&a->arena, 64 << 10);
    a->sync = l->sync;
    if (!refusal && !imap_locate(s, args->mailbox, &where))
        refusal = "NO [TRYCREATE] No such mailbox";
    if (!refusal && !(a->find = imap_errand_new(s, &where)))
        refusal = "NO [UNAVAILABLE] Out of memory, try later";
    if (refusal) {
        answer_literal(s, a, refusal);
        return;
    }
    a->find->size = a->left;
    imap_errand_start(s, a->find, work_find);
    if (!a->find->busy)
        answer_literal(s, a, prepare(s, a, args, a->left));
}

/* take_data: what has come of the literal, into the delivery. */
static enum imap_run take_data(struct imap_session *s, struct append *a)
{
    struct tb_slice in = tb_conn_input(s->conn);
    if (a->left > 0 && in.len == 0)
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    in = tb_slice_sub(in, 0, a->left < in.len ? (size_t)a->left : in.len);
    a->left -= in.len;
    a->nul |= in.len > 0 && memchr(in.ptr, '\0', in.len) != NULL;
    if (a->left == 0)
        a->phase = APPEND_TAIL;
    if (a->delivery && in.len > 0) {
        a->op = (struct tb_op){.done = append_done, .user = a};
        a->busy = !tb_delivery_write(a->delivery, in, &a->op);
    }
    tb_conn_consume(s->conn, in.len);
    return a->busy ? RUN_WAIT : RUN_MORE;
}

/* take_tail: the CRLF behind the literal. */
static enum imap_run take_tail(struct imap_session *s, struct imap_cmd *cmd, struct append *a)
{
    static const struct imap_frame_limits limits = {IMAP_LINE_MAX, 0, 0, UINT32_MAX};
    struct imap_literal l;
    enum imap_frame_result r = imap_frame_next(&s->frame, &limits, tb_conn_input(s->conn), &l);
    size_t n = s->frame.scanned;
    if (r == FRAME_MORE)
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    bool whole = r == FRAME_COMMAND && (a->utf8 ? n == 3 && tb_conn_input(s->conn).ptr[0] == ')' : n == 2);
    s->frame = (struct imap_frame){0};
    tb_conn_consume(s->conn, n);
    if (r == FRAME_LONG || (r == FRAME_LITERAL && !l.sync))
        s->farewell = "Lost track of the command";
    if (!whole)
        give_up(a, "BAD Unexpected text after the message");
    else if (a->nul && !a->refusal)
        give_up(a, a->literal8 ? "NO [UNKNOWN-CTE] NUL in a message is not stored here" : "BAD NUL in a literal");
    if (a->refusal)
        return imap_reply(cmd, a->refusal);
    struct tb_delivery *d = a->delivery;
    a->delivery = NULL;
    a->phase = APPEND_COMMIT;
    a->busy = true;
    a->op = (struct tb_op){.done = append_done, .user = a};
    tb_delivery_commit(d, true, &a->op);
    return RUN_WAIT;
}

static enum imap_run answer(struct imap_session *s, struct imap_cmd *cmd, const struct append *a)
{
    enum tb_rc rc = a->target.rc != TB_OK ? a->target.rc : a->op.rc;
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    struct tb_range one = {a->target.uid, a->target.uid};
    const struct tb_uidset own = {.v = &one, .n = 1, .cap = 1};
    imap_notify_own(s, a->target.id.acct, a->target.mbox, &own);
    const struct imap_append_args *args = cmd->args;
    if (s->enabled & IMAP_REV2 && !tb_slice_eq(args->mailbox, args->given))
        imap_put_list(s, &a->find->mailbox, args->mailbox, args->given); /* RFC 9051 6.3.12 */
    struct tb_buf b;
    tb_buf_init(&b, 256);
    tb_buf_str(&b, "OK [APPENDUID ");
    tb_buf_u64(&b, a->target.uidvalidity);
    tb_buf_char(&b, ' ');
    tb_buf_u64(&b, a->target.uid);
    tb_buf_str(&b, "] APPEND completed");
    return imap_reply_buf(s, cmd, &b);
}

enum imap_run imap_run_append(struct imap_session *s, struct imap_cmd *cmd)
{
    struct append *a = cmd->state;
    if (!a)
        return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
    if (a->busy)
        return RUN_WAIT;
    switch (a->phase) {
    case APPEND_FIND:
        if (a->find->busy)
            return RUN_WAIT;
        answer_literal(s, a, prepare(s, a, cmd->args, a->left));
        return RUN_MORE;
    case APPEND_DATA:
        return take_data(s, a);
    case APPEND_TAIL:
        return take_tail(s, cmd, a);
    case APPEND_COMMIT:
        return answer(s, cmd, a);
    case APPEND_REFUSED:
        return imap_reply(cmd, a->refusal);
    }
    return RUN_DONE;
}
