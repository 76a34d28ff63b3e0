/*
 * sort.h: messages of a view in an order, and in threads. Owner thread only. Work comes in slices, as a SEARCH's does.
 *
 * Nothing here reads a body: what is compared lies in the rows and in the cached envelopes. Only for a message without
 * a cached envelope (an enormous one, or a damaged one) is its header read.
 */
#ifndef TAMBO_SORT_H
#define TAMBO_SORT_H

#include <tambo/fetch.h>

enum { /* past these: LIMIT */
       TB_SORT_MESSAGES_MAX = 4 << 20,
       TB_SORT_KEY_BYTES_MAX = 256 << 20, /* all keys of one sort */
       TB_SORT_STRING_MAX = 1000,         /* bytes of a collated string that count */
       TB_THREAD_NODES_MAX = 4 << 20      /* messages, and ids that they name */
};

enum tb_sort_by { /* RFC 5256 3, RFC 5957 4 */
                  TB_SORT_ARRIVAL,
                  TB_SORT_CC,
                  TB_SORT_DATE,
                  TB_SORT_DISPLAYFROM,
                  TB_SORT_DISPLAYTO,
                  TB_SORT_FROM,
                  TB_SORT_SIZE,
                  TB_SORT_SUBJECT,
                  TB_SORT_TO,
                  TB_SORT_KEYS
};
struct tb_sort_key {
    enum tb_sort_by by;
    bool reverse;
};

struct tb_sort; /* opaque */
/*
 * tb_sort_begin: put messages in order. Strings are compared by i;unicode-casemap; equal messages stay in the order of
 * their UIDs.
 *   uids  alive until end; those that are gone are left out
 *   keys  copied; n <= TB_SORT_KEYS
 * LIMIT too many messages, or no memory.
 */
enum tb_rc tb_sort_begin(struct tb_view *v, const struct tb_uidset *uids, const struct tb_sort_key *keys, size_t n,
                         struct tb_sort **out) TB_USE_RESULT;
/*
 * tb_sort_step: work for about half a millisecond, then op->done, from the loop. op->result: 1 there is more, 0
 * finished. op->rc: OK; LIMIT. Cost of all steps: about 3 us a message, and 0.5 us for each doubling of their number.
 */
void tb_sort_step(struct tb_sort *s, struct tb_op *op);
/* tb_sort_order: the UIDs in order; the sort's own until end. */
const uint32_t *tb_sort_order(const struct tb_sort *s, size_t *n);
/* tb_sort_modseq: the highest mod-sequence among them. */
uint64_t tb_sort_modseq(const struct tb_sort *s);
void tb_sort_end(struct tb_sort *s); /* a step in flight is abandoned: its done does not run */

enum tb_thread_by { /* RFC 5256 3; draft-ietf-morg-inthread */
                    TB_THREAD_ORDEREDSUBJECT,
                    TB_THREAD_REFERENCES,
                    TB_THREAD_REFS
};
struct tb_thread; /* opaque */
struct tb_thread_node {
    uint32_t uid;                 /* 0: no message, but what holds its children together */
    uint32_t parent, child, next; /* nodes; 0: none. next: the next sibling */
};
/* tb_thread_begin, _step, _end: as for a sort. LIMIT also past TB_THREAD_NODES_MAX. */
enum tb_rc tb_thread_begin(struct tb_view *v, const struct tb_uidset *uids, enum tb_thread_by by,
                           struct tb_thread **out) TB_USE_RESULT;
void tb_thread_step(struct tb_thread *t, struct tb_op *op);
/* tb_thread_first: the first thread's node; 0: there is none. tb_thread_node: any node, by its number. */
uint32_t tb_thread_first(const struct tb_thread *t);
struct tb_thread_node tb_thread_node(const struct tb_thread *t, uint32_t node);
void tb_thread_end(struct tb_thread *t);

#endif
