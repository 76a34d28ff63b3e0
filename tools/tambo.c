/*
 * tambo.c: the administrator's command: options, the table of commands, help.
 *
 * It must never take a password from the command line, and never ask a question without a terminal. Exit codes:
 * sysexits.h.
 */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/tambo.h"
#include <tambo/store.h>

static void version_show(struct tool *t);

struct command {
    const char *name;
    const char *args;
    int args_n;               /* two less will do where the last two stand in brackets */
    unsigned options, needed; /* OPT_ bits */
    void (*run)(struct tool *t);
    const char *help;
};
static const struct command commands[] = {
    {"init", "DIR", 1, OPT_HOSTNAME | OPT_PORT_OFFSET | OPT_SHARDS | OPT_SEGMENT_SIZE, 0, init_dir,
     "make a configuration, a self-signed certificate and a store"},
    {"account add", "NAME", 1, OPT_PASSWORD_STDIN | OPT_SCHEME, OPT_PASSWORD_STDIN, account_add, "make an account"},
    {"account import", "FILE", 1, OPT_SCHEME, 0, account_import,
     "make or update accounts from a Dovecot passwd-file (- is stdin)"},
    {"account list", "", 0, OPT_DELETED, 0, account_list, "list the accounts"},
    {"account passwd", "NAME", 1, OPT_PASSWORD_STDIN | OPT_SCHEME, OPT_PASSWORD_STDIN, account_passwd,
     "change a password"},
    {"account delete", "NAME", 1, OPT_YES, 0, account_delete, "delete an account and all its mail"},
    {"account undelete", "NAME", 1, 0, 0, account_undelete, "bring a deleted account back"},
    {"mailbox list", "ACCOUNT", 1, 0, 0, mailbox_list, "list an account's mailboxes"},
    {"mailbox create", "ACCOUNT NAME", 2, 0, 0, mailbox_create, "make a mailbox"},
    {"mailbox delete", "ACCOUNT NAME", 2, OPT_YES, 0, mailbox_delete, "delete a mailbox and its mail"},
    {"mailbox acl", "ACCOUNT NAME [USER RIGHTS]", 4, 0, 0, mailbox_acl,
     "show, or change for a user, who may do what in a mailbox"},
    {"mailbox retention", "ACCOUNT NAME", 2, OPT_DAYS | OPT_NONE | OPT_DEFAULT, 0, mailbox_retention,
     "how long messages stay in a mailbox"},
    {"undelete", "ACCOUNT", 1, OPT_MAILBOX | OPT_SINCE | OPT_ALL | OPT_UID | OPT_TO | OPT_LIST, 0, undelete,
     "bring deleted messages and mailboxes back, or list them"},
    {"quota", "ACCOUNT", 1, OPT_STORAGE | OPT_MESSAGES | OPT_MAILBOXES | OPT_NONE, 0, quota,
     "what an account may hold, and what it holds"},
    {"gc", "", 0, OPT_ALL, 0, gc_now, "give the space of deleted mail back now"},
    {"stat", "", 0, 0, 0, stat_show, "the store in numbers"},
    {"check", "", 0, OPT_REPAIR | OPT_TRUNCATE | OPT_YES, 0, check_store,
     "read the whole store and say what is wrong with it"},
    {"scrub", "", 0, 0, 0, scrub_now, "read and verify everything now, while the store serves"},
    {"rebuild-index", "", 0, OPT_SHARD | OPT_SALVAGE, 0, rebuild_index,
     "make the indexes again from their copies and the logs"},
    {"compact-index", "", 0, OPT_SHARD, 0, compact_index, "write the indexes anew without their free pages"},
    {"backup", "DEST", 1, OPT_RATE | OPT_KEEP | OPT_KEEP_DAYS, 0, backup_make,
     "copy what is new in the store to DEST, while it serves"},
    {"restore", "DEST", 1, OPT_TO | OPT_AT | OPT_ACCOUNT | OPT_MAILBOX | OPT_UID | OPT_LIST, 0, backup_restore,
     "make a new store out of a backup"},
    {"dict list", "", 0, 0, 0, dict_list, "list the dictionaries that the store made from its mail"},
    {"dict train", "", 0, 0, 0, dict_train, "make new ones now, if they save more than 3 %"},
    {"config check", "", 0, 0, 0, config_check, "is the configuration good?"},
    {"config dump", "", 0, 0, 0, config_dump, "every setting as it stands, and where it comes from"},
    {"version", "", 0, 0, 0, version_show, "print the version, and the formats of stores that it opens"},
};

static const struct option options[] = {
    {"json", no_argument, NULL, 'j'},
    {"password-stdin", no_argument, NULL, 'p'},
    {"scheme", required_argument, NULL, 'S'},
    {"yes", no_argument, NULL, 'y'},
    {"hostname", required_argument, NULL, 'H'},
    {"port-offset", required_argument, NULL, 'P'},
    {"shards", required_argument, NULL, 'N'},
    {"segment-size", required_argument, NULL, 'G'},
    {"mailbox", required_argument, NULL, 'm'},
    {"since", required_argument, NULL, 's'},
    {"uid", required_argument, NULL, 'u'},
    {"to", required_argument, NULL, 't'},
    {"all", no_argument, NULL, 'a'},
    {"list", no_argument, NULL, 'l'},
    {"deleted", no_argument, NULL, 'd'},
    {"days", required_argument, NULL, 'D'},
    {"none", no_argument, NULL, 'n'},
    {"default", no_argument, NULL, 'f'},
    {"shard", required_argument, NULL, 'B'},
    {"repair", no_argument, NULL, 'R'},
    {"truncate", no_argument, NULL, 'T'},
    {"salvage", no_argument, NULL, 'W'},
    {"rate", required_argument, NULL, 'E'},
    {"keep", required_argument, NULL, 'K'},
    {"keep-days", required_argument, NULL, 'Y'},
    {"at", required_argument, NULL, 'A'},
    {"account", required_argument, NULL, 'Q'},
    {"storage", required_argument, NULL, 'O'},
    {"messages", required_argument, NULL, 'M'},
    {"mailboxes", required_argument, NULL, 'X'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

void tool_fail(struct tool *t, int code, const char *fmt, ...)
{
    va_list ap;

    fputs("tambo: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    t->exit = code;
}

struct tb_config *tool_config(struct tool *t)
{
    struct tb_config *cfg = NULL;
    struct tb_error err = {0};

    if (tb_config_load(t->conf, &cfg, &err) == TB_OK)
        return cfg;
    tool_fail(t, EX_CONFIG, "%s", err.text);
    return NULL;
}

bool tool_confirm(struct tool *t, const char *question)
{
    char answer[16] = "";

    if (t->given & OPT_YES)
        return true;
    if (!isatty(STDIN_FILENO)) {
        tool_fail(t, EX_USAGE, "%s Say --yes to mean it", question);
        return false;
    }
    fprintf(stderr, "%s [y/N] ", question);
    if (fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return true;
    tool_fail(t, EX_USAGE, "nothing was changed");
    return false;
}

static void version_show(struct tool *t)
{
    uint32_t oldest, newest;

    tb_store_formats(&oldest, &newest);
    if (t->json)
        printf("{\"version\":\"" TB_VERSION "\",\"store_format\":%u,\"store_format_oldest\":%u}\n", newest, oldest);
    else
        printf("tambo " TB_VERSION ", store format %u (opens %u to %u)\n", newest, oldest, newest);
}

static int help(void)
{
    puts("usage: tambo [-c FILE] [--json] COMMAND ...\n");
    for (size_t i = 0; i < TB_ARRAY_LEN(commands); i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].args);
        printf("  %-28s %s\n", left, commands[i].help);
    }
    puts("\n  -c FILE            the configuration (default: $TAMBO_CONF, then /etc/tambo/tambo.conf)\n"
         "  --json             print JSON, one object a line for lists\n"
         "  --password-stdin   account add, passwd: the password is the first line of stdin\n"
         "  --scheme S         account add, passwd: how it is stored: SCRAM-SHA-256, ARGON2ID, BLF-CRYPT,\n"
         "                     SHA512-CRYPT, PLAIN; default: as the configuration says\n"
         "  --yes              delete: do not ask\n"
         "  --deleted          account list: the deleted ones that can come back\n"
         "  --list             undelete: only show what could come back; restore: what backups there are\n"
         "  --all              undelete: everything; gc: compress every message anew, though little is dead\n"
         "  --since T          undelete: what was deleted since T: 2026-11-20, 2026-11-20T14:03 (UTC), or 3h, 2d ago\n"
         "  --account A        restore: this account alone\n"
         "  --mailbox M        undelete, restore: of this mailbox alone\n"
         "  --uid U            undelete: messages by the UIDs they had in the mailbox: 4,7:9; restore: this one\n"
         "  --days N           mailbox retention: expunge messages that have been in it for N days\n"
         "  --none             mailbox retention: keep messages for ever; quota: take all limits off\n"
         "  --default          mailbox retention: as the configuration says of its special use\n"
         "  --storage B        quota: bytes that the account may hold: 500M, 10G; none: no limit\n"
         "  --messages N       quota: messages that it may hold, or none\n"
         "  --mailboxes N      quota: mailboxes that it may have, or none\n"
         "  --to M             undelete: into this mailbox, not where it was; restore: the folder to make\n"
         "  --at T             restore: as it was then: 2026-11-20T14:03:00Z, or seconds since 1970\n"
         "  --rate B           backup: bytes a second at most: 12K, 12M, 12G\n"
         "  --keep N           backup: let go of older backups but the last N\n"
         "  --keep-days D      backup: and but those of the last D days\n"
         "  --hostname H       init: this server's name (default: the machine's)\n"
         "  --port-offset N    init: listen on the well-known ports + N (default 10000)\n"
         "  --shards N         init: parts of the store, fixed for ever (default: one a core)\n"
         "  --repair           check: put right what can be\n"
         "  --truncate         check: cut a log in front of damage that no start passes; what is behind is lost\n"
         "  --shard N          rebuild-index, compact-index: this one alone\n"
         "  --salvage          rebuild-index: where the log is not whole, from what is left of it\n"
         "  --segment-size S   init: size of a log segment, 4M to 256M (default 64M)");
    return EX_OK;
}

/* option_given: note one option; false if it is none of ours. */
static bool option_given(struct tool *t, int opt)
{
    static const struct {
        int opt;
        unsigned bit;
        size_t field;
    } kept[] = {{'p', OPT_PASSWORD_STDIN, 0},
                {'y', OPT_YES, 0},
                {'S', OPT_SCHEME, offsetof(struct tool, scheme)},
                {'H', OPT_HOSTNAME, offsetof(struct tool, hostname)},
                {'P', OPT_PORT_OFFSET, offsetof(struct tool, port_offset)},
                {'N', OPT_SHARDS, offsetof(struct tool, shards)},
                {'G', OPT_SEGMENT_SIZE, offsetof(struct tool, segment_size)},
                {'m', OPT_MAILBOX, offsetof(struct tool, mailbox)},
                {'s', OPT_SINCE, offsetof(struct tool, since)},
                {'u', OPT_UID, offsetof(struct tool, uid)},
                {'t', OPT_TO, offsetof(struct tool, to)},
                {'a', OPT_ALL, 0},
                {'l', OPT_LIST, 0},
                {'d', OPT_DELETED, 0},
                {'D', OPT_DAYS, offsetof(struct tool, days)},
                {'n', OPT_NONE, 0},
                {'f', OPT_DEFAULT, 0},
                {'B', OPT_SHARD, offsetof(struct tool, shard)},
                {'R', OPT_REPAIR, 0},
                {'T', OPT_TRUNCATE, 0},
                {'W', OPT_SALVAGE, 0},
                {'E', OPT_RATE, offsetof(struct tool, rate)},
                {'K', OPT_KEEP, offsetof(struct tool, keep)},
                {'Y', OPT_KEEP_DAYS, offsetof(struct tool, keep_days)},
                {'A', OPT_AT, offsetof(struct tool, at)},
                {'Q', OPT_ACCOUNT, offsetof(struct tool, account)},
                {'O', OPT_STORAGE, offsetof(struct tool, storage)},
                {'M', OPT_MESSAGES, offsetof(struct tool, messages)},
                {'X', OPT_MAILBOXES, offsetof(struct tool, mailboxes)}};

    if (opt == 'c')
        t->conf = optarg;
    if (opt == 'j')
        t->json = true;
    if (opt == 'c' || opt == 'j')
        return true;
    for (size_t i = 0; i < TB_ARRAY_LEN(kept); i++) {
        if (kept[i].opt != opt)
            continue;
        t->given |= kept[i].bit;
        if (kept[i].field)
            *(const char **)(void *)((char *)t + kept[i].field) = optarg;
        return true;
    }
    return false;
}

/* find_command: by its one or two words; *words says how many. */
static const struct command *find_command(char **argv, int argc, int *words)
{
    char two[64];

    if (argc < 1)
        return NULL;
    snprintf(two, sizeof(two), "%s %s", argv[0], argc > 1 ? argv[1] : "");
    for (size_t i = 0; i < TB_ARRAY_LEN(commands); i++) {
        *words = strchr(commands[i].name, ' ') ? 2 : 1;
        if (strcmp(commands[i].name, *words == 2 ? two : argv[0]) == 0)
            return &commands[i];
    }
    return NULL;
}

static int run(struct tool *t, int argc, char **argv)
{
    int words = 0;
    const struct command *c = find_command(argv, argc, &words);

    if (!c) {
        tool_fail(t, EX_USAGE,
                  argc ? "there is no command \"%s\"; tambo --help lists them"
                       : "which command? tambo --help lists them",
                  argc ? argv[0] : "");
        return t->exit;
    }
    t->args = argv + words;
    t->args_n = argc - words;
    bool fewer = strchr(c->args, '[') && t->args_n == c->args_n - 2;
    if (t->args_n != c->args_n && !fewer) {
        tool_fail(t, EX_USAGE, "usage: tambo %s %s", c->name, c->args);
        return t->exit;
    }
    if (t->given & ~c->options) {
        tool_fail(t, EX_USAGE, "%s does not take one of these options; tambo --help lists them", c->name);
        return t->exit;
    }
    if (c->needed & ~t->given) {
        tool_fail(t, EX_USAGE, "%s takes the password from stdin: say --password-stdin", c->name);
        return t->exit;
    }
    c->run(t);
    client_close(t);
    if (fflush(stdout) != 0 && t->exit == EX_OK)
        tool_fail(t, EX_IOERR, "cannot write to stdout");
    return t->exit;
}

int main(int argc, char **argv)
{
    struct tool t = {.conf = getenv("TAMBO_CONF")};
    int opt;

    if (!t.conf || !t.conf[0])
        t.conf = "/etc/tambo/tambo.conf";
    tb_log_level(TB_LOG_WARN);
    while ((opt = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
        if (opt == 'h')
            return help();
        if (opt == 'V') {
            version_show(&t);
            return EX_OK;
        }
        if (!option_given(&t, opt))
            return EX_USAGE;
    }
    return run(&t, argc - optind, argv + optind);
}
