/*
 * crash.c: a mark that a dying process leaves, so that the next one looks before it trusts what this one had open.
 *
 * LMDB believes its pages: a damaged one can kill the process (SIGSEGV, SIGBUS for a page that cannot be read, SIGABRT
 * from its asserts and ours). The handler makes an empty file and lets the signal take its course. Only what is safe in
 * a signal handler is called there. Thread: whichever dies; the path is set once, before threads start.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <tambo/io.h>

static char mark[1100]; /* a process has one store */

static void dying(int sig)
{
    static const char said[] = "level=error alert: the process crashed; the next start looks at the indexes first\n";
    int before = errno, fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)close(fd);
    if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0)
        errno = before; /* nobody to tell */
    (void)signal(sig, SIG_DFL);
    (void)raise(sig); /* delivered when this returns */
}

void tb_io_crash_mark(const char *path)
{
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    (void)snprintf(mark, sizeof(mark), "%s", path);
    for (size_t i = 0; i < TB_ARRAY_LEN(deadly); i++) {
        struct sigaction now, mine = {.sa_handler = dying};
        (void)sigemptyset(&mine.sa_mask);
        if (sigaction(deadly[i], NULL, &now) == 0 && now.sa_handler == SIG_DFL) /* a sanitizer's own comes first */
            (void)sigaction(deadly[i], &mine, NULL);
    }
}
