/*
 * train.c: training dictionaries on the store's own mail, and bringing them into use (dict.h).
 *
 *   SAMPLING: messages drawn at random from the shard's index, read as they lie in the log, eight at a time
 *   -> WORK (a helper; the idle one when nobody asked): inflated, parsed, trained, tried on those held out; files
 * written in every shard
 *   -> RECORDING: a DICT record in every shard, one role after the other -> USING: every worker writes with it
 *
 * No memory is kept between jobs (their own is taken in large pieces, which go back to the system), and delivery pays
 * nothing for them. One job at a time in the store, in the shard that
 * has grown: after 10,000 messages, then whenever it has twice as many as the one of the last training. A job that is
 * cut short anywhere leaves dictionaries that nothing uses (D1); one that some shard has a record of is brought to the
 * others by a later job.
 * Invariant: while a read or the helper is under way, train_ops counts it; nothing else of the job points into the
 * shard. Thread: the shard's owner, but for work.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdlib.h>

#include <tambo/message.h>
#include "engine/crypto/crypto.h"
#include "engine/store/delivery_format.h"

enum {
    TRAIN_AFTER = 10000,
    SAMPLES = 2500,
    LOOKS_MAX = 3 * SAMPLES,
    READERS = 8,
    BODY_MAX = 256 << 10, /* larger ones are compressed without a dictionary */
    RAW_MAX = 24 << 20,   /* of all samples */
    BYTES_MAX = RAW_MAX + BODY_MAX + TB_HEAD_RAW_MAX,
    CACHE_MAX = 8 << 20, /* of their cache entries */
    WIN_PERCENT = 3
};
#define FINISH_EVERY_NS 60000000000ull

struct sample { /* as it lies in the log */
    struct tb_disk_piece head, body;
    char *bytes; /* head, then body; in the job's bytes */
};

struct reader {
    struct tb_train_job *job;
    struct tb_op op;
    struct sample now;
    bool busy;
};

struct proposal { /* one role's */
    struct tb_training t;
    struct tb_disk_dict row;
    struct tb_dict *d; /* once it is in the table */
    int written;       /* 0 or -errno */
};

struct record {
    struct tb_call call;
    struct tb_train_job *job;
};

struct tb_train_job {
    struct tb_shard *s;
    struct tb_dict_training *asker; /* NULL: it runs by itself */
    uint64_t rnd, raw;
    struct sample *v; /* owned */
    size_t n;
    char *bytes; /* owned, in one piece that goes back to the system: as much as RAW_MAX allows */
    size_t used;
    unsigned looks, reading;
    struct reader reader[READERS];
    struct tb_op op;
    struct proposal p[TB_ROLES];
    int role;            /* being recorded */
    struct record *call; /* owned: one a shard */
    size_t waiting;
    enum tb_rc rc;
};

static const char *const role_name[TB_ROLES] = {"header", "body", "cache"};

/* ---- the end ---- */

static void told(struct tb_op *hop)
{
    struct tb_dict_training *t = hop->user;
    t->op.rc = t->rc;
    t->op.done(&t->op);
}

static void tell_rc(struct tb_worker *owner, struct tb_dict_training *t, enum tb_rc rc)
{
    t->rc = rc;
    t->hop = (struct tb_op){.done = told, .user = t};
    tb_io_post(owner->io, t->from->io, &t->hop);
}

static void tell(const struct tb_train_job *j)
{
    struct tb_dict_training *t = j->asker;
    t->messages = j->n;
    for (int i = 0; i < TB_ROLES; i++) {
        const struct proposal *p = &j->p[i];
        t->result[i] = (struct tb_dict_trained){.role = role_name[i],
                                                .samples = p->t.samples,
                                                .held_out = p->t.held_out,
                                                .raw = p->t.raw,
                                                .before = p->t.before,
                                                .after = p->t.after,
                                                .id = p->d != NULL ? p->row.id : 0};
    }
    tell_rc(j->s->worker, t, j->rc);
}

static void job_end(struct tb_train_job *j, enum tb_rc rc)
{
    struct tb_shard *s = j->s;
    if (j->rc == TB_OK)
        j->rc = rc;
    if (j->asker != NULL)
        tell(j);
    for (int i = 0; i < TB_ROLES; i++)
        tb_codec_dict_free(j->p[i].t.dict);
    free(j->bytes);
    free(j->v);
    free(j->call);
    free(j);
    s->train = NULL;
    (void)pthread_mutex_lock(&s->store->dicts.lock);
    s->store->dicts.training = false;
    (void)pthread_mutex_unlock(&s->store->dicts.lock);
}

/* over: is there no use in going on? */
static enum tb_rc over(const struct tb_shard *s)
{
    return s->failed ? TB_IO : s->stopping || s->worker->closing ? TB_CANCELLED : TB_OK;
}

/* ---- using ---- */

static void record_next(struct tb_train_job *j);

static void use_run(struct tb_call *call, struct tb_worker *owner)
{
    (void)call;
    tb_dicts_use(owner->store, owner->codec);
}

static void use_done(struct tb_op *op)
{
    struct record *r = op->user;
    if (--r->job->waiting == 0)
        record_next(r->job);
}

static void use(struct tb_train_job *j)
{
    j->waiting = tb_store_workers(j->s->store);
    for (uint32_t i = 0; i < tb_store_workers(j->s->store); i++) { /* shard i belongs to worker i */
        struct record *r = &j->call[i];
        *r = (struct record){.job = j, .call = {.run = use_run, .always = true, .op = {.done = use_done, .user = r}}};
        tb_call(j->s->worker, i, &r->call);
    }
}

/* ---- recording ---- */

static void record_run(struct tb_call *call, struct tb_worker *owner)
{
    const struct record *r = call->user;
    const struct tb_dict *d = r->job->p[r->job->role].d;
    struct tb_shard *s = tb_shard_of(owner, call->shard);
    struct tb_disk_dict head = d->row;
    struct tb_slice bytes = tb_codec_dict_bytes(d->dict);
    head.lsn = 0;
    call->rc = tb_shard_admit(s, sizeof(head) + bytes.len, 1, ADMIT_CALL);
    if (call->rc == TB_OK)
        call->rc = tb_codec_learn(owner->codec, d->dict);
    if (call->rc == TB_OK)
        tb_shard_record(s, TB_REC_DICT, 0, 0, tb_slice(&head, sizeof(head)), bytes, tb_slice(NULL, 0));
}

static void record_done(struct tb_op *op)
{
    struct record *r = op->user;
    struct tb_train_job *j = r->job;
    if (r->call.rc == TB_OK)
        tb_dict_had(j->s->store, j->p[j->role].d, r->call.shard);
    else if (j->rc == TB_OK)
        j->rc = r->call.rc;
    if (--j->waiting > 0)
        return;
    if (j->rc == TB_OK)
        use(j);
    else
        job_end(j, TB_OK);
}

static void record_next(struct tb_train_job *j)
{
    struct tb_store *store = j->s->store;
    enum tb_rc rc = over(j->s);
    do {
        j->role++;
    } while (j->role < TB_ROLES && (j->p[j->role].d == NULL || j->p[j->role].written < 0));
    if (rc != TB_OK || j->role == TB_ROLES) {
        job_end(j, rc);
        return;
    }
    const struct tb_dict *d = j->p[j->role].d;
    j->waiting = 1; /* this loop's own */
    for (uint32_t i = 0; i < store->super.shards; i++) {
        struct record *r = &j->call[i];
        *r = (struct record){.job = j, .call = {.run = record_run, .user = r, .op = {.done = record_done, .user = r}}};
        if (tb_dict_has(store, d, i))
            continue;
        j->waiting++;
        tb_call(j->s->worker, i, &r->call);
    }
    if (--j->waiting == 0)
        use(j);
}

/* ---- work: on a helper ---- */

struct texts {                            /* what the samples are inflated to */
    struct tb_slice *head, *body, *cache; /* owned arrays of slices into bytes */
    size_t heads, bodies, caches;
    char *bytes; /* owned */
    size_t used, cap;
};

/* inflate: a piece into room, checked; false: leave this sample out. */
static bool inflate(struct tb_codec *c, const struct tb_disk_piece *p, const char *bytes, char *room)
{
    return tb_crc32c(0, bytes, p->clen) == p->crc &&
           tb_codec_decompress(c, p->dict, tb_slice(bytes, p->clen), room, p->raw_len) == TB_OK;
}

static void inflate_one(struct tb_codec *c, struct tb_mime *mime, const struct sample *v, struct texts *t)
{
    struct tb_mime_result info;
    struct tb_buf cache;
    char *room = t->bytes + t->used;
    if (t->cap - t->used < (size_t)v->head.raw_len + v->body.raw_len + TB_CACHE_RAW_MAX)
        return;
    if (!inflate(c, &v->head, v->bytes, room) ||
        (v->body.raw_len > 0 && !inflate(c, &v->body, v->bytes + v->head.clen, room + v->head.raw_len)))
        return;
    struct tb_slice all = tb_slice(room, v->head.raw_len + (size_t)v->body.raw_len);
    t->used += all.len;
    t->head[t->heads++] = tb_slice_sub(all, 0, v->head.raw_len);
    if (v->body.raw_len > 0)
        t->body[t->bodies++] = tb_slice_sub(all, v->head.raw_len, v->body.raw_len);
    tb_mime_reset(mime);
    tb_mime_feed(mime, all);
    tb_buf_init(&cache, TB_CACHE_RAW_MAX);
    if (tb_mime_finish(mime, &info) == TB_OK && tb_cache_write(&info, &cache)) {
        memcpy(t->bytes + t->used, cache.ptr, cache.len);
        t->cache[t->caches++] = tb_slice(t->bytes + t->used, cache.len);
        t->used += cache.len;
    }
    tb_buf_free(&cache);
}

static enum tb_rc inflate_all(struct tb_train_job *j, struct texts *t)
{
    struct tb_codec *c = tb_codec_new();
    struct tb_mime *mime = tb_mime_new();
    size_t slices = (j->n + 1) * sizeof(struct tb_slice);
    t->cap = j->raw + CACHE_MAX;
    t->bytes = malloc(t->cap);
    t->head = malloc(slices);
    t->body = malloc(slices);
    t->cache = malloc(slices);
    bool good = c && mime && t->bytes && t->head && t->body && t->cache;
    if (good)
        tb_dicts_teach(j->s->store, c);
    for (size_t i = 0; good && i < j->n; i++)
        inflate_one(c, mime, &j->v[i], t);
    tb_mime_free(mime);
    tb_codec_free(c);
    return good ? TB_OK : TB_LIMIT;
}

static void texts_free(struct texts *t)
{
    free(t->head);
    free(t->body);
    free(t->cache);
    free(t->bytes);
}

/* train: one role's proposal; its dictionary is kept only if it wins. */
static void train(struct tb_train_job *j, enum tb_codec_role role, const struct tb_slice *v, size_t n)
{
    struct tb_store *store = j->s->store;
    struct proposal *p = &j->p[role];
    const struct tb_dict *current = tb_dict_current(store, role);
    uint16_t id = tb_dict_next_id(store);
    if (id == 0 || tb_codec_train(id, role, current != NULL ? current->dict : NULL, v, n, &p->t) != TB_OK)
        return;
    struct tb_slice bytes = tb_codec_dict_bytes(p->t.dict);
    p->row = (struct tb_disk_dict){.id = id,
                                   .role = (uint8_t)role,
                                   .len = (uint32_t)bytes.len,
                                   .created = tb_io_wall_s(j->s->worker->io),
                                   .blobs = j->s->train_tried,
                                   .before = p->t.before,
                                   .after = p->t.after};
    struct tb_sha256 h;
    tb_sha256_init(&h);
    tb_sha256_update(&h, bytes.ptr, bytes.len);
    tb_sha256_final(&h, p->row.sha256);
    if (p->t.after * 100 <= p->t.before * (100 - WIN_PERCENT))
        return;
    tb_codec_dict_free(p->t.dict);
    p->t.dict = NULL;
}

/* write: the files, in the shards that have no record of it. */
static void write_files(struct tb_train_job *j, struct proposal *p)
{
    const struct tb_store *store = j->s->store;
    const struct tb_codec_dict *d = p->d != NULL ? p->d->dict : p->t.dict;
    for (uint32_t i = 0; d != NULL && i < store->super.shards && p->written == 0; i++)
        if (p->d == NULL || !tb_dict_has(j->s->store, p->d, i))
            p->written = tb_dict_write(j->s->worker->io, store->shard[i]->dir, &p->row, tb_codec_dict_bytes(d));
}

static void work(struct tb_op *op)
{
    struct tb_train_job *j = op->user;
    struct texts t = {0};
    if (j->n > 0) {
        op->rc = inflate_all(j, &t);
        if (op->rc == TB_OK) {
            train(j, TB_ROLE_HEADER, t.head, t.heads);
            train(j, TB_ROLE_BODY, t.body, t.bodies);
            train(j, TB_ROLE_CACHE, t.cache, t.caches);
        }
        texts_free(&t);
    }
    for (int i = 0; i < TB_ROLES; i++)
        write_files(j, &j->p[i]);
}

static void work_done(struct tb_op *op)
{
    struct tb_train_job *j = op->user;
    enum tb_rc rc = over(j->s);
    j->s->train_ops--;
    if (rc == TB_OK)
        rc = op->rc;
    for (int i = 0; i < TB_ROLES && rc == TB_OK; i++) {
        struct proposal *p = &j->p[i];
        if (p->t.raw > 0)
            tb_log(TB_LOG_INFO,
                   "shard=%u dictionary for %s: %zu samples, of %zu others %llu bytes, before %llu, after %llu%s",
                   j->s->number, role_name[i], p->t.samples, p->t.held_out, (unsigned long long)p->t.raw,
                   (unsigned long long)p->t.before, (unsigned long long)p->t.after,
                   p->t.dict != NULL ? "; adopted" : "; not worth it");
        if (p->written < 0) {
            tb_log(TB_LOG_WARN, "dictionary=%04x cannot be written: %s", p->row.id, strerror(-p->written));
            j->rc = p->written == -ENOSPC ? TB_NOSPACE : TB_IO;
        } else if (p->t.dict != NULL) {
            p->d = tb_dict_add(j->s->store, p->t.dict, &p->row);
            p->t.dict = NULL; /* the table's, or gone */
        }
    }
    if (rc != TB_OK || j->rc != TB_OK)
        job_end(j, rc);
    else
        record_next(j);
}

static void work_start(struct tb_train_job *j)
{
    j->op = (struct tb_op){.done = work_done, .user = j};
    j->s->train_ops++;
    if (j->asker != NULL)
        tb_io_offload(j->s->worker->io, &j->op, work);
    else
        tb_io_offload_idle(j->s->worker->io, &j->op, work); /* deliveries come first; nobody waits for it */
}

/* ---- sampling ---- */

static void sample_more(struct tb_train_job *j);

static void read_done(struct tb_op *op)
{
    struct reader *r = op->user;
    struct tb_train_job *j = r->job;
    struct sample *v = &r->now;
    j->s->train_ops--;
    tb_pin_segment_remove(&j->s->pins, v->head.lsn);
    r->busy = false;
    j->reading--;
    if (op->result == (int64_t)v->head.clen + v->body.clen)
        j->v[j->n++] = *v;
    sample_more(j);
}

/* draw: a message that is stored whole in one place; false: this was none. */
static bool draw(struct tb_train_job *j, struct sample *out)
{
    struct tb_shard *s = j->s;
    struct tb_blob_row row = {0};
    struct tb_slice key, v;
    struct tb_key k;
    j->rnd ^= j->rnd << 13;
    j->rnd ^= j->rnd >> 7;
    j->rnd ^= j->rnd << 17;
    tb_key_begin(&k);
    tb_key_u64(&k, j->rnd % s->x.state.next_blob);
    if (!tb_index_ge(s->ix, TB_DB_BLOB, tb_key_slice(&k), 0, &key, &v) || v.len != sizeof(row))
        return false;
    memcpy(&row, v.ptr, sizeof(row));
    *out = (struct sample){.head = row.blob.head, .body = row.own};
    const struct tb_disk_piece *h = &out->head, *b = &out->body;
    return (row.blob.flags & TB_BLOB_OWN_BODY) && h->raw_len <= TB_HEAD_RAW_MAX && h->clen <= TB_HEAD_RAW_MAX &&
           b->raw_len <= BODY_MAX && b->clen <= BODY_MAX && h->clen > 0 &&
           (b->raw_len == 0 || b->lsn == h->lsn + h->clen) && h->lsn + h->clen + b->clen <= tb_log_durable(s->log);
}

static bool read_start(struct tb_train_job *j, struct reader *r)
{
    struct sample *v = &r->now;
    size_t len = v->head.clen + (size_t)v->body.clen;
    if (len > BYTES_MAX - j->used || !tb_pin_segment_add(&j->s->pins, v->head.lsn))
        return false;
    v->bytes = j->bytes + j->used;
    j->used += len;
    r->job = j;
    r->busy = true;
    r->op = (struct tb_op){.done = read_done, .user = r};
    j->reading++;
    j->raw += v->head.raw_len + (uint64_t)v->body.raw_len;
    j->s->train_ops++;
    tb_log_read(j->s->log, &r->op, v->bytes, (uint32_t)len, v->head.lsn);
    return true;
}

static void sample_more(struct tb_train_job *j)
{
    enum tb_rc rc = over(j->s);
    for (size_t i = 0; rc == TB_OK && i < READERS; i++) {
        struct reader *r = &j->reader[i];
        while (!r->busy && j->looks < LOOKS_MAX && j->n + j->reading < SAMPLES && j->raw < RAW_MAX) {
            j->looks++;
            if (draw(j, &r->now) && !read_start(j, r))
                j->looks = LOOKS_MAX;
        }
    }
    if (j->reading > 0)
        return;
    if (rc != TB_OK || j->n == 0)
        job_end(j, rc != TB_OK ? rc : TB_NOTFOUND);
    else
        work_start(j);
}

/* ---- beginning ---- */

static enum tb_rc job_new(struct tb_shard *s, struct tb_dict_training *asker, struct tb_train_job **out)
{
    struct tb_dicts *t = &s->store->dicts;
    enum tb_rc rc = over(s);
    if (rc != TB_OK)
        return rc;
    (void)pthread_mutex_lock(&t->lock);
    bool busy = t->training;
    t->training = true;
    (void)pthread_mutex_unlock(&t->lock);
    if (busy)
        return TB_BUSY;
    struct tb_train_job *j = calloc(1, sizeof(*j));
    if (j == NULL || (j->v = calloc(SAMPLES, sizeof(*j->v))) == NULL || (j->bytes = malloc(BYTES_MAX)) == NULL ||
        (j->call = calloc(s->store->super.shards, sizeof(*j->call))) == NULL) {
        if (j != NULL) {
            free(j->v);
            free(j->bytes);
        }
        free(j);
        (void)pthread_mutex_lock(&t->lock);
        t->training = false;
        (void)pthread_mutex_unlock(&t->lock);
        return TB_LIMIT;
    }
    j->s = s;
    j->asker = asker;
    j->role = -1;
    s->train = j;
    *out = j;
    return TB_OK;
}

static enum tb_rc train_begin(struct tb_shard *s, struct tb_dict_training *asker)
{
    struct tb_train_job *j;
    enum tb_rc rc = job_new(s, asker, &j);
    if (rc != TB_OK)
        return rc;
    s->train_tried = s->x.state.next_blob;
    tb_io_random(s->worker->io, &j->rnd, sizeof(j->rnd));
    j->rnd |= 1;
    sample_more(j);
    return TB_OK;
}

/* finish: bring what only some shards have to the others. */
static void finish(struct tb_shard *s)
{
    struct tb_dict *d[TB_ROLES];
    struct tb_train_job *j;
    bool any = false;
    for (int i = 0; i < TB_ROLES; i++)
        any = (d[i] = tb_dict_unfinished(s->store, (enum tb_codec_role)i)) != NULL || any;
    if (!any || job_new(s, NULL, &j) != TB_OK)
        return;
    for (int i = 0; i < TB_ROLES; i++)
        if (d[i] != NULL)
            j->p[i] = (struct proposal){.d = d[i], .row = d[i]->row};
    work_start(j);
}

void tb_train_tick(struct tb_shard *s)
{
    struct tb_store *store = s->store;
    uint64_t after = store->cfg.train_after ? store->cfg.train_after : TRAIN_AFTER, now = tb_io_now_ns(s->worker->io);
    if (s->number == 0 && (s->train_tick_ns == 0 || now - s->train_tick_ns >= FINISH_EVERY_NS)) {
        s->train_tick_ns = now;
        finish(s);
    }
    uint64_t last = s->train_tried;
    for (int i = 0; i < TB_ROLES; i++) {
        const struct tb_dict *d = tb_dict_current(store, (enum tb_codec_role)i);
        if (d != NULL && d->row.blobs > last)
            last = d->row.blobs;
    }
    if (s->x.state.next_blob > after && s->x.state.next_blob >= 2 * last)
        (void)train_begin(s, NULL); /* BUSY: the next tick asks again */
}

/* ---- asked for ---- */

static void asked(struct tb_op *hop)
{
    struct tb_dict_training *t = hop->user;
    struct tb_shard *s = t->from->store->shard[t->shard];
    enum tb_rc rc = train_begin(s, t);
    if (rc != TB_OK)
        tell_rc(s->worker, t, rc);
}

void tb_dict_train(struct tb_worker *w, uint32_t shard, struct tb_dict_training *t)
{
    TB_ASSERT(shard < w->store->super.shards);
    t->from = w;
    t->shard = shard;
    t->hop = (struct tb_op){.done = asked, .user = t};
    tb_io_post(w->io, w->store->shard[shard]->worker->io, &t->hop);
}
