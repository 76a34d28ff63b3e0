/*
 * manifest.c: a backup's list of files as text, and back.
 *
 * The last line is the digest of all the lines above it, so a torn or changed manifest is none. Parsing trusts nothing:
 * numbers are bounded, names are made from numbers and never taken from the text. Thread: any.
 */
#include "engine/store/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { TEXT_MAX = 256 << 20, LINE_MAX_BYTES = 512, WORDS_MAX = 9, PARTS_MAX = 1 << 22 };
static const char *const kinds[] = {[TB_PART_INDEX] = "index", [TB_PART_LOG] = "log", [TB_PART_DICT] = "dict"};

void tb_manifest_free(struct tb_manifest *m)
{
    free(m->part);
    m->part = NULL;
    m->n = m->cap = 0;
}

bool tb_manifest_add(struct tb_manifest *m, const struct tb_part *p)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 64;
        struct tb_part *v = cap <= PARTS_MAX ? realloc(m->part, cap * sizeof(*v)) : NULL;
        if (v == NULL)
            return false;
        m->part = v;
        m->cap = cap;
    }
    m->part[m->n++] = *p;
    return true;
}

const struct tb_part *tb_manifest_find(const struct tb_manifest *m, const struct tb_part *like)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct tb_part *p = &m->part[i];
        if (p->kind == like->kind && p->shard == like->shard && p->number == like->number && p->from == like->from &&
            p->to == like->to)
            return p;
    }
    return NULL;
}

const struct tb_part *tb_manifest_index(const struct tb_manifest *m, uint32_t shard)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->part[i].kind == TB_PART_INDEX && m->part[i].shard == shard)
            return &m->part[i];
    return NULL;
}

void tb_part_name(const struct tb_part *p, char out[TB_PART_PATH])
{
    if (p->kind == TB_PART_INDEX)
        (void)snprintf(out, TB_PART_PATH, "shard-%02x/index-%016" PRIx64, p->shard, p->from);
    else if (p->kind == TB_PART_LOG)
        (void)snprintf(out, TB_PART_PATH, "shard-%02x/log/%08x-%08" PRIx64 "-%08" PRIx64, p->shard, p->number, p->from,
                       p->to);
    else
        (void)snprintf(out, TB_PART_PATH, "shard-%02x/dict/%04x", p->shard, p->number);
}

/* hex: exactly n digits, lower case. */
static bool hex(const char **s, unsigned n, uint64_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < n; i++, ++*s) {
        char c = **s;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        *out = *out << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

bool tb_part_read(const char *name, struct tb_part *out)
{
    uint64_t number = 0;
    bool good;
    size_t len = strlen(name);
    out->from = out->to = 0;
    if (strncmp(name, "index-", 6) == 0) {
        out->kind = TB_PART_INDEX;
        name += 6;
        good = hex(&name, 16, &out->from);
    } else if (len == 4) {
        out->kind = TB_PART_DICT;
        good = hex(&name, 4, &number);
    } else {
        out->kind = TB_PART_LOG;
        good = hex(&name, 8, &number) && *name++ == '-' && hex(&name, 8, &out->from) && *name++ == '-' &&
               hex(&name, 8, &out->to);
    }
    out->number = (uint32_t)number;
    return good && *name == '\0';
}

void tb_part_path(const char *dest, const struct tb_part *p, char out[TB_PART_PATH])
{
    char name[TB_PART_PATH];
    tb_part_name(p, name);
    (void)snprintf(out, TB_PART_PATH, "%.1000s/%.90s", dest, name);
}

/* ---- writing ---- */

static void line(struct tb_buf *out, const char *fmt, ...) TB_PRINTF(2, 3);
static void line(struct tb_buf *out, const char *fmt, ...)
{
    char text[LINE_MAX_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    TB_ASSERT(n > 0 && n < (int)sizeof(text));
    tb_buf_put(out, text, (size_t)n);
    tb_buf_char(out, '\n');
}

static void part_line(struct tb_buf *out, const struct tb_part *p)
{
    char hex[2 * TB_SHA256_BYTES + 1];
    tb_hex(p->sha256, sizeof(p->sha256), hex);
    line(out, "%s %u %u %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %s", kinds[p->kind], p->shard, p->number,
         p->from, p->to, p->bytes, p->time_ms, hex);
}

void tb_manifest_text(const struct tb_manifest *m, struct tb_buf *out)
{
    char hex[2 * sizeof(m->super) + 1];
    struct tb_sha256 sha;
    uint8_t digest[TB_SHA256_BYTES];
    tb_buf_init(out, TEXT_MAX);
    line(out, "tambo-backup %u", (unsigned)TB_FORMAT);
    line(out, "run %u", m->run);
    line(out, "time %" PRId64, m->time_ms);
    tb_hex(&m->super, sizeof(m->super), hex);
    line(out, "super %s", hex);
    for (uint32_t i = 0; i < m->super.shards; i++) {
        const struct tb_manifest_shard *s = &m->shard[i];
        line(out, "shard %u %" PRIu64 " %" PRIu64 " %u %" PRId64, i, s->end, s->last, s->chain, s->time_ms);
    }
    for (size_t i = 0; i < m->n; i++)
        part_line(out, &m->part[i]);
    if (out->failed)
        return;
    tb_sha256_init(&sha);
    tb_sha256_update(&sha, out->ptr, out->len);
    tb_sha256_final(&sha, digest);
    tb_hex(digest, sizeof(digest), hex);
    line(out, "sha256 %s", hex);
}

/* ---- reading ---- */

struct words {
    struct tb_slice v[WORDS_MAX];
    size_t n;
};

static bool next_line(struct tb_slice *text, struct words *w)
{
    const char *lf = text->len ? memchr(text->ptr, '\n', text->len) : NULL;
    if (lf == NULL)
        return false;
    struct tb_slice rest = tb_slice(text->ptr, (size_t)(lf - text->ptr));
    *text = tb_slice_sub(*text, rest.len + 1, text->len);
    for (w->n = 0; w->n < WORDS_MAX && rest.len > 0; w->n++) {
        const char *blank = memchr(rest.ptr, ' ', rest.len);
        size_t n = blank != NULL ? (size_t)(blank - rest.ptr) : rest.len;
        w->v[w->n] = tb_slice(rest.ptr, n);
        rest = tb_slice_sub(rest, n + 1, rest.len);
    }
    return w->n > 0 && rest.len == 0;
}

static bool number(struct tb_slice s, uint64_t max, uint64_t *out)
{
    return tb_slice_u64(s, max, out);
}

static bool unhex(struct tb_slice s, void *out, size_t len)
{
    uint8_t *p = out;
    if (s.len != 2 * len)
        return false;
    for (size_t i = 0; i < 2 * len; i++) {
        char c = s.ptr[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0)
            return false;
        p[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : p[i / 2] | v);
    }
    return true;
}

static bool part_read(const struct words *w, struct tb_manifest *m)
{
    struct tb_part p = {0};
    uint64_t v[6];
    static const uint64_t max[6] = {TB_SHARDS_MAX - 1, UINT32_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    for (size_t i = 0; i < 6; i++)
        if (w->n != 8 || !number(w->v[i + 1], max[i], &v[i]))
            return false;
    for (unsigned k = 0; k < TB_ARRAY_LEN(kinds); k++)
        if (tb_slice_eq(w->v[0], tb_slice_str(kinds[k])))
            p.kind = (enum tb_part_kind)k;
    p.shard = (uint32_t)v[0];
    p.number = (uint32_t)v[1];
    p.from = v[2];
    p.to = v[3];
    p.bytes = v[4];
    p.time_ms = (int64_t)v[5];
    bool good = tb_slice_eq(w->v[0], tb_slice_str(kinds[p.kind])) && unhex(w->v[7], p.sha256, sizeof(p.sha256)) &&
                p.shard < m->super.shards;
    if (p.kind == TB_PART_LOG)
        good = good && p.from < p.to && p.to <= m->super.segment_bytes && p.bytes == p.to - p.from;
    return good && tb_manifest_add(m, &p);
}

static bool shard_read(const struct words *w, struct tb_manifest *m)
{
    uint64_t i, end, last, chain, ms;
    if (w->n != 6 || !number(w->v[1], m->super.shards - 1, &i) || !number(w->v[2], INT64_MAX, &end) ||
        !number(w->v[3], INT64_MAX, &last) || !number(w->v[4], UINT32_MAX, &chain) || !number(w->v[5], INT64_MAX, &ms))
        return false;
    m->shard[i] = (struct tb_manifest_shard){end, last, (uint32_t)chain, (int64_t)ms};
    return true;
}

static bool is(const struct words *w, const char *word)
{
    return tb_slice_eq(w->v[0], tb_slice_str(word));
}

/* head_read: the four lines that a manifest begins with. */
static bool head_read(struct tb_slice *text, struct tb_manifest *m)
{
    struct words w;
    uint64_t format, run, ms;
    bool good = next_line(text, &w) && is(&w, "tambo-backup") && w.n == 2 && number(w.v[1], TB_FORMAT, &format) &&
                format >= TB_FORMAT_OLDEST;
    good = good && next_line(text, &w) && is(&w, "run") && w.n == 2 && number(w.v[1], UINT32_MAX, &run);
    good = good && next_line(text, &w) && is(&w, "time") && w.n == 2 && number(w.v[1], INT64_MAX, &ms);
    good = good && next_line(text, &w) && is(&w, "super") && w.n == 2 && unhex(w.v[1], &m->super, sizeof(m->super)) &&
           m->super.shards > 0 && m->super.shards <= TB_SHARDS_MAX && m->super.segment_bytes >= 4u << 20 &&
           m->super.segment_bytes <= 256u << 20;
    if (!good)
        return false;
    m->run = (uint32_t)run;
    m->time_ms = (int64_t)ms;
    return true;
}

enum tb_rc tb_manifest_parse(struct tb_slice text, const char *name, struct tb_manifest *out, struct tb_error *err)
{
    struct words w;
    struct tb_sha256 sha;
    uint8_t digest[TB_SHA256_BYTES], said[TB_SHA256_BYTES];
    const size_t tail = 7 + 2 * TB_SHA256_BYTES + 1;
    memset(out, 0, sizeof(*out));
    bool good = text.len > tail;
    struct tb_slice body = tb_slice(text.ptr, good ? text.len - tail : 0), last = tb_slice_sub(text, body.len, tail);
    if (good) {
        tb_sha256_init(&sha);
        tb_sha256_update(&sha, body.ptr, body.len);
        tb_sha256_final(&sha, digest);
        good = next_line(&last, &w) && is(&w, "sha256") && w.n == 2 && unhex(w.v[1], said, sizeof(said)) &&
               memcmp(said, digest, sizeof(said)) == 0;
    }
    if (!good)
        return tb_error_set(err, TB_CORRUPT, 0, "%s is damaged: it does not have its digest", name);
    good = head_read(&body, out);
    while (good && body.len > 0)
        good = next_line(&body, &w) && (is(&w, "shard") ? shard_read(&w, out) : part_read(&w, out));
    for (uint32_t i = 0; good && i < out->super.shards; i++)
        good = out->shard[i].end != 0 && tb_manifest_index(out, i) != NULL;
    if (good)
        return TB_OK;
    tb_manifest_free(out);
    return tb_error_set(err, TB_CORRUPT, 0, "%s is no backup's manifest that this program can read", name);
}

/* ---- files ---- */

static void manifest_path(const char *dest, uint32_t run, const char *suffix, char out[TB_PART_PATH])
{
    (void)snprintf(out, TB_PART_PATH, "%.1000s/manifest-%08u%s", dest, run, suffix);
}

enum tb_rc tb_manifest_read(struct tb_io *io, const char *dest, uint32_t run, struct tb_manifest *out,
                            struct tb_error *err)
{
    char path[TB_PART_PATH];
    manifest_path(dest, run, "", path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, fd == -ENOENT ? TB_NOTFOUND : TB_IO, -fd, "%s cannot be opened", path);
    int64_t size = tb_io_file_size(io, fd);
    char *text = size > 0 && size <= TEXT_MAX ? malloc((size_t)size) : NULL;
    int64_t n = text != NULL ? tb_io_pread(io, fd, text, (size_t)size, 0) : 0;
    (void)tb_io_file_close(io, fd);
    enum tb_rc rc = n < 0 ? tb_error_set(err, TB_IO, (int)-n, "%s cannot be read", path)
                          : tb_manifest_parse(tb_slice(text, (size_t)n), path, out, err);
    if (rc == TB_OK && out->run != run) {
        tb_manifest_free(out);
        rc = tb_error_set(err, TB_CORRUPT, 0, "%s is another backup's manifest", path);
    }
    free(text);
    return rc;
}

enum tb_rc tb_manifest_write(struct tb_io *io, const char *dest, const struct tb_manifest *m, struct tb_error *err)
{
    char path[TB_PART_PATH], fresh[TB_PART_PATH];
    struct tb_buf text;
    manifest_path(dest, m->run, "", path);
    manifest_path(dest, m->run, ".new", fresh);
    tb_manifest_text(m, &text);
    if (text.failed) {
        tb_buf_free(&text);
        return tb_error_set(err, TB_LIMIT, ENOMEM, "%s", path);
    }
    (void)tb_io_unlink(io, fresh); /* debris of an earlier one, usually absent */
    int fd = tb_io_file_open(io, fresh, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
    int64_t n = fd < 0 ? fd : tb_io_pwrite(io, fd, text.ptr, text.len, 0);
    int rc = n < 0 ? (int)n : n != (int64_t)text.len ? -EIO : tb_io_sync(io, fd);
    if (fd >= 0)
        (void)tb_io_file_close(io, fd);
    if (rc == 0)
        rc = tb_io_rename(io, fresh, path);
    if (rc == 0)
        rc = tb_io_sync_dir(io, dest);
    tb_buf_free(&text);
    return rc < 0 ? tb_error_set(err, rc == -ENOSPC ? TB_NOSPACE : TB_IO, -rc, "%s cannot be written", path) : TB_OK;
}

struct runs {
    uint32_t *v;
    size_t n, cap;
    bool failed;
};

static bool run_found(void *user, const char *name)
{
    struct runs *r = user;
    uint64_t run;
    if (strncmp(name, "manifest-", 9) != 0 || !tb_slice_u64(tb_slice_str(name + 9), UINT32_MAX, &run) || run == 0)
        return true;
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 16;
        uint32_t *v = realloc(r->v, cap * sizeof(*v));
        if (v == NULL) {
            r->failed = true;
            return false;
        }
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n++] = (uint32_t)run;
    return true;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

enum tb_rc tb_manifest_runs(struct tb_io *io, const char *dest, uint32_t **runs, size_t *n, struct tb_error *err)
{
    struct runs r = {0};
    *runs = NULL;
    *n = 0;
    int rc = tb_io_list(io, dest, run_found, &r);
    if (rc < 0 || r.failed) {
        free(r.v);
        return tb_error_set(err,
                            r.failed        ? TB_LIMIT
                            : rc == -ENOENT ? TB_NOTFOUND
                                            : TB_IO,
                            rc < 0 ? -rc : ENOMEM, "%s cannot be read", dest);
    }
    if (r.n > 0)
        qsort(r.v, r.n, sizeof(*r.v), ascending);
    *runs = r.v;
    *n = r.n;
    return TB_OK;
}
