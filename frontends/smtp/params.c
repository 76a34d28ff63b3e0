/*
 * params.c: the parameters behind MAIL's and RCPT's path. Pure. A parameter we did not offer is an error, never
 * ignored: the client asked for something that it would not get.
 *
 * Any thread. RFC 5321 4.1.2 (esmtp-param), 4.1.1.11 (555), RFC 1870 (SIZE), RFC 6152 (BODY), RFC 4954 5 (AUTH=).
 */
#include "frontends/smtp/internal.h"

struct param {
    struct tb_slice keyword, value;
    bool has_value;
};

/*
 * esmtp-param = esmtp-keyword ["=" esmtp-value]
 * False: malformed. At the end of in: true with an empty keyword.
 */
static bool next_param(struct tb_slice *in, struct param *p)
{
    size_t i = 0;
    *p = (struct param){{"", 0}, {"", 0}, false};
    while (i < in->len && in->ptr[i] == ' ')
        i++;
    size_t start = i;
    for (; i < in->len && in->ptr[i] != ' ' && in->ptr[i] != '='; i++) {
        char c = in->ptr[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && !(c == '-' && i > start))
            return false;
    }
    p->keyword = tb_slice(in->ptr + start, i - start);
    if (i < in->len && in->ptr[i] == '=') {
        size_t value = ++i;
        for (; i < in->len && in->ptr[i] != ' '; i++)
            if (in->ptr[i] < 33 || in->ptr[i] > 126 || in->ptr[i] == '=')
                return false;
        p->value = tb_slice(in->ptr + value, i - value);
        p->has_value = true;
        if (p->value.len == 0 || p->keyword.len == 0)
            return false;
    }
    *in = tb_slice_sub(*in, i, in->len);
    return true;
}

/* size-value = 1*20DIGIT (RFC 1870 3) */
static enum smtp_params_rc check_size(struct tb_slice v, uint64_t size_max)
{
    uint64_t size;
    if (v.len == 0 || v.len > 20)
        return PARAMS_SYNTAX;
    for (size_t i = 0; i < v.len; i++)
        if (v.ptr[i] < '0' || v.ptr[i] > '9')
            return PARAMS_SYNTAX;
    return tb_slice_u64(v, size_max, &size) ? PARAMS_OK : PARAMS_HUGE;
}

static bool is_body(struct tb_slice v)
{
    return tb_slice_ieq(v, TB_SLICE("7BIT")) || tb_slice_ieq(v, TB_SLICE("8BITMIME"));
}

enum smtp_params_rc smtp_params_mail(struct tb_slice in, bool auth, uint64_t size_max)
{
    enum { SIZE = 1, BODY = 2, AUTH = 4 };
    unsigned seen = 0, now;
    enum smtp_params_rc rc = PARAMS_OK;
    struct param p;
    for (;;) {
        if (!next_param(&in, &p))
            return PARAMS_SYNTAX;
        if (p.keyword.len == 0)
            return rc;
        if (tb_slice_ieq(p.keyword, TB_SLICE("SIZE"))) {
            now = SIZE;
            enum smtp_params_rc size = check_size(p.value, size_max);
            if (size == PARAMS_SYNTAX)
                return PARAMS_SYNTAX;
            if (size == PARAMS_HUGE)
                rc = PARAMS_HUGE;
        } else if (tb_slice_ieq(p.keyword, TB_SLICE("BODY"))) {
            now = BODY;
            if (!is_body(p.value))
                return PARAMS_SYNTAX;
        } else if (auth && tb_slice_ieq(p.keyword, TB_SLICE("AUTH"))) {
            now = AUTH;
            if (!p.has_value)
                return PARAMS_SYNTAX;
        } else {
            return PARAMS_UNKNOWN;
        }
        if (seen & now)
            return PARAMS_SYNTAX;
        seen |= now;
    }
}

enum smtp_params_rc smtp_params_rcpt(struct tb_slice in)
{
    struct param p;
    if (!next_param(&in, &p))
        return PARAMS_SYNTAX;
    return p.keyword.len == 0 ? PARAMS_OK : PARAMS_UNKNOWN;
}
