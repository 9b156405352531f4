/* Faults of a disk and of a clock, preloaded into a process under test (LD_PRELOAD). What this cannot reach: system calls made without libc, which are
   here the renames of rustix and tempfile; kills right before and behind them are met at the calls around them.

   FAULTS        one fault a line: OP PATTERN NTH HOW. OP and PATTERN are fnmatch patterns, PATTERN of the path below the root. NTH: at which such
                 call, 0 = at each. HOW: an error (ENOSPC, EIO, EROFS, EDQUOT, EMFILE), `short` (half of a write goes in, then ENOSPC), `before`,
                 `within` (half of a write goes in) or `after` (SIGKILL at that moment), `hang`.
   FAULTS_ROOT   only what lies below this folder is touched
   FAULTS_WHILE  only while this file exists, if it is set
   FAULTS_LOG    each call that changes something below the root is written there, as `OP PATH`, and each fault, as `! HOW OP PATH`
   FAULTS_CLOCK  a file with seconds that wall time is off by

   Operations: open (to read), read, openw (to write or make), write, sync, rename, remove, mkdir, truncate, link. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MOST 128

enum { NONE = 0, BEFORE = -1, WITHIN = -2, AFTER = -3, HANG = -4, SHORT = -5 };

static struct fault {
    char op[16], pattern[300], how[16];
    long nth;
    int action;
    atomic_long met;
} faults[MOST];
static int count;
static const char *root, *only_while, *clock_file;
static int log_to = -1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct { const char *name; int action; } HOW[] = {
    {"before", BEFORE}, {"within", WITHIN}, {"after", AFTER}, {"hang", HANG},     {"short", SHORT},   {"ENOSPC", ENOSPC},
    {"EIO", EIO},       {"EROFS", EROFS},   {"EDQUOT", EDQUOT}, {"EMFILE", EMFILE},
};

static void complain(const char *what) {
    fprintf(stderr, "faults.c: %s\n", what);
    abort();
}

static void read_plan(void) {
    root = getenv("FAULTS_ROOT");
    only_while = getenv("FAULTS_WHILE");
    clock_file = getenv("FAULTS_CLOCK");
    const char *log = getenv("FAULTS_LOG");
    if (log)
        log_to = (int)syscall(SYS_openat, AT_FDCWD, log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
    const char *plan = getenv("FAULTS");
    char *copy = strdup(plan ? plan : ""), *rest = NULL;
    for (char *line = strtok_r(copy, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (count == MOST)
            complain("too many faults");
        struct fault *f = &faults[count++];
        if (sscanf(line, "%15s %299s %ld %15s", f->op, f->pattern, &f->nth, f->how) != 4)
            complain(line);
        for (size_t i = 0; i < sizeof HOW / sizeof *HOW; i++)
            if (strcmp(HOW[i].name, f->how) == 0)
                f->action = HOW[i].action;
        if (f->action == NONE)
            complain(line);
    }
    free(copy);
}

static void note(const char *how, const char *op, const char *path) {
    char line[PATH_MAX + 64];
    int length = how ? snprintf(line, sizeof line, "! %s %s %s\n", how, op, path) : snprintf(line, sizeof line, "%s %s\n", op, path);
    if (log_to >= 0)
        syscall(SYS_write, log_to, line, (size_t)length);
}

/* The path below the root, or NULL. */
static const char *inside(const char *path) {
    pthread_once(&once, read_plan);
    size_t length = root ? strlen(root) : 0;
    if (!path || length == 0 || strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != 0))
        return NULL;
    return path[length] ? path + length + 1 : ".";
}

/* What is to happen at this call. */
static int judge(const char *op, const char *path) {
    int kept = errno;
    const char *below = inside(path);
    if (!below)
        return NONE;
    if (strcmp(op, "open") != 0 && strcmp(op, "read") != 0)
        note(NULL, op, below);
    int action = NONE;
    if (count && !(only_while && syscall(SYS_access, only_while, F_OK) != 0)) {
        for (int i = 0; i < count && action == NONE; i++) {
            struct fault *f = &faults[i];
            if (fnmatch(f->op, op, 0) != 0 || fnmatch(f->pattern, below, 0) != 0)
                continue;
            long met = atomic_fetch_add(&f->met, 1) + 1;
            if (f->nth == 0 || f->nth == met) {
                action = f->action;
                note(f->how, op, below);
            }
        }
    }
    errno = kept;
    return action;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Before the call: dies, hangs, or answers whether it is to fail, with errno set. */
static int refused(int action) {
    if (action == BEFORE)
        die();
    if (action == HANG)
        for (;;)
            pause();
    if (action == SHORT)
        action = ENOSPC;
    if (action > 0)
        errno = action;
    return action > 0;
}

static void behind(int action) {
    if (action == AFTER || action == WITHIN)
        die();
}

#define CALL(type, op, path, call)                                                                                                                   \
    do {                                                                                                                                             \
        int action = judge(op, path);                                                                                                                \
        if (refused(action))                                                                                                                         \
            return -1;                                                                                                                               \
        type answer = call;                                                                                                                          \
        behind(action);                                                                                                                              \
        return answer;                                                                                                                               \
    } while (0)

static const char *path_of(int fd, char *room) {
    char link[64];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, room, PATH_MAX - 1);
    errno = kept;
    if (length < 0)
        return NULL;
    room[length] = 0;
    return room;
}

static const char *path_at(int folder, const char *name, char *room) {
    if (folder == AT_FDCWD || name[0] == '/')
        return name;
    if (!path_of(folder, room))
        return NULL;
    size_t length = strlen(room);
    snprintf(room + length, PATH_MAX - length, "/%s", name);
    return room;
}

static const char *opening(int flags) { return flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC) ? "openw" : "open"; }

#define MODE(flags)                                                                                                                                  \
    mode_t mode = 0;                                                                                                                                 \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                                                             \
        va_list more;                                                                                                                                \
        va_start(more, flags);                                                                                                                       \
        mode = va_arg(more, mode_t);                                                                                                                 \
        va_end(more);                                                                                                                                \
    }

int open(const char *path, int flags, ...) {
    MODE(flags)
    CALL(int, opening(flags), path, NEXT(open)(path, flags, mode));
}
int open64(const char *path, int flags, ...) {
    MODE(flags)
    CALL(int, opening(flags), path, NEXT(open64)(path, flags, mode));
}
int openat(int folder, const char *path, int flags, ...) {
    MODE(flags)
    char room[PATH_MAX];
    CALL(int, opening(flags), path_at(folder, path, room), NEXT(openat)(folder, path, flags, mode));
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags)
    char room[PATH_MAX];
    CALL(int, opening(flags), path_at(folder, path, room), NEXT(openat64)(folder, path, flags, mode));
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char room[PATH_MAX];
    int action = judge("write", path_of(fd, room));
    if ((action == WITHIN || action == SHORT) && length > 1)
        (void)!NEXT(write)(fd, bytes, length / 2);
    if (refused(action))
        return -1;
    if (action == WITHIN)
        die();
    ssize_t answer = NEXT(write)(fd, bytes, length);
    behind(action);
    return answer;
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    char room[PATH_MAX];
    CALL(ssize_t, "write", path_of(fd, room), NEXT(writev)(fd, parts, n));
}
ssize_t read(int fd, void *bytes, size_t length) {
    char room[PATH_MAX];
    CALL(ssize_t, "read", path_of(fd, room), NEXT(read)(fd, bytes, length));
}
ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
    char room[PATH_MAX];
    CALL(ssize_t, "read", path_of(fd, room), NEXT(pread64)(fd, bytes, length, at));
}
int fsync(int fd) {
    char room[PATH_MAX];
    CALL(int, "sync", path_of(fd, room), NEXT(fsync)(fd));
}
int fdatasync(int fd) {
    char room[PATH_MAX];
    CALL(int, "sync", path_of(fd, room), NEXT(fdatasync)(fd));
}
int ftruncate(int fd, off_t length) {
    char room[PATH_MAX];
    CALL(int, "truncate", path_of(fd, room), NEXT(ftruncate)(fd, length));
}
int ftruncate64(int fd, off64_t length) {
    char room[PATH_MAX];
    CALL(int, "truncate", path_of(fd, room), NEXT(ftruncate64)(fd, length));
}
int rename(const char *from, const char *to) { CALL(int, "rename", to, NEXT(rename)(from, to)); }
int unlink(const char *path) { CALL(int, "remove", path, NEXT(unlink)(path)); }
int rmdir(const char *path) { CALL(int, "remove", path, NEXT(rmdir)(path)); }
int unlinkat(int folder, const char *path, int flags) {
    char room[PATH_MAX];
    CALL(int, "remove", path_at(folder, path, room), NEXT(unlinkat)(folder, path, flags));
}
int mkdir(const char *path, mode_t mode) { CALL(int, "mkdir", path, NEXT(mkdir)(path, mode)); }
int symlink(const char *target, const char *path) { CALL(int, "link", path, NEXT(symlink)(target, path)); }

static long clock_is_off(void) {
    pthread_once(&once, read_plan);
    if (!clock_file)
        return 0;
    char text[32] = "";
    int file = (int)syscall(SYS_openat, AT_FDCWD, clock_file, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0)
        return 0;
    syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long answer = syscall(SYS_clock_gettime, clock, now);
    if (answer == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += clock_is_off();
    return (int)answer;
}
int gettimeofday(struct timeval *now, void *zone) {
    long answer = syscall(SYS_gettimeofday, now, zone);
    if (answer == 0)
        now->tv_sec += clock_is_off();
    return (int)answer;
}
time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}
