/* test_charset.c: transfer decoding, charsets, folding, normalisation. RFC 2045 6, RFC 3629, RFC 9051 6.4.4. */
#include "tests/unit/mime/mime_test.h"

#include "engine/mime/mime.h"

#define BAD "\xef\xbf\xbd"

/* Decoded at once, and byte by byte. */
static void decode_at(int line, enum tb_encoding enc, const char *charset, struct tb_slice in, const char *want)
{
    struct tb_buf a, b;
    struct tb_text_stream t;
    tb_buf_init(&a, 1 << 20);
    tb_buf_init(&b, 1 << 20);
    tb_text_decode(enc, tb_slice_str(charset), in, &a);
    assert_slice_at(tb_buf_all(&a), want, line);
    tb_text_stream_begin(&t, enc, tb_slice_str(charset));
    for (size_t i = 0; i < in.len; i++)
        tb_text_stream_put(&t, tb_slice(in.ptr + i, 1), &b);
    tb_text_stream_end(&t, &b);
    assert_slice_at(tb_buf_all(&b), want, line);
    tb_buf_free(&a);
    tb_buf_free(&b);
}
#define decode(enc, charset, in, want) decode_at(__LINE__, enc, charset, TB_SLICE(in), want)

static void test_base64(void **state)
{
    (void)state;
    decode(TB_ENC_BASE64, "us-ascii", "", "");
    decode(TB_ENC_BASE64, "us-ascii", "Zg==", "f");
    decode(TB_ENC_BASE64, "us-ascii", "Zm8=", "fo");
    decode(TB_ENC_BASE64, "us-ascii", "Zm9v\r\nYmFy\r\n", "foobar");
    decode(TB_ENC_BASE64, "us-ascii", "Zm9", "fo");
    decode(TB_ENC_BASE64, "us-ascii", "Z", "");          /* M24 */
    decode(TB_ENC_BASE64, "us-ascii", "Z!m*9 v", "foo"); /* M23 */
    decode(TB_ENC_BASE64, "us-ascii", "Zg==Zm8=", "ffo");
    decode(TB_ENC_BASE64, "us-ascii", "=Zm9v", "foo");
    decode(TB_ENC_BASE64, "utf-8", "w6k=", "\xc3\xa9");
}

static void test_qp(void **state)
{
    (void)state;
    decode(TB_ENC_QP, "us-ascii", "a=3Db=\r\nc=\nd", "a=bcd");
    decode(TB_ENC_QP, "utf-8", "=C3=A9=c3=a9", "\xc3\xa9\xc3\xa9");
    decode(TB_ENC_QP, "us-ascii", "=", "="); /* M25 */
    decode(TB_ENC_QP, "us-ascii", "=X", "=X");
    decode(TB_ENC_QP, "us-ascii", "=4", "=4");
    decode(TB_ENC_QP, "us-ascii", "=4=41", "=4A");
    decode(TB_ENC_QP, "us-ascii", "==41", "=A");
    decode(TB_ENC_QP, "us-ascii", "a=\r", "a");
    decode(TB_ENC_QP, "us-ascii", "a=\r\n", "a"); /* M26 */
    decode(TB_ENC_QP, "us-ascii", "a=\rb", "ab");
}

/* Without a charset: the bytes as they were, at once and byte by byte. */
static void test_transfer(void **state)
{
    static const struct {
        enum tb_encoding encoding;
        struct tb_slice in, want;
    } cases[] = {{TB_ENC_BASE64, {"AAEC\r\nA/8=", 10}, {"\0\1\2\3\xff", 5}},
                 {TB_ENC_BASE64, {"", 0}, {"", 0}},
                 {TB_ENC_QP, {"=00=e4=\r\n=", 10}, {"\0\xe4=", 3}},
                 {TB_ENC_8BIT, {"\xe4\0\n", 3}, {"\xe4\0\n", 3}},
                 {TB_ENC_UNKNOWN, {"=41", 3}, {"=41", 3}}};
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(cases); i++) {
        for (size_t step = 1; step <= 11; step += 10) {
            struct tb_transfer *t = tb_transfer_new(cases[i].encoding);
            struct tb_buf out;
            assert_non_null(t);
            tb_buf_init(&out, 64);
            for (size_t at = 0; at < cases[i].in.len; at += step)
                tb_transfer_put(t, tb_slice_sub(cases[i].in, at, step), &out);
            tb_transfer_end(t, &out);
            assert_int_equal(out.len, cases[i].want.len);
            if (out.len > 0)
                assert_memory_equal(out.ptr, cases[i].want.ptr, out.len);
            tb_buf_free(&out);
            tb_transfer_free(t);
        }
    }
}

static void test_charsets(void **state)
{
    (void)state;
    decode(TB_ENC_8BIT, "UTF-8", "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    decode(TB_ENC_8BIT, "utf-8", "\xc3", BAD); /* M41 */
    decode(TB_ENC_8BIT, "utf-8",
           "\xe2\x82"
           "a",
           BAD BAD "a");
    decode(TB_ENC_8BIT, "utf-8", "\xc0\xaf\xed\xa0\x80\xf8\x88\x80\x80\x80",
           BAD BAD BAD BAD BAD BAD BAD BAD BAD BAD); /* M42 */
    decode(TB_ENC_8BIT, "iso-8859-1", "\xe9\x80", "\xc3\xa9\xe2\x82\xac");
    decode(TB_ENC_8BIT, "ISO-8859-2", "\xb1", "\xc4\x85");
    decode(TB_ENC_8BIT, "windows-1251", "\xcf\xf0", "\xd0\x9f\xd1\x80");
    decode(TB_ENC_8BIT, "shift_jis", "\x83\x65\x83\x58", "\xe3\x83\x86\xe3\x82\xb9");
    decode(TB_ENC_8BIT, "gb2312", "\xc4\xe3\xba\xc3", "\xe4\xbd\xa0\xe5\xa5\xbd");
    decode(TB_ENC_8BIT, "gb2312", "\xc4", BAD);
    decode(TB_ENC_8BIT, "iso-2022-jp", "\x1b$B%F%9%H\x1b(B.", "\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88.");
    decode(TB_ENC_8BIT, "iso-2022-jp", "\x1b$B%", BAD); /* M66 */
    decode(TB_ENC_8BIT, "utf-7", "a+AOk-b",
           "a\xc3\xa9"
           "b");
    decode(TB_ENC_8BIT, "utf-16be", "\0a\0b", "ab");
    decode(TB_ENC_8BIT, "x-none", "a\xe9", "a" BAD);
    decode(TB_ENC_8BIT, "", "caf\xc3\xa9", "caf\xc3\xa9");
    assert_true(tb_charset_known(TB_SLICE("Utf-8")));
    assert_false(tb_charset_known(TB_SLICE("UTF-8//IGNORE")));
    assert_false(tb_charset_known(TB_SLICE("")));
    assert_false(tb_charset_known(TB_SLICE("ebcdic-us")));
}

/* Every name on the list is one that iconv here can do. */
static void test_list(void **state)
{
    (void)state;
    static const char *const names[] = {"iso-8859-16", "koi8-u",      "macintosh",     "gb18030",     "big5",
                                        "euc-tw",      "euc-jp",      "iso-2022-jp-1", "cp949",       "iso-2022-kr",
                                        "tis-620",     "windows-874", "viscii",        "armscii-8",   "georgian-ps",
                                        "utf-32",      "cp437",       "ibm866",        "windows-1258"};
    for (size_t i = 0; i < TB_ARRAY_LEN(names); i++) {
        struct tb_text_stream t;
        struct tb_buf b;
        tb_buf_init(&b, 64);
        tb_text_stream_begin(&t, TB_ENC_8BIT, tb_slice_str(names[i]));
        assert_non_null(t.charset);
        assert_true(t.cd_open);
        tb_text_stream_end(&t, &b);
        tb_buf_free(&b);
    }
}

static void test_limit(void **state)
{
    (void)state;
    struct tb_buf b;
    char big[10000];
    memset(big, 'a', sizeof(big));
    tb_buf_init(&b, 5000);
    tb_text_decode(TB_ENC_QP, TB_SLICE("utf-8"), tb_slice(big, sizeof(big)), &b);
    assert_true(b.len <= 5000);
    assert_true(b.failed);
    tb_buf_free(&b);
}

static void fold(const char *in, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 1 << 16);
    tb_text_fold(tb_slice_str(in), &b);
    assert_slice(tb_buf_all(&b), want);
    tb_buf_free(&b);
}

static void casemap(const char *in, const char *want)
{
    struct tb_buf b;
    tb_buf_init(&b, 4096);
    tb_text_casemap(tb_slice_str(in), &b);
    assert_slice(tb_buf_all(&b), want);
    tb_buf_free(&b);
}

/* RFC 5051 2: titlecase, then decomposition; the sharp s has no titlecase of its own, and dotless i is an I. */
static void test_casemap(void **state)
{
    (void)state;
    casemap("", "");
    casemap("a_Z[1", "A_Z[1");
    casemap("\xc3\xa4pfel", "A\xcc\x88PFEL");
    casemap("\xc3\x9f", "\xc3\x9f");
    casemap("\xc4\xb1", "I");
    casemap("\xc7\x86", "Dz\xcc\x8c");    /* U+01C6, one letter: titlecase U+01C5, then D and z with caron ... */
    casemap("\xef\xac\x81", "fi");        /* a ligature is decomposed, not titlecased */
    casemap("\xe2\x84\xab", "A\xcc\x8a"); /* the Angstrom sign is decomposed twice */
    casemap("x\xff", "X\xef\xbf\xbd");
}

/* What the collation takes for equal, the folding of SEARCH does too: no character shows otherwise. */
static void test_casemap_folds(void **state)
{
    (void)state;
    struct tb_buf mapped, folded, twice;
    tb_buf_init(&mapped, 4096);
    tb_buf_init(&folded, 4096);
    tb_buf_init(&twice, 4096);
    for (uint32_t cp = 1; cp < 0x110000; cp++) {
        char s[4];
        size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
        if (cp >= 0xd800 && cp < 0xe000)
            continue;
        for (size_t i = n - 1, left = cp; n > 1 && i > 0; i--, left >>= 6)
            s[i] = (char)(0x80 | (left & 0x3f));
        s[0] = n == 1 ? (char)cp : (char)((0xf00 >> n & 0xff) | cp >> 6 * (n - 1));
        mapped.len = folded.len = twice.len = 0;
        tb_text_casemap(tb_slice(s, n), &mapped);
        tb_text_fold(tb_slice(s, n), &folded);
        tb_text_fold(tb_buf_all(&mapped), &twice);
        if (!tb_slice_eq(tb_buf_all(&folded), tb_buf_all(&twice)))
            fail_msg("U+%04X folds otherwise than its collation", cp);
    }
    tb_buf_free(&mapped);
    tb_buf_free(&folded);
    tb_buf_free(&twice);
}

static void test_fold(void **state)
{
    (void)state;
    fold("", "");
    fold("Hello World", "hello world");
    fold("\xc3\x89", "e\xcc\x81");  /* E acute, precomposed ... */
    fold("e\xcc\x81", "e\xcc\x81"); /* ... and decomposed */
    fold("Stra\xc3\x9f"
         "e",
         "strasse");
    fold("\xce\xa3\xcf\x82", "\xcf\x83\xcf\x83"); /* capital and final sigma */
    fold("\xd0\x96", "\xd0\xb6");
    fold("\xef\xac\x81", "fi"); /* the ligature */
    fold("a\xff"
         "B",
         "a" BAD "b");
}

static void test_utf8(void **state)
{
    (void)state;
    struct tb_buf b;
    assert_true(tb_utf8_valid(TB_SLICE("abc\xc3\xa9\xf4\x8f\xbf\xbf")));
    assert_true(tb_utf8_valid(TB_SLICE("")));
    assert_false(tb_utf8_valid(TB_SLICE("abcdefgh\xff")));
    assert_false(tb_utf8_valid(TB_SLICE("\xc3")));
    assert_false(tb_utf8_valid(TB_SLICE("\xc1\x81")));
    assert_false(tb_utf8_valid(TB_SLICE("\xe0\x80\x80")));
    assert_false(tb_utf8_valid(TB_SLICE("\xed\xa0\x80")));
    assert_false(tb_utf8_valid(TB_SLICE("\xf4\x90\x80\x80")));
    assert_false(tb_utf8_valid(TB_SLICE("\x80")));
    tb_buf_init(&b, 100);
    assert_true(tb_utf8_nfc(TB_SLICE("Cafe\xcc\x81"), &b));
    assert_slice(tb_buf_all(&b), "Caf\xc3\xa9");
    assert_false(tb_utf8_nfc(TB_SLICE("\xff"), &b));
    b.len = 0;
    assert_true(tb_utf8_nfc(TB_SLICE(""), &b));
    assert_int_equal(b.len, 0);
    tb_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base64),   cmocka_unit_test(test_qp),
        cmocka_unit_test(test_charsets), cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_list),     cmocka_unit_test(test_limit),
        cmocka_unit_test(test_casemap),  cmocka_unit_test(test_casemap_folds),
        cmocka_unit_test(test_fold),     cmocka_unit_test(test_utf8),
    };
    (void)setup_scanner;
    (void)free_scanner;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
