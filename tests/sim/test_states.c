/*
 * test_states.c: every state a power cut could leave: after each write, sync or change of a name, LMDB's own writes
 * included, the disk as it would be found (nothing, everything, any sectors of what was not durable, the last write
 * torn) is opened as a store of its own and must be what the model allows; and it must take the next write.
 *
 *   test_states                     what CI runs: random workloads until STATES states, and all workloads of up to 2
 * operations test_states --random N [--from SEED] [--state FILE]    N states of random workloads test_states --all K
 * [--from I] [--state FILE]          all workloads of exactly K operations out of 12
 *   --minutes M                     end after M minutes, having written to FILE where to go on
 *
 * Thread: one. A failure prints its seed or its workload.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "process.h"
#include "world.h"

struct look { /* what is looked at, and how much of it */
    struct world *x;
    char dir[64]; /* for images */
    uint64_t states, events, seed;
    unsigned every; /* look at one event in so many */
    char wrong[WORLD_WRONG + 100];
};

static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_TORN, TB_SIM_CUT_RANDOM,
                                        TB_SIM_CUT_RANDOM};
static const char *const mode_names[] = {"none", "all", "torn", "random", "random"};

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
    bool good = server_open(&s);
    if (!good)
        (void)snprintf(why, sizeof(why), "recovery refused: %s", s.why);
    for (int i = 0; good && i < 200 && (server_turn(&s) > 0 || i < 5); i++)
        ;
    good = good && model_check(l->x, &s, false, why) && model_next_write(l->x, &s, why);
    server_close(&s);
    process_forget(s.sim);
    tb_sim_free(s.sim);
    server_folder_empty(l->dir);
    if (!good)
        (void)snprintf(l->wrong, sizeof(l->wrong), "event %" PRIu64 " (%s): %s", l->events, mode_names[mode], why);
    return good;
}

static void on_change(void *user)
{
    struct look *l = user;
    l->events++;
    if (l->wrong[0] || (l->every > 1 && (l->events * 2654435761u >> 7) % l->every != 0))
        return;
    unsigned was = process_pause();
    process_plain(true);
    for (unsigned m = 0; m < TB_ARRAY_LEN(modes) && !l->wrong[0]; m++)
        (void)open_image(l, m);
    process_plain(false);
    process_resume(was);
}

static bool verbose;

/* random_seed: some clients doing what they like, looked at all the way. */
static bool random_seed(struct look *l, uint64_t seed, uint64_t states)
{
    struct server_options opt = {.checkpoint_log_bytes = 8 << 10, .checkpoint_ms = 20};
    opt.shards = 1 + (uint32_t)(seed % 2);
    opt.workers = opt.shards;
    opt.trash_days = seed % 4 < 2 ? 7 : 0;
    struct world *x = world_new(seed, &opt, 2);
    for (unsigned i = 0; i < 2; i++)
        (void)world_actor(x, ROLE_IMAP, i);
    (void)world_actor(x, ROLE_LMTP, 0);
    (void)world_actor(x, ROLE_SMTP, 1);
    (void)world_actor(x, ROLE_POP3, 1);
    l->x = x;
    l->seed = seed;
    uint64_t end = l->states + states;
    tb_sim_watch(x->s.sim, on_change, l);
    if (!world_start(x))
        (void)snprintf(l->wrong, sizeof(l->wrong), "%s", x->wrong);
    while (!l->wrong[0] && !x->wrong[0] && l->states < end && x->stats.steps < 20000)
        world_step(x);
    tb_sim_watch(x->s.sim, NULL, NULL);
    if (x->wrong[0] && !l->wrong[0])
        (void)snprintf(l->wrong, sizeof(l->wrong), "%s", x->wrong);
    tb_sim_restart(x->s.sim);
    world_died(x);
    world_free(x);
    if (l->wrong[0])
        printf("FAILED seed %" PRIu64 ", %s\n  again: test_states --random 1 --from %" PRIu64 "\n", seed, l->wrong,
               seed);
    return !l->wrong[0];
}

int main(int argc, char **argv)
{
    uint64_t from = 1, random = process_has_memory() ? 2000 : 200;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--random") == 0)
            random = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--from") == 0)
            from = strtoull(argv[i + 1], NULL, 10);
    }
    tb_log_level(verbose ? TB_LOG_INFO : (enum tb_level) - 1);
    struct look l = {.every = 1};
    server_folder(l.dir);
    process_plain(true);
    (void)random_seed(&l, 0, 50);
    process_plain(false);
    l.states = l.events = 0;
    bool good = true;
    for (uint64_t seed = from; good && l.states < random; seed++)
        good = random_seed(&l, seed, 1000);
    printf("%" PRIu64 " states after %" PRIu64 " events\n", l.states, l.events);
    server_folder_remove(l.dir);
    printf("[  %s  ] 1 test(s).\n", good ? "PASSED" : "FAILED");
    return !good;
}
