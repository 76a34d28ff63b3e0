/*
 * conn.h: the inside of a connection and of a tb_net; for the files of this room alone.
 *
 * A connection's memory is one block: this struct and, behind it, the protocol's session. Everything else it may hold
 * is there only while it is needed: unread input, output chunks, TLS buffers.
 */
#ifndef TB_NET_CONN_H
#define TB_NET_CONN_H

#include <stdatomic.h>

#include "engine/codec/deflate.h"
#include "engine/crypto/crypto.h"
#include "frontends/net/net.h"

enum {
    TB_NET_STEPS_MAX = 32,  /* STEP_MORE in one go before other connections have their turn */
    TB_NET_WHEEL = 512,     /* seconds; later deadlines are looked at again on the way */
    TB_NET_STUCK_S = 300,   /* output without progress */
    TB_NET_FAREWELL_S = 60, /* the same after the last word */
    TB_NET_STOP_S = 3,      /* from tb_net_stop to cutting what is left */
    TB_NET_POOL_SMALL = 64,
    TB_NET_POOL_BIG = 32,
    TB_NET_SCRATCH = 32 << 10, /* decrypted input, shared by a net's connections */
    TB_NET_CIPHER_MAX = 512 << 10,
    TB_NET_ZIP_ROUNDS = 8,     /* scratches inflated in one go before other connections have their turn */
    TB_ZIP_IN_MAX = 1 << 20,   /* compressed input not inflated yet: at most two receives */
    TB_CHUNK_SMALL = 16 << 10, /* with its header */
    TB_CHUNK_BIG = 64 << 10,
    TB_CONN_MARKS = 4,
    TB_CONN_INPUT_MAX = 64 << 10,
    TB_CONN_DRAIN_MAX = 16 /* receives swallowed before a close that leaves input unread */
};

struct tb_link {
    struct tb_link *prev, *next;
};

struct tb_chunk {
    struct tb_chunk *next;
    uint32_t cap, start, end; /* bytes of data; start..end are not sent yet */
    char data[];
};

/* Output up to stream offset `end` (and after the mark before) waits for `position` of `account`. */
struct tb_mark {
    uint64_t end, position;
    bool middle;                /* `end` is in the middle of a response */
    struct tb_account *account; /* borrowed: open as long as the session */
};

struct tb_conn_tls {
    struct tb_tls *tls;    /* owned */
    struct tb_buf wire;    /* ciphertext being sent */
    struct tb_buf pending; /* handshake and alert bytes to be sent next */
    bool more;             /* there may be decrypted input in tls */
    bool bye;              /* close_notify is queued */
};

struct tb_conn_zip {
    struct tb_deflate *deflate; /* owned */
    struct tb_buf in;           /* received and not inflated yet */
    struct tb_buf wire;         /* compressed output being sent */
    uint64_t from, to;          /* output before and from these stream offsets is not compressed */
    bool more;                  /* there may be input in it */
    bool ending, over;          /* tb_conn_uncompress; over: what comes is plain */
};

/*
 * HANDSHAKE -> OPEN <-> SWITCH (STARTTLS asked: output out, then HANDSHAKE) ; OPEN -> MOVE -> OPEN on another worker
 * OPEN -> LAST (output out) -> DRAIN (unread input swallowed) -> CLOSED (ops counted down, freed). Any -> CLOSED.
 */
enum tb_phase { PHASE_HANDSHAKE, PHASE_OPEN, PHASE_SWITCH, PHASE_MOVE, PHASE_LAST, PHASE_DRAIN, PHASE_CLOSED };

struct tb_conn {
    struct tb_net *net; /* the present owner */
    const struct tb_listener *listener;
    struct tb_link wheel;          /* in net->wheel[] from accept to free, but for the flight of a move */
    struct tb_link pre;            /* in net->pre until authenticated */
    struct tb_conn *ready_next;    /* in net->ready if ready */
    struct tb_op recv, send, gate; /* send also carries a move: nothing else is in flight then */
    int fd;

    uint8_t phase, drains;
    bool opened; /* proto->open ran */
    bool ready, running, again, yield;
    bool receiving, sending, gating, recv_cancelled;
    bool middle; /* `released` is in the middle of a response */
    bool eof, broken, choked, unread, authenticated, loopback;
    bool want_tls, want_move;
    uint32_t move_to;

    /* times in whole seconds of the monotonic clock */
    uint32_t opened_s, anonymous_s, active_s, heard_s, out_s, due_s;
    uint32_t timeout_s;
    const char *cause; /* static text for the log */

    struct tb_slice view; /* input not consumed; outside a step it lies in heap */
    char *heap;           /* owned; NULL when there is none */
    uint32_t heap_cap, input_max;
    size_t scan; /* bytes of view already looked through for an LF */

    struct tb_chunk *head, *tail; /* owned */
    uint64_t total, sent;         /* output stream offsets: written, sent, */
    uint64_t released, marked;    /* free to go, free or covered by a mark */
    uint32_t inflight;
    bool taken; /* what is in flight is out of the queue: encrypted, compressed */
    uint32_t marks_n;
    struct tb_mark marks[TB_CONN_MARKS];
    struct tb_account *account; /* borrowed: what output depends on now */

    struct tb_conn_tls *tls; /* owned; NULL in plain */
    struct tb_conn_zip *zip; /* owned; NULL: not compressed */
    char *name;              /* owned; of the account, for the log */
    uint64_t in;             /* bytes of input, decrypted */
    char id[24];
    char peer[64];
    _Alignas(16) char session[];
};

struct tb_accept {
    struct tb_op op;
    struct tb_net *net;
    const struct tb_listener *listener;
    bool armed;
};

struct tb_net {
    struct tb_worker *worker;
    struct tb_io *io;
    const struct tb_net_config *cfg;
    struct tb_tls_context *tls; /* a reference of our own; may be NULL */
    struct tb_net **peers;      /* borrowed */
    uint32_t peers_n;
    uint32_t turn_of; /* which worker gets the next connection accepted here */
    uint32_t connections;
    uint32_t heard_s, heard_n, heard_before; /* connections heard from in second heard_s, and in the one before */
    struct tb_accept *accepts;               /* owned; one per listener */
    struct tb_link wheel[TB_NET_WHEEL];
    struct tb_link pre; /* oldest first */
    uint32_t tick_s;    /* the last second whose slot was looked at */
    uint32_t complained_s;
    struct tb_op tick;
    struct tb_op turn; /* posted to ourselves while ready is not empty */
    struct tb_conn *ready_head, *ready_tail;
    bool ticking, tick_cancelled, turning;
    struct tb_chunk *pool_small, *pool_big;
    uint32_t pool_small_n, pool_big_n;
    uint64_t counter;
    char boot[12];             /* random and worker, for session ids */
    _Atomic(bool) stopping;    /* read by other workers before they move a connection here */
    _Atomic(uint32_t) inbound; /* connections on their way here */
    uint32_t stop_s;
    struct tb_op *stop_op; /* borrowed: the caller's */
    char scratch[TB_NET_SCRATCH];
};

/* ---- lists ---- */
static inline void tb_link_init(struct tb_link *l)
{
    l->prev = l->next = l;
}
static inline bool tb_link_empty(const struct tb_link *l)
{
    return l->next == l;
}
static inline void tb_link_remove(struct tb_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    tb_link_init(l);
}
static inline void tb_link_append(struct tb_link *list, struct tb_link *l)
{
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

static inline uint32_t tb_net_now_s(struct tb_net *n)
{
    return (uint32_t)(tb_io_now_ns(n->io) / 1000000000u);
}

/* ---- listener.c ---- */
void tb_net_ready(struct tb_net *n, struct tb_conn *c); /* run its step from the loop */
void tb_net_link(struct tb_net *n, struct tb_conn *c);  /* count it, put it in the wheel */
void tb_net_unlink(struct tb_conn *c);
void tb_net_due(struct tb_conn *c); /* a deadline may have come nearer */
void tb_net_gone(struct tb_net *n); /* a connection is gone: is a stop complete? */

/* ---- conn.c ---- */
struct tb_conn *tb_conn_new(struct tb_net *n, const struct tb_listener *l, int fd);
void tb_conn_start(struct tb_conn *c);
void tb_conn_work(struct tb_conn *c);   /* steps, then settle */
void tb_conn_settle(struct tb_conn *c); /* after anything happened: gate, send, receive, phases */
void tb_conn_last(struct tb_conn *c, const char *cause);
void tb_conn_close(struct tb_conn *c, const char *cause);
void tb_conn_release(struct tb_conn *c);
void tb_conn_overload(struct tb_conn *c, const char *cause);
bool tb_conn_holds(const struct tb_conn *c, uint32_t shard);
void tb_conn_lost(struct tb_conn *c);
uint32_t tb_conn_due(const struct tb_conn *c);
void tb_conn_expire(struct tb_conn *c, uint32_t now_s);

/* ---- line.c: input ---- */
/* ptr is valid while the step runs; false without memory */
bool tb_input_add(struct tb_conn *c, const char *ptr, size_t len);
void tb_input_keep(struct tb_conn *c); /* what was not consumed outlives the receive buffer; nothing left: no buffer */
void tb_input_free(struct tb_conn *c);

/* ---- output.c ---- */
void tb_output_mark(struct tb_conn *c);
void tb_output_gate(struct tb_conn *c);
void tb_output_flush(struct tb_conn *c);
void tb_output_free(struct tb_conn *c);
void tb_output_drop(struct tb_conn *c); /* what is held */
void tb_net_pool_free(struct tb_net *n);
static inline uint64_t tb_output_pending(const struct tb_conn *c)
{
    return c->total - c->sent;
}

/* ---- tls.c ---- */
bool tb_conn_tls_begin(struct tb_conn *c); /* phase HANDSHAKE; false: cannot */
void tb_conn_tls_feed(struct tb_conn *c, struct tb_slice data);
bool tb_conn_tls_input(struct tb_conn *c); /* decrypted bytes to the input; false: none to be had now */
bool tb_conn_tls_encrypt(struct tb_conn *c, struct tb_slice plain);
void tb_conn_tls_bye(struct tb_conn *c);
void tb_conn_tls_free(struct tb_conn *c);

/* ---- zip.c ---- */
/* tb_conn_take: bytes from the peer, out of TLS: to the input, or to be inflated. False without memory. */
bool tb_conn_take(struct tb_conn *c, const char *ptr, size_t n);
bool tb_conn_zip_input(struct tb_conn *c); /* inflated bytes to the input; false: none to be had now */
bool tb_conn_zip_pack(struct tb_conn *c, struct tb_slice plain); /* to zip->wire */
void tb_conn_zip_free(struct tb_conn *c);

#endif
