/*
 * imap_session.h: what the files of the imap room share: the session, the command, the framer, the parser, the writer.
 *
 * The way of a command: frame.c finds its end in the connection's input (session.c answers literals); the
 * whole command is copied into the session's arena; parse.c turns it into a struct imap_cmd by the verb table
 * of verbs.c; its run function is called by session.c until it says RUN_DONE; changes of the selected mailbox
 * are sent (sync.c), then the tagged reply.
 *
 * Invariants
 * I1 parse functions are pure: slice and arena in, arguments in the arena out; they never see the session.
 * I2 sequence numbers move only in imap_sync with may_expunge, which is called only where the verb table says
 *    so (VERB_SHIFTS) and in IDLE (RFC 3501 7.4.1).
 * I3 everything written goes through s->out; the tagged reply is the last thing a command writes (RFC 3501 5.2).
 * I4 what a store op may still call back after the connection closed is a heap object of its own that knows
 *    it is orphaned.
 */
#ifndef TB_IMAP_SESSION_H
#define TB_IMAP_SESSION_H

#include <tambo/acl.h>
#include <tambo/fetch.h>
#include <tambo/message.h>
#include <tambo/quota.h>

#include "frontends/auth/auth.h"
#include "frontends/config/config.h"
#include "frontends/imap/imap.h"
#include "frontends/net/net.h"

enum {
    IMAP_LINE_PRE_MAX = 8 << 10,       /* command bytes outside literals, before login */
    IMAP_LINE_MAX = 64 << 10,          /* after login */
    IMAP_LITERALS_MAX = 100,           /* in one command */
    IMAP_LITERAL_PRE_BYTES_MAX = 4096, /* their sum before login */
    IMAP_LITERAL_BYTES_MAX = 1 << 20,  /* their sum after login; an APPEND message is not counted */
    IMAP_LITERAL_MINUS_MAX = 4096,     /* RFC 7888 5: a non-synchronizing literal before login */
    IMAP_SKIP_MAX = 8 << 20,           /* bytes of a line too long that are read to find its end */
    IMAP_DEPTH_MAX = 100,              /* nesting of parentheses and NOT, OR */
    IMAP_BAD_MAX = 20,                 /* bad commands, then BYE */
    IMAP_NOISE_MAX = 3,                /* lines that are no text at all, then BYE */
    IMAP_TAG_MAX = 255,
    IMAP_FLAGS_MAX = 4096,           /* flags in one list, as parsed */
    IMAP_ARENA_MAX = 32 << 20,       /* memory of one command */
    IMAP_SYNC_ARENA_MAX = 256 << 20, /* memory of one view refresh; proportional to the changes */
    IMAP_BATCH = 256                 /* rows handled before other connections get their turn */
};

enum imap_state { IMAP_NOT_AUTHENTICATED = 1, IMAP_AUTHENTICATED = 2, IMAP_SELECTED = 4 }; /* bits, RFC 3501 3 */

struct imap_session;
struct imap_cmd;

/* ---- frame.c: where does this command end? Pure; the only incremental code. ---- */

struct imap_frame {
    size_t scanned;         /* bytes of the command looked at and good */
    size_t line;            /* where the present line began: behind the last literal */
    uint64_t literal_left;  /* bytes of the present literal still to be skipped */
    uint64_t literal_bytes; /* sum of literals */
    uint32_t line_bytes;    /* bytes outside literals, lines before the present one */
    uint32_t literals;
};
struct imap_frame_limits {
    uint32_t line_bytes, literal_bytes, literals;
    uint32_t nonsync_bytes; /* largest non-synchronizing literal; UINT32_MAX: no limit of its own */
};
struct imap_literal {
    uint64_t size;
    bool sync;     /* the peer waits for "+" */
    bool literal8; /* "~{n}", RFC 3516 */
    bool over;     /* past a limit, or no 63-bit number: not to be accepted as an argument */
};
enum imap_frame_result {
    FRAME_MORE,    /* not yet */
    FRAME_COMMAND, /* in[0..scanned) is a command with its CRLF */
    FRAME_LITERAL, /* in[0..scanned) ends in a literal's head; go on with imap_frame_literal, or drop the command */
    FRAME_BARE,    /* in[0..scanned) ends in a bare LF */
    FRAME_LONG     /* the line is longer than allowed; nothing more was scanned */
};
/*
 * imap_frame_next: go on looking. in begins at the command's first byte and only ever grows between calls.
 * Cost: each byte is looked at once. RFC 3501 2.2.1, 4.3; RFC 7888.
 */
enum imap_frame_result imap_frame_next(struct imap_frame *f, const struct imap_frame_limits *limits, struct tb_slice in,
                                       struct imap_literal *literal);
/* imap_frame_literal: the literal just reported is an argument: its bytes belong to the command. */
void imap_frame_literal(struct imap_frame *f, const struct imap_literal *literal);

/* ---- parse.c ---- */

struct imap_parser {
    const char *p, *end;
    struct tb_arena *arena;
    uint32_t depth;
    bool failed;           /* sticky: later calls do nothing and return empty values */
    bool cut;              /* what failed was a literal whose bytes are not there */
    const char *error;     /* static: what to answer, "BAD ..." or "NO [...] ..." */
    bool utf8;             /* in: mailbox names are UTF-8, "&" stands for itself (RFC 9051 5.1, RFC 6855 3) */
    struct tb_slice given; /* out: the last mailbox name as it was sent, in UTF-8 */
};
struct imap_set_range {
    uint32_t first, last; /* as sent; 0 = "*" */
};
struct imap_set {
    struct imap_set_range *v; /* arena */
    uint32_t n;
    bool saved; /* and "$": what a SEARCH saved (RFC 5182) */
};
struct imap_flags {
    uint16_t flags;
    struct tb_slice *keywords; /* arena */
    uint32_t keywords_n;
};

void imap_parser_init(struct imap_parser *p, struct tb_slice text, struct tb_arena *arena);
void imap_fail(struct imap_parser *p, const char *error);
bool imap_at(const struct imap_parser *p, char c); /* is c the next byte? */
bool imap_try(struct imap_parser *p, char c);      /* take c if it is next */
void imap_expect(struct imap_parser *p, char c);
void imap_sp(struct imap_parser *p);
bool imap_try_sp(struct imap_parser *p);
void imap_end(struct imap_parser *p); /* CRLF and nothing behind */
bool imap_at_end(const struct imap_parser *p);
bool imap_deeper(struct imap_parser *p); /* false, and failed, past IMAP_DEPTH_MAX; else undo with p->depth-- */
struct tb_slice imap_word(struct imap_parser *p); /* letters, digits and ".-+_": names of verbs, items, keys */
struct tb_slice imap_atom(struct imap_parser *p);
struct tb_slice imap_astring(struct imap_parser *p); /* unescaped, arena or the command itself */
struct tb_slice imap_string(struct imap_parser *p);
struct tb_slice imap_nstring(struct imap_parser *p);  /* ptr NULL: NIL */
struct tb_slice imap_nstring8(struct imap_parser *p); /* nstring / literal8: with any bytes */
uint32_t imap_number(struct imap_parser *p);
uint32_t imap_nz_number(struct imap_parser *p);
struct tb_slice imap_mailbox(struct imap_parser *p);                          /* UTF-8, checked and normalised */
struct tb_slice imap_mailbox_of(struct imap_parser *p, struct tb_slice wire); /* ... of a name that was read already */
struct tb_slice imap_list_mailbox(struct imap_parser *p);                     /* UTF-8 pattern */
uint32_t imap_seq_number(struct imap_parser *p);                              /* 0: "*" */
void imap_sequence_set(struct imap_parser *p, struct imap_set *set);
void imap_flag_list(struct imap_parser *p, struct imap_flags *flags);
void imap_flags_bare(struct imap_parser *p, struct imap_flags *flags); /* flag *(SP flag) */
uint64_t imap_modseq(struct imap_parser *p); /* mod-sequence-valzer: 0 to 2^63 - 1, RFC 7162 7 */
bool imap_date(struct imap_parser *p, int32_t *day);
int64_t imap_date_time(struct imap_parser *p);

/* ---- append_parse.c ---- */

enum imap_append_what {
    APPEND_NEXT,  /* a message begins, and the one before is whole */
    APPEND_URL,   /* its next part is what a URL names */
    APPEND_BYTES, /* ... is a literal, whose head ends the text */
    APPEND_END    /* the command ends, and the last message is whole */
};
struct imap_append_step { /* arena */
    struct imap_append_step *next;
    enum imap_append_what what;
    struct imap_flags flags; /* of NEXT, as internaldate */
    int64_t internaldate;
    bool has_date, utf8; /* utf8: "UTF8 (~{n}": a ")" follows the message (RFC 6855 4) */
    bool part;           /* of BYTES: the literal is one part of several (RFC 4469) */
    struct tb_slice url;
};
struct imap_append_args {
    struct tb_slice mailbox, given;
    uint32_t number; /* of REPLACE: the message; 0: "*" */
    uint8_t where;   /* append_parse.c's: in which rule its text ends */
    bool single;     /* REPLACE: one message only */
    struct imap_append_step *first;
};
/*
 * imap_append_more: the text of an APPEND behind one of its literals: p holds it up to and with the next literal's head
 * or the command's CRLF, which is left. p->cut: that literal is an argument (a URL), to be read before.
 */
struct imap_append_step *imap_append_more(struct imap_parser *p, uint8_t *where, bool single);
/*
 * imap_append_head: p holds a command up to and with the literal's head that the framer has just met.
 * APPEND_OTHER: not an APPEND or REPLACE, or the literal is one of its earlier arguments; APPEND_MESSAGE: a message, or
 * a part of it, comes next; APPEND_BAD: p->error.
 */
enum imap_append_head { APPEND_OTHER, APPEND_MESSAGE, APPEND_BAD };
enum imap_append_head imap_append_head(struct imap_parser *p, struct imap_cmd *cmd);

/* ---- catenate.c: what a URL names (RFC 4469) ---- */

struct imap_source;
/* imap_source_new: NULL without memory. imap_source_end: gives it back, at any time. */
struct imap_source *imap_source_new(struct imap_session *s, struct tb_slice url);
void imap_source_end(struct imap_source *x);
/*
 * imap_source_next: the next bytes, valid until the next call. WAIT: return RUN_WAIT, the step is resumed; SIZE: comes
 * once, before the bytes, with *size; BAD: the URL is none, or names nothing that may be read; *rc: OK, or what failed.
 */
enum imap_source_said { SOURCE_WAIT, SOURCE_SIZE, SOURCE_BYTES, SOURCE_END, SOURCE_BAD };
enum imap_source_said imap_source_next(struct imap_source *x, struct tb_slice *bytes, uint64_t *size, enum tb_rc *rc);
struct imap_url {            /* a message, or a part of one, of this server */
    struct tb_slice mailbox; /* empty: the selected one */
    uint32_t uidvalidity;    /* 0: any */
    uint32_t uid;
    struct imap_section *section; /* NULL: all of it */
};
/* imap_url_parse: a relative IMAP URL, or imap:///..., RFC 5092 7, 11. base: the selected mailbox, "" if there is none.
 * False: it is none, or names something else. Pure. */
bool imap_url_parse(struct tb_slice text, struct tb_slice base, struct tb_arena *arena, struct imap_url *out);

/* ---- verbs.c ---- */

enum imap_run { RUN_DONE, RUN_WAIT, RUN_MORE, RUN_CLOSE };
enum {
    VERB_SHIFTS = 1,  /* EXPUNGE responses may come before its tagged reply */
    VERB_UID = 2,     /* a UID command: sets are UIDs, FETCH responses carry UID */
    VERB_QUIET = 4,   /* the selected mailbox is not looked at afterwards */
    VERB_LOOK = 8,    /* ... but before: the set may name what arrived meanwhile */
    VERB_SEQ = 16,    /* its set is of sequence numbers: not with UIDONLY */
    VERB_CHANGES = 32 /* it changes messages: what that does to the selected mailbox is told in any case */
};
struct imap_verb {
    const char *name;
    uint8_t states;
    uint8_t flags;
    void (*parse)(struct imap_parser *p, struct imap_cmd *cmd);
    enum imap_run (*run)(struct imap_session *s, struct imap_cmd *cmd);
};
struct imap_cmd {
    struct tb_slice tag;
    const struct imap_verb *verb; /* NULL: none parsed */
    void *args;                   /* arena: from the verb's parse function */
    void *state;                  /* the verb's run function's own */
    void (*cleanup)(struct imap_session *s,
                    struct imap_cmd *cmd); /* at the end, also when the connection closes; may be NULL */
    struct tb_slice reply;                 /* arena or static: what follows the tag */
    bool holds; /* its search keys have sequence numbers: no VANISHED or EXPUNGE after all (RFC 7162 3.2.10.2) */
};
/* imap_verb_abroad: may the verb run while the session sits in another's account (P2)? */
bool imap_verb_abroad(const struct imap_verb *v);
/* imap_verb_find: by name in any case, "UID FETCH" for the UID forms; NULL. */
const struct imap_verb *imap_verb_find(struct tb_slice name);
/*
 * imap_parse_command: a complete command, with its CRLF, to cmd. False: p->error says what to answer;
 * cmd->tag is set if it was readable. Pure.
 */
bool imap_parse_command(struct imap_parser *p, struct imap_cmd *cmd);

/* ---- write.c ---- */

struct imap_out {
    struct tb_conn *conn;
    char *base, *p, *end; /* reserved in the connection's output; base == end: none */
    bool dead;            /* no memory: the connection is going to be closed */
    bool utf8;            /* the client reads UTF-8 in quoted strings and names: it enabled IMAP4rev2 or UTF8=ACCEPT */
};
struct imap_keywords { /* of the selected mailbox, for one command */
    struct tb_slice names[TB_KEYWORDS_MAX];
    size_t n;
    size_t bytes; /* all of them with blanks */
};
/* imap_out_flush: hand over what was written. Before any other tb_conn_ call about output, and before a step returns.
 */
void imap_out_flush(struct imap_out *o);
/* imap_room: n bytes to write at, or NULL (dead); then imap_wrote up to where you wrote. */
char *imap_room_slow(struct imap_out *o, size_t n);
static inline char *imap_room(struct imap_out *o, size_t n)
{
    return (size_t)(o->end - o->p) >= n ? o->p : imap_room_slow(o, n);
}
static inline void imap_wrote(struct imap_out *o, char *p)
{
    o->p = p;
}
void imap_put(struct imap_out *o, struct tb_slice s);
void imap_puts(struct imap_out *o, const char *s);
void imap_putc(struct imap_out *o, char c);
void imap_put_u64(struct imap_out *o, uint64_t v);
/* imap_put_astring: as an atom, a quoted string or a literal, the first that can carry it. */
void imap_put_astring(struct imap_out *o, struct tb_slice s);
/* imap_put_string: quoted, or a literal; 8-bit bytes are quoted only as UTF-8 that the client asked for. */
void imap_put_string(struct imap_out *o, struct tb_slice s);
/* imap_put_mailbox: a UTF-8 name, in modified UTF-7 unless the client reads UTF-8. */
void imap_put_mailbox(struct imap_out *o, struct tb_slice name);
/*
 * imap_put_ranges: set->v[*at..] as sequence-set text, at most IMAP_RANGES_A_LINE of them; *at is moved on. Nothing is
 * written when none is left.
 */
enum { IMAP_RANGES_A_LINE = 500 };
void imap_put_ranges(struct imap_out *o, const struct tb_uidset *set, size_t *at);
/* imap_put_full: has the peer enough to read for now? */
bool imap_put_full(struct imap_out *o);

/* Straight into memory with room enough: return the new end. */
enum { IMAP_U64_ROOM = 20, IMAP_FLAGS_ROOM = 64, IMAP_DATE_ROOM = 32 };
char *imap_fmt_u64(char *p, uint64_t v);
char *imap_fmt_date(char *p, int64_t utc_s); /* with its quotes; RFC 3501 9 date-time */
char *imap_fmt_flags(char *p, uint16_t flags, uint64_t keywords,
                     const struct imap_keywords *k); /* IMAP_FLAGS_ROOM + k->bytes */
static inline char *imap_fmt(char *p, const void *s, size_t n)
{
    memcpy(p, s, n);
    return p + n;
}
#define IMAP_FMT(p, literal) imap_fmt((p), "" literal, sizeof(literal) - 1)

/* ---- name.c: modified UTF-7 (RFC 3501 5.1.3) ---- */

/* imap_name_decode: to UTF-8 in the arena. False: not modified UTF-7, in its one canonical form. */
bool imap_name_decode(struct tb_slice wire, struct tb_arena *arena, struct tb_slice *utf8);
/* imap_name_encode: well-formed UTF-8 to modified UTF-7; other bytes become U+FFFD. */
void imap_name_encode(struct tb_slice utf8, struct tb_buf *out);

/* ---- sync.c: what changed in the selected mailbox, told to the client ---- */

enum { SYNC_EXPUNGE = 1, SYNC_UID = 2, SYNC_NO_FLAGS = 4 };
struct imap_sync {
    struct tb_arena arena;
    struct tb_changes changes;
    struct tb_uidset vanished;      /* arena: changes.removed_uid, with QRESYNC */
    struct imap_keywords *keywords; /* arena */
    uint32_t next;
    uint8_t part, how;
    bool active;
};
/*
 * imap_sync: refresh the view and write what changed. False: the output is full, or others had better have their turn:
 * return RUN_WAIT and call again. True: done. When
 * the mailbox was deleted, s->gone is set.
 *   how  SYNC_EXPUNGE removals may be told; SYNC_UID flag changes carry the UID; SYNC_NO_FLAGS flag changes
 *   are known and not told
 */
bool imap_sync(struct imap_session *s, uint8_t how);
/* imap_settle: as imap_sync without removals, until nothing is left to tell: a change made now is alone in the next
 * refresh. */
bool imap_settle(struct imap_session *s, uint8_t how);
void imap_sync_abandon(struct imap_session *s);
/* imap_fmt_fetch: "* n FETCH (", with UIDONLY "* uid UIDFETCH (" (RFC 9586 3.3); IMAP_U64_ROOM + 16 bytes. */
char *imap_fmt_fetch(const struct imap_session *s, char *p, uint32_t seqno, uint32_t uid);
/* imap_keywords_load: names of the selected mailbox's keywords. LIMIT. */
enum tb_rc imap_keywords_load(struct imap_session *s, struct tb_arena *arena, struct imap_keywords *k) TB_USE_RESULT;
/*
 * imap_put_flags: "* n FETCH (...)" of a message whose flags are told. UID and MODSEQ come too where what was enabled
 * wants them (RFC 7162 3.1, 3.2.4). With UIDONLY "* uid UIDFETCH (...)", without UID (RFC 9586 3.3). False: no memory.
 */
enum { TELL_FLAGS = 1, TELL_UID = 2, TELL_MODSEQ = 4 };
bool imap_put_flags(struct imap_session *s, uint32_t seqno, const struct tb_row *row, const struct imap_keywords *k,
                    uint8_t what);
/* imap_put_flags_lists: "* FLAGS" and "* OK [PERMANENTFLAGS". */
void imap_put_flags_lists(struct imap_session *s, const struct imap_keywords *k);

/* ---- walk.c: the rows of a set, with their sequence numbers ---- */

struct imap_walk {
    struct tb_view *view;
    const struct tb_uidset *set;
    struct tb_row *rows; /* arena, IMAP_BATCH */
    size_t range, n, i;
    uint32_t rows_max;
    uint32_t uid;   /* where to scan next in the range; 0: at its beginning; UINT32_MAX: it is done */
    uint32_t seqno; /* of the next message in the range */
    bool gone;      /* a message of the view is not in the mailbox any more: expunged by another session */
};
bool imap_walk_init(struct imap_walk *w, struct imap_session *s, const struct tb_uidset *set);
const struct tb_row *imap_walk_next(struct imap_walk *w,
                                    uint32_t *seqno); /* NULL at the end; valid until the next call */
/*
 * imap_set_ranges: a set's numbers up to last, which is what "*" means (0: there are none): sorted, merged, clipped
 * into v[0..set->n). INVALID: strict, and a number lies beyond last. Pure. Cost: the ranges, not the numbers.
 */
enum tb_rc imap_set_ranges(const struct imap_set *set, uint32_t last, bool strict, struct tb_range *v,
                           size_t *n) TB_USE_RESULT;
/*
 * imap_set_resolve: the UIDs a set means in the selected view, as ranges (other UIDs may lie in them).
 * INVALID: a sequence number that does not exist; LIMIT. out's memory is the arena's: it is only read.
 */
enum tb_rc imap_set_resolve(struct imap_session *s, const struct imap_set *set, bool uid,
                            struct tb_uidset *out) TB_USE_RESULT;

/* ---- the session ---- */

/* ---- resync.c: CONDSTORE and QRESYNC (RFC 7162) ---- */

/* bits of s->enabled */
enum imap_enabled { IMAP_CONDSTORE = 1, IMAP_QRESYNC = 2, IMAP_REV2 = 4, IMAP_UTF8 = 8, IMAP_UIDONLY = 16 };
/* imap_condstore: a command that enables CONDSTORE was seen (RFC 7162 3.1): from now on FETCH responses have MODSEQ. */
void imap_condstore(struct imap_session *s);
/* imap_put_vanished: "* VANISHED (EARLIER) set", in lines; *at moves on. False: the output is full, call again. */
bool imap_put_vanished(struct imap_session *s, const struct tb_uidset *set, bool earlier, size_t *at);
/* imap_highestmodseq: of the selected mailbox as it is now, this session's own changes included. */
uint64_t imap_highestmodseq(struct imap_session *s);
/* imap_reply_modseq: "OK [HIGHESTMODSEQ n] text" with QRESYNC, else "OK text". */
enum imap_run imap_reply_modseq(struct imap_session *s, struct imap_cmd *cmd, const char *text);
/*
 * imap_resync: what a session that was away missed: VANISHED (EARLIER), then FETCH with UID, FLAGS and MODSEQ of what
 * changed. known: as tb_view_since. State in *r, zeroed at first, alive until imap_resync_end.
 */
struct imap_resync {
    struct tb_since since; /* owned */
    struct imap_walk walk;
    struct imap_keywords *keywords; /* arena */
    size_t at;
    bool begun;
};
enum imap_run imap_resync(struct imap_session *s, struct imap_resync *r, uint64_t modseq, const struct tb_uidset *known,
                          enum tb_rc *rc);
void imap_resync_end(struct imap_resync *r);

enum imap_phase { PHASE_READ, PHASE_SKIP, PHASE_LOOK, PHASE_RUN, PHASE_REPLY, PHASE_CLOSE };

struct imap_session {
    struct tb_conn *conn;
    const struct tb_config *config;
    struct imap_out out;
    struct imap_frame frame;
    struct tb_arena arena; /* of the command */
    struct imap_cmd cmd;
    struct imap_sync sync;
    struct imap_contexts *contexts;  /* owned: searches that are kept up to date; NULL: none ever was */
    struct tb_uidset saved;          /* UIDs that SEARCH RETURN (SAVE) kept, of the selected mailbox */
    struct tb_account *account;      /* owned, after login: of the seat; NULL on the way there */
    struct tb_view *view;            /* owned, when selected */
    struct imap_notify *notify;      /* owned; NULL: NOTIFY was never used */
    struct tb_account_id account_id; /* the session's own account */
    struct tb_account_id seat;       /* where it sits, or is on its way to: place.c */
    char *user;                      /* owned: account name, for the log */
    const char *farewell;            /* static: after the tagged reply, BYE with this */
    uint64_t skipped;
    uint64_t silent_since_ns; /* of a long command: when the client was told something; 0: not looked at yet */
    uint32_t bad, noise;
    uint32_t rights; /* enum tb_right, in the selected mailbox */
    uint8_t phase, state;
    uint8_t enabled;   /* enum imap_enabled */
    enum tb_rc sit_rc; /* why it is on its way home again */
    bool read_only;
    bool rights_changed; /* since PERMANENTFLAGS told them */
    bool gone;           /* the selected mailbox was deleted by another session */
    bool changed;        /* the watch fired */
    bool mid_response;   /* in the middle of a response or literal: no farewell may be written into it */
    bool logout;
    bool starttls;       /* after the tagged reply, the handshake */
    bool compress;       /* ... DEFLATE */
    bool unauthenticate; /* ... nobody is logged in any more */
};

/* The tagged reply of a command: returns RUN_DONE. Static text, a code, or built in a tb_buf (copied, freed). */
enum imap_run imap_reply(struct imap_cmd *cmd, const char *reply);
enum imap_run imap_reply_rc(struct imap_cmd *cmd, enum tb_rc rc);
enum imap_run imap_reply_buf(struct imap_session *s, struct imap_cmd *cmd, struct tb_buf *b);
/* imap_yield: RUN_WAIT, and the step runs again when others had their turn: between two pieces of work that are some
 * milliseconds long. */
enum imap_run imap_yield(struct imap_session *s);
/* imap_unselect: close the view, if any; the session is authenticated only. */
void imap_unselect(struct imap_session *s);
/*
 * imap_still_working: between two slices of a long command: once in imap_progress_s, "* OK [INPROGRESS" (RFC 9585) with
 * how much of goal is done; goal 0: it is not known. Never within a response.
 */
void imap_still_working(struct imap_session *s, uint64_t done, uint64_t goal);
/* imap_capabilities: the list, true for the session's present state, a blank before each. */
void imap_capabilities(struct imap_session *s, struct tb_buf *out);
/* imap_sasl_env: who speaks to whom, for an exchange or for the list of mechanisms. */
struct tb_sasl_env imap_sasl_env(struct imap_session *s);
/* imap_plain_allowed: may a password cross this connection as it is? */
bool imap_plain_allowed(struct imap_session *s);

/* ---- context.c: searches that are kept up to date (RFC 5267) ---- */
/* imap_contexts_changed: a refresh brought changes; only while there are contexts. */
void imap_contexts_changed(struct imap_session *s, const struct tb_changes *changes);
/* imap_contexts_own: messages that this session stored in the selected mailbox. */
void imap_contexts_own(struct imap_session *s, const struct tb_uidset *uids);
/* imap_contexts_leaving: REMOVEFROM of what is about to be told as expunged. False: the output is full, call again. */
bool imap_contexts_leaving(struct imap_session *s);
/* imap_contexts_tell: look at what changed, ADDTO and REMOVEFROM. False: wait, call again, and no refresh meanwhile. */
bool imap_contexts_tell(struct imap_session *s);
bool imap_contexts_active(const struct imap_session *s);
/* imap_contexts_end: at any time; before the view closes. */
void imap_contexts_end(struct imap_session *s);

/* ---- place.c: mailboxes of others, and where the session sits ---- */

#define IMAP_OTHERS "Other Users/" /* then the owner's name, '/', the owner's name of the mailbox */
#define IMAP_UIDREQUIRED "BAD [UIDREQUIRED] No message numbers once UIDONLY is enabled" /* RFC 9586 3 */
#define IMAP_NOPERM "NO [NOPERM] You have no right to do that"
struct imap_place {
    struct tb_account_id id;
    struct tb_slice name; /* as the owner knows it; a part of the name asked for */
    bool own;
};
/* imap_is_others: is it, or could it be, in the namespace of others? */
bool imap_is_others(struct tb_slice name);
/* imap_locate: whose mailbox a name means. False: none can be there. */
bool imap_locate(struct imap_session *s, struct tb_slice name, struct imap_place *out);
bool imap_at_home(const struct imap_session *s);
/*
 * imap_sit: sit down in an account; nothing is selected. False: on the way, return RUN_WAIT and call again. True: *rc
 * OK, or why not: the session sits at home then, or has its farewell.
 */
bool imap_sit(struct imap_session *s, struct tb_account_id id, enum tb_rc *rc);
void imap_leave(struct tb_conn *c); /* proto->leave */
/* imap_rights_look: bring s->rights, in the selected mailbox, up to date (and s->rights_changed). False: it may not be
 * read any more. */
bool imap_rights_look(struct imap_session *s);
/* imap_flags_allowed: the system flags that these rights let a user change; keywords go with TB_RIGHT_WRITE. */
uint16_t imap_flags_allowed(uint32_t rights);

struct imap_status { /* STATUS items asked for, as indices into mailbox.c's table */
    uint8_t item[16];
    uint8_t n;
    uint64_t deleted_bytes; /* imap_status_scan */
};
struct imap_errand {              /* work in an account, wherever the session sits */
    struct imap_session *s;       /* borrowed; NULL: the connection is gone */
    struct tb_account_id id;      /* acct 0: no account, the shard */
    struct tb_arena arena;        /* what the errand takes along and brings back */
    struct tb_slice name, second; /* mailboxes, as the owner knows them */
    uint32_t user;                /* who asks */
    bool own;                     /* it is the asker's account: every right is there */
    bool busy;
    /* for the work, as it needs them */
    uint16_t special;
    bool on;
    uint64_t size;   /* of messages that are to come */
    uint32_t count;  /* of them */
    uint32_t change; /* enum acl_change: acl.c */
    struct tb_acl_entry entry;
    struct tb_uidset uids; /* arena */
    struct tb_shared_at at;
    struct tb_renaming left;     /* mailbox.c */
    struct tb_quota quota, used; /* quota.c */
    void *data;                  /* arena: metadata.c, catenate.c */
    /* what came out */
    enum tb_rc rc;
    const char *refusal; /* static: the reply, instead of rc's */
    struct tb_mailbox mailbox;
    uint32_t rights;           /* the asker's, in mailbox */
    struct imap_status status; /* what was scanned for */
    bool full;                 /* the account has no room for it */
    struct tb_body *body;      /* owned: catenate.c; its owner's, to be read from here */
    struct tb_acl_entry *acl;
    struct tb_mailbox *list;
    struct tb_shared *shared;
    size_t n;
    /* private */
    uint64_t self;
    void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *a);
    struct tb_worker *from; /* who gets the answer */
    struct tb_call call;
};
/*
 * imap_errand_new: NULL without memory. imap_errand_start: run work on the account's owner; if e->busy, the step is
 * resumed when it is done: return RUN_WAIT. It may be started again. imap_errand_end: gives it back, at any time.
 */
struct imap_errand *imap_errand_new(struct imap_session *s, const struct imap_place *where);
void imap_errand_start(struct imap_session *s, struct imap_errand *e,
                       void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *a));
void imap_errand_end(struct imap_errand *e);
/* imap_errand_of: new, and it ends with the command; cmd->state is the errand. */
struct imap_errand *imap_errand_of(struct imap_session *s, struct imap_cmd *cmd, const struct imap_place *where);
/* imap_errand_reply: what e->refusal or e->rc says. */
enum imap_run imap_errand_reply(struct imap_cmd *cmd, const struct imap_errand *e);
/*
 * For work functions. imap_errand_may: are the needed rights among those there are? If not, rc and refusal are set: as
 * if nothing were there for who may not even look it up (P3). imap_errand_find: e->name to e->mailbox and e->rights.
 */
bool imap_errand_may(struct imap_errand *e, uint32_t have, uint32_t need);
bool imap_errand_find(struct imap_errand *e, struct tb_account *a, uint32_t need);

/* ---- ferry.c ---- */
/*
 * imap_ferry_new: start copying messages of the view to the mailbox that an errand found; NULL without memory.
 * imap_ferry_over: false while it goes on: return RUN_WAIT and call again; else the result and what was copied. The
 * step is resumed. imap_ferry_end: gives it back, at any time; before the view closes.
 */
struct imap_ferry;
struct imap_ferry *imap_ferry_new(struct imap_session *s, const struct tb_uidset *uids, const struct imap_errand *to);
bool imap_ferry_over(struct imap_ferry *f, enum tb_rc *rc, const struct tb_copied **copied);
void imap_ferry_end(struct imap_ferry *f);

/* ---- shared.c ---- */
/*
 * imap_gather: all names of the session's own account and, with others, those that others share with it, as LIST tells
 * them: parents before children. False: on the way, return RUN_WAIT. State in *g, zeroed at first; imap_gather_end.
 */
struct imap_gather {
    struct imap_errand *e; /* owned: the names live in its arena */
    uint32_t shard;        /* the next one to ask */
    bool own_done;
    struct tb_mailbox *own;
    size_t own_n;
    struct tb_shared *shared; /* arena */
    size_t shared_n, shared_cap;
    enum tb_rc rc;
    struct tb_mailbox *v; /* the result */
    uint32_t *rights;     /* beside v */
    size_t n;
};
bool imap_gather(struct imap_session *s, struct imap_gather *g, bool others);
void imap_gather_end(struct imap_gather *g);

/* ---- the verbs: one parse and one run function each ---- */
#define IMAP_VERB(name) \
    void imap_parse_##name(struct imap_parser *p, struct imap_cmd *cmd); \
    enum imap_run imap_run_##name(struct imap_session *s, struct imap_cmd *cmd);
#define IMAP_VERB_RUN(name) enum imap_run imap_run_##name(struct imap_session *s, struct imap_cmd *cmd);

void imap_status_items(struct imap_parser *p, struct imap_status *status);
/* imap_status_add: one more item, by its name in the table. */
void imap_status_add(struct imap_status *status, const char *name);
/* imap_status_scans: may an item cost more than a look at the mailbox's row? */
bool imap_status_scans(const struct imap_status *status);
/* imap_status_condstore: is HIGHESTMODSEQ among them, which enables CONDSTORE (RFC 7162 3.1)? */
bool imap_status_condstore(const struct imap_status *status);
/* imap_status_scan: do what it costs, on the account's owner, before imap_put_status. */
void imap_status_scan(struct tb_account *a, const struct tb_mailbox *m, struct imap_status *status);
/* imap_put_status: "* STATUS name (...)". */
void imap_put_status(struct imap_session *s, struct tb_slice name, const struct tb_mailbox *m,
                     const struct imap_status *status);
/* imap_put_mailboxid: a mailbox's objectid (RFC 8474 4). */
void imap_put_mailboxid(struct imap_out *o, uint64_t mailboxid);
void imap_parse_none(struct imap_parser *p, struct imap_cmd *cmd);        /* no arguments */
void imap_parse_one_mailbox(struct imap_parser *p, struct imap_cmd *cmd); /* args: struct imap_one_mailbox */
struct imap_one_mailbox {
    struct tb_slice name, given; /* given: as it was sent */
};
IMAP_VERB_RUN(capability)
IMAP_VERB_RUN(noop)
IMAP_VERB_RUN(logout)
IMAP_VERB_RUN(unauthenticate)
IMAP_VERB_RUN(namespace)
IMAP_VERB(id)
IMAP_VERB_RUN(starttls)
IMAP_VERB(compress)
IMAP_VERB(login)
IMAP_VERB(authenticate)
IMAP_VERB(enable)
IMAP_VERB(select)
IMAP_VERB_RUN(examine)
IMAP_VERB_RUN(close)
IMAP_VERB_RUN(unselect)
IMAP_VERB_RUN(expunge)
IMAP_VERB(uid_expunge)
IMAP_VERB(create)
IMAP_VERB_RUN(delete)
IMAP_VERB(rename)
IMAP_VERB_RUN(subscribe)
IMAP_VERB_RUN(unsubscribe)
IMAP_VERB(list)
IMAP_VERB(lsub)
IMAP_VERB(status)
IMAP_VERB(append)
IMAP_VERB(replace)
IMAP_VERB(search)
IMAP_VERB(cancelupdate)
IMAP_VERB(esearch)
IMAP_VERB(sort)
IMAP_VERB(thread)
IMAP_VERB(fetch)
IMAP_VERB(store)
IMAP_VERB(copy)
IMAP_VERB_RUN(move)
IMAP_VERB_RUN(idle)
IMAP_VERB(notify)
void imap_parse_acl(struct imap_parser *p, struct imap_cmd *cmd);
IMAP_VERB_RUN(setacl)
IMAP_VERB_RUN(deleteacl)
IMAP_VERB_RUN(getacl)
IMAP_VERB_RUN(listrights)
IMAP_VERB_RUN(myrights)
IMAP_VERB(getmetadata)
IMAP_VERB(setmetadata)

/* ---- metadata.c, for LIST RETURN (METADATA ...) too (RFC 9590) ---- */
struct imap_entries {
    struct tb_slice *v; /* arena; lower case */
    size_t n;
};
/* imap_parse_entries: entries = entry / "(" entry *(SP entry) ")"; RFC 5464 5. list: only the second form. */
void imap_parse_entries(struct imap_parser *p, struct imap_entries *entries, bool list);
/*
 * imap_metadata_start: read entries of a mailbox ("": of the server), each alone; NULL: without memory, or there can be
 * no such mailbox. When it is not busy (any more): imap_metadata_put writes what there is, imap_errand_end.
 */
struct imap_errand *imap_metadata_start(struct imap_session *s, struct tb_slice mailbox,
                                        const struct imap_entries *entries);
void imap_metadata_put(struct imap_session *s, struct tb_slice mailbox, const struct imap_errand *e);

IMAP_VERB(getquota)
IMAP_VERB_RUN(getquotaroot)
IMAP_VERB(setquota)
/* imap_is_admin: quota.c: may this session see and set other accounts' limits? */
bool imap_is_admin(const struct imap_session *s);

/*
 * imap_append_begin: APPEND or REPLACE takes over at its first literal, which is still in the input or not yet sent.
 *   refusal  NULL, or why the command is bad: the literal is swallowed if it comes unasked, and nothing is stored
 */
void imap_append_begin(struct imap_session *s, struct imap_cmd *cmd, const struct imap_literal *l, const char *refusal);

/* ---- limit.c: RFC 9738 ---- */
/*
 * imap_limit_keep: if uids, resolved from a set, are more than limit messages (0: never), leave the highest of them in
 * it, in new ranges of the arena, and the lowest of those in *last; else 0. LIMIT. Cost: the ranges.
 */
enum tb_rc imap_limit_keep(struct imap_session *s, uint32_t limit, struct tb_uidset *uids,
                           uint32_t *last) TB_USE_RESULT;
/* imap_limit_reply: the tagged OK (done) or NO with MESSAGELIMIT. last: the lowest UID worked on, or 0. */
enum imap_run imap_limit_reply(struct imap_session *s, struct imap_cmd *cmd, bool done, uint32_t limit, uint32_t last,
                               const char *text);
/* imap_limit_tell: the same untagged, where the tagged reply has another code. */
void imap_limit_tell(struct imap_session *s, uint32_t limit, uint32_t last);

/* ---- list.c ---- */
/*
 * imap_put_list: "* LIST" of one mailbox, unasked. m: for its attributes, NULL: it is gone; oldname: what it was called
 * by, told if it differs. RFC 9051 6.3.2, 6.3.9.7.
 */
void imap_put_list(struct imap_session *s, const struct tb_mailbox *m, struct tb_slice name, struct tb_slice oldname);

/*
 * imap_put_list_event: the same for NOTIFY: what is no mailbox any more, or a mere name, is \NonExistent. what:
 * LIST_IS_SUBSCRIBED, LIST_NOACCESS. RFC 5465 5.4, 5.5, 5.9.
 */
enum { LIST_IS_SUBSCRIBED = 1, LIST_NOACCESS = 2 };
void imap_put_list_event(struct imap_session *s, const struct tb_mailbox *m, struct tb_slice name,
                         struct tb_slice oldname, uint8_t what);

/* ... for tests: the pattern matcher */
struct imap_pattern;
/* imap_pattern_new: NULL when the arena is full, or when the pattern can match no name at all (*never set). */
struct imap_pattern *imap_pattern_new(struct tb_slice pattern, struct tb_arena *arena, bool *never);
bool imap_pattern_match(const struct imap_pattern *p, struct tb_slice name);

/* ---- notify.c (RFC 5465) ---- */
/*
 * imap_notify_how: what NOTIFY makes of a refresh of the selected mailbox; verb: of the command whose end it is, NULL:
 * there is none. False: the client wants to be told nothing of it.
 */
bool imap_notify_how(const struct imap_session *s, const struct imap_verb *verb, uint8_t *how);
/* imap_notify_step: between commands, and in IDLE: tell what there is to tell. RUN_DONE: for now that was all. */
enum imap_run imap_notify_step(struct imap_session *s, bool idle);
/* imap_notify_added: messages with these UIDs have come into the view. imap_notify_own: this session stored them. */
void imap_notify_added(struct imap_session *s, uint32_t first, uint32_t last);
void imap_notify_own(struct imap_session *s, uint32_t acct, uint32_t mbox, const struct tb_uidset *uids);
/* imap_notify_watch: have the selected mailbox watched, or not, as NOTIFY wants it outside IDLE. */
void imap_notify_watch(struct imap_session *s);
void imap_notify_unselected(struct imap_session *s);
/* imap_notify_busy: is something under way that has to come back before the session moves (O4)? imap_notify_leave: it
 * moves. */
bool imap_notify_busy(const struct imap_session *s);
void imap_notify_leave(struct imap_session *s);
void imap_notify_arrive(struct imap_session *s);
/* imap_notify_subscribed: a mailbox is subscribed to from now on, or is not, by this session or another. */
void imap_notify_subscribed(struct imap_session *s, struct tb_slice name, bool on);
/* imap_notify_self: the name under which the session makes changes; 0: none. */
uint64_t imap_notify_self(const struct imap_session *s);
void imap_notify_end(struct imap_session *s);
void imap_on_change(void *session); /* idle.c: the selected mailbox has changed */

/* ---- search.c ---- */
/* imap_search_refused: a command was refused with NO as it was parsed. What was saved is gone if it was a SEARCH or
 * SORT that would have saved (RFC 5182 2.1). */
void imap_search_refused(struct imap_session *s, const struct imap_cmd *cmd);

/* ---- change.c ---- */
/*
 * imap_change_begin: start changing messages of the view (uids NULL: all); false without memory. imap_change_over:
 * false while it goes on: the run function returns RUN_WAIT and is called again; else the result, and what was copied
 * or removed (may be NULL without memory). imap_change_end: give it back, before the view closes.
 */
bool imap_change_begin(struct imap_session *s, struct imap_cmd *cmd, enum tb_change_kind kind,
                       const struct tb_uidset *uids, uint32_t dst);
bool imap_change_over(const struct imap_cmd *cmd, enum tb_rc *rc, const struct tb_copied **copied);
void imap_change_end(struct imap_session *s, struct imap_cmd *cmd);

#endif
