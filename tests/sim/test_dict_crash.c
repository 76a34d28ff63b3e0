/*
 * test_dict_crash.c: a store that learns dictionaries from its mail, its power cut at random moments: before, in and
 * after their adoption, and when mail of another kind has come and they are retired. Whatever a cut leaves, every
 * acknowledged message is read back byte for byte, the store is whole to the checker, and a dictionary is in use only
 * if every shard has it. One that a cut left in some shards reaches the others.
 *
 * Usage: test_dict_crash [SEED [COUNT]]. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/check.h>
#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include "engine/io/sim.h"

enum { SHARDS = 2, ACCOUNTS = 4, FIRST = 260, CYCLES = 5, DICTS_MAX = 64, ERA = 100000, ERAS = 3 };

struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io[SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SHARDS];
    struct tb_account_id id[ACCOUNTS];
    uint32_t sent, acked[ACCOUNTS]; /* messages: account a gets those with seed % ACCOUNTS == a, in order */
    struct tb_dict_training training;
    bool training_on;
    uint32_t used[DICTS_MAX], used_n; /* dictionaries that were ever seen in use */
    unsigned *halves;                 /* cuts that left a dictionary in one shard alone */
    char wrong[300];
};

/* A process that loses its power frees nothing: what it had under way is no leak. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0";
}

static unsigned long first_seed = 1, seed_count = 10;

static void turn(struct world *x)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        n += tb_worker_turn(x->w[i], false);
    if (n == 0)
        (void)tb_worker_turn(x->w[0], true);
}

static void world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = x->dir,
                                  .workers = SHARDS,
                                  .checkpoint_log_bytes = 256 << 10,
                                  .checkpoint_ms = 20,
                                  .train_after = UINT64_MAX};
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    x->store = NULL;
    memset(x->w, 0, sizeof(x->w));
    enum tb_rc rc = tb_store_open(x->io[0], &cfg, &x->store, &err);
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++)
        rc = tb_worker_open(x->store, i, x->io[i], &x->w[i], &err);
    if (rc != TB_OK) {
        (void)snprintf(x->wrong, sizeof(x->wrong), "recovery refused: %.250s", err.text);
        return;
    }
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_started(x->w[i]);
    x->training_on = false;
}

static void world_close(struct world *x)
{
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_close(x->w[i]);
    tb_store_close(x->store);
    memset(x->w, 0, sizeof(x->w));
    x->store = NULL;
}

/* ---- messages: phrases that no built-in dictionary has, chosen by the seed; other ones in each era ---- */

static struct tb_buf message(uint32_t seed)
{
    struct tb_buf b;
    char line[128];
    unsigned r = seed * 2654435761u + 1, era = seed / ERA * 0x51ed270bu;
    tb_buf_init(&b, 1 << 16);
    (void)snprintf(line, sizeof(line), "From: a@b\r\nSubject: seed %u\r\nMessage-ID: <%u@x>\r\n", seed, seed);
    tb_buf_str(&b, line);
    for (int i = 0; i < 12; i++) {
        unsigned k = (unsigned)rand_r(&r) % 24;
        (void)snprintf(line, sizeof(line), "X-Qz%02u-Wvk: jxq%08x-%08x-%08x-%08x\r\n", k, k * 0x9e3779b9u ^ era,
                       k * 0x85ebca6bu ^ era, k * 0xc2b2ae35u ^ era, (unsigned)rand_r(&r) % 99);
        tb_buf_str(&b, line);
    }
    tb_buf_str(&b, "\r\n");
    for (int i = 0; i < 20; i++) {
        unsigned k = (unsigned)rand_r(&r) % 40;
        (void)snprintf(line, sizeof(line), "%08x zgw %08x pjx %08x %u\r\n", k * 0x27d4eb2fu ^ era,
                       k * 0x165667b1u ^ era, k * 0xd3a2646cu ^ era, (unsigned)rand_r(&r) % 9999);
        tb_buf_str(&b, line);
    }
    return b;
}

struct sending {
    struct world *x;
    struct tb_delivery_target target;
    struct tb_op op;
};

static void delivered(struct tb_op *op)
{
    struct sending *s = op->user;
    if (op->rc == TB_OK)
        s->x->acked[s->target.internaldate % ACCOUNTS]++;
    else
        (void)snprintf(s->x->wrong, sizeof(s->x->wrong), "a delivery was refused");
    free(s);
}

static void send_one(struct world *x)
{
    uint32_t seed = x->sent++;
    struct sending *s = calloc(1, sizeof(*s));
    struct tb_buf m = message(seed);
    struct tb_delivery *d;
    assert_non_null(s);
    s->x = x;
    s->target = (struct tb_delivery_target){
        .id = x->id[seed % ACCOUNTS], .mbox = TB_MBOX_INBOX, .is_append = true, .internaldate = seed};
    assert_int_equal(tb_delivery_begin(x->w[seed % 3 == 0], 10 << 20, &d), TB_OK);
    assert_int_equal(tb_delivery_add(d, &s->target), TB_OK);
    assert_true(tb_delivery_write(d, tb_buf_all(&m), NULL));
    tb_buf_free(&m);
    s->op = (struct tb_op){.done = delivered, .user = s};
    tb_delivery_commit(d, true, &s->op);
}

/* ---- checking ---- */

static void flag_set(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static bool body_is(struct world *x, struct tb_view *v, uint32_t uid, uint32_t seed)
{
    struct tb_buf m = message(seed);
    struct tb_body *b;
    bool same = tb_body_open(v, uid, &b) == TB_OK && tb_body_size(b) == m.len;
    for (size_t at = 0; same && at < m.len;) {
        bool done = false;
        struct tb_op op = {.done = flag_set, .user = &done};
        tb_body_read(b, at, &op);
        while (!done)
            turn(x);
        same = op.rc == TB_OK && op.data.len > 0 && memcmp(op.data.ptr, m.ptr + at, op.data.len) == 0;
        at += op.data.len;
    }
    tb_body_close(b);
    tb_buf_free(&m);
    return same;
}

static void check_account(struct world *x, uint32_t n)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_row row;
    struct tb_cached cached;
    char subject[32];
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, x->id[n])], x->id[n], &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    if (tb_view_count(v) < x->acked[n])
        (void)snprintf(x->wrong, sizeof(x->wrong), "account %u: an acknowledged message is lost", n);
    for (uint32_t i = 1; i <= tb_view_count(v) && x->wrong[0] == '\0'; i++) {
        uint32_t uid = tb_view_uid(v, i);
        if (tb_view_row(v, uid, &row) != TB_OK || !body_is(x, v, uid, (uint32_t)row.internaldate))
            (void)snprintf(x->wrong, sizeof(x->wrong), "account %u: message %u cannot be read", n, uid);
        (void)snprintf(subject, sizeof(subject), "seed %u", (uint32_t)row.internaldate);
        if (x->wrong[0] == '\0' && (tb_cached_get(v, uid, &cached) != TB_OK ||
                                    memmem(cached.envelope.ptr, cached.envelope.len, subject, strlen(subject)) == NULL))
            (void)snprintf(x->wrong, sizeof(x->wrong), "account %u: envelope %u cannot be read", n, uid);
    }
    x->acked[n] = tb_view_count(v);
    tb_view_close(v);
    tb_account_close(a);
}

/* dictionaries: how many are in use; every one that is or was must be in every shard. */
static unsigned dictionaries(struct world *x, bool *half)
{
    struct tb_dict_info v[DICTS_MAX];
    size_t n = tb_dict_list(x->store, v, DICTS_MAX);
    unsigned used = 0;
    *half = false;
    for (size_t i = 0; i < n; i++) {
        used += v[i].in_use;
        *half = *half || v[i].shards == 1;
        bool was = v[i].in_use, seen = false;
        for (uint32_t k = 0; k < x->used_n; k++)
            seen = seen || x->used[k] == v[i].id;
        if ((was || seen) && v[i].shards != SHARDS)
            (void)snprintf(x->wrong, sizeof(x->wrong), "dictionary %u is in use in %u shards", v[i].id, v[i].shards);
        if (was && !seen && x->used_n < DICTS_MAX)
            x->used[x->used_n++] = v[i].id;
    }
    return used;
}

static void complain(void *user, const struct tb_finding *f)
{
    struct world *x = user;
    if (f->damage && x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "the check finds: shard %u: %.100s: %.150s", f->shard, f->object,
                       f->what);
}

static void check_store(struct world *x)
{
    struct tb_check_options opt = {.user = x, .found = complain};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_check(io, x->dir, &opt, &stat, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
}

/* ---- a world from a seed ---- */

static void create_account(struct world *x, unsigned i)
{
    bool done = false;
    char name[16];
    struct tb_identity id;
    struct tb_op op = {.done = flag_set, .user = &done};
    (void)snprintf(name, sizeof(name), "u%u", i);
    tb_account_create(x->w[0], tb_slice_str(name), TB_SLICE(""), &op);
    while (!done)
        turn(x);
    assert_int_equal(op.rc, TB_OK);
    assert_int_equal(tb_directory_find(x->store, tb_slice_str(name), &id), TB_OK);
    x->id[i] = id.id;
}

static void settle(struct world *x, int turns)
{
    for (int i = 0; i < turns && x->wrong[0] == '\0'; i++)
        turn(x);
}

static void trained(struct tb_op *op)
{
    ((struct world *)op->user)->training_on = false;
}

static void train(struct world *x)
{
    if (x->training_on)
        return;
    x->training_on = true;
    x->training.op = (struct tb_op){.done = trained, .user = x};
    tb_dict_train(x->w[0], x->id[0].shard, &x->training);
}

/* Mail, a training, and a cut: anywhere, or in the few turns in which the records are written. */
static void run_until_cut(struct world *x)
{
    struct tb_dict_info v[DICTS_MAX];
    uint64_t before = tb_sim_choose(x->sim, 60), after = tb_sim_choose(x->sim, 40);
    bool there = tb_sim_choose(x->sim, 3) > 0;
    for (uint64_t i = 0; i < before; i++) {
        send_one(x);
        settle(x, 2);
    }
    size_t n = tb_dict_list(x->store, v, DICTS_MAX);
    train(x);
    while (x->training_on && x->wrong[0] == '\0' && (there || tb_sim_choose(x->sim, 300) != 0)) {
        if (there && tb_dict_list(x->store, v, DICTS_MAX) > n) {
            settle(x, (int)tb_sim_choose(x->sim, 12));
            return;
        }
        if (tb_sim_choose(x->sim, 20) == 0)
            send_one(x);
        turn(x);
    }
    for (uint64_t i = 0; !x->training_on && i < after; i++) {
        send_one(x);
        settle(x, 1);
    }
}

static void cycle(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    bool half;
    run_until_cut(x);
    (void)dictionaries(x, &half);
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes))]), 0);
    world_close(x);
    check_store(x);
    if (x->wrong[0] == '\0')
        world_open(x);
    if (x->wrong[0] != '\0')
        return;
    (void)dictionaries(x, &half);
    *x->halves += half;
    for (uint32_t i = 0; i < ACCOUNTS && x->wrong[0] == '\0'; i++)
        check_account(x, i);
    for (int i = 0; half && i < 200 && x->wrong[0] == '\0'; i++) {
        tb_sim_advance(x->sim, 1000000000);
        settle(x, 20);
        (void)dictionaries(x, &half);
    }
    if (half)
        (void)snprintf(x->wrong, sizeof(x->wrong), "a dictionary never reached the other shard");
}

static void world_new(struct world *x, uint64_t seed)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_create(io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    world_open(x);
    for (unsigned i = 0; i < ACCOUNTS; i++)
        create_account(x, i);
    for (int i = 0; i < FIRST; i++) {
        send_one(x);
        settle(x, 2);
    }
}

/* run_seed: false if something went wrong: what. *used: dictionaries in use in the end. */
static bool run_seed(uint64_t seed, unsigned *halves, unsigned *used, char what[300])
{
    struct world *x = calloc(1, sizeof(*x));
    char cmd[128];
    bool half;
    assert_non_null(x);
    x->halves = halves;
    world_new(x, seed);
    for (int i = 0; i < CYCLES && x->wrong[0] == '\0'; i++)
        cycle(x);
    if (x->wrong[0] == '\0')
        *used += dictionaries(x, &half);
    bool good = x->wrong[0] == '\0';
    (void)snprintf(what, 300, "%s", x->wrong);
    world_close(x);
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
    free(x);
    return good;
}

/* ---- retiring ---- */

/* expunge_before: messages of an account with seeds below this go, for good. */
static void expunge_before(struct world *x, unsigned n, uint32_t seed)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_row row;
    struct tb_uidset old;
    tb_uidset_init(&old);
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, x->id[n])], x->id[n], &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    for (uint32_t i = 1; i <= tb_view_count(v); i++) {
        uint32_t uid = tb_view_uid(v, i);
        if (tb_view_row(v, uid, &row) == TB_OK && row.internaldate < seed)
            tb_uidset_add(&old, uid, uid);
    }
    x->acked[n] = tb_view_count(v) - (uint32_t)tb_uidset_count(&old);
    assert_int_equal(tb_delete(v, &old), TB_OK);
    tb_uidset_free(&old);
    tb_view_close(v);
    tb_account_close(a);
}

static void send_many(struct world *x, int n)
{
    for (int i = 0; i < n && x->wrong[0] == '\0'; i++) {
        send_one(x);
        settle(x, 2);
    }
    settle(x, 200);
}

/* era: mail of a new kind, a training on it, more of it; then what came before goes, but for account 0's if it keeps
 * it. */
static void era(struct world *x, uint32_t number, bool keep)
{
    x->sent = number * ERA;
    send_many(x, 2 * FIRST);
    train(x);
    while (x->training_on && x->wrong[0] == '\0')
        turn(x);
    send_many(x, 80);
    for (uint32_t i = keep; i < ACCOUNTS && x->wrong[0] == '\0'; i++)
        expunge_before(x, i, number * ERA + 2 * FIRST);
    settle(x, 200);
}

static void cut(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes))]), 0);
    world_close(x);
    check_store(x);
    if (x->wrong[0] == '\0')
        world_open(x);
    for (uint32_t i = 0; i < ACCOUNTS && x->wrong[0] == '\0'; i++)
        check_account(x, i);
}

/* outdated: dictionaries that a shard has, and whose role a newer one has taken. */
static unsigned outdated(struct world *x)
{
    struct tb_dict_info v[DICTS_MAX];
    size_t n = tb_dict_list(x->store, v, DICTS_MAX);
    unsigned old = 0;
    for (size_t i = 0; i < n; i++)
        old += !v[i].in_use;
    return old;
}

/* files: of dictionaries, in all shards. */
static bool count_file(void *user, const char *name)
{
    *(unsigned *)user += name[0] != '.';
    return true;
}

static unsigned files(struct world *x)
{
    unsigned n = 0;
    char path[96];
    for (unsigned i = 0; i < SHARDS; i++) {
        (void)snprintf(path, sizeof(path), "%s/shard-%02x/dict", x->dir, i);
        (void)tb_io_list(x->io[0], path, count_file, &n);
    }
    return n;
}

/* hours: a minute at a time; cuts: anywhere, and where a dictionary has just been let go. */
static void hours(struct world *x, unsigned n, bool cuts)
{
    unsigned old = outdated(x);
    for (unsigned i = 0; i < 60 * n && x->wrong[0] == '\0'; i++) {
        tb_sim_advance(x->sim, 60000000000ull);
        settle(x, (int)(cuts ? tb_sim_choose(x->sim, 20) : 20));
        unsigned now = outdated(x);
        if (cuts && (tb_sim_choose(x->sim, 150) == 0 || (now < old && tb_sim_choose(x->sim, 2) == 0)))
            cut(x);
        old = now;
    }
}

static bool run_eras(uint64_t seed, unsigned *retired, char what[300])
{
    struct world *x = calloc(1, sizeof(*x));
    char cmd[128];
    assert_non_null(x);
    world_new(x, seed);
    bool keep = seed % 2;
    for (uint32_t i = 0; i < ERAS && x->wrong[0] == '\0'; i++) {
        era(x, i, keep);
        unsigned before = outdated(x);
        hours(x, 6, true);
        hours(x, 4, false);
        unsigned after = outdated(x);
        *retired += before - after;
        if (x->wrong[0] == '\0' && !keep && (after > 0 || files(x) > SHARDS * TB_DICT_ROLES))
            (void)snprintf(x->wrong, sizeof(x->wrong), "era %u: %u dictionaries and %u files are left", i, after,
                           files(x));
    }
    if (x->wrong[0] == '\0')
        cut(x);
    bool good = x->wrong[0] == '\0';
    (void)snprintf(what, 300, "%s", x->wrong);
    world_close(x);
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
    free(x);
    return good;
}

static void what_nothing_needs_is_retired(void **state)
{
    unsigned retired = 0;
    char what[300];
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + (seed_count + 1) / 2; s++)
        if (!run_eras(s, &retired, what))
            fail_msg("seed %lu: %s", s, what);
    print_message("%lu seeds, %d kinds of mail each; %u dictionaries retired\n", (seed_count + 1) / 2, ERAS, retired);
    assert_true(seed_count < 10 || retired > 0);
}

static void adoption_survives_power_cuts(void **state)
{
    unsigned halves = 0, used = 0;
    char what[300];
    (void)state;
    for (unsigned long s = first_seed; s < first_seed + seed_count; s++)
        if (!run_seed(s, &halves, &used, what))
            fail_msg("seed %lu: %s", s, what);
    print_message(
        "%lu seeds, %d power cuts each; %u dictionaries in use in the end, %u cuts left one in one shard alone\n",
        seed_count, CYCLES, used, halves);
    assert_true(seed_count < 10 || (used > 0 && halves > 0)); /* else this tested nothing */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(adoption_survives_power_cuts),
                                       cmocka_unit_test(what_nothing_needs_is_retired)};
    tb_log_level(TB_LOG_WARN);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("dict_crash", tests, NULL, NULL);
}
