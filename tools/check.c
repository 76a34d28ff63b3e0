/*
 * check.c: tambo check, rebuild-index: reads a whole store and says what is wrong with it; makes indexes again.
 *
 * A check changes nothing unless --repair or --truncate was said. Exit: 0 clean, 65 damage was found, and is left.
 */
#include <tambo/check.h>

#include "tools/tambo.h"

struct checking {
    struct tool *t;
    uint64_t started_ns;
};

static json_t *finding_json(const struct tb_finding *f)
{
    return json_pack("{s:s, s:I, s:s, s:s, s:s}", "finding",
                     f->repaired ? "repaired"
                     : f->damage ? "damage"
                                 : "note",
                     "shard", (json_int_t)f->shard, "object", f->object, "what", f->what, "next", f->next);
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
    printf("%s shard %u: %s: %s%s%s\n",
           f->repaired ? "repaired"
           : f->damage ? "DAMAGE"
                       : "note",
           f->shard, f->object, f->what, f->next[0] ? "; " : "", f->next);
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

static int code_of(enum tb_rc rc)
{
    return rc == TB_NOTFOUND  ? EX_NOINPUT
           : rc == TB_BUSY    ? EX_TEMPFAIL
           : rc == TB_CORRUPT ? EX_DATAERR
           : rc == TB_INVALID ? EX_USAGE
                              : EX_IOERR;
}

/* look: one whole check with its summary; false after tool_fail. */
static bool look(struct checking *c, struct tb_io *io, const struct tb_config *cfg, struct tb_check_stat *stat)
{
    struct tb_check_options opt = {.user = c, .found = print_finding};
    struct tb_error err = {0};
    enum tb_rc rc;

    (void)tb_io_turn(io, false); /* the clock */
    c->started_ns = tb_io_now_ns(io);
    rc = tb_store_check(io, cfg->store, &opt, stat, &err);
    if (rc != TB_OK) {
        tool_fail(c->t, code_of(rc), "%s", err.text);
        return false;
    }
    (void)tb_io_turn(io, false);
    print_summary(c, stat, tb_io_now_ns(io));
    return true;
}

/* cut: what --truncate would give up is told and asked about; false after tool_fail, or without a yes. */
static bool cut(struct checking *c, struct tb_io *io, const struct tb_config *cfg)
{
    struct tb_check_options opt = {.user = c, .found = print_finding};
    struct tb_truncated lost;
    struct tb_error err = {0};
    char question[200];
    enum tb_rc rc = tb_store_truncate(io, cfg->store, false, &opt, &lost, &err);

    if (rc == TB_OK && lost.shards == 0)
        return true; /* the summary says how the store is */
    (void)snprintf(question, sizeof(question),
                   "Give up %llu frames of the log, with %llu messages that came, for good?",
                   (unsigned long long)lost.frames, (unsigned long long)lost.messages);
    if (rc == TB_OK && !tool_confirm(c->t, question))
        return false;
    if (rc == TB_OK)
        rc = tb_store_truncate(io, cfg->store, true, &opt, &lost, &err);
    if (rc != TB_OK)
        tool_fail(c->t, code_of(rc), "%s", err.text);
    return rc == TB_OK;
}

/* chosen_shard: --shard; false after tool_fail. */
static bool chosen_shard(struct tool *t, uint32_t *out)
{
    uint64_t shard = TB_EVERY_SHARD;

    if (t->shard && !tb_slice_u64(tb_slice_str(t->shard), 255, &shard)) {
        tool_fail(t, EX_USAGE, "--shard: a number, as `tambo stat` shows them");
        return false;
    }
    *out = (uint32_t)shard;
    return true;
}

void compact_index(struct tool *t)
{
    const struct tb_config *cfg;
    struct tb_io *io = client_offline(t, &cfg);
    struct tb_compacted done;
    struct tb_error err = {0};
    uint32_t shard;
    char was[32], now[32];

    if (!io || !chosen_shard(t, &shard))
        return;
    enum tb_rc rc = tb_store_compact(io, cfg->store, shard, &done, &err);
    if (rc != TB_OK) {
        tool_fail(t, code_of(rc), "%s", err.text);
        return;
    }
    if (!client_open_store(t))
        return;
    if (t->json)
        printf("{\"shards\":%llu,\"was_bytes\":%llu,\"now_bytes\":%llu}\n", (unsigned long long)done.shards,
               (unsigned long long)done.was_bytes, (unsigned long long)done.now_bytes);
    else
        printf("index files %s -> %s\n", print_bytes(done.was_bytes, was), print_bytes(done.now_bytes, now));
}

void check_store(struct tool *t)
{
    struct checking c = {.t = t};
    struct tb_check_options opt = {.user = &c, .found = print_finding};
    struct tb_check_stat stat;
    struct tb_error err = {0};
    const struct tb_config *cfg;
    struct tb_io *io = client_offline(t, &cfg);

    if (!io || (t->given & OPT_TRUNCATE && !cut(&c, io, cfg)) || !look(&c, io, cfg, &stat))
        return;
    if (stat.damage > 0 && t->given & OPT_REPAIR) {
        enum tb_rc rc = tb_store_repair(io, cfg->store, &opt, &err);
        if (rc != TB_OK) {
            tool_fail(t, code_of(rc), "%s", err.text);
            return;
        }
        if (!look(&c, io, cfg, &stat))
            return;
    }
    if (stat.damage > 0)
        t->exit = EX_DATAERR;
}

static void print_salvaged(const struct tool *t, const struct tb_salvaged *s)
{
    const struct {
        const char *key, *text;
        uint64_t n;
    } rows[] = {
        {"shards", "shards salvaged", s->shards},
        {"segments", "log segments there", s->segments},
        {"missing_segments", "log segments missing", s->missing},
        {"holes", "damaged stretches of the log", s->holes},
        {"hole_bytes", "bytes in them", s->hole_bytes},
        {"records", "records read", s->records},
        {"unusable_records", "records that could not be used", s->unusable},
        {"accounts_made", "accounts whose beginning is gone", s->accounts_made},
        {"accounts_unnamed", "of these called recovered-N", s->accounts_unnamed},
        {"mailboxes_made", "mailboxes whose beginning is gone", s->mailboxes_made},
        {"mailboxes_new_uidvalidity", "of these with a new UIDVALIDITY", s->mailboxes_new},
        {"mailboxes_renamed", "mailboxes that gave up their name", s->mailboxes_renamed},
        {"messages_brought", "messages known by their copies", s->brought},
        {"stored_homeless", "stored messages that nothing names", s->homeless},
        {"messages_lost", "messages whose bytes are nowhere", s->lost},
        {"messages_quarantined", "messages of which bytes are missing", s->quarantined},
        {"messages", "messages in the store", s->messages},
    };
    json_t *o = json_object();

    for (size_t i = 0; i < TB_ARRAY_LEN(rows); i++) {
        json_object_set_new(o, rows[i].key, json_integer((json_int_t)rows[i].n));
        if (!t->json)
            printf("%-36s %12llu\n", rows[i].text, (unsigned long long)rows[i].n);
    }
    if (t->json)
        print_json(o);
    json_decref(o);
    if (!t->json && s->shards > 0)
        puts("what was missing is lost; mail deleted long ago may be back; begin a new backup folder");
}

static void salvage(struct tool *t, struct tb_io *io, const struct tb_config *cfg, uint32_t shard)
{
    struct tb_salvaged done;
    struct tb_error err = {0};
    enum tb_rc rc = tb_store_salvage(io, cfg->store, shard, &done, &err);

    if (rc != TB_OK)
        tool_fail(t, code_of(rc), "%s", err.text);
    else if (client_open_store(t))
        print_salvaged(t, &done);
}

void rebuild_index(struct tool *t)
{
    const struct tb_config *cfg;
    struct tb_io *io = client_offline(t, &cfg);
    struct tb_error err = {0};
    uint32_t shard;
    enum tb_rc rc;

    if (!io || !chosen_shard(t, &shard))
        return;
    if (t->given & OPT_SALVAGE) {
        salvage(t, io, cfg, shard);
        return;
    }
    rc = tb_store_rebuild(io, cfg->store, shard, &err);
    if (rc != TB_OK) {
        tool_fail(t, code_of(rc), "%s", err.text);
        return;
    }
    if (!client_open_store(t))
        return;
    if (t->json)
        puts("{\"rebuilt\":true}");
    else
        puts("rebuilt; UIDs and UIDVALIDITY are what they were");
}
