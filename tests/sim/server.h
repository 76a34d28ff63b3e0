/*
 * server.h: the whole server in one thread on a simulated world: store, workers, nets and every mail protocol, as
 * frontends/daemon.c puts them together, without its threads, its signals and its control socket.
 */
#ifndef TEST_SERVER_H
#define TEST_SERVER_H

#include "engine/io/sim.h"
#include "frontends/net/net.h"

enum { SERVER_SHARDS = 4, PORT_IMAP = 143, PORT_POP3 = 110, PORT_SMTP = 25, PORT_SUBMISSION = 587, PORT_LMTP = 24 };

struct server_options {
    uint32_t workers, shards, trash_days, scrub_days, gc_min_dead, backup_horizon_hours;
    uint64_t copy_log_bytes, gc_rate, compact_pages;
    uint64_t checkpoint_log_bytes;
    uint32_t checkpoint_ms;
};

struct server {
    struct tb_sim *sim; /* borrowed */
    char dir[80];
    struct server_options opt;
    struct tb_io *io[SERVER_SHARDS];
    struct tb_store *store;
    struct tb_worker *w[SERVER_SHARDS];
    struct tb_net *net[SERVER_SHARDS];
    struct tb_net_config net_config;
    struct tb_listener listener[5];
    bool up;
    uint64_t failures; /* of shards, since it was made */
    char why[300];     /* it did not start, or a shard failed */
};

/* server_folder: a new folder for a world, in memory where there is room; emptied; removed with all in it. */
void server_folder(char dir[64]);
void server_folder_empty(const char *dir);
void server_folder_remove(const char *dir);
/* server_create: an empty store at s->dir. False with why. */
bool server_create(struct server *s);
/* server_open: store and workers; server_listen: the protocols too. False with why; call server_died. */
bool server_open(struct server *s);
bool server_listen(struct server *s);
/* server_account: make an account whose password is "secret"; turns until it is durable. */
bool server_account(struct server *s, const char *name);
/* server_turn: one turn of each worker, in an order from the seed. Returns how many callbacks ran. */
unsigned server_turn(struct server *s);
/* server_wait: the clock moves to the next thing due. False: nothing is. */
bool server_wait(struct server *s);
/* server_died: after tb_sim_power_cut or tb_sim_restart: the process's memory is given back. */
void server_died(struct server *s);
/* server_stop: farewell, last checkpoint, closed, as after SIGTERM. False: it did not come to rest. */
bool server_stop(struct server *s);
/* server_close: a store without connections, opened by server_open, is closed as it is. */
void server_close(struct server *s);

#endif
