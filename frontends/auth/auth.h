/*
 * auth.h: who is it? Password schemes, SASL, throttling; shared by all frontends.
 *
 * A login runs: tb_login_start with name and password, or tb_login_sasl with an exchange that is READY; hashing happens
 * on a helper thread; op->done on the connection's worker. An unknown name costs the same work and gives the same
 * answer as a wrong password. One log line per failure, stable for fail2ban: "auth failed proto=imap user=NAME
 * rip=ADDRESS reason=password".
 */
#ifndef TB_AUTH_H
#define TB_AUTH_H

#include <tambo/store.h>

struct tb_config;
struct tb_tls;

enum { TB_PASSWORD_MAX = 1024 };

/* ---- SASL, the server's side (RFC 4422): PLAIN, LOGIN, SCRAM-SHA-256(-PLUS), OAUTHBEARER, XOAUTH2, EXTERNAL ---- */

/* Who speaks to whom: borrowed for an exchange, while the connection stays on this worker. */
struct tb_sasl_env {
    struct tb_worker *worker;
    const struct tb_config *cfg;
    const struct tb_tls *tls; /* NULL: not encrypted */
};
enum tb_sasl_step {
    SASL_CHALLENGE,
    SASL_READY,
    SASL_DONE,
    SASL_FAIL_SYNTAX,
    SASL_CANCELLED,
    SASL_UNKNOWN,
    SASL_NO_MEMORY
};
enum tb_sasl_trust { TRUST_NOBODY, TRUST_GOOD, TRUST_BAD, TRUST_EXPIRED };
struct tb_sasl {
    int mechanism, state;
    char name[TB_NAME_MAX + 1], authzid[TB_NAME_MAX + 1], password[TB_PASSWORD_MAX + 1];
    size_t name_len, authzid_len, password_len;
    /* private */
    struct tb_sasl_env env;
    struct tb_buf text;      /* owned; of SCRAM: AuthMessage, as far as it has come */
    struct tb_buf challenge; /* owned; base64, with a NUL behind */
    struct tb_buf gs2;       /* owned; of SCRAM: the header, and what the channel is bound to */
    size_t nonce_at, nonce_len;
    enum tb_sasl_trust trust; /* what a third party says of the name; NOBODY: there is a password or a proof */
    bool spoilt;              /* of SCRAM: bound to another channel, or to another nonce */
    uint8_t proof[32], verifier[32];
};
/*
 * tb_sasl_list: the mechanisms offered here and now, each with a blank and prefix before it (" AUTH=PLAIN AUTH=LOGIN").
 * Where passwords may not pass at all is the frontend's to say.
 */
void tb_sasl_list(const struct tb_sasl_env *env, const char *prefix, struct tb_buf *out);
/*
 * tb_sasl_begin: mechanism name (any case) and the initial response (ptr NULL: none; "=": empty), base64.
 * SASL_CHALLENGE: send *challenge (already base64, may be empty; it lives until the next call), then feed the answer
 * line to tb_sasl_next. SASL_READY: give s to tb_login_sasl, and then to tb_sasl_outcome. SASL_UNKNOWN: no such
 * mechanism, or not here. tb_sasl_wipe ends it, whatever it has come to.
 */
enum tb_sasl_step tb_sasl_begin(struct tb_sasl *s, const struct tb_sasl_env *env, struct tb_slice mechanism,
                                struct tb_slice initial, const char **challenge);
/* tb_sasl_next: "*" cancels (RFC 4422 3.5). SASL_DONE: only after tb_sasl_outcome's challenge: what the login said
 * holds. */
enum tb_sasl_step tb_sasl_next(struct tb_sasl *s, struct tb_slice line, const char **challenge);
/* tb_sasl_outcome: the login is done. SASL_DONE: answer what its op.rc says; SASL_CHALLENGE: the mechanism has a last
 * word to the client first. */
enum tb_sasl_step tb_sasl_outcome(struct tb_sasl *s, enum tb_rc rc, const char **challenge);
void tb_sasl_wipe(struct tb_sasl *s);

/* tb_oauth_keys: the keys that tokens are signed with from now on, a JSON Web Key set (RFC 7517). INVALID, LIMIT: those
 * there are stay. Any thread. */
enum tb_rc tb_oauth_keys(struct tb_slice json, struct tb_error *err) TB_USE_RESULT;

/* ---- a login ---- */

/* tb_login_private: may passwords pass here? */
bool tb_login_private(const struct tb_config *cfg, bool secure, bool loopback);

enum tb_refusal { REFUSED_CREDENTIALS, REFUSED_AUTHORIZATION, REFUSED_EXPIRED, REFUSED_NO_ACCOUNT };

struct tb_login {                /* the caller's, alive until op.done */
    struct tb_op op;             /* op.rc: OK, INVALID (see refusal), BUSY (throttled, or no memory: try later) */
    struct tb_identity identity; /* filled when OK, but for the secret: who the session is for */
    enum tb_refusal refusal;     /* when INVALID. AUTHORIZATION: right, but may not act for authzid; EXPIRED: no longer;
                                    NO_ACCOUNT: a third party vouches for the name, and there is none here */
    /* private */
    struct tb_worker *worker;
    const struct tb_config *cfg;
    struct tb_sasl *sasl; /* borrowed; NULL: a password */
    struct tb_op hash;
    const char *proto;
    char peer[64];
    char name[TB_NAME_MAX + 1], authzid[TB_NAME_MAX + 1];
    char password[TB_PASSWORD_MAX + 1];
    char fresh[TB_SECRET_MAX + 1]; /* the secret anew, in the configured scheme; "": it stays */
    uint8_t salt[16];
    size_t password_len;
    bool known, match, starved, upgrade;
};
/* tb_login_start: verify. Name may be any bytes; it is resolved with tb_name_resolve. The password is wiped before
 * op.done runs. */
void tb_login_start(struct tb_worker *w, const struct tb_config *cfg, const char *proto, const char *peer,
                    struct tb_slice name, struct tb_slice password, struct tb_login *login);
/* tb_login_sasl: the same for an exchange that is READY; s stays the caller's, alive until op.done. */
void tb_login_sasl(struct tb_sasl *s, const char *proto, const char *peer, struct tb_login *login);

/*
 * tb_name_resolve: a login name or a recipient's address to an account: lower-case; as given; with "@default" taken off
 * or put on; with "+detail" taken off the local part (detail: may be NULL, else set to the detail, empty if none).
 * NOTFOUND. "postmaster", alone or at the default domain, a configured local domain or our own host name, falls to the
 * configured postmaster account.
 */
enum tb_rc tb_name_resolve(struct tb_store *store, const struct tb_config *cfg, struct tb_slice name,
                           struct tb_identity *out, struct tb_slice *detail) TB_USE_RESULT;

/* tb_password_verify: is password the one behind "{SCHEME}hash"? Slow on purpose for the good schemes. False with errno
 * ENOMEM: it was not looked at. Any thread. Schemes: tambo(1), account import. */
bool tb_password_verify(const char *secret, struct tb_slice password);
/* tb_password_hash: a new secret of the given scheme ("SCRAM-SHA-256", "ARGON2ID", "BLF-CRYPT", "SHA512-CRYPT",
 * "PLAIN"; NULL: SCRAM-SHA-256); random: 16 bytes of salt. */
enum tb_rc tb_password_hash(const char *scheme, struct tb_slice password, const uint8_t random[16],
                            char out[TB_SECRET_MAX + 1]) TB_USE_RESULT;
/* tb_secret_known: is the scheme of this secret one we can verify? */
bool tb_secret_known(const char *secret);
/* tb_secret_clear: is it a password as it is, in clear? *password: within secret. Any thread. */
bool tb_secret_clear(const char *secret, struct tb_slice *password);
/* tb_secret_other: is it the secret of an account that cannot log in with SCRAM? (A password hashed in some other way.)
 * Any thread. */
bool tb_secret_other(const char *secret);

#endif
