/*
 * test_sasl.c: SASL PLAIN and LOGIN: the RFC's examples, every shape of initial response, and what is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/auth.h"

#include "engine/crypto/crypto.h"

static const struct tb_slice none = {NULL, 0};

/* A fresh exchange in place of the one before, with nobody who could do more than PLAIN and LOGIN. */
static enum tb_sasl_step begin(struct tb_sasl *s, struct tb_slice mechanism, struct tb_slice initial,
                               const char **challenge)
{
    static const struct tb_sasl_env nobody;

    tb_sasl_wipe(s);
    return tb_sasl_begin(s, &nobody, mechanism, initial, challenge);
}

static enum tb_sasl_step plain(struct tb_sasl *s, struct tb_slice message)
{
    const char *challenge;
    struct tb_buf text;
    enum tb_sasl_step step;

    tb_buf_init(&text, 8192);
    tb_base64_encode(message, &text);
    step = begin(s, TB_SLICE("PLAIN"), tb_slice(text.ptr ? text.ptr : "", text.len), &challenge);
    tb_buf_free(&text);
    return step;
}

static void plain_messages(void **state)
{
    struct tb_sasl s = {0};
    char longest[2048];
    const char *challenge;

    (void)state;
    assert_int_equal(plain(&s, TB_SLICE("\0tim\0tanstaaftanstaaf")), SASL_READY); /* RFC 4616 section 4 */
    assert_string_equal(s.name, "tim");
    assert_int_equal(s.name_len, 3);
    assert_string_equal(s.password, "tanstaaftanstaaf");
    assert_int_equal(s.password_len, 16);
    assert_string_equal(s.authzid, "");
    assert_int_equal(plain(&s, TB_SLICE("Tim\0tim\0x")), SASL_READY);
    assert_int_equal(plain(&s, TB_SLICE("Ursel\0Kurt\0xipj3plmq")), SASL_READY); /* RFC 4616 section 4 */
    assert_string_equal(s.authzid, "Ursel");
    assert_string_equal(s.name, "Kurt");
    assert_int_equal(plain(&s, TB_SLICE("")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("tim")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0tim")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0tim\0")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0\0x")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0\0")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0")), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, TB_SLICE("\0tim\0x\0")), SASL_FAIL_SYNTAX);
    memset(longest, 'x', sizeof(longest));
    longest[0] = longest[TB_NAME_MAX + 1] = '\0';
    assert_int_equal(plain(&s, tb_slice(longest, TB_NAME_MAX + 2 + TB_PASSWORD_MAX)), SASL_READY);
    assert_int_equal(s.name_len, TB_NAME_MAX);
    assert_int_equal(s.password_len, TB_PASSWORD_MAX);
    assert_int_equal(plain(&s, tb_slice(longest, TB_NAME_MAX + 3 + TB_PASSWORD_MAX)), SASL_FAIL_SYNTAX);
    assert_int_equal(plain(&s, tb_slice(longest, sizeof(longest))), SASL_FAIL_SYNTAX);
    longest[TB_NAME_MAX + 1] = 'x';
    longest[TB_NAME_MAX + 2] = '\0';
    assert_int_equal(plain(&s, tb_slice(longest, TB_NAME_MAX + 10)), SASL_FAIL_SYNTAX);

    assert_int_equal(begin(&s, TB_SLICE("plain"), none, &challenge), SASL_CHALLENGE);
    assert_string_equal(challenge, "");
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("AHRpbQB4"), &challenge), SASL_READY);
    assert_string_equal(s.name, "tim");
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("AHRpbQB4"), &challenge), SASL_FAIL_SYNTAX); /* it was over */
    assert_int_equal(begin(&s, TB_SLICE("PLAIN"), none, &challenge), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("*"), &challenge), SASL_CANCELLED);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("AHRpbQB4"), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("PLAIN"), none, &challenge), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("not base64!"), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("PLAIN"), TB_SLICE("="), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("PLAIN"), TB_SLICE(""), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("CRAM-MD5"), none, &challenge), SASL_UNKNOWN);
    assert_int_equal(begin(&s, TB_SLICE(""), none, &challenge), SASL_UNKNOWN);
    assert_int_equal(begin(&s, TB_SLICE("SCRAM-SHA-256"), none, &challenge), SASL_UNKNOWN); /* no worker, no accounts */
    tb_sasl_wipe(&s);
    for (size_t i = 0; i < sizeof(s); i++)
        assert_int_equal(((const char *)&s)[i], 0);
}

static void login(void **state)
{
    struct tb_sasl s = {0};
    const char *challenge;

    (void)state;
    assert_int_equal(begin(&s, TB_SLICE("Login"), none, &challenge), SASL_CHALLENGE);
    assert_string_equal(challenge, "VXNlcm5hbWU6");
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("dGlt"), &challenge), SASL_CHALLENGE);
    assert_string_equal(challenge, "UGFzc3dvcmQ6");
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("c2VjcmV0"), &challenge), SASL_READY);
    assert_string_equal(s.name, "tim");
    assert_string_equal(s.password, "secret");
    assert_int_equal(begin(&s, TB_SLICE("LOGIN"), TB_SLICE("dGlt"), &challenge), SASL_CHALLENGE);
    assert_string_equal(challenge, "UGFzc3dvcmQ6");
    assert_int_equal(tb_sasl_next(&s, TB_SLICE(""), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("LOGIN"), none, &challenge), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE(""), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("dGlt"), &challenge), SASL_FAIL_SYNTAX);
    assert_int_equal(begin(&s, TB_SLICE("LOGIN"), none, &challenge), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("dABt"), &challenge), SASL_FAIL_SYNTAX); /* NUL in a name */
    assert_int_equal(begin(&s, TB_SLICE("LOGIN"), TB_SLICE("dGlt"), &challenge), SASL_CHALLENGE);
    assert_int_equal(tb_sasl_next(&s, TB_SLICE("*"), &challenge), SASL_CANCELLED);
    tb_sasl_wipe(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_messages), cmocka_unit_test(login)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
