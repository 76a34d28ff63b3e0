/*
 * retire.c: dictionaries of the store's own that no stored byte needs any more go: by a record, and with their files.
 *
 *   RESTING --an hour, and the newest of the role is another--> NOTED --an hour more--> WALKING the index, some rows a
 *   tick --no row names it--> DICT record, retired --durable--> file unlinked
 *
 * A newer dictionary takes a role over; what the older one made dies, or GC compresses it anew.
 *
 * Invariants
 * T1 a dictionary goes from a shard only when no blob, body, cached envelope or trash entry of its index names it, as
 *    found by a walk that began an hour after every shard had a newer one, with no delivery unfinished from before that
 *    hour, none queued, GC at rest and no backup under way. T2 from the beginning of that walk on nothing new may name
 *    it: a delivery that does is put off (tb_retire_refuses). So what the walk does not find is not there: a blob's and
 *    a body's rows keep their keys, and GC writes with the newest. T3 a file goes only when the record is durable:
 * replay never asks for what is gone. A cached envelope may move past the walk; it is derived, and made again. D3
 * holds: in memory a dictionary stays. Thread: the shard's owner.
 */
#include "engine/store/gc.h"

#include <stdlib.h>

enum { ROWS = 2048 /* a tick: about a millisecond */, DICTS_MAX = 256 };
#define HOUR_NS UINT64_C(3600000000000)
#define AGAIN_NS UINT64_C(60000000000)
#define DICT_IDS (TB_DICT_TRAINED_MAX + 1u)

struct tb_retire {
    bool walking, doubtful;                     /* doubtful: a value that cannot be read: nothing is known */
    uint64_t next_ns;                           /* the next round */
    uint64_t noted_at;                          /* position in the log, when the candidates were noted */
    size_t n;                                   /* candidates */
    struct tb_disk_dict old[DICTS_MAX];         /* them, as they were noted */
    uint8_t used[DICT_IDS / 8], gone[DICT_IDS]; /* gone: may not be named any more */
    size_t db;                                  /* of walked[] */
    struct tb_key key;
    uint64_t unlink_at; /* files of what is gone go when this is durable; 0: none to go */
};

static const enum tb_db walked[] = {TB_DB_BLOB, TB_DB_BODYX, TB_DB_CACHE, TB_DB_TRASH};

/* ---- what names a dictionary ---- */

static uint16_t own_id(uint16_t dict)
{
    uint16_t id = dict == TB_DICT_RAW ? 0 : dict & (uint16_t)~TB_DICT_B64;
    return id < TB_DICT_TRAINED_MIN || id > TB_DICT_TRAINED_MAX ? 0 : id;
}

static void named(struct tb_retire *t, uint16_t dict)
{
    uint16_t id = own_id(dict);
    t->used[id / 8] |= (uint8_t)(1u << id % 8);
}

static void look_blob(struct tb_retire *t, struct tb_slice v)
{
    struct tb_blob_row row = {0};
    t->doubtful |= v.len < sizeof(row.blob) || v.len > sizeof(row);
    if (t->doubtful)
        return;
    memcpy(&row, v.ptr, v.len);
    named(t, row.blob.head.dict);
    named(t, row.own.dict);
}

static void look_pieces(struct tb_retire *t, struct tb_slice v)
{
    struct tb_disk_piece p;
    t->doubtful |= v.len % sizeof(p) != 0;
    for (size_t at = 0; at + sizeof(p) <= v.len; at += sizeof(p)) {
        memcpy(&p, v.ptr + at, sizeof(p));
        named(t, p.dict);
    }
}

/* look_cached: cached envelopes, one after the other. */
static void look_cached(struct tb_retire *t, struct tb_slice v)
{
    struct tb_disk_cache e;
    size_t at = 0;
    while (at + sizeof(e) <= v.len) {
        memcpy(&e, v.ptr + at, sizeof(e));
        named(t, e.dict);
        at += sizeof(e) + e.clen;
    }
    t->doubtful |= at != v.len;
}

static void look(struct tb_retire *t, struct tb_slice k, struct tb_slice v)
{
    switch (walked[t->db]) {
    case TB_DB_BLOB:
        look_blob(t, v);
        break;
    case TB_DB_BODYX:
        look_pieces(t, v);
        break;
    case TB_DB_CACHE:
        look_cached(t, tb_slice_sub(v, sizeof(struct tb_disk_block), v.len));
        break;
    default: /* of the trash: messages; what else lies there has UID 0 */
        if (k.len == 20 && tb_get_be32(k.ptr + 16) != 0)
            look_cached(t, tb_slice_sub(v, sizeof(struct tb_disk_trash), v.len));
        break;
    }
}

/* ---- a round ---- */

static bool backup_runs(const struct tb_shard *s)
{
    return s->pins.floors.n > 0 && s->pins.floors.v[0].at == 0;
}

/* note: which dictionaries have a newer one in every shard. */
static void note(struct tb_shard *s, struct tb_retire *t)
{
    size_t n = tb_dicts_outdated(s->store, t->old, DICTS_MAX);
    t->n = 0;
    for (size_t i = 0; i < n; i++)
        if (!t->gone[t->old[i].id])
            t->old[t->n++] = t->old[i];
    t->noted_at = tb_log_end(s->log);
}

/* may_walk: T1, but for the walk. */
static bool may_walk(const struct tb_shard *s, const struct tb_retire *t)
{
    return tb_pin_chunk_floor(&s->pins) > t->noted_at && atomic_load(&s->store->queue_unsettled) == 0 &&
           atomic_load(&s->store->queued) == 0 && s->gc->phase == TB_GC_IDLE && !backup_runs(s);
}

static void walk_begin(struct tb_retire *t)
{
    memset(t->used, 0, sizeof(t->used));
    for (size_t i = 0; i < t->n; i++)
        t->gone[t->old[i].id] = 1;
    t->walking = true;
    t->doubtful = false;
    t->db = 0;
    tb_key_begin(&t->key);
    tb_key_bytes(&t->key, tb_slice("\0", 1));
}

/* retire: the record; false: not now. One that only a file is left of needs none. */
static bool retire(struct tb_shard *s, const struct tb_disk_dict *d)
{
    struct tb_slice none = tb_slice(NULL, 0);
    if (tb_shard_admit(s, sizeof(*d), 1, ADMIT_SMALL) != TB_OK)
        return false;
    if (!tb_dict_lose(s->store, d->id, s->number))
        return true;
    tb_shard_record(s, TB_REC_DICT, TB_DICT_RETIRED, 0, tb_slice(d, sizeof(*d)), none, none);
    tb_log(TB_LOG_INFO, "shard=%u dictionary=%04x retired: nothing is stored with it any more", s->number, d->id);
    return true;
}

/* let_go: what nothing names goes; the others may be named again. */
static void let_go(struct tb_shard *s, struct tb_retire *t)
{
    bool known = !t->doubtful && !backup_runs(s);
    for (size_t i = 0; i < t->n; i++) {
        uint16_t id = t->old[i].id;
        t->gone[id] = known && !(t->used[id / 8] >> id % 8 & 1) && retire(s, &t->old[i]);
    }
    t->unlink_at = tb_log_end(s->log);
}

/* walk: some rows; after the last one what is not used goes. */
static void walk(struct tb_shard *s, struct tb_retire *t)
{
    struct tb_slice k, v;
    for (unsigned rows = 0; rows < ROWS; rows++) {
        if (!tb_index_ge(s->ix, walked[t->db], tb_key_slice(&t->key), 0, &k, &v)) {
            tb_key_begin(&t->key);
            tb_key_bytes(&t->key, tb_slice("\0", 1));
            if (++t->db < TB_ARRAY_LEN(walked))
                continue;
            t->walking = false;
            let_go(s, t);
            return;
        }
        look(t, k, v);
        tb_key_begin(&t->key);
        tb_key_bytes(&t->key, k);
        tb_key_bytes(&t->key, tb_slice("\0", 1));
    }
}

/* unlink_files: T3. Not synced: a file that a power cut brings back is noted again. */
static void unlink_files(struct tb_shard *s, struct tb_retire *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->gone[t->old[i].id])
            tb_dict_unlink(s->worker->io, s->dir, t->old[i].id);
    t->unlink_at = 0;
    t->n = 0;
}

/* ---- from outside ---- */

bool tb_retire_refuses(const struct tb_shard *s, const struct tb_image *img)
{
    const struct tb_retire *t = s->retire;
    const struct tb_pay_blob *b = &img->head;
    struct tb_disk_piece p;
    if (t == NULL)
        return false;
    bool yes = t->gone[own_id(b->head.dict)] || t->gone[own_id(b->only.dict)] || t->gone[own_id(b->cache_dict)];
    for (size_t at = 0; !yes && at + sizeof(p) <= img->list.len; at += sizeof(p)) {
        memcpy(&p, img->list.ptr + at, sizeof(p));
        yes = t->gone[own_id(p.dict)];
    }
    return yes;
}

void tb_retire_close(struct tb_shard *s)
{
    free(s->retire);
    s->retire = NULL;
}

void tb_retire_tick(struct tb_shard *s)
{
    struct tb_retire *t = s->retire;
    uint64_t now = tb_io_now_ns(s->worker->io);
    if (s->stopping)
        return;
    if (t == NULL) {
        if (tb_dict_current(s->store, TB_ROLE_HEADER) == NULL && tb_dict_current(s->store, TB_ROLE_BODY) == NULL)
            return; /* it never trained */
        s->retire = t = calloc(1, sizeof(*t));
        if (t != NULL)
            t->next_ns = now + HOUR_NS;
        return;
    }
    if (t->unlink_at != 0 && tb_log_durable(s->log) >= t->unlink_at && !backup_runs(s))
        unlink_files(s, t);
    if (t->walking)
        walk(s, t);
    if (t->walking || t->unlink_at != 0 || now < t->next_ns)
        return;
    t->next_ns = now + HOUR_NS;
    if (t->n == 0)
        note(s, t);
    else if (may_walk(s, t))
        walk_begin(t);
    else
        t->next_ns = now + AGAIN_NS;
}
