/*
 * scrub.c: scrubs on demand: begun in every shard, then watched. An answer comes after a second at the latest, so that
 * whoever waits can tell how it goes, and asks again.
 *
 * args: start (begin it). Thread: the worker's, but for scrub_run, which runs on each shard's owner.
 */
#include <errno.h>

#include "frontends/ctl/verbs.h"

#define LOOK_NS UINT64_C(50000000)
#define ANSWER_NS UINT64_C(1000000000)

struct scrub_job {
    struct ctl *x;
    struct tb_call call;
    struct tb_op timer;
    uint64_t begun_ns, damage, quarantined, percent;
    uint32_t shard;
    bool start, running;
    struct tb_shard_stat now;
};

static void scrub_look(struct scrub_job *j);

static void scrub_run(struct tb_call *call, struct tb_worker *owner)
{
    struct scrub_job *j = call->user;

    if (j->start)
        tb_scrub_start(owner, j->shard);
    tb_shard_stat(owner, j->shard, &j->now);
    call->rc = TB_OK;
}

static void scrub_again(struct tb_op *op)
{
    struct scrub_job *j = op->user;

    if (op->result == -ECANCELED)
        ctl_fail(j->x, TB_CANCELLED, "scrub", NULL);
    else
        scrub_look(j);
}

static void scrub_done(struct tb_op *op)
{
    struct scrub_job *j = op->user;
    struct tb_io *io = tb_worker_io(j->x->worker);
    uint32_t shards = tb_store_shards(tb_worker_store(j->x->worker));

    if (op->rc != TB_OK) {
        ctl_fail(j->x, op->rc, "scrub",
                 "a shard does not answer: if its index was found damaged, it is being made again; see the log");
        return;
    }
    j->running |= j->now.scrub_running;
    j->damage += j->now.scrub_damage;
    j->quarantined += j->now.quarantined;
    j->percent += j->now.scrub_running ? j->now.scrub_percent : 100;
    if (++j->shard < shards) {
        tb_call(j->x->worker, j->shard, &j->call);
        return;
    }
    j->start = false;
    if (!j->running || tb_io_now_ns(io) - j->begun_ns >= ANSWER_NS) {
        ctl_ok(j->x,
               json_pack("{s:b, s:I, s:I, s:I}", "running", j->running, "percent", (json_int_t)(j->percent / shards),
                         "damage", (json_int_t)j->damage, "quarantined", (json_int_t)j->quarantined));
        return;
    }
    j->timer = (struct tb_op){.done = scrub_again, .user = j};
    tb_io_timer(io, &j->timer, LOOK_NS);
}

/* scrub_look: ask every shard, one after the other. */
static void scrub_look(struct scrub_job *j)
{
    j->shard = 0;
    j->running = false;
    j->damage = j->quarantined = j->percent = 0;
    j->call = (struct tb_call){.run = scrub_run, .user = j, .op = {.done = scrub_done, .user = j}};
    tb_call(j->x->worker, 0, &j->call);
}

void ctl_scrub(struct ctl *x)
{
    struct scrub_job *j = ctl_data(x, sizeof(*j));

    if (!j)
        return;
    j->x = x;
    j->start = json_is_true(json_object_get(x->args, "start"));
    j->begun_ns = tb_io_now_ns(tb_worker_io(x->worker));
    scrub_look(j);
}
