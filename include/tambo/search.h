/*
 * search.h: SEARCH as a program over a view. Owner thread only. Results come in slices, so one SEARCH never blocks
 * others.
 */
#ifndef TAMBO_SEARCH_H
#define TAMBO_SEARCH_H

#include <tambo/fetch.h>

enum tb_search_op {
    TB_SEARCH_ALL,
    TB_SEARCH_AND,
    TB_SEARCH_OR,
    TB_SEARCH_NOT,
    TB_SEARCH_SEQ,     /* set: sequence numbers, resolved by the caller to UIDs in `set` */
    TB_SEARCH_UID,     /* set */
    TB_SEARCH_FLAGS,   /* all of `flags` set */
    TB_SEARCH_KEYWORD, /* text: the keyword's name */
    TB_SEARCH_LARGER,
    TB_SEARCH_SMALLER, /* number: bytes */
    TB_SEARCH_BEFORE,
    TB_SEARCH_ON,
    TB_SEARCH_SINCE, /* number: day, of INTERNALDATE */
    TB_SEARCH_SENTBEFORE,
    TB_SEARCH_SENTON,
    TB_SEARCH_SENTSINCE, /* number: day, of the Date field, its zone ignored */
    TB_SEARCH_HEADER,    /* name, text ("" = the field exists) */
    TB_SEARCH_BODY,
    TB_SEARCH_TEXT, /* text */
    TB_SEARCH_YOUNGER,
    TB_SEARCH_OLDER, /* number: seconds (RFC 5032) */
    TB_SEARCH_SAVEDBEFORE,
    TB_SEARCH_SAVEDON,
    TB_SEARCH_SAVEDSINCE, /* number: day, of the save date (RFC 8514) */
    TB_SEARCH_BLOB,       /* number: the blob that an EMAILID stands for (tb_email_id_read); -1: none */
    TB_SEARCH_MODSEQ      /* number */
};

struct tb_search_key { /* arena-owned tree; built by the caller, depth <= 100 */
    enum tb_search_op op;
    struct tb_search_key *first, *next; /* children of AND, OR, NOT; siblings */
    struct tb_uidset *set;
    struct tb_slice name, text; /* text: UTF-8, as the client sent it; folded by the engine */
    int64_t number;
    uint16_t flags;
};

struct tb_search; /* opaque */
/* tb_search_begin: key and view stay alive until end. LIMIT without memory. */
enum tb_rc tb_search_begin(struct tb_view *v, const struct tb_search_key *key, int64_t now_s,
                           struct tb_search **out) TB_USE_RESULT;
/*
 * tb_search_step: evaluate for about half a millisecond, then op->done. op->result: 1 there is more, 0 finished.
 * Substring semantics of RFC 9051 6.4.4: decoded, case-folded. op->rc: OK; IO. A damaged message does not match.
 */
void tb_search_step(struct tb_search *s, struct tb_op *op);
/* tb_search_found: UIDs found so far, ascending; the search's own until end. */
const struct tb_uidset *tb_search_found(const struct tb_search *s);
/* tb_search_modseq: the highest of what was found so far; 0: nothing was. */
uint64_t tb_search_modseq(const struct tb_search *s);
/* tb_search_at: every message with a lower UID was looked at or is being looked at. */
uint32_t tb_search_at(const struct tb_search *s);
void tb_search_end(struct tb_search *s); /* a step in flight is abandoned: its done does not run */

#endif
