/*
 * search.c: SEARCH over a view: rows by the scan, the dear questions by slots that each fetch one message.
 *
 * A message is asked in the order of cost: its row, its cached envelope, its header, its text; each only while the
 * answer is open. SLOTS messages are in flight at once, so their reads overlap; results are a set, so their order does
 * not matter. It must never run the caller's done inside of tb_search_step, and never work much longer than SLICE_COST
 * before it lets others run.
 *
 * Q1 A slot WAITING has exactly one read in flight and touches nothing else; a slot READY has bytes at hand or a
 * decision to make.
 *
 * Q2 A step is under way (op set) or no done of ours is due; reads of slots may end between steps and only mark the
 * slot.
 *
 * Q3 Memory is bounded by SLOTS times a header, a window and a piece, whatever the messages are.
 *
 * Thread: the account's owner. RFC 9051 6.4.4.
 */
#include "engine/store/search_internal.h"

#include <stdlib.h>

#include "engine/mime/mime.h"
#include "engine/store/shard.h"

enum {
    SLOTS = 8,
    ROWS = 256,
    SLICE_COST = 512 << 10, /* one is about a nanosecond */
    COST_SCAN = 1000,
    COST_ROW = 60,
    COST_CACHED = 2500,
    COST_READ = 8000,
    CHUNK = 16 << 10,            /* bytes of text looked at in one go */
    ENVELOPE_TRUSTED = 60 << 10, /* a longer one may have been cut */
    ARENA_MAX = 512 << 10,
    WINDOW_MAX = 8 << 20
};

enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_READY };
enum slot_stage { STAGE_HEADER, STAGE_SCAN, STAGE_PARTS };

struct slot {
    struct tb_search *search;
    enum slot_state state;
    enum slot_stage stage;
    struct tb_row row;
    struct tb_truth truth; /* owned */
    struct tb_body *body;  /* owned */
    struct tb_op op;
    enum tb_rc rc;        /* of the last read */
    struct tb_slice data; /* the body's, from message offset data_at */
    uint64_t data_at, at; /* at: the next byte wanted */
    struct tb_buf header, parts, decoded;
    struct tb_text_window window;
    struct tb_mime *mime; /* owned; only when the table of parts is not kept */
    /* the walk over the parts: the range being read */
    size_t cursor;
    struct tb_part part;
    uint64_t range_end;
    struct tb_text_stream text;
    bool in_header, in_text, body_due, after_message, enclosed;
};

struct tb_search {
    struct tb_view *view;
    struct tb_search_program program;
    struct tb_truth truth; /* of the row being looked at */
    struct tb_uidset found;
    struct tb_arena arena;
    struct tb_row rows[ROWS];
    size_t rows_n, rows_at;
    uint32_t next_uid; /* of the next scan; 0 = no more */
    size_t range;      /* of program.within: those before it are done */
    uint64_t modseq;   /* the highest found */
    uint64_t cost;
    enum tb_rc rc;
    struct tb_op *op; /* the step under way */
    struct tb_op ready;
    bool ready_due;
    struct slot slot[SLOTS];
};

static void run(struct tb_search *s);

/* ---- life ---- */

static void slot_init(struct slot *t, struct tb_search *s)
{
    t->search = s;
    tb_buf_init(&t->header, TB_MIME_HEADER_MAX);
    tb_buf_init(&t->parts, WINDOW_MAX);
    tb_buf_init(&t->decoded, WINDOW_MAX);
    tb_buf_init(&t->window.folded, WINDOW_MAX);
}

/* A buffer that a big message has grown is not kept for the small ones. */
static void buf_shrink(struct tb_buf *b)
{
    if (b->cap > MIME_KEEP_BYTES || b->failed)
        tb_buf_free(b);
    b->len = 0;
}

/* The message is decided: let go of it. */
static void slot_release(struct slot *t)
{
    if (t->in_text)
        tb_text_stream_end(&t->text, &t->decoded);
    t->in_text = t->in_header = false;
    tb_body_close(t->body);
    t->body = NULL;
    tb_mime_free(t->mime);
    t->mime = NULL;
    t->data = tb_slice(NULL, 0);
    buf_shrink(&t->header);
    buf_shrink(&t->parts);
    buf_shrink(&t->decoded);
    buf_shrink(&t->window.folded);
    t->state = SLOT_FREE;
}

static void slot_free(struct slot *t)
{
    slot_release(t);
    tb_truth_free(&t->truth);
    tb_buf_free(&t->header);
    tb_buf_free(&t->parts);
    tb_buf_free(&t->decoded);
    tb_buf_free(&t->window.folded);
}

static bool slots_init(struct tb_search *s)
{
    for (int i = 0; i < SLOTS; i++)
        slot_init(&s->slot[i], s);
    for (int i = 0; i < SLOTS && s->program.deep; i++) {
        if (!tb_truth_init(&s->slot[i].truth, &s->program))
            return false;
    }
    return true;
}

static void keywords_find(struct tb_search *s)
{
    for (uint32_t i = 0; i < s->program.n; i++) {
        struct tb_search_node *node = &s->program.node[i];
        uint32_t bit;
        if (node->op != TB_SEARCH_KEYWORD)
            continue;
        node->never = tb_keyword(tb_view_account(s->view), tb_view_mbox(s->view), node->key->text, false, &bit) !=
                      TB_OK;
        node->keyword = node->never ? 0 : (uint64_t)1 << bit;
    }
}

enum tb_rc tb_search_begin(struct tb_view *v, const struct tb_search_key *key, int64_t now_s, struct tb_search **out)
{
    struct tb_search *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TB_LIMIT;
    s->view = v;
    tb_uidset_init(&s->found);
    tb_arena_init(&s->arena, ARENA_MAX);
    enum tb_rc rc = tb_program_init(&s->program, key, now_s);
    if (rc != TB_OK)
        goto undo_search;
    rc = TB_LIMIT;
    if (!tb_truth_init(&s->truth, &s->program) || !slots_init(s))
        goto undo_program;
    keywords_find(s);
    s->next_uid = s->program.uid_first <= s->program.uid_last ? s->program.uid_first : 0;
    *out = s;
    return TB_OK;
undo_program:
    for (int i = 0; i < SLOTS; i++)
        slot_free(&s->slot[i]);
    tb_truth_free(&s->truth);
    tb_program_free(&s->program);
undo_search:
    free(s);
    return rc;
}

void tb_search_end(struct tb_search *s)
{
    if (s == NULL)
        return;
    if (s->ready_due)
        (void)tb_worker_forget(tb_account_worker(tb_view_account(s->view)), &s->ready);
    for (int i = 0; i < SLOTS; i++)
        slot_free(&s->slot[i]);
    tb_truth_free(&s->truth);
    tb_program_free(&s->program);
    tb_uidset_free(&s->found);
    tb_arena_free(&s->arena);
    free(s);
}

const struct tb_uidset *tb_search_found(const struct tb_search *s)
{
    return &s->found;
}

uint64_t tb_search_modseq(const struct tb_search *s)
{
    return s->modseq;
}

uint32_t tb_search_at(const struct tb_search *s)
{
    return s->rows_at < s->rows_n ? s->rows[s->rows_at].uid : s->next_uid == 0 ? UINT32_MAX : s->next_uid;
}

/* ---- steps ---- */

static void ready_done(struct tb_op *ready)
{
    struct tb_search *s = ready->user;
    struct tb_op *op = s->op;
    s->op = NULL;
    s->ready_due = false;
    op->rc = s->rc;
    op->done(op);
}

/* End the step; its done runs from the loop. */
static void step_end(struct tb_search *s, bool more)
{
    s->op->result = more && s->rc == TB_OK;
    s->ready = (struct tb_op){.done = ready_done, .user = s};
    s->ready_due = true;
    tb_worker_ready(tb_account_worker(tb_view_account(s->view)), &s->ready, s->rc);
}

void tb_search_step(struct tb_search *s, struct tb_op *op)
{
    s->op = op;
    s->cost = 0;
    run(s);
}

static void decided(struct tb_search *s, const struct tb_row *row, enum tb_tri answer)
{
    if (answer != TB_TRI_TRUE)
        return;
    tb_uidset_add(&s->found, row->uid, row->uid);
    if (row->modseq > s->modseq)
        s->modseq = row->modseq;
    if (s->found.failed)
        s->rc = TB_LIMIT;
}

/* ---- a message's bytes ---- */

static void slot_got(struct tb_op *op)
{
    struct slot *t = op->user;
    t->state = SLOT_READY;
    t->rc = op->rc;
    t->data = op->rc == TB_OK ? op->data : tb_slice(NULL, 0);
    t->data_at = t->at;
    if (t->rc == TB_OK && t->data.len == 0)
        t->rc = TB_CORRUPT; /* shorter than its row says */
    if (t->search->op != NULL && !t->search->ready_due)
        run(t->search);
}

static void slot_read(struct slot *t)
{
    t->state = SLOT_WAITING;
    t->search->cost += COST_READ;
    t->op = (struct tb_op){.done = slot_got, .user = t};
    tb_body_read(t->body, t->at, &t->op);
}

/* The bytes at hand from `at` to `end`, at most CHUNK; none: they must be read. */
static struct tb_slice at_hand(struct slot *t, uint64_t end)
{
    if (t->at < t->data_at || t->at - t->data_at >= t->data.len)
        return tb_slice(NULL, 0);
    uint64_t most = end - t->at < CHUNK ? end - t->at : CHUNK;
    struct tb_slice s = tb_slice_sub(t->data, (size_t)(t->at - t->data_at), (size_t)most);
    t->at += s.len;
    t->search->cost += s.len;
    return s;
}

/* ---- stages: each returns false when it needs bytes, true when it made progress ---- */

/* The answer as it stands; a known one frees the slot. */
static bool slot_decide(struct slot *t, bool final)
{
    struct tb_search *s = t->search;
    if (final)
        tb_truth_settle(&s->program, &t->truth);
    enum tb_tri answer = tb_truth_reduce(&s->program, &t->truth);
    if (answer == TB_TRI_UNKNOWN)
        return false;
    decided(s, &t->row, answer);
    slot_release(t);
    return true;
}

static void walk_begin(struct slot *t)
{
    t->stage = STAGE_PARTS;
    t->cursor = 0;
    t->in_header = t->in_text = t->body_due = t->after_message = false;
}

static void text_begin(struct slot *t)
{
    t->stage = STAGE_SCAN;
    t->at = 0;
    if (t->parts.len > 0)
        walk_begin(t);
    else if (t->mime == NULL && (t->mime = tb_mime_new()) == NULL)
        t->search->rc = TB_LIMIT;
}

static bool stage_header(struct slot *t)
{
    struct tb_search *s = t->search;
    uint64_t end = t->row.header_size < s->program.header_max ? t->row.header_size : s->program.header_max;
    while (t->at < end) {
        struct tb_slice bytes = at_hand(t, end);
        if (bytes.len == 0)
            return false;
        tb_buf_slice(&t->header, bytes);
    }
    s->cost += t->header.len * s->program.texts;
    tb_eval_header(&s->program, &t->truth, &t->row, tb_buf_all(&t->header));
    if (!slot_decide(t, false))
        text_begin(t);
    return true;
}

/* The table of parts is not kept for this message: make it. */
static bool stage_scan(struct slot *t)
{
    struct tb_mime_result r;
    struct tb_slice bytes = at_hand(t, t->row.size);
    if (bytes.len > 0) {
        tb_mime_feed(t->mime, bytes);
        return true;
    }
    if (t->at < t->row.size)
        return false;
    if (tb_mime_finish(t->mime, &r) == TB_OK)
        tb_buf_slice(&t->parts, r.parts);
    else
        t->search->rc = TB_LIMIT;
    tb_mime_free(t->mime);
    t->mime = NULL;
    walk_begin(t);
    return true;
}

/* The next header block or text body that a key may match; false at the end. */
static bool range_next(struct slot *t)
{
    for (;;) {
        if (t->body_due) {
            t->body_due = false;
            if (t->part.kind != TB_PART_TEXT || t->part.body_size == 0)
                continue;
            t->at = t->part.body_offset;
            t->range_end = t->at + t->part.body_size;
            t->in_text = true;
            t->window.folded.len = 0;
            tb_text_stream_begin(&t->text, t->part.encoding, t->part.charset);
            return true;
        }
        if (tb_parts_next(tb_buf_all(&t->parts), &t->cursor, &t->part) != TB_OK)
            return false;
        t->enclosed = t->after_message;
        t->after_message = t->part.kind == TB_PART_MESSAGE;
        t->body_due = true;
        if (t->part.index == 0 || t->part.header_size == 0)
            continue;
        t->at = t->part.header_offset;
        t->range_end = t->at +
                       (t->part.header_size < TB_MIME_PART_HEADER_MAX ? t->part.header_size : TB_MIME_PART_HEADER_MAX);
        t->in_header = true;
        t->header.len = 0;
        return true;
    }
}

/* The end of a range; true if a key became true. */
static bool range_end(struct slot *t)
{
    struct tb_search_program *p = &t->search->program;
    if (t->in_header) {
        t->in_header = false;
        return tb_eval_part_header(p, &t->truth, tb_buf_all(&t->header), t->enclosed);
    }
    t->in_text = false;
    t->decoded.len = 0;
    tb_text_stream_end(&t->text, &t->decoded);
    return t->decoded.len > 0 && tb_eval_text(p, &t->truth, &t->window, tb_buf_all(&t->decoded));
}

static bool stage_parts(struct slot *t)
{
    struct tb_search_program *p = &t->search->program;
    bool found = false;
    if (!t->in_header && !t->in_text && !range_next(t)) {
        (void)slot_decide(t, true); /* everything was seen: it is decided now */
        return true;
    }
    if (t->at < t->range_end) {
        struct tb_slice bytes = at_hand(t, t->range_end);
        if (bytes.len == 0)
            return false;
        t->search->cost += bytes.len * p->texts;
        if (t->in_header) {
            tb_buf_slice(&t->header, bytes);
        } else {
            t->decoded.len = 0;
            tb_text_stream_put(&t->text, bytes, &t->decoded);
            found = tb_eval_text(p, &t->truth, &t->window, tb_buf_all(&t->decoded));
        }
    }
    if (t->at == t->range_end)
        found |= range_end(t);
    if (found)
        (void)slot_decide(t, false); /* still open: go on */
    return true;
}

/* Work on one message until it is decided, needs bytes or the slice is over. */
static void slot_run(struct slot *t)
{
    struct tb_search *s = t->search;
    if (t->rc == TB_CORRUPT || t->rc == TB_IO) { /* a damaged message does not match; the engine has complained */
        slot_release(t);
        return;
    }
    if (t->rc != TB_OK) {
        s->rc = t->rc;
        slot_release(t);
        return;
    }
    while (t->state == SLOT_READY && s->rc == TB_OK && s->cost < SLICE_COST) {
        bool moved = t->stage == STAGE_HEADER ? stage_header(t)
                     : t->stage == STAGE_SCAN ? stage_scan(t)
                                              : stage_parts(t);
        if (!moved)
            slot_read(t);
    }
}

/* ---- rows ---- */

/* What the cache knows; the parts are copied, because the cache's bytes live until its next call. */
static enum tb_tri ask_cache(struct tb_search *s, struct slot *t)
{
    struct tb_cached cached;
    struct tb_envelope e;
    struct tb_search_program *p = &s->program;
    s->cost += COST_CACHED;
    if (tb_cached_get(s->view, t->row.uid, &cached) != TB_OK)
        return TB_TRI_UNKNOWN;
    if (tb_truth_needs_text(p, &t->truth))
        tb_buf_slice(&t->parts, cached.parts);
    if (cached.envelope.len > ENVELOPE_TRUSTED)
        return TB_TRI_UNKNOWN;
    tb_arena_reset(&s->arena);
    if (tb_envelope_read(cached.envelope, &s->arena, &e) != TB_OK)
        return TB_TRI_UNKNOWN;
    tb_eval_envelope(p, &t->truth, &t->row, &e);
    return tb_truth_reduce(p, &t->truth);
}

/* A row that did not decide itself. */
static void slot_begin(struct tb_search *s, struct slot *t, const struct tb_row *row)
{
    t->row = *row;
    memcpy(t->truth.value, s->truth.value, 3 * (size_t)s->program.n);
    enum tb_tri answer = ask_cache(s, t);
    if (answer != TB_TRI_UNKNOWN) {
        decided(s, row, answer);
        slot_release(t);
        return;
    }
    enum tb_rc rc = tb_body_open(s->view, row->uid, &t->body);
    if (rc != TB_OK) { /* gone or damaged: no match */
        if (rc == TB_LIMIT)
            s->rc = rc;
        slot_release(t);
        return;
    }
    t->rc = TB_OK;
    t->stage = STAGE_HEADER;
    t->at = t->data_at = 0;
    t->state = SLOT_READY;
    if (!tb_truth_needs_header(&s->program, &t->truth))
        text_begin(t);
    slot_run(t);
}

/* within: from next_uid on, the first UID that may match and how many follow it in one range; 0: there are none. */
static uint32_t within(struct tb_search *s)
{
    const struct tb_uidset *set = s->program.within;
    if (set == NULL)
        return ROWS;
    while (s->range < set->n && set->v[s->range].last < s->next_uid)
        s->range++;
    if (s->range == set->n)
        return 0;
    const struct tb_range *r = &set->v[s->range];
    if (r->first > s->next_uid)
        s->next_uid = r->first;
    return r->last - s->next_uid < ROWS ? r->last - s->next_uid + 1 : ROWS;
}

static bool rows_more(struct tb_search *s)
{
    if (s->rows_at < s->rows_n)
        return true;
    if (s->next_uid == 0)
        return false;
    uint32_t most = within(s);
    s->rows_n = most > 0 ? tb_view_scan(s->view, s->next_uid, s->rows, most) : 0;
    s->rows_at = 0;
    s->cost += COST_SCAN;
    if (s->rows_n == 0) {
        s->next_uid = 0;
        return false;
    }
    uint32_t last = s->rows[s->rows_n - 1].uid;
    s->next_uid = last >= s->program.uid_last || last == UINT32_MAX ? 0 : last + 1;
    return true;
}

static struct slot *slot_in_state(struct tb_search *s, enum slot_state state)
{
    for (int i = 0; i < SLOTS; i++) {
        if (s->slot[i].state == state)
            return &s->slot[i];
    }
    return NULL;
}

/* Rows until the slice or the free slots are used up; false when there are no more. */
static bool rows_run(struct tb_search *s)
{
    while (s->rc == TB_OK && s->cost < SLICE_COST) {
        struct slot *t = s->program.deep ? slot_in_state(s, SLOT_FREE) : NULL;
        if (s->program.deep && t == NULL)
            return true;
        if (!rows_more(s))
            return false;
        const struct tb_row *row = &s->rows[s->rows_at++];
        s->cost += COST_ROW + 4 * s->program.n;
        if (row->uid > s->program.uid_last)
            continue;
        tb_eval_row(&s->program, &s->truth, row);
        enum tb_tri answer = tb_truth_reduce(&s->program, &s->truth);
        if (answer != TB_TRI_UNKNOWN)
            decided(s, row, answer);
        else
            slot_begin(s, t, row);
    }
    return true;
}

static void run(struct tb_search *s)
{
    for (;;) {
        struct slot *t;
        while (s->rc == TB_OK && s->cost < SLICE_COST && (t = slot_in_state(s, SLOT_READY)) != NULL)
            slot_run(t);
        bool rows = rows_run(s);
        if (s->rc != TB_OK || s->cost >= SLICE_COST) {
            step_end(s, true);
            return;
        }
        if (slot_in_state(s, SLOT_READY) != NULL)
            continue;
        if (slot_in_state(s, SLOT_WAITING) != NULL)
            return; /* a read's done goes on */
        if (!rows) {
            step_end(s, false);
            return;
        }
    }
}
