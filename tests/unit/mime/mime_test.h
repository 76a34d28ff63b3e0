/*
 * mime_test.h: what the tests of this folder share: scanning a message in one go, comparing texts.
 */
#ifndef MIME_TEST_H
#define MIME_TEST_H

#include <tambo/message.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

static struct tb_mime *scanner;
static struct tb_mime_result result;

/* The results of text; valid until the next scan. */
static inline void scan(struct tb_slice text)
{
    tb_mime_reset(scanner);
    tb_mime_feed(scanner, text);
    assert_int_equal(tb_mime_finish(scanner, &result), TB_OK);
}

static inline void scan_str(const char *text)
{
    scan(tb_slice_str(text));
}

static inline int setup_scanner(void **state)
{
    (void)state;
    scanner = tb_mime_new();
    return scanner == NULL ? -1 : 0;
}

static inline int free_scanner(void **state)
{
    (void)state;
    tb_mime_free(scanner);
    return 0;
}

#define assert_slice(slice, text) assert_slice_at(slice, text, __LINE__)
static inline void assert_slice_at(struct tb_slice s, const char *text, int line)
{
    if (s.len == strlen(text) && (s.len == 0 || memcmp(s.ptr, text, s.len) == 0))
        return;
    fail_msg("line %d: got <%.*s>, want <%s>", line, (int)s.len, s.len == 0 ? "" : s.ptr, text);
}

/* A growing text for the tests that build their input. */
static inline void put_many(struct tb_buf *b, const char *text, size_t times)
{
    while (times-- > 0)
        tb_buf_str(b, text);
}

/* Everything the results promise of any input: it can all be read back, and ranges lie inside of the message. */
static inline void assert_sound(void)
{
    struct tb_arena arena;
    struct tb_envelope envelope;
    struct tb_buf body;
    struct tb_part part;
    size_t cursor = 0;
    uint32_t n = 0;
    enum tb_rc rc;
    tb_arena_init(&arena, 256 << 20);
    assert_int_equal(tb_envelope_read(result.envelope, &arena, &envelope), TB_OK);
    tb_arena_free(&arena);
    tb_buf_init(&body, 4 * TB_MIME_TEXT_MAX);
    assert_int_equal(tb_body_write(result.bodystructure, &body), TB_OK);
    assert_false(body.failed);
    tb_buf_free(&body);
    assert_true(result.envelope.len <= TB_MIME_TEXT_MAX);
    assert_true(result.bodystructure.len <= TB_MIME_TEXT_MAX);
    assert_null(memchr(result.envelope.ptr, 0, result.envelope.len));
    assert_null(memchr(result.bodystructure.ptr, 0, result.bodystructure.len));
    assert_true(result.references.len <= 4096);
    assert_true(tb_utf8_valid(result.subject_base));
    while ((rc = tb_parts_next(result.parts, &cursor, &part)) == TB_OK) {
        assert_int_equal(part.index, n++);
        assert_true(part.body_offset == part.header_offset + part.header_size);
        assert_true(part.body_offset + part.body_size <= result.size);
    }
    assert_int_equal(rc, TB_NOTFOUND);
    assert_true(n >= 1 && n <= TB_MIME_PARTS_MAX);
}

#endif
