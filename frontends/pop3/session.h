/*
 * session.h: one POP3 session, for the files of this room alone.
 *
 * session.c: states, lines, the verb table. login.c: USER, PASS, AUTH, STLS. maildrop.c: STAT, LIST, UIDL, DELE, RSET,
 * the UPDATE state. retrieve.c: RETR, TOP.
 */
#ifndef TB_POP3_SESSION_H
#define TB_POP3_SESSION_H

#include <tambo/fetch.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/pop3/pop3.h"

enum {
    POP3_LINE_MAX = 253,        /* RFC 2449 4: 255 octets with CRLF */
    POP3_SASL_LINE_MAX = 12288, /* RFC 4954 4's figure, which RFC 5034 leaves open */
    POP3_SKIP_MAX = 8192,       /* of a line that is too long, before we hang up */
    POP3_BAD_MAX = 20,          /* bad commands; a failed login counts for POP3_BAD_LOGIN */
    POP3_BAD_LOGIN = 4,
    POP3_SCAN_ROWS = 128
};

enum pop3_state {
    POP3_AUTHORIZATION,
    POP3_SASL,  /* a challenge was sent */
    POP3_LOGIN, /* the password is being checked */
    POP3_ENTER, /* on the account's worker: open the maildrop */
    POP3_TRANSACTION,
    POP3_LISTING, /* a LIST or UIDL of the whole maildrop is being written */
    POP3_BODY,    /* a RETR or TOP is being written */
    POP3_UPDATE   /* QUIT: what is marked is being removed (RFC 1939 6) */
};

/* Outlives the connection when that goes first: the check on its helper thread cannot be called back. */
struct pop3_login {
    struct tb_login check;
    struct tb_sasl sasl;  /* of AUTH; no mechanism: PASS */
    struct tb_conn *conn; /* borrowed; NULL: gone, free this when done */
    bool busy;            /* check is in flight */
};

/* A message on its way out. */
struct pop3_fetch {
    struct tb_op op;
    struct tb_conn *conn; /* borrowed */
    struct tb_body *body; /* owned */
    uint64_t size, header_size, offset;
    uint64_t lines;      /* body lines still to be sent; UINT64_MAX: all */
    struct tb_slice run; /* of the last read, not written yet */
    uint32_t seqno;
    bool reading, begun;
    char before[2]; /* the two bytes written last; CRLF to begin */
};

struct pop3 {
    uint8_t state;
    uint8_t bad;
    bool skipping; /* in a line that is too long */
    bool uidl;     /* the listing is UIDL's */
    uint32_t skipped;
    char *user;               /* owned; from USER until PASS */
    struct pop3_login *login; /* owned; only in POP3_SASL and POP3_LOGIN */
    struct tb_account_id id;
    struct tb_account *account; /* owned handle; NULL before login */
    struct tb_view *view;       /* owned; never refreshed: the maildrop's snapshot (RFC 1939 3) */
    uint32_t uidvalidity;
    uint32_t next_uid; /* of the listing */
    uint32_t deleted_n;
    uint8_t *deleted;         /* owned; bit seqno - 1; NULL while nothing is marked */
    struct tb_change *change; /* owned; only in POP3_UPDATE */
    struct tb_op change_op;
    bool changing;
    struct pop3_fetch *fetch, *ahead; /* owned; ahead: the pipelined RETR behind it, being read already */
};

typedef enum tb_step pop3_run(struct tb_conn *c, struct pop3 *p, struct tb_slice arg);

/* ---- session.c ---- */
const struct tb_config *pop3_config(struct tb_conn *c);
/* pop3_bad: say text (a full reply line) and count it; DONE when it was one too many. */
enum tb_step pop3_bad(struct tb_conn *c, struct pop3 *p, unsigned weight, const char *text);

/* ---- login.c ---- */
bool pop3_may_login(struct tb_conn *c); /* passwords may pass here: TLS, or loopback, or the setting */
/* pop3_sasl_list: CAPA's line of mechanisms. */
void pop3_sasl_list(struct tb_conn *c);
pop3_run pop3_user, pop3_pass, pop3_auth, pop3_stls;
enum tb_step pop3_sasl_step(struct tb_conn *c, struct pop3 *p);
enum tb_step pop3_login_step(struct tb_conn *c, struct pop3 *p);
enum tb_step pop3_enter_step(struct tb_conn *c, struct pop3 *p);
void pop3_login_free(struct pop3 *p);

/* ---- maildrop.c ---- */
pop3_run pop3_stat, pop3_list, pop3_uidl, pop3_dele, pop3_rset;
enum tb_step pop3_listing_step(struct tb_conn *c, struct pop3 *p);
/* pop3_update: remove what is marked, in the POP3_UPDATE state until it is done. */
enum tb_step pop3_update(struct tb_conn *c, struct pop3 *p);
enum tb_step pop3_update_step(struct tb_conn *c, struct pop3 *p);
/* pop3_message: a message number that is in the maildrop and not marked; else the -ERR is written. */
bool pop3_message(struct tb_conn *c, struct pop3 *p, struct tb_slice arg, uint32_t *seqno);

/* ---- retrieve.c ---- */
pop3_run pop3_retr, pop3_top;
enum tb_step pop3_body_step(struct tb_conn *c, struct pop3 *p);
void pop3_fetch_free(struct pop3_fetch **f);

#endif
