/*
 * frame.c: finds the end of one IMAP command in a growing input: its lines, its literals, and their limits.
 * It never copies, never parses more than a line's last bytes, and knows no verb: what to do about a literal
 * is the session's to decide.
 *
 * Invariants
 * F1 each input byte is looked at once (once more for the quotes of a line that ends like a literal's head).
 * F2 a literal's bytes are never taken for lines, and a line in an open quoted string never for a literal's head.
 * Thread: any; no state but the caller's. RFC 3501 2.2.1, 4.3; RFC 7888 (LITERAL+, LITERAL-); RFC 3516 (literal8).
 */
#include "imap_session.h"
#include "chars.h"

/* in_quotes: does the text end inside a quoted string? */
static bool in_quotes(const char *p, const char *end)
{
    bool open = false;
    for (; p < end; p++) {
        if (*p == '"')
            open = !open;
        else if (*p == '\\' && open && p + 1 < end)
            p++;
    }
    return open;
}

/* literal_head: does the line (without its CRLF) end in "{" number ["+"] "}"? RFC 3501 9 literal. */
static bool literal_head(const char *line, const char *end, struct imap_literal *out)
{
    const char *p = end;
    *out = (struct imap_literal){.sync = true};
    if (p == line || *--p != '}')
        return false;
    if (p > line && p[-1] == '+') {
        out->sync = false;
        p--;
    }
    const char *digits_end = p;
    while (p > line && (imap_chars[(uint8_t)p[-1]] & IMAP_C_DIGIT))
        p--;
    if (p == digits_end || p == line || p[-1] != '{')
        return false;
    for (const char *d = p; d < digits_end; d++) {
        out->size = out->size > (INT64_MAX - 9) / 10 ? INT64_MAX : out->size * 10 + (uint64_t)(*d - '0');
        out->over = out->size == INT64_MAX;
    }
    p--;
    if (p > line && p[-1] == '~')
        out->literal8 = true;
    return !in_quotes(line, p);
}

enum imap_frame_result imap_frame_next(struct imap_frame *f, const struct imap_frame_limits *limits, struct tb_slice in,
                                       struct imap_literal *literal)
{
    if (f->literal_left > 0) {
        size_t have = in.len - f->scanned;
        size_t take = have < f->literal_left ? have : (size_t)f->literal_left;
        f->scanned += take;
        f->literal_left -= take;
        if (f->literal_left > 0)
            return FRAME_MORE;
        f->line = f->scanned;
    }
    const char *lf = in.len > f->scanned ? memchr(in.ptr + f->scanned, '\n', in.len - f->scanned) : NULL;
    size_t end = lf ? (size_t)(lf - in.ptr) + 1 : in.len;
    if (end - f->line > limits->line_bytes - f->line_bytes)
        return FRAME_LONG;
    f->scanned = end;
    if (!lf)
        return FRAME_MORE;
    if (end - f->line < 2 || in.ptr[end - 2] != '\r')
        return FRAME_BARE;
    if (!literal_head(in.ptr + f->line, in.ptr + end - 2, literal))
        return FRAME_COMMAND;
    f->line_bytes += (uint32_t)(end - f->line);
    f->line = end;
    if (literal->over || literal->size > limits->literal_bytes - f->literal_bytes || f->literals >= limits->literals ||
        (!literal->sync && literal->size > limits->nonsync_bytes))
        literal->over = true;
    return FRAME_LITERAL;
}

void imap_frame_literal(struct imap_frame *f, const struct imap_literal *literal)
{
    f->literal_left = literal->size;
    f->literal_bytes += literal->size;
    f->literals++;
}
