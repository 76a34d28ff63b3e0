/*
 * deflate.c: zlib's streams behind deflate.h. Pure: bytes in, bytes out. Its input is hostile: zlib says so when it is
 * no DEFLATE, and never writes past the room it was given. Thread: the caller's. RFC 1951.
 */
#include "engine/codec/deflate.h"

#include <stdlib.h>

#include <zlib.h>

enum { WINDOW_OUT = 13, WINDOW_IN = 15, MEM_LEVEL = 6 };

struct tb_deflate {
    z_stream out, in;
};

struct tb_deflate *tb_deflate_new(void)
{
    struct tb_deflate *d = calloc(1, sizeof(*d));
    if (d == NULL)
        return NULL;
    if (deflateInit2(&d->out, Z_BEST_SPEED, Z_DEFLATED, -WINDOW_OUT, MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(d);
        return NULL;
    }
    if (inflateInit2(&d->in, -WINDOW_IN) != Z_OK) {
        (void)deflateEnd(&d->out); /* it was only just made */
        free(d);
        return NULL;
    }
    return d;
}

void tb_deflate_free(struct tb_deflate *d)
{
    if (d == NULL)
        return;
    (void)deflateEnd(&d->out); /* says that the stream was not ended: no connection ends it */
    (void)inflateEnd(&d->in);
    free(d);
}

bool tb_deflate_write(struct tb_deflate *d, struct tb_slice in, struct tb_buf *out)
{
    enum { ROOM = 4 << 10 };
    d->out.next_in = (z_const Bytef *)(uintptr_t)in.ptr; /* read only */
    d->out.avail_in = (uInt)in.len;
    do {
        char *room = tb_buf_reserve(out, ROOM);
        if (room == NULL)
            return false;
        d->out.next_out = (Bytef *)room;
        d->out.avail_out = ROOM;
        if (deflate(&d->out, Z_SYNC_FLUSH) == Z_STREAM_ERROR)
            return false;
        out->len += ROOM - d->out.avail_out;
    } while (d->out.avail_out == 0);
    return true;
}

enum tb_rc tb_deflate_read(struct tb_deflate *d, struct tb_slice *in, char *room, size_t cap, size_t *n, bool *more)
{
    d->in.next_in = (z_const Bytef *)(uintptr_t)in->ptr;
    d->in.avail_in = (uInt)in->len;
    d->in.next_out = (Bytef *)room;
    d->in.avail_out = (uInt)cap;
    int rc = inflate(&d->in, Z_SYNC_FLUSH);
    *in = tb_slice_sub(*in, in->len - d->in.avail_in, in->len);
    *n = cap - d->in.avail_out;
    *more = d->in.avail_out == 0;
    return rc == Z_OK || rc == Z_BUF_ERROR ? TB_OK : TB_CORRUPT;
}

enum tb_rc tb_deflate_end(struct tb_deflate *d, struct tb_slice *in)
{
    enum { UNUSED_BITS = 7, LAST = 64, BOUNDARY = 128 };
    char none;
    d->in.next_in = (z_const Bytef *)(uintptr_t)in->ptr;
    d->in.avail_in = (uInt)in->len;
    for (;;) {
        int state = d->in.data_type;
        if (state & LAST || (state & BOUNDARY && (state & UNUSED_BITS) == 0))
            break;
        d->in.next_out = (Bytef *)&none;
        d->in.avail_out = 1;
        int rc = inflate(&d->in, Z_BLOCK);
        if (d->in.avail_out == 0 || (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END))
            return TB_CORRUPT;
        if (rc == Z_STREAM_END)
            break;
        if (d->in.avail_in == 0 && !(d->in.data_type & BOUNDARY))
            return TB_BUSY;
    }
    *in = tb_slice_sub(*in, in->len - d->in.avail_in, in->len);
    return TB_OK;
}
