/* Writes down what a process does to the files below a folder; see support/power_loss.py, which reads it.

   Loaded with LD_PRELOAD. LIFELONG_RECORD_ROOT is the folder, LIFELONG_RECORD_LOG the file to which records are
   appended, in the order in which the operations happened; several processes may share it. A record is a `struct head`,
   then its data, then a second name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 65536
#define REAL(name) \
    static __typeof__(name) *real_##name; \
    if (!real_##name) real_##name = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

struct head {
    uint64_t handle, offset;
    uint32_t length, second;
    char kind, pad[7];
};

static struct {
    uint64_t handle;
    int stream;
} table[MOST];
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int record = -1;
static uint32_t counter;

static void lock(void) { pthread_mutex_lock(&turn); }
static void unlock(void) { pthread_mutex_unlock(&turn); }

static void give_up(const char *what) {
    fprintf(stderr, "the recorder does not know %s\n", what);
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("LIFELONG_RECORD_ROOT"), *log = getenv("LIFELONG_RECORD_LOG");
    REAL(open);
    if (!folder || !log || !realpath(folder, root)) return;
    root_length = strlen(root);
    /* Out of the way of descriptors that a program expects to be free. */
    int low = real_open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    record = fcntl(low, F_DUPFD_CLOEXEC, 900);
    REAL(close);
    real_close(low);
    pthread_atfork(lock, unlock, unlock);
}

static int inside(const char *path) {
    return record >= 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || !path[root_length]);
}

static void put(char kind, uint64_t handle, uint64_t offset, const void *data, size_t length, const char *second) {
    struct head head = {handle, offset, length, second ? strlen(second) : 0, kind, {0}};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)data, length}, {(void *)second, head.second}};
    REAL(writev);
    if (real_writev(record, parts, 3) != (ssize_t)(sizeof head + length + head.second)) give_up("a full disk");
}

/* The path of a name: that of its folder without links, and the name itself. */
static int resolve(int at, const char *name, char *path) {
    char given[PATH_MAX], folder[PATH_MAX];
    if (record < 0) return 0;
    if (name[0] == '/' || at == AT_FDCWD) snprintf(given, sizeof given, "%s", name);
    else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t size = readlink(link, folder, sizeof folder - 1);
        if (size < 0) return 0;
        folder[size] = 0;
        if (snprintf(given, sizeof given, "%s/%s", folder, name) >= (int)sizeof given) return 0;
    }
    size_t end = strlen(given);
    while (end > 1 && given[end - 1] == '/') given[--end] = 0;
    char *last = strrchr(given, '/');
    const char *base = last ? last + 1 : given;
    if (last) *last = 0;
    if (!realpath(last ? (*given ? given : "/") : ".", folder)) return 0;
    if (snprintf(path, PATH_MAX, "%s/%s", folder, base) >= PATH_MAX) return 0;
    return inside(path);
}

static int traced(int file) { return file >= 0 && file < MOST && table[file].handle; }

/* A file that was opened; existed: before that. */
static void opened(int file, const char *path, int flags, int existed, int stream) {
    if (file >= MOST) give_up("so many descriptors");
    table[file].handle = ((uint64_t)getpid() << 32) | ++counter;
    table[file].stream = stream;
    struct stat found;
    int folder = fstat(file, &found) == 0 && S_ISDIR(found.st_mode);
    put(folder ? 'd' : 'o', table[file].handle, (existed ? 0 : 1) | (flags & O_TRUNC ? 2 : 0), path, strlen(path), NULL);
}

static int open_at(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat found;
    REAL(openat);
    int ours = (flags & O_TMPFILE) != O_TMPFILE && resolve(at, name, path);
    if (!ours) {
        int file = real_openat(at, name, flags, mode);
        if (file >= 0 && file < MOST) table[file].handle = 0;
        return file;
    }
    lock();
    int existed = stat(path, &found) == 0, file = real_openat(at, name, flags, mode);
    if (file >= 0) opened(file, path, flags, existed, 0);
    unlock();
    return file;
}

#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *name, int flags, ...) { MODE return open_at(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE return open_at(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE return open_at(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE return open_at(at, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

/* What a stream writes is not seen: the whole file is put down at each sync and when it is closed. */
FILE *fopen64(const char *name, const char *mode) {
    char path[PATH_MAX];
    struct stat found;
    REAL(fopen);
    if (mode[0] == 'r' || !resolve(AT_FDCWD, name, path)) {
        FILE *stream = real_fopen(name, mode);
        if (stream && fileno(stream) < MOST) table[fileno(stream)].handle = 0;
        return stream;
    }
    lock();
    int existed = stat(path, &found) == 0;
    FILE *stream = real_fopen(name, mode);
    if (stream) opened(fileno(stream), path, mode[0] == 'w' ? O_TRUNC : 0, existed, 1);
    unlock();
    return stream;
}
FILE *fopen(const char *name, const char *mode) { return fopen64(name, mode); }

static void put_whole(int file, uint64_t handle) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    REAL(open);
    int again = real_open(link, O_RDONLY | O_CLOEXEC);
    struct stat found;
    if (again < 0 || fstat(again, &found)) give_up("a stream that cannot be read");
    char *data = malloc(found.st_size + 1);
    if (read(again, data, found.st_size) != found.st_size) give_up("a stream that changes");
    put('w', handle, 0, data, found.st_size, NULL);
    free(data);
    REAL(close);
    real_close(again);
}

int fclose(FILE *stream) {
    REAL(fclose);
    int file = fileno(stream);
    if (traced(file) && table[file].stream) {
        fflush(stream);
        lock();
        put_whole(file, table[file].handle);
        unlock();
    }
    if (file >= 0 && file < MOST) table[file].handle = 0;
    return real_fclose(stream);
}

int close(int file) {
    REAL(close);
    if (file == record && record >= 0) return 0;
    if (file >= 0 && file < MOST) table[file].handle = 0;
    return real_close(file);
}

int dup2(int from, int to) {
    REAL(dup2);
    int file = real_dup2(from, to);
    if (file >= 0 && file < MOST) table[file] = table[from];
    return file;
}

static off_t place_of(int file, ssize_t done) {
    struct stat found;
    /* At the end, where each write goes to the end. */
    if (fcntl(file, F_GETFL) & O_APPEND) return fstat(file, &found) ? 0 : found.st_size - done;
    return lseek(file, 0, SEEK_CUR) - done;
}

ssize_t write(int file, const void *data, size_t length) {
    REAL(write);
    if (!traced(file)) return real_write(file, data, length);
    lock();
    ssize_t done = real_write(file, data, length);
    if (done > 0) put('w', table[file].handle, place_of(file, done), data, done, NULL);
    unlock();
    return done;
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    if (!traced(file)) return real_pwrite64(file, data, length, offset);
    lock();
    ssize_t done = real_pwrite64(file, data, length, offset);
    if (done > 0) put('w', table[file].handle, offset, data, done, NULL);
    unlock();
    return done;
}
ssize_t pwrite(int file, const void *data, size_t length, off_t offset) { return pwrite64(file, data, length, offset); }

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(writev);
    if (!traced(file)) return real_writev(file, parts, number);
    lock();
    ssize_t done = real_writev(file, parts, number), left = done;
    off_t place = done > 0 ? place_of(file, done) : 0;
    for (int at = 0; left > 0; at++) {
        ssize_t size = (ssize_t)parts[at].iov_len < left ? (ssize_t)parts[at].iov_len : left;
        if (size) put('w', table[file].handle, place, parts[at].iov_base, size, NULL);
        place += size;
        left -= size;
    }
    unlock();
    return done;
}

/* A program that cannot copy by it copies by `write`. */
ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
    REAL(sendfile64);
    if (!traced(to)) return real_sendfile64(to, from, offset, length);
    errno = ENOTSUP;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t length) { return sendfile64(to, from, offset, length); }

static int synced(int file, int (*real)(int)) {
    if (!traced(file)) return real(file);
    uint64_t handle = table[file].handle;
    lock();
    if (table[file].stream) put_whole(file, handle);
    put('b', handle, 0, NULL, 0, NULL);
    unlock();
    int failed = real(file);
    lock();
    if (!failed) put('s', handle, 0, NULL, 0, NULL);
    unlock();
    return failed;
}
int fsync(int file) { REAL(fsync); return synced(file, real_fsync); }
int fdatasync(int file) { REAL(fdatasync); return synced(file, real_fdatasync); }

int ftruncate64(int file, off64_t length) {
    REAL(ftruncate64);
    if (!traced(file)) return real_ftruncate64(file, length);
    lock();
    int failed = real_ftruncate64(file, length);
    if (!failed) put('t', table[file].handle, length, NULL, 0, NULL);
    unlock();
    return failed;
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

int truncate64(const char *name, off64_t length) {
    int file = open(name, O_WRONLY), failed = file < 0 ? -1 : ftruncate64(file, length);
    if (file >= 0) close(file);
    return failed;
}
int truncate(const char *name, off_t length) { return truncate64(name, length); }

void *mmap64(void *where, size_t length, int rights, int flags, int file, off64_t offset) {
    REAL(mmap64);
    if (traced(file) && rights & PROT_WRITE && flags & MAP_SHARED) give_up("a file that is written through a mapping");
    return real_mmap64(where, length, rights, flags, file, offset);
}
void *mmap(void *where, size_t length, int rights, int flags, int file, off_t offset) {
    return mmap64(where, length, rights, flags, file, offset);
}

int fallocate64(int file, int mode, off64_t offset, off64_t length) {
    REAL(fallocate64);
    if (traced(file) && mode != FALLOC_FL_KEEP_SIZE) give_up("a file whose size is reserved");
    return real_fallocate64(file, mode, offset, length);
}
int fallocate(int file, int mode, off_t offset, off_t length) { return fallocate64(file, mode, offset, length); }

#define CHANGED(kind, call, path, second) \
    lock(); \
    int failed = call; \
    if (!failed) put(kind, 0, 0, path, strlen(path), second); \
    unlock(); \
    return failed

int renameat2(int at, const char *name, int to, const char *other, unsigned flags) {
    char path[PATH_MAX], second[PATH_MAX];
    REAL(renameat2);
    int one = resolve(at, name, path), two = resolve(to, other, second);
    if (!one && !two) return real_renameat2(at, name, to, other, flags);
    if (!one || !two || flags) give_up("a name that goes in or out, or an exchange of names");
    CHANGED('r', real_renameat2(at, name, to, other, 0), path, second);
}
int renameat(int at, const char *name, int to, const char *other) { return renameat2(at, name, to, other, 0); }
int rename(const char *name, const char *other) { return renameat2(AT_FDCWD, name, AT_FDCWD, other, 0); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    REAL(unlinkat);
    if (!resolve(at, name, path)) return real_unlinkat(at, name, flags);
    CHANGED('u', real_unlinkat(at, name, flags), path, NULL);
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    REAL(mkdirat);
    if (!resolve(at, name, path)) return real_mkdirat(at, name, mode);
    CHANGED('m', real_mkdirat(at, name, mode), path, NULL);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int linkat(int at, const char *name, int to, const char *other, int flags) {
    char path[PATH_MAX], second[PATH_MAX];
    REAL(linkat);
    int one = resolve(at, name, path), two = resolve(to, other, second);
    if (!one && !two) return real_linkat(at, name, to, other, flags);
    if (!one || !two) give_up("a link that goes in or out");
    CHANGED('l', real_linkat(at, name, to, other, flags), path, second);
}
int link(const char *name, const char *other) { return linkat(AT_FDCWD, name, AT_FDCWD, other, 0); }
