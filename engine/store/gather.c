/*
 * gather.c: walks the messages of a set and brings what SORT and THREAD order them by.
 *
 * Rows come from the packed scan, the rest from the cached envelope. A message without one (BUSY, CORRUPT) has its
 * header read and scanned again, one at a time; nothing ever reads a body. What cannot be read is ordered as a message
 * without a header. Thread: the account's owner.
 */
#include "engine/store/sort_internal.h"

#include "engine/store/shard.h"

enum { COST_READ = 8000 };

void tb_gather_init(struct tb_gather *g, struct tb_view *v, const struct tb_uidset *uids, bool rows_only,
                    void (*resume)(void *user), void *user)
{
    *g = (struct tb_gather){.view = v, .uids = uids, .rows_only = rows_only, .resume = resume, .user = user};
    g->next_uid = uids->n > 0 ? uids->v[0].first : 0;
}

static void header_close(struct tb_gather *g)
{
    tb_body_close(g->body);
    tb_mime_free(g->mime);
    g->body = NULL;
    g->mime = NULL;
}

void tb_gather_free(struct tb_gather *g)
{
    header_close(g);
}

/* The next row of the set, or NULL. */
static const struct tb_row *row_next(struct tb_gather *g)
{
    for (;;) {
        if (g->rows_at == g->rows_n) {
            if (g->next_uid == 0)
                return NULL;
            g->rows_n = tb_view_scan(g->view, g->next_uid, g->row, TB_GATHER_ROWS);
            g->rows_at = 0;
            g->cost += TB_ORDER_COST_ROW * (g->rows_n + 4);
            uint32_t last = g->rows_n > 0 ? g->row[g->rows_n - 1].uid : UINT32_MAX;
            g->next_uid = last == UINT32_MAX ? 0 : last + 1;
            continue;
        }
        const struct tb_row *row = &g->row[g->rows_at];
        while (g->range < g->uids->n && g->uids->v[g->range].last < row->uid)
            g->range++;
        if (g->range == g->uids->n) {
            g->next_uid = 0;
            g->rows_at = g->rows_n;
            return NULL;
        }
        uint32_t first = g->uids->v[g->range].first;
        if (row->uid >= first)
            return row;
        while (g->rows_at < g->rows_n && g->row[g->rows_at].uid < first)
            g->rows_at++;
        if (g->rows_at == g->rows_n && g->next_uid != 0 && g->next_uid < first)
            g->next_uid = first;
    }
}

/* ---- a header that is not cached ---- */

static void header_got(struct tb_op *op)
{
    struct tb_gather *g = op->user;
    g->waiting = false;
    if (op->rc == TB_OK && op->data.len > 0) {
        uint64_t left = tb_body_header_size(g->body) - g->at;
        struct tb_slice bytes = tb_slice_sub(op->data, 0, left < SIZE_MAX ? (size_t)left : SIZE_MAX);
        tb_mime_feed(g->mime, bytes);
        g->at += bytes.len;
        g->cost += bytes.len;
    } else { /* damaged: what was read so far is what it is ordered by */
        g->at = tb_body_header_size(g->body);
    }
    g->resume(g->user);
}

static enum tb_gathered header_more(struct tb_gather *g, struct tb_facts *out)
{
    struct tb_mime_result r;
    uint64_t end = tb_body_header_size(g->body);
    if (g->at < end && g->at < TB_MIME_HEADER_MAX) {
        g->cost += COST_READ;
        g->waiting = true;
        g->read = (struct tb_op){.done = header_got, .user = g};
        tb_body_read(g->body, g->at, &g->read);
        return TB_GATHER_WAIT;
    }
    if (tb_mime_finish(g->mime, &r) != TB_OK) {
        g->rc = TB_LIMIT;
        return TB_GATHER_END;
    }
    tb_body_close(g->body);
    g->body = NULL; /* what out borrows is the scanner's */
    out->envelope = r.envelope;
    out->subject_base = r.subject_base;
    out->references = r.references;
    out->message_id = r.message_id;
    g->rows_at++;
    return TB_GATHER_ONE;
}

static enum tb_gathered header_begin(struct tb_gather *g, struct tb_facts *out)
{
    enum tb_rc rc = tb_body_open(g->view, out->row->uid, &g->body);
    g->at = 0;
    g->mime = rc == TB_OK ? tb_mime_new() : NULL;
    if (rc == TB_LIMIT || (rc == TB_OK && g->mime == NULL)) {
        g->rc = TB_LIMIT;
        return TB_GATHER_END;
    }
    if (rc == TB_OK)
        return header_more(g, out);
    g->rows_at++;
    return TB_GATHER_ONE;
}

enum tb_gathered tb_gather_next(struct tb_gather *g, struct tb_facts *out)
{
    struct tb_cached cached;
    if (g->waiting)
        return TB_GATHER_WAIT;
    if (g->body == NULL)
        header_close(g);
    *out = (struct tb_facts){.row = row_next(g)};
    if (g->rc != TB_OK || out->row == NULL)
        return TB_GATHER_END;
    if (g->body != NULL)
        return header_more(g, out);
    if (g->rows_only) {
        g->rows_at++;
        return TB_GATHER_ONE;
    }
    g->cost += TB_ORDER_COST_CACHED;
    if (tb_cached_get(g->view, out->row->uid, &cached) != TB_OK)
        return header_begin(g, out);
    out->envelope = cached.envelope;
    out->subject_base = cached.subject_base;
    out->references = cached.references;
    out->message_id = cached.message_id;
    g->rows_at++;
    return TB_GATHER_ONE;
}

int64_t tb_sent_date(struct tb_slice date, const struct tb_row *row)
{
    struct tb_date d;
    return date.ptr != NULL && tb_date_parse(date, &d) ? d.utc_s : row->internaldate;
}

/* ---- steps ---- */

static void ready_done(struct tb_op *ready)
{
    struct tb_steps *s = ready->user;
    struct tb_op *op = s->op;
    s->op = NULL;
    s->due = false;
    op->rc = s->rc;
    op->done(op);
}

void tb_steps_end(struct tb_steps *s, bool more)
{
    s->op->result = more && s->rc == TB_OK;
    s->ready = (struct tb_op){.done = ready_done, .user = s};
    s->due = true;
    tb_worker_ready(tb_account_worker(tb_view_account(s->view)), &s->ready, s->rc);
}

void tb_steps_free(struct tb_steps *s)
{
    if (s->due)
        (void)tb_worker_forget(tb_account_worker(tb_view_account(s->view)), &s->ready);
    s->due = false;
}
