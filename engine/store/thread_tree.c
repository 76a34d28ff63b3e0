/*
 * thread_tree.c: THREAD's algorithms over compact nodes, in slices.
 *
 * A node is a message, or an id that some message names (a dummy until its message is added). Only parents are kept
 * while messages come in; lists of children are made at the end, all at once: nodes are sorted by date, and going
 * through them backwards, each is put in front of its siblings. So every set of siblings is sorted by one sort, and
 * nothing recurses. Pruning is a climb: the parent of a message is the next message above it; if there are only
 * dummies, the topmost of them, which stays if more than one message hangs on it. The threads of one subject are joined
 * by changing parents; then the same two passes run again.
 *
 * Invariants: (T1) following parents ends: a link that would close a loop is not made. (T2) a dummy has no uid and no
 * date; its subject is its first child's. (T3) after the passes only roots are dummies, each with two children or more.
 *
 * Pure. RFC 5256 3; draft-ietf-morg-inthread (REFS: as REFERENCES without subjects, by INTERNALDATE, threads by their
 * newest message).
 */
#include "engine/store/thread_tree.h"

#include <stdlib.h>

enum {
    CHUNK_BITS = 12,
    CHUNK_NODES = 1 << CHUNK_BITS,
    CHUNKS_MAX = TB_THREAD_NODES_MAX >> CHUNK_BITS,
    TABLES = 256,         /* by the top byte of a hash, so that growing one is short */
    CLIMB_MAX = 50 << 10, /* a longer way up is taken for a loop */
    COST_NODE = 60,
    COST_CLIMB = 10
};

struct node {
    uint64_t id, subject;
    int64_t date;
    uint32_t uid; /* 0: a dummy */
    uint32_t parent, child, next;
    uint32_t kids; /* of a dummy: messages that hang on it */
    bool reply;
    bool has_child; /* it was made a parent */
    bool placed;    /* a dummy that is among the roots already */
    bool met;       /* REFS: a newer message of its thread went by */
};

struct table {   /* open addressing; nodes by hash, 0 = free */
    uint32_t *v; /* owned */
    uint32_t n, cap;
};

enum stage { ADDING, RESET, CLIMB, COUNT, SORT, CHILDREN, ROOTS, SUBJECTS, JOIN, NEWEST, DONE };

struct tb_tree {
    enum tb_thread_by by;
    enum stage stage;
    struct node *chunk[CHUNKS_MAX]; /* owned; number 0 is no node */
    uint32_t n;
    struct table ids[TABLES], subjects[TABLES];
    struct tb_merge merge;
    bool joined;              /* threads of one subject are */
    uint32_t at, first, last; /* at: where the stage is; first and last of the roots */
};

static struct node *node(const struct tb_tree *t, uint32_t i)
{
    return &t->chunk[i >> CHUNK_BITS][i & (CHUNK_NODES - 1)];
}

static uint32_t new_node(struct tb_tree *t)
{
    if (t->n == TB_THREAD_NODES_MAX)
        return 0;
    struct node **chunk = &t->chunk[t->n >> CHUNK_BITS];
    if (*chunk == NULL)
        *chunk = calloc(CHUNK_NODES, sizeof(**chunk));
    return *chunk != NULL ? t->n++ : 0;
}

struct tb_tree *tb_tree_new(enum tb_thread_by by)
{
    struct tb_tree *t = calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->by = by;
    (void)new_node(t); /* number 0 */
    if (t->n == 1)
        return t;
    free(t);
    return NULL;
}

void tb_tree_free(struct tb_tree *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < CHUNKS_MAX && t->chunk[i] != NULL; i++)
        free(t->chunk[i]);
    for (size_t i = 0; i < TABLES; i++) {
        free(t->ids[i].v);
        free(t->subjects[i].v);
    }
    tb_merge_free(&t->merge);
    free(t);
}

/* ---- tables ---- */

static uint64_t hash_of(const struct tb_tree *t, const struct table *in, uint32_t i)
{
    return in >= t->subjects && in < t->subjects + TABLES ? node(t, i)->subject : node(t, i)->id;
}

static uint32_t *slot_of(const struct tb_tree *t, const struct table *in, uint32_t *v, uint32_t cap, uint64_t hash)
{
    uint32_t at = (uint32_t)hash & (cap - 1);
    while (v[at] != 0 && hash_of(t, in, v[at]) != hash)
        at = (at + 1) & (cap - 1);
    return &v[at];
}

/* The place for a hash; NULL without memory. A free place that is then filled is counted by the caller. */
static uint32_t *place(struct tb_tree *t, struct table *tables, uint64_t hash)
{
    struct table *in = &tables[hash >> 56];
    if (2 * (in->n + 1) > in->cap) {
        uint32_t cap = in->cap == 0 ? 16 : 2 * in->cap;
        uint32_t *v = calloc(cap, sizeof(*v));
        if (v == NULL)
            return NULL;
        for (uint32_t i = 0; i < in->cap; i++)
            if (in->v[i] != 0)
                *slot_of(t, in, v, cap, hash_of(t, in, in->v[i])) = in->v[i];
        free(in->v);
        in->v = v;
        in->cap = cap;
    }
    return slot_of(t, in, in->v, in->cap, hash);
}

/* The node of an id, made if there is none; 0: LIMIT. */
static uint32_t node_of(struct tb_tree *t, uint64_t id)
{
    uint32_t *slot = place(t, t->ids, id);
    if (slot == NULL)
        return 0;
    if (*slot == 0 && (*slot = new_node(t)) != 0) {
        node(t, *slot)->id = id;
        t->ids[id >> 56].n++;
    }
    return *slot;
}

/* ---- REFERENCES 1: parents ---- */

/* Is b above a, or a itself? Only a node that has children can be above another. */
static bool above(const struct tb_tree *t, uint32_t b, uint32_t a, uint64_t *cost)
{
    uint32_t steps = 0;
    if (a == b)
        return true;
    if (!node(t, b)->has_child)
        return false;
    for (; a != 0 && a != b && steps < CLIMB_MAX; steps++)
        a = node(t, a)->parent;
    *cost += (uint64_t)COST_CLIMB * steps;
    return a != 0;
}

static void link_to(struct tb_tree *t, uint32_t child, uint32_t parent, uint64_t *cost)
{
    if (above(t, child, parent, cost))
        return; /* T1 */
    node(t, child)->parent = parent;
    node(t, parent)->has_child = true;
}

static enum tb_rc add_refs(struct tb_tree *t, uint32_t self, const struct tb_thread_message *m, uint64_t *cost)
{
    uint32_t above_it = 0;
    for (size_t i = 0; i < m->refs_n; i++) {
        uint32_t ref = node_of(t, m->refs[i]);
        if (ref == 0)
            return TB_LIMIT;
        if (above_it != 0 && node(t, ref)->parent == 0)
            link_to(t, ref, above_it, cost);
        above_it = ref;
        *cost += COST_NODE;
    }
    node(t, self)->parent = 0;
    if (above_it != 0)
        link_to(t, self, above_it, cost);
    return TB_OK;
}

enum tb_rc tb_tree_add(struct tb_tree *t, const struct tb_thread_message *m, uint64_t *cost)
{
    bool by_refs = t->by != TB_THREAD_ORDEREDSUBJECT;
    uint32_t self = by_refs && m->has_id ? node_of(t, m->id) : new_node(t);
    if (self != 0 && node(t, self)->uid != 0)
        self = new_node(t); /* a second message with this id gets one of its own */
    if (self == 0)
        return TB_LIMIT;
    struct node *x = node(t, self);
    x->uid = m->uid;
    x->date = m->date;
    x->subject = m->subject;
    x->reply = m->reply;
    *cost += COST_NODE;
    return by_refs ? add_refs(t, self, m, cost) : TB_OK;
}

/* ---- stages: each handles one node, or one slice of sorting; true: the stage is over ---- */

/* REFERENCES 3: the parent is the next message above, or the topmost dummy. */
static void climb(struct tb_tree *t, uint32_t i, uint64_t *cost)
{
    uint32_t up = node(t, i)->parent, top = up;
    while (top != 0 && node(t, top)->uid == 0 && node(t, top)->parent != 0) {
        top = node(t, top)->parent;
        *cost += COST_CLIMB;
    }
    while (up != top) { /* what was climbed is not climbed again */
        uint32_t next = node(t, up)->parent;
        node(t, up)->parent = top;
        up = next;
    }
    node(t, i)->parent = top;
    if (top != 0 && node(t, top)->uid == 0)
        node(t, top)->kids++;
}

/* A dummy with one child gives its place to it. */
static void count(struct tb_tree *t, uint32_t i)
{
    struct node *x = node(t, i);
    if (x->uid != 0 && x->parent != 0 && node(t, x->parent)->uid == 0 && node(t, x->parent)->kids == 1)
        x->parent = 0;
}

static uint64_t date_key(int64_t date)
{
    return (uint64_t)date ^ (uint64_t)1 << 63;
}

static enum tb_rc sort_begin(struct tb_tree *t)
{
    return tb_merge_init(&t->merge, t->n) ? TB_OK : TB_LIMIT;
}

static int by_uid(const void *user, uint32_t a, uint32_t b)
{
    (void)user;
    return a < b ? -1 : a > b;
}

static bool sort_more(struct tb_tree *t, uint64_t *cost)
{
    for (; t->at < t->n && *cost < TB_ORDER_SLICE; t->at++, *cost += TB_ORDER_COST_MOVE) {
        const struct node *x = node(t, t->at);
        if (t->at > 0 && x->uid != 0)
            tb_merge_add(&t->merge, date_key(x->date), x->uid, t->at);
    }
    t->merge.compare = by_uid;
    return t->at == t->n && tb_merge_step(&t->merge, cost);
}

/* The k-th of the order goes in front of its siblings; k falls. */
static void put_child(struct tb_tree *t, size_t k)
{
    uint32_t i = t->merge.v[k].id;
    struct node *x = node(t, i);
    if (x->parent == 0)
        return;
    struct node *up = node(t, x->parent);
    x->next = up->child;
    up->child = i;
}

static void put_root(struct tb_tree *t, uint32_t i)
{
    node(t, i)->next = 0;
    if (t->last != 0)
        node(t, t->last)->next = i;
    else
        t->first = i;
    t->last = i;
}

/* The k-th of the order: itself a root, or the first child of one; k rises. */
static void find_root(struct tb_tree *t, size_t k)
{
    uint32_t i = t->merge.v[k].id, up = node(t, i)->parent;
    if (up == 0) {
        put_root(t, i);
    } else if (node(t, up)->uid == 0 && !node(t, up)->placed) {
        node(t, up)->placed = true;
        put_root(t, up);
    }
}

/* ---- REFERENCES 5: subjects ---- */

static const struct node *speaker(const struct tb_tree *t, uint32_t root)
{
    const struct node *x = node(t, root);
    return x->uid != 0 ? x : node(t, x->child);
}

/* 5 (B): the root that stands for its subject. A table finds a root by the subject it has, so a dummy bears one too. */
static enum tb_rc subject_add(struct tb_tree *t, uint32_t root)
{
    struct node *x = node(t, root);
    x->subject = speaker(t, root)->subject;
    if (x->subject == 0)
        return TB_OK;
    uint32_t *slot = place(t, t->subjects, x->subject);
    if (slot == NULL)
        return TB_LIMIT;
    if (*slot == 0) {
        t->subjects[x->subject >> 56].n++;
        *slot = root;
        return TB_OK;
    }
    const struct node *have = node(t, *slot);
    if (have->uid != 0 && (x->uid == 0 || (have->reply && !x->reply)))
        *slot = root;
    return TB_OK;
}

/* 5 (C): join a root with the one that stands for its subject. Only parents change here. */
static enum tb_rc subject_join(struct tb_tree *t, uint32_t root)
{
    struct node *x = node(t, root);
    if (x->subject == 0)
        return TB_OK;
    uint32_t *slot = place(t, t->subjects, x->subject);
    if (slot == NULL)
        return TB_LIMIT;
    if (*slot == root)
        return TB_OK;
    struct node *have = node(t, *slot);
    if (have->uid == 0 || (x->reply && !have->reply)) {
        x->parent = *slot; /* a dummy's children climb past it */
        return TB_OK;
    }
    uint32_t dummy = new_node(t);
    if (dummy == 0)
        return TB_LIMIT;
    node(t, dummy)->subject = x->subject;
    x->parent = have->parent = dummy;
    *slot = dummy;
    return TB_OK;
}

/* ---- ORDEREDSUBJECT: the first of a subject is the parent of the others; k rises ---- */

static enum tb_rc follow(struct tb_tree *t, size_t k)
{
    struct node *x = node(t, t->merge.v[k].id);
    x->parent = 0;
    uint32_t *slot = place(t, t->subjects, x->subject);
    if (slot == NULL)
        return TB_LIMIT;
    if (*slot != 0) {
        x->parent = *slot;
    } else {
        *slot = t->merge.v[k].id;
        t->subjects[x->subject >> 56].n++;
    }
    return TB_OK;
}

/* ---- REFS: threads by their newest message ---- */

/* The k-th of the order: if no newer message of its thread went by, the thread comes before those that did. k falls. */
static void newest(struct tb_tree *t, size_t k, uint64_t *cost)
{
    uint32_t i = t->merge.v[k].id;
    while (!node(t, i)->met) {
        uint32_t root = i;
        node(t, i)->met = true;
        i = node(t, i)->parent;
        *cost += COST_CLIMB;
        if (i == 0) { /* up to the root nothing was met */
            node(t, root)->next = t->first;
            t->first = root;
            return;
        }
    }
}

/* ---- the way through the stages ---- */

static void reset(struct tb_tree *t, uint32_t i)
{
    struct node *x = node(t, i);
    x->child = x->next = x->kids = 0;
    x->placed = false;
}

/* What comes after a stage. */
static enum tb_rc stage_end(struct tb_tree *t)
{
    bool by_subject = t->by == TB_THREAD_ORDEREDSUBJECT;
    enum stage over = t->stage;
    t->at = 0;
    switch (over) {
    case ADDING:
    case JOIN:
        t->joined = over == JOIN;
        t->stage = RESET;
        return TB_OK;
    case RESET:
        t->stage = by_subject ? SORT : CLIMB;
        return by_subject ? sort_begin(t) : TB_OK;
    case CLIMB:
        t->stage = COUNT;
        return TB_OK;
    case COUNT:
        t->stage = t->joined ? CHILDREN : SORT;
        return t->joined ? TB_OK : sort_begin(t);
    case SORT:
        t->stage = by_subject ? SUBJECTS : CHILDREN;
        return TB_OK;
    case CHILDREN:
        t->stage = t->by == TB_THREAD_REFS ? NEWEST : ROOTS;
        t->first = t->last = 0;
        return TB_OK;
    case ROOTS:
        t->stage = t->by == TB_THREAD_REFERENCES && !t->joined ? SUBJECTS : DONE;
        t->at = t->first;
        return TB_OK;
    case SUBJECTS:
        t->stage = by_subject ? CHILDREN : JOIN;
        t->at = by_subject ? 0 : t->first;
        return TB_OK;
    case NEWEST:
    case DONE:
        break;
    }
    t->stage = DONE;
    return TB_OK;
}

/* Stages that go through the nodes. */
static bool each_node(struct tb_tree *t, uint64_t *cost)
{
    if (t->at == t->n)
        return true;
    uint32_t i = t->at++;
    *cost += COST_NODE / 4;
    if (t->stage == RESET)
        reset(t, i);
    else if (t->stage == CLIMB && node(t, i)->uid != 0)
        climb(t, i, cost);
    else if (t->stage == COUNT)
        count(t, i);
    return false;
}

/* Stages that go through the messages by date. */
static bool each_message(struct tb_tree *t, uint64_t *cost, enum tb_rc *rc)
{
    if (t->at == t->merge.n)
        return true;
    size_t up = t->at++, down = t->merge.n - 1 - up;
    *cost += COST_NODE;
    if (t->stage == CHILDREN)
        put_child(t, down);
    else if (t->stage == ROOTS)
        find_root(t, up);
    else if (t->stage == NEWEST)
        newest(t, down, cost);
    else
        *rc = follow(t, up);
    return false;
}

/* Stages that go through the roots. */
static bool each_root(struct tb_tree *t, uint64_t *cost, enum tb_rc *rc)
{
    if (t->at == 0)
        return true;
    uint32_t root = t->at;
    t->at = node(t, root)->next;
    *cost += COST_NODE;
    *rc = t->stage == SUBJECTS ? subject_add(t, root) : subject_join(t, root);
    return false;
}

enum tb_rc tb_tree_step(struct tb_tree *t, uint64_t *cost, bool *done)
{
    enum tb_rc rc = TB_OK;
    while (rc == TB_OK && t->stage != DONE && *cost < TB_ORDER_SLICE) {
        bool over = true;
        if (t->stage == RESET || t->stage == CLIMB || t->stage == COUNT)
            over = each_node(t, cost);
        else if (t->stage == SORT)
            over = sort_more(t, cost);
        else if (t->stage == JOIN || (t->stage == SUBJECTS && t->by == TB_THREAD_REFERENCES))
            over = each_root(t, cost, &rc);
        else if (t->stage != ADDING)
            over = each_message(t, cost, &rc);
        if (rc == TB_OK && over)
            rc = stage_end(t);
    }
    *done = t->stage == DONE;
    return rc;
}

uint32_t tb_tree_first(const struct tb_tree *t)
{
    return t->first;
}

struct tb_thread_node tb_tree_node(const struct tb_tree *t, uint32_t i)
{
    const struct node *x = node(t, i);
    return (struct tb_thread_node){.uid = x->uid, .parent = x->parent, .child = x->child, .next = x->next};
}
