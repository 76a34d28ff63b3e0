/*
 * ready.c: the list of finished ops whose done is still to run, and the inbox by which other threads add to it.
 *
 * The inbox is a lock-free stack: posters push, the owner takes everything at once and turns it round, so each
 * sender's order is kept. A poster rings only if the owner sleeps. The handshake: the owner sets asleep and then looks
 * into the inbox; a poster pushes and then looks at asleep; all four are sequentially consistent, so at least one of
 * the two sees the other. The posting count keeps the io's memory until the poster has left (tb_post_wait).
 *
 * Invariants: B1-B3 of backend.h; done is never called from a submit, a cancel or another done.
 * Thread: the owner, but for tb_inbox_push and tb_event_ring (any thread).
 */
#include "backend.h"

#include <errno.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

void tb_list_push(struct tb_list *l, struct tb_op *op)
{
    op->next = NULL;
    if (l->tail)
        l->tail->next = op;
    else
        l->head = op;
    l->tail = op;
}

struct tb_op *tb_list_pop(struct tb_list *l)
{
    struct tb_op *op = l->head;
    if (!op)
        return NULL;
    l->head = op->next;
    if (!l->head)
        l->tail = NULL;
    op->next = NULL;
    return op;
}

bool tb_list_remove(struct tb_list *l, struct tb_op *op)
{
    struct tb_op *before = NULL;
    for (struct tb_op *o = l->head; o; before = o, o = o->next) {
        if (o != op)
            continue;
        if (before)
            before->next = op->next;
        else
            l->head = op->next;
        if (l->tail == op)
            l->tail = before;
        op->next = NULL;
        return true;
    }
    return false;
}

void tb_ready_push(struct tb_io *io, struct tb_op *op, int64_t result)
{
    op->result = result;
    op->state = TB_OP_READY;
    tb_list_push(&io->ready, op);
}

void tb_op_finish(struct tb_op *op, int64_t result)
{
    op->result = result;
    op->state = TB_OP_IDLE;
    op->done(op);
}

unsigned tb_ready_run(struct tb_io *io)
{
    struct tb_list now = io->ready;
    io->ready = (struct tb_list){0};
    unsigned ran = 0;
    for (struct tb_op *op; (op = tb_list_pop(&now)) != NULL; ran++) {
        if (op->flags & TB_OPF_INLINE) {
            op->flags &= (uint8_t)~TB_OPF_INLINE;
            op->work(op);
        }
        op->state = TB_OP_IDLE;
        op->done(op);
    }
    return ran;
}

void tb_inbox_push(struct tb_io *from, struct tb_io *to, struct tb_op *op,
                   void (*ring)(struct tb_io *from, struct tb_io *to))
{
    atomic_fetch_add(&to->posting, 1);
    struct tb_op *head = atomic_load(&to->inbox);
    do {
        op->next = head;
    } while (!atomic_compare_exchange_weak(&to->inbox, &head, op));
    /* op may be finished and gone from here on; `to` is held by the posting count */
    if (atomic_exchange(&to->asleep, false))
        ring(from, to);
    atomic_fetch_sub(&to->posting, 1);
}

void tb_inbox_take(struct tb_io *io)
{
    if (!atomic_load_explicit(&io->inbox, memory_order_relaxed))
        return;
    struct tb_op *op = atomic_exchange(&io->inbox, NULL), *oldest = NULL;
    while (op) {
        struct tb_op *next = op->next;
        op->next = oldest;
        oldest = op;
        op = next;
    }
    while (oldest) {
        struct tb_op *next = oldest->next;
        oldest->state = TB_OP_READY;
        tb_list_push(&io->ready, oldest);
        oldest = next;
    }
}

bool tb_sleep_begin(struct tb_io *io)
{
    atomic_store(&io->asleep, true);
    if (!atomic_load(&io->inbox))
        return true;
    tb_sleep_end(io);
    return false;
}

void tb_sleep_end(struct tb_io *io)
{
    atomic_store(&io->asleep, false);
}

void tb_event_ring(struct tb_io *from, struct tb_io *to)
{
    (void)from;
    while (eventfd_write(to->event_fd, 1) < 0 && errno == EINTR)
        ;
}

void tb_post_wait(struct tb_io *io)
{
    while (atomic_load(&io->posting) != 0)
        sched_yield();
}
