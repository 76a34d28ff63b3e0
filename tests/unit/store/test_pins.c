/*
 * test_pins.c: a pin holds what it says until it was removed as often as it was added, in whatever order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/store/pins.h"

enum { SEGMENT = 1000, PINS = 200 };

static void test_floor(void **state)
{
    struct tb_pins p;
    (void)state;
    tb_pins_init(&p, SEGMENT);
    assert_false(tb_pins_hold(&p, 0));
    assert_int_equal(tb_pin_floor(&p), UINT64_MAX);
    assert_true(tb_pin_add(&p, 5500) && tb_pin_add(&p, 3200) && tb_pin_add(&p, 3200));
    assert_int_equal(tb_pin_floor(&p), 3200);
    assert_false(tb_pins_hold(&p, 2));
    assert_true(tb_pins_hold(&p, 3) && tb_pins_hold(&p, 4) && tb_pins_hold(&p, 9));
    tb_pin_remove(&p, 3200);
    assert_true(tb_pins_hold(&p, 3));
    tb_pin_remove(&p, 3200);
    assert_false(tb_pins_hold(&p, 4));
    assert_true(tb_pins_hold(&p, 5));
    tb_pins_free(&p);
}

static void test_chunks(void **state)
{
    struct tb_pins p;
    (void)state;
    tb_pins_init(&p, SEGMENT);
    assert_true(tb_pin_add(&p, 1500) && tb_pin_chunk_add(&p, 4200) && tb_pin_chunk_add(&p, 3100));
    assert_int_equal(tb_pin_floor(&p), 1500);
    assert_int_equal(tb_pin_chunk_floor(&p), 3100);
    tb_pin_remove(&p, 1500);
    assert_int_equal(tb_pin_floor(&p), 3100);
    assert_true(!tb_pins_hold(&p, 2) && tb_pins_hold(&p, 3) && tb_pins_hold(&p, 8));
    tb_pin_chunk_remove(&p, 3100);
    assert_int_equal(tb_pin_chunk_floor(&p), 4200);
    tb_pins_free(&p);
}

static void test_segments(void **state)
{
    struct tb_pins p;
    uint64_t held[PINS];
    (void)state;
    tb_pins_init(&p, SEGMENT);
    srand(1);
    for (int i = 0; i < PINS; i++) {
        held[i] = (uint64_t)(rand() % 50) * SEGMENT + (uint64_t)(rand() % SEGMENT);
        assert_true(tb_pin_segment_add(&p, held[i]));
    }
    for (int left = PINS; left > 0; left--) {
        bool want[50] = {false};
        for (int i = 0; i < left; i++)
            want[held[i] / SEGMENT] = true;
        for (uint32_t s = 0; s < 50; s++)
            assert_int_equal(tb_pins_hold(&p, s), want[s]);
        int go = rand() % left;
        tb_pin_segment_remove(&p, held[go]);
        held[go] = held[left - 1];
    }
    assert_int_equal(p.segments.n, 0);
    tb_pins_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_floor), cmocka_unit_test(test_chunks),
                                       cmocka_unit_test(test_segments)};
    return cmocka_run_group_tests_name("pins", tests, NULL, NULL);
}
