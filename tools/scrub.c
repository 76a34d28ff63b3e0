/*
 * scrub.c: tambo scrub: read and verify everything now, and say how it goes. Exit: 65 if damage was found.
 */
#include <unistd.h>

#include "tools/tambo.h"

static int64_t number(const json_t *v, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(v, key));
}

void scrub_now(struct tool *t)
{
    json_t *v = client_call(t, "scrub", json_object());
    int64_t before = number(v, "damage"), found;

    if (!v)
        return;
    json_decref(v);
    v = client_call(t, "scrub", json_pack("{s:b}", "start", 1));
    while (v && json_is_true(json_object_get(v, "running"))) {
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\r%lld %% ", (long long)number(v, "percent"));
        json_decref(v);
        v = client_call(t, "scrub", json_object());
    }
    if (!v)
        return;
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    found = number(v, "damage") - before;
    if (t->json)
        print_json(v);
    else if (found == 0)
        printf("everything reads well; %lld messages in quarantine\n", (long long)number(v, "quarantined"));
    else
        printf("%lld findings of damage, see the log; %lld messages in quarantine; next: tambo check\n",
               (long long)found, (long long)number(v, "quarantined"));
    if (found != 0)
        t->exit = EX_DATAERR;
    json_decref(v);
}
