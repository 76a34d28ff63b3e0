/*
 * client.c: how a command reaches the store: the daemon's control socket when one listens, else the store itself,
 * opened in this process with one worker. The same requests go both ways and the same code (frontends/ctl) answers
 * them.
 *
 * It must never open a store that a daemon has: the store's own lock says so (exit 75).
 */
#include <errno.h>
#include <stdlib.h>

#include "frontends/ctl/ctl.h"
#include "tools/tambo.h"

enum { ANSWER_MAX = 256 << 20 };

struct client {
    struct tb_config *cfg;
    struct tb_io *io;
    int fd; /* the control socket, or -1 */
    struct tb_store *store;
    struct tb_worker *worker;
    struct tb_buf answer;
    struct tb_op op;
    bool done;
};

static void finished(struct tb_op *op)
{
    struct client *c = op->user;

    c->done = true;
}

/* received: the bytes are only there until this returns. */
static void received(struct tb_op *op)
{
    struct client *c = op->user;

    if (op->result > 0)
        tb_buf_slice(&c->answer, op->data);
    c->done = true;
}

static struct tb_op *begin(struct client *c)
{
    c->done = false;
    c->op = (struct tb_op){.done = finished, .user = c};
    return &c->op;
}

static void wait_done(struct client *c)
{
    while (!c->done)
        (void)(c->worker ? tb_worker_turn(c->worker, true) : tb_io_turn(c->io, true));
}

static bool open_io(struct tool *t, struct client *c)
{
    struct tb_error err = {0};

    if (strcmp(c->cfg->io, "posix") != 0 && tb_io_open(TB_IO_URING, &c->io, &err) == TB_OK)
        return true;
    if (strcmp(c->cfg->io, "uring") != 0 && tb_io_open(TB_IO_POSIX, &c->io, &err) == TB_OK)
        return true;
    tool_fail(t, EX_OSERR, "%s", err.text);
    return false;
}

static bool open_store(struct tool *t, struct client *c)
{
    struct tb_store_config sc = {.dir = c->cfg->store,
                                 .workers = 1,
                                 .checkpoint_ms = c->cfg->checkpoint_ms,
                                 .checkpoint_log_bytes = c->cfg->checkpoint_log_bytes,
                                 .trash_days = c->cfg->trash_days,
                                 .retention_trash_days = c->cfg->retention_trash_days,
                                 .retention_junk_days = c->cfg->retention_junk_days,
                                 .no_dedup = !c->cfg->dedup,
                                 .copy_log_bytes = c->cfg->index_copy_log_bytes,
                                 .copy_hours = c->cfg->index_copy_hours,
                                 .gc_rate = c->cfg->gc_rate,
                                 .gc_min_dead = c->cfg->gc_min_dead,
                                 .backup_horizon_hours = c->cfg->backup_horizon_hours};
    struct tb_error err = {0};
    enum tb_rc rc = tb_store_open(c->io, &sc, &c->store, &err);

    if (rc == TB_OK)
        rc = tb_worker_open(c->store, 0, c->io, &c->worker, &err);
    if (rc == TB_OK) {
        tb_worker_started(c->worker);
        return true;
    }
    tool_fail(t, rc == TB_NOTFOUND ? EX_NOINPUT : rc == TB_BUSY ? EX_TEMPFAIL : EX_IOERR, "%s", err.text);
    return false;
}

/* connect_control: 1 connected, 0 nobody listens, -1 after tool_fail. */
static int connect_control(struct tool *t, struct client *c)
{
    char address[512];

    if (!c->cfg->control[0] || snprintf(address, sizeof(address), "unix:%s", c->cfg->control) >= (int)sizeof(address))
        return 0;
    tb_io_connect(c->io, begin(c), address, 0);
    wait_done(c);
    if (c->op.result >= 0) {
        c->fd = (int)c->op.result;
        return 1;
    }
    if (c->op.result == -ENOENT || c->op.result == -ECONNREFUSED || c->op.result == -ENAMETOOLONG)
        return 0;
    tool_fail(t, c->op.result == -EACCES ? EX_NOPERM : EX_UNAVAILABLE, "%s: %s", c->cfg->control,
              strerror((int)-c->op.result));
    return -1;
}

/* client_open: the daemon's control socket if one listens; else no store is open yet. NULL after tool_fail. */
static struct client *client_open(struct tool *t)
{
    struct client *c = calloc(1, sizeof(*c));

    if (!c) {
        tool_fail(t, EX_OSERR, "out of memory");
        return NULL;
    }
    c->fd = -1;
    tb_buf_init(&c->answer, ANSWER_MAX);
    t->client = c; /* client_close takes apart what there is */
    c->cfg = tool_config(t);
    if (!c->cfg || !open_io(t, c))
        return NULL;
    return connect_control(t, c) < 0 ? NULL : c;
}

struct tb_io *client_offline(struct tool *t, const struct tb_config **cfg)
{
    struct client *c = t->client ? t->client : client_open(t);

    if (!c)
        return NULL;
    if (c->fd >= 0) {
        tool_fail(t, EX_TEMPFAIL, "a daemon has the store open; stop it first");
        return NULL;
    }
    *cfg = c->cfg;
    return c->io;
}

/* ask_daemon: the request out, one line back into c->answer. */
static bool ask_daemon(struct tool *t, struct client *c, struct tb_slice request)
{
    c->answer.len = 0;
    tb_io_send(c->io, begin(c), c->fd, request.ptr, (uint32_t)request.len);
    wait_done(c);
    while (c->op.result > 0 && !c->answer.failed && (c->answer.len == 0 || c->answer.ptr[c->answer.len - 1] != '\n')) {
        begin(c)->done = received;
        tb_io_recv(c->io, &c->op, c->fd);
        wait_done(c);
    }
    if (c->answer.len && c->answer.ptr[c->answer.len - 1] == '\n')
        return true;
    tool_fail(t, EX_UNAVAILABLE, "the daemon hung up before it answered; whether it did the work is not known");
    return false;
}

static void ask_here(struct client *c, struct tb_slice request)
{
    struct tb_ctl_request r = {.op = {.done = finished, .user = c}};

    c->done = false;
    tb_ctl_run(c->worker, c->cfg, request, &r);
    wait_done(c);
    c->answer.len = 0;
    tb_buf_slice(&c->answer, tb_buf_all(&r.reply));
    tb_buf_free(&r.reply);
}

/* take_result: the answer's result, owned, or NULL after tool_fail. */
static json_t *take_result(struct tool *t, struct client *c)
{
    json_t *answer = json_loadb(c->answer.ptr ? c->answer.ptr : "", c->answer.len, JSON_ALLOW_NUL, NULL);
    json_t *result = json_object_get(answer, "result");
    const char *error = json_string_value(json_object_get(answer, "error"));
    json_int_t code = json_integer_value(json_object_get(answer, "exit"));

    if (json_is_true(json_object_get(answer, "ok")) && result)
        json_incref(result);
    else {
        result = NULL;
        tool_fail(t, code > 0 && code < 128 ? (int)code : EX_PROTOCOL, "%s",
                  error ? error : "the answer makes no sense");
    }
    json_decref(answer);
    return result;
}

bool client_open_store(struct tool *t)
{
    struct client *c = t->client ? t->client : client_open(t);

    return c && (c->store || open_store(t, c));
}

json_t *client_call(struct tool *t, const char *verb, json_t *args)
{
    struct client *c = t->client ? t->client : client_open(t);
    json_t *request = c && args ? json_pack("{s:s, s:O}", "verb", verb, "args", args) : NULL;
    json_t *result = NULL;
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    size_t len = text ? strlen(text) : 0;

    json_decref(args);
    json_decref(request);
    if (!c || (c->fd < 0 && !c->store && !open_store(t, c))) {
        free(text);
        return NULL;
    }
    if (!text) {
        tool_fail(t, EX_DATAERR, "the arguments are not UTF-8");
        return NULL;
    }
    text[len] = '\n'; /* in the place of the NUL: the request is a line */
    if (c->fd < 0)
        ask_here(c, tb_slice(text, len + 1));
    if (c->fd < 0 || ask_daemon(t, c, tb_slice(text, len + 1)))
        result = take_result(t, c);
    explicit_bzero(text, len);
    free(text);
    return result;
}

void client_close(struct tool *t)
{
    struct client *c = t->client;

    if (!c)
        return;
    if (c->worker) {
        tb_worker_stop(c->worker, begin(c));
        wait_done(c);
        tb_worker_close(c->worker);
    }
    if (c->store)
        tb_store_close(c->store);
    if (c->fd >= 0)
        tb_io_socket_close(c->io, c->fd);
    if (c->io)
        tb_io_close(c->io);
    tb_buf_free(&c->answer);
    tb_config_free(c->cfg);
    free(c);
    t->client = NULL;
}
