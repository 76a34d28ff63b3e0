/*
 * test_hostile.c: messages made to hurt. Each must give sound results (assert_sound), in bounded time and memory. The
 * numbers M1 to M71 are those of the list of bad messages that docs/LENIENCY.md answers; the small ones are in the
 * other files here.
 */
#include "tests/unit/mime/mime_test.h"

#include <malloc.h>

#if defined(__SANITIZE_ADDRESS__)
enum { SLOWER = 20 };
#elif defined(__has_feature)
enum { SLOWER = 20 }; /* clang, which we use for sanitizers */
#else
enum { SLOWER = 4 }; /* other work on the machine */
#endif

static struct tb_buf b;

static int begin(void **state)
{
    (void)state;
    tb_buf_init(&b, 256 << 20);
    return setup_scanner(state);
}

static int end(void **state)
{
    tb_buf_free(&b);
    return free_scanner(state);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Scan what is in b, in network-sized pieces, against the clock: 50 ms + 10 ms/MB. */
static void judge(void)
{
    enum { PIECE = 16384 };
    double start = cpu_s();
    tb_mime_reset(scanner);
    for (size_t at = 0; at < b.len; at += PIECE)
        tb_mime_feed(scanner, tb_slice_sub(tb_buf_all(&b), at, PIECE));
    assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
    double took = cpu_s() - start, may = (0.05 + 0.01 * (double)b.len / 1e6) * SLOWER;
    if (took > may)
        fail_msg("%zu bytes took %.3f s, may take %.3f s", b.len, took, may);
    assert_int_equal(result.size, b.len);
    assert_sound();
    b.len = 0;
}

static uint32_t parts_count(void)
{
    struct tb_part p;
    size_t cursor = 0;
    uint32_t n = 0;
    while (tb_parts_next(result.parts, &cursor, &p) == TB_OK)
        n++;
    return n;
}

static void nested(size_t depth)
{
    char line[128];
    for (size_t i = 0; i < depth; i++) {
        snprintf(line, sizeof(line), "Content-Type: multipart/mixed; boundary=\"b%zu\"\r\n\r\n--b%zu\r\n", i, i);
        tb_buf_str(&b, line);
    }
    tb_buf_str(&b, "\r\ninnermost\r\n");
    for (size_t i = depth; i-- > 0;) {
        snprintf(line, sizeof(line), "--b%zu--\r\n", i);
        tb_buf_str(&b, line);
    }
    judge();
}

static void test_depth(void **state) /* M1 */
{
    (void)state;
    nested(99);
    assert_int_equal(parts_count(), 100);
    nested(100);
    assert_int_equal(parts_count(), 100);
    nested(1000);
    assert_int_equal(parts_count(), 100);
    nested(100000);
    assert_int_equal(parts_count(), 100);
    assert_non_null(memmem(result.bodystructure.ptr, result.bodystructure.len, "octet-stream", 12));
}

static void test_messages_in_messages(void **state) /* M2 */
{
    (void)state;
    put_many(&b, "Content-Type: message/rfc822\r\n\r\n", 10000);
    judge();
    assert_int_equal(parts_count(), 100);
}

static void test_parts(void **state) /* M3, M61 */
{
    (void)state;
    tb_buf_str(&b, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    put_many(&b, "--b\r\n\r\nx\r\n", 9999);
    judge();
    assert_int_equal(parts_count(), 10000);
    tb_buf_str(&b, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    put_many(&b, "--b\r\n", 1000000);
    judge();
    assert_int_equal(parts_count(), 10000);
    tb_buf_str(&b, "Content-Type: multipart/digest; boundary=b\r\n\r\n");
    put_many(&b, "--b\r\n\r\nSubject: x\r\n\r\ny\r\n", 20000);
    judge();
}

static void test_boundaries(void **state) /* M6, M7 */
{
    (void)state;
    static const size_t lengths[] = {70, 71, 1000, 1001, 10000};
    for (size_t i = 0; i < TB_ARRAY_LEN(lengths); i++) {
        tb_buf_str(&b, "Content-Type: multipart/mixed; boundary=");
        put_many(&b, "x", lengths[i]);
        tb_buf_str(&b, "\r\n\r\n--");
        put_many(&b, "x", lengths[i]);
        tb_buf_str(&b, "\r\n\r\nhello\r\n--");
        put_many(&b, "x", lengths[i]);
        tb_buf_str(&b, "--\r\n");
        judge();
        assert_int_equal(parts_count(), lengths[i] <= 1000 ? 2 : 1);
    }
    tb_buf_str(&b,
               "Content-Type: multipart/mixed; boundary=\".*[a-z](x|y)+$ \"\r\n\r\n--.*[a-z](x|y)+$\r\n\r\nhello\r\n"
               "--abc\r\n");
    judge();
    assert_int_equal(parts_count(), 2);
    for (int level = 0; level < 99; level++) { /* many active boundaries, many lines that look like one */
        char line[128];
        snprintf(line, sizeof(line), "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", level, level);
        tb_buf_str(&b, line);
    }
    tb_buf_str(&b, "\r\n");
    put_many(&b, "--\n--b\n--b100\n", 300000);
    judge();
    assert_int_equal(parts_count(), 100);
}

static void test_content_types(void **state) /* M18, M20, M48 */
{
    (void)state;
    char param[64];
    tb_buf_str(&b, "Content-Type: ");
    put_many(&b, "t", 10240);
    tb_buf_str(&b, "/plain\r\n\r\n");
    judge();
    tb_buf_str(&b, "Content-Type: text/plain; ");
    put_many(&b, "(", 100000);
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    tb_buf_str(&b, "Content-Type: text/plain");
    for (int i = 0; i < 100000; i++) {
        snprintf(param, sizeof(param), ";a*%d*=x", i);
        tb_buf_str(&b, param);
    }
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    tb_buf_str(&b, "Content-Type: text/plain");
    for (int i = 50000; i > 0; i--) {
        snprintf(param, sizeof(param), ";a%d*%d=\"%%\\\"\"", i % 7, i);
        tb_buf_str(&b, param);
    }
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    tb_buf_str(&b, "Content-Type: a/b; x=\"");
    put_many(&b, "\\\"", 400000);
    tb_buf_str(&b, "\"\r\nContent-Language: ");
    put_many(&b, "en,", 50000);
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    for (int i = 0; i < 40; i++) { /* the text limit: 40 parts whose parameters fill 60 KiB each */
        tb_buf_str(&b, i == 0 ? "Content-Type: multipart/mixed; boundary=b\r\n\r\n" : "");
        tb_buf_str(&b, "--b\r\nContent-Type: a/b; x=\"");
        put_many(&b, "y", 60000);
        tb_buf_str(&b, "\"\r\n\r\nbody\r\n");
    }
    judge();
    assert_true(parts_count() > 10 && parts_count() < 25);
}

static void test_bodies(void **state) /* M27, M60, M62, M65, M67 */
{
    (void)state;
    tb_buf_str(&b,
               "Content-Type: text/html\r\nContent-Length: 3\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
    put_many(&b, "<", 10 << 20);
    judge();
    put_many(&b, "\r", 1 << 20);
    judge();
    put_many(&b, "\n", 1 << 20);
    judge();
    assert_int_equal(result.header_size, 1);
    tb_buf_put(&b, "a\0\r\r\n\n\r", 7);
    judge();
    tb_buf_str(&b, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    put_many(&b, "\n", 4 << 20);
    judge();
    tb_buf_str(&b, "Content-Type: multipart/mixed; boundary=b\r\n\r\n--");
    put_many(&b, "-", 10 << 20);
    judge();
}

static void test_headers(void **state) /* M30 to M35, M53 to M55 */
{
    (void)state;
    tb_buf_put(&b, "A\0\xff b: c\r\n", 10);
    put_many(&b, " \r\n", 100000);
    judge();
    tb_buf_str(&b, "X: ");
    put_many(&b, "y", 10 << 20);
    tb_buf_str(&b, "\r\nSubject: behind the limit\r\n\r\nbody");
    size_t header = b.len - 4;
    judge();
    assert_int_equal(result.header_size, header);
    assert_slice(result.envelope, "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    put_many(&b, "A: b\r\n", 500000);
    judge();
    tb_buf_str(&b, "To: ");
    put_many(&b, "a@b,", 100000);
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    assert_true(result.envelope.len > 900000); /* as many as fit */
    tb_buf_str(&b, "From: ");
    put_many(&b, "a@b,", 100000);
    tb_buf_str(&b, "\r\nTo: g:");
    put_many(&b, "\"\\\"\" <a@b>,", 40000);
    tb_buf_str(&b, "\r\n\r\n");
    judge();
    tb_buf_str(&b, "Date: ");
    put_many(&b, "1 Jan 2000 ", 100000);
    judge();
    tb_buf_str(&b, "Message-ID: <");
    put_many(&b, "\"", 1000000);
    tb_buf_str(&b, ">\r\n\r\n");
    judge();
    tb_buf_str(&b, "References: ");
    put_many(&b, "<a@b>", 100000);
    tb_buf_str(&b, "\r\nIn-Reply-To: ");
    put_many(&b, "<c@d>", 100000);
    judge();
    assert_true(result.references.len <= 4096);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const pieces[] = {"<", "<@x", "(", ")",  "\"", ",",     ";",   ":",     "@",
                                         "[", "]",   ">", "\\", "a:", "<a@b>", "a <", "\"a\" "};
    for (size_t i = 0; i < TB_ARRAY_LEN(pieces); i++) {
        tb_buf_str(&b, "To: ");
        put_many(&b, pieces[i], 200000);
        tb_buf_str(&b, "\r\nFrom: ");
        put_many(&b, pieces[TB_ARRAY_LEN(pieces) - 1 - i], 20000);
        tb_buf_str(&b, "\r\n\r\n");
        judge();
    }
}

static void test_subjects(void **state) /* M45, M46 */
{
    (void)state;
    static const char *const pieces[] = {"=?utf-8?q?x?= ",
                                         "=?koi8-r?q?x?= =?gb2312?q?x?= ",
                                         "=?utf-8?q?",
                                         "=?a?b?",
                                         "[a]",
                                         "[",
                                         "re[a]",
                                         "re:",
                                         "(fwd)",
                                         "[fwd:",
                                         "=?",
                                         "Re: [x] "};
    for (size_t i = 0; i < TB_ARRAY_LEN(pieces); i++) {
        tb_buf_str(&b, "Subject: ");
        put_many(&b, pieces[i], 100000);
        put_many(&b, "]", i == 9 ? 100000 : 0);
        tb_buf_str(&b, "\r\n\r\n");
        judge();
    }
}

static void test_huge(void **state) /* M63 */
{
    (void)state;
    enum { PIECE = 1 << 20 };
    struct tb_part p;
    static const uint32_t path[] = {1};
    put_many(&b, "x", PIECE);
    tb_mime_reset(scanner);
    tb_mime_feed(scanner, TB_SLICE("Content-Type: image/x\r\n\r\n"));
    for (int i = 0; i < 4096; i++)
        tb_mime_feed(scanner, tb_buf_all(&b));
    tb_mime_feed(scanner, TB_SLICE("\n"));
    assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
    assert_sound();
    assert_int_equal(tb_parts_find(result.parts, path, 1, &p, NULL), TB_OK);
    assert_true(p.body_size == ((uint64_t)1 << 32) + 1);
    assert_slice(result.bodystructure, "(\"image\" \"x\" NIL NIL NIL \"7bit\" 4294967295 NIL NIL NIL NIL)");
    b.len = 0;
}

static void test_memory(void **state)
{
    (void)state;
    struct mallinfo2 before = mallinfo2();
    tb_buf_str(&b, "To: ");
    put_many(&b, "a@b,", 200000);
    tb_buf_str(&b, "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n");
    put_many(&b, "--b\r\nContent-Type: a/b; x=y\r\n\r\nx\r\n", 12000);
    tb_mime_reset(scanner);
    size_t input = b.cap;
    tb_mime_feed(scanner, tb_buf_all(&b));
    assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
    struct mallinfo2 after = mallinfo2();
    assert_true(after.uordblks + after.hblkhd < before.uordblks + before.hblkhd + input + (16 << 20));
    b.len = 0;
    tb_mime_reset(scanner); /* and gives it back */
    judge();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depth),         cmocka_unit_test(test_messages_in_messages),
        cmocka_unit_test(test_parts),         cmocka_unit_test(test_boundaries),
        cmocka_unit_test(test_content_types), cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_subjects),      cmocka_unit_test(test_huge),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
