/*
 * clock.c: the real clocks and the kernel's random bytes, for the uring and posix backends. Any thread.
 */
#include "backend.h"

#include <errno.h>
#include <sys/random.h>
#include <time.h>

static uint64_t real_now_ns(struct tb_io *io)
{
    (void)io;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int64_t real_wall_ms(struct tb_io *io)
{
    (void)io;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void real_random(struct tb_io *io, void *buf, size_t len)
{
    (void)io;
    char *p = buf;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        TB_ASSERT(n > 0 || errno == EINTR);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}

const struct tb_clock_calls tb_real_clock = {real_now_ns, real_wall_ms, real_random};
