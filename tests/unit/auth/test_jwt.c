/*
 * test_jwt.c: JSON as far as tokens need it; key sets; tokens signed by OpenSSL (tests/lib/jwt.py), whole and tampered
 * with. What the claims may say is tried over the wire (tests/clients/test_sasl.py), with keys made on the spot.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "frontends/auth/json.h"
#include "frontends/auth/jwt.h"
#include "frontends/auth/oauth.h"

/* clang-format off */
static const char keys[] =
    "{\"keys\": [{\"kid\": \"kRS256\", \"use\": \"sig\", \"alg\": \"RS256\", \"kty\": \"RSA\", \"n\": \"5"
    "vuZ2wSy5WRl-tXnN9tsZk17bv_WOWqnwfTcymjYa4r3jZs3lyRVBg8L_37RzBVLdbquMlr6H0rsvspFY9E9aNiLNilPiqUENP25i"
    "DQ--Kls_ZkUzgU9m4WMLiWTRtuNVTYeJG3vV0wUiJ09mBkw4zg6ny6KB2qT-JXFHQvA6CBO0My6E-EWC-5zPEy14UTUn52KuCVS0"
    "uTtSkg-8FdVygFT5LqtMP3NutlTabZVT4CSLpOa8d2_lpYUdW1mt6UmanO3bkbhRsqH4xoLI1y5XTmfX6EmFnzZ3vkC0juE3f1Qp"
    "ki9WvBqGAS-KKY0SsY5QC22ZTa0FjVCcKh5-Tmbvw\", \"e\": \"AQAB\"}, {\"kid\": \"kPS256\", \"use\": \"sig"
    "\", \"alg\": \"PS256\", \"kty\": \"RSA\", \"n\": \"tRe7kaT8keml5yjvP5YkrBNR2wosm4PAqt8PalvkWKNlCP-Wp"
    "0Ia7VAkxPD5hk2Y4BA0teVIjGd0Bhgqa31Oe9xCXN1suo69-jKwNYV6_D4in0tZBcQdmNoAFMyjpf3zdJq6wXw_ywgM6_zBM0vDa"
    "rtN6_kWUqt0ZtnomLuDJ_DaSrwc9Dl_XhOH7b02RsPPc3gmygWTn5XsI32N6sY9MC299hp0rdOl6-Fkyt6kFJvKPU_iWdpgRXiFM"
    "00PU5eHyomDc262wBkhwUtkE8GqxR_OiJak7ATYqwxs2Io0Nmcpkne4HlLynwq7nF0fYTGxMy4Ff7N6biFbJliV2MavnQ\", \"e"
    "\": \"AQAB\"}, {\"kid\": \"kES256\", \"use\": \"sig\", \"alg\": \"ES256\", \"kty\": \"EC\", \"crv\":"
    " \"P-256\", \"x\": \"qKCx0WEbpQ46TKvCh3CDaX2ht9aRGaxo26aZ4WX1m6Q\", \"y\": \"GndfE_KozGfUZloKP9DLz76"
    "jFyTl2rZc8hCcmu7NYOs\"}, {\"kid\": \"kEdDSA\", \"use\": \"sig\", \"alg\": \"EdDSA\", \"kty\": \"OKP"
    "\", \"crv\": \"Ed25519\", \"x\": \"xhx2S-T3xeH5HJNKH8UDAbHFfYUZPx_ih9JRvyejiLw\"}]}";
static const char *const tokens[] = { /* RS256, PS256, ES256, EdDSA; until 2096 */
    "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJSUzI1NiIsICJraWQiOiAia1JTMjU2In0.eyJpc3MiOiAiaHR0cHM6Ly9pZC5leGFtcGxl"
    "LnRlc3QiLCAiYXVkIjogWyJ3ZWIiLCAibWFpbCJdLCAiZW1haWwiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDAsICJuYmYiOiAx"
    "NjAwMDAwMDAwfQ.a8w884NCTaSjXJcAMD9XrvMn5xZtIzK5rgsFjKtYC2Wm6qKOyy3Dlv9Hu0Y6C4GNMFzMl8oCDgui3r5n9pM75"
    "Ub_1j12LGYbFTXsyOeupVquZ8_EjEZxM0Z0tYKwbF5BO5xsTjQZ4BUXfpr2dFOYproMV_Egn36yMkS1MdFmLAsiEDtQgkQEzFqQW"
    "gyFTDw7-uun6-zyjQ4UbbdlY5-CI32afIo9XrxHQg-dsnDg4ggwFBTlxRFSuOHnAk8zDI6Fn9R1E77pzYJ-bzwz3O7mCSJxam9IW"
    "O25D1JPfxd9G8lUI66AYfzwx-fVx6qwI7QSjtt98nwDY46920eoMG5pMA",
    "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJQUzI1NiIsICJraWQiOiAia1BTMjU2In0.eyJpc3MiOiAiaHR0cHM6Ly9pZC5leGFtcGxl"
    "LnRlc3QiLCAiYXVkIjogWyJ3ZWIiLCAibWFpbCJdLCAiZW1haWwiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDAsICJuYmYiOiAx"
    "NjAwMDAwMDAwfQ.kuZ_KDCnuqtqElBdPZ8eJd6NMLfvIKj0MF86peD2nIOhEWDQK_ZJpQaTHJh8cMpGqk11gQbTMSF1hrWcTitqq"
    "ReeXzhlcMrHZhDT4mA6lAwI4BsqjWTeMYCPuiDC0RKHyNgSpkAbC2HEWihakyIslnVz5PmC5KUi-Jl1HIbCfMyQKgiIVTBd521sH"
    "6HsDJuPl3hvr_6J_BENd4qbENSZ9M71xSFRW-GKx4TEcHXpI5AZdf98Qjfd5_HE2PN6pm36FpJTF0aQx8Ca88-1CwXP77OywXV4V"
    "VFPVLe2rxWQj0DXx1e4y9XmkGaS1asrOj55uzBVzIJphE6SAfMB2AVwgg",
    "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJFUzI1NiIsICJraWQiOiAia0VTMjU2In0.eyJpc3MiOiAiaHR0cHM6Ly9pZC5leGFtcGxl"
    "LnRlc3QiLCAiYXVkIjogWyJ3ZWIiLCAibWFpbCJdLCAiZW1haWwiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDAsICJuYmYiOiAx"
    "NjAwMDAwMDAwfQ.R1JXfz-cnbMbkbm-Jgl2J4qji4myTnEYpDvP7U-Mrsn8vYtMXkd5hFuXLP_xrpBEY4C6QXvHlEKclr1jD70bA"
    "w",
    "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJFZERTQSIsICJraWQiOiAia0VkRFNBIn0.eyJpc3MiOiAiaHR0cHM6Ly9pZC5leGFtcGxl"
    "LnRlc3QiLCAiYXVkIjogWyJ3ZWIiLCAibWFpbCJdLCAiZW1haWwiOiAiYW5uIiwgImV4cCI6IDQwMDAwMDAwMDAsICJuYmYiOiAx"
    "NjAwMDAwMDAwfQ.-nbuhCxDIakAn6dUl5O2scU6iq6X4wncT7swF1YFFcUwVLfl-2H-8W-QKKBynZ7o50gDtwGUQUFF7qMTMF0FB"
    "Q",
};
/* clang-format on */
static const struct tb_jwt_rules rules = {
    .issuer = "https://id.example.test", .audience = "mail", .claim = "email", .now = 1700000000};

static void members(void **state)
{
    static const char text[] = " { \"a\" : 1 , \"b\":{\"a\":[2,{}],\"c\":\"}\"},\"d\\u0065\":null,\"x\":1,\"x\":2 } ";
    static const char *const bad[] = {"",
                                      "{",
                                      "[]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1",
                                      "{\"a\":1}x",
                                      "{\"a\":1,}",
                                      "{\"a\":01}",
                                      "{\"a\":1.}",
                                      "{\"a\":1e}",
                                      "{\"a\":-}",
                                      "{\"a\":tru}",
                                      "{\"a\":[1}",
                                      "{\"a\":[1,]}",
                                      "{\"a\":{]}",
                                      "{a:1}",
                                      "{\"a\":\"\n\"}",
                                      "{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"};
    struct tb_slice v;

    (void)state;
    assert_true(tb_json_member(tb_slice_str(text), "a", &v) && tb_slice_eq(v, TB_SLICE("1")));
    assert_true(tb_json_member(tb_slice_str(text), "b", &v) && tb_slice_eq(v, TB_SLICE("{\"a\":[2,{}],\"c\":\"}\"}")));
    assert_true(tb_json_member(tb_slice_str(text), "de", &v) && tb_slice_eq(v, TB_SLICE("null")));
    assert_false(tb_json_member(tb_slice_str(text), "c", &v)); /* only within b */
    assert_false(tb_json_member(tb_slice_str(text), "x", &v)); /* twice */
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        if (tb_json_member(tb_slice_str(bad[i]), "a", &v))
            fail_msg("taken: %s", bad[i]);
}

static void values(void **state)
{
    static const char *const bad[] = {
        "\"",     "x", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\u0000\"", "\"\\ud83d\\u0041\"",
        "\"a\"b", "1"};
    struct tb_slice v;
    char text[16];
    size_t len, at = 0, n = 0;
    int64_t s;

    (void)state;
    assert_true(tb_json_text(TB_SLICE("\"a\\n\\u00e9\\ud83d\\ude00\\/\""), 15, text, &len));
    assert_string_equal(text, "a\n\xc3\xa9\xf0\x9f\x98\x80/");
    assert_true(tb_json_text(TB_SLICE("\"\""), 15, text, &len) && len == 0);
    assert_false(tb_json_text(TB_SLICE("\"1234567890123456\""), 15, text, &len));
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_false(tb_json_text(tb_slice_str(bad[i]), 15, text, &len));
    while (tb_json_element(TB_SLICE("[1, \"two\" ,[3]]"), &at, &v))
        n++;
    assert_int_equal(n, 3);
    assert_true(tb_json_seconds(TB_SLICE("1700000000"), &s) && s == 1700000000);
    assert_true(tb_json_seconds(TB_SLICE("12.75"), &s) && s == 12);
    assert_false(tb_json_seconds(TB_SLICE("-1"), &s) || tb_json_seconds(TB_SLICE("1e9"), &s) ||
                 tb_json_seconds(TB_SLICE("99999999999999999999"), &s) || tb_json_seconds(TB_SLICE("\"1\""), &s));
}

static void key_sets(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"keys\":[]}",
        "{\"keys\":{}}",
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}",
        "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}", /* 17 bits */
        "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
        "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}]}", /* not on the curve */
        "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}",
        "{\"keys\":[{\"kty\":\"OKP\",\"use\":\"enc\",\"crv\":\"Ed25519\","
        "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"};
    struct tb_jwks *set;
    struct tb_error err;

    (void)state;
    assert_int_equal(tb_jwks_read(tb_slice_str(keys), &set, &err), TB_OK);
    assert_int_equal(tb_jwks_count(set), 4);
    tb_jwks_free(set);
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++)
        assert_int_equal(tb_jwks_read(tb_slice_str(bad[i]), &set, &err), TB_INVALID);
}

static void signatures(void **state)
{
    struct tb_jwks *set;
    struct tb_error err;
    char name[TB_NAME_MAX + 1];

    (void)state;
    assert_int_equal(tb_jwks_read(tb_slice_str(keys), &set, &err), TB_OK);
    for (size_t i = 0; i < TB_ARRAY_LEN(tokens); i++) {
        struct tb_slice token = tb_slice_str(tokens[i]);
        struct tb_jwt_rules later = rules;
        char changed[TB_JWT_BYTES_MAX];

        assert_int_equal(tb_jwt_check(set, token, &rules, name), JWT_GOOD);
        assert_string_equal(name, "ann");
        for (size_t at = 0; at < token.len; at++) { /* every character of it counts */
            memcpy(changed, token.ptr, token.len);
            changed[at] = changed[at] == 'A' ? 'B' : 'A';
            assert_int_not_equal(tb_jwt_check(set, tb_slice(changed, token.len), &rules, name), JWT_GOOD);
            assert_int_not_equal(tb_jwt_check(set, tb_slice_sub(token, 0, at), &rules, name), JWT_GOOD);
        }
        later.now = 4000000000 + 61;
        assert_int_equal(tb_jwt_check(set, token, &later, name), JWT_EXPIRED);
        later.now = 1600000000 - 61;
        assert_int_equal(tb_jwt_check(set, token, &later, name), JWT_WRONG);
        later = rules;
        later.claim = "sub";
        assert_int_equal(tb_jwt_check(set, token, &later, name), JWT_WRONG);
    }
    tb_jwks_free(set);
}

static void messages(void **state)
{
    struct tb_slice who, token;

    (void)state;
    /* RFC 7628 4.1 */
    assert_true(tb_oauth_bearer_read(TB_SLICE("n,a=user@example.com,\1host=server.example.com\1port=143\1"
                                              "auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"),
                                     &who, &token));
    assert_true(tb_slice_eq(who, TB_SLICE("user@example.com")));
    assert_true(tb_slice_eq(token, TB_SLICE("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")));
    assert_false(tb_oauth_bearer_read(TB_SLICE("\1"), &who, &token));
    assert_false(tb_oauth_bearer_read(TB_SLICE("n,,\1=x\1auth=Bearer x\1\1"), &who, &token));
    assert_false(tb_oauth_bearer_read(TB_SLICE("n,,\1auth=Bearer x\1\1y"), &who, &token));
    assert_true(tb_oauth_xoauth2_read(TB_SLICE("user=a@b\1auth=Bearer x\1\1"), &who, &token));
    assert_true(tb_slice_eq(who, TB_SLICE("a@b")));
    assert_false(tb_oauth_xoauth2_read(TB_SLICE("auth=Bearer x\1\1"), &who, &token));
    assert_false(tb_oauth_xoauth2_read(TB_SLICE("user=a\1auth=Bearer x\1"), &who, &token));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(members), cmocka_unit_test(values), cmocka_unit_test(key_sets),
                                       cmocka_unit_test(signatures), cmocka_unit_test(messages)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
