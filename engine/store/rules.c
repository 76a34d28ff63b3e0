/*
 * rules.c: retention: messages that have been in a mailbox for as long as its rule says are expunged, as if by a
 * client.
 *
 * A mailbox has a rule of its own (record RULE), or that of its special use from the configuration, or none. Each shard
 * walks its mailboxes, a few at each tick and all of them once in ten minutes, and looks at each one's first message
 * alone: UIDs rise with the time a message came (SAVEDATE), so what is to go stands in front. A round costs the
 * mailboxes and the messages that go, never the messages that stay; without any rule there is no round. A clock that
 * was set back only delays: who stands behind a younger message waits for it. Thread: the shard's owner.
 */
#include "engine/store/shard.h"

enum { LOOK_MAX = 256 /* mailboxes in one step */, EXPUNGE_MAX = 512 /* messages in one step */ };
#define ROUND_NS (600 * 1000000000ull)

uint32_t tb_retention_days(const struct tb_store *store, const struct tb_disk_mbox *m)
{
    const struct tb_store_config *cfg = &store->cfg;
    if (m->retention == TB_RETENTION_FOREVER)
        return 0;
    if (m->retention != TB_RETENTION_DEFAULT)
        return m->retention;
    if (m->special & TB_SPECIAL_TRASH && cfg->retention_trash_days != 0)
        return cfg->retention_trash_days;
    return m->special & TB_SPECIAL_JUNK ? cfg->retention_junk_days : 0;
}

enum tb_rc tb_mailbox_retention(struct tb_account *a, uint32_t mbox, uint32_t days)
{
    struct tb_disk_mbox m;
    struct tb_pay_rule p = {.mbox = mbox, .days = days};
    struct tb_slice none = tb_slice(NULL, 0);
    if (a->deleted || !tb_mbox_get(a->shard->ix, a->acct, mbox, &m, NULL) || m.flags & TB_MBOX_NOSELECT)
        return a->shard->failed ? TB_IO : TB_NOTFOUND;
    if (days > TB_RETENTION_DAYS_MAX && days != TB_RETENTION_FOREVER)
        return TB_INVALID;
    enum tb_rc rc = tb_shard_admit(a->shard, sizeof(p), 1, ADMIT_SMALL);
    if (rc != TB_OK)
        return rc;
    tb_shard_record(a->shard, TB_REC_RULE, 0, a->acct, tb_slice(&p, sizeof(p)), none, none);
    tb_shard_touched(a->shard, a->acct, UINT32_MAX);
    a->shard->rules_at.next_ns = 0; /* a round begins now */
    return a->shard->failed ? TB_IO : TB_OK;
}

/* enforce: the first messages of a mailbox, if their time is over; true if there may be more. */
static bool enforce(struct tb_shard *s, uint32_t acct, uint32_t mbox, uint32_t days)
{
    struct tb_disk_row rows[EXPUNGE_MAX];
    struct tb_uidset set;
    int64_t before = tb_io_wall_s(s->worker->io) - (int64_t)days * 86400;
    struct tb_disk_acct a;
    if (tb_rows_scan(s->ix, acct, mbox, 1, rows, 1) == 0 || rows[0].savedate > before)
        return false;
    if (!tb_acct_get(s->ix, acct, &a) || a.flags & TB_ACCT_DELETED)
        return false;
    size_t n = tb_rows_scan(s->ix, acct, mbox, 1, rows, EXPUNGE_MAX), k = 0;
    tb_uidset_init(&set);
    for (; k < n && rows[k].savedate <= before; k++)
        tb_uidset_add(&set, rows[k].uid, rows[k].uid);
    bool done = !set.failed && tb_expunge_log(s, acct, mbox, &set) == TB_OK;
    tb_uidset_free(&set);
    return done && k == EXPUNGE_MAX;
}

bool tb_rules_step(struct tb_shard *s)
{
    const struct tb_store_config *cfg = &s->store->cfg;
    uint64_t now_ns = tb_io_now_ns(s->worker->io);
    if (cfg->retention_trash_days == 0 && cfg->retention_junk_days == 0 && s->x.state.rules == 0)
        return false;
    if (now_ns < s->rules_at.next_ns)
        return false;
    for (unsigned i = 0; i < LOOK_MAX; i++) {
        struct tb_disk_mbox m;
        struct tb_key key;
        struct tb_slice k, v;
        tb_key_begin(&key);
        tb_key_u32(&key, s->rules_at.acct);
        tb_key_u32(&key, s->rules_at.mbox);
        if (!tb_index_ge(s->ix, TB_DB_MBOX, tb_key_slice(&key), 0, &k, &v) || k.len != 8 || v.len < sizeof(m)) {
            s->rules_at.acct = s->rules_at.mbox = 0;
            s->rules_at.next_ns = now_ns + ROUND_NS;
            return false;
        }
        memcpy(&m, v.ptr, sizeof(m));
        s->rules_at.acct = tb_get_be32(k.ptr);
        s->rules_at.mbox = tb_get_be32(k.ptr + 4);
        uint32_t days = m.flags & TB_MBOX_NOSELECT ? 0 : tb_retention_days(s->store, &m);
        if (days != 0 && m.messages > 0 && enforce(s, s->rules_at.acct, s->rules_at.mbox, days))
            return true; /* here again */
        s->rules_at.mbox++;
    }
    return true;
}
