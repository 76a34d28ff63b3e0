/*
 * backup.c: tambo backup, tambo restore.
 *
 * A backup runs in the daemon when there is one, else here. A restore needs neither a daemon nor a configuration: it
 * reads the backup's folder and makes a new one. It must never write into a folder that exists.
 */
#include <limits.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <tambo/backup.h>

#include "tools/tambo.h"

static void bar(const char *what, uint64_t done, uint64_t total, uint32_t part, uint32_t parts)
{
    char a[32], b[32];
    double share = ((total ? (double)done / (double)total : 0.0) + part) / (parts ? parts : 1);
    int filled = (int)(share * 30);

    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r%s [%.*s%.*s] %3d %%  %s of %s\033[K", what, filled, "##############################",
            30 - filled, "..............................", (int)(share * 100), print_bytes(done, a),
            print_bytes(total, b));
}

static void bar_end(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* number_of: "12", with unit also "12K", "12M", "12G". */
static bool number_of(struct tool *t, const char *text, bool unit, uint64_t max, uint64_t *out)
{
    size_t len = text ? strlen(text) : 0;
    const char *units = "KMG", *u = unit && len ? strchr(units, text[len - 1]) : NULL;
    uint64_t scale = u && *u ? UINT64_C(1) << (10 * (u - units + 1)) : 1;

    *out = 0;
    if (!text)
        return true;
    if (tb_slice_u64(tb_slice(text, u && *u ? len - 1 : len), max / scale, out)) {
        *out *= scale;
        return true;
    }
    tool_fail(t, EX_USAGE, "%s: not a number%s, or too large", text, unit ? " of bytes (12K, 12M, 12G)" : "");
    return false;
}

static char *absolute(struct tool *t, const char *path)
{
    char here[PATH_MAX], *out = NULL;

    if (path[0] == '/')
        return strdup(path);
    if (!getcwd(here, sizeof(here)) || asprintf(&out, "%s/%s", here, path) < 0) {
        tool_fail(t, EX_OSERR, "the current folder has no name");
        return NULL;
    }
    return out;
}

static uint64_t count(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static void backup_report(struct tool *t, const json_t *r)
{
    char copied[32], kept[32];

    if (t->json) {
        print_json(r);
        return;
    }
    printf("backup %llu: %s copied in %llu files, %s in %llu files were there already\n",
           (unsigned long long)count(r, "run"), print_bytes(count(r, "copied_bytes"), copied),
           (unsigned long long)count(r, "copied_files"), print_bytes(count(r, "kept_bytes"), kept),
           (unsigned long long)count(r, "kept_files"));
    if (count(r, "damaged_segments"))
        printf("%llu damaged segments were copied as they are; run tambo check\n",
               (unsigned long long)count(r, "damaged_segments"));
    if (count(r, "removed_runs"))
        printf("%llu older backups let go, %llu files removed\n", (unsigned long long)count(r, "removed_runs"),
               (unsigned long long)count(r, "removed_files"));
}

void backup_make(struct tool *t)
{
    uint64_t rate, keep, days;
    char *dest;
    json_t *r;

    if (!number_of(t, t->rate, true, INT64_MAX, &rate) || !number_of(t, t->keep, false, UINT32_MAX, &keep) ||
        !number_of(t, t->keep_days, false, 36500, &days) || !(dest = absolute(t, t->args[0])))
        return;
    r = client_call(t, "backup start",
                    json_pack("{s:s, s:I, s:I, s:I}", "dest", dest, "rate", (json_int_t)rate, "keep", (json_int_t)keep,
                              "keep_days", (json_int_t)days));
    free(dest);
    for (bool running = r != NULL; running;) {
        json_decref(r);
        r = client_call(t, "backup wait", json_object());
        running = r && json_is_true(json_object_get(r, "running"));
        if (running)
            bar("backup", count(r, "done_bytes"), count(r, "total_bytes"), (uint32_t)count(r, "shard"),
                (uint32_t)count(r, "shards"));
    }
    bar_end();
    if (r)
        backup_report(t, r);
    json_decref(r);
}

/* ---- restore ---- */

/* moment: an ISO 8601 date and time (UTC, or with +hh:mm), or seconds since 1970. */
static bool moment(struct tool *t, const char *text, int64_t *ms)
{
    struct tm tm = {0};
    uint64_t s, hours, minutes;
    const char *rest;

    *ms = INT64_MAX;
    if (!text)
        return true;
    if (tb_slice_u64(tb_slice_str(text), INT32_MAX * UINT64_C(1000), &s)) {
        *ms = (int64_t)s * 1000;
        return true;
    }
    rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest)
        rest = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);
    if (rest && (*rest == '\0' || strcmp(rest, "Z") == 0))
        *ms = (int64_t)timegm(&tm) * 1000;
    else if (rest && strlen(rest) == 6 && (rest[0] == '+' || rest[0] == '-') && rest[3] == ':' &&
             tb_slice_u64(tb_slice(rest + 1, 2), 23, &hours) && tb_slice_u64(tb_slice(rest + 4, 2), 59, &minutes))
        *ms = ((int64_t)timegm(&tm) - (rest[0] == '+' ? 60 : -60) * (int64_t)(hours * 60 + minutes)) * 1000;
    if (*ms != INT64_MAX)
        return true;
    tool_fail(t, EX_USAGE, "--at %s: say 2026-11-23T17:05:09Z, or seconds since 1970", text);
    return false;
}

static const char *when(int64_t ms, char text[40])
{
    time_t s = (time_t)(ms / 1000);
    struct tm tm;

    if (!gmtime_r(&s, &tm) || strftime(text, 40, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        snprintf(text, 40, "?");
    return text;
}

static void list_one(void *user, const struct tb_backup_run *run)
{
    char time[40], from[40];

    json_array_append_new(user, json_pack("{s:I, s:s, s:s, s:I, s:I}", "backup", (json_int_t)run->run, "time",
                                          when(run->time_ms, time), "back_to", when(run->from_ms, from), "bytes",
                                          (json_int_t)run->bytes, "files", (json_int_t)run->files));
}

/* exit_of: what a result means to a script. */
static int exit_of(enum tb_rc rc)
{
    return rc == TB_NOTFOUND  ? EX_NOINPUT
           : rc == TB_EXISTS  ? EX_CANTCREAT
           : rc == TB_INVALID ? EX_UNAVAILABLE
                              : EX_IOERR;
}

static void restore_list(struct tool *t, struct tb_io *io)
{
    static const char *const keys[] = {"backup", "time", "back_to", "bytes", "files", NULL};
    static const char *const heads[] = {"BACKUP", "TIME", "BACK TO", "BYTES", "FILES", NULL};
    struct tb_error err = {0};
    json_t *rows = json_array();
    enum tb_rc rc = tb_backup_list(io, t->args[0], list_one, rows, &err);

    if (rc == TB_OK)
        print_table(t, rows, keys, heads);
    else
        tool_fail(t, exit_of(rc), "%s", err.text);
    json_decref(rows);
}

static void restore_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    bar("restore", done < total ? done : total, total, 0, 1);
}

static void restore_report(struct tool *t, const struct tb_restore_result *r)
{
    char text[32], at[40];

    if (t->json) {
        json_t *o = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "store", t->to, "backup", (json_int_t)r->run, "at",
                              when(r->at_ms, at), "bytes", (json_int_t)r->bytes, "accounts", (json_int_t)r->accounts,
                              "messages", (json_int_t)r->messages);
        print_json(o);
        json_decref(o);
        return;
    }
    printf("%s: %llu accounts, %llu messages, as of %s, from %s of backup %u\n", t->to, (unsigned long long)r->accounts,
           (unsigned long long)r->messages, when(r->at_ms, at), print_bytes(r->bytes, text), r->run);
}

static void restore_run(struct tool *t, struct tb_io *io)
{
    struct tb_restore_options opt = {
        .dest = t->args[0], .to = t->to, .account = t->account, .mailbox = t->mailbox, .progress = restore_progress};
    struct tb_restore_result result;
    struct tb_error err = {0};
    uint64_t uid;
    enum tb_rc rc;

    if (!number_of(t, t->uid, false, UINT32_MAX, &uid) || !moment(t, t->at, &opt.at_ms))
        return;
    if (!t->to || (t->uid && !t->mailbox) || (t->mailbox && !t->account)) {
        tool_fail(t, EX_USAGE, "restore: say --to NEWDIR; --uid needs --mailbox, and that --account");
        return;
    }
    opt.uid = (uint32_t)uid;
    rc = tb_restore(io, &opt, &result, &err);
    bar_end();
    if (rc == TB_OK)
        restore_report(t, &result);
    else
        tool_fail(t, exit_of(rc), "%s", err.text);
}

void backup_restore(struct tool *t)
{
    struct tb_error err = {0};
    struct tb_io *io;

    if (tb_io_open(TB_IO_POSIX, &io, &err) != TB_OK) {
        tool_fail(t, EX_OSERR, "%s", err.text);
        return;
    }
    if (t->given & OPT_LIST)
        restore_list(t, io);
    else
        restore_run(t, io);
    tb_io_close(io);
}
