/*
 * change.c: removing, copying and moving messages, however many, without holding the owner's thread.
 *
 * The work goes in slices, one in each turn of the loop: an expunge or a move of up to so many messages is one record
 * (R9), and what is done stays done if the rest is refused. A change of one slice is finished when it was started. Each
 * slice looks at the rows as they are then: messages that others removed meanwhile are skipped.
 *
 * A COPY of several slices is staged: its messages get the UIDs at the end of the destination, but UIDNEXT stays below
 * them until the last slice, so nobody sees them; meanwhile nothing else may be added there, and who tries waits. Which
 * messages are staged is in the index, like all else, so a checkpoint may fall between two slices; what a crash, a
 * refusal or a lost connection leaves of them is taken away by tb_stage_step. Thread: the owner.
 */
#include <stdlib.h>

#include "engine/store/shard.h"

enum { ROWS = 256, EXPUNGE_SLICE = 2048, COPY_SLICE = 1024 }; /* about 2 ms each */

struct tb_change {
    struct tb_view *v; /* borrowed: outlives the change */
    enum tb_change_kind kind;
    bool all; /* uids does not count */
    struct tb_uidset uids;
    uint32_t dst, uid; /* uid: the next to look at */
    struct tb_copied copied;
    struct tb_op *op; /* the caller's; NULL if it was finished at once */
    struct tb_op turn;
    uint64_t self;                  /* who began it */
    struct tb_pay_copy_sums sums;   /* of the messages that are staged */
    uint64_t staged_modseq;         /* which they have: far ahead, so that none is given before they are seen */
    bool waiting;                   /* turn is on its way */
    bool staging;                   /* some of it is staged */
    struct tb_change *next_staging; /* of the shard */
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

/* keywords_used: the union of the keywords of the rows in set, and what they add to the counters. */
static uint64_t keywords_used(struct tb_view *v, const struct tb_uidset *set, struct tb_pay_copy_sums *sums)
{
    struct tb_account *a = tb_view_account(v);
    struct tb_disk_row rows[ROWS];
    uint64_t used = 0;
    *sums = (struct tb_pay_copy_sums){0};
    for (size_t i = 0; i < set->n; i++)
        for (uint32_t uid = set->v[i].first;;) {
            size_t want = tb_rows_want(uid, set->v[i].last, ROWS), k = 0;
            size_t got = tb_rows_scan(a->shard->ix, a->acct, tb_view_mbox(v), uid, rows, want);
            for (; k < got && rows[k].uid <= set->v[i].last; k++) {
                used |= rows[k].keywords;
                sums->bytes += rows[k].size;
                sums->unseen += !(rows[k].flags & TB_FLAG_SEEN);
                sums->deleted += (rows[k].flags & TB_FLAG_DELETED) != 0;
            }
            if (k < want || rows[k - 1].uid >= set->v[i].last)
                break;
            uid = rows[k - 1].uid + 1;
        }
    return used;
}

/* ---- staging ---- */

static void staging_begin(struct tb_shard *s, struct tb_change *c)
{
    c->staging = true;
    c->next_staging = s->staging;
    s->staging = c;
}

static void staging_end(struct tb_shard *s, struct tb_change *c)
{
    if (!c->staging)
        return;
    struct tb_change **at = &s->staging;
    while (*at != NULL && *at != c)
        at = &(*at)->next_staging;
    if (*at != NULL) /* else the shard was rebuilt meanwhile */
        *at = c->next_staging;
    c->staging = false;
    s->stage_at.acct = tb_view_account(c->v)->acct; /* if anything is left, here it is */
    s->stage_at.mbox = c->dst;
}

static bool is_staging(const struct tb_shard *s, uint32_t acct, uint32_t mbox)
{
    for (const struct tb_change *c = s->staging; c != NULL; c = c->next_staging)
        if (tb_view_account(c->v)->acct == acct && c->dst == mbox)
            return true;
    return false;
}

/* unstage: a piece of what is staged in a mailbox goes, the highest UIDs first. */
static void unstage(struct tb_shard *s, uint32_t acct, uint32_t mbox, const struct tb_disk_mbox *m)
{
    struct tb_slice none = tb_slice(NULL, 0);
    uint32_t stay = m->staged > COPY_SLICE ? m->staged - COPY_SLICE : 0;
    struct tb_pay_purge p = {.acct = acct, .mbox = mbox, .uid = m->uidnext + stay - 1};
    if (tb_shard_admit(s, sizeof(p), 1, ADMIT_SMALL) == TB_OK)
        tb_shard_record(s, TB_REC_PURGE, TB_PURGE_STAGED, 0, tb_slice(&p, sizeof(p)), none, none);
}

bool tb_stage_step(struct tb_shard *s)
{
    uint64_t live = 0;
    for (const struct tb_change *c = s->staging; c != NULL; c = c->next_staging)
        live++;
    if (s->x.state.staged <= live)
        return false;
    for (unsigned i = 0; i < ROWS; i++) {
        struct tb_disk_mbox m;
        struct tb_key key;
        struct tb_slice k, v;
        tb_key_begin(&key);
        tb_key_u32(&key, s->stage_at.acct);
        tb_key_u32(&key, s->stage_at.mbox);
        if (!tb_index_ge(s->ix, TB_DB_MBOX, tb_key_slice(&key), 0, &k, &v) || k.len != 8 || v.len < sizeof(m)) {
            s->stage_at.acct = s->stage_at.mbox = 0; /* round again */
            return true;
        }
        memcpy(&m, v.ptr, sizeof(m));
        s->stage_at.acct = tb_get_be32(k.ptr);
        s->stage_at.mbox = tb_get_be32(k.ptr + 4);
        if (m.staged != 0 && !is_staging(s, s->stage_at.acct, s->stage_at.mbox)) {
            unstage(s, s->stage_at.acct, s->stage_at.mbox, &m);
            return true; /* here again */
        }
        s->stage_at.mbox++;
    }
    return true;
}

/* ---- copying ---- */

/* copy_flags: how this slice is to be logged; CONFLICT: somebody else's COPY is on its way there, wait. */
static enum tb_rc copy_flags(struct tb_change *c, const struct tb_disk_mbox *dst, bool more, uint8_t *flags)
{
    *flags = c->kind == TB_CHANGE_MOVE ? TB_COPY_MOVE : 0;
    if (c->staging && dst->staged == 0)
        return TB_NOTFOUND; /* never: who takes staged messages away waits for us */
    if (!c->staging && dst->staged != 0)
        return TB_CONFLICT;
    if (c->staging || (more && c->kind == TB_CHANGE_COPY))
        *flags = (uint8_t)(TB_COPY_STAGED | (more ? 0 : TB_COPY_COMMIT));
    return TB_OK;
}

static void add_sums(struct tb_pay_copy_sums *to, const struct tb_pay_copy_sums *more)
{
    to->unseen += more->unseen;
    to->deleted += more->deleted;
    to->bytes += more->bytes;
}

/*
 * modseqs: of a record. Staged messages get one far ahead: then they need not be looked at again when they become
 * visible, for then it is still ahead of all that anybody was told of, and the account goes on from there. Should the
 * account have come that far meanwhile, they get the next one, in one go.
 */
static void modseqs(struct tb_change *c, uint64_t now, uint8_t *flags, struct tb_pay_copy *p)
{
    const uint64_t ahead = (uint64_t)1 << 24;
    if (*flags & TB_COPY_STAGED && c->staged_modseq == 0)
        c->staged_modseq = now + ahead;
    bool far = *flags & TB_COPY_STAGED && c->staged_modseq > now;
    if (far && *flags & TB_COPY_COMMIT)
        *flags |= TB_COPY_SUMS;
    p->dst_modseq = far ? c->staged_modseq : now + 1;
    p->src_modseq = p->dst_modseq + 1;
}

/* log_copy: one COPY record of these messages; the UIDs they get are added to c->copied. */
static enum tb_rc log_copy(struct tb_change *c, const struct tb_uidset *set, bool more)
{
    enum { KEYWORDS_BYTES = TB_KEYWORDS_MAX * (TB_KEYWORD_NAME_MAX + 8) };
    struct tb_account *a = tb_view_account(c->v);
    struct tb_shard *s = a->shard;
    struct tb_disk_mbox dst;
    struct tb_disk_acct row;
    struct tb_pay_copy_sums sums;
    uint8_t flags;
    uint64_t used = keywords_used(c->v, set, &sums);
    if (!tb_mbox_get(s->ix, a->acct, c->dst, &dst, NULL) || dst.flags & TB_MBOX_NOSELECT ||
        !tb_acct_get(s->ix, a->acct, &row))
        return TB_NOTFOUND;
    c->copied.uidvalidity = dst.uidvalidity;
    uint64_t count = tb_uidset_count(set);
    if (count == 0 && !c->staging)
        return TB_OK;
    if (count > UINT32_MAX - dst.uidnext - dst.staged)
        return TB_LIMIT; /* the destination's UIDs are used up */
    enum tb_rc rc = copy_flags(c, &dst, more, &flags);
    struct tb_slice ranges = tb_slice(set->v, set->n * sizeof(set->v[0]));
    if (rc == TB_OK && c->kind == TB_CHANGE_COPY) /* a move adds nothing to the account */
        rc = tb_quota_fits(&row, dst.staged + count, c->sums.bytes + sums.bytes, 0);
    if (rc == TB_OK)
        rc = tb_shard_admit(s, sizeof(struct tb_pay_copy) + sizeof(sums) + ranges.len + KEYWORDS_BYTES,
                            1 + TB_KEYWORDS_MAX, flags & TB_COPY_MOVE ? ADMIT_SMALL : ADMIT_GROW);
    if (rc != TB_OK)
        return rc;
    struct tb_pay_copy p = {.src = tb_view_mbox(c->v),
                            .dst = c->dst,
                            .dst_uid = dst.uidnext + dst.staged,
                            .n = (uint32_t)set->n,
                            .savedate = tb_io_wall_s(s->worker->io)};
    tb_keyword_map(a, p.src, c->dst, used, p.keyword);
    add_sums(&c->sums, &sums);
    modseqs(c, row.modseq, &flags, &p);
    struct tb_slice staged = tb_slice(&c->sums, flags & TB_COPY_SUMS ? sizeof(c->sums) : 0);
    tb_shard_record(s, TB_REC_COPY, flags, a->acct, tb_slice(&p, sizeof(p)), staged, ranges);
    tb_shard_bulk(s);
    for (size_t i = 0; i < set->n; i++)
        tb_uidset_add(&c->copied.from, set->v[i].first, set->v[i].last);
    if (count > 0)
        tb_uidset_add(&c->copied.to, p.dst_uid, p.dst_uid + (uint32_t)count - 1);
    if (flags & TB_COPY_STAGED && more && !c->staging)
        staging_begin(s, c);
    else if (flags & TB_COPY_COMMIT)
        staging_end(s, c);
    tb_shard_touched(s, a->acct, flags & TB_COPY_STAGED && more ? UINT32_MAX : c->dst);
    if (flags & TB_COPY_MOVE)
        tb_shard_touched(s, a->acct, p.src);
    return TB_OK;
}

/* copy_slice: CONFLICT: nothing was done, the same again later. */
static enum tb_rc copy_slice(struct tb_change *c, bool *more)
{
    uint32_t configured = tb_view_account(c->v)->shard->store->cfg.copy_slice, uid = c->uid;
    struct tb_uidset set;
    tb_uidset_init(&set);
    *more = tb_view_pick(c->v, c->all ? NULL : &c->uids, false, &c->uid, configured ? configured : COPY_SLICE, &set);
    enum tb_rc rc = set.failed ? TB_LIMIT : log_copy(c, &set, *more);
    if (rc == TB_CONFLICT)
        c->uid = uid;
    tb_uidset_free(&set);
    return rc;
}

/* slice: the next piece; true when the change is finished, with c->rc. */
static bool slice(struct tb_change *c)
{
    bool more = false;
    if (!tb_view_there(c->v))
        c->rc = TB_NOTFOUND;
    else if (c->kind == TB_CHANGE_MOVE || c->kind == TB_CHANGE_COPY)
        c->rc = copy_slice(c, &more);
    else
        c->rc = expunge_slice(c, EXPUNGE_SLICE, &more);
    if (c->rc == TB_OK && (c->copied.from.failed || c->copied.to.failed))
        c->rc = TB_LIMIT;
    c->rc = tb_view_rc(c->v, c->rc);
    if (c->rc == TB_CONFLICT)
        return false;
    bool finished = c->rc != TB_OK || !more;
    if (finished) /* staged still: it was refused in its midst */
        staging_end(tb_view_account(c->v)->shard, c);
    return finished;
}

/* ---- doors ---- */

static void turn(struct tb_op *op)
{
    struct tb_change *c = op->user;
    struct tb_worker *w = tb_view_account(c->v)->shard->worker;
    c->waiting = false;
    w->self = c->self;
    bool finished = slice(c);
    w->self = 0;
    if (finished) {
        tb_worker_ready(w, c->op, c->rc);
        return;
    }
    c->waiting = true;
    tb_worker_ready(w, &c->turn, TB_OK);
}

static void change_init(struct tb_change *c, struct tb_view *v, enum tb_change_kind kind, uint32_t dst)
{
    uint64_t self = tb_view_account(v)->shard->worker->self;
    *c = (struct tb_change){.v = v, .kind = kind, .dst = dst, .uid = 1, .self = self};
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
    staging_end(tb_view_account(c->v)->shard, c);
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
    while (!slice(&c) && c.rc == TB_OK)
        ;
    staging_end(tb_view_account(v)->shard, &c);
    c.rc = c.rc == TB_CONFLICT ? TB_BUSY : c.rc;
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
