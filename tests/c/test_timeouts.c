/* Time limits: a rule's word before the options', and units that never cut short. */
#include "tap.h"
#include "policy/timeouts.h"

static const struct atsk_timeouts options = {.connect_ms = 5000, .read_ms = 300000, .send_ms = 60000, .request_ms = 0};

int
main(void)
{
  struct atsk_timeouts is;
  const struct atsk_policy_timeouts nothing = {ATSK_NONE, ATSK_NONE, ATSK_NONE, ATSK_NONE};
  atsk_timeouts_resolve(&options, &nothing, &is);
  CHECK(memcmp(&is, &options, sizeof is) == 0, "a policy that says nothing: the options");
  const struct atsk_policy_timeouts some = {250, 0, ATSK_NONE, 90000};
  atsk_timeouts_resolve(&options, &some, &is);
  CHECK(is.connect_ms == 250 && is.read_ms == 0 && is.send_ms == 60000 && is.request_ms == 90000, "what it says counts, 0 too");
  const struct atsk_policy_timeouts huge = {ATSK_NONE - 1u, ATSK_NONE - 1u, 1, ATSK_NONE};
  atsk_timeouts_resolve(&options, &huge, &is);
  CHECK(is.connect_ms == ATSK_TIMEOUT_MAX_MS && is.read_ms == ATSK_TIMEOUT_MAX_MS, "weeks fit an int of milliseconds");

  CHECK(atsk_timeouts_seconds(0, 5) == 0, "no limit stays none");
  CHECK(atsk_timeouts_seconds(1, 0) == 1 && atsk_timeouts_seconds(1000, 0) == 1 && atsk_timeouts_seconds(1001, 5) == 7, "seconds");

  CHECK(atsk_timeouts_left(0, 10, 1000000) == UINT32_MAX, "no limit: for ever");
  CHECK(atsk_timeouts_left(500, 1000, 1000) == 500 && atsk_timeouts_left(500, 1000, 1499) == 1, "what is left");
  CHECK(atsk_timeouts_left(500, 1000, 1500) == 0 && atsk_timeouts_left(500, 1000, 99999) == 0, "nothing is left");
  CHECK(atsk_timeouts_left(500, 1000, 900) == 500, "a start in the future has not begun");
  return tap_end();
}
