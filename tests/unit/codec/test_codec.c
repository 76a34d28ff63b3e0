/*
 * test_codec.c: frames come back as they were, damaged ones do not, and the dictionaries are those that were released.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/codec/builtin.h"
#include "engine/codec/codec.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { BIG = 1 << 20 };

static char *src, *dst, *back;
static struct tb_codec *codec;

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Text of which much has been said before. */
static void fill_text(char *to, size_t len, uint64_t seed)
{
    static const char *const words[] = {"the ", "and ",          "\r\n",  "Received: from ",
                                        "> ",   "mailing list ", "<div>", "=20\r\n"};
    size_t at = 0;

    while (at < len) {
        const char *w = words[next(&seed) % TB_ARRAY_LEN(words)];
        size_t n = strlen(w) < len - at ? strlen(w) : len - at;

        memcpy(to + at, w, n);
        at += n;
        if (at < len && next(&seed) % 3 == 0)
            to[at++] = (char)('a' + next(&seed) % 26);
    }
}

static void fill_noise(char *to, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (char)(next(&seed) >> 32);
}

static int setup(void **state)
{
    (void)state;
    src = malloc(BIG);
    dst = malloc(tb_codec_bound(BIG));
    back = malloc(BIG + 16);
    if (!src || !dst || !back || tb_codec_init() != TB_OK || tb_codec_init() != TB_OK)
        return -1;
    codec = tb_codec_new();
    return codec ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tb_codec_free(codec);
    tb_codec_free(NULL);
    free(src);
    free(dst);
    free(back);
    return 0;
}

/* There and back; returns the frame's size. */
static size_t round_trip(struct tb_codec *c, enum tb_codec_role role, int level, size_t len, uint16_t *dict)
{
    size_t n = tb_codec_compress(c, role, level, tb_slice(src, len), dst, dict);

    assert_true(n <= tb_codec_bound(len));
    memset(back, 0x55, len + 16);
    assert_int_equal(tb_codec_decompress(c, *dict, tb_slice(dst, n), back, len), TB_OK);
    assert_memory_equal(back, src, len);
    for (size_t i = len; i < len + 16; i++)
        assert_int_equal(back[i], 0x55);
    if (len > 0)
        assert_int_equal(tb_codec_decompress(c, *dict, tb_slice(dst, n), back, len - 1), TB_CORRUPT);
    assert_int_equal(tb_codec_decompress(c, *dict, tb_slice(dst, n), back, len + 1), TB_CORRUPT);
    return n;
}

static void round_trips(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 3, 50, 100, 900, 8191, 8192, 8193, 70000, 131073, 262143, 262144, BIG};
    static const int levels[] = {0, 1, 3, 6, 99, -7};

    (void)state;
    for (size_t s = 0; s < TB_ARRAY_LEN(sizes); s++) {
        for (int role = 0; role < TB_ROLES; role++) {
            for (size_t l = 0; l < TB_ARRAY_LEN(levels); l++) {
                uint16_t dict;
                size_t n;

                if (sizes[s] > 200000 && levels[l] > 6)
                    continue;
                fill_text(src, sizes[s], s + 1);
                n = round_trip(codec, (enum tb_codec_role)role, levels[l], sizes[s], &dict);
                if (sizes[s] >= 100) {
                    assert_true(n < sizes[s] * 97 / 100 + 1);
                    assert_int_equal(dict, sizes[s] < 262144 ? role + 1 : TB_DICT_NONE);
                }
                fill_noise(src, sizes[s], s + 1);
                n = round_trip(codec, (enum tb_codec_role)role, levels[l], sizes[s], &dict);
                assert_int_equal(n, sizes[s]);
                assert_int_equal(dict, TB_DICT_RAW);
            }
        }
    }
}

static void dictionaries_help(void **state)
{
    static const char header[] = "Received: from a.test (a.test [192.0.2.7])\r\n"
                                 "\tby b.test (Postfix) with ESMTPS id 4A5B6C7D8E\r\n"
                                 "\tfor <x@b.test>; Thu, 14 May 2026 07:21:33 +0200 (CEST)\r\nMIME-Version: 1.0\r\n"
                                 "Content-Type: text/plain; charset=\"utf-8\"\r\n"
                                 "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
    static const char cache[] =
        "\1(\"Thu, 14 May 2026 07:21:33 +0200\" \"hello\" ((NIL NIL \"x\" \"a.test\")) "
        "((NIL NIL \"x\" \"a.test\")) ((NIL NIL \"x\" \"a.test\")) ((NIL NIL \"y\" \"b.test\")) NIL NIL "
        "NIL \"<1@a.test>\")(\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL "
        "\"quoted-printable\" 512 9 NIL NIL NIL NIL)";
    uint16_t dict;

    (void)state;
    memcpy(src, header, sizeof(header) - 1);
    assert_true(round_trip(codec, TB_ROLE_HEADER, 0, sizeof(header) - 1, &dict) < sizeof(header) / 2);
    memcpy(src, cache, sizeof(cache) - 1);
    assert_true(round_trip(codec, TB_ROLE_CACHE, 0, sizeof(cache) - 1, &dict) < sizeof(cache) / 2);
}

static void damaged_frames(void **state)
{
    enum { LEN = 3000 };
    uint64_t rnd = 77;
    uint16_t dict;
    size_t n;
    char *frame;

    (void)state;
    fill_text(src, LEN, 5);
    n = tb_codec_compress(codec, TB_ROLE_BODY, 0, tb_slice(src, LEN), dst, &dict);
    frame = malloc(n);
    assert_non_null(frame);
    for (int i = 0; i < 20000; i++) {
        size_t len = n;
        enum tb_rc rc;

        memcpy(frame, dst, n);
        for (uint64_t flips = next(&rnd) % 3; flips > 0; flips--)
            frame[next(&rnd) % n] ^= (char)(1 << next(&rnd) % 8);
        if (next(&rnd) % 4 == 0)
            len = next(&rnd) % n;
        memset(back + LEN, 0x55, 16);
        rc = tb_codec_decompress(codec, i % 5 ? dict : (uint16_t)(next(&rnd) % 6), tb_slice(frame, len), back, LEN);
        assert_true(rc == TB_OK || rc == TB_CORRUPT || rc == TB_NOTFOUND); /* its checksum is the record's */
        assert_true(len == n || rc != TB_OK);
        for (int k = 0; k < 16; k++)
            assert_int_equal(back[LEN + k], 0x55);
    }
    free(frame);
    for (unsigned id = 0; id <= 0xffff; id++) {                        /* a dictionary nobody has */
        enum tb_rc want = id & TB_DICT_B64 ? TB_CORRUPT : TB_NOTFOUND; /* decoded base64 would be shorter */
        if (id > 3 && id != TB_DICT_RAW)
            assert_int_equal(tb_codec_decompress(codec, (uint16_t)id, tb_slice(dst, n), back, LEN), want);
    }
    assert_int_equal(tb_codec_decompress(codec, TB_DICT_NONE, tb_slice("", 0), back, 0), TB_CORRUPT);
    assert_int_equal(tb_codec_decompress(codec, TB_DICT_NONE, TB_SLICE("x"), back, LEN), TB_CORRUPT);
    assert_int_equal(tb_codec_decompress(codec, TB_DICT_RAW, TB_SLICE("xyz"), back, 2), TB_CORRUPT);
    assert_int_equal(tb_codec_decompress(codec, TB_DICT_RAW, TB_SLICE(""), back, 0), TB_OK);
}

static void released_dictionaries_stay(void **state)
{
    (void)state;
    /* Stores in the world hold frames made with these. A new dictionary gets a new id. */
    assert_int_equal(tb_crc32c(0, tb_dict_header_1, tb_dict_header_1_len), 0x1cc8812du);
    assert_int_equal(tb_crc32c(0, tb_dict_body_1, tb_dict_body_1_len), 0x01556281u);
    assert_int_equal(tb_crc32c(0, tb_dict_cache_1, tb_dict_cache_1_len), 0x93bd7c01u);
}

static void *use_levels(void *ok)
{
    struct tb_codec *c = tb_codec_new();
    char text[5000], frame[6000], again[5000];

    fill_text(text, sizeof(text), 9);
    for (int level = 1; c && level <= 12; level++) {
        uint16_t dict;
        size_t n = tb_codec_compress(c, TB_ROLE_HEADER, level, tb_slice(text, sizeof(text)), frame, &dict);

        if (tb_codec_decompress(c, dict, tb_slice(frame, n), again, sizeof(again)) != TB_OK ||
            memcmp(text, again, sizeof(text)) != 0)
            *(bool *)ok = false;
    }
    tb_codec_free(c);
    return NULL;
}

static void threads_share_dictionaries(void **state)
{
    pthread_t threads[4];
    bool ok[4];

    (void)state;
    for (int i = 0; i < 4; i++) {
        ok[i] = true;
        assert_int_equal(pthread_create(&threads[i], NULL, use_levels, &ok[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(ok[i]);
    }
}

/* ---- dictionaries of the store's own ---- */

enum { SAMPLES = 400, SAMPLE = 900 };

/* Samples that share phrases no built-in dictionary has; mostly noise if there is nothing to learn. */
static void make_samples(struct tb_slice *v, char *room, bool learnable)
{
    uint64_t rnd = 4711;
    char phrase[32][40];

    for (size_t i = 0; i < TB_ARRAY_LEN(phrase); i++)
        fill_noise(phrase[i], sizeof(phrase[i]), i + 1);
    for (size_t i = 0; i < SAMPLES; i++) {
        char *to = room + i * SAMPLE;

        fill_noise(to, SAMPLE, 1000 + i);
        for (size_t at = 0; learnable && at + 50 < SAMPLE; at += 50)
            memcpy(to + at, phrase[next(&rnd) % TB_ARRAY_LEN(phrase)], 40);
        v[i] = tb_slice(to, SAMPLE);
    }
}

static void a_trained_dictionary_wins(void **state)
{
    struct tb_slice v[SAMPLES];
    char *room = malloc((size_t)SAMPLES * SAMPLE);
    struct tb_codec *other = tb_codec_new();
    struct tb_codec_dict *made[TB_ROLES];
    struct tb_training t;
    uint16_t dict;
    size_t n;

    (void)state;
    assert_non_null(room);
    assert_non_null(other);
    make_samples(v, room, true);
    for (int role = 0; role < TB_ROLES; role++) {
        struct tb_codec *c = tb_codec_new();

        assert_non_null(c);
        assert_int_equal(tb_codec_train((uint16_t)(16 + role), (enum tb_codec_role)role, NULL, v, SAMPLES, &t), TB_OK);
        assert_int_equal(t.samples, SAMPLES * 3 / 4);
        assert_int_equal(t.held_out, SAMPLES / 4);
        assert_int_equal(t.raw, SAMPLES / 4 * SAMPLE);
        assert_true(t.after < t.before * 7 / 10);
        assert_false(tb_codec_knows(c, (uint16_t)(16 + role)));
        assert_int_equal(tb_codec_adopt(c, t.dict), TB_OK);
        assert_int_equal(tb_codec_in_use(c, (enum tb_codec_role)role), 16 + role);
        memcpy(src, room, SAMPLE);
        n = round_trip(c, (enum tb_codec_role)role, 0, SAMPLE, &dict);
        assert_int_equal(dict, 16 + role);
        assert_true(n < SAMPLE / 2);
        assert_int_equal(tb_codec_decompress(other, dict, tb_slice(dst, n), back, SAMPLE), TB_NOTFOUND);
        assert_int_equal(tb_codec_learn(other, t.dict), TB_OK); /* reads, but does not write with it */
        assert_true(tb_codec_knows(other, dict));
        assert_int_equal(tb_codec_decompress(other, dict, tb_slice(dst, n), back, SAMPLE), TB_OK);
        assert_memory_equal(back, src, SAMPLE);
        assert_int_equal(tb_codec_in_use(other, (enum tb_codec_role)role), role + 1);
        assert_true(round_trip(c, (enum tb_codec_role)role, 6, SAMPLE, &dict) < SAMPLE / 2);
        tb_codec_free(c);
        made[role] = t.dict;
    }
    tb_codec_free(other);
    for (int role = 0; role < TB_ROLES; role++)
        tb_codec_dict_free(made[role]);
    free(room);
}

static void training_that_cannot_help(void **state)
{
    struct tb_slice v[SAMPLES];
    char *room = malloc((size_t)SAMPLES * SAMPLE);
    struct tb_training t;
    struct tb_codec_dict *d = NULL;

    (void)state;
    assert_non_null(room);
    make_samples(v, room, false);
    if (tb_codec_train(16, TB_ROLE_BODY, NULL, v, SAMPLES, &t) == TB_OK) {
        assert_true(t.after > t.before * 97 / 100);
        tb_codec_dict_free(t.dict);
    }
    assert_int_equal(tb_codec_train(16, TB_ROLE_BODY, NULL, v, 20, &t), TB_NOTFOUND);
    for (size_t i = 0; i < SAMPLES; i++)
        v[i] = v[0]; /* one message many times is one sample */
    assert_int_equal(tb_codec_train(16, TB_ROLE_BODY, NULL, v, SAMPLES, &t), TB_NOTFOUND);
    assert_int_equal(tb_codec_dict_new(16, TB_ROLE_BODY, TB_SLICE("no dictionary at all"), &d), TB_CORRUPT);
    assert_int_equal(tb_codec_dict_new(16, TB_ROLE_BODY, tb_slice(tb_dict_body_1, 40), &d), TB_CORRUPT);
    assert_int_equal(tb_codec_dict_new(15, TB_ROLE_BODY, tb_slice(tb_dict_body_1, tb_dict_body_1_len), &d), TB_CORRUPT);
    assert_int_equal(tb_codec_dict_new(0x7fff, TB_ROLE_BODY, tb_slice(tb_dict_body_1, tb_dict_body_1_len), &d),
                     TB_CORRUPT);
    assert_null(d);
    free(room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trips),
        cmocka_unit_test(dictionaries_help),
        cmocka_unit_test(damaged_frames),
        cmocka_unit_test(released_dictionaries_stay),
        cmocka_unit_test(threads_share_dictionaries),
        cmocka_unit_test(a_trained_dictionary_wins),
        cmocka_unit_test(training_that_cannot_help),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
