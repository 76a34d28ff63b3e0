/*
 * auth.h: who is it? Password schemes, SASL framing, throttling; shared by all frontends.
 *
 * A login runs: tb_login_start with name and password; hashing happens on a helper thread; op->done on the connection's
 * worker. An unknown name costs the same work and gives the same answer as a wrong password. One log line per failure,
 * stable for fail2ban: "auth failed proto=imap user=NAME rip=ADDRESS reason=password".
 */
#ifndef TB_AUTH_H
#define TB_AUTH_H

#include <tambo/store.h>

struct tb_config;

enum { TB_PASSWORD_MAX = 1024 };

struct tb_login {    /* the caller's, alive until op.done */
    struct tb_op op; /* op.rc: OK, INVALID (name or password wrong), BUSY (throttled, or no memory: try later) */
    struct tb_identity identity; /* filled when OK, but for the secret */
    /* private */
    struct tb_worker *worker;
    struct tb_op hash;
    const char *proto;
    char peer[64];
    char name[TB_NAME_MAX + 1];
    char password[TB_PASSWORD_MAX + 1];
    size_t password_len;
    bool known, match, starved;
};
/* tb_login_start: verify. Name may be any bytes; it is resolved with tb_name_resolve. The password is wiped before
 * op.done runs. */
void tb_login_start(struct tb_worker *w, const struct tb_config *cfg, const char *proto, const char *peer,
                    struct tb_slice name, struct tb_slice password, struct tb_login *login);

/*
 * tb_name_resolve: a login name or a recipient's address to an account: lower-case; as given; with "@default" taken off
 * or put on; with "+detail" taken off the local part (detail: may be NULL, else set to the detail, empty if none).
 * NOTFOUND. "postmaster", alone or at the default domain, a configured local domain or our own host name, falls to the
 * configured postmaster account.
 */
enum tb_rc tb_name_resolve(struct tb_store *store, const struct tb_config *cfg, struct tb_slice name,
                           struct tb_identity *out, struct tb_slice *detail) TB_USE_RESULT;

/* tb_password_verify: is password the one behind "{SCHEME}hash"? Slow on purpose for the good schemes. Any thread.
 * Schemes: docs/man. */
bool tb_password_verify(const char *secret, struct tb_slice password);
/* tb_password_hash: a new secret of the given scheme ("ARGON2ID", "SHA512-CRYPT", "PLAIN"; NULL: ARGON2ID); random: 16
 * bytes of salt. */
enum tb_rc tb_password_hash(const char *scheme, struct tb_slice password, const uint8_t random[16],
                            char out[TB_SECRET_MAX + 1]) TB_USE_RESULT;
/* tb_secret_known: is the scheme of this secret one we can verify? */
bool tb_secret_known(const char *secret);

/* ---- SASL server side: PLAIN (RFC 4616) and LOGIN, one exchange ---- */
enum tb_sasl_step { SASL_CHALLENGE, SASL_READY, SASL_FAIL_SYNTAX, SASL_CANCELLED, SASL_UNKNOWN };
struct tb_sasl {
    int mechanism, state;
    char name[TB_NAME_MAX + 1], password[TB_PASSWORD_MAX + 1];
    size_t name_len, password_len;
};
/*
 * tb_sasl_begin: mechanism name (any case) and the initial response (ptr NULL: none; "=": empty), base64.
 * SASL_CHALLENGE: send *challenge (already base64, may be empty), then feed the answer line to tb_sasl_next.
 * SASL_READY: name and password are set. A PLAIN authorisation id other than empty or the name itself:
 * SASL_FAIL_SYNTAX.
 */
enum tb_sasl_step tb_sasl_begin(struct tb_sasl *s, struct tb_slice mechanism, struct tb_slice initial,
                                const char **challenge);
/* tb_sasl_next: "*" cancels (RFC 4422 3.5). */
enum tb_sasl_step tb_sasl_next(struct tb_sasl *s, struct tb_slice line, const char **challenge);
void tb_sasl_wipe(struct tb_sasl *s);

#endif
