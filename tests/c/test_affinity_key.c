/* Where the key of affinity comes from: the operator's file, the state directory's, chance. */
#include "endpoints/affinity.h"
#include "endpoints/affinity_key.h"
#include "tap.h"

#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/atsk8s-key-XXXXXX";
static char why[512];

static const char *
path_of(const char *name)
{
  static char path[4][256];
  static unsigned turn;
  char *out = path[turn++ % 4];
  (void)snprintf(out, sizeof path[0], "%s/%s", directory, name);
  return out;
}

static void
file_write(const char *path, const void *bytes, size_t len)
{
  FILE *file = fopen(path, "wb");
  REQUIRE(file != NULL && fwrite(bytes, 1, len, file) == len, "%s", path);
  if (file != NULL) {
    fclose(file);
  }
}

/* The tag of some endpoint, which tells keys apart. */
static uint64_t
tag(void)
{
  const uint8_t addr[16] = {10, 0, 0, 1};
  return atsk_affinity_tag(addr, 4, 80, STR(""));
}

static void
key_files(void)
{
  const uint8_t key[ATSK_AFFINITY_KEY] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  static char big[ATSK_KEY_FILE_MAX + 1];
  const char *file = path_of("given");
  atsk_affinity_key_set(key);
  uint64_t expected = tag();
  file_write(file, key, sizeof key);
  CHECK(atsk_affinity_key_load(file, NULL, why, sizeof why) == ATSK_OK && tag() == expected && why[0] == '\0',
        "16 bytes are the key");
  file_write(file, "0123456789abcdef0123456789abcdef\n", 33);
  CHECK(atsk_affinity_key_load(file, NULL, why, sizeof why) == ATSK_OK && tag() != expected, "text is a key");
  expected = tag();
  file_write(file, "0123456789abcdef0123456789abcdee\n", 33);
  CHECK(atsk_affinity_key_load(file, directory, why, sizeof why) == ATSK_OK && tag() != expected, "every byte of it counts");
  CHECK(access(path_of("session.key"), F_OK) != 0, "and none is kept in the state directory then");
  file_write(file, key, sizeof key - 1);
  CHECK(atsk_affinity_key_load(file, NULL, why, sizeof why) == ATSK_E_RANGE && strstr(why, "fewer than 16") != NULL, "15 bytes: %s",
        why);
  file_write(file, big, sizeof big);
  CHECK(atsk_affinity_key_load(file, NULL, why, sizeof why) == ATSK_E_RANGE && strstr(why, "more than 4096") != NULL, "too long");
  CHECK(atsk_affinity_key_load(path_of("absent"), NULL, why, sizeof why) == ATSK_E_IO && strstr(why, "--session-key-file=") == why,
        "not there: %s", why);
  CHECK(atsk_affinity_key_load(directory, NULL, why, sizeof why) == ATSK_E_IO, "a directory: %s", why);
  (void)unlink(file);
}

static void
state_directories(void)
{
  const char *kept = path_of("session.key");
  struct stat st;
  CHECK(atsk_affinity_key_load("", directory, why, sizeof why) == ATSK_OK && why[0] == '\0', "made in the state directory");
  uint64_t first = tag();
  CHECK(stat(kept, &st) == 0 && st.st_size == ATSK_AFFINITY_KEY && (st.st_mode & 0777) == 0600, "for its owner alone");
  CHECK(atsk_affinity_key_load(NULL, NULL, why, sizeof why) == ATSK_MISS && why[0] == '\0' && tag() != first,
        "no directory: by chance");
  CHECK(atsk_affinity_key_load(NULL, directory, why, sizeof why) == ATSK_OK && tag() == first, "the same after a start");
  file_write(kept, "short", 5);
  CHECK(atsk_affinity_key_load(NULL, directory, why, sizeof why) == ATSK_MISS && strstr(why, "session.key") != NULL &&
          tag() != first,
        "damaged: by chance, and %s", why);
  (void)unlink(kept);
  CHECK(atsk_affinity_key_load(NULL, path_of("absent"), why, sizeof why) == ATSK_MISS && why[0] != '\0', "no such directory: %s",
        why);
}

int
main(void)
{
  REQUIRE(mkdtemp(directory) != NULL, "a directory");
  key_files();
  state_directories();
  CHECK(rmdir(directory) == 0, "nothing is left");
  return tap_end();
}
