/*
 * net.h: connections: accept, TLS, lines in, gated output out, timeouts, moves between workers. Knows no protocol.
 *
 * One tb_net per worker. A connection is owned by one worker at a time; after login it moves to its account's
 * worker; a lone SMTP delivery takes it along to its recipient's. A protocol is a table (struct tb_proto) whose step is
 * run whenever something it waits for may have happened: bytes arrived, output drained, an op resumed it. A step
 * returns: STEP_MORE  made progress, run me again (the loop yields to other connections after a bounded number)
 * STEP_WAIT  needs input, room in the output, or a resume STEP_DONE send what is queued (once the gate opens), then
 * close No step waits inside. At most one receive, one send and one store op in flight per connection.
 *
 * Invariants
 * N1 no byte leaves before the log position that was held for it is durable (S7); if the shard fails, held bytes are
 * discarded and the connection is closed. N2 an idle connection with no partial input and no output holds no buffer. N3
 * bytes that arrived before TLS started are never read as inside TLS: any byte waiting at the switch closes the
 * connection. N4 output above TB_CONN_HIGH_WATER: the peer is not read until it is under TB_CONN_LOW_WATER.
 */
#ifndef TB_NET_H
#define TB_NET_H

#include <tambo/store.h>

struct tb_net;
struct tb_conn;
struct tb_tls;
struct tb_tls_context;

enum { TB_CONN_HIGH_WATER = 256 << 10, TB_CONN_LOW_WATER = 64 << 10 };

enum tb_step { STEP_MORE, STEP_WAIT, STEP_DONE };

struct tb_proto {
    const char *name;                /* "imap", "pop3", "smtp", "submission", "lmtp": for logs and ALPN */
    const char *alpn;                /* NULL: not checked */
    bool certificates;               /* clients are asked for certificates, if there are roots for them */
    size_t session_bytes;            /* zeroed memory given to each connection: tb_conn_session */
    void (*open)(struct tb_conn *c); /* write the greeting */
    enum tb_step (*step)(struct tb_conn *c);
    void (*timeout)(struct tb_conn *c);  /* write the farewell; the connection closes after it */
    void (*overload)(struct tb_conn *c); /* shutting down or too many: write the farewell; then it closes. May come
                                            instead of open. */
    /* The storage of the session's account is gone (R7): write the farewell; then it closes. What was held is discarded
     * before, and it is not called in the middle of a response. NULL: nothing is said. */
    void (*lost)(struct tb_conn *c);
    bool (*middle)(const struct tb_conn *c); /* is the output in the middle of a response? NULL: never */
    /* It goes to another worker (tb_conn_move) and nothing of its output is held any more: let go of what belongs to
     * this one: accounts. Not followed by a step here. NULL: it holds nothing when it moves. */
    void (*leave)(struct tb_conn *c);
    void (*close)(struct tb_conn *c); /* free what the session holds; no store op may call back after this */
};

enum tb_tls_mode { TB_TLS_NONE, TB_TLS_STARTTLS, TB_TLS_IMPLICIT };

struct tb_listener {
    const struct tb_proto *proto;
    const char *address; /* "127.0.0.1", "::1", "unix:/path" */
    uint16_t port;
    enum tb_tls_mode tls;
    int fd; /* opened once, shared by all workers */
};

/* What the frontends share; read-only while running but for the TLS context, which tb_net_tls_set swaps. */
struct tb_net_config {
    struct tb_listener *listeners;
    size_t listeners_n;
    uint32_t connections_max;    /* per worker */
    uint32_t pre_auth_timeout_s; /* 60: from accept to login, whatever is sent */
    void *user;                  /* the frontends' own: struct tb_config */
};

/* tb_net_open: start accepting on a worker. cfg stays the caller's until tb_net_close; the net takes its own reference
 * of tls. */
enum tb_rc tb_net_open(struct tb_worker *w, const struct tb_net_config *cfg, struct tb_tls_context *tls,
                       struct tb_net **out, struct tb_error *err) TB_USE_RESULT;
/* tb_net_tls_set: new certificate for new handshakes. Owner of the worker. */
void tb_net_tls_set(struct tb_net *n, struct tb_tls_context *tls);
/* tb_net_stop: stop accepting, say farewell on every connection, close them; op->done when none is left (a few seconds
 * at most). */
void tb_net_stop(struct tb_net *n, struct tb_op *op);
/* tb_net_lost: a shard of this worker failed closed: end every session that holds an account of it, now. */
void tb_net_lost(struct tb_net *n, uint32_t shard);
/* tb_net_close: after tb_net_stop's done of every worker's net: another may still be looking at this one. */
void tb_net_close(struct tb_net *n);
/* tb_net_peers: the nets of all workers, index = worker; set before the first connection (needed for moves). */
void tb_net_peers(struct tb_net *n, struct tb_net **all, uint32_t count);
uint32_t tb_net_connections(const struct tb_net *n);

/* ---- for protocols ---- */
void *tb_conn_session(struct tb_conn *c);
struct tb_worker *tb_conn_worker(struct tb_conn *c); /* the present owner */
const struct tb_net_config *tb_conn_config(struct tb_conn *c);
const struct tb_listener *tb_conn_listener(struct tb_conn *c);
const char *tb_conn_id(const struct tb_conn *c);           /* unique session id for logs and greeting */
const char *tb_conn_peer(const struct tb_conn *c);         /* numeric address or "unix" */
bool tb_conn_loopback(const struct tb_conn *c);            /* peer is loopback or UNIX */
bool tb_conn_secure(const struct tb_conn *c);              /* TLS is established */
const char *tb_conn_tls_text(const struct tb_conn *c);     /* "" without TLS */
const struct tb_tls *tb_conn_tls(const struct tb_conn *c); /* NULL until TLS is established */

/* Input: bytes received and not yet consumed; the slice is valid until the step returns or consumes. */
struct tb_slice tb_conn_input(struct tb_conn *c);
void tb_conn_consume(struct tb_conn *c, size_t n);
/* tb_conn_eof: the peer will send no more; with all input consumed the step should return DONE. */
bool tb_conn_eof(const struct tb_conn *c);
/* tb_conn_input_max: how much unconsumed input may be kept (default 64 KiB); more stops the reading, never fails. */
void tb_conn_input_max(struct tb_conn *c, size_t bytes);
/*
 * tb_conn_line: the next line without its CRLF. LINE_OK: *line set and already consumed (valid until the step returns);
 * LINE_MORE: none yet; LINE_LONG: more than max bytes without CRLF (nothing consumed); LINE_BARE: a bare CR or LF or
 * NUL in it, the line (up to its LF) is consumed and *line is what it was. Scanning resumes where it stopped.
 */
enum tb_line { LINE_OK, LINE_MORE, LINE_LONG, LINE_BARE };
enum tb_line tb_conn_line(struct tb_conn *c, size_t max, struct tb_slice *line);

/* Output: appended in order; sent when the step returns. */
void tb_conn_put(struct tb_conn *c, struct tb_slice s);
void tb_conn_puts(struct tb_conn *c, const char *s);
void tb_conn_printf(struct tb_conn *c, const char *fmt, ...) TB_PRINTF(2, 3); /* numbers and fixed words only */
/* tb_conn_reserve / tb_conn_commit: write up to n bytes straight into the output. NULL without memory (the connection
 * is then closed). */
char *tb_conn_reserve(struct tb_conn *c, size_t n);
void tb_conn_commit(struct tb_conn *c, size_t n);
bool tb_conn_full(const struct tb_conn *c); /* above high water: return STEP_WAIT, step runs again below low water */
/* tb_conn_account: output from now on depends on this account (NULL: on none): before each send its position is held
 * (N1). The handle stays open until proto->close or proto->leave, even if another account (or NULL) follows. */
void tb_conn_account(struct tb_conn *c, struct tb_account *a);

/* tb_conn_resume: run the step soon (from a store op's done, a view's watch). Never nested. Owner's thread. */
void tb_conn_resume(struct tb_conn *c);
/* tb_conn_yield: within a step that then returns STEP_WAIT: it runs again in the next turn, when others had theirs. */
void tb_conn_yield(struct tb_conn *c);
/* tb_conn_starttls: after this step returns and its output is sent, the TLS handshake; then the step runs again. N3. */
void tb_conn_starttls(struct tb_conn *c);
/* tb_conn_compress: what follows in both directions is DEFLATE (RFC 4978): all input after what was consumed, all
 * output after what was written. Input that is here already closes the connection: it came before the answer. */
void tb_conn_compress(struct tb_conn *c);
bool tb_conn_compressed(const struct tb_conn *c);
/* tb_conn_uncompress: the end of it in both directions: output behind what was written is plain, and so is input behind
 * the end of the peer's DEFLATE block (RFC 8437 4.1). Inflated input that is here already closes the connection: it
 * came compressed and should not have. */
void tb_conn_uncompress(struct tb_conn *c);
/* tb_conn_move: after this step returns WAIT, its output is sent, and then the connection belongs to that worker and
 * the step runs there (at once if it is the same). No store op may be in flight; accounts are let go of in leave. */
void tb_conn_move(struct tb_conn *c, uint32_t worker);
/* tb_conn_company: how many connections of this worker were heard from in this second, or in the one before if that
 * were more. */
uint32_t tb_conn_company(const struct tb_conn *c);
/* tb_conn_timeout: seconds without input after which proto->timeout runs (0: none). After login also ends the pre-auth
 * limit. */
void tb_conn_timeout(struct tb_conn *c, uint32_t seconds, bool authenticated);
/* tb_conn_anonymous: nobody is logged in any more: the pre-auth limit holds again, from now on. Its account goes with
 * the move that has to follow. */
void tb_conn_anonymous(struct tb_conn *c);
/* tb_conn_set_name: the account's name for the "session end" line; copied. */
void tb_conn_set_name(struct tb_conn *c, const char *name);
/* tb_conn_abort: close now, sending nothing more (after the step returns). */
void tb_conn_abort(struct tb_conn *c);
struct tb_conn_traffic {
    uint64_t in, out;
};
struct tb_conn_traffic tb_conn_traffic(const struct tb_conn *c);

#endif
