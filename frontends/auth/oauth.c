/*
 * oauth.c: the messages of OAUTHBEARER (RFC 7628) and XOAUTH2 (Google's, which has no RFC), and the keys that tokens
 * are signed with.
 *
 * Asks nobody: a token is believed for its signature, its issuer, its audience and its time. The keys are one set for
 * the process, swapped under a mutex when they are read again; a check holds it (at most a millisecond).
 * RFC 7628 3.1 (client's message), 3.2.2 (error), RFC 6750 2.1 (bearer tokens).
 */
#include "frontends/auth/oauth.h"

#include <pthread.h>

#include "frontends/auth/scram.h"
#include "frontends/config/config.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct tb_jwks *keys; /* owned; under lock */

enum tb_rc tb_oauth_keys(struct tb_slice json, struct tb_error *err)
{
    struct tb_jwks *fresh, *old;
    enum tb_rc rc = tb_jwks_read(json, &fresh, err);

    if (rc != TB_OK)
        return rc;
    (void)pthread_mutex_lock(&lock); /* a plain mutex of our own cannot fail */
    old = keys;
    keys = fresh;
    (void)pthread_mutex_unlock(&lock);
    tb_jwks_free(old);
    return TB_OK;
}

enum tb_jwt_verdict tb_oauth_check(const struct tb_config *cfg, struct tb_slice token, int64_t now,
                                   char name[TB_NAME_MAX + 1])
{
    struct tb_jwt_rules rules = {
        .issuer = cfg->oauth_issuer, .audience = cfg->oauth_audience, .claim = cfg->oauth_claim, .now = now};
    enum tb_jwt_verdict verdict = JWT_UNSIGNED;

    name[0] = '\0';
    (void)pthread_mutex_lock(&lock);
    if (keys)
        verdict = tb_jwt_check(keys, token, &rules, name);
    (void)pthread_mutex_unlock(&lock);
    return verdict;
}

/* ---- messages ---- */

/* Up to the next ^A, which is taken too; false: there is none. */
static bool pair(struct tb_slice *rest, struct tb_slice *out)
{
    const char *end = rest->len > 0 ? memchr(rest->ptr, '\1', rest->len) : NULL;
    size_t n;

    if (!end)
        return false;
    n = (size_t)(end - rest->ptr);
    *out = tb_slice_sub(*rest, 0, n);
    *rest = tb_slice_sub(*rest, n + 1, SIZE_MAX);
    return true;
}

/* auth's value: "Bearer" 1*SP b64token */
static bool bearer(struct tb_slice value, struct tb_slice *token)
{
    if (!tb_slice_istarts(value, TB_SLICE("Bearer ")))
        return false;
    *token = tb_slice_trim(tb_slice_sub(value, 7, SIZE_MAX));
    return token->len > 0 && !memchr(token->ptr, ' ', token->len);
}

/* *kvpair kvsep, to the end: key "=" value ^A, and one ^A more. */
static bool pairs(struct tb_slice rest, struct tb_slice *token)
{
    bool found = false;
    struct tb_slice one;

    while (pair(&rest, &one)) {
        if (one.len == 0)
            return rest.len == 0 && found;
        if (!memchr(one.ptr, '=', one.len) || one.ptr[0] == '=')
            return false;
        if (tb_slice_istarts(one, TB_SLICE("auth="))) {
            if (found || !bearer(tb_slice_sub(one, 5, SIZE_MAX), token))
                return false;
            found = true;
        }
    }
    return false;
}

/* client-resp = (gs2-header kvsep *kvpair kvsep) / kvsep */
bool tb_oauth_bearer_read(struct tb_slice message, struct tb_slice *authzid, struct tb_slice *token)
{
    struct tb_slice rest = message, nothing;
    struct tb_scram_first gs2 = {.authzid = TB_SLICE("")};

    if (!tb_scram_gs2_read(&rest, &gs2) || gs2.flag == 'p' || !pair(&rest, &nothing) || nothing.len > 0)
        return false;
    *authzid = gs2.authzid;
    return pairs(rest, token);
}

/* "user=" user ^A "auth=Bearer " token ^A ^A */
bool tb_oauth_xoauth2_read(struct tb_slice message, struct tb_slice *user, struct tb_slice *token)
{
    struct tb_slice rest = message;

    if (!pair(&rest, user) || !tb_slice_istarts(*user, TB_SLICE("user=")))
        return false;
    *user = tb_slice_sub(*user, 5, SIZE_MAX);
    return pairs(rest, token);
}

static void quoted(const char *text, struct tb_buf *out)
{
    tb_buf_char(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            tb_buf_char(out, '\\');
        tb_buf_char(out, *text); /* the configuration holds no control characters */
    }
}

void tb_oauth_error(const struct tb_config *cfg, bool xoauth2, struct tb_buf *out)
{
    if (xoauth2) {
        tb_buf_str(out, "{\"status\":\"401\",\"schemes\":\"Bearer\"}");
        return;
    }
    tb_buf_str(out, "{\"status\":\"invalid_token\"");
    if (strncmp(cfg->oauth_issuer, "https://", 8) == 0) {
        size_t len = strlen(cfg->oauth_issuer);

        tb_buf_str(out, ",\"openid-configuration\":");
        quoted(cfg->oauth_issuer, out);
        tb_buf_str(out, cfg->oauth_issuer[len - 1] == '/' ? "" : "/");
        tb_buf_str(out, ".well-known/openid-configuration\"");
    }
    tb_buf_str(out, "}");
}
