/*
 * test_scram.c: SCRAM-SHA-256 without a connection: RFC 7677's example, the grammar of RFC 5802 7, and what is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/auth.h"
#include "frontends/auth/scram.h"

#include <tambo/message.h>

#include "engine/crypto/crypto.h"

/* RFC 7677 3 */
#define CLIENT_FIRST "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
#define SERVER_FIRST "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define CLIENT_FINAL \
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER_FINAL "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
#define SECRET \
    "4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=," \
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

static void assert_slice(struct tb_slice have, const char *want)
{
    assert_true(tb_slice_eq(have, tb_slice_str(want)));
}

static void the_example(void **state)
{
    uint8_t verifier[TB_SCRAM_KEY_BYTES];
    struct tb_scram_keys keys, derived;
    struct tb_scram_first first;
    struct tb_scram_final final;
    struct tb_buf text;

    (void)state;
    assert_true(tb_scram_keys_read(tb_slice_str(SECRET), &keys));
    assert_int_equal(keys.rounds, 4096);
    assert_int_equal(keys.salt_len, 16);
    derived = keys;
    memset(derived.stored, 0, sizeof(derived.stored));
    memset(derived.server, 0, sizeof(derived.server));
    assert_true(tb_scram_keys_derive(&derived, TB_SLICE("pencil")));
    assert_memory_equal(&derived, &keys, sizeof(keys));

    assert_true(tb_scram_first_read(tb_slice_str(CLIENT_FIRST), &first));
    assert_int_equal(first.flag, 'n');
    assert_slice(first.gs2, "n,,");
    assert_slice(first.bare, "n=user,r=rOprNGfwEbeRWgbNEkqO");
    assert_slice(first.name, "user");
    assert_slice(first.nonce, "rOprNGfwEbeRWgbNEkqO");
    assert_true(tb_scram_final_read(tb_slice_str(CLIENT_FINAL), &final));
    assert_slice(final.binding, "biws");

    tb_buf_init(&text, 1000);
    tb_buf_slice(&text, first.bare);
    tb_buf_str(&text, "," SERVER_FIRST ",");
    tb_buf_slice(&text, final.bare);
    assert_true(tb_scram_check(&keys, tb_buf_all(&text), final.proof, verifier));
    text.len = 0;
    tb_base64_encode(tb_slice(verifier, sizeof(verifier)), &text);
    assert_slice(tb_buf_all(&text), SERVER_FINAL);
    text.len = 0;
    tb_scram_keys_print(&keys, &text);
    assert_slice(tb_buf_all(&text), SECRET);
    text.len = 0;
    tb_buf_str(&text, "n=usex,r=rOprNGfwEbeRWgbNEkqO," SERVER_FIRST ",");
    tb_buf_slice(&text, final.bare);
    assert_false(tb_scram_check(&keys, tb_buf_all(&text), final.proof, verifier));
    tb_buf_free(&text);
}

static void first_messages(void **state)
{
    static const char *const good[] = {"n,,n=u,r=x",    "y,,n=u,r=x",           "p=tls-exporter,,n=u,r=x",
                                       "n,a=v,n=u,r=x", "n,,n=u=2C=3D,r=x,z=1", "n,,n=u,r=!-~"};
    static const char *const bad[] = {"",
                                      "n",
                                      "n,",
                                      "n,,",
                                      "x,,n=u,r=x",
                                      "nn,,n=u,r=x",
                                      "p=,,n=u,r=x",
                                      "p,,n=u,r=x",
                                      "p=a b,,n=u,r=x",
                                      "n,b=v,n=u,r=x",
                                      "n,a=,n=u,r=x",
                                      "n,,u,r=x",
                                      "n,,n=,r=x",
                                      "n,,n=u",
                                      "n,,n=u,r=",
                                      "n,,r=x,n=u",
                                      "n,,m=x,n=u,r=x",
                                      "n,,n=u,r=a b",
                                      "n,,n=u,r=x,,z=1",
                                      "n,,n=u,r=x,1=2",
                                      "n,,n=u,r=x,zz",
                                      "n,,n=u,r=\x7f"};
    struct tb_scram_first f;

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(good); i++)
        assert_true(tb_scram_first_read(tb_slice_str(good[i]), &f));
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        if (tb_scram_first_read(tb_slice_str(bad[i]), &f))
            fail_msg("taken: %s", bad[i]);
    assert_true(tb_scram_first_read(tb_slice_str(good[2]), &f));
    assert_slice(f.binding, "tls-exporter");
    assert_slice(f.gs2, "p=tls-exporter,,");
    assert_true(tb_scram_first_read(tb_slice_str(good[3]), &f));
    assert_slice(f.authzid, "v");
    assert_slice(f.gs2, "n,a=v,");
}

static void names(void **state)
{
    static const char *const bad[] = {"=", "=2", "=2c", "a=", "=41", "x=3E"};
    char out[8];
    size_t len;

    (void)state;
    assert_true(tb_scram_name(TB_SLICE("a=2Cb=3D"), 7, out, &len));
    assert_string_equal(out, "a,b=");
    assert_int_equal(len, 4);
    assert_true(tb_scram_name(TB_SLICE(""), 7, out, &len));
    assert_true(tb_scram_name(TB_SLICE("1234567"), 7, out, &len));
    assert_false(tb_scram_name(TB_SLICE("12345678"), 7, out, &len));
    assert_false(tb_scram_name(TB_SLICE("a\0b"), 7, out, &len));
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_false(tb_scram_name(tb_slice_str(bad[i]), 7, out, &len));
}

static void final_messages(void **state)
{
    static const char *const bad[] = {
        "",
        "c=biws",
        "c=biws,r=x",
        "c=biws,r=x,p=",
        "c=biws,r=x,p=AAAA",
        "c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ",
        "r=x,c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "c=biws,r=x,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=,z=1",
    };
    struct tb_scram_final f;

    (void)state;
    assert_true(tb_scram_final_read(tb_slice_str("c=biws,r=x,z=1,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), &f));
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_false(tb_scram_final_read(tb_slice_str(bad[i]), &f));
}

static void secrets(void **state)
{
    static const char *const bad[] = {"",
                                      "4096",
                                      "0,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
                                      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
                                      "4096,,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
                                      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
                                      "99999999,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
                                      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
                                      SECRET "=",
                                      "4096,AAAA,AAAA,AAAA"};
    struct tb_scram_keys keys;

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_false(tb_scram_keys_read(tb_slice_str(bad[i]), &keys));
    assert_true(tb_password_verify("{SCRAM-SHA-256}" SECRET, TB_SLICE("pencil")));
    assert_false(tb_password_verify("{SCRAM-SHA-256}" SECRET, TB_SLICE("pencils")));
    assert_false(tb_password_verify("{SCRAM-SHA-256}4096", TB_SLICE("pencil")));
    assert_false(tb_secret_other("{SCRAM-SHA-256}" SECRET));
    assert_false(tb_secret_other("{PLAIN}x"));
    assert_false(tb_secret_other(""));
    assert_true(tb_secret_other("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="));
    assert_true(tb_secret_other("{SCRAM-SHA-256}4096"));
}

/* RFC 4013 3: examples of SASLprep. */
static void prepared(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"I\xc2\xadX", "IX"},
        {"user", "user"},
        {"USER", "USER"},
        {"\xc2\xaa", "a"},
        {"\xe2\x85\xa8", "IX"},
        {"a\xc2\xa0z", "a z"},
        {"\x07", NULL},
        {"\xff", NULL},
        {"\xc2\xad", NULL},
        {"", NULL},
        {"e\xcc\x81", "\xc3\xa9"},
        {"a\xe2\x80\x8bz", "a z"},
    };
    struct tb_buf out;

    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(cases); i++) {
        tb_buf_init(&out, 100);
        assert_int_equal(tb_utf8_saslprep(tb_slice_str(cases[i].in), &out), cases[i].out != NULL);
        if (cases[i].out)
            assert_slice(tb_buf_all(&out), cases[i].out);
        tb_buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_example), cmocka_unit_test(first_messages),
                                       cmocka_unit_test(names),       cmocka_unit_test(final_messages),
                                       cmocka_unit_test(secrets),     cmocka_unit_test(prepared)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
