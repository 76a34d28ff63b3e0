/*
 * throttle.h: inside frontends/auth: how often may one be wrong?
 */
#ifndef TB_THROTTLE_H
#define TB_THROTTLE_H

#include <tambo/base.h>

/* Failures a minute that are let pass, 2 or more; 0: as many as come. */
struct tb_throttle_limits {
    uint32_t account, network;
};
/* tb_throttle_key: the key of the tables' hashes; the first call wins. Any thread. */
void tb_throttle_key(const uint8_t key[16]);
/* tb_throttle_blocked: too many failures of late, from this peer's network or for this account? Any thread. */
bool tb_throttle_blocked(const struct tb_throttle_limits *limits, const char *peer, struct tb_slice account,
                         uint64_t now_ns);
/* tb_throttle_failed: one more. Any thread. */
void tb_throttle_failed(const struct tb_throttle_limits *limits, const char *peer, struct tb_slice account,
                        uint64_t now_ns);
/* tb_throttle_passed: this account's owner has been seen at this peer's network. Any thread. */
void tb_throttle_passed(const char *peer, struct tb_slice account, uint64_t now_ns);

#endif
