/*
 * smtp.h: the SMTP family's doors: SMTP (port 25), submission (587, 465) and LMTP (RFC 2033). One state
 * machine, three tables. tb_net_config.user of its listeners is a struct tb_config.
 */
#ifndef TB_SMTP_H
#define TB_SMTP_H

#include "frontends/net/net.h"

extern const struct tb_proto tb_smtp_proto;
extern const struct tb_proto tb_submission_proto;
extern const struct tb_proto tb_lmtp_proto;

#endif
