/* How a rule wants its requests treated once it is known where they go: time limits, second attempts, the largest body.  Values, copied out
 * of the table: they outlive its read section.  Pure. */
#ifndef ATSK_TREATMENT_H
#define ATSK_TREATMENT_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "blob/atsk_format.h"
#include "blob/policies.h"
#include "policy/timeouts.h"

ATSK_BEGIN_DECLS

#define ATSK_RETRY_DEFAULT ((uint32_t)(ATSK_RETRY_CONNECT | ATSK_RETRY_TIMEOUT | ATSK_RETRY_RESET))

struct atsk_treatment {
  struct atsk_timeouts timeouts;
  uint32_t retry_on;   /* enum atsk_retry_on, bits without GIVEN */
  uint32_t tries;      /* attempts in all, 1..ATSK_TRIES_MAX */
  uint32_t retry_ms;   /* no new attempt so long after the request came; 0: no bound */
  uint32_t n_statuses; /* what else is tried again, with ATSK_RETRY_STATUS */
  uint16_t statuses[ATSK_RETRY_STATUSES_MAX];
  uint64_t body_max; /* bytes; 0: unlimited */
};

/* `otherwise` (the options'), and over it what the policies say. */
void atsk_treatment_resolve(const struct atsk_treatment *otherwise, const struct atsk_policies *policies,
                            struct atsk_treatment *out);

/* Is a pod's answer with this status to be tried again at another one? */
bool atsk_treatment_retries_status(const struct atsk_treatment *treatment, int status);

ATSK_END_DECLS
#endif
