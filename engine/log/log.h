/*
 * log.h: the append-only log of one shard: groups of records, framed, checksummed, chained, durable in order.
 *
 * Positions (lsn) are bytes: segment number * segment size + offset, a u64 that only grows. On-disk layout:
 * docs/FORMAT.md. Use: tb_log_open, tb_log_scan from the last checkpoint (recovery), tb_log_start, then reserve / add
 * ... and flush once a turn.
 *
 * Invariants
 * L1 one write is in flight per log; frames reach the disk in lsn order; durable never passes a byte that may not be on
 * disk. L2 a record's position is known when it is added and never moves (a group opens only where a whole buffer fits,
 * R4). L3 a segment is complete on disk under its final name before its first frame (R3). L4 after a failed write
 * nothing more is written: the log is failed (R7). Thread: the shard's owner.
 */
#ifndef TB_LOG_H
#define TB_LOG_H

#include <tambo/io.h>
#include "engine/log/format.h"

struct tb_log; /* opaque */

struct tb_log_mark { /* a frame boundary */
    uint64_t end;    /* position behind the frame: where the next one begins */
    uint64_t last;   /* position of the frame; 0: there is none yet */
    uint32_t chain;  /* its crc */
};

struct tb_log_events {
    void *user;
    /* a group was closed: records up to mark.end are in complete frames; the place for a checkpoint (R1) */
    void (*boundary)(void *user, struct tb_log_mark mark);
    void (*durable)(void *user, uint64_t position);
    void (*failed)(void *user, const struct tb_error *err);
};

struct tb_log_config {
    struct tb_io *io;
    const char *dir; /* of the segments; copied */
    uint8_t uuid[16];
    uint32_t shard, epoch;
    uint64_t segment_bytes;
    uint32_t
        pad_bytes; /* R6: 0: the partial last block is rewritten; else each group fills whole blocks of so many bytes */
    struct tb_log_events events;
};

/* tb_log_open: look at the folder; nothing is read or written yet. *cfg is copied. IO, LIMIT. */
enum tb_rc tb_log_open(const struct tb_log_config *cfg, struct tb_log **out, struct tb_error *err) TB_USE_RESULT;
/* tb_log_format: make the first segment of a new log. Blocks. Returns the position of the first frame. */
enum tb_rc tb_log_format(struct tb_log *log, uint64_t *first, struct tb_error *err) TB_USE_RESULT;

struct tb_record {
    uint8_t type, flags;
    uint16_t dict;
    uint32_t acct;
    struct tb_slice payload;
    uint64_t lsn; /* of the payload's first byte */
};
/*
 * tb_log_scan: call each for every record of every valid frame behind the mark, to the end of the log. each returns a
 * code other than OK to stop. frame_end runs after each frame's last record. CORRUPT: the marked frame is not there, so
 * the log ends before the mark (R1), or a valid frame lies after the end (R2): err names segment and offset. Blocks.
 * Cost: reads the bytes once.
 */
enum tb_rc tb_log_scan(struct tb_log *log, struct tb_log_mark from,
                       enum tb_rc (*each)(void *user, const struct tb_record *r),
                       void (*frame_end)(void *user, struct tb_log_mark mark), void *user,
                       struct tb_error *err) TB_USE_RESULT;
/*
 * tb_log_harden: make the last frame found by the scan durable, and the segments' names. Of all frames it alone may
 * come from a write that failed, or was under way when the process ended: it can be read, but was perhaps never flushed
 * (L1). Before anything relies on it (R1). IO. Blocks shortly.
 */
enum tb_rc tb_log_harden(struct tb_log *log, struct tb_error *err) TB_USE_RESULT;
/* tb_log_start: go on appending where the scan ended. Blocks shortly. */
enum tb_rc tb_log_start(struct tb_log *log, struct tb_error *err) TB_USE_RESULT;
/* tb_log_prepare: begin to make the next segment, if it is not there. NOSPACE is no error here: see tb_log_room. */
void tb_log_prepare(struct tb_log *log);
/* tb_log_close: nothing may be in flight (tb_log_quiet), or the io is being thrown away with it. */
void tb_log_close(struct tb_log *log);
bool tb_log_quiet(const struct tb_log *log); /* nothing un-durable, nothing in flight */
bool tb_log_idle(const struct tb_log *log);  /* nothing in flight */

/*
 * tb_log_room: may `bytes` of payload in `records` records be added now, leaving `reserve` bytes of log space for
 * others? patient  the caller can wait: BUSY as soon as the disk is behind or the next segment is still being made (try
 * again after the next durable event). Otherwise it gathers in memory, up to a hard bound, and is answered when it
 * could be written OK; NOSPACE (no space on disk for another segment); BUSY; LIMIT (never fits). OK also guarantees
 * that the records of the operation go into one frame (S2): the group is closed first if needed.
 */
enum tb_rc tb_log_room(struct tb_log *log, size_t bytes, uint32_t records, uint64_t reserve,
                       bool patient) TB_USE_RESULT;
/* tb_log_add: space for one record's payload in the open group; *lsn: position of its first byte. Fill it, then
 * tb_log_added. */
uint8_t *tb_log_add(struct tb_log *log, uint8_t type, uint8_t flags, uint16_t dict, uint32_t acct, size_t payload_len,
                    uint64_t *lsn);
/* tb_log_fresh: the next record added is the first of its frame. */
bool tb_log_fresh(const struct tb_log *log);
/* tb_log_added: the record is complete: its checksum is taken. Returns the record as a reader would see it. */
struct tb_record tb_log_added(struct tb_log *log);
/* tb_log_flush: once a turn: hand the next group to the disk if none is in flight. */
void tb_log_flush(struct tb_log *log);
/* tb_log_boundary: close the open group now, if it has records; either way the boundary event runs before this returns.
 */
void tb_log_boundary(struct tb_log *log);
/* tb_log_space: log bytes that surely exist, and whether no further segment can be had (*short_of_space). */
uint64_t tb_log_space(const struct tb_log *log, bool *short_of_space);
/* tb_log_end: the position after the last record added. */
uint64_t tb_log_end(const struct tb_log *log);
uint64_t tb_log_durable(const struct tb_log *log);
uint64_t tb_log_group_bytes_max(const struct tb_log *log);

/*
 * tb_log_read: read len bytes at a durable position through the page cache. direct: past the page cache (R19), waiting.
 * The position and length come from the index: a range outside one segment gives op->result -EINVAL.
 */
void tb_log_read(struct tb_log *log, struct tb_op *op, void *buf, uint32_t len, uint64_t lsn);
/* tb_log_read_now: at once; with direct from any thread. */
int64_t tb_log_read_now(struct tb_log *log, void *buf, size_t len, uint64_t lsn, bool direct);
/* tb_log_peek: bytes that are not durable yet, still in memory; false: read them from disk. Valid until the loop turns.
 */
bool tb_log_peek(struct tb_log *log, uint64_t lsn, uint32_t len, struct tb_slice *out);

/*
 * tb_log_next_segment: the first segment numbered `from` or above that exists; false: there is none. Freed ones are
 * not there any more.
 */
bool tb_log_next_segment(const struct tb_log *log, uint32_t from, uint32_t *segment);
/*
 * tb_log_free: a sealed segment goes: its name durably away, the file kept as a spare for the next segment unless
 * something else links it (R3). Only below the frame that the last confirmed checkpoint names, and only when nothing
 * needs it (S6): the caller's to know. One at a time. op->result 0, or -errno: it may come back after a power cut.
 */
void tb_log_free(struct tb_log *log, uint32_t segment, struct tb_op *op);
/* tb_log_segment_open: a descriptor to read a segment by; the caller closes it (tb_io_file_close). Any thread. */
int tb_log_segment_open(const struct tb_log *log, uint32_t segment);
/*
 * tb_log_seal: go on in the next segment, so that this one can be freed. OK (also when nothing is in it yet); BUSY: the
 * next one is still being made; NOSPACE, IO.
 */
enum tb_rc tb_log_seal(struct tb_log *log) TB_USE_RESULT;

/*
 * tb_log_walk: read a sealed segment from its first frame to its last, every checksum verified. Any thread, one at a
 * time for each walk; the segment must not be freed meanwhile.
 */
struct tb_log_walk; /* opaque */
/* tb_log_walk_open: LIMIT without memory, IO, CORRUPT (its header). */
enum tb_rc tb_log_walk_open(const struct tb_log *log, uint32_t segment, struct tb_log_walk **out,
                            struct tb_error *err) TB_USE_RESULT;
/*
 * tb_log_walk_some: call each for every record of the next frames, up to about `bytes` of them. OK: there are more;
 * NOTFOUND: that was the last; CORRUPT: a frame that should be there is not valid (err says where; nothing behind it
 * can be walked); IO; or what each returned other than OK.
 */
enum tb_rc tb_log_walk_some(struct tb_log_walk *walk, uint64_t bytes,
                            enum tb_rc (*each)(void *user, const struct tb_record *r), void *user,
                            struct tb_error *err) TB_USE_RESULT;
void tb_log_walk_close(struct tb_log_walk *walk);

struct tb_log_stat {
    uint64_t writes, frames, written_bytes, segments, spares, used_bytes, file_bytes;
};
/* tb_log_stat: counters since the log was opened, and sizes. */
void tb_log_stat(const struct tb_log *log, struct tb_log_stat *out);

#endif
