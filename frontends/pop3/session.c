/*
 * session.c: POP3: one line in, one command, one reply; and the protocol's table for net.
 *
 * A step handles one command or one piece of a long answer. While a login, a listing or a body is under way no further
 * line is read, so pipelined commands wait in the input (RFC 2449 6.6) and net stops receiving when it is full.
 * Must never: remove a message in any other way than QUIT in the TRANSACTION state (RFC 1939 6); write into a
 * half-written message.
 * Thread: the connection's owner. RFC 1939, 2449 (CAPA, line length), 2595 (STLS), 3206 (codes), 5034 (AUTH).
 */
#include <stdlib.h>

#include "frontends/pop3/session.h"

const struct tb_config *pop3_config(struct tb_conn *c)
{
    return tb_conn_config(c)->user;
}

enum tb_step pop3_bad(struct tb_conn *c, struct pop3 *p, unsigned weight, const char *text)
{
    tb_conn_puts(c, text);
    if (p->bad + weight < POP3_BAD_MAX) {
        p->bad = (uint8_t)(p->bad + weight);
        return STEP_MORE;
    }
    tb_conn_puts(c, "-ERR too many errors, goodbye\r\n");
    return STEP_DONE;
}

/* ---- commands of every state ---- */

/* RFC 2449 6.7: how long messages stay, as INBOX's retention says; before login, what holds without one. */
static void put_expire(struct tb_conn *c, const struct pop3 *p)
{
    struct tb_arena arena;
    struct tb_mailbox inbox;
    tb_arena_init(&arena, 16 << 10);
    if (p->account && tb_mailbox_get(p->account, TB_MBOX_INBOX, &arena, &inbox) == TB_OK && inbox.retention_days)
        tb_conn_printf(c, "EXPIRE %u\r\n", inbox.retention_days);
    else
        tb_conn_puts(c, "EXPIRE NEVER\r\n");
    tb_arena_free(&arena);
}

/* RFC 2449 5 and 6; RFC 2595 4 (STLS only before TLS and login); RFC 5034 6 (SASL). */
static enum tb_step run_capa(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)arg;
    tb_conn_puts(c, "+OK capability list follows\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n");
    if (p->state == POP3_AUTHORIZATION && tb_conn_listener(c)->tls == TB_TLS_STARTTLS && !tb_conn_secure(c))
        tb_conn_puts(c, "STLS\r\n");
    if (pop3_may_login(c)) {
        tb_conn_puts(c, "USER\r\n");
        pop3_sasl_list(c);
    }
    put_expire(c, p);
    tb_conn_puts(c, "IMPLEMENTATION Tambo\r\n.\r\n");
    return STEP_MORE;
}

static enum tb_step run_noop(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)p;
    (void)arg;
    tb_conn_puts(c, "+OK\r\n");
    return STEP_MORE;
}

static enum tb_step run_quit(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)arg;
    if (p->state == POP3_TRANSACTION)
        return pop3_update(c, p);
    tb_conn_puts(c, "+OK goodbye\r\n");
    return STEP_DONE;
}

/* Whoever speaks HTTP to us was sent by somebody else (cross-protocol request): hang up at once. */
static enum tb_step run_http(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)p;
    (void)arg;
    tb_conn_puts(c, "-ERR this is a mail server\r\n");
    return STEP_DONE;
}

/* ---- the verb table ---- */

enum { IN_AUTH = 1 << POP3_AUTHORIZATION, IN_TRANS = 1 << POP3_TRANSACTION };
enum args { ARG_NONE, ARG_MAY, ARG_MUST, ARG_RAW /* must be there; every blank counts */ };

static const struct verb {
    const char *name;
    uint8_t states;
    uint8_t args;
    pop3_run *run;
} verbs[] = {
    {"USER", IN_AUTH, ARG_MUST, pop3_user},
    {"PASS", IN_AUTH, ARG_RAW, pop3_pass},
    {"AUTH", IN_AUTH, ARG_MAY, pop3_auth},
    {"STLS", IN_AUTH, ARG_NONE, pop3_stls},
    {"CAPA", IN_AUTH | IN_TRANS, ARG_NONE, run_capa},
    {"QUIT", IN_AUTH | IN_TRANS, ARG_NONE, run_quit},
    {"STAT", IN_TRANS, ARG_NONE, pop3_stat},
    {"LIST", IN_TRANS, ARG_MAY, pop3_list},
    {"UIDL", IN_TRANS, ARG_MAY, pop3_uidl},
    {"RETR", IN_TRANS, ARG_MUST, pop3_retr},
    {"TOP", IN_TRANS, ARG_MUST, pop3_top},
    {"DELE", IN_TRANS, ARG_MUST, pop3_dele},
    {"RSET", IN_TRANS, ARG_NONE, pop3_rset},
    {"NOOP", IN_TRANS, ARG_NONE, run_noop},
    {"GET", IN_AUTH, ARG_MAY, run_http},
    {"HEAD", IN_AUTH, ARG_MAY, run_http},
    {"POST", IN_AUTH, ARG_MAY, run_http},
    {"PUT", IN_AUTH, ARG_MAY, run_http},
    {"OPTIONS", IN_AUTH, ARG_MAY, run_http},
    {"CONNECT", IN_AUTH, ARG_MAY, run_http},
};

static const struct verb *find_verb(struct tb_slice name)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(verbs); i++)
        if (tb_slice_ieq(name, tb_slice_str(verbs[i].name)))
            return &verbs[i];
    return NULL;
}

static bool has_8bit(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.ptr[i] >= 0x80)
            return true;
    return false;
}

static enum tb_step run_line(struct tb_conn *c, struct pop3 *p, struct tb_slice line)
{
    if (has_8bit(line))
        return pop3_bad(c, p, 1, "-ERR 8-bit characters are not allowed here\r\n");
    const char *blank = memchr(line.ptr, ' ', line.len);
    size_t verb_len = blank ? (size_t)(blank - line.ptr) : line.len;
    const struct verb *v = find_verb(tb_slice_sub(line, 0, verb_len));
    if (!v)
        return pop3_bad(c, p, 1, "-ERR unknown command\r\n");
    if (!(v->states & 1u << p->state))
        return pop3_bad(c, p, 1, p->account ? "-ERR you are logged in already\r\n" : "-ERR log in first\r\n");
    struct tb_slice arg = tb_slice_sub(line, verb_len + 1, SIZE_MAX);
    while (v->args != ARG_RAW && arg.len && arg.ptr[arg.len - 1] == ' ')
        arg.len--; /* docs/LENIENCY.md: blanks at the end of a command */
    if (v->args == ARG_NONE && arg.len)
        return pop3_bad(c, p, 1, "-ERR this command has no argument\r\n");
    if (v->args >= ARG_MUST && !arg.len)
        return pop3_bad(c, p, 1, "-ERR an argument is missing\r\n");
    return v->run(c, p, arg);
}

/* ---- lines ---- */

static enum tb_step skip_step(struct tb_conn *c, struct pop3 *p)
{
    struct tb_slice in = tb_conn_input(c);
    const char *lf = in.len ? memchr(in.ptr, '\n', in.len) : NULL;
    size_t n = lf ? (size_t)(lf - in.ptr) + 1 : in.len;
    if (n > POP3_SKIP_MAX - p->skipped) {
        tb_conn_puts(c, "-ERR line much too long, goodbye\r\n");
        return STEP_DONE;
    }
    tb_conn_consume(c, n);
    p->skipped += (uint32_t)n;
    if (!lf)
        return tb_conn_eof(c) ? STEP_DONE : STEP_WAIT;
    p->skipping = false;
    return pop3_bad(c, p, 1, "-ERR line too long\r\n");
}

static enum tb_step command_step(struct tb_conn *c, struct pop3 *p)
{
    if (p->skipping)
        return skip_step(c, p);
    if (tb_conn_full(c))
        return STEP_WAIT;
    struct tb_slice line;
    switch (tb_conn_line(c, POP3_LINE_MAX, &line)) {
    case LINE_OK:
        return run_line(c, p, line);
    case LINE_BARE:
        return pop3_bad(c, p, 1, "-ERR a line ends in CRLF and has no CR, LF or NUL inside\r\n");
    case LINE_LONG:
        p->skipping = true;
        p->skipped = 0;
        return STEP_MORE;
    case LINE_MORE:
        break;
    }
    return tb_conn_eof(c) ? STEP_DONE : STEP_WAIT;
}

/* ---- the table for net ---- */

static void pop3_open(struct tb_conn *c)
{
    tb_conn_timeout(c, pop3_config(c)->pop3_idle_s, false);
    tb_conn_puts(c, "+OK ");
    tb_conn_puts(c, pop3_config(c)->hostname);
    tb_conn_puts(c, " POP3 ready\r\n");
}

static enum tb_step pop3_step(struct tb_conn *c)
{
    struct pop3 *p = tb_conn_session(c);
    switch ((enum pop3_state)p->state) {
    case POP3_SASL:
        return pop3_sasl_step(c, p);
    case POP3_LOGIN:
        return pop3_login_step(c, p);
    case POP3_ENTER:
        return pop3_enter_step(c, p);
    case POP3_LISTING:
        return pop3_listing_step(c, p);
    case POP3_BODY:
        return pop3_body_step(c, p);
    case POP3_UPDATE:
        return pop3_update_step(c, p);
    case POP3_AUTHORIZATION:
    case POP3_TRANSACTION:
        break;
    }
    return command_step(c, p);
}

/* RFC 1939 3: "without removing any messages or sending any response to the client". */
static void pop3_timeout(struct tb_conn *c)
{
    (void)c;
}

static void pop3_overload(struct tb_conn *c)
{
    const struct pop3 *p = tb_conn_session(c);
    if (p->state != POP3_LISTING && p->state != POP3_BODY)
        tb_conn_puts(c, "-ERR [SYS/TEMP] no service just now, try again later\r\n");
}

static void pop3_lost(struct tb_conn *c)
{
    tb_conn_puts(c, "-ERR [SYS/TEMP] storage trouble, try again later\r\n");
}

static bool pop3_middle(const struct tb_conn *c)
{
    const struct pop3 *p = tb_conn_session((struct tb_conn *)(uintptr_t)c); /* looked at only */
    return p->state == POP3_LISTING || p->state == POP3_BODY;
}

static void pop3_close(struct tb_conn *c)
{
    struct pop3 *p = tb_conn_session(c);
    pop3_login_free(p);
    pop3_fetch_free(&p->fetch);
    pop3_fetch_free(&p->ahead);
    free(p->deleted);
    tb_change_free(p->change);
    if (p->view)
        tb_view_close(p->view);
    if (p->account)
        tb_account_close(p->account);
    memset(p, 0, sizeof *p);
}

const struct tb_proto tb_pop3_proto = {
    .name = "pop3",
    .alpn = "pop3",
    .certificates = true,
    .session_bytes = sizeof(struct pop3),
    .open = pop3_open,
    .step = pop3_step,
    .timeout = pop3_timeout,
    .overload = pop3_overload,
    .lost = pop3_lost,
    .middle = pop3_middle,
    .close = pop3_close,
};
