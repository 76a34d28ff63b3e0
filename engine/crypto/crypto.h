/*
 * crypto.h: digests, HMAC, TLS as a machine of bytes. The only folder that includes <openssl/...> (BoringSSL).
 * Pure: no sockets, no files but the certificate and key that tb_tls_context_load is given as bytes.
 */
#ifndef TB_CRYPTO_H
#define TB_CRYPTO_H

#include <tambo/base.h>

/* ---- digests ---- */
enum { TB_SHA256_BYTES = 32 };
struct tb_sha256 {
    _Alignas(8) uint8_t state[128]; /* holds a BoringSSL SHA256_CTX (static assert in digest.c) */
};
void tb_sha256_init(struct tb_sha256 *h);
void tb_sha256_update(struct tb_sha256 *h, const void *ptr, size_t len);
void tb_sha256_final(struct tb_sha256 *h, uint8_t out[TB_SHA256_BYTES]);
void tb_hmac_sha256(const uint8_t *key, size_t key_len, const void *ptr, size_t len, uint8_t out[TB_SHA256_BYTES]);
/* tb_secret_equal: equal in constant time for equal lengths. */
bool tb_secret_equal(const void *a, size_t a_len, const void *b, size_t b_len);
/* tb_aes128_block: one block, for unguessable permutations of ids. */
void tb_aes128_block(const uint8_t key[16], const uint8_t in[16], uint8_t out[16]);
/* tb_aes128_unblock: the inverse. */
void tb_aes128_unblock(const uint8_t key[16], const uint8_t in[16], uint8_t out[16]);
/* tb_sha1, tb_md5, tb_sha512: one-shot, for old password schemes only. */
void tb_sha1(const void *ptr, size_t len, uint8_t out[20]);
void tb_md5(const void *ptr, size_t len, uint8_t out[16]);
void tb_sha512(const void *ptr, size_t len, uint8_t out[64]);
/* tb_hmac_sha1: RFC 2104, likewise. */
void tb_hmac_sha1(const void *key, size_t key_len, const void *ptr, size_t len, uint8_t out[20]);
/* tb_hmac_md5_state: what HMAC-MD5 has come to when it has taken the key alone: MD5's four words, little-endian, of the
 * outer and of the inner half. It is what a server of CRAM-MD5 keeps (RFC 2195 4). */
void tb_hmac_md5_state(const void *key, size_t key_len, uint8_t out[32]);
/* tb_pbkdf2: digest_bits 1 (SHA-1), 256 or 512. */
bool tb_pbkdf2(int digest_bits, struct tb_slice password, struct tb_slice salt, uint32_t rounds, uint8_t *out,
               size_t out_len);
/* tb_base64_decode: strict RFC 4648 4 (no blanks; padding needed). false if malformed or over out's limit. */
bool tb_base64_decode(struct tb_slice text, struct tb_buf *out);
void tb_base64_encode(struct tb_slice bytes, struct tb_buf *out);
void tb_hex(const void *ptr, size_t len, char *out); /* 2 * len characters and a NUL */

/* ---- public keys, as JSON Web Keys give them (RFC 7518 6): numbers big-endian; NULL: not one, or a weak one ---- */
struct tb_pubkey;
/* tb_pubkey_rsa: 2048 to 8192 bits. */
struct tb_pubkey *tb_pubkey_rsa(struct tb_slice n, struct tb_slice e);
/* tb_pubkey_ec: on P-256, P-384 or P-521. */
struct tb_pubkey *tb_pubkey_ec(struct tb_slice curve, struct tb_slice x, struct tb_slice y);
struct tb_pubkey *tb_pubkey_ed25519(struct tb_slice x);
void tb_pubkey_free(struct tb_pubkey *k);
/* tb_pubkey_verify: is it this key's signature of the message, by an algorithm that suits the key (RFC 7518 3.1: RS, PS
 * and ES with 256, 384, 512; EdDSA)? Any thread. */
bool tb_pubkey_verify(const struct tb_pubkey *k, struct tb_slice alg, struct tb_slice message,
                      struct tb_slice signature);

/* ---- TLS (1.2 and 1.3): feed ciphertext, read plaintext, write plaintext, drain ciphertext ---- */
struct tb_tls_context; /* certificate and settings; immutable; shared by threads by reference count */
struct tb_tls;         /* one connection */

/* tb_tls_context_load: a server context from PEM bytes. INVALID with err naming what is wrong (expired is a warning
 * only). */
enum tb_rc tb_tls_context_load(struct tb_slice certificate_pem, struct tb_slice key_pem, struct tb_tls_context **out,
                               struct tb_error *err) TB_USE_RESULT;
/* tb_tls_context_client: for the bench: no certificate check. */
enum tb_rc tb_tls_context_client(struct tb_tls_context **out) TB_USE_RESULT;
/* tb_tls_context_clients: clients may show certificates that lead to these roots (PEM); before the context is shared.
 * INVALID: there is none in it. */
enum tb_rc tb_tls_context_clients(struct tb_tls_context *c, struct tb_slice roots_pem,
                                  struct tb_error *err) TB_USE_RESULT;
/* tb_certificate_name: whom a certificate (DER) names: kind "email": its only rfc822Name; "cn": its only commonName. At
 * most max bytes, and a NUL. False: none, several, or malformed. */
bool tb_certificate_name(struct tb_slice der, const char *kind, size_t max, char *out);
struct tb_tls_context *tb_tls_context_ref(struct tb_tls_context *c);
void tb_tls_context_unref(struct tb_tls_context *c);
/* tb_tls_selfsigned: a P-256 key and a certificate for hostname (with localhost, 127.0.0.1 and ::1), 10 years, as PEM.
 */
enum tb_rc tb_tls_selfsigned(const char *hostname, int64_t now_s, struct tb_buf *certificate_pem,
                             struct tb_buf *key_pem) TB_USE_RESULT;

/* tb_tls_new: alpn: the one protocol accepted if the client offers any ("imap", "pop3", "smtp"), NULL: not checked. */
struct tb_tls *tb_tls_new(struct tb_tls_context *c, bool server, const char *alpn);
/* tb_tls_ask: ask the client for a certificate, if the context has roots for it; before the first feed. */
void tb_tls_ask(struct tb_tls *t);
/* tb_tls_peer_name: whom the certificate names that the peer has shown, and that was verified; as tb_certificate_name.
 */
bool tb_tls_peer_name(const struct tb_tls *t, const char *kind, size_t max, char *out);
void tb_tls_free(struct tb_tls *t);
/* tb_tls_feed: ciphertext from the peer, all of it taken. false: the connection is broken (drain the alert, then
 * close). */
bool tb_tls_feed(struct tb_tls *t, struct tb_slice ciphertext);
/* tb_tls_read: decrypted bytes into out; returns how many, 0 = none now. Drives the handshake. *closed: close_notify or
 * failure. */
size_t tb_tls_read(struct tb_tls *t, void *out, size_t len, bool *closed);
/* tb_tls_write: encrypt all of plain into out (TLS records). false: not established or broken. */
bool tb_tls_write(struct tb_tls *t, struct tb_slice plain, struct tb_buf *out);
/* tb_tls_drain: handshake and alert bytes that must be sent. Call after feed and read. */
void tb_tls_drain(struct tb_tls *t, struct tb_buf *out);
bool tb_tls_established(const struct tb_tls *t);
/*
 * tb_tls_binding: what ties an authentication to this TLS connection: name is "tls-exporter" (RFC 9266: 32 bytes; under
 * TLS 1.2 only with the extended master secret), "tls-unique" (RFC 5929 3: TLS 1.2 with that secret; for older clients)
 * or "tls-server-end-point" (RFC 5929 4: our certificate's hash; on the server's side). False: no such binding, or not
 * here.
 */
enum { TB_TLS_BINDING_MAX = 64 };
bool tb_tls_binding(const struct tb_tls *t, const char *name, uint8_t out[TB_TLS_BINDING_MAX], size_t *len);
/* tb_tls_close: queue close_notify. */
void tb_tls_close(struct tb_tls *t, struct tb_buf *out);
/* tb_tls_describe: "TLSv1.3 TLS_AES_128_GCM_SHA256", static or the tls's own. */
const char *tb_tls_describe(const struct tb_tls *t);

#endif
