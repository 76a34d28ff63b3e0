/*
 * mailbox.c: CREATE (with a special use), DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE and STATUS.
 *
 * Names come decoded and normalised from the parser; what a name may be beyond that is the store's to say,
 * but for levels "." and "..", which are refused here so that an exported mailbox never becomes a path.
 * Thread: the connection's owner. RFC 3501 6.3.3 to 6.3.7, 6.3.10; RFC 5530 3 (codes).
 */
#include "imap_session.h"

#include <tambo/quota.h>

/* name_allowed: no level that a file system would read as a direction. */
static bool name_allowed(struct tb_slice name)
{
    const char *p = name.ptr, *end = name.ptr + name.len;
    for (;;) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
        if (memmem(p, n, "\xe2\x80\xa8", 3) || memmem(p, n, "\xe2\x80\xa9", 3))
            return false; /* line and paragraph separators, RFC 6855 3 */
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        if (!slash)
            return true;
        p = slash + 1;
    }
}

static bool is_inbox(struct tb_slice name)
{
    return tb_slice_eq(name, TB_SLICE("INBOX"));
}

/*
 * may_create: the right to create below the nearest mailbox above that is there (RFC 4314 4). Whoever may not is told
 * the same whatever is there (P3).
 */
static bool may_create(struct imap_errand *e, struct tb_account *a, struct tb_slice name)
{
    struct tb_mailbox above;
    if (name.len > 0 && name.ptr[name.len - 1] == '/')
        name.len--;
    e->rc = TB_NOTFOUND;
    e->refusal = IMAP_NOPERM;
    while (name.len > 0) {
        const char *slash = memrchr(name.ptr, '/', name.len);
        name.len = slash ? (size_t)(slash - name.ptr) : 0;
        if (name.len == 0 || tb_mailbox_find(a, name, &e->arena, &above) != TB_OK || !above.selectable)
            continue;
        if (!(tb_acl_rights(a, above.mbox, e->user) & TB_RIGHT_CREATE))
            return false;
        e->rc = TB_OK;
        e->refusal = NULL;
        return true;
    }
    return false;
}

/* ---- CREATE, with its special use (RFC 6154 3) ---- */

struct create_args {
    struct tb_slice mailbox, given;
    uint16_t special;
    bool refused; /* a use that no mailbox here can have */
};

/* use-attr: \All and \Flagged would be views of other mailboxes, and there are none. */
static void use_attr(struct imap_parser *p, struct create_args *a)
{
    static const struct {
        const char *name;
        uint16_t bit;
    } uses[] = {{"Archive", TB_SPECIAL_ARCHIVE},
                {"Drafts", TB_SPECIAL_DRAFTS},
                {"Junk", TB_SPECIAL_JUNK},
                {"Sent", TB_SPECIAL_SENT},
                {"Trash", TB_SPECIAL_TRASH}};
    imap_expect(p, '\\');
    struct tb_slice name = imap_atom(p);
    for (size_t i = 0; i < TB_ARRAY_LEN(uses); i++) {
        if (!tb_slice_ieq(name, tb_slice_str(uses[i].name)))
            continue;
        a->special |= uses[i].bit;
        return;
    }
    a->refused = true;
}

/* create = "CREATE" SP mailbox [SP "(" "USE" SP "(" [use-attr *(SP use-attr)] ")" ")"] */
void imap_parse_create(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct create_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a)
        return;
    a->mailbox = mailbox;
    a->given = p->given;
    if (p->failed || !imap_try_sp(p))
        return;
    imap_expect(p, '(');
    if (!tb_slice_ieq(imap_word(p), TB_SLICE("USE")))
        imap_fail(p, "BAD No such CREATE parameter");
    imap_sp(p);
    imap_expect(p, '(');
    if (!imap_at(p, ')'))
        do
            use_attr(p, a);
        while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
    imap_expect(p, ')');
}

static void work_create(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    uint32_t mbox = 0;
    (void)w;
    if (!e->own && !may_create(e, a, e->name))
        return;
    e->rc = tb_mailbox_create(a, e->name, e->special, &mbox);
    if (e->rc == TB_OK)
        e->rc = tb_mailbox_get(a, mbox, &e->arena, &e->mailbox);
}

enum imap_run imap_run_create(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct create_args *a = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place where;
    struct tb_buf b;
    if (!e) {
        if (!name_allowed(a->mailbox))
            return imap_reply_rc(cmd, TB_INVALID);
        if (a->refused)
            return imap_reply(cmd, "NO [USEATTR] No mailbox here can have that use");
        if (!imap_locate(s, a->mailbox, &where))
            return imap_reply(cmd, IMAP_NOPERM);
        if (a->special != 0 && !where.own) /* their owner's affair (shared.c); RFC 6154 3: nothing is made without it */
            return imap_reply(cmd, "NO [USEATTR] No special use in a mailbox of another user");
        if (!(e = imap_errand_of(s, cmd, &where)))
            return imap_reply_rc(cmd, TB_LIMIT);
        e->special = a->special;
        imap_errand_start(s, e, work_create);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    if (s->enabled & IMAP_REV2 && !tb_slice_eq(a->mailbox, a->given))
        imap_put_list(s, &e->mailbox, a->mailbox, a->given);
    tb_buf_init(&b, 256);
    tb_buf_str(&b, "OK [MAILBOXID (F"); /* RFC 8474 4.1 */
    tb_buf_u64(&b, e->mailbox.mailboxid);
    tb_buf_str(&b, ")] CREATE completed");
    return imap_reply_buf(s, cmd, &b);
}

/* ---- DELETE ---- */

static void work_delete(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (!e->own && !imap_errand_find(e, a, TB_RIGHT_DELETE_MAILBOX))
        return;
    if (e->own && (tb_mailbox_find(a, e->name, &e->arena, &e->mailbox) != TB_OK || !e->mailbox.selectable))
        e->mailbox.mbox = 0;
    e->rc = tb_mailbox_delete(a, e->name);
    if (e->rc == TB_EXISTS)
        e->refusal = "NO [HASCHILDREN] It has children and is no mailbox itself";
    if (e->rc == TB_INVALID && e->own)
        e->rc = TB_NOTFOUND;
}

enum imap_run imap_run_delete(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct imap_one_mailbox *a = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place where;
    if (!e) {
        if (is_inbox(a->name))
            return imap_reply(cmd, "NO [CANNOT] INBOX stays");
        if (!imap_locate(s, a->name, &where))
            return imap_reply_rc(cmd, TB_NOTFOUND);
        if (!(e = imap_errand_of(s, cmd, &where)))
            return imap_reply_rc(cmd, TB_LIMIT);
        imap_errand_start(s, e, work_delete);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    if (s->view && e->id.acct == s->seat.acct && e->mailbox.mbox == tb_view_mbox(s->view)) {
        imap_puts(&s->out, "* OK [CLOSED] The selected mailbox is deleted\r\n");
        imap_unselect(s);
    }
    if (s->enabled & IMAP_REV2 && !tb_slice_eq(a->name, a->given))
        imap_put_list(s, NULL, a->name, a->given);
    return imap_reply(cmd, "OK DELETE completed");
}

/* ---- RENAME ---- */

struct rename_args {
    struct tb_slice from, to, from_given, to_given;
};

void imap_parse_rename(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct rename_args *a = tb_arena_alloc(p->arena, sizeof *a);
    imap_sp(p);
    struct tb_slice from = imap_mailbox(p), from_given = p->given;
    imap_sp(p);
    struct tb_slice to = imap_mailbox(p);
    if (a)
        *a = (struct rename_args){from, to, from_given, p->given};
    cmd->args = a;
}

static void work_rename(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (!e->own && (!imap_errand_find(e, a, TB_RIGHT_DELETE_MAILBOX) || !may_create(e, a, e->second)))
        return;
    e->rc = tb_mailbox_rename_start(a, e->name, e->second, &e->left);
    if (e->rc == TB_OK)
        e->rc = tb_mailbox_find(a, e->second, &e->arena, &e->mailbox);
}

/* work_move: the next of INBOX's messages, which go where it was renamed to. */
static void work_move(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    e->rc = tb_mailbox_rename_step(a, &e->left);
}

/* owner_part: of a name: nothing, or the namespace and the owner's name in it. */
static struct tb_slice owner_part(struct tb_slice name)
{
    const size_t prefix = sizeof(IMAP_OTHERS) - 1;
    if (!imap_is_others(name))
        return tb_slice_sub(name, 0, 0);
    const char *slash = name.len > prefix ? memchr(name.ptr + prefix, '/', name.len - prefix) : NULL;
    return tb_slice_sub(name, 0, slash ? (size_t)(slash - name.ptr) : name.len);
}

enum imap_run imap_run_rename(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct rename_args *a = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place from, to;
    if (!e) {
        if (!name_allowed(a->to))
            return imap_reply_rc(cmd, TB_INVALID);
        if (!tb_slice_eq(owner_part(a->from), owner_part(a->to))) /* by the names alone (P3) */
            return imap_reply(cmd, "NO [CANNOT] A mailbox does not change its owner");
        if (!imap_locate(s, a->from, &from) || !imap_locate(s, a->to, &to))
            return imap_reply_rc(cmd, TB_NOTFOUND);
        if (!(e = imap_errand_of(s, cmd, &from)))
            return imap_reply_rc(cmd, TB_LIMIT);
        e->second = tb_arena_copy(&e->arena, to.name);
        imap_errand_start(s, e, work_rename);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    if (e->left.mbox != 0) {
        imap_errand_start(s, e, work_move);
        return e->busy ? RUN_WAIT : imap_yield(s);
    }
    if (s->enabled & IMAP_REV2 && (!tb_slice_eq(a->from, a->from_given) || !tb_slice_eq(a->to, a->to_given)))
        imap_put_list(s, &e->mailbox, a->to, a->from_given); /* RFC 9051 6.3.6 */
    return imap_reply(cmd, "OK RENAME completed");
}

/* ---- SUBSCRIBE, UNSUBSCRIBE: names, in the session's own account, wherever they lead ---- */

static void work_subscribe(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    e->rc = tb_mailbox_subscribe(a, e->name, e->on);
}

static enum imap_run subscribe(struct imap_session *s, struct imap_cmd *cmd, bool on)
{
    const struct imap_one_mailbox *a = cmd->args;
    const struct imap_place home = {.id = s->account_id, .name = a->name, .own = true};
    struct imap_errand *e = cmd->state;
    if (!e) {
        if (!(e = imap_errand_of(s, cmd, &home)))
            return imap_reply_rc(cmd, TB_LIMIT);
        e->on = on;
        imap_errand_start(s, e, work_subscribe);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK && (on || e->rc != TB_NOTFOUND))
        return imap_reply_rc(cmd, e->rc);
    imap_notify_subscribed(s, a->name, on);
    return imap_reply(cmd, on ? "OK SUBSCRIBE completed" : "OK UNSUBSCRIBE completed");
}

enum imap_run imap_run_subscribe(struct imap_session *s, struct imap_cmd *cmd)
{
    return subscribe(s, cmd, true);
}

enum imap_run imap_run_unsubscribe(struct imap_session *s, struct imap_cmd *cmd)
{
    return subscribe(s, cmd, false);
}

/* ---- STATUS: one table of items ---- */

/* RFC 3501 6.3.10; 7162 3.1.7; 8438 (SIZE); 9051 6.3.11 (DELETED); 7889 4 (APPENDLIMIT); 8474 4.3 (MAILBOXID);
 * 9208 4.1.4 (DELETED-STORAGE)
 */
static const struct status_item {
    const char *name;
    enum { STATUS_MAILBOXID, STATUS_APPENDLIMIT, STATUS_DELETED_STORAGE, STATUS_U32, STATUS_U64 } kind;
    size_t offset; /* in struct tb_mailbox */
} status_items[] = {
    {"APPENDLIMIT", STATUS_APPENDLIMIT, 0},
    {"DELETED", STATUS_U32, offsetof(struct tb_mailbox, deleted)},
    {"DELETED-STORAGE", STATUS_DELETED_STORAGE, 0},
    {"HIGHESTMODSEQ", STATUS_U64, offsetof(struct tb_mailbox, highestmodseq)},
    {"MAILBOXID", STATUS_MAILBOXID, 0},
    {"MESSAGES", STATUS_U32, offsetof(struct tb_mailbox, messages)},
    {"RECENT", STATUS_U32, SIZE_MAX}, /* always 0 */
    {"SIZE", STATUS_U64, offsetof(struct tb_mailbox, bytes)},
    {"UIDNEXT", STATUS_U32, offsetof(struct tb_mailbox, uidnext)},
    {"UIDVALIDITY", STATUS_U32, offsetof(struct tb_mailbox, uidvalidity)},
    {"UNSEEN", STATUS_U32, offsetof(struct tb_mailbox, unseen)},
};

/* put_mailboxid: RFC 8474 4: an objectid: never given twice, in any account. */
void imap_put_mailboxid(struct imap_out *o, uint64_t mailboxid)
{
    imap_putc(o, 'F');
    imap_put_u64(o, mailboxid);
}

static void put_item(struct imap_session *s, const struct status_item *item, const struct tb_mailbox *m,
                     uint64_t deleted_bytes)
{
    struct imap_out *o = &s->out;
    imap_puts(o, item->name);
    imap_putc(o, ' ');
    if (item->kind == STATUS_MAILBOXID) {
        imap_putc(o, '(');
        imap_put_mailboxid(o, m->mailboxid);
        imap_putc(o, ')');
    } else if (item->kind == STATUS_APPENDLIMIT) {
        imap_put_u64(o, s->config->message_bytes_max);
    } else if (item->kind == STATUS_DELETED_STORAGE) {
        imap_put_u64(o, deleted_bytes);
    } else if (item->offset == SIZE_MAX) {
        imap_putc(o, '0');
    } else {
        const char *at = (const char *)m + item->offset;
        imap_put_u64(o, item->kind == STATUS_U64 ? *(const uint64_t *)(const void *)at
                                                 : *(const uint32_t *)(const void *)at);
    }
}

struct status_args {
    struct tb_slice mailbox;
    struct imap_status status;
};

/* "(" status-att *(SP status-att) ")" */
void imap_status_items(struct imap_parser *p, struct imap_status *status)
{
    imap_expect(p, '(');
    do {
        struct tb_slice name = imap_word(p);
        uint8_t i = 0;
        while (i < TB_ARRAY_LEN(status_items) && !tb_slice_ieq(name, tb_slice_str(status_items[i].name)))
            i++;
        if (p->failed)
            return;
        if (i == TB_ARRAY_LEN(status_items) || status->n == TB_ARRAY_LEN(status->item))
            imap_fail(p, "BAD No such STATUS item, or too many");
        else
            status->item[status->n++] = i;
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

void imap_status_add(struct imap_status *status, const char *name)
{
    uint8_t i = 0;
    while (strcmp(status_items[i].name, name) != 0)
        i++;
    status->item[status->n++] = i;
}

bool imap_status_scans(const struct imap_status *status)
{
    for (size_t i = 0; i < status->n; i++)
        if (status_items[status->item[i]].kind == STATUS_DELETED_STORAGE)
            return true;
    return false;
}

bool imap_status_condstore(const struct imap_status *status)
{
    for (size_t i = 0; i < status->n; i++)
        if (status_items[status->item[i]].kind == STATUS_U64 &&
            status_items[status->item[i]].offset == offsetof(struct tb_mailbox, highestmodseq))
            return true;
    return false;
}

void imap_status_scan(struct tb_account *a, const struct tb_mailbox *m, struct imap_status *status)
{
    status->deleted_bytes = m->deleted > 0 ? tb_quota_deleted_bytes(a, m->mbox) : 0;
}

void imap_put_status(struct imap_session *s, struct tb_slice name, const struct tb_mailbox *m,
                     const struct imap_status *status)
{
    imap_puts(&s->out, "* STATUS ");
    imap_put_mailbox(&s->out, name);
    imap_puts(&s->out, " (");
    for (size_t i = 0; i < status->n; i++) {
        if (i > 0)
            imap_putc(&s->out, ' ');
        put_item(s, &status_items[status->item[i]], m, status->deleted_bytes);
    }
    imap_puts(&s->out, ")\r\n");
}

/* status = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")" */
void imap_parse_status(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct status_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a)
        return;
    a->mailbox = mailbox;
    imap_sp(p);
    imap_status_items(p, &a->status);
}

static void work_status(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (imap_errand_find(e, a, TB_RIGHT_READ) && e->on)
        imap_status_scan(a, &e->mailbox, &e->status);
}

enum imap_run imap_run_status(struct imap_session *s, struct imap_cmd *cmd)
{
    struct status_args *a = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place where;
    if (!e) {
        if (!imap_locate(s, a->mailbox, &where))
            return imap_reply_rc(cmd, TB_NOTFOUND);
        if (!(e = imap_errand_of(s, cmd, &where)))
            return imap_reply_rc(cmd, TB_LIMIT);
        e->on = imap_status_scans(&a->status);
        if (imap_status_condstore(&a->status))
            imap_condstore(s);
        imap_errand_start(s, e, work_status);
    }
    if (e->busy)
        return RUN_WAIT;
    if (e->rc != TB_OK)
        return imap_errand_reply(cmd, e);
    a->status.deleted_bytes = e->status.deleted_bytes;
    imap_put_status(s, a->mailbox, &e->mailbox, &a->status);
    return imap_reply(cmd, "OK STATUS completed");
}
