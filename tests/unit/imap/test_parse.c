/*
 * test_parse.c: the grammar: commands that are good, commands that are bad, every prefix of the good ones, and what the
 * arguments become.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "frontends/imap/imap_fetch.h"

static struct tb_arena arena;

/* parse: from a heap copy of exactly the text's size, so that a read past its end is seen by the sanitizer. */
static bool parse_len(const char *text, size_t len, struct imap_cmd *cmd, const char **error)
{
    struct imap_parser p;
    char *copy = malloc(len + 1);
    memcpy(copy, text, len);
    char *exact = realloc(copy, len ? len : 1);
    tb_arena_reset(&arena);
    imap_parser_init(&p, tb_slice(exact, len), &arena);
    bool ok = imap_parse_command(&p, cmd);
    *error = p.error;
    assert_true(ok != p.failed);
    assert_true(ok || p.error != NULL);
    free(exact);
    return ok;
}

static bool parse(const char *text, struct imap_cmd *cmd)
{
    const char *error;
    return parse_len(text, strlen(text), cmd, &error);
}

static const char *const good[] = {
    /* RFC 3501's own examples */
    "a001 login mrc secret\r\n",
    "a002 select inbox\r\n",
    "a003 fetch 12 full\r\n",
    "a004 fetch 12 body[header]\r\n",
    "a005 store 12 +flags \\deleted\r\n",
    "a006 logout\r\n",
    "abcd CAPABILITY\r\n",
    "a002 NOOP\r\n",
    "a001 STARTTLS\r\n",
    "a001 LOGIN SMITH SESAME\r\n",
    "A932 EXAMINE blurdybloop\r\n",
    "A003 CREATE owatagusiam/\r\n",
    "A683 DELETE blurdybloop\r\n",
    "A683 RENAME blurdybloop sarasoop\r\n",
    "A002 SUBSCRIBE #news.comp.mail.mime\r\n",
    "A002 UNSUBSCRIBE #news.comp.mail.mime\r\n",
    "A101 LIST \"\" \"\"\r\n",
    "A102 LIST #news.comp.mail.misc \"\"\r\n",
    "A202 LIST ~/Mail/ %\r\n",
    "A002 LSUB \"#news.\" \"comp.mail.*\"\r\n",
    "A042 STATUS blurdybloop (UIDNEXT MESSAGES)\r\n",
    "FXXZ CHECK\r\n",
    "A341 CLOSE\r\n",
    "A202 EXPUNGE\r\n",
    "A282 SEARCH FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"\r\n",
    "A283 SEARCH TEXT \"string not in mailbox\"\r\n",
    "A284 SEARCH CHARSET UTF-8 TEXT {6}\r\nXXXXXX\r\n",
    "A654 FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])\r\n",
    "A003 STORE 2:4 +FLAGS (\\Deleted)\r\n",
    "A003 COPY 2:4 MEETING\r\n",
    "A999 UID FETCH 4827313:4828442 FLAGS\r\n",
    "A001 LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man\r\n",
    /* others */
    "a UID STORE 1:* -FLAGS.SILENT ($Junk \\Seen work)\r\n",
    "a STORE 1 FLAGS ()\r\n",
    "a STORE 1 FLAGS \\Seen \\Draft x\r\n",
    "a UID EXPUNGE 3000:3002\r\n",
    "a UID MOVE 42:69 foo\r\n",
    "a MOVE 1 \"foo bar\"\r\n",
    "a UNSELECT\r\n",
    "a IDLE\r\n",
    "a NAMESPACE\r\n",
    "a ID NIL\r\n",
    "a ID (\"name\" \"sodr\" \"version\" \"19.34\" \"vendor\" NIL)\r\n",
    "a ID ()\r\n",
    "a AUTHENTICATE PLAIN\r\n",
    "a AUTHENTICATE PLAIN =\r\n",
    "a AUTHENTICATE PLAIN AHRlc3QAdGVzdA==\r\n",
    "a LIST (SPECIAL-USE) \"\" \"*\"\r\n",
    "a LIST \"\" \"*\" RETURN (SPECIAL-USE)\r\n",
    "a LIST () \"\" % RETURN ()\r\n",
    "a LOGIN \"a\\\"b\" \"c\\\\d\"\r\n",
    "a LOGIN \"\" \"\"\r\n",
    "a LOGIN a] b\r\n",
    "a SELECT {5}\r\nINBOX\r\n",
    "a FETCH 1,3:5,*:7 (UID RFC822 RFC822.HEADER RFC822.TEXT INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE)\r\n",
    "a FETCH 1 (BODY.PEEK[1.2.MIME]<0.100> BODY[] BODY[TEXT] BODY[3.HEADER.FIELDS.NOT (a \"b c\")])\r\n",
    "a FETCH 1 body[4.text]\r\n",
    "a SEARCH OR (1:3 UNSEEN) NOT (OR DRAFT UID 5:*) HEADER X-Y \"\" KEYWORD k UNKEYWORD $l\r\n",
    "a SEARCH BCC a BODY b CC c FROM d SUBJECT e TEXT f TO g LARGER 5 SMALLER 4294967295 ON \"1-Jan-2020\" "
    "BEFORE 31-dec-1999 SENTBEFORE 29-Feb-2024 SENTON 1-Jan-2020 SENTSINCE 1-Jan-2020 NEW OLD RECENT ALL ANSWERED "
    "DELETED FLAGGED SEEN UNANSWERED UNDELETED UNDRAFT UNFLAGGED\r\n",
    "a UID SEARCH CHARSET us-ascii ALL\r\n",
    "a SEARCH SINCE 1-Jan-0001 BEFORE 29-Feb-1896\r\n",
};

static const char *const bad[] = {
    "\r\n",
    "a\r\n",
    "a \r\n",
    "* NOOP\r\n",
    "+ NOOP\r\n",
    " a NOOP\r\n",
    "a  NOOP\r\n",
    "a NOOP \r\n",
    "a NOOP x\r\n",
    "a NOOP\n",
    "a NOOP",
    "a(b NOOP\r\n",
    "a\x80 NOOP\r\n",
    "a NO\x80P\r\n",
    "a NOOPS\r\n",
    "a UID NOOP\r\n",
    "a UID\r\n",
    "a UID  FETCH 1 UID\r\n",
    "a LOGIN x\r\n",
    "a LOGIN x \r\n",
    "a LOGIN x y z\r\n",
    "a LOGIN x  y\r\n",
    "a LOGIN \"x y\r\n",
    "a LOGIN x \"a\\x\"\r\n",
    "a LOGIN x \"a\rb\"\r\n",
    "a LOGIN x \"a\nb\"\r\n",
    "a LOGIN x y(\r\n",
    "a LOGIN (x y)\r\n",
    "a LOGIN x \"\xff\"\r\n",
    "a LOGIN {3}\r\nab\r\n",
    "a LOGIN {-1}\r\n",
    "a LOGIN {}\r\n",
    "a LOGIN {1}\r\nxx y\r\n",
    "a LOGIN {1}\r\nx{1}\r\ny\r\n",
    "a LOGIN ~{1}\r\nx y\r\n",
    "a SELECT\r\n",
    "a SELECT \"\"\r\n",
    "a SELECT a*b\r\n",
    "a SELECT \xc3\xa9\r\n",
    "a SELECT \"\xc3\xff\"\r\n",
    "a SELECT {2}\r\n\xff\xa9\r\n",
    "a STATUS x\r\n",
    "a STATUS x ()\r\n",
    "a STATUS x (FOO)\r\n",
    "a STATUS x (MESSAGES MESSAGES\r\n",
    "a FETCH 0 UID\r\n",
    "a FETCH 1:0 UID\r\n",
    "a FETCH 4294967296 UID\r\n",
    "a FETCH 1,,2 UID\r\n",
    "a FETCH -1 UID\r\n",
    "a FETCH *:*:* UID\r\n",
    "a FETCH 1, UID\r\n",
    "a FETCH ,1 UID\r\n",
    "a FETCH 1: UID\r\n",
    "a FETCH 01 UID\r\n",
    "a FETCH 1\r\n",
    "a FETCH 1 ()\r\n",
    "a FETCH 1 (FLAGS\r\n",
    "a FETCH 1 (FLAGS))\r\n",
    "a FETCH 1 (ALL)\r\n",
    "a FETCH 1 FOO\r\n",
    "a FETCH 1 FLAGS UID\r\n",
    "a FETCH 1 BODY[0]\r\n",
    "a FETCH 1 BODY[1.0]\r\n",
    "a FETCH 1 BODY[MIME]\r\n",
    "a FETCH 1 BODY[1.]\r\n",
    "a FETCH 1 BODY[.1]\r\n",
    "a FETCH 1 BODY[]<5.0>\r\n",
    "a FETCH 1 BODY[]<5>\r\n",
    "a FETCH 1 BODY[]<.1>\r\n",
    "a FETCH 1 BODY[\r\n",
    "a FETCH 1 BODY[HEADER.FIELDS ()]\r\n",
    "a FETCH 1 BODY[HEADER.FIELDS]\r\n",
    "a FETCH 1 BODY[HEADER.FIELDS (a]\r\n",
    "a FETCH 1 BODY[FOO]\r\n",
    "a FETCH 1 BODY.PEEK\r\n",
    "a FETCH 1 BODY[HEADER.FIELDS (\"\")]\r\n",
    "a FETCH 1 RFC822[]\r\n",
    "a STORE 1 FLAGS\r\n",
    "a STORE 1 +FLAGS (\\Foo)\r\n",
    "a STORE 1 FLAGS (\\Recent)\r\n",
    "a STORE 1 *FLAGS (x)\r\n",
    "a STORE 1 FLAGS.LOUD (x)\r\n",
    "a STORE 1 FLAGS (x\r\n",
    "a STORE 1 FLAGS (x  y)\r\n",
    "a STORE 1 FLAGS (x]y)\r\n",
    "a STORE 1 FLAGS \r\n",
    "a SEARCH\r\n",
    "a SEARCH FOO\r\n",
    "a SEARCH ()\r\n",
    "a SEARCH (ALL\r\n",
    "a SEARCH ALL)\r\n",
    "a SEARCH NOT\r\n",
    "a SEARCH OR ALL\r\n",
    "a SEARCH SINCE 31-Feb-2026\r\n",
    "a SEARCH SINCE 1-Foo-2026\r\n",
    "a SEARCH SINCE 31-Feb-1800\r\n",
    "a SEARCH SINCE 1-Feb-26\r\n",
    "a SEARCH SINCE \"1-Feb-2026\r\n",
    "a SEARCH LARGER -1\r\n",
    "a SEARCH LARGER 4294967296\r\n",
    "a SEARCH HEADER x\r\n",
    "a SEARCH KEYWORD \\Seen\r\n",
    "a SEARCH CHARSET UTF-8\r\n",
    "a SEARCH ALL CHARSET UTF-8\r\n",
    "a SEARCH ALL \r\n",
    "a ID\r\n",
    "a ID (\"x\")\r\n",
    "a ID (\"x\" y)\r\n",
    "a ID (\"x\" NIL\r\n",
    "a ID x\r\n",
    "a ID (\"1234567890123456789012345678901\" NIL)\r\n",
    "a LIST \"\"\r\n",
    "a LIST (FOO) \"\" *\r\n",
    "a LIST \"\" * RETURN\r\n",
    "a LIST \"\" * RETURN (FOO)\r\n",
    "a LIST \"\" * (SPECIAL-USE)\r\n",
    "a COPY 1\r\n",
    "a COPY x y\r\n",
    "a UID EXPUNGE\r\n",
    "a AUTHENTICATE\r\n",
    "a AUTHENTICATE PLAIN x y\r\n",
    "a APPEND\r\n",
    "a APPEND x\r\n",
    "a APPEND x {5\r\n",
    "a APPEND x y\r\n",
    "a APPEND x (\\Seen)\r\n",
};

static void test_good(void **state)
{
    struct imap_cmd cmd;
    const char *error;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(good); i++) {
        if (!parse_len(good[i], strlen(good[i]), &cmd, &error))
            fail_msg("refused: %s%s", good[i], error);
        assert_true(cmd.tag.len > 0 && cmd.verb != NULL);
    }
}

static void test_bad(void **state)
{
    struct imap_cmd cmd;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(bad); i++) {
        if (parse(bad[i], &cmd))
            fail_msg("accepted: %s", bad[i]);
    }
}

static void test_prefixes(void **state)
{
    struct imap_cmd cmd;
    const char *error;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(good); i++) {
        for (size_t n = 0; n < strlen(good[i]); n++)
            assert_false(parse_len(good[i], n, &cmd, &error));
    }
}

static void expect_error(const char *text, const char *begin)
{
    struct imap_cmd cmd;
    const char *error;
    assert_false(parse_len(text, strlen(text), &cmd, &error));
    assert_memory_equal(error, begin, strlen(begin));
}

static void test_codes(void **state)
{
    (void)state;
    expect_error("a CREATE &AC8-\r\n", "NO [CANNOT]");
    expect_error("a CREATE &\r\n", "NO [CANNOT]");
    expect_error("a CREATE \"\"\r\n", "NO [CANNOT]");
    expect_error("a SEARCH CHARSET X-NONE ALL\r\n", "NO [BADCHARSET (US-ASCII UTF-8)]");
    expect_error("a SEARCH TEXT {2}\r\n\xff\xfe\r\n", "NO [BADCHARSET");
    expect_error("a LOGIN x \xc3\r\n", "BAD");
    expect_error("a FOO\r\n", "BAD Unknown command");
    struct imap_cmd cmd;
    const char *error;
    assert_false(parse_len("a LOGIN x \"a\0b\"\r\n", 17, &cmd, &error));
    assert_false(parse_len("a LOGIN {2}\r\na\0 b\r\n", 19, &cmd, &error));
    assert_false(parse_len("a NO\0OP\r\n", 9, &cmd, &error));
}

/* repeated: head, n times unit, tail. */
static bool repeated(const char *head, const char *unit, size_t n, const char *tail, const char **error)
{
    struct tb_buf b;
    struct imap_cmd cmd;
    tb_buf_init(&b, 1 << 20);
    tb_buf_str(&b, head);
    for (size_t i = 0; i < n; i++)
        tb_buf_str(&b, unit);
    tb_buf_str(&b, tail);
    bool ok = parse_len(b.ptr, b.len, &cmd, error);
    tb_buf_free(&b);
    return ok;
}

static void test_limits(void **state)
{
    const char *error;
    (void)state;
    assert_true(repeated("a SEARCH ((((((((((((((((((((ALL", ")", 20, "\r\n", &error));
    assert_false(repeated("a SEARCH ((((((((((((((((((((ALL", ")", 21, "\r\n", &error));
    assert_false(repeated("a SEARCH ", "(", 200, "ALL\r\n", &error)); /* I32 */
    assert_string_equal(error, "BAD Nested too deeply");
    assert_true(repeated("a SEARCH ", "NOT ", 90, "ALL\r\n", &error));
    assert_false(repeated("a SEARCH ", "NOT ", 5000, "ALL\r\n", &error));
    assert_string_equal(error, "BAD Nested too deeply");
    assert_false(repeated("a SEARCH ", "OR ALL ", 5000, "ALL ALL\r\n", &error));
    assert_string_equal(error, "BAD Nested too deeply");
    assert_false(repeated("a SEARCH ", "ALL ", 100000, "ALL\r\n", &error)); /* I33 */
    assert_memory_equal(error, "NO [LIMIT]", 10);
    assert_false(repeated("a SEARCH TEXT ", "x", 500000, "\r\n", &error)); /* I35 */
    assert_memory_equal(error, "NO [LIMIT]", 10);
    assert_true(repeated("a FETCH 1", ",5", 100000, " FLAGS\r\n", &error)); /* I39 */
    assert_true(repeated("a FETCH 1 BODY[1", ".1", 500, "]\r\n", &error));  /* I41: NIL */
    assert_false(repeated("a ", "(", 10000, "\r\n", &error));               /* I31 */
    assert_false(repeated("a ", ")", 10000, "\r\n", &error));
    assert_false(repeated("a STORE 1 FLAGS (x", " k", 5000, ")\r\n", &error));
    assert_memory_equal(error, "NO [LIMIT]", 10);
    assert_false(repeated("a FETCH 1 (UID", " BODY[1]", 300, ")\r\n", &error));
    assert_memory_equal(error, "NO [LIMIT]", 10);
    assert_false(repeated("a ID (\"a\" NIL", " \"a\" NIL", 30, ")\r\n", &error)); /* I70: 31 pairs */
    assert_true(repeated("a ID (\"a\" NIL", " \"a\" NIL", 29, ")\r\n", &error));
    assert_false(repeated("a ID (\"a\" \"", "x", 1025, "\")\r\n", &error));
    assert_false(repeated("", "t", 256, " NOOP\r\n", &error));
}

static void test_arguments(void **state)
{
    struct imap_cmd cmd;
    (void)state;
    assert_true(parse("x7 uid fetch 5:*,3 (flags body.peek[1.header.fields (From \"a b\")]<7.9>)\r\n", &cmd));
    assert_string_equal(cmd.verb->name, "UID FETCH");
    assert_true(tb_slice_eq(tb_slice(cmd.tag.ptr, 0), TB_SLICE("")));
    const struct imap_fetch *f = cmd.args;
    assert_int_equal(f->set.n, 2);
    assert_int_equal(f->set.v[0].first, 5);
    assert_int_equal(f->set.v[0].last, 0);
    assert_int_equal(f->set.v[1].first, 3);
    assert_int_equal(f->kinds_n, 2); /* UID comes with UID FETCH */
    assert_int_equal(f->sections_n, 1);
    const struct imap_section *x = &f->sections[0];
    assert_true(tb_slice_eq(x->label, TB_SLICE("BODY[1.HEADER.FIELDS (From \"a b\")]<7>")));
    assert_true(x->peek && x->partial && x->offset == 7 && x->count == 9 && x->fields_n == 2 && x->path_n == 1);
    assert_false(f->sets_seen);
    assert_true(parse("a create Inbox/x/\r\n", &cmd));
    assert_true(tb_slice_eq(*(const struct tb_slice *)cmd.args, TB_SLICE("INBOX/x")));
}

static void test_append_head(void **state)
{
    static const struct {
        const char *text;
        enum imap_append_head want;
    } cases[] = {
        {"A003 APPEND saved-messages (\\Seen) {310}\r\n", APPEND_MESSAGE},
        {"a append {5+}\r\n", APPEND_OTHER},
        {"a append {5}\r\nINBOX {3+}\r\n", APPEND_MESSAGE},
        {"a append x (\\Seen $x) \"17-Jul-1996 02:44:25 -0700\" {5}\r\n", APPEND_MESSAGE},
        {"a append x \" 7-Jul-1996 02:44:25 -0700\" {5}\r\n", APPEND_MESSAGE},
        {"a append x (\\Recent) {5}\r\n", APPEND_BAD},
        {"a append x \"99-Foo-2026 00:00:00 +0000\" {5}\r\n", APPEND_BAD},
        {"a append x \"31-Feb-2026 00:00:00 +0000\" {5}\r\n", APPEND_BAD},
        {"a append x ~{5}\r\n", APPEND_MESSAGE},
        {"a append x ~x{5}\r\n", APPEND_BAD},
        {"a append x  {5}\r\n", APPEND_BAD},
        {"a append x UTF8 (~{5}\r\n", APPEND_MESSAGE},
        {"a append x UTF8 ({5}\r\n", APPEND_BAD},
        {"a append x CATENATE (TEXT {5}\r\n", APPEND_MESSAGE},
        {"a append x (\\Seen) Catenate (Url /x/;UID=1 URL \"y\" text ~{5+}\r\n", APPEND_MESSAGE},
        {"a append x CATENATE (URL {5}\r\n", APPEND_OTHER},
        {"a append x CATENATE (URL {5}\r\n/x/y/ TEXT {1}\r\n", APPEND_MESSAGE},
        {"a append x CATENATE (URL {5}\r\n/x/y/ {1}\r\n", APPEND_BAD},
        {"a append x CATENATE ({5}\r\n", APPEND_BAD},
        {"a append x CATENATE {5}\r\n", APPEND_BAD},
        {"a append x CATENATE (URL x) {5}\r\n", APPEND_MESSAGE},
        {"a append x CATENATE (URL x) CATENATE (TEXT {5}\r\n", APPEND_MESSAGE},
        {"a replace 4 Drafts (\\Seen \\Draft) {312}\r\n", APPEND_MESSAGE},
        {"a uid replace * Drafts CATENATE (TEXT {71}\r\n", APPEND_MESSAGE},
        {"a replace 4 {5}\r\n", APPEND_OTHER},
        {"a replace 4:5 x {5}\r\n", APPEND_BAD},
        {"a replace x x {5}\r\n", APPEND_BAD},
        {"a replace 4 x CATENATE (URL y) {5}\r\n", APPEND_BAD},
        {"a uid append x {5}\r\n", APPEND_OTHER},
        {"a login {5}\r\n", APPEND_OTHER},
        {"a {5}\r\n", APPEND_OTHER},
        {"{5}\r\n", APPEND_OTHER},
    };
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(cases); i++) {
        struct imap_parser p;
        struct imap_cmd cmd;
        tb_arena_reset(&arena);
        imap_parser_init(&p, tb_slice_str(cases[i].text), &arena);
        if (imap_append_head(&p, &cmd) != cases[i].want)
            fail_msg("wrong: %s", cases[i].text);
    }
    struct imap_parser p;
    struct imap_cmd cmd;
    tb_arena_reset(&arena);
    imap_parser_init(&p, tb_slice_str(cases[3].text), &arena);
    assert_int_equal(imap_append_head(&p, &cmd), APPEND_MESSAGE);
    const struct imap_append_args *a = cmd.args;
    const struct imap_append_step *x = a->first;
    assert_int_equal(x->what, APPEND_NEXT);
    assert_int_equal(x->internaldate, 837596665);
    assert_int_equal(x->flags.flags, TB_FLAG_SEEN);
    assert_int_equal(x->flags.keywords_n, 1);
    assert_int_equal(x->next->what, APPEND_BYTES);
    assert_null(x->next->next);
}

/* steps: of a text, a letter each: next, url, bytes, end; "-" if it is bad, "?" if a literal is not there yet. */
static const char *steps(const char *text, uint8_t *where, bool single)
{
    static char out[64];
    struct imap_parser p;
    size_t n = 0;
    tb_arena_reset(&arena);
    imap_parser_init(&p, tb_slice_str(text), &arena);
    const struct imap_append_step *x = imap_append_more(&p, where, single);
    for (; x && n < sizeof out - 1; x = x->next)
        out[n++] = "nube"[x->what];
    out[n] = '\0';
    return p.cut ? "?" : p.failed ? "-" : out;
}

static void test_append_more(void **state)
{
    uint8_t where = 0;
    (void)state;
    assert_string_equal(steps(" {3}\r\n", &where, false), "nb");
    uint8_t message = where;
    assert_string_equal(steps(" (\\Seen) \" 7-Feb-1994 22:43:04 -0800\" {295}\r\n", &where, false), "nb");
    assert_string_equal(steps(" CATENATE (URL a URL b TEXT {1}\r\n", &where, false), "nuub");
    assert_string_equal(steps(" TEXT {1}\r\n", &where, false), "b");
    assert_string_equal(steps(" URL c) CATENATE (URL d) {1}\r\n", &where, false), "ununb");
    assert_string_equal(steps(" UTF8 (~{1}\r\n", &where, false), "nb");
    assert_string_equal(steps(")\r\n", &where, false), "e");
    assert_int_equal(where, message);
    assert_string_equal(steps("\r\n", &where, true), "e");
    assert_string_equal(steps(" CATENATE (URL {3}\r\n", &where, false), "?");
    static const char *const wrong[] = {" \r\n",
                                        "x\r\n",
                                        "{3}\r\n",
                                        "  {3}\r\n",
                                        " (\\Recent) {3}\r\n",
                                        " CATENATE ()\r\n",
                                        " CATENATE (URL a\r\n",
                                        " CATENATE (URL a) \r\n",
                                        ")\r\n",
                                        ""};
    for (size_t i = 0; i < TB_ARRAY_LEN(wrong); i++) {
        where = message;
        assert_string_equal(steps(wrong[i], &where, false), "-");
    }
    where = message;
    assert_string_equal(steps(" {3}\r\n", &where, true), "-"); /* REPLACE has one message */
}

static bool url(const char *text, const char *base, struct imap_url *out)
{
    tb_arena_reset(&arena);
    return imap_url_parse(tb_slice_str(text), tb_slice_str(base), &arena, out);
}

static void test_urls(void **state)
{
    static const char *const wrong[] = {"",
                                        "/",
                                        "/x",
                                        "/x;UIDVALIDITY=1",
                                        "/x/;UID=",
                                        "/x/;UID=0",
                                        "/x/;UID=1x",
                                        "/x;UIDVALIDITY=0/;UID=1",
                                        "/x;UIDVALIDITY=1;UID=1",
                                        "/x/;UID=1/;SECTION=",
                                        "/x/;UID=1/;SECTION=FOO",
                                        "/x/;UID=1/;SECTION=1]",
                                        "/x/;UID=1/;PARTIAL=",
                                        "/x/;UID=1/;PARTIAL=1.0",
                                        "/x/;UID=4294967296",
                                        "/%zz/;UID=1",
                                        "/%/;UID=1",
                                        "/%00/;UID=1",
                                        "/%ff/;UID=1",
                                        "/x/;UID=1;URLAUTH=a:internal:0",
                                        "http://x/;UID=1",
                                        "imap://host/x"};
    struct imap_url u;
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(wrong); i++)
        if (url(wrong[i], "base", &u))
            fail_msg("taken: %s", wrong[i]);
    assert_true(url("/Drafts;UIDVALIDITY=385759045/;UID=20/;section=1.MIME", "", &u));
    assert_true(tb_slice_eq(u.mailbox, TB_SLICE("Drafts")));
    assert_int_equal(u.uidvalidity, 385759045);
    assert_int_equal(u.uid, 20);
    assert_int_equal(u.section->kind, SECTION_MIME);
    assert_true(url("imap:///a%20b/%C3%A4&/;UID=1/;PARTIAL=7", "", &u));
    assert_true(tb_slice_eq(u.mailbox, TB_SLICE("a b/\xc3\xa4&")));
    assert_true(u.section->partial && u.section->offset == 7 && u.section->kind == SECTION_ALL);
    assert_true(url(";UID=3", "A/B", &u) && u.mailbox.len == 0 && u.section == NULL);
    assert_true(url("/;UID=3", "A/B", &u) && u.mailbox.len == 0);
    assert_false(url(";UID=3", "", &u));
    assert_true(url("C/;UID=3", "A/B", &u) && tb_slice_eq(u.mailbox, TB_SLICE("A/C")));
    assert_true(url("/C/;UID=3", "A/B", &u) && tb_slice_eq(u.mailbox, TB_SLICE("C")));
    assert_true(url("inbox/;UID=3/;SECTION=2/;PARTIAL=1.9", "", &u) && tb_slice_eq(u.mailbox, TB_SLICE("INBOX")));
    assert_true(u.section->path_n == 1 && u.section->path[0] == 2 && u.section->count == 9);
}

static void test_verbs_sorted(void **state)
{
    static const char *const names[] = {
        "APPEND",      "AUTHENTICATE", "CAPABILITY", "CHECK",      "CLOSE",     "COPY",      "CREATE",
        "DELETE",      "EXAMINE",      "EXPUNGE",    "FETCH",      "ID",        "IDLE",      "LIST",
        "LOGIN",       "LOGOUT",       "LSUB",       "MOVE",       "NAMESPACE", "NOOP",      "RENAME",
        "SEARCH",      "SELECT",       "STARTTLS",   "STATUS",     "STORE",     "SUBSCRIBE", "uid copy",
        "Uid Expunge", "UID FETCH",    "UID MOVE",   "UID SEARCH", "UID STORE", "UNSELECT",  "unsubscribe",
    };
    (void)state;
    for (size_t i = 0; i < TB_ARRAY_LEN(names); i++)
        assert_non_null(imap_verb_find(tb_slice_str(names[i])));
    assert_null(imap_verb_find(TB_SLICE("")));
    assert_null(imap_verb_find(TB_SLICE("NOOPNOOPNOOPNOOPNOOPNOOP")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),         cmocka_unit_test(test_bad),         cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_codes),        cmocka_unit_test(test_limits),      cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_append_head),  cmocka_unit_test(test_append_more), cmocka_unit_test(test_urls),
        cmocka_unit_test(test_verbs_sorted),
    };
    tb_arena_init(&arena, IMAP_ARENA_MAX);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tb_arena_free(&arena);
    return failed;
}
