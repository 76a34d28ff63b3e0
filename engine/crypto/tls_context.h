/*
 * tls_context.h: inside engine/crypto: what tls.c and tls_context.c share.
 */
#ifndef TB_TLS_CONTEXT_H
#define TB_TLS_CONTEXT_H

#include "engine/crypto/crypto.h"

#include <openssl/ssl.h>

/* tb_tls_context_inner: BoringSSL's own context, borrowed. */
SSL_CTX *tb_tls_context_inner(struct tb_tls_context *c);
/* tb_tls_select_alpn: the callback of SSL_CTX_set_alpn_select_cb, for connections made by tb_tls_new. */
int tb_tls_select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *arg);

#endif
