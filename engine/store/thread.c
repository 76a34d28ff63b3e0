/*
 * thread.c: THREAD over messages of a view: what each says of itself goes into the tree, in slices.
 *
 * References are those of the References field; only where that has none, the first id of In-Reply-To. Subjects are
 * compared as their collated base subjects. Thread: the account's owner. RFC 5256 2.1, 2.2, 3.
 */
#include "engine/store/sort_internal.h"

#include <stdlib.h>

#include "engine/store/shard.h"
#include "engine/store/thread_tree.h"

enum { REFS_MAX = MIME_REFERENCES_MAX / 2 + 1, ARENA_MAX = 4 << 20, TEXT_MAX = 1 << 20 };

struct tb_thread {
    struct tb_steps steps;
    struct tb_gather gather;
    struct tb_tree *tree; /* owned */
    struct tb_arena arena;
    struct tb_buf text, base, scratch;
    enum tb_thread_by by;
    uint8_t key[32];
    uint64_t refs[REFS_MAX];
    bool gathered, made;
};

static void run(struct tb_thread *t);

static void resume(void *user)
{
    struct tb_thread *t = user;
    if (t->steps.op != NULL && !t->steps.due)
        run(t);
}

enum tb_rc tb_thread_begin(struct tb_view *v, const struct tb_uidset *uids, enum tb_thread_by by,
                           struct tb_thread **out)
{
    struct tb_thread *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return TB_LIMIT;
    t->steps.view = v;
    t->by = by;
    t->tree = tb_tree_new(by);
    tb_store_secret(tb_view_account(v)->shard->store, "thread", t->key);
    tb_gather_init(&t->gather, v, uids, false, resume, t);
    tb_arena_init(&t->arena, ARENA_MAX);
    tb_buf_init(&t->text, TEXT_MAX);
    tb_buf_init(&t->base, TEXT_MAX);
    tb_buf_init(&t->scratch, TEXT_MAX);
    if (t->tree == NULL) {
        tb_thread_end(t);
        return TB_LIMIT;
    }
    *out = t;
    return TB_OK;
}

void tb_thread_end(struct tb_thread *t)
{
    if (t == NULL)
        return;
    tb_steps_free(&t->steps);
    tb_gather_free(&t->gather);
    tb_tree_free(t->tree);
    tb_arena_free(&t->arena);
    tb_buf_free(&t->text);
    tb_buf_free(&t->base);
    tb_buf_free(&t->scratch);
    free(t);
}

uint32_t tb_thread_first(const struct tb_thread *t)
{
    return tb_tree_first(t->tree);
}

struct tb_thread_node tb_thread_node(const struct tb_thread *t, uint32_t node)
{
    return tb_tree_node(t->tree, node);
}

/* Hashes of the ids in a list with a blank between. */
static size_t hash_ids(struct tb_thread *t, struct tb_slice list, size_t max)
{
    size_t n = 0;
    while (list.len > 0 && n < max) {
        const char *blank = memchr(list.ptr, ' ', list.len);
        size_t len = blank != NULL ? (size_t)(blank - list.ptr) : list.len;
        if (len > 0)
            t->refs[n++] = tb_siphash(t->key, list.ptr, len);
        list = tb_slice_sub(list, len + 1, list.len);
    }
    return n;
}

static size_t references(struct tb_thread *t, struct tb_slice list)
{
    const char *tab = list.len > 0 ? memchr(list.ptr, '\t', list.len) : NULL;
    size_t own = tab != NULL ? (size_t)(tab - list.ptr) : list.len;
    if (own > 0)
        return hash_ids(t, tb_slice(list.ptr, own), REFS_MAX);
    return hash_ids(t, tb_slice_sub(list, own + 1, list.len), 1);
}

static void subject(struct tb_thread *t, struct tb_slice raw, struct tb_thread_message *m)
{
    t->text.len = t->base.len = 0;
    m->reply = tb_mime_subject_base(raw, &t->scratch, &t->base);
    tb_text_casemap(tb_buf_all(&t->base), &t->text);
    t->gather.cost += 8 * raw.len;
    m->subject = t->text.len > 0 ? tb_siphash(t->key + 16, t->text.ptr, t->text.len) : 0;
}

static void add(struct tb_thread *t, const struct tb_facts *f)
{
    struct tb_envelope e = {0};
    struct tb_thread_message m = {.uid = f->row->uid, .date = f->row->internaldate};
    tb_arena_reset(&t->arena);
    if (f->envelope.len > 0 && tb_envelope_read(f->envelope, &t->arena, &e) != TB_OK)
        e = (struct tb_envelope){0}; /* threaded as if it had none */
    if (t->by != TB_THREAD_REFS) {
        m.date = tb_sent_date(e.date, f->row);
        subject(t, e.subject, &m);
    }
    if (t->by != TB_THREAD_ORDEREDSUBJECT) {
        m.refs_n = references(t, f->references);
        m.refs = t->refs;
        m.has_id = f->message_id.len > 0;
        m.id = m.has_id ? tb_siphash(t->key, f->message_id.ptr, f->message_id.len) : 0;
    }
    t->steps.rc = t->text.failed || t->base.failed || t->scratch.failed ? TB_LIMIT
                                                                        : tb_tree_add(t->tree, &m, &t->gather.cost);
}

static void run(struct tb_thread *t)
{
    struct tb_facts f;
    while (!t->gathered && t->steps.rc == TB_OK && t->gather.cost < TB_ORDER_SLICE) {
        enum tb_gathered got = tb_gather_next(&t->gather, &f);
        if (got == TB_GATHER_WAIT)
            return; /* resume goes on */
        if (got == TB_GATHER_ONE)
            add(t, &f);
        t->gathered = got == TB_GATHER_END;
        if (t->gathered)
            t->steps.rc = t->gather.rc;
    }
    if (t->gathered && t->steps.rc == TB_OK)
        t->steps.rc = tb_tree_step(t->tree, &t->gather.cost, &t->made);
    tb_steps_end(&t->steps, !t->made);
}

void tb_thread_step(struct tb_thread *t, struct tb_op *op)
{
    t->steps.op = op;
    t->gather.cost = 0;
    run(t);
}
