/*
 * table.c: the parts table: writing it, walking it, finding a section in it. Layout: docs/FORMAT.md, "parts".
 *
 * Readers trust nothing: every length is checked, a walk ends with the table, no recursion. Cost: the table.
 * RFC 9051 6.4.5 (section numbers).
 */
#include "engine/mime/mime.h"

enum { TABLE_VERSION = 1, HAS_CHARSET = 0x20, CURSOR_INDEX_SHIFT = 40 };

static void put_varint(struct tb_buf *out, uint64_t v)
{
    char *p = tb_buf_reserve(out, 10);
    if (p != NULL)
        out->len += tb_put_varint(p, v);
}

void tb_mime_table_write(struct tb_mime *m)
{
    struct tb_buf *out = &m->table;
    out->len = 0;
    tb_buf_char(out, TABLE_VERSION);
    for (uint32_t i = 0; i < m->parts_n; i++) {
        const struct tb_mime_part *p = &m->parts[i];
        bool charset = p->kind == TB_PART_TEXT && p->charset.len > 0;
        tb_buf_char(out, (char)((unsigned)p->kind | (unsigned)p->encoding << 2 | (charset ? HAS_CHARSET : 0)));
        put_varint(out, p->header_offset);
        put_varint(out, p->body_offset - p->header_offset);
        put_varint(out, p->end - p->body_offset);
        put_varint(out, p->lines);
        if (p->kind == TB_PART_MULTIPART)
            put_varint(out, p->children);
        if (charset) {
            put_varint(out, p->charset.len);
            tb_buf_put(out, m->pieces.ptr + p->charset.at, p->charset.len);
        }
    }
}

/* ---- reading ---- */

static bool get(struct tb_slice *s, uint64_t max, uint64_t *v)
{
    return tb_get_varint(s, v) && *v <= max;
}

/* One entry from the front of *s. */
static enum tb_rc read_entry(struct tb_slice *s, uint32_t index, struct tb_part *out)
{
    const uint64_t size_max = UINT64_MAX >> 2;
    uint64_t lines, n = 0;
    unsigned flags = (unsigned char)s->ptr[0];
    *out = (struct tb_part){.kind = flags & 3, .encoding = flags >> 2 & 7, .index = index, .charset = TB_SLICE("")};
    *s = tb_slice(s->ptr + 1, s->len - 1);
    if (flags > 0x3f || out->encoding > TB_ENC_UNKNOWN || !get(s, size_max, &out->header_offset) ||
        !get(s, size_max, &out->header_size) || !get(s, size_max, &out->body_size) || !get(s, UINT32_MAX, &lines))
        return TB_CORRUPT;
    out->body_offset = out->header_offset + out->header_size;
    out->lines = (uint32_t)lines;
    if (out->kind == TB_PART_MULTIPART && !get(s, TB_MIME_PARTS_MAX, &n))
        return TB_CORRUPT;
    out->children = out->kind == TB_PART_MESSAGE ? 1 : (uint32_t)n;
    if (flags & HAS_CHARSET) {
        if (!get(s, MIME_CHARSET_MAX, &n) || n > s->len)
            return TB_CORRUPT;
        out->charset = tb_slice(s->ptr, (size_t)n);
        *s = tb_slice(s->ptr + n, s->len - (size_t)n);
    }
    return TB_OK;
}

enum tb_rc tb_parts_next(struct tb_slice parts, size_t *cursor, struct tb_part *out)
{
    size_t at = *cursor & (((size_t)1 << CURSOR_INDEX_SHIFT) - 1), index = *cursor >> CURSOR_INDEX_SHIFT;
    if (parts.len == 0 || parts.ptr[0] != TABLE_VERSION)
        return TB_CORRUPT;
    if (at == 0)
        at = 1;
    if (at >= parts.len)
        return at == parts.len ? TB_NOTFOUND : TB_CORRUPT;
    if (index >= TB_MIME_PARTS_MAX)
        return TB_CORRUPT;
    struct tb_slice s = tb_slice(parts.ptr + at, parts.len - at);
    enum tb_rc rc = read_entry(&s, (uint32_t)index, out);
    if (rc == TB_OK)
        *cursor = (size_t)(s.ptr - parts.ptr) | (index + 1) << CURSOR_INDEX_SHIFT;
    return rc;
}

/* The next entry, which must exist. */
static enum tb_rc entry(struct tb_slice parts, size_t *cursor, struct tb_part *out)
{
    enum tb_rc rc = tb_parts_next(parts, cursor, out);
    return rc == TB_NOTFOUND ? TB_CORRUPT : rc;
}

/* From behind a multipart's entry to its k-th child (from 1). */
static enum tb_rc child(struct tb_slice parts, size_t *cursor, uint32_t k, struct tb_part *out)
{
    for (;;) {
        enum tb_rc rc = entry(parts, cursor, out);
        if (rc != TB_OK || --k == 0)
            return rc;
        for (uint64_t below = out->children; below > 0; below--) {
            struct tb_part skipped;
            rc = entry(parts, cursor, &skipped);
            if (rc != TB_OK)
                return rc;
            below += skipped.children;
        }
    }
}

enum tb_rc tb_parts_find(struct tb_slice parts, const uint32_t *path, size_t n, struct tb_part *out,
                         struct tb_part *inner)
{
    size_t cursor = 0;
    enum tb_rc rc = entry(parts, &cursor, out);
    bool root = true; /* *out stands for a whole message: its number 1 is itself unless it is a multipart */
    for (size_t i = 0; i < n && rc == TB_OK; i++) {
        if (!root && out->kind == TB_PART_MESSAGE) {
            rc = entry(parts, &cursor, out);
            if (rc != TB_OK)
                return rc;
            root = true;
        }
        if (out->kind == TB_PART_MULTIPART) {
            if (path[i] == 0 || path[i] > out->children)
                return TB_NOTFOUND;
            rc = child(parts, &cursor, path[i], out);
        } else if (!root || path[i] != 1) {
            return TB_NOTFOUND;
        }
        root = false;
    }
    if (rc == TB_OK && inner != NULL && out->kind == TB_PART_MESSAGE)
        rc = entry(parts, &cursor, inner);
    return rc;
}
