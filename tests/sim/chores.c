/*
 * chores.c: what goes on beside the clients: collection, scrub, backups, bringing back what was deleted; and what must
 * hold of the store as files: world.h.
 *
 * What comes back from the trash goes to a mailbox of its own, BACK, so the model of the others stays exact: whatever
 * is in it must be a message that was sent, to the byte, and its UIDs only rise. A backup that is made while nothing
 * changes must be restored as exactly what the model says. Thread: one.
 */
#include <stdio.h>
#include <stdlib.h>

#include <tambo/admin.h>
#include <tambo/backup.h>
#include <tambo/check.h>
#include <tambo/trash.h>
#include "process.h"
#include "world.h"

enum { BACKUP_TURNS = 2000000 };

/* ---- beside the clients ---- */

static struct tb_worker *owner(struct world *x, uint32_t shard)
{
    return x->s.w[shard % x->s.opt.workers];
}

/* bring_back: every expunged message of the account that there still is, to BACK. */
static void bring_back(struct world *x, struct tb_account *a)
{
    struct tb_trash_cursor c = {.messages = true};
    struct tb_restored sum = {0};
    struct tb_uidset all;
    tb_uidset_init(&all);
    tb_uidset_add(&all, 1, UINT32_MAX - 1);
    struct tb_trash_filter f = {.uids = &all, .to = TB_SLICE(WORLD_BACK)};
    while (!c.end && tb_trash_restore(a, &f, &c, &sum) == TB_OK)
        ;
    if (!c.end && !x->faults)
        world_wrong(x, "bringing back was refused without cause");
    tb_uidset_free(&all);
    x->stats.restored += sum.messages;
}

/* let_go: BACK is emptied; all of it can come back again. */
static void let_go(struct tb_account *a)
{
    struct tb_arena arena;
    struct tb_mailbox m;
    struct tb_view *v;
    tb_arena_init(&arena, 8192);
    if (tb_mailbox_find(a, TB_SLICE(WORLD_BACK), &arena, &m) == TB_OK && tb_view_open(a, m.mbox, &v) == TB_OK) {
        enum tb_rc rc = tb_delete(v, tb_view_uids(v));
        (void)rc; /* refused, with a fault: they stay */
        tb_view_close(v);
    }
    tb_arena_free(&arena);
}

static void on_trash(struct world *x, unsigned account, bool back)
{
    struct tb_account_id id = x->inbox[account].id;
    struct tb_account *a;
    if (!tb_store_serves(x->s.store, id) || tb_account_open(owner(x, id.shard), id, &a) != TB_OK)
        return;
    if (back)
        bring_back(x, a);
    else
        let_go(a);
    tb_account_close(a);
}

static void backup_path(const struct world *x, char out[120])
{
    (void)snprintf(out, 120, "%s/backup", x->s.dir);
}

static bool backup_begin(struct world *x)
{
    char dest[120];
    struct tb_error err = {0};
    backup_path(x, dest);
    struct tb_backup_options opt = {.dest = dest};
    return tb_backup_start(x->s.w[0], &opt, &err) == TB_OK;
}

void chore_random(struct world *x)
{
    uint32_t shard = (uint32_t)world_choose(x, x->s.opt.shards);
    unsigned account = (unsigned)world_choose(x, x->accounts);
    uint64_t what = world_choose(x, 8);
    if (!x->s.up || !tb_store_serves(x->s.store, (struct tb_account_id){.shard = shard}))
        return;
    x->stats.chores++;
    process_enter();
    if (what <= 2)
        tb_gc_start(owner(x, shard), shard, what == 0);
    else if (what == 3)
        tb_scrub_start(owner(x, shard), shard);
    else if (what <= 6)
        on_trash(x, account, what < 6);
    else if (backup_begin(x))
        x->stats.backups++;
    process_leave();
}

/* ---- the store as files ---- */

static void complain(void *user, const struct tb_finding *f)
{
    if (f->damage)
        world_wrong(user, "the check finds: shard %u: %.100s: %.150s", f->shard, f->object, f->what);
}

static void check_folder(struct world *x, const char *dir)
{
    struct tb_check_options opt = {.user = x, .found = complain};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    struct tb_io *io = tb_sim_io(x->s.sim);
    if (tb_store_check(io, dir, &opt, &stat, &err) != TB_OK)
        world_wrong(x, "the check cannot run: %s", err.text);
    tb_io_close(io);
    x->stats.checked++;
}

void chore_check(struct world *x)
{
    check_folder(x, x->s.dir);
}

bool chore_backup(struct world *x)
{
    struct tb_backup_status st = {.running = true};
    process_enter();
    bool begun = backup_begin(x);
    process_leave();
    for (int i = 0; i < BACKUP_TURNS && st.running; i++) {
        tb_backup_status(x->s.store, &st);
        if (server_turn(&x->s) == 0 && !server_wait(&x->s))
            break;
    }
    if (!begun && !st.running && st.rc == TB_OK) /* one was under way: it may have begun before the last change */
        return false;
    if (st.running || st.rc != TB_OK)
        world_wrong(x, "a backup fails: %s", st.err.text);
    return begun && !x->wrong[0];
}

void chore_restore(struct world *x)
{
    char dest[120], to[100], why[WORLD_WRONG] = "";
    struct tb_error err = {0};
    struct tb_restore_result result = {0};
    struct server *r = calloc(1, sizeof(*r));
    backup_path(x, dest);
    (void)snprintf(to, sizeof(to), "%.64s/r%u", x->s.dir, (unsigned)x->stats.restores++);
    struct tb_restore_options opt = {.dest = dest, .to = to, .at_ms = INT64_MAX};
    struct tb_io *io = tb_sim_io(x->s.sim);
    if (!r)
        abort();
    if (tb_restore(io, &opt, &result, &err) != TB_OK)
        world_wrong(x, "a backup cannot be restored: %s", err.text);
    tb_io_close(io);
    if (!x->wrong[0])
        check_folder(x, to);
    *r = (struct server){.sim = x->s.sim, .opt = x->s.opt};
    (void)snprintf(r->dir, sizeof(r->dir), "%.79s", to);
    if (!x->wrong[0] && !server_open(r))
        world_wrong(x, "a restored store does not open: %s", r->why);
    if (!x->wrong[0] && !model_check(x, r, false, why))
        world_wrong(x, "restored: %s", why);
    server_close(r);
    free(r);
}
