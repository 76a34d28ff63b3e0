/*
 * body.c: messages' bytes on their way to a client: a window of messages whose first bytes are being read
 * while the oldest one is being written, in order, at the reader's pace.
 *
 * Invariants
 * B1 responses come in the order of the walk; a response once begun is finished before anything else is written.
 * B2 memory: at most FETCH_WINDOW messages and FETCH_WINDOW_BYTES of them (one message always, at most
 *    FETCH_AHEAD_MAX of it); what is beyond is streamed when its turn comes.
 * B3 a message's response begins when its first bytes were read and verified: a damaged message is left out,
 *    the others go on. Damage found later, inside an announced literal, ends the connection: no byte is
 *    invented.
 * B4 BINARY is decoded twice: once to learn its size, which the literal's head needs, and once to write it; never held
 *    whole.
 * B5 one read in flight per message. A closed window leaves no op behind.
 * Thread: the connection's owner. RFC 3501 6.4.5; RFC 2180 4.1.2 (a message expunged by another session is left out).
 */
#include "imap_fetch.h"

#include <stdlib.h>

enum slot_state { SLOT_NEW, SLOT_READING, SLOT_SCANNING, SLOT_READY, SLOT_WRITING, SLOT_GONE };

struct slot {
    struct imap_window *window;
    struct tb_body *body; /* owned; NULL: not open */
    struct tb_op op;
    struct tb_row row;
    uint32_t seqno;
    uint8_t state;
    bool scan; /* the stored texts are not kept: read it all and scan it */
    bool reading, failed, seen_now, piece_begun;
    enum tb_rc rc;       /* of a failed read */
    struct tb_buf ahead; /* read before its turn, from ahead_at */
    uint64_t ahead_at, ahead_end;
    struct tb_slice run; /* the body's own: what the last read brought, from run_at */
    uint64_t run_at;
    struct imap_piece *pieces; /* arena: of each section */
    struct tb_mime *mime;      /* owned, while scanning and writing */
    struct tb_mime_result scanned;
    uint64_t at; /* scanning: bytes fed; writing: bytes of the present piece written */
    size_t piece;
    struct tb_buf fields; /* a header while it is gathered, then its subset */
    struct binary {
        struct tb_transfer *transfer; /* owned, while a section is decoded */
        uint64_t decoded;             /* so far, in this pass */
        bool measured, nul;
        uint64_t size; /* once measured: of what was asked for */
    } binary;
};

struct imap_window {
    struct imap_session *s;
    struct imap_fetch *f;
    struct slot *slots; /* arena: a ring of cap */
    uint32_t cap, head, count;
    uint64_t bytes; /* reserved by open slots */
};

struct imap_window *imap_window_new(struct imap_session *s, struct imap_fetch *f)
{
    uint32_t cap = f->walk.rows_max < FETCH_WINDOW ? f->walk.rows_max + 1 : FETCH_WINDOW;
    struct imap_window *w = tb_arena_alloc(&s->arena, sizeof *w);
    struct slot *slots = tb_arena_alloc(&s->arena, cap * sizeof *slots);
    struct imap_piece *pieces = tb_arena_alloc(&s->arena, cap * (f->sections_n + 1) * sizeof *pieces);
    if (!w || !slots || !pieces)
        return NULL;
    *w = (struct imap_window){.s = s, .f = f, .slots = slots, .cap = cap};
    for (size_t i = 0; i < cap; i++) {
        slots[i].window = w;
        slots[i].pieces = pieces + i * (f->sections_n + 1);
    }
    return w;
}

static struct slot *slot_at(struct imap_window *w, uint32_t i)
{
    return &w->slots[(w->head + i) % w->cap];
}

static void slot_reset(struct slot *x)
{
    struct imap_window *w = x->window;
    struct imap_piece *pieces = x->pieces;
    if (x->body)
        tb_body_close(x->body);
    if (x->state != SLOT_NEW && x->state != SLOT_GONE)
        w->bytes -= x->ahead_end - x->ahead_at;
    if (x->mime)
        tb_mime_free(x->mime);
    tb_transfer_free(x->binary.transfer);
    tb_buf_free(&x->ahead);
    tb_buf_free(&x->fields);
    *x = (struct slot){.window = w, .pieces = pieces};
}

void imap_window_close(struct imap_window *w)
{
    for (uint32_t i = 0; i < w->count; i++)
        slot_reset(slot_at(w, i));
    w->count = 0;
}

static struct slot *slot_new(struct imap_window *w, const struct tb_row *row, uint32_t seqno)
{
    struct slot *x = slot_at(w, w->count++);
    x->row = *row;
    x->seqno = seqno;
    x->state = SLOT_NEW;
    tb_buf_init(&x->ahead, FETCH_AHEAD_MAX);
    tb_buf_init(&x->fields, 2 * TB_MIME_HEADER_MAX);
    return x;
}

void imap_window_one(struct imap_window *w, const struct tb_row *row, uint32_t seqno)
{
    slot_new(w, row, seqno)->scan = true;
}

/* ---- reading ---- */

static void read_done(struct tb_op *op);

static void read_at(struct slot *x, uint64_t at)
{
    x->run = (struct tb_slice){0};
    x->run_at = at;
    x->reading = true;
    x->op = (struct tb_op){.done = read_done, .user = x};
    tb_body_read(x->body, at, &x->op);
}

static void read_done(struct tb_op *op)
{
    struct slot *x = op->user;
    x->reading = false;
    if (op->rc != TB_OK || op->data.len == 0) {
        x->failed = true;
        x->rc = op->rc != TB_OK ? op->rc : TB_CORRUPT;
    } else {
        x->run = op->data;
        uint64_t got = x->run_at + x->run.len, kept = x->ahead_at + x->ahead.len;
        if (x->run_at == kept && kept < x->ahead_end && (got < x->ahead_end || x->ahead.len > 0)) {
            uint64_t n = got < x->ahead_end ? x->run.len : x->ahead_end - kept;
            tb_buf_put(&x->ahead, x->run.ptr, (size_t)n);
            if (got < x->ahead_end && !x->ahead.failed) {
                read_at(x, got);
                return;
            }
        }
    }
    if (x == slot_at(x->window, 0))
        tb_conn_resume(x->window->s->conn);
}

/* bytes_at: OK: *out begins at `at`; BUSY: they are being read, the session is resumed; CORRUPT, IO. */
static enum tb_rc bytes_at(struct slot *x, uint64_t at, struct tb_slice *out)
{
    if (x->failed)
        return x->rc;
    if (x->reading)
        return TB_BUSY;
    if (at >= x->run_at && at - x->run_at < x->run.len) {
        *out = tb_slice_sub(x->run, (size_t)(at - x->run_at), x->run.len);
        return TB_OK;
    }
    if (at >= x->ahead_at && at - x->ahead_at < x->ahead.len) {
        *out = tb_slice_sub(tb_buf_all(&x->ahead), (size_t)(at - x->ahead_at), x->ahead.len);
        return TB_OK;
    }
    read_at(x, at);
    return TB_BUSY;
}

/* plan: where the sections' bytes are. */
static void plan(struct slot *x, struct tb_slice parts, uint64_t header_size, uint64_t size)
{
    const struct imap_fetch *f = x->window->f;
    for (size_t i = 0; i < f->sections_n; i++)
        imap_section_find(&f->sections[i], parts, header_size, size, &x->pieces[i]);
}

/* read_ahead: what lies together of the first sections' bytes, to FETCH_AHEAD_MAX. */
static void read_ahead(struct slot *x)
{
    enum { GAP = 16 << 10 };
    const struct imap_fetch *f = x->window->f;
    uint64_t from = 0, to = 0;
    for (size_t i = 0; i < f->sections_n; i++) {
        const struct imap_piece *p = &x->pieces[i];
        if (p->nil || p->size == 0)
            continue;
        if (to == 0) {
            from = p->offset;
            to = p->offset + p->size;
        } else if (p->offset >= from && p->offset <= to + GAP && p->offset + p->size > to) {
            to = p->offset + p->size;
        }
    }
    if (x->scan) {
        from = 0;
        to = tb_body_size(x->body);
    }
    if (to - from > FETCH_AHEAD_MAX)
        to = from + FETCH_AHEAD_MAX;
    if (from == 0 && to > tb_body_header_size(x->body))
        tb_body_whole(x->body);
    x->ahead_at = from;
    x->ahead_end = to;
    x->window->bytes += to - from;
    if (to > from)
        read_at(x, from);
}

/* slot_open: NEW to READING, or GONE. */
static void slot_open(struct slot *x)
{
    struct imap_session *s = x->window->s;
    struct imap_fetch *f = x->window->f;
    struct tb_cached texts = {0};
    enum tb_rc rc = TB_OK;
    if (f->needs_parts && !x->scan) {
        rc = tb_cached_get(s->view, x->row.uid, &texts);
        if (rc == TB_BUSY || rc == TB_CORRUPT) {
            x->scan = f->may_scan;
            rc = TB_OK;
        }
    }
    if (rc == TB_OK)
        rc = tb_body_open(s->view, x->row.uid, &x->body);
    if (rc != TB_OK) {
        f->walk.gone |= rc == TB_NOTFOUND;
        f->no_memory |= rc != TB_NOTFOUND;
        x->state = SLOT_GONE;
        return;
    }
    if (!x->scan)
        plan(x, texts.parts, tb_body_header_size(x->body), tb_body_size(x->body));
    x->state = SLOT_READING;
    read_ahead(x);
}

/* open_more: as many as memory allows, the oldest always. */
static void open_more(struct imap_window *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct slot *x = slot_at(w, i);
        if (x->state != SLOT_NEW)
            continue;
        uint64_t most = x->row.size < FETCH_AHEAD_MAX ? x->row.size : FETCH_AHEAD_MAX;
        if (i > 0 && w->bytes + most > FETCH_WINDOW_BYTES)
            return;
        slot_open(x);
    }
}

/* ---- filling ---- */

/*
 * mark_seen: FETCH of a body without PEEK sets \Seen (RFC 3501 6.4.5): one update for all new messages of the
 * window. The view is settled, so that the update's own changes are alone in the next refresh and need not be
 * told twice.
 */
static void mark_seen(struct imap_window *w, uint32_t first, uint8_t how)
{
    struct imap_session *s = w->s;
    struct tb_uidset unseen;
    tb_uidset_init(&unseen);
    for (uint32_t i = first; i < w->count && !s->gone; i++) {
        struct slot *x = slot_at(w, i);
        if (tb_view_row(s->view, x->row.uid, &x->row) == TB_OK && !(x->row.flags & TB_FLAG_SEEN))
            tb_uidset_add(&unseen, x->row.uid, x->row.uid);
    }
    if (unseen.n > 0 && !unseen.failed &&
        tb_flags_update(s->view, &unseen, TB_FLAGS_ADD, TB_FLAG_SEEN, 0, UINT64_MAX, NULL) == TB_OK) {
        for (uint32_t i = first; i < w->count; i++) {
            struct slot *x = slot_at(w, i);
            x->seen_now = tb_uidset_has(&unseen, x->row.uid);
            struct tb_row now;
            if (x->seen_now && tb_view_row(s->view, x->row.uid, &now) == TB_OK)
                x->row = now;
        }
        (void)imap_sync(s, how | SYNC_NO_FLAGS); /* nothing of it can pause but flags */
    }
    tb_uidset_free(&unseen);
}

/* refill_window: further messages from the walk. False: the output is full. */
static bool refill_window(struct imap_window *w)
{
    struct imap_fetch *f = w->f;
    uint32_t seqno, first = w->count;
    uint8_t how = f->sets_seen && w->s->cmd.verb->flags & VERB_UID ? SYNC_UID : 0; /* unasked: no command */
    if (w->count > w->cap / 2)
        return true;
    if (f->sets_seen && !imap_settle(w->s, how))
        return false;
    while (w->count < w->cap) {
        const struct tb_row *row = imap_walk_next(&f->walk, &seqno);
        if (!row)
            break;
        slot_new(w, row, seqno);
    }
    if (f->sets_seen && first < w->count)
        mark_seen(w, first, how);
    return true;
}

/* ---- writing the oldest ---- */

static enum imap_run damaged(struct slot *x, enum tb_rc rc)
{
    struct imap_session *s = x->window->s;
    bool begun = x->state == SLOT_WRITING;
    x->window->f->damaged = true;
    if (begun) { /* the store has said what is damaged; here, what it cost */
        tb_log(TB_LOG_ERROR,
               "connection ended inside a literal proto=imap user=%s id=%s mailbox=%u uid=%u reason=\"%s\"", s->user,
               tb_conn_id(s->conn), tb_view_mbox(s->view), x->row.uid, tb_rc_text(rc));
        tb_conn_abort(s->conn);
        return RUN_CLOSE;
    }
    return RUN_DONE;
}

/* scan: read the whole message through the scanner, then plan with what it found. */
static enum imap_run scan(struct slot *x)
{
    uint64_t size = tb_body_size(x->body), turn = 1 << 20;
    struct tb_slice bytes = {"", 0};
    if (!x->mime && !(x->mime = tb_mime_new())) {
        x->window->f->no_memory = true;
        return RUN_DONE;
    }
    for (uint64_t fed = 0; x->at < size; x->at += bytes.len, fed += bytes.len) {
        if (fed >= turn)
            return RUN_MORE;
        enum tb_rc rc = bytes_at(x, x->at, &bytes);
        if (rc == TB_BUSY)
            return RUN_WAIT;
        if (rc != TB_OK)
            return damaged(x, rc);
        bytes = tb_slice_sub(bytes, 0, (size_t)(size - x->at));
        tb_mime_feed(x->mime, bytes);
    }
    if (tb_mime_finish(x->mime, &x->scanned) != TB_OK) {
        x->window->f->no_memory = true;
        return RUN_DONE;
    }
    plan(x, x->scanned.parts, x->scanned.header_size, size);
    x->at = 0;
    x->state = SLOT_READY;
    return RUN_MORE;
}

static enum imap_run begin(struct slot *x)
{
    struct imap_session *s = x->window->s;
    struct imap_fetch *f = x->window->f;
    struct tb_cached texts = {
        .envelope = x->scanned.envelope, .bodystructure = x->scanned.bodystructure, .parts = x->scanned.parts};
    if (!x->scan && (f->needs & NEEDS_CACHE)) {
        enum tb_rc rc = tb_cached_get(s->view, x->row.uid, &texts);
        if (rc == TB_BUSY || rc == TB_CORRUPT) { /* found out late: scan it after all */
            x->scan = true;
            x->state = SLOT_SCANNING;
            return RUN_MORE;
        }
        if (rc != TB_OK) {
            f->walk.gone = true;
            return RUN_DONE;
        }
    }
    for (size_t i = 0; i < f->sections_n; i++) {
        enum imap_section_want want = f->sections[i].want;
        if (want == WANT_BODY || want == WANT_PREVIEW || x->pieces[i].encoding != TB_ENC_UNKNOWN)
            continue;
        f->unknown_cte = true;
        return RUN_DONE;
    }
    if (!imap_fetch_begin(s, f, &x->row, x->seqno, &texts, x->seen_now)) {
        f->no_memory = true;
        return RUN_DONE;
    }
    s->mid_response = true;
    x->state = SLOT_WRITING;
    return RUN_MORE;
}

/* gather: the header a FIELDS section looks at, whole, in one piece. */
static enum tb_rc gather(struct slot *x, const struct imap_piece *p, struct tb_slice *out)
{
    for (;;) {
        struct tb_slice bytes = {"", 0};
        uint64_t have = x->fields.len;
        if (have == p->size) {
            *out = tb_buf_all(&x->fields);
            return TB_OK;
        }
        enum tb_rc rc = bytes_at(x, p->offset + have, &bytes);
        if (rc != TB_OK)
            return rc;
        bytes = tb_slice_sub(bytes, 0, (size_t)(p->size - have));
        if (have == 0 && bytes.len == p->size) {
            *out = bytes;
            return TB_OK;
        }
        tb_buf_slice(&x->fields, bytes);
        if (x->fields.failed)
            return TB_LIMIT;
    }
}

static void put_label(struct imap_session *s, const struct slot *x, const struct imap_section *c)
{
    if (x->piece > 0 || x->window->f->kinds_n > 0 || x->seen_now)
        imap_putc(&s->out, ' ');
    imap_put(&s->out, c->label);
}

static void put_size(struct imap_session *s, uint64_t size, bool nul)
{
    if (size == 0) {
        imap_puts(&s->out, " \"\"");
        return;
    }
    imap_puts(&s->out, nul ? " ~{" : " {");
    imap_put_u64(&s->out, size);
    imap_puts(&s->out, "}\r\n");
}

/* write_fields: HEADER.FIELDS and HEADER.FIELDS.NOT. */
static enum imap_run write_fields(struct slot *x, const struct imap_section *c, const struct imap_piece *p)
{
    struct imap_session *s = x->window->s;
    struct tb_slice header;
    struct tb_buf subset;
    enum tb_rc rc = gather(x, p, &header);
    if (rc == TB_BUSY)
        return RUN_WAIT;
    if (rc != TB_OK)
        return damaged(x, rc);
    tb_buf_init(&subset, TB_MIME_HEADER_MAX + 16);
    tb_header_subset(header, c->fields, c->fields_n, c->kind == SECTION_FIELDS_NOT, &subset);
    struct tb_slice text = tb_buf_all(&subset);
    if (c->partial)
        text = tb_slice_sub(text, c->offset, c->count);
    put_label(s, x, c);
    put_size(s, text.len, false);
    imap_put(&s->out, text);
    tb_buf_free(&subset);
    tb_buf_free(&x->fields);
    tb_buf_init(&x->fields, 2 * TB_MIME_HEADER_MAX);
    return RUN_DONE;
}

/* write_preview: RFC 8970 3.2. */
static enum imap_run write_preview(struct slot *x, const struct imap_section *c, const struct imap_piece *p)
{
    struct imap_session *s = x->window->s;
    struct tb_slice bytes = {"", 0};
    struct tb_buf text;
    enum tb_rc rc = p->size > 0 ? gather(x, p, &bytes) : TB_OK;
    if (rc == TB_BUSY)
        return RUN_WAIT;
    if (rc != TB_OK)
        return damaged(x, rc);
    tb_buf_init(&text, 4 * TB_PREVIEW_CHARS + 16);
    if (p->encoding != TB_ENC_UNKNOWN)
        tb_text_preview(p->encoding, tb_slice_str(p->charset), bytes, &text);
    put_label(s, x, c);
    imap_putc(&s->out, ' ');
    imap_put_string(&s->out, text.len > 0 ? tb_buf_all(&text) : TB_SLICE(""));
    tb_buf_free(&text);
    tb_buf_free(&x->fields);
    tb_buf_init(&x->fields, 2 * TB_MIME_HEADER_MAX);
    return RUN_DONE;
}

/* write_bytes: a section that is a run of the message's own bytes. */
static enum imap_run write_bytes(struct slot *x, const struct imap_section *c, const struct imap_piece *p)
{
    enum { CHUNK = 64 << 10 };
    struct imap_session *s = x->window->s;
    if (!x->piece_begun) {
        put_label(s, x, c);
        put_size(s, p->size, false);
        x->piece_begun = true;
        x->at = 0;
    }
    while (x->at < p->size) {
        struct tb_slice bytes = {"", 0};
        enum tb_rc rc = bytes_at(x, p->offset + x->at, &bytes);
        if (rc == TB_BUSY)
            return RUN_WAIT;
        if (rc != TB_OK)
            return damaged(x, rc);
        uint64_t left = p->size - x->at;
        bytes = tb_slice_sub(bytes, 0, left < CHUNK ? (size_t)left : CHUNK);
        imap_put(&s->out, bytes);
        x->at += bytes.len;
        if (x->at < p->size && imap_put_full(&s->out))
            return RUN_WAIT;
    }
    x->piece_begun = false;
    return RUN_DONE;
}

/* ---- BINARY (RFC 3516) ---- */

/* asked: of decoded bytes, which lie from x->binary.decoded on, those that the section's partial range asks for. */
static struct tb_slice asked(const struct slot *x, const struct imap_section *c, struct tb_slice decoded)
{
    uint64_t at = x->binary.decoded, from = c->partial ? c->offset : 0;
    uint64_t end = c->partial ? from + c->count : UINT64_MAX;
    if (at + decoded.len <= from || at >= end)
        return (struct tb_slice){"", 0};
    uint64_t skip = from > at ? from - at : 0, n = end - at < decoded.len ? end - at : decoded.len;
    return tb_slice_sub(decoded, (size_t)skip, (size_t)(n - skip));
}

/* decode: the next bytes of the section, or its end: counted, or written once they are. */
static bool decode(struct slot *x, const struct imap_section *c, struct tb_slice bytes, bool end)
{
    struct binary *b = &x->binary;
    struct tb_buf out;
    tb_buf_init(&out, bytes.len + 64);
    if (end)
        tb_transfer_end(b->transfer, &out);
    else
        tb_transfer_put(b->transfer, bytes, &out);
    struct tb_slice part = asked(x, c, tb_buf_all(&out));
    b->decoded += out.len;
    if (b->measured) {
        imap_put(&x->window->s->out, part);
    } else {
        b->size += part.len;
        b->nul |= part.len > 0 && memchr(part.ptr, '\0', part.len) != NULL;
    }
    bool good = !out.failed;
    tb_buf_free(&out);
    return good;
}

/* decode_all: one pass over the section. RUN_DONE: it is over. */
static enum imap_run decode_all(struct slot *x, const struct imap_section *c, const struct imap_piece *p)
{
    enum { CHUNK = 64 << 10, TURN = 1 << 20 };
    struct binary *b = &x->binary;
    if (!b->transfer) {
        b->transfer = tb_transfer_new(p->encoding);
        b->decoded = x->at = 0;
    }
    for (uint64_t fed = 0; b->transfer && x->at < p->size;) {
        struct tb_slice bytes = {"", 0};
        enum tb_rc rc = bytes_at(x, p->offset + x->at, &bytes);
        if (rc == TB_BUSY)
            return RUN_WAIT;
        if (rc != TB_OK)
            return damaged(x, rc);
        uint64_t left = p->size - x->at;
        bytes = tb_slice_sub(bytes, 0, left < CHUNK ? (size_t)left : CHUNK);
        if (!decode(x, c, bytes, false))
            return damaged(x, TB_LIMIT);
        x->at += bytes.len;
        fed += bytes.len;
        if (b->measured && imap_put_full(&x->window->s->out))
            return RUN_WAIT;
        if (fed >= TURN)
            return RUN_MORE;
    }
    if (!b->transfer || !decode(x, c, (struct tb_slice){"", 0}, true))
        return damaged(x, TB_LIMIT);
    tb_transfer_free(b->transfer);
    b->transfer = NULL;
    return RUN_DONE;
}

static enum imap_run write_binary(struct slot *x, const struct imap_section *c, const struct imap_piece *p)
{
    struct imap_session *s = x->window->s;
    struct binary *b = &x->binary;
    enum imap_run r = RUN_DONE;
    if (!b->measured) {
        if ((r = decode_all(x, c, p)) != RUN_DONE)
            return r;
        b->measured = true;
        put_label(s, x, c);
        if (c->want == WANT_BINARY)
            put_size(s, b->size, b->nul);
    }
    if (c->want == WANT_BINARY_SIZE) {
        imap_putc(&s->out, ' ');
        imap_put_u64(&s->out, b->size);
    } else if (b->size > 0) {
        r = decode_all(x, c, p);
    }
    if (r == RUN_DONE)
        *b = (struct binary){0};
    return r;
}

static enum imap_run write_pieces(struct slot *x)
{
    struct imap_session *s = x->window->s;
    const struct imap_fetch *f = x->window->f;
    for (; x->piece < f->sections_n; x->piece++) {
        const struct imap_section *c = &f->sections[x->piece];
        const struct imap_piece *p = &x->pieces[x->piece];
        enum imap_run r = RUN_DONE;
        if (p->nil) {
            put_label(s, x, c);
            imap_puts(&s->out, c->want == WANT_BINARY_SIZE ? " 0" : " NIL");
        } else if (c->want == WANT_PREVIEW) {
            r = write_preview(x, c, p);
        } else if (c->want != WANT_BODY) {
            r = write_binary(x, c, p);
        } else if (c->kind == SECTION_FIELDS || c->kind == SECTION_FIELDS_NOT) {
            r = write_fields(x, c, p);
        } else {
            r = write_bytes(x, c, p);
        }
        if (r != RUN_DONE)
            return r;
    }
    imap_puts(&s->out, ")\r\n");
    s->mid_response = false;
    return RUN_DONE;
}

/* advance: the oldest message's next piece of work. RUN_DONE: it is finished with. */
static enum imap_run advance(struct slot *x)
{
    switch ((enum slot_state)x->state) {
    case SLOT_NEW:
    case SLOT_GONE:
        return RUN_DONE;
    case SLOT_READING:
        if (x->reading)
            return RUN_WAIT;
        if (x->failed)
            return damaged(x, x->rc);
        x->state = x->scan ? SLOT_SCANNING : SLOT_READY;
        return RUN_MORE;
    case SLOT_SCANNING:
        return scan(x);
    case SLOT_READY:
        return begin(x);
    case SLOT_WRITING:
        return write_pieces(x);
    }
    return RUN_DONE;
}

enum imap_run imap_window_run(struct imap_window *w, bool refill)
{
    for (uint32_t turn = 0; turn < 4 * FETCH_WINDOW; turn++) {
        bool between = w->count == 0 || slot_at(w, 0)->state != SLOT_WRITING;
        if (refill && between && !refill_window(w))
            return RUN_WAIT;
        if (w->s->gone)
            return RUN_DONE;
        open_more(w);
        if (w->count == 0)
            return RUN_DONE;
        if (imap_put_full(&w->s->out))
            return RUN_WAIT;
        enum imap_run r = advance(slot_at(w, 0));
        if (r == RUN_DONE) {
            slot_reset(slot_at(w, 0));
            w->head = (w->head + 1) % w->cap;
            w->count--;
        } else if (r != RUN_MORE) {
            return r;
        }
    }
    return RUN_MORE;
}
