/*
 * password.h: inside frontends/auth: what login.c must know of a secret before it verifies it.
 */
#ifndef TB_PASSWORD_H
#define TB_PASSWORD_H

#include "frontends/auth/scram.h"

/* tb_secret_cheap: verifying it costs so little that a worker's own thread may. Any thread. */
bool tb_secret_cheap(const char *secret);

enum tb_secret_scram {
    SECRET_OTHER,   /* nobody can prove with SCRAM that he knows it */
    SECRET_KEYS,    /* *keys set: SCRAM-SHA-256's own */
    SECRET_PASSWORD /* *password set, within secret: keys can be derived from it */
};
/* tb_secret_scram: what SCRAM-SHA-256 can do with a secret. Any thread. */
enum tb_secret_scram tb_secret_scram(const char *secret, struct tb_scram_keys *keys, struct tb_slice *password);
/* tb_secret_is: is it of that scheme, by its first name in the table? */
bool tb_secret_is(const char *secret, const char *scheme);

#endif
