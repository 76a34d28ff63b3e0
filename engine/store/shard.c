/*
 * shard.c: one shard: made, recovered, opened; the mutation path; what is told to whom afterwards.
 *
 * Recovery order (R20): a suspect index is looked at and made again if it is damaged (rebuild.h); checkpoint record,
 * meta roll-back on the closed index, open, replay of the log from `applied` with the same tb_apply as live, a
 * confirmed checkpoint under the new epoch, and only then appending. Thread: the worker's.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/store/compact.h"
#include "engine/store/rebuild.h"

#define PATH_LONG (TB_PATH + 16)
enum { TIME_EVERY_MS = 1000 };

static void shard_path(const struct tb_shard *s, const char *name, char out[PATH_LONG])
{
    (void)snprintf(out, PATH_LONG, "%s/%s", s->dir, name);
}

/* ---- log events ---- */

static void on_boundary(void *user, struct tb_log_mark mark)
{
    tb_checkpoint_boundary(user, mark);
}

static void run_waiting(struct tb_shard *s);

static void on_durable(void *user, uint64_t position)
{
    struct tb_shard *s = user;
    if (s->failed)
        return;
    while (s->gate_first != NULL && s->gate_first->offset <= position) {
        struct tb_op *op = s->gate_first;
        s->gate_first = op->next;
        if (s->gate_first == NULL)
            s->gate_last = NULL;
        tb_worker_ready(s->worker, op, TB_OK);
    }
    tb_checkpoint_durable(s);
    run_waiting(s);
}

static void on_failed(void *user, const struct tb_error *err)
{
    tb_shard_fail(user, err);
}

void tb_shard_fail(struct tb_shard *s, const struct tb_error *err)
{
    if (s->failed)
        return;
    tb_revive_begin(s, err);
}

void tb_shard_doubt(struct tb_shard *s, const char *what)
{
    struct tb_error err;
    if (s->failed || s->doubted)
        return;
    s->doubted = true;
    (void)tb_error_set(&err, TB_CORRUPT, 0, "shard %s: %s", s->dir, what);
    tb_shard_fail(s, &err);
}

void tb_shard_answer_all(struct tb_shard *s)
{
    while (s->gate_first != NULL) {
        struct tb_op *op = s->gate_first;
        s->gate_first = op->next;
        tb_worker_ready(s->worker, op, TB_IO);
    }
    s->gate_last = NULL;
    run_waiting(s);
    tb_copies_cancel(s);
}

/* ---- making ---- */

static struct tb_shard *shard_new(const struct tb_store *store, uint32_t number)
{
    struct tb_shard *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return NULL;
    s->number = number;
    s->ckpt_fd = s->index_fd = -1;
    s->x.segment_bytes = store->super.segment_bytes;
    tb_pins_init(&s->pins, store->super.segment_bytes);
    s->epoch = store->super.epoch;
    s->state = SHARD_REBUILDING;
    s->failed = true;
    atomic_init(&s->away, true);
    (void)snprintf(s->dir, sizeof(s->dir), "%.990s/shard-%02x", store->dir, number);
    return s;
}

/* log_config: of its log; path holds the folder's name. */
static struct tb_log_config log_config(struct tb_io *io, const struct tb_store *store, struct tb_shard *s,
                                       char path[PATH_LONG])
{
    shard_path(s, "log", path);
    struct tb_log_config cfg = {.io = io,
                                .dir = path,
                                .shard = s->number,
                                .epoch = s->epoch,
                                .segment_bytes = store->super.segment_bytes,
                                .pad_bytes = store->super.pad_bytes,
                                .events = {s, on_boundary, on_durable, on_failed}};
    memcpy(cfg.uuid, store->super.uuid, 16);
    return cfg;
}

static enum tb_rc log_open(struct tb_io *io, const struct tb_store *store, struct tb_shard *s, struct tb_error *err)
{
    char path[PATH_LONG];
    struct tb_log_config cfg = log_config(io, store, s, path);
    return tb_log_open(&cfg, &s->log, err);
}

/* create_index: an empty index whose first transaction is confirmed by the first checkpoint record. */
static enum tb_rc create_index(struct tb_io *io, const struct tb_store *store, struct tb_shard *s, uint64_t first,
                               struct tb_error *err)
{
    char path[PATH_LONG];
    shard_path(s, "index.mdb", path);
    enum tb_rc rc = tb_index_empty(io, path, s->x.segment_bytes, first, &s->ckpt, err);
    if (rc != TB_OK)
        return rc;
    s->ckpt.seq = 1;
    s->ckpt.epoch = s->epoch;
    s->ckpt.shard = s->number;
    memcpy(s->ckpt.uuid, store->super.uuid, 16);
    tb_ckpt_seal(&s->ckpt);
    shard_path(s, "CKPT", path);
    return tb_slot_write(io, path, s->ckpt.seq, &s->ckpt, sizeof(s->ckpt), err);
}

enum tb_rc tb_shard_create(struct tb_io *io, const struct tb_store *store, uint32_t number, struct tb_error *err)
{
    struct tb_shard *s = shard_new(store, number);
    if (s == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %u", number);
    char path[PATH_LONG];
    shard_path(s, "log", path);
    uint64_t first = 0;
    int made = tb_io_mkdir(io, s->dir);
    if (made == 0)
        made = tb_io_mkdir(io, path);
    enum tb_rc rc = made < 0 ? tb_error_set(err, made == -ENOSPC ? TB_NOSPACE : TB_IO, -made, "%s cannot be made", path)
                             : TB_OK;
    if (rc == TB_OK)
        rc = log_open(io, store, s, err);
    if (rc == TB_OK)
        rc = tb_log_format(s->log, &first, err);
    if (rc == TB_OK)
        rc = create_index(io, store, s, first, err);
    if (rc == TB_OK && (made = tb_io_sync_dir(io, s->dir)) < 0)
        rc = tb_error_set(err, TB_IO, -made, "%s cannot be synced", s->dir);
    tb_log_close(s->log);
    free(s);
    return rc;
}

/* ---- opening ---- */

static enum tb_rc replay_record(void *user, const struct tb_record *r)
{
    struct tb_shard *s = user;
    return tb_apply(&s->x, r);
}

static void replay_frame_end(void *user, struct tb_log_mark mark)
{
    struct tb_shard *s = user;
    tb_apply_frame_end(&s->x);
    s->replayed = mark;
}

static enum tb_rc open_index(struct tb_shard *s, struct tb_io *io, struct tb_error *err)
{
    char path[PATH_LONG];
    struct tb_slice v;
    shard_path(s, "index.mdb", path);
    enum tb_rc rc = tb_index_roll_back(io, path, s->ckpt.txnid, s->ckpt.meta, err);
    if (rc == TB_OK)
        rc = tb_index_open(path, false, &s->ix, err);
    if (rc != TB_OK)
        return rc;
    s->x.ix = s->ix;
    s->index_fd = tb_io_file_open(io, path, TB_OPEN_WRITE);
    if (s->index_fd < 0)
        return tb_error_set(err, TB_IO, -s->index_fd, "%s cannot be opened", path);
    rc = tb_index_begin(s->ix);
    if (rc != TB_OK || !tb_index_get(s->ix, TB_DB_STATE, TB_SLICE("state"), &v) || v.len < sizeof(s->x.state))
        return tb_error_set(err, TB_CORRUPT, 0, "%s has no state row", path);
    memcpy(&s->x.state, v.ptr, sizeof(s->x.state));
    s->x.bad = tb_index_entries(s->ix, TB_DB_BAD);
    if (s->x.state.format < TB_FORMAT_OLDEST || s->x.state.format > TB_FORMAT)
        return tb_error_set(err, TB_INVALID, 0, "%s has format %u; this program reads %u to %u", path,
                            s->x.state.format, TB_FORMAT_OLDEST, TB_FORMAT);
    if (s->x.state.applied != s->ckpt.applied || s->x.state.chain != s->ckpt.chain)
        return tb_error_set(err, TB_CORRUPT, 0, "%s holds the log up to %llu, its checkpoint record says %llu", path,
                            (unsigned long long)s->x.state.applied, (unsigned long long)s->ckpt.applied);
    return TB_OK;
}

static void close_index(struct tb_shard *s)
{
    tb_index_close(s->ix);
    s->ix = NULL;
    if (s->index_fd >= 0)
        (void)tb_io_file_close(s->worker->io, s->index_fd);
    s->index_fd = -1;
}

/* compact: at a start, an index that is mostly free pages, if that takes no time worth telling. */
static enum tb_rc compact(struct tb_shard *s, struct tb_error *err)
{
    struct tb_io *io = s->worker->io;
    struct tb_disk_ckpt fresh = {0};
    struct tb_error why = {0};
    uint64_t used, high;
    tb_index_pages(s->ix, &used, &high);
    if (s->reviving || s->ckpt.flags & TB_CKPT_NEXT || !tb_compact_due(s->store->cfg.compact_pages, used, high))
        return TB_OK; /* one that failed serves again first; one that was just compacted is */
    close_index(s);
    enum tb_rc rc = tb_compact_make(io, s->dir, &s->ckpt, &fresh, &why);
    if (rc == TB_OK) {
        if ((rc = tb_compact_take(io, s->dir, &fresh, err)) != TB_OK)
            return rc;
        s->ckpt = fresh;
        tb_log(TB_LOG_INFO, "shard=%u index compacted pages=%llu used=%llu now=%llu", s->number,
               (unsigned long long)high, (unsigned long long)used, (unsigned long long)tb_index_meta_pages(fresh.meta));
    } else {
        tb_log(TB_LOG_WARN, "shard=%u its index was not compacted: %s", s->number, why.text);
    }
    return open_index(s, io, err);
}

static enum tb_rc recover_once(struct tb_shard *s, struct tb_error *err)
{
    struct tb_io *io = s->worker->io;
    char path[PATH_LONG];
    uint8_t block[TB_BLOCK];
    shard_path(s, "CKPT", path);
    enum tb_rc rc = tb_slot_read(io, path, tb_ckpt_check, block, err);
    if (rc != TB_OK)
        return rc;
    memcpy(&s->ckpt, block, sizeof(s->ckpt));
    if (s->ckpt.format < TB_FORMAT_OLDEST || s->ckpt.format > TB_FORMAT)
        return tb_error_set(err, TB_INVALID, 0, "%s has format %u; this program reads %u to %u", path, s->ckpt.format,
                            TB_FORMAT_OLDEST, TB_FORMAT);
    if (s->ckpt.shard != s->number || memcmp(s->ckpt.uuid, s->store->super.uuid, 16) != 0)
        return tb_error_set(err, TB_CORRUPT, 0, "%s belongs to another shard or store", path);
    s->ckpt_fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_DIRECT);
    if (s->ckpt_fd < 0)
        return tb_error_set(err, TB_IO, -s->ckpt_fd, "%s cannot be written", path);
    rc = open_index(s, io, err);
    if (rc == TB_OK)
        rc = compact(s, err);
    s->ckpt.flags = 0;
    if (rc == TB_OK)
        rc = log_open(io, s->store, s, err);
    struct tb_log_mark from = {s->ckpt.applied, s->ckpt.last, s->ckpt.chain};
    s->replayed = from;
    if (rc == TB_OK)
        rc = tb_log_scan(s->log, from, replay_record, replay_frame_end, s, err);
    if (rc == TB_OK)
        rc = tb_log_harden(s->log, err);
    if (rc == TB_OK)
        tb_dicts_load(s);
    if (rc == TB_OK)
        rc = tb_checkpoint_now(s, s->replayed, err);
    if (rc == TB_OK)
        rc = tb_log_start(s->log, err);
    if (rc == TB_OK)
        rc = tb_gc_open(s, err);
    if (rc == TB_OK)
        rc = tb_scrub_open(s, err);
    if (rc == TB_OK)
        tb_log(TB_LOG_INFO, "shard=%u recovered epoch=%u replayed_bytes=%llu accounts=%llu messages=%llu", s->number,
               s->epoch, (unsigned long long)(s->replayed.end - from.end), (unsigned long long)s->x.state.accounts,
               (unsigned long long)s->x.state.messages);
    return rc;
}

/* unload: log and index are closed, nothing is committed. */
static void unload(struct tb_shard *s)
{
    tb_log_close(s->log);
    close_index(s);
    s->log = NULL;
    if (s->ckpt_fd >= 0)
        (void)tb_io_file_close(s->worker->io, s->ckpt_fd);
    s->ckpt_fd = -1;
    free(s->x.seg);
    s->x = (struct tb_applier){.segment_bytes = s->x.segment_bytes};
}

/* rebuild: why says what is wrong with the index; it is made again, if the log gives what it held. */
static enum tb_rc rebuild(struct tb_shard *s, const char *why, struct tb_error *err)
{
    char path[PATH_LONG];
    struct tb_log_config cfg = log_config(s->worker->io, s->store, s, path);
    tb_log(TB_LOG_ERROR, "alert: shard=%u its index cannot be trusted: %s", s->number, why);
    return tb_index_rebuild(s->worker->io, &cfg, s->dir, err);
}

enum tb_rc tb_shard_recover(struct tb_shard *s, struct tb_error *err)
{
    struct tb_io *io = s->worker->io;
    struct tb_error found = {0}, no = {0};
    if (!s->store->cfg.cut && tb_cut_pending(io, s->dir))
        return tb_error_set(err, TB_CORRUPT, 0,
                            "shard %u: cutting its log is not done; run `tambo check --truncate` again", s->number);
    enum tb_rc settled = tb_index_settle(io, s->dir, err);
    if (settled != TB_OK)
        return settled;
    enum tb_suspicion mark = tb_suspicion(io, s->dir);
    bool rebuilt = mark == TB_CONDEMNED || (mark == TB_SUSPECT && !tb_index_sound(io, s->dir, &found));
    if (mark != TB_TRUSTED && !rebuilt)
        tb_log(TB_LOG_INFO, "shard=%u its index was suspect and is sound", s->number);
    if (rebuilt) {
        enum tb_rc made = rebuild(s, found.text[0] ? found.text : "it failed twice", err);
        if (made != TB_OK && (mark != TB_CONDEMNED || !tb_index_sound(io, s->dir, &no)))
            return made;
        if (made != TB_OK)
            tb_log(TB_LOG_WARN, "shard=%u its index cannot be made again, and looks sound: %s", s->number, err->text);
    }
    enum tb_rc rc = recover_once(s, err);
    if (rc == TB_CORRUPT && !rebuilt) { /* is it the index, and can the log do better? */
        unload(s);
        found = *err;
        if (rebuild(s, found.text, &no) != TB_OK) {
            tb_log(TB_LOG_ERROR, "shard=%u its index cannot be made again either: %s", s->number, no.text);
            return rc;
        }
        rebuilt = true;
        rc = recover_once(s, err);
    }
    if (rc == TB_OK && (rebuilt || mark != TB_TRUSTED))
        tb_suspect_clear(io, s->dir);
    return rc;
}

enum tb_rc tb_shard_serve(struct tb_shard *s, struct tb_error *err)
{
    if (tb_index_begin(s->ix) != TB_OK)
        return tb_error_set(err, TB_IO, 0, "shard %s: %s", s->dir, tb_index_error(s->ix));
    if (tb_rotation_open(s, err) != TB_OK)
        return TB_LIMIT;
    tb_dicts_teach(s->store, s->worker->codec);
    s->opened_ns = s->ckpt_started_ns = tb_io_now_ns(s->worker->io);
    s->state = SHARD_SERVING;
    s->failed = false;
    atomic_store(&s->shares, tb_index_entries(s->ix, TB_DB_ACL) > 0);
    atomic_store(&s->away, false);
    tb_log_prepare(s->log);
    tb_checkpoint_reserve(s);
    return TB_OK;
}

enum tb_rc tb_shard_open(struct tb_worker *w, uint32_t number, struct tb_shard **out, struct tb_error *err)
{
    struct tb_shard *s = shard_new(w->store, number);
    if (s == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %u", number);
    s->store = w->store;
    s->worker = w;
    s->ckpt_block = aligned_alloc(TB_BLOCK, TB_BLOCK);
    enum tb_rc rc = s->ckpt_block != NULL ? tb_shard_recover(s, err)
                                          : tb_error_set(err, TB_LIMIT, ENOMEM, "shard %u", number);
    if (rc == TB_OK)
        rc = tb_shard_serve(s, err);
    if (rc != TB_OK && rc != TB_LIMIT && number > 0 && w->store->cfg.serve_rest) {
        tb_revive_absent(s, rc, err);
        rc = TB_OK;
    }
    if (rc != TB_OK) {
        tb_shard_close(s);
        return rc;
    }
    *out = s;
    return TB_OK;
}

void tb_shard_drop(struct tb_shard *s)
{
    for (size_t i = 0; i < TB_ACCOUNT_BUCKETS; i++) {
        for (struct tb_account *a = s->bucket[i], *next; a != NULL; a = next) {
            next = a->next;
            free(a);
        }
        s->bucket[i] = NULL;
    }
    tb_gc_close(s);
    tb_scrub_close(s);
    tb_retire_close(s);
    unload(s);
    s->ckpt_phase = CKPT_IDLE;
    s->index_full = s->want_checkpoint = false;
    s->reserve_pages = s->reserve_want = 0;
    s->accounts_open = 0;
}

void tb_shard_close(struct tb_shard *s)
{
    if (s == NULL)
        return;
    tb_copies_drop(s);
    tb_shard_drop(s);
    tb_rotation_close(s);
    tb_pins_free(&s->pins);
    free(s->ckpt_block);
    free(s);
}

bool tb_shard_idle(const struct tb_shard *s)
{
    return tb_log_idle(s->log) && s->ckpt_phase != CKPT_SYNCING && s->ckpt_phase != CKPT_WRITING && !s->reserving &&
           s->copies == NULL && s->compares == 0 && tb_gc_quiet(s) && tb_scrub_quiet(s) && s->train_ops == 0;
}

struct tb_shard *tb_shard_of(struct tb_worker *w, uint32_t number)
{
    if (number >= w->store->super.shards)
        return NULL;
    struct tb_shard *s = w->store->shard[number];
    return s != NULL && s->worker == w ? s : NULL;
}

/* ---- the mutation path ---- */

bool tb_shard_sound(struct tb_shard *s)
{
    struct tb_error err;
    if (s->failed || tb_index_rc(s->ix) == TB_OK)
        return !s->failed;
    (void)tb_error_set(&err, tb_index_rc(s->ix), 0, "shard %s: %s", s->dir, tb_index_error(s->ix));
    tb_shard_fail(s, &err);
    return false;
}

enum tb_rc tb_shard_admit(struct tb_shard *s, size_t bytes, uint32_t records, enum tb_admit kind)
{
    if (!tb_shard_sound(s))
        return TB_IO;
    if (s->stopping)
        return TB_BUSY;
    bool grows = kind == ADMIT_GROW || kind == ADMIT_CALL, short_of_space;
    if (grows && s->index_full)
        return TB_NOSPACE;
    uint64_t reserve = grows              ? 2 * tb_log_group_bytes_max(s->log)
                       : kind == ADMIT_GC ? tb_log_group_bytes_max(s->log)
                                          : 0;
    enum tb_rc rc = tb_log_room(s->log, bytes + sizeof(struct tb_pay_time), records + 1, reserve,
                                kind == ADMIT_CALL || kind == ADMIT_GC);
    (void)tb_log_space(s->log, &short_of_space);
    if (rc == TB_OK && grows && short_of_space)
        return TB_NOSPACE; /* the last segment there is belongs to deleting and to GC, so that space can come back */
    return rc;
}

/* log_time: a frame begins with the time of day when a second has passed since the last one that did: the axis of
 * restore. tb_shard_admit kept its room. */
static void log_time(struct tb_shard *s)
{
    struct tb_pay_time now = {.ms = tb_io_wall_ms(s->worker->io)};
    int64_t gone = now.ms - s->x.state.time_ms;
    if (gone < TIME_EVERY_MS && gone > -TIME_EVERY_MS)
        return;
    memcpy(tb_log_add(s->log, TB_REC_TIME, 0, 0, 0, sizeof(now), NULL), &now, sizeof(now));
    tb_shard_filled(s);
}

uint8_t *tb_shard_fill(struct tb_shard *s, uint8_t type, uint8_t flags, uint32_t acct, size_t len, uint64_t *lsn)
{
    if (tb_log_fresh(s->log))
        log_time(s);
    return tb_log_add(s->log, type, flags, 0, acct, len, lsn);
}

void tb_shard_filled(struct tb_shard *s)
{
    struct tb_record r = tb_log_added(s->log);
    struct tb_account *a = s->watches > 0 ? tb_shard_account(s, r.acct) : NULL;
    bool watched = a != NULL && a->watches != NULL;
    s->records++;
    if (watched)
        tb_watch_before(a, &r);
    enum tb_rc rc = tb_apply(&s->x, &r);
    if (watched && rc == TB_OK)
        tb_watch_after(a, &r);
    if (s->share_watches != NULL && r.type == TB_REC_ACL && rc == TB_OK)
        tb_watch_acl(s, &r);
    if (!TB_KEEPS(boundary))
        tb_log_boundary(s->log);
    if (rc != TB_OK) {
        struct tb_error err;
        (void)tb_error_set(&err, rc, 0, "shard %s: record of type %u cannot be applied: %s", s->dir, r.type,
                           tb_index_rc(s->ix) != TB_OK ? tb_index_error(s->ix) : "it contradicts the index");
        tb_shard_fail(s, &err);
    }
}

void tb_shard_record(struct tb_shard *s, uint8_t type, uint8_t flags, uint32_t acct, struct tb_slice head,
                     struct tb_slice a, struct tb_slice b)
{
    uint8_t *p = tb_shard_fill(s, type, flags, acct, head.len + a.len + b.len, NULL);
    struct tb_slice part[] = {head, a, b};
    for (size_t i = 0; i < TB_ARRAY_LEN(part); i++)
        if (part[i].len > 0) {
            memcpy(p, part[i].ptr, part[i].len);
            p += part[i].len;
        }
    tb_shard_filled(s);
}

struct tb_account *tb_shard_account(struct tb_shard *s, uint32_t acct)
{
    struct tb_account *a = s->bucket[acct % TB_ACCOUNT_BUCKETS];
    while (a != NULL && a->acct != acct)
        a = a->next;
    return a;
}

void tb_shard_touched(struct tb_shard *s, uint32_t acct, uint32_t mbox)
{
    struct tb_account *a = tb_shard_account(s, acct);
    if (a == NULL)
        return;
    a->position = tb_log_end(s->log);
    tb_views_notify(a, mbox);
}

int64_t tb_due(const struct tb_shard *s)
{
    return tb_io_wall_s(s->worker->io) + (int64_t)s->store->cfg.trash_days * 86400;
}

/* ---- calls ---- */

static void call_back(struct tb_op *gate)
{
    struct tb_call *call = TB_CONTAINER(gate, struct tb_call, gate);
    struct tb_shard *s = gate->user;
    if (gate->rc != TB_OK)
        call->rc = gate->rc;
    if (call->from == s->worker)
        tb_worker_ready(call->from, &call->op, call->rc);
    else {
        call->op.rc = call->rc;
        tb_io_post(s->worker->io, call->from->io, &call->op);
    }
}

static void call_wait(struct tb_shard *s, struct tb_call *call)
{
    call->hop.next = NULL;
    if (s->waiting_last != NULL)
        s->waiting_last->hop.next = &call->hop;
    else
        s->waiting_first = call;
    s->waiting_last = call;
}

/* call_run: false if it met TB_BUSY and must wait for room. */
static bool call_run(struct tb_shard *s, struct tb_call *call)
{
    call->rc = TB_OK;
    call->gate = (struct tb_op){.done = call_back, .user = s};
    if (s->failed) {
        call->rc = TB_IO;
        if (call->always)
            call->run(call, s->worker);
        tb_worker_ready(s->worker, &call->gate, call->always ? TB_OK : TB_IO);
        return true;
    }
    call->run(call, s->worker);
    if (!tb_shard_sound(s))
        call->rc = TB_IO; /* whatever it was told is not there may be there */
    if (call->rc == TB_BUSY && !s->stopping && !s->failed)
        return false;
    call->position = tb_log_end(s->log);
    tb_gate_insert(s, call->position, &call->gate);
    return true;
}

static void run_waiting(struct tb_shard *s)
{
    while (s->waiting_first != NULL) {
        struct tb_call *call = s->waiting_first;
        struct tb_op *next = call->hop.next;
        if (!call_run(s, call))
            return;
        s->waiting_first = next != NULL ? TB_CONTAINER(next, struct tb_call, hop) : NULL;
        if (next == NULL)
            s->waiting_last = NULL;
    }
}

static void call_arrived(struct tb_op *hop)
{
    struct tb_call *call = TB_CONTAINER(hop, struct tb_call, hop);
    struct tb_shard *s = hop->user;
    if (s->waiting_first != NULL || !call_run(s, call))
        call_wait(s, call);
}

void tb_call(struct tb_worker *w, uint32_t shard, struct tb_call *call)
{
    struct tb_store *store = w->store;
    TB_ASSERT(shard < store->super.shards && store->shard[shard] != NULL);
    struct tb_shard *s = store->shard[shard];
    call->from = w;
    call->shard = shard;
    call->hop = (struct tb_op){.done = call_arrived, .user = s};
    if (s->worker == w)
        tb_worker_ready(w, &call->hop, TB_OK);
    else
        tb_io_post(w->io, s->worker->io, &call->hop);
}

/* ---- the output gate ---- */

/* durable: is everything up to position on stable storage? */
static bool durable(const struct tb_shard *s, uint64_t position)
{
    return position <= tb_log_durable(s->log) || !TB_KEEPS(gate);
}

void tb_gate_insert(struct tb_shard *s, uint64_t position, struct tb_op *op)
{
    op->offset = position;
    op->next = NULL;
    bool sound = tb_shard_sound(s);
    if (!sound || durable(s, position)) {
        tb_worker_ready(s->worker, op, sound ? TB_OK : TB_IO);
        return;
    }
    if (s->gate_last == NULL || s->gate_last->offset <= position) { /* nearly always */
        if (s->gate_last != NULL)
            s->gate_last->next = op;
        else
            s->gate_first = op;
        s->gate_last = op;
        return;
    }
    struct tb_op **at = &s->gate_first;
    while ((*at)->offset <= position)
        at = &(*at)->next;
    op->next = *at;
    *at = op;
}

bool tb_gate_open(struct tb_account *a, uint64_t position)
{
    return tb_shard_sound(a->shard) && durable(a->shard, position);
}

void tb_gate_wait(struct tb_account *a, uint64_t position, struct tb_op *op)
{
    tb_gate_insert(a->shard, position, op);
}

void tb_gate_cancel(struct tb_account *a, struct tb_op *op)
{
    struct tb_shard *s = a->shard;
    struct tb_op *prev = NULL;
    for (struct tb_op *o = s->gate_first; o != NULL; prev = o, o = o->next) {
        if (o != op)
            continue;
        if (prev != NULL)
            prev->next = o->next;
        else
            s->gate_first = o->next;
        if (s->gate_last == o)
            s->gate_last = prev;
        return;
    }
    (void)tb_worker_forget(s->worker, op);
}

/* ---- statistics ---- */

void tb_shard_stat(struct tb_worker *owner, uint32_t shard, struct tb_shard_stat *out)
{
    struct tb_shard *s = tb_shard_of(owner, shard);
    struct tb_log_stat log;
    uint64_t used, high;
    memset(out, 0, sizeof(*out));
    out->shard = shard;
    out->state = s != NULL ? tb_shard_state_text(s) : "elsewhere";
    if (s == NULL)
        return;
    out->failures = s->failures;
    if (s->failed) {
        (void)snprintf(out->reason, sizeof(out->reason), "%s", s->reason.text);
        return;
    }
    tb_log_stat(s->log, &log);
    tb_index_pages(s->ix, &used, &high);
    const struct tb_disk_state *st = &s->x.state;
    out->accounts = st->accounts;
    out->mailboxes = st->mailboxes;
    out->messages = st->messages;
    out->raw_bytes = st->raw_bytes;
    out->stored_raw_bytes = st->stored_raw_bytes;
    out->shared_raw_bytes = st->shared_raw_bytes;
    out->log_used_bytes = log.used_bytes;
    out->log_file_bytes = log.file_bytes;
    out->index_used_bytes = used * 4096;
    out->index_file_bytes = high * 4096;
    out->log_writes = log.writes;
    out->log_frames = log.frames;
    out->checkpoints = s->checkpoints;
    out->records = s->records;
    out->deliveries = s->deliveries;
    out->position = tb_log_end(s->log);
    out->durable = tb_log_durable(s->log);
    out->applied_confirmed = s->confirmed;
    out->epoch = s->epoch;
    out->format = st->format;
    out->quarantined = s->x.bad;
    out->bad_reads = s->bad_reads;
    out->bad_cached = tb_index_soft(s->ix);
    tb_gc_stat(s, out);
    tb_scrub_stat(s, out);
}
