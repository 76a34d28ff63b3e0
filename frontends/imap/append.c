/*
 * append.c: APPEND and REPLACE: everything is decided before a message is asked for ("+"), then its bytes go from the
 * connection's input straight into a delivery; they are never held whole.
 *
 *   FIND ──> STEPS ── a literal ──> DATA ──> TEXT ──> STEPS ... ── the command's end ──> COMMIT ──> answer
 *              └── what was refused: the rest is read to its end, or not sent at all ──> REFUSED
 *
 * Several messages, and the one that REPLACE takes away, are a batch of the store: all or nothing, in one frame.
 *
 * Invariants
 * A1 OK is said only after the commit said durable; any other end stores nothing (RFC 3501 6.3.11, 3502: all or
 * nothing).
 * A2 a refused literal that comes unasked ("{n+}") is swallowed, never read as commands, and so is what follows it; one
 * over the size limit ends the connection instead (RFC 7888 4).
 * A3 the message is stored byte for byte; NUL is refused: no literal may hold it (RFC 3501 9 CHAR8), and what a
 * literal8 brings has to come back by BODY[] too, which would need another transfer encoding (RFC 3516 4.4, 6).
 * A4 struct append outlives the session while a commit is in flight (I4).
 *
 * Thread: the connection's owner. RFC 3501 6.3.11; 4315 3 (APPENDUID); 7889 4 (TOOBIG); 3502 6.3.11 (an empty message:
 * NO); 4469 3, 4 (CATENATE); 8508 3, 4 (REPLACE).
 */
#include "imap_session.h"

#include <tambo/delivery.h>
#include <tambo/quota.h>

#include <stdlib.h>

enum append_phase { APPEND_FIND, APPEND_STEPS, APPEND_ROOM, APPEND_DATA, APPEND_TEXT, APPEND_COMMIT, APPEND_REFUSED };
enum {
    TARGETS_BYTES_MAX = 1 << 20, /* of all messages: what is to be known of them but their bytes */
    URL_TOLD_MAX = 1000          /* bytes of a bad URL that are told */
};

struct message { /* append's arena */
    struct message *next;
    struct tb_delivery_target target;
};

struct append {
    struct imap_session *s;       /* borrowed; NULL: the connection is gone */
    struct tb_delivery *delivery; /* owned; NULL: refused, or handed over */
    struct tb_batch *batch;       /* owned; NULL: none (yet), or handed to its commit */
    struct imap_source *source;   /* owned: the URL under way */
    struct imap_errand *find;     /* owned: the mailbox, and what may be done there */
    struct message *first, *last;
    uint32_t count; /* messages begun */
    struct tb_op op;
    struct tb_arena arena;         /* what targets borrow */
    struct tb_arena text;          /* of the present text */
    struct imap_append_step *step; /* the next; in text, or the command's arena */
    uint8_t where;                 /* append_parse.c's */
    uint64_t size, total;          /* bytes of the message under way so far; of those before it */
    struct imap_literal literal;   /* that ends the present text */
    uint64_t left;                 /* literal bytes still to come */
    struct tb_slice piece;         /* of the URL: still to be written; the source's */
    uint32_t replaced;             /* UID; 0: nothing is replaced */
    uint64_t replaced_bytes;       /* that make room; 0: not in the same account */
    enum append_phase phase;
    bool busy;           /* op is in flight */
    bool writing;        /* ... for a delivery that is ours still */
    bool begun;          /* the session's part of the work has */
    bool text_ended;     /* by the command's CRLF */
    bool coming;         /* the literal's bytes are on their way */
    bool pending;        /* ... are not, before they are asked for */
    bool nul, nul8;      /* one was in a literal; in a literal8 */
    const char *refusal; /* static, or arena: what to answer instead of storing */
};

static void append_free(struct append *a)
{
    if (a->delivery)
        tb_delivery_abort(a->delivery);
    tb_batch_abort(a->batch);
    imap_source_end(a->source);
    imap_errand_end(a->find);
    tb_arena_free(&a->arena);
    tb_arena_free(&a->text);
    free(a);
}

static void append_done(struct tb_op *op)
{
    struct append *a = op->user;
    a->busy = a->writing = false;
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
    if (a && a->busy && !a->writing) {
        imap_source_end(a->source);
        imap_errand_end(a->find);
        a->source = NULL;
        a->find = NULL;
        a->s = NULL; /* its batch or commit still runs: append_done frees it */
    } else if (a) {
        append_free(a);
    }
}

static void await(struct append *a)
{
    a->busy = true;
    a->op = (struct tb_op){.done = append_done, .user = a};
}

/* swallow: after a refusal: what is on its way is still read. */
static void swallow(struct append *a)
{
    a->phase = a->coming ? APPEND_DATA : a->pending || a->text_ended ? APPEND_REFUSED : APPEND_TEXT;
    if (!a->coming || a->literal.sync || a->left <= a->s->config->message_bytes_max)
        return;
    a->phase = APPEND_REFUSED;
    a->s->farewell = "[TOOBIG] Message too large";
}

/* refuse: nothing is stored. */
static void refuse(struct append *a, const char *refusal)
{
    if (a->refusal)
        return;
    if (a->delivery)
        tb_delivery_abort(a->delivery);
    tb_batch_abort(a->batch);
    imap_source_end(a->source);
    a->delivery = NULL;
    a->batch = NULL;
    a->source = NULL;
    a->piece = (struct tb_slice){0};
    a->refusal = refusal;
    swallow(a);
}

/* refuse_url: RFC 4469 4.1: the code names it. */
static void refuse_url(struct append *a, struct tb_slice url)
{
    static const char head[] = "NO [BADURL ", tail[] = "] It names nothing that can be read";
    char *text = tb_arena_alloc(&a->arena, sizeof head + sizeof tail + URL_TOLD_MAX), *p = text;
    url = tb_slice_sub(url, 0, URL_TOLD_MAX);
    if (!text) {
        refuse(a, "NO A URL names nothing that can be read");
        return;
    }
    p = imap_fmt(p, head, sizeof head - 1);
    for (size_t i = 0; i < url.len; i++) {
        uint8_t c = (uint8_t)url.ptr[i];
        *p++ = c == ']' || c < 0x20 || c >= 0x7f ? '?' : url.ptr[i]; /* url-resp-text */
    }
    memcpy(p, tail, sizeof tail);
    refuse(a, text);
}

/* over_limit: RFC 9738 3: the code tells how many there may be. NULL: one more may come. */
static const char *over_limit(struct imap_session *s, struct append *a)
{
    uint32_t limit = s->config->imap_message_limit ? s->config->imap_message_limit : s->config->imap_save_limit;
    if (limit == 0 || a->count < limit)
        return a->count < TB_BATCH_MAX ? NULL : "NO [LIMIT] Too many messages in one command";
    static const char tail[] = "] Too many messages in one command";
    char *text = tb_arena_alloc(&a->arena, 64 + sizeof tail), *p = text;
    if (!text)
        return "NO [LIMIT] Too many messages in one command";
    p = IMAP_FMT(p, "NO [MESSAGELIMIT ");
    p = imap_fmt_u64(p, limit);
    memcpy(p, tail, sizeof tail);
    return text;
}

/* ---- where to ---- */

static void work_find(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (e->own) {
        e->rights = TB_RIGHTS_ALL;
        e->rc = tb_mailbox_find(a, e->name, &e->arena, &e->mailbox);
    } else {
        (void)imap_errand_find(e, a, TB_RIGHT_INSERT);
    }
    e->full = e->rc == TB_OK && tb_quota_room(a, e->count, e->size) == TB_OVERQUOTA;
}

static void work_room(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    e->full = tb_quota_room(a, e->count, e->size) == TB_OVERQUOTA;
}

/* ask: will all that came and is announced fit? RFC 8508 3.4: what is replaced makes room. */
static void ask(struct imap_session *s, struct append *a,
                void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *acct))
{
    uint64_t size = a->total + a->size + a->left;
    bool room = a->replaced_bytes > 0;
    a->find->size = size > a->replaced_bytes ? size - a->replaced_bytes : 0;
    a->find->count = room ? 0 : a->count > 0 ? a->count : 1;
    imap_errand_start(s, a->find, work);
}

/* to_replace: which message REPLACE takes away. NULL, or the refusal. */
static const char *to_replace(struct imap_session *s, struct append *a, const struct imap_append_args *args)
{
    enum { NEED = TB_RIGHT_DELETE | TB_RIGHT_EXPUNGE };
    struct tb_row row;
    bool uid = s->cmd.verb->flags & VERB_UID;
    uint32_t n = args->number;
    if (n == 0)
        n = uid ? tb_view_uid_max(s->view) : tb_view_count(s->view);
    if (n == 0 || (!uid && n > tb_view_count(s->view)))
        return "BAD No such message";
    if (s->read_only)
        return "NO [READ-ONLY] The mailbox was opened with EXAMINE";
    if ((s->rights & NEED) != NEED)
        return IMAP_NOPERM;
    a->replaced = uid ? n : tb_view_uid(s->view, n);
    if (tb_view_seqno(s->view, a->replaced) == 0)
        return "NO [NONEXISTENT] No such message";
    if (tb_view_row(s->view, a->replaced, &row) != TB_OK)
        return "NO [EXPUNGEISSUED] The message is gone";
    a->replaced_bytes = row.size;
    return NULL;
}

/* begin: what the session has to say before it is asked where the messages go. */
static void begin(struct imap_session *s, struct append *a, const struct imap_append_args *args)
{
    struct imap_place where;
    const char *refusal = args->single ? to_replace(s, a, args) : NULL;
    a->begun = true;
    a->step = args->first;
    a->where = args->where;
    if (!refusal && !imap_locate(s, args->mailbox, &where))
        refusal = "NO [TRYCREATE] No such mailbox";
    if (!refusal && !(a->find = imap_errand_new(s, &where)))
        refusal = "NO [UNAVAILABLE] Out of memory, try later";
    if (refusal) {
        refuse(a, refusal);
        return;
    }
    if (where.id.acct != s->seat.acct)
        a->replaced_bytes = 0; /* the room is another account's */
    ask(s, a, work_find);
}

/* found: what the errand brought. NULL: messages may come. */
static const char *found(const struct append *a)
{
    const struct imap_errand *e = a->find;
    enum tb_rc rc = e->rc;
    if (e->refusal)
        return e->refusal;
    if (rc == TB_NOTFOUND || (rc == TB_OK && !e->mailbox.selectable))
        return "NO [TRYCREATE] No such mailbox";
    if (rc == TB_IO)
        return "NO [UNAVAILABLE] Storage trouble, try later";
    return rc == TB_OK ? NULL : "NO [CANNOT] Not a mailbox";
}

/* ---- messages ---- */

/* copy_keywords: into a's own arena. */
static bool copy_keywords(struct append *a, struct tb_delivery_target *t, const struct imap_flags *flags)
{
    struct tb_slice *v = tb_arena_alloc(&a->arena, (flags->keywords_n + 1) * sizeof *v);
    for (uint32_t i = 0; v && i < flags->keywords_n; i++)
        v[i] = tb_arena_copy(&a->arena, flags->keywords[i]);
    t->keywords = v;
    t->keywords_n = flags->keywords_n;
    return v && !a->arena.overflowed;
}

/* message_begin: a delivery for it. NULL, or the refusal. */
static const char *message_begin(struct imap_session *s, struct append *a, const struct imap_append_step *x)
{
    const struct imap_errand *e = a->find;
    struct tb_worker *w = tb_conn_worker(s->conn);
    struct message *m = tb_arena_alloc(&a->arena, sizeof *m);
    if (x->utf8 && !s->out.utf8)
        return "NO [CANNOT] ENABLE UTF8=ACCEPT first"; /* RFC 6855 4 */
    for (uint32_t i = 0; i < x->flags.keywords_n; i++) {
        if (x->flags.keywords[i].len > TB_KEYWORD_NAME_MAX)
            return "NO [LIMIT] Keyword too long";
    }
    const char *limited = over_limit(s, a);
    if (limited || !m)
        return limited ? limited : "NO [LIMIT] Too much for one command";
    *m = (struct message){.target = {.id = e->id, .mbox = e->mailbox.mbox, .is_append = true}};
    struct tb_delivery_target *t = &m->target;
    if (x->flags.keywords_n > TB_KEYWORDS_MAX || !copy_keywords(a, t, &x->flags))
        return "NO [LIMIT] Too many keywords";
    t->flags = x->flags.flags & imap_flags_allowed(e->rights); /* RFC 4314 4 */
    if (!(e->rights & TB_RIGHT_WRITE))
        t->keywords_n = 0;
    t->internaldate = x->has_date ? x->internaldate : tb_io_wall_s(tb_worker_io(w));
    if (tb_delivery_begin(w, s->config->message_bytes_max, &a->delivery) != TB_OK) {
        a->delivery = NULL;
        return "NO [UNAVAILABLE] Out of memory, try later";
    }
    *(a->last ? &a->last->next : &a->first) = m;
    a->last = m;
    a->count++;
    a->total += a->size;
    a->size = 0;
    return tb_delivery_add(a->delivery, t) == TB_OK ? NULL : "NO [UNAVAILABLE] Out of memory, try later";
}

/* keep: the message under way is whole: into the batch. */
static void keep(struct append *a)
{
    struct tb_delivery *d = a->delivery;
    if (a->size == 0)
        refuse(a, "NO Nothing to append");
    else if (!a->batch && tb_batch_begin(tb_conn_worker(a->s->conn), a->find->id.shard, &a->batch) != TB_OK)
        refuse(a, "NO [UNAVAILABLE] Out of memory, try later");
    if (a->refusal)
        return;
    a->delivery = NULL;
    await(a);
    tb_batch_add(a->batch, d, &a->op);
}

/* atomic: can what is replaced go in the frame of what takes its place? */
static bool atomic(const struct append *a)
{
    return a->replaced != 0 && a->s->seat.shard == a->find->id.shard;
}

/* commit: no message is missing any more. */
static void commit(struct append *a)
{
    struct tb_delivery *d = a->delivery;
    struct tb_batch *b = a->batch;
    if (d && a->size == 0) {
        refuse(a, "NO Nothing to append");
        return;
    }
    if (d && (b || atomic(a))) {
        keep(a);
        return;
    }
    if (b && atomic(a))
        tb_batch_replace(b, a->s->seat, tb_view_mbox(a->s->view), a->replaced);
    a->phase = APPEND_COMMIT;
    a->delivery = NULL;
    a->batch = NULL;
    await(a);
    if (b)
        tb_batch_commit(b, &a->op);
    else
        tb_delivery_commit(d, true, &a->op);
}

/* url_bytes: of what a URL names, into the message. */
static void url_bytes(struct append *a)
{
    enum { WRITE_MAX = 256 << 10 };
    struct tb_slice now = tb_slice_sub(a->piece, 0, WRITE_MAX);
    a->piece = tb_slice_sub(a->piece, now.len, SIZE_MAX);
    if (memchr(now.ptr, '\0', now.len)) {
        refuse(a, "NO [UNKNOWN-CTE] NUL in a message is not stored here");
        return;
    }
    await(a);
    a->busy = a->writing = !tb_delivery_write(a->delivery, now, &a->op);
}

/* url_on: the next of what a URL names. */
static enum imap_run url_on(struct imap_session *s, struct append *a)
{
    uint64_t size;
    enum tb_rc rc;
    if (!a->source && !(a->source = imap_source_new(s, a->step->url))) {
        refuse(a, "NO [UNAVAILABLE] Out of memory, try later");
        return RUN_MORE;
    }
    if (a->piece.len > 0) {
        url_bytes(a);
        return RUN_MORE;
    }
    switch (imap_source_next(a->source, &a->piece, &size, &rc)) {
    case SOURCE_WAIT:
        return RUN_WAIT;
    case SOURCE_SIZE:
        if (size > s->config->message_bytes_max - a->size)
            refuse(a, "NO [TOOBIG] Message too large");
        else
            a->size += size;
        break;
    case SOURCE_BYTES:
        break;
    case SOURCE_END:
        imap_source_end(a->source);
        a->source = NULL;
        a->step = a->step->next;
        break;
    case SOURCE_BAD:
        if (rc == TB_OK)
            refuse_url(a, a->step->url);
        else
            refuse(a, rc == TB_CORRUPT ? "NO [SERVERBUG] Stored data is damaged"
                                       : "NO [UNAVAILABLE] Storage trouble, try later");
        break;
    }
    return RUN_MORE;
}

/* literal_begin: the last step of a text: its literal may come, if there is room. */
static void literal_begin(struct imap_session *s, struct append *a)
{
    if (a->left > s->config->message_bytes_max - a->size)
        refuse(a, "NO [TOOBIG] Message too large");
    else if (a->left == 0 && !a->step->part)
        refuse(a, "NO Nothing to append");
    if (a->refusal)
        return;
    a->phase = APPEND_ROOM;
    if (a->count > 1 || a->size > 0) /* else it was asked with the mailbox */
        ask(s, a, work_room);
}

static void room_known(struct imap_session *s, struct append *a)
{
    if (a->find->rc != TB_OK)
        refuse(a, "NO [UNAVAILABLE] Storage trouble, try later");
    else if (a->find->full)
        refuse(a, "NO [OVERQUOTA] Over quota");
    if (a->refusal)
        return;
    if (a->literal.sync)
        imap_puts(&s->out, "+ OK\r\n");
    a->coming = true;
    a->pending = false;
    a->phase = APPEND_DATA;
}

static enum imap_run steps(struct imap_session *s, struct append *a)
{
    const char *refusal;
    struct imap_append_step *x = a->step;
    if (a->op.rc != TB_OK) { /* of what was kept last */
        refuse(a, a->op.rc == TB_LIMIT     ? "NO [LIMIT] Too much for one command"
                  : a->op.rc == TB_NOSPACE ? "NO [UNAVAILABLE] No space left, try later"
                                           : "NO [UNAVAILABLE] Storage trouble, try later");
        return RUN_MORE;
    }
    switch (x->what) {
    case APPEND_NEXT:
        if (a->delivery) {
            keep(a);
            return RUN_MORE;
        }
        if ((refusal = message_begin(s, a, x)))
            refuse(a, refusal);
        a->step = x->next;
        return RUN_MORE;
    case APPEND_URL:
        return url_on(s, a);
    case APPEND_BYTES:
        literal_begin(s, a);
        return RUN_MORE;
    case APPEND_END:
        commit(a);
        return RUN_MORE;
    }
    return RUN_MORE;
}

/* ---- what comes ---- */

/* take_data: what has come of the literal, into the delivery. */
static enum imap_run take_data(struct imap_session *s, struct append *a)
{
    struct tb_slice in = tb_conn_input(s->conn);
    if (a->left > 0 && in.len == 0)
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    in = tb_slice_sub(in, 0, a->left < in.len ? (size_t)a->left : in.len);
    a->left -= in.len;
    a->size += in.len;
    bool nul = in.len > 0 && memchr(in.ptr, '\0', in.len) != NULL;
    a->nul |= nul;
    a->nul8 |= nul && a->literal.literal8;
    if (a->delivery && in.len > 0) {
        await(a);
        a->busy = a->writing = !tb_delivery_write(a->delivery, in, &a->op);
    }
    tb_conn_consume(s->conn, in.len);
    if (a->left > 0)
        return a->busy ? RUN_WAIT : RUN_MORE;
    a->coming = false;
    a->phase = APPEND_TEXT;
    return a->busy ? RUN_WAIT : RUN_MORE;
}

/* parse_text: what stands behind the literal. NULL, or what is wrong. *argument: it ends in a literal that belongs to
 * it. */
static const char *parse_text(struct imap_session *s, struct append *a, struct tb_slice text, bool single,
                              bool *argument)
{
    struct imap_parser p;
    uint8_t where = a->where;
    *argument = false;
    tb_arena_reset(&a->text);
    text = tb_arena_copy(&a->text, text);
    if (!text.ptr)
        return "NO [UNAVAILABLE] Out of memory, try later";
    imap_parser_init(&p, text, &a->text);
    p.utf8 = s->out.utf8;
    struct imap_append_step *first = imap_append_more(&p, &where, single);
    *argument = p.failed && p.cut;
    if (p.failed)
        return p.error;
    a->where = where;
    a->step = first;
    return NULL;
}

/* text_end: the text is taken; what now? */
static void text_end(struct imap_session *s, struct append *a, const struct imap_literal *l, const char *wrong)
{
    tb_conn_consume(s->conn, s->frame.scanned);
    tb_conn_input_max(s->conn, IMAP_LINE_MAX + 4096);
    s->frame = (struct imap_frame){0};
    a->text_ended = !l;
    a->literal = l ? *l : (struct imap_literal){0};
    a->left = a->literal.size;
    a->coming = l && !l->sync;
    a->pending = l && l->sync;
    a->phase = APPEND_STEPS;
    if (a->refusal)
        swallow(a);
    else if (a->nul)
        refuse(a, a->nul8 ? "NO [UNKNOWN-CTE] NUL in a message is not stored here" : "BAD NUL in a literal");
    else if (wrong)
        refuse(a, wrong);
}

/* take_text: what stands behind a literal, to the next one's head or to the end of the command. */
static enum imap_run take_text(struct imap_session *s, struct append *a, bool single)
{
    static const struct imap_frame_limits limits = {IMAP_LINE_MAX, IMAP_LITERAL_BYTES_MAX, IMAP_LITERALS_MAX,
                                                    UINT32_MAX};
    struct imap_literal l;
    struct tb_slice in = tb_conn_input(s->conn);
    const char *wrong = NULL;
    bool argument;
    enum imap_frame_result r = imap_frame_next(&s->frame, &limits, in, &l);
    in = tb_slice_sub(in, 0, s->frame.scanned);
    switch (r) {
    case FRAME_MORE:
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    case FRAME_BARE:
        text_end(s, a, NULL, "BAD Lines end in CRLF");
        break;
    case FRAME_LONG:
        s->farewell = "Lost track of the command";
        text_end(s, a, NULL, "BAD Command line too long");
        break;
    case FRAME_COMMAND:
        wrong = a->refusal ? NULL : parse_text(s, a, in, single, &argument);
        text_end(s, a, NULL, wrong);
        break;
    case FRAME_LITERAL:
        wrong = a->refusal ? NULL : parse_text(s, a, in, single, &argument);
        if (wrong && argument && !l.over && !l.literal8) {
            imap_frame_literal(&s->frame, &l);
            tb_conn_input_max(s->conn, s->frame.scanned + (size_t)l.size + IMAP_LINE_MAX + 4096);
            if (l.sync)
                imap_puts(&s->out, "+ OK\r\n");
            break;
        }
        text_end(s, a, &l, wrong);
        break;
    }
    return RUN_MORE;
}

/* ---- the end ---- */

/* appenduid: resp-code-apnd with a set for several (RFC 4315 4, 3502). */
static void appenduid(struct imap_session *s, struct tb_buf *b, const struct append *a)
{
    struct tb_uidset uids;
    const struct tb_delivery_target *t = &a->first->target;
    tb_uidset_init(&uids);
    for (const struct message *m = a->first; m; m = m->next)
        tb_uidset_add(&uids, m->target.uid, m->target.uid);
    imap_notify_own(s, t->id.acct, t->mbox, &uids);
    tb_buf_str(b, "OK ");
    if (a->find->rights & TB_RIGHT_READ) { /* who may not read there learns no UIDs: RFC 4315 3, RFC 9051 6.3.12 */
        tb_buf_str(b, "[APPENDUID ");
        tb_buf_u64(b, t->uidvalidity);
        tb_buf_char(b, ' ');
        tb_uidset_write(&uids, b);
        tb_buf_str(b, "] ");
    }
    b->failed |= uids.failed;
    tb_uidset_free(&uids);
}

/* replaced: the new message is there, and the old one is gone with it, or goes now. RFC 8508 4.3: APPENDUID untagged.
 */
static enum imap_run replaced(struct imap_session *s, struct imap_cmd *cmd, struct append *a, struct tb_buf *b)
{
    struct tb_uidset old;
    enum tb_rc rc = TB_OK;
    if (!b->failed) {
        imap_puts(&s->out, "* ");
        imap_put(&s->out, tb_buf_all(b));
        imap_puts(&s->out, "Replacement message ready\r\n");
    }
    tb_buf_free(b);
    if (!atomic(a)) { /* it came to another shard: it is durable there, and only now the old one goes */
        tb_uidset_init(&old);
        tb_uidset_add(&old, a->replaced, a->replaced);
        rc = old.failed ? TB_LIMIT : tb_delete(s->view, &old);
        tb_uidset_free(&old);
    }
    if (rc != TB_OK)
        return imap_reply(cmd, "NO [UNAVAILABLE] The new message is stored, but the old one could not be removed");
    return imap_reply_modseq(s, cmd, "REPLACE completed");
}

static enum imap_run answer(struct imap_session *s, struct imap_cmd *cmd, struct append *a)
{
    const struct imap_append_args *args = cmd->args;
    enum tb_rc rc = a->op.rc;
    struct tb_buf b;
    if (rc == TB_NOTFOUND)
        return imap_reply(cmd, "NO [TRYCREATE] No such mailbox");
    if (rc == TB_CONFLICT && a->replaced != 0)
        return imap_reply(cmd, "NO [EXPUNGEISSUED] The message is gone");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    if (s->enabled & IMAP_REV2 && !tb_slice_eq(args->mailbox, args->given))
        imap_put_list(s, &a->find->mailbox, args->mailbox, args->given); /* RFC 9051 6.3.12 */
    tb_buf_init(&b, 64 << 10);
    appenduid(s, &b, a);
    if (a->replaced != 0)
        return replaced(s, cmd, a, &b);
    tb_buf_str(&b, "APPEND completed");
    return imap_reply_buf(s, cmd, &b);
}

static struct append *append_new(struct imap_session *s, struct imap_cmd *cmd)
{
    struct append *a = calloc(1, sizeof *a);
    cmd->state = a;
    cmd->cleanup = append_cleanup;
    if (!a)
        return NULL;
    a->s = s;
    tb_arena_init(&a->arena, TARGETS_BYTES_MAX);
    tb_arena_init(&a->text, IMAP_ARENA_MAX);
    return a;
}

void imap_append_begin(struct imap_session *s, struct imap_cmd *cmd, const struct imap_literal *l, const char *refusal)
{
    struct append *a = append_new(s, cmd);
    if (!a) {
        s->farewell = l->sync ? NULL : "[UNAVAILABLE] Out of memory";
        return;
    }
    a->literal = *l;
    a->left = l->size;
    a->coming = !l->sync;
    a->pending = l->sync;
    if (refusal)
        refuse(a, refusal);
}

enum imap_run imap_run_append(struct imap_session *s, struct imap_cmd *cmd)
{
    struct append *a = cmd->state;
    const struct imap_append_args *args = cmd->args;
    const char *refusal;
    if (!a && !cmd->cleanup && (a = append_new(s, cmd)))
        a->text_ended = true; /* URLs alone */
    if (!a)
        return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
    if (a->busy)
        return RUN_WAIT;
    if (!a->begun && !a->refusal)
        begin(s, a, args);
    switch (a->phase) {
    case APPEND_FIND:
        if (a->find->busy)
            return RUN_WAIT;
        a->phase = APPEND_STEPS;
        if ((refusal = found(a)))
            refuse(a, refusal);
        return RUN_MORE;
    case APPEND_STEPS:
        return steps(s, a);
    case APPEND_ROOM:
        if (a->find->busy)
            return RUN_WAIT;
        room_known(s, a);
        return RUN_MORE;
    case APPEND_DATA:
        return take_data(s, a);
    case APPEND_TEXT:
        return take_text(s, a, args && args->single);
    case APPEND_COMMIT:
        return answer(s, cmd, a);
    case APPEND_REFUSED:
        return imap_reply(cmd, a->refusal);
    }
    return RUN_DONE;
}

enum imap_run imap_run_replace(struct imap_session *s, struct imap_cmd *cmd)
{
    return imap_run_append(s, cmd);
}
