/*
 * store.c: the store as a whole: SUPER, the lock, workers and their loop.
 *
 * A worker's turn: groups to the disk, completions, then the ops that became ready meanwhile (gates that opened, calls,
 * views that changed). So no done runs inside another, and everything applied in one turn shares a log write.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/crypto/crypto.h"
#include "engine/store/hold.h"
#include "engine/store/rebuild.h"

enum { SEGMENT_MIN = 4 << 20, SEGMENT_MAX = 256 << 20, SEGMENT_DEFAULT = 64 << 20 };
#define TICK_NS 1000000000ull
#define TICK_BUSY_NS 50000000ull /* while there is more to purge */

/* ---- SUPER ---- */

static void super_seal(struct tb_disk_super *s)
{
    s->crc = 0;
    s->crc = tb_crc32c(0, s, sizeof(*s));
}

static bool super_check(const uint8_t *block, uint64_t *seq)
{
    struct tb_disk_super s;
    memcpy(&s, block, sizeof(s));
    uint32_t want = s.crc;
    s.crc = 0;
    *seq = s.seq;
    return memcmp(s.magic, TB_SUPER_MAGIC, 8) == 0 && tb_crc32c(0, &s, sizeof(s)) == want;
}

static void super_path(const struct tb_store *st, const char *name, char out[TB_PATH + 16])
{
    (void)snprintf(out, TB_PATH + 16, "%s/%s", st->dir, name);
}

static enum tb_rc super_write(struct tb_io *io, struct tb_store *st, struct tb_error *err)
{
    char path[TB_PATH + 16];
    super_path(st, "SUPER", path);
    st->super.seq++;
    super_seal(&st->super);
    return tb_slot_write(io, path, st->super.seq, &st->super, sizeof(st->super), err);
}

enum tb_rc tb_store_raise_epoch(struct tb_store *st, struct tb_io *io, uint32_t *epoch, struct tb_error *err)
{
    (void)pthread_mutex_lock(&st->super_lock);
    uint64_t seq = st->super.seq;
    uint32_t before = st->super.epoch++;
    enum tb_rc rc = super_write(io, st, err);
    if (rc == TB_OK) {
        *epoch = st->super.epoch;
    } else { /* the next attempt writes the same slot: the other one is the truth until one succeeds */
        st->super.seq = seq;
        st->super.epoch = before;
    }
    (void)pthread_mutex_unlock(&st->super_lock);
    return rc;
}

static bool power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

enum tb_rc tb_store_create(struct tb_io *io, const char *dir, const struct tb_store_options *opt, struct tb_error *err)
{
    struct tb_store *st = calloc(1, sizeof(*st));
    if (st == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "store %s", dir);
    char path[TB_PATH + 16];
    (void)snprintf(st->dir, sizeof(st->dir), "%.990s", dir);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t shards = opt != NULL && opt->shards ? opt->shards : cores > 0 ? (uint32_t)cores : 1;
    uint64_t segment = opt != NULL && opt->segment_bytes ? opt->segment_bytes : SEGMENT_DEFAULT;
    memcpy(st->super.magic, TB_SUPER_MAGIC, 8);
    st->super.format = TB_FORMAT;
    st->super.shards = shards > TB_SHARDS_MAX ? TB_SHARDS_MAX : shards;
    st->super.segment_bytes = segment;
    st->super.created = tb_io_wall_s(io);
    uint32_t block = tb_io_block_bytes(io, dir);
    st->super.pad_bytes = block > TB_BLOCK && block <= TB_SLOT_STRIDE ? block : 0;
    tb_io_random(io, st->super.uuid, sizeof(st->super.uuid));
    tb_io_random(io, st->super.secret, sizeof(st->super.secret));
    enum tb_rc rc = TB_OK;
    int made = tb_io_mkdir(io, dir);
    super_path(st, "SUPER", path);
    int there = tb_io_file_open(io, path, TB_OPEN_READ);
    if (there >= 0) {
        (void)tb_io_file_close(io, there);
        rc = tb_error_set(err, TB_EXISTS, 0, "%s already holds a store", dir);
    } else if (made < 0 && made != -EEXIST) {
        rc = tb_error_set(err, made == -ENOSPC ? TB_NOSPACE : TB_IO, -made, "%s cannot be made", dir);
    } else if (!power_of_two(segment) || segment < SEGMENT_MIN || segment > SEGMENT_MAX) {
        rc = tb_error_set(err, TB_INVALID, 0, "segment size %llu: a power of two from 4 MiB to 256 MiB",
                          (unsigned long long)segment);
    }
    for (uint32_t i = 0; rc == TB_OK && i < st->super.shards; i++)
        rc = tb_shard_create(io, st, i, err);
    if (rc == TB_OK)
        rc = super_write(io, st, err); /* last: without it the folder is not a store */
    if (rc == TB_OK && (made = tb_io_sync_dir(io, dir)) < 0)
        rc = tb_error_set(err, TB_IO, -made, "%s cannot be synced", dir);
    free(st);
    return rc;
}

/* ---- opening ---- */

static enum tb_rc lock_store(struct tb_io *io, struct tb_store *st, struct tb_error *err)
{
    char path[TB_PATH + 16];
    super_path(st, "LOCK", path);
    st->lock_fd = tb_io_file_open(io, path, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (st->lock_fd < 0)
        return tb_error_set(err, TB_IO, -st->lock_fd, "%s cannot be opened", path);
    char pid[32] = "";
    int rc = tb_io_lock(io, st->lock_fd);
    if (rc < 0) {
        int64_t n = tb_io_pread(io, st->lock_fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        return tb_error_set(err, rc == -EAGAIN ? TB_BUSY : TB_IO, 0, "store %s is in use by process %s", st->dir, pid);
    }
    int n = snprintf(pid, sizeof(pid), "%-20ld", (long)getpid());
    (void)tb_io_pwrite(io, st->lock_fd, pid, (size_t)n, 0); /* only a hint for the message above */
    return TB_OK;
}

/* crashed: a process died in the middle of something: every index is looked at before it is believed. */
static void crashed(struct tb_io *io, struct tb_store *st)
{
    char path[TB_PATH + 16], shard[TB_PATH];
    super_path(st, TB_CRASHED, path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return;
    (void)tb_io_file_close(io, fd); /* read only */
    tb_log(TB_LOG_WARN, "store %s: the last process crashed; its indexes are looked at", st->dir);
    for (uint32_t i = 0; i < st->super.shards; i++) {
        (void)snprintf(shard, sizeof(shard), "%.990s/shard-%02x", st->dir, i);
        tb_suspect(io, shard, TB_SUSPECT);
    }
    (void)tb_io_unlink(io, path); /* if it stays, the next start looks again */
}

static enum tb_rc load_super(struct tb_io *io, struct tb_store *st, struct tb_error *err)
{
    char path[TB_PATH + 16];
    uint8_t block[TB_BLOCK];
    super_path(st, "SUPER", path);
    enum tb_rc rc = tb_slot_read(io, path, super_check, block, err);
    if (rc == TB_NOTFOUND)
        return tb_error_set(err, rc, 0, "%s holds no store; make one with `tambo init`", st->dir);
    if (rc != TB_OK)
        return rc;
    memcpy(&st->super, block, sizeof(st->super));
    if (st->super.format < TB_FORMAT_OLDEST || st->super.format > TB_FORMAT)
        return tb_error_set(err, TB_INVALID, 0, "store %s has format %u; this program reads %u to %u", st->dir,
                            st->super.format, TB_FORMAT_OLDEST, TB_FORMAT);
    if (st->super.shards == 0 || st->super.shards > TB_SHARDS_MAX || !power_of_two(st->super.segment_bytes) ||
        st->super.segment_bytes < SEGMENT_MIN || st->super.segment_bytes > SEGMENT_MAX)
        return tb_error_set(err, TB_CORRUPT, 0, "%s has impossible values", path);
    return TB_OK;
}

enum tb_rc tb_super_load(struct tb_io *io, const char *dir, struct tb_disk_super *out, struct tb_error *err)
{
    struct tb_store *st = calloc(1, sizeof(*st));
    if (st == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "store %s", dir);
    (void)snprintf(st->dir, sizeof(st->dir), "%.990s", dir);
    enum tb_rc rc = load_super(io, st, err);
    *out = st->super;
    free(st);
    return rc;
}

/* upgrade: from here on an older program refuses the store; the rest follows at each shard's next checkpoint. */
static void upgrade(struct tb_store *st)
{
    if (st->super.format < TB_FORMAT)
        tb_log(TB_LOG_INFO, "store %s is upgraded from format %u to %u", st->dir, st->super.format, TB_FORMAT);
    st->super.format = TB_FORMAT;
}

void tb_store_formats(uint32_t *oldest, uint32_t *newest)
{
    *oldest = TB_FORMAT_OLDEST;
    *newest = TB_FORMAT;
}

enum tb_rc tb_store_open(struct tb_io *io, const struct tb_store_config *cfg, struct tb_store **out,
                         struct tb_error *err)
{
    struct tb_store *st = calloc(1, sizeof(*st));
    if (st == NULL || tb_codec_init() != TB_OK || (st->backup = tb_backup_new(st)) == NULL) {
        free(st);
        return tb_error_set(err, TB_LIMIT, ENOMEM, "store %s", cfg->dir);
    }
    (void)snprintf(st->dir, sizeof(st->dir), "%.990s", cfg->dir);
    st->cfg = *cfg;
    st->cfg.dir = st->dir;
    st->io = io;
    st->lock_fd = -1;
    atomic_init(&st->queue_unsettled, 0);
    atomic_init(&st->queued, 0);
    (void)pthread_rwlock_init(&st->lock, NULL);
    (void)pthread_mutex_init(&st->super_lock, NULL);
    tb_dicts_init(&st->dicts);
    enum tb_rc rc = load_super(io, st, err);
    if (rc == TB_OK)
        rc = lock_store(io, st, err);
    if (rc == TB_OK && (cfg->workers == 0 || cfg->workers > st->super.shards))
        st->cfg.workers = st->super.shards;
    uint32_t epoch;
    if (rc == TB_OK) {
        crashed(io, st);
        upgrade(st);
        tb_hold_load(io, st);
    }
    if (rc == TB_OK)
        rc = tb_store_raise_epoch(st, io, &epoch, err); /* R2: before anything is appended */
    if (rc != TB_OK) {
        if (st->lock_fd >= 0)
            (void)tb_io_file_close(io, st->lock_fd);
        (void)pthread_rwlock_destroy(&st->lock);
        (void)pthread_mutex_destroy(&st->super_lock);
        tb_backup_free(st->backup);
        tb_dicts_free(&st->dicts);
        free(st);
        return rc;
    }
    atomic_store(&st->queue_unsettled, st->super.shards);
    tb_dedup_keys(st);
    *out = st;
    return TB_OK;
}

void tb_store_close(struct tb_store *store)
{
    if (store == NULL)
        return;
    (void)tb_io_file_close(store->io, store->lock_fd);
    tb_directory_free(store);
    (void)pthread_rwlock_destroy(&store->lock);
    (void)pthread_mutex_destroy(&store->super_lock);
    tb_backup_free(store->backup);
    tb_dicts_free(&store->dicts);
    free(store);
}

/* ---- workers ---- */

void tb_worker_ready(struct tb_worker *w, struct tb_op *op, enum tb_rc rc)
{
    op->rc = rc;
    op->next = NULL;
    if (w->ready_last != NULL)
        w->ready_last->next = op;
    else
        w->ready_first = op;
    w->ready_last = op;
}

bool tb_worker_forget(struct tb_worker *w, struct tb_op *op)
{
    struct tb_op *prev = NULL;
    for (struct tb_op *o = w->ready_first; o != NULL; prev = o, o = o->next) {
        if (o != op)
            continue;
        if (prev != NULL)
            prev->next = o->next;
        else
            w->ready_first = o->next;
        if (w->ready_last == o)
            w->ready_last = prev;
        return true;
    }
    return false;
}

static unsigned run_ready(struct tb_worker *w)
{
    unsigned n = 0;
    struct tb_op *last = w->ready_last; /* what becomes ready meanwhile waits for the next turn */
    for (struct tb_op *op = w->ready_first; op != NULL; op = w->ready_first) {
        w->ready_first = op->next;
        if (w->ready_first == NULL)
            w->ready_last = NULL;
        bool end = op == last;
        op->done(op);
        n++;
        if (end)
            break;
    }
    return n;
}

static void tick(struct tb_op *op)
{
    struct tb_worker *w = op->user;
    w->ticking = false;
    if (op->result == -ECANCELED || w->closing)
        return;
    bool more = false;
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers) {
        struct tb_shard *s = w->store->shard[i];
        if (s->failed)
            continue;
        if (w->started)
            tb_trash_sweep(s);
        more |= tb_trash_purge(s);
        more |= tb_rules_step(s);
        more |= tb_stage_step(s);
        tb_checkpoint_tick(s);
        tb_rotation_tick(s);
        tb_gc_tick(s);
        tb_scrub_tick(s);
        tb_train_tick(s);
        tb_retire_tick(s);
    }
    w->ticking = true;
    tb_io_timer(w->io, &w->tick_op, more ? TICK_BUSY_NS : TICK_NS);
}

enum tb_rc tb_worker_open(struct tb_store *store, uint32_t index, struct tb_io *io, struct tb_worker **out,
                          struct tb_error *err)
{
    struct tb_worker *w = calloc(1, sizeof(*w));
    if (w == NULL || (w->codec = tb_codec_new()) == NULL) {
        free(w);
        return tb_error_set(err, TB_LIMIT, ENOMEM, "worker %u", index);
    }
    w->store = store;
    w->index = index;
    w->io = io;
    enum tb_rc rc = TB_OK;
    for (uint32_t i = index; rc == TB_OK && i < store->super.shards; i += store->cfg.workers)
        rc = tb_shard_open(w, i, &store->shard[i], err);
    if (rc == TB_OK && index == 0 && (rc = tb_directory_load(store, store->shard[0]->ix)) != TB_OK)
        (void)tb_error_set(err, rc, 0, "the accounts cannot be read");
    if (rc != TB_OK) {
        tb_worker_close(w);
        return rc;
    }
    if (index == 0)
        store->first_acct = store->shard[0]->x.state.next_acct;
    store->worker[index] = w;
    w->tick_op = (struct tb_op){.done = tick, .user = w};
    w->ticking = true;
    tb_io_timer(io, &w->tick_op, TICK_NS);
    *out = w;
    return TB_OK;
}

void tb_worker_started(struct tb_worker *w)
{
    tb_dicts_teach(w->store, w->codec); /* also what shards opened later brought */
    tb_dicts_use(w->store, w->codec);
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers)
        if (!w->store->shard[i]->failed)
            tb_queue_resume(w->store->shard[i]);
    w->started = true;
}

/* stop_step: has everything come to rest? Evaluated once a turn while stopping. */
static void stop_step(struct tb_worker *w)
{
    bool quiet = tb_backup_stop(w);
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers) {
        struct tb_shard *s = w->store->shard[i];
        if (s->failed) {
            tb_gc_cancel(s);
            tb_scrub_cancel(s);
            tb_revive_stop(s);
            quiet = quiet && s->state != SHARD_TELLING && !s->reviving && tb_shard_idle(s);
            continue;
        }
        bool clean = tb_log_quiet(s->log) && tb_checkpoint_quiet(s) && s->gate_first == NULL && s->fanouts == 0 &&
                     s->copies == NULL && s->compares == 0 && tb_gc_quiet(s) && tb_scrub_quiet(s) && s->train == NULL;
        if (clean && s->confirmed != tb_log_end(s->log)) {
            s->want_checkpoint = true;
            tb_log_boundary(s->log);
            clean = false;
        }
        quiet = quiet && clean;
    }
    if (!quiet)
        return;
    if (w->ticking) {
        if (!w->closing)
            tb_io_cancel(w->io, &w->tick_op);
        w->closing = true;
        return;
    }
    tb_worker_ready(w, w->stop_op, TB_OK);
    w->stop_op = NULL;
}

unsigned tb_worker_turn(struct tb_worker *w, bool wait)
{
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers)
        if (w->store->shard[i] != NULL && tb_shard_sound(w->store->shard[i]))
            tb_log_flush(w->store->shard[i]->log);
    unsigned n = tb_io_turn(w->io, wait && w->ready_first == NULL);
    n += run_ready(w);
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers)
        if (w->store->shard[i] != NULL && w->store->shard[i]->failed)
            tb_revive(w->store->shard[i]);
    if (w->stop_op != NULL)
        stop_step(w);
    return n;
}

void tb_worker_stop(struct tb_worker *w, struct tb_op *op)
{
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers)
        w->store->shard[i]->stopping = true;
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers) {
        tb_copies_cancel(w->store->shard[i]);
        tb_gc_cancel(w->store->shard[i]);
        tb_scrub_cancel(w->store->shard[i]);
    }
    w->stop_op = op;
    stop_step(w);
}

/* abandon: nothing new is started; what is in flight ends, so that memory and io can be let go. */
static void abandon(struct tb_worker *w)
{
    bool busy = true;
    w->closing = true;
    if (w->ticking)
        tb_io_cancel(w->io, &w->tick_op);
    while (busy) {
        busy = !tb_backup_stop(w) || w->ticking;
        for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers) {
            struct tb_shard *s = w->store->shard[i];
            if (s == NULL)
                continue;
            s->failed = true;
            tb_copies_cancel(s);
            tb_gc_cancel(s);
            tb_scrub_cancel(s);
            tb_revive_stop(s);
            if (s->state == SHARD_TELLING && tb_worker_forget(w, &s->revive_op))
                s->reviving = false; /* nobody is left to be told */
            busy = busy || s->reviving || !tb_shard_idle(s);
        }
        if (busy && tb_io_turn(w->io, true) == 0)
            return; /* the io has lost its ops with the power (sim) */
    }
}

void tb_worker_close(struct tb_worker *w)
{
    if (w == NULL)
        return;
    abandon(w);
    for (uint32_t i = w->index; i < w->store->super.shards; i += w->store->cfg.workers) {
        tb_shard_close(w->store->shard[i]);
        w->store->shard[i] = NULL;
    }
    tb_delivery_pool_free(w);
    w->store->worker[w->index] = NULL;
    tb_codec_free(w->codec);
    free(w->scratch);
    free(w);
}

struct tb_io *tb_worker_io(struct tb_worker *w)
{
    return w->io;
}
uint32_t tb_worker_index(const struct tb_worker *w)
{
    return w->index;
}
struct tb_store *tb_worker_store(struct tb_worker *w)
{
    return w->store;
}
uint32_t tb_store_workers(const struct tb_store *store)
{
    return store->cfg.workers;
}
uint32_t tb_store_shards(const struct tb_store *store)
{
    return store->super.shards;
}
struct tb_worker *tb_store_worker(struct tb_store *store, uint32_t index)
{
    return index < TB_SHARDS_MAX ? store->worker[index] : NULL;
}
bool tb_store_serves(const struct tb_store *store, struct tb_account_id id)
{
    const struct tb_shard *s = id.shard < store->super.shards ? store->shard[id.shard] : NULL;
    return s != NULL && !atomic_load_explicit(&s->away, memory_order_relaxed);
}
uint32_t tb_store_worker_of(const struct tb_store *store, struct tb_account_id id)
{
    return id.shard % store->cfg.workers;
}
void tb_store_secret(struct tb_store *store, const char *purpose, uint8_t key[32])
{
    tb_hmac_sha256(store->super.secret, sizeof(store->super.secret), purpose, strlen(purpose), key);
}
