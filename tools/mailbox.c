/*
 * mailbox.c: tambo mailbox list, create, delete, retention, acl.
 */
#include <stdlib.h>

#include "tools/tambo.h"

void mailbox_list(struct tool *t)
{
    static const char *const keys[] = {"name",    "messages",       "unseen",      "bytes", "uidvalidity",
                                       "uidnext", "retention_days", "special_use", NULL};
    static const char *const heads[] = {"MAILBOX", "MESSAGES",  "UNSEEN",      "BYTES", "UIDVALIDITY",
                                        "UIDNEXT", "KEPT DAYS", "SPECIAL USE", NULL};
    json_t *result = client_call(t, "mailbox list", json_pack("{s:s}", "account", t->args[0]));

    if (result)
        print_table(t, json_object_get(result, "mailboxes"), keys, heads);
    json_decref(result);
}

static void change(struct tool *t, const char *verb, const char *word)
{
    json_t *result = client_call(t, verb, json_pack("{s:s, s:s}", "account", t->args[0], "name", t->args[1]));

    if (result && t->json)
        print_json(result);
    else if (result)
        printf("%s: %s\n", t->args[1], word);
    json_decref(result);
}

void mailbox_create(struct tool *t)
{
    change(t, "mailbox create", "created");
}

void mailbox_delete(struct tool *t)
{
    char question[600];

    snprintf(question, sizeof(question), "Delete mailbox %.300s of %.200s and its mail?", t->args[1], t->args[0]);
    if (tool_confirm(t, question))
        change(t, "mailbox delete", "deleted");
}

void mailbox_acl(struct tool *t)
{
    json_t *args = json_pack("{s:s, s:s}", "account", t->args[0], "name", t->args[1]), *result, *entry;
    size_t i;

    if (args && t->args_n == 4) {
        json_object_set_new(args, "user", json_string(t->args[2]));
        json_object_set_new(args, "rights", json_string(t->args[3]));
    }
    result = client_call(t, "mailbox acl", args);
    if (result && t->json)
        print_json(result);
    else if (result)
        json_array_foreach (json_object_get(result, "acl"), i, entry)
            printf("%s%s %s\n", json_is_true(json_object_get(entry, "negative")) ? "-" : "",
                   json_string_value(json_object_get(entry, "user")),
                   json_string_value(json_object_get(entry, "rights")));
    json_decref(result);
}

void mailbox_retention(struct tool *t)
{
    unsigned given = t->given & (OPT_DAYS | OPT_NONE | OPT_DEFAULT);
    json_t *args, *result;
    char *end = NULL;
    long days = t->days ? strtol(t->days, &end, 10) : 0;

    if ((given != OPT_DAYS && given != OPT_NONE && given != OPT_DEFAULT) || (end && *end != '\0')) {
        tool_fail(t, EX_USAGE, "say one of --days N, --none, --default");
        return;
    }
    args = json_pack("{s:s, s:s}", "account", t->args[0], "name", t->args[1]);
    if (args && given == OPT_DAYS)
        json_object_set_new(args, "days", json_integer(days));
    else if (args)
        json_object_set_new(args, "rule", json_string(given == OPT_NONE ? "none" : "default"));
    result = client_call(t, "mailbox retention", args);
    days = result ? (long)json_integer_value(json_object_get(result, "retention_days")) : 0;
    if (result && t->json)
        print_json(result);
    else if (result && days > 0)
        printf("%s: messages are expunged after %ld days\n", t->args[1], days);
    else if (result)
        printf("%s: messages are kept\n", t->args[1]);
    json_decref(result);
}
