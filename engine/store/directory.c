/*
 * directory.c: who has an account, and where (R15). The truth is PLACE rows in shard 0; this is its copy in memory, a
 * sorted array under a read-write lock, so that any thread can look names up. Readers copy out; nothing of it is handed
 * out by pointer.
 */
#include "engine/store/shard.h"

#include <stdlib.h>

/* position: the index of name, or where it belongs; *found. Lock held. */
static size_t position(const struct tb_store *st, struct tb_slice name, bool *found)
{
    size_t lo = 0, hi = st->names_n;
    *found = false;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const char *have = st->names[mid]->name;
        size_t len = strlen(have), n = len < name.len ? len : name.len;
        int c = n > 0 ? memcmp(have, name.ptr, n) : 0;
        if (c == 0)
            c = len < name.len ? -1 : len > name.len ? 1 : 0;
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct tb_slice lower(struct tb_slice name, char out[TB_NAME_MAX])
{
    size_t n = name.len < TB_NAME_MAX ? name.len : TB_NAME_MAX;
    for (size_t i = 0; i < n; i++)
        out[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
    return tb_slice(out, n);
}

enum tb_rc tb_directory_find(struct tb_store *store, struct tb_slice name, struct tb_identity *out)
{
    char low[TB_NAME_MAX];
    bool found;
    if (name.len > TB_NAME_MAX)
        return TB_NOTFOUND;
    name = lower(name, low);
    (void)pthread_rwlock_rdlock(&store->lock);
    size_t i = position(store, name, &found);
    if (found)
        *out = *store->names[i];
    (void)pthread_rwlock_unlock(&store->lock);
    return found ? TB_OK : TB_NOTFOUND;
}

enum tb_rc tb_directory_next(struct tb_store *store, struct tb_slice after, struct tb_identity *out)
{
    bool found;
    (void)pthread_rwlock_rdlock(&store->lock);
    size_t i = position(store, after, &found);
    if (found)
        i++;
    bool have = i < store->names_n;
    if (have)
        *out = *store->names[i];
    (void)pthread_rwlock_unlock(&store->lock);
    return have ? TB_OK : TB_NOTFOUND;
}

void tb_directory_set(struct tb_store *store, const struct tb_identity *id)
{
    bool found;
    (void)pthread_rwlock_wrlock(&store->lock);
    size_t i = position(store, tb_slice_str(id->name), &found);
    if (!found && store->names_n == store->names_cap) {
        size_t cap = store->names_cap ? store->names_cap * 2 : 64;
        struct tb_identity **v = realloc(store->names, cap * sizeof(struct tb_identity *));
        TB_ASSERT(v !=
                  NULL); /* a name that is durable must be findable: without memory for it the process must not go on */
        store->names = v;
        store->names_cap = cap;
    }
    if (!found) {
        struct tb_identity *copy = malloc(sizeof(*copy));
        TB_ASSERT(copy != NULL);
        memmove(store->names + i + 1, store->names + i, (store->names_n - i) * sizeof(struct tb_identity *));
        store->names[i] = copy;
        store->names_n++;
    }
    *store->names[i] = *id;
    (void)pthread_rwlock_unlock(&store->lock);
}

void tb_directory_remove(struct tb_store *store, struct tb_slice name)
{
    bool found;
    (void)pthread_rwlock_wrlock(&store->lock);
    size_t i = position(store, name, &found);
    if (found) {
        free(store->names[i]);
        store->names_n--;
        memmove(store->names + i, store->names + i + 1, (store->names_n - i) * sizeof(struct tb_identity *));
    }
    (void)pthread_rwlock_unlock(&store->lock);
}

static void read_places(struct tb_store *store, struct tb_index *ix)
{
    struct tb_slice k, v;
    bool more = tb_index_ge(ix, TB_DB_PLACE, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_PLACE, 0, &k, &v)) {
        struct tb_identity id;
        if (k.len != 4 || !tb_place_read(v, tb_get_be32(k.ptr), &id))
            continue;
        tb_directory_set(store, &id);
    }
}

static void free_names(struct tb_identity **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

void tb_directory_load(struct tb_store *store, struct tb_index *ix)
{
    struct tb_store *fresh = calloc(1, sizeof(*fresh)); /* of which only the names are used */
    TB_ASSERT(fresh != NULL);
    (void)pthread_rwlock_init(&fresh->lock, NULL);
    read_places(fresh, ix);
    (void)pthread_rwlock_wrlock(&store->lock); /* at no moment is a name missing */
    struct tb_identity **names = store->names;
    size_t n = store->names_n;
    store->names = fresh->names;
    store->names_n = fresh->names_n;
    store->names_cap = fresh->names_cap;
    (void)pthread_rwlock_unlock(&store->lock);
    free_names(names, n);
    (void)pthread_rwlock_destroy(&fresh->lock);
    free(fresh);
}

void tb_directory_free(struct tb_store *store)
{
    free_names(store->names, store->names_n);
}
