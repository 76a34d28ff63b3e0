/*
 * test_walk.c: the page walk of an index file: it finds nothing wrong with what LMDB writes, and finds every change to
 * the file that changes what the file says.
 *
 * Each damage is one flipped bit, or a page zeroed or swapped with another, in a copy in memory. If the walk then has
 * no finding, every entry must read as before: 100 % found or harmless. Usage: test_walk [SEED [COUNT]].
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/index/walk.h"

enum { PAGE = 4096, TRANSACTIONS = 40, CHANGES = 150 };
static unsigned first_seed = 1;
static unsigned long count_wanted = 1500;

struct image {
    uint8_t *bytes; /* owned */
    size_t len;
    uint8_t meta[TB_META_BYTES];
    uint64_t digest, damage;
    char first[200];
};

static int64_t image_read(void *user, void *buf, size_t len, uint64_t offset)
{
    struct image *im = user;
    if (offset >= im->len)
        return 0;
    size_t n = im->len - offset < len ? im->len - (size_t)offset : len;
    memcpy(buf, im->bytes + offset, n);
    return (int64_t)n;
}

static void image_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    static const uint8_t hash_key[16] = {7};
    struct image *im = user;
    uint64_t part[3] = {db, tb_siphash(hash_key, key.ptr, key.len), tb_siphash(hash_key, value.ptr, value.len)};
    uint64_t both[2] = {im->digest, tb_siphash(hash_key, part, sizeof(part))};
    im->digest = tb_siphash(hash_key, both, sizeof(both));
}

static void image_damage(void *user, enum tb_db db, const char *what)
{
    struct image *im = user;
    (void)db;
    if (im->damage++ == 0)
        (void)snprintf(im->first, sizeof(im->first), "%s", what);
}

/* walk: the digest of every entry, the number of findings. */
static struct tb_walk_stat walk(struct image *im)
{
    struct tb_walk_config cfg = {.user = im, .read = image_read, .entry = image_entry, .damage = image_damage};
    im->digest = im->damage = 0;
    struct tb_walk *w = tb_walk_new(&cfg, im->meta);
    assert_non_null(w);
    while (tb_walk_step(w, 10))
        ;
    struct tb_walk_stat st = *tb_walk_stat(w);
    tb_walk_free(w);
    assert_int_equal(st.damage, im->damage);
    return st;
}

static void change(struct tb_index *ix, unsigned *seed)
{
    static const enum tb_db dbs[] = {TB_DB_MSG, TB_DB_BLOB, TB_DB_TREE, TB_DB_CACHE, TB_DB_SUB};
    enum tb_db db = dbs[(unsigned)rand_r(seed) % TB_ARRAY_LEN(dbs)];
    uint8_t key[40], value[TB_VALUE_MAX];
    size_t key_len = db == TB_DB_BLOB ? 8 : 12 + (size_t)rand_r(seed) % 28;
    size_t len = rand_r(seed) % 3 == 0 ? 2000 + (size_t)rand_r(seed) % 2000 : (size_t)rand_r(seed) % 120;
    memset(key, 0, sizeof(key));
    tb_put_be32(key + 4, (uint32_t)rand_r(seed) % 4000);
    memset(value, rand_r(seed) & 255, len);
    if (rand_r(seed) % 3 == 0)
        tb_index_del(ix, db, tb_slice(key, key_len));
    else
        tb_index_put(ix, db, tb_slice(key, key_len), tb_slice(value, len));
}

/* image_new: an index with a past: many transactions, so that the free list and every kind of page is in use. */
static void image_new(struct image *im, unsigned seed)
{
    char dir[] = "/tmp/tambo-walk-XXXXXX", path[64], cmd[100];
    struct tb_error err = {0};
    struct tb_index *ix;
    struct tb_io *io;
    uint64_t txnid = 0;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/index.mdb", dir);
    assert_int_equal(tb_io_open(TB_IO_POSIX, &io, &err), TB_OK);
    assert_int_equal(tb_index_open(path, true, &ix, &err), TB_OK);
    for (int t = 0; t < TRANSACTIONS; t++) {
        assert_int_equal(tb_index_begin(ix), TB_OK);
        for (int i = 0; i < CHANGES; i++)
            change(ix, &seed);
        assert_int_equal(tb_index_commit(ix, &txnid), TB_OK);
    }
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    assert_true(fd >= 0);
    assert_int_equal(tb_index_meta(ix, io, fd, txnid, im->meta), TB_OK);
    im->len = (size_t)tb_io_file_size(io, fd);
    im->bytes = malloc(im->len);
    assert_int_equal(tb_io_pread(io, fd, im->bytes, im->len, 0), im->len);
    (void)tb_io_file_close(io, fd);
    tb_index_close(ix);
    tb_io_close(io);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_good(void **state)
{
    (void)state;
    for (unsigned seed = first_seed; seed < first_seed + 5; seed++) {
        struct image im = {0};
        image_new(&im, seed);
        struct tb_walk_stat st = walk(&im);
        if (st.damage > 0)
            fail_msg("seed %u: %llu findings in what LMDB wrote, the first: %s", seed, (unsigned long long)st.damage,
                     im.first);
        assert_true(st.entries[TB_DB_MSG] > 0 && st.free_pages > 0 && st.used > 100);
        assert_int_equal(st.used + st.free_pages + 2, st.pages);
        free(im.bytes);
    }
}

/* harm: one damage, kept in undo; false if it changes nothing. */
static void harm(struct image *im, unsigned *seed, uint8_t *a, uint8_t *b, size_t *at, size_t *bt, unsigned long i)
{
    size_t pages = im->len / PAGE;
    *at = (2 + (size_t)rand_r(seed) % (pages - 2)) * PAGE;
    *bt = (2 + (size_t)rand_r(seed) % (pages - 2)) * PAGE;
    memcpy(a, im->bytes + *at, PAGE);
    memcpy(b, im->bytes + *bt, PAGE);
    if (i % 20 == 18) {
        memset(im->bytes + *at, 0, PAGE);
    } else if (i % 20 == 19) {
        memcpy(im->bytes + *at, b, PAGE);
        memcpy(im->bytes + *bt, a, PAGE);
    } else {
        size_t within = i % 3 == 0 ? (size_t)rand_r(seed) % 64 : (size_t)rand_r(seed) % PAGE; /* heads, often */
        im->bytes[*at + within] ^= (uint8_t)(1u << rand_r(seed) % 8);
    }
}

static void test_damage(void **state)
{
    (void)state;
    struct image im = {0};
    unsigned seed = first_seed;
    unsigned long found = 0, harmless = 0;
    image_new(&im, seed);
    (void)walk(&im);
    uint64_t digest = im.digest;
    for (unsigned long i = 0; i < count_wanted; i++) {
        uint8_t a[PAGE], b[PAGE];
        size_t at, bt;
        harm(&im, &seed, a, b, &at, &bt, i);
        (void)walk(&im);
        if (im.damage > 0)
            found++;
        else if (im.digest == digest)
            harmless++;
        else
            fail_msg("seed %u damage %lu at page %zu: entries changed and nothing was found", first_seed, i, at / PAGE);
        memcpy(im.bytes + bt, b, PAGE);
        memcpy(im.bytes + at, a, PAGE);
    }
    (void)walk(&im);
    assert_int_equal(im.damage, 0);
    assert_true(found > count_wanted / 10);
    print_message("seed %u: %lu damages in an index of %zu pages: %lu found, %lu harmless, 0 missed\n", first_seed,
                  count_wanted, im.len / PAGE, found, harmless);
    free(im.bytes);
}

/* test_noise: a meta page and a file of noise: an end, and no crash. */
static void test_noise(void **state)
{
    (void)state;
    struct image im = {0};
    unsigned seed = first_seed;
    image_new(&im, seed);
    uint8_t meta[TB_META_BYTES];
    memcpy(meta, im.meta, sizeof(meta));
    for (int i = 0; i < 300; i++) {
        memcpy(im.meta, meta, sizeof(meta));
        for (int k = 0; k < 1 + i % 40; k++)
            im.meta[8 + (size_t)rand_r(&seed) % (TB_META_BYTES - 8)] = (uint8_t)rand_r(&seed);
        (void)walk(&im);
    }
    memcpy(im.meta, meta, sizeof(meta));
    for (size_t i = 2 * PAGE; i < im.len; i++)
        im.bytes[i] = (uint8_t)rand_r(&seed);
    assert_true(walk(&im).damage > 0);
    free(im.bytes);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        first_seed = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        count_wanted = strtoul(argv[2], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
