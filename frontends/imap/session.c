/*
 * session.c: one IMAP connection from greeting to farewell: phases, literals' continuation requests, the
 * tagged reply, limits on bad input. It knows no verb's arguments and never waits inside a step.
 *
 *   READ ── complete command ──> LOOK (some verbs) ──> RUN ──> REPLY ──> READ
 *     └── line too long ──> SKIP ──> READ                        └── logout, BYE ──> CLOSE
 *
 * Invariants: in READ the arena holds nothing that matters; between commands an idle session keeps no heap
 * but its view, its account's handle and its name. Thread: the connection's owner; it changes once, at login.
 * RFC 3501 3, 5, 7.1.5; RFC 7888.
 */
#include "imap_session.h"
#include "chars.h"

#include <tambo/watch.h>

#include <stdlib.h>

/* ---- replies ---- */

enum imap_run imap_reply(struct imap_cmd *cmd, const char *reply)
{
    cmd->reply = tb_slice_str(reply);
    return RUN_DONE;
}

/* What a store's refusal means to an IMAP client: RFC 5530 codes. */
static const char *const rc_replies[] = {
    [TB_OK] = "OK Completed",
    [TB_NOTFOUND] = "NO [NONEXISTENT] No such mailbox",
    [TB_EXISTS] = "NO [ALREADYEXISTS] It exists already",
    [TB_INVALID] = "NO [CANNOT] Not possible with this name",
    [TB_LIMIT] = "NO [LIMIT] Too large or too many",
    [TB_BUSY] = "NO [UNAVAILABLE] Busy, try again",
    [TB_CONFLICT] = "NO [UNAVAILABLE] Changed meanwhile, try again",
    [TB_NOSPACE] = "NO [UNAVAILABLE] No space left, try later",
    [TB_IO] = "NO [UNAVAILABLE] Storage trouble, try later",
    [TB_CORRUPT] = "NO [SERVERBUG] Stored data is damaged",
    [TB_CANCELLED] = "NO [UNAVAILABLE] Cancelled",
    [TB_OVERQUOTA] = "NO [OVERQUOTA] Over quota",
};

enum imap_run imap_reply_rc(struct imap_cmd *cmd, enum tb_rc rc)
{
    return imap_reply(cmd, rc_replies[rc]);
}

enum imap_run imap_reply_buf(struct imap_session *s, struct imap_cmd *cmd, struct tb_buf *b)
{
    cmd->reply = b->failed ? (struct tb_slice){0} : tb_arena_copy(&s->arena, tb_buf_all(b));
    tb_buf_free(b);
    if (!cmd->reply.ptr)
        cmd->reply = TB_SLICE("OK Completed, the answer's details were too long");
    return RUN_DONE;
}

static void bye(struct imap_session *s, const char *text)
{
    imap_puts(&s->out, "* BYE ");
    imap_puts(&s->out, text);
    imap_puts(&s->out, "\r\n");
    s->phase = PHASE_CLOSE;
}

enum imap_run imap_yield(struct imap_session *s)
{
    tb_conn_yield(s->conn);
    return RUN_WAIT;
}

void imap_unselect(struct imap_session *s)
{
    imap_sync_abandon(s);
    imap_contexts_end(s);
    imap_notify_unselected(s);
    if (s->view)
        tb_view_close(s->view);
    s->view = NULL;
    tb_uidset_free(&s->saved);
    if (s->state == IMAP_SELECTED)
        s->state = IMAP_AUTHENTICATED;
    s->rights = 0;
    s->read_only = s->gone = s->changed = s->rights_changed = false;
}

void imap_still_working(struct imap_session *s, uint64_t done, uint64_t goal)
{
    uint64_t now = tb_io_now_ns(tb_worker_io(tb_conn_worker(s->conn)));
    if (s->silent_since_ns == 0) {
        s->silent_since_ns = now;
        return;
    }
    if (now - s->silent_since_ns < (uint64_t)s->config->imap_progress_s * 1000000000u)
        return;
    s->silent_since_ns = now;
    imap_puts(&s->out, "* OK [INPROGRESS (");
    imap_put_string(&s->out, s->cmd.tag);
    if (goal > 0) {
        imap_putc(&s->out, ' ');
        imap_put_u64(&s->out, done);
        imap_putc(&s->out, ' ');
        imap_put_u64(&s->out, goal);
        imap_puts(&s->out, ")] Still working\r\n");
    } else {
        imap_puts(&s->out, " NIL NIL)] Still working\r\n");
    }
}

bool imap_plain_allowed(struct imap_session *s)
{
    return tb_login_private(s->config, tb_conn_secure(s->conn), tb_conn_loopback(s->conn));
}

/* ---- reading a command ---- */

static const struct imap_frame_limits limits_before = {IMAP_LINE_PRE_MAX, IMAP_LITERAL_PRE_BYTES_MAX, IMAP_LITERALS_MAX,
                                                       IMAP_LITERAL_MINUS_MAX};
static const struct imap_frame_limits limits_after = {IMAP_LINE_MAX, IMAP_LITERAL_BYTES_MAX, IMAP_LITERALS_MAX,
                                                      UINT32_MAX};

static const struct imap_frame_limits *limits(const struct imap_session *s)
{
    return s->state == IMAP_NOT_AUTHENTICATED ? &limits_before : &limits_after;
}

static void take_command(struct imap_session *s)
{
    tb_conn_consume(s->conn, s->frame.scanned);
    s->frame = (struct imap_frame){0};
}

/* tag_of: the tag at the head of a line that will not be parsed; empty if it is none. */
static struct tb_slice tag_of(struct tb_slice line)
{
    size_t n = 0;
    while (n < line.len && n < IMAP_TAG_MAX && (imap_chars[(uint8_t)line.ptr[n]] & IMAP_C_TAG))
        n++;
    bool ends = n == line.len || line.ptr[n] == ' ' || line.ptr[n] == '\r' || line.ptr[n] == '\n';
    return tb_slice(line.ptr, ends ? n : 0);
}

static void put_tagged(struct imap_session *s, struct tb_slice tag, struct tb_slice reply)
{
    if (tag.len > 0)
        imap_put(&s->out, tag);
    else
        imap_putc(&s->out, '*');
    imap_putc(&s->out, ' ');
    imap_put(&s->out, reply);
    imap_puts(&s->out, "\r\n");
}

/* refuse: answer a command that never ran, and count it. */
static void refuse(struct imap_session *s, struct tb_slice tag, const char *reply)
{
    put_tagged(s, tag, tb_slice_str(reply));
    if (++s->bad >= IMAP_BAD_MAX)
        bye(s, "Too many bad commands");
}

/* is_stranger: does another protocol knock (RFC 3501 7.1.5)? Looked at before login only. */
static bool is_stranger(struct tb_slice line)
{
    static const char *const openings[] = {"GET ",     "POST ",    "HEAD ",      "PUT ",
                                           "OPTIONS ", "CONNECT ", "PRI * HTTP", "SSH-"};
    for (size_t i = 0; i < TB_ARRAY_LEN(openings); i++) {
        if (tb_slice_istarts(line, tb_slice_str(openings[i])) && i != TB_ARRAY_LEN(openings) - 1 &&
            memmem(line.ptr, line.len, "HTTP/", 5))
            return true;
    }
    return tb_slice_istarts(line, TB_SLICE("SSH-"));
}

/* is_noise: bytes that no IMAP client sends in a line. */
static bool is_noise(struct tb_slice line)
{
    struct tb_slice head = tb_slice_sub(line, 0, 64);
    size_t odd = 0;
    for (size_t i = 0; i < head.len; i++)
        odd += (uint8_t)head.ptr[i] >= 0x80 ||
               ((uint8_t)head.ptr[i] < 0x20 && head.ptr[i] != '\r' && head.ptr[i] != '\n');
    return head.len > 0 && odd > 0 && tag_of(line).len == 0;
}

/* parse: a complete command; true: it is in s->cmd and may run. */
static bool parse(struct imap_session *s)
{
    struct tb_slice text = tb_slice_sub(tb_conn_input(s->conn), 0, s->frame.scanned);
    struct imap_parser p;
    if (s->state == IMAP_NOT_AUTHENTICATED && is_stranger(text)) {
        take_command(s);
        bye(s, "This is an IMAP server");
        return false;
    }
    bool noise = is_noise(text);
    tb_arena_reset(&s->arena);
    text = tb_arena_copy(&s->arena, text);
    take_command(s);
    if (!text.ptr) {
        bye(s, "[UNAVAILABLE] Out of memory");
        return false;
    }
    imap_parser_init(&p, text, &s->arena);
    p.utf8 = s->out.utf8;
    if (!imap_parse_command(&p, &s->cmd)) {
        struct tb_slice tag = tag_of(text);
        bool counts = p.error[0] == 'B';
        if (counts) {
            refuse(s, tag, p.error);
        } else {
            imap_search_refused(s, &s->cmd);
            put_tagged(s, tag, tb_slice_str(p.error));
        }
        if (noise && ++s->noise >= IMAP_NOISE_MAX && s->phase != PHASE_CLOSE)
            bye(s, "This is an IMAP server");
        return false;
    }
    if (!(s->cmd.verb->states & s->state)) {
        refuse(s, s->cmd.tag, "BAD Not in this state");
        return false;
    }
    if (s->cmd.verb->flags & VERB_SEQ && s->enabled & IMAP_UIDONLY) {
        refuse(s, s->cmd.tag, IMAP_UIDREQUIRED);
        return false;
    }
    return true;
}

/* starts_append: "tag SP APPEND SP" or a REPLACE, whatever the case? */
static bool starts_append(struct tb_slice text)
{
    struct tb_slice rest = tb_slice_sub(text, tag_of(text).len, text.len);
    return tb_slice_istarts(rest, TB_SLICE(" APPEND ")) || tb_slice_istarts(rest, TB_SLICE(" REPLACE ")) ||
           tb_slice_istarts(rest, TB_SLICE(" UID REPLACE "));
}

/* takes_literal8: is it a command that has literal8 among its arguments (RFC 5464 5: value)? */
static bool takes_literal8(const struct imap_session *s, struct tb_slice text)
{
    struct tb_slice rest = tb_slice_sub(text, tag_of(text).len, text.len);
    return s->state != IMAP_NOT_AUTHENTICATED && tb_slice_istarts(rest, TB_SLICE(" SETMETADATA "));
}

/* on_literal: the framer met a literal's head: take it as an argument, hand over to APPEND, or refuse it. */
static void on_literal(struct imap_session *s, const struct imap_literal *l)
{
    struct tb_slice text = tb_slice_sub(tb_conn_input(s->conn), 0, s->frame.scanned);
    if (s->state != IMAP_NOT_AUTHENTICATED && starts_append(text)) {
        struct imap_parser p;
        tb_arena_reset(&s->arena);
        text = tb_arena_copy(&s->arena, text);
        imap_parser_init(&p, text.ptr ? text : TB_SLICE(""), &s->arena);
        p.utf8 = s->out.utf8;
        enum imap_append_head head = imap_append_head(&p, &s->cmd);
        if (head != APPEND_OTHER) {
            const char *refusal = head != APPEND_BAD ? NULL : p.error ? p.error : "BAD Syntax error";
            take_command(s);
            if (!(s->cmd.verb->states & s->state))
                refusal = "BAD Not in this state";
            else if (s->cmd.verb->flags & VERB_SEQ && s->enabled & IMAP_UIDONLY)
                refusal = IMAP_UIDREQUIRED;
            imap_append_begin(s, &s->cmd, l, refusal);
            s->phase = refusal || s->cmd.verb->states != IMAP_SELECTED ? PHASE_RUN : PHASE_LOOK;
            return;
        }
    }
    if (!l->over && (!l->literal8 || takes_literal8(s, text))) {
        imap_frame_literal(&s->frame, l);
        tb_conn_input_max(s->conn, s->frame.scanned + (size_t)l->size + IMAP_LINE_MAX + 4096);
        if (l->sync)
            imap_puts(&s->out, "+ OK\r\n");
        return;
    }
    refuse(s, tag_of(text), l->literal8 ? "BAD No literal8 here" : "BAD [LIMIT] Literal too large, or too many");
    take_command(s);
    if (!l->sync && s->phase != PHASE_CLOSE)
        bye(s, "Literal too large"); /* RFC 7888 4: what follows can not be told from commands */
}

static enum imap_run phase_read(struct imap_session *s)
{
    struct imap_literal l;
    enum imap_run told = s->notify ? imap_notify_step(s, false) : RUN_DONE;
    if (told != RUN_DONE)
        return told;
    if (s->gone) {
        bye(s, "The selected mailbox is gone; please reconnect");
        return RUN_MORE;
    }
    struct tb_slice in = tb_conn_input(s->conn);
    if (s->state == IMAP_NOT_AUTHENTICATED && in.len > 0 && s->frame.scanned == 0 && in.ptr[0] == 0x16 &&
        !tb_conn_secure(s->conn))
        return RUN_CLOSE; /* a TLS ClientHello: nothing we say would be understood */
    switch (imap_frame_next(&s->frame, limits(s), in, &l)) {
    case FRAME_MORE:
        if (tb_conn_eof(s->conn))
            return RUN_CLOSE;
        if (in.len == 0)
            tb_arena_free(&s->arena);
        return RUN_WAIT;
    case FRAME_LITERAL:
        on_literal(s, &l);
        return RUN_MORE;
    case FRAME_BARE:
        refuse(s, tag_of(tb_slice_sub(in, 0, s->frame.scanned)), "BAD Lines end in CRLF");
        take_command(s);
        return RUN_MORE;
    case FRAME_LONG:
        s->phase = PHASE_SKIP;
        return RUN_MORE;
    case FRAME_COMMAND:
        break;
    }
    tb_conn_input_max(s->conn, IMAP_LINE_MAX + 4096);
    if (parse(s))
        s->phase = PHASE_LOOK;
    return RUN_MORE;
}

/* phase_skip: a line too long is read to its end, unseen, and answered; before login the connection is closed instead.
 */
static enum imap_run phase_skip(struct imap_session *s)
{
    enum { TAIL = 32 };
    struct tb_slice in = tb_conn_input(s->conn);
    if (s->state == IMAP_NOT_AUTHENTICATED) {
        refuse(s, (struct tb_slice){0}, "BAD Command line too long");
        if (s->phase != PHASE_CLOSE)
            bye(s, "Command line too long");
        return RUN_MORE;
    }
    if (s->skipped == 0) {
        tb_arena_reset(&s->arena);
        s->cmd = (struct imap_cmd){.tag = tb_arena_copy(&s->arena, tag_of(in))};
        tb_conn_consume(s->conn, s->frame.line); /* literals before it */
        s->skipped = 1;
        return RUN_MORE;
    }
    const char *lf = in.len > 0 ? memchr(in.ptr, '\n', in.len) : NULL;
    size_t n = lf ? (size_t)(lf - in.ptr) + 1 : in.len;
    if (lf) {
        struct imap_frame f = {0};
        struct imap_literal l = {0};
        const struct imap_frame_limits none = {UINT32_MAX, UINT32_MAX, 1, UINT32_MAX};
        size_t tail = n > TAIL ? n - TAIL : 0;
        enum imap_frame_result r = imap_frame_next(&f, &none, tb_slice(in.ptr + tail, n - tail), &l);
        tb_conn_consume(s->conn, n);
        refuse(s, s->cmd.tag, "NO [LIMIT] Command line too long");
        s->frame = (struct imap_frame){0};
        s->skipped = 0;
        if (s->phase != PHASE_CLOSE)
            s->phase = PHASE_READ;
        if (r == FRAME_LITERAL && !l.sync && s->phase != PHASE_CLOSE)
            bye(s, "Command line too long");
        return RUN_MORE;
    }
    if (n > TAIL) {
        s->skipped += n - TAIL;
        tb_conn_consume(s->conn, n - TAIL);
    }
    if (s->skipped > IMAP_SKIP_MAX) {
        bye(s, "Command line too long");
        return RUN_MORE;
    }
    return tb_conn_eof(s->conn) ? RUN_CLOSE : RUN_WAIT;
}

/* ---- running it ---- */

static uint8_t sync_how(const struct imap_session *s)
{
    return s->cmd.verb->flags & VERB_UID ? SYNC_UID : 0;
}

/* phase_look: a UID command may name messages that this session was not told of yet: tell it first. */
static enum imap_run phase_look(struct imap_session *s)
{
    enum tb_rc rc;
    if (s->view && !imap_at_home(s) && !imap_rights_look(s)) {
        s->gone = true; /* RFC 4314 5.1.1: the right to read was taken away */
        (void)imap_reply(&s->cmd, IMAP_NOPERM);
        s->phase = PHASE_REPLY;
        return RUN_MORE;
    }
    bool away = !imap_at_home(s) || !s->account; /* or on its way home */
    if (s->state != IMAP_NOT_AUTHENTICATED && away && !imap_verb_abroad(s->cmd.verb)) {
        if (!s->view && !imap_sit(s, s->account_id, &rc))
            return RUN_WAIT;
        if (!imap_at_home(s) || !s->account) {
            (void)imap_reply(&s->cmd, s->account ? "NO [CANNOT] Not while a mailbox of another user is selected"
                                                 : "NO [UNAVAILABLE] Storage trouble, try later");
            s->phase = PHASE_REPLY;
            return RUN_MORE;
        }
    }
    uint8_t how = sync_how(s);
    if (s->view && (s->cmd.verb->flags & VERB_LOOK) && imap_notify_how(s, s->cmd.verb, &how) && !imap_sync(s, how))
        return RUN_WAIT;
    s->phase = PHASE_RUN;
    return RUN_MORE;
}

static enum imap_run phase_run(struct imap_session *s)
{
    enum imap_run r = s->cmd.verb->run(s, &s->cmd);
    if (r == RUN_DONE) {
        s->phase = PHASE_REPLY;
        return RUN_MORE;
    }
    return r;
}

static void end_command(struct imap_session *s)
{
    if (s->cmd.cleanup)
        s->cmd.cleanup(s, &s->cmd);
    s->cmd = (struct imap_cmd){0};
    s->silent_since_ns = 0;
    tb_arena_reset(&s->arena);
}

/*
 * forget_user: all that a login left behind, and what was enabled, selected or asked for since: as after the greeting,
 * but for TLS and what the log was told by ID. The account is let go of in imap_leave, when no output waits for it.
 * RFC 8437 3, 4.
 */
static void forget_user(struct imap_session *s)
{
    tb_log(TB_LOG_INFO, "unauthenticate proto=imap user=%s id=%s", s->user, tb_conn_id(s->conn));
    s->unauthenticate = false;
    imap_out_flush(&s->out);
    tb_conn_uncompress(s->conn);
    imap_unselect(s);
    imap_notify_end(s);
    free(s->user);
    s->user = NULL;
    s->account_id = (struct tb_account_id){0};
    s->enabled = 0;
    s->out.utf8 = false;
    s->state = IMAP_NOT_AUTHENTICATED;
    tb_arena_free(&s->sync.arena);
    tb_conn_anonymous(s->conn);
    tb_conn_move(s->conn, tb_worker_index(tb_conn_worker(s->conn))); /* to where it is */
}

static enum imap_run phase_reply(struct imap_session *s)
{
    uint8_t flags = s->cmd.verb->flags;
    uint8_t how = sync_how(s) | (flags & VERB_SHIFTS && !s->cmd.holds ? SYNC_EXPUNGE : 0);
    bool looks = s->view && !(flags & VERB_QUIET) && imap_notify_how(s, s->cmd.verb, &how);
    if (looks && !imap_contexts_active(s) && !imap_sync(s, how))
        return RUN_WAIT;
    if (looks && !imap_contexts_tell(s))
        return RUN_WAIT;
    bool bad = s->cmd.reply.len > 0 && s->cmd.reply.ptr[0] == 'B';
    s->phase = PHASE_READ;
    if (bad)
        refuse(s, s->cmd.tag, s->cmd.reply.ptr);
    else
        put_tagged(s, s->cmd.tag, s->cmd.reply);
    if (!bad && s->state != IMAP_NOT_AUTHENTICATED)
        s->bad = s->noise = 0;
    end_command(s);
    if (s->starttls) {
        s->starttls = false;
        tb_conn_starttls(s->conn);
        return RUN_WAIT; /* nothing more is read in the clear */
    }
    if (s->compress) {
        s->compress = false;
        imap_out_flush(&s->out);
        tb_conn_compress(s->conn);
    }
    if (s->unauthenticate) {
        forget_user(s);
        return RUN_WAIT;
    }
    if (s->logout)
        s->phase = PHASE_CLOSE;
    else if (s->farewell)
        bye(s, s->farewell);
    else if (s->gone)
        bye(s, "The selected mailbox is gone; please reconnect");
    return RUN_MORE;
}

static enum imap_run phase_close(struct imap_session *s)
{
    (void)s;
    return RUN_CLOSE;
}

static enum imap_run (*const phases[])(struct imap_session *s) = {
    [PHASE_READ] = phase_read, [PHASE_SKIP] = phase_skip,   [PHASE_LOOK] = phase_look,
    [PHASE_RUN] = phase_run,   [PHASE_REPLY] = phase_reply, [PHASE_CLOSE] = phase_close,
};

static enum tb_step imap_step(struct tb_conn *c)
{
    enum { TURNS = 8 }; /* phases in one step: a short command from READ to REPLY, and the next one's READ */
    struct imap_session *s = tb_conn_session(c);
    enum imap_run r = RUN_MORE;
    s->conn = s->out.conn = c;
    imap_notify_arrive(s);
    tb_self(tb_conn_worker(c), imap_notify_self(s));
    for (int i = 0; r == RUN_MORE && i < TURNS; i++)
        r = imap_put_full(&s->out) ? RUN_WAIT : phases[s->phase](s);
    tb_self(tb_conn_worker(c), 0);
    imap_out_flush(&s->out);
    return r == RUN_MORE ? STEP_MORE : r == RUN_CLOSE ? STEP_DONE : STEP_WAIT;
}

/* ---- beginning and end ---- */

static void imap_open(struct tb_conn *c)
{
    struct imap_session *s = tb_conn_session(c);
    struct tb_buf b;
    s->conn = s->out.conn = c;
    s->config = tb_conn_config(c)->user;
    s->state = IMAP_NOT_AUTHENTICATED;
    tb_arena_init(&s->arena, IMAP_ARENA_MAX);
    tb_arena_init(&s->sync.arena, IMAP_SYNC_ARENA_MAX);
    tb_conn_input_max(c, IMAP_LINE_MAX + 4096);
    tb_buf_init(&b, 4096);
    imap_capabilities(s, &b);
    imap_puts(&s->out, "* OK [CAPABILITY");
    imap_put(&s->out, tb_buf_all(&b));
    imap_puts(&s->out, "] ");
    imap_puts(&s->out, s->config->hostname);
    imap_puts(&s->out, " Tambo ready (");
    imap_puts(&s->out, tb_conn_id(c));
    imap_puts(&s->out, ")\r\n");
    tb_buf_free(&b);
    imap_out_flush(&s->out);
}

static void farewell(struct tb_conn *c, const char *text)
{
    struct imap_session *s = tb_conn_session(c);
    s->out.conn = c;
    if (!s->mid_response)
        imap_puts(&s->out, text);
    imap_out_flush(&s->out);
}

static void imap_timeout(struct tb_conn *c)
{
    const struct imap_session *s = tb_conn_session(c);
    farewell(c, s->state == IMAP_NOT_AUTHENTICATED ? "* BYE Autologout; no login in time\r\n"
                                                   : "* BYE Autologout; idle for too long\r\n");
}

static void imap_overload(struct tb_conn *c)
{
    farewell(c, "* BYE [UNAVAILABLE] Shutting down, or too many connections; try again\r\n");
}

static void imap_lost(struct tb_conn *c)
{
    struct imap_session *s = tb_conn_session(c);
    s->out.conn = c;
    imap_puts(&s->out, "* BYE [UNAVAILABLE] Storage trouble, what was not answered may not be stored; try again\r\n");
    imap_out_flush(&s->out);
}

static bool imap_middle(const struct tb_conn *c)
{
    const struct imap_session *s = tb_conn_session((struct tb_conn *)(uintptr_t)c); /* looked at only */
    return s->mid_response;
}

static void imap_closed(struct tb_conn *c)
{
    struct imap_session *s = tb_conn_session(c);
    if (s->cmd.cleanup)
        s->cmd.cleanup(s, &s->cmd);
    imap_unselect(s);
    imap_notify_end(s);
    if (s->account)
        tb_account_close(s->account);
    free(s->user);
    tb_arena_free(&s->arena);
    tb_arena_free(&s->sync.arena);
}

const struct tb_proto tb_imap_proto = {
    .name = "imap",
    .alpn = "imap",
    .certificates = true,
    .session_bytes = sizeof(struct imap_session),
    .open = imap_open,
    .step = imap_step,
    .timeout = imap_timeout,
    .overload = imap_overload,
    .lost = imap_lost,
    .middle = imap_middle,
    .leave = imap_leave,
    .close = imap_closed,
};
