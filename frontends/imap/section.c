/*
 * section.c: BODY[...] and BINARY[...]: parsing a section, its name in the response, and where its bytes lie in a
 * message. Pure.
 *
 * Thread: any. RFC 3501 6.4.5, 9 (section); RFC 3516 4.2, 7 (section-binary); part numbers deeper than any stored part
 * are answered NIL.
 */
#include "imap_fetch.h"
#include "chars.h"

static bool is_plain_name(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if ((uint8_t)s.ptr[i] < 0x20 || (uint8_t)s.ptr[i] > 0x7e)
            return false;
    }
    return s.len > 0;
}

/* header-list = "(" header-fld-name *(SP header-fld-name) ")" */
static void header_list(struct imap_parser *p, struct imap_section *x)
{
    size_t most = 1;
    imap_sp(p);
    imap_expect(p, '(');
    for (const char *q = p->p; q < p->end && *q != ')'; q++)
        most += *q == ' ';
    x->fields = tb_arena_alloc(p->arena, most * sizeof *x->fields);
    if (!x->fields) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return;
    }
    do {
        struct tb_slice name = imap_astring(p);
        if (p->failed)
            return;
        if (!is_plain_name(name))
            imap_fail(p, "BAD Not a header field's name");
        else
            x->fields[x->fields_n++] = name;
    } while (!p->failed && x->fields_n < most && imap_try_sp(p));
    imap_expect(p, ')');
}

/* section-msgtext = "HEADER" / "HEADER.FIELDS" [".NOT"] SP header-list / "TEXT"; section-text = section-msgtext /
 * "MIME" */
static void section_text(struct imap_parser *p, struct imap_section *x)
{
    struct tb_slice name = imap_word(p);
    if (tb_slice_ieq(name, TB_SLICE("HEADER"))) {
        x->kind = SECTION_HEADER;
    } else if (tb_slice_ieq(name, TB_SLICE("TEXT"))) {
        x->kind = SECTION_TEXT;
    } else if (tb_slice_ieq(name, TB_SLICE("MIME")) && x->path_n > 0) {
        x->kind = SECTION_MIME;
    } else if (tb_slice_ieq(name, TB_SLICE("HEADER.FIELDS"))) {
        x->kind = SECTION_FIELDS;
        header_list(p, x);
    } else if (tb_slice_ieq(name, TB_SLICE("HEADER.FIELDS.NOT"))) {
        x->kind = SECTION_FIELDS_NOT;
        header_list(p, x);
    } else {
        imap_fail(p, "BAD No such section");
    }
}

/* section-part = nz-number *("." nz-number), with the "." before a section-text taken too */
static bool section_part(struct imap_parser *p, struct imap_section *x)
{
    x->path = tb_arena_alloc(p->arena, FETCH_PATH_MAX * sizeof *x->path);
    if (!x->path) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return false;
    }
    for (;;) {
        uint32_t n = imap_nz_number(p);
        if (p->failed)
            return false;
        if (x->path_n < FETCH_PATH_MAX)
            x->path[x->path_n++] = n;
        else
            x->absent = true;
        if (!imap_try(p, '.'))
            return false;
        if (p->p < p->end && !(imap_chars[(uint8_t)*p->p] & IMAP_C_DIGIT))
            return true;
    }
}

static void label(struct imap_parser *p, struct imap_section *x)
{
    static const char *const names[] = {
        [SECTION_ALL] = "",
        [SECTION_HEADER] = "HEADER",
        [SECTION_FIELDS] = "HEADER.FIELDS (",
        [SECTION_FIELDS_NOT] = "HEADER.FIELDS.NOT (",
        [SECTION_TEXT] = "TEXT",
        [SECTION_MIME] = "MIME",
    };
    static const char *const items[] = {
        [WANT_BODY] = "BODY[", [WANT_BINARY] = "BINARY[", [WANT_BINARY_SIZE] = "BINARY.SIZE["};
    struct tb_buf b;
    tb_buf_init(&b, 256 << 10);
    tb_buf_str(&b, items[x->want]);
    for (uint32_t i = 0; i < x->path_n; i++) {
        if (i > 0)
            tb_buf_char(&b, '.');
        tb_buf_u64(&b, x->path[i]);
    }
    if (x->path_n > 0 && x->kind != SECTION_ALL)
        tb_buf_char(&b, '.');
    tb_buf_str(&b, names[x->kind]);
    for (size_t i = 0; i < x->fields_n; i++) {
        bool atom = true;
        for (size_t k = 0; k < x->fields[i].len; k++)
            atom = atom && (imap_chars[(uint8_t)x->fields[i].ptr[k]] & IMAP_C_ATOM);
        if (i > 0)
            tb_buf_char(&b, ' ');
        if (!atom)
            tb_buf_char(&b, '"');
        for (size_t k = 0; k < x->fields[i].len; k++) {
            char c = x->fields[i].ptr[k];
            if (c == '"' || c == '\\')
                tb_buf_char(&b, '\\');
            tb_buf_char(&b, c);
        }
        if (!atom)
            tb_buf_char(&b, '"');
    }
    tb_buf_str(&b, x->kind == SECTION_FIELDS || x->kind == SECTION_FIELDS_NOT ? ")]" : "]");
    if (x->partial) {
        tb_buf_char(&b, '<');
        tb_buf_u64(&b, x->offset);
        tb_buf_char(&b, '>');
    }
    x->label = b.failed ? (struct tb_slice){0} : tb_arena_copy(p->arena, tb_buf_all(&b));
    tb_buf_free(&b);
    if (!x->label.ptr)
        imap_fail(p, "NO [LIMIT] Command too large");
}

void imap_section_parse(struct imap_parser *p, enum imap_section_want want, bool peek, struct imap_section *x)
{
    *x = (struct imap_section){.want = want, .peek = peek};
    imap_expect(p, '[');
    if (!imap_at(p, ']')) {
        bool digit = p->p < p->end && (imap_chars[(uint8_t)*p->p] & IMAP_C_DIGIT);
        bool text = !digit || section_part(p, x);
        if (text && want != WANT_BODY)
            imap_fail(p, "BAD Expected a part number"); /* section-binary = "[" [section-part] "]" */
        else if (text)
            section_text(p, x);
    }
    imap_expect(p, ']');
    if (!p->failed && want != WANT_BINARY_SIZE && imap_try(p, '<')) {
        x->partial = true;
        x->offset = imap_number(p);
        imap_expect(p, '.');
        x->count = imap_nz_number(p);
        imap_expect(p, '>');
    }
    if (!p->failed)
        label(p, x);
}

/* find_in_part: sections with a part number. */
static void find_in_part(const struct imap_section *x, struct tb_slice parts, struct imap_piece *out)
{
    struct tb_part part, inner;
    *out = (struct imap_piece){.nil = true};
    if (x->absent || tb_parts_find(parts, x->path, x->path_n, &part, &inner) != TB_OK)
        return;
    bool message = part.kind == TB_PART_MESSAGE;
    switch (x->kind) {
    case SECTION_ALL:
        *out = (struct imap_piece){.offset = part.body_offset, .size = part.body_size};
        if (part.kind == TB_PART_LEAF || part.kind == TB_PART_TEXT) /* others are never encoded, RFC 2045 6.4 */
            out->encoding = part.encoding;
        break;
    case SECTION_MIME:
        *out = (struct imap_piece){.offset = part.header_offset, .size = part.header_size};
        break;
    case SECTION_TEXT:
        if (message)
            *out = (struct imap_piece){.offset = inner.body_offset, .size = inner.body_size};
        break;
    default:
        if (message)
            *out = (struct imap_piece){.offset = inner.header_offset, .size = inner.header_size};
        break;
    }
}

void imap_preview_parse(struct imap_parser *p, struct imap_section *x)
{
    struct imap_parser look = *p;
    *x = (struct imap_section){.want = WANT_PREVIEW, .peek = true, .label = TB_SLICE("PREVIEW")};
    if (!imap_try_sp(&look) || !imap_try(&look, '(') || !tb_slice_ieq(imap_word(&look), TB_SLICE("LAZY")) ||
        !imap_try(&look, ')'))
        return;
    x->lazy = true;
    *p = look;
}

/* find_preview: the beginning of the first text; nothing of it, if there is none. No table: it would have to be made.
 */
static void find_preview(struct tb_slice parts, uint64_t size, struct imap_piece *out)
{
    struct tb_part part;
    size_t cursor = 0;
    *out = (struct imap_piece){.nil = parts.len == 0};
    while (tb_parts_next(parts, &cursor, &part) == TB_OK) {
        if (part.kind != TB_PART_TEXT || part.body_size == 0 || part.body_offset >= size)
            continue;
        out->offset = part.body_offset;
        out->size = part.body_size < TB_PREVIEW_BYTES ? part.body_size : TB_PREVIEW_BYTES;
        if (out->size > size - out->offset)
            out->size = size - out->offset;
        out->encoding = part.encoding;
        if (part.charset.len < sizeof out->charset)
            memcpy(out->charset, part.charset.ptr, part.charset.len);
        return;
    }
}

void imap_section_find(const struct imap_section *x, struct tb_slice parts, uint64_t header_size, uint64_t size,
                       struct imap_piece *out)
{
    if (x->want == WANT_PREVIEW) {
        find_preview(parts, size, out);
        return;
    }
    if (header_size > size)
        header_size = size;
    if (x->path_n > 0)
        find_in_part(x, parts, out);
    else if (x->kind == SECTION_ALL)
        *out = (struct imap_piece){.size = size};
    else if (x->kind == SECTION_TEXT)
        *out = (struct imap_piece){.offset = header_size, .size = size - header_size};
    else
        *out = (struct imap_piece){.size = header_size};
    if (out->offset > size)
        out->offset = size;
    if (out->size > size - out->offset)
        out->size = size - out->offset;
    if (x->kind == SECTION_FIELDS || x->kind == SECTION_FIELDS_NOT) {
        if (out->size > TB_MIME_HEADER_MAX)
            out->size = TB_MIME_HEADER_MAX;
    } else if (x->partial && x->want == WANT_BODY) {
        uint64_t skip = x->offset < out->size ? x->offset : out->size;
        out->offset += skip;
        out->size -= skip;
        if (out->size > x->count)
            out->size = x->count;
    }
}
