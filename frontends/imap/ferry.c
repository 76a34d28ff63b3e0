/*
 * ferry.c: messages of the selected mailbox to a mailbox of another account, or to one where this user may not set
 * every flag: COPY and MOVE across accounts.
 *
 * One message after the other is read and delivered anew, in pieces, and is durable before the next one is begun. So a
 * crash in the midst leaves a part of the copies, and a MOVE leaves each message at least in one place; a refusal in
 * the midst takes the copies away again (RFC 3501 6.4.7). Flags that may not be set there are lost (RFC 4314 4).
 * Invariant: struct imap_ferry outlives the session while a commit is in flight (I4). Thread: the connection's owner.
 */
#include "imap_session.h"

#include <tambo/delivery.h>

#include <stdlib.h>

enum ferry_phase { FERRY_NEXT, FERRY_READ, FERRY_WRITE, FERRY_COMMIT, FERRY_UNDO, FERRY_OVER };

struct imap_ferry {
    struct imap_session *s; /* borrowed; NULL: the connection is gone */
    struct imap_walk walk;
    struct imap_keywords keywords; /* arena */
    struct tb_arena arena;
    struct tb_slice names[TB_KEYWORDS_MAX]; /* of the message under way */
    struct tb_account_id id;
    uint32_t mbox, rights, uid;
    struct tb_body *body;         /* owned */
    struct tb_delivery *delivery; /* owned; NULL: handed to its commit */
    struct tb_delivery_target target;
    struct tb_slice piece;    /* of the body, still to be written */
    uint64_t at;              /* of the body, read */
    struct imap_errand *undo; /* owned */
    struct tb_op op;
    bool busy, committing;
    enum ferry_phase phase;
    enum tb_rc rc;
    struct tb_copied copied;
};

static void ferry_free(struct imap_ferry *f)
{
    if (f->body)
        tb_body_close(f->body);
    if (f->delivery)
        tb_delivery_abort(f->delivery);
    imap_errand_end(f->undo);
    tb_copied_free(&f->copied);
    tb_arena_free(&f->arena);
    free(f);
}

static void ferry_done(struct tb_op *op)
{
    struct imap_ferry *f = op->user;
    f->busy = false;
    if (f->s)
        tb_conn_resume(f->s->conn);
    else
        ferry_free(f);
}

struct imap_ferry *imap_ferry_new(struct imap_session *s, const struct tb_uidset *uids, const struct imap_errand *to)
{
    struct imap_ferry *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    tb_arena_init(&f->arena, 1 << 20);
    tb_uidset_init(&f->copied.from);
    tb_uidset_init(&f->copied.to);
    f->s = s;
    f->id = to->id;
    f->mbox = to->mailbox.mbox;
    f->rights = to->rights;
    f->copied.uidvalidity = to->mailbox.uidvalidity;
    if (imap_walk_init(&f->walk, s, uids) && imap_keywords_load(s, &f->arena, &f->keywords) == TB_OK)
        return f;
    ferry_free(f);
    return NULL;
}

void imap_ferry_end(struct imap_ferry *f)
{
    if (!f)
        return;
    if (f->busy && f->committing)
        f->s = NULL; /* ferry_done frees it */
    else
        ferry_free(f);
}

/* next: begin with the next message. False: there is none, or it cannot be. */
static bool next(struct imap_ferry *f)
{
    uint32_t seqno;
    const struct tb_row *row = imap_walk_next(&f->walk, &seqno);
    struct tb_worker *w = tb_conn_worker(f->s->conn);
    f->phase = FERRY_OVER;
    if (!row)
        return false;
    f->uid = row->uid;
    f->rc = tb_body_open(f->s->view, row->uid, &f->body);
    f->phase = f->rc == TB_NOTFOUND ? FERRY_NEXT : f->rc == TB_OK ? FERRY_READ : FERRY_UNDO;
    if (f->rc != TB_OK) {
        f->body = NULL;
        f->rc = f->rc == TB_NOTFOUND ? TB_OK : f->rc; /* expunged meanwhile: the others are copied */
        return f->rc == TB_OK;
    }
    f->target = (struct tb_delivery_target){.id = f->id,
                                            .mbox = f->mbox,
                                            .flags = row->flags & imap_flags_allowed(f->rights),
                                            .keywords = f->names,
                                            .internaldate = row->internaldate,
                                            .is_append = true};
    for (size_t bit = 0; f->rights & TB_RIGHT_WRITE && bit < f->keywords.n; bit++)
        if (row->keywords >> bit & 1 && f->keywords.names[bit].len > 0)
            f->names[f->target.keywords_n++] = f->keywords.names[bit];
    f->at = 0;
    tb_body_whole(f->body);
    f->rc = tb_delivery_begin(w, UINT64_MAX, &f->delivery);
    if (f->rc != TB_OK)
        f->delivery = NULL;
    else
        f->rc = tb_delivery_add(f->delivery, &f->target);
    if (f->rc != TB_OK)
        f->phase = FERRY_UNDO;
    return f->rc == TB_OK;
}

static void await(struct imap_ferry *f)
{
    f->busy = true;
    f->op = (struct tb_op){.done = ferry_done, .user = f};
}

/* read: the next run of the body's bytes; at its end, the delivery's commit. */
static void read_on(struct imap_ferry *f)
{
    await(f);
    if (f->at < tb_body_size(f->body)) {
        f->phase = FERRY_WRITE;
        tb_body_read(f->body, f->at, &f->op);
        return;
    }
    struct tb_delivery *d = f->delivery;
    tb_body_close(f->body);
    f->body = NULL;
    f->delivery = NULL;
    f->phase = FERRY_COMMIT;
    f->committing = true;
    tb_delivery_commit(d, true, &f->op);
}

static void write_on(struct imap_ferry *f)
{
    enum { WRITE_MAX = 256 << 10 };
    if (f->piece.len == 0) {
        if (f->op.rc != TB_OK) {
            f->rc = f->op.rc;
            f->phase = FERRY_UNDO;
            return;
        }
        f->piece = f->op.data;
        f->at += f->piece.len;
    }
    struct tb_slice now = tb_slice_sub(f->piece, 0, WRITE_MAX);
    f->piece = tb_slice_sub(f->piece, now.len, SIZE_MAX);
    f->phase = f->piece.len > 0 ? FERRY_WRITE : FERRY_READ;
    await(f);
    f->busy = !tb_delivery_write(f->delivery, now, &f->op);
}

static void committed(struct imap_ferry *f)
{
    f->committing = false;
    f->rc = f->target.rc != TB_OK ? f->target.rc : f->op.rc;
    f->phase = f->rc == TB_OK ? FERRY_NEXT : FERRY_UNDO;
    if (f->rc != TB_OK)
        return;
    tb_uidset_add(&f->copied.from, f->uid, f->uid);
    tb_uidset_add(&f->copied.to, f->target.uid, f->target.uid);
}

/* work_undo: the copies that were made go again. */
static void work_undo(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct tb_view *v;
    (void)w;
    e->rc = tb_view_open(a, e->mailbox.mbox, &v);
    if (e->rc != TB_OK)
        return;
    e->rc = tb_delete(v, &e->uids);
    tb_view_close(v);
}

/* undo: true: it is done, or there is nothing to undo. */
static bool undo(struct imap_ferry *f)
{
    const struct imap_place where = {.id = f->id};
    if (f->undo)
        return !f->undo->busy;
    if (f->copied.to.n == 0 || !(f->undo = imap_errand_new(f->s, &where)))
        return true;
    f->undo->mailbox.mbox = f->mbox;
    struct tb_range *v = tb_arena_alloc(&f->undo->arena, f->copied.to.n * sizeof *v);
    if (v)
        memcpy(v, f->copied.to.v, f->copied.to.n * sizeof *v);
    f->undo->uids = (struct tb_uidset){.v = v, .n = v ? f->copied.to.n : 0, .cap = v ? f->copied.to.n : 0};
    tb_uidset_clear(&f->copied.from);
    imap_errand_start(f->s, f->undo, work_undo);
    return !f->undo->busy;
}

bool imap_ferry_over(struct imap_ferry *f, enum tb_rc *rc, const struct tb_copied **copied)
{
    while (!f->busy && f->phase != FERRY_OVER) {
        switch (f->phase) {
        case FERRY_NEXT:
            (void)next(f);
            break;
        case FERRY_READ:
            read_on(f);
            break;
        case FERRY_WRITE:
            write_on(f);
            break;
        case FERRY_COMMIT:
            committed(f);
            break;
        case FERRY_UNDO:
            if (!undo(f))
                return false;
            f->phase = FERRY_OVER;
            break;
        case FERRY_OVER:
            break;
        }
    }
    *rc = f->rc;
    *copied = &f->copied;
    return !f->busy;
}
