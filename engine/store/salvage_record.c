/*
 * salvage_record.c: see salvage.h. One record of the log, and what must be there before tb_apply takes it.
 *
 * A message's UID never falls behind UIDNEXT, so what only a later MOVED record tells of is added in the order of
 * UIDs: before the next message with a higher one, at the latest when that record comes. What a record says of
 * messages that are not there is left out, the rest of it is done. Thread: the caller's.
 */
#include "engine/store/salvage.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/store/apply.h"

enum { PARENTS_MAX = 64, COPY_MAX = 1 << 16 };

static bool good(const struct tb_salvage *g)
{
    return tb_index_rc(g->x.ix) == TB_OK;
}

static bool fixed(struct tb_slice s, void *out, size_t len)
{
    if (s.len < len)
        return false;
    memcpy(out, s.ptr, len);
    return true;
}

bool tb_salvage_apply(struct tb_salvage *g, uint8_t type, uint8_t flags, uint32_t acct, struct tb_slice payload)
{
    struct tb_record r = {.type = type, .flags = flags, .acct = acct, .payload = payload};
    return tb_apply(&g->x, &r) == TB_OK;
}

/* ---- accounts and mailboxes ---- */

/* account_name: what its old row says, or its place; else a name of its own. */
static struct tb_slice account_name(struct tb_salvage *g, uint32_t acct, char made[32])
{
    struct tb_slice v;
    struct tb_pay_place p;
    struct tb_disk_acct a;
    if (tb_salvage_fact(g, TB_DB_PLACE, (uint64_t)acct << 32, &v) != NULL && fixed(v, &p, sizeof(p)) &&
        p.shard == g->cfg->shard && p.name_len > 0)
        return tb_slice_sub(v, sizeof(p), p.name_len);
    if (tb_salvage_fact(g, TB_DB_ACCT, (uint64_t)acct << 32, &v) != NULL && v.len > sizeof(a))
        return tb_slice_sub(v, sizeof(a), TB_NAME_MAX);
    g->out->accounts_unnamed++;
    return tb_slice(made, (size_t)snprintf(made, 32, "recovered-%u", acct));
}

bool tb_salvage_account(struct tb_salvage *g, uint32_t acct)
{
    struct tb_disk_acct a;
    struct tb_pay_acct p = {.modseq = 1};
    char made[32], payload[sizeof(p) + TB_NAME_MAX];
    if (acct == 0 || tb_acct_get(g->x.ix, acct, &a))
        return good(g);
    struct tb_slice name = account_name(g, acct, made);
    name.len = name.len < TB_NAME_MAX ? name.len : TB_NAME_MAX;
    memcpy(payload, &p, sizeof(p));
    memcpy(payload + sizeof(p), name.ptr, name.len);
    g->out->accounts_made++;
    return tb_salvage_apply(g, TB_REC_ACCT, 0, acct, tb_slice(payload, sizeof(p) + name.len));
}

static struct tb_slice own_name(uint32_t mbox, char made[32])
{
    if (mbox == TB_MBOX_INBOX)
        return TB_SLICE("INBOX");
    return tb_slice(made, (size_t)snprintf(made, 32, "Recovered-%u", mbox));
}

/* make_room: another mailbox has this name, because the record of how it lost it is gone: it gets one of its own. */
static void make_room(struct tb_salvage *g, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t mbox)
{
    uint32_t other;
    struct tb_disk_acct a;
    char made[32], payload[sizeof(struct tb_pay_rename) + 32];
    if (leaf.len > TB_MBOX_LEAF_MAX || !tb_tree_get(g->x.ix, acct, parent, leaf, &other) || other == mbox ||
        !tb_acct_get(g->x.ix, acct, &a))
        return;
    struct tb_disk_mbox m;
    if (tb_mbox_get(g->x.ix, acct, other, &m, NULL) && m.flags & TB_MBOX_NOSELECT)
        return; /* a name alone: the record takes its place */
    struct tb_pay_rename p = {.mbox = other, .modseq = a.modseq};
    struct tb_slice name = other == TB_MBOX_INBOX ? TB_SLICE("Recovered-1") : own_name(other, made);
    memcpy(payload, &p, sizeof(p));
    memcpy(payload + sizeof(p), name.ptr, name.len);
    (void)tb_salvage_apply(g, TB_REC_RENAME, 0, acct, tb_slice(payload, sizeof(p) + name.len));
    g->out->mailboxes_renamed++;
}

static bool make_mailbox(struct tb_salvage *g, uint32_t acct, uint32_t mbox, unsigned depth)
{
    struct tb_disk_mbox m;
    struct tb_disk_acct a;
    struct tb_slice v, leaf;
    char made[32], payload[sizeof(struct tb_pay_mbox) + TB_MBOX_LEAF_MAX];
    if (mbox == 0 || tb_mbox_get(g->x.ix, acct, mbox, &m, NULL))
        return good(g);
    if (!tb_salvage_account(g, acct) || !tb_acct_get(g->x.ix, acct, &a))
        return false;
    struct tb_pay_mbox p = {.mbox = mbox, .mailboxid = (uint64_t)acct << 32 | mbox, .modseq = a.modseq};
    leaf = own_name(mbox, made);
    if (tb_salvage_fact(g, TB_DB_MBOX, (uint64_t)acct << 32 | mbox, &v) != NULL && fixed(v, &m, sizeof(m))) {
        p.uidvalidity = m.uidvalidity;
        p.mailboxid = m.mailboxid;
        if (!(m.flags & TB_MBOX_DELETED) && depth < PARENTS_MAX) { /* else its name went with what deleted it */
            p.parent = m.parent != mbox ? m.parent : 0;
            p.special = m.special;
            p.flags = m.flags;
            leaf = tb_slice_sub(v, sizeof(m), TB_MBOX_LEAF_MAX);
        }
    } else {
        p.uidvalidity = ++g->uidvalidity;
        g->out->mailboxes_new++;
    }
    uint32_t other;
    if (p.parent != 0 && !make_mailbox(g, acct, p.parent, depth + 1))
        return false;
    if (leaf.len == 0 || tb_tree_get(g->x.ix, acct, p.parent, leaf, &other)) {
        p.parent = 0;
        leaf = own_name(mbox, made);
    }
    memcpy(payload, &p, sizeof(p));
    memcpy(payload + sizeof(p), leaf.ptr, leaf.len);
    g->out->mailboxes_made++;
    return tb_salvage_apply(g, TB_REC_MBOX, 0, acct, tb_slice(payload, sizeof(p) + leaf.len));
}

bool tb_salvage_mailbox(struct tb_salvage *g, uint32_t acct, uint32_t mbox)
{
    return acct == 0 || make_mailbox(g, acct, mbox, 0);
}

/* ---- stored messages that a MOVED record tells of ---- */

static struct tb_key key_u64(uint64_t v)
{
    struct tb_key k;
    tb_key_begin(&k);
    tb_key_u64(&k, v);
    return k;
}

static bool has_blob(struct tb_salvage *g, uint64_t blob)
{
    struct tb_key k = key_u64(blob);
    struct tb_slice v;
    return tb_index_get(g->x.ix, TB_DB_BLOB, tb_key_slice(&k), &v);
}

static void piece_counts(struct tb_salvage *g, const struct tb_disk_piece *p)
{
    tb_seg_add(&g->x, p->lsn, p->clen, p->clen);
    g->x.state.stored_bytes += p->clen;
    g->x.state.stored_raw_bytes += p->raw_len;
}

/* share_body: a body of pieces with rows of its own: one reference more, or made from the list. False: it is unknown.
 */
static bool share_body(struct tb_salvage *g, const struct tb_salvage_blob *b, uint64_t raw_bytes)
{
    const struct tb_disk_piece *list = b->pieces > 0 ? (struct tb_disk_piece *)g->lists.v + b->list : NULL;
    struct tb_disk_body body = {.pieces = b->pieces};
    struct tb_key k = key_u64(b->body);
    struct tb_slice v;
    bool there = tb_index_get(g->x.ix, TB_DB_BODY, tb_key_slice(&k), &v) && fixed(v, &body, sizeof(body));
    for (uint32_t i = 0; !there && i < b->pieces; i++) {
        body.raw_bytes += list[i].raw_len;
        body.stored_bytes += list[i].clen;
    }
    if (body.pieces == 0 || body.raw_bytes != raw_bytes)
        return false;
    g->x.state.shared_raw_bytes += there ? body.raw_bytes : 0;
    for (uint32_t i = 0; !there && i < b->pieces; i += TB_BODYX_PIECES) {
        struct tb_key kx = key_u64(b->body);
        uint32_t n = b->pieces - i < TB_BODYX_PIECES ? b->pieces - i : TB_BODYX_PIECES;
        tb_key_u32(&kx, i / TB_BODYX_PIECES);
        tb_index_put(g->x.ix, TB_DB_BODYX, tb_key_slice(&kx), tb_slice(list + i, n * sizeof(*list)));
        for (uint32_t j = i; j < i + n; j++)
            piece_counts(g, &list[j]);
    }
    body.refs++;
    tb_index_put(g->x.ix, TB_DB_BODY, tb_key_slice(&k), tb_slice(&body, sizeof(body)));
    return true;
}

/* bring_blob: a row for a stored message whose BLOB record is gone, without references yet. False: its bytes are not
 * all known. */
static bool bring_blob(struct tb_salvage *g, const struct tb_disk_row *row)
{
    const struct tb_salvage_blob *b = tb_salvage_blob(g, row->blob);
    if (has_blob(g, row->blob))
        return true;
    if (b == NULL || b->head.raw_len > row->size)
        return false;
    uint32_t rest = row->size - b->head.raw_len;
    bool own = b->own_there ? b->own.raw_len == rest : rest == 0 && b->pieces == 0;
    struct tb_blob_row v = {.blob = {.head = b->head, .body = b->body, .flags = own ? TB_BLOB_OWN_BODY : 0}};
    if (!own && !share_body(g, b, rest))
        return false;
    if (own && b->own_there)
        v.own = b->own;
    piece_counts(g, &v.blob.head);
    if (v.own.lsn != 0)
        piece_counts(g, &v.own);
    struct tb_key k = key_u64(row->blob);
    tb_index_put(g->x.ix, TB_DB_BLOB, tb_key_slice(&k), tb_slice(&v, own ? sizeof(v) : sizeof(v.blob)));
    if (row->blob >= g->x.state.next_blob)
        g->x.state.next_blob = row->blob + 1;
    if (b->body >= g->x.state.next_blob)
        g->x.state.next_blob = b->body + 1;
    return good(g);
}

void tb_salvage_publish(struct tb_salvage *g, uint32_t acct, uint32_t mbox)
{
    struct tb_disk_mbox m;
    struct tb_disk_acct a;
    if (!tb_mbox_get(g->x.ix, acct, mbox, &m, NULL) || m.staged == 0 || !tb_acct_get(g->x.ix, acct, &a))
        return;
    struct tb_pay_copy p = {.src = mbox, .dst = mbox, .dst_uid = m.uidnext + m.staged, .dst_modseq = a.modseq};
    (void)tb_salvage_apply(g, TB_REC_COPY, TB_COPY_STAGED | TB_COPY_COMMIT, acct, tb_slice(&p, sizeof(p)));
}

/* bring_row: a message whose record is gone; the flags are those of a later moment. */
static void bring_row(struct tb_salvage *g, const struct tb_salvage_row *t)
{
    struct tb_disk_acct a;
    uint8_t payload[TB_ADD_ENCODED_MAX];
    if (!bring_blob(g, &t->row)) {
        g->out->lost++;
        return;
    }
    if (!tb_acct_get(g->x.ix, t->acct, &a))
        return;
    struct tb_pay_add p = {.mbox = t->mbox, .row = t->row};
    p.row.modseq = a.modseq;
    if (tb_salvage_apply(g, TB_REC_ADD, 0, t->acct, tb_slice(payload, tb_add_encode(&p, 0, payload))))
        g->out->brought++;
}

/* bring_below: the messages that come before this UID and are not there. */
static void bring_below(struct tb_salvage *g, uint32_t acct, uint32_t mbox, uint64_t uid)
{
    struct tb_disk_mbox m;
    const struct tb_salvage_row *end = (struct tb_salvage_row *)g->rows.v + g->rows.n;
    tb_salvage_publish(g, acct, mbox);
    if (!tb_mbox_get(g->x.ix, acct, mbox, &m, NULL))
        return;
    const struct tb_salvage_row *t = tb_salvage_row_at(g, acct, mbox, m.uidnext);
    for (uint32_t last = 0; t != NULL && t < end && t->acct == acct && t->mbox == mbox && t->row.uid < uid; t++) {
        if (t->row.uid != last)
            bring_row(g, t);
        last = t->row.uid;
    }
}

/* ---- MOVED ---- */

/* keyword_bit: of a name, which gets one if the mailbox has none for it. 64: there is none left. */
static unsigned keyword_bit(struct tb_salvage *g, uint32_t acct, uint32_t mbox, struct tb_slice name)
{
    struct tb_disk_mbox m;
    struct tb_slice v;
    struct tb_key k;
    char payload[sizeof(struct tb_pay_keyword) + 256];
    if (!tb_mbox_get(g->x.ix, acct, mbox, &m, NULL))
        return TB_KEYWORDS_MAX;
    for (unsigned bit = 0; bit < m.keywords_n; bit++) {
        tb_key_begin(&k);
        tb_key_u32(&k, acct);
        tb_key_u32(&k, mbox);
        tb_key_u16(&k, (uint16_t)bit);
        if (tb_index_get(g->x.ix, TB_DB_KEYWORD, tb_key_slice(&k), &v) && v.len == name.len &&
            memcmp(v.ptr, name.ptr, name.len) == 0)
            return bit;
    }
    struct tb_pay_keyword p = {.mbox = mbox, .bit = m.keywords_n};
    memcpy(payload, &p, sizeof(p));
    memcpy(payload + sizeof(p), name.ptr, name.len);
    if (p.bit >= TB_KEYWORDS_MAX ||
        !tb_salvage_apply(g, TB_REC_KEYWORD, 0, acct, tb_slice(payload, sizeof(p) + name.len)))
        return TB_KEYWORDS_MAX;
    return p.bit;
}

/* set_flags: of a message that is there. */
static void set_flags(struct tb_salvage *g, uint32_t acct, uint32_t mbox, const struct tb_disk_row *want)
{
    struct tb_disk_row row;
    struct tb_disk_acct a;
    if (!tb_rows_get(g->x.ix, acct, mbox, want->uid, &row) || !tb_acct_get(g->x.ix, acct, &a) ||
        (row.flags == want->flags && row.keywords == want->keywords))
        return;
    struct {
        struct tb_pay_flags p;
        struct tb_range range;
    } set = {{.mbox = mbox,
              .mode = TB_FLAGS_SET,
              .flags = want->flags,
              .keywords = want->keywords,
              .modseq = a.modseq,
              .n = 1},
             {want->uid, want->uid}};
    (void)tb_salvage_apply(g, TB_REC_FLAGS, 0, acct, tb_slice(&set, sizeof(set)));
}

void tb_salvage_indexed(struct tb_salvage *g)
{
    const struct tb_salvage_row *t = g->rows.v;
    const struct tb_salvage_fact *f = g->facts.v;
    g->index_done = true;
    for (size_t i = 0; i < g->facts.n; i++) {
        char payload[sizeof(struct tb_pay_keyword) + TB_VALUE_MAX];
        struct tb_pay_keyword p = {.mbox = (uint32_t)f[i].key, .bit = f[i].bit};
        struct tb_disk_mbox m = {.flags = TB_MBOX_DELETED};
        if (f[i].db == TB_DB_MBOX && f[i].len >= sizeof(m))
            memcpy(&m, g->texts.ptr + f[i].at, sizeof(m));
        bool wanted = f[i].db == TB_DB_KEYWORD || !(m.flags & TB_MBOX_DELETED);
        if (!wanted || !tb_salvage_mailbox(g, (uint32_t)(f[i].key >> 32), p.mbox) || f[i].db != TB_DB_KEYWORD)
            continue;
        memcpy(payload, &p, sizeof(p));
        memcpy(payload + sizeof(p), g->texts.ptr + f[i].at, f[i].len);
        (void)tb_salvage_apply(g, TB_REC_KEYWORD, 0, (uint32_t)(f[i].key >> 32),
                               tb_slice(payload, sizeof(p) + f[i].len));
    }
    for (size_t i = 0; i < g->rows.n && good(g); i++) {
        if (!t[i].indexed || !tb_salvage_mailbox(g, t[i].acct, t[i].mbox))
            continue;
        bring_below(g, t[i].acct, t[i].mbox, (uint64_t)t[i].row.uid + 1);
        set_flags(g, t[i].acct, t[i].mbox, &t[i].row);
    }
}

/* moved_row: what the record says of a message is how it was then. */
static void moved_row(struct tb_salvage *g, const struct tb_moved_row *t, struct tb_slice *names)
{
    struct tb_disk_row row, want = t->row;
    struct tb_slice name;
    bool there = tb_salvage_mailbox(g, t->acct, t->mbox);
    bring_below(g, t->acct, t->mbox, (uint64_t)t->row.uid + 1);
    there = there && tb_rows_get(g->x.ix, t->acct, t->mbox, t->row.uid, &row);
    want.keywords = 0;
    for (uint32_t i = 0; i < t->keywords_n && tb_moved_keyword(names, &name); i++) {
        unsigned bit = there ? keyword_bit(g, t->acct, t->mbox, name) : TB_KEYWORDS_MAX;
        want.keywords |= bit < TB_KEYWORDS_MAX ? (uint64_t)1 << bit : 0;
    }
    if (there)
        set_flags(g, t->acct, t->mbox, &want);
}

/* moved_over: the record before this one is gone, so the index names an older place: now it is here. */
static void moved_over(struct tb_salvage *g, const struct tb_record *r, struct tb_pay_moved *p, uint64_t lsn)
{
    struct tb_key k = key_u64(r->flags & TB_MOVED_PIECE ? p->body : p->blob);
    struct tb_disk_piece piece;
    struct tb_disk_body body;
    struct tb_blob_row row = {0};
    struct tb_slice v;
    struct tb_record again = *r;
    uint8_t payload[TB_MOVED_ENCODED_MAX];
    p->pieces = p->rows = p->rows_len = 0;
    if (r->flags & TB_MOVED_PIECE) {
        if (!tb_index_get(g->x.ix, TB_DB_BODY, tb_key_slice(&k), &v) || !fixed(v, &body, sizeof(body)) ||
            !tb_body_piece(g->x.ix, p->body, &body, p->index, &piece))
            return;
        p->own_from = piece.lsn;
    } else {
        if (!tb_index_get(g->x.ix, TB_DB_BLOB, tb_key_slice(&k), &v) || v.len < sizeof(row.blob))
            return;
        memcpy(&row, v.ptr, v.len < sizeof(row) ? v.len : sizeof(row));
        p->head_from = row.blob.head.lsn;
        p->own_from = p->own_from != 0 && row.blob.flags & TB_BLOB_OWN_BODY ? row.own.lsn : 0;
    }
    /* the same record with other old places; its bytes lie where they lie */
    size_t head = tb_moved_encode(p, r->flags, payload), moved = (size_t)p->head.clen + p->own.clen;
    char *whole = calloc(1, head + moved);
    g->no_memory |= whole == NULL;
    if (whole == NULL)
        return;
    memcpy(whole, payload, head);
    again.payload = tb_slice(whole, head + moved);
    again.lsn = lsn - head;
    if (tb_apply(&g->x, &again) != TB_OK)
        g->out->unusable++;
    free(whole);
}

static enum tb_rc moved(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_moved p;
    struct tb_slice rest = r->payload, rows;
    if (!tb_moved_decode(&rest, r->flags, &p) || p.pieces > rest.len / sizeof(struct tb_disk_piece))
        return TB_CORRUPT;
    size_t list = p.pieces * sizeof(struct tb_disk_piece), bytes = (size_t)p.head.clen + p.own.clen;
    if (p.rows_len > rest.len - list || rest.len - list - p.rows_len != bytes)
        return TB_CORRUPT;
    rows = tb_slice_sub(rest, list, p.rows_len);
    for (uint32_t i = 0; i < p.rows && !(r->flags & TB_MOVED_PIECE); i++) {
        struct tb_moved_row t;
        if (!tb_moved_row_decode(&rows, &t))
            break;
        moved_row(g, &t, &rows);
    }
    moved_over(g, r, &p, r->lsn + (r->payload.len - bytes));
    return good(g) ? TB_OK : tb_index_rc(g->x.ix);
}

/* ---- messages ---- */

static enum tb_rc add(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_add p;
    struct tb_slice rest = r->payload;
    if (!tb_add_decode(&rest, r->flags, &p) || !tb_salvage_mailbox(g, r->acct, p.mbox))
        return TB_CORRUPT;
    bring_below(g, r->acct, p.mbox, p.row.uid);
    if (!bring_blob(g, &p.row)) {
        g->out->lost++;
        return TB_OK;
    }
    return tb_apply(&g->x, r);
}

static enum tb_rc blob(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_blob p;
    struct tb_slice rest = r->payload;
    return tb_blob_decode(&rest, &p) && has_blob(g, p.blob) ? TB_OK : tb_apply(&g->x, r);
}

/* copy_one: one message of a COPY, if it is there. */
static void copy_one(struct tb_salvage *g, const struct tb_record *r, const struct tb_pay_copy *p, uint32_t uid,
                     uint32_t to)
{
    struct tb_disk_row row;
    struct {
        struct tb_pay_copy p;
        struct tb_range range;
    } one = {*p, {uid, uid}};
    one.p.n = 1;
    one.p.dst_uid = to;
    if (tb_rows_get(g->x.ix, r->acct, p->src, uid, &row))
        (void)tb_salvage_apply(g, TB_REC_COPY, r->flags & TB_COPY_MOVE, r->acct, tb_slice(&one, sizeof(one)));
}

/* copy: whole if all that it names is there, else message by message, each to the UID that it had. */
static enum tb_rc copy(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_copy p;
    struct tb_range range;
    struct tb_disk_mbox dst;
    struct tb_disk_row row;
    bool all = true;
    if (!fixed(r->payload, &p, sizeof(p)) || p.n > (r->payload.len - sizeof(p)) / sizeof(range) ||
        !tb_salvage_mailbox(g, r->acct, p.src) || !tb_salvage_mailbox(g, r->acct, p.dst) ||
        !tb_mbox_get(g->x.ix, r->acct, p.dst, &dst, NULL))
        return TB_CORRUPT;
    bool goes_on = r->flags & TB_COPY_STAGED && dst.staged != 0 && p.dst_uid == dst.uidnext + dst.staged;
    if (!goes_on)
        bring_below(g, r->acct, p.dst, p.dst_uid);
    const char *at = r->payload.ptr + sizeof(p);
    for (uint32_t i = 0; all && i < p.n; i++) {
        memcpy(&range, at + i * sizeof(range), sizeof(range));
        for (uint64_t uid = range.first; all && uid <= range.last; uid++)
            all = tb_rows_get(g->x.ix, r->acct, p.src, (uint32_t)uid, &row);
    }
    if (all)
        return tb_apply(&g->x, r);
    uint32_t to = p.dst_uid;
    for (uint32_t i = 0; i < p.n; i++) {
        memcpy(&range, at + i * sizeof(range), sizeof(range));
        if (range.last < range.first || range.last - range.first >= COPY_MAX || to > UINT32_MAX - COPY_MAX)
            return TB_CORRUPT; /* none was ever logged */
        for (uint64_t uid = range.first; uid <= range.last; uid++, to++) {
            bring_below(g, r->acct, p.dst, to);
            copy_one(g, r, &p, (uint32_t)uid, to);
        }
    }
    return TB_OK;
}

static enum tb_rc unexpunge(struct tb_salvage *g, const struct tb_record *r)
{
    struct {
        struct tb_pay_unexpunge p;
        struct tb_pay_unexpunged of;
    } one;
    struct tb_disk_trash t;
    struct tb_slice cache;
    if (!fixed(r->payload, &one.p, sizeof(one.p)) || !tb_salvage_mailbox(g, r->acct, one.p.dst))
        return TB_CORRUPT;
    uint32_t n = one.p.n, to = one.p.dst_uid;
    if (n > (r->payload.len - sizeof(one.p)) / sizeof(one.of) || n > UINT32_MAX - to)
        return TB_CORRUPT;
    one.p.n = 1;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(&one.of, r->payload.ptr + sizeof(one.p) + i * sizeof(one.of), sizeof(one.of));
        one.p.dst_uid = to + i;
        bring_below(g, r->acct, one.p.dst, one.p.dst_uid);
        struct tb_key k = tb_trash_key(one.of.due, r->acct, one.p.src, one.of.uid);
        if (tb_trash_get(g->x.ix, &k, &t, &cache))
            (void)tb_salvage_apply(g, TB_REC_UNEXPUNGE, r->flags, r->acct, tb_slice(&one, sizeof(one)));
    }
    return TB_OK;
}

/* ---- names ---- */

static enum tb_rc mbox(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_mbox p;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_salvage_account(g, r->acct) ||
        !tb_salvage_mailbox(g, r->acct, p.parent))
        return TB_CORRUPT;
    make_room(g, r->acct, p.parent, tb_slice_sub(r->payload, sizeof(p), SIZE_MAX), p.mbox);
    return tb_apply(&g->x, r);
}

static enum tb_rc rename_to(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_rename p;
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_salvage_mailbox(g, r->acct, p.mbox) ||
        !tb_salvage_mailbox(g, r->acct, p.parent))
        return TB_CORRUPT;
    make_room(g, r->acct, p.parent, tb_slice_sub(r->payload, sizeof(p), SIZE_MAX), p.mbox);
    return tb_apply(&g->x, r);
}

/* undelete: of a mailbox whose deletion is gone nothing is left to do but its new name. */
static enum tb_rc undelete(struct tb_salvage *g, const struct tb_record *r)
{
    struct tb_pay_undelete p;
    struct tb_disk_mbox m;
    char payload[sizeof(struct tb_pay_rename) + TB_MBOX_LEAF_MAX];
    if (!fixed(r->payload, &p, sizeof(p)) || !tb_salvage_mailbox(g, r->acct, p.mbox) ||
        !tb_salvage_mailbox(g, r->acct, p.parent))
        return TB_CORRUPT;
    struct tb_slice leaf = tb_slice_sub(r->payload, sizeof(p), TB_MBOX_LEAF_MAX);
    if (p.mbox == 0 || (tb_mbox_get(g->x.ix, r->acct, p.mbox, &m, NULL) && m.flags & TB_MBOX_DELETED))
        return tb_apply(&g->x, r);
    struct tb_pay_rename to = {.mbox = p.mbox, .parent = p.parent, .modseq = p.modseq};
    memcpy(payload, &to, sizeof(to));
    memcpy(payload + sizeof(to), leaf.ptr, leaf.len);
    struct tb_record made = {
        .type = TB_REC_RENAME, .acct = r->acct, .payload = tb_slice(payload, sizeof(to) + leaf.len)};
    return rename_to(g, &made);
}

/* of_mailbox: records that begin with a mailbox's number, 0 for none. */
static enum tb_rc of_mailbox(struct tb_salvage *g, const struct tb_record *r)
{
    if (r->payload.len < 4 || !tb_salvage_account(g, r->acct) ||
        !tb_salvage_mailbox(g, r->acct, tb_get_le32(r->payload.ptr)))
        return TB_CORRUPT;
    return tb_apply(&g->x, r);
}

static enum tb_rc of_account(struct tb_salvage *g, const struct tb_record *r)
{
    return tb_salvage_account(g, r->acct) ? tb_apply(&g->x, r) : TB_CORRUPT;
}

static enum tb_rc leave_out(struct tb_salvage *g, const struct tb_record *r)
{
    (void)g;
    (void)r;
    return TB_OK; /* segments are counted anew; skips are made anew */
}

static enum tb_rc (*const menders[])(struct tb_salvage *g, const struct tb_record *r) = {
    [TB_REC_BLOB] = blob,           [TB_REC_ADD] = add,
    [TB_REC_COPY] = copy,           [TB_REC_MOVED] = moved,
    [TB_REC_UNEXPUNGE] = unexpunge, [TB_REC_MBOX] = mbox,
    [TB_REC_RENAME] = rename_to,    [TB_REC_UNDELETE] = undelete,
    [TB_REC_FLAGS] = of_mailbox,    [TB_REC_EXPUNGE] = of_mailbox,
    [TB_REC_KEYWORD] = of_mailbox,  [TB_REC_MBOX_DELETE] = of_mailbox,
    [TB_REC_RULE] = of_mailbox,     [TB_REC_TRIM] = of_mailbox,
    [TB_REC_ACL] = of_mailbox,      [TB_REC_ANNOT] = of_mailbox,
    [TB_REC_SUB] = of_account,      [TB_REC_QUOTA] = of_account,
    [TB_REC_SKIP] = of_account,     [TB_REC_ACCT_DELETE] = of_account,
    [TB_REC_SEGMENT] = leave_out,
};

enum tb_rc tb_salvage_record(void *user, const struct tb_record *r)
{
    struct tb_salvage *g = user;
    bool mends = r->type < TB_ARRAY_LEN(menders) && menders[r->type] != NULL;
    enum tb_rc rc = mends ? menders[r->type](g, r) : tb_apply(&g->x, r);
    g->out->records++;
    if (!good(g))
        return tb_index_rc(g->x.ix);
    g->out->unusable += rc != TB_OK && r->type != TB_REC_PURGE;
    return g->no_memory ? TB_LIMIT : TB_OK;
}
