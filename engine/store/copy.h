/*
 * copy.h: whole copies of a shard's index: made while it serves, checked, put back. Layout: docs/FORMAT.md, "Index
 * copies". Private to engine/store.
 *
 * A copy holds one confirmed snapshot: what the log says up to `ckpt.applied`. With the log from there on it gives the
 * index again. Each shard keeps two, copy-0 and copy-1, made in turn; backups hold others.
 */
#ifndef TB_COPY_H
#define TB_COPY_H

#include "engine/crypto/crypto.h"
#include "engine/store/shard.h"

#define TB_COPY_MAGIC "TAMBOCPY"
enum {
    TB_COPIES = 2,
    TB_COPY_PAGE = 4096,
    TB_COPY_SLICE_PAGES = 256,
    TB_COPY_PATH = TB_PATH + 64,
    TB_COPY_PATH_NEW = TB_COPY_PATH + 8
};

struct tb_disk_copy { /* the first block of a copy; then pages, then a CRC32C for each, padded to a block */
    char magic[8];
    uint32_t format, crc; /* crc32c of this struct with crc = 0 */
    uint8_t uuid[16];
    uint32_t shard, reserved;
    uint64_t pages;
    int64_t made_ms;    /* when the snapshot was taken, since 1970 */
    int64_t time_ms;    /* the last TIME record in it; 0: none */
    uint8_t sha256[32]; /* of everything behind the first block */
    struct tb_disk_ckpt ckpt;
};
_Static_assert(sizeof(struct tb_disk_copy) == 312, "copy");

/* ---- copy_file.c: the file; any thread; everything blocks ---- */

/* tb_copy_path: "DIR/copy-0". */
void tb_copy_path(const char *shard_dir, unsigned number, char out[TB_COPY_PATH]);
/* tb_copy_seal: fill magic, format and crc. */
void tb_copy_seal(struct tb_disk_copy *h);
/*
 * tb_copy_open: read and check the first block and the file's size. OK; NOTFOUND no such file; CORRUPT it is no whole
 * copy; INVALID too new; IO. uuid (16 bytes), shard  whose copy it must be, else CORRUPT; uuid NULL: anybody's. Cheap.
 */
enum tb_rc tb_copy_open(struct tb_io *io, const char *path, const uint8_t *uuid, uint32_t shard,
                        struct tb_disk_copy *out, struct tb_error *err) TB_USE_RESULT;
/*
 * tb_copy_verify: read all of it: every page against its checksum, the whole against its digest. OK, CORRUPT, IO.
 */
enum tb_rc tb_copy_verify(struct tb_io *io, const char *path, struct tb_error *err) TB_USE_RESULT;
/*
 * tb_copy_restore_to: write the copy's index to a new file (index.mdb), verified while it is read, synced. *ckpt: the
 * checkpoint record that goes with it: give it a seq and seal it (tb_ckpt_seal). OK, CORRUPT, NOSPACE, IO; on failure
 * no file is left.
 */
enum tb_rc tb_copy_restore_to(struct tb_io *io, const char *path, const char *index_path, struct tb_disk_ckpt *ckpt,
                              struct tb_error *err) TB_USE_RESULT;
/*
 * tb_copy_newest: the newest of a shard's own copies with applied <= limit that is whole: it was read and verified. OK
 * with *number and *out; NOTFOUND: none (err tells what is wrong with the last one looked at).
 */
enum tb_rc tb_copy_newest(struct tb_io *io, const char *shard_dir, const uint8_t *uuid, uint32_t shard, uint64_t limit,
                          unsigned *number, struct tb_disk_copy *out, struct tb_error *err) TB_USE_RESULT;

struct tb_copy_reader { /* a copy being read from its first page to its last */
    struct tb_io *io;
    const char *path; /* borrowed */
    int fd;
    struct tb_disk_copy head;
    uint8_t *table; /* owned: the checksums, as they lie in the file */
    uint8_t *pages; /* owned, aligned: the slice that was read last */
    uint64_t at;    /* the next page */
    size_t n;       /* pages in the slice */
    struct tb_sha256 sha;
};
/* tb_copy_reader_open: zeroed before; close it whatever comes out. */
enum tb_rc tb_copy_reader_open(struct tb_copy_reader *r, struct tb_io *io, const char *path,
                               struct tb_error *err) TB_USE_RESULT;
/* tb_copy_reader_step: the next at most TB_COPY_SLICE_PAGES pages, each checked; n = 0: that was all and the digest is
 * right. */
enum tb_rc tb_copy_reader_step(struct tb_copy_reader *r, struct tb_error *err) TB_USE_RESULT;
void tb_copy_reader_close(struct tb_copy_reader *r);

/* ---- copy.c: making one ---- */

struct tb_copy_run; /* private */
/* A copy being made: the caller's memory, zeroed but for its arguments; from tb_copy_start to op.done the copier's. */
struct tb_copy_job {
    struct tb_op op;         /* done on the shard's thread; rc OK, NOSPACE, IO, CORRUPT, LIMIT, CANCELLED */
    char path[TB_COPY_PATH]; /* argument: where to. Written beside it as .new, verified, then renamed */
    uint64_t rate_bytes;     /* argument: a second at most; 0: as fast as it goes */
    struct tb_error err;
    struct tb_disk_copy head;         /* what was made */
    uint64_t done_bytes, total_bytes; /* how far it is, verifying included; total 0: not begun */
    struct tb_copy_run *run;
};
/*
 * tb_copy_start: copy the last confirmed snapshot; while a checkpoint is under way, wait for the one it confirms. The
 * file is read on a helper thread, in slices, while the owner goes on: a read transaction keeps the pages (R10). Owner.
 * Any number at a time.
 */
void tb_copy_start(struct tb_shard *s, struct tb_copy_job *job);
/* tb_copy_cancel: end it soon, with CANCELLED unless it is done already. Owner. */
void tb_copy_cancel(struct tb_copy_job *job);

#endif
