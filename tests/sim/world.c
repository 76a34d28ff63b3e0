/*
 * world.c: the life of a simulated server and its clients: made, run in turns, killed, started again: world.h.
 *
 * Turns: each step gives every actor that has something to do its turn by chance, then each worker one; when nothing
 * moves, the clock goes to the next thing due. Must never: let a run depend on anything but its seed and its options.
 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "process.h"

#define HANG_NS (600 * UINT64_C(1000000000))

uint64_t world_choose(struct world *x, uint64_t n)
{
    return tb_sim_choose(x->s.sim, n);
}

void world_wrong(struct world *x, const char *fmt, ...)
{
    va_list ap;
    if (x->wrong[0])
        return;
    va_start(ap, fmt);
    (void)vsnprintf(x->wrong, sizeof(x->wrong), fmt, ap);
    va_end(ap);
}

struct world *world_new(uint64_t seed, const struct server_options *opt, unsigned accounts)
{
    struct world *x = calloc(1, sizeof(*x));
    char dir[64];
    if (!x)
        abort();
    server_folder(dir);
    (void)snprintf(x->s.dir, sizeof(x->s.dir), "%s", dir);
    x->seed = seed;
    x->s.opt = *opt;
    x->next_id = 1;
    x->accounts = accounts;
    x->s.sim = tb_sim_new(seed, dir);
    if (!x->s.sim)
        abort();
    process_world(x->s.sim);
    if (!server_create(&x->s) || !server_open(&x->s))
        world_wrong(x, "no store: %s", x->s.why);
    for (unsigned i = 0; i < accounts && !x->wrong[0]; i++) {
        struct tb_identity id;
        (void)snprintf(x->inbox[i].name, sizeof(x->inbox[i].name), "u%u", i);
        if (!server_account(&x->s, x->inbox[i].name) ||
            tb_directory_find(x->s.store, tb_slice_str(x->inbox[i].name), &id) != TB_OK)
            world_wrong(x, "account %u cannot be made: %s", i, x->s.why);
        else
            x->inbox[i].id = id.id;
    }
    server_close(&x->s);
    return x;
}

void world_free(struct world *x)
{
    for (unsigned i = 0; i < x->actors; i++)
        actor_free(&x->actor[i]);
    process_forget(x->s.sim);
    tb_sim_free(x->s.sim);
    server_folder_remove(x->s.dir);
    free(x->sent);
    free(x);
}

bool world_start(struct world *x)
{
    if (!server_open(&x->s) || !server_listen(&x->s)) {
        world_wrong(x, "the server does not start: %s", x->s.why);
        return false;
    }
    return true;
}

struct actor *world_actor(struct world *x, enum role role, unsigned account)
{
    struct actor *a = &x->actor[x->actors];
    *a = (struct actor){.x = x, .number = x->actors++, .role = role, .account = account, .selected = -1};
    tb_buf_init(&a->wire.in, 64 << 20);
    tb_buf_init(&a->untagged, 64 << 20);
    tb_buf_init(&a->tagged, 4096);
    wire_forget(&a->wire);
    for (int k = 0; k < WORLD_BOXES; k++)
        (void)snprintf(a->now.box[k].name, sizeof(a->now.box[k].name), "a%u-%d", a->number, k);
    return a;
}

void world_step(struct world *x)
{
    unsigned moved = 0, first = (unsigned)world_choose(x, x->actors ? x->actors : 1);
    x->stats.steps++;
    for (unsigned i = 0; i < x->actors; i++) {
        struct actor *a = &x->actor[(first + i) % x->actors];
        if (actor_ready(a)) {
            moved++;
            if (world_choose(x, 4))
                actor_resume(a);
        } else if (a->waits && !x->scripted && a->role != ROLE_IDLE && !x->faults &&
                   tb_sim_now_ns(x->s.sim) - a->waits_since > HANG_NS) {
            world_wrong(x, "actor %u gets no answer", a->number);
        }
    }
    if (x->s.up)
        moved += server_turn(&x->s);
    if (moved == 0) {
        uint64_t next = x->s.up ? tb_sim_next_ns(x->s.sim) : UINT64_MAX;
        uint64_t now = tb_sim_now_ns(x->s.sim);
        for (unsigned i = 0; i < x->actors; i++)
            if (!(x->scripted && !x->actor[i].script) && x->actor[i].sleeps_until > now &&
                x->actor[i].sleeps_until < next)
                next = x->actor[i].sleeps_until;
        if (next != UINT64_MAX && next > now)
            tb_sim_advance(x->s.sim, next - now);
    }
}

void world_died(struct world *x)
{
    for (unsigned i = 0; i < x->actors; i++)
        wire_forget(&x->actor[i].wire);
    server_died(&x->s);
    for (int round = 0; round < 50; round++) /* all find out, and come to the end of what they were doing */
        for (unsigned i = 0; i < x->actors; i++) {
            x->actor[i].sleeps_until = 0;
            if (x->actor[i].waits)
                actor_resume(&x->actor[i]);
        }
}

void world_settle(struct world *x)
{
    for (int i = 0; i < 300; i++)
        if (server_turn(&x->s) == 0 && !server_wait(&x->s))
            break;
}

bool world_do(struct world *x, struct actor *a, void (*script)(struct actor *a))
{
    uint64_t since = tb_sim_now_ns(x->s.sim);
    a->finished = false;
    a->script = script;
    while (!a->finished && !x->wrong[0]) {
        if (tb_sim_now_ns(x->s.sim) - since > HANG_NS)
            world_wrong(x, "actor %u gets no answer", a->number);
        world_step(x);
    }
    return !x->wrong[0];
}

void world_idle(struct world *x, uint64_t ns)
{
    uint64_t end = tb_sim_now_ns(x->s.sim) + ns;
    while (tb_sim_now_ns(x->s.sim) < end && !x->wrong[0] && tb_sim_next_ns(x->s.sim) != UINT64_MAX)
        world_step(x);
}

struct world *world_clone(struct world *t, uint64_t seed)
{
    struct world *x = calloc(1, sizeof(*x));
    char dir[64];
    if (!x)
        abort();
    server_folder(dir);
    if (tb_sim_image(t->s.sim, TB_SIM_CUT_ALL, seed, dir) != 0)
        abort();
    *x = (struct world){.seed = seed,
                        .accounts = t->accounts,
                        .next_id = t->next_id,
                        .drains = t->drains,
                        .big = t->big,
                        .scripted = t->scripted};
    memcpy(x->inbox, t->inbox, sizeof(x->inbox));
    (void)snprintf(x->s.dir, sizeof(x->s.dir), "%s", dir);
    x->s.opt = t->s.opt;
    x->s.sim = tb_sim_new(seed, dir);
    if (!x->s.sim)
        abort();
    process_world(x->s.sim);
    for (size_t i = 0; i < t->sent_n; i++)
        *model_send(x, t->sent[i].account, t->sent[i].id) = t->sent[i];
    for (unsigned i = 0; i < t->actors; i++) {
        struct actor *a = world_actor(x, t->actor[i].role, t->actor[i].account);
        a->now = t->actor[i].now;
    }
    return x;
}
