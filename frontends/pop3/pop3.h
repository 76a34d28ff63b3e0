/*
 * pop3.h: the pop3 frontend's only door. tb_net_config.user of its listeners is a struct tb_config.
 */
#ifndef TB_POP3_H
#define TB_POP3_H

#include "frontends/net/net.h"

extern const struct tb_proto tb_pop3_proto;

#endif
