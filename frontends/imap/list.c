/*
 * list.c: LIST, extended LIST, LSUB and XLIST. Attributes (children, special use) are always shown; asking for them is
 * accepted.
 *
 * A pattern is matched by a bit-parallel automaton: time is the name's length times the pattern's length /
 * 64, whatever the wildcards. Thread: the connection's owner; the matcher: any. RFC 3501 6.3.8, 6.3.9; 3348
 * (CHILDREN); 5258 (LIST-EXTENDED); 5819 (LIST-STATUS); 6154 (SPECIAL-USE); 8440 (LIST-MYRIGHTS);
 * 9051 6.3.9.7 (OLDNAME).
 */
#include "imap_session.h"

/* ---- the matcher ---- */

/*
 * State i of the automaton means: the pattern's first i symbols have matched what was read so far. Runs of
 * wildcards are collapsed ("*" wins), so from a state before a wildcard one step leads behind it without
 * reading.
 */
struct imap_pattern {
    size_t n, words;
    uint64_t *star, *percent; /* states before "*" and before "%" */
    uint64_t *mask[256];      /* by character: states before it; NULL: nowhere in the pattern */
    uint64_t *now, *next;
    bool ends_percent;
};

static void set_bit(uint64_t *bits, size_t i)
{
    bits[i / 64] |= 1ull << (i % 64);
}

struct imap_pattern *imap_pattern_new(struct tb_slice pattern, struct tb_arena *arena, bool *never)
{
    struct imap_pattern *p = tb_arena_alloc(arena, sizeof *p);
    char *symbols = tb_arena_alloc(arena, pattern.len + 1);
    size_t plain = 0;
    *never = false;
    if (!p || !symbols)
        return NULL;
    for (size_t i = 0; i < pattern.len; i++) {
        char c = pattern.ptr[i];
        bool wild = c == '*' || c == '%', after = p->n > 0 && (symbols[p->n - 1] == '*' || symbols[p->n - 1] == '%');
        plain += !wild;
        if (wild && after)
            symbols[p->n - 1] = c == '*' ? '*' : symbols[p->n - 1];
        else
            symbols[p->n++] = c;
    }
    p->ends_percent = p->n > 0 && symbols[p->n - 1] == '%';
    p->words = p->n / 64 + 1;
    *never = plain > TB_MBOX_NAME_MAX; /* longer than any name */
    size_t bytes = p->words * sizeof(uint64_t);
    p->star = *never ? NULL : tb_arena_alloc(arena, bytes);
    p->percent = *never ? NULL : tb_arena_alloc(arena, bytes);
    p->now = *never ? NULL : tb_arena_alloc(arena, bytes);
    p->next = *never ? NULL : tb_arena_alloc(arena, bytes);
    if (!p->star || !p->percent || !p->now || !p->next)
        return NULL;
    for (size_t i = 0; i < p->n; i++) {
        uint8_t c = (uint8_t)symbols[i];
        if (c == '*') {
            set_bit(p->star, i);
        } else if (c == '%') {
            set_bit(p->percent, i);
        } else {
            if (!p->mask[c] && !(p->mask[c] = tb_arena_alloc(arena, bytes)))
                return NULL;
            set_bit(p->mask[c], i);
        }
    }
    return p;
}

/* skip_wildcards: a wildcard may match nothing: from before it to behind it. */
static void skip_wildcards(const struct imap_pattern *p, uint64_t *s)
{
    uint64_t carry = 0;
    for (size_t w = 0; w < p->words; w++) {
        uint64_t wild = s[w] & (p->star[w] | p->percent[w]);
        s[w] |= wild << 1 | carry;
        carry = wild >> 63;
    }
}

bool imap_pattern_match(const struct imap_pattern *p, struct tb_slice name)
{
    static const uint8_t inbox[] = "INBOX";
    bool fold = name.len >= 5 && memcmp(name.ptr, inbox, 5) == 0 && (name.len == 5 || name.ptr[5] == '/');
    memset(p->now, 0, p->words * sizeof(uint64_t));
    p->now[0] = 1;
    skip_wildcards(p, p->now);
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = (uint8_t)name.ptr[i];
        const uint64_t *mask = p->mask[c], *lower = fold && i < 5 ? p->mask[c | 0x20] : NULL;
        uint64_t carry = 0, any = 0;
        for (size_t w = 0; w < p->words; w++) {
            uint64_t now = p->now[w], read = now & ((mask ? mask[w] : 0) | (lower ? lower[w] : 0));
            uint64_t stay = now & (p->star[w] | (c == '/' ? 0 : p->percent[w]));
            p->next[w] = stay | read << 1 | carry;
            carry = read >> 63;
            any |= p->next[w];
        }
        if (!any)
            return false;
        memcpy(p->now, p->next, p->words * sizeof(uint64_t));
        skip_wildcards(p, p->now);
    }
    return p->now[p->n / 64] >> (p->n % 64) & 1;
}

/* ---- the commands ---- */

enum {
    LIST_SPECIAL = 1,
    LIST_SUBSCRIBED = 2,
    LIST_REMOTE = 4, /* there are none */
    LIST_RECURSIVE = 8,
    LIST_CHILDREN = 16,
    LIST_STATUS = 32,
    LIST_METADATA = 128,
    LIST_MYRIGHTS = 64,
    LIST_SELECTING = LIST_SPECIAL | LIST_SUBSCRIBED,
    NAMES_PER_TURN = 64,
    PATTERNS_MAX = 64
};
enum list_kind { KIND_LIST, KIND_LSUB, KIND_XLIST };

struct list_args {
    struct tb_slice reference;
    struct tb_slice *patterns; /* arena */
    size_t patterns_n;
    uint8_t select, give; /* LIST_... */
    bool extended;        /* an option, or several patterns: RFC 5258 3 */
    enum list_kind kind;
    struct imap_status status;
    struct imap_entries entries; /* METADATA */
    /* run */
    struct imap_pattern **matchers; /* arena; NULL: matches nothing */
    bool ends_percent;
    struct tb_mailbox *v;
    uint32_t *rights; /* beside v */
    size_t n, i;
    struct imap_errand *errand; /* owned: METADATA of v[i] */
    struct imap_gather gather;
    bool gathering;
};

/* One table for selection and one for return options; what LIST always does is accepted as a return option. */
static const struct list_option {
    const char *name;
    uint8_t bit;
} select_options[] = {{"SPECIAL-USE", LIST_SPECIAL},
                      {"SUBSCRIBED", LIST_SUBSCRIBED},
                      {"REMOTE", LIST_REMOTE},
                      {"RECURSIVEMATCH", LIST_RECURSIVE}},
  return_options[] = {{"SPECIAL-USE", LIST_SPECIAL}, {"SUBSCRIBED", LIST_SUBSCRIBED}, {"CHILDREN", LIST_CHILDREN},
                      {"STATUS", LIST_STATUS},       {"MYRIGHTS", LIST_MYRIGHTS},     {"METADATA", LIST_METADATA}};

/* "(" [option *(SP option)] ")" */
static uint8_t options(struct imap_parser *p, const struct list_option *table, size_t n, struct list_args *a)
{
    uint8_t bits = 0;
    imap_expect(p, '(');
    if (imap_try(p, ')'))
        return 0;
    do {
        struct tb_slice name = imap_word(p);
        size_t i = 0;
        while (i < n && !tb_slice_ieq(name, tb_slice_str(table[i].name)))
            i++;
        if (i == n) {
            imap_fail(p, "BAD No such LIST option");
            break;
        }
        bits |= table[i].bit;
        if (table[i].bit == LIST_STATUS && table == return_options) {
            imap_sp(p);
            imap_status_items(p, &a->status);
        }
        if (table[i].bit == LIST_METADATA && table == return_options) {
            imap_sp(p);
            imap_parse_entries(p, &a->entries, true);
        }
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    return bits;
}

/* mbox-or-pat = list-mailbox / "(" list-mailbox *(SP list-mailbox) ")" */
static void patterns(struct imap_parser *p, struct list_args *a)
{
    bool several = imap_try(p, '(');
    a->extended |= several;
    a->patterns = tb_arena_alloc(p->arena, (several ? PATTERNS_MAX : 1) * sizeof *a->patterns);
    if (!a->patterns) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return;
    }
    do {
        if (a->patterns_n == PATTERNS_MAX)
            imap_fail(p, "NO [LIMIT] Too many patterns");
        else
            a->patterns[a->patterns_n++] = imap_list_mailbox(p);
    } while (several && !p->failed && imap_try_sp(p));
    if (several)
        imap_expect(p, ')');
}

/* list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP "RETURN" SP list-return-opts]; RFC 5258 6 */
void imap_parse_list(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct list_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->kind = cmd->verb->name[0] == 'X' ? KIND_XLIST : KIND_LIST;
    if (imap_at(p, '(')) {
        a->select = options(p, select_options, TB_ARRAY_LEN(select_options), a);
        a->extended = true;
        imap_sp(p);
    }
    a->reference = imap_list_mailbox(p); /* a name, but it may be empty */
    imap_sp(p);
    patterns(p, a);
    if (!p->failed && imap_try_sp(p)) {
        if (!tb_slice_ieq(imap_word(p), TB_SLICE("RETURN")))
            imap_fail(p, "BAD Expected RETURN");
        imap_sp(p);
        a->give = options(p, return_options, TB_ARRAY_LEN(return_options), a);
        a->extended = true;
    }
    if ((a->select & LIST_RECURSIVE) && !(a->select & LIST_SELECTING))
        imap_fail(p, "BAD RECURSIVEMATCH needs something to match"); /* RFC 5258 3.1 */
}

/* lsub = "LSUB" SP mailbox SP list-mailbox */
void imap_parse_lsub(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct list_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->kind = KIND_LSUB;
    a->reference = imap_list_mailbox(p);
    imap_sp(p);
    patterns(p, a);
    if (a->extended)
        imap_fail(p, "BAD Expected a name or a pattern");
}

static bool is_below(const struct tb_mailbox *m, struct tb_slice parent)
{
    return m->name.len > parent.len && m->name.ptr[parent.len] == '/' &&
           memcmp(m->name.ptr, parent.ptr, parent.len) == 0;
}

static bool matches(const struct list_args *a, struct tb_slice name)
{
    for (size_t i = 0; i < a->patterns_n; i++)
        if (a->matchers[i] && imap_pattern_match(a->matchers[i], name))
            return true;
    return false;
}

/* selected: do the selection options choose it? */
static bool selected(const struct list_args *a, const struct tb_mailbox *m)
{
    if (a->select & LIST_SUBSCRIBED && !m->subscribed)
        return false;
    return !(a->select & LIST_SPECIAL) || (m->selectable && m->special != 0);
}

/* selected_below: is something below v[i] chosen? */
static bool selected_below(const struct list_args *a, size_t i)
{
    for (size_t j = i + 1; j < a->n && is_below(&a->v[j], a->v[i].name); j++)
        if (selected(a, &a->v[j]))
            return true;
    return false;
}

/* chosen_unseen: is something below v[i] chosen that the patterns do not reach? RFC 5258 3.5: a parent whose chosen
 * children are all listed is not told for their sake. */
static bool chosen_unseen(const struct list_args *a, size_t i)
{
    for (size_t j = i + 1; j < a->n && is_below(&a->v[j], a->v[i].name); j++)
        if (selected(a, &a->v[j]) && !matches(a, a->v[j].name))
            return true;
    return false;
}

/* shown: does this name belong into the answer, pattern aside? */
static bool shown(const struct list_args *a, size_t i)
{
    const struct tb_mailbox *m = &a->v[i];
    if (a->kind == KIND_LSUB)
        return m->subscribed;
    if (a->select & LIST_SELECTING)
        return selected(a, m) || (a->select & LIST_RECURSIVE && chosen_unseen(a, i));
    if (m->selectable)
        return true;
    for (size_t j = i + 1; j < a->n && is_below(&a->v[j], m->name); j++) {
        if (a->v[j].selectable)
            return true; /* a mere parent, or what a deleted mailbox left */
    }
    return false;
}

static void put_attributes(struct imap_session *s, const struct list_args *a, const struct tb_mailbox *m)
{
    static const struct {
        uint16_t bit;
        const char *name, *xlist;
    } special[] = {
        {TB_SPECIAL_ALL, " \\All", " \\AllMail"},      {TB_SPECIAL_ARCHIVE, " \\Archive", " \\Archive"},
        {TB_SPECIAL_DRAFTS, " \\Drafts", " \\Drafts"}, {TB_SPECIAL_FLAGGED, " \\Flagged", " \\Starred"},
        {TB_SPECIAL_JUNK, " \\Junk", " \\Spam"},       {TB_SPECIAL_SENT, " \\Sent", " \\Sent"},
        {TB_SPECIAL_TRASH, " \\Trash", " \\Trash"},
    };
    struct imap_out *o = &s->out;
    if (a->kind == KIND_LSUB) {
        if (!m->selectable)
            imap_puts(o, "\\Noselect");
        return;
    }
    /* with STATUS, which only who may read is told: RFC 5819 2 */
    bool hidden = m->selectable && a->give & LIST_STATUS && !(a->rights[m - a->v] & TB_RIGHT_READ);
    if (hidden)
        imap_puts(o, "\\Noselect ");
    if (!m->selectable)
        imap_puts(o, a->extended && m->mbox == 0 && !m->has_children ? "\\NonExistent " : "\\Noselect ");
    imap_puts(o, m->has_children ? "\\HasChildren" : "\\HasNoChildren");
    if (m->subscribed && (a->select | a->give) & LIST_SUBSCRIBED)
        imap_puts(o, " \\Subscribed");
    if (a->kind == KIND_XLIST && m->mbox == TB_MBOX_INBOX)
        imap_puts(o, " \\Inbox");
    for (size_t i = 0; i < TB_ARRAY_LEN(special); i++)
        if (m->special & special[i].bit)
            imap_puts(o, a->kind == KIND_XLIST ? special[i].xlist : special[i].name);
}

/* put_rights: RFC 8440 3: of mailboxes that are there. */
static void put_rights(struct imap_session *s, struct tb_slice name, uint32_t rights)
{
    char text[TB_RIGHTS_ROOM];
    imap_puts(&s->out, "* MYRIGHTS ");
    imap_put_mailbox(&s->out, name);
    imap_putc(&s->out, ' ');
    imap_puts(&s->out, tb_rights_text(rights, text));
    imap_puts(&s->out, "\r\n");
}

/* put_line: childinfo: something below it is chosen (RFC 5258 4). */
static void put_line(struct imap_session *s, const struct list_args *a, const struct tb_mailbox *m, bool childinfo)
{
    static const char *const words[] = {[KIND_LIST] = "* LIST (", [KIND_LSUB] = "* LSUB (", [KIND_XLIST] = "* XLIST ("};
    struct imap_out *o = &s->out;
    imap_puts(o, words[a->kind]);
    put_attributes(s, a, m);
    imap_puts(o, ") \"/\" ");
    imap_put_mailbox(o, m->name);
    if (childinfo) {
        imap_puts(o, " (\"CHILDINFO\" (");
        imap_puts(o, a->select & LIST_SUBSCRIBED ? "\"SUBSCRIBED\"" : "\"SPECIAL-USE\"");
        imap_puts(o, "))");
    }
    imap_puts(o, "\r\n");
    uint32_t rights = m->selectable ? a->rights[m - a->v] : 0; /* a level that is no name has none */
    if (a->give & LIST_MYRIGHTS && rights != 0)
        put_rights(s, m->name, rights);
    struct imap_status status = a->status;
    bool scans = imap_status_scans(&status), here = imap_at_home(s) && !imap_is_others(m->name);
    if (!(a->give & LIST_STATUS && rights & TB_RIGHT_READ) || (scans && !here))
        return; /* RFC 5819 2: what cannot be told is left out */
    if (scans)
        imap_status_scan(s->account, m, &status);
    imap_put_status(s, m->name, m, &status);
}

void imap_put_list(struct imap_session *s, const struct tb_mailbox *m, struct tb_slice name, struct tb_slice oldname)
{
    const struct list_args plain = {.kind = KIND_LIST, .extended = true};
    struct imap_out *o = &s->out;
    imap_puts(o, "* LIST (");
    if (m)
        put_attributes(s, &plain, m);
    else
        imap_puts(o, "\\NonExistent");
    imap_puts(o, ") \"/\" ");
    imap_put_mailbox(o, name);
    if (!tb_slice_eq(name, oldname)) {
        imap_puts(o, " (\"OLDNAME\" (");
        imap_put_mailbox(o, oldname);
        imap_puts(o, "))");
    }
    imap_puts(o, "\r\n");
}

void imap_put_list_event(struct imap_session *s, const struct tb_mailbox *m, struct tb_slice name,
                         struct tb_slice oldname, uint8_t what)
{
    const struct list_args plain = {.kind = KIND_LIST, .extended = true};
    struct imap_out *o = &s->out;
    imap_puts(o, "* LIST (");
    if (m && m->selectable) {
        put_attributes(s, &plain, m);
    } else {
        imap_puts(o, "\\NonExistent");
        imap_puts(o, !m ? "" : m->has_children ? " \\HasChildren" : " \\HasNoChildren");
    }
    imap_puts(o, what & LIST_IS_SUBSCRIBED ? " \\Subscribed" : "");
    imap_puts(o, what & LIST_NOACCESS ? " \\NoAccess" : "");
    imap_puts(o, ") \"/\" ");
    imap_put_mailbox(o, name);
    if (!tb_slice_eq(name, oldname)) {
        imap_puts(o, " (\"OLDNAME\" (");
        imap_put_mailbox(o, oldname);
        imap_puts(o, "))");
    }
    imap_puts(o, "\r\n");
}

/* told: was this level of v[i]'s name answered before, for itself or for a name above v[i] in the list? */
static bool told(const struct list_args *a, size_t i, struct tb_slice level)
{
    while (i-- > 0 && (is_below(&a->v[i], level) || tb_slice_eq(a->v[i].name, level))) {
        const struct tb_mailbox *m = &a->v[i];
        if (m->subscribed && (m->name.len == level.len || !matches(a, m->name)))
            return true;
    }
    return false;
}

/*
 * put_levels: a subscribed name that "%" does not reach: the levels above it that "%" reaches, \Noselect. RFC
 * 3501 6.3.9: "%" for a subscribed foo/bar must return foo.
 */
static void put_levels(struct imap_session *s, const struct list_args *a, size_t i)
{
    struct tb_slice name = a->v[i].name;
    for (size_t n = 1; n < name.len; n++) {
        struct tb_mailbox level = {.name = tb_slice_sub(name, 0, n)};
        if (name.ptr[n] == '/' && matches(a, level.name) && !told(a, i, level.name))
            put_line(s, a, &level, false);
    }
}

static enum tb_rc list_start(struct imap_session *s, struct list_args *a)
{
    a->matchers = tb_arena_alloc(&s->arena, a->patterns_n * sizeof(struct imap_pattern *));
    for (size_t i = 0; a->matchers && i < a->patterns_n; i++) {
        struct tb_slice pattern = a->patterns[i];
        bool never = pattern.len == 0 && a->extended; /* RFC 5258 3: "" names nothing there */
        char *full = tb_arena_alloc(&s->arena, a->reference.len + pattern.len + 1);
        if (!full)
            return TB_LIMIT;
        char *end = imap_fmt(full, a->reference.ptr, a->reference.len);
        end = imap_fmt(end, pattern.ptr, pattern.len);
        if (!never)
            a->matchers[i] = imap_pattern_new(tb_slice(full, (size_t)(end - full)), &s->arena, &never);
        if (!a->matchers[i] && !never)
            return TB_LIMIT;
        a->ends_percent |= a->matchers[i] && a->matchers[i]->ends_percent;
    }
    return a->matchers ? TB_OK : TB_LIMIT;
}

/* wants_others: may a pattern match a name in the namespace of others? Only what stands before its first wildcard is
 * looked at. */
static bool wants_others(const struct list_args *a)
{
    struct tb_slice prefix = TB_SLICE(IMAP_OTHERS);
    for (size_t i = 0; i < a->patterns_n; i++) {
        size_t n = 0;
        bool same = true, wild = false;
        for (; n < a->reference.len + a->patterns[i].len && n < prefix.len && same && !wild; n++) {
            char c = n < a->reference.len ? a->reference.ptr[n] : a->patterns[i].ptr[n - a->reference.len];
            wild = c == '*' || c == '%';
            same = wild || c == prefix.ptr[n];
        }
        if (same && (wild || n + 1 >= prefix.len))
            return true;
    }
    return false;
}

static void list_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct list_args *a = cmd->args;
    (void)s;
    imap_errand_end(a->errand);
    imap_gather_end(&a->gather);
}

/* list_gather: false: on the way. */
static bool list_gather(struct imap_session *s, struct imap_cmd *cmd, struct list_args *a)
{
    cmd->cleanup = list_cleanup;
    a->gathering = true;
    if (!imap_gather(s, &a->gather, wants_others(a)))
        return false;
    a->gathering = false;
    a->v = a->gather.v;
    a->rights = a->gather.rights;
    a->n = a->gather.n;
    return true;
}

/* list_metadata: what was asked for v[i], behind its line (RFC 9590 3). False: on the way. */
static bool list_metadata(struct imap_session *s, struct list_args *a)
{
    if (a->errand && a->errand->busy)
        return false;
    if (a->errand)
        imap_metadata_put(s, a->v[a->i].name, a->errand);
    imap_errand_end(a->errand);
    a->errand = NULL;
    return true;
}

static enum imap_run list(struct imap_session *s, struct imap_cmd *cmd, struct list_args *a)
{
    static const char *const done[] = {
        [KIND_LIST] = "OK LIST completed", [KIND_LSUB] = "OK LSUB completed", [KIND_XLIST] = "OK XLIST completed"};
    bool fresh = !a->matchers;
    if (fresh && imap_status_condstore(&a->status))
        imap_condstore(s);
    enum tb_rc rc = fresh ? list_start(s, a) : TB_OK;
    if (rc == TB_OK && (fresh || a->gathering)) {
        if (!list_gather(s, cmd, a))
            return RUN_WAIT;
        rc = a->gather.rc;
    }
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    size_t names = a->give & LIST_STATUS && imap_status_scans(&a->status) ? 1 : NAMES_PER_TURN;
    for (size_t turn = 0; a->i < a->n; a->i++, turn++) {
        if (turn == names)
            return RUN_MORE;
        const struct tb_mailbox *m = &a->v[a->i];
        if (a->errand) { /* its line is written */
        } else if (matches(a, m->name)) {
            if (!shown(a, a->i))
                continue;
            put_line(s, a, m, a->select & LIST_RECURSIVE && selected_below(a, a->i));
            if (a->give & LIST_METADATA && m->mbox != 0)
                a->errand = imap_metadata_start(s, m->name, &a->entries);
        } else if (a->kind == KIND_LSUB && a->v[a->i].subscribed && a->ends_percent) {
            put_levels(s, a, a->i);
        }
        if (!list_metadata(s, a))
            return RUN_WAIT;
    }
    return imap_reply(cmd, done[a->kind]);
}

enum imap_run imap_run_list(struct imap_session *s, struct imap_cmd *cmd)
{
    struct list_args *a = cmd->args;
    if (!a->extended && a->patterns[0].len == 0 &&
        a->kind == KIND_LIST) { /* the separator and the root, RFC 3501 6.3.8 */
        imap_puts(&s->out, "* LIST (\\Noselect) \"/\" \"\"\r\n");
        return imap_reply(cmd, "OK LIST completed");
    }
    return list(s, cmd, a);
}

enum imap_run imap_run_lsub(struct imap_session *s, struct imap_cmd *cmd)
{
    return list(s, cmd, cmd->args);
}
