/*
 * quota.c: GETQUOTA, GETQUOTAROOT and SETQUOTA.
 *
 * Every account has one quota root, which holds all of its mailboxes. Its owner calls it "", or by the account's name;
 * an administrator (setting `admins`) may name any account's, and is the only one who may set limits. The root of a
 * mailbox of others is its owner's, called by the owner's name. Limits are read and set by errands (place.c), because
 * their account may live on another thread. Thread: the connection's owner. RFC 9208.
 */
#include "imap_session.h"

#include <tambo/quota.h>

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

/* work_quota: e->on: set e->quota first; then what is limited and used. */
static void work_quota(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    e->rc = e->on ? tb_quota_set(a, &e->quota) : TB_OK;
    if (e->rc == TB_OK)
        e->rc = tb_quota_get(a, &e->quota, &e->used);
}

/* work_root: of a mailbox of others: it must be one that may be read (RFC 9208 4.1.2). */
static void work_root(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    if (e->own || imap_errand_find(e, a, TB_RIGHT_READ))
        work_quota(e, w, a);
}

/* owner_of: the owner's name, in the name of a mailbox of others. */
static struct tb_slice owner_of(struct tb_slice name)
{
    struct tb_slice rest = tb_slice_sub(name, sizeof IMAP_OTHERS - 1, name.len);
    const char *slash = rest.len > 0 ? memchr(rest.ptr, '/', rest.len) : NULL;
    return tb_slice_sub(rest, 0, slash ? (size_t)(slash - rest.ptr) : rest.len);
}

/* getquotaroot = "GETQUOTAROOT" SP mailbox. An own mailbox need not exist (RFC 9208 4.1.2). */
enum imap_run imap_run_getquotaroot(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct tb_slice *name = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place where;
    if (!e) {
        if (!imap_locate(s, *name, &where))
            return imap_reply_rc(cmd, TB_NOTFOUND);
        if (!(e = imap_errand_of(s, cmd, &where)))
            return imap_reply_rc(cmd, TB_LIMIT);
        imap_errand_start(s, e, work_root);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    struct tb_slice root = e->own ? TB_SLICE("") : owner_of(*name);
    imap_puts(&s->out, "* QUOTAROOT ");
    imap_put_mailbox(&s->out, *name);
    imap_putc(&s->out, ' ');
    imap_put_astring(&s->out, root);
    imap_puts(&s->out, "\r\n");
    put_quota(s, root, &e->quota, &e->used);
    return imap_reply(cmd, "OK GETQUOTAROOT completed");
}

/* start: find whose root it is and begin; NULL: the errand is cmd->state, else what to answer. */
static const char *start(struct imap_session *s, struct imap_cmd *cmd, bool set)
{
    const struct quota_args *a = cmd->args;
    struct tb_identity who;
    bool own = a->root.len == 0 || tb_slice_ieq(a->root, tb_slice_str(s->user));
    if (!imap_is_admin(s) && (set || !own))
        return set ? "NO [NOPERM] Only an administrator may set limits" : "NO [NONEXISTENT] No such quota root";
    if (a->refusal)
        return a->refusal;
    if (tb_directory_find(tb_worker_store(tb_conn_worker(s->conn)), own ? tb_slice_str(s->user) : a->root, &who) !=
        TB_OK)
        return "NO [NONEXISTENT] No such quota root";
    explicit_bzero(who.secret, sizeof who.secret);
    struct imap_errand *e = imap_errand_of(s, cmd,
                                           &(struct imap_place){.id = who.id, .name = TB_SLICE(""), .own = own});
    if (!e)
        return "NO [UNAVAILABLE] Out of memory, try later";
    e->quota = a->limit;
    e->on = set;
    imap_errand_start(s, e, work_quota);
    return NULL;
}

static enum imap_run quota(struct imap_session *s, struct imap_cmd *cmd, bool set)
{
    const struct quota_args *a = cmd->args;
    const char *refusal = cmd->state ? NULL : start(s, cmd, set);
    if (refusal)
        return imap_reply(cmd, refusal);
    const struct imap_errand *e = cmd->state;
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    put_quota(s, a->root, &e->quota, &e->used);
    return imap_reply(cmd, set ? "OK SETQUOTA completed" : "OK GETQUOTA completed");
}

enum imap_run imap_run_getquota(struct imap_session *s, struct imap_cmd *cmd)
{
    return quota(s, cmd, false);
}

enum imap_run imap_run_setquota(struct imap_session *s, struct imap_cmd *cmd)
{
    return quota(s, cmd, true);
}
