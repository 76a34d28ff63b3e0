/*
 * line.c: a connection's input: bytes received and not yet consumed, and lines in them.
 *
 * A step reads straight from the receive buffer; only what it leaves is copied to a heap buffer, which goes as soon as
 * it is empty (N2). Memory: at most input_max and one receive.
 * Thread: the connection's owner.
 */
#include <stdlib.h>

#include "frontends/net/conn.h"

enum { HEAP_STEP = 256, HEAP_SHRINK = 4096 };

static bool in_heap(const struct tb_conn *c)
{
    return c->heap && c->view.ptr >= c->heap && c->view.ptr <= c->heap + c->heap_cap;
}

void tb_input_free(struct tb_conn *c)
{
    free(c->heap);
    c->heap = NULL;
    c->heap_cap = 0;
    c->view = tb_slice(NULL, 0);
    c->scan = 0;
}

/* Move the view into a heap buffer with room for `extra` bytes more. */
static bool heap_move(struct tb_conn *c, size_t extra)
{
    size_t cap = (c->view.len + extra + HEAP_STEP - 1) / HEAP_STEP * HEAP_STEP;
    if (cap > UINT32_MAX)
        return false;
    char *heap = malloc(cap);
    if (!heap)
        return false;
    if (c->view.len)
        memcpy(heap, c->view.ptr, c->view.len);
    free(c->heap);
    c->heap = heap;
    c->heap_cap = (uint32_t)cap;
    c->view.ptr = heap;
    return true;
}

void tb_input_keep(struct tb_conn *c)
{
    if (c->view.len == 0) {
        tb_input_free(c);
        return;
    }
    bool roomy = c->heap_cap > HEAP_SHRINK && c->view.len < c->heap_cap / 4;
    if (in_heap(c) && !roomy)
        return;
    if (!heap_move(c, 0) && !in_heap(c))
        c->broken = true;
}

bool tb_input_add(struct tb_conn *c, const char *ptr, size_t len)
{
    if (c->view.len == 0) {
        c->view = tb_slice(ptr, len);
        c->scan = 0;
        return true;
    }
    size_t used = in_heap(c) ? (size_t)(c->view.ptr - c->heap) + c->view.len : SIZE_MAX;
    if (used > c->heap_cap || c->heap_cap - used < len) {
        if (in_heap(c) && c->heap_cap >= c->view.len + len && c->view.len < c->heap_cap / 2) {
            memmove(c->heap, c->view.ptr, c->view.len);
            c->view.ptr = c->heap;
        } else if (!heap_move(c, len + c->view.len)) { /* doubling keeps a byte-wise sender linear */
            return false;
        }
    }
    memcpy((char *)c->heap + (c->view.ptr - c->heap) + c->view.len, ptr, len);
    c->view.len += len;
    return true;
}

struct tb_slice tb_conn_input(struct tb_conn *c)
{
    return c->view;
}

void tb_conn_consume(struct tb_conn *c, size_t n)
{
    TB_ASSERT(n <= c->view.len);
    if (n == 0) /* the view may be no memory at all */
        return;
    c->view.ptr += n;
    c->view.len -= n;
    c->scan = c->scan > n ? c->scan - n : 0;
}

bool tb_conn_eof(const struct tb_conn *c)
{
    return c->eof && !(c->tls && c->tls->more) && !(c->zip && c->zip->more);
}

void tb_conn_input_max(struct tb_conn *c, size_t bytes)
{
    c->input_max = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
}

enum tb_line tb_conn_line(struct tb_conn *c, size_t max, struct tb_slice *line)
{
    const char *p = c->view.ptr;
    const char *lf = c->scan < c->view.len ? memchr(p + c->scan, '\n', c->view.len - c->scan) : NULL;
    if (!lf) {
        c->scan = c->view.len;
        size_t cr = c->view.len && p[c->view.len - 1] == '\r';
        return c->view.len - cr > max ? LINE_LONG : LINE_MORE;
    }
    size_t len = (size_t)(lf - p);
    bool bare = len == 0 || p[len - 1] != '\r';
    size_t text = bare ? len : len - 1;
    if (text > max) {
        c->scan = len; /* found again at once by the next call */
        return LINE_LONG;
    }
    *line = tb_slice(p, text);
    bare = bare || (text && (memchr(p, '\r', text) || memchr(p, '\0', text)));
    tb_conn_consume(c, len + 1);
    c->scan = 0;
    return bare ? LINE_BARE : LINE_OK;
}
