/*
 * crash.h: a store on the simulated disk, its power cut at random moments, against a model: shared by the tests that
 * vary what goes on meanwhile.
 */
#ifndef TB_TESTS_CRASH_H
#define TB_TESTS_CRASH_H

#include <tambo/base.h>

enum { CRASH_CYCLES = 6 }; /* power cuts of one seed */

struct crash_options {
    bool lie; /* the disk says durable and is not */
    bool gc;  /* segments are collected all the while, and every body is read back */
};
struct crash_result { /* numbers add up over seeds */
    uint64_t ops, freed, moved;
    char wrong[300];
};
/* crash_run_seed: make a world, let it live through its cuts; false if something went wrong: what. */
bool crash_run_seed(uint64_t seed, const struct crash_options *opt, struct crash_result *out);

#endif
