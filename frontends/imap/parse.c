/*
 * parse.c: the grammar of IMAP commands: a complete command in, arguments in the arena out. Pure functions,
 * one for each ABNF rule, with the rule above it. They never see the session, never read past the slice, and
 * recurse nowhere but through imap_deeper, which stops at IMAP_DEPTH_MAX.
 *
 * Invariants: a failure is sticky; after it the parser stands at its end, so every loop ends, and every
 * function returns an empty value. Thread: any. RFC 3501 9; RFC 7888; RFC 9051 9 where it only widens (UTF-8
 * in quoted strings) and in names; RFC 6855 3.
 */
#include "imap_session.h"
#include "chars.h"

void imap_parser_init(struct imap_parser *p, struct tb_slice text, struct tb_arena *arena)
{
    *p = (struct imap_parser){.p = text.ptr, .end = text.ptr + text.len, .arena = arena};
}

void imap_fail(struct imap_parser *p, const char *error)
{
    if (!p->failed)
        p->error = error;
    p->failed = true;
    p->p = p->end;
}

bool imap_at(const struct imap_parser *p, char c)
{
    return p->p < p->end && *p->p == c;
}

bool imap_try(struct imap_parser *p, char c)
{
    if (!imap_at(p, c))
        return false;
    p->p++;
    return true;
}

void imap_expect(struct imap_parser *p, char c)
{
    if (!imap_try(p, c))
        imap_fail(p, "BAD Syntax error");
}

void imap_sp(struct imap_parser *p)
{
    if (!imap_try(p, ' '))
        imap_fail(p, "BAD Missing argument");
}

bool imap_try_sp(struct imap_parser *p)
{
    return imap_try(p, ' ');
}

bool imap_at_end(const struct imap_parser *p)
{
    return p->end - p->p == 2 && p->p[0] == '\r' && p->p[1] == '\n';
}

void imap_end(struct imap_parser *p)
{
    if (!p->failed && !imap_at_end(p))
        imap_fail(p, "BAD Unexpected text after the arguments");
}

bool imap_deeper(struct imap_parser *p)
{
    if (p->depth >= IMAP_DEPTH_MAX) {
        imap_fail(p, "BAD Nested too deeply");
        return false;
    }
    p->depth++;
    return true;
}

/* run_of: the longest run of bytes of a class; empty: failed. */
static struct tb_slice run_of(struct imap_parser *p, uint8_t class, const char *error)
{
    const char *start = p->p;
    while (p->p < p->end && (imap_chars[(uint8_t)*p->p] & class))
        p->p++;
    if (p->p == start)
        imap_fail(p, error);
    return tb_slice(start, p->failed ? 0 : (size_t)(p->p - start));
}

struct tb_slice imap_word(struct imap_parser *p)
{
    return run_of(p, IMAP_C_WORD, "BAD Expected a word");
}

/* atom = 1*ATOM-CHAR */
struct tb_slice imap_atom(struct imap_parser *p)
{
    return run_of(p, IMAP_C_ATOM, "BAD Expected an atom");
}

/* quoted = DQUOTE *QUOTED-CHAR DQUOTE; the first DQUOTE is taken. */
static struct tb_slice quoted(struct imap_parser *p)
{
    const char *start = p->p;
    while (p->p < p->end && (imap_chars[(uint8_t)*p->p] & IMAP_C_QUOTED))
        p->p++;
    if (imap_at(p, '"')) { /* no escapes, the usual case: as it stands in the command */
        struct tb_slice s = tb_slice(start, (size_t)(p->p - start));
        p->p++;
        if (!tb_utf8_valid(s))
            imap_fail(p, "BAD Bytes that are not UTF-8 in a quoted string");
        return s;
    }
    size_t max = 0; /* as far as the string can reach */
    for (const char *q = start; q < p->end && *q != '"' && *q != '\r' && *q != '\n'; q++, max++) {
        if (*q == '\\' && q + 1 < p->end)
            q++, max++;
    }
    char *buf = tb_arena_alloc(p->arena, max + 1), *o = buf;
    if (!buf) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return (struct tb_slice){"", 0};
    }
    for (p->p = start; p->p < p->end && *p->p != '"'; p->p++) {
        if (*p->p == '\\' && p->end - p->p > 1 && (p->p[1] == '"' || p->p[1] == '\\'))
            p->p++;
        else if (!(imap_chars[(uint8_t)*p->p] & IMAP_C_QUOTED))
            break;
        *o++ = *p->p;
    }
    imap_expect(p, '"');
    struct tb_slice s = tb_slice(buf, (size_t)(o - buf));
    if (!p->failed && !tb_utf8_valid(s))
        imap_fail(p, "BAD Bytes that are not UTF-8 in a quoted string");
    return s;
}

/* literal_of = "{" number ["+"] "}" CRLF *OCTET; the "{" is taken. */
static struct tb_slice literal_of(struct imap_parser *p)
{
    uint32_t n = imap_number(p);
    (void)imap_try(p, '+');
    imap_expect(p, '}');
    imap_expect(p, '\r');
    imap_expect(p, '\n');
    if (p->failed || (size_t)(p->end - p->p) < n) {
        p->cut = !p->failed;
        imap_fail(p, "BAD Literal cut short");
        return (struct tb_slice){"", 0};
    }
    struct tb_slice s = tb_slice(p->p, n);
    p->p += n;
    return s;
}

/* literal: of CHAR8. */
static struct tb_slice literal(struct imap_parser *p)
{
    struct tb_slice s = literal_of(p);
    if (s.len > 0 && memchr(s.ptr, '\0', s.len))
        imap_fail(p, "BAD NUL in a literal"); /* CHAR8 = %x01-ff */
    return s;
}

/* string = quoted / literal */
struct tb_slice imap_string(struct imap_parser *p)
{
    if (imap_try(p, '"'))
        return quoted(p);
    if (imap_try(p, '{'))
        return literal(p);
    imap_fail(p, "BAD Expected a string");
    return (struct tb_slice){"", 0};
}

/* astring = 1*ASTRING-CHAR / string */
struct tb_slice imap_astring(struct imap_parser *p)
{
    if (imap_at(p, '"') || imap_at(p, '{'))
        return imap_string(p);
    return run_of(p, IMAP_C_ASTRING, "BAD Expected an astring");
}

/* nstring / literal8; literal8 = "~{" number ["+"] "}" CRLF *OCTET (RFC 6855, 3516) */
struct tb_slice imap_nstring8(struct imap_parser *p)
{
    if (!imap_try(p, '~'))
        return imap_nstring(p);
    imap_expect(p, '{');
    return literal_of(p);
}

/* nstring = string / nil */
struct tb_slice imap_nstring(struct imap_parser *p)
{
    if (imap_at(p, '"') || imap_at(p, '{'))
        return imap_string(p);
    struct tb_slice s = imap_atom(p);
    if (!p->failed && !tb_slice_ieq(s, TB_SLICE("NIL")))
        imap_fail(p, "BAD Expected a string or NIL");
    return (struct tb_slice){NULL, 0};
}

/* number = 1*DIGIT, unsigned 32 bits */
uint32_t imap_number(struct imap_parser *p)
{
    uint64_t v = 0;
    struct tb_slice s = run_of(p, IMAP_C_DIGIT, "BAD Expected a number");
    if (!p->failed && !tb_slice_u64(s, UINT32_MAX, &v))
        imap_fail(p, "BAD Number too large");
    return p->failed ? 0 : (uint32_t)v;
}

uint64_t imap_modseq(struct imap_parser *p)
{
    uint64_t v = 0;
    struct tb_slice s = run_of(p, IMAP_C_DIGIT, "BAD Expected a mod-sequence");
    if (!p->failed && !tb_slice_u64(s, INT64_MAX, &v))
        imap_fail(p, "BAD Mod-sequence too large");
    return p->failed ? 0 : v;
}

/* nz-number = digit-nz *DIGIT */
uint32_t imap_nz_number(struct imap_parser *p)
{
    if (imap_at(p, '0'))
        imap_fail(p, "BAD Expected a number above 0");
    return imap_number(p);
}

/* name_normal: in normalisation form C, as the store has its names. */
static struct tb_slice name_normal(struct imap_parser *p, struct tb_slice s)
{
    struct tb_buf b;
    tb_buf_init(&b, 3 * s.len + 16);
    if (tb_utf8_nfc(s, &b))
        s = tb_arena_copy(p->arena, tb_buf_all(&b));
    tb_buf_free(&b);
    if (!s.ptr)
        imap_fail(p, "NO [LIMIT] Command too large");
    return s;
}

static struct tb_slice decoded_name(struct imap_parser *p, struct tb_slice wire)
{
    struct tb_slice s = {"", 0};
    bool eight = false, shifts = false;
    if (p->failed)
        return s;
    for (size_t i = 0; i < wire.len; i++) {
        eight |= (uint8_t)wire.ptr[i] >= 0x80;
        shifts |= wire.ptr[i] == '&';
    }
    if (eight && !tb_utf8_valid(wire)) {
        imap_fail(p, "BAD Mailbox names are UTF-8, or modified UTF-7");
        return s;
    }
    p->given = wire;
    if (eight || p->utf8 || !shifts) /* RFC 6855 3: UTF-8 is taken from everybody */
        return eight ? name_normal(p, wire) : wire;
    if (!imap_name_decode(wire, p->arena, &s)) {
        imap_fail(p,
                  p->arena->overflowed ? "NO [LIMIT] Command too large" : "NO [CANNOT] Not a name in modified UTF-7");
        return (struct tb_slice){"", 0};
    }
    p->given = s;
    return name_normal(p, s);
}

/* mailbox = "INBOX" / astring; INBOX, alone or as the first level, in any case; one "/" at the end is forgiven. */
struct tb_slice imap_mailbox(struct imap_parser *p)
{
    return imap_mailbox_of(p, imap_astring(p));
}

struct tb_slice imap_mailbox_of(struct imap_parser *p, struct tb_slice wire)
{
    struct tb_slice s = decoded_name(p, wire);
    if (s.len > 1 && s.ptr[s.len - 1] == '/') {
        s.len--;
        p->given.len--;
    }
    if (!p->failed && s.len == 0)
        imap_fail(p, "NO [CANNOT] A mailbox has a name");
    if (s.len >= 5 && tb_slice_istarts(s, TB_SLICE("INBOX")) && (s.len == 5 || s.ptr[5] == '/')) {
        s = tb_arena_copy(p->arena, s);
        if (s.ptr)
            memcpy((char *)s.ptr, "INBOX", 5);
        else
            imap_fail(p, "NO [LIMIT] Command too large");
    }
    return s;
}

/* list-mailbox = 1*list-char / string */
struct tb_slice imap_list_mailbox(struct imap_parser *p)
{
    if (imap_at(p, '"') || imap_at(p, '{'))
        return decoded_name(p, imap_string(p));
    return decoded_name(p, run_of(p, IMAP_C_LIST, "BAD Expected a mailbox pattern"));
}

/* seq-number = nz-number / "*" */
uint32_t imap_seq_number(struct imap_parser *p)
{
    return imap_try(p, '*') ? 0 : imap_nz_number(p);
}

/* sequence-set = (seq-number / seq-range) ["," sequence-set] / "$"; so "$" ends a set that has it (RFC 9051 9) */
void imap_sequence_set(struct imap_parser *p, struct imap_set *set)
{
    size_t most = 1;
    *set = (struct imap_set){.saved = imap_try(p, '$')}; /* seq-last-command, RFC 5182 */
    if (set->saved)
        return;
    for (const char *q = p->p; q < p->end && *q != ' ' && *q != '\r' && *q != ')'; q++)
        most += *q == ',';
    *set = (struct imap_set){.v = tb_arena_alloc(p->arena, most * sizeof *set->v)};
    if (!set->v) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return;
    }
    do {
        if (set->n > 0 && (set->saved = imap_try(p, '$')))
            return;
        struct imap_set_range *r = &set->v[set->n];
        r->first = r->last = imap_seq_number(p);
        if (imap_try(p, ':'))
            r->last = imap_seq_number(p);
        if (p->failed)
            return;
        set->n++;
    } while (set->n < most && imap_try(p, ','));
}

/* flag = "\Answered" / "\Flagged" / "\Deleted" / "\Seen" / "\Draft" / flag-keyword */
static void flag(struct imap_parser *p, struct imap_flags *out)
{
    static const struct {
        struct tb_slice name;
        uint16_t bit;
    } system_flags[] = {
        {{"Seen", 4}, TB_FLAG_SEEN},       {{"Answered", 8}, TB_FLAG_ANSWERED}, {{"Flagged", 7}, TB_FLAG_FLAGGED},
        {{"Deleted", 7}, TB_FLAG_DELETED}, {{"Draft", 5}, TB_FLAG_DRAFT},
    };
    bool system = imap_try(p, '\\');
    struct tb_slice name = imap_atom(p);
    if (p->failed)
        return;
    for (size_t i = 0; system && i < TB_ARRAY_LEN(system_flags); i++) {
        if (tb_slice_ieq(name, system_flags[i].name)) {
            out->flags |= system_flags[i].bit;
            return;
        }
    }
    if (system)
        imap_fail(p, "BAD No such system flag");
    else if (out->keywords_n < IMAP_FLAGS_MAX)
        out->keywords[out->keywords_n++] = name;
    else
        imap_fail(p, "NO [LIMIT] Too many keywords");
}

/* flag_room: room for as many keywords as the text ahead can hold. */
static bool flag_room(struct imap_parser *p, struct imap_flags *out)
{
    size_t most = 1;
    *out = (struct imap_flags){0};
    for (const char *q = p->p; q < p->end && *q != ')' && *q != '\r' && most < IMAP_FLAGS_MAX; q++)
        most += *q == ' ';
    out->keywords = tb_arena_alloc(p->arena, most * sizeof *out->keywords);
    if (!out->keywords)
        imap_fail(p, "NO [LIMIT] Command too large");
    return !p->failed;
}

/* flag *(SP flag), as STORE may have them */
void imap_flags_bare(struct imap_parser *p, struct imap_flags *out)
{
    if (!flag_room(p, out))
        return;
    do {
        flag(p, out);
    } while (!p->failed && imap_try_sp(p));
}

/* flag-list = "(" [flag *(SP flag)] ")" */
void imap_flag_list(struct imap_parser *p, struct imap_flags *out)
{
    *out = (struct imap_flags){0};
    imap_expect(p, '(');
    if (p->failed || imap_try(p, ')'))
        return;
    imap_flags_bare(p, out);
    imap_expect(p, ')');
}

static int digits(struct imap_parser *p, int n)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        if (p->p == p->end || !(imap_chars[(uint8_t)*p->p] & IMAP_C_DIGIT)) {
            imap_fail(p, "BAD Malformed date");
            return 0;
        }
        v = v * 10 + (*p->p++ - '0');
    }
    return v;
}

/* date-month = "Jan" / "Feb" / ... */
static int month(struct imap_parser *p)
{
    static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int m = 0; m < 12 && p->end - p->p >= 3; m++) {
        if (tb_slice_ieq(tb_slice(p->p, 3), tb_slice(names + 3 * m, 3))) {
            p->p += 3;
            return m + 1;
        }
    }
    imap_fail(p, "BAD Malformed date");
    return 0;
}

/* date = date-text / DQUOTE date-text DQUOTE; date-text = date-day "-" date-month "-" date-year */
bool imap_date(struct imap_parser *p, int32_t *day)
{
    bool in_quotes = imap_try(p, '"');
    int d = digits(p, 1);
    if (p->p < p->end && (imap_chars[(uint8_t)*p->p] & IMAP_C_DIGIT))
        d = d * 10 + digits(p, 1);
    imap_expect(p, '-');
    int m = month(p);
    imap_expect(p, '-');
    int y = digits(p, 4);
    if (in_quotes)
        imap_expect(p, '"');
    bool early = y < 1900; /* before all mail; software that means "always" asks for year 1 */
    if (!p->failed && !tb_date_civil_day(early ? 1904 : y, m, d, day))
        imap_fail(p, "BAD No such day");
    if (!p->failed && early && tb_date_civil_day(1900, 1, 1, day))
        --*day;
    return !p->failed;
}

/* date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE */
int64_t imap_date_time(struct imap_parser *p)
{
    int32_t day = 0;
    imap_expect(p, '"');
    int d = imap_try(p, ' ') ? digits(p, 1) : digits(p, 2);
    imap_expect(p, '-');
    int mon = month(p);
    imap_expect(p, '-');
    int y = digits(p, 4);
    imap_sp(p);
    int h = digits(p, 2);
    imap_expect(p, ':');
    int min = digits(p, 2);
    imap_expect(p, ':');
    int s = digits(p, 2);
    imap_sp(p);
    bool west = imap_at(p, '-');
    if (!west)
        imap_expect(p, '+');
    else
        p->p++;
    int zh = digits(p, 2), zm = digits(p, 2);
    imap_expect(p, '"');
    if (!p->failed && (!tb_date_civil_day(y, mon, d, &day) || h > 23 || min > 59 || s > 60 || zh > 23 || zm > 59))
        imap_fail(p, "BAD No such time");
    if (p->failed)
        return 0;
    int64_t zone_s = (zh * 60 + zm) * 60;
    return (int64_t)day * 86400 + h * 3600 + min * 60 + s - (west ? -zone_s : zone_s);
}

/* tag = 1*<any ASTRING-CHAR except "+"> */
static bool parse_tag(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct tb_slice tag = run_of(p, IMAP_C_TAG, "BAD Expected a tag");
    if (p->failed || tag.len > IMAP_TAG_MAX) {
        imap_fail(p, "BAD Tag too long");
        return false;
    }
    cmd->tag = tag;
    return true;
}

/* command = tag SP (verb ...) CRLF */
bool imap_parse_command(struct imap_parser *p, struct imap_cmd *cmd)
{
    *cmd = (struct imap_cmd){0};
    if (!parse_tag(p, cmd))
        return false;
    imap_sp(p);
    const char *start = p->p;
    struct tb_slice name = imap_word(p);
    if (!p->failed && tb_slice_ieq(name, TB_SLICE("UID"))) {
        imap_sp(p);
        struct tb_slice second = imap_word(p);
        name = p->failed ? second : tb_slice(start, (size_t)(second.ptr + second.len - start));
    }
    if (p->failed) {
        p->error = "BAD Expected a command";
        return false;
    }
    cmd->verb = imap_verb_find(name);
    if (!cmd->verb)
        imap_fail(p, "BAD Unknown command");
    else
        cmd->verb->parse(p, cmd);
    imap_end(p);
    if (p->arena->overflowed && !p->failed)
        imap_fail(p, "NO [LIMIT] Command too large");
    return !p->failed;
}

enum imap_append_head imap_append_head(struct imap_parser *p, struct imap_cmd *cmd)
{
    *cmd = (struct imap_cmd){0};
    if (!parse_tag(p, cmd) || !imap_try_sp(p))
        return APPEND_OTHER;
    struct tb_slice name = imap_word(p);
    if (tb_slice_ieq(name, TB_SLICE("UID")) && imap_try_sp(p))
        cmd->verb = tb_slice_ieq(imap_word(p), TB_SLICE("REPLACE")) ? imap_verb_find(TB_SLICE("UID REPLACE")) : NULL;
    else if (tb_slice_ieq(name, TB_SLICE("APPEND")) || tb_slice_ieq(name, TB_SLICE("REPLACE")))
        cmd->verb = imap_verb_find(name);
    if (p->failed || !cmd->verb)
        return APPEND_OTHER;
    cmd->verb->parse(p, cmd);
    if (p->failed)
        return p->cut ? APPEND_OTHER : APPEND_BAD;
    return p->p == p->end ? APPEND_MESSAGE : APPEND_BAD;
}

void imap_parse_none(struct imap_parser *p, struct imap_cmd *cmd)
{
    (void)p;
    (void)cmd;
}

void imap_parse_one_mailbox(struct imap_parser *p, struct imap_cmd *cmd)
{
    imap_sp(p);
    struct imap_one_mailbox *a = tb_arena_alloc(p->arena, sizeof *a);
    struct tb_slice s = imap_mailbox(p);
    if (a)
        *a = (struct imap_one_mailbox){s, p->given};
    cmd->args = a;
}
