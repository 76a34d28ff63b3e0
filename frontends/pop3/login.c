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
    return tb_login_private(pop3_config(c), tb_conn_secure(c), tb_conn_loopback(c));
}

static void forget_user(struct pop3 *p)
{
    free(p->user);
    p->user = NULL;
}

static void login_free(struct pop3_login *l)
{
    if (l)
        tb_sasl_wipe(&l->sasl);
    free(l);
}

void pop3_login_free(struct pop3 *p)
{
    forget_user(p);
    if (p->login && p->login->busy)
        p->login->conn = NULL; /* on_login frees it */
    else
        login_free(p->login);
    p->login = NULL;
}

static struct tb_sasl_env env_of(struct tb_conn *c)
{
    return (struct tb_sasl_env){.worker = tb_conn_worker(c), .cfg = pop3_config(c), .tls = tb_conn_tls(c)};
}

void pop3_sasl_list(struct tb_conn *c)
{
    struct tb_sasl_env env = env_of(c);
    struct tb_buf list;

    tb_buf_init(&list, 1024);
    tb_sasl_list(&env, "", &list);
    tb_conn_puts(c, "SASL");
    tb_conn_put(c, tb_buf_all(&list));
    tb_conn_puts(c, "\r\n");
    tb_buf_free(&list);
}

/* ---- checking a password ---- */

static void on_login(struct tb_op *op)
{
    struct pop3_login *l = op->user;
    l->busy = false;
    if (l->conn)
        tb_conn_resume(l->conn);
    else
        login_free(l);
}

/* login_new: in p->login; NULL after the reply that there is no memory. */
static struct pop3_login *login_new(struct tb_conn *c, struct pop3 *p)
{
    struct pop3_login *l = calloc(1, sizeof *l);
    if (!l) {
        tb_conn_puts(c, "-ERR [SYS/TEMP] out of memory, try again later\r\n");
        return NULL;
    }
    l->conn = c;
    p->login = l;
    return l;
}

static void checking(struct pop3 *p)
{
    struct pop3_login *l = p->login;
    l->busy = true;
    l->check.op.done = on_login;
    l->check.op.user = l;
    p->state = POP3_LOGIN;
}

/* concluded: the password was checked, or the SASL exchange is over. */
static enum tb_step concluded(struct tb_conn *c, struct pop3 *p)
{
    struct pop3_login *l = p->login;
    enum tb_rc rc = l->check.op.rc;
    enum tb_refusal why = l->check.refusal;
    struct tb_worker *w = tb_conn_worker(c);
    if (rc == TB_OK) {
        p->id = l->check.identity.id;
        tb_conn_set_name(c, l->check.identity.name);
        tb_log(TB_LOG_INFO, "login id=%s proto=pop3 user=%s peer=%s tls=\"%s\"", tb_conn_id(c), l->check.identity.name,
               tb_conn_peer(c), tb_conn_tls_text(c));
    }
    pop3_login_free(p);
    p->state = POP3_AUTHORIZATION;
    if (rc == TB_INVALID && why == REFUSED_AUTHORIZATION)
        return pop3_bad(c, p, POP3_BAD_LOGIN, "-ERR [AUTH] not allowed to act for that account\r\n");
    if (rc == TB_INVALID && why == REFUSED_NO_ACCOUNT)
        return pop3_bad(c, p, POP3_BAD_LOGIN, "-ERR [SYS/PERM] there is no account here for that name\r\n");
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
    if (!login_new(c, p))
        return STEP_MORE;
    checking(p);
    tb_login_start(tb_conn_worker(c), pop3_config(c), "pop3", tb_conn_peer(c), tb_slice_str(p->user), arg,
                   &p->login->check);
    forget_user(p);
    return STEP_WAIT;
}

/* ---- AUTH (RFC 5034) ---- */

static enum tb_step sasl_answer(struct tb_conn *c, struct pop3 *p, enum tb_sasl_step s, const char *challenge)
{
    const char *problem = NULL;
    p->state = POP3_AUTHORIZATION;
    switch (s) {
    case SASL_CHALLENGE:
        p->state = POP3_SASL;
        tb_conn_puts(c, "+ ");
        tb_conn_puts(c, challenge);
        tb_conn_puts(c, "\r\n");
        return STEP_MORE;
    case SASL_READY:
        checking(p);
        tb_login_sasl(&p->login->sasl, "pop3", tb_conn_peer(c), &p->login->check);
        return STEP_WAIT;
    case SASL_DONE:
        return concluded(c, p);
    case SASL_FAIL_SYNTAX:
        problem = "-ERR malformed authentication exchange\r\n";
        break;
    case SASL_CANCELLED:
        problem = "-ERR authentication cancelled\r\n";
        break;
    case SASL_UNKNOWN:
        problem = "-ERR unknown authentication mechanism\r\n";
        break;
    case SASL_NO_MEMORY:
        problem = "-ERR [SYS/TEMP] out of memory, try again later\r\n";
        break;
    }
    pop3_login_free(p);
    return pop3_bad(c, p, 1, problem);
}

enum tb_step pop3_login_step(struct tb_conn *c, struct pop3 *p)
{
    struct pop3_login *l = p->login;
    const char *challenge = "";
    if (l->busy)
        return STEP_WAIT;
    if (!l->sasl.mechanism)
        return concluded(c, p);
    enum tb_sasl_step s = tb_sasl_outcome(&l->sasl, l->check.op.rc, &challenge);
    return sasl_answer(c, p, s, challenge);
}

/* A mechanism a line. */
static void list_lines(struct tb_conn *c)
{
    struct tb_sasl_env env = env_of(c);
    struct tb_buf list;

    tb_buf_init(&list, 1024);
    tb_sasl_list(&env, "", &list);
    tb_conn_puts(c, "+OK\r\n");
    for (size_t i = 1, n; i < list.len; i += n + 1) { /* a blank before each */
        const char *end = memchr(list.ptr + i, ' ', list.len - i);
        n = end ? (size_t)(end - list.ptr) - i : list.len - i;
        tb_conn_put(c, tb_slice(list.ptr + i, n));
        tb_conn_puts(c, "\r\n");
    }
    tb_conn_puts(c, ".\r\n");
    tb_buf_free(&list);
}

enum tb_step pop3_auth(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    if (!pop3_may_login(c))
        return refuse(c, p);
    if (arg.len == 0) { /* older clients ask for the list this way */
        list_lines(c);
        return STEP_MORE;
    }
    if (!login_new(c, p))
        return STEP_MORE;
    forget_user(p);
    const char *blank = memchr(arg.ptr, ' ', arg.len);
    size_t len = blank ? (size_t)(blank - arg.ptr) : arg.len;
    struct tb_slice initial = blank ? tb_slice_sub(arg, len + 1, SIZE_MAX) : tb_slice(NULL, 0);
    const char *challenge = "";
    struct tb_sasl_env env = env_of(c);
    enum tb_sasl_step s = tb_sasl_begin(&p->login->sasl, &env, tb_slice_sub(arg, 0, len), initial, &challenge);
    return sasl_answer(c, p, s, challenge);
}

enum tb_step pop3_sasl_step(struct tb_conn *c, struct pop3 *p)
{
    struct tb_slice line;
    const char *challenge = "";
    enum tb_sasl_step s = SASL_FAIL_SYNTAX;
    switch (tb_conn_line(c, POP3_SASL_LINE_MAX, &line)) {
    case LINE_OK:
        s = tb_sasl_next(&p->login->sasl, line, &challenge);
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
