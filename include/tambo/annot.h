/*
 * annot.h: annotations: short named values that belong to a mailbox, or (mailbox 0) to the account itself. Owner thread
 * only; nothing here waits.
 *
 * A name is lower-case ASCII that begins with "/"; what names and values mean is the caller's business. A mailbox keeps
 * its annotations when it is renamed, and in the trash. RFC 5464.
 */
#ifndef TAMBO_ANNOT_H
#define TAMBO_ANNOT_H

#include <tambo/store.h>

enum {
    TB_ANNOT_NAME_MAX = 255,
    TB_ANNOT_VALUE_MAX = 16 << 10,
    TB_ANNOT_MAX = 100 /* of one mailbox, or of the account itself */
};

struct tb_annot {
    struct tb_slice name;
    struct tb_slice value; /* ptr NULL: none: to be taken away */
};
/*
 * tb_annot_list: those of a mailbox whose name is `under`, or begins with it and "/", in byte order; everything is in
 * the arena. "": all of them. LIMIT arena full; IO. Cost: what is found.
 */
enum tb_rc tb_annot_list(struct tb_account *a, uint32_t mbox, struct tb_slice under, struct tb_arena *arena,
                         struct tb_annot **v, size_t *n) TB_USE_RESULT;
/*
 * tb_annot_set: all of them or none, in one frame; of a name that comes twice the last one counts. NOTFOUND no such
 * mailbox; INVALID a name that is none; LIMIT a value is too long; OVERQUOTA there would be too many; NOSPACE, IO.
 */
enum tb_rc tb_annot_set(struct tb_account *a, uint32_t mbox, const struct tb_annot *v, size_t n) TB_USE_RESULT;

#endif
