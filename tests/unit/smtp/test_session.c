/*
 * test_session.c: whole sessions over a net, a store and a login made of a few arrays: order of replies, what
 * is delivered, and the failures that a real store hardly ever shows (no space, I/O error, a write that must
 * wait, a peer gone during the commit). Each dialogue runs with the input whole and a byte at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/smtp/internal.h"

/* ---- the world ---- */

struct tb_worker {
    int unused;
};
struct tb_store {
    int unused;
};
struct tb_io {
    int unused;
};

struct tb_delivery {
    struct tb_delivery_target *targets[8];
    size_t n, trace_len;
    uint64_t max;
    bool over, waits;
    struct tb_buf text;
};

struct tb_conn {
    struct tb_listener listener;
    char in[512 << 10];
    size_t in_len, in_pos, in_shown; /* the session sees in_pos..in_shown */
    struct tb_buf out;
    bool eof, secure, local, resumed, starttls, done, authenticated;
    char name[64];
    _Alignas(16) char session[sizeof(struct smtp_session)];
};

static struct tb_conn *conn;
static struct tb_worker worker;
static struct tb_store the_store;
static bool shard_away;
static struct tb_io the_io;
static struct tb_config config;
static struct tb_net_config net_config;
static struct tb_op *in_flight; /* a write, commit, login or timer */
static bool hold;               /* leave it in flight */
static bool step_at_a_time;     /* input byte by byte, and every write waits */
static enum tb_rc commit_rc[8], begin_rc, room_rc;
static unsigned commits, aborts, live_deliveries, atomics;
static char stored[70 << 10];
static size_t stored_len, stored_trace;
static size_t stored_targets;
static char stored_mailbox[8][32];

void *tb_conn_session(struct tb_conn *c)
{
    return c->session;
}
struct tb_worker *tb_conn_worker(struct tb_conn *c)
{
    (void)c;
    return &worker;
}
const struct tb_net_config *tb_conn_config(struct tb_conn *c)
{
    (void)c;
    return &net_config;
}
const struct tb_listener *tb_conn_listener(struct tb_conn *c)
{
    return &c->listener;
}
const char *tb_conn_id(const struct tb_conn *c)
{
    (void)c;
    return "sid";
}
const char *tb_conn_peer(const struct tb_conn *c)
{
    (void)c;
    return "192.0.2.1";
}
bool tb_conn_loopback(const struct tb_conn *c)
{
    return c->local;
}
bool tb_conn_secure(const struct tb_conn *c)
{
    return c->secure;
}
const struct tb_tls *tb_conn_tls(const struct tb_conn *c)
{
    (void)c;
    return NULL;
}
const char *tb_conn_tls_text(const struct tb_conn *c)
{
    (void)c;
    return "";
}
bool tb_conn_eof(const struct tb_conn *c)
{
    return c->eof;
}
bool tb_conn_full(const struct tb_conn *c)
{
    (void)c;
    return false;
}
void tb_conn_resume(struct tb_conn *c)
{
    c->resumed = true;
}
/* One worker: a move goes nowhere, and the step runs again at once. */
uint32_t tb_conn_company(const struct tb_conn *c)
{
    (void)c;
    return 1;
}

void tb_conn_move(struct tb_conn *c, uint32_t to)
{
    assert_int_equal(to, 0);
    tb_conn_resume(c);
}

uint32_t tb_store_worker_of(const struct tb_store *s, struct tb_account_id id)
{
    (void)s;
    (void)id;
    return 0;
}

void tb_conn_starttls(struct tb_conn *c)
{
    c->starttls = true;
}
void tb_conn_put(struct tb_conn *c, struct tb_slice s)
{
    tb_buf_slice(&c->out, s);
}
void tb_conn_puts(struct tb_conn *c, const char *s)
{
    tb_buf_str(&c->out, s);
}
struct tb_worker *tb_store_worker(struct tb_store *s, uint32_t i)
{
    (void)s, (void)i;
    return &worker;
}
bool tb_store_serves(const struct tb_store *s, struct tb_account_id id)
{
    (void)s, (void)id;
    return !shard_away;
}
struct tb_store *tb_worker_store(struct tb_worker *w)
{
    (void)w;
    return &the_store;
}
struct tb_io *tb_worker_io(struct tb_worker *w)
{
    (void)w;
    return &the_io;
}
int64_t tb_io_wall_s(struct tb_io *io)
{
    (void)io;
    return 784111777;
}
void tb_io_cancel(struct tb_io *io, struct tb_op *op)
{
    (void)io, (void)op;
}
bool tb_delivery_over(const struct tb_delivery *d)
{
    return d->over;
}

void tb_conn_printf(struct tb_conn *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    tb_buf_str(&c->out, text);
}

void tb_conn_timeout(struct tb_conn *c, uint32_t seconds, bool authenticated)
{
    (void)seconds;
    c->authenticated = authenticated;
}

void tb_conn_set_name(struct tb_conn *c, const char *name)
{
    snprintf(c->name, sizeof(c->name), "%s", name);
}

struct tb_slice tb_conn_input(struct tb_conn *c)
{
    return tb_slice(c->in + c->in_pos, c->in_shown - c->in_pos);
}

void tb_conn_consume(struct tb_conn *c, size_t n)
{
    assert_true(n <= c->in_shown - c->in_pos);
    c->in_pos += n;
}

enum tb_line tb_conn_line(struct tb_conn *c, size_t max, struct tb_slice *line)
{
    struct tb_slice in = tb_conn_input(c);
    const char *lf = memchr(in.ptr, '\n', in.len);
    size_t text = lf ? (size_t)(lf - in.ptr) : in.len;
    bool cr = text > 0 && in.ptr[text - 1] == '\r';
    text -= cr;
    if (text > max)
        return LINE_LONG;
    if (!lf)
        return LINE_MORE;
    *line = tb_slice(in.ptr, text);
    tb_conn_consume(c, text + cr + 1);
    return !cr || memchr(line->ptr, '\r', text) || memchr(line->ptr, '\0', text) ? LINE_BARE : LINE_OK;
}

static void fly(struct tb_op *op)
{
    assert_null(in_flight); /* X1 */
    in_flight = op;
}

void tb_io_timer(struct tb_io *io, struct tb_op *op, uint64_t delay_ns)
{
    (void)io, (void)delay_ns;
    fly(op);
}

/* Accounts: u, u2, full@other.test. */
enum tb_rc tb_name_resolve(struct tb_store *s, const struct tb_config *cfg, struct tb_slice name,
                           struct tb_identity *out, struct tb_slice *detail)
{
    static const char *const names[] = {"u", "u2", "full@other.test", "postmaster"};
    char text[400];
    (void)s;
    assert_true(name.len < sizeof(text));
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    char *at = strrchr(text, '@'), *plus = strchr(text, '+');
    if (at && strcmp(at + 1, cfg->default_domain) == 0)
        *at = '\0';
    *detail = tb_slice("", 0);
    if (plus && !strchr(plus, '@')) {
        *plus = '\0';
        *detail = tb_slice(name.ptr + (plus + 1 - text), strlen(plus + 1));
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(names); i++)
        if (strcasecmp(text, names[i]) == 0) {
            memset(out, 0, sizeof(*out));
            out->id.acct = (uint32_t)i + 1;
            strcpy(out->name, names[i]);
            return TB_OK;
        }
    return TB_NOTFOUND;
}

void tb_login_sasl(struct tb_sasl *s, const char *proto, const char *peer, struct tb_login *login)
{
    struct tb_slice name = tb_slice(s->name, s->name_len), password = tb_slice(s->password, s->password_len), detail;
    (void)proto, (void)peer;
    login->op.rc = TB_INVALID;
    if (tb_slice_eq(password, TB_SLICE("busy")))
        login->op.rc = TB_BUSY;
    else if (tb_slice_eq(password, TB_SLICE("secret")))
        login->op.rc = tb_name_resolve(&the_store, s->env.cfg, name, &login->identity, &detail) == TB_OK ? TB_OK
                                                                                                         : TB_INVALID;
    fly(&login->op);
}

/* A SASL of our own: mechanism X, response "name password" in clear. */
enum tb_sasl_step tb_sasl_next(struct tb_sasl *s, struct tb_slice line, const char **challenge)
{
    const char *space = memchr(line.ptr, ' ', line.len);
    *challenge = "";
    if (tb_slice_eq(line, TB_SLICE("*")))
        return SASL_CANCELLED;
    if (!space || line.len > 100)
        return SASL_FAIL_SYNTAX;
    s->name_len = (size_t)(space - line.ptr);
    s->password_len = line.len - s->name_len - 1;
    memcpy(s->name, line.ptr, s->name_len);
    memcpy(s->password, space + 1, s->password_len);
    return SASL_READY;
}

enum tb_sasl_step tb_sasl_begin(struct tb_sasl *s, const struct tb_sasl_env *env, struct tb_slice mechanism,
                                struct tb_slice initial, const char **challenge)
{
    s->env = *env;
    *challenge = "Zm9v";
    if (!tb_slice_ieq(mechanism, TB_SLICE("X")))
        return SASL_UNKNOWN;
    return initial.ptr ? tb_sasl_next(s, initial, challenge) : SASL_CHALLENGE;
}

enum tb_sasl_step tb_sasl_outcome(struct tb_sasl *s, enum tb_rc rc, const char **challenge)
{
    (void)s, (void)rc;
    *challenge = "";
    return SASL_DONE;
}

void tb_sasl_list(const struct tb_sasl_env *env, const char *prefix, struct tb_buf *out)
{
    (void)env;
    tb_buf_char(out, ' ');
    tb_buf_str(out, prefix);
    tb_buf_str(out, "X");
}

void tb_sasl_wipe(struct tb_sasl *s)
{
    memset(s, 0, sizeof(*s));
}

void tb_quota_ask(struct tb_worker *w, struct tb_quota_ask *q)
{
    assert_ptr_equal(w, &worker);
    q->op.rc = room_rc;
    fly(&q->op);
}

enum tb_rc tb_delivery_begin(struct tb_worker *w, uint64_t size_max, struct tb_delivery **out)
{
    (void)w;
    if (begin_rc != TB_OK)
        return begin_rc;
    *out = calloc(1, sizeof(**out));
    (*out)->max = size_max;
    (*out)->waits = step_at_a_time;
    tb_buf_init(&(*out)->text, 1 << 20);
    live_deliveries++;
    return TB_OK;
}

enum tb_rc tb_delivery_add(struct tb_delivery *d, struct tb_delivery_target *target)
{
    if (d->n == TB_ARRAY_LEN(d->targets))
        return TB_LIMIT;
    d->targets[d->n++] = target;
    return TB_OK;
}

void tb_delivery_trace(struct tb_delivery *d, struct tb_slice block)
{
    assert_int_equal(d->text.len, 0);
    tb_buf_slice(&d->text, block);
    d->trace_len = d->text.len;
}

bool tb_delivery_write(struct tb_delivery *d, struct tb_slice bytes, struct tb_op *op)
{
    assert_true(bytes.len > 0);
    if (d->text.len - d->trace_len + bytes.len > d->max)
        d->over = true;
    else
        tb_buf_slice(&d->text, bytes);
    if (d->waits)
        fly(op);
    return !d->waits;
}

static void free_delivery(struct tb_delivery *d)
{
    tb_buf_free(&d->text);
    free(d);
    live_deliveries--;
}

void tb_delivery_commit(struct tb_delivery *d, bool atomic, struct tb_op *op)
{
    assert_false(d->over);
    commits++;
    atomics += atomic;
    stored_len = d->text.len - d->trace_len;
    stored_trace = d->trace_len;
    assert_true(d->text.len < sizeof(stored));
    memcpy(stored, d->text.ptr, d->text.len);
    stored_targets = d->n;
    op->rc = TB_OK;
    for (size_t i = 0; i < d->n; i++) {
        d->targets[i]->rc = commit_rc[i];
        if (op->rc == TB_OK)
            op->rc = commit_rc[i];
        struct tb_slice mailbox = d->targets[i]->mailbox;
        snprintf(stored_mailbox[i], sizeof(stored_mailbox[i]), "%.*s", (int)mailbox.len, mailbox.ptr);
    }
    free_delivery(d);
    fly(op);
}

void tb_delivery_abort(struct tb_delivery *d)
{
    aborts++;
    in_flight = NULL; /* a write that waits is abandoned */
    free_delivery(d);
}

/* ---- running a session ---- */

static void turn(void)
{
    do {
        conn->resumed = false;
        enum tb_step s;
        while (!conn->done && (s = conn->listener.proto->step(conn)) != STEP_WAIT)
            conn->done = s == STEP_DONE;
        if (in_flight && !hold) {
            struct tb_op *op = in_flight;
            in_flight = NULL;
            op->done(op);
        }
    } while (conn->resumed && !conn->done);
}

static void feed_bytes(const char *text, size_t n)
{
    assert_true(conn->in_len + n <= sizeof(conn->in));
    memcpy(conn->in + conn->in_len, text, n);
    conn->in_len += n;
    while (conn->in_shown < conn->in_len && !conn->done) {
        conn->in_shown = step_at_a_time ? conn->in_shown + 1 : conn->in_len;
        turn();
    }
}

static void open_conn(const struct tb_proto *proto, enum tb_tls_mode tls)
{
    static char *locals[] = {"alias.test", NULL};
    config = (struct tb_config){.hostname = "mail.example.test",
                                .default_domain = "example.test",
                                .local_domains = locals,
                                .message_bytes_max = 10000,
                                .recipients_max = 5,
                                .smtp_idle_s = 300};
    net_config.user = &config;
    conn = calloc(1, sizeof(*conn));
    conn->listener = (struct tb_listener){.proto = proto, .tls = tls};
    tb_buf_init(&conn->out, 1 << 20);
    assert_true(proto->session_bytes <= sizeof(conn->session));
    commits = aborts = atomics = 0;
    hold = false;
    begin_rc = room_rc = TB_OK;
    memset(commit_rc, 0, sizeof(commit_rc)); /* TB_OK */
    proto->open(conn);
    turn();
}

static void close_conn(void)
{
    conn->listener.proto->close(conn);
    tb_buf_free(&conn->out);
    free(conn);
    conn = NULL;
    if (in_flight) { /* what was left to itself */
        struct tb_op *op = in_flight;
        in_flight = NULL;
        op->done(op);
    }
    assert_int_equal(live_deliveries, 0);
}

/*
 * heard: the replies since the last call begin with these texts, separated by "|"; lines with "250-" are not
 * counted.
 */
static void heard(const char *want)
{
    const char *p = conn->out.ptr, *end = p + conn->out.len;
    while (p < end) {
        const char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
        assert_non_null(eol);
        if (eol - p < 4 || p[3] != '-') {
            size_t n = strcspn(want, "|");
            if (n == 0 || (size_t)(eol - p) < n || memcmp(p, want, n) != 0)
                fail_msg("got \"%.*s\", wanted \"%s\"", (int)(eol - p), p, want);
            want += n + (want[n] == '|');
        }
        p = eol + 2;
    }
    assert_string_equal(want, "");
    conn->out.len = 0;
}

static void say(const char *text, const char *want)
{
    feed_bytes(text, strlen(text));
    heard(want);
}

static void stored_is(const char *text)
{
    assert_int_equal(stored_len, strlen(text));
    assert_memory_equal(stored + stored_trace, text, stored_len);
}

#define BOTH_WAYS \
    for (int way = 0; way < 2; way++) \
        if ((step_at_a_time = way), true)

/* ---- tests ---- */

static void test_smtp(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_STARTTLS);
        heard("220 mail.example.test ESMTP");
        say("EHLO client.test\r\n", "250 CHUNKING");
        say("MAIL FROM:<a@b.test> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<u@example.test>\r\nRCPT TO:<U2>\r\nDATA\r\n",
            "250 2.1.0|250 2.1.5|250 2.1.5|354");
        say("Subject: x\r\n\r\n..dot\r\n.\r\nNOOP\r\n", "250 2.0.0 stored sid-1|250 2.0.0");
        stored_is("Subject: x\r\n\r\n.dot\r\n");
        assert_int_equal(stored_targets, 2);
        assert_int_equal(atomics, 1);
        assert_null(memmem(stored, stored_trace, "for <", 5)); /* two recipients are nobody else's business */
        say("MAIL FROM:<>\r\nRCPT TO:<u+Work@mail.example.test>\r\nDATA\r\n.\r\n",
            "250|250|354|250 2.0.0 stored sid-2");
        stored_is("");
        assert_string_equal(stored_mailbox[0], "Work");
        static const char trace[] = "Return-Path: <>\r\nReceived: from client.test ([192.0.2.1])\r\n"
                                    "\tby mail.example.test with ESMTP id sid-2\r\n"
                                    "\tfor <u+Work@mail.example.test>;\r\n\tSun, 06 Nov 1994 08:49:37 +0000\r\n";
        assert_int_equal(stored_trace, sizeof(trace) - 1);
        assert_memory_equal(stored, trace, stored_trace);
        say("QUIT\r\n", "221");
        assert_true(conn->done);
        close_conn();
    }
}

static void test_routes(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("EHLO c\r\nMAIL FROM:<a@b>\r\n", "220|250|250");
        shard_away =
            true; /* R7: a recipient whose shard is being rebuilt is for later; a name is a name all the same */
        say("RCPT TO:<u@example.test>\r\n", "451 4.3.0");
        say("RCPT TO:<nobody@example.test>\r\n", "550 5.1.1");
        shard_away = false;
        say("RCPT TO:<nobody@example.test>\r\n", "550 5.1.1");
        say("RCPT TO:<nobody>\r\n", "550 5.1.1");
        say("RCPT TO:<u@elsewhere.test>\r\n", "550 5.7.1");
        say("RCPT TO:<x@alias.test>\r\n", "550 5.1.1");
        say("RCPT TO:<\"u@example.test\"@example.test>\r\n", "550 5.1.1");
        say("RCPT TO:<\"full@other.test\"@example.test>\r\n", "550 5.1.1");
        say("RCPT TO:<\"\"@example.test>\r\n", "550 5.1.1");
        say("RCPT TO:<u@alias.test>\r\n", "250");
        say("RCPT TO:<full@other.test>\r\n", "250");
        say("RCPT TO:<\"u2\"@ALIAS.test>\r\n", "250");
        say("RCPT TO:<Postmaster>\r\nRCPT TO:<u>\r\nRCPT TO:<u2>\r\n", "250|250|452 4.5.3");
        say("STARTTLS\r\n", "502");
        close_conn();
    }
}

static void test_order(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("MAIL FROM:<a@b>\r\nEHLO\r\nEHLO a b\r\nLHLO a\r\n", "220|503|501|501|500");
        say("HELO c\r\nRCPT TO:<u>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n",
            "250|503|503|250|503|503 5.5.1");
        say("RCPT TO:<>\r\nRCPT TO: <u>\r\nRCPT TO:<u> X=1\r\nRCPT TO:<u>x\r\n", "501|501|555|501");
        say("RSET\r\nMAIL FROM:a@b\r\nMAIL FROM: <a@b>\r\nMAIL TO:<a@b>\r\nMAIL\r\n", "250|501|501|501|501");
        say("MAIL FROM:<\xc3\xb6@b>\r\nMAIL FROM:<a@b> SIZE=10001\r\nMAIL FROM:<a@b> SIZE=x\r\n", "553 5.6.7|552|501");
        say("RSET x\r\nDATA x\r\nQUIT x\r\nNOOP x\r\n", "501|501|501|250");
        say("VRFY u\r\nVRFY nobody\r\nEXPN x\r\nHELP\r\nWHAT\r\n\r\n", "252|252|502|214|500|500");
        close_conn();
    }
}

static void test_lines(void **state)
{
    (void)state;
    static char text[200 << 10];
    BOTH_WAYS
    {
        open_conn(&tb_submission_proto, TB_TLS_NONE);
        conn->local = true;
        heard("220");
        feed_bytes("NO\0OP\r\n", 7);
        heard("500");
        feed_bytes("EHLO a\0b\r\n", 10);
        heard("501");
        say("MAIL FROM:<a\rb>\r\n", "501");
        say("NOOP\nNOOP\r\n", "501|250");
        memset(text, 'a', sizeof(text));
        memcpy(text, "EHLO ", 5);
        memcpy(text + 1000, "\r\n", 3);
        say(text, "501");
        memset(text + 1000, 'a', 2000);
        memcpy(text + 3000, "\r\n", 3);
        say(text, "500 5.5.2");
        say("EHLO c\r\n", "250");
        memset(text, 'a', 20000);
        memcpy(text, "AUTH X ", 7);
        memcpy(text + 13000, "\r\n", 3);
        say(text, "500 5.5.6");
        say("AUTH X\r\n", "334");
        memset(text, 'a', 14000);
        memcpy(text + 13000, "\r\n", 3);
        say(text, "500 5.5.6");
        say("NOOP\r\n", "250");
        memset(text, 'a', sizeof(text));
        feed_bytes(text, 66 << 10);
        heard("500");
        assert_true(conn->done);
        close_conn();
    }
}

static void test_lmtp(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_lmtp_proto, TB_TLS_NONE);
        say("EHLO c\r\nHELO c\r\nLHLO c\r\n", "220 mail.example.test LMTP|500|500|250");
        say("MAIL FROM:<a@b>\r\nRCPT TO:<nobody>\r\nDATA\r\n", "250|550|503");
        commit_rc[1] = TB_OVERQUOTA;
        say("RCPT TO:<u>\r\nRCPT TO:<u2>\r\nRCPT TO:<u@example.test>\r\nRCPT TO:<nobody>\r\nRCPT TO:<u+x>\r\nDATA\r\n",
            "250|250|250|550|250|354");
        say("hello\r\n.\r\nMAIL FROM:<>\r\n", "250 2.0.0 stored <u> sid-1|452 4.2.2 mailbox over quota <u2>|"
                                              "250 2.0.0 stored <u@example.test> sid-1|250|250 2.1.0");
        assert_int_equal(stored_targets, 3); /* the twin is stored once */
        assert_int_equal(atomics, 0);
        say("RCPT TO:<u>\r\nRCPT TO:<u>\r\nDATA\r\n", "250|250|354");
        say("bare\n.\r\nQUIT\r\n.\r\nNOOP\r\n", "550 5.5.2|550 5.5.2|250 2.0.0 ok");
        assert_int_equal(commits, 1);
        close_conn();
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static char text[64 << 10];
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "220|250|250|250|354");
        memset(text, 'x', 10001);
        memcpy(text + 9999, "\r\n.\r\n", 6);
        say(text, "552 5.3.4");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "250|250|354");
        memcpy(text + 9998, "\r\n.\r\n", 6);
        say(text, "250");
        assert_int_equal(stored_len, 10000);
        for (size_t i = 0; i < 100; i++)
            memcpy(text + 13 * i, "Received: x\r\n", 13);
        memcpy(text + 1300, "\r\n.\r\n", 6);
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "250|250|354");
        say(text, "554 5.4.6");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "250|250|354");
        say(text + 13, "250");
        assert_int_equal(commits, 2);
        assert_int_equal(aborts, 2);
        static const enum tb_rc rcs[] = {TB_NOSPACE, TB_OVERQUOTA, TB_NOTFOUND, TB_IO, TB_BUSY, TB_CANCELLED};
        static const char *const replies[] = {
            "452 4.3.1", "452 4.2.2", "550 5.1.1", "451 4.3.0", "451 4.3.2", "451 4.3.0",
        };
        for (size_t i = 0; i < TB_ARRAY_LEN(rcs); i++) {
            commit_rc[0] = rcs[i];
            say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "250|250|354");
            say("x\r\n.\r\n", replies[i]);
        }
        commit_rc[0] = TB_OK;
        room_rc = TB_OVERQUOTA; /* who is full is refused alone; LMTP's clients hear it at the end */
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\nRSET\r\n", "250|452 4.2.2|503|250");
        config.quota_reject = true;
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nRSET\r\n", "250|552 5.2.2|250");
        room_rc = TB_IO;
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nRSET\r\n", "250|451 4.3.0|250");
        room_rc = TB_OK;
        begin_rc = TB_LIMIT;
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\nBDAT 4 LAST\r\nQUITNOOP\r\n", "250|250|452|452|250");
        close_conn();
    }
}

static void test_bdat(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("EHLO c\r\nBDAT 6\r\nQUIT\r\nMAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\n", "220|250|503|250|503");
        say("RCPT TO:<u>\r\nBDAT 5\r\na\r\n.\rBDAT 5\r\n\n..b\nDATA\r\n", "250|250 2.0.0 5|550 5.5.2|503");
        say("BDAT 2 LAST\r\nxx", "503");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 3\r\n.\r\n", "250|250|250");
        say("DATA\r\nRCPT TO:<u2>\r\nMAIL FROM:<>\r\nBDAT x\r\nBDAT -1\r\nBDAT\r\n"
            "BDAT 99999999999999999999\r\nBDAT 1 LOST\r\n",
            "503|503|503|501|501|501|501|501");
        say("BDAT 6\r\n.\r\nabcBDAT 0 LAST\r\nNOOP\r\n", "250|250 2.0.0 stored|250");
        stored_is(".\r\n.\r\nabc");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 0 LAST\r\n", "250|250|250");
        stored_is("");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 3 LAST\r\nab\r", "250|250|550 5.5.2");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 3\r\nab\r", "250|250|250");
        say("BDAT 1 LAST\r\n\n", "250");
        stored_is("ab\r\n");
        say("MAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 1\r\nxRSET\r\nMAIL FROM:<>\r\n", "250|250|250|250|250");
        close_conn();
        open_conn(&tb_lmtp_proto, TB_TLS_NONE);
        commit_rc[0] = TB_NOSPACE;
        say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nRCPT TO:<u2>\r\nBDAT 1\r\nxBDAT 1 LAST\r\ny",
            "220|250|250|250|250|250 2.0.0 1|452 4.3.1|250 2.0.0 stored");
        close_conn();
    }
}

static void test_submission(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_submission_proto, TB_TLS_STARTTLS);
        say("AUTH X u secret\r\nEHLO c\r\nAUTH X u secret\r\nMAIL FROM:<u>\r\n", "220|503|250|538 5.7.11|530");
        say("STARTTLS x\r\nSTARTTLS\r\n", "501|220");
        assert_true(conn->starttls);
        conn->secure = true;
        say("MAIL FROM:<u>\r\nSTARTTLS\r\nEHLO c\r\n", "503|503|250");
        say("AUTH Y\r\nAUTH\r\nAUTH X bad\r\nAUTH X u wrong\r\nAUTH X u busy\r\nAUTH X\r\n*\r\n",
            "504|501|501|535 5.7.8|454|334 Zm9v|501");
        say("AUTH X\r\nu secret\r\nAUTH X u secret\r\nEHLO c\r\n", "334|235|503|250");
        assert_string_equal(conn->name, "u");
        assert_true(conn->authenticated);
        say("MAIL FROM:<u2>\r\nMAIL FROM:<u@elsewhere.test>\r\nMAIL FROM: <U@example.test> AUTH=<>\r\n",
            "550 5.7.1|550|250");
        say("AUTH X u secret\r\nRCPT TO:<a@elsewhere.test>\r\n", "503|550 5.7.1 outbound mail is not set up");
        say("RCPT TO:<u2>\r\nDATA\r\nhi\r\n.\r\n", "250|354|250");
        assert_non_null(memmem(stored, stored_trace, "with ESMTPSA id", 15));
        close_conn();
        open_conn(&tb_submission_proto, TB_TLS_NONE);
        conn->local = true;
        say("EHLO c\r\n", "220|250");
        for (int i = 0; i < 19; i++)
            say("AUTH X u wrong\r\n", "535");
        say("AUTH X u wrong\r\n", "421");
        assert_true(conn->done);
        close_conn();
    }
}

static void test_abuse(void **state)
{
    (void)state;
    BOTH_WAYS
    {
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("EHLO c\r\n", "220|250");
        for (int i = 0; i < 99; i++)
            say(i % 2 ? "NOOP\r\n" : "RSET\r\n", "250");
        say("junk\r\n", "500|421");
        assert_true(conn->done);
        close_conn();
        open_conn(&tb_smtp_proto, TB_TLS_NONE);
        say("GET / HTTP/1.1\r\n", "220|421");
        assert_true(conn->done);
        close_conn();
    }
}

static void test_speaks_first(void **state)
{
    (void)state;
    step_at_a_time = false;
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    close_conn();
    conn = calloc(1, sizeof(*conn));
    conn->listener.proto = &tb_smtp_proto;
    tb_buf_init(&conn->out, 1 << 20);
    tb_smtp_proto.open(conn);
    hold = true;
    say("EHLO c\r\n", "554");
    assert_true(conn->done);
    hold = false;
    close_conn();
}

/* X4: gone during the commit: the store's answer finds a transaction that frees itself. */
static void test_gone(void **state)
{
    (void)state;
    step_at_a_time = false;
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "220|250|250|250|354");
    hold = true;
    say("x\r\n.\r\nNOOP\r\n", ""); /* nothing is answered before the commit */
    assert_int_equal(commits, 1);
    close_conn();
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\nhalf a", "220|250|250|250|354");
    close_conn();
    assert_int_equal(commits, 0);
    assert_int_equal(aborts, 1);
    step_at_a_time = true; /* a write in flight */
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nDATA\r\n", "220|250|250|250|354");
    hold = true;
    say("half", "");
    assert_non_null(in_flight);
    close_conn();
    assert_int_equal(aborts, 1);
    step_at_a_time = false; /* a password check in flight */
    open_conn(&tb_submission_proto, TB_TLS_NONE);
    conn->local = true;
    hold = true;
    say("EHLO c\r\nAUTH X u secret\r\n", "220|250");
    assert_non_null(in_flight);
    close_conn();
}

static void test_eof(void **state)
{
    (void)state;
    step_at_a_time = false;
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 10 LAST\r\nshort", "220|250|250|250");
    conn->eof = true;
    turn();
    assert_true(conn->done);
    close_conn();
    assert_int_equal(commits, 0);
    open_conn(&tb_lmtp_proto, TB_TLS_NONE);
    conn->eof = true; /* half-closed: everything said is still answered */
    say("LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u>\r\nBDAT 1 LAST\r\nxNOOP\r\n", "220|250|250|250|250|250");
    assert_true(conn->done);
    close_conn();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smtp),  cmocka_unit_test(test_routes),       cmocka_unit_test(test_order),
        cmocka_unit_test(test_lines), cmocka_unit_test(test_lmtp),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_bdat),  cmocka_unit_test(test_submission),   cmocka_unit_test(test_abuse),
        cmocka_unit_test(test_gone),  cmocka_unit_test(test_speaks_first), cmocka_unit_test(test_eof),
    };
    tb_log_level(TB_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
