/*
 * watch.h: what changes in an account, told to one watcher: which mailboxes changed, and how; which names came, went
 * and were renamed; subscriptions, annotations, rights.
 *
 * A watch is driven by the records that change the account, each as it is applied: its cost is proportional to the
 * changes, whatever the account holds. What is not taken yet is bounded: a watcher that does not keep up is told so,
 * and nothing else. Changes of messages carry no data (S8): they name the mailbox, many become one. Thread: the
 * account's owner.
 */
#ifndef TAMBO_WATCH_H
#define TAMBO_WATCH_H

#include <tambo/mailbox.h>

enum { /* not taken yet; more: TB_LIMIT */
       TB_WATCH_MAILBOXES_MAX = 4096,
       TB_WATCH_EVENTS_MAX = 1024,
       TB_WATCH_NAMES_MAX = 256 << 10 /* bytes of their names */
};

enum tb_watch_what { /* bits: what happened to messages */
                     TB_WATCH_NEW = 1,
                     TB_WATCH_GONE = 2,
                     TB_WATCH_FLAGS = 4,
                     TB_WATCH_SEEN = 8 /* \Seen, with FLAGS */
};
struct tb_watch_mailbox { /* a mailbox whose messages changed */
    uint32_t mbox;
    uint8_t what;
};
enum tb_watch_kind {
    TB_WATCH_CREATED,    /* mbox; also one that came back from the trash */
    TB_WATCH_DELETED,    /* name; it may still be there as a mere parent */
    TB_WATCH_RENAMED,    /* mbox; name: the old one */
    TB_WATCH_SUBSCRIBED, /* name; on */
    TB_WATCH_ANNOTATED,  /* mbox (0: the account itself); name: of the entry; on: it has a value */
    TB_WATCH_RIGHTS,     /* mbox; rights: the watcher's before; name: if it may not look it up any more */
    TB_WATCH_SHARED      /* tb_watch_shares: acct, mbox: it has an entry for the watcher, or for all */
};
struct tb_watch_event { /* in the order they happened */
    enum tb_watch_kind kind;
    uint32_t acct, mbox, rights;
    struct tb_slice name; /* arena */
    bool on;
};
struct tb_watch_news {                  /* arena */
    bool more;                          /* than was asked for */
    struct tb_watch_mailbox *mailboxes; /* by number */
    size_t mailboxes_n;
    struct tb_watch_event *events;
    size_t events_n;
};

struct tb_watch;
/*
 * tb_watch_start: from now on. LIMIT without memory.
 *   user  who watches: of names that it has no right to look up (TB_RIGHT_LOOKUP) it is not told that they go
 *   self  what is done under this name (tb_self) is not told; 0: all is told
 *   fn    called from the loop (never nested) soon after something happened, until it is taken; may be spurious
 * The account stays open until tb_watch_stop, or until its shard fails.
 */
enum tb_rc tb_watch_start(struct tb_account *a, uint32_t user, uint64_t self, void (*fn)(void *user_data),
                          void *user_data, struct tb_watch **out) TB_USE_RESULT;
/*
 * tb_watch_shares: whatever mailbox of a shard begins to be shared with the user, from now on: SHARED events alone.
 * Owner of the shard. Cost: none, but of changes of ACLs.
 */
enum tb_rc tb_watch_shares(struct tb_worker *owner, uint32_t shard, uint32_t user, uint64_t self,
                           void (*fn)(void *user_data), void *user_data, struct tb_watch **out) TB_USE_RESULT;
/* tb_watch_touch: as if everything had happened to the mailbox's messages just now. */
void tb_watch_touch(struct tb_watch *w, uint32_t mbox);
/*
 * tb_watch_take: what happened since: at most max mailboxes and max events. LIMIT: more happened than a watch keeps, or
 * than the arena holds: some of it is lost; IO: the shard failed, NOTFOUND: the account was deleted: the watch sees
 * nothing any more.
 */
enum tb_rc tb_watch_take(struct tb_watch *w, size_t max, struct tb_arena *arena,
                         struct tb_watch_news *out) TB_USE_RESULT;
void tb_watch_stop(struct tb_watch *w); /* NULL: nothing */

/*
 * tb_self_new: a name that nobody else in this process has; any thread. tb_self: who makes the changes that follow on
 * this worker, until the next call; 0: nobody in particular. Deliveries and changes that go on later (delivery.h,
 * tb_change) keep the name they were begun under.
 */
uint64_t tb_self_new(struct tb_store *store);
void tb_self(struct tb_worker *w, uint64_t self);

#endif
