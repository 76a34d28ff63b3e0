/*
 * quota.c: the verb about an account's limits: change those that are named, answer with all of them and what is used.
 *
 * It must never touch an account from the wrong thread: run works on the owner's, through its call. Thread: the
 * worker's.
 */
#include <stdio.h>

#include <tambo/quota.h>

#include "frontends/ctl/verbs.h"

struct quota_job {
    struct ctl *x;
    struct tb_call call;
    struct tb_account_id id;
    char name[TB_NAME_MAX + 1];
    json_int_t given[3]; /* storage_bytes, messages, mailboxes; -1: as it is */
    struct tb_quota limit, used;
};

static void quota_run(struct tb_call *call, struct tb_worker *owner)
{
    struct quota_job *j = call->user;
    struct tb_account *a;
    call->rc = tb_account_open(owner, j->id, &a);
    if (call->rc != TB_OK)
        return;
    call->rc = tb_quota_get(a, &j->limit, &j->used);
    if (j->given[0] >= 0)
        j->limit.bytes = (uint64_t)j->given[0];
    if (j->given[1] >= 0)
        j->limit.messages = (uint64_t)j->given[1];
    if (j->given[2] >= 0)
        j->limit.mailboxes = (uint32_t)j->given[2];
    if (call->rc == TB_OK && (j->given[0] >= 0 || j->given[1] >= 0 || j->given[2] >= 0))
        call->rc = tb_quota_set(a, &j->limit);
    tb_account_close(a);
}

/* resource: a limit of 0 is none: null. */
static json_t *resource(uint64_t used, uint64_t limit)
{
    return json_pack("{s:I, s:o}", "used", (json_int_t)used, "limit",
                     limit != 0 ? json_integer((json_int_t)limit) : json_null());
}

static void quota_done(struct tb_op *op)
{
    struct quota_job *j = op->user;
    enum tb_rc rc = op->rc != TB_OK ? op->rc : j->call.rc;
    char name[TB_NAME_MAX + 1];
    if (rc == TB_OK) {
        ctl_ok(j->x, json_pack("{s:s, s:o, s:o, s:o}", "account", j->name, "storage_bytes",
                               resource(j->used.bytes, j->limit.bytes), "messages",
                               resource(j->used.messages, j->limit.messages), "mailboxes",
                               resource(j->used.mailboxes, j->limit.mailboxes)));
        return;
    }
    memcpy(name, j->name, sizeof(name));
    ctl_fail(j->x, rc, name, NULL);
}

/* given: an argument: a number up to max, or null (no limit, 0), or not there (-1). False: something else. */
static bool given(struct ctl *x, const char *key, json_int_t max, json_int_t *out)
{
    const json_t *v = json_object_get(x->args, key);
    *out = v == NULL ? -1 : json_is_null(v) ? 0 : json_integer_value(v);
    return v == NULL || json_is_null(v) || (json_is_integer(v) && *out >= 1 && *out <= max);
}

void ctl_quota(struct ctl *x)
{
    struct tb_slice account = ctl_name(x, ctl_text(x, "account"));
    struct tb_identity who;
    json_int_t limits[3];
    if (account.len == 0 || account.len > TB_NAME_MAX) {
        ctl_usage(x, "args.account: a name is needed");
        return;
    }
    if (!given(x, "storage_bytes", INT64_MAX, &limits[0]) || !given(x, "messages", INT64_MAX, &limits[1]) ||
        !given(x, "mailboxes", UINT32_MAX - 1, &limits[2])) {
        ctl_usage(x, "args: storage_bytes, messages, mailboxes: a number from 1 on, or null for no limit");
        return;
    }
    if (tb_directory_find(tb_worker_store(x->worker), account, &who) != TB_OK) {
        char text[TB_NAME_MAX + 1];
        (void)snprintf(text, sizeof(text), "%.*s", (int)account.len, account.ptr);
        ctl_fail(x, TB_NOTFOUND, text, "no such account");
        return;
    }
    explicit_bzero(who.secret, sizeof(who.secret));
    struct quota_job *j = ctl_data(x, sizeof(*j));
    if (j == NULL)
        return;
    *j = (struct quota_job){.x = x, .id = who.id};
    memcpy(j->name, who.name, sizeof(j->name));
    memcpy(j->given, limits, sizeof(limits));
    j->call.run = quota_run;
    j->call.user = j;
    j->call.op = (struct tb_op){.done = quota_done, .user = j};
    tb_call(x->worker, who.id.shard, &j->call);
}
