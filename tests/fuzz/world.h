/*
 * world.h: what fuzz targets stand on that need more than a function: a whole server in memory, and an index with
 * nothing but what the target puts there. Both are made again every so often, so that runs stay short and alike.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "engine/io/sim.h"
#include "engine/store/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { PORT_LMTP = 24, PORT_SMTP = 25, PORT_POP3 = 110, PORT_IMAP = 143, PORT_SUBMISSION = 587, PORT_CTL = 9999 };

struct fuzz_world { /* one worker, two shards; accounts ann and bob with the password "secret" and some mail */
    struct tb_sim *sim;
    char dir[64];
    struct tb_store *store;
    struct tb_worker *w;
    struct tb_account_id ann;
};
/* fuzz_world: the world, made anew if it has been asked for often. */
struct fuzz_world *fuzz_world(void);
/* fuzz_turn: until nothing moves any more, or a bounded time has passed. */
void fuzz_turn(struct fuzz_world *x);
/*
 * fuzz_talk: one connection: before, then the bytes in pieces of `piece`, then the client goes. What the server said is
 * in *out (owned by the caller). The connection must be gone afterwards.
 */
void fuzz_talk(uint16_t port, struct tb_slice before, struct tb_slice bytes, size_t piece, struct tb_buf *out);
/* fuzz_lines: every line of what was said ends in CRLF and holds no NUL; frees it. */
void fuzz_lines(struct tb_buf *out);

/* fuzz_index: an empty index in an open transaction. fuzz_index_close throws it away. */
struct tb_index *fuzz_index(void);
void fuzz_index_close(struct tb_index *ix);

/* fuzz_file: the path of a file in memory with these bytes, written anew by each call. */
const char *fuzz_file(struct tb_slice bytes);

struct fuzz_in { /* an input, read from its front; past its end all is zero */
    const uint8_t *p;
    size_t n;
};
uint64_t fuzz_number(struct fuzz_in *in, unsigned bytes);
/* fuzz_piece: the next max bytes at most, as many as a two-byte length says. */
struct tb_slice fuzz_piece(struct fuzz_in *in, size_t max);

#endif
