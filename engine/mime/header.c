/*
 * header.c: walking the fields of a header block, choosing some of them, finding the ones the texts are made of.
 *
 * Byte for byte: nothing here changes a field. A line end is LF, with or without CR before it; a field goes on while
 * the next line begins with a blank. Cost: one memchr pass. Pure. RFC 5322 2.2, RFC 9051 6.4.5.
 */
#include "engine/mime/mime.h"

#include <stdlib.h>

/* The end of the field whose first line ends with the LF at lf: behind the LF that no blank follows. */
static const char *field_end(const char *lf, const char *end)
{
    while (lf != NULL) {
        const char *p = lf + 1;
        if (p == end || (*p != ' ' && *p != '\t'))
            return p;
        lf = memchr(p, '\n', (size_t)(end - p));
    }
    return end;
}

/* The block ends at an empty line. */
static bool empty_line(const char *p, const char *end)
{
    return p[0] == '\n' || (p[0] == '\r' && end - p > 1 && p[1] == '\n');
}

bool tb_header_next(struct tb_slice *rest, struct tb_slice *field, struct tb_slice *name, struct tb_slice *value)
{
    if (rest->len == 0)
        return false;
    const char *p = rest->ptr, *end = p + rest->len;
    if (empty_line(p, end))
        return false;
    const char *lf = memchr(p, '\n', (size_t)(end - p)), *line_end = lf == NULL ? end : lf;
    const char *stop = field_end(lf, end), *colon = p;
    *field = tb_slice(p, (size_t)(stop - p));
    *rest = tb_slice(stop, (size_t)(end - stop));
    while (colon < line_end && *colon != ':')
        colon++;
    if (colon == line_end || *p == ' ' || *p == '\t') {
        *name = tb_slice(p, 0);
        *value = *field;
        return true;
    }
    size_t n = (size_t)(colon - p);
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
        n--;
    *name = tb_slice(p, n);
    *value = tb_slice(colon + 1, (size_t)(stop - colon - 1));
    return true;
}

bool tb_header_value_first(struct tb_slice header, struct tb_slice name, struct tb_slice *value)
{
    struct tb_slice field, this_name;
    while (tb_header_next(&header, &field, &this_name, value)) {
        if (tb_slice_ieq(this_name, name))
            return true;
    }
    return false;
}

/* ---- HEADER.FIELDS ---- */

static int compare_names(const void *a, const void *b)
{
    const struct tb_slice *x = a, *y = b;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    for (size_t i = 0; i < x->len; i++) {
        int d = (unsigned char)tb_mime_lower(x->ptr[i]) - (unsigned char)tb_mime_lower(y->ptr[i]);
        if (d != 0)
            return d;
    }
    return 0;
}

static bool among(const struct tb_slice *names, size_t n, bool sorted, struct tb_slice name)
{
    if (sorted)
        return bsearch(&name, names, n, sizeof(*names), compare_names) != NULL;
    for (size_t i = 0; i < n; i++) {
        if (tb_slice_ieq(names[i], name))
            return true;
    }
    return false;
}

void tb_header_subset(struct tb_slice header, const struct tb_slice *names, size_t n, bool negate, struct tb_buf *out)
{
    enum { FEW = 12 };
    struct tb_slice *sorted = NULL;
    if (n > FEW && (sorted = malloc(n * sizeof(*sorted))) != NULL) {
        memcpy(sorted, names, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), compare_names);
    }
    struct tb_slice field, name, value;
    while (tb_header_next(&header, &field, &name, &value)) {
        if (among(sorted != NULL ? sorted : names, n, sorted != NULL, name) == negate)
            continue;
        tb_buf_slice(out, field);
        if (field.ptr[field.len - 1] != '\n')
            tb_buf_put(out, "\r\n", 2);
    }
    tb_buf_put(out, "\r\n", 2);
    free(sorted);
}

/* ---- the fields we know ---- */

#define KNOWN(text, id) \
    if (tb_slice_ieq(name, TB_SLICE(text))) \
    return id

enum tb_mime_field tb_mime_field_of(struct tb_slice name)
{
    switch (name.len) {
    case 2:
        KNOWN("to", MIME_TO);
        KNOWN("cc", MIME_CC);
        break;
    case 3:
        KNOWN("bcc", MIME_BCC);
        break;
    case 4:
        KNOWN("date", MIME_DATE);
        KNOWN("from", MIME_FROM);
        break;
    case 6:
        KNOWN("sender", MIME_SENDER);
        break;
    case 7:
        KNOWN("subject", MIME_SUBJECT);
        break;
    case 8:
        KNOWN("reply-to", MIME_REPLY_TO);
        break;
    case 10:
        KNOWN("message-id", MIME_MESSAGE_ID);
        KNOWN("references", MIME_REFERENCES);
        KNOWN("content-id", MIME_CONTENT_ID);
        break;
    case 11:
        KNOWN("in-reply-to", MIME_IN_REPLY_TO);
        KNOWN("content-md5", MIME_CONTENT_MD5);
        break;
    case 12:
        KNOWN("content-type", MIME_CONTENT_TYPE);
        break;
    case 16:
        KNOWN("content-language", MIME_CONTENT_LANGUAGE);
        KNOWN("content-location", MIME_CONTENT_LOCATION);
        break;
    case 19:
        KNOWN("content-description", MIME_CONTENT_DESCRIPTION);
        KNOWN("content-disposition", MIME_CONTENT_DISPOSITION);
        break;
    case 25:
        KNOWN("content-transfer-encoding", MIME_CONTENT_ENCODING);
        break;
    default:
        break;
    }
    return MIME_FIELDS;
}

void tb_mime_fields_read(struct tb_slice header, struct tb_mime_fields *f)
{
    struct tb_slice field, name, value, rest = header;
    *f = (struct tb_mime_fields){.header = header};
    while (tb_header_next(&rest, &field, &name, &value)) {
        enum tb_mime_field id = tb_mime_field_of(name);
        if (id == MIME_FIELDS)
            continue;
        if (f->count[id]++ == 0)
            f->value[id] = value;
    }
}
