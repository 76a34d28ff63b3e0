/* test_subject.c: base subject (RFC 5256 2.1), message ids (RFC 5322 3.6.4). */
#include "tests/unit/mime/mime_test.h"

static void base(const char *subject, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, "Subject: ");
    tb_buf_str(&b, subject);
    tb_buf_str(&b, "\r\n\r\n");
    scan(tb_buf_all(&b));
    assert_slice(result.subject_base, want);
    tb_buf_free(&b);
}

static void test_base(void **state)
{
    (void)state;
    base("hello", "hello");
    base("", "");
    base("Re: hello", "hello");
    base("RE : hello", "hello");
    base("Re:Fw: FWD :  hello", "hello");
    base("re[2]: hello", "hello");
    base("[list] hello", "hello");
    base("[list] Re: [list] hello", "hello");
    base("Re: [a][b] [c] hello", "hello");
    base("[list]", "[list]");
    base("[a][b]", "[b]");
    base("Re: [list]", "[list]");
    base("hello (fwd)", "hello");
    base("hello (FWD) (fwd)  ", "hello");
    base("[fwd: hello]", "hello");
    base("[Fwd: Re: hello (fwd)]", "hello");
    base("[fwd: [fwd: hello]]", "hello");
    base("hello\t  world", "hello world");
    base("hello\r\n world", "hello world");
    base("=?utf-8?q?Re:_caf=C3=A9?=", "caf\xc3\xa9");
    base("Reply", "Reply");
    base("Re", "Re");
    base("Re:", "");
    base("fwd: (fwd)", "");
    base("[unclosed re: x", "[unclosed re: x");
    base("\xff", "\xef\xbf\xbd");
}

static void references(const char *header, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, header);
    tb_buf_str(&b, "\r\n\r\n");
    scan(tb_buf_all(&b));
    assert_slice(result.references, want);
    tb_buf_free(&b);
}

static void test_references(void **state)
{
    (void)state;
    references("X: y", "");
    references("References: <a@b> <c@d>\r\n\t<e@f>", "a@b c@d e@f");
    references("In-Reply-To: <a@b>", "\ta@b");
    references("References: <a@b> <c@d>\r\nIn-Reply-To: <c@d>", "a@b c@d");
    references("In-Reply-To: <x@y>\r\nReferences: <a@b>", "a@b\tx@y");
    references("References: <\"a b\"@c> < d @ e > <> <f <g@h>", "ab@c d@e g@h");
    references("In-Reply-To: Your message of Monday <a@b> (x)", "\ta@b");
    references("References: no ids", "");
}

static void test_references_bounded(void **state)
{
    (void)state;
    struct tb_buf b;
    char id[32];
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, "References: <root@x>");
    for (int i = 0; i < 20000; i++) {
        snprintf(id, sizeof(id), "\r\n <%d@x>", i);
        tb_buf_str(&b, id);
    }
    tb_buf_str(&b, "\r\n\r\n");
    scan(tb_buf_all(&b));
    assert_true(result.references.len <= 4096 && result.references.len > 4000);
    assert_memory_equal(result.references.ptr, "root@x ", 7);
    assert_slice(tb_slice_sub(result.references, result.references.len - 15, 15), "19998@x 19999@x");
    tb_buf_free(&b);
}

static void test_message_id(void **state)
{
    (void)state;
    scan_str("Message-ID:\r\n <a\"b\"@c>\r\nMessage-ID: <second@x>\r\n\r\n"); /* M54: the first */
    assert_slice(result.message_id, "ab@c");
    scan_str("Message-ID: <>\r\n\r\n");
    assert_slice(result.message_id, "");
    scan_str("Message-ID: <a@b\r\n\r\n");
    assert_slice(result.message_id, "");
    scan(TB_SLICE("Message-ID: <a\0b>\r\n\r\n"));
    assert_slice(result.message_id, "ab");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_references_bounded),
        cmocka_unit_test(test_message_id),
    };
    return cmocka_run_group_tests(tests, setup_scanner, free_scanner);
}
