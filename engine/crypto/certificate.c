/*
 * certificate.c: clients' certificates: which ones are asked for and believed, and whom they name.
 *
 * A certificate that does not lead to one of the given roots ends the handshake; that there is none does not. A name is
 * believed only when there is exactly one of its kind, so that nobody's second name is somebody's first. Names with NUL
 * bytes are none.
 * RFC 5280 (4.2.1.6 subjectAltName), RFC 8446 4.3.2 (asking), RFC 4422 appendix A (EXTERNAL).
 */
#include "engine/crypto/crypto.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "engine/crypto/tls_context.h"

#include <limits.h>

/* add_roots: every certificate of the PEM text into the store, their names into what the client is told. */
static unsigned add_roots(SSL_CTX *ctx, BIO *bio)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    unsigned n = 0;
    X509 *x;

    while ((x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        n += X509_STORE_add_cert(store, x) == 1 && SSL_CTX_add_client_CA(ctx, x) == 1;
        X509_free(x);
    }
    return n;
}

enum tb_rc tb_tls_context_clients(struct tb_tls_context *c, struct tb_slice roots_pem, struct tb_error *err)
{
    static const uint8_t id[] = "tambo"; /* a resumed session is as good as its first handshake, within one context */
    SSL_CTX *ctx = tb_tls_context_inner(c);
    BIO *bio = roots_pem.len > 0 && roots_pem.len <= INT_MAX ? BIO_new_mem_buf(roots_pem.ptr, (int)roots_pem.len)
                                                             : NULL;
    unsigned n = bio ? add_roots(ctx, bio) : 0;

    BIO_free(bio);
    ERR_clear_error();
    if (n == 0 || SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1) != 1)
        return tb_error_set(err, TB_INVALID, 0, "no certificate of an authority in it");
    return TB_OK;
}

/* The one rfc822Name among the alternative names. */
static bool mail_name(const X509 *x, size_t max, char *out)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    unsigned found = 0;

    for (size_t i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        size_t len = name->type == GEN_EMAIL ? (size_t)ASN1_STRING_length(name->d.rfc822Name) : 0;

        if (name->type != GEN_EMAIL)
            continue;
        found++;
        if (len == 0 || len > max || memchr(ASN1_STRING_get0_data(name->d.rfc822Name), 0, len)) {
            found = UINT_MAX / 2;
            continue;
        }
        memcpy(out, ASN1_STRING_get0_data(name->d.rfc822Name), len);
        out[len] = '\0';
    }
    GENERAL_NAMES_free(names);
    return found == 1;
}

/* The one commonName of the subject, in UTF-8. */
static bool common_name(const X509 *x, size_t max, char *out)
{
    const X509_NAME *subject = X509_get_subject_name(x);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *text = NULL;
    int len;
    bool good;

    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
        return false;
    len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    good = len > 0 && (size_t)len <= max && !memchr(text, 0, (size_t)len);
    if (good) {
        memcpy(out, text, (size_t)len);
        out[len] = '\0';
    }
    OPENSSL_free(text);
    return good;
}

bool tb_certificate_name(struct tb_slice der, const char *kind, size_t max, char *out)
{
    const uint8_t *at = (const uint8_t *)der.ptr;
    X509 *x = der.len > 0 && der.len <= LONG_MAX ? d2i_X509(NULL, &at, (long)der.len) : NULL;
    bool found = x && (strcmp(kind, "email") == 0 ? mail_name(x, max, out) : common_name(x, max, out));

    X509_free(x);
    ERR_clear_error();
    return found;
}
