/*
 * process.c: the memory and the library writes of a simulated process: process.h.
 *
 * The region is a bump allocator with free lists by size class, at a fixed address, so that a run's addresses are the
 * same each time. A block has 16 bytes in front of it. glibc's own entry points (__libc_malloc and the like) serve
 * everything else. Must never: allocate from the region what outlives the simulated process.
 */
#include "process.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define OWN_MEMORY 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OWN_MEMORY 0
#endif
#endif
#ifndef OWN_MEMORY
#define OWN_MEMORY 1
#endif

static unsigned depth;
static bool plain;
static struct tb_sim *worlds[3];

void process_enter(void)
{
    depth++;
}

void process_leave(void)
{
    depth--;
}

unsigned process_pause(void)
{
    unsigned was = depth;
    depth = 0;
    return was;
}

void process_resume(unsigned was)
{
    depth = was;
}

bool process_has_memory(void)
{
    return OWN_MEMORY;
}

void process_plain(bool on)
{
    plain = on;
}

/* ---- memory ---- */

static uint64_t allocations, failed, fail_at;
static bool fail_sticky;

void process_fail(uint64_t n, bool sticky)
{
    allocations = failed = 0;
    fail_at = n;
    fail_sticky = sticky;
}

uint64_t process_allocations(void)
{
    return allocations;
}

uint64_t process_failed(void)
{
    return failed;
}

#if OWN_MEMORY

#define REGION_AT ((char *)0x600000000000)
#define REGION_BYTES ((size_t)16 << 30)
enum { HEAD = 16, CLASSES = 160, ALIGNED = 255, KEEP_BYTES = 64 << 20 };

struct head {
    uint64_t size;
    uint32_t back; /* ALIGNED: bytes from the block it lies in to this head's end */
    uint32_t class;
};
_Static_assert(sizeof(struct head) == HEAD, "head");

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);

static char *region;
static size_t used, used_max;
static void *free_list[CLASSES];

static bool in_region(const void *p)
{
    return region && (const char *)p >= region && (const char *)p < region + REGION_BYTES;
}

/* class_of: four classes for each power of two; *bytes becomes the class's size. */
static uint32_t class_of(size_t n, size_t *bytes)
{
    if (n <= 64) {
        *bytes = n == 0 ? 16 : (n + 15) / 16 * 16;
        return (uint32_t)(*bytes / 16 - 1);
    }
    unsigned log = 63 - (unsigned)__builtin_clzll(n - 1); /* n in (2^log, 2^(log + 1)] */
    size_t step = (size_t)1 << (log - 2), k = (n - ((size_t)1 << log) + step - 1) / step;
    *bytes = ((size_t)1 << log) + k * step;
    return 4 + (log - 6) * 4 + (uint32_t)k - 1;
}

static void *region_alloc(size_t n)
{
    size_t bytes;
    uint32_t c = class_of(n, &bytes);
    char *p = free_list[c];
    if (p) {
        memcpy(&free_list[c], p, sizeof(void *));
    } else {
        if (!region) {
            region = mmap(REGION_AT, REGION_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
            if (region == MAP_FAILED)
                abort();
        }
        if (used + HEAD + bytes > REGION_BYTES)
            abort(); /* the server leaks without end */
        p = region + used + HEAD;
        used += HEAD + bytes;
        used_max = used > used_max ? used : used_max;
    }
    struct head h = {n, 0, c};
    memcpy(p - HEAD, &h, HEAD);
    return p;
}

static void region_free(char *p)
{
    struct head h;
    memcpy(&h, p - HEAD, HEAD);
    if (h.class == ALIGNED) {
        p -= h.back;
        memcpy(&h, p - HEAD, HEAD);
    }
    memcpy(p, &free_list[h.class], sizeof(void *));
    free_list[h.class] = p;
}

static bool is_servers(void)
{
    return depth > 0 && tb_sim_own_memory == 0 && !plain;
}

/* allocation_fails: a place for a debugger to stop at. */
static __attribute__((noinline)) bool allocation_fails(void)
{
    failed++;
    errno = ENOMEM;
    return true;
}

static bool must_fail(void)
{
    allocations++;
    if (fail_at == 0 || !(allocations == fail_at || (fail_sticky && allocations > fail_at)))
        return false;
    return allocation_fails();
}

void process_died(void)
{
    if (plain)
        return;
    memset(free_list, 0, sizeof(free_list));
    if (used_max > KEEP_BYTES) { /* pages that are always there need no faults; a rare big run's are given back */
        (void)madvise(region + KEEP_BYTES, used_max - KEEP_BYTES, MADV_DONTNEED);
        used_max = KEEP_BYTES;
    }
    used = 0;
}

void *malloc(size_t n)
{
    if (!is_servers())
        return __libc_malloc(n);
    return must_fail() ? NULL : region_alloc(n);
}

void free(void *p)
{
    if (in_region(p))
        region_free(p);
    else
        __libc_free(p);
}

void *calloc(size_t n, size_t size)
{
    if (!is_servers())
        return __libc_calloc(n, size);
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || must_fail())
        return NULL;
    void *p = region_alloc(bytes);
    return memset(p, 0, bytes);
}

void *realloc(void *old, size_t n)
{
    if (!in_region(old))
        return old == NULL ? malloc(n) : __libc_realloc(old, n);
    struct head h;
    memcpy(&h, (char *)old - HEAD, HEAD);
    void *p = malloc(n);
    if (p == NULL)
        return NULL;
    memcpy(p, old, h.size < n ? h.size : n);
    region_free(old);
    return p;
}

static void *region_aligned(size_t align, size_t n)
{
    if (align <= HEAD)
        return region_alloc(n);
    char *raw = region_alloc(n + 2 * align);
    char *p = (char *)(((uintptr_t)raw + align) & ~(uintptr_t)(align - 1));
    struct head h = {n, (uint32_t)(p - raw), ALIGNED};
    memcpy(p - HEAD, &h, HEAD);
    return p;
}

void *aligned_alloc(size_t align, size_t n)
{
    if (!is_servers())
        return __libc_memalign(align, n);
    return must_fail() ? NULL : region_aligned(align, n);
}

void *memalign(size_t align, size_t n)
{
    return aligned_alloc(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = aligned_alloc(align, n);
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

#else

void process_died(void) {}

#endif

/* ---- writes by libraries ---- */

void process_world(struct tb_sim *sim)
{
    size_t i = 0;
    while (worlds[i] && i < TB_ARRAY_LEN(worlds) - 1)
        i++;
    worlds[i] = sim;
}

void process_forget(struct tb_sim *sim)
{
    for (size_t i = 0; i < TB_ARRAY_LEN(worlds); i++)
        if (worlds[i] == sim)
            worlds[i] = NULL;
}

static bool in_a_world(int fd, const void *buf, size_t len, uint64_t offset, int64_t *result)
{
    for (size_t i = TB_ARRAY_LEN(worlds); i-- > 0;)
        if (worlds[i] && tb_sim_foreign_write(worlds[i], fd, buf, len, offset, result))
            return true;
    return false;
}

static ssize_t as_libc(int64_t result)
{
    if (result < 0)
        errno = (int)-result;
    return result < 0 ? -1 : result;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    int64_t result;
    if (in_a_world(fd, buf, len, (uint64_t)offset, &result))
        return as_libc(result);
    return syscall(SYS_pwrite64, fd, buf, len, offset);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    int64_t put = 0, result = 0;
    for (int i = 0; i < n && at >= 0; i++) {
        if (!in_a_world(fd, v[i].iov_base, v[i].iov_len, (uint64_t)(at + put), &result))
            break;
        put += result > 0 ? result : 0;
        if (result != (int64_t)v[i].iov_len) /* an error after some bytes is told by the next call */
            return put > 0 ? as_libc(put) : as_libc(result);
    }
    if (put == 0)
        return syscall(SYS_writev, fd, v, n);
    (void)lseek(fd, at + put, SEEK_SET); /* it was seekable a moment ago */
    return put;
}
