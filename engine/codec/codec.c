/*
 * codec.c: zstd frames with dictionaries, one independent frame a call.
 *
 * Never believes what a frame says of itself: the caller knows the size it stored, and no more than that is written.
 * Frames carry no dictionary id and no checksum: the record that holds them has both.
 *
 * Invariants
 * (1) digested dictionaries are made under the lock, then read only; those of level 1 before any tb_codec exists.
 * (2) a frame is made with the newest dictionary of its role, with none when the bytes are too many to gain by one,
 *     and is not made at all when it would save under 3 %.
 * One tb_codec is used by one thread at a time. RFC 8878.
 */
#include "engine/codec/codec.h"

/* For ZSTD_createCDict_advanced (tables that fit the dictionary) and ZSTD_c_forceAttachDict (tables never copied). */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "engine/codec/b64.h"
#include "engine/codec/builtin.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    LEVEL_DELIVERY = 1,
    LEVEL_MAX = 12,               /* above it memory grows past what a helper thread should take */
    DICT_INPUT_BYTES = 256 << 10, /* from here on none: zstd has warmed up; 0.3 % for 10 % more time */
    HASH_LOG = 15, /* 13, zstd's own choice, has fewer slots than a dictionary has phrases: 1.4 % larger */
    MATCH_MIN = 6,
    MATCH_MIN_CACHE = 5, /* rows are short */
    BUILTINS = 3,
};

struct builtin {
    const char *ptr;
    const size_t *len;
};

static const struct builtin builtins[BUILTINS + 1] = {
    [TB_DICT_HEADER_1] = {tb_dict_header_1, &tb_dict_header_1_len},
    [TB_DICT_BODY_1] = {tb_dict_body_1, &tb_dict_body_1_len},
    [TB_DICT_CACHE_1] = {tb_dict_cache_1, &tb_dict_cache_1_len},
};
static const uint16_t newest[TB_ROLES] = {TB_DICT_HEADER_1, TB_DICT_BODY_1, TB_DICT_CACHE_1};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const ZSTD_CDict *_Atomic compressing[BUILTINS + 1][LEVEL_MAX + 1];
static const ZSTD_DDict *decompressing[BUILTINS + 1];
static const struct tb_b64_kernel *b64; /* this processor's */

struct tb_codec {
    ZSTD_CCtx *compress;   /* owned */
    ZSTD_DCtx *decompress; /* owned */
    char *scratch;         /* owned: a piece with its base64 decoded */
    size_t scratch_cap;
};

static ZSTD_CDict *digest(unsigned id, int level)
{
    size_t len = *builtins[id].len;
    ZSTD_compressionParameters p = ZSTD_getCParams(level, ZSTD_CONTENTSIZE_UNKNOWN, len);

    if (level == LEVEL_DELIVERY) { /* measured on 106 MB of list and personal mail */
        p.hashLog = HASH_LOG;
        p.minMatch = id == TB_DICT_CACHE_1 ? MATCH_MIN_CACHE : MATCH_MIN;
    }
    return ZSTD_createCDict_advanced(builtins[id].ptr, len, ZSTD_dlm_byRef, ZSTD_dct_auto, p, ZSTD_defaultCMem);
}

/* The digested dictionary for a level, made when first asked for; NULL without memory. */
static const ZSTD_CDict *compressing_at(unsigned id, int level)
{
    const ZSTD_CDict *d = compressing[id][level];

    if (d)
        return d;
    (void)pthread_mutex_lock(&lock); /* a plain mutex of our own cannot fail */
    d = compressing[id][level];
    if (!d) {
        d = digest(id, level);
        compressing[id][level] = d;
    }
    (void)pthread_mutex_unlock(&lock);
    return d;
}

enum tb_rc tb_codec_init(void)
{
    b64 = tb_b64_best();
    for (unsigned id = 1; id <= BUILTINS; id++) {
        if (!compressing_at(id, LEVEL_DELIVERY))
            return TB_LIMIT;
        if (!decompressing[id])
            decompressing[id] = ZSTD_createDDict_byReference(builtins[id].ptr, *builtins[id].len);
        if (!decompressing[id])
            return TB_LIMIT;
    }
    return TB_OK;
}

struct tb_codec *tb_codec_new(void)
{
    struct tb_codec *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->compress = ZSTD_createCCtx();
    c->decompress = ZSTD_createDCtx();
    if (!c->compress || !c->decompress || ZSTD_isError(ZSTD_CCtx_setParameter(c->compress, ZSTD_c_dictIDFlag, 0)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(c->compress, ZSTD_c_forceAttachDict, ZSTD_dictForceAttach))) {
        tb_codec_free(c);
        return NULL;
    }
    return c;
}

void tb_codec_free(struct tb_codec *c)
{
    if (!c)
        return;
    (void)ZSTD_freeCCtx(c->compress);
    (void)ZSTD_freeDCtx(c->decompress);
    free(c->scratch);
    free(c);
}

/* At least len bytes of scratch, with what it held lost; NULL without memory. */
static char *scratch(struct tb_codec *c, size_t len)
{
    if (len <= c->scratch_cap)
        return c->scratch;
    free(c->scratch);
    c->scratch = malloc(len);
    c->scratch_cap = c->scratch ? len : 0;
    return c->scratch;
}

size_t tb_codec_bound(size_t len)
{
    size_t bound = ZSTD_compressBound(len);

    return bound > len ? bound : len;
}

size_t tb_codec_compress(struct tb_codec *c, enum tb_codec_role role, int level, struct tb_slice src, void *dst,
                         uint16_t *dict)
{
    const ZSTD_CDict *d = NULL;
    struct tb_slice in = src;
    char *room;
    size_t n;

    if (level <= 0)
        level = LEVEL_DELIVERY;
    if (level > LEVEL_MAX)
        level = LEVEL_MAX;
    *dict = 0;
    if (role == TB_ROLE_BODY && src.len <= TB_B64_RAW_MAX && (room = scratch(c, tb_b64_room(src.len))) != NULL &&
        tb_b64_pack(b64, src, room, &in))
        *dict = TB_DICT_B64;
    if (in.len < DICT_INPUT_BYTES)
        d = compressing_at(newest[role], level);
    *dict |= d ? newest[role] : TB_DICT_NONE;
    /* Neither can fail between frames. */
    (void)ZSTD_CCtx_setParameter(c->compress, ZSTD_c_compressionLevel, level);
    (void)ZSTD_CCtx_refCDict(c->compress, d);
    n = ZSTD_compress2(c->compress, dst, tb_codec_bound(src.len), in.ptr, in.len);
    if (ZSTD_isError(n) || n > src.len - src.len * 3 / 100 || src.len == 0) {
        *dict = TB_DICT_RAW;
        if (src.len > 0)
            memcpy(dst, src.ptr, src.len);
        return src.len;
    }
    return n;
}

/* One frame of exactly len bytes into dst. */
static enum tb_rc inflate(struct tb_codec *c, uint16_t dict, struct tb_slice frame, void *dst, size_t len)
{
    size_t n;

    if (dict == TB_DICT_NONE)
        n = ZSTD_decompressDCtx(c->decompress, dst, len, frame.ptr, frame.len);
    else
        n = ZSTD_decompress_usingDDict(c->decompress, dst, len, frame.ptr, frame.len, decompressing[dict]);
    return !ZSTD_isError(n) && n == len ? TB_OK : TB_CORRUPT;
}

enum tb_rc tb_codec_decompress(struct tb_codec *c, uint16_t dict, struct tb_slice frame, void *dst, size_t raw_len)
{
    uint16_t id = dict & (uint16_t)~TB_DICT_B64;
    unsigned long long len;
    enum tb_rc rc;
    char *room;

    if (dict == TB_DICT_RAW) {
        if (frame.len != raw_len)
            return TB_CORRUPT;
        if (raw_len > 0)
            memcpy(dst, frame.ptr, raw_len);
        return TB_OK;
    }
    len = ZSTD_getFrameContentSize(frame.ptr, frame.len);
    if (id > BUILTINS)
        return TB_CORRUPT;
    if (!(dict & TB_DICT_B64))
        return len == raw_len ? inflate(c, id, frame, dst, raw_len) : TB_CORRUPT;
    if (len >= raw_len || raw_len > TB_B64_RAW_MAX) /* unpacked, it only grows; errors are huge sizes */
        return TB_CORRUPT;
    room = scratch(c, (size_t)len + TB_B64_SLACK);
    if (!room)
        return TB_LIMIT;
    rc = inflate(c, id, frame, room, (size_t)len);
    return rc == TB_OK ? tb_b64_unpack(b64, tb_slice(room, (size_t)len), dst, raw_len) : rc;
}
