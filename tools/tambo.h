/*
 * tambo.h: what tambo's command groups share: the parsed command line, the way to the store, the ways of printing.
 *
 * The meaning of the verbs is in frontends/ctl; here they are only asked and printed. stdout carries data, stderr
 * messages.
 */
#ifndef TB_TAMBO_H
#define TB_TAMBO_H

#include <jansson.h>
#include <stdio.h>
#include <sysexits.h>

#include "frontends/config/config.h"

/* Options, as bits of what a command takes and of what was given. */
enum {
    OPT_PASSWORD_STDIN = 1,
    OPT_SCHEME = 2,
    OPT_YES = 4,
    OPT_HOSTNAME = 8,
    OPT_PORT_OFFSET = 16,
    OPT_SHARDS = 32,
    OPT_SEGMENT_SIZE = 64,
    OPT_MAILBOX = 128,
    OPT_SINCE = 256,
    OPT_ALL = 512,
    OPT_UID = 1024,
    OPT_TO = 2048,
    OPT_LIST = 4096,
    OPT_DELETED = 8192,
    OPT_DAYS = 16384,
    OPT_NONE = 32768,
    OPT_DEFAULT = 65536,
    OPT_STORAGE = 1 << 17,
    OPT_MESSAGES = 1 << 18,
    OPT_MAILBOXES = 1 << 19,
    OPT_SHARD = 1 << 20,
    OPT_REPAIR = 1 << 21,
    OPT_TRUNCATE = 1 << 22,
    OPT_SALVAGE = 1 << 23,
    OPT_RATE = 1 << 24,
    OPT_KEEP = 1 << 25,
    OPT_KEEP_DAYS = 1 << 26,
    OPT_AT = 1 << 27,
    OPT_ACCOUNT = 1 << 28
};

struct client;
struct tool {
    const char *conf; /* path of the configuration */
    bool json;
    unsigned given; /* OPT_ bits */
    const char *scheme, *hostname, *port_offset, *shards, *segment_size, *mailbox, *since, *uid, *to, *days, *shard;
    const char *rate, *keep, *keep_days, *at, *account, *storage, *messages, *mailboxes;
    char **args; /* after the command's words */
    int args_n;
    int exit;              /* what the process returns: set by whoever fails */
    struct client *client; /* made by the first client_call */
};

/* tool_fail: print "tambo: text" to stderr and set the exit code. */
void tool_fail(struct tool *t, int code, const char *fmt, ...) TB_PRINTF(3, 4);
/* tool_config: the configuration, or NULL after tool_fail (78). */
struct tb_config *tool_config(struct tool *t);
/* tool_confirm: --yes was given, or a person at a terminal says yes. False after tool_fail. */
bool tool_confirm(struct tool *t, const char *question);

/* client_call: ask a verb; the result (owned), or NULL after tool_fail. Takes args over. By the control socket, else in
 * this process. */
json_t *client_call(struct tool *t, const char *verb, json_t *args);
/* client_offline: an io and the configuration, for work on a store that nobody has open; NULL after tool_fail, also
 * when a daemon answers. Both are the client's. */
struct tb_io *client_offline(struct tool *t, const struct tb_config **cfg);
/* client_open_store: open the store in this process, so that what a start does is done. False after tool_fail. */
bool client_open_store(struct tool *t);
/* client_close: also the last checkpoint, when the store was opened here. */
void client_close(struct tool *t);

/* print_json: one object on one line. */
void print_json(const json_t *v);
/* print_table: rows (array of objects) as aligned columns; or, with --json, one object a line. keys and heads are
 * NULL-ended. */
void print_table(const struct tool *t, const json_t *rows, const char *const *keys, const char *const *heads);
/* print_bytes: "1.4 GiB" into text. */
const char *print_bytes(uint64_t bytes, char text[32]);

void account_add(struct tool *t);
void account_passwd(struct tool *t);
void account_delete(struct tool *t);
void account_list(struct tool *t);
void account_import(struct tool *t);
void mailbox_acl(struct tool *t);
void mailbox_list(struct tool *t);
void mailbox_create(struct tool *t);
void mailbox_delete(struct tool *t);
void mailbox_retention(struct tool *t);
void quota(struct tool *t);
void gc_now(struct tool *t);
void stat_show(struct tool *t);
void undelete(struct tool *t);
void account_undelete(struct tool *t);
void account_deleted(struct tool *t);
void dict_list(struct tool *t);
void dict_train(struct tool *t);
void check_store(struct tool *t);
void rebuild_index(struct tool *t);
void compact_index(struct tool *t);
void scrub_now(struct tool *t);
void config_check(struct tool *t);
void config_dump(struct tool *t);
void init_dir(struct tool *t);
void backup_make(struct tool *t);
void backup_restore(struct tool *t);

#endif
