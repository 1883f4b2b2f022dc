/* See treatment.h. */
#include "policy/treatment.h"

#include <string.h>

static void
retry_resolve(const struct atsk_policy_retry *said, struct atsk_treatment *out)
{
  if (said->on & ATSK_RETRY_GIVEN) {
    out->retry_on = said->on & ~(uint32_t)ATSK_RETRY_GIVEN;
  }
  if (said->tries != 0) {
    out->tries = said->tries < ATSK_TRIES_MAX ? said->tries : ATSK_TRIES_MAX;
  }
  if (said->time_ms != ATSK_NONE) {
    out->retry_ms = said->time_ms;
  }
  out->n_statuses = said->n_statuses < ATSK_RETRY_STATUSES_MAX ? said->n_statuses : ATSK_RETRY_STATUSES_MAX;
  memcpy(out->statuses, said->statuses, sizeof out->statuses);
}

void
atsk_treatment_resolve(const struct atsk_treatment *otherwise, const struct atsk_policies *policies, struct atsk_treatment *out)
{
  *out = *otherwise;
  if (policies->timeouts != NULL) {
    atsk_timeouts_resolve(&otherwise->timeouts, policies->timeouts, &out->timeouts);
  }
  if (policies->retry != NULL) {
    retry_resolve(policies->retry, out);
  }
  if (policies->body != NULL) {
    out->body_max = policies->body->max_bytes;
  }
}

bool
atsk_treatment_retries_status(const struct atsk_treatment *treatment, int status)
{
  if (!(treatment->retry_on & ATSK_RETRY_STATUS)) {
    return false;
  }
  for (uint32_t i = 0; i < treatment->n_statuses; i++) {
    if (treatment->statuses[i] == status) {
      return true;
    }
  }
  return false;
}
