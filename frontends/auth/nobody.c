/*
 * nobody.c: who does not exist has a secret and a salt too, so that nobody learns from answers, or from how long they
 * take, which accounts there are.
 *
 * A name without a login is treated as another account is, of this store's: the one whose name follows, in the
 * directory's order, on letters made of the name with a secret of the store. So such names have schemes, costs and
 * salts of every kind that accounts have, about as often, and each keeps its own over restarts for as long as no
 * account comes or goes beside its stand-in. All ways to write the name of one account look alike, as they do when
 * there is one. Never tells the stand-in's name or key to anybody. Any thread.
 */
#include "frontends/auth/nobody.h"

#include <tambo/admin.h>

#include "engine/crypto/crypto.h"
#include "frontends/config/config.h"

enum { LETTERS = 12, TRIES = 16, SALT_MAX = 64 };

/* In a store without a login: our own scheme and cost. No password has this hash. */
static const char nobodys[] =
    "{SCRAM-SHA-256}32768,AAAAAAAAAAAAAAAAAAAAAA==,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/* The name in lower case, without its detail and the default domain. Returns its bytes. */
static size_t plain_name(const struct tb_config *cfg, const char *name, char text[TB_NAME_MAX])
{
    const char *home = cfg->default_domain ? cfg->default_domain : "";
    const char *at = strrchr(name, '@');
    size_t local = at ? (size_t)(at - name) : strlen(name), n = 0;
    const char *plus = memchr(name, '+', local);

    if (plus)
        local = (size_t)(plus - name);
    if (at && tb_slice_ieq(tb_slice_str(at + 1), tb_slice_str(home)))
        at = NULL;
    for (size_t i = 0; i < local; i++)
        text[n++] = name[i];
    for (; at && *at; at++)
        text[n++] = *at;
    for (size_t i = 0; i < n; i++)
        text[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + ('a' - 'A')) : text[i];
    return n;
}

/* 32 bytes that are the store's and the name's alone. */
static void mark(struct tb_store *store, const struct tb_config *cfg, const char *purpose, const char *name,
                 uint8_t out[TB_SHA256_BYTES])
{
    char text[TB_NAME_MAX];
    size_t n = plain_name(cfg, name, text);
    uint8_t key[32];

    tb_store_secret(store, purpose, key);
    tb_hmac_sha256(key, sizeof(key), text, n, out);
    explicit_bzero(key, sizeof(key));
}

void tb_nobody_secret(struct tb_store *store, const struct tb_config *cfg, const char *name,
                      char secret[TB_SECRET_MAX + 1])
{
    uint8_t of_name[TB_SHA256_BYTES];
    struct tb_identity other = {0};
    char after[TB_NAME_MAX + 1];

    mark(store, cfg, "stand in", name, of_name);
    for (size_t i = 0; i < LETTERS; i++)
        after[i] = (char)('a' + of_name[i] % 26);
    after[LETTERS] = '\0';
    for (int i = 0; i < TRIES && other.secret[0] == '\0'; i++) {
        if (tb_directory_next(store, tb_slice_str(after), &other) == TB_OK)
            memcpy(after, other.name, sizeof(after));
        else
            after[0] = '\0'; /* behind the last comes the first */
    }
    memcpy(secret, nobodys, sizeof(nobodys));
    if (other.secret[0])
        memcpy(secret, other.secret, sizeof(other.secret));
    explicit_bzero(&other, sizeof(other));
}

void tb_nobody_salt(struct tb_store *store, const struct tb_config *cfg, const char *name, uint8_t *salt, size_t len)
{
    uint8_t bytes[2 * TB_SHA256_BYTES];

    TB_ASSERT(len <= SALT_MAX);
    mark(store, cfg, "scram", name, bytes);
    mark(store, cfg, "scram, more", name, bytes + TB_SHA256_BYTES);
    memcpy(salt, bytes, len);
}
