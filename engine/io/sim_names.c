/*
 * sim_names.c: the simulated disk's names: sorted tables of paths, the changes that no sync_dir has made durable yet,
 * and the real folder read in the order of names.
 *
 * Making one folder durable applies every change that touches it, a rename between two folders as a whole, and drops
 * what those changes overtake: a journaling filesystem keeps the order of one name's changes.
 * Invariant: tables are sorted, so a folder stands before what is in it. Thread: the world's.
 */
#include "sim_world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

void *sim_must(void *p)
{
    TB_ASSERT(p != NULL);
    return p;
}

volatile unsigned tb_sim_own_memory;

void *sim_malloc(size_t n)
{
    tb_sim_own_memory++;
    void *p = malloc(n);
    tb_sim_own_memory--;
    return sim_must(p);
}

void *sim_calloc(size_t n, size_t size)
{
    tb_sim_own_memory++;
    void *p = calloc(n, size);
    tb_sim_own_memory--;
    return sim_must(p);
}

void *sim_realloc(void *old, size_t n)
{
    tb_sim_own_memory++;
    void *p = realloc(old, n);
    tb_sim_own_memory--;
    return sim_must(p);
}

char *sim_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(sim_malloc(n), text, n);
}

void sim_path(char out[SIM_PATH_BYTES], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(out, SIM_PATH_BYTES, fmt, ap);
    va_end(ap);
    TB_ASSERT(n >= 0 && n < SIM_PATH_BYTES);
}

/* ---- names ---- */

/* The entry, or NULL and where it would stand. */
static struct sim_name *names_find(const struct sim_names *t, const char *path, size_t *where)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(t->v[mid].path, path) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *where = lo;
    return lo < t->n && strcmp(t->v[lo].path, path) == 0 ? &t->v[lo] : NULL;
}

struct sim_node *sim_names_get(const struct sim_names *t, const char *path)
{
    size_t i;
    const struct sim_name *found = names_find(t, path, &i);
    return found ? found->node : NULL;
}

void sim_names_set(struct sim_names *t, const char *path, struct sim_node *node)
{
    size_t i;
    struct sim_name *found = names_find(t, path, &i);
    if (found) {
        found->node = node;
        return;
    }
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 32;
        t->v = sim_realloc(t->v, t->cap * sizeof(*t->v));
    }
    memmove(t->v + i + 1, t->v + i, (t->n - i) * sizeof(*t->v));
    t->v[i] = (struct sim_name){sim_strdup(path), node};
    t->n++;
}

void sim_names_remove_at(struct sim_names *t, size_t i)
{
    free(t->v[i].path);
    memmove(t->v + i, t->v + i + 1, (t->n - i - 1) * sizeof(*t->v));
    t->n--;
}

void sim_names_free(struct sim_names *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->v[i].path);
    free(t->v);
    *t = (struct sim_names){0};
}

struct sim_names sim_names_copy(const struct sim_names *t)
{
    struct sim_names c = {0};
    for (size_t i = 0; i < t->n; i++)
        sim_names_set(&c, t->v[i].path, t->v[i].node);
    return c;
}

/* Is path the folder itself or below it? "" is the root. */
static bool is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == 0));
}

/* Is path an entry of the folder? */
bool sim_is_entry(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    if (n > 0 && (strncmp(path, dir, n) != 0 || path[n] != '/'))
        return false;
    const char *leaf = n ? path + n + 1 : path;
    return *leaf && !strchr(leaf, '/');
}

void sim_names_remove_tree(struct sim_names *t, const char *path)
{
    for (size_t i = 0; i < t->n;) {
        if (is_below(t->v[i].path, path))
            sim_names_remove_at(t, i);
        else
            i++;
    }
}

/* Give everything at and below `from` its new place. */
static void names_move_tree(struct sim_names *t, const char *from, const char *to)
{
    struct sim_names moved = {0};
    for (size_t i = 0; i < t->n; i++) {
        if (is_below(t->v[i].path, from)) {
            char path[SIM_PATH_BYTES];
            sim_path(path, "%s%s", to, t->v[i].path + strlen(from));
            sim_names_set(&moved, path, t->v[i].node);
        }
    }
    sim_names_remove_tree(t, from);
    for (size_t i = 0; i < moved.n; i++)
        sim_names_set(t, moved.v[i].path, moved.v[i].node);
    sim_names_free(&moved);
}

/* ---- changes of names that are not durable yet ---- */

void sim_add_change(struct tb_sim *sim, const char *from, const char *to, struct sim_node *node)
{
    struct sim_change *c = sim_calloc(1, sizeof(*c));
    c->from = from ? sim_strdup(from) : NULL;
    c->to = to ? sim_strdup(to) : NULL;
    c->node = node;
    struct sim_change **at = &sim->disk.changes;
    while (*at)
        at = &(*at)->next;
    *at = c;
    sim_changed(sim);
}

void sim_free_change(struct sim_change *c)
{
    free(c->from);
    free(c->to);
    free(c);
}

void sim_apply_change(struct sim_names *t, const struct sim_change *c)
{
    if (!c->from) {
        sim_names_set(t, c->to, c->node);
    } else if (!c->to) {
        sim_names_remove_tree(t, c->from);
    } else {
        if (sim_names_get(t, c->from) == c->node)
            names_move_tree(t, c->from, c->to);
        sim_names_set(t, c->to, c->node);
    }
}

static bool names_path(const struct sim_change *c, const char *path)
{
    return path && ((c->from && strcmp(c->from, path) == 0) || (c->to && strcmp(c->to, path) == 0));
}

/* Make durable what touches this folder, and drop what it overtakes: a journal keeps the order of one name's changes.
 */
void sim_settle_changes(struct tb_sim *sim, const char *dir)
{
    struct sim_change **at = &sim->disk.changes;
    while (*at) {
        struct sim_change *c = *at;
        if (!(c->from && sim_is_entry(c->from, dir)) && !(c->to && sim_is_entry(c->to, dir))) {
            at = &c->next;
            continue;
        }
        sim_apply_change(&sim->disk.durable, c);
        *at = c->next;
        for (struct sim_change **old = &sim->disk.changes; *old != c->next;) {
            struct sim_change *o = *old;
            if (!names_path(o, c->from) && !names_path(o, c->to)) {
                old = &o->next;
                continue;
            }
            if (at == &o->next)
                at = old;
            *old = o->next;
            sim_free_change(o);
        }
        sim_free_change(c);
    }
}

/* ---- reading folders in order ---- */

static bool add_entry(void *user, const char *name)
{
    struct sim_entries *e = user;
    if (e->n == e->cap) {
        e->cap = e->cap ? e->cap * 2 : 32;
        e->v = sim_realloc(e->v, e->cap * sizeof(*e->v));
    }
    e->v[e->n++] = sim_strdup(name);
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int sim_read_entries(const char *real, struct sim_entries *e)
{
    *e = (struct sim_entries){0};
    int rc = tb_real_files.list(NULL, real, add_entry, e);
    if (e->n)
        qsort(e->v, e->n, sizeof(*e->v), by_name);
    return rc;
}

bool sim_has_entry(const struct sim_entries *e, const char *name)
{
    return e->n > 0 && bsearch(&name, e->v, e->n, sizeof(*e->v), by_name) != NULL;
}

void sim_free_entries(struct sim_entries *e)
{
    for (size_t i = 0; i < e->n; i++)
        free(e->v[i]);
    free(e->v);
}

void sim_real_path(struct tb_sim *sim, const char *path, char out[SIM_PATH_BYTES])
{
    sim_path(out, "%s%s%s", sim->disk.root, *path ? "/" : "", path);
}

/* Everything under the root, by a queue of folders: parents come before what is in them. */
int sim_walk(struct tb_sim *sim, struct sim_names *out)
{
    struct sim_entries dirs = {0};
    int rc = 0;
    add_entry(&dirs, "");
    for (size_t d = 0; d < dirs.n && rc == 0; d++) {
        char real[SIM_PATH_BYTES], path[SIM_PATH_BYTES];
        struct sim_entries e;
        sim_real_path(sim, dirs.v[d], real);
        rc = sim_read_entries(real, &e);
        for (size_t i = 0; i < e.n && rc == 0; i++) {
            sim_path(path, "%s%s%s", dirs.v[d], *dirs.v[d] ? "/" : "", e.v[i]);
            sim_real_path(sim, path, real);
            struct sim_node *node = sim_node_at(sim, real);
            if (!node)
                continue; /* a socket, or it has gone meanwhile */
            sim_names_set(out, path, node);
            if (node->dir)
                add_entry(&dirs, path);
        }
        sim_free_entries(&e);
    }
    sim_free_entries(&dirs);
    return rc;
}
