/*
 * search_keys.c: the search program: compiling the key tree, three-valued evaluation.
 *
 * A node is unknown until something cheap or, failing that, something dear settles it; the answer is known as soon as
 * no unknown node can change it. No recursion: the tree is flat, children behind their parents, so one backward pass
 * reduces it and one forward pass marks what is needed. Pure. RFC 9051 6.4.4, RFC 5032 (YOUNGER, OLDER), RFC 7162 3.1.5
 * (MODSEQ).
 */
#include "engine/store/search_internal.h"

#include <stdlib.h>

/* ---- compiling ---- */

static bool is_branch(enum tb_search_op op)
{
    return op == TB_SEARCH_AND || op == TB_SEARCH_OR || op == TB_SEARCH_NOT;
}

static bool has_text(enum tb_search_op op)
{
    return op == TB_SEARCH_HEADER || op == TB_SEARCH_BODY || op == TB_SEARCH_TEXT;
}

static bool of_row(enum tb_search_op op)
{
    return !has_text(op) && op != TB_SEARCH_SENTBEFORE && op != TB_SEARCH_SENTON && op != TB_SEARCH_SENTSINCE;
}

static bool plain_text(struct tb_slice folded)
{
    for (size_t i = 0; i < folded.len; i++) {
        unsigned char c = (unsigned char)folded.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80;
        if (!letter && memchr(" .@-_+", c, 6) == NULL)
            return false;
    }
    return folded.len > 0;
}

static enum tb_rc add_node(struct tb_search_program *p, const struct tb_search_key *key, uint32_t parent, uint32_t *cap)
{
    if (p->n == *cap) {
        uint32_t more = *cap == 0 ? 8 : *cap * 2;
        struct tb_search_node *v = more > TB_SEARCH_NODES_MAX ? NULL : realloc(p->node, more * sizeof(*v));
        if (v == NULL)
            return TB_LIMIT;
        p->node = v;
        *cap = more;
    }
    struct tb_search_node *node = &p->node[p->n++];
    *node = (struct tb_search_node){.op = key->op, .parent = parent, .key = key};
    p->deep |= !of_row(key->op);
    p->texts += has_text(key->op);
    return TB_OK;
}

/* The tree in preorder, with a stack of the keys whose siblings are still to come. */
static enum tb_rc flatten(struct tb_search_program *p, const struct tb_search_key *key)
{
    struct {
        const struct tb_search_key *next;
        uint32_t parent;
    } stack[TB_SEARCH_DEPTH_MAX];
    uint32_t depth = 0, parent = 0, cap = 0;
    const struct tb_search_key *root = key;
    for (;;) {
        uint32_t self = p->n;
        enum tb_rc rc = add_node(p, key, parent, &cap);
        if (rc != TB_OK)
            return rc;
        const struct tb_search_key *sibling = key == root ? NULL : key->next;
        if (is_branch(key->op) && key->first != NULL) {
            if (depth == TB_SEARCH_DEPTH_MAX)
                return TB_LIMIT;
            stack[depth].next = sibling;
            stack[depth++].parent = parent;
            parent = self;
            key = key->first;
            continue;
        }
        while (sibling == NULL && depth > 0) {
            sibling = stack[--depth].next;
            parent = stack[depth].parent;
        }
        if (sibling == NULL)
            return TB_OK;
        key = sibling;
    }
}

/* Fold the texts. The buffer moves while it grows, so slices are set at the end. */
static enum tb_rc fold_texts(struct tb_search_program *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        struct tb_search_node *node = &p->node[i];
        size_t before = p->needles.len;
        if (!has_text(node->op))
            continue;
        tb_text_fold(node->key->text, &p->needles);
        node->text.len = p->needles.len - before;
        if (p->needles.failed || node->text.len > TB_SEARCH_NEEDLE_MAX)
            return TB_LIMIT;
        if (node->op != TB_SEARCH_HEADER && node->text.len > p->longest)
            p->longest = node->text.len;
    }
    const char *at = p->needles.ptr;
    for (uint32_t i = 0; i < p->n; i++) {
        struct tb_search_node *node = &p->node[i];
        if (!has_text(node->op))
            continue;
        node->text.ptr = "";
        if (node->text.len > 0) {
            node->text.ptr = at;
            at += node->text.len;
        }
        node->plain = plain_text(node->text);
    }
    return TB_OK;
}

/* The root, or a child of the AND at the root, that is a set says which UIDs can match at all. */
static void find_bounds(struct tb_search_program *p)
{
    p->uid_first = 1;
    p->uid_last = UINT32_MAX;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct tb_search_node *node = &p->node[i];
        bool top = i == 0 || (node->parent == 0 && p->node[0].op == TB_SEARCH_AND);
        if (!top || (node->op != TB_SEARCH_UID && node->op != TB_SEARCH_SEQ))
            continue;
        const struct tb_uidset *set = node->key->set;
        if (p->within == NULL)
            p->within = set;
        if (set == NULL || set->n == 0) {
            p->uid_last = 0;
            continue;
        }
        if (set->v[0].first > p->uid_first)
            p->uid_first = set->v[0].first;
        if (set->v[set->n - 1].last < p->uid_last)
            p->uid_last = set->v[set->n - 1].last;
    }
}

enum tb_rc tb_program_init(struct tb_search_program *p, const struct tb_search_key *key, int64_t now_s)
{
    enum { SCRATCH_MAX = 16 << 20, HEADER_WORK = 4 << 20, HEADER_LEAST = 16 << 10 };
    *p = (struct tb_search_program){.now_s = now_s};
    tb_buf_init(&p->needles, SCRATCH_MAX);
    tb_buf_init(&p->text, SCRATCH_MAX);
    tb_buf_init(&p->folded, SCRATCH_MAX);
    enum tb_rc rc = flatten(p, key);
    if (rc == TB_OK)
        rc = fold_texts(p);
    if (rc != TB_OK) {
        tb_program_free(p);
        return rc;
    }
    find_bounds(p);
    size_t share = p->texts > 0 ? HEADER_WORK / p->texts : HEADER_WORK; /* keys times bytes are bounded */
    p->header_max = share < HEADER_LEAST ? HEADER_LEAST : share > TB_MIME_HEADER_MAX ? TB_MIME_HEADER_MAX : share;
    return TB_OK;
}

void tb_program_free(struct tb_search_program *p)
{
    free(p->node);
    p->node = NULL;
    tb_buf_free(&p->needles);
    tb_buf_free(&p->text);
    tb_buf_free(&p->folded);
}

bool tb_truth_init(struct tb_truth *t, const struct tb_search_program *p)
{
    t->value = calloc(3, p->n);
    if (t->value == NULL)
        return false;
    t->needed = t->value + p->n;
    t->seen = t->needed + p->n;
    return true;
}

void tb_truth_free(struct tb_truth *t)
{
    free(t->value);
    *t = (struct tb_truth){0};
}

/* ---- reducing ---- */

static enum tb_tri tri(bool b)
{
    return b ? TB_TRI_TRUE : TB_TRI_FALSE;
}

/* A branch from the values its children showed; bit v of seen: a child has value v. */
static enum tb_tri join(enum tb_search_op op, unsigned seen)
{
    bool unknown = seen & 1 << TB_TRI_UNKNOWN;
    if (op == TB_SEARCH_OR)
        return seen & 1 << TB_TRI_TRUE ? TB_TRI_TRUE : unknown ? TB_TRI_UNKNOWN : TB_TRI_FALSE;
    enum tb_tri all = seen & 1 << TB_TRI_FALSE ? TB_TRI_FALSE : unknown ? TB_TRI_UNKNOWN : TB_TRI_TRUE;
    if (op == TB_SEARCH_NOT && all != TB_TRI_UNKNOWN)
        return tri(all == TB_TRI_FALSE);
    return all;
}

enum tb_tri tb_truth_reduce(const struct tb_search_program *p, struct tb_truth *t)
{
    for (uint32_t i = p->n; i-- > 0;) {
        if (is_branch(p->node[i].op)) {
            t->value[i] = (uint8_t)join(p->node[i].op, t->seen[i]);
            t->seen[i] = 0;
        }
        if (i > 0)
            t->seen[p->node[i].parent] |= (uint8_t)(1u << t->value[i]);
    }
    if (t->value[0] != TB_TRI_UNKNOWN)
        return t->value[0];
    t->needed[0] = true;
    for (uint32_t i = 1; i < p->n; i++)
        t->needed[i] = t->needed[p->node[i].parent] && t->value[i] == TB_TRI_UNKNOWN;
    return TB_TRI_UNKNOWN;
}

bool tb_truth_needs_text(const struct tb_search_program *p, const struct tb_truth *t)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (t->needed[i] && (p->node[i].op == TB_SEARCH_BODY || p->node[i].op == TB_SEARCH_TEXT))
            return true;
    }
    return false;
}

bool tb_truth_needs_header(const struct tb_search_program *p, const struct tb_truth *t)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (t->needed[i] && !is_branch(p->node[i].op) && p->node[i].op != TB_SEARCH_BODY)
            return true;
    }
    return false;
}

void tb_truth_settle(const struct tb_search_program *p, struct tb_truth *t)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (!is_branch(p->node[i].op) && t->value[i] == TB_TRI_UNKNOWN)
            t->value[i] = TB_TRI_FALSE;
    }
}

/* ---- the row ---- */

static bool day_holds(enum tb_search_op op, int32_t day, int64_t number)
{
    if (op == TB_SEARCH_BEFORE || op == TB_SEARCH_SENTBEFORE || op == TB_SEARCH_SAVEDBEFORE)
        return day < number;
    if (op == TB_SEARCH_ON || op == TB_SEARCH_SENTON || op == TB_SEARCH_SAVEDON)
        return day == number;
    return day >= number;
}

static enum tb_tri eval_row_node(const struct tb_search_program *p, const struct tb_search_node *node,
                                 const struct tb_row *row)
{
    const struct tb_search_key *key = node->key;
    switch (node->op) {
    case TB_SEARCH_ALL:
        return TB_TRI_TRUE;
    case TB_SEARCH_SEQ:
    case TB_SEARCH_UID:
        return tri(key->set != NULL && tb_uidset_has(key->set, row->uid));
    case TB_SEARCH_FLAGS:
        return tri((row->flags & key->flags) == key->flags);
    case TB_SEARCH_KEYWORD:
        return tri(!node->never && (row->keywords & node->keyword) != 0);
    case TB_SEARCH_LARGER:
        return tri(row->size > key->number);
    case TB_SEARCH_SMALLER:
        return tri(row->size < key->number);
    case TB_SEARCH_BEFORE:
    case TB_SEARCH_ON:
    case TB_SEARCH_SINCE:
        return tri(day_holds(node->op, tb_date_day(row->internaldate, 0), key->number));
    case TB_SEARCH_SAVEDBEFORE:
    case TB_SEARCH_SAVEDON:
    case TB_SEARCH_SAVEDSINCE:
        return tri(day_holds(node->op, tb_date_day(row->savedate, 0), key->number));
    case TB_SEARCH_BLOB:
        return tri(key->number >= 0 && row->blob == (uint64_t)key->number);
    case TB_SEARCH_YOUNGER:
        return tri(row->internaldate >= p->now_s - key->number);
    case TB_SEARCH_OLDER:
        return tri(row->internaldate <= p->now_s - key->number);
    case TB_SEARCH_MODSEQ:
        return tri(row->modseq >= (uint64_t)key->number);
    case TB_SEARCH_BODY:
    case TB_SEARCH_TEXT:
        return node->text.len == 0 ? TB_TRI_TRUE : TB_TRI_UNKNOWN;
    default:
        return TB_TRI_UNKNOWN;
    }
}

void tb_eval_row(const struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row)
{
    memset(t->needed, 0, 2 * (size_t)p->n);
    for (uint32_t i = 0; i < p->n; i++)
        t->value[i] = (uint8_t)eval_row_node(p, &p->node[i], row);
}

/* ---- the envelope ---- */

/* Does the header value hold the node's text, decoded and folded? */
static bool value_holds(struct tb_search_program *p, const struct tb_search_node *node, struct tb_slice value)
{
    if (node->text.len == 0)
        return true;
    p->text.len = p->folded.len = 0;
    tb_header_text(value, &p->text);
    tb_text_fold(tb_buf_all(&p->text), &p->folded);
    return tb_text_holds(&p->folded, node->text);
}

static void put_decoded(struct tb_search_program *p, struct tb_slice raw)
{
    p->text.len = 0;
    tb_header_text(raw, &p->text);
    tb_text_fold(tb_buf_all(&p->text), &p->folded);
}

/* An address list much as its field was written: "name <mailbox@host>, ...". */
static bool addresses_hold(struct tb_search_program *p, const struct tb_search_node *node, const struct tb_address *a)
{
    p->folded.len = 0;
    for (; a != NULL; a = a->next) {
        put_decoded(p, a->name);
        tb_buf_str(&p->folded, " <");
        tb_text_fold(a->mailbox, &p->folded);
        tb_buf_char(&p->folded, '@');
        tb_text_fold(a->host, &p->folded);
        tb_buf_str(&p->folded, ">, ");
    }
    return tb_text_holds(&p->folded, node->text);
}

static enum tb_tri eval_address_field(struct tb_search_program *p, const struct tb_search_node *node,
                                      const struct tb_address *list)
{
    if (node->text.len == 0 && list != NULL)
        return TB_TRI_TRUE;
    return node->plain ? tri(addresses_hold(p, node, list)) : TB_TRI_UNKNOWN;
}

static enum tb_tri eval_string_field(struct tb_search_program *p, const struct tb_search_node *node,
                                     struct tb_slice value)
{
    return value.ptr == NULL ? TB_TRI_FALSE : tri(value_holds(p, node, value));
}

static enum tb_tri eval_envelope_node(struct tb_search_program *p, const struct tb_search_node *node,
                                      const struct tb_envelope *e)
{
    struct tb_slice name = node->key->name;
    if (tb_slice_ieq(name, TB_SLICE("subject")))
        return eval_string_field(p, node, e->subject);
    if (tb_slice_ieq(name, TB_SLICE("message-id")))
        return eval_string_field(p, node, e->message_id);
    if (tb_slice_ieq(name, TB_SLICE("in-reply-to")))
        return eval_string_field(p, node, e->in_reply_to);
    if (tb_slice_ieq(name, TB_SLICE("date")))
        return eval_string_field(p, node, e->date);
    if (tb_slice_ieq(name, TB_SLICE("from")))
        return eval_address_field(p, node, e->from);
    if (tb_slice_ieq(name, TB_SLICE("to")))
        return eval_address_field(p, node, e->to);
    if (tb_slice_ieq(name, TB_SLICE("cc")))
        return eval_address_field(p, node, e->cc);
    if (tb_slice_ieq(name, TB_SLICE("bcc")))
        return eval_address_field(p, node, e->bcc);
    return TB_TRI_UNKNOWN;
}

/* The Date field's own day; INTERNALDATE's where there is no valid one. RFC 5256 2.2. */
static enum tb_tri eval_sent(const struct tb_search_node *node, const struct tb_row *row, struct tb_slice date)
{
    struct tb_date d;
    int32_t day;
    if (date.ptr != NULL && tb_date_parse(date, &d))
        day = tb_date_day(d.utc_s, d.zone_min);
    else
        day = tb_date_day(row->internaldate, 0);
    return tri(day_holds(node->op, day, node->key->number));
}

static bool is_sent(enum tb_search_op op)
{
    return op == TB_SEARCH_SENTBEFORE || op == TB_SEARCH_SENTON || op == TB_SEARCH_SENTSINCE;
}

void tb_eval_envelope(struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row,
                      const struct tb_envelope *e)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const struct tb_search_node *node = &p->node[i];
        if (!t->needed[i])
            continue;
        if (is_sent(node->op))
            t->value[i] = (uint8_t)eval_sent(node, row, e->date);
        else if (node->op == TB_SEARCH_HEADER)
            t->value[i] = (uint8_t)eval_envelope_node(p, node, e);
    }
}

/* ---- the header ---- */

void tb_eval_header(struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row, struct tb_slice header)
{
    struct tb_slice rest = header, field, name, value, date = {NULL, 0};
    while (tb_header_next(&rest, &field, &name, &value)) {
        if (date.ptr == NULL && tb_slice_ieq(name, TB_SLICE("date")))
            date = value;
        for (uint32_t i = 0; i < p->n; i++) {
            const struct tb_search_node *node = &p->node[i];
            if (t->needed[i] && t->value[i] == TB_TRI_UNKNOWN && node->op == TB_SEARCH_HEADER &&
                tb_slice_ieq(name, node->key->name) && value_holds(p, node, value))
                t->value[i] = TB_TRI_TRUE;
        }
    }
    (void)tb_eval_part_header(p, t, header, false); /* TEXT; what it found is in t */
    for (uint32_t i = 0; i < p->n; i++) {
        if (!t->needed[i] || t->value[i] != TB_TRI_UNKNOWN)
            continue;
        if (is_sent(p->node[i].op))
            t->value[i] = (uint8_t)eval_sent(&p->node[i], row, date);
        else if (p->node[i].op == TB_SEARCH_HEADER)
            t->value[i] = TB_TRI_FALSE;
    }
}
