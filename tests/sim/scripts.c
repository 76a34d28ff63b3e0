/*
 * scripts.c: twelve operations, each by the client that would do it, through its protocol: scripts.h.
 *
 * The choices inside an operation (which messages, which mailbox) come from the world's seed, so a run is the same
 * until something fails in it.
 */
#include "scripts.h"

#include <stdio.h>
#include <stdlib.h>

enum { IMAP, LMTP, SMTP, SUBMISSION, POP3 };

static void deliver_one(struct actor *a)
{
    act_deliver_to(a, 0, 1);
}

static void deliver_shards(struct actor *a)
{
    act_deliver_to(a, 0, 3);
}

/* deliver_large: over several records, to both shards (R5, R17). */
static void deliver_large(struct actor *a)
{
    a->x->next_id = 82; /* the generator makes that one large */
    deliver_shards(a);
}

const struct script scripts[SCRIPTS_ALL] = {
    {"deliver", LMTP, deliver_one},
    {"deliver to shards", SMTP, deliver_shards},
    {"append", IMAP, act_append},
    {"store", IMAP, act_store},
    {"copy", IMAP, act_copy},
    {"move", IMAP, act_move},
    {"expunge", IMAP, act_expunge},
    {"create", IMAP, act_create},
    {"rename", IMAP, act_rename},
    {"delete", IMAP, act_delete},
    {"subscribe", IMAP, act_subscribe},
    {"drain", POP3, act_drain},
    {"submit", SUBMISSION, deliver_one},
    {"deliver large", SMTP, deliver_large},
    {"fetch", IMAP, act_fetch},
    {"search", IMAP, act_search},
};

bool script_run(struct world *x, unsigned i)
{
    return world_do(x, &x->actor[scripts[i].actor], scripts[i].run);
}

static void fill(struct actor *a)
{
    for (int i = 0; i < 3; i++)
        act_create(a);
    for (int i = 0; i < 8; i++)
        act_append(a);
    act_subscribe(a);
    act_store(a);
}

static void fill_inboxes(struct actor *a)
{
    act_deliver_to(a, 0, 1);
    act_deliver_to(a, 1, 2);
    act_deliver_to(a, 2, 1);
}

struct world *scripts_world(void)
{
    struct server_options opt = {
        .workers = 2, .shards = 2, .checkpoint_log_bytes = 16 << 10, .checkpoint_ms = 20, .trash_days = 7};
    struct world *x = world_new(7, &opt, 3);
    x->scripted = x->big = true;
    (void)world_actor(x, ROLE_IMAP, 0);
    (void)world_actor(x, ROLE_LMTP, 0);
    (void)world_actor(x, ROLE_SMTP, 1);
    (void)world_actor(x, ROLE_SUBMISSION, 2);
    (void)world_actor(x, ROLE_POP3, 1);
    if (x->inbox[0].id.shard == x->inbox[1].id.shard && x->inbox[1].id.shard == x->inbox[2].id.shard)
        world_wrong(x, "all accounts are in one shard");
    if (world_start(x) && world_do(x, &x->actor[IMAP], fill))
        (void)world_do(x, &x->actor[LMTP], fill_inboxes);
    for (unsigned i = 0; i < x->actors; i++)
        wire_close(&x->actor[i], false);
    if (!x->wrong[0] && !server_stop(&x->s))
        world_wrong(x, "it does not stop");
    world_died(x);
    if (x->wrong[0]) {
        printf("the world cannot be made: %s\n", x->wrong);
        exit(1);
    }
    return x;
}
