/*
 * search_text.c: matching text against the BODY and TEXT keys of a search program.
 *
 * Text is folded into a window that keeps as many of the last bytes as the longest needle may need, so pieces of any
 * size give the same answer. Pure. RFC 9051 6.4.4.
 */
#include "engine/store/search_internal.h"

/* Try the open needles on folded text. body: BODY keys too, not TEXT alone. */
static bool try_needles(const struct tb_search_program *p, struct tb_truth *t, const struct tb_buf *folded, bool body)
{
    bool found = false;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct tb_search_node *node = &p->node[i];
        if (!t->needed[i] || t->value[i] != TB_TRI_UNKNOWN ||
            (node->op != TB_SEARCH_TEXT && (node->op != TB_SEARCH_BODY || !body)))
            continue;
        if (tb_text_holds(folded, node->text)) {
            t->value[i] = TB_TRI_TRUE;
            found = true;
        }
    }
    return found;
}

static bool wants(const struct tb_search_program *p, const struct tb_truth *t, bool body)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (t->needed[i] && t->value[i] == TB_TRI_UNKNOWN &&
            (p->node[i].op == TB_SEARCH_TEXT || (body && p->node[i].op == TB_SEARCH_BODY)))
            return true;
    }
    return false;
}

/* Has the field nothing to decode? */
static bool is_plain(struct tb_slice field)
{
    if (memmem(field.ptr, field.len, "=?", 2) != NULL)
        return false;
    unsigned char high = 0;
    for (size_t i = 0; i < field.len; i++)
        high |= (unsigned char)field.ptr[i];
    return high < 0x80;
}

/* A field as one folded line. Plain ones go without the decoder, for they are nearly all. */
static void put_field(struct tb_search_program *p, struct tb_slice field, struct tb_slice name, struct tb_slice value)
{
    if (is_plain(field)) {
        while (field.len > 0) {
            const char *lf = memchr(field.ptr, '\n', field.len);
            size_t n = lf == NULL ? field.len : (size_t)(lf - field.ptr), text = n;
            if (lf != NULL && n > 0 && lf[-1] == '\r')
                text--;
            tb_text_fold(tb_slice(field.ptr, text), &p->folded);
            field = tb_slice_sub(field, n + 1, field.len);
        }
    } else {
        p->text.len = 0;
        tb_header_text(value, &p->text);
        tb_text_fold(name, &p->folded);
        tb_buf_put(&p->folded, ": ", 2);
        tb_text_fold(tb_buf_all(&p->text), &p->folded);
    }
    tb_buf_char(&p->folded, '\n');
}

bool tb_eval_part_header(struct tb_search_program *p, struct tb_truth *t, struct tb_slice header, bool enclosed)
{
    struct tb_slice field, name, value;
    if (!wants(p, t, enclosed))
        return false;
    p->folded.len = 0;
    while (tb_header_next(&header, &field, &name, &value))
        put_field(p, field, name, value);
    return try_needles(p, t, &p->folded, enclosed);
}

bool tb_eval_text(const struct tb_search_program *p, struct tb_truth *t, struct tb_text_window *w, struct tb_slice utf8)
{
    tb_text_fold(utf8, &w->folded);
    bool found = try_needles(p, t, &w->folded, true);
    size_t keep = p->longest > 0 ? p->longest - 1 : 0;
    if (w->folded.len > keep)
        tb_buf_consume(&w->folded, w->folded.len - keep);
    return found;
}
