/*
 * quota.c: GETQUOTA, GETQUOTAROOT and SETQUOTA.
 *
 * Every account has one quota root, which holds all of its mailboxes. Its owner calls it "", or by the account's name;
 * an administrator (setting `admins`) may name any account's, and is the only one who may set limits. Other accounts
 * may live on other threads, so their numbers come by a call; the object that waits for it outlives the session (I4).
 * Thread: the connection's owner. RFC 9208.
 */
#include "imap_session.h"

#include <tambo/quota.h>

#include <stdlib.h>

/* quota_job: somebody's limits, being read or set on the thread that owns them. */
struct quota_job {
    struct imap_session *s; /* borrowed; NULL: the connection is gone */
    struct tb_call call;
    struct tb_account_id id;
    struct tb_quota limit, used;
    bool set, busy;
};

struct quota_args {
    struct tb_slice root;
    struct tb_quota limit;
    const char *refusal; /* static: why these limits cannot be set */
};

/* getquota = "GETQUOTA" SP quota-root-name; quota-root-name = astring */
void imap_parse_getquota(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct quota_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice root = imap_astring(p);
    if (a)
        a->root = root;
}

/* setquota-resource = resource-name SP resource-limit; resource-limit = number64 */
static void setquota_resource(struct imap_parser *p, struct quota_args *a)
{
    struct tb_slice name = imap_atom(p);
    imap_sp(p);
    uint64_t limit = imap_modseq(p); /* number64 has the same range */
    if (p->failed)
        return;
    if (limit == 0)
        a->refusal = "NO [CANNOT] A limit is at least 1; to have none, leave it out";
    else if (tb_slice_ieq(name, TB_SLICE("STORAGE")) && limit <= INT64_MAX / 1024)
        a->limit.bytes = limit * 1024;
    else if (tb_slice_ieq(name, TB_SLICE("MESSAGE")))
        a->limit.messages = limit;
    else if (tb_slice_ieq(name, TB_SLICE("MAILBOX")) && limit < UINT32_MAX)
        a->limit.mailboxes = (uint32_t)limit;
    else
        a->refusal = "NO [CANNOT] No such resource, or too large a limit";
}

/* setquota = "SETQUOTA" SP quota-root-name SP "(" [setquota-resource *(SP setquota-resource)] ")" */
void imap_parse_setquota(struct imap_parser *p, struct imap_cmd *cmd)
{
    imap_parse_getquota(p, cmd);
    imap_sp(p);
    imap_expect(p, '(');
    if (!imap_try(p, ')') && cmd->args) {
        do
            setquota_resource(p, cmd->args);
        while (!p->failed && imap_try_sp(p));
        imap_expect(p, ')');
    }
}

bool imap_is_admin(const struct imap_session *s)
{
    for (char *const *name = s->user ? s->config->admins : NULL; name && *name; name++)
        if (tb_slice_ieq(tb_slice_str(*name), tb_slice_str(s->user)))
            return true;
    return false;
}

/* put_resource: only what is limited is told (RFC 9208 4.2.1). */
static void put_resource(struct imap_out *o, bool *first, const char *name, uint64_t used, uint64_t limit)
{
    if (limit == 0)
        return;
    if (!*first)
        imap_putc(o, ' ');
    *first = false;
    imap_puts(o, name);
    imap_putc(o, ' ');
    imap_put_u64(o, used);
    imap_putc(o, ' ');
    imap_put_u64(o, limit);
}

static uint64_t kib(uint64_t bytes) /* RFC 9208 5.1: in units of 1024 octets */
{
    return bytes / 1024 + (bytes % 1024 != 0);
}

/* put_quota: quota-response = "QUOTA" SP quota-root-name SP quota-list */
static void put_quota(struct imap_session *s, struct tb_slice root, const struct tb_quota *limit,
                      const struct tb_quota *used)
{
    bool first = true;
    imap_puts(&s->out, "* QUOTA ");
    imap_put_astring(&s->out, root);
    imap_puts(&s->out, " (");
    put_resource(&s->out, &first, "STORAGE", kib(used->bytes), kib(limit->bytes));
    put_resource(&s->out, &first, "MESSAGE", used->messages, limit->messages);
    put_resource(&s->out, &first, "MAILBOX", used->mailboxes, limit->mailboxes);
    imap_puts(&s->out, ")\r\n");
}

/* getquotaroot = "GETQUOTAROOT" SP mailbox. The mailbox need not exist (RFC 9208 4.1.2). */
enum imap_run imap_run_getquotaroot(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct tb_slice *name = cmd->args;
    struct tb_quota limit, used;
    enum tb_rc rc = tb_quota_get(s->account, &limit, &used);
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    imap_puts(&s->out, "* QUOTAROOT ");
    imap_put_mailbox(&s->out, *name);
    imap_puts(&s->out, " \"\"\r\n");
    put_quota(s, TB_SLICE(""), &limit, &used);
    return imap_reply(cmd, "OK GETQUOTAROOT completed");
}

/* ---- another account's ---- */

static void job_run(struct tb_call *call, struct tb_worker *owner)
{
    struct quota_job *j = call->user;
    struct tb_account *a;
    call->rc = tb_account_open(owner, j->id, &a);
    if (call->rc != TB_OK)
        return;
    if (j->set)
        call->rc = tb_quota_set(a, &j->limit);
    if (call->rc == TB_OK)
        call->rc = tb_quota_get(a, &j->limit, &j->used);
    tb_account_close(a);
}

static void job_done(struct tb_op *op)
{
    struct quota_job *j = op->user;
    j->busy = false;
    if (j->s)
        tb_conn_resume(j->s->conn);
    else
        free(j);
}

static void job_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct quota_job *j = cmd->state;
    (void)s;
    cmd->state = NULL;
    if (j && j->busy)
        j->s = NULL; /* job_done frees it */
    else
        free(j);
}

/* job_start: root is resolved; NULL: the call is under way, else what to answer. */
static const char *job_start(struct imap_session *s, struct imap_cmd *cmd, bool set)
{
    const struct quota_args *a = cmd->args;
    struct tb_worker *w = tb_conn_worker(s->conn);
    struct tb_identity who;
    bool own = a->root.len == 0 || tb_slice_ieq(a->root, tb_slice_str(s->user));
    if (!imap_is_admin(s) && (set || !own))
        return set ? "NO [NOPERM] Only an administrator may set limits" : "NO [NONEXISTENT] No such quota root";
    if (a->refusal)
        return a->refusal;
    if (tb_directory_find(tb_worker_store(w), own ? tb_slice_str(s->user) : a->root, &who) != TB_OK)
        return "NO [NONEXISTENT] No such quota root";
    explicit_bzero(who.secret, sizeof who.secret);
    struct quota_job *j = calloc(1, sizeof *j);
    if (!j)
        return "NO [UNAVAILABLE] Out of memory, try later";
    *j = (struct quota_job){.s = s, .id = who.id, .limit = a->limit, .set = set, .busy = true};
    cmd->state = j;
    cmd->cleanup = job_cleanup;
    j->call.run = job_run;
    j->call.user = j;
    j->call.op = (struct tb_op){.done = job_done, .user = j};
    tb_call(w, who.id.shard, &j->call);
    return NULL;
}

static enum imap_run job(struct imap_session *s, struct imap_cmd *cmd, bool set)
{
    const struct quota_args *a = cmd->args;
    struct quota_job *j = cmd->state;
    if (!j) {
        const char *refusal = job_start(s, cmd, set);
        return refusal ? imap_reply(cmd, refusal) : RUN_WAIT;
    }
    if (j->busy)
        return RUN_WAIT;
    enum tb_rc rc = j->call.op.rc != TB_OK ? j->call.op.rc : j->call.rc;
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    put_quota(s, a->root, &j->limit, &j->used);
    return imap_reply(cmd, set ? "OK SETQUOTA completed" : "OK GETQUOTA completed");
}

enum imap_run imap_run_getquota(struct imap_session *s, struct imap_cmd *cmd)
{
    return job(s, cmd, false);
}

enum imap_run imap_run_setquota(struct imap_session *s, struct imap_cmd *cmd)
{
    return job(s, cmd, true);
}
