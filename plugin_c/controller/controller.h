/* The controller as C sees it: has it a table, is it ready, what did it set, must it stop.  bridge.c keeps this state; Python writes it
 * through bridge.h, ATS's hooks and the entry points read it here.  Knows neither ts.h nor Python.h: what it needs of the host process
 * comes as function pointers (host.c), so that tests link it without Traffic Server. */
#ifndef ATSK_CONTROLLER_H
#define ATSK_CONTROLLER_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "policy/defaults.h"

ATSK_BEGIN_DECLS

#define ATSK_HEALTH_PATH_MAX 255u
#define ATSK_TRUSTED_MAX 256u

struct atsk_network {
  uint8_t addr[16]; /* network order; IPv4 in the first 4 */
  uint8_t family;   /* enum atsk_endpoint_family */
  uint8_t bits;     /* leading bits that count: 0..32 or 0..128 */
};

/* What the request path needs of the options.  A value: whoever holds a table (the acquire load of atsk_read_begin) sees it whole, and
 * nobody else may look.  There is one before the first table is published; after a last good state's, Python's take its place once. */
struct atsk_settings {
  char health_path[ATSK_HEALTH_PATH_MAX + 1u]; /* as the process started; normalised; starts with '/' */
  size_t health_path_len;
  struct atsk_network trusted[ATSK_TRUSTED_MAX]; /* clients whose X-Forwarded-* headers are believed */
  size_t n_trusted;
  struct atsk_defaults defaults; /* of requests whose rule says nothing */
  bool cache;                    /* --cache=on */
  bool reject_encoded_slash;     /* "%2F" in a path is answered 400 */
  bool allow_loopback_names;     /* an ExternalName may resolve to this machine */
  bool log_fields;               /* --access-log-fields=on */
};

const struct atsk_settings *atsk_settings_view(void);

/* The health path that holds now: a ConfigMap's, that of a last good state until Python gives one, or the settings'.  Borrowed: inside a read
 * section. */
struct atsk_str atsk_health_path_view(const struct atsk_settings *settings);

/* A copy of the settings that hold now, with the health path that does: what a last good state has. */
void atsk_settings_copy(struct atsk_settings *out);

/* The settings of a last good state, until Python gives its own: before the state's table is published. */
void atsk_settings_set_loaded(const struct atsk_settings *settings);

/* Is `addr` (of `family`, network order) inside one of the trusted networks?  Bounded by ATSK_TRUSTED_MAX. */
bool atsk_settings_trusts(const struct atsk_settings *settings, uint8_t family, const uint8_t *addr);

/* What the host process does for the controller; all any thread, none blocks for long. */
struct atsk_controller_host {
  void (*log)(int level, const char *line); /* NUL-terminated, one line, no control bytes; levels as atsk_py_log */
  size_t (*server_ports)(char *out, size_t room);
  int (*draining)(void);
};
void atsk_controller_host_set(const struct atsk_controller_host *host); /* once, before Python starts; borrows for good */

/* Writes one line through the host: control bytes escaped, cut at 16 KiB.  Never a format string. */
void atsk_controller_log(int level, const char *line, size_t len);

/* Waits until the first table stands.  ATSK_OK; ATSK_E_PYTHON: the controller gave up, `why` (NUL-terminated) says for what reason;
 * ATSK_E_TIMEOUT.  The bound is `timeout_ms`, or --start-timeout-ms once Python has parsed it, from the first call on. */
enum atsk_status atsk_controller_wait_first_table(int timeout_ms, char *why, size_t why_size) ATSK_MUST_CHECK;

#define ATSK_CONTROLLER_DIGEST 32u
/* What the start knew before Python: the digest of the options (options.h), and, with a version that is not 0, that a last good state of
 * that age is published as that version: it counts as ready and as a first table. */
void atsk_controller_started_with(const uint8_t options[ATSK_CONTROLLER_DIGEST], uint64_t version, uint64_t written_s);
void atsk_controller_options(uint8_t out[ATSK_CONTROLLER_DIGEST]);

void atsk_controller_failed(const char *why); /* it will publish nothing (more); the first reason stays */
void atsk_controller_returned(void);          /* its thread has left Python */
bool atsk_controller_ready(void);             /* what the health path answers */
void atsk_controller_stop(void);              /* asks it to return, and ends its wait */
bool atsk_controller_wait_returned(int timeout_ms);

ATSK_END_DECLS
#endif
