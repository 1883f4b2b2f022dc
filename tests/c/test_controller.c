/* What Python sets for the request path: settings once, and a health path that changes while requests are decided. */
#include "controller/controller.h"
#include "table/publish.h"
#include "tap.h"

#include "controller/bridge.h"

#include <pthread.h>
#include <stdatomic.h>

static const struct atsk_py_settings given = {
  .health_path          = "/alive",
  .health_path_len      = 6,
  .start_timeout_ms     = 1000,
  .connect_timeout_ms   = 1000,
  .load_balance         = ATSK_BALANCE_ROUND_ROBIN,
  .retry_tries          = 1,
  .health_ejection_ms   = 1000,
  .health_panic_percent = 50,
};

static bool
is_path(const char *path)
{
  (void)atsk_read_begin();
  const struct atsk_str now = atsk_health_path_view(atsk_settings_view());
  const bool is             = now.len == strlen(path) && memcmp(now.ptr, path, now.len) == 0;
  atsk_read_end();
  return is;
}

static void
settings_once(void)
{
  struct atsk_py_settings other = given;
  other.health_path_len         = 0;
  CHECK(atsk_py_settings(&other) == ATSK_E_RANGE, "no health path");
  other.health_path     = "alive";
  other.health_path_len = 5;
  CHECK(atsk_py_settings(&other) == ATSK_E_RANGE, "a health path without /");
  other                     = given;
  other.health_max_failures = ATSK_HEALTH_FAILURES_MAX + 1;
  CHECK(atsk_py_settings(&other) == ATSK_E_RANGE, "a number out of its range");
  CHECK(atsk_py_settings(&given) == ATSK_OK && is_path("/alive"), "settings");
  CHECK(atsk_py_settings(&given) == ATSK_E_STATE, "but once");
}

static void
trusted(void)
{
  static struct atsk_settings some = {.trusted   = {{.addr = {172, 16}, .family = ATSK_FAMILY_IPV4, .bits = 12},
                                                    {.addr = {0xfc}, .family = ATSK_FAMILY_IPV6, .bits = 7}},
                                      .n_trusted = 2};
  const uint8_t inside[4] = {172, 31, 255, 255}, outside[4] = {172, 32, 0, 0}, local[16] = {0xfd, 1}, global[16] = {0xfe, 1};
  CHECK(atsk_settings_trusts(&some, ATSK_FAMILY_IPV4, inside) && !atsk_settings_trusts(&some, ATSK_FAMILY_IPV4, outside),
        "12 bits of a network, to the bit");
  CHECK(atsk_settings_trusts(&some, ATSK_FAMILY_IPV6, local) && !atsk_settings_trusts(&some, ATSK_FAMILY_IPV6, global),
        "7 bits of one");
  some.trusted[0].bits = 0;
  CHECK(atsk_settings_trusts(&some, ATSK_FAMILY_IPV4, outside) && !atsk_settings_trusts(&some, ATSK_FAMILY_IPV6, global),
        "none: everybody of its family");
}

static void
path_changes(void)
{
  static char longest[ATSK_HEALTH_PATH_MAX + 2];
  static struct atsk_settings copy;
  memset(longest, 'x', ATSK_HEALTH_PATH_MAX + 1);
  longest[0] = '/';
  CHECK(atsk_py_health_path("/other", 6) == ATSK_OK && is_path("/other"), "another path");
  CHECK(atsk_py_health_path(longest, ATSK_HEALTH_PATH_MAX + 1) == ATSK_E_RANGE && atsk_py_health_path("", 0) == ATSK_E_RANGE &&
          atsk_py_health_path("x", 1) == ATSK_E_RANGE && is_path("/other"),
        "one out of its range changes nothing");
  longest[ATSK_HEALTH_PATH_MAX] = '\0';
  CHECK(atsk_py_health_path(longest, ATSK_HEALTH_PATH_MAX) == ATSK_OK && is_path(longest), "the longest");
  CHECK(atsk_py_health_path("/z", 2) == ATSK_OK && is_path("/z"), "a short one after it");
  atsk_settings_copy(&copy);
  CHECK(copy.health_path_len == 2 && strcmp(copy.health_path, "/z") == 0 && copy.health_path[ATSK_HEALTH_PATH_MAX] == '\0',
        "a last good state has the one that holds");
  memcpy(copy.health_path, "/kept", 5);
  copy.health_path_len = 5;
  atsk_settings_set_loaded(&copy);
  CHECK(is_path("/kept"), "and gives it back");
}

static atomic_bool is_over;
static _Atomic uint64_t n_seen, n_torn;

/* What it sees is one path, to its end, however often it changes while it looks. */
static void *
path_watch(void *unused)
{
  (void)unused;
  while (!atomic_load(&is_over)) {
    (void)atsk_read_begin();
    const struct atsk_str now = atsk_health_path_view(atsk_settings_view());
    const char first          = now.ptr[1];
    bool is_whole             = now.len == (size_t)(first - 'a' + 2);
    for (size_t i = 1; is_whole && i < now.len; i++) {
      is_whole = now.ptr[i] == first;
    }
    atsk_read_end();
    atomic_fetch_add(&n_seen, 1);
    atomic_fetch_add(&n_torn, !is_whole);
  }
  return NULL;
}

static void
path_changes_under_readers(void)
{
  pthread_t threads[2];
  char path[32] = "/a";
  REQUIRE(atsk_py_health_path(path, 2) == ATSK_OK, "the first");
  for (unsigned i = 0; i < 2; i++) {
    REQUIRE(pthread_create(&threads[i], NULL, path_watch, NULL) == 0, "a thread");
  }
  for (unsigned n = 0; n < 500 || atomic_load(&n_seen) < 1000; n++) {
    const unsigned k = 1 + n % 26; /* "/a", "/bb", "/ccc" ... */
    memset(path + 1, (int)('a' + k - 1), k);
    REQUIRE(atsk_py_health_path(path, k + 1) == ATSK_OK, "set");
  }
  atomic_store(&is_over, true);
  for (unsigned i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
  }
  CHECK(atomic_load(&n_torn) == 0, "seen whole, %llu times", (unsigned long long)atomic_load(&n_seen));
}

int
main(void)
{
  settings_once();
  trusted();
  path_changes();
  path_changes_under_readers();
  return tap_end();
}
