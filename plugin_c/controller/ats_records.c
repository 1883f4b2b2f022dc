/* See ats_records.h.
 *
 * Locks (9.2.9, lib/records).  A record is found under g_records_rwlock and changed under its own mutex.  RecSetRecord takes the first for
 * writing; RecExecConfigUpdateCbs, on a task thread every 3 s, holds a changed record's mutex while its callbacks run, and those take the
 * first for reading.  Setting one record twice from a thread of ours could therefore meet its own callbacks, each side holding what the
 * other waits for, and with the lock held for writing every reader in the process would wait for good:
 *
 *   task thread                               here, with lock = true
 *   mutex of R                                g_records_rwlock, for writing
 *   callback of R: g_records_rwlock ... waits mutex of R ... waits
 *
 * (Tried: the whole server stood still within seconds, for good.)  So the lock is taken here, for reading, and the setter called with lock = false: it changes no table ("we don't actually need to wrlock",
 * says its own comment), readers do not exclude each other (glibc prefers them to waiting writers), and what is held is what any reader of a
 * record holds.  The typed setters are used and not RecSetRecordConvert: under traffic_manager that one sends a pointer for a number. */
#include "controller/ats_records.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REC_OKAY 0         /* RecErrT */
#define RECT_CONFIG 0x01   /* RecT */
#define RECT_LOCAL 0x10    /* RecT: a record of traffic_manager's, kept here, too */
#define RECU_DYNAMIC 1     /* RecUpdateT */
#define RECA_NULL 0        /* RecAccessT */
#define FLOAT_TEXT_MAX 32u /* "%.9g" gives a float back as it was */

/* C++ functions by their mangled names (Itanium ABI): the types are in them, so another signature is another name. */
static struct {
  int (*type)(const char *name, int *out, bool lock);
  int (*data_type)(const char *name, int *out, bool lock);
  int (*update_type)(const char *name, int *out, bool lock);
  int (*access_type)(const char *name, int *out, bool lock);
  int (*source)(const char *name, int *out, bool lock);
  int (*check_expression)(const char *name, char **out, bool lock);
  int (*get_int)(const char *name, int64_t *out, bool lock);
  int (*get_float)(const char *name, float *out, bool lock);
  int (*get_string)(const char *name, char **out, bool lock); /* a copy, for free_string */
  int (*set_int)(const char *name, int64_t value, int source, bool lock);
  int (*set_float)(const char *name, float value, int source, bool lock);
  int (*set_string)(const char *name, char *value, int source, bool lock); /* copies */
  void (*free_string)(void *memory);
  pthread_rwlock_t *lock;
} ats;

static const struct {
  const char *symbol;
  void *place;
} needed[] = {
  {"_Z16RecGetRecordTypePKcP4RecTb", &ats.type},
  {"_Z20RecGetRecordDataTypePKcP8RecDataTb", &ats.data_type},
  {"_Z22RecGetRecordUpdateTypePKcP10RecUpdateTb", &ats.update_type},
  {"_Z22RecGetRecordAccessTypePKcP10RecAccessTb", &ats.access_type},
  {"_Z18RecGetRecordSourcePKcP10RecSourceTb", &ats.source},
  {"_Z21RecGetRecordCheckExprPKcPPcb", &ats.check_expression},
  {"_Z15RecGetRecordIntPKcPlb", &ats.get_int},
  {"_Z17RecGetRecordFloatPKcPfb", &ats.get_float},
  {"_Z26RecGetRecordString_XmallocPKcPPcb", &ats.get_string},
  {"_Z15RecSetRecordIntPKcl10RecSourceTb", &ats.set_int},
  {"_Z17RecSetRecordFloatPKcf10RecSourceTb", &ats.set_float},
  {"_Z18RecSetRecordStringPKcPc10RecSourceTb", &ats.set_string},
  {"_TSfree", &ats.free_string},
  {"g_records_rwlock", &ats.lock},
};

static pthread_once_t resolved = PTHREAD_ONCE_INIT;
static char unavailable[512]; /* written once, under `resolved` */

static void
resolve(void)
{
  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
    void *found = dlsym(RTLD_DEFAULT, needed[i].symbol);
    if (found == NULL) {
      (void)snprintf(
        unavailable, sizeof unavailable,
        "this Traffic Server does not export %s, so proxy.config.* cannot be set while it runs (9.2 exports it); set them in "
        "records.config, or as PROXY_CONFIG_* in the environment",
        needed[i].symbol);
      return;
    }
    memcpy(needed[i].place, &found, sizeof found); /* ISO C has no conversion from void * to a function's address; POSIX has */
  }
}

const char *
atsk_records_unavailable(void)
{
  (void)pthread_once(&resolved, resolve);
  return unavailable[0] != '\0' ? unavailable : NULL;
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

static enum atsk_status
text_put(char *out, size_t room, const char *text)
{
  size_t len = strlen(text);
  if (len >= room) {
    return ATSK_E_RANGE; /* cut, it could not be given back */
  }
  memcpy(out, text, len + 1);
  return ATSK_OK;
}

static enum atsk_status
value_read(const char *name, struct atsk_record *out)
{
  int64_t number = 0;
  float fraction = 0;
  char *text     = NULL;
  enum atsk_status status;
  switch (out->type) {
  case ATSK_RECORD_INT:
    if (ats.get_int(name, &number, true) != REC_OKAY) {
      return ATSK_MISS;
    }
    (void)snprintf(out->value, sizeof out->value, "%" PRId64, number);
    return ATSK_OK;
  case ATSK_RECORD_FLOAT:
    if (ats.get_float(name, &fraction, true) != REC_OKAY) {
      return ATSK_MISS;
    }
    (void)snprintf(out->value, FLOAT_TEXT_MAX, "%.9g", (double)fraction);
    return ATSK_OK;
  case ATSK_RECORD_STRING:
    if (ats.get_string(name, &text, true) != REC_OKAY) {
      return ATSK_MISS;
    }
    out->is_null = text == NULL;
    status       = text_put(out->value, sizeof out->value, text != NULL ? text : "");
    if (text != NULL) {
      ats.free_string(text);
    }
    return status;
  }
  return ATSK_E_RANGE;
}

/* Is there a registered record of configuration (and not of statistics) called `name`?  To be asked first: some of the questions below
 * read the wrong arm of a union, or assert, otherwise. */
static bool
is_configuration(const char *name, int *data_type)
{
  int type = 0;
  return ats.type(name, &type, true) == REC_OKAY && (type == RECT_CONFIG || type == RECT_LOCAL) &&
         ats.data_type(name, data_type, true) == REC_OKAY;
}

enum atsk_status
atsk_record_read(const char *name, struct atsk_record *out)
{
  if (atsk_records_unavailable() != NULL) {
    return ATSK_E_STATE;
  }
  int data_type = 0, update = 0, access = 0;
  char *expression         = NULL; /* the server's own, for good */
  struct atsk_record found = {.type = ATSK_RECORD_INT};
  if (!is_configuration(name, &data_type) || ats.update_type(name, &update, true) != REC_OKAY ||
      ats.access_type(name, &access, true) != REC_OKAY || ats.source(name, &found.source, true) != REC_OKAY ||
      ats.check_expression(name, &expression, true) != REC_OKAY) {
    return ATSK_MISS;
  }
  if (data_type < ATSK_RECORD_INT || data_type > ATSK_RECORD_STRING) {
    return ATSK_E_RANGE;
  }
  found.type              = (enum atsk_record_type)data_type;
  found.is_dynamic        = update == RECU_DYNAMIC;
  found.is_writable       = access == RECA_NULL;
  enum atsk_status status = text_put(found.expression, sizeof found.expression, expression != NULL ? expression : "");
  status                  = status == ATSK_OK ? value_read(name, &found) : status;
  if (status == ATSK_OK) {
    *out = found;
  }
  return status;
}

/* --- writing ---------------------------------------------------------------------------------------------------------------- */

static bool
whole_number(const char *text, int64_t *out)
{
  char *end = NULL;
  errno     = 0;
  *out      = strtoll(text, &end, 10);
  return end != text && *end == '\0' && errno == 0;
}

static bool
fraction_of(const char *text, float *out)
{
  char *end = NULL;
  errno     = 0;
  *out      = strtof(text, &end);
  return end != text && *end == '\0' && errno == 0;
}

static int
value_write(const char *name, enum atsk_record_type type, const char *text, int64_t number, float fraction, int source)
{
  int result = -1;
  if (pthread_rwlock_rdlock(ats.lock) != 0) {
    return result;
  }
  switch (type) {
  case ATSK_RECORD_INT:
    result = ats.set_int(name, number, source, false);
    break;
  case ATSK_RECORD_FLOAT:
    result = ats.set_float(name, fraction, source, false);
    break;
  case ATSK_RECORD_STRING:
    result = ats.set_string(name, (char *)(uintptr_t)text, source, false); /* not written to: RecDataSet copies it */
    break;
  }
  (void)pthread_rwlock_unlock(ats.lock);
  return result;
}

enum atsk_status
atsk_record_write(const char *name, enum atsk_record_type type, const char *value, int source)
{
  if (atsk_records_unavailable() != NULL) {
    return ATSK_E_STATE;
  }
  int data_type  = 0;
  int64_t number = 0;
  float fraction = 0;
  /* Asked for its record first: RecSetRecord, given a type of its own, makes a new one of a name that it does not know. */
  if (!is_configuration(name, &data_type) || data_type != (int)type) {
    return ATSK_MISS;
  }
  if ((type == ATSK_RECORD_INT && (value == NULL || !whole_number(value, &number))) ||
      (type == ATSK_RECORD_FLOAT && (value == NULL || !fraction_of(value, &fraction)))) {
    return ATSK_E_RANGE;
  }
  return value_write(name, type, value, number, fraction, source) == REC_OKAY ? ATSK_OK : ATSK_MISS;
}
