/*
 * name.c: from what somebody typed or wrote behind RCPT TO to an account.
 *
 * A name is tried as it is, then without (or with) the default domain, then both again without "+detail"; so an account
 * whose name really holds a plus sign wins over the detail rule. Never case-sensitive: names are compared lower-cased
 * (RFC 5321 2.4 lets the receiving host decide). Any thread.
 * RFC 5233 (subaddresses), RFC 5321 4.5.1 (postmaster).
 */
#include "frontends/auth/auth.h"

#include "frontends/config/config.h"

#include <stdlib.h>

/* name is local or local@domain, in any case; an empty domain: none. */
struct parts {
    struct tb_slice local, domain;
};

static struct parts split(struct tb_slice name)
{
    const char *at = name.len > 0 ? memrchr(name.ptr, '@', name.len) : NULL;
    struct parts p = {name, TB_SLICE("")};

    if (at) {
        p.local = tb_slice(name.ptr, (size_t)(at - name.ptr));
        p.domain = tb_slice_sub(name, p.local.len + 1, SIZE_MAX);
    }
    return p;
}

static enum tb_rc find(struct tb_store *store, struct parts p, struct tb_identity *out)
{
    char text[TB_NAME_MAX];
    size_t len = p.local.len + (p.domain.len ? 1 + p.domain.len : 0);

    if (p.local.len == 0 || len > sizeof(text))
        return TB_NOTFOUND;
    memcpy(text, p.local.ptr, p.local.len);
    if (p.domain.len > 0) {
        text[p.local.len] = '@';
        memcpy(text + p.local.len + 1, p.domain.ptr, p.domain.len);
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] + ('a' - 'A'));
    }
    return tb_directory_find(store, tb_slice(text, len), out);
}

/* As it is, then with the default domain taken off or put on: user and user@default are the same account. */
static enum tb_rc find_either(struct tb_store *store, struct tb_slice home, struct parts p, struct tb_identity *out)
{
    enum tb_rc rc = find(store, p, out);

    if (rc != TB_NOTFOUND || home.len == 0)
        return rc;
    if (p.domain.len == 0)
        p.domain = home;
    else if (tb_slice_ieq(p.domain, home))
        p.domain = TB_SLICE("");
    else
        return rc;
    return find(store, p, out);
}

static bool is_ours(const struct tb_config *cfg, struct tb_slice domain)
{
    if (domain.len == 0 || (cfg->default_domain && tb_slice_ieq(domain, tb_slice_str(cfg->default_domain))) ||
        (cfg->hostname && tb_slice_ieq(domain, tb_slice_str(cfg->hostname))))
        return true;
    for (char **d = cfg->local_domains; d && *d; d++) {
        if (tb_slice_ieq(domain, tb_slice_str(*d)))
            return true;
    }
    return false;
}

enum tb_rc tb_name_resolve(struct tb_store *store, const struct tb_config *cfg, struct tb_slice name,
                           struct tb_identity *out, struct tb_slice *detail)
{
    struct tb_slice home = tb_slice_str(cfg->default_domain ? cfg->default_domain : "");
    struct parts p = split(name);
    enum tb_rc rc = find_either(store, home, p, out);
    const char *plus = p.local.len > 0 ? memchr(p.local.ptr, '+', p.local.len) : NULL;

    if (detail)
        *detail = tb_slice(name.ptr, 0);
    if (rc == TB_NOTFOUND && plus) {
        struct tb_slice behind = tb_slice_sub(p.local, (size_t)(plus - p.local.ptr) + 1, SIZE_MAX);

        p.local.len = (size_t)(plus - p.local.ptr);
        rc = find_either(store, home, p, out);
        if (rc == TB_OK && detail)
            *detail = behind;
    }
    if (rc == TB_NOTFOUND && cfg->postmaster && tb_slice_ieq(p.local, TB_SLICE("postmaster")) && is_ours(cfg, p.domain))
        rc = find_either(store, home, split(tb_slice_str(cfg->postmaster)), out);
    return rc;
}
