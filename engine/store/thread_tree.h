/*
 * thread_tree.h: threads out of messages' ids, dates and subjects. Pure: it never sees the store.
 *
 * Messages are put in, in the order of their UIDs; then steps until the tree is done. Message ids and base subjects are
 * compared by keyed hashes of 64 bits: of a million messages, two that differ are taken for one in a run of ten
 * million.
 */
#ifndef TB_THREAD_TREE_H
#define TB_THREAD_TREE_H

#include "engine/store/sort_internal.h"

struct tb_thread_message {
    uint32_t uid;
    int64_t date;
    uint64_t subject; /* hash of the collated base subject; 0: it is empty */
    bool reply;       /* a reply's or a forward's subject */
    bool has_id;
    uint64_t id;          /* hash of the message id */
    const uint64_t *refs; /* hashes of the references, oldest first */
    size_t refs_n;
};

struct tb_tree;                                    /* opaque */
struct tb_tree *tb_tree_new(enum tb_thread_by by); /* NULL without memory */
void tb_tree_free(struct tb_tree *t);
/* tb_tree_add: UIDs rise. *cost grows. LIMIT past TB_THREAD_NODES_MAX or without memory. */
enum tb_rc tb_tree_add(struct tb_tree *t, const struct tb_thread_message *m, uint64_t *cost) TB_USE_RESULT;
/* tb_tree_step: until *cost >= TB_ORDER_SLICE. *done: the tree is made. LIMIT as above. */
enum tb_rc tb_tree_step(struct tb_tree *t, uint64_t *cost, bool *done) TB_USE_RESULT;
uint32_t tb_tree_first(const struct tb_tree *t);
struct tb_thread_node tb_tree_node(const struct tb_tree *t, uint32_t node);

#endif
