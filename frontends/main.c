/*
 * main.c: tambod, the mail server's process: options, limits, signals. What it serves is in daemon.c.
 *
 * It must never answer anything before the store is open, and never go on after a shard failed (daemon.c ends the
 * process). Threads: main waits for signals, which every other thread has blocked. Exit codes: sysexits.h; 78 for a bad
 * configuration.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "frontends/daemon.h"

static int usage(FILE *to)
{
    fprintf(to, "usage: tambod -c FILE [-t]\n"
                "       tambod -V\n"
                "  -c FILE  the configuration (tambo.conf(5))\n"
                "  -t       check the configuration and exit: 0 good, 78 bad\n"
                "  -V       print the version\n");
    return to == stdout ? EX_OK : EX_USAGE;
}

/* limits: as many descriptors as allowed; no core files, there is mail in memory. */
static void limits(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) != 0)
            tb_log(TB_LOG_WARN, "the limit of open files stays as it is");
    }
    lim.rlim_cur = lim.rlim_max = 0;
    if (setrlimit(RLIMIT_CORE, &lim) != 0)
        tb_log(TB_LOG_WARN, "core files cannot be switched off");
}

static void reload(struct daemon *d, const char *path)
{
    struct tb_config *fresh = NULL;
    struct tb_error err = {0};

    notify("RELOADING=1");
    if (tb_config_load(path, &fresh, &err) == TB_OK && daemon_reload(d, fresh, &err))
        tb_log(TB_LOG_INFO, "reloaded file=%s", path);
    else
        tb_log(TB_LOG_ERROR, "reload failed, everything stays as it was: %s", err.text);
    tb_config_free(fresh);
    notify("READY=1");
}

static int serve(const struct tb_config *cfg, const sigset_t *signals)
{
    struct tb_error err = {0};
    struct daemon *d;
    int sig = 0, code;

    if (!daemon_start(cfg, &d, &code, &err)) {
        tb_log(TB_LOG_ERROR, "%s", err.text);
        _exit(code); /* some threads may run already: nothing may be taken apart under them */
    }
    notify("READY=1");
    while (sigwait(signals, &sig) != 0 || sig == SIGHUP)
        if (sig == SIGHUP)
            reload(d, cfg->path);
    notify("STOPPING=1");
    tb_log(TB_LOG_INFO, "stopping signal=%s", sig == SIGTERM ? "TERM" : "INT");
    if (!daemon_stop(d))
        return EX_TEMPFAIL;
    tb_log(TB_LOG_INFO, "stopped");
    return EX_OK;
}

int main(int argc, char **argv)
{
    struct tb_config *cfg = NULL;
    struct tb_error err = {0};
    const char *path = NULL;
    bool check = false;
    sigset_t signals;
    int opt, code;

    while ((opt = getopt(argc, argv, "c:thV")) != -1) {
        if (opt == 'V') {
            puts("tambod " TB_VERSION);
            return EX_OK;
        }
        if (opt == 'h')
            return usage(stdout);
        if (opt == 'c')
            path = optarg;
        else if (opt == 't')
            check = true;
        else
            return usage(stderr);
    }
    if (!path || optind != argc)
        return usage(stderr);
    if (tb_config_load(path, &cfg, &err) != TB_OK || !daemon_check(cfg, &err)) {
        fprintf(stderr, "%s\n", err.text);
        tb_config_free(cfg);
        return EX_CONFIG;
    }
    if (check) {
        printf("%s: good\n", path);
        tb_config_free(cfg);
        return EX_OK;
    }
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* inherited by every thread: only sigwait sees them */
    signal(SIGPIPE, SIG_IGN);
    umask(0077);
    limits();
    daemon_log_level(cfg);
    code = serve(cfg, &signals);
    tb_config_free(cfg);
    return code;
}
