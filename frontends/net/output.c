/*
 * output.c: a connection's output: a queue of chunks, the gate's marks in it, one send at a time.
 *
 * What it must never do: hand a byte to the socket before the position it depends on is durable (N1). Bytes written
 * between two marks belong to the later one; a mark is taken when the step has returned, so its position is at least
 * that of everything the step read or changed.
 *   sent <= released <= marked <= total; marks cover (released, marked], ascending.
 * Thread: the connection's owner.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontends/net/conn.h"

/* ---- chunks ---- */

static struct tb_chunk *chunk_new(struct tb_net *n, size_t room, bool big)
{
    size_t size = big ? TB_CHUNK_BIG : TB_CHUNK_SMALL;
    struct tb_chunk **pool = big ? &n->pool_big : &n->pool_small;
    struct tb_chunk *k = NULL;
    if (room > size - sizeof *k)
        size = sizeof *k + room;
    else if (*pool) {
        k = *pool;
        *pool = k->next;
        if (big)
            n->pool_big_n--;
        else
            n->pool_small_n--;
    }
    if (size > UINT32_MAX)
        return NULL;
    if (!k && !(k = malloc(size)))
        return NULL;
    k->next = NULL;
    k->cap = (uint32_t)(size - sizeof *k);
    k->start = k->end = 0;
    return k;
}

static void chunk_free(struct tb_net *n, struct tb_chunk *k)
{
    if (k->cap == TB_CHUNK_SMALL - sizeof *k && n->pool_small_n < TB_NET_POOL_SMALL) {
        k->next = n->pool_small;
        n->pool_small = k;
        n->pool_small_n++;
    } else if (k->cap == TB_CHUNK_BIG - sizeof *k && n->pool_big_n < TB_NET_POOL_BIG) {
        k->next = n->pool_big;
        n->pool_big = k;
        n->pool_big_n++;
    } else {
        free(k);
    }
}

void tb_net_pool_free(struct tb_net *n)
{
    struct tb_chunk *lists[] = {n->pool_small, n->pool_big};
    for (size_t i = 0; i < TB_ARRAY_LEN(lists); i++)
        for (struct tb_chunk *k = lists[i], *next; k; k = next) {
            next = k->next;
            free(k);
        }
    n->pool_small = n->pool_big = NULL;
    n->pool_small_n = n->pool_big_n = 0;
}

void tb_output_free(struct tb_conn *c)
{
    for (struct tb_chunk *k = c->head, *next; k; k = next) {
        next = k->next;
        chunk_free(c->net, k);
    }
    c->head = c->tail = NULL;
    c->total = c->released = c->marked = c->sent;
    c->marks_n = 0;
}

void tb_output_drop(struct tb_conn *c)
{
    uint64_t keep = c->released - c->sent;
    struct tb_chunk **at = &c->head;
    if (c->taken)
        keep -= c->inflight; /* encrypted or compressed already */
    c->tail = NULL;
    while (*at && keep > 0) {
        struct tb_chunk *k = *at;
        if (keep < k->end - k->start)
            k->end = k->start + (uint32_t)keep;
        keep -= k->end - k->start;
        c->tail = k;
        at = &k->next;
    }
    for (struct tb_chunk *k = *at, *next; k; k = next) {
        next = k->next;
        chunk_free(c->net, k);
    }
    *at = NULL;
    c->total = c->marked = c->released;
    c->marks_n = 0;
}

/* Take n bytes, all of the first chunk's, off the front of the queue. */
static void chunk_take(struct tb_conn *c, size_t n)
{
    struct tb_chunk *k = c->head;
    k->start += (uint32_t)n;
    if (k->start < k->end)
        return;
    c->head = k->next;
    if (!c->head)
        c->tail = NULL;
    chunk_free(c->net, k);
}

static struct tb_chunk *chunk_add(struct tb_conn *c, size_t room)
{
    struct tb_chunk *k = chunk_new(c->net, room, c->head != NULL);
    if (!k) {
        c->broken = true;
        return NULL;
    }
    if (c->tail)
        c->tail->next = k;
    else
        c->head = k;
    c->tail = k;
    return k;
}

/* ---- writing ---- */

char *tb_conn_reserve(struct tb_conn *c, size_t n)
{
    struct tb_chunk *k = c->tail;
    if (!k || k->cap - k->end < n)
        k = c->broken ? NULL : chunk_add(c, n);
    return k ? k->data + k->end : NULL;
}

void tb_conn_commit(struct tb_conn *c, size_t n)
{
    if (n == 0)
        return;
    TB_ASSERT(c->tail && c->tail->cap - c->tail->end >= n);
    c->tail->end += (uint32_t)n;
    c->total += n;
}

void tb_conn_put(struct tb_conn *c, struct tb_slice s)
{
    while (s.len && !c->broken) {
        struct tb_chunk *k = c->tail && c->tail->end < c->tail->cap ? c->tail : chunk_add(c, 1);
        if (!k)
            return;
        size_t n = k->cap - k->end;
        n = n < s.len ? n : s.len;
        memcpy(k->data + k->end, s.ptr, n);
        tb_conn_commit(c, n);
        s.ptr += n;
        s.len -= n;
    }
}

void tb_conn_puts(struct tb_conn *c, const char *s)
{
    tb_conn_put(c, tb_slice_str(s));
}

void tb_conn_printf(struct tb_conn *c, const char *fmt, ...)
{
    size_t room = 256;
    for (int tries = 0; tries < 2; tries++) {
        char *p = tb_conn_reserve(c, room);
        if (!p)
            return;
        va_list ap;
        va_start(ap, fmt);
        int n = vsnprintf(p, room, fmt, ap);
        va_end(ap);
        if (n < 0)
            return;
        if ((size_t)n < room) {
            tb_conn_commit(c, (size_t)n);
            return;
        }
        room = (size_t)n + 1;
    }
}

bool tb_conn_full(const struct tb_conn *c)
{
    return tb_output_pending(c) >= TB_CONN_HIGH_WATER;
}

/* ---- the gate ---- */

void tb_conn_account(struct tb_conn *c, struct tb_account *a)
{
    tb_output_mark(c);
    c->account = a;
}

_Static_assert(TB_CONN_MARKS > 1, "the first mark may be waited for and must not move; the last one may");

void tb_output_mark(struct tb_conn *c)
{
    if (c->marked == c->total)
        return;
    if (c->marked == c->sent)
        c->out_s = tb_net_now_s(c->net);
    c->marked = c->total;
    struct tb_mark *last = c->marks_n ? &c->marks[c->marks_n - 1] : NULL;
    uint64_t position = c->account ? tb_account_position(c->account) : 0;
    bool open = !c->account || tb_gate_open(c->account, position);
    bool full = c->marks_n == TB_CONN_MARKS;
    bool middle = c->opened && c->listener->proto->middle && c->listener->proto->middle(c);
    if (open && !last) {
        c->released = c->total;
        c->middle = middle;
    } else if (open) {
        last->end = c->total;
        last->middle = middle;
    } else if (last && last->account == c->account && (full || last->position == position)) {
        last->end = c->total; /* waiting for the later position is waiting for both */
        last->position = position;
        last->middle = middle;
    } else if (full) {
        c->broken = true; /* a third account's output behind two that wait: no protocol of ours gets here */
    } else {
        c->marks[c->marks_n++] = (struct tb_mark){c->total, position, middle, c->account};
    }
}

static void on_gate(struct tb_op *op)
{
    struct tb_conn *c = op->user;
    c->gating = false;
    if (op->rc != TB_OK) {
        tb_conn_lost(c); /* what is held is discarded, R7 */
        return;
    }
    tb_conn_settle(c);
}

void tb_output_gate(struct tb_conn *c)
{
    if (c->gating)
        return;
    uint32_t opened = 0;
    while (opened < c->marks_n && tb_gate_open(c->marks[opened].account, c->marks[opened].position)) {
        c->middle = c->marks[opened].middle;
        c->released = c->marks[opened++].end;
    }
    c->marks_n -= opened;
    memmove(c->marks, c->marks + opened, c->marks_n * sizeof c->marks[0]);
    if (c->marks_n == 0)
        return;
    c->gate.done = on_gate;
    c->gate.user = c;
    c->gating = true;
    tb_gate_wait(c->marks[0].account, c->marks[0].position, &c->gate);
}

/* ---- sending ---- */

static void on_send(struct tb_op *op)
{
    struct tb_conn *c = op->user;
    c->sending = false;
    if (c->phase == PHASE_CLOSED) {
        tb_conn_release(c);
        return;
    }
    if (op->result < 0) {
        tb_conn_close(c, "reset");
        return;
    }
    if (c->tls) {
        tb_buf_free(&c->tls->wire);
        tb_buf_init(&c->tls->wire, TB_NET_CIPHER_MAX);
    }
    if (c->zip) {
        tb_buf_free(&c->zip->wire);
        tb_buf_init(&c->zip->wire, TB_NET_CIPHER_MAX);
    }
    if (!c->taken && c->inflight > 0)
        chunk_take(c, c->inflight);
    c->taken = false;
    c->sent += c->inflight;
    c->inflight = 0;
    c->active_s = c->out_s = tb_net_now_s(c->net);
    if (c->phase == PHASE_OPEN && c->choked && tb_output_pending(c) < TB_CONN_LOW_WATER) {
        c->choked = false;
        tb_conn_work(c);
    } else {
        tb_conn_settle(c);
    }
}

static void send_bytes(struct tb_conn *c, const char *ptr, size_t len)
{
    c->send.done = on_send;
    c->send.user = c;
    c->sending = true;
    tb_io_send(c->net->io, &c->send, c->fd, ptr, (uint32_t)len);
}

void tb_output_flush(struct tb_conn *c)
{
    if (c->sending || c->broken)
        return;
    if (c->zip && c->zip->over && c->sent >= c->zip->to)
        tb_conn_zip_free(c);
    struct tb_chunk *k = c->head;
    size_t n = k ? k->end - k->start : 0;
    if (n > c->released - c->sent)
        n = (size_t)(c->released - c->sent);
    bool zipped = c->zip && c->sent >= c->zip->from && c->sent < c->zip->to;
    uint64_t turns = !c->zip ? UINT64_MAX : c->sent < c->zip->from ? c->zip->from : zipped ? c->zip->to : UINT64_MAX;
    if (n > turns - c->sent)
        n = (size_t)(turns - c->sent); /* the rest is compressed, or is not any more */
    if (!c->tls && !zipped) {
        if (n == 0)
            return;
        c->inflight = (uint32_t)n;
        send_bytes(c, k->data + k->start, n);
        return;
    }
    n = n < TB_CHUNK_BIG ? n : TB_CHUNK_BIG;
    struct tb_slice bytes = tb_slice(n ? k->data + k->start : NULL, n);
    bool good = !zipped || n == 0 || tb_conn_zip_pack(c, bytes);
    if (zipped)
        bytes = tb_buf_all(&c->zip->wire);
    if (!good || (c->tls && !tb_conn_tls_encrypt(c, bytes))) {
        c->broken = true;
        return;
    }
    if (n)
        chunk_take(c, n);
    c->inflight = (uint32_t)n;
    c->taken = true;
    if (c->tls)
        bytes = tb_buf_all(&c->tls->wire);
    if (bytes.len)
        send_bytes(c, bytes.ptr, bytes.len);
}
