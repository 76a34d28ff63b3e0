/*
 * sim_fault.c: what goes wrong in the simulated world by order: calls that fail by number or by chance, reads with a
 * bit wrong, disks that lie; and the watcher that sees every change a power cut could find.
 *
 * Faults by number draw nothing from the seed, so a sweep over n meets the same run up to its nth call. Thread: the
 * world's.
 */
#include "sim_world.h"

#include <errno.h>

static bool hits(struct sim_fault *f)
{
    f->count++;
    return f->at != 0 && (f->count == f->at || (f->sticky && f->count > f->at));
}

/* Calls whose result is a number of bytes. */
static bool has_size(enum tb_sim_kind kind)
{
    return kind == TB_SIM_READ || kind == TB_SIM_WRITE || kind == TB_SIM_DURABLE || kind == TB_SIM_RECV;
}

int sim_fault(struct tb_sim *sim, enum tb_sim_kind kind)
{
    struct sim_odds odds = sim->odds[kind];
    int error = hits(&sim->fault[kind]) ? sim->fault[kind].error : 0;
    if (sim->any_kinds >> kind & 1 && hits(&sim->any))
        error = sim->any.error;
    if (error == 0 && odds.one_in != 0 && tb_sim_choose(sim, odds.one_in) == 0)
        error = odds.error;
    if (error == TB_SIM_SHORT && !has_size(kind))
        error = 0;
    sim->injected[kind] += error != 0;
    return error;
}

void tb_sim_fail_nth(struct tb_sim *sim, enum tb_sim_kind kind, uint64_t n, int error, bool sticky)
{
    struct sim_fault *f = &sim->fault[kind];
    f->at = n ? f->count + n : 0;
    f->error = error;
    f->sticky = sticky;
}

uint64_t tb_sim_count(const struct tb_sim *sim, enum tb_sim_kind kind)
{
    return sim->fault[kind].count;
}

void tb_sim_fail_any(struct tb_sim *sim, uint32_t kinds, uint64_t n, int error, bool sticky)
{
    sim->any_kinds = kinds;
    sim->any = (struct sim_fault){.at = n, .error = error, .sticky = sticky};
}

uint64_t tb_sim_count_any(const struct tb_sim *sim)
{
    return sim->any.count;
}

void tb_sim_odds(struct tb_sim *sim, enum tb_sim_kind kind, uint32_t one_in, int error)
{
    sim->odds[kind] = (struct sim_odds){one_in, error};
}

uint64_t tb_sim_injected(const struct tb_sim *sim, enum tb_sim_kind kind)
{
    return sim->injected[kind];
}

void tb_sim_split(struct tb_sim *sim, bool on)
{
    sim->split = on;
}

void tb_sim_lie(struct tb_sim *sim, bool durable_writes, bool syncs)
{
    sim->lie_durable = durable_writes;
    sim->lie_sync = syncs;
}

/* ---- bits ---- */

void tb_sim_flip_reads(struct tb_sim *sim, uint32_t one_in)
{
    sim->flip_one_in = one_in;
}

uint64_t tb_sim_flipped(const struct tb_sim *sim)
{
    return sim->flipped;
}

/* flipped_before: was this place read wrong a short while ago? A second read of it is right: only the transfer failed.
 */
static bool flipped_before(const struct tb_sim *sim, const struct sim_node *n, uint64_t offset, int64_t len)
{
    for (unsigned i = 0; i < TB_ARRAY_LEN(sim->flip); i++)
        if (sim->flip[i].node == n && sim->flip[i].at >= offset && sim->flip[i].at < offset + (uint64_t)len)
            return true;
    return false;
}

void sim_flip(struct tb_sim *sim, int fd, char *bytes, int64_t len, uint64_t offset)
{
    if (sim->flip_one_in == 0 || len <= 0 || tb_sim_choose(sim, sim->flip_one_in) != 0)
        return;
    const struct sim_node *n = sim_node_of_fd(sim, fd);
    uint64_t bit = tb_sim_choose(sim, (uint64_t)len * 8);
    if (flipped_before(sim, n, offset, len))
        return;
    bytes[bit / 8] = (char)(bytes[bit / 8] ^ (1 << (bit % 8)));
    sim->flip[sim->flipped++ % TB_ARRAY_LEN(sim->flip)] = (struct sim_flip){n, offset + bit / 8};
}

/* ---- watching ---- */

void tb_sim_watch(struct tb_sim *sim, void (*fn)(void *user), void *user)
{
    sim->watch = fn;
    sim->watch_user = user;
}

void sim_changed(struct tb_sim *sim)
{
    if (!sim->watch || sim->watching)
        return;
    sim->watching = true;
    sim->watch(sim->watch_user);
    sim->watching = false;
}
