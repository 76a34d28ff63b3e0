/*
 * config.c: reads the configuration file with libconfuse and the table of keys; compares two configurations.
 *
 * It must never half-apply: a struct tb_config is complete and valid or is not returned. Every message names file and
 * line. libconfuse calls back without a user pointer and its scanner is one for the process, so the load in progress is
 * kept in one static pointer: one thread at a time (start-up, SIGHUP). The file is read by libconfuse itself (design.md
 * section 3's exemption).
 */
#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontends/config/table.h"

enum { KEYS_MAX = 64, LISTEN_MAX = 256 };

struct load {
    struct tb_config *c;
    struct tb_error *err;
    char *dir;
    bool failed;
    int line[KEYS_MAX]; /* where each key was set; 0: not */
};
static struct load *loading; /* borrowed: the load on the stack of tb_config_load */

static const char *const listen_keys[] = {"address", "port", "tls", NULL};
static const char *const protocols[] = {"imap", "pop3", "smtp", "submission", "lmtp", NULL};
static const char *const tls_words[] = {"none", "starttls", "tls", NULL};

const char *tb_config_tls_word(enum tb_listen_tls tls)
{
    return tls_words[tls];
}

/* complain: keep the first error as "file:line: reason"; a long path is cut at its front, so that the reason stays
 * whole. */
TB_PRINTF(2, 3) static void complain(int line, const char *fmt, ...)
{
    const char *path = loading->c->path;
    size_t len = strlen(path);
    char why[160];
    va_list ap;

    if (loading->failed)
        return;
    loading->failed = true;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (len > 100 && strlen(why) + len > 210)
        tb_error_set(loading->err, TB_INVALID, 0, "...%s:%d: %s", path + len - 60, line, why);
    else
        tb_error_set(loading->err, TB_INVALID, 0, "%s:%d: %s", path, line, why);
}

static void suggest(int line, const char *what, const char *name, const char *const *candidates)
{
    const char *near = config_suggest(name, candidates);

    if (near)
        complain(line, "unknown %s \"%.40s\"; did you mean \"%s\"?", what, name, near);
    else
        complain(line, "unknown %s \"%.40s\"", what, name);
}

/* on_error: libconfuse's own complaints; an unknown option becomes ours. */
static void on_error(cfg_t *cfg, const char *fmt, va_list ap)
{
    const char *top[KEYS_MAX + 2] = {"listen"};
    char text[160];

    if (strstr(fmt, "no such option")) {
        for (size_t i = 0; i < config_keys_n; i++)
            top[i + 1] = config_keys[i].name;
        suggest(cfg->line, "key", va_arg(ap, const char *), cfg->title ? listen_keys : top);
        return;
    }
    vsnprintf(text, sizeof(text), fmt, ap);
    complain(cfg->line, "%s", text);
}

/* on_key: a top-level key was given a value (for a list: one more element). */
static int on_key(cfg_t *cfg, cfg_opt_t *opt)
{
    size_t i = 0;
    char why[160];

    while (strcmp(config_keys[i].name, opt->name) != 0)
        i++;
    if (config_keys[i].type == CONFIG_LIST)
        return 0; /* read whole at the end: libconfuse calls us for each element and once more */
    if (loading->line[i]) {
        complain(cfg->line, "%s is set twice", opt->name);
        return -1;
    }
    loading->line[i] = cfg->line;
    if (config_set(loading->c, &config_keys[i], loading->dir, cfg_opt_getstr(opt), why))
        return 0;
    complain(cfg->line, "%s", why);
    return -1;
}

static bool listen_add(const char *protocol, const char *address, uint64_t port, enum tb_listen_tls tls, int line)
{
    struct tb_config *c = loading->c;
    struct tb_config_listen *v = realloc(c->listen, (c->listen_n + 1) * sizeof(*v));

    if (!v)
        return false;
    c->listen = v;
    v += c->listen_n++;
    *v = (struct tb_config_listen){.port = (uint16_t)port, .tls = tls, .line = line};
    v->protocol = strdup(protocol);
    v->address = config_path(strncmp(address, "unix:", 5) == 0 ? loading->dir : "", address);
    return v->protocol && v->address;
}

/* listen_block: take over the block that was just read. Its title is renamed, or libconfuse would merge the next of its
 * kind. */
static int listen_block(cfg_t *cfg, cfg_t *block)
{
    const char *port_text = cfg_getstr(block, "port"), *tls_text = cfg_getstr(block, "tls");
    uint64_t port = 0;
    size_t tls = 0, p = 0;

    while (protocols[p] && strcmp(protocols[p], block->title) != 0)
        p++;
    if (!protocols[p]) {
        suggest(cfg->line, "protocol", block->title, protocols);
        return -1;
    }
    if (port_text && (!tb_slice_u64(tb_slice_str(port_text), 65535, &port) || port == 0)) {
        complain(cfg->line, "port: \"%.40s\" is not a port number, 1 to 65535", port_text);
        return -1;
    }
    while (tls_text && tls_words[tls] && strcmp(tls_words[tls], tls_text) != 0)
        tls++;
    if (!tls_words[tls]) {
        complain(cfg->line, "tls: \"%.40s\" is none of none starttls tls", tls_text);
        return -1;
    }
    if (cfg_size(block, "address") == 0) {
        complain(cfg->line, "listen %s: address is missing", protocols[p]);
        return -1;
    }
    for (unsigned i = 0; i < cfg_size(block, "address"); i++) {
        const char *address = cfg_getnstr(block, "address", i);
        bool is_unix = strncmp(address, "unix:", 5) == 0;
        if (!is_unix && !port) {
            complain(cfg->line, "listen %s: port is missing", protocols[p]);
            return -1;
        }
        if (loading->c->listen_n == LISTEN_MAX ||
            !listen_add(protocols[p], address, is_unix ? 0 : port, (enum tb_listen_tls)tls, cfg->line)) {
            complain(cfg->line, "listen: more than %d addresses, or out of memory", LISTEN_MAX);
            return -1;
        }
    }
    free(block->title);
    return asprintf(&block->title, "(%zu)", loading->c->listen_n) < 0 ? -1 : 0;
}

static int on_listen(cfg_t *cfg, cfg_opt_t *opt)
{
    for (unsigned i = 0; i < cfg_opt_size(opt); i++) {
        cfg_t *block = cfg_opt_getnsec(opt, i);
        if (block->title && block->title[0] != '(')
            return listen_block(cfg, block);
    }
    return 0;
}

/* finish_lists: the elements of every list key. */
static bool finish_lists(cfg_t *cfg)
{
    char why[160];

    for (size_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];
        if (key->type != CONFIG_LIST)
            continue;
        for (unsigned n = 0; n < cfg_size(cfg, key->name); n++) {
            if (!config_set(loading->c, key, loading->dir, cfg_getnstr(cfg, key->name, n), why)) {
                complain(cfg->line, "%s", why);
                return false;
            }
        }
    }
    return true;
}

static int line_of(const char *key)
{
    size_t i = 0;

    while (strcmp(config_keys[i].name, key) != 0)
        i++;
    return loading->line[i];
}

/* finish: what the file did not say, and what only the whole can tell. */
static bool finish(void)
{
    struct tb_config *c = loading->c;
    bool tls, implied = c->listen_n == 0;
    static const struct {
        const char *protocol;
        uint16_t port;
    } usual[] = {{"imap", 10143}, {"pop3", 10110}, {"smtp", 10025}, {"submission", 10587}, {"lmtp", 10024}};

    TB_ASSERT(c->hostname && c->default_domain && c->tls_certificate && c->tls_key); /* each has its default */
    tls = c->tls_certificate[0] && c->tls_key[0];
    if (!c->hostname[0]) {
        char name[256] = "localhost";
        if (gethostname(name, sizeof(name) - 1) != 0 || !name[0])
            memcpy(name, "localhost", sizeof("localhost"));
        free(c->hostname);
        c->hostname = strdup(name);
    }
    if (c->hostname && !c->default_domain[0]) {
        free(c->default_domain);
        c->default_domain = strdup(c->hostname);
    }
    if (!c->hostname || !c->default_domain || (!c->local_domains && !(c->local_domains = calloc(1, sizeof(char *))))) {
        complain(0, "out of memory");
        return false;
    }
    if (!tls && (c->tls_certificate[0] || c->tls_key[0])) {
        complain(line_of(c->tls_key[0] ? "tls_key" : "tls_certificate"),
                 "tls_certificate and tls_key go together: %s is missing",
                 c->tls_key[0] ? "tls_certificate" : "tls_key");
        return false;
    }
    for (size_t i = 0; i < c->listen_n; i++) {
        if (c->listen[i].tls != TB_LISTEN_PLAIN && !tls) {
            complain(c->listen[i].line, "listen %s: tls = \"%s\" needs tls_certificate and tls_key",
                     c->listen[i].protocol, tls_words[c->listen[i].tls]);
            return false;
        }
    }
    for (size_t i = 0; implied && i < TB_ARRAY_LEN(usual); i++) {
        if (!listen_add(usual[i].protocol, "127.0.0.1", usual[i].port, tls ? TB_LISTEN_STARTTLS : TB_LISTEN_PLAIN, 0)) {
            complain(0, "out of memory");
            return false;
        }
    }
    return true;
}

/* parse: the file through libconfuse into loading->c. */
static bool parse(FILE *fp)
{
    cfg_opt_t in_listen[] = {CFG_STR_LIST("address", NULL, CFGF_NODEFAULT), CFG_STR("port", NULL, CFGF_NODEFAULT),
                             CFG_STR("tls", NULL, CFGF_NODEFAULT), CFG_END()};
    cfg_opt_t opts[KEYS_MAX + 2] = {CFG_SEC("listen", in_listen, CFGF_MULTI | CFGF_TITLE)};
    const cfg_opt_t end = CFG_END();
    cfg_t *cfg;
    bool ok;

    opts[0].validcb = on_listen;
    for (size_t i = 0; i < config_keys_n; i++) {
        cfg_opt_t text = CFG_STR(config_keys[i].name, NULL, CFGF_NODEFAULT);
        cfg_opt_t list = CFG_STR_LIST(config_keys[i].name, NULL, CFGF_NODEFAULT);
        opts[i + 1] = config_keys[i].type == CONFIG_LIST ? list : text;
        opts[i + 1].validcb = on_key;
    }
    opts[config_keys_n + 1] = end;
    cfg = cfg_init(opts, CFGF_NONE);
    if (!cfg || !(cfg->filename = strdup(loading->c->path))) {
        complain(0, "out of memory");
        if (cfg)
            cfg_free(cfg);
        return false;
    }
    cfg_set_error_function(cfg, on_error);
    ok = cfg_parse_fp(cfg, fp) == CFG_SUCCESS && !loading->failed;
    if (!ok)
        complain(cfg->line, "syntax error");
    ok = ok && finish_lists(cfg) && finish();
    cfg_free(cfg);
    return ok;
}

/* dir_of: the folder that relative paths stand on: the file's own, behind a symbolic link the one it points to. Heap.
 */
static char *dir_of(const char *path)
{
    struct stat st;
    bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    char *target = link ? realpath(path, NULL) : NULL, *dir;
    const char *file = target ? target : path, *slash = strrchr(file, '/');

    if (!slash)
        dir = strdup("");
    else
        dir = slash == file ? strdup("/") : strndup(file, (size_t)(slash - file));
    free(target);
    return dir;
}

/* open_file: a readable file that is no directory (flex ends the process when it cannot read). */
static FILE *open_file(const char *path, struct tb_error *err)
{
    FILE *fp = fopen(path, "re");
    struct stat st;

    if (fp && fstat(fileno(fp), &st) == 0 && !S_ISDIR(st.st_mode))
        return fp;
    tb_error_set(err, errno == ENOENT && !fp ? TB_NOTFOUND : TB_INVALID, fp ? EISDIR : errno, "%s:0: cannot be read",
                 path);
    if (fp)
        fclose(fp);
    return NULL;
}

enum tb_rc tb_config_load(const char *path, struct tb_config **out, struct tb_error *err)
{
    struct load load = {.err = err};
    char why[160];
    FILE *fp;
    bool ok;

    TB_ASSERT(config_keys_n <= KEYS_MAX);
    *out = NULL;
    fp = open_file(path, err);
    if (!fp)
        return TB_INVALID;
    load.c = calloc(1, sizeof(*load.c));
    load.dir = dir_of(path);
    ok = load.c && load.dir && (load.c->path = strdup(path));
    for (size_t i = 0; ok && i < config_keys_n; i++)
        ok = config_set(load.c, &config_keys[i], load.dir, config_keys[i].fallback, why);
    if (!ok)
        tb_error_set(err, TB_INVALID, 0, "%s:0: out of memory", path);
    loading = &load;
    ok = ok && parse(fp);
    loading = NULL;
    fclose(fp);
    free(load.dir);
    if (!ok) {
        tb_config_free(load.c);
        return TB_INVALID;
    }
    *out = load.c;
    return TB_OK;
}

void tb_config_free(struct tb_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < config_keys_n; i++) {
        char *field = (char *)c + config_keys[i].offset;
        switch (config_keys[i].type) {
        case CONFIG_STRING:
        case CONFIG_PATH:
        case CONFIG_WORD:
            free(*(char **)(void *)field);
            break;
        case CONFIG_LIST:
            config_list_free(*(char ***)(void *)field);
            break;
        default:
            break;
        }
    }
    for (size_t i = 0; i < c->listen_n; i++) {
        free(c->listen[i].protocol);
        free(c->listen[i].address);
    }
    free(c->listen);
    free(c->path);
    free(c);
}

/* item_of: key i of c as an item; its value is written to text. */
static struct tb_config_item item_of(const struct tb_config *c, size_t i, struct tb_buf *text)
{
    const struct config_key *key = &config_keys[i];
    char *dir = dir_of(c->path);
    char *fallback = dir && key->type == CONFIG_PATH ? config_path(dir, key->fallback) : strdup(key->fallback);
    bool is_default;

    text->len = 0;
    config_print(c, key, text);
    tb_buf_char(text, '\0');
    is_default = !text->failed && fallback && strcmp(text->ptr, fallback) == 0;
    free(fallback);
    free(dir);
    return (struct tb_config_item){.key = key->name,
                                   .type = config_type_name(key),
                                   .fallback = key->fallback,
                                   .doc = key->doc,
                                   .value = text->failed ? "" : text->ptr,
                                   .restart = !key->reload,
                                   .is_default = is_default};
}

void tb_config_each(const struct tb_config *c, void (*each)(void *user, const struct tb_config_item *item), void *user)
{
    struct tb_buf text;

    tb_buf_init(&text, 1 << 20);
    for (size_t i = 0; i < config_keys_n; i++) {
        struct tb_config_item item = item_of(c, i, &text);
        each(user, &item);
    }
    tb_buf_free(&text);
}

static bool same_listen(const struct tb_config *a, const struct tb_config *b)
{
    if (a->listen_n != b->listen_n)
        return false;
    for (size_t i = 0; i < a->listen_n; i++) {
        const struct tb_config_listen *x = &a->listen[i], *y = &b->listen[i];
        if (strcmp(x->protocol, y->protocol) != 0 || strcmp(x->address, y->address) != 0 || x->port != y->port ||
            x->tls != y->tls)
            return false;
    }
    return true;
}

void tb_config_changes(const struct tb_config *a, const struct tb_config *b,
                       void (*each)(void *user, const struct tb_config_item *item), void *user)
{
    struct tb_buf text_a, text_b;

    tb_buf_init(&text_a, 1 << 20);
    tb_buf_init(&text_b, 1 << 20);
    for (size_t i = 0; i < config_keys_n; i++) {
        struct tb_config_item x = item_of(a, i, &text_a), y = item_of(b, i, &text_b);
        if (strcmp(x.value, y.value) != 0)
            each(user, &y);
    }
    if (!same_listen(a, b)) {
        struct tb_config_item item = {
            .key = "listen", .type = "block", .fallback = "", .doc = "", .value = "", .restart = true};
        each(user, &item);
    }
    tb_buf_free(&text_a);
    tb_buf_free(&text_b);
}
