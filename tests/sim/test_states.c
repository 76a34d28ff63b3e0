/*
 * test_states.c: every state a power cut could leave: after each write, sync or change of a name, LMDB's own writes
 * included, the disk as it would be found (nothing, everything, any sectors of what was not durable, the last write
 * torn) is opened as a store of its own and must be what the model allows; and it must take the next write.
 *
 *   test_states                 what CI runs: 50,000 states of random workloads, every change of the disk looked at;
 * and all workloads of 1 and of 2 operations out of 12, every flush looked at test_states --random N [--from SEED] N
 * states of random workloads test_states --all K [--from I]             all workloads of K operations
 *   ... --minutes M --state FILE               for so long; FILE keeps how far it came, and the next run goes on there
 *
 * Thread: one. A failure prints its seed or its workload.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "scripts.h"

struct look { /* what is looked at, and how much of it */
    struct world *x;
    char dir[64]; /* for images */
    uint64_t states, events, seed, flushes;
    bool only_flushes; /* look after those alone */
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
    uint64_t settled = tb_sim_now_ns(s.sim) + 20000000; /* what was queued arrives meanwhile */
    while (good && tb_sim_now_ns(s.sim) < settled)
        if (server_turn(&s) == 0 && !server_wait(&s))
            break;
    good = good && model_check(l->x, &s, false, why) && model_next_write(l->x, &s, why);
    tb_sim_restart(s.sim); /* whatever it still had under way */
    server_died(&s);
    process_forget(s.sim);
    tb_sim_free(s.sim);
    server_folder_empty(l->dir);
    if (!good)
        (void)snprintf(l->wrong, sizeof(l->wrong), "event %" PRIu64 " (%s): %s", l->events, mode_names[mode], why);
    return good;
}

/* flushed: has a flush ended since this was asked last? */
static bool flushed(struct look *l)
{
    static const enum tb_sim_kind kinds[] = {TB_SIM_DURABLE, TB_SIM_SYNC, TB_SIM_SYNC_DIR};
    uint64_t n = 0;
    for (size_t i = 0; i < TB_ARRAY_LEN(kinds); i++)
        n += tb_sim_count(l->x->s.sim, kinds[i]);
    bool some = n != l->flushes;
    l->flushes = n;
    return some;
}

static void on_change(void *user)
{
    struct look *l = user;
    l->events++;
    if (l->wrong[0] || (l->only_flushes && !flushed(l)))
        return;
    unsigned was = process_pause();
    process_plain(true);
    for (unsigned m = 0; m < TB_ARRAY_LEN(modes) && !l->wrong[0]; m++)
        (void)open_image(l, m);
    process_plain(false);
    process_resume(was);
}

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

/* ---- all workloads of k operations ---- */

static uint64_t power(uint64_t base, unsigned k)
{
    return k == 0 ? 1 : base * power(base, k - 1);
}

/* workload: the digits of i in base SCRIPTS are the operations, one after the other. */
static bool workload(struct look *l, struct world *template, uint64_t i, unsigned k)
{
    char name[120] = "";
    struct world *x = world_clone(template, 1000 + i);
    l->x = x;
    l->seed = i;
    if (!world_start(x))
        (void)snprintf(l->wrong, sizeof(l->wrong), "%s", x->wrong);
    world_idle(x, 100000000);
    (void)flushed(l);
    tb_sim_watch(x->s.sim, on_change, l);
    for (unsigned n = 0; n < k && !x->wrong[0] && !l->wrong[0]; n++, i /= SCRIPTS) {
        (void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "%s%s", n ? ", " : "",
                       scripts[i % SCRIPTS].name);
        (void)script_run(x, (unsigned)(i % SCRIPTS));
    }
    world_idle(x, 1500000000); /* the checkpoint */
    tb_sim_watch(x->s.sim, NULL, NULL);
    if (x->wrong[0] && !l->wrong[0])
        (void)snprintf(l->wrong, sizeof(l->wrong), "%s", x->wrong);
    tb_sim_restart(x->s.sim);
    world_died(x);
    world_free(x);
    if (l->wrong[0])
        printf("FAILED workload %" PRIu64 " of %u operations (%s): %s\n  again: test_states --all %u --from %" PRIu64
               "\n",
               l->seed, k, name, l->wrong, k, l->seed);
    return !l->wrong[0];
}

/* ---- runs that can be gone on with ---- */

struct run {
    const char *what; /* for people */
    const char *state;
    uint64_t next, end, states, minutes; /* of seeds or workloads; of states; end 0: states decide */
    unsigned operations;                 /* 0: random workloads */
};

static void state_read(struct run *r, struct look *l)
{
    FILE *f = r->state ? fopen(r->state, "r") : NULL;
    if (f && fscanf(f, "%" SCNu64 " %" SCNu64 " %" SCNu64, &r->next, &l->states, &l->events) == 3)
        printf("%s: going on at %" PRIu64 " with %" PRIu64 " states behind\n", r->what, r->next, l->states);
    if (f)
        (void)fclose(f); /* read only */
}

static void state_write(const struct run *r, const struct look *l)
{
    FILE *f = r->state ? fopen(r->state, "w") : NULL;
    if (f && (fprintf(f, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", r->next, l->states, l->events) < 0 || fclose(f) != 0))
        perror(r->state);
}

static bool go(struct run *r)
{
    struct look l = {.only_flushes = r->operations > 2}; /* of 3 operations there are enough */
    bool good = true;
    time_t begin = time(NULL);
    server_folder(l.dir);
    process_plain(true);
    (void)random_seed(&l, 0, 50); /* what libraries keep for ever is allocated now */
    process_plain(false);
    l.states = l.events = 0;
    struct world *template = r->operations ? scripts_world() : NULL;
    state_read(r, &l);
    while (good && (r->end ? r->next < r->end : l.states < r->states) &&
           (r->minutes == 0 || time(NULL) < begin + (time_t)r->minutes * 60)) {
        good = r->operations ? workload(&l, template, r->next, r->operations) : random_seed(&l, r->next, 1000);
        r->next++;
        if (good)
            state_write(r, &l);
    }
    printf("%s: %" PRIu64 " states after %" PRIu64 " changes, up to number %" PRIu64 "%s\n", r->what, l.states,
           l.events, r->next - 1, r->end && r->next < r->end && good ? " (not at the end yet)" : "");
    if (template)
        world_free(template);
    server_folder_remove(l.dir);
    return good;
}

/* ci: all workloads of one and two operations on one core, random ones on the other. */
static int ci(void)
{
    bool all = process_has_memory(); /* else it is the slow build: a sample */
    struct run one = {.what = "all of 1 operation", .end = SCRIPTS, .operations = 1};
    struct run two = {.what = "all of 2 operations", .end = all ? power(SCRIPTS, 2) : 6, .operations = 2};
    struct run random = {.what = "random workloads", .next = 1, .states = all ? 50000 : 1000};
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(!(go(&one) && go(&two)));
    bool good = go(&random);
    if (child < 0)
        good = go(&one) && go(&two) && good;
    else if (waitpid(child, &status, 0) != child || status != 0)
        good = false;
    printf("[  %s  ] 3 test(s).\n", good ? "PASSED" : "FAILED");
    return !good;
}

int main(int argc, char **argv)
{
    struct run r = {.what = "random workloads", .next = 1};
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    tb_log_level((enum tb_level) - 1); /* failures are what it is about */
    if (argc < 3)
        return ci();
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t n = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--random") == 0)
            r.states = n;
        else if (strcmp(argv[i], "--all") == 0) {
            r.what = "all workloads";
            r.operations = (unsigned)n;
            r.next = 0;
            r.end = power(SCRIPTS, r.operations);
        } else if (strcmp(argv[i], "--from") == 0)
            r.next = n;
        else if (strcmp(argv[i], "--count") == 0) /* behind --all and --from */
            r.end = r.next + n < r.end ? r.next + n : r.end;
        else if (strcmp(argv[i], "--minutes") == 0)
            r.minutes = n;
        else if (strcmp(argv[i], "--state") == 0)
            r.state = argv[i + 1];
    }
    bool good = go(&r);
    printf("[  %s  ] 1 test(s).\n", good ? "PASSED" : "FAILED");
    return !good;
}
