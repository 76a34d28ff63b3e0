/*
 * route.c: whose is an address? Ours is: no domain, the default domain, the hostname, a configured local
 * domain, or an account whose name is the whole address. It never lets quoting invent a name: a local part with
 * a byte that no account's name has is unknown.
 *
 * Thread: any (the directory takes a lock). RFC 5321 3.6.1, 4.5.1 (postmaster).
 */
#include "frontends/smtp/internal.h"

static bool domain_is(struct tb_slice domain, const char *ours)
{
    return ours && tb_slice_ieq(domain, tb_slice_str(ours));
}

/* Domains in which a bare local part names an account. The default domain itself is tb_name_resolve's to take off. */
static bool domain_alias(const struct tb_config *cfg, struct tb_slice domain)
{
    if (domain_is(domain, cfg->hostname))
        return true;
    for (char **d = cfg->local_domains; d && *d; d++)
        if (domain_is(domain, *d))
            return true;
    return false;
}

/* A local part that can be (part of) an account's name: "@" would be read as a domain's beginning. */
static bool plain_local(const struct smtp_path *path)
{
    for (size_t i = 0; i < path->local_len; i++)
        if (path->local[i] == '@' || path->local[i] <= ' ')
            return false;
    return path->local_len > 0;
}

enum smtp_route smtp_route(struct tb_store *store, const struct tb_config *cfg, const struct smtp_path *path,
                           char name[SMTP_NAME_BYTES], struct tb_identity *who, struct tb_slice *detail)
{
    bool alias = domain_alias(cfg, path->domain);
    bool ours = path->domain.len == 0 || alias || domain_is(path->domain, cfg->default_domain);
    *detail = tb_slice("", 0);
    if (!plain_local(path))
        return ours ? ROUTE_UNKNOWN : ROUTE_REMOTE;
    size_t len = path->local_len;
    memcpy(name, path->local, len);
    if (path->domain.len > 0) {
        name[len++] = '@';
        memcpy(name + len, path->domain.ptr, path->domain.len);
        len += path->domain.len;
    }
    if (tb_name_resolve(store, cfg, tb_slice(name, len), who, detail) == TB_OK)
        return ROUTE_LOCAL;
    if (alias && tb_name_resolve(store, cfg, tb_slice(name, path->local_len), who, detail) == TB_OK)
        return ROUTE_LOCAL;
    return ours ? ROUTE_UNKNOWN : ROUTE_REMOTE;
}
