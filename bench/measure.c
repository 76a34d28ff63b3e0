/*
 * measure.c: what a run cost: CPU of the server's processes and of ourselves, memory, the block device's own counters.
 *
 * Reads /proc and /sys only, twice a run. A process that ends meanwhile is not lost: its time is in its parent's figure
 * for waited-for children (proc(5): cutime, cstime), and the parent is in the same tree. Time that the kernel spends
 * for the server outside its processes (interrupts) is not seen.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/bench.h"

enum { PROCESSES_MAX = 1 << 20, FILE_BYTES = 16384, SECTOR_BYTES = 512 };

struct process {
    int pid, parent;
    uint64_t ticks;
    bool ours; /* belongs to the server under test */
};

struct processes {
    struct tb_io *io;
    struct process *v; /* owned */
    size_t n, cap;
    const struct bench_options *options;
    bool failed;
};

/* The start of a small file as a NUL string; false if it cannot be read. */
static bool read_text(struct tb_io *io, const char *path, char text[FILE_BYTES])
{
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return false;
    int64_t n = tb_io_pread(io, fd, text, FILE_BYTES - 1, 0);
    (void)tb_io_file_close(io, fd); /* only read from */
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static bool is_root(const struct bench_options *o, int pid, const char *name, size_t name_len)
{
    for (size_t i = 0; i < o->pid_n; i++) {
        if (o->pids[i] == pid)
            return true;
    }
    return o->pgrep != NULL && strlen(o->pgrep) == name_len && memcmp(o->pgrep, name, name_len) == 0;
}

/* The number in the n-th (from 0) of the fields that blanks separate. */
static bool field(const char *text, unsigned n, uint64_t *out)
{
    static const char blanks[] = " \t\n";
    text += strspn(text, blanks);
    for (; n > 0; n--) {
        text += strcspn(text, blanks);
        text += strspn(text, blanks);
    }
    return tb_slice_u64(tb_slice(text, strcspn(text, blanks)), UINT64_MAX, out);
}

/* proc(5) /proc/pid/stat: pid (comm) state ppid … utime 14, stime 15, cutime 16, cstime 17. comm may hold anything. */
static bool parse_stat(const struct bench_options *o, int pid, const char *text, struct process *p)
{
    const char *name = strchr(text, '('), *after = strrchr(text, ')');
    uint64_t parent, user, system, child_user, child_system;
    if (name == NULL || after == NULL || after < name || !field(after + 1, 1, &parent) ||
        !field(after + 1, 11, &user) || !field(after + 1, 12, &system) || !field(after + 1, 13, &child_user) ||
        !field(after + 1, 14, &child_system))
        return false;
    p->pid = pid;
    p->parent = (int)parent;
    p->ticks = user + system + child_user + child_system;
    p->ours = is_root(o, pid, name + 1, (size_t)(after - name) - 1);
    return true;
}

static bool process_add(void *user, const char *name)
{
    struct processes *all = user;
    char path[64], text[FILE_BYTES];
    uint64_t pid;
    if (!tb_slice_u64(tb_slice_str(name), INT32_MAX, &pid))
        return true; /* not a process */
    if (all->n == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 512;
        struct process *v = cap <= PROCESSES_MAX ? realloc(all->v, cap * sizeof *v) : NULL;
        if (v == NULL) {
            all->failed = true;
            return false;
        }
        all->v = v;
        all->cap = cap;
    }
    snprintf(path, sizeof path, "/proc/%s/stat", name);
    if (read_text(all->io, path, text) && parse_stat(all->options, (int)pid, text, &all->v[all->n]))
        all->n++;
    return true;
}

static bool parent_is_ours(const struct processes *all, int parent)
{
    for (size_t i = 0; i < all->n; i++) {
        if (all->v[i].pid == parent)
            return all->v[i].ours;
    }
    return false;
}

/* Children of ours are ours, to the last generation. */
static void mark_descendants(struct processes *all)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (size_t i = 0; i < all->n; i++) {
            if (!all->v[i].ours && parent_is_ours(all, all->v[i].parent))
                all->v[i].ours = changed = true;
        }
    }
}

static uint64_t pss_kb(struct tb_io *io, int pid)
{
    char path[64], text[FILE_BYTES];
    uint64_t kb;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    const char *line = read_text(io, path, text) ? strstr(text, "\nPss:") : NULL;
    return line != NULL && field(line, 1, &kb) ? kb : 0;
}

static enum tb_rc measure_server(struct tb_io *io, const struct bench_options *o, bool memory, struct bench_sample *s,
                                 struct tb_error *err)
{
    struct processes all = {.io = io, .options = o};
    uint64_t ticks = 0, tick_us = 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
    int listed = tb_io_list(io, "/proc", process_add, &all);
    mark_descendants(&all);
    for (size_t i = 0; i < all.n; i++) {
        if (!all.v[i].ours)
            continue;
        ticks += all.v[i].ticks;
        s->server_processes++;
        if (memory)
            s->server_pss_kb += pss_kb(io, all.v[i].pid);
    }
    free(all.v);
    s->server = true;
    s->server_cpu_us = ticks * tick_us;
    if (listed < 0 || all.failed)
        return tb_error_set(err, TB_IO, listed < 0 ? -listed : ENOMEM, "cannot read /proc");
    if (s->server_processes == 0)
        return tb_error_set(err, TB_INVALID, 0, "none of the processes given by --pid or --pgrep is running");
    return TB_OK;
}

/* Documentation/block/stat.rst, fields from 1: write I/Os 5, sectors (of 512 bytes) written 7, flush I/Os 16. */
static enum tb_rc measure_device(struct tb_io *io, const char *device, struct bench_sample *s, struct tb_error *err)
{
    char path[256], text[FILE_BYTES];
    uint64_t sectors;
    snprintf(path, sizeof path, "/sys/block/%s/stat", device);
    if (strchr(device, '/') != NULL || !read_text(io, path, text))
        return tb_error_set(err, TB_INVALID, 0, "no such block device: %s (a name in /sys/block)", device);
    if (!field(text, 4, &s->device_writes) || !field(text, 6, &sectors) || !field(text, 15, &s->device_flushes))
        return tb_error_set(err, TB_INVALID, 0, "%s has no flush counter", path);
    s->device = true;
    s->device_bytes = sectors * SECTOR_BYTES;
    return TB_OK;
}

enum tb_rc bench_measure(struct tb_io *io, const struct bench_options *o, bool memory, struct bench_sample *s,
                         struct tb_error *err)
{
    struct rusage usage;
    enum tb_rc rc = TB_OK;
    *s = (struct bench_sample){.now_ns = tb_io_now_ns(io)};
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        s->self_cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    if (o->pid_n > 0 || o->pgrep != NULL)
        rc = measure_server(io, o, memory, s, err);
    if (rc == TB_OK && o->device != NULL)
        rc = measure_device(io, o->device, s, err);
    return rc;
}
