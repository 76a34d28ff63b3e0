/*
 * rotate.c: two copies of every shard's index, made in turn and by themselves, so that a damaged index is rebuilt from
 * the newer one and the log behind it.
 *
 * A new one is due when the log has grown by index_copy_log_bytes since the newest, when that is index_copy_hours old
 * and there is anything new, when there is none at all, or when somebody waits for it (tb_rotation_want; for a large
 * index at most every ten minutes). It takes the place of the older one, which stays whole until its successor is
 * verified. A floor pin keeps the log behind each, and all of the log until there is a first one. Thread: the shard's
 * owner.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/store/copy.h"

enum { FIRST_BYTES = 1 << 20, RATE_BYTES = 32 << 20, SMALL_PAGES = (32 << 20) / TB_COPY_PAGE };
/* in front of all segments; a backup that begins pins 0, and GC tells who holds what apart by that */
enum { BEGINNING = 1 };
#define RETRY_NS 60000000000ull
#define WANTED_NS 600000000000ull

struct tb_rotation {
    struct tb_copy_job job;
    bool running, wanted;
    unsigned number; /* of the one being made */
    struct {
        bool valid;
        uint64_t applied;
        int64_t made_ms;
    } copy[TB_COPIES];
    uint64_t ended_ns;    /* when the last one was done, or failed */
    bool failed, no_room; /* no_room: because the disk was full */
    bool none_yet;        /* all of the log is pinned: an index could only be made again from its beginning */
};

/* unpin_all: there is a copy, or no room for one. */
static void unpin_all(struct tb_shard *s)
{
    if (s->rotation->none_yet)
        tb_pin_remove(&s->pins, BEGINNING);
    s->rotation->none_yet = false;
}

/* note: copy i is a good one now: the log from where it ends is kept for it. */
static enum tb_rc note(struct tb_shard *s, unsigned i, const struct tb_disk_copy *h)
{
    struct tb_rotation *r = s->rotation;
    if (!tb_pin_add(&s->pins, h->ckpt.applied))
        return TB_LIMIT;
    if (r->copy[i].valid)
        tb_pin_remove(&s->pins, r->copy[i].applied);
    r->copy[i].valid = true;
    r->copy[i].applied = h->ckpt.applied;
    r->copy[i].made_ms = h->made_ms;
    unpin_all(s);
    return TB_OK;
}

enum tb_rc tb_rotation_open(struct tb_shard *s, struct tb_error *err)
{
    if (s->rotation != NULL) /* the shard was rebuilt: its copies are what they were */
        return TB_OK;
    struct tb_rotation *r = calloc(1, sizeof(*r));
    if (r == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %s", s->dir);
    s->rotation = r;
    if (!tb_pin_add(&s->pins, BEGINNING))
        return tb_error_set(err, TB_LIMIT, ENOMEM, "shard %s", s->dir);
    r->none_yet = true;
    for (unsigned i = 0; i < TB_COPIES; i++) {
        char path[TB_COPY_PATH];
        struct tb_disk_copy h;
        struct tb_error why;
        tb_copy_path(s->dir, i, path);
        enum tb_rc rc = tb_copy_open(s->worker->io, path, s->store->super.uuid, s->number, &h, &why);
        if (rc == TB_OK && h.ckpt.applied <= s->ckpt.applied)
            rc = note(s, i, &h);
        else if (rc != TB_NOTFOUND)
            tb_log(TB_LOG_WARN, "shard=%u an index copy is of no use and will be made again: %s", s->number,
                   rc == TB_OK ? "it is ahead of the log" : why.text);
        if (rc == TB_LIMIT)
            return tb_error_set(err, rc, ENOMEM, "shard %s", s->dir);
    }
    return TB_OK;
}

void tb_rotation_close(struct tb_shard *s)
{
    free(s->rotation);
    s->rotation = NULL;
}

/* pick: the newest valid copy, or the one to write over; TB_COPIES: none is valid. */
static unsigned pick(const struct tb_rotation *r, bool newest)
{
    unsigned best = TB_COPIES;
    for (unsigned i = 0; i < TB_COPIES; i++) {
        if (!r->copy[i].valid && !newest)
            return i;
        if (r->copy[i].valid && (best == TB_COPIES || (r->copy[i].applied > r->copy[best].applied) == newest))
            best = i;
    }
    return best;
}

/*
 * give_up: the disk is full and GC waits for a newer copy: the older one goes, durably, and gives it its room; if there
 * is only one, that one. Until its successor is there the shard has the fewer copies: mail taken again is worth that,
 * and space would not come back otherwise, for GC may not free what a copy needs.
 */
static bool give_up(struct tb_shard *s)
{
    struct tb_rotation *r = s->rotation;
    char path[TB_COPY_PATH];
    uint64_t segment = s->store->super.segment_bytes;
    unsigned older = TB_COPIES;
    for (unsigned i = 0; i < TB_COPIES; i++)
        if (r->copy[i].valid && (older == TB_COPIES || r->copy[i].applied < r->copy[older].applied))
            older = i;
    if (older == TB_COPIES)
        unpin_all(s);
    if (older == TB_COPIES || r->copy[older].applied / segment >= s->confirmed / segment)
        return false; /* a newer one would need as much of the log */
    tb_copy_path(s->dir, older, path);
    if (tb_io_unlink(s->worker->io, path) < 0 || tb_io_sync_dir(s->worker->io, s->dir) < 0)
        return false;
    tb_log(TB_LOG_WARN, "shard=%u index copy %u gives its room to a new one: the disk is full", s->number, older);
    tb_pin_remove(&s->pins, r->copy[older].applied);
    r->copy[older].valid = false;
    return true;
}

static void made(struct tb_op *op)
{
    struct tb_shard *s = op->user;
    struct tb_rotation *r = s->rotation;
    r->running = false;
    r->ended_ns = tb_io_now_ns(s->worker->io);
    if (op->rc == TB_OK && note(s, r->number, &r->job.head) == TB_OK) {
        r->failed = false;
        tb_log(TB_LOG_INFO, "shard=%u index copied number=%u bytes=%llu position=%llu", s->number, r->number,
               (unsigned long long)r->job.head.pages * TB_COPY_PAGE, (unsigned long long)r->job.head.ckpt.applied);
    } else if (op->rc != TB_CANCELLED) {
        r->failed = true;
        r->no_room = op->rc == TB_NOSPACE;
        tb_log(TB_LOG_WARN, "shard=%u %s; it is tried again in a minute", s->number, r->job.err.text);
    }
}

static bool due(const struct tb_shard *s)
{
    const struct tb_rotation *r = s->rotation;
    const struct tb_store_config *cfg = &s->store->cfg;
    unsigned newest = pick(r, true);
    uint64_t rested_ns = tb_io_now_ns(s->worker->io) - r->ended_ns;
    if (r->failed && rested_ns < RETRY_NS)
        return false;
    if (newest == TB_COPIES)
        return s->confirmed % s->store->super.segment_bytes >= FIRST_BYTES ||
               s->confirmed / s->store->super.segment_bytes > 1 || r->wanted;
    uint64_t grown = s->confirmed - r->copy[newest].applied;
    int64_t age_ms = tb_io_wall_ms(s->worker->io) - r->copy[newest].made_ms;
    bool wanted = r->wanted && (r->job.head.pages <= SMALL_PAGES || rested_ns >= WANTED_NS);
    unsigned older = pick(r, false);
    if (wanted && r->copy[older].valid && r->copy[older].applied < r->copy[newest].applied)
        return true; /* though nothing is new: the older one holds the log */
    return grown > 0 && (wanted || grown >= (cfg->copy_log_bytes ? cfg->copy_log_bytes : UINT64_C(1) << 30) ||
                         (cfg->copy_hours != 0 && age_ms >= (int64_t)cfg->copy_hours * 3600000));
}

void tb_rotation_tick(struct tb_shard *s)
{
    struct tb_rotation *r = s->rotation;
    if (r->running || s->stopping)
        return;
    if (r->failed && r->no_room && r->wanted && !s->failed && give_up(s))
        r->failed = false;
    if (!due(s))
        return;
    r->running = true;
    r->wanted = false;
    r->number = pick(r, false);
    r->job = (struct tb_copy_job){.op = {.done = made, .user = s}, .rate_bytes = RATE_BYTES};
    tb_copy_path(s->dir, r->number, r->job.path);
    tb_copy_start(s, &r->job);
}

void tb_rotation_want(struct tb_shard *s)
{
    s->rotation->wanted = true;
}
