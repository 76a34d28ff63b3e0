/*
 * gc.c: garbage collection on demand: begun in every shard, then watched. An answer comes after a second at the latest,
 * so that whoever waits can tell how it goes, and asks again.
 *
 * args: start (begin it), all (compress everything anew). Thread: the worker's, but for gc_run, which runs on each
 * shard's owner.
 */
#include <errno.h>

#include "frontends/ctl/verbs.h"

#define LOOK_NS UINT64_C(50000000)
#define ANSWER_NS UINT64_C(1000000000)

struct gc_job {
    struct ctl *x;
    struct tb_call call;
    struct tb_op timer;
    uint64_t begun_ns;
    uint32_t shard;
    bool start, all, running;
    struct tb_shard_stat now, total;
};

static void gc_look(struct gc_job *j);

static void gc_run(struct tb_call *call, struct tb_worker *owner)
{
    struct gc_job *j = call->user;

    if (j->start)
        tb_gc_start(owner, j->shard, j->all);
    tb_shard_stat(owner, j->shard, &j->now);
    call->rc = TB_OK;
}

static void gc_again(struct tb_op *op)
{
    struct gc_job *j = op->user;

    if (op->result == -ECANCELED)
        ctl_fail(j->x, TB_CANCELLED, "gc", NULL);
    else
        gc_look(j);
}

/* gc_held: whom the waiting segments wait for. */
static json_t *gc_held(uint32_t held)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } holders[] = {{TB_GC_HELD_BACKUP, "backup"}, {TB_GC_HELD_COPY, "index copy"},  {TB_GC_HELD_UPLOAD, "upload"},
                   {TB_GC_HELD_READER, "reader"}, {TB_GC_HELD_INDEX, "checkpoint"}, {TB_GC_HELD_NEXT, "next backup"}};
    json_t *v = json_array();

    for (size_t i = 0; i < TB_ARRAY_LEN(holders); i++)
        if (held & holders[i].bit)
            (void)json_array_append_new(v, json_string(holders[i].name)); /* without memory: said less */
    return v;
}

static void gc_answer(struct gc_job *j)
{
    const struct tb_shard_stat *t = &j->total;

    ctl_ok(j->x, json_pack("{s:b, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I}", "running", j->running, "dead_bytes",
                           (json_int_t)t->gc_dead_bytes, "waiting_segments", (json_int_t)t->gc_waiting, "waiting_for",
                           gc_held(t->gc_held), "moved_bytes", (json_int_t)t->gc_moved_bytes, "freed_segments",
                           (json_int_t)t->gc_freed_segments, "unreadable", (json_int_t)t->gc_bad, "repaired",
                           (json_int_t)t->gc_repaired, "log_used_bytes", (json_int_t)t->log_used_bytes));
}

static void gc_done(struct tb_op *op)
{
    struct gc_job *j = op->user;
    struct tb_io *io = tb_worker_io(j->x->worker);

    if (op->rc != TB_OK) {
        ctl_fail(j->x, op->rc, "gc", "a shard does not answer");
        return;
    }
    j->running |= j->now.gc_running;
    j->total.gc_dead_bytes += j->now.gc_dead_bytes;
    j->total.gc_waiting += j->now.gc_waiting;
    j->total.gc_held |= j->now.gc_held;
    j->total.gc_moved_bytes += j->now.gc_moved_bytes;
    j->total.gc_freed_segments += j->now.gc_freed_segments;
    j->total.gc_bad += j->now.gc_bad;
    j->total.gc_repaired += j->now.gc_repaired;
    j->total.log_used_bytes += j->now.log_used_bytes;
    if (++j->shard < tb_store_shards(tb_worker_store(j->x->worker))) {
        tb_call(j->x->worker, j->shard, &j->call);
        return;
    }
    j->start = false;
    if (!j->running || tb_io_now_ns(io) - j->begun_ns >= ANSWER_NS) {
        gc_answer(j);
        return;
    }
    j->timer = (struct tb_op){.done = gc_again, .user = j};
    tb_io_timer(io, &j->timer, LOOK_NS);
}

/* gc_look: ask every shard, one after the other. */
static void gc_look(struct gc_job *j)
{
    j->shard = 0;
    j->running = false;
    j->total = (struct tb_shard_stat){0};
    j->call = (struct tb_call){.run = gc_run, .user = j, .op = {.done = gc_done, .user = j}};
    tb_call(j->x->worker, 0, &j->call);
}

void ctl_gc(struct ctl *x)
{
    struct gc_job *j = ctl_data(x, sizeof(*j));

    if (!j)
        return;
    j->x = x;
    j->start = json_is_true(json_object_get(x->args, "start"));
    j->all = json_is_true(json_object_get(x->args, "all"));
    j->begun_ns = tb_io_now_ns(tb_worker_io(x->worker));
    gc_look(j);
}
