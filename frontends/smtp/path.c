/*
 * path.c: the address parser of MAIL and RCPT, and the check of HELO's argument. Pure.
 *
 * It must never accept a byte that could end a header field or a log line: what it passes is printable ASCII
 * and blanks inside quotes only, so `mailbox` may be written into our trace fields as it stands. It gives
 * addresses no meaning (route.c does).
 *
 * Beyond the grammar we take: a missing domain (a bare account name), dots anywhere in a local part, "_" in a
 * domain.
 *
 * Any thread. RFC 5321 4.1.2 (grammar), 4.1.3 (address literals), 4.5.3.1.1 to .3 (lengths),
 * appendix C (source routes).
 */
#include <arpa/inet.h>

#include "frontends/smtp/internal.h"

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* atext (RFC 5322 3.2.3) */
static bool is_atext(char c)
{
    return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Quoted-string = DQUOTE *QcontentSMTP DQUOTE */
static bool parse_quoted(struct tb_slice in, size_t *pos, struct smtp_path *out)
{
    size_t i = *pos + 1;
    for (; i < in.len && in.ptr[i] != '"'; i++) {
        if (in.ptr[i] == '\\')
            i++;
        if (i >= in.len || in.ptr[i] < 32 || in.ptr[i] > 126 || out->local_len == SMTP_LOCAL_MAX)
            return false;
        out->local[out->local_len++] = in.ptr[i];
    }
    if (i >= in.len)
        return false;
    *pos = i + 1;
    return true;
}

/* Local-part = Dot-string / Quoted-string */
static bool parse_local(struct tb_slice in, size_t *pos, struct smtp_path *out)
{
    size_t i = *pos;
    if (i < in.len && in.ptr[i] == '"') {
        if (!parse_quoted(in, pos, out) || *pos - i > SMTP_LOCAL_MAX)
            return false;
    } else {
        while (i < in.len && (is_atext(in.ptr[i]) || in.ptr[i] == '.')) {
            if (out->local_len == SMTP_LOCAL_MAX)
                return false;
            out->local[out->local_len++] = in.ptr[i++];
        }
        if (i == *pos)
            return false;
        *pos = i;
    }
    out->local[out->local_len] = '\0';
    return true;
}

/* Domain = sub-domain *("." sub-domain); sub-domain = Let-dig [Ldh-str] */
static bool parse_domain(struct tb_slice in, size_t *pos, struct tb_slice *out)
{
    size_t start = *pos, i = start, label = start;
    for (; i <= in.len; i++) {
        char c = i < in.len ? in.ptr[i] : '\0';
        if (is_alnum(c) || c == '-' || c == '_')
            continue;
        if (i == label || i - label > 63 || in.ptr[label] == '-' || in.ptr[i - 1] == '-')
            return false;
        if (c != '.')
            break;
        label = i + 1;
    }
    if (i - start > SMTP_DOMAIN_MAX)
        return false;
    *out = tb_slice(in.ptr + start, i - start);
    *pos = i;
    return true;
}

/*
 * address-literal = "[" ( IPv4-address-literal / IPv6-address-literal ) "]"; other tags are not standardised:
 * refused.
 */
static bool parse_literal(struct tb_slice in, size_t *pos, struct tb_slice *out)
{
    size_t start = *pos, i = start + 1;
    char text[64];
    unsigned char address[16];
    while (i < in.len && in.ptr[i] != ']')
        i++;
    if (i >= in.len || i - start - 1 >= sizeof(text))
        return false;
    struct tb_slice inner = tb_slice(in.ptr + start + 1, i - start - 1);
    if (memchr(inner.ptr, '\0', inner.len))
        return false;
    int family = tb_slice_istarts(inner, TB_SLICE("IPv6:")) ? AF_INET6 : AF_INET;
    if (family == AF_INET6)
        inner = tb_slice_sub(inner, 5, inner.len);
    memcpy(text, inner.ptr, inner.len);
    text[inner.len] = '\0';
    if (inet_pton(family, text, address) != 1)
        return false;
    *out = tb_slice(in.ptr + start, i + 1 - start);
    *pos = i + 1;
    return true;
}

/* A-d-l ":" = At-domain *( "," At-domain ) ":" (appendix C: to be ignored) */
static bool skip_route(struct tb_slice in, size_t *pos)
{
    struct tb_slice domain;
    while (*pos < in.len && in.ptr[*pos] == '@') {
        ++*pos;
        if (!parse_domain(in, pos, &domain) || *pos >= in.len)
            return false;
        char c = in.ptr[(*pos)++];
        if (c == ':')
            return true;
        if (c != ',')
            return false;
    }
    return false;
}

/* Mailbox = Local-part "@" ( Domain / address-literal ); a bare Local-part is an account's name. */
static bool parse_mailbox(struct tb_slice in, size_t *pos, struct smtp_path *out)
{
    size_t start = *pos;
    if (!parse_local(in, pos, out))
        return false;
    if (*pos < in.len && in.ptr[*pos] == '@') {
        ++*pos;
        bool literal = *pos < in.len && in.ptr[*pos] == '[';
        if (!(literal ? parse_literal(in, pos, &out->domain) : parse_domain(in, pos, &out->domain)))
            return false;
    }
    out->mailbox = tb_slice(in.ptr + start, *pos - start);
    return true;
}

/* Is there a byte above 127 before the path's end? Only asked once the path is known to be bad. */
static enum smtp_path_rc why_bad(struct tb_slice in)
{
    for (size_t i = 0; i < in.len && in.ptr[i] != '>'; i++)
        if ((unsigned char)in.ptr[i] > 127)
            return PATH_EIGHT_BIT;
    return PATH_SYNTAX;
}

enum smtp_path_rc smtp_path_parse(struct tb_slice in, struct smtp_path *out, size_t *used)
{
    size_t pos = 1;
    *used = 0;
    out->mailbox = out->domain = tb_slice("", 0);
    out->local_len = 0;
    out->local[0] = '\0';
    if (in.len < 2 || in.ptr[0] != '<')
        return PATH_SYNTAX;
    if (in.ptr[1] != '>') {
        if (in.ptr[1] == '@' && !skip_route(in, &pos))
            return why_bad(in);
        if (!parse_mailbox(in, &pos, out) || pos >= in.len || in.ptr[pos] != '>')
            return why_bad(in);
    }
    if (pos + 1 > SMTP_PATH_MAX)
        return PATH_SYNTAX;
    *used = pos + 1;
    return PATH_OK;
}

bool smtp_helo_valid(struct tb_slice name)
{
    if (name.len == 0 || name.len > SMTP_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (c <= 32 || c > 126 || strchr("()<>,;\\\"", c) != NULL)
            return false;
    }
    return true;
}
