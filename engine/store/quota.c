/*
 * quota.c: what an account may hold, and whether more of it fits.
 *
 * Usage is what the account's row counts: messages and bytes of its mailboxes as its clients see them (a shared body
 * counts in full, the trash does not count), and its selectable mailboxes. apply moves the counters with the records,
 * so they are exact after a replay, and `tambo check` holds them against the rows. Limits are asked before a record is
 * logged, on the owner's thread, so that two sessions never both get the last free byte. An administrator's undelete
 * is not asked: what was taken by mistake comes back. Thread: the shard's owner. RFC 9208.
 */
#include <tambo/quota.h>

#include "engine/store/shard.h"

enum tb_rc tb_quota_fits(const struct tb_disk_acct *row, uint64_t messages, uint64_t bytes, uint64_t mailboxes)
{
    uint64_t have = row->mailboxes > 0 ? row->mailboxes - 1 : 0;
    bool over = (bytes > 0 && row->quota_bytes != 0 && row->bytes + bytes > row->quota_bytes) ||
                (messages > 0 && row->quota_messages != 0 && row->messages + messages > row->quota_messages) ||
                (mailboxes > 0 && row->quota_mailboxes != 0 && have + mailboxes > row->quota_mailboxes);
    return over ? TB_OVERQUOTA : TB_OK;
}

enum tb_rc tb_quota_mailboxes(struct tb_shard *s, uint32_t acct, size_t more)
{
    struct tb_disk_acct row;
    return tb_acct_get(s->ix, acct, &row) ? tb_quota_fits(&row, 0, 0, more) : TB_NOTFOUND;
}

static enum tb_rc sound(struct tb_account *a, enum tb_rc otherwise)
{
    return tb_shard_sound(a->shard) ? otherwise : TB_IO;
}

enum tb_rc tb_quota_get(struct tb_account *a, struct tb_quota *limit, struct tb_quota *used)
{
    struct tb_disk_acct row;
    if (a->deleted || !tb_acct_get(a->shard->ix, a->acct, &row))
        return sound(a, TB_NOTFOUND);
    *limit = (struct tb_quota){row.quota_bytes, row.quota_messages, row.quota_mailboxes};
    *used = (struct tb_quota){row.bytes, row.messages,
                              row.mailboxes != 0 ? row.mailboxes - 1 : tb_quota_count(a->shard->ix, a->acct)};
    return sound(a, TB_OK);
}

enum tb_rc tb_quota_room(struct tb_account *a, uint64_t messages, uint64_t bytes)
{
    struct tb_disk_acct row;
    if (a->deleted || !tb_acct_get(a->shard->ix, a->acct, &row))
        return sound(a, TB_NOTFOUND);
    return tb_quota_fits(&row, messages, bytes, 0);
}

enum tb_rc tb_quota_set(struct tb_account *a, const struct tb_quota *limit)
{
    struct tb_pay_quota p = {.bytes = limit->bytes, .messages = limit->messages, .mailboxes = limit->mailboxes};
    struct tb_slice none = tb_slice(NULL, 0);
    if (a->deleted)
        return TB_NOTFOUND;
    if (limit->bytes > INT64_MAX || limit->messages > INT64_MAX)
        return TB_INVALID;
    enum tb_rc rc = tb_shard_admit(a->shard, sizeof(p), 1, ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    tb_shard_record(a->shard, TB_REC_QUOTA, 0, a->acct, tb_slice(&p, sizeof(p)), none, none);
    tb_shard_touched(a->shard, a->acct, UINT32_MAX);
    return sound(a, TB_OK);
}

static void ask_run(struct tb_call *call, struct tb_worker *owner)
{
    const struct tb_quota_ask *q = call->user;
    struct tb_account *a;
    call->rc = tb_account_open(owner, q->id, &a);
    if (call->rc != TB_OK)
        return;
    call->rc = tb_quota_room(a, q->messages, q->bytes);
    tb_account_close(a);
}

static void ask_done(struct tb_op *op)
{
    struct tb_quota_ask *q = op->user;
    q->op.rc = op->rc != TB_OK ? op->rc : q->call.rc;
    q->op.done(&q->op);
}

void tb_quota_ask(struct tb_worker *w, struct tb_quota_ask *q)
{
    q->call = (struct tb_call){.run = ask_run, .user = q, .op = {.done = ask_done, .user = q}};
    tb_call(w, q->id.shard, &q->call);
}

uint64_t tb_quota_deleted_bytes(struct tb_account *a, uint32_t mbox)
{
    enum { ROWS = 256 };
    struct tb_disk_row rows[ROWS];
    struct tb_disk_mbox m;
    uint64_t bytes = 0;
    if (a->deleted || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL))
        return 0;
    for (uint32_t uid = 1, left = m.deleted; left > 0;) {
        size_t n = tb_rows_scan(a->shard->ix, a->acct, mbox, uid, rows, ROWS);
        for (size_t i = 0; i < n && rows[i].uid < m.uidnext; i++)
            if (rows[i].flags & TB_FLAG_DELETED) {
                bytes += rows[i].size;
                left -= left > 0;
            }
        if (n < ROWS || rows[n - 1].uid >= m.uidnext)
            break;
        uid = rows[n - 1].uid + 1;
    }
    return bytes;
}
