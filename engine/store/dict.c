/*
 * dict.c: the store's own dictionaries: their files, the table of those in memory, who reads and writes with which.
 *
 * A dictionary is needed to read mail, so each shard that holds mail made with it keeps it twice: as a file
 * (shard-XX/dict/NNNN) and in its log, with a row in its index that says what it must be. What is loaded is compared
 * with the row's SHA-256. Thread: as told in dict.h.
 */
#include "engine/store/shard.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"
#include "engine/crypto/crypto.h"

enum { PATH_LONG = TB_PATH + 32 };

/* ---- files ---- */

static void dict_path(const char *shard_dir, uint16_t id, const char *end, char out[PATH_LONG])
{
    (void)snprintf(out, PATH_LONG, "%s/dict/%04x%s", shard_dir, id, end);
}

static void head_seal(struct tb_dict_head *h)
{
    h->crc = 0;
    h->crc = tb_crc32c(0, h, sizeof(*h));
}

static int write_all(struct tb_io *io, int fd, const struct tb_dict_head *h, struct tb_slice bytes)
{
    int64_t n = tb_io_pwrite(io, fd, h, sizeof(*h), 0);
    if (n == (int64_t)sizeof(*h))
        n = tb_io_pwrite(io, fd, bytes.ptr, bytes.len, sizeof(*h)) == (int64_t)bytes.len ? 0 : -EIO;
    else
        n = n < 0 ? n : -EIO;
    if (n < 0 || !TB_KEEPS(dictsync))
        return (int)n;
    return tb_io_sync(io, fd);
}

int tb_dict_write(struct tb_io *io, const char *shard_dir, const struct tb_disk_dict *row, struct tb_slice bytes)
{
    struct tb_dict_head h = {.magic = TB_DICT_MAGIC, .row = *row};
    char fresh[PATH_LONG], final[PATH_LONG], dir[PATH_LONG];
    h.row.lsn = 0;
    head_seal(&h);
    dict_path(shard_dir, row->id, ".new", fresh);
    dict_path(shard_dir, row->id, "", final);
    (void)snprintf(dir, sizeof(dir), "%s/dict", shard_dir);
    int rc = tb_io_mkdir(io, dir);
    if (rc == 0 || rc == -EEXIST)
        rc = tb_io_sync_dir(io, shard_dir);
    (void)tb_io_unlink(io, fresh); /* debris, if any */
    int fd = rc < 0 ? rc : tb_io_file_open(io, fresh, TB_OPEN_WRITE | TB_OPEN_CREATE);
    if (fd < 0)
        return fd;
    rc = write_all(io, fd, &h, bytes);
    (void)tb_io_file_close(io, fd);
    if (rc == 0)
        rc = tb_io_rename(io, fresh, final);
    return rc < 0 ? rc : tb_io_sync_dir(io, dir);
}

void tb_dict_unlink(struct tb_io *io, const char *shard_dir, uint16_t id)
{
    char path[PATH_LONG];
    dict_path(shard_dir, id, "", path);
    int rc = tb_io_unlink(io, path);
    if (rc < 0 && rc != -ENOENT)
        tb_log(TB_LOG_WARN, "%s cannot be removed: %s; it is tried again", path, strerror(-rc));
}

static bool genuine(const struct tb_disk_dict *row, const char *bytes)
{
    struct tb_sha256 h;
    uint8_t is[TB_SHA256_BYTES];
    tb_sha256_init(&h);
    tb_sha256_update(&h, bytes, row->len);
    tb_sha256_final(&h, is);
    return memcmp(is, row->sha256, sizeof(is)) == 0;
}

static bool from_file(struct tb_io *io, const char *shard_dir, const struct tb_disk_dict *row, char *bytes)
{
    char path[PATH_LONG];
    struct tb_dict_head h;
    dict_path(shard_dir, row->id, "", path);
    int fd = tb_io_file_open(io, path, TB_OPEN_READ);
    if (fd < 0)
        return false;
    bool good = tb_io_pread(io, fd, &h, sizeof(h), 0) == (int64_t)sizeof(h) && memcmp(h.magic, TB_DICT_MAGIC, 8) == 0 &&
                tb_io_pread(io, fd, bytes, row->len, sizeof(h)) == (int64_t)row->len && genuine(row, bytes);
    (void)tb_io_file_close(io, fd);
    return good;
}

bool tb_dict_file_good(struct tb_io *io, const char *shard_dir, const struct tb_disk_dict *row)
{
    char *bytes = row->len <= TB_DICT_BYTES_MAX ? malloc(row->len + 1) : NULL;
    bool good = bytes != NULL && from_file(io, shard_dir, row, bytes);
    free(bytes);
    return good;
}

/* ---- the table ---- */

void tb_dicts_init(struct tb_dicts *t)
{
    *t = (struct tb_dicts){.last_id = TB_DICT_TRAINED_MIN - 1};
    (void)pthread_mutex_init(&t->lock, NULL);
}

void tb_dicts_free(struct tb_dicts *t)
{
    for (size_t i = 0; i < t->n; i++) {
        tb_codec_dict_free(t->v[i]->dict);
        free(t->v[i]);
    }
    free(t->v);
    (void)pthread_mutex_destroy(&t->lock);
}

static bool everywhere(const struct tb_store *store, const struct tb_dict *d)
{
    for (uint32_t i = 0; i < store->super.shards; i++)
        if (!d->have[i])
            return false;
    return true;
}

/* newest: with the lock held. all: only one that every shard has. */
static struct tb_dict *newest(struct tb_store *store, enum tb_codec_role role, bool all)
{
    struct tb_dicts *t = &store->dicts;
    for (size_t i = t->n; i-- > 0;)
        if (t->v[i]->row.role == role && (!all || everywhere(store, t->v[i])))
            return t->v[i];
    return NULL;
}

const struct tb_dict *tb_dict_current(struct tb_store *store, enum tb_codec_role role)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    const struct tb_dict *d = newest(store, role, true);
    (void)pthread_mutex_unlock(&store->dicts.lock);
    return d;
}

struct tb_dict *tb_dict_unfinished(struct tb_store *store, enum tb_codec_role role)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    struct tb_dict *d = newest(store, role, false);
    if (d != NULL && everywhere(store, d))
        d = NULL;
    (void)pthread_mutex_unlock(&store->dicts.lock);
    return d;
}

/* add: with the lock held. */
static struct tb_dict *add(struct tb_dicts *t, struct tb_codec_dict *dict, const struct tb_disk_dict *row)
{
    struct tb_dict *d = calloc(1, sizeof(*d));
    struct tb_dict **v = d != NULL ? realloc(t->v, (t->n + 1) * sizeof(struct tb_dict *)) : NULL;
    if (v == NULL) {
        free(d);
        tb_codec_dict_free(dict);
        return NULL;
    }
    t->v = v;
    d->dict = dict;
    d->row = *row;
    size_t at = t->n++;
    for (; at > 0 && v[at - 1]->row.id > row->id; at--)
        v[at] = v[at - 1];
    v[at] = d;
    if (row->id > t->last_id)
        t->last_id = row->id;
    return d;
}

struct tb_dict *tb_dict_add(struct tb_store *store, struct tb_codec_dict *dict, const struct tb_disk_dict *row)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    struct tb_dict *d = add(&store->dicts, dict, row);
    (void)pthread_mutex_unlock(&store->dicts.lock);
    return d;
}

bool tb_dict_has(struct tb_store *store, const struct tb_dict *d, uint32_t shard)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    bool has = d->have[shard];
    (void)pthread_mutex_unlock(&store->dicts.lock);
    return has;
}

void tb_dict_had(struct tb_store *store, struct tb_dict *d, uint32_t shard)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    d->have[shard] = true;
    (void)pthread_mutex_unlock(&store->dicts.lock);
}

size_t tb_dicts_outdated(struct tb_store *store, struct tb_disk_dict *out, size_t max)
{
    struct tb_dicts *t = &store->dicts;
    size_t n = 0;
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n && n < max; i++) {
        const struct tb_dict *now = newest(store, (enum tb_codec_role)t->v[i]->row.role, true);
        if (now != NULL && now->row.id > t->v[i]->row.id)
            out[n++] = t->v[i]->row;
    }
    (void)pthread_mutex_unlock(&t->lock);
    return n;
}

bool tb_dict_lose(struct tb_store *store, uint16_t id, uint32_t shard)
{
    struct tb_dicts *t = &store->dicts;
    bool had = false;
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        struct tb_dict *d = t->v[i];
        if (d->row.id != id)
            continue;
        had = had || d->have[shard];
        d->have[shard] = false;
        d->retired = memchr(d->have, true, store->super.shards) == NULL;
    }
    (void)pthread_mutex_unlock(&t->lock);
    return had;
}

uint16_t tb_dict_next_id(struct tb_store *store)
{
    (void)pthread_mutex_lock(&store->dicts.lock);
    uint16_t id = store->dicts.last_id < TB_DICT_TRAINED_MAX ? ++store->dicts.last_id : 0;
    (void)pthread_mutex_unlock(&store->dicts.lock);
    return id;
}

/* ---- loading ---- */

/* known: another shard brought it, or this one before it was rebuilt. With the lock held. */
static struct tb_dict *known(const struct tb_dicts *t, const struct tb_disk_dict *row)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i]->row.id == row->id && memcmp(t->v[i]->row.sha256, row->sha256, sizeof(row->sha256)) == 0)
            return t->v[i];
    return NULL;
}

/* fetch: the bytes of a row; NULL: they are nowhere (said). */
static char *fetch(struct tb_shard *s, const struct tb_disk_dict *row)
{
    char *bytes = row->len <= TB_DICT_BYTES_MAX ? malloc(row->len + 1) : NULL;
    if (bytes != NULL && from_file(s->worker->io, s->dir, row, bytes))
        return bytes;
    if (bytes != NULL && row->lsn != 0 &&
        tb_log_read_now(s->log, bytes, row->len, row->lsn, false) == (int64_t)row->len && genuine(row, bytes)) {
        int rc = tb_dict_write(s->worker->io, s->dir, row, tb_slice(bytes, row->len));
        tb_log(TB_LOG_WARN, "shard=%u dictionary=%04x its file was missing or damaged; it was found in the log%s",
               s->number, row->id, rc < 0 ? ", but cannot be written back" : " and written back");
        return bytes;
    }
    tb_log(TB_LOG_ERROR,
           "alert: shard=%u dictionary=%04x is missing or damaged: mail stored with it cannot be read until "
           "%s/dict/%04x is put back from a backup",
           s->number, row->id, s->dir, row->id);
    free(bytes);
    return NULL;
}

/* take: bytes (owned; NULL: there are none) into the table; listed: the shard's index has a row of it. */
static void take(struct tb_shard *s, const struct tb_disk_dict *row, char *bytes, bool listed)
{
    struct tb_dicts *t = &s->store->dicts;
    struct tb_codec_dict *dict = NULL;
    (void)pthread_mutex_lock(&t->lock);
    if (row->id > t->last_id && row->id <= TB_DICT_TRAINED_MAX)
        t->last_id = row->id; /* also of one that is missing (D2) */
    struct tb_dict *d = known(t, row);
    if (bytes != NULL && d == NULL) {
        enum tb_rc rc = tb_codec_dict_new(row->id, (enum tb_codec_role)row->role, tb_slice(bytes, row->len), &dict);
        d = rc == TB_OK ? add(t, dict, row) : NULL;
        if (d == NULL)
            tb_log(TB_LOG_ERROR, "alert: shard=%u dictionary=%04x cannot be used: %s", s->number, row->id,
                   tb_rc_text(rc == TB_OK ? TB_LIMIT : rc));
    }
    if (bytes != NULL && d != NULL && listed)
        d->have[s->number] = true;
    (void)pthread_mutex_unlock(&t->lock);
    free(bytes);
}

/* unlisted: a file that the index does not list: what reads some mail, if the index was made from what was left of the
 * log. tb_train_tick logs it again. */
static bool unlisted(void *user, const char *name)
{
    struct tb_shard *s = user;
    char path[PATH_LONG], *end;
    struct tb_dict_head h;
    unsigned long id = strtoul(name, &end, 16);
    if (strlen(name) != 4 || *end != '\0')
        return true;
    dict_path(s->dir, (uint16_t)id, "", path);
    int fd = tb_io_file_open(s->worker->io, path, TB_OPEN_READ);
    bool good = fd >= 0 && tb_io_pread(s->worker->io, fd, &h, sizeof(h), 0) == (int64_t)sizeof(h);
    if (fd >= 0)
        (void)tb_io_file_close(s->worker->io, fd);
    uint32_t crc = good ? h.crc : 0;
    if (!good || (head_seal(&h), h.crc != crc) || h.row.id != id || h.row.len > TB_DICT_BYTES_MAX)
        return true;
    char *bytes = malloc(h.row.len + 1);
    if (bytes != NULL && from_file(s->worker->io, s->dir, &h.row, bytes))
        take(s, &h.row, bytes, false);
    else
        free(bytes);
    return true;
}

void tb_dicts_load(struct tb_shard *s)
{
    struct tb_slice k, v;
    struct tb_disk_dict row;
    char dir[PATH_LONG];
    bool more = tb_index_ge(s->ix, TB_DB_DICT, tb_slice("\0\0", 2), 0, &k, &v);
    for (; more; more = tb_index_next(s->ix, TB_DB_DICT, 0, &k, &v)) {
        if (v.len < sizeof(row))
            continue;
        memcpy(&row, v.ptr, sizeof(row));
        take(s, &row, fetch(s, &row), true);
    }
    (void)snprintf(dir, sizeof(dir), "%s/dict", s->dir);
    (void)tb_io_list(s->worker->io, dir, unlisted, s); /* no such folder: no dictionaries */
}

void tb_dicts_teach(struct tb_store *store, struct tb_codec *codec)
{
    struct tb_dicts *t = &store->dicts;
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++)
        if (tb_codec_learn(codec, t->v[i]->dict) != TB_OK)
            tb_log(TB_LOG_ERROR, "dictionary=%04x: no memory to learn it", t->v[i]->row.id);
    (void)pthread_mutex_unlock(&t->lock);
}

void tb_dicts_use(struct tb_store *store, struct tb_codec *codec)
{
    for (int role = 0; role < TB_ROLES; role++) {
        const struct tb_dict *d = tb_dict_current(store, (enum tb_codec_role)role);
        if (d != NULL && tb_codec_in_use(codec, (enum tb_codec_role)role) != d->row.id &&
            tb_codec_adopt(codec, d->dict) != TB_OK)
            tb_log(TB_LOG_WARN, "dictionary=%04x: no memory to use it", d->row.id);
    }
}

/* ---- for administrators ---- */

size_t tb_dict_list(struct tb_store *store, struct tb_dict_info *out, size_t max)
{
    static const char *const roles[TB_ROLES] = {"header", "body", "cache"};
    struct tb_dicts *t = &store->dicts;
    size_t n = 0;
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n && n < max; i++) {
        const struct tb_dict *d = t->v[i];
        if (d->retired)
            continue;
        out[n] = (struct tb_dict_info){.id = d->row.id,
                                       .role = roles[d->row.role],
                                       .bytes = d->row.len,
                                       .created = d->row.created,
                                       .before = d->row.before,
                                       .after = d->row.after,
                                       .in_use = newest(store, (enum tb_codec_role)d->row.role, true) == d};
        for (uint32_t k = 0; k < store->super.shards; k++)
            out[n].shards += d->have[k];
        n++;
    }
    (void)pthread_mutex_unlock(&t->lock);
    return n;
}
