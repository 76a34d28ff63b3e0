/*
 * verbs.h: one running admin verb, and the table of verbs. Private to this folder.
 *
 * A verb's function starts the work and returns; the work ends in exactly one ctl_ok or ctl_fail, at once or from a
 * later done callback, always on x->worker's thread.
 */
#ifndef TB_CTL_VERBS_H
#define TB_CTL_VERBS_H

#include <jansson.h>

#include "frontends/ctl/ctl.h"

struct ctl {
    struct tb_ctl_request *request; /* borrowed: the caller's */
    struct tb_worker *worker;       /* borrowed */
    const struct tb_config *cfg;    /* borrowed */
    json_t *root;                   /* owned: the request */
    json_t *args;                   /* borrowed from root */
    void *data;                     /* owned: the verb's own, from ctl_data */
    void (*drop)(struct ctl *x);    /* frees what data holds; may be NULL */
};

struct ctl_verb {
    const char *name;
    void (*run)(struct ctl *x);
};

/* ctl_ok: answer with result, which is taken over (NULL: out of memory). x is gone afterwards. */
void ctl_ok(struct ctl *x, json_t *result);
/* ctl_fail: answer with an error; what: the object's name for the message. x is gone afterwards. */
void ctl_fail(struct ctl *x, enum tb_rc rc, const char *what, const char *why);
/* ctl_usage: the request itself is wrong. x is gone afterwards. */
void ctl_usage(struct ctl *x, const char *why);
/* ctl_data: zeroed memory for the verb; NULL: a failure has been answered, x is gone. */
void *ctl_data(struct ctl *x, size_t size);
/* ctl_text: the string argument `key`, or {NULL, 0}. Borrowed from the request. */
struct tb_slice ctl_text(struct ctl *x, const char *key);
/* ctl_name: an account's name as the store knows it: "@default_domain" taken off. */
struct tb_slice ctl_name(struct ctl *x, struct tb_slice name);

void ctl_account_add(struct ctl *x);
void ctl_account_passwd(struct ctl *x);
void ctl_account_delete(struct ctl *x);
void ctl_account_list(struct ctl *x);
void ctl_account_import(struct ctl *x);
void ctl_backup_start(struct ctl *x);
void ctl_backup_stop(struct ctl *x);
void ctl_backup_wait(struct ctl *x);
void ctl_mailbox_acl(struct ctl *x);
void ctl_mailbox_list(struct ctl *x);
void ctl_mailbox_create(struct ctl *x);
void ctl_mailbox_delete(struct ctl *x);
void ctl_mailbox_retention(struct ctl *x);
void ctl_quota(struct ctl *x);
void ctl_gc(struct ctl *x);
void ctl_scrub(struct ctl *x);
void ctl_stat(struct ctl *x);
void ctl_undelete(struct ctl *x);
void ctl_undelete_list(struct ctl *x);
void ctl_account_undelete(struct ctl *x);
void ctl_account_deleted(struct ctl *x);
void ctl_dict_list(struct ctl *x);
void ctl_dict_train(struct ctl *x);

/*
 * ctl_passwd_line: one line of a Dovecot passwd-file, "user:{SCHEME}hash:uid:gid:gecos:home:shell:extra".
 * Returns NULL with *name borrowed from line and secret filled ("" = no login), or why it cannot be taken.
 * A hash without a scheme is crypt(3)'s, as Dovecot reads it; a name alone, or a hash that starts with '*' or '!',
 * gives no login.
 */
const char *ctl_passwd_line(struct tb_slice line, struct tb_slice *name, char secret[TB_SECRET_MAX + 1]);

#endif
