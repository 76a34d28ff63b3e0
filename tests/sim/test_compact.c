/*
 * test_compact.c: a start that compacts the indexes, its power cut after every change of the disk, LMDB's own writes
 * included. Whatever is found then: the checkpoint record names a whole index, without one being made again from the
 * log; and the store opens, is what the model allows and takes the next write.
 *
 *   test_compact [SEED [COUNT]]      default: seeds 1 to 6
 *
 * Thread: one. A failure prints its seed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/compact.h"
#include "engine/store/rebuild.h"
#include "process.h"
#include "world.h"

enum { SEEDS = 6, STEPS = 1500 };

struct look {
    struct world *x;
    char dir[64];                         /* for images */
    uint64_t seed, events, states, taken; /* taken: states in which the new file was the index, not yet in its place */
    char wrong[WORLD_WRONG + 100];
};

/* A process that loses its power frees nothing: what it had under way is no leak. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0";
}

static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_TORN, TB_SIM_CUT_RANDOM,
                                        TB_SIM_CUT_RANDOM};

static bool load_ckpt(struct tb_io *io, const char *shard_dir, struct tb_disk_ckpt *out, struct tb_error *err)
{
    char path[TB_INDEX_PATH];
    uint8_t block[TB_BLOCK];
    (void)snprintf(path, sizeof(path), "%.990s/CKPT", shard_dir);
    if (tb_slot_read(io, path, tb_ckpt_check, block, err) != TB_OK)
        return false;
    memcpy(out, block, sizeof(*out));
    return true;
}

/* index_whole: is what the checkpoint record names whole, before and after it is put in its place? */
static bool index_whole(struct look *l, struct tb_io *io, const char *shard_dir, struct tb_error *err)
{
    char path[TB_INDEX_PATH], index[TB_INDEX_PATH];
    struct tb_disk_ckpt ckpt;
    (void)snprintf(index, sizeof(index), "%.990s/index.mdb", shard_dir);
    if (!tb_index_sound(io, shard_dir, err) || !load_ckpt(io, shard_dir, &ckpt, err))
        return false;
    tb_index_place(io, shard_dir, &ckpt, path);
    l->taken += strcmp(path, index) != 0;
    return tb_index_settle(io, shard_dir, err) == TB_OK &&
           tb_index_roll_back(io, index, ckpt.txnid, ckpt.meta, err) == TB_OK && tb_index_sound(io, shard_dir, err);
}

static bool indexes_whole(struct look *l, struct server *s, char why[WORLD_WRONG])
{
    struct tb_io *io = tb_sim_io(s->sim);
    struct tb_error err = {0};
    bool whole = true;
    for (uint32_t i = 0; whole && i < s->opt.shards; i++) {
        char dir[TB_PATH];
        (void)snprintf(dir, sizeof(dir), "%.80s/shard-%02x", s->dir, i);
        whole = index_whole(l, io, dir, &err);
    }
    if (!whole)
        (void)snprintf(why, WORLD_WRONG, "the index is lost: %.200s", err.text);
    return whole;
}

/* open_image: false if what was found is wrong: l->wrong. */
static bool open_image(struct look *l, unsigned mode)
{
    struct server s = {.opt = l->x->s.opt};
    char why[WORLD_WRONG] = "";
    uint64_t seed = l->seed ^ (l->events * 8 + mode) * 0x9e3779b97f4a7c15u;
    l->states++;
    (void)snprintf(s.dir, sizeof(s.dir), "%s", l->dir);
    if (tb_sim_image(l->x->s.sim, modes[mode], seed, l->dir) != 0)
        abort();
    s.sim = tb_sim_new(seed, l->dir);
    process_world(s.sim);
    bool good = indexes_whole(l, &s, why);
    if (good && !(good = server_open(&s)))
        (void)snprintf(why, sizeof(why), "recovery refused: %s", s.why);
    good = good && model_check(l->x, &s, false, why) && model_next_write(l->x, &s, why);
    tb_sim_restart(s.sim); /* whatever it still had under way */
    server_died(&s);
    process_forget(s.sim);
    tb_sim_free(s.sim);
    server_folder_empty(l->dir);
    if (!good)
        (void)snprintf(l->wrong, sizeof(l->wrong), "event %" PRIu64 " (mode %u): %s", l->events, mode, why);
    return good;
}

static void on_change(void *user)
{
    struct look *l = user;
    l->events++;
    if (l->wrong[0])
        return;
    unsigned was = process_pause();
    process_plain(true);
    for (unsigned m = 0; m < TB_ARRAY_LEN(modes) && !l->wrong[0]; m++)
        (void)open_image(l, m);
    process_plain(false);
    process_resume(was);
}

/* live: clients do what they like, then the power goes. */
static void live(struct world *x)
{
    for (unsigned i = 0; i < 2; i++)
        (void)world_actor(x, ROLE_IMAP, i);
    (void)world_actor(x, ROLE_LMTP, 0);
    (void)world_actor(x, ROLE_POP3, 1);
    if (!world_start(x))
        return;
    while (!x->wrong[0] && x->stats.steps < STEPS)
        world_step(x);
    if (tb_sim_power_cut(x->s.sim, TB_SIM_CUT_NONE) != 0)
        abort();
    world_died(x);
}

static bool run_seed(struct look *l, uint64_t seed)
{
    struct server_options opt = {.checkpoint_log_bytes = 8 << 10, .checkpoint_ms = 20, .compact_pages = UINT64_MAX};
    char why[WORLD_WRONG] = "";
    opt.shards = 1 + (uint32_t)(seed % 2);
    opt.workers = opt.shards;
    struct world *x = world_new(seed, &opt, 2);
    l->x = x;
    l->seed = seed;
    live(x);
    x->s.opt.compact_pages = 1;
    if (!x->wrong[0]) {
        tb_sim_watch(x->s.sim, on_change, l);
        bool up = server_open(&x->s);
        tb_sim_watch(x->s.sim, NULL, NULL);
        if (!up)
            world_wrong(x, "the start that compacts is refused: %s", x->s.why);
        else if (!model_check(x, &x->s, true, why) || !model_next_write(x, &x->s, why))
            world_wrong(x, "%s", why);
    }
    if (x->wrong[0] && !l->wrong[0])
        (void)snprintf(l->wrong, sizeof(l->wrong), "%s", x->wrong);
    tb_sim_restart(x->s.sim);
    world_died(x);
    world_free(x);
    if (l->wrong[0])
        printf("FAILED seed %" PRIu64 ", %s\n  again: test_compact %" PRIu64 "\n", seed, l->wrong, seed);
    return !l->wrong[0];
}

int main(int argc, char **argv)
{
    struct look l = {0};
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : process_has_memory() ? SEEDS : 1;
    bool good = true;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    tb_log_level(getenv("SIM_LOG") ? TB_LOG_INFO : (enum tb_level) - 1);
    server_folder(l.dir);
    process_plain(true);
    world_free(world_new(1, &(struct server_options){.shards = 1, .workers = 1}, 1));
    process_plain(false); /* what libraries keep for ever is allocated by now */
    for (uint64_t seed = first; good && seed < first + count; seed++)
        good = run_seed(&l, seed);
    server_folder_remove(l.dir);
    printf("%" PRIu64 " seeds, %" PRIu64 " states after %" PRIu64 " changes; in %" PRIu64
           " the new file was the index and had not its name yet\n",
           count, l.states, l.events, l.taken);
    good = good && l.taken > 0; /* else it did not look where it matters */
    printf("[  %s  ] 1 test(s).\n", good ? "PASSED" : "FAILED");
    return !good;
}
