/*
 * test_trash.c: deleting and bringing back, against a model, on the simulated disk with its power cut at random
 * moments.
 *
 * Each message has a number of its own, which travels as its INTERNALDATE. The model knows for each number where it may
 * be: visible, in the trash (expunged, or in a deleted mailbox, or in a deleted account), gone. An operation under way
 * at a cut allows both; after recovery every message must be in exactly one allowed place. At every check, each blob's
 * references are exactly the rows that name it, no (mailbox, UID) ever names two messages, and the counters are the
 * sums of what they count; the checker looks at some of the stores that cuts left. In the end everything is deleted,
 * the days pass, and nothing may be left: no row, no blob, no live byte in any segment.
 *
 * Usage: test_trash [SEED [COUNT]]. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include <tambo/check.h>
#include <tambo/trash.h>
#include "engine/io/sim.h"
#include "engine/store/shard.h"

enum { ACCOUNTS = 3, NAMES = 4, SHARDS = 2, OPS = 300, NUMBERS_MAX = 20000, SEEN = 1 << 16, DAYS = 2 };
enum { VISIBLE = 1, TRASHED = 2, GONE = 4 };

struct world {
    struct tb_sim *sim;
    char dir[64];
    struct tb_io *io[SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SHARDS];
    uint32_t next;              /* number to give */
    uint8_t may[NUMBERS_MAX];   /* where it may be */
    uint8_t found[NUMBERS_MAX]; /* where it was at the last check */
    uint8_t owner[NUMBERS_MAX]; /* its account */
    uint32_t box[NUMBERS_MAX];  /* its mailbox at the last check, and that one's account */
    uint32_t acct[NUMBERS_MAX];
    struct tb_account_id id[ACCOUNTS]; /* the newest account of that name */
    bool there[ACCOUNTS], maybe[ACCOUNTS];
    struct {
        uint64_t place;
        uint32_t number;
    } seen[SEEN]; /* (account, mailbox, UID) -> number */
    uint64_t fuse, cuts, restored, purged;
    char wrong[200];
};

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0"; /* a process that loses its power frees nothing */
}

static unsigned long first_seed = 1, seed_count = 6;

static void wrong(struct world *x, const char *what, uint64_t a, uint64_t b)
{
    if (x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "%s (%llu, %llu)", what, (unsigned long long)a,
                       (unsigned long long)b);
}

/* ---- running ---- */

static void world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {
        .dir = x->dir, .workers = SHARDS, .checkpoint_log_bytes = 64 << 10, .checkpoint_ms = 20, .trash_days = DAYS};
    enum tb_rc rc = TB_OK;
    for (unsigned i = 0; i < SHARDS; i++)
        x->io[i] = tb_sim_io(x->sim);
    memset(x->w, 0, sizeof(x->w));
    rc = tb_store_open(x->io[0], &cfg, &x->store, &err);
    for (unsigned i = 0; rc == TB_OK && i < SHARDS; i++)
        rc = tb_worker_open(x->store, i, x->io[i], &x->w[i], &err);
    if (rc != TB_OK)
        fail_msg("recovery refused: %s", err.text);
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_started(x->w[i]);
}

static void world_close(struct world *x)
{
    for (unsigned i = 0; i < SHARDS; i++)
        tb_worker_close(x->w[i]);
    tb_store_close(x->store);
}

static void turn(struct world *x)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        n += tb_worker_turn(x->w[i], false);
    if (n == 0)
        (void)tb_worker_turn(x->w[0], true);
}

static void turns(struct world *x, unsigned n)
{
    while (n-- > 0)
        turn(x);
}

static void found(void *user, const struct tb_finding *f)
{
    struct world *x = user;
    if (f->damage && x->wrong[0] == '\0')
        (void)snprintf(x->wrong, sizeof(x->wrong), "the checker: %s: %s", f->object, f->what);
}

/* inspect: what the checker says of the store as the cut left it. */
static void inspect(struct world *x)
{
    struct tb_check_options opt = {.user = x, .found = found};
    struct tb_check_stat stat = {0};
    struct tb_error err = {0};
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_check(io, x->dir, &opt, &stat, &err) != TB_OK)
        fail_msg("the checker: %s", err.text);
    tb_io_close(io);
}

static void cut(struct world *x)
{
    static const enum tb_sim_cut modes[] = {TB_SIM_CUT_NONE, TB_SIM_CUT_ALL, TB_SIM_CUT_RANDOM, TB_SIM_CUT_TORN};
    assert_int_equal(tb_sim_power_cut(x->sim, modes[tb_sim_choose(x->sim, TB_ARRAY_LEN(modes))]), 0);
    world_close(x);
    if (x->cuts % 4 == 0)
        inspect(x);
    world_open(x);
    turns(x, 300);
    x->cuts++;
    x->fuse = 0;
}

/* wait: until *flag; false: the power went away meanwhile and came back. */
static bool wait(struct world *x, const bool *flag)
{
    while (!*flag) {
        if (x->fuse > 0 && --x->fuse == 0) {
            cut(x);
            return false;
        }
        turn(x);
    }
    return true;
}

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static struct tb_account *open_account(struct world *x, unsigned i)
{
    struct tb_account *a = NULL;
    enum tb_rc rc = tb_account_open(x->w[tb_store_worker_of(x->store, x->id[i])], x->id[i], &a);
    if (rc != TB_OK)
        wrong(x, "an account is not there", i, rc);
    return rc == TB_OK ? a : NULL;
}

/* settle: until what the account's owner did is durable; closes it. False after a cut. */
static bool settle(struct world *x, struct tb_account *a)
{
    bool open = false;
    struct tb_op op = {.done = done_flag, .user = &open};
    tb_gate_wait(a, tb_account_position(a), &op);
    if (!wait(x, &open))
        return false;
    tb_account_close(a);
    return true;
}

/* ---- looking at everything ---- */

struct look {
    struct world *x;
    struct tb_shard *s;
    struct {
        uint64_t blob;
        uint32_t n;
    } ref[NUMBERS_MAX];
    size_t refs_n;
    uint64_t messages, bytes;
};

static void see(struct look *l, uint32_t acct, uint32_t mbox, const struct tb_disk_row *row, uint8_t where)
{
    struct world *x = l->x;
    uint64_t number = (uint64_t)row->internaldate;
    if (number == 0 || number >= x->next) {
        wrong(x, "a message that nobody sent", number, x->next);
        return;
    }
    if (x->found[number] != 0)
        wrong(x, "a message is in two places", number, mbox);
    x->found[number] = where;
    x->box[number] = mbox;
    x->acct[number] = acct;
    uint64_t place = (uint64_t)acct << 44 ^ (uint64_t)mbox << 24 ^ row->uid;
    size_t at = (place * 0x9e3779b97f4a7c15ull) >> 48;
    while (x->seen[at].place != 0 && x->seen[at].place != place)
        at = (at + 1) % SEEN;
    if (x->seen[at].place == place && x->seen[at].number != number)
        wrong(x, "a UID was used twice", x->seen[at].number, number);
    x->seen[at].place = place;
    x->seen[at].number = (uint32_t)number;
    size_t i = 0;
    while (i < l->refs_n && l->ref[i].blob != row->blob)
        i++;
    l->ref[i].blob = row->blob;
    l->ref[i].n = i == l->refs_n ? 1 : l->ref[i].n + 1;
    l->refs_n += i == l->refs_n;
    if (where == VISIBLE) {
        l->messages++;
        l->bytes += row->size;
    }
}

static void look_mailbox(struct look *l, uint32_t acct, uint32_t mbox, const struct tb_disk_mbox *m, bool account)
{
    struct tb_disk_row rows[64];
    bool visible = account && !(m->flags & TB_MBOX_NOSELECT);
    uint64_t n = 0, bytes = 0;
    for (uint32_t uid = 1;;) {
        size_t got = tb_rows_scan(l->s->ix, acct, mbox, uid, rows, 64);
        for (size_t i = 0; i < got; i++) {
            see(l, acct, mbox, &rows[i], visible ? VISIBLE : TRASHED);
            if (rows[i].uid >= m->uidnext)
                wrong(l->x, "a UID over UIDNEXT", rows[i].uid, m->uidnext);
            bytes += rows[i].size;
        }
        n += got;
        if (got < 64)
            break;
        uid = rows[got - 1].uid + 1;
    }
    if (visible && (n != m->messages || bytes != m->bytes))
        wrong(l->x, "a mailbox's counters are not its messages", n, m->messages);
}

static void look_shard(struct look *l)
{
    struct tb_slice k, v;
    struct tb_index *ix = l->s->ix;
    for (bool more = tb_index_ge(ix, TB_DB_MBOX, tb_slice("\0", 1), 0, &k, &v); more;) {
        uint32_t acct = tb_get_be32(k.ptr), mbox = tb_get_be32(k.ptr + 4);
        struct tb_disk_mbox m;
        struct tb_disk_acct a;
        memcpy(&m, v.ptr, sizeof(m));
        bool account = tb_acct_get(ix, acct, &a) && !(a.flags & TB_ACCT_DELETED);
        look_mailbox(l, acct, mbox, &m, account);
        struct tb_key next;
        tb_key_begin(&next);
        tb_key_u32(&next, acct);
        tb_key_u32(&next, mbox + 1);
        more = tb_index_ge(ix, TB_DB_MBOX, tb_key_slice(&next), 0, &k, &v);
    }
    bool more = tb_index_ge(ix, TB_DB_TRASH, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_TRASH, 0, &k, &v)) {
        struct tb_disk_row row;
        if (tb_get_be32(k.ptr + 16) == 0)
            continue;
        memcpy(&row, v.ptr, sizeof(row));
        see(l, tb_get_be32(k.ptr + 8), tb_get_be32(k.ptr + 12), &row, TRASHED);
    }
    size_t blobs = 0;
    more = tb_index_ge(ix, TB_DB_BLOB, tb_slice("\0", 1), 0, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_BLOB, 0, &k, &v), blobs++) {
        struct tb_disk_blob b;
        size_t i = 0;
        memcpy(&b, v.ptr, sizeof(b));
        while (i < l->refs_n && l->ref[i].blob != tb_get_be64(k.ptr))
            i++;
        if (i == l->refs_n || l->ref[i].n != b.refs)
            wrong(l->x, "a blob's references are not its rows", b.refs, i < l->refs_n ? l->ref[i].n : 0);
    }
    if (blobs != l->refs_n)
        wrong(l->x, "a row names a blob that is gone", l->refs_n, blobs);
    if (l->messages != l->s->x.state.messages || l->bytes != l->s->x.state.raw_bytes)
        wrong(l->x, "the shard's counters are not its messages", l->messages, l->s->x.state.messages);
}

/* check: every message is where it may be; from now on it must be where it was found. */
static void check(struct world *x)
{
    struct look *l = malloc(sizeof(*l));
    assert_non_null(l);
    memset(x->found, 0, sizeof(x->found));
    for (unsigned i = 0; i < SHARDS; i++) {
        memset(l, 0, sizeof(*l));
        l->x = x;
        l->s = x->store->shard[i];
        look_shard(l);
    }
    free(l);
    for (uint32_t n = 1; n < x->next; n++) {
        uint8_t at = x->found[n] != 0 ? x->found[n] : GONE;
        if (!(x->may[n] & at))
            wrong(x, "a message is not where it may be", n, (uint64_t)x->may[n] << 8 | at);
        x->purged += at == GONE && x->may[n] != GONE;
        x->may[n] = at;
    }
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        struct tb_identity id;
        char name[16];
        (void)snprintf(name, sizeof(name), "u%u", i);
        bool there = tb_directory_find(x->store, tb_slice_str(name), &id) == TB_OK;
        if (there != x->there[i] && !x->maybe[i])
            wrong(x, "an account is not as it was", i, there);
        x->there[i] = there;
        x->maybe[i] = false;
        if (there)
            x->id[i] = id.id;
    }
}

/* ---- operations ---- */

static void op_deliver(struct world *x, unsigned i)
{
    char text[12000], name[8];
    struct tb_delivery *d;
    struct tb_delivery_target t[2] = {0};
    bool done = false, written = false;
    struct tb_op op = {.done = done_flag, .user = &done}, write = {.done = done_flag, .user = &written};
    size_t n = 1 + (x->there[(i + 1) % ACCOUNTS] && tb_sim_choose(x->sim, 4) == 0);
    (void)snprintf(name, sizeof(name), "m%u", (unsigned)tb_sim_choose(x->sim, NAMES));
    for (size_t k = 0; k < n; k++) {
        unsigned to = (i + (unsigned)k) % ACCOUNTS;
        if (k > 0 && x->id[to].shard != x->id[i].shard)
            n = 1; /* it would arrive some turns after it was acknowledged */
        else
            x->owner[x->next] = (uint8_t)to;
        if (k < n) {
            t[k] = (struct tb_delivery_target){.id = x->id[to], .mailbox = tb_slice_str(name), .internaldate = x->next};
            x->may[x->next++] = VISIBLE | GONE;
        }
    }
    int len = snprintf(text, sizeof(text), "Subject: %u\r\nFrom: a@b\r\n\r\n%0*u\r\n", x->next,
                       (int)(100 + tb_sim_choose(x->sim, 9000)), x->next);
    assert_int_equal(tb_delivery_begin(x->w[0], 1 << 20, &d), TB_OK);
    for (size_t k = 0; k < n; k++)
        assert_int_equal(tb_delivery_add(d, &t[k]), TB_OK);
    if (!tb_delivery_write(d, tb_slice(text, (size_t)len), &write) && !wait(x, &written))
        return;
    tb_delivery_commit(d, true, &op);
    if (!wait(x, &done))
        return;
    if (op.rc != TB_OK)
        wrong(x, "a delivery was refused", op.rc, 0);
    for (size_t k = 0; k < n; k++)
        x->may[x->next - n + k] = VISIBLE;
}

/* in_mailbox: what may be said of all visible messages of one of its mailboxes while something is under way there. */
static void may_all(struct world *x, uint32_t mbox, unsigned i, uint8_t from, uint8_t to)
{
    for (uint32_t n = 1; n < x->next; n++)
        if (x->owner[n] == i && x->may[n] == from && (mbox == 0 || x->box[n] == mbox))
            x->may[n] = to;
}

static void op_expunge(struct world *x, unsigned i)
{
    struct tb_account *a = open_account(x, i);
    struct tb_mailbox *v;
    struct tb_arena arena;
    struct tb_view *view;
    struct tb_uidset set;
    struct tb_row row;
    size_t n;
    tb_arena_init(&arena, 1 << 20);
    assert_int_equal(tb_mailbox_list(a, &arena, &v, &n), TB_OK);
    uint32_t mbox = v[tb_sim_choose(x->sim, n)].mbox;
    tb_arena_free(&arena);
    if (mbox == 0 || tb_view_open(a, mbox, &view) != TB_OK) { /* \Noselect */
        tb_account_close(a);
        return;
    }
    tb_uidset_init(&set);
    for (uint32_t s = 1; s <= tb_view_count(view); s++)
        if (tb_sim_choose(x->sim, 2) == 0 && tb_view_row(view, tb_view_uid(view, s), &row) == TB_OK) {
            tb_uidset_add(&set, row.uid, row.uid);
            x->may[row.internaldate] = VISIBLE | TRASHED;
        }
    if (tb_delete(view, &set) != TB_OK)
        wrong(x, "an expunge was refused", i, mbox);
    tb_view_close(view);
    tb_uidset_free(&set);
    if (settle(x, a))
        for (uint32_t k = 1; k < x->next; k++)
            if (x->may[k] == (VISIBLE | TRASHED))
                x->may[k] = TRASHED;
}

static void op_mailbox(struct world *x, unsigned i)
{
    static const char *const names[] = {"m0", "m1", "m2", "m3", "m0/m1", "m1/m2/m3"};
    struct tb_account *a = open_account(x, i);
    struct tb_arena arena;
    struct tb_mailbox m;
    struct tb_slice name = tb_slice_str(names[tb_sim_choose(x->sim, TB_ARRAY_LEN(names))]);
    tb_arena_init(&arena, 1 << 16);
    enum tb_rc rc = tb_mailbox_find(a, name, &arena, &m);
    bool kill = rc == TB_OK && m.selectable;
    tb_arena_free(&arena);
    if (kill) {
        may_all(x, m.mbox, i, VISIBLE, VISIBLE | TRASHED);
        rc = tb_mailbox_delete(a, name);
    } else {
        rc = tb_mailbox_create(a, name, 0, NULL);
    }
    if (rc != TB_OK)
        wrong(x, "a mailbox can be neither made nor deleted", i, rc);
    if (settle(x, a) && kill)
        may_all(x, 0, i, VISIBLE | TRASHED, TRASHED);
}

/* op_restore: all or some of what an account's trash has. */
static void op_restore(struct world *x, unsigned i)
{
    struct tb_account *a = open_account(x, i);
    struct tb_trash_cursor c = {0};
    struct tb_restored sum = {0};
    struct tb_trash_filter f = {.since = 0};
    if (tb_sim_choose(x->sim, 3) == 0)
        f.mailbox = TB_SLICE("m1");
    else if (tb_sim_choose(x->sim, 3) == 0)
        f.to = TB_SLICE("m2");
    may_all(x, 0, i, TRASHED, VISIBLE | TRASHED);
    while (!c.end) {
        if (tb_trash_restore(a, &f, &c, &sum) != TB_OK)
            wrong(x, "a return was refused", i, sum.messages);
        if (!settle(x, a))
            return;
        a = open_account(x, i);
    }
    tb_account_close(a);
    x->restored += sum.messages + sum.mailboxes;
    for (uint32_t n = 1; n < x->next && f.mailbox.len == 0; n++)
        if (x->acct[n] == x->id[i].acct && x->may[n] == (VISIBLE | TRASHED))
            x->may[n] = VISIBLE; /* all of it; but not what an older account of the name left */
}

/* undelete_account: the newest deleted account of the name. */
static bool undelete_account(struct world *x, unsigned i)
{
    struct tb_trash_account v[64], best = {0};
    struct tb_trash_cursor c = {0};
    struct tb_arena arena;
    char name[16];
    size_t n;
    (void)snprintf(name, sizeof(name), "u%u", i);
    tb_arena_init(&arena, 1 << 20);
    while (!c.end) {
        assert_int_equal(tb_trash_accounts(x->w[0], &c, &arena, v, 64, &n), TB_OK);
        for (size_t k = 0; k < n; k++)
            if (tb_slice_eq(v[k].name, tb_slice_str(name)) && v[k].until >= best.until)
                best = v[k];
    }
    tb_arena_free(&arena);
    if (best.acct == 0 || best.until < tb_io_wall_s(x->io[0]) + 120)
        return false;
    bool done = false;
    struct tb_op op = {.done = done_flag, .user = &done};
    may_all(x, 0, i, TRASHED, VISIBLE | TRASHED);
    x->maybe[i] = true;
    tb_account_undelete(x->w[tb_sim_choose(x->sim, SHARDS)], best.acct, best.until, &op);
    if (wait(x, &done) && op.rc != TB_OK)
        wrong(x, "an account cannot come back", i, op.rc);
    return true;
}

static void op_account(struct world *x, unsigned i, bool may_return)
{
    char name[16];
    bool done = false;
    struct tb_op op = {.done = done_flag, .user = &done};
    struct tb_worker *w = x->w[tb_sim_choose(x->sim, SHARDS)];
    (void)snprintf(name, sizeof(name), "u%u", i);
    if (!x->there[i] && may_return && tb_sim_choose(x->sim, 3) != 0 && undelete_account(x, i))
        return;
    x->maybe[i] = true;
    if (x->there[i]) {
        may_all(x, 0, i, VISIBLE, VISIBLE | TRASHED);
        tb_account_delete(w, tb_slice_str(name), &op);
    } else {
        tb_account_create(w, tb_slice_str(name), TB_SLICE(""), &op);
    }
    if (!wait(x, &done))
        return;
    if (op.rc != TB_OK)
        wrong(x, "an account can be neither made nor deleted", i, op.rc);
    may_all(x, 0, i, VISIBLE | TRASHED, TRASHED);
}

/* due: is there anything that should go within the hour? Operations take time too. */
static bool due(struct world *x)
{
    struct tb_slice k, v;
    for (unsigned i = 0; i < SHARDS; i++)
        if (tb_index_ge(x->store->shard[i]->ix, TB_DB_TRASH, tb_slice("\0", 1), 0, &k, &v) &&
            (int64_t)tb_get_be64(k.ptr) <= tb_io_wall_s(x->io[i]) + 3600)
            return true;
    return false;
}

static void op_days(struct world *x)
{
    tb_sim_set_wall(x->sim, tb_io_wall_s(x->io[0]) + (int64_t)tb_sim_choose(x->sim, 86400));
    for (uint32_t n = 1; n < x->next; n++)
        if (x->may[n] & TRASHED)
            x->may[n] |= GONE;
    for (unsigned n = 0; due(x); n++) {
        if (n % 20 == 19)
            tb_sim_set_wall(x->sim, tb_io_wall_s(x->io[0]) + 3600);
        tb_sim_advance(x->sim, 1100000000u);
        turns(x, 10);
    }
}

static void step(struct world *x)
{
    unsigned i = (unsigned)tb_sim_choose(x->sim, ACCOUNTS), what = (unsigned)tb_sim_choose(x->sim, 40);
    if (x->fuse == 0 && tb_sim_choose(x->sim, 8) == 0)
        x->fuse = 1 + tb_sim_choose(x->sim, 60);
    if (what == 0 || !x->there[i])
        op_account(x, i, true);
    else if (what < 20)
        op_deliver(x, i);
    else if (what < 27)
        op_expunge(x, i);
    else if (what < 32)
        op_mailbox(x, i);
    else if (what < 37)
        op_restore(x, i);
    else
        op_days(x);
    check(x);
}

/* ---- the end: nothing is left ---- */

static void all_gone(struct world *x)
{
    x->fuse = 0;
    for (unsigned round = 0; round < 3; round++) { /* delete, make, delete */
        for (unsigned i = 0; i < ACCOUNTS; i++)
            if (x->there[i] == (round != 1))
                op_account(x, i, false);
        check(x);
        if (round == 1)
            cut(x); /* what was half made is swept at a start after its number was given again */
    }
    for (unsigned i = 0; i < 400; i++) {
        if (i % 100 == 0)
            tb_sim_set_wall(x->sim, tb_io_wall_s(x->io[0]) + (DAYS + 1) * 86400);
        tb_sim_advance(x->sim, 1100000000u);
        turns(x, 20);
    }
    for (uint32_t n = 1; n < x->next; n++)
        x->may[n] = GONE;
    check(x);
    for (unsigned i = 0; i < SHARDS; i++) {
        static const enum tb_db empty[] = {TB_DB_TRASH, TB_DB_BLOB, TB_DB_BODY, TB_DB_BODYX, TB_DB_MSG,
                                           TB_DB_CACHE, TB_DB_MBOX, TB_DB_TREE, TB_DB_SUB,   TB_DB_KEYWORD,
                                           TB_DB_CHG,   TB_DB_HASH, TB_DB_ACCT, TB_DB_PLACE, TB_DB_ACL};
        struct tb_shard *s = x->store->shard[i];
        struct tb_slice k, v;
        struct tb_disk_seg seg;
        int64_t live = 0;
        for (size_t d = 0; d < TB_ARRAY_LEN(empty); d++)
            if (tb_index_ge(s->ix, empty[d], tb_slice("\0", 1), 0, &k, &v))
                wrong(x, "something is left in database", empty[d], i);
        bool more = tb_index_ge(s->ix, TB_DB_SEG, tb_slice("\0", 1), 0, &k, &v);
        for (; more; more = tb_index_next(s->ix, TB_DB_SEG, 0, &k, &v)) {
            memcpy(&seg, v.ptr, sizeof(seg));
            live += (int64_t)seg.live;
        }
        for (size_t d = 0; d < s->x.seg_n; d++)
            live += s->x.seg[d].live;
        if (live != 0 || s->x.state.stored_bytes != 0 || s->x.state.stored_raw_bytes != 0)
            wrong(x, "live bytes are left", (uint64_t)live, s->x.state.stored_bytes);
        if (s->x.state.accounts != 0 || s->x.state.mailboxes != 0)
            wrong(x, "accounts or mailboxes are counted", s->x.state.accounts, s->x.state.mailboxes);
    }
}

static struct world *world_new(uint64_t seed)
{
    struct world *x = calloc(1, sizeof(*x));
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    assert_non_null(x);
    (void)snprintf(x->dir, sizeof(x->dir), "%s/tambo-sim-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(x->dir));
    x->sim = tb_sim_new(seed, x->dir);
    assert_non_null(x->sim);
    x->next = 1;
    struct tb_io *io = tb_sim_io(x->sim);
    if (tb_store_create(io, x->dir, &opt, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(io);
    world_open(x);
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

static void test_model(void **state)
{
    uint64_t cuts = 0, restored = 0, messages = 0;
    (void)state;
    for (unsigned long seed = first_seed; seed < first_seed + seed_count; seed++) {
        struct world *x = world_new(seed);
        for (unsigned n = 0; n < OPS && x->wrong[0] == '\0'; n++)
            step(x);
        if (x->wrong[0] == '\0')
            all_gone(x);
        if (x->wrong[0] != '\0')
            fail_msg("seed %lu: %s", seed, x->wrong);
        cuts += x->cuts;
        restored += x->restored;
        messages += x->next - 1;
        world_free(x);
    }
    print_message("%lu seeds, %d operations each, %llu power cuts, %llu messages, %llu things brought back\n",
                  seed_count, OPS, (unsigned long long)cuts, (unsigned long long)messages,
                  (unsigned long long)restored);
    assert_true(cuts > 0 && restored > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    tb_log_level(TB_LOG_ERROR);
    if (argc > 1) {
        first_seed = strtoul(argv[1], NULL, 10);
        seed_count = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    }
    return cmocka_run_group_tests_name("trash", tests, NULL, NULL);
}
