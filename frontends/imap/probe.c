/*
 * probe.c: a search of one mailbox, wherever its account lives, that is not selected for it.
 *
 * A probe goes to the mailbox's owner by a message, opens a view of its own there and searches it in slices between
 * that thread's other work. When it is over a second message brings home what was found, once that is durable (R16),
 * and closes the view. The session waits; if it ends first, the second message is sent at once and ends the search.
 *
 * Invariants
 * B1 `account`, `view`, `search` and `step` belong to the owner's thread, `s`, `ending` and `busy` to the session's;
 * the rest is written by the owner's thread before it hands over. B2 the second message is sent once, unless the first
 * one could not be delivered. It is over, and an orphan is freed (I4), when both messages and the word that the search
 * is over, if that was sent, have arrived. B3 a probe holds nothing of a shard that fails: its next step lets go.
 * Thread: see B1. RFC 7377 2.2 (rights).
 */
#include "imap_search.h"

#include <stdlib.h>

struct imap_probe {
    struct imap_session *s; /* borrowed; NULL: the connection is gone */
    struct imap_probe_result result;
    struct tb_account_id id;
    struct tb_arena arena;
    struct tb_slice name;   /* as the owner knows it; arena */
    struct imap_search ask; /* what was asked; its program is the arena's */
    uint32_t user, need, skip;
    uint32_t messages_max;
    int64_t now_s;
    bool own, busy, ending;
    bool told;                 /* the owner sent word */
    bool begun, heard, closed; /* what arrived: the first message, the word, the second message */
    struct tb_io *home;        /* of the session */
    struct tb_io *away;        /* of the owner */
    struct tb_account *account;
    struct tb_view *view;
    struct tb_search *search;
    struct tb_op step, wake;
    struct tb_call call, last;
};

/* ---- on the owner's thread ---- */

static void let_go(struct imap_probe *b)
{
    tb_search_end(b->search);
    tb_view_close(b->view);
    if (b->account)
        tb_account_close(b->account);
    b->search = NULL;
    b->view = NULL;
    b->account = NULL;
}

/* over: the search is done, or can not go on. */
static void over(struct imap_probe *b, enum tb_rc rc)
{
    b->result.rc = rc;
    if (rc != TB_OK)
        let_go(b);
    b->told = true;
    tb_io_post(b->away, b->home, &b->wake);
}

static void step_done(struct tb_op *op)
{
    struct imap_probe *b = op->user;
    if (!tb_store_serves(tb_worker_store(tb_account_worker(b->account)), b->id)) {
        over(b, TB_IO);
        return;
    }
    if (op->rc != TB_OK || op->result == 0) {
        over(b, op->rc);
        return;
    }
    b->step = (struct tb_op){.done = step_done, .user = b};
    tb_search_step(b->search, &b->step);
}

/* find: the mailbox, if it is there for this user. */
static enum tb_rc find(struct imap_probe *b)
{
    struct tb_mailbox *m = &b->result.mailbox;
    enum tb_rc rc = tb_mailbox_find(b->account, b->name, &b->arena, m);
    if (rc != TB_OK)
        return rc == TB_IO ? rc : TB_NOTFOUND;
    uint32_t rights = b->own ? TB_RIGHTS_ALL : tb_acl_rights(b->account, m->mbox, b->user);
    return m->selectable && (rights & b->need) == b->need ? TB_OK : TB_NOTFOUND;
}

static enum tb_rc begin(struct imap_probe *b, struct tb_worker *w)
{
    enum tb_rc rc = tb_account_open(w, b->id, &b->account);
    if (rc == TB_OK)
        rc = find(b);
    if (rc != TB_OK)
        return rc;
    b->result.selected = b->skip != 0 && b->result.mailbox.mbox == b->skip;
    b->result.over_limit = b->messages_max > 0 && b->result.mailbox.messages > b->messages_max;
    if (b->result.selected || b->result.over_limit || b->result.mailbox.messages == 0)
        return TB_NOTFOUND;
    rc = tb_view_open(b->account, b->result.mailbox.mbox, &b->view);
    if (rc == TB_OK)
        rc = imap_search_resolve(b->ask.root, b->view, NULL, false, &b->arena);
    if (rc == TB_OK)
        rc = tb_search_begin(b->view, b->ask.root, b->now_s, &b->search);
    return rc;
}

static void begin_run(struct tb_call *call, struct tb_worker *owner)
{
    struct imap_probe *b = call->user;
    b->away = tb_worker_io(owner);
    enum tb_rc rc = begin(b, owner);
    if (rc != TB_OK) {
        over(b, rc);
        return;
    }
    b->step = (struct tb_op){.done = step_done, .user = b};
    tb_search_step(b->search, &b->step);
}

static void last_run(struct tb_call *call, struct tb_worker *owner)
{
    struct imap_probe *b = call->user;
    (void)owner;
    if (b->search && b->result.rc == TB_OK) {
        const struct tb_uidset *found = tb_search_found(b->search);
        b->result.highest = b->ask.modseq ? imap_search_highest(&b->ask, b->view, b->search) : 0;
        tb_uidset_intersect(found, tb_view_uids(b->view), &b->result.found);
        if (b->result.found.failed)
            b->result.rc = TB_LIMIT;
    }
    let_go(b);
}

/* ---- on the session's thread ---- */

static void probe_free(struct imap_probe *b)
{
    tb_uidset_free(&b->result.found);
    tb_arena_free(&b->arena);
    free(b);
}

/* settle: is it over? */
static void settle(struct imap_probe *b)
{
    if (!b->begun || !b->closed || (b->told && !b->heard))
        return;
    b->busy = false;
    if (b->s)
        tb_conn_resume(b->s->conn);
    else
        probe_free(b);
}

static void last_done(struct tb_op *op)
{
    struct imap_probe *b = op->user;
    if (b->last.rc != TB_OK)
        b->result.rc = TB_IO;
    b->closed = true;
    settle(b);
}

/* finish: send the second message. */
static void finish(struct imap_probe *b, struct tb_worker *w)
{
    b->ending = true;
    b->last = (struct tb_call){.run = last_run, .user = b, .always = true, .op = {.done = last_done, .user = b}};
    tb_call(w, b->id.shard, &b->last);
}

static void wake_done(struct tb_op *op)
{
    struct imap_probe *b = op->user;
    b->heard = true;
    if (!b->ending)
        finish(b, tb_conn_worker(b->s->conn));
    else
        settle(b);
}

static void begin_done(struct tb_op *op)
{
    struct imap_probe *b = op->user;
    b->begun = true;
    if (b->call.rc != TB_OK && !b->away) { /* it did not run: the shard is not in service */
        b->result.rc = TB_IO;
        b->closed |= !b->ending;
        b->ending = true;
    }
    settle(b);
}

struct imap_probe *imap_probe_new(struct imap_session *s, const struct imap_search *ask,
                                  const struct imap_probe_where *where)
{
    struct imap_probe *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    tb_arena_init(&b->arena, IMAP_ARENA_MAX);
    tb_uidset_init(&b->result.found);
    b->s = s;
    b->id = where->place.id;
    b->own = where->place.own;
    b->name = tb_arena_copy(&b->arena, where->place.name);
    b->need = where->named ? TB_RIGHT_READ : TB_RIGHT_READ | TB_RIGHT_LOOKUP;
    b->skip = s->view && s->seat.acct == b->id.acct ? tb_view_mbox(s->view) : 0;
    b->user = s->account_id.acct;
    b->ask = *ask;
    b->ask.root = imap_search_copy(ask->root, &b->arena);
    b->messages_max = s->config->imap_message_limit;
    b->home = tb_worker_io(tb_conn_worker(s->conn));
    b->now_s = tb_io_wall_s(b->home);
    b->wake = (struct tb_op){.done = wake_done, .user = b};
    if (!b->ask.root || b->arena.overflowed) {
        probe_free(b);
        return NULL;
    }
    b->busy = true;
    b->call = (struct tb_call){.run = begin_run, .user = b, .op = {.done = begin_done, .user = b}};
    tb_call(tb_conn_worker(s->conn), b->id.shard, &b->call);
    return b;
}

const struct imap_probe_result *imap_probe_over(const struct imap_probe *b)
{
    return b->busy ? NULL : &b->result;
}

void imap_probe_end(struct imap_probe *b)
{
    if (!b)
        return;
    if (!b->busy) {
        probe_free(b);
        return;
    }
    struct tb_worker *w = tb_conn_worker(b->s->conn);
    b->s = NULL; /* last_done frees it */
    if (!b->ending)
        finish(b, w);
}
