/*
 * fuzz_config.c: bytes as the configuration file: loaded, or refused with "file:line: reason"; and what was loaded can
 * be printed.
 */
#include "world.h"

#include "frontends/config/config.h"

static void seen(void *user, const struct tb_config_item *item)
{
    TB_ASSERT(item->key != NULL && item->value != NULL && item->fallback != NULL);
    *(size_t *)user += strlen(item->value);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct tb_config *c = NULL;
    struct tb_error err = {0};
    size_t total = 0;
    enum tb_rc rc = tb_config_load(fuzz_file(tb_slice(bytes, n)), &c, &err);
    TB_ASSERT((rc == TB_OK) == (c != NULL));
    TB_ASSERT(rc == TB_OK || err.text[0] != '\0');
    if (c != NULL)
        tb_config_each(c, seen, &total);
    tb_config_free(c);
    return 0;
}
