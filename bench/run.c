/*
 * run.c: a run from the first connection to the last, seen from the main thread.
 *
 * Phases: OPENING (every session is made ready; any failure here ends the run), WARMING (load, not counted), MEASURED,
 * then the farewell. Server, generator and device figures are taken when a phase turns, while all sessions are still
 * open. Runs on the main thread; the load threads are reached by tb_io_post alone (B1).
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/bench.h"

enum { OPENING, WARMING, MEASURED, ENDED };
static const uint64_t second_ns = 1000000000;

static void end(struct bench *b)
{
    b->phase = ENDED;
    b->finished = true;
}

static void post_all(struct bench *b, size_t op_offset)
{
    for (uint32_t i = 0; i < b->options.threads; i++) {
        struct bench_thread *t = &b->threads[i];
        if (t->io != NULL)
            tb_io_post(b->io, t->io, (struct tb_op *)(void *)((char *)t + op_offset));
    }
}

static void start_timer(struct bench *b, struct bench_timer *timer, uint64_t ns)
{
    timer->on = true;
    tb_io_timer(b->io, &timer->op, ns);
}

static void measured_begins(struct bench *b)
{
    if (bench_measure(b->io, &b->options, false, &b->before, &b->err) != TB_OK) {
        end(b);
        return;
    }
    b->phase = MEASURED;
    post_all(b, offsetof(struct bench_thread, measure_op));
    if (isatty(STDERR_FILENO))
        start_timer(b, &b->progress, second_ns);
}

static void on_warm(struct tb_op *op)
{
    struct bench *b = op->user;
    b->warmup.on = false;
    if (op->result == 0)
        measured_begins(b);
}

static void on_progress(struct tb_op *op)
{
    struct bench *b = op->user;
    b->progress.on = false;
    if (op->result < 0 || b->phase != MEASURED)
        return;
    bench_report_progress(b, tb_io_now_ns(b->io) - b->before.now_ns);
    start_timer(b, &b->progress, second_ns);
}

/* Every session is ready, or the run has no sense. */
static void all_opened(struct bench *b)
{
    for (uint32_t i = 0; i < b->options.threads; i++) {
        const struct bench_thread *t = &b->threads[i];
        if (t->io == NULL)
            b->err = t->err;
        else if (t->result.refused > 0 || t->result.wrong > 0)
            (void)tb_error_set(&b->err, t->result.wrong > 0 ? TB_INVALID : TB_BUSY, 0, "%.200s", t->result.first_error);
        else
            continue;
        end(b);
        return;
    }
    if (b->options.warmup_s == 0) {
        measured_begins(b);
        return;
    }
    b->phase = WARMING;
    post_all(b, offsetof(struct bench_thread, begin_op));
    start_timer(b, &b->warmup, b->options.warmup_s * second_ns);
}

static void add_up(struct bench *b)
{
    struct bench_result *sum = &b->total;
    for (uint32_t i = 0; i < b->options.threads; i++) {
        const struct bench_result *r = &b->threads[i].result;
        sum->operations += r->operations;
        sum->messages += r->messages;
        sum->bytes += r->bytes;
        sum->received += r->received;
        sum->refused += r->refused;
        sum->wrong += r->wrong;
        sum->checked += r->checked;
        if (r->end_ns > sum->end_ns)
            sum->end_ns = r->end_ns;
        tb_histogram_merge(&sum->latency, &r->latency);
        if (sum->first_error[0] == '\0')
            memcpy(sum->first_error, r->first_error, sizeof sum->first_error);
    }
}

void bench_told(struct tb_op *op)
{
    struct bench *b = ((struct bench_thread *)op->user)->bench;
    if (++b->told < b->options.threads || b->phase == ENDED)
        return;
    b->told = 0;
    if (b->phase == OPENING) {
        all_opened(b);
        return;
    }
    if (bench_measure(b->io, &b->options, true, &b->after, &b->err) == TB_OK)
        add_up(b);
    end(b);
}

static enum tb_rc start_threads(struct bench *b)
{
    const struct bench_options *o = &b->options;
    b->threads = calloc(o->threads, sizeof *b->threads);
    if (b->threads == NULL)
        return tb_error_set(&b->err, TB_LIMIT, ENOMEM, "no memory for the threads");
    uint32_t first = 0;
    for (uint32_t i = 0; i < o->threads; i++) {
        struct bench_thread *t = &b->threads[i];
        t->bench = b;
        t->index = i;
        t->random = o->seed ^ ((uint64_t)i << 48);
        t->client_n = o->connections / o->threads + (i < o->connections % o->threads);
        t->clients = calloc(t->client_n, sizeof *t->clients);
        if (t->clients == NULL)
            return tb_error_set(&b->err, TB_LIMIT, ENOMEM, "no memory for the connections");
        for (uint32_t k = 0; k < t->client_n; k++) {
            t->clients[k].thread = t;
            t->clients[k].index = first + k;
            t->clients[k].user = &o->users[(first + k) % o->user_n];
        }
        first += t->client_n;
    }
    for (uint32_t i = 0; i < o->threads; i++) {
        int failed = pthread_create(&b->threads[i].pthread, NULL, bench_thread_main, &b->threads[i]);
        if (failed)
            return tb_error_set(&b->err, TB_LIMIT, failed, "cannot start a thread");
    }
    return TB_OK;
}

static void end_threads(struct bench *b)
{
    post_all(b, offsetof(struct bench_thread, leave_op));
    for (uint32_t i = 0; i < b->options.threads; i++) {
        (void)pthread_join(b->threads[i].pthread, NULL); /* fails only for a thread that is none */
        free(b->threads[i].clients);
    }
    free(b->threads);
    b->threads = NULL;
    if (b->warmup.on)
        tb_io_cancel(b->io, &b->warmup.op);
    if (b->progress.on)
        tb_io_cancel(b->io, &b->progress.op);
    while (b->warmup.on || b->progress.on)
        (void)tb_io_turn(b->io, true);
}

/* A descriptor per connection, and some. */
static void raise_limits(const struct bench_options *o)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= o->connections + 256)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* if not, connecting will say so */
}

static enum tb_rc load(struct bench *b)
{
    const struct bench_options *o = &b->options;
    enum tb_rc rc = TB_OK;
    for (size_t i = 0; i < o->corpus_dir_n && rc == TB_OK; i++)
        rc = bench_corpus_load(&b->corpus, b->io, o->corpus_dirs[i], &b->err);
    if (rc == TB_OK && o->seeded)
        rc = bench_corpus_generate(&b->corpus, o->seed, o->messages, &b->err);
    if (rc == TB_OK && bench_corpus_finish(&b->corpus, o->seed) != TB_OK)
        rc = tb_error_set(&b->err, TB_LIMIT, ENOMEM, "no memory for the corpus");
    if (rc == TB_OK)
        rc = bench_options_users(&b->options, b->io, &b->err);
    return rc;
}

enum tb_rc bench_run(struct bench *b)
{
    (void)signal(SIGPIPE, SIG_IGN); /* a send to a closed connection fails with EPIPE instead */
    raise_limits(&b->options);
    b->warmup.op.done = on_warm;
    b->progress.op.done = on_progress;
    b->warmup.op.user = b->progress.op.user = b;
    if (tb_io_open(b->options.posix ? TB_IO_POSIX : TB_IO_URING, &b->io, &b->err) != TB_OK &&
        tb_io_open(TB_IO_POSIX, &b->io, &b->err) != TB_OK)
        return b->err.rc;
    b->err = (struct tb_error){0};
    enum tb_rc rc = load(b);
    if (rc == TB_OK)
        rc = start_threads(b);
    if (rc == TB_OK) {
        while (!b->finished)
            (void)tb_io_turn(b->io, true);
        end_threads(b);
        rc = b->err.rc;
    }
    if (rc == TB_OK && b->options.json != NULL)
        rc = bench_report_json(b, &b->err);
    tb_io_close(b->io);
    b->io = NULL;
    return rc;
}
