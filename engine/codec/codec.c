/*
 * codec.c: zstd frames with dictionaries, one independent frame a call.
 *
 * Never believes what a frame says of itself: the caller knows the size it stored, and no more than that is written.
 * Frames carry no dictionary id and no checksum: the record that holds them has both.
 *
 * Invariants
 * (1) a frame is made with the dictionary in use for its role, with none when the bytes are too many to gain by one,
 *     and is not made at all when it would save under 3 %.
 * (2) base64 in bodies is decoded before (b64.h), and then there is always less to compress.
 *
 * Bodies at delivery go the fast way: they are copied to right behind the dictionary's content, so that to zstd the two
 * are one text, and one hash table does for both; it is copied for each body, which pays while it is small. Headers are
 * too short for that: their table is attached as it is.
 * One tb_codec is used by one thread at a time. RFC 8878.
 */
#include "engine/codec/codec.h"

#include <stdlib.h>

#include "engine/codec/b64.h"
#include "engine/codec/dict.h"

enum {
    DICT_INPUT_BYTES = 256 << 10, /* from here on none: zstd has warmed up; 0.3 % for 10 % more time */
    HASH_LOG_FAST = 12,           /* 16 KiB to copy; 13 is 2 % smaller and 8 % slower, attached is 3 % and 20 % */
    HASH_LOG_TRAINED = 13         /* there is more to find */
};

struct fast {    /* a dictionary with room for a piece behind it */
    char *bytes; /* owned: the dictionary, then DICT_INPUT_BYTES */
    char *room;  /* in it */
    ZSTD_CDict *digest;
};

struct tb_codec {
    ZSTD_CCtx *compress;   /* owned */
    ZSTD_DCtx *decompress; /* owned */
    char *scratch;         /* owned: a piece with its base64 decoded */
    size_t scratch_cap;
    const struct tb_codec_dict *newest[TB_ROLES]; /* borrowed: in use for writing */
    const struct tb_codec_dict **known;           /* owned array of borrowed: the store's own, by id */
    size_t known_n;
    struct fast body;
};

static const struct tb_b64_kernel *b64; /* this processor's */

/* ---- life ---- */

enum tb_rc tb_codec_init(void)
{
    b64 = tb_b64_best();
    return tb_dict_init();
}

static void fast_free(struct fast *f)
{
    (void)ZSTD_freeCDict(f->digest);
    free(f->bytes);
    *f = (struct fast){0};
}

static enum tb_rc fast_make(struct fast *f, const struct tb_codec_dict *d)
{
    struct fast made = {.bytes = malloc(d->bytes.len + DICT_INPUT_BYTES)};

    if (!made.bytes)
        return TB_LIMIT;
    memcpy(made.bytes, d->bytes.ptr, d->bytes.len);
    made.room = made.bytes + d->bytes.len;
    made.digest = tb_dict_digest(tb_slice(made.bytes, d->bytes.len), d->role, TB_LEVEL_DELIVERY,
                                 d->own ? HASH_LOG_TRAINED : HASH_LOG_FAST);
    if (!made.digest) {
        fast_free(&made);
        return TB_LIMIT;
    }
    fast_free(f);
    *f = made;
    return TB_OK;
}

struct tb_codec *tb_codec_new(void)
{
    struct tb_codec *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->compress = ZSTD_createCCtx();
    c->decompress = ZSTD_createDCtx();
    for (int role = 0; role < TB_ROLES; role++)
        c->newest[role] = tb_dict_builtin((enum tb_codec_role)role);
    if (!c->compress || !c->decompress || ZSTD_isError(ZSTD_CCtx_setParameter(c->compress, ZSTD_c_dictIDFlag, 0)) ||
        fast_make(&c->body, c->newest[TB_ROLE_BODY]) != TB_OK) {
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
    fast_free(&c->body);
    free(c->known);
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

/* ---- dictionaries ---- */

enum tb_rc tb_codec_learn(struct tb_codec *c, const struct tb_codec_dict *d)
{
    size_t at = (size_t)d->id - TB_DICT_TRAINED_MIN;

    if (at >= c->known_n) {
        const struct tb_codec_dict **v = realloc(c->known, (at + 1) * sizeof(*v));

        if (!v)
            return TB_LIMIT;
        while (c->known_n <= at)
            v[c->known_n++] = NULL;
        c->known = v;
    }
    c->known[at] = d;
    return TB_OK;
}

enum tb_rc tb_codec_adopt(struct tb_codec *c, const struct tb_codec_dict *d)
{
    enum tb_rc rc = tb_codec_learn(c, d);

    if (rc == TB_OK && d->role == TB_ROLE_BODY)
        rc = fast_make(&c->body, d);
    if (rc == TB_OK)
        c->newest[d->role] = d;
    return rc;
}

static const struct tb_codec_dict *dict_of(const struct tb_codec *c, uint16_t id)
{
    if (id < TB_DICT_TRAINED_MIN)
        return tb_dict_builtin_by_id(id);
    return id - (size_t)TB_DICT_TRAINED_MIN < c->known_n ? c->known[id - TB_DICT_TRAINED_MIN] : NULL;
}

bool tb_codec_knows(const struct tb_codec *c, uint16_t dict)
{
    uint16_t id = dict & (uint16_t)~TB_DICT_B64;

    return dict == TB_DICT_RAW || id == TB_DICT_NONE || dict_of(c, id) != NULL;
}

uint16_t tb_codec_in_use(const struct tb_codec *c, enum tb_codec_role role)
{
    return c->newest[role]->id;
}

/* ---- compressing ---- */

size_t tb_codec_bound(size_t len)
{
    size_t bound = ZSTD_compressBound(len);

    return bound > len ? bound : len;
}

/* One frame of `in`; a zstd error if there was one. */
static size_t deflate(struct tb_codec *c, enum tb_codec_role role, int level, struct tb_slice in, void *dst, size_t cap,
                      uint16_t *dict)
{
    bool fast = role == TB_ROLE_BODY && level == TB_LEVEL_DELIVERY;
    const ZSTD_CDict *d = NULL;

    if (in.len < DICT_INPUT_BYTES)
        d = fast ? c->body.digest : tb_dict_at(c->newest[role], level);
    if (d && fast) {
        memcpy(c->body.room, in.ptr, in.len);
        in.ptr = c->body.room;
    }
    *dict = d ? c->newest[role]->id : TB_DICT_NONE;
    /* None can fail between frames. */
    (void)ZSTD_CCtx_setParameter(c->compress, ZSTD_c_compressionLevel, level);
    (void)ZSTD_CCtx_setParameter(c->compress, ZSTD_c_forceAttachDict, fast ? ZSTD_dictForceCopy : ZSTD_dictForceAttach);
    (void)ZSTD_CCtx_refCDict(c->compress, d);
    return ZSTD_compress2(c->compress, dst, cap, in.ptr, in.len);
}

size_t tb_codec_compress(struct tb_codec *c, enum tb_codec_role role, int level, struct tb_slice src, void *dst,
                         uint16_t *dict)
{
    struct tb_slice in = src;
    bool packed = false;
    size_t n = 0;
    char *room;

    if (level <= 0)
        level = TB_LEVEL_DELIVERY;
    if (level > TB_LEVEL_MAX)
        level = TB_LEVEL_MAX;
    if (role == TB_ROLE_BODY && src.len <= TB_B64_RAW_MAX && (room = scratch(c, tb_b64_room(src.len))) != NULL)
        packed = tb_b64_pack(b64, src, room, &in);
    if (src.len > 0)
        n = deflate(c, role, level, in, dst, tb_codec_bound(src.len), dict);
    if (ZSTD_isError(n) || n > src.len - src.len * 3 / 100 || src.len == 0) {
        *dict = TB_DICT_RAW;
        if (src.len > 0)
            memcpy(dst, src.ptr, src.len);
        return src.len;
    }
    if (packed)
        *dict |= TB_DICT_B64;
    return n;
}

/* ---- decompressing ---- */

/* One frame of exactly len bytes into dst. */
static enum tb_rc inflate(struct tb_codec *c, uint16_t id, struct tb_slice frame, void *dst, size_t len)
{
    const struct tb_codec_dict *d = NULL;
    size_t n;

    if (id != TB_DICT_NONE && (d = dict_of(c, id)) == NULL)
        return TB_NOTFOUND;
    if (!d)
        n = ZSTD_decompressDCtx(c->decompress, dst, len, frame.ptr, frame.len);
    else
        n = ZSTD_decompress_usingDDict(c->decompress, dst, len, frame.ptr, frame.len, d->decompress);
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
