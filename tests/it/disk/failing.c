/* Preloaded into a server: its disk fails for as long as a file of the folder DISK_FAULTS says so. A sync then fails as on
 * a broken disk, a write to an open file as on a file system that the kernel has made read-only after an error. While there
 * is a file named stall, a sync has not ended yet. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
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

static int sync_file(long call, int file)
{
    while (fails("stall"))
        usleep(1000);
    if (fails("sync")) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, file);
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
    if (fails("write")) {
        errno = EROFS;
        return -1;
    }
    return syscall(SYS_pwrite64, file, bytes, count, offset);
}
