/* See controller.h; and the functions of bridge.h by which Python writes this state.  Runs on Python's threads with the GIL released (cffi),
 * and on ATS's.  Must not include ts.h or Python.h. */
#include "controller/controller.h"

#include "base/prefix.h"
#include "blob/atsk_format.h"
#include "table/publish.h"

#include "controller/bridge.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 16384u
#define REASON_MAX 1024u

static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed; /* on CLOCK_MONOTONIC: a stepped clock neither ends nor prolongs a wait */
  bool woken;
  bool stop;
  bool has_first_table; /* or never will have one: `failed` */
  bool failed;
  bool started;
  bool returned;
  bool is_set;
  uint8_t options[ATSK_CONTROLLER_DIGEST];
  uint64_t loaded_version; /* of the table that a last good state gave; 0: none did */
  uint64_t written_s;      /* that state's age, as Unix time */
  int start_timeout_ms;    /* 0: not parsed yet */
  struct timespec start;
  char reason[REASON_MAX]; /* why not ready, or why it failed */
  const struct atsk_controller_host *host;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .reason = "the controller has not started"};

static pthread_once_t state_once = PTHREAD_ONCE_INIT;
static struct atsk_settings settings, loaded_settings;
/* Which of the two holds.  They are values: whoever looked at the loaded ones goes on with them. */
static _Atomic(const struct atsk_settings *) settings_current = &settings;

/* The health path once it was changed; NULL: the settings' holds.  One of two: the writer, who is one, writes the other, and its readers are
 * gone when path_set() returns. */
struct health_path {
  char bytes[ATSK_HEALTH_PATH_MAX];
  size_t len;
};
static struct health_path health_paths[2];
static _Atomic(const struct health_path *) health_path_changed;

/* Read by the health path on ATS's threads, which take no lock. */
static atomic_bool ready;

static void
state_init(void)
{
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&state.changed, &attr);
  pthread_condattr_destroy(&attr);
}

static void
state_lock(void)
{
  pthread_once(&state_once, state_init);
  pthread_mutex_lock(&state.lock);
}

static void
state_unlock(bool announce)
{
  if (announce) {
    pthread_cond_broadcast(&state.changed);
  }
  pthread_mutex_unlock(&state.lock);
}

static struct timespec
deadline_after(struct timespec from, int timeout_ms)
{
  struct timespec at = from;
  at.tv_sec += timeout_ms / 1000;
  at.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
  if (at.tv_nsec >= 1000000000L) {
    at.tv_sec += 1;
    at.tv_nsec -= 1000000000L;
  }
  return at;
}

static struct timespec
now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t;
}

static void
reason_set(const char *text, size_t len)
{
  size_t n = len < sizeof state.reason - 1 ? len : sizeof state.reason - 1;
  memcpy(state.reason, text, n);
  state.reason[n] = '\0';
}

/* --- controller.h ----------------------------------------------------------------------------------------------------------- */

const struct atsk_settings *
atsk_settings_view(void)
{
  /* acquire: the settings before the pointer to them.  Pairs with: the store in atsk_py_settings(). */
  return atomic_load_explicit(&settings_current, memory_order_acquire);
}

struct atsk_str
atsk_health_path_view(const struct atsk_settings *s)
{
  /* acquire: the bytes before the pointer to them.  Pairs with: the store in path_set(). */
  const struct health_path *changed = atomic_load_explicit(&health_path_changed, memory_order_acquire);
  return changed == NULL ? (struct atsk_str){s->health_path, s->health_path_len} : (struct atsk_str){changed->bytes, changed->len};
}

static bool
path_is_sane(const char *path, size_t len)
{
  return len > 0 && len <= ATSK_HEALTH_PATH_MAX && path[0] == '/';
}

/* `path` is sane. */
static void
path_set(const char *path, size_t len)
{
  /* relaxed: the writer stored it itself. */
  const struct health_path *now = atomic_load_explicit(&health_path_changed, memory_order_relaxed);
  struct health_path *next      = &health_paths[now == &health_paths[0]];
  memcpy(next->bytes, path, len);
  next->len = len;
  /* release: the bytes before the pointer to them.  Pairs with: the load in atsk_health_path_view(). */
  atomic_store_explicit(&health_path_changed, next, memory_order_release);
  atsk_readers_wait();
}

void
atsk_settings_copy(struct atsk_settings *out)
{
  *out = *atsk_settings_view();
  (void)atsk_read_begin();
  const struct atsk_str path = atsk_health_path_view(out);
  memmove(out->health_path, path.ptr, path.len);
  atsk_read_end();
  memset(out->health_path + path.len, 0, sizeof out->health_path - path.len);
  out->health_path_len = path.len;
}

void
atsk_settings_set_loaded(const struct atsk_settings *given)
{
  path_set(given->health_path, given->health_path_len); /* which may be a ConfigMap's: until ConfigMaps have been read again */
  loaded_settings = *given;
  /* relaxed: the table is not published yet, and its root orders. */
  atomic_store_explicit(&settings_current, &loaded_settings, memory_order_relaxed);
}

bool
atsk_settings_trusts(const struct atsk_settings *s, uint8_t family, const uint8_t *addr)
{
  for (size_t i = 0; i < s->n_trusted; i++) {
    const struct atsk_network *network = &s->trusted[i];
    if (network->family == family && atsk_prefix_is(network->addr, addr, network->bits)) {
      return true;
    }
  }
  return false;
}

void
atsk_controller_host_set(const struct atsk_controller_host *host)
{
  state_lock();
  state.host = host;
  state_unlock(false);
}

void
atsk_controller_log(int level, const char *line, size_t len)
{
  char out[LINE_MAX_BYTES];
  size_t used = 0;
  for (size_t i = 0; i < len && used + 5 < sizeof out; i++) {
    unsigned char c = (unsigned char)line[i];
    if (c < 0x20 || c == 0x7f) { /* a line that is not ours must not look like one that is */
      static const char hex[] = "0123456789abcdef";
      out[used++]             = '\\';
      out[used++]             = 'x';
      out[used++]             = hex[c >> 4];
      out[used++]             = hex[c & 15u];
    } else {
      out[used++] = (char)c;
    }
  }
  out[used] = '\0';
  state_lock();
  const struct atsk_controller_host *host = state.host;
  state_unlock(false);
  if (host != NULL) {
    host->log(level, out);
  } else {
    fprintf(stderr, "[atsk8s] %s\n", out);
  }
}

enum atsk_status
atsk_controller_wait_first_table(int timeout_ms, char *why, size_t why_size)
{
  enum atsk_status status = ATSK_OK;
  state_lock();
  if (!state.started) { /* the bound is one for both plugins together */
    state.started = true;
    state.start   = now();
  }
  while (!state.has_first_table && !state.stop) { /* a stop must not wait for a table */
    struct timespec at = deadline_after(state.start, state.start_timeout_ms > 0 ? state.start_timeout_ms : timeout_ms);
    struct timespec t  = now();
    if (t.tv_sec > at.tv_sec || (t.tv_sec == at.tv_sec && t.tv_nsec >= at.tv_nsec)) {
      break;
    }
    (void)pthread_cond_timedwait(&state.changed, &state.lock, &at); /* whatever ended it, the loop looks again */
  }
  if (state.failed) {
    status = ATSK_E_PYTHON;
  } else if (!state.has_first_table) {
    status = ATSK_E_TIMEOUT;
  }
  if (status != ATSK_OK) {
    (void)snprintf(why, why_size, "%s", state.reason);
  }
  state_unlock(false);
  return status;
}

void
atsk_controller_started_with(const uint8_t options[ATSK_CONTROLLER_DIGEST], uint64_t version, uint64_t written_s)
{
  state_lock();
  memcpy(state.options, options, sizeof state.options);
  state.loaded_version = version;
  state.written_s      = written_s;
  if (version != 0) {
    state.has_first_table = true;
    reason_set("", 0);
    /* relaxed: a lone flag. Pairs with: atsk_controller_ready. */
    atomic_store_explicit(&ready, true, memory_order_relaxed);
  }
  state_unlock(true);
}

void
atsk_controller_options(uint8_t out[ATSK_CONTROLLER_DIGEST])
{
  state_lock();
  memcpy(out, state.options, sizeof state.options);
  state_unlock(false);
}

void
atsk_controller_failed(const char *why)
{
  state_lock();
  if (!state.has_first_table) {
    reason_set(why, strlen(why));
    state.failed          = true;
    state.has_first_table = true;
  }
  state_unlock(true);
}

void
atsk_controller_returned(void)
{
  state_lock();
  state.returned = true;
  state_unlock(true);
}

bool
atsk_controller_ready(void)
{
  /* relaxed: a lone flag; what is served is ordered by the table's own root. Pairs with: atsk_py_health. */
  return atomic_load_explicit(&ready, memory_order_relaxed);
}

void
atsk_controller_stop(void)
{
  state_lock();
  state.stop = true;
  state_unlock(true);
}

bool
atsk_controller_wait_returned(int timeout_ms)
{
  state_lock();
  struct timespec at = deadline_after(now(), timeout_ms);
  while (!state.returned) {
    if (pthread_cond_timedwait(&state.changed, &state.lock, &at) == ETIMEDOUT) {
      break;
    }
  }
  bool returned = state.returned;
  state_unlock(false);
  return returned;
}

/* --- bridge.h: settings, logging, the host process ------------------------------------------------------------------ */

static bool
network_is_sane(const struct atsk_py_network *network)
{
  return (network->family == ATSK_FAMILY_IPV4 && network->bits <= 32) ||
         (network->family == ATSK_FAMILY_IPV6 && network->bits <= 128);
}

/* What rules that say nothing get; ATSK_E_RANGE. */
static enum atsk_status
defaults_take(const struct atsk_py_settings *given, struct atsk_defaults *out)
{
  const struct atsk_default_numbers numbers = {
    .body_max           = given->body_size,
    .connect_ms         = given->connect_timeout_ms,
    .read_ms            = given->read_timeout_ms,
    .send_ms            = given->send_timeout_ms,
    .request_ms         = given->request_timeout_ms,
    .retry_tries        = given->retry_tries,
    .retry_ms           = given->retry_timeout_ms,
    .retry_percent      = given->retry_budget_percent,
    .load_balance       = given->load_balance,
    .health_failures    = given->health_max_failures,
    .health_ejection_ms = given->health_ejection_ms,
    .health_panic       = given->health_panic_percent,
  };
  return atsk_defaults_of(&numbers, out);
}

int
atsk_py_settings(const struct atsk_py_settings *given)
{
  struct atsk_defaults defaults;
  if (!path_is_sane(given->health_path, given->health_path_len) || given->n_trusted > ATSK_TRUSTED_MAX ||
      given->start_timeout_ms == 0 || given->start_timeout_ms > 600000 || defaults_take(given, &defaults) != ATSK_OK) {
    return ATSK_E_RANGE;
  }
  for (size_t i = 0; i < given->n_trusted; i++) {
    if (!network_is_sane(&given->trusted[i])) {
      return ATSK_E_RANGE;
    }
  }
  state_lock();
  if (state.is_set || atsk_table_version() != state.loaded_version) { /* readers look without a lock: never change under them */
    state_unlock(false);
    return ATSK_E_STATE;
  }
  memcpy(settings.health_path, given->health_path, given->health_path_len);
  settings.health_path[given->health_path_len] = '\0';
  settings.health_path_len                     = given->health_path_len;
  for (size_t i = 0; i < given->n_trusted; i++) {
    memcpy(settings.trusted[i].addr, given->trusted[i].addr, sizeof settings.trusted[i].addr);
    settings.trusted[i].family = given->trusted[i].family;
    settings.trusted[i].bits   = given->trusted[i].bits;
  }
  settings.n_trusted            = given->n_trusted;
  settings.defaults             = defaults;
  settings.cache                = given->cache != 0;
  settings.log_fields           = given->log_fields != 0;
  settings.reject_encoded_slash = given->reject_encoded_slash != 0;
  settings.allow_loopback_names = given->allow_loopback_names != 0;
  /* release: all of the settings before the pointer.  Pairs with: the load in atsk_settings_view(). */
  atomic_store_explicit(&settings_current, &settings, memory_order_release);
  state.start_timeout_ms = (int)given->start_timeout_ms;
  state.is_set           = true;
  state_unlock(true);
  return ATSK_OK;
}

int
atsk_py_health_path(const char *path, size_t len)
{
  if (!path_is_sane(path, len)) {
    return ATSK_E_RANGE;
  }
  path_set(path, len);
  return ATSK_OK;
}

void
atsk_py_log(int level, const char *line, size_t len)
{
  atsk_controller_log(level, line, len);
}

int
atsk_py_state_loaded(uint64_t *version, uint64_t *written_s)
{
  state_lock();
  *version   = state.loaded_version;
  *written_s = state.written_s;
  state_unlock(false);
  return *version != 0;
}

int
atsk_py_should_stop(void)
{
  state_lock();
  bool stop = state.stop;
  state_unlock(false);
  return stop;
}

int
atsk_py_wait(int timeout_ms)
{
  state_lock();
  struct timespec at = deadline_after(now(), timeout_ms > 0 ? timeout_ms : 0);
  while (!state.woken && !state.stop) {
    if (pthread_cond_timedwait(&state.changed, &state.lock, &at) == ETIMEDOUT) {
      break;
    }
  }
  state.woken = false;
  bool stop   = state.stop;
  state_unlock(false);
  return stop;
}

void
atsk_py_wake(void)
{
  state_lock();
  state.woken = true;
  state_unlock(true);
}

void
atsk_py_trim(void)
{
  (void)malloc_trim(0); /* glibc; elsewhere there is nothing to give back by hand */
}

void
atsk_py_first_table(void)
{
  state_lock();
  if (!state.has_first_table) {
    state.has_first_table = true;
    state.failed          = atsk_table_version() == 0; /* "never will be": `reason` is what the controller last said */
  }
  state_unlock(true);
}

void
atsk_py_health(int is_ready, const char *reason, size_t reason_len)
{
  state_lock();
  reason_set(reason_len > 0 ? reason : "", reason_len);
  state_unlock(false);
  /* relaxed: a lone flag. Pairs with: atsk_controller_ready. */
  atomic_store_explicit(&ready, is_ready != 0, memory_order_relaxed);
}

size_t
atsk_py_server_ports(char *out, size_t room)
{
  state_lock();
  const struct atsk_controller_host *host = state.host;
  state_unlock(false);
  return host != NULL ? host->server_ports(out, room) : 0;
}

int
atsk_py_draining(void)
{
  state_lock();
  const struct atsk_controller_host *host = state.host;
  state_unlock(false);
  return host != NULL ? host->draining() : 0;
}
