/*
 * fuzz_jwt.c: what OAuth brings in: a key set, a token checked against a set, JSON itself, and the two mechanisms'
 * messages. The first byte says which. A name comes out of a good token alone, and within its bounds.
 */
#include "world.h"

#include "frontends/auth/json.h"
#include "frontends/auth/oauth.h"

/* RFC 8037 A.2 */
static const char own_keys[] = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"a\","
                               "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

static bool within(struct tb_slice part, struct tb_slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void json(struct tb_slice text)
{
    struct tb_slice value;
    char out[40];
    size_t at = 0, before = 0, len;
    int64_t n;
    if (tb_json_member(text, "keys", &value))
        TB_ASSERT(value.len > 0 && within(value, text));
    while (tb_json_element(text, &at, &value)) {
        TB_ASSERT(at > before && within(value, text));
        before = at;
    }
    if (tb_json_text(text, sizeof(out) - 1, out, &len))
        TB_ASSERT(len < sizeof(out) && strlen(out) == len);
    if (tb_json_seconds(text, &n))
        TB_ASSERT(n >= 0);
}

static void token(struct tb_slice text)
{
    static struct tb_jwks *set;
    struct tb_jwt_rules rules = {.issuer = "i", .audience = "a", .claim = "email", .now = 1700000000};
    char name[TB_NAME_MAX + 1];
    if (!set)
        TB_ASSERT(tb_jwks_read(tb_slice_str(own_keys), &set, NULL) == TB_OK);
    if (tb_jwt_check(set, text, &rules, name) == JWT_GOOD)
        TB_ASSERT(name[0] != '\0');
    else
        TB_ASSERT(strlen(name) <= TB_NAME_MAX);
}

static void messages(struct tb_slice text)
{
    struct tb_slice who, token_text;
    if (tb_oauth_bearer_read(text, &who, &token_text))
        TB_ASSERT(within(who, text) && within(token_text, text) && token_text.len > 0);
    if (tb_oauth_xoauth2_read(text, &who, &token_text))
        TB_ASSERT(within(who, text) && within(token_text, text) && token_text.len > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_slice text = tb_slice(bytes + 1, n > 0 ? n - 1 : 0);
    struct tb_jwks *set;
    if (n == 0)
        return 0;
    switch (bytes[0] % 4) {
    case 0:
        json(text);
        break;
    case 1:
        token(text);
        break;
    case 2:
        messages(text);
        break;
    case 3:
        if (tb_jwks_read(text, &set, NULL) == TB_OK) {
            TB_ASSERT(tb_jwks_count(set) > 0);
            tb_jwks_free(set);
        }
        break;
    }
    return 0;
}
