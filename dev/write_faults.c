/* Write faults: the n-th write, rename or fsync below a folder fails, or a write writes a half; see write_faults.py.
   Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096];
static int error;        /* 0: a short write */
static long left, done;  /* writes until the fault, -1 for none; faults so far */

void fault_arm(const char *below, long at, int number) {
    strncpy(folder, below, sizeof folder - 1);
    error = number;
    left = at;
    done = 0;
}

long fault_disarm(void) {
    left = -1;
    folder[0] = 0;
    return done;
}

static int is_due(int fd) {
    char name[64], path[4096];
    if (!folder[0] || left < 0) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    if (left-- > 0) return 0;
    done++;
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (is_due(fd)) {
        if (error) { errno = error; return -1; }
        size = size > 1 ? size / 2 : size;
    }
    return real(fd, data, size);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    if (folder[0] && left >= 0 && error && !strncmp(to, folder, strlen(folder)) && left-- == 0) {
        done++;
        errno = error;
        return -1;
    }
    return real(from, to);
}

int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (error && is_due(fd)) {
        errno = error;
        return -1;
    }
    return real(fd);
}
