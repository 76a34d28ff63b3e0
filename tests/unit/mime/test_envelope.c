/* test_envelope.c: ENVELOPE text, addresses, and the text taken apart. RFC 9051 7.5.2, RFC 5322 3.4 and 4.4. */
#include "tests/unit/mime/mime_test.h"

/* The "to" list of a message with this To value. */
static void to(const char *value, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, "To: ");
    tb_buf_str(&b, value);
    tb_buf_str(&b, "\r\n\r\n");
    scan(tb_buf_all(&b));
    tb_buf_free(&b);
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, "(NIL NIL NIL NIL NIL ");
    tb_buf_str(&b, want);
    tb_buf_str(&b, " NIL NIL NIL NIL)");
    tb_buf_char(&b, 0);
    assert_slice(result.envelope, b.ptr);
    tb_buf_free(&b);
    assert_sound();
}

static void test_whole(void **state)
{
    (void)state;
    scan_str("Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n" /* the example of RFC 9051 section 8 */
             "From: Terry Gray <gray@cac.washington.edu>\r\n"
             "Subject: IMAP4rev2 WG mtg summary and minutes\r\n"
             "To: imap@cac.washington.edu\r\n"
             "cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
             "Message-Id: <B27397-0100000@cac.washington.edu>\r\n"
             "MIME-Version: 1.0\r\n"
             "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n\r\n");
    assert_slice(
        result.envelope,
        "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev2 WG mtg summary and minutes\" "
        "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) "
        "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((NIL NIL \"imap\" \"cac.washington.edu\")) "
        "((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL "
        "\"<B27397-0100000@cac.washington.edu>\")");
    assert_slice(result.message_id, "B27397-0100000@cac.washington.edu");
    assert_slice(result.bodystructure,
                 "(\"text\" \"plain\" (\"charset\" \"US-ASCII\") NIL NIL \"7bit\" 0 0 NIL NIL NIL NIL)");
    assert_sound();
}

static void test_addresses(void **state)
{
    (void)state;
    to("a@b", "((NIL NIL \"a\" \"b\"))");
    to("", "NIL");
    to(" , ,", "NIL");
    to("<a@b>, c@d", "((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))");
    to("John Q. Public <j@p.org>", "((\"John Q. Public\" NIL \"j\" \"p.org\"))");
    to("\"Public, John \\\"Q\\\"\" <j@p>", "((\"Public, John \\\"Q\\\"\" NIL \"j\" \"p\"))");
    to("j@p (John (Q) Public)", "((\"John (Q) Public\" NIL \"j\" \"p\"))");
    to("(first) j (x) @ p (John\\) P)", "((\"John) P\" NIL \"j\" \"p\"))");
    to("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
       "((\"Pete\" NIL \"pete\" \"silly.test\"))"); /* RFC 5322 A.5 */
    to("\"a b\"@c", "((NIL NIL \"a b\" \"c\"))");
    to("\"a@b\"@c", "((NIL NIL \"a@b\" \"c\"))");
    to("<\"a b\"@[1.2.3.4]>", "((NIL NIL \"a b\" \"[1.2.3.4]\"))");
    to("X <@a,@b:u@c>", "((\"X\" \"@a,@b\" \"u\" \"c\"))"); /* M40 */
    to("a . b @ c . d", "((NIL NIL \"a.b\" \"c.d\"))");
    to("=?utf-8?q?J=C3=B6rg?=\r\n <j@x>", "((\"=?utf-8?q?J=C3=B6rg?=\" NIL \"j\" \"x\"))");
    to("J\xc3\xb6rg <j@x>", "(({5}\r\nJ\xc3\xb6rg NIL \"j\" \"x\"))");
    to("root", "((NIL NIL \"root\" \"\"))");
    to("Jane Doe", "((\"Jane Doe\" NIL \"\" \"\"))");
    to("Jane Doe jane@x", "((\"Jane Doe\" NIL \"jane\" \"x\"))");
    to("jane@x Jane Doe", "((NIL NIL \"jane\" \"x\"))");
    to("a@b <c@d>", "((\"a@b\" NIL \"c\" \"d\"))");
    to("<a@b> <c@d>", "((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))");
}

static void test_groups(void **state)
{
    (void)state;
    to("A Group:Ed Jones <c@a.test>,joe@where.test;", /* RFC 5322 A.1.3 */
       "((NIL NIL \"A Group\" NIL)(\"Ed Jones\" NIL \"c\" \"a.test\")(NIL NIL \"joe\" \"where.test\")"
       "(NIL NIL NIL NIL))");
    to("undisclosed-recipients:;", "((NIL NIL \"undisclosed-recipients\" NIL)(NIL NIL NIL NIL))");
    to("a:b,c", "((NIL NIL \"a\" NIL)(NIL NIL \"b\" \"\")(NIL NIL \"c\" \"\")(NIL NIL NIL NIL))"); /* M36 */
    to(":;", "((NIL NIL \"\" NIL)(NIL NIL NIL NIL))");
    to("a:b@c; d@e", "((NIL NIL \"a\" NIL)(NIL NIL \"b\" \"c\")(NIL NIL NIL NIL)(NIL NIL \"d\" \"e\"))");
    to("a: b: c@d;", "((NIL NIL \"a\" NIL)(NIL NIL NIL NIL)(NIL NIL \"b\" NIL)(NIL NIL \"c\" \"d\")(NIL NIL NIL NIL))");
}

static void test_broken(void **state)
{
    (void)state;
    to("<>", "NIL"); /* M37 */
    to("@", "NIL");
    to("@x", "((NIL NIL \"\" \"x\"))");
    to("a@", "((NIL NIL \"a\" \"\"))");
    to("a@b\\", "((NIL NIL \"a\" \"b\\\\\"))"); /* M38 */
    to("(nobody)", "NIL");                      /* a comment alone is no address */
    to("a: (nobody);", "((NIL NIL \"a\" NIL)(NIL NIL NIL NIL))");
    to("a@b (never closed", "((\"never closed\" NIL \"a\" \"b\"))");
    to("X <a@b", "((\"X\" NIL \"a\" \"b\"))"); /* M39 */
    to("X <a@b, c@d", "((\"X\" NIL \"a\" \"b\")(NIL NIL \"c\" \"d\"))");
    to("\"never closed <a@b>", "((NIL NIL \"never closed <a@b>\" \"\"))");
    to("a@[1.2", "((NIL NIL \"a\" \"[1.2\"))");
    to("a\x01@b", "((NIL NIL \"a\x01\" \"b\"))");
}

static void test_fields(void **state)
{
    (void)state;
    scan_str("Subject:\r\nTO:\r\nMessage-ID: no brackets\r\n\r\n"); /* present but empty: RFC 9051 7.5.2 */
    assert_slice(result.envelope, "(NIL \"\" NIL NIL NIL NIL NIL NIL NIL \"no brackets\")");
    assert_slice(result.message_id, "");
    scan_str("Subject: one\r\n two\r\nSubject: three\r\nFrom: a@b\r\nSender:\r\nReply-To: c@d\r\n\r\n");
    assert_slice(result.envelope, "(NIL \"one two\" ((NIL NIL \"a\" \"b\")) ((NIL NIL \"a\" \"b\")) "
                                  "((NIL NIL \"c\" \"d\")) NIL NIL NIL NIL NIL)");
    scan_str("Cc: a@b\r\nSubject: q\"\\\r\nCC: c@d\r\nIn-Reply-To: <x@y>\r\n\r\n");
    assert_slice(result.envelope, "(NIL \"q\\\"\\\\\" NIL NIL NIL NIL ((NIL NIL \"a\" \"b\")(NIL NIL \"c\" \"d\")) NIL "
                                  "\"<x@y>\" NIL)");
    assert_slice(result.references, "\tx@y");
    scan(TB_SLICE("Subject: a\0b\rc\r\nDate: \xff\r\n\r\n"));
    assert_slice(result.envelope, "({1}\r\n\xff \"a?b c\" NIL NIL NIL NIL NIL NIL NIL NIL)");
    scan_str("");
    assert_slice(result.envelope, "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_int_equal(result.header_size, 0);
    assert_sound();
}

static void test_read(void **state)
{
    (void)state;
    struct tb_arena arena;
    struct tb_envelope e;
    tb_arena_init(&arena, 1 << 20);
    struct tb_slice text = TB_SLICE(
        "(\"d\" {3}\r\na\"b ((\"n\\\"\\\\\" \"@r\" \"m\" \"h\")(NIL NIL \"x\" NIL)) NIL NIL "
        "((NIL NIL \"\" \"\")) NIL NIL NIL \"<i>\")");
    assert_int_equal(tb_envelope_read(text, &arena, &e), TB_OK);
    assert_slice(e.date, "d");
    assert_slice(e.subject, "a\"b");
    assert_slice(e.from->name, "n\"\\");
    assert_slice(e.from->adl, "@r");
    assert_slice(e.from->mailbox, "m");
    assert_null(e.from->next->name.ptr);
    assert_null(e.from->next->host.ptr);
    assert_null(e.from->next->next);
    assert_null(e.sender);
    assert_non_null(e.to->mailbox.ptr);
    assert_slice(e.message_id, "<i>");
    assert_null(e.in_reply_to.ptr);
    for (size_t n = 0; n < text.len; n++) /* every prefix is damage */
        assert_int_equal(tb_envelope_read(tb_slice(text.ptr, n), &arena, &e), TB_CORRUPT);
    assert_int_equal(tb_envelope_read(TB_SLICE("(NIL {99}\r\nabc NIL)"), &arena, &e), TB_CORRUPT);
    assert_int_equal(tb_envelope_read(TB_SLICE("(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) "), &arena, &e), TB_CORRUPT);
    tb_arena_free(&arena);
    tb_arena_init(&arena, 200);
    assert_int_equal(tb_envelope_read(text, &arena, &e), TB_LIMIT);
    tb_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),  cmocka_unit_test(test_addresses), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_broken), cmocka_unit_test(test_fields),    cmocka_unit_test(test_read),
    };
    return cmocka_run_group_tests(tests, setup_scanner, free_scanner);
}
