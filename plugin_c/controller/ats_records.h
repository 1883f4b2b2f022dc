/* Traffic Server's configuration records ("proxy.config.*"), read and set while it runs, through the functions that the process itself
 * exports: 9.2's plugin API has no setter.  All of them are looked up at first use, and if one is missing nothing is ever called
 * (docs/adr/0009).  Controller's thread; knows neither ts.h nor Python.h. */
#ifndef ATSK_ATS_RECORDS_H
#define ATSK_ATS_RECORDS_H

#include <stdbool.h>

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

#define ATSK_RECORD_EXPRESSION_MAX 256u
#define ATSK_RECORD_VALUE_MAX 4096u

/* RecDataT of lib/records/I_RecDefs.h.  An unknown one is refused. */
enum atsk_record_type {
  ATSK_RECORD_INT    = 1,
  ATSK_RECORD_FLOAT  = 2,
  ATSK_RECORD_STRING = 3,
};

struct atsk_record {
  enum atsk_record_type type;
  bool is_dynamic;                             /* RECU_DYNAMIC: takes effect while the server runs */
  bool is_writable;                            /* RECA_NULL */
  bool is_null;                                /* a STRING without a value, which is not the empty one */
  int source;                                  /* RecSourceT: who set it last; given back with a former value */
  char expression[ATSK_RECORD_EXPRESSION_MAX]; /* what a value must match: a regular expression or "[least-most]"; "": anything */
  char value[ATSK_RECORD_VALUE_MAX];           /* as text; numbers in decimal */
};

/* NULL when records can be set in this process; else why not, as one line, valid for good. */
const char *atsk_records_unavailable(void);

/* What Traffic Server knows of the record `name`.  ATSK_OK; ATSK_MISS: there is no such configuration record; ATSK_E_STATE:
 * unavailable; ATSK_E_RANGE: it is of a type, or has an expression or a value of a length, that is not understood here. */
enum atsk_status atsk_record_read(const char *name, struct atsk_record *out) ATSK_MUST_CHECK;

/* Sets the record `name` of `type` to `value` (decimal digits for numbers; NULL: a STRING without a value) as coming from `source`.
 * The value is not checked: Traffic Server makes 0 of what is no number.  ATSK_OK; ATSK_MISS, ATSK_E_STATE; ATSK_E_RANGE: no such
 * type, or no number.  Transactions see it when Traffic Server next looks for changed records, within 3 s. */
enum atsk_status atsk_record_write(const char *name, enum atsk_record_type type, const char *value, int source) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
