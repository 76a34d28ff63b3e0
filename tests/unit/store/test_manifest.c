/*
 * test_manifest.c: a backup's list of files: what is written is read back; any changed, cut or added byte is noticed;
 * so is nonsense under a right digest. Frames in memory: valid ones are taken, changed, moved and unchained ones are
 * not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/log/frames.h"
#include "engine/store/manifest.h"

static struct tb_manifest example(void)
{
    struct tb_manifest m = {.run = 7, .time_ms = 1795454000123};
    m.super.shards = 2;
    m.super.segment_bytes = 4 << 20;
    memcpy(m.super.magic, "TAMBOSUP", 8);
    for (uint32_t k = 0; k < 2; k++) {
        struct tb_part p[] = {
            {.kind = TB_PART_INDEX,
             .shard = k,
             .from = 4198400 + k,
             .to = 80,
             .bytes = 328000,
             .time_ms = 1795454000001},
            {.kind = TB_PART_LOG, .shard = k, .number = 1, .to = 5000, .bytes = 5000},
            {.kind = TB_PART_LOG, .shard = k, .number = 1, .from = 5000, .to = 4 << 20, .bytes = (4 << 20) - 5000},
            {.kind = TB_PART_DICT, .shard = k, .number = 16, .to = 65536, .bytes = 65536},
        };
        m.shard[k] = (struct tb_manifest_shard){4202496 + k, 4198400, 0xdeadbeef, 1795454000123 + k};
        for (size_t i = 0; i < TB_ARRAY_LEN(p); i++) {
            memset(p[i].sha256, (int)(16 * k + i + 1), sizeof(p[i].sha256));
            assert_true(tb_manifest_add(&m, &p[i]));
        }
    }
    return m;
}

static void test_read_back(void **state)
{
    (void)state;
    struct tb_manifest m = example(), back;
    struct tb_buf text;
    struct tb_error err = {0};
    char name[TB_PART_PATH];
    tb_manifest_text(&m, &text);
    assert_false(text.failed);
    assert_int_equal(tb_manifest_parse(tb_buf_all(&text), "m", &back, &err), TB_OK);
    assert_int_equal(back.run, 7);
    assert_int_equal(back.time_ms, m.time_ms);
    assert_int_equal(back.n, m.n);
    assert_memory_equal(&back.super, &m.super, sizeof(m.super));
    assert_memory_equal(back.shard, m.shard, 2 * sizeof(m.shard[0]));
    for (size_t i = 0; i < m.n; i++) {
        assert_ptr_equal(tb_manifest_find(&back, &m.part[i]), &back.part[i]);
        assert_memory_equal(back.part[i].sha256, m.part[i].sha256, TB_SHA256_BYTES);
        assert_int_equal(back.part[i].bytes, m.part[i].bytes);
        assert_int_equal(back.part[i].time_ms, m.part[i].time_ms);
    }
    for (size_t i = 0; i < m.n; i++) {
        struct tb_part p = {.shard = m.part[i].shard};
        tb_part_name(&m.part[i], name);
        assert_true(tb_part_read(strrchr(name, '/') + 1, &p));
        assert_true(p.kind == m.part[i].kind && p.number == m.part[i].number && p.from == m.part[i].from);
        assert_true(p.kind != TB_PART_LOG || p.to == m.part[i].to);
        name[strlen(name) - 1] = 'G';
        assert_false(tb_part_read(strrchr(name, '/') + 1, &p));
    }
    tb_part_name(&m.part[2], name);
    assert_string_equal(name, "shard-00/log/00000001-00001388-00400000");
    tb_part_name(&m.part[4], name);
    assert_string_equal(name, "shard-01/index-0000000000401001");
    tb_manifest_free(&back);
    tb_manifest_free(&m);
    tb_buf_free(&text);
}

static void test_every_changed_byte_is_noticed(void **state)
{
    (void)state;
    struct tb_manifest m = example(), back;
    struct tb_buf text;
    struct tb_error err;
    tb_manifest_text(&m, &text);
    for (size_t i = 0; i < text.len; i++) {
        text.ptr[i] ^= 4;
        if (tb_manifest_parse(tb_buf_all(&text), "m", &back, &err) != TB_CORRUPT)
            fail_msg("byte %zu changed unnoticed", i);
        text.ptr[i] ^= 4;
        assert_int_equal(tb_manifest_parse(tb_slice(text.ptr, i), "m", &back, &err), TB_CORRUPT);
    }
    tb_manifest_free(&m);
    tb_buf_free(&text);
}

/* nonsense: a text with a right digest behind it must still be refused. */
static void nonsense(const char *from, const char *to)
{
    struct tb_manifest m = example(), back;
    struct tb_buf text, out;
    struct tb_error err;
    struct tb_sha256 sha;
    uint8_t digest[TB_SHA256_BYTES];
    char hex[2 * TB_SHA256_BYTES + 1];
    tb_manifest_text(&m, &text);
    tb_buf_char(&text, '\0');
    char *at = strstr(text.ptr, from), *tail = strstr(text.ptr, "\nsha256 ") + 1;
    assert_non_null(at);
    tb_buf_init(&out, 1 << 20);
    tb_buf_put(&out, text.ptr, (size_t)(at - text.ptr));
    tb_buf_str(&out, to);
    tb_buf_put(&out, at + strlen(from), (size_t)(tail - at) - strlen(from));
    tb_sha256_init(&sha);
    tb_sha256_update(&sha, out.ptr, out.len);
    tb_sha256_final(&sha, digest);
    tb_hex(digest, sizeof(digest), hex);
    tb_buf_str(&out, "sha256 ");
    tb_buf_str(&out, hex);
    tb_buf_char(&out, '\n');
    if (tb_manifest_parse(tb_buf_all(&out), "m", &back, &err) != TB_CORRUPT)
        fail_msg("taken: \"%s\" for \"%s\"", to, from);
    tb_manifest_free(&m);
    tb_buf_free(&text);
    tb_buf_free(&out);
}

static void test_nonsense_is_refused(void **state)
{
    (void)state;
    nonsense("tambo-backup 2", "tambo-backup 999999");
    nonsense("run 7", "walk 7");
    nonsense("run 7", "run 7 8");
    nonsense("shard 1 ", "shard 2 ");
    nonsense("shard 1 ", "shard 99999999999999999999 ");
    nonsense("log 0 1 0 5000 5000", "log 0 1 5000 0 5000");
    nonsense("log 0 1 0 5000 5000", "log 0 1 0 9999999 9999999");
    nonsense("log 0 1 0 5000 5000", "log 3 1 0 5000 5000");
    nonsense("log 0 1 0 5000 5000", "log 0 1 0 5000 4999");
    nonsense("index 1 ", "dict 1 ");
    nonsense("dict 0 ", "disc 0 ");
    nonsense("time ", "time  ");
}

/* frame: one at a position, with a TIME record first if ms is not 0. Returns its length. */
static size_t frame(uint8_t *p, uint32_t seed, uint64_t lsn, uint32_t chain, uint16_t flags, int64_t ms)
{
    struct tb_disk_record r = {.type = ms != 0 ? TB_REC_TIME : TB_REC_FORGET, .len = ms != 0 ? 8 : 16};
    struct tb_disk_frame h = {
        .magic = TB_FRAME_MAGIC, .records = 1, .flags = flags, .lsn = lsn, .epoch = 3, .chain = chain};
    h.len = (uint32_t)(sizeof(h) + sizeof(r) + r.len);
    memset(p, 0x11, h.len);
    memcpy(p + sizeof(h), &r, sizeof(r));
    if (ms != 0)
        memcpy(p + sizeof(h) + sizeof(r), &ms, 8);
    memcpy(p, &h, sizeof(h));
    h.crc = tb_crc32c(seed, p + 8, h.len - 8);
    memcpy(p, &h, sizeof(h));
    return h.len;
}

static void test_frames(void **state)
{
    (void)state;
    const uint8_t uuid[16] = {1, 2, 3};
    uint32_t seed = tb_frames_seed(uuid, 4);
    uint8_t buf[512];
    size_t need, a = frame(buf, seed, 9000, 77, 0, 5000);
    uint32_t chain;
    memcpy(&chain, buf + 4, 4);
    size_t b = frame(buf + a, seed, 9000 + a, chain, TB_FRAME_SEALS, 0);
    const struct tb_frames start = {.seed = seed, .at = 9000, .chain = 77, .chained = true};
    struct tb_frames f = start;
    int64_t ms;
    assert_true(tb_frames_peek(&f, buf, a + b, &ms) && ms == 5000);
    assert_int_equal(tb_frames_next(&f, buf, 10, &need), 0);
    assert_int_equal(tb_frames_next(&f, buf, a - 1, &need), 0);
    assert_int_equal(need, a);
    assert_int_equal(tb_frames_next(&f, buf, a + b, &need), (int64_t)a);
    assert_true(f.timed && f.time_ms == 5000 && !f.sealed && f.last == 9000);
    assert_false(tb_frames_peek(&f, buf + a, b, &ms));
    assert_int_equal(tb_frames_next(&f, buf + a, b, &need), (int64_t)b);
    assert_true(f.sealed && !f.timed && f.time_ms == 5000);
    for (size_t i = 0; i < a; i++) { /* no byte can change */
        f = start;
        buf[i] ^= 0x40;
        if (tb_frames_next(&f, buf, a, &need) > 0)
            fail_msg("byte %zu changed unnoticed", i);
        buf[i] ^= 0x40;
    }
    f = start;
    f.at = 9001;
    assert_int_equal(tb_frames_next(&f, buf, a, &need), -1);
    f = start;
    f.chain = 78;
    assert_int_equal(tb_frames_next(&f, buf, a, &need), -1);
    f.chained = false;
    assert_int_equal(tb_frames_next(&f, buf, a, &need), (int64_t)a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_every_changed_byte_is_noticed),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
