/*
 * tls.c: TLS 1.2 and 1.3 as a machine: ciphertext in, plaintext out, and back. BoringSSL between two buffers.
 *
 * Never touches a socket. Never speaks anything older than TLS 1.2, nor a suite without ECDHE and an AEAD, nor
 * renegotiation, compression or early data. Says nothing of why it refused a peer but by its alert.
 *
 * Invariants
 * (1) `in` holds ciphertext fed and not yet read; it is freed as soon as it is all read.
 * (2) what the machine must send goes to `pending`, but during tb_tls_write and tb_tls_close straight to the caller's
 *     buffer, behind what was pending.
 * (3) broken and closed are final.
 * So an idle connection costs the SSL object alone: its configuration is shed after the handshake, and BoringSSL
 * frees its record buffers when they are empty. One connection is used by one thread at a time; a context by any.
 * RFC 8446, RFC 5246, RFC 9266 (tls-exporter), RFC 5929 3, 4 (tls-unique,
 * tls-server-end-point), RFC 7301 (ALPN: section 3.2 asks for
 * a fatal alert when nothing matches).
 */
#include "engine/crypto/crypto.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "engine/crypto/tls_context.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    IN_BYTES_MAX = 4 << 20,        /* a caller that feeds and never reads */
    PENDING_BYTES_MAX = 256 << 10, /* handshake and alerts; a peer that wants more has no honest reason */
};

struct tb_tls {
    SSL *ssl;              /* owned */
    const char *alpn;      /* borrowed: static */
    struct tb_buf in;      /* owned */
    size_t in_read;        /* of in, already read */
    struct tb_buf pending; /* owned */
    struct tb_buf *out;    /* borrowed: during one call */
    bool broken, closed;
    char text[64]; /* tb_tls_describe */
};

static BIO_METHOD *method; /* made once, never freed */

/* ---- the two ends of BoringSSL's pipe ---- */

static int bio_read(BIO *bio, char *to, int len)
{
    struct tb_tls *t = BIO_get_data(bio);
    size_t have = t->in.len - t->in_read;
    size_t n = len < 0 ? 0 : (size_t)len < have ? (size_t)len : have;

    BIO_clear_retry_flags(bio);
    if (n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(to, t->in.ptr + t->in_read, n);
    t->in_read += n;
    if (t->in_read == t->in.len) {
        tb_buf_free(&t->in);
        t->in_read = 0;
    }
    return (int)n;
}

static int bio_write(BIO *bio, const char *from, int len)
{
    struct tb_tls *t = BIO_get_data(bio);
    struct tb_buf *out = t->out ? t->out : &t->pending;

    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return -1;
    tb_buf_put(out, from, (size_t)len);
    return out->failed ? -1 : len;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    (void)bio;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

static void make_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_MEM, "tambo");

    if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl))
        method = m;
    else
        BIO_meth_free(m);
}

/* ---- a connection ---- */

int tb_tls_select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *arg)
{
    const struct tb_tls *t = BIO_get_data(SSL_get_rbio(ssl));
    size_t want = t->alpn ? strlen(t->alpn) : 0;

    (void)arg;
    if (want == 0)
        return SSL_TLSEXT_ERR_NOACK;
    for (unsigned at = 0; at < in_len && in[at] < in_len - at; at += 1u + in[at]) {
        if (in[at] == want && memcmp(in + at + 1, t->alpn, want) == 0) {
            *out = in + at + 1;
            *out_len = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* What the last BoringSSL call came to: true if it may go on. */
static bool settle(struct tb_tls *t, int result)
{
    int error = SSL_get_error(t->ssl, result);

    ERR_clear_error();
    switch (error) {
    case SSL_ERROR_NONE:
    case SSL_ERROR_WANT_READ:
        return true;
    case SSL_ERROR_ZERO_RETURN:
        t->closed = true;
        return false;
    default:
        t->broken = true;
        return false;
    }
}

static void shake_hands(struct tb_tls *t)
{
    if (!t->broken && !t->closed && SSL_in_init(t->ssl)) {
        ERR_clear_error();
        (void)settle(t, SSL_do_handshake(t->ssl)); /* the outcome is in broken and closed */
    }
}

static bool offer_alpn(SSL *ssl, const char *alpn)
{
    uint8_t list[256];
    size_t len = strlen(alpn);

    if (len == 0 || len > 255)
        return false;
    list[0] = (uint8_t)len;
    memcpy(list + 1, alpn, len);
    return SSL_set_alpn_protos(ssl, list, (unsigned)len + 1) == 0;
}

static bool connect_bio(struct tb_tls *t)
{
    BIO *bio = BIO_new(method);

    if (!bio)
        return false;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio); /* takes the reference */
    return true;
}

struct tb_tls *tb_tls_new(struct tb_tls_context *c, bool server, const char *alpn)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tb_tls *t = calloc(1, sizeof(*t));

    (void)pthread_once(&once, make_method); /* fails for a bad `once` only */
    if (!t || !method)
        goto fail;
    tb_buf_init(&t->in, IN_BYTES_MAX);
    tb_buf_init(&t->pending, PENDING_BYTES_MAX);
    t->alpn = alpn;
    t->ssl = SSL_new(tb_tls_context_inner(c));
    if (!t->ssl || !connect_bio(t))
        goto fail;
    SSL_set_shed_handshake_config(t->ssl, 1);
    if (server) {
        SSL_set_accept_state(t->ssl);
        return t;
    }
    SSL_set_connect_state(t->ssl);
    if (alpn && !offer_alpn(t->ssl, alpn))
        goto fail;
    shake_hands(t); /* the hello, for the first drain */
    return t;

fail:
    ERR_clear_error();
    tb_tls_free(t);
    return NULL;
}

void tb_tls_ask(struct tb_tls *t)
{
    const STACK_OF(X509_NAME) *roots = SSL_CTX_get_client_CA_list(SSL_get_SSL_CTX(t->ssl));

    if (roots && sk_X509_NAME_num(roots) > 0)
        SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
}

bool tb_tls_peer_name(const struct tb_tls *t, const char *kind, size_t max, char *out)
{
    const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(t->ssl);
    const CRYPTO_BUFFER *first;

    if (!tb_tls_established(t) || !chain || sk_CRYPTO_BUFFER_num(chain) == 0 ||
        SSL_get_verify_result(t->ssl) != X509_V_OK)
        return false;
    first = sk_CRYPTO_BUFFER_value(chain, 0);
    return tb_certificate_name(tb_slice(CRYPTO_BUFFER_data(first), CRYPTO_BUFFER_len(first)), kind, max, out);
}

void tb_tls_free(struct tb_tls *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    tb_buf_free(&t->in);
    tb_buf_free(&t->pending);
    free(t);
}

bool tb_tls_feed(struct tb_tls *t, struct tb_slice ciphertext)
{
    if (t->broken)
        return false;
    if (t->closed)
        return true; /* nothing after close_notify counts (RFC 8446 section 6.1) */
    if (t->in_read > 0) {
        tb_buf_consume(&t->in, t->in_read);
        t->in_read = 0;
    }
    tb_buf_slice(&t->in, ciphertext);
    if (t->in.failed)
        t->broken = true;
    shake_hands(t);
    return !t->broken;
}

size_t tb_tls_read(struct tb_tls *t, void *out, size_t len, bool *closed)
{
    size_t got = 0;

    while (got < len && !t->broken && !t->closed) {
        size_t want = len - got;
        int n;

        ERR_clear_error();
        n = SSL_read(t->ssl, (char *)out + got, want > INT_MAX ? INT_MAX : (int)want);
        if (n <= 0) {
            (void)settle(t, n); /* the outcome is in broken and closed */
            break;
        }
        got += (size_t)n;
    }
    /* What arrived before the end is told first. */
    *closed = got == 0 && (t->broken || t->closed);
    return got;
}

static void flush_pending(struct tb_tls *t, struct tb_buf *out)
{
    if (t->pending.len > 0)
        tb_buf_slice(out, tb_buf_all(&t->pending));
    if (t->pending.ptr)
        tb_buf_free(&t->pending);
}

bool tb_tls_write(struct tb_tls *t, struct tb_slice plain, struct tb_buf *out)
{
    if (t->broken || !tb_tls_established(t))
        return false;
    flush_pending(t, out);
    t->out = out;
    while (plain.len > 0) {
        int n;

        ERR_clear_error();
        n = SSL_write(t->ssl, plain.ptr, plain.len > INT_MAX ? INT_MAX : (int)plain.len);
        if (n <= 0) {
            (void)settle(t, n);
            t->broken = true; /* the pipe takes everything: there is nothing to wait for */
            break;
        }
        plain = tb_slice_sub(plain, (size_t)n, SIZE_MAX);
    }
    t->out = NULL;
    return !t->broken && !out->failed;
}

void tb_tls_drain(struct tb_tls *t, struct tb_buf *out)
{
    flush_pending(t, out);
}

bool tb_tls_established(const struct tb_tls *t)
{
    return !SSL_in_init(t->ssl);
}

void tb_tls_close(struct tb_tls *t, struct tb_buf *out)
{
    flush_pending(t, out);
    if (t->broken || !tb_tls_established(t))
        return;
    t->out = out;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* a peer that is gone needs no farewell */
    ERR_clear_error();
    t->out = NULL;
}

const char *tb_tls_describe(const struct tb_tls *t)
{
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    struct tb_tls *own = (struct tb_tls *)(uintptr_t)t; /* text is a cache, no part of the state */

    if (!tb_tls_established(t) || !cipher)
        return "";
    (void)snprintf(own->text, sizeof(own->text), "%s %s", SSL_get_version(t->ssl), SSL_CIPHER_standard_name(cipher));
    return t->text;
}

/* RFC 9266 2: that label, a context of no bytes. 4.2: without the extended master secret two connections can share it.
 */
static bool exporter(SSL *ssl, uint8_t out[TB_TLS_BINDING_MAX], size_t *len)
{
    static const char label[] = "EXPORTER-Channel-Binding";

    if (SSL_version(ssl) < TLS1_3_VERSION && !SSL_get_extms_support(ssl))
        return false;
    *len = 32;
    return SSL_export_keying_material(ssl, out, *len, label, sizeof(label) - 1, (const uint8_t *)"", 0, 1) == 1;
}

/* RFC 5929 4.1: the certificate's bytes under the hash of its signature, SHA-256 in place of MD5 and SHA-1. */
static bool end_point(SSL *ssl, uint8_t out[TB_TLS_BINDING_MAX], size_t *len)
{
    X509 *own = SSL_CTX_get0_certificate(SSL_get_SSL_CTX(ssl));
    int hash = NID_undef;
    const EVP_MD *md;
    unsigned n = 0;

    if (!own || !SSL_is_server(ssl) || !OBJ_find_sigid_algs(X509_get_signature_nid(own), &hash, NULL))
        return false;
    if (hash == NID_md5 || hash == NID_sha1)
        hash = NID_sha256;
    md = EVP_get_digestbynid(hash);
    if (!md || EVP_MD_size(md) > TB_TLS_BINDING_MAX || X509_digest(own, md, out, &n) != 1)
        return false;
    *len = n;
    return true;
}

bool tb_tls_binding(const struct tb_tls *t, const char *name, uint8_t out[TB_TLS_BINDING_MAX], size_t *len)
{
    bool found = false;

    if (!t || !tb_tls_established(t))
        return false;
    if (strcmp(name, "tls-exporter") == 0)
        found = exporter(t->ssl, out, len);
    else if (strcmp(name, "tls-unique") == 0)
        found = SSL_version(t->ssl) < TLS1_3_VERSION && SSL_get_extms_support(t->ssl) &&
                SSL_get_tls_unique(t->ssl, out, len, TB_TLS_BINDING_MAX) == 1;
    else if (strcmp(name, "tls-server-end-point") == 0)
        found = end_point(t->ssl, out, len);
    ERR_clear_error();
    return found;
}
