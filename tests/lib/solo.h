/*
 * solo.h: a store with one worker, for tests that use it by its doors. Everything asserts by cmocka. One thread.
 */
#ifndef TESTS_SOLO_H
#define TESTS_SOLO_H

#include <tambo/delivery.h>
#include <tambo/store.h>

struct tb_sim;

struct solo {
    char dir[64];
    struct tb_sim *sim; /* NULL: real files by system calls */
    struct tb_io *io;
    struct tb_store *store;
    struct tb_worker *w;
};

/* solo_done: an op's done: its user is a bool that becomes true. */
void solo_done(struct tb_op *op);
/* solo_until: turn until it is true. */
void solo_until(struct solo *x, const bool *flag);
/* solo_new: a folder with an empty store; not open. */
void solo_new(struct solo *x, bool simulated, uint32_t shards);
/* solo_open: with these settings; dir and workers are filled in. */
void solo_open(struct solo *x, struct tb_store_config cfg);
void solo_stop(struct solo *x);
/* solo_end: stop, and take the folder away. */
void solo_end(struct solo *x);
struct tb_account_id solo_account(struct solo *x, const char *name);
/* solo_put: so many small messages to a mailbox. */
void solo_put(struct solo *x, struct tb_account_id id, const char *mailbox, unsigned count);

#endif
