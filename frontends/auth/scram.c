/*
 * scram.c: SCRAM-SHA-256 without a connection: parsing the client's two messages, the keys that stand for a password,
 * the check of a proof.
 *
 * Decides nothing about names, channel bindings or downgrades: sasl.c does. Pure; bytes from the network are only ever
 * "malformed". Keys and salted passwords are wiped before return. Any thread.
 * RFC 5802 (3 the algorithm, 5.1 attributes, 7 the grammar), RFC 7677, RFC 4013 (SASLprep).
 */
#include "frontends/auth/scram.h"

#include <tambo/message.h>

#include "engine/crypto/crypto.h"
#include "frontends/auth/auth.h"

/* ---- the grammar ---- */

/* Up to the next comma, which is taken too. */
static struct tb_slice field(struct tb_slice *s)
{
    const char *comma = s->len > 0 ? memchr(s->ptr, ',', s->len) : NULL;
    size_t n = comma ? (size_t)(comma - s->ptr) : s->len;
    struct tb_slice f = tb_slice_sub(*s, 0, n);

    *s = tb_slice_sub(*s, n + 1, SIZE_MAX);
    return f;
}

/* The value of "x=value"; false if the field is another one, or empty. */
static bool value(struct tb_slice f, char name, struct tb_slice *out)
{
    if (f.len < 3 || f.ptr[0] != name || f.ptr[1] != '=')
        return false;
    *out = tb_slice_sub(f, 2, SIZE_MAX);
    return true;
}

/* nonce: printable = %x21-2B / %x2D-7E */
static bool printable(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] <= ' ' || s.ptr[i] == ',' || s.ptr[i] > '~')
            return false;
    }
    return s.len > 0;
}

/* cb-name = 1*(ALPHA / DIGIT / "." / "-") */
static bool binding_name(struct tb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-'))
            return false;
    }
    return s.len > 0;
}

/* extensions = attr-val *("," attr-val): "x=" and a value, all of which may be ignored. */
static bool extensions(struct tb_slice s)
{
    struct tb_slice f, ignored;

    while (s.len > 0) {
        f = field(&s);
        if (f.len == 0 || !((f.ptr[0] >= 'a' && f.ptr[0] <= 'z') || (f.ptr[0] >= 'A' && f.ptr[0] <= 'Z')) ||
            !value(f, f.ptr[0], &ignored))
            return false;
    }
    return true;
}

bool tb_scram_name(struct tb_slice escaped, size_t max, char *out, size_t *len)
{
    size_t n = 0;

    for (size_t i = 0; i < escaped.len; i++) {
        char c = escaped.ptr[i];

        if (c == '=') {
            struct tb_slice code = tb_slice_sub(escaped, i, 3);

            if (!tb_slice_eq(code, TB_SLICE("=2C")) && !tb_slice_eq(code, TB_SLICE("=3D")))
                return false;
            c = code.ptr[1] == '2' ? ',' : '=';
            i += 2;
        }
        if (c == '\0' || n >= max)
            return false;
        out[n++] = c;
    }
    out[n] = '\0';
    *len = n;
    return true;
}

/* gs2-header = gs2-cbind-flag "," [ authzid ] "," */
bool tb_scram_gs2_read(struct tb_slice *rest, struct tb_scram_first *out)
{
    struct tb_slice all = *rest, flag = field(rest), authzid;

    if (flag.len == 0 || rest->len == 0)
        return false;
    out->flag = flag.ptr[0];
    if (out->flag == 'p') {
        if (!value(flag, 'p', &out->binding) || !binding_name(out->binding))
            return false;
    } else if (flag.len != 1 || (out->flag != 'n' && out->flag != 'y')) {
        return false;
    }
    authzid = field(rest);
    if (authzid.len > 0 && !value(authzid, 'a', &out->authzid))
        return false;
    out->gs2 = tb_slice_sub(all, 0, all.len - rest->len);
    return rest->len > 0;
}

/* client-first-message-bare = [reserved-mext ","] username "," nonce ["," extensions]; an "m=" must be refused */
bool tb_scram_first_read(struct tb_slice message, struct tb_scram_first *out)
{
    struct tb_slice rest = message;

    memset(out, 0, sizeof(*out));
    out->binding = out->authzid = TB_SLICE("");
    if (!tb_scram_gs2_read(&rest, out))
        return false;
    out->bare = rest;
    return value(field(&rest), 'n', &out->name) && value(field(&rest), 'r', &out->nonce) && printable(out->nonce) &&
           extensions(rest);
}

static bool decode_exactly(struct tb_slice text, uint8_t *out, size_t len)
{
    struct tb_buf raw;
    bool ok;

    tb_buf_init(&raw, len);
    ok = tb_base64_decode(text, &raw) && raw.len == len;
    if (ok)
        memcpy(out, raw.ptr, len);
    if (raw.ptr)
        explicit_bzero(raw.ptr, raw.cap);
    tb_buf_free(&raw);
    return ok;
}

/* client-final-message = channel-binding "," nonce ["," extensions] "," proof */
bool tb_scram_final_read(struct tb_slice message, struct tb_scram_final *out)
{
    const char *comma = message.len > 0 ? memrchr(message.ptr, ',', message.len) : NULL;
    struct tb_slice rest, proof;

    memset(out, 0, sizeof(*out));
    if (!comma)
        return false;
    rest = out->bare = tb_slice_sub(message, 0, (size_t)(comma - message.ptr));
    return value(tb_slice_sub(message, out->bare.len + 1, SIZE_MAX), 'p', &proof) &&
           decode_exactly(proof, out->proof, sizeof(out->proof)) && value(field(&rest), 'c', &out->binding) &&
           value(field(&rest), 'r', &out->nonce) && extensions(rest);
}

/* ---- keys ---- */

bool tb_scram_keys_read(struct tb_slice text, struct tb_scram_keys *out)
{
    struct tb_slice rounds = field(&text), salt = field(&text), stored = field(&text);
    struct tb_buf raw;
    uint64_t n;
    bool ok;

    memset(out, 0, sizeof(*out));
    tb_buf_init(&raw, TB_SCRAM_SALT_MAX);
    ok = tb_slice_u64(rounds, TB_SCRAM_ROUNDS_MAX, &n) && n > 0 && tb_base64_decode(salt, &raw) && raw.len > 0 &&
         decode_exactly(stored, out->stored, sizeof(out->stored)) &&
         decode_exactly(text, out->server, sizeof(out->server));
    if (ok) {
        out->rounds = (uint32_t)n;
        out->salt_len = raw.len;
        memcpy(out->salt, raw.ptr, raw.len);
    }
    tb_buf_free(&raw);
    return ok;
}

void tb_scram_keys_print(const struct tb_scram_keys *k, struct tb_buf *out)
{
    tb_buf_u64(out, k->rounds);
    tb_buf_char(out, ',');
    tb_base64_encode(tb_slice(k->salt, k->salt_len), out);
    tb_buf_char(out, ',');
    tb_base64_encode(tb_slice(k->stored, sizeof(k->stored)), out);
    tb_buf_char(out, ',');
    tb_base64_encode(tb_slice(k->server, sizeof(k->server)), out);
}

static void digest(const uint8_t in[TB_SCRAM_KEY_BYTES], uint8_t out[TB_SCRAM_KEY_BYTES])
{
    struct tb_sha256 h;

    tb_sha256_init(&h);
    tb_sha256_update(&h, in, TB_SCRAM_KEY_BYTES);
    tb_sha256_final(&h, out);
}

bool tb_scram_keys_derive_raw(struct tb_scram_keys *k, struct tb_slice password)
{
    uint8_t salted[TB_SCRAM_KEY_BYTES], client[TB_SCRAM_KEY_BYTES];
    bool ok = tb_pbkdf2(256, password, tb_slice(k->salt, k->salt_len), k->rounds, salted, sizeof(salted));

    if (ok) {
        tb_hmac_sha256(salted, sizeof(salted), "Client Key", 10, client);
        digest(client, k->stored);
        tb_hmac_sha256(salted, sizeof(salted), "Server Key", 10, k->server);
    }
    explicit_bzero(salted, sizeof(salted));
    explicit_bzero(client, sizeof(client));
    return ok;
}

bool tb_scram_keys_derive(struct tb_scram_keys *k, struct tb_slice password)
{
    struct tb_buf prepared;
    bool ok;

    tb_buf_init(&prepared, 4 * TB_PASSWORD_MAX);
    if (tb_utf8_saslprep(password, &prepared) && prepared.len > 0)
        password = tb_buf_all(&prepared);
    ok = !prepared.failed && tb_scram_keys_derive_raw(k, password);
    if (prepared.ptr)
        explicit_bzero(prepared.ptr, prepared.cap);
    tb_buf_free(&prepared);
    return ok;
}

bool tb_scram_check(const struct tb_scram_keys *k, struct tb_slice auth_message,
                    const uint8_t proof[TB_SCRAM_KEY_BYTES], uint8_t verifier[TB_SCRAM_KEY_BYTES])
{
    uint8_t client[TB_SCRAM_KEY_BYTES], stored[TB_SCRAM_KEY_BYTES];
    bool same;

    tb_hmac_sha256(k->stored, sizeof(k->stored), auth_message.ptr, auth_message.len, client);
    for (size_t i = 0; i < sizeof(client); i++)
        client[i] ^= proof[i];
    digest(client, stored);
    same = tb_secret_equal(stored, sizeof(stored), k->stored, sizeof(k->stored));
    tb_hmac_sha256(k->server, sizeof(k->server), auth_message.ptr, auth_message.len, verifier);
    explicit_bzero(client, sizeof(client));
    return same;
}
