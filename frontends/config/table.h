/*
 * table.h: the one table of configuration keys, and the values' text form. Private to this folder.
 *
 * A key's row gives its type, its default as text, its bounds and its one-line explanation. The parser, `config dump`,
 * the file that `tambo init` writes and the manual page's test are all made from it.
 */
#ifndef TB_CONFIG_TABLE_H
#define TB_CONFIG_TABLE_H

#include "frontends/config/config.h"

enum config_type {
    CONFIG_STRING,  /* char * */
    CONFIG_PATH,    /* char *, relative to the file's folder */
    CONFIG_LIST,    /* char **, NULL-ended */
    CONFIG_WORD,    /* char *, one of `words` */
    CONFIG_BOOL,    /* bool, written as words[0] (false) or words[1] (true) */
    CONFIG_NUMBER,  /* uint32_t */
    CONFIG_SECONDS, /* uint32_t; the text may end in s, m, h or d */
    CONFIG_MS,      /* uint32_t; the text may end in ms, s or m */
    CONFIG_BYTES    /* uint64_t; the text may end in K, M or G (binary) */
};

struct config_key {
    const char *name;
    enum config_type type;
    size_t offset; /* in struct tb_config */
    const char *fallback;
    uint64_t min, max;
    const char *words[6]; /* NULL-ended */
    bool reload;          /* SIGHUP is enough */
    const char *doc;
};

extern const struct config_key config_keys[];
extern const size_t config_keys_n;

/* config_type_name: "text", "path", "list", "number" ... for people. */
const char *config_type_name(const struct config_key *key);
/* config_set: text into the key's field. dir: what a relative path stands on. False with the reason in why. */
bool config_set(struct tb_config *c, const struct config_key *key, const char *dir, const char *text, char why[160]);
/* config_list_add: one more element of a CONFIG_LIST. False without memory. */
bool config_list_add(char ***list, const char *text);
void config_list_free(char **list);
/* config_print: the field as the file would say it, without quotes. */
void config_print(const struct tb_config *c, const struct config_key *key, struct tb_buf *out);
/* config_path: dir/text, or text when that is absolute or empty; "unix:" in front stays there. Heap. */
char *config_path(const char *dir, const char *text);
/* config_suggest: the candidate nearest to name, or NULL when none is near. candidates is NULL-ended. */
const char *config_suggest(const char *name, const char *const *candidates);

#endif
