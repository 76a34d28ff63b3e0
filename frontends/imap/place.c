/*
 * place.c: whose mailbox a name means, what this session may do there, and how it gets there.
 *
 * A session sits in one account at a time: its own after login, another's while a mailbox of that one is selected. It
 * moves only in SELECT and EXAMINE, when nothing is selected, to the worker that owns the account; so the selected
 * mailbox is always read and changed on its owner's thread by plain calls, and IDLE is told as ever. What a command
 * does in an account where the session does not sit is an errand: a message to that account's owner (tb_call), answered
 * when it is durable.
 *
 * Invariants
 * P1 an account is touched by its owner's thread alone: s->account always belongs to the connection's present worker.
 * P2 a verb that is not said to know about this (verbs.c, abroad) runs only at home.
 * P3 what a user may not look up is answered exactly as what is not there (RFC 4314 6).
 * P4 an errand outlives the session while its call is under way (I4).
 * Thread: the connection's owner; work functions: the account's. RFC 2342 (namespaces); RFC 4314 4, 6.
 */
#include "imap_session.h"

#include <tambo/watch.h>

#include <stdlib.h>

/* ---- names ---- */

bool imap_is_others(struct tb_slice name)
{
    struct tb_slice prefix = TB_SLICE(IMAP_OTHERS);
    size_t n = prefix.len - 1; /* without the separator: the namespace itself */
    return name.len >= n && memcmp(name.ptr, prefix.ptr, n) == 0 && (name.len == n || name.ptr[n] == '/');
}

bool imap_locate(struct imap_session *s, struct tb_slice name, struct imap_place *out)
{
    struct tb_identity who;
    *out = (struct imap_place){.id = s->account_id, .name = name, .own = true};
    if (!imap_is_others(name))
        return true;
    struct tb_slice rest = tb_slice_sub(name, sizeof(IMAP_OTHERS) - 1, SIZE_MAX);
    const char *slash = rest.len > 0 ? memchr(rest.ptr, '/', rest.len) : NULL;
    size_t n = slash ? (size_t)(slash - rest.ptr) : 0;
    if (n == 0 || n > TB_NAME_MAX ||
        tb_directory_find(tb_worker_store(tb_conn_worker(s->conn)), tb_slice_sub(rest, 0, n), &who) != TB_OK)
        return false;
    explicit_bzero(who.secret, sizeof who.secret);
    bool canonical = tb_slice_eq(tb_slice_str(who.name), tb_slice_sub(rest, 0, n));
    *out = (struct imap_place){.id = who.id, .name = tb_slice_sub(rest, n + 1, SIZE_MAX)};
    return canonical && who.id.acct != s->account_id.acct && out->name.len > 0;
}

/* ---- where the session sits ---- */

bool imap_at_home(const struct imap_session *s)
{
    return s->seat.acct == s->account_id.acct;
}

static void set_out(struct imap_session *s, struct tb_account_id id)
{
    s->seat = id;
    tb_conn_move(s->conn, tb_store_worker_of(tb_worker_store(tb_conn_worker(s->conn)), id));
}

void imap_leave(struct tb_conn *c)
{
    struct imap_session *s = tb_conn_session(c);
    imap_notify_leave(s);
    if (s->account)
        tb_account_close(s->account);
    s->account = NULL;
}

bool imap_sit(struct imap_session *s, struct tb_account_id id, enum tb_rc *rc)
{
    TB_ASSERT(!s->view);
    if (s->account && s->seat.acct == id.acct) {
        *rc = TB_OK;
        return true;
    }
    if (imap_notify_busy(s))
        return false;
    if (s->account) {
        set_out(s, id);
        return false;
    }
    enum tb_rc opened = tb_account_open(tb_conn_worker(s->conn), s->seat, &s->account);
    if (opened == TB_OK) {
        tb_conn_account(s->conn, s->account);
        *rc = s->seat.acct == id.acct ? TB_OK : s->sit_rc;
        return true;
    }
    s->account = NULL;
    s->sit_rc = *rc = opened;
    if (!imap_at_home(s)) {
        set_out(s, s->account_id);
        return false;
    }
    s->farewell = "[UNAVAILABLE] The account can not be opened";
    return true;
}

/* ---- rights ---- */

bool imap_rights_look(struct imap_session *s)
{
    uint32_t now = imap_at_home(s) ? TB_RIGHTS_ALL
                                   : tb_acl_rights(s->account, tb_view_mbox(s->view), s->account_id.acct);
    s->rights_changed |= now != s->rights;
    s->rights = now;
    return now & TB_RIGHT_READ;
}

uint16_t imap_flags_allowed(uint32_t rights)
{
    uint32_t seen = rights & TB_RIGHT_SEEN ? TB_FLAG_SEEN : 0, deleted = rights & TB_RIGHT_DELETE ? TB_FLAG_DELETED : 0;
    uint32_t others = rights & TB_RIGHT_WRITE ? TB_FLAG_ANSWERED | TB_FLAG_FLAGGED | TB_FLAG_DRAFT : 0;
    return (uint16_t)(seen | deleted | others);
}

/* ---- errands ---- */

struct imap_errand *imap_errand_new(struct imap_session *s, const struct imap_place *where)
{
    struct imap_errand *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    tb_arena_init(&e->arena, IMAP_ARENA_MAX);
    e->s = s;
    e->id = where->id;
    e->own = where->own;
    e->user = s->account_id.acct;
    e->self = imap_notify_self(s);
    e->name = tb_arena_copy(&e->arena, where->name);
    if (e->arena.overflowed) {
        imap_errand_end(e);
        return NULL;
    }
    return e;
}

void imap_errand_end(struct imap_errand *e)
{
    if (!e)
        return;
    if (e->busy) {
        e->s = NULL; /* errand_done frees it */
        return;
    }
    if (e->body)
        tb_body_release(e->from, e->body);
    tb_arena_free(&e->arena);
    free(e);
}

static void errand_done(struct tb_op *op)
{
    struct imap_errand *e = op->user;
    e->busy = false;
    if (e->call.rc != TB_OK)
        e->rc = TB_IO;
    if (e->s)
        tb_conn_resume(e->s->conn);
    else
        imap_errand_end(e);
}

/* errand_run: on the owner's thread. What the work says is kept in the errand: the call itself is never put off. */
static void errand_run(struct tb_call *call, struct tb_worker *owner)
{
    struct imap_errand *e = call->user;
    struct tb_account *a = NULL;
    e->rc = TB_OK;
    if (e->id.acct != 0)
        e->rc = tb_account_open(owner, e->id, &a);
    tb_self(owner, e->self);
    if (e->rc == TB_OK)
        e->work(e, owner, a);
    tb_self(owner, 0);
    if (a)
        tb_account_close(a);
}

void imap_errand_start(struct imap_session *s, struct imap_errand *e,
                       void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *a))
{
    e->work = work;
    e->from = tb_conn_worker(s->conn);
    e->rc = TB_OK;
    e->refusal = NULL;
    if (s->account && e->id.acct == s->seat.acct) {
        work(e, tb_conn_worker(s->conn), s->account);
        return;
    }
    e->busy = true;
    e->call = (struct tb_call){.run = errand_run, .user = e, .op = {.done = errand_done, .user = e}};
    tb_call(tb_conn_worker(s->conn), e->id.shard, &e->call);
}

static void errand_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    (void)s;
    imap_errand_end(cmd->state);
    cmd->state = NULL;
}

struct imap_errand *imap_errand_of(struct imap_session *s, struct imap_cmd *cmd, const struct imap_place *where)
{
    struct imap_errand *e = imap_errand_new(s, where);
    cmd->state = e;
    cmd->cleanup = errand_cleanup;
    return e;
}

enum imap_run imap_errand_reply(struct imap_cmd *cmd, const struct imap_errand *e)
{
    return e->refusal ? imap_reply(cmd, e->refusal) : imap_reply_rc(cmd, e->rc);
}

bool imap_errand_may(struct imap_errand *e, uint32_t have, uint32_t need)
{
    if (e->own || (have & need) == need)
        return true;
    if (have & TB_RIGHT_LOOKUP)
        e->refusal = IMAP_NOPERM;
    e->rc = TB_NOTFOUND;
    return false;
}

bool imap_errand_find(struct imap_errand *e, struct tb_account *a, uint32_t need)
{
    e->rc = tb_mailbox_find(a, e->name, &e->arena, &e->mailbox);
    if (e->rc == TB_INVALID || (e->rc == TB_OK && !e->mailbox.selectable) || (e->rc == TB_LIMIT && !e->own))
        e->rc = TB_NOTFOUND;
    if (e->rc != TB_OK)
        return false;
    e->rights = tb_acl_rights(a, e->mailbox.mbox, e->user);
    return imap_errand_may(e, e->rights, need);
}
