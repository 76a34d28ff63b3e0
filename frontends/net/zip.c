/*
 * zip.c: DEFLATE on a connection, between the protocol and TLS: input is inflated, output compressed batch by batch.
 *
 * Must never hold more inflated input than the protocol asked for: what does not fit waits compressed, and the peer is
 * not read meanwhile. So a bomb costs its own connection time, in turns, and nobody memory.
 *   compressed input -> zip->in -> the net's scratch -> input ; output from zip->from on -> zip->wire -> TLS or socket
 * Thread: the connection's owner. RFC 4978 3 (the order: compress, then encrypt), RFC 1951.
 */
#include <stdlib.h>

#include "frontends/net/conn.h"

bool tb_conn_compressed(const struct tb_conn *c)
{
    return c->zip && !c->zip->ending;
}

void tb_conn_compress(struct tb_conn *c)
{
    struct tb_conn_zip *z = c->zip ? NULL : calloc(1, sizeof *z);
    if (z && !(z->deflate = tb_deflate_new())) {
        free(z);
        z = NULL;
    }
    if (!z || c->view.len > 0) { /* sent before the answer was known */
        if (z)
            tb_deflate_free(z->deflate);
        free(z);
        c->cause = c->view.len > 0 ? "bytes-before-deflate" : "memory";
        c->broken = true;
        return;
    }
    tb_buf_init(&z->in, TB_ZIP_IN_MAX);
    tb_buf_init(&z->wire, TB_NET_CIPHER_MAX);
    z->from = c->total;
    z->to = UINT64_MAX;
    c->zip = z;
}

/* end_input: the peer's stream to its end; what is behind it is plain. False without memory. */
static bool end_input(struct tb_conn *c)
{
    struct tb_conn_zip *z = c->zip;
    struct tb_slice in = tb_buf_all(&z->in);
    enum tb_rc rc = tb_deflate_end(z->deflate, &in);
    z->more = false;
    if (rc == TB_BUSY) {
        tb_buf_consume(&z->in, z->in.len);
        return true;
    }
    z->over = rc == TB_OK;
    c->in += in.len;
    bool good = z->over && (in.len == 0 || tb_input_add(c, in.ptr, in.len));
    tb_input_keep(c); /* it is z->in's */
    tb_buf_free(&z->in);
    tb_buf_init(&z->in, TB_ZIP_IN_MAX);
    return good;
}

void tb_conn_uncompress(struct tb_conn *c)
{
    struct tb_conn_zip *z = c->zip;
    if (!z || z->ending)
        return;
    z->ending = true;
    z->to = c->total;
    if (c->view.len > 0 || !end_input(c)) {
        c->cause = "bytes-behind-deflate";
        c->broken = true;
    }
}

void tb_conn_zip_free(struct tb_conn *c)
{
    struct tb_conn_zip *z = c->zip;
    if (!z)
        return;
    tb_deflate_free(z->deflate);
    tb_buf_free(&z->in);
    tb_buf_free(&z->wire);
    free(z);
    c->zip = NULL;
}

bool tb_conn_take(struct tb_conn *c, const char *ptr, size_t n)
{
    struct tb_conn_zip *z = c->zip;
    if (!z || z->over) {
        c->in += n;
        return tb_input_add(c, ptr, n);
    }
    tb_buf_put(&z->in, ptr, n);
    if (z->ending && !z->in.failed)
        return end_input(c);
    z->more = z->more || n > 0;
    return !z->in.failed;
}

bool tb_conn_zip_input(struct tb_conn *c)
{
    struct tb_conn_zip *z = c->zip;
    if (!z || !z->more || c->choked || c->view.len >= c->input_max)
        return false;
    tb_input_keep(c); /* the scratch is about to be overwritten */
    struct tb_slice in = tb_buf_all(&z->in);
    size_t n = 0;
    bool more = false;
    enum tb_rc rc = tb_deflate_read(z->deflate, &in, c->net->scratch, sizeof c->net->scratch, &n, &more);
    tb_buf_consume(&z->in, z->in.len - in.len);
    z->more = more || z->in.len > 0;
    if (z->in.len == 0) { /* an idle connection keeps no buffer (N2) */
        tb_buf_free(&z->in);
        tb_buf_init(&z->in, TB_ZIP_IN_MAX);
    }
    c->in += n;
    if (rc != TB_OK || (n > 0 && !tb_input_add(c, c->net->scratch, n))) {
        c->cause = c->cause ? c->cause : rc != TB_OK ? "deflate" : "memory";
        c->broken = true;
    }
    return !c->broken && (n > 0 || z->more || c->eof);
}

bool tb_conn_zip_pack(struct tb_conn *c, struct tb_slice plain)
{
    struct tb_conn_zip *z = c->zip;
    return tb_deflate_write(z->deflate, plain, &z->wire);
}
