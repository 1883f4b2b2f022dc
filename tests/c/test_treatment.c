/* What a rule's policies change of the options' treatment, each by itself. */
#include "tap.h"
#include "policy/treatment.h"

#include <string.h>

static const struct atsk_treatment options = {.timeouts = {5000, 300000, 60000, 0},
                                              .retry_on = ATSK_RETRY_DEFAULT,
                                              .tries    = 3,
                                              .retry_ms = 10000,
                                              .body_max = 1000};

int
main(void)
{
  struct atsk_treatment is;
  struct atsk_policies none;
  memset(&none, 0, sizeof none);
  atsk_treatment_resolve(&options, &none, &is);
  CHECK(memcmp(&is, &options, sizeof is) == 0, "nothing is said: the options");

  const struct atsk_policy_timeouts timeouts = {ATSK_NONE, 1, ATSK_NONE, ATSK_NONE};
  struct atsk_policies policies              = none;
  policies.timeouts                          = &timeouts;
  atsk_treatment_resolve(&options, &policies, &is);
  CHECK(is.timeouts.read_ms == 1 && is.timeouts.connect_ms == 5000 && is.tries == 3, "one time limit");

  struct atsk_policy_retry retry = {.on = 0, .tries = 0, .time_ms = ATSK_NONE};
  policies                       = none;
  policies.retry                 = &retry;
  atsk_treatment_resolve(&options, &policies, &is);
  CHECK(memcmp(&is, &options, sizeof is) == 0, "a retry policy that says nothing");
  retry = (struct atsk_policy_retry){.on = ATSK_RETRY_GIVEN, .tries = 1, .time_ms = 0};
  atsk_treatment_resolve(&options, &policies, &is);
  CHECK(is.retry_on == 0 && is.tries == 1 && is.retry_ms == 0, "off");
  retry = (struct atsk_policy_retry){.on         = ATSK_RETRY_GIVEN | ATSK_RETRY_STATUS | ATSK_RETRY_RESET,
                                     .tries      = 8,
                                     .time_ms    = 7,
                                     .n_statuses = 2,
                                     .statuses   = {429, 503}};
  atsk_treatment_resolve(&options, &policies, &is);
  CHECK(is.retry_on == (ATSK_RETRY_STATUS | ATSK_RETRY_RESET) && is.retry_ms == 7, "words");
  CHECK(is.tries <= ATSK_TRIES_MAX && is.tries >= 4, "tries are bounded by what a request has room for");
  CHECK(atsk_treatment_retries_status(&is, 503) && atsk_treatment_retries_status(&is, 429), "its statuses");
  CHECK(!atsk_treatment_retries_status(&is, 500) && !atsk_treatment_retries_status(&is, 0), "no others");
  CHECK(!atsk_treatment_retries_status(&options, 503), "nor without the word");

  const struct atsk_policy_body body = {0};
  policies                           = none;
  policies.body                      = &body;
  atsk_treatment_resolve(&options, &policies, &is);
  CHECK(is.body_max == 0, "an unlimited body, whatever the options say");
  return tap_end();
}
