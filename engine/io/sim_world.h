/*
 * sim_world.h: what the parts of the simulator share: sim.c (clock, events, choices, ios), sim_disk.c (files with
 * a durable image), sim_names.c and sim_files.c (names; the doors), sim_cut.c (power cuts) and sim_net.c (sockets).
 *
 * Invariants
 * W1 every choice comes from sim->rng, drawn in an order that depends on the seed and the calls alone. Nothing is
 *    iterated in the order of addresses, inode numbers or readdir.
 * W2 an op in flight is in its io's heap (state WAITING) or parked at an endpoint (PAUSED).
 */
#ifndef TAMBO_IO_SIM_WORLD_H
#define TAMBO_IO_SIM_WORLD_H

#include "backend.h"
#include "sim.h"

#include <sys/types.h>

#define SIM_SECTOR 512u
#define SIM_BLOCK 4096u
#define SIM_PATH_BYTES 4096
#define SIM_FD_FIRST 1000000 /* sockets; below are real descriptors of files */

struct sim_rng {
    uint64_t s[4];
};

struct sim_fault {
    uint64_t count, at; /* at: the count that fails; 0 never */
    int error;
    bool sticky;
};

/* One in so many calls of a kind fails, by the seed. */
struct sim_odds {
    uint32_t one_in; /* 0: never */
    int error;
};

struct sim_io {
    struct tb_io base;
    struct tb_sim *sim; /* borrowed: outlives its ios */
    struct sim_io *next;
    struct sim_rng random; /* tb_io_random: its own stream, so that asking for bytes changes no event */
    uint64_t number;
    uint64_t post_due_ns; /* the latest post to this io: later posts come later */
    struct tb_op *firing; /* the accept whose done is running */
    bool dead;            /* its process is gone: nothing it asks for happens */
    char recv[65536];
};

/* ---- disk ---- */

/* A file's bytes, without its blocks of zeros (sim_image.c). */
struct sim_image {
    char **block; /* owned; NULL: zeros */
    size_t blocks, len;
};

/* A file or folder, by inode. hold_fd keeps the inode number from being given to another. */
struct sim_node {
    struct sim_node *next;
    dev_t dev;
    ino_t ino;
    int hold_fd; /* owned */
    bool dir;
    struct sim_image durable; /* the bytes after a power cut in which nothing else survives */
    struct sim_image lost;    /* the cached image when a sync failed; sectors still equal to it count as clean */
    int lock_fd;              /* the descriptor that holds the lock, or -1 */
};

struct sim_name {
    char *path; /* owned; relative to the root */
    struct sim_node *node;
};

struct sim_names {
    struct sim_name *v; /* owned; sorted by path */
    size_t n, cap;
};

/* A change of names that no sync_dir has made durable yet: from -> to; no `to`: removed; no `from`: made. */
struct sim_change {
    struct sim_change *next;
    char *from, *to; /* owned, or NULL */
    struct sim_node *node;
};

/* What a sync in flight will make durable: the blocks that differed when it was submitted. */
struct sim_sync {
    struct sim_sync *next; /* newest first */
    struct tb_op *op;      /* NULL for the waiting form */
    struct sim_node *node;
    uint64_t *block; /* owned; ascending */
    char *bytes;     /* owned: n blocks */
    size_t n, cap;
    size_t size; /* of the file */
};

struct sim_open {
    int fd;
    bool direct;
};

/* A folder's names. */
struct sim_entries {
    char **v; /* owned */
    size_t n, cap;
};

struct sim_disk {
    char *root; /* owned; no slash at its end */
    struct sim_node *nodes;
    uint32_t block_bytes;
    struct sim_names durable;
    struct sim_change *changes; /* oldest first */
    struct sim_sync *syncs;
    struct sim_open *open; /* owned: descriptors that the dead process leaves behind */
    size_t open_n, open_cap;
    /* the last write that finished without being durable: what TORN tears if nothing is in flight */
    struct sim_node *last_node;
    uint64_t last_offset, last_len;
};

/* ---- network ---- */

struct sim_end {
    int fd;
    bool client;          /* driven by tb_sim_client_*, not by an io */
    struct sim_end *peer; /* NULL: gone */
    char *rx;             /* owned */
    size_t rx_at, rx_len, rx_cap;
    size_t window;
    bool eof, reset, shut;
    struct tb_op *recv, *send; /* in flight on this end */
    char from[64];             /* the peer's address, as tb_io_peer says it */
    struct sim_end *next;      /* in the listener's queue */
};

struct sim_listener {
    int fd;
    uint64_t id;
    char address[128];
    uint16_t port;
    struct sim_end *queue; /* not yet accepted, oldest first */
    size_t queued;
    struct tb_op *accept[64];
    size_t accepts;
};

struct sim_net {
    struct sim_end **end; /* owned; by fd - SIM_FD_FIRST */
    struct sim_listener **listener;
    size_t cap;
    uint64_t next_id;
    uint16_t next_port;
};

struct sim_flip {
    const struct sim_node *node; /* only compared */
    uint64_t at;
};

struct tb_sim {
    uint64_t digest;
    struct sim_rng rng;
    uint64_t now_ns;
    int64_t wall_offset_s;
    uint64_t latency_min_ns, latency_max_ns;
    struct sim_io *ios; /* oldest first */
    uint64_t ios_made;
    struct sim_fault fault[TB_SIM_KINDS];
    struct sim_fault any; /* of the kinds in any_kinds */
    struct sim_odds odds[TB_SIM_KINDS];
    uint32_t any_kinds, flip_one_in;
    uint64_t injected[TB_SIM_KINDS], flipped;
    struct sim_flip flip[16]; /* the last ones */
    bool split, lie_durable, lie_sync;
    void (*watch)(void *user);
    void *watch_user;
    bool watching;
    struct sim_disk disk;
    struct sim_net net;
};

static inline struct sim_io *sim_io_of(struct tb_io *io)
{
    return TB_CONTAINER(io, struct sim_io, base);
}
static inline struct tb_sim *sim_of(struct tb_io *io)
{
    return sim_io_of(io)->sim;
}

/* ---- sim_fault.c ---- */
/* sim_fault: count a call of this kind; the errno it must fail with (or TB_SIM_SHORT), or 0. */
int sim_fault(struct tb_sim *sim, enum tb_sim_kind kind);
/* sim_changed: what a power cut could find has changed: the watcher looks. */
void sim_changed(struct tb_sim *sim);
/* sim_flip: what was read may have a bit wrong. */
void sim_flip(struct tb_sim *sim, int fd, char *bytes, int64_t len, uint64_t offset);

/* ---- sim.c ---- */
void sim_seed(struct sim_rng *r, uint64_t seed);
/* sim_chance: true in percent of 100 cases. */
bool sim_chance(struct tb_sim *sim, unsigned percent);
void sim_noise(struct tb_sim *sim, char *p, size_t n);
/* sim_schedule: op completes after a seeded delay. */
void sim_schedule(struct tb_op *op);
/* sim_note: something happened; goes into the digest. */
void sim_note(struct tb_sim *sim, uint64_t a, uint64_t b);
/* sim_finish: op is over and its done runs. */
unsigned sim_finish(struct tb_op *op, int64_t result);

/* ---- sim_names.c ---- */
/* sim_must: a simulated run can't go on without memory: the world is a test, so it stops. */
void *sim_must(void *p) __attribute__((returns_nonnull));
/* The same for what the world allocates; see tb_sim_own_memory. */
void *sim_malloc(size_t n) __attribute__((returns_nonnull));
void *sim_calloc(size_t n, size_t size) __attribute__((returns_nonnull));
void *sim_realloc(void *old, size_t n) __attribute__((returns_nonnull));
char *sim_strdup(const char *text) __attribute__((returns_nonnull));
/* sim_path: formats a path that must fit. */
void sim_path(char out[SIM_PATH_BYTES], const char *fmt, ...) TB_PRINTF(2, 3);
struct sim_node *sim_names_get(const struct sim_names *t, const char *path);
void sim_names_set(struct sim_names *t, const char *path, struct sim_node *node);
void sim_names_remove_at(struct sim_names *t, size_t i);
/* sim_names_remove_tree: the path and everything below it. */
void sim_names_remove_tree(struct sim_names *t, const char *path);
struct sim_names sim_names_copy(const struct sim_names *t);
void sim_names_free(struct sim_names *t);
/* sim_is_entry: is path directly in this folder? "" is the root. */
bool sim_is_entry(const char *path, const char *dir);
/* sim_add_change: remember what was done and is not durable; see struct sim_change. */
void sim_add_change(struct tb_sim *sim, const char *from, const char *to, struct sim_node *node);
void sim_apply_change(struct sim_names *t, const struct sim_change *c);
void sim_free_change(struct sim_change *c);
/* sim_settle_changes: those that touch this folder become durable. */
void sim_settle_changes(struct tb_sim *sim, const char *dir);
/* sim_read_entries: a real folder's names, sorted; free them in any case. 0 or -errno. */
int sim_read_entries(const char *real, struct sim_entries *e);
void sim_free_entries(struct sim_entries *e);
bool sim_has_entry(const struct sim_entries *e, const char *name);
/* sim_real_path: a path below the root as the real system knows it. */
void sim_real_path(struct tb_sim *sim, const char *path, char out[SIM_PATH_BYTES]);
/* sim_walk: everything under the root as it is now. 0 or -errno. */
int sim_walk(struct tb_sim *sim, struct sim_names *out);

/* ---- sim_image.c ---- */
/* sim_image_block: 4096 bytes, perhaps the shared ones of zeros. */
const char *sim_image_block(const struct sim_image *m, size_t b);
bool sim_image_has(const struct sim_image *m, size_t b);
void sim_image_resize(struct sim_image *m, size_t len);
/* sim_image_put: grows as needed. sim_image_get, sim_image_is: zeros behind the end. */
void sim_image_put(struct sim_image *m, size_t at, const char *bytes, size_t len);
void sim_image_get(const struct sim_image *m, size_t at, char *out, size_t len);
bool sim_image_is(const struct sim_image *m, size_t at, const char *bytes, size_t len);
void sim_image_copy(struct sim_image *to, const struct sim_image *from);
void sim_image_free(struct sim_image *m);
/* sim_data_from: where the next data of a real file begins, from `at` on, and ends; size if there is none. */
size_t sim_data_from(int fd, size_t at, size_t size, size_t *end);
/* sim_read: as tb_real_read; holes cost nothing. */
int64_t sim_read(int fd, char *buf, size_t len, uint64_t offset);
/* sim_image_load, sim_image_store: from and to a real file; holes stay holes. */
void sim_image_load(struct sim_image *m, int fd);
int sim_image_store(const struct sim_image *m, int fd);

/* ---- sim_disk.c ---- */
bool sim_disk_init(struct tb_sim *sim, const char *root);
void sim_disk_free(struct tb_sim *sim);
/* sim_disk_submit: begin an op; its effect comes with sim_disk_complete. */
void sim_disk_submit(struct tb_sim *sim, struct tb_op *op);
unsigned sim_disk_complete(struct tb_sim *sim, struct tb_op *op);
/* sim_disk_drop: a cancelled op, or one whose process died: whole or not at all. */
void sim_disk_drop(struct tb_sim *sim, struct tb_op *op);
/* sim_disk_close_all: the process died. */
void sim_disk_close_all(struct tb_sim *sim);
/* sim_node_at, sim_node_of_fd: the file, made known if it was not; NULL: none (errno). */
struct sim_node *sim_node_at(struct tb_sim *sim, const char *real);
struct sim_node *sim_node_of_fd(struct tb_sim *sim, int fd);
size_t sim_cached_size(const struct sim_node *n);
/* sim_adopt: what is in the folder counts as durable. sim_forget_nodes: nothing is known any more. */
int sim_adopt(struct tb_sim *sim);
void sim_forget_nodes(struct tb_sim *sim);
/* sim_begin_sync: what it will make durable is settled now; end it by one of the next two. */
struct sim_sync *sim_begin_sync(struct tb_sim *sim, struct sim_node *n, struct tb_op *op);
void sim_end_sync(struct tb_sim *sim, struct sim_sync *s, bool apply);
void sim_fail_sync(struct tb_sim *sim, struct sim_sync *s);
void sim_drop_clean(struct sim_node *n);
int64_t sim_write_now(struct tb_sim *sim, int fd, const void *buf, size_t len, uint64_t offset, bool durable);
/* sim_write_some: a failed write leaves some of its sectors behind. */
void sim_write_some(struct tb_sim *sim, int fd, const char *buf, size_t len, uint64_t offset);

/* ---- sim_files.c, sim_cut.c ---- */
extern const struct tb_file_calls sim_files;
int sim_disk_cut(struct tb_sim *sim, enum tb_sim_cut mode);

/* ---- sim_net.c ---- */
extern const struct tb_socket_calls sim_sockets;
void sim_net_free(struct tb_sim *sim);
void sim_net_submit(struct tb_sim *sim, struct tb_op *op);
unsigned sim_net_complete(struct tb_sim *sim, struct tb_op *op);
/* sim_net_forget: op leaves its endpoint: cancelled. */
void sim_net_forget(struct tb_sim *sim, struct tb_op *op);

#endif
