/*
 * test_data.c: the DATA stream machine: its examples, the smuggling list, and (seeded) any cut of any input
 * against a slow machine that looks at one line at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/smtp/internal.h"

struct result {
    char out[8192];
    size_t len, used;
    bool ended, bare;
    uint32_t received;
};

/* run: the input cut into pieces of at most `step` bytes (0: as one). */
static void run(const char *in, size_t n, size_t step, bool dots, struct result *r)
{
    struct smtp_data d;
    struct tb_slice out;
    memset(r, 0, sizeof(*r));
    smtp_data_init(&d, dots);
    while (r->used < n && !d.ended) {
        size_t piece = step && step < n - r->used ? step : n - r->used;
        char *exact = malloc(piece); /* the sanitizer sees any read past it */
        memcpy(exact, in + r->used, piece);
        size_t pos = 0;
        while (pos < piece && !d.ended) {
            size_t took = smtp_data_next(&d, tb_slice(exact + pos, piece - pos), &out);
            assert_true(took > 0 && took <= piece - pos);
            assert_true(out.len == 0 || (out.ptr >= exact + pos && out.ptr + out.len <= exact + pos + took));
            if (out.len > 0)
                memcpy(r->out + r->len, out.ptr, out.len);
            r->len += out.len;
            pos += took;
        }
        r->used += pos;
        free(exact);
    }
    if (!dots)
        smtp_data_finish(&d);
    r->ended = d.ended;
    r->bare = d.bare;
    r->received = d.received;
}

/* A line that is one dot and NULs, at least one NUL: what a server that drops NULs would read as the end. */
static bool disguised(const char *line, size_t n)
{
    size_t dots = 0, nuls = 0;
    for (size_t i = 0; i < n; i++) {
        dots += line[i] == '.';
        nuls += line[i] == '\0';
    }
    return dots == 1 && nuls > 0 && dots + nuls == n;
}

/* The slow machine: the text up to each CRLF is one line. */
static void slow(const char *in, size_t n, bool dots, struct result *r)
{
    bool header = true;
    memset(r, 0, sizeof(*r));
    while (r->used < n && !r->ended) {
        const char *line = in + r->used, *crlf = memmem(line, n - r->used, "\r\n", 2);
        size_t text = crlf ? (size_t)(crlf - line) : n - r->used, whole = text + (crlf ? 2 : 0);
        r->used += whole;
        if (dots && crlf && text == 1 && line[0] == '.') {
            r->ended = true;
            return;
        }
        if (memchr(line, '\n', text) || memchr(line, '\r', crlf || !dots ? text : text - (text > 0)) ||
            (crlf && disguised(line, text)))
            r->bare = true;
        if (!crlf && !dots && text > 0 && line[text - 1] == '\r')
            r->bare = true;
        size_t skip = dots && text > 0 && line[0] == '.';
        memcpy(r->out + r->len, line + skip, whole - skip);
        r->len += whole - skip;
        if (header && whole - skip >= 9 && strncasecmp(line + skip, "received:", 9) == 0)
            r->received++;
        if (crlf && whole - skip == 2)
            header = false;
    }
    if (!dots)
        r->ended = true;
}

static void ends(const char *in, size_t n, const char *want, size_t want_n)
{
    for (size_t step = 0; step <= n; step++) {
        struct result r;
        run(in, n, step, true, &r);
        assert_true(r.ended);
        assert_false(r.bare);
        assert_int_equal(r.used, n);
        assert_int_equal(r.len, want_n);
        assert_memory_equal(r.out, want, want_n);
    }
}
#define ENDS(in, want) ends("" in, sizeof(in) - 1, "" want, sizeof(want) - 1)

static void test_examples(void **state)
{
    (void)state;
    ENDS(".\r\n", "");
    ENDS("\r\n.\r\n", "\r\n");
    ENDS("a\r\n.\r\n", "a\r\n");
    ENDS("..\r\n.\r\n", ".\r\n");
    ENDS(".x\r\n.\r\n", "x\r\n");
    ENDS("...\r\n..a\r\na.b\r\n.\r\n", "..\r\n.a\r\na.b\r\n");
    ENDS("a.\r\n.\r\n", "a.\r\n");
    ENDS("\xff\0b\r\n.\r\n", "\xff\0b\r\n");
    ENDS("\0\r\n\0..\r\n..\0\r\n.\r\n", "\0\r\n\0..\r\n.\0\r\n");
}

/* S1 to S10: none is an end; read to the true one and refused. A second message behind it stays unread. */
static void smuggle(const char *in, size_t n)
{
    char text[256];
    static const char tail[] = "MAIL FROM:<x@y>\r\n\r\n.\r\n", behind[] = "QUIT\r\n";
    size_t len = 0;
    memcpy(text, "body", 4);
    len = 4;
    memcpy(text + len, in, n);
    len += n;
    memcpy(text + len, tail, sizeof(tail) - 1);
    len += sizeof(tail) - 1;
    size_t end = len;
    memcpy(text + len, behind, sizeof(behind) - 1);
    len += sizeof(behind) - 1;
    for (size_t step = 0; step < len; step++) {
        struct result r;
        run(text, len, step, true, &r);
        assert_true(r.ended);
        assert_true(r.bare);
        assert_int_equal(r.used, end);
        run(text, end, step, false, &r);
        assert_true(r.bare);
    }
}
#define SMUGGLE(in) smuggle("" in, sizeof(in) - 1)

static void test_smuggling(void **state)
{
    (void)state;
    SMUGGLE("\n.\n");
    SMUGGLE("\r.\r");
    SMUGGLE("\r.\n");
    SMUGGLE("\n.\r");
    SMUGGLE("\n.\r\n");
    SMUGGLE("\r\n.\n");
    SMUGGLE("\r.\r\n");
    SMUGGLE("\r\n.\r");
    SMUGGLE("\r\n\0.\r\n");
    SMUGGLE("\r\n.\0\r\n");
    SMUGGLE("\r\n\0\0.\0\r\n");
    SMUGGLE("\r\n.\r\r\n");
    SMUGGLE("\r\r\n");
    SMUGGLE("\n");
    SMUGGLE("\r");
}

static void test_received(void **state)
{
    (void)state;
    static const char text[] = "RECEIVED: a\r\n\tReceived: folded\r\nreceived:b\r\nReceive: c\r\nX: Received: d\r\n"
                               "\r\nReceived: body\r\n.\r\n";
    for (size_t step = 0; step < sizeof(text); step++) {
        struct result r;
        run(text, sizeof(text) - 1, step, true, &r);
        assert_int_equal(r.received, 2);
    }
}

static void test_bdat(void **state)
{
    (void)state;
    static const char text[] = ".\r\n..\r\na\r\n.\r\nend";
    for (size_t step = 0; step < sizeof(text); step++) {
        struct result r;
        run(text, sizeof(text) - 1, step, false, &r);
        assert_false(r.bare);
        assert_int_equal(r.len, sizeof(text) - 1);
        assert_memory_equal(r.out, text, r.len);
    }
    struct result r;
    run("a\r", 2, 1, false, &r);
    assert_true(r.bare);
}

static uint64_t seed;
static uint32_t any(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

/* Pieces that matter and runs that fill the blocks of the fast scan. */
static size_t make_input(char *out, size_t room)
{
    static const struct tb_slice parts[] = {
        {"\r\n", 2}, {"\r\n", 2},   {".", 1},  {"..", 2},           {"\r\n.", 3}, {"\r\n..", 4}, {"a", 1},
        {"\r\n", 2}, {"\r\n\0", 3}, {"\0", 1}, {"Received: x", 11}, {"\n", 1},    {"\r", 1},     {"\r\n.\r\n", 5},
    };
    size_t n = 0, mild = any(2) ? 11 : TB_ARRAY_LEN(parts), want = any((uint32_t)room - 300);
    while (n < want) {
        if (any(6) == 0) {
            size_t run_len = any(200);
            memset(out + n, 'x', run_len);
            n += run_len;
        } else {
            struct tb_slice p = parts[any((uint32_t)mild)];
            memcpy(out + n, p.ptr, p.len);
            n += p.len;
        }
    }
    return n;
}

static void test_any_cut(void **state)
{
    (void)state;
    static char in[3000];
    static struct result whole, want, cut;
    for (unsigned round = 0; round < 20000; round++) {
        seed = round + 1;
        size_t n = make_input(in, round % 4 ? 500 : sizeof(in));
        bool dots = any(3) != 0;
        slow(in, n, dots, &want);
        run(in, n, 0, dots, &whole);
        run(in, n, 1 + any(100), dots, &cut);
        assert_int_equal(whole.used, want.used);
        assert_int_equal(whole.ended, want.ended);
        assert_int_equal(whole.bare, want.bare);
        assert_int_equal(cut.used, whole.used);
        assert_int_equal(cut.bare, whole.bare);
        assert_int_equal(cut.received, whole.received);
        assert_int_equal(cut.len, whole.len);
        assert_memory_equal(cut.out, whole.out, cut.len);
        if (whole.bare || !whole.ended)
            continue;
        assert_int_equal(whole.len, want.len);
        assert_memory_equal(whole.out, want.out, want.len);
        assert_int_equal(whole.received, want.received);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples), cmocka_unit_test(test_smuggling), cmocka_unit_test(test_received),
        cmocka_unit_test(test_bdat),     cmocka_unit_test(test_any_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
