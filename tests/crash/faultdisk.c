/*
 * faultdisk.c: a disk that fails when it is told to: a FUSE file system with one file, "disk", to put a loop device on.
 *
 *   faultdisk BACKING MOUNTPOINT      in the foreground; ends when it is unmounted
 *
 * Writing a line to "control" beside it sets what fails from then on, reading it tells what did:
 *   write N    the next N writes fail with EIO (-1: all of them; 0: none)
 *   flush N    the same for flushes (fsync)
 *   read AT N  a bad sector: every read of any of the N bytes from AT on fails with EIO
 *   off        nothing fails any more
 * A failed write changes nothing; a failed flush forgets nothing, so what the file system above believes is its own
 * affair. Thread: one (run with -s).
 */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int backing;
static off_t disk_bytes;
static long write_faults, flush_faults;                           /* still to come; -1: for ever */
static unsigned long failed_writes, failed_flushes, failed_reads; /* so far */
static off_t bad_at, bad_bytes;

static bool is_disk(const char *path)
{
    return strcmp(path, "/disk") == 0;
}

static bool is_control(const char *path)
{
    return strcmp(path, "/control") == 0;
}

/* due: does this call fail? */
static bool due(long *left, unsigned long *count)
{
    if (*left == 0)
        return false;
    if (*left > 0)
        --*left;
    ++*count;
    return true;
}

static int on_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    memset(st, 0, sizeof(*st));
    st->st_nlink = 1;
    if (strcmp(path, "/") == 0)
        st->st_mode = S_IFDIR | 0700;
    else if (is_disk(path) || is_control(path))
        st->st_mode = S_IFREG | 0600;
    else
        return -ENOENT;
    st->st_size = is_disk(path) ? disk_bytes : is_control(path) ? 64 : 0;
    return 0;
}

static int on_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
                      enum fuse_readdir_flags flags)
{
    (void)path, (void)offset, (void)fi, (void)flags;
    fill(buf, "disk", NULL, 0, 0);
    fill(buf, "control", NULL, 0, 0);
    return 0;
}

static int on_open(const char *path, struct fuse_file_info *fi)
{
    fi->direct_io = is_control(path);
    return is_disk(path) || is_control(path) ? 0 : -ENOENT;
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    (void)size, (void)fi;
    return is_control(path) ? 0 : -EPERM;
}

static int on_read(const char *path, char *buf, size_t len, off_t offset, struct fuse_file_info *fi)
{
    char text[64];
    (void)fi;
    if (is_disk(path)) {
        if (bad_bytes > 0 && offset < bad_at + bad_bytes && bad_at < offset + (off_t)len) {
            failed_reads++;
            return -EIO;
        }
        ssize_t n = pread(backing, buf, len, offset);
        return n < 0 ? -errno : (int)n;
    }
    int n = snprintf(text, sizeof(text), "failed writes %lu flushes %lu reads %lu\n", failed_writes, failed_flushes,
                     failed_reads);
    if (offset >= n)
        return 0;
    len = len < (size_t)(n - offset) ? len : (size_t)(n - offset);
    memcpy(buf, text + offset, len);
    return (int)len;
}

static int command(const char *buf, size_t len)
{
    char text[64] = "";
    long n, at;
    memcpy(text, buf, len < sizeof(text) ? len : sizeof(text) - 1);
    if (sscanf(text, "write %ld", &n) == 1)
        write_faults = n;
    else if (sscanf(text, "flush %ld", &n) == 1)
        flush_faults = n;
    else if (sscanf(text, "read %ld %ld", &at, &n) == 2) {
        bad_at = at;
        bad_bytes = n;
    } else if (strncmp(text, "off", 3) == 0)
        write_faults = flush_faults = bad_bytes = 0;
    else
        return -EINVAL;
    return (int)len;
}

static int on_write(const char *path, const char *buf, size_t len, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    if (is_control(path))
        return command(buf, len);
    if (due(&write_faults, &failed_writes))
        return -EIO;
    ssize_t n = pwrite(backing, buf, len, offset);
    return n < 0 ? -errno : (int)n;
}

static int on_fsync(const char *path, int only_data, struct fuse_file_info *fi)
{
    (void)only_data, (void)fi;
    return is_disk(path) && due(&flush_faults, &failed_flushes) ? -EIO : 0;
}

static const struct fuse_operations operations = {
    .getattr = on_getattr,
    .readdir = on_readdir,
    .open = on_open,
    .truncate = on_truncate,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
};

int main(int argc, char **argv)
{
    char *arguments[] = {argv[0], (char[]){"-f"}, (char[]){"-s"}, argc > 2 ? argv[2] : NULL, NULL};
    if (argc != 3) {
        fprintf(stderr, "faultdisk BACKING MOUNTPOINT\n");
        return 64;
    }
    backing = open(argv[1], O_RDWR | O_CLOEXEC);
    disk_bytes = backing < 0 ? -1 : lseek(backing, 0, SEEK_END);
    if (disk_bytes < 0) {
        perror(argv[1]);
        return 66;
    }
    return fuse_main(4, arguments, &operations, NULL);
}
