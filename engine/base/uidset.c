/*
 * uidset.c: sets of UIDs or sequence numbers as ranges.
 *
 * Invariant: v[0..n) ascends, is disjoint and not adjacent (v[i].last + 1 < v[i + 1].first), and holds no 0.
 * A failed set (no memory, too many ranges) keeps what it had and takes no more; tb_uidset_clear starts it anew.
 * One thread at a time.
 */
#include <tambo/base.h>

#include <stdlib.h>

enum { FIRST_RANGES = 8 };

void tb_uidset_init(struct tb_uidset *s)
{
    *s = (struct tb_uidset){0};
}

void tb_uidset_free(struct tb_uidset *s)
{
    free(s->v);
    *s = (struct tb_uidset){0};
}

void tb_uidset_clear(struct tb_uidset *s)
{
    s->n = 0;
    s->failed = false;
}

/* Room for one more range. */
static bool grow(struct tb_uidset *s)
{
    size_t cap = s->cap ? s->cap * 2 : FIRST_RANGES;
    struct tb_range *v;

    if (s->n < s->cap)
        return true;
    if (cap > TB_UIDSET_RANGES_MAX)
        cap = TB_UIDSET_RANGES_MAX;
    v = s->n < cap ? realloc(s->v, cap * sizeof(*v)) : NULL;
    if (!v) {
        s->failed = true;
        return false;
    }
    s->v = v;
    s->cap = cap;
    return true;
}

/* The index of the first range whose last >= uid; n if there is none. */
static size_t first_reaching(const struct tb_uidset *s, uint32_t uid)
{
    size_t low = 0, high = s->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->v[mid].last < uid)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Replace the ranges [from, to) by one. */
static void splice(struct tb_uidset *s, size_t from, size_t to, struct tb_range r)
{
    if (from == to) {
        if (!grow(s))
            return;
        memmove(s->v + from + 1, s->v + from, (s->n - from) * sizeof(r));
        s->n++;
    } else if (to - from > 1) {
        memmove(s->v + from + 1, s->v + to, (s->n - to) * sizeof(r));
        s->n -= to - from - 1;
    }
    s->v[from] = r;
}

void tb_uidset_add(struct tb_uidset *s, uint32_t first, uint32_t last)
{
    struct tb_range r = {first, last};
    size_t from, to;

    TB_ASSERT(first > 0 && first <= last);
    if (s->failed)
        return;
    if (s->n == 0 || s->v[s->n - 1].last < first - 1) {
        if (grow(s))
            s->v[s->n++] = r;
        return;
    }
    from = first_reaching(s, first - 1); /* first - 1: an adjacent range joins too */
    if (s->v[from].first < r.first)
        r.first = s->v[from].first;
    for (to = from; to < s->n && (last == UINT32_MAX || s->v[to].first <= last + 1); to++) {
        if (s->v[to].last > r.last)
            r.last = s->v[to].last;
    }
    splice(s, from, to, r);
}

void tb_uidset_remove(struct tb_uidset *s, uint32_t first, uint32_t last)
{
    size_t from, to;

    TB_ASSERT(first > 0 && first <= last);
    if (s->failed)
        return;
    from = first_reaching(s, first);
    if (from == s->n || s->v[from].first > last)
        return;
    if (s->v[from].first < first) {
        struct tb_range head = {s->v[from].first, first - 1};

        if (s->v[from].last > last) { /* a hole in one range */
            struct tb_range tail = {last + 1, s->v[from].last};

            if (!grow(s))
                return;
            s->v[from] = head;
            splice(s, from + 1, from + 1, tail);
            return;
        }
        s->v[from++] = head;
    }
    for (to = from; to < s->n && s->v[to].last <= last; to++)
        ;
    if (to < s->n && s->v[to].first <= last)
        s->v[to].first = last + 1;
    memmove(s->v + from, s->v + to, (s->n - to) * sizeof(*s->v));
    s->n -= to - from;
}

bool tb_uidset_has(const struct tb_uidset *s, uint32_t uid)
{
    size_t i = first_reaching(s, uid);

    return i < s->n && s->v[i].first <= uid;
}

uint64_t tb_uidset_count(const struct tb_uidset *s)
{
    uint64_t count = 0;

    for (size_t i = 0; i < s->n; i++)
        count += (uint64_t)s->v[i].last - s->v[i].first + 1;
    return count;
}

void tb_uidset_intersect(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out)
{
    size_t i = 0, j = 0;

    TB_ASSERT(out != a && out != b);
    tb_uidset_clear(out);
    while (i < a->n && j < b->n) {
        uint32_t first = a->v[i].first > b->v[j].first ? a->v[i].first : b->v[j].first;
        uint32_t last = a->v[i].last < b->v[j].last ? a->v[i].last : b->v[j].last;

        if (first <= last)
            tb_uidset_add(out, first, last);
        if (a->v[i].last < b->v[j].last)
            i++;
        else
            j++;
    }
    if (a->failed || b->failed)
        out->failed = true;
}

void tb_uidset_unite(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out)
{
    size_t i = 0, j = 0;

    TB_ASSERT(out != a && out != b);
    tb_uidset_clear(out);
    while (i < a->n || j < b->n) {
        bool from_a = j == b->n || (i < a->n && a->v[i].first < b->v[j].first);
        struct tb_range r = from_a ? a->v[i++] : b->v[j++];

        tb_uidset_add(out, r.first, r.last);
    }
    if (a->failed || b->failed)
        out->failed = true;
}

void tb_uidset_subtract(const struct tb_uidset *a, const struct tb_uidset *b, struct tb_uidset *out)
{
    size_t j = 0;

    TB_ASSERT(out != a && out != b);
    tb_uidset_clear(out);
    for (size_t i = 0; i < a->n; i++) {
        uint64_t at = a->v[i].first, last = a->v[i].last;

        while (j < b->n && b->v[j].last < at)
            j++;
        for (size_t k = j; k < b->n && b->v[k].first <= last; k++) {
            if (b->v[k].first > at)
                tb_uidset_add(out, (uint32_t)at, b->v[k].first - 1);
            at = (uint64_t)b->v[k].last + 1;
            j = k; /* it may reach into the next range */
        }
        if (at <= last)
            tb_uidset_add(out, (uint32_t)at, (uint32_t)last);
    }
    if (a->failed || b->failed)
        out->failed = true;
}

void tb_uidset_write(const struct tb_uidset *s, struct tb_buf *out)
{
    for (size_t i = 0; i < s->n; i++) {
        if (i > 0)
            tb_buf_char(out, ',');
        tb_buf_u64(out, s->v[i].first);
        if (s->v[i].last != s->v[i].first) {
            tb_buf_char(out, ':');
            tb_buf_u64(out, s->v[i].last);
        }
    }
}
