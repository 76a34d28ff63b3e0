/*
 * restore_open.c: a store that was just made out of a backup is opened, as after a crash, and told to skip ahead (R14):
 * one SKIP record an account and one a shard. Then what was not asked for is deleted.
 *
 * It uses the store's own doors: recovery replays the log behind the index copy, records change the index. Thread: the
 * caller's, which turns the worker's loop until each step is durable.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/restore.h"

struct wake {
    struct tb_store *store;
    struct tb_worker *w;
    bool done;
    enum tb_rc rc;
};

static void flag(struct tb_op *op)
{
    struct wake *k = op->user;
    k->done = true;
    k->rc = op->rc;
}

static enum tb_rc wait(struct wake *k)
{
    while (!k->done)
        (void)tb_worker_turn(k->w, true);
    return k->rc;
}

static struct tb_op begin(struct wake *k)
{
    k->done = false;
    return (struct tb_op){.done = flag, .user = k};
}

/* skip: one record, when there is room. */
static enum tb_rc skip(struct wake *k, struct tb_shard *s, uint32_t acct, const struct tb_pay_skip *p)
{
    enum tb_rc rc;
    while ((rc = tb_shard_admit(s, sizeof(*p), 1, ADMIT_SMALL)) == TB_BUSY)
        (void)tb_worker_turn(k->w, true);
    if (rc != TB_OK)
        return rc;
    tb_shard_record(s, TB_REC_SKIP, 0, acct, tb_slice(p, sizeof(*p)), tb_slice(NULL, 0), tb_slice(NULL, 0));
    (void)tb_worker_turn(k->w, false);
    return s->failed ? TB_IO : TB_OK;
}

enum tb_rc tb_skip_ahead(struct tb_worker *w, struct tb_shard *s)
{
    struct wake waiting = {.w = w}, *k = &waiting;
    const struct tb_pay_skip whole = TB_SKIP_SHARD, one = TB_SKIP_ACCOUNT;
    enum tb_rc rc = skip(k, s, 0, &whole);
    for (uint32_t acct = 1; rc == TB_OK && acct != 0; acct++) {
        struct tb_key key;
        struct tb_slice found, v;
        tb_key_begin(&key);
        tb_key_u32(&key, acct);
        if (!tb_index_ge(s->ix, TB_DB_ACCT, tb_key_slice(&key), 0, &found, &v) || found.len != 4)
            break;
        acct = tb_get_be32(found.ptr);
        rc = skip(k, s, acct, &one);
    }
    return rc == TB_OK ? tb_index_rc(s->ix) : rc;
}

/* ---- only what was asked for ---- */

static enum tb_rc drop_others(struct wake *k, const char *account)
{
    struct tb_identity id;
    char last[TB_NAME_MAX + 1] = "";
    while (tb_directory_next(k->store, tb_slice_str(last), &id) == TB_OK) {
        memcpy(last, id.name, sizeof(last));
        if (strcmp(id.name, account) == 0)
            continue;
        struct tb_op op = begin(k);
        tb_account_delete(k->w, tb_slice_str(id.name), &op);
        enum tb_rc rc = wait(k);
        if (rc != TB_OK)
            return rc;
    }
    return TB_OK;
}

/* empty_but: expunge all of a mailbox but one message (0: all of it). NOTFOUND: that one is not there. */
static enum tb_rc empty_but(struct tb_account *a, uint32_t mbox, uint32_t keep)
{
    struct tb_uidset all, gone;
    struct tb_view *v;
    struct tb_row row;
    enum tb_rc rc = tb_view_open(a, mbox, &v);
    if (rc != TB_OK)
        return rc;
    tb_uidset_init(&all);
    tb_uidset_init(&gone);
    if (keep != 0)
        rc = tb_view_row(v, keep, &row);
    tb_uidset_add(&all, 1, UINT32_MAX);
    if (keep != 0)
        tb_uidset_remove(&all, keep, keep);
    if (rc == TB_OK)
        rc = tb_delete(v, &all);
    tb_uidset_free(&all);
    tb_uidset_free(&gone);
    tb_view_close(v);
    return rc;
}

static enum tb_rc narrow_account(struct tb_account *a, const struct tb_restore_options *opt)
{
    struct tb_arena arena;
    struct tb_mailbox *v, wanted;
    size_t n = 0;
    tb_arena_init(&arena, 64 << 20);
    enum tb_rc rc = tb_mailbox_find(a, tb_slice_str(opt->mailbox), &arena, &wanted);
    if (rc == TB_OK)
        rc = tb_mailbox_list(a, &arena, &v, &n);
    for (size_t i = n; rc == TB_OK && i-- > 0;) { /* children before their parents */
        if (v[i].mbox == wanted.mbox)
            rc = opt->uid != 0 ? empty_but(a, v[i].mbox, opt->uid) : TB_OK;
        else if (v[i].mbox == TB_MBOX_INBOX)
            rc = empty_but(a, v[i].mbox, 0);
        else if (v[i].mbox != 0 && v[i].selectable)
            rc = tb_mailbox_delete(a, v[i].name);
    }
    tb_arena_free(&arena);
    return rc;
}

static enum tb_rc narrow(struct wake *k, const struct tb_restore_options *opt, struct tb_error *err)
{
    struct tb_identity id;
    struct tb_account *a;
    if (opt->account == NULL)
        return TB_OK;
    enum tb_rc rc = tb_directory_find(k->store, tb_slice_str(opt->account), &id);
    if (rc == TB_OK)
        rc = drop_others(k, id.name);
    if (rc == TB_OK && opt->mailbox != NULL) {
        rc = tb_account_open(k->w, id.id, &a);
        if (rc == TB_OK) {
            rc = narrow_account(a, opt);
            struct tb_op op = begin(k);
            tb_gate_wait(a, tb_account_position(a), &op);
            enum tb_rc gate = wait(k);
            rc = rc == TB_OK ? gate : rc;
            tb_account_close(a);
        }
    }
    if (rc == TB_NOTFOUND)
        return tb_error_set(err, rc, 0, "account %s%s%s: it was not there at that moment", opt->account,
                            opt->mailbox != NULL ? ", mailbox " : "", opt->mailbox != NULL ? opt->mailbox : "");
    return rc;
}

/* ---- all of it ---- */

static enum tb_rc wake_open(struct wake *k, struct tb_restore *r, struct tb_restore_result *out, struct tb_error *err)
{
    enum tb_rc rc = tb_worker_open(k->store, 0, r->io, &k->w, err);
    if (rc != TB_OK)
        return rc;
    err->text[0] = '\0';
    for (uint32_t i = 0; rc == TB_OK && i < k->store->super.shards; i++)
        rc = tb_skip_ahead(k->w, k->store->shard[i]);
    if (rc == TB_OK) {
        tb_worker_started(k->w);
        rc = narrow(k, r->opt, err);
    }
    out->run = r->m[r->n - 1].run;
    out->bytes = r->done_bytes;
    for (uint32_t i = 0; rc == TB_OK && i < k->store->super.shards; i++) {
        const struct tb_restore_shard *s = &r->shard[i];
        out->at_ms = s->time_ms > out->at_ms ? s->time_ms : out->at_ms;
        out->accounts += k->store->shard[i]->x.state.accounts;
        out->messages += k->store->shard[i]->x.state.messages;
        out->run = r->m[s->first].run;
    }
    if (rc != TB_OK && err->text[0] == '\0')
        (void)tb_error_set(err, rc, 0, "%s: the restored store cannot be opened and changed: %s", r->dir,
                           tb_rc_text(rc));
    struct tb_op op = begin(k);
    tb_worker_stop(k->w, &op);
    enum tb_rc stopped = wait(k);
    return rc == TB_OK ? stopped : rc;
}

enum tb_rc tb_restore_wake(struct tb_restore *r, struct tb_restore_result *out, struct tb_error *err)
{
    struct wake k = {0};
    struct tb_store_config cfg = {.dir = r->dir, .workers = 1, .trash_days = r->opt->account != NULL ? 0 : 7};
    enum tb_rc rc = tb_store_open(r->io, &cfg, &k.store, err);
    if (rc != TB_OK)
        return rc;
    rc = wake_open(&k, r, out, err);
    tb_worker_close(k.w);
    tb_store_close(k.store);
    return rc;
}
