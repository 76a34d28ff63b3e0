/*
 * mailbox.c: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE and STATUS.
 *
 * Names come decoded and normalised from the parser; what a name may be beyond that is the store's to say,
 * but for levels "." and "..", which are refused here so that an exported mailbox never becomes a path.
 * Thread: the connection's owner. RFC 3501 6.3.3 to 6.3.7, 6.3.10; RFC 5530 3 (codes).
 */
#include "imap_session.h"

/* name_allowed: no level that a file system would read as a direction. */
static bool name_allowed(struct tb_slice name)
{
    const char *p = name.ptr, *end = name.ptr + name.len;
    for (;;) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        size_t n = (size_t)((slash ? slash : end) - p);
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

enum imap_run imap_run_create(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct tb_slice *name = cmd->args;
    uint32_t mbox = 0;
    if (!name_allowed(*name))
        return imap_reply_rc(cmd, TB_INVALID);
    enum tb_rc rc = tb_mailbox_create(s->account, *name, 0, &mbox);
    return rc == TB_OK ? imap_reply(cmd, "OK CREATE completed") : imap_reply_rc(cmd, rc);
}

enum imap_run imap_run_delete(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct tb_slice *name = cmd->args;
    struct tb_mailbox m;
    if (is_inbox(*name))
        return imap_reply(cmd, "NO [CANNOT] INBOX stays");
    bool own = s->view && tb_mailbox_find(s->account, *name, &s->arena, &m) == TB_OK && m.selectable &&
               m.mbox == tb_view_mbox(s->view);
    enum tb_rc rc = tb_mailbox_delete(s->account, *name);
    if (rc == TB_EXISTS)
        return imap_reply(cmd, "NO [HASCHILDREN] It has children and is no mailbox itself");
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc == TB_INVALID ? TB_NOTFOUND : rc);
    if (own) {
        imap_puts(&s->out, "* OK [CLOSED] The selected mailbox is deleted\r\n");
        imap_unselect(s);
    }
    return imap_reply(cmd, "OK DELETE completed");
}

struct rename_args {
    struct tb_slice from, to;
};

void imap_parse_rename(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct rename_args *a = tb_arena_alloc(p->arena, sizeof *a);
    imap_sp(p);
    struct tb_slice from = imap_mailbox(p);
    imap_sp(p);
    struct tb_slice to = imap_mailbox(p);
    if (a)
        *a = (struct rename_args){from, to};
    cmd->args = a;
}

enum imap_run imap_run_rename(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct rename_args *a = cmd->args;
    if (!name_allowed(a->to))
        return imap_reply_rc(cmd, TB_INVALID);
    enum tb_rc rc = tb_mailbox_rename(s->account, a->from, a->to);
    return rc == TB_OK ? imap_reply(cmd, "OK RENAME completed") : imap_reply_rc(cmd, rc);
}

static enum imap_run subscribe(struct imap_session *s, struct imap_cmd *cmd, bool on)
{
    const struct tb_slice *name = cmd->args;
    enum tb_rc rc = tb_mailbox_subscribe(s->account, *name, on);
    if (rc != TB_OK && (on || rc != TB_NOTFOUND))
        return imap_reply_rc(cmd, rc);
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

enum { STATUS_ITEMS_MAX = 32 };

static uint64_t status_messages(const struct tb_mailbox *m)
{
    return m->messages;
}
static uint64_t status_recent(const struct tb_mailbox *m)
{
    return (void)m, 0;
}
static uint64_t status_uidnext(const struct tb_mailbox *m)
{
    return m->uidnext;
}
static uint64_t status_uidvalidity(const struct tb_mailbox *m)
{
    return m->uidvalidity;
}
static uint64_t status_unseen(const struct tb_mailbox *m)
{
    return m->unseen;
}

static uint64_t status_highestmodseq(const struct tb_mailbox *m)
{
    return m->highestmodseq;
}

static const struct status_item {
    const char *name;
    uint64_t (*value)(const struct tb_mailbox *m);
} status_items[] = {
    {"MESSAGES", status_messages},       {"RECENT", status_recent}, {"UIDNEXT", status_uidnext},
    {"UIDVALIDITY", status_uidvalidity}, {"UNSEEN", status_unseen}, {"HIGHESTMODSEQ", status_highestmodseq},
};

struct status_args {
    struct tb_slice mailbox;
    const struct status_item *items[STATUS_ITEMS_MAX];
    size_t n;
};

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
    imap_expect(p, '(');
    do {
        struct tb_slice name = imap_word(p);
        size_t i = 0;
        while (i < TB_ARRAY_LEN(status_items) && !tb_slice_ieq(name, tb_slice_str(status_items[i].name)))
            i++;
        if (p->failed)
            return;
        if (i == TB_ARRAY_LEN(status_items) || a->n == STATUS_ITEMS_MAX)
            imap_fail(p, "BAD No such STATUS item, or too many");
        else
            a->items[a->n++] = &status_items[i];
    } while (!p->failed && imap_try_sp(p));
    imap_expect(p, ')');
}

enum imap_run imap_run_status(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct status_args *a = cmd->args;
    struct tb_mailbox m;
    enum tb_rc rc = tb_mailbox_find(s->account, a->mailbox, &s->arena, &m);
    if (rc == TB_INVALID || (rc == TB_OK && !m.selectable))
        rc = TB_NOTFOUND;
    if (rc != TB_OK)
        return imap_reply_rc(cmd, rc);
    imap_puts(&s->out, "* STATUS ");
    imap_put_mailbox(&s->out, a->mailbox);
    imap_puts(&s->out, " (");
    for (size_t i = 0; i < a->n; i++) {
        if (i > 0)
            imap_putc(&s->out, ' ');
        imap_puts(&s->out, a->items[i]->name);
        imap_putc(&s->out, ' ');
        imap_put_u64(&s->out, a->items[i]->value(&m));
    }
    imap_puts(&s->out, ")\r\n");
    return imap_reply(cmd, "OK STATUS completed");
}
