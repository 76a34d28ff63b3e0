/*
 * wire.c: the clients' side: coroutines, and connections that they wait on: world.h.
 *
 * A client may leave at any byte: with hang_ups on, what it sends is now and then cut short and the connection closed
 * or reset. Must never: run anything of the server (its turn comes when the actor yields).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "world.h"

enum { STACK_BYTES = 256 << 10, IN_MAX = 16 << 20 };

static ucontext_t main_context;
static struct actor *current;

/* ---- coroutines ---- */

static void body(void)
{
    struct actor *a = current;
    for (;;) {
        if (a->script) {
            a->script(a);
            a->script = NULL;
            a->finished = true;
        } else if (!a->x->scripted) {
            act_random(a);
        }
        actor_yield(a);
    }
}

static void begin(struct actor *a)
{
    ucontext_t *c = calloc(1, sizeof(*c));
    a->stack = malloc(STACK_BYTES);
    if (!c || !a->stack)
        abort();
    a->context = c;
    (void)getcontext(c);
    c->uc_stack.ss_sp = a->stack;
    c->uc_stack.ss_size = STACK_BYTES;
    makecontext(c, body, 0);
}

void actor_resume(struct actor *a)
{
    if (!a->context)
        begin(a);
    current = a;
    a->running = true;
    (void)swapcontext(&main_context, a->context);
    a->running = false;
    current = NULL;
}

void actor_yield(struct actor *a)
{
    (void)swapcontext(a->context, &main_context);
}

void actor_sleep(struct actor *a, uint64_t ns)
{
    a->sleeps_until = tb_sim_now_ns(a->x->s.sim) + ns;
    actor_yield(a);
}

void actor_free(struct actor *a)
{
    tb_buf_free(&a->wire.in);
    tb_buf_free(&a->untagged);
    tb_buf_free(&a->tagged);
    free(a->stack);
    free(a->context);
}

/* ---- connections ---- */

/* pull: what has come meanwhile; true if there is anything to see. */
static bool pull(struct actor *a)
{
    struct wire *w = &a->wire;
    if (w->dead || w->handle < 0) {
        w->dead = true;
        return true;
    }
    tb_buf_consume(&w->in, w->at);
    w->at = 0;
    char *room = tb_buf_reserve(&w->in, 64 << 10);
    if (!room)
        abort();
    int64_t n = tb_sim_client_recv(a->x->s.sim, w->handle, room, 64 << 10);
    if (n > 0)
        w->in.len += (size_t)n;
    else if (n != -EAGAIN)
        w->dead = true;
    w->fresh |= n != -EAGAIN;
    return n != -EAGAIN;
}

bool actor_ready(struct actor *a)
{
    if ((a->x->scripted && !a->script) || tb_sim_now_ns(a->x->s.sim) < a->sleeps_until)
        return false;
    return !a->waits || a->wire.fresh || pull(a);
}

static void wait_for_bytes(struct actor *a)
{
    uint64_t now = tb_sim_now_ns(a->x->s.sim);
    a->waits = true;
    a->waits_since = now;
    a->wire.fresh = false;
    if (!pull(a))
        actor_yield(a);
    a->waits = false;
}

void wire_forget(struct wire *w)
{
    w->handle = -1;
    w->dead = true;
    w->in.len = w->at = 0;
}

bool wire_open(struct actor *a, uint16_t port)
{
    struct wire *w = &a->wire;
    wire_forget(w);
    int handle = a->x->s.up ? tb_sim_connect(a->x->s.sim, "127.0.0.1", port) : -ECONNREFUSED;
    if (handle < 0) {
        actor_sleep(a, 1000000);
        return false;
    }
    w->handle = handle;
    w->dead = false;
    return true;
}

void wire_close(struct actor *a, bool reset)
{
    if (a->wire.handle >= 0)
        tb_sim_client_close(a->x->s.sim, a->wire.handle, reset);
    wire_forget(&a->wire);
}

bool wire_put(struct actor *a, const void *bytes, size_t len)
{
    struct wire *w = &a->wire;
    struct world *x = a->x;
    if (w->dead || w->handle < 0)
        return false;
    bool leave = x->hang_ups && world_choose(x, 400) == 0;
    if (leave)
        len = world_choose(x, len + 1);
    if (tb_sim_client_send(x->s.sim, w->handle, bytes, len) < 0)
        w->dead = true;
    if (leave) {
        x->stats.disconnects++;
        if (world_choose(x, 2))
            actor_yield(a);
        wire_close(a, world_choose(x, 2));
    }
    return !w->dead;
}

bool wire_printf(struct actor *a, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(line))
        abort();
    return wire_put(a, line, (size_t)n);
}

bool wire_take(struct actor *a, size_t n, struct tb_slice *bytes)
{
    struct wire *w = &a->wire;
    while (w->in.len - w->at < n) {
        if (w->dead)
            return false;
        wait_for_bytes(a);
    }
    *bytes = n ? tb_slice(w->in.ptr + w->at, n) : tb_slice("", 0);
    w->at += n;
    return true;
}

bool wire_line(struct actor *a, struct tb_slice *line)
{
    struct wire *w = &a->wire;
    for (;;) {
        size_t have = w->in.len - w->at;
        const char *from = have ? w->in.ptr + w->at : "";
        const char *end = have ? memchr(from, '\n', have) : NULL;
        if (end) {
            size_t n = (size_t)(end - from);
            w->at += n + 1;
            *line = tb_slice(from, n > 0 && from[n - 1] == '\r' ? n - 1 : n);
            return true;
        }
        if (w->dead)
            return false;
        wait_for_bytes(a);
    }
}
