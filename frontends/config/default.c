/*
 * default.c: the configuration file that `tambo init` writes: what was chosen, the listeners, and every other key with
 * its explanation, commented out at its default. It must load as it is (tests/unit/config).
 */
#include "frontends/config/table.h"

struct listener {
    const char *protocol;
    uint32_t port;
    const char *tls;
    const char *remark;
};
static const struct listener listeners[] = {
    {"imap", 143, "starttls", ""},
    {"imap", 993, "tls", "IMAPS"},
    {"pop3", 110, "starttls", ""},
    {"pop3", 995, "tls", "POP3S"},
    {"smtp", 25, "starttls", ""},
    {"submission", 587, "starttls", ""},
    {"submission", 465, "tls", "submissions"},
    {"lmtp", 24, "none", "where your MTA delivers"},
};

/* quoted: text as a double-quoted libconfuse string. */
static void quoted(struct tb_buf *out, const char *text)
{
    tb_buf_char(out, '"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\' || *text == '$')
            tb_buf_char(out, '\\');
        tb_buf_char(out, *text);
    }
    tb_buf_char(out, '"');
}

/* chosen: what init decides for this key, or NULL to leave it at its default. */
static const char *chosen(const char *key, const char *hostname)
{
    if (strcmp(key, "hostname") == 0 || strcmp(key, "default_domain") == 0)
        return hostname;
    if (strcmp(key, "tls_certificate") == 0)
        return "tls.crt";
    if (strcmp(key, "tls_key") == 0)
        return "tls.key";
    if (strcmp(key, "store") == 0)
        return "store";
    if (strcmp(key, "control") == 0)
        return "control.sock";
    return NULL;
}

static void write_key(struct tb_buf *out, const struct config_key *key, const char *value)
{
    bool number = key->type >= CONFIG_NUMBER;

    tb_buf_str(out, "# ");
    tb_buf_str(out, key->doc);
    if (key->reload)
        tb_buf_str(out, " (reloadable)");
    tb_buf_char(out, '\n');
    if (!value)
        tb_buf_str(out, "#");
    tb_buf_str(out, key->name);
    tb_buf_str(out, " = ");
    if (!value)
        value = key->fallback;
    if (key->type == CONFIG_LIST)
        tb_buf_str(out, "{}");
    else if (number)
        tb_buf_str(out, value);
    else
        quoted(out, value);
    tb_buf_str(out, "\n\n");
}

void tb_config_write_default(const char *dir, const char *hostname, uint32_t port_offset, struct tb_buf *out)
{
    tb_buf_str(out, "# Configuration of tambod, made by `tambo init ");
    for (const char *p = dir; *p; p++)
        tb_buf_char(out, (unsigned char)*p < ' ' ? '?' : *p);
    tb_buf_str(out, "`. tambo.conf(5) explains it; `tambod -c FILE -t` checks it.\n"
                    "# Relative paths are taken from this file's folder. Numbers may have units: 30m, 100M.\n"
                    "# kill -HUP reloads what is marked so; the rest needs a restart.\n\n");
    for (size_t i = 0; i < config_keys_n; i++)
        write_key(out, &config_keys[i], chosen(config_keys[i].name, hostname));
    tb_buf_str(
        out,
        "# Listeners: any number of blocks `listen PROTOCOL { address = ... port = ... tls = ... }`.\n"
        "# PROTOCOL: imap pop3 smtp submission lmtp. tls: none, starttls, or tls (from the first byte).\n"
        "# address: an IPv4 or IPv6 address, \"unix:/path\", or a list of them. An IPv6 address is left out, with a\n"
        "# warning, where the machine has no IPv6.\n");
    for (size_t i = 0; i < TB_ARRAY_LEN(listeners); i++) {
        const struct listener *l = &listeners[i];
        tb_buf_str(out, "listen ");
        tb_buf_str(out, l->protocol);
        tb_buf_str(out, " { address = { \"127.0.0.1\", \"::1\"");
        tb_buf_str(out, strcmp(l->protocol, "lmtp") == 0 ? ", \"unix:lmtp.sock\" } port = " : " } port = ");
        tb_buf_u64(out, l->port + port_offset);
        tb_buf_str(out, " tls = \"");
        tb_buf_str(out, l->tls);
        tb_buf_str(out, "\" }");
        if (l->remark[0]) {
            tb_buf_str(out, " # ");
            tb_buf_str(out, l->remark);
        }
        tb_buf_char(out, '\n');
    }
}
