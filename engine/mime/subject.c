/*
 * subject.c: what threading needs of a header: the base subject, the message ids.
 *
 * Linear in the input and bounded in what it writes. Pure. RFC 5256 2.1 (base subject), RFC 5322 3.6.4 (message ids).
 */
#include "engine/mime/mime.h"

/* ---- base subject ---- */

static struct tb_slice skip(struct tb_slice s, size_t n)
{
    return tb_slice(s.ptr + n, s.len - n);
}

static struct tb_slice skip_blanks(struct tb_slice s)
{
    while (s.len > 0 && s.ptr[0] == ' ')
        s = skip(s, 1);
    return s;
}

/* subj-blob: "[" *BLOBCHAR "]" *WSP. Its length, 0 if there is none. */
static size_t blob_len(struct tb_slice s)
{
    if (s.len == 0 || s.ptr[0] != '[')
        return 0;
    size_t n = 1;
    while (n < s.len && s.ptr[n] != '[' && s.ptr[n] != ']')
        n++;
    if (n == s.len || s.ptr[n] != ']')
        return 0;
    n++;
    while (n < s.len && s.ptr[n] == ' ')
        n++;
    return n;
}

/* subj-refwd: ("re" / ("fw" ["d"])) *WSP [subj-blob] ":". Its length, 0 if there is none. */
static size_t refwd_len(struct tb_slice s)
{
    size_t n = 2;
    if (tb_slice_istarts(s, TB_SLICE("fwd")))
        n = 3;
    else if (!tb_slice_istarts(s, TB_SLICE("fw")) && !tb_slice_istarts(s, TB_SLICE("re")))
        return 0;
    while (n < s.len && s.ptr[n] == ' ')
        n++;
    n += blob_len(skip(s, n));
    return n < s.len && s.ptr[n] == ':' ? n + 1 : 0;
}

/* RFC 5256 2.1 (2): subj-trailer = "(fwd)" / WSP. */
static struct tb_slice strip_trailers(struct tb_slice s, bool *reply)
{
    for (;;) {
        if (s.len > 0 && s.ptr[s.len - 1] == ' ')
            s.len--;
        else if (s.len >= 5 && tb_slice_ieq(tb_slice_sub(s, s.len - 5, 5), TB_SLICE("(fwd)"))) {
            s.len -= 5;
            *reply = true;
        } else {
            return s;
        }
    }
}

/*
 * RFC 5256 2.1 (3) to (5): leaders and blobs. A run of blobs without a refwd behind it falls blob by blob, but for the
 * last when nothing follows it; taking the run at once keeps this linear.
 */
static struct tb_slice strip_leaders(struct tb_slice s, bool *reply)
{
    for (;;) {
        s = skip_blanks(s);
        struct tb_slice after = s, last = s;
        size_t n;
        while ((n = blob_len(after)) > 0) {
            last = after;
            after = skip(after, n);
        }
        if ((n = refwd_len(after)) > 0) {
            s = skip(after, n);
            *reply = true;
            continue;
        }
        return after.len > 0 ? after : last;
    }
}

static struct tb_slice base_of(struct tb_slice s, bool *reply)
{
    for (;;) {
        s = strip_leaders(strip_trailers(s, reply), reply);
        if (!tb_slice_istarts(s, TB_SLICE("[fwd:")) || s.ptr[s.len - 1] != ']')
            return s;
        s = tb_slice(s.ptr + 5, s.len - 6); /* (6) */
        *reply = true;
    }
}

/* (1): tabs to spaces, runs of spaces to one. In place. */
static void squeeze(struct tb_buf *b)
{
    size_t to = 0;
    for (size_t i = 0; i < b->len; i++) {
        char c = b->ptr[i] == '\t' ? ' ' : b->ptr[i];
        if (c != ' ' || to == 0 || b->ptr[to - 1] != ' ')
            b->ptr[to++] = c;
    }
    b->len = to;
}

bool tb_mime_subject_base(struct tb_slice subject, struct tb_buf *scratch, struct tb_buf *out)
{
    bool reply = false;
    scratch->len = 0;
    tb_header_text(tb_slice_sub(subject, 0, MIME_STRING_MAX), scratch);
    squeeze(scratch);
    struct tb_slice base = base_of(tb_buf_all(scratch), &reply);
    if (base.len > MIME_BASE_MAX) {
        base.len = MIME_BASE_MAX;
        while (base.len > 0 && ((unsigned char)base.ptr[base.len] & 0xc0) == 0x80)
            base.len--;
    }
    tb_buf_slice(out, base);
    return reply;
}

/* ---- message ids ---- */

/* Between the angle brackets: no blanks, no comments' meaning, quotes undone. */
static void put_id(struct tb_slice id, struct tb_buf *out)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        if (tb_mime_blank(c) || c == '"' || c == 0)
            continue;
        if (c == '\\' && i + 1 < id.len && !tb_mime_blank(id.ptr[i + 1]) && id.ptr[i + 1] != 0)
            c = id.ptr[++i];
        tb_mime_put_char(out, c);
    }
}

bool tb_mime_message_id(struct tb_slice *value, struct tb_buf *out)
{
    for (;;) {
        const char *open = value->len > 0 ? memchr(value->ptr, '<', value->len) : NULL;
        if (open == NULL)
            return false;
        const char *end = value->ptr + value->len, *p = open + 1;
        while (p < end && *p != '>' && *p != '<')
            p++;
        *value = tb_slice(p, (size_t)(end - p));
        size_t before = out->len;
        if (p < end && *p == '>' && p - open <= MIME_ID_MAX)
            put_id(tb_slice(open + 1, (size_t)(p - open - 1)), out);
        if (out->len > before)
            return true;
    }
}

/* Is id one of the space-separated ids in list? */
static bool id_in(struct tb_slice list, struct tb_slice id)
{
    while (list.len > 0) {
        const char *space = memchr(list.ptr, ' ', list.len);
        size_t n = space == NULL ? list.len : (size_t)(space - list.ptr);
        if (tb_slice_eq(tb_slice(list.ptr, n), id))
            return true;
        list = skip(list, space == NULL ? n : n + 1);
    }
    return false;
}

/* Keep the first id and as many of the last as fit; the thread's root and the nearest parents matter most. */
static void put_bounded(struct tb_slice ids, struct tb_buf *out)
{
    if (ids.len <= MIME_REFERENCES_MAX) {
        tb_buf_slice(out, ids);
        return;
    }
    const char *space = memchr(ids.ptr, ' ', ids.len);
    size_t first = space == NULL ? ids.len : (size_t)(space - ids.ptr);
    tb_mime_put(out, ids.ptr, first);
    struct tb_slice rest = skip(ids, ids.len - (MIME_REFERENCES_MAX - first));
    space = memchr(rest.ptr, ' ', rest.len);
    if (space != NULL)
        tb_mime_put(out, space, (size_t)(rest.ptr + rest.len - space));
}

void tb_mime_references_write(const struct tb_mime_fields *f, struct tb_buf *scratch, struct tb_buf *out)
{
    enum { REPLIED_MAX = 8 };
    struct tb_slice value = f->value[MIME_REFERENCES];
    scratch->len = 0;
    while (tb_mime_message_id(&value, scratch))
        tb_mime_put_char(scratch, ' ');
    if (scratch->len > 0)
        scratch->len--;
    size_t tab = scratch->len;
    tb_mime_put_char(scratch, '\t');
    value = f->value[MIME_IN_REPLY_TO];
    for (int i = 0; i < REPLIED_MAX; i++) {
        size_t before = scratch->len;
        if (!tb_mime_message_id(&value, scratch))
            break;
        struct tb_slice all = tb_buf_all(scratch), id = skip(all, before);
        if (id_in(tb_slice(all.ptr, tab), id) || id_in(tb_slice(all.ptr + tab + 1, before - tab - 1), id))
            scratch->len = before;
        else
            tb_mime_put_char(scratch, ' ');
    }
    if (scratch->failed) {
        out->failed = true;
        return;
    }
    scratch->len--; /* the last blank, or the tab with nothing behind it */
    bool cut = scratch->len > MIME_REFERENCES_MAX && tab > 0;
    put_bounded(tb_slice(scratch->ptr, cut ? tab : scratch->len), out);
}
