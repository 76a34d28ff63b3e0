/*
 * test_dict.c: dictionaries trained on a store's own mail: adopted when they help, in every shard, there after a
 * restart; brought back from the log when the file is gone; and when both are gone, only the mail made with them is
 * unreadable, until the file is put back.
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

enum { SHARDS = 2, BEFORE = 300, AFTER = 40, DICT_MAX = 16 };

static char dir[64];
static struct tb_io *io;
static struct tb_store *store;
static struct tb_worker *worker;
static struct tb_identity who;

static void flag_set(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static void turn_until(const bool *flag)
{
    for (int i = 0; i < 200000 && !*flag; i++)
        (void)tb_worker_turn(worker, true);
    assert_true(*flag);
}

static void open_store(void)
{
    struct tb_error err = {0};
    struct tb_store_config cfg = {.dir = dir, .workers = 1};
    if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK || tb_store_open(io, &cfg, &store, &err) != TB_OK ||
        tb_worker_open(store, 0, io, &worker, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_worker_started(worker);
}

static void close_store(void)
{
    bool stopped = false;
    struct tb_op op = {.done = flag_set, .user = &stopped};
    tb_worker_stop(worker, &op);
    turn_until(&stopped);
    tb_worker_close(worker);
    tb_store_close(store);
    tb_io_close(io);
}

/* Phrases that no built-in dictionary has. */
static struct tb_buf message(uint32_t seed)
{
    struct tb_buf b;
    char line[128];
    unsigned r = seed * 2654435761u + 1;
    tb_buf_init(&b, 1 << 16);
    (void)snprintf(line, sizeof(line), "From: a@b\r\nSubject: seed %u\r\n", seed);
    tb_buf_str(&b, line);
    for (int i = 0; i < 12; i++) {
        unsigned k = (unsigned)rand_r(&r) % 24;
        (void)snprintf(line, sizeof(line), "X-Qz%02u-Wvk: jxq%08x-%08x-%08x\r\n", k, k * 0x9e3779b9u, k * 0x85ebca6bu,
                       (unsigned)rand_r(&r) % 99);
        tb_buf_str(&b, line);
    }
    tb_buf_str(&b, "\r\n");
    for (int i = 0; i < 20; i++) {
        unsigned k = (unsigned)rand_r(&r) % 40;
        (void)snprintf(line, sizeof(line), "%08x zgw %08x pjx %u\r\n", k * 0x27d4eb2fu, k * 0x165667b1u,
                       (unsigned)rand_r(&r) % 9999);
        tb_buf_str(&b, line);
    }
    return b;
}

static void deliver(uint32_t from, uint32_t n)
{
    for (uint32_t seed = from; seed < from + n; seed++) {
        struct tb_buf m = message(seed);
        struct tb_delivery *d;
        struct tb_delivery_target t = {.id = who.id, .mbox = TB_MBOX_INBOX, .is_append = true, .internaldate = seed};
        bool done = false;
        struct tb_op op = {.done = flag_set, .user = &done};
        assert_int_equal(tb_delivery_begin(worker, 1 << 20, &d), TB_OK);
        assert_int_equal(tb_delivery_add(d, &t), TB_OK);
        assert_true(tb_delivery_write(d, tb_buf_all(&m), NULL));
        tb_delivery_commit(d, true, &op);
        turn_until(&done);
        assert_int_equal(op.rc, TB_OK);
        tb_buf_free(&m);
    }
}

static enum tb_rc body_rc(struct tb_view *v, uint32_t uid, uint32_t seed)
{
    struct tb_buf m = message(seed);
    struct tb_body *b;
    bool done = false;
    struct tb_op op = {.done = flag_set, .user = &done};
    enum tb_rc rc = tb_body_open(v, uid, &b);
    if (rc == TB_OK) {
        tb_body_whole(b);
        tb_body_read(b, 0, &op);
        turn_until(&done);
        rc = op.rc;
        if (rc == TB_OK) {
            assert_int_equal(op.data.len, m.len);
            assert_memory_equal(op.data.ptr, m.ptr, m.len);
        }
        tb_body_close(b);
    }
    tb_buf_free(&m);
    return rc;
}

/* readable: how many of the messages with UIDs from..to can be read. */
static uint32_t readable(uint32_t from, uint32_t to)
{
    struct tb_account *a;
    struct tb_view *v;
    uint32_t n = 0;
    assert_int_equal(tb_account_open(worker, who.id, &a), TB_OK);
    assert_int_equal(tb_view_open(a, TB_MBOX_INBOX, &v), TB_OK);
    for (uint32_t uid = from; uid <= to; uid++)
        n += body_rc(v, uid, uid) == TB_OK;
    tb_view_close(v);
    tb_account_close(a);
    return n;
}

static void train(struct tb_dict_training *t, enum tb_rc want)
{
    bool done = false;
    memset(t, 0, sizeof(*t));
    t->op = (struct tb_op){.done = flag_set, .user = &done};
    tb_dict_train(worker, who.id.shard, t);
    turn_until(&done);
    assert_int_equal(t->op.rc, want);
}

static void dict_file(uint32_t shard, uint32_t id, char out[128])
{
    (void)snprintf(out, 128, "%s/shard-%02x/dict/%04x", dir, shard, id);
}

static void count_finding(void *user, const struct tb_finding *f)
{
    *(unsigned *)user += f->damage;
}

static unsigned findings(void)
{
    unsigned n = 0;
    struct tb_check_options opt = {.user = &n, .found = count_finding};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    struct tb_io *own;
    assert_int_equal(tb_io_open(TB_IO_POSIX, &own, &err), TB_OK);
    if (tb_store_check(own, dir, &opt, &stat, &err) != TB_OK)
        fail_msg("%s", err.text);
    tb_io_close(own);
    return n;
}

static void trained_and_kept(void **state)
{
    struct tb_dict_training t;
    struct tb_dict_info v[DICT_MAX];
    (void)state;
    deliver(1, 20);
    train(&t, TB_OK); /* nothing to train on yet: nothing is adopted */
    for (int i = 0; i < TB_DICT_ROLES; i++)
        assert_int_equal(t.result[i].id, 0);
    assert_int_equal(tb_dict_list(store, v, DICT_MAX), 0);
    deliver(21, BEFORE - 20);
    train(&t, TB_OK);
    assert_true(t.messages > BEFORE);
    for (int i = 0; i < 2; i++) { /* headers and bodies share phrases */
        assert_true(t.result[i].id >= 16);
        assert_true(t.result[i].after * 100 <= t.result[i].before * 97);
        assert_true(t.result[i].held_out * 3 <= t.result[i].samples + 3);
    }
    size_t n = tb_dict_list(store, v, DICT_MAX);
    assert_true(n >= 2);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(v[i].shards, SHARDS);
        assert_true(v[i].in_use);
    }
    deliver(BEFORE + 1, AFTER);
    assert_int_equal(readable(1, BEFORE + AFTER), BEFORE + AFTER);
    close_store();
    assert_int_equal(findings(), 0);
    open_store();
    assert_int_equal(tb_dict_list(store, v, DICT_MAX), n);
    assert_true(v[0].in_use);
    assert_int_equal(readable(1, BEFORE + AFTER), BEFORE + AFTER);
}

static void a_lost_file_comes_from_the_log(void **state)
{
    struct tb_dict_info v[DICT_MAX];
    char path[128];
    (void)state;
    size_t n = tb_dict_list(store, v, DICT_MAX);
    close_store();
    for (size_t i = 0; i < n; i++) {
        dict_file(who.id.shard, v[i].id, path);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(findings(), n);
    open_store();
    assert_int_equal(readable(1, BEFORE + AFTER), BEFORE + AFTER);
    for (size_t i = 0; i < n; i++) {
        dict_file(who.id.shard, v[i].id, path);
        assert_int_equal(access(path, R_OK), 0);
    }
    close_store();
    assert_int_equal(findings(), 0);
    open_store();
}

/* spoil_log: a byte in every dictionary's record in the shard's first segment. */
static void spoil_log(uint32_t shard)
{
    static const unsigned char magic[] = {0x37, 0xa4, 0x30, 0xec};
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/shard-%02x/log/00000001.seg", dir, shard);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    char *all = malloc(4 << 20), *at = all;
    assert_non_null(all);
    size_t n = fread(all, 1, 4 << 20, f);
    unsigned found = 0;
    while ((at = memmem(at, n - (size_t)(at - all), magic, sizeof(magic))) != NULL) {
        assert_int_equal(fseek(f, at - all + 500, SEEK_SET), 0);
        assert_int_equal(fputc(at[500] ^ 0x55, f), (unsigned char)(at[500] ^ 0x55));
        found++;
        at++;
    }
    assert_true(found >= 2);
    assert_int_equal(fclose(f), 0);
    free(all);
}

static void move_files(uint32_t shard, const struct tb_dict_info *v, size_t n, const char *from, const char *to)
{
    char path[128], old[160], new[160];
    for (size_t i = 0; i < n; i++) {
        dict_file(shard, v[i].id, path);
        (void)snprintf(old, sizeof(old), "%s%s", path, from);
        (void)snprintf(new, sizeof(new), "%s%s", path, to);
        assert_int_equal(rename(old, new), 0);
    }
}

/* account_elsewhere: one in the other shard, so that a dictionary is not the last thing in its log. */
static void account_elsewhere(void)
{
    struct tb_identity id = who;
    char name[16];
    for (int i = 0; i < 64 && id.id.shard == who.id.shard; i++) {
        bool done = false;
        struct tb_op op = {.done = flag_set, .user = &done};
        (void)snprintf(name, sizeof(name), "b%d", i);
        tb_account_create(worker, tb_slice_str(name), TB_SLICE(""), &op);
        turn_until(&done);
        assert_int_equal(tb_directory_find(store, tb_slice_str(name), &id), TB_OK);
    }
    assert_int_not_equal(id.id.shard, who.id.shard);
}

static void without_it_the_rest_works(void **state)
{
    struct tb_dict_info v[DICT_MAX];
    (void)state;
    account_elsewhere();
    size_t n = tb_dict_list(store, v, DICT_MAX);
    close_store();
    for (uint32_t shard = 0; shard < SHARDS; shard++) { /* one shard's copy would bring it back to the others */
        spoil_log(shard);
        move_files(shard, v, n, "", ".away");
    }
    open_store();
    assert_int_equal(readable(1, BEFORE), BEFORE);
    assert_int_equal(readable(BEFORE + 1, BEFORE + AFTER), 0);
    deliver(BEFORE + AFTER + 1, 5); /* without them */
    assert_int_equal(readable(BEFORE + AFTER + 1, BEFORE + AFTER + 5), 5);
    close_store();
    move_files(who.id.shard, v, n, ".away", "");
    open_store();
    assert_int_equal(readable(1, BEFORE + AFTER + 5), BEFORE + AFTER + 5);
}

static int setup(void **state)
{
    struct tb_error err = {0};
    struct tb_store_options opt = {.segment_bytes = 4 << 20, .shards = SHARDS};
    bool done = false;
    struct tb_op op = {.done = flag_set, .user = &done};
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/tambo-test-XXXXXX");
    if (mkdtemp(dir) == NULL || tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK ||
        tb_store_create(io, dir, &opt, &err) != TB_OK)
        return -1;
    tb_io_close(io);
    open_store();
    tb_account_create(worker, TB_SLICE("ann"), TB_SLICE(""), &op);
    turn_until(&done);
    return tb_directory_find(store, TB_SLICE("ann"), &who) == TB_OK ? 0 : -1;
}

static int teardown(void **state)
{
    char cmd[128];
    (void)state;
    close_store();
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trained_and_kept),
        cmocka_unit_test(a_lost_file_comes_from_the_log),
        cmocka_unit_test(without_it_the_rest_works),
    };
    return cmocka_run_group_tests_name("dict", tests, setup, teardown);
}
