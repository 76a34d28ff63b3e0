/* test_name.c: modified UTF-7 there and back: RFC 3501 5.1.3 and its one canonical form; seeded round trips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "frontends/imap/imap_session.h"

static struct tb_arena arena;

static bool decode(const char *wire, struct tb_slice *utf8)
{
    tb_arena_reset(&arena);
    return imap_name_decode(tb_slice_str(wire), &arena, utf8);
}

static void both(const char *wire, const char *utf8)
{
    struct tb_slice s;
    struct tb_buf b;
    assert_true(decode(wire, &s));
    assert_true(tb_slice_eq(s, tb_slice_str(utf8)));
    tb_buf_init(&b, 1000);
    imap_name_encode(tb_slice_str(utf8), &b);
    assert_true(tb_slice_eq(tb_buf_all(&b), tb_slice_str(wire)));
    tb_buf_free(&b);
}

static void test_pairs(void **state)
{
    (void)state;
    both("", "");
    both("INBOX", "INBOX");
    both("~peter/mail/&U,BTFw-/&ZeVnLIqe-",
         "~peter/mail/\xe5\x8f\xb0\xe5\x8c\x97/\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e");
    both("&-", "&");
    both("a&-b", "a&b");
    both("Entw&APw-rfe", "Entw\xc3\xbcrfe");
    both("&2D3eAA-", "\xf0\x9f\x98\x80");
    both("&Jjo-!", "\xe2\x98\xba!");
    both("&AOkA6Q-", "\xc3\xa9\xc3\xa9");
    both("&AH8-", "\x7f"); /* a control character: for the store to refuse */
}

static void test_refused(void **state)
{
    static const char *const wires[] = {
        "&",
        "&Jjo",
        "&Jjo!-",
        "&Jjo-&Jjo-",
        "&AC8-", /* "/" */
        "&AAA-",
        "&2AA-",
        "&3AA-",
        "&2D0-",
        "&2D0AYQ-",
        "&AGE-",
        /* "a" */ "&Jj-",
        "&Jjp-",
        /* stray bits */ "&JjoA-",
        "a\x80",
        "\xc3\xa9",
        "a\tb",
        "&AOk-&AOk-",
        "&JjoAAAA-",
    };
    struct tb_slice s;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(wires); i++) {
        if (decode(wires[i], &s))
            fail_msg("accepted: %s", wires[i]);
    }
}

static void test_bad_utf8(void **state)
{
    static const char *const bad[] = {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x98"};
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        struct tb_buf b;
        struct tb_slice s;
        tb_buf_init(&b, 1000);
        imap_name_encode(tb_slice_str(bad[i]), &b);
        tb_arena_reset(&arena);
        assert_true(imap_name_decode(tb_buf_all(&b), &arena, &s)); /* U+FFFD: still a name */
        tb_buf_free(&b);
    }
}

static uint32_t random_u32(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static size_t put_utf8(char *o, uint32_t c)
{
    if (c < 0x80)
        return o[0] = (char)c, 1;
    if (c < 0x800)
        return o[0] = (char)(0xc0 | c >> 6), o[1] = (char)(0x80 | (c & 63)), 2;
    if (c < 0x10000)
        return o[0] = (char)(0xe0 | c >> 12), o[1] = (char)(0x80 | (c >> 6 & 63)), o[2] = (char)(0x80 | (c & 63)), 3;
    o[0] = (char)(0xf0 | c >> 18);
    o[1] = (char)(0x80 | (c >> 12 & 63));
    o[2] = (char)(0x80 | (c >> 6 & 63));
    o[3] = (char)(0x80 | (c & 63));
    return 4;
}

static void test_round_trip(void **state)
{
    uint64_t seed = 7;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char name[256];
        size_t n = 0;
        for (uint32_t i = random_u32(&seed) % 20; i > 0; i--) {
            uint32_t kind = random_u32(&seed) % 4, c = random_u32(&seed);
            c = kind == 0   ? 0x20 + c % 0x5f
                : kind == 1 ? 0x80 + c % 0x700
                : kind == 2 ? c % 0x10000
                            : 0x10000 + c % 0x100000;
            if (c == 0 || (c >= 0xd800 && c <= 0xdfff))
                c = '&';
            n += put_utf8(name + n, c);
        }
        struct tb_buf b;
        struct tb_slice s;
        tb_buf_init(&b, 4000);
        imap_name_encode(tb_slice(name, n), &b);
        tb_arena_reset(&arena);
        assert_true(imap_name_decode(tb_buf_all(&b), &arena, &s));
        assert_true(tb_slice_eq(s, tb_slice(name, n)));
        for (size_t i = 0; i < b.len; i++)
            assert_true(b.ptr[i] >= 0x20 && b.ptr[i] <= 0x7e);
        tb_buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bad_utf8),
        cmocka_unit_test(test_round_trip),
    };
    tb_arena_init(&arena, 1 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tb_arena_free(&arena);
    return failed;
}
