/*
 * whole.c: see whole.h.
 */
#include "tests/lib/whole.h"

#include <stdio.h>

static void first_damage(void *user, const struct tb_finding *f)
{
    char *what = user;
    if (f->damage && what[0] == '\0')
        (void)snprintf(what, 300, "the check finds: shard %u: %s: %s", f->shard, f->object, f->what);
}

bool store_whole(struct tb_io *io, const char *dir, char what[300])
{
    struct tb_check_options opt = {.user = what, .found = first_damage};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    what[0] = '\0';
    if (tb_store_check(io, dir, &opt, &stat, &err) != TB_OK)
        (void)snprintf(what, 300, "%s", err.text);
    return what[0] == '\0';
}
