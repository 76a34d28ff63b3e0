/*
 * arena.c: memory of one command: many small allocations, one release.
 *
 * Never frees a single allocation and never hands out more than limit_bytes between two resets.
 * Invariants: (1) chunks is a list whose head is the chunk being filled; (2) an allocation that would waste most of
 * a chunk gets a chunk of its own behind the head, so slack stays under a quarter of what was handed out;
 * (3) overflowed stays set until the reset. One thread at a time.
 */
#include <tambo/base.h>

#include <stdlib.h>

enum { CHUNK_BYTES_MIN = 4096, CHUNK_BYTES_MAX = 65536, ALIGNMENT = 16 };

struct tb_arena_chunk {
    struct tb_arena_chunk *next; /* owned */
    size_t cap;                  /* bytes behind the header */
    size_t used;
    size_t unused_pad;
};
_Static_assert(sizeof(struct tb_arena_chunk) % ALIGNMENT == 0, "what follows the header must stay aligned");

static char *chunk_bytes(struct tb_arena_chunk *c)
{
    return (char *)(c + 1);
}

static struct tb_arena_chunk *chunk_new(size_t cap)
{
    struct tb_arena_chunk *c;

    if (cap > SIZE_MAX - sizeof(*c))
        return NULL;
    c = malloc(sizeof(*c) + cap);
    if (c) {
        c->next = NULL;
        c->cap = cap;
        c->used = 0;
    }
    return c;
}

/* The chunk that takes size more bytes: the head, a new head, or a chunk of its own behind the head. */
static struct tb_arena_chunk *chunk_for(struct tb_arena *a, size_t size)
{
    struct tb_arena_chunk *head = a->chunks;
    struct tb_arena_chunk *c;
    size_t cap;

    if (head && head->cap - head->used >= size)
        return head;
    cap = head ? 2 * (head->cap + sizeof(*c)) : CHUNK_BYTES_MIN;
    if (cap > CHUNK_BYTES_MAX)
        cap = CHUNK_BYTES_MAX;
    cap -= sizeof(*c);
    if (size > cap / 4 && head) {
        c = chunk_new(size);
        if (!c)
            return NULL;
        c->next = head->next;
        head->next = c;
        return c;
    }
    c = chunk_new(size > cap ? size : cap);
    if (!c)
        return NULL;
    c->next = head;
    a->chunks = c;
    return c;
}

void tb_arena_init(struct tb_arena *a, size_t limit_bytes)
{
    *a = (struct tb_arena){.limit_bytes = limit_bytes};
}

void *tb_arena_alloc(struct tb_arena *a, size_t size)
{
    struct tb_arena_chunk *c = NULL;
    void *p;

    if (size == 0)
        size = 1;
    if (!a->overflowed && a->used_bytes <= a->limit_bytes && size <= a->limit_bytes - a->used_bytes &&
        size <= SIZE_MAX - ALIGNMENT) {
        size = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
        c = chunk_for(a, size);
    }
    if (!c) {
        a->overflowed = true;
        return NULL;
    }
    p = chunk_bytes(c) + c->used;
    c->used += size;
    a->used_bytes += size;
    return memset(p, 0, size);
}

struct tb_slice tb_arena_copy(struct tb_arena *a, struct tb_slice s)
{
    char *p = s.len < SIZE_MAX ? tb_arena_alloc(a, s.len + 1) : NULL;

    if (!p) {
        a->overflowed = true;
        return tb_slice(NULL, 0);
    }
    if (s.len > 0)
        memcpy(p, s.ptr, s.len);
    return tb_slice(p, s.len);
}

static void release(struct tb_arena *a, bool keep_one)
{
    struct tb_arena_chunk *kept = NULL;

    while (a->chunks) {
        struct tb_arena_chunk *c = a->chunks;

        a->chunks = c->next;
        if (keep_one && !kept && c->cap + sizeof(*c) == CHUNK_BYTES_MIN) {
            kept = c;
            kept->next = NULL;
            kept->used = 0;
        } else {
            free(c);
        }
    }
    a->chunks = kept;
    a->used_bytes = 0;
    a->overflowed = false;
}

void tb_arena_reset(struct tb_arena *a)
{
    release(a, true);
}

void tb_arena_free(struct tb_arena *a)
{
    release(a, false);
}
