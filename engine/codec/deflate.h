/*
 * deflate.h: raw DEFLATE (RFC 1951) in both directions of a connection. The only folder that includes <zlib.h>.
 *
 * Memory is fixed when it is made: 64 KiB to compress (a window of 8 KiB), 40 KiB to inflate (32 KiB, which a peer may
 * use); what inflates to much more than it was comes out piece by piece, as the caller has room.
 */
#ifndef TB_DEFLATE_H
#define TB_DEFLATE_H

#include <tambo/base.h>

struct tb_deflate; /* opaque; one thread at a time */

struct tb_deflate *tb_deflate_new(void); /* NULL without memory */
void tb_deflate_free(struct tb_deflate *d);
/* tb_deflate_write: append what in becomes to out, flushed so that the peer can read all of it (RFC 1951 3.2.4). False:
 * out is full. */
bool tb_deflate_write(struct tb_deflate *d, struct tb_slice in, struct tb_buf *out);
/*
 * tb_deflate_read: inflate from *in, which is moved on, to room; *n is how much, at most cap. *more: there may be more
 * even without input. CORRUPT: it is no DEFLATE, or its last block has ended.
 */
enum tb_rc tb_deflate_read(struct tb_deflate *d, struct tb_slice *in, char *room, size_t cap, size_t *n,
                           bool *more) TB_USE_RESULT;

/*
 * tb_deflate_end: nothing more is to come of the stream but its end: an empty block, as flushing leaves it. OK: *in
 * begins behind it; BUSY: all of *in was taken, and the end is still to come; CORRUPT: there is more.
 */
enum tb_rc tb_deflate_end(struct tb_deflate *d, struct tb_slice *in) TB_USE_RESULT;

#endif
