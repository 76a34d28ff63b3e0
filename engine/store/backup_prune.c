/*
 * backup_prune.c: backups that are kept no longer: their manifests go first, then the files that no manifest names.
 *
 * Must never remove a file that a readable or unreadable manifest may need: if one that stays cannot be read, nothing
 * is removed. Thread: a helper, at the end of a backup, under the folder's lock.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/backup.h"

struct prune {
    struct tb_backup *b;
    struct tb_manifest needed; /* parts of all that stay, sorted */
    char dir[TB_PART_PATH];
    uint32_t shard;
    uint32_t removed;
};

static int by_name(const void *x, const void *y)
{
    const struct tb_part *a = x, *b = y;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->shard != b->shard)
        return a->shard < b->shard ? -1 : 1;
    if (a->number != b->number)
        return a->number < b->number ? -1 : 1;
    if (a->from != b->from)
        return a->from < b->from ? -1 : 1;
    return a->kind == TB_PART_LOG && a->to != b->to ? (a->to < b->to ? -1 : 1) : 0;
}

static bool remove_it(struct prune *p, const char *name)
{
    char path[TB_PART_PATH + 80];
    (void)snprintf(path, sizeof(path), "%s/%.70s", p->dir, name);
    if (tb_io_unlink(p->b->w->io, path) == 0)
        p->removed++;
    return true;
}

static bool look_at(void *user, const char *name)
{
    struct prune *p = user;
    struct tb_part part = {.shard = p->shard};
    bool ours = tb_part_read(name, &part) && part.kind != TB_PART_DICT;
    size_t len = strlen(name);
    if (len > 4 && strcmp(name + len - 4, ".new") == 0)
        return remove_it(p, name); /* debris: we hold the lock */
    if (ours && bsearch(&part, p->needed.part, p->needed.n, sizeof(part), by_name) == NULL)
        return remove_it(p, name);
    return true;
}

/* stays: is run i of n, made then, one to keep? The newest always is. */
static bool stays(const struct tb_backup *b, size_t i, size_t n, int64_t time_ms)
{
    if (i + 1 == n || (b->keep != 0 && n - i <= b->keep))
        return true;
    return b->keep_days != 0 && time_ms >= b->cur.time_ms - (int64_t)b->keep_days * 86400000;
}

/* sort_out: the manifests that go are removed, the parts of those that stay gathered. False: leave everything. */
static bool sort_out(struct prune *p, uint32_t *removed)
{
    struct tb_backup *b = p->b;
    char path[TB_PART_PATH];
    uint32_t *runs;
    size_t n;
    struct tb_error err = {.text = ""};
    bool good = tb_manifest_runs(b->w->io, b->dest, &runs, &n, &err) == TB_OK;
    for (size_t i = 0; good && i < n; i++) {
        struct tb_manifest m;
        good = tb_manifest_read(b->w->io, b->dest, runs[i], &m, &err) == TB_OK;
        if (!good)
            break;
        if (stays(b, i, n, m.time_ms)) {
            for (size_t k = 0; good && k < m.n; k++)
                good = tb_manifest_add(&p->needed, &m.part[k]);
        } else {
            (void)snprintf(path, sizeof(path), "%.1000s/manifest-%08u", b->dest, runs[i]);
            good = tb_io_unlink(b->w->io, path) == 0;
            *removed += good;
        }
        tb_manifest_free(&m);
    }
    free(runs);
    if (!good)
        tb_log(TB_LOG_WARN, "backup: nothing is removed from %s: %s", b->dest, err.text);
    return good && tb_io_sync_dir(b->w->io, b->dest) == 0;
}

void tb_backup_prune(struct tb_backup *b)
{
    struct prune p = {.b = b};
    uint32_t runs = 0;
    if (sort_out(&p, &runs)) {
        if (p.needed.n > 0)
            qsort(p.needed.part, p.needed.n, sizeof(*p.needed.part), by_name);
        for (p.shard = 0; p.shard < b->store->super.shards; p.shard++)
            for (unsigned i = 0; i < 2; i++) {
                (void)snprintf(p.dir, sizeof(p.dir), "%.1000s/shard-%02x%s", b->dest, p.shard, i ? "/log" : "");
                (void)tb_io_list(b->w->io, p.dir, look_at, &p); /* what cannot be listed stays */
            }
    }
    tb_manifest_free(&p.needed);
    (void)pthread_mutex_lock(&b->lock);
    b->status.removed_runs = runs;
    b->status.removed_files = p.removed;
    (void)pthread_mutex_unlock(&b->lock);
}
