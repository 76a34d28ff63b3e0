/*
 * value.c: configuration values between text and struct tb_config, and the "did you mean" for a word that is wrong.
 *
 * Invariant: config_set(config_print(x)) is x for every key (tests/unit/config). Thread: any. Allocates on the heap:
 * this runs at start and at SIGHUP only.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "frontends/config/table.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};
static const struct unit units_seconds[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {NULL, 0}};
static const struct unit units_ms[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {NULL, 0}};
static const struct unit units_bytes[] = {{"K", 1u << 10}, {"M", 1u << 20}, {"G", 1u << 30}, {NULL, 0}};

static const struct unit *units_of(enum config_type type)
{
    switch (type) {
    case CONFIG_SECONDS:
        return units_seconds;
    case CONFIG_MS:
        return units_ms;
    case CONFIG_BYTES:
        return units_bytes;
    default:
        return NULL;
    }
}

const char *config_type_name(const struct config_key *key)
{
    static const char *const names[] = {"text",   "path",    "list",         "word", "word",
                                        "number", "seconds", "milliseconds", "bytes"};

    return names[key->type];
}

/* parse_number: decimal digits and at most one of the units. */
static bool parse_number(const char *text, const struct unit *units, uint64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    uint64_t n, factor = 1;

    if (!tb_slice_u64(tb_slice(text, digits), UINT64_MAX, &n))
        return false;
    if (text[digits]) {
        const struct unit *u = units;
        while (u && u->suffix && strcmp(u->suffix, text + digits) != 0)
            u++;
        if (!u || !u->suffix)
            return false;
        factor = u->factor;
    }
    return !__builtin_mul_overflow(n, factor, out);
}

static void print_number(uint64_t n, const struct unit *units, struct tb_buf *out)
{
    const struct unit *best = NULL;

    if (units == units_bytes)
        for (const struct unit *u = units; u->suffix; u++)
            if (n && n % u->factor == 0)
                best = u;
    tb_buf_u64(out, best ? n / best->factor : n);
    if (best)
        tb_buf_str(out, best->suffix);
}

static bool set_number(struct tb_config *c, const struct config_key *key, const char *text, char why[160])
{
    void *field = (char *)c + key->offset;
    struct tb_buf low, high;
    uint64_t n;

    if (!parse_number(text, units_of(key->type), &n)) {
        const char *hint = key->type == CONFIG_BYTES     ? " with K, M or G behind it, if any"
                           : key->type == CONFIG_SECONDS ? " of seconds, or with s, m, h or d behind it"
                           : key->type == CONFIG_MS      ? " of milliseconds, or with ms, s or m behind it"
                                                         : "";
        snprintf(why, 160, "%s: \"%.40s\" is not a number%s", key->name, text, hint);
        return false;
    }
    if (n < key->min || n > key->max) {
        tb_buf_init(&low, 64);
        tb_buf_init(&high, 64);
        print_number(key->min, units_of(key->type), &low);
        print_number(key->max, units_of(key->type), &high);
        snprintf(why, 160, "%s: %.40s is out of range: %.*s to %.*s", key->name, text, (int)low.len, low.ptr,
                 (int)high.len, high.ptr);
        tb_buf_free(&low);
        tb_buf_free(&high);
        return false;
    }
    if (key->type == CONFIG_BYTES)
        *(uint64_t *)field = n;
    else
        *(uint32_t *)field = (uint32_t)n;
    return true;
}

static bool set_word(struct tb_config *c, const struct config_key *key, const char *text, char why[160])
{
    const char *near;
    size_t i = 0, used;

    while (key->words[i] && strcmp(key->words[i], text) != 0)
        i++;
    if (key->words[i] && key->type == CONFIG_BOOL) {
        *(bool *)((char *)c + key->offset) = i == 1;
        return true;
    }
    if (key->words[i]) {
        char **field = (char **)(void *)((char *)c + key->offset);
        free(*field);
        *field = strdup(text);
        return *field != NULL;
    }
    used = (size_t)snprintf(why, 160, "%s: \"%.40s\" is none of", key->name, text);
    for (i = 0; key->words[i] && used < 140; i++)
        used += (size_t)snprintf(why + used, 160 - used, " %s", key->words[i]);
    near = config_suggest(text, key->words);
    if (near && used < 120)
        snprintf(why + used, 160 - used, "; did you mean \"%s\"?", near);
    return false;
}

static bool set_text(char **field, const struct config_key *key, char *copy, char why[160])
{
    size_t len = copy ? strlen(copy) : 0;

    if (!copy) {
        snprintf(why, 160, "%s: out of memory", key->name);
        return false;
    }
    if (len < key->min || len > key->max) {
        snprintf(why, 160, len ? "%s: longer than %u bytes" : "%s: must not be empty", key->name, (unsigned)key->max);
        free(copy);
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)copy[i] < ' ' || copy[i] == 0x7f || (copy[i] == ' ' && key->type != CONFIG_PATH)) {
            snprintf(why, 160, "%s: blanks and control characters cannot be in it", key->name);
            free(copy);
            return false;
        }
    }
    free(*field);
    *field = copy;
    return true;
}

bool config_set(struct tb_config *c, const struct config_key *key, const char *dir, const char *text, char why[160])
{
    char **field = (char **)(void *)((char *)c + key->offset);

    switch (key->type) {
    case CONFIG_STRING:
        return set_text(field, key, strdup(text), why);
    case CONFIG_PATH:
        return set_text(field, key, config_path(dir, text), why);
    case CONFIG_LIST:
        if (!text[0])
            return true;
        if (config_list_add((char ***)(void *)field, text))
            return true;
        snprintf(why, 160, "%s: out of memory", key->name);
        return false;
    case CONFIG_WORD:
    case CONFIG_BOOL:
        return set_word(c, key, text, why);
    default:
        return set_number(c, key, text, why);
    }
}

bool config_list_add(char ***list, const char *text)
{
    size_t n = 0;
    char **v;

    while (*list && (*list)[n])
        n++;
    v = realloc(*list, (n + 2) * sizeof(*v));
    if (!v)
        return false;
    *list = v;
    v[n] = strdup(text);
    v[n + 1] = NULL;
    return v[n] != NULL;
}

void config_list_free(char **list)
{
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

void config_print(const struct tb_config *c, const struct config_key *key, struct tb_buf *out)
{
    const void *field = (const char *)c + key->offset;

    switch (key->type) {
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_WORD:
        tb_buf_str(out, *(char *const *)field ? *(char *const *)field : "");
        return;
    case CONFIG_LIST:
        for (char *const *v = *(char **const *)field; v && *v; v++) {
            tb_buf_str(out, v == *(char **const *)field ? "" : ", ");
            tb_buf_str(out, *v);
        }
        return;
    case CONFIG_BOOL:
        tb_buf_str(out, key->words[*(const bool *)field ? 1 : 0]);
        return;
    case CONFIG_BYTES:
        print_number(*(const uint64_t *)field, units_bytes, out);
        return;
    default:
        print_number(*(const uint32_t *)field, NULL, out);
    }
}

char *config_path(const char *dir, const char *text)
{
    const char *prefix = strncmp(text, "unix:", 5) == 0 ? "unix:" : "";
    const char *rest = text + strlen(prefix);
    char *path = NULL;

    if (!rest[0] || rest[0] == '/' || !dir[0])
        return strdup(text);
    if (asprintf(&path, "%s%s/%s", prefix, strcmp(dir, "/") == 0 ? "" : dir, rest) < 0)
        return NULL;
    return path;
}

/* distance: edits (insert, delete, replace, swap of neighbours) from a to b; both under 32 bytes. */
static unsigned distance(const char *a, const char *b)
{
    size_t al = strlen(a), bl = strlen(b);
    unsigned d[33][33];

    for (size_t i = 0; i <= al; i++) {
        for (size_t j = 0; j <= bl; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[al][bl];
}

const char *config_suggest(const char *name, const char *const *candidates)
{
    const char *best = NULL;
    unsigned best_distance = UINT_MAX;

    if (strlen(name) > 32)
        return NULL;
    for (; *candidates; candidates++) {
        unsigned d = strlen(*candidates) > 32 ? UINT_MAX : distance(name, *candidates);
        if (d < best_distance) {
            best_distance = d;
            best = *candidates;
        }
    }
    return best && best_distance <= 1 + strlen(best) / 3 ? best : NULL;
}
