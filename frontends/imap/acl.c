/*
 * acl.c: SETACL, DELETEACL, GETACL, LISTRIGHTS and MYRIGHTS.
 *
 * Identifiers are account names as one logs in with them, "anyone" and "authenticated" (the same here: nobody is
 * anonymous), each with "-" in front for rights that are taken away; there are no groups. The owner has every right and
 * cannot be named in an entry. Of the obsolete rights "c" is "k" and "x", "d" is "t" and "e". An entry of a user whose
 * account is gone is not told. Thread: the connection's owner; work functions: the account's. RFC 4314.
 */
#include "imap_session.h"

enum acl_change { ACL_REPLACE, ACL_ADD, ACL_REMOVE };

struct acl_args {
    struct tb_slice mailbox, identifier;
    enum acl_change change;
    uint32_t rights;
};

/* mod-rights = astring: [+-] and rights; lower case, and none that we do not know (RFC 4314 3.1) */
static void mod_rights(struct imap_parser *p, struct acl_args *a)
{
    struct tb_slice text = imap_astring(p);
    bool modifies = text.len > 0 && (text.ptr[0] == '+' || text.ptr[0] == '-');
    if (modifies)
        a->change = text.ptr[0] == '+' ? ACL_ADD : ACL_REMOVE;
    if (!tb_rights_read(tb_slice_sub(text, modifies, SIZE_MAX), &a->rights))
        imap_fail(p, "BAD No such right");
}

/*
 * setacl = "SETACL" SP mailbox SP identifier SP mod-rights; deleteacl, listrights: SP mailbox SP identifier; getacl,
 * myrights: SP mailbox. RFC 4314 7
 */
void imap_parse_acl(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct acl_args *a = tb_arena_alloc(p->arena, sizeof *a);
    char verb = cmd->verb->name[0];
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a)
        return;
    a->mailbox = mailbox;
    if (verb == 'G' || verb == 'M')
        return;
    imap_sp(p);
    a->identifier = imap_astring(p);
    if (!p->failed && (a->identifier.len == 0 || !tb_utf8_valid(a->identifier)))
        imap_fail(p, "BAD An identifier is needed"); /* what cannot be prepared is none: RFC 4314 3 */
    if (verb != 'S')
        return;
    imap_sp(p);
    mod_rights(p, a);
}

/* identify: whom an identifier means, in its canonical form. False: nobody. */
static bool identify(struct imap_session *s, struct tb_slice identifier, struct tb_acl_entry *e)
{
    struct tb_identity who;
    struct tb_slice detail = {0};
    e->negative = identifier.len > 1 && identifier.ptr[0] == '-';
    struct tb_slice name = tb_slice_sub(identifier, e->negative, SIZE_MAX);
    e->name = name;
    if (tb_slice_eq(name, TB_SLICE("anyone")) || tb_slice_eq(name, TB_SLICE("authenticated"))) {
        e->user = name.len == sizeof("anyone") - 1 ? TB_ACL_ANYONE : TB_ACL_AUTHENTICATED;
        return true;
    }
    struct tb_store *store = tb_worker_store(tb_conn_worker(s->conn));
    if (tb_name_resolve(store, s->config, name, &who, &detail) != TB_OK)
        return false;
    explicit_bzero(who.secret, sizeof who.secret);
    e->user = who.id.acct;
    e->name = tb_arena_copy(&s->arena, tb_slice_str(who.name));
    return detail.len == 0 && e->name.ptr;
}

/* is_alive: does the entry's user still have the account it was made for? */
static bool is_alive(struct imap_session *s, const struct tb_acl_entry *e)
{
    struct tb_identity who;
    if (e->user == TB_ACL_ANYONE || e->user == TB_ACL_AUTHENTICATED)
        return true;
    if (tb_directory_find(tb_worker_store(tb_conn_worker(s->conn)), e->name, &who) != TB_OK)
        return false;
    explicit_bzero(who.secret, sizeof who.secret);
    return who.id.acct == e->user;
}

/*
 * begin: an errand about the mailbox, which starts at once if `work` is given. NULL: *rc says what the command returns,
 * also while the errand is on its way.
 */
static struct imap_errand *begin(struct imap_session *s, struct imap_cmd *cmd, const struct tb_acl_entry *entry,
                                 void (*work)(struct imap_errand *e, struct tb_worker *w, struct tb_account *a),
                                 enum imap_run *run)
{
    const struct acl_args *a = cmd->args;
    struct imap_errand *e = cmd->state;
    struct imap_place where;
    if (!e) {
        if (!imap_locate(s, a->mailbox, &where)) {
            *run = imap_reply_rc(cmd, TB_NOTFOUND);
            return NULL;
        }
        if (!(e = imap_errand_of(s, cmd, &where))) {
            *run = imap_reply_rc(cmd, TB_LIMIT);
            return NULL;
        }
        if (entry) {
            e->entry = *entry;
            e->entry.rights = a->rights;
            e->entry.name = tb_arena_copy(&e->arena, entry->name);
            e->change = a->change;
        }
        imap_errand_start(s, e, work);
    }
    *run = RUN_WAIT;
    if (e->busy)
        return NULL;
    if (e->rc != TB_OK || e->refusal)
        *run = imap_errand_reply(cmd, e);
    return e->rc == TB_OK && !e->refusal ? e : NULL;
}

/* ---- SETACL ---- */

static void set(struct imap_errand *e, struct tb_account *a, const struct tb_acl_entry *entry)
{
    e->rc = tb_acl_set(a, e->mailbox.mbox, entry);
    if (e->rc == TB_INVALID)
        e->refusal = "NO [CANNOT] The owner has every right";
    else if (e->rc == TB_LIMIT)
        e->refusal = "NO [LIMIT] Too many entries";
}

static void work_set(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct tb_acl_entry entry = e->entry;
    (void)w;
    if (!imap_errand_find(e, a, TB_RIGHT_ADMIN))
        return;
    uint32_t now = tb_acl_get(a, e->mailbox.mbox, entry.user, entry.negative);
    if (e->change == ACL_ADD)
        entry.rights |= now;
    else if (e->change == ACL_REMOVE)
        entry.rights = now & ~entry.rights;
    set(e, a, &entry);
}

enum imap_run imap_run_setacl(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct acl_args *a = cmd->args;
    struct tb_acl_entry who = {0};
    enum imap_run run;
    if (!cmd->state && !identify(s, a->identifier, &who))
        return imap_reply(cmd, "NO [CANNOT] No such user");
    return begin(s, cmd, &who, work_set, &run) ? imap_reply(cmd, "OK SETACL completed") : run;
}

/* ---- DELETEACL: also of somebody who is no more ---- */

static void work_delete(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    struct tb_acl_entry *v;
    size_t n;
    (void)w;
    if (!imap_errand_find(e, a, TB_RIGHT_ADMIN))
        return;
    e->rc = tb_acl_list(a, e->mailbox.mbox, &e->arena, &v, &n);
    for (size_t i = 0; e->rc == TB_OK && i < n; i++) {
        if (v[i].negative != e->entry.negative || !tb_slice_eq(v[i].name, e->entry.name))
            continue;
        v[i].rights = 0;
        set(e, a, &v[i]);
    }
}

enum imap_run imap_run_deleteacl(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct acl_args *a = cmd->args;
    struct tb_acl_entry who = {0};
    enum imap_run run;
    if (!cmd->state)
        (void)identify(s, a->identifier, &who); /* nobody: entries are found by the name that they were made with */
    return begin(s, cmd, &who, work_delete, &run) ? imap_reply(cmd, "OK DELETEACL completed") : run;
}

/* ---- GETACL ---- */

static void work_get(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    if (imap_errand_find(e, a, TB_RIGHT_ADMIN))
        e->rc = tb_acl_list(a, e->mailbox.mbox, &e->arena, &e->acl, &e->n);
}

static void put_entry(struct imap_session *s, bool negative, struct tb_slice name, uint32_t rights)
{
    char text[TB_RIGHTS_ROOM], *dashed = tb_arena_alloc(&s->arena, name.len + 1);
    if (!dashed)
        return;
    dashed[0] = '-';
    (void)imap_fmt(dashed + 1, name.ptr, name.len);
    imap_putc(&s->out, ' ');
    imap_put_astring(&s->out, tb_slice(dashed + !negative, name.len + negative));
    imap_putc(&s->out, ' ');
    imap_puts(&s->out, tb_rights_text(rights, text));
}

/* owner_of: the name of the account whose mailbox this is: the session's own, or the level behind the namespace's. */
static struct tb_slice owner_of(struct imap_session *s, struct tb_slice mailbox)
{
    if (!imap_is_others(mailbox))
        return tb_slice_str(s->user);
    struct tb_slice rest = tb_slice_sub(mailbox, sizeof(IMAP_OTHERS) - 1, SIZE_MAX);
    const char *slash = rest.len > 0 ? memchr(rest.ptr, '/', rest.len) : NULL;
    return tb_slice_sub(rest, 0, slash ? (size_t)(slash - rest.ptr) : rest.len);
}

enum imap_run imap_run_getacl(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct acl_args *a = cmd->args;
    enum imap_run run;
    const struct imap_errand *e = begin(s, cmd, NULL, work_get, &run);
    if (!e)
        return run;
    imap_puts(&s->out, "* ACL ");
    imap_put_mailbox(&s->out, a->mailbox);
    put_entry(s, false, owner_of(s, a->mailbox), TB_RIGHTS_ALL);
    for (size_t i = 0; i < e->n; i++)
        if (is_alive(s, &e->acl[i]))
            put_entry(s, e->acl[i].negative, e->acl[i].name, e->acl[i].rights);
    imap_puts(&s->out, "\r\n");
    return imap_reply(cmd, "OK GETACL completed");
}

/* ---- LISTRIGHTS, MYRIGHTS ---- */

static void work_find_admin(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    (void)w;
    (void)imap_errand_find(e, a, TB_RIGHT_ADMIN);
}

enum imap_run imap_run_listrights(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct acl_args *a = cmd->args;
    struct tb_acl_entry who = {0};
    char text[TB_RIGHTS_ROOM];
    enum imap_run run;
    if (!cmd->state && !identify(s, a->identifier, &who))
        return imap_reply(cmd, "NO [CANNOT] No such user");
    const struct imap_errand *e = begin(s, cmd, &who, work_find_admin, &run);
    if (!e)
        return run;
    bool owner = e->entry.user == e->id.acct;
    imap_puts(&s->out, "* LISTRIGHTS ");
    imap_put_mailbox(&s->out, a->mailbox);
    imap_putc(&s->out, ' ');
    imap_put_astring(&s->out, a->identifier);
    imap_puts(&s->out, owner ? " " : " \"\"");
    const char *p = tb_rights_text(TB_RIGHTS_ALL, text);
    if (owner)
        imap_puts(&s->out, p);
    for (; !owner && *p != '\0'; p++) { /* none is tied to another */
        imap_putc(&s->out, ' ');
        imap_putc(&s->out, *p);
    }
    imap_puts(&s->out, "\r\n");
    return imap_reply(cmd, "OK LISTRIGHTS completed");
}

static void work_mine(struct imap_errand *e, struct tb_worker *w, struct tb_account *a)
{
    const uint32_t any = TB_RIGHT_LOOKUP | TB_RIGHT_READ | TB_RIGHT_INSERT | TB_RIGHT_CREATE | TB_RIGHT_DELETE_MAILBOX |
                         TB_RIGHT_ADMIN;
    (void)w;
    if (imap_errand_find(e, a, 0) && !(e->rights & any))
        e->rc = TB_NOTFOUND;
}

enum imap_run imap_run_myrights(struct imap_session *s, struct imap_cmd *cmd)
{
    const struct acl_args *a = cmd->args;
    char text[TB_RIGHTS_ROOM];
    enum imap_run run;
    const struct imap_errand *e = begin(s, cmd, NULL, work_mine, &run);
    if (!e)
        return run;
    imap_puts(&s->out, "* MYRIGHTS ");
    imap_put_mailbox(&s->out, a->mailbox);
    imap_putc(&s->out, ' ');
    imap_puts(&s->out, tb_rights_text(e->rights, text));
    imap_puts(&s->out, "\r\n");
    return imap_reply(cmd, "OK MYRIGHTS completed");
}
