/*
 * part.c: the streaming scanner: lines, boundaries, header blocks, the tree of entities.
 *
 * It must never hold a body, recurse, or give another answer for another split of the same bytes: whatever it decides
 * it decides at the end of a line, from at most MIME_LINE_KEEP bytes of it and the position.
 *
 * P1 The open entities are a path from the root; only the innermost one can be in its header.
 *
 * P2 An entity's range lies within its parent's body, but for the blank line of a part that has no body.
 *
 * P3 A boundary is active while its multipart is open and its close-delimiter has not been seen; innermost wins.
 *
 * P4 After `sealed` (a limit was reached) no boundary is looked for: the innermost entity takes the rest of the
 * message.
 *
 * P5 The costs promised by the parts' pieces never pass TB_MIME_TEXT_MAX: text_used + MIME_TEXT_COST_OPAQUE fits.
 *
 * Cost: one pass of sixteen bytes a step over bodies; a line that begins with "--" is hashed with a key that senders
 * cannot know. Thread: one scanner is used by one thread at a time. RFC 2046 5.1.1 (boundaries), 5.1.5 (digest), 5.2.1
 * (message/rfc822); RFC 5322 2.1, 2.2.
 */
#include "engine/mime/mime.h"

#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { TEXTS_MAX = 8 << 20, PARTS_FIRST = 8 };

/* ---- life ---- */

static void bufs_init(struct tb_mime *m)
{
    tb_buf_init(&m->header, TB_MIME_HEADER_MAX);
    tb_buf_init(&m->boundaries, TB_MIME_DEPTH_MAX * (MIME_BOUNDARY_MAX + 1));
    tb_buf_init(&m->pieces, TEXTS_MAX);
    tb_buf_init(&m->envelope, TEXTS_MAX);
    tb_buf_init(&m->bodystructure, TEXTS_MAX);
    tb_buf_init(&m->table, TEXTS_MAX);
    tb_buf_init(&m->subject_base, TEXTS_MAX);
    tb_buf_init(&m->references, TEXTS_MAX);
    tb_buf_init(&m->message_id, TEXTS_MAX);
}

static void each_buf(struct tb_mime *m, void (*fn)(struct tb_buf *b))
{
    fn(&m->header);
    fn(&m->boundaries);
    fn(&m->pieces);
    fn(&m->envelope);
    fn(&m->bodystructure);
    fn(&m->table);
    fn(&m->subject_base);
    fn(&m->references);
    fn(&m->message_id);
}

static void trim_buf(struct tb_buf *b)
{
    if (b->cap > MIME_KEEP_BYTES || b->failed)
        tb_buf_free(b);
    b->len = 0;
}

static void part_open(struct tb_mime *m, uint64_t header_offset);

struct tb_mime *tb_mime_new(void)
{
    struct tb_mime *m = calloc(1, sizeof(*m));
    if (m == NULL)
        return NULL;
    bufs_init(m);
    tb_mime_scratch_init(&m->scratch);
    /* Where the heap is, nobody outside knows; the key only spreads hash chains and never shows in a result. */
    uintptr_t here = (uintptr_t)m, code = (uintptr_t)&m->hash_key;
    memcpy(m->hash_key, &here, sizeof(here));
    memcpy(m->hash_key + 8, &code, sizeof(code));
    tb_mime_reset(m);
    return m;
}

void tb_mime_free(struct tb_mime *m)
{
    if (m == NULL)
        return;
    each_buf(m, tb_buf_free);
    tb_mime_scratch_free(&m->scratch);
    free(m->parts);
    free(m);
}

void tb_mime_reset(struct tb_mime *m)
{
    each_buf(m, trim_buf);
    tb_mime_scratch_trim(&m->scratch);
    if (m->parts_cap > MIME_KEEP_BYTES / sizeof(*m->parts)) {
        free(m->parts);
        m->parts = NULL;
        m->parts_cap = 0;
    }
    m->line_start = m->line_len = m->lines = 0;
    m->eol = m->keep_len = 0;
    m->sealed = m->finished = m->nomem = false;
    m->depth = m->parts_n = 0;
    m->text_used = 0;
    memset(m->slots, 0, sizeof(m->slots));
    part_open(m, 0);
}

/* ---- boundaries ---- */

static struct tb_slice boundary_at(const struct tb_mime *m, uint32_t level)
{
    return tb_slice(m->boundaries.ptr + m->open[level].boundary_at, m->open[level].boundary_len);
}

static void boundary_push(struct tb_mime *m, uint32_t level, struct tb_slice b)
{
    struct tb_mime_open *o = &m->open[level];
    o->boundary_at = (uint32_t)m->boundaries.len;
    o->boundary_len = (uint32_t)b.len;
    o->key = tb_siphash(m->hash_key, b.ptr, b.len);
    o->slot = (uint8_t)o->key;
    o->below = m->slots[o->slot];
    m->slots[o->slot] = (uint8_t)(level + 1);
    tb_buf_slice(&m->boundaries, b);
}

/* Boundaries fall in the reverse order of their coming (P1), so the chain's head is always the one to go. */
static void boundary_pop(struct tb_mime *m, uint32_t level)
{
    struct tb_mime_open *o = &m->open[level];
    if (o->boundary_len == 0)
        return;
    m->slots[o->slot] = o->below;
    m->boundaries.len = o->boundary_at;
    o->boundary_len = 0;
}

/* The innermost level with exactly this boundary, + 1; 0 if none. */
static uint32_t boundary_find(const struct tb_mime *m, struct tb_slice b)
{
    if (b.len == 0 || b.len > MIME_BOUNDARY_MAX || m->boundaries.len == 0)
        return 0;
    uint64_t key = tb_siphash(m->hash_key, b.ptr, b.len);
    for (uint32_t l = m->slots[(uint8_t)key]; l != 0; l = m->open[l - 1].below) {
        if (m->open[l - 1].key == key && tb_slice_eq(boundary_at(m, l - 1), b))
            return l;
    }
    return 0;
}

/* ---- entities ---- */

static struct tb_mime_part *part_at(struct tb_mime *m, uint32_t level)
{
    return &m->parts[m->open[level].part];
}

static bool parts_grow(struct tb_mime *m)
{
    if (m->parts_n < m->parts_cap)
        return true;
    uint32_t cap = m->parts_cap == 0 ? PARTS_FIRST : m->parts_cap * 2;
    struct tb_mime_part *p = realloc(m->parts, cap * sizeof(*p));
    if (p == NULL) {
        m->nomem = true;
        return false;
    }
    m->parts = p;
    m->parts_cap = cap;
    return true;
}

/* A new innermost entity, whose header begins at header_offset. */
static void part_open(struct tb_mime *m, uint64_t header_offset)
{
    if (!parts_grow(m))
        return;
    uint32_t id = m->parts_n++;
    struct tb_mime_part *p = &m->parts[id];
    *p = (struct tb_mime_part){.header_offset = header_offset, .parent = id};
    if (m->depth > 0) {
        p->parent = m->open[m->depth - 1].part;
        m->parts[p->parent].children++;
    }
    m->open[m->depth++] = (struct tb_mime_open){.part = id};
    m->in_header = true;
    m->header.len = m->header_line = 0;
    if (m->parts_n == TB_MIME_PARTS_MAX)
        m->sealed = true;
}

/* An entity without children that was announced as a multipart: its text is shown as it is. */
static void childless(struct tb_mime *m, struct tb_mime_part *p)
{
    static const char head[] = "\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\"",
                      tail[] = " NIL NIL NIL NIL";
    p->kind = TB_PART_TEXT;
    p->encoding = TB_ENC_7BIT;
    p->head = (struct tb_mime_piece){(uint32_t)m->pieces.len, sizeof(head) - 1};
    tb_buf_put(&m->pieces, head, sizeof(head) - 1);
    p->tail = (struct tb_mime_piece){(uint32_t)m->pieces.len, sizeof(tail) - 1};
    tb_buf_put(&m->pieces, tail, sizeof(tail) - 1);
}

/* The innermost entity ends at `end`, before which the message has `lines` line ends. nested: keep it inside of its
 * parent. */
static void part_close(struct tb_mime *m, uint64_t end, uint64_t lines, bool nested)
{
    struct tb_mime_part *p = part_at(m, m->depth - 1);
    boundary_pop(m, m->depth - 1);
    m->depth--;
    if (nested && p->header_offset > end)
        p->header_offset = end;
    if (nested && p->body_offset > end)
        p->body_offset = end;
    p->end = end > p->body_offset ? end : p->body_offset;
    uint64_t n = lines > p->body_lines ? lines - p->body_lines : 0;
    p->lines = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    if (p->kind == TB_PART_MULTIPART && p->children == 0)
        childless(m, p);
}

/* ---- the end of a header block ---- */

/* Keep whole lines if the block was cut at its limit. */
static struct tb_slice header_text(const struct tb_mime *m, size_t limit)
{
    struct tb_slice h = tb_buf_all(&m->header);
    if (h.len == limit) {
        const char *lf = memrchr(h.ptr, '\n', h.len);
        if (lf != NULL)
            h.len = (size_t)(lf + 1 - h.ptr);
    }
    return h;
}

static size_t header_limit(const struct tb_mime *m)
{
    return m->parts_n == 1 ? TB_MIME_HEADER_MAX : TB_MIME_PART_HEADER_MAX;
}

static bool is_message_root(const struct tb_mime *m)
{
    return m->depth > 1 && m->parts[m->open[m->depth - 2].part].kind == TB_PART_MESSAGE;
}

static void top_header(struct tb_mime *m, const struct tb_mime_fields *f)
{
    tb_mime_envelope_write(&m->envelope, &m->scratch, f, TB_MIME_TEXT_MAX);
    if (f->value[MIME_SUBJECT].ptr != NULL)
        (void)tb_mime_subject_base(f->value[MIME_SUBJECT], &m->scratch.text, &m->subject_base);
    struct tb_slice id = f->value[MIME_MESSAGE_ID];
    if (id.ptr != NULL)
        (void)tb_mime_message_id(&id, &m->message_id); /* none: it stays empty */
    tb_mime_references_write(f, &m->scratch.text, &m->references);
}

/* The innermost entity's header is complete; its body begins at body_offset. */
static void header_end(struct tb_mime *m, uint64_t body_offset)
{
    uint32_t level = m->depth - 1;
    struct tb_mime_part *p = part_at(m, level);
    struct tb_mime_fields f;
    struct tb_mime_content c;
    size_t pieces_before = m->pieces.len;
    bool may_nest = m->depth < TB_MIME_DEPTH_MAX && !m->sealed;
    m->in_header = false;
    p->body_offset = body_offset;
    p->body_lines = m->lines;
    tb_mime_fields_read(header_text(m, header_limit(m)), &f);
    if (level == 0) {
        top_header(m, &f);
    } else if (is_message_root(m)) {
        p->envelope.at = (uint32_t)m->pieces.len;
        tb_mime_envelope_write(&m->pieces, &m->scratch, &f, MIME_ENVELOPE_INNER_MAX);
        p->envelope.len = (uint32_t)m->pieces.len - p->envelope.at;
    }
    bool digest = level > 0 && m->parts[p->parent].digest;
    tb_mime_describe(m, &f, digest, may_nest, p, &c);
    p->kind = c.kind;
    p->encoding = c.encoding;
    p->digest = c.digest;
    size_t cost = tb_mime_text_cost(p);
    if (m->text_used + cost + MIME_TEXT_COST_OPAQUE > TB_MIME_TEXT_MAX) {
        static const char empty[] = "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)";
        bool root = p->envelope.len > 0;
        m->pieces.len = pieces_before;
        p->envelope = (struct tb_mime_piece){(uint32_t)pieces_before, root ? sizeof(empty) - 1 : 0};
        tb_buf_put(&m->pieces, empty, p->envelope.len);
        tb_mime_describe_opaque(m, p);
        p->kind = TB_PART_LEAF;
        p->encoding = TB_ENC_7BIT;
        m->sealed = true;
        cost = tb_mime_text_cost(p);
    }
    m->text_used += cost;
    if (p->kind == TB_PART_MULTIPART)
        boundary_push(m, level, c.boundary);
    else if (p->kind == TB_PART_MESSAGE)
        part_open(m, body_offset);
}

/* ---- lines ---- */

/* A delimiter line of open level `level` begins at line_start: what is inside of that multipart ends before it. */
static void boundary_hit(struct tb_mime *m, uint32_t level, bool closing, uint64_t len, bool has_lf)
{
    uint64_t end = m->line_start - m->eol, lines = m->lines - (m->eol > 0);
    while (m->in_header) {
        m->header.len = m->header_line;
        header_end(m, m->line_start);
    }
    if (m->depth > level + 1) {
        struct tb_mime_part *child = part_at(m, level + 1);
        if (child->body_offset > end) {
            end = child->body_offset;
            lines = child->body_lines;
        }
        while (m->depth > level + 1)
            part_close(m, end, lines, m->depth > level + 2);
    }
    m->lines += has_lf;
    if (closing)
        boundary_pop(m, level);
    else
        part_open(m, m->line_start + len);
}

/* Is this complete line (without its line end) a delimiter? The level + 1 it belongs to, or 0. RFC 2046 5.1.1. */
static uint32_t delimiter_of(const struct tb_mime *m, const char *line, size_t n, bool *closing)
{
    while (n > 2 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    struct tb_slice b = tb_slice(line + 2, n - 2);
    uint32_t found = boundary_find(m, b);
    *closing = false;
    if (b.len > 2 && b.ptr[b.len - 1] == '-' && b.ptr[b.len - 2] == '-') {
        b.len -= 2;
        uint32_t closes = boundary_find(m, b);
        *closing = closes > found;
        found = closes > found ? closes : found;
    }
    return found;
}

/*
 * A line is complete: the innermost header or body goes on, or the line ends something. line: its first min(len,
 * MIME_LINE_KEEP) bytes. In a header its bytes are in m->header already.
 */
static void line_done(struct tb_mime *m, const char *line, uint64_t len, unsigned eol)
{
    bool closing;
    uint32_t found = 0;
    if (len <= MIME_LINE_KEEP && len > 2 && line[0] == '-' && line[1] == '-' && !m->sealed)
        found = delimiter_of(m, line, (size_t)len - eol, &closing);
    if (found > 0) {
        boundary_hit(m, found - 1, closing, len, eol > 0);
    } else {
        m->lines += eol > 0;
        if (m->in_header && len == eol)
            header_end(m, m->line_start + len);
    }
    m->header_line = m->header.len;
    m->line_start += len;
    m->eol = eol;
}

static void header_add(struct tb_mime *m, const char *p, size_t n)
{
    size_t limit = header_limit(m);
    if (m->header.len >= limit)
        return;
    tb_buf_put(&m->header, p, n < limit - m->header.len ? n : limit - m->header.len);
}

static unsigned eol_of(const char *line, const char *lf)
{
    return lf > line && lf[-1] == '\r' ? 2 : 1;
}

/* The first bytes of a line whose end is not here yet. */
static void line_part(struct tb_mime *m, const char *p, const char *end)
{
    size_t n = (size_t)(end - p);
    if (n == 0)
        return;
    if (m->in_header)
        header_add(m, p, n);
    if (m->line_len == m->keep_len && m->keep_len < MIME_LINE_KEEP) { /* nothing was left out so far */
        size_t k = n < MIME_LINE_KEEP - m->keep_len ? n : MIME_LINE_KEEP - m->keep_len;
        memcpy(m->keep + m->keep_len, p, k);
        m->keep_len += (unsigned)k;
    }
    m->line_len += n;
    m->last = end[-1];
}

/* The rest of a line that began in an earlier feed. Returns behind its LF, or end. */
static const char *line_rest(struct tb_mime *m, const char *p, const char *end)
{
    const char *lf = memchr(p, '\n', (size_t)(end - p));
    char before = m->last;
    line_part(m, p, lf == NULL ? end : lf + 1);
    if (lf == NULL)
        return end;
    if (lf > p)
        before = lf[-1];
    uint64_t len = m->line_len;
    m->line_len = m->keep_len = 0;
    line_done(m, m->keep, len, before == '\r' && len > 1 ? 2 : 1);
    return lf + 1;
}

/* Whole header lines up to one that matters. Returns behind the last line used. */
static const char *header_lines(struct tb_mime *m, const char *p, const char *end)
{
    const char *from = p, *line = p, *lf;
    while ((lf = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        unsigned eol = eol_of(line, lf);
        if (lf + 1 - line == eol || (line[0] == '-' && line[1] == '-')) {
            header_add(m, from, (size_t)(line - from));
            m->header_line = m->header.len;
            header_add(m, line, (size_t)(lf + 1 - line));
            line_done(m, line, (uint64_t)(lf + 1 - line), eol);
            return lf + 1;
        }
        m->line_start += (uint64_t)(lf + 1 - line);
        m->lines++;
        m->eol = eol;
        line = lf + 1;
    }
    header_add(m, from, (size_t)(line - from));
    m->header_line = m->header.len;
    line_part(m, line, end);
    return end;
}

/*
 * The LF behind which a line begins with "-", or NULL; *lines grows by the LFs passed (the one returned included). With
 * look unset nothing stops it. Sixteen bytes a step where there is SSE2; the byte after the last one is never read.
 */
static const char *next_dash(const char *p, const char *end, bool look, uint64_t *lines)
{
#ifdef __SSE2__
    const __m128i lf = _mm_set1_epi8('\n'), dash = _mm_set1_epi8(look ? '-' : '\n'), zero = _mm_setzero_si128();
    while (end - p > 16) {
        __m128i count = zero; /* per byte lane: at most 255 steps before it is added up */
        int hit = 0;
        for (int i = 0; i < 255 && end - p > 16; i++, p += 16) {
            __m128i at = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)p), lf);
            __m128i after = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 1)), dash);
            hit = look ? _mm_movemask_epi8(_mm_and_si128(at, after)) : 0;
            if (hit != 0)
                break;
            count = _mm_sub_epi8(count, at);
        }
        __m128i sum = _mm_sad_epu8(count, zero);
        *lines += (uint64_t)_mm_extract_epi16(sum, 0) + (uint64_t)_mm_extract_epi16(sum, 4);
        if (hit != 0) {
            const char *found = p + __builtin_ctz((unsigned)hit);
            for (; p <= found; p++)
                *lines += *p == '\n';
            return found;
        }
    }
#endif
    while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        ++*lines;
        if (++p == end)
            break;
        if (look && *p == '-')
            return p - 1;
    }
    return NULL;
}

/* Where the unfinished line at the end of p..end begins; end if there is none. */
static const char *last_line(const char *p, const char *end)
{
    const char *lf = memrchr(p, '\n', (size_t)(end - p));
    return lf == NULL ? p : lf + 1;
}

/* Whole body lines up to a possible delimiter. p is at a line's start. Returns behind the last line used. */
static const char *body_lines(struct tb_mime *m, const char *p, const char *end)
{
    bool look = m->boundaries.len > 0 && !m->sealed;
    const char *from = p, *stop = NULL;
    uint64_t lines = 0;
    while (!(look && end - p > 1 && p[0] == '-' && p[1] == '-')) {
        const char *lf = next_dash(p, end, look, &lines);
        if (lf == NULL) {
            p = last_line(p, end);
            stop = end;
            break;
        }
        p = lf + 1;
    }
    if (p > from) {
        m->line_start += (uint64_t)(p - from);
        m->lines += lines;
        m->eol = p - from > 1 && p[-2] == '\r' ? 2 : 1;
    }
    if (stop == NULL && (stop = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        line_done(m, p, (uint64_t)(stop + 1 - p), eol_of(p, stop));
        return stop + 1;
    }
    line_part(m, p, end);
    return end;
}

void tb_mime_feed(struct tb_mime *m, struct tb_slice bytes)
{
    const char *p = bytes.ptr, *end = p + bytes.len;
    if (bytes.len == 0 || m->nomem)
        return;
    if (m->line_len > 0)
        p = line_rest(m, p, end);
    while (p < end && !m->nomem)
        p = m->in_header ? header_lines(m, p, end) : body_lines(m, p, end);
}

enum tb_rc tb_mime_finish(struct tb_mime *m, struct tb_mime_result *out)
{
    *out = (struct tb_mime_result){0};
    if (!m->finished && !m->nomem) {
        m->finished = true;
        if (m->line_len > 0) {
            uint64_t len = m->line_len;
            m->line_len = m->keep_len = 0;
            line_done(m, m->keep, len, 0);
        }
        while (m->in_header && !m->nomem)
            header_end(m, m->line_start);
        while (m->depth > 0)
            part_close(m, m->line_start, m->lines, true);
        if (!m->nomem) {
            tb_mime_structure_write(m);
            tb_mime_table_write(m);
        }
    }
    if (m->nomem || m->header.failed || m->boundaries.failed || m->pieces.failed || m->envelope.failed ||
        m->bodystructure.failed || m->table.failed || m->subject_base.failed || m->references.failed ||
        m->message_id.failed || m->scratch.params.failed)
        return TB_LIMIT;
    *out = (struct tb_mime_result){.size = m->line_start,
                                   .header_size = m->parts[0].body_offset,
                                   .envelope = tb_buf_all(&m->envelope),
                                   .bodystructure = tb_buf_all(&m->bodystructure),
                                   .parts = tb_buf_all(&m->table),
                                   .subject_base = tb_buf_all(&m->subject_base),
                                   .references = tb_buf_all(&m->references),
                                   .message_id = tb_buf_all(&m->message_id)};
    return TB_OK;
}
