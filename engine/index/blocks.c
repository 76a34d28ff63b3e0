/*
 * blocks.c: the packed arrays of the index. Reading walks memory; writing copies one block (4 KiB), changes it and puts
 * it back. Bytes from the index were checksummed by tb_index_get, but counts are still bounded here: damage that passes
 * a checksum must not overrun a buffer.
 */
#include "engine/index/blocks.h"

enum { PREFIX = 8 }; /* acct, mbox */

/* ---- keys ---- */

void tb_key_begin(struct tb_key *k)
{
    k->len = 0;
}

void tb_key_bytes(struct tb_key *k, struct tb_slice s)
{
    size_t n = s.len < TB_KEY_MAX - k->len ? s.len : TB_KEY_MAX - k->len;
    if (n > 0)
        memcpy(k->bytes + k->len, s.ptr, n);
    k->len += n;
}

void tb_key_u16(struct tb_key *k, uint16_t v)
{
    tb_put_be16(k->bytes + k->len, v);
    k->len += 2;
}

void tb_key_u32(struct tb_key *k, uint32_t v)
{
    tb_put_be32(k->bytes + k->len, v);
    k->len += 4;
}

void tb_key_u64(struct tb_key *k, uint64_t v)
{
    tb_put_be64(k->bytes + k->len, v);
    k->len += 8;
}

static struct tb_key block_key(uint32_t acct, uint32_t mbox, uint32_t uid)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    tb_key_u32(&k, uid);
    return k;
}

/* ---- blocks in general ---- */

struct block {
    struct tb_key key;
    size_t len, was; /* was: bytes when it was loaded, 0: a new one */
    uint8_t bytes[TB_VALUE_MAX];
};

static void block_load(struct block *b, struct tb_slice key, struct tb_slice value)
{
    tb_key_begin(&b->key);
    tb_key_bytes(&b->key, key);
    b->len = b->was = value.len < TB_VALUE_MAX ? value.len : TB_VALUE_MAX;
    memcpy(b->bytes, value.ptr, b->len);
}

/* in_leaf: does LMDB keep such a value in the leaf (with an 8-byte head, at most half a page), or on a page of its own?
 */
static bool in_leaf(const struct block *b, size_t len)
{
    enum { NODE_HEAD = 8, CHECKSUM = 4, NODE_MAX = 2038 };
    return NODE_HEAD + b->key.len + len + CHECKSUM <= NODE_MAX;
}

/*
 * block_store: put the block back. A value that grows out of its leaf is deleted first: only a deletion makes LMDB
 * merge leaves, and without it every block would leave an almost empty one behind (measured: 9 % of the index).
 */
static void block_store(struct tb_index *ix, enum tb_db db, const struct block *b)
{
    if (b->was > 0 && in_leaf(b, b->was) && !in_leaf(b, b->len))
        tb_index_del(ix, db, tb_key_slice(&b->key));
    tb_index_put(ix, db, tb_key_slice(&b->key), tb_slice(b->bytes, b->len));
}

/* block_holding: the block that holds uid if any does: the last with first uid <= uid. */
static bool block_holding(struct tb_index *ix, enum tb_db db, uint32_t acct, uint32_t mbox, uint32_t uid,
                          struct tb_slice *k, struct tb_slice *v)
{
    struct tb_key key = block_key(acct, mbox, uid);
    return tb_index_le(ix, db, tb_key_slice(&key), PREFIX, k, v);
}

/* head_of: a block's head; zeros if the value is too short to have one: nothing is in it then. */
static struct tb_disk_block head_of(struct tb_slice v)
{
    struct tb_disk_block h = {0};
    if (v.len >= sizeof(h))
        memcpy(&h, v.ptr, sizeof(h));
    return h;
}

/* block_from: the first block that may hold a UID >= uid. */
static bool block_from(struct tb_index *ix, enum tb_db db, uint32_t acct, uint32_t mbox, uint32_t uid,
                       struct tb_slice *k, struct tb_slice *v)
{
    if (block_holding(ix, db, acct, mbox, uid, k, v) && head_of(*v).last_uid >= uid)
        return true;
    struct tb_key key = block_key(acct, mbox, uid);
    return tb_index_ge(ix, db, tb_key_slice(&key), PREFIX, k, v);
}

/* ---- rows ---- */

static unsigned rows_in(struct tb_slice v)
{
    struct tb_disk_block h;
    if (v.len < sizeof(h))
        return 0;
    memcpy(&h, v.ptr, sizeof(h));
    size_t room = (v.len - sizeof(h)) / sizeof(struct tb_disk_row);
    return h.n < room ? h.n : (unsigned)room;
}

static void row_at(const void *block, unsigned i, struct tb_disk_row *out)
{
    memcpy(out, (const char *)block + sizeof(struct tb_disk_block) + i * sizeof(*out), sizeof(*out));
}

static uint32_t row_uid(const char *block, unsigned i)
{
    return tb_get_le32(block + sizeof(struct tb_disk_block) + i * sizeof(struct tb_disk_row));
}

/* row_ceil: index of the first row with UID >= uid. */
static unsigned row_ceil(struct tb_slice v, uint32_t uid)
{
    unsigned lo = 0, hi = rows_in(v);
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (row_uid(v.ptr, mid) < uid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void tb_rows_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_row *row)
{
    struct tb_slice k, v;
    struct block b;
    unsigned n = 0;
    if (block_holding(ix, TB_DB_MSG, acct, mbox, UINT32_MAX, &k, &v) && v.len >= sizeof(struct tb_disk_block) &&
        (n = rows_in(v)) < TB_ROWS_PER_BLOCK) {
        block_load(&b, k, v);
    } else {
        n = 0;
        b.key = block_key(acct, mbox, row->uid);
        b.was = 0;
        memset(b.bytes, 0, sizeof(struct tb_disk_block));
    }
    struct tb_disk_block h;
    memcpy(&h, b.bytes, sizeof(h));
    h.n = (uint16_t)(n + 1);
    h.last_uid = row->uid;
    if (row->modseq > h.modseq_max)
        h.modseq_max = row->modseq;
    memcpy(b.bytes, &h, sizeof(h));
    memcpy(b.bytes + sizeof(h) + n * sizeof(*row), row, sizeof(*row));
    b.len = sizeof(h) + (n + 1) * sizeof(*row);
    block_store(ix, TB_DB_MSG, &b);
}

bool tb_rows_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t uid, struct tb_disk_row *out)
{
    struct tb_slice k, v;
    if (!block_holding(ix, TB_DB_MSG, acct, mbox, uid, &k, &v))
        return false;
    unsigned i = row_ceil(v, uid);
    if (i >= rows_in(v) || row_uid(v.ptr, i) != uid)
        return false;
    row_at(v.ptr, i, out);
    return true;
}

size_t tb_rows_scan(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t from, struct tb_disk_row *out,
                    size_t max)
{
    struct tb_slice k, v;
    size_t n = 0;
    bool more = block_from(ix, TB_DB_MSG, acct, mbox, from, &k, &v);
    for (; more && n < max; more = tb_index_next(ix, TB_DB_MSG, PREFIX, &k, &v)) {
        unsigned i = row_ceil(v, from), rows = rows_in(v);
        size_t take = rows - i < max - n ? rows - i : max - n;
        memcpy(out + n, v.ptr + sizeof(struct tb_disk_block) + i * sizeof(*out), take * sizeof(*out));
        n += take;
    }
    return n;
}

uint32_t tb_rows_uids(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t from, uint32_t *end, uint32_t max,
                      struct tb_uidset *set)
{
    struct tb_slice k, v;
    uint32_t n = 0;
    bool more = block_from(ix, TB_DB_MSG, acct, mbox, from, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_MSG, PREFIX, &k, &v)) {
        unsigned i = row_ceil(v, from), rows = rows_in(v);
        if (i == rows)
            continue;
        uint32_t first = row_uid(v.ptr, i), last = row_uid(v.ptr, rows - 1);
        if (n >= max) {
            *end = first < *end ? first : *end;
            return n;
        }
        bool dense = last >= first && last < *end && last - first == rows - 1 - i;
        if (dense) {
            tb_uidset_add(set, first, last);
            n += rows - i;
        }
        for (; !dense && i < rows && row_uid(v.ptr, i) < *end; i++) {
            uint32_t uid = row_uid(v.ptr, i);
            if (uid < from) /* damaged: never in order */
                continue;
            tb_uidset_add(set, uid, uid);
            n++;
        }
        if (last >= *end)
            break;
    }
    return n;
}

uint32_t tb_rows_newer(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t since)
{
    struct tb_slice k, v;
    uint32_t newer = UINT32_MAX, below = UINT32_MAX;
    while (block_holding(ix, TB_DB_MSG, acct, mbox, below, &k, &v)) {
        for (unsigned i = rows_in(v); i-- > 0;) {
            struct tb_disk_row row;
            row_at(v.ptr, i, &row);
            if (row.modseq <= since)
                return newer;
            newer = row.uid;
        }
        uint32_t first = tb_get_be32(k.ptr + PREFIX);
        if (first == 0)
            break;
        below = first - 1;
    }
    return newer;
}

/* edit_block: one block against the ranges from *r on; returns whether it changed. */
static bool edit_block(struct block *b, const struct tb_range *ranges, size_t n, size_t *r,
                       enum tb_edit (*fn)(void *user, struct tb_disk_row *row), void *user)
{
    bool changed = false;
    unsigned rows = rows_in(tb_slice(b->bytes, b->len)), kept = 0;
    struct tb_disk_block h;
    memcpy(&h, b->bytes, sizeof(h));
    for (unsigned i = 0; i < rows; i++) {
        struct tb_disk_row row;
        row_at(b->bytes, i, &row);
        while (*r < n && ranges[*r].last < row.uid)
            ++*r;
        enum tb_edit e = *r < n && ranges[*r].first <= row.uid ? fn(user, &row) : TB_EDIT_KEEP;
        changed |= e != TB_EDIT_KEEP;
        if (e == TB_EDIT_REMOVE)
            continue;
        if (e == TB_EDIT_CHANGED && row.modseq > h.modseq_max)
            h.modseq_max = row.modseq;
        memcpy(b->bytes + sizeof(h) + kept++ * sizeof(row), &row, sizeof(row));
    }
    h.n = (uint16_t)kept;
    if (kept > 0)
        h.last_uid = row_uid((const char *)b->bytes, kept - 1);
    memcpy(b->bytes, &h, sizeof(h));
    b->len = sizeof(h) + kept * sizeof(struct tb_disk_row);
    return changed;
}

void tb_rows_edit(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_range *ranges, size_t n,
                  enum tb_edit (*fn)(void *user, struct tb_disk_row *row), void *user)
{
    struct tb_slice k, v;
    struct block b;
    size_t r = 0;
    uint32_t from = n > 0 ? ranges[0].first : 0;
    while (r < n && block_from(ix, TB_DB_MSG, acct, mbox, from, &k, &v)) {
        struct tb_disk_block h = head_of(v);
        uint32_t last = h.last_uid;
        if (last < from)
            return; /* it contradicts its key: going on would go back */
        block_load(&b, k, v);
        if (edit_block(&b, ranges, n, &r, fn, user)) {
            memcpy(&h, b.bytes, sizeof(h));
            if (h.n == 0)
                tb_index_del(ix, TB_DB_MSG, tb_key_slice(&b.key));
            else
                block_store(ix, TB_DB_MSG, &b);
        }
        if (last == UINT32_MAX)
            return;
        while (r < n && ranges[r].last <= last)
            r++;
        from = r < n && ranges[r].first > last ? ranges[r].first : last + 1;
    }
}

/* ---- cached envelopes ---- */

/* cache_next: the entry at *at; false at the end. */
static bool cache_next(struct tb_slice v, size_t *at, struct tb_disk_cache *head, struct tb_slice *data)
{
    if (*at + sizeof(*head) > v.len)
        return false;
    memcpy(head, v.ptr + *at, sizeof(*head));
    if (head->clen > v.len - *at - sizeof(*head))
        return false;
    *data = tb_slice(v.ptr + *at + sizeof(*head), head->clen);
    *at += sizeof(*head) + head->clen;
    return true;
}

void tb_cache_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_disk_cache *head,
                     const void *data)
{
    struct tb_slice k, v;
    struct block b;
    size_t need = sizeof(*head) + head->clen;
    if (block_holding(ix, TB_DB_CACHE, acct, mbox, UINT32_MAX, &k, &v) && v.len >= sizeof(struct tb_disk_block) &&
        v.len + need <= TB_VALUE_MAX) {
        block_load(&b, k, v);
    } else {
        b.key = block_key(acct, mbox, head->uid);
        b.was = 0;
        b.len = sizeof(struct tb_disk_block);
        memset(b.bytes, 0, b.len);
    }
    struct tb_disk_block h;
    memcpy(&h, b.bytes, sizeof(h));
    h.n++;
    h.last_uid = head->uid;
    memcpy(b.bytes, &h, sizeof(h));
    memcpy(b.bytes + b.len, head, sizeof(*head));
    memcpy(b.bytes + b.len + sizeof(*head), data, head->clen);
    b.len += need;
    block_store(ix, TB_DB_CACHE, &b);
}

bool tb_cache_get(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint32_t uid, struct tb_disk_cache *head,
                  struct tb_slice *data)
{
    struct tb_slice k, v;
    if (!block_holding(ix, TB_DB_CACHE, acct, mbox, uid, &k, &v))
        return false;
    for (size_t at = sizeof(struct tb_disk_block); cache_next(v, &at, head, data);)
        if (head->uid >= uid)
            return head->uid == uid;
    return false;
}

static bool in_ranges(const struct tb_range *ranges, size_t n, uint32_t uid)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (ranges[mid].last < uid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && ranges[lo].first <= uid;
}

/* cache_strip: the block without the entries in ranges; returns whether any went. */
static bool cache_strip(struct block *b, const struct tb_range *ranges, size_t n, struct tb_slice v)
{
    struct tb_disk_block h;
    memcpy(&h, b->bytes, sizeof(h));
    struct tb_disk_cache head;
    struct tb_slice data;
    uint16_t before = h.n;
    h.n = 0;
    b->len = sizeof(h);
    for (size_t at = sizeof(h); cache_next(v, &at, &head, &data);) {
        if (in_ranges(ranges, n, head.uid))
            continue;
        memcpy(b->bytes + b->len, &head, sizeof(head));
        memcpy(b->bytes + b->len + sizeof(head), data.ptr, data.len);
        b->len += sizeof(head) + data.len;
        h.n++;
    }
    memcpy(b->bytes, &h, sizeof(h));
    return h.n != before;
}

void tb_cache_remove(struct tb_index *ix, uint32_t acct, uint32_t mbox, const struct tb_range *ranges, size_t n)
{
    struct tb_slice k, v;
    struct block b;
    char copy[TB_VALUE_MAX];
    size_t r = 0;
    uint32_t from = n > 0 ? ranges[0].first : 0;
    while (r < n && block_from(ix, TB_DB_CACHE, acct, mbox, from, &k, &v)) {
        struct tb_disk_block h = head_of(v);
        uint32_t last = h.last_uid;
        if (last < from)
            return; /* as in tb_rows_edit */
        block_load(&b, k, v);
        memcpy(copy, b.bytes, b.len);
        if (cache_strip(&b, ranges, n, tb_slice(copy, b.len))) {
            memcpy(&h, b.bytes, sizeof(h));
            if (h.n == 0)
                tb_index_del(ix, TB_DB_CACHE, tb_key_slice(&b.key));
            else
                block_store(ix, TB_DB_CACHE, &b);
        }
        if (last == UINT32_MAX)
            return;
        while (r < n && ranges[r].last <= last)
            r++;
        from = r < n && ranges[r].first > last ? ranges[r].first : last + 1;
    }
}

/* ---- changes ---- */

static struct tb_key chg_key(uint32_t acct, uint32_t mbox, uint64_t modseq)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u32(&k, acct);
    tb_key_u32(&k, mbox);
    tb_key_u64(&k, modseq);
    return k;
}

void tb_chg_append(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t modseq, uint8_t kind,
                   const struct tb_range *ranges, size_t n)
{
    enum { ENTRY_MAX = 10 + 1 + 5 + 5 };
    struct tb_slice k, v;
    struct block b;
    bool have = false, dirty = false;
    for (size_t i = 0; i < n; i++) {
        if (!have) {
            struct tb_key top = chg_key(acct, mbox, UINT64_MAX);
            have = tb_index_le(ix, TB_DB_CHG, tb_key_slice(&top), PREFIX, &k, &v) &&
                   v.len >= sizeof(struct tb_disk_chg);
            if (have)
                block_load(&b, k, v);
        }
        struct tb_disk_chg h = {modseq};
        if (!have || b.len + ENTRY_MAX > TB_VALUE_MAX) {
            if (dirty)
                block_store(ix, TB_DB_CHG, &b);
            /* a key must be new: a block that begins in the middle of one modseq is keyed by it only once */
            b.key = chg_key(acct, mbox, modseq);
            tb_key_u16(&b.key, (uint16_t)i);
            b.was = 0;
            b.len = sizeof(h);
            have = true;
        } else {
            memcpy(&h, b.bytes, sizeof(h));
        }
        b.len += tb_put_varint(b.bytes + b.len, modseq - h.last_modseq);
        b.bytes[b.len++] = kind;
        b.len += tb_put_varint(b.bytes + b.len, ranges[i].first);
        b.len += tb_put_varint(b.bytes + b.len, ranges[i].last - ranges[i].first);
        h.last_modseq = modseq;
        memcpy(b.bytes, &h, sizeof(h));
        dirty = true;
    }
    if (dirty)
        block_store(ix, TB_DB_CHG, &b);
}

void tb_chg_scan(struct tb_index *ix, uint32_t acct, uint32_t mbox, uint64_t since,
                 bool (*fn)(void *user, uint64_t modseq, uint8_t kind, struct tb_range range), void *user)
{
    struct tb_key key = chg_key(acct, mbox, since);
    struct tb_slice k, v;
    bool more = tb_index_le(ix, TB_DB_CHG, tb_key_slice(&key), PREFIX, &k, &v) ||
                tb_index_ge(ix, TB_DB_CHG, tb_key_slice(&key), PREFIX, &k, &v);
    for (; more; more = tb_index_next(ix, TB_DB_CHG, PREFIX, &k, &v)) {
        if (k.len < 16 || v.len < sizeof(struct tb_disk_chg))
            return;
        uint64_t modseq = tb_get_be64(k.ptr + 8);
        struct tb_slice rest = tb_slice(v.ptr + sizeof(struct tb_disk_chg), v.len - sizeof(struct tb_disk_chg));
        while (rest.len > 0) {
            uint64_t delta, first, more_uids;
            if (!tb_get_varint(&rest, &delta) || rest.len == 0)
                return;
            uint8_t kind = (uint8_t)*rest.ptr++;
            rest.len--;
            if (!tb_get_varint(&rest, &first) || !tb_get_varint(&rest, &more_uids) || first > UINT32_MAX ||
                more_uids > UINT32_MAX - first)
                return;
            modseq += delta;
            if (modseq > since && kind != TB_CHG_DAY &&
                !fn(user, modseq, kind, (struct tb_range){(uint32_t)first, (uint32_t)(first + more_uids)}))
                return;
        }
    }
}

void tb_blocks_drop(struct tb_index *ix, enum tb_db db, uint32_t acct, uint32_t mbox)
{
    struct tb_key key;
    struct tb_slice k, v;
    tb_key_begin(&key);
    tb_key_u32(&key, acct);
    tb_key_u32(&key, mbox);
    while (tb_index_ge(ix, db, tb_key_slice(&key), PREFIX, &k, &v)) {
        struct tb_key found;
        tb_key_begin(&found);
        tb_key_bytes(&found, k);
        tb_index_del(ix, db, tb_key_slice(&found));
    }
}
