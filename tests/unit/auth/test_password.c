/*
 * test_password.c: every scheme verifies what other programs made of "secret", no other; what we make verifies.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/auth.h"
#include "frontends/auth/password.h"

static const char *const good[] = {
    /* made with Python's hashlib and libxcrypt */
    "{PLAIN}secret",
    "{plain}secret",
    "{CLEARTEXT}secret",
    "{PLAIN.HEX}736563726574",
    "{PLAIN.b64}c2VjcmV0",
    "{PLAIN.BASE64}c2VjcmV0",
    "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA==",
    "{SSHA256}oBmrdHcA6OZEkkCLeXh71YAerbvhXz1qqwjrPsXmEtNzYWx0c2FsdA==",
    "{SSHA512}aCu7JRc+kLsuEmFs1zTY+AiP7DSGnjjG+dH28Dp+E5usqoAixeTPihKqZmkWal4mUfp63tqvCAkFV1LKTDFH6XNhbHRzYWx0",
    "{SMD5}VAfQ6nCkaw9o3u+x706wnXNhbHRzYWx0",
    "{SSHA.HEX}d46f74e272e44e41968ca36742e07f8695970bf873616c7473616c74",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4",
    "{SHA.HEX}E5E9FA1BA31ECD1AE84F75CAAA474F3A663F05F4",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{SHA256.HEX}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
    "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
    "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{PBKDF2}$1$saltsalt$1000$8b09c61e3ddee1285f60003548fcfb0963b1e8e2",
    "{PBKDF2}$1$saltsalt$1000$8B09C61E3DDEE1285F60003548FCFB0963B1E8E2",
    "{CRYPT}abNANd1rDfiNc",
    "{DES-CRYPT}abNANd1rDfiNc",
    "{CRYPT}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{MD5-CRYPT}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{MD5}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{SHA256-CRYPT}$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    "{SHA512-CRYPT}$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
    "{BLF-CRYPT}$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
};

static const char *const bad[] = {
    "",
    "secret",
    "{",
    "{}",
    "{}secret",
    "{PLAIN",
    "{NONSENSE}secret",
    "{PLAIN.ROT13}secret",
    "{PLAIN.}secret",
    "{PLAIN}secret ",
    "{PLAIN.HEX}73656372657",
    "{PLAIN.HEX}7365637265zz",
    "{PLAIN.B64}c2VjcmV0=",
    "{SSHA}",
    "{SSHA}x",
    "{SHA}",
    "{SSHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",            /* no salt */
    "{SHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA==", /* salt behind an unsalted one */
    "{CRYPT}",
    "{CRYPT}*0",
    "{CRYPT}*1",
    "{CRYPT}*",
    "{CRYPT}!",
    "{CRYPT}secret",
    "{CRYPT}$6$",
    "{CRYPT}$9$x$y",
    "{MD5-CRYPT}$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
    "{ARGON2ID}",
    "{ARGON2ID}$argon2id$",
    "{ARGON2ID}$argon2i$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
    "{PBKDF2}",
    "{PBKDF2}$1$",
    "{PBKDF2}$1$saltsalt$0$8b09c61e3ddee1285f60003548fcfb0963b1e8e2",
    "{PBKDF2}$1$saltsalt$99999999999$8b09c61e3ddee1285f60003548fcfb0963b1e8e2",
    "{PBKDF2}$1$saltsalt$1000$",
    "{PBKDF2}$1$saltsalt$1000$8b09c61e3ddee1285f60003548fcfb0963b1e8e2$",
};

static void others(void **state)
{
    char longest[2000];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    for (size_t i = 0; i < TB_ARRAY_LEN(good); i++) {
        if (!tb_password_verify(good[i], TB_SLICE("secret")))
            fail_msg("refused: %s", good[i]);
        assert_false(tb_password_verify(good[i], TB_SLICE("Secret")));
        assert_false(tb_password_verify(good[i], TB_SLICE("secre")));
        assert_false(tb_password_verify(good[i], TB_SLICE("")));
        assert_false(tb_password_verify(good[i], TB_SLICE("secret\0x")));
        assert_false(tb_password_verify(good[i], tb_slice(longest, sizeof(longest))));
        assert_true(tb_secret_known(good[i]));
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        if (tb_password_verify(bad[i], TB_SLICE("secret")))
            fail_msg("accepted: %s", bad[i]);
        assert_false(tb_password_verify(bad[i], TB_SLICE("")));
    }
    assert_true(tb_password_verify("{PLAIN}", TB_SLICE("")));
    assert_false(tb_secret_known("secret"));
    assert_false(tb_secret_known("{NONSENSE}x"));
    assert_true(tb_secret_cheap("{PLAIN}x"));
    assert_true(tb_secret_cheap("{Plain.HEX}00"));
    assert_false(tb_secret_cheap("{SSHA}x"));
    assert_false(tb_secret_cheap("{ARGON2ID}$argon2id$"));
    assert_false(tb_secret_cheap("{SCRAM-SHA-256}4096"));
}

static void ours(void **state)
{
    static const char *const schemes[] = {NULL,        "SCRAM-SHA-256", "ARGON2ID", "argon2id",
                                          "BLF-CRYPT", "SHA512-CRYPT",  "PLAIN"};
    uint8_t salt[16] = {1, 2, 3, 250, 251, 252, 253, 254, 255};
    char out[TB_SECRET_MAX + 1], again[TB_SECRET_MAX + 1], longest[TB_PASSWORD_MAX + 1];

    (void)state;
    memset(longest, 'x', sizeof(longest));
    for (size_t i = 0; i < TB_ARRAY_LEN(schemes); i++) {
        assert_int_equal(tb_password_hash(schemes[i], TB_SLICE("p\xc3\xa4ss w\"ord"), salt, out), TB_OK);
        assert_true(tb_secret_known(out));
        assert_true(tb_password_verify(out, TB_SLICE("p\xc3\xa4ss w\"ord")));
        assert_false(tb_password_verify(out, TB_SLICE("p\xc3\xa4ss w\"orD")));
        assert_int_equal(tb_password_hash(schemes[i], TB_SLICE(""), salt, out), TB_INVALID);
        assert_int_equal(tb_password_hash(schemes[i], tb_slice(longest, sizeof(longest)), salt, out), TB_LIMIT);
    }
    assert_int_equal(tb_password_hash(NULL, TB_SLICE("x"), salt, out), TB_OK);
    assert_memory_equal(out, "{SCRAM-SHA-256}32768,", 21);
    salt[0]++;
    assert_int_equal(tb_password_hash(NULL, TB_SLICE("x"), salt, again), TB_OK);
    assert_string_not_equal(out, again);
    assert_int_equal(tb_password_hash(NULL, tb_slice(longest, TB_PASSWORD_MAX), salt, out), TB_OK);
    assert_true(tb_password_verify(out, tb_slice(longest, TB_PASSWORD_MAX)));
    assert_int_equal(tb_password_hash("ARGON2ID", TB_SLICE("x"), salt, out), TB_OK);
    assert_memory_equal(out, "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$", 41);
    assert_int_equal(tb_password_hash("BLF-CRYPT", tb_slice(longest, 72), salt, out), TB_OK);
    assert_memory_equal(out, "{BLF-CRYPT}$2b$12$", 18);
    assert_int_equal(tb_password_hash("BLF-CRYPT", tb_slice(longest, 73), salt, out), TB_INVALID);
    assert_int_equal(tb_password_hash("SHA512-CRYPT", TB_SLICE("a\0b"), salt, out), TB_INVALID);
    assert_int_equal(tb_password_hash("PLAIN", TB_SLICE("a\nb"), salt, out), TB_INVALID);
    assert_int_equal(tb_password_hash("PLAIN", tb_slice(longest, TB_SECRET_MAX - 7), salt, out), TB_OK);
    assert_int_equal(tb_password_hash("PLAIN", tb_slice(longest, TB_SECRET_MAX - 6), salt, out), TB_LIMIT);
    assert_int_equal(tb_password_hash("ROT13", TB_SLICE("x"), salt, out), TB_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(others), cmocka_unit_test(ours)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
