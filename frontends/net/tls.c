/*
 * tls.c: TLS between a connection's socket and its input and output. The machine is engine/crypto's; this file moves
 * bytes: ciphertext received goes in, plaintext comes out into the net's scratch and is read from there by the step;
 * plaintext is encrypted only when the gate has let it go.
 *
 * Must never: mix bytes of before and after the handshake (N3: the connection begins with no input), or fall back to
 * plain text after a failed handshake.
 * Thread: the connection's owner. RFC 8446, RFC 2595, RFC 7301 (ALPN).
 */
#include <stdlib.h>

#include "frontends/net/conn.h"

bool tb_conn_tls_begin(struct tb_conn *c)
{
    struct tb_tls_context *context = c->net->tls;
    if (!context || c->tls)
        return false;
    struct tb_conn_tls *t = calloc(1, sizeof *t);
    if (!t)
        return false;
    t->tls = tb_tls_new(context, true, c->listener->proto->alpn);
    if (!t->tls) {
        free(t);
        return false;
    }
    if (c->listener->proto->certificates)
        tb_tls_ask(t->tls);
    tb_buf_init(&t->wire, TB_NET_CIPHER_MAX);
    tb_buf_init(&t->pending, TB_NET_CIPHER_MAX);
    c->tls = t;
    c->phase = PHASE_HANDSHAKE;
    return true;
}

void tb_conn_tls_free(struct tb_conn *c)
{
    struct tb_conn_tls *t = c->tls;
    if (!t)
        return;
    tb_tls_free(t->tls);
    tb_buf_free(&t->wire);
    tb_buf_free(&t->pending);
    free(t);
    c->tls = NULL;
}

static void established(struct tb_conn *c)
{
    c->phase = PHASE_OPEN;
    if (c->opened)
        return;
    c->opened = true;
    c->listener->proto->open(c);
}

/* The next decrypted bytes, read into the scratch; the handshake is driven by the same call. */
static size_t read_some(struct tb_conn *c)
{
    struct tb_conn_tls *t = c->tls;
    bool closed = false;
    tb_input_keep(c); /* the scratch is about to be overwritten */
    size_t n = tb_tls_read(t->tls, c->net->scratch, sizeof c->net->scratch, &closed);
    tb_tls_drain(t->tls, &t->pending);
    t->more = n > 0;
    if (closed)
        c->eof = true;
    if (c->phase == PHASE_HANDSHAKE && tb_tls_established(t->tls))
        established(c);
    return n;
}

bool tb_conn_tls_input(struct tb_conn *c)
{
    struct tb_conn_tls *t = c->tls;
    if (!t || !t->more || c->choked || c->view.len >= c->input_max || (c->zip && c->zip->more))
        return false;
    bool was_eof = tb_conn_eof(c);
    size_t n = read_some(c);
    if (n && !tb_conn_take(c, c->net->scratch, n))
        c->broken = true;
    return !c->broken && (n > 0 || tb_conn_eof(c) != was_eof);
}

void tb_conn_tls_feed(struct tb_conn *c, struct tb_slice data)
{
    struct tb_conn_tls *t = c->tls;
    bool was_open = c->phase != PHASE_HANDSHAKE;
    bool sound = tb_tls_feed(t->tls, data);
    t->more = true;
    if (c->phase == PHASE_MOVE) { /* read where it arrives */
        if (!sound)
            c->broken = true;
        tb_conn_settle(c);
        return;
    }
    bool input = tb_conn_tls_input(c);
    tb_tls_drain(t->tls, &t->pending);
    if (!sound || (c->phase == PHASE_HANDSHAKE && c->eof)) {
        tb_conn_last(c, "tls"); /* the alert, then the end */
        tb_conn_settle(c);
    } else if (input || (!was_open && c->phase == PHASE_OPEN)) {
        tb_conn_work(c);
    } else {
        tb_conn_settle(c);
    }
}

bool tb_conn_tls_encrypt(struct tb_conn *c, struct tb_slice plain)
{
    struct tb_conn_tls *t = c->tls;
    struct tb_buf empty = t->wire;
    t->wire = t->pending; /* what was drained before comes first */
    t->pending = empty;
    return (plain.len == 0 || tb_tls_write(t->tls, plain, &t->wire)) && !t->wire.failed;
}

void tb_conn_tls_bye(struct tb_conn *c)
{
    struct tb_conn_tls *t = c->tls;
    if (t->bye || !tb_tls_established(t->tls))
        return;
    t->bye = true;
    tb_tls_close(t->tls, &t->pending);
    tb_tls_drain(t->tls, &t->pending);
}
