/* Makes opening a file hang as on a disk whose server is away: preloaded into a daemon, it waits for ever in open() of a path that contains
   $HANG_PATH once the file $HANG_FLAG exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int opened(const char *name, const char *path, int flags, mode_t mode) {
    const char *hang = getenv("HANG_PATH"), *flag = getenv("HANG_FLAG");
    if (hang && flag && strstr(path, hang) && access(flag, F_OK) == 0)
        for (;;)
            pause();
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);
    return next(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opened("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    return opened("open64", path, flags, mode);
}
