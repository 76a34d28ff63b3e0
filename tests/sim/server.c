/*
 * server.c: the whole server on a simulated world: server.h.
 *
 * The order of things is the daemon's: io and shards, listeners, nets that know each other, serving; farewell, last
 * checkpoint, closed. A dead server's sockets and operations are gone with the world's ios; LMDB's mappings and
 * descriptors are closed by tb_worker_close, and the rest of its memory is dropped whole (process.h). Thread: one.
 */
#include "server.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tambo/admin.h>
#include "frontends/config/config.h"
#include "frontends/imap/imap.h"
#include "frontends/pop3/pop3.h"
#include "frontends/smtp/smtp.h"
#include "process.h"

#define PATIENCE_TURNS 2000000

void server_folder(char dir[64])
{
    (void)snprintf(dir, 64, "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        exit(1);
    }
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    return at->level == 0 ? 0 : remove(path);
}

void server_folder_empty(const char *dir)
{
    if (nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        perror(dir);
}

void server_folder_remove(const char *dir)
{
    server_folder_empty(dir);
    if (rmdir(dir) != 0)
        perror(dir);
}

/* config: one for the program; nothing of it changes. */
static const struct tb_config *config(void)
{
    static struct tb_config *c;
    struct tb_error err = {0};
    char path[] = "/tmp/tambo-sim-conf-XXXXXX";
    if (c)
        return c;
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f)
        exit(1);
    (void)fprintf(f, "hostname = \"mail.example.test\"\ndefault_domain = \"example.test\"\n");
    (void)fclose(f); /* tb_config_load sees what is missing */
    unsigned was = process_pause();
    if (tb_config_load(path, &c, &err) != TB_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    process_resume(was);
    (void)unlink(path);
    return c;
}

bool server_create(struct server *s)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = s->opt.shards};
    struct tb_io *io = tb_sim_io(s->sim);
    bool made = tb_store_create(io, s->dir, &opt, &err) == TB_OK;
    (void)snprintf(s->why, sizeof(s->why), "%s", err.text);
    tb_io_close(io);
    return made;
}

static void on_failed(void *user, struct tb_worker *w, uint32_t shard, const struct tb_error *err)
{
    struct server *s = user;
    struct tb_net *net = s->net[tb_worker_index(w)];
    s->failures++;
    (void)snprintf(s->why, sizeof(s->why), "%s", err->text);
    if (net)
        tb_net_lost(net, shard);
}

bool server_open(struct server *s)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = s->dir,
                                  .workers = s->opt.workers,
                                  .checkpoint_log_bytes = s->opt.checkpoint_log_bytes,
                                  .checkpoint_ms = s->opt.checkpoint_ms,
                                  .trash_days = s->opt.trash_days,
                                  .scrub_days = s->opt.scrub_days,
                                  .gc_min_dead = s->opt.gc_min_dead,
                                  .gc_rate = s->opt.gc_rate,
                                  .backup_horizon_hours = s->opt.backup_horizon_hours,
                                  .copy_log_bytes = s->opt.copy_log_bytes,
                                  .compact_pages = s->opt.compact_pages,
                                  .failed = on_failed,
                                  .user = s};
    s->store = NULL;
    s->up = false;
    memset(s->w, 0, sizeof(s->w));
    memset(s->net, 0, sizeof(s->net));
    for (unsigned i = 0; i < s->opt.workers; i++)
        s->io[i] = tb_sim_io(s->sim);
    process_enter();
    enum tb_rc rc = tb_store_open(s->io[0], &cfg, &s->store, &err);
    for (unsigned i = 0; rc == TB_OK && i < s->opt.workers; i++)
        rc = tb_worker_open(s->store, i, s->io[i], &s->w[i], &err);
    for (unsigned i = 0; rc == TB_OK && i < s->opt.workers; i++)
        tb_worker_started(s->w[i]);
    process_leave();
    if (rc != TB_OK)
        (void)snprintf(s->why, sizeof(s->why), "%s", err.text);
    s->up = rc == TB_OK;
    return s->up;
}

bool server_listen(struct server *s)
{
    static const struct {
        const struct tb_proto *proto;
        uint16_t port;
    } all[] = {{&tb_imap_proto, PORT_IMAP},
               {&tb_pop3_proto, PORT_POP3},
               {&tb_smtp_proto, PORT_SMTP},
               {&tb_submission_proto, PORT_SUBMISSION},
               {&tb_lmtp_proto, PORT_LMTP}};
    struct tb_error err = {0};
    enum tb_rc rc = TB_OK;
    s->net_config = (struct tb_net_config){.listeners = s->listener,
                                           .listeners_n = TB_ARRAY_LEN(all),
                                           .connections_max = 1000,
                                           .pre_auth_timeout_s = 60,
                                           .user = (void *)(uintptr_t)config()};
    process_enter();
    for (size_t i = 0; i < TB_ARRAY_LEN(all); i++) {
        s->listener[i] = (struct tb_listener){
            .proto = all[i].proto, .address = "127.0.0.1", .port = all[i].port, .tls = TB_TLS_NONE};
        s->listener[i].fd = tb_io_listen(s->io[0], "127.0.0.1", all[i].port);
    }
    for (unsigned i = 0; rc == TB_OK && i < s->opt.workers; i++)
        rc = tb_net_open(s->w[i], &s->net_config, NULL, &s->net[i], &err);
    for (unsigned i = 0; rc == TB_OK && i < s->opt.workers; i++)
        tb_net_peers(s->net[i], s->net, s->opt.workers);
    process_leave();
    if (rc != TB_OK)
        (void)snprintf(s->why, sizeof(s->why), "%s", err.text);
    return rc == TB_OK;
}

unsigned server_turn(struct server *s)
{
    unsigned n = 0, first = (unsigned)tb_sim_choose(s->sim, s->opt.workers);
    process_enter();
    for (unsigned i = 0; i < s->opt.workers; i++)
        n += tb_worker_turn(s->w[(first + i) % s->opt.workers], false);
    process_leave();
    return n;
}

bool server_wait(struct server *s)
{
    uint64_t next = tb_sim_next_ns(s->sim), now = tb_sim_now_ns(s->sim);
    if (next == UINT64_MAX)
        return false;
    if (next > now)
        tb_sim_advance(s->sim, next - now);
    return true;
}

static void on_done(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static bool turn_until(struct server *s, const bool *done)
{
    for (int i = 0; i < PATIENCE_TURNS && !*done; i++)
        if (server_turn(s) == 0 && !server_wait(s))
            break;
    return *done;
}

bool server_account(struct server *s, const char *name)
{
    bool done = false;
    struct tb_op op = {.done = on_done, .user = &done};
    process_enter();
    tb_account_create(s->w[0], tb_slice_str(name), TB_SLICE("{PLAIN}secret"), &op);
    process_leave();
    return turn_until(s, &done) && op.rc == TB_OK;
}

static void close_ios(struct server *s)
{
    for (unsigned i = 0; i < s->opt.workers; i++)
        if (s->io[i]) {
            tb_io_close(s->io[i]);
            s->io[i] = NULL;
        }
}

void server_died(struct server *s)
{
    for (unsigned i = 0; i < s->opt.workers; i++)
        if (s->w[i])
            tb_worker_close(s->w[i]);
    if (s->store)
        tb_store_close(s->store);
    close_ios(s);
    process_died();
    s->store = NULL;
    s->up = false;
}

bool server_stop(struct server *s)
{
    bool done[SERVER_SHARDS] = {0};
    struct tb_op op[SERVER_SHARDS] = {0};
    bool quiet = true;
    for (int step = 0; step < 2 && quiet; step++) {
        for (unsigned i = 0; i < s->opt.workers; i++) {
            done[i] = false;
            op[i] = (struct tb_op){.done = on_done, .user = &done[i]};
            process_enter();
            if (step == 0)
                tb_net_stop(s->net[i], &op[i]);
            else
                tb_worker_stop(s->w[i], &op[i]);
            process_leave();
        }
        for (unsigned i = 0; i < s->opt.workers; i++)
            quiet = turn_until(s, &done[i]) && quiet;
    }
    if (!quiet)
        return false;
    for (unsigned i = 0; i < s->opt.workers; i++)
        tb_net_close(s->net[i]);
    for (size_t i = 0; i < TB_ARRAY_LEN(s->listener); i++)
        (void)tb_io_socket_close(s->io[0], s->listener[i].fd); /* simulated: nothing can be lost */
    server_close(s);
    return true;
}

void server_close(struct server *s)
{
    tb_sim_restart(s->sim); /* an answer from one worker to another may still be under way */
    for (unsigned i = 0; i < s->opt.workers; i++)
        if (s->w[i])
            tb_worker_close(s->w[i]);
    if (s->store)
        tb_store_close(s->store);
    memset(s->w, 0, sizeof(s->w));
    s->store = NULL;
    s->up = false;
    close_ios(s);
    process_died();
}
