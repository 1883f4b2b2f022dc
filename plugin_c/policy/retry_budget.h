/* How many attempts may be second ones, over the whole process: so that retries cannot multiply an outage.  In each second as many as a
 * share of the requests, and a floor besides, so that a process with few requests retries at all.  Any thread, lock-free.
 *
 * Requests are not counted here: whoever asks hands over a counter that exists anyway (stats.h), so that a request which is never
 * tried again pays nothing. */
#ifndef ATSK_RETRY_BUDGET_H
#define ATSK_RETRY_BUDGET_H

#include <stdbool.h>

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

struct atsk_retry_budget_rules {
  uint32_t percent;    /* of the requests; 100 or more means as many again */
  uint32_t per_second; /* allowed whatever the requests are */
};

/* May one more attempt be made?  If so it is taken.  `n_requests`: counted since the start of the process; `now_ms`: steady clock.
 * The share is of the requests of the last second before this one, or of this one when those are more.  A second whose counter is
 * read late (nobody retried for a while) counts the mean of the time between. */
bool atsk_retry_budget_take(const struct atsk_retry_budget_rules *rules, uint64_t n_requests, uint64_t now_ms) ATSK_MUST_CHECK;

ATSK_END_DECLS
#endif
