/* See options.h.  Pure, but for the environment that atsk_option_text() looks at; at plugin load. */
#include "process/options.h"

#include "base/siphash.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool
starts_with(const char *text, const char *start)
{
  return strncmp(text, start, strlen(start)) == 0;
}

const char *
atsk_option_text(int argc, const char *const argv[], const char *name, const char *variable)
{
  const char *text = getenv(variable);
  for (int i = 0; i < argc; i++) {
    size_t len = strlen(name);
    if (starts_with(argv[i], "--") && strncmp(argv[i] + 2, name, len) == 0 && argv[i][2 + len] == '=') {
      text = argv[i] + 2 + len + 1;
    }
  }
  return text != NULL && text[0] != '\0' ? text : NULL;
}

static bool
is_one_of(const char *text, const char *const names[], size_t n_names)
{
  for (size_t i = 0; i < n_names; i++) {
    if (starts_with(text, names[i]) && (text[strlen(names[i])] == '=' || text[strlen(names[i])] == '\0')) {
      return true;
    }
  }
  return false;
}

static bool
argument_counts(const char *argument)
{
  static const char *const others[] = {"--state-dir", "--log-level", "--log-format", "--events", "--admin", "--venv"};
  return !is_one_of(argument, others, sizeof others / sizeof others[0]);
}

/* Service variables of Kubernetes: NAME_SERVICE_HOST, NAME_SERVICE_PORT[_x], NAME_PORT=tcp://..., NAME_PORT_80_TCP[_x]. */
static bool
is_service_variable(const char *variable)
{
  const char *equals = strchr(variable, '=');
  if (equals == NULL) {
    return false;
  }
  const char *service = strstr(variable, "_SERVICE_");
  const char *port    = strstr(variable, "_PORT");
  if (service != NULL && service < equals && (starts_with(service, "_SERVICE_HOST=") || starts_with(service, "_SERVICE_PORT"))) {
    return true;
  }
  if (port == NULL || port > equals) {
    return false;
  }
  return strstr(equals, "://") != NULL || (port[5] == '_' && port[6] >= '0' && port[6] <= '9');
}

static bool
variable_counts(const char *variable)
{
  static const char *const others[]   = {"ATSK8S_STATE_DIR", "ATSK8S_LOG_LEVEL", "ATSK8S_LOG_FORMAT", "ATSK8S_EVENTS",
                                         "ATSK8S_ADMIN",     "ATSK8S_VENV",      "ATSK8S_TOKEN",      "TS_TOKEN"};
  static const char *const prefixes[] = {"ATSK8S_", "INGRESS_", "TS_"};
  bool is_ours                        = false;
  for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
    is_ours = is_ours || starts_with(variable, prefixes[i]);
  }
  return is_ours && !is_one_of(variable, others, sizeof others / sizeof others[0]) && !is_service_variable(variable);
}

/* Adds one entry's hashes, so that the order does not matter; four keys make 32 bytes of them. */
static void
entry_add(uint64_t sums[4], const char *kind, const char *entry)
{
  for (uint64_t i = 0; i < 4; i++) {
    const struct atsk_siphash_key key = {i, (uint64_t)(unsigned char)kind[0]};
    sums[i] += atsk_siphash(&key, entry, strlen(entry));
  }
}

void
atsk_options_digest(int argc, const char *const argv[], char *const environment[], uint8_t out[32])
{
  uint64_t sums[4] = {0, 0, 0, 0};
  for (int i = 0; i < argc; i++) {
    if (argument_counts(argv[i])) {
      entry_add(sums, "argument", argv[i]);
    }
  }
  for (size_t i = 0; environment[i] != NULL; i++) {
    if (variable_counts(environment[i])) {
      entry_add(sums, "environment", environment[i]);
    }
  }
  memcpy(out, sums, sizeof sums);
}
