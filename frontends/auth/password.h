/*
 * password.h: inside frontends/auth: what login.c must know of a secret before it verifies it.
 */
#ifndef TB_PASSWORD_H
#define TB_PASSWORD_H

#include <tambo/base.h>

/* tb_secret_cheap: verifying it costs so little that a worker's own thread may. Any thread. */
bool tb_secret_cheap(const char *secret);

#endif
