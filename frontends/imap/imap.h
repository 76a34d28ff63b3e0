/*
 * imap.h: the imap frontend's only door. tb_net_config.user of its listeners is a struct tb_config.
 */
#ifndef TB_IMAP_H
#define TB_IMAP_H

#include "frontends/net/net.h"

extern const struct tb_proto tb_imap_proto;

#endif
