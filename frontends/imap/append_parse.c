/*
 * append_parse.c: the grammar of APPEND and REPLACE, text by text.
 *
 * Their messages are not arguments but pass by, so the command is never there whole: a text is what stands before the
 * first literal that is a message or a part of one, between two of them, or behind the last. Each becomes a list of
 * steps; what a text ends in is remembered in `where` for the next one. Pure. Thread: any. RFC 4466 3, 6 (append);
 * 3502 (MULTIAPPEND); 4469 5 (CATENATE); 6855 4 (UTF8); 8508 5 (REPLACE).
 */
#include "imap_session.h"

enum where {
    WHERE_BEGIN,   /* behind the mailbox: a message must follow */
    WHERE_MESSAGE, /* behind a whole message */
    WHERE_UTF8,    /* behind the literal of "UTF8 (" */
    WHERE_PARTS    /* behind a TEXT of "CATENATE (" */
};

struct steps {
    struct imap_append_step *first, **last;
};

static struct imap_append_step *step(struct imap_parser *p, struct steps *v, enum imap_append_what what)
{
    static struct imap_append_step none; /* for a parser that has failed: nobody reads it */
    struct imap_append_step *x = p->failed ? NULL : tb_arena_alloc(p->arena, sizeof *x);
    if (!x) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return &none;
    }
    *x = (struct imap_append_step){.what = what};
    *v->last = x;
    v->last = &x->next;
    return x;
}

/* literal / literal8, whose head ends the text */
static void bytes(struct imap_parser *p, struct steps *v, bool part)
{
    (void)imap_try(p, '~');
    if (!p->failed && !imap_at(p, '{'))
        imap_fail(p, "BAD Expected a literal");
    while (p->p < p->end && *p->p != '\n')
        p->p++;
    imap_expect(p, '\n');
    if (!p->failed)
        step(p, v, APPEND_BYTES)->part = part;
}

/* cat-part *(SP cat-part) ")"; cat-part = "TEXT" SP literal / "URL" SP astring. True: a literal ends the text. */
static bool parts(struct imap_parser *p, struct steps *v)
{
    do {
        struct tb_slice kind = imap_word(p);
        imap_sp(p);
        if (tb_slice_ieq(kind, TB_SLICE("TEXT"))) {
            bytes(p, v, true);
            return true;
        }
        if (!tb_slice_ieq(kind, TB_SLICE("URL")))
            imap_fail(p, "BAD Expected TEXT or URL");
        struct tb_slice url = imap_astring(p);
        if (!p->failed)
            step(p, v, APPEND_URL)->url = url;
    } while (imap_try_sp(p));
    imap_expect(p, ')');
    return false;
}

/* append-data = literal / literal8 / "UTF8" SP "(" literal8 ")" / "CATENATE" SP "(" ... */
static enum where data(struct imap_parser *p, struct steps *v, struct imap_append_step *message, bool *literal)
{
    *literal = true;
    if (imap_at(p, '{') || imap_at(p, '~')) {
        bytes(p, v, false);
        return WHERE_MESSAGE;
    }
    struct imap_parser look = *p;
    struct tb_slice name = imap_word(&look);
    bool utf8 = tb_slice_ieq(name, TB_SLICE("UTF8")), catenate = tb_slice_ieq(name, TB_SLICE("CATENATE"));
    if (look.failed || !(utf8 || catenate)) {
        imap_fail(p, "BAD Expected a literal");
        return WHERE_MESSAGE;
    }
    p->p = look.p;
    imap_sp(p);
    imap_expect(p, '(');
    if (catenate) {
        *literal = parts(p, v);
        return *literal ? WHERE_PARTS : WHERE_MESSAGE;
    }
    message->utf8 = true;
    if (!p->failed && !imap_at(p, '~'))
        imap_fail(p, "BAD Expected UTF8 and a literal8 in parentheses");
    bytes(p, v, false);
    return WHERE_UTF8;
}

/* append-message = [SP flag-list] [SP date-time] SP append-data; the first SP is taken. */
static enum where message(struct imap_parser *p, struct steps *v, bool *literal)
{
    struct imap_append_step *x = step(p, v, APPEND_NEXT);
    if (imap_at(p, '(')) {
        imap_flag_list(p, &x->flags);
        imap_sp(p);
    }
    if (imap_at(p, '"')) {
        x->internaldate = imap_date_time(p);
        x->has_date = true;
        imap_sp(p);
    }
    return data(p, v, x, literal);
}

struct imap_append_step *imap_append_more(struct imap_parser *p, uint8_t *where, bool single)
{
    struct steps v = {.last = &v.first};
    bool literal = false;
    if (*where == WHERE_UTF8) {
        imap_expect(p, ')');
        *where = WHERE_MESSAGE;
    } else if (*where == WHERE_PARTS) {
        *where = WHERE_MESSAGE;
        if (!imap_try(p, ')')) {
            imap_sp(p);
            literal = parts(p, &v);
            *where = literal ? WHERE_PARTS : WHERE_MESSAGE;
        }
    } else if (*where == WHERE_BEGIN) {
        imap_sp(p);
        *where = (uint8_t)message(p, &v, &literal);
    }
    while (!p->failed && !literal && !single && imap_try_sp(p))
        *where = (uint8_t)message(p, &v, &literal);
    if (!p->failed && !literal) {
        if (imap_at_end(p))
            (void)step(p, &v, APPEND_END);
        else
            imap_fail(p, "BAD Unexpected text after the message");
    }
    return p->failed ? NULL : v.first;
}

/* append = "APPEND" SP mailbox 1*append-message */
void imap_parse_append(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_append_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return;
    }
    *a = (struct imap_append_args){.mailbox = mailbox, .given = p->given};
    a->first = imap_append_more(p, &a->where, false);
}

/* replace = "REPLACE" SP seq-number SP mailbox append-message */
void imap_parse_replace(struct imap_parser *p, struct imap_cmd *cmd)
{
    struct imap_append_args *a = tb_arena_alloc(p->arena, sizeof *a);
    cmd->args = a;
    imap_sp(p);
    uint32_t number = imap_seq_number(p);
    imap_sp(p);
    struct tb_slice mailbox = imap_mailbox(p);
    if (!a) {
        imap_fail(p, "NO [LIMIT] Command too large");
        return;
    }
    *a = (struct imap_append_args){.mailbox = mailbox, .given = p->given, .number = number, .single = true};
    a->first = imap_append_more(p, &a->where, true);
}
