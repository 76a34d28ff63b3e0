/*
 * partial.c: PARTIAL of UID FETCH: answer for some of the messages that the set names, counted from either end.
 *
 * Thread: the connection's owner; parsing: any. RFC 9394 3.3, 4.
 */
#include "imap_fetch.h"

/* partial-range = nz-number ":" nz-number / "-" nz-number ":" "-" nz-number */
void imap_partial_parse(struct imap_parser *p, struct imap_partial *out)
{
    imap_sp(p);
    out->from_end = imap_try(p, '-');
    uint32_t x = imap_nz_number(p);
    imap_expect(p, ':');
    if (out->from_end)
        imap_expect(p, '-');
    uint32_t y = imap_nz_number(p);
    out->first = x < y ? x : y;
    out->last = x < y ? y : x;
}

enum tb_rc imap_partial_keep(struct imap_session *s, const struct imap_partial *range, struct tb_uidset *uids)
{
    struct tb_range *v = tb_arena_alloc(&s->arena, (uids->n + 1) * sizeof *v);
    uint64_t count = 0, before = 0, first = range->first, last = range->last;
    size_t n = 0;
    if (!v)
        return TB_LIMIT;
    for (size_t i = 0; i < uids->n; i++) { /* in sequence numbers, since UIDs may be missing */
        const struct tb_range *r = &uids->v[i];
        uint32_t end = r->last == UINT32_MAX ? tb_view_count(s->view) + 1 : tb_view_seqno_ceil(s->view, r->last + 1);
        v[i] = (struct tb_range){tb_view_seqno_ceil(s->view, r->first), end - 1};
        count += end - v[i].first;
    }
    if (range->from_end) {
        first = last < count ? count - last + 1 : 1;
        last = range->first <= count ? count - range->first + 1 : 0;
    }
    for (size_t i = 0; i < uids->n; i++) {
        uint64_t have = (uint64_t)v[i].last + 1 - v[i].first;
        uint64_t from = first > before + 1 ? first - before - 1 : 0;
        uint64_t to = last > before ? last - before : 0;
        before += have;
        to = to < have ? to : have;
        if (from < to)
            v[n++] = (struct tb_range){tb_view_uid(s->view, v[i].first + (uint32_t)from),
                                       tb_view_uid(s->view, v[i].first + (uint32_t)to - 1)};
    }
    *uids = (struct tb_uidset){.v = v, .n = n, .cap = n};
    return TB_OK;
}
