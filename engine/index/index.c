/*
 * index.c: LMDB behind a narrow door: one write transaction, sticky errors, a checksum on every value, the meta
 * roll-back.
 *
 * Flags: NOSYNC (a checkpoint is synced and confirmed by the shard), NORDAHEAD (random access), NOTLS, NOSUBDIR. No
 * WRITEMAP: a stray pointer cannot write the map. No DUPSORT. The map is 256 GiB of address space from the start and is
 * never resized (R8). Invariants X1 to X4: index.h. Thread: the shard's owner.
 */
#include "engine/index/index.h"

#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/rules.h"

#define MAP_BYTES ((size_t)1 << 38)
enum { META_LEAD = 16, PAGE = 4096, META_LAST_PAGE_AT = 120, META_TXNID_AT = 128, CRC_BYTES = 4 };

static const char *const db_names[TB_DBS] = {
    "state", "acct", "mbox", "tree", "msg",     "cache", "chg",   "blob",  "body", "bodyx",      "hash",
    "trash", "seg",  "dict", "sub",  "keyword", "annot", "place", "queue", "done", "quarantine", "acl",
};

struct tb_index {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi[TB_DBS];
    MDB_cursor *cursor[TB_DBS];
    MDB_val last[TB_DBS]; /* key the cursor stands on, for tb_index_next's prefix */
    bool any_order;       /* tb_index_any_order */
    bool missing;         /* some databases are new to this store: made by the first transaction */
    uint64_t soft;
    MDB_val checked[TB_DBS]; /* the value whose checksum was verified last; forgotten at each write to the database */
    enum tb_rc rc;
    char error[160];
};

static void fail(struct tb_index *ix, enum tb_rc rc, const char *what, int code)
{
    if (ix->rc != TB_OK)
        return;
    ix->rc = rc;
    (void)snprintf(ix->error, sizeof(ix->error), "index: %s: %s", what,
                   code ? mdb_strerror(code) : "checksum mismatch");
}

/* ---- environment ---- */

static enum tb_rc open_databases(struct tb_index *ix, bool create)
{
    int rc = mdb_txn_begin(ix->env, NULL, 0, &ix->txn);
    for (int i = 0; rc == 0 && i < TB_DBS; i++) {
        rc = mdb_dbi_open(ix->txn, db_names[i], create ? MDB_CREATE : 0, &ix->dbi[i]);
        if (rc == MDB_NOTFOUND && i > TB_DB_DONE) { /* the store is older than it */
            ix->missing = true;
            rc = 0;
        }
    }
    if (rc == 0) {
        rc = mdb_txn_commit(ix->txn);
        ix->txn = NULL;
    }
    if (rc != 0)
        fail(ix, rc == EIO || rc == ENOSPC ? TB_IO : TB_CORRUPT, "its databases cannot be opened", rc);
    return ix->rc;
}

enum tb_rc tb_index_open(const char *path, bool create, struct tb_index **out, struct tb_error *err)
{
    struct tb_index *ix = calloc(1, sizeof(*ix));
    if (ix == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "index %s", path);
    int rc = mdb_env_create(&ix->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(ix->env, MAP_BYTES);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(ix->env, TB_DBS);
    if (rc == 0)
        rc = mdb_env_open(ix->env, path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NORDAHEAD | MDB_NOSYNC, 0600);
    if (rc != 0)
        fail(ix, TB_IO, "cannot be opened", rc);
    else
        (void)open_databases(ix, create);
    if (ix->rc != TB_OK) {
        enum tb_rc result = tb_error_set(err, ix->rc, 0, "%s: %s", path, ix->error);
        tb_index_close(ix);
        return result;
    }
    *out = ix;
    return TB_OK;
}

static void cursors_close(struct tb_index *ix)
{
    for (int i = 0; i < TB_DBS; i++) {
        if (ix->cursor[i] != NULL)
            mdb_cursor_close(ix->cursor[i]);
        ix->cursor[i] = NULL;
    }
}

void tb_index_close(struct tb_index *ix)
{
    if (ix == NULL)
        return;
    cursors_close(ix);
    if (ix->txn != NULL)
        mdb_txn_abort(ix->txn);
    if (ix->env != NULL)
        mdb_env_close(ix->env);
    free(ix);
}

static uint64_t meta_txnid(const uint8_t *meta)
{
    return tb_get_le64(meta + META_TXNID_AT);
}

/* slot_reads: would LMDB take this for a meta page? */
static bool slot_reads(const uint8_t *slot, unsigned i)
{
    enum { MAGIC = 0xbeefc0de, VERSION = 1, P_META = 8 };
    return tb_get_le64(slot) == i && tb_get_le16(slot + 10) == P_META && tb_get_le32(slot + META_LEAD) == MAGIC &&
           tb_get_le32(slot + META_LEAD + 4) == VERSION;
}

static void slot_make(uint8_t *slot, unsigned i, const uint8_t *meta)
{
    enum { P_META = 8 };
    memset(slot, 0, META_LEAD);
    tb_put_le64(slot, i);
    tb_put_le16(slot + 10, P_META);
    memcpy(slot + META_LEAD, meta, TB_META_BYTES);
}

static enum tb_rc roll_back_fd(struct tb_io *io, int fd, const char *path, uint64_t txnid, const uint8_t *meta,
                               struct tb_error *err)
{
    enum { SLOT = META_LEAD + TB_META_BYTES };
    uint8_t slot[2][SLOT];
    for (unsigned i = 0; i < 2; i++) {
        int64_t n = tb_io_pread_sure(io, fd, slot[i], SLOT, i * PAGE);
        if (n != SLOT)
            return tb_error_set(err, n < 0 ? TB_IO : TB_CORRUPT, n < 0 ? (int)-n : 0,
                                "index %s: meta page %u cannot be read", path, i);
    }
    if (meta_txnid(meta) != txnid)
        return tb_error_set(err, TB_CORRUPT, 0, "index %s: the checkpoint record contradicts itself", path);
    for (unsigned i = 0; i < 2; i++) {
        /* The confirmed slot must read as confirmed; the other one may hold anything newer, whole or torn. */
        const uint8_t *body = slot[i] + META_LEAD;
        bool confirmed = i == (txnid & 1), reads = slot_reads(slot[i], i);
        if (reads && (memcmp(body, meta, TB_META_BYTES) == 0 || (!confirmed && meta_txnid(body) < txnid)))
            continue;
        if (confirmed && reads && meta_txnid(body) < txnid)
            return tb_error_set(err, TB_CORRUPT, 0, "index %s is older than its checkpoint record", path);
        if (!TB_KEEPS(rollback))
            continue;
        slot_make(slot[i], i, meta);
        int64_t n = tb_io_pwrite(io, fd, slot[i], SLOT, i * PAGE);
        if (n != SLOT)
            return tb_error_set(err, TB_IO, n < 0 ? (int)-n : 0, "index %s: meta page %u cannot be written", path, i);
    }
    int rc = tb_io_sync(io, fd);
    return rc < 0 ? tb_error_set(err, TB_IO, -rc, "index %s cannot be synced", path) : TB_OK;
}

enum tb_rc tb_index_roll_back(struct tb_io *io, const char *path, uint64_t txnid, const uint8_t meta[TB_META_BYTES],
                              struct tb_error *err)
{
    char lock[1100];
    (void)snprintf(lock, sizeof(lock), "%s-lock", path);
    (void)tb_io_unlink(io, lock); /* LMDB's; nobody holds it: the store's own lock is ours */
    int fd = tb_io_file_open(io, path, TB_OPEN_WRITE);
    if (fd < 0)
        return tb_error_set(err, TB_IO, -fd, "index %s cannot be opened", path);
    enum tb_rc rc = roll_back_fd(io, fd, path, txnid, meta, err);
    (void)tb_io_file_close(io, fd);
    return rc;
}

/* ---- transactions ---- */

enum tb_rc tb_index_begin(struct tb_index *ix)
{
    int rc = mdb_txn_begin(ix->env, NULL, 0, &ix->txn);
    for (int i = TB_DB_DONE + 1; rc == 0 && ix->missing && i < TB_DBS; i++)
        rc = mdb_dbi_open(ix->txn, db_names[i], MDB_CREATE, &ix->dbi[i]);
    ix->missing = false;
    if (rc != 0)
        fail(ix, TB_IO, "no transaction", rc);
    return ix->rc;
}

enum tb_rc tb_index_commit(struct tb_index *ix, uint64_t *txnid)
{
    if (ix->rc != TB_OK)
        return ix->rc;
    *txnid = mdb_txn_id(ix->txn);
    cursors_close(ix);
    memset(ix->checked, 0, sizeof(ix->checked));
    int rc = mdb_txn_commit(ix->txn);
    ix->txn = NULL;
    if (rc != 0)
        fail(ix, TB_IO, "a checkpoint cannot be written", rc);
    return ix->rc;
}

enum tb_rc tb_index_meta(struct tb_index *ix, struct tb_io *io, int fd, uint64_t txnid, uint8_t meta[TB_META_BYTES])
{
    uint8_t again[TB_META_BYTES] = {0};
    int64_t n = TB_META_BYTES;
    bool same = false;
    for (int i = 0; i < 3 && n == TB_META_BYTES && !same; i++) { /* it goes into CKPT, so it must be right */
        memcpy(meta, again, TB_META_BYTES);
        n = tb_io_pread(io, fd, again, TB_META_BYTES, (txnid & 1) * PAGE + META_LEAD);
        same = memcmp(meta, again, TB_META_BYTES) == 0;
    }
    if (!same || meta_txnid(meta) != txnid)
        fail(ix, TB_IO, "its meta page cannot be read back", EIO);
    return ix->rc;
}

struct tb_snapshot *tb_index_snapshot_begin(struct tb_index *ix, uint64_t txnid)
{
    MDB_txn *txn;
    if (mdb_txn_begin(ix->env, NULL, MDB_RDONLY, &txn) != 0)
        return NULL;
    if (mdb_txn_id(txn) != txnid) { /* the caller's idea of what is confirmed is not the file's */
        mdb_txn_abort(txn);
        return NULL;
    }
    return (struct tb_snapshot *)txn;
}

void tb_index_snapshot_end(struct tb_snapshot *snap)
{
    if (snap != NULL)
        mdb_txn_abort((MDB_txn *)snap);
}

uint64_t tb_index_meta_pages(const uint8_t meta[TB_META_BYTES])
{
    return tb_get_le64(meta + META_LAST_PAGE_AT) + 1;
}

enum tb_rc tb_index_rc(const struct tb_index *ix)
{
    return ix->rc;
}

const char *tb_index_error(const struct tb_index *ix)
{
    return ix->error;
}

void tb_index_pages(struct tb_index *ix, uint64_t *used, uint64_t *high)
{
    MDB_envinfo info;
    (void)mdb_env_info(ix->env, &info);
    *high = info.me_last_pgno + 1;
    *used = 2;
    for (int i = 0; i < TB_DBS && ix->txn != NULL; i++) {
        MDB_stat st;
        if (mdb_stat(ix->txn, ix->dbi[i], &st) == 0)
            *used += st.ms_branch_pages + st.ms_leaf_pages + st.ms_overflow_pages;
    }
}

/* ---- values ---- */

uint32_t tb_index_value_crc(enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    uint8_t id = (uint8_t)db;
    return tb_crc32c(tb_crc32c(tb_crc32c(0, &id, 1), key.ptr, key.len), value.ptr, value.len);
}

const char *tb_index_db_name(enum tb_db db)
{
    return db_names[db];
}

static uint32_t value_crc(enum tb_db db, const MDB_val *key, const void *ptr, size_t len)
{
    return tb_index_value_crc(db, tb_slice(key->mv_data, key->mv_size), tb_slice(ptr, len));
}

static void soft_damage(struct tb_index *ix)
{
    if (ix->soft++ == 0)
        tb_log(TB_LOG_WARN,
               "the index holds damaged cached envelopes: they are made again when asked for; run `tambo check`");
}

uint64_t tb_index_soft(const struct tb_index *ix)
{
    return ix->soft;
}

uint64_t tb_index_entries(struct tb_index *ix, enum tb_db db)
{
    MDB_stat st;
    return ix->txn != NULL && mdb_stat(ix->txn, ix->dbi[db], &st) == 0 ? st.ms_entries : 0;
}

/* value_open: check and strip the checksum. */
static bool value_open(struct tb_index *ix, enum tb_db db, const MDB_val *key, const MDB_val *raw, struct tb_slice *out)
{
    if (raw->mv_size < CRC_BYTES) {
        fail(ix, TB_CORRUPT, db_names[db], 0);
        return false;
    }
    size_t len = raw->mv_size - CRC_BYTES;
    if (raw->mv_data != ix->checked[db].mv_data || raw->mv_size != ix->checked[db].mv_size) {
        if (value_crc(db, key, raw->mv_data, len) != tb_get_le32((const char *)raw->mv_data + len) &&
            TB_KEEPS(checksum)) {
            if (db == TB_DB_CACHE) /* derived: as good as not there, and made again from the message */
                soft_damage(ix);
            else
                fail(ix, TB_CORRUPT, db_names[db], 0);
            return false;
        }
        ix->checked[db] = *raw;
    }
    if (out != NULL)
        *out = tb_slice(raw->mv_data, len);
    return true;
}

bool tb_index_get(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice *value)
{
    if (ix->rc != TB_OK)
        return false;
    MDB_val k = {key.len, (void *)(uintptr_t)key.ptr}, v;
    int rc = mdb_get(ix->txn, ix->dbi[db], &k, &v);
    if (rc == 0)
        return value_open(ix, db, &k, &v, value);
    if (rc != MDB_NOTFOUND)
        fail(ix, TB_CORRUPT, db_names[db], rc);
    return false;
}

static void put(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice a, struct tb_slice b,
                unsigned flags)
{
    if (ix->rc != TB_OK)
        return;
    TB_ASSERT(a.len + b.len <= TB_VALUE_MAX && key.len <= TB_KEY_MAX);
    ix->checked[db].mv_data = NULL;
    MDB_val k = {key.len, (void *)(uintptr_t)key.ptr}, v = {a.len + b.len + CRC_BYTES, NULL};
    int rc = mdb_put(ix->txn, ix->dbi[db], &k, &v, MDB_RESERVE | flags);
    if (rc != 0) {
        fail(ix, rc == ENOSPC || rc == MDB_MAP_FULL ? TB_NOSPACE : TB_IO, db_names[db], rc);
        return;
    }
    char *p = v.mv_data;
    if (a.len > 0)
        memcpy(p, a.ptr, a.len);
    if (b.len > 0)
        memcpy(p + a.len, b.ptr, b.len);
    tb_put_le32(p + a.len + b.len, value_crc(db, &k, p, a.len + b.len));
}

void tb_index_put(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    put(ix, db, key, value, tb_slice(NULL, 0), 0);
}

void tb_index_put2(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice a, struct tb_slice b)
{
    put(ix, db, key, a, b, 0);
}

void tb_index_append(struct tb_index *ix, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    put(ix, db, key, value, tb_slice(NULL, 0), ix->any_order ? 0 : MDB_APPEND);
}

void tb_index_any_order(struct tb_index *ix)
{
    ix->any_order = true;
}

void tb_index_del(struct tb_index *ix, enum tb_db db, struct tb_slice key)
{
    if (ix->rc != TB_OK)
        return;
    ix->checked[db].mv_data = NULL;
    MDB_val k = {key.len, (void *)(uintptr_t)key.ptr};
    int rc = mdb_del(ix->txn, ix->dbi[db], &k, NULL);
    if (rc != 0 && rc != MDB_NOTFOUND)
        fail(ix, TB_IO, db_names[db], rc);
}

/* ---- cursors ---- */

static MDB_cursor *cursor(struct tb_index *ix, enum tb_db db)
{
    if (ix->rc != TB_OK)
        return NULL;
    if (ix->cursor[db] == NULL) {
        int rc = mdb_cursor_open(ix->txn, ix->dbi[db], &ix->cursor[db]);
        if (rc != 0) {
            fail(ix, TB_IO, db_names[db], rc);
            return NULL;
        }
    }
    return ix->cursor[db];
}

static bool found(struct tb_index *ix, enum tb_db db, int rc, const MDB_val *k, const MDB_val *v, const void *want,
                  size_t prefix, struct tb_slice *key, struct tb_slice *value)
{
    if (rc != 0) {
        if (rc != MDB_NOTFOUND)
            fail(ix, TB_CORRUPT, db_names[db], rc);
        return false;
    }
    if (k->mv_size < prefix || memcmp(k->mv_data, want, prefix) != 0)
        return false;
    ix->last[db] = *k;
    *key = tb_slice(k->mv_data, k->mv_size);
    return value_open(ix, db, k, v, value);
}

bool tb_index_ge(struct tb_index *ix, enum tb_db db, struct tb_slice key, size_t prefix, struct tb_slice *k,
                 struct tb_slice *v)
{
    MDB_cursor *c = cursor(ix, db);
    if (c == NULL)
        return false;
    MDB_val mk = {key.len, (void *)(uintptr_t)key.ptr}, mv;
    int rc = mdb_cursor_get(c, &mk, &mv, MDB_SET_RANGE);
    return found(ix, db, rc, &mk, &mv, key.ptr, prefix, k, v);
}

bool tb_index_le(struct tb_index *ix, enum tb_db db, struct tb_slice key, size_t prefix, struct tb_slice *k,
                 struct tb_slice *v)
{
    MDB_cursor *c = cursor(ix, db);
    if (c == NULL)
        return false;
    MDB_val mk = {key.len, (void *)(uintptr_t)key.ptr}, mv;
    int rc = mdb_cursor_get(c, &mk, &mv, MDB_SET_RANGE);
    if (rc == 0 && (mk.mv_size != key.len || memcmp(mk.mv_data, key.ptr, key.len) != 0))
        rc = mdb_cursor_get(c, &mk, &mv, MDB_PREV);
    else if (rc == MDB_NOTFOUND)
        rc = mdb_cursor_get(c, &mk, &mv, MDB_LAST);
    return found(ix, db, rc, &mk, &mv, key.ptr, prefix, k, v);
}

bool tb_index_next(struct tb_index *ix, enum tb_db db, size_t prefix, struct tb_slice *k, struct tb_slice *v)
{
    MDB_cursor *c = cursor(ix, db);
    if (c == NULL)
        return false;
    char want[TB_KEY_MAX];
    memcpy(want, ix->last[db].mv_data, prefix);
    MDB_val mk, mv;
    int rc = mdb_cursor_get(c, &mk, &mv, MDB_NEXT);
    return found(ix, db, rc, &mk, &mv, want, prefix, k, v);
}
