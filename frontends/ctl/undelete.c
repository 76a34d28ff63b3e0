/*
 * undelete.c: the verbs that look into the trash and bring things back.
 *
 * The trash is walked in steps, each a call to its owner's thread, so that neither the owner nor the control socket's
 * worker is held up. JSON that is built there belongs to one thread at a time, first the owner's, then ours. A listing
 * is paged by its cursor. Thread: the worker's, but for *_run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <tambo/message.h>
#include <tambo/trash.h>
#include "frontends/ctl/verbs.h"

enum { STEP_ITEMS = 64, PAGE_ITEMS = 1000, ARENA_MAX = 32 << 20 };

struct undelete {
    struct ctl *x;
    struct tb_call call;
    struct tb_op op;
    struct tb_account_id id;
    struct tb_trash_filter filter; /* slices borrowed from the request */
    struct tb_trash_cursor cursor;
    struct tb_uidset uids; /* owned */
    struct tb_restored sum;
    json_t *items; /* owned */
    char name[TB_NAME_MAX + 1];
    struct tb_trash_account best; /* account undelete */
};

static void undelete_drop(struct ctl *x)
{
    struct undelete *u = x->data;

    json_decref(u->items);
    tb_uidset_free(&u->uids);
}

/* ---- what the request says ---- */

/* field: a number of so many digits behind the separator; false, and nothing taken, if that is not what comes. */
static bool field(struct tb_slice *text, const char *separators, size_t digits, uint64_t *out)
{
    size_t skip = separators[0] != '\0';
    if (text->len < skip + digits || (skip && strchr(separators, text->ptr[0]) == NULL) ||
        !tb_slice_u64(tb_slice_sub(*text, skip, digits), UINT32_MAX, out))
        return false;
    *text = tb_slice_sub(*text, skip + digits, text->len);
    return true;
}

/* parse_ago: so many m, h or d ago. */
static bool parse_ago(struct tb_slice text, int64_t now, int64_t *out)
{
    uint64_t n;
    char unit = text.len > 1 ? text.ptr[text.len - 1] : '\0';
    if ((unit != 'm' && unit != 'h' && unit != 'd') || !tb_slice_u64(tb_slice_sub(text, 0, text.len - 1), 999999, &n))
        return false;
    *out = now - (int64_t)n * (unit == 'm' ? 60 : unit == 'h' ? 3600 : 86400);
    return true;
}

/* parse_since: "2026-11-20", "2026-11-20T14:03[:10][Z]" (UTC), or so many m, h or d ago. */
static bool parse_since(struct tb_slice text, int64_t now, int64_t *out)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t year, month, day, hour = 0, minute = 0, second = 0;
    char date[80];
    struct tb_date d;

    if (parse_ago(text, now, out))
        return true;
    if (!field(&text, "", 4, &year) || !field(&text, "-", 2, &month) || !field(&text, "-", 2, &day))
        return false;
    if (field(&text, "T ", 2, &hour)) {
        if (!field(&text, ":", 2, &minute))
            return false;
        (void)field(&text, ":", 2, &second);
        if (text.len == 1 && text.ptr[0] == 'Z')
            text.len = 0;
    }
    if (text.len > 0 || month < 1 || month > 12)
        return false;
    snprintf(date, sizeof(date), "%u %s %u %02u:%02u:%02u +0000", (unsigned)day, months[month - 1], (unsigned)year,
             (unsigned)hour, (unsigned)minute, (unsigned)second);
    if (!tb_date_parse(tb_slice_str(date), &d))
        return false;
    *out = d.utc_s;
    return true;
}

/* parse_uids: "4,7:9"; false for anything else. */
static bool parse_uids(struct tb_slice text, struct tb_uidset *out)
{
    while (text.len > 0) {
        const char *comma = memchr(text.ptr, ',', text.len);
        struct tb_slice one = tb_slice_sub(text, 0, comma ? (size_t)(comma - text.ptr) : text.len);
        const char *colon = memchr(one.ptr, ':', one.len);
        uint64_t first, last;

        text = tb_slice_sub(text, one.len + 1, text.len);
        if (!tb_slice_u64(tb_slice_sub(one, 0, colon ? (size_t)(colon - one.ptr) : one.len), UINT32_MAX, &first))
            return false;
        last = first;
        if (colon && !tb_slice_u64(tb_slice_sub(one, (size_t)(colon + 1 - one.ptr), one.len), UINT32_MAX, &last))
            return false;
        if (first == 0 || last == 0)
            return false;
        tb_uidset_add(out, (uint32_t)(first < last ? first : last), (uint32_t)(first < last ? last : first));
    }
    return out->n > 0 && !out->failed;
}

/* start: the common part of both verbs; NULL: it was answered. */
static struct undelete *start(struct ctl *x)
{
    struct tb_slice account = ctl_name(x, ctl_text(x, "account")), since = ctl_text(x, "since");
    struct tb_slice uids = ctl_text(x, "uid");
    struct tb_identity who;
    struct undelete *u;
    char text[TB_NAME_MAX + 1];
    const char *bad = NULL;

    if (account.len == 0 || account.len > TB_NAME_MAX) {
        ctl_usage(x, "args.account: a name is needed");
        return NULL;
    }
    if (tb_directory_find(tb_worker_store(x->worker), account, &who) != TB_OK) {
        snprintf(text, sizeof(text), "%.*s", (int)account.len, account.ptr);
        ctl_fail(x, TB_NOTFOUND, text, "no such account");
        return NULL;
    }
    explicit_bzero(who.secret, sizeof(who.secret));
    u = ctl_data(x, sizeof(*u));
    if (!u)
        return NULL;
    tb_uidset_init(&u->uids);
    x->drop = undelete_drop;
    u->x = x;
    u->id = who.id;
    u->items = json_array();
    u->filter.mailbox = ctl_text(x, "mailbox");
    u->filter.to = ctl_text(x, "to");
    u->filter.since = INT64_MIN;
    if (since.len > 0 && !parse_since(since, tb_io_wall_s(tb_worker_io(x->worker)), &u->filter.since))
        bad = "args.since: not a time; 2026-11-20, 2026-11-20T14:03 or 3h, say";
    if (uids.len > 0 && u->filter.mailbox.len == 0)
        bad = "args.uid: needs args.mailbox";
    else if (uids.len > 0 && !parse_uids(uids, &u->uids))
        bad = "args.uid: not UIDs; 4,7:9, say";
    if (uids.len > 0)
        u->filter.uids = &u->uids;
    if (!bad)
        return u;
    ctl_usage(x, bad);
    return NULL;
}

static void step(struct undelete *u, uint32_t shard, void (*run)(struct tb_call *call, struct tb_worker *owner),
                 void (*done)(struct tb_op *op))
{
    u->call = (struct tb_call){.run = run, .user = u, .op = {.done = done, .user = u}};
    tb_call(u->x->worker, shard, &u->call);
}

/* failed: true after the answer. */
static bool failed(struct undelete *u, const struct tb_op *op, const char *what)
{
    enum tb_rc rc = op->rc != TB_OK ? op->rc : u->call.rc;

    if (rc != TB_OK)
        ctl_fail(u->x, rc, what, rc == TB_INVALID ? "not a name for a mailbox" : NULL);
    return rc != TB_OK;
}

/* ---- listing ---- */

static json_t *text_json(struct tb_slice raw)
{
    struct tb_buf b;
    json_t *v;

    tb_buf_init(&b, 64 << 10);
    tb_header_text(raw, &b);
    v = json_stringn(b.ptr ? b.ptr : "", b.failed ? 0 : b.len);
    tb_buf_free(&b);
    return v ? v : json_string("");
}

static json_t *time_json(int64_t when)
{
    time_t t = (time_t)when;
    struct tm tm;
    char text[40];

    if (when == 0 || !gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(text);
}

static void add_envelope(json_t *o, struct tb_slice envelope, struct tb_arena *arena)
{
    struct tb_slice none = tb_slice("", 0);
    struct tb_envelope e = {0};
    char both[600];
    struct tb_slice from = none;

    if (envelope.len > 0 && tb_envelope_read(envelope, arena, &e) == TB_OK && e.from) {
        int n = snprintf(both, sizeof(both), "%.*s@%.*s", (int)(e.from->mailbox.len < 250 ? e.from->mailbox.len : 250),
                         e.from->mailbox.ptr ? e.from->mailbox.ptr : "",
                         (int)(e.from->host.len < 250 ? e.from->host.len : 250),
                         e.from->host.ptr ? e.from->host.ptr : "");
        from = tb_slice(both, (size_t)n);
    }
    json_object_set_new(o, "from", text_json(from));
    json_object_set_new(o, "subject", text_json(e.subject.ptr ? e.subject : none));
}

static json_t *describe(const struct tb_trash_item *i, struct tb_arena *arena)
{
    json_t *o = json_pack("{s:s, s:s%, s:I}", "kind", i->uid ? "message" : "mailbox", "mailbox",
                          i->mailbox.ptr ? i->mailbox.ptr : "", i->mailbox.len, "bytes", (json_int_t)i->bytes);

    if (!o)
        return NULL;
    if (i->uid) {
        json_object_set_new(o, "uid", json_integer(i->uid));
        json_object_set_new(o, "date", time_json(i->internaldate));
        add_envelope(o, i->envelope, arena);
    } else {
        json_object_set_new(o, "messages", json_integer(i->messages));
        json_object_set_new(o, "uidvalidity", json_integer(i->uidvalidity));
    }
    json_object_set_new(o, "deleted", time_json(i->when));
    json_object_set_new(o, "until", time_json(i->until));
    return o;
}

static void list_run(struct tb_call *call, struct tb_worker *owner)
{
    struct undelete *u = call->user;
    struct tb_trash_item v[STEP_ITEMS];
    struct tb_account *a;
    struct tb_arena arena;
    size_t n = 0;

    call->rc = tb_account_open(owner, u->id, &a);
    if (call->rc != TB_OK)
        return;
    tb_arena_init(&arena, ARENA_MAX);
    call->rc = tb_trash_list(a, &u->filter, &u->cursor, &arena, v, STEP_ITEMS, &n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(u->items, describe(&v[i], &arena));
    tb_arena_free(&arena);
    tb_account_close(a);
}

static void list_done(struct tb_op *op)
{
    struct undelete *u = op->user;
    json_t *items;

    if (failed(u, op, "undelete"))
        return;
    if (!u->cursor.end && json_array_size(u->items) < PAGE_ITEMS) {
        step(u, u->id.shard, list_run, list_done);
        return;
    }
    items = u->items;
    u->items = NULL;
    if (u->cursor.end)
        ctl_ok(u->x, json_pack("{s:o}", "items", items));
    else
        ctl_ok(u->x, json_pack("{s:o, s:[I,I,I,b]}", "items", items, "next", (json_int_t)u->cursor.due,
                               (json_int_t)u->cursor.mbox, (json_int_t)u->cursor.uid, u->cursor.messages));
}

/* Pages of about a thousand items; "next" is what to give as "after" for the following page. */
void ctl_undelete_list(struct ctl *x)
{
    json_t *after = json_object_get(x->args, "after");
    json_int_t due, mbox, uid;
    int messages;
    struct undelete *u = start(x);

    if (!u)
        return;
    if (after && json_unpack(after, "[I,I,I,b]", &due, &mbox, &uid, &messages) != 0) {
        ctl_usage(x, "args.after: not what an answer said");
        return;
    }
    if (after)
        u->cursor = (struct tb_trash_cursor){
            .due = due, .mbox = (uint32_t)mbox, .uid = (uint32_t)uid, .messages = messages != 0};
    step(u, u->id.shard, list_run, list_done);
}

/* ---- bringing back ---- */

static void restore_run(struct tb_call *call, struct tb_worker *owner)
{
    struct undelete *u = call->user;
    struct tb_account *a;

    call->rc = tb_account_open(owner, u->id, &a);
    if (call->rc != TB_OK)
        return;
    call->rc = tb_trash_restore(a, &u->filter, &u->cursor, &u->sum);
    tb_account_close(a);
}

static void restore_done(struct tb_op *op)
{
    struct undelete *u = op->user;

    if (failed(u, op, "undelete"))
        return;
    if (!u->cursor.end)
        step(u, u->id.shard, restore_run, restore_done);
    else
        ctl_ok(u->x, json_pack("{s:I, s:I, s:I}", "mailboxes", (json_int_t)u->sum.mailboxes, "messages",
                               (json_int_t)u->sum.messages, "renamed", (json_int_t)u->sum.renamed));
}

void ctl_undelete(struct ctl *x)
{
    bool all = json_is_true(json_object_get(x->args, "all"));
    struct undelete *u;

    if (!all && ctl_text(x, "since").len == 0 && ctl_text(x, "uid").len == 0) {
        ctl_usage(x, "what? say since, uid or all");
        return;
    }
    u = start(x);
    if (u)
        step(u, u->id.shard, restore_run, restore_done);
}

/* ---- accounts ---- */

static void accounts_run(struct tb_call *call, struct tb_worker *owner)
{
    struct undelete *u = call->user;
    struct tb_trash_account v[STEP_ITEMS];
    struct tb_arena arena;
    size_t n = 0;

    tb_arena_init(&arena, ARENA_MAX);
    call->rc = tb_trash_accounts(owner, &u->cursor, &arena, v, STEP_ITEMS, &n);
    for (size_t i = 0; i < n; i++) {
        json_t *o = json_pack("{s:s%, s:o, s:o}", "account", v[i].name.ptr, v[i].name.len, "deleted",
                              time_json(v[i].when), "until", time_json(v[i].until));
        if (u->name[0] == '\0')
            json_array_append(u->items, o);
        else if (tb_slice_ieq(v[i].name, tb_slice_str(u->name)))
            u->best = v[i]; /* the last is the newest */
        json_decref(o);
    }
    tb_arena_free(&arena);
}

static void account_done(struct tb_op *op)
{
    struct undelete *u = op->user;
    char name[TB_NAME_MAX + 1];

    memcpy(name, u->name, sizeof(name));
    if (op->rc == TB_OK)
        ctl_ok(u->x, json_pack("{s:s}", "account", name));
    else
        ctl_fail(u->x, op->rc, name, op->rc == TB_EXISTS ? "there is an account of this name" : NULL);
}

static void accounts_done(struct tb_op *op)
{
    struct undelete *u = op->user;
    json_t *items;

    if (failed(u, op, "account undelete"))
        return;
    if (!u->cursor.end) {
        step(u, 0, accounts_run, accounts_done);
        return;
    }
    if (u->name[0] == '\0') {
        items = u->items;
        u->items = NULL;
        ctl_ok(u->x, json_pack("{s:o}", "accounts", items));
        return;
    }
    u->op = (struct tb_op){.done = account_done, .user = u};
    if (u->best.acct == 0) {
        char name[TB_NAME_MAX + 1];
        memcpy(name, u->name, sizeof(name));
        ctl_fail(u->x, TB_NOTFOUND, name, "no deleted account of this name can be brought back");
    } else {
        tb_account_undelete(u->x->worker, u->best.acct, u->best.until, &u->op);
    }
}

static void accounts_start(struct ctl *x, struct tb_slice name)
{
    struct undelete *u = ctl_data(x, sizeof(*u));

    if (!u)
        return;
    tb_uidset_init(&u->uids);
    x->drop = undelete_drop;
    u->x = x;
    u->items = json_array();
    for (size_t i = 0; i < name.len; i++)
        u->name[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
    step(u, 0, accounts_run, accounts_done);
}

void ctl_account_undelete(struct ctl *x)
{
    struct tb_slice name = ctl_name(x, ctl_text(x, "name"));

    if (name.len == 0 || name.len > TB_NAME_MAX || memchr(name.ptr, 0, name.len))
        ctl_usage(x, "args.name: 1 to 255 bytes are needed");
    else
        accounts_start(x, name);
}

void ctl_account_deleted(struct ctl *x)
{
    accounts_start(x, tb_slice(NULL, 0));
}
