/*
 * scripts.h: the twelve operations that the exhaustive tests are made of, and the small world they happen in.
 */
#ifndef TEST_SCRIPTS_H
#define TEST_SCRIPTS_H

#include "world.h"

enum { SCRIPTS = 12, SCRIPTS_ALL = 16 };

struct script {
    const char *name;
    unsigned actor; /* who does it */
    void (*run)(struct actor *a);
};
/* The first SCRIPTS change something small; the rest is for faults. */
extern const struct script scripts[SCRIPTS_ALL];

/*
 * scripts_world: two shards, three accounts, an actor of each kind, mailboxes with some mail; no server running. To be
 * cloned for each run. Exits the program if that fails.
 */
struct world *scripts_world(void);
/* script_run: the operation, and what it needs before. False: it hangs or something is wrong. */
bool script_run(struct world *x, unsigned i);

#endif
