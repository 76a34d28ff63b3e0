/*
 * pubkey.c: public keys as JSON Web Keys give them, and the check of signatures as JSON Web Tokens name them.
 *
 * The algorithm is bound to the kind of key: one that does not suit is a signature that does not fit. There is no
 * "none" and no HMAC here, so no public key can be taken for a shared secret. RSA keys under 2048 bits are refused.
 * Immutable once made: any thread. RFC 7518 (3.3 RS, 3.4 ES, 3.5 PS; 6.2, 6.3 keys), RFC 8037 (EdDSA).
 */
#include "engine/crypto/crypto.h"

#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/digest.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>

#include <stdlib.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, COORDINATE_MAX = 66 };

struct tb_pubkey {
    EVP_PKEY *rsa; /* owned; one of the three */
    EC_KEY *ec;    /* owned */
    const char *curve;
    uint8_t ed25519[ED25519_PUBLIC_KEY_LEN];
};

static const struct curve {
    const char *name, *alg;
    int nid;
    size_t bytes; /* of a coordinate */
    const EVP_MD *(*digest)(void);
} curves[] = {
    {"P-256", "ES256", NID_X9_62_prime256v1, 32, EVP_sha256},
    {"P-384", "ES384", NID_secp384r1, 48, EVP_sha384},
    {"P-521", "ES512", NID_secp521r1, 66, EVP_sha512},
};

static BIGNUM *number(struct tb_slice s)
{
    return s.len > 0 && s.len <= RSA_BITS_MAX / 8 + 1 ? BN_bin2bn((const uint8_t *)s.ptr, s.len, NULL) : NULL;
}

void tb_pubkey_free(struct tb_pubkey *k)
{
    if (!k)
        return;
    EVP_PKEY_free(k->rsa);
    EC_KEY_free(k->ec);
    free(k);
}

static struct tb_pubkey *finish(struct tb_pubkey *k, bool good)
{
    ERR_clear_error();
    if (good)
        return k;
    tb_pubkey_free(k);
    return NULL;
}

struct tb_pubkey *tb_pubkey_rsa(struct tb_slice n, struct tb_slice e)
{
    struct tb_pubkey *k = calloc(1, sizeof(*k));
    BIGNUM *modulus = number(n), *exponent = number(e);
    RSA *rsa = RSA_new();
    bool good = false;

    if (k && modulus && exponent && rsa && BN_num_bits(modulus) >= RSA_BITS_MIN &&
        BN_num_bits(modulus) <= RSA_BITS_MAX && RSA_set0_key(rsa, modulus, exponent, NULL) == 1) {
        modulus = exponent = NULL; /* the key's now */
        k->rsa = EVP_PKEY_new();
        good = k->rsa && EVP_PKEY_set1_RSA(k->rsa, rsa) == 1 && RSA_check_key(rsa) == 1;
    }
    RSA_free(rsa);
    BN_free(modulus);
    BN_free(exponent);
    return finish(k, good);
}

struct tb_pubkey *tb_pubkey_ec(struct tb_slice curve, struct tb_slice x, struct tb_slice y)
{
    struct tb_pubkey *k = calloc(1, sizeof(*k));
    BIGNUM *bx = number(x), *by = number(y);
    bool good = false;

    for (size_t i = 0; k && bx && by && i < TB_ARRAY_LEN(curves); i++) {
        if (!tb_slice_eq(curve, tb_slice_str(curves[i].name)) || x.len != curves[i].bytes || y.len != x.len)
            continue;
        k->curve = curves[i].name;
        k->ec = EC_KEY_new_by_curve_name(curves[i].nid);
        good = k->ec && EC_KEY_set_public_key_affine_coordinates(k->ec, bx, by) == 1; /* is it on the curve? */
    }
    BN_free(bx);
    BN_free(by);
    return finish(k, good);
}

struct tb_pubkey *tb_pubkey_ed25519(struct tb_slice x)
{
    struct tb_pubkey *k = x.len == ED25519_PUBLIC_KEY_LEN ? calloc(1, sizeof(*k)) : NULL;

    if (k)
        memcpy(k->ed25519, x.ptr, x.len);
    return k;
}

static bool verify_rsa(const struct tb_pubkey *k, bool pss, const EVP_MD *md, struct tb_slice message,
                       struct tb_slice signature)
{
    EVP_PKEY_CTX *options;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, &options, md, NULL, k->rsa) == 1;

    if (good && pss)
        good = EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(options, -1) == 1; /* as long as the digest */
    good = good && EVP_DigestVerify(ctx, (const uint8_t *)signature.ptr, signature.len, (const uint8_t *)message.ptr,
                                    message.len) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* The signature is R and S, each as long as a coordinate (RFC 7518 3.4). */
static bool verify_ec(const struct tb_pubkey *k, const struct curve *c, struct tb_slice message,
                      struct tb_slice signature)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    BIGNUM *r = NULL, *s = NULL;
    ECDSA_SIG *sig = NULL;
    unsigned sum_len = 0;
    bool good = false;

    if (signature.len != 2 * c->bytes)
        return false;
    r = number(tb_slice_sub(signature, 0, c->bytes));
    s = number(tb_slice_sub(signature, c->bytes, c->bytes));
    sig = ECDSA_SIG_new();
    if (r && s && sig && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* the signature's now */
        good = EVP_Digest(message.ptr, message.len, sum, &sum_len, c->digest(), NULL) == 1 &&
               ECDSA_do_verify(sum, sum_len, sig, k->ec) == 1;
    }
    ECDSA_SIG_free(sig);
    BN_free(r);
    BN_free(s);
    return good;
}

bool tb_pubkey_verify(const struct tb_pubkey *k, struct tb_slice alg, struct tb_slice message,
                      struct tb_slice signature)
{
    static const EVP_MD *(*const digests[])(void) = {EVP_sha256, EVP_sha384, EVP_sha512};
    static const char *const sizes[] = {"256", "384", "512"};
    bool good = false;

    if (k->ec) {
        for (size_t i = 0; i < TB_ARRAY_LEN(curves); i++)
            if (tb_slice_eq(alg, tb_slice_str(curves[i].alg)) && strcmp(k->curve, curves[i].name) == 0)
                good = verify_ec(k, &curves[i], message, signature);
    } else if (k->rsa) {
        bool pss = alg.len == 5 && memcmp(alg.ptr, "PS", 2) == 0;

        for (size_t i = 0; i < TB_ARRAY_LEN(digests); i++)
            if ((pss || (alg.len == 5 && memcmp(alg.ptr, "RS", 2) == 0)) && memcmp(alg.ptr + 2, sizes[i], 3) == 0)
                good = verify_rsa(k, pss, digests[i](), message, signature);
    } else if (tb_slice_eq(alg, TB_SLICE("EdDSA")) && signature.len == ED25519_SIGNATURE_LEN) {
        good = ED25519_verify((const uint8_t *)message.ptr, message.len, (const uint8_t *)signature.ptr, k->ed25519) ==
               1;
    }
    ERR_clear_error();
    return good;
}
