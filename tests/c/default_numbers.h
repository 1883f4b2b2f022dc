/* Options' numbers that are in their ranges, and none of them 0. */
#ifndef ATSK_TESTS_DEFAULT_NUMBERS_H
#define ATSK_TESTS_DEFAULT_NUMBERS_H

#include "policy/defaults.h"

static const struct atsk_default_numbers sane_numbers = {
  .body_max           = UINT64_C(1) << 40,
  .connect_ms         = 5000,
  .read_ms            = 300000,
  .send_ms            = 60000,
  .request_ms         = 3600000,
  .retry_tries        = 3,
  .retry_ms           = 10000,
  .retry_percent      = 20,
  .load_balance       = ATSK_BALANCE_HASH,
  .health_failures    = 5,
  .health_ejection_ms = 10000,
  .health_panic       = 50,
};

#endif
