/*
 * options.c: the command line of tambo-bench, its help, and the user list. One table tells both parser and help.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "bench/bench.h"

enum { USERS_BYTES_MAX = 256 << 20, USERS_MAX = 10 << 20, NAME_BYTES_MAX = 320 };

const struct bench_workload *const bench_workloads[] = {
    &bench_deliver, &bench_fetch_headers, &bench_fetch_bodies, &bench_random_body, NULL,
};

enum kind { FLAG, TEXT, NUMBER, NUMBER64, PORT, CORPUS, SEED, PIDS, HELP };

#define FIELD(name) offsetof(struct bench_options, name)
static const struct setting {
    const char *name, *argument, *help;
    enum kind kind;
    size_t field;
    uint64_t min, max;
} settings[] = {
    {"host", "ADDRESS", "numeric address of the server (127.0.0.1)", TEXT, FIELD(host), 0, 0},
    {"port", "N", "its port (the workload's well-known one)", PORT, FIELD(port), 1, 65535},
    {"connections", "N", "connections, each a closed loop (16)", NUMBER, FIELD(connections), 1, 1000000},
    {"threads", "N", "load threads (1)", NUMBER, FIELD(threads), 1, 256},
    {"seconds", "N", "measured time (10)", NUMBER64, FIELD(seconds), 1, 1000000},
    {"warmup", "N", "seconds of load before, not counted (0)", NUMBER64, FIELD(warmup_s), 0, 1000000},
    {"count", "N", "end after N operations (no limit; --seconds still holds)", NUMBER64, FIELD(count), 1, UINT64_MAX},
    {"users", "FILE", "users, one name:password a line", TEXT, FIELD(users_file), 0, 0},
    {"user-pattern", "TEXT", "else: names with a number in place of %d or %04d (u%04d@example.test)", TEXT,
     FIELD(user_pattern), 0, 0},
    {"user-count", "N", "how many, from 1 (200)", NUMBER, FIELD(user_count), 1, USERS_MAX},
    {"password", "TEXT", "their password (secret)", TEXT, FIELD(password), 0, 0},
    {"mailbox", "NAME", "the mailbox that is read (INBOX)", TEXT, FIELD(mailbox), 0, 0},
    {"recipients", "N", "deliver: recipients of each message (1)", NUMBER, FIELD(recipients), 1, 1000},
    {"pipelined", NULL, "deliver: MAIL, RCPT and DATA in one piece", FLAG, FIELD(pipelined), 0, 0},
    {"smtp", NULL, "deliver: SMTP instead of LMTP", FLAG, FIELD(smtp), 0, 0},
    {"corpus", "DIR", "messages: every *.eml below DIR; may be given again", CORPUS, 0, 0, 0},
    {"seeded", "SEED", "messages: made from a number, plain, HTML and attachments", SEED, 0, 0, UINT64_MAX},
    {"messages", "N", "how many of them (2000)", NUMBER, FIELD(messages), 1, 10000000},
    {"check-every", "N", "check one answer in N to the last byte, on average (64; 1: all, 0: none)", NUMBER,
     FIELD(check_every), 0, 1 << 30},
    {"pid", "PID", "the server's process, with its descendants: CPU and memory; may be given again", PIDS, 0, 1,
     INT32_MAX},
    {"pgrep", "NAME", "the same for all processes of exactly this name", TEXT, FIELD(pgrep), 0, 0},
    {"device", "NAME", "block device below the store, as in /sys/block: flushes and writes", TEXT, FIELD(device), 0, 0},
    {"posix", NULL, "epoll instead of io_uring on this side", FLAG, FIELD(posix), 0, 0},
    {"label", "TEXT", "a note for the report", TEXT, FIELD(label), 0, 0},
    {"json", "FILE", "write the report as JSON too; - prints it instead of the table", TEXT, FIELD(json), 0, 0},
    {"help", NULL, "this text; after a workload's name: about it", HELP, 0, 0, 0},
};
enum { SETTING_N = TB_ARRAY_LEN(settings) };

static int show_help(const struct bench_workload *w)
{
    if (w != NULL) {
        printf("Usage: tambo-bench %s [OPTION]...\n\n%s: %s.\n\n%s\n", w->name, w->name, w->summary, w->help);
    } else {
        printf("Usage: tambo-bench WORKLOAD [OPTION]...\n\n"
               "Loads an IMAP, SMTP or LMTP server and checks its answers.\n\nWorkloads:\n");
        for (size_t i = 0; bench_workloads[i] != NULL; i++)
            printf("  %-22s %s\n", bench_workloads[i]->name, bench_workloads[i]->summary);
        printf("\n");
    }
    printf("Options:\n");
    for (size_t i = 0; i < SETTING_N; i++) {
        char left[64];
        snprintf(left, sizeof left, "--%s %s", settings[i].name,
                 settings[i].argument != NULL ? settings[i].argument : "");
        printf("  %-22s %s\n", left, settings[i].help);
    }
    printf("\nExit codes: 0 all answers right; 1 refused or wrong answers; 64 usage; 69 no run was possible.\n");
    return EX_OK;
}

static int usage(const char *what, const char *text)
{
    fprintf(stderr, "tambo-bench: %s%s%s\nTry: tambo-bench --help\n", what, text != NULL ? ": " : "",
            text != NULL ? text : "");
    return EX_USAGE;
}

static int add_to_list(struct bench_options *o, const struct setting *s, const char *value, uint64_t n)
{
    if (s->kind == CORPUS) {
        if (o->corpus_dir_n == BENCH_DIRS_MAX)
            return usage("too many folders", value);
        o->corpus_dirs[o->corpus_dir_n++] = value;
    } else {
        if (o->pid_n == BENCH_PIDS_MAX)
            return usage("too many processes", value);
        o->pids[o->pid_n++] = (int)n;
    }
    return -1;
}

static int apply(struct bench_options *o, const struct setting *s, const char *value)
{
    char *field = (char *)o + s->field;
    uint64_t n = 0;
    bool number = s->kind == NUMBER || s->kind == NUMBER64 || s->kind == PORT || s->kind == SEED || s->kind == PIDS;
    if (number && (!tb_slice_u64(tb_slice_str(value), s->max, &n) || n < s->min)) {
        char text[64];
        snprintf(text, sizeof text, "--%s is no number in its range", s->name);
        return usage(text, value);
    }
    switch (s->kind) {
    case FLAG:
        *(bool *)field = true;
        break;
    case TEXT:
        *(const char **)(void *)field = value;
        break;
    case NUMBER:
        *(uint32_t *)(void *)field = (uint32_t)n;
        break;
    case NUMBER64:
        *(uint64_t *)(void *)field = n;
        break;
    case PORT:
        *(uint16_t *)(void *)field = (uint16_t)n;
        break;
    case SEED:
        o->seeded = true;
        o->seed = n;
        break;
    case CORPUS:
    case PIDS:
        return add_to_list(o, s, value, n);
    case HELP:
        return show_help(o->workload);
    }
    return -1;
}

static const struct bench_workload *find_workload(const char *name)
{
    for (size_t i = 0; bench_workloads[i] != NULL; i++) {
        if (strcmp(bench_workloads[i]->name, name) == 0)
            return bench_workloads[i];
    }
    return NULL;
}

static int check(struct bench_options *o)
{
    if (o->workload == NULL)
        return usage("name a workload", NULL);
    if (o->workload->needs_corpus && o->corpus_dir_n == 0 && !o->seeded)
        return usage("it needs messages: --corpus DIR or --seeded SEED", NULL);
    if (o->port == 0)
        o->port = o->smtp && !o->workload->imap ? 25 : o->workload->port;
    if (o->threads > o->connections)
        o->threads = o->connections;
    return -1;
}

int bench_options_parse(struct bench_options *o, int argc, char **argv)
{
    struct option longs[SETTING_N + 1] = {0};
    int which, c, rc;
    *o = (struct bench_options){
        .argc = argc,
        .argv = argv,
        .host = "127.0.0.1",
        .connections = 16,
        .threads = 1,
        .seconds = 10,
        .recipients = 1,
        .mailbox = "INBOX",
        .user_pattern = "u%04d@example.test",
        .user_count = 200,
        .password = "secret",
        .messages = 2000,
        .check_every = 64,
        .seed = 1,
    };
    for (size_t i = 0; i < SETTING_N; i++)
        longs[i] = (struct option){settings[i].name, settings[i].argument != NULL, NULL, 0};
    if (argc > 1 && argv[1][0] != '-') {
        o->workload = find_workload(argv[1]);
        if (o->workload == NULL)
            return usage("no such workload", argv[1]);
        optind = 2;
    }
    while ((c = getopt_long(argc, argv, "", longs, &which)) != -1) {
        if (c != 0)
            return EX_USAGE; /* getopt has said why */
        rc = apply(o, &settings[which], optarg);
        if (rc >= 0)
            return rc;
    }
    if (optind < argc)
        return usage("what is this", argv[optind]);
    return check(o);
}

/* ---- users ---- */

/* The pattern's name number n: %d, or %0Nd for N digits, once. */
static bool user_name(const char *pattern, uint32_t n, char out[NAME_BYTES_MAX])
{
    const char *at = strchr(pattern, '%');
    int width = 0;
    if (at == NULL)
        return false;
    const char *end = at + 1;
    if (*end == '0' && end[1] >= '1' && end[1] <= '9') {
        width = end[1] - '0';
        end += 2;
    }
    if (*end != 'd' || strchr(end, '%') != NULL)
        return false;
    int len = snprintf(out, NAME_BYTES_MAX, "%.*s%0*u%s", (int)(at - pattern), pattern, width, n, end + 1);
    return len > 0 && len < NAME_BYTES_MAX;
}

static enum tb_rc make_users(struct bench_options *o, struct tb_error *err)
{
    struct tb_buf text;
    tb_buf_init(&text, USERS_BYTES_MAX);
    for (uint32_t n = 1; n <= o->user_count; n++) {
        char name[NAME_BYTES_MAX];
        if (!user_name(o->user_pattern, n, name)) {
            tb_buf_free(&text);
            return tb_error_set(err, TB_INVALID, 0, "--user-pattern needs one %%d or %%04d");
        }
        tb_buf_str(&text, name);
        tb_buf_char(&text, ':');
        tb_buf_str(&text, o->password);
        tb_buf_char(&text, '\n');
    }
    tb_buf_char(&text, '\0');
    o->user_text = text.ptr;
    return text.failed ? tb_error_set(err, TB_LIMIT, ENOMEM, "too many users") : TB_OK;
}

static enum tb_rc read_users(struct bench_options *o, struct tb_io *io, struct tb_error *err)
{
    int fd = tb_io_file_open(io, o->users_file, TB_OPEN_READ);
    if (fd < 0)
        return tb_error_set(err, TB_IO, -fd, "cannot open %s", o->users_file);
    int64_t size = tb_io_file_size(io, fd), got = -1;
    if (size >= 0 && size < USERS_BYTES_MAX && (o->user_text = malloc((size_t)size + 1)) != NULL)
        got = tb_io_pread(io, fd, o->user_text, (size_t)size, 0);
    (void)tb_io_file_close(io, fd); /* only read from */
    if (got != size || size < 0)
        return tb_error_set(err, TB_IO, got < 0 ? EIO : 0, "cannot read %s", o->users_file);
    o->user_text[size] = '\0';
    return TB_OK;
}

/* Cut user_text into names and passwords, in place. */
static enum tb_rc cut_users(struct bench_options *o, struct tb_error *err)
{
    size_t lines = 0, number = 0;
    for (const char *p = o->user_text; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    o->users = calloc(lines + 1, sizeof *o->users);
    if (o->users == NULL)
        return tb_error_set(err, TB_LIMIT, ENOMEM, "too many users");
    for (char *line = o->user_text; *line != '\0';) {
        char *next = line + strcspn(line, "\r\n"), *colon = memchr(line, ':', (size_t)(next - line));
        if (next == line) { /* between the lines */
            number += *line++ == '\n';
            continue;
        }
        if (colon == NULL)
            return tb_error_set(err, TB_INVALID, 0, "users, line %zu: not name:password", number + 1);
        if (*next != '\0') {
            number += *next == '\n';
            *next++ = '\0';
        }
        *colon = '\0';
        o->users[o->user_n++] = (struct bench_user){line, colon + 1};
        line = next;
    }
    return o->user_n > 0 ? TB_OK : tb_error_set(err, TB_INVALID, 0, "no users in %s", o->users_file);
}

enum tb_rc bench_options_users(struct bench_options *o, struct tb_io *io, struct tb_error *err)
{
    enum tb_rc rc = o->users_file != NULL ? read_users(o, io, err) : make_users(o, err);
    return rc == TB_OK ? cut_users(o, err) : rc;
}

void bench_options_free(struct bench_options *o)
{
    free(o->users);
    free(o->user_text);
    o->users = NULL;
    o->user_text = NULL;
}
