/*
 * imap_acts.c: what IMAP clients do, and what the model makes of the answers: world.h.
 *
 * A change is put into `next` before its command is sent. OK makes it `now`; NO without a fault that explains it is
 * wrong; a dead connection, or NO while faults are on, leaves the outcome open (pending) until a check settles it. What
 * is read (FETCH, SEARCH, SELECT) must be what the model knows, at once and to the byte. RFC 3501, 4315, 3502, 8508,
 * 6851, 2177.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "world.h"

enum reply { REPLY_OK, REPLY_NO, REPLY_DEAD };
enum { INBOX = 100 }; /* a->selected */

/* ---- commands and answers ---- */

/* keep_line: one logical line, its literals included, into `untagged`. */
static bool keep_line(struct actor *a, struct tb_slice line)
{
    for (;;) {
        unsigned long n = 0;
        const char *brace = line.len > 2 && line.ptr[line.len - 1] == '}' ? memrchr(line.ptr, '{', line.len) : NULL;
        if (brace)
            n = strtoul(brace + 1, NULL, 10);
        tb_buf_slice(&a->untagged, line);
        tb_buf_str(&a->untagged, "\r\n");
        if (!brace)
            return true;
        if (!wire_take(a, n, &line))
            return false;
        tb_buf_slice(&a->untagged, line);
        if (!wire_line(a, &line))
            return false;
    }
}

static enum reply answer(struct actor *a)
{
    char tag[16];
    struct tb_slice line;
    int n = snprintf(tag, sizeof(tag), "t%u ", a->tag);
    a->untagged.len = a->tagged.len = 0;
    while (wire_line(a, &line)) {
        if (line.len < (size_t)n || memcmp(line.ptr, tag, (size_t)n) != 0) {
            if (!keep_line(a, line))
                return REPLY_DEAD;
            continue;
        }
        tb_buf_put(&a->tagged, line.ptr + n, line.len - (size_t)n);
        tb_buf_char(&a->tagged, '\0');
        tb_buf_char(&a->untagged, '\0');
        a->untagged.len--;
        bool ok = a->tagged.len > 2 && memcmp(a->tagged.ptr, "OK", 2) == 0;
        a->x->stats.refused += !ok;
        bool raced = a->selected == INBOX && /* POP3 was quicker: RFC 5530 3; or took the last one: "*" is none then */
                     (strstr(a->tagged.ptr, "[EXPUNGEISSUED]") || strstr(a->tagged.ptr, "BAD No such message"));
        if (!ok && !raced && !a->x->faults)
            world_wrong(a->x, "actor %u was refused without cause: %s", a->number, a->tagged.ptr);
        return ok ? REPLY_OK : REPLY_NO;
    }
    return REPLY_DEAD;
}

static enum reply command(struct actor *a, const char *fmt, ...) TB_PRINTF(2, 3);
static enum reply command(struct actor *a, const char *fmt, ...)
{
    char line[900];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(line))
        abort();
    a->tag++;
    if (!wire_printf(a, "t%u %s\r\n", a->tag, line))
        return REPLY_DEAD;
    return answer(a);
}

/* begin: a change is going to be asked for. */
static struct boxes *begin(struct actor *a)
{
    a->next = a->now;
    a->pending = true;
    return &a->next;
}

/* settle: what the answer means for it. True: it is done, and `next` is now `now`. */
static bool settle(struct actor *a, enum reply r)
{
    if (r == REPLY_OK) {
        a->now = a->next;
        a->pending = false;
        a->acked++;
        a->x->stats.acked++;
        return true;
    }
    if (r == REPLY_NO && !a->x->faults)
        a->pending = false;
    return false;
}

/* ---- parsing answers ---- */

/* next_line: the next logical line of `untagged` from *at on. */
static bool next_line(const struct tb_buf *b, size_t *at, struct tb_slice *line)
{
    size_t from = *at, i = from;
    while (i < b->len) {
        const char *end = memchr(b->ptr + i, '\n', b->len - i);
        if (!end)
            return false;
        i = (size_t)(end - b->ptr) + 1;
        const char *text = b->ptr + from;
        size_t len = i - from - 2;
        const char *brace = len > 2 && text[len - 1] == '}' ? memrchr(text, '{', len) : NULL;
        if (brace) {
            i += strtoul(brace + 1, NULL, 10);
            continue;
        }
        *line = tb_slice(text, len);
        *at = i;
        return true;
    }
    return false;
}

static const char *find(struct tb_slice in, const char *what)
{
    return in.len ? memmem(in.ptr, in.len, what, strlen(what)) : NULL;
}

static bool number_after(struct tb_slice in, const char *what, uint32_t *out)
{
    const char *p = find(in, what);
    if (p)
        *out = (uint32_t)strtoul(p + strlen(what), NULL, 10);
    return p != NULL;
}

/* code_numbers: "a:b,c" expanded; how many. */
static uint32_t expand(const char *p, uint32_t out[], uint32_t max)
{
    uint32_t n = 0;
    while (*p >= '0' && *p <= '9') {
        char *end;
        uint32_t lo = (uint32_t)strtoul(p, &end, 10), hi = lo;
        if (*end == ':')
            hi = (uint32_t)strtoul(end + 1, &end, 10);
        for (uint32_t u = lo; u <= hi && n < max; u++)
            out[n++] = u;
        p = *end == ',' ? end + 1 : end;
    }
    return n;
}

/* ---- connection, login, SELECT ---- */

bool act_login(struct actor *a)
{
    struct tb_slice line;
    if (!a->wire.dead && a->wire.handle >= 0)
        return true;
    a->selected = -1;
    if (!wire_open(a, PORT_IMAP) || !wire_line(a, &line))
        return false;
    if (command(a, "LOGIN %s secret", a->x->inbox[a->account].name) == REPLY_OK)
        return true;
    wire_close(a, false);
    return false;
}

static bool select_box(struct actor *a, int k)
{
    struct box *b = &a->now.box[k];
    uint32_t uidvalidity = 0, uidnext = 0, exists = UINT32_MAX;
    if (a->selected == k)
        return true;
    a->selected = -1;
    if (command(a, "SELECT \"%s\"", b->name) != REPLY_OK)
        return false;
    a->selected = k;
    struct tb_slice all = tb_buf_all(&a->untagged), line;
    (void)number_after(all, "[UIDVALIDITY ", &uidvalidity);
    (void)number_after(all, "[UIDNEXT ", &uidnext);
    for (size_t at = 0; next_line(&a->untagged, &at, &line);)
        if (find(line, " EXISTS"))
            exists = (uint32_t)strtoul(line.ptr + 2, NULL, 10);
    if (exists != b->n)
        world_wrong(a->x, "SELECT %s says %u messages, there are %u", b->name, exists, b->n);
    if (b->uidvalidity && b->uidvalidity != uidvalidity)
        world_wrong(a->x, "UIDVALIDITY of %s changed from %u to %u", b->name, b->uidvalidity, uidvalidity);
    if (uidnext < b->uidnext)
        world_wrong(a->x, "UIDNEXT of %s fell from %u to %u", b->name, b->uidnext, uidnext);
    b->uidvalidity = uidvalidity;
    b->uidnext = uidnext;
    return true;
}

/* some_box: one that exists (with_mail: and has messages), by the seed; -1: none. */
static int some_box(struct actor *a, bool exists, bool with_mail, int but)
{
    unsigned first = (unsigned)world_choose(a->x, WORLD_BOXES);
    for (unsigned i = 0; i < WORLD_BOXES; i++) {
        int k = (int)((first + i) % WORLD_BOXES);
        const struct box *b = &a->now.box[k];
        if (k != but && b->exists == exists && (!with_mail || b->n > 0))
            return k;
    }
    return -1;
}

/* ready: logged in and free to change something. */
static bool ready(struct actor *a)
{
    return !a->pending && act_login(a);
}

/* ---- names ---- */

void act_create(struct actor *a)
{
    int k = ready(a) ? some_box(a, false, false, -1) : -1;
    if (k < 0)
        return;
    struct box *b = &begin(a)->box[k];
    b->exists = true;
    b->n = 0;
    b->uidvalidity = 0;
    b->uidnext = 1;
    b->modseq = 0;
    (void)settle(a, command(a, "CREATE \"%s\"", b->name));
}

void act_delete(struct actor *a)
{
    int k = ready(a) ? some_box(a, true, false, -1) : -1;
    if (k < 0)
        return;
    if (a->selected == k && command(a, "UNSELECT") != REPLY_OK)
        return;
    a->selected = a->selected == k ? -1 : a->selected;
    struct box *b = &begin(a)->box[k];
    b->exists = false;
    b->n = 0;
    (void)settle(a, command(a, "DELETE \"%s\"", b->name));
}

void act_rename(struct actor *a)
{
    int from = ready(a) ? some_box(a, true, false, -1) : -1;
    int to = from >= 0 ? some_box(a, false, false, from) : -1;
    if (to < 0)
        return;
    if (a->selected == from && command(a, "UNSELECT") != REPLY_OK)
        return;
    a->selected = a->selected == from ? -1 : a->selected;
    struct boxes *next = begin(a);
    struct box moved = next->box[from];
    memcpy(moved.name, next->box[to].name, sizeof(moved.name));
    moved.subscribed = next->box[to].subscribed; /* subscriptions are of names (RFC 3501 6.3.5) */
    next->box[to] = moved;
    next->box[from].exists = false;
    next->box[from].n = 0;
    (void)settle(a, command(a, "RENAME \"%s\" \"%s\"", a->now.box[from].name, moved.name));
}

void act_subscribe(struct actor *a)
{
    if (!ready(a))
        return;
    struct box *b = &begin(a)->box[world_choose(a->x, WORLD_BOXES)];
    b->subscribed = !b->subscribed;
    (void)settle(a, command(a, "%s \"%s\"", b->subscribed ? "SUBSCRIBE" : "UNSUBSCRIBE", b->name));
}

/* ---- messages ---- */

static const char *const flag_names[] = {"\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"};

static const char *flag_list(uint16_t flags, char out[64])
{
    *out = '\0';
    for (unsigned i = 0; i < TB_ARRAY_LEN(flag_names); i++)
        if (flags >> i & 1)
            (void)snprintf(out + strlen(out), 64 - strlen(out), "%s%s", *out ? " " : "", flag_names[i]);
    return out;
}

/* put_message: a literal's head, perhaps a wait for "+", then its bytes in pieces. False: it was refused before (*r),
 * or the connection is dead. */
static bool put_message(struct actor *a, uint32_t id, enum reply *r)
{
    struct world *x = a->x;
    struct tb_slice line;
    struct tb_buf bytes = model_message(x, id);
    bool plus = world_choose(x, 2);
    bool go = wire_printf(a, "{%zu%s}\r\n", bytes.len, plus ? "+" : "");
    while (go && !plus && (go = wire_line(a, &line)) && line.ptr[0] != '+')
        if (line.ptr[0] == 't') {
            x->stats.refused++;
            if (!x->faults)
                world_wrong(x, "a message was refused without cause: %.*s", (int)line.len, line.ptr);
            go = false;
            *r = REPLY_NO;
        }
    for (size_t at = 0; go && at < bytes.len;) {
        size_t part = 1 + world_choose(x, 20000);
        part = part < bytes.len - at ? part : bytes.len - at;
        go = wire_put(a, bytes.ptr + at, part);
        at += part;
        if (world_choose(x, 4) == 0)
            actor_yield(a);
    }
    tb_buf_free(&bytes);
    return go;
}

/* appended: the UIDs that APPENDUID (RFC 4315 3, 3502) gives the last n messages of b. */
static void appended(struct actor *a, struct box *b, uint32_t n)
{
    uint32_t uid[WORLD_MESSAGES + 1], uidvalidity = 0;
    const char *p = find(tb_buf_all(&a->tagged), "[APPENDUID ");
    if (!p)
        p = find(tb_buf_all(&a->untagged), "[APPENDUID ");
    if (!p || sscanf(p, "[APPENDUID %u", &uidvalidity) != 1)
        return;
    p = strchr(p + strlen("[APPENDUID "), ' ');
    if (!p || expand(p + 1, uid, WORLD_MESSAGES + 1) != n) {
        world_wrong(a->x, "APPENDUID of %u messages to %s has not as many UIDs", n, b->name);
        return;
    }
    if (uid[0] < b->uidnext)
        world_wrong(a->x, "APPEND to %s got UID %u, UIDNEXT was %u", b->name, uid[0], b->uidnext);
    if (b->uidvalidity && b->uidvalidity != uidvalidity)
        world_wrong(a->x, "APPEND to %s says UIDVALIDITY %u, it is %u", b->name, uidvalidity, b->uidvalidity);
    b->uidvalidity = uidvalidity;
    b->uidnext = uid[n - 1] + 1;
    for (uint32_t i = 0; i < n; i++)
        b->v[b->n - n + i].uid = uid[i];
}

/* act_append: one message, several together (RFC 3502), or one in the place of another (RFC 8508). */
void act_append(struct actor *a)
{
    int k = ready(a) ? some_box(a, true, false, -1) : -1;
    if (k < 0 || a->now.box[k].n == WORLD_MESSAGES)
        return;
    struct world *x = a->x;
    char flags[64];
    uint32_t count = world_choose(x, 4) == 0 ? 1 + (uint32_t)world_choose(x, 5) : 1, was = a->now.box[k].n;
    uint32_t old = count == 1 && was > 0 && world_choose(x, 5) == 0 ? (uint32_t)world_choose(x, was) : UINT32_MAX;
    if (old != UINT32_MAX && (a->now.box[k].v[old].uid == 0 || !select_box(a, k)))
        return;
    struct box *b = &begin(a)->box[k];
    enum reply r = REPLY_DEAD;
    a->tag++;
    bool go = old == UINT32_MAX ? wire_printf(a, "t%u APPEND \"%s\"", a->tag, b->name)
                                : wire_printf(a, "t%u UID REPLACE %u \"%s\"", a->tag, b->v[old].uid, b->name);
    if (old != UINT32_MAX)
        memmove(&b->v[old], &b->v[old + 1], (--b->n - old) * sizeof(b->v[0]));
    count = count < WORLD_MESSAGES - b->n ? count : WORLD_MESSAGES - b->n;
    for (uint32_t i = 0; i < count; i++) { /* the model's first: whatever was sent of them, it is all or none */
        uint32_t again = b->n > 1 && world_choose(x, 6) == 0 ? b->v[world_choose(x, b->n - 1)].id : 0; /* once more */
        b->v[b->n++] = (struct message){.id = again ? again : x->next_id++, .flags = (uint16_t)world_choose(x, 32)};
    }
    for (uint32_t i = 0; go && i < count; i++) {
        const struct message *m = &b->v[b->n - count + i];
        go = wire_printf(a, " (%s) ", flag_list(m->flags, flags)) && put_message(a, m->id, &r);
    }
    if (go && wire_put(a, "\r\n", 2))
        r = answer(a);
    if (r == REPLY_OK)
        appended(a, b, count);
    (void)settle(a, r);
}

/* choose_some: UIDs of some messages as a set in text, and which ones; false: none. */
static bool choose_some(struct actor *a, int k, char text[600], bool chosen[WORLD_MESSAGES])
{
    const struct box *b = &a->now.box[k];
    size_t n = 0;
    uint64_t odds = 1 + world_choose(a->x, 4);
    memset(chosen, 0, WORLD_MESSAGES);
    for (uint32_t i = 0; i < b->n; i++) {
        chosen[i] = world_choose(a->x, odds) == 0;
        if (chosen[i])
            n += (size_t)snprintf(text + n, 600 - n, "%s%u", n ? "," : "", b->v[i].uid);
    }
    return n > 0;
}

/* box_with_mail: selected, with messages; -1: none. */
static int box_with_mail(struct actor *a)
{
    int k = ready(a) ? some_box(a, true, true, -1) : -1;
    return k >= 0 && select_box(a, k) ? k : -1;
}

void act_store(struct actor *a)
{
    int k = box_with_mail(a);
    char set[600], list[64];
    bool chosen[WORLD_MESSAGES];
    if (k < 0 || !choose_some(a, k, set, chosen))
        return;
    uint16_t flags = (uint16_t)(1 + world_choose(a->x, 31));
    unsigned mode = (unsigned)world_choose(a->x, 3);
    struct box *b = &begin(a)->box[k];
    for (uint32_t i = 0; i < b->n; i++) {
        uint16_t *f = &b->v[i].flags;
        if (chosen[i])
            *f = (uint16_t)(mode == 0 ? *f | flags : mode == 1 ? *f & ~flags : flags);
    }
    (void)settle(a, command(a, "UID STORE %s %sFLAGS%s (%s)", set, (const char *[]){"+", "-", ""}[mode],
                            world_choose(a->x, 2) ? ".SILENT" : "", flag_list(flags, list)));
}

static void remove_chosen(struct box *b, const bool chosen[WORLD_MESSAGES])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n; i++)
        if (!chosen[i])
            b->v[n++] = b->v[i];
    b->n = n;
}

/* copied: the UIDs that COPYUID (RFC 4315 3) gives the last n messages of b. */
static void copied(struct actor *a, struct box *b, uint32_t n)
{
    uint32_t uid[WORLD_MESSAGES + 1];
    struct tb_slice all = tb_buf_all(&a->untagged);
    const char *p = find(all, "[COPYUID ");
    if (!p)
        p = find(tb_buf_all(&a->tagged), "[COPYUID ");
    for (int word = 0; p && word < 3; word++)
        p = strchr(p, ' ') ? strchr(p, ' ') + 1 : NULL;
    if (!p && a->x->faults)
        return; /* done, but there was no memory to say more (RFC 4315 3: SHOULD); a check finds the UIDs */
    if (!p || expand(p, uid, WORLD_MESSAGES + 1) != n) {
        world_wrong(a->x, "actor %u: no COPYUID for %u messages: %s", a->number, n, a->tagged.ptr);
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (uid[i] < b->uidnext)
            world_wrong(a->x, "COPY to %s gave UID %u, UIDNEXT was %u", b->name, uid[i], b->uidnext);
        b->v[b->n - n + i].uid = uid[i];
        b->uidnext = uid[i] + 1;
    }
}

static void copy_or_move(struct actor *a, bool move)
{
    int from = box_with_mail(a), to = from >= 0 ? some_box(a, true, false, from) : -1;
    char set[600];
    bool chosen[WORLD_MESSAGES];
    if (to < 0 || !choose_some(a, from, set, chosen))
        return;
    struct boxes *next = begin(a);
    struct box *src = &next->box[from], *dst = &next->box[to];
    uint32_t n = 0;
    for (uint32_t i = 0; i < src->n && dst->n < WORLD_MESSAGES; i++)
        if (chosen[i]) {
            dst->v[dst->n] = src->v[i];
            dst->v[dst->n++].uid = 0;
            n++;
        }
    uint32_t asked = 0;
    for (uint32_t i = 0; i < src->n; i++)
        asked += chosen[i];
    if (asked > n) { /* the model has no room for it */
        a->pending = false;
        return;
    }
    if (move)
        remove_chosen(src, chosen);
    enum reply r = command(a, "UID %s %s \"%s\"", move ? "MOVE" : "COPY", set, dst->name);
    if (r == REPLY_OK)
        copied(a, dst, n);
    (void)settle(a, r);
}

void act_copy(struct actor *a)
{
    copy_or_move(a, false);
}

void act_move(struct actor *a)
{
    copy_or_move(a, true);
}

void act_expunge(struct actor *a)
{
    int k = box_with_mail(a);
    char set[600];
    bool chosen[WORLD_MESSAGES];
    if (k < 0)
        return;
    bool by_uid = world_choose(a->x, 3) == 0;
    if (by_uid && !choose_some(a, k, set, chosen))
        return;
    struct box *b = &begin(a)->box[k];
    for (uint32_t i = 0; i < b->n; i++)
        chosen[i] = (!by_uid || chosen[i]) && b->v[i].flags & TB_FLAG_DELETED;
    remove_chosen(b, chosen);
    (void)settle(a, by_uid ? command(a, "UID EXPUNGE %s", set) : command(a, "EXPUNGE"));
}

/* ---- reading ---- */

static uint16_t flags_in(struct tb_slice head)
{
    uint16_t flags = 0;
    for (unsigned i = 0; i < TB_ARRAY_LEN(flag_names); i++)
        if (find(head, flag_names[i]))
            flags |= (uint16_t)(1u << i);
    return flags;
}

/* fetched: a FETCH line of the box against the model; bytes are only missing if a fault explains it. */
static bool fetched(struct actor *a, const struct box *b, struct tb_slice line)
{
    const char *brace = memchr(line.ptr, '{', line.len);
    uint32_t uid = 0;
    struct tb_slice head = tb_slice(line.ptr, brace ? (size_t)(brace - line.ptr) : line.len), bytes = {0};
    if (!find(head, " FETCH (") || !number_after(head, "UID ", &uid))
        return false;
    if (brace) {
        size_t n = strtoul(brace + 1, NULL, 10);
        const char *from = strchr(brace, '\n') + 1;
        bytes = tb_slice(from, n);
    }
    for (uint32_t i = 0; i < b->n; i++) {
        const struct message *m = &b->v[i];
        if (m->uid != uid)
            continue;
        if (find(head, "FLAGS (") && flags_in(head) != m->flags)
            world_wrong(a->x, "%s UID %u has flags %x, not %x", b->name, uid, flags_in(head), m->flags);
        if (brace ? !model_is(a->x, m->id, bytes, false) : !a->x->faults)
            world_wrong(a->x, "%s UID %u is not message %u", b->name, uid, m->id);
        return true;
    }
    world_wrong(a->x, "%s has a message with UID %u that should not be there", b->name, uid);
    return false;
}

void act_fetch(struct actor *a)
{
    int k = box_with_mail(a);
    if (k < 0)
        return;
    struct tb_slice line;
    const struct box *b = &a->now.box[k];
    uint32_t n = 0;
    bool one = world_choose(a->x, 2);
    uint32_t uid = b->v[world_choose(a->x, b->n)].uid;
    enum reply r = one ? command(a, "UID FETCH %u (UID FLAGS BODY.PEEK[])", uid)
                       : command(a, "UID FETCH 1:* (UID FLAGS ENVELOPE BODY.PEEK[])");
    if (r == REPLY_DEAD)
        return;
    for (size_t at = 0; next_line(&a->untagged, &at, &line);)
        n += fetched(a, b, line);
    if (r == REPLY_OK && n != (one ? 1 : b->n) && !a->x->faults)
        world_wrong(a->x, "FETCH of %s gave %u of %u messages", b->name, n, one ? 1 : b->n);
}

void act_search(struct actor *a)
{
    int k = box_with_mail(a);
    uint32_t uid[WORLD_MESSAGES + 1], n = 0, i = 0;
    if (k < 0)
        return;
    const struct box *b = &a->now.box[k];
    bool text = world_choose(a->x, 4) == 0;
    uint32_t id = b->v[world_choose(a->x, b->n)].id;
    enum reply r = text ? command(a, "UID SEARCH HEADER Message-ID \"<%u@sim>\"", id) : command(a, "UID SEARCH SEEN");
    if (r != REPLY_OK)
        return;
    const char *p = find(tb_buf_all(&a->untagged), "* SEARCH");
    for (p = p ? p + 8 : ""; *p == ' ' && n <= WORLD_MESSAGES;) {
        char *end;
        uid[n++] = (uint32_t)strtoul(p + 1, &end, 10);
        p = end;
    }
    for (uint32_t m = 0; m < b->n; m++)
        if (text ? b->v[m].id == id : b->v[m].flags & TB_FLAG_SEEN)
            if (i >= n || uid[i++] != b->v[m].uid)
                i = WORLD_MESSAGES + 2;
    if (i != n && !a->x->faults)
        world_wrong(a->x, "SEARCH in %s found %u messages, not the right ones", b->name, n);
}

/* seen: an INBOX message somebody was shown is durable (S7): from now on it must be there. */
static void seen(struct actor *a, struct tb_slice line)
{
    uint32_t id = 0;
    const char *brace = memchr(line.ptr, '{', line.len);
    if (!brace || !number_after(line, "Message-ID: <", &id))
        return;
    size_t n = strtoul(brace + 1, NULL, 10);
    struct sent *s = model_sent(a->x, a->account, id);
    if (!s || !model_is(a->x, id, tb_slice(strchr(brace, '\n') + 1, n), true))
        world_wrong(a->x, "INBOX of %s shows what nobody sent (%u)", a->x->inbox[a->account].name, id);
    else if (s->state == SENT_MAYBE)
        s->state = SENT_HERE;
}

void act_idle(struct actor *a)
{
    struct tb_slice line;
    uint32_t exists = 0;
    if (!act_login(a))
        return;
    if (a->selected != INBOX && command(a, "SELECT INBOX") != REPLY_OK)
        return;
    a->selected = INBOX;
    a->tag++;
    if (!wire_printf(a, "t%u IDLE\r\n", a->tag) || !wire_line(a, &line))
        return;
    while (exists == 0) {
        if (!wire_line(a, &line))
            return;
        if (find(line, " EXISTS"))
            exists = (uint32_t)strtoul(line.ptr + 2, NULL, 10);
    }
    if (!wire_printf(a, "DONE\r\n") || answer(a) != REPLY_OK)
        return;
    if (command(a, "FETCH *:* (UID BODY.PEEK[])") != REPLY_OK)
        return;
    for (size_t at = 0; next_line(&a->untagged, &at, &line);)
        if (find(line, " FETCH ("))
            seen(a, line);
}

void act_random(struct actor *a)
{
    static void (*const imap[])(struct actor *) = {
        act_create, act_create, act_append, act_append, act_append, act_append,  act_store, act_store,  act_copy,
        act_copy,   act_move,   act_move,   act_delete, act_rename, act_expunge, act_fetch, act_search, act_subscribe};
    if (a->role == ROLE_IDLE)
        act_idle(a);
    else if (a->role == ROLE_POP3)
        act_drain(a);
    else if (a->role != ROLE_IMAP)
        act_deliver(a);
    else if (!a->pending)
        imap[world_choose(a->x, TB_ARRAY_LEN(imap))](a);
    if (a->pending || a->role == ROLE_POP3)
        actor_sleep(a, 20000000 + world_choose(a->x, 200000000));
    else if (world_choose(a->x, 20) == 0)
        actor_sleep(a, world_choose(a->x, 3000000000));
}
