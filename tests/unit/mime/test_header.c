/* test_header.c: walking fields, HEADER.FIELDS, decoded values. RFC 5322 2.2, RFC 9051 6.4.5, RFC 2047. */
#include "tests/unit/mime/mime_test.h"

static void next(struct tb_slice *rest, const char *name, const char *value)
{
    struct tb_slice f, n, v;
    assert_true(tb_header_next(rest, &f, &n, &v));
    assert_slice(n, name);
    assert_slice(v, value);
}

static void test_walk(void **state)
{
    (void)state;
    struct tb_slice f, n, v,
        rest = TB_SLICE(" odd: first\r\nA: 1\r\nB : 2\r\n\t3\r\nno colon\r\n:x\r\nC:\n d: e\n\r\nbody: no\r\n");
    next(&rest, "", " odd: first\r\n");
    next(&rest, "A", " 1\r\n");
    next(&rest, "B", " 2\r\n\t3\r\n");
    next(&rest, "", "no colon\r\n");
    next(&rest, "", "x\r\n");
    next(&rest, "C", "\n d: e\n");
    assert_false(tb_header_next(&rest, &f, &n, &v));
    rest = TB_SLICE("Last: unfinished");
    next(&rest, "Last", " unfinished");
    assert_false(tb_header_next(&rest, &f, &n, &v));
    rest = TB_SLICE("");
    assert_false(tb_header_next(&rest, &f, &n, &v));
    rest = TB_SLICE("\nA: b\n");
    assert_false(tb_header_next(&rest, &f, &n, &v));
}

static void test_first_value(void **state)
{
    (void)state;
    struct tb_slice v, h = TB_SLICE("To: a\r\nto: b\r\n\r\nX: y\r\n");
    assert_true(tb_header_value_first(h, TB_SLICE("TO"), &v));
    assert_slice(v, " a\r\n");
    assert_false(tb_header_value_first(h, TB_SLICE("X"), &v));
}

static void subset(const struct tb_slice *names, size_t n, bool negate, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 4096);
    tb_header_subset(TB_SLICE("From: a\r\nSubject: b\r\n c\r\nsubject: d\r\nX\r\nTo: e"), names, n, negate, &b);
    assert_slice(tb_buf_all(&b), want);
    tb_buf_free(&b);
}

static void test_subset(void **state)
{
    (void)state;
    struct tb_slice one[] = {TB_SLICE("SUBJECT")}, both[] = {TB_SLICE("to"), TB_SLICE("From")}, many[40];
    subset(one, 1, false, "Subject: b\r\n c\r\nsubject: d\r\n\r\n");
    subset(both, 2, false, "From: a\r\nTo: e\r\n\r\n");
    subset(both, 2, true, "Subject: b\r\n c\r\nsubject: d\r\nX\r\n\r\n");
    subset(NULL, 0, false, "\r\n");
    for (size_t i = 0; i < TB_ARRAY_LEN(many); i++)
        many[i] = i == 33 ? TB_SLICE("tO") : TB_SLICE("x-none");
    subset(many, TB_ARRAY_LEN(many), false, "To: e\r\n\r\n");
    subset(many, TB_ARRAY_LEN(many), true, "From: a\r\nSubject: b\r\n c\r\nsubject: d\r\nX\r\n\r\n");
}

static void text(const char *in, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_header_text(tb_slice_str(in), &b);
    assert_slice(tb_buf_all(&b), want);
    tb_buf_free(&b);
}

static void test_text(void **state)
{
    (void)state;
    text(" plain \r\n", "plain");
    text("a\r\n b\r\n\tc", "a b\tc");
    text("=?ISO-8859-1?Q?a?=", "a"); /* RFC 2047 8 */
    text("=?ISO-8859-1?Q?a?= b", "a b");
    text("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab");
    text("=?ISO-8859-1?Q?a?=  \r\n  =?ISO-8859-1?Q?b?=", "ab");
    text("=?ISO-8859-1?Q?a_b?=", "a b");
    text("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b");
    text("=?ISO-8859-1?Q?Andr=E9?= Pirard", "Andr\xc3\xa9 Pirard");
    text("=?utf-8?B?w6k=?=", "\xc3\xa9");
    text("=?utf-8*en?b?w6k=?=", "\xc3\xa9");             /* RFC 2231 5 */
    text("=?utf-8?b?w6?= =?utf-8?b?qQ==?=", "\xc3\xa9"); /* no pad, and a character cut between two words */
    text("=?utf-8?q?=C3?= =?utf-8?q?=A9?=", "\xc3\xa9"); /* a character cut between two words */
    text("=?iso-2022-jp?B?GyRCJUYlOSVIGyhC?=", "\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88");
    text("=?koi8-r?Q?=D4=C5=D3=D4?=", "\xd1\x82\xd0\xb5\xd1\x81\xd1\x82");
    text("=?x-none?Q?a=E9b?=", "a\xef\xbf\xbd"
                               "b");      /* M43 */
    text("=?utf-8?b?w6", "=?utf-8?b?w6"); /* M44 */
    text("=?utf-8?x?abc?=", "=?utf-8?x?abc?=");
    text("a=?=?utf-8?q?b?=c", "a=?bc");
    text("=?utf-8?q?a=0D=0AX:_y=00?=", "a  X: y ");       /* M47 */
    text("caf\xc3\xa9 \xff", "caf\xc3\xa9 \xef\xbf\xbd"); /* M41 */
    text("=?utf-8?q?what?"
         "?=",
         "what?");
    text("=", "=");
    text("", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk),
        cmocka_unit_test(test_first_value),
        cmocka_unit_test(test_subset),
        cmocka_unit_test(test_text),
    };
    (void)setup_scanner;
    (void)free_scanner;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
