/*
 * apply.h: what the files that make up tb_apply share. Private to apply*.c.
 *
 * apply.c has the records of mail as it lives; apply_trash.c those of mail that was deleted. Thread: the shard's owner.
 */
#ifndef TB_APPLY_H
#define TB_APPLY_H

#include "engine/store/shard.h"

/* A mailbox being changed: row and leaf name are held while its counters move. */
struct open_mbox {
    uint32_t acct, mbox;
    struct tb_disk_mbox row;
    char leaf[TB_MBOX_LEAF_MAX];
    size_t leaf_len;
};

/* apply.c. tb_apply_mbox_load: false if there is none. tb_apply_count: a row enters (sign 1) or leaves (-1) the
 * mailbox's, the account's and the shard's counters. tb_apply_unref: one reference to a blob less. */
bool tb_apply_mbox_load(struct tb_applier *x, uint32_t acct, uint32_t mbox, struct open_mbox *m);
void tb_apply_mbox_save(struct tb_applier *x, const struct open_mbox *m);
void tb_apply_count(struct tb_applier *x, struct open_mbox *m, struct tb_disk_acct *a, const struct tb_disk_row *r,
                    int sign);
/* tb_apply_count_mailbox: a selectable mailbox more (sign 1) or less (-1) in the shard and, if it counts them, in the
 * account. */
void tb_apply_count_mailbox(struct tb_applier *x, struct tb_disk_acct *a, int sign);
void tb_apply_unref(struct tb_applier *x, uint64_t blob);
void tb_apply_tree_put(struct tb_applier *x, uint32_t acct, uint32_t parent, struct tb_slice leaf, uint32_t mbox);
void tb_apply_tree_del(struct tb_applier *x, uint32_t acct, uint32_t parent, struct tb_slice leaf);

/*
 * apply_trash.c. tb_trash_put: a message that leaves mailbox m goes to the trash, with its cached envelope if it is to
 * stay there for a while (due > when).
 */
void tb_trash_put(struct tb_applier *x, const struct open_mbox *m, const struct tb_disk_row *row, int64_t due,
                  int64_t when);
enum tb_rc tb_apply_mbox_delete(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_acct_delete(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_unplace(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_unexpunge(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_undelete(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_rule(struct tb_applier *x, const struct tb_record *r);
enum tb_rc tb_apply_purge(struct tb_applier *x, const struct tb_record *r);

/* apply_acl.c. tb_acl_key: of an entry. tb_acl_drop: all of a mailbox's go. */
enum { TB_ACL_KEY = 13 };
struct tb_key tb_acl_key(uint32_t acct, uint32_t mbox, uint32_t user, bool negative);
enum tb_rc tb_apply_acl(struct tb_applier *x, const struct tb_record *r);
void tb_acl_drop(struct tb_index *ix, uint32_t acct, uint32_t mbox);

/* apply_annot.c */
enum tb_rc tb_apply_annot(struct tb_applier *x, const struct tb_record *r);

/* apply_quota.c */
enum tb_rc tb_apply_quota(struct tb_applier *x, const struct tb_record *r);

/* apply_skip.c */
enum tb_rc tb_apply_skip(struct tb_applier *x, const struct tb_record *r);

#endif
