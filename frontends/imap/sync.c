/*
 * sync.c: tells the client what changed in its selected mailbox since it was last told: EXPUNGE, EXISTS,
 * FLAGS, FETCH. The only file that moves sequence numbers (I2).
 *
 * Writing is an iterator: many changes to a slow reader pause at the output's high water and go on later from
 * the same refresh.
 * Thread: the connection's owner. RFC 3501 5.2, 5.5, 7.2.6, 7.3.1, 7.4; 2180 3 (a mailbox deleted under us: BYE);
 * 9586 3.6 (UIDONLY).
 */
#include "imap_session.h"

enum { PART_EXPUNGE, PART_COUNT, PART_FLAGS, PART_END };

enum tb_rc imap_keywords_load(struct imap_session *s, struct tb_arena *arena, struct imap_keywords *k)
{
    k->n = tb_keywords(s->account, tb_view_mbox(s->view), arena, k->names);
    k->bytes = 0;
    for (size_t i = 0; i < k->n; i++)
        k->bytes += k->names[i].len + 1;
    return arena->overflowed ? TB_LIMIT : TB_OK;
}

void imap_put_flags_lists(struct imap_session *s, const struct imap_keywords *k)
{
    static const struct {
        const char *name;
        uint16_t bit;
    } system_flags[] = {{"\\Answered", TB_FLAG_ANSWERED},
                        {"\\Flagged", TB_FLAG_FLAGGED},
                        {"\\Deleted", TB_FLAG_DELETED},
                        {"\\Seen", TB_FLAG_SEEN},
                        {"\\Draft", TB_FLAG_DRAFT}};
    struct imap_out *o = &s->out;
    for (int permanent = 0; permanent < 2; permanent++) {
        uint16_t flags = permanent ? imap_flags_allowed(s->read_only ? 0 : s->rights) : UINT16_MAX;
        bool keywords = !permanent || (!s->read_only && s->rights & TB_RIGHT_WRITE), first = true;
        imap_puts(o, permanent ? "* OK [PERMANENTFLAGS (" : "* FLAGS (");
        for (size_t i = 0; i < TB_ARRAY_LEN(system_flags); i++) {
            if (!(flags & system_flags[i].bit))
                continue;
            imap_puts(o, first ? "" : " ");
            imap_puts(o, system_flags[i].name);
            first = false;
        }
        if (keywords) {
            for (size_t i = 0; i < k->n; i++) {
                if (k->names[i].len == 0)
                    continue;
                imap_putc(o, ' ');
                imap_put(o, k->names[i]);
            }
        }
        if (permanent) /* without \* when there is no room for another keyword: RFC 9051 7.1 */
            imap_puts(o, keywords     ? k->n < TB_KEYWORDS_MAX ? " \\*)] Flags permitted\r\n" : ")] Flags permitted\r\n"
                         : flags != 0 ? ")] Flags permitted\r\n"
                                      : ")] No permanent flags permitted\r\n");
        else
            imap_puts(o, ")\r\n");
    }
}

/* gather_vanished: the removed UIDs, which come highest first, as ranges. */
static enum tb_rc gather_vanished(struct imap_sync *y)
{
    const uint32_t *uid = y->changes.removed_uid;
    size_t n = 0;
    struct tb_range *v = tb_arena_alloc(&y->arena, (y->changes.removed + 1) * sizeof *v);
    if (!v)
        return TB_LIMIT;
    for (uint32_t i = y->changes.removed; i-- > 0;) {
        if (n > 0 && v[n - 1].last + 1 == uid[i])
            v[n - 1].last = uid[i];
        else
            v[n++] = (struct tb_range){uid[i], uid[i]};
    }
    y->vanished = (struct tb_uidset){.v = v, .n = n, .cap = n};
    return TB_OK;
}

static bool begin(struct imap_session *s, uint8_t how)
{
    struct imap_sync *y = &s->sync;
    s->changed = false;
    if (!imap_at_home(s) && !imap_rights_look(s)) {
        tb_log(TB_LOG_INFO, "view ended proto=imap user=%s id=%s mailbox=%u reason=\"no right to read\"", s->user,
               tb_conn_id(s->conn), tb_view_mbox(s->view));
        s->gone = true; /* RFC 4314 5.1.1 */
        return false;
    }
    uint32_t next = tb_view_uidnext(s->view);
    enum tb_rc rc = tb_view_refresh(s->view, how & SYNC_EXPUNGE, &y->arena, &y->changes);
    if (rc == TB_OK && y->changes.added > 0)
        imap_notify_added(s, next, tb_view_uidnext(s->view) - 1);
    if (rc == TB_OK && (s->enabled & (IMAP_QRESYNC | IMAP_UIDONLY)))
        rc = gather_vanished(y);
    if (rc == TB_OK && s->contexts)
        imap_contexts_changed(s, &y->changes);
    y->changes.keywords_changed |= s->rights_changed; /* FLAGS and PERMANENTFLAGS are due too */
    s->rights_changed = false;
    if (rc == TB_OK && (y->changes.keywords_changed || y->changes.flags_n > 0)) {
        y->keywords = tb_arena_alloc(&y->arena, sizeof *y->keywords);
        rc = y->keywords ? imap_keywords_load(s, &y->arena, y->keywords) : TB_LIMIT;
    }
    if (rc != TB_OK || y->changes.deleted) {
        tb_log(rc != TB_OK ? TB_LOG_WARN : TB_LOG_INFO, "view ended proto=imap user=%s id=%s mailbox=%u reason=\"%s\"",
               s->user, tb_conn_id(s->conn), tb_view_mbox(s->view), rc != TB_OK ? tb_rc_text(rc) : "mailbox deleted");
        s->gone = true;
        return false;
    }
    y->how = how;
    y->part = PART_EXPUNGE;
    y->next = 0;
    y->active = true;
    return true;
}

void imap_sync_abandon(struct imap_session *s)
{
    tb_arena_free(&s->sync.arena);
    s->sync.active = false;
    s->sync.keywords = NULL;
}

static bool put_expunges(struct imap_session *s, struct imap_sync *y)
{
    if (s->enabled & (IMAP_QRESYNC | IMAP_UIDONLY)) { /* RFC 7162 3.2.10, RFC 9586 3.4, 3.6 */
        size_t at = y->next;
        bool all = imap_put_vanished(s, &y->vanished, false, &at);
        y->next = (uint32_t)at;
        return all;
    }
    for (; y->next < y->changes.removed; y->next++) {
        if (y->next % IMAP_BATCH == IMAP_BATCH - 1 && imap_put_full(&s->out))
            return false;
        char *p = imap_room(&s->out, IMAP_U64_ROOM + 16);
        if (!p)
            return true;
        p = IMAP_FMT(p, "* ");
        p = imap_fmt_u64(p, y->changes.removed_seqno[y->next]);
        imap_wrote(&s->out, IMAP_FMT(p, " EXPUNGE\r\n"));
    }
    return true;
}

char *imap_fmt_fetch(const struct imap_session *s, char *p, uint32_t seqno, uint32_t uid)
{
    bool uidonly = s->enabled & IMAP_UIDONLY;
    p = imap_fmt_u64(IMAP_FMT(p, "* "), uidonly ? uid : seqno);
    return uidonly ? IMAP_FMT(p, " UIDFETCH (") : IMAP_FMT(p, " FETCH (");
}

bool imap_put_flags(struct imap_session *s, uint32_t seqno, const struct tb_row *row, const struct imap_keywords *k,
                    uint8_t what)
{
    char *p = imap_room(&s->out, 3 * IMAP_U64_ROOM + IMAP_FLAGS_ROOM + k->bytes + 48);
    if (!p)
        return false;
    p = imap_fmt_fetch(s, p, seqno, row->uid);
    if (s->enabled & IMAP_UIDONLY)
        what &= (uint8_t)~TELL_UID;
    else if (s->enabled & (IMAP_CONDSTORE | IMAP_REV2)) /* unasked, always: RFC 7162 3.2.4, RFC 9051 7.5.2 */
        what |= TELL_UID;
    if (what & TELL_UID) {
        p = IMAP_FMT(p, "UID ");
        p = imap_fmt_u64(p, row->uid);
        *p++ = ' ';
    }
    if (what & TELL_FLAGS) {
        p = IMAP_FMT(p, "FLAGS ");
        p = imap_fmt_flags(p, row->flags, row->keywords, k);
        *p++ = ' ';
    }
    if (what & TELL_MODSEQ || s->enabled & IMAP_CONDSTORE) {
        p = IMAP_FMT(p, "MODSEQ (");
        p = imap_fmt_u64(p, row->modseq);
        p = IMAP_FMT(p, ") ");
    }
    imap_wrote(&s->out, IMAP_FMT(p - 1, ")\r\n"));
    return true;
}

static void put_count(struct imap_session *s, const struct imap_sync *y)
{
    if (y->changes.added > 0) {
        imap_puts(&s->out, "* ");
        imap_put_u64(&s->out, y->changes.count);
        imap_puts(&s->out, s->enabled & IMAP_REV2 ? " EXISTS\r\n" : " EXISTS\r\n* 0 RECENT\r\n");
    }
    if (y->changes.keywords_changed)
        imap_put_flags_lists(s, y->keywords);
}

static bool put_flags(struct imap_session *s, struct imap_sync *y)
{
    for (; y->next < y->changes.flags_n; y->next++) {
        const struct tb_change_flags *f = &y->changes.flags[y->next];
        if (y->next % IMAP_BATCH == IMAP_BATCH - 1 && imap_put_full(&s->out))
            return false;
        const struct tb_row row = {.uid = f->uid, .flags = f->flags, .keywords = f->keywords, .modseq = f->modseq};
        if (!imap_put_flags(s, f->seqno, &row, y->keywords, y->how & SYNC_UID ? TELL_FLAGS | TELL_UID : TELL_FLAGS))
            return true;
    }
    return true;
}

/* go_on: write the rest of the present refresh. */
static bool go_on(struct imap_session *s)
{
    struct imap_sync *y = &s->sync;
    if (y->part == PART_EXPUNGE) {
        if (s->contexts && y->next == 0 && !imap_contexts_leaving(s))
            return false;
        if (!put_expunges(s, y))
            return false;
        y->part = PART_COUNT;
        y->next = 0;
    }
    if (y->part == PART_COUNT) {
        put_count(s, y);
        y->part = PART_FLAGS;
    }
    if (y->part == PART_FLAGS && !(y->how & SYNC_NO_FLAGS) && !put_flags(s, y))
        return false;
    bool more = y->changes.more;
    imap_sync_abandon(s);
    if (!more)
        return true;
    s->changed = true;
    (void)imap_yield(s);
    return false;
}

bool imap_sync(struct imap_session *s, uint8_t how)
{
    if (!s->view || s->gone)
        return true;
    if (!s->sync.active && !begin(s, how))
        return true;
    return go_on(s);
}

bool imap_settle(struct imap_session *s, uint8_t how)
{
    for (;;) {
        bool fresh = !s->sync.active;
        if (!imap_sync(s, how))
            return false;
        const struct tb_changes *c = &s->sync.changes;
        if (s->gone || (fresh && c->added == 0 && c->flags_n == 0 && !c->keywords_changed))
            return true;
    }
}
