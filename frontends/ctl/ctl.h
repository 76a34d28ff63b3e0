/*
 * ctl.h: the admin verbs, one table, used by the daemon's control socket and by `tambo` offline: same verbs, same
 * output. A request is one JSON object on one line {"verb": "account add", "args": {...}}; the answer is one line
 * {"ok": true, "result": ...} or {"ok": false, "exit": 67, "error": "..."} (exit codes of sysexits.h).
 */
#ifndef TB_CTL_H
#define TB_CTL_H

#include <tambo/admin.h>
#include "frontends/net/net.h"

struct tb_config;

/* One request being answered; the caller's; op.done when `reply` is complete (a line with its LF). */
struct tb_ctl_request {
    struct tb_op op;
    struct tb_buf reply;
    /* private */
    void *state;
};
/* tb_ctl_run: answer one request line on worker w. */
void tb_ctl_run(struct tb_worker *w, const struct tb_config *cfg, struct tb_slice line, struct tb_ctl_request *r);
/* The control socket's protocol, for a listener on "unix:<cfg->control>" (mode 0600). net config user = struct
 * tb_config. */
extern const struct tb_proto tb_ctl_proto;

#endif
