/*
 * crash.c: see crash.h. Each client owns two mailboxes and has one operation under way at a time: deliver one message
 * or several that belong together, perhaps in the place of one, flags, expunge, copy, move. After every cut what is on
 * the disk must pass a whole check, and the recovered mailboxes must be exactly what the model says before or after the
 * operation that was under way (all or nothing), and exactly what it says if none was: nothing acknowledged is lost,
 * nothing is half done, no UID is used twice. Deliveries for two accounts, one perhaps in the other shard, must arrive
 * once each if acknowledged, at most once if not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/admin.h>
#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include "engine/io/sim.h"
#include "tests/lib/crash.h"
#include "tests/lib/whole.h"

enum { CLIENTS = 8, ACCOUNTS = 4, MESSAGES_MAX = 400, CYCLES = CRASH_CYCLES, SHARDS = 2, BATCH_MAX = 80 };

struct msg {
    uint32_t uid, seed;
    uint16_t flags;
};
struct box {
    uint32_t mbox, uidvalidity, uidnext;
    size_t n;
    struct msg v[MESSAGES_MAX];
};
struct client {
    struct world *x;
    unsigned number;
    struct tb_account_id id;
    char name[2][16];           /* of its mailboxes */
    struct box now[2], next[2]; /* as acknowledged; as after the operation under way */
    bool busy, delivering;
    uint32_t seed; /* of the message being delivered */
    struct tb_op op;
    struct tb_account *account; /* while an operation waits for its gate */
    struct tb_delivery_target target[BATCH_MAX];
    size_t targets; /* of a batch */
    uint64_t acked;
};
struct sent { /* deliveries to INBOXes: (account, seed) */
    uint32_t account, seed;
    bool acked;
};
struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io[SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SHARDS];
    struct tb_account_id id[ACCOUNTS];
    struct client client[CLIENTS];
    struct sent *sent;
    size_t sent_n, sent_cap;
    uint32_t next_seed;
    uint64_t ops;
    uint64_t modseq[ACCOUNTS];
    char refused[300];
    bool padded, gc;
    uint64_t freed, moved;
    const char *wrong; /* first thing found wrong */
    uint64_t cycle;
};

/* A process that loses its power frees nothing: what it had under way is no leak. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0";
}

static void wrong(struct world *x, const char *what)
{
    if (x->wrong == NULL)
        x->wrong = what;
}

/* ---- running ---- */

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
    struct tb_store_config cfg = {
        .dir = x->dir, .workers = SHARDS, .checkpoint_log_bytes = 256 << 10, .checkpoint_ms = 20, .trash_days = 0};
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    x->store = NULL;
    memset(x->w, 0, sizeof(x->w));
    enum tb_rc rc = tb_store_open(x->io[0], &cfg, &x->store, &err);
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++)
        rc = tb_worker_open(x->store, i, x->io[i], &x->w[i], &err);
    if (rc != TB_OK) {
        (void)snprintf(x->refused, sizeof(x->refused), "recovery refused: %s", err.text);
        wrong(x, x->refused);
        return;
    }
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_started(x->w[i]);
}

static void world_close(struct world *x)
{
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_close(x->w[i]);
    tb_store_close(x->store);
    memset(x->w, 0, sizeof(x->w));
    x->store = NULL;
}

/* ---- messages: their bytes follow from the seed ---- */

static struct tb_buf message(uint32_t seed)
{
    struct tb_buf b;
    char line[96];
    uint32_t body = seed % 4 == 0 ? seed % 12 : seed; /* every fourth has one of three bodies, stored once (R11) */
    unsigned r = body * 2654435761u, n = seed % 97 == 0 ? 1500000 : body != seed ? 10000 : 200 + r % 9000;
    tb_buf_init(&b, n + 4096);
    (void)snprintf(line, sizeof(line), "From: a@b\r\nSubject: seed %u\r\nMessage-ID: <%u@x>\r\n\r\n", seed, seed);
    tb_buf_str(&b, line);
    while (b.len < n) {
        (void)snprintf(line, sizeof(line), "%08x %08x tambo %u\r\n", (unsigned)rand_r(&r), (unsigned)rand_r(&r), body);
        tb_buf_str(&b, line);
    }
    return b;
}

/* ---- operations ---- */

static void acked(struct client *c)
{
    memcpy(c->now, c->next, sizeof(c->now));
    c->busy = false;
    c->acked++;
    if (c->account != NULL)
        tb_account_close(c->account);
    c->account = NULL;
}

static void sent_add(struct world *x, uint32_t account, uint32_t seed)
{
    if (x->sent_n == x->sent_cap) {
        x->sent_cap = x->sent_cap ? 2 * x->sent_cap : 256;
        x->sent = realloc(x->sent, x->sent_cap * sizeof(*x->sent));
        assert_non_null(x->sent);
    }
    x->sent[x->sent_n++] = (struct sent){account, seed, false};
}

static void delivered(struct tb_op *op)
{
    struct client *c = op->user;
    if (op->rc != TB_OK)
        wrong(c->x, "a delivery was refused");
    if (c->delivering && c->target[0].uid != c->next[0].v[c->next[0].n - 1].uid)
        wrong(c->x, "a delivery got an unexpected UID");
    for (size_t i = 0; i < c->x->sent_n; i++)
        if (c->x->sent[i].seed == c->seed)
            c->x->sent[i].acked = true;
    acked(c);
}

static void written(struct tb_op *op)
{
    *(bool *)op->user = true;
}

/* put_bytes: of the message of that seed. */
static void put_bytes(struct world *x, struct tb_delivery *d, uint32_t seed)
{
    struct tb_buf m = message(seed);
    for (size_t at = 0; at < m.len; at += 65536) {
        bool go = false;
        struct tb_op op = {.done = written, .user = &go};
        if (!tb_delivery_write(d, tb_slice_sub(tb_buf_all(&m), at, 65536), &op))
            while (!go)
                turn(x);
    }
    tb_buf_free(&m);
}

static void batch_stored(struct tb_op *op)
{
    struct client *c = op->user;
    const struct box *b = &c->next[0];
    if (op->rc != TB_OK)
        wrong(c->x, "a batch was refused");
    for (size_t i = 0; i < c->targets; i++)
        if (c->target[i].uid != b->v[b->n - c->targets + i].uid)
            wrong(c->x, "a message of a batch got an unexpected UID");
    acked(c);
}

/* start_batch: several messages, the more the more of them go to the log ahead; one may take the place of another. */
static void start_batch(struct client *c)
{
    struct world *x = c->x;
    struct tb_worker *w = x->w[tb_sim_choose(x->sim, SHARDS)];
    struct tb_batch *b;
    struct box *next = &c->next[0];
    size_t old = tb_sim_choose(x->sim, 2) == 0 && next->n > 0 ? tb_sim_choose(x->sim, next->n) : SIZE_MAX;
    c->targets = tb_sim_choose(x->sim, 12) == 0 ? BATCH_MAX : 1 + tb_sim_choose(x->sim, 5);
    if (c->targets > MESSAGES_MAX - next->n)
        c->targets = MESSAGES_MAX - next->n;
    assert_int_equal(tb_batch_begin(w, c->id.shard, &b), TB_OK);
    if (old != SIZE_MAX) {
        tb_batch_replace(b, c->id, next->mbox, next->v[old].uid);
        memmove(&next->v[old], &next->v[old + 1], (--next->n - old) * sizeof(next->v[0]));
    }
    for (size_t i = 0; i < c->targets; i++) {
        struct tb_delivery *d;
        bool go = false;
        struct tb_op op = {.done = written, .user = &go};
        uint32_t seed = x->next_seed++;
        c->target[i] = (struct tb_delivery_target){
            .id = c->id, .mbox = next->mbox, .is_append = true, .internaldate = seed};
        assert_int_equal(tb_delivery_begin(w, 10 << 20, &d), TB_OK);
        assert_int_equal(tb_delivery_add(d, &c->target[i]), TB_OK);
        put_bytes(x, d, seed);
        tb_batch_add(b, d, &op);
        while (!go)
            turn(x);
        if (op.rc != TB_OK)
            wrong(x, "a batch did not take a message");
        next->v[next->n++] = (struct msg){next->uidnext++, seed, 0};
    }
    c->op = (struct tb_op){.done = batch_stored, .user = c};
    tb_batch_commit(b, &c->op);
}

static void start_delivery(struct client *c)
{
    struct world *x = c->x;
    struct tb_delivery *d;
    struct tb_worker *w = x->w[tb_sim_choose(x->sim, SHARDS)];
    bool two = tb_sim_choose(x->sim, 3) == 0, own = !two || tb_sim_choose(x->sim, 2) == 0;
    c->seed = x->next_seed++;
    assert_int_equal(tb_delivery_begin(w, 10 << 20, &d), TB_OK);
    size_t n = 0;
    c->delivering = own;
    if (own) {
        c->target[n] = (struct tb_delivery_target){
            .id = c->id, .mbox = c->now[0].mbox, .is_append = true, .internaldate = c->seed};
        assert_int_equal(tb_delivery_add(d, &c->target[n++]), TB_OK);
        c->next[0].v[c->next[0].n++] = (struct msg){c->next[0].uidnext++, c->seed, 0};
    }
    for (int k = 0; two && k < 2 - (int)own; k++) {
        uint32_t to = (uint32_t)(c->number + 1 + (unsigned)k + tb_sim_choose(x->sim, ACCOUNTS - 1)) % ACCOUNTS;
        if (own && x->id[to].shard != c->id.shard)
            continue; /* it would arrive in the own mailbox some turns after the 250: exactness needs it at once */
        if (k == 1 && x->id[to].acct == c->target[0].id.acct)
            continue;
        c->target[n] = (struct tb_delivery_target){.id = x->id[to], .mbox = TB_MBOX_INBOX, .internaldate = c->seed};
        assert_int_equal(tb_delivery_add(d, &c->target[n++]), TB_OK);
        sent_add(x, to, c->seed);
    }
    if (n == 0) {
        c->target[n] = (struct tb_delivery_target){.id = x->id[0], .mbox = TB_MBOX_INBOX, .internaldate = c->seed};
        assert_int_equal(tb_delivery_add(d, &c->target[n++]), TB_OK);
        sent_add(x, 0, c->seed);
    }
    put_bytes(x, d, c->seed);
    c->op = (struct tb_op){.done = delivered, .user = c};
    tb_delivery_commit(d, true, &c->op);
}

static void gate_opened(struct tb_op *op)
{
    struct client *c = op->user;
    if (op->rc != TB_OK)
        wrong(c->x, "a gate failed");
    acked(c);
}

static void pick(struct client *c, struct tb_uidset *set)
{
    tb_uidset_init(set);
    for (size_t i = 0; i < c->now[0].n; i++)
        if (tb_sim_choose(c->x->sim, 3) == 0)
            tb_uidset_add(set, c->now[0].v[i].uid, c->now[0].v[i].uid);
}

static void box_remove(struct box *b, const struct tb_uidset *set)
{
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        if (!tb_uidset_has(set, b->v[i].uid))
            b->v[n++] = b->v[i];
    b->n = n;
}

static void box_take(struct box *to, const struct box *from, const struct tb_uidset *set)
{
    for (size_t i = 0; i < from->n; i++)
        if (tb_uidset_has(set, from->v[i].uid)) {
            to->v[to->n] = from->v[i];
            to->v[to->n++].uid = to->uidnext++;
        }
}

static void start_change(struct client *c)
{
    struct world *x = c->x;
    struct tb_worker *w = x->w[tb_store_worker_of(x->store, c->id)];
    struct tb_view *v;
    struct tb_uidset set;
    struct tb_copied copied;
    assert_int_equal(tb_account_open(w, c->id, &c->account), TB_OK);
    assert_int_equal(tb_view_open(c->account, c->now[0].mbox, &v), TB_OK);
    pick(c, &set);
    size_t room = MESSAGES_MAX - c->now[1].n;
    uint64_t what = tb_sim_choose(x->sim, 4);
    if (what == 0 || (what >= 2 && tb_uidset_count(&set) > room)) {
        uint16_t flag = (uint16_t)(1u << tb_sim_choose(x->sim, 5));
        assert_int_equal(tb_flags_update(v, &set, TB_FLAGS_ADD, flag, 0, UINT64_MAX, NULL), TB_OK);
        for (size_t i = 0; i < c->next[0].n; i++)
            if (tb_uidset_has(&set, c->next[0].v[i].uid))
                c->next[0].v[i].flags |= flag;
    } else if (what == 1) {
        assert_int_equal(tb_delete(v, &set), TB_OK);
        box_remove(&c->next[0], &set);
    } else {
        bool move = what == 3;
        assert_int_equal((move ? tb_move : tb_copy)(v, &set, c->now[1].mbox, &copied), TB_OK);
        tb_copied_free(&copied);
        box_take(&c->next[1], &c->now[0], &set);
        if (move)
            box_remove(&c->next[0], &set);
    }
    tb_uidset_free(&set);
    tb_view_close(v);
    c->op = (struct tb_op){.done = gate_opened, .user = c};
    tb_gate_wait(c->account, tb_account_position(c->account), &c->op);
}

static void start(struct client *c)
{
    memcpy(c->next, c->now, sizeof(c->next));
    c->busy = true;
    c->x->ops++;
    bool room = c->now[0].n < 5 || (c->now[0].n < MESSAGES_MAX - 1 && tb_sim_choose(c->x->sim, 2) == 0);
    if (room && tb_sim_choose(c->x->sim, 5) == 0)
        start_batch(c);
    else if (room)
        start_delivery(c);
    else
        start_change(c);
}

/* ---- checking ---- */

struct reading {
    struct tb_op op;
    bool done;
};

static void read_done(struct tb_op *op)
{
    ((struct reading *)op->user)->done = true;
}

static bool body_is(struct world *x, struct tb_view *v, uint32_t uid, uint32_t seed)
{
    struct tb_buf m = message(seed);
    struct tb_body *b;
    bool same = tb_body_open(v, uid, &b) == TB_OK && tb_body_size(b) == m.len;
    for (size_t at = 0; same && at < m.len;) {
        struct reading r = {.done = false};
        r.op = (struct tb_op){.done = read_done, .user = &r};
        tb_body_read(b, at, &r.op);
        while (!r.done)
            turn(x);
        same = r.op.rc == TB_OK && r.op.data.len > 0 && memcmp(r.op.data.ptr, m.ptr + at, r.op.data.len) == 0;
        at += r.op.data.len;
    }
    tb_body_close(b);
    tb_buf_free(&m);
    return same;
}

/* box_is: does the recovered mailbox match, rows and (rows told) bytes? */
static bool box_is(struct world *x, struct tb_account *a, const struct box *b, bool bytes)
{
    struct tb_view *v;
    struct tb_row row;
    if (tb_view_open(a, b->mbox, &v) != TB_OK)
        return false;
    bool same = tb_view_count(v) == b->n;
    for (size_t i = 0; same && i < b->n; i++) {
        same = tb_view_row(v, b->v[i].uid, &row) == TB_OK && row.flags == b->v[i].flags &&
               row.internaldate == b->v[i].seed;
        if (same && bytes)
            same = body_is(x, v, b->v[i].uid, b->v[i].seed);
    }
    tb_view_close(v);
    return same;
}

static void check_client(struct world *x, struct client *c)
{
    struct tb_account *a;
    struct tb_arena arena;
    struct tb_mailbox m;
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, c->id)], c->id, &a), TB_OK);
    bool before = box_is(x, a, &c->now[0], true) && box_is(x, a, &c->now[1], x->gc);
    bool after = c->busy && !before && box_is(x, a, &c->next[0], true) && box_is(x, a, &c->next[1], x->gc);
    if (!before && !after)
        wrong(x, c->busy ? "a mailbox is neither as before nor as after the operation"
                         : "an acknowledged operation is lost");
    if (after)
        memcpy(c->now, c->next, sizeof(c->now));
    for (int k = 0; k < 2; k++) {
        tb_arena_init(&arena, 4096);
        if (tb_mailbox_find(a, tb_slice_str(c->name[k]), &arena, &m) != TB_OK || m.uidvalidity != c->now[k].uidvalidity)
            wrong(x, "a mailbox or its UIDVALIDITY changed");
        else if (m.uidnext < c->now[k].uidnext)
            wrong(x, "UIDNEXT fell");
        else
            c->now[k].uidnext = m.uidnext;
        tb_arena_free(&arena);
    }
    tb_account_close(a);
    c->busy = false;
    c->account = NULL;
}

static void check_inbox(struct world *x, uint32_t account)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_row rows[64];
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, x->id[account])], x->id[account], &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    uint8_t *count = calloc(x->next_seed + 1, 1);
    assert_non_null(count);
    for (uint32_t uid = 1;;) {
        size_t n = tb_view_scan(v, uid, rows, 64);
        for (size_t i = 0; i < n; i++)
            if (rows[i].internaldate <= x->next_seed)
                count[rows[i].internaldate]++;
        if (n < 64)
            break;
        uid = rows[n - 1].uid + 1;
    }
    for (size_t i = 0; i < x->sent_n; i++) {
        if (x->sent[i].account != account)
            continue;
        if (count[x->sent[i].seed] > 1)
            wrong(x, "a delivery arrived twice");
        if (x->sent[i].acked && count[x->sent[i].seed] == 0)
            wrong(x, "an acknowledged delivery is lost");
    }
    free(count);
    tb_view_close(v);
    tb_account_close(a);
}

/* settle: what was queued between the shards arrives. */
static void settle(struct world *x)
{
    for (int i = 0; i < 400; i++)
        turn(x);
}

/* ---- a world from a seed ---- */

static void made(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void create_account(struct world *x, unsigned i)
{
    bool done = false;
    char name[16];
    struct tb_identity id;
    struct tb_op op = {.done = made, .user = &done};
    (void)snprintf(name, sizeof(name), "u%u", i);
    tb_account_create(x->w[0], tb_slice_str(name), TB_SLICE(""), &op);
    while (!done)
        turn(x);
    assert_int_equal(op.rc, TB_OK);
    assert_int_equal(tb_directory_find(x->store, tb_slice_str(name), &id), TB_OK);
    x->id[i] = id.id;
}

static void create_boxes(struct world *x, struct client *c)
{
    struct tb_account *a;
    struct tb_arena arena;
    struct tb_mailbox m;
    c->x = x;
    c->id = x->id[c->number % ACCOUNTS];
    assert_int_equal(tb_account_open(x->w[tb_store_worker_of(x->store, c->id)], c->id, &a), TB_OK);
    for (int k = 0; k < 2; k++) {
        (void)snprintf(c->name[k], sizeof(c->name[k]), "box%u-%d", c->number, k);
        tb_arena_init(&arena, 4096);
        assert_int_equal(tb_mailbox_create(a, tb_slice_str(c->name[k]), 0, NULL), TB_OK);
        assert_int_equal(tb_mailbox_find(a, tb_slice_str(c->name[k]), &arena, &m), TB_OK);
        c->now[k] = (struct box){.mbox = m.mbox, .uidvalidity = m.uidvalidity, .uidnext = 1};
        tb_arena_free(&arena);
    }
    uint64_t position = tb_account_position(a);
    while (!tb_gate_open(a, position))
        turn(x);
    tb_account_close(a);
}

static void world_new(struct world *x, uint64_t seed)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->next_seed = 1;
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    x->padded = seed % 3 == 0; /* a device whose blocks are larger than ours: a cut may destroy what it writes (R6) */
    tb_sim_block_bytes(x->sim, x->padded ? 16384 : 512);
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_create(io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    world_open(x);
    for (unsigned i = 0; i < ACCOUNTS; i++)
        create_account(x, i);
    for (unsigned i = 0; i < CLIENTS; i++) {
        x->client[i].number = i;
        create_boxes(x, &x->client[i]);
    }
}

static void world_free(struct world *x)
{
    char cmd[128];
    tb_sim_free(x->sim);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", x->dir);
    assert_int_equal(system(cmd), 0);
    free(x->sent);
    free(x);
}

/* collect: now and then GC is told to run, and the clock moves on, so that the trash is emptied. */
static void collect(struct world *x)
{
    unsigned i = (unsigned)tb_sim_choose(x->sim, SHARDS);
    if (tb_sim_choose(x->sim, 40) == 0)
        tb_gc_start(x->w[i], i, tb_sim_choose(x->sim, 2) == 0);
    if (tb_sim_choose(x->sim, 60) == 0)
        tb_sim_advance(x->sim, 1000000000);
}

static void run_until_cut(struct world *x)
{
    uint64_t turns = 20 + tb_sim_choose(x->sim, 1500);
    for (uint64_t t = 0; t < turns && x->wrong == NULL; t++) {
        struct client *c = &x->client[tb_sim_choose(x->sim, CLIENTS)];
        if (!c->busy)
            start(c);
        if (x->gc)
            collect(x);
        turn(x);
    }
    for (unsigned i = 0; i < SHARDS && x->gc; i++) {
        struct tb_shard_stat st;
        tb_shard_stat(x->w[i], i, &st);
        x->freed += st.gc_freed_segments;
        x->moved += st.gc_moved_bytes;
    }
}

/* check_store: what the cut left is whole before anybody has touched it. */
static void check_store(struct world *x)
{
    struct tb_io *io = tb_sim_io(x->sim);
    if (!store_whole(io, x->dir, x->refused))
        wrong(x, x->refused);
    tb_io_close(io);
}

static void cycle(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE,   TB_SIM_CUT_ALL,  TB_SIM_CUT_RANDOM,
                                            TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN, TB_SIM_CUT_TRASH};
    run_until_cut(x);
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes) - !x->padded)]), 0);
    world_close(x);
    check_store(x);
    if (x->wrong == NULL)
        world_open(x);
    if (x->wrong != NULL)
        return;
    settle(x);
    for (unsigned i = 0; i < CLIENTS && x->wrong == NULL; i++)
        check_client(x, &x->client[i]);
    for (uint32_t i = 0; i < ACCOUNTS && x->wrong == NULL; i++)
        check_inbox(x, i);
}

bool crash_run_seed(uint64_t seed, const struct crash_options *opt, struct crash_result *out)
{
    struct world *x = calloc(1, sizeof(*x));
    assert_non_null(x);
    x->gc = opt->gc;
    world_new(x, seed);
    if (opt->lie)
        tb_sim_lie(x->sim, true, false);
    for (int i = 0; i < CYCLES && x->wrong == NULL; i++)
        cycle(x);
    bool good = x->wrong == NULL;
    (void)snprintf(out->wrong, sizeof(out->wrong), "%s", good ? "" : x->wrong);
    out->ops += x->ops;
    out->freed += x->freed;
    out->moved += x->moved;
    world_close(x);
    world_free(x);
    return good;
}
