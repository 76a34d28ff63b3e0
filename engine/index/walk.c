/*
 * walk.c: the pages of an LMDB 0.9 file (MDB_DATA_VERSION 1, 4 KiB pages), read and doubted. What is checked and
 * why: walk.h, invariants W1 and W2.
 *
 * The layout, from LMDB's own header and source (docs/FORMAT.md tells it to strangers): a page begins with its number
 * u64, pad u16, flags u16, lower u16, upper u16 (an overflow page: pages u32); node offsets u16 from byte 16 to lower,
 * nodes from upper to the end. A node: lo u16, hi u16, flags u16, key size u16, key, data. In a branch lo, hi and flags
 * are the child's page number; in a leaf lo and hi are the data's size, and with flag 1 the data is the number of an
 * overflow page. No recursion: a stack of at most 32 pages.
 *
 * Thread: any, one at a time.
 */
#include "engine/index/walk.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    PAGE = 4096,
    HEAD = 16,      /* of a page */
    NODE = 8,       /* of a node */
    DB_BYTES = 48,  /* struct MDB_db */
    DEPTH_MAX = 32, /* LMDB's own limit */
    FIRST = 2,      /* page: behind the two meta pages */
    CRC_BYTES = 4,
    VALUE_MAX = TB_VALUE_MAX + CRC_BYTES,
    P_BRANCH = 1,
    P_LEAF = 2,
    P_OVERFLOW = 4,
    N_BIGDATA = 1,
    N_SUBDATA = 2,
    INTEGERKEY = 8,
    META_MAGIC_AT = 0,
    META_DBS_AT = 24,
    META_LAST_AT = 120,
    META_TXNID_AT = 128,
    FREE_VALUE_MAX = 64 << 20
};
#define PAGES_MAX ((uint64_t)1 << 26) /* of the map, 256 GiB */
#define MAGIC 0xbeefc0deu

struct tree { /* an MDB_db */
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t branch, leaf, overflow, entries, root;
};

struct level { /* one page of the path from the root */
    uint64_t pgno;
    uint8_t *page; /* owned, aligned */
    unsigned n, at;
    struct tb_slice lo, hi; /* its keys are >= lo and < hi; ptr NULL: no bound. In the pages above. */
};

enum kind { TREE_FREE, TREE_MAIN, TREE_NAMED };

struct tb_walk {
    struct tb_walk_config cfg;
    struct tb_walk_stat stat;
    uint64_t last_pg, txnid;
    uint8_t *seen; /* owned: a bit a page */
    struct tree named[TB_DBS];
    bool there[TB_DBS];
    struct tree tree, counted; /* the one being walked; what was found of it */
    enum kind kind;
    enum tb_db db;
    unsigned next; /* in the order below */
    struct level level[DEPTH_MAX];
    unsigned depth;
    uint8_t *big; /* owned, aligned: an overflow run */
    size_t big_cap;
    struct tree free_tree;
    bool all, unreached; /* unreached: some subtree could not be read, so lost pages mean nothing */
};

/* order: blobs and bodies first, so that a reader can count references to them. */
static enum tb_db nth_db(unsigned i)
{
    static const enum tb_db first[] = {TB_DB_BLOB, TB_DB_BODY};
    if (i < TB_ARRAY_LEN(first))
        return first[i];
    unsigned k = 0;
    for (int db = 0; db < TB_DBS; db++)
        if (db != TB_DB_BLOB && db != TB_DB_BODY && k++ == i - TB_ARRAY_LEN(first))
            return (enum tb_db)db;
    return TB_DBS;
}

/* ---- findings ---- */

static void bad(struct tb_walk *w, const char *fmt, ...) TB_PRINTF(2, 3);
static void bad(struct tb_walk *w, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (w->stat.damage++ < TB_WALK_DAMAGE_MAX)
        w->cfg.damage(w->cfg.user, w->db, text);
    if (w->stat.damage > TB_WALK_DAMAGE_MAX)
        w->all = true;
}

/* bad_subtree: a finding that hides pages: their loss is no finding of its own. */
#define bad_subtree(w, ...) ((w)->unreached = true, bad(w, __VA_ARGS__))

/* ---- pages ---- */

/* claim: the page is in the file and nobody else's. */
static bool claim(struct tb_walk *w, uint64_t pgno, const char *what)
{
    if (pgno < FIRST || pgno > w->last_pg) {
        bad_subtree(w, "%s names page %llu, the last is %llu", what, (unsigned long long)pgno,
                    (unsigned long long)w->last_pg);
        return false;
    }
    uint8_t bit = (uint8_t)(1u << (pgno & 7));
    if (w->seen[pgno >> 3] & bit) {
        bad(w, "page %llu is used twice, the second time by %s", (unsigned long long)pgno, what);
        return false;
    }
    w->seen[pgno >> 3] |= bit;
    return true;
}

static bool read_pages(struct tb_walk *w, void *buf, uint64_t pgno, uint64_t n)
{
    int64_t got = w->cfg.read(w->cfg.user, buf, n * PAGE, pgno * PAGE);
    w->stat.read_bytes += n * PAGE;
    if (got == (int64_t)(n * PAGE))
        return true;
    bad_subtree(w, "page %llu cannot be read: %s", (unsigned long long)pgno,
                got < 0 ? strerror((int)-got) : "the file ends before it");
    return false;
}

static unsigned ptr_at(const uint8_t *page, unsigned i)
{
    return tb_get_le16(page + HEAD + 2 * i);
}

static const uint8_t *node_at(const uint8_t *page, unsigned i)
{
    return page + ptr_at(page, i);
}

static struct tb_slice node_key(const uint8_t *node)
{
    return tb_slice(node + NODE, tb_get_le16(node + 6));
}

static uint32_t node_size(const uint8_t *node)
{
    return tb_get_le16(node) | (uint32_t)tb_get_le16(node + 2) << 16;
}

static uint64_t node_child(const uint8_t *node)
{
    return node_size(node) | (uint64_t)tb_get_le16(node + 4) << 32;
}

/* nodes_fit: every node lies whole between upper and the page's end, and together they fill that exactly. */
static bool nodes_fit(const uint8_t *page, bool leaf, unsigned n, unsigned upper)
{
    size_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = ptr_at(page, i);
        if (at < upper || at > PAGE - NODE || at % 2 != 0)
            return false;
        const uint8_t *node = page + at;
        size_t len = NODE + tb_get_le16(node + 6);
        if (leaf && tb_get_le16(node + 4) & N_BIGDATA)
            len += 8;
        else if (leaf)
            len += node_size(node);
        if (len > PAGE - at)
            return false;
        sum += (len + 1) & ~(size_t)1;
    }
    return sum == PAGE - upper;
}

/* page_good: the page's head and nodes are as LMDB writes them. *n: its nodes. */
static bool page_good(struct tb_walk *w, const uint8_t *page, uint64_t pgno, bool leaf, unsigned *n)
{
    unsigned flags = tb_get_le16(page + 10), lower = tb_get_le16(page + 12), upper = tb_get_le16(page + 14);
    const char *why = NULL;
    *n = (lower - HEAD) / 2;
    if (tb_get_le64(page) != pgno)
        why = "carries another page's number";
    else if (flags != (leaf ? P_LEAF : P_BRANCH))
        why = leaf ? "is no leaf" : "is no branch";
    else if (lower < HEAD || lower % 2 != 0 || lower > upper || upper > PAGE)
        why = "has impossible bounds";
    else if (*n < (leaf || w->kind == TREE_FREE ? 1u : 2u))
        why = "has too few entries";
    else if (!nodes_fit(page, leaf, *n, upper))
        why = "has entries that do not fit it";
    if (why != NULL)
        bad_subtree(w, "page %llu %s", (unsigned long long)pgno, why);
    return why == NULL;
}

/* ---- keys ---- */

static int compare(const struct tb_walk *w, struct tb_slice a, struct tb_slice b)
{
    if (w->kind == TREE_FREE && a.len == 8 && b.len == 8) {
        uint64_t x = tb_get_le64(a.ptr), y = tb_get_le64(b.ptr);
        return x < y ? -1 : x > y;
    }
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n > 0 ? memcmp(a.ptr, b.ptr, n) : 0;
    return c != 0 ? c : a.len < b.len ? -1 : a.len > b.len;
}

/* keys_good: ascending, within what the branches above say. The first key of a branch has no meaning. */
static bool keys_good(struct tb_walk *w, const struct level *l, bool leaf)
{
    struct tb_slice before = l->lo;
    for (unsigned i = leaf ? 0 : 1; i < l->n; i++) {
        struct tb_slice key = node_key(node_at(l->page, i));
        bool first = i == (leaf ? 0 : 1);
        int c = before.ptr != NULL ? compare(w, before, key) : -1;
        /* a leaf's first key may be what the branch says; every other pair is strictly ascending */
        if (c > 0 || (c == 0 && !(first && leaf)) || key.len == 0 || key.len > TB_KEY_MAX ||
            (w->kind == TREE_FREE && key.len != 8)) {
            bad(w, "page %llu has a key out of order", (unsigned long long)l->pgno);
            return false;
        }
        before = key;
    }
    if (l->hi.ptr != NULL && before.ptr != NULL && compare(w, before, l->hi) >= 0) {
        bad(w, "page %llu has a key that belongs behind it", (unsigned long long)l->pgno);
        return false;
    }
    return true;
}

/* ---- entries ---- */

/* big_value: the data of an overflow run, whole; NULL after a finding. */
static const uint8_t *big_value(struct tb_walk *w, uint64_t pgno, uint32_t size)
{
    uint8_t *p = w->big;
    uint32_t need = (HEAD - 1 + size) / PAGE + 1;
    if (size > (w->kind == TREE_FREE ? FREE_VALUE_MAX : VALUE_MAX)) {
        bad_subtree(w, "overflow page %llu holds a value of %u bytes", (unsigned long long)pgno, size);
        return NULL;
    }
    if (!claim(w, pgno, "a value"))
        return NULL;
    if ((size_t)need * PAGE > w->big_cap) {
        uint8_t *grown = aligned_alloc(PAGE, (size_t)need * PAGE);
        if (grown == NULL) {
            bad_subtree(w, "no memory for the value on page %llu", (unsigned long long)pgno);
            return NULL;
        }
        free(w->big);
        w->big = p = grown;
        w->big_cap = (size_t)need * PAGE;
    }
    if (pgno + need - 1 > w->last_pg || !read_pages(w, p, pgno, need))
        return NULL;
    uint32_t pages = tb_get_le32(p + 12);
    if (tb_get_le64(p) != pgno || tb_get_le16(p + 10) != P_OVERFLOW || pages < need || pages > w->last_pg - pgno + 1) {
        bad_subtree(w, "overflow page %llu is none", (unsigned long long)pgno);
        return NULL;
    }
    for (uint32_t i = 1; i < pages; i++)
        if (!claim(w, pgno + i, "a value"))
            return NULL;
    w->counted.overflow += pages;
    return p + HEAD;
}

static struct tree tree_of(const uint8_t *p)
{
    return (struct tree){tb_get_le32(p),      tb_get_le16(p + 4),  tb_get_le16(p + 6),  tb_get_le64(p + 8),
                         tb_get_le64(p + 16), tb_get_le64(p + 24), tb_get_le64(p + 32), tb_get_le64(p + 40)};
}

/* entry_main: a named database's root. */
static void entry_main(struct tb_walk *w, struct tb_slice key, const uint8_t *data, uint32_t size, uint16_t flags)
{
    for (int i = 0; i < TB_DBS; i++) {
        const char *name = tb_index_db_name((enum tb_db)i);
        if (tb_slice_eq(key, tb_slice_str(name)) && size == DB_BYTES && flags == N_SUBDATA) {
            w->named[i] = tree_of(data);
            w->there[i] = true;
            return;
        }
    }
    bad_subtree(w, "the list of databases has an entry that is none of ours");
}

/* entry_free: the pages that a transaction set free: a count, then page numbers, descending. */
static void entry_free(struct tb_walk *w, struct tb_slice key, const uint8_t *data, uint32_t size)
{
    uint64_t txn = tb_get_le64(key.ptr), n = size >= 8 ? tb_get_le64(data) : UINT64_MAX, before = UINT64_MAX;
    if (txn == 0 || txn > w->txnid || n > size / 8 - 1) {
        bad_subtree(w, "the free list of transaction %llu is damaged", (unsigned long long)txn);
        return;
    }
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t pgno = tb_get_le64(data + 8 * i);
        if (pgno >= before) {
            bad_subtree(w, "the free list of transaction %llu is out of order", (unsigned long long)txn);
            return;
        }
        if (claim(w, pgno, "the free list"))
            w->stat.free_pages++;
        before = pgno;
    }
}

static void entry_named(struct tb_walk *w, struct tb_slice key, const uint8_t *data, uint32_t size)
{
    if (size < CRC_BYTES || size > VALUE_MAX) {
        bad(w, "a value has the impossible size %u", size);
        return;
    }
    size_t len = size - CRC_BYTES;
    if (tb_index_value_crc(w->db, key, tb_slice(data, len)) != tb_get_le32(data + len)) {
        bad(w, "a value's checksum is wrong, on page %llu", (unsigned long long)w->level[w->depth - 1].pgno);
        return;
    }
    w->stat.entries[w->db]++;
    if (w->cfg.entry != NULL)
        w->cfg.entry(w->cfg.user, w->db, key, tb_slice(data, len));
}

static void entry(struct tb_walk *w, const uint8_t *node)
{
    struct tb_slice key = node_key(node);
    uint32_t size = node_size(node);
    uint16_t flags = tb_get_le16(node + 4);
    const uint8_t *data = node + NODE + key.len;
    w->counted.entries++;
    if (flags & ~(N_BIGDATA | N_SUBDATA) || (flags & N_SUBDATA) != (w->kind == TREE_MAIN ? N_SUBDATA : 0)) {
        bad_subtree(w, "an entry has impossible flags");
        return;
    }
    if (flags & N_BIGDATA)
        data = big_value(w, tb_get_le64(data), size);
    if (data == NULL)
        return;
    if (w->kind == TREE_MAIN)
        entry_main(w, key, data, size, flags);
    else if (w->kind == TREE_FREE)
        entry_free(w, key, data, size);
    else
        entry_named(w, key, data, size);
}

/* ---- trees ---- */

/* descend: the page becomes the deepest level; false after a finding. */
static bool descend(struct tb_walk *w, uint64_t pgno, struct tb_slice lo, struct tb_slice hi)
{
    struct level *l = &w->level[w->depth];
    bool leaf = w->depth + 1 == w->tree.depth;
    if (!claim(w, pgno, w->depth == 0 ? "a root" : "a branch"))
        return false;
    if (l->page == NULL && (l->page = aligned_alloc(PAGE, PAGE)) == NULL) {
        bad_subtree(w, "no memory for page %llu", (unsigned long long)pgno);
        return false;
    }
    *l = (struct level){.pgno = pgno, .page = l->page, .lo = lo, .hi = hi};
    if (!read_pages(w, l->page, pgno, 1) || !page_good(w, l->page, pgno, leaf, &l->n))
        return false;
    if (!keys_good(w, l, leaf) && !leaf)
        w->unreached = true; /* what lies below has no bounds to be held to, but is still read */
    if (leaf)
        w->counted.leaf++;
    else
        w->counted.branch++;
    w->depth++;
    return true;
}

static void tree_begin(struct tb_walk *w, enum kind kind, enum tb_db db, const struct tree *t)
{
    w->kind = kind;
    w->db = db;
    w->tree = *t;
    w->counted = (struct tree){0};
    w->depth = 0;
    uint16_t want = kind == TREE_FREE ? INTEGERKEY : 0;
    if ((t->flags & (kind == TREE_FREE ? INTEGERKEY : 0xffff)) != want || (kind != TREE_FREE && t->pad != 0) ||
        t->depth > DEPTH_MAX || (t->depth == 0) != (t->root == UINT64_MAX)) {
        bad_subtree(w, "its root is damaged");
        w->tree.depth = 0;
    }
    if (w->tree.depth > 0)
        (void)descend(w, t->root, tb_slice(NULL, 0), tb_slice(NULL, 0));
}

static void tree_end(struct tb_walk *w)
{
    const struct tree *t = &w->tree, *c = &w->counted;
    uint64_t pages = c->branch + c->leaf + c->overflow, counted = t->branch + t->leaf + t->overflow;
    w->stat.used += pages;
    if (w->unreached)
        return; /* it has been said why it cannot add up */
    if (t->branch != c->branch || t->leaf != c->leaf || t->overflow != c->overflow || t->entries != c->entries)
        bad(w, "its root counts %llu pages and %llu entries, there are %llu and %llu", (unsigned long long)counted,
            (unsigned long long)t->entries, (unsigned long long)pages, (unsigned long long)c->entries);
}

/* finish: what is neither used nor free has been lost. */
static void finish(struct tb_walk *w)
{
    w->all = true;
    w->db = TB_DBS;
    for (uint64_t p = FIRST; p <= w->last_pg; p++)
        if (!(w->seen[p >> 3] & 1u << (p & 7)))
            w->stat.lost++;
    if (w->stat.lost > 0 && !w->unreached)
        bad(w, "%llu pages are neither used nor free", (unsigned long long)w->stat.lost);
}

/* next_tree: each named one, then the free list; false when all have been walked. */
static bool next_tree(struct tb_walk *w)
{
    if (w->kind == TREE_FREE)
        return false;
    for (;;) {
        enum tb_db db = nth_db(w->next);
        if (db == TB_DBS) {
            tree_begin(w, TREE_FREE, TB_DBS, &w->free_tree);
            return true;
        }
        w->next++;
        if (w->there[db]) {
            tree_begin(w, TREE_NAMED, db, &w->named[db]);
            return true;
        }
        w->db = db;
        if (db <= TB_DB_DONE) /* later ones are made when a store without them is opened */
            bad_subtree(w, "the database is missing");
    }
}

/* child: the next subtree of a branch, with the bounds its separators give. */
static void child(struct tb_walk *w, struct level *l)
{
    const uint8_t *node = node_at(l->page, l->at);
    struct tb_slice lo = l->at > 0 ? node_key(node) : l->lo;
    struct tb_slice hi = l->at + 1 < l->n ? node_key(node_at(l->page, l->at + 1)) : l->hi;
    l->at++;
    (void)descend(w, node_child(node), lo, hi);
}

bool tb_walk_step(struct tb_walk *w, uint64_t pages)
{
    uint64_t stop = w->stat.read_bytes + pages * PAGE;
    while (!w->all && w->stat.read_bytes < stop) {
        if (w->depth == 0) {
            tree_end(w);
            if (!next_tree(w))
                finish(w);
            continue;
        }
        struct level *l = &w->level[w->depth - 1];
        bool leaf = w->depth == w->tree.depth;
        if (l->at == l->n)
            w->depth--;
        else if (leaf)
            entry(w, node_at(l->page, l->at++));
        else
            child(w, l);
    }
    return !w->all;
}

/* ---- beginning, end ---- */

struct tb_walk *tb_walk_new(const struct tb_walk_config *cfg, const uint8_t meta[TB_META_BYTES])
{
    struct tb_walk *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return NULL;
    w->cfg = *cfg;
    w->db = TB_DBS;
    w->txnid = tb_get_le64(meta + META_TXNID_AT);
    w->last_pg = tb_get_le64(meta + META_LAST_AT);
    w->free_tree = tree_of(meta + META_DBS_AT);
    struct tree main_tree = tree_of(meta + META_DBS_AT + DB_BYTES);
    if (tb_get_le32(meta + META_MAGIC_AT) != MAGIC || tb_get_le32(meta + META_MAGIC_AT + 4) != 1 ||
        w->free_tree.pad != PAGE || w->last_pg < FIRST - 1 || w->last_pg >= PAGES_MAX) {
        w->last_pg = FIRST - 1;
        bad(w, "its meta page is damaged");
        w->all = true;
    }
    w->stat.pages = w->last_pg + 1;
    w->seen = calloc(1, w->last_pg / 8 + 1);
    if (w->seen == NULL) {
        free(w);
        return NULL;
    }
    if (!w->all)
        tree_begin(w, TREE_MAIN, TB_DBS, &main_tree);
    return w;
}

const struct tb_walk_stat *tb_walk_stat(const struct tb_walk *w)
{
    return &w->stat;
}

void tb_walk_free(struct tb_walk *w)
{
    if (w == NULL)
        return;
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        free(w->level[i].page);
    free(w->big);
    free(w->seen);
    free(w);
}
