/*
 * test_server.c: the whole server and its clients on a simulated machine, with everything going wrong by the seed:
 * power cuts, process ends, disk errors, a full disk, short writes, bits flipped in what is read, clock jumps, delays,
 * clients that leave at any byte. After each cut the store must be what the model allows.
 *
 *   test_server [SEED [COUNT]]      COUNT seeds from SEED on; one failure ends it, with the seed and how to see it
 * again test_server --minutes M [--from SEED] [--state FILE]   as long as M minutes; FILE keeps how far it came, so
 * that the next run goes on there; figures at the end
 *
 * Thread: one. A run follows from its seed alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "process.h"
#include "world.h"

enum { EPOCHS = 6 };

struct totals {
    uint64_t seeds, digest;
    struct world_stats s;
    uint64_t failures, simulated_s;
    uint64_t faults[TB_SIM_KINDS], flipped;
};

static bool verbose;

/* ---- a world from a seed ---- */

static struct world *make(uint64_t seed)
{
    struct server_options opt = {.checkpoint_log_bytes = 128 << 10, .checkpoint_ms = 50};
    opt.shards = 1 + (uint32_t)(seed % 3);
    opt.workers = seed % 5 ? opt.shards : 1;
    opt.trash_days = seed % 2 ? 7 : 0;
    opt.scrub_days = seed % 7 ? 1 : 0;
    opt.gc_min_dead = 1 + (uint32_t)(seed % 40);
    opt.gc_rate = 64 << 20;
    opt.backup_horizon_hours = seed % 3 ? 0 : 1;
    opt.copy_log_bytes = 128 << 10;
    struct world *x = world_new(seed, &opt, WORLD_ACCOUNTS);
    tb_sim_split(x->s.sim, seed % 4 == 0);
    x->big = true;
    for (unsigned i = 0; i < 4; i++)
        (void)world_actor(x, ROLE_IMAP, i % 3);
    for (unsigned i = 0; i < 2; i++)
        (void)world_actor(x, ROLE_LMTP, i);
    (void)world_actor(x, ROLE_SMTP, 2);
    (void)world_actor(x, ROLE_SUBMISSION, 3);
    for (unsigned i = 0; i < 2; i++)
        (void)world_actor(x, ROLE_POP3, 1 + i);
    (void)world_actor(x, ROLE_IDLE, 0);
    (void)world_actor(x, ROLE_IDLE, 1);
    return x;
}

/* ---- what goes wrong ---- */

static void no_faults(struct world *x)
{
    for (int k = 0; k < TB_SIM_KINDS; k++) {
        tb_sim_odds(x->s.sim, (enum tb_sim_kind)k, 0, 0);
        tb_sim_fail_nth(x->s.sim, (enum tb_sim_kind)k, 0, 0, false);
    }
    tb_sim_flip_reads(x->s.sim, 0);
    tb_sim_latency(x->s.sim, 1000, 200000);
    x->faults = x->hang_ups = false;
}

static void some_faults(struct world *x)
{
    struct tb_sim *sim = x->s.sim;
    static const int errors[] = {EIO, EIO, ENOSPC, TB_SIM_SHORT, EINTR, EAGAIN};
    x->hang_ups = world_choose(x, 2);
    if (world_choose(x, 3) == 0)
        tb_sim_latency(sim, 1000, 50000000);
    uint64_t what = world_choose(x, 12);
    int error = errors[world_choose(x, TB_ARRAY_LEN(errors))];
    x->faults = what <= 7;
    if (what == 0)
        tb_sim_odds(sim, TB_SIM_RESERVE, 1 + (uint32_t)world_choose(x, 2), ENOSPC);
    else if (what <= 4) {
        static const enum tb_sim_kind kinds[] = {TB_SIM_DURABLE, TB_SIM_SYNC,     TB_SIM_WRITE, TB_SIM_READ,
                                                 TB_SIM_OPEN,    TB_SIM_SYNC_DIR, TB_SIM_NAMES};
        bool sticky = world_choose(x, 2) && error != EINTR; /* libraries try those again for ever, and may */
        tb_sim_fail_nth(sim, kinds[world_choose(x, TB_ARRAY_LEN(kinds))], 1 + world_choose(x, 200), error, sticky);
    } else if (what == 5)
        tb_sim_odds(sim, TB_SIM_READ, 20, error);
    else if (what == 6)
        tb_sim_flip_reads(sim, 10);
    else if (what == 7) {
        tb_sim_odds(sim, TB_SIM_RECV, 200, ECONNRESET);
        tb_sim_odds(sim, TB_SIM_SEND, 200, EPIPE);
        tb_sim_odds(sim, TB_SIM_ACCEPT, 10, EMFILE);
    }
}

static void jump(struct world *x)
{
    static const int64_t seconds[] = {3600, 86400 * 30, -3600, -86400 * 3};
    int64_t now = 1750000000 + (int64_t)(tb_sim_now_ns(x->s.sim) / 1000000000u);
    tb_sim_set_wall(x->s.sim, now + seconds[world_choose(x, TB_ARRAY_LEN(seconds))]);
}

/* faults_at_start: what the disk may do while a store is opened. */
static void faults_at_start(struct world *x)
{
    static const enum tb_sim_kind kinds[] = {TB_SIM_READ,  TB_SIM_READ,  TB_SIM_READ,     TB_SIM_OPEN,   TB_SIM_SYNC,
                                             TB_SIM_WRITE, TB_SIM_NAMES, TB_SIM_SYNC_DIR, TB_SIM_DURABLE};
    enum tb_sim_kind kind = kinds[world_choose(x, TB_ARRAY_LEN(kinds))];
    if (world_choose(x, 3) == 0)
        tb_sim_flip_reads(x->s.sim, 1 + (uint32_t)world_choose(x, 20));
    else
        tb_sim_fail_nth(x->s.sim, kind, 1 + world_choose(x, kind == TB_SIM_READ ? 60 : 12),
                        (int[]){EIO, ENOSPC, TB_SIM_SHORT}[world_choose(x, 3)], world_choose(x, 2));
}

/* start_somehow: the disk may fail while the store is opened; then it is opened again. It must never guess. */
static bool start_somehow(struct world *x)
{
    for (int i = 0; i < 3 && world_choose(x, 3) == 0; i++) {
        faults_at_start(x);
        bool up = server_open(&x->s);
        no_faults(x);
        if (up)
            return server_listen(&x->s);
        if (world_choose(x, 2))
            tb_sim_restart(x->s.sim);
        else if (tb_sim_power_cut(x->s.sim, TB_SIM_CUT_RANDOM) != 0)
            world_wrong(x, "the test's own folder fails");
        world_died(x);
    }
    return world_start(x);
}

/* ---- an epoch: a life of the process ---- */

static void end_process(struct world *x, bool may_stop)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_RANDOM, TB_SIM_CUT_RANDOM,
                                            TB_SIM_CUT_TORN};
    uint64_t how = world_choose(x, 10);
    if (may_stop && how == 0) {
        x->stats.stops++;
        for (unsigned i = 0; i < x->actors; i++)
            wire_close(&x->actor[i], false);
        if (!server_stop(&x->s)) {
            world_wrong(x, "the server does not stop");
            tb_sim_restart(x->s.sim);
        }
    } else if (how < 3) {
        x->stats.kills++;
        tb_sim_restart(x->s.sim);
    } else {
        x->stats.cuts++;
        if (tb_sim_power_cut(x->s.sim, modes[world_choose(x, TB_ARRAY_LEN(modes))]) != 0)
            world_wrong(x, "the test's own folder fails");
    }
    world_died(x);
}

static void epoch(struct world *x)
{
    uint64_t steps = 200 + world_choose(x, 4000);
    no_faults(x);
    if (!world_start(x))
        return;
    if (world_choose(x, 5))
        some_faults(x);
    if (verbose)
        printf("epoch: steps=%" PRIu64 " faults=%d\n", steps, x->faults);
    for (uint64_t i = 0; i < steps && !x->wrong[0]; i++) {
        if (world_choose(x, 2000) == 0)
            jump(x);
        if (world_choose(x, 150) == 0)
            chore_random(x);
        world_step(x);
    }
    bool may_stop = !x->faults;
    no_faults(x);
    end_process(x, may_stop);
    if (!x->wrong[0] && world_choose(x, 3) == 0)
        chore_check(x);
    if (x->wrong[0] || !start_somehow(x))
        return;
    world_settle(x);
    char why[WORLD_WRONG] = "";
    if (!model_check(x, &x->s, true, why))
        world_wrong(x, "%s", why);
    bool copied = !x->wrong[0] && world_choose(x, 4) == 0 && chore_backup(x);
    if (!server_stop(&x->s))
        world_wrong(x, "the server does not stop after a check");
    tb_sim_restart(x->s.sim);
    world_died(x);
    if (!x->wrong[0])
        chore_check(x);
    if (copied && !x->wrong[0])
        chore_restore(x);
}

static void add(struct totals *t, const struct world *x)
{
    const struct world_stats *s = &x->stats;
    t->seeds++;
    t->digest ^= tb_sim_digest(x->s.sim);
    t->s.steps += s->steps;
    t->s.acked += s->acked;
    t->s.refused += s->refused;
    t->s.cuts += s->cuts;
    t->s.kills += s->kills;
    t->s.stops += s->stops;
    t->s.disconnects += s->disconnects;
    t->s.chores += s->chores;
    t->s.restored += s->restored;
    t->s.backups += s->backups;
    t->s.restores += s->restores;
    t->s.checked += s->checked;
    t->failures += x->s.failures;
    t->simulated_s += tb_sim_now_ns(x->s.sim) / 1000000000u;
    t->flipped += tb_sim_flipped(x->s.sim);
    for (int k = 0; k < TB_SIM_KINDS; k++)
        t->faults[k] += tb_sim_injected(x->s.sim, (enum tb_sim_kind)k);
}

/* run_seed: false if something is wrong: said. */
static bool run_seed(uint64_t seed, struct totals *t)
{
    struct world *x = make(seed);
    for (int i = 0; i < EPOCHS && !x->wrong[0]; i++)
        epoch(x);
    bool good = !x->wrong[0];
    if (!good)
        printf("FAILED seed %" PRIu64 ": %s\n  again: make check-sim SEED=%" PRIu64 "\n", seed, x->wrong, seed);
    add(t, x);
    world_free(x);
    return good;
}

static void print_totals(const struct totals *t)
{
    static const char *const names[TB_SIM_KINDS] = {"open",    "read",        "write",   "durable write",
                                                    "sync",    "folder sync", "reserve", "name",
                                                    "receive", "send",        "accept",  "connect"};
    printf("%" PRIu64 " seeds, %" PRIu64 " steps, %" PRIu64 " simulated seconds, %" PRIu64
           " acknowledged changes, %" PRIu64 " refused, %" PRIu64 " power cuts, %" PRIu64 " process ends, %" PRIu64
           " stops, %" PRIu64 " failures met, %" PRIu64 " hang-ups, %" PRIu64 " flipped bits; %" PRIu64
           " chores, %" PRIu64 " messages brought back, %" PRIu64 " backups under load, %" PRIu64
           " stores restored, %" PRIu64 " stores checked; failed calls:",
           t->seeds, t->s.steps, t->simulated_s, t->s.acked, t->s.refused, t->s.cuts, t->s.kills, t->s.stops,
           t->failures, t->s.disconnects, t->flipped, t->s.chores, t->s.restored, t->s.backups, t->s.restores,
           t->s.checked);
    for (int k = 0; k < TB_SIM_KINDS; k++)
        if (t->faults[k])
            printf(" %s %" PRIu64, names[k], t->faults[k]);
    printf("; digest %016" PRIx64 "\n", t->digest);
}

/* warm_up: libraries allocate what they keep for ever at their first use: that must not be the process's own memory. */
static void warm_up(void)
{
    struct totals t = {0};
    process_plain(true);
    (void)run_seed(0, &t);
    process_plain(false);
}

/* state_read, state_write: how far an earlier run came, and all its figures; a run of another commit begins anew. */
static bool state_read(const char *path, uint64_t *seed, struct totals *t)
{
    struct totals old;
    FILE *f = path ? fopen(path, "rb") : NULL;
    bool there = f && fread(&old, sizeof(old), 1, f) == 1;
    if (f)
        (void)fclose(f); /* read only */
    if (there) {
        *t = old;
        *seed += old.seeds;
    }
    return there;
}

static void state_write(const char *path, const struct totals *t)
{
    FILE *f = path ? fopen(path, "wb") : NULL;
    if (f && (fwrite(t, sizeof(*t), 1, f) != 1 || fclose(f) != 0))
        perror(path);
}

struct options {
    uint64_t seed, count, minutes;
    const char *state;
};

static struct options options(int argc, char **argv)
{
    struct options o = {.seed = 1, .count = process_has_memory() ? 200 : 30};
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "1";
        bool pair = strncmp(argv[i], "--", 2) == 0;
        if (strcmp(argv[i], "--minutes") == 0)
            o.minutes = strtoull(next, NULL, 10);
        else if (strcmp(argv[i], "--from") == 0)
            o.seed = strtoull(next, NULL, 10);
        else if (strcmp(argv[i], "--state") == 0)
            o.state = next;
        else if (strcmp(argv[i], "-v") == 0)
            verbose = true;
        else {
            o.seed = strtoull(argv[i], NULL, 10);
            o.count = strtoull(next, NULL, 10);
            pair = true;
        }
        i += pair;
    }
    return o;
}

int main(int argc, char **argv)
{
    struct options o = options(argc, argv);
    struct totals t = {0};
    (void)setvbuf(stdout, NULL, _IOLBF, 0);                    /* what was said before an abort is wanted */
    tb_log_level(verbose ? TB_LOG_INFO : (enum tb_level) - 1); /* failures are what it is about */
    warm_up();
    if (state_read(o.state, &o.seed, &t))
        printf("going on at seed %" PRIu64 "\n", o.seed);
    time_t begin = time(NULL);
    bool good = true;
    for (uint64_t i = 0; good && (o.minutes ? time(NULL) < begin + (time_t)o.minutes * 60 : i < o.count); i++) {
        good = run_seed(o.seed + i, &t);
        if (good && i % 100 == 99)
            state_write(o.state, &t);
    }
    if (good)
        state_write(o.state, &t);
    print_totals(&t);
    printf("[  %s  ] 1 test(s).\n", good ? "PASSED" : "FAILED");
    return !good;
}
