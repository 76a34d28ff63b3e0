/*
 * digest.c: digests, HMAC, one AES block, PBKDF2.
 *
 * Nothing here can fail on its input but tb_pbkdf2, and nothing allocates but tb_pbkdf2. MD5 and SHA-1 serve old
 * password secrets alone, never integrity. Pure. Any thread.
 * RFC 2104 (HMAC), RFC 8018 (PBKDF2).
 */
#include "engine/crypto/crypto.h"

#include <openssl/aes.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/md5.h>
#include <openssl/mem.h>
#include <openssl/sha.h>

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct tb_sha256), "tb_sha256 must hold BoringSSL's state");
_Static_assert(_Alignof(SHA256_CTX) <= _Alignof(struct tb_sha256), "and be aligned like it");
_Static_assert(TB_SHA256_BYTES == SHA256_DIGEST_LENGTH, "both count the same bytes");

static SHA256_CTX *inner(struct tb_sha256 *h)
{
    return (SHA256_CTX *)(void *)h->state;
}

void tb_sha256_init(struct tb_sha256 *h)
{
    (void)SHA256_Init(inner(h)); /* always 1 */
}

void tb_sha256_update(struct tb_sha256 *h, const void *ptr, size_t len)
{
    if (len > 0)
        (void)SHA256_Update(inner(h), ptr, len); /* always 1 */
}

void tb_sha256_final(struct tb_sha256 *h, uint8_t out[TB_SHA256_BYTES])
{
    (void)SHA256_Final(out, inner(h)); /* always 1 */
}

void tb_hmac_sha256(const uint8_t *key, size_t key_len, const void *ptr, size_t len, uint8_t out[TB_SHA256_BYTES])
{
    uint8_t block[SHA256_CBLOCK] = {0};
    struct tb_sha256 h;

    if (key_len > sizeof(block)) {
        tb_sha256_init(&h);
        tb_sha256_update(&h, key, key_len);
        tb_sha256_final(&h, block);
    } else if (key_len > 0) {
        memcpy(block, key, key_len);
    }
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36;
    tb_sha256_init(&h);
    tb_sha256_update(&h, block, sizeof(block));
    tb_sha256_update(&h, ptr, len);
    tb_sha256_final(&h, out);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36 ^ 0x5c;
    tb_sha256_init(&h);
    tb_sha256_update(&h, block, sizeof(block));
    tb_sha256_update(&h, out, TB_SHA256_BYTES);
    tb_sha256_final(&h, out);
    OPENSSL_cleanse(block, sizeof(block));
    OPENSSL_cleanse(&h, sizeof(h));
}

bool tb_secret_equal(const void *a, size_t a_len, const void *b, size_t b_len)
{
    return a_len == b_len && CRYPTO_memcmp(a, b, a_len) == 0;
}

void tb_aes128_block(const uint8_t key[16], const uint8_t in[16], uint8_t out[16])
{
    AES_KEY schedule;

    (void)AES_set_encrypt_key(key, 128, &schedule); /* fails for other key sizes only */
    AES_encrypt(in, out, &schedule);
    OPENSSL_cleanse(&schedule, sizeof(schedule));
}

void tb_aes128_unblock(const uint8_t key[16], const uint8_t in[16], uint8_t out[16])
{
    AES_KEY schedule;

    (void)AES_set_decrypt_key(key, 128, &schedule); /* fails for other key sizes only */
    AES_decrypt(in, out, &schedule);
    OPENSSL_cleanse(&schedule, sizeof(schedule));
}

void tb_sha1(const void *ptr, size_t len, uint8_t out[20])
{
    (void)SHA1(ptr, len, out);
}

void tb_md5(const void *ptr, size_t len, uint8_t out[16])
{
    (void)MD5(ptr, len, out);
}

void tb_sha512(const void *ptr, size_t len, uint8_t out[64])
{
    (void)SHA512(ptr, len, out);
}

void tb_hmac_sha1(const void *key, size_t key_len, const void *ptr, size_t len, uint8_t out[20])
{
    unsigned n = 0;

    if (!HMAC(EVP_sha1(), key, key_len, ptr, len, out, &n)) /* cannot: it has no memory of its own to ask for */
        memset(out, 0, 20);
}

static void md5_after(const uint8_t block[MD5_CBLOCK], uint8_t out[16])
{
    MD5_CTX h;

    (void)MD5_Init(&h);
    (void)MD5_Update(&h, block, MD5_CBLOCK);
    for (size_t i = 0; i < 16; i++)
        out[i] = (uint8_t)(h.h[i / 4] >> 8 * (i % 4));
    OPENSSL_cleanse(&h, sizeof(h));
}

void tb_hmac_md5_state(const void *key, size_t key_len, uint8_t out[32])
{
    uint8_t block[MD5_CBLOCK] = {0};

    if (key_len > sizeof(block))
        (void)MD5(key, key_len, block);
    else if (key_len > 0)
        memcpy(block, key, key_len);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x5c;
    md5_after(block, out);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x5c ^ 0x36;
    md5_after(block, out + 16);
    OPENSSL_cleanse(block, sizeof(block));
}

bool tb_pbkdf2(int digest_bits, struct tb_slice password, struct tb_slice salt, uint32_t rounds, uint8_t *out,
               size_t out_len)
{
    const EVP_MD *md = digest_bits == 1     ? EVP_sha1()
                       : digest_bits == 256 ? EVP_sha256()
                       : digest_bits == 512 ? EVP_sha512()
                                            : NULL;
    bool ok;

    if (!md || rounds == 0)
        return false;
    ok = PKCS5_PBKDF2_HMAC(password.len ? password.ptr : "", password.len, (const uint8_t *)salt.ptr, salt.len, rounds,
                           md, out_len, out) == 1;
    if (!ok)
        ERR_clear_error();
    return ok;
}
