/*
 * sort.c: SORT over messages of a view: a key of bytes for each, then a merge sort, both in slices.
 *
 * A key is the criteria one behind the other in a form that memcmp orders: numbers big-endian with their sign turned,
 * strings collated and ended by a zero; REVERSE turns every bit of its criterion. The first eight bytes lie in the
 * entry, the rest in chunks. Nothing is ever sorted twice: equal messages keep the order of their UIDs.
 *
 * Memory: 32 bytes a message and the rest of its key, at most TB_SORT_KEY_BYTES_MAX in all.
 * Thread: the account's owner. RFC 5256 2.2, 3; RFC 5957 3, 4; RFC 5051.
 */
#include "engine/store/sort_internal.h"

#include <stdlib.h>

enum {
    CHUNK_BITS = 20,
    CHUNK_BYTES = 1 << CHUNK_BITS,
    CHUNKS_MAX = TB_SORT_KEY_BYTES_MAX / CHUNK_BYTES,
    ARENA_MAX = 4 << 20,
    NO_MORE = UINT32_MAX, /* the key is not longer than eight bytes */
    SCRATCH_MAX = 4 << 20
};
_Static_assert(TB_SORT_KEYS *(TB_SORT_STRING_MAX + 1) < CHUNK_BYTES, "a key fits into a chunk");

struct tb_sort {
    struct tb_steps steps;
    struct tb_gather gather;
    struct tb_merge merge;
    struct tb_arena arena;
    struct tb_buf key, text;
    struct tb_sort_key keys[TB_SORT_KEYS];
    size_t keys_n;
    char *chunk[CHUNKS_MAX]; /* owned */
    size_t chunks, chunk_used;
    uint32_t *order; /* owned */
    size_t ordered;
    uint64_t modseq;
    bool gathered, merged, finished, envelopes;
};

static void run(struct tb_sort *s);

static void resume(void *user)
{
    struct tb_sort *s = user;
    if (s->steps.op != NULL && !s->steps.due)
        run(s);
}

enum tb_rc tb_sort_begin(struct tb_view *v, const struct tb_uidset *uids, const struct tb_sort_key *keys, size_t n,
                         struct tb_sort **out)
{
    uint64_t count = tb_uidset_count(uids), there = tb_view_count(v);
    size_t cap = (size_t)(count < there ? count : there);
    struct tb_sort *s = cap > TB_SORT_MESSAGES_MAX ? NULL : calloc(1, sizeof(*s));
    TB_ASSERT(n <= TB_SORT_KEYS);
    if (s == NULL)
        return TB_LIMIT;
    s->steps.view = v;
    s->keys_n = n;
    bool rows_only = true;
    for (size_t i = 0; i < n; i++) {
        enum tb_sort_by by = keys[i].by;
        s->keys[i] = keys[i];
        rows_only &= by == TB_SORT_ARRIVAL || by == TB_SORT_SIZE;
        s->envelopes |= by != TB_SORT_ARRIVAL && by != TB_SORT_SIZE && by != TB_SORT_SUBJECT;
    }
    tb_gather_init(&s->gather, v, uids, rows_only, resume, s);
    tb_arena_init(&s->arena, ARENA_MAX);
    tb_buf_init(&s->key, SCRATCH_MAX);
    tb_buf_init(&s->text, SCRATCH_MAX);
    if (!tb_merge_init(&s->merge, cap)) {
        tb_sort_end(s);
        return TB_LIMIT;
    }
    *out = s;
    return TB_OK;
}

void tb_sort_end(struct tb_sort *s)
{
    if (s == NULL)
        return;
    tb_steps_free(&s->steps);
    tb_gather_free(&s->gather);
    tb_merge_free(&s->merge);
    tb_arena_free(&s->arena);
    tb_buf_free(&s->key);
    tb_buf_free(&s->text);
    for (size_t i = 0; i < s->chunks; i++)
        free(s->chunk[i]);
    free(s->order);
    free(s);
}

const uint32_t *tb_sort_order(const struct tb_sort *s, size_t *n)
{
    *n = s->ordered;
    return s->order;
}

uint64_t tb_sort_modseq(const struct tb_sort *s)
{
    return s->modseq;
}

/* ---- keys ---- */

static void put_number(struct tb_buf *key, int64_t v)
{
    char be[8];
    tb_put_be64(be, (uint64_t)v ^ (uint64_t)1 << 63);
    tb_buf_put(key, be, sizeof(be));
}

static void put_string(struct tb_sort *s, struct tb_slice text)
{
    size_t at = s->key.len;
    tb_text_casemap(tb_slice_sub(text, 0, TB_SORT_STRING_MAX), &s->key);
    if (s->key.len - at > TB_SORT_STRING_MAX)
        s->key.len = at + TB_SORT_STRING_MAX;
    tb_buf_char(&s->key, 0);
}

/* RFC 5957 3: the display name, else mailbox@host, else the mailbox. */
static void put_display(struct tb_sort *s, const struct tb_address *a)
{
    if (a == NULL) {
        tb_buf_char(&s->key, 0);
        return;
    }
    s->text.len = 0;
    if (a->name.ptr != NULL)
        tb_header_text(a->name, &s->text);
    if (s->text.len == 0) {
        tb_buf_slice(&s->text, a->mailbox);
        if (a->mailbox.ptr != NULL && a->host.ptr != NULL) {
            tb_buf_char(&s->text, '@');
            tb_buf_slice(&s->text, a->host);
        }
    }
    put_string(s, tb_buf_all(&s->text));
}

static void put_mailbox(struct tb_sort *s, const struct tb_address *a)
{
    put_string(s, a != NULL ? a->mailbox : tb_slice(NULL, 0));
}

static void put_criterion(struct tb_sort *s, enum tb_sort_by by, const struct tb_facts *f, const struct tb_envelope *e)
{
    switch (by) {
    case TB_SORT_ARRIVAL:
        put_number(&s->key, f->row->internaldate);
        break;
    case TB_SORT_DATE:
        put_number(&s->key, tb_sent_date(e->date, f->row));
        break;
    case TB_SORT_SIZE:
        put_number(&s->key, f->row->size);
        break;
    case TB_SORT_SUBJECT:
        put_string(s, f->subject_base);
        break;
    case TB_SORT_CC:
        put_mailbox(s, e->cc);
        break;
    case TB_SORT_FROM:
        put_mailbox(s, e->from);
        break;
    case TB_SORT_TO:
        put_mailbox(s, e->to);
        break;
    case TB_SORT_DISPLAYFROM:
        put_display(s, e->from);
        break;
    case TB_SORT_DISPLAYTO:
        put_display(s, e->to);
        break;
    case TB_SORT_KEYS:
        break;
    }
}

/* The key's bytes behind the eighth, kept: where they are. */
static uint32_t keep_rest(struct tb_sort *s, struct tb_slice rest)
{
    char head[2];
    if (s->chunks == 0 || s->chunk_used + sizeof(head) + rest.len > CHUNK_BYTES) {
        char *fresh = s->chunks < CHUNKS_MAX ? malloc(CHUNK_BYTES) : NULL;
        if (fresh == NULL) {
            s->steps.rc = TB_LIMIT;
            return NO_MORE;
        }
        s->chunk[s->chunks++] = fresh;
        s->chunk_used = 0;
    }
    uint32_t at = (uint32_t)((s->chunks - 1) << CHUNK_BITS | s->chunk_used);
    char *p = s->chunk[s->chunks - 1] + s->chunk_used;
    tb_put_le16(p, (uint16_t)rest.len);
    memcpy(p + sizeof(head), rest.ptr, rest.len);
    s->chunk_used += sizeof(head) + rest.len;
    return at;
}

static void add(struct tb_sort *s, const struct tb_facts *f)
{
    struct tb_envelope e = {0};
    char first[8] = {0};
    tb_arena_reset(&s->arena);
    if (s->envelopes && f->envelope.len > 0 && tb_envelope_read(f->envelope, &s->arena, &e) != TB_OK)
        e = (struct tb_envelope){0}; /* ordered as if it had none */
    s->key.len = 0;
    for (size_t i = 0; i < s->keys_n; i++) {
        size_t at = s->key.len;
        put_criterion(s, s->keys[i].by, f, &e);
        for (size_t k = at; s->keys[i].reverse && k < s->key.len; k++)
            s->key.ptr[k] = (char)~s->key.ptr[k];
    }
    s->gather.cost += 4 * s->key.len;
    if (s->key.failed || s->text.failed) {
        s->steps.rc = TB_LIMIT;
        return;
    }
    size_t n = s->key.len < sizeof(first) ? s->key.len : sizeof(first);
    if (n > 0)
        memcpy(first, s->key.ptr, n);
    uint32_t more = s->key.len > n ? keep_rest(s, tb_slice(s->key.ptr + n, s->key.len - n)) : NO_MORE;
    tb_merge_add(&s->merge, tb_get_be64(first), more, f->row->uid);
    if (f->row->modseq > s->modseq)
        s->modseq = f->row->modseq;
}

/* Keys of one sort are prefix-free, so where the shorter one ends there is a difference already. */
static int compare(const void *user, uint32_t a, uint32_t b)
{
    const struct tb_sort *s = user;
    if (a == NO_MORE || b == NO_MORE)
        return 0;
    const char *x = s->chunk[a >> CHUNK_BITS] + (a & (CHUNK_BYTES - 1));
    const char *y = s->chunk[b >> CHUNK_BITS] + (b & (CHUNK_BYTES - 1));
    uint16_t n = tb_get_le16(x), m = tb_get_le16(y);
    return memcmp(x + 2, y + 2, n < m ? n : m);
}

/* ---- steps ---- */

/* false: a header is on its way. */
static bool gather(struct tb_sort *s)
{
    struct tb_facts f;
    while (!s->gathered && s->steps.rc == TB_OK && s->gather.cost < TB_ORDER_SLICE) {
        enum tb_gathered got = tb_gather_next(&s->gather, &f);
        if (got == TB_GATHER_WAIT)
            return false;
        if (got == TB_GATHER_ONE) {
            add(s, &f);
            continue;
        }
        s->gathered = true;
        s->steps.rc = s->gather.rc;
        s->merge.compare = compare;
        s->merge.user = s;
        s->order = malloc(s->merge.n * sizeof(*s->order) + 1);
        if (s->order == NULL)
            s->steps.rc = TB_LIMIT;
    }
    return true;
}

static void run(struct tb_sort *s)
{
    if (!gather(s))
        return; /* resume goes on */
    if (s->gathered && s->steps.rc == TB_OK && !s->merged)
        s->merged = tb_merge_step(&s->merge, &s->gather.cost);
    while (s->merged && s->ordered < s->merge.n && s->gather.cost < TB_ORDER_SLICE) {
        s->order[s->ordered] = s->merge.v[s->ordered].id;
        s->ordered++;
        s->gather.cost += 2;
    }
    tb_steps_end(&s->steps, !s->merged || s->ordered < s->merge.n);
}

void tb_sort_step(struct tb_sort *s, struct tb_op *op)
{
    s->steps.op = op;
    s->gather.cost = 0;
    run(s);
}
