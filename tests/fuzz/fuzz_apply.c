/*
 * fuzz_apply.c: records with right checksums and any content, applied to an index that has an account, mailboxes and
 * messages: each is applied or refused, nothing reads or writes out of bounds, and what was applied can be taken apart
 * again. Input: records of type, flags, account, length u16, payload; length 0xffff: the frame ends.
 */
#include "world.h"

#include <stdlib.h>

#include "engine/store/delivery_format.h"

enum { RECORDS_MAX = 60, ROWS = 64, SEGMENT = 4 << 20 };
static uint64_t lsn;

static enum tb_rc apply(struct tb_applier *x, uint8_t type, uint8_t flags, uint32_t acct, struct tb_slice payload)
{
    struct tb_record r = {.type = type, .flags = flags, .acct = acct, .payload = payload, .lsn = lsn};
    lsn += 16 + payload.len;
    return tb_apply(x, &r);
}

static void seed_mailbox(struct tb_applier *x, uint32_t mbox, const char *leaf)
{
    char out[64];
    struct tb_pay_mbox p = {.mbox = mbox, .uidvalidity = mbox, .mailboxid = mbox, .modseq = mbox};
    memcpy(out, &p, sizeof(p));
    memcpy(out + sizeof(p), leaf, strlen(leaf));
    TB_ASSERT(apply(x, TB_REC_MBOX, 0, 1, tb_slice(out, sizeof(p) + strlen(leaf))) == TB_OK);
}

static void seed_message(struct tb_applier *x, uint32_t uid)
{
    static const char text[] = "head bodycache";
    uint8_t out[TB_BLOB_ENCODED_MAX + sizeof(text)];
    struct tb_pay_blob b = {.blob = uid,
                            .body = uid,
                            .refs = 1,
                            .pieces = 1,
                            .cache_clen = 5,
                            .cache_raw = 5,
                            .size = 5 + TB_DEDUP_RAW_MIN,
                            .hashed = uid % 2,
                            .cache_dict = 0xffff};
    b.head = (struct tb_disk_piece){.clen = 5, .raw_len = 5, .dict = 0xffff};
    b.only = (struct tb_disk_piece){.clen = 4, .raw_len = TB_DEDUP_RAW_MIN};
    b.hash[15] = (uint8_t)uid;
    size_t n = tb_blob_encode(&b, out);
    memcpy(out + n, text, 14);
    TB_ASSERT(apply(x, TB_REC_BLOB, 0, 0, tb_slice(out, n + 14)) == TB_OK);
    struct tb_pay_add a = {.mbox = 1, .row = {.uid = uid, .modseq = 2 + uid, .blob = uid, .size = 9}};
    TB_ASSERT(apply(x, TB_REC_ADD, TB_ADD_COUNTED, 1, tb_slice(out, tb_add_encode(&a, TB_ADD_COUNTED, out))) == TB_OK);
    tb_apply_frame_end(x);
}

/* read_all: what readers do with the rows that are there now. */
static void read_all(struct tb_applier *x)
{
    struct tb_disk_row rows[ROWS];
    struct tb_disk_cache head;
    struct tb_slice data;
    for (uint32_t mbox = 1; mbox <= 3; mbox++) {
        size_t n = tb_rows_scan(x->ix, 1, mbox, 1, rows, ROWS);
        for (size_t i = 0; i < n; i++)
            if (tb_cache_get(x->ix, 1, mbox, rows[i].uid, &head, &data))
                TB_ASSERT(data.len == head.clen);
    }
    for (uint64_t body = 1; body < 8; body++) {
        struct tb_disk_body b = {.pieces = 2};
        struct tb_disk_piece p;
        (void)tb_body_piece(x->ix, body, &b, 1, &p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_in in = {bytes, n};
    struct tb_applier x = {.ix = fuzz_index(), .segment_bytes = SEGMENT};
    uint64_t modseq = 1;
    lsn = SEGMENT;
    x.state.next_blob = x.state.next_acct = 1;
    char acct[16];
    memcpy(acct, &modseq, 8);
    memcpy(acct + 8, "ann", 3);
    TB_ASSERT(apply(&x, TB_REC_ACCT, 0, 1, tb_slice(acct, 11)) == TB_OK);
    seed_mailbox(&x, 1, "INBOX");
    seed_mailbox(&x, 2, "box");
    for (uint32_t uid = 1; uid <= 4; uid++)
        seed_message(&x, uid);
    for (int i = 0; i < RECORDS_MAX && in.n > 0; i++) {
        uint8_t type = (uint8_t)fuzz_number(&in, 1), flags = (uint8_t)fuzz_number(&in, 1);
        uint32_t who = (uint32_t)fuzz_number(&in, 1);
        if (in.n >= 2 && in.p[0] == 0xff && in.p[1] == 0xff)
            tb_apply_frame_end(&x);
        enum tb_rc rc = apply(&x, type, flags, who, fuzz_piece(&in, 70000));
        if (rc != TB_OK)
            break; /* the shard would have failed closed */
    }
    read_all(&x);
    if (tb_index_rc(x.ix) == TB_OK)
        tb_apply_flush(&x, lsn, 7);
    free(x.seg);
    fuzz_index_close(x.ix);
    return 0;
}
