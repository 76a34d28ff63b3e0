/*
 * test_uidset.c: random adds, removes, intersections, unions and differences of uidsets against a bitmap, seeded.
 *
 * Usage: test_uidset [SEED]; without one, a fixed list of seeds.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <tambo/base.h>

#include <stdio.h>
#include <stdlib.h>

enum { SPAN = 512, STEPS = 400, SEEDS = 150 };

static uint64_t seed_given;

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Numbers 1..SPAN of the model are base + 1..base + SPAN of the set: both ends of the 32 bits are tried. */
static void same(const struct tb_uidset *s, const bool *model, uint32_t base)
{
    uint64_t count = 0;

    for (size_t i = 0; i < s->n; i++) {
        assert_true(s->v[i].first > 0 && s->v[i].first <= s->v[i].last);
        if (i > 0)
            assert_true(s->v[i].first - 1 > s->v[i - 1].last);
    }
    for (uint32_t i = 1; i <= SPAN; i++) {
        assert_int_equal(tb_uidset_has(s, base + i), model[i]);
        count += model[i];
    }
    assert_int_equal(tb_uidset_count(s), count);
    assert_false(tb_uidset_has(s, 0));
    assert_false(s->failed);
}

static void mutate(struct tb_uidset *s, bool *model, uint32_t base, uint64_t *rnd)
{
    uint32_t first = 1 + (uint32_t)(next(rnd) % SPAN);
    uint32_t len = (uint32_t)(next(rnd) % (next(rnd) % 8 ? 6 : SPAN));
    uint32_t last = first + len > SPAN ? SPAN : first + len;
    bool add = next(rnd) % 2;

    if (add)
        tb_uidset_add(s, base + first, base + last);
    else
        tb_uidset_remove(s, base + first, base + last);
    for (uint32_t i = first; i <= last; i++)
        model[i] = add;
}

static void check_text(const struct tb_uidset *s)
{
    struct tb_buf text;
    struct tb_uidset again;
    char *at, *end;

    tb_buf_init(&text, 1 << 20);
    tb_uidset_init(&again);
    tb_uidset_write(s, &text);
    tb_buf_char(&text, '\0');
    assert_false(text.failed);
    for (at = text.ptr; *at; at = *end ? end + 1 : end) {
        uint32_t first = (uint32_t)strtoul(at, &end, 10), last = first;

        if (*end == ':')
            last = (uint32_t)strtoul(end + 1, &end, 10);
        assert_true(*end == ',' || *end == '\0');
        tb_uidset_add(&again, first, last);
    }
    assert_int_equal(again.n, s->n);
    if (s->n > 0)
        assert_memory_equal(again.v, s->v, s->n * sizeof(*s->v));
    tb_uidset_free(&again);
    tb_buf_free(&text);
}

static void run_seed(uint64_t seed)
{
    uint64_t rnd = seed * 0x9e3779b97f4a7c15u + 1;
    uint32_t base = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 1000000 : UINT32_MAX - SPAN;
    bool model[2][SPAN + 1] = {{0}};
    bool both[SPAN + 1];
    struct tb_uidset s[2], meet;

    tb_uidset_init(&s[0]);
    tb_uidset_init(&s[1]);
    tb_uidset_init(&meet);
    for (int step = 0; step < STEPS; step++) {
        size_t which = next(&rnd) % 2;

        mutate(&s[which], model[which], base, &rnd);
        same(&s[which], model[which], base);
        if (next(&rnd) % 64 == 0) {
            tb_uidset_clear(&s[which]);
            memset(model[which], 0, sizeof(model[which]));
        }
        if (step % 16 == 0) {
            tb_uidset_intersect(&s[0], &s[1], &meet);
            for (size_t i = 0; i <= SPAN; i++)
                both[i] = model[0][i] && model[1][i];
            same(&meet, both, base);
            tb_uidset_unite(&s[0], &s[1], &meet);
            for (size_t i = 0; i <= SPAN; i++)
                both[i] = model[0][i] || model[1][i];
            same(&meet, both, base);
            tb_uidset_subtract(&s[0], &s[1], &meet);
            for (size_t i = 0; i <= SPAN; i++)
                both[i] = model[0][i] && !model[1][i];
            same(&meet, both, base);
            check_text(&s[which]);
        }
    }
    tb_uidset_free(&s[0]);
    tb_uidset_free(&s[1]);
    tb_uidset_free(&meet);
}

static void against_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS && !seed_given; seed++)
        run_seed(seed);
    if (seed_given)
        run_seed(seed_given);
}

static void too_many_ranges(void **state)
{
    struct tb_uidset s;

    (void)state;
    tb_uidset_init(&s);
    for (uint32_t i = 1; i <= TB_UIDSET_RANGES_MAX; i++)
        tb_uidset_add(&s, 2 * i, 2 * i);
    assert_false(s.failed);
    tb_uidset_add(&s, 2 * TB_UIDSET_RANGES_MAX, 2 * TB_UIDSET_RANGES_MAX + 1); /* merging still fits */
    assert_false(s.failed);
    tb_uidset_add(&s, UINT32_MAX, UINT32_MAX);
    assert_true(s.failed);
    assert_int_equal(s.n, TB_UIDSET_RANGES_MAX);
    tb_uidset_clear(&s);
    tb_uidset_add(&s, UINT32_MAX, UINT32_MAX);
    assert_true(tb_uidset_has(&s, UINT32_MAX));
    tb_uidset_free(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_model), cmocka_unit_test(too_many_ranges)};

    if (argc > 1)
        seed_given = strtoull(argv[1], NULL, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
