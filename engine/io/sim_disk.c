/*
 * sim_disk.c: the simulated disk's files: a real folder as the cached image, and beside it, for each file, the bytes
 * that would be left after a power cut, and the syncs on their way.
 *
 * A durable write makes its own range and the file's size durable when it completes. A datasync makes durable what the
 * file held when it was submitted, so also what others (LMDB) wrote into it by themselves. A failed sync makes some of
 * it durable and marks the rest clean: a later sync does not write it either, as Linux behaves after a failed fsync.
 *
 * Invariants
 * D1 the durable image of a file changes only by completed durable ops and by tb_sim_flip_bit.
 * D2 a sync in flight never brings back bytes older than what became durable after its submit.
 * Files are found by inode, kept alive by hold_fd. Thread: the world's.
 */
#include "sim_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- nodes ---- */

static struct sim_node *find_node(struct tb_sim *sim, const struct stat *st)
{
    for (struct sim_node *n = sim->disk.nodes; n; n = n->next) {
        if (n->ino == st->st_ino && n->dev == st->st_dev)
            return n;
    }
    return NULL;
}

static struct sim_node *add_node(struct tb_sim *sim, const struct stat *st, int hold_fd)
{
    struct sim_node *n = sim_calloc(1, sizeof(*n));
    n->dev = st->st_dev;
    n->ino = st->st_ino;
    n->dir = S_ISDIR(st->st_mode);
    n->hold_fd = hold_fd;
    n->lock_fd = -1;
    n->next = sim->disk.nodes;
    sim->disk.nodes = n;
    return n;
}

/* The node at a real path; made known if it is not; NULL if there is nothing (errno). */
struct sim_node *sim_node_at(struct tb_sim *sim, const char *real)
{
    struct stat st;
    if (lstat(real, &st) < 0)
        return NULL;
    struct sim_node *n = find_node(sim, &st);
    if (n)
        return n;
    int fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd < 0 ? NULL : add_node(sim, &st, fd);
}

struct sim_node *sim_node_of_fd(struct tb_sim *sim, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return NULL;
    struct sim_node *n = find_node(sim, &st);
    if (n)
        return n;
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    int hold = open(link, O_RDONLY | O_CLOEXEC);
    return hold < 0 ? NULL : add_node(sim, &st, hold);
}

static void free_node(struct sim_node *n)
{
    (void)close(n->hold_fd); /* read only */
    sim_image_free(&n->durable);
    sim_image_free(&n->lost);
    free(n);
}

size_t sim_cached_size(const struct sim_node *n)
{
    struct stat st;
    return fstat(n->hold_fd, &st) < 0 || st.st_size < 0 ? 0 : (size_t)st.st_size;
}

/* What there is counts as durable. */
int sim_adopt(struct tb_sim *sim)
{
    int rc = sim_walk(sim, &sim->disk.durable);
    for (struct sim_node *n = sim->disk.nodes; n; n = n->next) {
        if (!n->dir)
            sim_image_load(&n->durable, n->hold_fd);
    }
    return rc;
}

void sim_forget_nodes(struct tb_sim *sim)
{
    while (sim->disk.syncs)
        sim_end_sync(sim, sim->disk.syncs, false);
    for (struct sim_change *c; (c = sim->disk.changes) != NULL;) {
        sim->disk.changes = c->next;
        sim_free_change(c);
    }
    for (struct sim_node *n; (n = sim->disk.nodes) != NULL;) {
        sim->disk.nodes = n->next;
        free_node(n);
    }
    sim_names_free(&sim->disk.durable);
    sim->disk.last_node = NULL;
}

/* ---- syncs ---- */

static bool is_clean_by_lie(const struct sim_node *n, const char *sector, size_t offset, size_t len)
{
    return n->lost.len > 0 && offset + len <= n->lost.len && sim_image_is(&n->lost, offset, sector, len);
}

/* The sectors of a block that a sync would write: those that differ and that the kernel does not think clean. */
static bool copy_block(const struct sim_node *n, const char *cached, size_t size, size_t at, char *out)
{
    bool any = false;
    const char *durable = sim_image_block(&n->durable, at / SIM_BLOCK);
    memset(out, 0, SIM_BLOCK);
    for (size_t o = 0; o < SIM_BLOCK && at + o < size; o += SIM_SECTOR) {
        size_t len = size - at - o < SIM_SECTOR ? size - at - o : SIM_SECTOR;
        bool take = memcmp(durable + o, cached + o, len) != 0 && !is_clean_by_lie(n, cached + o, at + o, len);
        memcpy(out + o, (take ? cached : durable) + o, len);
        any |= take;
    }
    return any;
}

/* A sync in flight would write this block, so what it will find there is not what is durable now. */
static bool is_awaited(const struct tb_sim *sim, const struct sim_node *n, uint64_t block)
{
    for (const struct sim_sync *s = sim->disk.syncs; s; s = s->next) {
        size_t lo = 0, hi = s->node == n ? s->n : 0;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (s->block[mid] == block)
                return true;
            if (s->block[mid] < block)
                lo = mid + 1;
            else
                hi = mid;
        }
    }
    return false;
}

/* One more block for the sync, unless it would change nothing. */
static void add_block(struct sim_sync *s, const char *cached, size_t at, bool awaited)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        s->block = sim_realloc(s->block, s->cap * sizeof(*s->block));
        s->bytes = sim_realloc(s->bytes, s->cap * SIM_BLOCK);
    }
    if (copy_block(s->node, cached, s->size, at, s->bytes + s->n * SIM_BLOCK) || awaited)
        s->block[s->n++] = at / SIM_BLOCK;
}

struct sim_sync *sim_begin_sync(struct tb_sim *sim, struct sim_node *n, struct tb_op *op)
{
    struct sim_sync *s = sim_calloc(1, sizeof(*s));
    s->op = op;
    s->node = n;
    s->size = sim_cached_size(n);
    size_t from = 0, to = 0; /* the data next to `at` */
    char block[SIM_BLOCK];
    for (size_t at = 0; at < s->size; at += SIM_BLOCK) {
        size_t len = s->size - at < SIM_BLOCK ? s->size - at : SIM_BLOCK;
        if (at >= to)
            from = sim_data_from(n->hold_fd, at, s->size, &to);
        bool hole = at + len <= from, awaited = is_awaited(sim, n, at / SIM_BLOCK);
        if (hole && !awaited && !sim_image_has(&n->durable, at / SIM_BLOCK))
            continue;
        memset(block, 0, sizeof(block));
        if (!hole)
            TB_ASSERT(tb_real_read(n->hold_fd, block, len, at) == (int64_t)len);
        if (awaited || !sim_image_is(&n->durable, at, block, len))
            add_block(s, block, at, awaited);
    }
    s->next = sim->disk.syncs;
    sim->disk.syncs = s;
    return s;
}

/* What just became durable is newer than what these syncs (older ones, or all) hold of it: D2. */
static void patch_syncs(struct sim_sync *first, const struct sim_node *n, const char *bytes, size_t offset, size_t len)
{
    for (struct sim_sync *s = first; s; s = s->next) {
        if (s->node != n)
            continue;
        if (s->size < offset + len)
            s->size = offset + len;
        for (size_t i = 0; i < s->n; i++) {
            size_t at = s->block[i] * SIM_BLOCK, from = at > offset ? at : offset;
            size_t to = at + SIM_BLOCK < offset + len ? at + SIM_BLOCK : offset + len;
            if (from < to)
                memcpy(s->bytes + i * SIM_BLOCK + (from - at), bytes + (from - offset), to - from);
        }
    }
}

void sim_end_sync(struct tb_sim *sim, struct sim_sync *s, bool apply)
{
    struct sim_node *n = s->node;
    if (apply) {
        sim_image_resize(&n->durable, s->size);
        for (size_t i = 0; i < s->n; i++) {
            size_t at = s->block[i] * SIM_BLOCK;
            size_t len = at >= s->size ? 0 : s->size - at < SIM_BLOCK ? s->size - at : SIM_BLOCK;
            sim_image_put(&n->durable, at, s->bytes + i * SIM_BLOCK, len);
            patch_syncs(s->next, n, s->bytes + i * SIM_BLOCK, at, len);
        }
    }
    struct sim_sync **at = &sim->disk.syncs;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s->block);
    free(s->bytes);
    free(s);
}

/* Some of it is written, the rest is dropped and counts as clean from now on. */
void sim_fail_sync(struct tb_sim *sim, struct sim_sync *s)
{
    struct sim_node *n = s->node;
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (!sim_chance(sim, 50))
            continue;
        s->block[kept] = s->block[i];
        memmove(s->bytes + kept++ * SIM_BLOCK, s->bytes + i * SIM_BLOCK, SIM_BLOCK);
    }
    s->n = kept;
    sim_image_load(&n->lost, n->hold_fd);
    sim_end_sync(sim, s, true);
}

/* The page cache lets go of what it thinks clean: what a failed sync lost is then seen to be lost. */
void sim_drop_clean(struct sim_node *n)
{
    char path[64], sector[SIM_SECTOR];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", n->hold_fd);
    int fd = n->lost.len > 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;
    size_t size = fd >= 0 ? sim_cached_size(n) : 0, len;
    for (size_t o = 0; o < size; o += len) {
        len = size - o < SIM_SECTOR ? size - o : SIM_SECTOR;
        if (o % SIM_BLOCK == 0 && !sim_image_has(&n->lost, o / SIM_BLOCK) &&
            !sim_image_has(&n->durable, o / SIM_BLOCK)) {
            len = size - o < SIM_BLOCK ? size - o : SIM_BLOCK;
            continue; /* zeros then, and zeros on the disk */
        }
        TB_ASSERT(tb_real_read(fd, sector, len, o) == (int64_t)len);
        if (!is_clean_by_lie(n, sector, o, len) || sim_image_is(&n->durable, o, sector, len))
            continue;
        sim_image_get(&n->durable, o, sector, len);
        (void)tb_real_write(fd, sector, len, o, false); /* a test's folder: it can be written */
    }
    if (fd >= 0)
        (void)close(fd); /* a test's file */
    sim_image_free(&n->lost);
}

/* What is written again is dirty again, even with the same bytes: a later sync writes it. */
static void not_lost(struct sim_node *n, size_t offset, size_t len)
{
    for (size_t o = offset / SIM_SECTOR * SIM_SECTOR; o < offset + len && o < n->lost.len; o += SIM_SECTOR) {
        char differs, first;
        TB_ASSERT(tb_real_read(n->hold_fd, &first, 1, o) == 1);
        differs = (char)~first;
        sim_image_put(&n->lost, o, &differs, 1);
    }
}

static struct sim_sync *sync_of(struct tb_sim *sim, const struct tb_op *op)
{
    struct sim_sync *s = sim->disk.syncs;
    while (s && s->op != op)
        s = s->next;
    return s;
}

/* ---- writes ---- */

/* The range as the cached image has it now becomes durable. */
static void make_durable(struct tb_sim *sim, struct sim_node *n, size_t offset, size_t len)
{
    size_t size = sim_cached_size(n);
    if (offset >= size || len == 0)
        return;
    len = len < size - offset ? len : size - offset;
    char *bytes = sim_malloc(len);
    TB_ASSERT(tb_real_read(n->hold_fd, bytes, len, offset) == (int64_t)len);
    sim_image_put(&n->durable, offset, bytes, len);
    patch_syncs(sim->disk.syncs, n, bytes, offset, len);
    free(bytes);
}

/* A failed or cancelled write leaves some of its sectors behind. */
void sim_write_some(struct tb_sim *sim, int fd, const char *buf, size_t len, uint64_t offset)
{
    unsigned percent = (unsigned)tb_sim_choose(sim, 101);
    for (size_t o = 0; o < len;) {
        size_t part = SIM_SECTOR - (offset + o) % SIM_SECTOR;
        part = part < len - o ? part : len - o;
        if (sim_chance(sim, percent))
            (void)tb_real_write(fd, buf + o, part, offset + o, false); /* fails or not: the caller is told it failed */
        o += part;
    }
}

static void remember_last(struct tb_sim *sim, struct sim_node *n, uint64_t offset, uint64_t len)
{
    sim->disk.last_node = n;
    sim->disk.last_offset = offset;
    sim->disk.last_len = len;
}

/* A run of zeros becomes a hole: the folder may be in memory. */
static int64_t write_zeros(int fd, size_t len, uint64_t offset)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (offset < (uint64_t)st.st_size &&
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0)
        return -errno;
    if (offset + len > (uint64_t)st.st_size && ftruncate(fd, (off_t)(offset + len)) < 0)
        return -errno;
    return (int64_t)len;
}

static int64_t write_sparse(int fd, const char *buf, size_t len, uint64_t offset)
{
    enum { RUN = 64 << 10 };
    static const char zeros[RUN];
    int64_t put = 0;
    if (len <= RUN)
        return tb_real_write(fd, buf, len, offset, false);
    for (size_t o = 0; o < len; o += (size_t)put) {
        size_t part = len - o < RUN ? len - o : RUN;
        put = memcmp(buf + o, zeros, part) == 0 ? write_zeros(fd, part, offset + o) : -EOPNOTSUPP;
        if (put < 0)
            put = tb_real_write(fd, buf + o, part, offset + o, false);
        if (put < 0)
            return put;
    }
    return (int64_t)len;
}

int64_t sim_write_now(struct tb_sim *sim, int fd, const void *buf, size_t len, uint64_t offset, bool durable)
{
    struct sim_node *n = sim_node_of_fd(sim, fd);
    if (!n)
        return -EBADF;
    int64_t put = write_sparse(fd, buf, len, offset);
    if (put > 0)
        not_lost(n, offset, (size_t)put);
    if (put > 0 && durable)
        make_durable(sim, n, offset, (size_t)put);
    else if (put > 0)
        remember_last(sim, n, offset, (uint64_t)put);
    sim_changed(sim);
    return put;
}

/* ---- ops ---- */

static bool is_direct(struct tb_sim *sim, int fd)
{
    for (size_t i = 0; i < sim->disk.open_n; i++) {
        if (sim->disk.open[i].fd == fd)
            return sim->disk.open[i].direct;
    }
    return false;
}

static bool misaligned(struct tb_sim *sim, const struct tb_op *op)
{
    return ((uintptr_t)op->buf | op->len | op->offset) % SIM_BLOCK != 0 && is_direct(sim, op->fd);
}

void sim_disk_submit(struct tb_sim *sim, struct tb_op *op)
{
    struct sim_node *n = sim_node_of_fd(sim, op->fd);
    if (!n || (op->kind != TB_OP_DATASYNC && misaligned(sim, op))) {
        tb_ready_push(op->io, op, n ? -EINVAL : -EBADF);
        return;
    }
    if (op->kind == TB_OP_DATASYNC)
        (void)sim_begin_sync(sim, n, op); /* the world's list has it */
    sim_schedule(op);
    if (op->kind == TB_OP_WRITE)
        sim_changed(sim);
}

/* A call that moves only part of its bytes, and says so. */
static size_t short_of(size_t len)
{
    return len > SIM_SECTOR ? len / 2 / SIM_SECTOR * SIM_SECTOR : len / 2;
}

static unsigned complete_write(struct tb_sim *sim, struct tb_op *op)
{
    int error = 0;
    if (op->result == 0)
        error = sim_fault(sim, op->flags & TB_OPF_DURABLE ? TB_SIM_DURABLE : TB_SIM_WRITE);
    char *buf = (char *)op->buf + op->result;
    uint64_t offset = op->offset + (uint64_t)op->result;
    size_t left = op->len - (size_t)op->result;
    if (error == TB_SIM_SHORT)
        return sim_finish(op, sim_write_now(sim, op->fd, buf, short_of(left), offset, false));
    if (error) {
        if (error != ENOSPC)
            sim_write_some(sim, op->fd, buf, left, offset);
        return sim_finish(op, -error);
    }
    size_t part = left;
    if (sim->split && left > SIM_SECTOR && sim_chance(sim, 50))
        part = SIM_SECTOR * (1 + tb_sim_choose(sim, (left - 1) / SIM_SECTOR));
    int64_t put = sim_write_now(sim, op->fd, buf, part, offset, false);
    if (put < 0)
        return sim_finish(op, put);
    op->result += put;
    if (op->result < (int64_t)op->len) {
        sim_schedule(op);
        return 0;
    }
    struct sim_node *n = op->flags & TB_OPF_DURABLE && !sim->lie_durable ? sim_node_of_fd(sim, op->fd) : NULL;
    if (n)
        make_durable(sim, n, op->offset, op->len);
    sim_changed(sim);
    return sim_finish(op, op->result);
}

unsigned sim_disk_complete(struct tb_sim *sim, struct tb_op *op)
{
    if (op->kind == TB_OP_WRITE)
        return complete_write(sim, op);
    int error = sim_fault(sim, op->kind == TB_OP_READ ? TB_SIM_READ : TB_SIM_SYNC);
    if (op->kind == TB_OP_READ) {
        size_t len = error == TB_SIM_SHORT ? short_of(op->len) : op->len;
        int64_t got = error && error != TB_SIM_SHORT ? -error : sim_read(op->fd, op->buf, len, op->offset);
        sim_flip(sim, op->fd, op->buf, got, op->offset);
        return sim_finish(op, got);
    }
    struct sim_sync *s = sync_of(sim, op);
    if (error)
        sim_fail_sync(sim, s);
    else
        sim_end_sync(sim, s, !sim->lie_sync);
    sim_changed(sim);
    return sim_finish(op, -error);
}

void sim_disk_drop(struct tb_sim *sim, struct tb_op *op)
{
    bool happens = sim_chance(sim, 50);
    if (op->kind == TB_OP_DATASYNC)
        sim_end_sync(sim, sync_of(sim, op), happens && !sim->lie_sync);
    else if (op->kind == TB_OP_WRITE && happens)
        (void)sim_write_now(sim, op->fd, op->buf, op->len, op->offset,
                            op->flags & TB_OPF_DURABLE && !sim->lie_durable); /* nobody is told either way */
}

bool tb_sim_foreign_write(struct tb_sim *sim, int fd, const void *buf, size_t len, uint64_t offset, int64_t *result)
{
    struct stat st;
    struct sim_node *n = fstat(fd, &st) == 0 ? find_node(sim, &st) : NULL;
    if (!n)
        return false;
    int error = sim_fault(sim, TB_SIM_WRITE);
    if (error == TB_SIM_SHORT)
        len = short_of(len);
    *result = error && error != TB_SIM_SHORT ? -error : sim_write_now(sim, fd, buf, len, offset, false);
    if (error && error != TB_SIM_SHORT && error != ENOSPC)
        sim_write_some(sim, fd, buf, len, offset);
    return true;
}

/* ---- the world's side ---- */

bool sim_disk_init(struct tb_sim *sim, const char *root)
{
    sim->disk.block_bytes = SIM_SECTOR;
    char *real = realpath(root, NULL);
    if (!real)
        return false;
    free(real);
    sim->disk.root = sim_strdup(root);
    for (size_t n = strlen(root); n > 1 && sim->disk.root[n - 1] == '/'; n--)
        sim->disk.root[n - 1] = 0;
    return *root == '/' && sim_adopt(sim) == 0;
}

void sim_disk_close_all(struct tb_sim *sim)
{
    for (size_t i = 0; i < sim->disk.open_n; i++)
        (void)close(sim->disk.open[i].fd); /* the process is dead */
    sim->disk.open_n = 0;
    for (struct sim_node *n = sim->disk.nodes; n; n = n->next)
        n->lock_fd = -1;
}

void sim_disk_free(struct tb_sim *sim)
{
    sim_forget_nodes(sim);
    free(sim->disk.open);
    free(sim->disk.root);
}

int tb_sim_flip_bit(struct tb_sim *sim, const char *path, uint64_t offset, unsigned bit)
{
    struct sim_node *n = sim_node_at(sim, path);
    if (!n)
        return -errno;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    char c = 0;
    int64_t rc = tb_real_read(fd, &c, 1, offset);
    c = (char)(c ^ (1 << (bit & 7)));
    if (rc == 1)
        rc = tb_real_write(fd, &c, 1, offset, false);
    else if (rc == 0)
        rc = -ERANGE;
    (void)close(fd); /* a test's file */
    if (rc > 0 && offset < n->durable.len) {
        sim_image_get(&n->durable, offset, &c, 1);
        c = (char)(c ^ (1 << (bit & 7)));
        sim_image_put(&n->durable, offset, &c, 1);
    }
    return rc < 0 ? (int)rc : 0;
}

int tb_sim_rot_below(struct tb_sim *sim, const char *path, uint64_t offset, unsigned bit)
{
    struct sim_node *n = sim_node_at(sim, path);
    char c;
    if (!n)
        return -errno;
    if (offset >= n->durable.len)
        return -ERANGE;
    if (n->lost.len == 0)
        sim_image_load(&n->lost, n->hold_fd);
    sim_image_get(&n->durable, offset, &c, 1);
    c = (char)(c ^ (1 << (bit & 7)));
    sim_image_put(&n->durable, offset, &c, 1);
    return 0;
}

bool tb_sim_is_durable(struct tb_sim *sim, const char *path, uint64_t offset, uint64_t len)
{
    size_t root = strlen(sim->disk.root);
    struct sim_node *n = sim_node_at(sim, path);
    if (!n || strncmp(path, sim->disk.root, root) != 0 || path[root] != '/')
        return false;
    const char *name = path + root + 1;
    if (sim_names_get(&sim->disk.durable, name) != n)
        return false;
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        char dir[SIM_PATH_BYTES];
        sim_path(dir, "%.*s", (int)(slash - name), name);
        if (!sim_names_get(&sim->disk.durable, dir))
            return false;
    }
    size_t size = sim_cached_size(n);
    if (len > n->durable.len || offset > n->durable.len - len || len > size || offset > size - len)
        return false;
    char *cached = sim_malloc(len + 1);
    bool same = tb_real_read(n->hold_fd, cached, len, offset) == (int64_t)len &&
                sim_image_is(&n->durable, offset, cached, len);
    free(cached);
    return same;
}

void tb_sim_block_bytes(struct tb_sim *sim, uint32_t bytes)
{
    sim->disk.block_bytes = bytes;
}
