/* The options' numbers: each range, and what they mean to the request path. */
#include "default_numbers.h"
#include "tap.h"

static bool
is_refused(struct atsk_default_numbers numbers)
{
  struct atsk_defaults before, out;
  memset(&before, 0x5a, sizeof before);
  out = before;
  return atsk_defaults_of(&numbers, &out) == ATSK_E_RANGE && memcmp(&out, &before, sizeof out) == 0;
}

#define REFUSED(field, value)                                  \
  do {                                                         \
    struct atsk_default_numbers numbers = sane_numbers;        \
    numbers.field                       = (value);             \
    CHECK(is_refused(numbers), "refused: " #field " " #value); \
  } while (0)

int
main(void)
{
  struct atsk_defaults out;
  CHECK(atsk_defaults_of(&sane_numbers, &out) == ATSK_OK, "numbers in their ranges");
  CHECK(out.treatment.timeouts.connect_ms == 5000 && out.treatment.timeouts.read_ms == 300000 &&
          out.treatment.timeouts.send_ms == 60000 && out.treatment.timeouts.request_ms == 3600000,
        "time limits");
  CHECK(out.treatment.retry_on == (ATSK_RETRY_CONNECT | ATSK_RETRY_TIMEOUT | ATSK_RETRY_RESET) && out.treatment.tries == 3 &&
          out.treatment.retry_ms == 10000 && out.treatment.n_statuses == 0,
        "retries");
  CHECK(out.treatment.body_max == UINT64_C(1) << 40 && out.panic_percent == 50 && out.load_balance == ATSK_BALANCE_HASH,
        "the rest");
  CHECK(out.health.max_failures == 5 && out.health.base_ms == 10000 && out.health.max_ms == 300000, "health");
  CHECK(out.retry_budget.percent == 20 && out.retry_budget.per_second > 0, "the budget has a floor");
  CHECK(memcmp(&out.numbers, &sane_numbers, sizeof sane_numbers) == 0, "and the numbers are kept");

  struct atsk_default_numbers other = sane_numbers;
  other.retry_percent               = 0;
  other.health_ejection_ms          = 600000;
  other.read_ms                     = ATSK_NONE - 1u;
  CHECK(atsk_defaults_of(&other, &out) == ATSK_OK && out.retry_budget.per_second == 0, "no budget: no floor either");
  CHECK(out.health.max_ms == 600000, "the longest ejection is no shorter than the first");
  CHECK(out.treatment.timeouts.read_ms == ATSK_TIMEOUT_MAX_MS, "a time limit that ATS cannot hold is its longest");

  REFUSED(connect_ms, 0);
  REFUSED(connect_ms, 600001);
  REFUSED(read_ms, ATSK_NONE);
  REFUSED(send_ms, ATSK_NONE);
  REFUSED(request_ms, ATSK_NONE);
  REFUSED(retry_tries, 0);
  REFUSED(retry_tries, ATSK_RETRY_TRIES_MAX + 1);
  REFUSED(retry_ms, ATSK_NONE);
  REFUSED(retry_percent, 101);
  REFUSED(load_balance, ATSK_BALANCE_DEFAULT);
  REFUSED(load_balance, ATSK_BALANCE_HASH + 1);
  REFUSED(health_failures, 1001);
  REFUSED(health_ejection_ms, 0);
  REFUSED(health_ejection_ms, 600001);
  REFUSED(health_panic, 101);
  REFUSED(reserved[1], 1);
  return tap_end();
}
