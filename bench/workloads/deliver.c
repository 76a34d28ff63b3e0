/*
 * deliver.c: what a mail exchanger does: one mail transaction after the other, by LMTP or SMTP.
 *
 * Messages go in the corpus's order and recipients round the user list, so two servers that are compared get the same
 * mail for the same people. Message data is sent from the corpus itself, in one piece.
 *
 * RFC 5321 (SMTP), RFC 2033 (LMTP: one reply per recipient after the data), RFC 2920 (pipelining), RFC 6152 (8BITMIME),
 * RFC 1870 (SIZE).
 */
#include <stdio.h>

#include "bench/bench.h"

enum { GREETING, HELLO, MAIL, RCPT, DATA, RESULT };

static void open_session(struct bench_client *c)
{
    c->literals = false;
    c->smtp = (struct bench_smtp){.state = GREETING};
}

static void put_mail(struct bench_client *c)
{
    tb_buf_str(&c->out, "MAIL FROM:<sender@bench.example.org>");
    if (c->smtp.size) {
        tb_buf_str(&c->out, " SIZE=");
        tb_buf_u64(&c->out, c->smtp.message->content.len);
    }
    if (c->smtp.eight_bit && c->smtp.message->eight_bit)
        tb_buf_str(&c->out, " BODY=8BITMIME");
    tb_buf_str(&c->out, "\r\n");
}

static void put_rcpt(struct bench_client *c, uint32_t n)
{
    const struct bench_options *o = &c->thread->bench->options;
    tb_buf_str(&c->out, "RCPT TO:<");
    tb_buf_str(&c->out, o->users[(c->smtp.user + (size_t)n) % o->user_n].name);
    tb_buf_str(&c->out, ">\r\n");
}

static void begin(struct bench_client *c)
{
    const struct bench *b = c->thread->bench;
    const struct bench_options *o = &b->options;
    uint64_t turn = (c->thread->turn - 1) * o->threads + c->thread->index;
    struct bench_smtp *s = &c->smtp;
    s->message = &b->corpus.v[turn % b->corpus.n];
    s->user = (uint32_t)(turn * o->recipients % o->user_n);
    s->recipients_done = s->accepted = s->replies = 0;
    s->state = MAIL;
    put_mail(c);
    if (o->pipelined) {
        for (uint32_t i = 0; i < o->recipients; i++)
            put_rcpt(c, i);
        tb_buf_str(&c->out, "DATA\r\n");
    }
    bench_client_send(c);
}

/* The code of a reply's last line, 0 for a line before it, -1 if malformed (RFC 5321 4.2.1). */
static int reply_code(struct tb_slice text)
{
    if (text.len < 3)
        return -1;
    for (int i = 0; i < 3; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return -1;
    }
    if (text.ptr[0] < '2' || text.ptr[0] > '5')
        return -1;
    if (text.len > 3 && text.ptr[3] == '-')
        return 0;
    if (text.len > 3 && text.ptr[3] != ' ')
        return -1;
    return (text.ptr[0] - '0') * 100 + (text.ptr[1] - '0') * 10 + (text.ptr[2] - '0');
}

static void note_extension(struct bench_client *c)
{
    struct tb_slice keyword = tb_slice_sub(c->reply.text, 4, c->reply.text.len);
    if (c->smtp.state != HELLO)
        return;
    if (tb_slice_istarts(keyword, TB_SLICE("8BITMIME")))
        c->smtp.eight_bit = true;
    else if (tb_slice_istarts(keyword, TB_SLICE("SIZE")))
        c->smtp.size = true;
}

static void after_greeting(struct bench_client *c)
{
    tb_buf_str(&c->out, c->thread->bench->options.smtp ? "EHLO bench.example.org\r\n" : "LHLO bench.example.org\r\n");
    c->smtp.state = HELLO;
    bench_client_send(c);
}

/* The next recipient or DATA; where pipelined, both were sent with MAIL. */
static void after_mail_or_rcpt(struct bench_client *c)
{
    const struct bench_options *o = &c->thread->bench->options;
    bool more = c->smtp.recipients_done < o->recipients;
    c->smtp.state = more ? RCPT : DATA;
    if (o->pipelined)
        return;
    if (more)
        put_rcpt(c, c->smtp.recipients_done);
    else
        tb_buf_str(&c->out, "DATA\r\n");
    bench_client_send(c);
}

static void on_result(struct bench_client *c, int code)
{
    const struct bench_options *o = &c->thread->bench->options;
    struct bench_smtp *s = &c->smtp;
    s->replies++;
    if (code == 250)
        s->accepted += o->smtp ? o->recipients : 1;
    else
        bench_client_note(c, "message refused", c->reply.text);
    if (s->replies < (o->smtp ? 1 : o->recipients))
        return;
    if (s->accepted > 0)
        bench_client_done(c, s->accepted, s->message->content.len);
    else
        bench_client_next(c);
}

static void reply(struct bench_client *c)
{
    static const int expected[] = {[GREETING] = 220, [HELLO] = 250, [MAIL] = 250, [RCPT] = 250, [DATA] = 354};
    struct bench_smtp *s = &c->smtp;
    int code = reply_code(c->reply.text);
    if (code < 0) {
        bench_client_wrong(c, "malformed reply", tb_slice_sub(c->reply.text, 0, 80));
        return;
    }
    if (code == 0 || s->state == HELLO)
        note_extension(c);
    if (code == 0)
        return;
    if (c->phase == BENCH_RESTING) {
        bench_client_lost(c, "unexpected reply", c->reply.text);
        return;
    }
    if (s->state != RESULT && code != expected[s->state]) {
        bench_client_lost(c, "refused", c->reply.text);
        return;
    }
    switch (s->state) {
    case GREETING:
        after_greeting(c);
        break;
    case HELLO:
        bench_client_ready(c);
        break;
    case RCPT:
        s->recipients_done++; /* fallthrough */
    case MAIL:
        after_mail_or_rcpt(c);
        break;
    case DATA:
        s->state = RESULT;
        bench_client_send_bytes(c, s->message->wire);
        break;
    default:
        on_result(c, code);
        break;
    }
}

static void leave(struct bench_client *c)
{
    tb_buf_str(&c->out, "QUIT\r\n");
}

const struct bench_workload bench_deliver = {
    .name = "deliver",
    .summary = "mail transactions by LMTP or SMTP",
    .help = "Each connection sends one message after the other to the users in turn, --recipients of them at a time.\n"
            "LMTP unless --smtp is given. --pipelined sends MAIL, RCPT and DATA in one piece (RFC 2920).\n"
            "An operation is one mail transaction; figures per message are per accepted recipient.\n"
            "Needs --corpus or --seeded. A message with NUL or a bare CR in it is left out.\n",
    .operation = "transaction",
    .port = 24,
    .needs_corpus = true,
    .open = open_session,
    .reply = reply,
    .begin = begin,
    .leave = leave,
};
