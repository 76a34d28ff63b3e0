/*
 * oauth.h: inside frontends/auth: what OAUTHBEARER and XOAUTH2 say, and whether their tokens are any good.
 */
#ifndef TB_OAUTH_H
#define TB_OAUTH_H

#include "frontends/auth/auth.h"
#include "frontends/auth/jwt.h"

/* tb_oauth_bearer_read: authzid (still escaped; empty: none) and token of OAUTHBEARER's one message. */
bool tb_oauth_bearer_read(struct tb_slice message, struct tb_slice *authzid, struct tb_slice *token);
/* tb_oauth_xoauth2_read: the same of XOAUTH2; the user may be empty. */
bool tb_oauth_xoauth2_read(struct tb_slice message, struct tb_slice *user, struct tb_slice *token);
/* tb_oauth_check: with the keys there are now; name: set when GOOD. Any thread. */
enum tb_jwt_verdict tb_oauth_check(const struct tb_config *cfg, struct tb_slice token, int64_t now,
                                   char name[TB_NAME_MAX + 1]);
/* tb_oauth_error: what a client is told before it is refused (RFC 7628 3.2.2). */
void tb_oauth_error(const struct tb_config *cfg, bool xoauth2, struct tb_buf *out);

#endif
