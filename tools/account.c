/*
 * account.c: tambo account add, passwd, delete, list, import. Passwords come from stdin alone and are wiped after use.
 */
#include <errno.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "tools/tambo.h"

enum { PASSWORD_MAX = 1024, CHUNK_LINES = 1000, CHUNK_BYTES = 128 << 10 };

/* read_password: the first line of stdin, without echo at a terminal. False after tool_fail. */
static bool read_password(struct tool *t, char password[PASSWORD_MAX + 2])
{
    bool terminal = isatty(STDIN_FILENO);
    struct termios before, quiet;
    char *line;
    size_t len;

    if (terminal && tcgetattr(STDIN_FILENO, &before) == 0) {
        quiet = before;
        quiet.c_lflag &= (tcflag_t)~ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
        fputs("Password: ", stderr);
    }
    line = fgets(password, PASSWORD_MAX + 2, stdin);
    if (terminal) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    len = line ? strcspn(line, "\r\n") : 0;
    if (len == 0 || len > PASSWORD_MAX) {
        tool_fail(t, EX_DATAERR, "no password on stdin, or one longer than %d bytes", PASSWORD_MAX);
        return false;
    }
    password[len] = '\0';
    return true;
}

/* answered: print "NAME: word", or the answer. Takes result over. */
static void answered(const struct tool *t, json_t *result, const char *word)
{
    if (result && t->json)
        print_json(result);
    else if (result)
        printf("%s: %s\n", json_string_value(json_object_get(result, "account")), word);
    json_decref(result);
}

static void with_password(struct tool *t, const char *verb, const char *word)
{
    char password[PASSWORD_MAX + 2];
    json_t *args;

    if (!read_password(t, password))
        return;
    args = json_pack("{s:s, s:s, s:s*}", "name", t->args[0], "password", password, "scheme", t->scheme);
    explicit_bzero(password, sizeof(password));
    answered(t, client_call(t, verb, args), word);
}

void account_add(struct tool *t)
{
    with_password(t, "account add", "added");
}

void account_passwd(struct tool *t)
{
    with_password(t, "account passwd", "password changed");
}

void account_delete(struct tool *t)
{
    char question[400];

    snprintf(question, sizeof(question), "Delete account %.255s and all its mail?", t->args[0]);
    if (tool_confirm(t, question))
        answered(t, client_call(t, "account delete", json_pack("{s:s}", "name", t->args[0])), "deleted");
}

void account_list(struct tool *t)
{
    static const char *const keys[] = {"account", "shard", "scheme", NULL};
    static const char *const heads[] = {"ACCOUNT", "SHARD", "SCHEME", NULL};
    json_t *all = json_array(), *page = NULL;
    const char *next = "";

    if (t->given & OPT_DELETED)
        account_deleted(t);
    while (next && !(t->given & OPT_DELETED)) {
        json_t *fresh = client_call(t, "account list", json_pack("{s:s, s:i}", "after", next, "limit", 10000));
        json_decref(page);
        page = fresh;
        if (!page)
            break;
        json_array_extend(all, json_object_get(page, "accounts"));
        next = json_string_value(json_object_get(page, "next"));
    }
    if (page)
        print_table(t, all, keys, heads);
    json_decref(page);
    json_decref(all);
}

struct totals {
    json_int_t added, updated, skipped, failed;
};

/* send_lines: one chunk; false after tool_fail. Takes lines over. */
static bool send_lines(struct tool *t, size_t first_line, json_t *lines, struct totals *sum)
{
    json_t *result = client_call(
        t, "account import",
        json_pack("{s:I, s:o, s:s*}", "first_line", (json_int_t)first_line, "lines", lines, "scheme", t->scheme));
    const json_t *failed = json_object_get(result, "failed"), *one;
    size_t i;

    if (!result)
        return false;
    sum->added += json_integer_value(json_object_get(result, "added"));
    sum->updated += json_integer_value(json_object_get(result, "updated"));
    sum->skipped += json_integer_value(json_object_get(result, "skipped"));
    json_array_foreach (failed, i, one) {
        sum->failed++;
        fprintf(stderr, "tambo: %s:%lld: %s\n", t->args[0], (long long)json_integer_value(json_object_get(one, "line")),
                json_string_value(json_object_get(one, "error")));
    }
    json_decref(result);
    return true;
}

/* import_all: the file in chunks; false after tool_fail. */
static bool import_all(struct tool *t, FILE *in, struct totals *sum)
{
    json_t *lines = json_array();
    size_t first = 1, bytes = 0, cap = 0;
    char *line = NULL;
    bool ok = true;
    ssize_t n;

    while (ok && (n = getline(&line, &cap, in)) >= 0) {
        json_t *text;
        if (n > 4096) /* name and hash come first and are shorter than this */
            n = 4096;
        text = json_stringn(line, (size_t)n);
        json_array_append_new(lines, text ? text : json_null()); /* null: not UTF-8 */
        bytes += (size_t)n;
        if (json_array_size(lines) < CHUNK_LINES && bytes < CHUNK_BYTES)
            continue;
        n = (ssize_t)json_array_size(lines);
        ok = send_lines(t, first, lines, sum);
        first += (size_t)n;
        bytes = 0;
        lines = json_array();
    }
    if (ok && ferror(in)) {
        tool_fail(t, EX_IOERR, "%s: %s", t->args[0], strerror(errno));
        ok = false;
    }
    if (ok && json_array_size(lines))
        ok = send_lines(t, first, json_incref(lines), sum);
    json_decref(lines);
    if (line)
        explicit_bzero(line, cap);
    free(line);
    return ok;
}

void account_import(struct tool *t)
{
    bool from_stdin = strcmp(t->args[0], "-") == 0;
    FILE *in = from_stdin ? stdin : fopen(t->args[0], "re");
    struct totals sum = {0};

    if (!in) {
        tool_fail(t, EX_NOINPUT, "%s: %s", t->args[0], strerror(errno));
        return;
    }
    if (import_all(t, in, &sum) && sum.failed)
        tool_fail(t, EX_DATAERR, "%lld lines were not taken", (long long)sum.failed);
    if (!from_stdin)
        fclose(in);
    if (t->json)
        printf("{\"added\":%lld,\"updated\":%lld,\"skipped\":%lld,\"failed\":%lld}\n", (long long)sum.added,
               (long long)sum.updated, (long long)sum.skipped, (long long)sum.failed);
    else
        printf("%lld added, %lld updated, %lld skipped, %lld failed\n", (long long)sum.added, (long long)sum.updated,
               (long long)sum.skipped, (long long)sum.failed);
}
