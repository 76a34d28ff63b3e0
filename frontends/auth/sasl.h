/*
 * sasl.h: inside frontends/auth: what login.c must know of an exchange.
 */
#ifndef TB_SASL_H
#define TB_SASL_H

#include "frontends/auth/auth.h"
#include "frontends/auth/password.h"

enum {
    TB_SASL_PLAIN = 1,
    TB_SASL_LOGIN,
    TB_SASL_SCRAM,
    TB_SASL_SCRAM_PLUS,
    TB_SASL_BEARER,
    TB_SASL_XOAUTH2,
    TB_SASL_EXTERNAL
};

/* tb_sasl_keys: the salt and rounds told to who says he is `name`, and of SECRET_KEYS the keys too. who: the account he
 * may be, name empty if there is none. Stable. */
enum tb_secret_scram tb_sasl_keys(const struct tb_sasl *s, const struct tb_identity *who, const char *name,
                                  struct tb_scram_keys *keys, struct tb_slice *password);

#endif
