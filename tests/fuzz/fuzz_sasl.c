/*
 * fuzz_sasl.c: SASL exchanges: the first line is the mechanism, the second an initial response ("-": none), the others
 * answers to challenges. What comes out of it are a name and a password, or a proof, within their bounds. The same
 * bytes once more as SCRAM's messages, its keys and a password to be prepared.
 */
#include "world.h"

#include <tambo/message.h>

#include "frontends/auth/auth.h"
#include "frontends/auth/scram.h"
#include "frontends/config/config.h"

static struct tb_slice line_of(struct tb_slice *rest)
{
    const char *lf = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    size_t n = lf != NULL ? (size_t)(lf - rest->ptr) : rest->len;
    struct tb_slice line = tb_slice_sub(*rest, 0, n);
    *rest = tb_slice_sub(*rest, n + 1, rest->len);
    return line;
}

static bool within(struct tb_slice part, struct tb_slice whole)
{
    return part.len == 0 || (part.ptr >= whole.ptr && part.ptr + part.len <= whole.ptr + whole.len);
}

static void scram(struct tb_slice bytes)
{
    struct tb_scram_first first;
    struct tb_scram_final final;
    struct tb_scram_keys keys;
    struct tb_buf text;
    char name[32];
    size_t len;
    if (tb_scram_first_read(bytes, &first)) {
        TB_ASSERT(within(first.gs2, bytes) && within(first.bare, bytes) && within(first.name, bytes));
        TB_ASSERT(first.gs2.len + first.bare.len == bytes.len && first.nonce.len > 0);
        if (tb_scram_name(first.name, sizeof(name) - 1, name, &len))
            TB_ASSERT(len < sizeof(name) && strlen(name) == len && len <= first.name.len);
    }
    if (tb_scram_final_read(bytes, &final))
        TB_ASSERT(within(final.bare, bytes) && within(final.nonce, bytes) && final.bare.len < bytes.len);
    tb_buf_init(&text, 4096);
    if (tb_scram_keys_read(bytes, &keys)) {
        tb_scram_keys_print(&keys, &text);
        TB_ASSERT(tb_scram_keys_read(tb_buf_all(&text), &keys));
    }
    text.len = 0;
    if (tb_utf8_saslprep(bytes, &text))
        TB_ASSERT(text.failed || tb_utf8_valid(tb_buf_all(&text)));
    tb_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_slice rest = tb_slice(bytes, n);
    static char always[] = "always", domain[] = "example.test", keys[] = "keys.json", issuer[] = "https://id.test/\"";
    static struct tb_config cfg = {.scram = always,
                                   .default_domain = domain,
                                   .oauth_jwks = keys,
                                   .oauth_issuer = issuer,
                                   .oauth_audience = always,
                                   .oauth_claim = domain};
    struct tb_sasl_env env = {.worker = fuzz_world()->w, .cfg = &cfg};
    struct tb_sasl s;
    const char *challenge = NULL;
    scram(rest);
    struct tb_slice mechanism = line_of(&rest), initial = line_of(&rest);
    if (tb_slice_eq(initial, TB_SLICE("-")))
        initial = tb_slice(NULL, 0);
    enum tb_sasl_step step = tb_sasl_begin(&s, &env, mechanism, initial, &challenge);
    for (int i = 0; i < 5 && step == SASL_CHALLENGE; i++) {
        TB_ASSERT(challenge != NULL);
        step = tb_sasl_next(&s, line_of(&rest), &challenge);
    }
    TB_ASSERT(step != SASL_CHALLENGE);
    if (step == SASL_READY) {
        TB_ASSERT((s.name_len > 0 || s.trust == TRUST_BAD) && s.name_len <= TB_NAME_MAX &&
                  s.password_len <= TB_PASSWORD_MAX);
        step = tb_sasl_outcome(&s, n % 2 == 0 ? TB_OK : TB_INVALID, &challenge);
        TB_ASSERT(step == SASL_DONE || (step == SASL_CHALLENGE && challenge[0] != '\0'));
        if (step == SASL_CHALLENGE)
            TB_ASSERT(tb_sasl_next(&s, line_of(&rest), &challenge) != SASL_CHALLENGE);
    }
    tb_sasl_wipe(&s);
    return 0;
}
