/*
 * test_config.c: the configuration file: defaults, every type of value, listen blocks, and messages with file, line and
 * advice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "frontends/config/table.h"

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/tambo-config-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/tambo.conf", dir);
    return 0;
}

static int drop_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void write_file(struct tb_slice text)
{
    FILE *fp = fopen(path, "w");

    assert_non_null(fp);
    assert_int_equal(fwrite(text.ptr, 1, text.len, fp), text.len);
    assert_int_equal(fclose(fp), 0);
}

static struct tb_config *load(const char *text)
{
    struct tb_config *c = NULL;
    struct tb_error err = {0};

    write_file(tb_slice_str(text));
    if (tb_config_load(path, &c, &err) != TB_OK)
        fail_msg("%s", err.text);
    return c;
}

/* refuse: loading text fails with the message "FILE:want". */
static void refuse(const char *text, const char *want)
{
    struct tb_config *c = NULL;
    struct tb_error err = {0};
    char whole[256];

    write_file(tb_slice_str(text));
    snprintf(whole, sizeof(whole), "%s:%s", path, want);
    assert_int_equal(tb_config_load(path, &c, &err), TB_INVALID);
    assert_null(c);
    assert_string_equal(err.text, whole);
}

static void empty_file_works(void **state)
{
    struct tb_config *c = load("");
    char want[128];

    (void)state;
    assert_int_equal(c->message_bytes_max, 100 << 20);
    assert_int_equal(c->imap_idle_s, 1800);
    assert_string_equal(c->io, "auto");
    assert_string_equal(c->plain_login, "loopback");
    assert_true(c->hostname[0] != '\0');
    assert_string_equal(c->default_domain, c->hostname);
    assert_non_null(c->local_domains);
    assert_null(c->local_domains[0]);
    snprintf(want, sizeof(want), "%s/store", dir);
    assert_string_equal(c->store, want);
    assert_int_equal(c->listen_n, 5);
    assert_string_equal(c->listen[0].protocol, "imap");
    assert_string_equal(c->listen[0].address, "127.0.0.1");
    assert_int_equal(c->listen[0].port, 10143);
    assert_int_equal(c->listen[0].tls, TB_LISTEN_PLAIN);
    tb_config_free(c);
}

static void values_of_every_type(void **state)
{
    struct tb_config *c = load("hostname = mail.example.test\n"
                               "local_domains = { a.test, \"b.test\" }\n"
                               "store = /srv/store\n"
                               "control = \"\"\n"
                               "plain_login = always\n"
                               "message_bytes_max = 25M # a comment\n"
                               "imap_idle_s = 45m\n"
                               "checkpoint_ms = 2s\n"
                               "io = \"posix\"\n"
                               "workers = 3\n");

    (void)state;
    assert_string_equal(c->hostname, "mail.example.test");
    assert_string_equal(c->default_domain, "mail.example.test");
    assert_string_equal(c->local_domains[0], "a.test");
    assert_string_equal(c->local_domains[1], "b.test");
    assert_null(c->local_domains[2]);
    assert_string_equal(c->store, "/srv/store");
    assert_string_equal(c->control, "");
    assert_string_equal(c->plain_login, "always");
    assert_int_equal(c->message_bytes_max, 25 << 20);
    assert_int_equal(c->imap_idle_s, 2700);
    assert_int_equal(c->checkpoint_ms, 2000);
    assert_string_equal(c->io, "posix");
    assert_int_equal(c->workers, 3);
    tb_config_free(c);
}

static void listen_blocks_add_up(void **state)
{
    struct tb_config *c = load(
        "tls_certificate = tls.crt\ntls_key = tls.key\n"
        "listen imap { address=\"127.0.0.1\" port=10143 tls=\"starttls\" }\n"
        "listen imap { address=\"127.0.0.1\" port=10993 tls=\"tls\" }\n"
        "listen lmtp {\n  address = { \"127.0.0.1\", \"::1\", \"unix:lmtp.sock\" }\n  port = 10024\n}\n");
    char want[128];

    (void)state;
    assert_int_equal(c->listen_n, 5);
    assert_int_equal(c->listen[0].port, 10143);
    assert_int_equal(c->listen[0].tls, TB_LISTEN_STARTTLS);
    assert_int_equal(c->listen[1].port, 10993);
    assert_int_equal(c->listen[1].tls, TB_LISTEN_TLS);
    assert_string_equal(c->listen[2].protocol, "lmtp");
    assert_string_equal(c->listen[3].address, "::1");
    snprintf(want, sizeof(want), "unix:%s/lmtp.sock", dir);
    assert_string_equal(c->listen[4].address, want);
    assert_int_equal(c->listen[4].port, 0);
    tb_config_free(c);
}

static void errors_name_file_and_line(void **state)
{
    (void)state;
    refuse("\nhostnam = a\n", "2: unknown key \"hostnam\"; did you mean \"hostname\"?");
    refuse("listen imap {\n  address = \"127.0.0.1\"\n  prot = 143\n}\n",
           "3: unknown key \"prot\"; did you mean \"port\"?");
    refuse("zzzzzzzzz = 1\n", "1: unknown key \"zzzzzzzzz\"");
    refuse("listen impa { address=\"127.0.0.1\" port=1 }\n", "1: unknown protocol \"impa\"; did you mean \"imap\"?");
    refuse("listen imap { port = 1 }\n", "1: listen imap: address is missing");
    refuse("listen imap { address = \"::1\" }\n", "1: listen imap: port is missing");
    refuse("listen imap { address = \"::1\" port = 65536 }\n", "1: port: \"65536\" is not a port number, 1 to 65535");
    refuse("listen imap { address = \"::1\" port = 1 tls = yes }\n", "1: tls: \"yes\" is none of none starttls tls");
    refuse("\n\nlisten imap { address = \"::1\" port = 1 tls = tls }\n",
           "3: listen imap: tls = \"tls\" needs tls_certificate and tls_key");
    refuse("workers = many\n", "1: workers: \"many\" is not a number");
    refuse("workers = 257\n", "1: workers: 257 is out of range: 0 to 256");
    refuse("message_bytes_max = 1K\n", "1: message_bytes_max: 1K is out of range: 64K to 1G");
    refuse("message_bytes_max = 99999999999999999999\n",
           "1: message_bytes_max: \"99999999999999999999\" is not a number with K, M or G behind it, if any");
    refuse("message_bytes_max = 18014398509481984K\n",
           "1: message_bytes_max: \"18014398509481984K\" is not a number with K, M or G behind it, if any");
    refuse("io = urnig\n", "1: io: \"urnig\" is none of auto uring posix; did you mean \"uring\"?");
    refuse("store = \"\"\n", "1: store: must not be empty");
    refuse("hostname = \"a b\"\n", "1: hostname: blanks and control characters cannot be in it");
    refuse("workers = 1\nworkers = 2\n", "2: workers is set twice");
    refuse("\ntls_key = k\n", "2: tls_certificate and tls_key go together: tls_certificate is missing");
}

/* A file cut off anywhere is refused or loads; after each the whole file loads as before (the scanner keeps no state).
 */
static void broken_files_leave_nothing_behind(void **state)
{
    static const char whole[] = "hostname = \"mail.example.test\" /* why */\nlocal_domains = { 'a', \"b\" }\n"
                                "listen imap { address = { \"127.0.0.1\" } port = 143 }\n";

    (void)state;
    for (size_t n = 0; n < sizeof(whole); n++) {
        struct tb_config *c = NULL;
        struct tb_error err = {0};
        write_file(tb_slice(whole, n));
        if (tb_config_load(path, &c, &err) == TB_OK)
            tb_config_free(c);
        else
            assert_true(strncmp(err.text, path, strlen(path)) == 0 && err.text[strlen(path)] == ':');
        c = load(whole);
        assert_string_equal(c->hostname, "mail.example.test");
        assert_int_equal(c->listen_n, 1);
        tb_config_free(c);
    }
}

static void unreadable_files(void **state)
{
    struct tb_config *c = NULL;
    struct tb_error err = {0};

    (void)state;
    assert_int_equal(tb_config_load("/nowhere/tambo.conf", &c, &err), TB_INVALID);
    assert_non_null(strstr(err.text, "/nowhere/tambo.conf:0: cannot be read"));
    assert_int_equal(tb_config_load(dir, &c, &err), TB_INVALID);
    assert_null(c);
}

static void a_link_stands_for_its_file(void **state)
{
    char link[128], folder[96], want[160];
    struct tb_config *c = load("hostname = a\n");
    struct tb_error err = {0};

    (void)state;
    tb_config_free(c);
    snprintf(folder, sizeof(folder), "%s/etc", dir);
    snprintf(link, sizeof(link), "%s/link.conf", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(symlink("../tambo.conf", link), 0);
    assert_int_equal(tb_config_load(link, &c, &err), TB_OK);
    snprintf(want, sizeof(want), "%s/store", dir);
    assert_string_equal(c->store, want);
    assert_string_equal(c->path, link);
    tb_config_free(c);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(rmdir(folder), 0);
}

static void count_non_default(void *user, const struct tb_config_item *item)
{
    unsigned *n = user;

    *n += !item->is_default;
    assert_true(item->doc[0] != '\0');
}

static void count_change(void *user, const struct tb_config_item *item)
{
    unsigned *n = user;

    n[item->restart ? 1 : 0]++;
}

static void default_file_loads(void **state)
{
    struct tb_buf text;
    struct tb_config *c, *d;
    unsigned different = 0, changed[2] = {0, 0};

    (void)state;
    tb_buf_init(&text, 1 << 20);
    tb_config_write_default(dir, "mail.example.test", 20000, &text);
    tb_buf_char(&text, '\0');
    assert_false(text.failed);
    c = load(text.ptr);
    assert_string_equal(c->hostname, "mail.example.test");
    assert_int_equal(c->listen_n, 17);
    assert_int_equal(c->listen[0].port, 20143);
    tb_config_each(c, count_non_default, &different);
    assert_int_equal(different, 4); /* hostname, default_domain, certificate, key */
    d = load("log_level = debug\nworkers = 2\n");
    tb_config_changes(c, d, count_change, changed);
    assert_int_equal(changed[0], 3); /* log_level, certificate, key */
    assert_int_equal(changed[1], 4); /* hostname, default_domain, workers, listen */
    tb_config_free(c);
    tb_config_free(d);
    tb_buf_free(&text);
}

/* What a key prints as can be read back to the same value. */
static void values_print_and_parse(void **state)
{
    struct tb_config *c = load(
        "message_bytes_max = 1G\ncheckpoint_log_bytes = 1000001K\npop3_idle_s = 2h\nplain_login = always\n");
    struct tb_buf a, b;
    char why[160];

    (void)state;
    tb_buf_init(&a, 4096);
    tb_buf_init(&b, 4096);
    for (size_t i = 0; i < config_keys_n; i++) {
        if (config_keys[i].type == CONFIG_LIST)
            continue;
        a.len = b.len = 0;
        config_print(c, &config_keys[i], &a);
        tb_buf_char(&a, '\0');
        assert_true(config_set(c, &config_keys[i], "", a.ptr, why));
        config_print(c, &config_keys[i], &b);
        tb_buf_char(&b, '\0');
        assert_string_equal(a.ptr, b.ptr);
    }
    assert_int_equal(c->message_bytes_max, 1 << 30);
    assert_int_equal(c->checkpoint_log_bytes, 1000001ull << 10);
    tb_buf_free(&a);
    tb_buf_free(&b);
    tb_config_free(c);
}

static void suggestions_are_near(void **state)
{
    static const char *const words[] = {"address", "port", "tls", NULL};

    (void)state;
    assert_string_equal(config_suggest("prot", words), "port");
    assert_string_equal(config_suggest("adress", words), "address");
    assert_null(config_suggest("completely", words));
    assert_null(config_suggest("a_name_that_is_far_too_long_to_be_one_of_ours", words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_file_works),
        cmocka_unit_test(values_of_every_type),
        cmocka_unit_test(listen_blocks_add_up),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(broken_files_leave_nothing_behind),
        cmocka_unit_test(unreadable_files),
        cmocka_unit_test(a_link_stands_for_its_file),
        cmocka_unit_test(default_file_loads),
        cmocka_unit_test(values_print_and_parse),
        cmocka_unit_test(suggestions_are_near),
    };

    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
