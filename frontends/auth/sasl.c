/*
 * sasl.c: the server's side of SASL: base64 lines in, challenges out, and in the end who says he is whom, with what
 * proof.
 *
 *   begin ── MESSAGE [, FINAL] | NAME, PASSWORD ──> READY ── (login) ──> outcome ── [VERIFIER | ERROR] ──> DONE
 *
 * Decides nothing about passwords and proofs: login.c does. Never keeps a decoded message longer than it needs it: all
 * is wiped. A SCRAM exchange goes the same way, with a salt that never changes, for names that do not exist. A proof
 * that is bound to another channel, or to another nonce than ours, is as wrong as a wrong password, and told from it
 * only in the log.
 * One exchange is used by one thread at a time.
 * RFC 4422 (framework; 3.5 cancelling), RFC 4616 (PLAIN), RFC 4954 and RFC 9051 6.2.2 (initial responses, "="),
 * RFC 5802 and RFC 7677 (SCRAM), RFC 7628 (OAUTHBEARER), RFC 9266 and RFC 5929 4 (channel bindings).
 * LOGIN has no RFC but clients that know nothing else.
 */
#include "frontends/auth/sasl.h"
#include "frontends/auth/auth.h"
#include "frontends/auth/nobody.h"
#include "frontends/auth/oauth.h"
#include "frontends/auth/password.h"
#include "frontends/auth/scram.h"

#include "engine/crypto/crypto.h"
#include "frontends/config/config.h"

enum { STATE_OVER, STATE_MESSAGE, STATE_NAME, STATE_PASSWORD, STATE_FINAL, STATE_READY, STATE_VERIFIER, STATE_ERROR };
enum {
    MESSAGE_BYTES_MAX = 12288 / 4 * 3, /* RFC 4954 4's longest line, decoded */
    CHALLENGE_BYTES_MAX = 2 << 10,
    AUTH_MESSAGE_MAX = 2 * MESSAGE_BYTES_MAX + CHALLENGE_BYTES_MAX,
    CLIENT_NONCE_MAX = 512,
    NONCE_BYTES = 18,
};

/* ---- which are offered ---- */

static bool offers_always(const struct tb_sasl_env *env)
{
    (void)env;
    return true;
}

/* Clients take the best mechanism that is offered, and give up when it fails: so SCRAM is offered when it can work. */
static bool offers_scram(const struct tb_sasl_env *env)
{
    if (!env->worker || strcmp(env->cfg->scram, "never") == 0)
        return false;
    return strcmp(env->cfg->scram, "always") == 0 || tb_directory_counted(tb_worker_store(env->worker)) == 0;
}

static bool offers_plus(const struct tb_sasl_env *env)
{
    uint8_t binding[TB_TLS_BINDING_MAX];
    size_t len;

    return env->tls && env->cfg->scram_plus && offers_scram(env) &&
           (tb_tls_binding(env->tls, "tls-exporter", binding, &len) ||
            tb_tls_binding(env->tls, "tls-server-end-point", binding, &len));
}

static bool offers_oauth(const struct tb_sasl_env *env)
{
    return env->worker && env->cfg->oauth_jwks && env->cfg->oauth_jwks[0];
}

static bool offers_external(const struct tb_sasl_env *env)
{
    char name[TB_NAME_MAX + 1];

    return env->worker && env->tls && tb_tls_peer_name(env->tls, env->cfg->tls_client_name, TB_NAME_MAX, name);
}

/* ---- PLAIN and LOGIN ---- */

static bool keep(struct tb_slice s, char *to, size_t max, size_t *len)
{
    if (s.len == 0 || s.len > max)
        return false;
    memcpy(to, s.ptr, s.len);
    to[s.len] = '\0';
    *len = s.len;
    return true;
}

static bool keep_name(struct tb_sasl *s, struct tb_slice name)
{
    return !memchr(name.ptr, '\0', name.len) && keep(name, s->name, TB_NAME_MAX, &s->name_len);
}

static bool keep_password(struct tb_sasl *s, struct tb_slice password)
{
    return keep(password, s->password, TB_PASSWORD_MAX, &s->password_len);
}

/* message = [authzid] NUL authcid NUL passwd (RFC 4616 section 2) */
static enum tb_sasl_step take_plain(struct tb_sasl *s, struct tb_slice message)
{
    const char *first = message.len > 0 ? memchr(message.ptr, '\0', message.len) : NULL;
    struct tb_slice authzid, authcid, rest;
    const char *second;

    if (!first)
        return SASL_FAIL_SYNTAX;
    authzid = tb_slice(message.ptr, (size_t)(first - message.ptr));
    rest = tb_slice_sub(message, authzid.len + 1, SIZE_MAX);
    second = rest.len > 0 ? memchr(rest.ptr, '\0', rest.len) : NULL;
    if (!second)
        return SASL_FAIL_SYNTAX;
    authcid = tb_slice(rest.ptr, (size_t)(second - rest.ptr));
    rest = tb_slice_sub(rest, authcid.len + 1, SIZE_MAX);
    if (rest.len == 0 || memchr(rest.ptr, '\0', rest.len))
        return SASL_FAIL_SYNTAX;
    if (authzid.len > 0 && !keep(authzid, s->authzid, TB_NAME_MAX, &s->authzid_len))
        return SASL_FAIL_SYNTAX;
    return keep_name(s, authcid) && keep_password(s, rest) ? SASL_READY : SASL_FAIL_SYNTAX;
}

static enum tb_sasl_step take_login(struct tb_sasl *s, struct tb_slice message)
{
    if (s->state == STATE_PASSWORD)
        return keep_password(s, message) ? SASL_READY : SASL_FAIL_SYNTAX;
    if (!keep_name(s, message))
        return SASL_FAIL_SYNTAX;
    s->state = STATE_PASSWORD;
    tb_buf_str(&s->challenge, "UGFzc3dvcmQ6"); /* "Password:" */
    return SASL_CHALLENGE;
}

/* ---- SCRAM ---- */

enum tb_secret_scram tb_sasl_keys(const struct tb_sasl *s, const struct tb_identity *who, const char *name,
                                  struct tb_scram_keys *keys, struct tb_slice *password)
{
    struct tb_store *store = tb_worker_store(s->env.worker);
    enum tb_secret_scram kind = tb_secret_scram(who->secret, keys, password);
    char secret[TB_SECRET_MAX + 1];
    struct tb_slice ignored;

    if (kind == SECRET_KEYS)
        return kind;
    *keys = (struct tb_scram_keys){.rounds = TB_SCRAM_ROUNDS, .salt_len = TB_SCRAM_SALT_BYTES};
    if (who->secret[0] == '\0') {
        struct tb_scram_keys others;

        tb_nobody_secret(store, s->env.cfg, name, secret);
        if (tb_secret_scram(secret, &others, &ignored) == SECRET_KEYS) {
            keys->rounds = others.rounds;
            keys->salt_len = others.salt_len;
        }
        explicit_bzero(secret, sizeof(secret));
        explicit_bzero(&others, sizeof(others));
    }
    tb_nobody_salt(store, s->env.cfg, who->name[0] ? who->name : name, keys->salt, keys->salt_len);
    return kind;
}

/* What the client's proof has to be bound to. False: it asks for what cannot be had. */
static bool bind_channel(struct tb_sasl *s, const struct tb_scram_first *first)
{
    bool plus = s->mechanism == TB_SASL_SCRAM_PLUS;
    uint8_t binding[TB_TLS_BINDING_MAX];
    size_t len;
    char name[64];

    tb_buf_slice(&s->gs2, first->gs2);
    if (plus != (first->flag == 'p'))
        return false; /* RFC 5802 6: the one needs the other */
    if (first->flag == 'y' && offers_plus(&s->env))
        s->spoilt = true; /* it says we do not offer -PLUS: somebody in between has taken it off our list */
    if (!plus)
        return true;
    if (first->binding.len >= sizeof(name))
        return false;
    memcpy(name, first->binding.ptr, first->binding.len);
    name[first->binding.len] = '\0';
    if (!tb_tls_binding(s->env.tls, name, binding, &len))
        return false;
    tb_buf_put(&s->gs2, binding, len);
    return true;
}

/* server-first-message = nonce "," salt "," iteration-count, behind client-first-message-bare and a comma */
static enum tb_sasl_step answer_first(struct tb_sasl *s, const struct tb_scram_first *first,
                                      const struct tb_scram_keys *keys)
{
    uint8_t random[NONCE_BYTES];
    size_t begin;

    tb_buf_slice(&s->text, first->bare);
    tb_buf_char(&s->text, ',');
    begin = s->text.len;
    tb_buf_str(&s->text, "r=");
    s->nonce_at = s->text.len;
    tb_buf_slice(&s->text, first->nonce);
    tb_io_random(tb_worker_io(s->env.worker), random, sizeof(random));
    tb_base64_encode(tb_slice(random, sizeof(random)), &s->text);
    s->nonce_len = s->text.len - s->nonce_at;
    tb_buf_str(&s->text, ",s=");
    tb_base64_encode(tb_slice(keys->salt, keys->salt_len), &s->text);
    tb_buf_str(&s->text, ",i=");
    tb_buf_u64(&s->text, keys->rounds);
    if (s->text.failed || s->gs2.failed)
        return SASL_NO_MEMORY;
    tb_base64_encode(tb_slice_sub(tb_buf_all(&s->text), begin, SIZE_MAX), &s->challenge);
    s->state = STATE_FINAL;
    return SASL_CHALLENGE;
}

static enum tb_sasl_step take_first(struct tb_sasl *s, struct tb_slice message)
{
    struct tb_identity who = {0};
    struct tb_scram_first first;
    struct tb_scram_keys keys;
    struct tb_slice password;
    enum tb_sasl_step step;

    if (!tb_scram_first_read(message, &first) || first.nonce.len > CLIENT_NONCE_MAX ||
        !tb_scram_name(first.name, TB_NAME_MAX, s->name, &s->name_len) ||
        !tb_scram_name(first.authzid, TB_NAME_MAX, s->authzid, &s->authzid_len) || !bind_channel(s, &first))
        return SASL_FAIL_SYNTAX;
    if (tb_name_resolve(tb_worker_store(s->env.worker), s->env.cfg, tb_slice(s->name, s->name_len), &who, NULL) !=
        TB_OK)
        memset(&who, 0, sizeof(who));
    (void)tb_sasl_keys(s, &who, s->name, &keys, &password); /* what kind they are counts at the end only */
    step = answer_first(s, &first, &keys);
    explicit_bzero(&who, sizeof(who));
    explicit_bzero(&keys, sizeof(keys));
    return step;
}

static enum tb_sasl_step take_final(struct tb_sasl *s, struct tb_slice message)
{
    struct tb_scram_final final;
    struct tb_buf bound;

    if (!tb_scram_final_read(message, &final))
        return SASL_FAIL_SYNTAX;
    tb_buf_init(&bound, AUTH_MESSAGE_MAX);
    if (!tb_base64_decode(final.binding, &bound) || !tb_secret_equal(bound.ptr, bound.len, s->gs2.ptr, s->gs2.len) ||
        !tb_slice_eq(final.nonce, tb_slice_sub(tb_buf_all(&s->text), s->nonce_at, s->nonce_len)))
        s->spoilt = true;
    tb_buf_free(&bound);
    memcpy(s->proof, final.proof, sizeof(s->proof));
    tb_buf_char(&s->text, ',');
    tb_buf_slice(&s->text, final.bare);
    return s->text.failed ? SASL_NO_MEMORY : SASL_READY;
}

static enum tb_sasl_step take_scram(struct tb_sasl *s, struct tb_slice message)
{
    return s->state == STATE_FINAL ? take_final(s, message) : take_first(s, message);
}

/* ---- OAUTHBEARER and XOAUTH2 ---- */

static enum tb_sasl_trust trust_of(enum tb_jwt_verdict verdict)
{
    return verdict == JWT_GOOD ? TRUST_GOOD : verdict == JWT_EXPIRED ? TRUST_EXPIRED : TRUST_BAD;
}

/* The token names the account; who the message names is whom he wants to act for. */
static enum tb_sasl_step take_token(struct tb_sasl *s, struct tb_slice message)
{
    bool xoauth2 = s->mechanism == TB_SASL_XOAUTH2;
    struct tb_slice who, token;
    bool good = xoauth2 ? tb_oauth_xoauth2_read(message, &who, &token) : tb_oauth_bearer_read(message, &who, &token);

    if (good && xoauth2)
        good = who.len == 0 || (!memchr(who.ptr, '\0', who.len) && keep(who, s->authzid, TB_NAME_MAX, &s->authzid_len));
    else if (good)
        good = tb_scram_name(who, TB_NAME_MAX, s->authzid, &s->authzid_len);
    if (!good)
        return SASL_FAIL_SYNTAX;
    s->trust = trust_of(tb_oauth_check(s->env.cfg, token, tb_io_wall_s(tb_worker_io(s->env.worker)), s->name));
    if (s->trust != TRUST_GOOD) /* for the log */
        memcpy(s->name, s->authzid, sizeof(s->name));
    s->name_len = strlen(s->name);
    return SASL_READY;
}

/* ---- EXTERNAL (RFC 4422 appendix A): TLS has authenticated the client; the message is the authorisation id ---- */

static enum tb_sasl_step take_external(struct tb_sasl *s, struct tb_slice message)
{
    if (message.len > 0 &&
        (memchr(message.ptr, '\0', message.len) || !keep(message, s->authzid, TB_NAME_MAX, &s->authzid_len)))
        return SASL_FAIL_SYNTAX;
    if (!tb_tls_peer_name(s->env.tls, s->env.cfg->tls_client_name, TB_NAME_MAX, s->name))
        return SASL_FAIL_SYNTAX;
    s->name_len = strlen(s->name);
    s->trust = TRUST_GOOD;
    return SASL_READY;
}

/* ---- the table ---- */

static const struct mechanism {
    const char *name;
    int number;
    enum tb_sasl_step (*take)(struct tb_sasl *s, struct tb_slice message);
    bool (*offers)(const struct tb_sasl_env *env);
} mechanisms[] = {
    {"PLAIN", TB_SASL_PLAIN, take_plain, offers_always},
    {"LOGIN", TB_SASL_LOGIN, take_login, offers_always},
    {"SCRAM-SHA-256", TB_SASL_SCRAM, take_scram, offers_scram},
    {"SCRAM-SHA-256-PLUS", TB_SASL_SCRAM_PLUS, take_scram, offers_plus},
    {"OAUTHBEARER", TB_SASL_BEARER, take_token, offers_oauth},
    {"XOAUTH2", TB_SASL_XOAUTH2, take_token, offers_oauth},
    {"EXTERNAL", TB_SASL_EXTERNAL, take_external, offers_external},
};

void tb_sasl_list(const struct tb_sasl_env *env, const char *prefix, struct tb_buf *out)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(mechanisms); i++) {
        if (!mechanisms[i].offers(env))
            continue;
        tb_buf_char(out, ' ');
        tb_buf_str(out, prefix);
        tb_buf_str(out, mechanisms[i].name);
    }
}

static const struct mechanism *mechanism_of(const struct tb_sasl *s)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(mechanisms); i++) {
        if (mechanisms[i].number == s->mechanism)
            return &mechanisms[i];
    }
    return NULL;
}

/* ---- lines ---- */

static enum tb_sasl_step take(struct tb_sasl *s, struct tb_slice message)
{
    const struct mechanism *m = mechanism_of(s);

    if (s->state == STATE_VERIFIER) /* RFC 5802 5: the client has nothing more to say */
        return message.len == 0 ? SASL_DONE : SASL_FAIL_SYNTAX;
    if (s->state == STATE_ERROR) /* RFC 7628 3.2.3: ^A, but any answer will do */
        return SASL_DONE;
    return m && s->state != STATE_OVER && s->state != STATE_READY ? m->take(s, message) : SASL_FAIL_SYNTAX;
}

/* The challenge as a string; "" where there is none. */
static enum tb_sasl_step said(struct tb_sasl *s, enum tb_sasl_step step, const char **challenge)
{
    if (step == SASL_CHALLENGE) {
        tb_buf_char(&s->challenge, '\0');
        if (s->challenge.failed)
            step = SASL_NO_MEMORY;
        else
            *challenge = s->challenge.ptr;
    }
    if (step == SASL_READY)
        s->state = STATE_READY;
    else if (step != SASL_CHALLENGE)
        s->state = STATE_OVER;
    return step;
}

static enum tb_sasl_step decode(struct tb_sasl *s, struct tb_slice text, const char **challenge)
{
    enum tb_sasl_step step = SASL_FAIL_SYNTAX;
    struct tb_buf message;

    s->challenge.len = 0;
    tb_buf_init(&message, MESSAGE_BYTES_MAX);
    if (tb_base64_decode(text, &message) && tb_buf_reserve(&message, 0))
        step = take(s, tb_buf_all(&message));
    if (message.ptr)
        explicit_bzero(message.ptr, message.cap);
    tb_buf_free(&message);
    return said(s, step, challenge);
}

enum tb_sasl_step tb_sasl_begin(struct tb_sasl *s, const struct tb_sasl_env *env, struct tb_slice name,
                                struct tb_slice initial, const char **challenge)
{
    memset(s, 0, sizeof(*s));
    s->env = *env;
    tb_buf_init(&s->text, AUTH_MESSAGE_MAX);
    tb_buf_init(&s->challenge, 2 * CHALLENGE_BYTES_MAX);
    tb_buf_init(&s->gs2, MESSAGE_BYTES_MAX + TB_TLS_BINDING_MAX);
    *challenge = "";
    for (size_t i = 0; i < TB_ARRAY_LEN(mechanisms); i++) {
        if (tb_slice_ieq(name, tb_slice_str(mechanisms[i].name)) && mechanisms[i].offers(env))
            s->mechanism = mechanisms[i].number;
    }
    if (!s->mechanism)
        return SASL_UNKNOWN;
    s->state = s->mechanism == TB_SASL_LOGIN ? STATE_NAME : STATE_MESSAGE;
    if (initial.ptr)
        return decode(s, tb_slice_eq(initial, TB_SLICE("=")) ? TB_SLICE("") : initial, challenge);
    if (s->mechanism == TB_SASL_LOGIN)
        *challenge = "VXNlcm5hbWU6"; /* "Username:" */
    return SASL_CHALLENGE;
}

enum tb_sasl_step tb_sasl_next(struct tb_sasl *s, struct tb_slice line, const char **challenge)
{
    *challenge = "";
    if (tb_slice_eq(line, TB_SLICE("*"))) {
        s->state = STATE_OVER;
        return SASL_CANCELLED;
    }
    return decode(s, line, challenge);
}

/* server-final-message = verifier. Without it the client could not know that we are the one who has its keys. */
static void last_word(const struct tb_sasl *s, enum tb_rc rc, struct tb_buf *out)
{
    bool scram = s->mechanism == TB_SASL_SCRAM || s->mechanism == TB_SASL_SCRAM_PLUS;
    bool token = s->mechanism == TB_SASL_BEARER || s->mechanism == TB_SASL_XOAUTH2;

    if (scram && rc == TB_OK) {
        tb_buf_str(out, "v=");
        tb_base64_encode(tb_slice(s->verifier, sizeof(s->verifier)), out);
    } else if (token && rc == TB_INVALID) {
        tb_oauth_error(s->env.cfg, s->mechanism == TB_SASL_XOAUTH2, out);
    }
}

enum tb_sasl_step tb_sasl_outcome(struct tb_sasl *s, enum tb_rc rc, const char **challenge)
{
    enum tb_sasl_step step = SASL_DONE;
    struct tb_buf message;

    *challenge = "";
    s->challenge.len = 0;
    tb_buf_init(&message, CHALLENGE_BYTES_MAX);
    last_word(s, rc, &message);
    if (message.len > 0) {
        tb_base64_encode(tb_buf_all(&message), &s->challenge);
        s->state = rc == TB_OK ? STATE_VERIFIER : STATE_ERROR;
        step = SASL_CHALLENGE;
    }
    if (message.failed)
        step = SASL_NO_MEMORY;
    tb_buf_free(&message);
    return said(s, step, challenge);
}

static void wipe(struct tb_buf *b)
{
    if (b->ptr)
        explicit_bzero(b->ptr, b->cap);
    tb_buf_free(b);
}

void tb_sasl_wipe(struct tb_sasl *s)
{
    wipe(&s->text);
    wipe(&s->challenge);
    wipe(&s->gs2);
    explicit_bzero(s, sizeof(*s));
}
