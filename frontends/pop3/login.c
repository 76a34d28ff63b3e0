/*
 * login.c: POP3's AUTHORIZATION state: USER and PASS, AUTH, STLS, and the step into the maildrop.
 *
 * A wrong password and an unknown name get the same words, after the same work (RFC 1939 13). No password is taken
 * where it could be overheard, unless the setting says so (RFC 2595 2.3). What came before TLS is forgotten at STLS.
 * After a login the connection moves to the account's worker; only there is the account opened.
 * Thread: the connection's owner.
 */
#include <stdlib.h>

#include "frontends/pop3/session.h"

bool pop3_may_login(struct tb_conn *c)
{
    return tb_conn_secure(c) || tb_conn_loopback(c) || pop3_config(c)->plain_login;
}

static void forget_user(struct pop3 *p)
{
    free(p->user);
    p->user = NULL;
}

static void forget_sasl(struct pop3 *p)
{
    if (p->sasl)
        tb_sasl_wipe(p->sasl);
    free(p->sasl);
    p->sasl = NULL;
}

void pop3_login_free(struct pop3 *p)
{
    forget_user(p);
    forget_sasl(p);
    if (p->login && !p->login->done)
        p->login->conn = NULL; /* on_login frees it */
    else
        free(p->login);
    p->login = NULL;
}

/* ---- checking a password ---- */

static void on_login(struct tb_op *op)
{
    struct pop3_login *l = op->user;
    l->done = true;
    if (l->conn)
        tb_conn_resume(l->conn);
    else
        free(l);
}

static enum tb_step check(struct tb_conn *c, struct pop3 *p, struct tb_slice name, struct tb_slice password)
{
    struct pop3_login *l = calloc(1, sizeof *l);
    if (!l) {
        tb_conn_puts(c, "-ERR [SYS/TEMP] out of memory, try again later\r\n");
        return STEP_MORE;
    }
    l->conn = c;
    l->check.op.done = on_login;
    l->check.op.user = l;
    p->login = l;
    p->state = POP3_LOGIN;
    tb_login_start(tb_conn_worker(c), pop3_config(c), "pop3", tb_conn_peer(c), name, password, &l->check);
    return STEP_WAIT;
}

enum tb_step pop3_login_step(struct tb_conn *c, struct pop3 *p)
{
    struct pop3_login *l = p->login;
    if (!l->done)
        return STEP_WAIT;
    enum tb_rc rc = l->check.op.rc;
    struct tb_worker *w = tb_conn_worker(c);
    if (rc == TB_OK) {
        p->id = l->check.identity.id;
        tb_conn_set_name(c, l->check.identity.name);
        tb_log(TB_LOG_INFO, "login id=%s proto=pop3 user=%s peer=%s tls=\"%s\"", tb_conn_id(c), l->check.identity.name,
               tb_conn_peer(c), tb_conn_tls_text(c));
    }
    pop3_login_free(p);
    p->state = POP3_AUTHORIZATION;
    if (rc == TB_INVALID)
        return pop3_bad(c, p, POP3_BAD_LOGIN, "-ERR [AUTH] authentication failed\r\n");
    if (rc != TB_OK || !tb_store_serves(tb_worker_store(w), p->id))
        return pop3_bad(c, p, POP3_BAD_LOGIN, "-ERR [SYS/TEMP] cannot log in just now, try again later\r\n");
    p->state = POP3_ENTER;
    tb_conn_move(c, tb_store_worker_of(tb_worker_store(w), p->id));
    return STEP_WAIT;
}

static enum tb_rc open_maildrop(struct tb_conn *c, struct pop3 *p)
{
    enum tb_rc rc = tb_account_open(tb_conn_worker(c), p->id, &p->account);
    if (rc != TB_OK)
        return rc;
    tb_conn_account(c, p->account);
    struct tb_arena arena;
    struct tb_mailbox inbox;
    tb_arena_init(&arena, 16 << 10);
    rc = tb_mailbox_get(p->account, TB_MBOX_INBOX, &arena, &inbox);
    if (rc == TB_OK) {
        p->uidvalidity = inbox.uidvalidity;
        rc = tb_view_open(p->account, TB_MBOX_INBOX, &p->view);
    }
    tb_arena_free(&arena);
    return rc;
}

enum tb_step pop3_enter_step(struct tb_conn *c, struct pop3 *p)
{
    tb_conn_timeout(c, pop3_config(c)->pop3_idle_s, true);
    if (open_maildrop(c, p) != TB_OK) {
        tb_conn_puts(c, "-ERR [SYS/TEMP] cannot open the maildrop just now\r\n");
        return STEP_DONE;
    }
    p->state = POP3_TRANSACTION;
    p->bad = 0;
    tb_conn_puts(c, "+OK logged in\r\n");
    return STEP_MORE;
}

/* ---- USER, PASS ---- */

static enum tb_step refuse(struct tb_conn *c, struct pop3 *p)
{
    return pop3_bad(c, p, 1, "-ERR [SYS/PERM] no passwords without encryption: use STLS first\r\n");
}

/* RFC 1939 7: an unknown name is not told from a known one. */
enum tb_step pop3_user(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    if (!pop3_may_login(c))
        return refuse(c, p);
    forget_user(p);
    p->user = strndup(arg.ptr, arg.len);
    tb_conn_puts(c, p->user ? "+OK\r\n" : "-ERR [SYS/TEMP] out of memory\r\n");
    return STEP_MORE;
}

/* RFC 1939 7: blanks are part of the password. One USER is good for one PASS. */
enum tb_step pop3_pass(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    if (!p->user)
        return pop3_bad(c, p, 1, "-ERR USER first\r\n");
    enum tb_step s = check(c, p, tb_slice_str(p->user), arg);
    forget_user(p);
    return s;
}

/* ---- AUTH (RFC 5034) ---- */

static enum tb_step sasl_answer(struct tb_conn *c, struct pop3 *p, enum tb_sasl_step s, const char *challenge)
{
    p->state = POP3_AUTHORIZATION;
    const char *problem = NULL;
    enum tb_step next = STEP_MORE;
    switch (s) {
    case SASL_CHALLENGE:
        p->state = POP3_SASL;
        tb_conn_puts(c, "+ ");
        tb_conn_puts(c, challenge);
        tb_conn_puts(c, "\r\n");
        return STEP_MORE;
    case SASL_READY:
        next = check(c, p, tb_slice(p->sasl->name, p->sasl->name_len),
                     tb_slice(p->sasl->password, p->sasl->password_len));
        break;
    case SASL_FAIL_SYNTAX:
        problem = "-ERR malformed authentication exchange\r\n";
        break;
    case SASL_CANCELLED:
        problem = "-ERR authentication cancelled\r\n";
        break;
    case SASL_UNKNOWN:
        problem = "-ERR unknown authentication mechanism\r\n";
        break;
    }
    forget_sasl(p);
    return problem ? pop3_bad(c, p, 1, problem) : next;
}

enum tb_step pop3_auth(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    if (!pop3_may_login(c))
        return refuse(c, p);
    if (arg.len == 0) { /* older clients ask for the list this way */
        tb_conn_puts(c, "+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n");
        return STEP_MORE;
    }
    p->sasl = calloc(1, sizeof *p->sasl);
    if (!p->sasl) {
        tb_conn_puts(c, "-ERR [SYS/TEMP] out of memory, try again later\r\n");
        return STEP_MORE;
    }
    forget_user(p);
    const char *blank = memchr(arg.ptr, ' ', arg.len);
    size_t len = blank ? (size_t)(blank - arg.ptr) : arg.len;
    struct tb_slice initial = blank ? tb_slice_sub(arg, len + 1, SIZE_MAX) : tb_slice(NULL, 0);
    const char *challenge = "";
    enum tb_sasl_step s = tb_sasl_begin(p->sasl, tb_slice_sub(arg, 0, len), initial, &challenge);
    return sasl_answer(c, p, s, challenge);
}

enum tb_step pop3_sasl_step(struct tb_conn *c, struct pop3 *p)
{
    struct tb_slice line;
    const char *challenge = "";
    enum tb_sasl_step s = SASL_FAIL_SYNTAX;
    switch (tb_conn_line(c, POP3_SASL_LINE_MAX, &line)) {
    case LINE_OK:
        s = tb_sasl_next(p->sasl, line, &challenge);
        return sasl_answer(c, p, s, challenge);
    case LINE_BARE:
        return sasl_answer(c, p, s, challenge);
    case LINE_LONG:
        tb_conn_puts(c, "-ERR line much too long, goodbye\r\n");
        return STEP_DONE;
    case LINE_MORE:
        break;
    }
    return tb_conn_eof(c) ? STEP_DONE : STEP_WAIT;
}

/* ---- STLS (RFC 2595 4) ---- */

enum tb_step pop3_stls(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)arg;
    if (tb_conn_secure(c))
        return pop3_bad(c, p, 1, "-ERR TLS is active already\r\n");
    if (tb_conn_listener(c)->tls != TB_TLS_STARTTLS)
        return pop3_bad(c, p, 1, "-ERR STLS is not offered here\r\n");
    forget_user(p);
    tb_conn_puts(c, "+OK begin TLS\r\n");
    tb_conn_starttls(c);
    return STEP_WAIT;
}
