/*
 * backup.c: the verbs of a backup: it is started, asked for, stopped. It runs on whether or not somebody waits for it.
 *
 * "backup wait" answers when the backup has ended, but at the latest after half a second, with how far it is. Thread:
 * the worker's.
 */
#include <tambo/backup.h>

#include "frontends/ctl/verbs.h"

#define WAIT_NS 500000000ull
#define LOOK_NS 50000000ull

struct waiting {
    struct ctl *x;
    struct tb_op op;
    uint64_t began_ns;
};

static json_t *describe(const struct tb_backup_status *s)
{
#define N(field) #field, (json_int_t)s->field
    json_t *o = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "running",
                          s->running, N(run), N(shard), N(shards), N(done_bytes), N(total_bytes), N(copied_bytes),
                          N(kept_bytes), N(copied_files), N(kept_files), N(removed_runs), N(removed_files),
                          N(damaged_segments), N(time_ms));
#undef N
    return o;
}

void ctl_backup_start(struct ctl *x)
{
    struct tb_error err = {0};
    struct tb_slice dest = ctl_text(x, "dest");
    struct tb_backup_options opt = {
        .dest = dest.len ? dest.ptr : "",
        .rate_bytes = (uint64_t)json_integer_value(json_object_get(x->args, "rate")),
        .keep = (uint32_t)json_integer_value(json_object_get(x->args, "keep")),
        .keep_days = (uint32_t)json_integer_value(json_object_get(x->args, "keep_days")),
    };
    enum tb_rc rc;

    if (dest.len == 0 || dest.ptr[0] != '/' || memchr(dest.ptr, 0, dest.len)) {
        ctl_usage(x, "args.dest: an absolute path is needed");
        return;
    }
    rc = tb_backup_start(x->worker, &opt, &err);
    if (rc == TB_OK)
        ctl_ok(x, json_object());
    else
        ctl_fail(x, rc, opt.dest, err.text);
}

static void look(struct tb_op *op)
{
    struct waiting *w = op->user;
    struct ctl *x = w->x;
    struct tb_io *io = tb_worker_io(x->worker);
    struct tb_backup_status s;

    tb_backup_status(tb_worker_store(x->worker), &s);
    if (s.running && tb_io_now_ns(io) - w->began_ns < WAIT_NS) {
        w->op = (struct tb_op){.done = look, .user = w};
        tb_io_timer(io, &w->op, LOOK_NS);
        return;
    }
    if (s.running || s.rc == TB_OK)
        ctl_ok(x, describe(&s));
    else
        ctl_fail(x, s.rc, "backup", s.err.text);
}

void ctl_backup_wait(struct ctl *x)
{
    struct waiting *w = ctl_data(x, sizeof(*w));

    if (!w)
        return;
    w->x = x;
    w->began_ns = tb_io_now_ns(tb_worker_io(x->worker));
    w->op.user = w;
    look(&w->op);
}

void ctl_backup_stop(struct ctl *x)
{
    tb_backup_cancel(tb_worker_store(x->worker));
    ctl_ok(x, json_object());
}
