/*
 * dict.h: the store's own dictionaries. Private to engine/store.
 *
 *   proposed (train.c) --file in every shard, durable--> --DICT record in every shard, durable--> used for writing
 *   --a newer one is--> read with --nothing needs it (retire.c)--> retired, shard by shard
 *
 * Invariants
 * D1 a piece is made with a dictionary only when every shard has its file and its record, both durable: so whatever
 *    survives of a shard, what its mail needs to be read survives too.
 * D2 the bytes of an id never change; an id is never given twice.
 * D3 a dictionary lives in memory until the store is closed.
 * The table is shared by all threads, under its lock, and is not looked at on the hot path: a worker's codec has
 * learned what it needs.
 */
#ifndef TB_STORE_DICT_H
#define TB_STORE_DICT_H

#include <pthread.h>

#include <tambo/admin.h>
#include "engine/codec/codec.h"
#include "engine/index/format.h"

struct tb_store;
struct tb_shard;
struct tb_worker;

enum { TB_DICT_SHARDS = 256 };
#define TB_DICT_MAGIC "TAMBODCT"
struct tb_dict_head { /* a dictionary's file: this, then row.len bytes */
    char magic[8];
    uint32_t crc; /* crc32c of this struct with crc = 0 */
    uint32_t reserved;
    struct tb_disk_dict row;
};
_Static_assert(sizeof(struct tb_dict_head) == 96, "dictionary file");

struct tb_dict {                /* what one id is; found, it does not change but for `have`, `retired` */
    struct tb_codec_dict *dict; /* owned */
    struct tb_disk_dict row;
    bool have[TB_DICT_SHARDS]; /* shards that have file and record */
    bool retired;              /* the last shard that had it let it go */
};
struct tb_dicts {
    pthread_mutex_t lock;
    struct tb_dict **v; /* owned, ascending ids */
    size_t n;
    uint16_t last_id; /* highest ever given */
    bool training;    /* a job is under way */
};

void tb_dicts_init(struct tb_dicts *t);
void tb_dicts_free(struct tb_dicts *t);

/* tb_dicts_load: what the shard's index lists, from its files, else from its log; then files it does not list. One that
 * is in neither is said in the log; all mail made without it can still be read. Blocks; nobody else looks at the shard.
 */
void tb_dicts_load(struct tb_shard *s);
/* tb_dicts_teach: a codec can read with all there are. tb_dicts_use: it writes with the newest that every shard has.
 * On the codec's thread, or where nothing else uses it. */
void tb_dicts_teach(struct tb_store *store, struct tb_codec *codec);
void tb_dicts_use(struct tb_store *store, struct tb_codec *codec);

/* tb_dict_current: the newest of a role that every shard has, NULL if there is none. Any thread. */
const struct tb_dict *tb_dict_current(struct tb_store *store, enum tb_codec_role role);
/* tb_dict_unfinished: the newest of a role, if a shard is missing and it is newer than the current one; else NULL. */
struct tb_dict *tb_dict_unfinished(struct tb_store *store, enum tb_codec_role role);
/* tb_dict_add: takes d over. NULL without memory, and d is freed. tb_dict_has, tb_dict_had: does a shard have it; it
 * does now. */
struct tb_dict *tb_dict_add(struct tb_store *store, struct tb_codec_dict *d, const struct tb_disk_dict *row);
bool tb_dict_has(struct tb_store *store, const struct tb_dict *d, uint32_t shard);
void tb_dict_had(struct tb_store *store, struct tb_dict *d, uint32_t shard);
/* tb_dict_next_id: one that was never given; 0: there is none left. */
uint16_t tb_dict_next_id(struct tb_store *store);
/* tb_dict_write: its file in a shard's folder, durable under its name. 0 or -errno. Blocks. Any thread. */
int tb_dict_write(struct tb_io *io, const char *shard_dir, const struct tb_disk_dict *row, struct tb_slice bytes);
/* tb_dict_file_good: is the file in a shard's folder what the row says? Blocks. Any thread. */
bool tb_dict_file_good(struct tb_io *io, const char *shard_dir, const struct tb_disk_dict *row);

/* tb_dicts_outdated: those of whose role every shard has a newer one; at most max, as many as it returns. */
size_t tb_dicts_outdated(struct tb_store *store, struct tb_disk_dict *out, size_t max);
/* tb_dict_lose: the shard lets go of it: false: it had no record of it. tb_dict_unlink: its file goes, if it is there,
 * durably some day. */
bool tb_dict_lose(struct tb_store *store, uint16_t id, uint32_t shard);
void tb_dict_unlink(struct tb_io *io, const char *shard_dir, uint16_t id);

/* retire.c. tb_retire_tick: once a second for every shard: look for dictionaries that nothing needs any more, and let
 * them go. tb_retire_refuses: an image that names one of these. tb_retire_close: the shard's memory goes. Owner. */
struct tb_image;
void tb_retire_tick(struct tb_shard *s);
bool tb_retire_refuses(const struct tb_shard *s, const struct tb_image *img);
void tb_retire_close(struct tb_shard *s);

/* train.c. tb_train_tick: once a second for every shard: begin a job if it is time. Owner. */
void tb_train_tick(struct tb_shard *s);

#endif
