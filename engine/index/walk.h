/*
 * walk.h: reading an index file page by page, trusting nothing: for checks, scrubs and after a crash.
 *
 * LMDB believes its pages: a flipped bit in a branch page, a key or the free list gives wrong answers or a dead
 * process. The walk reads the same file with plain reads, from a given meta body (the confirmed one), and checks what
 * LMDB does not: page numbers, kinds, bounds, key order within what the branch above says, depth, each page reached
 * once, overflow runs, the free list (with the trees it must cover every page), LMDB's own counters, and every value's
 * checksum.
 *
 * W1 no byte of the file can make it read outside its buffers, loop, or use memory beyond a bit a page and a page a
 * level. W2 it writes nothing. Thread: any, one at a time; the pages of the snapshot must not be reused meanwhile (the
 * file is closed, or a read transaction holds the snapshot).
 */
#ifndef TB_WALK_H
#define TB_WALK_H

#include "engine/index/index.h"

struct tb_walk; /* opaque */

struct tb_walk_stat {
    uint64_t pages; /* of the snapshot, used or free: last page number + 1 */
    uint64_t read_bytes, used, free_pages, lost;
    uint64_t damage; /* findings */
    uint64_t entries[TB_DBS];
};
struct tb_walk_config {
    void *user;
    /* len bytes at offset, or less at the end of the file, or -errno. len and offset are whole pages; buf is aligned to
     * one. */
    int64_t (*read)(void *user, void *buf, size_t len, uint64_t offset);
    /* one entry, in key order within its database, its checksum verified and taken off; NULL: not wanted. Slices are
     * valid until it returns. */
    void (*entry)(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value);
    /* what is wrong, for a person; db: TB_DBS if it is of none. */
    void (*damage)(void *user, enum tb_db db, const char *what);
};
enum { TB_WALK_DAMAGE_MAX = 1000 }; /* after so many findings the walk ends */

/*
 * tb_walk_new: begin at a meta body. Databases come in the order of enum tb_db, but for blob and body, which come
 * first. NULL without memory.
 */
struct tb_walk *tb_walk_new(const struct tb_walk_config *cfg, const uint8_t meta[TB_META_BYTES]) TB_USE_RESULT;
/* tb_walk_step: go on for about so many pages; true: there is more. */
bool tb_walk_step(struct tb_walk *w, uint64_t pages) TB_USE_RESULT;
const struct tb_walk_stat *tb_walk_stat(const struct tb_walk *w);
void tb_walk_free(struct tb_walk *w);

#endif
