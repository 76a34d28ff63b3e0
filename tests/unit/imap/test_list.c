/* test_list.c: LIST patterns: "*", "%", INBOX in any case; against a simple matcher; and that no pattern is slow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#include "frontends/imap/imap_session.h"

static struct tb_arena arena;

static bool match(struct tb_slice pattern, struct tb_slice name)
{
    bool never;
    tb_arena_reset(&arena);
    struct imap_pattern *p = imap_pattern_new(pattern, &arena, &never);
    assert_true(never || p != NULL);
    return !never && imap_pattern_match(p, name);
}

static void yes(const char *pattern, const char *name)
{
    if (!match(tb_slice_str(pattern), tb_slice_str(name)))
        fail_msg("\"%s\" should match \"%s\"", pattern, name);
}

static void no(const char *pattern, const char *name)
{
    if (match(tb_slice_str(pattern), tb_slice_str(name)))
        fail_msg("\"%s\" should not match \"%s\"", pattern, name);
}

static void test_patterns(void **state)
{
    (void)state;
    yes("", "");
    no("", "a");
    yes("*", "a/b/c");
    yes("%", "a");
    no("%", "a/b");
    yes("%/%", "a/b");
    no("%/%", "a/b/c");
    yes("a*", "a");
    yes("a*", "a/b");
    yes("*b", "a/b");
    yes("*%*%*", "a/b");
    yes("%*", "a/b");
    yes("a%c", "abbc");
    no("a%c", "ab/c");
    yes("a*c", "ab/c");
    no("a", "A");
    yes("inbox", "INBOX");
    yes("iNb%", "INBOX");
    yes("inbox/*", "INBOX/x");
    yes("Inbox/x", "INBOX/x");
    no("inbox/X", "INBOX/x");
    no("inbox", "INBOXES");
    yes("INBOXES", "INBOXES");
    yes("*/\xc3\xa9", "a/\xc3\xa9");
}

/* A matcher too simple to be wrong, and too slow for strangers. */
static bool simple(struct tb_slice p, struct tb_slice s)
{
    if (p.len == 0)
        return s.len == 0;
    struct tb_slice rest = tb_slice_sub(p, 1, p.len);
    if (p.ptr[0] == '*' || p.ptr[0] == '%') {
        if (simple(rest, s))
            return true;
        return s.len > 0 && (p.ptr[0] == '*' || s.ptr[0] != '/') && simple(p, tb_slice_sub(s, 1, s.len));
    }
    return s.len > 0 && p.ptr[0] == s.ptr[0] && simple(rest, tb_slice_sub(s, 1, s.len));
}

static void test_against_simple(void **state)
{
    uint32_t seed = 12345;
    (void)state;
    for (int round = 0; round < 50000; round++) {
        char p[10], s[12];
        size_t pn = 0, sn = 0;
        seed = seed * 1664525 + 1013904223;
        for (uint32_t r = seed >> 8; pn < (seed >> 4) % 8; r /= 5)
            p[pn++] = "ab/*%"[r % 5];
        seed = seed * 1664525 + 1013904223;
        for (uint32_t r = seed >> 6; sn < (seed >> 3) % 11; r /= 3)
            s[sn++] = "ab/"[r % 3];
        assert_int_equal(match(tb_slice(p, pn), tb_slice(s, sn)), simple(tb_slice(p, pn), tb_slice(s, sn)));
    }
}

static void test_linear(void **state)
{
    static char pattern[8200], name[4000];
    (void)state;
    clock_t start = clock();
    for (size_t i = 0; i < 1000; i += 2) { /* I58 */
        pattern[i] = '*';
        pattern[i + 1] = '%';
    }
    memset(name, 'a', sizeof name);
    assert_true(match(tb_slice(pattern, 1000), tb_slice(name, sizeof name)));
    for (size_t i = 0; i + 1 < sizeof pattern; i += 2) {
        pattern[i] = '*';
        pattern[i + 1] = 'a';
    }
    assert_false(match(tb_slice(pattern, 8000), tb_slice(name, 3999)));
    assert_true(match(tb_slice(pattern, 8000), tb_slice(name, 4000)));
    assert_false(match(tb_slice(pattern, 8200), tb_slice(name, 4000))); /* more letters than any name has */
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 0.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_against_simple),
        cmocka_unit_test(test_linear),
    };
    tb_arena_init(&arena, 8 << 20);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tb_arena_free(&arena);
    return failed;
}
