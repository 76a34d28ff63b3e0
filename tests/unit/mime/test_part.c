/* test_part.c: the MIME tree: boundaries, sizes, BODYSTRUCTURE, the parts table. RFC 2046 5.1, RFC 9051 6.4.5
 * and 7.5.2. */
#include "tests/unit/mime/mime_test.h"

#define PLAIN "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" "
#define MIXED "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
#define TAIL " NIL NIL NIL NIL)"
#define MIXED_TAIL " \"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"

static void structure(const char *message, const char *want)
{
    struct tb_buf split;
    scan_str(message);
    assert_slice(result.bodystructure, want);
    assert_sound();
    tb_buf_init(&split, 1 << 20);
    tb_buf_slice(&split, result.bodystructure);
    tb_buf_slice(&split, result.parts);
    tb_mime_reset(scanner);
    for (const char *p = message; *p != 0; p++)
        tb_mime_feed(scanner, tb_slice(p, 1));
    assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
    assert_slice(result.bodystructure, want);
    assert_int_equal(result.parts.len, split.len - result.bodystructure.len);
    assert_memory_equal(result.parts.ptr, split.ptr + result.bodystructure.len, result.parts.len);
    tb_buf_free(&split);
}

static void test_single(void **state)
{
    (void)state;
    structure("", PLAIN "0 0" TAIL);
    structure("Subject: x", PLAIN "0 0" TAIL);
    structure("\r\nabc\r\n", PLAIN "5 1" TAIL);
    structure("\nabc\ndef", PLAIN "7 1" TAIL);
    structure("Content-Type: IMAGE/Png; NAME=\"a \\\"b\\\\.png\"\r\nContent-Transfer-Encoding: BASE64\r\n"
              "Content-ID: <x@y>\r\n"
              "Content-Description: a\r\n picture\r\nContent-MD5: Q2hlY2s=\r\n"
              "Content-Disposition: ATTACHMENT; filename=a.png; size=3\r\nContent-Language: en, de (German)\r\n"
              "Content-Location: http://x/\r\n\r\nabc=",
              "(\"image\" \"png\" (\"name\" \"a \\\"b\\\\.png\") \"<x@y>\" \"a picture\" \"base64\" 4 \"Q2hlY2s=\" "
              "(\"attachment\" (\"filename\" \"a.png\" \"size\" \"3\")) (\"en\" \"de\") \"http://x/\")");
    structure("Content-Type: text/html\r\nContent-Language: en\r\n\r\n", /* no charset is invented for a named type */
              "(\"text\" \"html\" NIL NIL NIL \"7bit\" 0 0 NIL NIL \"en\" NIL)");
}

static void test_multipart(void **state)
{
    (void)state;
    structure(
        MIXED
        "preamble\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/x\r\n\r\ntwo\r\n\r\n--b--\r\nepilogue\r\n--b\r\n",
        "(" PLAIN "3 0" TAIL "(\"text\" \"x\" NIL NIL NIL \"7bit\" 5 1" TAIL MIXED_TAIL);
    structure("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n",
              "(" PLAIN "3 0" TAIL MIXED_TAIL);                              /* M13 */
    structure(MIXED "--b\r\n\r\none\r\n", "(" PLAIN "5 1" TAIL MIXED_TAIL);  /* M10 */
    structure(MIXED "--b--\r\nabc", PLAIN "10 1" TAIL);                      /* M11 */
    structure(MIXED "nothing", PLAIN "7 0" TAIL);                            /* its boundary never comes */
    structure("Content-Type: multipart/mixed\r\n\r\nabc", PLAIN "3 0" TAIL); /* M4 */
    structure("Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n", PLAIN "4 1" TAIL);            /* M5 */
    structure(MIXED "--b\r\nX: y\r\n--b\r\n\r\n--b--", "(" PLAIN "0 0" TAIL PLAIN "0 0" TAIL MIXED_TAIL); /* M12, M61 */
    structure(MIXED
              "--b  \t\r\n\r\n--bb\r\n--b-\r\n--b --\r\n --b\r\nx--b\r\n--b-- \r\n", /* M7, M8: the whole line counts */
              "(" PLAIN "30 4" TAIL MIXED_TAIL);
    structure(
        MIXED
        "--b\r\nContent-Type: multipart/x; boundary=b\r\n\r\n--b\r\n\r\n1\r\n--b--\r\n--b\r\n\r\n2\r\n--b--", /* M9 */
        "((" PLAIN "1 0" TAIL " \"x\" (\"boundary\" \"b\") NIL NIL NIL)" PLAIN "1 0" TAIL MIXED_TAIL);
    structure(MIXED
              "--b\r\nContent-Type: multipart/x; boundary=i\r\n\r\n--i\r\n\r\n1\r\n--b\r\n\r\n2\r\n--i\r\n--b--\r\n",
              "((" PLAIN "1 0" TAIL " \"x\" (\"boundary\" \"i\") NIL NIL NIL)" PLAIN "6 1" TAIL MIXED_TAIL);
}

static void test_message(void **state)
{
    (void)state;
    structure("Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nbody\r\n",
              "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 21 (NIL \"in\" NIL NIL NIL NIL NIL NIL NIL NIL) " PLAIN
              "6 1" TAIL " 3" TAIL);
    structure(
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nFrom: a@b\r\n\r\nx\r\n--b\r\n"
        "Content-Type: text/plain\r\n"
        "\r\ny\r\n--b--\r\n", /* M58 */
        "((\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 14 (NIL NIL ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) "
        "((NIL NIL \"a\" \"b\")) NIL NIL NIL NIL NIL) " PLAIN "1 0" TAIL " 2" TAIL
        "(\"text\" \"plain\" NIL NIL NIL \"7bit\" 1 0" TAIL " \"digest\" (\"boundary\" \"b\") NIL NIL NIL)");
    structure("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n", /* M57 */
              "(\"application\" \"octet-stream\" NIL NIL NIL \"base64\" 18" TAIL);
    structure("Content-Type: message/external-body; access-type=x\r\n\r\nContent-Type: image/gif\r\n\r\n", /* M56 */
              "(\"message\" \"external-body\" (\"access-type\" \"x\") NIL NIL \"7bit\" 27" TAIL);
    structure(MIXED "--b\r\nContent-Type: message/global\r\n\r\n--b--\r\n",
              "((\"message\" \"global\" NIL NIL NIL \"7bit\" 0 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) " PLAIN
              "0 0" TAIL " 0" TAIL MIXED_TAIL);
}

static void type(const char *content_type, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, "Content-Type: ");
    tb_buf_str(&b, content_type);
    tb_buf_str(&b, "\r\n\r\n");
    scan(tb_buf_all(&b));
    assert_slice(result.bodystructure, want);
    assert_sound();
    tb_buf_free(&b);
}

static void test_types(void **state)
{
    (void)state;
    type("text", "(\"text\" \"plain\" NIL NIL NIL \"7bit\" 0 0" TAIL); /* M17 */
    type("image", PLAIN "0 0" TAIL);
    type("/plain", PLAIN "0 0" TAIL);
    type(";;;=", PLAIN "0 0" TAIL); /* M16 */
    type("a/b;;;=;x=1;y", "(\"a\" \"b\" (\"x\" \"1\") NIL NIL \"7bit\" 0" TAIL);
    type("a (c) / (c;) b (d) ; (e) x (f) = (g) 1 (h) ; y=2",
         "(\"a\" \"b\" (\"x\" \"1\" \"y\" \"2\") NIL NIL \"7bit\" 0" TAIL);
    type("a/b; x=\"open; y=1", "(\"a\" \"b\" (\"x\" \"open; y=1\") NIL NIL \"7bit\" 0" TAIL); /* M19 */
    type("a/b; x=\"1\"; y=\"2\"; z=a b(1).c",
         "(\"a\" \"b\" (\"x\" \"1\" \"y\" \"2\" \"z\" \"a b(1).c\") NIL NIL \"7bit\" 0" TAIL);
    type("a/b; (open\\", "(\"a\" \"b\" NIL NIL NIL \"7bit\" 0" TAIL); /* M21 */
    type("a/b; X=\xc3\xa9", "(\"a\" \"b\" (\"x\" {2}\r\n\xc3\xa9) NIL NIL \"7bit\" 0" TAIL);
    type("a/b; x=; y=1", "(\"a\" \"b\" (\"x\" \"\" \"y\" \"1\") NIL NIL \"7bit\" 0" TAIL);
    type("multipart/mixed; boundary=b; boundary=c", PLAIN "0 0" TAIL);
    scan_str("Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Transfer-Encoding: X-Foo\r\n\r\n"); /* M14, M22 */
    assert_slice(result.bodystructure, "(\"a\" \"b\" NIL NIL NIL \"x-foo\" 0" TAIL);
}

static void test_continuations(void **state)
{
    (void)state;
    type("a/b; n*1=B; n*0=A; x=1; n*2=C",
         "(\"a\" \"b\" (\"x\" \"1\" \"n\" \"ABC\") NIL NIL \"7bit\" 0" TAIL); /* RFC 2231 3 */
    type("a/b; title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; "
         "title*2=\"isn't it!\"",
         "(\"a\" \"b\" (\"title*\" \"us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20"
         "it!\") NIL NIL "
         "\"7bit\" 0" TAIL); /* RFC 2231 4.1 */
    type("a/b; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
         "(\"a\" \"b\" (\"title*\" \"us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A\") NIL NIL \"7bit\" 0" TAIL);
    type("a/b; n*0=A; n*2=C; N*0=x", "(\"a\" \"b\" (\"n\" \"A\") NIL NIL \"7bit\" 0" TAIL); /* M49: gap, duplicate */
    type("a/b; n*1=B", "(\"a\" \"b\" NIL NIL NIL \"7bit\" 0" TAIL);
    type("a/b; n*0=A; n*1*=%zz", "(\"a\" \"b\" (\"n*\" \"''A%zz\") NIL NIL \"7bit\" 0" TAIL); /* M51 */
    type("a/b; n*99999999999=A; m*01=B; *0=C; o*x=D",
         "(\"a\" \"b\" (\"n*99999999999\" \"A\" \"m*01\" \"B\" \"*0\" \"C\" \"o*x\" \"D\") NIL NIL \"7bit\" "
         "0" TAIL); /* M50 */
}

static struct tb_part part, inner;

static enum tb_rc find(size_t n, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t path[] = {a, b, c, d};
    inner = (struct tb_part){.index = 99};
    return tb_parts_find(result.parts, path, n, &part, &inner);
}

/* The example tree of RFC 9051 6.4.5: 1 text, 2 octet-stream, 3 message (1 text, 2 octet-stream), 4 multipart (1, 2
 * message). */
static const char rfc_tree[] =
    "Content-Type: multipart/mixed; boundary=A\r\n\r\n--A\r\n\r\nfirst\r\n--A\r\n"
    "Content-Type: application/octet-stream\r\n\r\nsecond\r\n"
    "--A\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\n"
    "3.1\r\n--B\r\n"
    "Content-Type: a/b\r\n\r\n3.2\r\n--B--\r\n--A\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n"
    "--C\r\nContent-Type: image/gif\r\n\r\n"
    "4.1\r\n--C\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\n4.2.1\r\n--C--\r\n--A--\r\n";

static void body_is(const char *want)
{
    assert_slice(tb_slice(rfc_tree + part.body_offset, (size_t)part.body_size), want);
}

static void test_find(void **state)
{
    (void)state;
    scan_str(rfc_tree);
    assert_int_equal(find(0, 0, 0, 0, 0), TB_OK);
    assert_int_equal(part.kind, TB_PART_MULTIPART);
    assert_int_equal(part.children, 4);
    assert_int_equal(inner.index, 99);
    assert_int_equal(find(1, 1, 0, 0, 0), TB_OK);
    body_is("first");
    assert_int_equal(find(1, 2, 0, 0, 0), TB_OK);
    body_is("second");
    assert_slice(tb_slice(rfc_tree + part.header_offset, (size_t)part.header_size),
                 "Content-Type: application/octet-stream\r\n\r\n");
    assert_int_equal(find(1, 3, 0, 0, 0), TB_OK);
    assert_int_equal(part.kind, TB_PART_MESSAGE);
    assert_int_equal(inner.kind, TB_PART_MULTIPART);
    assert_true(inner.header_offset == part.body_offset);
    assert_int_equal(find(2, 3, 2, 0, 0), TB_OK);
    body_is("3.2");
    assert_int_equal(part.kind, TB_PART_LEAF);
    assert_int_equal(find(2, 4, 2, 0, 0), TB_OK);
    assert_int_equal(part.kind, TB_PART_MESSAGE);
    assert_int_equal(find(3, 4, 2, 1, 0), TB_OK);
    body_is("4.2.1");
    assert_int_equal(find(4, 4, 2, 1, 1), TB_NOTFOUND);
    assert_int_equal(find(2, 1, 1, 0, 0), TB_NOTFOUND);
    assert_int_equal(find(1, 5, 0, 0, 0), TB_NOTFOUND);
    assert_int_equal(find(1, 0, 0, 0, 0), TB_NOTFOUND);
    assert_int_equal(find(2, 3, 3, 0, 0), TB_NOTFOUND);
    assert_int_equal(find(3, 4, 2, 2, 0), TB_NOTFOUND);
    scan_str("Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nx");
    assert_int_equal(find(1, 1, 0, 0, 0), TB_OK);
    assert_int_equal(part.kind, TB_PART_MESSAGE);
    assert_int_equal(inner.index, 1);
    assert_int_equal(find(2, 1, 1, 0, 0), TB_OK);
    assert_int_equal(part.index, 1);
    assert_int_equal(part.body_size, 1);
    assert_int_equal(find(3, 1, 1, 1, 0), TB_NOTFOUND);
}

static void test_table_damage(void **state)
{
    (void)state;
    char copy[512];
    scan_str(rfc_tree);
    size_t n = result.parts.len;
    assert_true(n < sizeof(copy));
    for (size_t cut = 0; cut < n; cut++) { /* a cut table ends in damage or early, never beyond */
        memcpy(copy, result.parts.ptr, n);
        size_t cursor = 0, steps = 0;
        while (tb_parts_next(tb_slice(copy, cut), &cursor, &part) == TB_OK)
            assert_true(++steps <= 11);
        for (uint32_t a = 1; a < 6; a++) {
            uint32_t path[] = {a, 2, 1};
            assert_int_not_equal(tb_parts_find(tb_slice(copy, cut), path, 3, &part, &inner), TB_LIMIT);
        }
    }
    for (size_t i = 0; i < n * 8; i++) { /* any flipped bit is read safely */
        memcpy(copy, result.parts.ptr, n);
        copy[i / 8] ^= (char)(1 << i % 8);
        size_t cursor = 0;
        while (tb_parts_next(tb_slice(copy, n), &cursor, &part) == TB_OK)
            assert_true(part.charset.len < 64);
        uint32_t path[] = {4, 2, 1};
        assert_int_not_equal(tb_parts_find(tb_slice(copy, n), path, 3, &part, &inner), TB_LIMIT);
    }
    size_t cursor = 0;
    assert_int_equal(tb_parts_next(TB_SLICE(""), &cursor, &part), TB_CORRUPT);
    assert_int_equal(tb_parts_next(TB_SLICE("\x02"), &cursor, &part), TB_CORRUPT);
    assert_int_equal(tb_parts_find(TB_SLICE("\x01"), NULL, 0, &part, NULL), TB_CORRUPT);
}

static void body(const char *bodystructure, enum tb_rc rc, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    assert_int_equal(tb_body_write(tb_slice_str(bodystructure), &b), rc);
    assert_slice(tb_buf_all(&b), want);
    tb_buf_free(&b);
}

static void test_body(void **state)
{
    (void)state;
    body(PLAIN "5 1" TAIL, TB_OK, PLAIN "5 1)");
    body("(\"a\" \"b\" (\"x\" {3}\r\n)\"() NIL NIL \"7bit\" 5 NIL (\"inline\" (\"f\" \"(\")) (\"en\" \"de\") NIL)",
         TB_OK, "(\"a\" \"b\" (\"x\" {3}\r\n)\"() NIL NIL \"7bit\" 5)");
    scan_str(rfc_tree);
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_buf_slice(&b, result.bodystructure);
    for (size_t n = 0; n < b.len; n++) {
        struct tb_buf out;
        tb_buf_init(&out, 1 << 20);
        assert_int_equal(tb_body_write(tb_slice(b.ptr, n), &out), TB_CORRUPT);
        assert_int_equal(out.len, 0);
        tb_buf_free(&out);
    }
    tb_buf_char(&b, 0);
    body(b.ptr, TB_OK,
         "(" PLAIN "5 0)(\"application\" \"octet-stream\" NIL NIL NIL \"7bit\" 6)"
         "(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 93 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) (" PLAIN
         "3 0)(\"a\" \"b\" NIL NIL NIL \"7bit\" 3) \"mixed\") 9)"
         "((\"image\" \"gif\" NIL NIL NIL \"7bit\" 3)(\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 19 "
         "(NIL \"s\" NIL NIL NIL NIL NIL NIL NIL NIL) " PLAIN "5 0) 2) \"mixed\") \"mixed\")");
    tb_buf_free(&b);
    body("", TB_CORRUPT, "");
    body("(\"text\" \"plain\")", TB_CORRUPT, "");
    body(PLAIN "5 1" TAIL "x", TB_CORRUPT, "");
}

static void test_charset_of_part(void **state)
{
    (void)state;
    scan_str("Content-Type: text/plain; charset=\"UTF-8\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
    assert_int_equal(find(1, 1, 0, 0, 0), TB_OK);
    assert_slice(part.charset, "utf-8");
    assert_int_equal(part.kind, TB_PART_TEXT);
    assert_int_equal(part.encoding, TB_ENC_QP);
    scan_str("Content-Type: application/pdf; charset=utf-8\r\n\r\n");
    assert_int_equal(find(1, 1, 0, 0, 0), TB_OK);
    assert_slice(part.charset, "");
}

static void test_header_size(void **state)
{
    (void)state;
    scan_str("A: b\r\n\r\nbody");
    assert_int_equal(result.header_size, 8);
    assert_int_equal(result.size, 12);
    scan_str("A: b\r\n");
    assert_int_equal(result.header_size, 6);
    scan_str("\r\nbody");
    assert_int_equal(result.header_size, 2);
    scan_str("A: b\n\r\nbody");
    assert_int_equal(result.header_size, 7);
    scan(TB_SLICE("A: b\r\r\n\r\n\r\n")); /* a bare CR is no line end */
    assert_int_equal(result.header_size, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),          cmocka_unit_test(test_multipart),
        cmocka_unit_test(test_message),         cmocka_unit_test(test_types),
        cmocka_unit_test(test_continuations),   cmocka_unit_test(test_find),
        cmocka_unit_test(test_table_damage),    cmocka_unit_test(test_body),
        cmocka_unit_test(test_charset_of_part), cmocka_unit_test(test_header_size),
    };
    return cmocka_run_group_tests(tests, setup_scanner, free_scanner);
}
