/*
 * metadata.c: GETMETADATA and SETMETADATA, and what LIST RETURN (METADATA ...) tells.
 *
 * Entries are kept in lower case: they are case-insensitive. /private and /shared of a mailbox are its owner's
 * annotations; who shares a mailbox sees /shared with the right to read it and sets it with the right to write, and has
 * no /private there. Of the server, /private is one's own and /shared is read-only. The work is done by errands
 * (place.c): whatever they need is in their own arena (I4). Thread: the connection's owner. RFC 5464, 9590.
 */
#include "imap_session.h"

#include <tambo/annot.h>

enum { ENTRIES_MAX = 64, DEPTH_ALL = 2, PUT_MAX = 32 /* entries in one response */ };

struct meta_args {
    struct tb_slice mailbox;
    struct imap_entries entries;
    struct tb_slice *values; /* arena; SETMETADATA: of entries.v; ptr NULL: NIL */
    uint32_t size_max;       /* MAXSIZE */
    uint8_t depth;
    size_t put; /* results written */
};

struct meta_job { /* in the errand's arena */
    bool server;
    uint8_t depth;
    uint32_t size_max, longest; /* longest: of the values that were left out */
    struct tb_annot *want;      /* what to read, or to set */
    size_t want_n;
    struct tb_slice admin; /* the value of /shared/admin of the server */
    struct tb_annot *found;
    size_t found_n;
};

/* ---- parsing ---- */

/* entry = astring: "/private" or "/shared", then levels (RFC 5464 3.2, 5) */
static struct tb_slice entry(struct imap_parser *p)
{
    struct tb_slice s = imap_astring(p);
    char *low = tb_arena_alloc(p->arena, s.len + 1);
    if (!low || p->failed)
        return (struct tb_slice){"", 0};
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        bool ends = c == '/' && (i + 1 == s.len || s.ptr[i + 1] == '/');
        if (c < 0x20 || c > 0x7e || c == '*' || c == '%' || ends)
            imap_fail(p, "BAD Not an entry name");
        low[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : (char)c;
    }
    struct tb_slice e = tb_slice(low, s.len), rest = {"", 0};
    static const char *const scopes[] = {"/private", "/shared"};
    bool known = false;
    for (size_t i = 0; i < TB_ARRAY_LEN(scopes); i++)
        if (tb_slice_istarts(e, tb_slice_str(scopes[i]))) {
            rest = tb_slice_sub(e, strlen(scopes[i]), e.len);
            known = rest.len == 0 || rest.ptr[0] == '/';
        }
    if (!known)
        imap_fail(p, "BAD Entries begin with /private/ or /shared/");
    else if (e.len > TB_ANNOT_NAME_MAX)
        imap_fail(p, "NO [CANNOT] Entry name too long");
    return e;
}

static bool add_entry(struct imap_parser *p, struct imap_entries *entries)
{
    if (!entries->v)
        entries->v = tb_arena_alloc(p->arena, ENTRIES_MAX * sizeof *entries->v);
    if (!entries->v || entries->n == ENTRIES_MAX) {
        imap_fail(p, "NO [METADATA TOOMANY] Too many entries");
        return false;
    }
    struct tb_slice e = entry(p);
    entries->v[entries->n++] = e;
    return !p->failed;
}

void imap_parse_entries(struct imap_parser *p, struct imap_entries *entries, bool list)
{
    if (!list && !imap_at(p, '(')) {
        (void)add_entry(p, entries);
        return;
    }
    imap_expect(p, '(');
    do
        (void)add_entry(p, entries);
    while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

/* getmetadata-option = "MAXSIZE" SP number / "DEPTH" SP ("0" / "1" / "infinity") */
static void option(struct imap_parser *p, struct meta_args *a)
{
    struct tb_slice name = imap_word(p);
    imap_sp(p);
    if (tb_slice_ieq(name, TB_SLICE("MAXSIZE"))) {
        a->size_max = imap_number(p);
        return;
    }
    struct tb_slice depth = imap_atom(p);
    if (tb_slice_eq(depth, TB_SLICE("1")))
        a->depth = 1;
    else if (tb_slice_ieq(depth, TB_SLICE("infinity")))
        a->depth = DEPTH_ALL;
    else if (!tb_slice_eq(depth, TB_SLICE("0")))
        imap_fail(p, "BAD No such depth");
    if (!tb_slice_ieq(name, TB_SLICE("DEPTH")))
        imap_fail(p, "BAD No such option");
}

/* mailbox_or_server: the empty name means the server (RFC 5464 4.2). */
static struct tb_slice mailbox_or_server(struct imap_parser *p)
{
    if (p->end - p->p < 2 || p->p[0] != '"' || p->p[1] != '"')
        return imap_mailbox(p);
    p->p += 2;
    return (struct tb_slice){"", 0};
}

/* getmetadata = "GETMETADATA" [SP "(" getmetadata-option *(SP getmetadata-option) ")"] SP mailbox SP entries */
void imap_parse_getmetadata(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct meta_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->size_max = UINT32_MAX;
    if (imap_try(p, '(')) {
        do
            option(p, a);
        while (!p->failed && imap_try_sp(p));
        imap_expect(p, ')');
        imap_sp(p);
    }
    a->mailbox = mailbox_or_server(p);
    imap_sp(p);
    imap_parse_entries(p, &a->entries, false);
}

/* setmetadata = "SETMETADATA" SP mailbox SP "(" entry SP value *(SP entry SP value) ")"; value = nstring / literal8 */
void imap_parse_setmetadata(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct meta_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    if (!a)
        return;
    a->mailbox = mailbox_or_server(p);
    a->values = tb_arena_alloc(p->arena, ENTRIES_MAX * sizeof *a->values);
    imap_sp(p);
    imap_expect(p, '(');
    while (a->values && !p->failed && add_entry(p, &a->entries)) {
        imap_sp(p);
        a->values[a->entries.n - 1] = imap_nstring8(p);
        if (!imap_try_sp(p))
            break;
    }
    imap_expect(p, ')');
}

/* ---- the work, on the owner's thread ---- */

static bool is_private(struct tb_slice name)
{
    return tb_slice_istarts(name, TB_SLICE("/private"));
}

/* in_depth: is name the entry, or so near below it? */
static bool in_depth(struct tb_slice name, struct tb_slice want, uint8_t depth)
{
    if (name.len < want.len || memcmp(name.ptr, want.ptr, want.len) != 0)
        return false;
    struct tb_slice below = tb_slice_sub(name, want.len, name.len);
    if (below.len == 0)
        return true;
    if (below.ptr[0] != '/' || depth == 0)
        return false;
    return depth == DEPTH_ALL || !memchr(below.ptr + 1, '/', below.len - 1);
}

static void take(struct meta_job *j, const struct tb_annot *one)
{
    if (one->value.len > j->size_max)
        j->longest = one->value.len > j->longest ? (uint32_t)one->value.len : j->longest;
    else
        j->found[j->found_n++] = *one;
}

static enum tb_rc read_entry(struct imap_errand *e, struct tb_account *a, uint32_t mbox, struct tb_slice want)
{
    struct meta_job *j = e->data;
    const struct tb_annot admin = {TB_SLICE("/shared/admin"), j->admin};
    struct tb_annot *v;
    size_t n = 0, before = j->found_n;
    bool any = false, seen = e->own || !is_private(want);
    if (j->server && j->admin.len > 0 && in_depth(admin.name, want, j->depth)) {
        any = true;
        take(j, &admin);
    }
    enum tb_rc rc = seen ? tb_annot_list(a, mbox, want, &e->arena, &v, &n) : TB_OK;
    for (size_t i = 0; rc == TB_OK && i < n; i++)
        if (in_depth(v[i].name, want, j->depth)) {
            any = true;
            take(j, &v[i]);
        }
    if (!any && j->depth == 0)
        j->found[j->found_n++] = (struct tb_annot){.name = want};
    return rc != TB_OK || j->found_n - before <= TB_ANNOT_MAX + 1 ? rc : TB_LIMIT;
}

/* find: the mailbox's number, 0 for the server; a \Noselect name will do for its owner (RFC 5464 4.1). */
static bool find(struct imap_errand *e, struct tb_account *a, uint32_t need, uint32_t *mbox)
{
    const struct meta_job *j = e->data;
    *mbox = 0;
    if (j->server)
        return true;
    if (!e->own && !imap_errand_find(e, a, need))
        return false;
    if (e->own)
        e->rc = tb_mailbox_find(a, e->name, &e->arena, &e->mailbox);
    e->rc = e->rc == TB_INVALID || (e->rc == TB_OK && e->mailbox.mbox == 0) ? TB_NOTFOUND : e->rc;
    *mbox = e->mailbox.mbox;
    return e->rc == TB_OK;
}

static void work_get(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct meta_job *j = e->data;
    uint32_t mbox;
    (void)w;
    if (!find(e, a, TB_RIGHT_READ, &mbox))
        return;
    j->found = tb_arena_alloc(&e->arena, (j->want_n * (TB_ANNOT_MAX + 2)) * sizeof *j->found);
    e->rc = j->found ? TB_OK : TB_LIMIT;
    for (size_t i = 0; e->rc == TB_OK && i < j->want_n; i++)
        e->rc = read_entry(e, a, mbox, j->want[i].name);
}

static void work_set(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct meta_job *j = e->data;
    uint32_t mbox;
    (void)w;
    for (size_t i = 0; i < j->want_n; i++) {
        bool is_scope = !memchr(j->want[i].name.ptr + 1, '/', j->want[i].name.len - 1);
        if (is_scope)
            e->refusal = "NO [CANNOT] Such an entry has no value";
        else if (!e->own && is_private(j->want[i].name))
            e->refusal = "NO [METADATA NOPRIVATE] No private entries in a mailbox of others";
        else if (j->server && !is_private(j->want[i].name))
            e->refusal = "NO [NOPERM] The server's shared entries are read-only";
    }
    if (e->refusal) {
        e->rc = TB_INVALID;
        return;
    }
    if (!find(e, a, TB_RIGHT_READ | TB_RIGHT_WRITE, &mbox))
        return;
    for (size_t i = 0; i < j->want_n; i++)
        if (j->want[i].value.len > TB_ANNOT_VALUE_MAX)
            e->refusal = "NO [METADATA MAXSIZE 16384] Value too large";
    e->rc = e->refusal ? TB_LIMIT : tb_annot_set(a, mbox, j->want, j->want_n);
    if (e->rc == TB_OVERQUOTA)
        e->refusal = "NO [METADATA TOOMANY] Too many entries";
}
_Static_assert(TB_ANNOT_VALUE_MAX == 16384, "as the refusal says");

/* ---- errands ---- */

/* meta_new: with all that the work needs; values may be NULL. */
static struct imap_errand *meta_new(struct imap_session *s, struct tb_slice mailbox, const struct imap_entries *entries,
                                    const struct tb_slice *values)
{
    struct imap_place where = {.id = s->account_id, .name = mailbox, .own = true};
    if (mailbox.len > 0 && !imap_locate(s, mailbox, &where))
        return NULL;
    struct imap_errand *e = imap_errand_new(s, &where);
    struct meta_job *j = e ? tb_arena_alloc(&e->arena, sizeof *j) : NULL;
    if (!j) {
        imap_errand_end(e);
        return NULL;
    }
    e->data = j;
    *j = (struct meta_job){.server = mailbox.len == 0, .size_max = UINT32_MAX, .want_n = entries->n};
    j->want = tb_arena_alloc(&e->arena, entries->n * sizeof *j->want);
    for (size_t i = 0; j->want && i < entries->n; i++) {
        j->want[i].name = tb_arena_copy(&e->arena, entries->v[i]);
        j->want[i].value = (struct tb_slice){0};
        if (values && values[i].ptr)
            j->want[i].value = values[i].len > 0 ? tb_arena_copy(&e->arena, values[i]) : TB_SLICE("");
    }
    struct tb_buf admin; /* RFC 5464 6.2.1: a URI */
    tb_buf_init(&admin, 1024);
    if (s->config->postmaster[0]) {
        tb_buf_str(&admin, "mailto:");
        tb_buf_str(&admin, s->config->postmaster);
        if (!strchr(s->config->postmaster, '@')) {
            tb_buf_char(&admin, '@');
            tb_buf_str(&admin, s->config->default_domain[0] ? s->config->default_domain : s->config->hostname);
        }
    }
    j->admin = tb_arena_copy(&e->arena, tb_buf_all(&admin));
    tb_buf_free(&admin);
    if (e->arena.overflowed) {
        imap_errand_end(e);
        return NULL;
    }
    return e;
}

struct imap_errand *imap_metadata_start(struct imap_session *s, struct tb_slice mailbox,
                                        const struct imap_entries *entries)
{
    struct imap_errand *e = meta_new(s, mailbox, entries, NULL);
    if (e)
        imap_errand_start(s, e, work_get);
    return e;
}

static void put_value(struct imap_out *o, struct tb_slice value)
{
    if (!value.ptr) {
        imap_puts(o, "NIL");
        return;
    }
    if (value.len > 0 && memchr(value.ptr, '\0', value.len))
        imap_putc(o, '~'); /* literal8: a NUL makes it a literal below */
    imap_put_string(o, value);
}

/* put: one response of at most PUT_MAX entries from *at on. */
static void put(struct imap_session *s, struct tb_slice mailbox, const struct meta_job *j, size_t *at)
{
    imap_puts(&s->out, "* METADATA ");
    imap_put_mailbox(&s->out, mailbox);
    for (size_t i = 0; i < PUT_MAX && *at < j->found_n; i++, ++*at) {
        imap_puts(&s->out, i == 0 ? " (" : " ");
        imap_put_astring(&s->out, j->found[*at].name);
        imap_putc(&s->out, ' ');
        put_value(&s->out, j->found[*at].value);
    }
    imap_puts(&s->out, ")\r\n");
}

void imap_metadata_put(struct imap_session *s, struct tb_slice mailbox, const struct imap_errand *e)
{
    const struct meta_job *j = e->data;
    for (size_t at = 0; e->rc == TB_OK && at < j->found_n;)
        put(s, mailbox, j, &at);
}

/* ---- the commands ---- */

static void meta_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    (void)s;
    imap_errand_end(cmd->state);
    cmd->state = NULL;
}

static const char *meta_start(struct imap_session *s, struct imap_cmd *cmd, bool set)
{
    const struct meta_args *a = cmd->args;
    struct imap_errand *e = meta_new(s, a->mailbox, &a->entries, set ? a->values : NULL);
    if (!e)
        return "NO [NONEXISTENT] No such mailbox";
    struct meta_job *j = e->data;
    j->size_max = set ? UINT32_MAX : a->size_max;
    j->depth = a->depth;
    cmd->state = e;
    cmd->cleanup = meta_cleanup;
    imap_errand_start(s, e, set ? work_set : work_get);
    return NULL;
}

enum imap_run imap_run_setmetadata(struct imap_session *s, struct imap_cmd *cmd)
{
    const char *refusal = cmd->state ? NULL : meta_start(s, cmd, true);
    if (refusal)
        return imap_reply(cmd, refusal);
    const struct imap_errand *e = cmd->state;
    if (e->busy)
        return RUN_WAIT;
    return e->rc == TB_OK ? imap_reply(cmd, "OK SETMETADATA completed") : imap_errand_reply(cmd, e);
}

enum imap_run imap_run_getmetadata(struct imap_session *s, struct imap_cmd *cmd)
{
    struct meta_args *a = cmd->args;
    struct tb_buf b;
    const char *refusal = cmd->state ? NULL : meta_start(s, cmd, false);
    if (refusal)
        return imap_reply(cmd, refusal);
    const struct imap_errand *e = cmd->state;
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    const struct meta_job *j = e->data;
    if (a->put < j->found_n) {
        put(s, a->mailbox, j, &a->put);
        return RUN_MORE;
    }
    if (j->longest == 0)
        return imap_reply(cmd, "OK GETMETADATA completed");
    tb_buf_init(&b, 256);
    tb_buf_str(&b, "OK [METADATA LONGENTRIES ");
    tb_buf_u64(&b, j->longest);
    tb_buf_str(&b, "] GETMETADATA completed");
    return imap_reply_buf(s, cmd, &b);
}
