/*
 * restore.h: a store made from a backup. Private to engine/store: restore_plan.c says from what, restore.c makes it,
 * restore_open.c wakes it. One thread; everything blocks.
 */
#ifndef TB_RESTORE_INTERNAL_H
#define TB_RESTORE_INTERNAL_H

#include <tambo/backup.h>
#include "engine/store/copy.h"
#include "engine/store/manifest.h"

struct tb_restore_shard {
    const struct tb_part *index; /* borrowed from a manifest */
    size_t first;                /* the newest manifest that lists it */
    struct tb_disk_copy head;
    uint64_t cut;    /* position where the restored log ends: a frame boundary */
    int64_t time_ms; /* the last TIME before it */
};
struct tb_restore {
    struct tb_io *io;
    const struct tb_restore_options *opt;
    struct tb_manifest *m; /* owned: those that can be read, ascending */
    size_t n;
    struct tb_restore_shard shard[TB_SHARDS_MAX];
    uint64_t done_bytes, total_bytes;
    char dir[TB_PATH]; /* where it is made */
    uint8_t *buf;      /* owned, TB_RESTORE_BUF */
};
enum { TB_RESTORE_BUF = 4 << 20 };

/* tb_restore_load: every manifest. NOTFOUND, CORRUPT (the newest is damaged, and no earlier moment was asked for). */
enum tb_rc tb_restore_load(struct tb_restore *r, struct tb_error *err) TB_USE_RESULT;
/* tb_restore_plan: for each shard the index copy and the cut. INVALID: that moment is not covered. CORRUPT, IO. */
enum tb_rc tb_restore_plan(struct tb_restore *r, struct tb_error *err) TB_USE_RESULT;
/* tb_restore_part: the part that has a segment's bytes from this offset on, as of manifest `first` or, with later, any
 * newer one; NULL. */
const struct tb_part *tb_restore_part(const struct tb_restore *r, uint32_t shard, uint32_t segment, uint64_t offset,
                                      size_t first, bool later);
/* tb_restore_wake: open what was made, skip ahead, keep only what was asked for, stop. */
enum tb_rc tb_restore_wake(struct tb_restore *r, struct tb_restore_result *out, struct tb_error *err) TB_USE_RESULT;
/* tb_skip_ahead: R14: the shard's numbers, and those of each account in it, jump where nobody was. NOSPACE, IO. Turns
 * the worker's loop. */
enum tb_rc tb_skip_ahead(struct tb_worker *w, struct tb_shard *s) TB_USE_RESULT;
/* tb_restore_when: "2026-11-23 17:05:09 UTC". */
const char *tb_restore_when(int64_t ms, char text[40]);

#endif
