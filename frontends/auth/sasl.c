/*
 * sasl.c: the server's side of SASL PLAIN and LOGIN: base64 lines in, a name and a password out.
 *
 * Decides nothing about them: tb_login_start does. Never keeps a decoded message: it is wiped before return.
 * One exchange is used by one thread at a time.
 * RFC 4422 (framework; 3.5 cancelling), RFC 4616 (PLAIN), RFC 4954 and RFC 9051 6.2.2 (initial responses, "=").
 * LOGIN has no RFC but clients that know nothing else.
 */
#include "frontends/auth/auth.h"

#include "engine/crypto/crypto.h"

enum { MECHANISM_PLAIN = 1, MECHANISM_LOGIN };
enum { STATE_OVER, STATE_MESSAGE, STATE_NAME, STATE_PASSWORD };
enum { MESSAGE_BYTES_MAX = 2 * TB_NAME_MAX + TB_PASSWORD_MAX + 2 };

static bool keep(struct tb_slice s, char *to, size_t max, size_t *len)
{
    if (s.len == 0 || s.len > max)
        return false;
    memcpy(to, s.ptr, s.len);
    to[s.len] = '\0';
    *len = s.len;
    return true;
}

static bool keep_name(struct tb_sasl *s, struct tb_slice name)
{
    return !memchr(name.ptr, '\0', name.len) && keep(name, s->name, TB_NAME_MAX, &s->name_len);
}

static bool keep_password(struct tb_sasl *s, struct tb_slice password)
{
    return keep(password, s->password, TB_PASSWORD_MAX, &s->password_len);
}

/* message = [authzid] NUL authcid NUL passwd (RFC 4616 section 2) */
static bool take_plain(struct tb_sasl *s, struct tb_slice message)
{
    const char *first = memchr(message.ptr, '\0', message.len);
    struct tb_slice authzid, authcid, rest;
    const char *second;

    if (!first)
        return false;
    authzid = tb_slice(message.ptr, (size_t)(first - message.ptr));
    rest = tb_slice_sub(message, authzid.len + 1, SIZE_MAX);
    second = rest.len > 0 ? memchr(rest.ptr, '\0', rest.len) : NULL;
    if (!second)
        return false;
    authcid = tb_slice(rest.ptr, (size_t)(second - rest.ptr));
    rest = tb_slice_sub(rest, authcid.len + 1, SIZE_MAX);
    if (rest.len == 0 || memchr(rest.ptr, '\0', rest.len))
        return false;
    if (authzid.len > 0 && !tb_slice_ieq(authzid, authcid))
        return false;
    return keep_name(s, authcid) && keep_password(s, rest);
}

static enum tb_sasl_step take(struct tb_sasl *s, struct tb_slice message, const char **challenge)
{
    bool ok = false;

    switch (s->state) {
    case STATE_MESSAGE:
        ok = take_plain(s, message);
        break;
    case STATE_NAME:
        if (keep_name(s, message)) {
            s->state = STATE_PASSWORD;
            *challenge = "UGFzc3dvcmQ6"; /* "Password:" */
            return SASL_CHALLENGE;
        }
        break;
    case STATE_PASSWORD:
        ok = keep_password(s, message);
        break;
    default:
        break;
    }
    s->state = STATE_OVER;
    return ok ? SASL_READY : SASL_FAIL_SYNTAX;
}

static enum tb_sasl_step decode(struct tb_sasl *s, struct tb_slice text, const char **challenge)
{
    enum tb_sasl_step step = SASL_FAIL_SYNTAX;
    struct tb_buf message;

    tb_buf_init(&message, MESSAGE_BYTES_MAX);
    if (tb_base64_decode(text, &message) && tb_buf_reserve(&message, 0))
        step = take(s, tb_buf_all(&message), challenge);
    else
        s->state = STATE_OVER;
    if (message.ptr)
        explicit_bzero(message.ptr, message.cap);
    tb_buf_free(&message);
    return step;
}

enum tb_sasl_step tb_sasl_begin(struct tb_sasl *s, struct tb_slice mechanism, struct tb_slice initial,
                                const char **challenge)
{
    memset(s, 0, sizeof(*s));
    *challenge = "";
    if (tb_slice_ieq(mechanism, TB_SLICE("PLAIN"))) {
        s->mechanism = MECHANISM_PLAIN;
        s->state = STATE_MESSAGE;
    } else if (tb_slice_ieq(mechanism, TB_SLICE("LOGIN"))) {
        s->mechanism = MECHANISM_LOGIN;
        s->state = STATE_NAME;
    } else {
        return SASL_UNKNOWN;
    }
    if (initial.ptr)
        return decode(s, tb_slice_eq(initial, TB_SLICE("=")) ? TB_SLICE("") : initial, challenge);
    if (s->mechanism == MECHANISM_LOGIN)
        *challenge = "VXNlcm5hbWU6"; /* "Username:" */
    return SASL_CHALLENGE;
}

enum tb_sasl_step tb_sasl_next(struct tb_sasl *s, struct tb_slice line, const char **challenge)
{
    *challenge = "";
    if (tb_slice_eq(line, TB_SLICE("*"))) {
        s->state = STATE_OVER;
        return SASL_CANCELLED;
    }
    return decode(s, line, challenge);
}

void tb_sasl_wipe(struct tb_sasl *s)
{
    explicit_bzero(s, sizeof(*s));
}
