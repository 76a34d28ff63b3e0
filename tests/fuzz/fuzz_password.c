/*
 * fuzz_password.c: stored password secrets as an import could bring them: the first line is the secret, the second a
 * password. Whatever is malformed is "no match"; what we make of the password matches it. Secrets that ask for much
 * work are only looked at: their price is the administrator's to pay, and would hide the fuzzer's other finds.
 */
#include "world.h"

#include <ctype.h>

#include "frontends/auth/auth.h"
#include "frontends/auth/password.h"

enum { COST_DIGITS_MAX = 3, BCRYPT_COST_MAX = '5' };

/* A number of more than COST_DIGITS_MAX digits where a cost may stand; costs that are not decimal. */
static bool costly(const char *secret)
{
    static const char *const coded[] = {"$y$", "$gy$", "$7$", "$md5", "$sha1", "$3$", "}_"};
    size_t digits = 0;
    const char *two = strstr(secret, "$2");
    for (size_t i = 0; i < TB_ARRAY_LEN(coded); i++) {
        if (strstr(secret, coded[i]) != NULL)
            return true;
    }
    for (const char *p = secret; *p; p++) {
        digits = isdigit((unsigned char)*p) ? digits + 1 : 0;
        if (digits > COST_DIGITS_MAX && (p[1] == '$' || p[1] == ',' || p[1] == '\0'))
            return true;
    }
    return two != NULL && strlen(two) > 5 && (two[4] != '0' || two[5] > BCRYPT_COST_MAX);
}

static void look(const char *secret)
{
    struct tb_scram_keys keys;
    struct tb_slice password;
    enum tb_secret_scram kind = tb_secret_scram(secret, &keys, &password);
    if (kind == SECRET_KEYS)
        TB_ASSERT(keys.rounds > 0 && keys.rounds <= TB_SCRAM_ROUNDS_MAX && keys.salt_len <= TB_SCRAM_SALT_MAX);
    if (kind == SECRET_PASSWORD)
        TB_ASSERT(password.len < strlen(secret) && tb_secret_cheap(secret) && tb_password_verify(secret, password));
    TB_ASSERT(tb_secret_other(secret) == (kind == SECRET_OTHER && secret[0] != '\0'));
    if (tb_secret_is(secret, "SCRAM-SHA-256"))
        TB_ASSERT(tb_secret_known(secret));
}

/* The cheap one of the schemes that we make: the others' work is a library's. */
static void make(struct tb_slice password)
{
    static const uint8_t salt[16] = {1};
    char secret[TB_SECRET_MAX + 1];
    if (tb_password_hash("PLAIN", password, salt, secret) == TB_OK)
        TB_ASSERT(tb_password_verify(secret, password));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *lf = n > 0 ? memchr(bytes, '\n', n) : NULL;
    size_t len = lf != NULL ? (size_t)(lf - bytes) : n;
    struct tb_slice password = lf != NULL ? tb_slice(lf + 1, n - len - 1) : tb_slice("secret", 6);
    char secret[TB_SECRET_MAX + 1];
    if (len > TB_SECRET_MAX || (len > 0 && memchr(bytes, '\0', len) != NULL))
        return 0;
    if (len > 0)
        memcpy(secret, bytes, len);
    secret[len] = '\0';
    look(secret);
    if (!costly(secret) && password.len <= TB_PASSWORD_MAX && tb_password_verify(secret, password))
        TB_ASSERT(tb_secret_known(secret));
    make(password);
    return 0;
}
