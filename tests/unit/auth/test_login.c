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
#include "frontends/config/config.h"

#include <stdio.h>
#include <unistd.h>

/* ---- in place of the store and of engine/io ---- */

struct tb_io {
    struct tb_op *posted, *offloaded;
    uint64_t now_ns;
};
static struct tb_io io = {.now_ns = 1000000000};
static const struct {
    const char *name, *secret;
} accounts[] = {
    {"anna", "{PLAIN}secret"},
    {"bob@example.test", "{PLAIN}secret"},
    {"carl@other.test", "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA=="},
    {"a+b", "{PLAIN}secret"},
    {"root", "{PLAIN}secret"},
    {"closed", ""},
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
                               .local_domains = further};

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
    assert_int_equal(try_login("unix", "carl@other.test", "secret", &l), TB_OK); /* a slow scheme matched last */
    l.op.done = set_flag;
    l.op.user = &done;
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody1"), TB_SLICE("x"), &l);
    assert_non_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
    assert_int_equal(try_login("unix", "anna", "secret", &l), TB_OK); /* now a cheap one */
    tb_login_start(NULL, &cfg, "imap", "unix", TB_SLICE("nobody2"), TB_SLICE("secret"), &l);
    assert_null(io.offloaded);
    turn();
    assert_int_equal(l.op.rc, TB_INVALID);
}

static void too_many(void **state)
{
    struct tb_login l;
    int wrong = 0;

    (void)state;
    io.now_ns += 3600000000000u;
    while (wrong < 100 && try_login("198.51.100.9", wrong % 2 ? "anna" : "nobody", "wrong", &l) == TB_INVALID)
        wrong++;
    assert_int_equal(wrong, 20);
    assert_int_equal(l.op.rc, TB_BUSY);
    assert_int_equal(try_login("198.51.100.10", "bob", "secret", &l), TB_BUSY); /* not even with the right one */
    assert_int_equal(try_login("198.51.101.1", "bob", "secret", &l), TB_OK);
    io.now_ns += 61000000000u;
    assert_int_equal(try_login("198.51.100.10", "bob", "secret", &l), TB_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(logins),
                                       cmocka_unit_test(unknown_names_work_as_hard), cmocka_unit_test(too_many)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
