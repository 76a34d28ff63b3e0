/*
 * config.c: tambo config check and dump: the file alone, whether a daemon runs or not.
 */
#include "tools/tambo.h"

void config_check(struct tool *t)
{
    struct tb_config *cfg = tool_config(t);

    if (cfg && t->json)
        puts("{\"good\":true}");
    else if (cfg)
        printf("%s: good\n", t->conf);
    tb_config_free(cfg);
}

static void add_item(void *user, const struct tb_config_item *item)
{
    json_array_append_new(user, json_pack("{s:s, s:s, s:s, s:s, s:b}", "key", item->key, "value", item->value, "origin",
                                          item->is_default ? "default" : "file", "type", item->type, "restart",
                                          item->restart));
}

static json_t *listen_rows(const struct tb_config *cfg)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < cfg->listen_n; i++) {
        const struct tb_config_listen *l = &cfg->listen[i];
        char value[512];
        snprintf(value, sizeof(value), "%s %s port %u tls %s", l->protocol, l->address, l->port,
                 tb_config_tls_word(l->tls));
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s, s:b}", "key", "listen", "value", value, "origin",
                                              l->line ? "file" : "default", "type", "block", "restart", 1));
    }
    return rows;
}

void config_dump(struct tool *t)
{
    static const char *const keys[] = {"key", "value", "origin", NULL};
    static const char *const heads[] = {"KEY", "VALUE", "ORIGIN", NULL};
    struct tb_config *cfg = tool_config(t);
    json_t *rows, *listens;

    if (!cfg)
        return;
    rows = json_array();
    tb_config_each(cfg, add_item, rows);
    listens = listen_rows(cfg);
    json_array_extend(rows, listens);
    print_table(t, rows, keys, heads);
    json_decref(listens);
    json_decref(rows);
    tb_config_free(cfg);
}
