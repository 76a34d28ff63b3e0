/*
 * log.c: the log line: logfmt, to stderr, one write(2) a line so that lines of several threads do not mix.
 *
 * Never logs message text or secrets (its callers' duty) and never lets a stranger's bytes start a line of their own:
 * control bytes become '?'. The threshold is the only global of engine/base. Whoever runs us adds the time of day.
 */
#include <tambo/base.h>

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 2048 };

static _Atomic int threshold = TB_LOG_INFO;

void tb_log_level(enum tb_level max)
{
    atomic_store_explicit(&threshold, (int)max, memory_order_relaxed);
}

void tb_log(enum tb_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    char line[LINE_BYTES_MAX];
    size_t len;
    va_list ap;
    int head, text;

    if ((int)level > atomic_load_explicit(&threshold, memory_order_relaxed) || (unsigned)level >= TB_ARRAY_LEN(names))
        return;
    head = snprintf(line, sizeof(line), "level=%s ", names[level]);
    va_start(ap, fmt);
    text = vsnprintf(line + head, sizeof(line) - (size_t)head, fmt, ap);
    va_end(ap);
    if (text < 0)
        text = 0;
    len = (size_t)head + (size_t)text;
    if (len > sizeof(line) - 1) {
        len = sizeof(line) - 1;
        memcpy(line + len - 3, "...", 3);
    }
    for (size_t i = (size_t)head; i < len; i++) {
        unsigned char c = (unsigned char)line[i];

        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
    }
    line[len++] = '\n';
    (void)!write(STDERR_FILENO, line, len); /* nowhere left to report that the log is gone */
}
