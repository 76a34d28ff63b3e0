/*
 * test_flips.c: single flipped bits, zeroed and swapped 4 KiB pages in the index, its copies and the log of a closed
 * store, and flipped bits in the slots of SUPER and CKPT. Each
 * must be found by the check or by whoever opens the store, or be harmless; no reader may ever get wrong bytes, a wrong
 * row or a wrong number; nothing kills the check; a crash of the server heals at the next start; and what can be put
 * right is, without anybody's help: all but the messages whose own bytes were hit.
 *
 * Every damage gets a fresh copy of the store. The server's part runs in a child, with the daemon's own crash mark.
 * Usage: test_flips [SEED [COUNT [FIRST]]]: COUNT damages from number FIRST on; a failure prints its number.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/store/copy.h"
#include <tambo/check.h>

enum { PAGE = 4096, FILES_MAX = 12, ITEMS_MAX = 600, MESSAGES = 90, ROUNDS = 6, SEGMENT = 4 << 20, TURNS_MAX = 20000 };
enum { SLOT_TWO = 65536, SLOT_BYTES = 216 };

static unsigned long first_seed = 1, damages = 400, first_number = 0;

/* ---- what a reader gets ---- */

enum outcome { NOT_RUN, REFUSED, READ, FAILED_CLOSED };
struct item { /* a message, or a mailbox (uid 0) */
    uint32_t acct, mbox, uid, size;
    uint64_t row, envelope, body; /* hashes; envelope, body 0: not told */
};
struct reading {
    enum outcome outcome;
    size_t n;
    struct item v[ITEMS_MAX];
};
struct verdict {
    bool ran;
    uint64_t damage, notes, bad_pieces;
    bool index_damaged, log_damaged;
};
struct shared { /* with the children */
    struct reading read;
    struct verdict check;
    bool repaired;
};
static struct shared *shared;
static char now[160]; /* what is being tried */

static uint64_t hash(const void *p, size_t n)
{
    static const uint8_t key[16] = {42};
    uint64_t h = tb_siphash(key, p, n);
    return h ? h : 1;
}

/* ---- the store ---- */

struct file {
    char name[64];
    uint8_t *bytes; /* owned */
    size_t len, used;
};
static char dir[64];
static struct file files[FILES_MAX];
static size_t files_n, harmed; /* the first ones are harmed anywhere, the others in their slots */
static uint64_t copied_to;     /* where the newest index copy ends */

struct world {
    struct tb_io *io;
    struct tb_store *store;
    struct tb_worker *w;
    bool failed;
};

static void done_flag(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static bool turn_until(struct world *x, const bool *flag)
{
    for (int i = 0; i < TURNS_MAX && !*flag && !x->failed; i++)
        (void)tb_worker_turn(x->w, true);
    return *flag;
}

static void on_failed(void *user, struct tb_worker *w, uint32_t shard, const struct tb_error *err)
{
    (void)w;
    (void)shard;
    (void)err;
    ((struct world *)user)->failed = true;
}

static bool world_open(struct world *x)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {
        .dir = dir, .workers = 1, .trash_days = 9, .checkpoint_ms = 1, .failed = on_failed, .user = x};
    memset(x, 0, sizeof(*x));
    if (tb_io_open(TB_IO_POSIX, &x->io, &err) != TB_OK || tb_store_open(x->io, &cfg, &x->store, &err) != TB_OK)
        return false;
    if (tb_worker_open(x->store, 0, x->io, &x->w, &err) != TB_OK)
        return false;
    tb_worker_started(x->w);
    return true;
}

static void world_stop(struct world *x)
{
    bool stopped = false;
    struct tb_op op = {.done = done_flag, .user = &stopped};
    tb_worker_stop(x->w, &op);
    (void)turn_until(x, &stopped);
    tb_worker_close(x->w);
    tb_store_close(x->store);
    tb_io_close(x->io);
}

/* ---- making it ---- */

static void deliver(struct world *x, const struct tb_account_id *id, size_t n, unsigned seed, size_t bytes)
{
    struct tb_buf m;
    char line[120];
    tb_buf_init(&m, bytes + 400);
    (void)snprintf(line, sizeof(line), "From: a%u@b\r\nSubject: number %u\r\nMessage-ID: <%u@x>\r\n\r\n", seed, seed,
                   seed);
    tb_buf_str(&m, line);
    while (m.len < bytes) {
        (void)snprintf(line, sizeof(line), "%08x %08x some words that are the same\r\n", (unsigned)rand_r(&seed),
                       (unsigned)rand_r(&seed));
        tb_buf_str(&m, line);
    }
    struct tb_delivery *d;
    struct tb_delivery_target t[2] = {{.id = id[0], .mbox = TB_MBOX_INBOX, .internaldate = 5},
                                      {.id = id[1], .mbox = TB_MBOX_INBOX, .internaldate = 6}};
    bool committed = false;
    struct tb_op op = {.done = done_flag, .user = &committed};
    assert_int_equal(tb_delivery_begin(x->w, 10 << 20, &d), TB_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tb_delivery_add(d, &t[i]), TB_OK);
    for (size_t at = 0; at < m.len; at += 65536) {
        bool go = false;
        struct tb_op written = {.done = done_flag, .user = &go};
        if (!tb_delivery_write(d, tb_slice_sub(tb_buf_all(&m), at, 65536), &written))
            assert_true(turn_until(x, &go));
    }
    tb_delivery_commit(d, true, &op);
    assert_true(turn_until(x, &committed));
    assert_int_equal(op.rc, TB_OK);
    tb_buf_free(&m);
}

/* change: flags, a copy, an expunge, a name: all kinds of rows. */
static void change(struct world *x, struct tb_account_id id, unsigned round)
{
    struct tb_account *a;
    struct tb_view *v;
    struct tb_uidset set;
    struct tb_copied copied;
    char name[32];
    uint32_t mbox;
    assert_int_equal(tb_account_open(x->w, id, &a), TB_OK);
    (void)snprintf(name, sizeof(name), "Lists/number %u", round);
    assert_int_equal(tb_mailbox_create(a, tb_slice_str(name), 0, &mbox), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    tb_uidset_init(&set);
    tb_uidset_add(&set, 1 + round * 3, 4 + round * 3);
    assert_int_equal(tb_flags_update(v, &set, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL), TB_OK);
    assert_int_equal(tb_copy(v, &set, mbox, &copied), TB_OK);
    tb_copied_free(&copied);
    tb_uidset_clear(&set);
    tb_uidset_add(&set, 2 + round * 3, 2 + round * 3);
    assert_int_equal(tb_delete(v, &set), TB_OK);
    tb_uidset_free(&set);
    tb_view_close(v);
    tb_account_close(a);
}

/* copy_index: one of the two rotating copies is made. */
static void copy_index(struct world *x)
{
    struct tb_shard *s = x->store->shard[0];
    uint64_t newest = 0;
    tb_rotation_want(s);
    for (int i = 0; i < TURNS_MAX && newest == 0; i++) {
        unsigned number;
        struct tb_disk_copy head;
        struct tb_error err;
        (void)tb_worker_turn(x->w, true);
        if (s->copies == NULL &&
            tb_copy_newest(x->io, s->dir, x->store->super.uuid, 0, UINT64_MAX, &number, &head, &err) == TB_OK &&
            head.ckpt.applied > copied_to)
            newest = head.ckpt.applied;
    }
    assert_true(newest > 0);
    copied_to = newest;
}

static void make_store(void)
{
    struct world x;
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = SEGMENT, .shards = 1};
    struct tb_account_id id[2];
    struct tb_io *io;
    assert_int_equal(tb_io_open(TB_IO_POSIX, &io, &err), TB_OK);
    assert_int_equal(tb_store_create(io, dir, &opt, &err), TB_OK);
    tb_io_close(io);
    assert_true(world_open(&x));
    for (unsigned i = 0; i < 2; i++) {
        static const char *const names[] = {"ann", "bob"};
        struct tb_identity who;
        bool made = false;
        struct tb_op op = {.done = done_flag, .user = &made};
        tb_account_create(x.w, tb_slice_str(names[i]), TB_SLICE("{PLAIN}x"), &op);
        assert_true(turn_until(&x, &made));
        assert_int_equal(tb_directory_find(x.store, tb_slice_str(names[i]), &who), TB_OK);
        id[i] = who.id;
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < MESSAGES / ROUNDS; i++)
            deliver(&x, id, 1 + i % 2, 1000 * round + i, i == 7 ? 60000 : 400 + i * 250);
        if (round == 3)
            deliver(&x, id, 1, 77777, 1300000); /* in pieces */
        change(&x, id[0], round);
        if (round >= ROUNDS - 2)
            copy_index(&x);
        world_stop(&x); /* and so a checkpoint */
        assert_true(world_open(&x));
    }
    world_stop(&x);
}

/* ---- keeping it, putting it back ---- */

static void keep(const char *name)
{
    char path[200];
    struct file *f = &files[files_n];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return;
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    f->len = (size_t)lseek(fd, 0, SEEK_END);
    f->bytes = malloc(f->len);
    assert_int_equal(pread(fd, f->bytes, f->len, 0), f->len);
    for (f->used = f->len; f->used > PAGE && f->bytes[f->used - 1] == 0; f->used--)
        ;
    files_n++;
    close(fd);
}

static void put_back(void)
{
    static const char *const debris[] = {"shard-00/SUSPECT",
                                         "shard-00/index.mdb-lock",
                                         "shard-00/index.mdb.next",
                                         "shard-00/index.mdb.new",
                                         "shard-00/copy-0",
                                         "shard-00/copy-1",
                                         "shard-00/copy-0.new",
                                         "shard-00/copy-1.new",
                                         "shard-00/log/00000003.seg",
                                         "shard-00/log/00000004.seg",
                                         "CRASHED"};
    char path[200];
    for (size_t i = 0; i < TB_ARRAY_LEN(debris); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, debris[i]);
        (void)unlink(path);
    }
    for (size_t i = 0; i < files_n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%.60s", dir, files[i].name);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, files[i].bytes, files[i].used, 0), files[i].used);
        assert_int_equal(ftruncate(fd, (off_t)files[i].len), 0);
        close(fd);
    }
}

static void poke(const struct file *f, size_t at, const void *bytes, size_t len)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%.60s", dir, f->name);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)at), len);
    close(fd);
}

/* harm_slot: a bit in one of the two slots of SUPER or CKPT, or in the first block of an index copy. */
static void harm_slot(unsigned seed, char what[120])
{
    const struct file *f = &files[harmed + (size_t)rand_r(&seed) % (files_n - harmed)];
    size_t slots = f->used > SLOT_TWO ? 2 : 1;
    size_t at = (size_t)rand_r(&seed) % slots * SLOT_TWO + (size_t)rand_r(&seed) % SLOT_BYTES;
    unsigned bit = (unsigned)rand_r(&seed) % 8;
    uint8_t byte = f->bytes[at] ^ (uint8_t)(1u << bit);
    poke(f, at, &byte, 1);
    (void)snprintf(what, 120, "%.60s: byte %zu bit %u flipped", f->name, at, bit);
}

/* harm: damage number i: a flip, mostly; what says it. Of ten, one in the small files, the rest half in the index, half
 * in the log and the index copies. */
static void harm(unsigned seed, char what[120])
{
    if ((unsigned)rand_r(&seed) % 10 == 0) {
        harm_slot(seed, what);
        return;
    }
    size_t total = 0, pick = 1;
    for (size_t i = 1; i < harmed; i++)
        total += (files[i].used + PAGE - 1) / PAGE;
    size_t in_log = (size_t)rand_r(&seed) % total;
    while (pick + 1 < harmed && in_log >= (files[pick].used + PAGE - 1) / PAGE)
        in_log -= (files[pick++].used + PAGE - 1) / PAGE;
    const struct file *f = &files[(unsigned)rand_r(&seed) % 2 ? 0 : pick];
    size_t pages = (f->used + PAGE - 1) / PAGE;
    size_t page = (size_t)rand_r(&seed) % pages, other = (size_t)rand_r(&seed) % pages;
    unsigned kind = (unsigned)rand_r(&seed) % 20;
    static const uint8_t zero[PAGE];
    if (kind == 0) {
        poke(f, page * PAGE, zero, PAGE);
        (void)snprintf(what, 120, "%.60s: page %zu zeroed", f->name, page);
    } else if (kind == 1) {
        poke(f, page * PAGE, f->bytes + other * PAGE, PAGE);
        poke(f, other * PAGE, f->bytes + page * PAGE, PAGE);
        (void)snprintf(what, 120, "%.60s: pages %zu and %zu swapped", f->name, page, other);
    } else {
        size_t at = page * PAGE + (kind < 6 ? (size_t)rand_r(&seed) % 40 : (size_t)rand_r(&seed) % PAGE);
        unsigned bit = (unsigned)rand_r(&seed) % 8;
        uint8_t byte = f->bytes[at] ^ (uint8_t)(1u << bit);
        poke(f, at, &byte, 1);
        (void)snprintf(what, 120, "%.60s: byte %zu bit %u flipped", f->name, at, bit);
    }
}

/* ---- reading everything ---- */

static struct item *item_new(struct reading *r, uint32_t acct, uint32_t mbox, uint32_t uid)
{
    if (r->n == ITEMS_MAX)
        _exit(3); /* more than there ever was */
    struct item *i = &r->v[r->n++];
    *i = (struct item){.acct = acct, .mbox = mbox, .uid = uid};
    return i;
}

static uint64_t read_body(struct world *x, struct tb_view *v, uint32_t uid)
{
    struct tb_body *b;
    if (tb_body_open(v, uid, &b) != TB_OK)
        return 0;
    uint64_t size = tb_body_size(b), h = 1;
    for (uint64_t at = 0; at < size && h != 0;) {
        bool done = false;
        struct tb_op op = {.done = done_flag, .user = &done};
        tb_body_read(b, at, &op);
        if (!turn_until(x, &done))
            return 0;
        uint64_t both[2] = {h, 0};
        if (op.rc == TB_OK && op.data.len > 0) {
            both[1] = hash(op.data.ptr, op.data.len);
            h = hash(both, sizeof(both));
            at += op.data.len;
        } else {
            h = 0; /* refused */
        }
    }
    tb_body_close(b);
    return h;
}

static void read_mailbox(struct world *x, struct reading *r, struct tb_account *a, const struct tb_mailbox *m,
                         uint32_t acct)
{
    struct tb_view *v;
    struct item *box = item_new(r, acct, m->mbox, 0);
    uint64_t numbers[5] = {hash(m->name.ptr, m->name.len), m->uidvalidity, m->uidnext, m->highestmodseq, m->messages};
    box->row = hash(numbers, sizeof(numbers));
    if (!m->selectable || tb_view_open(a, m->mbox, &v) != TB_OK)
        return;
    for (uint32_t seqno = 1; seqno <= tb_view_count(v) && !x->failed; seqno++) {
        struct tb_row row;
        struct tb_cached c;
        uint32_t uid = tb_view_uid(v, seqno);
        if (tb_view_row(v, uid, &row) != TB_OK)
            continue;
        struct item *i = item_new(r, acct, m->mbox, uid);
        uint64_t parts[5] = {row.flags, row.modseq, row.size, (uint64_t)row.internaldate, row.keywords};
        i->row = hash(parts, sizeof(parts));
        i->envelope = tb_cached_get(v, uid, &c) == TB_OK ? hash(c.envelope.ptr, c.envelope.len) : 0;
        i->body = read_body(x, v, uid);
    }
    tb_view_close(v);
}

static void read_store(struct world *x, struct reading *r)
{
    static const char *const names[] = {"ann", "bob"};
    for (unsigned i = 0; i < 2 && !x->failed; i++) {
        struct tb_identity id;
        struct tb_account *a;
        struct tb_arena arena;
        struct tb_mailbox *boxes;
        size_t n;
        if (tb_directory_find(x->store, tb_slice_str(names[i]), &id) != TB_OK ||
            tb_account_open(x->w, id.id, &a) != TB_OK)
            continue;
        tb_arena_init(&arena, 1 << 20);
        if (tb_mailbox_list(a, &arena, &boxes, &n) == TB_OK)
            for (size_t k = 0; k < n && !x->failed; k++)
                if (boxes[k].mbox != 0)
                    read_mailbox(x, r, a, &boxes[k], id.id.acct);
        tb_arena_free(&arena);
        tb_account_close(a);
    }
}

static void child_read(void)
{
    struct world x;
    char mark[100];
    struct reading *r = &shared->read;
    memset(r, 0, sizeof(*r));
    (void)snprintf(mark, sizeof(mark), "%s/" TB_CRASHED, dir);
    tb_io_crash_mark(mark);
    if (!world_open(&x)) {
        r->outcome = REFUSED;
        return;
    }
    read_store(&x, r);
    r->outcome = x.failed ? FAILED_CLOSED : READ;
    if (!x.failed)
        world_stop(&x);
}

static void child_check(void)
{
    struct tb_check_options opt = {0};
    struct tb_check_stat st;
    struct tb_error err = {0};
    struct tb_io *io;
    memset(&shared->check, 0, sizeof(shared->check));
    if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK)
        _exit(4);
    enum tb_rc rc = tb_store_check(io, dir, &opt, &st, &err);
    shared->check = (struct verdict){.ran = true,
                                     .damage = st.damage + (rc != TB_OK),
                                     .notes = st.notes,
                                     .bad_pieces = st.bad_pieces,
                                     .index_damaged = st.index_damaged,
                                     .log_damaged = st.log_damaged};
    tb_io_close(io);
}

static void child_repair(void)
{
    struct tb_check_options opt = {0};
    struct tb_error err = {0};
    struct tb_io *io;
    if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK)
        _exit(4);
    shared->repaired = tb_store_repair(io, dir, &opt, &err) == TB_OK;
    tb_io_close(io);
}

/* in_child: false if it died of a signal. */
static bool in_child(void (*work)(void))
{
    int status = 0;
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
        for (size_t i = 0; i < TB_ARRAY_LEN(deadly); i++)
            (void)signal(deadly[i], SIG_DFL); /* not cmocka's */
        (void)dup2(null, 2);
        (void)alarm(60);
        work();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        fail_msg("a child ended with %d (%s)", WEXITSTATUS(status), now);
    return WIFEXITED(status);
}

/* ---- comparing ---- */

struct difference {
    unsigned wrong, missing, refused; /* told otherwise; not told at all; told that it cannot be told */
    char first[100];
};

static const struct item *find(const struct reading *r, const struct item *like)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->v[i].acct == like->acct && r->v[i].mbox == like->mbox && r->v[i].uid == like->uid)
            return &r->v[i];
    return NULL;
}

static void note(struct difference *d, const struct item *i, const char *what)
{
    if (d->first[0] == '\0')
        (void)snprintf(d->first, sizeof(d->first), "account %u mailbox %u uid %u: %s", i->acct, i->mbox, i->uid, what);
}

static struct difference compare(const struct reading *is, const struct reading *ledger)
{
    struct difference d = {0};
    for (size_t i = 0; i < is->n; i++) {
        const struct item *a = &is->v[i], *b = find(ledger, a);
        const char *what = b == NULL                                            ? "it never was"
                           : a->row != b->row                                   ? "its numbers changed"
                           : a->envelope != 0 && a->envelope != b->envelope     ? "its envelope changed"
                           : a->body != 0 && a->body != b->body && b->body != 0 ? "its bytes changed"
                                                                                : NULL;
        d.wrong += what != NULL;
        if (what != NULL)
            note(&d, a, what);
        d.refused += a->uid != 0 && a->body == 0;
    }
    for (size_t i = 0; i < ledger->n; i++)
        if (find(is, &ledger->v[i]) == NULL) {
            d.missing++;
            note(&d, &ledger->v[i], "it is not there");
        }
    return d;
}

/* ---- the test ---- */

struct tally {
    unsigned long harmless, noted, by_check, by_server, crashes, refused, failed_closed, quarantined, healed, repaired,
        lost;
};

/*
 * serve: start the server as often as its supervisor would: a crash or a shard that failed closed is followed by
 * another start. Returns the starts it took until everything was told or the start was refused.
 */
static unsigned serve(struct tally *t, const struct reading *ledger, const char *what, unsigned long number)
{
    for (unsigned starts = 1; starts <= 4; starts++) {
        bool lived = in_child(child_read);
        if (!lived) {
            t->crashes++;
            continue;
        }
        struct difference d = compare(&shared->read, ledger);
        if (d.wrong > 0)
            fail_msg("seed %lu damage %lu (%s): %u wrong answers: %s", first_seed, number, what, d.wrong, d.first);
        if (shared->read.outcome != FAILED_CLOSED)
            return starts;
        t->failed_closed++;
    }
    return 5;
}

static void one(struct tally *t, const struct reading *ledger, unsigned long number)
{
    char what[120];
    put_back();
    harm((unsigned)(first_seed * 1000003 + number), what);
    (void)snprintf(now, sizeof(now), "seed %lu damage %lu: %.100s", first_seed, number, what);
    if (!in_child(child_check) || !shared->check.ran)
        fail_msg("seed %lu damage %lu (%s): the check died", first_seed, number, what);
    struct verdict before = shared->check;
    unsigned starts = serve(t, ledger, what, number);
    struct difference d = compare(&shared->read, ledger);
    bool refused = shared->read.outcome == REFUSED;
    if (starts > 4)
        fail_msg("seed %lu damage %lu (%s): the server does not come up: an endless loop", first_seed, number, what);
    if (!refused && d.missing > 0 && before.damage == 0)
        fail_msg("seed %lu damage %lu (%s): %u things missing and nothing was found: %s", first_seed, number, what,
                 d.missing, d.first);
    if (refused && before.damage == 0)
        fail_msg("seed %lu damage %lu (%s): the start is refused and the check finds nothing", first_seed, number,
                 what);
    t->refused += refused;
    t->quarantined += d.refused > 0;
    t->by_check += before.damage > 0;
    t->by_server += starts > 1 || refused || d.refused > 0;
    t->harmless += before.damage == 0 && before.notes == 0;
    t->noted += before.damage == 0 && before.notes > 0;
    t->healed += starts > 1 && !refused;
    if (before.damage == 0)
        return;
    /* what a person would do */
    shared->repaired = false;
    if (!in_child(child_repair))
        fail_msg("seed %lu damage %lu (%s): the repair died", first_seed, number, what);
    t->repaired += shared->repaired;
    if (!in_child(child_read))
        fail_msg("seed %lu damage %lu (%s): a crash after the repair", first_seed, number, what);
    d = compare(&shared->read, ledger);
    if (d.wrong > 0)
        fail_msg("seed %lu damage %lu (%s): wrong answers after the repair: %s", first_seed, number, what, d.first);
    if (shared->repaired &&
        (shared->read.outcome != READ || d.missing > 0 || (d.refused > 0 && before.bad_pieces == 0)))
        fail_msg("seed %lu damage %lu (%s): repaired, and yet: %s", first_seed, number, what, d.first);
    t->lost += !shared->repaired && shared->read.outcome != READ;
}

static void test_flips(void **state)
{
    struct tally t = {0};
    struct reading *ledger = malloc(sizeof(*ledger));
    char cmd[128];
    (void)state;
    assert_non_null(ledger);
    (void)snprintf(dir, sizeof(dir), "%s/tambo-flips-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(dir));
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    make_store();
    static const char *const kept[] = {"shard-00/index.mdb", "shard-00/log/00000001.seg", "shard-00/log/00000002.seg",
                                       "shard-00/copy-0", "shard-00/copy-1"};
    for (size_t i = 0; i < TB_ARRAY_LEN(kept); i++)
        keep(kept[i]);
    assert_int_equal(files_n, TB_ARRAY_LEN(kept));
    harmed = files_n;
    keep("SUPER");
    keep("shard-00/CKPT");
    put_back();
    assert_true(in_child(child_read));
    assert_int_equal(shared->read.outcome, READ);
    memcpy(ledger, &shared->read, sizeof(*ledger));
    assert_true(ledger->n > MESSAGES);
    for (unsigned long i = first_number; i < first_number + damages; i++)
        one(&t, ledger, i);
    print_message(
        "seed %lu: %lu damages: %lu harmless, %lu noted (an index copy), %lu found by the check, %lu also met by the "
        "server: %lu by refusing messages, %lu by failing closed, %lu by a crash, %lu by refusing to start; %lu healed "
        "by a restart, %lu by --repair, %lu need a backup; 0 wrong answers, 0 deaths of the check\n",
        first_seed, damages, t.harmless, t.noted, t.by_check, t.by_server, t.quarantined, t.failed_closed, t.crashes,
        t.refused, t.healed, t.repaired, t.lost);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
    free(ledger);
}

int main(int argc, char **argv)
{
    tb_log_level(TB_LOG_ERROR);
    if (argc > 1)
        first_seed = strtoul(argv[1], NULL, 10);
    if (argc > 2)
        damages = strtoul(argv[2], NULL, 10);
    if (argc > 3)
        first_number = strtoul(argv[3], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_flips)};
    return cmocka_run_group_tests_name("flips", tests, NULL, NULL);
}
