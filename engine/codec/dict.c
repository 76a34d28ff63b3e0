/*
 * dict.c: dictionaries: those compiled in and the store's own, digested.
 *
 * Invariants
 * (1) a dictionary never changes, and lives until nobody can hold a frame made with it: the built-in ones for ever, the
 *     store's own until the store is closed.
 * (2) what is shared is made under the lock, then only read.
 * Any thread. RFC 8878 6.
 */
#include "engine/codec/dict.h"

#include <pthread.h>
#include <stdlib.h>

#include "engine/codec/builtin.h"

enum {
    HASH_LOG = 15, /* 13, zstd's own choice, has fewer slots than a dictionary has phrases: 1.4 % larger */
    MATCH_MIN = 6,
    MATCH_MIN_CACHE = 5, /* rows are short */
    BUILTINS = 3,
};

static struct tb_codec_dict builtins[BUILTINS] = {
    {.id = TB_DICT_HEADER_1, .role = TB_ROLE_HEADER},
    {.id = TB_DICT_BODY_1, .role = TB_ROLE_BODY},
    {.id = TB_DICT_CACHE_1, .role = TB_ROLE_CACHE},
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Memory for one digest, had before zstd is asked: zstd 1.5.4 reads through the NULL that its allocator returns there.
 */
struct room {
    void *ptr;
    size_t len;
};

static void *room_take(void *opaque, size_t n)
{
    struct room *r = opaque;
    void *p = r->ptr;

    if (!p || n > r->len)
        return malloc(n);
    r->ptr = NULL;
    return p;
}

/* The digest keeps this function for its end; the room itself is gone by then. */
static void room_free(void *opaque, void *p)
{
    (void)opaque;
    free(p);
}

ZSTD_CDict *tb_dict_digest(struct tb_slice bytes, enum tb_codec_role role, int level, unsigned hash_log)
{
    ZSTD_compressionParameters p = ZSTD_getCParams(level, ZSTD_CONTENTSIZE_UNKNOWN, bytes.len);

    if (level == TB_LEVEL_DELIVERY) { /* measured on 106 MB of list and personal mail */
        p.hashLog = hash_log;
        p.minMatch = role == TB_ROLE_CACHE ? MATCH_MIN_CACHE : MATCH_MIN;
    }
    struct room room = {.len = ZSTD_estimateCDictSize_advanced(bytes.len, p, ZSTD_dlm_byRef)};
    room.ptr = malloc(room.len);
    if (!room.ptr)
        return NULL;
    ZSTD_customMem memory = {room_take, room_free, &room};
    ZSTD_CDict *c = ZSTD_createCDict_advanced(bytes.ptr, bytes.len, ZSTD_dlm_byRef, ZSTD_dct_auto, p, memory);
    free(room.ptr); /* not taken */
    return c;
}

const ZSTD_CDict *tb_dict_at(const struct tb_codec_dict *shared, int level)
{
    struct tb_codec_dict *d = (struct tb_codec_dict *)(uintptr_t)shared; /* its cache of levels, under the lock */
    ZSTD_CDict *c = d->compress[level];

    if (c)
        return c;
    (void)pthread_mutex_lock(&lock); /* a plain mutex of our own cannot fail */
    c = d->compress[level];
    if (!c) {
        c = tb_dict_digest(d->bytes, d->role, level, HASH_LOG);
        d->compress[level] = c;
    }
    (void)pthread_mutex_unlock(&lock);
    return c;
}

static enum tb_rc digest(struct tb_codec_dict *d)
{
    if (!d->decompress)
        d->decompress = ZSTD_createDDict_byReference(d->bytes.ptr, d->bytes.len);
    return d->decompress && tb_dict_at(d, TB_LEVEL_DELIVERY) ? TB_OK : TB_LIMIT;
}

enum tb_rc tb_dict_init(void)
{
    builtins[0].bytes = tb_slice(tb_dict_header_1, tb_dict_header_1_len);
    builtins[1].bytes = tb_slice(tb_dict_body_1, tb_dict_body_1_len);
    builtins[2].bytes = tb_slice(tb_dict_cache_1, tb_dict_cache_1_len);
    for (size_t i = 0; i < BUILTINS; i++)
        if (digest(&builtins[i]) != TB_OK)
            return TB_LIMIT;
    return TB_OK;
}

const struct tb_codec_dict *tb_dict_builtin(enum tb_codec_role role)
{
    return &builtins[role];
}

const struct tb_codec_dict *tb_dict_builtin_by_id(uint16_t id)
{
    return id >= 1 && id <= BUILTINS ? &builtins[id - 1] : NULL;
}

enum tb_rc tb_codec_dict_new(uint16_t id, enum tb_codec_role role, struct tb_slice bytes, struct tb_codec_dict **out)
{
    struct tb_codec_dict *d;

    if (id < TB_DICT_TRAINED_MIN || id > TB_DICT_TRAINED_MAX || (unsigned)role >= TB_ROLES ||
        bytes.len > TB_DICT_BYTES_MAX || ZSTD_getDictID_fromDict(bytes.ptr, bytes.len) == 0)
        return TB_CORRUPT;
    d = calloc(1, sizeof(*d));
    if (!d || (d->own = malloc(bytes.len)) == NULL) {
        free(d);
        return TB_LIMIT;
    }
    memcpy(d->own, bytes.ptr, bytes.len);
    d->bytes = tb_slice(d->own, bytes.len);
    d->id = id;
    d->role = role;
    if (digest(d) != TB_OK) { /* zstd does not tell a malformed one from want of memory */
        tb_codec_dict_free(d);
        return TB_CORRUPT;
    }
    *out = d;
    return TB_OK;
}

void tb_codec_dict_free(struct tb_codec_dict *d)
{
    if (!d)
        return;
    for (int level = 0; level <= TB_LEVEL_MAX; level++)
        (void)ZSTD_freeCDict(d->compress[level]);
    (void)ZSTD_freeDDict(d->decompress);
    free(d->own);
    free(d);
}

uint16_t tb_codec_dict_id(const struct tb_codec_dict *d)
{
    return d->id;
}

enum tb_codec_role tb_codec_dict_role(const struct tb_codec_dict *d)
{
    return d->role;
}

struct tb_slice tb_codec_dict_bytes(const struct tb_codec_dict *d)
{
    return d->bytes;
}
