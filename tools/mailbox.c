/*
 * mailbox.c: tambo mailbox list, create, delete.
 */
#include "tools/tambo.h"

void mailbox_list(struct tool *t)
{
    static const char *const keys[] = {"name",        "messages", "unseen",      "bytes",
                                       "uidvalidity", "uidnext",  "special_use", NULL};
    static const char *const heads[] = {"MAILBOX",     "MESSAGES", "UNSEEN",      "BYTES",
                                        "UIDVALIDITY", "UIDNEXT",  "SPECIAL USE", NULL};
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
