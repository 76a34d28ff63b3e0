/*
 * test_dedup.c: equal bodies of an account are stored once, and never taken for equal when they are not.
 *
 * On the simulated disk, two shards and two workers. Bodies come in classes: equal within a class, whatever the header.
 * Straight runs say what is shared and what is not; a planted hash row sends the comparison to the wrong body; a body
 * goes at every moment of another's delivery; and seeded runs with power cuts deliver and expunge at random: every
 * message is readable to the end, and when all are gone so is every byte, row and hash.
 *
 * Usage: test_dedup [SEED [COUNT]]: default seeds 1..8. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/io/sim.h"
#include "engine/store/shard.h"
#include "tests/lib/whole.h"

enum { SHARDS = 2, ACCOUNTS = 3, MESSAGES_MAX = 600, CYCLES = 5 };
enum { SMALL, MEDIUM, LARGE, PIECES, OTHER, CLASSES }; /* of bodies */
static const size_t class_bytes[CLASSES] = {5000, 20000, 300000, 1500000, 20000};

struct msg {
    uint32_t uid, number;
    unsigned class;
};
struct box { /* INBOX of an account */
    struct tb_account_id id;
    size_t n;
    struct msg v[MESSAGES_MAX];
};
struct world {
    struct tb_sim *sim;
    char dir[64];
    bool no_dedup;
    struct tb_io *io[SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SHARDS];
    struct box box[ACCOUNTS];
    uint32_t number; /* of the next message */
};

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0"; /* a process that loses its power frees nothing */
}

static unsigned long first_seed = 1, seed_count = 8;

/* ---- a world ---- */

static void turn(struct world *x)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        n += tb_worker_turn(x->w[i], false);
    if (n == 0)
        (void)tb_worker_turn(x->w[0], true);
}

static void turn_until(struct world *x, const bool *flag)
{
    for (int i = 0; i < 1000000 && !*flag; i++)
        turn(x);
    assert_true(*flag);
}

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = x->dir,
                                  .workers = SHARDS,
                                  .checkpoint_log_bytes = 256 << 10,
                                  .checkpoint_ms = 20,
                                  .no_dedup = x->no_dedup};
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    if (tb_store_open(x->io[0], &cfg, &x->store, &err) != TB_OK)
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < SHARDS; i++)
        if (tb_worker_open(x->store, i, x->io[i], &x->w[i], &err) != TB_OK)
            fail_msg("%s", err.text);
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_started(x->w[i]);
}

static void world_close(struct world *x)
{
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_close(x->w[i]);
    tb_store_close(x->store);
}

static struct world *world_new(uint64_t seed)
{
    struct world *x = calloc(1, sizeof(*x));
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    assert_non_null(x);
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-dedup-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_create(io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    world_open(x);
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        bool flag = false;
        char name[16];
        struct tb_identity id;
        struct tb_op op = {.done = done_flag, .user = &flag};
        (void)snprintf(name, sizeof(name), "u%u", i);
        tb_account_create(x->w[0], tb_slice_str(name), TB_SLICE(""), &op);
        turn_until(x, &flag);
        assert_int_equal(op.rc, TB_OK);
        assert_int_equal(tb_directory_find(x->store, tb_slice_str(name), &id), TB_OK);
        x->box[i].id = id.id;
    }
    return x;
}

static void world_free(struct world *x)
{
    char cmd[128];
    world_close(x);
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
    free(x);
}

/* cut: the power goes, and it all starts again. */
static void cut(struct world *x, enum tb_sim_cut mode)
{
    char what[300];
    assert_int_equal(tb_sim_power_cut(x->sim, mode), 0);
    world_close(x);
    struct tb_io *io = tb_sim_io(x->sim);
    if (!store_whole(io, x->dir, what))
        fail_msg("%s", what);
    tb_io_close(io);
    world_open(x);
}

/* ---- messages: the header follows from the number, the body from the class ---- */

static struct tb_buf message(uint32_t number, unsigned class)
{
    struct tb_buf b;
    char line[96];
    unsigned r = 77 + class;
    tb_buf_init(&b, class_bytes[class] + 4096);
    (void)snprintf(line, sizeof(line), "From: a@b\r\nSubject: number %u\r\nMessage-ID: <%u@x>\r\n\r\n", number, number);
    tb_buf_str(&b, line);
    while (b.len < class_bytes[class]) {
        (void)snprintf(line, sizeof(line), "%08x %08x tambo\r\n", (unsigned)rand_r(&r), (unsigned)rand_r(&r));
        tb_buf_str(&b, line);
    }
    return b;
}

static uint64_t body_bytes(unsigned class)
{
    struct tb_buf b = message(1, class);
    const char *end = strstr(b.ptr, "\r\n\r\n");
    uint64_t n = b.len - (size_t)(end + 4 - b.ptr);
    tb_buf_free(&b);
    return n;
}

struct sending {
    struct tb_delivery *d;
    struct tb_delivery_target target[ACCOUNTS];
    size_t n;
    unsigned class;
    uint32_t number;
    bool done;
    struct tb_op op;
};

/* send: a message on its way: written, commit begun. */
static void send(struct world *x, struct sending *s, unsigned worker, unsigned class, const unsigned *to, size_t n)
{
    *s = (struct sending){.n = n, .class = class, .number = ++x->number};
    struct tb_buf m = message(s->number, class);
    assert_int_equal(tb_delivery_begin(x->w[worker], 10 << 20, &s->d), TB_OK);
    for (size_t i = 0; i < n; i++) {
        s->target[i] = (struct tb_delivery_target){
            .id = x->box[to[i]].id, .mbox = TB_MBOX_INBOX, .is_append = true, .internaldate = s->number};
        assert_int_equal(tb_delivery_add(s->d, &s->target[i]), TB_OK);
    }
    for (size_t at = 0; at < m.len; at += 65536) {
        bool go = false;
        struct tb_op op = {.done = done_flag, .user = &go};
        if (!tb_delivery_write(s->d, tb_slice_sub(tb_buf_all(&m), at, 65536), &op))
            turn_until(x, &go);
    }
    tb_buf_free(&m);
    s->op = (struct tb_op){.done = done_flag, .user = &s->done};
    tb_delivery_commit(s->d, true, &s->op);
}

static void noted(struct world *x, struct sending *s, unsigned to)
{
    struct box *b = &x->box[to];
    assert_true(b->n < MESSAGES_MAX);
    b->v[b->n++] = (struct msg){s->target[0].uid, s->number, s->class};
}

static void deliver(struct world *x, unsigned to, unsigned class)
{
    struct sending s;
    send(x, &s, x->number % SHARDS, class, &to, 1);
    turn_until(x, &s.done);
    assert_int_equal(s.op.rc, TB_OK);
    noted(x, &s, to);
}

static struct tb_account *account_of(struct world *x, unsigned i)
{
    struct tb_account *a;
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, x->box[i].id)], x->box[i].id, &a), TB_OK);
    return a;
}

static void expunge(struct world *x, unsigned i, const struct tb_uidset *set)
{
    struct tb_account *a = account_of(x, i);
    struct tb_view *v;
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    assert_int_equal(tb_delete(v, set), TB_OK);
    tb_view_close(v);
    uint64_t position = tb_account_position(a);
    while (!tb_gate_open(a, position))
        turn(x);
    tb_account_close(a);
    size_t n = 0;
    struct box *b = &x->box[i];
    for (size_t k = 0; k < b->n; k++)
        if (!tb_uidset_has(set, b->v[k].uid))
            b->v[n++] = b->v[k];
    b->n = n;
}

static void expunge_all(struct world *x)
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    tb_uidset_add(&set, 1, UINT32_MAX);
    for (unsigned i = 0; i < ACCOUNTS; i++)
        expunge(x, i, &set);
    tb_uidset_free(&set);
}

/* ---- what is there ---- */

static void check_body(struct world *x, struct tb_view *v, const struct msg *want)
{
    struct tb_buf m = message(want->number, want->class);
    struct tb_body *b;
    assert_int_equal(tb_body_open(v, want->uid, &b), TB_OK);
    assert_int_equal(tb_body_size(b), m.len);
    for (size_t at = 0; at < m.len;) {
        bool flag = false;
        struct tb_op op = {.done = done_flag, .user = &flag};
        tb_body_read(b, at, &op);
        turn_until(x, &flag);
        assert_int_equal(op.rc, TB_OK);
        assert_true(op.data.len > 0 && op.data.len <= m.len - at);
        assert_memory_equal(op.data.ptr, m.ptr + at, op.data.len);
        at += op.data.len;
    }
    tb_body_close(b);
    tb_buf_free(&m);
}

static void check_boxes(struct world *x)
{
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        struct tb_account *a = account_of(x, i);
        struct tb_view *v;
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        assert_int_equal(tb_view_count(v), x->box[i].n);
        for (size_t k = 0; k < x->box[i].n; k++)
            check_body(x, v, &x->box[i].v[k]);
        tb_view_close(v);
        tb_account_close(a);
    }
}

static struct tb_shard_stat stat_of(struct world *x)
{
    struct tb_shard_stat total = {0}, s;
    for (uint32_t i = 0; i < SHARDS; i++) {
        tb_shard_stat(x->w[i], i, &s);
        total.stored_raw_bytes += s.stored_raw_bytes;
        total.shared_raw_bytes += s.shared_raw_bytes;
        total.messages += s.messages;
    }
    return total;
}

/* live_of: bytes that the segments' counters take for live. */
static int64_t live_of(struct tb_shard *s)
{
    struct tb_slice k, v;
    int64_t live = 0;
    bool more = tb_index_ge(s->ix, TB_DB_SEG, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(s->ix, TB_DB_SEG, 0, &k, &v))
        live += (int64_t)tb_get_le64(v.ptr + offsetof(struct tb_disk_seg, live));
    for (size_t i = 0; i < s->x.seg_n; i++)
        live += s->x.seg[i].live;
    return live;
}

/* check_nothing: all messages expunged and purged: not a row, not a byte is left. */
static void check_nothing(struct world *x)
{
    static const enum tb_db empty[] = {TB_DB_BLOB, TB_DB_BODY, TB_DB_BODYX, TB_DB_HASH, TB_DB_TRASH};
    struct tb_slice k, v;
    for (int i = 0; i < 40; i++) {
        tb_sim_advance(x->sim, 1100000000ull);
        for (int t = 0; t < 50; t++)
            turn(x);
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct tb_shard *s = x->store->shard[i];
        for (size_t d = 0; d < TB_ARRAY_LEN(empty); d++)
            if (tb_index_ge(s->ix, empty[d], tb_slice("\0", 1), 0, &k, &v))
                fail_msg("database %d has a row left", (int)empty[d]);
        assert_int_equal(live_of(s), 0);
        assert_int_equal(s->x.state.stored_bytes, 0);
        assert_int_equal(s->compares, 0);
    }
    struct tb_shard_stat total = stat_of(x);
    assert_int_equal(total.stored_raw_bytes, 0);
    assert_int_equal(total.shared_raw_bytes, 0);
}

/* ---- straight ---- */

static void test_stored_once(void **state)
{
    struct world *x = world_new(1);
    uint64_t want = 0;
    (void)state;
    for (unsigned class = SMALL; class < OTHER; class ++)
        for (int i = 0; i < 6; i++) {
            deliver(x, 0, class);
            want += i > 0 && class != SMALL ? body_bytes(class) : 0;
            assert_int_equal(stat_of(x).shared_raw_bytes, want);
        }
    check_boxes(x);
    cut(x, TB_SIM_CUT_NONE);
    assert_int_equal(stat_of(x).shared_raw_bytes, want);
    check_boxes(x);
    expunge_all(x);
    check_nothing(x);
    world_free(x);
}

/* Another account's body is nobody's business; two accounts of one delivery share theirs as ever. */
static void test_accounts(void **state)
{
    struct world *x = world_new(2);
    struct sending s;
    (void)state;
    for (unsigned i = 0; i < ACCOUNTS; i++)
        deliver(x, i, MEDIUM);
    assert_int_equal(stat_of(x).shared_raw_bytes, 0);
    unsigned to[] = {0, 1, 2};
    send(x, &s, 0, MEDIUM, to, 3); /* several shards: one of them through the queue */
    turn_until(x, &s.done);
    assert_int_equal(s.op.rc, TB_OK);
    for (int i = 0; i < 400; i++)
        turn(x);
    unsigned alone = x->box[0].id.shard != x->box[1].id.shard && x->box[0].id.shard != x->box[2].id.shard   ? 1
                     : x->box[1].id.shard != x->box[0].id.shard && x->box[1].id.shard != x->box[2].id.shard ? 1
                     : x->box[2].id.shard != x->box[0].id.shard                                             ? 1
                                                                                                            : 0;
    assert_int_equal(stat_of(x).shared_raw_bytes, alone * body_bytes(MEDIUM));
    assert_int_equal(stat_of(x).messages, 6);
    expunge_all(x);
    check_nothing(x);
    world_free(x);
}

static void test_switched_off(void **state)
{
    struct world *x = world_new(3);
    (void)state;
    deliver(x, 0, MEDIUM);
    x->no_dedup = true;
    cut(x, TB_SIM_CUT_NONE);
    deliver(x, 0, MEDIUM);
    assert_int_equal(stat_of(x).shared_raw_bytes, 0);
    check_boxes(x);
    expunge_all(x);
    check_nothing(x);
    world_free(x);
}

/* A hash row that names the wrong body of the right length: what a collision would do. The bytes decide. */
static void test_collision(void **state)
{
    struct world *x = world_new(4);
    struct tb_shard *s = x->store->shard[x->box[0].id.shard];
    struct tb_slice k, v;
    uint8_t key[2][TB_HASH_KEY_MAX];
    char acct[4];
    size_t n = 0;
    (void)state;
    tb_put_be32(acct, x->box[0].id.acct);
    assert_int_equal(body_bytes(MEDIUM), body_bytes(OTHER));
    deliver(x, 0, MEDIUM);
    deliver(x, 0, OTHER);
    bool more = tb_index_ge(s->ix, TB_DB_HASH, tb_slice(acct, 4), 4, &k, &v);
    for (; more; more = tb_index_next(s->ix, TB_DB_HASH, 4, &k, &v), n++) {
        assert_true(n < 2 && k.len == TB_HASH_KEY_MAX && v.len == 8);
        memcpy(key[n], k.ptr, k.len);
    }
    assert_int_equal(n, 2);
    uint64_t body[2];
    assert_true(tb_hash_get(s->ix, key[0], &body[0]) && tb_hash_get(s->ix, key[1], &body[1]));
    for (unsigned i = 0; i < 2; i++) { /* each key leads to the other's body */
        char other[8];
        tb_put_le64(other, body[1 - i]);
        tb_index_put(s->ix, TB_DB_HASH, tb_slice(key[i], sizeof(key[i])), tb_slice(other, 8));
    }
    deliver(x, 0, MEDIUM);
    deliver(x, 0, OTHER);
    assert_int_equal(stat_of(x).shared_raw_bytes, 0);
    check_boxes(x);
    deliver(x, 0, MEDIUM); /* the later bodies have taken the keys over */
    deliver(x, 0, OTHER);
    assert_int_equal(stat_of(x).shared_raw_bytes, 2 * body_bytes(MEDIUM));
    check_boxes(x);
    expunge_all(x);
    world_free(x);
}

/* The body that was found goes while it is being compared: at every moment of the delivery. */
static void test_goes_meanwhile(void **state)
{
    static const unsigned classes[] = {MEDIUM, PIECES};
    unsigned shared = 0, stored = 0;
    (void)state;
    for (unsigned c = 0; c < TB_ARRAY_LEN(classes); c++)
        for (int turns = 0; turns < 40; turns++) {
            struct world *x = world_new(5 + (uint64_t)turns);
            struct sending s;
            unsigned to = 0;
            deliver(x, 0, classes[c]);
            send(x, &s, (unsigned)turns % SHARDS, classes[c], &to, 1);
            for (int t = 0; t < turns; t++)
                turn(x);
            struct tb_uidset set;
            tb_uidset_init(&set);
            tb_uidset_add(&set, 1, 1);
            expunge(x, 0, &set);
            tb_uidset_free(&set);
            tb_sim_advance(x->sim, 1100000000ull); /* the purge is due */
            turn_until(x, &s.done);
            assert_int_equal(s.op.rc, TB_OK);
            uint64_t saved = stat_of(x).shared_raw_bytes;
            shared += saved > 0;
            stored += saved == 0;
            noted(x, &s, 0);
            check_boxes(x);
            expunge_all(x);
            check_nothing(x);
            world_free(x);
        }
    print_message("found body purged meanwhile: %u times, kept by its new message: %u times\n", stored, shared);
    assert_true(stored > 0);
}

/* A stored body that cannot be read any more is no reason to refuse or to trust: it is stored anew. */
static void test_damaged(void **state)
{
    struct world *x = world_new(6);
    char path[160];
    (void)state;
    deliver(x, 0, LARGE);
    struct tb_shard *s = x->store->shard[x->box[0].id.shard];
    struct tb_slice k, v;
    struct tb_blob_row row;
    assert_true(tb_index_ge(s->ix, TB_DB_BLOB, tb_slice("\0", 1), 0, &k, &v) && v.len == sizeof(row));
    memcpy(&row, v.ptr, sizeof(row));
    (void)snprintf(path, sizeof(path), "%s/shard-%02x/log/%08x.seg", x->dir, s->number, (unsigned)(row.own.lsn >> 22));
    assert_int_equal(tb_sim_flip_bit(x->sim, path, row.own.lsn % (4 << 20) + 1000, 3), 0);
    x->box[0].n = 0;
    deliver(x, 0, LARGE);
    deliver(x, 0, LARGE);
    assert_int_equal(stat_of(x).shared_raw_bytes, body_bytes(LARGE)); /* the third with the second */
    struct tb_account *a = account_of(x, 0);
    struct tb_view *view;
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &view), TB_OK);
    for (size_t i = 0; i < 2; i++)
        check_body(x, view, &x->box[0].v[i]);
    tb_view_close(view);
    tb_account_close(a);
    world_free(x);
}

/* ---- seeded, with power cuts ---- */

static void random_expunge(struct world *x, unsigned i)
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    for (size_t k = 0; k < x->box[i].n; k++)
        if (tb_sim_choose(x->sim, 3) == 0)
            tb_uidset_add(&set, x->box[i].v[k].uid, x->box[i].v[k].uid);
    expunge(x, i, &set);
    tb_uidset_free(&set);
}

/* believe: the boxes as they are now: an operation under way at the cut happened or not, that is another test's. */
static void believe(struct world *x)
{
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        struct tb_account *a = account_of(x, i);
        struct tb_view *v;
        struct tb_row row;
        size_t n = 0;
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        for (size_t k = 0; k < x->box[i].n; k++)
            if (tb_view_row(v, x->box[i].v[k].uid, &row) == TB_OK)
                x->box[i].v[n++] = x->box[i].v[k];
        assert_int_equal(n, x->box[i].n); /* all was acknowledged before the cut */
        tb_view_close(v);
        tb_account_close(a);
    }
}

static void drop_unknown(struct world *x, struct sending *s, size_t n)
{
    for (unsigned i = 0; i < ACCOUNTS; i++) { /* messages that the cut let through though nobody was told */
        struct tb_account *a = account_of(x, i);
        struct tb_view *v;
        struct tb_row rows[MESSAGES_MAX];
        assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
        size_t have = tb_view_scan(v, 1, rows, MESSAGES_MAX);
        for (size_t k = 0; k < have; k++)
            for (size_t j = 0; j < n; j++)
                if ((uint64_t)rows[k].internaldate == s[j].number)
                    x->box[i].v[x->box[i].n++] = (struct msg){rows[k].uid, s[j].number, s[j].class};
        tb_view_close(v);
        tb_account_close(a);
    }
}

static void one_cycle(struct world *x)
{
    enum { UNDER_WAY = 6 };
    struct sending s[UNDER_WAY];
    unsigned to;
    for (uint64_t n = 5 + tb_sim_choose(x->sim, 40); n > 0; n--) {
        unsigned i = (unsigned)tb_sim_choose(x->sim, ACCOUNTS);
        if (tb_sim_choose(x->sim, 5) == 0)
            random_expunge(x, i);
        else
            deliver(x, i, (unsigned)tb_sim_choose(x->sim, CLASSES));
    }
    size_t n = tb_sim_choose(x->sim, UNDER_WAY);
    for (size_t j = 0; j < n; j++) {
        to = (unsigned)tb_sim_choose(x->sim, ACCOUNTS);
        send(x, &s[j], (unsigned)tb_sim_choose(x->sim, SHARDS), (unsigned)tb_sim_choose(x->sim, CLASSES), &to, 1);
    }
    for (uint64_t t = tb_sim_choose(x->sim, 60); t > 0; t--)
        turn(x);
    cut(x, (enum tb_sim_cut)tb_sim_choose(x->sim, TB_SIM_CUT_TRASH)); /* not TRASH: it may destroy whole blocks */
    believe(x);
    drop_unknown(x, s, n);
    check_boxes(x);
}

static void test_power_cuts(void **state)
{
    uint64_t shared = 0;
    (void)state;
    for (unsigned long seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct world *x = world_new(seed);
        print_message("seed %lu\n", seed);
        for (int i = 0; i < CYCLES; i++) {
            one_cycle(x);
            shared += stat_of(x).shared_raw_bytes;
        }
        expunge_all(x);
        check_nothing(x);
        world_free(x);
    }
    assert_true(shared > 0);
    print_message("%lu seeds, %d power cuts each, %llu bytes shared\n", seed_count, CYCLES, (unsigned long long)shared);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_once), cmocka_unit_test(test_accounts),       cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_collision),   cmocka_unit_test(test_goes_meanwhile), cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_power_cuts),
    };
    tb_log_level(TB_LOG_WARN);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("dedup", tests, NULL, NULL);
}
