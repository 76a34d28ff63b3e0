/*
 * test_store_crash.c: the store on the simulated disk, its power cut at random moments, against a model
 * (tests/lib/crash.c tells what is compared).
 *
 * Usage: test_store_crash [SEED [COUNT [STEP]]]: default seeds 1..COUNT; seeds that 3 divides have a disk of large
 * blocks. A failure prints its seed. A disk that lies about durable writes must be caught: the last test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/lib/crash.h"

enum { LIES = 5 };

static unsigned long first_seed = 1, seed_count = 12, seed_step = 1;

static void test_power_cuts(void **state)
{
    struct crash_options opt = {0};
    struct crash_result r = {0};
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + seed_count * seed_step; s += seed_step)
        if (!crash_run_seed(s, &opt, &r))
            fail_msg("seed %lu: %s", s, r.wrong);
    print_message("%lu seeds, %d power cuts each, %llu operations\n", seed_count, CRASH_CYCLES,
                  (unsigned long long)r.ops);
}

static void test_lying_disk_is_caught(void **state)
{
    struct crash_options opt = {.lie = true};
    struct crash_result r = {0};
    unsigned caught = 0;
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + LIES && caught == 0; s++)
        caught += !crash_run_seed(s, &opt, &r);
    assert_int_equal(caught, 1);
    print_message("durable writes that are not: %s\n", r.wrong);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_lying_disk_is_caught)};
    tb_log_level(TB_LOG_WARN);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
        seed_step = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("store_crash", tests, NULL, NULL);
}
