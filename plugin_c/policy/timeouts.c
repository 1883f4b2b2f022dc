/* See timeouts.h. */
#include "policy/timeouts.h"

static uint32_t
limit_of(uint32_t said, uint32_t otherwise)
{
  const uint32_t limit = said == ATSK_NONE ? otherwise : said;
  return limit < ATSK_TIMEOUT_MAX_MS ? limit : ATSK_TIMEOUT_MAX_MS;
}

void
atsk_timeouts_resolve(const struct atsk_timeouts *otherwise, const struct atsk_policy_timeouts *said, struct atsk_timeouts *out)
{
  out->connect_ms = limit_of(said->connect_ms, otherwise->connect_ms);
  out->read_ms    = limit_of(said->read_ms, otherwise->read_ms);
  out->send_ms    = limit_of(said->send_ms, otherwise->send_ms);
  out->request_ms = limit_of(said->request_ms, otherwise->request_ms);
}

uint32_t
atsk_timeouts_seconds(uint32_t ms, uint32_t slack_s)
{
  return ms == 0 ? 0 : ms / 1000u + (ms % 1000u != 0 ? 1u : 0u) + slack_s;
}

uint32_t
atsk_timeouts_left(uint32_t limit_ms, uint64_t start_ms, uint64_t now_ms)
{
  if (limit_ms == 0) {
    return UINT32_MAX;
  }
  const uint64_t passed = now_ms > start_ms ? now_ms - start_ms : 0;
  return passed < limit_ms ? limit_ms - (uint32_t)passed : 0;
}
