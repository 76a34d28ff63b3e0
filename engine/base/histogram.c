/*
 * histogram.c: latencies in log-linear buckets: 64 to every power of two, so a bucket is at most 1/64 wide and its
 * middle is under 1 % away from every value in it. Values under 128 are exact; values from 2^63 count as 2^63 - 1.
 *
 * Never allocates. One thread at a time; merge to add up threads.
 */
#include <tambo/base.h>

enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS };
_Static_assert(TB_HISTOGRAM_BUCKETS == (63 - STEP_BITS) * STEPS + STEPS, "buckets reach to 2^63 - 1");

static size_t bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < STEPS)
        return (size_t)value;
    if (value > INT64_MAX)
        value = INT64_MAX;
    shift = 63u - (unsigned)__builtin_clzll(value) - STEP_BITS;
    return (size_t)shift * STEPS + (size_t)(value >> shift);
}

/* The middle of a bucket. */
static uint64_t value_of(size_t bucket)
{
    unsigned shift;
    uint64_t low;

    if (bucket < 2 * STEPS)
        return bucket;
    shift = (unsigned)(bucket / STEPS) - 1;
    low = (uint64_t)(bucket % STEPS + STEPS) << shift;
    return low + ((uint64_t)1 << shift) / 2;
}

void tb_histogram_add(struct tb_histogram *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->bucket[bucket_of(value)]++;
}

void tb_histogram_merge(struct tb_histogram *into, const struct tb_histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    for (size_t i = 0; i < TB_HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t tb_histogram_quantile(const struct tb_histogram *h, double q)
{
    uint64_t rank, seen = 0;

    if (h->count == 0)
        return 0;
    if (!(q > 0))
        q = 0;
    if (q >= 1)
        return h->max;
    rank = (uint64_t)(q * (double)h->count);
    for (size_t i = 0; i < TB_HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen > rank)
            return value_of(i) < h->max ? value_of(i) : h->max;
    }
    return h->max;
}
