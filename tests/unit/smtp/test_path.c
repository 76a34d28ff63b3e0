/* test_path.c: addresses as RFC 5321 4.1.2 has them, as clients write them, and as nobody should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frontends/smtp/internal.h"

static enum smtp_path_rc parse(const char *text, struct smtp_path *p, size_t *used)
{
    return smtp_path_parse(tb_slice_str(text), p, used);
}

static void good(const char *text, const char *mailbox, const char *local, const char *domain)
{
    struct smtp_path p;
    size_t used;
    assert_int_equal(parse(text, &p, &used), PATH_OK);
    assert_true(tb_slice_eq(p.mailbox, tb_slice_str(mailbox)));
    assert_string_equal(p.local, local);
    assert_int_equal(p.local_len, strlen(local));
    assert_true(tb_slice_eq(p.domain, tb_slice_str(domain)));
    assert_int_equal(text[used - 1], '>');
}

static void bad(const char *text)
{
    struct smtp_path p;
    size_t used;
    assert_int_equal(parse(text, &p, &used), PATH_SYNTAX);
}

static void test_good(void **state)
{
    (void)state;
    good("<>", "", "", "");
    good("<a@b>", "a@b", "a", "b");
    good("<postmaster>", "postmaster", "postmaster", "");
    good("<user+folder@example.test> SIZE=1", "user+folder@example.test", "user+folder", "example.test");
    good("<\"a b\"@c>", "\"a b\"@c", "a b", "c");
    good("<\"a\\\"b\\\\\"@c>", "\"a\\\"b\\\\\"@c", "a\"b\\", "c");
    good("<\"a>b\"@c>", "\"a>b\"@c", "a>b", "c");
    good("<\"\"@d>", "\"\"@d", "", "d");
    good("<a@[127.0.0.1]>", "a@[127.0.0.1]", "a", "[127.0.0.1]");
    good("<a@[IPv6:::1]>", "a@[IPv6:::1]", "a", "[IPv6:::1]");
    good("<@a.example,@b.example:u@c.example>", "u@c.example", "u", "c.example");
    good("<|x@d>", "|x@d", "|x", "d");
    good("<`x`@d>", "`x`@d", "`x`", "d");
    good("<../../x@d>", "../../x@d", "../../x", "d");
    good("<a..b.@under_score.example>", "a..b.@under_score.example", "a..b.", "under_score.example");
}

static void test_bad(void **state)
{
    (void)state;
    static const char *const list[] = {
        "",
        "<",
        ">",
        "a@b",
        " <a@b>",
        "<a@b",
        "<a@>",
        "<@b>",
        "<@b:>",
        "<@:a@b>",
        "<@a,b:u@c>",
        "<a@b..c>",
        "<a@-b>",
        "<a@b->",
        "<a@b.>",
        "<a@.b>",
        "<a b@c>",
        "<;sleep 1;@d>",
        "<a@b c>",
        "<a@[999.1.1.1]>",
        "<a@[IPv6:zz]>",
        "<a@[x:y]>",
        "<a@[1.2.3.4>",
        "<a@[]>",
        "<\"a@b>",
        "<\"a\"b@c>",
        "<\"a\\",
        "<\"a\x01\"@b>",
        "<a\r@b>",
        "<a,b@c>",
        "<<a@b>>",
        "<a@b@c>",
        "<@a",
        "<@a,",
        "<a@[1.2.3.4].example>",
        "<\"\\\x7f\"@b>",
    };
    for (size_t i = 0; i < TB_ARRAY_LEN(list); i++)
        bad(list[i]);
}

static void test_eight_bit(void **state)
{
    (void)state;
    struct smtp_path p;
    size_t used;
    assert_int_equal(parse("<j\xc3\xb6rg@d>", &p, &used), PATH_EIGHT_BIT);
    assert_int_equal(parse("<a@\xc3\xb6.example>", &p, &used), PATH_EIGHT_BIT);
    assert_int_equal(parse("<\"\xc3\xb6\"@d>", &p, &used), PATH_EIGHT_BIT);
    assert_int_equal(parse("<a b> \xc3\xb6", &p, &used), PATH_SYNTAX);
}

/* sized: a path of a local part and labels of these lengths. */
static enum smtp_path_rc sized(size_t local, size_t label, size_t labels)
{
    char text[1024];
    size_t n = 0, used;
    struct smtp_path p;
    text[n++] = '<';
    memset(text + n, 'a', local);
    n += local;
    text[n++] = '@';
    for (size_t i = 0; i < labels; i++) {
        if (i)
            text[n++] = '.';
        memset(text + n, 'b', label);
        n += label;
    }
    text[n++] = '>';
    return smtp_path_parse(tb_slice(text, n), &p, &used);
}

static void test_lengths(void **state)
{
    (void)state;
    assert_int_equal(sized(64, 10, 1), PATH_OK);
    assert_int_equal(sized(65, 10, 1), PATH_SYNTAX);
    assert_int_equal(sized(1, 63, 1), PATH_OK);
    assert_int_equal(sized(1, 64, 1), PATH_SYNTAX);
    assert_int_equal(sized(2, 1, 126), PATH_OK);     /* path 256 */
    assert_int_equal(sized(3, 1, 126), PATH_SYNTAX); /* path 257 */
    assert_int_equal(sized(1, 1, 129), PATH_SYNTAX); /* domain 257 */
}

/* Every prefix of a valid path, in a buffer that ends with it, is refused and reads nothing behind it. */
static void test_prefixes(void **state)
{
    (void)state;
    static const char whole[] = "<@a.example,@b:\"q\\\"x\"@[IPv6:2001:db8::1]>";
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        char *copy = test_malloc(n + 1);
        struct smtp_path p;
        size_t used;
        memcpy(copy, whole, n);
        assert_int_equal(smtp_path_parse(tb_slice(copy, n), &p, &used), PATH_SYNTAX);
        test_free(copy);
    }
}

static void test_helo(void **state)
{
    (void)state;
    char long_name[256];
    memset(long_name, 'a', sizeof(long_name));
    assert_true(smtp_helo_valid(TB_SLICE("client.example")));
    assert_true(smtp_helo_valid(TB_SLICE("[127.0.0.1]")));
    assert_true(smtp_helo_valid(TB_SLICE("[IPv6:::1]")));
    assert_true(smtp_helo_valid(tb_slice(long_name, 255)));
    assert_false(smtp_helo_valid(tb_slice(long_name, 256)));
    assert_false(smtp_helo_valid(TB_SLICE("")));
    assert_false(smtp_helo_valid(TB_SLICE("a b")));
    assert_false(smtp_helo_valid(TB_SLICE("a\0b")));
    assert_false(smtp_helo_valid(TB_SLICE("\xc3\xb6")));
    assert_false(smtp_helo_valid(TB_SLICE("a;b")));
    assert_false(smtp_helo_valid(TB_SLICE("(comment)")));
}

static enum smtp_params_rc mail(const char *text, bool auth)
{
    return smtp_params_mail(tb_slice_str(text), auth, 1000);
}

static void test_params(void **state)
{
    (void)state;
    assert_int_equal(mail("", false), PARAMS_OK);
    assert_int_equal(mail(" SIZE=1000 body=8bitmime", false), PARAMS_OK);
    assert_int_equal(mail("  BODY=7BIT  ", false), PARAMS_OK);
    assert_int_equal(mail(" SIZE=1001", false), PARAMS_HUGE);
    assert_int_equal(mail(" SIZE=99999999999999999999", false), PARAMS_HUGE);
    assert_int_equal(mail(" SIZE=999999999999999999999", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" SIZE=00000000000000000001", false), PARAMS_OK);
    assert_int_equal(mail(" SIZE=-1", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" SIZE=", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" SIZE", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" SIZE=1 SIZE=1", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" SIZE=2000 SIZE=1", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" BODY=FOO", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" BODY=BINARYMIME", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" BODY", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" FOO=BAR", false), PARAMS_UNKNOWN);
    assert_int_equal(mail(" SMTPUTF8", false), PARAMS_UNKNOWN);
    assert_int_equal(mail(" AUTH=<>", false), PARAMS_UNKNOWN);
    assert_int_equal(mail(" AUTH=<>", true), PARAMS_OK);
    assert_int_equal(mail(" AUTH=a+3Db", true), PARAMS_OK);
    assert_int_equal(mail(" AUTH", true), PARAMS_SYNTAX);
    assert_int_equal(mail(" =1", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" -A=1", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" A=b=c", false), PARAMS_SYNTAX);
    assert_int_equal(mail(" A\x01=b", false), PARAMS_SYNTAX);
    assert_int_equal(smtp_params_rcpt(TB_SLICE("")), PARAMS_OK);
    assert_int_equal(smtp_params_rcpt(TB_SLICE(" NOTIFY=NEVER")), PARAMS_UNKNOWN);
    assert_int_equal(smtp_params_rcpt(TB_SLICE(" !")), PARAMS_SYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_bad),      cmocka_unit_test(test_eight_bit),
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_prefixes), cmocka_unit_test(test_helo),
        cmocka_unit_test(test_params),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
