/* The time limits of one transaction: what its rule says, and the options where it says nothing, in the units of Traffic Server's several
 * clocks.  Pure. */
#ifndef ATSK_TIMEOUTS_H
#define ATSK_TIMEOUTS_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

/* Milliseconds, at most ATSK_TIMEOUT_MAX_MS; 0: none (but connect_ms, which is 1 or more). */
struct atsk_timeouts {
  uint32_t connect_ms; /* until the pod has taken the connection */
  uint32_t read_ms;    /* the pod's silence: before its answer, and within it */
  uint32_t send_ms;    /* the client's silence within its body */
  uint32_t request_ms; /* all of it */
};

#define ATSK_TIMEOUT_MAX_MS 2000000000u /* an int of milliseconds, as Traffic Server takes them, with room for what is added */

/* What is `said`, else `otherwise`. */
void atsk_timeouts_resolve(const struct atsk_timeouts *otherwise, const struct atsk_policy_timeouts *said,
                           struct atsk_timeouts *out);

/* Whole seconds that are never shorter, plus `slack_s`; 0 stays 0, no limit. */
uint32_t atsk_timeouts_seconds(uint32_t ms, uint32_t slack_s);

/* What is left at `now_ms` of `limit_ms` that began at `start_ms`; 0: nothing.  A limit of 0 is no limit: UINT32_MAX. */
uint32_t atsk_timeouts_left(uint32_t limit_ms, uint64_t start_ms, uint64_t now_ms);

ATSK_END_DECLS
#endif
