/*
 * check.c: tambo check: reads a whole store and says what is wrong with it.
 *
 * It must never change anything unless --repair was said. Exit: 0 clean, 65 damage was found.
 */
#include <tambo/check.h>

#include "tools/tambo.h"

struct checking {
    struct tool *t;
    uint64_t started_ns;
};

static json_t *finding_json(const struct tb_finding *f)
{
    return json_pack("{s:s, s:I, s:s, s:s, s:s}", "finding", f->damage ? "damage" : "note", "shard",
                     (json_int_t)f->shard, "object", f->object, "what", f->what, "next", f->next);
}

static void print_finding(void *user, const struct tb_finding *f)
{
    const struct checking *c = user;

    if (c->t->json) {
        json_t *o = finding_json(f);
        print_json(o);
        json_decref(o);
        return;
    }
    printf("%s shard %u: %s: %s%s%s\n", f->damage ? "DAMAGE" : "note", f->shard, f->object, f->what,
           f->next[0] ? "; " : "", f->next);
}

static void print_summary(const struct checking *c, const struct tb_check_stat *s, uint64_t now_ns)
{
    char text[32];

    if (c->t->json) {
        json_t *o = json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "clean", s->damage == 0, "damage",
                              (json_int_t)s->damage, "notes", (json_int_t)s->notes, "accounts", (json_int_t)s->accounts,
                              "mailboxes", (json_int_t)s->mailboxes, "messages", (json_int_t)s->messages, "stored",
                              (json_int_t)s->blobs, "log_frames", (json_int_t)s->log_frames, "index_pages",
                              (json_int_t)s->index_pages, "read_bytes", (json_int_t)s->read_bytes);
        print_json(o);
        json_decref(o);
        return;
    }
    printf("%llu shards, %llu accounts, %llu mailboxes, %llu messages, %llu stored ones, %llu log frames, "
           "%llu index pages; %s read in %.1f s\n",
           (unsigned long long)s->shards, (unsigned long long)s->accounts, (unsigned long long)s->mailboxes,
           (unsigned long long)s->messages, (unsigned long long)s->blobs, (unsigned long long)s->log_frames,
           (unsigned long long)s->index_pages, print_bytes(s->read_bytes, text),
           (double)(now_ns - c->started_ns) / 1e9);
    if (s->damage == 0)
        puts("clean");
    else
        printf("%llu findings of damage\n", (unsigned long long)s->damage);
}

void check_store(struct tool *t)
{
    struct checking c = {.t = t};
    struct tb_check_options opt = {.user = &c, .found = print_finding};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    const struct tb_config *cfg;
    struct tb_io *io = client_offline(t, &cfg);
    enum tb_rc rc;

    if (!io)
        return;
    c.started_ns = tb_io_now_ns(io);
    rc = tb_store_check(io, cfg->store, &opt, &stat, &err);
    if (rc != TB_OK) {
        tool_fail(t, rc == TB_NOTFOUND ? EX_NOINPUT : rc == TB_BUSY ? EX_TEMPFAIL : EX_IOERR, "%s", err.text);
        return;
    }
    (void)tb_io_turn(io, false); /* the clock */
    print_summary(&c, &stat, tb_io_now_ns(io));
    if (stat.damage > 0)
        t->exit = EX_DATAERR;
}
