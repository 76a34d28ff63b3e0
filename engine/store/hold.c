/*
 * hold.c: see hold.h. The file BACKUP: two slots, as SUPER has, written once a backup.
 *
 * The hold ends with the horizon, counted from the end of the newest backup, whatever the clock does meanwhile: a clock
 * that stands further off than the horizon, to either side, holds nothing. Thread: load and note as told there; what
 * they set is read by every shard's owner, in any order: a mix of old and new holds too much or what was held before.
 */
#include "engine/store/hold.h"

#include <stdio.h>

#include "engine/base/rules.h"

#define HOLD_MAGIC "TAMBOBAK"
#define HOUR_MS INT64_C(3600000)

struct disk_hold { /* one block */
    char magic[8];
    uint32_t format, crc; /* crc32c of this struct with crc = 0 */
    uint64_t seq;
    uint8_t uuid[16];
    int64_t time_ms; /* when the newest backup was done */
    uint32_t shards, reserved;
    uint64_t end[TB_SHARDS_MAX]; /* positions: it has each shard's log up to here */
};
_Static_assert(sizeof(struct disk_hold) == 56 + 8 * TB_SHARDS_MAX && sizeof(struct disk_hold) <= TB_BLOCK, "hold");

static bool check(const uint8_t *block, uint64_t *seq)
{
    struct disk_hold h;
    memcpy(&h, block, sizeof(h));
    uint32_t want = h.crc;
    h.crc = 0;
    *seq = h.seq;
    return memcmp(h.magic, HOLD_MAGIC, 8) == 0 && tb_crc32c(0, &h, sizeof(h)) == want;
}

static void path_of(const struct tb_store *store, char out[TB_PATH + 16])
{
    (void)snprintf(out, TB_PATH + 16, "%s/BACKUP", store->dir);
}

static void set(struct tb_store *store, const struct disk_hold *h)
{
    for (uint32_t k = 0; k < store->super.shards; k++)
        atomic_store(&store->backed_up.end[k], h->end[k]);
    atomic_store(&store->backed_up.time_ms, h->time_ms);
    store->backed_up.seq = h->seq;
}

void tb_hold_load(struct tb_io *io, struct tb_store *store)
{
    char path[TB_PATH + 16];
    uint8_t block[TB_BLOCK];
    struct disk_hold h;
    struct tb_error err;
    path_of(store, path);
    enum tb_rc rc = tb_slot_read(io, path, check, block, &err);
    if (rc == TB_OK) {
        memcpy(&h, block, sizeof(h));
        if (h.shards == store->super.shards && memcmp(h.uuid, store->super.uuid, sizeof(h.uuid)) == 0)
            set(store, &h);
    } else if (rc != TB_NOTFOUND) {
        tb_log(TB_LOG_WARN, "%s; no segment is kept for the next backup", err.text);
    }
}

enum tb_rc tb_hold_note(struct tb_io *io, struct tb_store *store, const struct tb_manifest *m, struct tb_error *err)
{
    char path[TB_PATH + 16];
    struct disk_hold h = {.format = TB_FORMAT, .seq = store->backed_up.seq + 1, .shards = store->super.shards};
    memcpy(h.magic, HOLD_MAGIC, sizeof(h.magic));
    memcpy(h.uuid, store->super.uuid, sizeof(h.uuid));
    h.time_ms = tb_io_wall_ms(io);
    for (uint32_t k = 0; k < h.shards; k++)
        h.end[k] = m->shard[k].end;
    h.crc = tb_crc32c(0, &h, sizeof(h));
    set(store, &h);
    path_of(store, path);
    enum tb_rc rc = tb_slot_write(io, path, h.seq, &h, sizeof(h), err);
    int sync = rc == TB_OK ? tb_io_sync_dir(io, store->dir) : 0;
    return sync < 0 ? tb_error_set(err, TB_IO, -sync, "%s cannot be synced", store->dir) : rc;
}

bool tb_hold_keeps(const struct tb_shard *s, uint32_t segment)
{
    const struct tb_store *store = s->store;
    int64_t horizon_ms = store->cfg.backup_horizon_hours * HOUR_MS, made_ms = atomic_load(&store->backed_up.time_ms);
    if (made_ms == 0 || horizon_ms == 0)
        return false;
    int64_t age_ms = tb_io_wall_ms(s->worker->io) - made_ms;
    return TB_KEEPS(backuphold) && age_ms < horizon_ms && age_ms > -horizon_ms &&
           segment >= atomic_load(&store->backed_up.end[s->number]) / store->super.segment_bytes;
}
