/*
 * date.c: dates of headers and of the protocol.
 *
 * Proleptic Gregorian calendar, no time zone database, no locale, no clock. Years 1900 to 9999. Pure.
 * RFC 5322 3.3 and 4.3 (date-time, obs-zone), RFC 9051 section 9 (date-time, date-day-fixed).
 */
#include "engine/mime/mime.h"

#include <stdio.h>

static const char month_names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char day_names[7][4] = {"Thu", "Fri", "Sat", "Sun",
                                     "Mon", "Tue", "Wed"}; /* 1 January 1970 was a Thursday */
enum { DAY_S = 86400 };

/* Days since 1970: the year is taken to begin in March, so that the leap day comes last. */
static int32_t civil_to_day(int year, int month, int day)
{
    int y = month <= 2 ? year - 1 : year, m = month <= 2 ? month + 9 : month - 3;
    int era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + (m * 153 + 2) / 5 + day - 1 - 719468;
}

static void day_to_civil(int32_t day, int *year, int *month, int *mday)
{
    int32_t z = day + 719468, era = (z >= 0 ? z : z - 146096) / 146097, of_era = z - era * 146097;
    int32_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int32_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
    *mday = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = y + era * 400 + (*month <= 2);
}

bool tb_date_civil_day(int year, int month, int day, int32_t *out)
{
    static const int8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 1900 || year > 9999 || month < 1 || month > 12)
        return false;
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day < 1 || day > days[month - 1] + (leap && month == 2))
        return false;
    *out = civil_to_day(year, month, day);
    return true;
}

int32_t tb_date_day(int64_t utc_s, int32_t zone_min)
{
    int64_t local;
    if (__builtin_add_overflow(utc_s, (int64_t)zone_min * 60, &local))
        local = utc_s;
    int64_t day = local / DAY_S - (local % DAY_S < 0);
    return day > INT32_MAX ? INT32_MAX : day < INT32_MIN ? INT32_MIN : (int32_t)day;
}

/* ---- writing ---- */

/* The stored time, kept to the years that have four digits. */
static int64_t clamp(int64_t utc_s)
{
    const int64_t first = -62135596800, last = 253402300799; /* years 1 and 9999 */
    return utc_s < first ? first : utc_s > last ? last : utc_s;
}

struct clock_time {
    int year, month, day, hour, minute, second, weekday;
};

static struct clock_time split(int64_t utc_s)
{
    struct clock_time t;
    utc_s = clamp(utc_s);
    int32_t day = tb_date_day(utc_s, 0);
    int s = (int)(utc_s - (int64_t)day * DAY_S);
    day_to_civil(day, &t.year, &t.month, &t.day);
    t.hour = s / 3600;
    t.minute = s / 60 % 60;
    t.second = s % 60;
    t.weekday = (day % 7 + 7) % 7;
    return t;
}

void tb_date_internal_write(int64_t utc_s, struct tb_buf *out)
{
    char text[64];
    struct clock_time t = split(utc_s);
    int n = snprintf(text, sizeof(text), "%2d-%s-%04d %02d:%02d:%02d +0000", t.day, month_names[t.month - 1], t.year,
                     t.hour, t.minute, t.second);
    tb_buf_put(out, text, (size_t)n);
}

void tb_date_rfc5322_write(int64_t utc_s, struct tb_buf *out)
{
    char text[64];
    struct clock_time t = split(utc_s);
    int n = snprintf(text, sizeof(text), "%s, %d %s %04d %02d:%02d:%02d +0000", day_names[t.weekday], t.day,
                     month_names[t.month - 1], t.year, t.hour, t.minute, t.second);
    tb_buf_put(out, text, (size_t)n);
}

/* ---- reading ---- */

static int month_of(struct tb_slice s)
{
    if (s.len < 3)
        return 0;
    for (int i = 0; i < 12; i++) {
        if (tb_slice_istarts(s, tb_slice(month_names[i], 3)))
            return i + 1;
    }
    return 0;
}

static bool digits(struct tb_slice s, size_t at, size_t n, int *out)
{
    uint64_t v;
    if (s.len < at + n || !tb_slice_u64(tb_slice(s.ptr + at, n), 9999, &v))
        return false;
    *out = (int)v;
    return true;
}

/* "+hhmm" in minutes. */
static bool zone_number(struct tb_slice s, int32_t *out)
{
    int hours, minutes;
    if (s.len != 5 || (s.ptr[0] != '+' && s.ptr[0] != '-') || !digits(s, 1, 2, &hours) || !digits(s, 3, 2, &minutes) ||
        hours > 23 || minutes > 59)
        return false;
    *out = (hours * 60 + minutes) * (s.ptr[0] == '-' ? -1 : 1);
    return true;
}

bool tb_date_internal_parse(struct tb_slice s, int64_t *utc_s)
{
    int day, year, hour, minute, second;
    int32_t number, zone;
    if (s.len != 26 || s.ptr[2] != '-' || s.ptr[6] != '-' || s.ptr[11] != ' ' || s.ptr[14] != ':' || s.ptr[17] != ':' ||
        s.ptr[20] != ' ')
        return false;
    bool one_digit = s.ptr[0] == ' ';
    if (!digits(s, one_digit, one_digit ? 1 : 2, &day) || !digits(s, 7, 4, &year) || !digits(s, 12, 2, &hour) ||
        !digits(s, 15, 2, &minute) || !digits(s, 18, 2, &second) || !zone_number(tb_slice_sub(s, 21, 5), &zone))
        return false;
    if (hour > 23 || minute > 59 || second > 60 ||
        !tb_date_civil_day(year, month_of(tb_slice_sub(s, 3, 3)), day, &number))
        return false;
    *utc_s = (int64_t)number * DAY_S + hour * 3600 + minute * 60 + second - (int64_t)zone * 60;
    return true;
}

/* The next word: letters, digits, ':', '+', '-', '.'; commas, blanks and comments come between. */
static struct tb_slice next_word(struct tb_slice *s)
{
    const char *p = s->ptr, *end = p + s->len;
    while (p < end && (tb_mime_blank(*p) || *p == ',' || *p == '('))
        p = *p == '(' ? tb_mime_skip_comment(p, end) : p + 1;
    const char *from = p;
    while (p < end && !tb_mime_blank(*p) && *p != ',' && *p != '(')
        p++;
    *s = tb_slice(p, (size_t)(end - p));
    return tb_slice(from, (size_t)(p - from));
}

static bool alpha(struct tb_slice s)
{
    return s.len > 0 && tb_mime_lower(s.ptr[0]) >= 'a' && tb_mime_lower(s.ptr[0]) <= 'z';
}

/* hh:mm or hh:mm:ss, one digit for the hour allowed. Seconds within the day, or -1. */
static int time_of(struct tb_slice s)
{
    int part[3] = {0, 0, 0};
    for (int i = 0; i < 3 && s.len > 0; i++) {
        size_t n = 0;
        while (n < s.len && s.ptr[n] != ':')
            n++;
        if (n > 2 || !digits(s, 0, n, &part[i]))
            return -1;
        s = tb_slice_sub(s, n + 1, s.len);
        if (i == 0 && s.len == 0)
            return -1;
    }
    if (s.len > 0 || part[0] > 23 || part[1] > 59 || part[2] > 60)
        return -1;
    return part[0] * 3600 + part[1] * 60 + part[2];
}

/* RFC 5322 4.3: two digits 00 to 49 are 20xx, 50 to 99 and all of three digits are 19xx on. -1 if it is no year. */
static int year_of(struct tb_slice s)
{
    uint64_t v;
    if (s.len < 2 || !tb_slice_u64(s, 9999, &v))
        return -1;
    if (s.len == 2)
        return (int)v + (v < 50 ? 2000 : 1900);
    return (int)v + (s.len == 3 ? 1900 : 0);
}

/* RFC 5322 4.3 obs-zone; unknown names and impossible offsets are +0000. */
static int32_t zone_of(struct tb_slice s)
{
    static const struct {
        char name[4];
        int16_t minutes;
    } zones[] = {{"EDT", -240}, {"EST", -300}, {"CDT", -300}, {"CST", -360},
                 {"MDT", -360}, {"MST", -420}, {"PDT", -420}, {"PST", -480}};
    int32_t minutes;
    if (zone_number(s, &minutes))
        return minutes;
    for (size_t i = 0; i < TB_ARRAY_LEN(zones); i++) {
        if (tb_slice_ieq(s, tb_slice(zones[i].name, 3)))
            return zones[i].minutes;
    }
    return 0;
}

bool tb_date_parse(struct tb_slice text, struct tb_date *out)
{
    uint64_t day, ignored;
    int32_t number;
    struct tb_slice zone;
    int year, seconds;
    struct tb_slice s = tb_slice_sub(text, 0, 1024), word = next_word(&s);
    if (alpha(word) && month_of(word) == 0)
        word = next_word(&s); /* the day's name */
    int month = alpha(word) ? month_of(word) : 0;
    if (month > 0) { /* asctime: "Sep 17 00:00:00 2001" */
        if (!tb_slice_u64(next_word(&s), 31, &day))
            return false;
        seconds = time_of(next_word(&s));
        word = next_word(&s);
        zone = alpha(word) || (word.len == 5 && !tb_slice_u64(word, 99999, &ignored)) ? word : TB_SLICE("");
        year = year_of(zone.len > 0 ? next_word(&s) : word);
    } else {
        if (!tb_slice_u64(word, 31, &day))
            return false;
        month = month_of(next_word(&s));
        year = year_of(next_word(&s));
        seconds = time_of(next_word(&s));
        zone = next_word(&s);
    }
    if (year < 0 || seconds < 0 || !tb_date_civil_day(year, month, (int)day, &number))
        return false;
    out->zone_min = zone_of(zone);
    out->utc_s = (int64_t)number * DAY_S + seconds - (int64_t)out->zone_min * 60;
    return true;
}
