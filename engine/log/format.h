/*
 * format.h: what the log looks like on disk. All integers little-endian. docs/FORMAT.md tells the same to strangers.
 * Growing it: unused flag bits and reserved bytes are written as zero and ignored when read; a new record type or a new
 * meaning of an old field raises TB_FORMAT. Everything from TB_FORMAT_OLDEST on is read; what is written bears
 * TB_FORMAT.
 */
#ifndef TB_LOG_FORMAT_H
#define TB_LOG_FORMAT_H

#include <tambo/base.h>

enum { TB_FORMAT = 2, TB_FORMAT_OLDEST = 1, TB_BLOCK = 4096 };

/* ---- segment header: the first block of a segment ---- */
#define TB_SEGMENT_MAGIC "TAMBOSEG"
struct tb_disk_segment {
    char magic[8];
    uint32_t format;
    uint32_t crc;     /* crc32c of this struct with crc = 0 */
    uint8_t uuid[16]; /* the store's */
    uint32_t shard;
    uint32_t segment; /* number, as in the file's name */
    uint64_t segment_bytes;
    uint8_t reserved[16];
};
_Static_assert(sizeof(struct tb_disk_segment) == 64, "segment header");

/* ---- frame: one group of records, one atomic unit ---- */
#define TB_FRAME_MAGIC 0x31464254u /* "TBF1" */
enum { TB_FRAME_SEALS = 1 };       /* the segment's last frame; the log goes on in the next segment number */
struct tb_disk_frame {
    uint32_t magic;
    uint32_t crc; /* crc32c of the rest of the frame, seeded with crc32c(uuid, shard) */
    uint32_t len; /* with this header */
    uint16_t records;
    uint16_t flags;
    uint64_t lsn; /* of this header: a frame that lies elsewhere is stale */
    uint32_t epoch;
    uint32_t chain; /* crc of the frame before; 0 for the very first */
};
_Static_assert(sizeof(struct tb_disk_frame) == 32, "frame header");

/* ---- record ---- */
struct tb_disk_record {
    uint8_t type, flags;
    uint16_t dict; /* reserved, 0 */
    uint32_t len;  /* of the payload */
    uint32_t crc;  /* crc32c of the header with crc = 0, then the payload */
    uint32_t acct; /* 0: the shard's own */
};
_Static_assert(sizeof(struct tb_disk_record) == 16, "record header");

/* Record types. Numbers are never reused. */
enum tb_record_type {
    TB_REC_BLOB = 1,
    TB_REC_CHUNK = 2,
    TB_REC_ADD = 3,
    TB_REC_FLAGS = 4,
    TB_REC_EXPUNGE = 5,
    TB_REC_COPY = 6,
    TB_REC_MBOX = 7,
    TB_REC_MBOX_DELETE = 8,
    TB_REC_RENAME = 9,
    TB_REC_SUB = 10,
    TB_REC_KEYWORD = 11,
    TB_REC_ACCT = 12,
    TB_REC_ACCT_DELETE = 13,
    TB_REC_PLACE = 14,
    TB_REC_UNPLACE = 15,
    TB_REC_PURGE = 16,
    TB_REC_QUEUE = 17,
    TB_REC_QUEUE_DONE = 18,
    TB_REC_FORGET = 19,
    TB_REC_MOVED = 20,
    TB_REC_DICT = 21,
    TB_REC_ANNOT = 22,
    TB_REC_UNEXPUNGE = 23,
    TB_REC_TIME = 24,
    TB_REC_UNDELETE = 25,
    TB_REC_RULE = 26,
    TB_REC_QUARANTINE = 27,
    TB_REC_TRIM = 28,
    TB_REC_SEGMENT = 29,
    TB_REC_SKIP = 30,
    TB_REC_ACL = 31,
    TB_REC_QUOTA = 32 /* 20 and above: reserved since format 2 */
};

#endif
