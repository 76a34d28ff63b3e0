/*
 * mailbox.c: the verbs about an account's mailboxes. Each runs on the thread that owns the account and answers once
 * what it did is durable.
 *
 * It must never touch an account from the wrong thread: work between begin and finish happens in tb_call's run alone;
 * the JSON built there belongs to one thread at a time, first the owner's, then ours.
 */
#include <stdio.h>

#include <tambo/acl.h>

#include "frontends/auth/auth.h"
#include "frontends/ctl/verbs.h"

enum { LIST_BYTES_MAX = 64 << 20 };

struct job {
    struct ctl *x;
    struct tb_call call;
    struct tb_account_id id;
    enum { JOB_LIST, JOB_CREATE, JOB_DELETE, JOB_RETENTION, JOB_ACL } what;
    struct tb_slice name;      /* borrowed from the request */
    uint32_t days;             /* retention */
    struct tb_acl_entry entry; /* acl; without a name: it is only shown */
    char user[TB_NAME_MAX + 1];
    char how;        /* '+', '-', or 0: these rights instead */
    json_t *result;  /* owned */
    const char *why; /* static, or NULL */
};

static json_t *special_uses(uint16_t special)
{
    static const struct {
        uint16_t bit;
        const char *name;
    } uses[] = {{TB_SPECIAL_ALL, "\\All"},         {TB_SPECIAL_ARCHIVE, "\\Archive"}, {TB_SPECIAL_DRAFTS, "\\Drafts"},
                {TB_SPECIAL_FLAGGED, "\\Flagged"}, {TB_SPECIAL_JUNK, "\\Junk"},       {TB_SPECIAL_SENT, "\\Sent"},
                {TB_SPECIAL_TRASH, "\\Trash"}};
    json_t *list = json_array();

    for (size_t i = 0; i < TB_ARRAY_LEN(uses); i++)
        if (special & uses[i].bit)
            json_array_append_new(list, json_string(uses[i].name));
    return list;
}

static json_t *describe(const struct tb_mailbox *m)
{
    return json_pack("{s:s%, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:b, s:b, s:I, s:s}", "name", m->name.ptr,
                     m->name.len, "messages", (json_int_t)m->messages, "unseen", (json_int_t)m->unseen, "deleted",
                     (json_int_t)m->deleted, "bytes", (json_int_t)m->bytes, "uidvalidity", (json_int_t)m->uidvalidity,
                     "uidnext", (json_int_t)m->uidnext, "highestmodseq", (json_int_t)m->highestmodseq, "special_use",
                     special_uses(m->special), "subscribed", m->subscribed, "selectable", m->selectable,
                     "retention_days", (json_int_t)m->retention_days, "retention_rule",
                     m->retention == TB_RETENTION_DEFAULT   ? "default"
                     : m->retention == TB_RETENTION_FOREVER ? "none"
                                                            : "days");
}

static enum tb_rc list_mailboxes(struct tb_account *a, json_t **out)
{
    struct tb_arena arena;
    struct tb_mailbox *v;
    enum tb_rc rc;
    size_t n;

    tb_arena_init(&arena, LIST_BYTES_MAX);
    rc = tb_mailbox_list(a, &arena, &v, &n);
    if (rc == TB_OK) {
        *out = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(*out, describe(&v[i]));
    }
    tb_arena_free(&arena);
    return rc;
}

/* set_retention: and what the mailbox is like afterwards. */
static enum tb_rc set_retention(struct tb_account *a, struct job *j)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    tb_arena_init(&arena, 64 << 10);
    enum tb_rc rc = tb_mailbox_find(a, j->name, &arena, &m);
    if (rc == TB_OK)
        rc = tb_mailbox_retention(a, m.mbox, j->days);
    if (rc == TB_OK)
        rc = tb_mailbox_find(a, j->name, &arena, &m);
    if (rc == TB_OK)
        j->result = describe(&m);
    tb_arena_free(&arena);
    return rc;
}

/* change_acl: the one entry that was named. */
static enum tb_rc change_acl(struct tb_account *a, uint32_t mbox, const struct job *j)
{
    struct tb_acl_entry e = j->entry;
    uint32_t now = tb_acl_get(a, mbox, e.user, e.negative);
    e.rights = j->how == '+' ? now | e.rights : j->how == '-' ? now & ~e.rights : e.rights;
    return tb_acl_set(a, mbox, &e);
}

/* mailbox_acl: change an entry, if one was named; all of them as they are afterwards. */
static enum tb_rc mailbox_acl(struct tb_account *a, struct job *j)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    struct tb_acl_entry *v;
    size_t n = 0;
    char text[TB_RIGHTS_ROOM];
    tb_arena_init(&arena, 256 << 10);
    enum tb_rc rc = tb_mailbox_find(a, j->name, &arena, &m);
    if (rc == TB_OK && j->entry.name.len > 0)
        rc = change_acl(a, m.mbox, j);
    if (rc == TB_OK)
        rc = tb_acl_list(a, m.mbox, &arena, &v, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s%, s:s, s:b}", "user", v[i].name.ptr, v[i].name.len, "rights",
                                              tb_rights_text(v[i].rights, text), "negative", v[i].negative));
    j->result = json_pack("{s:s%, s:o}", "mailbox", j->name.ptr, j->name.len, "acl", list);
    tb_arena_free(&arena);
    return rc;
}

static void job_run(struct tb_call *call, struct tb_worker *owner)
{
    struct job *j = call->user;
    struct tb_account *a;
    uint32_t mbox;

    call->rc = tb_account_open(owner, j->id, &a);
    if (call->rc != TB_OK)
        return;
    switch (j->what) {
    case JOB_LIST:
        call->rc = list_mailboxes(a, &j->result);
        break;
    case JOB_CREATE:
        call->rc = tb_mailbox_create(a, j->name, 0, &mbox);
        j->why = call->rc == TB_INVALID ? "not a name for a mailbox" : NULL;
        break;
    case JOB_DELETE:
        call->rc = tb_mailbox_delete(a, j->name);
        j->why = call->rc == TB_INVALID  ? "cannot be deleted"
                 : call->rc == TB_EXISTS ? "has mailboxes below it; delete those first"
                                         : NULL;
        break;
    case JOB_RETENTION:
        call->rc = set_retention(a, j);
        j->why = call->rc == TB_INVALID ? "not so many days" : NULL;
        break;
    case JOB_ACL:
        call->rc = mailbox_acl(a, j);
        j->why = call->rc == TB_INVALID ? "the owner has every right"
                 : call->rc == TB_LIMIT ? "too many entries"
                                        : NULL;
        break;
    }
    tb_account_close(a);
}

static void job_drop(struct ctl *x)
{
    struct job *j = x->data;

    json_decref(j->result);
}

static void job_done(struct tb_op *op)
{
    struct job *j = op->user;
    struct ctl *x = j->x;
    enum tb_rc rc = op->rc != TB_OK ? op->rc : j->call.rc;
    const char *why = j->why;
    json_t *result = j->result;
    char what[512];

    if (rc != TB_OK) {
        snprintf(what, sizeof(what), "%.*s", (int)(j->name.len < 500 ? j->name.len : 500), j->name.ptr);
        ctl_fail(x, rc, what, why);
        return;
    }
    j->result = NULL;
    if (j->what == JOB_LIST)
        ctl_ok(x, json_pack("{s:o}", "mailboxes", result));
    else if (j->what == JOB_RETENTION || j->what == JOB_ACL)
        ctl_ok(x, result);
    else
        ctl_ok(x, json_pack("{s:s%}", "mailbox", j->name.ptr, j->name.len));
}

/* job_start: as `like` says beside what the request does; NULL: nothing. */
static void job_start_like(struct ctl *x, int what, uint32_t days, const struct job *like)
{
    struct tb_slice account = ctl_name(x, ctl_text(x, "account")), name = ctl_text(x, "name");
    struct tb_store *store = tb_worker_store(x->worker);
    struct tb_identity who;
    char text[TB_NAME_MAX + 1];
    struct job *j;

    if (account.len == 0 || account.len > TB_NAME_MAX) {
        ctl_usage(x, "args.account: a name is needed");
        return;
    }
    if (what != JOB_LIST && name.len == 0) {
        ctl_usage(x, "args.name: the mailbox's name is needed");
        return;
    }
    if (tb_directory_find(store, account, &who) != TB_OK) {
        snprintf(text, sizeof(text), "%.*s", (int)account.len, account.ptr);
        ctl_fail(x, TB_NOTFOUND, text, "no such account");
        return;
    }
    explicit_bzero(who.secret, sizeof(who.secret));
    j = ctl_data(x, sizeof(*j));
    if (!j)
        return;
    x->drop = job_drop;
    if (like)
        *j = *like;
    j->entry.name = tb_slice_str(j->user);
    j->x = x;
    j->id = who.id;
    j->what = (__typeof__(j->what))what;
    j->name = what == JOB_LIST ? account : name;
    j->days = days;
    j->call.run = job_run;
    j->call.user = j;
    j->call.op = (struct tb_op){.done = job_done, .user = j};
    tb_call(x->worker, who.id.shard, &j->call);
}

static void job_start(struct ctl *x, int what, uint32_t days)
{
    job_start_like(x, what, days, NULL);
}

/* ctl_mailbox_acl: args.user: as IMAP's identifiers (RFC 4314), with "-" in front for rights taken away; args.rights:
 * letters, with "+" or "-" in front to change what there is; "none". */
void ctl_mailbox_acl(struct ctl *x)
{
    struct tb_slice user = ctl_text(x, "user"), rights = ctl_text(x, "rights");
    struct tb_identity who;
    struct job like = {0};

    if ((user.len == 0) != (rights.ptr == NULL)) {
        ctl_usage(x, "args.user and args.rights come together");
        return;
    }
    if (user.len == 0) {
        job_start(x, JOB_ACL, 0);
        return;
    }
    like.entry.negative = user.len > 1 && user.ptr[0] == '-';
    user = tb_slice_sub(user, like.entry.negative, SIZE_MAX);
    like.how = rights.len > 0 && (rights.ptr[0] == '+' || rights.ptr[0] == '-') ? rights.ptr[0] : '\0';
    rights = tb_slice_eq(rights, TB_SLICE("none")) ? TB_SLICE("") : tb_slice_sub(rights, like.how != '\0', SIZE_MAX);
    if (!tb_rights_read(rights, &like.entry.rights)) {
        ctl_usage(x, "args.rights: letters of " TB_RIGHTS_LETTERS ", with + or - in front; or none");
        return;
    }
    if (tb_slice_eq(user, TB_SLICE("anyone")) || tb_slice_eq(user, TB_SLICE("authenticated"))) {
        like.entry.user = user.len == sizeof("anyone") - 1 ? TB_ACL_ANYONE : TB_ACL_AUTHENTICATED;
        snprintf(like.user, sizeof(like.user), "%.*s", (int)user.len, user.ptr);
    } else if (tb_name_resolve(tb_worker_store(x->worker), x->cfg, user, &who, NULL) == TB_OK) {
        like.entry.user = who.id.acct;
        memcpy(like.user, who.name, sizeof(like.user));
        explicit_bzero(who.secret, sizeof(who.secret));
    } else {
        snprintf(like.user, sizeof(like.user), "%.*s", (int)(user.len < TB_NAME_MAX ? user.len : TB_NAME_MAX),
                 user.ptr);
        ctl_fail(x, TB_NOTFOUND, like.user, "no such user");
        return;
    }
    job_start_like(x, JOB_ACL, 0, &like);
}

void ctl_mailbox_list(struct ctl *x)
{
    job_start(x, JOB_LIST, 0);
}

void ctl_mailbox_create(struct ctl *x)
{
    job_start(x, JOB_CREATE, 0);
}

void ctl_mailbox_delete(struct ctl *x)
{
    job_start(x, JOB_DELETE, 0);
}

void ctl_mailbox_retention(struct ctl *x)
{
    const char *rule = json_string_value(json_object_get(x->args, "rule"));
    json_int_t days = json_integer_value(json_object_get(x->args, "days"));

    if (rule && strcmp(rule, "default") == 0)
        job_start(x, JOB_RETENTION, TB_RETENTION_DEFAULT);
    else if (rule && strcmp(rule, "none") == 0)
        job_start(x, JOB_RETENTION, TB_RETENTION_FOREVER);
    else if (!rule && days >= 1 && days <= TB_RETENTION_DAYS_MAX)
        job_start(x, JOB_RETENTION, (uint32_t)days);
    else
        ctl_usage(x, "args.days: 1 to 36500; or args.rule: none or default");
}
