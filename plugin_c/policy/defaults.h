/* What the options say where a rule says nothing: numbers as they cross from Python and stand in the last good state, checked, and what they
 * mean to the request path.  Pure. */
#ifndef ATSK_DEFAULTS_H
#define ATSK_DEFAULTS_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "endpoints/health.h"
#include "policy/retry_budget.h"
#include "policy/treatment.h"

ATSK_BEGIN_DECLS

#define ATSK_HEALTH_MAX_MS 300000u       /* the longest ejection, unless the first one is longer */
#define ATSK_RETRY_BUDGET_PER_SECOND 10u /* the floor of the budget of retries */

/* The options.  64 bytes of fixed width: a last good state has them as they are (state_format.h). */
struct atsk_default_numbers {
  uint64_t body_max;           /* --body-size [bytes]; 0: unlimited */
  uint32_t connect_ms;         /* --connect-timeout-ms, 1..600000 */
  uint32_t read_ms;            /* --read-timeout-ms; 0: none, as of the next two */
  uint32_t send_ms;            /* --send-timeout-ms */
  uint32_t request_ms;         /* --request-timeout-ms */
  uint32_t retry_tries;        /* --retry-tries, 1..ATSK_RETRY_TRIES_MAX */
  uint32_t retry_ms;           /* --retry-timeout-ms; 0: no bound */
  uint32_t retry_percent;      /* --retry-budget-percent, 0..100 */
  uint32_t load_balance;       /* --load-balance, enum atsk_balance but for DEFAULT */
  uint32_t health_failures;    /* --health-max-failures, 0..1000; 0: off */
  uint32_t health_ejection_ms; /* --health-ejection-ms, 1..600000 */
  uint32_t health_panic;       /* --health-panic-percent, 0..100 */
  uint32_t reserved[3];        /* 0 */
};

struct atsk_defaults {
  struct atsk_treatment treatment;
  uint32_t load_balance;  /* enum atsk_balance; HASH is by the client's address */
  uint32_t panic_percent; /* balance.h */
  struct atsk_health_rules health;
  struct atsk_retry_budget_rules retry_budget;
  struct atsk_default_numbers numbers; /* that they were made of */
};

/* ATSK_E_RANGE: a number is outside its range, and *out untouched. */
enum atsk_status atsk_defaults_of(const struct atsk_default_numbers *numbers, struct atsk_defaults *out) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
