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

#include <errno.h>

static const char *const good[] = {
    /* made with Python's hashlib and libxcrypt */
    "{PLAIN}secret", "{plain}secret", "{CLEARTEXT}secret", "{PLAIN.HEX}736563726574", "{PLAIN.b64}c2VjcmV0",
    "{PLAIN.BASE64}c2VjcmV0", "{SSHA}1G904nLkTkGWjKNnQuB/hpWXC/hzYWx0c2FsdA==",
    "{SSHA256}oBmrdHcA6OZEkkCLeXh71YAerbvhXz1qqwjrPsXmEtNzYWx0c2FsdA==",
    "{SSHA512}aCu7JRc+kLsuEmFs1zTY+AiP7DSGnjjG+dH28Dp+E5usqoAixeTPihKqZmkWal4mUfp63tqvCAkFV1LKTDFH6XNhbHRzYWx0",
    "{SMD5}VAfQ6nCkaw9o3u+x706wnXNhbHRzYWx0", "{SSHA.HEX}d46f74e272e44e41968ca36742e07f8695970bf873616c7473616c74",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4", "{SHA.HEX}E5E9FA1BA31ECD1AE84F75CAAA474F3A663F05F4",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{SHA256.HEX}2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
    "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
    "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==", "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{PBKDF2}$1$saltsalt$1000$8b09c61e3ddee1285f60003548fcfb0963b1e8e2",
    "{PBKDF2}$1$saltsalt$1000$8B09C61E3DDEE1285F60003548FCFB0963B1E8E2", "{CRYPT}abNANd1rDfiNc",
    "{DES-CRYPT}abNANd1rDfiNc", "{CRYPT}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{MD5-CRYPT}$1$saltsalt$9xy1btjgzLYfb7hivXtC//", "{MD5}$1$saltsalt$9xy1btjgzLYfb7hivXtC//",
    "{SHA256-CRYPT}$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    "{SHA512-CRYPT}$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
    "{BLF-CRYPT}$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
    /* made with doveadm pw 2.3.19 */
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$znqxm4xYfGQpFkBignxbdQ$N6hPi2YBvN8Oy2iPbG+HBU751lJtBCk2lhw+aXEO8MI",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$zYbeapF0r8DcE6KvI7vbEw$gD7pUqhrCeD9OXt1c3CZRhUdxsl6Fo0CvrWfhNPpXBs",
    "{BLF-CRYPT}$2y$05$96SOCea9q62dZvZm.6xEWezSJPy5g1iZ9kGE.EEOhfvAwNhxa1TE6",
    "{SHA256-CRYPT}$5$.c3TFAT/FD8JYjWX$FL2ye/G3tdJko4KnveBrkqa39zb3TeSWM0eFPx0lTA6",
    "{SHA512-CRYPT}$6$rounds=10000$h5C.qIlm7ipAUjSF$"
    "u3Zg4x0d4K3EJrNBgX32tgOGknzemoFo9uQNuCIahVqYlPv2yIUAhKOiviOTQk3rg7cngeudFmuezB0FWI6Jq.",
    "{PBKDF2}$1$eDibytJXHoiqj.NC$5000$30841f97f13350902df09dc0c714364cc9ab3997",
    "{SCRAM-SHA-256}4096,/vk79Q5WxN3a7Q/WdPEEUw==,b5SD0R6CREwpTXoVk74slbh6o3ZztWZ5s6l34XNJe5U=,"
    "XHE6lQtACCM1DBOxeftfuv4LiMfTjHDQtt2w7314Kuk=",
    "{SCRAM-SHA-1}4096,MRbDWjWnsASb8pLe2TZCMg==,6I7glYDAFufwb3a2Gs7moLm3ar4=,AGRmuWNclmDVM3Xa1vYc1aEGhXU=",
    "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
    "{HMAC-MD5}CD3BA7DEAAD6E5CA23448BA42E379747A9E0F7F1FBC00C8A81BBAAC395731B56",
    "{SSHA}4WVR9jlUNSFb5ekpFI0IAFncNNnFVN+L", "{SSHA256}5Co9wOLa3E/1rD+tWGaHq938NpNEHl8ZfdPUdbl73k1gWL/r",
    "{SSHA256.HEX}d75604075494ae8fbe309175016c6ba9b6f416f320fdc9a5fedacdec141d220fc19c167c",
    "{SSHA512}0gdoWhH7C6MowzgnHHvpBaqrPDFuDCGp1KZEdtx7Eb996RYYBNFeNsSZMW8UHTOxODYWVzhpZ6K1wJAfUBD6Z8TA5+w=",
    "{SSHA512.b64}/MOPF0wescfjkOTbbS5xRZHNYASBY2+VJa8uBibB1QkjsmHAwXEEDTcVJWjv1j9p0D708t4/mGbw6GflzPXYBh6LEsA=",
    "{SMD5}TfjUD0W+PorgmEf+antjvh7Wa7M=", "{DES-CRYPT}.UXtlbNgl9tq6", "{MD5}$1$poeiklSV$/JQWdapXX8efyPlB8T/xf1",
    /* made with mkpasswd 5.5.17: yescrypt, its GOST form, scrypt, bcrypt, bcrypt's old name, SunMD5 */
    "{CRYPT}$y$j75$mieJrV9jPTR13y2Ay5c0P1$42x/gy/KmNlsLRRAQquuDV35pibxuUbw/1/dpcqRDk5",
    "{CRYPT}$gy$j75$J3bl3axoRYRhmGdBpHuba0$CUhGLT70RMHkgoem8.WrggGdPYW2av2ftj.Mqoshiq.",
    "{CRYPT}$7$BU..../....DDGULi09rtlxek6XW.5fk0$KS2HWHdT4RNI1FaWIiLwXbzwPCRbeUYZXyDCWiAiMOA",
    "{CRYPT}$2b$05$PSPGP7SV.xyrOkmpzzUo0e0sleRh2.We/nzwssJSPA0MfSbkvj//u",
    "{BLF-CRYPT}$2a$05$PXsiybfIVXuvpFLxFs0kMe24QAneyGnr5m2nWT5NkecBejyHu50X6",
    "{CRYPT}$md5,rounds=68321$5jw1Yo7q$$4pC34ADRNnODqfGRzkih31",
    /* made with passlib 1.7.4 */
    "{SHA512-CRYPT}$6$rounds=12000$x3TLI8Sk9p39aq3t$"
    "e2DBn3z4.M0glveHZ2DbWa5/aCnWlqmaVX5ASWFs6BjI4BVW2.s8xsaKzSGbVrYd17BpKi3d8bcaRSA4ZT.RM1",
    "{SHA256-CRYPT}$5$rounds=1000$63lq7az2gJwLN5pP$F6eXoeZL9QV8B4Lca.uU4tiUj3GtuXRjMDYewcQDthA",
    "{SSHA512}5aEyv85UEs7ZP9QWeFpkrgodaxIlFgx2kv1np9ZGezVq5DVePYppbxIx9NnxuLRS1+CITqZPUdqaocP+yn7iqCvFGIPwfs+5",
    /* made with the Argon2 authors' argon2: of several lanes, and of the first version */
    "{ARGON2I}$argon2i$v=19$m=256,t=3,p=2$c2FsdHNhbHRzYWx0$B/LzXDuWCr4A1yrfaDDui/mVEjis8KnCztI2BYuOOfE",
    "{ARGON2ID}$argon2id$v=16$m=256,t=2,p=1$c2FsdHNhbHRzYWx0$H4f0EB6B0D6os4Qsdxu5BA",
    "{CRYPT}$5$HCLH3H4mfMn26ilY$ucxxzYMhtTKfHrEuoqjudxlJlh/Pd3RM94JX5bkDn30", /* openssl passwd -5 */
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
    "{ARGON2ID}$argon2i$v=19$m=256,t=3,p=2$c2FsdHNhbHRzYWx0$B/LzXDuWCr4A1yrfaDDui/mVEjis8KnCztI2BYuOOfE",
    "{CRAM-MD5}",
    "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747",
    "{CRAM-MD5}zd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
    "{SCRAM-SHA-1}",
    "{SCRAM-SHA-1}4096",
    "{SCRAM-SHA-1}0,MRbDWjWnsASb8pLe2TZCMg==,6I7glYDAFufwb3a2Gs7moLm3ar4=,AGRmuWNclmDVM3Xa1vYc1aEGhXU=",
    "{SCRAM-SHA-1}4096,,6I7glYDAFufwb3a2Gs7moLm3ar4=,AGRmuWNclmDVM3Xa1vYc1aEGhXU=",
    "{SCRAM-SHA-1}4096,MRbDWjWnsASb8pLe2TZCMg==,,",
    "{SCRAM-SHA-1}4096,MRbDWjWnsASb8pLe2TZCMg==,6I7glYDAFufwb3a2Gs7moLm3,AGRmuWNclmDVM3Xa1vYc1aEGhXU=",
    "{SCRAM-SHA-1}4096,MRbDWjWnsASb8pLe2TZCMg==,l9CZwnzHw+HalQUAcsZTFmHdn6rWIwYULvGGh4U0LP4=,",
    "{SCRAM-SHA-256}4096,MRbDWjWnsASb8pLe2TZCMg==,6I7glYDAFufwb3a2Gs7moLm3ar4=,AGRmuWNclmDVM3Xa1vYc1aEGhXU=",
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
        errno = 0;
        assert_false(tb_password_verify(good[i], TB_SLICE("Secret")));
        assert_int_not_equal(errno, ENOMEM); /* or nobody would be told it is wrong */
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

/* Dovecot makes its keys without SASLprep: what they are made of must do too. */
static void not_prepared(void **state)
{
    static const char *const dovecots[] = {
        "{SCRAM-SHA-256}4096,m5ts/TZjN6OBF8+Vbce6sQ==,l9CZwnzHw+HalQUAcsZTFmHdn6rWIwYULvGGh4U0LP4=,"
        "/3K6RBz4YF37XQ6mG3Amz99IhWaeJxmJit7J/+WyPG4=",
        "{SCRAM-SHA-1}4096,QmY/7Ie7vIUdZtuG3bOVhg==,DHRw6UCiRbgAiB1UCJ2A6RtIfi8=,LojoxmkQfJLTI5Im9vA5bFFHfcs=",
    };
    uint8_t salt[16] = {0};
    char out[TB_SECRET_MAX + 1], longest[100];

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(dovecots); i++) {
        assert_true(tb_password_verify(dovecots[i], TB_SLICE("\xef\xac\x81sh \xc2\xbd")));
        assert_false(tb_password_verify(dovecots[i], TB_SLICE("fish 1\xe2\x81\x84"
                                                              "2")));
    }
    assert_int_equal(tb_password_hash(NULL, TB_SLICE("\xef\xac\x81sh"), salt, out), TB_OK);
    assert_true(tb_password_verify(out, TB_SLICE("fish")));
    assert_true(tb_password_verify(out, TB_SLICE("\xef\xac\x81sh")));
    memset(longest, 'x', sizeof(longest)); /* longer than MD5's block */
    assert_true(tb_password_verify("{CRAM-MD5}52197db948d0932512a61b183e7d05b04e94d60a3bb0d00f92d3df52a5d275ca",
                                   tb_slice(longest, sizeof(longest))));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(others), cmocka_unit_test(not_prepared),
                                       cmocka_unit_test(ours)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
