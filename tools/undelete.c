/*
 * undelete.c: tambo undelete, account undelete, account list --deleted: what was deleted, and back with it.
 */
#include "tools/tambo.h"

static json_t *filter(const struct tool *t)
{
    return json_pack("{s:s, s:s*, s:s*, s:s*, s:s*, s:b}", "account", t->args[0], "mailbox", t->mailbox, "since",
                     t->since, "uid", t->uid, "to", t->to, "all", (t->given & OPT_ALL) != 0);
}

static void list(struct tool *t)
{
    static const char *const keys[] = {"kind",     "mailbox", "uid",     "date",  "from", "subject",
                                       "messages", "bytes",   "deleted", "until", NULL};
    static const char *const heads[] = {"KIND",     "MAILBOX", "UID",     "DATE",  "FROM", "SUBJECT",
                                        "MESSAGES", "BYTES",   "DELETED", "UNTIL", NULL};
    json_t *all = json_array(), *page, *args = filter(t);
    bool more = true;

    while (more && (page = client_call(t, "undelete list", json_deep_copy(args))) != NULL) {
        json_array_extend(all, json_object_get(page, "items"));
        more = json_object_get(page, "next") != NULL;
        if (more)
            json_object_set(args, "after", json_object_get(page, "next"));
        json_decref(page);
    }
    if (t->exit == EX_OK)
        print_table(t, all, keys, heads);
    json_decref(args);
    json_decref(all);
}

void undelete(struct tool *t)
{
    json_t *result;

    if (t->given & OPT_LIST) {
        list(t);
        return;
    }
    if (!(t->given & (OPT_SINCE | OPT_ALL | OPT_UID))) {
        tool_fail(t, EX_USAGE, "undelete what? Say --since, --uid or --all; --list shows what there is");
        return;
    }
    result = client_call(t, "undelete", filter(t));
    if (result && t->json)
        print_json(result);
    else if (result)
        printf("%lld mailboxes and %lld messages are back\n",
               (long long)json_integer_value(json_object_get(result, "mailboxes")),
               (long long)json_integer_value(json_object_get(result, "messages")));
    if (result && !t->json && json_integer_value(json_object_get(result, "renamed")) > 0)
        fprintf(stderr, "tambo: %lld of the mailboxes as \"NAME (restored)\", because their names are taken\n",
                (long long)json_integer_value(json_object_get(result, "renamed")));
    json_decref(result);
}

void account_undelete(struct tool *t)
{
    json_t *result = client_call(t, "account undelete", json_pack("{s:s}", "name", t->args[0]));

    if (result && t->json)
        print_json(result);
    else if (result)
        printf("%s: back\n", json_string_value(json_object_get(result, "account")));
    json_decref(result);
}

void account_deleted(struct tool *t)
{
    static const char *const keys[] = {"account", "deleted", "until", NULL};
    static const char *const heads[] = {"ACCOUNT", "DELETED", "UNTIL", NULL};
    json_t *result = client_call(t, "account deleted", json_object());

    if (result)
        print_table(t, json_object_get(result, "accounts"), keys, heads);
    json_decref(result);
}
