/*
 * generate.c: mail made from a seed, for machines without real mail: plain text, HTML with its plain alternative,
 * base64 attachments, in sizes and proportions roughly as measured on public lists (mean about 14 KB, most of it in few
 * messages). The same seed gives the same bytes everywhere: integers and plain additions only.
 *
 * All text is our own. RFC 5322, RFC 2045, RFC 2046.
 */
#include <stdio.h>

#include "bench/bench.h"

enum { BODY_BYTES_MAX = 4 << 20, LINE_COLUMNS = 72 };

static const char *const words[] = {
    "the",      "of",        "and",       "to",        "a",         "in",         "that",       "is",
    "for",      "on",        "it",        "with",      "as",        "we",         "be",         "this",
    "at",       "are",       "you",       "by",        "not",       "have",       "from",       "or",
    "an",       "was",       "will",      "can",       "if",        "but",        "has",        "they",
    "all",      "one",       "about",     "please",    "message",   "storehouse", "runner",     "road",
    "valley",   "bridge",    "letter",    "parcel",    "morning",   "evening",    "meeting",    "schedule",
    "update",   "question",  "answer",    "review",    "patch",     "release",    "branch",     "version",
    "server",   "client",    "mailbox",   "folder",    "invoice",   "order",      "customer",   "account",
    "project",  "report",    "figures",   "budget",    "quarter",   "market",     "price",      "contract",
    "office",   "travel",    "ticket",    "train",     "hotel",     "weather",    "river",      "mountain",
    "harvest",  "potato",    "maize",     "llama",     "wool",      "colour",     "pattern",    "history",
    "museum",   "music",     "concert",   "family",    "school",    "teacher",    "student",    "lesson",
    "language", "grammar",   "library",   "chapter",   "author",    "editor",     "paper",      "printer",
    "network",  "cable",     "switch",    "router",    "packet",    "latency",    "memory",     "buffer",
    "thread",   "process",   "kernel",    "driver",    "device",    "signal",     "sample",     "filter",
    "antenna",  "radio",     "frequency", "measure",   "result",    "error",      "warning",    "problem",
    "solution", "change",    "because",   "however",   "therefore", "between",    "without",    "before",
    "after",    "during",    "several",   "different", "important", "possible",   "available",  "following",
    "previous", "current",   "another",   "together",  "perhaps",   "probably",   "certainly",  "usually",
    "already",  "kilometre", "afternoon", "neighbour", "workshop",  "carpenter",  "kitchen",    "garden",
    "orchard",  "lantern",   "compass",   "envelope",  "signature", "appendix",   "attachment", "document",
    "drawing",  "picture",   "summary",   "proposal",  "decision",  "committee",  "election",   "candidate",
    "council",  "district",  "province",  "capital",   "harbour",   "lighthouse", "island",
};
static const char *const names[] = {
    "Chaska", "Illari", "Wayra", "Sami", "Killa", "Amaru", "Inti", "Urpi", "Rumi", "Nina", "Kusi", "Yaku",
};

static uint64_t below(uint64_t *r, uint64_t n)
{
    return bench_random(r) % n;
}

/* Sizes: median * 2^(spread * z / 256), z about normal (a sum of 12 uniform numbers), by integer steps and a chord
 * between. */
static size_t draw_size(uint64_t *r, size_t median, int spread)
{
    int64_t z = 0;
    for (int i = 0; i < 12; i++)
        z += (int64_t)below(r, 256);
    int64_t power = (z - 12 * 128) * spread / 256; /* in 1/256 */
    int64_t whole = power >= 0 ? power / 256 : -((-power + 255) / 256), part = power - whole * 256;
    size_t size = median + median * (size_t)part / 256;
    size = whole >= 0 ? size << (whole > 10 ? 10 : whole) : size >> (whole < -10 ? 10 : -whole);
    return size < BODY_BYTES_MAX ? size : BODY_BYTES_MAX;
}

/* Low indexes come more often, as words do. */
static const char *word(uint64_t *r)
{
    uint64_t a = below(r, TB_ARRAY_LEN(words)), b = below(r, TB_ARRAY_LEN(words));
    return words[a < b ? a : b];
}

static void put_hex(struct tb_buf *out, uint64_t v)
{
    char text[20];
    snprintf(text, sizeof text, "%llx", (unsigned long long)v);
    tb_buf_str(out, text);
}

/* Text of about size bytes in lines; line_end is "\r\n" or, in HTML, "<br>\r\n". */
static void put_text(struct tb_buf *out, uint64_t *r, size_t size, const char *line_end)
{
    size_t stop = out->len + size, column = 0;
    while (out->len < stop && !out->failed) {
        size_t start = out->len;
        uint64_t kind = below(r, 24);
        if (kind == 0)
            put_hex(out, bench_random(r) >> below(r, 48));
        else if (kind == 1)
            tb_buf_u64(out, below(r, 100000));
        else
            tb_buf_str(out, word(r));
        column += out->len - start + 1;
        if (column > LINE_COLUMNS || below(r, 40) == 0) {
            tb_buf_str(out, line_end);
            if (below(r, 5) == 0)
                tb_buf_str(out, "> ");
            column = 0;
        } else {
            tb_buf_str(out, below(r, 12) == 0 ? ", " : " ");
        }
    }
    tb_buf_str(out, "\r\n");
}

/* base64 of random bytes is random base64: RFC 2045 6.8, lines of 76. */
static void put_base64(struct tb_buf *out, uint64_t *r, size_t size)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t done = 0; done < size; done += 76) {
        char line[80];
        uint64_t bits = 0;
        for (int i = 0; i < 76; i++, bits >>= 6) {
            if (i % 10 == 0)
                bits = bench_random(r);
            line[i] = alphabet[bits & 63];
        }
        tb_buf_put(out, line, 76);
        tb_buf_str(out, "\r\n");
    }
}

static void put_person(struct tb_buf *out, uint64_t *r, const char *field)
{
    const char *first = names[below(r, TB_ARRAY_LEN(names))], *last = words[below(r, TB_ARRAY_LEN(words))];
    tb_buf_str(out, field);
    tb_buf_str(out, first);
    tb_buf_char(out, ' ');
    tb_buf_str(out, last);
    tb_buf_str(out, " <");
    tb_buf_str(out, last);
    tb_buf_u64(out, below(r, 500));
    tb_buf_str(out, "@mail");
    tb_buf_u64(out, below(r, 40));
    tb_buf_str(out, ".example.org>\r\n");
}

static void put_date(struct tb_buf *out, uint64_t *r)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    char text[64];
    snprintf(text, sizeof text, "%u %s 2023 %02u:%02u:%02u +0%u00", (unsigned)below(r, 28) + 1, months[below(r, 12)],
             (unsigned)below(r, 24), (unsigned)below(r, 60), (unsigned)below(r, 60), (unsigned)below(r, 10));
    tb_buf_str(out, text);
}

static void put_received(struct tb_buf *out, uint64_t *r)
{
    tb_buf_str(out, "Received: from relay");
    tb_buf_u64(out, below(r, 90));
    tb_buf_str(out, ".example.net (relay.example.net [192.0.2.");
    tb_buf_u64(out, below(r, 255));
    tb_buf_str(out, "])\r\n\tby mx");
    tb_buf_u64(out, below(r, 9));
    tb_buf_str(out, ".example.org with ESMTPS id ");
    put_hex(out, bench_random(r));
    tb_buf_str(out, ";\r\n\t");
    put_date(out, r);
    tb_buf_str(out, "\r\n");
}

static void put_header(struct tb_buf *out, uint64_t *r)
{
    for (uint64_t hops = 1 + below(r, 5); hops > 0; hops--)
        put_received(out, r);
    tb_buf_str(out, "Date: ");
    put_date(out, r);
    tb_buf_str(out, "\r\n");
    put_person(out, r, "From: ");
    put_person(out, r, "To: ");
    if (below(r, 3) == 0)
        put_person(out, r, "Cc: ");
    tb_buf_str(out, "Subject: ");
    for (uint64_t n = 2 + below(r, 7); n > 0; n--) {
        tb_buf_str(out, word(r));
        tb_buf_char(out, ' ');
    }
    tb_buf_str(out, "\r\nMessage-ID: <");
    put_hex(out, bench_random(r));
    put_hex(out, bench_random(r));
    tb_buf_str(out, "@mail.example.org>\r\n");
    if (below(r, 2) == 0) {
        tb_buf_str(out, "In-Reply-To: <");
        put_hex(out, bench_random(r));
        tb_buf_str(out, "@mail.example.org>\r\n");
    }
    tb_buf_str(out, "MIME-Version: 1.0\r\n");
}

static void put_part(struct tb_buf *out, const char *boundary, const char *type)
{
    tb_buf_str(out, "\r\n--");
    tb_buf_str(out, boundary);
    tb_buf_str(out, "\r\nContent-Type: ");
    tb_buf_str(out, type);
    tb_buf_str(out, "\r\n");
}

static void put_multipart(struct tb_buf *out, uint64_t *r, bool attachment)
{
    char boundary[40];
    snprintf(boundary, sizeof boundary, "=_part_%016llx", (unsigned long long)bench_random(r));
    tb_buf_str(out, attachment ? "Content-Type: multipart/mixed; boundary=\""
                               : "Content-Type: multipart/alternative;\r\n boundary=\"");
    tb_buf_str(out, boundary);
    tb_buf_str(out, "\"\r\n");
    put_part(out, boundary, "text/plain; charset=us-ascii");
    tb_buf_str(out, "\r\n");
    put_text(out, r, draw_size(r, 1800, 256), "\r\n");
    if (attachment) {
        put_part(out, boundary, "application/octet-stream; name=\"drawing.bin\"");
        tb_buf_str(
            out,
            "Content-Disposition: attachment; filename=\"drawing.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        put_base64(out, r, draw_size(r, 44000, 350));
    } else {
        put_part(out, boundary, "text/html; charset=us-ascii");
        tb_buf_str(out, "\r\n<html><head><style>p { margin: 0 }</style></head><body><p>\r\n");
        put_text(out, r, draw_size(r, 11000, 256), "<br>\r\n");
        tb_buf_str(out, "</p></body></html>\r\n");
    }
    tb_buf_str(out, "\r\n--");
    tb_buf_str(out, boundary);
    tb_buf_str(out, "--\r\n");
}

enum tb_rc bench_corpus_generate(struct bench_corpus *c, uint64_t seed, uint32_t n, struct tb_error *err)
{
    struct tb_buf out;
    tb_buf_init(&out, (size_t)BODY_BYTES_MAX * 4);
    enum tb_rc rc = TB_OK;
    for (uint32_t i = 0; i < n && rc == TB_OK; i++) {
        uint64_t r = seed ^ ((uint64_t)i << 32), kind = below(&r, 100);
        out.len = 0;
        put_header(&out, &r);
        if (kind < 76) {
            tb_buf_str(&out, "Content-Type: text/plain; charset=us-ascii\r\n\r\n");
            put_text(&out, &r, draw_size(&r, 3600, 330), "\r\n");
        } else {
            put_multipart(&out, &r, kind >= 92);
        }
        rc = out.failed ? TB_LIMIT : bench_corpus_add(c, tb_buf_all(&out));
    }
    tb_buf_free(&out);
    return rc == TB_OK ? TB_OK : tb_error_set(err, rc, 0, "no memory for the generated mail");
}
