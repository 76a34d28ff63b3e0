/*
 * sort_internal.h: what sorting and threading share. gather.c walks the messages and brings what their order depends
 * on; merge.c is a merge sort in slices; sort.c makes keys; thread_tree.c builds threads, thread.c feeds it.
 *
 * merge.c and thread_tree.c are pure: they never see the store.
 */
#ifndef TB_SORT_INTERNAL_H
#define TB_SORT_INTERNAL_H

#include <tambo/message.h>
#include <tambo/sort.h>

#include "engine/mime/mime.h"

/* Cost is counted in about nanoseconds; a step ends when it has used SLICE_COST. */
enum { TB_ORDER_SLICE = 512 << 10, TB_ORDER_COST_ROW = 60, TB_ORDER_COST_CACHED = 2500, TB_ORDER_COST_MOVE = 40 };

/* ---- gather.c ---- */

struct tb_facts { /* of one message; borrowed until the next tb_gather_next */
    const struct tb_row *row;
    struct tb_slice envelope, subject_base, references, message_id; /* empty where nothing is known */
};
enum { TB_GATHER_ROWS = 256 };
struct tb_gather {
    struct tb_view *view;
    const struct tb_uidset *uids;
    bool rows_only; /* nothing but the row is wanted */
    size_t range;
    uint32_t next_uid; /* where to scan next */
    struct tb_row row[TB_GATHER_ROWS];
    size_t rows_n, rows_at;
    struct tb_body *body; /* owned: a header on its way */
    struct tb_mime *mime; /* owned */
    struct tb_op read;
    uint64_t at; /* bytes of the header that were fed */
    bool waiting;
    void (*resume)(void *user); /* after a wait */
    void *user;
    uint64_t cost; /* added up; the caller resets it */
    enum tb_rc rc;
};
enum tb_gathered { TB_GATHER_ONE, TB_GATHER_WAIT, TB_GATHER_END };
/* tb_gather_init: uids alive until tb_gather_free. resume is called from the loop, never from tb_gather_next. */
void tb_gather_init(struct tb_gather *g, struct tb_view *v, const struct tb_uidset *uids, bool rows_only,
                    void (*resume)(void *user), void *user);
void tb_gather_free(struct tb_gather *g);
/* tb_gather_next: ONE: out is filled; WAIT: call again after resume; END: no more, or g->rc. In the order of UIDs. */
enum tb_gathered tb_gather_next(struct tb_gather *g, struct tb_facts *out);

/* tb_sent_date: RFC 5256 2.2, seconds since 1970. date: the Date field, ptr NULL if there is none. */
int64_t tb_sent_date(struct tb_slice date, const struct tb_row *row);

/* ---- merge.c: a stable merge sort of fixed entries, in slices ---- */

struct tb_merge_entry {
    uint64_t key;  /* compared first */
    uint32_t more; /* the caller's: what to compare if the keys are equal */
    uint32_t id;
};
struct tb_merge {
    struct tb_merge_entry *v, *to; /* owned; the result is in v */
    size_t n, cap, width, low, left, right, at;
    int (*compare)(const void *user, uint32_t a, uint32_t b); /* of two `more`; NULL: equal keys are equal */
    const void *user;
};
/* tb_merge_init: room for cap entries. false without memory. tb_merge_add: in the order that equal ones keep. */
bool tb_merge_init(struct tb_merge *m, size_t cap);
void tb_merge_free(struct tb_merge *m);
void tb_merge_add(struct tb_merge *m, uint64_t key, uint32_t more, uint32_t id);
/* tb_merge_step: until *cost >= TB_ORDER_SLICE. true: v is sorted. */
bool tb_merge_step(struct tb_merge *m, uint64_t *cost);

/* ---- steps: a slice of work now, its done from the loop ---- */

struct tb_steps {
    struct tb_view *view;
    struct tb_op *op; /* the step under way */
    struct tb_op ready;
    bool due;
    enum tb_rc rc;
};
void tb_steps_end(struct tb_steps *s, bool more); /* end the step: its done runs from the loop */
void tb_steps_free(struct tb_steps *s);           /* a done that is due does not run */

#endif
