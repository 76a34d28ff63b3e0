/*
 * imap_search.h: what SEARCH, SORT and THREAD share: the search program as parsed, the return options, the search in
 * steps. The grammar and the search are search.c's; sort.c and thread.c order what was found.
 */
#ifndef TB_IMAP_SEARCH_H
#define TB_IMAP_SEARCH_H

#include <tambo/search.h>

#include "imap_session.h"

enum {
    RETURN_MIN = 1,
    RETURN_MAX = 2,
    RETURN_ALL = 4,
    RETURN_COUNT = 8,
    RETURN_SAVE = 16,
    RETURN_PARTIAL = 32,
    RETURN_UPDATE = 64,
    RETURN_CONTEXT = 128 /* a hint: nothing is kept for it (RFC 5267 4.2) */
};

struct imap_search {
    struct tb_search_key *root;
    struct tb_slice tag;
    struct tb_slice correlator; /* "(TAG ...)": of its ESEARCH responses; arena */
    struct tb_slice items;      /* of UPDATE: what to fetch of new messages; ptr NULL: nothing */
    uint32_t keys;
    bool extended;                        /* RETURN was there, or the client enabled IMAP4rev2 */
    bool charset;                         /* CHARSET was there */
    uint8_t wants;                        /* RETURN_... */
    bool from_end;                        /* PARTIAL counts from the end */
    uint32_t partial_first, partial_last; /* as sent, in order, without sign */
    bool modseq;                          /* a MODSEQ key: the answer tells the highest one found */
    bool seqnos;                          /* a key of sequence numbers */
    bool whole;                           /* SORT, THREAD: worth nothing in part */
    /* run */
    uint32_t last;            /* the lowest UID searched, if there were too many; else 0 */
    struct tb_search *search; /* owned */
    struct tb_op op;          /* of the step under way, or of the last one */
    struct imap_session *s;
    bool stepping, found, line_begun;
    struct tb_uidset told; /* owned: the numbers that ESEARCH lists after ALL or PARTIAL */
    size_t range;          /* where writing is: a range of what was found ... */
    uint64_t uid;          /* ... and the next UID in it; 0: at its beginning */
};

/* imap_search_return: ["RETURN" SP "(" options ")" SP], RFC 4466 2.6.1. contexts: UPDATE and CONTEXT are among them. */
void imap_search_return(struct imap_parser *p, struct imap_search *a, bool contexts);
/* imap_search_program: ["CHARSET" SP charset SP] search-key *(SP search-key), RFC 4466 2.6.1. */
void imap_search_program(struct imap_parser *p, struct imap_search *a);
/* imap_search_criteria: charset 1*(SP search-key), RFC 5256 5. */
void imap_search_criteria(struct imap_parser *p, struct imap_search *a);
/* imap_search_copy: a search program, as far as it is resolved, in memory of its own; NULL: the arena is full. */
struct tb_search_key *imap_search_copy(const struct tb_search_key *root, struct tb_arena *arena);
/*
 * imap_search_resolve: what the program's sets and ids mean in a view. saved: "$", NULL: nothing; again: the UIDs
 * alone, once more, in the same memory: "*" may be another message now. LIMIT without memory.
 */
enum tb_rc imap_search_resolve(struct tb_search_key *root, struct tb_view *v, const struct tb_uidset *saved, bool again,
                               struct tb_arena *arena) TB_USE_RESULT;
/* imap_search_has: is a key from `from` to `to` in the program? */
bool imap_search_has(const struct tb_search_key *k, enum tb_search_op from, enum tb_search_op to);
/*
 * imap_search_find: search as far as it goes. RUN_DONE: *rc says how it ended, and tb_search_found(a->search) what was
 * found; RUN_WAIT: call again. INVALID: sequence numbers with UIDONLY.
 */
enum imap_run imap_search_find(struct imap_session *s, struct imap_search *a, enum tb_rc *rc);
/* imap_search_op: the op for the next step of a search, a sort or a thread; the connection goes on when it is done. */
struct tb_op *imap_search_op(struct imap_session *s, struct imap_search *a);
void imap_search_end(struct imap_search *a);
/* imap_search_failed: the tagged NO; what was saved before is gone (RFC 5182 2.1). */
enum imap_run imap_search_failed(struct imap_session *s, struct imap_cmd *cmd, const struct imap_search *a,
                                 enum tb_rc rc);
/* imap_esearch_open: "* ESEARCH (TAG "tag")", and " UID". */
void imap_esearch_open(struct imap_session *s, const struct imap_search *a, bool uid);
/* imap_esearch_partial: " PARTIAL (first:last ", as it was asked for. */
void imap_esearch_partial(struct imap_session *s, const struct imap_search *a);
/* imap_search_window: the places, counted from 1, that PARTIAL means among count; false: none. */
bool imap_search_window(const struct imap_search *a, uint64_t count, uint64_t *first, uint64_t *last);

/*
 * imap_search_correlate: a->correlator is "(TAG ...)", and, unless mailbox.ptr is NULL, with MAILBOX and UIDVALIDITY
 * (RFC 7377 2.1). False: no memory.
 */
bool imap_search_correlate(struct imap_session *s, struct imap_search *a, struct tb_slice mailbox,
                           uint32_t uidvalidity);
/* imap_search_highest: the mod-sequence that the answer tells, on the view's thread; its options say of which. */
uint64_t imap_search_highest(const struct imap_search *a, struct tb_view *v, const struct tb_search *search);
/*
 * imap_put_esearch: the ESEARCH response of what was found: RFC 4466 2.6.2, RFC 9051 7.3.4. RUN_DONE: all of it, or
 * a->op.rc says why not; RUN_MORE: call again.
 */
enum imap_run imap_put_esearch(struct imap_session *s, struct imap_search *a, const struct tb_uidset *found,
                               uint64_t highest, bool uid);

/* ---- probe.c: a search of a mailbox where it lives ---- */
struct imap_probe_where {
    struct imap_place place;
    bool named; /* the right to look it up is not asked for (RFC 7377 2.2) */
};
struct imap_probe_result {
    enum tb_rc rc;   /* NOTFOUND: there is nothing for this user, or to be found */
    bool selected;   /* not searched: it is the session's selected mailbox */
    bool over_limit; /* not searched: it has too many messages for one command */
    struct tb_mailbox mailbox;
    struct tb_uidset found;
    uint64_t highest; /* mod-sequence, where one is asked for */
};
struct imap_probe;
/*
 * imap_probe_new: begin; NULL without memory. The step is resumed when it is over. imap_probe_over: NULL while it is
 * not; the probe's own. imap_probe_end: gives it back, at any time. ask: copied.
 */
struct imap_probe *imap_probe_new(struct imap_session *s, const struct imap_search *ask,
                                  const struct imap_probe_where *where);
const struct imap_probe_result *imap_probe_over(const struct imap_probe *b);
void imap_probe_end(struct imap_probe *b);

/* ---- context.c ---- */
/* imap_context_known: are updates of a search with this tag told already? */
bool imap_context_known(const struct imap_session *s, struct tb_slice tag);
/*
 * imap_context_add: from now on changes of what the search found are told; uid: as UIDs. False: they are not, and the
 * client was told so (RFC 5267 4.3.1).
 */
bool imap_context_add(struct imap_session *s, const struct imap_search *a, bool uid);

#endif
