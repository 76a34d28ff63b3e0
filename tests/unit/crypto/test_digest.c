/*
 * test_digest.c: digests, HMAC, AES, PBKDF2, base64, hex against the standards' own vectors.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/crypto/crypto.h"

static void assert_hex(const void *ptr, size_t len, const char *expected)
{
    char text[2 * 64 + 1];

    tb_hex(ptr, len, text);
    assert_string_equal(text, expected);
}

static void digests(void **state)
{
    struct tb_sha256 h;
    uint8_t out[64];

    (void)state;
    tb_sha256_init(&h);
    tb_sha256_update(&h, NULL, 0);
    tb_sha256_update(&h, "a", 1);
    tb_sha256_update(&h, "bc", 2);
    tb_sha256_final(&h, out);
    assert_hex(out, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    tb_sha1("abc", 3, out);
    assert_hex(out, 20, "a9993e364706816aba3e25717850c26c9cd0d89d");
    tb_md5("abc", 3, out);
    assert_hex(out, 16, "900150983cd24fb0d6963f7d28e17f72");
    tb_sha512("abc", 3, out);
    assert_hex(out, 64,
               "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
               "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

static void old_hmacs(void **state)
{
    uint8_t key[80], out[32];

    (void)state;
    /* RFC 2202 3 */
    memset(key, 0x0b, 20);
    tb_hmac_sha1(key, 20, "Hi There", 8, out);
    assert_hex(out, 20, "b617318655057264e28bc0b6fb378c8ef146be00");
    tb_hmac_sha1("Jefe", 4, "what do ya want for nothing?", 28, out);
    assert_hex(out, 20, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    memset(key, 0xaa, sizeof(key));
    tb_hmac_sha1(key, sizeof(key), "Test Using Larger Than Block-Size Key - Hash Key First", 54, out);
    assert_hex(out, 20, "aa4ae5e15272d00e95705637ce8a3b55ed402112");
    tb_hmac_md5_state("secret", 6, out); /* doveadm pw -s CRAM-MD5 */
    assert_hex(out, 32, "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56");
}

static void hmac(void **state)
{
    uint8_t key[131], out[32];
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";

    (void)state;
    /* RFC 4231 4.2, 4.3, 4.7 */
    memset(key, 0x0b, 20);
    tb_hmac_sha256(key, 20, "Hi There", 8, out);
    assert_hex(out, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    tb_hmac_sha256((const uint8_t *)"Jefe", 4, "what do ya want for nothing?", 28, out);
    assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    tb_hmac_sha256(key, sizeof(key), text, strlen(text), out);
    assert_hex(out, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    tb_hmac_sha256(NULL, 0, NULL, 0, out);
    assert_hex(out, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
    assert_true(tb_secret_equal("abc", 3, "abc", 3));
    assert_false(tb_secret_equal("abc", 3, "abd", 3));
    assert_false(tb_secret_equal("abc", 3, "ab", 2));
    assert_true(tb_secret_equal("", 0, "", 0));
}

static void aes(void **state)
{
    uint8_t key[16], in[16], out[16];

    (void)state;
    for (int i = 0; i < 16; i++) { /* FIPS 197 C.1 */
        key[i] = (uint8_t)i;
        in[i] = (uint8_t)(i * 0x11);
    }
    tb_aes128_block(key, in, out);
    assert_hex(out, 16, "69c4e0d86a7b0430d8cdb78070b4c55a");
    tb_aes128_block(key, in, in); /* in place */
    assert_memory_equal(in, out, 16);
}

static void pbkdf2(void **state)
{
    uint8_t out[20];

    (void)state;
    /* RFC 6070 */
    assert_true(tb_pbkdf2(1, TB_SLICE("password"), TB_SLICE("salt"), 4096, out, 20));
    assert_hex(out, 20, "4b007901b765489abead49d926f721d065a429c1");
    assert_true(tb_pbkdf2(1, TB_SLICE("pass\0word"), TB_SLICE("sa\0lt"), 4096, out, 16));
    assert_hex(out, 16, "56fa6aa75548099dcc37d7f03425e0c3");
    assert_true(tb_pbkdf2(256, TB_SLICE("password"), TB_SLICE("salt"), 1, out, 20));
    assert_hex(out, 20, "120fb6cffcf8b32c43e7225256c4f837a86548c9");
    assert_true(tb_pbkdf2(512, TB_SLICE("password"), TB_SLICE("salt"), 1, out, 20));
    assert_hex(out, 20, "867f70cf1ade02cff3752599a3a53dc4af34c7a6");
    assert_false(tb_pbkdf2(256, TB_SLICE("password"), TB_SLICE("salt"), 0, out, 20));
    assert_false(tb_pbkdf2(384, TB_SLICE("password"), TB_SLICE("salt"), 1, out, 20));
}

static bool decodes(struct tb_slice text, struct tb_slice expected)
{
    struct tb_buf out;
    bool ok;

    tb_buf_init(&out, expected.len);
    ok = tb_base64_decode(text, &out);
    if (ok)
        assert_true(tb_slice_eq(tb_buf_all(&out), expected));
    else
        assert_int_equal(out.len, 0);
    tb_buf_free(&out);
    return ok;
}

static void base64(void **state)
{
    static const char *const bad[] = {"Z",     "Zg",    "Zg=",   "Zg==Zg==", "Zh==", "Zm9=", "====",  "Z===",    "=",
                                      "Zm9v ", "Zm 9v", "Zm9\n", "Zm9-",     "Zm9_", "Z=g=", "Zm9v=", "Zm9v\r\n"};
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    struct tb_buf text;
    uint8_t all[256];

    (void)state;
    tb_buf_init(&text, 1024);
    for (size_t i = 0; i < TB_ARRAY_LEN(plain); i++) { /* RFC 4648 10 */
        tb_base64_encode(tb_slice_str(plain[i]), &text);
        assert_true(tb_slice_eq(tb_buf_all(&text), tb_slice_str(coded[i])));
        assert_true(decodes(tb_slice_str(coded[i]), tb_slice_str(plain[i])));
        text.len = 0;
    }
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        struct tb_buf out;

        tb_buf_init(&out, 64);
        assert_false(tb_base64_decode(tb_slice_str(bad[i]), &out));
        assert_int_equal(out.len, 0);
        tb_buf_free(&out);
    }
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n <= sizeof(all); n++) {
        text.len = 0;
        tb_base64_encode(tb_slice(all, n), &text);
        assert_true(decodes(tb_buf_all(&text), tb_slice(all, n)));
    }
    { /* over the limit */
        struct tb_buf small;

        tb_buf_init(&small, 2);
        assert_false(tb_base64_decode(TB_SLICE("Zm9v"), &small));
        tb_buf_free(&small);
    }
    tb_buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(digests), cmocka_unit_test(hmac),   cmocka_unit_test(old_hmacs),
                                       cmocka_unit_test(aes),     cmocka_unit_test(pbkdf2), cmocka_unit_test(base64)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
