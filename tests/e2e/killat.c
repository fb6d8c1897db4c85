// Preloaded into ragduet: SIGKILL before, or a full disk at, the Nth operation on files under $KILL_UNDER.
// $KILL_AT or $FAIL_AT: N, from 1. $KILL_LOG: a file that gets a line an operation.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : -1;
}

// Whether a path is one of those that count; of a relative one nothing is known but that it is no device.
static int counts(const char *path) {
    const char *under = getenv("KILL_UNDER");
    return path && under && !strncmp(path, under, strlen(under));
}

static int counts_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return counts(path);
}

// Counts an operation: whether it is to fail.
static int hit(const char *what, const char *path) {
    long now = atomic_fetch_add(&count, 1) + 1;
    const char *log = getenv("KILL_LOG");
    if (log) {
        char line[4200];
        int n = snprintf(line, sizeof line, "%ld %s %s\n", now, what, path);
        int fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (fd >= 0) {
            if (REAL(write)(fd, line, n) < 0) abort();
            close(fd);
        }
    }
    if (now == number("KILL_AT")) kill(getpid(), SIGKILL);
    if (now != number("FAIL_AT")) return 0;
    errno = ENOSPC;
    return 1;
}

static int mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; }

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = mode_of(flags, more);
    va_end(more);
    if ((flags & O_CREAT) && counts(path) && hit("create", path)) return -1;
    return REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    int mode = mode_of(flags, more);
    va_end(more);
    if ((flags & O_CREAT) && counts(path) && hit("create", path)) return -1;
    return REAL(open)(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
    if (counts(path) && hit("mkdir", path)) return -1;
    return REAL(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
    if (counts(to) && hit("rename", to)) return -1;
    int done = REAL(rename)(from, to);
    if (counts(to)) hit("renamed", to);
    return done;
}

// A file that cannot be removed is no full disk: these are only killed at.
int unlink(const char *path) {
    if (counts(path)) hit("unlink", path);
    return REAL(unlink)(path);
}

int unlinkat(int dir, const char *path, int flags) {
    if (counts_fd(dir) || counts(path)) hit("unlinkat", path);
    return REAL(unlinkat)(dir, path, flags);
}

int rmdir(const char *path) {
    if (counts(path)) hit("rmdir", path);
    return REAL(rmdir)(path);
}

int fsync(int fd) {
    if (counts_fd(fd) && hit("fsync", "")) return -1;
    return REAL(fsync)(fd);
}

ssize_t write(int fd, const void *bytes, size_t n) {
    if (fd > 2 && counts_fd(fd) && hit("write", "")) return -1;
    return REAL(write)(fd, bytes, n);
}
