/*
 * password.c: password secrets, "{SCHEME}hash": verifying the schemes that others have stored, making new ones.
 *
 * Never logs, never keeps a password: copies are wiped before return. Comparisons take the same time whatever differs.
 * What a secret says is an administrator's word, not a stranger's, but a malformed one is only "no match".
 *
 * The schemes and their encodings are Dovecot's, so that accounts can move here unchanged. Any thread.
 * RFC 9106 (Argon2), RFC 8018 (PBKDF2), RFC 2307 ({CRYPT}, {SHA}, {SSHA}), RFC 5802 (SCRAM), RFC 2195 (CRAM-MD5).
 */
#include "frontends/auth/auth.h"
#include "frontends/auth/password.h"
#include "frontends/auth/scram.h"

#include <tambo/message.h>

#include <argon2.h>
#include <crypt.h>

#include "engine/crypto/crypto.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ARGON2_KIB = 19 << 10, /* 19 MiB, two passes, one lane: OWASP's least for interactive logins */
    ARGON2_PASSES = 2,
    ARGON2_LANES = 1,
    ARGON2_BYTES = 32,
    CRYPT_ROUNDS = 100000,
    BCRYPT_COST = 12,
    BCRYPT_BYTES_MAX = 72, /* bcrypt looks at no more of a password */
    SALT_BYTES = 16,
    PBKDF2_BYTES = 20,
    SHA1_BYTES = 20,
    ROUNDS_MAX = 10000000,
    RAW_BYTES_MAX = TB_SECRET_MAX,
};

enum encoding { ENC_NONE, ENC_HEX, ENC_BASE64 };
enum digest { DIGEST_MD5, DIGEST_SHA1, DIGEST_SHA256, DIGEST_SHA512 };

struct scheme {
    const char *name;
    bool (*verify)(const struct scheme *s, struct tb_slice secret, struct tb_slice password);
    enum encoding encoding; /* unless the secret names another */
    enum digest digest;
    const char *prefix; /* how a crypt(3) or Argon2 hash begins; "" any */
};

/* ---- digests ---- */

static const size_t digest_bytes[] = {16, 20, TB_SHA256_BYTES, 64};

static void digest(enum digest which, const uint8_t *ptr, size_t len, uint8_t out[64])
{
    struct tb_sha256 h;

    switch (which) {
    case DIGEST_MD5:
        tb_md5(ptr, len, out);
        break;
    case DIGEST_SHA1:
        tb_sha1(ptr, len, out);
        break;
    case DIGEST_SHA256:
        tb_sha256_init(&h);
        tb_sha256_update(&h, ptr, len);
        tb_sha256_final(&h, out);
        break;
    case DIGEST_SHA512:
        tb_sha512(ptr, len, out);
        break;
    }
}

/* secret is digest(password salt) followed by the salt. */
static bool verify_digest(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    size_t size = digest_bytes[s->digest];
    uint8_t text[TB_PASSWORD_MAX + RAW_BYTES_MAX], sum[64];
    struct tb_slice salt;
    bool same;

    if (secret.len < size || password.len > TB_PASSWORD_MAX)
        return false;
    salt = tb_slice_sub(secret, size, SIZE_MAX);
    if (password.len > 0)
        memcpy(text, password.ptr, password.len);
    memcpy(text + password.len, salt.ptr, salt.len);
    digest(s->digest, text, password.len + salt.len, sum);
    same = tb_secret_equal(sum, size, secret.ptr, size);
    explicit_bzero(text, sizeof(text));
    return same;
}

static bool verify_plain_digest(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    return secret.len == digest_bytes[s->digest] && verify_digest(s, secret, password);
}

static bool verify_salted_digest(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    return secret.len > digest_bytes[s->digest] && verify_digest(s, secret, password);
}

static bool verify_plain(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    (void)s;
    return tb_secret_equal(secret.ptr, secret.len, password.ptr, password.len);
}

/* ---- crypt(3), Argon2, PBKDF2 ---- */

/* A password as a C string, for libraries that need one. false if it does not fit or holds a NUL. */
static bool c_string(struct tb_slice s, char out[TB_PASSWORD_MAX + 1])
{
    if (s.len > TB_PASSWORD_MAX || (s.len > 0 && memchr(s.ptr, '\0', s.len)))
        return false;
    if (s.len > 0)
        memcpy(out, s.ptr, s.len);
    out[s.len] = '\0';
    return true;
}

/* crypt(3) of password under setting, or false, errno ENOMEM if that is why. (Yescrypt asks for huge pages first: an
 * ENOMEM of its is left behind by what went well.) */
static bool crypt_text(const char *password, const char *setting, char out[TB_SECRET_MAX + 1])
{
    struct crypt_data *data = calloc(1, sizeof(*data)); /* 32 KiB: too much for a helper's stack */
    const char *text = data ? crypt_r(password, setting, data) : NULL;
    bool ok = text && text[0] != '*' && strlen(text) <= TB_SECRET_MAX;

    if (ok) {
        memcpy(out, text, strlen(text) + 1);
        errno = 0;
    }
    if (data)
        explicit_bzero(data, sizeof(*data));
    free(data);
    return ok;
}

static bool verify_crypt(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    char text[TB_PASSWORD_MAX + 1], setting[TB_SECRET_MAX + 1], out[TB_SECRET_MAX + 1];
    bool same = false;

    if (secret.len > TB_SECRET_MAX || memchr(secret.ptr, '\0', secret.len))
        return false;
    memcpy(setting, secret.ptr, secret.len);
    setting[secret.len] = '\0';
    if (strncmp(setting, s->prefix, strlen(s->prefix)) == 0 && c_string(password, text) &&
        crypt_text(text, setting, out))
        same = tb_secret_equal(out, strlen(out), setting, secret.len);
    explicit_bzero(text, sizeof(text));
    return same;
}

static bool verify_argon2(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    argon2_type type = strcmp(s->name, "ARGON2ID") == 0 ? Argon2_id : Argon2_i;
    char text[TB_SECRET_MAX + 1];
    int result;

    if (secret.len > TB_SECRET_MAX || password.len > TB_PASSWORD_MAX)
        return false;
    memcpy(text, secret.ptr, secret.len);
    text[secret.len] = '\0';
    if (strncmp(text, s->prefix, strlen(s->prefix)) != 0)
        return false;
    result = argon2_verify(text, password.len ? password.ptr : "", password.len, type);
    errno = result == ARGON2_MEMORY_ALLOCATION_ERROR ? ENOMEM : 0;
    return result == ARGON2_OK;
}

/* Cut s at the next sign: what is before it, leaving what is behind. */
static struct tb_slice cut(struct tb_slice *s, char sign)
{
    const char *end = s->len > 0 ? memchr(s->ptr, sign, s->len) : NULL;
    size_t n = end ? (size_t)(end - s->ptr) : s->len;
    struct tb_slice part = tb_slice_sub(*s, 0, n);

    *s = tb_slice_sub(*s, n + 1, SIZE_MAX);
    return part;
}

/* "$1$salt$rounds$hex": PBKDF2 with HMAC-SHA-1, 20 bytes. */
static bool verify_pbkdf2(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    struct tb_slice salt, rounds, hex;
    uint8_t sum[PBKDF2_BYTES];
    char text[2 * PBKDF2_BYTES + 1];
    uint64_t n;

    (void)s;
    if (secret.len < 3 || memcmp(secret.ptr, "$1$", 3) != 0)
        return false;
    secret = tb_slice_sub(secret, 3, SIZE_MAX);
    salt = cut(&secret, '$');
    rounds = cut(&secret, '$');
    hex = secret;
    if (!tb_slice_u64(rounds, ROUNDS_MAX, &n) || n == 0 || !tb_pbkdf2(1, password, salt, (uint32_t)n, sum, sizeof(sum)))
        return false;
    tb_hex(sum, sizeof(sum), text);
    for (size_t i = 0; i < hex.len && hex.len == 2 * PBKDF2_BYTES; i++) { /* either case; no secret in the case */
        if (hex.ptr[i] >= 'A' && hex.ptr[i] <= 'F')
            text[i] = text[i] >= 'a' ? (char)(text[i] - ('a' - 'A')) : text[i];
    }
    return tb_secret_equal(text, 2 * PBKDF2_BYTES, hex.ptr, hex.len);
}

/* ---- what servers of challenges keep ---- */

/* A password that SASLprep could change; some servers have made their keys without it. */
static bool has_other_than_ascii(struct tb_slice password)
{
    for (size_t i = 0; i < password.len; i++) {
        if ((unsigned char)password.ptr[i] >= 0x80)
            return true;
    }
    return false;
}

static bool same_keys(const struct tb_scram_keys *kept, struct tb_slice password,
                      bool (*derive)(struct tb_scram_keys *, struct tb_slice))
{
    struct tb_scram_keys made = *kept;
    bool same = false;

    if (derive(&made, password))
        same = tb_secret_equal(made.stored, sizeof(made.stored), kept->stored, sizeof(kept->stored));
    else
        errno = ENOMEM;
    explicit_bzero(&made, sizeof(made));
    return same;
}

/* The keys that SCRAM's server keeps verify a password as well as a proof. */
static bool verify_scram(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    struct tb_scram_keys kept;

    (void)s;
    return tb_scram_keys_read(secret, &kept) &&
           (same_keys(&kept, password, tb_scram_keys_derive) ||
            (has_other_than_ascii(password) && same_keys(&kept, password, tb_scram_keys_derive_raw)));
}

/* StoredKey of SCRAM-SHA-1 (RFC 5802 3). */
static bool scram_sha1(struct tb_slice password, struct tb_slice salt, uint32_t rounds, uint8_t stored[SHA1_BYTES])
{
    uint8_t salted[SHA1_BYTES], client[SHA1_BYTES];
    bool ok = tb_pbkdf2(1, password, salt, rounds, salted, sizeof(salted));

    if (ok) {
        tb_hmac_sha1(salted, sizeof(salted), "Client Key", 10, client);
        tb_sha1(client, sizeof(client), stored);
    }
    explicit_bzero(salted, sizeof(salted));
    explicit_bzero(client, sizeof(client));
    return ok;
}

/* "rounds,salt,StoredKey,ServerKey": logging in with a password only, nobody offers SCRAM-SHA-1 any more. */
static bool verify_scram_sha1(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    struct tb_slice rounds = cut(&secret, ','), salt = cut(&secret, ','), stored = cut(&secret, ',');
    struct tb_buf salt_raw, stored_raw, prepared;
    uint8_t made[SHA1_BYTES];
    bool same = false, normal;
    uint64_t n;

    (void)s;
    tb_buf_init(&salt_raw, RAW_BYTES_MAX);
    tb_buf_init(&stored_raw, SHA1_BYTES);
    tb_buf_init(&prepared, 4 * TB_PASSWORD_MAX);
    if (tb_slice_u64(rounds, ROUNDS_MAX, &n) && n > 0 && tb_base64_decode(salt, &salt_raw) && salt_raw.len > 0 &&
        tb_base64_decode(stored, &stored_raw)) {
        normal = tb_utf8_saslprep(password, &prepared);
        if (normal && scram_sha1(tb_buf_all(&prepared), tb_buf_all(&salt_raw), (uint32_t)n, made))
            same = tb_secret_equal(made, sizeof(made), stored_raw.ptr, stored_raw.len);
        if (!same && (!normal || has_other_than_ascii(password)) &&
            scram_sha1(password, tb_buf_all(&salt_raw), (uint32_t)n, made))
            same = tb_secret_equal(made, sizeof(made), stored_raw.ptr, stored_raw.len);
    }
    if (prepared.ptr)
        explicit_bzero(prepared.ptr, prepared.cap);
    explicit_bzero(made, sizeof(made));
    tb_buf_free(&salt_raw);
    tb_buf_free(&stored_raw);
    tb_buf_free(&prepared);
    return same;
}

/* What a server of CRAM-MD5 keeps: HMAC-MD5 when it has taken the password alone. */
static bool verify_cram_md5(const struct scheme *s, struct tb_slice secret, struct tb_slice password)
{
    uint8_t made[32];
    bool same;

    (void)s;
    tb_hmac_md5_state(password.ptr, password.len, made);
    same = tb_secret_equal(made, sizeof(made), secret.ptr, secret.len);
    explicit_bzero(made, sizeof(made));
    return same;
}

/* ---- the table ---- */

static const struct scheme schemes[] = {
    {"PLAIN", verify_plain, ENC_NONE, 0, ""},
    {"CLEARTEXT", verify_plain, ENC_NONE, 0, ""},
    {"CLEAR", verify_plain, ENC_NONE, 0, ""},
    {"ARGON2ID", verify_argon2, ENC_NONE, 0, "$argon2id$"},
    {"ARGON2I", verify_argon2, ENC_NONE, 0, "$argon2i$"},
    {"CRYPT", verify_crypt, ENC_NONE, 0, ""},
    {"DES-CRYPT", verify_crypt, ENC_NONE, 0, ""},
    {"MD5-CRYPT", verify_crypt, ENC_NONE, 0, "$1$"},
    {"MD5", verify_crypt, ENC_NONE, 0, "$1$"},
    {"SHA256-CRYPT", verify_crypt, ENC_NONE, 0, "$5$"},
    {"SHA512-CRYPT", verify_crypt, ENC_NONE, 0, "$6$"},
    {"BLF-CRYPT", verify_crypt, ENC_NONE, 0, "$2"},
    {"SCRAM-SHA-256", verify_scram, ENC_NONE, 0, ""},
    {"SCRAM-SHA-1", verify_scram_sha1, ENC_NONE, 0, ""},
    {"CRAM-MD5", verify_cram_md5, ENC_HEX, 0, ""},
    {"HMAC-MD5", verify_cram_md5, ENC_HEX, 0, ""},
    {"PBKDF2", verify_pbkdf2, ENC_NONE, 0, ""},
    {"SSHA", verify_salted_digest, ENC_BASE64, DIGEST_SHA1, ""},
    {"SSHA256", verify_salted_digest, ENC_BASE64, DIGEST_SHA256, ""},
    {"SSHA512", verify_salted_digest, ENC_BASE64, DIGEST_SHA512, ""},
    {"SMD5", verify_salted_digest, ENC_BASE64, DIGEST_MD5, ""},
    {"SHA", verify_plain_digest, ENC_BASE64, DIGEST_SHA1, ""},
    {"SHA1", verify_plain_digest, ENC_BASE64, DIGEST_SHA1, ""},
    {"SHA256", verify_plain_digest, ENC_BASE64, DIGEST_SHA256, ""},
    {"SHA512", verify_plain_digest, ENC_BASE64, DIGEST_SHA512, ""},
    {"LDAP-MD5", verify_plain_digest, ENC_BASE64, DIGEST_MD5, ""},
    {"PLAIN-MD5", verify_plain_digest, ENC_HEX, DIGEST_MD5, ""},
};

static const struct scheme *scheme_named(struct tb_slice name)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(schemes); i++) {
        if (tb_slice_ieq(name, tb_slice_str(schemes[i].name)))
            return &schemes[i];
    }
    return NULL;
}

/* Take "{SCHEME[.ENCODING]}" off the front of *s. NULL if it is missing or unknown. */
static const struct scheme *take_scheme(struct tb_slice *s, enum encoding *encoding)
{
    const char *end = s->len > 0 && s->ptr[0] == '{' ? memchr(s->ptr, '}', s->len) : NULL;
    struct tb_slice name, suffix;
    const struct scheme *found;
    const char *dot;

    if (!end)
        return NULL;
    name = tb_slice(s->ptr + 1, (size_t)(end - s->ptr) - 1);
    dot = memchr(name.ptr, '.', name.len);
    suffix = dot ? tb_slice_sub(name, (size_t)(dot - name.ptr) + 1, SIZE_MAX) : TB_SLICE("");
    found = scheme_named(dot ? tb_slice(name.ptr, (size_t)(dot - name.ptr)) : name);
    if (!found)
        return NULL;
    if (!dot)
        *encoding = found->encoding;
    else if (tb_slice_ieq(suffix, TB_SLICE("HEX")))
        *encoding = ENC_HEX;
    else if (tb_slice_ieq(suffix, TB_SLICE("B64")) || tb_slice_ieq(suffix, TB_SLICE("BASE64")))
        *encoding = ENC_BASE64;
    else
        return NULL;
    *s = tb_slice_sub(*s, (size_t)(end - s->ptr) + 1, SIZE_MAX);
    /* An unsalted digest of twice its length is hex, whatever its scheme's custom. */
    if (found->verify == verify_plain_digest && s->len == 2 * digest_bytes[found->digest])
        *encoding = ENC_HEX;
    return found;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool decode_hex(struct tb_slice text, struct tb_buf *out)
{
    if (text.len % 2 != 0)
        return false;
    for (size_t i = 0; i < text.len; i += 2) {
        int high = hex_value(text.ptr[i]), low = hex_value(text.ptr[i + 1]);

        if (high < 0 || low < 0)
            return false;
        tb_buf_char(out, (char)(high << 4 | low));
    }
    return !out->failed;
}

static bool decode(struct tb_slice text, enum encoding encoding, struct tb_buf *out)
{
    switch (encoding) {
    case ENC_HEX:
        return decode_hex(text, out);
    case ENC_BASE64:
        return tb_base64_decode(text, out);
    case ENC_NONE:
        break;
    }
    tb_buf_slice(out, text);
    return !out->failed;
}

bool tb_password_verify(const char *secret, struct tb_slice password)
{
    struct tb_slice rest = tb_slice_str(secret);
    enum encoding encoding = ENC_NONE;
    const struct scheme *s = take_scheme(&rest, &encoding);
    struct tb_buf raw;
    bool same;

    if (!s || (rest.len == 0 && s->verify != verify_plain))
        return false;
    tb_buf_init(&raw, RAW_BYTES_MAX);
    same = decode(rest, encoding, &raw) && tb_buf_reserve(&raw, 0) && s->verify(s, tb_buf_all(&raw), password);
    if (raw.ptr)
        explicit_bzero(raw.ptr, raw.cap);
    tb_buf_free(&raw);
    return same;
}

bool tb_secret_known(const char *secret)
{
    struct tb_slice rest = tb_slice_str(secret);
    enum encoding encoding;

    return take_scheme(&rest, &encoding) != NULL;
}

bool tb_secret_cheap(const char *secret)
{
    struct tb_slice rest = tb_slice_str(secret);
    enum encoding encoding;
    const struct scheme *s = take_scheme(&rest, &encoding);

    return !s || s->verify == verify_plain;
}

enum tb_secret_scram tb_secret_scram(const char *secret, struct tb_scram_keys *keys, struct tb_slice *password)
{
    struct tb_slice rest = tb_slice_str(secret);
    enum encoding encoding = ENC_NONE;
    const struct scheme *s = take_scheme(&rest, &encoding);

    if (s && s->verify == verify_plain && encoding == ENC_NONE) {
        *password = rest;
        return SECRET_PASSWORD;
    }
    return s && s->verify == verify_scram && tb_scram_keys_read(rest, keys) ? SECRET_KEYS : SECRET_OTHER;
}

bool tb_secret_clear(const char *secret, struct tb_slice *password)
{
    struct tb_scram_keys keys;
    bool clear = tb_secret_scram(secret, &keys, password) == SECRET_PASSWORD;

    explicit_bzero(&keys, sizeof(keys));
    return clear;
}

bool tb_secret_other(const char *secret)
{
    struct tb_scram_keys keys;
    struct tb_slice password;
    bool other = secret[0] != '\0' && tb_secret_scram(secret, &keys, &password) == SECRET_OTHER;

    explicit_bzero(&keys, sizeof(keys));
    return other;
}

bool tb_secret_is(const char *secret, const char *scheme)
{
    struct tb_slice rest = tb_slice_str(secret);
    enum encoding encoding;
    const struct scheme *s = take_scheme(&rest, &encoding);

    return s && tb_slice_ieq(tb_slice_str(s->name), tb_slice_str(scheme));
}

/* ---- making one ---- */

static enum tb_rc hash_plain(struct tb_slice password, char out[TB_SECRET_MAX + 1])
{
    static const char head[] = "{PLAIN}";
    size_t head_len = sizeof(head) - 1;

    for (size_t i = 0; i < password.len; i++) {
        if ((unsigned char)password.ptr[i] < ' ') /* it is kept in files of lines */
            return TB_INVALID;
    }
    if (password.len > TB_SECRET_MAX - head_len)
        return TB_LIMIT;
    memcpy(out, head, head_len);
    memcpy(out + head_len, password.ptr, password.len);
    out[head_len + password.len] = '\0';
    return TB_OK;
}

static enum tb_rc hash_sha512_crypt(struct tb_slice password, const uint8_t random[SALT_BYTES],
                                    char out[TB_SECRET_MAX + 1])
{
    static const char alphabet[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    char text[TB_PASSWORD_MAX + 1], setting[64], hash[TB_SECRET_MAX + 1];
    int n = snprintf(setting, sizeof(setting), "$6$rounds=%d$", CRYPT_ROUNDS);
    enum tb_rc rc = TB_INVALID;

    for (int i = 0; i < SALT_BYTES; i++)
        setting[n++] = alphabet[random[i] & 63];
    setting[n++] = '$';
    setting[n] = '\0';
    if (c_string(password, text)) {
        rc = TB_LIMIT;
        if (crypt_text(text, setting, hash) &&
            snprintf(out, TB_SECRET_MAX + 1, "{SHA512-CRYPT}%s", hash) <= TB_SECRET_MAX)
            rc = TB_OK;
    }
    explicit_bzero(text, sizeof(text));
    return rc;
}

static enum tb_rc hash_bcrypt(struct tb_slice password, const uint8_t random[SALT_BYTES], char out[TB_SECRET_MAX + 1])
{
    char text[TB_PASSWORD_MAX + 1], setting[CRYPT_GENSALT_OUTPUT_SIZE], hash[TB_SECRET_MAX + 1];
    enum tb_rc rc = TB_INVALID;

    if (password.len <= BCRYPT_BYTES_MAX && c_string(password, text)) {
        rc = TB_LIMIT;
        if (crypt_gensalt_rn("$2b$", BCRYPT_COST, (const char *)random, SALT_BYTES, setting, sizeof(setting)) &&
            crypt_text(text, setting, hash) && snprintf(out, TB_SECRET_MAX + 1, "{BLF-CRYPT}%s", hash) <= TB_SECRET_MAX)
            rc = TB_OK;
    }
    explicit_bzero(text, sizeof(text));
    return rc;
}

static enum tb_rc hash_scram(struct tb_slice password, const uint8_t random[SALT_BYTES], char out[TB_SECRET_MAX + 1])
{
    struct tb_scram_keys keys = {.rounds = TB_SCRAM_ROUNDS, .salt_len = SALT_BYTES};
    enum tb_rc rc = TB_LIMIT;
    struct tb_buf text;

    tb_buf_init(&text, TB_SECRET_MAX);
    memcpy(keys.salt, random, SALT_BYTES);
    if (tb_scram_keys_derive(&keys, password)) {
        tb_buf_str(&text, "{SCRAM-SHA-256}");
        tb_scram_keys_print(&keys, &text);
    }
    if (text.len > 0 && !text.failed) {
        memcpy(out, text.ptr, text.len);
        out[text.len] = '\0';
        rc = TB_OK;
    }
    tb_buf_free(&text);
    explicit_bzero(&keys, sizeof(keys));
    return rc;
}

static enum tb_rc hash_argon2id(struct tb_slice password, const uint8_t random[SALT_BYTES], char out[TB_SECRET_MAX + 1])
{
    char text[TB_SECRET_MAX + 1];

    if (argon2id_hash_encoded(ARGON2_PASSES, ARGON2_KIB, ARGON2_LANES, password.ptr, password.len, random, SALT_BYTES,
                              ARGON2_BYTES, text, sizeof(text)) != ARGON2_OK ||
        snprintf(out, TB_SECRET_MAX + 1, "{ARGON2ID}%s", text) > TB_SECRET_MAX)
        return TB_LIMIT; /* only for want of memory */
    return TB_OK;
}

enum tb_rc tb_password_hash(const char *scheme, struct tb_slice password, const uint8_t random[16],
                            char out[TB_SECRET_MAX + 1])
{
    struct tb_slice name = tb_slice_str(scheme ? scheme : "SCRAM-SHA-256");

    if (password.len == 0)
        return TB_INVALID;
    if (password.len > TB_PASSWORD_MAX)
        return TB_LIMIT;
    if (tb_slice_ieq(name, TB_SLICE("SCRAM-SHA-256")))
        return hash_scram(password, random, out);
    if (tb_slice_ieq(name, TB_SLICE("BLF-CRYPT")))
        return hash_bcrypt(password, random, out);
    if (tb_slice_ieq(name, TB_SLICE("ARGON2ID")))
        return hash_argon2id(password, random, out);
    if (tb_slice_ieq(name, TB_SLICE("SHA512-CRYPT")))
        return hash_sha512_crypt(password, random, out);
    if (tb_slice_ieq(name, TB_SLICE("PLAIN")))
        return hash_plain(password, out);
    return TB_INVALID;
}
