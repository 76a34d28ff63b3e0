/*
 * fetch.c: FETCH and UID FETCH: parsing, the table of items, and the loop over messages.
 *
 * Without sections the loop is tight: rows in packed batches, stored texts straight into reserved output, no
 * allocation and no printf for a message. With sections, messages go through body.c's window. A new item is a
 * row in `kinds`.
 * Thread: the connection's owner; parsing: any. RFC 3501 6.4.5, 7.4.2; RFC 2180 4.1.2 (expunged messages: NO).
 */
#include "imap_fetch.h"
#include "chars.h"

/* ---- items ---- */

static char *put_uid(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt_u64(IMAP_FMT(p, "UID "), m->row->uid);
}
static char *put_flags(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt_flags(IMAP_FMT(p, "FLAGS "), m->row->flags, m->row->keywords, m->keywords);
}
static char *put_internaldate(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt_date(IMAP_FMT(p, "INTERNALDATE "), m->row->internaldate);
}
static char *put_size(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt_u64(IMAP_FMT(p, "RFC822.SIZE "), m->row->size);
}
static char *put_envelope(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt(IMAP_FMT(p, "ENVELOPE "), m->envelope.ptr, m->envelope.len);
}
static char *put_bodystructure(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt(IMAP_FMT(p, "BODYSTRUCTURE "), m->bodystructure.ptr, m->bodystructure.len);
}
static char *put_body(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt(IMAP_FMT(p, "BODY "), m->body.ptr, m->body.len);
}

static char *put_modseq(char *p, const struct imap_fetch_message *m)
{
    p = imap_fmt_u64(IMAP_FMT(p, "MODSEQ ("), m->row->modseq);
    *p++ = ')';
    return p;
}

static char *put_savedate(char *p, const struct imap_fetch_message *m)
{
    return imap_fmt_date(IMAP_FMT(p, "SAVEDATE "), m->row->savedate);
}
static char *put_emailid(char *p, const struct imap_fetch_message *m)
{
    char id[32];
    tb_email_id(m->account, m->row->blob, id);
    p = IMAP_FMT(p, "EMAILID (");
    p = imap_fmt(p, id, strlen(id));
    *p++ = ')';
    return p;
}
static char *put_threadid(char *p, const struct imap_fetch_message *m)
{
    (void)m; /* RFC 8474 5.2: a server that does not group messages says NIL */
    return IMAP_FMT(p, "THREADID NIL");
}

static const struct imap_fetch_kind kind_savedate = {"SAVEDATE", 9 + IMAP_DATE_ROOM, 0, put_savedate};
static const struct imap_fetch_kind kind_emailid = {"EMAILID", 10 + 32, 0, put_emailid};
static const struct imap_fetch_kind kind_threadid = {"THREADID", 12, 0, put_threadid};
static const struct imap_fetch_kind kind_modseq = {"MODSEQ", 9 + IMAP_U64_ROOM, 0, put_modseq};
static const struct imap_fetch_kind kind_flags = {"FLAGS", 6 + IMAP_FLAGS_ROOM, NEEDS_FLAGS, put_flags};
static const struct imap_fetch_kind kind_uid = {"UID", 4 + IMAP_U64_ROOM, 0, put_uid};
static const struct imap_fetch_kind kind_internaldate = {"INTERNALDATE", 13 + IMAP_DATE_ROOM, 0, put_internaldate};
static const struct imap_fetch_kind kind_size = {"RFC822.SIZE", 12 + IMAP_U64_ROOM, 0, put_size};
static const struct imap_fetch_kind kind_envelope = {"ENVELOPE", 9, NEEDS_ENVELOPE, put_envelope};
static const struct imap_fetch_kind kind_bodystructure = {"BODYSTRUCTURE", 14, NEEDS_STRUCTURE, put_bodystructure};
static const struct imap_fetch_kind kind_body = {"BODY", 5, NEEDS_STRUCTURE | NEEDS_BODY_TEXT, put_body};

static const struct imap_fetch_kind *const kinds[] = {
    &kind_uid,  &kind_flags,  &kind_internaldate, &kind_size,    &kind_envelope, &kind_bodystructure,
    &kind_body, &kind_modseq, &kind_savedate,     &kind_emailid, &kind_threadid,
};

/* ---- parsing ---- */

static void add_kind(struct imap_parser *p, struct imap_fetch *f, const struct imap_fetch_kind *k)
{
    for (size_t i = 0; i < f->kinds_n; i++) {
        if (f->kinds[i] == k)
            return; /* asked for twice, answered once */
    }
    if (f->kinds_n == FETCH_KINDS_MAX) {
        imap_fail(p, "NO [LIMIT] Too many items");
        return;
    }
    f->kinds[f->kinds_n++] = k;
    f->room += k->room + 1;
    f->needs |= k->needs;
}

static struct imap_section *add_section(struct imap_parser *p, struct imap_fetch *f)
{
    if (f->sections_n == FETCH_SECTIONS_MAX) {
        imap_fail(p, "NO [LIMIT] Too many items");
        return NULL;
    }
    if ((f->sections_n & (f->sections_n - 1)) == 0) { /* 0, 1, 2, 4, ...: full */
        size_t cap = f->sections_n ? f->sections_n * 2 : 1;
        struct imap_section *v = tb_arena_alloc(p->arena, cap * sizeof *v);
        if (!v) {
            imap_fail(p, "NO [LIMIT] Command too large");
            return NULL;
        }
        if (f->sections_n > 0)
            memcpy(v, f->sections, f->sections_n * sizeof *v);
        f->sections = v;
    }
    return &f->sections[f->sections_n++];
}

/* rfc822: "RFC822" [".HEADER" / ".TEXT"], older names of three sections. */
static bool rfc822(struct imap_parser *p, struct imap_fetch *f, struct tb_slice name)
{
    static const struct {
        const char *name;
        enum imap_section_kind kind;
        bool peek;
    } old[] = {
        {"RFC822", SECTION_ALL, false}, {"RFC822.HEADER", SECTION_HEADER, true}, {"RFC822.TEXT", SECTION_TEXT, false}};
    for (size_t i = 0; i < TB_ARRAY_LEN(old); i++) {
        if (!tb_slice_ieq(name, tb_slice_str(old[i].name)))
            continue;
        struct imap_section *x = add_section(p, f);
        if (x)
            *x = (struct imap_section){.kind = old[i].kind, .peek = old[i].peek, .label = tb_slice_str(old[i].name)};
        return true;
    }
    return false;
}

/* section_att: the items with a section: was name one of them? RFC 3516 7 */
static bool section_att(struct imap_parser *p, struct imap_fetch *f, struct tb_slice name)
{
    static const struct {
        const char *name;
        enum imap_section_want want;
        bool peek;
    } items[] = {{"BODY", WANT_BODY, false},
                 {"BODY.PEEK", WANT_BODY, true},
                 {"BINARY", WANT_BINARY, false},
                 {"BINARY.PEEK", WANT_BINARY, true},
                 {"BINARY.SIZE", WANT_BINARY_SIZE, true}};
    for (size_t i = 0; i < TB_ARRAY_LEN(items); i++) {
        if (!tb_slice_ieq(name, tb_slice_str(items[i].name)))
            continue;
        struct imap_section *x = add_section(p, f);
        if (x)
            imap_section_parse(p, items[i].want, items[i].peek, x);
        return true;
    }
    return false;
}

/* preview_att: PREVIEW, which is asked for once however often. */
static bool preview_att(struct imap_parser *p, struct imap_fetch *f, struct tb_slice name)
{
    struct imap_section again, *x;
    if (!tb_slice_ieq(name, TB_SLICE("PREVIEW")))
        return false;
    for (size_t i = 0; i < f->sections_n; i++)
        if (f->sections[i].want == WANT_PREVIEW) {
            imap_preview_parse(p, &again);
            return true;
        }
    if ((x = add_section(p, f)) != NULL)
        imap_preview_parse(p, x);
    return true;
}

/* fetch-att = "ENVELOPE" / "FLAGS" / ... / "BODY" section ["<" number "." nz-number ">"] / ... */
static void fetch_att(struct imap_parser *p, struct imap_fetch *f)
{
    struct tb_slice name = imap_word(p);
    if (p->failed || (imap_at(p, '[') && section_att(p, f, name)) || preview_att(p, f, name))
        return;
    for (size_t i = 0; i < TB_ARRAY_LEN(kinds); i++) {
        if (tb_slice_ieq(name, tb_slice_str(kinds[i]->name))) {
            add_kind(p, f, kinds[i]);
            f->uid_asked |= kinds[i] == &kind_uid;
            return;
        }
    }
    if (!rfc822(p, f, name))
        imap_fail(p, "BAD No such FETCH item");
}

/* atts: "(" fetch-att *(SP fetch-att) ")" */
static void atts(struct imap_parser *p, struct imap_fetch *f)
{
    imap_expect(p, '(');
    do
        fetch_att(p, f);
    while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

static void sum_up(struct imap_fetch *f)
{
    for (size_t i = 0; i < f->sections_n; i++) {
        bool preview = f->sections[i].want == WANT_PREVIEW, parts = preview || f->sections[i].path_n > 0;
        f->needs_parts |= parts;
        f->may_scan |= parts && !(preview && f->sections[i].lazy);
        f->sets_seen |= !f->sections[i].peek;
    }
}

/* macro: "ALL" / "FULL" / "FAST", allowed alone only. */
static bool macro(struct imap_parser *p, struct imap_fetch *f)
{
    static const struct {
        const char *name;
        const struct imap_fetch_kind *kinds[5];
    } macros[] = {
        {"ALL", {&kind_flags, &kind_internaldate, &kind_size, &kind_envelope}},
        {"FAST", {&kind_flags, &kind_internaldate, &kind_size}},
        {"FULL", {&kind_flags, &kind_internaldate, &kind_size, &kind_envelope, &kind_body}},
    };
    struct imap_parser look = *p;
    struct tb_slice name = imap_word(&look);
    for (size_t i = 0; i < TB_ARRAY_LEN(macros) && !look.failed; i++) {
        if (!tb_slice_ieq(name, tb_slice_str(macros[i].name)))
            continue;
        for (size_t k = 0; k < TB_ARRAY_LEN(macros[i].kinds) && macros[i].kinds[k]; k++)
            add_kind(p, f, macros[i].kinds[k]);
        p->p = look.p;
        return true;
    }
    return false;
}

/* fetch-modifiers (RFC 4466 2.4), after the opening parenthesis: CHANGEDSINCE n, VANISHED (RFC 7162 3.1.4, 3.2.6),
 * PARTIAL (RFC 9394 3.3) */
static void fetch_modifiers(struct imap_parser *p, struct imap_cmd *cmd, struct imap_fetch *f)
{
    do {
        struct tb_slice name = imap_word(p);
        if (tb_slice_ieq(name, TB_SLICE("CHANGEDSINCE"))) {
            imap_sp(p);
            f->changedsince = imap_modseq(p); /* 0, which some clients send: all */
            f->has_changedsince = true;
        } else if (tb_slice_ieq(name, TB_SLICE("VANISHED")) && cmd->verb->flags & VERB_UID) {
            f->vanished = true;
        } else if (tb_slice_ieq(name, TB_SLICE("PARTIAL")) && cmd->verb->flags & VERB_UID) {
            imap_partial_parse(p, &f->partial);
        } else {
            imap_fail(p, "BAD No such FETCH modifier here");
        }
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    if (f->vanished && !f->has_changedsince)
        imap_fail(p, "BAD VANISHED needs CHANGEDSINCE");
    if (f->has_changedsince)
        add_kind(p, f, &kind_modseq);
}

/* fetch = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att / "(" fetch-att *(SP fetch-att) ")") */
void imap_parse_fetch(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_fetch *f = tb_arena_alloc(p->arena, sizeof *f);
    cmd->args = f;
    imap_sp(p);
    if (!f)
        return;
    imap_sequence_set(p, &f->set);
    imap_sp(p);
    if (cmd->verb->flags & VERB_UID)
        add_kind(p, f, &kind_uid); /* RFC 3501 6.4.8 */
    if (imap_at(p, '(')) {
        atts(p, f);
    } else if (!macro(p, f)) {
        fetch_att(p, f);
    }
    if (!p->failed && imap_try_sp(p)) {
        imap_expect(p, '(');
        fetch_modifiers(p, cmd, f);
    }
    sum_up(f);
}

/* ---- writing ---- */

static bool tells(const struct imap_fetch *f, const struct imap_fetch_kind *k)
{
    for (size_t i = 0; i < f->kinds_n; i++)
        if (f->kinds[i] == k)
            return true;
    return false;
}

/* put_due: what is told though not asked for because \Seen was set: RFC 3501 6.4.5, RFC 7162 3.2.4, RFC 9051 7.5.2. */
static char *put_due(const struct imap_session *s, const struct imap_fetch *f, char *p,
                     const struct imap_fetch_message *m)
{
    bool uid = s->enabled & (IMAP_CONDSTORE | IMAP_REV2) && !(s->enabled & IMAP_UIDONLY);
    if (!tells(f, &kind_flags)) {
        p = kind_flags.put(p, m);
        *p++ = ' ';
    }
    if (uid && !tells(f, &kind_uid)) {
        p = kind_uid.put(p, m);
        *p++ = ' ';
    }
    if (s->enabled & IMAP_CONDSTORE && !tells(f, &kind_modseq)) {
        p = kind_modseq.put(p, m);
        *p++ = ' ';
    }
    return p;
}

bool imap_fetch_begin(struct imap_session *s, struct imap_fetch *f, const struct tb_row *row, uint32_t seqno,
                      const struct tb_cached *texts, bool seen)
{
    static const struct imap_keywords no_keywords;
    struct imap_fetch_message m = {
        .row = row, .seqno = seqno, .account = s->account, .keywords = f->keywords ? f->keywords : &no_keywords};
    size_t room = f->room + IMAP_U64_ROOM + 16;
    if (row->keywords != 0 && !f->keywords && ((f->needs & NEEDS_FLAGS) || seen)) {
        struct imap_keywords *k = tb_arena_alloc(&s->arena, sizeof *k);
        if (!k || imap_keywords_load(s, &s->arena, k) != TB_OK)
            return false;
        m.keywords = f->keywords = k;
    }
    room += m.keywords->bytes + (seen ? kind_flags.room + kind_uid.room + kind_modseq.room + 3 : 0);
    if (f->needs & NEEDS_CACHE) {
        m.envelope = texts->envelope;
        m.bodystructure = texts->bodystructure;
        room += m.envelope.len + m.bodystructure.len;
    }
    if (f->needs & NEEDS_BODY_TEXT) {
        f->body_text.len = 0;
        if (tb_body_write(m.bodystructure, &f->body_text) != TB_OK || f->body_text.failed)
            return false;
        m.body = tb_buf_all(&f->body_text);
        room += m.body.len;
    }
    char *p = imap_room(&s->out, room);
    if (!p)
        return false;
    char *start = p = imap_fmt_fetch(s, p, seqno, row->uid);
    for (size_t i = 0; i < f->kinds_n; i++) {
        p = f->kinds[i]->put(p, &m);
        *p++ = ' ';
    }
    if (seen)
        p = put_due(s, f, p, &m);
    imap_wrote(&s->out, p > start ? p - 1 : p);
    return true;
}

/* ---- running ---- */

static void fetch_cleanup(struct imap_session *s, struct imap_cmd *cmd)
{
    struct imap_fetch *f = cmd->args;
    s->mid_response = false;
    if (f->window)
        imap_window_close(f->window);
    tb_buf_free(&f->body_text);
    imap_resync_end(&f->resync);
}

/* changed_only: of the messages named, those that changed since; and of the UIDs named, those that vanished. */
static enum tb_rc changed_only(struct imap_session *s, struct imap_fetch *f, bool uid)
{
    struct tb_uidset known = f->uids;
    if (uid && !f->set.saved && f->partial.last == 0) { /* what vanished may lie above the highest UID that is left */
        size_t n = 0;
        struct tb_range *v = tb_arena_alloc(&s->arena, (f->set.n + 1) * sizeof *v);
        if (!v || imap_set_ranges(&f->set, tb_view_uidnext(s->view) - 1, false, v, &n) != TB_OK)
            return TB_LIMIT;
        known = (struct tb_uidset){.v = v, .n = n, .cap = n};
    }
    enum tb_rc rc = tb_view_since(s->view, f->changedsince, &known, f->vanished, &f->resync.since);
    f->resync.begun = true;
    f->uids = f->resync.since.changed;
    return rc;
}

/* leave_out_uid: a UID FETCH has it as the first of its items. */
static void leave_out_uid(struct imap_fetch *f)
{
    f->kinds_n--;
    memmove(&f->kinds[0], &f->kinds[1], f->kinds_n * sizeof f->kinds[0]);
}

static enum imap_run fetch_start(struct imap_session *s, struct imap_cmd *cmd, struct imap_fetch *f)
{
    bool uid = cmd->verb->flags & VERB_UID;
    uint32_t limit = s->config->imap_message_limit;
    cmd->cleanup = fetch_cleanup;
    tb_buf_init(&f->body_text, TB_MIME_TEXT_MAX + 1024);
    if (f->vanished && !(s->enabled & IMAP_QRESYNC))
        return imap_reply(cmd, "BAD ENABLE QRESYNC first");
    if (tells(f, &kind_modseq))
        imap_condstore(s);
    if (s->enabled & IMAP_UIDONLY && !f->uid_asked) /* the response begins with it: RFC 9586 3.3 */
        leave_out_uid(f);
    enum tb_rc rc = imap_set_resolve(s, &f->set, uid, &f->uids);
    if (rc == TB_INVALID)
        return imap_reply(cmd, "BAD No such message");
    if (limit > 0 && f->partial.last > 0 && f->partial.last - f->partial.first >= limit) /* RFC 9738 3.1 */
        return imap_limit_reply(s, cmd, false, limit, 0, "The range has too many messages");
    if (rc == TB_OK && f->partial.last > 0)
        rc = imap_partial_keep(s, &f->partial, &f->uids);
    if (rc == TB_OK && f->has_changedsince)
        rc = changed_only(s, f, uid);
    if (rc == TB_OK)
        rc = imap_limit_keep(s, limit, &f->uids, &f->last);
    if (rc == TB_OK && !imap_walk_init(&f->walk, s, &f->uids))
        rc = TB_LIMIT;
    if (rc == TB_OK && f->sections_n > 0 && !(f->window = imap_window_new(s, f)))
        rc = TB_LIMIT;
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    f->sets_seen = f->sets_seen && !s->read_only && s->rights & TB_RIGHT_SEEN;
    f->started = true;
    return RUN_MORE;
}

static enum imap_run fetch_end(struct imap_session *s, struct imap_cmd *cmd, const struct imap_fetch *f)
{
    bool gone = f->walk.gone && !(cmd->verb->flags & VERB_UID);
    if (f->last > 0 && !f->damaged && !f->unknown_cte && !f->no_memory && !gone)
        return imap_limit_reply(s, cmd, true, s->config->imap_message_limit, f->last, "FETCH completed in part");
    if (f->last > 0)
        imap_limit_tell(s, s->config->imap_message_limit, f->last);
    if (f->damaged)
        return imap_reply(cmd, "NO [SERVERBUG] Some messages could not be read");
    if (f->unknown_cte)
        return imap_reply(cmd, "NO [UNKNOWN-CTE] Some parts are encoded in a way not known here"); /* RFC 3516 4.3 */
    if (f->no_memory)
        return imap_reply(cmd, "NO [LIMIT] Some messages were left out for lack of memory");
    if (gone)
        return imap_reply(cmd, "NO [EXPUNGEISSUED] Some messages were expunged meanwhile");
    return imap_reply(cmd, "OK FETCH completed");
}

/* fetch_rows: the tight loop. RUN_DONE: no more rows. */
static enum imap_run fetch_rows(struct imap_session *s, struct imap_fetch *f)
{
    struct tb_cached texts = {0};
    for (int turn = 0; turn < IMAP_BATCH; turn++) {
        uint32_t seqno;
        const struct tb_row *row = imap_walk_next(&f->walk, &seqno);
        if (!row)
            return RUN_DONE;
        enum tb_rc rc = f->needs & NEEDS_CACHE ? tb_cached_get(s->view, row->uid, &texts) : TB_OK;
        if (rc == TB_NOTFOUND) {
            f->walk.gone = true;
            continue;
        }
        if (rc != TB_OK) {
            if (!f->window && !(f->window = imap_window_new(s, f))) {
                f->no_memory = true;
                continue;
            }
            imap_window_one(f->window, row, seqno);
            return RUN_MORE;
        }
        if (!imap_fetch_begin(s, f, row, seqno, &texts, false)) {
            f->no_memory = true;
            continue;
        }
        char *p = imap_room(&s->out, 3);
        if (p)
            imap_wrote(&s->out, IMAP_FMT(p, ")\r\n"));
    }
    return RUN_MORE;
}

enum imap_run imap_run_fetch(struct imap_session *s, struct imap_cmd *cmd)
{
    struct imap_fetch *f = cmd->args;
    enum imap_run r;
    if (!f->started)
        return fetch_start(s, cmd, f);
    if (f->vanished && !imap_put_vanished(s, &f->resync.since.vanished, true, &f->resync.at))
        return RUN_WAIT;
    if (f->sections_n > 0) {
        r = imap_window_run(f->window, true);
    } else {
        r = f->window ? imap_window_run(f->window, false) : RUN_DONE;
        if (r == RUN_DONE)
            r = fetch_rows(s, f);
    }
    return r == RUN_DONE ? fetch_end(s, cmd, f) : r;
}

/* ---- unasked (RFC 5465 5.2) ---- */

struct tb_slice imap_fetch_atts(struct imap_parser *p)
{
    const char *begin = p->p;
    struct imap_fetch *f = tb_arena_alloc(p->arena, sizeof *f);
    if (f)
        atts(p, f);
    return tb_slice(begin, p->failed ? 0 : (size_t)(p->p - begin));
}

bool imap_fetch_unasked(struct imap_session *s, struct imap_cmd *cmd, struct tb_slice items,
                        const struct tb_uidset *uids)
{
    struct imap_parser p;
    struct imap_fetch *f = tb_arena_alloc(&s->arena, sizeof *f);
    struct tb_range *v = tb_arena_alloc(&s->arena, (uids->n + 1) * sizeof *v);
    if (!f || !v)
        return false;
    imap_parser_init(&p, items, &s->arena);
    if (s->enabled & (IMAP_QRESYNC | IMAP_REV2) && !(s->enabled & IMAP_UIDONLY))
        add_kind(&p, f, &kind_uid); /* RFC 7162 3.2.4, RFC 9051 7.5.2: unasked, always */
    atts(&p, f);
    if (s->enabled & IMAP_CONDSTORE)
        add_kind(&p, f, &kind_modseq); /* RFC 7162 3.1 */
    sum_up(f);
    memcpy(v, uids->v, uids->n * sizeof *v);
    f->uids = (struct tb_uidset){.v = v, .n = uids->n, .cap = uids->n};
    f->sets_seen = false; /* nobody has looked at them yet */
    *cmd = (struct imap_cmd){.verb = imap_verb_find(TB_SLICE("FETCH")), .args = f, .cleanup = fetch_cleanup};
    tb_buf_init(&f->body_text, TB_MIME_TEXT_MAX + 1024);
    f->started = !p.failed && imap_walk_init(&f->walk, s, &f->uids) &&
                 (f->sections_n == 0 || (f->window = imap_window_new(s, f)) != NULL);
    if (tells(f, &kind_modseq))
        imap_condstore(s);
    return f->started;
}
