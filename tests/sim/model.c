/*
 * model.c: the messages, and whether a store is what the model allows: world.h.
 *
 * The store is read through the engine's doors, on an open store whose queue has settled. An actor's mailboxes must be,
 * all of them, exactly `now`, or exactly `next` if a change is pending. An INBOX holds each message as its state says,
 * and no UID that once named another. UIDVALIDITY never changes, UIDNEXT and the highest MODSEQ never fall.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <tambo/delivery.h>
#include <tambo/fetch.h>
#include "process.h"
#include "world.h"

enum { PATIENCE_TURNS = 200000, ROWS = 64 };

/* ---- messages ---- */

struct tb_buf model_message(const struct world *x, uint32_t id)
{
    struct tb_buf b;
    char line[96];
    unsigned r = id * 2654435761u + 1;
    size_t n = 60 + r % 1800;
    if (x->big && id % 41 == 0)
        n = id % 82 ? 90000 : 1400000;
    tb_buf_init(&b, 2 << 20);
    (void)snprintf(line, sizeof(line), "From: a@b\r\nSubject: message %u\r\nMessage-ID: <%u@sim>\r\n\r\n", id, id);
    tb_buf_str(&b, line);
    while (b.len < n) {
        (void)snprintf(line, sizeof(line), "%08x %08x tambo %u %s\r\n", (unsigned)rand_r(&r), (unsigned)rand_r(&r), id,
                       "the same words in every line, as mail has");
        tb_buf_str(&b, line);
    }
    return b;
}

bool model_is(const struct world *x, uint32_t id, struct tb_slice bytes, bool traced)
{
    struct tb_buf m = model_message(x, id);
    size_t trace = bytes.len - m.len;
    bool same = bytes.len >= m.len && (traced ? trace > 0 && trace < 1000 : trace == 0) &&
                memcmp(bytes.ptr + trace, m.ptr, m.len) == 0;
    if (same && traced)
        same = memcmp(bytes.ptr, "Return-Path:", 12) == 0;
    tb_buf_free(&m);
    return same;
}

struct sent *model_sent(struct world *x, uint32_t account, uint32_t id)
{
    for (size_t i = x->sent_n; i-- > 0;)
        if (x->sent[i].id == id && x->sent[i].account == account)
            return &x->sent[i];
    return NULL;
}

struct sent *model_send(struct world *x, uint32_t account, uint32_t id)
{
    if (x->sent_n == x->sent_cap) {
        x->sent_cap = x->sent_cap ? 2 * x->sent_cap : 64;
        x->sent = realloc(x->sent, x->sent_cap * sizeof(*x->sent));
        if (!x->sent)
            abort();
    }
    x->sent[x->sent_n++] = (struct sent){.account = account, .id = id};
    return &x->sent[x->sent_n - 1];
}

/* ---- reading the store ---- */

struct check {
    struct world *x;
    struct server *s;
    struct tb_account *a;
    char *why;
    bool traced, bytes;
};

static bool say(struct check *c, const char *fmt, ...) TB_PRINTF(2, 3);
static bool say(struct check *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c->why, WORLD_WRONG, fmt, ap);
    va_end(ap);
    return false;
}

static void on_done(struct tb_op *op)
{
    *(bool *)op->user = true;
}

static bool wait_for(struct check *c, const bool *done)
{
    for (int i = 0; i < PATIENCE_TURNS && !*done; i++)
        if (server_turn(c->s) == 0 && !server_wait(c->s))
            break;
    return *done || say(c, "the store does not answer");
}

/* bytes_of: all bytes of a message, read through the store. */
static bool bytes_of(struct check *c, struct tb_view *v, uint32_t uid, struct tb_buf *got)
{
    struct tb_body *b;
    process_enter();
    enum tb_rc rc = tb_body_open(v, uid, &b);
    process_leave();
    if (rc != TB_OK)
        return say(c, "UID %u cannot be opened: %s", uid, tb_rc_text(rc));
    uint64_t size = tb_body_size(b);
    while (rc == TB_OK && got->len < size) {
        bool done = false;
        struct tb_op op = {.done = on_done, .user = &done};
        process_enter();
        tb_body_read(b, got->len, &op);
        process_leave();
        if (!wait_for(c, &done))
            break;
        rc = op.rc;
        if (rc == TB_OK)
            tb_buf_slice(got, op.data);
    }
    process_enter();
    tb_body_close(b);
    process_leave();
    return got->len == size || say(c, "UID %u cannot be read: %s", uid, tb_rc_text(rc));
}

/* whole: are they the model's? */
static bool whole(struct check *c, struct tb_view *v, uint32_t uid, uint32_t id)
{
    struct tb_buf got;
    tb_buf_init(&got, 4 << 20);
    bool same = bytes_of(c, v, uid, &got) && (model_is(c->x, id, tb_buf_all(&got), c->traced) ||
                                              say(c, "message %u, UID %u, has other bytes", id, uid));
    tb_buf_free(&got);
    return same;
}

static uint32_t id_before(const char *end, const char *begin)
{
    while (end && end > begin && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return end ? (uint32_t)strtoul(end, NULL, 10) : 0;
}

/* id_of: which message is this? By its cached envelope, or its header if none was kept. 0: nobody knows. */
static uint32_t id_of(struct check *c, struct tb_view *v, uint32_t uid)
{
    static const char mark[] = "@sim>";
    struct tb_cached cached;
    process_enter();
    enum tb_rc rc = tb_cached_get(v, uid, &cached);
    process_leave();
    if (rc == TB_OK)
        return id_before(memmem(cached.envelope.ptr, cached.envelope.len, mark, 5), cached.envelope.ptr);
    struct tb_buf got;
    tb_buf_init(&got, 4 << 20);
    uint32_t id = bytes_of(c, v, uid, &got) && got.len ? id_before(memmem(got.ptr, got.len, mark, 5), got.ptr) : 0;
    tb_buf_free(&got);
    return id;
}

static bool mailbox(struct check *c, const char *name, struct tb_mailbox *m)
{
    struct tb_arena arena;
    tb_arena_init(&arena, 8192);
    bool there = tb_mailbox_find(c->a, tb_slice_str(name), &arena, m) == TB_OK && m->mbox != 0 && m->selectable;
    tb_arena_free(&arena);
    return there;
}

/* subscribed: a name need not exist for it. */
static bool subscribed(struct check *c, const char *name)
{
    struct tb_arena arena;
    struct tb_mailbox *v;
    size_t n = 0;
    bool found = false;
    tb_arena_init(&arena, 1 << 20);
    if (tb_mailbox_list(c->a, &arena, &v, &n) == TB_OK)
        for (size_t i = 0; i < n; i++)
            found |= v[i].subscribed && tb_slice_eq(v[i].name, tb_slice_str(name));
    tb_arena_free(&arena);
    return found;
}

/* ---- an actor's mailboxes ---- */

/* rows_are: the messages, one by one; those of unknown UID take the one they have. */
static bool rows_are(struct check *c, struct tb_view *v, struct box *b)
{
    struct tb_row row[ROWS];
    size_t n = tb_view_scan(v, 1, row, ROWS);
    if (n != b->n)
        return say(c, "%s has %zu messages, not %u", b->name, n, b->n);
    for (uint32_t i = 0; i < b->n; i++) {
        struct message *m = &b->v[i];
        uint32_t id = id_of(c, v, row[i].uid);
        if (id != m->id || (m->uid ? row[i].uid != m->uid : row[i].uid < b->uidnext))
            return say(c, "%s has message %u as UID %u, not %u as UID %u (UIDNEXT was %u)", b->name, id, row[i].uid,
                       m->id, m->uid, b->uidnext);
        if (row[i].flags != m->flags)
            return say(c, "%s UID %u has flags %x, not %x", b->name, row[i].uid, row[i].flags, m->flags);
        if (c->bytes && !whole(c, v, row[i].uid, id))
            return false;
        m->uid = row[i].uid;
    }
    return true;
}

static bool box_is(struct check *c, struct box *b)
{
    struct tb_mailbox m;
    struct tb_view *v;
    bool there = mailbox(c, b->name, &m);
    if (there != b->exists)
        return say(c, "%s is%s there", b->name, there ? "" : " not");
    if (subscribed(c, b->name) != b->subscribed)
        return say(c, "%s is%s subscribed", b->name, b->subscribed ? " not" : "");
    if (!there)
        return true;
    if (b->uidvalidity && b->uidvalidity != m.uidvalidity)
        return say(c, "UIDVALIDITY of %s changed from %u to %u", b->name, b->uidvalidity, m.uidvalidity);
    if (m.uidnext < b->uidnext || m.highestmodseq < b->modseq)
        return say(c, "%s: UIDNEXT %u (was %u), MODSEQ %llu (was %llu)", b->name, m.uidnext, b->uidnext,
                   (unsigned long long)m.highestmodseq, (unsigned long long)b->modseq);
    process_enter();
    enum tb_rc rc = tb_view_open(c->a, m.mbox, &v);
    process_leave();
    if (rc != TB_OK)
        return say(c, "%s cannot be opened: %s", b->name, tb_rc_text(rc));
    bool same = rows_are(c, v, b);
    process_enter();
    tb_view_close(v);
    process_leave();
    if (same && (m.messages != b->n || (b->n && m.uidnext <= b->v[b->n - 1].uid)))
        same = say(c, "%s counts %u messages of %u, UIDNEXT %u", b->name, m.messages, b->n, m.uidnext);
    b->uidvalidity = m.uidvalidity;
    b->uidnext = m.uidnext;
    b->modseq = m.highestmodseq;
    return same;
}

static bool boxes_are(struct check *c, struct boxes *b)
{
    for (int k = 0; k < WORLD_BOXES; k++)
        if (!box_is(c, &b->box[k]))
            return false;
    return true;
}

static bool actor_is(struct check *c, struct actor *a, bool resolve)
{
    struct boxes now = a->now, next = a->next;
    bool same = boxes_are(c, &now);
    if (same) {
        if (resolve)
            a->now = now;
    } else if (a->pending) {
        char before[WORLD_WRONG];
        (void)snprintf(before, sizeof(before), "%s", c->why);
        same = boxes_are(c, &next);
        if (same && resolve)
            a->now = next;
        if (!same) {
            char after[WORLD_WRONG];
            (void)snprintf(after, sizeof(after), "%s", c->why);
            (void)say(c, "actor %u, neither before (%.150s) nor after (%.150s)", a->number, before, after);
        }
    }
    if (resolve)
        a->pending = false;
    return same;
}

/* ---- INBOXes ---- */

static bool inbox_row(struct check *c, struct tb_view *v, uint32_t account, const struct tb_row *row)
{
    uint32_t id = id_of(c, v, row->uid);
    struct sent *s = model_sent(c->x, account, id);
    const char *name = c->x->inbox[account].name;
    if (!s)
        return say(c, "INBOX of %s has message %u, UID %u, which nobody sent", name, id, row->uid);
    if (s->uid && s->uid != row->uid)
        return say(c, "INBOX of %s has message %u as UID %u and %u", name, id, s->uid, row->uid);
    if (s->state == SENT_GONE)
        return say(c, "INBOX of %s has message %u again, which was removed", name, id);
    for (size_t i = 0; i < c->x->sent_n; i++)
        if (c->x->sent[i].uid == row->uid && c->x->sent[i].account == account && &c->x->sent[i] != s)
            return say(c, "INBOX of %s: UID %u was message %u and is %u", name, row->uid, c->x->sent[i].id, id);
    s->uid = row->uid;
    return !c->bytes || whole(c, v, row->uid, id);
}

/* drains_are: of each removal under way, all is still there or nothing. */
static bool drains_are(struct check *c, uint32_t account, const bool *there, bool resolve)
{
    struct world *x = c->x;
    for (size_t i = 0; i < x->sent_n; i++) {
        struct sent *s = &x->sent[i];
        if (s->account != account)
            continue;
        if (s->state == SENT_HERE && !there[i])
            return say(c, "INBOX of %s has lost message %u", x->inbox[account].name, s->id);
        if (s->state != SENT_LEAVING)
            continue;
        for (size_t k = 0; k < i; k++)
            if (x->sent[k].state == SENT_LEAVING && x->sent[k].drain == s->drain && there[k] != there[i])
                return say(c, "INBOX of %s: a removal is half done", x->inbox[account].name);
    }
    for (size_t i = 0; resolve && i < x->sent_n; i++)
        if (x->sent[i].account == account && (x->sent[i].state == SENT_LEAVING || there[i]))
            x->sent[i].state = there[i] ? SENT_HERE : SENT_GONE;
    return true;
}

static bool inbox_rows(struct check *c, struct tb_view *v, uint32_t account, bool resolve)
{
    struct world *x = c->x;
    bool *there = calloc(x->sent_n + 1, sizeof(bool)), good = there != NULL;
    uint32_t *uid = calloc(x->sent_n + 1, sizeof(uint32_t)); /* what is only seen on an image is not remembered */
    struct tb_row row[ROWS];
    good = good && uid != NULL;
    for (size_t i = 0; good && i < x->sent_n; i++)
        uid[i] = x->sent[i].uid;
    size_t n = ROWS;
    for (uint32_t from = 1; good && n == ROWS; from = row[ROWS - 1].uid + 1) {
        n = tb_view_scan(v, from, row, ROWS);
        for (size_t i = 0; good && i < n; i++) {
            good = inbox_row(c, v, account, &row[i]);
            size_t at = 0;
            while (good && (x->sent[at].account != account || x->sent[at].uid != row[i].uid))
                at++;
            if (good && there[at])
                good = say(c, "INBOX of %s has message %u twice", x->inbox[account].name, x->sent[at].id);
            if (good)
                there[at] = true;
        }
    }
    good = good && drains_are(c, account, there, resolve);
    for (size_t i = 0; !resolve && uid && i < x->sent_n; i++)
        x->sent[i].uid = uid[i];
    free(there);
    free(uid);
    return good;
}

static bool inbox_is(struct check *c, uint32_t account, bool resolve)
{
    struct inbox *in = &c->x->inbox[account];
    struct tb_mailbox m;
    struct tb_view *v;
    if (!mailbox(c, "INBOX", &m))
        return say(c, "%s has no INBOX", in->name);
    if (in->uidvalidity && in->uidvalidity != m.uidvalidity)
        return say(c, "UIDVALIDITY of %s's INBOX changed", in->name);
    if (m.uidnext < in->uidnext || m.highestmodseq < in->modseq)
        return say(c, "INBOX of %s: UIDNEXT %u (was %u), MODSEQ %llu (was %llu)", in->name, m.uidnext, in->uidnext,
                   (unsigned long long)m.highestmodseq, (unsigned long long)in->modseq);
    process_enter();
    enum tb_rc rc = tb_view_open(c->a, TB_MBOX_INBOX, &v);
    process_leave();
    if (rc != TB_OK)
        return say(c, "INBOX of %s cannot be opened", in->name);
    bool good = inbox_rows(c, v, account, resolve);
    process_enter();
    tb_view_close(v);
    process_leave();
    if (resolve) {
        in->uidvalidity = m.uidvalidity;
        in->uidnext = m.uidnext;
        in->modseq = m.highestmodseq;
    }
    return good;
}

/* ---- what came back from the trash ---- */

static bool back_row(struct check *c, struct tb_view *v, uint32_t uid)
{
    uint32_t id = id_of(c, v, uid);
    struct tb_buf got;
    tb_buf_init(&got, 4 << 20);
    bool good = id > 0 && id < c->x->next_id && bytes_of(c, v, uid, &got) &&
                (model_is(c->x, id, tb_buf_all(&got), false) || model_is(c->x, id, tb_buf_all(&got), true));
    tb_buf_free(&got);
    return good || say(c, "what came back as UID %u is not message %u", uid, id);
}

/* back_is: whatever it holds was once sent; its UIDs only rise. */
static bool back_is(struct check *c, uint32_t account, bool resolve)
{
    struct inbox *in = &c->x->inbox[account];
    struct tb_mailbox m;
    struct tb_view *v;
    struct tb_row row[ROWS];
    if (!mailbox(c, WORLD_BACK, &m))
        return in->back_uidnext == 0 || say(c, "%s has lost what came back", in->name);
    if (m.uidnext < in->back_uidnext)
        return say(c, "%s: UIDNEXT of what came back is %u, and was %u", in->name, m.uidnext, in->back_uidnext);
    process_enter();
    enum tb_rc rc = tb_view_open(c->a, m.mbox, &v);
    process_leave();
    if (rc != TB_OK)
        return say(c, "what came back cannot be opened");
    bool good = true;
    size_t n = ROWS;
    for (uint32_t from = 1; good && n == ROWS; from = row[ROWS - 1].uid + 1) {
        n = tb_view_scan(v, from, row, ROWS);
        for (size_t i = 0; good && i < n; i++)
            good = back_row(c, v, row[i].uid);
    }
    process_enter();
    tb_view_close(v);
    process_leave();
    if (resolve)
        in->back_uidnext = m.uidnext;
    return good;
}

/* ---- the whole ---- */

static bool open_account(struct check *c, struct tb_account_id id)
{
    process_enter();
    enum tb_rc rc = tb_account_open(c->s->w[tb_store_worker_of(c->s->store, id)], id, &c->a);
    process_leave();
    return rc == TB_OK || say(c, "an account is gone: %s", tb_rc_text(rc));
}

bool model_check(struct world *x, struct server *s, bool resolve, char why[WORLD_WRONG])
{
    bool good = true;
    x->stats.checks++;
    for (unsigned i = 0; good && i < x->accounts; i++) {
        struct check c = {.x = x, .s = s, .why = why, .traced = true, .bytes = true};
        good = open_account(&c, x->inbox[i].id) && inbox_is(&c, i, resolve) && back_is(&c, i, resolve);
        for (unsigned k = 0; good && k < x->actors; k++) {
            c.traced = false;
            if (x->actor[k].role == ROLE_IMAP && x->actor[k].account == i)
                good = actor_is(&c, &x->actor[k], resolve);
        }
        process_enter();
        if (c.a)
            tb_account_close(c.a);
        process_leave();
    }
    return good;
}

bool model_next_write(struct world *x, struct server *s, char why[WORLD_WRONG])
{
    struct check c = {.x = x, .s = s, .why = why};
    struct tb_delivery *d;
    struct tb_delivery_target t = {.id = x->inbox[0].id, .mbox = TB_MBOX_INBOX, .internaldate = 1};
    bool done = false;
    struct tb_op op = {.done = on_done, .user = &done};
    process_enter();
    enum tb_rc rc = tb_delivery_begin(s->w[0], 1 << 20, &d);
    if (rc == TB_OK)
        rc = tb_delivery_add(d, &t);
    if (rc == TB_OK)
        (void)tb_delivery_write(d, TB_SLICE("Subject: one more\r\n\r\nafter all\r\n"), &op); /* small: never waits */
    if (rc == TB_OK)
        tb_delivery_commit(d, true, &op);
    process_leave();
    if (rc != TB_OK || !wait_for(&c, &done))
        return say(&c, "the next write cannot begin");
    if (op.rc != TB_OK)
        return say(&c, "the next write is refused: %s", tb_rc_text(op.rc));
    for (size_t i = 0; i < x->sent_n; i++)
        if (x->sent[i].account == 0 && x->sent[i].uid == t.uid)
            return say(&c, "the next write got UID %u, which message %u has had", t.uid, x->sent[i].id);
    return true;
}
