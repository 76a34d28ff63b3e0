/*
 * fuzz_certificate.c: whom a client's certificate names: arbitrary DER. A name lies within its bounds and holds no NUL.
 */
#include "world.h"

#include "engine/crypto/crypto.h"

static void check(struct tb_slice der, const char *kind)
{
    char name[32];
    memset(name, 'x', sizeof(name));
    if (tb_certificate_name(der, kind, sizeof(name) - 1, name))
        TB_ASSERT(memchr(name, '\0', sizeof(name)) && name[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    check(tb_slice(bytes, n), "email");
    check(tb_slice(bytes, n), "cn");
    return 0;
}
