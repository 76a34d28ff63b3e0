/*
 * transaction.c: one mail transaction: MAIL, RCPT, then DATA or BDAT, the delivery into the store, and its replies.
 *
 * It must never say 250 for a message before the store's commit said OK, nor store one whose text was refused.
 *
 * Invariants
 *   X1 at most one store op is in flight (tx->busy), and no command is read while it is: replies keep the
 *      commands' order.
 *   X2 LMTP answers the end of a message once for every RCPT that was accepted, in order; SMTP answers it once
 *      (RFC 2033 4.2, 4.3).
 *   X3 a refused message is read to its true end before it is answered, so its text is never taken for commands.
 *   X4 a connection that goes away before the end stores nothing; one that goes away during the commit does not
 *      disturb it.
 * Thread: the connection's worker. RFC 5321 3.3, 4.1.1.2 to .4, RFC 1870, RFC 2033, RFC 3030, RFC 6409 6.1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontends/smtp/internal.h"

/* What an outcome is called: to the client and in the log. One table for the whole frontend. */
struct outcome {
    const char *reply; /* without the recipient and the id */
    const char *word;
};

static const struct outcome stored = {"250 2.0.0 stored", "ok"};

static const struct outcome *outcome_of(enum tb_rc rc)
{
    static const struct outcome unknown = {"550 5.1.1 no such mailbox here", "unknown"},
                                quota = {"452 4.2.2 mailbox over quota", "quota"},
                                nospace = {"452 4.3.1 no space left, try later", "nospace"},
                                busy = {"451 4.3.2 busy, try later", "busy"},
                                failed = {"451 4.3.0 local error, try later", "error"};
    switch (rc) {
    case TB_OK:
        return &stored;
    case TB_NOTFOUND:
        return &unknown;
    case TB_OVERQUOTA:
        return &quota;
    case TB_NOSPACE:
        return &nospace;
    case TB_BUSY:
        return &busy;
    default:
        return &failed;
    }
}

/* outcome_here: as the configuration wants it (setting quota_full). */
static const struct outcome *outcome_here(const struct smtp_session *s, enum tb_rc rc)
{
    static const struct outcome full = {"552 5.2.2 mailbox over quota", "quota"};
    return rc == TB_OVERQUOTA && smtp_config(s)->quota_reject ? &full : outcome_of(rc);
}

static const struct outcome refusals[] = {
    [REFUSED_BARE] = {"550 5.5.2 bare CR or LF in the message", "bare"},
    [REFUSED_LOOP] = {"554 5.4.6 too many Received fields, mail loop", "loop"},
    [REFUSED_SIZE] = {"552 5.3.4 message too big", "size"},
};

/* ---- the object ---- */

static void free_transaction(struct smtp_transaction *tx)
{
    tb_arena_free(&tx->arena);
    tb_buf_free(&tx->trace);
    free(tx);
}

static bool make_transaction(struct smtp_session *s)
{
    if (s->tx)
        return true;
    struct smtp_transaction *tx = calloc(1, sizeof(*tx));
    if (!tx)
        return false;
    tx->session = s;
    tb_arena_init(&tx->arena, (64u << 10) + (size_t)smtp_config(s)->recipients_max * 2048);
    tb_buf_init(&tx->trace, 8 << 10);
    s->tx = tx;
    return true;
}

bool smtp_transaction_open(const struct smtp_session *s)
{
    return s->tx && s->tx->open;
}

void smtp_transaction_reset(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    if (!tx || !tx->open)
        return;
    if (tx->delivery)
        tb_delivery_abort(tx->delivery);
    tx->delivery = NULL;
    tx->open = tx->chunked = tx->busy = false;
    tx->refusal = REFUSED_NOT;
    tx->first = tx->last = NULL;
    tx->recipients = 0;
    tx->bytes = 0;
    tx->from = tb_slice("", 0);
    tb_arena_reset(&tx->arena);
}

void smtp_transaction_close(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    s->tx = NULL;
    if (!tx)
        return;
    tx->session = NULL;
    if (tx->busy && !tx->delivery)
        return; /* X4: committed() frees it */
    if (tx->delivery)
        tb_delivery_abort(tx->delivery);
    free_transaction(tx);
}

/* ---- MAIL ---- */

static bool same_account(struct tb_account_id a, struct tb_account_id b)
{
    return a.acct == b.acct && a.shard == b.shard;
}

/* RFC 6409 6.1: the sender must be the one who logged in: empty, or an address that is delivered to that account. */
static bool sender_allowed(struct smtp_session *s, const struct smtp_path *path)
{
    char name[SMTP_NAME_BYTES];
    struct tb_identity who;
    struct tb_slice detail;
    struct tb_store *store = tb_worker_store(tb_conn_worker(s->conn));
    if (path->mailbox.len == 0)
        return true;
    return smtp_route(store, smtp_config(s), path, name, &who, &detail) == ROUTE_LOCAL &&
           same_account(who.id, s->user_id);
}

/*
 * path_arg: "FROM:<...>" or "TO:<...>"; params: what follows the path. One blank before "<" is taken from our
 * own users' clients.
 */
static enum smtp_path_rc path_arg(struct smtp_session *s, struct tb_slice args, struct tb_slice word,
                                  struct smtp_path *path, struct tb_slice *params)
{
    size_t used;
    if (!tb_slice_istarts(args, word))
        return PATH_SYNTAX;
    args = tb_slice_sub(args, word.len, args.len);
    if (s->user[0] && args.len > 0 && args.ptr[0] == ' ')
        args = tb_slice_sub(args, 1, args.len);
    enum smtp_path_rc rc = smtp_path_parse(args, path, &used);
    *params = tb_slice_sub(args, used, args.len);
    if (rc == PATH_OK && params->len > 0 && params->ptr[0] != ' ')
        rc = PATH_SYNTAX;
    return rc;
}

static const char *params_reply(enum smtp_params_rc rc)
{
    switch (rc) {
    case PARAMS_OK:
        return NULL;
    case PARAMS_UNKNOWN:
        return "555 5.5.4 parameter not offered\r\n";
    case PARAMS_HUGE:
        return "552 5.3.4 message too big\r\n";
    case PARAMS_SYNTAX:
        break;
    }
    return "501 5.5.4 malformed parameter\r\n";
}

/* mail_order: may MAIL come now? NULL or the reply. */
static const char *mail_order(const struct smtp_session *s)
{
    if (!s->helo[0])
        return s->kind == SMTP_LMTP ? "503 5.5.1 say LHLO first\r\n" : "503 5.5.1 say EHLO first\r\n";
    if (s->kind == SMTP_SUBMISSION && !s->user[0])
        return "530 5.7.0 authentication required\r\n";
    if (smtp_transaction_open(s))
        return "503 5.5.1 transaction already open\r\n";
    return NULL;
}

enum tb_step smtp_mail(struct smtp_session *s, struct tb_slice args)
{
    struct smtp_path path;
    struct tb_slice params;
    const char *reply = mail_order(s);
    if (reply)
        return smtp_bad(s, reply);
    switch (path_arg(s, args, TB_SLICE("FROM:"), &path, &params)) {
    case PATH_SYNTAX:
        return smtp_bad(s, "501 5.1.7 use MAIL FROM:<address>\r\n");
    case PATH_EIGHT_BIT:
        return smtp_bad(s, "553 5.6.7 address is not ASCII\r\n");
    case PATH_OK:
        break;
    }
    reply = params_reply(smtp_params_mail(params, s->kind == SMTP_SUBMISSION, smtp_config(s)->message_bytes_max));
    if (reply)
        return smtp_bad(s, reply);
    if (s->kind == SMTP_SUBMISSION && !sender_allowed(s, &path))
        return smtp_bad(s, "550 5.7.1 this sender address is not yours\r\n");
    if (!make_transaction(s))
        return smtp_bad(s, "451 4.3.0 out of memory, try later\r\n");
    struct smtp_transaction *tx = s->tx;
    tx->from = tb_arena_copy(&tx->arena, path.mailbox);
    if (!tx->from.ptr) {
        tb_arena_reset(&tx->arena);
        return smtp_bad(s, "451 4.3.0 out of memory, try later\r\n");
    }
    tx->open = true;
    s->transactions++;
    snprintf(tx->id, sizeof(tx->id), "%s-%" PRIu32, tb_conn_id(s->conn), s->transactions);
    tb_conn_puts(s->conn, "250 2.1.0 sender ok\r\n");
    return STEP_MORE;
}

static void put_outcome(struct smtp_session *s, const struct outcome *o, const struct smtp_recipient *r)
{
    tb_conn_puts(s->conn, o->reply);
    if (r) {
        tb_conn_puts(s->conn, " <");
        tb_conn_put(s->conn, r->address);
        tb_conn_puts(s->conn, ">");
    }
    if (o == &stored) {
        tb_conn_puts(s->conn, " ");
        tb_conn_puts(s->conn, s->tx->id);
    }
    tb_conn_puts(s->conn, "\r\n");
}

/* ---- RCPT ---- */

/* An address as it may stand in a log line: none of its bytes can end the field or begin another. */
struct log_text {
    char text[SMTP_PATH_MAX + 1];
};

static struct log_text log_text(struct tb_slice address)
{
    struct log_text out;
    size_t n = address.len < SMTP_PATH_MAX ? address.len : SMTP_PATH_MAX;
    for (size_t i = 0; i < n; i++)
        out.text[i] = strchr(" \"<>\\=", address.ptr[i]) ? '?' : address.ptr[i];
    out.text[n] = '\0';
    return out;
}

static void find_twin(struct smtp_transaction *tx, struct smtp_recipient *r)
{
    for (struct smtp_recipient *other = tx->first; other; other = other->next)
        if (!other->twin && same_account(other->target.id, r->target.id) &&
            tb_slice_eq(other->target.mailbox, r->target.mailbox)) {
            r->twin = other;
            return;
        }
}

/* make_recipient: not one of the transaction's yet. NULL without memory. */
static struct smtp_recipient *make_recipient(struct smtp_transaction *tx, struct tb_slice address,
                                             const struct tb_identity *who, struct tb_slice detail)
{
    struct smtp_recipient *r = tb_arena_alloc(&tx->arena, sizeof(*r));
    if (!r)
        return NULL;
    r->address = tb_arena_copy(&tx->arena, address);
    r->account = tb_arena_copy(&tx->arena, tb_slice_str(who->name));
    r->target.id = who->id;
    r->target.mailbox = tb_arena_copy(&tx->arena, detail.len > 0 ? detail : TB_SLICE("INBOX"));
    r->target.rc = TB_CANCELLED;
    return tx->arena.overflowed ? NULL : r;
}

static void add_recipient(struct smtp_transaction *tx, struct smtp_recipient *r)
{
    find_twin(tx, r);
    if (tx->last)
        tx->last->next = r;
    else
        tx->first = r;
    tx->last = r;
    tx->recipients++;
}

static uint32_t recipients_max(const struct smtp_session *s)
{
    uint32_t max = smtp_config(s)->recipients_max;
    return max < TB_DELIVERY_TARGETS_MAX ? max : TB_DELIVERY_TARGETS_MAX;
}

/* A recipient refused: LMTP's client is our own mail server and may ask as often as it likes. */
static enum tb_step bad_recipient(struct smtp_session *s, struct tb_slice address, const char *reply, const char *word)
{
    struct log_text to = log_text(address);
    tb_log(TB_LOG_INFO, "refused to=<%s> id=%s rip=%s reason=%s", to.text, s->tx->id, tb_conn_peer(s->conn), word);
    if (s->kind != SMTP_LMTP)
        return smtp_bad(s, reply);
    tb_conn_puts(s->conn, reply);
    return STEP_MORE;
}

/*
 * follow_recipient: a lone delivery goes to its mailbox: the connection moves to the first recipient's worker while its
 * client composes the next command, which saves the message two hops between threads (a tenth of its time). In
 * company it stays: hops hide behind other work then, and connections dealt out evenly keep the workers even.
 */
static enum tb_step follow_recipient(struct smtp_session *s, struct tb_account_id id)
{
    if (s->tx->recipients > 1 || tb_conn_company(s->conn) > 2)
        return STEP_MORE;
    tb_conn_move(s->conn, tb_store_worker_of(tb_worker_store(tb_conn_worker(s->conn)), id));
    return STEP_WAIT;
}

static enum tb_step accept_recipient(struct smtp_session *s, struct smtp_recipient *r)
{
    add_recipient(s->tx, r);
    tb_conn_puts(s->conn, "250 2.1.5 recipient ok\r\n");
    return follow_recipient(s, r->target.id);
}

static void room_done(struct tb_op *op)
{
    struct smtp_transaction *tx = op->user;
    tx->busy = false;
    if (tx->session)
        tb_conn_resume(tx->session->conn);
    else
        free_transaction(tx);
}

/*
 * ask_room: SMTP has one answer for a whole message, so an account that is full is found here, where it costs nobody
 * else the mail. LMTP answers each recipient at the end.
 */
static enum tb_step ask_room(struct smtp_session *s, struct smtp_recipient *r)
{
    struct smtp_transaction *tx = s->tx;
    tx->asked = r;
    tx->busy = true;
    tx->room = (struct tb_quota_ask){
        .op = {.done = room_done, .user = tx}, .id = r->target.id, .messages = 1, .bytes = 1};
    s->state = SMTP_ROOM;
    tb_quota_ask(tb_conn_worker(s->conn), &tx->room);
    return STEP_WAIT;
}

enum tb_step smtp_step_room(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    if (tx->busy)
        return STEP_WAIT;
    s->state = SMTP_COMMAND;
    enum tb_rc rc = tx->room.op.rc;
    if (rc == TB_OK)
        return accept_recipient(s, tx->asked);
    const struct outcome *o = outcome_here(s, rc);
    struct log_text to = log_text(tx->asked->address);
    tb_log(TB_LOG_INFO, "refused to=<%s> id=%s rip=%s reason=%s", to.text, tx->id, tb_conn_peer(s->conn), o->word);
    put_outcome(s, o, NULL);
    return STEP_MORE;
}

enum tb_step smtp_rcpt(struct smtp_session *s, struct tb_slice args)
{
    struct smtp_path path;
    struct tb_slice params, detail;
    struct tb_identity who;
    char name[SMTP_NAME_BYTES];
    if (!smtp_transaction_open(s) || s->tx->chunked)
        return smtp_bad(s, "503 5.5.1 MAIL first\r\n");
    enum smtp_path_rc rc = path_arg(s, args, TB_SLICE("TO:"), &path, &params);
    if (rc == PATH_EIGHT_BIT)
        return smtp_bad(s, "553 5.6.7 address is not ASCII\r\n");
    if (rc != PATH_OK || path.mailbox.len == 0)
        return smtp_bad(s, "501 5.1.3 use RCPT TO:<address>\r\n");
    const char *reply = params_reply(smtp_params_rcpt(params));
    if (reply)
        return smtp_bad(s, reply);
    if (s->tx->recipients >= recipients_max(s)) {
        tb_conn_puts(s->conn, "452 4.5.3 too many recipients\r\n");
        return STEP_MORE;
    }
    switch (smtp_route(tb_worker_store(tb_conn_worker(s->conn)), smtp_config(s), &path, name, &who, &detail)) {
    case ROUTE_UNKNOWN:
        return bad_recipient(s, path.mailbox, "550 5.1.1 no such mailbox here\r\n", "unknown");
    case ROUTE_REMOTE:
        return bad_recipient(s, path.mailbox,
                             s->kind == SMTP_SUBMISSION ? "550 5.7.1 outbound mail is not set up on this server\r\n"
                                                        : "550 5.7.1 relaying denied\r\n",
                             "relay");
    case ROUTE_LOCAL:
        break;
    }
    if (!tb_store_serves(tb_worker_store(tb_conn_worker(s->conn)), who.id)) { /* its shard is being rebuilt */
        tb_conn_puts(s->conn, "451 4.3.0 storage trouble, try later\r\n");
        return STEP_MORE;
    }
    struct smtp_recipient *r = make_recipient(s->tx, path.mailbox, &who, detail);
    if (!r) {
        tb_conn_puts(s->conn, "452 4.3.1 out of memory, try later\r\n");
        return STEP_MORE;
    }
    return s->kind == SMTP_LMTP ? accept_recipient(s, r) : ask_room(s, r);
}

/* ---- the delivery ---- */

/* put_trace: false without memory: a message must not be stored without its trace (RFC 5321 4.4). */
static bool put_trace(struct smtp_session *s, struct smtp_transaction *tx, int64_t now_s)
{
    struct smtp_trace t = {
        .from = tx->from,
        .helo = s->helo,
        .peer = tb_conn_peer(s->conn),
        .host = smtp_config(s)->hostname,
        .with = smtp_trace_with(s->kind == SMTP_LMTP, s->esmtp, tb_conn_secure(s->conn), s->user[0] != '\0'),
        .id = tx->id,
        .rcpt = tx->recipients == 1 ? tx->first->address : tb_slice("", 0),
        .now_s = now_s,
    };
    tx->trace.len = 0;
    tx->trace.failed = false; /* of an earlier message */
    smtp_trace_write(&t, &tx->trace);
    if (tx->trace.failed)
        return false;
    tb_delivery_trace(tx->delivery, tb_buf_all(&tx->trace));
    return true;
}

/* begin_delivery: false: nothing has begun, the transaction stays as it was. */
static bool begin_delivery(struct smtp_session *s, bool dots)
{
    struct smtp_transaction *tx = s->tx;
    struct tb_worker *w = tb_conn_worker(s->conn);
    int64_t now_s = tb_io_wall_s(tb_worker_io(w));
    if (tb_delivery_begin(w, smtp_config(s)->message_bytes_max, &tx->delivery) != TB_OK) {
        tx->delivery = NULL;
        return false;
    }
    for (struct smtp_recipient *r = tx->first; r; r = r->next) {
        r->target.internaldate = now_s;
        if (!r->twin && tb_delivery_add(tx->delivery, &r->target) != TB_OK)
            goto abort_delivery;
    }
    if (!put_trace(s, tx, now_s))
        goto abort_delivery;
    smtp_data_init(&tx->data, dots);
    tx->refusal = REFUSED_NOT;
    tx->bytes = 0;
    return true;

abort_delivery:
    tb_delivery_abort(tx->delivery);
    tx->delivery = NULL;
    return false;
}

static void wrote(struct tb_op *op)
{
    struct smtp_transaction *tx = op->user;
    tx->busy = false;
    tb_conn_resume(tx->session->conn);
}

static void refuse(struct smtp_transaction *tx, enum smtp_refusal why)
{
    tx->refusal = why;
    tb_delivery_abort(tx->delivery);
    tx->delivery = NULL;
}

/* store: hand message bytes on, unless the message is refused already. */
static void store(struct smtp_transaction *tx, struct tb_slice bytes)
{
    tx->bytes += bytes.len;
    if (!tx->delivery)
        return;
    if (tx->data.bare) {
        refuse(tx, REFUSED_BARE);
    } else if (tx->data.received >= SMTP_RECEIVED_MAX) {
        refuse(tx, REFUSED_LOOP);
    } else if (tb_delivery_over(tx->delivery)) {
        refuse(tx, REFUSED_SIZE);
    } else if (bytes.len > 0) {
        tx->op.done = wrote;
        tx->op.user = tx;
        tx->busy = !tb_delivery_write(tx->delivery, bytes, &tx->op);
    }
}

/* feed: message text to the machine and the delivery; stops at its end or when the delivery must wait. Bytes used. */
static size_t feed(struct smtp_transaction *tx, struct tb_slice in)
{
    size_t used = 0;
    struct tb_slice out;
    while (used < in.len && !tx->data.ended && !tx->busy) {
        used += smtp_data_next(&tx->data, tb_slice(in.ptr + used, in.len - used), &out);
        store(tx, out);
    }
    return used;
}

/* ---- the end of a message ---- */

static void log_outcome(const struct smtp_transaction *tx, const struct smtp_recipient *r, const struct outcome *o)
{
    struct log_text from = log_text(tx->from);
    tb_log(TB_LOG_INFO, "delivered from=<%s> to=%.*s id=%s size=%" PRIu64 " rcpt=%" PRIu32 " result=%s", from.text,
           (int)r->account.len, r->account.ptr, tx->id, tx->bytes, tx->recipients, o->word);
}

static void log_all(const struct smtp_transaction *tx, const struct outcome *same)
{
    for (const struct smtp_recipient *r = tx->first; r; r = r->next)
        if (!r->twin)
            log_outcome(tx, r, same ? same : outcome_of(r->target.rc));
}

/* answer: X2. same: the outcome of the whole message, or NULL: each recipient's own. */
static enum tb_step answer(struct smtp_session *s, const struct outcome *same)
{
    struct smtp_transaction *tx = s->tx;
    bool good = false;
    if (s->kind != SMTP_LMTP) {
        const struct outcome *o = same ? same : outcome_here(s, tx->op.rc);
        good = o == &stored;
        put_outcome(s, o, NULL);
    }
    for (const struct smtp_recipient *r = tx->first; r && s->kind == SMTP_LMTP; r = r->next) {
        const struct outcome *o = same ? same : outcome_here(s, (r->twin ? r->twin : r)->target.rc);
        good = good || o == &stored;
        put_outcome(s, o, r);
    }
    if (good)
        s->bad = 0;
    smtp_transaction_reset(s);
    s->state = SMTP_COMMAND;
    return good ? STEP_MORE : smtp_bad(s, "");
}

static void committed(struct tb_op *op)
{
    struct smtp_transaction *tx = op->user;
    tx->busy = false;
    log_all(tx, NULL);
    if (tx->session)
        tb_conn_resume(tx->session->conn);
    else
        free_transaction(tx);
}

/* complete: all of the text is here. */
static enum tb_step complete(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    store(tx, tb_slice("", 0)); /* what the last bytes showed */
    if (tx->refusal != REFUSED_NOT) {
        log_all(tx, &refusals[tx->refusal]);
        return answer(s, &refusals[tx->refusal]);
    }
    struct tb_delivery *d = tx->delivery;
    tx->delivery = NULL;
    tx->busy = true;
    tx->op.done = committed;
    tx->op.user = tx;
    s->state = SMTP_COMMIT;
    tb_delivery_commit(d, s->kind != SMTP_LMTP, &tx->op);
    return STEP_WAIT;
}

enum tb_step smtp_step_commit(struct smtp_session *s)
{
    return s->tx->busy ? STEP_WAIT : answer(s, NULL);
}

/* ---- DATA ---- */

enum tb_step smtp_data_verb(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* the verb table takes none */
    if (!smtp_transaction_open(s) || s->tx->chunked)
        return smtp_bad(s, "503 5.5.1 MAIL and RCPT first\r\n");
    if (s->tx->recipients == 0)
        return smtp_bad(s, "503 5.5.1 no valid recipients\r\n");
    if (!begin_delivery(s, true))
        return smtp_bad(s, "452 4.3.1 cannot take a message now, try later\r\n");
    s->state = SMTP_DATA;
    tb_conn_puts(s->conn, "354 end with CRLF.CRLF\r\n");
    return STEP_MORE;
}

enum tb_step smtp_step_data(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    if (tx->busy)
        return STEP_WAIT;
    struct tb_slice in = tb_conn_input(s->conn);
    if (in.len == 0)
        return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
    tb_conn_consume(s->conn, feed(tx, in));
    if (tx->busy)
        return STEP_WAIT;
    return tx->data.ended ? complete(s) : STEP_MORE;
}

/* ---- BDAT (RFC 3030 2) ---- */

/* bdat-cmd = "BDAT" SP chunk-size [ SP end-marker ]; sizes past 10^18 could only be an attack. */
static bool bdat_args(struct smtp_session *s, struct tb_slice args)
{
    const char *space = memchr(args.ptr, ' ', args.len);
    size_t digits = space ? (size_t)(space - args.ptr) : args.len;
    struct tb_slice rest = tb_slice_trim(tb_slice_sub(args, digits, args.len));
    s->chunk_last = tb_slice_ieq(rest, TB_SLICE("LAST"));
    if (rest.len > 0 && !s->chunk_last)
        return false;
    if (!tb_slice_u64(tb_slice_sub(args, 0, digits), UINT64_C(1000000000000000000), &s->chunk_bytes))
        return false;
    s->chunk_left = s->chunk_bytes;
    return true;
}

/* X3: the chunk's octets follow the command whether we want them or not. */
static enum tb_step skip_chunk(struct smtp_session *s, const char *reply)
{
    s->skip_reply = reply;
    s->state = SMTP_SKIP;
    return STEP_MORE;
}

enum tb_step smtp_bdat(struct smtp_session *s, struct tb_slice args)
{
    if (args.len == 0 || !bdat_args(s, args))
        return smtp_bad(s, "501 5.5.4 use BDAT size [LAST]\r\n");
    if (!smtp_transaction_open(s))
        return skip_chunk(s, "503 5.5.1 MAIL and RCPT first\r\n");
    if (s->tx->recipients == 0)
        return skip_chunk(s, "503 5.5.1 no valid recipients\r\n");
    if (!s->tx->chunked) {
        if (!begin_delivery(s, false)) {
            smtp_transaction_reset(s);
            return skip_chunk(s, "452 4.3.1 cannot take a message now, try later\r\n");
        }
        s->tx->chunked = true;
    }
    s->state = SMTP_CHUNK;
    return STEP_MORE;
}

/*
 * chunk_done: a refusal is said at the chunk where it was found; later chunks of that message then find no
 * transaction.
 */
static enum tb_step chunk_done(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    if (s->chunk_last) {
        smtp_data_finish(&tx->data);
        return complete(s);
    }
    store(tx, tb_slice("", 0));
    s->state = SMTP_COMMAND;
    if (tx->refusal != REFUSED_NOT) {
        const struct outcome *o = &refusals[tx->refusal];
        log_all(tx, o);
        put_outcome(s, o, NULL);
        smtp_transaction_reset(s);
        return smtp_bad(s, "");
    }
    tb_conn_printf(s->conn, "250 2.0.0 %" PRIu64 " octets taken\r\n", s->chunk_bytes);
    return STEP_MORE;
}

enum tb_step smtp_step_chunk(struct smtp_session *s)
{
    struct smtp_transaction *tx = s->tx;
    if (tx->busy)
        return STEP_WAIT;
    if (s->chunk_left == 0)
        return chunk_done(s);
    struct tb_slice in = tb_conn_input(s->conn);
    if (in.len == 0)
        return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
    size_t used = feed(tx, tb_slice_sub(in, 0, s->chunk_left < in.len ? (size_t)s->chunk_left : in.len));
    s->chunk_left -= used;
    tb_conn_consume(s->conn, used);
    return tx->busy ? STEP_WAIT : STEP_MORE;
}

enum tb_step smtp_step_skip(struct smtp_session *s)
{
    struct tb_slice in = tb_conn_input(s->conn);
    if (s->chunk_left > 0 && in.len == 0)
        return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
    size_t used = s->chunk_left < in.len ? (size_t)s->chunk_left : in.len;
    s->chunk_left -= used;
    tb_conn_consume(s->conn, used);
    if (s->chunk_left > 0)
        return STEP_MORE;
    s->state = SMTP_COMMAND;
    return smtp_bad(s, s->skip_reply);
}
