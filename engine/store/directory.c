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

/* room_for: at least so many names more. Lock held, or the store is nobody else's. */
static bool room_for(struct tb_store *store, size_t more)
{
    size_t cap = store->names_cap ? store->names_cap : 64;
    while (cap < store->names_n + more)
        cap *= 2;
    if (cap == store->names_cap)
        return true;
    struct tb_identity **v = realloc(store->names, cap * sizeof(struct tb_identity *));
    if (v == NULL)
        return false;
    store->names = v;
    store->names_cap = cap;
    return true;
}

enum tb_rc tb_directory_reserve(struct tb_store *store)
{
    struct tb_spare_name *spare = malloc(sizeof(*spare));
    (void)pthread_rwlock_wrlock(&store->lock);
    bool good = spare != NULL && room_for(store, store->spares + 1);
    if (good) {
        spare->next = store->spare;
        store->spare = spare;
        store->spares++;
    }
    (void)pthread_rwlock_unlock(&store->lock);
    if (!good)
        free(spare);
    return good ? TB_OK : TB_LIMIT;
}

uint64_t tb_directory_counted(const struct tb_store *store)
{
    return atomic_load(&store->counted);
}

/* count: a secret that came, or went with sign -1. Lock held. */
static void count(struct tb_store *store, const char *secret, int sign)
{
    if (store->cfg.counted && store->cfg.counted(secret))
        (void)atomic_fetch_add(&store->counted, (uint64_t)sign);
}

/* count_all: anew. Lock held. */
static void count_all(struct tb_store *store)
{
    atomic_store(&store->counted, 0);
    for (size_t i = 0; i < store->names_n; i++)
        count(store, store->names[i]->secret, 1);
}

/* insert: into the room that there is. */
static void insert(struct tb_store *store, size_t i, struct tb_identity *id)
{
    TB_ASSERT(store->names_n < store->names_cap);
    memmove(store->names + i + 1, store->names + i, (store->names_n - i) * sizeof(struct tb_identity *));
    store->names[i] = id;
    store->names_n++;
}

void tb_directory_set(struct tb_store *store, const struct tb_identity *id)
{
    bool found;
    (void)pthread_rwlock_wrlock(&store->lock);
    size_t i = position(store, tb_slice_str(id->name), &found);
    if (!found) {
        struct tb_spare_name *spare = store->spare;
        TB_ASSERT(spare != NULL); /* reserved before the name was logged */
        store->spare = spare->next;
        store->spares--;
        insert(store, i, &spare->id);
    } else {
        count(store, store->names[i]->secret, -1);
    }
    *store->names[i] = *id;
    count(store, id->secret, 1);
    (void)pthread_rwlock_unlock(&store->lock);
}

void tb_directory_remove(struct tb_store *store, struct tb_slice name)
{
    bool found;
    (void)pthread_rwlock_wrlock(&store->lock);
    size_t i = position(store, name, &found);
    if (found) {
        count(store, store->names[i]->secret, -1);
        free(store->names[i]);
        store->names_n--;
        memmove(store->names + i, store->names + i + 1, (store->names_n - i) * sizeof(struct tb_identity *));
    }
    (void)pthread_rwlock_unlock(&store->lock);
}

static enum tb_rc read_places(struct tb_store *store, struct tb_index *ix)
{
    struct tb_slice k, v;
    bool more = tb_index_ge(ix, TB_DB_PLACE, tb_slice("\0", 1), 0, &k, &v), found;
    for (; more; more = tb_index_next(ix, TB_DB_PLACE, 0, &k, &v)) {
        struct tb_spare_name *name = malloc(sizeof(*name));
        if (name == NULL || !room_for(store, 1)) {
            free(name);
            return TB_LIMIT;
        }
        size_t i = 0;
        bool good = k.len == 4 && tb_place_read(v, tb_get_be32(k.ptr), &name->id);
        if (good)
            i = position(store, tb_slice_str(name->id.name), &found);
        if (good && !found)
            insert(store, i, &name->id);
        else
            free(name);
    }
    return tb_index_rc(ix);
}

static void free_names(struct tb_identity **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

enum tb_rc tb_directory_load(struct tb_store *store, struct tb_index *ix)
{
    struct tb_store *fresh = calloc(1, sizeof(*fresh)); /* of which only the names are used */
    if (fresh == NULL)
        return TB_LIMIT;
    enum tb_rc rc = read_places(fresh, ix);
    (void)pthread_rwlock_wrlock(&store->lock); /* at no moment is a name missing */
    if (rc == TB_OK && !room_for(fresh, store->spares))
        rc = TB_LIMIT;
    struct tb_identity **names = rc == TB_OK ? store->names : fresh->names;
    size_t n = rc == TB_OK ? store->names_n : fresh->names_n;
    if (rc == TB_OK) {
        store->names = fresh->names;
        store->names_n = fresh->names_n;
        store->names_cap = fresh->names_cap;
        count_all(store);
    }
    (void)pthread_rwlock_unlock(&store->lock);
    free_names(names, n);
    free(fresh);
    return rc;
}

void tb_directory_free(struct tb_store *store)
{
    free_names(store->names, store->names_n);
    for (struct tb_spare_name *spare; (spare = store->spare) != NULL;) {
        store->spare = spare->next;
        free(spare);
    }
}
