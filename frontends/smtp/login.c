/*
 * login.c: AUTH (RFC 4954), on the submission ports alone.
 *
 * It must never take a password over the network in clear, nor keep one longer than the exchange. The auth
 * object exists from AUTH to its answer; while the hash is computed on a helper thread it outlives a connection
 * that goes away (session NULL).
 *
 * Thread: the connection's worker. RFC 4954 4 (exchange, 12,288 octets), 6 (codes), RFC 5248 (enhanced codes).
 */
#include <stdlib.h>

#include "frontends/smtp/internal.h"

bool smtp_auth_offered(const struct smtp_session *s)
{
    return s->kind == SMTP_SUBMISSION &&
           tb_login_private(smtp_config(s), tb_conn_secure(s->conn), tb_conn_loopback(s->conn));
}

static struct tb_sasl_env env_of(const struct smtp_session *s)
{
    return (struct tb_sasl_env){.worker = tb_conn_worker(s->conn), .cfg = smtp_config(s), .tls = tb_conn_tls(s->conn)};
}

void smtp_auth_list(struct smtp_session *s)
{
    struct tb_sasl_env env = env_of(s);
    struct tb_buf list;

    tb_buf_init(&list, 1024);
    tb_sasl_list(&env, "", &list);
    tb_conn_puts(s->conn, "250-AUTH");
    tb_conn_put(s->conn, tb_buf_all(&list));
    tb_conn_puts(s->conn, "\r\n");
    tb_buf_free(&list);
}

static void auth_free(struct smtp_auth *a)
{
    tb_sasl_wipe(&a->sasl);
    free(a);
}

static void drop(struct smtp_session *s)
{
    if (!s->auth)
        return;
    auth_free(s->auth);
    s->auth = NULL;
}

/* The end of a failed exchange; counted when a password was wrong. */
static enum tb_step fail(struct smtp_session *s, const char *reply, bool counted)
{
    drop(s);
    s->state = SMTP_COMMAND;
    if (counted && ++s->auth_failures >= SMTP_AUTH_FAILURES_MAX) {
        tb_conn_puts(s->conn, "421 4.7.0 too many failed logins, closing\r\n");
        return STEP_DONE;
    }
    return smtp_bad(s, reply);
}

static void checked(struct tb_op *op)
{
    struct smtp_auth *a = op->user;
    a->busy = false;
    if (!a->session) {
        auth_free(a);
        return;
    }
    tb_conn_resume(a->session->conn);
}

static enum tb_step check(struct smtp_session *s)
{
    struct smtp_auth *a = s->auth;
    a->busy = true;
    a->login.op.done = checked;
    a->login.op.user = a;
    s->state = SMTP_AUTH_CHECK;
    tb_login_sasl(&a->sasl, "submission", tb_conn_peer(s->conn), &a->login);
    return STEP_WAIT;
}

/* concluded: the exchange is over: what the login came to. */
static enum tb_step concluded(struct smtp_session *s)
{
    const struct smtp_auth *a = s->auth;
    if (a->login.op.rc == TB_INVALID && a->login.refusal == REFUSED_AUTHORIZATION)
        return fail(s, "535 5.7.8 not allowed to act for that account\r\n", true);
    if (a->login.op.rc == TB_INVALID)
        return fail(s, "535 5.7.8 authentication failed\r\n", true);
    if (a->login.op.rc != TB_OK)
        return fail(s, "454 4.7.0 cannot authenticate now, try later\r\n", true);
    memcpy(s->user, a->login.identity.name, sizeof(s->user));
    s->user_id = a->login.identity.id;
    drop(s);
    s->state = SMTP_COMMAND;
    tb_conn_set_name(s->conn, s->user);
    tb_conn_timeout(s->conn, smtp_config(s)->smtp_idle_s, true);
    tb_log(TB_LOG_INFO, "login proto=submission user=%s rip=%s id=%s tls=\"%s\"", s->user, tb_conn_peer(s->conn),
           tb_conn_id(s->conn), tb_conn_tls_text(s->conn));
    tb_conn_puts(s->conn, "235 2.7.0 authenticated\r\n");
    return STEP_MORE;
}

static enum tb_step proceed(struct smtp_session *s, enum tb_sasl_step step, const char *challenge)
{
    switch (step) {
    case SASL_CHALLENGE:
        s->state = SMTP_AUTH_LINE;
        tb_conn_puts(s->conn, "334 ");
        tb_conn_puts(s->conn, challenge);
        tb_conn_puts(s->conn, "\r\n");
        return STEP_MORE;
    case SASL_READY:
        return check(s);
    case SASL_DONE:
        return concluded(s);
    case SASL_NO_MEMORY:
        return fail(s, "454 4.7.0 out of memory, try later\r\n", false);
    case SASL_CANCELLED:
        return fail(s, "501 5.7.0 authentication cancelled\r\n", false);
    case SASL_UNKNOWN:
        return fail(s, "504 5.5.4 mechanism not offered\r\n", false);
    case SASL_FAIL_SYNTAX:
        break;
    }
    return fail(s, "501 5.5.2 malformed response\r\n", false);
}

/* AUTH SP sasl-mech [SP initial-response] */
enum tb_step smtp_auth_verb(struct smtp_session *s, struct tb_slice args)
{
    const char *challenge = "";
    if (!s->helo[0])
        return smtp_bad(s, "503 5.5.1 say EHLO first\r\n");
    if (s->user[0])
        return smtp_bad(s, "503 5.5.1 already authenticated\r\n");
    if (smtp_transaction_open(s))
        return smtp_bad(s, "503 5.5.1 not inside a mail transaction\r\n");
    if (!smtp_auth_offered(s))
        return smtp_bad(s, "538 5.7.11 encryption required, use STARTTLS first\r\n");
    if (args.len == 0)
        return smtp_bad(s, "501 5.5.4 AUTH needs a mechanism\r\n");
    const char *space = memchr(args.ptr, ' ', args.len);
    size_t mech = space ? (size_t)(space - args.ptr) : args.len;
    struct tb_slice initial = space ? tb_slice_trim(tb_slice_sub(args, mech, args.len)) : tb_slice(NULL, 0);
    s->auth = calloc(1, sizeof(*s->auth));
    if (!s->auth)
        return smtp_bad(s, "454 4.7.0 out of memory, try later\r\n");
    s->auth->session = s;
    struct tb_sasl_env env = env_of(s);
    enum tb_sasl_step step = tb_sasl_begin(&s->auth->sasl, &env, tb_slice_sub(args, 0, mech), initial, &challenge);
    if (step == SASL_FAIL_SYNTAX && tb_slice_eq(initial, TB_SLICE("="))) /* well-formed, but nobody's credentials */
        return fail(s, "535 5.7.8 authentication failed\r\n", true);
    return proceed(s, step, challenge);
}

enum tb_step smtp_step_auth_line(struct smtp_session *s)
{
    struct tb_slice line;
    const char *challenge = "";
    switch (tb_conn_line(s->conn, SMTP_AUTH_LINE_MAX, &line)) {
    case LINE_MORE:
        return tb_conn_eof(s->conn) ? STEP_DONE : STEP_WAIT;
    case LINE_LONG:
        drop(s);
        s->state = SMTP_LONG_LINE;
        s->swallowed = 0;
        s->skip_reply = "500 5.5.6 line too long\r\n";
        return STEP_MORE;
    case LINE_BARE:
        return fail(s, "501 5.5.2 malformed response\r\n", false);
    case LINE_OK:
        break;
    }
    enum tb_sasl_step step = tb_sasl_next(&s->auth->sasl, line, &challenge);
    return proceed(s, step, challenge);
}

enum tb_step smtp_step_auth_check(struct smtp_session *s)
{
    struct smtp_auth *a = s->auth;
    const char *challenge = "";
    if (a->busy)
        return STEP_WAIT;
    enum tb_sasl_step step = tb_sasl_outcome(&a->sasl, a->login.op.rc, &challenge);
    return proceed(s, step, challenge);
}

void smtp_auth_close(struct smtp_session *s)
{
    if (s->auth && s->auth->busy) {
        s->auth->session = NULL;
        s->auth = NULL;
    }
    drop(s);
}
