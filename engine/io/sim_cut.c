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

/* Which sectors of a write in flight reach the image. */
struct tear {
    enum tb_sim_cut mode;
    unsigned percent;
    const struct tb_op *last; /* TORN: this one only in part */
};

static void cut_write(struct tb_sim *sim, struct sim_image *m, const struct tb_op *op, const struct tear *t)
{
    bool all = t->mode == TB_SIM_CUT_ALL || (t->mode == TB_SIM_CUT_TORN && op != t->last);
    bool prefix = !all && sim_chance(sim, 50);
    for (size_t o = 0; o < op->len;) {
        size_t at = (size_t)op->offset + o, part = SIM_SECTOR - at % SIM_SECTOR;
        part = part < op->len - o ? part : op->len - o;
        bool hit = all || sim_chance(sim, t->percent);
        char noise[SIM_SECTOR];
        if (hit && t->mode == TB_SIM_CUT_TRASH && sim_chance(sim, 25)) {
            sim_noise(sim, noise, part);
            sim_image_put(m, at, noise, part);
        } else if (hit) {
            sim_image_put(m, at, (const char *)op->buf + o, part);
        }
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
    struct tb_timer *v = sim_calloc(cap, sizeof(*v));
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

static bool is_durable_sector(const struct sim_image *m, const struct sim_node *n, size_t at)
{
    size_t len = sector_bytes(m->len, at);
    return sector_bytes(n->durable.len, at) >= len &&
           memcmp(sim_image_block(m, at / SIM_BLOCK) + at % SIM_BLOCK,
                  sim_image_block(&n->durable, at / SIM_BLOCK) + at % SIM_BLOCK, len) == 0;
}

/* The sector becomes what the durable image has there; zeros behind its end. */
static void revert_sector(struct sim_image *m, const struct sim_node *n, size_t at)
{
    sim_image_put(m, at, sim_image_block(&n->durable, at / SIM_BLOCK) + at % SIM_BLOCK, sector_bytes(m->len, at));
}

/* The last finished write that was not durable loses some sectors to the durable image. */
static void tear_last(struct tb_sim *sim, struct sim_image *m, const struct sim_node *n)
{
    uint64_t end = sim->disk.last_offset + sim->disk.last_len;
    for (size_t at = sim->disk.last_offset / SIM_SECTOR * SIM_SECTOR; at < end && at < m->len; at += SIM_SECTOR) {
        if (sim_chance(sim, 50))
            revert_sector(m, n, at);
    }
}

/* Sector by sector: what the cached image has, or what is durable. */
static void choose_sectors(struct tb_sim *sim, struct sim_image *m, const struct sim_node *n)
{
    unsigned percent = (unsigned[]){5, 50, 95}[tb_sim_choose(sim, 3)];
    size_t size = m->len, durable = n->durable.len;
    if (size > durable) {
        size_t more = (size - durable + SIM_SECTOR - 1) / SIM_SECTOR;
        size_t kept = sim_chance(sim, 50) ? tb_sim_choose(sim, 2) * more : tb_sim_choose(sim, more + 1);
        size = durable + kept * SIM_SECTOR < size ? durable + kept * SIM_SECTOR : size;
    } else if (sim_chance(sim, 50)) {
        size = durable; /* it had been cut short, and that is lost */
    }
    sim_image_resize(m, size);
    for (size_t at = 0; at < size; at += SIM_SECTOR) {
        if (at % SIM_BLOCK == 0 && !sim_image_has(m, at / SIM_BLOCK) && !sim_image_has(&n->durable, at / SIM_BLOCK))
            at += SIM_BLOCK - SIM_SECTOR;
        else if (!is_durable_sector(m, n, at) && !sim_chance(sim, percent))
            revert_sector(m, n, at);
    }
}

static struct sim_image cut_file(struct tb_sim *sim, struct sim_node *n, enum tb_sim_cut mode)
{
    struct sim_image m = {0};
    if (mode == TB_SIM_CUT_NONE) {
        sim_image_copy(&m, &n->durable);
        return m;
    }
    sim_image_load(&m, n->hold_fd);
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

static int write_image(const char *real, const struct sim_image *m)
{
    int fd = open(real, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = sim_image_store(m, fd);
    (void)close(fd); /* a test's folder */
    return rc;
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

/* What is found after a power cut now, written under a real folder (of this world: emptied first). */
static int write_cut(struct tb_sim *sim, enum tb_sim_cut mode, const char *root)
{
    struct sim_names names;
    int rc = cut_names(sim, mode, &names);
    prune(&names);
    struct sim_image *image = sim_calloc(names.n + 1, sizeof(*image));
    for (size_t i = 0; i < names.n; i++) {
        if (!names.v[i].node->dir)
            image[i] = cut_file(sim, names.v[i].node, mode);
    }
    if (rc == 0 && root == sim->disk.root)
        rc = wipe(sim);
    for (size_t i = 0; i < names.n; i++) {
        char real[SIM_PATH_BYTES];
        sim_path(real, "%s/%s", root, names.v[i].path);
        if (rc == 0)
            rc = !names.v[i].node->dir ? write_image(real, &image[i]) : mkdir(real, 0700) < 0 ? -errno : 0;
        sim_note(sim, 0xc07, image[i].len);
        sim_image_free(&image[i]);
    }
    free(image);
    sim_names_free(&names);
    return rc;
}

int sim_disk_cut(struct tb_sim *sim, enum tb_sim_cut mode)
{
    int rc = write_cut(sim, mode, sim->disk.root);
    sim_forget_nodes(sim);
    int again = sim_adopt(sim);
    return rc < 0 ? rc : again;
}

int tb_sim_image(struct tb_sim *sim, enum tb_sim_cut mode, uint64_t seed, const char *dir)
{
    struct sim_rng rng = sim->rng;
    uint64_t digest = sim->digest;
    sim_seed(&sim->rng, seed);
    int rc = write_cut(sim, mode, dir);
    sim->rng = rng;
    sim->digest = digest;
    return rc;
}
