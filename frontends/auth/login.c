/*
 * login.c: one attempt to log in, from name and password to an identity.
 *
 * Says the same and works as long for a name that does not exist: such a password is verified against the secret that
 * matched last (of whatever scheme and cost this store's accounts have), and the outcome is ignored. Never runs the
 * caller's done inside tb_login_start, never on another thread than the caller's. The password is wiped before done.
 *
 * States: start -> (throttled | cheap secret: verified at once | offloaded -> hashed) -> finish -> posted to ourselves.
 */
#include "frontends/auth/auth.h"
#include "frontends/auth/password.h"
#include "frontends/auth/throttle.h"

#include <pthread.h>
#include <errno.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Until somebody has logged in: our default scheme. No password has this hash. */
static char last_matched[TB_SECRET_MAX + 1] = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$"
                                              "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

static void stand_in(char secret[TB_SECRET_MAX + 1])
{
    (void)pthread_mutex_lock(&lock); /* a plain mutex of our own cannot fail */
    memcpy(secret, last_matched, sizeof(last_matched));
    (void)pthread_mutex_unlock(&lock);
}

static void remember(const char secret[TB_SECRET_MAX + 1])
{
    (void)pthread_mutex_lock(&lock);
    memcpy(last_matched, secret, sizeof(last_matched));
    (void)pthread_mutex_unlock(&lock);
}

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
    if (rc != TB_OK)
        memset(&l->identity, 0, sizeof(l->identity));
    l->op.rc = rc;
    tb_io_post(io, io, &l->op);
}

static void finish(struct tb_login *l)
{
    uint64_t now = tb_io_now_ns(tb_worker_io(l->worker));

    if (l->known && l->match) {
        remember(l->identity.secret);
        tb_throttle_passed(l->peer, counted_name(l), now);
        answer(l, TB_OK);
        return;
    }
    if (l->starved) {
        log_failure(l, "memory");
        answer(l, TB_BUSY);
        return;
    }
    tb_throttle_failed(l->peer, counted_name(l), now);
    log_failure(l, l->known ? "password" : "unknown");
    answer(l, TB_INVALID);
}

static void verify(struct tb_login *l)
{
    errno = 0;
    l->match = tb_password_verify(l->identity.secret, tb_slice(l->password, l->password_len));
    l->starved = !l->match && errno == ENOMEM; /* the password was not looked at: nobody is to be told it is wrong */
}

static void hash_work(struct tb_op *op)
{
    verify(op->user);
}

static void hash_done(struct tb_op *op)
{
    finish(op->user);
}

/* Copy what will be needed after the caller's buffers are gone. false: longer than any that could match. */
static bool take(struct tb_login *l, const char *peer, struct tb_slice name, struct tb_slice password)
{
    size_t name_len = name.len < TB_NAME_MAX ? name.len : TB_NAME_MAX;

    (void)snprintf(l->peer, sizeof(l->peer), "%s", peer);
    for (size_t i = 0; i < name_len; i++)
        l->name[i] = name.ptr[i] ? name.ptr[i] : '?';
    l->name[name_len] = '\0';
    l->password_len = 0;
    if (name.len > TB_NAME_MAX || password.len > TB_PASSWORD_MAX)
        return false;
    if (password.len > 0)
        memcpy(l->password, password.ptr, password.len);
    l->password_len = password.len;
    return true;
}

void tb_login_start(struct tb_worker *w, const struct tb_config *cfg, const char *proto, const char *peer,
                    struct tb_slice name, struct tb_slice password, struct tb_login *login)
{
    struct tb_io *io = tb_worker_io(w);
    uint8_t key[32];
    bool fits;

    login->worker = w;
    login->proto = proto;
    login->known = false;
    login->match = login->starved = false;
    memset(&login->identity, 0, sizeof(login->identity));
    fits = take(login, peer, name, password);
    tb_store_secret(tb_worker_store(w), "throttle", key);
    tb_throttle_key(key);
    if (fits && tb_name_resolve(tb_worker_store(w), cfg, name, &login->identity, NULL) == TB_OK)
        login->known = login->identity.secret[0] != '\0';
    if (tb_throttle_blocked(login->peer, counted_name(login), tb_io_now_ns(io))) {
        log_failure(login, "throttled");
        answer(login, TB_BUSY);
        return;
    }
    if (!login->known)
        stand_in(login->identity.secret);
    if (tb_secret_cheap(login->identity.secret)) {
        verify(login);
        finish(login);
        return;
    }
    login->hash.done = hash_done;
    login->hash.user = login;
    tb_io_offload(io, &login->hash, hash_work);
}
