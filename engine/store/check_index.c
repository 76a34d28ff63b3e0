/*
 * check_index.c: the entries of an index, one by one, into a model of the shard; and then what in that model
 * contradicts what.
 *
 * Every entry passed its checksum, so what is found here was written wrong or has been forged: nothing may rely on it.
 * Thread: the checker's.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/store/check.h"

enum { OBJECT = 96 };
static const char recount[] = "run `tambo check --repair`";
static const char rebuild[] = "run `tambo rebuild-index`";

/* ---- vectors ---- */

void *tb_vec_add(struct tb_vec *v, size_t size)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 256;
        void *grown = reallocarray(v->v, cap, size);
        if (grown == NULL)
            return NULL;
        v->v = grown;
        v->cap = cap;
        v->size = size;
    }
    void *at = (char *)v->v + v->n++ * size;
    memset(at, 0, size);
    return at;
}

static void *add(struct tb_check_shard *c, struct tb_vec *v, size_t size)
{
    void *p = tb_vec_add(v, size);
    if (p == NULL)
        c->no_memory = true;
    return p;
}

/* find: the element whose first field, of 4 or 8 bytes (two of 4 count as one), equals key; they ascend. */
static void *find(const struct tb_vec *v, uint64_t key, uint64_t (*key_of)(const void *))
{
    size_t lo = 0, hi = v->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        uint64_t k = key_of((const char *)v->v + mid * v->size);
        if (k == key)
            return (char *)v->v + mid * v->size;
        if (k < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static uint64_t key_of_acct(const void *p)
{
    return ((const struct check_acct *)p)->acct;
}
static uint64_t key_of_mbox(const void *p)
{
    const struct check_mbox *m = p;
    return (uint64_t)m->acct << 32 | m->mbox;
}
static uint64_t key_of_blob(const void *p)
{
    return ((const struct check_blob *)p)->blob;
}
static uint64_t key_of_body(const void *p)
{
    return ((const struct check_body *)p)->body;
}
static uint64_t key_of_seg(const void *p)
{
    return ((const struct check_seg *)p)->segment;
}

static struct check_acct *acct_of(struct tb_check_shard *c, uint32_t acct)
{
    return find(&c->acct, acct, key_of_acct);
}
static struct check_mbox *mbox_of(struct tb_check_shard *c, uint32_t acct, uint32_t mbox)
{
    return find(&c->mbox, (uint64_t)acct << 32 | mbox, key_of_mbox);
}
struct check_blob *tb_check_blob(struct tb_check_shard *c, uint64_t blob)
{
    return find(&c->blob, blob, key_of_blob);
}

/* ---- findings ---- */

void tb_check_say(struct tb_check_shard *c, bool damage, const char *object, const char *what, const char *next)
{
    struct tb_finding f = {.damage = damage, .shard = c->shard, .object = object, .what = what, .next = next};
    if (damage)
        c->stat->damage++;
    else
        c->stat->notes++;
    if (c->opt->found != NULL)
        c->opt->found(c->opt->user, &f);
}

void tb_check_sayf(struct tb_check_shard *c, bool damage, const char *next, const char *object, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c->text, sizeof(c->text), fmt, ap);
    va_end(ap);
    tb_check_say(c, damage, object, c->text, next);
}

static const char *named(char out[OBJECT], const char *fmt, ...) TB_PRINTF(2, 3);
static const char *named(char out[OBJECT], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(out, OBJECT, fmt, ap);
    va_end(ap);
    return out;
}

static void malformed(struct tb_check_shard *c, enum tb_db db, const char *what)
{
    char object[OBJECT];
    tb_check_say(c, true, named(object, "an entry of database %s", tb_index_db_name(db)), what, rebuild);
}

/* ---- entries ---- */

static uint64_t name_hash(struct tb_slice name)
{
    static const uint8_t key[16] = {0}; /* nobody can gain by a collision: a missed finding in a forged index */
    return tb_siphash(key, name.ptr, name.len);
}

static void entry_acct(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct check_acct *a;
    if (k.len != 4 || v.len < sizeof(a->row))
        malformed(c, TB_DB_ACCT, "it has a wrong size");
    else if ((a = add(c, &c->acct, sizeof(*a))) != NULL) {
        a->acct = tb_get_be32(k.ptr);
        memcpy(&a->row, v.ptr, sizeof(a->row));
        c->stat->accounts++;
    }
}

static void entry_mbox(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct check_mbox *m;
    if (k.len != 8 || v.len < sizeof(m->row) || v.len - sizeof(m->row) > TB_MBOX_LEAF_MAX)
        malformed(c, TB_DB_MBOX, "it has a wrong size");
    else if ((m = add(c, &c->mbox, sizeof(*m))) != NULL) {
        m->acct = tb_get_be32(k.ptr);
        m->mbox = tb_get_be32(k.ptr + 4);
        memcpy(&m->row, v.ptr, sizeof(m->row));
        m->leaf = name_hash(tb_slice(v.ptr + sizeof(m->row), v.len - sizeof(m->row)));
        c->stat->mailboxes++;
    }
}

static void entry_tree(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    char object[OBJECT];
    if (k.len < 8 || v.len != 4) {
        malformed(c, TB_DB_TREE, "it has a wrong size");
        return;
    }
    uint32_t acct = tb_get_be32(k.ptr), parent = tb_get_be32(k.ptr + 4), mbox = tb_get_le32(v.ptr);
    struct check_mbox *m = mbox_of(c, acct, mbox);
    (void)named(object, "the name of mailbox %u of account %u", mbox, acct);
    if (m == NULL)
        tb_check_say(c, true, object, "there is no such mailbox", rebuild);
    else if (m->in_tree)
        tb_check_say(c, true, object, "the mailbox has two names", rebuild);
    else if (m->row.parent != parent || m->leaf != name_hash(tb_slice(k.ptr + 8, k.len - 8)))
        tb_check_say(c, true, object, "the mailbox's own row says another name", rebuild);
    if (m != NULL)
        m->in_tree = true;
    if (parent != 0 && mbox_of(c, acct, parent) == NULL)
        tb_check_say(c, true, object, "the mailbox above it is missing", rebuild);
}

/* reference: a row names a stored message; false: it is missing. */
static bool reference(struct tb_check_shard *c, const struct tb_disk_row *row, const char *object)
{
    struct check_blob *b = tb_check_blob(c, row->blob);
    if (b == NULL)
        tb_check_sayf(c, true, recount, object, "its stored message %llu is missing", (unsigned long long)row->blob);
    else
        b->counted++;
    return b != NULL;
}

static void row_seen(struct tb_check_shard *c, struct check_mbox *m, const struct tb_disk_row *row)
{
    char object[OBJECT];
    uint32_t *uid = add(c, &c->uid, sizeof(*uid));
    (void)named(object, "message %u of mailbox %u of account %u", row->uid, m->mbox, m->acct);
    if (uid != NULL)
        *uid = row->uid;
    m->uid_n++;
    if (m->row.staged != 0 && row->uid >= m->row.uidnext) { /* of a COPY that is not complete */
        reference(c, row, object);
        return;
    }
    if (row->uid <= m->uid_max)
        tb_check_say(c, true, object, "it comes after a higher UID", rebuild);
    m->uid_max = row->uid > m->uid_max ? row->uid : m->uid_max;
    m->modseq = row->modseq > m->modseq ? row->modseq : m->modseq;
    m->messages++;
    m->unseen += !(row->flags & TB_FLAG_SEEN);
    m->deleted += (row->flags & TB_FLAG_DELETED) != 0;
    m->bytes += row->size;
    c->stat->messages++;
    if (!reference(c, row, object)) {
        struct check_row *d = add(c, &c->dangling, sizeof(*d));
        if (d != NULL)
            *d = (struct check_row){m->acct, m->mbox, row->uid};
    }
}

static void entry_msg(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_block h;
    struct tb_disk_row row;
    if (k.len != 12 || v.len < sizeof(h)) {
        malformed(c, TB_DB_MSG, "it has a wrong size");
        return;
    }
    memcpy(&h, v.ptr, sizeof(h));
    struct check_mbox *m = mbox_of(c, tb_get_be32(k.ptr), tb_get_be32(k.ptr + 4));
    uint32_t first = tb_get_be32(k.ptr + 8);
    if (m == NULL || h.n == 0 || v.len != sizeof(h) + h.n * sizeof(row)) {
        malformed(c, TB_DB_MSG, m == NULL ? "its mailbox is missing" : "it does not hold the rows it counts");
        return;
    }
    if (m->uid_n == 0)
        m->uid_at = c->uid.n;
    uint64_t modseq = 0;
    for (unsigned i = 0; i < h.n; i++) {
        memcpy(&row, v.ptr + sizeof(h) + i * sizeof(row), sizeof(row));
        row_seen(c, m, &row);
        modseq = row.modseq > modseq ? row.modseq : modseq;
        if (i == 0 && row.uid < first)
            malformed(c, TB_DB_MSG, "it holds a UID below its key");
    }
    if (h.last_uid != row.uid || h.modseq_max < modseq)
        malformed(c, TB_DB_MSG, "its head contradicts its rows");
}

static bool uid_there(const struct tb_check_shard *c, const struct check_mbox *m, uint32_t uid)
{
    if (m->uid_n == 0)
        return false;
    const uint32_t *v = (const uint32_t *)c->uid.v + m->uid_at;
    size_t lo = 0, hi = m->uid_n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (v[mid] < uid)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < m->uid_n && v[lo] == uid;
}

static void entry_cache(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_block h;
    struct tb_disk_cache e;
    if (k.len != 12 || v.len < sizeof(h)) {
        malformed(c, TB_DB_CACHE, "it has a wrong size");
        return;
    }
    memcpy(&h, v.ptr, sizeof(h));
    struct check_mbox *m = mbox_of(c, tb_get_be32(k.ptr), tb_get_be32(k.ptr + 4));
    uint32_t before = 0;
    unsigned n = 0;
    size_t at = sizeof(h);
    while (m != NULL && at + sizeof(e) <= v.len) {
        memcpy(&e, v.ptr + at, sizeof(e));
        at += sizeof(e) + e.clen;
        n++;
        if (at > v.len || e.uid <= before || !uid_there(c, m, e.uid)) {
            malformed(c, TB_DB_CACHE, "it holds an envelope of no message");
            return;
        }
        before = e.uid;
    }
    if (m == NULL || n != h.n || h.last_uid < before || at != v.len)
        malformed(c, TB_DB_CACHE, m == NULL ? "its mailbox is missing" : "its head contradicts its envelopes");
}

static void entry_chg(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    if (k.len != 18 || v.len < sizeof(struct tb_disk_chg)) {
        malformed(c, TB_DB_CHG, "it has a wrong size");
        return;
    }
    struct check_mbox *m = mbox_of(c, tb_get_be32(k.ptr), tb_get_be32(k.ptr + 4));
    uint64_t modseq = tb_get_be64(k.ptr + 8), last = tb_get_le64(v.ptr), delta, first, more;
    struct tb_slice rest = tb_slice(v.ptr + 8, v.len - 8);
    bool good = m != NULL;
    while (good && rest.len > 0) {
        good = tb_get_varint(&rest, &delta) && rest.len > 0;
        uint8_t kind = good ? (uint8_t)*rest.ptr : 0;
        if (good)
            rest = tb_slice(rest.ptr + 1, rest.len - 1);
        good = good && tb_get_varint(&rest, &first) && tb_get_varint(&rest, &more) &&
               (kind == TB_CHG_FLAGS || kind == TB_CHG_EXPUNGE || kind == TB_CHG_DAY) && first > 0 &&
               first <= UINT32_MAX && more <= UINT32_MAX - first && !__builtin_add_overflow(modseq, delta, &modseq);
    }
    if (!good || modseq != last || modseq > m->row.highestmodseq)
        malformed(c, TB_DB_CHG, m == NULL ? "its mailbox is missing" : "it is out of order");
}

static void piece_seen(struct tb_check_shard *c, const struct tb_disk_piece *p, uint64_t owner)
{
    if (p->clen == 0)
        return;
    struct check_piece *x = add(c, &c->piece, sizeof(*x));
    if (x != NULL)
        *x = (struct check_piece){.lsn = p->lsn, .owner = owner, .clen = p->clen, .crc = p->crc};
    c->stat->pieces++;
    if (p->lsn / c->segment_bytes > UINT32_MAX || p->lsn + p->clen > c->applied || p->lsn == 0) {
        char object[OBJECT];
        tb_check_sayf(c, true, rebuild, named(object, "stored message %llu", (unsigned long long)owner),
                      "its bytes would lie at %llu, behind the log", (unsigned long long)p->lsn);
    }
}

static void entry_blob(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_blob_row row = {0};
    if (k.len != 8 || (v.len != sizeof(row.blob) && v.len != sizeof(row))) {
        malformed(c, TB_DB_BLOB, "it has a wrong size");
        return;
    }
    memcpy(&row, v.ptr, v.len);
    bool own = row.blob.flags & TB_BLOB_OWN_BODY;
    struct check_blob *b = add(c, &c->blob, sizeof(*b));
    if (own != (v.len == sizeof(row)))
        malformed(c, TB_DB_BLOB, "its flags contradict its size");
    if (b == NULL)
        return;
    *b = (struct check_blob){.blob = tb_get_be64(k.ptr), .body = own ? 0 : row.blob.body, .refs = row.blob.refs};
    b->flags = row.blob.flags;
    c->stat->blobs++;
    piece_seen(c, &row.blob.head, b->blob);
    if (own && row.own.lsn != 0)
        piece_seen(c, &row.own, b->blob);
}

static void entry_body(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_body row;
    struct check_body *b;
    if (k.len != 8 || v.len < sizeof(row)) {
        malformed(c, TB_DB_BODY, "it has a wrong size");
        return;
    }
    memcpy(&row, v.ptr, sizeof(row));
    if ((b = add(c, &c->body, sizeof(*b))) != NULL)
        *b = (struct check_body){.body = tb_get_be64(k.ptr), .refs = row.refs, .pieces = row.pieces};
}

static void entry_bodyx(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_piece p;
    struct check_body *b = k.len == 12 ? find(&c->body, tb_get_be64(k.ptr), key_of_body) : NULL;
    if (b == NULL || v.len % sizeof(p) != 0 || tb_get_be32(k.ptr + 8) * (uint64_t)TB_BODYX_PIECES != b->listed) {
        malformed(c, TB_DB_BODYX, "it belongs to no body, or a list before it is missing");
        return;
    }
    for (size_t at = 0; at < v.len; at += sizeof(p)) {
        memcpy(&p, v.ptr + at, sizeof(p));
        piece_seen(c, &p, b->body | TB_PIECE_OF_BODY);
        b->listed++;
    }
}

/* grave_seen: a deleted mailbox or account: it is there, and says the same. */
static void grave_seen(struct tb_check_shard *c, int64_t due, uint32_t acct, uint32_t mbox)
{
    char object[OBJECT];
    struct check_acct *a = acct_of(c, acct);
    struct check_mbox *m = mbox != 0 ? mbox_of(c, acct, mbox) : NULL;
    if (mbox != 0 && m == NULL)
        return; /* it went with its account, which was due first */
    bool good = mbox != 0 ? m->row.flags & TB_MBOX_DELETED && m->row.due == due
                          : a != NULL && a->row.flags & TB_ACCT_DELETED && a->row.due == due;
    (void)named(object, "deleted mailbox %u of account %u", mbox, acct);
    if (mbox == 0)
        (void)named(object, "deleted account %u", acct);
    if (!good)
        tb_check_say(c, true, object, "the trash has it, and it is not there or not deleted", rebuild);
    else if (mbox != 0)
        m->grave = true;
    else
        a->grave = true;
}

static void entry_trash(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_row row;
    char object[OBJECT];
    uint32_t acct = k.len == 20 ? tb_get_be32(k.ptr + 8) : 0, mbox = k.len == 20 ? tb_get_be32(k.ptr + 12) : 0,
             uid = k.len == 20 ? tb_get_be32(k.ptr + 16) : 0;
    if (k.len != 20 || v.len < (uid != 0 ? sizeof(row) : sizeof(struct tb_disk_grave))) {
        malformed(c, TB_DB_TRASH, "it has a wrong size");
        return;
    }
    if (uid == 0) {
        if (mbox != TB_TRASH_PLACE)
            grave_seen(c, (int64_t)tb_get_be64(k.ptr), acct, mbox);
        return;
    }
    memcpy(&row, v.ptr, sizeof(row));
    (void)named(object, "deleted message %u of mailbox %u of account %u", row.uid, mbox, acct);
    if (row.uid != uid)
        tb_check_say(c, true, object, "its key says another UID", rebuild);
    (void)reference(c, &row, object); /* it is purged when it is due */
}

static void entry_seg(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_seg row;
    struct check_seg *s;
    if (k.len != 4 || v.len < sizeof(row)) {
        malformed(c, TB_DB_SEG, "it has a wrong size");
        return;
    }
    memcpy(&row, v.ptr, sizeof(row));
    if ((s = add(c, &c->seg, sizeof(*s))) != NULL)
        *s = (struct check_seg){.segment = tb_get_be32(k.ptr), .row = true, .live = row.live, .total = row.total};
}

static void entry_keyword(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct check_mbox *m = k.len == 10 ? mbox_of(c, tb_get_be32(k.ptr), tb_get_be32(k.ptr + 4)) : NULL;
    if (m == NULL || tb_get_be16(k.ptr + 8) >= m->row.keywords_n || v.len == 0)
        malformed(c, TB_DB_KEYWORD, m == NULL ? "its mailbox is missing" : "its mailbox does not count it");
}

/* entry_acl: an entry belongs to a mailbox; what gives rights is listed by its user too: the same keys, told by a sum.
 */
static void entry_acl(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    bool by_user = k.len == 16 && tb_get_be32(k.ptr) == UINT32_MAX;
    char both[12]; /* account, mailbox, user */
    if (by_user) {
        memcpy(both, k.ptr + 8, 8);
        memcpy(both + 8, k.ptr + 4, 4);
        c->acl_by_user += name_hash(tb_slice(both, sizeof(both)));
        return;
    }
    if (k.len != 13 || v.len <= sizeof(struct tb_disk_acl)) {
        malformed(c, TB_DB_ACL, "it has a wrong size");
        return;
    }
    if (mbox_of(c, tb_get_be32(k.ptr), tb_get_be32(k.ptr + 4)) == NULL)
        malformed(c, TB_DB_ACL, "its mailbox is missing");
    if (k.ptr[12] == 0)
        c->acl_given += name_hash(tb_slice(k.ptr, sizeof(both)));
}

/* entry_annot: of a mailbox, or (0) of an account. */
static void entry_annot(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    bool whole = k.len >= 8 + 1 + 3 && k.ptr[k.len - 3] == '\0' && v.len <= TB_ANNOT_ROW;
    uint32_t acct = whole ? tb_get_be32(k.ptr) : 0, mbox = whole ? tb_get_be32(k.ptr + 4) : 0;
    if (!whole)
        malformed(c, TB_DB_ANNOT, "it has a wrong size");
    else if (mbox == 0 ? acct_of(c, acct) == NULL : mbox_of(c, acct, mbox) == NULL)
        malformed(c, TB_DB_ANNOT, "its mailbox or account is missing");
}

static void entry_bad(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    char object[OBJECT];
    if (k.len != 8 || v.len < sizeof(struct tb_disk_bad)) {
        malformed(c, TB_DB_BAD, "it has a wrong size");
        return;
    }
    (void)named(object, "stored message %llu", (unsigned long long)tb_get_be64(k.ptr));
    if (tb_check_blob(c, tb_get_be64(k.ptr)) == NULL)
        tb_check_say(c, true, object, "it is in quarantine and does not exist", recount);
    else
        tb_check_say(c, false, object, "it is in quarantine", "");
}

static void entry_dict(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_disk_dict row;
    char object[OBJECT], next[OBJECT];
    if (k.len != 2 || v.len < sizeof(row)) {
        malformed(c, TB_DB_DICT, "it has a wrong size");
        return;
    }
    memcpy(&row, v.ptr, sizeof(row));
    (void)named(object, "dictionary %04x", row.id);
    (void)named(next, "put shard-%02x/dict/%04x back from a backup", c->shard, row.id);
    if (row.id != tb_get_be16(k.ptr))
        tb_check_say(c, true, object, "its key says another number", rebuild);
    if (!tb_dict_file_good(c->io, c->dir, &row))
        tb_check_say(c, true, object, "its file is missing or damaged: mail stored with it may be unreadable", next);
}

/* entry_hash: only a hint: a body that a hash names is read and compared before it is shared. */
static void entry_hash(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    bool back = k.len == 12 && v.len == TB_HASH_KEY_MAX, there = k.len == TB_HASH_KEY_MAX && v.len == 8;
    if (!back && !there)
        malformed(c, TB_DB_HASH, "it has a wrong size");
}

static void entry_place(struct tb_check_shard *c, struct tb_slice k, struct tb_slice v)
{
    struct tb_pay_place p;
    uint64_t *both;
    if (k.len != 4 || v.len < sizeof(p)) {
        malformed(c, TB_DB_PLACE, "it has a wrong size");
        return;
    }
    memcpy(&p, v.ptr, sizeof(p));
    if (c->shard != 0 || p.name_len + (size_t)p.secret_len != v.len - sizeof(p))
        malformed(c, TB_DB_PLACE, "it contradicts itself");
    if ((both = add(c, &c->place, sizeof(*both))) != NULL)
        *both = (uint64_t)p.shard << 32 | tb_get_be32(k.ptr);
}

void tb_check_entry(void *user, enum tb_db db, struct tb_slice key, struct tb_slice value)
{
    static void (*const readers[TB_DBS])(struct tb_check_shard *, struct tb_slice, struct tb_slice) = {
        [TB_DB_ACCT] = entry_acct,   [TB_DB_MBOX] = entry_mbox,   [TB_DB_TREE] = entry_tree,
        [TB_DB_MSG] = entry_msg,     [TB_DB_CACHE] = entry_cache, [TB_DB_CHG] = entry_chg,
        [TB_DB_BLOB] = entry_blob,   [TB_DB_BODY] = entry_body,   [TB_DB_BODYX] = entry_bodyx,
        [TB_DB_TRASH] = entry_trash, [TB_DB_SEG] = entry_seg,     [TB_DB_KEYWORD] = entry_keyword,
        [TB_DB_PLACE] = entry_place, [TB_DB_BAD] = entry_bad,     [TB_DB_DICT] = entry_dict,
        [TB_DB_HASH] = entry_hash,   [TB_DB_ANNOT] = entry_annot, [TB_DB_ACL] = entry_acl,
    };
    struct tb_check_shard *c = user;
    if (db == TB_DB_STATE && tb_slice_eq(key, TB_SLICE("state")) && value.len >= sizeof(c->state)) {
        memcpy(&c->state, value.ptr, sizeof(c->state));
        c->state_there = true;
    }
    if (readers[db] != NULL)
        readers[db](c, key, value);
}

/* ---- the model against itself ---- */

/* model_deleted: a mailbox in the trash has no name, and an entry there. */
static void model_deleted(struct tb_check_shard *c, const struct check_mbox *m, const char *object)
{
    if (!(m->row.flags & TB_MBOX_DELETED))
        return;
    if (m->in_tree)
        tb_check_say(c, true, object, "it is deleted and still has a name", rebuild);
    if (!m->grave)
        tb_check_say(c, true, object, "it is deleted and not in the trash", rebuild);
}

/* model_counters: what the mailbox counts, against its rows. */
static void model_counters(struct tb_check_shard *c, const struct check_mbox *m, const char *object)
{
    if (m->row.messages != m->messages || m->row.unseen != m->unseen || m->row.deleted != m->deleted ||
        m->row.bytes != m->bytes)
        tb_check_sayf(c, true, recount, object,
                      "it counts %u messages, %u unseen, %u deleted, %llu bytes; there are %u, %u, %u, %llu",
                      m->row.messages, m->row.unseen, m->row.deleted, (unsigned long long)m->row.bytes, m->messages,
                      m->unseen, m->deleted, (unsigned long long)m->bytes);
}

static void model_mailbox(struct tb_check_shard *c, const struct check_mbox *m)
{
    char object[OBJECT];
    struct check_acct *a = acct_of(c, m->acct);
    (void)named(object, "mailbox %u of account %u", m->mbox, m->acct);
    if (a == NULL) {
        tb_check_say(c, true, object, "there is no such account", rebuild);
        return;
    }
    bool gone = m->row.flags & TB_MBOX_DELETED || a->row.flags & TB_ACCT_DELETED;
    model_deleted(c, m, object);
    if (!(m->row.flags & TB_MBOX_DELETED)) {
        a->messages += m->messages;
        a->bytes += m->bytes;
    }
    a->mailboxes += !(m->row.flags & TB_MBOX_NOSELECT);
    a->modseq = m->row.highestmodseq > a->modseq ? m->row.highestmodseq : a->modseq;
    a->mbox_max = m->mbox > a->mbox_max ? m->mbox : a->mbox_max;
    if (!gone && !m->in_tree)
        tb_check_say(c, true, object, "it has no name", rebuild);
    model_counters(c, m, object);
    if (m->mbox >= a->row.next_mbox)
        tb_check_say(c, true, object, "its account may give its number again", recount);
    if (m->messages > 0 && m->row.uidnext <= m->uid_max)
        tb_check_sayf(c, true, recount, object, "UIDNEXT is %u, but message %u is there", m->row.uidnext, m->uid_max);
    if (m->row.highestmodseq < m->modseq)
        tb_check_say(c, true, object, "HIGHESTMODSEQ is below a message's", recount);
    if (m->row.uidvalidity > c->state.uidvalidity_max ||
        (m->row.uidvalidity == 0 && !(m->row.flags & TB_MBOX_NOSELECT)))
        tb_check_say(c, true, object, "its UIDVALIDITY may be given again", recount);
}

static void model_accounts(struct tb_check_shard *c)
{
    char object[OBJECT];
    uint64_t messages = 0, bytes = 0, accounts = 0;
    struct check_acct *a = c->acct.v;
    for (size_t i = 0; i < c->acct.n; i++, a++) {
        (void)named(object, "account %u", a->acct);
        if (a->row.flags & TB_ACCT_DELETED) {
            if (!a->grave)
                tb_check_say(c, true, object, "it is deleted and not in the trash", rebuild);
            continue;
        }
        accounts++;
        messages += a->messages;
        bytes += a->bytes;
        if (a->row.messages != a->messages || a->row.bytes != a->bytes)
            tb_check_sayf(c, true, recount, object, "it counts %llu messages, %llu bytes; there are %llu, %llu",
                          (unsigned long long)a->row.messages, (unsigned long long)a->row.bytes,
                          (unsigned long long)a->messages, (unsigned long long)a->bytes);
        if (a->row.mailboxes != 0 && a->row.mailboxes - 1 != a->mailboxes)
            tb_check_sayf(c, true, recount, object, "it counts %u mailboxes; there are %u", a->row.mailboxes - 1,
                          a->mailboxes);
        if (a->row.modseq < a->modseq)
            tb_check_say(c, true, object, "a mailbox is ahead of its counter of changes", recount);
    }
    if (c->state_there &&
        (c->state.messages != messages || c->state.raw_bytes != bytes || c->state.accounts != accounts))
        tb_check_sayf(c, true, recount, "the shard's counters",
                      "they say %llu accounts, %llu messages, %llu bytes; there are %llu, %llu, %llu",
                      (unsigned long long)c->state.accounts, (unsigned long long)c->state.messages,
                      (unsigned long long)c->state.raw_bytes, (unsigned long long)accounts,
                      (unsigned long long)messages, (unsigned long long)bytes);
}

static void model_blobs(struct tb_check_shard *c)
{
    char object[OBJECT];
    struct check_blob *b = c->blob.v;
    for (size_t i = 0; i < c->blob.n; i++, b++) {
        (void)named(object, "stored message %llu", (unsigned long long)b->blob);
        if (b->refs != b->counted)
            tb_check_sayf(c, true, recount, object, "it counts %u references, there are %u", b->refs, b->counted);
        if (c->state_there && b->blob >= c->state.next_blob)
            tb_check_say(c, true, object, "its number may be given again", recount);
        if (b->flags & TB_BLOB_OWN_BODY)
            continue;
        struct check_body *y = find(&c->body, b->body, key_of_body);
        if (y == NULL)
            tb_check_sayf(c, true, rebuild, object, "its body %llu is missing", (unsigned long long)b->body);
        else
            y->counted++;
    }
    struct check_body *y = c->body.v;
    for (size_t i = 0; i < c->body.n; i++, y++) {
        (void)named(object, "body %llu", (unsigned long long)y->body);
        if (y->refs != y->counted)
            tb_check_sayf(c, true, recount, object, "it counts %u references, there are %u", y->refs, y->counted);
        if (y->listed != y->pieces)
            tb_check_sayf(c, true, rebuild, object, "it counts %u pieces, %u are listed", y->pieces, y->listed);
    }
}

static void model_segments(struct tb_check_shard *c)
{
    char object[OBJECT];
    const struct check_piece *p = c->piece.v;
    for (size_t i = 0; i < c->piece.n; i++, p++) {
        struct check_seg *s = find(&c->seg, p->lsn / c->segment_bytes, key_of_seg);
        if (s != NULL)
            s->counted += p->clen;
        else
            tb_check_sayf(c, true, recount, named(object, "stored message %llu", (unsigned long long)p->owner),
                          "the segment of position %llu has no row", (unsigned long long)p->lsn);
    }
    struct check_seg *s = c->seg.v;
    for (size_t i = 0; i < c->seg.n; i++, s++)
        if (s->live != s->counted || s->live > s->total)
            tb_check_sayf(c, true, recount, named(object, "segment %08x", s->segment),
                          "its row counts %llu live bytes of %llu, there are %llu", (unsigned long long)s->live,
                          (unsigned long long)s->total, (unsigned long long)s->counted);
}

void tb_check_model(struct tb_check_shard *c)
{
    if (!c->state_there)
        tb_check_say(c, true, "the index", "it has no state row", rebuild);
    for (size_t i = 0; i < c->mbox.n; i++)
        model_mailbox(c, (const struct check_mbox *)c->mbox.v + i);
    model_accounts(c);
    model_blobs(c);
    model_segments(c);
    if (c->acl_given != c->acl_by_user)
        tb_check_say(c, true, "the access control lists", "what they give is not what is listed by user", rebuild);
}

void tb_check_model_free(struct tb_check_shard *c)
{
    struct tb_vec *v[] = {&c->acct, &c->mbox, &c->blob,  &c->body,     &c->piece,
                          &c->seg,  &c->uid,  &c->place, &c->dangling, &c->bad};
    for (size_t i = 0; i < TB_ARRAY_LEN(v); i++)
        free(v[i]->v);
}
