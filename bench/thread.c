/*
 * thread.c: a load thread: opens its clients a few at a time, lets them run between begin and deadline, ends them.
 *
 * It rests (parked) when no operation of its clients is under way any more; main reads its result only then. What hangs
 * is dropped and counted as a failure, so that a run always ends: OPENING_S after the start, GRACE_S after the
 * deadline, LEAVE_S after the farewell.
 */
#include <stdlib.h>

#include "bench/bench.h"

enum { OPENING_MAX = 64, OPENING_S = 120, GRACE_S = 60, LEAVE_S = 5 };
static const uint64_t second_ns = 1000000000;

static void tell(struct bench_thread *t)
{
    tb_io_post(t->io, t->bench->io, &t->told_op);
}

static void arm(struct bench_thread *t, struct bench_timer *timer, uint64_t seconds)
{
    timer->on = true;
    tb_io_timer(t->io, &timer->op, seconds * second_ns);
}

static void disarm(struct bench_thread *t, struct bench_timer *timer)
{
    if (timer->on)
        tb_io_cancel(t->io, &timer->op);
}

static void park_if_idle(struct bench_thread *t)
{
    if (!t->measuring || t->parked || t->busy > 0)
        return;
    t->parked = true;
    t->result.end_ns = tb_io_now_ns(t->io);
    disarm(t, &t->deadline);
    tell(t);
}

void bench_thread_opened(struct bench_thread *t)
{
    t->opening--;
    while (t->opened < t->client_n && t->opening < OPENING_MAX && !t->leaving) {
        t->opening++;
        bench_client_open(&t->clients[t->opened++]);
    }
    if (t->opening == 0 && !t->told) {
        t->told = true;
        disarm(t, &t->opening_limit);
        tell(t);
    }
}

bool bench_thread_next(struct bench_thread *t)
{
    enum { REFUSALS_MAX = 1000 };
    if (!t->running || t->stopping || t->budget == 0 || t->result.refused > REFUSALS_MAX)
        return false;
    t->budget--;
    t->turn++;
    return true;
}

void bench_thread_rested(struct bench_thread *t)
{
    t->busy--;
    park_if_idle(t);
}

void bench_thread_closed(struct bench_thread *t)
{
    t->open--;
}

static void start_all(struct bench_thread *t)
{
    t->running = true;
    for (uint32_t i = 0; i < t->client_n; i++)
        bench_client_start(&t->clients[i]);
}

static void on_begin(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    t->budget = UINT64_MAX;
    start_all(t);
}

static void on_measure(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    const struct bench_options *o = &t->bench->options;
    t->result = (struct bench_result){0};
    t->budget = UINT64_MAX;
    if (o->count > 0)
        t->budget = o->count / o->threads + (t->index < o->count % o->threads);
    t->measuring = true;
    t->measured_from_ns = tb_io_now_ns(t->io);
    arm(t, &t->deadline, o->seconds);
    if (!t->running)
        start_all(t);
    park_if_idle(t);
}

static void on_leave(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    t->leaving = true;
    arm(t, &t->leave_limit, LEAVE_S);
    for (uint32_t i = 0; i < t->opened; i++)
        bench_client_leave(&t->clients[i]);
}

static void drop_hanging(struct bench_thread *t, enum bench_phase phase, const char *why)
{
    for (uint32_t i = 0; i < t->opened; i++) {
        if (t->clients[i].phase == phase)
            bench_client_lost(&t->clients[i], why, (struct tb_slice){0});
    }
}

static void on_opening_limit(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    t->opening_limit.on = false;
    if (op->result == 0)
        drop_hanging(t, BENCH_OPENING, "the session was not ready in time");
}

static void on_deadline(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    t->deadline.on = false;
    if (op->result < 0 || t->parked)
        return;
    if (t->stopping) {
        drop_hanging(t, BENCH_BUSY, "no answer long after the end of the run");
    } else {
        t->stopping = true;
        arm(t, &t->deadline, GRACE_S);
    }
}

static void on_leave_limit(struct tb_op *op)
{
    struct bench_thread *t = op->user;
    t->leave_limit.on = false;
    if (op->result == 0)
        drop_hanging(t, BENCH_LEAVING, "no answer to the farewell");
}

static void prepare_ops(struct bench_thread *t)
{
    t->begin_op.done = on_begin;
    t->measure_op.done = on_measure;
    t->leave_op.done = on_leave;
    t->told_op.done = bench_told;
    t->opening_limit.op.done = on_opening_limit;
    t->deadline.op.done = on_deadline;
    t->leave_limit.op.done = on_leave_limit;
    t->begin_op.user = t->measure_op.user = t->leave_op.user = t->told_op.user = t;
    t->opening_limit.op.user = t->deadline.op.user = t->leave_limit.op.user = t;
}

void *bench_thread_main(void *user)
{
    struct bench_thread *t = user;
    const struct bench_options *o = &t->bench->options;
    prepare_ops(t);
    struct tb_io *io = NULL;
    if (tb_io_open(o->posix ? TB_IO_POSIX : TB_IO_URING, &io, &t->err) != TB_OK &&
        tb_io_open(TB_IO_POSIX, &io, &t->err) != TB_OK) {
        tell(t);
        return NULL;
    }
    t->io = io;
    arm(t, &t->opening_limit, OPENING_S);
    t->opening = 1; /* for the time of this call, so that it sees its own beginning as one opened */
    bench_thread_opened(t);
    while (!t->leaving || t->open > 0)
        (void)tb_io_turn(io, true);
    disarm(t, &t->opening_limit);
    disarm(t, &t->deadline);
    disarm(t, &t->leave_limit);
    while (t->opening_limit.on || t->deadline.on || t->leave_limit.on)
        (void)tb_io_turn(io, true);
    tb_io_close(io);
    return NULL;
}
