/*
 * retrieve.c: RETR and TOP: a message from the store to the output, piece by piece, with dots stuffed.
 *
 * The bytes are the stored ones: a dot is doubled only after a CRLF, which is what a line's end is (RFC 1939 3); a
 * message without a last CRLF gets one, not counted in the octets announced. The reply line waits for the first read,
 * so that damage found there is an -ERR; found later, the connection is cut: a half message must not look whole.
 * When the next pipelined command is a RETR, its first read is begun while this message is being sent.
 * Memory: one run of at most 1 MiB per message being read, the store's; output is bounded by tb_conn_full.
 * Thread: the account's owner.
 */
#include <stdlib.h>

#include "frontends/pop3/session.h"

enum { PIECE = 64 << 10 };

void pop3_fetch_free(struct pop3_fetch **f)
{
    if (*f)
        tb_body_close((*f)->body);
    free(*f);
    *f = NULL;
}

static void on_read(struct tb_op *op)
{
    struct pop3_fetch *f = op->user;
    f->reading = false;
    if (op->rc == TB_OK && op->data.len == 0)
        op->rc = TB_CORRUPT; /* shorter than its row says */
    f->run = op->rc == TB_OK ? op->data : tb_slice(NULL, 0);
    tb_conn_resume(f->conn);
}

static void read_on(struct pop3_fetch *f)
{
    f->reading = true;
    tb_body_read(f->body, f->offset, &f->op);
}

/* NULL with *rc: NOTFOUND, LIMIT. */
static struct pop3_fetch *fetch_new(struct tb_conn *c, struct pop3 *p, uint32_t seqno, enum tb_rc *rc)
{
    struct pop3_fetch *f = calloc(1, sizeof *f);
    *rc = f ? tb_body_open(p->view, tb_view_uid(p->view, seqno), &f->body) : TB_LIMIT;
    if (*rc != TB_OK) {
        free(f);
        return NULL;
    }
    f->conn = c;
    f->op.done = on_read;
    f->op.user = f;
    f->seqno = seqno;
    tb_body_whole(f->body);
    f->size = tb_body_size(f->body);
    f->header_size = tb_body_header_size(f->body);
    f->lines = UINT64_MAX;
    memcpy(f->before, "\r\n", 2);
    if (f->size)
        read_on(f);
    return f;
}

static enum tb_step begin(struct tb_conn *c, struct pop3 *p, uint32_t seqno, uint64_t lines)
{
    enum tb_rc rc = TB_OK;
    if (p->ahead && p->ahead->seqno == seqno) {
        p->fetch = p->ahead;
        p->ahead = NULL;
    } else {
        pop3_fetch_free(&p->ahead);
        p->fetch = fetch_new(c, p, seqno, &rc);
    }
    if (!p->fetch) {
        if (rc == TB_NOTFOUND)
            tb_conn_printf(c, "-ERR message %u was removed by another session\r\n", seqno);
        else
            tb_conn_puts(c, "-ERR [SYS/TEMP] cannot read it just now\r\n");
        return STEP_MORE;
    }
    p->fetch->lines = lines;
    p->state = POP3_BODY;
    return STEP_MORE;
}

enum tb_step pop3_retr(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    uint32_t seqno;
    return pop3_message(c, p, arg, &seqno) ? begin(c, p, seqno, UINT64_MAX) : STEP_MORE;
}

enum tb_step pop3_top(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    const char *blank = memchr(arg.ptr, ' ', arg.len);
    size_t len = blank ? (size_t)(blank - arg.ptr) : arg.len;
    uint64_t lines;
    uint32_t seqno;
    if (!blank || !tb_slice_u64(tb_slice_sub(arg, len + 1, SIZE_MAX), UINT32_MAX, &lines)) {
        tb_conn_puts(c, "-ERR TOP takes a message number and a number of lines\r\n");
        return STEP_MORE;
    }
    return pop3_message(c, p, tb_slice_sub(arg, 0, len), &seqno) ? begin(c, p, seqno, lines) : STEP_MORE;
}

/* ---- reading ahead ---- */

static void look_ahead(struct tb_conn *c, struct pop3 *p)
{
    if (p->ahead)
        return;
    struct tb_slice in = tb_slice_sub(tb_conn_input(c), 0, 24);
    const char *cr = in.len ? memchr(in.ptr, '\r', in.len) : NULL;
    if (!cr || !tb_slice_istarts(in, TB_SLICE("RETR ")))
        return;
    uint64_t n;
    size_t len = (size_t)(cr - in.ptr);
    if (!tb_slice_u64(tb_slice(in.ptr + 5, len - 5), tb_view_count(p->view), &n) || n == 0)
        return;
    enum tb_rc rc;
    p->ahead = fetch_new(c, p, (uint32_t)n, &rc); /* if it fails, its turn will tell */
}

/* ---- writing ---- */

static bool at_line_start(const struct pop3_fetch *f, struct tb_slice s, size_t i)
{
    char last = i >= 1 ? s.ptr[i - 1] : f->before[1];
    char but_one = i >= 2 ? s.ptr[i - 2] : f->before[i];
    return last == '\n' && but_one == '\r';
}

static void put_stuffed(struct tb_conn *c, struct pop3_fetch *f, struct tb_slice s)
{
    size_t from = 0;
    for (size_t i = 0; i < s.len; i++) {
        const char *dot = memchr(s.ptr + i, '.', s.len - i);
        if (!dot)
            break;
        i = (size_t)(dot - s.ptr);
        if (!at_line_start(f, s, i))
            continue;
        tb_conn_put(c, tb_slice(s.ptr + from, i - from));
        tb_conn_put(c, TB_SLICE("."));
        from = i;
    }
    tb_conn_put(c, tb_slice(s.ptr + from, s.len - from));
    if (s.len >= 2) {
        memcpy(f->before, s.ptr + s.len - 2, 2);
    } else if (s.len == 1) {
        f->before[0] = f->before[1];
        f->before[1] = s.ptr[0];
    }
}

/* How much of s, which begins at f->offset, TOP still shows; the header is shown whole. */
static size_t shown(struct pop3_fetch *f, struct tb_slice s)
{
    if (f->lines == UINT64_MAX)
        return s.len;
    size_t i = 0;
    if (f->offset < f->header_size)
        i = f->header_size - f->offset < s.len ? (size_t)(f->header_size - f->offset) : s.len;
    while (i < s.len && f->lines) {
        const char *lf = memchr(s.ptr + i, '\n', s.len - i);
        if (!lf)
            return s.len;
        i = (size_t)(lf - s.ptr) + 1;
        f->lines--;
    }
    return i;
}

static bool complete(const struct pop3_fetch *f)
{
    return f->offset == f->size || (f->lines == 0 && f->offset >= f->header_size);
}

static enum tb_step finish(struct tb_conn *c, struct pop3 *p)
{
    const struct pop3_fetch *f = p->fetch;
    if (f->before[0] != '\r' || f->before[1] != '\n')
        tb_conn_puts(c, "\r\n");
    tb_conn_puts(c, ".\r\n");
    pop3_fetch_free(&p->fetch);
    p->state = POP3_TRANSACTION;
    return STEP_MORE;
}

static enum tb_step damaged(struct tb_conn *c, struct pop3 *p)
{
    const struct pop3_fetch *f = p->fetch;
    enum tb_rc rc = f->op.rc;
    tb_log(TB_LOG_ERROR, "message unreadable id=%s proto=pop3 uid=%u offset=%llu reason=\"%s\"", tb_conn_id(c),
           tb_view_uid(p->view, f->seqno), (unsigned long long)f->offset, tb_rc_text(rc));
    if (f->begun) {
        tb_conn_abort(c);
        return STEP_DONE;
    }
    pop3_fetch_free(&p->fetch);
    p->state = POP3_TRANSACTION;
    tb_conn_puts(c, rc == TB_CORRUPT ? "-ERR [SYS/PERM] the stored message is damaged\r\n"
                                     : "-ERR [SYS/TEMP] the message cannot be read just now\r\n");
    return STEP_MORE;
}

enum tb_step pop3_body_step(struct tb_conn *c, struct pop3 *p)
{
    struct pop3_fetch *f = p->fetch;
    look_ahead(c, p);
    if (f->reading)
        return STEP_WAIT;
    if (f->op.rc != TB_OK)
        return damaged(c, p);
    if (!f->begun) {
        f->begun = true;
        if (f->lines == UINT64_MAX)
            tb_conn_printf(c, "+OK %llu octets\r\n", (unsigned long long)f->size);
        else
            tb_conn_puts(c, "+OK top of message follows\r\n");
    }
    while (f->run.len && !complete(f)) {
        if (tb_conn_full(c))
            return STEP_WAIT;
        struct tb_slice piece = tb_slice_sub(f->run, 0, PIECE);
        piece.len = shown(f, piece);
        put_stuffed(c, f, piece);
        f->offset += piece.len;
        f->run = tb_slice_sub(f->run, piece.len, SIZE_MAX);
    }
    if (complete(f))
        return finish(c, p);
    read_on(f);
    return STEP_WAIT;
}
