/*
 * change.c: removing, copying and moving messages, however many, without holding the owner's thread.
 *
 * The work goes in slices, one in each turn of the loop: an expunge or a move of up to so many messages is one record
 * (R9), and what is done stays done if the rest is refused. A change of one slice is finished when it was started. Each
 * slice looks at the rows as they are then: messages that others removed meanwhile are skipped. Thread: the owner.
 */
#include <stdlib.h>

#include "engine/store/shard.h"

enum { ROWS = 256, EXPUNGE_SLICE = 4096, MOVE_SLICE = 2048 }; /* about 4 ms each */

struct tb_change {
    struct tb_view *v; /* borrowed: outlives the change */
    enum tb_change_kind kind;
    bool all; /* uids does not count */
    struct tb_uidset uids;
    uint32_t dst, uid; /* uid: the next to look at */
    struct tb_copied copied;
    struct tb_op *op; /* the caller's; NULL if it was finished at once */
    struct tb_op turn;
    bool waiting; /* turn is on its way */
    enum tb_rc rc;
};

/* ---- one slice of each kind; *more: there are rows behind it ---- */

static enum tb_rc expunge_slice(struct tb_change *c, uint32_t max, bool *more)
{
    struct tb_account *a = tb_view_account(c->v);
    struct tb_uidset set;
    tb_uidset_init(&set);
    *more = tb_view_pick(c->v, c->all ? NULL : &c->uids, c->kind == TB_CHANGE_EXPUNGE, &c->uid, max, &set);
    enum tb_rc rc = set.failed ? TB_LIMIT : TB_OK;
    if (rc == TB_OK && set.n > 0)
        rc = tb_expunge_log(a->shard, a->acct, tb_view_mbox(c->v), &set);
    for (size_t i = 0; rc == TB_OK && i < set.n; i++)
        tb_uidset_add(&c->copied.from, set.v[i].first, set.v[i].last);
    tb_uidset_free(&set);
    return rc;
}

/* keywords_used: the union of the keywords of the rows in set. */
static uint64_t keywords_used(struct tb_view *v, const struct tb_uidset *set)
{
    struct tb_account *a = tb_view_account(v);
    struct tb_disk_row rows[ROWS];
    uint64_t used = 0;
    for (size_t i = 0; i < set->n; i++)
        for (uint32_t uid = set->v[i].first;;) {
            size_t got = tb_rows_scan(a->shard->ix, a->acct, tb_view_mbox(v), uid, rows, ROWS), k = 0;
            for (; k < got && rows[k].uid <= set->v[i].last; k++)
                used |= rows[k].keywords;
            if (k < ROWS || rows[k - 1].uid >= set->v[i].last)
                break;
            uid = rows[k - 1].uid + 1;
        }
    return used;
}

/* log_copy: one COPY record of these messages; the UIDs they get are added to c->copied. */
static enum tb_rc log_copy(struct tb_change *c, const struct tb_uidset *set)
{
    enum { KEYWORDS_BYTES = TB_KEYWORDS_MAX * (TB_KEYWORD_NAME_MAX + 8) };
    struct tb_account *a = tb_view_account(c->v);
    struct tb_shard *s = a->shard;
    bool move = c->kind == TB_CHANGE_MOVE;
    struct tb_disk_mbox dst;
    struct tb_disk_acct row;
    if (!tb_mbox_get(s->ix, a->acct, c->dst, &dst, NULL) || dst.flags & TB_MBOX_NOSELECT)
        return TB_NOTFOUND;
    c->copied.uidvalidity = dst.uidvalidity;
    uint64_t count = tb_uidset_count(set);
    if (count == 0)
        return TB_OK;
    if (count > UINT32_MAX - dst.uidnext)
        return TB_LIMIT; /* the destination's UIDs are used up */
    struct tb_slice ranges = tb_slice(set->v, set->n * sizeof(set->v[0]));
    enum tb_rc rc = tb_shard_admit(s, sizeof(struct tb_pay_copy) + ranges.len + KEYWORDS_BYTES, 1 + TB_KEYWORDS_MAX,
                                   move ? ADMIT_SMALL : ADMIT_GROW);
    if (rc != TB_OK)
        return rc;
    struct tb_pay_copy p = {.src = tb_view_mbox(c->v),
                            .dst = c->dst,
                            .dst_uid = dst.uidnext,
                            .n = (uint32_t)set->n,
                            .savedate = tb_io_wall_s(s->worker->io)};
    tb_keyword_map(a, p.src, c->dst, keywords_used(c->v, set), p.keyword);
    if (!tb_acct_get(s->ix, a->acct, &row))
        return TB_NOTFOUND;
    p.dst_modseq = row.modseq + 1;
    p.src_modseq = row.modseq + 2;
    tb_shard_record(s, TB_REC_COPY, move ? TB_COPY_MOVE : 0, a->acct, tb_slice(&p, sizeof(p)), ranges,
                    tb_slice(NULL, 0));
    for (size_t i = 0; i < set->n; i++)
        tb_uidset_add(&c->copied.from, set->v[i].first, set->v[i].last);
    tb_uidset_add(&c->copied.to, dst.uidnext, dst.uidnext + (uint32_t)count - 1);
    tb_shard_touched(s, a->acct, c->dst);
    if (move)
        tb_shard_touched(s, a->acct, p.src);
    return TB_OK;
}

static enum tb_rc copy_slice(struct tb_change *c, uint32_t max, bool *more)
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    *more = tb_view_pick(c->v, c->all ? NULL : &c->uids, false, &c->uid, max, &set);
    enum tb_rc rc = set.failed ? TB_LIMIT : log_copy(c, &set);
    tb_uidset_free(&set);
    return rc;
}

/* slice: the next piece; true when the change is finished, with c->rc. */
static bool slice(struct tb_change *c)
{
    bool more = false;
    if (!tb_view_there(c->v))
        c->rc = TB_NOTFOUND;
    else if (c->kind == TB_CHANGE_MOVE)
        c->rc = copy_slice(c, MOVE_SLICE, &more);
    else if (c->kind == TB_CHANGE_COPY)
        c->rc = copy_slice(c, UINT32_MAX, &more);
    else
        c->rc = expunge_slice(c, EXPUNGE_SLICE, &more);
    if (c->rc == TB_OK && (c->copied.from.failed || c->copied.to.failed))
        c->rc = TB_LIMIT;
    c->rc = tb_view_rc(c->v, c->rc);
    return c->rc != TB_OK || !more;
}

/* ---- doors ---- */

static void turn(struct tb_op *op)
{
    struct tb_change *c = op->user;
    struct tb_worker *w = tb_view_account(c->v)->shard->worker;
    c->waiting = false;
    if (slice(c)) {
        tb_worker_ready(w, c->op, c->rc);
        return;
    }
    c->waiting = true;
    tb_worker_ready(w, &c->turn, TB_OK);
}

static void change_init(struct tb_change *c, struct tb_view *v, enum tb_change_kind kind, uint32_t dst)
{
    *c = (struct tb_change){.v = v, .kind = kind, .dst = dst, .uid = 1};
    tb_uidset_init(&c->uids);
    tb_uidset_init(&c->copied.from);
    tb_uidset_init(&c->copied.to);
}

bool tb_change_start(struct tb_view *v, enum tb_change_kind kind, const struct tb_uidset *uids, uint32_t dst,
                     struct tb_op *op, struct tb_change **out)
{
    struct tb_change *c = calloc(1, sizeof(*c));
    *out = c;
    if (c == NULL) {
        op->rc = TB_LIMIT;
        return true;
    }
    change_init(c, v, kind, dst);
    c->all = uids == NULL;
    for (size_t i = 0; uids != NULL && i < uids->n; i++)
        tb_uidset_add(&c->uids, uids->v[i].first, uids->v[i].last);
    if (c->uids.failed) {
        op->rc = TB_LIMIT;
        return true;
    }
    if (slice(c)) {
        op->rc = c->rc;
        return true;
    }
    c->op = op;
    c->turn = (struct tb_op){.done = turn, .user = c};
    c->waiting = true;
    tb_worker_ready(tb_view_account(v)->shard->worker, &c->turn, TB_OK);
    return false;
}

const struct tb_copied *tb_change_copied(const struct tb_change *c)
{
    return &c->copied;
}

void tb_change_free(struct tb_change *c)
{
    if (c == NULL)
        return;
    struct tb_worker *w = tb_view_account(c->v)->shard->worker;
    if (c->waiting)
        (void)tb_worker_forget(w, &c->turn);
    else if (c->op != NULL)
        (void)tb_worker_forget(w, c->op); /* if it is ready and was not told yet */
    tb_uidset_free(&c->uids);
    tb_copied_free(&c->copied);
    free(c);
}

/* run: all of it in one go. */
static enum tb_rc run(struct tb_view *v, enum tb_change_kind kind, const struct tb_uidset *uids, uint32_t dst,
                      struct tb_copied *out)
{
    struct tb_change c;
    change_init(&c, v, kind, dst);
    c.all = uids == NULL;
    if (uids != NULL)
        c.uids = *uids; /* borrowed */
    while (!slice(&c))
        ;
    if (out != NULL)
        *out = c.copied;
    else
        tb_copied_free(&c.copied);
    return c.rc;
}

enum tb_rc tb_expunge(struct tb_view *v, const struct tb_uidset *uids, struct tb_uidset *gone)
{
    struct tb_copied c;
    enum tb_rc rc = run(v, TB_CHANGE_EXPUNGE, uids, 0, &c);
    for (size_t i = 0; gone != NULL && i < c.from.n; i++)
        tb_uidset_add(gone, c.from.v[i].first, c.from.v[i].last);
    tb_copied_free(&c);
    return rc;
}

enum tb_rc tb_delete(struct tb_view *v, const struct tb_uidset *uids)
{
    return run(v, TB_CHANGE_DELETE, uids, 0, NULL);
}

enum tb_rc tb_copy(struct tb_view *v, const struct tb_uidset *uids, uint32_t dst_mbox, struct tb_copied *out)
{
    return run(v, TB_CHANGE_COPY, uids, dst_mbox, out);
}

enum tb_rc tb_move(struct tb_view *v, const struct tb_uidset *uids, uint32_t dst_mbox, struct tb_copied *out)
{
    return run(v, TB_CHANGE_MOVE, uids, dst_mbox, out);
}

void tb_copied_free(struct tb_copied *c)
{
    tb_uidset_free(&c->from);
    tb_uidset_free(&c->to);
}
