/*
 * test_blocks.c: packed UID blocks against plain arrays: rows, cached envelopes, changes, under random appends, edits
 * and removals, with commits in between. Usage: test_blocks [SEED]. A failure prints its seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/index/blocks.h"

enum { MAX = 3000, ROUNDS = 400, ACCT = 7, MBOX = 3 };

static unsigned seed;

struct model {
    struct tb_disk_row row[MAX];
    size_t n;
    uint32_t uidnext;
    uint64_t modseq;
    bool cached[MAX * 4];
};

static unsigned below(unsigned n)
{
    return (unsigned)rand_r(&seed) % n;
}

/* cache_bytes: what the entry of a UID holds: length and bytes follow from the UID. */
static size_t cache_bytes(uint32_t uid, uint8_t out[1000])
{
    size_t n = 1 + uid * 37u % 999;
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(uid + i);
    return n;
}

static void append(struct tb_index *ix, struct model *m, uint32_t mbox)
{
    uint8_t data[1000];
    m->uidnext += below(3);
    struct tb_disk_row row = {
        .uid = m->uidnext++, .flags = (uint16_t)below(32), .modseq = ++m->modseq, .size = below(100000)};
    tb_rows_append(ix, ACCT, mbox, &row);
    m->row[m->n++] = row;
    m->cached[row.uid] = below(5) != 0;
    if (m->cached[row.uid]) {
        struct tb_disk_cache head = {.uid = row.uid, .raw_len = row.uid * 3};
        head.clen = (uint16_t)cache_bytes(row.uid, data);
        tb_cache_append(ix, ACCT, mbox, &head, data);
    }
}

struct change {
    uint64_t modseq;
    bool remove;
};

static enum tb_edit edit(void *user, struct tb_disk_row *row)
{
    const struct change *c = user;
    if (c->remove)
        return TB_EDIT_REMOVE;
    row->flags ^= 4;
    row->modseq = c->modseq;
    return TB_EDIT_CHANGED;
}

static size_t random_ranges(const struct model *m, struct tb_range v[20])
{
    struct tb_uidset set;
    tb_uidset_init(&set);
    for (unsigned i = 0, k = 1 + below(20); i < k; i++) {
        uint32_t first = 1 + below(m->uidnext), last = first + below(below(4) ? 5 : 400);
        tb_uidset_add(&set, first, last);
    }
    size_t n = set.n;
    memcpy(v, set.v, n * sizeof(*v));
    tb_uidset_free(&set);
    return n;
}

static bool in(const struct tb_range *v, size_t n, uint32_t uid)
{
    for (size_t i = 0; i < n; i++)
        if (uid >= v[i].first && uid <= v[i].last)
            return true;
    return false;
}

static void change(struct tb_index *ix, struct model *m, uint32_t mbox, bool remove)
{
    struct tb_range v[20];
    size_t n = random_ranges(m, v), kept = 0;
    struct change c = {.modseq = ++m->modseq, .remove = remove};
    tb_rows_edit(ix, ACCT, mbox, v, n, edit, &c);
    if (remove)
        tb_cache_remove(ix, ACCT, mbox, v, n);
    tb_chg_append(ix, ACCT, mbox, c.modseq, remove ? TB_CHG_EXPUNGE : TB_CHG_FLAGS, v, n);
    for (size_t i = 0; i < m->n; i++) {
        struct tb_disk_row row = m->row[i];
        if (in(v, n, row.uid)) {
            if (remove)
                continue;
            row.flags ^= 4;
            row.modseq = c.modseq;
        }
        m->row[kept++] = row;
    }
    m->n = kept;
}

static void check_rows(struct tb_index *ix, const struct model *m, uint32_t mbox)
{
    static struct tb_disk_row got[MAX];
    size_t max = 1 + below(200), n = 0;
    for (uint32_t uid = 1;;) {
        size_t k = tb_rows_scan(ix, ACCT, mbox, uid, got + n, max);
        n += k;
        if (k < max)
            break;
        uid = got[n - 1].uid + 1;
    }
    assert_int_equal(n, m->n);
    assert_memory_equal(got, m->row, n * sizeof(got[0]));
    for (size_t i = 0; i < m->n; i++) {
        struct tb_disk_row one;
        struct tb_disk_cache head;
        struct tb_slice data;
        uint8_t want[1000];
        assert_true(tb_rows_get(ix, ACCT, mbox, m->row[i].uid, &one));
        assert_memory_equal(&one, &m->row[i], sizeof(one));
        bool have = tb_cache_get(ix, ACCT, mbox, m->row[i].uid, &head, &data);
        assert_int_equal(have, m->cached[m->row[i].uid]);
        if (have) {
            assert_int_equal(data.len, cache_bytes(m->row[i].uid, want));
            assert_memory_equal(data.ptr, want, data.len);
        }
    }
}

/* check_uids: the UIDs of the rows alone, below some end, in parts of some size. */
static void check_uids(struct tb_index *ix, const struct model *m, uint32_t mbox)
{
    struct tb_uidset got, want;
    uint32_t last = m->n > 0 ? m->row[m->n - 1].uid : 1, end = 1 + (uint32_t)below(last + 10), at = 1;
    tb_uidset_init(&got);
    tb_uidset_init(&want);
    for (size_t i = 0; i < m->n && m->row[i].uid < end; i++)
        tb_uidset_add(&want, m->row[i].uid, m->row[i].uid);
    uint64_t n = 0;
    while (at < end) {
        uint32_t to = end;
        n += tb_rows_uids(ix, ACCT, mbox, at, &to, 1 + (uint32_t)below(300), &got);
        assert_true(to > at && to <= end);
        at = to;
    }
    assert_int_equal(n, tb_uidset_count(&want));
    assert_int_equal(got.n, want.n);
    if (want.n > 0)
        assert_memory_equal(got.v, want.v, want.n * sizeof(want.v[0]));
    tb_uidset_free(&got);
    tb_uidset_free(&want);
}

struct seen {
    uint64_t last, count;
};

static bool see(void *user, uint64_t modseq, uint8_t kind, struct tb_range range)
{
    struct seen *s = user;
    assert_true(modseq >= s->last && range.first <= range.last);
    assert_true(kind == TB_CHG_FLAGS || kind == TB_CHG_EXPUNGE);
    s->count += modseq != s->last;
    s->last = modseq;
    return true;
}

static void run(struct tb_index *ix, struct model *m, uint32_t mbox)
{
    uint64_t changes[ROUNDS], n = 0, txnid;
    m->uidnext = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned what = below(10);
        if (m->n < 5 || what < 6) {
            for (unsigned i = 0, k = below(60); i < k && m->n < MAX && m->uidnext < 4 * MAX - 4; i++)
                append(ix, m, mbox);
        } else {
            change(ix, m, mbox, what == 9);
            changes[n++] = m->modseq;
        }
        if (below(20) == 0) {
            assert_int_equal(tb_index_commit(ix, &txnid), TB_OK);
            assert_int_equal(tb_index_begin(ix), TB_OK);
        }
        if (below(10) == 0)
            check_rows(ix, m, mbox);
        check_uids(ix, m, mbox);
        assert_int_equal(tb_index_rc(ix), TB_OK);
    }
    check_rows(ix, m, mbox);
    for (uint64_t i = 0; i < n; i++) { /* since the i-th change there are n - i - 1 later ones */
        struct seen s = {0};
        tb_chg_scan(ix, ACCT, mbox, changes[i], see, &s);
        assert_int_equal(s.count, n - i - 1);
    }
}

static void test_against_arrays(void **state)
{
    char dir[] = "/tmp/tambo-blocks-XXXXXX", path[64], cmd[96];
    struct tb_index *ix;
    struct tb_error err;
    struct model *m = calloc(2, sizeof(*m));
    (void)state;
    print_message("seed %u\n", seed);
    assert_non_null(m);
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/index.mdb", dir);
    assert_int_equal(tb_index_open(path, true, &ix, &err), TB_OK);
    assert_int_equal(tb_index_begin(ix), TB_OK);
    run(ix, &m[0], MBOX);
    run(ix, &m[1], MBOX + 1); /* a neighbour does not disturb */
    check_rows(ix, &m[0], MBOX);
    tb_blocks_drop(ix, TB_DB_MSG, ACCT, MBOX);
    m[0].n = 0;
    check_rows(ix, &m[0], MBOX);
    check_rows(ix, &m[1], MBOX + 1);
    tb_index_close(ix);
    free(m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_arrays)};
    seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : (unsigned)time(NULL);
    return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
