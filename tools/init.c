/*
 * init.c: tambo init: a folder with a configuration, a self-signed certificate and an empty store, ready for tambod.
 *
 * It must never touch what is there: anything of ours in the folder already ends it (73). The configuration is written
 * last, so that a folder with a tambo.conf is a whole one.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/crypto/crypto.h"
#include "tools/tambo.h"
#include <tambo/store.h>

struct plan {
    const char *dir;
    char hostname[256];
    uint64_t port_offset, shards, segment_bytes;
    struct tb_io *io;
};

static bool hostname_good(const char *name)
{
    size_t len = strlen(name);

    return len > 0 && len <= 253 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == len;
}

static bool segment_good(const char *text, uint64_t *bytes)
{
    size_t len = strlen(text);
    bool mib = len > 1 && text[len - 1] == 'M';

    if (!tb_slice_u64(tb_slice(text, mib ? len - 1 : len), UINT32_MAX, bytes))
        return false;
    if (mib)
        *bytes <<= 20;
    return *bytes >= 4u << 20 && *bytes <= 256u << 20 && (*bytes & (*bytes - 1)) == 0;
}

/* plan_read: the options into p; false after tool_fail. */
static bool plan_read(struct tool *t, struct plan *p)
{
    *p = (struct plan){.dir = t->args[0], .port_offset = 10000};
    if (t->hostname && strlen(t->hostname) < sizeof(p->hostname))
        memcpy(p->hostname, t->hostname, strlen(t->hostname) + 1);
    else if (!t->hostname && (gethostname(p->hostname, sizeof(p->hostname) - 1) != 0 || !hostname_good(p->hostname)))
        memcpy(p->hostname, "localhost", sizeof("localhost"));
    if (!hostname_good(p->hostname))
        tool_fail(t, EX_USAGE, "--hostname: letters, digits, dots and hyphens are needed");
    else if (t->port_offset && !tb_slice_u64(tb_slice_str(t->port_offset), 65535 - 995, &p->port_offset))
        tool_fail(t, EX_USAGE, "--port-offset: a number up to %d is needed", 65535 - 995);
    else if (t->shards && (!tb_slice_u64(tb_slice_str(t->shards), 256, &p->shards) || p->shards == 0))
        tool_fail(t, EX_USAGE, "--shards: a number from 1 to 256 is needed");
    else if (t->segment_size && !segment_good(t->segment_size, &p->segment_bytes))
        tool_fail(t, EX_USAGE, "--segment-size: a power of two from 4M to 256M is needed");
    return t->exit == EX_OK;
}

struct found {
    const char *name;
    bool any;
};

static bool find_ours(void *user, const char *name)
{
    struct found *f = user;
    static const char *const ours[] = {"tambo.conf", "tls.crt", "tls.key", "store"};

    for (size_t i = 0; i < TB_ARRAY_LEN(ours) && !f->any; i++) {
        if (strcmp(name, ours[i]) == 0) {
            f->name = ours[i];
            f->any = true;
        }
    }
    return !f->any;
}

/* claim_dir: make the folder, or see that nothing of ours is in it; false after tool_fail. */
static bool claim_dir(struct tool *t, const struct plan *p)
{
    struct found f = {0};
    int rc = tb_io_mkdir(p->io, p->dir);

    if (rc < 0 && rc != -EEXIST) {
        tool_fail(t, EX_CANTCREAT, "%s: %s", p->dir, strerror(-rc));
        return false;
    }
    rc = tb_io_list(p->io, p->dir, find_ours, &f);
    if (rc < 0) {
        tool_fail(t, EX_CANTCREAT, "%s: %s", p->dir, strerror(-rc));
        return false;
    }
    if (f.any) {
        tool_fail(t, EX_CANTCREAT, "%s/%s is there already, nothing was touched; give another folder", p->dir, f.name);
        return false;
    }
    return true;
}

/* write_file: a new file, durable; false after tool_fail. */
static bool write_file(struct tool *t, const struct plan *p, const char *name, struct tb_slice bytes)
{
    char path[4096];
    int64_t rc = -ENAMETOOLONG;
    int fd = -1;

    if (snprintf(path, sizeof(path), "%s/%s", p->dir, name) < (int)sizeof(path))
        rc = fd = tb_io_file_open(p->io, path, TB_OPEN_WRITE | TB_OPEN_CREATE | TB_OPEN_EXCL);
    if (fd >= 0)
        rc = tb_io_pwrite(p->io, fd, bytes.ptr, bytes.len, 0);
    if (rc >= 0)
        rc = (size_t)rc == bytes.len ? tb_io_sync(p->io, fd) : -ENOSPC;
    if (fd >= 0)
        tb_io_file_close(p->io, fd);
    if (rc >= 0)
        rc = tb_io_sync_dir(p->io, p->dir);
    if (rc >= 0)
        return true;
    tool_fail(t, EX_CANTCREAT, "%s/%s: %s", p->dir, name, strerror((int)-rc));
    return false;
}

static bool make_certificate(struct tool *t, const struct plan *p)
{
    struct tb_buf certificate, key;
    bool ok;

    tb_buf_init(&certificate, 64 << 10);
    tb_buf_init(&key, 64 << 10);
    ok = tb_tls_selfsigned(p->hostname, tb_io_wall_s(p->io), &certificate, &key) == TB_OK;
    if (!ok)
        tool_fail(t, EX_SOFTWARE, "no certificate could be made for %s", p->hostname);
    ok = ok && write_file(t, p, "tls.crt", tb_buf_all(&certificate)) && write_file(t, p, "tls.key", tb_buf_all(&key));
    if (key.ptr)
        explicit_bzero(key.ptr, key.cap);
    tb_buf_free(&key);
    tb_buf_free(&certificate);
    return ok;
}

static bool make_store(struct tool *t, const struct plan *p)
{
    struct tb_store_options options = {.segment_bytes = p->segment_bytes, .shards = (uint32_t)p->shards};
    struct tb_error err = {0};
    char path[4096];
    enum tb_rc rc;

    snprintf(path, sizeof(path), "%s/store", p->dir);
    rc = tb_store_create(p->io, path, &options, &err);
    if (rc != TB_OK)
        tool_fail(t, rc == TB_EXISTS ? EX_CANTCREAT : EX_IOERR, "%s", err.text);
    return rc == TB_OK;
}

static bool make_config(struct tool *t, const struct plan *p)
{
    struct tb_buf text;
    bool ok;

    tb_buf_init(&text, 1 << 20);
    tb_config_write_default(p->dir, p->hostname, (uint32_t)p->port_offset, &text);
    ok = !text.failed && write_file(t, p, "tambo.conf", tb_buf_all(&text));
    tb_buf_free(&text);
    return ok;
}

/* make_postmaster: RFC 5321 4.5.1: mail for postmaster is taken. The account has no login until a password is set. */
static bool make_postmaster(struct tool *t, const struct plan *p)
{
    const char *conf = t->conf;
    char path[4096];
    json_t *result;
    bool ok;

    snprintf(path, sizeof(path), "%s/tambo.conf", p->dir);
    t->conf = path;
    result = client_call(t, "account import", json_pack("{s:[s]}", "lines", "postmaster:"));
    client_close(t);
    t->conf = conf;
    ok = result != NULL;
    json_decref(result);
    return ok;
}

void init_dir(struct tool *t)
{
    struct tb_error err = {0};
    struct plan p;
    bool ok;

    if (!plan_read(t, &p))
        return;
    if (tb_io_open(TB_IO_POSIX, &p.io, &err) != TB_OK) {
        tool_fail(t, EX_OSERR, "%s", err.text);
        return;
    }
    ok = claim_dir(t, &p) && make_certificate(t, &p) && make_store(t, &p) && make_config(t, &p);
    tb_io_close(p.io);
    if (!ok || !make_postmaster(t, &p))
        return;
    if (t->json) {
        json_t *result = json_pack("{s:s, s:s, s:I}", "dir", p.dir, "hostname", p.hostname, "port_offset",
                                   (json_int_t)p.port_offset);
        print_json(result);
        json_decref(result);
        return;
    }
    printf("%s holds a configuration, a self-signed certificate for %s and a store with the account postmaster.\n"
           "Next:\n"
           "  tambo -c %s/tambo.conf account add NAME --password-stdin\n"
           "  tambod -c %s/tambo.conf\n",
           p.dir, p.hostname, p.dir, p.dir);
}
