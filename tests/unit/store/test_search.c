/* test_search.c: the parts of SEARCH that need no store: the program's logic, keys on rows, envelopes, headers and
 * text. RFC 9051 6.4.4. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/store/search_internal.h"

static struct tb_search_key keys[64];
static size_t keys_n;
static struct tb_search_program program;
static struct tb_truth truth;
static const struct tb_row row = {.uid = 7,
                                  .flags = TB_FLAG_SEEN | TB_FLAG_FLAGGED,
                                  .keywords = 2,
                                  .size = 1000,
                                  .modseq = 50,
                                  .internaldate = 837595405 /* 17 Jul 1996 09:23:25 */};

static struct tb_search_key *key(enum tb_search_op op)
{
    struct tb_search_key *k = &keys[keys_n++];
    *k = (struct tb_search_key){.op = op};
    return k;
}

static struct tb_search_key *number(enum tb_search_op op, int64_t n)
{
    struct tb_search_key *k = key(op);
    k->number = n;
    return k;
}

static struct tb_search_key *text(enum tb_search_op op, const char *name, const char *s)
{
    struct tb_search_key *k = key(op);
    k->name = tb_slice_str(name);
    k->text = tb_slice_str(s);
    return k;
}

static struct tb_search_key *join(enum tb_search_op op, struct tb_search_key *a, struct tb_search_key *b)
{
    struct tb_search_key *k = key(op);
    k->first = a;
    a->next = b;
    return k;
}

static void finish(void)
{
    tb_truth_free(&truth);
    tb_program_free(&program);
    keys_n = 0;
}

/* The answer from the row alone. */
static enum tb_tri by_row(const struct tb_search_key *root)
{
    assert_int_equal(tb_program_init(&program, root, 837595405 + 100), TB_OK);
    assert_true(tb_truth_init(&truth, &program));
    tb_eval_row(&program, &truth, &row);
    return tb_truth_reduce(&program, &truth);
}

static void row_is(const struct tb_search_key *root, bool want)
{
    assert_int_equal(by_row(root), want ? TB_TRI_TRUE : TB_TRI_FALSE);
    assert_false(program.deep);
    finish();
}

static void test_rows(void **state)
{
    (void)state;
    struct tb_search_key *k;
    int32_t day = tb_date_day(row.internaldate, 0);
    row_is(key(TB_SEARCH_ALL), true);
    row_is(number(TB_SEARCH_LARGER, 999), true);
    row_is(number(TB_SEARCH_LARGER, 1000), false);
    row_is(number(TB_SEARCH_SMALLER, 1000), false);
    row_is(number(TB_SEARCH_SMALLER, 1001), true);
    row_is(number(TB_SEARCH_BEFORE, day), false);
    row_is(number(TB_SEARCH_BEFORE, day + 1), true);
    row_is(number(TB_SEARCH_ON, day), true);
    row_is(number(TB_SEARCH_ON, day - 1), false);
    row_is(number(TB_SEARCH_SINCE, day), true);
    row_is(number(TB_SEARCH_SINCE, day + 1), false);
    row_is(number(TB_SEARCH_YOUNGER, 100), true);
    row_is(number(TB_SEARCH_YOUNGER, 99), false);
    row_is(number(TB_SEARCH_OLDER, 100), true);
    row_is(number(TB_SEARCH_OLDER, 101), false);
    row_is(number(TB_SEARCH_MODSEQ, 50), true);
    row_is(number(TB_SEARCH_MODSEQ, 51), false);
    k = key(TB_SEARCH_FLAGS);
    k->flags = TB_FLAG_SEEN | TB_FLAG_FLAGGED;
    row_is(k, true);
    k = key(TB_SEARCH_FLAGS);
    k->flags = TB_FLAG_SEEN | TB_FLAG_DELETED;
    row_is(k, false);
}

static void test_sets(void **state)
{
    (void)state;
    struct tb_uidset set;
    tb_uidset_init(&set);
    tb_uidset_add(&set, 3, 5);
    tb_uidset_add(&set, 7, 9);
    struct tb_search_key *k = key(TB_SEARCH_UID);
    k->set = &set;
    assert_int_equal(by_row(join(TB_SEARCH_AND, k, key(TB_SEARCH_ALL))), TB_TRI_TRUE);
    assert_int_equal(program.uid_first, 3);
    assert_int_equal(program.uid_last, 9);
    finish();
    k = key(TB_SEARCH_SEQ);
    k->set = &set;
    assert_int_equal(by_row(join(TB_SEARCH_OR, k, key(TB_SEARCH_ALL))), TB_TRI_TRUE);
    assert_int_equal(program.uid_first, 1);
    assert_true(program.uid_last == UINT32_MAX);
    finish();
    tb_uidset_clear(&set);
    k = key(TB_SEARCH_UID);
    k->set = &set;
    assert_int_equal(by_row(k), TB_TRI_FALSE);
    assert_int_equal(program.uid_last, 0);
    finish();
    tb_uidset_free(&set);
}

static void test_logic(void **state)
{
    (void)state;
    struct tb_search_key *yes = number(TB_SEARCH_LARGER, 1), *no = number(TB_SEARCH_LARGER, 5000);
    assert_int_equal(by_row(join(TB_SEARCH_AND, yes, no)), TB_TRI_FALSE);
    finish();
    assert_int_equal(by_row(join(TB_SEARCH_OR, number(TB_SEARCH_LARGER, 5000), number(TB_SEARCH_LARGER, 1))),
                     TB_TRI_TRUE);
    finish();
    assert_int_equal(by_row(join(TB_SEARCH_NOT, number(TB_SEARCH_LARGER, 5000), NULL)), TB_TRI_TRUE);
    finish();
    assert_int_equal(by_row(key(TB_SEARCH_AND)), TB_TRI_TRUE); /* of nothing */
    finish();
    /* a text key is unknown to the row, unless the rest decides without it */
    assert_int_equal(by_row(join(TB_SEARCH_AND, text(TB_SEARCH_BODY, "", "x"), number(TB_SEARCH_LARGER, 5000))),
                     TB_TRI_FALSE);
    finish();
    assert_int_equal(by_row(join(TB_SEARCH_OR, text(TB_SEARCH_BODY, "", "x"), number(TB_SEARCH_LARGER, 1))),
                     TB_TRI_TRUE);
    finish();
    assert_int_equal(by_row(join(TB_SEARCH_AND, text(TB_SEARCH_BODY, "", "x"), number(TB_SEARCH_LARGER, 1))),
                     TB_TRI_UNKNOWN);
    assert_true(tb_truth_needs_text(&program, &truth));
    assert_false(tb_truth_needs_header(&program, &truth));
    tb_truth_settle(&program, &truth);
    assert_int_equal(tb_truth_reduce(&program, &truth), TB_TRI_FALSE);
    finish();
    /* a branch that is decided does not ask for its text */
    assert_int_equal(
        by_row(join(TB_SEARCH_OR, join(TB_SEARCH_AND, text(TB_SEARCH_BODY, "", "x"), number(TB_SEARCH_LARGER, 5000)),
                    text(TB_SEARCH_HEADER, "X", "y"))),
        TB_TRI_UNKNOWN);
    assert_false(tb_truth_needs_text(&program, &truth));
    assert_true(tb_truth_needs_header(&program, &truth));
    finish();
    assert_int_equal(by_row(text(TB_SEARCH_BODY, "", "")), TB_TRI_TRUE); /* every text holds the empty string */
    finish();
}

static void test_limits(void **state)
{
    (void)state;
    static struct tb_search_key deep[1000];
    for (size_t i = 0; i < 1000; i++)
        deep[i] = (struct tb_search_key){.op = i < 999 ? TB_SEARCH_NOT : TB_SEARCH_ALL,
                                         .first = i < 999 ? &deep[i + 1] : NULL};
    assert_int_equal(tb_program_init(&program, &deep[0], 0), TB_LIMIT);
    assert_int_equal(by_row(&deep[899]), TB_TRI_TRUE); /* 100 times NOT */
    finish();
    char *big = malloc(TB_SEARCH_NEEDLE_MAX + 1);
    assert_non_null(big);
    memset(big, 'x', TB_SEARCH_NEEDLE_MAX + 1);
    struct tb_search_key k = {.op = TB_SEARCH_TEXT, .text = tb_slice(big, TB_SEARCH_NEEDLE_MAX + 1)};
    assert_int_equal(tb_program_init(&program, &k, 0), TB_LIMIT);
    free(big);
}

static const char header[] =
    "From: \"Doe, J.\" <J.Doe@Example.org> (the boss)\r\nTo: =?utf-8?q?J=C3=96RG?= <joerg@example.com>, root\r\n"
    "Subject: =?iso-8859-1?q?Caf=E9?=\r\n and more\r\nDate: Thu, 18 Jul 1996 01:00:00 +0900\r\n"
    "X-Thing: one\r\nX-Thing: two\r\nMessage-ID: <a@b>\r\n\r\n";

enum asked { BY_ENVELOPE, BY_HEADER };

/* The answer from the envelope of `header`, or from its text. */
static enum tb_tri ask(struct tb_search_key *k, enum asked how)
{
    struct tb_mime *m = tb_mime_new();
    struct tb_mime_result r;
    struct tb_envelope e;
    struct tb_arena arena;
    tb_arena_init(&arena, 1 << 16);
    assert_non_null(m);
    tb_mime_feed(m, tb_slice_str(header));
    assert_int_equal(tb_mime_finish(m, &r), TB_OK);
    assert_int_equal(tb_envelope_read(r.envelope, &arena, &e), TB_OK);
    assert_int_equal(by_row(k), TB_TRI_UNKNOWN);
    if (how == BY_ENVELOPE)
        tb_eval_envelope(&program, &truth, &row, &e);
    else
        tb_eval_header(&program, &truth, &row, tb_slice_str(header));
    enum tb_tri answer = tb_truth_reduce(&program, &truth);
    tb_arena_free(&arena);
    tb_mime_free(m);
    finish();
    return answer;
}

/* want_envelope: UNKNOWN where the envelope is not enough to say. */
static void header_is_at(int line, const char *name, const char *s, enum tb_tri want_envelope, enum tb_tri want_header)
{
    enum tb_tri a = ask(text(TB_SEARCH_HEADER, name, s), BY_ENVELOPE),
                b = ask(text(TB_SEARCH_HEADER, name, s), BY_HEADER);
    if (a != want_envelope || b != want_header)
        fail_msg("line %d: %s %s: envelope %d, header %d", line, name, s, a, b);
}
#define header_is(name, s, e, h) header_is_at(__LINE__, name, s, TB_TRI_##e, TB_TRI_##h)

static void test_headers(void **state)
{
    (void)state;
    header_is("Subject", "caf\xc3\xa9 and", TRUE, TRUE);
    header_is("SUBJECT", "CAF\xc3\x89", TRUE, TRUE);
    header_is("subject", "cafe\xcc\x81", TRUE, TRUE); /* decomposed */
    header_is("subject", "tea", FALSE, FALSE);
    header_is("subject", "", TRUE, TRUE);
    header_is("from", "j.doe@example", TRUE, TRUE);
    header_is("from", "doe, j.", UNKNOWN, TRUE); /* punctuation: only the field itself knows */
    header_is("from", "the boss", FALSE, TRUE);  /* a comment beside a name is not kept in an envelope */
    header_is("to", "j\xc3\xb6rg", TRUE, TRUE);
    header_is("to", "root", TRUE, TRUE);
    header_is("cc", "root", FALSE, FALSE);
    header_is("cc", "", UNKNOWN, FALSE);
    header_is("to", "", TRUE, TRUE);
    header_is("x-thing", "two", UNKNOWN, TRUE);
    header_is("x-thing", "three", UNKNOWN, FALSE);
    header_is("x-none", "", UNKNOWN, FALSE);
    header_is("message-id", "<a@b>", TRUE, TRUE);
    header_is("in-reply-to", "a", FALSE, FALSE);
}

static void test_sent(void **state)
{
    (void)state;
    int32_t day;
    assert_true(tb_date_civil_day(1996, 7, 18, &day)); /* as written, not as UTC: 17 July there */
    for (enum asked how = BY_ENVELOPE; how <= BY_HEADER; how++) {
        assert_int_equal(ask(number(TB_SEARCH_SENTON, day), how), TB_TRI_TRUE);
        assert_int_equal(ask(number(TB_SEARCH_SENTON, day - 1), how), TB_TRI_FALSE);
        assert_int_equal(ask(number(TB_SEARCH_SENTBEFORE, day), how), TB_TRI_FALSE);
        assert_int_equal(ask(number(TB_SEARCH_SENTSINCE, day), how), TB_TRI_TRUE);
    }
    assert_int_equal(by_row(number(TB_SEARCH_SENTON, day - 1)), TB_TRI_UNKNOWN);
    tb_eval_header(&program, &truth, &row, TB_SLICE("Date: never\r\n\r\n")); /* no date: INTERNALDATE's day */
    assert_int_equal(tb_truth_reduce(&program, &truth), TB_TRI_TRUE);
    finish();
}

static void test_text(void **state)
{
    (void)state;
    assert_int_equal(ask(text(TB_SEARCH_TEXT, "", "x-thing: ONE"), BY_HEADER), TB_TRI_TRUE);
    assert_int_equal(ask(text(TB_SEARCH_TEXT, "", "three"), BY_HEADER), TB_TRI_UNKNOWN);
    assert_int_equal(ask(text(TB_SEARCH_BODY, "", "one"), BY_HEADER), TB_TRI_UNKNOWN);
    assert_int_equal(by_row(text(TB_SEARCH_BODY, "", "b")), TB_TRI_UNKNOWN);
    assert_false(tb_eval_part_header(&program, &truth, TB_SLICE("A: b\r\n\r\n"), false));
    assert_true(tb_eval_part_header(&program, &truth, TB_SLICE("A: b\r\n\r\n"), true));
    finish();
}

/* A needle is found wherever the text is cut, and not when it is not there. */
static void test_windows(void **state)
{
    (void)state;
    static const char body[] = "Im Wald, da ist's St\xc3\x9cRMISCH und kalt; im Wald.";
    const size_t n = sizeof(body) - 1;
    struct tb_text_window w;
    for (size_t piece = 1; piece <= n; piece++) {
        tb_buf_init(&w.folded, 1 << 16);
        struct tb_search_key *both = join(TB_SEARCH_AND, text(TB_SEARCH_BODY, "", "st\xc3\xbcrmisch UND"),
                                          text(TB_SEARCH_TEXT, "", "wald."));
        assert_int_equal(
            by_row(join(TB_SEARCH_AND, both, join(TB_SEARCH_NOT, text(TB_SEARCH_BODY, "", "wald!"), NULL))),
            TB_TRI_UNKNOWN);
        for (size_t at = 0; at < n;) {
            size_t len = piece < n - at ? piece : n - at;
            while (at + len < n && ((unsigned char)body[at + len] & 0xc0) == 0x80)
                len++; /* whole characters */
            (void)tb_eval_text(&program, &truth, &w, tb_slice(body + at, len));
            assert_true(w.folded.len < 32);
            (void)tb_truth_reduce(&program, &truth);
            at += len;
        }
        tb_truth_settle(&program, &truth);
        assert_int_equal(tb_truth_reduce(&program, &truth), TB_TRI_TRUE);
        finish();
        tb_buf_free(&w.folded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),   cmocka_unit_test(test_sets),    cmocka_unit_test(test_logic),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_headers), cmocka_unit_test(test_sent),
        cmocka_unit_test(test_text),   cmocka_unit_test(test_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
