/*
 * test_faults.c: each of sixteen operations, and the start of the server, with its nth call to the disk failing, for
 * every n, and with its nth allocation failing. The answer is never a false OK, nothing crashes, the next start is
 * clean, finds what the model allows and takes the next write.
 *
 *   test_faults                 what CI runs: all calls, SAMPLE allocations
 *   test_faults --io | --memory [--all] [--state FILE] [--minutes M]     one of the two; all allocations; resumable
 *   test_faults --one KIND SCRIPT N     again: KIND as printed by a failure
 *
 * Thread: one.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "process.h"
#include "scripts.h"

enum { SAMPLE = 2000, FAULTS = 10, SCRIPT_START = SCRIPTS_ALL };
#define DISK_KINDS \
    (1u << TB_SIM_OPEN | 1u << TB_SIM_READ | 1u << TB_SIM_WRITE | 1u << TB_SIM_DURABLE | 1u << TB_SIM_SYNC | \
     1u << TB_SIM_SYNC_DIR | 1u << TB_SIM_RESERVE | 1u << TB_SIM_NAMES)

/* A fault: which sort, once or from then on. Sticky EINTR is left out: libraries try again for ever, and may. */
static const struct fault {
    const char *name;
    int error; /* 0: an allocation */
    bool sticky;
} faults[FAULTS + 1] = {
    {"eio", EIO, false},
    {"eio-sticky", EIO, true},
    {"enospc", ENOSPC, false},
    {"enospc-sticky", ENOSPC, true},
    {"short", TB_SIM_SHORT, false},
    {"short-sticky", TB_SIM_SHORT, true},
    {"eintr", EINTR, false},
    {"eagain", EAGAIN, false},
    {"eagain-sticky", EAGAIN, true},
    {"memory", 0, false},
    {"memory-sticky", 0, true},
};

struct totals {
    uint64_t runs, met, acked, refused, failures;
};

static struct world *template;
static char doing[96]; /* said when the program crashes */

static void on_crash(int sig)
{
    static const char text[] = "FAILED by a crash: test_faults --one ";
    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    (void)!write(STDOUT_FILENO, doing, strlen(doing));
    (void)!write(STDOUT_FILENO, "\n", 1);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static void arm(struct world *x, const struct fault *f, uint64_t n)
{
    if (f->error)
        tb_sim_fail_any(x->s.sim, DISK_KINDS, n, f->error, f->sticky);
    else
        process_fail(n, f->sticky);
}

static uint64_t met(struct world *x, const struct fault *f)
{
    return f->error ? tb_sim_count_any(x->s.sim) : process_allocations();
}

static void disarm(struct world *x)
{
    tb_sim_fail_any(x->s.sim, 0, 0, 0, false);
    process_fail(0, false);
    x->faults = false;
}

/* afterwards: the machine loses its power, and the next start finds what it must. */
static void afterwards(struct world *x)
{
    char why[WORLD_WRONG] = "";
    if (tb_sim_power_cut(x->s.sim, TB_SIM_CUT_NONE) != 0)
        abort();
    world_died(x);
    if (x->wrong[0] || !world_start(x))
        return;
    world_settle(x);
    if (!model_check(x, &x->s, true, why) || !model_next_write(x, &x->s, why))
        world_wrong(x, "%s", why);
    tb_sim_restart(x->s.sim);
    world_died(x);
}

/* do_script: the operation, or the start of the server, with the fault armed. */
static void do_script(struct world *x, unsigned script, const struct fault *f, uint64_t n, uint64_t *calls)
{
    bool start = script == SCRIPT_START;
    if (start)
        arm(x, f, n);
    bool up = server_open(&x->s) && server_listen(&x->s);
    if (!up && !start)
        world_wrong(x, "it does not start: %s", x->s.why);
    if (up)
        world_idle(x, 100000000);
    if (!start)
        arm(x, f, n);
    x->faults = n > 0;
    if (up)
        (void)script_run(x, start ? 0 : script);
    if (up)
        world_idle(x, 3000000000); /* checkpoints, and a failed shard's way back */
    *calls = met(x, f);
    disarm(x);
}

static const char *script_name(unsigned script)
{
    return script == SCRIPT_START ? "start" : scripts[script].name;
}

/* run: false if something is wrong. *calls: how many there were to fail. n = 0: none does. */
static bool run(unsigned script, const struct fault *f, uint64_t n, struct totals *t, uint64_t *calls)
{
    struct world *x = world_clone(template, 11);
    (void)snprintf(doing, sizeof(doing), "%s %u %" PRIu64, f->name, script, n);
    do_script(x, script, f, n, calls);
    t->runs++;
    t->acked += x->stats.acked;
    t->refused += x->stats.refused;
    t->failures += x->s.failures;
    t->met += *calls >= n;
    afterwards(x);
    bool good = !x->wrong[0];
    if (!good)
        printf("FAILED %s, call %" PRIu64 ", %s: %s\n  again: test_faults --one %s %u %" PRIu64 "\n",
               script_name(script), n, f->name, x->wrong, f->name, script, n);
    world_free(x);
    return good;
}

/* sweep: every n, or each step-th. */
static unsigned sweep(unsigned script, const struct fault *f, uint64_t samples, struct totals *t)
{
    uint64_t calls = 0, unused;
    unsigned bad = !run(script, f, 0, t, &calls);
    uint64_t step = samples && calls > samples ? calls / samples : 1;
    for (uint64_t n = 1; n <= calls && bad < 5; n += step)
        bad += !run(script, f, n, t, &unused);
    return bad;
}

static void say(const char *what, const struct totals *t)
{
    printf("%s: %" PRIu64 " runs, %" PRIu64 " with a fault, %" PRIu64 " acknowledged, %" PRIu64 " refused, %" PRIu64
           " shards failed\n",
           what, t->runs, t->met, t->acked, t->refused, t->failures);
}

int main(int argc, char **argv)
{
    bool io = true, memory = process_has_memory(), all = false;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    tb_log_level(getenv("SIM_LOG") ? TB_LOG_INFO : (enum tb_level) - 1); /* failures are what it is about */
    process_plain(true);
    template = scripts_world();
    world_free(template);
    process_plain(false);
    template = scripts_world();
    (void)signal(SIGABRT, on_crash);
    (void)signal(SIGSEGV, on_crash);
    struct totals t = {0}, m = {0};
    unsigned bad = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--io") == 0)
            memory = false;
        else if (strcmp(argv[i], "--memory") == 0)
            io = false;
        else if (strcmp(argv[i], "--all") == 0)
            all = true;
        else if (strcmp(argv[i], "--one") == 0 && i + 3 < argc) {
            uint64_t calls;
            for (unsigned f = 0; f < TB_ARRAY_LEN(faults); f++)
                if (faults[f].name && strcmp(faults[f].name, argv[i + 1]) == 0)
                    return !run((unsigned)strtoul(argv[i + 2], NULL, 10), &faults[f], strtoull(argv[i + 3], NULL, 10),
                                &t, &calls);
        }
    }
    for (unsigned f = 0; f < TB_ARRAY_LEN(faults); f++)
        for (unsigned s = 0; s <= SCRIPT_START; s++) {
            if (faults[f].error && io)
                bad += sweep(s, &faults[f], process_has_memory() || all ? 0 : 4, &t);
            else if (!faults[f].error && memory)
                bad += sweep(s, &faults[f], all ? 0 : SAMPLE / SCRIPTS_ALL / 2, &m);
        }
    say("disk calls", &t);
    say("allocations", &m);
    printf("[  %s  ] %d test(s).\n", bad == 0 ? "PASSED" : "FAILED", bad == 0 ? io + memory : 1);
    return bad != 0;
}
