/*
 * pins.h: which log segments somebody still needs, whatever the index says: a small counted set for each shard.
 *
 * A floor pin keeps a position and everything behind it (an index copy replays from there, a backup copies it). A chunk
 * pin does the same for the chunks of an unfinished upload, and says that a row may yet come to point there. A segment
 * pin keeps the one segment a position lies in (a body being read). GC asks tb_pins_hold before it frees (S6), and
 * tb_pin_chunk_floor before it believes that nothing will ever point somewhere. Thread: the shard's owner.
 */
#ifndef TB_PINS_H
#define TB_PINS_H

#include <tambo/base.h>

struct tb_pin {
    uint64_t at; /* a floor's position, or a segment's number */
    uint32_t count;
};
struct tb_pin_set {   /* ascending */
    struct tb_pin *v; /* owned */
    size_t n, cap;
};
struct tb_pins {
    struct tb_pin_set floors, chunks, segments;
    uint64_t segment_bytes;
};

void tb_pins_init(struct tb_pins *p, uint64_t segment_bytes);
void tb_pins_free(struct tb_pins *p);
/*
 * tb_pin_add: nothing at lsn or behind it is freed until as many tb_pin_remove of the same lsn. Cost: a binary search.
 * False without memory: nothing was pinned, so go no further.
 */
bool tb_pin_add(struct tb_pins *p, uint64_t lsn) TB_USE_RESULT;
void tb_pin_remove(struct tb_pins *p, uint64_t lsn);
/* tb_pin_floor: the lowest floor or chunk pin; UINT64_MAX: there is none. */
uint64_t tb_pin_floor(const struct tb_pins *p);
/* tb_pin_chunk_add, tb_pin_chunk_remove: the same for an upload whose first chunk lies at lsn, until a row names it. */
bool tb_pin_chunk_add(struct tb_pins *p, uint64_t lsn) TB_USE_RESULT;
void tb_pin_chunk_remove(struct tb_pins *p, uint64_t lsn);
uint64_t tb_pin_chunk_floor(const struct tb_pins *p);
/* tb_pin_segment_add, tb_pin_segment_remove: the same for the one segment that lsn lies in. */
bool tb_pin_segment_add(struct tb_pins *p, uint64_t lsn) TB_USE_RESULT;
void tb_pin_segment_remove(struct tb_pins *p, uint64_t lsn);
/* tb_pins_read: does a segment pin need it? tb_pins_hold: does any pin? */
bool tb_pins_read(const struct tb_pins *p, uint32_t segment);
bool tb_pins_hold(const struct tb_pins *p, uint32_t segment);

#endif
