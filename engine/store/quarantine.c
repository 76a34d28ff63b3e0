/*
 * quarantine.c: stored messages known to be damaged: found by a read or a scrub, remembered by a QUARANTINE record, so
 * that a reader is told before a byte of the message has left, and GC, backup and check know. A piece that reads well
 * again (the disk healed, a backup put it back) ends it.
 *
 * Only the damaged message answers for itself: nothing here fails a shard. Thread: the shard's owner.
 */
#include <stdio.h>

#include "engine/store/shard.h"

static const char *const whys[] = {
    [TB_BAD_CHECKSUM] = "its checksum is wrong",
    [TB_BAD_READ] = "it cannot be read",
    [TB_BAD_INFLATE] = "it does not inflate",
    [TB_BAD_ROW] = "its row has an impossible size",
};

static struct tb_key key_of(uint64_t blob)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, blob);
    return k;
}

bool tb_quarantined(struct tb_shard *s, uint64_t blob, struct tb_disk_bad *out)
{
    struct tb_key k = key_of(blob);
    struct tb_slice v;
    if (s->x.bad == 0 || !tb_index_get(s->ix, TB_DB_BAD, tb_key_slice(&k), &v) || v.len < sizeof(*out))
        return false;
    memcpy(out, v.ptr, sizeof(*out));
    return true;
}

/* names_of: "ann@example.org/Sent" as far as the index says. */
static void names_of(struct tb_shard *s, uint32_t acct, uint32_t mbox, char out[400])
{
    struct tb_key k;
    struct tb_slice v = {0}, leaf = {0};
    struct tb_disk_mbox m;
    int n = 0;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    if (tb_index_get(s->ix, TB_DB_ACCT, tb_key_slice(&k), &v) && v.len > sizeof(struct tb_disk_acct))
        n = snprintf(out, 400, "%.*s", (int)(v.len - sizeof(struct tb_disk_acct)), v.ptr + sizeof(struct tb_disk_acct));
    else
        out[0] = '\0';
    if (n < 300 && tb_mbox_get(s->ix, acct, mbox, &m, &leaf))
        (void)snprintf(out + n, 400 - (size_t)n, "/%.*s", leaf.len < 90 ? (int)leaf.len : 90, leaf.ptr);
    for (char *p = out; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == '"' || *p == 0x7f)
            *p = '?';
}

static void complain(struct tb_shard *s, const struct tb_bad_seen *b)
{
    char where[500] = "";
    if (b->acct != 0) {
        char names[400];
        names_of(s, b->acct, b->mbox, names);
        (void)snprintf(where, sizeof(where), " mailbox=%s acct=%u mbox=%u uid=%u", names, b->acct, b->mbox, b->uid);
    }
    tb_log(TB_LOG_ERROR,
           "shard=%u%s blob=%llu position=%llu a stored message is damaged: %s; it alone is refused; next: restore it "
           "from a backup (tambo restore) or delete it",
           s->number, where, (unsigned long long)b->blob, (unsigned long long)b->lsn, whys[b->why]);
}

static void record(struct tb_shard *s, uint8_t flags, const struct tb_pay_quarantine *p)
{
    if (s->failed || tb_shard_admit(s, sizeof(*p), 1, ADMIT_SMALL) != TB_OK)
        return; /* the next read that meets it tries again */
    tb_shard_record(s, TB_REC_QUARANTINE, flags, 0, tb_slice(p, sizeof(*p)), tb_slice(NULL, 0), tb_slice(NULL, 0));
}

void tb_quarantine(struct tb_shard *s, const struct tb_bad_seen *b)
{
    struct tb_disk_bad known;
    s->bad_reads++;
    if (tb_quarantined(s, b->blob, &known))
        return;
    complain(s, b);
    struct tb_pay_quarantine p = {
        .blob = b->blob,
        .bad = {.lsn = b->lsn, .when = tb_io_wall_s(s->worker->io), .piece = b->piece, .why = (uint16_t)b->why}};
    record(s, 0, &p);
}

void tb_quarantine_lift(struct tb_shard *s, uint64_t blob)
{
    struct tb_disk_bad known;
    if (!tb_quarantined(s, blob, &known))
        return;
    struct tb_pay_quarantine p = {.blob = blob, .bad = known};
    tb_log(TB_LOG_INFO, "shard=%u blob=%llu a stored message that was damaged reads well again", s->number,
           (unsigned long long)blob);
    record(s, TB_QUARANTINE_LIFTED, &p);
}
