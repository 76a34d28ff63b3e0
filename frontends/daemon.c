/*
 * daemon.c: tambod's threads and their life: store, workers, listeners, reload, stop.
 *
 * It must never accept a connection before every shard is open. When a shard fails closed, its sessions end and the
 * store rebuilds it; the others go on.
 *
 * Threads: main runs every function here but those named on_*, which run on the workers. Main asks all workers for one
 * step at a time (run_all) and waits until each has arrived, so the order is: io and shards, listeners, serving,
 * farewell, last checkpoint, closed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "engine/crypto/crypto.h"
#include "frontends/auth/auth.h"
#include "frontends/ctl/ctl.h"
#include "frontends/daemon.h"
#include "frontends/imap/imap.h"
#include "frontends/pop3/pop3.h"
#include "frontends/smtp/smtp.h"

enum { STOP_SECONDS = 30, PEM_BYTES_MAX = 1 << 20 };

struct thread {
    struct daemon *d;
    uint32_t index;
    pthread_t id;
    bool running, leave;
    struct tb_io *io;
    struct tb_worker *worker;
    struct tb_net *net;
    struct tb_op step;  /* main's request */
    struct tb_op inner; /* what the request waits for */
    enum tb_rc rc;
    struct tb_error err;
};

struct daemon {
    const struct tb_config *cfg; /* borrowed */
    enum tb_io_kind kind;
    struct tb_io *io; /* main's own, for files and listeners */
    struct tb_store *store;
    struct tb_tls_context *tls; /* owned reference; NULL: no TLS */
    struct tb_net_config net;
    struct tb_net **nets; /* index = worker */
    struct thread *threads;
    uint32_t n;
    pthread_barrier_t together;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t arrived; /* under lock: workers that have finished the present step */
};

/* ---- on the workers ---- */

static void arrive(struct thread *t, enum tb_rc rc)
{
    t->rc = rc;
    pthread_mutex_lock(&t->d->lock);
    t->d->arrived++;
    pthread_cond_signal(&t->d->changed);
    pthread_mutex_unlock(&t->d->lock);
}

static void on_failed(void *user, struct tb_worker *w, uint32_t shard, const struct tb_error *err)
{
    struct daemon *d = user;
    struct tb_net *net = d->nets[tb_worker_index(w)];
    (void)err; /* logged */
    if (net)
        tb_net_lost(net, shard);
}

static void on_inner(struct tb_op *op)
{
    arrive(op->user, TB_OK);
}

/* on_listen: the nets know each other before any of them handles a connection: no loop turns until all are open. */
static void on_listen(struct tb_op *op)
{
    struct thread *t = op->user;
    struct daemon *d = t->d;
    enum tb_rc rc;

    tb_worker_started(t->worker);
    rc = tb_net_open(t->worker, &d->net, d->tls, &t->net, &t->err);

    d->nets[t->index] = rc == TB_OK ? t->net : NULL;
    pthread_barrier_wait(&d->together);
    if (rc == TB_OK)
        tb_net_peers(t->net, d->nets, d->n);
    arrive(t, rc);
}

static void on_tls(struct tb_op *op)
{
    struct thread *t = op->user;

    tb_net_tls_set(t->net, t->d->tls);
    arrive(t, TB_OK);
}

static void on_farewell(struct tb_op *op)
{
    struct thread *t = op->user;

    t->inner = (struct tb_op){.done = on_inner, .user = t};
    tb_net_stop(t->net, &t->inner);
}

static void on_last_checkpoint(struct tb_op *op)
{
    struct thread *t = op->user;

    t->inner = (struct tb_op){.done = on_inner, .user = t};
    tb_worker_stop(t->worker, &t->inner);
}

static void on_leave(struct tb_op *op)
{
    struct thread *t = op->user;

    t->leave = true;
    arrive(t, TB_OK);
}

static void *on_thread(void *arg)
{
    struct thread *t = arg;
    struct daemon *d = t->d;
    enum tb_rc rc = tb_io_open(d->kind, &t->io, &t->err);

    if (rc == TB_OK)
        rc = tb_worker_open(d->store, t->index, t->io, &t->worker, &t->err);
    arrive(t, rc);
    while (rc == TB_OK && !t->leave)
        (void)tb_worker_turn(t->worker, true);
    if (t->net)
        tb_net_close(t->net);
    if (t->worker)
        tb_worker_close(t->worker);
    pthread_barrier_wait(&d->together); /* nobody posts to a ring that is gone */
    if (t->io && rc == TB_OK)
        tb_io_close(t->io);
    return NULL;
}

/* ---- main ---- */

/* wait_all: until every worker has arrived, or seconds have passed (0: without limit). */
static bool wait_all(struct daemon *d, unsigned seconds)
{
    struct timespec until;
    int err = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += seconds;
    pthread_mutex_lock(&d->lock);
    while (d->arrived < d->n && err == 0)
        err = seconds ? pthread_cond_timedwait(&d->changed, &d->lock, &until)
                      : pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    return err == 0;
}

static bool run_all(struct daemon *d, void (*step)(struct tb_op *op), unsigned seconds)
{
    pthread_mutex_lock(&d->lock);
    d->arrived = 0;
    pthread_mutex_unlock(&d->lock);
    for (uint32_t i = 0; i < d->n; i++) {
        struct thread *t = &d->threads[i];
        t->step = (struct tb_op){.done = step, .user = t};
        tb_io_post(NULL, t->io, &t->step);
    }
    return wait_all(d, seconds);
}

/* first_error: the first worker whose step failed, or NULL. */
static struct thread *first_error(struct daemon *d)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->threads[i].rc != TB_OK)
            return &d->threads[i];
    return NULL;
}

static bool open_io(struct daemon *d, struct tb_error *err)
{
    bool only_uring = strcmp(d->cfg->io, "uring") == 0;

    d->kind = TB_IO_POSIX;
    if (strcmp(d->cfg->io, "posix") != 0) {
        d->kind = TB_IO_URING;
        if (tb_io_open(TB_IO_URING, &d->io, err) == TB_OK)
            return true;
        if (only_uring)
            return false;
        tb_log(TB_LOG_WARN, "io_uring is not available here, using plain system calls: %s", err->text);
        d->kind = TB_IO_POSIX;
    }
    return tb_io_open(TB_IO_POSIX, &d->io, err) == TB_OK;
}

/* read_file: a small file whole; false with err. */
static bool read_file(struct tb_io *io, const char *path, struct tb_buf *out, struct tb_error *err)
{
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    int64_t n = fd < 0 ? fd : tb_io_file_size(io, fd);
    char *room = NULL;

    if (n >= 0 && (room = tb_buf_reserve(out, (size_t)n + 1)))
        n = tb_io_pread(io, fd, room, (size_t)n, 0);
    if (n >= 0 && room)
        out->len += (size_t)n;
    if (fd >= 0)
        tb_io_file_close(io, fd);
    if (n >= 0 && room)
        return true;
    tb_error_set(err, TB_INVALID, n < 0 ? (int)-n : EFBIG, "%s: cannot be read", path);
    return false;
}

/* load_tls: the context of the configured files; *out NULL when there are none. */
static bool load_tls(struct tb_io *io, const struct tb_config *cfg, struct tb_tls_context **out, struct tb_error *err)
{
    struct tb_buf certificate, key;
    struct tb_error why = {0};
    bool ok;

    *out = NULL;
    if (!cfg->tls_certificate[0])
        return true;
    tb_buf_init(&certificate, PEM_BYTES_MAX);
    tb_buf_init(&key, PEM_BYTES_MAX);
    ok = read_file(io, cfg->tls_certificate, &certificate, err) && read_file(io, cfg->tls_key, &key, err);
    if (ok && tb_tls_context_load(tb_buf_all(&certificate), tb_buf_all(&key), out, &why) != TB_OK) {
        tb_error_set(err, TB_INVALID, 0, "%s: %.150s", cfg->tls_certificate, why.text);
        ok = false;
    }
    if (ok && cfg->tls_client_ca[0]) {
        certificate.len = 0;
        ok = read_file(io, cfg->tls_client_ca, &certificate, err);
        if (ok && tb_tls_context_clients(*out, tb_buf_all(&certificate), &why) != TB_OK) {
            tb_error_set(err, TB_INVALID, 0, "%.150s: %.60s", cfg->tls_client_ca, why.text);
            ok = false;
        }
        if (!ok)
            tb_tls_context_unref(*out);
    }
    if (key.ptr)
        explicit_bzero(key.ptr, key.cap);
    tb_buf_free(&key);
    tb_buf_free(&certificate);
    return ok;
}

/* load_keys: those that tokens are signed with, as they are in the file now. */
static bool load_keys(struct tb_io *io, const struct tb_config *cfg, struct tb_error *err)
{
    struct tb_error why = {0};
    struct tb_buf json;
    bool ok;

    if (!cfg->oauth_jwks[0])
        return true;
    if (!cfg->oauth_issuer[0] || !cfg->oauth_audience[0]) {
        tb_error_set(err, TB_INVALID, 0, "%.100s: oauth_jwks needs oauth_issuer and oauth_audience", cfg->path);
        return false;
    }
    tb_buf_init(&json, PEM_BYTES_MAX);
    ok = read_file(io, cfg->oauth_jwks, &json, err);
    if (ok && tb_oauth_keys(tb_buf_all(&json), &why) != TB_OK) {
        tb_error_set(err, TB_INVALID, 0, "%.100s: %.100s", cfg->oauth_jwks, why.text);
        ok = false;
    }
    tb_buf_free(&json);
    return ok;
}

bool daemon_check(const struct tb_config *cfg, struct tb_error *err)
{
    struct tb_tls_context *tls = NULL;
    struct tb_io *io = NULL;
    bool ok = tb_io_open(TB_IO_POSIX, &io, err) == TB_OK && load_tls(io, cfg, &tls, err) && load_keys(io, cfg, err);

    if (tls)
        tb_tls_context_unref(tls);
    if (io)
        tb_io_close(io);
    return ok;
}

void daemon_log_level(const struct tb_config *cfg)
{
    static const char *const names[] = {
        [TB_LOG_ERROR] = "error", [TB_LOG_WARN] = "warn", [TB_LOG_INFO] = "info", [TB_LOG_DEBUG] = "debug"};

    for (int i = TB_LOG_ERROR; i <= TB_LOG_DEBUG; i++)
        if (strcmp(names[i], cfg->log_level) == 0)
            tb_log_level((enum tb_level)i);
}

static const struct tb_proto *proto_of(const char *name)
{
    static const struct tb_proto *const all[] = {&tb_imap_proto, &tb_pop3_proto, &tb_smtp_proto, &tb_submission_proto,
                                                 &tb_lmtp_proto};

    for (size_t i = 0; i < TB_ARRAY_LEN(all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

static void on_waited(struct tb_op *op)
{
    *(bool *)op->user = true;
}

/*
 * listen_patiently: an address that is in use is tried again for two seconds: the kernel lets go of a killed process's
 * io_uring, and so of its listening sockets, a moment after the process is gone.
 */
static int listen_patiently(struct tb_io *io, const char *address, uint16_t port)
{
    enum { TRIES = 40, EVERY_MS = 50 };
    int fd = tb_io_listen(io, address, port);

    for (int i = 0; i < TRIES && fd == -EADDRINUSE; i++) {
        bool waited = false;
        struct tb_op op = {.done = on_waited, .user = &waited};

        tb_io_timer(io, &op, EVERY_MS * 1000000ull);
        while (!waited)
            tb_io_turn(io, true);
        fd = tb_io_listen(io, address, port);
    }
    return fd;
}

/*
 * listen_one: open one address. What this machine cannot have is left out with a warning: IPv6 without IPv6, a UNIX
 * socket whose path is too long. False with err and exit code.
 */
static bool listen_one(struct daemon *d, struct tb_listener l, int line, int *code, struct tb_error *err)
{
    static const enum tb_listen_tls words[] = {
        [TB_TLS_NONE] = TB_LISTEN_PLAIN, [TB_TLS_STARTTLS] = TB_LISTEN_STARTTLS, [TB_TLS_IMPLICIT] = TB_LISTEN_TLS};
    bool is_unix = strncmp(l.address, "unix:", 5) == 0;
    mode_t mask = umask(l.proto == &tb_ctl_proto ? 0177 : 0111); /* a mail socket is as open as a loopback port */

    l.fd = listen_patiently(d->io, l.address, l.port);
    umask(mask);
    if ((l.fd == -EADDRNOTAVAIL || l.fd == -EAFNOSUPPORT) && !is_unix && strchr(l.address, ':')) {
        tb_log(TB_LOG_WARN, "not listening, there is no IPv6 here proto=%s address=%s port=%u", l.proto->name,
               l.address, l.port);
        return true;
    }
    if (l.fd == -ENAMETOOLONG && is_unix) {
        tb_log(TB_LOG_WARN, "not listening, the path is too long for a socket proto=%s address=%s", l.proto->name,
               l.address);
        return true;
    }
    if (l.fd < 0) {
        *code = l.fd == -EACCES ? EX_NOPERM : EX_UNAVAILABLE;
        tb_error_set(err, TB_IO, -l.fd, "%s:%d: cannot listen on %s port %u", d->cfg->path, line, l.address, l.port);
        return false;
    }
    d->net.listeners[d->net.listeners_n++] = l;
    tb_log(TB_LOG_INFO, "listening proto=%s address=%s port=%u tls=%s", l.proto->name, l.address,
           is_unix ? 0 : tb_io_local_port(d->io, l.fd), tb_config_tls_word(words[l.tls]));
    return true;
}

static bool open_listeners(struct daemon *d, int *code, struct tb_error *err)
{
    static const enum tb_tls_mode modes[] = {
        [TB_LISTEN_PLAIN] = TB_TLS_NONE, [TB_LISTEN_STARTTLS] = TB_TLS_STARTTLS, [TB_LISTEN_TLS] = TB_TLS_IMPLICIT};
    const struct tb_config *cfg = d->cfg;
    char *control = NULL;

    d->net = (struct tb_net_config){
        .connections_max = cfg->connections_max, .pre_auth_timeout_s = cfg->pre_auth_s, .user = (void *)(uintptr_t)cfg};
    d->net.listeners = calloc(cfg->listen_n + 1, sizeof(*d->net.listeners));
    if (!d->net.listeners || asprintf(&control, "unix:%s", cfg->control) < 0) {
        tb_error_set(err, TB_LIMIT, 0, "out of memory");
        return false;
    }
    for (size_t i = 0; i < cfg->listen_n; i++) {
        const struct tb_config_listen *in = &cfg->listen[i];
        struct tb_listener l = {
            .proto = proto_of(in->protocol), .address = in->address, .port = in->port, .tls = modes[in->tls]};
        if (!listen_one(d, l, in->line, code, err)) {
            free(control);
            return false;
        }
    }
    if (!cfg->control[0]) {
        free(control);
        return true;
    }
    /* the listener borrows the text until the process ends */
    return listen_one(d, (struct tb_listener){.proto = &tb_ctl_proto, .address = control, .tls = TB_TLS_NONE}, 0, code,
                      err);
}

static bool open_store(struct daemon *d, int *code, struct tb_error *err)
{
    const struct tb_config *cfg = d->cfg;
    char mark[1100];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct tb_store_config sc = {.dir = cfg->store,
                                 .workers = cfg->workers ? cfg->workers
                                            : cores > 0  ? (uint32_t)cores
                                                         : 1,
                                 .checkpoint_log_bytes = cfg->checkpoint_log_bytes,
                                 .checkpoint_ms = cfg->checkpoint_ms,
                                 .trash_days = cfg->trash_days,
                                 .retention_trash_days = cfg->retention_trash_days,
                                 .retention_junk_days = cfg->retention_junk_days,
                                 .copy_log_bytes = cfg->index_copy_log_bytes,
                                 .copy_hours = cfg->index_copy_hours,
                                 .serve_rest = true,
                                 .no_dedup = !cfg->dedup,
                                 .gc_rate = cfg->gc_rate,
                                 .gc_min_dead = cfg->gc_min_dead,
                                 .backup_horizon_hours = cfg->backup_horizon_hours,
                                 .scrub_days = cfg->scrub_days,
                                 .failed = on_failed,
                                 .user = d,
                                 .counted = tb_secret_other};
    enum tb_rc rc;

    (void)snprintf(mark, sizeof(mark), "%s/" TB_CRASHED, cfg->store);
    rc = tb_store_open(d->io, &sc, &d->store, err);
    if (rc == TB_OK)
        tb_io_crash_mark(mark); /* the lock is ours: so is what a crash of ours may have harmed */
    *code = rc == TB_NOTFOUND ? EX_NOINPUT : rc == TB_BUSY ? EX_TEMPFAIL : EX_IOERR;
    if (rc != TB_OK)
        return false;
    d->n = tb_store_workers(d->store);
    d->threads = calloc(d->n, sizeof(*d->threads));
    d->nets = calloc(d->n, sizeof(struct tb_net *));
    if (d->threads && d->nets && pthread_barrier_init(&d->together, NULL, d->n) == 0)
        return true;
    tb_error_set(err, TB_LIMIT, 0, "out of memory");
    return false;
}

/* start_threads: every worker's io and shards; replay happens here. */
static bool start_threads(struct daemon *d, struct tb_error *err)
{
    pthread_condattr_t monotonic;
    struct thread *bad;

    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &monotonic);
    for (uint32_t i = 0; i < d->n; i++) {
        struct thread *t = &d->threads[i];
        *t = (struct thread){.d = d, .index = i};
        if (pthread_create(&t->id, NULL, on_thread, t) != 0) {
            tb_error_set(err, TB_LIMIT, errno, "a worker thread cannot be started");
            return false;
        }
        t->running = true;
    }
    (void)wait_all(d, 0); /* without a limit it cannot time out */
    bad = first_error(d);
    if (bad)
        *err = bad->err;
    return !bad;
}

bool daemon_start(const struct tb_config *cfg, struct daemon **out, int *exit_code, struct tb_error *err)
{
    struct daemon *d = calloc(1, sizeof(*d));
    struct thread *bad;

    *out = d;
    *exit_code = EX_OSERR;
    if (!d) {
        tb_error_set(err, TB_LIMIT, 0, "out of memory");
        return false;
    }
    d->cfg = cfg;
    if (!open_io(d, err) || !load_tls(d->io, cfg, &d->tls, err) || !open_store(d, exit_code, err))
        return false; /* the process ends now: nothing is taken apart */
    *exit_code = EX_IOERR;
    if (!start_threads(d, err)) {
        if (err->rc == TB_CORRUPT)
            *exit_code = EX_DATAERR; /* trying again changes nothing: the unit does not */
        return false;
    }
    *exit_code = EX_UNAVAILABLE;
    if (!open_listeners(d, exit_code, err))
        return false;
    (void)run_all(d, on_listen, 0); /* without a limit it cannot time out */
    bad = first_error(d);
    if (bad) {
        *err = bad->err;
        return false;
    }
    tb_log(TB_LOG_INFO, "ready version=%s io=%s workers=%u shards=%u listeners=%zu store=%s pid=%d", TB_VERSION,
           tb_io_name(d->io), d->n, tb_store_shards(d->store), d->net.listeners_n, cfg->store, (int)getpid());
    return true;
}

static void log_change(void *user, const struct tb_config_item *item)
{
    (void)user;
    if (item->restart)
        tb_log(TB_LOG_WARN, "changed, needs a restart key=%s value=\"%s\"", item->key, item->value);
    else
        tb_log(TB_LOG_INFO, "changed key=%s value=\"%s\"", item->key, item->value);
}

bool daemon_reload(struct daemon *d, const struct tb_config *fresh, struct tb_error *err)
{
    struct tb_tls_context *old = d->tls, *tls;

    if (!load_keys(d->io, d->cfg, err) || !load_tls(d->io, fresh, &tls, err))
        return false;
    tb_config_changes(d->cfg, fresh, log_change, NULL);
    daemon_log_level(fresh);
    if (!tls)
        return true; /* listeners with TLS go on with the certificate they have */
    d->tls = tls;
    (void)run_all(d, on_tls, 0); /* without a limit it cannot time out */
    if (old)
        tb_tls_context_unref(old);
    return true;
}

bool daemon_stop(struct daemon *d)
{
    if (!run_all(d, on_farewell, STOP_SECONDS) || !run_all(d, on_last_checkpoint, STOP_SECONDS) ||
        !run_all(d, on_leave, STOP_SECONDS)) {
        tb_log(TB_LOG_ERROR, "stopping took longer than %d seconds; the next start recovers", STOP_SECONDS);
        _exit(EX_TEMPFAIL); /* threads still run: nothing may be taken apart under them */
    }
    for (uint32_t i = 0; i < d->n; i++)
        pthread_join(d->threads[i].id, NULL);
    for (size_t i = 0; i < d->net.listeners_n; i++) {
        const struct tb_listener *l = &d->net.listeners[i];
        tb_io_socket_close(d->io, l->fd);
        if (strncmp(l->address, "unix:", 5) == 0)
            (void)tb_io_unlink(d->io, l->address + 5); /* gone already: fine */
        if (l->proto == &tb_ctl_proto)
            free((void *)(uintptr_t)l->address);
    }
    tb_store_close(d->store);
    if (d->tls)
        tb_tls_context_unref(d->tls);
    tb_io_close(d->io);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    pthread_barrier_destroy(&d->together);
    free(d->net.listeners);
    free(d->nets);
    free(d->threads);
    free(d);
    return true;
}
