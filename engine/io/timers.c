/*
 * timers.c: a binary heap of ops by due time, used by every backend (the simulator keeps all its events in one).
 *
 * Adding, removing and taking cost O(log n); nothing here reads a clock. Memory grows by doubling and is kept.
 * Invariant: v[op->slot].op == op for every op in the heap. Thread: the owner of the io.
 */
#include "backend.h"

#include <stdlib.h>

static bool earlier(const struct tb_timer *a, const struct tb_timer *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->seq < b->seq;
}

static void put(struct tb_timers *t, uint32_t i, struct tb_timer entry)
{
    t->v[i] = entry;
    entry.op->slot = i;
}

static void sift_up(struct tb_timers *t, uint32_t i, struct tb_timer entry)
{
    while (i > 0 && earlier(&entry, &t->v[(i - 1) / 2])) {
        put(t, i, t->v[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(t, i, entry);
}

static void sift_down(struct tb_timers *t, uint32_t i, struct tb_timer entry)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= t->n)
            break;
        if (child + 1 < t->n && earlier(&t->v[child + 1], &t->v[child]))
            child++;
        if (!earlier(&t->v[child], &entry))
            break;
        put(t, i, t->v[child]);
        i = child;
    }
    put(t, i, entry);
}

bool tb_timers_add(struct tb_timers *t, struct tb_op *op)
{
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        struct tb_timer *v = cap > t->cap ? realloc(t->v, cap * sizeof(*v)) : NULL;
        if (!v)
            return false;
        t->v = v;
        t->cap = cap;
    }
    t->n++;
    sift_up(t, t->n - 1, (struct tb_timer){op->due_ns, t->seq++, op});
    return true;
}

void tb_timers_remove(struct tb_timers *t, struct tb_op *op)
{
    uint32_t i = op->slot;
    TB_ASSERT(i < t->n && t->v[i].op == op);
    struct tb_timer last = t->v[--t->n];
    if (i == t->n)
        return;
    if (i > 0 && earlier(&last, &t->v[(i - 1) / 2]))
        sift_up(t, i, last);
    else
        sift_down(t, i, last);
}

struct tb_op *tb_timers_pop(struct tb_timers *t, uint64_t now_ns, uint64_t seq_limit)
{
    if (t->n == 0 || t->v[0].due_ns > now_ns || t->v[0].seq >= seq_limit)
        return NULL;
    struct tb_op *op = t->v[0].op;
    tb_timers_remove(t, op);
    return op;
}

void tb_timers_free(struct tb_timers *t)
{
    free(t->v);
    *t = (struct tb_timers){0};
}
