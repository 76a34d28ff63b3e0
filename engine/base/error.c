/*
 * error.c: result codes in words, and the detail that goes with them.
 *
 * Never allocates: an error about missing memory must still be told. Any thread.
 */
#include <tambo/base.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *tb_rc_text(enum tb_rc rc)
{
    static const char *const text[] = {
#define X(name, words) [TB_##name] = words,
        TB_RC_LIST(X)
#undef X
    };

    if ((unsigned)rc >= TB_ARRAY_LEN(text))
        return "unknown result";
    return text[rc];
}

enum tb_rc tb_error_set(struct tb_error *err, enum tb_rc rc, int sys, const char *fmt, ...)
{
    char words[96];
    va_list ap;
    int n;

    if (!err)
        return rc;
    err->rc = rc;
    err->sys = sys;
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0;
    if (sys != 0 && (size_t)n < sizeof(err->text)) {
        const char *s = strerror_r(sys, words, sizeof(words));

        (void)snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", s);
    }
    return rc;
}

_Noreturn void tb_assert_failed(const char *file, int line, const char *cond)
{
    tb_log(TB_LOG_ERROR, "assertion failed file=%s line=%d cond=\"%s\"", file, line, cond);
    abort();
}
