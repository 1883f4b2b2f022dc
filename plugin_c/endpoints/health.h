/* Health.  Passive: an endpoint whose attempts failed several times in a row is left out of picks for a time that grows, jittered; one
 * success brings it back.  Active: a check's verdict does the same for as long as it says, whatever attempts do.  When too many are out, none is (panic): a fault of our own must not empty the pool.
 * Any thread; no lock, no clock of its own: whoever calls says what time it is [ms, any steady clock, never 0]. */
#ifndef ATSK_HEALTH_H
#define ATSK_HEALTH_H

#include "base/atsk_base.h"

#include <stdbool.h>

ATSK_BEGIN_DECLS

struct atsk_endpoint_set;
struct atsk_endpoint_state;
struct atsk_service;

#define ATSK_HEALTH_FAILURES_MAX 1000u

struct atsk_health_rules {
  uint32_t max_failures; /* in a row, that eject, up to ATSK_HEALTH_FAILURES_MAX; 0: never */
  uint32_t base_ms;      /* the first ejection's time, doubled by each that follows */
  uint32_t max_ms;       /* but no longer than this; an endpoint that was not ejected for as long begins anew */
};

/* An attempt at an endpoint of `service` failed.  True: it is ejected now, and was not before. */
bool atsk_health_failed(struct atsk_service *service, struct atsk_endpoint_state *state, const struct atsk_health_rules *rules,
                        uint64_t now_ms, uint64_t random);

/* An attempt succeeded.  True: that ended an ejection, or the trial after one. */
bool atsk_health_succeeded(struct atsk_service *service, struct atsk_endpoint_state *state);

/* Are some endpoints to be left out of a pick from `set`, the service's current one?  No, if none is ejected, and if more than
 * `panic_percent` of the eligible are.  The count behind it is at most 100 ms old. */
bool atsk_health_counts(struct atsk_service *service, const struct atsk_endpoint_set *set, uint32_t panic_percent, uint64_t now_ms);

/* An active check failed: the endpoint is left out for the next `hold_ms`, unless the next verdict comes first; 0: it succeeded. */
void atsk_health_probed(struct atsk_service *service, struct atsk_endpoint_state *state, uint64_t now_ms, uint32_t hold_ms);

/* How many of the eligible are left out; looks at every one. */
uint32_t atsk_health_count(const struct atsk_endpoint_set *set, uint64_t now_ms);

bool atsk_health_is_ejected(const struct atsk_endpoint_state *state, uint64_t now_ms);

ATSK_END_DECLS
#endif
