/*
 * test_b64.c: properties of the base64 transform over seeded random pieces. TAMBO_SEED chooses the first seed,
 * TAMBO_ROUNDS how many.
 *
 * 1 Any mix of text and base64 (every width, truncated, damaged, not canonical, padded, LF for CRLF) comes back, packed
 * is shorter, and the kernels agree on every byte of it. Buffers have exactly the promised sizes, for the sanitizer.
 *
 * 2 A long canonical run is found wherever it begins, and through the codec too.
 *
 * 3 A damaged packed piece is CORRUPT or gives exactly raw_len bytes: never others, never more.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/codec/b64.h"
#include "engine/codec/codec.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROOM = 4 << 20 };

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static uint64_t seed;
static struct tb_buf piece;

static uint32_t rnd(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return below > 0 ? (uint32_t)(seed >> 11) % below : 0;
}

static void put_text(uint32_t lines)
{
    static const char *const words[] = {"the", "quick", "<td>", "=20", "a=b", "https://example.com/",
                                        "-",   "ABCD",  "Test"};

    for (; lines > 0; lines--) {
        for (uint32_t n = rnd(14); n > 0; n--) {
            tb_buf_str(&piece, words[rnd(TB_ARRAY_LEN(words))]);
            tb_buf_str(&piece, rnd(8) ? " " : "");
        }
        tb_buf_str(&piece, rnd(20) ? "\r\n" : "\n");
    }
}

static void put_digits(uint32_t n)
{
    for (; n > 0; n--)
        tb_buf_char(&piece, digits[rnd(64)]);
}

/* A run of `lines` lines, canonical; in the end a tail of each kind. */
static void put_run(uint32_t lines, uint32_t width)
{
    for (; lines > 0; lines--) {
        put_digits(width);
        tb_buf_str(&piece, "\r\n");
    }
    switch (rnd(5)) {
    case 0:
        return;
    case 1:
        put_digits(4 * rnd(width / 4));
        break;
    case 2: /* one pad: two bits of zero */
        put_digits(4 * rnd(width / 4) + 2);
        tb_buf_char(&piece, digits[4 * rnd(16)]);
        tb_buf_char(&piece, '=');
        break;
    case 3: /* two pads: four bits of zero */
        put_digits(4 * rnd(width / 4) + 1);
        tb_buf_char(&piece, digits[16 * rnd(4)]);
        tb_buf_str(&piece, "==");
        break;
    default: /* anything, mostly not canonical */
        put_digits(rnd(width));
        tb_buf_str(&piece, rnd(2) ? "=" : "==");
    }
    tb_buf_str(&piece, rnd(4) ? "\r\n" : rnd(2) ? "\n" : "");
}

static void make_piece(void)
{
    piece.len = 0;
    for (uint32_t parts = rnd(7); parts > 0; parts--) {
        if (rnd(2))
            put_text(rnd(12));
        if (rnd(3))
            put_run(rnd(60), rnd(3) ? 76 : rnd(2) ? 4 * (1 + rnd(270)) : 1 + rnd(1100));
    }
    for (uint32_t n = rnd(3); n > 0 && piece.len > 0; n--) /* damage */
        piece.ptr[rnd((uint32_t)piece.len)] = (char)rnd(256);
    if (rnd(3) == 0)
        piece.len -= rnd((uint32_t)piece.len + 1);
}

/* memory of exactly len bytes, a copy of p if there is one */
static char *exactly(const char *p, size_t len)
{
    char *m = malloc(len ? len : 1);

    assert_non_null(m);
    if (p != NULL && len > 0)
        memcpy(m, p, len);
    return m;
}

/* There and back with one kernel; the packed form is left in *packed (len 0: nothing to pack). */
static void round_trip(const struct tb_b64_kernel *k, struct tb_slice raw, struct tb_buf *packed)
{
    char *src = exactly(raw.ptr, raw.len), *scratch = exactly(NULL, tb_b64_room(raw.len)), *in, *back;
    struct tb_slice out;

    packed->len = 0;
    if (tb_b64_pack(k, tb_slice(src, raw.len), scratch, &out)) {
        assert_true(out.len < raw.len);
        tb_buf_slice(packed, out);
        in = exactly(NULL, out.len + TB_B64_SLACK);
        memcpy(in, out.ptr, out.len);
        back = exactly(NULL, raw.len);
        assert_int_equal(tb_b64_unpack(k, tb_slice(in, out.len), back, raw.len), TB_OK);
        assert_memory_equal(back, raw.ptr, raw.len);
        assert_int_equal(tb_b64_unpack(k, tb_slice(in, out.len), back, raw.len - 1), TB_CORRUPT);
        free(in);
        free(back);
    }
    free(scratch);
    free(src);
}

static uint64_t first_seed(void)
{
    const char *s = getenv("TAMBO_SEED");
    uint64_t first = s ? strtoull(s, NULL, 0) : 20260101;

    print_message("TAMBO_SEED=%llu\n", (unsigned long long)first);
    return first;
}

static uint64_t rounds(uint64_t otherwise)
{
    const char *r = getenv("TAMBO_ROUNDS");
    return r ? strtoull(r, NULL, 0) : otherwise;
}

static void begin(uint64_t round)
{
    static uint64_t first;

    if (first == 0)
        first = first_seed();
    seed = (first + round) * 0x9e3779b97f4a7c15u | 1;
    for (int i = 0; i < 4; i++)
        (void)rnd(2);
}

static void pieces_come_back(void **state)
{
    const struct tb_b64_kernel *fast = tb_b64_avx2();
    struct tb_buf a, b;
    uint64_t found = 0, n = rounds(4000);

    (void)state;
    tb_buf_init(&a, ROOM);
    tb_buf_init(&b, ROOM);
    for (uint64_t i = 0; i < n; i++) {
        begin(i);
        make_piece();
        round_trip(&tb_b64_portable, tb_buf_all(&piece), &a);
        found += a.len > 0;
        if (fast == NULL)
            continue;
        round_trip(fast, tb_buf_all(&piece), &b);
        if (!tb_slice_eq(tb_buf_all(&a), tb_buf_all(&b)))
            fail_msg("round %llu: the kernels differ", (unsigned long long)i);
    }
    print_message("%llu of %llu pieces had base64; kernel %s\n", (unsigned long long)found, (unsigned long long)n,
                  tb_b64_best()->name);
    assert_true(n < 100 || found > n / 4);
    tb_buf_free(&a);
    tb_buf_free(&b);
}

static void long_runs_are_found(void **state)
{
    struct tb_codec *codec = tb_codec_new();
    struct tb_buf packed;

    (void)state;
    assert_non_null(codec);
    tb_buf_init(&packed, ROOM);
    for (uint64_t i = 0; i < rounds(600); i++) {
        uint32_t width = 4 * (8 + rnd(249));
        uint16_t dict;
        size_t n;
        char *dst, *back;

        begin(i);
        piece.len = 0;
        put_text(rnd(40));
        put_run(384 / width + 4 + rnd(30), width);
        if (rnd(2))
            put_text(rnd(40));
        round_trip(tb_b64_best(), tb_buf_all(&piece), &packed);
        assert_true(packed.len > 0);
        dst = exactly(NULL, tb_codec_bound(piece.len));
        back = exactly(NULL, piece.len);
        n = tb_codec_compress(codec, TB_ROLE_BODY, 0, tb_buf_all(&piece), dst, &dict);
        assert_true(dict != TB_DICT_RAW && (dict & TB_DICT_B64));
        assert_int_equal(tb_codec_decompress(codec, dict, tb_slice(dst, n), back, piece.len), TB_OK);
        assert_memory_equal(back, piece.ptr, piece.len);
        /* the same frame without its mark, or with another size, is damaged */
        assert_int_equal(tb_codec_decompress(codec, dict & 0x7fff, tb_slice(dst, n), back, piece.len), TB_CORRUPT);
        assert_int_equal(tb_codec_decompress(codec, dict, tb_slice(dst, n), back, piece.len - 1), TB_CORRUPT);
        free(dst);
        free(back);
    }
    tb_buf_free(&packed);
    tb_codec_free(codec);
}

static void damage_is_contained(void **state)
{
    struct tb_buf packed;

    (void)state;
    tb_buf_init(&packed, ROOM);
    for (uint64_t i = 0; i < rounds(1500); i++) {
        begin(i);
        make_piece();
        round_trip(tb_b64_best(), tb_buf_all(&piece), &packed);
        for (int k = 0; k < 8 && packed.len > 0; k++) {
            size_t len = rnd(3) ? packed.len : rnd((uint32_t)packed.len), raw_len = piece.len;
            char *in = exactly(NULL, len + TB_B64_SLACK), *back;
            enum tb_rc rc;

            memcpy(in, packed.ptr, len);
            for (uint32_t f = rnd(4); f > 0 && len > 0; f--) /* mostly in the table */
                in[rnd(rnd(4) && len > 12 ? 12 : (uint32_t)len)] = (char)(rnd(2) ? rnd(256) : 255);
            if (rnd(4) == 0)
                raw_len = rnd((uint32_t)(2 * piece.len));
            back = exactly(NULL, raw_len);
            rc = tb_b64_unpack(tb_b64_best(), tb_slice(in, len), back, raw_len);
            assert_true(rc == TB_OK || rc == TB_CORRUPT);
            free(in);
            free(back);
        }
    }
    tb_buf_free(&packed);
}

/* Time must not grow faster than the input, whatever the input is. */
static void hostile_text_is_linear(void **state)
{
    static const char *const patterns[] = {
        "A",
        "AAAA\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef\r\n",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef\r\nABCDEFGHIJKLMNOPQRSTUVWXYZabcdefABCD\r\n",
        "\r\n",
        "\n"};
    struct tb_buf packed;

    (void)state;
    tb_buf_init(&packed, ROOM);
    for (size_t p = 0; p < TB_ARRAY_LEN(patterns); p++) {
        piece.len = 0;
        while (piece.len < TB_B64_RAW_MAX)
            tb_buf_str(&piece, patterns[p]);
        piece.len = TB_B64_RAW_MAX;
        round_trip(tb_b64_best(), tb_buf_all(&piece), &packed);
        round_trip(&tb_b64_portable, tb_buf_all(&piece), &packed);
    }
    tb_buf_char(&piece, 'x');
    assert_int_equal(tb_b64_room(piece.len), 0);
    assert_false(tb_b64_pack(tb_b64_best(), tb_buf_all(&piece), NULL, &(struct tb_slice){0}));
    tb_buf_free(&packed);
}

static int setup(void **state)
{
    (void)state;
    tb_buf_init(&piece, ROOM);
    return tb_codec_init() == TB_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tb_buf_free(&piece);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_come_back),
        cmocka_unit_test(long_runs_are_found),
        cmocka_unit_test(damage_is_contained),
        cmocka_unit_test(hostile_text_is_linear),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
