/* See affinity_key.h. */
#include "endpoints/affinity_key.h"

#include "endpoints/affinity.h"
#include "base/siphash.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT "session.key" /* in the state directory */

/* Reads the whole of a file of at most `room` bytes into `out`; returns how many, `room` if there are more, or -1 (errno). */
static ssize_t
file_read(const char *name, uint8_t *out, size_t room)
{
  size_t n       = 0;
  ssize_t read_n = 0;
  int fd         = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return -1;
  }
  while (n < room && ((read_n = read(fd, out + n, room - n)) > 0 || (read_n < 0 && errno == EINTR))) {
    n += read_n > 0 ? (size_t)read_n : 0;
  }
  int failure = errno;
  (void)close(fd);
  errno = failure;
  return read_n < 0 ? -1 : (ssize_t)n;
}

/* 16 bytes are the key; of more, each decides: text of any kind may be in the file. */
static void
key_derive(const uint8_t *bytes, size_t len, uint8_t key[ATSK_AFFINITY_KEY])
{
  if (len == ATSK_AFFINITY_KEY) {
    memcpy(key, bytes, len);
    return;
  }
  for (uint64_t half = 0; half < 2; half++) {
    const struct atsk_siphash_key fixed = {UINT64_C(0x61666669), half};
    const uint64_t value                = atsk_siphash(&fixed, (const char *)bytes, len);
    memcpy(key + half * sizeof value, &value, sizeof value);
  }
}

static enum atsk_status
key_file_load(const char *name, char *why, size_t why_size)
{
  uint8_t bytes[ATSK_KEY_FILE_MAX + 1], key[ATSK_AFFINITY_KEY];
  ssize_t n = file_read(name, bytes, sizeof bytes);
  if (n < 0) {
    (void)snprintf(why, why_size, "--session-key-file=%.300s cannot be read: %s; it must be readable by Traffic Server's user",
                   name, strerror(errno));
    return ATSK_E_IO;
  }
  if ((size_t)n < ATSK_AFFINITY_KEY || (size_t)n > ATSK_KEY_FILE_MAX) {
    (void)snprintf(why, why_size, "--session-key-file=%.300s has %s: put random bytes into it, \"openssl rand -hex 16\", say", name,
                   (size_t)n < ATSK_AFFINITY_KEY ? "fewer than 16 bytes" : "more than 4096 bytes");
    return ATSK_E_RANGE;
  }
  key_derive(bytes, (size_t)n, key);
  atsk_affinity_key_set(key);
  return ATSK_OK;
}

/* Makes `name` with `key` in it, whole or not at all; if another process was first, its file stays.  False: errno says why not. */
static bool
key_keep(const char *name, const uint8_t key[ATSK_AFFINITY_KEY])
{
  char aside[PATH_MAX + 32];
  (void)snprintf(aside, sizeof aside, "%s.%ld", name, (long)getpid());
  int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (fd < 0) {
    return false;
  }
  bool is_kept = write(fd, key, ATSK_AFFINITY_KEY) == (ssize_t)ATSK_AFFINITY_KEY && fsync(fd) == 0;
  is_kept      = close(fd) == 0 && is_kept;
  is_kept      = is_kept && (link(aside, name) == 0 || errno == EEXIST);
  int failure  = errno;
  (void)unlink(aside);
  errno = failure;
  return is_kept;
}

/* The key of the state directory, in *key, which holds a random one for the first time. */
static bool
key_of_state(const char *directory, uint8_t key[ATSK_AFFINITY_KEY], char *why, size_t why_size)
{
  char name[PATH_MAX];
  uint8_t bytes[ATSK_AFFINITY_KEY + 1];
  if (snprintf(name, sizeof name, "%s/" KEPT, directory) >= (int)sizeof name) {
    (void)snprintf(why, why_size, "--state-dir is too long a path for the key of session cookies");
    return false;
  }
  ssize_t n = file_read(name, bytes, sizeof bytes);
  if (n < 0 && errno == ENOENT) {
    n = key_keep(name, key) ? file_read(name, bytes, sizeof bytes) : -1;
  }
  if (n != (ssize_t)ATSK_AFFINITY_KEY) {
    (void)snprintf(why, why_size, "%.300s holds no key of session cookies (%s): clients lose their endpoint when this process ends",
                   name, n < 0 ? strerror(errno) : "it is not 16 bytes long; remove it");
    return false;
  }
  memcpy(key, bytes, ATSK_AFFINITY_KEY);
  return true;
}

enum atsk_status
atsk_affinity_key_load(const char *key_file, const char *state_dir, char *why, size_t why_size)
{
  uint8_t key[ATSK_AFFINITY_KEY];
  why[0] = '\0';
  if (key_file != NULL && key_file[0] != '\0') {
    return key_file_load(key_file, why, why_size);
  }
  if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key) {
    (void)snprintf(why, why_size, "getrandom(2) gave no random bytes for the key of session cookies");
    return ATSK_MISS;
  }
  bool is_kept = state_dir != NULL && state_dir[0] != '\0' && key_of_state(state_dir, key, why, why_size);
  atsk_affinity_key_set(key);
  return is_kept ? ATSK_OK : ATSK_MISS;
}
