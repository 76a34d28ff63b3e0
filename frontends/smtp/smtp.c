/*
 * smtp.c: the session of the SMTP family: greeting, command lines, the verb table, and the three protocol tables.
 *
 * One state machine; a table of steps indexed by state, each step doing one command or one stretch of input. A
 * command's text is never kept past its step. Replies other than greeting, EHLO's and 3xx carry enhanced codes
 * (RFC 2034).
 *
 * It must never read a command while a delivery or a password check is in flight, and never act on
 * bytes from before TLS.
 *
 * Thread: the connection's worker. A delivery reaches every shard from anywhere; only a lone one moves its connection
 * to the recipient's worker (transaction.c). RFC 5321, 2033 (LMTP), 6409 (submission), 1870, 2034, 2920, 3030, 3207,
 * 4954, 6152.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "frontends/smtp/internal.h"

/*
 * Port 25's client must wait for the greeting (RFC 5321 4.3.1); one that has spoken this soon after connecting
 * did not.
 */
static const uint64_t pause_ns = 10 * 1000 * 1000;

bool smtp_word(struct tb_slice in, const char *word, struct tb_slice *args)
{
    size_t n = strlen(word);
    if (!tb_slice_istarts(in, tb_slice(word, n)) || (in.len > n && in.ptr[n] != ' ' && in.ptr[n] != '\t'))
        return false;
    in = tb_slice_sub(in, n, in.len);
    while (in.len > 0 && (in.ptr[in.len - 1] == ' ' || in.ptr[in.len - 1] == '\t'))
        in.len--; /* RFC 5321 4.1.1: trailing blanks SHOULD be tolerated */
    if (in.len > 0)
        in = tb_slice(in.ptr + 1, in.len - 1);
    *args = in;
    return true;
}

/*
 * idle: a command that gets nobody further; SMTP_BAD_MAX of those and refused ones between two messages end the
 * session.
 */
static enum tb_step idle(struct smtp_session *s, const char *reply)
{
    tb_conn_puts(s->conn, reply);
    if (++s->bad < SMTP_BAD_MAX)
        return STEP_MORE;
    tb_conn_puts(s->conn, "421 4.7.0 too many fruitless commands, closing\r\n");
    return STEP_DONE;
}

enum tb_step smtp_bad(struct smtp_session *s, const char *reply)
{
    return idle(s, reply);
}

/* ---- verbs ---- */

static void put_extensions(struct smtp_session *s)
{
    const struct tb_config *cfg = smtp_config(s);
    tb_conn_puts(s->conn, "250-");
    tb_conn_puts(s->conn, cfg->hostname);
    tb_conn_printf(s->conn, "\r\n250-PIPELINING\r\n250-SIZE %" PRIu64 "\r\n250-8BITMIME\r\n", cfg->message_bytes_max);
    if (tb_conn_listener(s->conn)->tls == TB_TLS_STARTTLS && !tb_conn_secure(s->conn))
        tb_conn_puts(s->conn, "250-STARTTLS\r\n");
    if (smtp_auth_offered(s) && !s->user[0])
        smtp_auth_list(s);
    tb_conn_puts(s->conn, "250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n");
}

static enum tb_step greet(struct smtp_session *s, struct tb_slice name, bool esmtp)
{
    if (!smtp_helo_valid(name))
        return smtp_bad(s, "501 5.5.4 a host name or address literal is needed\r\n");
    smtp_transaction_reset(s);
    memcpy(s->helo, name.ptr, name.len);
    s->helo[name.len] = '\0';
    s->esmtp = esmtp;
    if (esmtp) {
        put_extensions(s);
    } else {
        tb_conn_puts(s->conn, "250 ");
        tb_conn_puts(s->conn, smtp_config(s)->hostname);
        tb_conn_puts(s->conn, "\r\n");
    }
    return STEP_MORE;
}

static enum tb_step verb_ehlo(struct smtp_session *s, struct tb_slice args)
{
    return greet(s, args, true);
}

static enum tb_step verb_helo(struct smtp_session *s, struct tb_slice args)
{
    return greet(s, args, false);
}

static enum tb_step verb_rset(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* none taken */
    smtp_transaction_reset(s);
    return idle(s, "250 2.0.0 reset\r\n");
}

static enum tb_step verb_noop(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* RFC 5321 4.1.1.9: any string, ignored */
    return idle(s, "250 2.0.0 ok\r\n");
}

static enum tb_step verb_vrfy(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* the same for every name: RFC 5321 3.5.3, 7.3 */
    return idle(s, "252 2.5.0 cannot verify, send mail and see\r\n");
}

static enum tb_step verb_expn(struct smtp_session *s, struct tb_slice args)
{
    (void)args;
    return smtp_bad(s, "502 5.5.1 lists are not shown\r\n");
}

static enum tb_step verb_help(struct smtp_session *s, struct tb_slice args)
{
    (void)args;
    return idle(s, "214 2.0.0 see RFC 5321\r\n");
}

static enum tb_step verb_quit(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* none taken */
    tb_conn_puts(s->conn, "221 2.0.0 goodbye\r\n");
    return STEP_DONE;
}

static enum tb_step verb_starttls(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* none taken */
    if (tb_conn_secure(s->conn))
        return smtp_bad(s, "503 5.5.1 TLS is on already\r\n");
    if (tb_conn_listener(s->conn)->tls != TB_TLS_STARTTLS)
        return smtp_bad(s, "502 5.5.1 TLS is not offered here\r\n");
    smtp_transaction_reset(s); /* RFC 3207 4.2: nothing said before counts */
    s->helo[0] = s->user[0] = '\0';
    tb_conn_puts(s->conn, "220 2.0.0 ready for TLS\r\n");
    tb_conn_starttls(s->conn);
    return STEP_WAIT;
}

static enum tb_step verb_http(struct smtp_session *s, struct tb_slice args)
{
    (void)args; /* a browser made to speak to us: RFC 5321 7.8 lets us end it */
    tb_conn_puts(s->conn, "421 4.7.0 this is not a web server, closing\r\n");
    return STEP_DONE;
}

enum { IN_RELAY = 1 << SMTP_RELAY, IN_SUBMISSION = 1 << SMTP_SUBMISSION, IN_LMTP = 1 << SMTP_LMTP };
enum { IN_SMTP = IN_RELAY | IN_SUBMISSION, IN_ALL = IN_SMTP | IN_LMTP };

static const struct verb {
    const char *name;
    unsigned kinds;
    bool bare; /* takes no argument */
    enum tb_step (*run)(struct smtp_session *s, struct tb_slice args);
} verbs[] = {
    {"MAIL", IN_ALL, false, smtp_mail},        {"RCPT", IN_ALL, false, smtp_rcpt},
    {"DATA", IN_ALL, true, smtp_data_verb},    {"BDAT", IN_ALL, false, smtp_bdat},
    {"RSET", IN_ALL, true, verb_rset},         {"NOOP", IN_ALL, false, verb_noop},
    {"QUIT", IN_ALL, true, verb_quit},         {"EHLO", IN_SMTP, false, verb_ehlo},
    {"HELO", IN_SMTP, false, verb_helo},       {"LHLO", IN_LMTP, false, verb_ehlo},
    {"STARTTLS", IN_ALL, true, verb_starttls}, {"AUTH", IN_SUBMISSION, false, smtp_auth_verb},
    {"VRFY", IN_ALL, false, verb_vrfy},        {"EXPN", IN_ALL, false, verb_expn},
    {"HELP", IN_ALL, false, verb_help},        {"GET", IN_ALL, false, verb_http},
    {"POST", IN_ALL, false, verb_http},        {"PUT", IN_ALL, false, verb_http},
    {"HEAD", IN_ALL, false, verb_http},        {"CONNECT", IN_ALL, false, verb_http},
    {"OPTIONS", IN_ALL, false, verb_http},
};

static enum tb_step run_command(struct smtp_session *s, struct tb_slice line)
{
    struct tb_slice args;
    for (size_t i = 0; i < TB_ARRAY_LEN(verbs); i++) {
        const struct verb *v = &verbs[i];
        if (!(v->kinds & 1u << s->kind) || !smtp_word(line, v->name, &args))
            continue;
        if (v->bare && args.len > 0)
            return smtp_bad(s, "501 5.5.4 no argument allowed\r\n");
        return v->run(s, args);
    }
    return smtp_bad(s, "500 5.5.2 unknown command\r\n");
}

/* ---- steps ---- */

/* A line with a CR, LF or NUL inside it is no command (RFC 5321 2.3.8); it was read up to its LF. */
static enum tb_step bare_line(struct smtp_session *s, struct tb_slice line)
{
    struct tb_slice args;
    bool hello = smtp_word(line, "EHLO", &args) || smtp_word(line, "HELO", &args) || smtp_word(line, "LHLO", &args);
    if (!hello && memchr(line.ptr, '\0', line.len))
        return smtp_bad(s, "500 5.5.2 NUL in a command\r\n");
    return smtp_bad(s, "501 5.5.2 bare CR, LF or NUL in a command\r\n");
}

static enum tb_step step_command(struct smtp_session *s)
{
    struct tb_slice line;
    bool auth = s->kind == SMTP_SUBMISSION && tb_slice_istarts(tb_conn_input(s->conn), TB_SLICE("AUTH "));
    switch (tb_conn_line(s->conn, auth ? SMTP_AUTH_LINE_MAX : SMTP_LINE_MAX, &line)) {
    case LINE_OK:
        return run_command(s, line);
    case LINE_BARE:
        return bare_line(s, line);
    case LINE_LONG:
        s->state = SMTP_LONG_LINE;
        s->swallowed = 0;
        s->skip_reply = auth ? "500 5.5.6 line too long\r\n" : "500 5.5.2 line too long\r\n";
        return STEP_MORE;
    case LINE_MORE:
        break;
    }
    return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
}

static enum tb_step step_long_line(struct smtp_session *s)
{
    struct tb_slice in = tb_conn_input(s->conn);
    if (in.len == 0)
        return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
    const char *lf = memchr(in.ptr, '\n', in.len);
    size_t used = lf ? (size_t)(lf - in.ptr) + 1 : in.len;
    s->swallowed += used;
    tb_conn_consume(s->conn, used);
    if (s->swallowed >= SMTP_LINE_SWALLOW_MAX) {
        tb_conn_puts(s->conn, s->skip_reply);
        return STEP_DONE;
    }
    if (!lf)
        return STEP_MORE;
    s->state = SMTP_COMMAND;
    return smtp_bad(s, s->skip_reply);
}

static void put_greeting(struct smtp_session *s)
{
    tb_conn_puts(s->conn, "220 ");
    tb_conn_puts(s->conn, smtp_config(s)->hostname);
    tb_conn_puts(s->conn, s->kind == SMTP_LMTP ? " LMTP Tambo " : " ESMTP Tambo ");
    tb_conn_puts(s->conn, tb_conn_id(s->conn));
    tb_conn_puts(s->conn, "\r\n");
}

static void pause_done(struct tb_op *op)
{
    struct smtp_pause *p = op->user;
    struct smtp_session *s = p->session;
    free(p);
    if (!s)
        return;
    s->pause = NULL;
    tb_conn_resume(s->conn);
}

static enum tb_step step_pause(struct smtp_session *s)
{
    if (tb_conn_input(s->conn).len > 0) {
        tb_conn_puts(s->conn, "554 5.5.1 you spoke before the greeting, closing\r\n");
        return STEP_DONE;
    }
    if (tb_conn_eof(s->conn))
        return STEP_DONE;
    if (s->pause)
        return STEP_WAIT;
    s->state = SMTP_COMMAND;
    put_greeting(s);
    return STEP_MORE;
}

static enum tb_step (*const steps[])(struct smtp_session *s) = {
    [SMTP_PAUSE] = step_pause,
    [SMTP_COMMAND] = step_command,
    [SMTP_LONG_LINE] = step_long_line,
    [SMTP_AUTH_LINE] = smtp_step_auth_line,
    [SMTP_AUTH_CHECK] = smtp_step_auth_check,
    [SMTP_DATA] = smtp_step_data,
    [SMTP_CHUNK] = smtp_step_chunk,
    [SMTP_SKIP] = smtp_step_skip,
    [SMTP_COMMIT] = smtp_step_commit,
    [SMTP_ROOM] = smtp_step_room,
};

static enum tb_step step(struct tb_conn *c)
{
    struct smtp_session *s = tb_conn_session(c);
    return tb_conn_full(c) ? STEP_WAIT : steps[s->state](s);
}

/* ---- the connection's beginning and end ---- */

static void begin(struct tb_conn *c, enum smtp_kind kind)
{
    struct smtp_session *s = tb_conn_session(c);
    s->conn = c;
    s->kind = kind;
    s->state = SMTP_COMMAND;
    tb_conn_timeout(c, smtp_config(s)->smtp_idle_s, kind != SMTP_SUBMISSION);
}

static void open_relay(struct tb_conn *c)
{
    struct smtp_session *s = tb_conn_session(c);
    begin(c, SMTP_RELAY);
    s->pause = calloc(1, sizeof(*s->pause));
    if (!s->pause) {
        put_greeting(s);
        return;
    }
    s->state = SMTP_PAUSE;
    s->pause->session = s;
    s->pause->timer.done = pause_done;
    s->pause->timer.user = s->pause;
    tb_io_timer(tb_worker_io(tb_conn_worker(c)), &s->pause->timer, pause_ns);
}

static void open_submission(struct tb_conn *c)
{
    begin(c, SMTP_SUBMISSION);
    put_greeting(tb_conn_session(c));
}

static void open_lmtp(struct tb_conn *c)
{
    begin(c, SMTP_LMTP);
    put_greeting(tb_conn_session(c));
}

static void farewell(struct tb_conn *c, const char *before, const char *after)
{
    const struct tb_config *cfg = tb_conn_config(c)->user;
    tb_conn_puts(c, before);
    tb_conn_puts(c, cfg->hostname);
    tb_conn_puts(c, after);
}

static void timeout(struct tb_conn *c)
{
    farewell(c, "421 4.4.2 ", " waited too long, closing\r\n");
}

static void overload(struct tb_conn *c)
{
    farewell(c, "421 4.3.2 ", " cannot serve you now, closing\r\n");
}

static void close_session(struct tb_conn *c)
{
    struct smtp_session *s = tb_conn_session(c);
    if (!s->conn)
        return; /* never opened */
    if (s->pause) {
        s->pause->session = NULL;
        tb_io_cancel(tb_worker_io(tb_conn_worker(c)), &s->pause->timer);
        s->pause = NULL;
    }
    smtp_auth_close(s);
    smtp_transaction_close(s);
}

#define PROTO(word, alpn_word, opener, asks) \
    { \
        .name = word, .alpn = alpn_word, .certificates = asks, .session_bytes = sizeof(struct smtp_session), \
        .open = opener, .step = step, .timeout = timeout, .overload = overload, .close = close_session \
    }

const struct tb_proto tb_smtp_proto = PROTO("smtp", "smtp", open_relay, false);
const struct tb_proto tb_submission_proto = PROTO("submission", "smtp", open_submission, true);
const struct tb_proto tb_lmtp_proto = PROTO("lmtp", "lmtp", open_lmtp, false);
