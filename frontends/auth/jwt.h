/*
 * jwt.h: inside frontends/auth: JSON Web Tokens (RFC 7519) signed with a key of a set (RFC 7517).
 */
#ifndef TB_JWT_H
#define TB_JWT_H

#include <tambo/store.h>

enum { TB_JWT_BYTES_MAX = 8 << 10, TB_JWKS_KEYS_MAX = 64, TB_JWKS_BYTES_MAX = 256 << 10 };

struct tb_jwks; /* immutable */
/* tb_jwks_read: the keys for signatures that we can use; others ("oct", "enc", unknown curves) are left out. INVALID:
 * not a key set, or nothing usable in it; LIMIT. */
enum tb_rc tb_jwks_read(struct tb_slice json, struct tb_jwks **out, struct tb_error *err) TB_USE_RESULT;
void tb_jwks_free(struct tb_jwks *set);
size_t tb_jwks_count(const struct tb_jwks *set);

struct tb_jwt_rules {
    const char *issuer, *audience; /* what iss and aud must say */
    const char *claim;             /* which claim names the account */
    int64_t now;                   /* seconds since 1970 */
};
enum tb_jwt_verdict { JWT_GOOD, JWT_MALFORMED, JWT_UNSIGNED, JWT_EXPIRED, JWT_WRONG };
/* tb_jwt_check: is it signed by a key of the set, and for us, now? name: set when GOOD. Up to a millisecond. */
enum tb_jwt_verdict tb_jwt_check(const struct tb_jwks *set, struct tb_slice token, const struct tb_jwt_rules *rules,
                                 char name[TB_NAME_MAX + 1]);

#endif
