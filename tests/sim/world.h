/*
 * world.h: a simulated mail server, its clients, and a reference model of everything they were told.
 *
 * Each actor is a client with a connection and a stack of its own (a coroutine): what it does reads straight, and
 * whatever it waits for, the others and the server go on meanwhile. An IMAP actor owns some mailboxes of its account
 * and has one change under way at a time, so the model knows them exactly: `now` as acknowledged, `next` as after the
 * change under way. INBOXes get mail from several actors: the model knows what may, must and must not be in them.
 *
 * Files: world.c (life, turns), wire.c (coroutines, connections), imap_acts.c, mail_acts.c (what actors do), chores.c
 * (what goes on beside them), model.c (messages, checking). Thread: one; everything follows from the seed.
 */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include <tambo/mailbox.h>
#include "server.h"

enum {
    WORLD_ACCOUNTS = 4,
    WORLD_ACTORS = 12,
    WORLD_BOXES = 5,     /* names of an IMAP actor */
    WORLD_MESSAGES = 40, /* in a mailbox */
    WORLD_WRONG = 400
};
#define WORLD_BACK "back" /* in each account: what came back from the trash */

/* ---- the model ---- */

struct message {
    uint32_t id;  /* its bytes follow from it; never 0 */
    uint32_t uid; /* 0: not known yet, but not below the mailbox's uidnext */
    uint16_t flags;
};

struct box {
    char name[24];
    bool exists, subscribed;
    uint32_t uidvalidity; /* 0: not known yet */
    uint32_t uidnext;     /* at least */
    uint64_t modseq;      /* at least; only what a check has seen */
    uint32_t n;
    struct message v[WORLD_MESSAGES];
};

struct boxes {
    struct box box[WORLD_BOXES];
};

enum sent_state {
    SENT_MAYBE,   /* not acknowledged: there once or not at all, now or later */
    SENT_HERE,    /* acknowledged: there once */
    SENT_LEAVING, /* being removed, not acknowledged */
    SENT_GONE,    /* removed, acknowledged: never there again */
};

struct sent { /* one message to one INBOX */
    uint32_t account, id, uid;
    enum sent_state state;
    uint32_t drain; /* SENT_LEAVING: the removal, all of it or nothing */
};

struct inbox {
    struct tb_account_id id;
    char name[16];
    uint32_t uidvalidity, uidnext;
    uint64_t modseq;
    uint32_t back_uidnext; /* of WORLD_BACK */
};

/* ---- actors ---- */

enum role { ROLE_IMAP, ROLE_LMTP, ROLE_SMTP, ROLE_SUBMISSION, ROLE_POP3, ROLE_IDLE, ROLES };

struct wire {         /* the client's end of a connection */
    int handle;       /* -1: none */
    bool dead, fresh; /* fresh: something came since the actor waits */
    struct tb_buf in;
    size_t at;
};

struct actor {
    struct world *x;
    unsigned number, account;
    enum role role;
    struct wire wire;
    void *stack, *context;         /* owned */
    bool running, waits, finished; /* finished: its script has come to its end */
    uint64_t sleeps_until, waits_since;
    unsigned tag;
    int selected; /* -1: none */
    bool pending; /* a change is under way, or its outcome is unknown */
    struct boxes now, next;
    uint64_t acked, refused;
    struct tb_buf untagged, tagged;
    void (*script)(struct actor *a); /* what it does next, once */
};

struct world_stats {
    uint64_t steps, acked, refused, cuts, kills, stops, disconnects, checks;
    uint64_t chores, restored, backups, restores, checked; /* restored: messages from the trash */
};

struct world {
    struct server s;
    uint64_t seed;
    struct actor actor[WORLD_ACTORS];
    unsigned actors;
    struct inbox inbox[WORLD_ACCOUNTS];
    unsigned accounts;
    struct sent *sent; /* owned */
    size_t sent_n, sent_cap;
    uint32_t next_id, drains;
    bool faults;             /* refusals are no surprise */
    bool hang_ups;           /* clients leave at any byte */
    bool big;                /* some messages are larger than a piece */
    bool scripted;           /* actors do what their scripts say and nothing else */
    char wrong[WORLD_WRONG]; /* the first thing found wrong */
    struct world_stats stats;
};

/* ---- world.c ---- */
/* world_new: a store, a server, accounts; no actors yet. */
struct world *world_new(uint64_t seed, const struct server_options *opt, unsigned accounts);
void world_free(struct world *x);
/* world_start: open the store that is there, and listen. False: x->wrong says why. */
bool world_start(struct world *x);
/* world_step: some actors and the server have a turn. */
void world_step(struct world *x);
/* world_died: after a power cut, a restart or a failure: the server's memory goes, actors find their connections dead.
 */
void world_died(struct world *x);
/* world_settle: the server alone runs for a while, so that what was queued arrives. */
void world_settle(struct world *x);
void world_wrong(struct world *x, const char *fmt, ...) TB_PRINTF(2, 3);
uint64_t world_choose(struct world *x, uint64_t n);
struct actor *world_actor(struct world *x, enum role role, unsigned account);
/* world_do: the actor does this, the server serves it. False: it hangs or something is wrong. */
bool world_do(struct world *x, struct actor *a, void (*script)(struct actor *a));
/* world_idle: nobody does anything for so long. */
void world_idle(struct world *x, uint64_t ns);
/*
 * world_clone: another world like this one, which has no server running: its disk, its model, its actors; the seed is
 * new. world_free both.
 */
struct world *world_clone(struct world *t, uint64_t seed);

/* ---- wire.c ---- */
/* actor_resume: run it until it waits; only from world_step. actor_ready: is there anything for it? */
void actor_resume(struct actor *a);
bool actor_ready(struct actor *a);
void actor_free(struct actor *a);
void actor_yield(struct actor *a);
void actor_sleep(struct actor *a, uint64_t ns);
void wire_forget(struct wire *w);
/* These are called by an actor on itself; false: the connection is dead. */
bool wire_open(struct actor *a, uint16_t port);
void wire_close(struct actor *a, bool reset);
bool wire_put(struct actor *a, const void *bytes, size_t len);
bool wire_printf(struct actor *a, const char *fmt, ...) TB_PRINTF(2, 3);
/* wire_line: the next line without its CRLF; valid until the next call. wire_take: n bytes. */
bool wire_line(struct actor *a, struct tb_slice *line);
bool wire_take(struct actor *a, size_t n, struct tb_slice *bytes);

/* ---- imap_acts.c ---- */
/*
 * Each does one command (or the few it needs) on mailboxes of the model and keeps the model. An actor whose change has
 * an unknown outcome (pending) does nothing more until a check has settled it.
 */
void act_random(struct actor *a);
bool act_login(struct actor *a);
void act_create(struct actor *a);
void act_delete(struct actor *a);
void act_rename(struct actor *a);
void act_subscribe(struct actor *a);
void act_append(struct actor *a);
void act_store(struct actor *a);
void act_copy(struct actor *a);
void act_move(struct actor *a);
void act_expunge(struct actor *a);
void act_fetch(struct actor *a);
void act_search(struct actor *a);
void act_idle(struct actor *a);

/* ---- mail_acts.c ---- */
void act_deliver(struct actor *a); /* LMTP, SMTP or submission, by role; to one or several accounts */
void act_deliver_to(struct actor *a, unsigned account, unsigned n); /* to n accounts from this one on */
void act_drain(struct actor *a);                                    /* POP3 */

/* ---- chores.c ---- */
/* chore_random: collection, scrub, bringing back, a backup: one of them begins. */
void chore_random(struct world *x);
/* chore_check: `tambo check` of the store, which no server has open, finds nothing. */
void chore_check(struct world *x);
/* chore_backup: a backup, to its end, while nobody changes anything. False: another one was under way. */
bool chore_backup(struct world *x);
/* chore_restore: the newest backup, restored, is what the model says. No server has the store open. */
void chore_restore(struct world *x);

/* ---- model.c ---- */
/* model_message: a message's bytes; model_is: are these bytes it, with a trace block in front if traced? */
struct tb_buf model_message(const struct world *x, uint32_t id);
bool model_is(const struct world *x, uint32_t id, struct tb_slice bytes, bool traced);
struct sent *model_sent(struct world *x, uint32_t account, uint32_t id);
struct sent *model_send(struct world *x, uint32_t account, uint32_t id);
/*
 * model_check: is the store behind s (this world's own server, or one on an image of its disk) what the model allows?
 * resolve: changes of unknown outcome are settled by what is found. False: why says what is wrong.
 */
bool model_check(struct world *x, struct server *s, bool resolve, char why[WORLD_WRONG]);
/* model_next_write: deliver one more message, so that the store is seen to take it. */
bool model_next_write(struct world *x, struct server *s, char why[WORLD_WRONG]);

#endif
