/*
 * imap_fetch.h: what fetch.c (the verb, its items), section.c (BODY[...]) and body.c (messages' bytes on
 * their way) share.
 */
#ifndef TB_IMAP_FETCH_H
#define TB_IMAP_FETCH_H

#include "imap_session.h"

enum {
    FETCH_SECTIONS_MAX = 256, /* BODY[...] items in one FETCH */
    FETCH_PATH_MAX = TB_MIME_DEPTH_MAX + 1,
    FETCH_WINDOW = 32,            /* messages whose bytes are being read at once */
    FETCH_WINDOW_BYTES = 4 << 20, /* ... and what they may hold together; one message is always let in */
    FETCH_AHEAD_MAX = 256 << 10   /* of one message: read before its turn; the rest is streamed */
};

/* ---- section.c ---- */

enum imap_section_want { WANT_BODY, WANT_BINARY, WANT_BINARY_SIZE, WANT_PREVIEW };
enum imap_section_kind { SECTION_ALL, SECTION_HEADER, SECTION_FIELDS, SECTION_FIELDS_NOT, SECTION_TEXT, SECTION_MIME };
struct imap_section { /* one BODY[...] or BINARY[...] item; arena */
    enum imap_section_want want;
    enum imap_section_kind kind;
    struct tb_slice label; /* as the response names it: "BODY[1.HEADER.FIELDS (DATE)]<0>" */
    uint32_t *path;        /* part numbers */
    uint32_t path_n;
    bool absent; /* deeper than any part */
    bool peek, partial;
    bool lazy;              /* PREVIEW (LAZY): NIL where the message would have to be scanned */
    uint32_t offset, count; /* of partial */
    struct tb_slice *fields;
    size_t fields_n;
};
struct imap_piece { /* where a section's bytes lie in one message */
    uint64_t offset, size;
    enum tb_encoding encoding; /* of BINARY: what is to be undone */
    bool nil;                  /* there is no such part */
    char charset[64];          /* of PREVIEW */
};
/* imap_section_parse: after "BODY", "BINARY.PEEK" and the like: "[" section-spec "]" ["<" number "." nz-number ">"]. */
void imap_section_parse(struct imap_parser *p, enum imap_section_want want, bool peek, struct imap_section *out);
/* imap_preview_parse: after "PREVIEW": [SP "(" "LAZY" ")"] (RFC 8970 6). */
void imap_preview_parse(struct imap_parser *p, struct imap_section *out);
/* imap_section_find: the piece in a message of `size` bytes. parts: needed only with path_n > 0. BINARY: all of it,
 * still encoded; its partial range counts decoded bytes. */
void imap_section_find(const struct imap_section *x, struct tb_slice parts, uint64_t header_size, uint64_t size,
                       struct imap_piece *out);

/* ---- fetch.c ---- */

struct imap_fetch_message { /* what an item's put function may look at */
    const struct tb_row *row;
    uint32_t seqno;
    struct tb_account *account;
    struct tb_slice envelope, bodystructure, body;
    const struct imap_keywords *keywords;
};
struct imap_fetch_kind {
    const char *name;
    size_t room; /* bytes put may write, beyond keywords and the stored texts */
    uint8_t needs;
    char *(*put)(char *p, const struct imap_fetch_message *m);
};
enum { NEEDS_ENVELOPE = 1, NEEDS_STRUCTURE = 2, NEEDS_BODY_TEXT = 4, NEEDS_FLAGS = 8, NEEDS_CACHE = 7 };
enum { FETCH_KINDS_MAX = 16 };

/* ---- partial.c ---- */

struct imap_partial { /* places among the messages named; last 0: all of them */
    bool from_end;
    uint32_t first, last; /* in order, without sign */
};
/* imap_partial_parse: SP partial-range. */
void imap_partial_parse(struct imap_parser *p, struct imap_partial *out);
/*
 * imap_partial_keep: uids, resolved from a set, become those of the messages at the places of range; the new ranges are
 * the arena's. LIMIT. Cost: the ranges. RFC 9394 3.3
 */
enum tb_rc imap_partial_keep(struct imap_session *s, const struct imap_partial *range,
                             struct tb_uidset *uids) TB_USE_RESULT;

struct imap_window;
struct imap_fetch { /* arena; args and state of one FETCH */
    struct imap_set set;
    const struct imap_fetch_kind *kinds[FETCH_KINDS_MAX];
    size_t kinds_n, room;
    uint8_t needs;
    struct imap_section *sections;
    size_t sections_n;
    bool needs_parts, sets_seen;
    bool may_scan; /* something is asked for that a message without stored texts must be scanned for */
    bool has_changedsince, vanished;
    bool uid_asked; /* UID was among the items */
    uint64_t changedsince;
    struct imap_partial partial;
    /* run */
    uint32_t last; /* the lowest UID answered for, if there were too many; else 0 */
    bool started, damaged, no_memory, unknown_cte;
    struct tb_uidset uids;
    struct imap_walk walk;
    struct imap_resync resync;      /* with CHANGEDSINCE: what to answer */
    struct imap_keywords *keywords; /* loaded when the first row has any */
    struct tb_buf body_text;
    struct imap_window *window;
};
/*
 * imap_fetch_begin: "* n FETCH (" and the items that are no sections. texts: of the message, or NULL when no
 * item needs them. seen: \Seen was set by this FETCH. False: no memory, nothing was written.
 */
bool imap_fetch_begin(struct imap_session *s, struct imap_fetch *f, const struct tb_row *row, uint32_t seqno,
                      const struct tb_cached *texts, bool seen);

/*
 * imap_fetch_atts: "(" fetch-att *(SP fetch-att) ")", checked; the text. imap_fetch_unasked: begin to tell these items
 * of messages that nobody asked for: cmd is run by imap_run_fetch until RUN_DONE, then cleaned up; no \Seen is set.
 * False: without memory; cmd is to be cleaned up if it has a cleanup.
 */
struct tb_slice imap_fetch_atts(struct imap_parser *p);
bool imap_fetch_unasked(struct imap_session *s, struct imap_cmd *cmd, struct tb_slice items,
                        const struct tb_uidset *uids);

/* ---- body.c ---- */

/* imap_window_new: NULL without memory. */
struct imap_window *imap_window_new(struct imap_session *s, struct imap_fetch *f);
/* imap_window_one: put a single message through the window: its stored texts are not kept, it must be scanned. */
void imap_window_one(struct imap_window *w, const struct tb_row *row, uint32_t seqno);
/*
 * imap_window_run: answer what is in the window; with refill, take further messages from f->walk. RUN_DONE:
 * the window is empty (and the walk at its end).
 */
enum imap_run imap_window_run(struct imap_window *w, bool refill);
void imap_window_close(struct imap_window *w);

#endif
