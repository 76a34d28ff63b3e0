/*
 * test_annot.c: annotations against a plain table of names and values: any history, a restart, an index made anew from
 * the log; what goes with a mailbox, what comes back with it; the limits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tambo/annot.h>
#include <tambo/check.h>
#include "engine/store/shard.h"
#include "tests/lib/solo.h"

enum { NAMES = 12 };
struct world {
    struct solo s;
    struct tb_account_id id;
    uint64_t seed;
    struct tb_account *a;
    int size[2][NAMES]; /* of mailbox 0 and INBOX; -1: none */
    char fill[2][NAMES];
};

static char big[TB_ANNOT_VALUE_MAX + 1];

static int setup(void **state)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    solo_new(&x->s, false, 1);
    solo_open(&x->s, (struct tb_store_config){.trash_days = 5});
    x->id = solo_account(&x->s, "ann");
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
    memset(x->size, 0xff, sizeof(x->size));
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct world *x = *state;
    tb_account_close(x->a);
    solo_end(&x->s);
    free(x);
    return 0;
}

static uint32_t dice(struct world *x, uint32_t n)
{
    x->seed = x->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(x->seed >> 33) % n;
}

/* name: "/shared/v00" ... in byte order; every third one is below the one before. */
static struct tb_slice name(unsigned i, char out[32])
{
    if (i % 3 == 2)
        (void)snprintf(out, 32, "/shared/v%02u/below", i - 1);
    else
        (void)snprintf(out, 32, "/shared/v%02u", i);
    return tb_slice_str(out);
}

static enum tb_rc set_one(struct world *x, uint32_t mbox, struct tb_slice key, int size, char fill)
{
    memset(big, fill, sizeof(big));
    struct tb_annot one = {key, size < 0 ? tb_slice(NULL, 0) : tb_slice(big, (size_t)size)};
    return tb_annot_set(x->a, mbox, &one, 1);
}

/* same: what is there is what the table says. */
static void same(struct world *x)
{
    char text[32];
    for (uint32_t mbox = 0; mbox < 2; mbox++) {
        struct tb_arena arena;
        struct tb_annot *v;
        size_t n, at = 0;
        tb_arena_init(&arena, 8 << 20);
        assert_int_equal(tb_annot_list(x->a, mbox, TB_SLICE("/shared"), &arena, &v, &n), TB_OK);
        for (unsigned i = 0; i < NAMES; i++) {
            if (x->size[mbox][i] < 0)
                continue;
            assert_true(at < n && tb_slice_eq(v[at].name, name(i, text)));
            assert_int_equal(v[at].value.len, x->size[mbox][i]);
            for (size_t k = 0; k < v[at].value.len; k++)
                assert_int_equal(v[at].value.ptr[k], x->fill[mbox][i]);
            at++;
        }
        assert_int_equal(at, n);
        tb_arena_free(&arena);
    }
}

static void found(void *user, const struct tb_finding *f)
{
    (void)user;
    print_message("%s: %s\n", f->object, f->what);
}

static void again(struct world *x, bool fresh)
{
    struct tb_check_options opt = {.found = found};
    struct tb_check_stat stat = {0};
    struct tb_error err = {0};
    struct tb_io *io;
    tb_account_close(x->a);
    solo_stop(&x->s);
    assert_int_equal(tb_io_open(TB_IO_POSIX, &io, &err), TB_OK);
    assert_int_equal(tb_store_check(io, x->s.dir, &opt, &stat, &err), TB_OK);
    assert_int_equal(stat.damage, 0);
    if (fresh)
        assert_int_equal(tb_store_rebuild(io, x->s.dir, TB_EVERY_SHARD, &err), TB_OK);
    tb_io_close(io);
    solo_open(&x->s, (struct tb_store_config){.trash_days = 5});
    assert_int_equal(tb_account_open(x->s.w, x->id, &x->a), TB_OK);
}

static void test_any_history(void **state)
{
    struct world *x = *state;
    static const int sizes[] = {-1, -1, 0, 1, 100, TB_ANNOT_ROW - 1, TB_ANNOT_ROW, TB_ANNOT_ROW + 1, 9000};
    char text[32];
    for (uint64_t seed = 1; seed <= 2; seed++) {
        x->seed = seed;
        print_message("seed %llu\n", (unsigned long long)seed);
        for (unsigned i = 0; i < 300; i++) {
            uint32_t mbox = dice(x, 2), k = dice(x, NAMES);
            int size = sizes[dice(x, TB_ARRAY_LEN(sizes))];
            char fill = (char)('a' + dice(x, 26));
            assert_int_equal(set_one(x, mbox, name(k, text), size, fill), TB_OK);
            x->size[mbox][k] = size;
            x->fill[mbox][k] = fill;
            same(x);
            for (unsigned t = 0; t < 3; t++)
                (void)tb_worker_turn(x->s.w, false);
            if (i == 150)
                again(x, false);
        }
    }
    again(x, true);
    same(x);
}

static size_t number(struct world *x, uint32_t mbox)
{
    struct tb_arena arena;
    struct tb_annot *v;
    size_t n;
    tb_arena_init(&arena, 8 << 20);
    assert_int_equal(tb_annot_list(x->a, mbox, TB_SLICE(""), &arena, &v, &n), TB_OK);
    tb_arena_free(&arena);
    return n;
}

static void test_limits(void **state)
{
    struct world *x = *state;
    char text[TB_ANNOT_NAME_MAX + 2];
    memset(text, 'n', sizeof(text));
    text[0] = '/';
    assert_int_equal(set_one(x, 0, tb_slice(text, TB_ANNOT_NAME_MAX), 1, 'x'), TB_OK);
    assert_int_equal(set_one(x, 0, tb_slice(text, TB_ANNOT_NAME_MAX + 1), 1, 'x'), TB_INVALID);
    assert_int_equal(set_one(x, 0, TB_SLICE("x"), 1, 'x'), TB_INVALID);
    assert_int_equal(set_one(x, 0, tb_slice("/a\0b", 4), 1, 'x'), TB_INVALID);
    assert_int_equal(set_one(x, 0, TB_SLICE("/a"), TB_ANNOT_VALUE_MAX, 'x'), TB_OK);
    assert_int_equal(set_one(x, 0, TB_SLICE("/a"), TB_ANNOT_VALUE_MAX + 1, 'x'), TB_LIMIT);
    assert_int_equal(set_one(x, 77, TB_SLICE("/a"), 1, 'x'), TB_NOTFOUND);
    for (unsigned i = 2; i < TB_ANNOT_MAX; i++) {
        (void)snprintf(text, sizeof(text), "/many/%u", i);
        assert_int_equal(set_one(x, 0, tb_slice_str(text), 1, 'x'), TB_OK);
    }
    assert_int_equal(number(x, 0), TB_ANNOT_MAX);
    assert_int_equal(set_one(x, 0, TB_SLICE("/more"), 1, 'x'), TB_OVERQUOTA);
    assert_int_equal(set_one(x, 0, TB_SLICE("/a"), 2, 'y'), TB_OK); /* what is there may change */
    struct tb_annot both[] = {{TB_SLICE("/a"), tb_slice(NULL, 0)}, {TB_SLICE("/more"), TB_SLICE("x")}};
    assert_int_equal(tb_annot_set(x->a, 0, both, 2), TB_OK);
    both[0].name = TB_SLICE("not a name");
    both[1].value = TB_SLICE("changed");
    assert_int_equal(tb_annot_set(x->a, 0, both, 2), TB_INVALID);
    assert_int_equal(number(x, 0), TB_ANNOT_MAX);
    assert_int_equal(number(x, TB_MBOX_INBOX), 0);
}

/* They lie in the trash with their mailbox, and go for good with it. */
static void test_deleted_mailbox(void **state)
{
    struct world *x = *state;
    uint32_t mbox;
    bool renamed;
    struct tb_disk_mbox m;
    assert_int_equal(tb_mailbox_create(x->a, TB_SLICE("old"), 0, &mbox), TB_OK);
    assert_int_equal(set_one(x, mbox, TB_SLICE("/shared/x"), 5000, 'x'), TB_OK);
    assert_int_equal(tb_mailbox_rename(x->a, TB_SLICE("old"), TB_SLICE("new")), TB_OK);
    assert_int_equal(tb_mailbox_delete(x->a, TB_SLICE("new")), TB_OK);
    assert_true(tb_mbox_get(x->a->shard->ix, x->a->acct, mbox, &m, NULL));
    assert_int_equal(tb_mailbox_undelete(x->a, mbox, m.due, TB_SLICE("new"), &renamed), TB_OK);
    assert_int_equal(number(x, mbox), 1);
    again(x, true);
    assert_int_equal(number(x, mbox), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_history, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleted_mailbox, setup, teardown),
    };
    tb_log_level(TB_LOG_WARN);
    return cmocka_run_group_tests_name("annotations", tests, NULL, NULL);
}
