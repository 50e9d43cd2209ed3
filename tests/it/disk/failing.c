/* Preloaded into a server: its disk fails for as long as a file of the folder DISK_FAULTS says so. A sync then fails as on
 * a broken disk (sync), or all that changes a file as on a file system that the kernel has made read-only after an error
 * (readonly), a sync of what was written before among it. While there is a file named stall, a sync has not ended yet. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(const char *call)
{
    char path[PATH_MAX];
    const char *folder = getenv("DISK_FAULTS");
    return folder && snprintf(path, sizeof path, "%s/%s", folder, call) < (int)sizeof path && !access(path, F_OK);
}

static int is_read_only(void)
{
    if (!fails("readonly"))
        return 0;
    errno = EROFS;
    return 1;
}

static int sync_file(long call, int file)
{
    while (fails("stall"))
        usleep(1000);
    if (fails("sync")) {
        errno = EIO;
        return -1;
    }
    return is_read_only() ? -1 : (int)syscall(call, file);
}

int fdatasync(int file)
{
    return sync_file(SYS_fdatasync, file);
}

int fsync(int file)
{
    return sync_file(SYS_fsync, file);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off_t offset)
{
    return is_read_only() ? -1 : syscall(SYS_pwrite64, file, bytes, count, offset);
}

int ftruncate64(int file, off_t length)
{
    return is_read_only() ? -1 : (int)syscall(SYS_ftruncate, file, length);
}

int rename(const char *from, const char *to)
{
    return is_read_only() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
    return is_read_only() ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_ACCMODE) != O_RDONLY && is_read_only())
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
