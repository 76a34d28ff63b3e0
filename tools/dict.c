/*
 * dict.c: tambo dict list, train: the dictionaries that the store made from its own mail.
 */
#include "tools/tambo.h"

void dict_list(struct tool *t)
{
    static const char *const keys[] = {"id", "role", "bytes", "saves_percent", "shards", "in_use", NULL};
    static const char *const heads[] = {"ID", "ROLE", "BYTES", "SAVES %", "SHARDS", "IN USE", NULL};
    json_t *result = client_call(t, "dict list", json_object());

    if (result)
        print_table(t, json_object_get(result, "dictionaries"), keys, heads);
    json_decref(result);
}

void dict_train(struct tool *t)
{
    static const char *const keys[] = {"role",  "samples",       "held_out", "raw", "before",
                                       "after", "saves_percent", "adopted",  NULL};
    static const char *const heads[] = {"ROLE",  "TRAINED ON", "TRIED ON", "RAW BYTES", "BEFORE",
                                        "AFTER", "SAVES %",    "ADOPTED",  NULL};
    json_t *result = client_call(t, "dict train", json_object());

    if (result && t->json)
        print_json(result);
    else if (result)
        print_table(t, json_object_get(result, "roles"), keys, heads);
    json_decref(result);
}
