/*
 * train.c: makes a dictionary from samples and proves it on others.
 *
 * Every fourth sample is held out: the dictionary never sees it, and what it saves there against the one in use is the
 * figure to decide by. A sample that is there twice counts once. fastCover picks the stretches of text that occur in
 * most samples; its parameters were chosen on 106 MB of list and personal mail. Takes about a second and some 40 MiB:
 * for a helper thread. Pure. Any thread.
 */
#include "engine/codec/dict.h"

#define ZDICT_STATIC_LINKING_ONLY /* for ZDICT_trainFromBuffer_fastCover */
#include <zdict.h>

#include <stdlib.h>

#include "engine/codec/b64.h"

enum {
    HOLD_OUT = 4,          /* one in so many */
    SAMPLES_MIN = 64,      /* to train from */
    SAMPLE_MAX = 16 << 10, /* of a sample goes into training: what repeats is at its beginning */
    TRAIN_MAX = 12 << 20,
    SEEN = 1 << 13
};

/* A larger body dictionary gains nothing with the small table of delivery. */
static const size_t dict_bytes[TB_ROLES] = {64 << 10, 64 << 10, 64 << 10};
static const unsigned stretch[TB_ROLES] = {1000, 500, 200};

struct trainer {
    enum tb_codec_role role;
    const struct tb_b64_kernel *b64;
    struct tb_slice *v; /* owned: without repetitions; every HOLD_OUT-th is held out */
    size_t n;
    char *text; /* owned: what is trained from */
    size_t *size;
    unsigned parts;
};

static void trainer_free(struct trainer *t)
{
    free(t->v);
    free(t->text);
    free(t->size);
}

static enum tb_rc distinct(struct trainer *t, const struct tb_slice *samples, size_t n)
{
    uint32_t *seen = calloc(SEEN, sizeof(*seen));

    t->v = malloc((n + 1) * sizeof(*t->v));
    if (!seen || !t->v) {
        free(seen);
        return TB_LIMIT;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t crc = tb_crc32c(0, samples[i].ptr, samples[i].len), *slot = &seen[crc % SEEN];

        if (samples[i].len < 8 || *slot == crc)
            continue;
        *slot = crc;
        t->v[t->n++] = samples[i];
    }
    free(seen);
    return TB_OK;
}

/* What zstd will see of a sample, to the end of text. */
static enum tb_rc gather(struct trainer *t)
{
    size_t at = 0;
    char *room = malloc(tb_b64_room(TB_B64_RAW_MAX));

    t->text = malloc(TRAIN_MAX);
    t->size = malloc((t->n + 1) * sizeof(*t->size));
    if (!room || !t->text || !t->size) {
        free(room);
        return TB_LIMIT;
    }
    for (size_t i = 0; i < t->n && TRAIN_MAX - at >= SAMPLE_MAX; i++) {
        struct tb_slice in = t->v[i];

        if (i % HOLD_OUT == 0)
            continue;
        if (t->role == TB_ROLE_BODY)
            (void)tb_b64_pack(t->b64, t->v[i], room, &in);
        t->size[t->parts] = in.len < SAMPLE_MAX ? in.len : SAMPLE_MAX;
        memcpy(t->text + at, in.ptr, t->size[t->parts]);
        at += t->size[t->parts++];
    }
    free(room);
    return t->parts < SAMPLES_MIN ? TB_NOTFOUND : TB_OK;
}

/* The held-out samples with a dictionary; 0 without memory. */
static uint64_t prove(const struct trainer *t, const struct tb_codec_dict *d, uint64_t *raw)
{
    struct tb_codec *c = tb_codec_new();
    char *dst = malloc(tb_codec_bound(TB_B64_RAW_MAX));
    uint64_t sum = 0;
    uint16_t used;

    *raw = 0;
    if (c && dst && (!d || tb_codec_adopt(c, d) == TB_OK))
        for (size_t i = 0; i < t->n; i += HOLD_OUT) {
            if (t->v[i].len > TB_B64_RAW_MAX)
                continue;
            sum += tb_codec_compress(c, t->role, 0, t->v[i], dst, &used);
            *raw += t->v[i].len;
        }
    free(dst);
    tb_codec_free(c);
    return sum;
}

static enum tb_rc propose(struct trainer *t, uint16_t id, const struct tb_codec_dict *current, struct tb_training *out)
{
    ZDICT_fastCover_params_t p = {.k = stretch[t->role], .d = 8, .f = 18, .accel = 1, .splitPoint = 1.0};
    char *bytes = malloc(dict_bytes[t->role]);
    enum tb_rc rc = bytes ? TB_OK : TB_LIMIT;
    size_t len = 0;

    p.zParams.compressionLevel = TB_LEVEL_DELIVERY;
    if (rc == TB_OK)
        len = ZDICT_trainFromBuffer_fastCover(bytes, dict_bytes[t->role], t->text, t->size, t->parts, p);
    if (rc == TB_OK && ZDICT_isError(len))
        rc = TB_NOTFOUND; /* the samples have nothing in common */
    if (rc == TB_OK)
        rc = tb_codec_dict_new(id, t->role, tb_slice(bytes, len), &out->dict);
    free(bytes);
    if (rc != TB_OK)
        return rc == TB_CORRUPT ? TB_NOTFOUND : rc;
    out->before = prove(t, current, &out->raw);
    out->after = prove(t, out->dict, &out->raw);
    if (out->before > 0 && out->after > 0)
        return TB_OK;
    tb_codec_dict_free(out->dict);
    out->dict = NULL;
    return TB_LIMIT;
}

enum tb_rc tb_codec_train(uint16_t id, enum tb_codec_role role, const struct tb_codec_dict *current,
                          const struct tb_slice *samples, size_t n, struct tb_training *out)
{
    struct trainer t = {.role = role, .b64 = tb_b64_best()};
    enum tb_rc rc = distinct(&t, samples, n);

    *out = (struct tb_training){0};
    if (rc == TB_OK)
        rc = gather(&t);
    out->samples = t.parts;
    out->held_out = (t.n + HOLD_OUT - 1) / HOLD_OUT;
    if (rc == TB_OK)
        rc = propose(&t, id, current, out);
    trainer_free(&t);
    return rc;
}
