/*
 * write.c: the writer: IMAP's numbers, strings, flags and dates into the connection's output, without printf
 * and without a copy in between. It knows quoting and literals; nothing else in this room puts a quote into a
 * response.
 *
 * Invariants: what stands between base and p was written and not yet handed over; imap_out_flush hands it
 * over. Without memory the writer is dead: it swallows everything, and the connection is being closed by net.
 * Thread: the connection's owner. RFC 3501 4.3, 9.
 */
#include "imap_session.h"
#include "chars.h"

enum { OUT_FIRST = 512, OUT_CHUNK = 4 << 10 };

void imap_out_flush(struct imap_out *o)
{
    if (o->p != o->base)
        tb_conn_commit(o->conn, (size_t)(o->p - o->base));
    o->base = o->p = o->end = NULL;
}

char *imap_room_slow(struct imap_out *o, size_t n)
{
    bool fresh = !o->base; /* the first of a step: most answers are small, and an idle connection keeps no buffer */
    imap_out_flush(o);
    if (o->dead)
        return NULL;
    size_t want = fresh ? OUT_FIRST : OUT_CHUNK;
    want = want < n ? n : want;
    char *p = tb_conn_reserve(o->conn, want);
    if (!p) {
        o->dead = true;
        return NULL;
    }
    o->base = o->p = p;
    o->end = p + want;
    return p;
}

void imap_put_ranges(struct imap_out *o, const struct tb_uidset *set, size_t *at)
{
    for (size_t i = 0; *at < set->n && i < IMAP_RANGES_A_LINE; i++, ++*at) {
        const struct tb_range *r = &set->v[*at];
        char *p = imap_room(o, 2 * IMAP_U64_ROOM + 2);
        if (!p)
            return;
        if (i > 0)
            *p++ = ',';
        p = imap_fmt_u64(p, r->first);
        if (r->last > r->first) {
            *p++ = ':';
            p = imap_fmt_u64(p, r->last);
        }
        imap_wrote(o, p);
    }
}

bool imap_put_full(struct imap_out *o)
{
    imap_out_flush(o);
    return o->dead || tb_conn_full(o->conn);
}

void imap_put(struct imap_out *o, struct tb_slice s)
{
    if (s.len > OUT_CHUNK) { /* the connection has its own way with much */
        imap_out_flush(o);
        tb_conn_put(o->conn, s);
        return;
    }
    char *p = s.len > 0 ? imap_room(o, s.len) : NULL;
    if (p)
        imap_wrote(o, imap_fmt(p, s.ptr, s.len));
}

void imap_puts(struct imap_out *o, const char *s)
{
    imap_put(o, tb_slice_str(s));
}

void imap_putc(struct imap_out *o, char c)
{
    char *p = imap_room(o, 1);
    if (p) {
        *p++ = c;
        imap_wrote(o, p);
    }
}

void imap_put_u64(struct imap_out *o, uint64_t v)
{
    char *p = imap_room(o, IMAP_U64_ROOM);
    if (p)
        imap_wrote(o, imap_fmt_u64(p, v));
}

void imap_put_string(struct imap_out *o, struct tb_slice s)
{
    bool quotable = s.len <= 1000;
    for (size_t i = 0; i < s.len && quotable; i++)
        quotable = ((uint8_t)s.ptr[i] < 0x80 || o->utf8) && s.ptr[i] != '\r' && s.ptr[i] != '\n' && s.ptr[i] != '\0';
    if (!quotable || (o->utf8 && !tb_utf8_valid(s))) {
        imap_putc(o, '{');
        imap_put_u64(o, s.len);
        imap_puts(o, "}\r\n");
        imap_put(o, s);
        return;
    }
    char *p = imap_room(o, s.len * 2 + 2);
    if (!p)
        return;
    *p++ = '"';
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            *p++ = '\\';
        *p++ = s.ptr[i];
    }
    *p++ = '"';
    imap_wrote(o, p);
}

void imap_put_astring(struct imap_out *o, struct tb_slice s)
{
    bool atom = s.len > 0 && s.len <= 1000 && !tb_slice_ieq(s, TB_SLICE("NIL"));
    for (size_t i = 0; i < s.len && atom; i++)
        atom = imap_chars[(uint8_t)s.ptr[i]] & IMAP_C_ATOM;
    if (atom)
        imap_put(o, s);
    else
        imap_put_string(o, s);
}

void imap_put_mailbox(struct imap_out *o, struct tb_slice name)
{
    struct tb_buf b;
    if (o->utf8) {
        imap_put_astring(o, name);
        return;
    }
    tb_buf_init(&b, 4 * TB_MBOX_NAME_MAX + 64);
    imap_name_encode(name, &b);
    imap_put_astring(o, tb_buf_all(&b));
    tb_buf_free(&b);
}

char *imap_fmt_u64(char *p, uint64_t v)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
        "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
        "9899";
    char digits[IMAP_U64_ROOM];
    char *d = digits + sizeof digits;
    while (v >= 100) {
        d -= 2;
        memcpy(d, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v >= 10) {
        d -= 2;
        memcpy(d, pairs + v * 2, 2);
    } else {
        *--d = (char)('0' + v);
    }
    return imap_fmt(p, d, (size_t)(digits + sizeof digits - d));
}

static char *fmt_2(char *p, unsigned v)
{
    p[0] = (char)('0' + v / 10);
    p[1] = (char)('0' + v % 10);
    return p + 2;
}

char *imap_fmt_date(char *p, int64_t utc_s)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    const int64_t day_s = 86400, year_1 = -62135596800, year_10000 = 253402300800;
    if (utc_s < year_1 || utc_s >= year_10000)
        utc_s = 0;
    int64_t days = utc_s / day_s, rest = utc_s % day_s;
    if (rest < 0) {
        rest += day_s;
        days--;
    }
    /* Days to civil date: eras of 400 years that begin on 1 March. */
    days += 719468;
    int64_t era = days / 146097, doe = days % 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    unsigned day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
             month = (unsigned)(mp < 10 ? mp + 2 : mp - 10); /* 0 = January */
    unsigned year = (unsigned)(yoe + era * 400 + (month <= 1));

    *p++ = '"';
    p = fmt_2(p, day);
    if (day < 10)
        p[-2] = ' ';
    *p++ = '-';
    p = imap_fmt(p, months + month * 3, 3);
    *p++ = '-';
    p = fmt_2(p, year / 100);
    p = fmt_2(p, year % 100);
    *p++ = ' ';
    p = fmt_2(p, (unsigned)(rest / 3600));
    *p++ = ':';
    p = fmt_2(p, (unsigned)(rest / 60 % 60));
    *p++ = ':';
    p = fmt_2(p, (unsigned)(rest % 60));
    return IMAP_FMT(p, " +0000\"");
}

char *imap_fmt_flags(char *p, uint16_t flags, uint64_t keywords, const struct imap_keywords *k)
{
    char *start = p;
    *p++ = '(';
    if (flags & TB_FLAG_ANSWERED)
        p = IMAP_FMT(p, "\\Answered ");
    if (flags & TB_FLAG_FLAGGED)
        p = IMAP_FMT(p, "\\Flagged ");
    if (flags & TB_FLAG_DELETED)
        p = IMAP_FMT(p, "\\Deleted ");
    if (flags & TB_FLAG_SEEN)
        p = IMAP_FMT(p, "\\Seen ");
    if (flags & TB_FLAG_DRAFT)
        p = IMAP_FMT(p, "\\Draft ");
    for (; keywords != 0; keywords &= keywords - 1) {
        size_t bit = (size_t)__builtin_ctzll(keywords);
        if (bit >= k->n || k->names[bit].len == 0)
            continue;
        p = imap_fmt(p, k->names[bit].ptr, k->names[bit].len);
        *p++ = ' ';
    }
    if (p - start > 1)
        p--;
    *p++ = ')';
    return p;
}
