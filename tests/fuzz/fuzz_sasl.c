/*
 * fuzz_sasl.c: SASL exchanges: the first line is the mechanism, the second an initial response ("-": none), the others
 * answers to challenges. What comes out of it are a name and a password within their bounds.
 */
#include "world.h"

#include "frontends/auth/auth.h"

static struct tb_slice line_of(struct tb_slice *rest)
{
    const char *lf = rest->len > 0 ? memchr(rest->ptr, '\n', rest->len) : NULL;
    size_t n = lf != NULL ? (size_t)(lf - rest->ptr) : rest->len;
    struct tb_slice line = tb_slice_sub(*rest, 0, n);
    *rest = tb_slice_sub(*rest, n + 1, rest->len);
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_slice rest = tb_slice(bytes, n);
    struct tb_slice mechanism = line_of(&rest), initial = line_of(&rest);
    struct tb_sasl s;
    const char *challenge = NULL;
    if (tb_slice_eq(initial, TB_SLICE("-")))
        initial = tb_slice(NULL, 0);
    enum tb_sasl_step step = tb_sasl_begin(&s, mechanism, initial, &challenge);
    for (int i = 0; i < 5 && step == SASL_CHALLENGE; i++) {
        TB_ASSERT(challenge != NULL);
        step = tb_sasl_next(&s, line_of(&rest), &challenge);
    }
    TB_ASSERT(step != SASL_CHALLENGE);
    if (step == SASL_READY)
        TB_ASSERT(s.name_len > 0 && s.name_len <= TB_NAME_MAX && s.password_len <= TB_PASSWORD_MAX);
    if (step != SASL_UNKNOWN)
        tb_sasl_wipe(&s);
    return 0;
}
