/*
 * trace.c: the block that final delivery puts before a message: Return-Path and one Received field. Pure.
 *
 * Every part was checked where it came in (path.c, smtp_helo_valid), so no byte here can end a field early.
 * Nothing else is ever added to a message.
 *
 * Any thread. RFC 5321 4.4, RFC 3848 (ESMTPA, ESMTPS, ...), RFC 5322 3.3 (date-time).
 */
#include <time.h>

#include "frontends/smtp/internal.h"

const char *smtp_trace_with(bool lmtp, bool esmtp, bool secure, bool authenticated)
{
    static const char *const words[2][4] = {{"ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"},
                                            {"LMTP", "LMTPA", "LMTPS", "LMTPSA"}};
    return lmtp || esmtp ? words[lmtp][(secure ? 2 : 0) + (authenticated ? 1 : 0)] : "SMTP";
}

static void put_two(struct tb_buf *out, int v)
{
    tb_buf_char(out, (char)('0' + v / 10 % 10));
    tb_buf_char(out, (char)('0' + v % 10));
}

/* date-time, in UTC */
static void put_date(struct tb_buf *out, int64_t now_s)
{
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)now_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm))
        memset(&tm, 0, sizeof(tm));
    tb_buf_put(out, days + 3 * tm.tm_wday, 3);
    tb_buf_str(out, ", ");
    put_two(out, tm.tm_mday);
    tb_buf_char(out, ' ');
    tb_buf_put(out, months + 3 * tm.tm_mon, 3);
    tb_buf_char(out, ' ');
    tb_buf_u64(out, (uint64_t)tm.tm_year + 1900);
    tb_buf_char(out, ' ');
    put_two(out, tm.tm_hour);
    tb_buf_char(out, ':');
    put_two(out, tm.tm_min);
    tb_buf_char(out, ':');
    put_two(out, tm.tm_sec);
    tb_buf_str(out, " +0000\r\n");
}

void smtp_trace_write(const struct smtp_trace *t, struct tb_buf *out)
{
    bool number = strcmp(t->peer, "unix") != 0;
    tb_buf_str(out, "Return-Path: <");
    tb_buf_slice(out, t->from);
    tb_buf_str(out, ">\r\nReceived: from ");
    tb_buf_str(out, t->helo);
    tb_buf_str(out, !number ? " (local" : strchr(t->peer, ':') ? " ([IPv6:" : " ([");
    if (number)
        tb_buf_str(out, t->peer);
    tb_buf_str(out, number ? "])\r\n\tby " : ")\r\n\tby ");
    tb_buf_str(out, t->host);
    tb_buf_str(out, " with ");
    tb_buf_str(out, t->with);
    tb_buf_str(out, " id ");
    tb_buf_str(out, t->id);
    if (t->rcpt.len > 0) {
        tb_buf_str(out, "\r\n\tfor <");
        tb_buf_slice(out, t->rcpt);
        tb_buf_char(out, '>');
    }
    tb_buf_str(out, ";\r\n\t");
    put_date(out, t->now_s);
}
