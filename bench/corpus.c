/*
 * corpus.c: the messages that are sent, and the proof that a message came back as it was sent.
 *
 * Every message is kept in the form that goes over the wire, so that sending copies nothing, and is found again by its
 * size and compared byte by byte: no hash can be fooled. What the server put in front (RFC 5321 4.4: Return-Path,
 * Received; Delivered-To and others by custom) is skipped field by field.
 *
 * Never changes a message but for LF to CRLF. Read-only once loaded, so all threads share it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

enum { TRACE_FIELDS_MAX = 32, PATH_BYTES_MAX = 4096, DEPTH_MAX = 16 };
enum { CORPUS_FILE_BYTES_MAX = 256 << 20, CORPUS_MESSAGES_MAX = 16 << 20 };

uint64_t bench_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* May these bytes be sent as message data? RFC 5321 2.3.8: CR and LF only as CRLF; NUL servers may refuse or replace.
 */
static bool sendable(struct tb_slice raw)
{
    if (raw.len == 0 || memchr(raw.ptr, '\0', raw.len) != NULL)
        return false;
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    while ((p = memchr(p, '\r', (size_t)(end - p))) != NULL) {
        if (p + 1 == end || p[1] != '\n')
            return false;
        p += 2;
    }
    return true;
}

/* Append raw with CRLF line ends; stuffed: a second dot before a line's leading dot. Returns whether any dot was added.
 */
static bool put_lines(struct tb_buf *out, struct tb_slice raw, bool stuffed)
{
    bool any = false;
    const char *p = raw.ptr, *end = raw.ptr + raw.len;
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *text_end = nl != NULL ? nl : end;
        if (nl != NULL && nl > p && nl[-1] == '\r')
            text_end--;
        if (stuffed && *p == '.') {
            tb_buf_char(out, '.');
            any = true;
        }
        tb_buf_put(out, p, (size_t)(text_end - p));
        tb_buf_str(out, "\r\n");
        p = nl != NULL ? nl + 1 : end;
    }
    return any;
}

static bool has_eight_bit(struct tb_slice s)
{
    unsigned char all = 0;
    for (size_t i = 0; i < s.len; i++)
        all |= (unsigned char)s.ptr[i];
    return (all & 0x80) != 0;
}

static bool grow(struct bench_corpus *c)
{
    if (c->n < c->cap)
        return true;
    size_t cap = c->cap ? c->cap * 2 : 1024;
    if (cap > CORPUS_MESSAGES_MAX)
        return false;
    struct bench_message *v = realloc(c->v, cap * sizeof *v);
    if (v == NULL)
        return false;
    c->v = v;
    c->cap = cap;
    return true;
}

enum tb_rc bench_corpus_add(struct bench_corpus *c, struct tb_slice raw)
{
    if (!sendable(raw)) {
        c->skipped++;
        return TB_OK;
    }
    if (!grow(c))
        return TB_LIMIT;
    struct tb_buf wire, content;
    tb_buf_init(&wire, (size_t)CORPUS_FILE_BYTES_MAX * 3);
    tb_buf_init(&content, (size_t)CORPUS_FILE_BYTES_MAX * 3);
    (void)tb_buf_reserve(&wire, raw.len + raw.len / 32 + 64); /* as a rule enough; if it failed, so do the puts */
    bool dots = put_lines(&wire, raw, true);
    size_t content_len = wire.len;
    tb_buf_str(&wire, ".\r\n");
    if (dots)
        put_lines(&content, raw, false);
    if (wire.failed || content.failed) {
        tb_buf_free(&wire);
        tb_buf_free(&content);
        return TB_LIMIT;
    }
    struct bench_message *m = &c->v[c->n++];
    m->wire = tb_buf_all(&wire);
    m->content = dots ? tb_buf_all(&content) : tb_slice(wire.ptr, content_len);
    m->eight_bit = has_eight_bit(m->content);
    c->bytes += m->content.len;
    return TB_OK;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && memcmp(name + n - m, end, m) == 0;
}

static enum tb_rc load_file(struct bench_corpus *c, struct tb_io *io, const char *path, struct tb_error *err)
{
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, TB_IO, -fd, "cannot open %s", path);
    enum tb_rc rc = TB_OK;
    char *raw = NULL;
    int64_t size = tb_io_file_size(io, fd);
    if (size < 0 || size > CORPUS_FILE_BYTES_MAX) {
        rc = tb_error_set(err, TB_LIMIT, 0, "%s is not of a usable size", path);
        goto close_file;
    }
    raw = malloc((size_t)size + 1);
    if (raw == NULL) {
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "no memory for the corpus");
        goto close_file;
    }
    int64_t got = tb_io_pread(io, fd, raw, (size_t)size, 0);
    if (got != size)
        rc = tb_error_set(err, TB_IO, got < 0 ? (int)-got : EIO, "cannot read %s", path);
    else if (bench_corpus_add(c, tb_slice(raw, (size_t)size)) != TB_OK)
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "no memory for the corpus");
    free(raw);
close_file:
    (void)tb_io_file_close(io, fd); /* only read from */
    return rc;
}

/* One folder's entries, sorted: the order of a directory is not the same on every machine. */
struct names {
    char **v; /* owned */
    size_t n, cap;
    bool failed;
};

static bool name_add(void *user, const char *name)
{
    struct names *names = user;
    if (names->n == names->cap) {
        size_t cap = names->cap ? names->cap * 2 : 256;
        char **v = realloc(names->v, cap * sizeof *v);
        if (v == NULL) {
            names->failed = true;
            return false;
        }
        names->v = v;
        names->cap = cap;
    }
    names->v[names->n] = strdup(name);
    if (names->v[names->n] == NULL) {
        names->failed = true;
        return false;
    }
    names->n++;
    return true;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
}

/* Recursion is bounded: DEPTH_MAX folders deep. What is neither a folder nor NAME.eml is passed over. */
static enum tb_rc load_folder(struct bench_corpus *c, struct tb_io *io, const char *dir, int depth,
                              struct tb_error *err)
{
    struct names names = {0};
    int listed = tb_io_list(io, dir, name_add, &names);
    enum tb_rc rc = TB_OK;
    if (listed < 0 && depth == 0)
        rc = tb_error_set(err, TB_NOTFOUND, -listed, "cannot list the corpus folder %s", dir);
    else if (names.failed)
        rc = tb_error_set(err, TB_LIMIT, ENOMEM, "no memory for the corpus");
    if (names.n > 0)
        qsort(names.v, names.n, sizeof *names.v, name_compare);
    for (size_t i = 0; rc == TB_OK && i < names.n; i++) {
        char path[PATH_BYTES_MAX];
        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, names.v[i]) >= sizeof path)
            rc = tb_error_set(err, TB_LIMIT, 0, "a path below %s is too long", dir);
        else if (ends_with(names.v[i], ".eml"))
            rc = load_file(c, io, path, err);
        else if (depth < DEPTH_MAX && strchr(names.v[i], '.') == NULL)
            rc = load_folder(c, io, path, depth + 1, err);
    }
    names_free(&names);
    return rc;
}

enum tb_rc bench_corpus_load(struct bench_corpus *c, struct tb_io *io, const char *dir, struct tb_error *err)
{
    size_t before = c->n;
    enum tb_rc rc = load_folder(c, io, dir, 0, err);
    if (rc == TB_OK && c->n == before)
        return tb_error_set(err, TB_NOTFOUND, 0, "no usable *.eml below %s", dir);
    return rc;
}

static int size_compare(const void *a, const void *b, void *user)
{
    const struct bench_corpus *c = user;
    size_t x = c->v[*(const uint32_t *)a].content.len, y = c->v[*(const uint32_t *)b].content.len;
    return (x > y) - (x < y);
}

enum tb_rc bench_corpus_finish(struct bench_corpus *c, uint64_t seed)
{
    for (size_t i = c->n; i > 1; i--) {
        size_t j = bench_random(&seed) % i;
        struct bench_message swap = c->v[i - 1];
        c->v[i - 1] = c->v[j];
        c->v[j] = swap;
    }
    free(c->by_size);
    c->by_size = malloc((c->n + 1) * sizeof *c->by_size);
    if (c->by_size == NULL)
        return TB_LIMIT;
    for (size_t i = 0; i < c->n; i++)
        c->by_size[i] = (uint32_t)i;
    qsort_r(c->by_size, c->n, sizeof *c->by_size, size_compare, c);
    return TB_OK;
}

static bool is_message(const struct bench_corpus *c, struct tb_slice s)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->v[c->by_size[mid]].content.len < s.len)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < c->n && c->v[c->by_size[low]].content.len == s.len; low++) {
        if (tb_slice_eq(c->v[c->by_size[low]].content, s))
            return true;
    }
    return false;
}

/* The bytes behind the header field that s begins with, its folded lines included (RFC 5322 2.2.3); {NULL,0}: none
 * there. */
static struct tb_slice next_field(struct tb_slice s)
{
    const char *p = s.ptr, *end = s.ptr + s.len;
    if (s.len == 0 || *p == '\r' || *p == '\n')
        return (struct tb_slice){0};
    do {
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL)
            return (struct tb_slice){0};
        p++;
    } while (p < end && (*p == ' ' || *p == '\t'));
    return tb_slice(p, (size_t)(end - p));
}

bool bench_corpus_has(const struct bench_corpus *c, struct tb_slice body)
{
    for (int field = 0; field <= TRACE_FIELDS_MAX && body.ptr != NULL; field++) {
        if (is_message(c, body))
            return true;
        body = next_field(body);
    }
    return false;
}

void bench_corpus_free(struct bench_corpus *c)
{
    for (size_t i = 0; i < c->n; i++) {
        if (c->v[i].content.ptr != c->v[i].wire.ptr)
            free((void *)(uintptr_t)c->v[i].content.ptr);
        free((void *)(uintptr_t)c->v[i].wire.ptr);
    }
    free(c->v);
    free(c->by_size);
    *c = (struct bench_corpus){0};
}
