/*
 * dict.c: the verbs about dictionaries: which there are, and "train one now". Training runs in the shard that has the
 * most mail, which every shard is asked for first. Thread: the worker's, but for count_run, which runs on each shard's
 * owner.
 */
#include "frontends/ctl/verbs.h"

#include <stdlib.h>

enum { LIST_MAX = 4096 };

struct dict_job {
    struct ctl *x;
    struct tb_call call;
    struct tb_shard_stat now;
    uint32_t shard, best;
    uint64_t most;
    struct tb_dict_training training;
};

static json_t *percent(uint64_t before, uint64_t after)
{
    return before ? json_real(100.0 * ((double)before - (double)after) / (double)before) : json_null();
}

void ctl_dict_list(struct ctl *x)
{
    struct tb_store *store = tb_worker_store(x->worker);
    struct tb_dict_info *v = calloc(LIST_MAX, sizeof(*v));
    json_t *list = json_array();
    size_t n = v ? tb_dict_list(store, v, LIST_MAX) : 0;

    for (size_t i = 0; i < n; i++) {
        json_t *o = json_pack("{s:i, s:s, s:i, s:I, s:b, s:i, s:i}", "id", (int)v[i].id, "role", v[i].role, "bytes",
                              (int)v[i].bytes, "created", (json_int_t)v[i].created, "in_use", (int)v[i].in_use,
                              "shards", (int)v[i].shards, "shards_wanted", (int)tb_store_shards(store));
        json_object_set_new(o, "saves_percent", percent(v[i].before, v[i].after));
        json_array_append_new(list, o);
    }
    if (!v) {
        json_decref(list);
        list = NULL;
    }
    free(v);
    ctl_ok(x, list ? json_pack("{s:o}", "dictionaries", list) : NULL);
}

/* ---- dict train ---- */

static void trained(struct tb_op *op)
{
    struct dict_job *j = op->user;
    json_t *roles = json_array();

    if (op->rc != TB_OK) {
        json_decref(roles);
        ctl_fail(j->x, op->rc, "dict train",
                 op->rc == TB_BUSY       ? "a training is under way"
                 : op->rc == TB_NOTFOUND ? "too little mail to train on"
                                         : NULL);
        return;
    }
    for (int i = 0; i < TB_DICT_ROLES; i++) {
        const struct tb_dict_trained *r = &j->training.result[i];
        json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "role", r->role, "samples", (json_int_t)r->samples,
                              "held_out", (json_int_t)r->held_out, "raw", (json_int_t)r->raw, "before",
                              (json_int_t)r->before, "after", (json_int_t)r->after, "id", (json_int_t)r->id);

        json_object_set_new(o, "saves_percent", percent(r->before, r->after));
        json_object_set_new(o, "adopted", json_boolean(r->id != 0));
        json_array_append_new(roles, o);
    }
    ctl_ok(j->x, json_pack("{s:i, s:I, s:o}", "shard", (int)j->best, "messages", (json_int_t)j->training.messages,
                           "roles", roles));
}

static void count_run(struct tb_call *call, struct tb_worker *owner)
{
    struct dict_job *j = call->user;

    tb_shard_stat(owner, j->shard, &j->now);
    call->rc = TB_OK;
}

static void counted(struct tb_op *op);

static void count(struct dict_job *j)
{
    j->now = (struct tb_shard_stat){0};
    j->call = (struct tb_call){.run = count_run, .user = j, .always = true, .op = {.done = counted, .user = j}};
    tb_call(j->x->worker, j->shard, &j->call);
}

static void counted(struct tb_op *op)
{
    struct dict_job *j = op->user;

    if (op->rc == TB_OK && j->now.messages > j->most) {
        j->most = j->now.messages;
        j->best = j->shard;
    }
    if (++j->shard < tb_store_shards(tb_worker_store(j->x->worker))) {
        count(j);
        return;
    }
    j->training.op = (struct tb_op){.done = trained, .user = j};
    tb_dict_train(j->x->worker, j->best, &j->training);
}

void ctl_dict_train(struct ctl *x)
{
    struct dict_job *j = ctl_data(x, sizeof(*j));

    if (!j)
        return;
    j->x = x;
    count(j);
}
