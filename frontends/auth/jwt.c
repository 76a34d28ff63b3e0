/*
 * jwt.c: a token's signature, then what it says.
 *
 * Nothing that a token says is believed before its signature was checked, but which key it was made with (kid) and how
 * (alg); and the way must suit the key (engine/crypto/pubkey.c: no "none", no HMAC). A header that demands what we do
 * not know (crit) is refused; a claim that is there twice counts as missing. Bytes from outside are only ever a
 * verdict. Pure. Any thread. RFC 7515 (5.2 checking; 4.1.11 crit), RFC 7517, RFC 7519 (4.1 claims), RFC 8725.
 */
#include "frontends/auth/jwt.h"

#include "engine/crypto/crypto.h"
#include "frontends/auth/json.h"

#include <stdlib.h>

enum { KID_MAX = 255, ALG_MAX = 15, TEXT_MAX = 1023, SKEW_S = 60 };

struct key {
    char kid[KID_MAX + 1]; /* "": none */
    char alg[ALG_MAX + 1]; /* "": any that suits */
    struct tb_pubkey *key; /* owned */
};
struct tb_jwks {
    size_t n;
    struct key keys[TB_JWKS_KEYS_MAX];
};

/* base64url without padding (RFC 7515 2) */
static bool decode64(struct tb_slice text, struct tb_buf *out)
{
    struct tb_buf plain;
    bool ok;

    tb_buf_init(&plain, text.len + 3);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];

        if (c == '+' || c == '/' || c == '=')
            plain.failed = true;
        tb_buf_char(&plain, c == '-' ? '+' : c == '_' ? '/' : c);
    }
    for (size_t i = text.len; i % 4 != 0; i++)
        tb_buf_char(&plain, '=');
    ok = text.len > 0 && text.len % 4 != 1 && !plain.failed && tb_base64_decode(tb_buf_all(&plain), out) &&
         out->len > 0;
    tb_buf_free(&plain);
    return ok;
}

/* ---- key sets ---- */

static bool text_of(struct tb_slice object, const char *name, size_t max, char *out)
{
    struct tb_slice value;
    size_t len;

    return tb_json_member(object, name, &value) && tb_json_text(value, max, out, &len);
}

static bool bytes_of(struct tb_slice object, const char *name, struct tb_buf *out)
{
    char text[2 * TEXT_MAX + 1];

    tb_buf_init(out, sizeof(text));
    return text_of(object, name, sizeof(text) - 1, text) && decode64(tb_slice_str(text), out);
}

/* The key of one JWK; NULL: not one we can use. */
static struct tb_pubkey *pubkey_of(struct tb_slice jwk)
{
    struct tb_buf a, b = {0};
    struct tb_pubkey *key = NULL;
    char kty[16], crv[16];

    if (!text_of(jwk, "kty", sizeof(kty) - 1, kty))
        return NULL;
    if (strcmp(kty, "RSA") == 0) {
        if (bytes_of(jwk, "n", &a) && bytes_of(jwk, "e", &b))
            key = tb_pubkey_rsa(tb_buf_all(&a), tb_buf_all(&b));
    } else if (strcmp(kty, "EC") == 0 && text_of(jwk, "crv", sizeof(crv) - 1, crv)) {
        if (bytes_of(jwk, "x", &a) && bytes_of(jwk, "y", &b))
            key = tb_pubkey_ec(tb_slice_str(crv), tb_buf_all(&a), tb_buf_all(&b));
    } else if (strcmp(kty, "OKP") == 0 && text_of(jwk, "crv", sizeof(crv) - 1, crv)) {
        if (bytes_of(jwk, "x", &a) && strcmp(crv, "Ed25519") == 0)
            key = tb_pubkey_ed25519(tb_buf_all(&a));
    } else {
        return NULL;
    }
    tb_buf_free(&a);
    tb_buf_free(&b);
    return key;
}

/* A member that may be missing, but not be something else than a text that fits. */
static bool optional(struct tb_slice object, const char *name, size_t max, char *out)
{
    struct tb_slice value;
    size_t len;

    out[0] = '\0';
    return !tb_json_member(object, name, &value) || tb_json_text(value, max, out, &len);
}

static void add_key(struct tb_jwks *set, struct tb_slice jwk)
{
    struct key *k = &set->keys[set->n];
    char use[16];

    if (!optional(jwk, "use", sizeof(use) - 1, use) || (use[0] && strcmp(use, "sig") != 0) ||
        !optional(jwk, "kid", KID_MAX, k->kid) || !optional(jwk, "alg", ALG_MAX, k->alg))
        return;
    k->key = pubkey_of(jwk);
    set->n += k->key != NULL;
}

enum tb_rc tb_jwks_read(struct tb_slice json, struct tb_jwks **out, struct tb_error *err)
{
    struct tb_jwks *set = calloc(1, sizeof(*set));
    struct tb_slice keys, jwk;
    size_t at = 0;

    if (!set)
        return tb_error_set(err, TB_LIMIT, 0, "out of memory");
    if (!tb_json_member(json, "keys", &keys)) {
        free(set);
        return tb_error_set(err, TB_INVALID, 0, "not a JSON Web Key set (RFC 7517 5)");
    }
    while (set->n < TB_JWKS_KEYS_MAX && tb_json_element(keys, &at, &jwk))
        add_key(set, jwk);
    if (set->n == 0) {
        free(set);
        return tb_error_set(err, TB_INVALID, 0, "no key for RS, PS, ES or EdDSA signatures in it");
    }
    *out = set;
    return TB_OK;
}

void tb_jwks_free(struct tb_jwks *set)
{
    for (size_t i = 0; set && i < set->n; i++)
        tb_pubkey_free(set->keys[i].key);
    free(set);
}

size_t tb_jwks_count(const struct tb_jwks *set)
{
    return set->n;
}

/* ---- tokens ---- */

struct parts { /* of the compact form: BASE64URL(header) "." BASE64URL(payload) "." BASE64URL(signature) */
    struct tb_slice signed_text;
    struct tb_buf header, payload, signature; /* owned */
};

static bool split(struct tb_slice token, struct parts *p)
{
    const char *first = token.len > 0 ? memchr(token.ptr, '.', token.len) : NULL;
    const char *last = token.len > 0 ? memrchr(token.ptr, '.', token.len) : NULL;
    size_t a, b;

    if (token.len > TB_JWT_BYTES_MAX || !first || first == last)
        return false;
    a = (size_t)(first - token.ptr);
    b = (size_t)(last - token.ptr);
    p->signed_text = tb_slice_sub(token, 0, b);
    return decode64(tb_slice_sub(token, 0, a), &p->header) &&
           decode64(tb_slice_sub(token, a + 1, b - a - 1), &p->payload) &&
           decode64(tb_slice_sub(token, b + 1, SIZE_MAX), &p->signature);
}

static enum tb_jwt_verdict check_signature(const struct tb_jwks *set, const struct parts *p)
{
    struct tb_slice header = tb_buf_all(&p->header), crit;
    char alg[ALG_MAX + 1], kid[KID_MAX + 1];

    if (!text_of(header, "alg", ALG_MAX, alg) || !optional(header, "kid", KID_MAX, kid))
        return JWT_MALFORMED;
    if (tb_json_member(header, "crit", &crit))
        return JWT_WRONG;
    for (size_t i = 0; i < set->n; i++) {
        const struct key *k = &set->keys[i];

        if ((kid[0] && strcmp(kid, k->kid) != 0) || (k->alg[0] && strcmp(alg, k->alg) != 0))
            continue;
        if (tb_pubkey_verify(k->key, tb_slice_str(alg), p->signed_text, tb_buf_all(&p->signature)))
            return JWT_GOOD;
    }
    return JWT_UNSIGNED;
}

/* aud is a string or an array of them (RFC 7519 4.1.3). */
static bool audience_is(struct tb_slice claims, const char *wanted)
{
    struct tb_slice aud, one;
    char text[TEXT_MAX + 1];
    size_t at = 0, len;

    if (!tb_json_member(claims, "aud", &aud))
        return false;
    if (tb_json_text(aud, TEXT_MAX, text, &len))
        return strcmp(text, wanted) == 0;
    while (tb_json_element(aud, &at, &one)) {
        if (tb_json_text(one, TEXT_MAX, text, &len) && strcmp(text, wanted) == 0)
            return true;
    }
    return false;
}

static enum tb_jwt_verdict check_claims(struct tb_slice claims, const struct tb_jwt_rules *rules,
                                        char name[TB_NAME_MAX + 1])
{
    char issuer[TEXT_MAX + 1];
    struct tb_slice value;
    int64_t from = 0, until;

    if (!text_of(claims, "iss", TEXT_MAX, issuer) || strcmp(issuer, rules->issuer) != 0 ||
        !audience_is(claims, rules->audience))
        return JWT_WRONG;
    if (!tb_json_member(claims, "exp", &value) || !tb_json_seconds(value, &until) ||
        (tb_json_member(claims, "nbf", &value) && !tb_json_seconds(value, &from)))
        return JWT_WRONG;
    if (from > rules->now + SKEW_S)
        return JWT_WRONG;
    if (until <= rules->now - SKEW_S)
        return JWT_EXPIRED;
    return text_of(claims, rules->claim, TB_NAME_MAX, name) && name[0] ? JWT_GOOD : JWT_WRONG;
}

enum tb_jwt_verdict tb_jwt_check(const struct tb_jwks *set, struct tb_slice token, const struct tb_jwt_rules *rules,
                                 char name[TB_NAME_MAX + 1])
{
    enum tb_jwt_verdict verdict = JWT_MALFORMED;
    struct parts p;

    name[0] = '\0';
    tb_buf_init(&p.header, TB_JWT_BYTES_MAX);
    tb_buf_init(&p.payload, TB_JWT_BYTES_MAX);
    tb_buf_init(&p.signature, TB_JWT_BYTES_MAX);
    if (split(token, &p))
        verdict = check_signature(set, &p);
    if (verdict == JWT_GOOD)
        verdict = check_claims(tb_buf_all(&p.payload), rules, name);
    tb_buf_free(&p.header);
    tb_buf_free(&p.payload);
    tb_buf_free(&p.signature);
    return verdict;
}
