/*
 * transfer.c: a part's bytes without their transfer encoding, for who wants them as they were before it.
 *
 * The text stream's decoders without its charset. Memory: a few words, whatever passes. Pure. RFC 2045 6.
 */
#include "engine/mime/mime.h"

#include <stdlib.h>

struct tb_transfer {
    struct tb_text_stream stream;
};

struct tb_transfer *tb_transfer_new(enum tb_encoding encoding)
{
    struct tb_transfer *t = calloc(1, sizeof(*t));
    if (t != NULL)
        t->stream = (struct tb_text_stream){.encoding = encoding, .raw = true};
    return t;
}

void tb_transfer_put(struct tb_transfer *t, struct tb_slice bytes, struct tb_buf *out)
{
    tb_text_stream_put(&t->stream, bytes, out);
}

void tb_transfer_end(struct tb_transfer *t, struct tb_buf *out)
{
    tb_text_stream_end(&t->stream, out);
}

void tb_transfer_free(struct tb_transfer *t)
{
    free(t);
}
