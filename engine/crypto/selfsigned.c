/*
 * selfsigned.c: a key and a certificate for a first start, so that TLS works before anybody has thought of it.
 *
 * The certificate is for this server alone (no CA), so that who trusts it trusts nothing else by it. Pure but for
 * BoringSSL's random numbers. Any thread.
 * RFC 5280 (4.1.2.2 serial number, 4.2.1.6 subject alternative name), RFC 9525 (names are read from there only).
 */
#include "engine/crypto/crypto.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/obj.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

enum { DAYS = 3653, COMMON_NAME_MAX = 64, HOSTNAME_MAX = 253 };

static EVP_PKEY *make_key(void)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();

    if (ec && key && EC_KEY_generate_key(ec) == 1 && EVP_PKEY_set1_EC_KEY(key, ec) == 1) {
        EC_KEY_free(ec);
        return key;
    }
    EC_KEY_free(ec);
    EVP_PKEY_free(key);
    return NULL;
}

/* Add a name: an address if it reads as one, else a host name. */
static bool add_name(GENERAL_NAMES *names, const char *text)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(text);
    ASN1_IA5STRING *host = NULL;

    if (!name)
        goto fail;
    if (address) {
        GENERAL_NAME_set0_value(name, GEN_IPADD, address);
    } else {
        host = ASN1_IA5STRING_new();
        if (!host || ASN1_STRING_set(host, text, (int)strlen(text)) != 1)
            goto fail;
        GENERAL_NAME_set0_value(name, GEN_DNS, host);
    }
    address = NULL;
    host = NULL;
    if (sk_GENERAL_NAME_push(names, name) > 0)
        return true;

fail:
    ASN1_OCTET_STRING_free(address);
    ASN1_IA5STRING_free(host);
    GENERAL_NAME_free(name);
    return false;
}

static bool add_names(X509 *x, const char *hostname)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    bool ok = names && add_name(names, hostname) && add_name(names, "localhost") && add_name(names, "127.0.0.1") &&
              add_name(names, "::1") && X509_add1_ext_i2d(x, NID_subject_alt_name, names, 0, 0) == 1;

    GENERAL_NAMES_free(names);
    return ok;
}

static bool add_usage(X509 *x)
{
    BASIC_CONSTRAINTS *basic = BASIC_CONSTRAINTS_new(); /* as made: no CA */
    ASN1_BIT_STRING *usage = ASN1_BIT_STRING_new();
    EXTENDED_KEY_USAGE *purpose = sk_ASN1_OBJECT_new_null();
    bool ok = basic && usage && purpose && X509_add1_ext_i2d(x, NID_basic_constraints, basic, 1, 0) == 1 &&
              ASN1_BIT_STRING_set_bit(usage, 0, 1) == 1 && /* digitalSignature */
              X509_add1_ext_i2d(x, NID_key_usage, usage, 1, 0) == 1 &&
              sk_ASN1_OBJECT_push(purpose, OBJ_nid2obj(NID_server_auth)) > 0 &&
              X509_add1_ext_i2d(x, NID_ext_key_usage, purpose, 0, 0) == 1;

    BASIC_CONSTRAINTS_free(basic);
    ASN1_BIT_STRING_free(usage);
    sk_ASN1_OBJECT_pop_free(purpose, ASN1_OBJECT_free);
    return ok;
}

static bool set_serial(X509 *x)
{
    uint8_t bytes[16];
    BIGNUM *number;
    bool ok;

    (void)RAND_bytes(bytes, sizeof(bytes));         /* aborts rather than fail */
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, and as long as it looks */
    number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x));
    BN_free(number);
    return ok;
}

static bool set_times(X509 *x, int64_t now_s)
{
    time_t now = (time_t)now_s;

    /* From yesterday: a client's clock may be late. */
    return X509_time_adj_ex(X509_getm_notBefore(x), -1, 0, &now) &&
           X509_time_adj_ex(X509_getm_notAfter(x), DAYS, 0, &now);
}

static bool set_subject(X509 *x, const char *hostname)
{
    X509_NAME *name = X509_get_subject_name(x);
    size_t len = strlen(hostname);

    return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_ASC, (const uint8_t *)hostname,
                                      (int)(len > COMMON_NAME_MAX ? COMMON_NAME_MAX : len), -1, 0) == 1 &&
           X509_set_issuer_name(x, name) == 1;
}

static X509 *make_certificate(EVP_PKEY *key, const char *hostname, int64_t now_s)
{
    X509 *x = X509_new();

    if (x && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x) && set_times(x, now_s) &&
        set_subject(x, hostname) && X509_set_pubkey(x, key) == 1 && add_names(x, hostname) && add_usage(x) &&
        X509_sign(x, key, EVP_sha256()) > 0)
        return x;
    X509_free(x);
    return NULL;
}

static bool put_bio(BIO *bio, struct tb_buf *out)
{
    const uint8_t *bytes;
    size_t len;

    if (BIO_mem_contents(bio, &bytes, &len) != 1)
        return false;
    tb_buf_put(out, bytes, len);
    return !out->failed;
}

static bool hostname_fits(const char *hostname)
{
    size_t len = strlen(hostname);

    for (size_t i = 0; i < len; i++) {
        if (hostname[i] <= ' ' || hostname[i] > '~')
            return false;
    }
    return len > 0 && len <= HOSTNAME_MAX;
}

enum tb_rc tb_tls_selfsigned(const char *hostname, int64_t now_s, struct tb_buf *certificate_pem,
                             struct tb_buf *key_pem)
{
    BIO *certificate_bio = NULL, *key_bio = NULL;
    EVP_PKEY *key = NULL;
    X509 *x = NULL;
    enum tb_rc rc = TB_LIMIT;

    if (!hostname_fits(hostname))
        return TB_INVALID;
    certificate_bio = BIO_new(BIO_s_mem());
    key_bio = BIO_new(BIO_s_mem());
    key = make_key();
    if (key)
        x = make_certificate(key, hostname, now_s);
    if (certificate_bio && key_bio && x && PEM_write_bio_X509(certificate_bio, x) == 1 &&
        PEM_write_bio_PKCS8PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1 &&
        put_bio(certificate_bio, certificate_pem) && put_bio(key_bio, key_pem))
        rc = TB_OK;
    ERR_clear_error();
    X509_free(x);
    EVP_PKEY_free(key);
    BIO_free(key_bio);
    BIO_free(certificate_bio);
    return rc;
}
