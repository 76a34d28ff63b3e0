/*
 * test_ctl.c: the admin verbs on a real store in a temporary folder, asked as `tambo` asks them: one JSON line in, one
 * out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/ctl/verbs.h"

static char dir[64];
static struct tb_io *io;
static struct tb_store *store;
static struct tb_worker *worker;
static struct tb_config cfg = {.default_domain = (char *)(uintptr_t) "example.test",
                               .password_scheme = (char *)(uintptr_t) "SCRAM-SHA-256"};

static void flag_done(struct tb_op *op)
{
    bool *done = op->user;

    *done = true;
}

static int open_store(void **state)
{
    struct tb_store_options options = {.segment_bytes = 4 << 20, .shards = 3};
    struct tb_store_config sc = {.workers = 1};
    struct tb_error err = {0};
    char path[80];

    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/tambo-ctl-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/store", dir);
    sc.dir = path;
    if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK || tb_store_create(io, path, &options, &err) != TB_OK ||
        tb_store_open(io, &sc, &store, &err) != TB_OK || tb_worker_open(store, 0, io, &worker, &err) != TB_OK) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    tb_worker_started(worker);
    return 0;
}

static int close_store(void **state)
{
    bool done = false;
    struct tb_op op = {.done = flag_done, .user = &done};
    char command[96];

    (void)state;
    tb_worker_stop(worker, &op);
    while (!done)
        (void)tb_worker_turn(worker, true);
    tb_worker_close(worker);
    tb_store_close(store);
    tb_io_close(io);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command) == 0 ? 0 : -1;
}

/* ask: the answer to one line, owned. */
static json_t *ask(const char *line)
{
    bool done = false;
    struct tb_ctl_request r = {.op = {.done = flag_done, .user = &done}};
    json_t *answer;

    tb_ctl_run(worker, &cfg, tb_slice_str(line), &r);
    assert_false(done); /* never inside the call */
    while (!done)
        (void)tb_worker_turn(worker, true);
    assert_true(r.reply.len > 0 && r.reply.ptr[r.reply.len - 1] == '\n');
    assert_ptr_equal(memchr(r.reply.ptr, '\n', r.reply.len), r.reply.ptr + r.reply.len - 1);
    assert_null(memmem(r.reply.ptr, r.reply.len, "sesame", 6)); /* every password here has it in it */
    answer = json_loadb(r.reply.ptr, r.reply.len, 0, NULL);
    assert_non_null(answer);
    tb_buf_free(&r.reply);
    return answer;
}

static void expect_error(const char *line, int exit_code, const char *text)
{
    json_t *answer = ask(line);

    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_int_equal(json_integer_value(json_object_get(answer, "exit")), exit_code);
    assert_string_equal(json_string_value(json_object_get(answer, "error")), text);
    json_decref(answer);
}

static json_t *expect_ok(const char *line)
{
    json_t *answer = ask(line), *result = json_object_get(answer, "result");

    if (!json_is_true(json_object_get(answer, "ok")))
        fail_msg("%s: %s", line, json_string_value(json_object_get(answer, "error")));
    assert_non_null(result);
    json_incref(result);
    json_decref(answer);
    return result;
}

static void expect_text(const char *line, const char *key, const char *want)
{
    json_t *result = expect_ok(line);

    assert_string_equal(json_string_value(json_object_get(result, key)), want);
    json_decref(result);
}

static void expect_import(const char *line, int added, int updated, int skipped, size_t failed)
{
    json_t *result = expect_ok(line);

    assert_int_equal(json_integer_value(json_object_get(result, "added")), added);
    assert_int_equal(json_integer_value(json_object_get(result, "updated")), updated);
    assert_int_equal(json_integer_value(json_object_get(result, "skipped")), skipped);
    assert_int_equal(json_array_size(json_object_get(result, "failed")), failed);
    json_decref(result);
}

static bool password_is(const char *account, const char *password)
{
    struct tb_identity who;

    return tb_directory_find(store, tb_slice_str(account), &who) == TB_OK &&
           tb_password_verify(who.secret, tb_slice_str(password));
}

static void bad_requests(void **state)
{
    (void)state;
    expect_error("", 64, "the request is not JSON");
    expect_error("{\"verb\":\"stat\"", 64, "the request is not JSON");
    expect_error("{\"verb\":\"stat\"} x", 64, "the request is not JSON");
    expect_error("[]", 64, "the request has no verb, or its args are no object");
    expect_error("{\"verb\":7}", 64, "the request has no verb, or its args are no object");
    expect_error("{\"verb\":\"stat\",\"args\":[]}", 64, "the request has no verb, or its args are no object");
    expect_error("{\"verb\":\"account\"}", 64, "unknown verb");
    expect_error("{\"verb\":\"account add\"}", 64, "args.name: 1 to 255 bytes are needed");
    expect_error("{\"verb\":\"account add\",\"args\":{\"name\":\"x\",\"password\":\"\"}}", 64,
                 "args.password: 1 to 1024 bytes are needed, none of them NUL");
    expect_error("{\"verb\":\"account add\",\"args\":{\"name\":\"x\",\"password\":\"a\\u0000sesame\"}}", 64,
                 "args.password: 1 to 1024 bytes are needed, none of them NUL");
    expect_error("{\"verb\":\"account add\",\"args\":{\"name\":\"x\",\"password\":\"sesame\",\"scheme\":\"ROT13\"}}",
                 64, "the scheme is not known, or the password cannot be stored in it");
    expect_error("{\"verb\":\"account import\",\"args\":{\"lines\":\"x\"}}", 64,
                 "args.lines: an array of lines is needed");
    expect_error("{\"verb\":\"mailbox list\",\"args\":{}}", 64, "args.account: a name is needed");
}

static void an_accounts_life(void **state)
{
    (void)state;
    expect_text(
        "{\"verb\":\"account add\",\"args\":{\"name\":\"Alice\",\"password\":\"sesame 1\",\"scheme\":\"PLAIN\"}}",
        "account", "alice");
    assert_true(password_is("alice", "sesame 1"));
    expect_error(
        "{\"verb\":\"account add\",\"args\":{\"name\":\"alice\",\"password\":\"sesame 2\",\"scheme\":\"PLAIN\"}}", 73,
        "alice: already exists");
    /* with the default domain it is the same account */
    expect_error("{\"verb\":\"account add\",\"args\":{\"name\":\"alice@EXAMPLE.test\",\"password\":\"sesame 2\","
                 "\"scheme\":\"PLAIN\"}}",
                 73, "alice: already exists");
    expect_text("{\"verb\":\"account passwd\",\"args\":{\"name\":\"alice\",\"password\":\"sesame 3\"}}", "account",
                "alice");
    assert_true(password_is("alice", "sesame 3"));
    assert_false(password_is("alice", "sesame 1"));
    expect_error(
        "{\"verb\":\"account passwd\",\"args\":{\"name\":\"nobody\",\"password\":\"sesame\",\"scheme\":\"PLAIN\"}}", 67,
        "nobody: not found");
    expect_error("{\"verb\":\"account add\",\"args\":{\"name\":\"a b\",\"password\":\"sesame\",\"scheme\":\"PLAIN\"}}",
                 65, "a b: not a name for an account");
    expect_text("{\"verb\":\"account delete\",\"args\":{\"name\":\"alice\"}}", "account", "alice");
    expect_error("{\"verb\":\"account delete\",\"args\":{\"name\":\"alice\"}}", 67, "alice: not found");
}

static void importing(void **state)
{
    json_t *result, *failed;

    (void)state;
    expect_import("{\"verb\":\"account import\",\"args\":{\"lines\":[\"bob:{PLAIN}sesame::::::\",\"\",\"# remark\","
                  "\"carol@other.test:{PLAIN}sesame\\n\",\"dora:!\"]}}",
                  3, 0, 2, 0);
    assert_true(password_is("bob", "sesame"));
    assert_true(password_is("carol@other.test", "sesame"));
    assert_false(password_is("dora", ""));
    result = expect_ok("{\"verb\":\"account import\",\"args\":{\"first_line\":11,\"lines\":[\"bob:{PLAIN}sesame two\","
                       "\":{PLAIN}x\",null,\"eve:{NOSUCH}x\",\"e ve:{PLAIN}x\"]}}");
    failed = json_object_get(result, "failed");
    assert_int_equal(json_integer_value(json_object_get(result, "updated")), 1);
    assert_int_equal(json_array_size(failed), 4);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(failed, 0), "line")), 12);
    assert_string_equal(json_string_value(json_object_get(json_array_get(failed, 1), "error")),
                        "the line is not UTF-8");
    json_decref(result);
    assert_true(password_is("bob", "sesame two"));
    expect_import("{\"verb\":\"account import\",\"args\":{\"lines\":[]}}", 0, 0, 0, 0);
}

/* More lines than slots; then the list in pages is complete and in order. */
static void many_accounts(void **state)
{
    json_t *lines = json_array(), *request, *page;
    char text[300] = "", last[256] = "";
    size_t seen = 0;
    char *line;

    (void)state;
    for (int i = 0; i < 500; i++) {
        snprintf(text, sizeof(text), "many%03d:{PLAIN}sesame", i);
        json_array_append_new(lines, json_string(text));
    }
    request = json_pack("{s:s, s:{s:o}}", "verb", "account import", "args", "lines", lines);
    line = json_dumps(request, 0);
    expect_import(line, 500, 0, 0, 0);
    expect_import(line, 0, 500, 0, 0);
    free(line);
    json_decref(request);
    for (;;) {
        const json_t *list;
        snprintf(text, sizeof(text), "{\"verb\":\"account list\",\"args\":{\"after\":\"%s\",\"limit\":77}}", last);
        page = expect_ok(text);
        list = json_object_get(page, "accounts");
        for (size_t i = 0; i < json_array_size(list); i++, seen++) {
            const char *name = json_string_value(json_object_get(json_array_get(list, i), "account"));
            assert_true(strcmp(last, name) < 0);
            snprintf(last, sizeof(last), "%s", name);
        }
        if (!json_object_get(page, "next"))
            break;
        json_decref(page);
    }
    json_decref(page);
    assert_int_equal(seen, 503); /* with bob, carol and dora */
}

static const json_t *find_mailbox(const json_t *result, const char *name)
{
    const json_t *list = json_object_get(result, "mailboxes"), *m;
    size_t i;

    json_array_foreach (list, i, m)
        if (strcmp(json_string_value(json_object_get(m, "name")), name) == 0)
            return m;
    return NULL;
}

static void mailboxes(void **state)
{
    json_t *result = expect_ok("{\"verb\":\"mailbox list\",\"args\":{\"account\":\"bob@example.test\"}}");

    (void)state;
    assert_int_equal(json_array_size(json_object_get(result, "mailboxes")), 6);
    assert_non_null(find_mailbox(result, "INBOX"));
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(find_mailbox(result, "Trash"), "special_use"), 0)), "\\Trash");
    json_decref(result);
    expect_text("{\"verb\":\"mailbox create\",\"args\":{\"account\":\"bob\",\"name\":\"Pröj/2026\"}}", "mailbox",
                "Pröj/2026");
    expect_error("{\"verb\":\"mailbox create\",\"args\":{\"account\":\"bob\",\"name\":\"Pröj/2026\"}}", 73,
                 "Pröj/2026: already exists");
    expect_error("{\"verb\":\"mailbox create\",\"args\":{\"account\":\"bob\",\"name\":\"a//b\"}}", 65,
                 "a//b: not a name for a mailbox");
    expect_error("{\"verb\":\"mailbox create\",\"args\":{\"account\":\"nobody\",\"name\":\"x\"}}", 67,
                 "nobody: no such account");
    result = expect_ok("{\"verb\":\"mailbox list\",\"args\":{\"account\":\"bob\"}}");
    assert_non_null(find_mailbox(result, "Pröj/2026"));
    json_decref(result);
    expect_error("{\"verb\":\"mailbox delete\",\"args\":{\"account\":\"bob\",\"name\":\"inbox\"}}", 65,
                 "inbox: cannot be deleted");
    expect_error("{\"verb\":\"mailbox delete\",\"args\":{\"account\":\"bob\",\"name\":\"None\"}}", 67,
                 "None: not found");
    expect_text("{\"verb\":\"mailbox delete\",\"args\":{\"account\":\"bob\",\"name\":\"Pröj/2026\"}}", "mailbox",
                "Pröj/2026");
}

static void numbers(void **state)
{
    json_t *result = expect_ok("{\"verb\":\"stat\"}"), *total = json_object_get(result, "total");

    (void)state;
    assert_int_equal(json_array_size(json_object_get(result, "shards")), 3);
    assert_int_equal(json_integer_value(json_object_get(total, "accounts")), 503);
    assert_int_equal(json_integer_value(json_object_get(total, "messages")), 0);
    assert_true(json_integer_value(json_object_get(total, "log_used_bytes")) > 0);
    json_decref(result);
}

static void expect_line(const char *line, const char *name, const char *secret)
{
    char got[TB_SECRET_MAX + 1];
    struct tb_slice found;

    assert_null(ctl_passwd_line(tb_slice_str(line), &found, got));
    assert_true(tb_slice_eq(found, tb_slice_str(name)));
    assert_string_equal(got, secret);
}

static void passwd_lines(void **state)
{
    char line[600], secret[TB_SECRET_MAX + 1];
    struct tb_slice name;

    (void)state;
    expect_line("user:{PLAIN}pass::::::", "user", "{PLAIN}pass");
    expect_line("user@domain:{PLAIN}p w", "user@domain", "{PLAIN}p w");
    expect_line("user:$6$salt$hash:1000:1000::/home/u::", "user", "{CRYPT}$6$salt$hash");
    expect_line("user", "user", "");
    expect_line("user:", "user", "");
    expect_line("user:*", "user", "");
    expect_line("user:!$6$salt$hash", "user", "");
    assert_non_null(ctl_passwd_line(tb_slice_str(":{PLAIN}x"), &name, secret));
    assert_non_null(ctl_passwd_line(tb_slice_str("u:{UNKNOWN}x"), &name, secret));
    assert_non_null(ctl_passwd_line(tb_slice("u:{PLAIN}a\0b", 12), &name, secret));
    memset(line, 'x', sizeof(line));
    memcpy(line, "u:{PLAIN}", 9);
    assert_null(ctl_passwd_line(tb_slice(line, 2 + TB_SECRET_MAX), &name, secret));
    assert_int_equal(strlen(secret), TB_SECRET_MAX);
    assert_non_null(ctl_passwd_line(tb_slice(line, 3 + TB_SECRET_MAX), &name, secret));
    memset(line, 'x', sizeof(line));
    assert_null(ctl_passwd_line(tb_slice(line, TB_NAME_MAX), &name, secret));
    assert_non_null(ctl_passwd_line(tb_slice(line, TB_NAME_MAX + 1), &name, secret));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passwd_lines), cmocka_unit_test(bad_requests),  cmocka_unit_test(an_accounts_life),
        cmocka_unit_test(importing),    cmocka_unit_test(many_accounts), cmocka_unit_test(mailboxes),
        cmocka_unit_test(numbers),
    };

    return cmocka_run_group_tests(tests, open_store, close_store);
}
