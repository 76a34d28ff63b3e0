/*
 * imap_notify.h: what the files of NOTIFY share: what the client wants to be told (notify.c), the watches in whatever
 * accounts that takes (port.c), and how it is told (notify_tell.c). RFC 5465.
 */
#ifndef TB_IMAP_NOTIFY_H
#define TB_IMAP_NOTIFY_H

#include <tambo/watch.h>

#include "imap_session.h"

enum {
    NOTIFY_GROUPS_MAX = 64,
    NOTIFY_NAMES_MAX = 1000,   /* mailboxes named in one command */
    NOTIFY_PORTS_MAX = 64,     /* accounts watched; without shards */
    NOTIFY_SUBS_MAX = 256,     /* subscriptions to others' mailboxes, with SUBSCRIBED */
    NOTIFY_BYTES_MAX = 1 << 20 /* of what is kept of a command */
};
enum notify_filter {
    FILTER_SELECTED,
    FILTER_DELAYED,
    FILTER_INBOXES,
    FILTER_PERSONAL,
    FILTER_SUBSCRIBED,
    FILTER_SUBTREE,
    FILTER_MAILBOXES
};
enum { /* bits of events */
       EVENT_NEW = 1,
       EVENT_EXPUNGE = 2,
       EVENT_FLAGS = 4,
       EVENT_MESSAGES = EVENT_NEW | EVENT_EXPUNGE | EVENT_FLAGS,
       EVENT_NAME = 8,
       EVENT_SUBSCRIPTION = 16,
       EVENT_METADATA = 32,
       EVENT_SERVER = 64,
       EVENT_ANNOTATION = 128 /* read, and never supported */
};
struct notify_group {
    enum notify_filter filter;
    uint8_t events;
    struct tb_slice *names; /* of SUBTREE and MAILBOXES */
    size_t names_n;
    struct tb_slice fetch; /* what MessageNew asks for, with its parentheses; ptr NULL: nothing */
};

/* ---- port.c ---- */

struct notify_told { /* arena: what is known of a mailbox or a name when it is told */
    struct tb_mailbox m, parent;
    uint32_t rights, parent_rights; /* 0: it is not there, or may not be looked up */
    struct tb_slice owner;          /* SHARED: who shares it */
    struct tb_account_id id;        /* SHARED */
};
struct notify_news { /* in the errand's arena: what a port brought */
    struct tb_watch_news news;
    struct notify_told *mailboxes, *events; /* beside those of news */
    size_t at;                              /* lines told: events first, then mailboxes */
};
struct notify_port; /* a watch in one account, told wherever the session sits */
/*
 * notify_port_new: start watching; NULL without memory. prefix: what stands before a mailbox's name there, borrowed as
 * long as the port; touched: a mailbox that is told of at once, 0: none; acct 0: what begins to be shared with the user
 * in that shard. notify_port_ready: false: on the way, the step is resumed; true: *rc is how that ended.
 * notify_port_look: true when there is something to tell: it stays *news until notify_port_told; *rc not OK: the watch
 * has ended, or has lost something. notify_port_end: give it back, at any time.
 */
struct notify_port *notify_port_new(struct imap_session *s, struct tb_account_id id, struct tb_slice prefix,
                                    uint64_t self, uint32_t touched);
bool notify_port_ready(struct notify_port *p, enum tb_rc *rc);
bool notify_port_look(struct imap_session *s, struct notify_port *p, struct notify_news **news, enum tb_rc *rc);
void notify_port_told(struct notify_port *p);
void notify_port_end(struct imap_session *s, struct notify_port *p);
/* notify_port_busy: is something of it under way? notify_port_leave, notify_port_arrive: the session goes to another
 * worker, and is there. */
bool notify_port_busy(const struct notify_port *p);
void notify_port_leave(struct notify_port *p, struct tb_worker *to);
void notify_port_arrive(struct notify_port *p);
struct tb_account_id notify_port_account(const struct notify_port *p);
struct tb_slice notify_port_prefix(const struct notify_port *p);

/* ---- notify.c ---- */

struct imap_notify {         /* heap; owned by the session, or by the command that makes it */
    struct tb_arena arena;   /* groups and names */
    struct tb_arena scratch; /* of the line being told */
    struct notify_group *groups;
    size_t groups_n;
    uint8_t selected;      /* message events of the selected mailbox; 0: its picture stands still */
    bool delayed;          /* SELECTED-DELAYED */
    bool noop;             /* until the tagged reply: SET tells what has gathered */
    bool lost;             /* something could not be told: Y1 is due */
    bool here;             /* false: the session is on its way to another worker, or has just come */
    struct tb_slice fetch; /* of new messages in the selected mailbox */
    uint64_t self;
    struct tb_uidset fresh; /* messages to be fetched for the client, told by EXISTS */
    struct tb_uidset own;   /* those that it made itself */
    struct imap_cmd push;   /* their FETCH */
    bool pushing;
    struct notify_port **ports; /* owned, with what they are */
    size_t ports_n, accounts_n; /* accounts_n: of them those that are no shards */
    struct imap_errand *find;   /* owned: what another user's mailbox is that was subscribed to */
    struct tb_slice *subs;      /* owned, with the names: others' mailboxes that are subscribed to */
    size_t subs_n;
};
/* imap_notify_subs: is this mailbox of another user's subscribed to? imap_notify_server: are changes of the server's
 * annotations to be told? */
bool imap_notify_subs(const struct imap_session *s, struct tb_slice name);
bool imap_notify_server(const struct imap_session *s);
/* notify_watches: is the account watched? notify_add: watch the account of a mailbox of another user's, if there is
 * such a user; touched: as above. False: there are too many, or no memory. */
bool notify_watches(const struct imap_notify *n, struct tb_account_id id);
bool notify_add(struct imap_session *s, struct imap_notify *n, struct tb_slice name, uint32_t touched);
/* notify_events: what is to be told of a mailbox, by its full name: the union of the groups it is in. */
uint8_t notify_events(const struct imap_notify *n, struct tb_slice name, bool subscribed);

/* ---- notify_tell.c ---- */

/* notify_put_status: STATUS with what RFC 5465 wants in it: 3.1 (events are those asked for; what 0), or 5.1 to 5.3
 * (what: enum tb_watch_what). */
void notify_put_status(struct imap_session *s, struct tb_slice name, const struct tb_mailbox *m, uint8_t events,
                       uint8_t what);
/* notify_tell: news of a port, from news->at on. False: the output is full, or something must be looked up first: the
 * step runs again. */
bool notify_tell(struct imap_session *s, const struct notify_port *p, struct notify_news *news);

#endif
