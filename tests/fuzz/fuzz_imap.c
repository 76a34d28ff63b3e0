/*
 * fuzz_imap.c: the imap room's pure parts under libFuzzer. The first byte chooses: commands (framed whole and
 * in pieces, which must agree, then parsed), the head of an APPEND, names in modified UTF-7 and back, a
 * LIST pattern against a name, the text behind a literal of APPEND, or a URL of CATENATE.
 */
#include <stdlib.h>

#include "frontends/imap/imap_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const struct imap_frame_limits limits = {1000, 400, 4, 200};

/* frame: all events of the input as numbers, so that two ways of cutting it can be compared. */
static size_t frame(struct tb_slice in, size_t piece, struct imap_frame *f)
{
    struct imap_literal l;
    size_t have = 0, events = 0;
    *f = (struct imap_frame){0};
    for (;;) {
        enum imap_frame_result r = imap_frame_next(f, &limits, tb_slice(in.ptr, have), &l);
        TB_ASSERT(f->scanned <= have);
        if (r == FRAME_LITERAL && !l.over) {
            imap_frame_literal(f, &l);
            events = events * 31 + l.size + 1;
        } else if (r != FRAME_MORE) {
            return events * 31 + r;
        } else if (have == in.len) {
            return events;
        } else {
            have = in.len - have < piece ? in.len : have + piece;
        }
    }
}

static void fuzz_command(struct tb_slice in, struct tb_arena *arena)
{
    struct imap_frame a, b;
    struct imap_parser p;
    struct imap_cmd cmd;
    size_t piece = in.len > 0 ? (uint8_t)in.ptr[0] % 7 + 1 : 1;
    TB_ASSERT(frame(in, in.len + 1, &a) == frame(in, piece, &b));
    TB_ASSERT(a.line == b.line && a.literals == b.literals);
    imap_parser_init(&p, in, arena);
    bool ok = imap_parse_command(&p, &cmd);
    TB_ASSERT(ok == !p.failed && (ok || p.error) && (!ok || (cmd.verb && cmd.tag.len > 0)));
}

static void fuzz_append(struct tb_slice in, struct tb_arena *arena)
{
    struct imap_parser p;
    struct imap_cmd cmd;
    imap_parser_init(&p, in, arena);
    TB_ASSERT(imap_append_head(&p, &cmd) != APPEND_BAD || p.error || p.p != p.end);
}

static void fuzz_name(struct tb_slice in, struct tb_arena *arena)
{
    struct tb_slice utf8, again;
    struct tb_buf b;
    tb_buf_init(&b, 1 << 20);
    if (imap_name_decode(in, arena, &utf8)) { /* one canonical form: back to the same bytes */
        imap_name_encode(utf8, &b);
        TB_ASSERT(tb_slice_eq(tb_buf_all(&b), in));
    }
    b.len = 0;
    imap_name_encode(in, &b);
    if (!memchr(in.ptr ? in.ptr : "", '\0', in.len))
        TB_ASSERT(imap_name_decode(tb_buf_all(&b), arena, &again));
    tb_buf_free(&b);
}

static void fuzz_pattern(struct tb_slice in, struct tb_arena *arena)
{
    size_t cut = in.len > 0 ? (uint8_t)in.ptr[0] : 0;
    bool never;
    struct imap_pattern *p = imap_pattern_new(tb_slice_sub(in, 1, cut), arena, &never);
    if (p)
        (void)imap_pattern_match(p, tb_slice_sub(in, 1 + cut, in.len));
}

static void fuzz_append_more(struct tb_slice in, struct tb_arena *arena)
{
    struct imap_parser p;
    uint8_t where = in.len > 0 ? (uint8_t)in.ptr[0] % 4 : 0;
    imap_parser_init(&p, tb_slice_sub(in, 1, in.len), arena);
    const struct imap_append_step *x = imap_append_more(&p, &where, in.len > 0 && (uint8_t)in.ptr[0] & 0x80);
    TB_ASSERT(p.failed ? p.error != NULL : where > 0);
    for (; x && x->next; x = x->next)
        TB_ASSERT(x->what == APPEND_NEXT || x->what == APPEND_URL); /* the others end a text */
    TB_ASSERT(!x || x->what == APPEND_BYTES || x->what == APPEND_END);
}

static void fuzz_url(struct tb_slice in, struct tb_arena *arena)
{
    size_t cut = in.len > 0 ? (uint8_t)in.ptr[0] : 0;
    struct imap_url url;
    if (imap_url_parse(tb_slice_sub(in, 1 + cut, in.len), tb_slice_sub(in, 1, cut), arena, &url))
        TB_ASSERT(url.uid > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static void (*const ways[])(struct tb_slice in, struct tb_arena * arena) = {
        fuzz_command, fuzz_append, fuzz_name, fuzz_pattern, fuzz_append_more, fuzz_url};
    struct tb_arena arena;
    if (n == 0)
        return 0;
    tb_arena_init(&arena, 4 << 20);
    ways[bytes[0] % TB_ARRAY_LEN(ways)](tb_slice(bytes + 1, n - 1), &arena);
    tb_arena_free(&arena);
    return 0;
}
