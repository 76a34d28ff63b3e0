/*
 * data.c: the stream machine of message text: finds the one true end of DATA, takes dot-stuffing off, sees bare
 * CR and LF. Pure.
 *
 * It must never take anything but CRLF.CRLF for the end, however the bytes are cut, and never copies: what it
 * yields are parts of its input. A message with a CR or LF outside a CRLF pair, or with a line that some other
 * server would read as the end (a dot and NULs alone), is marked bare and read to its true end: that is how
 * SMTP smuggling is refused. Other NULs and all 8-bit bytes pass unchanged. BDAT's octets go through the same
 * machine without the dots.
 *
 * Invariants
 *   D1 cutting the input anywhere changes neither the concatenated output, nor ended, bare and received, nor
 *      where the end is.
 *   D2 no byte behind the end is consumed.
 * Cost: most bytes are seen only by scan(), 64 at a time. Any thread.
 * RFC 5321 2.3.8, 4.1.1.4 (lines, end of data), 4.5.2 (transparency), 6.3 (Received count); RFC 3030 2 (BDAT).
 */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "frontends/smtp/internal.h"

enum {
    LINE,    /* after CRLF, or before the first byte */
    TEXT,    /* inside a line */
    CR,      /* after a CR */
    DOT,     /* "." begins the line (with dots: dropped already) */
    DOT_CR,  /* ".\r" is all of the line */
    NULS,    /* NULs alone so far */
    NUL_DOT, /* NULs and one dot so far, in any order */
    NUL_DOT_CR,
};

#ifdef __SSE2__
/* eq_mask: bit i is set where p[i] == c, for 64 bytes. */
static inline uint64_t eq_mask(const char *p, char c)
{
    __m128i want = _mm_set1_epi8(c);
    uint64_t mask = 0;
    for (int i = 0; i < 4; i++) {
        __m128i have = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
        mask |= (uint64_t)(uint16_t)_mm_movemask_epi8(_mm_cmpeq_epi8(have, want)) << (16 * i);
    }
    return mask;
}

/*
 * scan_blocks: pass whole blocks of 64 bytes; stops before the first byte that needs the machine: an LF not
 * after CR, anything but LF after CR, a dot or NUL at a line's start. *state is right for the byte at the
 * returned offset.
 */
static size_t scan_blocks(const char *p, size_t n, uint8_t *state)
{
    uint64_t after_cr = *state == CR, after_lf = *state == LINE;
    for (size_t i = 0; i + 64 <= n; i += 64) {
        uint64_t cr = eq_mask(p + i, '\r'), lf = eq_mask(p + i, '\n');
        uint64_t follows_cr = cr << 1 | after_cr, starts = lf << 1 | after_lf;
        uint64_t odd = (lf ^ follows_cr) | (starts & (eq_mask(p + i, '.') | eq_mask(p + i, '\0')));
        if (odd) {
            int at = __builtin_ctzll(odd);
            *state = follows_cr >> at & 1 ? CR : starts >> at & 1 ? LINE : TEXT;
            return i + (size_t)at;
        }
        after_cr = cr >> 63;
        after_lf = lf >> 63;
    }
    *state = after_cr ? CR : after_lf ? LINE : TEXT;
    return n / 64 * 64;
}
#endif

/*
 * scan: from one of LINE, TEXT, CR, pass all that needs no attention; *state is right for the byte at the
 * returned offset.
 */
static size_t scan(const char *p, size_t n, uint8_t *state)
{
    size_t i = 0;
#ifdef __SSE2__
    i = scan_blocks(p, n, state);
    if (n - i >= 64)
        return i;
#endif
    uint8_t st = *state;
    for (; i < n; i++) {
        char c = p[i];
        if (st == CR ? c != '\n' : c == '\n' || (st == LINE && (c == '.' || c == '\0')))
            break;
        st = st == CR ? LINE : c == '\r' ? CR : TEXT;
    }
    *state = st;
    return i;
}

/* count_received: Received fields among these bytes of the header; ends at the empty line. */
static void count_received(struct smtp_data *d, struct tb_slice s)
{
    static const char name[] = "received:";
    enum { SKIP = sizeof(name) };
    size_t i = 0;
    while (i < s.len) {
        if (d->match == SKIP) {
            const char *lf = memchr(s.ptr + i, '\n', s.len - i);
            if (!lf)
                return;
            i = (size_t)(lf - s.ptr) + 1;
            d->match = 0;
            continue;
        }
        char c = s.ptr[i];
        if (d->match == 0 && c == '\r') {
            d->header = false;
            return;
        }
        if (c >= 'A' && c <= 'Z')
            c = (char)(c | 32);
        if (c != name[d->match]) {
            d->match = SKIP;
            continue;
        }
        i++;
        if (++d->match == sizeof(name) - 1) {
            d->received++;
            d->match = SKIP;
        }
    }
}

/* ordinary: the state after a byte that is not special where it stands. */
static uint8_t ordinary(struct smtp_data *d, char c)
{
    if (c == '\n')
        d->bare = true;
    return c == '\r' ? CR : TEXT;
}

/* after_cr: the state after the byte behind a CR. */
static uint8_t after_cr(struct smtp_data *d, char c)
{
    if (c == '\n')
        return LINE;
    d->bare = true;
    return c == '\r' ? CR : TEXT;
}

/* advance: one byte that scan() stopped at, or that follows a special line start. */
static void advance(struct smtp_data *d, char c)
{
    switch (d->state) {
    case LINE:
        d->state = c == '.' ? DOT : c == '\0' ? NULS : ordinary(d, c);
        break;
    case DOT:
        if (c == '\r')
            d->state = d->dots ? DOT_CR : CR;
        else
            d->state = c == '\0' ? NUL_DOT : ordinary(d, c);
        break;
    case DOT_CR:
        if (c == '\n')
            d->ended = true;
        else
            d->state = after_cr(d, c);
        break;
    case NULS:
        d->state = c == '\0' ? NULS : c == '.' ? NUL_DOT : ordinary(d, c);
        break;
    case NUL_DOT:
        d->state = c == '\0' ? NUL_DOT : c == '\r' ? NUL_DOT_CR : ordinary(d, c);
        break;
    case NUL_DOT_CR:
        d->bare = true;
        d->state = after_cr(d, c);
        break;
    case CR:
        d->state = after_cr(d, c);
        break;
    default:
        d->state = ordinary(d, c);
        break;
    }
}

void smtp_data_init(struct smtp_data *d, bool dots)
{
    *d = (struct smtp_data){.state = LINE, .dots = dots, .header = true};
}

size_t smtp_data_next(struct smtp_data *d, struct tb_slice in, struct tb_slice *out)
{
    size_t i = 0, from = 0, end = in.len;
    while (i < in.len) {
        if (d->state <= CR) {
            i += scan(in.ptr + i, in.len - i, &d->state);
            if (i == in.len)
                break;
        }
        bool line = d->state == LINE, held = d->state == DOT && d->dots;
        char c = in.ptr[i++];
        advance(d, c);
        if (d->dots && line && c == '.') { /* RFC 5321 4.5.2: the dot is not text */
            if (i - 1 > from) {
                end = i - 1;
                break;
            }
            from = i;
        } else if ((held && d->state == DOT_CR) || d->ended) {
            from = i;
            if (d->ended)
                break;
        }
    }
    if (end == in.len)
        end = i;
    *out = tb_slice(in.ptr + from, end - from);
    if (d->header)
        count_received(d, *out);
    return i;
}

void smtp_data_finish(struct smtp_data *d)
{
    if (d->state == CR || d->state == NUL_DOT_CR)
        d->bare = true;
    d->ended = true;
}
