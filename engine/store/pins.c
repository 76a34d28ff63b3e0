/*
 * pins.c: counted positions in two sorted arrays. A removal without its addition is our own mistake, so it is asserted.
 * Thread: the shard's owner.
 */
#include "engine/store/pins.h"

#include <stdlib.h>

/* place: where `at` stands or would stand. */
static size_t place(const struct tb_pin_set *s, uint64_t at)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->v[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool set_add(struct tb_pin_set *s, uint64_t at)
{
    size_t i = place(s, at);
    if (i < s->n && s->v[i].at == at) {
        s->v[i].count++;
        return true;
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 16;
        struct tb_pin *v = realloc(s->v, cap * sizeof(*v));
        if (v == NULL)
            return false;
        s->v = v;
        s->cap = cap;
    }
    memmove(s->v + i + 1, s->v + i, (s->n - i) * sizeof(*s->v));
    s->v[i] = (struct tb_pin){at, 1};
    s->n++;
    return true;
}

static void set_remove(struct tb_pin_set *s, uint64_t at)
{
    size_t i = place(s, at);
    TB_ASSERT(i < s->n && s->v[i].at == at);
    if (--s->v[i].count > 0)
        return;
    memmove(s->v + i, s->v + i + 1, (s->n - i - 1) * sizeof(*s->v));
    s->n--;
}

void tb_pins_init(struct tb_pins *p, uint64_t segment_bytes)
{
    *p = (struct tb_pins){.segment_bytes = segment_bytes};
}

void tb_pins_free(struct tb_pins *p)
{
    free(p->floors.v);
    free(p->chunks.v);
    free(p->segments.v);
    p->floors = p->chunks = p->segments = (struct tb_pin_set){0};
}

bool tb_pin_add(struct tb_pins *p, uint64_t lsn)
{
    return set_add(&p->floors, lsn);
}

void tb_pin_remove(struct tb_pins *p, uint64_t lsn)
{
    set_remove(&p->floors, lsn);
}

bool tb_pin_chunk_add(struct tb_pins *p, uint64_t lsn)
{
    return set_add(&p->chunks, lsn);
}

void tb_pin_chunk_remove(struct tb_pins *p, uint64_t lsn)
{
    set_remove(&p->chunks, lsn);
}

static uint64_t lowest(const struct tb_pin_set *s)
{
    return s->n > 0 ? s->v[0].at : UINT64_MAX;
}

uint64_t tb_pin_chunk_floor(const struct tb_pins *p)
{
    return lowest(&p->chunks);
}

uint64_t tb_pin_floor(const struct tb_pins *p)
{
    return lowest(&p->floors) < lowest(&p->chunks) ? lowest(&p->floors) : lowest(&p->chunks);
}

bool tb_pin_segment_add(struct tb_pins *p, uint64_t lsn)
{
    return set_add(&p->segments, lsn / p->segment_bytes);
}

void tb_pin_segment_remove(struct tb_pins *p, uint64_t lsn)
{
    set_remove(&p->segments, lsn / p->segment_bytes);
}

bool tb_pins_read(const struct tb_pins *p, uint32_t segment)
{
    size_t i = place(&p->segments, segment);
    return i < p->segments.n && p->segments.v[i].at == segment;
}

bool tb_pins_hold(const struct tb_pins *p, uint32_t segment)
{
    return tb_pin_floor(p) / p->segment_bytes <= segment || tb_pins_read(p, segment);
}
