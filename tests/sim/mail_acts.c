/*
 * mail_acts.c: what senders (LMTP, SMTP, submission) and POP3 clients do, and what the model makes of the answers.
 *
 * A message is SENT_MAYBE for each recipient from the moment its DATA may have been seen; 250 (for LMTP: that
 * recipient's) makes it SENT_HERE. A POP3 session's removals are SENT_LEAVING while QUIT is under way. RFC 5321, 2033,
 * 4954, 1939.
 */
#include <stdio.h>
#include <stdlib.h>

#include "world.h"

/* ---- SMTP and LMTP ---- */

/* reply: the code of a whole reply; 0: dead. */
static int reply(struct actor *a)
{
    struct tb_slice line;
    do {
        if (!wire_line(a, &line))
            return 0;
    } while (line.len > 3 && line.ptr[3] == '-');
    return line.len < 3 ? 0 : (int)strtoul((char[]){line.ptr[0], line.ptr[1], line.ptr[2], 0}, NULL, 10);
}

static int ask(struct actor *a, const char *text)
{
    return wire_put(a, text, strlen(text)) ? reply(a) : 0;
}

/* expect: was it this code? Anything else needs a fault or the end of the connection. */
static bool expect(struct actor *a, int got, int want, const char *what)
{
    if (got == want)
        return true;
    a->x->stats.refused += got != 0;
    if (got != 0 && !a->x->faults)
        world_wrong(a->x, "actor %u: %s got %d", a->number, what, got);
    if (got != 0)
        wire_close(a, false);
    return false;
}

static bool connected(struct actor *a)
{
    static const uint16_t ports[ROLES] = {
        [ROLE_LMTP] = PORT_LMTP, [ROLE_SMTP] = PORT_SMTP, [ROLE_SUBMISSION] = PORT_SUBMISSION};
    char line[64], b64[96] = "";
    if (!a->wire.dead && a->wire.handle >= 0)
        return true;
    if (!wire_open(a, ports[a->role]) || !expect(a, reply(a), 220, "the greeting") ||
        !expect(a, ask(a, a->role == ROLE_LMTP ? "LHLO sim\r\n" : "EHLO sim\r\n"), 250, "EHLO"))
        return false;
    if (a->role != ROLE_SUBMISSION)
        return true;
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int n = snprintf(line, sizeof(line), "%c%s%csecret", 0, a->x->inbox[a->account].name, 0);
    for (int i = 0; i < n; i += 3) { /* AUTH PLAIN (RFC 4616) */
        uint32_t v = (uint32_t)(unsigned char)line[i] << 16 |
                     (i + 1 < n ? (uint32_t)(unsigned char)line[i + 1] << 8 : 0) |
                     (i + 2 < n ? (unsigned char)line[i + 2] : 0);
        char four[5] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                        i + 2 < n ? digits[v & 63] : '=', 0};
        memcpy(b64 + i / 3 * 4, four, 5);
    }
    (void)snprintf(line, sizeof(line), "AUTH PLAIN %s\r\n", b64);
    return expect(a, ask(a, line), 235, "AUTH");
}

/* data: the message, dots stuffed (the generator makes none at a line's beginning), in pieces. */
static bool data(struct actor *a, uint32_t id)
{
    struct tb_buf m = model_message(a->x, id);
    bool go = true;
    for (size_t at = 0; go && at < m.len;) {
        size_t part = 1 + world_choose(a->x, 30000);
        part = part < m.len - at ? part : m.len - at;
        go = wire_put(a, m.ptr + at, part);
        at += part;
        if (world_choose(a->x, 4) == 0)
            actor_yield(a);
    }
    tb_buf_free(&m);
    return go && wire_put(a, ".\r\n", 3);
}

static void arrived(struct actor *a, uint32_t account, uint32_t id)
{
    struct sent *s = model_sent(a->x, account, id);
    if (s->state == SENT_MAYBE)
        s->state = SENT_HERE;
    a->acked++;
    a->x->stats.acked++;
}

void act_deliver_to(struct actor *a, unsigned account, unsigned n)
{
    struct world *x = a->x;
    char line[96];
    if (!connected(a))
        return;
    (void)snprintf(line, sizeof(line), "MAIL FROM:<%s@example.test>\r\n", x->inbox[a->account].name);
    if (!expect(a, ask(a, line), 250, "MAIL"))
        return;
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(line, sizeof(line), "RCPT TO:<%s@example.test>\r\n", x->inbox[(account + i) % x->accounts].name);
        if (!expect(a, ask(a, line), 250, "RCPT"))
            return;
    }
    if (!expect(a, ask(a, "DATA\r\n"), 354, "DATA"))
        return;
    uint32_t id = x->next_id++;
    for (unsigned i = 0; i < n; i++)
        (void)model_send(x, (account + i) % x->accounts, id);
    if (!data(a, id))
        return;
    int code = 0;
    for (unsigned i = 0; i < n; i++) {
        if (i == 0 || a->role == ROLE_LMTP)
            code = reply(a);
        if (code == 0)
            return;
        if (code == 250)
            arrived(a, (account + i) % x->accounts, id);
        else if (!x->faults)
            world_wrong(x, "actor %u: a message got %d", a->number, code);
        x->stats.refused += code != 250;
    }
    if (world_choose(x, 5) == 0) {
        (void)ask(a, "QUIT\r\n");
        wire_close(a, false);
    }
}

void act_deliver(struct actor *a)
{
    struct world *x = a->x;
    unsigned n = world_choose(x, 3) ? 1 : 1 + (unsigned)world_choose(x, x->accounts);
    act_deliver_to(a, (unsigned)world_choose(x, x->accounts), n);
}

/* ---- POP3 ---- */

static bool positive(struct actor *a, struct tb_slice *line)
{
    return wire_line(a, line) && line->len > 0 && line->ptr[0] == '+';
}

static bool pop3_ask(struct actor *a, const char *text)
{
    struct tb_slice line;
    return wire_put(a, text, strlen(text)) && positive(a, &line);
}

/* retrieve: one message, dots unstuffed, into `untagged`; false: refused or dead. */
static bool retrieve(struct actor *a, unsigned number)
{
    char text[32];
    struct tb_slice line;
    (void)snprintf(text, sizeof(text), "RETR %u\r\n", number);
    if (!pop3_ask(a, text))
        return false;
    a->untagged.len = 0;
    while (wire_line(a, &line)) {
        if (line.len == 1 && line.ptr[0] == '.')
            return true;
        size_t skip = line.len > 0 && line.ptr[0] == '.';
        tb_buf_put(&a->untagged, line.ptr + skip, line.len - skip);
        tb_buf_str(&a->untagged, "\r\n");
    }
    return false;
}

/* drained: message `number` was read; is it what was sent? Then it is deleted. */
static bool drained(struct actor *a, unsigned number, uint32_t drain)
{
    char text[32];
    uint32_t id = 0;
    const char *p = a->untagged.len ? memmem(a->untagged.ptr, a->untagged.len, "Message-ID: <", 13) : NULL;
    if (p)
        id = (uint32_t)strtoul(p + 13, NULL, 10);
    struct sent *s = model_sent(a->x, a->account, id);
    if (!s || !model_is(a->x, id, tb_buf_all(&a->untagged), true)) {
        world_wrong(a->x, "POP3 gives %s what nobody sent (%u)", a->x->inbox[a->account].name, id);
        return false;
    }
    if (s->state == SENT_MAYBE)
        s->state = SENT_HERE;
    (void)snprintf(text, sizeof(text), "DELE %u\r\n", number);
    if (s->state != SENT_HERE || !pop3_ask(a, text))
        return false;
    s = model_sent(a->x, a->account, id);
    s->drain = drain;
    return true;
}

/* drain_state: all of a removal's messages change their state. */
static void drain_state(struct world *x, uint32_t drain, enum sent_state from, enum sent_state to)
{
    for (size_t i = 0; i < x->sent_n; i++)
        if (x->sent[i].drain == drain && x->sent[i].state == from)
            x->sent[i].state = to;
}

void act_drain(struct actor *a)
{
    struct world *x = a->x;
    struct tb_slice line;
    char text[64];
    unsigned long n = 0;
    for (size_t i = 0; i < x->sent_n; i++) /* an earlier removal is still open: what is there is not known */
        if (x->sent[i].account == a->account && x->sent[i].state == SENT_LEAVING)
            return;
    (void)snprintf(text, sizeof(text), "USER %s\r\n", x->inbox[a->account].name);
    bool in = wire_open(a, PORT_POP3) && positive(a, &line) && pop3_ask(a, text) && pop3_ask(a, "PASS secret\r\n");
    if (in && wire_put(a, "STAT\r\n", 6) && positive(a, &line))
        n = strtoul(line.ptr + 4, NULL, 10);
    uint32_t drain = ++x->drains;
    for (unsigned i = 1; i <= n; i++)
        if (world_choose(x, 8) && retrieve(a, i) && !drained(a, i, drain))
            break;
    if (n > 0 && !a->wire.dead) {
        drain_state(x, drain, SENT_HERE, SENT_LEAVING);
        if (pop3_ask(a, "QUIT\r\n")) {
            drain_state(x, drain, SENT_LEAVING, SENT_GONE);
            a->acked++;
            x->stats.acked++;
        }
    }
    wire_close(a, false);
}
