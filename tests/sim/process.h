/*
 * process.h: what a simulated process holds that the simulated world does not see: its memory, and the writes that a
 * library makes by itself. The test programs that link this define malloc and friends, pwrite and writev for everything
 * in the program, libraries included.
 *
 * Between process_enter and process_leave the server runs: what it allocates comes from a region of its own, which
 * process_died empties, as a process's end does, and its allocations can be made to fail by number. What the simulated
 * world allocates for itself meanwhile (tb_sim_own_memory) is left alone. Under AddressSanitizer, which has a malloc of
 * its own, nothing is counted, fails or is emptied: process_has_memory says so. Thread: one.
 */
#ifndef TEST_PROCESS_H
#define TEST_PROCESS_H

#include "engine/io/sim.h"

/* process_has_memory: can allocations be counted here, made to fail and be given back? */
bool process_has_memory(void);
/* process_enter, process_leave: the server's code runs in between. They nest. */
void process_enter(void);
void process_leave(void);
/* process_pause: the test's own code runs until process_resume(what it returned), inside a call from the server. */
unsigned process_pause(void);
void process_resume(unsigned depth);
/*
 * process_plain: while on, what the server allocates is the program's: for a first run, in which libraries allocate
 * what they keep for ever.
 */
void process_plain(bool on);
/* process_died: everything that was allocated by the server and not freed is given back. */
void process_died(void);

/* process_fail: of the allocations from now on, the nth returns NULL, and with sticky all later ones; 0: none. */
void process_fail(uint64_t n, bool sticky);
uint64_t process_allocations(void); /* since process_fail */
uint64_t process_failed(void);      /* that returned NULL since process_fail */

/* process_world: writes by libraries to files of this world go through it. At most 3 at a time. */
void process_world(struct tb_sim *sim);
void process_forget(struct tb_sim *sim);

#endif
