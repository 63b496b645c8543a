/* A disk that fails on demand, for a program that is started with this in LD_PRELOAD.
 *
 * The file named by FAILING_DISK says what fails, a line each: OPERATION TEXT. A call of that kind fails with EIO where the path of its file
 * contains the text. No file, no failure. Operations:
 *
 *   open    opening a file, also one that is made
 *   read    reading
 *   read@N  reading at byte N or after it
 *   write   writing and changing the length
 *   sync    fsync, fdatasync; of directories too
 *   stat    asking what a path is
 *   list    reading a directory
 *   name    making, renaming and removing names
 *
 * What a program asks of the kernel without the C library is not seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *operation, const char *path, long long at) {
  const char *control = getenv("FAILING_DISK");
  char rules[4096], *line, *rest;
  if (!control || !path || !strcmp(path, control)) return 0;
  long fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  long len = syscall(SYS_read, fd, rules, sizeof rules - 1);
  syscall(SYS_close, fd);
  if (len <= 0) return 0;
  rules[len] = 0;
  for (line = strtok_r(rules, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *text = strchr(line, ' '), *from = strchr(line, '@');
    if (!text || !strstr(path, text + 1)) continue;
    *text = 0;
    if (from && from < text) {
      *from = 0;
      if (at < atoll(from + 1)) continue;
    }
    if (!strcmp(line, operation)) return 1;
  }
  return 0;
}

static int fails_fd(const char *operation, int fd, long long at) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long len = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (len <= 0) return 0;
  path[len] = 0;
  return fails(operation, path, at);
}

/* The function of the C library that this one stands before. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL_IF(condition, value) \
  do { \
    if (condition) { \
      errno = EIO; \
      return value; \
    } \
  } while (0)

#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { \
    va_list more; \
    va_start(more, flags); \
    mode = va_arg(more, mode_t); \
    va_end(more); \
  }

int open(const char *path, int flags, ...) {
  MODE(flags)
  FAIL_IF(fails("open", path, 0), -1);
  return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags)
  FAIL_IF(fails("open", path, 0), -1);
  return NEXT(open64)(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
  MODE(flags)
  FAIL_IF(fails("open", path, 0), -1);
  return NEXT(openat)(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
  MODE(flags)
  FAIL_IF(fails("open", path, 0), -1);
  return NEXT(openat64)(folder, path, flags, mode);
}

ssize_t read(int fd, void *bytes, size_t count) {
  FAIL_IF(fails_fd("read", fd, 0), -1);
  return NEXT(read)(fd, bytes, count);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t at) {
  FAIL_IF(fails_fd("read", fd, at), -1);
  return NEXT(pread64)(fd, bytes, count, at);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  FAIL_IF(fails_fd("write", fd, 0), -1);
  return NEXT(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  FAIL_IF(fails_fd("write", fd, 0), -1);
  return NEXT(writev)(fd, pieces, count);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  FAIL_IF(fails_fd("write", fd, at), -1);
  return NEXT(pwrite64)(fd, bytes, count, at);
}

int ftruncate64(int fd, off64_t len) {
  FAIL_IF(fails_fd("write", fd, len), -1);
  return NEXT(ftruncate64)(fd, len);
}

int fsync(int fd) {
  FAIL_IF(fails_fd("sync", fd, 0), -1);
  return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
  FAIL_IF(fails_fd("sync", fd, 0), -1);
  return NEXT(fdatasync)(fd);
}

int stat64(const char *path, struct stat64 *found) {
  FAIL_IF(fails("stat", path, 0), -1);
  return NEXT(stat64)(path, found);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found) {
  /* Declared never to be null; to find out whether the kernel has the call, it is asked with null. */
  const char *volatile given = path;
  FAIL_IF(given && *given && fails("stat", path, 0), -1);
  return NEXT(statx)(folder, path, flags, mask, found);
}

DIR *opendir(const char *path) {
  FAIL_IF(fails("list", path, 0), NULL);
  return NEXT(opendir)(path);
}

int mkdir(const char *path, mode_t mode) {
  FAIL_IF(fails("name", path, 0), -1);
  return NEXT(mkdir)(path, mode);
}

int rename(const char *from, const char *to) {
  FAIL_IF(fails("name", to, 0), -1);
  return NEXT(rename)(from, to);
}

int unlink(const char *path) {
  FAIL_IF(fails("name", path, 0), -1);
  return NEXT(unlink)(path);
}
