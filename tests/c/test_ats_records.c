/* flags: -rdynamic -Wno-missing-prototypes
 * Records, over functions that stand in for Traffic Server's under its mangled names: what is asked first, how values and their absence
 * come and go, and which lock is held while a record is set. */
#include "controller/ats_records.h"
#include "tap.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>

#define EXPORTED __attribute__((visibility("default")))

enum { INT = 1, FLOAT = 2, STRING = 3, COUNTER = 4 };

struct fake {
  const char *name;
  int type, data_type, update, access, source;
  const char *expression;
  int64_t number;
  float fraction;
  char *text;
};

static char long_text[ATSK_RECORD_VALUE_MAX + 1];
static char long_expression[ATSK_RECORD_EXPRESSION_MAX + 1];
static struct fake table[] = {
  {.name = "proxy.config.int", .type = 1, .data_type = INT, .update = 1, .source = 1, .expression = "[0-4]", .number = -7},
  {.name = "proxy.config.float", .type = 1, .data_type = FLOAT, .update = 1, .fraction = 0.1f},
  {.name = "proxy.config.null", .type = 1, .data_type = STRING, .update = 1, .source = 1},
  {.name = "proxy.config.start", .type = 1, .data_type = INT, .update = 2, .access = 2},
  {.name = "proxy.local.int", .type = 0x10, .data_type = INT, .update = 1},
  {.name = "proxy.process.stat", .type = 2, .data_type = INT},
  {.name = "proxy.config.counter", .type = 1, .data_type = COUNTER, .update = 1},
  {.name = "proxy.config.long", .type = 1, .data_type = STRING, .update = 1, .text = long_text},
  {.name = "proxy.config.expression", .type = 1, .data_type = INT, .update = 1, .expression = long_expression},
};
static unsigned n_sets, n_wrong_locks, n_frees, n_wrong_questions;

EXPORTED pthread_rwlock_t g_records_rwlock = PTHREAD_RWLOCK_INITIALIZER;

static struct fake *
find(const char *name)
{
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    if (strcmp(table[i].name, name) == 0) {
      return &table[i];
    }
  }
  return NULL;
}

/* What a configuration record has and a statistic has not: asking a statistic reads the wrong arm of a union. */
static struct fake *
find_configuration(const char *name)
{
  struct fake *found = find(name);
  n_wrong_questions += found != NULL && found->type == 2;
  return found;
}

static int
give(const struct fake *found, int value, int *out, bool lock)
{
  n_wrong_locks += !lock;
  if (found == NULL) {
    return -1;
  }
  *out = value;
  return 0;
}

EXPORTED int
_Z16RecGetRecordTypePKcP4RecTb(const char *name, int *out, bool lock)
{
  const struct fake *found = find(name);
  return give(found, found != NULL ? found->type : 0, out, lock);
}

EXPORTED int
_Z20RecGetRecordDataTypePKcP8RecDataTb(const char *name, int *out, bool lock)
{
  const struct fake *found = find(name);
  return give(found, found != NULL ? found->data_type : 0, out, lock);
}

EXPORTED int
_Z22RecGetRecordUpdateTypePKcP10RecUpdateTb(const char *name, int *out, bool lock)
{
  const struct fake *found = find_configuration(name);
  return give(found, found != NULL ? found->update : 0, out, lock);
}

EXPORTED int
_Z22RecGetRecordAccessTypePKcP10RecAccessTb(const char *name, int *out, bool lock)
{
  const struct fake *found = find_configuration(name);
  return give(found, found != NULL ? found->access : 0, out, lock);
}

EXPORTED int
_Z18RecGetRecordSourcePKcP10RecSourceTb(const char *name, int *out, bool lock)
{
  const struct fake *found = find_configuration(name);
  return give(found, found != NULL ? found->source : 0, out, lock);
}

EXPORTED int
_Z21RecGetRecordCheckExprPKcPPcb(const char *name, char **out, bool lock)
{
  const struct fake *found = find_configuration(name);
  n_wrong_locks += !lock;
  *out = found != NULL ? (char *)(uintptr_t)found->expression : NULL;
  return found != NULL ? 0 : -1;
}

EXPORTED int
_Z15RecGetRecordIntPKcPlb(const char *name, int64_t *out, bool lock)
{
  const struct fake *found = find(name);
  n_wrong_locks += !lock;
  *out = found->number;
  return 0;
}

EXPORTED int
_Z17RecGetRecordFloatPKcPfb(const char *name, float *out, bool lock)
{
  const struct fake *found = find(name);
  n_wrong_locks += !lock;
  *out = found->fraction;
  return 0;
}

EXPORTED int
_Z26RecGetRecordString_XmallocPKcPPcb(const char *name, char **out, bool lock)
{
  const struct fake *found = find(name);
  n_wrong_locks += !lock;
  *out = found->text != NULL ? strdup(found->text) : NULL;
  return 0;
}

EXPORTED void
_TSfree(void *memory)
{
  n_frees++;
  free(memory);
}

/* A setter is called with the lock held for reading, and told not to take it: others may read meanwhile, nobody may write. */
static struct fake *
set(const char *name, int source, bool lock)
{
  struct fake *found = find(name);
  n_sets++;
  n_wrong_locks += lock || pthread_rwlock_trywrlock(&g_records_rwlock) != EBUSY;
  if (pthread_rwlock_tryrdlock(&g_records_rwlock) == 0) {
    pthread_rwlock_unlock(&g_records_rwlock);
  } else {
    n_wrong_locks++;
  }
  found->source = source;
  return found;
}

EXPORTED int
_Z15RecSetRecordIntPKcl10RecSourceTb(const char *name, int64_t value, int source, bool lock)
{
  set(name, source, lock)->number = value;
  return 0;
}

EXPORTED int
_Z17RecSetRecordFloatPKcf10RecSourceTb(const char *name, float value, int source, bool lock)
{
  set(name, source, lock)->fraction = value;
  return 0;
}

EXPORTED int
_Z18RecSetRecordStringPKcPc10RecSourceTb(const char *name, char *value, int source, bool lock)
{
  struct fake *found = set(name, source, lock);
  free(found->text);
  found->text = value != NULL ? strdup(value) : NULL;
  return 0;
}

static void
reading(void)
{
  struct atsk_record found;
  CHECK(atsk_records_unavailable() == NULL, "every symbol is found");
  CHECK(atsk_record_read("proxy.config.int", &found) == ATSK_OK && found.type == ATSK_RECORD_INT && found.is_dynamic &&
          found.is_writable && !found.is_null && found.source == 1 && strcmp(found.expression, "[0-4]") == 0 &&
          strcmp(found.value, "-7") == 0,
        "a number");
  CHECK(atsk_record_read("proxy.config.float", &found) == ATSK_OK && strtof(found.value, NULL) == 0.1f &&
          found.expression[0] == '\0',
        "a fraction, and no expression");
  CHECK(atsk_record_read("proxy.config.null", &found) == ATSK_OK && found.is_null && found.value[0] == '\0',
        "a text without a value");
  CHECK(atsk_record_read("proxy.config.start", &found) == ATSK_OK && !found.is_dynamic && !found.is_writable,
        "one for the start, read-only");
  CHECK(atsk_record_read("proxy.local.int", &found) == ATSK_OK, "a local one is configuration, too");
  memset(&found, 0x5a, sizeof found);
  struct atsk_record before = found;
  CHECK(atsk_record_read("proxy.config.none", &found) == ATSK_MISS, "an unknown name");
  CHECK(atsk_record_read("proxy.process.stat", &found) == ATSK_MISS && n_wrong_questions == 0,
        "a statistic, which is not asked more");
  CHECK(atsk_record_read("proxy.config.counter", &found) == ATSK_E_RANGE, "a type of its own");
  memset(long_text, 'x', sizeof long_text - 1);
  memset(long_expression, 'x', sizeof long_expression - 1);
  unsigned frees = n_frees;
  CHECK(atsk_record_read("proxy.config.long", &found) == ATSK_E_RANGE && n_frees == frees + 1, "a value that would be cut");
  CHECK(atsk_record_read("proxy.config.expression", &found) == ATSK_E_RANGE, "an expression that would be cut");
  CHECK(memcmp(&before, &found, sizeof found) == 0, "what fails leaves its result alone");
}

static void
writing(void)
{
  struct atsk_record found;
  CHECK(atsk_record_write("proxy.config.int", ATSK_RECORD_INT, "-9223372036854775808", 3) == ATSK_OK &&
          table[0].number == INT64_MIN && table[0].source == 3,
        "a number, and who set it");
  CHECK(atsk_record_write("proxy.config.float", ATSK_RECORD_FLOAT, "0.25", 3) == ATSK_OK && table[1].fraction == 0.25f,
        "a fraction");
  CHECK(atsk_record_write("proxy.config.null", ATSK_RECORD_STRING, "text", 3) == ATSK_OK && strcmp(table[2].text, "text") == 0,
        "a text");
  CHECK(atsk_record_read("proxy.config.null", &found) == ATSK_OK && !found.is_null && strcmp(found.value, "text") == 0,
        "which is read back");
  CHECK(atsk_record_write("proxy.config.null", ATSK_RECORD_STRING, NULL, 1) == ATSK_OK && table[2].text == NULL &&
          table[2].source == 1,
        "and taken away again");
  unsigned sets = n_sets;
  CHECK(atsk_record_write("proxy.config.int", ATSK_RECORD_INT, "7x", 3) == ATSK_E_RANGE &&
          atsk_record_write("proxy.config.int", ATSK_RECORD_INT, "", 3) == ATSK_E_RANGE &&
          atsk_record_write("proxy.config.int", ATSK_RECORD_INT, "9223372036854775808", 3) == ATSK_E_RANGE &&
          atsk_record_write("proxy.config.int", ATSK_RECORD_INT, NULL, 3) == ATSK_E_RANGE &&
          atsk_record_write("proxy.config.float", ATSK_RECORD_FLOAT, "abc", 3) == ATSK_E_RANGE,
        "no numbers");
  CHECK(atsk_record_write("proxy.config.int", ATSK_RECORD_STRING, "1", 3) == ATSK_MISS &&
          atsk_record_write("proxy.config.none", ATSK_RECORD_INT, "1", 3) == ATSK_MISS &&
          atsk_record_write("proxy.process.stat", ATSK_RECORD_INT, "1", 3) == ATSK_MISS,
        "another type, an unknown name and a statistic");
  CHECK(n_sets == sets, "none of which reaches Traffic Server");
  CHECK(n_wrong_locks == 0 && pthread_rwlock_trywrlock(&g_records_rwlock) == 0, "locks were as they should be, and none is left");
}

int
main(void)
{
  reading();
  writing();
  return tap_end();
}
