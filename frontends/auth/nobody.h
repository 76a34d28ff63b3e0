/*
 * nobody.h: inside frontends/auth: what somebody who does not exist looks like.
 */
#ifndef TB_NOBODY_H
#define TB_NOBODY_H

#include <tambo/store.h>

struct tb_config;

/* tb_nobody_secret: the secret of the account that stands in for a name without a login. Any thread; two look-ups in
 * the directory, a few more where many accounts have no login. */
void tb_nobody_secret(struct tb_store *store, const struct tb_config *cfg, const char *name,
                      char secret[TB_SECRET_MAX + 1]);
/* tb_nobody_salt: the salt of a name that has none of its own, at most 64 bytes. Any thread. */
void tb_nobody_salt(struct tb_store *store, const struct tb_config *cfg, const char *name, uint8_t *salt, size_t len);

#endif
