/*
 * quota.c: tambo quota: the limits of an account.
 */
#include <stdlib.h>
#include <string.h>

#include "tools/tambo.h"

/* limit: "none", or a number, for bytes with K, M, G or T behind it. False: something else. */
static bool limit(const char *text, bool bytes, json_t **out)
{
    static const char units[] = "KMGT";
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    const char *unit = bytes && *end != '\0' ? strchr(units, *end) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

    if (strcmp(text, "none") == 0) {
        *out = json_null();
        return true;
    }
    if (text[0] < '0' || text[0] > '9' || end[unit ? 1 : 0] != '\0' || n == 0 ||
        n > (unsigned long long)INT64_MAX >> shift)
        return false;
    *out = json_integer((json_int_t)(n << shift));
    return true;
}

static void show(const char *label, const json_t *v, bool bytes)
{
    const json_t *max = json_object_get(v, "limit");
    json_int_t used = json_integer_value(json_object_get(v, "used"));
    char a[32], b[32];

    if (bytes)
        printf("  %-10s %s", label, print_bytes((uint64_t)used, a));
    else
        printf("  %-10s %" JSON_INTEGER_FORMAT, label, used);
    if (!json_is_integer(max))
        printf(", no limit\n");
    else if (bytes)
        printf(" of %s\n", print_bytes((uint64_t)json_integer_value(max), b));
    else
        printf(" of %" JSON_INTEGER_FORMAT "\n", json_integer_value(max));
}

void quota(struct tool *t)
{
    const struct {
        unsigned bit;
        const char *key, *text;
    } given[] = {{OPT_STORAGE, "storage_bytes", t->storage},
                 {OPT_MESSAGES, "messages", t->messages},
                 {OPT_MAILBOXES, "mailboxes", t->mailboxes}};
    json_t *args = json_pack("{s:s}", "account", t->args[0]), *v, *result;

    for (size_t i = 0; i < TB_ARRAY_LEN(given); i++) {
        if (!(t->given & (given[i].bit | OPT_NONE)))
            continue;
        if (!limit(t->given & given[i].bit ? given[i].text : "none", i == 0, &v)) {
            tool_fail(t, EX_USAGE, "'%s' is not a limit: a number from 1 on, or none", given[i].text);
            json_decref(args);
            return;
        }
        json_object_set_new(args, given[i].key, v);
    }
    result = client_call(t, "quota", args);
    if (result && t->json)
        print_json(result);
    else if (result) {
        printf("%s\n", json_string_value(json_object_get(result, "account")));
        show("storage", json_object_get(result, "storage_bytes"), true);
        show("messages", json_object_get(result, "messages"), false);
        show("mailboxes", json_object_get(result, "mailboxes"), false);
    }
    json_decref(result);
}
