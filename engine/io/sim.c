/*
 * sim.c: the simulated world's clock, choices, events and ios; the controls of sim.h that are neither disk nor network.
 *
 * Every op in flight is an event in its io's timer heap with a seeded due time, or parked at a socket that has nothing
 * for it. A turn completes what is due in order of time; with wait and nothing due, the virtual clock first jumps to
 * the io's next event. An offload's work runs inside the turn that completes it. Must never: read a real clock, draw
 * real randomness, or depend on an address. Invariants: W1, W2 of sim_world.h. Thread: one for the whole world.
 */
#include "sim_world.h"

#include <errno.h>
#include <stdlib.h>

#define WALL_BEGIN_S 1750000000

/* ---- choices: xoshiro256** (Blackman, Vigna), seeded by splitmix64 ---- */

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t rng_next(struct sim_rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

void sim_seed(struct sim_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += 0x9e3779b97f4a7c15u;
        uint64_t z = seed;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

static void rng_bytes(struct sim_rng *r, char *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = rng_next(r);
        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

uint64_t tb_sim_choose(struct tb_sim *sim, uint64_t n)
{
    return n ? rng_next(&sim->rng) % n : 0;
}

bool sim_chance(struct tb_sim *sim, unsigned percent)
{
    return tb_sim_choose(sim, 100) < percent;
}

void sim_noise(struct tb_sim *sim, char *p, size_t n)
{
    rng_bytes(&sim->rng, p, n);
}

void sim_note(struct tb_sim *sim, uint64_t a, uint64_t b)
{
    uint64_t h = sim->digest ^ (a * 0x9e3779b97f4a7c15u);
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
    h ^= b;
    h = (h ^ (h >> 32)) * 0x94d049bb133111ebu;
    sim->digest = h ^ sim->now_ns;
}

/* ---- events ---- */

static uint64_t latency(struct tb_sim *sim)
{
    uint64_t span = sim->latency_max_ns - sim->latency_min_ns;
    span >>= tb_sim_choose(sim, 5); /* most are quick */
    return sim->latency_min_ns + tb_sim_choose(sim, span + 1);
}

static void add_event(struct tb_io *io, struct tb_op *op)
{
    tb_sim_own_memory++;
    TB_ASSERT(tb_timers_add(&io->timers, op)); /* a test machine without memory can't go on */
    tb_sim_own_memory--;
}

void sim_schedule(struct tb_op *op)
{
    struct tb_sim *sim = sim_of(op->io);
    op->due_ns = sim->now_ns + latency(sim);
    op->state = TB_OP_WAITING;
    add_event(op->io, op);
}

unsigned sim_finish(struct tb_op *op, int64_t result)
{
    struct sim_io *io = sim_io_of(op->io);
    sim_note(io->sim, io->number * 16 + op->kind, (uint64_t)result);
    tb_op_finish(op, result);
    return 1;
}

static unsigned complete(struct tb_sim *sim, struct tb_op *op)
{
    switch (op->kind) {
    case TB_OP_READ:
    case TB_OP_WRITE:
    case TB_OP_DATASYNC:
        return sim_disk_complete(sim, op);
    case TB_OP_OFFLOAD:
        op->work(op);
        return sim_finish(op, op->result);
    case TB_OP_TIMER:
        return sim_finish(op, 0);
    case TB_OP_POST:
        return sim_finish(op, op->result);
    default:
        return sim_net_complete(sim, op);
    }
}

static bool has_due(const struct sim_io *io)
{
    return io->base.ready.head || (io->base.timers.n > 0 && io->base.timers.v[0].due_ns <= io->sim->now_ns);
}

static unsigned sim_turn_io(struct tb_io *io, bool wait)
{
    struct sim_io *s = sim_io_of(io);
    struct tb_sim *sim = s->sim;
    if (s->dead || (wait && !has_due(s) && io->timers.n == 0)) {
        io->interrupted = true; /* nothing will ever come */
        return 0;
    }
    if (wait && !has_due(s))
        sim->now_ns = io->timers.v[0].due_ns;
    io->now_ns = sim->now_ns;
    uint64_t limit = io->timers.seq;
    unsigned ran = 0;
    for (struct tb_op *op; (op = tb_timers_pop(&io->timers, io->now_ns, limit)) != NULL;)
        ran += complete(sim, op);
    return ran + tb_ready_run(io);
}

static void sim_submit(struct tb_io *io, struct tb_op *op)
{
    struct tb_sim *sim = sim_of(io);
    if (sim_io_of(io)->dead)
        return;
    switch (op->kind) {
    case TB_OP_READ:
    case TB_OP_WRITE:
    case TB_OP_DATASYNC:
        sim_disk_submit(sim, op);
        break;
    case TB_OP_OFFLOAD:
        sim_schedule(op);
        break;
    default:
        sim_net_submit(sim, op);
    }
}

static void sim_cancel(struct tb_io *io, struct tb_op *op)
{
    struct sim_io *s = sim_io_of(io);
    if (s->dead || op == s->firing) /* an accept that ends after its done */
        return;
    bool waits = op->state == TB_OP_WAITING;
    if (waits && op->kind != TB_OP_ACCEPT && sim_chance(s->sim, 50))
        return; /* its result came first */
    if (waits)
        tb_timers_remove(&io->timers, op);
    if (op->kind <= TB_OP_DATASYNC)
        sim_disk_drop(s->sim, op);
    else if (op->kind != TB_OP_OFFLOAD)
        sim_net_forget(s->sim, op);
    tb_ready_push(io, op, -ECANCELED);
}

static void sim_post(struct tb_io *from, struct tb_io *to, struct tb_op *op)
{
    struct sim_io *t = sim_io_of(to);
    (void)from;
    if (t->dead)
        return;
    uint64_t due = t->sim->now_ns + latency(t->sim);
    t->post_due_ns = due > t->post_due_ns ? due : t->post_due_ns;
    op->due_ns = t->post_due_ns; /* equal times keep the order of submission */
    add_event(to, op);
}

/* ---- clock and random bytes ---- */

static uint64_t sim_clock_now(struct tb_io *io)
{
    return sim_of(io)->now_ns;
}

static int64_t sim_clock_wall_ms(struct tb_io *io)
{
    struct tb_sim *sim = sim_of(io);
    return sim->wall_offset_s * 1000 + (int64_t)(sim->now_ns / 1000000u);
}

static void sim_clock_random(struct tb_io *io, void *buf, size_t len)
{
    rng_bytes(&sim_io_of(io)->random, buf, len);
}

static const struct tb_clock_calls sim_clock = {sim_clock_now, sim_clock_wall_ms, sim_clock_random};

/* ---- worlds and ios ---- */

static void free_io(struct sim_io *s)
{
    tb_io_base_free(&s->base);
    free(s);
}

static void sim_close(struct tb_io *io)
{
    struct sim_io *s = sim_io_of(io);
    TB_ASSERT(s->dead || (io->timers.n == 0 && !io->ready.head));
    struct sim_io **at = &s->sim->ios;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free_io(s);
}

static const struct tb_backend sim_backend = {
    .name = "sim",
    .files = &sim_files,
    .sockets = &sim_sockets,
    .clock = &sim_clock,
    .close = sim_close,
    .turn = sim_turn_io,
    .submit = sim_submit,
    .cancel = sim_cancel,
    .post = sim_post,
};

struct tb_sim *tb_sim_new(uint64_t seed, const char *root_dir)
{
    struct tb_sim *sim = calloc(1, sizeof(*sim));
    if (!sim)
        return NULL;
    sim_seed(&sim->rng, seed);
    sim->now_ns = 1000000000u;
    sim->wall_offset_s = WALL_BEGIN_S;
    tb_sim_latency(sim, 1000, 200000);
    sim->net.next_port = 20000;
    if (sim_disk_init(sim, root_dir))
        return sim;
    tb_sim_free(sim);
    return NULL;
}

void tb_sim_free(struct tb_sim *sim)
{
    if (!sim)
        return;
    tb_sim_restart(sim);
    for (struct sim_io *s = sim->ios, *next; s; s = next) {
        next = s->next;
        free_io(s);
    }
    sim_disk_free(sim);
    sim_net_free(sim);
    free(sim);
}

struct tb_io *tb_sim_io(struct tb_sim *sim)
{
    struct sim_io *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->sim = sim;
    s->number = ++sim->ios_made;
    sim_seed(&s->random, tb_sim_choose(sim, UINT64_MAX));
    struct sim_io **at = &sim->ios;
    while (*at)
        at = &(*at)->next;
    *at = s;
    tb_io_base_init(&s->base, &sim_backend);
    return &s->base;
}

/* All that was in flight is forgotten; the ops' owners may give up their memory. */
static void kill_io(struct tb_sim *sim, struct sim_io *s, bool drop)
{
    TB_ASSERT(!s->base.in_turn); /* the world does not end inside a done */
    for (struct tb_op *op; (op = tb_timers_pop(&s->base.timers, UINT64_MAX, UINT64_MAX)) != NULL;) {
        if (drop && op->kind <= TB_OP_DATASYNC)
            sim_disk_drop(sim, op);
        op->state = TB_OP_IDLE;
    }
    for (struct tb_op *op; (op = tb_list_pop(&s->base.ready)) != NULL;)
        op->state = TB_OP_IDLE;
    s->dead = true;
}

static void kill_process(struct tb_sim *sim, bool drop)
{
    for (struct sim_io *s = sim->ios; s; s = s->next)
        kill_io(sim, s, drop);
    sim_disk_close_all(sim);
    sim_net_free(sim);
    sim_note(sim, 0xdead, drop);
}

void tb_sim_restart(struct tb_sim *sim)
{
    kill_process(sim, true);
}

int tb_sim_power_cut(struct tb_sim *sim, enum tb_sim_cut mode)
{
    int rc = sim_disk_cut(sim, mode); /* what is in flight has its part in it */
    kill_process(sim, false);
    return rc;
}

/* ---- time ---- */

void tb_sim_advance(struct tb_sim *sim, uint64_t ns)
{
    sim->now_ns += ns;
}

uint64_t tb_sim_now_ns(const struct tb_sim *sim)
{
    return sim->now_ns;
}

void tb_sim_set_wall(struct tb_sim *sim, int64_t seconds)
{
    sim->wall_offset_s = seconds - (int64_t)(sim->now_ns / 1000000000u);
}

void tb_sim_latency(struct tb_sim *sim, uint64_t min_ns, uint64_t max_ns)
{
    sim->latency_min_ns = min_ns ? min_ns : 1; /* never now: done does not run inside a submit's turn */
    sim->latency_max_ns = max_ns > sim->latency_min_ns ? max_ns : sim->latency_min_ns;
}

/* One of the ios that have something due, by the seed; NULL if none has. */
static struct sim_io *choose_due(struct tb_sim *sim)
{
    uint64_t n = 0;
    for (struct sim_io *s = sim->ios; s; s = s->next)
        n += !s->dead && has_due(s);
    if (n == 0)
        return NULL;
    uint64_t k = tb_sim_choose(sim, n);
    for (struct sim_io *s = sim->ios;; s = s->next) {
        if (!s->dead && has_due(s) && k-- == 0)
            return s;
    }
}

uint64_t tb_sim_next_ns(const struct tb_sim *sim)
{
    uint64_t next = UINT64_MAX;
    for (const struct sim_io *s = sim->ios; s; s = s->next) {
        if (!s->dead && s->base.ready.head)
            return sim->now_ns;
        if (!s->dead && s->base.timers.n > 0 && s->base.timers.v[0].due_ns < next)
            next = s->base.timers.v[0].due_ns;
    }
    return next != UINT64_MAX && next < sim->now_ns ? sim->now_ns : next;
}

unsigned tb_sim_turn(struct tb_sim *sim)
{
    for (;;) {
        struct sim_io *s = choose_due(sim);
        if (s) {
            unsigned ran = tb_io_turn(&s->base, false);
            if (ran > 0)
                return ran;
            continue;
        }
        uint64_t next = tb_sim_next_ns(sim);
        if (next == UINT64_MAX)
            return 0;
        sim->now_ns = next;
    }
}

uint64_t tb_sim_digest(const struct tb_sim *sim)
{
    return sim->digest;
}
