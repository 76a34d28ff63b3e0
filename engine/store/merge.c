/*
 * merge.c: a merge sort that can stop after any entry and go on later. Stable, bottom up. Pure.
 */
#include "engine/store/sort_internal.h"

#include <stdlib.h>

bool tb_merge_init(struct tb_merge *m, size_t cap)
{
    *m = (struct tb_merge){.cap = cap, .width = 1};
    if (cap == 0)
        return true;
    m->v = malloc(cap * sizeof(*m->v));
    m->to = malloc(cap * sizeof(*m->to));
    return m->v != NULL && m->to != NULL;
}

void tb_merge_free(struct tb_merge *m)
{
    free(m->v);
    free(m->to);
    *m = (struct tb_merge){0};
}

void tb_merge_add(struct tb_merge *m, uint64_t key, uint32_t more, uint32_t id)
{
    TB_ASSERT(m->n < m->cap);
    m->v[m->n++] = (struct tb_merge_entry){.key = key, .more = more, .id = id};
}

/* Does b come before a, which stands before it? */
static bool overtakes(const struct tb_merge *m, const struct tb_merge_entry *a, const struct tb_merge_entry *b)
{
    if (a->key != b->key)
        return b->key < a->key;
    return m->compare != NULL && m->compare(m->user, a->more, b->more) > 0;
}

static size_t at_most(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* One entry of the pair of runs [low, low + width) and [low + width, low + 2 width) goes to its place. */
static void move(struct tb_merge *m)
{
    size_t middle = at_most(m->low + m->width, m->n), high = at_most(m->low + 2 * m->width, m->n);
    size_t l = m->low + m->left, r = middle + m->right;
    bool right = l == middle || (r < high && overtakes(m, &m->v[l], &m->v[r]));
    m->to[m->at++] = m->v[right ? r : l];
    m->right += right;
    m->left += !right;
    if (m->at == high) {
        m->low = high;
        m->left = m->right = 0;
    }
}

bool tb_merge_step(struct tb_merge *m, uint64_t *cost)
{
    while (m->width < m->n) {
        if (*cost >= TB_ORDER_SLICE)
            return false;
        move(m);
        *cost += TB_ORDER_COST_MOVE;
        if (m->at < m->n)
            continue;
        struct tb_merge_entry *swap = m->v;
        m->v = m->to;
        m->to = swap;
        m->width *= 2;
        m->low = m->at = 0;
    }
    return true;
}
