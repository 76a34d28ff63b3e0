/* test_preview.c: the beginning of a text as one line. RFC 8970 3.3. */
#include "tests/unit/mime/mime_test.h"

static void preview_at(int line, enum tb_encoding enc, const char *charset, struct tb_slice in, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 4096);
    tb_text_preview(enc, tb_slice_str(charset), in, &b);
    assert_slice_at(tb_buf_all(&b), want, line);
    tb_buf_free(&b);
}
#define preview(in, want) preview_at(__LINE__, TB_ENC_8BIT, "utf-8", TB_SLICE(in), want)

static void test_plain(void **state)
{
    (void)state;
    preview("", "");
    preview(" \r\n\t\r\n", "");
    preview("one\r\n  two\tthree \r\n", "one two three");
    preview("> old\r\nnew\r\n>> older\r\n", "new");
    preview("> old\r\n> still\r\n", "> old > still");
    preview("a < b & c > d\n", "a < b & c > d");
    preview("<ann@example.org> wrote:\n> x\nyes", "<ann@example.org> wrote: yes");
    preview("<https://example.org/> see", "<https://example.org/> see");
    preview("a\xe2\x80\x8b\xc2\xad\xcd\x8f"
            "b\xc2\xa0\xe3\x80\x80"
            "c\x01",
            "ab c");
    preview("bad \xff byte", "bad byte");
    preview_at(__LINE__, TB_ENC_BASE64, "iso-8859-1", TB_SLICE("R3L832U="),
               "Gr\xc3\xbc\xc3\x9f"
               "e");
}

static void test_html(void **state)
{
    (void)state;
    preview("<p>one</p><p>two</p>", "one two");
    preview("<!DOCTYPE html><html><head><title>no</title></head><body>yes", "yes");
    preview("<html>a<style>no {}</style>b<SCRIPT>no < no</SCRIPT >c<!-- <p>no --->d", "a b c d");
    preview("<b>w</b>or<i>d</i> a<br>b", "word a b");
    preview("<p>&amp;&lt;&#65;&#x42;&nbsp;&unknown;&#0;&#xd800;&", "&<AB &unknown;&#0;&#xd800;&");
    preview("<p>1 < 2 <3", "1 < 2 <3");
    preview("<p>open <a href=\"", "open");
    preview("<p>open <style>", "open");
    preview("<p>open <!--", "open");
    preview("<p", "<p");
}

static void test_length(void **state)
{
    (void)state;
    struct tb_buf in, out;
    tb_buf_init(&in, 1 << 20);
    tb_buf_init(&out, 4096);
    put_many(&in, "\xf0\x9f\x98\x80 ", 5000);
    tb_text_preview(TB_ENC_8BIT, TB_SLICE("utf-8"), tb_buf_all(&in), &out);
    assert_int_equal(out.len, 100 * 4 + 99); /* 199 characters: a blank at the end is none */
    in.len = out.len = 0;
    put_many(&in, "\xc3\xa9", 5000);
    tb_text_preview(TB_ENC_8BIT, TB_SLICE("utf-8"), tb_buf_all(&in), &out);
    assert_int_equal(out.len, 400);
    in.len = out.len = 0;
    put_many(&in, "<style>", 200000 / 7); /* linear */
    tb_text_preview(TB_ENC_8BIT, TB_SLICE("utf-8"), tb_buf_all(&in), &out);
    assert_int_equal(out.len, 0);
    tb_buf_free(&in);
    tb_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_html),
        cmocka_unit_test(test_length),
    };
    (void)setup_scanner;
    (void)free_scanner;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
