/*
 * tls_context.c: what TLS connections share: certificate chain, key, versions, suites; reading them from PEM.
 *
 * Immutable once made, so any thread may use it; the count of references is atomic. An encrypted key is refused:
 * nobody is there to type its password. Certificates are judged by their readers, not here, but one that has expired
 * is worth a warning.
 * RFC 8446, RFC 9325 (which versions and suites), RFC 7468 (PEM).
 */
#include "engine/crypto/tls_context.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

struct tb_tls_context {
    SSL_CTX *ctx; /* owned */
    _Atomic unsigned references;
};

/* Of TLS 1.2; those of 1.3 are BoringSSL's, all AEADs. Within brackets the client chooses: it knows if it has AES. */
static const char suites[] =
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-AES256-GCM-SHA384|ECDHE-ECDSA-CHACHA20-POLY1305]:"
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-AES256-GCM-SHA384|ECDHE-RSA-CHACHA20-POLY1305]";

SSL_CTX *tb_tls_context_inner(struct tb_tls_context *c)
{
    return c->ctx;
}

static struct tb_tls_context *context_new(void)
{
    struct tb_tls_context *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    atomic_init(&c->references, 1);
    c->ctx = SSL_CTX_new(TLS_method());
    if (!c->ctx || SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_strict_cipher_list(c->ctx, suites) != 1) {
        tb_tls_context_unref(c);
        ERR_clear_error();
        return NULL;
    }
    (void)SSL_CTX_set_options(c->ctx, SSL_OP_CIPHER_SERVER_PREFERENCE); /* returns the set, never fails */
    (void)SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);   /* tickets alone: the client keeps them */
    (void)SSL_CTX_set_num_tickets(c->ctx, 1);
    return c;
}

static int no_password(char *buf, int size, int writing, void *user)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)user;
    return -1;
}

static BIO *bio_of(struct tb_slice pem)
{
    return pem.len > 0 && pem.len <= INT_MAX ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
}

/* The last thing BoringSSL complained of, in words. */
static enum tb_rc refuse(struct tb_error *err, const char *what)
{
    uint32_t code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    ERR_clear_error();
    return tb_error_set(err, TB_INVALID, 0, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

static bool at_end_of_pem(void)
{
    uint32_t code = ERR_peek_last_error();

    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

static void warn_if_expired(X509 *x)
{
    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
        tb_log(TB_LOG_WARN, "the TLS certificate has expired; clients will refuse it until it is renewed");
}

/* The first certificate is ours, those behind it lead to the root. */
static enum tb_rc load_chain(SSL_CTX *ctx, struct tb_slice pem, struct tb_error *err)
{
    enum tb_rc rc = TB_OK;
    BIO *bio = bio_of(pem);
    unsigned count = 0;

    if (!bio)
        return refuse(err, "the certificate file is empty");
    for (;;) {
        X509 *x = PEM_read_bio_X509(bio, NULL, no_password, NULL);
        bool taken;

        if (!x) {
            if (count == 0)
                rc = refuse(err, "no certificate in the certificate file");
            else if (!at_end_of_pem())
                rc = refuse(err, "a damaged certificate behind the first one");
            break;
        }
        if (count == 0)
            warn_if_expired(x);
        taken = count++ == 0 ? SSL_CTX_use_certificate(ctx, x) == 1 : SSL_CTX_add1_chain_cert(ctx, x) == 1;
        X509_free(x);
        if (!taken) {
            rc = refuse(err, "a certificate that cannot be used");
            break;
        }
    }
    BIO_free(bio);
    ERR_clear_error();
    return rc;
}

static enum tb_rc load_key(SSL_CTX *ctx, struct tb_slice pem, struct tb_error *err)
{
    BIO *bio = bio_of(pem);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    enum tb_rc rc = TB_OK;

    if (!key)
        rc = refuse(err, "no key that can be read without a password in the key file");
    else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        rc = refuse(err, "the key does not belong to the certificate");
    EVP_PKEY_free(key);
    BIO_free(bio);
    return rc;
}

enum tb_rc tb_tls_context_load(struct tb_slice certificate_pem, struct tb_slice key_pem, struct tb_tls_context **out,
                               struct tb_error *err)
{
    struct tb_tls_context *c;
    enum tb_rc rc;

    ERR_clear_error();
    c = context_new();
    if (!c)
        return tb_error_set(err, TB_LIMIT, 0, "no memory for a TLS context");
    rc = load_chain(c->ctx, certificate_pem, err);
    if (rc == TB_OK)
        rc = load_key(c->ctx, key_pem, err);
    if (rc != TB_OK) {
        tb_tls_context_unref(c);
        return rc;
    }
    SSL_CTX_set_alpn_select_cb(c->ctx, tb_tls_select_alpn, NULL);
    *out = c;
    return TB_OK;
}

enum tb_rc tb_tls_context_client(struct tb_tls_context **out)
{
    struct tb_tls_context *c = context_new();

    if (!c)
        return TB_LIMIT;
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_NONE, NULL);
    *out = c;
    return TB_OK;
}

struct tb_tls_context *tb_tls_context_ref(struct tb_tls_context *c)
{
    (void)atomic_fetch_add(&c->references, 1);
    return c;
}

void tb_tls_context_unref(struct tb_tls_context *c)
{
    if (c && atomic_fetch_sub(&c->references, 1) == 1) {
        SSL_CTX_free(c->ctx);
        free(c);
    }
}
