/*
 * fuzz_blocks.c: the packed blocks of an index with right checksums and any content: rows, cached envelopes, the change
 * log. They are read, searched, edited, grown and dropped. Input: database, key, value length, value, five times; then
 * what to do.
 */
#include "world.h"

enum { ROWS = 200, PLANTED = 5, STEPS = 30 };

static void plant(struct tb_index *ix, struct fuzz_in *in)
{
    static const enum tb_db dbs[] = {TB_DB_MSG, TB_DB_CACHE, TB_DB_CHG};
    enum tb_db db = dbs[fuzz_number(in, 1) % TB_ARRAY_LEN(dbs)];
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, 1);
    tb_key_u32(&k, 1);
    if (db == TB_DB_CHG) {
        tb_key_u64(&k, fuzz_number(in, 1));
        tb_key_u16(&k, (uint16_t)fuzz_number(in, 1));
    } else {
        tb_key_u32(&k, (uint32_t)fuzz_number(in, 1));
    }
    tb_index_put(ix, db, tb_key_slice(&k), fuzz_piece(in, TB_VALUE_MAX));
}

static enum tb_edit edit(void *user, struct tb_disk_row *row)
{
    uint64_t *seed = user;
    row->flags ^= 1;
    *seed = *seed * 6364136223846793005u + 1;
    return (enum tb_edit)(*seed >> 33) % 3;
}

static bool change(void *user, uint64_t modseq, uint8_t kind, struct tb_range range)
{
    (void)modseq;
    (void)kind;
    (void)range;
    return --*(int *)user > 0;
}

static void step(struct tb_index *ix, struct fuzz_in *in)
{
    struct tb_disk_row rows[ROWS], row = {.uid = (uint32_t)fuzz_number(in, 2)};
    struct tb_disk_cache head = {.uid = row.uid, .clen = (uint16_t)(fuzz_number(in, 2) % (TB_CACHE_CLEN_MAX + 1))};
    struct tb_range range = {row.uid, row.uid + (uint32_t)fuzz_number(in, 1)};
    static const char zeros[TB_VALUE_MAX];
    struct tb_slice data;
    uint64_t seed = row.uid;
    int left = 1000;
    switch (fuzz_number(in, 1) % 9) {
    case 0:
        tb_rows_append(ix, 1, 1, &row);
        break;
    case 1:
        (void)tb_rows_get(ix, 1, 1, row.uid, &row);
        break;
    case 2:
        TB_ASSERT(tb_rows_scan(ix, 1, 1, row.uid, rows, ROWS) <= ROWS);
        break;
    case 3:
        tb_rows_edit(ix, 1, 1, &range, 1, edit, &seed);
        break;
    case 4:
        tb_cache_append(ix, 1, 1, &head, zeros);
        break;
    case 5:
        if (tb_cache_get(ix, 1, 1, row.uid, &head, &data))
            TB_ASSERT(data.len == head.clen && data.len <= TB_VALUE_MAX);
        break;
    case 6:
        tb_cache_remove(ix, 1, 1, &range, 1);
        break;
    case 7:
        tb_chg_append(ix, 1, 1, row.uid, TB_CHG_FLAGS, &range, 1);
        break;
    default:
        tb_chg_scan(ix, 1, 1, row.uid, change, &left);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_in in = {bytes, n};
    struct tb_index *ix = fuzz_index();
    for (int i = 0; i < PLANTED && in.n > 0; i++)
        plant(ix, &in);
    for (int i = 0; i < STEPS && in.n > 0; i++)
        step(ix, &in);
    tb_blocks_drop(ix, TB_DB_CHG, 1, 1);
    tb_blocks_drop(ix, TB_DB_MSG, 1, 1);
    fuzz_index_close(ix);
    return 0;
}
