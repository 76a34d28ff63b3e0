/*
 * sim_files.c: the doors for names and files in the simulated world: real calls on the folder, with faults by order and
 * each change of names remembered until it is durable.
 *
 * Paths outside the world's folder are refused, descriptors are never O_DIRECT (alignment is checked in sim_disk.c),
 * and a dead process's calls do nothing. Thread: the world's. Returns as tambo/io.h says.
 */
#include "sim_world.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- the calls ---- */

/* The path below the root, or NULL: outside. */
static const char *inside(struct tb_io *io, const char *path)
{
    struct sim_disk *d = &sim_of(io)->disk;
    size_t n = strlen(d->root);
    if (strncmp(path, d->root, n) != 0 || (path[n] != '/' && path[n] != 0) || strstr(path, "/../"))
        return NULL;
    path += n;
    while (*path == '/')
        path++;
    return path;
}

/* -errno if the call can't be made here, or must fail by order. */
static int begin_call(struct tb_io *io, const char *path, enum tb_sim_kind kind)
{
    if (sim_io_of(io)->dead)
        return -EIO;
    if (path && !inside(io, path))
        return -EACCES;
    return -sim_fault(sim_of(io), kind);
}

static int sim_open(struct tb_io *io, const char *path, unsigned flags)
{
    struct tb_sim *sim = sim_of(io);
    struct sim_disk *d = &sim->disk;
    int rc = begin_call(io, path, TB_SIM_OPEN);
    if (rc < 0)
        return rc;
    bool existed = access(path, F_OK) == 0;
    int fd = tb_real_files.open(io, path, flags & ~(unsigned)TB_OPEN_DIRECT);
    if (fd < 0)
        return fd;
    struct sim_node *n = sim_must(sim_node_of_fd(sim, fd));
    if (!existed)
        sim_add_change(sim, NULL, inside(io, path), n);
    if (d->open_n == d->open_cap) {
        d->open_cap = d->open_cap ? d->open_cap * 2 : 32;
        d->open = sim_realloc(d->open, d->open_cap * sizeof(*d->open));
    }
    d->open[d->open_n++] = (struct sim_open){fd, flags & TB_OPEN_DIRECT};
    return fd;
}

static int sim_close_file(struct tb_io *io, int fd)
{
    struct sim_disk *d = &sim_of(io)->disk;
    if (sim_io_of(io)->dead)
        return 0;
    size_t i = 0;
    while (i < d->open_n && d->open[i].fd != fd)
        i++;
    if (i == d->open_n)
        return -EBADF;
    d->open[i] = d->open[--d->open_n];
    for (struct sim_node *n = d->nodes; n; n = n->next) {
        if (n->lock_fd == fd)
            n->lock_fd = -1;
    }
    return tb_real_files.close(io, fd);
}

static int64_t sim_size(struct tb_io *io, int fd)
{
    return sim_io_of(io)->dead ? -EIO : tb_real_files.size(io, fd);
}

/* Space is short by order only, and reserving it shows nowhere: the real folder, perhaps in memory, is spared. */
static int sim_reserve(struct tb_io *io, int fd, uint64_t bytes)
{
    int rc = begin_call(io, NULL, TB_SIM_RESERVE);
    if (rc == 0 && bytes > INT64_MAX)
        return -EFBIG;
    return rc == 0 && !sim_node_of_fd(sim_of(io), fd) ? -EBADF : rc;
}

static int sim_mkdir(struct tb_io *io, const char *path)
{
    int rc = begin_call(io, path, TB_SIM_NAMES);
    if (rc == 0)
        rc = tb_real_files.mkdir(io, path);
    if (rc == 0)
        sim_add_change(sim_of(io), NULL, inside(io, path), sim_must(sim_node_at(sim_of(io), path)));
    return rc;
}

static int sim_rename(struct tb_io *io, const char *from, const char *to)
{
    int rc = begin_call(io, from, TB_SIM_NAMES);
    if (rc == 0 && !inside(io, to))
        rc = -EACCES;
    if (rc == 0)
        rc = tb_real_files.rename(io, from, to);
    if (rc == 0)
        sim_add_change(sim_of(io), inside(io, from), inside(io, to), sim_must(sim_node_at(sim_of(io), to)));
    return rc;
}

static int sim_unlink(struct tb_io *io, const char *path)
{
    int rc = begin_call(io, path, TB_SIM_NAMES);
    struct sim_node *n = rc == 0 ? sim_node_at(sim_of(io), path) : NULL;
    if (rc == 0)
        rc = tb_real_files.unlink(io, path);
    if (rc == 0)
        sim_add_change(sim_of(io), inside(io, path), NULL, n);
    return rc;
}

static int sim_links(struct tb_io *io, int fd)
{
    return sim_io_of(io)->dead ? -EIO : tb_real_files.links(io, fd);
}

static int sim_sync_dir(struct tb_io *io, const char *path)
{
    struct tb_sim *sim = sim_of(io);
    int rc = begin_call(io, path, TB_SIM_SYNC_DIR);
    struct sim_entries e;
    if (rc < 0)
        return rc;
    rc = sim_read_entries(path, &e);
    if (rc < 0 || sim->lie_sync) {
        sim_free_entries(&e);
        return rc;
    }
    const char *dir = inside(io, path);
    sim_settle_changes(sim, dir);
    struct sim_names *t = &sim->disk.durable;
    for (size_t i = 0; i < t->n;) { /* removed behind our back */
        const char *leaf = strrchr(t->v[i].path, '/');
        leaf = leaf ? leaf + 1 : t->v[i].path;
        if (sim_is_entry(t->v[i].path, dir) && !sim_has_entry(&e, leaf)) {
            char gone[SIM_PATH_BYTES];
            sim_path(gone, "%s", t->v[i].path);
            sim_names_remove_tree(t, gone);
        } else {
            i++;
        }
    }
    for (size_t i = 0; i < e.n; i++) {
        char real[SIM_PATH_BYTES], name[SIM_PATH_BYTES];
        sim_path(name, "%s%s%s", dir, *dir ? "/" : "", e.v[i]);
        sim_real_path(sim, name, real);
        struct sim_node *n = sim_node_at(sim, real);
        if (n)
            sim_names_set(t, name, n);
    }
    sim_free_entries(&e);
    sim_changed(sim);
    return 0;
}

static int sim_list(struct tb_io *io, const char *path, bool (*each)(void *user, const char *name), void *user)
{
    struct sim_entries e;
    int rc = begin_call(io, path, TB_SIM_OPEN);
    if (rc < 0)
        return rc;
    rc = sim_read_entries(path, &e);
    for (size_t i = 0; i < e.n && rc == 0; i++) {
        if (!each(user, e.v[i]))
            break;
    }
    sim_free_entries(&e);
    return rc;
}

static int sim_lock(struct tb_io *io, int fd)
{
    struct sim_node *n = sim_io_of(io)->dead ? NULL : sim_node_of_fd(sim_of(io), fd);
    if (!n)
        return -EBADF;
    if (n->lock_fd >= 0 && n->lock_fd != fd)
        return -EAGAIN;
    n->lock_fd = fd;
    return 0;
}

static int64_t sim_pread(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
    int rc = begin_call(io, NULL, TB_SIM_READ);
    bool is_short = rc == -TB_SIM_SHORT;
    if (rc < 0 && !is_short)
        return rc;
    int64_t got = sim_read(fd, buf, is_short ? len / 2 : len, offset);
    sim_flip(sim_of(io), fd, buf, got, offset);
    return got;
}

static int64_t sim_pwrite(struct tb_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
    int rc = begin_call(io, NULL, TB_SIM_WRITE);
    if (rc == 0 || rc == -TB_SIM_SHORT)
        return sim_write_now(sim_of(io), fd, buf, rc < 0 ? len / 2 : len, offset, false);
    if (!sim_io_of(io)->dead && rc != -ENOSPC)
        sim_write_some(sim_of(io), fd, buf, len, offset);
    return rc;
}

static int sim_sync(struct tb_io *io, int fd)
{
    struct tb_sim *sim = sim_of(io);
    int rc = begin_call(io, NULL, TB_SIM_SYNC);
    if (sim_io_of(io)->dead)
        return rc;
    struct sim_node *n = sim_node_of_fd(sim, fd);
    if (!n)
        return -EBADF;
    struct sim_sync *s = sim_begin_sync(sim, n, NULL);
    if (rc < 0)
        sim_fail_sync(sim, s);
    else
        sim_end_sync(sim, s, !sim->lie_sync);
    sim_changed(sim);
    return rc;
}

static uint32_t sim_block_bytes(struct tb_io *io, const char *path)
{
    (void)path;
    return sim_of(io)->disk.block_bytes;
}

static void sim_forget_file(struct tb_io *io, int fd)
{
    struct sim_node *n = sim_io_of(io)->dead ? NULL : sim_node_of_fd(sim_of(io), fd);
    if (n)
        sim_drop_clean(n);
}

const struct tb_file_calls sim_files = {
    .open = sim_open,
    .close = sim_close_file,
    .size = sim_size,
    .reserve = sim_reserve,
    .mkdir = sim_mkdir,
    .rename = sim_rename,
    .unlink = sim_unlink,
    .links = sim_links,
    .sync_dir = sim_sync_dir,
    .list = sim_list,
    .lock = sim_lock,
    .pread = sim_pread,
    .pwrite = sim_pwrite,
    .sync = sim_sync,
    .block_bytes = sim_block_bytes,
    .forget = sim_forget_file,
};
