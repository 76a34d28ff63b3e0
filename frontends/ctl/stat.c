/*
 * stat.c: the store in numbers: each shard asked on its owner's thread, one after the other, then the total.
 *
 * "ratio" is how many raw bytes one byte on disk holds: stored_raw_bytes / (log_used_bytes + index_used_bytes).
 * Thread: the worker's, but for stat_run, which runs on each shard's owner.
 */
#include "frontends/config/config.h"
#include "frontends/ctl/verbs.h"

struct stat_job {
    struct ctl *x;
    struct tb_call call;
    struct tb_shard_stat now, total;
    json_t *shards; /* owned until the answer */
};

/* One list of the numbers, for the answer and for the sum. */
/* clang-format off */
#define STAT_COUNTS(X) \
    X(accounts) X(mailboxes) X(messages) X(raw_bytes) X(stored_raw_bytes) X(shared_raw_bytes) X(log_used_bytes) \
    X(log_file_bytes) X(index_used_bytes) X(index_file_bytes) X(log_writes) X(log_frames) X(checkpoints) \
    X(records) X(deliveries) X(quarantined) X(bad_reads) X(bad_cached) \
    X(gc_dead_bytes) X(gc_waiting) X(gc_moved_bytes) X(gc_freed_segments) X(gc_bad) X(gc_repaired) \
    X(scrub_damage) X(scrub_rounds)
/* clang-format on */

static const char *const gc_words[] = {
    [TB_GC_IDLE] = "idle", [TB_GC_SCAN] = "scanning", [TB_GC_READ] = "reading", [TB_GC_COPY] = "copying"};

static json_t *describe(const struct tb_shard_stat *s)
{
    uint64_t disk = s->log_used_bytes + s->index_used_bytes;
    json_t *o = json_object();

#define X(name) json_object_set_new(o, #name, json_integer((json_int_t)s->name));
    STAT_COUNTS(X)
#undef X
    json_object_set_new(o, "ratio", disk ? json_real((double)s->stored_raw_bytes / (double)disk) : json_null());
    return o;
}

static void stat_run(struct tb_call *call, struct tb_worker *owner)
{
    struct stat_job *j = call->user;

    tb_shard_stat(owner, j->now.shard, &j->now);
    call->rc = TB_OK;
}

static void stat_drop(struct ctl *x)
{
    struct stat_job *j = x->data;

    json_decref(j->shards);
}

static void stat_done(struct tb_op *op);

static void ask(struct stat_job *j, uint32_t shard)
{
    j->now = (struct tb_shard_stat){.shard = shard};
    j->call = (struct tb_call){.run = stat_run, .user = j, .always = true, .op = {.done = stat_done, .user = j}};
    tb_call(j->x->worker, shard, &j->call);
}

static void stat_done(struct tb_op *op)
{
    struct stat_job *j = op->user;
    struct ctl *x = j->x;
    struct tb_store *store = tb_worker_store(x->worker);
    uint32_t shard = (uint32_t)json_array_size(j->shards);
    json_t *o, *shards;

    if (op->rc != TB_OK) {
        ctl_fail(x, op->rc, "stat", "a shard does not answer");
        return;
    }
    o = describe(&j->now);
    json_object_set_new(o, "shard", json_integer(shard));
    json_object_set_new(o, "worker", json_integer(shard % tb_store_workers(store)));
    json_object_set_new(o, "state", json_string(j->now.state));
    if (j->now.reason[0])
        json_object_set_new(o, "reason", json_string(j->now.reason));
    json_object_set_new(o, "failures", json_integer(j->now.failures));
    json_object_set_new(o, "gc", json_string(gc_words[j->now.gc_phase]));
    json_object_set_new(o, "epoch", json_integer(j->now.epoch));
    json_object_set_new(o, "format", json_integer(j->now.format));
    json_object_set_new(o, "position", json_integer((json_int_t)j->now.position));
    json_object_set_new(o, "durable", json_integer((json_int_t)j->now.durable));
    json_object_set_new(o, "applied_confirmed", json_integer((json_int_t)j->now.applied_confirmed));
    if (json_array_append_new(j->shards, o) != 0) {
        ctl_ok(x, NULL);
        return;
    }
#define X(name) j->total.name += j->now.name;
    STAT_COUNTS(X)
#undef X
    if (shard + 1 < tb_store_shards(store)) {
        ask(j, shard + 1);
        return;
    }
    shards = j->shards;
    j->shards = NULL;
    ctl_ok(x, json_pack("{s:s, s:i, s:s, s:i, s:o, s:o}", "version", TB_VERSION, "format", (int)j->now.format, "io",
                        tb_io_name(tb_worker_io(x->worker)), "workers", (int)tb_store_workers(store), "total",
                        describe(&j->total), "shards", shards));
}

void ctl_stat(struct ctl *x)
{
    struct stat_job *j = ctl_data(x, sizeof(*j));

    if (!j)
        return;
    x->drop = stat_drop;
    j->x = x;
    j->shards = json_array();
    ask(j, 0);
}
