/*
 * queue.c: one SMTP message for accounts in several shards (R17). The first shard logs its own share and, in the same
 * frame, a QUEUE record with everybody else's: that one durable write is the 250. Then this fans the shares out; each
 * carries the delivery id, which a shard remembers, so doing it twice is doing it once.
 *
 *   durable -> read the record back -> one call per share --all OK--> QUEUE_DONE durable -> FORGET in each shard
 *       ^--- restart: every row of the queue database                 \--no space: again in a second
 *
 * Live and after a crash the same code runs. Thread: the owner of the queueing shard; shares run on their owners.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/rules.h"

#define RETRY_NS 1000000000ull

struct share {
    struct tb_call call;
    struct fanout *f;
    uint32_t shard;
    struct tb_image image;
    struct tb_delivery_target *targets; /* owned */
    struct tb_delivery_target **list;   /* owned */
    size_t n;
    uint64_t pin; /* of its first chunk, in its shard; 0: it has none, or nothing keeps them yet */
    struct tb_dedup dedup;
    bool done, looked; /* looked: for a stored body like this one */
};

struct fanout {
    struct tb_shard *s;
    uint64_t queue_id;
    uint32_t len;
    char *record; /* owned: header and payload, as logged */
    uint8_t delivery[16];
    struct share *shares; /* owned */
    size_t n, waiting;
    struct tb_op op;
    bool live;    /* from a delivery that goes on here, not from before a crash: its chunks are pinned already */
    bool counted; /* in the store's queue_unsettled */
};

/* settled: every share that has chunks has pinned them, or the record cannot tell. */
static void settled(struct fanout *f)
{
    if (f->counted)
        atomic_fetch_sub(&f->s->store->queue_unsettled, 1);
    f->counted = false;
}

static void fanout_free(struct fanout *f)
{
    settled(f);
    f->s->fanouts--;
    atomic_fetch_sub(&f->s->store->queued, 1);
    for (size_t i = 0; i < f->n; i++) {
        free(f->shares[i].targets);
        free(f->shares[i].list);
    }
    free(f->shares);
    free(f->record);
    free(f);
}

/* ---- the record ---- */

static bool bytes_of(struct tb_slice *rest, void *out, size_t len)
{
    if (rest->len < len)
        return false;
    memcpy(out, rest->ptr, len);
    rest->ptr += len;
    rest->len -= len;
    return true;
}

static bool slice_of(struct tb_slice *rest, size_t len, struct tb_slice *out)
{
    if (rest->len < len)
        return false;
    *out = tb_slice(rest->ptr, len);
    rest->ptr += len;
    rest->len -= len;
    return true;
}

/* first_chunk: where the share's chunks begin, in the log of its shard; 0: it has none. */
static uint64_t first_chunk(const struct share *sh)
{
    struct tb_disk_piece first = {0};
    if (sh->image.list.len >= sizeof(first))
        memcpy(&first, sh->image.list.ptr, sizeof(first));
    return first.lsn;
}

static bool share_read(struct fanout *f, struct share *sh, struct tb_slice *rest)
{
    struct tb_pay_queue_part part;
    struct tb_slice image;
    if (!bytes_of(rest, &part, sizeof(part)) || part.targets > TB_DELIVERY_TARGETS_MAX ||
        part.shard >= f->s->store->super.shards)
        return false;
    sh->f = f;
    sh->shard = part.shard;
    sh->n = part.targets;
    sh->targets = calloc(part.targets + 1, sizeof(*sh->targets));
    sh->list = calloc(part.targets + 1, sizeof(struct tb_delivery_target *));
    if (sh->targets == NULL || sh->list == NULL)
        return false;
    for (size_t i = 0; i < sh->n; i++) {
        struct tb_pay_queue_target q;
        struct tb_delivery_target *t = &sh->targets[i];
        if (!bytes_of(rest, &q, sizeof(q)) || !slice_of(rest, q.mailbox_len, &t->mailbox))
            return false;
        t->id = (struct tb_account_id){.shard = part.shard, .acct = q.acct};
        t->mbox = q.mbox;
        t->flags = q.flags;
        t->internaldate = q.internaldate;
        sh->list[i] = t;
    }
    if (!slice_of(rest, part.image_len, &image) || !tb_image_read(image, &sh->image))
        return false;
    if (f->live)
        sh->pin = first_chunk(sh);
    return true;
}

static bool record_parse(struct fanout *f)
{
    struct tb_disk_record r;
    struct tb_pay_queue head;
    memcpy(&r, f->record, sizeof(r));
    uint32_t want = r.crc;
    r.crc = 0;
    struct tb_slice rest = tb_slice(f->record + sizeof(r), f->len);
    if (r.type != TB_REC_QUEUE || r.len != f->len || tb_crc32c(tb_crc32c(0, &r, sizeof(r)), rest.ptr, rest.len) != want)
        return false;
    if (!bytes_of(&rest, &head, sizeof(head)) || head.parts > TB_SHARDS_MAX)
        return false;
    memcpy(f->delivery, head.delivery, sizeof(f->delivery));
    f->shares = calloc(head.parts + 1, sizeof(*f->shares));
    if (f->shares == NULL)
        return false;
    f->n = head.parts;
    for (size_t i = 0; i < f->n; i++)
        if (!share_read(f, &f->shares[i], &rest))
            return false;
    return true;
}

/* ---- fanning out ---- */

/* share_look: is there a stored body like this one? Then share_done compares first. */
static bool share_look(struct share *sh, struct tb_shard *s)
{
    if (sh->looked)
        return false;
    sh->looked = true;
    sh->dedup.body = tb_dedup_find(s, &sh->image, sh->list, sh->n);
    return sh->dedup.body != 0;
}

static void share_run(struct tb_call *call, struct tb_worker *owner)
{
    struct share *sh = call->user;
    struct tb_shard *s = tb_shard_of(owner, sh->shard);
    struct tb_slice v;
    bool looking = false;
    if (!tb_index_get(s->ix, TB_DB_DONE, tb_slice(sh->f->delivery, 16), &v) ||
        !TB_KEEPS(twice)) { /* else it arrived before the crash */
        looking = share_look(sh, s);
        if (!looking)
            call->rc = tb_image_deliver(s, &sh->image, sh->list, sh->n, false, sh->f->delivery, tb_slice(NULL, 0),
                                        NULL);
    }
    if (call->rc == TB_NOTFOUND)
        call->rc = TB_OK; /* every account of the share was deleted meanwhile */
    uint64_t chunk = first_chunk(sh);
    bool stays = looking || call->rc != TB_OK;
    if (stays && sh->pin == 0 && chunk != 0 && tb_pin_chunk_add(&s->pins, chunk))
        sh->pin = chunk;
    if (!stays && sh->pin != 0) {
        tb_pin_chunk_remove(&s->pins, sh->pin);
        sh->pin = 0;
    }
}

static void forget_run(struct tb_call *call, struct tb_worker *owner)
{
    struct share *sh = call->user;
    struct tb_shard *s = tb_shard_of(owner, sh->shard);
    struct tb_slice none = tb_slice(NULL, 0);
    call->rc = tb_shard_admit(s, 16, 1, ADMIT_SMALL);
    if (call->rc == TB_OK)
        tb_shard_record(s, TB_REC_FORGET, 0, 0, tb_slice(sh->f->delivery, 16), none, none);
}

static void forget_done(struct tb_op *op)
{
    struct fanout *f = ((struct share *)op->user)->f;
    if (--f->waiting == 0)
        fanout_free(f);
}

static void queue_done_durable(struct tb_op *op)
{
    struct fanout *f = op->user;
    f->waiting = f->n;
    if (op->rc != TB_OK || f->n == 0) {
        fanout_free(f);
        return;
    }
    for (size_t i = 0; i < f->n; i++) {
        struct share *sh = &f->shares[i];
        sh->call.run = forget_run;
        sh->call.op = (struct tb_op){.done = forget_done, .user = sh};
        tb_call(f->s->worker, sh->shard, &sh->call);
    }
}

static void shares_send(struct fanout *f);

static void retry(struct tb_op *op)
{
    struct fanout *f = op->user;
    if (op->result == -ECANCELED || f->s->stopping)
        fanout_free(f); /* the row stays: the next start goes on */
    else
        shares_send(f);
}

static void all_answered(struct fanout *f)
{
    struct tb_pay_queue_done done = {.queue = f->queue_id};
    struct tb_slice none = tb_slice(NULL, 0);
    bool good = true;
    settled(f);
    for (size_t i = 0; i < f->n; i++)
        good = good && f->shares[i].done;
    if (f->s->stopping || f->s->failed) {
        fanout_free(f); /* the row stays */
        return;
    }
    if (!good || tb_shard_admit(f->s, sizeof(done), 1, ADMIT_SMALL) != TB_OK) {
        f->op = (struct tb_op){.done = retry, .user = f};
        tb_io_timer(f->s->worker->io, &f->op, RETRY_NS);
        return;
    }
    tb_shard_record(f->s, TB_REC_QUEUE_DONE, 0, 0, tb_slice(&done, sizeof(done)), none, none);
    f->op = (struct tb_op){.done = queue_done_durable, .user = f};
    tb_gate_insert(f->s, tb_log_end(f->s->log), &f->op);
}

static void share_done(struct tb_op *op);

static void share_compared(struct tb_op *op)
{
    struct share *sh = op->user;
    if (op->rc == TB_OK)
        sh->image.share = sh->dedup.body;
    sh->dedup.body = 0;
    sh->call.op = (struct tb_op){.done = share_done, .user = sh};
    tb_call(sh->f->s->worker, sh->shard, &sh->call);
}

static void share_done(struct tb_op *op)
{
    struct share *sh = op->user;
    if (sh->dedup.body != 0 && sh->call.rc == TB_OK) {
        sh->dedup.img = &sh->image;
        sh->dedup.op = (struct tb_op){.done = share_compared, .user = sh};
        tb_dedup_compare(sh->f->s->worker, sh->shard, &sh->dedup);
        return;
    }
    sh->dedup.body = 0;
    sh->done = sh->call.rc == TB_OK;
    if (--sh->f->waiting == 0)
        all_answered(sh->f);
}

static void shares_send(struct fanout *f)
{
    f->waiting = 1; /* held until all are sent */
    for (size_t i = 0; i < f->n; i++) {
        struct share *sh = &f->shares[i];
        if (sh->done)
            continue;
        f->waiting++;
        sh->call.run = share_run;
        sh->call.user = sh;
        sh->call.op = (struct tb_op){.done = share_done, .user = sh};
        tb_call(f->s->worker, sh->shard, &sh->call);
    }
    if (--f->waiting == 0)
        all_answered(f);
}

static void record_read(struct tb_op *op)
{
    struct fanout *f = op->user;
    int64_t want = (int64_t)(f->len + sizeof(struct tb_disk_record));
    if (op->result != want || !record_parse(f)) {
        tb_log(TB_LOG_ERROR,
               "shard=%u the queued delivery at log position %llu cannot be read; its row stays, run `tambo check`",
               f->s->number, (unsigned long long)f->queue_id);
        fanout_free(f);
        return;
    }
    shares_send(f);
}

static void record_durable(struct tb_op *op)
{
    struct fanout *f = op->user;
    if (op->rc != TB_OK) {
        fanout_free(f);
        return;
    }
    f->op = (struct tb_op){.done = record_read, .user = f};
    tb_log_read(f->s->log, &f->op, f->record, (uint32_t)(f->len + sizeof(struct tb_disk_record)),
                f->queue_id - sizeof(struct tb_disk_record));
}

static void queue_start(struct tb_shard *s, uint64_t queue_id, uint32_t len, bool live)
{
    struct fanout *f = calloc(1, sizeof(*f));
    if (f == NULL || (f->record = malloc(len + sizeof(struct tb_disk_record))) == NULL) {
        free(f);
        tb_log(TB_LOG_ERROR, "shard=%u no memory to go on with a queued delivery; the next start does", s->number);
        return;
    }
    f->s = s;
    s->fanouts++;
    atomic_fetch_add(&s->store->queued, 1);
    f->queue_id = queue_id;
    f->len = len;
    f->live = live;
    f->counted = !live;
    if (f->counted)
        atomic_fetch_add(&s->store->queue_unsettled, 1);
    f->op = (struct tb_op){.done = record_durable, .user = f};
    tb_gate_insert(s, tb_log_end(s->log), &f->op);
}

void tb_queue_start(struct tb_shard *s, uint64_t queue_id, uint32_t len)
{
    queue_start(s, queue_id, len, true);
}

void tb_queue_resume(struct tb_shard *s)
{
    struct tb_slice k, v;
    bool more = tb_index_ge(s->ix, TB_DB_QUEUE, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(s->ix, TB_DB_QUEUE, 0, &k, &v))
        if (k.len == 8 && v.len == 4)
            queue_start(s, tb_get_be64(k.ptr), tb_get_le32(v.ptr), false);
    atomic_fetch_sub(&s->store->queue_unsettled, 1);
}
