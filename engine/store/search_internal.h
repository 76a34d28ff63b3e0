/*
 * search_internal.h: SEARCH in three parts. search_keys.c turns the key tree into a flat program and evaluates it on
 * what is known of a message so far; search_text.c matches text against it; search.c walks a view and fetches what is
 * still unknown.
 *
 * The first two are pure: they see rows, envelopes and bytes, never the store.
 */
#ifndef TB_SEARCH_INTERNAL_H
#define TB_SEARCH_INTERNAL_H

#include <tambo/message.h>
#include <tambo/search.h>

enum { TB_SEARCH_DEPTH_MAX = 101, TB_SEARCH_NODES_MAX = 1 << 20, TB_SEARCH_NEEDLE_MAX = 64 << 10 };

enum tb_tri { TB_TRI_UNKNOWN, TB_TRI_FALSE, TB_TRI_TRUE };

struct tb_search_node {
    enum tb_search_op op;
    uint32_t parent; /* a smaller index; the root is its own */
    const struct tb_search_key *key;
    struct tb_slice text; /* folded */
    bool plain;           /* text has only characters that an address keeps on its way into an envelope */
    bool never;           /* a keyword that the mailbox does not have */
    uint64_t keyword;     /* its bit */
};

struct tb_search_program {
    struct tb_search_node *node; /* owned; preorder */
    uint32_t n;
    size_t longest;                 /* bytes of the longest BODY or TEXT needle */
    uint32_t texts;                 /* HEADER, BODY and TEXT keys */
    size_t header_max;              /* bytes of a header that are looked at: less the more keys there are */
    bool deep;                      /* some key needs more than the row */
    uint32_t uid_first, uid_last;   /* no message outside of these can match */
    const struct tb_uidset *within; /* ... nor outside of this; NULL: no such set */
    int64_t now_s;
    struct tb_buf needles;      /* the folded texts */
    struct tb_buf text, folded; /* scratch */
};

struct tb_truth {    /* of one message */
    uint8_t *value;  /* enum tb_tri by node; owned */
    uint8_t *needed; /* unknown, and the answer depends on it */
    uint8_t *seen;   /* scratch of the reduction */
};

/* tb_program_init: OK; LIMIT without memory, or too many keys, too deep, a text too long. Keywords are the caller's to
 * fill in. */
enum tb_rc tb_program_init(struct tb_search_program *p, const struct tb_search_key *key, int64_t now_s) TB_USE_RESULT;
void tb_program_free(struct tb_search_program *p);
bool tb_truth_init(struct tb_truth *t, const struct tb_search_program *p);
void tb_truth_free(struct tb_truth *t);

/* tb_eval_row: forget everything and judge by the row. */
void tb_eval_row(const struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row);
/* tb_truth_reduce: the answer as far as it is known; marks the nodes that are needed to know more. */
enum tb_tri tb_truth_reduce(const struct tb_search_program *p, struct tb_truth *t);
/* tb_truth_needs_text: does the answer depend on a BODY or TEXT key? */
bool tb_truth_needs_text(const struct tb_search_program *p, const struct tb_truth *t);
/* tb_truth_needs_header: does the answer depend on a key that looks at the message's own header? */
bool tb_truth_needs_header(const struct tb_search_program *p, const struct tb_truth *t);
/* tb_truth_settle: what is still unknown is false: the message was seen whole. */
void tb_truth_settle(const struct tb_search_program *p, struct tb_truth *t);

/* tb_eval_envelope: settles what an envelope can; the rest stays unknown and is asked of the header. */
void tb_eval_envelope(struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row,
                      const struct tb_envelope *e);
/* tb_eval_header: the message's own header: HEADER and SENT keys are settled, TEXT becomes true where it matches. */
void tb_eval_header(struct tb_search_program *p, struct tb_truth *t, const struct tb_row *row, struct tb_slice header);

/* ---- text ---- */
static inline bool tb_text_holds(const struct tb_buf *folded, struct tb_slice needle)
{
    return needle.len == 0 ||
           (folded->len >= needle.len && memmem(folded->ptr, folded->len, needle.ptr, needle.len) != NULL);
}
struct tb_text_window { /* folded text: the last bytes of what came before, then the newest piece */
    struct tb_buf folded;
};
/*
 * tb_eval_part_header: a header block inside of the body. enclosed: of an enclosed message, which BODY looks into; else
 * of a MIME part, which is TEXT's alone. true if a node became true.
 */
bool tb_eval_part_header(struct tb_search_program *p, struct tb_truth *t, struct tb_slice header, bool enclosed);
/* tb_eval_text: the next piece of one part's decoded text, whole UTF-8 characters. true if a node became true. */
bool tb_eval_text(const struct tb_search_program *p, struct tb_truth *t, struct tb_text_window *w,
                  struct tb_slice utf8);

#endif
