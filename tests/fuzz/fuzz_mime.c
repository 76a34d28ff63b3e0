/*
 * fuzz_mime.c: the MIME scanner and every reader of its results under libFuzzer. The first two bytes seed the splits;
 * whole and split feeding must agree, and what the scanner wrote must be readable. The same bytes are then read as if
 * they were stored texts and tables, which must only be safe.
 */
#include <tambo/message.h>

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static struct tb_mime *scanner;
enum { ROOM = 16 << 20 };

static void keep(struct tb_buf *b, const struct tb_mime_result *r)
{
    const struct tb_slice *all[] = {&r->envelope,     &r->bodystructure, &r->parts,
                                    &r->subject_base, &r->references,    &r->message_id};
    tb_buf_init(b, 4 * ROOM);
    for (size_t i = 0; i < TB_ARRAY_LEN(all); i++) {
        tb_buf_slice(b, *all[i]);
        tb_buf_char(b, '|');
    }
    tb_buf_u64(b, r->header_size);
}

static void read_back(struct tb_slice envelope, struct tb_slice bodystructure, struct tb_slice parts, bool ours)
{
    struct tb_arena arena;
    struct tb_envelope e;
    struct tb_buf body;
    struct tb_part p, inner;
    size_t cursor = 0;
    static const uint32_t path[] = {1, 2, 1, 1, 3};
    enum tb_rc rc;
    tb_arena_init(&arena, ROOM);
    rc = tb_envelope_read(envelope, &arena, &e);
    TB_ASSERT(!ours || rc == TB_OK);
    tb_arena_free(&arena);
    tb_buf_init(&body, ROOM);
    rc = tb_body_write(bodystructure, &body);
    TB_ASSERT(!ours || rc == TB_OK);
    TB_ASSERT(body.len <= bodystructure.len);
    tb_buf_free(&body);
    while ((rc = tb_parts_next(parts, &cursor, &p)) == TB_OK)
        TB_ASSERT(p.index < TB_MIME_PARTS_MAX);
    TB_ASSERT(!ours || rc == TB_NOTFOUND);
    for (size_t i = 0; i <= TB_ARRAY_LEN(path); i++)
        TB_ASSERT(tb_parts_find(parts, path, i, &p, &inner) != TB_CORRUPT || !ours);
}

static void values(struct tb_slice in)
{
    struct tb_slice rest = in, field, name, value;
    struct tb_buf out;
    struct tb_date date;
    tb_buf_init(&out, ROOM);
    while (tb_header_next(&rest, &field, &name, &value)) {
        out.len = 0;
        tb_header_text(value, &out);
        TB_ASSERT(tb_utf8_valid(tb_buf_all(&out)));
        (void)tb_date_parse(value, &date); /* must only be safe */
    }
    struct tb_buf folded;
    tb_buf_init(&folded, ROOM);
    for (enum tb_encoding enc = TB_ENC_7BIT; enc <= TB_ENC_UNKNOWN; enc++) {
        static const char *const charsets[] = {"utf-8", "iso-2022-jp", "windows-1252", "utf-7", "gb18030", "x"};
        out.len = folded.len = 0;
        tb_text_decode(enc, tb_slice_str(charsets[enc % TB_ARRAY_LEN(charsets)]), in, &out);
        TB_ASSERT(out.failed || tb_utf8_valid(tb_buf_all(&out)));
        tb_text_fold(tb_buf_all(&out), &folded);
        TB_ASSERT(folded.failed || tb_utf8_valid(tb_buf_all(&folded)));
    }
    tb_buf_free(&folded);
    tb_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_mime_result r;
    struct tb_buf whole, split;
    if (n < 2)
        return 0;
    if (scanner == NULL)
        scanner = tb_mime_new();
    TB_ASSERT(scanner != NULL);
    uint32_t seed = (uint32_t)bytes[0] << 8 | bytes[1];
    struct tb_slice in = tb_slice(bytes + 2, n - 2);
    tb_mime_reset(scanner);
    tb_mime_feed(scanner, in);
    TB_ASSERT(tb_mime_finish(scanner, &r) == TB_OK);
    TB_ASSERT(r.size == in.len && r.header_size <= in.len);
    read_back(r.envelope, r.bodystructure, r.parts, true);
    keep(&whole, &r);
    tb_mime_reset(scanner);
    for (size_t at = 0; at < in.len;) {
        seed = seed * 1103515245 + 12345;
        struct tb_slice piece = tb_slice_sub(in, at, 1 + (seed >> 16) % 40);
        tb_mime_feed(scanner, piece);
        at += piece.len;
    }
    TB_ASSERT(tb_mime_finish(scanner, &r) == TB_OK);
    keep(&split, &r);
    TB_ASSERT(tb_slice_eq(tb_buf_all(&whole), tb_buf_all(&split)));
    tb_buf_free(&whole);
    tb_buf_free(&split);
    read_back(in, in, in, false);
    values(in);
    return 0;
}
