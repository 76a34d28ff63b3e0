/*
 * maildrop.c: what POP3 says about the maildrop and what it marks in it.
 *
 * The maildrop is a view that is never refreshed, so numbers hold still while other sessions deliver and expunge
 * (RFC 1939 3). A message that another session has removed is treated as if marked: not listed, not counted, -ERR when
 * asked for.
 * Sizes are read from the rows when asked for; nothing is kept per message but one bit, once something is marked.
 * Thread: the account's owner.
 */
#include <stdlib.h>

#include "frontends/pop3/session.h"

static bool is_marked(const struct pop3 *p, uint32_t seqno)
{
    return p->deleted && p->deleted[(seqno - 1) / 8] & 1u << (seqno - 1) % 8;
}

bool pop3_message(struct tb_conn *c, struct pop3 *p, struct tb_slice arg, uint32_t *seqno)
{
    uint64_t n;
    if (!tb_slice_u64(arg, UINT32_MAX, &n) || n == 0) {
        tb_conn_puts(c, "-ERR that is not a message number\r\n");
        return false;
    }
    if (n > tb_view_count(p->view)) {
        tb_conn_printf(c, "-ERR no such message, there are %u\r\n", tb_view_count(p->view));
        return false;
    }
    *seqno = (uint32_t)n;
    if (is_marked(p, *seqno)) {
        tb_conn_printf(c, "-ERR message %u is marked for deletion\r\n", *seqno);
        return false;
    }
    return true;
}

static bool find_row(struct tb_conn *c, struct pop3 *p, struct tb_slice arg, uint32_t *seqno, struct tb_row *row)
{
    if (!pop3_message(c, p, arg, seqno))
        return false;
    if (tb_view_row(p->view, tb_view_uid(p->view, *seqno), row) == TB_OK)
        return true;
    tb_conn_printf(c, "-ERR message %u was removed by another session\r\n", *seqno);
    return false;
}

enum tb_step pop3_stat(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)arg;
    struct tb_row rows[POP3_SCAN_ROWS];
    uint64_t bytes = 0;
    uint32_t count = 0, uid = 1;
    for (size_t n; uid && (n = tb_view_scan(p->view, uid, rows, POP3_SCAN_ROWS)) > 0; uid = rows[n - 1].uid + 1)
        for (size_t i = 0; i < n; i++) {
            if (p->deleted_n && is_marked(p, tb_view_seqno(p->view, rows[i].uid)))
                continue;
            count++;
            bytes += rows[i].size;
        }
    tb_conn_printf(c, "+OK %u %llu\r\n", count, (unsigned long long)bytes);
    return STEP_MORE;
}

/* ---- LIST, UIDL ---- */

static void put_line(struct tb_conn *c, const struct pop3 *p, uint32_t seqno, const struct tb_row *row)
{
    if (p->uidl)
        tb_conn_printf(c, "%u %u.%u\r\n", seqno, p->uidvalidity, row->uid);
    else
        tb_conn_printf(c, "%u %u\r\n", seqno, row->size);
}

static enum tb_step list(struct tb_conn *c, struct pop3 *p, struct tb_slice arg, bool uidl)
{
    p->uidl = uidl;
    if (arg.len) {
        struct tb_row row;
        uint32_t seqno;
        if (find_row(c, p, arg, &seqno, &row)) {
            tb_conn_puts(c, "+OK ");
            put_line(c, p, seqno, &row);
        }
        return STEP_MORE;
    }
    tb_conn_puts(c, uidl ? "+OK unique-id listing follows\r\n" : "+OK scan listing follows\r\n");
    p->next_uid = 1;
    p->state = POP3_LISTING;
    return STEP_MORE;
}

enum tb_step pop3_list(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    return list(c, p, arg, false);
}

/* RFC 1939 7: 1 to 70 characters of 0x21..0x7E, never used again: "uidvalidity.uid" is both. */
enum tb_step pop3_uidl(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    return list(c, p, arg, true);
}

enum tb_step pop3_listing_step(struct tb_conn *c, struct pop3 *p)
{
    if (tb_conn_full(c))
        return STEP_WAIT;
    struct tb_row rows[POP3_SCAN_ROWS];
    size_t n = p->next_uid ? tb_view_scan(p->view, p->next_uid, rows, POP3_SCAN_ROWS) : 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t seqno = tb_view_seqno(p->view, rows[i].uid);
        if (!is_marked(p, seqno))
            put_line(c, p, seqno, &rows[i]);
    }
    if (n) {
        p->next_uid = rows[n - 1].uid + 1; /* 0 after the last UID there can be */
        return STEP_MORE;
    }
    tb_conn_puts(c, ".\r\n");
    p->state = POP3_TRANSACTION;
    return STEP_MORE;
}

/* ---- DELE, RSET, the UPDATE state ---- */

enum tb_step pop3_dele(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    struct tb_row row;
    uint32_t seqno;
    if (!find_row(c, p, arg, &seqno, &row))
        return STEP_MORE;
    if (!p->deleted)
        p->deleted = calloc((tb_view_count(p->view) + 7u) / 8u, 1);
    if (!p->deleted) {
        tb_conn_puts(c, "-ERR [SYS/TEMP] out of memory\r\n");
        return STEP_MORE;
    }
    p->deleted[(seqno - 1) / 8] |= (uint8_t)(1u << (seqno - 1) % 8);
    p->deleted_n++;
    tb_conn_printf(c, "+OK message %u marked\r\n", seqno);
    return STEP_MORE;
}

enum tb_step pop3_rset(struct tb_conn *c, struct pop3 *p, struct tb_slice arg)
{
    (void)arg;
    free(p->deleted);
    p->deleted = NULL;
    p->deleted_n = 0;
    tb_conn_puts(c, "+OK nothing is marked\r\n");
    return STEP_MORE;
}

static void update_done(struct tb_op *op)
{
    struct tb_conn *c = op->user;
    struct pop3 *p = tb_conn_session(c);
    p->changing = false;
    tb_conn_resume(c);
}

enum tb_step pop3_update_step(struct tb_conn *c, struct pop3 *p)
{
    if (p->changing)
        return STEP_WAIT;
    if (p->change_op.rc == TB_OK)
        tb_conn_puts(c, "+OK goodbye\r\n");
    else
        tb_conn_puts(c, "-ERR [SYS/TEMP] not all marked messages were removed\r\n");
    return STEP_DONE;
}

enum tb_step pop3_update(struct tb_conn *c, struct pop3 *p)
{
    struct tb_uidset uids;
    uint32_t count = p->deleted_n ? tb_view_count(p->view) : 0;
    p->state = POP3_UPDATE;
    p->change_op = (struct tb_op){.done = update_done, .user = c};
    tb_uidset_init(&uids);
    for (uint32_t seqno = 1; seqno <= count; seqno++) {
        uint32_t uid = is_marked(p, seqno) ? tb_view_uid(p->view, seqno) : 0;
        if (uid)
            tb_uidset_add(&uids, uid, uid);
    }
    if (uids.failed)
        p->change_op.rc = TB_LIMIT;
    else if (uids.n > 0)
        p->changing = !tb_change_start(p->view, TB_CHANGE_DELETE, &uids, 0, &p->change_op, &p->change);
    tb_uidset_free(&uids);
    return STEP_MORE;
}
