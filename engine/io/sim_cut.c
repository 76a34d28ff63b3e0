/*
 * sim_cut.c: the power cut: what a machine could find on its disk afterwards, by mode and seed, put in the folder's
 * place.
 *
 * Each file becomes its durable image plus, sector by sector, what the cached image or a write in flight had more; the
 * names become the durable ones plus some of the changes since. Every file is made anew, so that a descriptor or a
 * mapping of the dead process neither sees nor changes what the next one finds. Thread: the world's.
 */
#include "sim_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the cut ---- */

/* A file as it may be found afterwards. */
struct image {
    char *bytes; /* owned */
    size_t len, cap;
};

static void image_resize(struct image *m, size_t len)
{
    if (len > m->cap) {
        m->cap = m->cap * 2 > len ? m->cap * 2 : len;
        m->bytes = sim_must(realloc(m->bytes, m->cap));
    }
    if (len > m->len)
        memset(m->bytes + m->len, 0, len - m->len);
    m->len = len;
}

/* Which sectors of a write in flight reach the image. */
struct tear {
    enum tb_sim_cut mode;
    unsigned percent;
    const struct tb_op *last; /* TORN: this one only in part */
};

static void cut_write(struct tb_sim *sim, struct image *m, const struct tb_op *op, const struct tear *t)
{
    bool all = t->mode == TB_SIM_CUT_ALL || (t->mode == TB_SIM_CUT_TORN && op != t->last);
    bool prefix = !all && sim_chance(sim, 50);
    for (size_t o = 0; o < op->len;) {
        size_t at = (size_t)op->offset + o, part = SIM_SECTOR - at % SIM_SECTOR;
        part = part < op->len - o ? part : op->len - o;
        bool hit = all || sim_chance(sim, t->percent);
        if (hit)
            image_resize(m, m->len > at + part ? m->len : at + part);
        TB_ASSERT(!hit || m->bytes != NULL);
        if (hit && t->mode == TB_SIM_CUT_TRASH && sim_chance(sim, 25))
            sim_noise(sim, m->bytes + at, part);
        else if (hit)
            memcpy(m->bytes + at, (const char *)op->buf + o, part);
        if (!hit && prefix)
            break; /* the write ended there */
        o += part;
    }
}

static int by_submission(const void *a, const void *b)
{
    const struct tb_timer *x = a, *y = b;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The writes in flight, of all ios, oldest first within each. */
static size_t writes_in_flight(struct tb_sim *sim, struct tb_timer **out)
{
    size_t n = 0, cap = 1;
    for (struct sim_io *s = sim->ios; s; s = s->next)
        cap += s->base.timers.n;
    struct tb_timer *v = sim_must(calloc(cap, sizeof(*v)));
    for (struct sim_io *s = sim->ios; s; s = s->next) {
        size_t first = n;
        for (uint32_t i = 0; i < s->base.timers.n; i++) {
            if (s->base.timers.v[i].op->kind == TB_OP_WRITE)
                v[n++] = s->base.timers.v[i];
        }
        qsort(v + first, n - first, sizeof(*v), by_submission);
    }
    *out = v;
    return n;
}

static size_t sector_bytes(size_t size, size_t at)
{
    return at >= size ? 0 : size - at < SIM_SECTOR ? size - at : SIM_SECTOR;
}

static bool is_durable_sector(const struct image *m, const struct sim_node *n, size_t at)
{
    size_t len = sector_bytes(m->len, at);
    return sector_bytes(n->len, at) >= len && memcmp(m->bytes + at, n->durable + at, len) == 0;
}

/* The sector becomes what the durable image has there; zeros behind its end. */
static void revert_sector(struct image *m, const struct sim_node *n, size_t at)
{
    size_t len = sector_bytes(m->len, at), have = sector_bytes(n->len, at);
    have = have < len ? have : len;
    memset(m->bytes + at + have, 0, len - have);
    if (have > 0)
        memcpy(m->bytes + at, n->durable + at, have);
}

/* The last finished write that was not durable loses some sectors to the durable image. */
static void tear_last(struct tb_sim *sim, struct image *m, const struct sim_node *n)
{
    uint64_t end = sim->disk.last_offset + sim->disk.last_len;
    for (size_t at = sim->disk.last_offset / SIM_SECTOR * SIM_SECTOR; at < end && at < m->len; at += SIM_SECTOR) {
        if (sim_chance(sim, 50))
            revert_sector(m, n, at);
    }
}

/* Sector by sector: what the cached image has, or what is durable. */
static void choose_sectors(struct tb_sim *sim, struct image *m, const struct sim_node *n)
{
    unsigned percent = (unsigned[]){5, 50, 95}[tb_sim_choose(sim, 3)];
    size_t size = m->len;
    if (size > n->len) {
        size_t more = (size - n->len + SIM_SECTOR - 1) / SIM_SECTOR;
        size_t kept = sim_chance(sim, 50) ? tb_sim_choose(sim, 2) * more : tb_sim_choose(sim, more + 1);
        size = n->len + kept * SIM_SECTOR < size ? n->len + kept * SIM_SECTOR : size;
    } else if (sim_chance(sim, 50)) {
        size = n->len; /* it had been cut short, and that is lost */
    }
    image_resize(m, size);
    for (size_t at = 0; at < size; at += SIM_SECTOR) {
        if (!is_durable_sector(m, n, at) && !sim_chance(sim, percent))
            revert_sector(m, n, at);
    }
}

static struct image cut_file(struct tb_sim *sim, struct sim_node *n, enum tb_sim_cut mode)
{
    struct image m = {0};
    if (mode == TB_SIM_CUT_NONE) {
        image_resize(&m, n->len);
        if (n->len)
            memcpy(m.bytes, n->durable, n->len);
        return m;
    }
    image_resize(&m, sim_cached_size(n));
    if (m.len)
        TB_ASSERT(tb_real_read(n->hold_fd, m.bytes, m.len, 0) == (int64_t)m.len);
    struct tb_timer *v;
    size_t writes = writes_in_flight(sim, &v);
    struct tear t = {mode, (unsigned)tb_sim_choose(sim, 101), writes ? v[writes - 1].op : NULL};
    for (size_t i = 0; i < writes; i++) {
        if (sim_node_of_fd(sim, v[i].op->fd) == n)
            cut_write(sim, &m, v[i].op, &t);
    }
    free(v);
    if (mode == TB_SIM_CUT_TORN && !t.last && sim->disk.last_node == n)
        tear_last(sim, &m, n);
    if (mode == TB_SIM_CUT_RANDOM || mode == TB_SIM_CUT_TRASH)
        choose_sectors(sim, &m, n);
    return m;
}

/* The names that are found afterwards. */
static int cut_names(struct tb_sim *sim, enum tb_sim_cut mode, struct sim_names *out)
{
    struct sim_names cached = {0};
    int rc = sim_walk(sim, &cached);
    if (mode == TB_SIM_CUT_ALL || mode == TB_SIM_CUT_TORN) {
        *out = cached;
        return rc;
    }
    *out = sim_names_copy(&sim->disk.durable);
    if (mode != TB_SIM_CUT_NONE) {
        struct sim_names told = sim_names_copy(&sim->disk.durable); /* what our own calls account for */
        for (struct sim_change *c = sim->disk.changes; c; c = c->next) {
            sim_apply_change(&told, c);
            if (sim_chance(sim, 50))
                sim_apply_change(out, c);
        }
        for (size_t i = 0; i < cached.n; i++) { /* made behind our back */
            if (!sim_names_get(&told, cached.v[i].path) && sim_chance(sim, 50))
                sim_names_set(out, cached.v[i].path, cached.v[i].node);
        }
        for (size_t i = 0; i < told.n; i++) { /* removed behind our back */
            if (!sim_names_get(&cached, told.v[i].path) && sim_chance(sim, 50))
                sim_names_remove_tree(out, told.v[i].path);
        }
        sim_names_free(&told);
    }
    sim_names_free(&cached);
    return rc;
}

/* Nothing can be found in a folder that is not there. */
static bool has_parent(const struct sim_names *t, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return true;
    char parent[SIM_PATH_BYTES];
    sim_path(parent, "%.*s", (int)(slash - path), path);
    struct sim_node *n = sim_names_get(t, parent);
    return n && n->dir;
}

static void prune(struct sim_names *t)
{
    for (size_t i = 0; i < t->n;) { /* sorted: a folder stands before what is in it */
        if (has_parent(t, t->v[i].path))
            i++;
        else
            sim_names_remove_at(t, i);
    }
}

static int write_image(const char *real, const struct image *m)
{
    int fd = open(real, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int64_t rc = ftruncate(fd, (off_t)m->len) < 0 ? -errno : 0;
    static const char zero[SIM_BLOCK];
    for (size_t at = 0; at < m->len && rc >= 0; at += SIM_BLOCK) {
        size_t len = m->len - at < SIM_BLOCK ? m->len - at : SIM_BLOCK;
        if (memcmp(m->bytes + at, zero, len) != 0)
            rc = tb_real_write(fd, m->bytes + at, len, at, false);
    }
    (void)close(fd); /* a test's folder */
    return rc < 0 ? (int)rc : 0;
}

/* Take away everything under the root, the deepest first. */
static int wipe(struct tb_sim *sim)
{
    struct sim_names all = {0};
    int rc = sim_walk(sim, &all);
    for (size_t i = all.n; i-- > 0 && rc == 0;) {
        char real[SIM_PATH_BYTES];
        sim_real_path(sim, all.v[i].path, real);
        rc = (all.v[i].node->dir ? rmdir(real) : unlink(real)) < 0 ? -errno : 0;
    }
    sim_names_free(&all);
    return rc;
}

int sim_disk_cut(struct tb_sim *sim, enum tb_sim_cut mode)
{
    struct sim_names names;
    int rc = cut_names(sim, mode, &names);
    prune(&names);
    struct image *image = sim_must(calloc(names.n + 1, sizeof(*image)));
    for (size_t i = 0; i < names.n; i++) {
        if (!names.v[i].node->dir)
            image[i] = cut_file(sim, names.v[i].node, mode);
    }
    if (rc == 0)
        rc = wipe(sim);
    for (size_t i = 0; i < names.n; i++) {
        char real[SIM_PATH_BYTES];
        sim_real_path(sim, names.v[i].path, real);
        if (rc == 0)
            rc = !names.v[i].node->dir ? write_image(real, &image[i]) : mkdir(real, 0700) < 0 ? -errno : 0;
        sim_note(sim, 0xc07, image[i].len);
        free(image[i].bytes);
    }
    free(image);
    sim_names_free(&names);
    sim_forget_nodes(sim);
    int again = sim_adopt(sim);
    return rc < 0 ? rc : again;
}
