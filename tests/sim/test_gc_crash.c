/*
 * test_gc_crash.c: garbage collection under power cuts: while messages come, are copied, moved and expunged for good,
 * GC runs over and over, and every message that is left must be there byte for byte after each cut
 * (tests/lib/crash.c tells what is compared).
 *
 * Usage: test_gc_crash [SEED [COUNT]]: default seeds 1..COUNT. A failure prints its seed.
 * Built with SABOTAGE=gcwait, segments are freed before a checkpoint confirmed that nothing is in them: it must fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/crash.h"

static unsigned long first_seed = 1, seed_count = 10;

static void test_gc_under_power_cuts(void **state)
{
    struct crash_options opt = {.gc = true};
    struct crash_result r = {0};
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + seed_count; s++)
        if (!crash_run_seed(s, &opt, &r))
            fail_msg("seed %lu: %s", s, r.wrong);
    print_message("%lu seeds, %d power cuts each, %llu operations, %llu segments freed, %llu bytes moved\n", seed_count,
                  CRASH_CYCLES, (unsigned long long)r.ops, (unsigned long long)r.freed, (unsigned long long)r.moved);
    assert_true(r.freed >= seed_count && r.moved > 0); /* else it tested nothing */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gc_under_power_cuts)};
    tb_log_level(TB_LOG_WARN);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("gc_crash", tests, NULL, NULL);
}
