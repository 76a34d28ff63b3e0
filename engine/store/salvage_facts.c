/*
 * salvage_facts.c: see salvage.h. What damaged indexes still say (names, UIDVALIDITY, places: values with a right
 * checksum, read page by page) and what MOVED records say of messages.
 *
 * A value may be from an older checkpoint than the last. What is taken from it does not change in the life of its key
 * (UIDVALIDITY, MAILBOXID, an account's name), or is only a better guess than none (a mailbox's name and parent).
 * Thread: the caller's.
 */
#include "engine/store/salvage.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/store/compact.h"

/* ---- facts ---- */

struct reading {
    struct tb_salvage *g;
    uint32_t shard;
    int fd;
    bool confirmed; /* the checkpoint's snapshot: it says how messages were at index_at */
};

static int64_t read_file(void *user, void *buf, size_t len, uint64_t offset)
{
    struct reading *r = user;
    return tb_io_pread(r->g->io, r->fd, buf, len, offset);
}

static void no_matter(void *user, enum tb_db db, const char *what)
{
    (void)user;
    (void)db;
    (void)what;
}

/* note_block: a block of messages. */
static void note_block(struct tb_salvage *g, struct tb_slice key, struct tb_slice value)
{
    struct tb_disk_block head;
    if (key.len < 12 || value.len < sizeof(head))
        return;
    memcpy(&head, value.ptr, sizeof(head));
    for (size_t i = 0; i < head.n && sizeof(head) + (i + 1) * sizeof(struct tb_disk_row) <= value.len; i++) {
        struct tb_salvage_row *to = tb_vec_add(&g->rows, sizeof(*to));
        if (to == NULL) {
            g->no_memory = true;
            return;
        }
        to->acct = tb_get_be32(key.ptr);
        to->mbox = tb_get_be32(key.ptr + 4);
        to->indexed = true;
        memcpy(&to->row, value.ptr + sizeof(head) + i * sizeof(to->row), sizeof(to->row));
    }
}

static void note_state(struct tb_salvage *g, struct tb_slice value)
{
    struct tb_disk_state st;
    if (value.len < sizeof(st))
        return;
    memcpy(&st, value.ptr, sizeof(st));
    if (st.next_blob > g->x.state.next_blob)
        g->x.state.next_blob = st.next_blob;
    if (st.next_acct > g->x.state.next_acct)
        g->x.state.next_acct = st.next_acct;
    if (st.uidvalidity_max > g->uidvalidity)
        g->uidvalidity = st.uidvalidity_max;
}

static void note_fact(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    struct reading *r = user;
    struct tb_salvage *g = r->g;
    bool own = r->shard == g->cfg->shard;
    if (db == TB_DB_STATE && own)
        note_state(g, value);
    if (db == TB_DB_MSG && own && r->confirmed)
        note_block(g, key, value);
    bool mailboxes = db == TB_DB_MBOX || (db == TB_DB_KEYWORD && r->confirmed);
    if (!(db == TB_DB_ACCT || db == TB_DB_PLACE || (mailboxes && own)) || key.len < 4)
        return;
    struct tb_salvage_fact *f = tb_vec_add(&g->facts, sizeof(*f));
    if (f == NULL) {
        g->no_memory = true;
        return;
    }
    uint64_t low = key.len >= 8 ? tb_get_be32(key.ptr + 4) : 0;
    *f = (struct tb_salvage_fact){.db = db,
                                  .shard = r->shard,
                                  .key = (uint64_t)tb_get_be32(key.ptr) << 32 | low,
                                  .bit = key.len == 10 ? tb_get_be16(key.ptr + 8) : 0,
                                  .at = g->texts.len,
                                  .len = (uint32_t)value.len};
    tb_buf_slice(&g->texts, value);
    struct tb_disk_mbox m;
    if (db == TB_DB_MBOX && value.len >= sizeof(m)) {
        memcpy(&m, value.ptr, sizeof(m));
        g->uidvalidity = m.uidvalidity > g->uidvalidity ? m.uidvalidity : g->uidvalidity;
    }
}

/* read_index: from the checkpoint's meta body, and from the two that the file has. */
static void read_index(struct tb_salvage *g, uint32_t shard)
{
    enum { PAGE = 4096, META_LEAD = 16 };
    char dir[TB_PATH], path[TB_INDEX_PATH];
    uint8_t meta[3][TB_META_BYTES], block[TB_BLOCK];
    struct tb_disk_ckpt ckpt = {0};
    struct tb_error why;
    (void)snprintf(dir, sizeof(dir), "%.900s/shard-%02x", g->dir, shard);
    (void)snprintf(path, sizeof(path), "%.990s/CKPT", dir);
    if (tb_slot_read(g->io, path, tb_ckpt_check, block, &why) == TB_OK)
        memcpy(&ckpt, block, sizeof(ckpt));
    if (shard == g->cfg->shard)
        g->index_at = ckpt.applied;
    tb_index_place(g->io, dir, &ckpt, path);
    struct reading r = {.g = g, .shard = shard, .fd = tb_io_file_open(g->io, path, TB_OPEN_READ)};
    struct tb_walk_config cfg = {.user = &r, .read = read_file, .entry = note_fact, .damage = no_matter};
    if (r.fd < 0)
        return;
    memcpy(meta[0], ckpt.meta, TB_META_BYTES);
    for (uint64_t i = 0; i < 2; i++)
        if (tb_io_pread(g->io, r.fd, meta[i + 1], TB_META_BYTES, i * PAGE + META_LEAD) != TB_META_BYTES)
            memset(meta[i + 1], 0, TB_META_BYTES);
    for (size_t i = 0; i < TB_ARRAY_LEN(meta); i++) {
        r.confirmed = i == 0;
        struct tb_walk *w = tb_walk_new(&cfg, meta[i]);
        while (w != NULL && tb_walk_step(w, 4096))
            ;
        tb_walk_free(w);
    }
    (void)tb_io_file_close(g->io, r.fd); /* read only */
}

void tb_salvage_facts(struct tb_salvage *g)
{
    tb_buf_init(&g->texts, SIZE_MAX / 2);
    for (uint32_t i = 0; i < g->shards; i++)
        read_index(g, i);
    g->no_memory |= g->texts.failed;
}

/* ---- what MOVED records tell ---- */

static void note_rows(struct tb_salvage *g, const struct tb_pay_moved *p, struct tb_slice rows)
{
    for (uint32_t i = 0; i < p->rows; i++) {
        struct tb_moved_row m;
        struct tb_slice name;
        if (!tb_moved_row_decode(&rows, &m))
            return;
        for (uint32_t k = 0; k < m.keywords_n; k++)
            if (!tb_moved_keyword(&rows, &name))
                return;
        struct tb_salvage_row *to = tb_vec_add(&g->rows, sizeof(*to));
        if (to == NULL) {
            g->no_memory = true;
            return;
        }
        *to = (struct tb_salvage_row){.acct = m.acct, .mbox = m.mbox, .row = m.row};
        to->row.blob = p->blob;
    }
}

static void note_moved(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_moved p;
    struct tb_slice rest = r->payload;
    if (r->flags & TB_MOVED_PIECE || !tb_moved_decode(&rest, r->flags, &p) ||
        p.pieces > rest.len / sizeof(struct tb_disk_piece))
        return;
    size_t list = p.pieces * sizeof(struct tb_disk_piece), moved = (size_t)p.head.clen + p.own.clen;
    if (p.rows_len > rest.len - list || rest.len - list - p.rows_len != moved)
        return;
    struct tb_salvage_blob *b = tb_vec_add(&g->blobs, sizeof(*b));
    if (b == NULL) {
        g->no_memory = true;
        return;
    }
    *b = (struct tb_salvage_blob){.blob = p.blob,
                                  .body = p.body,
                                  .order = g->blobs.n,
                                  .head = p.head,
                                  .own = p.own,
                                  .own_there = p.own_from != 0,
                                  .pieces = p.pieces,
                                  .list = g->lists.n};
    b->head.lsn = r->lsn + (r->payload.len - moved);
    b->own.lsn = b->head.lsn + p.head.clen;
    for (uint32_t i = 0; i < p.pieces; i++) {
        struct tb_disk_piece *to = tb_vec_add(&g->lists, sizeof(*to));
        g->no_memory |= to == NULL;
        if (to != NULL)
            memcpy(to, rest.ptr + i * sizeof(*to), sizeof(*to));
    }
    note_rows(g, &p, tb_slice_sub(rest, list, p.rows_len));
}

enum tb_rc tb_salvage_told(void *user, const struct tb_record *r)
{
    struct tb_salvage *g = user;
    struct tb_pay_mbox m;
    g->acct_max = r->acct > g->acct_max ? r->acct : g->acct_max;
    if (r->type == TB_REC_MOVED)
        note_moved(g, r);
    if (r->type == TB_REC_MBOX && r->payload.len >= sizeof(m)) {
        memcpy(&m, r->payload.ptr, sizeof(m));
        g->uidvalidity = m.uidvalidity > g->uidvalidity ? m.uidvalidity : g->uidvalidity;
    }
    return g->no_memory ? TB_LIMIT : TB_OK;
}

/* ---- finding ---- */

static int order_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_message(const void *a, const void *b)
{
    const struct tb_salvage_row *x = a, *y = b;
    int c = order_u64((uint64_t)x->acct << 32 | x->mbox, (uint64_t)y->acct << 32 | y->mbox);
    return c != 0 ? c : order_u64(x->row.uid, y->row.uid);
}

static int by_blob(const void *a, const void *b)
{
    const struct tb_salvage_blob *x = a, *y = b;
    int c = order_u64(x->blob, y->blob);
    return c != 0 ? c : order_u64(x->order, y->order);
}

static int by_key(const void *a, const void *b)
{
    const struct tb_salvage_fact *x = a, *y = b;
    int c = order_u64((uint64_t)x->db << 32 | x->shard, (uint64_t)y->db << 32 | y->shard);
    c = c != 0 ? c : order_u64(x->key, y->key);
    return c != 0 ? c : order_u64(x->at, y->at); /* the checkpoint's comes first */
}

void tb_salvage_sort(struct tb_salvage *g)
{
    struct tb_vec *v[] = {&g->rows, &g->blobs, &g->facts};
    int (*const order[])(const void *, const void *) = {by_message, by_blob, by_key};
    for (size_t i = 0; i < TB_ARRAY_LEN(v); i++)
        if (v[i]->n > 1)
            qsort(v[i]->v, v[i]->n, v[i]->size, order[i]);
}

/* lower: the first element that is not below want. */
static size_t lower(const struct tb_vec *v, const void *want, int (*order)(const void *, const void *))
{
    size_t lo = 0, hi = v->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (order((const char *)v->v + mid * v->size, want) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct tb_salvage_fact *tb_salvage_fact(const struct tb_salvage *g, enum tb_db db, uint64_t key,
                                              struct tb_slice *value)
{
    struct tb_salvage_fact want = {.db = db, .shard = db == TB_DB_PLACE ? 0 : g->cfg->shard, .key = key};
    const struct tb_salvage_fact *f = g->facts.v;
    size_t i = lower(&g->facts, &want, by_key);
    if (i == g->facts.n || f[i].db != db || f[i].shard != want.shard || f[i].key != key)
        return NULL;
    *value = tb_slice_sub(tb_buf_all(&g->texts), f[i].at, f[i].len);
    return &f[i];
}

const struct tb_salvage_row *tb_salvage_row_at(const struct tb_salvage *g, uint32_t acct, uint32_t mbox, uint32_t uid)
{
    struct tb_salvage_row want = {.acct = acct, .mbox = mbox, .row = {.uid = uid}};
    const struct tb_salvage_row *v = g->rows.v;
    size_t i = lower(&g->rows, &want, by_message);
    return i < g->rows.n && v[i].acct == acct && v[i].mbox == mbox ? &v[i] : NULL;
}

const struct tb_salvage_blob *tb_salvage_blob(const struct tb_salvage *g, uint64_t blob)
{
    struct tb_salvage_blob want = {.blob = blob, .order = UINT64_MAX};
    const struct tb_salvage_blob *v = g->blobs.v;
    size_t i = lower(&g->blobs, &want, by_blob);
    return i > 0 && v[i - 1].blob == blob ? &v[i - 1] : NULL;
}
