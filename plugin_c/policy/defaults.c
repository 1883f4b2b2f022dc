/* See defaults.h. */
#include "policy/defaults.h"

#include <string.h>

#define OPTION_MS_MAX 600000u /* of options that are no policy */

ATSK_STATIC_ASSERT(sizeof(struct atsk_default_numbers) == 64, "a last good state has it");

static bool
are_sane(const struct atsk_default_numbers *numbers)
{
  static const uint32_t nothing[3] = {0, 0, 0};
  return numbers->connect_ms >= 1 && numbers->connect_ms <= OPTION_MS_MAX && numbers->read_ms != ATSK_NONE &&
         numbers->send_ms != ATSK_NONE && numbers->request_ms != ATSK_NONE && numbers->retry_tries >= 1 &&
         numbers->retry_tries <= ATSK_RETRY_TRIES_MAX && numbers->retry_ms != ATSK_NONE && numbers->retry_percent <= 100 &&
         numbers->load_balance >= ATSK_BALANCE_ROUND_ROBIN && numbers->load_balance <= ATSK_BALANCE_HASH &&
         numbers->health_failures <= ATSK_HEALTH_FAILURES_MAX && numbers->health_ejection_ms >= 1 &&
         numbers->health_ejection_ms <= OPTION_MS_MAX && numbers->health_panic <= 100 &&
         memcmp(numbers->reserved, nothing, sizeof nothing) == 0;
}

enum atsk_status
atsk_defaults_of(const struct atsk_default_numbers *numbers, struct atsk_defaults *out)
{
  if (!are_sane(numbers)) {
    return ATSK_E_RANGE;
  }
  const struct atsk_policy_timeouts timeouts = {numbers->connect_ms, numbers->read_ms, numbers->send_ms, numbers->request_ms};
  memset(out, 0, sizeof *out);
  atsk_timeouts_resolve(&out->treatment.timeouts, &timeouts, &out->treatment.timeouts); /* which bounds them */
  out->treatment.retry_on   = ATSK_RETRY_DEFAULT;
  out->treatment.tries      = numbers->retry_tries < ATSK_TRIES_MAX ? numbers->retry_tries : ATSK_TRIES_MAX;
  out->treatment.retry_ms   = numbers->retry_ms;
  out->treatment.body_max   = numbers->body_max;
  out->load_balance         = numbers->load_balance;
  out->panic_percent        = numbers->health_panic;
  out->health.max_failures  = numbers->health_failures;
  out->health.base_ms       = numbers->health_ejection_ms;
  out->health.max_ms        = numbers->health_ejection_ms < ATSK_HEALTH_MAX_MS ? ATSK_HEALTH_MAX_MS : numbers->health_ejection_ms;
  out->retry_budget.percent = numbers->retry_percent;
  out->retry_budget.per_second = numbers->retry_percent == 0 ? 0 : ATSK_RETRY_BUDGET_PER_SECOND;
  out->numbers                 = *numbers;
  return ATSK_OK;
}
