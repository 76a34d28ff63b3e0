/*
 * limit.c: how many messages one command may work on, where the configuration says so: of a set the highest are taken,
 * and the client is told where to go on.
 *
 * Thread: the connection's owner. RFC 9738.
 */
#include "imap_fetch.h"

/* count: messages of the view that a resolved set means. */
static uint64_t count(struct imap_session *s, const struct tb_uidset *uids)
{
    uint64_t n = 0;
    for (size_t i = 0; i < uids->n; i++) {
        const struct tb_range *r = &uids->v[i];
        uint32_t end = r->last == UINT32_MAX ? tb_view_count(s->view) + 1 : tb_view_seqno_ceil(s->view, r->last + 1);
        n += end - tb_view_seqno_ceil(s->view, r->first);
    }
    return n;
}

enum tb_rc imap_limit_keep(struct imap_session *s, uint32_t limit, struct tb_uidset *uids, uint32_t *last)
{
    const struct imap_partial highest = {.from_end = true, .first = 1, .last = limit};
    *last = 0;
    if (limit == 0 || count(s, uids) <= limit)
        return TB_OK;
    enum tb_rc rc = imap_partial_keep(s, &highest, uids);
    if (rc == TB_OK)
        *last = uids->v[0].first;
    return rc;
}

/* code: "[MESSAGELIMIT n uid] ", RFC 9738 5. */
static void code(struct tb_buf *b, uint32_t limit, uint32_t last)
{
    tb_buf_str(b, "[MESSAGELIMIT ");
    tb_buf_u64(b, limit);
    if (last > 0) {
        tb_buf_char(b, ' ');
        tb_buf_u64(b, last);
    }
    tb_buf_str(b, "] ");
}

enum imap_run imap_limit_reply(struct imap_session *s, struct imap_cmd *cmd, bool done, uint32_t limit, uint32_t last,
                               const char *text)
{
    struct tb_buf b;
    tb_buf_init(&b, 256);
    tb_buf_str(&b, done ? "OK " : "NO ");
    code(&b, limit, last);
    tb_buf_str(&b, text);
    return imap_reply_buf(s, cmd, &b);
}

void imap_limit_tell(struct imap_session *s, uint32_t limit, uint32_t last)
{
    struct tb_buf b;
    tb_buf_init(&b, 256);
    tb_buf_str(&b, "* NO ");
    code(&b, limit, last);
    tb_buf_str(&b, "Only the last messages were worked on\r\n");
    imap_put(&s->out, tb_buf_all(&b));
    tb_buf_free(&b);
}
