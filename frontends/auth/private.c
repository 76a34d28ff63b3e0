/*
 * private.c: where passwords may pass: over TLS always, else where `plain_login` says so. Never asks the connection
 * itself: a frontend knows what it is. Pure; any thread. RFC 9051 6.2.3 (LOGINDISABLED).
 */
#include "frontends/auth/auth.h"

#include "frontends/config/config.h"

bool tb_login_private(const struct tb_config *cfg, bool secure, bool loopback)
{
    const char *plain = cfg->plain_login ? cfg->plain_login : "loopback";

    return secure || strcmp(plain, "always") == 0 || (loopback && strcmp(plain, "never") != 0);
}
