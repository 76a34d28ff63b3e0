/*
 * trash.c: the trash from outside of the log: what is in it, what comes back, what goes when it is due.
 *
 * Everything goes in steps of a bounded number of entries, so that an owner's thread is never held for more than some
 * milliseconds. Keys are (due, account, mailbox, uid): purging reads from the front; one account's entries are found by
 * skipping from one due second to the next. Thread: the shard's owner. Records: apply_trash.c.
 */
#include <tambo/trash.h>

#include <stdlib.h>

#include "engine/store/delivery_format.h"
#include "engine/store/shard.h"

enum {
    PURGE_ROWS = 1024,      /* messages let go in one step */
    RESTORE_MESSAGES = 512, /* given back in one step */
    LOOK_MAX = 2048,        /* entries looked at in one step of a walk */
    MENDED_S = 7 * 86400,   /* what the sweep deletes is kept so long at least: somebody may want to look at it */
    SWEEP_ACCOUNTS = 512    /* accounts looked at in one tick */
};

struct entry { /* of the trash, its key taken apart */
    int64_t due;
    uint32_t acct, mbox, uid;
};

static bool entry_of(struct tb_slice k, struct entry *e)
{
    if (k.len != 20)
        return false;
    *e = (struct entry){(int64_t)tb_get_be64(k.ptr), tb_get_be32(k.ptr + 8), tb_get_be32(k.ptr + 12),
                        tb_get_be32(k.ptr + 16)};
    return true;
}

/* ---- letting go ---- */

static bool log_purge(struct tb_shard *s, uint8_t flags, const struct tb_pay_purge *v, size_t n)
{
    struct tb_slice none = tb_slice(NULL, 0);
    if (tb_shard_admit(s, n * sizeof(*v), 1, ADMIT_SMALL) != TB_OK)
        return false;
    tb_shard_record(s, TB_REC_PURGE, flags, 0, tb_slice(v, n * sizeof(*v)), none, none);
    return true;
}

/* purge_mailbox: up to PURGE_ROWS messages of a mailbox in the trash, or of a mailbox of an account there. */
static bool purge_mailbox(struct tb_shard *s, int64_t due, uint32_t acct, uint32_t mbox)
{
    struct tb_disk_row *rows = malloc(PURGE_ROWS * sizeof(*rows));
    struct tb_pay_purge p = {.due = due, .acct = acct, .mbox = mbox, .uid = UINT32_MAX};
    if (rows == NULL)
        return false;
    size_t n = tb_rows_scan(s->ix, acct, mbox, 1, rows, PURGE_ROWS);
    if (n == PURGE_ROWS)
        p.uid = rows[n - 1].uid;
    free(rows);
    return log_purge(s, TB_PURGE_MAILBOX, &p, 1);
}

/* comes_back: was this deleted account placed again? Then its purging would be wrong, and its mail is due here. */
static bool comes_back(struct tb_shard *s, uint32_t acct, struct tb_slice name)
{
    struct tb_identity id;
    bool placed = tb_directory_find(s->store, name, &id) == TB_OK && id.id.acct == acct;
    explicit_bzero(id.secret, sizeof(id.secret));
    return placed;
}

static bool log_undelete_account(struct tb_shard *s, uint32_t acct, int64_t due)
{
    struct tb_pay_undelete p = {.due = due};
    struct tb_slice none = tb_slice(NULL, 0);
    if (tb_shard_admit(s, sizeof(p), 1, ADMIT_SMALL) != TB_OK)
        return false;
    tb_shard_record(s, TB_REC_UNDELETE, 0, acct, tb_slice(&p, sizeof(p)), none, none);
    return true;
}

static bool purge_account(struct tb_shard *s, const struct entry *e, struct tb_slice value)
{
    struct tb_key key;
    struct tb_slice k, v;
    struct tb_disk_grave g;
    if (value.len < sizeof(g))
        return false;
    memcpy(&g, value.ptr, sizeof(g));
    if (g.state == 0 && comes_back(s, e->acct, tb_slice_sub(value, sizeof(g), value.len)))
        return log_undelete_account(s, e->acct, e->due);
    tb_key_begin(&key);
    tb_key_u32(&key, e->acct);
    if (tb_index_ge(s->ix, TB_DB_MBOX, tb_key_slice(&key), 4, &k, &v) && k.len == 8)
        return purge_mailbox(s, e->due, e->acct, tb_get_be32(k.ptr + 4));
    struct tb_pay_purge p = {.due = e->due, .acct = e->acct, .uid = PURGE_ROWS};
    return log_purge(s, TB_PURGE_ACCOUNT, &p, 1);
}

/* purge_first: the entry at the front is no message. */
static bool purge_first(struct tb_shard *s, const struct entry *e, struct tb_slice value)
{
    struct tb_pay_purge p = {.due = e->due, .acct = e->acct, .mbox = e->mbox};
    struct tb_disk_mbox m;
    if (e->mbox == 0)
        return purge_account(s, e, value);
    if (e->mbox != TB_TRASH_PLACE && tb_mbox_get(s->ix, e->acct, e->mbox, &m, NULL))
        return purge_mailbox(s, e->due, e->acct, e->mbox);
    return log_purge(s, 0, &p, 1); /* a place; a mailbox that went with its account */
}

bool tb_trash_purge(struct tb_shard *s)
{
    struct tb_pay_purge v[PURGE_ROWS];
    size_t n = 0;
    int64_t now = tb_io_wall_s(s->worker->io);
    struct entry e;
    struct tb_slice k, value;
    bool more = tb_index_ge(s->ix, TB_DB_TRASH, tb_slice("\0", 1), 0, &k, &value);
    for (; more && entry_of(k, &e) && e.due <= now; more = tb_index_next(s->ix, TB_DB_TRASH, 0, &k, &value)) {
        if (e.uid == 0 && n == 0)
            return purge_first(s, &e, value);
        if (e.uid == 0 || n == PURGE_ROWS)
            return log_purge(s, 0, v, n);
        v[n++] = (struct tb_pay_purge){.due = e.due, .acct = e.acct, .mbox = e.mbox, .uid = e.uid};
    }
    if (n > 0)
        (void)log_purge(s, 0, v, n);
    return false;
}

/* ---- mending what a crash left of a deletion ---- */

static void sweep_account(struct tb_shard *s, uint32_t acct, const struct tb_disk_acct *a, struct tb_slice name)
{
    struct tb_slice none = tb_slice(NULL, 0);
    bool placed = comes_back(s, acct, name);
    if (placed && a->flags & TB_ACCT_DELETED) {
        (void)log_undelete_account(s, acct, a->due);
        tb_log(TB_LOG_WARN, "shard=%u acct=%u its return was interrupted, it is back now", s->number, acct);
    }
    if (placed || a->flags & TB_ACCT_DELETED ||
        tb_shard_admit(s, sizeof(struct tb_pay_acct_delete), 1, ADMIT_SMALL) != TB_OK)
        return;
    int64_t now = tb_io_wall_s(s->worker->io), due = tb_due(s);
    struct tb_pay_acct_delete d = {.due = due > now + MENDED_S ? due : now + MENDED_S, .when = now};
    tb_shard_record(s, TB_REC_ACCT_DELETE, 0, acct, tb_slice(&d, sizeof(d)), none, none);
    tb_log(TB_LOG_WARN, "shard=%u acct=%u its deletion was interrupted, it is deleted now", s->number, acct);
}

void tb_trash_sweep(struct tb_shard *s)
{
    for (unsigned i = 0; i < SWEEP_ACCOUNTS && s->swept_accts < s->store->first_acct; i++) {
        char name[TB_NAME_MAX];
        struct tb_disk_acct a;
        struct tb_key key;
        struct tb_slice k, v;
        tb_key_begin(&key);
        tb_key_u32(&key, s->swept_accts);
        if (!tb_index_ge(s->ix, TB_DB_ACCT, tb_key_slice(&key), 0, &k, &v) || k.len != 4 || v.len < sizeof(a)) {
            s->swept_accts = UINT32_MAX;
            return;
        }
        uint32_t acct = tb_get_be32(k.ptr);
        s->swept_accts = acct + 1;
        memcpy(&a, v.ptr, sizeof(a));
        v = tb_slice_sub(v, sizeof(a), sizeof(name));
        memcpy(name, v.ptr, v.len);
        if (acct < s->store->first_acct)
            sweep_account(s, acct, &a, tb_slice(name, v.len));
    }
}

/* ---- walking one account's entries ---- */

struct walk {
    struct tb_account *a;
    struct tb_trash_cursor *c;
    unsigned looks;
};

/* walk_next: the account's next entry of the cursor's kind; false when the step, or the kind, is at its end. The cursor
 * stands behind it afterwards. */
static bool walk_next(struct walk *w, struct entry *e, struct tb_slice *value)
{
    struct tb_trash_cursor *c = w->c;
    struct tb_slice k;
    for (; w->looks < LOOK_MAX; w->looks++) {
        struct tb_key key = tb_trash_key(c->due, w->a->acct, c->mbox, c->uid);
        if (!tb_index_ge(w->a->shard->ix, TB_DB_TRASH, tb_key_slice(&key), 0, &k, value) || !entry_of(k, e)) {
            bool end = c->messages;
            *c = (struct tb_trash_cursor){.messages = true, .end = end};
            if (end)
                return false;
            continue;
        }
        if (e->acct != w->a->acct) { /* on to where this account's may be */
            *c = (struct tb_trash_cursor){.due = e->due + (e->acct > w->a->acct), .messages = c->messages};
            continue;
        }
        c->due = e->due;
        c->mbox = e->mbox;
        c->uid = e->uid + 1;
        bool mailbox = e->uid == 0;
        if (mailbox != c->messages && e->mbox != 0 && e->mbox != TB_TRASH_PLACE) {
            w->looks++;
            return true;
        }
        if (!c->messages && !mailbox)
            *c = (struct tb_trash_cursor){.due = e->due, .mbox = e->mbox + 1}; /* past this mailbox's messages */
    }
    return false;
}

static bool name_is(const struct tb_trash_filter *f, struct tb_slice name)
{
    return f->mailbox.len == 0 || tb_slice_eq(f->mailbox, name);
}

/* mailbox_name: of a mailbox that is there or in the trash, into the arena; empty if it is gone. */
static struct tb_slice mailbox_name(struct tb_account *a, uint32_t mbox, struct tb_arena *arena)
{
    struct tb_mailbox m;
    struct tb_disk_mbox row;
    struct tb_slice v;
    if (tb_mailbox_get(a, mbox, arena, &m) == TB_OK)
        return m.name;
    if (!tb_mbox_get(a->shard->ix, a->acct, mbox, &row, NULL) || !(row.flags & TB_MBOX_DELETED))
        return tb_slice(NULL, 0);
    struct tb_key k = tb_trash_key(row.due, a->acct, mbox, 0);
    if (!tb_index_get(a->shard->ix, TB_DB_TRASH, tb_key_slice(&k), &v) || v.len < sizeof(struct tb_disk_grave))
        return tb_slice(NULL, 0);
    return tb_arena_copy(arena, tb_slice_sub(v, sizeof(struct tb_disk_grave), v.len));
}

/* find_mailbox: does this entry of a deleted mailbox match, and can it come back? */
static bool find_mailbox(struct tb_account *a, const struct tb_trash_filter *f, const struct entry *e,
                         struct tb_slice value, struct tb_disk_grave *g, struct tb_slice *name, struct tb_disk_mbox *m)
{
    if (f->uids != NULL || value.len < sizeof(*g))
        return false;
    memcpy(g, value.ptr, sizeof(*g));
    *name = tb_slice_sub(value, sizeof(*g), value.len);
    return g->state == 0 && g->when >= f->since && name_is(f, *name) && e->due > tb_io_wall_s(a->shard->worker->io) &&
           tb_mbox_get(a->shard->ix, a->acct, e->mbox, m, NULL) && m->flags & TB_MBOX_DELETED && m->due == e->due;
}

/* find_message: the same for a message but for its mailbox's name. Format 1 did not note when. */
static bool find_message(struct tb_account *a, const struct tb_trash_filter *f, const struct entry *e,
                         struct tb_disk_trash *t, struct tb_slice *cache)
{
    struct tb_key k = tb_trash_key(e->due, e->acct, e->mbox, e->uid);
    if (!tb_trash_get(a->shard->ix, &k, t, cache))
        return false;
    int64_t when = t->when != 0 ? t->when : e->due - (int64_t)a->shard->store->cfg.trash_days * 86400;
    return when >= f->since && e->due > tb_io_wall_s(a->shard->worker->io) &&
           (f->uids == NULL || tb_uidset_has(f->uids, e->uid));
}

/* ---- listing ---- */

static struct tb_slice envelope_of(struct tb_account *a, struct tb_slice cache, struct tb_arena *arena)
{
    struct tb_disk_cache head;
    uint64_t len;
    struct tb_slice none = tb_slice(NULL, 0);
    if (cache.len < sizeof(head))
        return none;
    memcpy(&head, cache.ptr, sizeof(head));
    if (head.clen != cache.len - sizeof(head) || head.raw_len > TB_CACHE_RAW_MAX)
        return none;
    char *raw = tb_arena_alloc(arena, head.raw_len);
    if (raw == NULL || tb_codec_decompress(a->shard->worker->codec, head.dict,
                                           tb_slice(cache.ptr + sizeof(head), head.clen), raw, head.raw_len) != TB_OK)
        return none;
    struct tb_slice rest = tb_slice(raw, head.raw_len);
    return tb_get_varint(&rest, &len) ? tb_slice_sub(rest, 0, (size_t)len) : none;
}

static bool list_mailbox(struct tb_account *a, const struct tb_trash_filter *f, const struct entry *e,
                         struct tb_slice value, struct tb_arena *arena, struct tb_trash_item *out)
{
    struct tb_disk_grave g;
    struct tb_disk_mbox m;
    struct tb_slice name;
    if (!find_mailbox(a, f, e, value, &g, &name, &m))
        return false;
    *out = (struct tb_trash_item){.mbox = e->mbox,
                                  .mailbox = tb_arena_copy(arena, name),
                                  .when = g.when,
                                  .until = e->due,
                                  .bytes = m.bytes,
                                  .messages = m.messages,
                                  .uidvalidity = m.uidvalidity};
    return true;
}

static bool list_message(struct tb_account *a, const struct tb_trash_filter *f, const struct entry *e,
                         struct tb_arena *arena, struct tb_trash_item *out)
{
    struct tb_disk_trash t;
    struct tb_slice cache;
    if (!find_message(a, f, e, &t, &cache))
        return false;
    struct tb_slice envelope = envelope_of(a, cache, arena), name = mailbox_name(a, e->mbox, arena);
    if (!name_is(f, name))
        return false;
    *out = (struct tb_trash_item){.mbox = e->mbox,
                                  .uid = e->uid,
                                  .mailbox = name,
                                  .when = t.when,
                                  .until = e->due,
                                  .bytes = t.row.size,
                                  .internaldate = t.row.internaldate,
                                  .envelope = envelope};
    return true;
}

enum tb_rc tb_trash_list(struct tb_account *a, const struct tb_trash_filter *f, struct tb_trash_cursor *c,
                         struct tb_arena *arena, struct tb_trash_item *v, size_t max, size_t *n)
{
    struct walk w = {.a = a, .c = c};
    struct entry e;
    struct tb_slice value;
    *n = 0;
    if (a->deleted)
        return TB_NOTFOUND;
    while (*n < max && !c->end && walk_next(&w, &e, &value))
        *n += e.uid == 0 ? list_mailbox(a, f, &e, value, arena, &v[*n]) : list_message(a, f, &e, arena, &v[*n]);
    if (tb_index_rc(a->shard->ix) != TB_OK)
        return TB_IO;
    return arena->overflowed ? TB_LIMIT : TB_OK;
}

/* ---- giving back ---- */

struct batch { /* messages of one mailbox, on their way back */
    uint32_t src, n;
    uint64_t keywords; /* bits of src that they have */
    struct tb_pay_unexpunged v[RESTORE_MESSAGES];
};

/* open_mailbox: the number of a mailbox by name, made if it is not there. */
static enum tb_rc open_mailbox(struct tb_account *a, struct tb_slice name, uint32_t *mbox)
{
    *mbox = tb_mailbox_number(a->shard, a->acct, name);
    return *mbox != 0 ? TB_OK : tb_mailbox_create(a, name, 0, mbox);
}

/* destination: where a batch goes. */
static enum tb_rc destination(struct tb_account *a, const struct tb_trash_filter *f, uint32_t src, uint32_t *dst)
{
    struct tb_disk_mbox m;
    if (f->to.len > 0)
        return open_mailbox(a, f->to, dst);
    *dst = src;
    if (tb_mbox_get(a->shard->ix, a->acct, src, &m, NULL) && !(m.flags & TB_MBOX_NOSELECT))
        return TB_OK;
    return open_mailbox(a, TB_SLICE("Restored"), dst);
}

static enum tb_rc log_batch(struct tb_account *a, const struct tb_trash_filter *f, const struct batch *b)
{
    enum { KEYWORDS_BYTES = TB_KEYWORDS_MAX * (TB_KEYWORD_NAME_MAX + 8) };
    struct tb_disk_mbox m;
    struct tb_disk_acct row;
    struct tb_pay_unexpunge p = {.src = b->src, .n = b->n, .savedate = tb_io_wall_s(a->shard->worker->io)};
    enum tb_rc rc = destination(a, f, b->src, &p.dst);
    if (rc == TB_OK)
        rc = tb_shard_admit(a->shard, sizeof(p) + b->n * sizeof(b->v[0]) + KEYWORDS_BYTES, 1 + TB_KEYWORDS_MAX,
                            ADMIT_GROW);
    if (rc != TB_OK)
        return rc;
    tb_keyword_map(a, b->src, p.dst, b->keywords, p.keyword);
    if (!tb_mbox_get(a->shard->ix, a->acct, p.dst, &m, NULL) || !tb_acct_get(a->shard->ix, a->acct, &row))
        return TB_IO;
    if (m.staged != 0)
        return TB_BUSY;
    if (b->n > UINT32_MAX - m.uidnext)
        return TB_LIMIT;
    p.dst_uid = m.uidnext;
    p.modseq = row.modseq + 1;
    tb_shard_record(a->shard, TB_REC_UNEXPUNGE, 0, a->acct, tb_slice(&p, sizeof(p)),
                    tb_slice(b->v, b->n * sizeof(b->v[0])), tb_slice(NULL, 0));
    tb_shard_touched(a->shard, a->acct, p.dst);
    return TB_OK;
}

/* restore_messages: the next run of messages of one mailbox. */
static enum tb_rc restore_messages(struct walk *w, const struct tb_trash_filter *f, struct tb_restored *sum)
{
    struct tb_trash_cursor before = *w->c, last = *w->c;
    struct tb_disk_trash t;
    struct entry e;
    struct tb_slice value, cache;
    struct tb_arena arena;
    struct batch b = {.n = 0};
    uint32_t judged = 0;
    bool named = false;
    while (b.n < RESTORE_MESSAGES && walk_next(w, &e, &value)) {
        bool found = find_message(w->a, f, &e, &t, &cache);
        if (found && e.mbox != judged) {
            tb_arena_init(&arena, 64 << 10);
            named = name_is(f, mailbox_name(w->a, e.mbox, &arena));
            tb_arena_free(&arena);
            judged = e.mbox;
        }
        if (found && named && b.n > 0 && e.mbox != b.src) { /* another time */
            *w->c = last;
            break;
        }
        last = *w->c;
        if (!found || !named)
            continue;
        b.src = e.mbox;
        b.keywords |= t.row.keywords;
        b.v[b.n++] = (struct tb_pay_unexpunged){.due = e.due, .uid = e.uid};
    }
    enum tb_rc rc = b.n > 0 ? log_batch(w->a, f, &b) : TB_OK;
    if (rc != TB_OK)
        *w->c = before;
    else
        sum->messages += b.n;
    return rc;
}

/* restore_mailbox: the next deleted mailbox that matches. */
static enum tb_rc restore_mailbox(struct walk *w, const struct tb_trash_filter *f, struct tb_restored *sum)
{
    struct tb_trash_cursor before = *w->c;
    struct tb_disk_grave g;
    struct tb_disk_mbox m;
    struct tb_slice value, name;
    struct entry e;
    struct tb_buf full;
    bool renamed = false;
    while (!w->c->messages && walk_next(w, &e, &value)) {
        if (e.uid != 0) { /* the first message: the mailboxes are done */
            *w->c = (struct tb_trash_cursor){.messages = true};
            return TB_OK;
        }
        if (!find_mailbox(w->a, f, &e, value, &g, &name, &m))
            continue;
        tb_buf_init(&full, 2 * TB_MBOX_NAME_MAX);
        tb_buf_slice(&full, f->to);
        tb_buf_str(&full, f->to.len > 0 ? "/" : "");
        tb_buf_slice(&full, name);
        enum tb_rc rc = full.failed ? TB_LIMIT : tb_mailbox_undelete(w->a, e.mbox, e.due, tb_buf_all(&full), &renamed);
        tb_buf_free(&full);
        if (rc != TB_OK)
            *w->c = before;
        sum->mailboxes += rc == TB_OK;
        sum->renamed += rc == TB_OK && renamed;
        return rc;
    }
    return TB_OK;
}

enum tb_rc tb_trash_restore(struct tb_account *a, const struct tb_trash_filter *f, struct tb_trash_cursor *c,
                            struct tb_restored *sum)
{
    struct walk w = {.a = a, .c = c};
    if (a->deleted)
        return TB_NOTFOUND;
    enum tb_rc rc = c->messages ? restore_messages(&w, f, sum) : restore_mailbox(&w, f, sum);
    return a->shard->failed || tb_index_rc(a->shard->ix) != TB_OK ? TB_IO : rc;
}

/* ---- deleted accounts ---- */

bool tb_place_read(struct tb_slice payload, uint32_t acct, struct tb_identity *out)
{
    struct tb_pay_place p;
    if (payload.len < sizeof(p))
        return false;
    memcpy(&p, payload.ptr, sizeof(p));
    if (p.name_len > TB_NAME_MAX || p.secret_len > TB_SECRET_MAX ||
        payload.len != sizeof(p) + p.name_len + p.secret_len)
        return false;
    memset(out, 0, sizeof(*out));
    out->id = (struct tb_account_id){.shard = p.shard, .acct = acct};
    memcpy(out->name, payload.ptr + sizeof(p), p.name_len);
    memcpy(out->secret, payload.ptr + sizeof(p) + p.name_len, p.secret_len);
    return true;
}

enum tb_rc tb_trash_accounts(struct tb_worker *owner, struct tb_trash_cursor *c, struct tb_arena *arena,
                             struct tb_trash_account *v, size_t max, size_t *n)
{
    struct tb_shard *s = tb_shard_of(owner, 0);
    struct tb_slice k, value;
    struct tb_disk_grave g;
    struct tb_identity id;
    struct entry e;
    int64_t now = tb_io_wall_s(owner->io);
    *n = 0;
    for (unsigned looks = 0; *n < max && looks < LOOK_MAX; looks++) {
        struct tb_key key = tb_trash_key(c->due, c->mbox, TB_TRASH_PLACE, 0); /* the cursor's mbox is an account here */
        if (!tb_index_ge(s->ix, TB_DB_TRASH, tb_key_slice(&key), 0, &k, &value) || !entry_of(k, &e)) {
            c->end = true;
            break;
        }
        c->due = e.due;
        c->mbox = e.acct;
        if (e.mbox != TB_TRASH_PLACE)
            continue;
        c->mbox++;
        if (e.due <= now || value.len < sizeof(g) ||
            !tb_place_read(tb_slice_sub(value, sizeof(g), SIZE_MAX), e.acct, &id))
            continue;
        memcpy(&g, value.ptr, sizeof(g));
        v[(*n)++] = (struct tb_trash_account){
            .acct = e.acct, .name = tb_arena_copy(arena, tb_slice_str(id.name)), .when = g.when, .until = e.due};
        explicit_bzero(id.secret, sizeof(id.secret));
    }
    if (tb_index_rc(s->ix) != TB_OK)
        return TB_IO;
    return arena->overflowed ? TB_LIMIT : TB_OK;
}
