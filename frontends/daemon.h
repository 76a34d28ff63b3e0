/*
 * daemon.h: the running server behind tambod's main: worker threads, listeners, reload, stop.
 */
#ifndef TB_DAEMON_H
#define TB_DAEMON_H

#include "frontends/config/config.h"

struct daemon; /* opaque; main thread only */

/* daemon_start: store, workers, then listeners. *exit_code: of sysexits.h when it fails (err says why). cfg is borrowed
 * until daemon_stop. */
bool daemon_start(const struct tb_config *cfg, struct daemon **out, int *exit_code, struct tb_error *err);
/*
 * daemon_reload: take from `fresh` what can change while running (certificate, log level), log what waits for a
 * restart. False: nothing changed (err). fresh is borrowed for the call; the sessions keep the configuration of the
 * start.
 */
bool daemon_reload(struct daemon *d, const struct tb_config *fresh, struct tb_error *err);
/* daemon_stop: farewell to every connection, a last checkpoint, everything closed. False: it took too long. */
bool daemon_stop(struct daemon *d);
/* daemon_check: everything `tambod -t` can know about a configuration without serving: certificate and key fit;
 * the keys of tokens are read, and are those that count from now on. */
bool daemon_check(const struct tb_config *cfg, struct tb_error *err);
/* daemon_log_level: the level of the configuration from now on. */
void daemon_log_level(const struct tb_config *cfg);

/* notify: tell systemd's supervisor (sd_notify(3) protocol), e.g. "READY=1"; does nothing when there is none. */
void notify(const char *state);

#endif
