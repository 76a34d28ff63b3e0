/*
 * acl.h: who may do what in a mailbox (RFC 4314), and which mailboxes of others a user can see.
 *
 * The owner of an account has every right in its mailboxes, always. Everybody else has the union of what the entries
 * give to the user, to "anyone" and to "authenticated", without what negative entries of the same take away. A user is
 * an account's number, which is never given again: whoever gets a deleted user's name gets none of its rights.
 * Thread: the account's owner, but where said.
 */
#ifndef TAMBO_ACL_H
#define TAMBO_ACL_H

#include <tambo/mailbox.h>

enum tb_right { /* bits, in the order of TB_RIGHTS_LETTERS */
                TB_RIGHT_LOOKUP = 1,
                TB_RIGHT_READ = 2,
                TB_RIGHT_SEEN = 4,
                TB_RIGHT_WRITE = 8,
                TB_RIGHT_INSERT = 16,
                TB_RIGHT_POST = 32,
                TB_RIGHT_CREATE = 64,
                TB_RIGHT_DELETE_MAILBOX = 128,
                TB_RIGHT_DELETE = 256,
                TB_RIGHT_EXPUNGE = 512,
                TB_RIGHT_ADMIN = 1024,
                TB_RIGHTS_ALL = 2047
};
#define TB_RIGHTS_LETTERS "lrswipkxtea"
enum { TB_ACL_MAX = 64 }; /* entries of a mailbox */

enum { TB_RIGHTS_ROOM = 16 };
/* tb_rights_read: letters to bits; "c" means "k" and "x", "d" means "t" and "e" (RFC 4314 2.1.1). False: another one.
 */
bool tb_rights_read(struct tb_slice letters, uint32_t *rights) TB_USE_RESULT;
/* tb_rights_text: back, with "c" and "d" where one of what they mean is there. Returns out. */
const char *tb_rights_text(uint32_t rights, char out[TB_RIGHTS_ROOM]);

/* Users that are no accounts. */
#define TB_ACL_ANYONE 0
#define TB_ACL_AUTHENTICATED UINT32_MAX

struct tb_acl_entry {
    uint32_t user;        /* account number, or one of the above */
    bool negative;        /* these rights are taken away */
    uint32_t rights;      /* never 0 */
    struct tb_slice name; /* the user's as it was when the entry was made; arena */
};
/* tb_acl_list: a mailbox's entries, by user. NOTFOUND: no such mailbox; LIMIT. */
enum tb_rc tb_acl_list(struct tb_account *a, uint32_t mbox, struct tb_arena *arena, struct tb_acl_entry **v,
                       size_t *n) TB_USE_RESULT;
/*
 * tb_acl_set: the one entry of e->user and e->negative becomes e; with no rights it goes. The mailbox's views are told.
 * NOTFOUND: no such mailbox, or a mere name; INVALID: the owner's own rights; LIMIT: TB_ACL_MAX entries; NOSPACE, IO.
 */
enum tb_rc tb_acl_set(struct tb_account *a, uint32_t mbox, const struct tb_acl_entry *e) TB_USE_RESULT;
/* tb_acl_get: the rights of one entry; 0: there is none. */
uint32_t tb_acl_get(struct tb_account *a, uint32_t mbox, uint32_t user, bool negative);
/* tb_acl_rights: what the user may do in a mailbox. Cost: six index seeks, none for the owner. */
uint32_t tb_acl_rights(struct tb_account *a, uint32_t mbox, uint32_t user);

/* tb_acl_any: may some mailbox of the shard be shared? Any thread. */
bool tb_acl_any(const struct tb_store *store, uint32_t shard);
struct tb_shared {
    struct tb_account_id id; /* the owner */
    struct tb_slice owner;   /* its name; arena */
    uint32_t rights;
    struct tb_mailbox mailbox; /* name as the owner knows it */
};
struct tb_shared_at { /* where to go on; zeroed at first */
    uint32_t stage, acct, mbox;
    bool end;
};
/*
 * tb_acl_shared: mailboxes of others in this shard, on its owner's thread, that the user has the right to look up: at
 * most max of the next entries, in no useful order. LIMIT arena full; IO. Cost: about 10 us a mailbox.
 */
enum tb_rc tb_acl_shared(struct tb_worker *w, uint32_t shard, uint32_t user, struct tb_shared_at *at,
                         struct tb_arena *arena, size_t max, struct tb_shared *v, size_t *n) TB_USE_RESULT;
/* tb_acl_shared_one: one of them, by its numbers. False: it is not there, or not to be looked up. */
bool tb_acl_shared_one(struct tb_worker *w, uint32_t shard, uint32_t user, uint32_t acct, uint32_t mbox,
                       struct tb_arena *arena, struct tb_shared *out);

#endif
