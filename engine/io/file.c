/*
 * file.c: names and files by plain system calls, for the uring and posix backends.
 *
 * Every call is finished when it returns; EINTR is retried, short reads and writes are continued. O_DIRECT is asked for
 * and given up silently where the filesystem refuses it. A failed fsync or durable write is reported, never repeated.
 * Thread: any. Returns 0 or a value >= 0, or -errno.
 */
#include "backend.h"
#include "engine/base/rules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

static int or_errno(int rc)
{
    return rc < 0 ? -errno : rc;
}

static int open_retry(const char *path, int how)
{
    int fd;
    do {
        fd = open(path, how | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    return or_errno(fd);
}

static int real_open(struct tb_io *io, const char *path, unsigned flags)
{
    (void)io;
    int how = flags & TB_OPEN_WRITE ? O_RDWR : O_RDONLY;
    how |= flags & TB_OPEN_CREATE ? O_CREAT : 0;
    how |= flags & TB_OPEN_EXCL ? O_CREAT | O_EXCL : 0;
    if (!(flags & TB_OPEN_DIRECT))
        return open_retry(path, how);
    int fd = open_retry(path, how | O_DIRECT);
    /* a filesystem that refuses O_DIRECT may have made the file already, so it must not insist on making it */
    return fd == -EINVAL ? open_retry(path, how & ~O_EXCL) : fd;
}

static int real_close(struct tb_io *io, int fd)
{
    (void)io;
    int rc = or_errno(close(fd));
    return rc == -EINTR ? 0 : rc; /* Linux has freed the number all the same */
}

static int64_t real_size(struct tb_io *io, int fd)
{
    (void)io;
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

/* has_room: fallocate() that fails takes what there is and keeps it, so a request that is too large is not made. */
static bool has_room(int fd, uint64_t bytes)
{
    struct stat st;
    struct statvfs fs;
    if (fstat(fd, &st) < 0 || fstatvfs(fd, &fs) < 0 || fs.f_blocks == 0)
        return true;
    uint64_t have = (uint64_t)st.st_blocks * 512;
    return bytes <= have || (bytes - have) / fs.f_frsize < fs.f_bavail;
}

static int real_reserve(struct tb_io *io, int fd, uint64_t bytes)
{
    (void)io;
    if (bytes == 0)
        return 0;
    if (bytes > INT64_MAX)
        return -EFBIG;
    if (!has_room(fd, bytes))
        return -ENOSPC;
    int rc;
    do {
        rc = or_errno(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes));
    } while (rc == -EINTR);
    return rc;
}

static int real_mkdir(struct tb_io *io, const char *path)
{
    (void)io;
    return or_errno(mkdir(path, 0700));
}

static int real_rename(struct tb_io *io, const char *from, const char *to)
{
    (void)io;
    return or_errno(rename(from, to));
}

static int real_unlink(struct tb_io *io, const char *path)
{
    (void)io;
    return or_errno(unlink(path));
}

static int real_links(struct tb_io *io, int fd)
{
    (void)io;
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : (int)st.st_nlink;
}

static int real_sync(struct tb_io *io, int fd)
{
    (void)io;
    int rc;
    do {
        rc = or_errno(fsync(fd));
    } while (rc == -EINTR);
    return rc;
}

static int real_sync_dir(struct tb_io *io, const char *path)
{
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    int rc = real_sync(io, fd);
    (void)close(fd); /* nothing was written through it */
    return rc;
}

static int real_list(struct tb_io *io, const char *path, bool (*each)(void *user, const char *name), void *user)
{
    (void)io;
    DIR *dir = opendir(path);
    if (!dir)
        return -errno;
    int rc = 0;
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(dir);
        if (!e) {
            rc = -errno;
            break;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (!each(user, e->d_name))
            break;
    }
    (void)closedir(dir); /* read only */
    return rc;
}

static int real_lock(struct tb_io *io, int fd)
{
    (void)io;
    int rc;
    do {
        rc = or_errno(flock(fd, LOCK_EX | LOCK_NB));
    } while (rc == -EINTR);
    return rc;
}

bool tb_real_eof(int64_t got, int64_t result)
{
    return result == -EINVAL && got > 0 && got % 512 != 0;
}

int64_t tb_real_read(int fd, void *buf, size_t len, uint64_t offset)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)buf + got, len - got, (off_t)(offset + got));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n == 0 || (n < 0 && tb_real_eof((int64_t)got, -errno)))
            break;
        if (n < 0)
            return -errno;
        got += (size_t)n;
    }
    return (int64_t)got;
}

int64_t tb_real_write(int fd, const void *buf, size_t len, uint64_t offset, bool durable)
{
    size_t put = 0;
    while (put < len) {
        struct iovec v = {(char *)(uintptr_t)buf + put, len - put};
        ssize_t n = pwritev2(fd, &v, 1, (off_t)(offset + put), durable && TB_KEEPS(dsync) ? RWF_DSYNC : 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        put += (size_t)n;
    }
    return (int64_t)put;
}

int tb_real_datasync(int fd)
{
    int rc;
    do {
        rc = or_errno(fdatasync(fd));
    } while (rc == -EINTR);
    return rc;
}

static int64_t real_pread(struct tb_io *io, int fd, void *buf, size_t len, uint64_t offset)
{
    (void)io;
    return tb_real_read(fd, buf, len, offset);
}

static int64_t real_pwrite(struct tb_io *io, int fd, const void *buf, size_t len, uint64_t offset)
{
    (void)io;
    return tb_real_write(fd, buf, len, offset, false);
}

/* block_size_at: the number in a sysfs file; 0 if there is none. */
static uint32_t block_size_at(const char *path)
{
    char text[32];
    uint64_t v = 0;
    int fd = open_retry(path, O_RDONLY);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text));
    (void)close(fd); /* read only */
    return n > 0 && tb_slice_u64(tb_slice_trim(tb_slice(text, (size_t)n)), 1u << 20, &v) ? (uint32_t)v : 0;
}

static uint32_t real_block_bytes(struct tb_io *io, const char *path)
{
    static const char *const where[] = {"queue", "../queue"}; /* a disk, a partition of one */
    struct stat st;
    char name[128];
    uint32_t bytes = 0;
    (void)io;
    if (stat(path, &st) < 0)
        return 512;
    for (size_t i = 0; bytes == 0 && i < TB_ARRAY_LEN(where); i++) {
        (void)snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%s/physical_block_size", major(st.st_dev),
                       minor(st.st_dev), where[i]);
        bytes = block_size_at(name);
    }
    return bytes != 0 ? bytes : 512;
}

static void real_forget(struct tb_io *io, int fd)
{
    (void)io;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* dirty pages stay, and are written as ever */
}

const struct tb_file_calls tb_real_files = {
    .open = real_open,
    .close = real_close,
    .size = real_size,
    .reserve = real_reserve,
    .mkdir = real_mkdir,
    .rename = real_rename,
    .unlink = real_unlink,
    .links = real_links,
    .sync_dir = real_sync_dir,
    .list = real_list,
    .lock = real_lock,
    .pread = real_pread,
    .pwrite = real_pwrite,
    .sync = real_sync,
    .block_bytes = real_block_bytes,
    .forget = real_forget,
};
