/*
 * internal.h: the smtp room's own parts.
 *
 * path.c, params.c, data.c and trace.c are pure (bytes in, values out); route.c asks the directory; login.c,
 * transaction.c and smtp.c are the session. Everything of one connection runs on the thread of its worker.
 *
 * Lifetimes
 *   session      the connection's; zeroed by net, no heap of its own
 *   transaction  one heap object a connection, made at the first MAIL and used again; its arena is reset after
 *                every message. While a commit is in flight it outlives the connection: its session becomes
 *                NULL and done frees it.
 *   auth, pause  the same, for a password check and for the wait before the greeting
 */
#ifndef TB_SMTP_INTERNAL_H
#define TB_SMTP_INTERNAL_H

#include <tambo/delivery.h>
#include <tambo/quota.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/smtp/smtp.h"

/* ---- limits (RFC 5321 4.5.3.1 gives the least we must take; docs/LENIENCY.md what we take beyond) ---- */
enum {
    SMTP_LOCAL_MAX = 64,
    SMTP_DOMAIN_MAX = 255,
    SMTP_PATH_MAX = 256,              /* with its angle brackets */
    SMTP_LINE_MAX = 2048,             /* any command but AUTH, without CRLF */
    SMTP_AUTH_LINE_MAX = 12288 - 2,   /* RFC 4954 4: 12288 octets with CRLF */
    SMTP_LINE_SWALLOW_MAX = 64 << 10, /* a longer line ends the connection */
    SMTP_BAD_MAX = 100,
    SMTP_AUTH_FAILURES_MAX = 20,
    SMTP_RECEIVED_MAX = 100, /* RFC 5321 6.3: at least 100 */
    SMTP_ID_BYTES = 96,
};

/* ---- path.c ---- */
struct smtp_path {
    struct tb_slice mailbox; /* as written, without brackets and source route; empty for <>; borrowed from the input */
    struct tb_slice domain;  /* as written; empty if there was none; borrowed */
    char local[SMTP_LOCAL_MAX + 1]; /* quoting taken off; a NUL behind it */
    size_t local_len;
};
enum smtp_path_rc { PATH_OK, PATH_SYNTAX, PATH_EIGHT_BIT };
/*
 * smtp_path_parse: a Path (RFC 5321 4.1.2) at the front of in: "<>", "<local>" or "<local@domain>", any source
 * route dropped.
 *   used  set to the bytes up to and with ">"
 * EIGHT_BIT: a byte above 127 inside the brackets (we do not offer SMTPUTF8). Linear, no allocation.
 */
enum smtp_path_rc smtp_path_parse(struct tb_slice in, struct smtp_path *out, size_t *used);
/*
 * smtp_helo_valid: fit to stand in a greeting and in our Received field: 1..255 printable ASCII without blanks
 * or specials.
 */
bool smtp_helo_valid(struct tb_slice name);

/* ---- params.c ---- */
enum smtp_params_rc { PARAMS_OK, PARAMS_SYNTAX, PARAMS_UNKNOWN, PARAMS_HUGE };
/*
 * smtp_params_mail: what follows MAIL's path: SIZE (RFC 1870), BODY (RFC 6152), AUTH (RFC 4954 5) if auth is set.
 * HUGE: a SIZE above size_max. smtp_params_rcpt: what follows RCPT's path: we offer nothing there.
 */
enum smtp_params_rc smtp_params_mail(struct tb_slice in, bool auth, uint64_t size_max);
enum smtp_params_rc smtp_params_rcpt(struct tb_slice in);

/* ---- data.c ---- */
struct smtp_data {
    uint8_t state;
    bool dots;     /* DATA: dot-stuffed and ended by CRLF.CRLF; false for BDAT */
    bool ended;    /* the true end was seen */
    bool bare;     /* a CR or LF outside CRLF, or a disguised end of data: refuse the message */
    bool header;   /* still in the message's header */
    uint8_t match; /* bytes of "received:" matched in this line */
    uint32_t received;
};
void smtp_data_init(struct smtp_data *d, bool dots);
/*
 * smtp_data_next: take bytes from the front of in (not empty, and not after ended); returns how many, at least one.
 *   out  set to the message bytes among them, a part of in, maybe empty
 * Call again with the rest until it is used up or ended. After bare, out is of no use.
 */
size_t smtp_data_next(struct smtp_data *d, struct tb_slice in, struct tb_slice *out);
/* smtp_data_finish: BDAT's LAST: the message is complete; a CR left alone at its end is bare. */
void smtp_data_finish(struct smtp_data *d);

/* ---- trace.c ---- */
struct smtp_trace {
    struct tb_slice from; /* reverse-path without brackets */
    const char *helo, *peer, *host, *with, *id;
    struct tb_slice rcpt; /* the only recipient's mailbox; empty: no "for" clause */
    int64_t now_s;
};
/* smtp_trace_write: the Return-Path and Received fields (RFC 5321 4.4), each line ended by CRLF. */
void smtp_trace_write(const struct smtp_trace *t, struct tb_buf *out);
/* smtp_trace_with: the Received field's protocol word (RFC 3848, RFC 2033). */
const char *smtp_trace_with(bool lmtp, bool esmtp, bool secure, bool authenticated);

/* ---- the session ---- */
enum smtp_kind { SMTP_RELAY, SMTP_SUBMISSION, SMTP_LMTP }; /* port 25; 587 and 465; LMTP */
enum smtp_state {
    SMTP_PAUSE,      /* port 25: not greeted yet */
    SMTP_COMMAND,    /* a command line is next */
    SMTP_LONG_LINE,  /* dropping the rest of an overlong line */
    SMTP_AUTH_LINE,  /* a SASL response is next */
    SMTP_AUTH_CHECK, /* the password is being verified */
    SMTP_DATA,       /* message text up to CRLF.CRLF */
    SMTP_CHUNK,      /* octets of a BDAT chunk */
    SMTP_SKIP,       /* octets of a refused BDAT chunk */
    SMTP_COMMIT,     /* the delivery is being made durable */
    SMTP_ROOM,       /* a recipient's owner is asked whether there is room */
};

struct smtp_recipient {
    struct tb_delivery_target target;
    struct tb_slice address;     /* as written in RCPT, without brackets; arena */
    struct tb_slice account;     /* arena */
    struct smtp_recipient *twin; /* an earlier recipient with the same target: stored once, answered twice */
    struct smtp_recipient *next;
};

enum smtp_refusal { REFUSED_NOT, REFUSED_BARE, REFUSED_LOOP, REFUSED_SIZE };

struct smtp_session;
struct smtp_transaction {
    struct smtp_session *session; /* borrowed; NULL: the connection is gone, committed() frees this */
    struct tb_op op;              /* the one store op: a write or the commit */
    bool busy;                    /* op is in flight */
    bool open;                    /* MAIL was accepted */
    bool chunked;                 /* BDAT has begun */
    enum smtp_refusal refusal;    /* found while the text passed; answered at its end */
    struct tb_delivery *delivery; /* owned until commit or abort */
    struct smtp_data data;
    uint64_t bytes;                      /* message bytes handed to the delivery */
    struct tb_slice from;                /* reverse-path; arena */
    struct smtp_recipient *first, *last; /* arena */
    uint32_t recipients;
    struct tb_quota_ask room;     /* RCPT's question (busy) */
    struct smtp_recipient *asked; /* arena; for whom */
    char id[SMTP_ID_BYTES];
    struct tb_arena arena; /* owned */
    struct tb_buf trace;   /* owned; kept between messages */
};

struct smtp_auth {
    struct smtp_session *session; /* borrowed; NULL: the connection is gone */
    bool busy;                    /* login is in flight */
    struct tb_sasl sasl;
    struct tb_login login;
};

struct smtp_pause {
    struct smtp_session *session; /* borrowed; NULL: the connection is gone */
    struct tb_op timer;
};

struct smtp_session {
    struct tb_conn *conn; /* borrowed: it holds this session */
    enum smtp_kind kind;
    enum smtp_state state;
    bool esmtp;                     /* greeted with EHLO or LHLO */
    char helo[SMTP_DOMAIN_MAX + 1]; /* "": not greeted yet */
    char user[TB_NAME_MAX + 1];     /* "": not authenticated */
    struct tb_account_id user_id;
    struct smtp_transaction *tx; /* owned; NULL before the first MAIL */
    struct smtp_auth *auth;      /* owned while an exchange runs */
    struct smtp_pause *pause;    /* owned while state is SMTP_PAUSE */
    uint64_t chunk_bytes, chunk_left;
    bool chunk_last;
    const char *skip_reply; /* static: what a refused chunk is answered */
    uint64_t swallowed;     /* bytes of the overlong line */
    uint32_t bad;           /* failed and idle commands since the last accepted message */
    uint32_t auth_failures;
    uint32_t transactions;
};

static inline const struct tb_config *smtp_config(const struct smtp_session *s)
{
    return tb_conn_config(s->conn)->user;
}

/* smtp_bad: a refused command: the reply, and one step nearer to the door. */
enum tb_step smtp_bad(struct smtp_session *s, const char *reply);
/* smtp_word: is the front of in this word (any case), followed by a blank or the end? args: what follows, trimmed. */
bool smtp_word(struct tb_slice in, const char *word, struct tb_slice *args);

/* ---- route.c ---- */
enum smtp_route { ROUTE_LOCAL, ROUTE_UNKNOWN, ROUTE_REMOTE };
enum { SMTP_NAME_BYTES = SMTP_LOCAL_MAX + 1 + SMTP_DOMAIN_MAX + 1 };
/*
 * smtp_route: whose is this address? LOCAL: who and detail are set. UNKNOWN: our domain, no such account.
 * REMOTE: not ours.
 *   name  room for the name that was looked up; detail points into it
 */
enum smtp_route smtp_route(struct tb_store *store, const struct tb_config *cfg, const struct smtp_path *path,
                           char name[SMTP_NAME_BYTES], struct tb_identity *who, struct tb_slice *detail);

/* ---- transaction.c: MAIL, RCPT, DATA, BDAT and what they start ---- */
enum tb_step smtp_mail(struct smtp_session *s, struct tb_slice args);
enum tb_step smtp_rcpt(struct smtp_session *s, struct tb_slice args);
enum tb_step smtp_data_verb(struct smtp_session *s, struct tb_slice args);
enum tb_step smtp_bdat(struct smtp_session *s, struct tb_slice args);
enum tb_step smtp_step_data(struct smtp_session *s);
enum tb_step smtp_step_chunk(struct smtp_session *s);
enum tb_step smtp_step_skip(struct smtp_session *s);
enum tb_step smtp_step_commit(struct smtp_session *s);
enum tb_step smtp_step_room(struct smtp_session *s);
bool smtp_transaction_open(const struct smtp_session *s);
/* smtp_transaction_reset: forget the message; nothing of it is stored. No commit may be in flight. */
void smtp_transaction_reset(struct smtp_session *s);
/* smtp_transaction_close: the connection ends: free the transaction, or leave it to the commit in flight. */
void smtp_transaction_close(struct smtp_session *s);

/* ---- login.c: AUTH ---- */
/* smtp_auth_offered: may this connection send a password? (submission, and TLS, loopback or the setting) */
bool smtp_auth_offered(const struct smtp_session *s);
/* smtp_auth_list: EHLO's line of mechanisms. */
void smtp_auth_list(struct smtp_session *s);
enum tb_step smtp_auth_verb(struct smtp_session *s, struct tb_slice args);
enum tb_step smtp_step_auth_line(struct smtp_session *s);
enum tb_step smtp_step_auth_check(struct smtp_session *s);
void smtp_auth_close(struct smtp_session *s);

#endif
