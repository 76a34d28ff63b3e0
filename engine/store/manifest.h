/*
 * manifest.h: what a backup consists of: a list of files that never change, with their digests. Text, one fact a line;
 * docs/FORMAT.md, "Backups". Private to engine/store. Any thread; what touches files blocks.
 */
#ifndef TB_MANIFEST_H
#define TB_MANIFEST_H

#include "engine/crypto/crypto.h"
#include "engine/store/shard.h"

enum tb_part_kind { TB_PART_INDEX, TB_PART_LOG, TB_PART_DICT };
struct tb_part { /* one file */
    enum tb_part_kind kind;
    uint32_t shard;
    uint32_t number;   /* LOG: segment; DICT: id */
    uint64_t from, to; /* LOG: offsets in the segment; INDEX: the position it holds the log up to, and pages */
    int64_t time_ms;   /* INDEX: last TIME in it */
    uint64_t bytes;
    uint8_t sha256[TB_SHA256_BYTES]; /* of the file; INDEX: the one in its first block */
};
struct tb_manifest_shard { /* where the log of the backup ends */
    uint64_t end, last;
    uint32_t chain;
    int64_t time_ms; /* what was durable before this moment is in it */
};
struct tb_manifest {
    uint32_t run;
    int64_t time_ms; /* the lowest of its shards' */
    struct tb_disk_super super;
    struct tb_manifest_shard shard[TB_SHARDS_MAX];
    struct tb_part *part; /* owned; by shard, then as they were added */
    size_t n, cap;
};
enum { TB_PART_PATH = TB_PATH + 80 };

void tb_manifest_free(struct tb_manifest *m);
bool tb_manifest_add(struct tb_manifest *m, const struct tb_part *p); /* false: no memory */
const struct tb_part *tb_manifest_find(const struct tb_manifest *m, const struct tb_part *like);
/* tb_manifest_index: the shard's index copy. */
const struct tb_part *tb_manifest_index(const struct tb_manifest *m, uint32_t shard);
/* tb_part_name: relative to the folder: "shard-00/log/00000001-00000000-00400000". */
void tb_part_name(const struct tb_part *p, char out[TB_PART_PATH]);
/* tb_part_read: what a file is called in its folder, back: kind, number, from and to are set. False: none of ours. */
bool tb_part_read(const char *name, struct tb_part *out);
void tb_part_path(const char *dest, const struct tb_part *p, char out[TB_PART_PATH]);
/* tb_manifest_text: as the file has it, with its digest. */
void tb_manifest_text(const struct tb_manifest *m, struct tb_buf *out);
/* tb_manifest_parse: the same back. CORRUPT: err says where. */
enum tb_rc tb_manifest_parse(struct tb_slice text, const char *name, struct tb_manifest *out,
                             struct tb_error *err) TB_USE_RESULT;
/* tb_manifest_read, tb_manifest_write: run's file. write: under another name, synced, renamed, folder synced. */
enum tb_rc tb_manifest_read(struct tb_io *io, const char *dest, uint32_t run, struct tb_manifest *out,
                            struct tb_error *err) TB_USE_RESULT;
enum tb_rc tb_manifest_write(struct tb_io *io, const char *dest, const struct tb_manifest *m,
                             struct tb_error *err) TB_USE_RESULT;
/* tb_manifest_runs: numbers of the backups in a folder, ascending; heap, *n of them. NOTFOUND no folder; IO. */
enum tb_rc tb_manifest_runs(struct tb_io *io, const char *dest, uint32_t **runs, size_t *n,
                            struct tb_error *err) TB_USE_RESULT;

#endif
