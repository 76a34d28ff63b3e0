/*
 * test_login.c: names to accounts, and logins from start to done, with a directory of a few names and an I/O layer of a
 * few lines in place of the real ones.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/auth.h"

#include <tambo/admin.h>

#include "engine/crypto/crypto.h"
#include "frontends/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- in place of the store and of engine/io ---- */

struct tb_io {
    struct tb_op *posted, *offloaded;
    uint64_t now_ns;
};
static struct tb_io io = {.now_ns = 1000000000};
static uint64_t not_scram;              /* accounts that cannot log in with SCRAM */
static char changed[TB_SECRET_MAX + 1]; /* anna's secret anew */
static const struct {
    const char *name, *secret;
} accounts[] = {
    {"anna", "{PLAIN}secret"},
    {"bob@example.test", "{PLAIN}secret"},
    {"carl@other.test", "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA=="},
    {"a+b", "{PLAIN}secret"},
    {"root", "{PLAIN}secret"},
    {"closed", ""},
    {"user", "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
             "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="}, /* RFC 7677 3: pencil */
};

enum tb_rc tb_directory_find(struct tb_store *store, struct tb_slice name, struct tb_identity *out)
{
    (void)store;
    for (size_t i = 0; i < TB_ARRAY_LEN(accounts); i++) {
        if (tb_slice_eq(name, tb_slice_str(accounts[i].name))) {
            memset(out, 0, sizeof(*out));
            out->id.acct = (uint32_t)i;
            (void)snprintf(out->name, sizeof(out->name), "%s", accounts[i].name);
            (void)snprintf(out->secret, sizeof(out->secret), "%s", accounts[i].secret);
            return TB_OK;
        }
    }
    return TB_NOTFOUND;
}

static int stands_in = 2; /* which account comes behind the letters made of a name */

enum tb_rc tb_directory_next(struct tb_store *store, struct tb_slice after, struct tb_identity *out)
{
    (void)store;
    (void)after;
    return tb_directory_find(NULL, tb_slice_str(accounts[stands_in].name), out);
}

struct tb_io *tb_worker_io(struct tb_worker *w)
{
    (void)w;
    return &io;
}

struct tb_store *tb_worker_store(struct tb_worker *w)
{
    (void)w;
    return NULL;
}

void tb_store_secret(struct tb_store *store, const char *purpose, uint8_t key[32])
{
    (void)store;
    memset(key, purpose[0], 32);
}

uint64_t tb_directory_counted(const struct tb_store *store)
{
    (void)store;
    return not_scram;
}

void tb_io_random(struct tb_io *own, void *buf, size_t len)
{
    memset(buf, (int)own->now_ns++, len);
}

void tb_account_secret(struct tb_worker *worker, struct tb_slice name, struct tb_slice secret, struct tb_op *op)
{
    (void)worker;
    assert_string_equal(name.ptr, "anna");
    (void)snprintf(changed, sizeof(changed), "%.*s", (int)secret.len, secret.ptr);
    op->rc = TB_OK;
    tb_io_post(&io, &io, op);
}

int64_t tb_io_wall_s(struct tb_io *own)
{
    (void)own;
    return 1700000000;
}

uint64_t tb_io_now_ns(struct tb_io *own)
{
    return own->now_ns;
}

void tb_io_post(struct tb_io *from, struct tb_io *to, struct tb_op *op)
{
    (void)from;
    assert_null(to->posted);
    to->posted = op;
}

void tb_io_offload(struct tb_io *own, struct tb_op *op, void (*work)(struct tb_op *op))
{
    assert_null(own->offloaded);
    own->offloaded = op;
    op->work = work;
}

/* One turn of the loop. */
static void turn(void)
{
    struct tb_op *op = io.offloaded;

    if (op) {
        io.offloaded = NULL;
        op->work(op);
        op->done(op);
    }
    op = io.posted;
    io.posted = NULL;
    if (op)
        op->done(op);
}

/* ---- tests ---- */

static char *further[] = {(char[]){"sub.test"}, NULL};
static struct tb_config cfg = {.default_domain = (char[]){"Example.test"},
                               .postmaster = (char[]){"Root"},
                               .hostname = (char[]){"mail.example.test"},
                               .local_domains = further,
                               .password_scheme = (char[]){"SCRAM-SHA-256"},
                               .scram = (char[]){"auto"},
                               .login_failures_account = 20,
                               .login_failures_network = 20};

static void assert_resolves(const char *name, const char *account, const char *detail)
{
    struct tb_identity who;
    struct tb_slice found;
    enum tb_rc rc = tb_name_resolve(NULL, &cfg, tb_slice_str(name), &who, &found);

    assert_int_equal(rc, account ? TB_OK : TB_NOTFOUND);
    if (!account)
        return;
    assert_string_equal(who.name, account);
    assert_true(tb_slice_eq(found, tb_slice_str(detail)));
    assert_int_equal(tb_name_resolve(NULL, &cfg, tb_slice_str(name), &who, NULL), TB_OK);
}

static void names(void **state)
{
    char longest[600];

    (void)state;
    assert_resolves("anna", "anna", "");
    assert_resolves("ANNA@example.TEST", "anna", "");
    assert_resolves("anna@other.test", NULL, "");
    assert_resolves("bob", "bob@example.test", "");
    assert_resolves("bob@example.test", "bob@example.test", "");
    assert_resolves("Carl@Other.Test", "carl@other.test", "");
    assert_resolves("carl", NULL, "");
    assert_resolves("anna+Lists", "anna", "Lists");
    assert_resolves("anna+x+y@example.test", "anna", "x+y");
    assert_resolves("bob+@example.test", "bob@example.test", "");
    assert_resolves("carl+z@other.test", "carl@other.test", "z");
    assert_resolves("a+b", "a+b", ""); /* a real name wins over the detail rule */
    assert_resolves("a+c", NULL, "");
    assert_resolves("+anna", NULL, "");
    assert_resolves("", NULL, "");
    assert_resolves("@", NULL, "");
    assert_resolves("@example.test", NULL, "");
    assert_resolves("anna@", "anna", "");
    assert_resolves("PostMaster", "root", "");
    assert_resolves("postmaster@example.test", "root", "");
    assert_resolves("postmaster@sub.test", "root", "");
    assert_resolves("postmaster@mail.example.test", "root", "");
    assert_resolves("postmaster@elsewhere.test", NULL, "");
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_resolves(longest, NULL, "");
    longest[300] = '@';
    assert_resolves(longest, NULL, "");
    cfg.postmaster[0] = '\0';
    assert_resolves("postmaster", NULL, "");
    cfg.postmaster[0] = 'R';
}

static void set_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static enum tb_rc try_login(const char *peer, const char *name, const char *password, struct tb_login *l)
{
    static const char zeros[sizeof(l->password)];
    bool done = false;

    memset(l, 0x55, sizeof(*l));
    l->op.done = set_flag;
    l->op.user = &done;
    tb_login_start(NULL, &cfg, "imap", peer, tb_slice_str(name), tb_slice_str(password), l);
    assert_false(done); /* never inside */
    for (int i = 0; i < 3 && !done; i++)
        turn();
    assert_true(done);
    assert_null(io.posted);
    assert_memory_equal(l->password, zeros, sizeof(zeros));
    assert_string_equal(l->identity.secret, "");
    return l->op.rc;
}

static int saved_stderr, pipe_ends[2];

static void catch_log(void)
{
    saved_stderr = dup(2);
    assert_int_equal(pipe(pipe_ends), 0);
    assert_int_equal(dup2(pipe_ends[1], 2), 2);
}

static void assert_logged(const char *expected)
{
    char text[2048];
    ssize_t n;

    (void)dup2(saved_stderr, 2);
    (void)close(saved_stderr);
    (void)close(pipe_ends[1]);
    n = read(pipe_ends[0], text, sizeof(text) - 1);
    (void)close(pipe_ends[0]);
    text[n > 0 ? n : 0] = '\0';
    assert_string_equal(text, expected);
}

static void logins(void **state)
{
    struct tb_login l;
    char longest[2000];

    (void)state;
    catch_log();
    assert_int_equal(try_login("192.0.2.1", "Anna", "secret", &l), TB_OK);
    assert_string_equal(l.identity.name, "anna");
    assert_int_equal(l.identity.id.acct, 0);
    assert_int_equal(try_login("192.0.2.1", "carl@other.test", "secret", &l), TB_OK); /* by way of a helper */
    assert_int_equal(l.identity.id.acct, 2);
    assert_logged("");
    catch_log();
    assert_int_equal(try_login("192.0.2.1", "carl@other.test", "wrong", &l), TB_INVALID);
    assert_string_equal(l.identity.name, "");
    assert_logged("level=warn auth failed proto=imap user=carl@other.test rip=192.0.2.1 reason=password\n");
    catch_log();
    /* with the very password of the secret that stands in */
    assert_int_equal(try_login("2001:db8::1", "no body\nrip=1", "secret", &l), TB_INVALID);
    assert_logged("level=warn auth failed proto=imap user=no?body?rip?1 rip=2001:db8::1 reason=unknown\n");
    catch_log();
    assert_int_equal(try_login("192.0.2.1", "closed", "", &l), TB_INVALID);
    assert_int_equal(try_login("192.0.2.1", "closed", "secret", &l), TB_INVALID);
    assert_int_equal(try_login("192.0.2.1", "", "secret", &l), TB_INVALID);
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(try_login("192.0.2.1", "anna", longest, &l), TB_INVALID);
    assert_int_equal(try_login("192.0.2.1", longest, "secret", &l), TB_INVALID);
    (void)dup2(saved_stderr, 2);
}

static void unknown_names_work_as_hard(void **state)
{
    struct tb_login l;
    bool done = false;

    (void)state;
    memset(&l, 0, sizeof(l));
    stands_in = 2; /* of a slow scheme */
    l.op.done = set_flag;
    l.op.user = &done;
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody1"), TB_SLICE("x"), &l);
    assert_non_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
    stands_in = 0; /* of a cheap one */
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody2"), TB_SLICE("secret"), &l);
    assert_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
    cfg.password_upgrade = true; /* then hers is looked at by a helper, and so is nobody's */
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody3"), TB_SLICE("secret"), &l);
    assert_non_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
    assert_string_equal(changed, "");
    cfg.password_upgrade = false;
    stands_in = 5; /* nobody has a login */
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody4"), TB_SLICE("secret"), &l);
    assert_non_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
    stands_in = 2;
}

static void too_many(void **state)
{
    struct tb_login l;
    int wrong = 0;

    (void)state;
    io.now_ns += 3600000000000u;
    while (wrong < 100 && try_login("198.51.100.9", wrong % 2 ? "anna" : "nobody", "wrong", &l) == TB_INVALID)
        wrong++;
    assert_int_equal(wrong, 10);
    assert_int_equal(l.op.rc, TB_BUSY);
    assert_int_equal(try_login("198.51.100.10", "bob", "secret", &l), TB_BUSY); /* not even with the right one */
    assert_int_equal(try_login("198.51.101.1", "bob", "secret", &l), TB_OK);
    io.now_ns += 61000000000u;
    assert_int_equal(try_login("198.51.100.10", "bob", "secret", &l), TB_OK);
}

/* Begun while it was allowed, answered when it is no more: neither right nor wrong. */
static void too_many_at_once(void **state)
{
    static struct tb_login many[12];
    struct tb_op *hashes[TB_ARRAY_LEN(many)];
    bool done[TB_ARRAY_LEN(many)] = {false};

    (void)state;
    io.now_ns += 3600000000000u;
    for (size_t i = 0; i < TB_ARRAY_LEN(many); i++) {
        many[i].op = (struct tb_op){.done = set_flag, .user = &done[i]};
        tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("carl@other.test"),
                       i == TB_ARRAY_LEN(many) - 1 ? TB_SLICE("secret") : TB_SLICE("wrong"), &many[i]);
        hashes[i] = io.offloaded;
        io.offloaded = NULL;
        assert_non_null(hashes[i]);
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(many); i++) {
        hashes[i]->work(hashes[i]);
        hashes[i]->done(hashes[i]);
        turn();
        assert_true(done[i]);
        assert_int_equal(many[i].op.rc, i < 10 ? TB_INVALID : TB_BUSY);
    }
}

/* ---- SASL: SCRAM as a client of its own speaks it ---- */

static void text64(struct tb_slice bytes, char *out, size_t max)
{
    struct tb_buf b;

    tb_buf_init(&b, max - 1);
    tb_base64_encode(bytes, &b);
    assert_false(b.failed);
    memcpy(out, b.ptr ? b.ptr : "", b.len);
    out[b.len] = '\0';
    tb_buf_free(&b);
}

static void bytes64(const char *text, char *out, size_t max)
{
    struct tb_buf b;

    tb_buf_init(&b, max - 1);
    assert_true(tb_base64_decode(tb_slice_str(text), &b));
    memcpy(out, b.ptr ? b.ptr : "", b.len);
    out[b.len] = '\0';
    tb_buf_free(&b);
}

struct client {
    struct tb_sasl sasl;
    struct tb_login login;
    char first[400], server_first[400], final[600], verifier[64];
    bool done;
};

/* client-first-message sent, server-first-message taken. */
static enum tb_sasl_step say_first(struct client *c, const char *mechanism, const char *first)
{
    const struct tb_sasl_env env = {.worker = (struct tb_worker *)&io, .cfg = &cfg};
    const char *challenge;
    char line[1000];
    enum tb_sasl_step step;

    memset(c, 0, sizeof(*c));
    (void)snprintf(c->first, sizeof(c->first), "%s", first);
    text64(tb_slice_str(first), line, sizeof(line));
    step = tb_sasl_begin(&c->sasl, &env, tb_slice_str(mechanism), tb_slice_str(line), &challenge);
    if (step == SASL_CHALLENGE)
        bytes64(challenge, c->server_first, sizeof(c->server_first));
    return step;
}

/* client-final-message with the proof that password gives; nonce: NULL for the right one. */
static enum tb_sasl_step say_final(struct client *c, const char *password, const char *header, const char *nonce)
{
    uint8_t salted[32], key[32], stored[32], mac[32];
    const char *salt_at = strstr(c->server_first, ",s="), *rounds_at = strstr(c->server_first, ",i="), *challenge;
    const char *bare = strchr(strchr(c->first, ',') + 1, ',') + 1;
    char salt64[128], salt[128], head[64], auth[1600], proof[64], line[1000];
    struct tb_sha256 h;

    (void)snprintf(salt64, sizeof(salt64), "%.*s", (int)(rounds_at - salt_at - 3), salt_at + 3);
    bytes64(salt64, salt, sizeof(salt));
    assert_true(tb_pbkdf2(256, tb_slice_str(password), tb_slice(salt, strlen(salt64) / 4 * 3 - 2),
                          (uint32_t)strtoul(rounds_at + 3, NULL, 10), salted, 32));
    text64(tb_slice_str(header), head, sizeof(head));
    (void)snprintf(c->final, sizeof(c->final), "c=%s,%.*s", head, (int)(salt_at - c->server_first), c->server_first);
    if (nonce)
        (void)snprintf(c->final, sizeof(c->final), "c=%s,r=%s", head, nonce);
    (void)snprintf(auth, sizeof(auth), "%s,%s,%s", bare, c->server_first, c->final);
    tb_hmac_sha256(salted, 32, "Client Key", 10, key);
    tb_sha256_init(&h);
    tb_sha256_update(&h, key, 32);
    tb_sha256_final(&h, stored);
    tb_hmac_sha256(stored, 32, auth, strlen(auth), mac);
    for (int i = 0; i < 32; i++)
        key[i] ^= mac[i];
    text64(tb_slice(key, 32), proof, sizeof(proof));
    tb_hmac_sha256(salted, 32, "Server Key", 10, key);
    tb_hmac_sha256(key, 32, auth, strlen(auth), mac);
    text64(tb_slice(mac, 32), c->verifier, sizeof(c->verifier));
    (void)snprintf(c->final + strlen(c->final), 100, ",p=%s", proof);
    text64(tb_slice_str(c->final), line, sizeof(line));
    return tb_sasl_next(&c->sasl, tb_slice_str(line), &challenge);
}

static enum tb_rc log_in(struct client *c)
{
    c->login.op = (struct tb_op){.done = set_flag, .user = &c->done};
    tb_login_sasl(&c->sasl, "imap", "unix", &c->login);
    for (int i = 0; i < 4 && !c->done; i++)
        turn();
    assert_true(c->done);
    return c->login.op.rc;
}

/* The whole of it; what the login says, and if it is OK the server's word at the end. */
static enum tb_rc exchange(struct client *c, const char *first, const char *password)
{
    const char *challenge;
    char said[100], wanted[100];
    enum tb_rc rc;

    assert_int_equal(say_first(c, "SCRAM-SHA-256", first), SASL_CHALLENGE);
    assert_int_equal(say_final(c, password, "n,,", NULL), SASL_READY);
    rc = log_in(c);
    assert_int_equal(tb_sasl_outcome(&c->sasl, rc, &challenge), rc == TB_OK ? SASL_CHALLENGE : SASL_DONE);
    if (rc == TB_OK) {
        bytes64(challenge, said, sizeof(said));
        (void)snprintf(wanted, sizeof(wanted), "v=%s", c->verifier);
        assert_string_equal(said, wanted);
        assert_int_equal(tb_sasl_next(&c->sasl, TB_SLICE(""), &challenge), SASL_DONE);
    }
    tb_sasl_wipe(&c->sasl);
    return rc;
}

static void scram(void **state)
{
    static char always[] = "always";
    char *as_it_was = cfg.scram;
    struct client c;

    (void)state;
    io.now_ns += 3600000000000u;
    assert_int_equal(exchange(&c, "n,,n=user,r=abc", "pencil"), TB_OK);
    assert_string_equal(c.login.identity.name, "user");
    assert_int_equal(exchange(&c, "n,,n=USER@example.test,r=abc", "pencil"), TB_OK);
    assert_int_equal(exchange(&c, "n,,n=user,r=abc", "pencils"), TB_INVALID);
    assert_int_equal(exchange(&c, "n,,n=anna,r=abc", "secret"), TB_OK); /* keys made of {PLAIN} */
    assert_int_equal(exchange(&c, "n,,n=anna,r=abc", "Secret"), TB_INVALID);
    assert_int_equal(exchange(&c, "n,,n=nobody,r=abc", "secret"), TB_INVALID);
    assert_int_equal(exchange(&c, "n,,n=closed,r=abc", ""), TB_INVALID);
    assert_int_equal(exchange(&c, "n,,n=carl@other.test,r=abc", "secret"), TB_INVALID); /* {SSHA} */
    assert_int_equal(exchange(&c, "n,,n=carl@other.test,r=abc", ""), TB_INVALID);
    not_scram = 1; /* as carl's: then it is not offered at all */
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,,n=user,r=abc"), SASL_UNKNOWN);
    cfg.scram = always;
    assert_int_equal(exchange(&c, "n,,n=user,r=abc", "pencil"), TB_OK);
    cfg.scram = as_it_was;
    not_scram = 0;
}

/* Who does not exist has a salt too, and keeps it, however his name is written; so has who has no salt of his own. */
static void nobody_can_tell(void **state)
{
    static const char *const ways[][3] = {
        {"n,,n=nobody,r=abc", "n,,n=NoBody@EXAMPLE.test,r=abc", "n,,n=nobody+x,r=abc"},
        {"n,,n=anna,r=abc", "n,,n=Anna@example.test,r=abc", "n,,n=anna+x,r=abc"},
        {"n,,n=x@other.test,r=abc", "n,,n=X@other.TEST,r=abc", "n,,n=x+y@other.test,r=abc"},
        {"n,,n=user,r=abc", "n,,n=user@example.test,r=abc", "n,,n=User+y,r=abc"},
    };
    char salt[4][400];
    struct client c;
    int rounds[4];

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(ways); i++) {
        for (size_t k = 0; k < 3; k++) {
            const char *at;

            assert_int_equal(say_first(&c, "SCRAM-SHA-256", ways[i][k]), SASL_CHALLENGE);
            at = strstr(c.server_first, ",s=");
            if (k > 0)
                assert_string_equal(at, salt[i]);
            (void)snprintf(salt[i], sizeof(salt[i]), "%s", at);
            tb_sasl_wipe(&c.sasl);
        }
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(salt[i], salt[k]);
        assert_int_equal(strlen(strstr(salt[i], ",i=")), i < 3 ? 8 : 7);
    }
    for (stands_in = 5; stands_in < 7; stands_in++) { /* rounds as others have them, which may not be ours */
        for (int i = 0; i < 4; i++) {
            assert_int_equal(say_first(&c, "SCRAM-SHA-256", ways[i][0]), SASL_CHALLENGE);
            rounds[i] = atoi(strstr(c.server_first, ",i=") + 3);
            tb_sasl_wipe(&c.sasl);
        }
        assert_int_equal(rounds[0], stands_in == 6 ? 4096 : 32768);
        assert_int_equal(rounds[1], 32768); /* anna exists */
        assert_int_equal(rounds[2], rounds[0]);
        assert_int_equal(rounds[3], 4096);
    }
    stands_in = 2;
}

static void scram_refused(void **state)
{
    struct client c;
    const char *challenge;

    (void)state;
    io.now_ns += 3600000000000u;
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "p=tls-exporter,,n=user,r=abc"), SASL_FAIL_SYNTAX);
    tb_sasl_wipe(&c.sasl);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=user,r=abc"), SASL_UNKNOWN); /* no TLS */
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,,n=us=er,r=abc"), SASL_FAIL_SYNTAX);
    tb_sasl_wipe(&c.sasl);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "y,,n=user,r=abc"), SASL_CHALLENGE); /* and so we do not */
    assert_int_equal(say_final(&c, "pencil", "y,,", NULL), SASL_READY);
    assert_int_equal(log_in(&c), TB_OK);
    tb_sasl_wipe(&c.sasl);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,,n=user,r=abc"), SASL_CHALLENGE);
    assert_int_equal(say_final(&c, "pencil", "y,,", NULL), SASL_READY); /* another header than it began with */
    assert_int_equal(log_in(&c), TB_INVALID);
    tb_sasl_wipe(&c.sasl);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,,n=user,r=abc"), SASL_CHALLENGE);
    assert_int_equal(say_final(&c, "pencil", "n,,", "abc"), SASL_READY); /* its own nonce alone */
    assert_int_equal(log_in(&c), TB_INVALID);
    tb_sasl_wipe(&c.sasl);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,,n=user,r=abc"), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&c.sasl, TB_SLICE("*"), &challenge), SASL_CANCELLED);
    assert_int_equal(tb_sasl_next(&c.sasl, TB_SLICE(""), &challenge), SASL_FAIL_SYNTAX);
    tb_sasl_wipe(&c.sasl);
}

/* ---- for somebody else; schemes anew ---- */

static enum tb_rc plain_as(const char *authzid, const char *name, const char *password, struct client *c)
{
    const struct tb_sasl_env env = {.worker = (struct tb_worker *)&io, .cfg = &cfg};
    const char *challenge;
    char text[200], line[300];
    int n = snprintf(text, sizeof(text), "%s%c%s%c%s", authzid, 0, name, 0, password);

    memset(c, 0, sizeof(*c));
    text64(tb_slice(text, (size_t)n), line, sizeof(line));
    assert_int_equal(tb_sasl_begin(&c->sasl, &env, TB_SLICE("PLAIN"), tb_slice_str(line), &challenge), SASL_READY);
    (void)log_in(c);
    assert_int_equal(tb_sasl_outcome(&c->sasl, c->login.op.rc, &challenge), SASL_DONE);
    tb_sasl_wipe(&c->sasl);
    return c->login.op.rc;
}

static void masters(void **state)
{
    struct client c;

    (void)state;
    io.now_ns += 3600000000000u;
    assert_int_equal(plain_as("anna", "anna", "secret", &c), TB_OK);
    assert_int_equal(plain_as("Anna@example.test", "anna", "secret", &c), TB_OK); /* herself */
    assert_int_equal(plain_as("root", "anna", "secret", &c), TB_INVALID);
    assert_int_equal(c.login.refusal, REFUSED_AUTHORIZATION);
    assert_int_equal(plain_as("nobody", "anna", "secret", &c), TB_INVALID);
    assert_int_equal(c.login.refusal, REFUSED_AUTHORIZATION); /* she does not learn which exist */
    cfg.master_users = (char *[]){"root", NULL};
    assert_int_equal(plain_as("anna", "root", "secret", &c), TB_OK);
    assert_string_equal(c.login.identity.name, "anna");
    assert_int_equal(plain_as("closed", "root", "secret", &c), TB_OK); /* it needs no password of its own */
    assert_int_equal(plain_as("anna", "root", "wrong", &c), TB_INVALID);
    assert_int_equal(c.login.refusal, REFUSED_CREDENTIALS);
    assert_int_equal(plain_as("root", "anna", "secret", &c), TB_INVALID);
    assert_int_equal(say_first(&c, "SCRAM-SHA-256", "n,a=anna,n=root,r=abc"), SASL_CHALLENGE);
    assert_int_equal(say_final(&c, "secret", "n,a=anna,", NULL), SASL_READY);
    assert_int_equal(log_in(&c), TB_OK);
    assert_string_equal(c.login.identity.name, "anna");
    tb_sasl_wipe(&c.sasl);
    cfg.master_users = NULL;
}

static void upgrades(void **state)
{
    struct tb_login l;

    (void)state;
    io.now_ns += 3600000000000u;
    cfg.password_upgrade = true;
    assert_int_equal(try_login("unix", "anna", "wrong", &l), TB_INVALID);
    assert_string_equal(changed, "");
    assert_int_equal(try_login("unix", "anna", "secret", &l), TB_OK);
    assert_memory_equal(changed, "{SCRAM-SHA-256}32768,", 21);
    assert_true(tb_password_verify(changed, TB_SLICE("secret")));
    changed[0] = '\0';
    assert_int_equal(try_login("unix", "user", "pencil", &l), TB_OK); /* it is what it should be */
    cfg.password_upgrade = false;
    assert_int_equal(try_login("unix", "anna", "secret", &l), TB_OK);
    assert_string_equal(changed, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names),
                                       cmocka_unit_test(logins),
                                       cmocka_unit_test(unknown_names_work_as_hard),
                                       cmocka_unit_test(too_many),
                                       cmocka_unit_test(too_many_at_once),
                                       cmocka_unit_test(scram),
                                       cmocka_unit_test(nobody_can_tell),
                                       cmocka_unit_test(scram_refused),
                                       cmocka_unit_test(masters),
                                       cmocka_unit_test(upgrades)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
