/*
 * login.c: one attempt to log in, from name and password, or a SASL exchange, to an identity.
 *
 * Says the same and works as long for a name that does not exist: such a password is verified against the secret of an
 * account that stands in for it (nobody.c), and the outcome is ignored. Never runs the caller's done inside
 * tb_login_start, never on another thread than the caller's. The password is wiped before done.
 *
 * States: start -> (throttled | too many | cheap: verified at once | offloaded -> hashed) -> finish -> (upgraded) ->
 * posted to ourselves.
 *
 * Who has authenticated may act for another account only if `master_users` names him (RFC 4422 2: the authorisation
 * identity); to all others it is the same whether that account exists. A password whose secret is not of the configured
 * scheme is stored anew, if so configured, unless the secret has changed meanwhile.
 */
#include "frontends/auth/auth.h"
#include "frontends/auth/nobody.h"
#include "frontends/auth/password.h"
#include "frontends/auth/sasl.h"
#include "frontends/auth/throttle.h"

#include <tambo/admin.h>

#include "frontends/config/config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

enum { HASHES_MAX = 256 }; /* under way or waiting for a helper, in the whole process; more are told to try later */

static _Atomic unsigned hashes;

/* The name as it may stand in a log line: no byte of it can end the field or begin another. */
static void log_failure(const struct tb_login *l, const char *reason)
{
    char name[TB_NAME_MAX + 1];
    size_t i;

    for (i = 0; l->name[i]; i++) {
        unsigned char c = (unsigned char)l->name[i];

        name[i] = c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f ? '?' : (char)c;
    }
    name[i] = '\0';
    tb_log(TB_LOG_WARN, "auth failed proto=%s user=%s rip=%s reason=%s", l->proto, name, l->peer, reason);
}

/* The account that failures are counted for: the same whichever way its name was written. */
static struct tb_slice counted_name(const struct tb_login *l)
{
    return tb_slice_str(l->known ? l->identity.name : l->name);
}

/* The answer is known: wipe, then done from the loop. */
static void answer(struct tb_login *l, enum tb_rc rc)
{
    struct tb_io *io = tb_worker_io(l->worker);

    explicit_bzero(l->password, sizeof(l->password));
    l->password_len = 0;
    explicit_bzero(l->identity.secret, sizeof(l->identity.secret));
    explicit_bzero(l->fresh, sizeof(l->fresh));
    if (rc != TB_OK)
        memset(&l->identity, 0, sizeof(l->identity));
    l->op.rc = rc;
    tb_io_post(io, io, &l->op);
}

static struct tb_throttle_limits limits_of(const struct tb_login *l)
{
    return (struct tb_throttle_limits){.account = l->cfg->login_failures_account,
                                       .network = l->cfg->login_failures_network};
}

/* Is it one try too many? Then it is answered, without a word about what it was. */
static bool throttled(struct tb_login *l)
{
    struct tb_throttle_limits limits = limits_of(l);

    if (!tb_throttle_blocked(&limits, l->peer, counted_name(l), tb_io_now_ns(tb_worker_io(l->worker))))
        return false;
    log_failure(l, "throttled");
    answer(l, TB_BUSY);
    return true;
}

static void count_failure(const struct tb_login *l)
{
    struct tb_throttle_limits limits = limits_of(l);

    tb_throttle_failed(&limits, l->peer, counted_name(l), tb_io_now_ns(tb_worker_io(l->worker)));
}

static bool is_master(const struct tb_login *l)
{
    for (char **m = l->cfg->master_users; m && *m; m++) {
        if (tb_slice_ieq(tb_slice_str(*m), tb_slice_str(l->identity.name)))
            return true;
    }
    return false;
}

/* authorize: the session's account, if it is to be another than the one that authenticated. */
static enum tb_rc authorize(struct tb_login *l)
{
    struct tb_identity other;
    enum tb_rc rc;

    if (l->authzid[0] == '\0')
        return TB_OK;
    rc = tb_name_resolve(tb_worker_store(l->worker), l->cfg, tb_slice_str(l->authzid), &other, NULL);
    if (rc == TB_OK && other.id.acct == l->identity.id.acct && other.id.shard == l->identity.id.shard)
        return TB_OK;
    if (!is_master(l))
        rc = TB_INVALID;
    if (rc == TB_OK) {
        tb_log(TB_LOG_INFO, "login by master proto=%s master=%s user=%s rip=%s", l->proto, l->identity.name, other.name,
               l->peer);
        explicit_bzero(&l->identity, sizeof(l->identity));
        l->identity = other;
    }
    explicit_bzero(&other, sizeof(other));
    return rc;
}

static void stored(struct tb_op *op)
{
    struct tb_login *l = op->user;

    if (op->rc != TB_OK)
        tb_log(TB_LOG_WARN, "the password's scheme was not changed user=%s: %s", l->identity.name, tb_rc_text(op->rc));
    answer(l, TB_OK);
}

/* store_fresh: the new secret in place of the one that was verified; true: stored will be called. */
static bool store_fresh(struct tb_login *l)
{
    struct tb_identity now;
    bool same;

    if (!l->fresh[0] || tb_directory_find(tb_worker_store(l->worker), tb_slice_str(l->identity.name), &now) != TB_OK)
        return false;
    same = strcmp(now.secret, l->identity.secret) == 0;
    explicit_bzero(&now, sizeof(now));
    if (!same)
        return false;
    l->hash = (struct tb_op){.done = stored, .user = l};
    tb_account_secret(l->worker, tb_slice_str(l->identity.name), tb_slice_str(l->fresh), &l->hash);
    explicit_bzero(l->fresh, sizeof(l->fresh));
    return true;
}

/* Somebody else vouches for the name, or does not. */
static bool is_trusted(const struct tb_login *l)
{
    return l->sasl && l->sasl->trust != TRUST_NOBODY;
}

static void passed(struct tb_login *l)
{
    if (authorize(l) != TB_OK) {
        count_failure(l);
        log_failure(l, "authorization");
        l->refusal = REFUSED_AUTHORIZATION;
        answer(l, TB_INVALID);
        return;
    }
    tb_throttle_passed(l->peer, counted_name(l), tb_io_now_ns(tb_worker_io(l->worker)));
    if (!store_fresh(l))
        answer(l, TB_OK);
}

static const char *why(const struct tb_login *l)
{
    if (is_trusted(l) && l->sasl->trust == TRUST_EXPIRED)
        return "expired";
    if (is_trusted(l) && l->sasl->trust == TRUST_BAD)
        return "token";
    return !l->known ? "unknown" : l->sasl && l->sasl->spoilt ? "binding" : "password";
}

/* Others may have failed while this one was looked at: of all that began together no more count than one by one. */
static void finish(struct tb_login *l)
{
    if (throttled(l))
        return;
    if (l->known && l->match) {
        passed(l);
        return;
    }
    if (l->starved) {
        log_failure(l, "memory");
        answer(l, TB_BUSY);
        return;
    }
    count_failure(l);
    if (is_trusted(l) && l->sasl->trust == TRUST_EXPIRED)
        l->refusal = REFUSED_EXPIRED;
    if (is_trusted(l) && l->sasl->trust == TRUST_GOOD) /* it is his name: he learns nothing of others */
        l->refusal = REFUSED_NO_ACCOUNT;
    log_failure(l, why(l));
    answer(l, TB_INVALID);
}

/* ---- verifying ---- */

static void verify_password(struct tb_login *l)
{
    struct tb_slice password = tb_slice(l->password, l->password_len);

    errno = 0;
    l->match = tb_password_verify(l->identity.secret, password);
    l->starved = !l->match && errno == ENOMEM; /* the password was not looked at: nobody is to be told it is wrong */
    if (l->match && l->known && l->upgrade &&
        tb_password_hash(l->cfg->password_scheme, password, l->salt, l->fresh) != TB_OK)
        l->fresh[0] = '\0'; /* bcrypt takes no more than 72 bytes, say */
}

/* SCRAM: the keys are there, or are made of the password, or of nothing at all when the account has neither. */
static void verify_proof(struct tb_login *l)
{
    struct tb_identity nobody = {0};
    struct tb_slice password = TB_SLICE("");
    struct tb_scram_keys keys;
    struct tb_sasl *s = l->sasl;
    enum tb_secret_scram kind;
    bool proven;

    kind = tb_sasl_keys(s, l->known ? &l->identity : &nobody, l->name, &keys, &password);
    if (!l->known && tb_secret_scram(l->identity.secret, &keys, &password) == SECRET_KEYS)
        kind = SECRET_KEYS; /* as much work as for those who are known */
    if (kind != SECRET_KEYS && !tb_scram_keys_derive(&keys, password)) {
        l->starved = true;
        return;
    }
    proven = tb_scram_check(&keys, tb_buf_all(&s->text), s->proof, s->verifier);
    l->match = proven && l->known && kind != SECRET_OTHER && !s->spoilt;
    explicit_bzero(&keys, sizeof(keys));
}

static bool is_scram(const struct tb_login *l)
{
    return l->sasl && (l->sasl->mechanism == TB_SASL_SCRAM || l->sasl->mechanism == TB_SASL_SCRAM_PLUS);
}

static bool cheap(const struct tb_login *l)
{
    struct tb_scram_keys keys;
    struct tb_slice password;
    bool keyed;

    if (!is_scram(l))
        return !l->upgrade && tb_secret_cheap(l->identity.secret);
    keyed = tb_secret_scram(l->identity.secret, &keys, &password) == SECRET_KEYS;
    explicit_bzero(&keys, sizeof(keys));
    return keyed;
}

static void verify(struct tb_login *l)
{
    if (is_scram(l))
        verify_proof(l);
    else
        verify_password(l);
}

static void hash_work(struct tb_op *op)
{
    verify(op->user);
}

static void hash_done(struct tb_op *op)
{
    (void)atomic_fetch_sub(&hashes, 1);
    finish(op->user);
}

/* ---- starting ---- */

static bool take_name(struct tb_slice from, char to[TB_NAME_MAX + 1])
{
    size_t len = from.len < TB_NAME_MAX ? from.len : TB_NAME_MAX;

    for (size_t i = 0; i < len; i++)
        to[i] = from.ptr[i] ? from.ptr[i] : '?';
    to[len] = '\0';
    return from.len <= TB_NAME_MAX;
}

/* Copy what will be needed after the caller's buffers are gone. false: longer than any that could match. */
static bool take(struct tb_login *l, const char *peer, struct tb_slice name, struct tb_slice password)
{
    bool fits = take_name(name, l->name);

    (void)snprintf(l->peer, sizeof(l->peer), "%s", peer);
    l->password_len = 0;
    if (!fits || password.len > TB_PASSWORD_MAX)
        return false;
    if (password.len > 0)
        memcpy(l->password, password.ptr, password.len);
    l->password_len = password.len;
    return true;
}

static void clear(struct tb_login *l, struct tb_worker *w, const struct tb_config *cfg, const char *proto)
{
    l->worker = w;
    l->cfg = cfg;
    l->proto = proto;
    l->sasl = NULL;
    l->authzid[0] = l->fresh[0] = '\0';
    l->refusal = REFUSED_CREDENTIALS;
    l->known = l->match = l->starved = l->upgrade = false;
    memset(&l->identity, 0, sizeof(l->identity));
}

static void start(struct tb_login *l, bool fits)
{
    struct tb_store *store = tb_worker_store(l->worker);
    struct tb_io *io = tb_worker_io(l->worker);
    uint8_t key[32];

    tb_store_secret(store, "throttle", key);
    tb_throttle_key(key);
    if (fits && tb_name_resolve(store, l->cfg, tb_slice_str(l->name), &l->identity, NULL) == TB_OK)
        l->known = l->identity.secret[0] != '\0' || is_trusted(l);
    if (throttled(l))
        return;
    if (is_trusted(l)) {
        l->match = l->sasl->trust == TRUST_GOOD;
        finish(l);
        return;
    }
    if (!l->known)
        tb_nobody_secret(store, l->cfg, l->name, l->identity.secret);
    l->upgrade = !is_scram(l) && l->cfg->password_upgrade && !tb_secret_is(l->identity.secret, l->cfg->password_scheme);
    if (l->upgrade)
        tb_io_random(io, l->salt, sizeof(l->salt));
    if (cheap(l)) {
        verify(l);
        finish(l);
        return;
    }
    if (atomic_fetch_add(&hashes, 1) >= HASHES_MAX) {
        (void)atomic_fetch_sub(&hashes, 1);
        log_failure(l, "busy");
        answer(l, TB_BUSY);
        return;
    }
    l->hash = (struct tb_op){.done = hash_done, .user = l};
    tb_io_offload(io, &l->hash, hash_work);
}

void tb_login_start(struct tb_worker *w, const struct tb_config *cfg, const char *proto, const char *peer,
                    struct tb_slice name, struct tb_slice password, struct tb_login *login)
{
    clear(login, w, cfg, proto);
    start(login, take(login, peer, name, password));
}

void tb_login_sasl(struct tb_sasl *s, const char *proto, const char *peer, struct tb_login *login)
{
    bool fits;

    clear(login, s->env.worker, s->env.cfg, proto);
    login->sasl = s;
    fits = take(login, peer, tb_slice(s->name, s->name_len), tb_slice(s->password, s->password_len));
    fits = take_name(tb_slice(s->authzid, s->authzid_len), login->authzid) && fits;
    explicit_bzero(s->password, sizeof(s->password));
    s->password_len = 0;
    start(login, fits);
}
