/*
 * fetch.c: what clients read: the headers' digest of a first sync, all bodies, one body at random.
 *
 * Every response is counted and its frame checked; the sampled ones are parsed to their last byte, and their bodies
 * must be messages of the corpus, byte for byte, behind the trace block of delivery. RFC 9051 6.4.5, 7.5.2.
 */
#include <stdio.h>

#include "bench/bench.h"

enum { ENVELOPE_FIELDS = 10 };

static void begin(struct bench_client *c, const char *command)
{
    c->imap.got = 0;
    c->imap.bytes = 0;
    bench_imap_command(c, command);
}

static void begin_headers(struct bench_client *c)
{
    begin(c, "UID FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE)");
}

static void begin_bodies(struct bench_client *c)
{
    begin(c, "UID FETCH 1:* (UID BODY.PEEK[])");
}

static void begin_random(struct bench_client *c)
{
    char command[64];
    uint32_t uid = c->imap.uids[bench_random(&c->thread->random) % c->imap.uid_n];
    snprintf(command, sizeof command, "UID FETCH %u (UID BODY.PEEK[])", uid);
    begin(c, command);
}

/* The tagged OK: complete if as many messages came as there are. */
static void finish(struct bench_client *c, uint64_t expected)
{
    char text[96];
    if (c->imap.got == expected) {
        bench_client_done(c, c->imap.got, c->imap.bytes);
        return;
    }
    snprintf(text, sizeof text, "%llu of %llu messages came", (unsigned long long)c->imap.got,
             (unsigned long long)expected);
    bench_client_wrong(c, text, (struct tb_slice){0});
}

static bool headers_complete(const struct bench_fetch *f)
{
    uint64_t n;
    return tb_slice_u64(f->uid, UINT32_MAX, &n) && n > 0 && tb_slice_u64(f->size, UINT64_MAX, &n) &&
           bench_imap_list_count(f->flags) >= 0 && bench_imap_list_count(f->envelope) == ENVELOPE_FIELDS &&
           bench_imap_list_count(f->bodystructure) >= 2;
}

static void reply_headers(struct bench_client *c)
{
    static const char envelope[] = "ENVELOPE (";
    struct tb_slice text = c->reply.text;
    struct bench_fetch f;
    if (bench_imap_common(c))
        return;
    if (bench_imap_tagged(c)) {
        finish(c, c->imap.uid_n);
    } else if (bench_imap_is_fetch(text) && memmem(text.ptr, text.len, envelope, sizeof envelope - 1) != NULL) {
        if (c->reply.sampled && (!bench_imap_parse_fetch(text, &f) || !headers_complete(&f))) {
            bench_client_wrong(c, "malformed FETCH response", tb_slice_sub(text, 0, 160));
            return;
        }
        c->imap.got++;
        c->imap.bytes += text.len + 2;
    }
}

/* A response with a body: check it as far as it was kept. */
static bool body_good(struct bench_client *c, const char **why)
{
    const struct bench_corpus *corpus = &c->thread->bench->corpus;
    struct bench_fetch f;
    if (!c->reply.sampled && c->reply.literals > 0)
        return true;
    *why = "malformed FETCH response";
    if (!bench_imap_parse_fetch(c->reply.text, &f) || !f.has_body || f.uid.ptr == NULL)
        return false;
    *why = "a body differs from every message of the corpus";
    return corpus->n == 0 || bench_corpus_has(corpus, f.body);
}

static void reply_bodies(struct bench_client *c)
{
    static const char body[] = "BODY[]";
    struct tb_slice text = c->reply.text;
    const char *why = NULL;
    if (bench_imap_common(c))
        return;
    if (bench_imap_tagged(c)) {
        finish(c, c->thread->bench->options.workload == &bench_random_body ? 1 : c->imap.uid_n);
    } else if (bench_imap_is_fetch(text) && memmem(text.ptr, text.len, body, sizeof body - 1) != NULL) {
        if (!body_good(c, &why)) {
            bench_client_wrong(c, why, tb_slice_sub(text, 0, 80));
            return;
        }
        c->imap.got++;
        c->imap.bytes += c->reply.literal_bytes;
    }
}

const struct bench_workload bench_fetch_headers = {
    .name = "fetch-headers",
    .summary = "a first sync's digest of the whole mailbox, over and over",
    .help = "Each connection logs in as one user, selects the mailbox and repeats\n"
            "UID FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE).\n"
            "An operation is one such command; figures per message are per FETCH response.\n",
    .operation = "fetch",
    .port = 143,
    .imap = true,
    .open = bench_imap_open,
    .reply = reply_headers,
    .begin = begin_headers,
    .leave = bench_imap_leave,
    .close = bench_imap_close,
};

const struct bench_workload bench_fetch_bodies = {
    .name = "fetch-bodies",
    .summary = "all bodies of the mailbox, over and over",
    .help = "Each connection logs in as one user, selects the mailbox and repeats UID FETCH 1:* (UID BODY.PEEK[]).\n"
            "With --corpus or --seeded (as given to deliver), sampled bodies are compared byte for byte.\n",
    .operation = "fetch",
    .port = 143,
    .imap = true,
    .open = bench_imap_open,
    .reply = reply_bodies,
    .begin = begin_bodies,
    .leave = bench_imap_leave,
    .close = bench_imap_close,
};

const struct bench_workload bench_random_body = {
    .name = "random-body",
    .summary = "one body, chosen at random, over and over",
    .help =
        "Each connection logs in as one user, selects the mailbox and repeats UID FETCH n (UID BODY.PEEK[]) with n\n"
        "chosen evenly from the mailbox. With --corpus or --seeded, sampled bodies are compared byte for byte.\n",
    .operation = "fetch",
    .port = 143,
    .imap = true,
    .open = bench_imap_open,
    .reply = reply_bodies,
    .begin = begin_random,
    .leave = bench_imap_leave,
    .close = bench_imap_close,
};
