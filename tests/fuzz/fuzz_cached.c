/*
 * fuzz_cached.c: the stored envelope, structure and table of parts of a message, as an index might hold them: read by
 * their readers, and by an IMAP session that fetches sections by them and searches in them. Input: the inflated entry.
 */
#include "world.h"

#include <tambo/message.h>

static void read_entry(struct fuzz_world *x, struct tb_account *a)
{
    struct tb_view *v;
    struct tb_cached c;
    struct tb_arena arena;
    struct tb_envelope e;
    struct tb_buf body;
    struct tb_part p;
    size_t cursor = 0;
    (void)x;
    TB_ASSERT(tb_view_open(a, TB_MBOX_INBOX, &v) == TB_OK);
    if (tb_cached_get(v, 1, &c) == TB_OK) {
        tb_arena_init(&arena, 4 << 20);
        tb_buf_init(&body, 4 << 20);
        (void)!tb_envelope_read(c.envelope, &arena, &e);
        (void)!tb_body_write(c.bodystructure, &body);
        while (tb_parts_next(c.parts, &cursor, &p) == TB_OK)
            TB_ASSERT(p.index < TB_MIME_PARTS_MAX);
        tb_buf_free(&body);
        tb_arena_free(&arena);
    }
    tb_view_close(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char ask[] =
        "c FETCH 1 (ENVELOPE BODY BODYSTRUCTURE BODY.PEEK[1] BODY.PEEK[2.HEADER] BODY.PEEK[2.1])\r\n"
        "d FETCH 1 (BODY.PEEK[2.TEXT]<1.5> BODY.PEEK[1.MIME] RFC822.SIZE)\r\n"
        "e SEARCH OR SUBJECT x FROM y\r\nf SEARCH BODY one\r\n";
    struct tb_buf out;
    struct tb_account *a;
    if (n > TB_CACHE_CLEN_MAX)
        return 0;
    struct fuzz_world *x = fuzz_world();
    struct tb_shard *s = x->store->shard[x->ann.shard];
    struct tb_range one = {1, 1};
    struct tb_disk_cache head = {.uid = 1, .clen = (uint16_t)n, .raw_len = (uint32_t)n, .dict = 0xffff};
    for (uint32_t uid = 2; uid < 4; uid++) /* the block's order: only one entry is left in it */
        tb_cache_remove(s->ix, x->ann.acct, TB_MBOX_INBOX, &(struct tb_range){uid, uid}, 1);
    tb_cache_remove(s->ix, x->ann.acct, TB_MBOX_INBOX, &one, 1);
    if (n > 0)
        tb_cache_append(s->ix, x->ann.acct, TB_MBOX_INBOX, &head, bytes);
    TB_ASSERT(tb_account_open(x->w, x->ann, &a) == TB_OK);
    read_entry(x, a);
    tb_account_close(a);
    fuzz_talk(PORT_IMAP, TB_SLICE("a LOGIN ann secret\r\nb EXAMINE INBOX\r\n"), tb_slice(ask, sizeof(ask) - 1), 0,
              &out);
    TB_ASSERT(out.len > 0);
    tb_buf_free(&out);
    return 0;
}
