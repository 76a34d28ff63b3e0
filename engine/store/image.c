/*
 * image.c: the last step of every delivery: a compressed message becomes one BLOB and its ADDs, in one frame (S2). The
 * BLOB has its body, or names an equal one that the account has (dedup.c). The messages of a batch, and what one of
 * them replaces, are one frame too.
 *
 * The same for what a session on this thread wrote, what another worker prepared, and what a queue holds after a crash.
 * Thread: the shard's owner.
 */
#include "engine/store/shard.h"

#include "engine/base/rules.h"

size_t tb_image_bytes(const struct tb_image *img)
{
    uint8_t head[TB_BLOB_ENCODED_MAX];
    return tb_blob_encode(&img->head, head) + img->header.len + img->list.len + img->rest.len;
}

void tb_image_write(const struct tb_image *img, uint8_t *out)
{
    out += tb_blob_encode(&img->head, out);
    const struct tb_slice part[] = {img->header, img->list, img->rest};
    for (size_t i = 0; i < TB_ARRAY_LEN(part); i++)
        if (part[i].len > 0) {
            memcpy(out, part[i].ptr, part[i].len);
            out += part[i].len;
        }
}

bool tb_image_read(struct tb_slice payload, struct tb_image *out)
{
    struct tb_slice rest = payload;
    if (!tb_blob_decode(&rest, &out->head) || out->head.shared || out->head.head.clen > rest.len ||
        out->head.head.raw_len > out->head.size)
        return false;
    out->header = tb_slice_sub(rest, 0, out->head.head.clen);
    rest = tb_slice_sub(rest, out->header.len, rest.len);
    size_t list = out->head.pieces > 1 ? out->head.pieces * sizeof(struct tb_disk_piece) : 0;
    out->list = tb_slice_sub(rest, 0, list);
    out->rest = tb_slice_sub(rest, list, rest.len);
    return out->list.len == list && out->rest.len >= out->head.only.clen;
}

/* before: how many of the targets so far go to this account? */
static uint64_t before(struct tb_delivery_target *const *targets, size_t n, uint32_t acct)
{
    uint64_t same = 0;
    for (size_t i = 0; i < n; i++)
        same += targets[i]->rc == TB_OK && targets[i]->id.acct == acct;
    return same;
}

/* resolve: which mailbox has target i, and may it take the message? queued: it was answered for already, so a quota is
 * no reason any more. */
static void resolve(struct tb_shard *s, struct tb_delivery_target **targets, size_t i, uint64_t size, bool queued,
                    uint32_t *mbox)
{
    struct tb_delivery_target *t = targets[i];
    struct tb_disk_acct acct;
    struct tb_disk_mbox m;
    t->rc = TB_NOTFOUND;
    if (!tb_acct_get(s->ix, t->id.acct, &acct) || acct.flags & TB_ACCT_DELETED)
        return;
    *mbox = t->mbox != 0 ? t->mbox : tb_mailbox_number(s, t->id.acct, t->mailbox);
    bool there = *mbox != 0 && tb_mbox_get(s->ix, t->id.acct, *mbox, &m, NULL) && !(m.flags & TB_MBOX_NOSELECT);
    if (!there && t->is_append)
        return;
    if (!there) {
        *mbox = TB_MBOX_INBOX;
        there = tb_mbox_get(s->ix, t->id.acct, *mbox, &m, NULL);
    }
    t->rc = TB_BUSY; /* a COPY is on its way there: its UIDs come first */
    if (there && m.staged != 0)
        return;
    bool limited = !queued && (acct.quota_bytes != 0 || acct.quota_messages != 0);
    uint64_t more = limited ? 1 + before(targets, i, t->id.acct) : 0;
    t->rc = limited ? tb_quota_fits(&acct, more, more * size, 0) : TB_OK;
}

static enum tb_rc add(struct tb_shard *s, const struct tb_image *img, uint64_t blob, struct tb_delivery_target *t,
                      uint32_t mbox, int64_t now, const uint8_t *delivery)
{
    struct tb_disk_mbox m;
    struct tb_disk_acct acct;
    uint64_t keywords;
    (void)tb_keyword_bits(s, t->id.acct, mbox, t->keywords, t->keywords_n, &keywords); /* a 65th keyword is dropped */
    if (!tb_mbox_get(s->ix, t->id.acct, mbox, &m, NULL) || !tb_acct_get(s->ix, t->id.acct, &acct) ||
        m.uidnext == UINT32_MAX)
        return TB_LIMIT;
    struct tb_pay_add p = {.mbox = mbox};
    p.row = (struct tb_disk_row){.uid = m.uidnext,
                                 .flags = t->flags,
                                 .modseq = acct.modseq + 1,
                                 .keywords = keywords,
                                 .internaldate = t->internaldate,
                                 .savedate = now,
                                 .blob = blob,
                                 .size = (uint32_t)img->head.size,
                                 .header_size = img->head.header_size};
    uint8_t flags = TB_ADD_COUNTED, out[TB_ADD_ENCODED_MAX];
    if (delivery != NULL) {
        flags |= TB_ADD_QUEUED;
        memcpy(p.delivery, delivery, sizeof(p.delivery));
    }
    tb_shard_record(s, TB_REC_ADD, flags, t->id.acct, tb_slice(out, tb_add_encode(&p, flags, out)), tb_slice(NULL, 0),
                    tb_slice(NULL, 0));
    t->uid = p.row.uid;
    t->uidvalidity = m.uidvalidity;
    return TB_OK;
}

static size_t keyword_bytes(const struct tb_delivery_target *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->keywords_n; i++)
        n += t->keywords[i].len + sizeof(struct tb_pay_keyword) + sizeof(struct tb_disk_record);
    return n;
}

static void all_fail(struct tb_delivery_target **targets, size_t n, enum tb_rc rc)
{
    for (size_t i = 0; i < n; i++)
        targets[i]->rc = rc;
}

/* share: the body is stored already, so the record names it and leaves out its bytes, its pieces and its hash. */
static void share(struct tb_image *img)
{
    img->rest = tb_slice_sub(img->rest, img->head.only.clen, img->rest.len);
    img->list = tb_slice(NULL, 0);
    memset(&img->head.only, 0, sizeof(img->head.only));
    img->head.pieces = 0;
    img->head.hashed = false;
    img->head.shared = true;
    img->head.body = img->share;
}

static uint64_t store_blob(struct tb_shard *s, const struct tb_image *img, uint32_t refs, uint32_t acct)
{
    struct tb_image mine = *img;
    mine.head.blob = mine.head.body = s->x.state.next_blob;
    mine.head.refs = refs;
    mine.head.hashed = img->head.hashed && !s->store->cfg.no_dedup;
    if (mine.head.hashed)
        tb_dedup_key(s->store, acct, &img->head, mine.head.hash);
    if (mine.head.hashed && img->share != 0 &&
        tb_dedup_holds(s, mine.head.hash, img->share, img->head.size - img->head.head.raw_len))
        share(&mine);
    tb_image_write(&mine, tb_shard_fill(s, TB_REC_BLOB, 0, 0, tb_image_bytes(&mine), NULL));
    tb_shard_filled(s);
    return mine.head.blob;
}

enum tb_rc tb_image_deliver(struct tb_shard *s, const struct tb_image *img, struct tb_delivery_target **targets,
                            size_t n, bool all, const uint8_t *delivery, struct tb_slice queue, uint64_t *queue_id)
{
    uint32_t mbox[TB_DELIVERY_TARGETS_MAX], good = 0, keywords = 0, first = 0;
    size_t bytes = tb_image_bytes(img) + 3 * 10 + queue.len; /* blob, body and refs may grow */
    enum tb_rc worst = TB_OK;
    for (size_t i = 0; i < n; i++) {
        resolve(s, targets, i, img->head.size, delivery != NULL, &mbox[i]);
        if (targets[i]->rc == TB_BUSY) {
            all_fail(targets, n, TB_BUSY);
            return TB_BUSY;
        }
        if (targets[i]->rc != TB_OK) {
            worst = worst == TB_OK ? targets[i]->rc : worst;
            continue;
        }
        first = good++ == 0 ? targets[i]->id.acct : first;
        keywords += (uint32_t)targets[i]->keywords_n;
        bytes += TB_ADD_ENCODED_MAX + keyword_bytes(targets[i]);
    }
    if (good == 0 || (all && worst != TB_OK)) {
        if (all)
            all_fail(targets, n, worst);
        return worst;
    }
    enum tb_rc rc = tb_retire_refuses(s, img) ? TB_NOSPACE : tb_shard_admit(s, bytes, 2 + good + keywords, ADMIT_CALL);
    if (rc != TB_OK) {
        all_fail(targets, n, rc);
        return rc;
    }
    if (queue.len > 0) {
        uint8_t *out = tb_shard_fill(s, TB_REC_QUEUE, 0, 0, queue.len, queue_id);
        memcpy(out, queue.ptr, queue.len);
        tb_shard_filled(s);
    }
    uint64_t blob = store_blob(s, img, good, first);
    if (!TB_KEEPS(oneframe)) {
        tb_log_boundary(s->log);
        if (tb_shard_admit(s, bytes, 2 + good + keywords, ADMIT_SMALL) != TB_OK)
            return TB_IO;
    }
    int64_t now = tb_io_wall_s(s->worker->io);
    for (size_t i = 0; i < n; i++) {
        struct tb_delivery_target *t = targets[i];
        if (t->rc != TB_OK)
            continue;
        t->rc = add(s, img, blob, t, mbox[i], now, delivery);
        t->position = tb_log_end(s->log);
        tb_shard_touched(s, t->id.acct, mbox[i]);
        s->deliveries++;
    }
    return s->failed ? TB_IO : TB_OK;
}

/* ---- a batch ---- */

/* batch_fits: is the mailbox there, and is there room for all of them? What is replaced makes room. */
static enum tb_rc batch_fits(struct tb_shard *s, struct tb_letter *const *v, size_t n, const struct tb_replaced *old)
{
    const struct tb_delivery_target *t = v[0]->target;
    struct tb_disk_acct acct;
    struct tb_disk_mbox m;
    struct tb_disk_row row = {0};
    uint64_t bytes = 0, less = 0, more = n;
    if (!tb_acct_get(s->ix, t->id.acct, &acct) || acct.flags & TB_ACCT_DELETED ||
        !tb_mbox_get(s->ix, t->id.acct, t->mbox, &m, NULL) || m.flags & TB_MBOX_NOSELECT)
        return TB_NOTFOUND;
    if (m.staged != 0)
        return TB_BUSY; /* a COPY is on its way there: its UIDs come first */
    if (n > UINT32_MAX - m.uidnext)
        return TB_LIMIT;
    if (old->uid != 0 && !tb_rows_get(s->ix, old->acct, old->mbox, old->uid, &row))
        return TB_CONFLICT;
    for (size_t i = 0; i < n; i++) {
        bytes += v[i]->image.head.size;
        if (tb_retire_refuses(s, &v[i]->image))
            return TB_NOSPACE;
    }
    if (old->uid != 0 && old->acct == t->id.acct) {
        less = row.size;
        more--;
    }
    return tb_quota_fits(&acct, more, bytes > less ? bytes - less : 0, 0);
}

/* put_away: what was replaced goes to the trash, as by EXPUNGE. */
static void put_away(struct tb_shard *s, const struct tb_replaced *old)
{
    struct tb_disk_acct row;
    int64_t now = tb_io_wall_s(s->worker->io);
    struct tb_range one = {old->uid, old->uid};
    if (!tb_acct_get(s->ix, old->acct, &row))
        return;
    struct tb_pay_expunge e = {.mbox = old->mbox, .n = 1, .modseq = row.modseq + 1, .due = tb_due(s)};
    tb_shard_record(s, TB_REC_EXPUNGE, TB_EXPUNGE_WHEN, old->acct, tb_slice(&e, sizeof(e)), tb_slice(&now, sizeof(now)),
                    tb_slice(&one, sizeof(one)));
    tb_shard_touched(s, old->acct, old->mbox);
}

enum tb_rc tb_letters_deliver(struct tb_shard *s, struct tb_letter *const *v, size_t n, const struct tb_replaced *old)
{
    size_t bytes = sizeof(struct tb_pay_expunge) + sizeof(int64_t) + sizeof(struct tb_range);
    uint32_t records = 1;
    enum tb_rc rc = batch_fits(s, v, n, old);
    for (size_t i = 0; i < n; i++) {
        bytes += tb_image_bytes(&v[i]->image) + 3 * 10 + TB_ADD_ENCODED_MAX + keyword_bytes(v[i]->target);
        records += 2 + (uint32_t)v[i]->target->keywords_n;
    }
    if (rc == TB_OK)
        rc = tb_shard_admit(s, bytes, records, ADMIT_CALL);
    for (size_t i = 0; i < n; i++)
        v[i]->target->rc = rc;
    if (rc != TB_OK)
        return rc;
    int64_t now = tb_io_wall_s(s->worker->io);
    for (size_t i = 0; i < n && !s->failed; i++) {
        struct tb_delivery_target *t = v[i]->target;
        uint64_t blob = store_blob(s, &v[i]->image, 1, t->id.acct);
        t->rc = add(s, &v[i]->image, blob, t, t->mbox, now, NULL);
        s->deliveries++;
        if (i == n / 2 && i + 1 < n && !TB_KEEPS(batchframe)) {
            tb_log_boundary(s->log);
            if (tb_shard_admit(s, bytes, records, ADMIT_SMALL) != TB_OK)
                return TB_IO;
        }
    }
    if (old->uid != 0 && !s->failed)
        put_away(s, old);
    for (size_t i = 0; i < n; i++)
        v[i]->target->position = tb_log_end(s->log);
    tb_shard_touched(s, v[0]->target->id.acct, v[0]->target->mbox);
    return s->failed ? TB_IO : TB_OK;
}
