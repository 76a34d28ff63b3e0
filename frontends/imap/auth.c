/*
 * auth.c: STARTTLS, LOGIN and AUTHENTICATE, and the move to the account's worker.
 *
 *   START ── (AUTHENTICATE) ──> CHALLENGED ──> CHECKING ── [LAST_WORD] ── OK ──> MOVED ──> authenticated
 *
 * Invariants: a password never crosses a connection where imap_plain_allowed is false, and is wiped here as
 * soon as it was handed over; the login record outlives the session while the password is being hashed (I4).
 * Thread: the connection's owner; after MOVED another one. RFC 3501 6.2; RFC 4422 3; RFC 4616; RFC 4959
 * (SASL-IR); RFC 5530 3.
 */
#include "imap_session.h"
#include "engine/crypto/crypto.h"

#include <stdlib.h>

enum login_phase { LOGIN_START, LOGIN_CHALLENGED, LOGIN_CHECKING, LOGIN_LAST_WORD, LOGIN_MOVED };
enum { SASL_LINE_MAX = 12 << 10 };

struct login {
    struct imap_session *s; /* borrowed; NULL: the connection is gone */
    struct tb_login login;
    struct tb_sasl sasl;
    enum login_phase phase;
    bool busy;
};
struct login_args {
    struct tb_slice name, password;     /* LOGIN */
    struct tb_slice mechanism, initial; /* AUTHENTICATE; initial.ptr NULL: none */
};

enum imap_run imap_run_starttls(struct imap_session *s, struct imap_cmd *cmd)
{
    if (tb_conn_secure(s->conn))
        return imap_reply(cmd, "BAD TLS is active already");
    if (tb_conn_listener(s->conn)->tls != TB_TLS_STARTTLS)
        return imap_reply(cmd, "BAD No TLS here");
    s->starttls = true;
    return imap_reply(cmd, "OK Begin TLS negotiation now");
}

/* login = "LOGIN" SP userid SP password */
void imap_parse_login(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct login_args *a = tb_arena_alloc(p->arena, sizeof *a);
    imap_sp(p);
    struct tb_slice name = imap_astring(p);
    imap_sp(p);
    struct tb_slice password = imap_astring(p);
    if (a)
        *a = (struct login_args){.name = name, .password = password};
    cmd->args = a;
}

/* authenticate = "AUTHENTICATE" SP auth-type [SP (base64 / "=")] */
void imap_parse_authenticate(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct login_args *a = tb_arena_alloc(p->arena, sizeof *a);
    imap_sp(p);
    struct tb_slice mechanism = imap_atom(p), initial = {NULL, 0};
    if (!p->failed && imap_try_sp(p))
        initial = imap_atom(p);
    if (a)
        *a = (struct login_args){.mechanism = mechanism, .initial = initial};
    cmd->args = a;
}

static void login_free(struct login *l)
{
    tb_sasl_wipe(&l->sasl);
    free(l);
}

static void login_done(struct tb_op *op)
{
    struct login *l = op->user;
    l->busy = false;
    if (l->s)
        tb_conn_resume(l->s->conn);
    else
        login_free(l);
}

static void login_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct login *l = cmd->state;
    (void)s;
    cmd->state = NULL;
    if (l && l->busy)
        l->s = NULL; /* login_done frees it */
    else if (l)
        login_free(l);
}

struct tb_sasl_env imap_sasl_env(struct imap_session *s)
{
    return (struct tb_sasl_env){.worker = tb_conn_worker(s->conn), .cfg = s->config, .tls = tb_conn_tls(s->conn)};
}

static void checking(struct login *l)
{
    l->phase = LOGIN_CHECKING;
    l->busy = true;
    l->login.op = (struct tb_op){.done = login_done, .user = l};
}

static enum imap_run authentication_failed(struct imap_session *s, struct imap_cmd *cmd, enum tb_refusal why)
{
    if (++s->bad >= IMAP_BAD_MAX)
        s->farewell = "Too many failures";
    if (why == REFUSED_AUTHORIZATION)
        return imap_reply(cmd, "NO [AUTHORIZATIONFAILED] Not allowed to act for that account");
    if (why == REFUSED_EXPIRED)
        return imap_reply(cmd, "NO [EXPIRED] The token has expired");
    if (why == REFUSED_NO_ACCOUNT)
        return imap_reply(cmd, "NO [CONTACTADMIN] There is no account here for that name");
    return imap_reply(cmd, "NO [AUTHENTICATIONFAILED] Name or password wrong");
}

/* open_account: on the account's own worker. */
static enum imap_run open_account(struct imap_session *s, struct imap_cmd *cmd, const struct login *l)
{
    const struct tb_identity *id = &l->login.identity;
    s->user = strdup(id->name);
    if (!s->user || tb_account_open(tb_conn_worker(s->conn), id->id, &s->account) != TB_OK) {
        s->farewell = "[UNAVAILABLE] The account can not be opened";
        s->account = NULL;
        return imap_reply(cmd, "NO [UNAVAILABLE] The account can not be opened");
    }
    s->account_id = s->seat = id->id;
    s->state = IMAP_AUTHENTICATED;
    s->bad = s->noise = 0;
    tb_conn_account(s->conn, s->account);
    tb_conn_timeout(s->conn, s->config->imap_idle_s, true);
    tb_conn_set_name(s->conn, s->user);
    tb_log(TB_LOG_INFO, "login proto=imap user=%s rip=%s id=%s tls=\"%s\"", s->user, tb_conn_peer(s->conn),
           tb_conn_id(s->conn), tb_conn_tls_text(s->conn));
    struct tb_buf b;
    tb_buf_init(&b, 4096);
    tb_buf_str(&b, "OK [CAPABILITY");
    imap_capabilities(s, &b);
    tb_buf_str(&b, "] Logged in");
    return imap_reply_buf(s, cmd, &b);
}

static enum imap_run checked(struct imap_session *s, struct imap_cmd *cmd, struct login *l)
{
    struct tb_store *store = tb_worker_store(tb_conn_worker(s->conn));
    if (l->busy)
        return RUN_WAIT;
    if (l->login.op.rc == TB_BUSY && ++s->bad >= IMAP_BAD_MAX)
        s->farewell = "Too many failures";
    if (l->login.op.rc == TB_BUSY)
        return imap_reply(cmd, "NO [UNAVAILABLE] Too many failed logins, try later");
    if (l->login.op.rc != TB_OK)
        return authentication_failed(s, cmd, l->login.refusal);
    if (!tb_store_serves(store, l->login.identity.id))
        return imap_reply(cmd, "NO [UNAVAILABLE] Storage trouble, try later");
    l->phase = LOGIN_MOVED;
    tb_conn_move(s->conn, tb_store_worker_of(store, l->login.identity.id));
    return RUN_WAIT;
}

static struct login *login_new(struct imap_session *s, struct imap_cmd *cmd)
{
    struct login *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->s = s;
    cmd->state = l;
    cmd->cleanup = login_cleanup;
    return l;
}

enum imap_run imap_run_login(struct imap_session *s, struct imap_cmd *cmd)
{
    struct login *l = cmd->state;
    struct login_args *a = cmd->args;
    if (l)
        return l->phase == LOGIN_CHECKING ? checked(s, cmd, l) : open_account(s, cmd, l);
    if (!imap_plain_allowed(s))
        return imap_reply(cmd, "NO [PRIVACYREQUIRED] Start TLS first");
    if (!(l = login_new(s, cmd)))
        return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
    checking(l);
    tb_login_start(tb_conn_worker(s->conn), s->config, "imap", tb_conn_peer(s->conn), a->name, a->password, &l->login);
    explicit_bzero((char *)a->password.ptr, a->password.len); /* in our arena */
    return RUN_WAIT;
}

/* bad_response: was it malformed, or well-formed and useless? RFC 3501 6.2.2 wants BAD for the first. */
static enum imap_run bad_response(struct imap_session *s, struct imap_cmd *cmd, struct tb_slice text)
{
    struct tb_buf b;
    tb_buf_init(&b, SASL_LINE_MAX);
    bool decodes = tb_slice_eq(text, TB_SLICE("=")) || tb_base64_decode(text, &b);
    if (b.ptr)
        explicit_bzero(b.ptr, b.cap);
    tb_buf_free(&b);
    return decodes ? authentication_failed(s, cmd, REFUSED_CREDENTIALS) : imap_reply(cmd, "BAD Not base64");
}

static enum imap_run sasl_answer(struct imap_session *s, struct imap_cmd *cmd, struct login *l, enum tb_sasl_step step,
                                 const char *challenge, struct tb_slice text)
{
    switch (step) {
    case SASL_CHALLENGE:
        imap_puts(&s->out, "+ ");
        imap_puts(&s->out, challenge);
        imap_puts(&s->out, "\r\n");
        l->phase = l->phase == LOGIN_CHECKING ? LOGIN_LAST_WORD : LOGIN_CHALLENGED;
        return RUN_MORE;
    case SASL_READY:
        checking(l);
        tb_login_sasl(&l->sasl, "imap", tb_conn_peer(s->conn), &l->login);
        return RUN_WAIT;
    case SASL_DONE:
        return checked(s, cmd, l);
    case SASL_NO_MEMORY:
        return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
    case SASL_CANCELLED:
        return imap_reply(cmd, "BAD Cancelled");
    case SASL_UNKNOWN:
        return imap_reply(cmd, "NO [CANNOT] No such mechanism");
    case SASL_FAIL_SYNTAX:
        break;
    }
    return bad_response(s, cmd, text);
}

static enum imap_run sasl_line(struct imap_session *s, struct imap_cmd *cmd, struct login *l)
{
    struct tb_slice line;
    const char *challenge = "";
    switch (tb_conn_line(s->conn, SASL_LINE_MAX, &line)) {
    case LINE_MORE:
        return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
    case LINE_LONG:
        s->farewell = "Response too long";
        return imap_reply(cmd, "BAD Response too long");
    case LINE_BARE:
        return imap_reply(cmd, "BAD Lines end in CRLF");
    case LINE_OK:
        break;
    }
    enum tb_sasl_step step = tb_sasl_next(&l->sasl, line, &challenge);
    return sasl_answer(s, cmd, l, step, challenge, line);
}

enum imap_run imap_run_authenticate(struct imap_session *s, struct imap_cmd *cmd)
{
    struct login *l = cmd->state;
    const struct login_args *a = cmd->args;
    const struct tb_slice none = {NULL, 0};
    const char *challenge = "";
    enum tb_sasl_step step;
    if (!l) {
        if (!imap_plain_allowed(s))
            return imap_reply(cmd, "NO [PRIVACYREQUIRED] Start TLS first");
        if (!(l = login_new(s, cmd)))
            return imap_reply(cmd, "NO [UNAVAILABLE] Out of memory, try later");
        struct tb_sasl_env env = imap_sasl_env(s);
        step = tb_sasl_begin(&l->sasl, &env, a->mechanism, a->initial, &challenge);
        return sasl_answer(s, cmd, l, step, challenge, a->initial);
    }
    switch (l->phase) {
    case LOGIN_START:
    case LOGIN_CHALLENGED:
    case LOGIN_LAST_WORD:
        return sasl_line(s, cmd, l);
    case LOGIN_CHECKING:
        if (l->busy)
            return RUN_WAIT;
        step = tb_sasl_outcome(&l->sasl, l->login.op.rc, &challenge);
        return sasl_answer(s, cmd, l, step, challenge, none);
    case LOGIN_MOVED:
        return open_account(s, cmd, l);
    }
    return RUN_DONE;
}
