/* See health.h.  Every access is relaxed: the figures order nothing.  What two threads write at once may lose one of the two (a failure
 * that is not counted, an ejection seen some picks late), and never more; only who ejects is settled, by one compare-and-swap. */
#include "endpoints/health.h"

#include "endpoints/endpoint_layout.h"

#define COUNT_MS 100u  /* how old the count of ejected endpoints may be */
#define COUNT_BITS 24u /* of n_ejected: the count; the rest is its time */
#define COUNT_MAX ((UINT64_C(1) << COUNT_BITS) - 1)
#define STAMP_MASK ((UINT64_C(1) << (64 - COUNT_BITS)) - 1) /* of milliseconds: goes round every 34 years */
#define DOUBLINGS_MAX 16u

/* What was counted holds no more.  relaxed: a pick that still sees the former count corrects itself COUNT_MS later. */
static void
count_forget(struct atsk_service *service)
{
  atomic_store_explicit(&service->n_ejected, 0, memory_order_relaxed);
}

/* Somebody is left out until `end`: picks are to look. */
static void
ejection_tell(struct atsk_service *service, uint64_t end)
{
  uint64_t latest = atomic_load_explicit(&service->ejected_until_ms, memory_order_relaxed);
  while (latest < end && !atomic_compare_exchange_weak_explicit(&service->ejected_until_ms, &latest, end, memory_order_relaxed,
                                                                memory_order_relaxed)) {
  }
  count_forget(service);
}

/* How long an ejection lasts: base * 2^n, no more than max, and up to a quarter less or more, so that pods which failed together are not
 * tried again together. */
static uint64_t
ejection_ms(const struct atsk_health_rules *rules, uint32_t n, uint64_t random)
{
  uint64_t time_ms = (uint64_t)rules->base_ms << (n < DOUBLINGS_MAX ? n : DOUBLINGS_MAX);
  if (time_ms > rules->max_ms) {
    time_ms = rules->max_ms;
  }
  return time_ms - time_ms / 4 + random % (time_ms / 2 + 1);
}

bool
atsk_health_failed(struct atsk_service *service, struct atsk_endpoint_state *state, const struct atsk_health_rules *rules,
                   uint64_t now_ms, uint64_t random)
{
  atomic_fetch_add_explicit(&state->failures, 1, memory_order_relaxed);
  uint32_t in_row = atomic_fetch_add_explicit(&state->failures_in_row, 1, memory_order_relaxed) + 1;
  if (rules->max_failures == 0 || in_row < rules->max_failures) {
    return false;
  }
  uint64_t until = atomic_load_explicit(&state->ejected_until_ms, memory_order_relaxed);
  if (until > now_ms) {
    return false;
  }
  uint32_t n      = atomic_load_explicit(&state->n_ejections, memory_order_relaxed);
  uint32_t last_s = atomic_load_explicit(&state->last_end_s, memory_order_relaxed);
  if (now_ms / 1000 > (uint64_t)last_s + rules->max_ms / 1000) {
    n = 0; /* it has been well for long */
  }
  uint64_t end = now_ms + ejection_ms(rules, n, random);
  if (!atomic_compare_exchange_strong_explicit(&state->ejected_until_ms, &until, end, memory_order_relaxed, memory_order_relaxed)) {
    return false; /* another thread has ejected or restored it this very moment */
  }
  atomic_store_explicit(&state->n_ejections, n + 1, memory_order_relaxed);
  atomic_store_explicit(&state->last_end_s, (uint32_t)(end / 1000), memory_order_relaxed);
  ejection_tell(service, end);
  return true;
}

bool
atsk_health_succeeded(struct atsk_service *service, struct atsk_endpoint_state *state)
{
  if (atomic_load_explicit(&state->failures_in_row, memory_order_relaxed) == 0) { /* the usual case writes nothing */
    return false;
  }
  atomic_store_explicit(&state->failures_in_row, 0, memory_order_relaxed);
  if (atomic_load_explicit(&state->ejected_until_ms, memory_order_relaxed) == 0 ||
      atomic_exchange_explicit(&state->ejected_until_ms, 0, memory_order_relaxed) == 0) {
    return false;
  }
  count_forget(service);
  return true;
}

void
atsk_health_probed(struct atsk_service *service, struct atsk_endpoint_state *state, uint64_t now_ms, uint32_t hold_ms)
{
  const uint64_t end = hold_ms == 0 ? 0 : now_ms + hold_ms;
  if (atomic_exchange_explicit(&state->probed_until_ms, end, memory_order_relaxed) != end) {
    ejection_tell(service, end);
  }
}

bool
atsk_health_is_ejected(const struct atsk_endpoint_state *state, uint64_t now_ms)
{
  /* C11's loads take no pointer to const; nothing is written. */
  struct atsk_endpoint_state *loaded = (struct atsk_endpoint_state *)(uintptr_t)state;
  return atomic_load_explicit(&loaded->ejected_until_ms, memory_order_relaxed) > now_ms ||
         atomic_load_explicit(&loaded->probed_until_ms, memory_order_relaxed) > now_ms;
}

uint32_t
atsk_health_count(const struct atsk_endpoint_set *set, uint64_t now_ms)
{
  uint32_t n = 0;
  for (uint32_t k = 0; k < set->n_eligible; k++) {
    n += atsk_health_is_ejected(set->endpoints[atsk_set_place(set, k)].state, now_ms);
  }
  return n;
}

/* One pick in COUNT_MS pays for looking at every endpoint's state; the others take its word.  To count in each of them would make an
 * ejection in a large set dearer than the pods that it spares. */
static uint64_t
ejected_count(struct atsk_service *service, const struct atsk_endpoint_set *set, uint64_t now_ms)
{
  uint64_t known       = atomic_load_explicit(&service->n_ejected, memory_order_relaxed);
  const uint64_t stamp = now_ms & STAMP_MASK;
  if (known != 0 && ((stamp - (known >> COUNT_BITS)) & STAMP_MASK) < COUNT_MS) {
    return known & COUNT_MAX;
  }
  uint64_t claimed = stamp << COUNT_BITS | (known & COUNT_MAX);
  if (!atomic_compare_exchange_strong_explicit(&service->n_ejected, &known, claimed, memory_order_relaxed, memory_order_relaxed)) {
    return known & COUNT_MAX; /* another pick counts just now */
  }
  uint64_t n = atsk_health_count(set, now_ms);
  n          = n < COUNT_MAX ? n : COUNT_MAX;
  /* Unless an endpoint was ejected or restored meanwhile, and the count forgotten. */
  (void)atomic_compare_exchange_strong_explicit(&service->n_ejected, &claimed, stamp << COUNT_BITS | n, memory_order_relaxed,
                                                memory_order_relaxed);
  return n;
}

bool
atsk_health_counts(struct atsk_service *service, const struct atsk_endpoint_set *set, uint32_t panic_percent, uint64_t now_ms)
{
  if (atomic_load_explicit(&service->ejected_until_ms, memory_order_relaxed) <= now_ms) {
    return false;
  }
  uint64_t n = ejected_count(service, set, now_ms);
  return n > 0 && n * 100 <= (uint64_t)set->n_eligible * panic_percent;
}
