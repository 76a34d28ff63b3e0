/*
 * world.c: a server, an index and files in memory for the fuzz targets: world.h. Thread: one.
 */
#include "world.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tambo/admin.h>
#include "frontends/config/config.h"
#include "frontends/ctl/ctl.h"
#include "frontends/imap/imap.h"
#include "frontends/net/net.h"
#include "frontends/pop3/pop3.h"
#include "frontends/smtp/smtp.h"

enum { USES_MAX = 400, QUIET_TURNS = 30, TURNS_MAX = 4000, STEP_NS = 200000, GREETING_NS = 50000000 };

static struct fuzz_world *world;
static struct tb_net *net;
static struct tb_net_config net_config;
static struct tb_listener listeners[6];
static struct tb_config *config;
static char own_dir[64]; /* of this process, in memory; removed at exit */
static unsigned uses;

/* ---- folders ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_all(const char *dir)
{
    if (nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        perror(dir);
}

static void at_end(void)
{
    remove_all(own_dir);
}

static const char *dir_of_process(void)
{
    if (own_dir[0] != '\0')
        return own_dir;
    (void)snprintf(own_dir, sizeof(own_dir), "%s/tambo-fuzz-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    TB_ASSERT(mkdtemp(own_dir) != NULL);
    (void)atexit(at_end);
    tb_log_level(TB_LOG_ERROR);
    return own_dir;
}

const char *fuzz_file(struct tb_slice bytes)
{
    static char path[96];
    (void)snprintf(path, sizeof(path), "%s/file", dir_of_process());
    FILE *f = fopen(path, "w");
    TB_ASSERT(f != NULL && fwrite(bytes.ptr != NULL ? bytes.ptr : "", 1, bytes.len, f) == bytes.len && fclose(f) == 0);
    return path;
}

/* ---- input ---- */

uint64_t fuzz_number(struct fuzz_in *in, unsigned bytes)
{
    uint64_t v = 0;
    for (; bytes > 0; bytes--) {
        v = v << 8 | (in->n > 0 ? *in->p : 0);
        in->p += in->n > 0;
        in->n -= in->n > 0;
    }
    return v;
}

struct tb_slice fuzz_piece(struct fuzz_in *in, size_t max)
{
    size_t n = fuzz_number(in, 2) % (max + 1);
    n = n < in->n ? n : in->n;
    struct tb_slice s = tb_slice(in->p, n);
    in->p += n;
    in->n -= n;
    return s;
}

/* ---- an index ---- */

struct tb_index *fuzz_index(void)
{
    struct tb_error err = {0};
    struct tb_index *ix;
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/index.mdb", dir_of_process());
    (void)remove(path); /* the last one's */
    TB_ASSERT(tb_index_open(path, true, &ix, &err) == TB_OK && tb_index_begin(ix) == TB_OK);
    return ix;
}

void fuzz_index_close(struct tb_index *ix)
{
    tb_index_close(ix);
}

/* ---- a server ---- */

void fuzz_turn(struct fuzz_world *x)
{
    for (unsigned quiet = 0, turns = 0; quiet < QUIET_TURNS && turns < TURNS_MAX; turns++) {
        if (tb_worker_turn(x->w, false) > 0) {
            quiet = 0;
            continue;
        }
        quiet++;
        tb_sim_advance(x->sim, STEP_NS);
    }
}

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static struct tb_account_id account(struct fuzz_world *x, const char *name)
{
    bool flag = false;
    struct tb_identity id;
    struct tb_op op = {.done = done_flag, .user = &flag};
    tb_account_create(x->w, tb_slice_str(name), TB_SLICE("{PLAIN}secret"), &op);
    fuzz_turn(x);
    TB_ASSERT(flag && op.rc == TB_OK && tb_directory_find(x->store, tb_slice_str(name), &id) == TB_OK);
    return id.id;
}

static void listen_all(struct fuzz_world *x, struct tb_io *io)
{
    static const struct {
        const struct tb_proto *proto;
        uint16_t port;
    } all[] = {{&tb_lmtp_proto, PORT_LMTP}, {&tb_smtp_proto, PORT_SMTP}, {&tb_pop3_proto, PORT_POP3},
               {&tb_imap_proto, PORT_IMAP}, {&tb_ctl_proto, PORT_CTL},   {&tb_submission_proto, PORT_SUBMISSION}};
    struct tb_error err = {0};
    if (config == NULL)
        TB_ASSERT(tb_config_load(fuzz_file(TB_SLICE("hostname = \"mail.example.test\"\n")), &config, &err) == TB_OK);
    net_config = (struct tb_net_config){.listeners = listeners,
                                        .listeners_n = TB_ARRAY_LEN(all),
                                        .connections_max = 100,
                                        .pre_auth_timeout_s = 60,
                                        .user = config};
    for (size_t i = 0; i < TB_ARRAY_LEN(all); i++)
        listeners[i] = (struct tb_listener){.proto = all[i].proto,
                                            .address = "127.0.0.1",
                                            .port = all[i].port,
                                            .fd = tb_io_listen(io, "127.0.0.1", all[i].port)};
    TB_ASSERT(tb_net_open(x->w, &net_config, NULL, &net, &err) == TB_OK);
    tb_net_peers(net, &net, 1);
}

static void some_mail(void)
{
    static const char mail[] = "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<ann>\r\nRCPT TO:<bob>\r\nDATA\r\nFrom: a@b\r\n"
                               "Subject: =?utf-8?Q?gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n"
                               "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n"
                               "Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n..two\r\n--x--\r\n.\r\n";
    struct tb_buf out;
    for (int i = 0; i < 3; i++) {
        fuzz_talk(PORT_LMTP, TB_SLICE(""), tb_slice(mail, sizeof(mail) - 1), sizeof(mail), &out);
        TB_ASSERT(memmem(out.ptr, out.len, "\r\n250 2.1.5", 11) != NULL || memmem(out.ptr, out.len, "250", 3) != NULL);
        tb_buf_free(&out);
    }
}

static struct fuzz_world *world_new(void)
{
    struct fuzz_world *x = calloc(1, sizeof(*x));
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = 2};
    TB_ASSERT(x != NULL);
    (void)snprintf(x->dir, sizeof(x->dir), "%s/world", dir_of_process());
    TB_ASSERT(mkdir(x->dir, 0700) == 0);
    struct tb_store_config cfg = {.dir = x->dir, .workers = 1, .trash_days = 1};
    x->sim = tb_sim_new(1, x->dir);
    TB_ASSERT(x->sim != NULL);
    tb_sim_latency(x->sim, 1000, 2000);
    struct tb_io *io = tb_sim_io(x->sim);
    TB_ASSERT(tb_store_create(io, x->dir, &opt, &err) == TB_OK);
    TB_ASSERT(tb_store_open(io, &cfg, &x->store, &err) == TB_OK);
    TB_ASSERT(tb_worker_open(x->store, 0, io, &x->w, &err) == TB_OK);
    tb_worker_started(x->w);
    x->ann = account(x, "ann");
    (void)account(x, "bob");
    listen_all(x, io);
    return x;
}

static void stop_world(struct fuzz_world *x)
{
    bool net_done = false, done = false;
    struct tb_op net_op = {.done = done_flag, .user = &net_done}, op = {.done = done_flag, .user = &done};
    tb_net_stop(net, &net_op);
    for (int i = 0; i < 100 && !net_done; i++)
        fuzz_turn(x);
    TB_ASSERT(net_done);
    tb_net_close(net);
    net = NULL;
    tb_worker_stop(x->w, &op);
    for (int i = 0; i < 100 && !done; i++)
        fuzz_turn(x);
    TB_ASSERT(done);
    tb_worker_close(x->w);
    tb_store_close(x->store);
    tb_sim_free(x->sim);
    remove_all(x->dir);
    free(x);
}

struct fuzz_world *fuzz_world(void)
{
    if (world != NULL && uses++ < USES_MAX)
        return world;
    if (world != NULL)
        stop_world(world);
    world = NULL;
    uses = 0;
    world = world_new();
    some_mail();
    return world;
}

static void hear(struct fuzz_world *x, int client, struct tb_buf *out)
{
    char some[16384];
    int64_t n;
    while ((n = tb_sim_client_recv(x->sim, client, some, sizeof(some))) > 0)
        tb_buf_put(out, some, (size_t)n);
}

/* greeting: whoever speaks before it is turned away, and it may be late. */
static void greeting(struct fuzz_world *x, int client, uint16_t port, struct tb_buf *out)
{
    fuzz_turn(x);
    hear(x, client, out);
    for (int i = 0; i < 200 && out->len == 0 && port != PORT_CTL; i++) {
        tb_sim_advance(x->sim, GREETING_NS);
        fuzz_turn(x);
        hear(x, client, out);
    }
}

void fuzz_talk(uint16_t port, struct tb_slice before, struct tb_slice bytes, size_t piece, struct tb_buf *out)
{
    struct fuzz_world *x = world != NULL ? world : fuzz_world();
    struct tb_slice part[] = {before, bytes};
    tb_buf_init(out, 8 << 20);
    int client = tb_sim_connect(x->sim, "127.0.0.1", port);
    TB_ASSERT(client >= 0);
    greeting(x, client, port, out);
    for (size_t i = 0; i < TB_ARRAY_LEN(part); i++)
        for (size_t at = 0, n = i == 0 || piece == 0 ? SIZE_MAX / 2 : piece; at < part[i].len; at += n) {
            struct tb_slice s = tb_slice_sub(part[i], at, n);
            if (tb_sim_client_send(x->sim, client, s.ptr, s.len) < 0)
                break;
            fuzz_turn(x);
            hear(x, client, out);
            if (part[i].len / n > 64 && at > 64 * n)
                n = SIZE_MAX / 2; /* enough small pieces */
        }
    fuzz_turn(x);
    hear(x, client, out);
    tb_sim_client_close(x->sim, client, false);
    for (int i = 0; i < 50 && tb_net_connections(net) > 0; i++)
        fuzz_turn(x);
    TB_ASSERT(tb_net_connections(net) == 0);
}

void fuzz_lines(struct tb_buf *out)
{
    TB_ASSERT(out->len == 0 || memchr(out->ptr, '\0', out->len) == NULL);
    for (size_t i = 0; i < out->len; i++)
        if (out->ptr[i] == '\n')
            TB_ASSERT(i > 0 && out->ptr[i - 1] == '\r');
    tb_buf_free(out);
}
