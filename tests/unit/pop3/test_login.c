/*
 * test_login.c: where passwords may pass (RFC 2595 2.3): not from afar without TLS, unless the setting says so; and
 * what CAPA says about it. Over loopback the dialogues cannot show this. net's doors are defined here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/pop3/session.h"

static struct {
    struct pop3 session;
    struct tb_config config;
    struct tb_net_config net;
    struct tb_listener listener;
    struct tb_buf out;
    struct tb_slice line;
    bool secure, loopback, has_line, starttls;
} w;

void *tb_conn_session(struct tb_conn *c)
{
    (void)c;
    return &w.session;
}
const struct tb_net_config *tb_conn_config(struct tb_conn *c)
{
    (void)c;
    return &w.net;
}
const struct tb_listener *tb_conn_listener(struct tb_conn *c)
{
    (void)c;
    return &w.listener;
}
struct tb_worker *tb_conn_worker(struct tb_conn *c)
{
    (void)c;
    return NULL;
}
const char *tb_conn_id(const struct tb_conn *c)
{
    (void)c;
    return "test";
}
const char *tb_conn_peer(const struct tb_conn *c)
{
    (void)c;
    return "192.0.2.1";
}
const char *tb_conn_tls_text(const struct tb_conn *c)
{
    (void)c;
    return "";
}
bool tb_conn_secure(const struct tb_conn *c)
{
    (void)c;
    return w.secure;
}
const struct tb_tls *tb_conn_tls(const struct tb_conn *c)
{
    (void)c;
    return NULL;
}
bool tb_conn_loopback(const struct tb_conn *c)
{
    (void)c;
    return w.loopback;
}
bool tb_conn_eof(const struct tb_conn *c)
{
    (void)c;
    return false;
}
bool tb_conn_full(const struct tb_conn *c)
{
    (void)c;
    return false;
}
struct tb_slice tb_conn_input(struct tb_conn *c)
{
    (void)c;
    return tb_slice(NULL, 0);
}
void tb_conn_consume(struct tb_conn *c, size_t n)
{
    (void)c;
    (void)n;
}
enum tb_line tb_conn_line(struct tb_conn *c, size_t max, struct tb_slice *line)
{
    (void)c;
    (void)max;
    *line = w.line;
    bool has = w.has_line;
    w.has_line = false;
    return has ? LINE_OK : LINE_MORE;
}
void tb_conn_put(struct tb_conn *c, struct tb_slice s)
{
    (void)c;
    tb_buf_slice(&w.out, s);
}
void tb_conn_puts(struct tb_conn *c, const char *s)
{
    (void)c;
    tb_buf_str(&w.out, s);
}
void tb_conn_printf(struct tb_conn *c, const char *fmt, ...)
{
    (void)c;
    tb_buf_str(&w.out, fmt);
}
void tb_conn_account(struct tb_conn *c, struct tb_account *a)
{
    (void)c;
    (void)a;
}
void tb_conn_resume(struct tb_conn *c)
{
    (void)c;
}
void tb_conn_starttls(struct tb_conn *c)
{
    (void)c;
    w.starttls = true;
}
void tb_conn_move(struct tb_conn *c, uint32_t worker)
{
    (void)c;
    (void)worker;
}
void tb_conn_timeout(struct tb_conn *c, uint32_t seconds, bool authenticated)
{
    (void)c;
    (void)seconds;
    (void)authenticated;
}
void tb_conn_set_name(struct tb_conn *c, const char *name)
{
    (void)c;
    (void)name;
}
void tb_conn_abort(struct tb_conn *c)
{
    (void)c;
}

/* ---- */

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    tb_buf_init(&w.out, 1 << 16);
    w.net.user = &w.config;
    w.config.pop3_idle_s = 600;
    w.listener.tls = TB_TLS_STARTTLS;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tb_pop3_proto.close(NULL);
    tb_buf_free(&w.out);
    return 0;
}

/* One command; the answer as text. */
static const char *ask(const char *command)
{
    w.out.len = 0;
    w.line = tb_slice_str(command);
    w.has_line = true;
    (void)tb_pop3_proto.step(NULL);
    tb_buf_char(&w.out, '\0');
    assert_false(w.out.failed);
    return w.out.ptr;
}

static const char refusal[] = "-ERR [SYS/PERM] no passwords without encryption: use STLS first\r\n";

static void test_from_afar(void **state)
{
    (void)state;
    assert_string_equal(ask("USER ann"), refusal);
    assert_string_equal(ask("PASS secret"), "-ERR USER first\r\n");
    assert_string_equal(ask("AUTH PLAIN AGFubgBzZWNyZXQ="), refusal);
    assert_string_equal(ask("AUTH LOGIN"), refusal);
    assert_string_equal(ask("AUTH"), refusal);
    const char *capa = ask("CAPA");
    assert_null(strstr(capa, "USER\r\n"));
    assert_null(strstr(capa, "SASL"));
    assert_non_null(strstr(capa, "\r\nSTLS\r\n"));
    assert_string_equal(ask("STLS"), "+OK begin TLS\r\n");
    assert_true(w.starttls);
}

static void allowed(void)
{
    assert_string_equal(ask("USER ann"), "+OK\r\n");
    assert_string_equal(ask("AUTH PLAIN"), "+ \r\n");
    assert_string_equal(ask("*"), "-ERR authentication cancelled\r\n");
    const char *capa = ask("CAPA");
    assert_non_null(strstr(capa, "\r\nUSER\r\nSASL PLAIN LOGIN\r\n"));
    assert_int_equal(strstr(capa, "\r\nSTLS\r\n") == NULL, w.secure);
}

static void test_over_tls(void **state)
{
    (void)state;
    w.secure = true;
    allowed();
}

static void test_loopback(void **state)
{
    (void)state;
    w.loopback = true;
    allowed();
}

static void test_setting(void **state)
{
    (void)state;
    w.config.plain_login = (char[]){"always"};
    allowed();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_from_afar, setup, teardown),
        cmocka_unit_test_setup_teardown(test_over_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loopback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_setting, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
